//! Tests that credentials are sealed before they are stored, opened only for a run, and appear nowhere else.

use std::path::{Path, PathBuf};

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

const SECRET: &str = "sk_test_not_a_real_key";
const TENANT: &str = "00000000-0000-4000-8000-000000000001";

struct Stage {
    cluster: Cluster,
    vendor: Vendor,
    client: Client,
    connector: String,
}

fn stage() -> Stage {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1}]}"#.into()));
    let connector = insert_connector(&mut client, "shop", &api(&vendor.url(), "orders"));
    Stage {
        cluster,
        vendor,
        client,
        connector,
    }
}

impl Stage {
    fn credentials(&mut self) -> Value {
        let sql = "SELECT credentials FROM connectors WHERE connector_id = $1::text::uuid";
        self.client
            .query_one(sql, &[&self.connector])
            .unwrap()
            .get(0)
    }

    fn sync(&mut self) -> Value {
        let run = sync(&mut self.client, &self.connector);
        wait_for_run(&mut self.client, &run)
    }

    /// Syncs, and returns the key that the vendor was shown.
    fn shown(&mut self) -> String {
        let run = self.sync();
        assert_eq!(run["state"], "succeeded", "{run}");
        let asked = self.vendor.asked();
        let shown = &asked.last().unwrap().headers["authorization"];
        shown.strip_prefix("Bearer ").unwrap().to_owned()
    }

    fn update(&mut self, credentials: &str) -> Result<u64, postgres::Error> {
        let sql = format!(
            "UPDATE connectors SET credentials = {credentials} WHERE connector_id = $1::text::uuid"
        );
        self.client.execute(&sql, &[&self.connector])
    }

    fn key_file(&self) -> PathBuf {
        self.cluster.dir.join("data.connector_service.key")
    }

    /// As the server's user, like everything that the server is to read.
    fn copy(&self, from: &Path, to: &Path) {
        let [from, to] = [from, to].map(|path| path.to_str().unwrap());
        self.cluster.command("/bin/cp", &["-p", from, to]);
    }

    fn keys(&mut self) -> Vec<(String, i64)> {
        let sql = "SELECT key_id, connectors FROM connector_service_keys()";
        let rows = self.client.query(sql, &[]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

/// SQLSTATE and message.
fn refused<T: std::fmt::Debug>(result: Result<T, postgres::Error>) -> (String, String) {
    let error = result.unwrap_err();
    let error = error.as_db_error().unwrap();
    let all = format!("{error:?}");
    assert!(!all.contains(SECRET), "{all}");
    (error.code().code().to_owned(), error.message().to_owned())
}

#[test]
fn credentials_are_stored_sealed_and_reach_the_vendor() {
    let mut stage = stage();
    let stored = stage.credentials();
    let sealed = stored["api_key"]["$sealed"].as_str().unwrap();
    assert!(!stored.to_string().contains(SECRET));
    assert_eq!(stage.shown(), SECRET);
    let key_id = sealed.split('.').nth(1).unwrap();
    assert_eq!(stage.keys(), [(key_id.to_owned(), 1)]);

    // What was read can be saved again, and one field can be changed without knowing the others.
    assert_eq!(stage.update("credentials").unwrap(), 1);
    assert_eq!(stage.credentials(), stored);
    stage
        .update(r#"credentials || '{"other": {"user": "u"}}'"#)
        .unwrap();
    let both = stage.credentials();
    assert_eq!(both["api_key"], stored["api_key"]);
    assert!(both["other"]["$sealed"].is_string());
    stage
        .update(r#"credentials || '{"api_key": "second"}'"#)
        .unwrap();
    assert_eq!(stage.credentials()["other"], both["other"]);
    assert_eq!(stage.shown(), "second");

    // The file is the server's alone, and not where a base backup would find it.
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(stage.key_file()).unwrap();
    assert_eq!(file.mode() & 0o777, 0o600);
    assert!(!stage.key_file().starts_with(stage.cluster.data()));
}

#[test]
fn credentials_that_a_client_sealed_are_accepted() {
    let mut stage = stage();
    let sql = "SELECT connector_service_seal_key()";
    let key: String = stage.client.query_one(sql, &[]).unwrap().get(0);
    let field = json!({"api_key": {"$box": sealed_box(&key, "boxed")}});
    stage.update(&format!("credentials || '{field}'")).unwrap();
    assert_eq!(stage.shown(), "boxed");
    let all = json!({"api_key": "all in one", "$tenant": TENANT}).to_string();
    let all = json!({"$box": sealed_box(&key, &all)});
    stage.update(&format!("'{all}'")).unwrap();
    assert_eq!(stage.shown(), "all in one");
    assert!(stage.credentials()["api_key"]["$sealed"].is_string());

    let of_another = json!({"api_key": "x", "$tenant": "00000000-0000-4000-8000-000000000002"});
    let of_another = json!({"$box": sealed_box(&key, &of_another.to_string())});
    assert_eq!(refused(stage.update(&format!("'{of_another}'"))).0, "42501");
    let broken = json!({"api_key": {"$box": "AAAA"}});
    assert_eq!(refused(stage.update(&format!("'{broken}'"))).0, "22023");
    assert_eq!(stage.shown(), "all in one");
}

#[test]
fn credentials_of_another_connector_are_refused() {
    let mut stage = stage();
    let theirs = stage.credentials();
    let url = stage.vendor.url();
    let mine = insert_connector(&mut stage.client, "mine", &api(&url, "mine"));
    let first = std::mem::replace(&mut stage.connector, mine);
    let own = stage.credentials();
    assert_eq!(
        refused(stage.update(&format!("'{theirs}'"))),
        (
            "42501".into(),
            "credential \"api_key\" was sealed for another tenant, connector or field, or was changed".into()
        )
    );
    // Into another field of the same row.
    let moved = json!({"other": own["api_key"]});
    assert_eq!(refused(stage.update(&format!("'{moved}'"))).0, "42501");
    let move_row = "UPDATE connectors SET tenant_id = '00000000-0000-4000-8000-000000000002'";
    stage
        .client
        .batch_execute("INSERT INTO tenants VALUES ('00000000-0000-4000-8000-000000000002')")
        .unwrap();
    assert_eq!(refused(stage.client.execute(move_row, &[])).0, "42501");

    // Past the trigger: nothing is sent.
    let asked = stage.vendor.asked().len();
    stage
        .client
        .batch_execute("SET session_replication_role = replica")
        .unwrap();
    for planted in [
        format!("'{theirs}'"),
        format!(r#"'{{"api_key": "{SECRET}"}}'"#),
    ] {
        stage.update(&planted).unwrap();
        let run = stage.sync();
        assert_eq!(run["error_code"], "credentials_not_opened", "{run}");
        assert!(!run.to_string().contains(SECRET));
    }
    assert_eq!(stage.vendor.asked().len(), asked);
    stage.connector = first;
    assert_eq!(stage.shown(), SECRET);
}

#[test]
fn a_missing_or_wrong_key_is_one_error_and_the_right_key_clears_it() {
    let mut stage = stage();
    let stored = stage.credentials();
    let (file, kept) = (stage.key_file(), stage.cluster.dir.join("kept"));
    stage.copy(&file, &kept);
    let of_another = Stage {
        connector: String::new(),
        ..self::stage()
    };

    let insert = "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES ($1::text::uuid, 'x', 'stripe', $2)";
    let plain = json!({"api_key": SECRET});
    let missing = ("55000".to_owned(), "the key file is missing".to_owned());
    let other = (
        "55000".to_owned(),
        "the key file does not contain the key of this database's credentials".to_owned(),
    );
    for (replacement, expected) in [(None, missing), (Some(of_another.key_file()), other)] {
        match &replacement {
            None => std::fs::remove_file(&file).unwrap(),
            Some(replacement) => stage.copy(replacement, &file),
        }
        assert_eq!(
            refused(stage.client.execute(insert, &[&TENANT, &plain])),
            expected
        );
        assert_eq!(
            refused(
                stage
                    .client
                    .execute("SELECT connector_service_new_key()", &[])
            ),
            expected
        );
        let run = stage.sync();
        assert_eq!(run["error_code"], "key_missing", "{run}");
        // Nothing was made or written in its place, and what needs no key works.
        assert_eq!(file.exists(), replacement.is_some());
        assert_eq!(stage.credentials(), stored);
        stage
            .client
            .batch_execute("UPDATE connectors SET name = 'renamed', status = 'active'")
            .unwrap();
    }
    stage.copy(&kept, &file);
    assert_eq!(stage.shown(), SECRET);
    let sql = "SELECT status FROM connectors";
    let status: String = stage.client.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(status, "active");
}

#[test]
fn a_key_file_that_others_could_use_is_refused_without_its_path_or_content() {
    let mut stage = stage();
    let file = stage.key_file();
    let (path, kept) = (file.display().to_string(), stage.cluster.dir.join("kept"));
    stage.copy(&file, &kept);
    let kept = kept.display().to_string();
    let cases: [(&str, &[&str], &str); 6] = [
        ("/bin/chmod", &["0644", &path], "other users may read"),
        ("/bin/ln", &["-sf", &kept, &path], "not a regular file"),
        ("/bin/cp", &["/dev/null", &path], "holds no key"),
        (
            "/bin/cp",
            &["/etc/passwd", &path],
            "line 1 of the key file is not a key",
        ),
        ("/bin/mkdir", &[&path], "not a regular file"),
        ("/bin/chmod", &["0000", &path], "cannot be opened"),
    ];
    for (program, arguments, expected) in cases {
        let _ = std::fs::remove_dir(&file);
        let _ = std::fs::remove_file(&file);
        if program != "/bin/mkdir" {
            stage.cluster.command("/bin/cp", &["-p", &kept, &path]);
        }
        stage.cluster.command(program, arguments);
        let error = stage.update(r#"'{"api_key": "x"}'"#).unwrap_err();
        let error = format!("{:?}", error.as_db_error().unwrap());
        assert!(
            error.contains(expected) && error.contains("55000"),
            "{error}"
        );
        for hidden in [path.as_str(), "root:"] {
            assert!(!error.contains(hidden), "{error}");
        }
    }
}

#[test]
fn a_killed_key_rotation_continues_and_every_credential_stays_readable() {
    let mut stage = stage();
    // The last ones by their ids: what is held up here is not what is synced.
    let fill = "INSERT INTO connectors (connector_id, tenant_id, name, type, credentials, status)
                SELECT ('ffffff' || substr(gen_random_uuid()::text, 7))::uuid, $1::text::uuid, 'c' || i, 'stripe', jsonb_build_object('api_key', 'k' || i), 'paused' FROM generate_series(1, 450) i";
    stage.client.execute(fill, &[&TENANT]).unwrap();
    let first = stage.keys()[0].0.clone();
    // A row that somebody holds stops the rotation in the middle, where its session is killed.
    let mut holder = stage.cluster.client("app");
    holder
        .batch_execute(
            "BEGIN; SELECT FROM connectors WHERE connector_id = (SELECT connector_id FROM connectors ORDER BY 1 OFFSET 320 LIMIT 1) FOR UPDATE",
        )
        .unwrap();
    let mut other = stage.cluster.client("app");
    let sql = "SELECT pg_backend_pid()";
    let pid: i32 = other.query_one(sql, &[]).unwrap().get(0);
    let rotating =
        std::thread::spawn(move || other.batch_execute("CALL connector_service_rotate_key()"));
    wait_until(30, "three batches are sealed again", || {
        let counts: Vec<i64> = stage.keys().iter().map(|key| key.1).collect();
        counts.contains(&300).then_some(())
    });
    assert_eq!(stage.shown(), SECRET);
    let retire = format!("SELECT connector_service_retire_key('{first}')");
    holder.batch_execute("ROLLBACK; BEGIN; SELECT FROM connectors WHERE connector_id = (SELECT connector_id FROM connectors ORDER BY 1 OFFSET 440 LIMIT 1) FOR UPDATE").unwrap();
    // SAFETY: the process of our own cluster's session.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    rotating.join().unwrap().unwrap_err();
    holder.batch_execute("ROLLBACK").unwrap();
    assert_eq!(stage.keys().len(), 2);
    assert_eq!(refused(stage.client.batch_execute(&retire)).0, "55000");

    stage
        .client
        .batch_execute("CALL connector_service_rotate_key(false)")
        .unwrap();
    let keys = stage.keys();
    assert_eq!((keys.len(), keys[0].1), (1, 451));
    assert_ne!(keys[0].0, first);
    stage.client.batch_execute(&retire).unwrap();
    assert_eq!(stage.shown(), SECRET);
    // Twice, with a key that is in use all the time.
    stage
        .client
        .batch_execute("CALL connector_service_rotate_key()")
        .unwrap();
    assert_eq!(stage.keys().len(), 1);
    assert_eq!(stage.shown(), SECRET);
    let lines = std::fs::read_to_string(stage.key_file()).unwrap();
    let keys = lines.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(keys, 2);
}

#[test]
fn a_server_that_cannot_write_beside_its_data_keeps_its_key_elsewhere_and_says_where() {
    let cluster = Cluster::create();
    cluster.configure("shared_preload_libraries = 'connector_service'");
    let (folder, log) = (cluster.dir.clone(), cluster.dir.join("log"));
    let mode = |mode: &str| cluster.command("/bin/chmod", &[mode, folder.to_str().unwrap()]);
    cluster.command("/usr/bin/touch", &[log.to_str().unwrap()]);
    mode("0555");
    cluster.run();
    let url = cluster.url("postgres");
    let create = ["-X", "-d", &url, "-c", "CREATE EXTENSION connector_service"];
    let told = cluster.command("psql", &create);
    let mut client = cluster.client("postgres");
    let file: String = client
        .query_one("SELECT connector_service_key_file()", &[])
        .unwrap()
        .get(0);
    assert!(told.contains(&format!("\"{file}\"")), "{told}");
    assert!(told.contains("HINT:"), "{told}");
    let file = PathBuf::from(file);
    assert_ne!(file.parent(), Some(&*folder));
    assert!(!file.exists());

    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1}]}"#.into()));
    let connector = insert_connector(&mut client, "shop", &api(&vendor.url(), "orders"));
    let run = sync(&mut client, &connector);
    let run = wait_for_run(&mut client, &run);
    use std::os::unix::fs::MetadataExt;
    let made = std::fs::metadata(&file).unwrap();
    // A folder that can be written later is no reason to look there for the key.
    mode("0755");
    cluster.stop(Stop::Fast);
    cluster.run();
    let mut client = cluster.client("postgres");
    let again: String = client
        .query_one("SELECT connector_service_key_file()", &[])
        .unwrap()
        .get(0);
    let row = client
        .query_one(
            "SELECT ok FROM connector_service_doctor() WHERE item = 'key'",
            &[],
        )
        .unwrap();
    if file.starts_with(cluster.data()) {
        assert!(
            told.contains("WARNING:") && !row.get::<_, bool>(0),
            "{told}"
        );
    } else {
        assert!(told.contains("INFO:") && row.get::<_, bool>(0), "{told}");
        // In somebody's home, who has use for it no longer.
        cluster.command("/bin/rm", &[file.to_str().unwrap()]);
    }
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(made.mode() & 0o777, 0o600);
    assert_eq!(PathBuf::from(again), file);
}

#[test]
fn a_config_that_is_too_large_is_refused_when_saved() {
    let mut stage = stage();
    let set = |client: &mut Client, what: &str| {
        let sql = format!("UPDATE connectors SET {what}");
        let error = client.batch_execute(&sql).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert!(
            error.hint().is_some() && error.message().len() < 2_100,
            "{error:?}"
        );
        error.code().code().to_owned()
    };
    for (what, state) in [
        (
            "config = ('{\"a\": [' || repeat('null,', 8000000) || 'null]}')::jsonb",
            "22023",
        ),
        (
            "config = ('[' || repeat('[],', 30000) || '1]')::jsonb",
            "22023",
        ),
        (
            "config = (repeat('{\"a\":', 100) || '1' || repeat('}', 100))::jsonb",
            "22023",
        ),
        (
            "config = (repeat('[', 128) || repeat(']', 128))::jsonb",
            "22023",
        ),
        (
            "config = (repeat('[', 6000) || repeat(']', 6000))::jsonb",
            "22023",
        ),
        (
            "config = ('{\"a\": \"' || repeat('x', 2000000) || '\"}')::jsonb",
            "22023",
        ),
        (
            "config = ('{\"' || repeat('k', 900000) || '\": 1}')::jsonb",
            "22023",
        ),
        (
            "credentials = ('{\"a\": ' || repeat('[', 6000) || repeat(']', 6000) || '}')::jsonb",
            "22023",
        ),
        (
            "credentials = ('[' || repeat('null,', 8000000) || 'null]')::jsonb",
            "22023",
        ),
        (
            "credentials = ('{\"a\": \"' || repeat('x', 200000000) || '\"}')::jsonb",
            "22023",
        ),
        ("name = repeat('x', 1025)", "22001"),
        ("type = repeat('x', 70000)", "22023"),
        ("status = repeat('x', 70000)", "22023"),
        ("sync_frequency = repeat('x', 70000)", "22023"),
    ] {
        assert_eq!(set(&mut stage.client, what), state, "{what}");
    }
    for (sql, state) in [
        ("UPDATE tenants SET name = repeat('x', 1025)", "23514"),
        (
            "SELECT connector_service_create_token(repeat('x', 1025), NULL)",
            "22001",
        ),
        ("SELECT connector_service_create_token(NULL, NULL)", "22004"),
        ("SELECT connector_service_act_for(NULL, NULL)", "22004"),
        (
            "SELECT _connector_service.connector_service_check_config(NULL)",
            "22004",
        ),
        (
            "SELECT _connector_service.connector_service_seal(NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
            "22004",
        ),
    ] {
        let error = stage.client.batch_execute(sql).unwrap_err();
        assert_eq!(error.code().unwrap().code(), state, "{sql}");
    }

    // A row that was saved before there were bounds goes on, and its credentials can still be changed.
    stage
        .client
        .batch_execute(
            "SET session_replication_role = replica;
             UPDATE connectors SET name = repeat('x', 5000), config = jsonb_set(config, '{spare}', (SELECT jsonb_agg(NULL::int) FROM generate_series(1, 50000)));
             RESET session_replication_role",
        )
        .unwrap();
    assert_eq!(stage.shown(), SECRET);
    let run = stage.update(r#"'{"api_key": "another"}'"#);
    assert_eq!(run.unwrap(), 1);
    assert_eq!(stage.shown(), "another");
}
