//! An index on cursor and key, or the key's own, answers each batch: nothing is sorted.

use chrono::Utc;
use serde_json::{Value, json};

use crate::engine::{Driver, Kept};
use crate::{maria, server};

/// The batches of a stream, by its own columns.
fn streams(text_key: &str) -> Vec<Value> {
    vec![
        json!({"table": "orders", "key": "id"}),
        json!({"table": "orders", "key": "uid"}),
        json!({"table": "orders", "key": text_key}),
        json!({"table": "orders", "key": ["shop", "number"]}),
        json!({"table": "orders", "key": "id", "cursor": "changed_at"}),
        json!({"table": "orders", "key": "id", "cursor": "local_at"}),
        json!({"table": "orders", "key": "id", "cursor": "id"}),
        json!({"table": "orders", "key": ["shop", "number"], "cursor": "id"}),
    ]
}

#[test]
fn an_index_of_postgresql_answers_a_batch() {
    let cluster = server();
    cluster.configure(
        "session_preload_libraries = 'auto_explain'\nauto_explain.log_min_duration = 0\njit = off",
    );
    cluster
        .client("postgres")
        .batch_execute("SELECT pg_reload_conf()")
        .unwrap();
    let mut client = cluster.client("postgres");
    client
        .batch_execute(
            "CREATE TABLE orders (id bigint PRIMARY KEY, uid uuid UNIQUE NOT NULL, code text COLLATE \"en-x-icu\" UNIQUE NOT NULL,
                                  shop int NOT NULL, number int NOT NULL, changed_at timestamptz, local_at timestamp, UNIQUE (shop, number));
             INSERT INTO orders SELECT i, md5(i::text)::uuid, 'o' || i, i % 7, i, now() - i * interval '1 min', now() - i * interval '1 min'
             FROM generate_series(1, 10000) AS i;
             CREATE INDEX ON orders (changed_at, id); CREATE INDEX ON orders (local_at, id); CREATE INDEX ON orders (id, shop, number);
             CREATE VIEW v AS SELECT * FROM orders; ",
        )
        .unwrap();
    client.batch_execute("VACUUM ANALYZE orders").unwrap();
    let mut driver = Driver::new();
    let mut streams = streams("code");
    // Where nobody says that a key is never NULL.
    streams.push(json!({"table": "v", "key": "id", "cursor": "changed_at"}));
    streams.push(json!({"query": "SELECT * FROM orders", "name": "q", "key": "code"}));
    for stream in streams {
        let before = cluster.log().len();
        let config = json!({"host": "127.0.0.1", "port": cluster.port, "database": "postgres", "tls": "off", "batch": 100,
            "start_date": "2020-01-01", "streams": [stream]});
        let mut kept = Kept::default();
        driver
            .sync("postgres", &config, &mut kept, Utc::now())
            .unwrap();
        assert_eq!(kept.records.len(), 10_000, "{stream}");
        let log = cluster.log();
        let plans = log[before..].split("Query Text: ").skip(1);
        let plans = plans.filter(|plan| plan.starts_with("SELECT row_to_json"));
        let plans: Vec<&str> = plans.collect();
        assert!(plans.len() >= 20, "{stream}: {} batches", plans.len());
        // The last few rows are sorted as quickly as looked up.
        for plan in &plans[..plans.len() - 10] {
            let plan = plan.split("\n2").next().unwrap_or(plan);
            let (sql, plan) = plan.split_once(" LIMIT 101").unwrap();
            // Those without a time, of which there are none.
            if sql.contains("_at\" IS NULL OR") {
                continue;
            }
            // Rows of one moment may be.
            assert!(!plan.contains("->  Sort"), "{sql}\n{plan}");
            let is_first = !sql.contains("WHERE") || sql.contains("IS NOT NULL");
            assert!(is_first || plan.contains("Index Cond"), "{sql}\n{plan}");
            assert!(plan.contains("Index"), "{sql}\n{plan}");
        }
    }
}

#[test]
fn an_index_of_mariadb_answers_a_batch() {
    let (_folder, server) = maria();
    let mut client = server.client("shop");
    client.run(
        "CREATE TABLE orders (id bigint PRIMARY KEY, uid binary(16) UNIQUE NOT NULL, code varchar(140) COLLATE utf8mb4_unicode_ci UNIQUE NOT NULL,
                             shop int NOT NULL, number int NOT NULL, changed_at timestamp NULL, local_at datetime(6),
                             UNIQUE (shop, number), KEY (changed_at, id), KEY (local_at, id), KEY (id, shop, number));
INSERT INTO orders SELECT seq, unhex(md5(seq)), concat('o', seq), seq % 7, seq, timestampadd(MINUTE, -seq, now()), timestampadd(MINUTE, -seq, now()) FROM seq_1_to_10000;
CREATE TABLE kinds (kind enum('z', 'a') NOT NULL, id int NOT NULL, PRIMARY KEY (kind, id));
INSERT INTO kinds SELECT seq % 2 + 1, seq FROM seq_1_to_10000;
ANALYZE TABLE orders;
ANALYZE TABLE kinds;
SET GLOBAL log_output = 'TABLE';
SET GLOBAL general_log = ON",
    );
    let mut driver = Driver::new();
    let mut streams = streams("code");
    streams.push(json!({"table": "kinds", "key": ["kind", "id"]}));
    // A query of one table, as ERPNext's are.
    streams.push(
        json!({"query": "SELECT t.*, 1 AS one FROM orders AS t", "name": "q", "key": "code"}),
    );
    for stream in streams {
        client.run("TRUNCATE mysql.general_log");
        let config = json!({"host": "127.0.0.1", "port": server.port, "database": "shop", "tls": "off", "batch": 100,
            "start_date": "2020-01-01", "streams": [stream]});
        let mut kept = Kept::default();
        driver
            .sync("mysql", &config, &mut kept, Utc::now())
            .unwrap();
        assert_eq!(kept.records.len(), 10_000, "{stream}");
        let sql = "SELECT argument FROM mysql.general_log WHERE command_type = 'Execute' AND argument LIKE 'SELECT s.*%'";
        let asked = client.rows(sql);
        assert!(asked.len() >= 20, "{stream}: {} batches", asked.len());
        for row in asked {
            let sql = &row[0];
            // Those without a time; and the first batch, for which the server may rather read the table once.
            if sql.contains("IS NULL OR") || !sql.contains(" > ") {
                continue;
            }
            let plan = client.rows(&format!("EXPLAIN {sql}"));
            let plan = format!("{plan:?}");
            assert!(!plan.contains("filesort"), "{sql}\n{plan}");
        }
    }
}
