//! Tests commands on whole databases. A command that fails must fail as on a server without the extension and end no
//! process, and what it waited for must be released however it ends.

use connector_service_test::*;
use postgres::Client;

/// Of a refusal: what PostgreSQL says.
type Said = Option<[String; 4]>;

fn said(result: Result<(), postgres::Error>) -> Said {
    let error = result.err()?;
    let said = error
        .as_db_error()
        .unwrap_or_else(|| panic!("the connection was lost: {error}"));
    Some([
        said.code().code().to_owned(),
        said.message().to_owned(),
        said.detail().unwrap_or_default().to_owned(),
        said.hint().unwrap_or_default().to_owned(),
    ])
}

/// Who says what, one statement after the other within a line.
const COMMANDS: &[(&str, &str)] = &[
    ("boss", "CREATE DATABASE plain TEMPLATE template0"),
    ("boss", "DROP DATABASE plain"),
    ("boss", "DROP DATABASE IF EXISTS plain"),
    ("boss", "DROP DATABASE nowhere"),
    ("boss", "DROP DATABASE template1"),
    ("boss", "ALTER DATABASE plain RENAME TO taken"),
    ("boss", "ALTER DATABASE plain RENAME TO other"),
    ("boss", "ALTER DATABASE taken RENAME TO plain"),
    ("boss", "ALTER DATABASE taken SET TABLESPACE nowhere"),
    ("boss", "ALTER DATABASE plain SET TABLESPACE pg_default"),
    ("boss", "CREATE DATABASE fresh TEMPLATE plain"),
    ("boss", "CREATE DATABASE fresh TEMPLATE nowhere"),
    (
        "boss",
        "CREATE DATABASE fresh TEMPLATE taken ENCODING 'LATIN1'",
    ),
    (
        "boss",
        "CREATE DATABASE fresh TEMPLATE taken TABLESPACE nowhere",
    ),
    (
        "boss",
        "CREATE DATABASE fresh TEMPLATE taken OWNER nobody_there",
    ),
    ("boss", "CREATE DATABASE fresh TEMPLATE"),
    ("boss", "CREATE DATABASE taken TEMPLATE taken"),
    ("boss", "DO $$ BEGIN EXECUTE 'DROP DATABASE taken'; END $$"),
    (
        "boss",
        "DO $$ BEGIN EXECUTE 'ALTER DATABASE taken RENAME TO plain'; EXCEPTION WHEN duplicate_database THEN NULL; END $$",
    ),
    (
        "boss",
        "BEGIN; SAVEPOINT s; ALTER DATABASE taken RENAME TO plain; COMMIT",
    ),
    (
        "boss",
        "BEGIN; CREATE DATABASE fresh TEMPLATE taken; COMMIT",
    ),
    ("owner", "BEGIN; DROP DATABASE owned; COMMIT"),
    (
        "owner",
        "BEGIN; ALTER DATABASE owned SET TABLESPACE pg_default; COMMIT",
    ),
    (
        "owner",
        "CREATE DATABASE x TEMPLATE owned TABLESPACE nowhere",
    ),
    ("owner", "CREATE DATABASE x TEMPLATE owned"),
    ("owner", "ALTER DATABASE owned RENAME TO taken"),
    ("owner", "DROP DATABASE taken"),
    ("inside", "DROP DATABASE owned"),
    ("inside", "DROP DATABASE owned WITH (FORCE)"),
    ("inside", "ALTER DATABASE owned RENAME TO another"),
    ("inside", "ALTER DATABASE owned SET TABLESPACE pg_default"),
    (
        "inside",
        "BEGIN; ALTER DATABASE owned RENAME TO another; COMMIT",
    ),
];

/// What each of the commands comes to on a server where somebody is connected to "plain".
fn what_is_said(cluster: &Cluster, with_extension: bool) -> Vec<(&'static str, Said)> {
    let mut boss = cluster.client("postgres");
    boss.batch_execute("CREATE ROLE owner LOGIN").unwrap();
    for name in ["plain", "taken", "owned"] {
        boss.batch_execute(&format!("CREATE DATABASE {name}"))
            .unwrap();
        if with_extension {
            cluster
                .client(name)
                .batch_execute("CREATE EXTENSION connector_service")
                .unwrap();
            cluster.wait_worker(name);
        }
    }
    boss.batch_execute("ALTER DATABASE owned OWNER TO owner")
        .unwrap();
    let mut connected = cluster.client("plain");
    let mut clients = [
        ("boss", boss),
        ("owner", cluster.client_as("owner", "postgres")),
        ("inside", cluster.client_as("owner", "owned")),
    ];
    let said = COMMANDS
        .iter()
        .map(|(who, command)| {
            let client: &mut Client = &mut clients
                .iter_mut()
                .find(|(name, _)| name == who)
                .expect("a client")
                .1;
            // As psql does: one statement after the other, what follows an ERROR too.
            let results: Vec<Said> = match command.starts_with("DO") {
                true => vec![said(client.batch_execute(command))],
                false => command
                    .split("; ")
                    .map(|statement| said(client.batch_execute(statement)))
                    .collect(),
            };
            let _ = client.batch_execute("ROLLBACK");
            (*command, results.into_iter().flatten().next())
        })
        .collect();
    connected.simple_query("SELECT 1").unwrap();
    said
}

#[test]
fn a_failing_command_fails_as_without_the_extension_and_ends_no_process() {
    let bare = Cluster::create();
    bare.run();
    let [preloading, serving] = [Cluster::start(""), Cluster::start("")];
    // Side by side: PostgreSQL waits five seconds for whoever is connected, again and again.
    let [expected, preloaded, served] = std::thread::scope(|scope| {
        [(&bare, false), (&preloading, false), (&serving, true)]
            .map(|(cluster, with_extension)| {
                scope.spawn(move || what_is_said(cluster, with_extension))
            })
            .map(|said| said.join().unwrap())
    });
    // A list in which everything worked would show nothing.
    assert!(expected.iter().filter(|(_, said)| said.is_some()).count() > 25);
    assert_eq!(preloaded, expected, "of a server that only preloads");
    assert_eq!(served, expected, "of databases with workers");
    for cluster in [&preloading, &serving] {
        let log = cluster.log();
        for trouble in ["terminated by signal", "PANIC", "reinitializing"] {
            assert_eq!(log.matches(trouble).count(), 0, "{trouble}");
        }
    }
    // Whoever was sent away is back.
    for name in ["plain", "taken", "owned"] {
        serving.wait_worker(name);
    }
}

/// A worker that does not answer, as far as commands can tell.
struct Stopped(i32);

impl Stopped {
    fn new(pid: i32) -> Stopped {
        // SAFETY: a process of this test's own server.
        unsafe { libc::kill(pid, libc::SIGSTOP) };
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::kill(self.0, libc::SIGCONT) };
    }
}

#[test]
fn a_command_whose_wait_is_cancelled_blocks_no_other_session() {
    let cluster = Cluster::start("");
    drop(cluster.database("h1"));
    let mut session = cluster.client("postgres");
    session
        .batch_execute("SET statement_timeout = '1s'")
        .unwrap();
    let in_a_savepoint = "BEGIN; SAVEPOINT s; ALTER DATABASE h1 RENAME TO h2";
    for (command, undo) in [
        ("DROP DATABASE h1", ""),
        ("CREATE DATABASE h2 TEMPLATE h1", ""),
        // The transaction goes on, and the database is nobody's business any more.
        (in_a_savepoint, "ROLLBACK TO s"),
    ] {
        let worker = cluster.wait_worker("h1");
        {
            let _stopped = Stopped::new(worker);
            let refused = said(session.batch_execute(command));
            assert_eq!(refused.expect("cancelled")[0], "57014", "{command}");
        }
        session.batch_execute(undo).unwrap();
        // While that session lives.
        wait_until(10, "another worker", || {
            cluster.worker("h1").filter(|pid| *pid != worker)
        });
    }
    session.batch_execute("ROLLBACK").unwrap();
    // A session that is terminated in the middle of its wait leaves nothing behind either.
    let worker = cluster.wait_worker("h1");
    {
        let _stopped = Stopped::new(worker);
        let mut other = cluster.client("postgres");
        let backend: i32 = other
            .query_one("SELECT pg_backend_pid()", &[])
            .unwrap()
            .get(0);
        let waiting = std::thread::spawn(move || other.batch_execute("DROP DATABASE h1"));
        wait_until(10, "it waits", || {
            let sql = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND query LIKE 'DROP%' AND wait_event = 'Extension'";
            session.query_opt(sql, &[&backend]).unwrap()
        });
        session
            .execute("SELECT pg_terminate_backend($1)", &[&backend])
            .unwrap();
        assert!(waiting.join().unwrap().is_err());
    }
    wait_until(10, "another worker", || {
        cluster.worker("h1").filter(|pid| *pid != worker)
    });
    assert_eq!(cluster.log().matches("terminated by signal").count(), 0);
}

#[test]
fn a_drop_in_a_database_without_the_extension_starts_no_process() {
    let cluster = Cluster::start("log_min_messages = debug1\n");
    let mut client = cluster.client("postgres");
    client.batch_execute("CREATE DATABASE plain").unwrap();
    let mut plain = cluster.client("plain");
    // CREATE EXTENSION has the launcher look around, and look into every database that it does not know.
    drop(cluster.database("served"));
    let started = || {
        let line = "starting background worker process \"connector_service sync worker\"";
        cluster.log().matches(line).count()
    };
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'connector_service%worker' AND datname IS DISTINCT FROM 'served'";
    let worker = wait_until(20, "every database was looked into", || {
        let others: i64 = client.query_one(sql, &[]).unwrap().get(0);
        (started() >= 3 && others == 0).then(|| cluster.worker("served"))?
    });
    let before = started();
    for _ in 0..40 {
        plain
            .batch_execute("BEGIN; CREATE TEMPORARY TABLE t (a int); DROP TABLE t; COMMIT")
            .unwrap();
    }
    for command in [
        "CREATE SCHEMA s",
        "DROP SCHEMA s",
        "CREATE ROLE r",
        "DROP OWNED BY r",
        "DROP EXTENSION plpgsql",
        "CREATE EXTENSION plpgsql",
        "ALTER EXTENSION plpgsql UPDATE",
    ] {
        plain.batch_execute(command).unwrap();
    }
    // The launcher does all that it was asked for before it starts this one's successor.
    client
        .execute("SELECT pg_terminate_backend($1)", &[&worker])
        .unwrap();
    wait_until(10, "its successor", || {
        cluster.worker("served").filter(|pid| *pid != worker)
    });
    assert_eq!(started(), before + 1);
}
