use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Map;

use super::*;

/// JSON as a credential may hold it, without marks of ours.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|quarters| (f64::from(quarters) / 4.0).into()),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            fields(inner).prop_map(Value::from),
        ]
    })
}

fn fields(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(name(), value, 0..6).prop_map(|fields| fields.into_iter().collect())
}

fn name() -> impl Strategy<Value = String> {
    any::<String>().prop_filter("no mark, not too long", |name| {
        !name.starts_with('$') && name.len() <= refusal::LONGEST_NAME
    })
}

fn envelope(sealed: &Value, field: &str) -> String {
    sealed[field]["$sealed"].as_str().unwrap().to_owned()
}

proptest! {
    #[test]
    fn a_sealed_value_opens(plain in fields(json_value())) {
        let ring = ring(&[1]);
        let plain = Value::Object(plain);
        let sealed = seal(&ring, plain.clone());
        prop_assert_eq!(open(&ring, &sealed), Ok(plain));
        // And what is sealed stays as it is, whether the row had it or not.
        for old in [None, Some((&PLACE, &sealed))] {
            let again = seal_credentials(Some(&ring), &PLACE, &sealed, old).unwrap();
            prop_assert_eq!(&again.credentials, &sealed);
        }
        prop_assert_eq!(reseal(&ring, &PLACE, &sealed), Ok(None));
    }

    #[test]
    fn a_changed_envelope_does_not_open(at in any::<prop::sample::Index>(), to in any::<char>()) {
        let ring = ring(&[1]);
        let sealed = seal(&ring, json!({"a": "a secret"}));
        let mut text: Vec<char> = envelope(&sealed, "a").chars().collect();
        let at = at.index(text.len());
        prop_assume!(text[at] != to);
        text[at] = to;
        let changed = json!({"a": {"$sealed": text.into_iter().collect::<String>()}});
        prop_assert!(open(&ring, &changed).is_err());
    }

    #[test]
    fn a_shortened_envelope_does_not_open(length in any::<prop::sample::Index>()) {
        let ring = ring(&[1]);
        let text = envelope(&seal(&ring, json!({"a": "a secret"})), "a");
        let short = &text[..length.index(text.len())];
        let changed = json!({"a": {"$sealed": short}});
        prop_assert!(open(&ring, &changed).is_err());
    }

    #[test]
    fn no_input_panics(value in json_value(), text in ".*", mark in "\\$(sealed|box|.{0,3})") {
        let ring = ring(&[1]);
        let marked = json!({"a": {mark.clone(): text.clone()}});
        let enveloped = json!({"a": {"$sealed": format!("v1.{}.{text}", ring.current().id())}});
        for input in [value, marked, enveloped, json!({mark: text})] {
            let sealed = seal_credentials(Some(&ring), &PLACE, &input, Some((&PLACE, &input)));
            if let Ok(sealed) = sealed {
                key_ids(&sealed.credentials);
            }
            let _ = (open(&ring, &input), reseal(&ring, &PLACE, &input), key_ids(&input));
        }
    }
}

#[test]
fn an_envelope_of_this_version_opens_for_ever() {
    // Made by libsodium 1.0.18 from the description: rows hold such texts, and the format is a promise to them.
    const SEALED: &str = "v1.705f01bcdc56767e.AAECAwQFBgcICQoLDA0ODxAREhMUFRYX6Y6xykMYQJLKE1pI4HIQiPhjNA863Jzen_Y9MdEu2VTiR_US351j";
    let sealed = json!({"api_key": {"$sealed": SEALED}});
    assert_eq!(
        open(&ring(&[1]), &sealed),
        Ok(json!({"api_key": "sk_test_not_a_real_key"}))
    );
}

#[test]
fn every_bit_of_an_envelope_counts() {
    let ring = ring(&[1]);
    let sealed = seal(&ring, json!({"a": "a secret"}));
    let sound = envelope::Envelope::read(&envelope(&sealed, "a")).unwrap();
    for bit in 0..sound.bytes.len() * 8 {
        let mut bytes = sound.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let changed = json!({"a": envelope::Envelope::write(sound.key, &bytes)});
        let refused = SealError::NotHere { field: "a".into() };
        assert_eq!(open(&ring, &changed), Err(refused.clone()), "bit {bit}");
        let again = seal_credentials(Some(&ring), &PLACE, &changed, None);
        assert_eq!(again, Err(refused), "bit {bit}");
    }
}

#[test]
fn sealing_twice_gives_different_ciphertext() {
    let ring = ring(&[1]);
    let (one, two) = (seal(&ring, json!({"a": 1})), seal(&ring, json!({"a": 1})));
    assert_ne!(one, two);
    assert_eq!(open(&ring, &one), open(&ring, &two));
}

#[test]
fn a_sealed_value_opens_only_in_its_own_place() {
    let ring = ring(&[1, 2]);
    let sealed = seal(&ring, json!({"a": "secret a", "b": "secret b"}));
    let reversed = super::ring(&[2, 1]);
    let refused = |field: &str| {
        Err(SealError::NotHere {
            field: field.to_owned(),
        })
    };
    for place in [
        Place {
            tenant: Uuid::from_u128(9),
            ..PLACE
        },
        Place {
            connector: Uuid::from_u128(9),
            ..PLACE
        },
        Place {
            tenant: PLACE.connector,
            connector: PLACE.tenant,
        },
    ] {
        assert_eq!(
            open_credentials(&ring, &place, &sealed).map(drop),
            refused("a")
        );
        assert_eq!(reseal(&reversed, &place, &sealed).map(drop), refused("a"));
        for old in [None, Some((&PLACE, &sealed)), Some((&place, &Value::Null))] {
            let moved = seal_credentials(Some(&ring), &place, &sealed, old);
            assert_eq!(moved.map(drop), refused("a"));
        }
    }
    let swapped = json!({"a": sealed["b"], "b": sealed["a"]});
    assert_eq!(open(&ring, &swapped).map(drop), refused("a"));
    let renamed = json!({"c": sealed["a"]});
    for old in [None, Some((&PLACE, &sealed))] {
        let given = seal_credentials(Some(&ring), &PLACE, &renamed, old);
        assert_eq!(given.map(drop), refused("c"));
    }
    // Another key's id on it does not make that key open it.
    let other = ring.keys().nth(1).unwrap().id().to_string();
    let own = ring.current().id().to_string();
    let text = envelope(&sealed, "a").replace(&own, &other);
    let relabelled = json!({"a": {"$sealed": text}});
    assert_eq!(open(&ring, &relabelled).map(drop), refused("a"));
}

#[test]
fn a_text_within_sealed_credentials_is_replaced_where_it_is_still_the_old_one() {
    let ring = ring(&[1]);
    let plain = json!({"flat": "old", "deep": {"a": {"b": "old"}, "c": [1]}, "other": "x"});
    let sealed = seal(&ring, plain.clone());
    let replace_at = |path: &[&str], old: &str, may_be_empty: bool| {
        let path: Vec<String> = path.iter().map(|&key| key.to_owned()).collect();
        let old = Secret::new(old.into());
        let texts = (&old, "new");
        let replaced = replace_text(&ring, &PLACE, &sealed, &path, texts, may_be_empty).unwrap()?;
        // Every other field is as it was, to the byte.
        assert_eq!(replaced["other"], sealed["other"]);
        Some(open(&ring, &replaced).unwrap())
    };
    let replace = |path: &[&str], old: &str| replace_at(path, old, true);
    let with = |pointer: &str| {
        let mut changed = plain.clone();
        *changed.pointer_mut(pointer).unwrap() = json!("new");
        Some(changed)
    };
    assert_eq!(replace(&["flat"], "old"), with("/flat"));
    assert_eq!(replace(&["deep", "a", "b"], "old"), with("/deep/a/b"));
    let mut added = plain.clone();
    added["absent"] = json!({"here": "new"});
    assert_eq!(replace(&["absent", "here"], "old"), Some(added));
    assert_eq!(replace_at(&["absent", "here"], "old", false), None);
    assert_eq!(replace_at(&["flat"], "old", false), with("/flat"));
    // What a person has put there meanwhile stays, and so does what is no text.
    for (path, old) in [
        (&["flat"][..], "older"),
        (&["deep", "a"], "old"),
        (&["deep", "c"], "old"),
        (&[], "old"),
    ] {
        assert_eq!(replace(path, old), None, "{path:?}");
    }
    let elsewhere = super::ring(&[2]);
    let path = ["flat".to_owned()];
    assert!(
        replace_text(
            &elsewhere,
            &PLACE,
            &sealed,
            &path,
            (&Secret::new(vec![]), "new"),
            true
        )
        .is_err()
    );
}

#[test]
fn a_page_token_opens_only_for_its_stream_and_its_connector() {
    let cover = |keys: &[u8], place| Cover {
        keys: Arc::new(ring(keys)),
        place,
    };
    let token = json!("https://shop.example/next?key=secret");
    let own = cover(&[1], PLACE);
    let sealed = own.seal("orders", &token).unwrap();
    assert_eq!(own.open("orders", &sealed), Some(token.clone()));
    assert_eq!(cover(&[2, 1], PLACE).open("orders", &sealed), Some(token));
    let other = Place {
        connector: Uuid::from_u128(9),
        ..PLACE
    };
    assert_eq!(own.open("items", &sealed), None);
    assert_eq!(cover(&[1], other).open("orders", &sealed), None);
    assert_eq!(cover(&[2], PLACE).open("orders", &sealed), None);
    // Nor is it a credential, whatever the field is called.
    for field in ["$next orders", "next orders", "orders"] {
        let given = json!({ field: sealed.clone() });
        let saved = seal_credentials(Some(&ring(&[1])), &PLACE, &given, None);
        assert!(saved.is_err(), "{field}");
    }
}

#[test]
fn a_row_without_its_key_loads_but_does_not_open() {
    let (here, elsewhere) = (ring(&[1]), ring(&[2]));
    let sealed = seal(&elsewhere, json!({"a": 1}));
    let id = elsewhere.current().id();
    for keys in [Some(&here), None] {
        let restored = seal_credentials(keys, &PLACE, &sealed, None).unwrap();
        assert_eq!(restored.credentials, sealed);
        assert_eq!(restored.unopened, vec![("a".to_owned(), id)]);
    }
    let error = SealError::KeyMissing {
        field: "a".into(),
        key: id,
    };
    assert_eq!(open(&here, &sealed), Err(error.clone()));
    assert_eq!(reseal(&here, &PLACE, &sealed), Err(error));
    // Once it is there, saving the row again is nothing to warn of.
    let again = seal_credentials(Some(&here), &PLACE, &sealed, Some((&PLACE, &sealed))).unwrap();
    assert_eq!(again.unopened, vec![]);
}

#[test]
fn without_a_key_nothing_is_sealed_and_nothing_stored_in_plain() {
    let sealed = |plain| seal_credentials(None, &PLACE, &plain, None).map(|s| s.credentials);
    assert_eq!(sealed(json!({})), Ok(json!({})));
    let error = |field: &str| {
        Err(SealError::NoKey {
            field: field.to_owned(),
        })
    };
    assert_eq!(sealed(json!({"a": 1})), error("a"));
    assert_eq!(sealed(json!({"a": {"$box": "AAAA"}})), error("a"));
    assert_eq!(sealed(json!({"$box": "AAAA"})), error("$box"));
}

#[test]
fn new_fields_are_sealed_beside_those_that_are_kept() {
    let ring = ring(&[1]);
    let old = seal(&ring, json!({"kept": 1, "changed": 2, "dropped": 3}));
    let new = json!({"kept": old["kept"], "changed": "new", "added": {"user": "u"}});
    let sealed = seal_credentials(Some(&ring), &PLACE, &new, Some((&PLACE, &old))).unwrap();
    assert_eq!(sealed.credentials["kept"], old["kept"]);
    assert_eq!(
        open(&ring, &sealed.credentials),
        Ok(json!({"kept": 1, "changed": "new", "added": {"user": "u"}}))
    );
}

#[test]
fn a_kept_field_is_not_opened() {
    // What the row held stays, even if it cannot be opened: an update of something else must not fail for it.
    let ring = ring(&[1]);
    let broken = json!({"a": {"$sealed": "v9.unknown"}});
    let kept = seal_credentials(Some(&ring), &PLACE, &broken, Some((&PLACE, &broken))).unwrap();
    assert_eq!(
        kept,
        Sealed {
            credentials: broken.clone(),
            unopened: vec![]
        }
    );
    let error = SealError::Malformed { field: "a".into() };
    assert_eq!(
        seal_credentials(Some(&ring), &PLACE, &broken, None),
        Err(error)
    );
}

#[test]
fn resealing_moves_to_the_current_key_and_keeps_what_is_there() {
    let before = ring(&[1]);
    let mut sealed = seal(&before, json!({"a": "one", "b": [2]}));
    let after = ring(&[2, 1]);
    let newer = seal(&after, json!({"c": 3}));
    sealed["c"] = newer["c"].clone();
    let both = [1, 2].map(|byte| key(byte).id()).into_iter().collect();
    assert_eq!(key_ids(&sealed), both);
    let resealed = reseal(&after, &PLACE, &sealed).unwrap().unwrap();
    assert_eq!(key_ids(&resealed), [key(2).id()].into_iter().collect());
    assert_eq!(resealed["c"], newer["c"]);
    assert_eq!(reseal(&after, &PLACE, &resealed), Ok(None));
    // The old key can go.
    let only = ring(&[2]);
    assert_eq!(
        open(&only, &resealed),
        Ok(json!({"a": "one", "b": [2], "c": 3}))
    );
}

#[test]
fn an_invalid_field_is_refused_by_its_name() {
    let ring = ring(&[1]);
    let refused = |new: Value| seal_credentials(Some(&ring), &PLACE, &new, None).unwrap_err();
    for new in [json!(null), json!([]), json!("text"), json!(1)] {
        assert_eq!(refused(new), SealError::NotAnObject);
    }
    for value in [
        json!({"$bx": "AAAA"}),
        json!({"$box": 1}),
        json!({"$box": "AAAA", "more": 1}),
        json!({"$sealed": null}),
        json!({"$sealed": "x", "$box": "y"}),
        json!({"nested": {"$box": "AAAA"}}),
        json!([{"$sealed": "x"}]),
    ] {
        let error = SealError::Mark { field: "a".into() };
        assert_eq!(refused(json!({"a": value})), error);
    }
    for (new, mark) in [
        (json!({"$sealed": "x"}), "$sealed"),
        (json!({"$box": "x", "a": 1}), "$box"),
        (json!({"a": 1, "$a": 1}), "$a"),
    ] {
        let error = SealError::Mark { field: mark.into() };
        assert_eq!(refused(new), error);
    }
    for text in [
        "",
        "v1",
        "v1..",
        "v2.0123456789abcdef.AAAA",
        "v1.0123456789ABCDEF.AAAA",
        "v1.0123456789abcdef.AAAA",
        "v1.0123456789abcdef.====",
    ] {
        let error = SealError::Malformed { field: "a".into() };
        assert_eq!(refused(json!({"a": {"$sealed": text}})), error, "{text}");
    }
    let error = SealError::NotSealed { field: "b".into() };
    let sealed = seal(&ring, json!({"a": 1}));
    assert_eq!(open(&ring, &json!({"a": sealed["a"], "b": 1})), Err(error));
}

#[test]
fn sizes_are_bounded() {
    let ring = ring(&[1]);
    let result = |new: Value| seal_credentials(Some(&ring), &PLACE, &new, None);
    let fields = |count: usize| -> Value {
        let field = |i| (format!("f{i}"), Value::Null);
        Value::Object((0..count).map(field).collect())
    };
    assert!(result(fields(refusal::MOST_FIELDS)).is_ok());
    assert_eq!(
        result(fields(refusal::MOST_FIELDS + 1)),
        Err(SealError::TooMany)
    );

    let text = |length: usize| json!({"a": "x".repeat(length)});
    let largest = text(refusal::LARGEST_FIELD);
    let sealed = result(largest.clone()).unwrap().credentials;
    assert_eq!(open(&ring, &sealed), Ok(largest));
    let error = SealError::TooLarge { field: "a".into() };
    assert_eq!(result(text(refusal::LARGEST_FIELD + 1)), Err(error));

    let name = |length: usize| json!({"n".repeat(length): 1});
    assert!(result(name(refusal::LONGEST_NAME)).is_ok());
    assert_eq!(
        result(name(refusal::LONGEST_NAME + 1)),
        Err(SealError::NameTooLong)
    );

    let nested = |depth: usize| {
        let value = (0..depth).fold(json!("deep"), |inner, _| json!([inner]));
        json!({"a": value})
    };
    let sealed = result(nested(32)).unwrap().credentials;
    assert_eq!(open(&ring, &sealed), Ok(nested(32)));
    let error = SealError::TooDeep { field: "a".into() };
    assert_eq!(result(nested(33)), Err(error));
}
