//! Random tables in MariaDB.

use std::collections::BTreeMap;

use connector_service_test::{Cluster, MariaDb, MariaDbClient};
use serde_json::{Value, json};

use crate::story::{CursorType, Grows, Server, Type, WORDS_FOR_NONE, tell};
use crate::{given, maria, seed};

const fn t(declared: &'static str, values: &'static [&'static str]) -> Type {
    Type {
        declared,
        values,
        primary: true,
    }
}

/// A type that an index takes only in part.
const fn odd(declared: &'static str, values: &'static [&'static str]) -> Type {
    Type {
        declared,
        values,
        primary: false,
    }
}

const WORDS: &[&str] = &[
    "'a'", "'A'", "'a '", "'á'", "'b'", "'B'", "''", "'Z'", "'ss'", "'ß'", "'10'", "'9'", "'\"'",
    "'\\\\'", "'a-b'", "'ab'", "' '", "'ä'", "'a\\tb'",
];

/// More than a server sorts by, with a difference behind.
const LONG: &[&str] = &[
    "concat(repeat('x', 1500), 'a')",
    "concat(repeat('x', 1500), 'b')",
    "concat(repeat('x', 1500), 'B')",
    "'x'",
    "''",
    "'X'",
];

const TYPES: &[Type] = &[
    t("tinyint", &["-128", "0", "127", "5"]),
    t("tinyint(1)", &["0", "1"]),
    t("smallint unsigned", &["0", "1", "65535"]),
    t("int", &["-2147483648", "0", "2147483647", "9", "10"]),
    t("int(6) zerofill", &["0", "7", "10", "123456"]),
    t(
        "bigint",
        &["-9223372036854775808", "0", "9223372036854775807", "7"],
    ),
    t(
        "bigint unsigned",
        &[
            "0",
            "9007199254740993",
            "9007199254740992",
            "18446744073709551615",
            "9223372036854775808",
        ],
    ),
    t("decimal(10, 2)", &["-1.5", "0", "1.25", "99999999.99"]),
    t(
        "decimal(40, 12)",
        &[
            "1234567890123456789012345678.000000000001",
            "1234567890123456789012345678.000000000002",
            "0",
            "-0.5",
            "7",
        ],
    ),
    t(
        "decimal(65, 0)",
        &[
            "99999999999999999999999999999999999999999999999999999999999999999",
            "99999999999999999999999999999999999999999999999999999999999999998",
            "-1",
            "0",
        ],
    ),
    t(
        "float",
        &["0.1", "0.3", "0", "-1.5", "16777216", "1e-30", "0.2"],
    ),
    t("float(7, 3)", &["0.1", "0.3", "0", "-1.5", "0.2"]),
    t(
        "double",
        &["0.1", "0.30000000000000004", "0.3", "0", "1e300"],
    ),
    t("bit(1)", &["b'0'", "b'1'"]),
    t("bit(10)", &["b'0'", "b'1'", "b'1000000001'", "b'1100001'"]),
    t(
        "bit(64)",
        &[
            "b'0'",
            "b'1'",
            "18446744073709551615",
            "9223372036854775808",
            "9223372036854775807",
        ],
    ),
    t("year", &["0", "1901", "2026", "2155"]),
    t(
        "date",
        &[
            "'2026-01-01'",
            "'0000-00-00'",
            "'0001-01-01'",
            "'9999-12-31'",
            "'2026-00-00'",
            "'2026-01-00'",
        ],
    ),
    t(
        "datetime(6)",
        &[
            "'2026-01-01'",
            "'0000-00-00'",
            "'2026-01-01 00:00:00.000001'",
            "'9999-12-31 23:59:59.999999'",
        ],
    ),
    t(
        "datetime",
        &["'2026-01-01'", "'0000-00-00'", "'2026-01-01 00:00:01'"],
    ),
    t(
        "timestamp(3)",
        &[
            "'2026-01-01'",
            "'2026-01-01 00:00:00.001'",
            "'2038-01-19'",
            "'0000-00-00'",
        ],
    ),
    t(
        "time(3)",
        &[
            "'-838:59:58.999'",
            "'00:00:00'",
            "'838:59:58'",
            "'12:30:00.5'",
            "'-00:00:01'",
        ],
    ),
    t(
        "time",
        &["'-10:00:00'", "'00:00:00'", "'100:00:00'", "'9:00:00'"],
    ),
    t("varchar(20)", WORDS),
    t("varchar(20) COLLATE utf8mb4_bin", WORDS),
    t("varchar(20) COLLATE utf8mb4_nopad_bin", WORDS),
    t("varchar(20) COLLATE utf8mb4_unicode_ci", WORDS),
    t("varchar(20) COLLATE utf8mb4_unicode_520_nopad_ci", WORDS),
    t("varchar(20) COLLATE utf8mb4_german2_ci", WORDS),
    t("varchar(20) CHARACTER SET latin1", WORDS),
    t(
        "varchar(20) CHARACTER SET latin1 COLLATE latin1_general_cs",
        WORDS,
    ),
    t("char(5)", WORDS),
    t("char(5) COLLATE utf8mb4_bin", WORDS),
    odd("varchar(400)", WORDS),
    odd("varchar(2000)", LONG),
    odd("text", LONG),
    odd("longtext COLLATE utf8mb4_bin", LONG),
    odd("tinytext", WORDS),
    t(
        "binary(16)",
        &[
            "x'00000000000040008000000000000001'",
            "x'ff000000000040008000000000000001'",
            "x'00'",
            "'abc'",
            "x'000001'",
        ],
    ),
    t(
        "varbinary(10)",
        &[
            "x''", "x'00'", "x'0000'", "x'ff'", "'abc'", "'ABC'", "'abc '",
        ],
    ),
    odd(
        "blob",
        &[
            "x''",
            "x'00'",
            "x'ff'",
            "'abc'",
            "concat(repeat(x'00', 1500), 'a')",
            "concat(repeat(x'00', 1500), 'b')",
        ],
    ),
    odd("tinyblob", &["x''", "x'00'", "x'ff'", "'abc'"]),
    t(
        "enum('order', 'invoice', 'credit', 'Z', 'a')",
        &["'order'", "'invoice'", "'credit'", "'Z'", "'a'"],
    ),
    t("enum('10', '9', '1')", &["'10'", "'9'", "'1'"]),
    t(
        "set('b', 'a', 'c')",
        &["''", "'a'", "'a,b'", "'c'", "'b,c'"],
    ),
    odd(
        "json",
        &[
            "'1'", "'1.0'", "'{}'", "'{ }'", "'[1, 2]'", "'\"a\"'", "'\"A\"'", "'null'",
        ],
    ),
    t(
        "uuid",
        &[
            "'00000000-0000-1000-8000-000000000001'",
            "'ffffffff-0000-1000-8000-000000000001'",
            "'00000000-ffff-1000-8000-000000000001'",
            "'00000000-0000-1fff-8000-000000000001'",
        ],
    ),
    t(
        "inet6",
        &["'::1'", "'10.0.0.1'", "'2001:db8::1'", "'fe80::9'"],
    ),
    t("inet4", &["'10.0.0.1'", "'9.0.0.1'", "'255.0.0.1'"]),
];

const STAMPS: &[&str] = &[
    "'9999-12-31'",
    "'0001-01-01'",
    "'0000-00-00'",
    "'2999-01-01'",
    "'0000-05-00'",
];

const fn c(declared: &'static str, grows: Grows, sentinels: &'static [&'static str]) -> CursorType {
    CursorType {
        declared,
        grows,
        sentinels,
    }
}

const CURSORS: &[CursorType] = &[
    c("datetime", Grows::Local, STAMPS),
    c("datetime(6)", Grows::Local, STAMPS),
    c(
        "timestamp(6)",
        Grows::Moment,
        &["'0000-00-00'", "'2038-01-19'"],
    ),
    c("date", Grows::Day, STAMPS),
    c("int unsigned", Grows::Whole, &[]),
    c("bigint", Grows::Whole, &[]),
    c("decimal(20, 6)", Grows::Decimal, &[]),
    c("double", Grows::Decimal, &[]),
    c("float", Grows::Whole, &[]),
    c("varchar(30)", Grows::Version, &[]),
    c("varchar(30)", Grows::Stamp, WORDS_FOR_NONE),
    c("text", Grows::Stamp, WORDS_FOR_NONE),
    c("binary(13)", Grows::Version, &[]),
    c("bit(40)", Grows::Whole, &[]),
];

struct MySql {
    _folder: Cluster,
    server: MariaDb,
    client: MariaDbClient,
}

impl Server for MySql {
    fn source(&self) -> &'static str {
        "mysql"
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
            "id",
            "t2",
            "select",
            "we`ird",
            "c0",
            "row",
            "name",
            "sha2",
            "with blank",
            "hex",
            "?",
            "*",
        ]
    }

    fn quoted(&self, name: &str) -> String {
        format!("`{}`", name.replace('`', "``"))
    }

    fn run(&mut self, sql: &str) {
        self.client.run(sql);
    }

    fn try_run(&mut self, sql: &str) -> bool {
        match self.client.try_run(sql) {
            Ok(()) => true,
            Err(error) => {
                // A key that is there, and a type that is indexed only in part.
                let usual = ["1062", "1170"];
                assert!(
                    usual.iter().any(|code| error.contains(code)),
                    "{error}: {sql}"
                );
                false
            }
        }
    }

    fn rows(&mut self, table: &str) -> BTreeMap<i64, i64> {
        let rows = self.client.rows(&format!("SELECT n, v FROM {table}"));
        let number = |text: &String| text.trim_matches('\'').parse().unwrap();
        rows.iter()
            .map(|row| (number(&row[0]), number(&row[1])))
            .collect()
    }

    fn config(&self, stream: &Value, batch: usize) -> Value {
        json!({"host": "127.0.0.1", "port": self.server.port, "database": "shop", "tls": "off", "batch": batch, "streams": [stream]})
    }

    fn wide_row(&self) -> &'static str {
        "`it is` varchar(10) DEFAULT 'x'"
    }
}

#[test]
fn random_tables_of_mariadb_are_read_whole_at_every_batch_size() {
    let (folder, server) = maria();
    let mut client = server.client("shop");
    client.run("SET SESSION time_zone = '+00:00'");
    let mut server = MySql {
        _folder: folder,
        server,
        client,
    };
    let tables = given("KEYSET_TABLES", 100);
    let compared = tell(&mut server, seed(), tables);
    println!("mariadb: {tables} tables, {compared} rows compared, 0 differences");
    assert!(
        compared as u64 > tables * 10,
        "{compared} rows show nothing"
    );
}
