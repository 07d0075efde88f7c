//! The rule of identity against a model of its own, and against what the rule before it stored.

use std::collections::{BTreeMap, HashMap};

use serde_json::Number;

use super::*;
use crate::json::identity::prefix;

fn id_with(record: &str, keys: &[&str]) -> Record {
    let body = format!("[{record}]");
    let found = read_with(body.as_bytes(), "", keys).unwrap();
    assert_eq!(found.records.len(), 1, "{record} {:?}", found.rejected);
    found.records.into_iter().next().unwrap()
}

fn id(value: &str) -> String {
    id_with(&format!(r#"{{"id":{value},"v":1}}"#), &["id"]).id
}

#[test]
fn the_text_of_a_value_identifies_it_whatever_its_type_and_spelling() {
    for (values, expected) in [
        (
            &[
                "7",
                "7.0",
                "7e0",
                "70e-1",
                "0.7E+1",
                r#""7""#,
                r#""\u0037""#,
            ][..],
            "7",
        ),
        (&["-0.50", "-5e-1", r#""-0.5""#], "-0.5"),
        (&["0", "0.0", "-0", "0e9", r#""0""#], "0"),
        (&["1e3", "1000", "1000.000"], "1000"),
        (&["1e400", "10e399", r#""1e400""#], "1e400"),
        (&["1.5e-400", "0.15e-399"], "15e-401"),
        (
            &["12345678901234567890123.0", "12345678901234567890123"],
            "12345678901234567890123",
        ),
        (
            &[r#""étage""#, r#""\u00e9tage""#, r#""\u00E9tage""#],
            "étage",
        ),
        (&[r#""a/b""#, r#""a\/b""#], "a/b"),
        (&[r#""""#], ""),
        (&["true", r#""true""#], "true"),
        (&["false"], "false"),
        (
            &[r#"{"$oid": "aa"}"#, r#"{"$oid":"\u0061a"}"#],
            r#"{"$oid":"aa"}"#,
        ),
        (
            &[
                r#"{"b": 2.0, "a": [1, "x"]}"#,
                r#"{"a":["1","x"],"b":2}"#,
                r#"{"a":0,"b":"2","a":[1e0,"x"]}"#,
            ],
            r#"{"a":[1,"x"],"b":2}"#,
        ),
        (&["[]", "[ ]"], "[]"),
        (&["{}"], "{}"),
        (&[r#""007""#], "007"),
        (&[r#""7.0""#], "7.0"),
        (&[r#""1e3""#], "1e3"),
        (&[r#""null""#], "null"),
    ] {
        for value in values {
            assert_eq!(id(value), format!("orders/{expected}"), "{value}");
        }
    }
}

#[test]
fn several_parts_follow_the_same_rule() {
    let id = |a: &str, b: &str| {
        let record = format!(r#"{{"a":{a},"b":{b},"v":1}}"#);
        id_with(&record, &["a", "b"]).id
    };
    for same in [
        &[
            ("7", r#""x""#),
            (r#""7""#, r#""x""#),
            ("7.00", r#""\u0078""#),
        ][..],
        &[(r#""étage""#, "1"), (r#""\u00e9tage""#, "1e0")],
        &[
            ("true", r#"{"b":1,"a":2}"#),
            (r#""true""#, r#"{"a":"2","b":1.0}"#),
        ],
    ] {
        for (a, b) in same {
            assert_eq!(id(a, b), id(same[0].0, same[0].1), "{a} {b}");
        }
    }
    assert_ne!(id("null", "1"), id(r#""null""#, "1"));
    assert_ne!(id("null", "1"), id(r#""""#, "1"));
    assert_ne!(id(r#""a""#, r#""bc""#), id(r#""ab""#, r#""c""#));
    assert_ne!(id("1", "2"), id("2", "1"));
    // Nothing and null are the same, and a part without a value is no missing key.
    let with_null = id_with(r#"{"a":7,"b":null}"#, &["a", "b"]);
    assert_eq!(with_null.id, id_with(r#"{"a":7,"v":2}"#, &["a", "b"]).id);
    assert_ne!(with_null.id, format!("orders/{}", hex(&with_null.hash)));
    let none = id_with(r#"{"a":null,"v":2}"#, &["a", "b"]);
    assert_eq!(none.id, format!("orders/{}", hex(&none.hash)));
}

#[test]
fn the_usual_ids_are_those_of_before() {
    for (record, keys) in [
        (r#"{"id":4711}"#, &["id"][..]),
        (r#"{"id":"a/b"}"#, &["id"]),
        (r#"{"id":"\u00e9tage"}"#, &["id"]),
        (r#"{"id":"007"}"#, &["id"]),
        (r#"{"id":1.5}"#, &["id"]),
        (r#"{"id":12345678901234567890123}"#, &["id"]),
        (r#"{"id":null}"#, &["id"]),
        (r#"{"v":1}"#, &["id"]),
        (r#"{"v":1}"#, &[]),
        (r#"{"a":1,"b":2}"#, &["a", "b"]),
        (r#"{"a":"x","b":"y z"}"#, &["a", "b"]),
        (r#"{"a":"étage","b":-3}"#, &["a", "b"]),
        (r#"{"a":true,"b":-3}"#, &["a", "b"]),
        (r#"{"a":"x","b":null}"#, &["a", "b"]),
    ] {
        assert_eq!(id_with(record, keys).formerly, None, "{record}");
    }
}

#[test]
fn two_streams_never_share_an_id() {
    let names = [
        "a", "a/b", "a%2Fb", "a%252Fb", "a%25", "a%", "a%2", "a%2/Fb", "a/", "/", "a%2525",
    ];
    let mut met = HashMap::new();
    for name in names {
        assert!(!prefix(name).contains('/'), "{name}");
        assert_eq!(met.insert(prefix(name).into_owned(), name), None, "{name}");
    }
    let id = |stream: &str, record: &str| {
        let key = vec![path("id")];
        let spec = Spec {
            stream,
            path: &[],
            key: &key,
            cursor: None,
            gone: None,
            limits: LIMITS,
            lines: &[],
        };
        let found = records(&Bytes::copy_from_slice(record.as_bytes()), &spec).unwrap();
        found.records.into_iter().next().unwrap()
    };
    let (one, other) = (id("a", r#"[{"id":"b/c"}]"#), id("a/b", r#"[{"id":"c"}]"#));
    assert_eq!((one.id.as_str(), one.formerly), ("a/b/c", None));
    assert_eq!(
        (other.id.as_str(), other.formerly.as_deref()),
        ("a%2Fb/c", Some("a/b/c"))
    );
}

#[test]
fn equal_records_of_a_page_are_told_apart_by_how_often_they_come() {
    let body = br#"[{"v":1},{"v":2},{"v":1},{"id":5,"v":1},{"v":1},{"id":5,"v":1}]"#;
    let spec_key = [path("id")];
    let spec = Spec {
        stream: "orders",
        path: &[],
        key: &spec_key,
        cursor: None,
        gone: None,
        limits: LIMITS,
        lines: &[],
    };
    let found = page(&Bytes::from_static(body), &spec).unwrap();
    let (one, two) = (hex(&hash(br#"{"v":1}"#)), hex(&hash(br#"{"v":2}"#)));
    assert_eq!(
        ids(&found),
        [
            format!("orders/{one}"),
            format!("orders/{two}"),
            format!("orders/{one}/2"),
            "orders/5".to_owned(),
            format!("orders/{one}/3"),
            "orders/5".to_owned(),
        ]
    );
}

#[test]
fn a_record_whose_key_cannot_be_read_is_no_other_record() {
    let body = br#"[{"id":"ab\ud83d"},{"id":"b","v":"\ud83d"},{"id":{"a":"\ud800"}}]"#;
    let found = read_with(body, "", &["id"]).unwrap();
    let ids: Vec<_> = found
        .rejected
        .iter()
        .map(|rejected| rejected.id.as_deref())
        .collect();
    assert_eq!(ids, [None, Some("orders/b"), None]);
    // Deep in a key, or long: told by its hash, within bounds.
    let deep = format!("{}1{}", "[".repeat(90), "]".repeat(90));
    assert_eq!(id(&deep).len(), "orders/#".len() + 32);
}

/// A value as a model: what it means, apart from how it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Model {
    None,
    /// Text, or a number or truth value of that text.
    Text(String),
    List(Vec<Model>),
    Fields(BTreeMap<String, Model>),
}

/// A value, and two spellings of it.
#[derive(Debug, Clone)]
struct Spelled {
    model: Model,
    texts: [String; 2],
}

fn escaped(text: &str) -> String {
    let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
    format!("\"{}\"", units.collect::<String>())
}

fn value() -> impl Strategy<Value = Spelled> {
    let text = "[a-c0-3é/\"\\\\]{0,3}".prop_map(|text: String| Spelled {
        texts: [serde_json::to_string(&text).unwrap(), escaped(&text)],
        model: Model::Text(text),
    });
    let whole = (-30_i64..30).prop_map(|number| Spelled {
        model: Model::Text(number.to_string()),
        texts: [format!("{number}.0e0"), format!("\"{number}\"")],
    });
    // Quarters, whose decimals the model takes from the standard library.
    let quarter = (-99_i64..99).prop_map(|quarters| {
        let number = quarters as f64 / 4.0;
        let text = Number::from_f64(number).unwrap().to_string();
        let text = text.strip_suffix(".0").unwrap_or(&text).to_owned();
        Spelled {
            texts: [format!("{}e-2", quarters * 25), format!("{number:.5}")],
            model: Model::Text(if quarters == 0 { "0".to_owned() } else { text }),
        }
    });
    let word = prop_oneof![Just("true"), Just("false")].prop_map(|word| Spelled {
        model: Model::Text(word.to_owned()),
        texts: [word.to_owned(), format!("\"{word}\"")],
    });
    let none = Just(Spelled {
        model: Model::None,
        texts: ["null".to_owned(), " null".to_owned()],
    });
    let leaf = prop_oneof![text, whole, quarter, word, none];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..3).prop_map(|items| {
            let all = |n: usize, between: &str| {
                let items = items.iter().map(|item| item.texts[n].clone());
                format!("[{}]", items.collect::<Vec<_>>().join(between))
            };
            Spelled {
                texts: [all(0, ","), all(1, " ,\n")],
                model: Model::List(items.iter().map(|item| item.model.clone()).collect()),
            }
        });
        let fields = prop::collection::btree_map("[a-bé]{1,2}", inner, 0..3).prop_map(|fields| {
            let write = |n: usize, key: &dyn Fn(&str) -> String| {
                let mut written: Vec<String> = fields
                    .iter()
                    .map(|(name, value)| format!("{}: {}", key(name), value.texts[n]))
                    .collect();
                if n == 1 {
                    written.reverse();
                }
                format!("{{{}}}", written.join(","))
            };
            Spelled {
                texts: [
                    write(0, &|name| serde_json::to_string(name).unwrap()),
                    write(1, &escaped),
                ],
                model: Model::Fields(
                    fields
                        .iter()
                        .map(|(k, v)| (k.clone(), v.model.clone()))
                        .collect(),
                ),
            }
        });
        prop_oneof![list, fields]
    })
}

/// What the model says of a key: equal keys are equal records. A key of one part that is JSON is told by its text, and a
/// text may spell JSON.
fn model(parts: &[Model]) -> Option<String> {
    fn json(model: &Model) -> String {
        match model {
            Model::None => "null".to_owned(),
            Model::Text(text) => {
                let number: Result<serde_json::Value, _> = serde_json::from_str(text);
                let is_number = number.is_ok_and(|value| {
                    value.is_boolean()
                        || value.is_number()
                            && !text.contains(['e', 'E'])
                            && value.to_string().as_str() == text.as_str()
                            && text != "-0"
                            && !text.ends_with(".0")
                });
                if is_number {
                    text.clone()
                } else {
                    serde_json::to_string(text).unwrap()
                }
            }
            Model::List(items) => {
                format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(","))
            }
            Model::Fields(fields) => {
                let fields = fields
                    .iter()
                    .map(|(k, v)| format!("{}:{}", serde_json::to_string(k).unwrap(), json(v)));
                format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
            }
        }
    }
    match parts {
        parts if parts.iter().all(|part| *part == Model::None) => None,
        [Model::Text(text)] => Some(text.clone()),
        [part] => Some(json(part)),
        parts => Some(parts.iter().map(json).collect::<Vec<_>>().join("\0")),
    }
}

fn record(parts: &[Spelled], spelling: usize, content: u32) -> String {
    let fields: Vec<String> = parts
        .iter()
        .enumerate()
        .map(|(at, part)| format!("\"k{at}\":{}", part.texts[spelling]))
        .collect();
    format!("{{{},\"v\":{content}}}", fields.join(","))
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("k{at}")).collect()
}

fn read_keyed(body: &str, count: usize) -> Vec<Record> {
    let names = names(count);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = read_with(body.as_bytes(), "", &names).unwrap();
    assert!(found.rejected.is_empty(), "{:?} {body}", found.rejected);
    found.records
}

/// The rule of version 0.1.0, written down a second time.
fn old_id(record: &str, count: usize) -> String {
    let fields: HashMap<String, &RawValue> = serde_json::from_str(record).unwrap();
    let values: Vec<Option<&str>> = names(count)
        .iter()
        .map(|name| fields.get(name).map(|value| value.get()))
        .collect();
    let scalar = |text: &str| match text.chars().next().unwrap() {
        '"' => serde_json::from_str::<String>(text)
            .ok()
            .filter(|text| !text.is_empty()),
        '-' | '0'..='9' => Some(text.to_owned()),
        _ => None,
    };
    let content = hex(&hash(record.as_bytes()));
    let key = match values.as_slice() {
        [single] => single.and_then(scalar).unwrap_or(content),
        several if several.iter().any(|value| value.and_then(scalar).is_some()) => {
            let mut framed = String::new();
            for value in several {
                framed += &value.map_or("-;".to_owned(), |text| format!("{};{text}", text.len()));
            }
            hex(&hash(framed.as_bytes()))
        }
        _ => content,
    };
    format!("orders/{key}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn records_are_the_same_where_the_model_says_so(
        keys in (1_usize..4).prop_flat_map(|parts| prop::collection::vec(prop::collection::vec(value(), parts), 1..12)),
    ) {
        let count = keys[0].len();
        let mut by_model: HashMap<Option<String>, String> = HashMap::new();
        let mut by_id: HashMap<String, Option<String>> = HashMap::new();
        for (at, parts) in keys.iter().enumerate() {
            let models: Vec<Model> = parts.iter().map(|part| part.model.clone()).collect();
            let expected = model(&models);
            for spelling in [0, 1] {
                let text = record(parts, spelling, at as u32 * 2 + spelling as u32);
                let record = read_keyed(&format!("[{text}]"), count).pop().unwrap();
                if expected.is_none() {
                    prop_assert_eq!(&record.id, &format!("orders/{}", hex(&record.hash)));
                    continue;
                }
                let met = by_model.entry(expected.clone()).or_insert_with(|| record.id.clone());
                prop_assert_eq!(&*met, &record.id, "{}", text);
                let met = by_id.entry(record.id.clone()).or_insert_with(|| expected.clone());
                prop_assert_eq!(&*met, &expected, "{}", text);
            }
        }
    }

    /// A table as version 0.1.0 left it; then the same records come, and changed ones.
    #[test]
    fn an_update_doubles_nothing(
        keys in (1_usize..4).prop_flat_map(|parts| prop::collection::vec(prop::collection::vec(value(), parts), 1..12)),
        spelling in 0_usize..2,
    ) {
        let count = keys[0].len();
        let mut table: HashMap<String, String> = HashMap::new();
        for parts in &keys {
            let text = record(parts, spelling, 1);
            table.insert(old_id(&text, count), text);
        }
        // As the store does: see `with_kept_ids`.
        let mut take = |text: &str| {
            let new = read_keyed(&format!("[{text}]"), count).pop().unwrap();
            let former = new.formerly.filter(|former| table.contains_key(former));
            let is_known = table.contains_key(&new.id);
            let stored_as = match (is_known, former) {
                (false, Some(former)) => former,
                (true, Some(former)) => {
                    table.remove(&former);
                    new.id
                }
                (_, None) => new.id,
            };
            table.insert(stored_as, text.to_owned());
            table.len()
        };
        let before = keys.iter().map(|parts| old_id(&record(parts, spelling, 1), count)).collect::<std::collections::HashSet<_>>().len();
        for parts in &keys {
            let after = take(&record(parts, spelling, 1));
            prop_assert!(after <= before, "{} {}", after, before);
        }
        for parts in &keys {
            // What had no id of its own before is known by its content until it comes once.
            let text = record(parts, spelling, 1);
            let had_id = old_id(&text, count) == old_id(&record(parts, spelling, 2), count);
            if had_id {
                let after = take(&record(parts, spelling, 2));
                prop_assert!(after <= before, "{} {} {}", after, before, text);
            }
        }
    }
}
