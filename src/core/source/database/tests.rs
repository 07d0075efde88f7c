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
        Bound::Text(text) | Bound::Number(text) => text,
    });
    (query.text, values.collect())
}

#[test]
fn batches_continue_after_the_last_row_and_begin_by_the_type_of_the_cursor() {
    let streams = json!([{"table": "public.Odd \"orders\"", "name": "orders", "key": ["shop", "id"], "cursor": "at"}]);
    let reader = open(json!({"streams": streams, "batch": 10})).unwrap();
    let from = r#"FROM "public"."Odd ""orders""" AS s"#;
    let told = r#"SELECT row_to_json(s)::text, to_json(s."at") #>> '{}', to_json(s."shop") #>> '{}', to_json(s."id") #>> '{}'"#;
    let order = r#"ORDER BY s."at", s."shop", s."id" LIMIT 11"#;
    assert_eq!(
        query(reader.as_ref(), None, None).0,
        format!("SELECT * {from}")
    );
    for (kind, high, begins) in [
        ("Moment", None, "2026-01-30T00:00:00.000000Z"),
        (
            "Moment",
            Some("2026-02-20T10:00:00.5+02:00"),
            "2026-02-20T07:50:00.500000Z",
        ),
        // A column without a zone may be of any.
        ("Naive", None, "2026-01-29T12:00:00.000000"),
        (
            "Naive",
            Some("2026-02-20T10:00:00"),
            "2026-02-20T09:50:00.000000",
        ),
        ("Date", Some("2026-02-20"), "2026-02-19"),
        // Numbers are given out before they commit.
        ("Number", Some("4711"), "3711"),
        (
            "Other",
            Some("00000000-0000-4000-8000-000000000001"),
            "00000000-0000-4000-8000-000000000001",
        ),
    ] {
        let next = json!({"kind": kind, "keys": ["Number", "Number"], "rows": 10, "last": null, "nulls": false});
        let high = high.map(|high| json!(high));
        assert_eq!(
            query(reader.as_ref(), Some(&next), high.as_ref()),
            (
                format!(r#"{told} {from} WHERE s."at" >= $1 {order}"#),
                vec![begins.to_owned()]
            ),
            "{kind}"
        );
    }
    // A first pass over numbers is over all of them.
    let next = json!({"kind": "Number", "keys": ["Number", "Number"], "rows": 10, "last": null, "nulls": false});
    assert_eq!(
        query(reader.as_ref(), Some(&next), None).0,
        format!(r#"{told} {from} WHERE s."at" IS NOT NULL {order}"#)
    );
    let next = json!({"kind": "Moment", "keys": ["Number", "Number"], "rows": 10, "last": ["2026-02-20T10:00:00+00:00", "1", "7"], "nulls": false});
    assert_eq!(
        query(reader.as_ref(), Some(&next), None),
        (
            format!(r#"{told} {from} WHERE ((s."at", s."shop", s."id") > ($1, $2, $3)) {order}"#),
            ["2026-02-20T10:00:00+00:00", "1", "7"]
                .map(str::to_owned)
                .to_vec()
        )
    );
    let next = json!({"kind": "Moment", "keys": ["Number", "Number"], "rows": 10, "last": ["1", "7"], "nulls": true});
    assert_eq!(
        query(reader.as_ref(), Some(&next), None),
        (
            format!(
                r#"SELECT row_to_json(s)::text, to_json(s."shop") #>> '{{}}', to_json(s."id") #>> '{{}}' {from} WHERE s."at" IS NULL AND ((s."shop", s."id") > ($1, $2)) ORDER BY s."shop", s."id" LIMIT 11"#
            ),
            ["1", "7"].map(str::to_owned).to_vec()
        )
    );
}

#[test]
fn fewer_columns_and_queries_are_read_through_a_select_of_their_own() {
    for (stream, from) in [
        (
            json!({"table": "t", "key": "id", "cursor": "at", "columns": ["a"]}),
            r#"(SELECT "a", "id", "at" FROM "t") AS s"#,
        ),
        (
            json!({"name": "q", "query": "SELECT 1 AS id -- one ; ", "key": "id"}),
            "(\nSELECT 1 AS id -- one\n) AS s",
        ),
        (
            json!({"name": "q", "query": "SELECT 1 AS id", "key": "id", "columns": ["id"]}),
            "(SELECT \"id\" FROM (\nSELECT 1 AS id\n) AS q) AS s",
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
    let next =
        json!({"kind": "Moment", "keys": ["Number"], "rows": 10, "last": null, "nulls": false});
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
    let failure = page(&body.replace(",\"1\"]", ",null]")).unwrap_err();
    assert!(failure.message.contains("NULL"), "{failure}");
    // A number within the lookback, because those beyond are gone, does not move it back.
    let next =
        json!({"kind": "Number", "keys": ["Number"], "rows": 10, "last": null, "nulls": false});
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
    let columns: Vec<(String, &str)> = (0..5_000)
        .map(|i| (format!("{i}{}", "x".repeat(200)), "text"))
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
