//! Tests MySQL as a source, with a real MariaDB: its types, tables as ERPNext has them, and servers that ask for more
//! than they should get.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

struct Stage {
    cluster: Cluster,
    /// The connection to the database with the extension.
    client: Client,
    /// The connection to the MariaDB that is read.
    shop: MariaDbClient,
    server: MariaDb,
    connector: String,
}

fn stage(settings: &str, rows: &str, streams: Value) -> Stage {
    let cluster = Cluster::start(settings);
    let mut client = cluster.database("app");
    let server = MariaDb::start(cluster.dir.clone(), &[]);
    server
        .client("")
        .run("CREATE DATABASE shop CHARACTER SET utf8mb4");
    let mut shop = server.client("shop");
    shop.run("SET SESSION time_zone = '+00:00'");
    shop.run(rows);
    let config = config(server.port, streams);
    let connector = connect(&mut client, &config);
    Stage {
        cluster,
        client,
        shop,
        server,
        connector,
    }
}

fn config(port: u16, streams: Value) -> Value {
    json!({"host": "127.0.0.1", "port": port, "database": "shop", "tls": "off", "streams": streams})
}

fn connect(client: &mut Client, config: &Value) -> String {
    let sql = "INSERT INTO tenants (tenant_id) VALUES ('00000000-0000-4000-8000-000000000001') ON CONFLICT DO NOTHING";
    client.batch_execute(sql).unwrap();
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
               SELECT '00000000-0000-4000-8000-000000000001', 'shop' || CASE count(*) WHEN 0 THEN '' ELSE format(' %s', count(*)) END, 'mysql', $1::jsonb,
                   '{\"username\": \"root\"}', 'manual'
               FROM connectors RETURNING connector_id::text";
    client.query_one(sql, &[config]).unwrap().get(0)
}

fn sync_anyhow(client: &mut Client, connector: &str) -> Value {
    let run = sync(client, connector);
    let run = wait_for_run(client, &run);
    ledger_holds(client);
    run
}

impl Stage {
    fn sync(&mut self) -> Value {
        let run = sync_anyhow(&mut self.client, &self.connector);
        assert_eq!(run["state"], "succeeded", "{run}");
        run
    }

    /// Returns the stored records as text.
    fn stored(&mut self, sql: &str) -> BTreeMap<String, String> {
        let rows = self.client.query(sql, &[]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Checks that name, amount and last change of every stored invoice equal the table's.
    fn invoices_agree(&mut self) {
        let sql = "SELECT name, concat_ws(' ', base_grand_total, date_format(modified, '%Y-%m-%dT%H:%i:%s.%f')) FROM `tabSales Invoice`";
        let rows = self.shop.rows(sql);
        let expected: BTreeMap<String, String> = rows
            .into_iter()
            .map(|row| (row[0].clone(), row[1].clone()))
            .collect();
        let found = self.stored(
            "SELECT data ->> 'name', concat_ws(' ', data ->> 'base_grand_total', to_char((data ->> 'modified')::timestamp, 'YYYY-MM-DD\"T\"HH24:MI:SS.US'))
             FROM raw_connector_data WHERE NOT deleted",
        );
        assert!(
            found == expected,
            "{} invoices stored, {} there",
            found.len(),
            expected.len()
        );
    }
}

#[test]
fn every_column_type_is_stored_exactly() {
    let mut stage = stage(
        "",
        r#"SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION';
CREATE TABLE `odd ``kinds` (
    `the key` bigint unsigned PRIMARY KEY, exact decimal(40, 12), padded decimal(10, 2) zerofill, f8 double, f4 float, tiny tinyint(1),
    small smallint, bits bit(10), yr year, at timestamp(6) NULL, naive datetime(6), plain datetime, day date, hour time(3),
    words text, bytes varbinary(10), bl blob, mood enum('fine', 'so-so'), many set('a', 'b'), js json, nothing int);
INSERT INTO `odd ``kinds` VALUES
    (18446744073709551615, 1234567890123456789012345678.000000000001, 7.5, 0.1, 0.1, 1, -32768, b'1000000001', 2026,
     '2026-01-31 23:59:59.999999', '2026-01-31 23:59:59.100000', '2026-01-31 10:00:00', '0001-01-01', '-838:59:58.999',
     'quotes " and \\ and\nlines 😀', x'deadbeef00', x'00ff', 'so-so', 'a,b', '{"kept":  1.10}', NULL),
    (0, -0.5, 0, -1.5e300, 0, 0, 0, 0, 1901, NULL, '0000-00-00', NULL, '0000-00-00', '00:00:01', '', '', '', 'fine', '', 'null', NULL)"#,
        json!([{"table": "odd `kinds", "name": "kinds", "key": "the key"}]),
    );
    stage.sync();
    let found = stage.stored("SELECT source_record_id, data::text FROM raw_connector_data");
    let canonical = |text: &str| text.replace('\n', " ");
    let expected = BTreeMap::from([
        (
            "kinds/18446744073709551615".to_owned(),
            r#"{"at": "2026-01-31T23:59:59.999999+00:00", "bl": "\\x00ff", "f4": 0.1, "f8": 0.1, "js": "{\"kept\":  1.10}", "yr": 2026, "day": "0001-01-01", "bits": 513, "hour": "-838:59:58.999", "many": "a,b", "mood": "so-so", "tiny": 1, "bytes": "\\xdeadbeef00", "exact": 1234567890123456789012345678.000000000001, "naive": "2026-01-31T23:59:59.1", "plain": "2026-01-31T10:00:00", "small": -32768, "words": "quotes \" and \\ and\nlines 😀", "padded": 7.50, "nothing": null, "the key": 18446744073709551615}"#.to_owned(),
        ),
        (
            "kinds/0".to_owned(),
            r#"{"at": null, "bl": "\\x", "f4": 0.0, "f8": -15e299, "js": "null", "yr": 1901, "day": null, "bits": 0, "hour": "00:00:01", "many": "", "mood": "fine", "tiny": 0, "bytes": "\\x", "exact": -0.500000000000, "naive": null, "plain": null, "small": 0, "words": "", "padded": 0.00, "nothing": null, "the key": 0}"#.to_owned(),
        ),
    ]);
    for (id, text) in &expected {
        let as_jsonb = stage
            .client
            .query_one("SELECT $1::text::jsonb::text", &[&canonical(text)]);
        assert_eq!(
            canonical(&found[id]),
            as_jsonb.unwrap().get::<_, String>(0),
            "{id}"
        );
    }
    assert_eq!(found.len(), expected.len());
}

/// A table as ERPNext has it: a blank in its name, names as keys, a time without a zone, drafts and cancelled ones.
const INVOICES: &str = "
CREATE TABLE `tabSales Invoice` (
    name varchar(140) PRIMARY KEY, creation datetime(6), modified datetime(6), docstatus int NOT NULL DEFAULT 0,
    posting_date date, currency varchar(140), base_grand_total decimal(21, 9) NOT NULL DEFAULT 0, `group` varchar(140),
    KEY modified (modified, name)) ENGINE = InnoDB;
INSERT INTO `tabSales Invoice`
    SELECT concat('ACC-SINV-', lpad(seq, 6, '0')), now(6), timestampadd(MINUTE, seq DIV 40, timestampadd(DAY, -8, date_format(now(), '%Y-%m-%d %H:%i:%s'))),
           seq % 3, current_date, 'USD', seq * 1.01, 'g'
    FROM seq_1_to_3000";

fn invoices() -> Value {
    json!([{"table": "tabSales Invoice", "name": "sales_invoices", "key": "name", "cursor": "modified"}])
}

/// The server's clock shows UTC, which is not put back.
fn invoices_of_ten_minutes() -> Value {
    let mut streams = invoices();
    streams[0]["lookback"] = json!(600);
    streams
}

#[test]
fn rows_with_equal_cursors_are_stored_once_and_later_syncs_read_the_changes() {
    let mut stage = stage("", INVOICES, invoices_of_ten_minutes());
    let config = "UPDATE connectors SET config = config || '{\"batch\": 7}'";
    stage.client.batch_execute(config).unwrap();
    let run = stage.sync();
    assert_eq!(
        (&run["received"], &run["inserted"]),
        (&json!(3_000), &json!(3_000)),
        "each row once, although forty share a moment: {run}"
    );
    stage.invoices_agree();
    let run = stage.sync();
    assert!(
        run["received"].as_i64().unwrap() <= 440,
        "ten minutes again: {run}"
    );
    // Changes of one moment, a new one, and two that have no time: NULL, and nothing but zeros.
    stage.shop.run(
        "SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION';
UPDATE `tabSales Invoice` SET base_grand_total = base_grand_total + 1, modified = now(6) WHERE name LIKE '%00';
INSERT INTO `tabSales Invoice` (name, modified, base_grand_total) VALUES ('new', now(6), 5), ('null', NULL, 6), ('zero', '0000-00-00', 7), ('zeta', '0000-00-00', 8)",
    );
    let run = stage.sync();
    assert_eq!(
        (&run["inserted"], &run["updated"]),
        (&json!(4), &json!(30)),
        "{run}"
    );
    stage
        .shop
        .run("UPDATE `tabSales Invoice` SET modified = NULL WHERE modified < '0001-01-01'");
    stage.invoices_agree();
}

#[test]
fn rows_that_change_during_a_read_are_current_after_the_next_sync() {
    let mut stage = stage("", INVOICES, invoices_of_ten_minutes());
    // With the zone it is known what is of the future, and a read does not run after the edits.
    let config =
        "UPDATE connectors SET config = config || '{\"batch\": 20, \"time_zone\": \"UTC\"}'";
    stage.client.batch_execute(config).unwrap();
    let mut edited = 0;
    for round in 0..6_u64 {
        let is_over = Arc::new(AtomicBool::new(false));
        let editor = {
            let (is_over, mut shop) = (is_over.clone(), stage.server.client("shop"));
            std::thread::spawn(move || {
                let mut random = Random(200 + round);
                let mut edited = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let name = format!("ACC-SINV-{:06}", 1 + random.below(3_000));
                    let late = random.pick(&[0, 0, 0, 90]);
                    shop.run(&format!(
                        "UPDATE `tabSales Invoice` SET base_grand_total = base_grand_total + 0.01, modified = timestampadd(SECOND, -{late}, now(6)) WHERE name = '{name}'"
                    ));
                    edited += 1;
                }
                edited
            })
        };
        stage.sync();
        is_over.store(true, Ordering::Relaxed);
        edited += editor.join().unwrap();
        stage.sync();
        stage.invoices_agree();
    }
    assert!(edited > 100, "{edited} edits show nothing");
}

#[test]
fn a_table_without_a_cursor_is_read_whole_by_its_key_and_deleted_rows_are_found() {
    let mut stage = stage(
        "",
        "CREATE TABLE stock (shop int, sku varchar(20), quantity int, PRIMARY KEY (shop, sku));
INSERT INTO stock SELECT seq % 5, concat('s', seq), seq FROM seq_1_to_500",
        json!([{"table": "shop.stock", "key": ["shop", "sku"]}]),
    );
    let config = "UPDATE connectors SET config = config || '{\"batch\": 9}'";
    stage.client.batch_execute(config).unwrap();
    let run = stage.sync();
    assert_eq!(run["inserted"], 500, "{run}");
    stage.shop.run("DELETE FROM stock WHERE quantity % 10 = 0;\nUPDATE stock SET quantity = 0 WHERE sku = 's7'");
    let run = stage.sync();
    assert_eq!(
        (&run["deleted"], &run["updated"]),
        (&json!(50), &json!(1)),
        "{run}"
    );
}

#[test]
fn deleted_rows_of_a_table_with_a_cursor_are_found_on_request() {
    let mut streams = invoices();
    streams[0]["deletes"] = json!(true);
    let mut stage = stage("", INVOICES, streams);
    let first = stage.sync();
    assert_eq!(first["deleted"], 0, "{first}");
    let gone = "DELETE FROM `tabSales Invoice` WHERE name LIKE '%500'";
    stage.shop.run(gone);
    let run = stage.sync();
    assert_eq!(run["deleted"], 3, "{run}");
    stage.invoices_agree();
}

#[test]
fn times_without_a_zone_are_in_the_declared_zone() {
    let mut stage = stage(
        "",
        "CREATE TABLE shifts (id int PRIMARY KEY, began datetime, day date, at timestamp NULL);
         INSERT INTO shifts VALUES (1, '2026-01-05 09:00:00', '2026-01-05', '2026-07-01 00:00:00'), (2, '2026-07-05 09:00:00', NULL, NULL),
             (3, '2026-10-25 02:30:00', NULL, NULL), (4, '2026-03-29 02:30:00', NULL, NULL), (5, NULL, NULL, NULL)",
        json!([{"table": "shifts", "key": "id"}]),
    );
    let zone = r#"UPDATE connectors SET config = config || '{"time_zone": "Europe/Berlin"}'"#;
    stage.client.batch_execute(zone).unwrap();
    stage.sync();
    let found = stage.stored("SELECT source_record_id, data->>'began' FROM raw_connector_data WHERE data->>'began' IS NOT NULL");
    // Of two, the first; where there was none, as if the clock had not been moved yet.
    let expected = [
        ("shifts/1", "2026-01-05T09:00:00+01:00"),
        ("shifts/2", "2026-07-05T09:00:00+02:00"),
        ("shifts/3", "2026-10-25T02:30:00+02:00"),
        ("shifts/4", "2026-03-29T02:30:00+01:00"),
    ];
    let expected = expected.map(|(id, began)| (id.to_owned(), began.to_owned()));
    assert_eq!(found, BTreeMap::from(expected));
    let others = stage.stored(
        "SELECT data->>'day', data->>'at' FROM raw_connector_data WHERE data->>'day' IS NOT NULL",
    );
    let unchanged = (
        "2026-01-05".to_owned(),
        "2026-07-01T00:00:00+00:00".to_owned(),
    );
    assert_eq!(others, BTreeMap::from([unchanged]));
    let nowhere = r#"UPDATE connectors SET config = config || '{"time_zone": "Berlin"}'"#;
    let refused = stage.client.batch_execute(nowhere).unwrap_err();
    assert!(format!("{refused:?}").contains("time_zone"), "{refused:?}");
}

#[test]
fn each_failure_has_a_code_and_says_what_to_do() {
    let mut stage = stage(
        "connector_service.request_retries = 0",
        "CREATE TABLE t (id int, secret text);
INSERT INTO t VALUES (1, 'not_a_real_secret');
CREATE USER guest@'127.0.0.1' IDENTIFIED BY 'not_a_real_password';
GRANT INSERT ON shop.t TO guest@'127.0.0.1'",
        json!([{"table": "t", "key": "id"}]),
    );
    for (user, change, code, says) in [
        (
            "root",
            json!({"database": "nowhere"}),
            "not_found",
            "the database does not exist",
        ),
        (
            "nobody",
            json!({}),
            "credentials_rejected",
            "refuses this user, password or client address",
        ),
        (
            "guest",
            json!({}),
            "permission_missing",
            "may not read the table",
        ),
        (
            "root",
            json!({"port": 1}),
            "connect_failed",
            "no connection to 127.0.0.1:1: connection refused",
        ),
        (
            "root",
            json!({"streams": [{"table": "nothing", "key": "id"}]}),
            "not_found",
            "the table does not exist",
        ),
        (
            "root",
            json!({"streams": [{"table": "t", "key": "idd"}]}),
            "not_found",
            "the column \"idd\" does not exist; the columns are id, secret",
        ),
        (
            "root",
            json!({"streams": [{"table": "t", "key": "id", "columns": ["idd"]}]}),
            "not_found",
            "the column does not exist",
        ),
        (
            "root",
            json!({"streams": [{"query": "SELECT 1 AS id) AS s; DROP TABLE t; SELECT (1", "name": "q", "key": "id"}]}),
            "request_refused",
            "error 1064",
        ),
        (
            "root",
            json!({"statement_timeout": 1, "streams": [{"query": "SELECT 1 AS id FROM t WHERE sleep(20) = 0", "name": "q", "key": "id"}]}),
            "request_timeout",
            "statement_timeout",
        ),
        (
            "root",
            json!({"tls": "verify"}),
            "tls_failed",
            "does not offer TLS",
        ),
    ] {
        let streams = json!([{"table": "t", "key": "id"}]);
        let mut all = config(stage.server.port, streams);
        all["statement_timeout"] = 20.into();
        all.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let given = json!({"username": user, "password": if user == "root" { "" } else { "not_a_real_password" }});
        let sql = "UPDATE connectors SET status = 'active', config = $1, credentials = $2";
        stage.client.execute(sql, &[&all, &given]).unwrap();
        let run = sync_anyhow(&mut stage.client, &stage.connector);
        assert_eq!(run["error_code"], code, "{change}: {run}");
        let message = run["error_message"].as_str().unwrap();
        assert!(
            message.contains(says) && !message.contains("not_a_real"),
            "{message}"
        );
    }
    assert_eq!(stage.shop.rows("SELECT count(*) FROM t"), [["1"]]);
}

#[test]
fn large_rows_are_read_in_parts_and_a_huge_row_is_refused() {
    let mut stage = stage(
        "connector_service.max_response_size = '8MB'\nconnector_service.request_retries = 0",
        "CREATE TABLE wide (id int PRIMARY KEY, words longtext);
INSERT INTO wide SELECT seq, repeat('x', 300000) FROM seq_1_to_100",
        json!([{"table": "wide", "key": "id"}]),
    );
    let worker = stage.cluster.wait_worker("app");
    let run = stage.sync();
    assert_eq!(run["inserted"], 100, "thirty megabytes, in parts: {run}");
    let before = memory_kb(worker, "VmHWM");
    stage
        .shop
        .run("UPDATE wide SET words = repeat('x', 12000000) WHERE id = 50");
    let run = sync_anyhow(&mut stage.client, &stage.connector);
    assert_eq!(run["error_code"], "response_too_large", "{run}");
    assert_eq!(stage.cluster.wait_worker("app"), worker);
    let grown = memory_kb(worker, "VmHWM").saturating_sub(before) / 1024;
    assert!(grown < 64, "the worker grew by {grown} MB");
}

fn packet(stream: &mut TcpStream, number: u8, body: &[u8]) {
    try_packet(stream, number, body);
}

/// Sends a packet. Returns whether the client took it.
fn try_packet(stream: &mut TcpStream, number: u8, body: &[u8]) -> bool {
    let mut packet = (body.len() as u32).to_le_bytes().to_vec();
    packet[3] = number;
    packet.extend_from_slice(body);
    stream.write_all(&packet).is_ok()
}

fn read_packet(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

/// A server that lets everybody in by one way, and answers every statement in a way of its own.
fn greedy(
    plugin: &'static str,
    answer: impl Fn(&mut TcpStream, &[u8]) + Send + 'static,
) -> (u16, Arc<std::sync::Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let got = Arc::new(std::sync::Mutex::new(Vec::new()));
    let taken = got.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Version 10, and everything a client may be asked for, local files among it.
            let mut hello =
                b"\x0a5.7.0\0\x01\0\0\0aaaaaaaa\0\xff\xf7\x21\x02\0\xff\x81\x15".to_vec();
            hello.extend_from_slice(&[0; 10]);
            hello.extend_from_slice(b"aaaaaaaaaaaa\0mysql_native_password\0");
            packet(&mut stream, 0, &hello);
            let Some(login) = read_packet(&mut stream) else {
                continue;
            };
            taken.lock().unwrap().extend(login);
            if plugin == "mysql_native_password" {
                packet(&mut stream, 2, b"\0\0\0\x02\0\0\0");
            } else {
                let switch = [b"\xfe".as_slice(), plugin.as_bytes(), b"\0"].concat();
                packet(&mut stream, 2, &switch);
            }
            while let Some(asked) = read_packet(&mut stream) {
                answer(&mut stream, &asked);
                taken.lock().unwrap().extend(asked);
            }
        }
    });
    (port, got)
}

#[test]
fn a_server_that_asks_for_a_file_or_a_plain_password_gets_neither() {
    let cluster = Cluster::start("connector_service.request_retries = 0");
    let mut client = cluster.database("app");
    let secret = cluster.dir.join("secret");
    std::fs::write(&secret, "not_a_real_file").unwrap();
    let request: &'static [u8] = [b"\xfb", secret.to_str().unwrap().as_bytes()]
        .concat()
        .leak();
    for (plugin, code) in [
        ("mysql_native_password", "request_refused"),
        ("mysql_clear_password", "credentials_rejected"),
    ] {
        let (port, got) = greedy(plugin, move |stream, _| packet(stream, 1, request));
        let connector = connect(
            &mut client,
            &config(port, json!([{"table": "t", "key": "id"}])),
        );
        let given = "UPDATE connectors SET credentials = '{\"username\": \"root\", \"password\": \"not_a_real_password\"}' WHERE connector_id = $1::text::uuid";
        client.execute(given, &[&connector]).unwrap();
        let run = sync_anyhow(&mut client, &connector);
        assert_eq!(run["error_code"], code, "{run}");
        let got = String::from_utf8_lossy(&got.lock().unwrap()).into_owned();
        assert!(got.contains("root"), "it was let in");
        assert!(!got.contains("not_a_real"), "{got:?}");
    }
}

/// A column description with a long name.
fn description() -> Vec<u8> {
    let name = [b"\xfd\x60\xea\0".as_slice(), &[b'x'; 60_000]].concat();
    let end = b"\0\x0c\x2d\0\xff\0\0\0\x03\0\0\0\0\0";
    [b"\x03def\0\0\0", name.as_slice(), end].concat()
}

/// An endless row of packet numbers.
fn numbers(from: u8) -> impl Iterator<Item = u8> {
    (0_u8..=255).cycle().skip(from.into())
}

type Answer = fn(&mut TcpStream, &[u8]);

fn announce(stream: &mut TcpStream, _: &[u8]) {
    packet(stream, 1, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff");
}

fn announce_for_rows(stream: &mut TcpStream, asked: &[u8]) {
    match asked[0] {
        0x16 => packet(stream, 1, b"\0\x01\0\0\0\0\0\0\0\0\0\0"),
        0x17 => announce(stream, asked),
        _ => packet(stream, 1, b"\0\0\0\x02\0\0\0"),
    }
}

fn describe(stream: &mut TcpStream, asked: &[u8]) {
    let description = description();
    match asked[0] {
        0x16 => {
            packet(stream, 1, b"\0\x01\0\0\0\0\x10\0\0\0\0\0");
            numbers(2).find(|number| !try_packet(stream, *number, &description));
        }
        _ => packet(stream, 1, b"\0\0\0\x02\0\0\0"),
    }
}

/// A packet that never ends.
fn go_on(stream: &mut TcpStream, _: &[u8]) {
    let part = vec![0; 0xff_ffff];
    numbers(1).find(|number| !try_packet(stream, *number, &part));
}

#[test]
fn a_server_that_announces_too_much_data_fails_only_its_own_connector() {
    let cluster = Cluster::start(
        "connector_service.max_response_size = '40MB'\nconnector_service.request_retries = 0",
    );
    let mut client = cluster.database("app");
    let answers: [(&str, Answer); 4] = [
        ("columns for what has no rows", announce),
        ("columns of rows", announce_for_rows),
        ("descriptions", describe),
        ("parts of a packet", go_on),
    ];
    let worker = cluster.wait_worker("app");
    let before = memory_kb(worker, "VmHWM");
    for (what, answer) in answers {
        let (port, _) = greedy("mysql_native_password", answer);
        let config = config(port, json!([{"table": "t", "key": "id"}]));
        let connector = connect(&mut client, &config);
        let run = sync_anyhow(&mut client, &connector);
        assert_eq!(run["error_code"], "response_too_large", "{what}: {run}");
        assert_eq!(cluster.wait_worker("app"), worker, "{what}");
        let grown = memory_kb(worker, "VmHWM").saturating_sub(before) / 1024;
        assert!(grown < 128, "{what}: the worker grew by {grown} MB");
    }
}

#[test]
fn a_login_with_a_password_works_and_the_connection_is_closed_properly() {
    let cluster = Cluster::start("connector_service.request_retries = 0");
    let mut client = cluster.database("app");
    let server = MariaDb::start(cluster.dir.clone(), &[]);
    server.client("").run("CREATE DATABASE shop");
    server.client("shop").run(
        "CREATE TABLE t (id int PRIMARY KEY);
INSERT INTO t VALUES (1);
CREATE USER guest@'127.0.0.1' IDENTIFIED BY 'not_a_real_password';
GRANT SELECT ON shop.t TO guest@'127.0.0.1'",
    );
    let streams = json!([{"table": "t", "key": "id"}]);
    let connector = connect(&mut client, &config(server.port, streams));
    for (password, ends) in [
        ("not_a_real_password", ""),
        ("another", "credentials_rejected"),
    ] {
        let given = json!({"username": "guest", "password": password});
        let sql = "UPDATE connectors SET status = 'active', credentials = $1";
        client.execute(sql, &[&given]).unwrap();
        let run = sync_anyhow(&mut client, &connector);
        assert_eq!(run["error_code"].as_str().unwrap_or(""), ends, "{run}");
    }
    let log = std::fs::read_to_string(cluster.dir.join("mariadb.log")).unwrap();
    let mut broken = log.lines().filter(|line| line.contains("Aborted"));
    assert!(broken.all(|line| !line.contains("'guest'")), "{log}");
}

#[test]
fn the_server_s_certificate_is_verified() {
    let mut stage = stage(
        "connector_service.request_retries = 0",
        INVOICES,
        invoices(),
    );
    let (key, certificate) = stage.cluster.certificate();
    let pem = std::fs::read_to_string(&certificate).unwrap();
    let other = Cluster::empty();
    let (cert, key) = (
        format!("--ssl-cert={}", certificate.display()),
        format!("--ssl-key={}", key.display()),
    );
    let server = MariaDb::start(
        other.dir.clone(),
        &[&cert, &key, "--require-secure-transport=OFF"],
    );
    server
        .client("")
        .run("CREATE DATABASE shop CHARACTER SET utf8mb4");
    server.client("shop").run(INVOICES);
    server
        .client("shop")
        .run("ALTER USER root@'127.0.0.1' REQUIRE SSL");
    for (ca, ends) in [(None, "tls_failed"), (Some(pem), "")] {
        let mut all = config(server.port, invoices());
        all.as_object_mut().unwrap().remove("tls");
        all["ca"] = ca.into();
        let sql = "UPDATE connectors SET status = 'active', config = $1";
        stage.client.execute(sql, &[&all]).unwrap();
        let run = sync_anyhow(&mut stage.client, &stage.connector);
        assert_eq!(run["error_code"].as_str().unwrap_or(""), ends, "{run}");
        assert_eq!(run["inserted"] == 3_000, ends.is_empty());
    }
}

/// A site without the HR app: no claims and no slips.
const SITE: &str = "
CREATE TABLE `tabPurchase Invoice` LIKE `tabSales Invoice`;
CREATE TABLE `tabBin` (name varchar(140) PRIMARY KEY, modified datetime(6), item_code varchar(140), warehouse varchar(140), actual_qty decimal(21, 9));
CREATE TABLE `tabTimesheet` (name varchar(140) PRIMARY KEY, modified datetime(6), docstatus int, start_date date, total_hours decimal(21, 9));
CREATE TABLE `tabTimesheet Detail` (name varchar(140) PRIMARY KEY, parent varchar(140), parenttype varchar(140), idx int, activity_type varchar(140),
    hours decimal(21, 9), from_time datetime(6), to_time datetime(6), project varchar(140), task varchar(140),
    billing_amount decimal(21, 9), costing_amount decimal(21, 9));
CREATE TABLE `tabDeleted Document` (name varchar(140) PRIMARY KEY, creation datetime(6), deleted_doctype varchar(140), deleted_name varchar(140), restored int);
INSERT INTO `tabSales Invoice` SELECT concat('ACC-SINV-', seq), now(6), timestampadd(MINUTE, -seq, now(6)), seq % 3,
    date_sub(current_date, INTERVAL seq % 5 DAY), 'USD', if(seq % 20 = 1, -1, 1) * seq * 1.01, 'Main - A' FROM (SELECT cast(seq AS signed) AS seq FROM seq_1_to_300) AS n;
INSERT INTO `tabPurchase Invoice` SELECT concat('ACC-PINV-', seq), now(6), timestampadd(MINUTE, -seq, now(6)), 1,
    date_sub(current_date, INTERVAL seq % 5 DAY), 'USD', seq * 2.5, 'Main - A' FROM (SELECT cast(seq AS signed) AS seq FROM seq_1_to_50) AS n;
INSERT INTO `tabBin` SELECT concat('bin', seq), timestampadd(HOUR, -seq, now(6)), concat('item', seq % 7), 'Stores', seq FROM (SELECT cast(seq AS signed) AS seq FROM seq_1_to_40) AS n;
INSERT INTO `tabTimesheet` SELECT concat('TS-', seq), timestampadd(MINUTE, -seq, now(6)), 1, date_sub(current_date, INTERVAL seq % 5 DAY), 8 FROM (SELECT cast(seq AS signed) AS seq FROM seq_1_to_30) AS n;
INSERT INTO `tabTimesheet Detail` SELECT concat('tsd', seq), concat('TS-', 1 + seq % 20), 'Timesheet', 1, 'Baking', 1.25,
    timestampadd(DAY, -(seq % 5), current_date), NULL, NULL, NULL, NULL, NULL FROM (SELECT cast(seq AS signed) AS seq FROM seq_1_to_60) AS n";

impl Stage {
    /// Checks that each day's metrics equal the sums of the tables.
    fn numbers_agree(&mut self) {
        let logs = "EXISTS (SELECT 1 FROM `tabTimesheet Detail` AS d WHERE d.parent = t.name)";
        let sql = format!(
            "SELECT kind, day, format(sum(amount), 4, 'en_US') FROM (
               SELECT 'revenue' AS kind, posting_date AS day, grand_total AS amount FROM `tabSales Invoice` WHERE docstatus = 1 AND grand_total >= 0
               UNION ALL SELECT 'costs', posting_date, -grand_total FROM `tabSales Invoice` WHERE docstatus = 1 AND grand_total < 0
               UNION ALL SELECT 'costs', posting_date, grand_total FROM `tabPurchase Invoice` WHERE docstatus = 1
               UNION ALL SELECT 'inventory', date(modified), actual_qty FROM `tabBin`
               UNION ALL SELECT 'staffing', date(from_time), hours FROM `tabTimesheet Detail` AS d JOIN `tabTimesheet` AS t ON t.name = d.parent WHERE docstatus = 1
               UNION ALL SELECT 'staffing', start_date, total_hours FROM `tabTimesheet` AS t WHERE docstatus = 1 AND NOT {logs}) AS s GROUP BY kind, day HAVING sum(amount) <> 0"
        );
        let key = |kind: &str, day: &str, amount: &str| {
            (format!("{kind} {day}"), amount.replace(',', ""))
        };
        let expected: BTreeMap<String, String> = self
            .shop
            .rows(&sql)
            .iter()
            .map(|row| key(&row[0], &row[1], &row[2]))
            .collect();
        let sql = "SELECT metric_type || ' ' || metric_date, round(metric_value, 4)::text FROM metrics WHERE metric_value <> 0";
        let found = self.stored(sql);
        assert!(expected.len() > 15, "{expected:?}");
        assert_eq!(found, expected);
    }
}

#[test]
fn reading_erpnext_s_tables_gives_the_same_numbers_as_its_rest_api() {
    let invoices = INVOICES
        .replace("base_grand_total", "grand_total")
        .replace("`group`", "cost_center");
    let invoices = invoices.split("INSERT INTO").next().unwrap();
    let mut stage = stage(
        "",
        &format!("{invoices}{SITE}"),
        json!([{"table": "t", "key": "id"}]),
    );
    let sql = "UPDATE connectors SET type = 'erpnext', config = config - 'streams'";
    stage.client.batch_execute(sql).unwrap();
    let run = stage.sync();
    let left_out = "left out, because its table does not exist or this user may not read it";
    assert_eq!(
        run["warnings"],
        json!([
            format!("stream \"expense_claims\": {left_out}"),
            format!("stream \"salary_slips\": {left_out}")
        ]),
        "{run}"
    );
    stage.numbers_agree();
    // An edit, a cancellation, logs made anew, one that is deleted, and one whose name another document has by now.
    stage.shop.run(
        "UPDATE `tabSales Invoice` SET grand_total = 1000, modified = now(6) WHERE name = 'ACC-SINV-4';
UPDATE `tabSales Invoice` SET docstatus = 2, modified = now(6) WHERE name = 'ACC-SINV-7';
DELETE FROM `tabTimesheet Detail` WHERE parent = 'TS-3';
INSERT INTO `tabTimesheet Detail` (name, parent, parenttype, idx, hours, from_time) VALUES ('anew', 'TS-3', 'Timesheet', 1, 3.5, current_date);
UPDATE `tabTimesheet` SET modified = now(6) WHERE name = 'TS-3';
DELETE FROM `tabSales Invoice` WHERE name = 'ACC-SINV-10';
INSERT INTO `tabDeleted Document` VALUES ('d1', now(6), 'Sales Invoice', 'ACC-SINV-10', 0), ('d2', now(6), 'Sales Invoice', 'ACC-SINV-13', 0), ('d3', now(6), 'Sales Invoice', 'ACC-SINV-16', 1)",
    );
    let run = stage.sync();
    assert_eq!(
        (&run["updated"], &run["deleted"]),
        (&json!(3), &json!(1)),
        "{run}"
    );
    stage.numbers_agree();
    let again = stage.sync();
    assert_eq!(
        (&again["updated"], &again["deleted"]),
        (&json!(0), &json!(0)),
        "{again}"
    );
    // Who may not read what was deleted reads all the rest.
    stage.shop.run("DROP TABLE `tabDeleted Document`;\nUPDATE `tabSales Invoice` SET grand_total = 2000, modified = now(6) WHERE name = 'ACC-SINV-4'");
    let run = stage.sync();
    assert!(
        run["warnings"]
            .to_string()
            .contains("deletions are not found"),
        "{run}"
    );
    stage.numbers_agree();
}

impl Stage {
    fn set(&mut self, streams: Value, batch: i32) {
        let sql = "TRUNCATE raw_connector_data CASCADE; DELETE FROM sync_state";
        self.client.batch_execute(sql).unwrap();
        let sql = "UPDATE connectors SET status = 'active', config = config || jsonb_build_object('batch', $1::int, 'streams', $2::jsonb)";
        self.client.execute(sql, &[&batch, &streams]).unwrap();
    }

    /// Checks that `n` and `v` of each stored record are those of the table, at several sizes of a batch, and that a
    /// second sync changes nothing.
    fn is_read_whole(&mut self, streams: Value, table: &str) {
        for batch in [1, 2, 3, 5_000] {
            self.set(streams.clone(), batch);
            let run = self.sync();
            let rows = self.shop.rows(&format!("SELECT n, v FROM {table}"));
            let there: BTreeMap<String, String> = rows
                .into_iter()
                .map(|row| (row[0].clone(), row[1].clone()))
                .collect();
            let stored =
                "SELECT data ->> 'n', data ->> 'v' FROM raw_connector_data WHERE NOT deleted";
            assert_eq!(self.stored(stored), there, "batches of {batch}: {run}");
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
fn a_key_with_an_enum_is_read_whole() {
    let mut stage = stage(
        "",
        "CREATE TABLE docs (kind enum('order', 'invoice', 'credit'), id int, n int, v int, PRIMARY KEY (kind, id));
INSERT INTO docs SELECT seq % 3 + 1, seq, seq, 1 FROM seq_1_to_15000",
        json!([{"table": "docs", "key": ["kind", "id"]}]),
    );
    let run = stage.sync();
    assert_eq!(run["inserted"], 15_000, "{run}");
    let run = stage.sync();
    assert_eq!(
        (&run["unchanged"], &run["deleted"]),
        (&json!(15_000), &json!(0)),
        "{run}"
    );
}

#[test]
fn keys_of_every_type_are_read_at_every_batch_size() {
    let mut stage = stage(
        "",
        "CREATE TABLE kinds (n int, v int, id binary(16), bits bit(12), f float, d decimal(40, 12), y year, hour time(3), big bigint unsigned,
    doc json, many set('b', 'a', 'c'), word varchar(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, words text, day date);
INSERT INTO kinds SELECT seq, 1, unhex(lpad(hex(seq * 37), 32, '8')), seq * 300, seq / 10, 1234567890123456789012345678 + seq * 0.000000000001, 1900 + seq,
    sec_to_time(cast(seq AS signed) * 4000 - 10000), 18446744073709551600 + seq, json_array(seq), seq, if(seq % 2, repeat('a', seq div 2 + 1), concat(repeat('A', seq div 2), ' ')),
    concat(repeat('x', 450), seq), date_add('2026-01-01', INTERVAL seq DAY) FROM seq_1_to_7",
        json!([{"table": "kinds", "key": "n"}]),
    );
    for key in [
        "id", "bits", "f", "d", "y", "hour", "big", "doc", "many", "word", "words", "day",
    ] {
        stage.is_read_whole(json!([{"table": "kinds", "key": key}]), "kinds");
    }
    stage.is_read_whole(
        json!([{"table": "kinds", "key": ["many", "word"]}]),
        "kinds",
    );
    stage.set(json!([{"table": "kinds", "key": "id"}]), 2);
    stage.sync();
    let ids = stage.stored("SELECT source_record_id, data ->> 'id' FROM raw_connector_data");
    let first = format!("kinds/\\x{}{:02x}", "8".repeat(30), 37);
    assert!(ids.contains_key(&first), "{first}: {ids:?}");
}

#[test]
fn what_cannot_be_read_in_order_is_refused_by_name() {
    let mut stage = stage(
        "",
        "CREATE TABLE t (n int, v int, place point, kind enum('a', 'b'), doc longblob, word varchar(10));
INSERT INTO t VALUES (1, 1, point(1, 2), 'a', '', 'x1')",
        json!([{"table": "t", "key": "n"}]),
    );
    for (stream, says) in [
        (
            json!({"table": "t", "key": "place"}),
            "the key column \"place\" has the type geometry",
        ),
        (
            json!({"table": "t", "key": "n", "cursor": "kind"}),
            "the cursor \"kind\" has the type enum",
        ),
        (
            json!({"table": "t", "key": "n", "cursor": "doc"}),
            "the cursor \"doc\" has the type bytes",
        ),
        (
            json!({"table": "t", "key": "n", "cursor": "word", "lookback": 5}),
            "\"lookback\" cannot be subtracted from the cursor \"word\"",
        ),
        (
            json!({"name": "q", "query": "SELECT n, v AS n FROM t", "key": "n"}),
            "two columns are named \"n\"",
        ),
    ] {
        stage.set(json!([stream]), 5);
        let run = sync_anyhow(&mut stage.client, &stage.connector);
        assert_eq!(run["error_code"], "unexpected_shape", "{stream}: {run}");
        let message = run["error_message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn stamps_that_are_no_times_hide_nothing_and_are_read() {
    let mut stage = stage(
        "",
        "SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION';
CREATE TABLE t (n int PRIMARY KEY, v int, at datetime(6), day date, moment timestamp NULL);
INSERT INTO t SELECT seq, 1, utc_timestamp() - INTERVAL seq + 1 DAY, utc_date() - INTERVAL seq + 1 DAY, now() - INTERVAL seq + 1 DAY FROM seq_1_to_20;
INSERT INTO t VALUES (101, 1, '9999-12-31', '9999-12-31', '2038-01-19'), (102, 1, '0001-01-01', '0001-01-01', '0000-00-00'),
    (103, 1, '0000-00-00', '0000-00-00', '0000-00-00'), (104, 1, NULL, NULL, NULL), (105, 1, '2999-01-01', '2999-01-01', '2038-01-19')",
        json!([{"table": "t", "key": "n"}]),
    );
    for cursor in ["at", "day", "moment"] {
        let streams = json!([{"table": "t", "key": "n", "cursor": cursor}]);
        stage.is_read_whole(streams, "t");
        let at = stage.stored("SELECT stream, cursor ->> 'at' FROM sync_state");
        assert!(at["t"].starts_with("20"), "{cursor}: {at:?}");
        stage.shop.run(&format!(
            "UPDATE t SET v = v + 1, {cursor} = utc_timestamp() WHERE n = 7;\nUPDATE t SET v = v + 1 WHERE n > 100"
        ));
        let run = stage.sync();
        assert_eq!(run["updated"], 6, "{cursor}: {run}");
        assert!(run["received"].as_i64() <= Some(8), "{cursor}: {run}");
        stage.shop.run(&format!(
            "UPDATE t SET {cursor} = utc_timestamp() - INTERVAL 3 DAY WHERE n = 7"
        ));
    }
}
