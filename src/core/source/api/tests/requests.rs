use super::*;

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
    without.credentials = json!({"other": "sk_test_not_a_real_key"}).into();
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
fn a_relative_next_page_starts_at_the_base() {
    let strategy = json!({"type": "CursorPagination", "cursor_value": "{{ response.next }}"});
    let paginator = json!({"type": "DefaultPaginator", "pagination_strategy": strategy,
                           "page_token_option": {"type": "RequestPath"}});
    let mut manifest = shop_with(PAGINATOR, paginator);
    manifest["definitions"]["requester"]["path"] = "v1/orders".into();
    for (next, url) in [
        (
            "v1/orders?page=2",
            "https://acme.example.com/api/v1/orders?page=2&",
        ),
        (
            "orders?page=2",
            "https://acme.example.com/api/orders?page=2&",
        ),
        ("/orders?page=2", "https://acme.example.com/orders?page=2&"),
        ("?page=2", "https://acme.example.com/api/v1/orders?page=2&"),
    ] {
        let mut pass = Pass::new(manifest.clone(), None);
        let orders = json!([order(1, "2026-03-02T00:00:00Z")]);
        pass.gets(json!({"data": orders, "next": next})).unwrap();
        assert!(pass.url().starts_with(url), "{next}: {}", pass.url());
    }
}

#[test]
fn parameters_replace_missing_fields_and_the_nearest_wins() {
    let path = |manifest: Value| {
        Pass::new(manifest, None)
            .asks()
            .unwrap()
            .url
            .path()
            .to_owned()
    };
    let mut manifest = shop();
    let requester = manifest["definitions"]["requester"].as_object_mut();
    requester.unwrap().remove("path");
    assert_eq!(path(manifest.clone()), "/api/orders");
    manifest["definitions"]["requester"]["$parameters"] = json!({"path": "nearer"});
    assert_eq!(path(manifest.clone()), "/api/nearer");
    manifest["definitions"]["requester"]["path"] =
        "{{ 'v2/' ~ parameters.path if parameters.path else 'x' }}".into();
    assert_eq!(path(manifest), "/api/v2/nearer");
}

#[test]
fn config_decides_fields_that_are_not_part_of_a_request() {
    let strategy = json!({"type": "PageIncrement", "page_size": "{{ config['size'] or 50 }}",
                          "start_from_page": "1", "inject_on_first_request": true});
    let mut manifest = shop_with(STRATEGY, strategy);
    manifest["streams"][0]["incremental_sync"]["cursor_field"] = "{{ config['shop'] }}".into();
    let mut pass = Pass::new(manifest, None);
    assert!(pass.url().ends_with("&limit=50&after=1"), "{}", pass.url());
    let orders = json!([{"id": 1, "acme": "2026-03-02T00:00:00Z"}]);
    pass.gets(json!({"data": orders})).unwrap();
    assert_eq!(pass.high, Some("2026-03-02T00:00:00Z".into()));
}

#[test]
fn the_first_page_has_no_token() {
    let path = json!("{{ 'more' if next_page_token else 'first' }}");
    let mut pass = Pass::new(shop_with("/definitions/requester/path", path), None);
    assert!(pass.url().contains("/api/first?"));
    let orders = json!([order(1, "2026-03-02T00:00:00Z")]);
    pass.gets(json!({"data": orders, "next": "n", "more": true}))
        .unwrap();
    assert!(pass.url().contains("/api/more?"));
}

#[test]
fn a_header_is_sent_once_whatever_its_case() {
    let headers = json!({"authorization": "from the manifest", "Accept": "text/json"});
    let manifest = shop_with("/definitions/requester/request_headers", headers);
    let mut headers = Pass::new(manifest, None).asks().unwrap().headers;
    headers.sort();
    let expected = [
        ("Accept", "text/json"),
        ("Authorization", "Bearer sk_test_not_a_real_key"),
    ];
    assert_eq!(headers, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
}
