//! Tests what people do with connectors and runs: pause, resume, cancel, backfill and refresh. None of it may delay
//! other tenants, even if one of them has thousands of connectors.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

/// A shop that is asked for January 2026 by both of its ends, and whose forward cursor begins in June.
struct Stage {
    cluster: Cluster,
    vendor: Vendor,
    shop: Arc<Shop>,
    client: Client,
    connector: String,
}

fn by_both_ends(url: &str) -> Value {
    let mut config = Shop::config(url);
    let cursor = &mut config["manifest"]["streams"][0]["incremental_sync"];
    cursor["start_datetime"] = "2026-06-01T00:00:00Z".into();
    cursor["end_time_option"] = json!({"inject_into": "request_parameter", "field_name": "until"});
    config
}

fn stage(settings: &str, orders: usize, page: usize) -> Stage {
    let cluster = Cluster::start(settings);
    let mut client = cluster.database("app");
    let shop = Arc::new(Shop::new(orders, page));
    let serving = shop.clone();
    let vendor = Vendor::start(move |asked| {
        let until = asked.query.get("until").cloned().unwrap_or_default();
        let bounded = Shop {
            orders: serving.orders.lock().unwrap().clone().into(),
            page: serving.page,
        };
        let is_before = |_: &usize, text: &mut String| {
            let order: Value = serde_json::from_str(text).unwrap();
            until.is_empty() || order["updated_at"].as_str().unwrap() < until.as_str()
        };
        bounded.orders.lock().unwrap().retain(is_before);
        bounded.answer(asked)
    });
    let connector = insert_connector(&mut client, "shop", &by_both_ends(&vendor.url()));
    Stage {
        cluster,
        vendor,
        shop,
        client,
        connector,
    }
}

impl Stage {
    /// Runs a backfill to its end and returns the ids of its runs.
    fn backfill(&mut self, from: &str, to: &str, step: &str) -> Vec<Value> {
        let sql = "SELECT array_agg(run) FROM connector_service_backfill($1::text::uuid, $2::text::timestamptz, $3::text::timestamptz, $4::text::interval) AS run";
        let row = self
            .client
            .query_one(
                &sql.replace("array_agg(run)", "array_agg(run::text)"),
                &[&self.connector, &from, &to, &step],
            )
            .unwrap();
        let runs: Vec<String> = row.get(0);
        let client = &mut self.client;
        let ended = |run: &String| {
            wait_until(60, "the window has been read", || {
                let run = run_of(client, run);
                let is_over = matches!(
                    run["state"].as_str(),
                    Some("succeeded" | "failed" | "cancelled")
                );
                is_over.then_some(run)
            })
        };
        runs.iter().map(ended).collect()
    }

    fn text(&mut self, sql: &str) -> String {
        let row = self.client.query_one(sql, &[]).unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }
}

fn refused(client: &mut Client, sql: &str) -> (String, String) {
    let error = client.batch_execute(sql).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert!(error.hint().is_some(), "{error:?}");
    (error.code().code().to_owned(), error.message().to_owned())
}

#[test]
fn a_backfill_reads_its_windows_in_order_and_does_not_move_the_cursor() {
    let mut stage = stage("", 280, 20);
    let run = sync(&mut stage.client, &stage.connector);
    assert_eq!(wait_for_run(&mut stage.client, &run)["received"], 0);
    stage
        .shop
        .orders
        .lock()
        .unwrap()
        .insert(900, order(900, 0).replace("2026-01", "2026-07"));
    let run = sync(&mut stage.client, &stage.connector);
    assert_eq!(wait_for_run(&mut stage.client, &run)["received"], 1);
    let state = "SELECT string_agg(stream || cursor::text || updated_at, ' ') FROM sync_state";
    let before = stage.text(state);
    let runs = stage.backfill("2026-01-01", "2026-01-29", "7 days");
    let seen: Vec<_> = runs
        .iter()
        .map(|run| {
            let text = |name: &str| run[name].as_str().unwrap().get(..10).unwrap().to_owned();
            (
                run["state"].as_str().unwrap(),
                run["backfill_step"].as_i64().unwrap(),
                text("window_from"),
                text("window_to"),
                run["inserted"].as_i64().unwrap(),
            )
        })
        .collect();
    let week = |step: i64, from: &str, to: &str| ("succeeded", step, from.into(), to.into(), 70);
    let expected: [(&str, i64, String, String, i64); 4] = [
        week(1, "2026-01-01", "2026-01-08"),
        week(2, "2026-01-08", "2026-01-15"),
        week(3, "2026-01-15", "2026-01-22"),
        week(4, "2026-01-22", "2026-01-29"),
    ];
    assert_eq!(seen, expected);
    let order: Vec<i64> = stage
        .client
        .query("SELECT backfill_step::bigint FROM sync_runs WHERE kind = 'backfill' ORDER BY started_at", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(order, [1, 2, 3, 4]);
    assert_eq!(stage.text(state), before);
    assert_eq!(
        Shop::stored(&mut stage.client, &stage.connector),
        stage.shop.served()
    );
    ledger_holds(&mut stage.client);
    // The same again changes nothing, and what changed since is found.
    let changed = order_of(&stage, 5);
    stage.shop.orders.lock().unwrap().insert(5, changed);
    let again = stage.backfill("2026-01-01", "2026-01-29", "1 year");
    assert_eq!(
        (again.len(), &again[0]["updated"], &again[0]["unchanged"]),
        (1, &json!(1), &json!(279))
    );
    assert_eq!(
        Shop::stored(&mut stage.client, &stage.connector),
        stage.shop.served()
    );
}

fn order_of(stage: &Stage, id: usize) -> String {
    let orders = stage.shop.orders.lock().unwrap();
    orders[&id].replace("\"version\": 0", "\"version\": 1")
}

#[test]
fn a_stream_without_an_end_parameter_is_read_whole_by_the_first_window() {
    let mut stage = stage("", 50, 10);
    let config = Shop::config(&stage.vendor.url());
    let sql = "UPDATE connectors SET config = $1";
    stage.client.execute(sql, &[&config]).unwrap();
    let runs = stage.backfill("2026-01-01", "2026-01-29", "7 days");
    let received: Vec<_> = runs
        .iter()
        .map(|run| run["received"].as_i64().unwrap())
        .collect();
    assert_eq!(received, [50, 0, 0, 0]);
}

#[test]
fn an_interrupted_window_continues_where_it_stopped() {
    let mut stage = stage("", 280, 10);
    stage.cluster.arm("after_commit", 5);
    let worker = stage.cluster.wait_worker("app");
    let sql = "SELECT connector_service_backfill(connector_id, '2026-01-01', '2026-01-29', '14 days') FROM connectors";
    stage.client.batch_execute(sql).unwrap();
    drop(std::mem::replace(&mut stage.client, {
        wait_until(30, "the worker was killed", || {
            (stage.cluster.worker("app").is_none_or(|pid| pid != worker)).then_some(())
        });
        stage.cluster.wait_ready_in("app")
    }));
    wait_until(60, "both windows have been read", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE state = 'succeeded'";
        (stage.client.query_one(sql, &[]).ok()?.get::<_, i64>(0) == 2).then_some(())
    });
    ledger_holds(&mut stage.client);
    assert_eq!(
        Shop::stored(&mut stage.client, &stage.connector),
        stage.shop.served()
    );
    // Fourteen pages a window; at most what had not been committed was asked for again.
    let asked = stage.vendor.asked_for("/orders");
    assert!((28..=28 + 8).contains(&asked), "{asked} requests");
    assert_eq!(stage.text("SELECT sum(attempt)::text FROM sync_runs"), "3");
}

#[test]
fn a_backfill_waits_for_due_syncs_and_stops_at_a_failure_that_would_repeat() {
    let mut stage = stage("connector_service.max_concurrent_syncs = 1", 280, 70);
    let sql = "SELECT connector_service_backfill(connector_id, '2026-01-01', '2026-01-29', '1 day') FROM connectors";
    stage.client.batch_execute(sql).unwrap();
    // Of another connector, asked for while windows are read.
    let other = insert_connector(
        &mut stage.client,
        "other",
        &Shop::config(&stage.vendor.url()),
    );
    let run = sync(&mut stage.client, &other);
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(run["state"], "succeeded", "{run}");
    let left = "SELECT count(*)::text FROM sync_runs WHERE kind = 'backfill' AND state IN ('queued', 'running')";
    let left: usize = stage.text(left).parse().unwrap();
    assert!(
        left > 20,
        "{left} windows were left of 28 when the sync had ended"
    );
    wait_until(60, "the backfill is over", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE kind = 'backfill' AND state = 'succeeded'";
        (stage.client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 28).then_some(())
    });

    // A pause keeps windows for later, and one that is cancelled lets the next one go.
    stage
        .client
        .batch_execute("UPDATE connectors SET status = 'paused'")
        .unwrap();
    stage.client.batch_execute("SELECT connector_service_backfill(connector_id, '2026-01-01', '2026-01-03') FROM connectors WHERE name = 'shop'").unwrap();
    let sql = "SELECT connector_service_cancel(run_id)::text FROM sync_runs WHERE state = 'queued' AND backfill_step = 1";
    assert_eq!(stage.text(sql), "true");
    stage
        .client
        .batch_execute("UPDATE connectors SET status = 'active'")
        .unwrap();
    wait_until(30, "the second window was read", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE kind = 'backfill' AND state = 'succeeded'";
        (stage.client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 29).then_some(())
    });

    let missing = "UPDATE connectors SET config = jsonb_set(config, '{manifest,streams,0,retriever,requester,path}', '\"nowhere\"') WHERE name = 'shop'";
    stage.client.batch_execute(missing).unwrap();
    let vendor = Vendor::start(|_| Reply::status(404));
    let base = format!(
        "UPDATE connectors SET config = jsonb_set(config, '{{manifest,streams,0,retriever,requester,url_base}}', '\"{}\"') WHERE name = 'shop'",
        vendor.url()
    );
    stage.client.batch_execute(&base).unwrap();
    let runs = stage.backfill("2026-01-01", "2026-01-05", "1 day");
    let states: Vec<_> = runs
        .iter()
        .map(|run| run["state"].as_str().unwrap())
        .collect();
    assert_eq!(
        states,
        ["failed", "cancelled", "cancelled", "cancelled"],
        "{runs:?}"
    );
    assert!(
        runs[3]["error_message"]
            .as_str()
            .unwrap()
            .starts_with("an earlier window failed: ")
    );
    assert_eq!(vendor.asked().len(), 1);
}

#[test]
fn a_backfill_of_an_invalid_time_span_is_refused() {
    let mut stage = stage("", 1, 1);
    for (arguments, code, says) in [
        (
            "'2026-01-02', '2026-01-01'",
            "22023",
            "must be before the end",
        ),
        ("'2126-01-01', '2127-01-01'", "22023", "before now"),
        (
            "'2026-01-01', '2026-01-02', '-1 day'",
            "22023",
            "longer than zero",
        ),
        (
            "'2026-01-01', '2026-02-01', '1 minute'",
            "53400",
            "more than 10000 backfill windows",
        ),
        // Of these there are billions, or no end: they are not made to be counted.
        (
            "'2015-01-01', now(), '1 microsecond'",
            "53400",
            "more than 10000 backfill windows",
        ),
        (
            "'2026-01-30', '2026-03-01', '1 month -29 days'",
            "53400",
            "more than 10000 backfill windows",
        ),
        ("'-infinity', '2026-02-01'", "22023", "beyond the calendar"),
    ] {
        let sql =
            format!("SELECT connector_service_backfill(connector_id, {arguments}) FROM connectors");
        let (found, message) = refused(&mut stage.client, &sql);
        assert_eq!(found, code, "{message}");
        assert!(message.contains(says), "{message}");
    }
    let sql = "SELECT connector_service_backfill('00000000-0000-4000-8000-00000000ffff', '2026-01-01', '2026-02-01')";
    assert_eq!(refused(&mut stage.client, sql).0, "42704");
    assert_eq!(stage.text("SELECT count(*)::text FROM sync_runs"), "0");
}

#[test]
fn a_refresh_reads_one_stream_again_from_its_start() {
    let mut stage = stage("", 30, 10);
    let config = Shop::config(&stage.vendor.url());
    stage
        .client
        .execute("UPDATE connectors SET config = $1", &[&config])
        .unwrap();
    let run = sync(&mut stage.client, &stage.connector);
    assert_eq!(wait_for_run(&mut stage.client, &run)["inserted"], 30);
    stage
        .client
        .batch_execute("DELETE FROM raw_connector_data WHERE source_record_id = 'orders/1'")
        .unwrap();
    let sql = "SELECT connector_service_refresh(connector_id, 'orders')::text FROM connectors";
    let run = stage.text(sql);
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(
        (&run["inserted"], &run["unchanged"]),
        (&json!(1), &json!(29))
    );
    let sql = "SELECT connector_service_refresh(connector_id, 'nothing') FROM connectors";
    let (code, message) = refused(&mut stage.client, sql);
    assert_eq!(
        (code.as_str(), message.contains("nothing")),
        ("42704", true)
    );
}

#[test]
fn a_pause_stops_the_running_sync_and_a_resume_starts_one_at_once() {
    let cluster = Cluster::start("connector_service.read_timeout = '10min'");
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|_| Reply::Hang);
    let connector = insert_connector(&mut client, "slow", &api(&vendor.url(), "x"));
    client
        .batch_execute("UPDATE connectors SET sync_frequency = 'hourly'")
        .unwrap();
    let going = |client: &mut Client| {
        wait_until(20, "the run is going", || {
            let sql = "SELECT run_id::text FROM sync_runs WHERE state = 'running'";
            client
                .query_opt(sql, &[])
                .unwrap()
                .map(|row| row.get::<_, String>(0))
        })
    };
    let run = going(&mut client);
    let began = Instant::now();
    client
        .batch_execute("UPDATE connectors SET status = 'paused'")
        .unwrap();
    let ended = wait_for_run(&mut client, &run);
    assert_eq!(ended["state"], "cancelled");
    assert_eq!(ended["error_message"], "the connector was paused");
    println!("ended {:.1?} after the pause", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(1));
    // While it is paused nobody starts it.
    let sql = "SELECT connector_service_sync($1::text::uuid)::text";
    let row = client.query_one(sql, &[&connector]).unwrap();
    assert_eq!(row.get::<_, Option<String>>(0), None);
    let began = Instant::now();
    client
        .batch_execute("UPDATE connectors SET status = 'active'")
        .unwrap();
    let run = going(&mut client);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    let sql = "SELECT connector_service_cancel($1::text::uuid)";
    assert!(client.query_one(sql, &[&run]).unwrap().get::<_, bool>(0));
    wait_until(2, "the worker has let go", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query = '0 syncs running'";
        (client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 1).then_some(())
    });
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

/// The statement that people paste into pg_cron.
const PASTED: &str = "SELECT connector_service_sync(connector_id) FROM connectors
    WHERE status = 'active' AND sync_frequency = 'hourly' AND next_sync_at <= now()";

#[test]
fn many_requests_for_one_slot_make_one_run() {
    let cluster = Cluster::start("max_connections = 120");
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1}], "next": null}"#.into()));
    for i in 0..20 {
        insert_connector(
            &mut client,
            &format!("shop {i}"),
            &api(&vendor.url(), "orders"),
        );
    }
    client.batch_execute("UPDATE connectors SET sync_frequency = 'hourly', next_sync_at = now() + interval '1 hour'").unwrap();
    let settled = |client: &mut Client, runs: i64| {
        wait_until(60, "every run has ended", || {
            let sql = "SELECT count(*) FILTER (WHERE state = 'succeeded'), count(*) FROM sync_runs";
            let row = client.query_one(sql, &[]).unwrap();
            let found: (i64, i64) = (row.get(0), row.get(1));
            assert!(
                found.1 <= runs,
                "{} runs where {runs} slots were due",
                found.1
            );
            (found.0 == runs).then_some(())
        });
    };
    let sessions: Vec<_> = (0..50).map(|_| cluster.client("app")).collect();
    let start = Arc::new(Barrier::new(51));
    let rounds = 10;
    let askers: Vec<_> = sessions
        .into_iter()
        .enumerate()
        .map(|(i, mut session)| {
            let start = start.clone();
            std::thread::spawn(move || {
                let asks = match i % 3 {
                    0 => "SELECT connector_service_sync_due()",
                    1 => "SELECT connector_service_sync_due('hourly')",
                    _ => PASTED,
                };
                for _ in 0..rounds {
                    start.wait();
                    session.batch_execute(asks).unwrap();
                    start.wait();
                }
            })
        })
        .collect();
    for round in 1..=rounds {
        // The worker's own schedule sees it at once, too.
        client
            .batch_execute("UPDATE connectors SET next_sync_at = now() - interval '1 second'")
            .unwrap();
        start.wait();
        start.wait();
        settled(&mut client, round * 20);
    }
    for asker in askers {
        asker.join().unwrap();
    }
    // And nothing more comes later.
    settled(&mut client, rounds * 20);
}

#[test]
fn a_tenant_with_thousands_of_hanging_connectors_delays_no_other_tenant() {
    let cluster = Cluster::start("connector_service.max_syncs_per_account = 1000");
    let mut client = cluster.database("app");
    let hanging = Vendor::start(|_| Reply::Hang);
    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1}], "next": null}"#.into()));
    let many = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
        SELECT '00000000-0000-4000-8000-0000000000aa', 'slow ' || i, 'api', $1, '{\"api_key\": \"sk_test_not_a_real_key\"}', 'hourly' FROM generate_series(1, 9900) AS i";
    let config = api(&hanging.url(), "x");
    client.execute(many, &[&config]).unwrap();
    let at_once = 32 / 2;
    wait_until(60, "the tenant has all that one may have", || {
        // The first runs may have begun before there was a second tenant.
        (hanging.asked().len() >= at_once).then_some(())
    });
    // While all of them wait.
    let other = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
        VALUES ('00000000-0000-4000-8000-0000000000bb', 'quick', 'api', $1, '{\"api_key\": \"sk_test_not_a_real_key\"}', 'manual') RETURNING connector_id::text";
    let config = api(&vendor.url(), "orders");
    let other: String = client.query_one(other, &[&config]).unwrap().get(0);
    let mut delays = Vec::new();
    // Whatever had begun while the tenant was alone goes on hanging: cancelled, as it would time out.
    client
        .batch_execute(
            "SELECT connector_service_cancel(run_id) FROM sync_runs WHERE state = 'running'",
        )
        .unwrap();
    for _ in 0..10 {
        let run = sync(&mut client, &other);
        let run = wait_for_run(&mut client, &run);
        assert_eq!(run["state"], "succeeded", "{run}");
        let sql = "SELECT extract(epoch FROM started_at - requested_at)::float8 FROM sync_runs WHERE run_id = $1::text::uuid";
        let row = client
            .query_one(sql, &[&run["run_id"].as_str().unwrap()])
            .unwrap();
        delays.push(row.get::<_, f64>(0));
    }
    delays.sort_by(f64::total_cmp);
    println!(
        "with 9,900 hanging connectors of another tenant a sync begins after {:.3} s, at most {:.3} s",
        delays[5], delays[9]
    );
    assert!(delays[9] < 2.0, "{delays:?}");
    let sql = "SELECT count(*) FROM sync_runs WHERE state = 'running'";
    assert_eq!(
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0),
        at_once as i64
    );
}

#[test]
fn the_syncs_of_one_account_are_limited_and_those_of_others_are_not_delayed() {
    let cluster = Cluster::start("connector_service.max_syncs_per_account = 2");
    let mut client = cluster.database("app");
    let hanging = Vendor::start(|_| Reply::Hang);
    let other = Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1}], "next": null}"#.into()));
    for i in 0..6 {
        let connector =
            insert_connector(&mut client, &format!("slow {i}"), &api(&hanging.url(), "x"));
        sync(&mut client, &connector);
    }
    wait_until(20, "four runs wait for the two that hang", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE waiting_for = 'other syncs of the same account are running'";
        (client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 4).then_some(())
    });
    assert_eq!(hanging.asked().len(), 2);
    let quick = insert_connector(&mut client, "quick", &api(&other.url(), "x"));
    let run = sync(&mut client, &quick);
    assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    // Who ends makes room.
    hanging.let_go();
    wait_until(60, "the vendor was asked for all of them", || {
        (hanging.asked().len() >= 6).then_some(())
    });
}

#[test]
fn old_history_is_deleted() {
    let cluster = Cluster::start(
        "connector_service.run_retention = '30d'\nconnector_service.quarantine_retention = '30d'\nconnector_service.alert_retention = '30d'",
    );
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [], "next": null}"#.into()));
    let connector = insert_connector(&mut client, "shop", &api(&vendor.url(), "orders"));
    cluster.wait_worker("app");
    client.batch_execute(
        "INSERT INTO sync_runs (connector_id, tenant_id, state, requested_at, finished_at)
         SELECT connector_id, tenant_id, 'succeeded', now() - i * interval '1 day', now() - i * interval '1 day' FROM connectors, generate_series(1, 3000) AS i;
         INSERT INTO sync_runs (connector_id, tenant_id, kind, state, requested_at, finished_at)
         SELECT connector_id, tenant_id, 'backfill', 'failed', now() - interval '50 days', now() - i * interval '1 day' FROM connectors, generate_series(40, 50) AS i;
         WITH run AS (
            INSERT INTO sync_runs (connector_id, tenant_id, kind, state, requested_at, finished_at)
            SELECT connector_id, tenant_id, 'upload', 'succeeded', now() - i * interval '1 day', now() - i * interval '1 day' FROM connectors, generate_series(50, 60) AS i
            RETURNING run_id, connector_id, tenant_id, requested_at)
         INSERT INTO uploads (connector_id, tenant_id, run_id, file_name, bytes, sha256, stored_at)
         SELECT connector_id, tenant_id, run_id, 'sales.csv', 1, sha256('x'), now() FROM run WHERE requested_at <= now() - interval '59 days';
         INSERT INTO quarantine (connector_id, tenant_id, stream, reason_code, reason, raw, content_hash, last_seen_at)
         SELECT connector_id, tenant_id, 'orders', 'invalid_json', 'x', '{', sha256(i::text::bytea), now() - i * interval '1 day' FROM connectors, generate_series(1, 60) AS i;
         INSERT INTO data_quality_alerts (tenant_id, alert_type, severity, message, resolved, resolved_at, last_seen_at)
         SELECT tenant_id, 'missing', 'info', 'm' || i, i % 2 = 0, CASE WHEN i % 2 = 0 THEN now() - i * interval '1 day' END, now() - i * interval '1 day'
         FROM connectors, generate_series(1, 60) AS i").unwrap();
    // The upkeep process looks when it starts, and every hour.
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'connector_service upkeep'";
    wait_until(20, "the upkeep process is sent away", || {
        let sent = client.execute(sql, &[]).unwrap();
        (sent == 1).then_some(())
    });
    let counts = |client: &mut Client| {
        let sql = "SELECT ARRAY[(SELECT count(*) FROM sync_runs WHERE kind = 'sync'), (SELECT count(*) FROM sync_runs WHERE kind = 'backfill'), (SELECT count(*) FROM sync_runs WHERE kind = 'upload'),
            (SELECT count(*) FROM quarantine), (SELECT count(*) FROM data_quality_alerts WHERE resolved), (SELECT count(*) FROM data_quality_alerts WHERE NOT resolved)]";
        client.query_one(sql, &[]).unwrap().get::<_, Vec<i64>>(0)
    };
    let expected = [30, 1, 3, 30, 15, 30];
    wait_until(60, "what is older than thirty days is gone", || {
        let found = counts(&mut client);
        // Of each kind the last one stays, what is open, and what files there are belong to.
        assert!(
            found
                .iter()
                .zip(expected)
                .all(|(found, least)| *found >= least - 1),
            "{found:?}"
        );
        (found[0] <= expected[0]
            && found[1] == expected[1]
            && found[2] == expected[2]
            && found[3] <= expected[3]
            && found[4] <= expected[4])
            .then_some(())
    });
    assert_eq!(counts(&mut client)[5], 30);
    // What is left works.
    let run = sync(&mut client, &connector);
    assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
}

#[test]
fn several_workers_share_the_tenants_of_a_database() {
    let cluster = Cluster::start("connector_service.sync_workers = 3\nmax_worker_processes = 16");
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1}], "next": null}"#.into()));
    let many = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
        SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 'shop ' || i, 'api', $1, '{\"api_key\": \"sk_test_not_a_real_key\"}', 'manual' FROM generate_series(1, 60) AS i";
    client.execute(many, &[&api(&vendor.url(), "x")]).unwrap();
    let workers = |client: &mut Client| {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'connector_service sync worker' AND datname = 'app'";
        client.query_one(sql, &[]).unwrap().get::<_, i64>(0)
    };
    wait_until(60, "three workers run", || {
        (workers(&mut client) == 3).then_some(())
    });
    let all = |client: &mut Client| {
        client
            .batch_execute("SELECT connector_service_sync(connector_id) FROM connectors")
            .unwrap();
        wait_until(60, "every run has ended", || {
            let sql = "SELECT count(*) FROM sync_runs WHERE state <> 'succeeded'";
            (client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0).then_some(())
        });
        let sql = "SELECT worker, count(*) FROM sync_runs WHERE requested_at = (SELECT max(requested_at) FROM sync_runs m WHERE m.connector_id = sync_runs.connector_id) GROUP BY 1 ORDER BY 1";
        let rows = client.query(sql, &[]).unwrap();
        rows.iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect::<Vec<(i32, i64)>>()
    };
    assert_eq!(all(&mut client), [(1, 20), (2, 20), (3, 20)]);
    ledger_holds(&mut client);
    let facts: i64 = client
        .query_one(
            "SELECT count(*) FROM raw_connector_data WHERE NOT processed",
            &[],
        )
        .unwrap()
        .get(0);
    assert!(facts <= 60);
    wait_until(30, "every record has its facts", || {
        let sql = "SELECT count(*) FROM raw_connector_data WHERE NOT processed";
        (client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0).then_some(())
    });
    // Fewer of them: what is left does all.
    client
        .batch_execute("ALTER SYSTEM SET connector_service.sync_workers = 1")
        .unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    client
        .batch_execute("SELECT _connector_service.connector_service_wake()")
        .unwrap();
    wait_until(90, "one worker runs", || {
        (workers(&mut client) == 1).then_some(())
    });
    assert_eq!(all(&mut client), [(1, 60)]);
    // Commands on the whole database find nobody in their way.
    client
        .batch_execute("ALTER SYSTEM SET connector_service.sync_workers = 3")
        .unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    wait_until(90, "three workers run again", || {
        (workers(&mut client) == 3).then_some(())
    });
    drop(client);
    let began = Instant::now();
    cluster
        .client("postgres")
        .batch_execute("DROP DATABASE app")
        .unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn windows_that_are_requested_while_others_end_are_run() {
    let mut stage = stage("", 3, 10);
    let gate = Vendor::start(|_| Reply::Hang);
    let sql = "UPDATE connectors SET config = jsonb_set(config, '{manifest,streams,0,retriever,requester,url_base}', to_jsonb($1::text))";
    let (slow, url) = (gate.url(), stage.vendor.url());
    stage.client.execute(sql, &[&slow]).unwrap();
    let ask = "SELECT connector_service_backfill(connector_id, '2026-01-01', '2026-01-02')::text FROM connectors";
    let first = stage.text(ask);
    wait_until(30, "the first window is being read", || {
        (!gate.asked().is_empty()).then_some(())
    });
    // What asks does not see that the first one ends, and what ends it does not see what is asked for.
    stage.client.execute(sql, &[&url]).unwrap();
    let mut other = stage.cluster.client("app");
    let mut open = other.transaction().unwrap();
    let second: String = open.query_one(ask, &[]).unwrap().get(0);
    gate.let_go();
    wait_until(60, "the first window has ended", || {
        let run = run_of(&mut stage.client, &first);
        (run["state"] != "running").then_some(())
    });
    let sql =
        "UPDATE sync_runs SET retry_at = now() WHERE run_id = $1::text::uuid AND state = 'queued'";
    stage.client.execute(sql, &[&first]).unwrap();
    stage
        .client
        .batch_execute("SELECT _connector_service.connector_service_wake()")
        .unwrap();
    let ended = |client: &mut Client, run: &str| {
        wait_until(60, "the window has been read", || {
            Some(run_of(client, run)).filter(|run| run["state"] == "succeeded")
        });
    };
    ended(&mut stage.client, &first);
    open.commit().unwrap();
    ended(&mut stage.client, &second);
}

#[test]
fn an_open_transaction_of_one_tenant_delays_no_other_tenant() {
    let mut stage = stage("connector_service.request_retries = 0", 3, 10);
    let busy = Vendor::start(|_| Reply::Full {
        status: 429,
        headers: vec![("Retry-After", "3600".to_owned())],
        body: b"{}".to_vec(),
    });
    let waits = insert_connector(&mut stage.client, "waits", &api(&busy.url(), "orders"));
    let run = sync(&mut stage.client, &waits);
    assert_eq!(wait_for_run(&mut stage.client, &run)["state"], "queued");
    // Somebody ends it, and does not come to an end himself, while its wait is over.
    let sql =
        "UPDATE sync_runs SET retry_at = now() + interval '100 ms' WHERE run_id = $1::text::uuid";
    stage.client.execute(sql, &[&run]).unwrap();
    let mut other = stage.cluster.client("app");
    let mut open = other.transaction().unwrap();
    let sql = "SELECT connector_service_cancel($1::text::uuid)";
    open.execute(sql, &[&run]).unwrap();
    let began = Instant::now();
    for _ in 0..20 {
        let run = sync(&mut stage.client, &stage.connector);
        assert_eq!(wait_for_run(&mut stage.client, &run)["state"], "succeeded");
    }
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "20 syncs took {:?}",
        began.elapsed()
    );
    open.commit().unwrap();
    assert_eq!(run_of(&mut stage.client, &run)["state"], "cancelled");
    assert!(
        !stage.cluster.log().contains("could not look for work"),
        "{}",
        stage.cluster.log()
    );
}

#[test]
fn the_runs_of_a_worker_that_is_gone_are_taken_up_at_any_time() {
    let cluster = Cluster::start("connector_service.scheduler = 'pg_cron'");
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1}], "next": null}"#.into()));
    for name in [
        "of its own number",
        "of a number that there is no longer",
        "of a dump",
    ] {
        insert_connector(&mut client, name, &api(&vendor.url(), "orders"));
    }
    let worker = cluster.wait_worker("app");
    // As a restored dump brings them, or a worker that was killed while this one was busy.
    client
        .batch_execute(
            "INSERT INTO sync_runs (connector_id, tenant_id, state, token, attempt, started_at, worker)
             SELECT connector_id, tenant_id, 'running', gen_random_uuid(), 1, now(), CASE name WHEN 'of its own number' THEN 1 WHEN 'of a dump' THEN NULL ELSE 7 END FROM connectors;
             SELECT _connector_service.connector_service_wake()",
        )
        .unwrap();
    wait_until(30, "all of them are taken up again", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE state = 'succeeded' AND attempt = 2";
        (client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 3).then_some(())
    });
    assert_eq!(cluster.worker("app"), Some(worker));
}

#[test]
fn the_tenant_with_the_greatest_id_is_served_like_any_other() {
    let mut stage = stage("", 3, 10);
    // Its run cannot be taken up.
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
        SELECT 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'last', 'api', config, '{\"api_key\": \"sk_test_not_a_real_key\"}', 'manual' FROM connectors";
    stage.client.batch_execute(sql).unwrap();
    let sql = "UPDATE connectors SET status = 'paused' WHERE name = 'last';
        SELECT connector_service_backfill(connector_id, '2026-01-01', '2026-01-02') FROM connectors WHERE name = 'last'";
    stage.client.batch_execute(sql).unwrap();
    let run = sync(&mut stage.client, &stage.connector);
    assert_eq!(wait_for_run(&mut stage.client, &run)["state"], "succeeded");
    let sql = "UPDATE connectors SET status = 'active' WHERE name = 'last'";
    stage.client.batch_execute(sql).unwrap();
    wait_until(30, "its window was read", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE kind = 'backfill' AND state = 'succeeded'";
        (stage.client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 1).then_some(())
    });
}

#[test]
fn a_window_that_waited_for_a_rate_limit_has_not_failed() {
    let cluster = Cluster::start("connector_service.request_retries = 0");
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|_| Reply::status(503));
    let connector = insert_connector(&mut client, "shop", &by_both_ends(&vendor.url()));
    let sql = "SELECT connector_service_backfill($1::text::uuid, '2026-01-01', '2026-01-02')::text";
    let run: String = client.query_one(sql, &[&connector]).unwrap().get(0);
    let run_now = wait_for_run(&mut client, &run);
    assert_eq!(
        (&run_now["state"], &run_now["failures"], &run_now["waits"]),
        (&json!("queued"), &json!(1), &json!(0)),
        "{run_now}"
    );
    // Many pauses of the vendor's and days without a server: still one failure.
    let sql =
        "UPDATE sync_runs SET waits = 50, started_at = now() - interval '3 days', retry_at = now();
        SELECT _connector_service.connector_service_wake()";
    client.batch_execute(sql).unwrap();
    let again = wait_until(30, "it was tried again", || {
        Some(run_of(&mut client, &run)).filter(|run| run["failures"] == 2)
    });
    assert_eq!(again["state"], "queued", "{again}");
    // It does not go on for ever.
    let sql = "UPDATE sync_runs SET failures = 8, retry_at = now(); SELECT _connector_service.connector_service_wake()";
    client.batch_execute(sql).unwrap();
    let over = wait_until(30, "it has failed", || {
        Some(run_of(&mut client, &run)).filter(|run| run["state"] == "failed")
    });
    assert_eq!(over["error_code"], "server_error", "{over}");
}
