use super::*;
use crate::source::api::headers::links;
use proptest::prelude::*;

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
fn an_error_in_a_success_is_not_an_empty_page() {
    let mut pass = Pass::new(shop(), None);
    let failure = pass
        .gets(json!({"errors": [{"message": "sk_test_not_a_real_key is wrong"}]}))
        .unwrap_err();
    assert_eq!(failure.code, Code::UnexpectedShape);
    assert!(!failure.message.contains("sk_test"));
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

fn after_a_page_of_one(strategy: Value, headers: &[(&str, &str)], body: Value) -> Option<Value> {
    let mut pass = Pass::new(shop_with(STRATEGY, strategy), None);
    pass.gets_with(headers, body).unwrap();
    pass.next
}

#[test]
fn headers_are_found_in_any_case() {
    for name in ["x-next", "X-Next", "X-NEXT"] {
        let value = format!("{{{{ headers['{name}'] }}}}");
        let strategy = json!({"type": "CursorPagination", "cursor_value": value});
        let body = json!({"data": [order(1, "2026-03-02T00:00:00Z")]});
        let next = after_a_page_of_one(strategy, &[("x-next", "7")], body);
        assert_eq!(next, Some("7".into()), "{name}");
    }
}

#[test]
fn several_link_headers_are_one() {
    let value = "{{ headers.link.next.url }}";
    let strategy = json!({"type": "CursorPagination", "cursor_value": value});
    let headers = [("link", "<a>; rel=prev"), ("link", "<b>; rel=next")];
    let body = json!({"data": [order(1, "2026-03-02T00:00:00Z")]});
    assert_eq!(
        after_a_page_of_one(strategy, &headers, body),
        Some("b".into())
    );
}

#[test]
fn a_condition_on_the_whole_response_sees_its_records() {
    let strategy = json!({"type": "CursorPagination", "cursor_value": "{{ last_record.id }}",
                          "stop_condition": "{{ not response }}"});
    let body = json!({"data": [order(1, "2026-03-02T00:00:00Z")]});
    assert_eq!(after_a_page_of_one(strategy, &[], body), Some(1.into()));
}

#[test]
fn a_page_token_keeps_every_digit_and_an_empty_one_ends_the_pass() {
    for (token, next) in [
        (
            json!(12345678901234567_u64),
            Some(json!(12345678901234567_u64)),
        ),
        (
            json!("12345678901234567890123"),
            Some(json!("12345678901234567890123")),
        ),
        (json!(null), None),
        (json!(""), None),
        (json!(false), None),
        (json!([]), None),
        (json!({}), None),
    ] {
        let strategy = json!({"type": "CursorPagination", "cursor_value": "{{ response.next }}"});
        let body = json!({"data": [order(1, "2026-03-02T00:00:00Z")], "next": token});
        assert_eq!(after_a_page_of_one(strategy, &[], body), next);
    }
}

#[test]
fn one_damaged_record_does_not_end_the_paging() {
    let pass = Pass::new(shop(), None);
    for bad in [&b"\\ud800"[..], b"\0", b"\xff"] {
        let mut body = br#"{"data":[{"id":1,"updated_at":"2026-03-02T00:00:00Z"},{"x":""#.to_vec();
        body.extend_from_slice(bad);
        body.extend_from_slice(br#""}],"next":"n","more":true}"#);
        let got = Response {
            status: 200,
            headers: vec![],
            body: body.into(),
        };
        let page = pass.reader.page(&pass.at(), &got).unwrap();
        let read = (page.records.len(), page.rejected.len(), page.next);
        assert_eq!(read, (1, 1, Some("n".into())), "{bad:?}");
    }
}

#[test]
fn a_byte_order_mark_changes_nothing() {
    let read = |manifest: Value, body: &str| {
        let pass = Pass::new(manifest, None);
        let got = Response {
            status: 200,
            headers: vec![],
            body: format!("\u{feff}{body}").into(),
        };
        let page = pass.reader.page(&pass.at(), &got).unwrap();
        (page.records.len(), page.next)
    };
    let order = r#"{"id": 1, "updated_at": "2026-03-02T00:00:00Z"}"#;
    let body = format!(r#"{{"data": [{order}], "next": "n", "more": true}}"#);
    assert_eq!(read(shop(), &body), (1, Some("n".into())));
    let mut manifest = shop_with(
        "/streams/0/retriever/record_selector/extractor/field_path",
        json!([]),
    );
    manifest["streams"][0]["retriever"]["paginator"] = json!({"type": "NoPagination"});
    assert_eq!(read(manifest.clone(), order), (1, None));
    assert_eq!(read(manifest, &format!("[{order}]")), (1, None));
}

#[test]
fn a_body_that_is_the_page_itself_is_checked_too() {
    let mut manifest = shop_with(
        "/streams/0/retriever/record_selector/extractor/field_path",
        json!([]),
    );
    let stream = manifest["streams"][0].as_object_mut().unwrap();
    stream.remove("incremental_sync");
    let gets = |body: Value| {
        let gets = Pass::new(manifest.clone(), None).gets(body);
        gets.map_err(|failure| failure.code)
    };
    for body in [
        json!({"errors": [{"message": "m"}]}),
        json!({"error": "m", "status": 1}),
        json!({"name": "no id", "errors": []}),
        json!({"message": "Unauthorized"}),
        json!({"detail": "Not found.", "status": 200}),
        json!({"id": null, "message": "m"}),
        json!("maintenance"),
        json!(7),
        json!(true),
    ] {
        assert_eq!(gets(body.clone()), Err(Code::UnexpectedShape), "{body}");
    }
    for (body, count) in [
        (json!([]), 0),
        (json!(null), 0),
        (json!([{"id": 1}, {"error": "m"}]), 2),
        (json!({"id": 1, "errors": ["m"]}), 1),
        (json!({}), 0),
    ] {
        assert_eq!(gets(body.clone()), Ok(count), "{body}");
    }
}

fn by_cursor(value: &str) -> Value {
    let strategy = json!({"type": "CursorPagination", "cursor_value": value});
    let mut manifest = shop_with(STRATEGY, strategy);
    manifest["streams"][0]["retriever"]["record_selector"]["extractor"]["field_path"] =
        json!(["data", "items"]);
    manifest["streams"][0]
        .as_object_mut()
        .unwrap()
        .remove("incremental_sync");
    manifest
}

fn next_of(value: &str, body: &str) -> (Option<Value>, usize, usize) {
    let pass = Pass::new(by_cursor(value), None);
    let got = Response {
        status: 200,
        headers: vec![],
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    let page = pass.reader.page(&pass.at(), &got).unwrap();
    (page.next, page.records.len(), page.rejected.len())
}

#[test]
fn one_damaged_record_costs_one_record_whatever_a_template_looks_at() {
    let damaged = [
        r#"{"id":2,"n":"ab\ud83d"}"#,
        r#"{"id":2,"n":1e400000}"#,
        r#"{"id":2,"n":"\u0000"}"#,
        "{\"id\":2,\"n\":\"\u{0}\"}",
        r#"{"id":2,"n":"\x"}"#,
        r#"{"id":2,"n":NaN}"#,
        r#"{"id":2,"n":"\uZZZZ"}"#,
    ];
    for record in damaged {
        for (items, came) in [
            (format!("[{{\"id\":1}},{record}]"), 1),
            (format!("[{record},{{\"id\":2}}]"), 1),
        ] {
            let body = format!(r#"{{"data":{{"items":{items},"next":"t"}}}}"#);
            for (value, token) in [
                ("{{ response.data.next }}", json!("t")),
                ("{{ last_record['id'] }}", json!(2)),
                ("{{ response['data']['items'][-1]['id'] }}", json!(2)),
            ] {
                assert_eq!(
                    next_of(value, &body),
                    (Some(token), came, 1),
                    "{value} {body}"
                );
            }
        }
    }
    // A valid number of any size is no damage.
    let body = r#"{"data":{"items":[{"id":1e400,"n":1e400}],"next":7}}"#;
    assert_eq!(
        next_of("{{ response.data.next }}", body),
        (Some(json!(7)), 1, 0)
    );
    assert_eq!(
        next_of("{{ last_record['id'] }}", body),
        (Some(json!("1e400")), 1, 0)
    );
    // Where the id itself is damaged, or the last item is no record, the one before it tells where to go on.
    for last in [r#"{"id":"ab\ud83d"}"#, "17", "null", r#""x""#] {
        let body = format!(r#"{{"data":{{"items":[{{"id":"a"}},{{"id":"b"}},{last}]}}}}"#);
        let (next, came, _) = next_of("{{ last_record['id'] }}", &body);
        assert_eq!((next, came), (Some(json!("b")), 2), "{last}");
    }
}

#[test]
fn numbers_in_templates_are_exact() {
    for (number, token) in [
        ("7", json!(7)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("18446744073709551615", json!(u64::MAX)),
        (
            "123456789012345678901234567890",
            json!("123456789012345678901234567890"),
        ),
        (
            "-123456789012345678901234567890",
            json!("-123456789012345678901234567890"),
        ),
        (
            "1234567890123456789012345678901234567890123",
            json!("1234567890123456789012345678901234567890123"),
        ),
        ("0.1", json!(0.1)),
        ("1700000000.123456", json!(1700000000.123456)),
        (
            "1700000000.12345678901234",
            json!("1700000000.12345678901234"),
        ),
        (
            "0.12345678901234567890123",
            json!("0.12345678901234567890123"),
        ),
    ] {
        let body = format!(r#"{{"data":{{"items":[{{"id":{number}}}],"next":{number}}}}}"#);
        assert_eq!(
            next_of("{{ response.data.next }}", &body).0,
            Some(token.clone()),
            "{number}"
        );
        assert_eq!(
            next_of("{{ last_record['id'] }}", &body).0,
            Some(token.clone()),
            "{number}"
        );
        let text = next_of("id:{{ last_record['id'] }}", &body).0;
        assert_eq!(
            text,
            Some(format!("id:{}", token.as_str().unwrap_or(number)).into()),
            "{number}"
        );
        // What is asked for next has the same digits.
        let mut pass = Pass::new(by_cursor("{{ response.data.next }}"), None);
        pass.next = Some(token);
        assert!(
            pass.url().ends_with(&format!("after={number}")),
            "{}",
            pass.url()
        );
    }
    let sum = next_of(
        "{{ response.data.next + 1 }}",
        r#"{"data":{"items":[{"id":1}],"next":99999999999999999999}}"#,
    );
    assert_eq!(sum.0, Some(json!("100000000000000000000")));
}

#[test]
fn a_token_that_counts_is_known_as_one() {
    let counts = |field: &str, strategy: Value, body: Value| {
        let mut manifest = shop_with(STRATEGY, strategy);
        let paginator = manifest.pointer_mut(PAGINATOR).unwrap();
        paginator["page_token_option"]["field_name"] = json!(field);
        let pass = Pass::new(manifest, None);
        let mut body = body;
        body["data"] = json!([
            order(1, "2026-03-02T00:00:00Z"),
            order(2, "2026-03-02T00:00:00Z")
        ]);
        let got = Response {
            status: 200,
            headers: vec![],
            body: Bytes::from(body.to_string()),
        };
        let page = pass.reader.page(&pass.at(), &got).unwrap();
        assert!(page.next.is_some(), "{body}");
        page.counts
    };
    let cursor = |value: &str| json!({"type": "CursorPagination", "cursor_value": value});
    let next = "{{ response.next }}";
    for (strategy, body, expected) in [
        (
            json!({"type": "OffsetIncrement", "page_size": 2}),
            json!({}),
            true,
        ),
        (json!({"type": "PageIncrement"}), json!({}), true),
        (
            cursor("{{ (response.page | int) + 1 }}"),
            json!({"page": 1}),
            true,
        ),
        (cursor(next), json!({"next": "2"}), true),
        (
            cursor(next),
            json!({"next": "https://a.example.com/orders?limit=50&page=2"}),
            true,
        ),
        (
            cursor(next),
            json!({"next": "/orders?page%5Bnumber%5D=2"}),
            true,
        ),
        (cursor(next), json!({"next": "?Offset=100#x"}), true),
        (
            cursor(next),
            json!({"next": "https://a.example.com/orders?limit=50&page_info=abc"}),
            false,
        ),
        (
            cursor(next),
            json!({"next": "https://a.example.com/orders?after=17&limit=50"}),
            false,
        ),
        (cursor(next), json!({"next": "eyJpZCI6MX0"}), false),
        (cursor(next), json!({"next": "17000000001234567"}), false),
        (cursor("{{ last_record['id'] }}"), json!({}), false),
    ] {
        assert_eq!(
            counts("page", strategy.clone(), body.clone()),
            expected,
            "{strategy} {body}"
        );
    }
    // A number that is sent under another name may be an id.
    for (field, expected) in [
        ("Page", true),
        ("offset", true),
        ("after", false),
        ("cursor", false),
    ] {
        assert_eq!(
            counts(field, cursor(next), json!({"next": 2})),
            expected,
            "{field}"
        );
    }
}

#[test]
fn relations_of_links_have_no_case_and_parameters_no_order() {
    for (header, next) in [
        ("<u>; rel=Next", Some("u")),
        ("<u>; rel=\"NEXT\"", Some("u")),
        (
            "<a>; rel=prev, <u>; title=\"x, y; rel=z\"; rel=next",
            Some("u"),
        ),
        ("<a>; rel=\"first\",<u>;rel=\"next last\"", Some("u")),
        ("<u>; type=\"a\\\"b\"; REL = next ; foo", Some("u")),
        ("<u>; rel='next'", Some("u")),
        ("<u>; rel=prev; rel=next", None),
        ("<u>; rel=nextpage", None),
        (
            "<https://a.example.com/?q=1,2;3>; rel=next",
            Some("https://a.example.com/?q=1,2;3"),
        ),
    ] {
        let found = links(header);
        let found = found.iter().find(|(relation, _)| relation == "next");
        assert_eq!(found.map(|(_, url)| url.as_str()), next, "{header}");
        for place in [
            "headers['link'].next.url",
            "headers['Link']['Next'].url",
            "headers.link.next['url']",
        ] {
            let strategy =
                json!({"type": "CursorPagination", "cursor_value": format!("{{{{ {place} }}}}")});
            let mut pass = Pass::new(shop_with(STRATEGY, strategy), None);
            pass.gets_with(
                &[("link", header)],
                json!({"data": [order(1, "2026-03-02T00:00:00Z")]}),
            )
            .unwrap();
            assert_eq!(pass.next, next.map(Value::from), "{place} {header}");
        }
    }
}

proptest! {
    #[test]
    fn no_header_makes_the_link_parser_panic(text in "[<>;,=\" a-z]{0,60}") {
        let _ = links(&text);
    }
}
