//! The real Airflow as an outside scheduler of three databases: `docs/airflow/connector_service_dag.py`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use connector_service_test::*;
use postgres::{Client, NoTls, SimpleQueryMessage};
use serde_json::{Value, json};

const DATABASES: [&str; 3] = ["a", "b", "c"];
const CONNECTORS: i64 = 200;
/// Connectors of a task.
const BATCH: i64 = 50;

/// Longest that a component may take before it is heard of, first and again. Shorter: one that is slow on a busy machine
/// is taken for one that hangs. Longer: [`PATIENCE`] does not last for what it holds up.
const SILENCE: Duration = Duration::from_secs(60);
/// Seconds that anything of Airflow's may take. Fewer: none is left after a component was started again.
const PATIENCE: u64 = 300;

/// All that Airflow consists of, and the job by which a component tells its metadata database that it goes on.
const COMPONENTS: [(&[&str], Option<&str>); 4] = [
    (&["api-server"], None),
    // What serves logs to a web page would listen on every address.
    (&["scheduler", "--skip-serve-logs"], Some("SchedulerJob")),
    (&["dag-processor"], Some("DagProcessorJob")),
    (&["triggerer", "--skip-serve-logs"], Some("TriggererJob")),
];

/// What a failure is explained by: of the metadata database, and of each of the others.
const AIRFLOW_REPORT: &str = "SELECT job_type, state, now() - latest_heartbeat AS silent FROM job;
    SELECT run_id, state FROM dag_run;
    SELECT run_id, task_id, map_index, state, try_number, trigger_id, updated_at FROM task_instance ORDER BY 1, 2, 3;
    SELECT id, triggerer_id, created_date FROM trigger;
    SELECT datname, pid, backend_type, state, wait_event_type, wait_event, pg_blocking_pids(pid), now() - xact_start AS transaction,
        now() - state_change AS since, left(query, 300) AS query
    FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid()";
const DATABASE_REPORT: &str = "SELECT kind, state, waiting_for, retry_at, error_code, window_from, count(*), min(requested_at), max(finished_at)
    FROM sync_runs GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 6";

/// Everything of Airflow that this test runs, with a metadata database in the cluster.
struct Airflow {
    home: PathBuf,
    environment: BTreeMap<String, String>,
    components: Vec<Component>,
    metadata: Client,
    /// Databases for a report, by name.
    urls: BTreeMap<&'static str, String>,
    /// How often a component was started again.
    restarts: usize,
}

/// A process that goes on until it is stopped, with a group of its own.
struct Component {
    arguments: &'static [&'static str],
    job: Option<&'static str>,
    child: Child,
    began: Instant,
}

impl Component {
    fn signal(&self, signal: i32) {
        // SAFETY: a signal to a group that this process made; its number is not given away while a process of it is
        // left, or its first one was not waited for.
        unsafe { libc::kill(-(self.child.id() as i32), signal) };
    }
}

impl Airflow {
    /// Installed where it is not yet; its database is made, and nothing runs.
    fn create(cluster: &Cluster) -> Airflow {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let prepared = Command::new(root.join("pg_test/prepare.sh"))
            .args(["python", "airflow"])
            .status();
        assert!(prepared.unwrap().success());
        let home = cluster.dir.join("airflow");
        let dag = root.join("docs/airflow/connector_service_dag.py");
        // As its docstring says: a DAG out of one folder, and what a triggerer imports out of the other one.
        for folder in ["dags", "plugins"] {
            std::fs::create_dir_all(home.join(folder)).unwrap();
            let copy = home.join(folder).join("connector_service_dag.py");
            std::fs::copy(&dag, copy).unwrap();
        }
        cluster
            .client("postgres")
            .batch_execute("CREATE DATABASE airflow")
            .unwrap();
        let api = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let api = api.local_addr().unwrap();
        let server = format!("127.0.0.1:{}", cluster.port);
        let mut environment: BTreeMap<String, String> = [
            ("CORE__DAGS_FOLDER", home.join("dags").display().to_string()),
            (
                "CORE__PLUGINS_FOLDER",
                home.join("plugins").display().to_string(),
            ),
            ("CORE__LOAD_EXAMPLES", "False".into()),
            ("CORE__DAGS_ARE_PAUSED_AT_CREATION", "False".into()),
            ("CORE__EXECUTOR", "LocalExecutor".into()),
            ("CORE__PARALLELISM", "4".into()),
            (
                "CORE__EXECUTION_API_SERVER_URL",
                format!("http://{api}/execution/"),
            ),
            ("CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True".into()),
            (
                "DATABASE__SQL_ALCHEMY_CONN",
                format!("postgresql+psycopg2://postgres@{server}/airflow"),
            ),
            // How soon another scheduler takes over what one that was killed had begun.
            ("SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL", "30".into()),
            // How late the scheduler may hear of a deferral: less than the DAG waits before its first look.
            ("WORKERS__MIN_HEARTBEAT_INTERVAL", "1".into()),
            ("API__HOST", "127.0.0.1".into()),
            ("API__PORT", api.port().to_string()),
            ("API__BASE_URL", format!("http://{api}")),
            ("API__WORKERS", "1".into()),
            ("API__SECRET_KEY", "sk_test_not_a_real_key".into()),
            (
                "API_AUTH__JWT_SECRET",
                "sk_test_not_a_real_key_sk_test_not_a_real_key_sk_test_not_a_real_key".into(),
            ),
            ("USAGE_DATA_COLLECTION__ENABLED", "False".into()),
        ]
        .map(|(name, value)| (format!("AIRFLOW__{name}"), value))
        .into();
        environment.insert("AIRFLOW_HOME".into(), home.display().to_string());
        // Nothing listens on port 1.
        let gone = ("gone", "127.0.0.1:1".to_owned());
        for (database, server) in DATABASES
            .map(|name| (name, server.clone()))
            .into_iter()
            .chain([gone])
        {
            let name = format!("AIRFLOW_CONN_{}", database.to_uppercase());
            environment.insert(name, format!("postgres://airflow@{server}/{database}"));
        }
        for (name, value) in [
            ("CONNECTIONS", "a, b, c, gone"),
            ("SCHEDULE", ""),
            ("RETRY_DELAY", "2"),
            ("POLL", "6"),
        ] {
            environment.insert(format!("CONNECTOR_SERVICE_{name}"), value.into());
        }
        let airflow = Airflow {
            home,
            environment,
            components: Vec::new(),
            metadata: cluster.client("airflow"),
            urls: ["airflow", "a", "b", "c"]
                .map(|name| (name, cluster.url(name)))
                .into(),
            restarts: 0,
        };
        airflow.command(&["db", "migrate"]);
        airflow
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/airflow/bin/airflow");
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(&self.environment)
            .current_dir(&self.home)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of Airflow's to its end.
    fn command(&self, arguments: &[&str]) {
        let output = self.program(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "airflow {arguments:?}\n{}\n{}",
            text(&output.stdout),
            text(&output.stderr)
        );
    }

    fn start(&mut self) {
        self.components = COMPONENTS
            .map(|(arguments, job)| self.component(arguments, job))
            .into();
    }

    /// Starts a component, which goes on writing where one before it ended.
    fn component(
        &self,
        arguments: &'static [&'static str],
        job: Option<&'static str>,
    ) -> Component {
        let mut log = std::fs::OpenOptions::new();
        let log = log.create(true).append(true);
        let log = log.open(self.home.join(arguments[0])).unwrap();
        let mut command = self.program(arguments);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Component {
            arguments,
            job,
            child: command.process_group(0).spawn().unwrap(),
            began: Instant::now(),
        }
    }

    /// Starts again what has ended or is not heard of, as Airflow's documentation leaves to whoever runs it.
    fn supervise(&mut self) {
        let sql = "SELECT job_type, extract(epoch FROM now() - max(latest_heartbeat))::float8 FROM job GROUP BY job_type";
        let mut silent = BTreeMap::<String, f64>::new();
        for row in self.metadata.query(sql, &[]).unwrap() {
            silent.insert(row.get(0), row.get(1));
        }
        for number in 0..self.components.len() {
            let component = &mut self.components[number];
            let ended = component.child.try_wait().unwrap();
            let silent = component.job.map(|job| {
                let heard_of = silent.get(job).copied().unwrap_or(f64::INFINITY);
                heard_of.min(component.began.elapsed().as_secs_f64())
            });
            let why = match (ended, silent) {
                (Some(status), _) => format!("has ended: {status}"),
                (None, Some(silent)) if silent > SILENCE.as_secs_f64() => {
                    format!("was not heard of for {silent:.0} s")
                }
                _ => continue,
            };
            let (arguments, job) = (component.arguments, component.job);
            eprintln!("Airflow's {} {why}; it is started again", arguments[0]);
            component.signal(libc::SIGKILL);
            let _ = component.child.wait();
            self.components[number] = self.component(arguments, job);
            self.restarts += 1;
        }
    }

    /// Waits as [`wait_until`] does, and supervises meanwhile; `ready` is given the metadata database.
    fn wait<T>(&mut self, what: &str, mut ready: impl FnMut(&mut Client) -> Option<T>) -> T {
        let mut looked = Instant::now();
        wait_until(PATIENCE, what, || {
            if looked.elapsed() > Duration::from_secs(1) {
                self.supervise();
                looked = Instant::now();
            }
            ready(&mut self.metadata)
        })
    }

    /// What each component said last, and where everything stands.
    fn report(&self) {
        for component in &self.components {
            let name = component.arguments[0];
            let log = std::fs::read_to_string(self.home.join(name)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines.len().saturating_sub(60);
            eprintln!("--- the end of what the {name} said");
            eprintln!("{}", lines[end..].join("\n"));
        }
        for (name, url) in &self.urls {
            eprintln!("--- database {name}");
            let sql = match *name {
                "airflow" => AIRFLOW_REPORT,
                _ => DATABASE_REPORT,
            };
            let found = Client::connect(url, NoTls).and_then(|mut client| client.simple_query(sql));
            match found {
                Ok(messages) => messages.iter().for_each(print),
                Err(error) => eprintln!("{error}"),
            }
        }
    }

    /// What the tries of a task wrote.
    fn log(&self, run: &str, task: &str, map_index: i32, attempt: i32) -> String {
        let file = format!(
            "logs/dag_id=connector_service_sync/run_id={run}/task_id={task}/map_index={map_index}/attempt={attempt}.log"
        );
        std::fs::read_to_string(self.home.join(file)).unwrap_or_default()
    }
}

/// A row on a line, and an empty line after each statement's.
fn print(message: &SimpleQueryMessage) {
    match message {
        SimpleQueryMessage::Row(row) => {
            let columns = row.columns().iter().enumerate().filter_map(|(at, column)| {
                let value = row.get(at).filter(|value| !value.is_empty())?;
                Some(format!("{}={value}", column.name()))
            });
            eprintln!("{}", columns.collect::<Vec<_>>().join(" "));
        }
        SimpleQueryMessage::CommandComplete(_) => eprintln!(),
        _ => {}
    }
}

impl Drop for Airflow {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.report();
        }
        for component in &self.components {
            component.signal(libc::SIGTERM);
        }
        let deadline = Instant::now() + Duration::from_secs(15);
        for component in &mut self.components {
            while matches!(component.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
            // What is left of the group, and the child itself if it did not listen.
            component.signal(libc::SIGKILL);
            let _ = component.child.wait();
        }
    }
}

/// Answers with one order of the moment that it is asked from, by its path: at once, later, or not.
fn vendor(is_open: Arc<AtomicBool>) -> Vendor {
    let asked = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
    Vendor::start(move |request| {
        let times = {
            let mut asked = asked.lock().unwrap();
            let times = asked.entry(request.path.clone()).or_default();
            *times += 1;
            *times
        };
        match request.path.as_str() {
            "/gate" => {
                while !is_open.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            "/flaky" if times <= 2 => return Reply::status(503),
            "/patient" if times == 1 => {
                return Reply::Full {
                    status: 429,
                    headers: vec![("Retry-After", "1".into())],
                    body: vec![],
                };
            }
            "/broken" => return Reply::status(404),
            _ => {}
        }
        let since = &request.query["since"];
        Reply::Json(
            json!({"data": [{"id": &since[..10], "updated_at": since}], "next": null}).to_string(),
        )
    })
}

/// So many connectors that are due, once: an hourly one would be due again where the test meets a full hour.
fn insert(client: &mut Client, scheduler: &str, tenant: i32, path: &str, url: &str, count: i64) {
    let mut config = Shop::config(url);
    config["manifest"]["streams"][0]["retriever"]["requester"]["path"] = path.into();
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency, next_sync_at, scheduler)
        SELECT ('00000000-0000-4000-8000-' || lpad($1::integer::text, 12, '0'))::uuid, concat_ws(' ', $2::text, (SELECT count(*) FROM connectors) + i), 'api', $3,
            '{\"api_key\": \"sk_test_not_a_real_key\"}', 'manual', now(), $4 FROM generate_series(1, $5::bigint) AS i";
    client
        .execute(sql, &[&tenant, &path, &config, &scheduler, &count])
        .unwrap();
}

fn count(client: &mut Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).unwrap().get(0)
}

/// The first column that a query finds: how often each text.
fn tally(client: &mut Client, sql: &str) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for row in client.query(sql, &[]).unwrap() {
        *tally.entry(row.get(0)).or_default() += 1;
    }
    tally
}

fn counts<const N: usize>(counts: [(&str, usize); N]) -> BTreeMap<String, usize> {
    counts.map(|(text, count)| (text.to_owned(), count)).into()
}

#[test]
fn airflow_syncs_three_databases_retries_failures_and_backfills() {
    let began = Instant::now();
    let cluster = Cluster::start(
        "max_worker_processes = 16
         connector_service.max_syncs_per_account = 32
         connector_service.request_retries = 0
         connector_service.longest_pause = 0
         connector_service.read_timeout = '5min'
         connector_service.request_timeout = '5min'",
    );
    let is_open = Arc::new(AtomicBool::new(false));
    let vendor = vendor(is_open.clone());
    let url = vendor.url();
    let [mut a, mut b, mut c] = DATABASES.map(|name| cluster.database(name));
    a.batch_execute("CREATE ROLE airflow LOGIN IN ROLE connector_service_admin")
        .unwrap();
    insert(&mut a, "external", 1, "orders", &url, CONNECTORS - 10);
    insert(&mut a, "external", 2, "gate", &url, 10);
    insert(&mut b, "external", 1, "orders", &url, CONNECTORS - 2);
    insert(&mut b, "external", 2, "flaky", &url, 1);
    insert(&mut b, "external", 3, "patient", &url, 1);
    insert(&mut c, "external", 1, "orders", &url, CONNECTORS - 1);
    insert(&mut c, "external", 2, "broken", &url, 1);
    // Left to the worker, which asks for what is due in all three databases all the time.
    insert(&mut c, "database", 1, "orders", &url, 10);

    let mut airflow = Airflow::create(&cluster);
    airflow.start();
    airflow.wait("both DAGs are known", |metadata| {
        let sql = "SELECT count(*) FROM serialized_dag";
        (count(metadata, sql) == 2).then_some(())
    });
    let up = began.elapsed();

    // Somebody asked for these before; they are due again, and still going.
    a.batch_execute(
        "SELECT connector_service_sync(connector_id) FROM connectors WHERE name ~ 'gate'; UPDATE connectors SET next_sync_at = now() WHERE name ~ 'gate'",
    )
    .unwrap();
    airflow.command(&[
        "dags",
        "trigger",
        "connector_service_sync",
        "--run-id",
        "first",
    ]);
    let tasks = "SELECT state FROM task_instance WHERE dag_id = 'connector_service_sync' AND run_id = 'first' AND task_id = ";
    airflow.wait("there are batches", |metadata| {
        let sql = format!("{tasks} 'due' AND state = 'success'");
        tally(metadata, &sql).get("success").copied()
    });
    // From now on a job asks for the same in one of the databases.
    let is_over = Arc::new(AtomicBool::new(false));
    let (mut client, over) = (cluster.client("a"), is_over.clone());
    let job = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            let sql = "SELECT connector_service_sync(connector_id) FROM (SELECT connector_id FROM connectors WHERE next_sync_at <= now() LIMIT 2) AS due";
            client.execute(sql, &[]).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    // What waits takes no slot of a worker.
    airflow.wait("a task waits for what goes", |metadata| {
        let sql = format!("{tasks} 'sync' AND state = 'deferred'");
        tally(metadata, &sql).get("deferred").copied()
    });
    airflow.wait("every other connector of that database is synced", |_| {
        let sql = "SELECT count(*) FROM connectors WHERE last_sync_at IS NOT NULL";
        (count(&mut a, sql) == CONNECTORS - 10).then_some(())
    });
    is_open.store(true, Ordering::Relaxed);
    let state = airflow.wait("the DAG run ends", |metadata| {
        let sql = "SELECT state FROM dag_run WHERE run_id = 'first' AND state NOT IN ('queued', 'running')";
        tally(metadata, sql).into_keys().next()
    });
    is_over.store(true, Ordering::Relaxed);
    job.join().unwrap();
    let synced = began.elapsed();
    assert_eq!(state, "failed");

    // A task that went when its process was killed has lost a try of those that it has. How often what keeps failing was
    // asked for says then nothing of us; what succeeds does so once all the same.
    let is_exact = airflow.restarts == 0;
    let tries = |tries: usize| if is_exact { tries } else { 1 };

    // Every connector: its runs, and who asked for them.
    let list = match is_exact {
        true => "string_agg(r.text, ', ' ORDER BY r.requested_at)",
        false => {
            "concat_ws(', ', string_agg(DISTINCT r.text, ', ') FILTER (WHERE r.state = 'failed'),
                string_agg(r.text, ', ') FILTER (WHERE r.state <> 'failed'))"
        }
    };
    let runs = format!(
        "SELECT c.scheduler || ' ' || split_part(c.name, ' ', 1) || ': ' || {list}
         FROM connectors c LEFT JOIN (
            SELECT *, state || coalesce(' ' || error_code, '') || ' waits ' || waits AS text FROM sync_runs) r USING (connector_id)
         GROUP BY c.connector_id"
    );
    let one = "external orders: succeeded waits 0";
    let failed =
        |code: &str, times: usize| vec![format!("failed {code} waits 0"); tries(times)].join(", ");
    assert_eq!(
        tally(&mut a, &runs),
        counts([(one, 190), ("external gate: succeeded waits 0", 10)])
    );
    let flaky = format!(
        "external flaky: {}, succeeded waits 0",
        failed("server_error", 2)
    );
    let patient = "external patient: succeeded waits 1";
    assert_eq!(
        tally(&mut b, &runs),
        counts([(one, 198), (&flaky, 1), (patient, 1)])
    );
    let broken = format!("external broken: {}", failed("not_found", 4));
    let ours = "database orders: succeeded waits 0";
    assert_eq!(
        tally(&mut c, &runs),
        counts([(one, 199), (&broken, 1), (ours, 10)])
    );
    let asked = "SELECT requested_by FROM sync_runs";
    let [of_b, of_c] = [&mut b, &mut c].map(|client| tally(client, asked));
    let times = |times, found: &BTreeMap<_, _>| if is_exact { times } else { found["airflow"] };
    assert_eq!(of_b, counts([("airflow", times(202, &of_b))]));
    let of_airflow = times(203, &of_c);
    assert_eq!(of_c, counts([("airflow", of_airflow), ("schedule", 10)]));
    let shared = tally(&mut a, asked);
    assert!(shared["postgres"] >= 10, "{shared:?}");

    // Every task: the broken connector's and the lost database's have failed, each in all of its tries.
    let sql = format!(
        "SELECT split_part(rendered_map_index, ',', 1) || ' ' || state || ' ' || CASE WHEN {is_exact} THEN try_number ELSE 1 END
         FROM task_instance WHERE run_id = 'first' AND task_id = 'sync'"
    );
    let batches = (CONNECTORS / BATCH) as usize;
    let mut expected = counts([
        ("a success 1", batches),
        ("b success 1", batches - 1),
        ("c success 1", batches - 1),
        (&format!("c failed {}", tries(4)), 1),
        (&format!("gone failed {}", tries(4)), 1),
    ]);
    *expected
        .entry(format!("b success {}", tries(3)))
        .or_default() += 1;
    assert_eq!(tally(&mut airflow.metadata, &sql), expected);

    // Reported: which connector, why, and what to do.
    let sql = "SELECT map_index, value FROM xcom WHERE run_id = 'first' AND task_id = 'sync' AND key = 'failed'";
    let rows = airflow.metadata.query(sql, &[]).unwrap();
    assert_eq!(rows.len(), 1);
    let (map_index, report): (i32, Value) = (rows[0].get(0), rows[0].get(1));
    let row = c
        .query_one(
            "SELECT jsonb_build_object('connector_id', r.connector_id, 'name', c.name, 'run_id', r.run_id, 'error_code', r.error_code,
                'error_message', r.error_message, 'hint', connector_service_hint(r.error_code))
             FROM sync_runs r JOIN connectors c USING (connector_id) WHERE c.name ~ 'broken' ORDER BY r.requested_at DESC LIMIT 1",
            &[],
        )
        .unwrap();
    assert_eq!(report, json!([row.get::<_, Value>(0)]));
    for attempt in (1..=4).filter(|_| is_exact) {
        let log = airflow.log("first", "sync", map_index, attempt);
        for text in ["broken ", "not_found", "Check the names"] {
            assert!(log.contains(text), "{attempt}: {log}");
        }
    }

    // Airflow's own backfill: a DAG run for each day, and in it a run for each connector.
    let backfill = "backfill create --dag-id connector_service_backfill --from-date 2026-03-01 --to-date 2026-03-03 --dag-run-conf";
    let mut arguments: Vec<&str> = backfill.split(' ').collect();
    arguments.push(r#"{"connections": ["a"]}"#);
    airflow.command(&arguments);
    airflow.wait("the backfill is over", |metadata| {
        let sql = "SELECT state FROM dag_run WHERE run_type = 'backfill'";
        let states = tally(metadata, sql);
        assert!(!states.contains_key("failed"), "{states:?}");
        (states.get("success") == Some(&3)).then_some(())
    });
    let windows = "SELECT state || ' ' || to_char(window_from AT TIME ZONE 'UTC', 'MM-DD HH24') || ' to ' || to_char(window_to AT TIME ZONE 'UTC', 'MM-DD HH24')
        FROM sync_runs WHERE kind = 'backfill'";
    let all = CONNECTORS as usize;
    let expected = counts([
        ("succeeded 03-01 00 to 03-02 00", all),
        ("succeeded 03-02 00 to 03-03 00", all),
        ("succeeded 03-03 00 to 03-04 00", all),
    ]);
    assert_eq!(tally(&mut a, windows), expected);
    let days = "SELECT DISTINCT split_part(source_record_id, '/', 2) FROM raw_connector_data";
    let days: BTreeSet<String> = tally(&mut a, days).into_keys().collect();
    let expected = ["2020-01-01", "2026-03-01", "2026-03-02", "2026-03-03"];
    assert_eq!(days, expected.map(String::from).into());
    for client in [&mut b, &mut c] {
        let sql = "SELECT count(*) FROM sync_runs WHERE kind = 'backfill'";
        assert_eq!(count(client, sql), 0);
    }
    for client in [&mut a, &mut b, &mut c] {
        ledger_holds(client);
    }
    println!(
        "Airflow was up after {up:.1?}; {} connectors were synced, and the failing ones tried again, in {:.1?}; {} runs of a backfill took {:.1?}; of database a's {} runs Airflow asked for {}",
        CONNECTORS * 3,
        synced - up,
        all * 3,
        began.elapsed() - synced,
        CONNECTORS,
        shared.get("airflow").unwrap_or(&0)
    );
}
