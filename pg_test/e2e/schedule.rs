//! Tests the schedulers, which are pg_cron, pasted jobs, the worker and an external scheduler, and what watches them:
//! the doctor, the health view and the text for Prometheus.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, HashSet};

use connector_service_test::*;
use postgres::Client;

const CRON: &str = "shared_preload_libraries = 'connector_service, pg_cron'\ncron.database_name = 'app'\ncron.host = '127.0.0.1'";

fn with_cron(settings: &str) -> (Cluster, Client) {
    let cluster = Cluster::create();
    cluster.configure(&format!("{CRON}\n{settings}"));
    cluster.run();
    let mut client = cluster.database("app");
    client.batch_execute("CREATE EXTENSION pg_cron").unwrap();
    (cluster, client)
}

fn vendor() -> Vendor {
    Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1}], "next": null}"#.into()))
}

fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn count(client: &mut Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).unwrap().get(0)
}

const JOBS: [&str; 6] = [
    "connector_service_daily",
    "connector_service_history",
    "connector_service_hourly",
    "connector_service_missing_data",
    "connector_service_monthly_refresh",
    "connector_service_weekly",
];

#[test]
fn the_jobs_are_installed_once_and_belong_to_one_role() {
    let (cluster, mut client) = with_cron("");
    for _ in 0..2 {
        let made = texts(
            &mut client,
            "SELECT * FROM connector_service_schedule() ORDER BY 1",
        );
        assert_eq!(made, JOBS);
        assert_eq!(count(&mut client, "SELECT count(*) FROM cron.job"), 6);
    }
    // What somebody changed is as it should be again.
    client
        .batch_execute("SELECT cron.schedule('connector_service_hourly', '1 1 1 1 *', 'SELECT 1'); SELECT connector_service_schedule()")
        .unwrap();
    let sql = "SELECT schedule || ' ' || command FROM cron.job WHERE jobname = 'connector_service_hourly'";
    assert_eq!(
        texts(&mut client, sql),
        ["*/15 * * * * SELECT count(*) FROM public.connector_service_sync_due('hourly')"]
    );

    client
        .batch_execute("CREATE ROLE second LOGIN; GRANT connector_service_admin TO second")
        .unwrap();
    let mut second = cluster.client_as("second", "app");
    // pg_cron lets nobody in by itself.
    let error = second
        .batch_execute("SELECT connector_service_schedule()")
        .unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "42501", "{error:?}");
    let (ok, _, fix) = doctor(&mut second, "scheduler");
    let fix = fix.unwrap();
    assert!(
        !ok && error
            .hint()
            .unwrap()
            .contains(fix.split(';').next().unwrap()),
        "{error:?} {fix}"
    );
    assert_eq!(
        texts(&mut second, "SELECT * FROM connector_service_unschedule()"),
        [""; 0]
    );
    client.batch_execute(&fix).unwrap();
    let error = second
        .batch_execute("SELECT connector_service_schedule()")
        .unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "42501", "{error:?}");
    assert!(error.message().contains("\"postgres\""), "{error:?}");
    assert!(error.hint().unwrap().contains("unschedule"), "{error:?}");
    assert_eq!(
        texts(
            &mut second,
            "SELECT * FROM connector_service_unschedule() ORDER BY 1"
        ),
        [""; 0]
    );
    assert_eq!(
        texts(
            &mut client,
            "SELECT * FROM connector_service_unschedule() ORDER BY 1"
        ),
        JOBS
    );
    assert_eq!(count(&mut client, "SELECT count(*) FROM cron.job"), 0);
    assert_eq!(
        texts(
            &mut second,
            "SELECT * FROM connector_service_schedule() ORDER BY 1"
        ),
        JOBS
    );
    let sql = "SELECT DISTINCT username FROM cron.job";
    assert_eq!(texts(&mut client, sql), ["second"]);

    // Every command is one that runs.
    for command in texts(&mut second, "SELECT command FROM cron.job ORDER BY jobid") {
        second.batch_execute(&command).unwrap();
    }

    let mut other = cluster.database("other");
    let error = other
        .batch_execute("SELECT connector_service_schedule()")
        .unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert!(error.hint().unwrap().contains("(app)"), "{error:?}");
    assert!(
        error.detail().unwrap().contains("sync worker queues"),
        "{error:?}"
    );
}

#[test]
fn installed_and_pasted_pg_cron_jobs_together_make_one_run_for_each_slot() {
    let (_cluster, mut client) = with_cron("");
    let vendor = vendor();
    for i in 0..12 {
        insert_connector(
            &mut client,
            &format!("shop {i}"),
            &api(&vendor.url(), "orders"),
        );
    }
    // Every minute, so that the test need not wait for a quarter of an hour.
    client
        .batch_execute(
            "UPDATE connectors SET sync_frequency = (ARRAY['hourly', 'daily', 'weekly'])[1 + substr(name, 6)::integer % 3], next_sync_at = now();
             SELECT connector_service_schedule();
             SELECT cron.alter_job(jobid, schedule := '* * * * *') FROM cron.job WHERE jobname IN ('connector_service_hourly', 'connector_service_daily', 'connector_service_weekly');
             SELECT cron.schedule('pasted ' || frequency || i, '* * * * *', format($$ SELECT connector_service_sync(connector_id) FROM connectors
                WHERE status = 'active' AND sync_frequency = %L AND next_sync_at <= NOW() $$, frequency))
             FROM unnest(ARRAY['hourly', 'daily', 'weekly']) AS frequency, generate_series(1, 2) AS i",
        )
        .unwrap();
    wait_until(130, "all nine jobs have run", || {
        let sql =
            "SELECT count(DISTINCT jobid) FROM cron.job_run_details WHERE status = 'succeeded'";
        (count(&mut client, sql) == 9).then_some(())
    });
    wait_until(30, "every connector was synced", || {
        let sql = "SELECT count(*) FROM connectors WHERE last_sync_at IS NOT NULL";
        (count(&mut client, sql) == 12).then_some(())
    });
    let sql = "SELECT count(*) FROM sync_runs";
    assert_eq!(count(&mut client, sql), 12);
    let sql = "SELECT count(*) FROM cron.job_run_details WHERE status = 'failed'";
    assert_eq!(count(&mut client, sql), 0);
}

#[test]
fn daily_and_weekly_syncs_start_at_two_in_the_tenant_s_zone() {
    let (_cluster, mut client) = with_cron("connector_service.scheduler = 'pg_cron'");
    let vendor = vendor();
    let sql = "SELECT name, extract(hour FROM now() AT TIME ZONE name)::integer FROM pg_timezone_names WHERE name ~ '^Etc/GMT[+-][1-9]'";
    let zones: Vec<(String, i32)> = client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let (early, _) = zones.iter().find(|(_, hour)| *hour < 2).unwrap();
    let (late, _) = zones.iter().find(|(_, hour)| *hour >= 2).unwrap();
    for (tenant, zone) in [("aa", early), ("bb", late)] {
        let id = format!("00000000-0000-4000-8000-0000000000{tenant}");
        let sql = "INSERT INTO tenants (tenant_id, timezone) VALUES ($1::text::uuid, $2)";
        client.execute(sql, &[&id, zone]).unwrap();
        for frequency in ["hourly", "daily", "weekly"] {
            let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency, next_sync_at)
                VALUES ($1::text::uuid, $2, 'api', $3, '{\"api_key\": \"sk_test_not_a_real_key\"}', $2, now() + interval '1 hour')";
            let config = api(&vendor.url(), "orders");
            client.execute(sql, &[&id, &frequency, &config]).unwrap();
        }
    }
    // Not new any more: a first sync does not wait for two o'clock.
    client
        .batch_execute("UPDATE connectors SET next_sync_at = now()")
        .unwrap();
    let sql = "SELECT count(*) FROM connector_service_sync_due($1)";
    let due = |client: &mut Client, frequency: &str| -> i64 {
        client.query_one(sql, &[&frequency]).unwrap().get(0)
    };
    assert_eq!(due(&mut client, "hourly"), 2);
    assert_eq!(due(&mut client, "daily"), 1);
    assert_eq!(due(&mut client, "weekly"), 1);
    let sql = "SELECT DISTINCT right(tenant_id::text, 2) FROM sync_runs JOIN connectors USING (connector_id, tenant_id) WHERE sync_frequency <> 'hourly'";
    assert_eq!(texts(&mut client, sql), ["bb"]);
    let error = client
        .batch_execute("SELECT connector_service_sync_due('monthly')")
        .unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22023");
}

#[test]
fn connectors_of_an_external_scheduler_are_synced_by_no_other() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let vendor = vendor();
    for (name, scheduler) in [("theirs", "external"), ("ours", "database")] {
        let connector = insert_connector(&mut client, name, &api(&vendor.url(), "orders"));
        let sql = "UPDATE connectors SET scheduler = $2, sync_frequency = 'hourly' WHERE connector_id = $1::text::uuid";
        client.execute(sql, &[&connector, &scheduler]).unwrap();
    }
    wait_until(30, "ours was synced", || {
        let sql = "SELECT count(*) FROM connectors WHERE last_sync_at IS NOT NULL";
        (count(&mut client, sql) == 1).then_some(())
    });
    client
        .batch_execute("SELECT connector_service_sync_due()")
        .unwrap();
    let sql = "SELECT c.name FROM sync_runs JOIN connectors c USING (connector_id)";
    assert_eq!(texts(&mut client, sql), ["ours"]);
    // The other one stays due until it is asked for.
    let sql = "SELECT connector_service_sync(connector_id)::text FROM connectors WHERE scheduler = 'external' AND next_sync_at <= now()";
    let run = texts(&mut client, sql).remove(0);
    assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    assert_eq!(texts(&mut client, sql), [""; 0]);
}

/// The doctor's words on one thing.
fn doctor(client: &mut Client, item: &str) -> (bool, String, Option<String>) {
    let sql = "SELECT ok, detail, fix FROM connector_service_doctor() WHERE item = $1";
    let row = client.query_one(sql, &[&item]).unwrap();
    let found: (bool, String, Option<String>) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(found.0, found.2.is_none(), "{item}: {found:?}");
    found
}

/// It finds something, in these words, and what it says mends it.
fn mends(client: &mut Client, item: &str, says: &str) {
    let (ok, detail, fix) = doctor(client, item);
    assert!(!ok && detail.contains(says), "{item}: {detail}");
    client.batch_execute(&fix.unwrap()).unwrap();
    let (ok, detail, _) = doctor(client, item);
    assert!(ok, "{item}: {detail}");
}

#[test]
fn the_doctor_finds_problems_and_its_statements_fix_them() {
    let (cluster, mut client) = with_cron("connector_service.scheduler = 'pg_cron'");
    let vendor = vendor();
    cluster.wait_worker("app");
    client
        .batch_execute("SELECT connector_service_schedule()")
        .unwrap();
    let wrong = "SELECT item || ': ' || detail FROM connector_service_doctor() WHERE NOT ok";
    assert_eq!(
        texts(&mut client, wrong),
        [""; 0],
        "a fresh installation is well"
    );

    client
        .batch_execute("SELECT connector_service_unschedule()")
        .unwrap();
    mends(&mut client, "scheduler", "pg_cron has no job");

    insert_connector(&mut client, "weekly shop", &api(&vendor.url(), "orders"));
    client
        .batch_execute(
            "SELECT connector_service_unschedule(); UPDATE connectors SET sync_frequency = 'weekly', next_sync_at = now() + interval '1 day';
             SELECT cron.schedule('pasted', '0 * * * *', $$SELECT connector_service_sync(connector_id) FROM connectors WHERE sync_frequency = 'hourly'$$)",
        )
        .unwrap();
    mends(&mut client, "job for each frequency", "weekly");
    // Jobs that came with a dump connect to the server that they were made on.
    client
        .batch_execute(
            "UPDATE cron.job SET nodeport = 1 WHERE jobname = 'connector_service_hourly'",
        )
        .unwrap();
    mends(&mut client, "job connection", "127.0.0.1:1");

    // Jobs for other databases are nothing to it.
    client
        .batch_execute(
            "CREATE ROLE second LOGIN SUPERUSER; SET ROLE second;
             SELECT cron.schedule_in_database('elsewhere', '0 * * * *', 'SELECT connector_service_sync_due()', 'postgres');
             SELECT cron.schedule('theirs', '0 * * * *', 'SELECT connector_service_sync_due()'); RESET ROLE",
        )
        .unwrap();
    mends(&mut client, "job owner", "second (1)");

    client
        .batch_execute(
            "INSERT INTO cron.job_run_details (jobid, runid, job_pid, database, username, command, status, return_message, start_time, end_time)
             SELECT jobid, 900001, 1, 'app', 'postgres', command, 'failed', 'connection failed', now(), now() FROM cron.job WHERE jobname = 'connector_service_hourly'",
        )
        .unwrap();
    let (ok, detail, fix) = doctor(&mut client, "failed jobs");
    assert!(!ok && detail.contains("connection failed"), "{detail}");
    assert!(fix.unwrap().contains("cron.use_background_workers"));
    client
        .batch_execute("DELETE FROM cron.job_run_details WHERE runid = 900001")
        .unwrap();
    assert!(doctor(&mut client, "failed jobs").0);

    client
        .batch_execute("UPDATE connectors SET next_sync_at = now() - interval '2 days'")
        .unwrap();
    mends(&mut client, "overdue connectors", "\"weekly shop\"");
    wait_until(30, "the sync is over", || {
        let sql = "SELECT count(*) FROM connectors WHERE last_sync_at IS NOT NULL";
        (count(&mut client, sql) == 1).then_some(())
    });

    client
        .batch_execute("UPDATE connectors SET next_sync_at = now() + interval '90 days'")
        .unwrap();
    mends(&mut client, "clock", "set back");

    client
        .batch_execute("UPDATE connectors SET status = 'error', error_message = 'no'")
        .unwrap();
    let (ok, detail, fix) = doctor(&mut client, "connectors");
    assert!(!ok && detail.contains("'weekly shop'"), "{detail}");
    let rows = client.query(&fix.unwrap(), &[]).unwrap();
    assert_eq!(rows[0].get::<_, String>(1), "no");
    client
        .batch_execute("UPDATE connectors SET status = 'paused'")
        .unwrap();
    assert!(doctor(&mut client, "connectors").0);

    client
        .batch_execute("SET log_statement = 'all'; SET log_min_duration_statement = 0")
        .unwrap();
    mends(&mut client, "statement logging", "log_statement = all");
    // Of libraries that are not loaded a setting can be made up.
    for (setting, value) in [
        ("log_min_duration_sample", "0"),
        ("log_transaction_sample_rate", "0.5"),
        ("debug_print_parse", "on"),
        ("debug_print_plan", "on"),
        ("log_parameter_max_length_on_error", "-1"),
        ("auto_explain.log_min_duration", "0"),
        ("pgaudit.log", "read, write"),
        ("pgaudit.role", "auditor"),
    ] {
        client
            .batch_execute(&format!("SET {setting} = '{value}'"))
            .unwrap();
        mends(&mut client, "statement logging", setting);
    }
    assert!(doctor(&mut client, "failed statements").0);

    client
        .batch_execute("INSERT INTO metrics (tenant_id, metric_type, metric_date, metric_value) VALUES ('00000000-0000-4000-8000-000000000001', 'revenue', '2026-01-05', 10)")
        .unwrap();
    // What has just changed is refreshed within a minute, without anybody.
    assert!(doctor(&mut client, "monthly_revenue").0);
    client
        .batch_execute("UPDATE metrics SET updated_at = now() - interval '10 minutes'")
        .unwrap();
    mends(&mut client, "monthly_revenue", "1 month");

    client
        .batch_execute("UPDATE installation SET held_since = now(), held_because = 'a test'")
        .unwrap();
    mends(&mut client, "copy", "a test");

    client
        .batch_execute(
            "UPDATE pg_extension SET extversion = '0.0.1' WHERE extname = 'connector_service'",
        )
        .unwrap();
    let (ok, detail, fix) = doctor(&mut client, "version");
    assert!(!ok && detail.contains("0.0.1"), "{detail}");
    assert!(
        fix.unwrap()
            .starts_with("ALTER EXTENSION connector_service UPDATE")
    );
    client
        .batch_execute("UPDATE pg_extension SET extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'connector_service') WHERE extname = 'connector_service'")
        .unwrap();

    // Credentials were sealed above; their key is gone.
    let file = cluster.dir.join("data.connector_service.key");
    let away = cluster.dir.join("away");
    std::fs::rename(&file, &away).unwrap();
    let (ok, detail, _) = doctor(&mut cluster.client("app"), "key");
    assert!(!ok, "{detail}");
    std::fs::rename(&away, &file).unwrap();
    assert!(doctor(&mut cluster.client("app"), "key").0);
    assert_eq!(texts(&mut client, wrong), [""; 0]);

    // In a database without pg_cron.
    let mut other = cluster.database("other");
    cluster.wait_worker("other");
    let (_, detail, fix) = doctor(&mut other, "scheduler");
    assert!(detail.contains("no due connector is queued"), "{detail}");
    // ALTER SYSTEM stands alone.
    for statement in fix.unwrap().split_inclusive(';') {
        other.batch_execute(statement).unwrap();
    }
    wait_until(10, "the setting is read again", || {
        let (ok, detail, _) = doctor(&mut cluster.client("other"), "scheduler");
        (ok && detail.contains("\"app\"")).then_some(())
    });
}

#[test]
fn the_doctor_reports_that_no_worker_runs() {
    let cluster = Cluster::start("max_worker_processes = 1");
    let mut client = cluster.database("app");
    // The one slot is the launcher's, or that of PostgreSQL's own.
    let (ok, detail, fix) = doctor(&mut client, "worker");
    assert!(!ok && detail.starts_with("0 of 1"), "{detail}");
    let fix = fix.unwrap();
    assert!(
        fix.starts_with("ALTER SYSTEM SET max_worker_processes = "),
        "{fix}"
    );
    client.batch_execute(&fix).unwrap();
    cluster.stop(Stop::Fast);
    cluster.run();
    let mut client = cluster.wait_ready_in("app");
    cluster.wait_worker("app");
    assert!(doctor(&mut client, "worker").0);

    cluster.configure("shared_preload_libraries = ''");
    cluster.stop(Stop::Fast);
    cluster.run();
    let mut client = cluster.wait_ready();
    drop(client);
    client = cluster.client("app");
    let (ok, detail, fix) = doctor(&mut client, "preload");
    assert!(!ok && detail.contains("nothing is synced"), "{detail}");
    client.batch_execute(&fix.unwrap()).unwrap();
    assert_eq!(
        doctor(&mut client, "worker").2.as_deref(),
        Some("see preload")
    );
    cluster.stop(Stop::Fast);
    cluster.run();
    let mut client = cluster.wait_ready_in("app");
    cluster.wait_worker("app");
    assert!(doctor(&mut client, "preload").0);
}

#[test]
fn the_health_of_each_connector_is_right_in_sql_and_for_prometheus() {
    let cluster = Cluster::start(
        "connector_service.request_retries = 0\nconnector_service.scheduler = 'pg_cron'",
    );
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|asked| match asked.path.as_str() {
        "/good" => Reply::Json(r#"{"data": [{"id": 1}, {"id": 2}], "next": null}"#.into()),
        "/hang" => Reply::Hang,
        "/gone" => Reply::status(404),
        _ => Reply::status(503),
    });
    let names = [
        ("good", "ok"),
        ("hang", "syncing"),
        ("gone", "error"),
        ("busy \"\\\n", "failing"),
        ("never", "new"),
        ("asleep", "paused"),
        ("late", "late"),
    ];
    for (name, _) in names {
        let connector = insert_connector(
            &mut client,
            name,
            &api(&vendor.url(), name.split(' ').next().unwrap()),
        );
        if ["good", "hang", "gone", "busy \"\\\n"].contains(&name) {
            sync(&mut client, &connector);
        }
    }
    client
        .batch_execute(
            "UPDATE connectors SET status = 'paused' WHERE name = 'asleep';
             UPDATE connectors SET sync_frequency = 'hourly', next_sync_at = now() - interval '2 hours' WHERE name = 'late'",
        )
        .unwrap();
    let expected: BTreeMap<String, String> = names
        .iter()
        .map(|(name, health)| ((*name).to_owned(), (*health).to_owned()))
        .collect();
    wait_until(30, "each connector is as it will be", || {
        let rows = client
            .query("SELECT name, health FROM connector_health", &[])
            .unwrap();
        let found: BTreeMap<String, String> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        (found == expected).then_some(())
    });
    let sql = "SELECT last_run_received = 2 AND lag < interval '1 minute' AND last_run_state = 'succeeded' AND active_run_id IS NULL FROM connector_health WHERE name = 'good'";
    assert!(client.query_one(sql, &[]).unwrap().get::<_, bool>(0));

    let text: String = client
        .query_one("SELECT connector_service_prometheus()", &[])
        .unwrap()
        .get(0);
    let samples = prometheus(&text);
    let value = |name: &str| samples.get(&format!("connector_service_{name}")).copied();
    assert_eq!(value("workers{}"), Some(1.0));
    assert_eq!(value(r#"connectors{health="ok"}"#), Some(1.0));
    assert_eq!(
        value(r#"runs_last_hour{kind="sync",state="failed"}"#),
        Some(2.0)
    );
    assert_eq!(value(r#"records_last_hour{result="inserted"}"#), Some(2.0));
    let up = |name: &str| {
        let of_it = |key: &&String| {
            key.starts_with("connector_service_connector_up{")
                && key.contains(&format!("name=\"{name}\""))
        };
        samples[samples.keys().find(of_it).unwrap()]
    };
    assert_eq!(up("good"), 1.0);
    assert_eq!(up("gone"), 0.0);
    assert_eq!(up(r#"busy \"\\\n"#), 0.0);
}

/// Reads the text as Prometheus does: a sample by its name and labels.
fn prometheus(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut typed = HashSet::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (what, name, rest) = (
                words.next().unwrap(),
                words.next().unwrap(),
                words.next().unwrap(),
            );
            match what {
                "HELP" => assert!(!typed.contains(name), "{line}"),
                "TYPE" => assert!(rest == "gauge" && typed.insert(name.to_owned()), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        assert!(typed.contains(name), "{line}: no TYPE before it");
        assert!(
            name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{line}"
        );
        let mut rest = labels;
        while !rest.is_empty() {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(
                label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{line}"
            );
            let mut end = None;
            let mut is_escaped = false;
            for (at, byte) in after.bytes().enumerate() {
                match byte {
                    _ if is_escaped => {
                        assert!(b"\\\"n".contains(&byte), "{line}");
                        is_escaped = false;
                    }
                    b'\\' => is_escaped = true,
                    b'"' => {
                        end = Some(at);
                        break;
                    }
                    _ => {}
                }
            }
            let after = &after[end.unwrap() + 1..];
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        let value = value.parse().unwrap();
        let before = samples.insert(format!("{name}{{{labels}}}"), value);
        assert!(before.is_none(), "{line}: twice");
    }
    samples
}
