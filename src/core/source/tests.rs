//! What holds for every vendor of the catalogue.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod conversation;
mod odd_pages;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::*;
use crate::json::RecordLimits;

const SECRET: &str = "not_a_real_secret";

fn definition(kind: &str, config: Value) -> Definition {
    let credentials = match kind {
        "erpnext" => json!({"api_key": SECRET, "api_secret": SECRET, "site": "acme.example.com"}),
        "quickbooks" => {
            json!({"client_id": "app", "client_secret": SECRET, "refresh_token": SECRET, "realm_id": 1234})
        }
        "salesforce" => {
            json!({"username": "shop@example.com", "password": SECRET, "security_token": SECRET})
        }
        "shopify" => json!({"shop": "acme", "access_token": SECRET}),
        "square" => json!({"access_token": SECRET}),
        _ => json!({"api_key": SECRET}),
    };
    Definition {
        config,
        credentials: credentials.into(),
        limits: RecordLimits {
            bytes: 1 << 20,
            depth: 50,
            key: 500,
        },
    }
}

/// Those of the catalogue that have an API and streams of their own.
fn vendors() -> impl Iterator<Item = &'static &'static dyn Source> {
    CATALOG
        .iter()
        .filter(|source| !source.about().streams.is_empty())
}

/// The vendors, each opened with all of its streams.
fn opened() -> Vec<(&'static str, Box<dyn Reader>)> {
    vendors()
        .map(|source| {
            let streams: Vec<&str> = source
                .about()
                .streams
                .iter()
                .map(|stream| stream.name)
                .collect();
            let definition = definition(source.name(), json!({"streams": streams}));
            (
                source.name(),
                source.open(&definition).expect("it opens, or says why not"),
            )
        })
        .collect()
}

fn start() -> Start {
    let now = "2026-03-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap();
    Start {
        now,
        default_from: now - chrono::TimeDelta::days(30),
        read_until: None,
        missed_since: None,
        span: None,
    }
}

fn first<'a>(reader: &dyn Reader, stream: &'a Stream, high: Option<&'a Value>) -> Position<'a> {
    let start = start();
    Position {
        stream,
        window: reader.window(stream, high, start).unwrap(),
        start,
        next: None,
        high,
        access: None,
    }
}

fn answer(body: &str) -> Response {
    Response {
        status: 200,
        headers: vec![],
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

#[test]
fn every_vendor_opens_with_credentials_alone_and_names_a_missing_one() {
    for source in vendors() {
        let opened = source
            .open(&definition(source.name(), json!({})))
            .expect("it opens, or says why not");
        let about = source.about();
        let default = about.streams.iter().filter(|stream| stream.default);
        let default: Vec<&str> = default.map(|stream| stream.name).collect();
        let found: Vec<&str> = opened
            .streams()
            .iter()
            .map(|stream| stream.name.as_str())
            .collect();
        assert_eq!(found, default, "{}", source.name());
        let without = Definition {
            credentials: Credentials::default(),
            ..definition(source.name(), json!({}))
        };
        let failure = source
            .open(&without)
            .err()
            .expect("it opens, or says why not");
        assert_eq!(
            failure.code,
            Code::CredentialsMissing,
            "{}: {failure}",
            source.name()
        );
        // What the message names is in the catalogue.
        let named = about
            .credentials
            .iter()
            .chain(about.config)
            .any(|field| failure.message.contains(&format!("\"{}\"", field.name)));
        assert!(named, "{}: {failure}", source.name());
    }
}

#[test]
fn a_key_or_stream_that_is_misspelt_is_refused_by_name() {
    for source in vendors() {
        for (config, says) in [
            (json!({"strat_date": "2026-01-01"}), "\"strat_date\""),
            (json!({"start_date": "01/02/2026"}), "\"start_date\""),
            (json!({"streams": ["no such"]}), "\"no such\""),
            (json!({"streams": []}), "is empty"),
            (json!({"requests_per_second": 0}), "\"requests_per_second\""),
        ] {
            let failure = source
                .open(&definition(source.name(), config))
                .err()
                .expect(says);
            assert_eq!(failure.code, Code::InvalidConfig, "{}", source.name());
            assert!(
                failure.message.contains(says),
                "{}: {failure}",
                source.name()
            );
        }
    }
}

#[test]
fn an_error_or_half_a_page_is_never_an_empty_page() {
    let mut judged = 0;
    for (vendor, reader) in opened() {
        for stream in reader.streams() {
            let high = json!("2026-02-01T00:00:00Z");
            for high in [None, Some(&high)] {
                let at = first(reader.as_ref(), stream, high);
                for body in [
                    "",
                    "<html>please log in</html>",
                    "null",
                    "[]",
                    "[{\"message\": \"no\", \"errorCode\": \"X\"}]",
                    "\"ok\"",
                    "{\"error\": {\"message\": \"no\"}}",
                    "{\"errors\": [{\"message\": \"no\", \"code\": \"X\"}]}",
                    "{\"Fault\": {\"Error\": [{\"code\": \"10000\"}]}}",
                    "{\"message\": \"no\"}",
                    "{\"data\": null}",
                    "{\"data\": [{\"id\": 1",
                    "{\"QueryResponse\": {\"Invoice\": [{\"Id\": \"1\"",
                    "{\"records\": [{\"Id\": \"1\"}",
                ] {
                    let got = answer(body);
                    let is_read = reader.verdict(&at, &got) == Verdict::Read;
                    let page = reader.page(&at, &got);
                    assert!(
                        !is_read || page.is_err(),
                        "{vendor} {}: {body} is taken for {page:?}",
                        stream.name
                    );
                    judged += 1;
                }
            }
        }
    }
    assert!(judged > 1_000, "{judged}");
}

#[test]
fn every_request_carries_its_secret_and_none_prints_it() {
    for (vendor, reader) in opened() {
        for stream in reader.streams() {
            let at = first(reader.as_ref(), stream, None);
            let request = reader.request(&at).unwrap();
            assert!(!format!("{request:?}").contains(SECRET), "{vendor}");
            assert!(
                !request.url.as_str().contains(SECRET),
                "{vendor}: a secret in an address is in logs"
            );
            let has_it = request
                .headers
                .iter()
                .any(|(_, value)| value.contains(SECRET));
            assert_eq!(has_it, reader.login().is_none(), "{vendor} {}", stream.name);
        }
        if let Some(account) = reader.account() {
            assert!(!account.name.contains(SECRET), "{vendor}");
        }
    }
}

#[test]
fn a_quickbooks_that_ignores_startposition_is_detected() {
    let definition = definition("quickbooks", json!({"streams": ["invoices"]}));
    let reader = find("quickbooks").unwrap().open(&definition).unwrap();
    let stream = &reader.streams()[0];
    let invoice = |id: usize| json!({"Id": id.to_string(), "MetaData": {"LastUpdatedTime": "2026-02-28T10:00:00Z"}});
    let invoices: Vec<Value> = (0..300).map(invoice).collect();
    let got = answer(&json!({"QueryResponse": {"Invoice": invoices}}).to_string());
    let mut next = None;
    for pages in 0.. {
        let at = Position {
            next: next.as_ref(),
            ..first(reader.as_ref(), stream, None)
        };
        match reader.page(&at, &got) {
            Ok(page) => next = page.next,
            Err(failure) => {
                assert_eq!((failure.code, pages), (Code::RepeatedPage, 11));
                break;
            }
        }
    }
}

#[test]
fn a_gap_is_measured_from_the_last_pass_and_not_from_the_last_record() {
    let reader = |kind: &str, streams: Value| {
        let definition = definition(kind, json!({"streams": streams}));
        find(kind).unwrap().open(&definition).unwrap()
    };
    let now = start().now;
    let days = chrono::TimeDelta::days;
    // The latest record is forty days old; the latest pass is of yesterday, or as old as the record, or unknown.
    let old = (now - days(40)).timestamp().to_string();
    for (read_until, gap) in [
        (Some(now - days(1)), false),
        (Some(now - days(40)), true),
        (None, true),
    ] {
        let start = Start {
            read_until,
            ..start()
        };
        let stripe = reader("stripe", json!(["charges"]));
        let cursor = json!(old);
        let window = stripe
            .window(&stripe.streams()[0], Some(&cursor), start)
            .unwrap();
        assert_eq!(
            window.from < Some(now - days(41)),
            gap,
            "more is listed again"
        );
        let books = reader("quickbooks", json!(["invoices"]));
        let stream = &books.streams()[0];
        let cursor = json!((now - days(40)).to_rfc3339());
        let capture = json!({"step": "Capture", "again": true, "from": null, "skip": 0, "known": [], "read": 0});
        let at = Position {
            start,
            window: books.window(stream, Some(&cursor), start).unwrap(),
            next: Some(&capture),
            ..first(books.as_ref(), stream, Some(&cursor))
        };
        let page = books.page(
            &at,
            &answer(r#"{"CDCResponse": [{"QueryResponse": [{}]}]}"#),
        );
        assert_eq!(page.unwrap().warning.is_some(), gap);
        // What was deleted has left the bin by then.
        let sales = reader("salesforce", json!(["opportunities"]));
        let at = Position {
            start,
            ..first(sales.as_ref(), &sales.streams()[0], Some(&cursor))
        };
        let described = r#"{"name": "Opportunity", "queryable": true, "fields": [{"name": "Id", "type": "id"}]}"#;
        let warning = sales.page(&at, &answer(described)).unwrap().warning;
        assert_eq!(warning.unwrap().contains("the recycle bin"), gap);
    }
}
