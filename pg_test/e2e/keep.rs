//! What is taken away: the JSON of old records, connectors, tenants, and one person's records. Metrics are what they should be
//! before, meanwhile and after, and whatever is killed.

use std::sync::Arc;
use std::time::Duration;

use connector_service_test::*;
use postgres::{Client, SimpleQueryMessage};

const TENANT: &str = "00000000-0000-4000-8000-000000000001";

const MAPPING: &str =
    "INSERT INTO metric_mappings (connector_type, stream, metric_type, value_path, date_path)
    VALUES ('api', 'orders', 'revenue', '$.total', '$.updated_at')";

fn one<T>(client: &mut Client, sql: &str) -> T
where
    T: for<'a> postgres::types::FromSql<'a>,
{
    client
        .query_one(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"))
        .get(0)
}

fn metrics(client: &mut Client) -> Vec<(String, String)> {
    let sql = "SELECT concat_ws(' ', tenant_id, metric_type, metric_date), metric_value::text FROM metrics ORDER BY 1";
    let rows = client.query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Waits until all is processed and summed, and compares everything with what the records come to.
fn settled(client: &mut Client) {
    wait_until(60, "all facts are written and summed", || {
        one::<bool>(
            client,
            "SELECT NOT EXISTS (SELECT FROM raw_connector_data WHERE NOT processed) AND NOT EXISTS (SELECT FROM metric_days_touched)",
        )
        .then_some(())
    });
    let wrong = client.query(
        "SELECT item, stored, expected FROM connector_service_verify()",
        &[],
    );
    let wrong = wrong.unwrap();
    assert!(
        wrong.is_empty(),
        "{} differences, such as {:?}",
        wrong.len(),
        wrong[0]
    );
}

fn dropped(client: &mut Client) -> i64 {
    one(
        client,
        "SELECT count(*) FROM raw_connector_data WHERE dropped_at IS NOT NULL",
    )
}

/// As if all orders below this id had been stored a year ago.
fn made_old(client: &mut Client, below: usize) {
    let sql = format!(
        "UPDATE raw_connector_data SET ingested_at = ingested_at - interval '365 days'
         WHERE split_part(source_record_id, '/', 2)::int < {below} AND dropped_at IS NULL"
    );
    client.batch_execute(&sql).unwrap();
}

/// A run whose rows another session has locked goes back to the queue, and goes on when they are free.
fn ended(client: &mut Client, run: &str) -> serde_json::Value {
    wait_until(60, "the run has ended", || {
        Some(run_of(client, run)).filter(|run| !run["finished_at"].is_null())
    })
}

struct Stage {
    cluster: Cluster,
    client: Client,
    shop: Arc<Shop>,
    vendor: Vendor,
}

/// A shop whose orders count as revenue.
fn stage(orders: usize, settings: &str) -> Stage {
    let cluster = Cluster::start(&format!("autovacuum_naptime = '1s'\n{settings}"));
    let mut client = cluster.database("app");
    client.batch_execute(MAPPING).unwrap();
    let shop = Arc::new(Shop::new(orders, 500));
    let serving = shop.clone();
    let vendor = Vendor::start(move |asked| serving.answer(asked));
    Stage {
        cluster,
        client,
        shop,
        vendor,
    }
}

impl Stage {
    fn connector(&mut self, name: &str) -> String {
        insert_connector(&mut self.client, name, &api(&self.vendor.url(), "orders"))
    }

    fn synced(&mut self, connector: &str) -> serde_json::Value {
        let run = sync(&mut self.client, connector);
        let ended = ended(&mut self.client, &run);
        assert_eq!(ended["state"], "succeeded", "{ended}");
        ended
    }
}

#[test]
fn the_json_of_old_records_is_dropped_and_their_facts_stay() {
    let mut stage = stage(3_000, "");
    let connector = stage.connector("shop");
    stage.synced(&connector);
    settled(&mut stage.client);
    let before = metrics(&mut stage.client);
    assert_eq!(before.len(), 28);
    made_old(&mut stage.client, 2_700);
    let refused = stage.client.execute(
        "UPDATE connectors SET config = config || '{\"raw_retention\": \"a while\"}'",
        &[],
    );
    let refused = refused.unwrap_err();
    let refused = refused.as_db_error().unwrap();
    assert_eq!(refused.code().code(), "22023");
    assert!(
        refused.message().contains("\"a while\" for all streams"),
        "{refused:?}"
    );
    stage
        .client
        .batch_execute(
            "UPDATE connectors SET config = config || '{\"raw_retention\": \"90 days\"}'",
        )
        .unwrap();
    wait_until(60, "the old records are dropped", || {
        (dropped(&mut stage.client) == 2_700).then_some(())
    });
    settled(&mut stage.client);
    assert_eq!(metrics(&mut stage.client), before);

    // Explained without its JSON, and with the time.
    let sql = "SELECT count(*) FILTER (WHERE e.dropped_at IS NOT NULL AND e.data IS NULL), count(*) FILTER (WHERE e.dropped_at IS NULL AND e.data ? 'total'),
            sum(e.counted) = min(m.metric_value), bool_and(e.mapping ->> 'value_path' = '$.total' AND e.source_record_id LIKE 'orders/%')
         FROM metrics m, connector_service_explain(m.metric_id) e WHERE m.metric_date = '2026-01-05'";
    let row = stage.client.query_one(sql, &[]).unwrap();
    let explained: (i64, i64, bool, bool) = (row.get(0), row.get(1), row.get(2), row.get(3));
    assert_eq!(explained, (97, 10, true, true));

    // Read again: nothing is written.
    let stamp = |client: &mut Client| -> String {
        one(
            client,
            "SELECT md5(string_agg(concat_ws(' ', raw_id, dropped_at, ingested_at, run_id), ',' ORDER BY raw_id)) FROM raw_connector_data",
        )
    };
    let was = stamp(&mut stage.client);
    let run = stage.synced(&connector);
    assert_eq!(
        (run["received"].as_i64(), run["unchanged"].as_i64()),
        (Some(3_000), Some(3_000)),
        "{run}"
    );
    assert_eq!(stamp(&mut stage.client), was);

    // A change is a correction, and doubles nothing.
    for id in [5, 6] {
        let changed = order(id, 4).replace("\"total\": 0.", "\"total\": 1000.");
        stage.shop.orders.lock().unwrap().insert(id, changed);
    }
    let run = stage.synced(&connector);
    assert_eq!(
        (run["updated"].as_i64(), run["unchanged"].as_i64()),
        (Some(2), Some(2_998)),
        "{run}"
    );
    settled(&mut stage.client);
    let sql = "SELECT (SELECT sum(metric_value) FROM metrics) - 2000 = (SELECT sum((n * 7 + CASE WHEN n IN (5, 6) THEN 4 ELSE 0 END)::numeric / 100) FROM generate_series(0, 2999) AS n)";
    assert!(
        one::<bool>(&mut stage.client, sql),
        "{:?}",
        metrics(&mut stage.client)
    );
    assert_eq!(dropped(&mut stage.client), 2_698);

    // What is derived again leaves them, and says so.
    let before = metrics(&mut stage.client);
    let shown = stage.cluster.script(
        "app",
        "SELECT connector_service_reprocess(connector_id) FROM connectors;",
    );
    assert!(
        shown.contains("2698 records of connector")
            && shown.contains("keep their facts")
            && shown.contains("\n302\n"),
        "{shown}"
    );
    stage
        .client
        .batch_execute("UPDATE tenants SET timezone = 'Europe/Berlin'")
        .unwrap();
    settled(&mut stage.client);
    assert_eq!(metrics(&mut stage.client).len(), before.len());

    // The source deletes one.
    stage
        .client
        .batch_execute(
            "UPDATE raw_connector_data SET deleted = true WHERE source_record_id = 'orders/100'",
        )
        .unwrap();
    settled(&mut stage.client);
    assert_eq!(
        one::<i64>(&mut stage.client, "SELECT count(*) FROM metric_facts"),
        2_999
    );
    assert!(one::<bool>(
        &mut stage.client,
        "SELECT data = '{}' FROM raw_connector_data WHERE source_record_id = 'orders/100'"
    ));
    // And shows it again.
    let run = stage.synced(&connector);
    assert_eq!(run["updated"].as_i64(), Some(1), "{run}");
    settled(&mut stage.client);
    assert_eq!(
        one::<i64>(&mut stage.client, "SELECT count(*) FROM metric_facts"),
        3_000
    );

    // Marked by mistake: nothing is left to count, but what the source shows next, although it is what it was.
    for deleted in [true, false] {
        let sql = format!(
            "UPDATE raw_connector_data SET deleted = {deleted} WHERE source_record_id = 'orders/101'"
        );
        stage.client.batch_execute(&sql).unwrap();
        settled(&mut stage.client);
        assert_eq!(
            one::<i64>(&mut stage.client, "SELECT count(*) FROM metric_facts"),
            2_999
        );
    }
    let run = stage.synced(&connector);
    assert_eq!(run["updated"].as_i64(), Some(1), "{run}");
    settled(&mut stage.client);
    assert_eq!(
        one::<i64>(&mut stage.client, "SELECT count(*) FROM metric_facts"),
        3_000
    );

    // Deleting a record deletes its fact as always.
    stage
        .client
        .batch_execute("DELETE FROM raw_connector_data WHERE source_record_id = 'orders/200'")
        .unwrap();
    settled(&mut stage.client);
    assert_eq!(
        one::<i64>(&mut stage.client, "SELECT count(*) FROM metric_facts"),
        2_999
    );
    stage
        .client
        .batch_execute("TRUNCATE raw_connector_data")
        .unwrap();
    settled(&mut stage.client);
    assert_eq!(metrics(&mut stage.client), []);
}

#[test]
fn each_stream_keeps_its_json_as_long_as_it_says() {
    let mut stage = stage(10, "connector_service.raw_retention = '30d'");
    let insert = |client: &mut Client, name: &str, retention: &str| {
        let config = format!("{{\"raw_retention\": {retention}}}");
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let sql = "INSERT INTO connectors (tenant_id, name, type, config) VALUES ($1::text::uuid, $2, 'webhook', $3) RETURNING connector_id::text";
        client
            .query_one(sql, &[&TENANT, &name, &config])
            .unwrap()
            .get::<_, String>(0)
    };
    for (name, retention) in [
        ("default", "null"),
        ("off", "\"off\""),
        ("long", "\"2 years\""),
        (
            "streams",
            "{\"orders\": \"100 days\", \"refunds\": \"off\"}",
        ),
        ("rest", "{\"orders\": \"off\", \"*\": \"300 days\"}"),
    ] {
        let connector = insert(&mut stage.client, name, retention);
        let sql = "INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data, ingested_at)
                   SELECT $1::text::uuid, $2::text::uuid, 'webhook', s, s || '/' || age, jsonb_build_object('id', age), now() - age * interval '1 day'
                   FROM unnest('{orders,refunds,users}'::text[]) AS s, unnest('{10,50,200,400}'::int[]) AS age";
        stage.client.execute(sql, &[&TENANT, &connector]).unwrap();
    }
    let expected = [
        "default orders 200,400,50",
        "default refunds 200,400,50",
        "default users 200,400,50",
        "rest refunds 400",
        "rest users 400",
        "streams orders 200,400",
        "streams users 200,400,50",
    ];
    let sql = "SELECT concat_ws(' ', c.name, r.stream, string_agg(split_part(source_record_id, '/', 2), ',' ORDER BY source_record_id))
               FROM raw_connector_data r JOIN connectors c USING (connector_id) WHERE dropped_at IS NOT NULL GROUP BY c.name, r.stream ORDER BY 1";
    let mut shown = Vec::new();
    let same = |client: &mut Client, shown: &mut Vec<String>| {
        *shown = client
            .query(sql, &[])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        *shown == expected
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !same(&mut stage.client, &mut shown) {
        assert!(std::time::Instant::now() < deadline, "{shown:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    // A setting that is shortened, and a record that is made older, are gone through again.
    stage
        .client
        .batch_execute(
            "UPDATE connectors SET config = '{\"raw_retention\": \"100 days\"}' WHERE name = 'off';
             UPDATE raw_connector_data SET ingested_at = now() - interval '101 days' WHERE source_record_id = 'orders/10'
                 AND connector_id = (SELECT connector_id FROM connectors WHERE name = 'streams')",
        )
        .unwrap();
    wait_until(60, "more is dropped", || {
        (dropped(&mut stage.client) == 16 + 6 + 1).then_some(())
    });
    let state: String = one(
        &mut stage.client,
        "SELECT string_agg(concat_ws(' ', c.name, r.stream, r.dropped), ', ' ORDER BY c.name, r.stream) FROM raw_retention r JOIN connectors c USING (connector_id)",
    );
    assert_eq!(
        state,
        "default * 9, long * 0, off * 6, rest * 2, streams * 3, streams orders 3"
    );
}

#[test]
fn kills_and_syncs_beside_retention_and_deletion_change_no_metric() {
    let mut stage = stage(4_000, "");
    let kept = stage.connector("kept");
    let gone = stage.connector("gone");
    for connector in [&kept, &gone] {
        stage.synced(connector);
    }
    settled(&mut stage.client);
    let before = metrics(&mut stage.client);
    made_old(&mut stage.client, 3_500);
    stage
        .client
        .batch_execute("UPDATE connectors SET config = config || '{\"raw_retention\": \"90 days\"}' WHERE name = 'kept'")
        .unwrap();
    for pass in 1..=3 {
        stage.cluster.arm("mid_drop", pass);
        wait_until(60, "the process is killed", || {
            stage
                .cluster
                .log()
                .matches("was terminated by signal 9")
                .nth(pass - 1)
                .map(|_| ())
        });
        stage.client = stage.cluster.wait_ready_in("app");
        stage.cluster.wait_worker("app");
    }
    // Beside it, orders change.
    for id in (0..4_000).step_by(50) {
        stage.shop.orders.lock().unwrap().insert(id, order(id, 1));
    }
    let run = sync(&mut stage.client, &kept);
    assert_eq!(ended(&mut stage.client, &run)["state"], "succeeded");
    wait_until(60, "the old records are dropped", || {
        (dropped(&mut stage.client) >= 3_430).then_some(())
    });
    settled(&mut stage.client);
    let expected: bool = one(
        &mut stage.client,
        "SELECT (SELECT sum(value) FROM metric_facts f JOIN connectors c USING (connector_id) WHERE c.name = 'kept')
            = (SELECT sum((n * 7 + (n % 50 = 0)::int)::numeric / 100) FROM generate_series(0, 3999) AS n)",
    );
    assert!(expected);
    assert_ne!(metrics(&mut stage.client), before);

    // Now the other connector goes, killed three times, while this one is synced.
    let told = stage.client.query("SELECT item, rows FROM connector_service_delete($1::text::uuid) WHERE rows > 0 ORDER BY 1", &[&gone]).unwrap();
    let told: Vec<(String, i64)> = told.iter().map(|row| (row.get(0), row.get(1))).collect();
    for (item, rows) in [
        ("connectors", 1),
        ("raw_connector_data", 4_000),
        ("metric_facts", 4_000),
        ("metrics that change", 28),
        ("sync_runs", 1),
        ("metric_sources", 1),
    ] {
        assert!(
            told.contains(&(item.to_owned(), rows)),
            "{item} {rows}: {told:?}"
        );
    }
    stage.cluster.arm("mid_delete", 2);
    stage
        .client
        .query(
            "SELECT * FROM connector_service_delete($1::text::uuid, p_dry_run => false)",
            &[&gone],
        )
        .unwrap();
    for pass in 4..=6 {
        wait_until(60, "the process is killed", || {
            stage
                .cluster
                .log()
                .matches("was terminated by signal 9")
                .nth(pass - 1)
                .map(|_| ())
        });
        stage.client = stage.cluster.wait_ready_in("app");
        if pass < 6 {
            stage.cluster.arm("mid_delete", 1);
        }
        stage.cluster.wait_worker("app");
    }
    let error = stage.client.batch_execute(&format!(
        "UPDATE connectors SET status = 'active' WHERE connector_id = '{gone}'"
    ));
    if let Err(error) = error {
        assert_eq!(error.code().unwrap().code(), "55000");
    }
    stage.synced(&kept);
    let sql = format!("SELECT EXISTS (SELECT FROM connectors WHERE connector_id = '{gone}')");
    wait_until(60, "the connector is gone", || {
        (!one::<bool>(&mut stage.client, &sql)).then_some(())
    });
    settled(&mut stage.client);
    nothing_left(&mut stage.client, "connector_id", &gone);
    let expected: bool = one(
        &mut stage.client,
        "SELECT (SELECT sum(metric_value) FROM metrics) = (SELECT sum((n * 7 + (n % 50 = 0)::int)::numeric / 100) FROM generate_series(0, 3999) AS n)",
    );
    assert!(expected, "{:?}", metrics(&mut stage.client));
    ledger_holds(&mut stage.client);
}

/// No table of the extension has a row of this connector or tenant.
fn nothing_left(client: &mut Client, column: &str, id: &str) {
    let sql = "SELECT c.oid::regclass::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service'
            JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r' JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = $1
        WHERE d.deptype = 'e' AND d.classid = 'pg_class'::regclass";
    let tables = client.query(sql, &[&column]).unwrap();
    assert!(tables.len() > 8);
    for row in tables {
        let table: String = row.get(0);
        let left: i64 = one(
            client,
            &format!("SELECT count(*) FROM {table} WHERE {column} = '{id}'"),
        );
        assert_eq!(left, 0, "{table}");
    }
}

#[test]
fn a_connector_and_a_tenant_are_deleted_by_who_may_write_them() {
    let mut stage = stage(300, "");
    let connector = stage.connector("shop");
    stage.synced(&connector);
    settled(&mut stage.client);
    // The plain statement says which way to go.
    let error = stage
        .client
        .batch_execute("DELETE FROM connectors")
        .unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "23503");
    assert_eq!(
        error.constraint(),
        Some("raw_connector_data_connector_fkey")
    );
    assert!(
        error.hint().unwrap().contains("connector_service_delete('"),
        "{error:?}"
    );
    // Both in one statement is fine.
    stage
        .client
        .batch_execute(
            "BEGIN;
             WITH r AS (DELETE FROM raw_connector_data) DELETE FROM connectors;
             ROLLBACK",
        )
        .unwrap();
    stage
        .client
        .batch_execute(&format!(
            "CREATE ROLE mine LOGIN IN ROLE connector_service_tenant; INSERT INTO tenant_roles VALUES ('mine', '{TENANT}');
             CREATE ROLE other LOGIN IN ROLE connector_service_tenant; INSERT INTO tenant_roles VALUES ('other', '00000000-0000-4000-8000-000000000002');
             CREATE ROLE looks LOGIN; GRANT SELECT ON connectors, tenants, raw_connector_data TO looks; GRANT EXECUTE ON FUNCTION connector_service_delete(uuid, boolean) TO looks"
        ))
        .unwrap();
    let call = format!("SELECT * FROM connector_service_delete('{connector}', false)");
    let mut other = stage.cluster.client_as("other", "app");
    assert_eq!(
        other
            .batch_execute(&call)
            .unwrap_err()
            .code()
            .unwrap()
            .code(),
        "42704"
    );
    let call_tenant = format!("SELECT * FROM connector_service_delete_tenant('{TENANT}', false)");
    assert_eq!(
        other
            .batch_execute(&call_tenant)
            .unwrap_err()
            .code()
            .unwrap()
            .code(),
        "42704"
    );
    // A tenant may not delete itself: it has no such right on tenants.
    let mut mine = stage.cluster.client_as("mine", "app");
    assert_eq!(
        mine.batch_execute(&call_tenant)
            .unwrap_err()
            .code()
            .unwrap()
            .code(),
        "42501"
    );
    let shown = stage.cluster.script(
        "app",
        "SET ROLE mine; CALL connector_service_delete_wait('SHOP');",
    );
    assert!(shown.contains("is deleted: "), "{shown}");
    nothing_left(&mut stage.client, "connector_id", &connector);
    settled(&mut stage.client);
    assert_eq!(metrics(&mut stage.client), []);

    let connector = stage.connector("shop");
    stage.synced(&connector);
    settled(&mut stage.client);
    stage
        .client
        .batch_execute(&format!(
            "INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('{TENANT}', 'costs', 5, '2026-01-01');
             INSERT INTO quality_rules (tenant_id, metric_type, max_value) VALUES ('{TENANT}', 'revenue', 50)"
        ))
        .unwrap();
    stage
        .client
        .simple_query(&format!(
            "SELECT connector_service_create_token('app', '{TENANT}')"
        ))
        .unwrap();
    stage.client.batch_execute(&call_tenant).unwrap();
    let refused = stage.client.execute(
        "INSERT INTO connectors (tenant_id, name, type) VALUES ($1::text::uuid, 'late', 'webhook')",
        &[&TENANT],
    );
    if let Err(refused) = refused {
        assert_eq!(refused.code().unwrap().code(), "55000");
    }
    let sql = format!("SELECT EXISTS (SELECT FROM tenants WHERE tenant_id = '{TENANT}')");
    wait_until(60, "the tenant is gone", || {
        (!one::<bool>(&mut stage.client, &sql)).then_some(())
    });
    nothing_left(&mut stage.client, "tenant_id", TENANT);
}

#[test]
fn one_persons_records_are_erased_and_stay_out() {
    let mut stage = stage(100, "");
    let person = |id: usize, version: usize, email: &str| {
        order(id, version).replace(
            &format!("Customer No. {id}\""),
            &format!("Customer No. {id}\", \"email\": \"{email}\""),
        )
    };
    for id in 0..100 {
        let email = if id % 10 == 3 {
            "ada@example.com"
        } else {
            "other@example.com"
        };
        stage
            .shop
            .orders
            .lock()
            .unwrap()
            .insert(id, person(id, 0, email));
    }
    // One that no mapping can read, and one that cannot be stored.
    stage.shop.orders.lock().unwrap().insert(200, r#"{"id": 200, "updated_at": "2026-01-01T00:00:00Z", "total": "x", "email": "ada@example.com"}"#.into());
    stage.shop.orders.lock().unwrap().insert(
        201,
        r#"{"id": 201, "email": "ada@example.com", "v": "\u0000"}"#.into(),
    );
    let connector = stage.connector("shop");
    stage.synced(&connector);
    settled(&mut stage.client);
    let before = metrics(&mut stage.client);
    let call = |rest: &str| {
        format!(
            "SELECT coalesce(stream, '-') || ' ' || item || ' ' || rows FROM connector_service_erase('$.email == \"ada@example.com\"', '{TENANT}'{rest})"
        )
    };
    let items = |client: &mut Client, sql: &str| -> Vec<String> {
        client
            .query(sql, &[])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    };
    let reasons = items(
        &mut stage.client,
        "SELECT reason_code || ' ' || convert_from(raw, 'UTF8') FROM quarantine ORDER BY 1",
    );
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    let found = items(&mut stage.client, &call(""));
    assert_eq!(
        found[..3],
        [
            "orders quarantine 2",
            "orders raw_connector_data 11",
            "orders metric_facts that stay 10"
        ],
        "{found:?}"
    );
    assert_eq!(dropped(&mut stage.client), 0);
    assert_eq!(
        items(&mut stage.client, &call(", p_dry_run => false")),
        found
    );
    let everywhere = |client: &mut Client| -> i64 {
        one(
            client,
            "SELECT (SELECT count(*) FROM raw_connector_data r WHERE r::text LIKE '%ada@example%')
                + (SELECT count(*) FROM quarantine q WHERE position('ada@example'::bytea in q.raw) > 0)
                + (SELECT count(*) FROM data_quality_alerts a WHERE a::text LIKE '%ada@example%')
                + (SELECT count(*) FROM sync_runs a WHERE a::text LIKE '%ada@example%')",
        )
    };
    assert_eq!(everywhere(&mut stage.client), 0);
    settled(&mut stage.client);
    assert_eq!(metrics(&mut stage.client), before);
    assert_eq!(items(&mut stage.client, &call("")), Vec::<String>::new());

    // Nothing new: nothing is written. A new order of the person, and a changed one, count and are not kept.
    stage.shop.orders.lock().unwrap().remove(&201);
    let run = stage.synced(&connector);
    assert_eq!(
        (run["updated"].as_i64(), run["erased"].as_i64()),
        (Some(0), Some(0)),
        "{run}"
    );
    stage
        .shop
        .orders
        .lock()
        .unwrap()
        .insert(300, person(300, 0, "ada@example.com"));
    stage
        .shop
        .orders
        .lock()
        .unwrap()
        .insert(13, person(13, 9, "anonymous@example.com"));
    let run = stage.synced(&connector);
    assert_eq!(
        (
            run["inserted"].as_i64(),
            run["updated"].as_i64(),
            run["erased"].as_i64()
        ),
        (Some(1), Some(1), Some(2)),
        "{run}"
    );
    settled(&mut stage.client);
    assert_eq!(everywhere(&mut stage.client), 0);
    let sql = "SELECT (SELECT sum(metric_value) FROM metrics) = (SELECT sum((n * 7)::numeric / 100) FROM generate_series(0, 99) AS n) + 21.00 + 0.09";
    assert!(
        one::<bool>(&mut stage.client, sql),
        "{:?}",
        metrics(&mut stage.client)
    );
    let kept: (i64, i64) = {
        let row = stage
            .client
            .query_one("SELECT records, kept_out FROM erasures", &[])
            .unwrap();
        (row.get(0), row.get(1))
    };
    assert_eq!(kept, (11, 2));
    assert!(one::<bool>(
        &mut stage.client,
        "SELECT data = '{}' AND erasure_id IS NOT NULL FROM raw_connector_data WHERE source_record_id = 'orders/13'"
    ));

    // With the amounts, and without remembering whom it was.
    let sql = format!(
        "SELECT count(*) FROM connector_service_erase('$ ? (@.id >= 50 && @.id < 60 && @.email like_regex \"^other@\")', '{TENANT}', p_dry_run => false, p_facts => 'delete', p_remember => false)"
    );
    assert_eq!(one::<i64>(&mut stage.client, &sql), 2);
    settled(&mut stage.client);
    assert_eq!(
        one::<i64>(&mut stage.client, "SELECT count(*) FROM metric_facts"),
        101 - 9
    );
    let run = stage.synced(&connector);
    assert_eq!(run["updated"].as_i64(), Some(0), "{run}");
    stage
        .shop
        .orders
        .lock()
        .unwrap()
        .insert(51, person(51, 3, "other@example.com"));
    let run = stage.synced(&connector);
    assert_eq!(
        (run["updated"].as_i64(), run["erased"].as_i64()),
        (Some(1), Some(1)),
        "{run}"
    );
    settled(&mut stage.client);
    assert_eq!(
        one::<i64>(&mut stage.client, "SELECT count(*) FROM metric_facts"),
        101 - 9
    );
    assert!(one::<bool>(
        &mut stage.client,
        "SELECT expression IS NULL AND length(expression_hash) = 32 FROM erasures WHERE facts = 'delete'"
    ));
    for (wrong, code) in [
        ("'$.email =='", "22023"),
        ("NULL", "22004"),
        ("'$.a', NULL", "22004"),
        ("'$.a', '00000000-0000-4000-8000-0000000000ff'", "42704"),
        (
            "'$.a', p_connector_id => '00000000-0000-4000-8000-0000000000ff'",
            "42704",
        ),
    ] {
        let all = if wrong.contains(',') || wrong == "NULL" {
            wrong.to_owned()
        } else {
            format!("{wrong}, '{TENANT}'")
        };
        let error = stage
            .client
            .batch_execute(&format!("SELECT * FROM connector_service_erase({all})"))
            .unwrap_err();
        assert_eq!(error.code().unwrap().code(), code, "{all}: {error:?}");
    }
}

#[test]
fn a_publication_for_all_tables_is_in_nobodys_way() {
    let mut stage = stage(600, "wal_level = logical");
    let identity = "SELECT coalesce(string_agg(c.relname, ', '), '') FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service'
            JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r'
        WHERE d.deptype = 'e' AND d.classid = 'pg_class'::regclass AND c.relpersistence = 'p'
            AND NOT (c.relreplident = 'f' OR c.relreplident = 'd' AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))";
    assert_eq!(
        one::<String>(&mut stage.client, identity),
        "",
        "tables without a replica identity"
    );
    stage
        .client
        .batch_execute("CREATE PUBLICATION everything FOR ALL TABLES")
        .unwrap();
    let connector = stage.connector("shop");
    stage.synced(&connector);
    settled(&mut stage.client);
    assert_eq!(metrics(&mut stage.client).len(), 28);
    made_old(&mut stage.client, 400);
    stage
        .client
        .batch_execute(
            "UPDATE connectors SET config = config || '{\"raw_retention\": \"90 days\"}'",
        )
        .unwrap();
    wait_until(60, "the old records are dropped", || {
        (dropped(&mut stage.client) == 400).then_some(())
    });
    stage.client.batch_execute("INSERT INTO fx_rates VALUES ('EUR', 'USD', '2026-01-01', 1.1); DELETE FROM fx_rates; SELECT connector_service_check_quality(); REFRESH MATERIALIZED VIEW monthly_revenue").unwrap();
    let shown = stage
        .client
        .simple_query(&format!(
            "SELECT * FROM connector_service_delete('{connector}', false)"
        ))
        .unwrap();
    assert!(
        shown
            .iter()
            .any(|message| matches!(message, SimpleQueryMessage::Row(_)))
    );
    wait_until(60, "the connector is gone", || {
        (!one::<bool>(&mut stage.client, "SELECT EXISTS (SELECT FROM connectors)")).then_some(())
    });
}
