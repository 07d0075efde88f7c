//! Nothing that can be printed prints a secret.

use std::fmt::{Debug, Display};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;

use super::*;
use crate::record::{Page, Pass, Record, Rejected, StreamState};
use crate::record::{Reason, Window};
use crate::source::{Method, Request, Response};

/// Every look that a secret takes on its way.
fn looks(secret: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(secret).into_owned();
    let encoded = url::form_urlencoded::byte_serialize(secret).collect();
    let json = json!(text).to_string();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    vec![
        STANDARD.encode(secret).trim_end_matches('=').to_owned(),
        URL_SAFE_NO_PAD.encode(secret),
        json.trim_matches('"').to_owned(),
        format!("{text:?}").trim_matches('"').to_owned(),
        format!("{secret:?}"),
        secret.escape_ascii().to_string(),
        hex.to_uppercase(),
        hex,
        encoded,
        text,
    ]
}

fn assert_hides(what: &str, printed: &str, secret: &[u8]) {
    for look in looks(secret) {
        assert!(
            !printed.contains(&look),
            "{what} prints a secret: {printed}"
        );
    }
}

fn hides(what: &str, value: &impl Debug, secret: &[u8]) {
    assert_hides(what, &format!("{value:?} {value:#?}"), secret);
}

#[test]
fn types_with_secrets_do_not_print_them() {
    let canary = CANARY.as_bytes();
    hides("Secret", &Secret::new(canary.to_vec()), canary);
    let credentials = Credentials::from(json!({"a": CANARY, "b": {CANARY: [CANARY]}}));
    hides("Credentials", &credentials, canary);

    let ring = ring(&[0x5e, 0xc2]);
    for key in [[0x5e_u8; 32], [0xc2; 32]] {
        hides("Keyring", &ring, &key);
        hides("Key", ring.current(), &key);
    }

    let sealed = seal(&ring, json!({"a": CANARY}));
    hides("sealed credentials", &sealed, canary);
    let stored = seal_credentials(Some(&ring), &PLACE, &sealed, None).unwrap();
    hides("Sealed", &stored, canary);

    let mut url: url::Url = "https://example.com/".parse().unwrap();
    url.query_pairs_mut().append_pair("key", CANARY);
    url.set_path(CANARY);
    let request = Request {
        is_bare: false,
        method: Method::Post,
        url,
        headers: vec![("x-key".into(), CANARY.into())],
        body: Some(Bytes::from_static(canary)),
    };
    hides("Request", &request, canary);
    let response = Response {
        status: 200,
        headers: vec![("x-key".into(), CANARY.into())],
        body: Bytes::from_static(canary),
    };
    hides("Response", &response, canary);
}

#[test]
fn a_vendors_response_is_not_printed() {
    let canary = CANARY.as_bytes();
    let record = Record {
        id: "orders/1".into(),
        formerly: None,
        key: None,
        json: Bytes::from_static(canary),
        hash: [0; 16],
        at: None,
    };
    let rejected = Rejected {
        id: None,
        formerly: None,
        reason: Reason::InvalidJson,
        detail: "record 1 of the page: not valid JSON".into(),
        raw: Bytes::from_static(canary),
        hash: [0; 16],
    };
    let pass = Pass {
        next: json!({"url": CANARY}),
        high: None,
        window: Window {
            from: None,
            to: chrono::DateTime::UNIX_EPOCH,
        },
        definition: String::new(),
        counts: false,
        again: false,
        shifted: false,
    };
    let state = StreamState {
        at: None,
        pass: Some(pass.clone()),
        read_until: None,
        missed_since: None,
        finished_by: None,
    };
    hides("Record", &record, canary);
    hides("Rejected", &rejected, canary);
    hides("Pass", &pass, canary);
    hides("StreamState", &state, canary);
    let page = Page {
        records: vec![record],
        rejected: vec![rejected],
        deleted: vec![CANARY.to_owned()],
        next: Some(pass.next),
        ..Page::default()
    };
    hides("Page", &page, canary);
}

#[test]
fn error_messages_contain_no_value() {
    let canary = CANARY.as_bytes();
    let (here, elsewhere) = (ring(&[1]), ring(&[2]));
    let sealed = seal(&here, json!({"a": CANARY}));
    let large = CANARY.repeat(refusal::LARGEST_FIELD / CANARY.len() + 1);
    let deep = (0..99).fold(json!(CANARY), |inner, _| json!([inner]));
    let mut errors = Vec::new();
    for new in [
        json!(CANARY),
        json!({"a": large}),
        json!({"a": deep}),
        json!({"a": {"$x": CANARY}}),
        json!({"a": {"$box": CANARY}}),
        json!({"a": {"$sealed": CANARY}}),
        json!({"a": {"$sealed": format!("v1.{}.{CANARY}", here.current().id())}}),
        json!({"b": sealed["a"]}),
        json!({"$box": CANARY}),
    ] {
        errors.push(seal_credentials(Some(&here), &PLACE, &new, None).unwrap_err());
        errors.extend(seal_credentials(None, &PLACE, &new, None).err());
        errors.extend(open(&here, &new).err());
        errors.extend(reseal(&here, &PLACE, &new).err());
    }
    errors.push(open(&elsewhere, &sealed).unwrap_err());
    errors.push(open(&here, &json!({"b": sealed["a"]})).unwrap_err());
    errors.push(open(&here, &json!({"a": CANARY})).unwrap_err());
    assert!(errors.len() > 25, "{}", errors.len());
    for error in errors {
        hides("SealError", &error, canary);
        assert_hides("SealError", &format!("{error} {}", error.hint()), canary);
    }
    let lines = format!("{}\n{CANARY}\n", "ab".repeat(32));
    let error = Keyring::read(lines.as_bytes()).unwrap_err();
    for secret in [canary, &[0xab; 32]] {
        hides("KeyError", &error, secret);
        assert_hides("KeyError", &format!("{error} {}", error.hint()), secret);
    }
}

#[test]
fn secrets_are_equal_if_all_of_their_bytes_are() {
    let secret = |text: &str| Secret::new(text.into());
    assert_eq!(secret(CANARY), secret(CANARY));
    for other in ["", "sk", "sk_test/not+a \"real\" kéy&/"] {
        assert_ne!(secret(CANARY), secret(other));
    }
}

/// Names `Printable::check` twice for a type that has the trait, which does not compile.
macro_rules! never {
    ($name:ident: $($type:ty),*) => {{
        trait Check<A> { fn check() {} }
        impl<T: ?Sized> Check<()> for T {}
        struct Has;
        impl<T: ?Sized + $name> Check<Has> for T {}
        $(let _ = <$type as Check<_>>::check;)*
    }};
}

#[test]
fn types_with_secrets_cannot_be_serialised() {
    use crate::source::Definition;
    use serde::Serialize;
    never!(Display: Secret, Credentials, Key, Keyring, Definition, Request, Response);
    never!(Serialize: Secret, Credentials, Key, Keyring, Definition, Request, Response);
    never!(Debug: Definition, crate::fetch::Job, crate::template::Template);
}
