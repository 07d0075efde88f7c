//! Tests how a connector is synced: every record is stored once, and later syncs write only what changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

struct Stage {
    cluster: Cluster,
    shop: Arc<Shop>,
    vendor: Vendor,
    client: Client,
    connector: String,
}

fn stage(orders: usize, page: usize) -> Stage {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let shop = Arc::new(Shop::new(orders, page));
    let serving = shop.clone();
    let vendor = Vendor::start(move |asked| serving.answer(asked));
    let connector = insert_connector(&mut client, "shop", &Shop::config(&vendor.url()));
    Stage {
        cluster,
        shop,
        vendor,
        client,
        connector,
    }
}

impl Stage {
    fn sync(&mut self) -> Value {
        let run = sync(&mut self.client, &self.connector);
        let run = wait_for_run(&mut self.client, &run);
        assert_eq!(run["state"], "succeeded", "{run}");
        assert_eq!(
            Shop::stored(&mut self.client, &self.connector),
            self.shop.served()
        );
        ledger_holds(&mut self.client);
        run
    }

    /// Where every row lies and which transaction wrote it.
    fn rows(&mut self) -> BTreeMap<String, String> {
        let sql =
            "SELECT source_record_id, ctid::text || ' ' || xmin::text FROM raw_connector_data";
        self.client
            .query(sql, &[])
            .unwrap()
            .into_iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect()
    }
}

fn counters(run: &Value) -> [i64; 6] {
    [
        "pages",
        "received",
        "inserted",
        "updated",
        "unchanged",
        "quarantined",
    ]
    .map(|name| run[name].as_i64().unwrap())
}

#[test]
fn a_first_sync_stores_every_record_and_a_second_one_rewrites_none() {
    let mut stage = stage(2_500, 100);
    assert_eq!(counters(&stage.sync()), [25, 2_500, 2_500, 0, 0, 0]);
    let before = stage.rows();
    // Only what lies within the lookback of the newest order is asked for again.
    let second = stage.sync();
    assert_eq!(
        second["inserted"].as_i64().unwrap() + second["updated"].as_i64().unwrap(),
        0
    );
    assert!(
        second["unchanged"].as_i64().unwrap() > 0 && second["unchanged"].as_i64().unwrap() < 2_500
    );
    assert_eq!(stage.rows(), before);

    // The same over the whole set, without a cursor.
    stage.client.execute("DELETE FROM sync_state", &[]).unwrap();
    assert_eq!(counters(&stage.sync()), [25, 2_500, 0, 0, 2_500, 0]);
    assert_eq!(stage.rows(), before);
}

#[test]
fn only_changed_records_are_rewritten() {
    let mut stage = stage(1_000, 250);
    stage.sync();
    let before = stage.rows();
    for id in (0..1_000).step_by(100) {
        stage.shop.orders.lock().unwrap().insert(id, order(id, 1));
    }
    stage
        .shop
        .orders
        .lock()
        .unwrap()
        .insert(5_000, order(5_000, 0));
    stage.client.execute("DELETE FROM sync_state", &[]).unwrap();
    assert_eq!(counters(&stage.sync()), [5, 1_001, 1, 10, 990, 0]);
    let after = stage.rows();
    assert_eq!(
        before
            .iter()
            .filter(|(id, place)| after[*id] != **place)
            .count(),
        10
    );
    // Each version names the run that stored it, and none waits for its facts.
    let by_run: Vec<i64> = stage
        .client
        .query(
            "SELECT count(*) FROM raw_connector_data JOIN sync_runs r USING (run_id) WHERE processed GROUP BY r.requested_at ORDER BY r.requested_at",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(by_run, [990, 11]);
}

#[test]
fn data_changed_by_hand_is_corrected_by_the_next_sync() {
    let mut stage = stage(10, 10);
    stage.sync();
    stage
        .client
        .execute(
            "UPDATE raw_connector_data SET data = '{}' WHERE source_record_id = 'orders/3'",
            &[],
        )
        .unwrap();
    stage
        .client
        .execute(
            "UPDATE raw_connector_data SET deleted = true WHERE source_record_id = 'orders/4'",
            &[],
        )
        .unwrap();
    stage.client.execute("DELETE FROM sync_state", &[]).unwrap();
    assert_eq!(counters(&stage.sync()), [1, 10, 0, 2, 8, 0]);
}

#[test]
fn the_cursor_is_the_source_s_greatest_value_and_requests_carry_credentials() {
    let mut stage = stage(300, 100);
    let run = stage.sync();
    let mut cursor: Value = stage
        .client
        .query_one("SELECT cursor FROM sync_state", &[])
        .unwrap()
        .get(0);
    let read_until = cursor["read_until"].take();
    let moment = |text: &Value| chrono::DateTime::parse_from_rfc3339(text.as_str().unwrap());
    assert_eq!(moment(&read_until), moment(&run["window_to"]));
    assert_eq!(
        cursor,
        json!({"at": "2026-01-28T00:00:00Z", "read_until": null, "finished_by": run["run_id"]})
    );
    let run = stage.sync();
    let asked = stage.vendor.asked();
    assert_eq!(asked.last().unwrap().query["since"], "2026-01-27T23:50:00Z");
    assert!(
        asked
            .iter()
            .all(|asked| asked.headers["authorization"] == "Bearer sk_test_not_a_real_key")
    );
    assert_eq!(run["window_from"], "2026-01-27T23:50:00+00:00");
}

#[test]
fn a_queued_sync_starts_at_commit_and_never_after_a_rollback() {
    let mut stage = stage(1, 1);
    stage.sync();
    let mut waits = Vec::new();
    for _ in 0..20 {
        let run = sync(&mut stage.client, &stage.connector);
        let queued = Instant::now();
        wait_until(10, "the run starts", || {
            run_of(&mut stage.client, &run)["started_at"]
                .as_str()
                .map(|_| ())
        });
        waits.push(queued.elapsed());
        wait_for_run(&mut stage.client, &run);
    }
    waits.sort();
    println!(
        "from COMMIT to a started run: median {:?}, longest {:?}",
        waits[10], waits[19]
    );
    assert!(
        waits[10] < Duration::from_millis(500),
        "woken, not found by looking: {waits:?}"
    );

    let count = "SELECT count(*) FROM sync_runs";
    let before: i64 = stage.client.query_one(count, &[]).unwrap().get(0);
    let mut transaction = stage.client.transaction().unwrap();
    transaction
        .query(
            "SELECT connector_service_sync($1::text::uuid)",
            &[&stage.connector],
        )
        .unwrap();
    transaction.rollback().unwrap();
    assert_eq!(
        stage.client.query_one(count, &[]).unwrap().get::<_, i64>(0),
        before
    );
}

#[test]
fn a_long_sync_does_not_delay_another_one() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|asked| {
        let page = asked.number("after");
        let (first, pages) = if asked.path == "/long" {
            (page * 1_000, 200)
        } else {
            (0, 1)
        };
        let records: Vec<String> = (first..first + 1_000).map(|id| order(id, 0)).collect();
        let next = if page + 1 < pages {
            json!(page + 1)
        } else {
            Value::Null
        };
        Reply::Json(format!(
            r#"{{"data": [{}], "next": {next}}}"#,
            records.join(",")
        ))
    });
    let long = insert_connector(&mut client, "long", &api(&vendor.url(), "long"));
    let short = insert_connector(&mut client, "short", &api(&vendor.url(), "short"));
    let long = sync(&mut client, &long);
    wait_until(20, "the long run stores pages", || {
        (run_of(&mut client, &long)["pages"].as_u64() > Some(3)).then_some(())
    });
    let short = sync(&mut client, &short);
    assert_eq!(wait_for_run(&mut client, &short)["state"], "succeeded");
    let long = run_of(&mut client, &long);
    assert_eq!(long["state"], "running", "{long}");
    println!(
        "the short sync ended when the long one was at page {} of 200",
        long["pages"]
    );
}

#[test]
fn an_idle_worker_runs_hardly_any_transactions() {
    let mut stage = stage(100, 50);
    stage.sync();
    let transactions = |client: &mut Client| -> i64 {
        let sql = "SELECT pg_stat_clear_snapshot(), xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'app'";
        client.query_one(sql, &[]).unwrap().get(1)
    };
    // What follows a sync is done soon: then a whole second passes without more than our own statements, and what the
    // server itself may do.
    let counted = wait_until(60, "the worker rests", || {
        let before = transactions(&mut stage.client);
        stage.client.batch_execute("SELECT pg_sleep(1)").unwrap();
        Some(transactions(&mut stage.client) - before).filter(|count| *count < 20)
    });
    println!("{counted} transactions in a second of rest");
}

#[test]
fn many_sessions_that_request_a_sync_get_the_same_run() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|_| Reply::Hang);
    let connector = insert_connector(&mut client, "slow", &api(&vendor.url(), "x"));
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let (url, connector) = (cluster.url("app"), connector.clone());
            std::thread::spawn(move || {
                sync(
                    &mut Client::connect(&url, postgres::NoTls).unwrap(),
                    &connector,
                )
            })
        })
        .collect();
    let mut runs: Vec<String> = asking
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    runs.dedup();
    assert_eq!(runs.len(), 1);
    let cancelled: bool = client
        .query_one(
            "SELECT connector_service_cancel($1::text::uuid)",
            &[&runs[0]],
        )
        .unwrap()
        .get(0);
    assert!(cancelled);
    assert_eq!(run_of(&mut client, &runs[0])["state"], "cancelled");
    // The place is free again at once.
    let next = sync(&mut client, &connector);
    assert_ne!(next, runs[0]);
    wait_until(5, "the next run starts", || {
        (run_of(&mut client, &next)["state"] == "running").then_some(())
    });
}

#[test]
fn a_sync_that_cannot_be_queued_gives_a_notice_and_no_error() {
    let mut stage = stage(1, 1);
    let nothing = "SELECT connector_service_sync('00000000-0000-4000-8000-00000000dead') IS NULL";
    assert!(
        stage
            .client
            .query_one(nothing, &[])
            .unwrap()
            .get::<_, bool>(0)
    );
    stage
        .client
        .execute("UPDATE connectors SET status = 'paused'", &[])
        .unwrap();
    let paused = "SELECT count(connector_service_sync(connector_id)) FROM connectors";
    assert_eq!(
        stage
            .client
            .query_one(paused, &[])
            .unwrap()
            .get::<_, i64>(0),
        0
    );
    // A row that another transaction holds does not hold up the statement.
    stage
        .client
        .execute("UPDATE connectors SET status = 'active'", &[])
        .unwrap();
    let mut other = stage.cluster.client("app");
    let mut transaction = other.transaction().unwrap();
    transaction
        .execute("UPDATE connectors SET name = 'held'", &[])
        .unwrap();
    assert_eq!(
        stage
            .client
            .query_one(paused, &[])
            .unwrap()
            .get::<_, i64>(0),
        0
    );
    transaction.rollback().unwrap();
    assert_eq!(
        stage
            .client
            .query_one(paused, &[])
            .unwrap()
            .get::<_, i64>(0),
        1
    );
}

#[test]
fn a_new_connector_is_due_at_once_and_then_at_its_slots() {
    let mut stage = stage(10, 10);
    stage
        .client
        .execute("UPDATE connectors SET sync_frequency = 'hourly'", &[])
        .unwrap();
    wait_until(20, "the worker syncs it by itself", || {
        let row = stage
            .client
            .query_opt(
                "SELECT 1 FROM connectors WHERE last_sync_at IS NOT NULL",
                &[],
            )
            .unwrap();
        row.map(|_| ())
    });
    let sql = "SELECT next_sync_at = date_trunc('hour', now()) + interval '1 hour', (SELECT requested_by FROM sync_runs) FROM connectors";
    let row = stage.client.query_one(sql, &[]).unwrap();
    assert!(row.get::<_, bool>(0));
    assert_eq!(row.get::<_, String>(1), "schedule");
}

#[test]
fn pg_cron_s_job_syncs_what_is_due() {
    let cluster = Cluster::create();
    cluster.configure("shared_preload_libraries = 'connector_service, pg_cron'\ncron.database_name = 'app'\ncron.host = '127.0.0.1'");
    cluster.run();
    let mut client = cluster.database("app");
    client.batch_execute("CREATE EXTENSION pg_cron").unwrap();
    let shop = Shop::new(50, 10);
    let vendor = Vendor::start(move |asked| shop.answer(asked));
    let connector = insert_connector(&mut client, "shop", &Shop::config(&vendor.url()));
    client
        .execute("UPDATE connectors SET sync_frequency = 'hourly'", &[])
        .unwrap();
    client
        .batch_execute(
            "SELECT cron.schedule('* * * * *', $$ SELECT connector_service_sync(connector_id) FROM connectors
             WHERE status = 'active' AND sync_frequency = 'hourly' AND next_sync_at <= NOW() $$)",
        )
        .unwrap();
    // The first sync is the worker's, and waits for no job.
    wait_until(5, "the worker stores the first sync", || {
        (Shop::stored(&mut client, &connector).len() == 50).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    client
        .execute("UPDATE connectors SET next_sync_at = now()", &[])
        .unwrap();
    let runs = wait_until(90, "pg_cron's job queues a run", || {
        let sql = "SELECT to_jsonb(r) FROM sync_runs r ORDER BY requested_at";
        let rows = client.query(sql, &[]).unwrap();
        let runs: Vec<Value> = rows.iter().map(|row| row.get(0)).collect();
        (runs.len() > 1).then_some(runs)
    });
    let by: Vec<&str> = runs
        .iter()
        .map(|run| run["requested_by"].as_str().unwrap())
        .collect();
    assert_eq!(by, ["schedule", "postgres"]);
}

#[test]
fn one_bad_record_is_quarantined_and_the_others_are_stored() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let bad = [
        r#"{"id": 1, "v": "\u0000"}"#,
        "{\"id\": 2, \"v\": \"\0\"}",
        r#"{"id": 3, "v": "\ud800"}"#,
        r#"{"id": 4, "v": 1e999999}"#,
        r#"{"id": "\u0000x", "v": 1}"#,
    ];
    let deep = format!(
        r#"{{"id": 5, "v": {}{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let long = format!(r#"{{"id": "{}"}}"#, "k".repeat(10_000));
    let reasons = [
        "nul_character",
        "nul_character",
        "lone_surrogate",
        "number_out_of_range",
        "nul_character",
        "too_deep",
        "key_too_long",
    ];
    let bad: Vec<String> = bad
        .iter()
        .map(|text| (*text).to_owned())
        .chain([deep, long])
        .collect();
    let vendor = Vendor::start(move |asked| {
        let page = asked.number("after");
        let good = (0..1_000).map(|i| order(100 + page * 1_000 + i, 0));
        let records: Vec<String> = good
            .chain(if page < 7 {
                vec![bad[page].clone()]
            } else {
                vec![]
            })
            .collect();
        let next = if page < 9 {
            json!(page + 1)
        } else {
            Value::Null
        };
        Reply::Json(format!(
            r#"{{"data": [{}], "next": {next}}}"#,
            records.join(",")
        ))
    });
    let connector = insert_connector(&mut client, "shop", &api(&vendor.url(), "x"));
    for round in 1..=2 {
        let run = sync(&mut client, &connector);
        let run = wait_for_run(&mut client, &run);
        assert_eq!(run["state"], "succeeded", "{run}");
        let first = round == 1;
        assert_eq!(
            counters(&run),
            [
                10,
                10_007,
                if first { 10_000 } else { 0 },
                0,
                if first { 0 } else { 10_000 },
                7
            ]
        );
        let sql = "SELECT reason_code, occurrences FROM quarantine ORDER BY quarantine_id";
        let kept: Vec<(String, i64)> = client
            .query(sql, &[])
            .unwrap()
            .into_iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        assert_eq!(kept, reasons.map(|reason| (reason.to_owned(), round)));
    }
}

#[test]
fn a_record_that_only_the_database_refuses_is_quarantined_alone() {
    let mut stage = stage(500, 100);
    let rule = "ALTER TABLE raw_connector_data ADD CONSTRAINT mine CHECK (source_record_id <> 'orders/123')";
    stage.client.batch_execute(rule).unwrap();
    let run = sync(&mut stage.client, &stage.connector);
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(counters(&run), [5, 500, 499, 0, 0, 1]);
    let row = stage
        .client
        .query_one(
            "SELECT source_record_id, reason_code, reason FROM quarantine",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "orders/123");
    assert_eq!(row.get::<_, String>(1), "refused_by_postgres");
    assert!(row.get::<_, String>(2).contains("23514"));
}

#[test]
fn jsonb_stores_every_record_that_passes_inspection_exactly() {
    let values = [
        "1e-300",
        "1e300",
        "1.7976931348623157e308",
        "5e-324",
        "12345678901234567890.123456789012345678901234567890",
        r#""é\u00e9 \ud83d\ude00 \\u0000 \"quoted\"""#,
        "-0.5",
        "1E+10",
        "[1.10, 2.00]",
        "{\"a\": {\"b\": [null, true]}}",
        "1e1900",
        "0.000000000000000000000000000000000001",
    ];
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let body = |i: usize, value: &str| format!(r#"{{"id": {i}, "v": {value}}}"#);
    let records: Vec<String> = values
        .iter()
        .enumerate()
        .map(|(i, value)| body(i, value))
        .collect();
    let vendor =
        Vendor::start(move |_| Reply::Json(format!(r#"{{"data": [{}]}}"#, records.join(","))));
    let connector = insert_connector(&mut client, "numbers", &api(&vendor.url(), "x"));
    let run = sync(&mut client, &connector);
    let run = wait_for_run(&mut client, &run);
    assert_eq!(counters(&run), [1, 12, 12, 0, 0, 0], "{run}");
    for (i, value) in values.iter().enumerate() {
        let sql = "SELECT (data->'v')::text = ($2::text::jsonb)::text FROM raw_connector_data WHERE source_record_id = $1";
        let row = client
            .query_one(sql, &[&format!("orders/{i}"), value])
            .unwrap();
        assert!(row.get::<_, bool>(0), "{value}");
    }
}

#[test]
fn sync_wait_reports_and_raises() {
    let mut stage = stage(500, 100);
    let call = format!("CALL connector_service_sync_wait('{}')", stage.connector);
    let (ok, output) = stage
        .cluster
        .try_command("psql", &["-d", &stage.cluster.url("app"), "-c", &call]);
    assert!(ok, "{output}");
    assert!(
        output.contains("NOTICE:  shop: succeeded in")
            && output.contains("500 records (500 inserted, 0 updated, 0 unchanged, 0 quarantined)"),
        "{output}"
    );

    let vendor = Vendor::start(|_| Reply::status(401));
    let broken = insert_connector(&mut stage.client, "broken", &api(&vendor.url(), "x"));
    let error = stage
        .client
        .batch_execute(&format!("CALL connector_service_sync_wait('{broken}')"))
        .unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "08006");
    assert_eq!(
        error.message(),
        format!(
            "broken: stream \"orders\": {}: HTTP 401 (credentials rejected)",
            vendor.host()
        )
    );
    assert_eq!(
        error.hint(),
        Some("Check the connector's credentials and what they are allowed to read.")
    );
    let row = stage
        .client
        .query_one(
            "SELECT status, error_message FROM connectors WHERE name = 'broken'",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "error");
    assert!(row.get::<_, String>(1).contains("HTTP 401"));
}
