use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use crypto_box::PublicKey;
use crypto_box::aead::OsRng;

use super::*;

/// Made by libsodium 1.0.18 for the key of the bytes 0 to 31: `crypto_scalarmult_base` of the derived secret key,
/// and `crypto_box_seal` of "sk_test_not_a_real_key".
const LIBSODIUM_PUBLIC_KEY: &str = "oNGL/CWOMgYm0cj3ZVQVQrB+qHmksRgZ8ZIZxtWrbEs=";
const LIBSODIUM_BOX: &str = "UuZwwOLgjHXrcSkW7Ppvzl+hzXvtXIit5B8QerF6D3GFNZ+mSnSbk5GMHm2Zm8BMiaZWtGK9oY2ld4a1yYWSt/ryB0J3Zg==";

/// As a sender does it, who has only the public key.
fn boxed(public_key: &str, content: &[u8]) -> Vec<u8> {
    let key = STANDARD.decode(public_key).unwrap();
    let key = PublicKey::from_slice(&key).unwrap();
    key.seal(&mut OsRng, content).unwrap()
}

fn text(ring: &Keyring, content: &[u8]) -> String {
    STANDARD.encode(boxed(&public_key(ring), content))
}

fn sealed(ring: &Keyring, new: Value) -> Result<Value, SealError> {
    seal_credentials(Some(ring), &PLACE, &new, None).map(|sealed| sealed.credentials)
}

#[test]
fn a_box_of_libsodium_opens() {
    let bytes = (0..32).collect();
    let ring = Keyring::single(Key::new(Secret::new(bytes)).unwrap());
    assert_eq!(public_key(&ring), LIBSODIUM_PUBLIC_KEY);
    let stored = sealed(&ring, json!({"api_key": {"$box": LIBSODIUM_BOX}})).unwrap();
    let opened = json!({"api_key": "sk_test_not_a_real_key"});
    assert_eq!(open(&ring, &stored), Ok(opened));
}

#[test]
fn a_box_content_is_always_text() {
    let ring = ring(&[1]);
    for content in [
        "",
        "secret",
        "\"quoted\"",
        "{\"a\": 1}",
        "null",
        CANARY,
        "a\0b",
    ] {
        let stored = sealed(
            &ring,
            json!({"a": {"$box": text(&ring, content.as_bytes())}}),
        );
        assert_eq!(open(&ring, &stored.unwrap()), Ok(json!({"a": content})));
    }
}

#[test]
fn every_spelling_of_base64_is_accepted() {
    let ring = ring(&[1]);
    for length in 0..12 {
        let content = "x".repeat(length);
        let bytes = boxed(&public_key(&ring), content.as_bytes());
        let standard = STANDARD.encode(&bytes);
        let (first, last) = standard.split_at(20);
        for text in [
            URL_SAFE_NO_PAD.encode(&bytes),
            standard.trim_end_matches('=').to_owned(),
            format!(" {first}\r\n{last}\n"),
        ] {
            let stored = sealed(&ring, json!({"a": {"$box": text}})).unwrap();
            assert_eq!(open(&ring, &stored), Ok(json!({"a": content})));
        }
    }
}

#[test]
fn a_box_for_an_older_key_opens_and_is_sealed_with_the_current_one() {
    let text = text(&ring(&[1]), b"secret");
    let rotated = ring(&[3, 2, 1]);
    let stored = sealed(&rotated, json!({"a": {"$box": text}})).unwrap();
    assert_eq!(
        key_ids(&stored),
        [rotated.current().id()].into_iter().collect()
    );
    assert_eq!(open(&rotated, &stored), Ok(json!({"a": "secret"})));
    let retired = sealed(&ring(&[3, 2]), json!({"a": {"$box": text}}));
    assert_eq!(retired, Err(SealError::Box { field: "a".into() }));
}

#[test]
fn a_damaged_box_does_not_open() {
    let ring = ring(&[1]);
    let error = SealError::Box { field: "a".into() };
    let bytes = boxed(&public_key(&ring), b"secret");
    let refused = |text: String| sealed(&ring, json!({"a": {"$box": text}})).unwrap_err();
    for at in 0..bytes.len() {
        assert_eq!(refused(STANDARD.encode(&bytes[..at])), error, "{at} bytes");
        // X25519 ignores the highest bit of a public key; the nonce is a hash of all of it.
        let mut changed = bytes.clone();
        changed[at] ^= 0x80;
        assert_eq!(refused(STANDARD.encode(changed)), error, "byte {at}");
    }
    assert_eq!(refused("not base64!".into()), error);
}

#[test]
fn a_box_may_hold_all_credentials_at_once() {
    let ring = ring(&[1]);
    let tenant = PLACE.tenant.to_string().to_uppercase();
    for content in [
        json!({"user": "u", "key": {"id": 1}}),
        json!({"user": "u", "key": {"id": 1}, "$tenant": tenant}),
    ] {
        let text = text(&ring, content.to_string().as_bytes());
        let stored = sealed(&ring, json!({"$box": text})).unwrap();
        assert_eq!(
            open(&ring, &stored),
            Ok(json!({"user": "u", "key": {"id": 1}}))
        );
    }
}

#[test]
fn a_box_for_one_tenant_opens_for_no_other_tenant() {
    let ring = ring(&[1]);
    let refused = |content: Value| {
        let text = text(&ring, content.to_string().as_bytes());
        sealed(&ring, json!({"$box": text})).unwrap_err()
    };
    let error = SealError::NotHere {
        field: "$box".into(),
    };
    for tenant in [
        json!(Uuid::from_u128(9).to_string()),
        json!("x"),
        json!(null),
    ] {
        assert_eq!(refused(json!({"a": 1, "$tenant": tenant})), error);
    }
    let error = SealError::Mark {
        field: "$other".into(),
    };
    assert_eq!(refused(json!({"a": 1, "$other": 1})), error);
}

#[test]
fn a_box_that_holds_something_else_is_refused() {
    let ring = ring(&[1]);
    let error = SealError::BoxContent { field: "a".into() };
    let new = json!({"a": {"$box": text(&ring, b"\xFF")}});
    assert_eq!(sealed(&ring, new), Err(error));
    let error = SealError::BoxContent {
        field: "$box".into(),
    };
    for content in [&b"secret"[..], b"[1]", b"{", b"\xFF"] {
        let new = json!({"$box": text(&ring, content)});
        assert_eq!(sealed(&ring, new), Err(error.clone()));
    }
    let error = SealError::TooLarge { field: "a".into() };
    let large = "x".repeat(refusal::LARGEST_FIELD + 1);
    let new = json!({"a": {"$box": text(&ring, large.as_bytes())}});
    assert_eq!(sealed(&ring, new), Err(error));
}
