//! Credentials as rows may hold them, and what is sealed in them, damaged.

use serde_json::Map;

use super::*;
use crate::fuzz::{Random, damaged, each, memory};

fn plain(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth == 0 { 4 } else { 6 }) {
        0 => Value::Null,
        1 => json!(random.edge()),
        2 | 3 => json!(random.text(30)),
        4 => (0..random.few(4))
            .map(|_| plain(random, depth - 1))
            .collect(),
        _ => {
            let fields = (0..random.few(4)).map(|_| (random.word(5), plain(random, depth - 1)));
            Value::Object(fields.collect())
        }
    }
}

fn fields(random: &mut Random) -> Map<String, Value> {
    let fields = (0..random.few(5)).map(|_| (random.word(6), plain(random, 3)));
    fields.collect()
}

#[test]
fn a_sealed_value_opens_only_where_it_was_sealed() {
    each("sealed credentials", |random| {
        let ring = ring(&[1, 2]);
        let given = Value::Object(fields(random));
        let sealed = seal(&ring, given.clone());
        assert_eq!(open(&ring, &sealed).as_ref(), Ok(&given));
        let elsewhere = Place {
            connector: Uuid::from_u128(random.number().into()),
            ..PLACE
        };
        let names: Vec<String> = sealed.as_object().unwrap().keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        assert!(open_credentials(&ring, &elsewhere, &sealed).is_err());
        // One of them damaged, under another name, or inside of something else.
        let name = random.pick(&names);
        let envelope = sealed[&name]["$sealed"].as_str().unwrap().to_owned();
        let other = sealed[random.pick(&names)]["$sealed"]
            .as_str()
            .unwrap()
            .to_owned();
        let text = damaged(random, envelope.as_bytes(), other.as_bytes());
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut row = sealed.clone();
        let changed = match random.below(6) {
            0 => json!({"$sealed": envelope, "more": 1}),
            1 => json!([{"$sealed": envelope}]),
            2 => json!({"$box": text}),
            3 => json!({"$sealed": [text]}),
            _ => json!({"$sealed": text}),
        };
        let is_same = changed == sealed[&name];
        row[&name] = changed;
        let most = 1024 * 1024;
        let opened = memory::within(most, || open(&ring, &row));
        assert!(opened.is_err() || is_same, "{text}");
        // Saved, it is refused, or kept as what nobody here can open.
        match memory::within(most, || {
            seal_credentials(Some(&ring), &PLACE, &row, Some((&PLACE, &sealed)))
        }) {
            Ok(saved) => assert!(is_same || !saved.unopened.is_empty(), "{text}"),
            Err(error) => assert!(error.to_string().len() < 400 && !error.hint().is_empty()),
        }
    });
}

#[test]
fn any_value_is_sealed_or_refused() {
    each("any credentials", |random| {
        let ring = ring(&[1]);
        let mut row = fields(random);
        for _ in 0..random.few(3) {
            let deep = random.between(1, 120);
            let value = match random.below(5) {
                0 => json!({random.pick(&["$sealed", "$box", "$bx", "$"]): plain(random, 2)}),
                1 => json!({"$box": random.text(60)}),
                2 => (0..deep).fold(json!("x"), |inner, _| json!([inner])),
                3 => (0..deep).fold(json!("x"), |inner, _| json!({"a": inner})),
                _ => json!("x".repeat(random.pick(&[65_535, 65_536, 65_537]))),
            };
            let name = random.text(140);
            row.insert(name, value);
        }
        let given = Value::Object(row);
        let sealed = memory::within(8 * 1024 * 1024, || {
            seal_credentials(Some(&ring), &PLACE, &given, None)
        });
        if let Ok(sealed) = sealed {
            let has_marks = given.to_string().contains("\"$");
            let opened = open(&ring, &sealed.credentials);
            assert!(has_marks || opened.as_ref() == Ok(&given), "{opened:?}");
            // Saved once more it is the same.
            let again = seal_credentials(Some(&ring), &PLACE, &sealed.credentials, None).unwrap();
            assert_eq!(again.credentials, sealed.credentials);
        }
        let _ = seal_credentials(Some(&ring), &PLACE, &plain(random, 2), None);
    });
}
