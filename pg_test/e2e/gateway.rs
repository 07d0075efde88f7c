//! Tests the gateway: which tokens are accepted, when webhook events are acknowledged and stored, and that the gateway
//! blocks no other session.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_service_test::http::{ask, try_ask};
use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

const OTHER: &str = "00000000-0000-4000-8000-000000000002";

#[test]
fn a_measure_of_a_tenant_is_read_like_a_metric() {
    let mut stage = Gateway::start("");
    stage
        .client
        .batch_execute(&format!(
            "INSERT INTO measures (tenant_id, name, unit, aggregation) VALUES
                ('{TENANT}', 'stock turns', 'pieces', 'last'), ('{OTHER}', 'visits', 'visits', 'sum');
             INSERT INTO measure_values (tenant_id, metric_type, metric_date, metric_value)
             VALUES ('{TENANT}', 'stock turns', '2026-01-10', 7.25), ('{TENANT}', 'stock turns', '2026-01-11', 8);
             INSERT INTO metrics (tenant_id, metric_type, metric_date, metric_value) VALUES ('{TENANT}', 'costs', '2026-01-11', 1)"
        ))
        .unwrap();
    let own = stage.token(Some(TENANT), "read");
    let path = format!("/metrics/{TENANT}?start_date=2026-01-01&end_date=2026-01-31");
    let answered = stage.get(&format!("{path}&metric_type=stock%20turns"), &own);
    let sql =
        format!("SELECT get_metrics('{TENANT}', 'stock turns', '2026-01-01', '2026-01-31')::text");
    let expected: String = stage.client.query_one(&sql, &[]).unwrap().get(0);
    assert_eq!(
        (answered.status, answered.body.as_str()),
        (200, expected.as_str())
    );
    assert!(expected.contains("7.25"), "{expected}");
    assert_eq!(
        stage
            .get(&format!("{path}&metric_type=visits"), &own)
            .status,
        400
    );
    // All of them, page by page.
    let (mut types, mut after) = (vec![], String::new());
    loop {
        let page = stage.get(&format!("{path}&limit=1{after}"), &own).json();
        types.extend(
            page["metrics"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| m["metric_type"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={}", next.replace(' ', "%20"));
    }
    assert_eq!(types, ["stock turns", "costs", "stock turns"]);
    let tenants = stage.get("/tenants", &own).json();
    assert_eq!(
        tenants["tenants"][0]["measures"],
        json!([{"name": "stock turns", "unit": "pieces", "aggregation": "last", "description": null}])
    );
}

#[test]
fn a_token_reads_only_the_metrics_of_its_tenant() {
    let mut stage = Gateway::start("");
    stage
        .client
        .batch_execute(&format!(
            "INSERT INTO tenants (tenant_id) VALUES ('{TENANT}'), ('{OTHER}');
             INSERT INTO metrics (tenant_id, metric_type, metric_date, metric_value, data)
             SELECT t.tenant_id, kind, day, 0.1 + extract(day FROM day) * 12345678901234567.01, '{{\"category\": \"x\"}}'
             FROM tenants t, unnest(ARRAY['revenue', 'costs']) AS kind, generate_series('2026-01-01'::timestamp, '2026-01-31', '1 day') AS day"
        ))
        .unwrap();
    let [own, foreign, every, app] = [
        (Some(TENANT), "read"),
        (Some(OTHER), "read"),
        (None, "read"),
        (Some(TENANT), "app"),
    ]
    .map(|(tenant, scope)| stage.token(tenant, scope));
    let path =
        format!("/metrics/{TENANT}?metric_type=revenue&start_date=2026-01-10&end_date=2026-01-20");
    let sql =
        format!("SELECT get_metrics('{TENANT}', 'revenue', '2026-01-10', '2026-01-20')::text");
    let expected: String = stage.client.query_one(&sql, &[]).unwrap().get(0);
    for token in [&own, &every, &app] {
        let answered = stage.get(&path, token);
        assert_eq!(
            (answered.status, answered.body.as_str()),
            (200, expected.as_str())
        );
    }
    assert!(
        expected.contains("123456789012345670.2"),
        "every digit: {expected}"
    );
    for token in ["", "cs_test_not_a_real_token", SECRET] {
        assert_eq!(stage.get(&path, token).status, 401);
    }
    let answered = stage.get(&path, &foreign);
    assert_eq!(answered.status, 403);
    assert!(!answered.body.contains("metric_value"));
    // What is not known of a type is said as the function says it, and nothing in a parameter is SQL.
    let answered = stage.get(&path.replace("revenue", "revenue'--"), &own);
    assert_eq!(answered.status, 400);
    let answered = stage.get(&path.replace("2026-01-20", "2025-01-20"), &own);
    assert_eq!(
        (
            answered.status,
            answered.json()["error"]["code"]
                .as_str()
                .unwrap()
                .to_owned()
        ),
        (400, "bad_request".into())
    );

    // Page by page the same, in the same order.
    let all = format!("/metrics/{TENANT}?start_date=2026-01-01&end_date=2026-01-31");
    let whole = stage.get(&all, &own).json();
    assert_eq!(whole["count"], 62);
    let mut pieces = Vec::new();
    let mut after = String::new();
    loop {
        let page = stage.get(&format!("{all}&limit=7{after}"), &own).json();
        let metrics = page["metrics"].as_array().unwrap();
        assert_eq!(page["count"], metrics.len());
        pieces.extend(metrics.clone());
        match page.get("next") {
            Some(next) => after = format!("&after={}", next.as_str().unwrap()),
            None => break,
        }
    }
    assert_eq!(whole["metrics"], Value::Array(pieces));

    // A right that was taken back, or has run out, is none.
    stage
        .client
        .batch_execute("UPDATE gateway_tokens SET expires_at = now() WHERE scope = 'app'")
        .unwrap();
    assert_eq!(stage.get(&path, &app).status, 401);
    stage
        .client
        .batch_execute(&format!(
            "DELETE FROM gateway_tokens WHERE tenant_id = '{TENANT}'"
        ))
        .unwrap();
    assert_eq!(stage.get(&path, &own).status, 401);
    let sql =
        "SELECT count(*) FROM gateway_tokens WHERE last_used_at > now() - interval '1 minute'";
    assert_eq!(stage.count(sql), 2);
    let text = stage.get("/internal/prometheus", &every);
    assert_eq!(text.status, 200);
    assert!(
        text.body.contains("connector_service_workers 1\n"),
        "{}",
        text.body
    );
    assert_eq!(stage.get("/internal/prometheus", &foreign).status, 403);
}

#[test]
fn an_application_can_request_syncs_and_upload_files() {
    let mut stage = Gateway::start("");
    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1}], "next": null}"#.into()));
    let connector = insert_connector(&mut stage.client, "shop", &api(&vendor.url(), "orders"));
    stage
        .client
        .batch_execute(&format!(
            "INSERT INTO tenants (tenant_id) VALUES ('{OTHER}')"
        ))
        .unwrap();
    let [read, app, foreign] = [
        (Some(TENANT), "read"),
        (Some(TENANT), "app"),
        (Some(OTHER), "app"),
    ]
    .map(|(tenant, scope)| stage.token(tenant, scope));
    let body = json!({"connector_id": connector}).to_string();
    let path = "/internal/sync-connector";
    assert_eq!(stage.post(path, &read, &body).status, 403);
    assert_eq!(stage.post(path, &foreign, &body).status, 404);
    assert_eq!(
        stage
            .post(path, &app, &json!({"connector_id": TENANT}).to_string())
            .status,
        404
    );
    assert_eq!(stage.post(path, &app, "[]").status, 400);
    let answered = stage.post(path, &app, &body);
    assert_eq!(answered.status, 202, "{answered:?}");
    let run = answered.json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(wait_for_run(&mut stage.client, &run)["state"], "succeeded");
    stage
        .client
        .batch_execute("UPDATE connectors SET status = 'paused'")
        .unwrap();
    assert_eq!(stage.post(path, &app, &body).status, 409);

    let sql = "INSERT INTO connectors (tenant_id, name, type, config) VALUES ($1::text::uuid, 'files', 'csv', '{\"key\": \"id\"}') RETURNING connector_id::text";
    let files: String = stage.client.query_one(sql, &[&TENANT]).unwrap().get(0);
    let file = "id,amount\n1,12.50\n2,3\n";
    let upload = format!("/uploads/{files}?file=sales%20of%20May.csv");
    assert_eq!(stage.post(&upload, &read, file).status, 403);
    assert_eq!(stage.post(&upload, &foreign, file).status, 404);
    assert_eq!(
        stage.post(&format!("/uploads/{files}"), &app, file).status,
        400
    );
    assert_eq!(
        stage
            .post(&format!("/uploads/{connector}?file=a.csv"), &app, file)
            .status,
        400
    );
    let answered = stage.post(&upload, &app, file);
    assert_eq!(answered.status, 202, "{answered:?}");
    let run = answered.json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(wait_for_run(&mut stage.client, &run)["inserted"], 2);
    // Larger than the gateway takes.
    stage
        .client
        .batch_execute("ALTER SYSTEM SET connector_service.max_upload_size = '64kB'")
        .unwrap();
    stage
        .client
        .batch_execute("SELECT pg_reload_conf()")
        .unwrap();
    let large = format!("id\n{}", "1\n".repeat(40_000));
    wait_until(10, "the file is over the limit that was just set", || {
        (stage.post(&upload, &app, &large).status == 413).then_some(())
    });
}

#[test]
fn webhook_events_are_stored_once_and_counted() {
    let mut stage = Gateway::start("");
    let connector =
        stage.webhook(&json!({"stream": "orders", "key": "id", "updated_at": "updated_at"}));
    let sql = "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path) VALUES ($1::text::uuid, 'orders', 'revenue', '$.total', '$.day')";
    stage.client.execute(sql, &[&connector]).unwrap();
    let order = |total: &str, minute: u32| {
        format!(
            r#"{{"id": 7, "total": {total}, "day": "2026-01-05", "updated_at": "2026-01-05T10:{minute:02}:00Z"}}"#
        )
    };
    // A hundred at once.
    let body = order("10.50", 5);
    let (port, shared) = (stage.port, Arc::new((connector.clone(), body.clone())));
    let threads: Vec<_> = (0..100)
        .map(|_| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                push(port, &shared.0, &shared.1).map(|answered| answered.status)
            })
        })
        .collect();
    let mut statuses: BTreeMap<Option<u16>, u32> = BTreeMap::new();
    for thread in threads {
        *statuses.entry(thread.join().unwrap()).or_default() += 1;
    }
    assert_eq!(Vec::from_iter(statuses), [(Some(200), 100)]);
    assert_eq!(stage.count("SELECT count(*) FROM raw_connector_data"), 1);
    let revenue = |stage: &mut Gateway, expected: &str| {
        wait_until(30, "the day's revenue is what was pushed", || {
            let sql = "SELECT metric_value::text FROM metrics WHERE metric_type = 'revenue'";
            let row = stage.client.query_opt(sql, &[]).unwrap();
            row.filter(|row| row.get::<_, &str>(0) == expected)
                .map(|_| ())
        });
    };
    revenue(&mut stage, "10.50");
    // A later state takes its place, an earlier one that comes late does not, and neither does one forged.
    assert_eq!(
        push(port, &connector, &order("12.00", 9)).unwrap().status,
        200
    );
    revenue(&mut stage, "12.00");
    assert_eq!(
        push(port, &connector, &order("11.00", 7)).unwrap().status,
        200
    );
    let path = format!("/webhooks/{connector}");
    let forged = order("99.00", 30);
    for headers in [
        vec![("X-Signature", signature(&body))],
        vec![("X-Signature", String::new())],
        vec![
            ("X-Signature", signature(&forged)),
            ("X-Signature", signature(&body)),
        ],
        vec![],
    ] {
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answered = ask(port, "POST", &path, &headers, forged.as_bytes());
        let unknown = ask(
            port,
            "POST",
            &format!("/webhooks/{OTHER}"),
            &headers,
            forged.as_bytes(),
        );
        assert_eq!((answered.status, &answered.body), (401, &unknown.body));
    }
    // Of several records in one delivery a bad one costs itself.
    let sql = "UPDATE connectors SET config = config || '{\"records\": \"orders\"}'";
    stage.client.batch_execute(sql).unwrap();
    let many = r#"{"orders": [{"id": 8, "total": 1, "day": "2026-01-05", "updated_at": "2026-01-05T10:00:00Z"}, {"id": 9, "note": "\u0000"}]}"#;
    assert_eq!(push(port, &connector, many).unwrap().status, 200);
    revenue(&mut stage, "13.00");
    assert_eq!(
        stage.count("SELECT count(*) FROM quarantine WHERE reason_code = 'nul_character'"),
        1
    );
    assert_eq!(push(port, &connector, "{").unwrap().status, 400);
    assert_eq!(push(port, &connector, "[]").unwrap().status, 400);

    let sql = "SELECT to_jsonb(r) FROM sync_runs r WHERE kind = 'webhook'";
    let runs = stage.client.query(sql, &[]).unwrap();
    assert_eq!(runs.len(), 1, "an hour has one run");
    let run: Value = runs[0].get(0);
    let counts = [
        "pages",
        "received",
        "inserted",
        "updated",
        "unchanged",
        "quarantined",
    ]
    .map(|name| run[name].as_i64().unwrap());
    assert_eq!(counts, [103, 104, 2, 1, 100, 1], "{run}");
    ledger_holds(&mut stage.client);
    assert_eq!(
        stage.count("SELECT count(*) FROM connector_service_verify()"),
        0
    );

    // Nothing is taken for a connector that a person has paused; the sender comes back.
    stage
        .client
        .batch_execute("UPDATE connectors SET status = 'paused'")
        .unwrap();
    let answered = push(port, &connector, many).unwrap();
    assert_eq!(
        (answered.status, answered.headers["retry-after"].as_str()),
        (503, "3600")
    );
}

#[test]
fn an_event_older_than_the_stored_record_does_not_overwrite_it() {
    let mut stage = Gateway::start("");
    let till = stage.webhook(&json!({"key": "id"}));
    let state = |minute: u32| {
        format!(r#"{{"id": 7, "minute": {minute}, "updated_at": "2026-01-05T10:{minute:02}:00Z"}}"#)
    };
    let port = stage.port;
    let pushed = |body: &str| push(port, &till, body).unwrap().status;
    assert_eq!(pushed(&state(5)), 200);
    stage.execute(
        "UPDATE connectors SET config = '{\"key\": \"id\", \"updated_at\": \"updated_at\"}'",
    );
    assert_eq!(pushed(&state(5)), 200);
    assert_eq!(pushed(&state(1)), 200);
    let sql = "SELECT (data ->> 'minute')::bigint FROM raw_connector_data";
    assert_eq!(stage.count(sql), 5);
    assert_eq!(pushed(&state(6)), 200);
    assert_eq!(stage.count(sql), 6);
    ledger_holds(&mut stage.client);
}

#[test]
fn a_locked_connector_does_not_delay_the_webhooks_of_others() {
    let mut stage = Gateway::start("");
    let held = stage.webhook(&json!({"key": "id"}));
    let free = stage.webhook(&json!({"key": "id"}));
    let mut other = stage.cluster.client("app");
    let mut open = other.transaction().unwrap();
    let sql = "SELECT FROM connectors WHERE connector_id = $1::text::uuid FOR UPDATE";
    open.execute(sql, &[&held]).unwrap();
    let began = Instant::now();
    let port = stage.port;
    let threads: Vec<_> = (0..40)
        .map(|id| {
            let connector = if id % 2 == 0 {
                held.clone()
            } else {
                free.clone()
            };
            std::thread::spawn(move || {
                (
                    id % 2,
                    push(port, &connector, &format!(r#"{{"id": {id}}}"#))
                        .map(|answered| answered.status),
                )
            })
        })
        .collect();
    let mut statuses: BTreeMap<(usize, Option<u16>), u32> = BTreeMap::new();
    for thread in threads {
        *statuses.entry(thread.join().unwrap()).or_default() += 1;
    }
    assert_eq!(
        Vec::from_iter(statuses),
        [((0, Some(503)), 20), ((1, Some(200)), 20)]
    );
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    open.commit().unwrap();
    assert_eq!(push(port, &held, r#"{"id": 1}"#).unwrap().status, 200);

    // What a trigger of theirs refuses costs itself, and not what came with it.
    stage
        .client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$; GRANT EXECUTE ON FUNCTION refuse() TO PUBLIC;
             CREATE TRIGGER refuse BEFORE INSERT ON raw_connector_data FOR EACH ROW WHEN (NEW.data ->> 'id' LIKE '%13') EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    let many: Vec<Value> = (1001..=1100).map(|id| json!({"id": id})).collect();
    assert_eq!(
        push(port, &free, &json!(many).to_string()).unwrap().status,
        200
    );
    assert_eq!(stage.count("SELECT count(*) FROM raw_connector_data WHERE data ->> 'id' LIKE '1___' AND length(data ->> 'id') = 4"), 99);
    let sql = "SELECT count(*) FROM quarantine WHERE reason_code = 'refused_by_postgres' AND source_record_id = 'events/1013'";
    assert_eq!(stage.count(sql), 1);
    ledger_holds(&mut stage.client);

    // Once the key is away nobody is told that he does not sign rightly.
    let file = stage.cluster.dir.join("data.connector_service.key");
    let away = stage.cluster.dir.join("away");
    std::fs::rename(&file, &away).unwrap();
    assert_eq!(push(port, &free, r#"{"id": 2}"#).unwrap().status, 503);
    std::fs::rename(&away, &file).unwrap();
    assert_eq!(push(port, &free, r#"{"id": 2}"#).unwrap().status, 200);
}

#[test]
fn a_vendor_s_event_starts_a_sync_and_a_burst_of_events_starts_one_or_two() {
    let mut stage = Gateway::start("");
    let vendor = Vendor::start(|asked| {
        let pause = if asked.path.contains("charges") {
            300
        } else {
            0
        };
        Reply::After(
            Duration::from_millis(pause),
            Box::new(Reply::Json(
                r#"{"object": "list", "data": [], "has_more": false}"#.into(),
            )),
        )
    });
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
        VALUES ($1::text::uuid, 'payments', 'stripe', $2, jsonb_build_object('api_key', 'sk_test_not_a_real_key', 'webhook_secret', $3::text), 'manual') RETURNING connector_id::text";
    let config = json!({"base_url": vendor.url(), "streams": ["charges"]});
    let connector: String = stage
        .client
        .query_one(sql, &[&TENANT, &config, &SECRET])
        .unwrap()
        .get(0);
    let path = format!("/webhooks/{connector}");
    let sql = "SELECT extract(epoch FROM now())::bigint";
    let now = stage.count(sql);
    let port = stage.port;
    let event = |id: usize| {
        let body = json!({"id": format!("evt_{id}"), "object": "event", "type": "charge.updated", "livemode": false, "created": now,
            "data": {"object": {"id": "ch_1", "object": "charge"}}}).to_string();
        let signed = signature(&format!("{now}.{body}"));
        ask(
            port,
            "POST",
            &path,
            &[("Stripe-Signature", &format!("t={now},v1={signed}"))],
            body.as_bytes(),
        )
        .status
    };
    // The second one comes while the sync that the first one asked for is going.
    assert_eq!(event(0), 200);
    wait_until(30, "the account is asked", || {
        (vendor.asked_for("/v1/charges") > 0).then_some(())
    });
    for id in 1..40 {
        assert_eq!(event(id), 200);
        assert_eq!(event(id), 200, "once more");
    }
    wait_until(
        60,
        "the account was asked again, behind the last event",
        || {
            let sql = "SELECT count(*) FROM sync_runs WHERE kind = 'sync' AND state = 'succeeded' AND requested_by = 'webhook'";
            (stage.count(sql) == 2).then_some(())
        },
    );
    assert_eq!(
        stage.count("SELECT count(*) FROM raw_connector_data WHERE stream = 'webhooks'"),
        40
    );
    let sql = "SELECT count(*) FROM sync_runs WHERE kind = 'sync' AND state <> 'succeeded'";
    assert_eq!(stage.count(sql), 0);
    ledger_holds(&mut stage.client);

    // What a vendor could not push is found by a schedule, and this one has none.
    let doctor = |stage: &mut Gateway| {
        let sql = "SELECT ok, detail, fix FROM connector_service_doctor() WHERE item = 'schedule of webhook connectors'";
        let row = stage.client.query_one(sql, &[]).unwrap();
        (
            row.get::<_, bool>(0),
            row.get::<_, String>(1),
            row.get::<_, Option<String>>(2),
        )
    };
    let (ok, detail, fix) = doctor(&mut stage);
    assert!(!ok && detail.contains("\"payments\""), "{detail}");
    stage.execute(&fix.unwrap());
    let (ok, detail, fix) = doctor(&mut stage);
    assert!(ok && fix.is_none(), "{detail}");
    let sql = "SELECT count(*) FROM connectors WHERE sync_frequency = 'daily' AND next_sync_at < now() + interval '2 days'";
    assert_eq!(stage.count(sql), 1);
}

#[test]
fn acknowledged_events_survive_a_kill_and_no_others_are_stored() {
    let mut stage = Gateway::start("");
    let connector = stage.webhook(&json!({"key": "id"}));
    let mut acknowledged = Vec::new();
    for round in 0..10 {
        let before = stage.pid().unwrap();
        // At the place itself, or after the rest of the round.
        stage.cluster.arm("before_webhook_commit", 1 + round % 3);
        let mut lost = None;
        for number in 0..3 {
            let id = round * 10 + number;
            let answered = push(stage.port, &connector, &format!(r#"{{"id": {id}}}"#));
            match answered.map(|answered| answered.status) {
                Some(200) => acknowledged.push(id),
                None => lost = lost.or(Some(id)),
                other => panic!("{other:?}"),
            }
        }
        let lost = lost.unwrap();
        wait_until(30, "the gateway is back", || {
            stage.pid().filter(|pid| *pid != before)
        });
        stage.client = stage.cluster.wait_ready_in("app");
        let sql = format!(
            "SELECT count(*) FROM raw_connector_data WHERE source_record_id = 'events/{lost}'"
        );
        assert_eq!(stage.count(&sql), 0);
        // The sender tries again, and is heard.
        let body = format!(r#"{{"id": {lost}}}"#);
        wait_until(30, "it listens", || {
            push(stage.port, &connector, &body).filter(|answered| answered.status == 200)
        });
        acknowledged.push(lost);
    }
    let sql = "SELECT source_record_id FROM raw_connector_data";
    let rows = stage.client.query(sql, &[]).unwrap();
    let mut stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut expected: Vec<String> = acknowledged
        .iter()
        .map(|id| format!("events/{id}"))
        .collect();
    stored.sort();
    expected.sort();
    assert_eq!(stored, expected);
    ledger_holds(&mut stage.client);
}

#[test]
fn the_gateway_is_off_until_a_setting_names_an_address_and_follows_its_changes() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    cluster.wait_worker("app");
    let mut stage = Gateway {
        client: cluster.client("app"),
        cluster,
        port: free_port(),
    };
    assert_eq!(stage.pid(), None);
    let set = |client: &mut Client, value: &str| {
        client.batch_execute(&format!(
            "ALTER SYSTEM SET connector_service.gateway_listen = '{value}'"
        ))?;
        client.batch_execute("SELECT pg_reload_conf()")
    };
    let error = set(&mut client, "localhost").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22023");

    // Somebody else is there: it says so, and listens when he is gone. Syncing goes on.
    let squatter = TcpListener::bind(("127.0.0.1", stage.port)).unwrap();
    set(&mut client, &format!("app=127.0.0.1:{}", stage.port)).unwrap();
    wait_until(30, "it says what is wrong", || {
        stage
            .cluster
            .log()
            .contains("gateway cannot listen in database")
            .then_some(())
    });
    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [], "next": null}"#.into()));
    let connector = insert_connector(&mut client, "shop", &api(&vendor.url(), "orders"));
    let run = sync(&mut client, &connector);
    assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    drop(squatter);
    let answers = |port: u16| {
        try_ask(port, "GET", "/live", &[], b"").is_some_and(|answered| answered.status == 200)
    };
    wait_until(30, "it listens", || answers(stage.port).then_some(()));
    let pid = stage.pid().unwrap();

    let moved = free_port();
    set(&mut client, &format!("app=127.0.0.1:{moved}")).unwrap();
    wait_until(30, "it listens elsewhere", || {
        (answers(moved) && !answers(stage.port)).then_some(())
    });
    assert_eq!(stage.pid(), Some(pid));
    stage.port = moved;

    // As ready as it says.
    let ready = |stage: &Gateway| {
        let answered = ask(stage.port, "GET", "/ready", &[], b"");
        (answered.status, answered.json()["problems"].clone())
    };
    assert_eq!(ready(&stage), (200, json!([])));
    client
        .batch_execute("UPDATE installation SET held_since = now(), held_because = 'a test'")
        .unwrap();
    assert_eq!(ready(&stage), (503, json!(["a test"])));
    client
        .batch_execute("SELECT connector_service_adopt()")
        .unwrap();

    // Out of the way of whoever needs the database for himself; back afterwards.
    drop(client);
    stage.client = stage.cluster.client("postgres");
    let began = Instant::now();
    stage
        .client
        .batch_execute("ALTER DATABASE app RENAME TO moved")
        .unwrap();
    stage
        .client
        .batch_execute("ALTER DATABASE moved RENAME TO app")
        .unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    wait_until(60, "it listens again", || answers(moved).then_some(()));
    set(&mut stage.client, "").unwrap();
    wait_until(30, "it is gone", || {
        (stage.pid().is_none() && !answers(moved)).then_some(())
    });
    set(&mut stage.client, &format!("127.0.0.1:{moved}")).unwrap();
    wait_until(60, "it listens to whatever database it is", || {
        answers(moved).then_some(())
    });
    stage.client.batch_execute("DROP DATABASE app").unwrap();
    wait_until(30, "it is gone with its database", || {
        (!answers(moved)).then_some(())
    });
}

#[test]
fn the_gateway_speaks_tls_and_loads_a_renewed_certificate() {
    let port = free_port();
    let cluster = Cluster::create();
    let (key, certificate) = cluster.certificate();
    cluster.configure(&format!(
        "shared_preload_libraries = 'connector_service'
         connector_service.gateway_listen = '127.0.0.1:{port}'
         connector_service.gateway_certificate = '{}'
         connector_service.gateway_private_key = '{}'",
        certificate.display(),
        key.display()
    ));
    cluster.run();
    let mut client = cluster.database("app");
    // What a client of OpenSSL sees, who trusts the certificate that is in this file now.
    let speak = || {
        use std::io::Write;
        let mut child = std::process::Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                "-CAfile",
                certificate.to_str().unwrap(),
                "-verify_ip",
                "127.0.0.1",
            ])
            .args(["-connect", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        String::from_utf8_lossy(&output.stdout).starts_with("HTTP/1.1 200")
    };
    wait_until(30, "it speaks TLS", || speak().then_some(()));
    assert!(
        try_ask(port, "GET", "/live", &[], b"").is_none(),
        "and nothing else"
    );
    cluster.certificate();
    assert!(!speak(), "the new one is not in use yet");
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    wait_until(30, "the new one is in use", || speak().then_some(()));
    // Half of what it takes is not the wish to speak in clear.
    client
        .batch_execute("ALTER SYSTEM SET connector_service.gateway_private_key = ''")
        .unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    wait_until(30, "it says so", || {
        cluster
            .log()
            .contains("only one of gateway_certificate and gateway_private_key is set")
            .then_some(())
    });
    assert!(speak() && try_ask(port, "GET", "/live", &[], b"").is_none());
    client
        .batch_execute("ALTER SYSTEM RESET connector_service.gateway_private_key")
        .unwrap();
    // One that does not read changes nothing.
    std::fs::write(&certificate, "no certificate").unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    wait_until(30, "it says so", || {
        cluster
            .log()
            .contains("could not load its new certificate")
            .then_some(())
    });
}

const CREATE_TOKEN: &str = r"
SELECT connector_service_create_token('the web shop''s back office', '00000000-0000-4000-8000-000000000001', 'app') AS token \gset
";

const CREATE_TILL: &str = r#"
INSERT INTO connectors (tenant_id, name, type, credentials, config)
VALUES ('00000000-0000-4000-8000-000000000001', 'till', 'webhook', '{"secret": "whsec_test_not_a_real_secret"}',
        '{"stream": "orders", "key": "id", "updated_at": "updated_at", "signature_header": "x-hub-signature-256", "signature_prefix": "sha256="}');
"#;

#[test]
fn a_till_pushes_and_a_back_office_reads() {
    let mut stage = Gateway::start("");
    stage
        .client
        .batch_execute(&format!(
            "INSERT INTO tenants (tenant_id) VALUES ('{TENANT}')"
        ))
        .unwrap();
    let token = CREATE_TOKEN.to_owned() + "\\echo :token\n";
    let token = stage.cluster.script("app", &token);
    stage.cluster.script("app", CREATE_TILL);
    let sql = "SELECT connector_id::text FROM connectors WHERE name = 'till'";
    let till: String = stage.client.query_one(sql, &[]).unwrap().get(0);
    let body = r#"{"id": 1, "total": 5, "updated_at": "2026-01-05T10:00:00Z"}"#;
    let signed = format!("sha256={}", signature(body));
    let path = format!("/webhooks/{till}");
    let answered = ask(
        stage.port,
        "POST",
        &path,
        &[("X-Hub-Signature-256", &signed)],
        body.as_bytes(),
    );
    assert_eq!(answered.status, 200, "{answered:?}");
    assert_eq!(
        stage.count("SELECT count(*) FROM raw_connector_data WHERE source_record_id = 'orders/1'"),
        1
    );
    let seen = stage.get("/tenants", token.trim()).json();
    assert_eq!(
        (&seen["scope"], &seen["tenants"][0]["tenant_id"]),
        (&json!("app"), &json!(TENANT))
    );
    let overview = stage
        .get(&format!("/tenants/{TENANT}/overview"), token.trim())
        .json();
    assert_eq!(overview["connectors"][0]["name"], "till");
    assert_eq!(overview["runs"][0]["kind"], "webhook");
    assert_eq!(
        stage
            .get(&format!("/tenants/{OTHER}/overview"), token.trim())
            .status,
        403
    );
    // There is nobody to ask for more.
    let sql = "SELECT connector_service_sync(connector_id) IS NULL FROM connectors";
    assert!(stage.client.query_one(sql, &[]).unwrap().get::<_, bool>(0));
    let sql = "SELECT string_agg(item || ': ' || detail, ', ') FROM connector_service_doctor() WHERE NOT ok";
    let row = stage.client.query_one(sql, &[]).unwrap();
    assert_eq!(row.get::<_, Option<&str>>(0), None);
}
