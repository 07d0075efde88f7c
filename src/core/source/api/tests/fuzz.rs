//! Manifests, sound and damaged, and the conversations that they lead to.

use super::*;
use crate::fuzz::{Random, damaged, each, grows_with_its_size, memory};
use crate::source::api::headers::links;

const KEY: &str = "sk_test_not_a_real_key";

/// Another part for a manifest.
fn part(random: &mut Random) -> Value {
    let path: Vec<String> = (0..random.few(30)).map(|_| random.word(2)).collect();
    let parts = [
        json!(null),
        json!([]),
        json!({}),
        json!(random.edge()),
        json!(-1),
        json!(1e300),
        json!(true),
        json!(random.text(8)),
        json!("*"),
        json!(path),
        json!("{{ config['api_key'] }}"),
        json!("{{ response.next }}"),
        json!("{{ last_record['id'] }}"),
        json!("{{ headers.link.next.url }}"),
        json!("{{ next_page_token['next_page_token'] }}"),
        json!("{{ stream_slice.start_time }}"),
        json!("{{ now_utc() }}"),
        json!("{{ day_delta(-99999999) }}"),
        json!("{{ parameters['path'] }}"),
        json!("#/streams/0"),
        json!("#/definitions/requester/path"),
        json!({"$ref": "#/definitions/requester"}),
        json!({"$ref": "#/streams/0/retriever", "type": "x"}),
        json!({"$ref": "#"}),
        json!("%s"),
        json!("%ms"),
        json!("%Y-%m-%dT%H:%M:%S.%f%z"),
        json!("%Q"),
        json!("P1D"),
        json!("P999999999W"),
        json!({"type": "OffsetIncrement", "page_size": random.edge()}),
        json!({"type": "PageIncrement", "page_size": 2, "start_from_page": random.edge(), "inject_on_first_request": true}),
        json!({"type": "CursorPagination", "cursor_value": "{{ response.next }}", "stop_condition": "{{ response.more == false }}"}),
        json!({"type": "RequestPath"}),
        json!({"inject_into": "body_json", "field_path": ["a", "b"]}),
        json!({"inject_into": "header", "field_name": "X\r\nY: z"}),
        json!({"type": "ApiKeyAuthenticator", "api_token": "{{ config['api_key'] }}", "header": "X-Key"}),
        json!({"type": "BasicHttpAuthenticator", "username": "{{ config['api_key'] }}"}),
        json!({"type": "NoAuth"}),
        json!({"datetime": "{{ config['start_date'] }}", "min_datetime": "9999-12-31", "datetime_format": "%Y-%m-%d"}),
        json!({"a": ["{{ config.shop }}", {"b": "{{ [1, config.shop] }}"}]}),
    ];
    random.pick(&parts)
}

fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(value, &format!("{at}/{key}"), all);
            }
        }
        Value::Array(items) => {
            for (key, value) in items.iter().enumerate() {
                pointers(value, &format!("{at}/{key}"), all);
            }
        }
        _ => {}
    }
}

fn manifest(random: &mut Random) -> Value {
    let mut manifest = shop();
    for _ in 0..random.few(5) {
        let mut all = Vec::new();
        pointers(&manifest, "", &mut all);
        let (at, from) = (random.pick(&all), random.pick(&all));
        let other = manifest.pointer(&from).cloned().unwrap();
        let part = part(random);
        let target = manifest.pointer_mut(&at).unwrap();
        match (random.below(6), target) {
            (0, Value::Object(fields)) if !fields.is_empty() => {
                let keys: Vec<String> = fields.keys().cloned().collect();
                fields.remove(&random.pick(&keys));
            }
            (1, Value::Object(fields)) => {
                const KEYS: &[&str] = &[
                    "$parameters",
                    "$ref",
                    "type",
                    "field_path",
                    "path",
                    "url_base",
                    "request_body_json",
                    "request_body_data",
                    "request_headers",
                    "page_token_option",
                    "record_selector",
                    "primary_key",
                    "lookback_window",
                    "end_datetime",
                    "cursor_datetime_formats",
                    "http_method",
                    "authenticator",
                    "unknown",
                ];
                let key = random.pick(KEYS);
                fields.insert(key.to_owned(), part);
            }
            (2, target) => *target = other,
            (3, target @ Value::String(_)) => {
                let text = target.as_str().unwrap_or_default().as_bytes().to_vec();
                let text = damaged(random, &text, b"{{ config.x }} %Y#/definitions");
                *target = String::from_utf8_lossy(&text).into_owned().into();
            }
            (4, Value::Array(items)) if items.len() < 8 => items.push(other),
            (_, target) => *target = part,
        }
    }
    manifest
}

/// What the vendor answers.
fn body(random: &mut Random) -> Vec<u8> {
    let records: Vec<Value> = (0..random.few(4))
        .map(|id| json!({"id": id, "updated_at": random.pick(&["2026-03-01T00:00:00Z", "9999-12-31T23:59:59Z", "0000-00-00", "1e9", ""]), "x": random.text(5)}))
        .collect();
    let next = random.pick(&[
        json!(null),
        json!("n"),
        json!(7),
        json!("https://evil.example.com/"),
        json!("/next?a=b"),
        json!("?page=2"),
        json!({"a": 1}),
        json!("//evil.example.com/x"),
        json!("http://acme.example.com/"),
        json!(""),
    ]);
    let body = json!({"data": records, "more": random.percent(70), "next": next}).to_string();
    match random.percent(30) {
        true => damaged(random, body.as_bytes(), b"{\"data\":[[],{}]}"),
        false => body.into_bytes(),
    }
}

fn judge(failure: &Failure) {
    assert!(!failure.message.contains(KEY), "{failure}");
    assert!(failure.code != Code::Internal, "{failure}");
}

fn converse(random: &mut Random, manifest: Value) {
    let reader = match Api.open(&definition(manifest)) {
        Ok(reader) => reader,
        Err(failure) => {
            assert!(
                matches!(failure.code, Code::InvalidConfig | Code::TemplateFailed),
                "{failure}"
            );
            return judge(&failure);
        }
    };
    for stream in reader.streams().iter().take(3) {
        let cursor = random.pick(&[
            None,
            Some(json!("2026-03-01T00:00:00Z")),
            Some(json!("0001-01-01")),
            Some(json!(7)),
            Some(json!("9999-12-31T23:59:59Z")),
        ]);
        let window = match reader.window(stream, cursor.as_ref(), start()) {
            Ok(window) => window,
            Err(failure) => return judge(&failure),
        };
        assert!(window.from.is_none_or(|from| from <= window.to));
        let _ = reader.is_bounded(stream);
        let (mut next, mut high) = (None, None);
        let mut origin = None;
        for _ in 0..4 {
            let at = Position {
                stream,
                window,
                start: start(),
                next: next.as_ref(),
                high: high.as_ref(),
                access: None,
            };
            let request = match reader.request(&at) {
                Ok(request) => request,
                Err(failure) => {
                    judge(&failure);
                    break;
                }
            };
            // It goes to the web, and what the vendor answers leads nowhere else.
            assert!(
                matches!(request.url.scheme(), "http" | "https") && request.url.host().is_some()
            );
            assert!(request.url.username().is_empty() && request.url.password().is_none());
            let here = request.url.origin();
            if next.is_some() && !stream.name.is_empty() {
                let first: &url::Origin = origin.get_or_insert(here.clone());
                assert!(
                    *first == here || !uses_token_in_base(&request),
                    "{}",
                    request.url
                );
            }
            origin.get_or_insert(here);
            let headers = vec![(
                "link".to_owned(),
                random
                    .pick(&[
                        "<https://evil.example.com>; rel=\"next\"",
                        "<?page=2>;rel=next",
                        ">;<",
                        "",
                    ])
                    .to_owned(),
            )];
            let got = Response {
                status: 200,
                headers,
                body: body(random).into(),
            };
            match reader.page(&at, &got) {
                Ok(page) => {
                    for record in &page.records {
                        assert!(record.id.starts_with(&format!("{}/", stream.name)));
                        serde_json::from_slice::<&serde_json::value::RawValue>(&record.json)
                            .unwrap();
                    }
                    high = page.high;
                    next = page.next;
                }
                Err(failure) => judge(&failure),
            }
            if next.is_none() {
                break;
            }
        }
    }
}

/// A base that is made of the token says itself that it goes elsewhere.
fn uses_token_in_base(request: &Request) -> bool {
    request
        .url
        .host_str()
        .is_some_and(|host| !host.contains("example.com"))
}

#[test]
fn any_manifest_is_read_or_refused() {
    each("manifests", |random| {
        let manifest = manifest(random);
        memory::within(32 * 1024 * 1024, || converse(random, manifest));
    });
}

#[test]
fn links_are_the_texts_between_the_brackets() {
    each("links", |random| {
        let mut header = String::new();
        let mut made = Vec::new();
        for _ in 0..random.few(4) {
            let url = format!(
                "https://a.example.com/?{}",
                random.text(8).replace(['<', '>', '"'], "")
            );
            let relation = random.word(4);
            let other = random.pick(&["; title=\"a, <b>; rel=c\"", "; type=x", ""]);
            let quote = random.pick(&["", "\""]);
            header.push_str(&format!(
                "{}<{url}>{other}; rel={quote}{relation}{quote}",
                if made.is_empty() { "" } else { ", " }
            ));
            made.push((relation, url));
        }
        assert_eq!(links(&header), made, "{header}");
        let damaged = damaged(random, header.as_bytes(), b"<>;,=\"rel");
        let _ = links(&String::from_utf8_lossy(&damaged));
    });
}

#[test]
fn no_manifest_takes_more_than_its_size_says() {
    let open = |manifest: &Value| {
        let _ = Api.open(&definition(manifest.clone()));
    };
    let with = |key: &'static str, make: fn(usize) -> Value| {
        move |size: usize| {
            let mut manifest = shop();
            manifest["streams"][0]["retriever"]["requester"] =
                shop()["definitions"]["requester"].clone();
            *manifest
                .pointer_mut("/streams/0/retriever/requester/path")
                .unwrap() = json!("x");
            manifest["streams"][0]["retriever"]["requester"][key] = make(size);
            manifest
        }
    };
    grows_with_its_size(
        "headers of a manifest",
        100,
        with("request_headers", |size| {
            (0..size)
                .map(|at| (format!("h{at}"), json!("{{ config.shop }}")))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }),
        open,
    );
    grows_with_its_size(
        "parameters of a manifest",
        100,
        |size| {
            let mut manifest = with("request_headers", |size| {
                (0..size)
                    .map(|at| (format!("h{at}"), json!("{{ config.shop }}")))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            })(size);
            manifest["streams"][0]["$parameters"] = (0..size)
                .map(|at| (format!("p{at}"), json!(at)))
                .collect::<serde_json::Map<_, _>>()
                .into();
            manifest
        },
        open,
    );
    grows_with_its_size(
        "links",
        5_000,
        |size| "<a>; rel=b, ".repeat(size),
        |header| drop(links(header)),
    );
    grows_with_its_size(
        "open links",
        5_000,
        |size| "<a>;\"".repeat(size),
        |header| drop(links(header)),
    );
}

#[test]
fn a_definition_that_is_referred_to_a_thousand_times_is_not_held_a_thousand_times() {
    // Each of these is half a megabyte; what comes of them was gigabytes.
    let long = "x".repeat(400_000);
    let mut texts = shop();
    texts["definitions"]["long"] = json!(long);
    texts["definitions"]["all"] = vec![json!("#/definitions/long"); 5_000].into();
    let mut parameters = shop();
    parameters["streams"][0]["$parameters"]["long"] = json!(long);
    let headers = (0..5_000).map(|at| (format!("h{at}"), json!("x")));
    parameters["definitions"]["requester"]["request_headers"] =
        headers.collect::<serde_json::Map<_, _>>().into();
    let mut nested = shop();
    nested["streams"][0]["$parameters"]["long"] = json!(long);
    let stream = nested["streams"][0].clone();
    for at in 0..2_000 {
        let mut stream = json!({"name": format!("s{at}"), "$parameters": {"at": at}});
        stream["retriever"] = json!({"$ref": "#/definitions/nothing"});
        nested["streams"].as_array_mut().unwrap().push(stream);
    }
    nested["definitions"]["nothing"] = stream["retriever"].clone();
    nested["$parameters"] = json!({"long": long});
    for manifest in [texts, parameters, nested] {
        memory::within(32 * 1024 * 1024, || drop(Api.open(&definition(manifest))));
    }
}

#[test]
fn no_path_is_longer_than_the_stack() {
    let steps = |count: usize| json!(vec!["a"; count]);
    let deep = |pointer: &str, value: Value| refused(shop_with(pointer, value));
    for count in [100, 90_000] {
        let message = deep(
            "/streams/0/retriever/record_selector/extractor/field_path",
            steps(count),
        );
        assert!(message.contains("field_path"), "{message}");
        let message = deep("/streams/0/primary_key", json!([steps(count)]));
        assert!(message.contains("primary_key"), "{message}");
        let option = json!({"inject_into": "body_json", "field_path": steps(count)});
        let message = deep("/streams/0/retriever/paginator/page_token_option", option);
        assert!(message.contains("field_path"), "{message}");
    }
}
