#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod fuzz;
mod identity;

use super::identity::hex;
use super::*;
use proptest::prelude::*;

const LIMITS: RecordLimits = RecordLimits {
    bytes: 10_000,
    depth: 100,
    key: 64,
};

fn path(text: &str) -> Vec<String> {
    text.split('.')
        .filter(|key| !key.is_empty())
        .map(str::to_owned)
        .collect()
}

fn read_with(body: &[u8], at: &str, keys: &[&str]) -> Result<Found, Failure> {
    let keys: Vec<Vec<String>> = keys.iter().map(|key| path(key)).collect();
    let cursor = path("updated");
    let spec = Spec {
        stream: "orders",
        path: &path(at),
        key: &keys,
        cursor: Some(&cursor),
        gone: None,
        limits: LIMITS,
        lines: &[],
    };
    records(&Bytes::copy_from_slice(body), &spec)
}

fn read(body: &str) -> Found {
    read_with(body.as_bytes(), "data", &["id"]).unwrap()
}

fn code(body: &[u8], at: &str) -> Code {
    read_with(body, at, &["id"]).map(drop).unwrap_err().code
}

fn ids(found: &Found) -> Vec<&str> {
    found
        .records
        .iter()
        .map(|record| record.id.as_str())
        .collect()
}

fn reasons(found: &Found) -> Vec<Reason> {
    found
        .rejected
        .iter()
        .map(|rejected| rejected.reason)
        .collect()
}

#[test]
fn a_record_keeps_its_own_text() {
    let found =
        read(r#"{"data": [ {"id": 1,  "total": 10.00} ,{"id":"a/b","total":1e2}], "more": false}"#);
    let texts: Vec<_> = found
        .records
        .iter()
        .map(|r| std::str::from_utf8(&r.json).unwrap())
        .collect();
    assert_eq!(
        texts,
        [
            r#"{"id": 1,  "total": 10.00}"#,
            r#"{"id":"a/b","total":1e2}"#
        ]
    );
    assert_eq!(ids(&found), ["orders/1", "orders/a/b"]);
    assert_eq!(found.last.unwrap(), texts[1]);
}

#[test]
fn numbers_beyond_a_double_keep_every_digit_in_the_id() {
    assert_eq!(
        ids(&read(r#"{"data":[{"id":12345678901234567890123}]}"#)),
        ["orders/12345678901234567890123"]
    );
}

#[test]
fn a_record_without_an_id_is_identified_by_its_content() {
    let body = r#"{"data":[{"v":1},{"id":null,"v":1}]}"#;
    let found = read(body);
    assert_eq!(found.records.len(), 2);
    for record in &found.records {
        assert_eq!(record.id, format!("orders/{}", hex(&record.hash)));
    }
}

#[test]
fn a_key_of_several_parts_is_framed() {
    let body = br#"[{"a":"x","b":"yz"},{"a":"xy","b":"z"},{"a":"x"},{"b":"x"},{"c":1}]"#;
    let found = read_with(body, "", &["a", "b"]).unwrap();
    let mut distinct = ids(&found);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 5);
    assert!(distinct.iter().all(|id| id.len() == "orders/#".len() + 32));
}

#[test]
fn every_part_of_a_very_long_key_counts() {
    let names: Vec<String> = (0..130).map(|part| format!("k{part}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for differs in [0, 63, 64, 129] {
        let record = |value: u8| {
            let fields = names.iter().enumerate().map(|(at, name)| {
                let value = if at == differs { value } else { 0 };
                format!("\"{name}\":{value}")
            });
            format!("{{{},\"updated\":7}}", fields.collect::<Vec<_>>().join(","))
        };
        let body = format!("[{},{}]", record(1), record(2));
        let found = read_with(body.as_bytes(), "", &names).unwrap();
        let ids = ids(&found);
        assert_ne!(ids[0], ids[1], "{differs}");
        assert_eq!(found.cursors, ["7", "7"]);
    }
}

#[test]
fn paths_lead_to_records_wherever_they_are() {
    let read = |body: &str, at| ids(&read_with(body.as_bytes(), at, &["id"]).unwrap()).join(" ");
    assert_eq!(read(r#"[{"id":1},{"id":2}]"#, ""), "orders/1 orders/2");
    assert_eq!(read(r#"{"id":1}"#, ""), "orders/1");
    assert_eq!(read(r#"{"a":{"b":[{"id":1}]}}"#, "a.b"), "orders/1");
    assert_eq!(
        read(r#"{"a":{"x":{"id":1},"y":{"id":2}}}"#, "a.*"),
        "orders/1 orders/2"
    );
    assert_eq!(
        read(r#"{"a":[{"b":[{"id":1}]},{"b":[{"id":2}]}]}"#, "a.*.b"),
        "orders/1 orders/2"
    );
    // An item without the rest of the path has no records.
    assert_eq!(
        read(
            r#"{"a":[{"b":[{"id":1}]},{"c":2},null,3,{"b":null},{"b":[{"id":2}]}]}"#,
            "a.*.b"
        ),
        "orders/1 orders/2"
    );
    assert_eq!(read(r#"{"a":[{"c":1}]}"#, "a.*.b"), "");
    // The same where the page is cut along its structure.
    assert_eq!(
        read(
            r#"{"a":[{"b":[{"id":1}]},{"c":"\x"},3,{"b":{}},{"b":[{"id":2}]}]}"#,
            "a.*.b"
        ),
        "orders/1 orders/2"
    );
    // In the place of a list, an object with nothing in it is an empty list; in a list it is a record.
    assert_eq!(read(r#"{"data":{}}"#, "data"), "");
    assert_eq!(read(r#"{"data": { } }"#, "data"), "");
    assert_eq!(read("{}", ""), "");
    assert_eq!(read(r#"{"data":{},"v":"\x"}"#, "data"), "");
    assert_eq!(
        read_with(br#"{"data":[{}]}"#, "data", &["id"])
            .unwrap()
            .records
            .len(),
        1
    );
    assert_eq!(read(r#"{"data":null}"#, "data"), "");
    assert_eq!(read(r#"{"data":[]}"#, "data"), "");
    assert_eq!(read("\u{feff}[{\"id\":1}]", ""), "orders/1");
}

#[test]
fn a_body_without_a_page_is_never_read_as_an_empty_page() {
    assert_eq!(code(br#"{"error":"no"}"#, "data"), Code::UnexpectedShape);
    assert_eq!(code(br#"[1]"#, "data"), Code::UnexpectedShape);
    assert_eq!(code(br#""data""#, "data"), Code::UnexpectedShape);
    assert_eq!(code(b"<html>", "data"), Code::InvalidJson);
    assert_eq!(code(b"{\"data\": oops}", "data"), Code::InvalidJson);
    assert_eq!(
        code(b"{\"data\":[{\"id\":1},{\"i", "data"),
        Code::TruncatedResponse
    );
    assert_eq!(
        code(b"{\"data\":[{\"id\":1}]} x", "data"),
        Code::InvalidJson
    );
    assert_eq!(code(b"", "data"), Code::TruncatedResponse);
}

#[test]
fn an_id_with_a_nul_is_refused() {
    for (record, keys) in [
        (r#"{"id":"\u0000x","v":1}"#, &["id"][..]),
        (r#"{"id":"a\u0000b"}"#, &["id"]),
        (r#"{"id":"a\u0000b","n":1}"#, &["id", "n"]),
        (r#"{"id":"a","v":"\u0000"}"#, &["id"]),
    ] {
        let body = format!(r#"{{"data":[{record},{{"id":"c","n":2}}]}}"#);
        let found = read_with(body.as_bytes(), "data", keys).unwrap();
        assert_eq!(reasons(&found), [Reason::Nul], "{record}");
        assert_eq!(found.records.len(), 1, "{record}");
        let id = found.rejected[0].id.as_deref();
        assert!(id.is_none_or(|id| !id.contains('\0')), "{id:?}");
    }
}

#[test]
fn too_many_items_are_refused_before_they_cost_memory() {
    let many = |count: usize, item: &str, open: char, close: char| {
        format!("{open}{}{close}", vec![item; count].join(","))
    };
    let most = many(MOST_ITEMS, "{}", '[', ']');
    let found = read_with(most.as_bytes(), "", &[]).unwrap();
    assert_eq!(found.records.len() + found.rejected.len(), MOST_ITEMS);
    let lists = format!(
        r#"{{"data":{}}}"#,
        many(MOST_ITEMS / 2 + 1, "[1,2]", '[', ']')
    );
    for (body, at) in [
        (many(MOST_ITEMS + 1, "1", '[', ']'), ""),
        (many(MOST_ITEMS + 1, r#""k":{"a":1}"#, '{', '}'), "*"),
        (lists, "data.*"),
    ] {
        let failure = read_with(body.as_bytes(), at, &["id"])
            .map(drop)
            .unwrap_err();
        assert_eq!(failure.code, Code::ResponseTooLarge, "{at}");
        assert_eq!(failure.message, "the response has more than 500000 records");
    }
    // Where the page is cut along its structure, too.
    let broken = format!("[{},\"\0\"]", vec!["1"; MOST_ITEMS + 1].join(","));
    assert_eq!(code(broken.as_bytes(), ""), Code::InvalidJson);
}

#[test]
fn one_bad_record_rejects_only_itself() {
    let bad: [(&[u8], Reason); 12] = [
        (br#"{"id":"b","v":"\u0000"}"#, Reason::Nul),
        (b"{\"id\":\"b\",\"v\":\"\0\"}", Reason::Nul),
        (br#"{"id":"b","v":"\ud800"}"#, Reason::LoneSurrogate),
        (br#"{"id":"b","v":"\ud800\u0041"}"#, Reason::LoneSurrogate),
        (br#"{"id":"b","v":"\udc00"}"#, Reason::LoneSurrogate),
        (b"{\"id\":\"b\",\"v\":\"\xff\"}", Reason::InvalidUtf8),
        (br#"{"id":"b","v":"\x"}"#, Reason::InvalidJson),
        (br#"{"id":"b","v":NaN}"#, Reason::InvalidJson),
        (br#"{"id":"b","v":1e131072}"#, Reason::NumberOutOfRange),
        (br#"{"id":"b","v":1e-16384}"#, Reason::NumberOutOfRange),
        (br#"17"#, Reason::NotAnObject),
        (br#"["b"]"#, Reason::NotAnObject),
    ];
    for (record, reason) in bad {
        let mut body = br#"{"data":[{"id":"a"},"#.to_vec();
        body.extend_from_slice(record);
        body.extend_from_slice(br#",{"id":"c"}],"next":"x"}"#);
        let found = read_with(&body, "data", &["id"]).unwrap();
        let shown = String::from_utf8_lossy(record);
        assert_eq!(ids(&found), ["orders/a", "orders/c"], "{shown}");
        assert_eq!(reasons(&found), [reason], "{shown}");
        assert_eq!(found.rejected[0].raw, record, "{shown}");
        assert!(
            found.rejected[0]
                .detail
                .starts_with("record 2 of the page: "),
            "{shown}"
        );
    }
}

#[test]
fn a_record_past_a_limit_rejects_only_itself() {
    let deep = |levels: usize| {
        format!(
            r#"{{"id":1,"v":{}{}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    let cases = [
        (deep(98), None),
        (deep(99), None),
        (deep(100), Some(Reason::TooDeep)),
        (deep(4_000), Some(Reason::TooDeep)),
        (deep(1_000_000), Some(Reason::TooLarge)),
        (format!(r#"{{"id":"{}"}}"#, "k".repeat(64)), None),
        (
            format!(r#"{{"id":"{}"}}"#, "k".repeat(65)),
            Some(Reason::KeyTooLong),
        ),
        (
            format!(r#"{{"id":1,"v":"{}"}}"#, "x".repeat(10_000)),
            Some(Reason::TooLarge),
        ),
    ];
    for (record, reason) in cases {
        let found = read(&format!(r#"{{"data":[{record}]}}"#));
        assert_eq!(
            reasons(&found),
            reason.into_iter().collect::<Vec<_>>(),
            "{record:.80}"
        );
    }
}

#[test]
fn a_record_that_only_looks_bad_is_kept() {
    for value in [
        r#""\\u0000""#,
        r#""\\\\u0000""#,
        r#""\ud83d\ude00""#,
        r#""\u00e9 \" \/ \b""#,
        "1.7976931348623157e308",
        "5e-324",
        "-0.0",
        "123456789012345678901234567890.123456789",
        "1E+2000",
    ] {
        let found = read(&format!(r#"{{"data":[{{"id":1,"v":{value}}}]}}"#));
        assert_eq!(
            (ids(&found), reasons(&found)),
            (vec!["orders/1"], vec![]),
            "{value}"
        );
    }
}

#[test]
fn many_small_exponents_do_not_add_up_to_much_memory() {
    let numbers = vec!["1e1999"; 100].join(",");
    let found = read(&format!(r#"{{"data":[{{"id":1,"v":[{numbers}]}}]}}"#));
    assert_eq!(reasons(&found), [Reason::NumberOutOfRange]);
}

#[test]
fn an_envelope_is_the_body_without_its_records() {
    let read =
        |body: &str| serde_json::Value::Object(envelope(body.as_bytes(), "data")).to_string();
    assert_eq!(
        read(r#" {"data": [{"x": 1e999999}], "next": "a\u0041", "n": {"m": [1]}} "#),
        r#"{"n":{"m":[1]},"next":"aA"}"#
    );
    assert_eq!(read("{\"data\": [\"\0\"], \"next\": 2}"), r#"{"next":2}"#);
    assert_eq!(read("[1]"), "{}");
    assert_eq!(read(""), "{}");
}

#[test]
fn cursor_values_are_text() {
    let found = read(
        r#"{"data":[{"id":1,"updated":"2026-01-01T00:00:00Z"},{"id":2,"updated":17},{"id":3}]}"#,
    );
    assert_eq!(found.cursors, ["2026-01-01T00:00:00Z", "17"]);
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[ -~é😀\"\\\\]{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::vec(("[a-z\"\\\\{}\\[\\],]{0,5}", inner), 0..5)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200), at in "[a-z*.]{0,5}") {
        let _ = read_with(&body, &at, &["id"]);
    }

    #[test]
    fn no_text_like_json_makes_it_panic(body in "[\\[\\]{}\",:0-9eE.\\\\u+ -]{0,80}") {
        let _ = read_with(body.as_bytes(), "*", &["id"]);
        let _ = salvage::items(body.as_bytes(), &[]);
    }

    #[test]
    fn every_record_of_a_valid_page_is_found(values in prop::collection::vec(json(), 0..6)) {
        let texts: Vec<String> = values.iter().map(|value| format!(r#"{{"v":{value}}}"#)).collect();
        let body = format!(r#"{{"x":{},"data":[{}]}}"#, values.first().unwrap_or(&1.into()), texts.join(" , "));
        let found = read(&body);
        let kept: Vec<_> = found.records.iter().map(|r| String::from_utf8(r.json.to_vec()).unwrap()).collect();
        prop_assert_eq!(&kept, &texts);
        // The structure alone finds the same.
        let cut = salvage::items(body.as_bytes(), &path("data")).unwrap().unwrap().texts;
        prop_assert_eq!(cut, texts.iter().map(|text| text.as_bytes()).collect::<Vec<_>>());
    }

    #[test]
    fn damage_to_one_string_keeps_every_neighbour(values in prop::collection::vec(json(), 1..6), which in any::<prop::sample::Index>()) {
        let bad = which.index(values.len());
        let texts: Vec<String> = values.iter().enumerate().map(|(i, value)| format!(r#"{{"i":{i},"v":{value}}}"#)).collect();
        let mut body = b"[".to_vec();
        for (i, text) in texts.iter().enumerate() {
            if i > 0 {
                body.push(b',');
            }
            body.extend_from_slice(if i == bad { b"{\"v\":\"\xff\"}" } else { text.as_bytes() });
        }
        body.push(b']');
        let found = read_with(&body, "", &["i"]).unwrap();
        prop_assert_eq!(found.records.len(), texts.len() - 1);
        prop_assert_eq!(reasons(&found), [Reason::InvalidUtf8]);
    }
}

#[test]
fn a_page_of_mostly_other_values_than_objects_is_refused() {
    let key = [path("id")];
    let spec = Spec {
        stream: "orders",
        path: &path("data"),
        key: &key,
        cursor: None,
        gone: None,
        limits: LIMITS,
        lines: &[],
    };
    let of = |items: &str| page(&Bytes::from(format!("{{\"data\": [{items}]}}")), &spec);
    for items in ["null,null", "1,2,{\"id\": 1}", "\"a\",[],{\"id\": 1}"] {
        let failure = of(items).map(drop).unwrap_err();
        assert_eq!(failure.code, Code::UnexpectedShape, "{items}");
    }
    for (items, expected) in [
        ("", (0, 0)),
        ("null", (0, 1)),
        ("{\"id\": 1},null", (1, 1)),
        ("{\"id\": 1},{\"id\": 2},null,7", (2, 2)),
    ] {
        let found = of(items).unwrap();
        assert_eq!(
            (found.records.len(), found.rejected.len()),
            expected,
            "{items}"
        );
    }
}
