//! Bodies that are signed as they have to be, and that nobody should have sent.

use proptest::prelude::*;

use super::*;

/// Stands in each body, and must stand in no message.
const MARK: &str = "a_customers_data";

#[test]
fn an_unstorable_record_is_rejected_and_an_unreadable_body_is_refused() {
    let deep = format!(r#""a": {}1{}"#, "[".repeat(21), "]".repeat(21));
    let long = format!(r#""a": "{}""#, "x".repeat(10_000));
    let many = format!(r#""a": [{}1]"#, "1,".repeat(20_000));
    for kind in KINDS {
        // Of a list the one record is its first.
        let (begin, end) = match kind.name {
            "quickbooks" => (r#"[{"intuitaccountid": "310687", "id": "1", "#, "}]"),
            "stripe" => (r#"{"id": "evt_1", "#, "}"),
            "square" => (r#"{"event_id": "1", "#, "}"),
            "webhook with a time" => (r#"{"data": {"orders": [{"shop": "a", "#, "}]}}"),
            _ => ("{", "}"),
        };
        for (part, reason) in [
            (r#""a": "\u0000""#, "nul_character"),
            (r#""a": "\ud800""#, "lone_surrogate"),
            (r#""\udfff": 1"#, "lone_surrogate"),
            (r#""a": 1e200000"#, "number_out_of_range"),
            (deep.as_str(), "too_deep"),
            (long.as_str(), "too_large"),
            (many.as_str(), "too_large"),
            ("\"a\": \"\0\"", "nul_character"),
            (r#""a": "\x""#, "invalid_json"),
        ] {
            let body = format!(r#"{begin}"mark": "{MARK}", {part}{end}"#);
            let read = authentic(kind, body.as_bytes());
            let about = format!("{}: {part:.20}", kind.name);
            // Whose it is cannot be told.
            let is_unclear = matches!(part, "\"a\": \"\0\"" | r#""a": "\x""# | r#""\udfff": 1"#);
            if kind.name == "quickbooks" && is_unclear {
                let read = read.expect(&about);
                assert!(read.triggers_sync && read.rejected.is_empty() && read.records.is_empty());
                continue;
            }
            let read = read.expect(&about);
            assert!(read.records.is_empty(), "{about}");
            let reasons: Vec<&str> = read.rejected.iter().map(|one| one.reason.word()).collect();
            assert_eq!(reasons, [reason], "{about}");
            assert!(!format!("{read:?}").contains(MARK), "{about}");
        }
        let many = format!("[{}1]", "1,".repeat(MOST_RECORDS));
        let enough = many.replace("1,1]", "1]");
        let many_deeper = format!(r#"{{"data": {{"orders": {many}}}}}"#);
        let pile = "[".repeat(100_000);
        for body in [
            "",
            " ",
            "{",
            "nul",
            "<html>",
            "{\"id\": \"a_customers_data",
            "{} {}",
            "a_customers_data",
            pile.as_str(),
            many.as_str(),
            many_deeper.as_str(),
        ] {
            let about = format!("{}: {body:.20}", kind.name);
            let is_one = kind.name == "webhook with a time" && body == many;
            match authentic(kind, body.as_bytes()) {
                Err(Refusal::Unreadable(why)) => assert!(!why.contains(MARK), "{about}: {why}"),
                // One object.
                Ok(read) if body == many_deeper && !is_one => {
                    assert_eq!((read.records.len(), read.rejected.len()), (0, 1), "{about}");
                }
                other => panic!("{about}: {other:?}"),
            }
        }
        if kind.name == "webhook" {
            let read = authentic(kind, enough.as_bytes()).unwrap();
            assert_eq!(read.rejected.len(), MOST_RECORDS);
        }
    }
    for (name, body) in [
        ("stripe", r#"{"object": "event"}"#),
        ("stripe", r#"{"id": 7}"#),
        ("stripe", r#"{"id": ""}"#),
        ("stripe", r#"{"id": "a b"}"#),
        ("stripe", r#"[{"id": "evt_1"}]"#),
        ("square", r#"{"id": "evt_1"}"#),
        ("square", r#"null"#),
        ("shopify", r#"[]"#),
        ("erpnext", r#""form=data""#),
        ("erpnext", "doctype=Item&name=1"),
        ("quickbooks", r#"{"id": "1", "intuitaccountid": "310687"}"#),
        (
            "quickbooks",
            r#"{"eventNotifications": [{"realmId": 310687}]}"#,
        ),
        ("webhook with a time", r#"{"data": {}}"#),
        ("webhook with a time", r#"[]"#),
    ] {
        let read = authentic(&kind(name), body.as_bytes());
        assert!(
            matches!(read, Err(Refusal::Unreadable(_))),
            "{name}: {body}: {read:?}"
        );
    }
}

/// Something like JSON.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("{"),
        Just("}"),
        Just("["),
        Just("]"),
        Just(","),
        Just(":"),
        Just("\""),
        Just("\\"),
        Just("\\u0000"),
        Just("\"id\""),
        Just("\"eventNotifications\""),
        Just("\"realmId\""),
        Just("\"310687\""),
        Just("\"data\""),
        Just("\"orders\""),
        Just("\"intuitaccountid\""),
        Just("\"dataChangeEvent\""),
        Just("\"entities\""),
        Just("\"event_id\""),
        Just("null"),
        Just("1"),
        Just("-1e9"),
        Just(" "),
        Just("\u{FEFF}"),
        Just("\0"),
    ];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(word, 0..60).prop_map(|words| words.concat().into_bytes()),
        (0..KINDS.len(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(kind, at, byte)| {
            let mut body = KINDS[kind].body.as_bytes().to_vec();
            let at = at.index(body.len());
            body[at] = byte;
            body
        }),
    ]
}

fn headers() -> impl Strategy<Value = Headers> {
    let name = prop_oneof![
        Just("stripe-signature"),
        Just("x-shopify-hmac-sha256"),
        Just("x-shopify-shop-domain"),
        Just("x-square-hmacsha256-signature"),
        Just("intuit-signature"),
        Just("x-frappe-webhook-signature"),
        Just("x-signature"),
        Just("x-time"),
        Just("x-hub-signature-256"),
        Just("x-other"),
    ];
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        "[0-9a-fA-F]{60,66}".prop_map(String::into_bytes),
        "sha256=[0-9a-f]{64}".prop_map(String::into_bytes),
        "[A-Za-z0-9+/]{42,43}={0,2}".prop_map(String::into_bytes),
        "t=[0-9]{0,20}(,v[01]=[0-9a-f]{60,64}){0,3}".prop_map(String::into_bytes),
        "[0-9]{0,22}".prop_map(String::into_bytes),
    ];
    prop::collection::vec((name.prop_map(str::to_owned), value), 0..12)
}

proptest! {
    #[test]
    fn hostile_headers_and_bodies_never_panic(headers in headers(), body in body(), seconds in any::<i32>()) {
        let now = DateTime::from_timestamp(i64::from(seconds), 0).unwrap();
        for kind in KINDS {
            let hook = hook_of(kind, json!([KEY, NEW_KEY]));
            let read = receive_at(hook.as_ref(), now, &headers, &body);
            prop_assert!(matches!(read, Err(Refusal::Unauthentic)), "{}", kind.name);
            if let Ok(read) = authentic(kind, &body) {
                prop_assert!(read.records.len() + read.rejected.len() <= MOST_RECORDS);
                let prefix = format!("{}/", read.stream);
                for record in &read.records {
                    prop_assert!(record.id.starts_with(&prefix) && !record.id.contains('\0'));
                    prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&record.json).is_ok());
                }
            }
        }
    }
}
