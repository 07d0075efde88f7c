//! Random tables in PostgreSQL.

use std::collections::BTreeMap;

use chrono::Utc;
use connector_service_test::Cluster;
use postgres::Client;
use serde_json::{Value, json};

use crate::engine::{Driver, Kept};
use crate::story::{CursorType, Grows, Server, Type, WORDS_FOR_NONE, tell};
use crate::{given, seed, server};

const SETUP: &str = "
CREATE EXTENSION citext;
CREATE COLLATION nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE COLLATION de (provider = icu, locale = 'de-u-co-phonebk');
CREATE TYPE mood AS ENUM ('so-so', 'fine', 'bad', 'Fine');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN code AS varchar(8) CHECK (value <> 'never');
CREATE DOMAIN nd_code AS text COLLATE nd";

const fn t(declared: &'static str, values: &'static [&'static str]) -> Type {
    Type {
        declared,
        values,
        primary: true,
    }
}

/// A type that no index takes, or a unique one only in part.
const fn odd(declared: &'static str, values: &'static [&'static str]) -> Type {
    Type {
        declared,
        values,
        primary: false,
    }
}

const WORDS: &[&str] = &[
    "'a'", "'A'", "'a '", "'á'", "'b'", "'B'", "''", "'Z'", "'ss'", "'ß'", "'10'", "'9'", "'\"'",
    "E'\\\\'", "'a-b'", "'ab'", "' '", "'ä'", "'😀'",
];

const TYPES: &[Type] = &[
    t("smallint", &["-32768", "0", "1", "32767", "7"]),
    t("int", &["-2147483648", "0", "1", "2147483647", "7", "10"]),
    t(
        "bigint",
        &[
            "-9223372036854775808",
            "0",
            "9223372036854775807",
            "1",
            "10",
        ],
    ),
    t(
        "numeric",
        &[
            "1",
            "1.0",
            "1.00",
            "-0.5",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "1e30",
            "0",
            "0.0",
            "1e-20",
        ],
    ),
    t(
        "numeric(20, 6)",
        &["1", "1.000001", "-0.5", "'NaN'", "0", "2"],
    ),
    t(
        "real",
        &[
            "0.1",
            "0",
            "'-0'",
            "'NaN'",
            "'Infinity'",
            "1e-30",
            "0.3",
            "16777217",
        ],
    ),
    t(
        "double precision",
        &[
            "0.1",
            "0",
            "'-0'",
            "'NaN'",
            "'-Infinity'",
            "1e-300",
            "0.30000000000000004",
        ],
    ),
    t("text", WORDS),
    t("text COLLATE \"en-x-icu\"", WORDS),
    t("text COLLATE de", WORDS),
    t("text COLLATE nd", WORDS),
    t("nd_code", WORDS),
    t("varchar(20)", WORDS),
    t("varchar(20) COLLATE \"en-x-icu\"", WORDS),
    t("citext", WORDS),
    t("code", &["'a'", "'A'", "'a '", "'b'"]),
    t("char(4)", &["'a'", "'A'", "'a '", "'b'", "''", "'ab'"]),
    t("char(4) COLLATE nd", &["'a'", "'A'", "'b'", "''", "'ab'"]),
    odd("bpchar", &["'a'", "'A'", "'a '", "'b'", "''", "' '"]),
    t("\"char\"", &["'a'", "'A'", "''", "'b'"]),
    t("name", &["'a'", "'A'", "'b'", "'z'"]),
    t("boolean", &["true", "false"]),
    t(
        "uuid",
        &[
            "'00000000-0000-4000-8000-000000000001'",
            "'ffffffff-0000-4000-8000-000000000001'",
            "'00000000-0000-4000-8000-0000000000ff'",
        ],
    ),
    t(
        "bytea",
        &["'\\x00'", "'\\x'", "'\\xff'", "'\\x0001'", "'\\x61'"],
    ),
    t(
        "date",
        &[
            "'2026-01-01'",
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 BC'",
            "'9999-12-31'",
        ],
    ),
    t(
        "timestamp",
        &[
            "'2026-01-01'",
            "'infinity'",
            "'-infinity'",
            "'2026-01-01 00:00:00.000001'",
            "'294276-12-31'",
        ],
    ),
    t(
        "timestamptz",
        &[
            "'2026-01-01'",
            "'infinity'",
            "'2026-01-01 00:00:00.1'",
            "'0001-01-01 BC'",
        ],
    ),
    t("time", &["'00:00'", "'24:00'", "'12:30:00.5'"]),
    t(
        "timetz",
        &["'00:00+01'", "'23:00+00'", "'12:30:00.5-02'", "'01:00+02'"],
    ),
    t(
        "interval",
        &[
            "'1 day'",
            "'24:00:00'",
            "'1 mon'",
            "'30 days'",
            "'-1 s'",
            "'1 year 2 mons'",
        ],
    ),
    t("bit(4)", &["B'0000'", "B'0101'", "B'1111'"]),
    t("bit varying", &["B''", "B'0'", "B'00'", "B'1'", "B'01'"]),
    t("money", &["1.5", "-2", "0", "1000", "20"]),
    t(
        "inet",
        &["'10.0.0.1'", "'10.0.0.1/8'", "'::1'", "'9.9.9.9'"],
    ),
    t("cidr", &["'10.0.0.0/8'", "'10.0.0.0/16'", "'9.9.9.9'"]),
    t("macaddr", &["'08:00:2b:01:02:03'", "'08:00:2b:01:02:04'"]),
    t(
        "macaddr8",
        &["'08:00:2b:01:02:03:04:05'", "'08:00:2b:01:02:03:04:06'"],
    ),
    t("pg_lsn", &["'0/0'", "'16/B374D848'", "'9/0'"]),
    t("oid", &["0", "1", "4294967295"]),
    odd("xid", &["'0'", "'7'", "'4294967295'"]),
    t("xid8", &["'0'", "'7'", "'18446744073709551615'"]),
    t("mood", &["'so-so'", "'fine'", "'bad'", "'Fine'"]),
    t(
        "jsonb",
        &[
            "'1'",
            "'1.0'",
            "'\"a\"'",
            "'null'",
            "'{}'",
            "'{\"b\": 1, \"a\": [2]}'",
            "'[]'",
            "'\"1\"'",
            "'true'",
        ],
    ),
    odd(
        "json",
        &[
            "'1'", "'1.0'", "'\"a\"'", "'{ }'", "'{}'", "'[1]'", "'null'",
        ],
    ),
    t(
        "int[]",
        &[
            "'{}'",
            "'{1,2}'",
            "'{1}'",
            "'{NULL}'",
            "'{{1},{2}}'",
            "'[5:6]={1,2}'",
        ],
    ),
    t(
        "text[]",
        &["'{}'", "'{a,b}'", "'{\"a,b\"}'", "'{A}'", "'{NULL}'"],
    ),
    t("numeric[]", &["'{1.0}'", "'{1}'", "'{2}'"]),
    t("int4range", &["'empty'", "'[1,5)'", "'[1,)'", "'(,5)'"]),
    t("numrange", &["'[1,5)'", "'[1.0,5)'", "'empty'", "'(1,5]'"]),
    t("int4multirange", &["'{}'", "'{[1,5)}'", "'{[1,5),[7,9)}'"]),
    t("pair", &["'(1,a)'", "'(1,)'", "'(,)'", "'(2,\"a,b\")'"]),
    t("pair[]", &["'{}'", "'{\"(1,a)\"}'"]),
    odd("point", &["'(0,0)'", "'(1,-0.1)'", "'(1,0.1)'"]),
    odd("box", &["'(0,0),(1,1)'", "'(0,0),(2,0.5)'"]),
    t("tsvector", &["'a b'", "'a:1'", "''"]),
    odd("jsonpath", &["'$.a'", "'$.b'", "'$'"]),
];

const STAMPS: &[&str] = &[
    "'infinity'",
    "'-infinity'",
    "'9999-12-31'",
    "'0001-01-01'",
    "'0044-03-15 BC'",
    "'2999-01-01'",
];

const fn c(declared: &'static str, grows: Grows, sentinels: &'static [&'static str]) -> CursorType {
    CursorType {
        declared,
        grows,
        sentinels,
    }
}

const CURSORS: &[CursorType] = &[
    c("timestamptz", Grows::Moment, STAMPS),
    c("timestamptz(0)", Grows::Moment, STAMPS),
    c("timestamp", Grows::Local, STAMPS),
    c("date", Grows::Day, STAMPS),
    c("int", Grows::Whole, &[]),
    c("bigint", Grows::Whole, &[]),
    c(
        "numeric",
        Grows::Decimal,
        &["'NaN'", "'Infinity'", "'-Infinity'"],
    ),
    c("numeric(20, 6)", Grows::Decimal, &["'NaN'"]),
    c(
        "double precision",
        Grows::Decimal,
        &["'NaN'", "'Infinity'", "'-Infinity'"],
    ),
    c("real", Grows::Whole, &["'NaN'", "'Infinity'"]),
    c("text", Grows::Version, &[]),
    c("text COLLATE nd", Grows::Version, &[]),
    c("citext", Grows::Version, &[]),
    c("varchar(30)", Grows::Stamp, WORDS_FOR_NONE),
    c("text COLLATE \"en-x-icu\"", Grows::Stamp, WORDS_FOR_NONE),
    c("citext", Grows::Stamp, WORDS_FOR_NONE),
];

struct Postgres {
    cluster: Cluster,
    client: Client,
}

impl Server for Postgres {
    fn source(&self) -> &'static str {
        "postgres"
    }

    fn types(&self) -> &'static [Type] {
        TYPES
    }

    fn cursors(&self) -> &'static [CursorType] {
        CURSORS
    }

    fn names(&self) -> &'static [&'static str] {
        &[
            "s",
            "q",
            "a",
            "S",
            "id",
            "row_to_json",
            "t",
            "select",
            "we\"ird",
            "c0",
            "row",
            "name",
            "text",
            "o",
            "l",
            "to_json",
            "with blank",
            "$1",
            "*",
        ]
    }

    fn quoted(&self, name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    fn run(&mut self, sql: &str) {
        self.client
            .batch_execute(sql)
            .unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    }

    fn try_run(&mut self, sql: &str) -> bool {
        match self.client.batch_execute(sql) {
            Ok(()) => true,
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned());
                // A key that is there, or an index that the type has not.
                let usual = ["23505", "42704", "54000"];
                assert!(
                    code.as_deref().is_some_and(|code| usual.contains(&code)),
                    "{error:?}: {sql}"
                );
                false
            }
        }
    }

    fn rows(&mut self, table: &str) -> BTreeMap<i64, i64> {
        let sql = format!("SELECT n::bigint, v::bigint FROM {table}");
        let rows = self.client.query(&sql, &[]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    fn config(&self, stream: &Value, batch: usize) -> Value {
        json!({"host": "127.0.0.1", "port": self.cluster.port, "database": "shop", "tls": "off", "batch": batch, "streams": [stream]})
    }

    fn wide_row(&self) -> &'static str {
        "\"it is\" pair DEFAULT '(1,x)', at timestamptz DEFAULT now()"
    }
}

fn postgres() -> Postgres {
    let cluster = server();
    cluster
        .client("postgres")
        .batch_execute("CREATE DATABASE shop")
        .unwrap();
    let mut client = cluster.client("shop");
    client.batch_execute("SET TimeZone = 'UTC'").unwrap();
    client.batch_execute(SETUP).unwrap();
    Postgres { cluster, client }
}

#[test]
fn random_tables_of_postgresql_are_read_whole_at_every_batch_size() {
    let tables = given("KEYSET_TABLES", 100);
    let compared = tell(&mut postgres(), seed(), tables);
    println!("postgresql: {tables} tables, {compared} rows compared, 0 differences");
    assert!(
        compared as u64 > tables * 10,
        "{compared} rows show nothing"
    );
}

/// Of a foreign table, and of a partition that is one, nobody checks what is declared.
#[test]
fn nulls_in_a_column_of_a_foreign_table_that_is_declared_not_null_are_read() {
    let mut server = postgres();
    let port = server.cluster.port;
    server.run(&format!(
        "CREATE TABLE far (a int, b int, n int);
         INSERT INTO far SELECT nullif(i % 3, 0), i, i / 10 FROM generate_series(1, 30) AS i;
         CREATE EXTENSION postgres_fdw;
         CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname 'shop');
         CREATE USER MAPPING FOR postgres SERVER far OPTIONS (user 'postgres');
         CREATE FOREIGN TABLE near (a int NOT NULL, b int NOT NULL, n int) SERVER far OPTIONS (table_name 'far');
         CREATE TABLE parts (a int NOT NULL, b int NOT NULL, n int) PARTITION BY LIST (n);
         CREATE FOREIGN TABLE part PARTITION OF parts DEFAULT SERVER far OPTIONS (table_name 'far');"
    ));
    let mut driver = Driver::new();
    for table in ["near", "parts"] {
        let stream = json!({"table": table, "key": ["a", "b"], "cursor": "n"});
        let config = server.config(&stream, 2);
        let mut kept = Kept::default();
        driver
            .sync("postgres", &config, &mut kept, Utc::now())
            .unwrap();
        assert_eq!(kept.records.len(), 30, "{stream}");
    }
}

#[test]
fn a_text_cursor_is_moved_by_times_of_the_pass_alone() {
    let mut server = postgres();
    server.run(
        "CREATE TABLE t (id int PRIMARY KEY, at text, n int, v int);
         INSERT INTO t VALUES (1, '2026-06-15 09:00:00', 1, 1), (2, '2026-06-15 10:00:00', 2, 1), (3, '9999-12-31 00:00:00', 3, 1),
                              (4, 'unknown', 4, 1), (5, '', 5, 1), (6, NULL, 6, 1)",
    );
    let mut driver = Driver::new();
    for batch in [1, 2, 50] {
        let stream = json!({"table": "t", "key": "id", "cursor": "at"});
        let config = server.config(&stream, batch);
        let mut kept = Kept::default();
        let mut now: chrono::DateTime<Utc> = "2026-06-15T12:00:00Z".parse().unwrap();
        for at in ["2026-06-15 10:00:00", "2026-06-15 11:30:00"] {
            server.run(&format!(
                "UPDATE t SET v = v + 1 WHERE id > 2; UPDATE t SET v = v + 1, at = '{at}' WHERE id = 2"
            ));
            driver.sync("postgres", &config, &mut kept, now).unwrap();
            assert_eq!(kept.states["t"].at, Some(json!(at)), "{batch}");
            let there = server.rows("t");
            for (id, v) in there {
                let text = &kept.records[&format!("t/{id}")];
                assert!(text.contains(&format!("\"v\":{v}")), "{batch} {text}");
            }
            now += chrono::TimeDelta::hours(1);
        }
    }
}
