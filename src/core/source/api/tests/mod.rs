#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod cursor;
mod fuzz;
mod oauth;
mod paging;
mod partial;
mod refusals;
mod requests;

use super::*;
use crate::error::Code;
use bytes::Bytes;
use serde_json::json;

const LIMITS: RecordLimits = RecordLimits {
    bytes: 100_000,
    depth: 100,
    key: 200,
};
const NOW: &str = "2026-03-31T12:00:00Z";

/// A shop's orders, as a manifest in the wild would describe them.
fn shop() -> Value {
    json!({
        "version": "6.0.0", "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["orders"]},
        "definitions": {
            "requester": {
                "type": "HttpRequester", "url_base": "https://{{ config['shop'] }}.example.com/api/",
                "authenticator": {"type": "BearerAuthenticator", "api_token": "{{ config['api_key'] }}"},
                "path": "{{ parameters['path'] }}",
                "request_parameters": {"expand": "lines", "absent": "{{ config['absent'] }}"},
                "request_headers": {"Accept": "application/json"}
            }
        },
        "streams": [{
            "type": "DeclarativeStream", "name": "orders", "primary_key": ["id"], "$parameters": {"path": "/orders"},
            "retriever": {
                "type": "SimpleRetriever", "requester": {"$ref": "#/definitions/requester"},
                "record_selector": {"extractor": {"field_path": ["data"]}},
                "paginator": {
                    "type": "DefaultPaginator",
                    "page_size_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "limit"},
                    "page_token_option": {"type": "RequestOption", "inject_into": "request_parameter", "field_name": "after"},
                    "pagination_strategy": {
                        "type": "CursorPagination", "page_size": 2, "cursor_value": "{{ response.next }}",
                        "stop_condition": "{{ not response.more }}"
                    }
                }
            },
            "incremental_sync": {
                "type": "DatetimeBasedCursor", "cursor_field": "updated_at", "datetime_format": "%Y-%m-%dT%H:%M:%SZ",
                "start_datetime": "{{ config['start_date'] }}",
                "start_time_option": {"inject_into": "request_parameter", "field_name": "since"},
                "end_time_option": {"inject_into": "request_parameter", "field_name": "until"}
            },
            "schema_loader": {"type": "InlineSchemaLoader", "schema": {"type": "object"}}
        }],
        "spec": {"type": "Spec", "connection_specification": {}}
    })
}

fn definition(manifest: Value) -> Definition {
    Definition {
        config: json!({"manifest": manifest, "shop": "acme"}),
        credentials: json!({"api_key": "sk_test_not_a_real_key"}).into(),
        limits: LIMITS,
    }
}

fn open(manifest: Value) -> Box<dyn Reader> {
    Api.open(&definition(manifest))
        .unwrap_or_else(|failure| panic!("{failure}"))
}

fn refused(manifest: Value) -> String {
    let failure = Api.open(&definition(manifest)).err().expect("refused");
    assert_eq!(failure.code, Code::InvalidConfig);
    failure.message
}

fn start() -> Start {
    let now: DateTime<Utc> = NOW.parse().unwrap();
    Start {
        now,
        default_from: now - chrono::TimeDelta::days(30),
        read_until: None,
        missed_since: None,
        span: None,
    }
}

struct Pass {
    reader: Box<dyn Reader>,
    window: Window,
    next: Option<Value>,
    high: Option<Value>,
}

impl Pass {
    fn new(manifest: Value, cursor: Option<&str>) -> Pass {
        let reader = open(manifest);
        let cursor = cursor.map(Value::from);
        let window = reader
            .window(&reader.streams()[0], cursor.as_ref(), start())
            .unwrap();
        Pass {
            reader,
            window,
            next: None,
            high: None,
        }
    }

    fn at(&self) -> Position<'_> {
        Position {
            stream: &self.reader.streams()[0],
            window: self.window,
            start: start(),
            next: self.next.as_ref(),
            high: self.high.as_ref(),
            access: None,
        }
    }

    fn asks(&self) -> Result<Request, Failure> {
        self.reader.request(&self.at())
    }

    fn url(&self) -> String {
        self.asks().unwrap().url.to_string()
    }

    fn gets(&mut self, body: Value) -> Result<usize, Failure> {
        self.gets_with(&[], body)
    }

    fn gets_with(&mut self, headers: &[(&str, &str)], body: Value) -> Result<usize, Failure> {
        let headers = headers
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        let got = Response {
            status: 200,
            headers,
            body: Bytes::from(body.to_string()),
        };
        let page = self.reader.page(&self.at(), &got)?;
        self.next = page.next;
        self.high = page.high;
        Ok(page.records.len())
    }
}

fn order(id: u64, updated: &str) -> Value {
    json!({"id": id, "updated_at": updated})
}

/// The shop with another part in the place of one of its own.
fn shop_with(pointer: &str, value: Value) -> Value {
    let mut manifest = shop();
    *manifest
        .pointer_mut(pointer)
        .unwrap_or_else(|| panic!("{pointer}")) = value;
    manifest
}

const STRATEGY: &str = "/streams/0/retriever/paginator/pagination_strategy";
const PAGINATOR: &str = "/streams/0/retriever/paginator";
