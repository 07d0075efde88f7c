//! New, resumed and corrected connectors are synced at once, whoever keeps the schedule, and nothing runs twice.

use std::time::{Duration, Instant};

use super::*;

const CRON: &str = "shared_preload_libraries = 'connector_service, pg_cron'\ncron.database_name = 'app'\ncron.host = '127.0.0.1'\nconnector_service.request_retries = 0";

fn with_cron(settings: &str) -> (Cluster, Client) {
    let cluster = Cluster::create();
    cluster.configure(&format!("{CRON}\n{settings}"));
    cluster.run();
    let mut client = cluster.database("app");
    client.batch_execute("CREATE EXTENSION pg_cron").unwrap();
    cluster.wait_worker("app");
    (cluster, client)
}

/// Answers `/orders` well, `/locked` to who has the right key, `/slow` when it is let go, and nothing else.
fn vendor() -> Vendor {
    Vendor::start(|asked| {
        let good = || Reply::Json(r#"{"data": [{"id": 1}, {"id": 2}], "next": null}"#.into());
        match asked.path.as_str() {
            "/orders" => good(),
            "/locked" if asked.headers["authorization"].ends_with("right") => good(),
            "/locked" => Reply::status(401),
            "/slow" => Reply::Hang,
            "/busy" => Reply::status(503),
            _ => Reply::status(404),
        }
    })
}

/// The number of runs of a connector by their state.
fn runs(client: &mut Client, name: &str) -> String {
    let sql = format!(
        "SELECT coalesce(string_agg(state || ' ' || n, ', ' ORDER BY state), 'none') FROM (
            SELECT r.state, count(*) AS n FROM sync_runs r JOIN connectors c USING (connector_id) WHERE c.name = '{name}' GROUP BY 1) AS s"
    );
    text(client, &sql)
}

/// Within five seconds the runs of a connector are these.
fn soon(client: &mut Client, name: &str, expected: &str) {
    let since = Instant::now();
    loop {
        let found = runs(client, name);
        if found == expected {
            return;
        }
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "{name}: {found}, not {expected}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stays(client: &mut Client, name: &str, expected: &str) {
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(runs(client, name), expected, "{name}");
}

const DUE: &str = "UPDATE connectors SET next_sync_at = now() - interval '1 second' WHERE name = ";

#[test]
fn with_pg_cron_and_no_job_the_worker_keeps_the_schedule() {
    let (cluster, mut client) = with_cron("");
    let vendor = vendor();
    let shown = cluster.script("app", &insert("shop", &vendor.url(), "orders"));
    assert!(
        shown.contains("NOTICE:  connector \"shop\" will be synced at once, and then at each full hour of UTC, by the sync worker"),
        "{shown}"
    );
    assert!(
        shown.contains("HINT:  To wait for it: CALL public.connector_service_sync_wait('shop');"),
        "{shown}"
    );
    soon(&mut client, "shop", "succeeded 1");
    assert_eq!(
        count(&mut client, "SELECT count(*) FROM raw_connector_data"),
        2
    );
    let (ok, detail, fix) = doctor(&mut client, "scheduler");
    assert!(
        ok && fix.is_none() && detail.contains("so the sync worker queues them"),
        "{detail}"
    );
    client.batch_execute(&format!("{DUE}'shop'")).unwrap();
    soon(&mut client, "shop", "succeeded 2");

    // Jobs that are made later take the schedule over. They do not run during this test.
    client
        .batch_execute(
            "SELECT connector_service_schedule(); UPDATE cron.job SET schedule = '0 0 1 1 *'",
        )
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    client.batch_execute(&format!("{DUE}'shop'")).unwrap();
    stays(&mut client, "shop", "succeeded 2");
    let shown = cluster.script("app", &insert("second", &vendor.url(), "orders"));
    assert!(
        shown.contains("at once, and then at each full hour of UTC, by pg_cron"),
        "{shown}"
    );
    soon(&mut client, "second", "succeeded 1");
    assert_eq!(
        count(
            &mut client,
            "SELECT count(*) FROM connector_service_sync_due()"
        ),
        1
    );
    soon(&mut client, "shop", "succeeded 3");

    // Without the job for its frequency a connector is the worker's.
    client
        .batch_execute("SELECT cron.unschedule('connector_service_daily')")
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let daily = insert("daily", &vendor.url(), "orders");
    let shown = cluster.script(
        "app",
        &daily
            .replace("(name,", "(sync_frequency, name,")
            .replace("VALUES (", "VALUES ('DAILY', "),
    );
    assert!(
        shown.contains("each day at 00:00 of UTC, by the sync worker"),
        "{shown}"
    );
    soon(&mut client, "daily", "succeeded 1");
    client.batch_execute(&format!("{DUE}'daily'")).unwrap();
    soon(&mut client, "daily", "succeeded 2");

    // Jobs that are removed give it back.
    client
        .batch_execute("SELECT connector_service_unschedule()")
        .unwrap();
    client.batch_execute(&format!("{DUE}'shop'")).unwrap();
    soon(&mut client, "shop", "succeeded 4");
    stays(&mut client, "second", "succeeded 1");
    assert_eq!(count(&mut client, "SELECT count(*) FROM sync_runs"), 7);
}

#[test]
fn with_jobs_the_worker_syncs_what_is_resumed_or_corrected() {
    let (cluster, mut client) = with_cron("");
    let vendor = vendor();
    client
        .batch_execute(
            "SELECT connector_service_schedule(); UPDATE cron.job SET schedule = '0 0 1 1 *'",
        )
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));

    client
        .batch_execute(&insert("shop", &vendor.url(), "orders"))
        .unwrap();
    soon(&mut client, "shop", "succeeded 1");
    client
        .batch_execute("UPDATE connectors SET status = 'paused'")
        .unwrap();
    stays(&mut client, "shop", "succeeded 1");
    let shown = cluster.script(
        "app",
        "UPDATE connectors SET status = 'ACTIVE' WHERE name = 'shop'",
    );
    assert!(
        shown.contains("connector \"shop\" will be synced at once"),
        "{shown}"
    );
    soon(&mut client, "shop", "succeeded 2");

    // By its config.
    client
        .batch_execute(&insert("gone", &vendor.url(), "gone"))
        .unwrap();
    soon(&mut client, "gone", "failed 1");
    let sql = "SELECT status FROM connectors WHERE name = 'gone'";
    assert_eq!(text(&mut client, sql), "error");
    // What changes nothing corrects nothing.
    client
        .batch_execute(
            "UPDATE connectors SET config = config, credentials = credentials WHERE name = 'gone'",
        )
        .unwrap();
    stays(&mut client, "gone", "failed 1");
    let config = super::config(&vendor.url(), "orders");
    let shown = cluster.script(
        "app",
        &format!("UPDATE connectors SET config = '{config}' WHERE name = 'gone'"),
    );
    assert!(
        shown.contains("connector \"gone\" will be synced at once"),
        "{shown}"
    );
    soon(&mut client, "gone", "failed 1, succeeded 1");
    assert_eq!(text(&mut client, sql), "active");

    // By its credentials.
    client
        .batch_execute(&insert("locked", &vendor.url(), "locked"))
        .unwrap();
    soon(&mut client, "locked", "failed 1");
    client
        .batch_execute("UPDATE connectors SET credentials = credentials || '{\"api_key\": \"sk_test_right\"}' WHERE name = 'locked'")
        .unwrap();
    soon(&mut client, "locked", "failed 1, succeeded 1");
    // The same credentials under another key are no correction.
    client.batch_execute("UPDATE connectors SET status = 'error', next_sync_at = now() + interval '6 hours' WHERE name = 'locked'").unwrap();
    client
        .batch_execute("CALL connector_service_rotate_key()")
        .unwrap();
    stays(&mut client, "locked", "failed 1, succeeded 1");

    // What failed for a while is corrected, too.
    client
        .batch_execute(&insert("busy", &vendor.url(), "busy"))
        .unwrap();
    soon(&mut client, "busy", "failed 1");
    client
        .batch_execute(&format!(
            "UPDATE connectors SET config = '{config}' WHERE name = 'busy'"
        ))
        .unwrap();
    soon(&mut client, "busy", "failed 1, succeeded 1");
    assert_eq!(
        count(
            &mut client,
            "SELECT failures::bigint FROM connectors WHERE name = 'busy'"
        ),
        0
    );

    // While a run is going that does not know of the correction: another one follows.
    client
        .batch_execute(&insert("late", &vendor.url(), "gone"))
        .unwrap();
    soon(&mut client, "late", "failed 1");
    let slow = super::config(&vendor.url(), "slow");
    client
        .batch_execute(&format!(
            "UPDATE connectors SET config = '{slow}' WHERE name = 'late'"
        ))
        .unwrap();
    soon(&mut client, "late", "failed 1, running 1");
    client
        .batch_execute(&format!(
            "UPDATE connectors SET config = '{config}' WHERE name = 'late'"
        ))
        .unwrap();
    stays(&mut client, "late", "failed 1, running 1");
    client
        .batch_execute("SELECT connector_service_cancel('late')")
        .unwrap();
    soon(&mut client, "late", "cancelled 1, failed 1, succeeded 1");
    vendor.let_go();
    for name in ["shop", "gone", "busy", "late"] {
        assert!(runs(&mut client, name).ends_with(if name == "shop" {
            "succeeded 2"
        } else {
            "succeeded 1"
        }));
    }
    ledger_holds(&mut client);
}

#[test]
fn many_sessions_and_the_worker_together_run_nothing_twice() {
    let (cluster, mut client) = with_cron("");
    let vendor = vendor();
    client
        .batch_execute("SELECT connector_service_schedule(); UPDATE cron.job SET schedule = '* * * * *' WHERE jobname ~ 'hourly|daily|weekly'")
        .unwrap();
    let sessions: Vec<_> = (0..4)
        .map(|session| {
            let (mut client, url) = (cluster.client("app"), vendor.url());
            std::thread::spawn(move || {
                for i in 0..10 {
                    let insert = insert(&format!("shop {session} {i}"), &url, "orders");
                    client.batch_execute(&insert).unwrap();
                    client
                        .batch_execute("SELECT connector_service_sync_due()")
                        .unwrap();
                }
            })
        })
        .collect();
    for session in sessions {
        session.join().unwrap();
    }
    wait_until(30, "all are synced", || {
        let sql = "SELECT count(*) FROM connectors WHERE last_sync_at IS NOT NULL";
        (count(&mut client, sql) == 40).then_some(())
    });
    assert_eq!(count(&mut client, "SELECT count(*) FROM sync_runs"), 40);
}

#[test]
fn a_job_whose_owner_may_not_see_all_connectors_is_no_schedule() {
    let (_cluster, mut client) = with_cron("");
    let vendor = vendor();
    client
        .batch_execute(
            "CREATE ROLE poor LOGIN; GRANT USAGE ON SCHEMA cron TO poor; SET ROLE poor;
             SELECT cron.schedule('mine', '0 0 1 1 *', 'SELECT count(*) FROM public.connector_service_sync_due()'); RESET ROLE",
        )
        .unwrap();
    client
        .batch_execute(&insert("shop", &vendor.url(), "orders"))
        .unwrap();
    soon(&mut client, "shop", "succeeded 1");
    std::thread::sleep(Duration::from_secs(2));
    client.batch_execute(&format!("{DUE}'shop'")).unwrap();
    soon(&mut client, "shop", "succeeded 2");
    let (ok, detail, fix) = doctor(&mut client, "scheduler");
    assert!(!ok && detail.contains("none of them works"), "{detail}");
    mend(&mut client, &fix.unwrap());
    assert!(doctor(&mut client, "scheduler").0);
    std::thread::sleep(Duration::from_secs(2));
    client.batch_execute(&format!("{DUE}'shop'")).unwrap();
    stays(&mut client, "shop", "succeeded 2");
}

#[test]
fn who_is_left_to_others_is_told_so() {
    let (cluster, mut client) = with_cron("connector_service.scheduler = 'pg_cron'");
    let vendor = vendor();
    let shown = cluster.script("app", &insert("shop", &vendor.url(), "orders"));
    assert!(shown.contains("at once, and not again"), "{shown}");
    soon(&mut client, "shop", "succeeded 1");
    let (ok, detail, fix) = doctor(&mut client, "scheduler");
    assert!(!ok && detail.contains("pg_cron has no job"), "{detail}");
    mend(&mut client, &fix.unwrap());
    assert!(doctor(&mut client, "scheduler").0);

    let external = insert("airflow", &vendor.url(), "orders")
        .replace("(name,", "(scheduler, name,")
        .replace("VALUES (", "VALUES ('external', ");
    let shown = cluster.script("app", &external);
    assert!(
        shown.contains("when another scheduler calls connector_service_sync()"),
        "{shown}"
    );
    stays(&mut client, "airflow", "none");
    client
        .batch_execute("UPDATE connectors SET scheduler = 'database' WHERE name = 'airflow'")
        .unwrap();
    soon(&mut client, "airflow", "succeeded 1");

    let shown = cluster.script(
        "app",
        "INSERT INTO connectors (name, type) VALUES ('bank', 'csv'), ('events', 'webhook');
         INSERT INTO connectors (name, type, status) VALUES ('asleep', 'csv', 'paused');
         INSERT INTO connectors (name, type) SELECT 'file ' || i, 'csv' FROM generate_series(1, 500) AS i;
         UPDATE connectors SET status = 'paused' WHERE type = 'api'; UPDATE connectors SET status = 'active' WHERE type = 'api';",
    );
    assert!(
        shown.contains("connector \"bank\" will wait for files"),
        "{shown}"
    );
    assert!(
        shown.contains("SELECT public.connector_service_upload('bank', "),
        "{shown}"
    );
    assert!(
        shown.contains("connector \"events\" will wait for events"),
        "{shown}"
    );
    assert!(
        shown.contains("Set connector_service.gateway_listen"),
        "{shown}"
    );
    assert!(
        shown.contains("\"asleep\" will take no files while it is paused"),
        "{shown}"
    );
    assert!(
        shown.contains("500 connectors were added: 500 will wait for files"),
        "{shown}"
    );
    assert_eq!(shown.matches("NOTICE").count(), 6, "{shown}");

    // Many resumed at once are four notices.
    client
        .batch_execute(&format!(
            "INSERT INTO connectors (name, type, config, credentials, status) SELECT 'many ' || i, 'api', '{}', '{{\"api_key\": \"sk_test_not_a_real_key\"}}', 'paused' FROM generate_series(1, 30) AS i",
            super::config(&vendor.url(), "orders")
        ))
        .unwrap();
    let shown = cluster.script(
        "app",
        "UPDATE connectors SET status = 'active' WHERE name ~ 'many'",
    );
    assert_eq!(shown.matches("NOTICE").count(), 4, "{shown}");
    assert!(
        shown.contains("other connectors of this statement are due at once"),
        "{shown}"
    );
    wait_until(20, "all are synced", || {
        let sql =
            "SELECT count(*) FROM connectors WHERE name ~ 'many' AND last_sync_at IS NOT NULL";
        (count(&mut client, sql) == 30).then_some(())
    });
    let sql = "SELECT count(*) FROM sync_runs r JOIN connectors c USING (connector_id) WHERE c.name ~ 'many'";
    assert_eq!(count(&mut client, sql), 30);
}

#[test]
fn without_the_preload_a_notice_says_that_nothing_is_synced() {
    let cluster = Cluster::create();
    cluster.run();
    let _client = cluster.database("app");
    let shown = cluster.script(
        "app",
        "INSERT INTO connectors (name, type) VALUES ('shop', 'csv')",
    );
    assert!(
        shown.contains(
            "\"shop\" will not be synced: connector_service was not loaded when the server started"
        ),
        "{shown}"
    );
}

#[test]
fn waiting_ends_in_time_and_says_what_to_do() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    cluster.wait_worker("app");
    let vendor = vendor();
    client
        .batch_execute(&insert("slow", &vendor.url(), "slow"))
        .unwrap();
    let id = text(&mut client, "SELECT connector_id::text FROM connectors");
    for call in [
        "CALL connector_service_sync_wait('slow', '1 s')",
        &format!("CALL connector_service_sync_wait('{id}'::uuid, '1 s')"),
        "CALL connector_service_sync_wait('slow', p_timeout => '0 s')",
    ] {
        let (code, message, hint) = refusal(&mut client, call);
        assert_eq!(code, "57014", "{call}: {message}");
        assert!(message.contains("is still running after"), "{message}");
        assert!(
            hint.contains("CALL public.connector_service_wait('"),
            "{hint}"
        );
        let cancel = hint.split("To end it: ").nth(1).unwrap();
        assert!(
            cancel.starts_with("SELECT public.connector_service_cancel('"),
            "{hint}"
        );
    }
    for (call, code) in [
        ("CALL connector_service_sync_wait(NULL)", "22004"),
        ("CALL connector_service_sync_wait(NULL::uuid)", "22004"),
        ("CALL connector_service_wait(NULL)", "22004"),
        ("CALL connector_service_sync_wait('nobody')", "55000"),
        ("CALL connector_service_wait(gen_random_uuid())", "42704"),
    ] {
        let (found, message, _) = refusal(&mut client, call);
        assert_eq!(found, code, "{call}: {message}");
    }
    assert!(text(&mut client, "SELECT connector_service_cancel('slow')::text") == "true");
    assert!(text(&mut client, "SELECT connector_service_cancel('slow')::text") == "false");
    // A failed run with a code that nobody knows, and without a message.
    client
        .batch_execute("INSERT INTO sync_runs (connector_id, tenant_id, state, started_at, finished_at) SELECT connector_id, tenant_id, 'failed', now(), now() FROM connectors")
        .unwrap();
    let run = text(
        &mut client,
        "SELECT run_id::text FROM sync_runs WHERE state = 'failed'",
    );
    let (code, message, hint) = refusal(
        &mut client,
        &format!("CALL connector_service_wait('{run}')"),
    );
    assert!(
        code == "08006" && !message.is_empty() && !hint.is_empty(),
        "{code} {message} {hint}"
    );
    vendor.let_go();
}
