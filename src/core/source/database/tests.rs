#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod fuzz;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::*;
use crate::error::Code;
use crate::json::RecordLimits;
use crate::source::{Position, Response, Start, find};

fn definition(config: Value) -> Definition {
    let mut all = json!({"host": "db.example.com", "database": "shop"});
    all.as_object_mut()
        .unwrap()
        .extend(config.as_object().unwrap().clone());
    Definition {
        config: all,
        credentials: json!({"username": "reader", "password": "not_a_real_secret"}).into(),
        limits: RecordLimits {
            bytes: 1 << 20,
            depth: 50,
            key: 500,
        },
    }
}

fn open(config: Value) -> Result<Box<dyn Reader>, Failure> {
    find("postgres").unwrap().open(&definition(config))
}

fn start() -> Start {
    let now = "2026-03-01T00:00:00Z".parse().unwrap();
    Start {
        now,
        default_from: now - TimeDelta::days(30),
        read_until: None,
        missed_since: None,
        span: None,
    }
}

/// The statement and its values of one place in a pass.
fn query(reader: &dyn Reader, next: Option<&Value>, high: Option<&Value>) -> (String, Vec<String>) {
    let stream = &reader.streams()[0];
    let at = Position {
        stream,
        window: reader.window(stream, high, start()).unwrap(),
        start: start(),
        next,
        high,
        access: None,
    };
    let query = reader.query(&at).unwrap().unwrap();
    assert!(!format!("{query:?}").contains("not_a_real_secret"));
    let values = query.values.into_iter().map(|value| match value {
        Bound::Text(text) | Bound::Number(text) | Bound::Real(text) => text,
    });
    (query.text, values.collect())
}

/// A token of a pass over a stream with these columns.
fn token(
    kind: Option<&str>,
    cursor: &str,
    keys: &[(&str, bool)],
    last: &[Option<&str>],
    rest: bool,
) -> Value {
    let keys = keys
        .iter()
        .map(|(rank, nullable)| json!({"ranks": [rank], "nullable": nullable}));
    json!({
        "cursor": kind.map(|kind| json!({"kind": kind, "rank": cursor, "has_limits": false})),
        "keys": keys.collect::<Vec<_>>(), "rows": 10, "rest": rest,
        "last": (!last.is_empty()).then_some(last),
    })
}

const WHOLE: &[(&str, bool)] = &[("Whole", false), ("Whole", false)];

#[test]
fn batches_continue_after_the_last_row_and_begin_by_the_type_of_the_cursor() {
    let streams = json!([{"table": "public.Odd \"orders\"", "name": "orders", "key": ["shop", "id"], "cursor": "at"}]);
    let reader = open(json!({"streams": streams, "batch": 10})).unwrap();
    let from = r#"FROM "public"."Odd ""orders""" AS s"#;
    let keys = r#", s."shop"::text, s."id"::text"#;
    let order = r#"ORDER BY s."at", s."shop", s."id" LIMIT 11"#;
    assert_eq!(
        query(reader.as_ref(), None, None).0,
        format!("SELECT * {from}")
    );
    for (kind, rank, high, begins, ends) in [
        (
            "Moment",
            "Time",
            None,
            "2026-01-30T00:00:00.000000Z",
            Some("2026-03-01T00:00:00.000000Z"),
        ),
        (
            "Moment",
            "Time",
            Some("2026-02-20T10:00:00.5+02:00"),
            "2026-02-20T07:50:00.500000Z",
            Some("2026-03-01T00:00:00.000000Z"),
        ),
        // A column without a zone may be of any, and its clocks are put back.
        (
            "Naive",
            "Time",
            None,
            "2026-01-29T12:00:00.000000",
            Some("2026-03-01T14:00:00.000000"),
        ),
        (
            "Naive",
            "Time",
            Some("2026-02-20T10:00:00"),
            "2026-02-20T07:00:00.000000",
            Some("2026-03-01T14:00:00.000000"),
        ),
        (
            "Date",
            "Time",
            Some("2026-02-20"),
            "2026-02-19",
            Some("2026-03-01"),
        ),
        // Numbers are given out before they commit.
        ("Number", "Whole", Some("4711"), "3711", None),
        ("Number", "Own", Some("4711.25"), "3711.25", None),
        (
            "Text",
            "Own",
            Some("2026-02-20 10:00:00"),
            "2026-02-20 07:00:00",
            Some("2026-03-02"),
        ),
        ("Text", "Own", Some("v12"), "v12", None),
        (
            "Other",
            "Own",
            Some("00000000-0000-4000-8000-000000000001"),
            "00000000-0000-4000-8000-000000000001",
            None,
        ),
    ] {
        let next = token(Some(kind), rank, WHOLE, &[], false);
        let high = high.map(|high| json!(high));
        let (text, values) = query(reader.as_ref(), Some(&next), high.as_ref());
        let given = if rank == "Whole" { "$1::bigint" } else { "$1" };
        let cap = if ends.is_some() {
            r#" AND s."at" <= $2"#
        } else {
            ""
        };
        let told = if rank == "Time" {
            r#"to_json(s."at") #>> '{}'"#
        } else {
            r#"s."at"::text"#
        };
        let expected = format!(
            r#"SELECT row_to_json(s.*)::text, {told}{keys} {from} WHERE s."at" >= {given}{cap} {order}"#
        );
        assert_eq!(text, expected, "{kind}");
        let expected: Vec<&str> = [begins].into_iter().chain(ends).collect();
        assert_eq!(values, expected, "{kind}");
    }
    // A first pass over numbers is over all of them.
    let next = token(Some("Number"), "Whole", WHOLE, &[], false);
    let (text, _) = query(reader.as_ref(), Some(&next), None);
    assert!(text.contains(r#"WHERE s."at" IS NOT NULL ORDER"#), "{text}");
    let cap = "2026-03-01T00:00:00.000000Z";
    let last = [Some("2026-02-20T10:00:00+00:00"), Some("1"), Some("7")];
    let next = token(Some("Moment"), "Time", WHOLE, &last, false);
    let (text, values) = query(reader.as_ref(), Some(&next), None);
    assert!(
        text.ends_with(&format!(
            r#"WHERE s."at" <= $1 AND (s."at", s."shop", s."id") > ($2, $3::bigint, $4::bigint) {order}"#
        )),
        "{text}"
    );
    assert_eq!(values, [cap, "2026-02-20T10:00:00+00:00", "1", "7"]);
    // No time later than the pass is a place to begin at.
    for (high, values) in [
        ("9999-12-31 00:00:00", &["2026-03-02"][..]),
        ("unknown", &[]),
    ] {
        let next = token(Some("Text"), "Own", WHOLE, &[], false);
        let (text, given) = query(reader.as_ref(), Some(&next), Some(&json!(high)));
        assert!(text.contains(r#"WHERE s."at" IS NOT NULL"#), "{text}");
        assert_eq!(given, values, "{high}");
    }
    let (at, last) = (json!("2026-02-20"), [Some("1"), Some("7")]);
    let next = token(Some("Text"), "Own", WHOLE, &last, true);
    let (text, values) = query(reader.as_ref(), Some(&next), Some(&at));
    let rest = r#"(s."at" IS NULL OR s."at" > $1 OR s."at" < '1000-01-01')"#;
    assert!(text.contains(rest), "{text}");
    assert_eq!(values, ["2026-03-02", "1", "7"]);
    // Those without a time are read backwards, by their keys.
    let next = token(Some("Moment"), "Time", WHOLE, &[Some("1"), Some("7")], true);
    let (text, values) = query(reader.as_ref(), Some(&next), None);
    assert_eq!(
        text,
        format!(
            r#"SELECT row_to_json(s.*)::text{keys} {from} WHERE (s."at" IS NULL OR s."at" > $1 OR s."at" < '1000-01-01') AND (s."shop", s."id") < ($2::bigint, $3::bigint) ORDER BY s."shop" DESC, s."id" DESC LIMIT 11"#
        )
    );
    assert_eq!(values, [cap, "1", "7"]);
}

#[test]
fn nulls_in_a_key_have_their_place_in_the_order() {
    let streams = json!([{"table": "t", "key": ["a", "b"], "cursor": "at"}]);
    let condition = |name: &str, next: &Value| {
        let mut all = json!({"host": "db.example.com", "database": "shop", "streams": streams});
        all["batch"] = json!(10);
        let reader = find(name).unwrap().open(&definition(all)).unwrap();
        let (text, _) = query(reader.as_ref(), Some(next), None);
        let condition = text.split(" WHERE ").nth(1).unwrap().to_owned();
        condition.split(" ORDER BY ").next().unwrap().to_owned()
    };
    let keys = &[("Own", true), ("Own", true)];
    let number = |last: &[Option<&str>]| token(Some("Other"), "Own", keys, last, false);
    let rest = |last: &[Option<&str>]| token(Some("Other"), "Own", keys, last, true);
    assert_eq!(
        condition("postgres", &number(&[Some("c"), Some("x"), Some("y")])),
        r#"(s."at" >= $1 AND (s."at" > $2 OR (s."a" IS NULL OR (s."a" >= $3 AND (s."a" > $4 OR (s."b" IS NULL OR s."b" > $5))))))"#
    );
    assert_eq!(
        condition("postgres", &number(&[Some("c"), None, None])),
        r#"(s."at" >= $1 AND (s."at" > $2 OR (s."a" IS NULL AND (s."b" IS NULL AND FALSE))))"#
    );
    assert_eq!(
        condition("postgres", &rest(&[Some("x"), Some("y")])),
        r#"(s."at" IS NULL) AND (s."a", s."b") < ($1, $2)"#
    );
    assert_eq!(
        condition("postgres", &rest(&[Some("x"), None])),
        r#"(s."at" IS NULL) AND (s."a" <= $1 AND (s."a" < $2 OR (s."b" IS NOT NULL OR FALSE)))"#
    );
    assert_eq!(
        condition("mysql", &number(&[Some("c"), Some("x"), None])),
        "(s.`at` >= ? AND (s.`at` > ? OR (s.`a` >= ? AND (s.`a` > ? OR (s.`b` IS NOT NULL OR FALSE)))))"
    );
    assert_eq!(
        condition("mysql", &rest(&[None, Some("y")])),
        "(s.`at` IS NULL) AND (s.`a` IS NOT NULL OR s.`b` > ?)"
    );
}

/// The page that a description becomes.
fn described(config: Value, columns: Value) -> Result<crate::record::Page, Failure> {
    let reader = open(json!({"streams": [config]})).unwrap();
    let stream = &reader.streams()[0];
    let at = Position {
        stream,
        window: reader.window(stream, None, start()).unwrap(),
        start: start(),
        next: None,
        high: None,
        access: None,
    };
    let columns = columns.as_array().unwrap().iter();
    let columns = columns.map(|column| json!({"name": column[0], "type": column[1]}));
    let body = json!({"columns": columns.collect::<Vec<_>>()}).to_string();
    reader.page(
        &at,
        &Response {
            status: 200,
            headers: vec![],
            body: body.into(),
        },
    )
}

#[test]
fn what_a_column_cannot_do_is_said_before_anything_is_read() {
    let columns = json!([
        ["id", "int4"],
        ["at", "jsonb"],
        ["uid", "uuid"],
        ["n", "numeric"],
        ["t", "timestamp"],
        ["id2", "text"],
        ["id2", "text"]
    ]);
    for (config, says) in [
        (
            json!({"table": "t", "key": "id", "cursor": "at"}),
            "the cursor \"at\" has the type jsonb",
        ),
        (
            json!({"table": "t", "key": "id", "cursor": "uid", "lookback": 5}),
            "\"lookback\" cannot be subtracted from the cursor \"uid\"",
        ),
        (
            json!({"table": "t", "key": "id2"}),
            "two columns are named \"id2\"",
        ),
    ] {
        let failure = described(config, columns.clone()).unwrap_err();
        assert_eq!(failure.code, Code::UnexpectedShape);
        assert!(failure.message.contains(says), "{failure}");
    }
    for (config, says) in [
        (
            json!({"table": "t", "key": "id", "cursor": "n", "lookback": 5}),
            Some("two columns are named \"id2\""),
        ),
        (
            json!({"table": "t", "key": "id", "cursor": "t", "lookback": 600}),
            Some("shorter than the time by which clocks are put back"),
        ),
        (
            json!({"table": "t", "key": "id", "lookback": 600}),
            Some("no effect"),
        ),
    ] {
        let page = described(config, columns.clone()).unwrap();
        let warning = page.warning.unwrap_or_default();
        assert!(says.is_some_and(|says| warning.contains(says)), "{warning}");
    }
    let page = described(
        json!({"table": "t", "key": "id", "cursor": "t"}),
        json!([["id", "int4"], ["t", "timestamp"]]),
    );
    assert_eq!(page.unwrap().warning, None);
}

#[test]
fn fewer_columns_and_queries_are_read_through_a_select_of_their_own() {
    for (stream, from) in [
        (
            json!({"table": "t", "key": "id", "cursor": "at", "columns": ["a"]}),
            r#"(SELECT q."a", q."id", q."at" FROM "t" AS q) AS s"#,
        ),
        (
            json!({"name": "q", "query": "SELECT 1 AS id -- one ; ", "key": "id"}),
            "(\nSELECT 1 AS id -- one ;\n) AS s",
        ),
        (
            json!({"name": "q", "query": "SELECT 1 AS id; -- done", "key": "id", "columns": ["id"]}),
            "(SELECT q.\"id\" FROM (\nSELECT 1 AS id\n) AS q) AS s",
        ),
    ] {
        let reader = open(json!({"streams": [stream]})).unwrap();
        let (text, _) = query(reader.as_ref(), None, None);
        assert_eq!(text, format!("SELECT * FROM {from}"));
    }
}

#[test]
fn an_error_in_a_stream_is_refused_by_name() {
    for (config, says) in [
        (json!({}), "has no \"streams\""),
        (json!({"streams": []}), "is empty"),
        (
            json!({"streams": ["orders"]}),
            "has to be a list of objects",
        ),
        (
            json!({"streams": [{"table": "t"}]}),
            "name the columns that identify a row",
        ),
        (
            json!({"streams": [{"table": "t", "query": "SELECT 1", "key": "id"}]}),
            "needs either \"table\" or \"query\"",
        ),
        (
            json!({"streams": [{"query": "SELECT 1", "key": "id"}]}),
            "needs a \"name\"",
        ),
        (
            json!({"streams": [{"table": "t", "keys": "id"}]}),
            "\"keys\"",
        ),
        (
            json!({"streams": [{"table": "t", "key": "id"}, {"table": "t", "key": "id"}]}),
            "two streams named",
        ),
        (
            json!({"streams": [{"table": "t", "key": [1]}]}),
            "list of columns",
        ),
        (
            json!({"streams": [{"table": "t", "key": "id"}], "tls": "no"}),
            "\"tls\"",
        ),
        (
            json!({"streams": [{"table": "t", "key": "id"}], "host": "db@elsewhere"}),
            "\"host\"",
        ),
        (
            json!({"streams": [{"table": "t", "key": "id"}], "host": "db/../x"}),
            "\"host\"",
        ),
        (
            json!({"streams": [{"table": "t", "key": "id"}], "port": 0}),
            "\"port\"",
        ),
        (
            json!({"streams": [{"table": "t", "key": "id"}], "options": "-c x"}),
            "\"options\"",
        ),
    ] {
        let failure = open(config.clone()).err().unwrap();
        assert_eq!(failure.code, Code::InvalidConfig, "{config}");
        assert!(failure.message.contains(says), "{config}: {failure}");
    }
    for (without, says) in [
        ("username", "\"username\""),
        ("host", "\"host\""),
        ("database", "\"database\""),
    ] {
        let mut definition = definition(json!({"streams": [{"table": "t", "key": "id"}]}));
        definition.config.as_object_mut().unwrap().remove(without);
        if without == "username" {
            definition.credentials = Default::default();
        }
        let failure = find("postgres").unwrap().open(&definition).err().unwrap();
        assert_eq!(failure.code, Code::CredentialsMissing, "{without}");
        assert!(failure.message.contains(says), "{failure}");
    }
}

#[test]
fn a_truncated_or_miscounted_batch_is_refused() {
    let reader = open(json!({"streams": [{"table": "t", "key": "id", "cursor": "at"}]})).unwrap();
    let stream = &reader.streams()[0];
    let next = token(Some("Moment"), "Time", &[("Whole", false)], &[], false);
    let at = Position {
        stream,
        window: reader.window(stream, None, start()).unwrap(),
        start: start(),
        next: Some(&next),
        high: None,
        access: None,
    };
    let body = r#"{"rows":[{"id": 1, "at": "2026-02-20T00:00:00+00:00"}],"came":1,"more":false,"last":["2026-02-20T00:00:00+00:00","1"]}"#;
    let page = |body: &str| {
        reader.page(
            &at,
            &Response {
                status: 200,
                headers: vec![],
                body: body.to_owned().into(),
            },
        )
    };
    let read = page(body).unwrap();
    assert_eq!(read.records.len(), 1);
    assert_eq!(read.high, Some(json!("2026-02-20T00:00:00+00:00")));
    for end in 0..body.len() {
        assert!(page(&body[..end]).is_err(), "{end} bytes");
    }
    assert!(page(&body.replace("\"came\":1", "\"came\":2")).is_err());
    // A key may be NULL; a position has to be whole.
    assert!(page(&body.replace(",\"1\"]", ",null]")).is_ok());
    assert!(page(&body.replace(",\"1\"]", "]")).is_err());
    // A number within the lookback, because those beyond are gone, does not move it back.
    let next = token(Some("Number"), "Whole", &[("Whole", false)], &[], false);
    let high = json!("1000");
    let at_number = Position {
        next: Some(&next),
        high: Some(&high),
        ..at
    };
    for (last, moves_to) in [("990", "1000"), ("1001", "1001")] {
        let body = format!(
            r#"{{"rows":[{{"id": 1, "at": {last}}}],"came":1,"more":false,"last":["{last}","1"]}}"#
        );
        let got = Response {
            status: 200,
            headers: vec![],
            body: body.into(),
        };
        assert_eq!(
            reader.page(&at_number, &got).unwrap().high,
            Some(json!(moves_to))
        );
    }
    // One of the far future moves no cursor.
    assert_eq!(page(&body.replace("2026", "2126")).unwrap().high, None);
}

#[test]
fn a_message_does_not_name_every_column_of_a_server() {
    let reader = open(json!({"streams": [{"table": "t", "key": "id"}]})).unwrap();
    let at = Position {
        stream: &reader.streams()[0],
        window: reader.window(&reader.streams()[0], None, start()).unwrap(),
        start: start(),
        next: None,
        high: None,
        access: None,
    };
    let columns: Vec<Value> = (0..5_000)
        .map(|i| json!({"name": format!("{i}{}", "x".repeat(200)), "type": "text"}))
        .collect();
    let got = Response {
        status: 200,
        headers: vec![],
        body: json!({"columns": columns}).to_string().into(),
    };
    let failure = reader.page(&at, &got).unwrap_err();
    assert!(
        failure.message.len() < 2_500 && failure.message.ends_with(", more"),
        "{failure}"
    );
}
