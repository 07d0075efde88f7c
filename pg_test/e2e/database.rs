//! Tests a PostgreSQL database as a source: rows with equal cursors, rows that change, and rows that are deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

struct Stage {
    cluster: Cluster,
    /// The connection to the database with the extension.
    client: Client,
    /// The connection to the database that is read.
    shop: Client,
    connector: String,
}

/// A connector to the database `shop` of the same server, with these streams.
fn stage(settings: &str, rows: &str, streams: Value) -> Stage {
    let cluster = Cluster::start(settings);
    let mut client = cluster.database("app");
    client.batch_execute("CREATE DATABASE shop").unwrap();
    let mut shop = cluster.client("shop");
    shop.batch_execute("SET TimeZone = 'UTC'").unwrap();
    shop.batch_execute(rows).unwrap();
    let config = json!({
        "host": "127.0.0.1", "port": cluster.port, "database": "shop", "tls": "off", "streams": streams,
    });
    let connector = connect(&mut client, &config);
    Stage {
        cluster,
        client,
        shop,
        connector,
    }
}

fn connect(client: &mut Client, config: &Value) -> String {
    let sql = "INSERT INTO tenants (tenant_id) VALUES ('00000000-0000-4000-8000-000000000001') ON CONFLICT DO NOTHING";
    client.batch_execute(sql).unwrap();
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
               SELECT '00000000-0000-4000-8000-000000000001', 'shop' || CASE count(*) WHEN 0 THEN '' ELSE format(' %s', count(*)) END, 'postgres', $1::jsonb,
                   '{\"username\": \"postgres\", \"password\": \"not_a_real_password\"}', 'manual'
               FROM connectors RETURNING connector_id::text";
    client.query_one(sql, &[config]).unwrap().get(0)
}

/// Returns the id and the jsonb of each row as text, so that numbers keep every digit.
fn rows(client: &mut Client, sql: &str) -> BTreeMap<String, String> {
    let rows = client.query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

impl Stage {
    fn sync_anyhow(&mut self) -> Value {
        let run = sync(&mut self.client, &self.connector);
        let run = wait_for_run(&mut self.client, &run);
        ledger_holds(&mut self.client);
        run
    }

    fn sync(&mut self) -> Value {
        let run = self.sync_anyhow();
        assert_eq!(run["state"], "succeeded", "{run}");
        run
    }

    /// Checks that the stored records of a stream equal the rows of the table.
    fn agrees(&mut self, stream: &str, key: &str, table: &str) {
        let sql = format!("SELECT '{stream}/' || {key}, to_jsonb(s)::text FROM {table} AS s");
        let expected = rows(&mut self.shop, &sql);
        let sql = format!(
            "SELECT source_record_id, data::text FROM raw_connector_data WHERE stream = '{stream}' AND NOT deleted"
        );
        let found = rows(&mut self.client, &sql);
        assert_eq!(found.len(), expected.len());
        assert_eq!(found, expected);
        assert!(!expected.is_empty());
    }
}

#[test]
fn every_column_type_is_stored_exactly() {
    let mut stage = stage(
        "",
        r#"CREATE TYPE mood AS ENUM ('fine', 'so-so');
           CREATE TABLE "Odd ""Kinds""" (
               "the key" bigint PRIMARY KEY, exact numeric(40, 12), any_scale numeric, f8 float8, f4 float4, at timestamptz,
               naive timestamp, day date, hour time, span interval, bytes bytea, flag bool, u uuid, j jsonb, js json,
               m mood, list int[], words text, nothing text, ip inet);
           INSERT INTO "Odd ""Kinds""" VALUES
               (9223372036854775807, 1234567890123456789012345678.000000000001, 1e-20, 0.1, 0.1, '2026-01-31 23:59:59.999999+05:30',
                '2026-01-31 23:59:59.999999', '0001-01-01', '24:00', '1 year 2 mons -3 days 04:05:06.789', '\xdeadbeef00', true,
                '00000000-0000-4000-8000-000000000001', '{"b": [1.10, null], "a": "\u00fc"}', '{"kept":  1.10}', 'so-so',
                '{1,NULL,3}', E'quotes " and \\ and\nlines \U0001F600', NULL, '10.0.0.1/8'),
               (-1, 'NaN', -0.10, 'Infinity', '-0', 'infinity', '-infinity', '2026-02-28', '00:00', '0', '', false, NULL,
                'null', '[]', 'fine', '{}', '', '', '::1'),
               (0, NULL, 'Infinity', 'NaN', 1e-30, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"#,
        json!([{"table": "Odd \"Kinds\"", "name": "kinds", "key": "the key"}]),
    );
    let run = stage.sync();
    assert_eq!(run["inserted"], 3, "{run}");
    stage.agrees("kinds", "\"the key\"", "\"Odd \"\"Kinds\"\"\"");
}

const ORDERS: &str = "
CREATE TABLE orders (shop int, id int, updated_at timestamptz, total numeric(12, 2), note text, PRIMARY KEY (shop, id));
INSERT INTO orders
    SELECT i % 3, i, date_trunc('second', now() - interval '8 days' + (i / 40) * interval '1 minute'), i * 1.01, 'note ' || i
    FROM generate_series(1, 3000) AS i;
CREATE INDEX ON orders (updated_at, shop, id)";

fn orders() -> Value {
    json!([{"table": "public.orders", "key": ["shop", "id"], "cursor": "updated_at"}])
}

/// What is stored, by the table's own key: with two key columns the id of a record is a hash.
fn orders_agree(stage: &mut Stage) {
    let sql = "SELECT concat_ws(' ', s.shop, s.id), to_jsonb(s)::text FROM orders AS s";
    let expected = rows(&mut stage.shop, sql);
    let sql = "SELECT concat_ws(' ', data ->> 'shop', data ->> 'id'), data::text FROM raw_connector_data WHERE NOT deleted";
    let found = rows(&mut stage.client, sql);
    assert!(
        found == expected,
        "{} rows stored, {} there",
        found.len(),
        expected.len()
    );
}

#[test]
fn rows_with_equal_cursors_are_stored_once_and_later_syncs_read_the_changes() {
    let mut stage = stage("", ORDERS, orders());
    let config = "UPDATE connectors SET config = config || '{\"batch\": 7}'";
    stage.client.batch_execute(config).unwrap();
    let run = stage.sync();
    assert_eq!(
        (&run["received"], &run["inserted"]),
        (&json!(3_000), &json!(3_000)),
        "each row once, although forty share a moment: {run}"
    );
    orders_agree(&mut stage);
    let run = stage.sync();
    assert!(
        run["received"].as_i64().unwrap() <= 440,
        "ten minutes again: {run}"
    );
    assert_eq!(run["unchanged"], run["received"]);
    // Changes of one moment, a new row, one without a time, and one that says it is of the future.
    stage
        .shop
        .batch_execute(
            "UPDATE orders SET total = total + 1, updated_at = now() WHERE id % 100 = 0;
             INSERT INTO orders VALUES (1, 9001, now(), 5, NULL), (1, 9002, NULL, 6, NULL), (2, 9002, NULL, 7, NULL),
                                       (1, 9003, now() + interval '1 year', 8, NULL)",
        )
        .unwrap();
    let run = stage.sync();
    assert_eq!(
        (&run["inserted"], &run["updated"]),
        (&json!(4), &json!(30)),
        "{run}"
    );
    orders_agree(&mut stage);
    stage
        .shop
        .batch_execute("UPDATE orders SET total = 9, updated_at = now() WHERE id = 5")
        .unwrap();
    let run = stage.sync();
    assert_eq!(
        run["updated"], 1,
        "the one of the future moved no cursor: {run}"
    );
    orders_agree(&mut stage);
}

#[test]
fn rows_that_change_during_a_read_are_current_after_the_next_sync() {
    let mut stage = stage("", ORDERS, orders());
    let config = "UPDATE connectors SET config = config || '{\"batch\": 20}'";
    stage.client.batch_execute(config).unwrap();
    let mut edited = 0;
    for round in 0..8_u64 {
        let is_over = Arc::new(AtomicBool::new(false));
        let editor = {
            let (is_over, mut shop) = (is_over.clone(), stage.cluster.client("shop"));
            std::thread::spawn(move || {
                let mut random = Random(100 + round);
                let mut edited = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let id = 1 + random.below(3_000) as i32;
                    let sql = match random.below(4) {
                        // Some commit after their stamp.
                        0 => {
                            "UPDATE orders SET total = total + 0.01, updated_at = now() - interval '90 s' WHERE id = $1"
                        }
                        _ => {
                            "UPDATE orders SET total = total + 0.01, updated_at = now() WHERE id = $1"
                        }
                    };
                    edited += shop.execute(sql, &[&id]).unwrap();
                }
                edited
            })
        };
        stage.sync();
        is_over.store(true, Ordering::Relaxed);
        edited += editor.join().unwrap();
        stage.sync();
        orders_agree(&mut stage);
    }
    assert!(edited > 100, "{edited} edits show nothing");
}

#[test]
fn a_query_without_a_cursor_is_read_whole_and_deleted_rows_are_found() {
    let mut stage = stage(
        "",
        "CREATE TABLE items (id int PRIMARY KEY, name text, stock int);
         INSERT INTO items SELECT i, 'item ' || i, i FROM generate_series(1, 200) AS i",
        json!([{"name": "stock", "query": "SELECT id, stock FROM items WHERE stock > 0 -- what there is;", "key": "id"}]),
    );
    let view = "(SELECT id, stock FROM items WHERE stock > 0)";
    stage.sync();
    stage.agrees("stock", "id", view);
    stage
        .shop
        .batch_execute("DELETE FROM items WHERE id <= 10; UPDATE items SET stock = 0 WHERE id BETWEEN 20 AND 24; UPDATE items SET stock = 7 WHERE id = 100")
        .unwrap();
    let run = stage.sync();
    assert_eq!(
        (&run["deleted"], &run["updated"]),
        (&json!(15), &json!(1)),
        "{run}"
    );
    stage.agrees("stock", "id", view);
}

#[test]
fn deleted_rows_of_a_table_with_a_cursor_are_found_on_request() {
    let streams = json!([{"table": "public.orders", "key": ["shop", "id"], "cursor": "updated_at", "deletes": true}]);
    let mut stage = stage("", ORDERS, streams);
    let config = "UPDATE connectors SET config = config || '{\"batch\": 700}'";
    stage.client.batch_execute(config).unwrap();
    assert_eq!(stage.sync()["inserted"], 3_000);
    orders_agree(&mut stage);
    // Long before the cursor, and one that is of the same moment as others.
    let changes = "DELETE FROM orders WHERE id % 500 = 7; UPDATE orders SET total = 0, updated_at = now() WHERE id = 8;
                   INSERT INTO orders VALUES (1, 9001, NULL, 5, NULL)";
    stage.shop.batch_execute(changes).unwrap();
    let run = stage.sync();
    let counts = ["inserted", "updated", "deleted"].map(|count| run[count].as_i64());
    assert_eq!(counts, [Some(1), Some(1), Some(6)], "{run}");
    orders_agree(&mut stage);
    // More than half at once is not believed.
    stage
        .shop
        .batch_execute(
            "CREATE TABLE kept AS SELECT * FROM orders; DELETE FROM orders WHERE id > 100",
        )
        .unwrap();
    let run = stage.sync();
    assert_eq!(run["deleted"], 0, "{run}");
    assert!(
        run["warnings"][0]
            .as_str()
            .unwrap()
            .contains("too many to be deletions"),
        "{run}"
    );
    // What comes back does so as it was.
    stage.shop.batch_execute("TRUNCATE orders; INSERT INTO orders SELECT * FROM kept; INSERT INTO orders VALUES (1, 7, now(), 1, 'again')").unwrap();
    assert_eq!(stage.sync()["state"], "succeeded");
    orders_agree(&mut stage);
}

#[test]
fn a_serial_is_a_cursor_and_rows_that_commit_late_are_not_lost() {
    let mut stage = stage(
        "",
        "CREATE TABLE log (id bigserial PRIMARY KEY, what text); INSERT INTO log (what) SELECT 'w' FROM generate_series(1, 50)",
        json!([{"table": "log", "key": "id", "cursor": "id"}]),
    );
    let mut late = stage.cluster.client("shop");
    let mut transaction = late.transaction().unwrap();
    transaction
        .batch_execute("INSERT INTO log (what) VALUES ('late')")
        .unwrap();
    stage
        .shop
        .batch_execute("INSERT INTO log (what) VALUES ('early')")
        .unwrap();
    stage.sync();
    transaction.commit().unwrap();
    let run = stage.sync();
    assert_eq!(run["inserted"], 1, "{run}");
    stage.agrees("log", "id", "log");
}

#[test]
fn each_failure_has_a_code_and_says_what_to_do() {
    let mut stage = stage(
        "connector_service.request_retries = 0",
        "CREATE TABLE t (id int, at timestamptz, secret text); INSERT INTO t VALUES (1, now(), 'not_a_real_secret'), (NULL, now(), '');
         CREATE TABLE j (id int, doc jsonb, uid uuid); CREATE ROLE guest LOGIN; CREATE SEQUENCE s",
        json!([{"table": "t", "key": "id"}]),
    );
    let plain = json!({"table": "t", "key": "secret"});
    for (change, code, says) in [
        (
            json!({"database": "nowhere"}),
            "not_found",
            "the database does not exist",
        ),
        (
            json!({"username": "nobody"}),
            "credentials_rejected",
            "refuses this user, password or client address",
        ),
        (
            json!({"username": "guest"}),
            "permission_missing",
            "may not read the table",
        ),
        (
            json!({"port": 1}),
            "connect_failed",
            "no connection to 127.0.0.1:1: connection refused",
        ),
        (
            json!({"host": "no-such-host.invalid"}),
            "dns_failed",
            "could not be resolved",
        ),
        (
            json!({"streams": [{"table": "nothing", "key": "id"}]}),
            "not_found",
            "the table does not exist",
        ),
        (
            json!({"streams": [{"table": "t", "key": "idd"}]}),
            "not_found",
            "the column \"idd\" does not exist; the columns are id, at, secret",
        ),
        (
            json!({"streams": [{"table": "t", "key": "id", "columns": ["idd"]}]}),
            "not_found",
            "the column does not exist",
        ),
        (
            json!({"streams": [{"table": "j", "key": "id", "cursor": "doc"}]}),
            "unexpected_shape",
            "the cursor \"doc\" has the type jsonb",
        ),
        (
            json!({"streams": [{"table": "j", "key": "id", "cursor": "uid", "lookback": 10}]}),
            "unexpected_shape",
            "\"lookback\" cannot be subtracted from the cursor \"uid\"",
        ),
        (
            json!({"streams": [{"query": "SELECT 1 AS id, 2 AS id", "name": "q", "key": "id"}]}),
            "unexpected_shape",
            "two columns are named \"id\"",
        ),
        (
            json!({"streams": [{"query": "SELECT $1::int AS id", "name": "q", "key": "id"}]}),
            "request_refused",
            "no value is given for",
        ),
        (
            json!({"streams": [{"query": "SELECT nextval('s') AS id", "name": "q", "key": "id"}]}),
            "request_refused",
            "only SELECT is allowed",
        ),
        (
            json!({"streams": [{"query": "SELECT 1/0 AS id, 'not_a_real_secret'", "name": "q", "key": "id"}]}),
            "request_refused",
            "SQLSTATE 22012",
        ),
        (
            json!({"streams": [{"query": "SELECT 1 AS id) AS s; DROP TABLE t; SELECT (1", "name": "q", "key": "id"}]}),
            "request_refused",
            "SQLSTATE 42601",
        ),
        (
            json!({"statement_timeout": 1, "streams": [{"query": "SELECT 1 AS id FROM pg_sleep(20)", "name": "q", "key": "id"}]}),
            "request_timeout",
            "statement_timeout",
        ),
    ] {
        let sql = "UPDATE connectors SET status = 'active', config = ((config || jsonb_build_object('statement_timeout', 20, 'streams', jsonb_build_array($1::jsonb))) || $2::jsonb) - 'username', credentials = $3";
        let mut change = change.clone();
        for (key, usual) in [
            ("database", json!("shop")),
            ("port", json!(stage.cluster.port)),
            ("host", json!("127.0.0.1")),
        ] {
            if change.get(key).is_none() {
                change[key] = usual;
            }
        }
        let given = match change.as_object_mut().unwrap().remove("username") {
            Some(user) => json!({"username": user, "password": "not_a_real_password"}),
            None => json!({"username": "postgres", "password": "not_a_real_password"}),
        };
        // In one statement: what is corrected is synced at once.
        stage
            .client
            .execute(sql, &[&plain, &change, &given])
            .unwrap();
        let run = stage.sync_anyhow();
        assert_eq!(run["error_code"], code, "{change}: {run}");
        let message = run["error_message"].as_str().unwrap();
        assert!(
            message.contains(says) && !message.contains("not_a_real"),
            "{message}"
        );
    }
    let there: i64 = stage
        .shop
        .query_one("SELECT count(*) FROM t", &[])
        .unwrap()
        .get(0);
    assert_eq!(there, 2, "nothing was written over there");
}

#[test]
fn large_rows_are_read_in_parts_and_a_huge_row_is_refused_before_it_is_in_memory() {
    let mut stage = stage(
        "connector_service.max_response_size = '8MB'\nconnector_service.request_retries = 0",
        "CREATE VIEW wide AS SELECT i AS id, repeat('x', 300000) AS words FROM generate_series(1, 200) AS i",
        json!([{"table": "wide", "key": "id"}]),
    );
    let worker = stage.cluster.wait_worker("app");
    let run = stage.sync();
    assert_eq!(run["inserted"], 200, "sixty megabytes, in parts: {run}");
    let endless = "CREATE OR REPLACE VIEW wide AS SELECT 1 AS id, repeat('x', 300000000) AS words";
    stage.shop.batch_execute(endless).unwrap();
    let before = memory_kb(worker, "VmHWM");
    let run = stage.sync_anyhow();
    assert_eq!(run["error_code"], "response_too_large", "{run}");
    assert_eq!(stage.cluster.wait_worker("app"), worker);
    let grown = memory_kb(worker, "VmHWM").saturating_sub(before) / 1024;
    assert!(grown < 64, "the worker grew by {grown} MB");
}

#[test]
fn a_certificate_is_verified_unless_an_administrator_allowed_plain_text_for_the_host() {
    let mut stage = stage("connector_service.request_retries = 0", ORDERS, orders());
    let (_, certificate) = stage.cluster.certificate();
    let pem = std::fs::read_to_string(&certificate).unwrap();
    // A server without encryption is not spoken to.
    let set = |stage: &mut Stage, config: Value| {
        let sql = "UPDATE connectors SET status = 'active', config = config - 'tls' - 'ca' || $1";
        stage.client.execute(sql, &[&config]).unwrap();
    };
    set(&mut stage, json!({}));
    let run = stage.sync_anyhow();
    assert_eq!(run["error_code"], "tls_failed", "{run}");
    stage.cluster.configure("ssl = on");
    stage.cluster.stop(Stop::Fast);
    stage.cluster.run();
    stage.client = stage.cluster.wait_ready_in("app");
    stage.shop = stage.cluster.client("shop");
    stage.shop.batch_execute("SET TimeZone = 'UTC'").unwrap();
    set(&mut stage, json!({}));
    let run = stage.sync_anyhow();
    assert_eq!(
        run["error_code"], "tls_failed",
        "nobody known has signed it: {run}"
    );
    set(&mut stage, json!({"ca": pem}));
    stage.sync();
    orders_agree(&mut stage);
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'connector_service' AND NOT ssl";
    assert_eq!(
        stage
            .shop
            .query_one(encrypted, &[])
            .unwrap()
            .get::<_, i64>(0),
        0
    );
    // Another name than the certificate's.
    set(&mut stage, json!({"ca": pem, "host": "localhost"}));
    let listed =
        "ALTER SYSTEM SET connector_service.allowed_private_hosts = '127.0.0.1, localhost'";
    stage.client.batch_execute(listed).unwrap();
    stage
        .client
        .batch_execute("SELECT pg_reload_conf()")
        .unwrap();
    let run = wait_until(20, "the name is let through", || {
        let run = stage.sync_anyhow();
        (run["error_code"] == "tls_failed").then_some(run)
    });
    assert!(
        run["error_message"]
            .as_str()
            .unwrap()
            .contains("no TLS connection to localhost"),
        "{run}"
    );
}

#[test]
fn a_host_that_is_not_public_or_not_encrypted_needs_an_administrator() {
    let mut stage = stage(
        "connector_service.allowed_private_hosts = ''",
        ORDERS,
        orders(),
    );
    for (config, says) in [
        (json!({"host": "127.0.0.1"}), "not public"),
        (json!({"host": "127.0.0.1", "tls": "verify"}), "not public"),
        (json!({"host": "localhost", "tls": "verify"}), "not public"),
        (
            json!({"host": "169.254.169.254", "tls": "verify"}),
            "cloud's own services",
        ),
        (
            json!({"host": "db.example", "tls": "off"}),
            "only be called with TLS",
        ),
    ] {
        let sql = "UPDATE connectors SET status = 'active', config = config || $1";
        stage.client.execute(sql, &[&config]).unwrap();
        let run = stage.sync_anyhow();
        let code = run["error_code"].as_str().unwrap();
        assert!(
            ["address_not_allowed", "https_required"].contains(&code),
            "{config}: {run}"
        );
        let message = run["error_message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn a_check_tests_a_database_too() {
    let mut stage = stage("", ORDERS, orders());
    let sql = "SELECT connector_service_check($1::text::uuid)::text";
    let run: String = stage
        .client
        .query_one(sql, &[&stage.connector])
        .unwrap()
        .get(0);
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(run["state"], "succeeded", "{run}");
    assert!(
        run["report"][0]["records"].as_i64().unwrap_or(0) > 0,
        "{run}"
    );
}

impl Stage {
    /// Checks that what is stored is what a query of the other database gives, at several sizes of a batch, and that a
    /// second sync changes nothing.
    fn is_read_whole(&mut self, streams: Value, query: &str, stored: &str) {
        let count = format!("SELECT count(*)::text, 'rows' FROM ({query}) AS q (a, b)");
        let there: usize = rows(&mut self.shop, &count)
            .keys()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        for batch in [1, 2, 3, 5_000] {
            let sql = "TRUNCATE raw_connector_data CASCADE; DELETE FROM sync_state";
            self.client.batch_execute(sql).unwrap();
            let sql = "UPDATE connectors SET config = config || jsonb_build_object('batch', $1::int, 'streams', $2::jsonb)";
            self.client.execute(sql, &[&batch, &streams]).unwrap();
            let run = self.sync();
            assert_eq!(run["inserted"], there, "batches of {batch}: {run}");
            assert_eq!(
                rows(&mut self.client, stored),
                rows(&mut self.shop, query),
                "batches of {batch}"
            );
            let run = self.sync();
            assert_eq!(
                (&run["inserted"], &run["updated"], &run["deleted"]),
                (&json!(0), &json!(0), &json!(0)),
                "batches of {batch}: {run}"
            );
        }
    }
}

#[test]
fn rows_with_null_in_their_key_are_read_at_every_batch_size() {
    let mut stage = stage(
        "",
        "CREATE TABLE lines (o int, l int, at timestamptz DEFAULT now(), words text);
         INSERT INTO lines (o, l, words) VALUES (1, 1, 'a'), (1, NULL, 'b'), (2, 1, 'c'), (2, 2, 'd'), (3, 1, 'e'), (NULL, 1, 'f'), (NULL, NULL, 'g'), (NULL, NULL, 'h')",
        json!([{"table": "lines", "key": ["o", "l"]}]),
    );
    let there = "SELECT words, concat(o, '/', l) FROM lines";
    let stored = "SELECT data ->> 'words', concat(data ->> 'o', '/', data ->> 'l') FROM raw_connector_data WHERE NOT deleted";
    for cursor in [json!(null), json!("at")] {
        for deletes in [false, true] {
            let streams = json!([{"table": "lines", "key": ["o", "l"], "cursor": cursor, "deletes": deletes}]);
            stage.is_read_whole(streams, there, stored);
        }
    }
    stage
        .shop
        .batch_execute("DELETE FROM lines WHERE words IN ('b', 'h')")
        .unwrap();
    let run = stage.sync();
    assert_eq!(run["deleted"], 2, "{run}");
}

#[test]
fn a_row_is_stored_whole_whatever_its_columns_are_called() {
    let mut stage = stage(
        "",
        "CREATE TYPE pair AS (a int, b text);
         CREATE TABLE odd (s pair, q int, id int, row_to_json text, \"s.*\" text);
         INSERT INTO odd SELECT (i, 'x')::pair, i, i, 'r', 'all' FROM generate_series(1, 5) AS i",
        json!([{"table": "odd", "key": "id"}]),
    );
    let there = "SELECT 'odd/' || id, to_jsonb(o)::text FROM odd AS o";
    let stored = "SELECT source_record_id, data::text FROM raw_connector_data WHERE NOT deleted";
    stage.is_read_whole(json!([{"table": "odd", "key": "id"}]), there, stored);
    let keyed = "SELECT 'odd/' || q, to_jsonb(o)::text FROM odd AS o";
    let some = json!([{"table": "odd", "key": "q", "columns": ["s", "id", "row_to_json", "s.*"]}]);
    stage.is_read_whole(some, keyed, stored);
    // Of two with one name, one is stored, and that is said.
    let twice =
        json!([{"name": "odd", "query": "SELECT id, 1 AS x, 2 AS x FROM odd", "key": "id"}]);
    let sql = "UPDATE connectors SET config = config || jsonb_build_object('streams', $1::jsonb)";
    stage.client.execute(sql, &[&twice]).unwrap();
    let run = stage.sync();
    assert!(
        run["warnings"]
            .to_string()
            .contains("two columns are named \\\"x\\\""),
        "{run}"
    );
}

#[test]
fn a_query_may_end_with_a_semicolon_and_comments_and_begin_with_with() {
    let mut stage = stage(
        "",
        "CREATE TABLE t (id int PRIMARY KEY, words text); INSERT INTO t VALUES (1, ';'), (2, '--'), (3, '/*')",
        json!([{"table": "t", "key": "id"}]),
    );
    let there = "SELECT 'q/' || id, words FROM t";
    let stored =
        "SELECT source_record_id, data ->> 'words' FROM raw_connector_data WHERE NOT deleted";
    for query in [
        "SELECT * FROM t; -- done",
        "SELECT id, words FROM t /* all; of it */ ;;\n-- done;",
        "WITH w AS (SELECT * FROM t) SELECT * FROM w WHERE words <> '; --';",
        "TABLE t;",
    ] {
        stage.is_read_whole(
            json!([{"name": "q", "query": query, "key": "id"}]),
            there,
            stored,
        );
    }
}

#[test]
fn keys_without_an_order_of_their_own_are_read_at_every_batch_size() {
    let mut stage = stage(
        "",
        "CREATE TYPE pair AS (a int, b text);
         CREATE COLLATION nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE kinds (n int, list int[], doc jsonb, p pair, span int4range, cost money, bits bit(3), f float8, word text COLLATE nd, every interval);
         INSERT INTO kinds SELECT i, ARRAY[i, 1], to_jsonb(i::text), (i, 'x')::pair, int4range(i, i + 2), i, i::bit(3), i / 3.0,
             CASE WHEN i % 2 = 0 THEN repeat('a', i / 2 + 1) ELSE repeat('A', i / 2 + 1) END, i * interval '1 mon' FROM generate_series(0, 7) AS i",
        json!([{"table": "kinds", "key": "n"}]),
    );
    let there = "SELECT n::text, to_jsonb(k)::text FROM kinds AS k";
    let stored = "SELECT data ->> 'n', data::text FROM raw_connector_data WHERE NOT deleted";
    for key in [
        "list", "doc", "p", "span", "cost", "bits", "f", "word", "every",
    ] {
        stage.is_read_whole(json!([{"table": "kinds", "key": key}]), there, stored);
    }
}

#[test]
fn stamps_that_are_no_times_hide_nothing_and_are_read() {
    let mut stage = stage(
        "",
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, local_at timestamp, day date);
         INSERT INTO t SELECT i, now() - (i + 1) * interval '1 day', now() - (i + 1) * interval '1 day', now() - (i + 1) * interval '1 day' FROM generate_series(1, 20) AS i;
         INSERT INTO t VALUES (101, 'infinity', 'infinity', 'infinity'), (102, '-infinity', '-infinity', '-infinity'),
             (103, '9999-12-31', '9999-12-31', '9999-12-31'), (104, '0001-01-01', '0001-01-01', '0001-01-01'), (105, NULL, NULL, NULL)",
        json!([{"table": "t", "key": "id"}]),
    );
    let there = "SELECT id::text, to_jsonb(t)::text FROM t";
    let stored = "SELECT data ->> 'id', data::text FROM raw_connector_data WHERE NOT deleted";
    for cursor in ["at", "local_at", "day"] {
        let streams = json!([{"table": "t", "key": "id", "cursor": cursor}]);
        stage.is_read_whole(streams, there, stored);
        let at: String = stage
            .client
            .query_one("SELECT cursor ->> 'at' FROM sync_state", &[])
            .unwrap()
            .get(0);
        assert!(at.starts_with("20"), "the cursor is {at}");
        stage
            .shop
            .batch_execute(&format!(
                "UPDATE t SET {cursor} = now() WHERE id = 7; UPDATE t SET {cursor} = 'infinity' WHERE id = 105"
            ))
            .unwrap();
        let run = stage.sync();
        assert_eq!(run["updated"], 2, "{cursor}: {run}");
        // No more than what has no time, and what is within the lookback.
        assert!(run["received"].as_i64() <= Some(8), "{cursor}: {run}");
        stage
            .shop
            .batch_execute(&format!(
                "UPDATE t SET {cursor} = now() - interval '2 days' WHERE id = 7; UPDATE t SET {cursor} = NULL WHERE id = 105"
            ))
            .unwrap();
    }
}

#[test]
fn a_lookback_of_numbers_is_subtracted_to_the_last_digit() {
    let mut stage = stage(
        "",
        "CREATE TABLE t (id int PRIMARY KEY, at numeric(20, 6), f float8, v text);
         INSERT INTO t VALUES (1, 1700000000.5, 1700000000.5, 'v1'), (2, 1700001000.000001, 1700001000.25, 'v2')",
        json!([{"table": "t", "key": "id", "cursor": "at", "lookback": 600}]),
    );
    for cursor in ["at", "f"] {
        let sql =
            "UPDATE connectors SET config = config || jsonb_build_object('streams', $1::jsonb)";
        let streams =
            json!([{"name": cursor, "table": "t", "key": "id", "cursor": cursor, "lookback": 600}]);
        stage.client.execute(sql, &[&streams]).unwrap();
        assert_eq!(stage.sync()["inserted"], 2);
        // Within the lookback, and a little beyond.
        let late = "INSERT INTO t VALUES (3, 1700000400.000001, 1700000400.25, 'v3'), (4, 1700000400, 1700000400.125, 'v4')";
        stage.shop.batch_execute(late).unwrap();
        let run = stage.sync();
        assert_eq!((&run["inserted"], &run["received"]), (&json!(1), &json!(2)));
        stage
            .shop
            .batch_execute("DELETE FROM t WHERE id > 2")
            .unwrap();
    }
    let sql = "UPDATE connectors SET config = config || jsonb_build_object('streams', $1::jsonb)";
    let streams =
        json!([{"name": "words", "table": "t", "key": "id", "cursor": "v", "lookback": 600}]);
    stage.client.execute(sql, &[&streams]).unwrap();
    let run = stage.sync_anyhow();
    assert_eq!(run["error_code"], "unexpected_shape", "{run}");
    let message = run["error_message"].as_str().unwrap();
    assert!(message.contains("cannot be subtracted"), "{message}");
}
