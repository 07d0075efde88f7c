#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use super::*;
use crate::error::Code;
use crate::source::api::paging::links;
use bytes::Bytes;
use proptest::prelude::*;
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
        credentials: json!({"api_key": "sk_test_not_a_real_key"}),
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
            now: start().now,
            default_from: start().default_from,
            next: self.next.as_ref(),
            high: self.high.as_ref(),
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

const PAGINATOR: &str = "/streams/0/retriever/paginator";

#[test]
fn a_pass_asks_page_after_page() {
    let mut pass = Pass::new(shop(), None);
    assert_eq!(
        pass.url(),
        "https://acme.example.com/api/orders?expand=lines&since=2026-03-01T12%3A00%3A00Z&until=2026-03-31T12%3A00%3A00Z&limit=2"
    );
    let request = pass.asks().unwrap();
    let header = |name: &str| {
        request
            .headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    };
    assert_eq!(
        header("Authorization"),
        Some("Bearer sk_test_not_a_real_key")
    );
    assert_eq!(header("Accept"), Some("application/json"));

    let orders = [
        order(1, "2026-03-02T00:00:00Z"),
        order(2, "2026-03-05T00:00:00Z"),
    ];
    assert_eq!(
        pass.gets(json!({"data": orders, "next": "t/1", "more": true})),
        Ok(2)
    );
    assert!(pass.url().ends_with("&limit=2&after=t%2F1"));
    assert_eq!(pass.high, Some("2026-03-05T00:00:00Z".into()));
    let orders = [order(3, "2026-03-04T00:00:00Z")];
    assert_eq!(
        pass.gets(json!({"data": orders, "next": "t/2", "more": false})),
        Ok(1)
    );
    assert_eq!(pass.next, None);
    assert_eq!(pass.high, Some("2026-03-05T00:00:00Z".into()));
}

#[test]
fn the_cursor_starts_a_lookback_earlier_and_never_before_the_start() {
    let from = |cursor| Pass::new(shop(), cursor).window.from.unwrap().to_rfc3339();
    assert_eq!(
        from(Some("2026-03-20T00:00:00Z")),
        "2026-03-19T23:50:00+00:00"
    );
    assert_eq!(
        from(Some("2026-03-01T12:01:00Z")),
        "2026-03-01T12:00:00+00:00"
    );
    assert_eq!(from(Some("nonsense")), "2026-03-01T12:00:00+00:00");
    let mut manifest = shop();
    manifest["streams"][0]["incremental_sync"]["lookback_window"] = "P2D".into();
    let from = Pass::new(manifest, Some("2026-03-20T00:00:00Z"))
        .window
        .from
        .unwrap();
    assert_eq!(from.to_rfc3339(), "2026-03-18T00:00:00+00:00");
}

#[test]
fn a_stamp_of_the_far_future_does_not_move_the_cursor() {
    let mut pass = Pass::new(shop(), None);
    let orders = [
        order(1, "2026-03-02T00:00:00Z"),
        order(2, "2099-01-01T00:00:00Z"),
    ];
    assert_eq!(pass.gets(json!({"data": orders, "more": false})), Ok(2));
    assert_eq!(pass.high, Some("2026-03-02T00:00:00Z".into()));
}

#[test]
fn records_without_a_readable_date_are_a_wrong_shape() {
    let mut pass = Pass::new(shop(), None);
    let failure = pass
        .gets(json!({"data": [{"id": 1, "updated_at": "yesterday"}]}))
        .unwrap_err();
    assert_eq!(failure.code, Code::UnexpectedShape);
}

#[test]
fn an_error_in_a_success_is_not_an_empty_page() {
    let mut pass = Pass::new(shop(), None);
    let failure = pass
        .gets(json!({"errors": [{"message": "sk_test_not_a_real_key is wrong"}]}))
        .unwrap_err();
    assert_eq!(failure.code, Code::UnexpectedShape);
    assert!(!failure.message.contains("sk_test"));
}

#[test]
fn offsets_and_pages_count_what_was_received() {
    let paginator = |strategy: Value, name: &str| {
        json!({"type": "DefaultPaginator", "pagination_strategy": strategy,
               "page_token_option": {"inject_into": "request_parameter", "field_name": name}})
    };
    let asks = |strategy: Value, pages: &[usize]| {
        let mut pass = Pass::new(shop_with(PAGINATOR, paginator(strategy, "p")), None);
        let mut asked = Vec::new();
        for count in pages {
            let url = pass.asks().unwrap().url;
            asked.push(
                url.query_pairs()
                    .find(|(n, _)| n == "p")
                    .map_or(-1, |(_, v)| v.parse::<i64>().unwrap()),
            );
            let orders: Vec<_> = (0..*count)
                .map(|i| order(i as u64, "2026-03-02T00:00:00Z"))
                .collect();
            pass.gets(json!({"data": orders})).unwrap();
            if pass.next.is_none() {
                break;
            }
        }
        asked
    };
    assert_eq!(
        asks(
            json!({"type": "OffsetIncrement", "page_size": 3}),
            &[3, 3, 2, 9]
        ),
        [-1, 3, 6]
    );
    assert_eq!(
        asks(json!({"type": "OffsetIncrement"}), &[3, 2, 1, 0, 9]),
        [-1, 3, 5, 6]
    );
    assert_eq!(
        asks(
            json!({"type": "OffsetIncrement", "page_size": 3, "inject_on_first_request": true}),
            &[3, 0]
        ),
        [0, 3]
    );
    assert_eq!(
        asks(
            json!({"type": "PageIncrement", "page_size": "3"}),
            &[3, 3, 0]
        ),
        [-1, 1, 2]
    );
    assert_eq!(
        asks(
            json!({"type": "PageIncrement", "page_size": 3, "start_from_page": 1, "inject_on_first_request": true}),
            &[3, 3, 1]
        ),
        [1, 2, 3]
    );
}

#[test]
fn a_link_header_leads_to_the_next_page() {
    let strategy =
        json!({"type": "CursorPagination", "cursor_value": "{{ headers['link']['next']['url'] }}"});
    let paginator = json!({"type": "DefaultPaginator", "pagination_strategy": strategy, "page_token_option": {"type": "RequestPath"}});
    let mut pass = Pass::new(shop_with(PAGINATOR, paginator), None);
    let orders = json!({"data": [order(1, "2026-03-02T00:00:00Z")]});
    let link = r#"<https://acme.example.com/a>; rel="prev", </api/orders?page=2&since=x>; title="a,b"; rel=next"#;
    pass.gets_with(&[("link", link)], orders.clone()).unwrap();
    assert!(
        pass.url()
            .starts_with("https://acme.example.com/api/orders?page=2&since=x&expand=lines&until=")
    );
    pass.gets_with(&[], orders).unwrap();
    assert_eq!(pass.next, None);
}

#[test]
fn credentials_never_follow_a_next_page_to_another_place() {
    let strategy = json!({"type": "CursorPagination", "cursor_value": "{{ response.next }}"});
    let paginator = json!({"type": "DefaultPaginator", "pagination_strategy": strategy, "page_token_option": {"type": "RequestPath"}});
    for next in [
        "https://evil.example.com/orders",
        "http://acme.example.com/orders",
        "https://acme.example.com:444/orders",
        "//evil.example.com/orders",
        "https://acme.example.com@evil.example.com/",
        "https://u:p@acme.example.com/",
        "ftp://acme.example.com/",
        "\\\\evil.example.com\\orders",
    ] {
        let mut pass = Pass::new(shop_with(PAGINATOR, paginator.clone()), None);
        pass.gets(json!({"data": [order(1, "2026-03-02T00:00:00Z")], "next": next}))
            .unwrap();
        assert_eq!(
            pass.asks().unwrap_err().code,
            Code::ForeignNextPage,
            "{next}"
        );
    }
    let mut pass = Pass::new(shop_with(PAGINATOR, paginator), None);
    pass.gets(json!({"data": [order(1, "2026-03-02T00:00:00Z")], "next": "HTTPS://ACME.example.com:443/x"})).unwrap();
    assert!(pass.url().starts_with("https://acme.example.com/x?"));
}

#[test]
fn credentials_and_tokens_go_where_the_manifest_says() {
    let asks = |authenticator: Value, method: &str| {
        let mut manifest = shop_with("/definitions/requester/authenticator", authenticator);
        manifest["definitions"]["requester"]["http_method"] = method.into();
        manifest["definitions"]["requester"]["request_body_json"] =
            json!({"q": {"shop": "{{ config['shop'] }}", "n": 1}});
        Pass::new(manifest, None).asks().unwrap()
    };
    let has = |request: &Request, name: &str, value: &str| {
        request
            .headers
            .contains(&(name.to_owned(), value.to_owned()))
    };
    let request = asks(
        json!({"type": "ApiKeyAuthenticator", "header": "X-Key", "api_token": "{{ config['api_key'] }}"}),
        "POST",
    );
    assert!(has(&request, "X-Key", "sk_test_not_a_real_key"));
    assert!(has(&request, "Content-Type", "application/json"));
    assert_eq!(request.body.unwrap(), r#"{"q":{"n":1,"shop":"acme"}}"#);
    let option =
        json!({"type": "RequestOption", "inject_into": "request_parameter", "field_name": "key"});
    let request = asks(
        json!({"type": "ApiKeyAuthenticator", "inject_into": option, "api_token": "{{ config['api_key'] }}"}),
        "GET",
    );
    assert!(
        request
            .url
            .query()
            .unwrap()
            .contains("key=sk_test_not_a_real_key")
    );
    let option =
        json!({"type": "RequestOption", "inject_into": "body_json", "field_path": ["auth", "key"]});
    let request = asks(
        json!({"type": "ApiKeyAuthenticator", "inject_into": option, "api_token": "{{ config['api_key'] }}"}),
        "POST",
    );
    assert_eq!(
        request.body.unwrap(),
        r#"{"auth":{"key":"sk_test_not_a_real_key"},"q":{"n":1,"shop":"acme"}}"#
    );
    let request = asks(
        json!({"type": "BasicHttpAuthenticator", "username": "{{ config['api_key'] }}"}),
        "GET",
    );
    assert!(has(
        &request,
        "Authorization",
        "Basic c2tfdGVzdF9ub3RfYV9yZWFsX2tleTo="
    ));
    let request = asks(json!({"type": "NoAuth"}), "GET");
    assert!(
        !request
            .headers
            .iter()
            .any(|(name, _)| name == "Authorization")
    );
}

#[test]
fn nothing_printed_contains_the_secret() {
    let pass = Pass::new(shop(), None);
    let printed = format!("{:?}", pass.asks().unwrap());
    assert_eq!(printed, "Get acme.example.com");
    let mut without = definition(shop());
    without.credentials = json!({"other": "sk_test_not_a_real_key"});
    let reader = Api.open(&without).ok().unwrap();
    let pass = Pass {
        reader,
        window: Window {
            from: None,
            to: start().now,
        },
        next: None,
        high: None,
    };
    let failure = pass.asks().unwrap_err();
    assert_eq!(failure.code, Code::InvalidConfig);
    assert!(!failure.message.contains("sk_test"));
}

#[test]
fn what_this_version_does_not_know_is_refused_by_name() {
    for (pointer, value, message) in [
        (
            "/type",
            json!("CustomSource"),
            "manifest component \"CustomSource\" at \"the top\" is not supported",
        ),
        (
            "/streams/0/retriever",
            json!({"type": "AsyncRetriever"}),
            "manifest component \"AsyncRetriever\" at \"streams[0].retriever\" is not supported",
        ),
        (
            "/streams/0/retriever",
            json!({"type": "CustomRetriever", "class_name": "x.Y"}),
            "manifest component \"CustomRetriever\" at \"streams[0].retriever\" is not supported",
        ),
        (
            "/definitions/requester/authenticator",
            json!({"type": "OAuthAuthenticator"}),
            "manifest component \"OAuthAuthenticator\" at \"streams[0].retriever.requester.authenticator\" is not supported",
        ),
        (
            "/definitions/requester/url_base",
            json!(["x"]),
            "\"streams[0].retriever.requester.url_base\" of the manifest is not text",
        ),
        (
            "/streams/0/retriever/record_selector/extractor",
            json!({"type": "CustomExtractor"}),
            "manifest component \"CustomExtractor\" at \"streams[0].retriever.record_selector.extractor\" is not supported",
        ),
        (
            "/streams/0/incremental_sync",
            json!({"type": "IncrementingCountCursor"}),
            "manifest component \"IncrementingCountCursor\" at \"streams[0].incremental_sync\" is not supported",
        ),
        (
            "/streams/0/retriever/paginator/pagination_strategy",
            json!({"type": "CustomPaginationStrategy"}),
            "manifest component \"CustomPaginationStrategy\" at \"streams[0].retriever.paginator.pagination_strategy\" is not supported",
        ),
        (
            "/streams/0/retriever/paginator/page_token_option/inject_into",
            json!("cookie"),
            "\"streams[0].retriever.paginator.page_token_option.inject_into\" of the manifest cannot be \"cookie\"",
        ),
        (
            "/streams/0/retriever/requester/$ref",
            json!("#/definitions/missing"),
            "\"#/definitions/missing\" is not in the manifest",
        ),
        (
            "/definitions/requester",
            json!({"$ref": "#/definitions/requester"}),
            "the manifest is too large, or refers to itself",
        ),
        (
            "/streams/0/incremental_sync/datetime_format",
            json!("%Q"),
            "\"streams[0].incremental_sync.\": date format code \"%Q\" is not supported",
        ),
        (
            "/definitions/requester/path",
            json!("{{ config.x | hash }}"),
            "the template at \"streams[0].retriever.requester.path\" uses the filter \"hash\", which is not supported",
        ),
        (
            "/definitions/requester/path",
            json!("{{ response.x }}"),
            "the template at \"streams[0].retriever.requester.path\" uses \"response\", which is not known there",
        ),
        ("/streams", json!([]), "the manifest has no streams"),
    ] {
        assert_eq!(refused(shop_with(pointer, value)), message);
    }
    for (pointer, key, value, place) in [
        ("", "dynamic_streams", json!([{}]), "dynamic_streams"),
        (
            "/streams/0",
            "transformations",
            json!([{"type": "AddFields"}]),
            "streams[0].transformations",
        ),
        (
            "/streams/0/retriever",
            "partition_router",
            json!({"type": "ListPartitionRouter"}),
            "streams[0].retriever.partition_router",
        ),
        (
            "/streams/0/retriever/record_selector",
            "record_filter",
            json!({"type": "RecordFilter"}),
            "streams[0].retriever.record_selector.record_filter",
        ),
        (
            "/definitions/requester",
            "error_handler",
            json!({"type": "DefaultErrorHandler"}),
            "streams[0].retriever.requester.error_handler",
        ),
        (
            "/streams/0/incremental_sync",
            "step",
            json!("P1D"),
            "streams[0].incremental_sync.step",
        ),
    ] {
        let mut manifest = shop();
        manifest.pointer_mut(pointer).unwrap()[key] = value;
        let message = refused(manifest);
        assert!(
            message.starts_with(&format!("manifest key \"{place}\" of ")),
            "{message}"
        );
    }
    assert_eq!(
        Api.open(&Definition {
            config: json!({}),
            ..definition(shop())
        })
        .err()
        .unwrap()
        .message,
        "config has no \"manifest\""
    );
}

#[test]
fn link_headers_are_read_in_every_shape() {
    let read = |text: &str| {
        links(text)
            .into_iter()
            .map(|(rel, url)| format!("{rel}={url}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(read(r#"<a>; rel="next""#), ["next=a"]);
    assert_eq!(
        read(r#"<a>; title="x; rel=no"; rel=next, <b>;rel="prev first""#),
        ["next=a", "prev=b", "first=b"]
    );
    assert_eq!(read("<a>, <b>; REL=next"), ["next=b"]);
    assert_eq!(read("garbage"), Vec::<String>::new());
}

proptest! {
    #[test]
    fn no_header_makes_the_link_parser_panic(text in "[<>;,=\" a-z]{0,60}") {
        let _ = links(&text);
    }

    #[test]
    fn no_damage_to_a_manifest_makes_it_panic(pick in any::<prop::sample::Index>(), value in prop_oneof![
        Just(json!(null)), Just(json!([])), Just(json!({})), Just(json!("x")), Just(json!(7)), Just(json!("{{")), Just(json!("#/streams")),
    ]) {
        fn pointers(value: &Value, prefix: &str, all: &mut Vec<String>) {
            all.push(prefix.to_owned());
            match value {
                Value::Object(fields) => fields.iter().for_each(|(k, v)| pointers(v, &format!("{prefix}/{k}"), all)),
                Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{prefix}/{i}"), all)),
                _ => {}
            }
        }
        let mut all = Vec::new();
        pointers(&shop(), "", &mut all);
        let manifest = shop_with(pick.get(&all).as_str(), value);
        if let Ok(reader) = Api.open(&definition(manifest)) {
            for stream in reader.streams() {
                let window = reader.window(stream, None, start());
                if let Ok(window) = window {
                    let Start { now, default_from } = start();
                    let _ = reader.request(&Position { stream, window, now, default_from, next: None, high: None });
                }
            }
        }
    }
}
