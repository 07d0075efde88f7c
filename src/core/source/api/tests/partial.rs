//! What a manifest does not read is said: no paginator, one that ends too early, a key that is not there.

use super::*;

fn read(
    manifest: &Value,
    next: Option<Value>,
    headers: &[(&str, &str)],
    body: &Value,
) -> Result<Page, Failure> {
    let mut pass = Pass::new(manifest.clone(), None);
    pass.next = next;
    let headers = headers
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    let got = Response {
        status: 200,
        headers: headers.collect(),
        body: Bytes::from(body.to_string()),
    };
    pass.reader.page(&pass.at(), &got)
}

fn with_path(path: Value, paginator: Option<Value>) -> Value {
    let mut manifest = shop_with(
        "/streams/0/retriever/record_selector/extractor/field_path",
        path,
    );
    let stream = manifest["streams"][0].as_object_mut().unwrap();
    stream.remove("incremental_sync");
    let retriever = stream["retriever"].as_object_mut().unwrap();
    match paginator {
        Some(strategy) => {
            retriever["paginator"] =
                json!({"type": "DefaultPaginator", "pagination_strategy": strategy});
        }
        None => {
            retriever.remove("paginator");
        }
    }
    manifest
}

const ROWS: [u64; 3] = [1, 2, 3];

fn rows() -> Value {
    ROWS.map(|id| json!({"id": id})).to_vec().into()
}

#[test]
fn a_manifest_without_a_paginator_says_when_there_is_more() {
    let plain = with_path(json!(["data"]), None);
    let deep = with_path(json!(["result", "items"]), None);
    let relay = with_path(json!(["data", "orders", "nodes"]), None);
    let items = rows();
    for (manifest, body, saw) in [
        (
            &plain,
            json!({"data": items, "total": 500}),
            "\"total\" is 500, and 3 records came",
        ),
        (
            &plain,
            json!({"data": items, "meta": {"total_count": "4"}}),
            "\"total_count\" is 4",
        ),
        (
            &plain,
            json!({"data": items, "@odata.count": 9}),
            "\"@odata.count\" is 9",
        ),
        (
            &plain,
            json!({"data": items, "has_more": true}),
            "\"has_more\" is true",
        ),
        (
            &plain,
            json!({"data": items, "hasMore": "true"}),
            "\"hasMore\" is true",
        ),
        (
            &plain,
            json!({"data": items, "last": false, "number": 0}),
            "\"last\" is false",
        ),
        (
            &plain,
            json!({"data": items, "next": "https://x.example.com/?page=2"}),
            "{{ response.next }}",
        ),
        (
            &plain,
            json!({"data": items, "next_page": 2, "page": 1}),
            "{{ response.next_page }}",
        ),
        (
            &plain,
            json!({"data": items, "paging": {"next": {"after": "a", "link": "l"}}}),
            "{{ response.paging.next.after }}",
        ),
        (
            &plain,
            json!({"data": items, "@odata.nextLink": "u"}),
            "{{ response['@odata.nextLink'] }}",
        ),
        (
            &plain,
            json!({"data": items, "_links": {"next": {"href": "/orders?page=2"}}}),
            "{{ response._links.next.href }}",
        ),
        (
            &plain,
            json!({"data": items, "links": [{"rel": "self", "href": "a"}, {"rel": "Next", "href": "b"}]}),
            "\"rel\": \"next\"",
        ),
        (
            &plain,
            json!({"data": items, "page": 1, "pages": 7}),
            "\"pages\" is 7, and this is page 1",
        ),
        (
            &plain,
            json!({"data": items, "totalPages": 2, "number": 0}),
            "\"totalPages\" is 2",
        ),
        (
            &plain,
            json!({"data": items, "meta": {"current_page": 1, "last_page": 2}}),
            "\"last_page\" is 2",
        ),
        (
            &plain,
            json!({"data": items, "response_metadata": {"next_cursor": "c"}}),
            "{{ response.response_metadata.next_cursor }}",
        ),
        (
            &deep,
            json!({"ok": true, "result": {"items": items, "nextToken": "t"}}),
            "{{ response.result.nextToken }}",
        ),
        (
            &deep,
            json!({"total": 12, "result": {"items": items}}),
            "\"total\" is 12",
        ),
        (
            &relay,
            json!({"data": {"orders": {"nodes": items, "pageInfo": {"hasNextPage": true, "endCursor": "e"}}}}),
            "\"hasNextPage\" is true",
        ),
    ] {
        let page = read(manifest, None, &[], &body).unwrap();
        let warning = page.warning.unwrap_or_else(|| panic!("{body}"));
        assert!(
            warning.starts_with("stream \"orders\": only the first page was read"),
            "{warning}"
        );
        assert!(warning.contains(saw), "{warning}");
        assert!(warning.contains("\"paginator\""), "{warning}");
        // A number alone may count something else.
        assert_eq!(page.is_partial, !saw.starts_with("\"total\""), "{body}");
        assert_eq!(page.records.len(), 3);
    }
    for (headers, saw) in [
        (
            &[("link", "<https://a.example.com/?page=2>; rel=\"Next\"")][..],
            "\"Link\"",
        ),
        (&[("x-total-count", "40")], "\"x-total-count\" is 40"),
        (&[("x-next-page", "2")], "\"X-Next-Page\""),
        (
            &[("content-range", "items 0-2/7")],
            "\"Content-Range\" is 7",
        ),
    ] {
        for body in [json!({"data": items}), json!({"data": items, "note": "n"})] {
            let warning = read(&plain, None, headers, &body).unwrap().warning.unwrap();
            assert!(warning.contains(saw), "{warning}");
        }
    }
}

#[test]
fn a_number_alone_is_said_and_stops_no_search_for_deletions() {
    let plain = with_path(json!(["data"]), None);
    let items = rows();
    for (body, says, is_partial) in [
        (json!({"data": items, "total": 60}), true, false),
        (json!({"data": items, "count": 60}), true, false),
        (json!({"data": items, "recordsTotal": 60}), true, false),
        (json!({"data": items, "meta": {"total": 60}}), true, false),
        (
            json!({"data": items, "total": 60, "next": null}),
            true,
            false,
        ),
        (json!({"data": items, "total": 60, "limit": 3}), true, true),
        (
            json!({"data": items, "count": 60, "offset": "0"}),
            true,
            true,
        ),
        (json!({"data": items, "total": 60, "page": 1}), true, true),
        (json!({"data": items, "total": 60, "next": "n"}), true, true),
        (
            json!({"data": items, "total": 60, "has_more": true}),
            true,
            true,
        ),
        (
            json!({"data": items, "pagination": {"total": 60}}),
            true,
            true,
        ),
        (json!({"data": items, "total_count": 60}), true, true),
        // How many are on this page says nothing of others.
        (
            json!({"data": items, "count": 3, "has_more": true}),
            true,
            true,
        ),
        (
            json!({"data": items, "count": 3, "total": 60, "limit": 3}),
            true,
            true,
        ),
        (
            json!({"data": items, "total": 60, "has_more": false}),
            false,
            false,
        ),
        (json!({"data": items, "total": 60.5}), false, false),
        (json!({"data": items, "total": "60.50"}), false, false),
        (
            json!({"data": items, "total_price": 60, "limit": 3}),
            false,
            false,
        ),
        (
            json!({"data": items, "totalAmount": 60, "limit": 3}),
            false,
            false,
        ),
        // Where nothing came, a number is enough.
        (json!({"data": [], "total": 60}), true, true),
        (json!({"data": [], "total": 0}), false, false),
    ] {
        let page = read(&plain, None, &[], &body).unwrap();
        let seen = (page.warning.is_some(), page.is_partial);
        assert_eq!(seen, (says, is_partial), "{body}");
    }
}

#[test]
fn what_stands_beside_the_records_is_looked_into_within_bounds() {
    let plain = with_path(json!(["data"]), None);
    let of = |length: usize| json!({"data": rows(), "has_more": true, "note": "x".repeat(length)});
    let warning = |body: &Value| read(&plain, None, &[], body).unwrap().warning;
    assert!(warning(&of(200_000)).is_some());
    assert_eq!(warning(&of(300_000)), None);
    let body = json!({"kind": "k", "note": "x".repeat(300_000)});
    let failure = read(&plain, None, &[], &body).unwrap_err();
    assert_eq!(failure.code, Code::UnexpectedShape);
    // A template that looks at the records does not see more values than there may be.
    let strategy = json!({"type": "CursorPagination", "cursor_value": "{{ response.data[0].id }}"});
    let looks = with_path(json!(["data"]), Some(strategy));
    let body = json!({"data": [{"id": 1, "values": vec![1; 500_000]}, {"id": 2}]});
    let mut pass = Pass::new(looks, None);
    assert_eq!(pass.gets(body).unwrap_err().code, Code::ResponseTooLarge);
    assert_eq!(pass.gets(json!({"data": [{"id": 1}]})), Ok(1));
    assert_eq!(pass.next, Some(json!(1)));
}

#[test]
fn an_ordinary_body_is_no_alarm() {
    let plain = with_path(json!(["data"]), None);
    let items = rows();
    for body in [
        json!({"data": items}),
        json!({"data": items, "total": 3, "count": 3, "has_more": false, "next": null}),
        json!({"data": items, "total": 129.5, "currency": "EUR"}),
        json!({"data": items, "next": "", "next_page": null, "previous": "p"}),
        json!({"data": items, "page": 1, "pages": 1, "per_page": 50}),
        json!({"data": items, "number": 0, "totalPages": 1, "last": true}),
        json!({"data": items, "meta": {"limit": 100, "offset": 0, "count": 3, "request_id": "r"}}),
        json!({"data": items, "links": {"self": "s", "first": "f", "last": "l"}}),
        json!({"data": items, "links": [{"rel": "self", "href": "next"}]}),
        json!({"data": items, "nextSyncToken": "t", "kind": "calendar#events"}),
        json!({"data": items, "paging": {"cursors": {"before": "b", "after": "a"}}}),
        json!({"data": items, "@odata.context": "c", "@odata.count": 3}),
        json!({"data": items, "next_page_token": "t", "has_more": false}),
        json!({"data": items, "shop": {"next": "n", "total": 99}, "next_steps": ["a"]}),
        json!({"data": [{"id": 1, "next": "n", "has_more": true, "total": 70}]}),
        json!({"data": [], "total": 0, "next": false}),
    ] {
        let page = read(&plain, None, &[], &body).unwrap();
        assert_eq!(page.warning, None, "{body}");
        assert!(!page.is_partial, "{body}");
    }
    // Where the body is the record, its fields say nothing of pages.
    let whole = with_path(json!([]), None);
    let body = json!({"id": 1, "total": 500, "next": "n", "pages": 9});
    assert_eq!(read(&whole, None, &[], &body).unwrap().warning, None);
    // A total counts what is listed, not what lies in it.
    let lines = with_path(json!(["orders", "*", "lines"]), None);
    let body =
        json!({"orders": [{"id": 1, "lines": [{"id": 1}]}, {"id": 2}, {"id": 3}], "total": 3});
    let page = read(&lines, None, &[], &body).unwrap();
    assert_eq!((page.warning, page.records.len()), (None, 1));
}

#[test]
fn a_paginator_that_ends_too_early_is_said() {
    let items = rows();
    let offset = json!({"type": "OffsetIncrement", "page_size": 4});
    let page = json!({"type": "PageIncrement", "page_size": 4, "start_from_page": 1});
    let cursor = json!({"type": "CursorPagination", "cursor_value": "{{ response.nxt }}"});
    let stopped = json!({"type": "CursorPagination", "cursor_value": "{{ response.next }}", "stop_condition": "{{ true }}"});
    for (strategy, next, body, says) in [
        (&offset, None, json!({"data": items, "total": 4}), true),
        (
            &offset,
            Some(json!(4)),
            json!({"data": items, "total": 8}),
            true,
        ),
        (
            &offset,
            Some(json!(4)),
            json!({"data": items, "total": 7}),
            false,
        ),
        (
            &offset,
            Some(json!(4)),
            json!({"data": items, "has_more": true}),
            true,
        ),
        (&page, None, json!({"data": items, "next": "n"}), true),
        (
            &page,
            Some(json!(3)),
            json!({"data": items, "total": 11}),
            false,
        ),
        (
            &page,
            Some(json!(3)),
            json!({"data": items, "total": 12}),
            true,
        ),
        (
            &page,
            Some(json!(3)),
            json!({"data": items, "page": 3, "pages": 3}),
            false,
        ),
        (
            &page,
            Some(json!(2)),
            json!({"data": items, "number": 2, "totalPages": 3}),
            false,
        ),
        (&cursor, None, json!({"data": items, "next": "n"}), true),
        (&cursor, None, json!({"data": items, "next": null}), false),
        (
            &cursor,
            Some(json!("t")),
            json!({"data": items, "total": 99}),
            false,
        ),
        (
            &stopped,
            None,
            json!({"data": items, "next": "n", "has_more": true}),
            false,
        ),
    ] {
        let manifest = with_path(json!(["data"]), Some(strategy.clone()));
        let page = read(&manifest, next, &[], &body).unwrap();
        assert_eq!(page.next, None, "{body}");
        assert_eq!(
            page.warning.is_some(),
            says,
            "{strategy} {body} {:?}",
            page.warning
        );
        assert_eq!(page.is_partial, says);
    }
}

#[test]
fn a_key_that_no_record_has_is_said() {
    let manifest = |key: Value| {
        let mut manifest = with_path(json!(["data"]), None);
        manifest["streams"][0]["primary_key"] = key;
        manifest
    };
    let body = json!({"data": [{"id": 1, "shop": null}, {"id": 2, "shop": null}]});
    for (key, says) in [
        (json!("id"), None),
        (json!(["id"]), None),
        (json!(""), None),
        (
            json!("idd"),
            Some(
                "no record of the page has a value in \"idd\", which primary_key names: records are known by their content",
            ),
        ),
        (json!(["idd", "nope"]), Some("\"idd\", \"nope\"")),
        (
            json!(["id", "shop"]),
            Some("\"shop\", which primary_key names: it tells no record from another"),
        ),
        (json!([["id", "deep"]]), Some("\"id.deep\"")),
    ] {
        let page = read(&manifest(key.clone()), None, &[], &body).unwrap();
        let warning = page.warning;
        match says {
            None => assert_eq!(warning, None, "{key}"),
            Some(says) => assert!(warning.as_deref().unwrap().contains(says), "{warning:?}"),
        }
        assert_eq!(page.records.len(), 2);
    }
    let empty = read(&manifest(json!("idd")), None, &[], &json!({"data": []})).unwrap();
    assert_eq!(empty.warning, None);
}

#[test]
fn one_object_in_the_place_of_a_list_needs_its_key() {
    let manifest = with_path(json!(["data"]), None);
    for (body, expected) in [
        (json!({"data": {}}), Ok(0)),
        (json!({"data": null}), Ok(0)),
        (json!({"data": {"id": 7}}), Ok(1)),
        (
            json!({"data": {"message": "Unauthorized"}}),
            Err(Code::UnexpectedShape),
        ),
        (
            json!({"data": {"id": null, "error": "e"}}),
            Err(Code::UnexpectedShape),
        ),
        (json!({"data": [{"message": "m"}, {"id": 1}]}), Ok(2)),
    ] {
        let page = read(&manifest, None, &[], &body);
        let count = page
            .map(|page| page.records.len())
            .map_err(|failure| failure.code);
        assert_eq!(count, expected, "{body}");
    }
}

#[test]
fn a_list_that_is_left_out_is_said_or_declared() {
    let manifest = with_path(json!(["items"]), None);
    for (body, is_read) in [
        (json!({}), true),
        (json!({"kind": "calendar#events", "etag": "e"}), true),
        (json!({"resultSizeEstimate": 0}), true),
        (json!({"total": 0, "next": null}), true),
        (json!({"code": 0, "message": "success", "total": 0}), true),
        // An error, or another list: the path is wrong.
        (json!({"kind": "k", "error": {"code": 500}}), false),
        (json!({"count": 0, "message": "Rate limit exceeded"}), false),
        (json!({"total": 1, "success": false}), false),
        (json!({"total": 2, "data": [{"id": 1}, {"id": 2}]}), false),
        (json!({"total": 2, "result": {"rows": [{"id": 1}]}}), false),
        (json!({"oops": 1}), false),
        (json!([]), false),
    ] {
        let page = read(&manifest, None, &[], &body);
        match (is_read, page) {
            (true, Ok(page)) => {
                assert!(
                    page.warning.unwrap().contains("has nothing at \"items\""),
                    "{body}"
                );
                assert!(page.records.is_empty() && page.next.is_none() && page.is_partial);
            }
            (false, Err(failure)) => {
                // What an error says of itself is believed.
                let code = match () {
                    () if body.get("error").is_some() => Code::ServerError,
                    () if body.get("message").is_some() => Code::RateLimited,
                    () => Code::UnexpectedShape,
                };
                assert_eq!(failure.code, code, "{body}");
            }
            (_, page) => panic!("{body}: {page:?}"),
        }
    }
    // Declared: no word.
    let mut declared = manifest;
    declared["definitions"]["requester"]["error_handler"] = json!({"type": "CompositeErrorHandler", "error_handlers": [
        {"response_filters": [
            {"type": "HttpResponseFilter", "action": "IGNORE", "predicate": "{{ 'items' not in response }}"},
            {"action": "IGNORE", "http_codes": [404]},
            {"action": "RATE_LIMITED", "error_message_contains": "slow down"},
            {"action": "FAIL", "http_codes": [503], "error_message": "no"}],
         "max_retries": 3, "backoff_strategies": [{"type": "ConstantBackoffStrategy", "backoff_time_in_seconds": 5}]}]});
    let page = read(&declared, None, &[], &json!({"kind": "k"})).unwrap();
    assert_eq!(
        (page.warning, page.records.len(), page.is_partial),
        (None, 0, true)
    );
    let got = |status, body: &str| Response {
        status,
        headers: vec![],
        body: Bytes::from(body.to_owned()),
    };
    let mut pass = Pass::new(declared, None);
    let verdict = |pass: &Pass, got: &Response| match pass.reader.verdict(&pass.at(), got) {
        Verdict::Read => "read".to_owned(),
        Verdict::Retry(failure) => format!("retry {}", failure.code.word()),
        Verdict::Fail(failure) => format!("fail {}", failure.code.word()),
        other => format!("{other:?}"),
    };
    for (status, body, expected) in [
        (404, r#"{"items": 1}"#, "read"),
        (400, r#"{"items": "slow down"}"#, "retry rate_limited"),
        (503, r#"{"items": 1}"#, "fail request_refused"),
        (500, r#"{"items": 1}"#, "retry server_error"),
        (200, r#"{"items": []}"#, "read"),
    ] {
        assert_eq!(verdict(&pass, &got(status, body)), expected, "{status}");
    }
    // A 404 behind the last page ends the pass; of a first page nothing is known.
    let not_found = got(404, r#"{"items": 1}"#);
    assert!(pass.reader.page(&pass.at(), &not_found).unwrap().is_partial);
    pass.next = Some(json!(2));
    let page = pass.reader.page(&pass.at(), &not_found).unwrap();
    assert_eq!(
        (page.is_partial, page.next, page.records.len()),
        (false, None, 0)
    );
    // Nothing is declared: an error, as before.
    let plain = Pass::new(with_path(json!(["items"]), None), None);
    assert_eq!(verdict(&plain, &not_found), "fail not_found");
}

fn with_filters(filters: Value) -> Value {
    let mut manifest = with_path(json!(["items"]), None);
    manifest["definitions"]["requester"]["error_handler"] =
        json!({"type": "DefaultErrorHandler", "response_filters": filters});
    manifest
}

fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
    let named = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Response {
        status,
        headers: headers.iter().map(named).collect(),
        body: Bytes::from(body.to_owned()),
    }
}

#[test]
fn a_filter_does_not_pass_over_what_it_cannot_read() {
    let pass = Pass::new(
        with_filters(json!([
            {"action": "IGNORE", "predicate": "{{ 'items' not in response }}"},
            {"action": "IGNORE", "error_message_contains": "nothing here"},
            {"action": "FAIL", "predicate": "{{ headers['x-state'] == 'closed' }}"}])),
        None,
    );
    let large = json!({"items": [{"id": 1}], "note": "x".repeat(1024 * 1024)}).to_string();
    let lines =
        "{\"items\": [{\"id\": 1}]}\n{\"items\": [{\"id\": 2, \"note\": \"nothing here\"}]}";
    for (body, records) in [
        (large.as_str(), 1),
        (lines, 2),
        (r#"{"items": [{"id": 1}]}"#, 1),
        (r#"{"kind": "k"}"#, 0),
        (r#"{"items": [], "message": "nothing here"}"#, 0),
    ] {
        let page = pass.reader.page(&pass.at(), &response(200, &[], body));
        let page = page.unwrap();
        let about = body.get(..40).unwrap_or(body);
        assert_eq!(page.records.len(), records, "{about}");
        assert!(page.is_partial || records > 0, "{about}");
    }
    let failure = pass
        .reader
        .page(&pass.at(), &response(200, &[], "<html>no</html>"));
    assert_eq!(failure.unwrap_err().code, Code::InvalidJson);
    // Headers are read whatever the body is.
    let closed = response(200, &[("x-state", "closed")], lines);
    let verdict = pass.reader.verdict(&pass.at(), &closed);
    assert!(matches!(verdict, Verdict::Fail(_)), "{verdict:?}");
}

#[test]
fn a_refusal_is_passed_over_only_where_its_status_is_named() {
    let predicate = "{{ 'items' not in response }}";
    for (filter, passed) in [
        (json!({"action": "IGNORE", "predicate": predicate}), None),
        (json!({"action": "SUCCESS", "predicate": predicate}), None),
        (
            json!({"action": "IGNORE", "error_message_contains": "no"}),
            None,
        ),
        (
            json!({"action": "IGNORE", "predicate": predicate, "http_codes": [403]}),
            Some(403),
        ),
        (json!({"action": "IGNORE", "http_codes": [429]}), Some(429)),
        (json!({"action": "IGNORE", "http_codes": [401]}), Some(401)),
    ] {
        let pass = Pass::new(with_filters(json!([filter])), None);
        for (status, headers, code) in [
            (401, &[][..], Code::CredentialsRejected),
            (403, &[("x-ratelimit-remaining", "0")], Code::RateLimited),
            (404, &[], Code::NotFound),
            (429, &[], Code::RateLimited),
            (500, &[], Code::ServerError),
            (503, &[("retry-after", "2")], Code::RateLimited),
        ] {
            let got = response(status, headers, r#"{"message": "no"}"#);
            match pass.reader.verdict(&pass.at(), &got) {
                Verdict::Read => assert_eq!(passed, Some(status), "{filter}"),
                Verdict::Retry(failure) | Verdict::Fail(failure) => {
                    assert_eq!(failure.code, code, "{filter} {status}");
                    assert_ne!(passed, Some(status), "{filter}");
                }
                other => panic!("{filter} {status}: {other:?}"),
            }
        }
        // Other actions look at every status.
        let own = json!([{"action": "RATE_LIMITED", "error_message_contains": "slow down"}]);
        let pass = Pass::new(with_filters(own), None);
        let got = response(400, &[], "Please slow down.");
        let verdict = pass.reader.verdict(&pass.at(), &got);
        assert!(matches!(verdict, Verdict::Retry(_)), "{verdict:?}");
    }
}

#[test]
fn an_ignored_page_says_what_it_leaves_unread() {
    let codes = json!([204, 400, 403, 404, 410, 500]);
    let manifest = with_filters(json!([{"action": "IGNORE", "http_codes": codes}]));
    let mut pass = Pass::new(manifest, None);
    pass.high = Some(json!("2026-03-01"));
    for (status, next, partial, cut_off) in [
        (204, None, true, false),
        (404, None, true, false),
        (403, None, true, true),
        (204, Some(json!(2)), false, false),
        (404, Some(json!(2)), false, false),
        (410, Some(json!(2)), false, false),
        (400, Some(json!(2)), true, true),
        (403, Some(json!(2)), true, true),
        (500, Some(json!(2)), true, true),
    ] {
        pass.next = next;
        let got = response(status, &[], "{}");
        let page = pass.reader.page(&pass.at(), &got).unwrap();
        let about = format!("{status} {:?}", pass.next);
        assert_eq!(
            (page.is_partial, page.is_cut_off),
            (partial, cut_off),
            "{about}"
        );
        assert_eq!((page.next, page.records.len()), (None, 0), "{about}");
        let high = pass.high.clone().filter(|_| !cut_off);
        assert_eq!(page.high, high, "{about}");
        // A first page that is declared is no news; a pass that ends in its middle is.
        let says = page.warning.is_some();
        assert_eq!(says, cut_off && pass.next.is_some(), "{about}");
    }
}

#[test]
fn deletions_are_looked_for_where_config_says_so() {
    let open = |deletes: Value, manifest: Value| {
        let mut definition = definition(manifest);
        definition.config["deletes"] = deletes;
        Api.open(&definition)
            .map(|reader| reader.streams()[0].whole)
    };
    let whole = with_path(json!(["data"]), None);
    for (deletes, expected) in [
        (json!(["orders"]), true),
        (json!(true), true),
        (json!(false), false),
        (json!(null), false),
        (json!([]), false),
    ] {
        assert_eq!(
            open(deletes.clone(), whole.clone()),
            Ok(expected),
            "{deletes}"
        );
    }
    assert_eq!(open(json!(true), shop()), Ok(false));
    for (deletes, manifest, says) in [
        (json!(["orders"]), shop(), "has incremental_sync"),
        (json!(["nope"]), whole.clone(), "no stream of the manifest"),
        (json!("orders"), whole.clone(), "true or a list of streams"),
        (json!([1]), whole, "true or a list of streams"),
    ] {
        let failure = open(deletes, manifest).unwrap_err();
        assert_eq!(failure.code, Code::InvalidConfig);
        assert!(failure.message.contains(says), "{}", failure.message);
    }
}
