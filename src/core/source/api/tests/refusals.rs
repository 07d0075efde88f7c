use super::*;
use proptest::prelude::*;

#[test]
fn an_unknown_component_or_key_is_refused_by_name() {
    for (pointer, value, message) in [
        (
            "/type",
            json!("CustomSource"),
            "manifest component \"CustomSource\" at the top is not supported",
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
            json!({"type": "JwtAuthenticator"}),
            "manifest component \"JwtAuthenticator\" at \"streams[0].retriever.requester.authenticator\" is not supported",
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
            "\"streams[0].retriever.paginator.page_token_option.inject_into\" of the manifest cannot be \"cookie\"; known values: \"request_parameter\", \"header\", \"body_data\", \"body_json\"",
        ),
        (
            "/streams/0/retriever/requester/$ref",
            json!("#/definitions/missing"),
            "the manifest has no \"#/definitions/missing\", which a \"$ref\" names",
        ),
        (
            "/definitions/requester",
            json!({"$ref": "#/definitions/requester"}),
            "the manifest is too large or refers to itself",
        ),
        (
            "/streams/0/incremental_sync/datetime_format",
            json!("%Q"),
            "\"streams[0].incremental_sync.datetime_format\": date format code \"%Q\" is not supported",
        ),
        (
            "/definitions/requester/path",
            json!("{{ config.x | hash }}"),
            "the template at \"streams[0].retriever.requester.path\" uses the filter \"hash\", which is not supported",
        ),
        (
            "/definitions/requester/path",
            json!("{{ response.x }}"),
            "the template at \"streams[0].retriever.requester.path\" uses \"response\", which is not available there",
        ),
        (
            PAGINATOR,
            json!({"type": "DefaultPaginator", "page_size": 100, "pagination_strategy": {"type": "PageIncrement", "page_size": 100}}),
            "manifest key \"streams[0].retriever.paginator.page_size\" of DefaultPaginator is not supported; it belongs in \"streams[0].retriever.paginator.pagination_strategy\"",
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
fn an_empty_unknown_key_hides_no_other() {
    let mut manifest = shop();
    let selector = &mut manifest["streams"][0]["retriever"]["record_selector"];
    selector["a_key"] = json!(null);
    selector["record_filter"] = json!({"type": "RecordFilter"});
    assert_eq!(
        refused(manifest),
        "manifest key \"streams[0].retriever.record_selector.record_filter\" of RecordSelector is not supported"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_place() {
    const SYNC: &str = "streams[0].incremental_sync";
    const PAGING: &str = "streams[0].retriever.paginator.pagination_strategy";
    for (pointer, key, value, message) in [
        (
            "/streams/0/incremental_sync",
            "lookback_window",
            json!("{{ config['shop'] }}"),
            format!("\"{SYNC}.lookback_window\" has to be a duration, such as \"P1D\""),
        ),
        (
            "/streams/0/incremental_sync",
            "cursor_field",
            json!("{{ now_utc() }}"),
            format!("\"{SYNC}.cursor_field\" of the manifest may only depend on config"),
        ),
        (
            "/streams/0/incremental_sync",
            "cursor_datetime_formats",
            json!(["%Y", "%Q"]),
            format!("\"{SYNC}.cursor_datetime_formats\": date format code \"%Q\" is not supported"),
        ),
        (
            STRATEGY,
            "page_size",
            json!("many"),
            format!("\"{PAGING}.page_size\" of the manifest is not a whole number"),
        ),
        (
            STRATEGY,
            "page_size",
            json!(0),
            format!("\"{PAGING}.page_size\" may not be 0"),
        ),
        (
            "/definitions/requester",
            "http_method",
            json!("DELETE"),
            "\"streams[0].retriever.requester.http_method\" of the manifest cannot be \"DELETE\"; known values: \"GET\", \"POST\"".to_owned(),
        ),
        (
            "/definitions/requester",
            "path",
            json!("{{ config.x.replace('a', 'b') }}"),
            "the template at \"streams[0].retriever.requester.path\" uses the method \"replace\", which is not supported".to_owned(),
        ),
    ] {
        let mut manifest = shop();
        manifest.pointer_mut(pointer).unwrap()[key] = value;
        assert_eq!(refused(manifest), message);
    }
}

#[test]
fn values_that_messages_show_may_not_depend_on_credentials() {
    const SYNC: &str = "streams[0].incremental_sync";
    for (pointer, key, place) in [
        (
            "/streams/0/incremental_sync",
            "cursor_field",
            &format!("{SYNC}.cursor_field")[..],
        ),
        ("/streams/0", "name", "streams[0].name"),
        ("/streams/0", "primary_key", "streams[0].primary_key"),
        (
            "/streams/0/retriever/record_selector/extractor",
            "field_path",
            "streams[0].retriever.record_selector.extractor.field_path",
        ),
    ] {
        for template in ["{{ config['api_key'] }}", "x{{ config.items() }}"] {
            let mut manifest = shop();
            manifest.pointer_mut(pointer).unwrap()[key] = json!(template);
            let message = format!("\"{place}\" of the manifest may not depend on credentials");
            assert_eq!(refused(manifest), message);
        }
        let mut manifest = shop();
        manifest.pointer_mut(pointer).unwrap()[key] = json!("{{ config['shop'] }}");
        assert!(Api.open(&definition(manifest)).is_ok());
    }
}

#[test]
fn a_base_that_is_no_url_is_refused_when_it_is_saved() {
    for base in [
        "ftp://acme.example.com",
        "acme.example.com",
        "https://",
        "https://user:sk_test_not_a_real_key@acme.example.com",
        "https://{{ config['missing'] }}.example.com",
        "file:///etc/passwd",
    ] {
        let message = refused(shop_with("/definitions/requester/url_base", json!(base)));
        assert!(message.starts_with("url_base"), "{base}: {message}");
        assert!(!message.contains("sk_test"));
    }
}

proptest! {
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
                    let _ = reader.request(&Position { stream, window, start: start(), next: None, high: None, access: None });
                }
            }
        }
    }
}
