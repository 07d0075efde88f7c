//! Tests several streams of one connector: one stream's failure is its own, streams side by side, and what is kept of a
//! run so that a person can follow it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

const QUICK: &str = "
connector_service.request_retries = 1
connector_service.retry_pause = '10ms'
connector_service.longest_pause = '1s'
connector_service.read_timeout = '500ms'
";

struct Stage {
    cluster: Cluster,
    client: Client,
    vendor: Vendor,
    /// Paths that fail, and the status; 0 never answers.
    failing: Arc<Mutex<BTreeMap<String, u16>>>,
}

/// A vendor whose lists have two pages of two records each.
fn stage() -> Stage {
    let cluster = Cluster::start(QUICK);
    let client = cluster.database("app");
    let failing: Arc<Mutex<BTreeMap<String, u16>>> = Arc::default();
    let fails = failing.clone();
    let vendor = Vendor::start(move |asked| {
        match fails.lock().unwrap().get(&asked.path) {
            Some(0) => return Reply::Hang,
            Some(429) => {
                return Reply::Full {
                    status: 429,
                    headers: vec![("Retry-After", "3600".into())],
                    body: vec![],
                };
            }
            Some(status) => return Reply::status(*status),
            None => {}
        }
        let after = asked.number("after");
        let next = if after == 0 { json!(2) } else { json!(null) };
        let rows: Vec<Value> = (after + 1..after + 3).map(|id| json!({"id": id})).collect();
        Reply::Json(json!({"data": rows, "next": next}).to_string())
    });
    Stage {
        cluster,
        client,
        vendor,
        failing,
    }
}

/// A config with streams of these names, each at its own path.
fn of(base: &str, names: &[&str]) -> Value {
    let mut config = api(base, "orders");
    let stream = config["manifest"]["streams"][0].clone();
    let streams: Vec<Value> = names
        .iter()
        .map(|name| {
            let mut stream = stream.clone();
            stream["name"] = json!(name);
            stream["retriever"]["requester"]["path"] = json!(name);
            stream
        })
        .collect();
    config["manifest"]["streams"] = json!(streams);
    config
}

impl Stage {
    fn insert(&mut self, name: &str, names: &[&str], more: &Value) -> String {
        let mut config = of(&self.vendor.url(), names);
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        insert_connector(&mut self.client, name, &config)
    }

    fn fail(&self, path: &str, status: u16) {
        self.failing.lock().unwrap().insert(path.to_owned(), status);
    }

    fn sync(&mut self, connector: &str) -> Value {
        let run = sync(&mut self.client, connector);
        wait_for_run(&mut self.client, &run)
    }

    fn count(&mut self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).unwrap().get(0)
    }

    fn requests(&mut self, run: &Value) -> Vec<Value> {
        let sql = "SELECT to_jsonb(r) FROM sync_requests r WHERE run_id = $1::text::uuid ORDER BY request";
        let rows = self.client.query(sql, &[&run["run_id"].as_str().unwrap()]);
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    }
}

/// The state of each stream of a run, and how many records came.
fn states(run: &Value) -> BTreeMap<String, String> {
    let streams = run["streams"].as_object().unwrap();
    let state =
        |entry: &Value| format!("{} {}", entry["state"].as_str().unwrap(), entry["received"]);
    streams
        .iter()
        .map(|(name, entry)| (name.clone(), state(entry)))
        .collect()
}

fn expected(states: &[(&str, &str)]) -> BTreeMap<String, String> {
    states
        .iter()
        .map(|(name, state)| ((*name).to_owned(), (*state).to_owned()))
        .collect()
}

#[test]
fn whatever_one_stream_fails_with_the_others_are_read_in_every_run() {
    let mut stage = stage();
    for (status, code, state) in [
        (500, "server_error", "active"),
        (403, "credentials_rejected", "active"),
        (401, "credentials_rejected", "active"),
        (404, "not_found", "active"),
        (429, "rate_limited", "active"),
        (0, "read_timeout", "active"),
    ] {
        let names = ["bad", "good", "other"];
        let connector = stage.insert(&format!("of {status}"), &names, &json!({}));
        stage.client.execute("UPDATE connectors SET sync_frequency = 'hourly', next_sync_at = 'infinity' WHERE connector_id = $1::text::uuid", &[&connector]).unwrap();
        stage.fail("/bad", status);
        for round in 1..=2 {
            let before = ["/good", "/other"].map(|path| stage.vendor.asked_for(path));
            let run = stage.sync(&connector);
            assert_eq!(
                (&run["state"], &run["error_code"]),
                (&json!("failed"), &json!(code)),
                "{run}"
            );
            assert_eq!(
                states(&run),
                expected(&[("bad", "failed 0"), ("good", "ok 4"), ("other", "ok 4")]),
                "{run}"
            );
            assert_eq!(run["streams"]["bad"]["error"]["code"], code);
            let message = run["error_message"].as_str().unwrap();
            assert!(
                message.starts_with("stream \"bad\": ") && message.matches("stream").count() == 1,
                "{message}"
            );
            assert_eq!((&run["received"], &run["pages"]), (&json!(8), &json!(4)));
            for (path, before) in ["/good", "/other"].iter().zip(before) {
                assert_eq!(
                    stage.vendor.asked_for(path),
                    before + 2,
                    "{path} in run {round}"
                );
            }
            let sql = "SELECT c.status, c.failures, h.health, h.failed_streams, c.last_sync_at IS NULL, c.next_sync_at <= now() + interval '1 hour'
                FROM connectors c JOIN connector_health h USING (connector_id) WHERE connector_id = $1::text::uuid";
            let row = stage.client.query_one(sql, &[&connector]).unwrap();
            let seen: (String, i32, String, Vec<String>, bool, bool) = (
                row.get(0),
                row.get(1),
                row.get(2),
                row.get(3),
                row.get(4),
                row.get(5),
            );
            assert_eq!(
                seen,
                (
                    state.into(),
                    round,
                    "failing".into(),
                    vec!["bad".into()],
                    true,
                    true
                )
            );
            let sql = "SELECT r.retry_at = c.next_sync_at OR abs(extract(epoch FROM r.retry_at - c.next_sync_at)) < 1 FROM sync_runs r JOIN connectors c USING (connector_id) WHERE r.run_id = $1::text::uuid";
            assert_eq!(
                stage
                    .client
                    .query_one(sql, &[&run["run_id"].as_str().unwrap()])
                    .unwrap()
                    .get::<_, Option<bool>>(0),
                Some(true),
                "{run}"
            );
        }
        // It mends by itself.
        stage.failing.lock().unwrap().clear();
        let run = stage.sync(&connector);
        assert_eq!(
            states(&run),
            expected(&[("bad", "ok 4"), ("good", "ok 4"), ("other", "ok 4")])
        );
        assert_eq!(
            (&run["state"], &run["error_message"]),
            (&json!("succeeded"), &Value::Null)
        );
        let sql = "SELECT count(*) FROM connector_health WHERE health = 'ok' AND failed_streams = '{}' AND failures = 0 AND error_message IS NULL";
        assert!(stage.count(sql) > 0);
        stage
            .client
            .execute("DELETE FROM connectors WHERE false", &[])
            .unwrap();
        stage
            .client
            .execute("UPDATE connectors SET status = 'paused'", &[])
            .unwrap();
    }
    ledger_holds(&mut stage.client);
}

#[test]
fn a_connector_of_which_nothing_works_goes_to_error_and_comes_back_with_its_first_stream() {
    let mut stage = stage();
    let connector = stage.insert("shop", &["a", "b", "c", "d", "e"], &json!({}));
    for path in ["/a", "/b", "/c", "/d", "/e"] {
        stage.fail(path, 401);
    }
    let run = stage.sync(&connector);
    assert_eq!(
        states(&run),
        expected(&[
            ("a", "failed 0"),
            ("b", "failed 0"),
            ("c", "failed 0"),
            ("d", "skipped 0"),
            ("e", "skipped 0")
        ])
    );
    assert_eq!(run["streams"]["e"]["error"]["code"], "credentials_rejected");
    let message = run["error_message"].as_str().unwrap();
    assert!(
        message.starts_with("3 of 5 streams failed: stream \"c\": "),
        "{message}"
    );
    assert_eq!(
        ["/a", "/d"].map(|path| stage.vendor.asked_for(path)),
        [1, 0]
    );
    assert_eq!(stage.count("SELECT count(*) FROM connectors WHERE status = 'error' AND next_sync_at > now() + interval '4 hours'"), 1);
    // One of them is read.
    stage.failing.lock().unwrap().remove("/c");
    let run = stage.sync(&connector);
    assert_eq!(run["state"], "failed");
    assert_eq!(
        states(&run),
        expected(&[
            ("a", "failed 0"),
            ("b", "failed 0"),
            ("c", "ok 4"),
            ("d", "failed 0"),
            ("e", "failed 0")
        ])
    );
    assert_eq!(stage.count("SELECT count(*) FROM connectors WHERE status = 'active' AND error_message LIKE '4 of 5 streams failed: %'"), 1);
    // And what a person reads who waits for it.
    let error = stage
        .client
        .batch_execute(&format!("CALL connector_service_sync_wait('{connector}')"))
        .unwrap_err();
    let detail = error.as_db_error().unwrap().detail().unwrap().to_owned();
    assert!(
        detail.contains("Streams that were read to their end: c."),
        "{detail}"
    );
}

#[test]
fn an_account_that_rests_pauses_the_run_and_finished_streams_are_not_read_twice() {
    let mut stage = stage();
    let connector = stage.insert("shop", &["a", "b"], &json!({}));
    stage.fail("/b", 429);
    let run = sync(&mut stage.client, &connector);
    let run = wait_until(20, "the run waits", || {
        Some(run_of(&mut stage.client, &run))
            .filter(|run| run["retry_at"].is_string() && run["state"] == "queued")
    });
    assert_eq!(
        states(&run),
        expected(&[("a", "ok 4"), ("b", "waiting 0")]),
        "{run}"
    );
    assert_eq!(run["streams"]["b"]["error"]["code"], "rate_limited");
    assert_eq!(
        stage.count("SELECT count(*) FROM connectors WHERE failures = 0 AND status = 'active'"),
        1
    );
    assert_eq!(
        stage.count("SELECT count(*) FROM sync_requests"),
        0,
        "a pause is no failure"
    );
    stage.failing.lock().unwrap().clear();
    stage
        .client
        .execute("UPDATE sync_runs SET retry_at = now()", &[])
        .unwrap();
    let run = wait_until(70, "the run goes on", || {
        let run = run_of(&mut stage.client, run["run_id"].as_str().unwrap());
        Some(run).filter(|run| run["state"] == "succeeded")
    });
    assert_eq!(
        states(&run),
        expected(&[("a", "ok 4"), ("b", "ok 4")]),
        "{run}"
    );
    assert_eq!(
        ["/a", "/b"].map(|path| stage.vendor.asked_for(path)),
        [2, 3]
    );
}

#[test]
fn a_backfill_goes_on_with_its_next_window_although_a_stream_fails() {
    let mut stage = stage();
    let mut config = of(&stage.vendor.url(), &["bad", "good"]);
    for stream in config["manifest"]["streams"].as_array_mut().unwrap() {
        stream["incremental_sync"] = json!({
            "type": "DatetimeBasedCursor", "cursor_field": "at", "datetime_format": "%Y-%m-%dT%H:%M:%SZ", "start_datetime": "2020-01-01T00:00:00Z",
            "start_time_option": {"inject_into": "request_parameter", "field_name": "since"},
            "end_time_option": {"inject_into": "request_parameter", "field_name": "until"}
        });
    }
    let connector = insert_connector(&mut stage.client, "shop", &config);
    stage.fail("/bad", 403);
    let sql = "SELECT connector_service_backfill($1::text::uuid, '2026-01-01Z', '2026-01-04Z', '1 day')::text";
    let runs: Vec<String> = stage
        .client
        .query(sql, &[&connector])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    for run in &runs {
        let run = wait_for_run(&mut stage.client, run);
        assert_eq!(
            (&run["state"], &run["error_code"]),
            (&json!("failed"), &json!("credentials_rejected")),
            "{run}"
        );
        assert_eq!(
            states(&run),
            expected(&[("bad", "failed 0"), ("good", "ok 4")])
        );
    }
    assert_eq!(
        stage.count("SELECT count(*) FROM sync_runs WHERE state = 'cancelled'"),
        0
    );
}

#[test]
fn a_check_and_a_preview_report_every_stream_with_its_warning() {
    let mut stage = stage();
    let connector = stage.insert("shop", &["bad", "good", "last"], &json!({}));
    stage.fail("/bad", 403);
    for kind in ["check", "preview"] {
        let run: String = stage
            .client
            .query_one(
                &format!("SELECT connector_service_{kind}($1::text::uuid)::text"),
                &[&connector],
            )
            .unwrap()
            .get(0);
        let run = wait_for_run(&mut stage.client, &run);
        assert_eq!(run["state"], "failed", "{run}");
        assert_eq!(
            states(&run),
            expected(&[("bad", "failed 0"), ("good", "ok 2"), ("last", "ok 2")])
        );
        assert_eq!(run["report"].as_array().unwrap().len(), 3);
        assert!(
            !run["report"][0]["summary"]
                .as_str()
                .unwrap()
                .contains("stream"),
            "{run}"
        );
    }
    assert_eq!(stage.count("SELECT count(*) FROM raw_connector_data"), 0);
    assert_eq!(
        stage.count("SELECT count(*) FROM connectors WHERE status = 'active' AND failures = 0"),
        1
    );
}

#[test]
fn a_preview_tells_how_many_records_would_be_marked_as_deleted() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let most = Arc::new(Mutex::new(5));
    let serving = most.clone();
    let vendor = Vendor::start(move |_| {
        let most = *serving.lock().unwrap();
        let rows: Vec<Value> = (0..most).map(|id| json!({"id": id})).collect();
        Reply::Json(json!({"data": rows}).to_string())
    });
    let config = json!({"manifest": manifest(&vendor.url(), "orders")});
    let connector = insert_connector(&mut client, "shop", &config);
    let run = sync(&mut client, &connector);
    assert_eq!(wait_for_run(&mut client, &run)["inserted"], 5);
    *most.lock().unwrap() = 3;
    let run: String = client
        .query_one(
            "SELECT connector_service_preview($1::text::uuid)::text",
            &[&connector],
        )
        .unwrap()
        .get(0);
    let run = wait_for_run(&mut client, &run);
    let deleted = run["report"][0]["preview"]["deleted"].as_i64();
    // Only a stream that is always read whole shows what is gone.
    let sql = "SELECT count(*) FROM raw_connector_data WHERE deleted";
    assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, i64>(0), 0);
    let run = sync(&mut client, &connector);
    let run = wait_for_run(&mut client, &run);
    assert_eq!(
        deleted,
        run["deleted"].as_i64(),
        "the sync does what the preview said"
    );
}

#[test]
fn a_freshness_alert_says_that_some_streams_are_read() {
    let mut stage = stage();
    let connector = stage.insert("shop", &["bad", "good"], &json!({}));
    stage.fail("/bad", 403);
    assert_eq!(stage.sync(&connector)["state"], "failed");
    stage.client.batch_execute("UPDATE connectors SET sync_frequency = 'hourly', created_at = now() - interval '9 hours', next_sync_at = now() + interval '1 hour'; SELECT connector_service_check_quality()").unwrap();
    let row = stage.client.query_one("SELECT severity, message FROM data_quality_alerts WHERE alert_type = 'freshness' AND NOT resolved", &[]).unwrap();
    let (severity, message): (String, String) = (row.get(0), row.get(1));
    assert_eq!(severity, "warning");
    assert!(
        message.contains("has not been synced completely since")
            && message.contains("stream \"bad\": "),
        "{message}"
    );
    stage.failing.lock().unwrap().clear();
    assert_eq!(stage.sync(&connector)["state"], "succeeded");
    assert_eq!(stage.count("SELECT count(*) FROM data_quality_alerts WHERE alert_type = 'freshness' AND NOT resolved"), 0);
}

#[test]
fn streams_side_by_side_come_to_the_same() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let (now, most) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let (serving, seen) = (now.clone(), most.clone());
    let vendor = Vendor::start(move |asked| {
        {
            let mut now = serving.lock().unwrap();
            *now += 1;
            let mut most = seen.lock().unwrap();
            *most = (*most).max(*now);
        }
        std::thread::sleep(Duration::from_millis(20));
        *serving.lock().unwrap() -= 1;
        let after = asked.number("after");
        let next = if after < 90 {
            json!(after + 10)
        } else {
            json!(null)
        };
        let rows: Vec<Value> = (after..after + 10)
            .map(|id| json!({"id": id, "of": asked.path}))
            .collect();
        Reply::Json(json!({"data": rows, "next": next}).to_string())
    });
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut content = HashSet::new();
    for parallel in [1, 3, 8] {
        *most.lock().unwrap() = 0;
        let mut config = of(&vendor.url(), &names);
        config["parallel_streams"] = json!(parallel);
        let connector = insert_connector(&mut client, &format!("shop {parallel}"), &config);
        let run = sync(&mut client, &connector);
        let run = wait_for_run(&mut client, &run);
        assert_eq!(
            (&run["state"], &run["pages"], &run["inserted"]),
            (&json!("succeeded"), &json!(60), &json!(600)),
            "{run}"
        );
        assert_eq!(
            states(&run)
                .values()
                .filter(|state| *state == "ok 100")
                .count(),
            6
        );
        assert_eq!(*most.lock().unwrap(), parallel.min(6));
        let sql = "SELECT md5(string_agg(source_record_id || data::text, ',' ORDER BY source_record_id)) FROM raw_connector_data WHERE connector_id = $1::text::uuid";
        content.insert(
            client
                .query_one(sql, &[&connector])
                .unwrap()
                .get::<_, String>(0),
        );
    }
    assert_eq!(content.len(), 1);
    for wrong in ["0", "9", "1.5", "\"2\"", "true"] {
        let sql =
            format!("UPDATE connectors SET config = config || '{{\"parallel_streams\": {wrong}}}'");
        let error = client.batch_execute(&sql).unwrap_err();
        assert!(
            error.to_string().contains("whole number from 1 to 8")
                || error
                    .as_db_error()
                    .unwrap()
                    .message()
                    .contains("whole number from 1 to 8"),
            "{error:?}"
        );
    }
    let sql = "SELECT string_agg(type, ',' ORDER BY type) FROM connector_service_catalog() WHERE config ? 'parallel_streams' AND config ? 'trace'";
    let types: String = client.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(
        types,
        "api,erpnext,mysql,postgres,quickbooks,salesforce,shopify,square,stripe"
    );
}

#[test]
fn tables_of_a_database_are_read_side_by_side_with_few_connections() {
    let cluster =
        Cluster::start("connector_service.allowed_private_hosts = '127.0.0.1, localhost'");
    let mut source = cluster.client("postgres");
    source.batch_execute("CREATE DATABASE books").unwrap();
    let mut books = cluster.client("books");
    books
        .batch_execute("CREATE ROLE reader LOGIN CONNECTION LIMIT 2")
        .unwrap();
    let mut tables = Vec::new();
    for number in 0..5 {
        books.batch_execute(&format!("CREATE TABLE t{number} AS SELECT i AS id FROM generate_series(1, 300) i; ALTER TABLE t{number} ADD PRIMARY KEY (id); GRANT SELECT ON t{number} TO reader")).unwrap();
        tables.push(json!({"table": format!("t{number}"), "key": ["id"]}));
    }
    let port: String = source.query_one("SHOW port", &[]).unwrap().get(0);
    let mut client = cluster.database("app");
    let config = json!({"host": "127.0.0.1", "port": port.parse::<u16>().unwrap(), "database": "books", "tls": "off", "username": "reader", "streams": tables, "batch": 50, "parallel_streams": 4, "trace": true});
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
        VALUES ('00000000-0000-4000-8000-000000000001', 'books', 'postgres', $1, '{\"password\": \"not_a_real_password\"}', 'manual') RETURNING connector_id::text";
    let connector: String = client.query_one(sql, &[&config]).unwrap().get(0);
    let run = sync(&mut client, &connector);
    let run = wait_for_run(&mut client, &run);
    assert_eq!(
        (&run["state"], &run["inserted"]),
        (&json!("succeeded"), &json!(1_500)),
        "{run}"
    );
    let sql = "SELECT count(*), count(DISTINCT stream), sum(records)::bigint, bool_and(method = 'SQL' AND status IS NULL AND address ~ '^postgres://127.0.0.1:[0-9]+/books$' AND address !~ 'reader') FROM sync_requests WHERE error_code IS NULL";
    let row = client.query_one(sql, &[]).unwrap();
    assert_eq!(
        (
            row.get::<_, i64>(1),
            row.get::<_, i64>(2),
            row.get::<_, bool>(3)
        ),
        (5, 1_500, true)
    );
    assert!(row.get::<_, i64>(0) >= 30);
    // One table cannot be read: the others are.
    books
        .batch_execute("REVOKE SELECT ON t1 FROM reader")
        .unwrap();
    let run = sync(&mut client, &connector);
    let run = wait_for_run(&mut client, &run);
    assert_eq!(
        (&run["state"], &run["error_code"]),
        (&json!("failed"), &json!("permission_missing")),
        "{run}"
    );
    assert_eq!(
        states(&run),
        expected(&[
            ("t0", "ok 300"),
            ("t1", "failed 0"),
            ("t2", "ok 300"),
            ("t3", "ok 300"),
            ("t4", "ok 300")
        ])
    );
    // Nobody is let in: it is tried once, and not for each table.
    books.batch_execute("ALTER ROLE reader NOLOGIN").unwrap();
    let run = sync(&mut client, &connector);
    let run = wait_for_run(&mut client, &run);
    assert_eq!(
        (&run["state"], &run["error_code"]),
        (&json!("failed"), &json!("credentials_rejected")),
        "{run}"
    );
    assert!(
        states(&run)
            .values()
            .all(|state| state == "failed 0" || state == "skipped 0"),
        "{run}"
    );
    let status: String = client
        .query_one("SELECT status FROM connectors", &[])
        .unwrap()
        .get(0);
    assert_eq!(status, "error");
}

#[test]
fn what_a_run_asked_for_is_kept_where_it_failed_or_config_says_so() {
    let mut stage = stage();
    let quiet = stage.insert("quiet", &["a", "b"], &json!({}));
    let run = stage.sync(&quiet);
    assert_eq!(
        (&run["state"], stage.requests(&run).len()),
        (&json!("succeeded"), 0)
    );
    stage.fail("/b", 500);
    let run = stage.sync(&quiet);
    let seen: Vec<(String, i64, i64)> = stage
        .requests(&run)
        .iter()
        .map(|r| {
            (
                r["stream"].as_str().unwrap().to_owned(),
                r["status"].as_i64().unwrap(),
                r["tries"].as_i64().unwrap(),
            )
        })
        .collect();
    let is = |stream: &str, status, tries| (stream.to_owned(), status, tries);
    assert_eq!(
        seen,
        [
            is("a", 200, 1),
            is("a", 200, 1),
            is("b", 500, 1),
            is("b", 500, 2)
        ]
    );
    stage.failing.lock().unwrap().clear();
    let traced = stage.insert("traced", &["a"], &json!({"trace": true}));
    let run = stage.sync(&traced);
    let requests = stage.requests(&run);
    assert_eq!((&run["state"], requests.len()), (&json!("succeeded"), 2));
    let host = stage.vendor.host();
    assert_eq!(requests[0]["address"], format!("http://{host}/a"));
    assert_eq!(requests[1]["address"], format!("http://{host}/a?after="));
    assert_eq!(
        (
            &requests[1]["method"],
            &requests[1]["records"],
            &requests[1]["error_code"]
        ),
        (&json!("GET"), &json!(2), &Value::Null)
    );
    assert!(
        requests[1]["bytes"].as_i64().unwrap() > 10
            && requests[1]["duration"].is_string()
            && requests[1]["pause"].is_string()
    );
    // A run that never got an answer says so.
    stage.fail("/a", 0);
    let run = stage.sync(&traced);
    let last = stage.requests(&run).pop().unwrap();
    assert_eq!(
        (&last["status"], &last["error_code"]),
        (&Value::Null, &json!("read_timeout"))
    );
    stage.failing.lock().unwrap().clear();
    // Deleted with the run, with the connector, and after a while.
    let before = stage.count("SELECT count(*) FROM sync_requests");
    stage
        .client
        .execute(
            "DELETE FROM sync_runs WHERE run_id = $1::text::uuid",
            &[&run["run_id"].as_str().unwrap()],
        )
        .unwrap();
    assert!(stage.count("SELECT count(*) FROM sync_requests") < before);
    stage.client.batch_execute("UPDATE sync_requests SET requested_at = requested_at - interval '8 days' WHERE request = 1").unwrap();
    let old = "SELECT count(*) FROM sync_requests WHERE requested_at < now() - interval '7 days'";
    assert!(stage.count(old) > 0);
    // Old rows are looked for when the upkeep process starts.
    stage.cluster.stop(Stop::Fast);
    stage.cluster.run();
    stage.client = stage.cluster.wait_ready_in("app");
    wait_until(60, "old requests are deleted", || {
        (stage.count(old) == 0).then_some(())
    });
    assert!(stage.count("SELECT count(*) FROM sync_requests") > 0);
    stage
        .client
        .batch_execute("DELETE FROM raw_connector_data; DELETE FROM connectors")
        .unwrap();
    assert_eq!(stage.count("SELECT count(*) FROM sync_requests"), 0);
}

#[test]
fn of_a_long_run_the_last_200_requests_are_kept() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|asked| {
        let after = asked.number("after");
        let next = if after < 259 {
            json!(after + 1)
        } else {
            json!(null)
        };
        Reply::Json(json!({"data": [{"id": after}], "next": next}).to_string())
    });
    let mut config = api(&vendor.url(), "not_a_real_token_1234567890abcdef");
    config["trace"] = json!(true);
    config["manifest"]["streams"][0]["retriever"]["requester"]["request_parameters"] =
        json!({"key": "{{ config['api_key'] }}", "plain": "not-a-real-value"});
    let connector = insert_connector(&mut client, "shop", &config);
    let run = sync(&mut client, &connector);
    let run = wait_for_run(&mut client, &run);
    assert_eq!(
        (&run["state"], &run["pages"]),
        (&json!("succeeded"), &json!(260)),
        "{run}"
    );
    let sql = "SELECT count(*), min(request), max(request), count(DISTINCT address), min(address), string_agg(r::text, E'\\n') FROM sync_requests r";
    let row = client.query_one(sql, &[]).unwrap();
    assert_eq!(
        (
            row.get::<_, i64>(0),
            row.get::<_, i64>(1),
            row.get::<_, i64>(2),
            row.get::<_, i64>(3)
        ),
        (200, 1, 200, 1)
    );
    assert_eq!(
        row.get::<_, String>(4),
        format!("http://{}/***?key=&plain=&after=", vendor.host())
    );
    let all: String = row.get(5);
    for secret in ["sk_test", "not_a_real_token", "not-a-real-value"] {
        assert!(!all.contains(secret), "{secret}");
    }
}
