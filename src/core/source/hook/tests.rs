//! Each kind of webhook with a delivery as its sender makes it. The signatures are of an HMAC that is written here, and
//! not of the library that judges them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod deliveries;
mod forgeries;
mod fuzz;
mod hostile;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::error::{Code, Failure};
use crate::source::{Definition, find};

const KEY: &str = "whsec_not_a_real_secret_0123456789";
const NEW_KEY: &str = "whsec_not_a_real_secret_abcdefghij";
const URL: &str = "https://hooks.example.com/webhooks/1?a=b";

fn now() -> DateTime<Utc> {
    "2026-03-01T12:00:00.9Z".parse().unwrap()
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner: Vec<u8> = block.iter().map(|byte| byte ^ 0x36).collect();
    let outer: Vec<u8> = block.iter().map(|byte| byte ^ 0x5c).collect();
    let inner = Sha256::digest([&inner, text].concat());
    Sha256::digest([&outer[..], &inner[..]].concat()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A kind of webhook: how its connector is set up, and how its sender signs.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    source: &'static str,
    /// The credential.
    secret: &'static str,
    config: fn() -> Value,
    sign: fn(key: &[u8], body: &[u8]) -> Headers,
    body: &'static str,
}

type Headers = Vec<(String, Vec<u8>)>;

fn one(name: &str, value: String) -> Headers {
    vec![(name.to_owned(), value.into_bytes())]
}

fn stripe_at(at: i64, key: &[u8], body: &[u8]) -> Headers {
    let signed = [format!("{at}.").as_bytes(), body].concat();
    let header = format!("t={at},v1={}", hex(&hmac(key, &signed)));
    one("stripe-signature", header)
}

fn timed_at(at: i64, key: &[u8], body: &[u8]) -> Headers {
    let signed = [format!("{at}.").as_bytes(), body].concat();
    let mut headers = one("x-time", at.to_string());
    headers.extend(one("x-signature", base64(&hmac(key, &signed))));
    headers
}

const KINDS: &[Kind] = &[
    Kind {
        name: "stripe",
        source: "stripe",
        secret: "webhook_secret",
        config: || json!({}),
        sign: |key, body| stripe_at(now().timestamp(), key, body),
        body: r#"{"id": "evt_1Nabc", "object": "event", "api_version": "2022-11-15", "created": 1772366399, "livemode": true, "type": "charge.refunded", "data": {"object": {"id": "ch_1", "object": "charge", "amount": 1000}}}"#,
    },
    Kind {
        name: "shopify",
        source: "shopify",
        secret: "webhook_secret",
        config: || json!({"shop": "acme"}),
        sign: |key, body| {
            let mut headers = one("x-shopify-topic", "orders/updated".to_owned());
            headers.extend(one(
                "x-shopify-shop-domain",
                "acme.myshopify.com".to_owned(),
            ));
            headers.extend(one("x-shopify-webhook-id", "b54557e4".to_owned()));
            headers.extend(one("x-shopify-hmac-sha256", base64(&hmac(key, body))));
            headers
        },
        body: r#"{"id": 820982911946154508, "admin_graphql_api_id": "gid://shopify/Order/820982911946154508", "updated_at": "2026-03-01T07:59:00-04:00", "total_price": "403.00"}"#,
    },
    Kind {
        name: "square",
        source: "square",
        secret: "webhook_signature_key",
        config: || json!({"webhook_url": URL}),
        sign: |key, body| {
            let signed = [URL.as_bytes(), body].concat();
            // The older one comes with it.
            let mut headers = one(
                "x-square-signature",
                "2sdVCe5ZwN3r8yz4ZQqVmGvH3X8=".to_owned(),
            );
            headers.extend(one(
                "x-square-hmacsha256-signature",
                base64(&hmac(key, &signed)),
            ));
            headers
        },
        body: r#"{"merchant_id": "6SSW7HV8K2ST5", "type": "payment.updated", "event_id": "13b867cf-db3d-4b1c-90b6-2f32a9d78124", "created_at": "2026-03-01T11:59:59.84Z", "data": {"type": "payment", "id": "hYy9pRFVxpDsO1FB05SunFWUe9JZY"}}"#,
    },
    Kind {
        name: "quickbooks",
        source: "quickbooks",
        secret: "webhook_verifier",
        config: || json!({"realm_id": "310687"}),
        sign: |key, body| one("intuit-signature", base64(&hmac(key, body))),
        body: r#"[{"specversion": "1.0", "id": "88cd52aa-33b6-4351-9aa4-47572edbd068", "source": "intuit.dsnBgbseACLLRZNxo2dfc4evmEJdxde58xeeYcZliOU=", "type": "qbo.invoice.created.v1", "datacontenttype": "application/json", "time": "2026-02-28T21:51:14.258500001Z", "intuitentityid": "1234", "intuitaccountid": "310687", "data": {}}, {"specversion": "1.0", "id": "other", "intuitaccountid": "999", "time": "2026-02-28T21:51:14Z"}]"#,
    },
    Kind {
        name: "erpnext",
        source: "erpnext",
        secret: "webhook_secret",
        config: || json!({}),
        sign: |key, body| one("x-frappe-webhook-signature", base64(&hmac(key, body))),
        body: r#"{"doctype": "Sales Invoice", "name": "ACC-SINV-2026-00001", "modified": "2026-03-01 13:00:00.123456", "docstatus": 1, "grand_total": 250.0}"#,
    },
    Kind {
        name: "webhook",
        source: "webhook",
        secret: "secret",
        config: || json!({"signature_header": "X-Hub-Signature-256", "signature_prefix": "sha256="}),
        sign: |key, body| {
            one(
                "x-hub-signature-256",
                format!("sha256={}", hex(&hmac(key, body))),
            )
        },
        body: r#"{"action": "opened", "number": 1347, "repository": {"full_name": "octo/hello"}}"#,
    },
    Kind {
        name: "webhook with a time",
        source: "webhook",
        secret: "secret",
        config: || {
            json!({
                "signature_encoding": "base64", "timestamp_header": "X-Time", "stream": "orders", "records": "data.orders",
                "key": ["shop", "order.id"], "updated_at": "order.changed"
            })
        },
        sign: |key, body| timed_at(now().timestamp(), key, body),
        body: r#"{"data": {"orders": [{"shop": "a", "order": {"id": 7, "changed": 1772366400}}, {"shop": "b", "order": {"id": 7, "changed": "2026-03-01T12:00:00+02:00"}}, {"shop": "c", "order": {"id": 7}}]}}"#,
    },
];

fn definition(kind: &Kind, config: Value, credentials: Value) -> Definition {
    assert!(find(kind.source).is_ok());
    Definition {
        config,
        credentials: credentials.into(),
        limits: RecordLimits {
            bytes: 10_000,
            depth: 20,
            key: 300,
        },
    }
}

fn try_open(
    kind: &Kind,
    config: Value,
    credentials: Value,
) -> Result<Option<Box<dyn Hook>>, Failure> {
    let definition = definition(kind, config, credentials);
    find(kind.source).unwrap().hook(&definition)
}

fn hook_of(kind: &Kind, secrets: Value) -> Box<dyn Hook> {
    let opened = try_open(kind, (kind.config)(), json!({kind.secret: secrets}));
    opened.expect(kind.name).expect(kind.name)
}

fn receive_at(
    hook: &dyn Hook,
    now: DateTime<Utc>,
    headers: &Headers,
    body: &[u8],
) -> Result<Delivery, Refusal> {
    let body = Bytes::copy_from_slice(body);
    hook.receive(&Pushed {
        headers,
        body: &body,
        text: &body,
        now,
    })
}

fn receive(hook: &dyn Hook, headers: &Headers, body: &[u8]) -> Result<Delivery, Refusal> {
    receive_at(hook, now(), headers, body)
}

/// What is signed as it has to be.
fn authentic(kind: &Kind, body: &[u8]) -> Result<Delivery, Refusal> {
    let hook = hook_of(kind, json!(KEY));
    receive(hook.as_ref(), &(kind.sign)(KEY.as_bytes(), body), body)
}

fn kind(name: &str) -> Kind {
    *KINDS.iter().find(|kind| kind.name == name).unwrap()
}

#[test]
fn the_hmac_of_these_tests_is_that_of_rfc_4231() {
    for (key, text, mac) in [
        (
            vec![0x0b; 20],
            "Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe".to_vec(),
            "what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            vec![0xaa; 131],
            "Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ] {
        assert_eq!(hex(&hmac(&key, text.as_bytes())), mac);
    }
}

#[test]
fn signatures_that_vendors_publish_are_authentic() {
    let github = kind("webhook");
    let square = kind("square");
    let shopify = kind("shopify");
    for (kind, config, key, header, signature, body) in [
        (
            &github,
            (github.config)(),
            "It's a Secret to Everybody",
            "x-hub-signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            "Hello, World!",
        ),
        (
            &square,
            json!({"webhook_url": "https://example.com/webhook"}),
            "asdf1234",
            "x-square-hmacsha256-signature",
            "2kRE5qRU2tR+tBGlDwMEw2avJ7QM4ikPYD/PJ3bd9Og=",
            r#"{"hello":"world"}"#,
        ),
        (
            &shopify,
            json!({}),
            "hush",
            "x-shopify-hmac-sha256",
            "ruoNad9IlCG3rhFv89NkzI4X7KkH7jIByHXkbeWuGVI=",
            "<webhook request body>",
        ),
    ] {
        let hook = try_open(kind, config, json!({kind.secret: key})).unwrap();
        let hook = hook.unwrap();
        let headers = one(header, signature.to_owned());
        // The bodies are no events: what says so has found them authentic.
        let read = receive(hook.as_ref(), &headers, body.as_bytes());
        assert!(matches!(read, Err(Refusal::Unreadable(_))), "{}", kind.name);
        let other = receive(hook.as_ref(), &headers, format!("{body} ").as_bytes());
        assert_eq!(other.unwrap_err(), Refusal::Unauthentic, "{}", kind.name);
    }
}

#[test]
fn a_compressed_delivery_is_authentic_by_what_was_sent_or_by_what_it_holds() {
    for kind in KINDS {
        let text = Bytes::from_static(kind.body.as_bytes());
        // What is packed is not looked at here, only what was signed.
        let packed = Bytes::from_static(b"\x1F\x8B\x08 packed");
        let hook = hook_of(kind, json!(KEY));
        let received = |signed: &[u8], key: &str| {
            let pushed = Pushed {
                headers: &(kind.sign)(key.as_bytes(), signed),
                body: &packed,
                text: &text,
                now: now(),
            };
            super::receive(hook.as_ref(), &pushed)
        };
        let plain = authentic(kind, kind.body.as_bytes()).unwrap();
        for signed in [&packed, &text] {
            let delivery = received(signed, KEY).expect(kind.name);
            let ids = |delivery: &Delivery| -> Vec<String> {
                let records = delivery.records.iter();
                records.map(|record| record.id.clone()).collect()
            };
            assert_eq!(ids(&delivery), ids(&plain), "{}", kind.name);
            let forged = received(signed, "another_key_0123456789").unwrap_err();
            assert_eq!(forged, Refusal::Unauthentic, "{}", kind.name);
        }
    }
}

#[test]
fn both_secrets_are_accepted_while_the_secret_is_rotated() {
    for kind in KINDS {
        let body = kind.body.as_bytes();
        let by = |key: &str| (kind.sign)(key.as_bytes(), body);
        for (secrets, takes) in [
            (json!(KEY), [true, false]),
            (json!([NEW_KEY, KEY]), [true, true]),
            (json!([KEY, NEW_KEY]), [true, true]),
            (json!([format!(" {NEW_KEY}\n")]), [false, true]),
        ] {
            let hook = hook_of(kind, secrets);
            let taken = [KEY, NEW_KEY].map(|key| receive(hook.as_ref(), &by(key), body).is_ok());
            assert_eq!(taken, takes, "{}", kind.name);
        }
    }
    // Stripe signs with both.
    let stripe = kind("stripe");
    let (at, body) = (now().timestamp(), stripe.body.as_bytes());
    let signed = [format!("{at}.").as_bytes(), body].concat();
    let [old, new] = [KEY, NEW_KEY].map(|key| hex(&hmac(key.as_bytes(), &signed)));
    let header = format!("t={at},v1={old},v1={new},v0={}", "0".repeat(64));
    for key in [KEY, NEW_KEY] {
        let hook = hook_of(&stripe, json!(key));
        let headers = one("stripe-signature", header.clone());
        receive(hook.as_ref(), &headers, body).unwrap();
    }
}

#[test]
fn a_time_is_accepted_within_the_tolerance_in_both_directions() {
    let body = br#"{"id": "evt_1"}"#;
    let stripe = hook_of(&kind("stripe"), json!(KEY));
    let timed = |tolerance: Option<u64>| {
        let config = json!({
            "signature_encoding": "base64", "timestamp_header": "x-time", "tolerance": tolerance
        });
        let hook = try_open(&kind("webhook"), config, json!({"secret": KEY}));
        hook.unwrap().unwrap()
    };
    type Sign = fn(i64, &[u8], &[u8]) -> Headers;
    for (hook, sign, tolerance) in [
        (stripe, stripe_at as Sign, 300),
        (timed(None), timed_at as Sign, 300),
        (timed(Some(1)), timed_at as Sign, 1),
        (timed(Some(86_400)), timed_at as Sign, 86_400),
    ] {
        for (seconds, is_taken) in [
            (0, true),
            (tolerance - 1, true),
            (tolerance, true),
            (tolerance + 1, false),
            (tolerance + 3 * 86_400, false),
            (now().timestamp(), false),
        ] {
            for at in [now().timestamp() - seconds, now().timestamp() + seconds] {
                let headers = sign(at, KEY.as_bytes(), body);
                let read = receive(hook.as_ref(), &headers, body);
                assert_eq!(read.is_ok(), is_taken, "{at}, {tolerance}");
                if let Err(refusal) = read {
                    assert_eq!(refusal, Refusal::Unauthentic);
                }
            }
        }
    }
}

#[test]
fn an_empty_secret_is_refused_by_name_and_without_a_secret_nothing_is_accepted() {
    for kind in KINDS {
        let open = |secrets: &Value| {
            try_open(kind, (kind.config)(), json!({kind.secret: secrets}))
                .map(|hook| hook.is_some())
        };
        for blank in [
            json!(""),
            json!(" \t\n"),
            json!("\0"),
            json!("\u{FEFF}\u{200B}"),
            json!([]),
            json!([""]),
            json!([KEY, " "]),
            json!([KEY, null]),
            json!([[KEY]]),
            json!({"v1": KEY}),
            json!(true),
            json!(vec![KEY; 9]),
        ] {
            let failure = open(&blank).unwrap_err();
            assert_eq!(failure.code, Code::InvalidConfig, "{}", kind.name);
            let named = failure.message.contains(&format!("\"{}\"", kind.secret));
            assert!(named && !failure.message.contains(KEY), "{failure}");
        }
        let hook = try_open(kind, (kind.config)(), json!({"other": KEY}));
        assert!(hook.unwrap().is_none(), "{}", kind.name);
        assert_eq!(open(&Value::Null), Ok(false), "{}", kind.name);
        assert_eq!(open(&json!([KEY, NEW_KEY])), Ok(true), "{}", kind.name);
        let about = find(kind.source).unwrap().about();
        let config = (kind.config)();
        let config = config.as_object().unwrap().keys().map(String::as_str);
        for key in config.chain([kind.secret]) {
            let mut fields = about.credentials.iter().chain(about.config);
            assert!(fields.any(|field| field.name == key), "{key}");
        }
    }
}

#[test]
fn an_invalid_webhook_config_is_refused_when_its_connector_is_saved() {
    let (webhook, square, quickbooks) = (kind("webhook"), kind("square"), kind("quickbooks"));
    for (kind, config, says) in [
        (
            &webhook,
            json!({"signatur_header": "x"}),
            "\"signatur_header\"",
        ),
        (
            &webhook,
            json!({"signature_header": "x y"}),
            "\"signature_header\"",
        ),
        (
            &webhook,
            json!({"signature_encoding": "base32"}),
            "\"signature_encoding\"",
        ),
        (
            &webhook,
            json!({"signature_prefix": "é"}),
            "\"signature_prefix\"",
        ),
        (
            &webhook,
            json!({"signature_prefix": 1}),
            "\"signature_prefix\"",
        ),
        (
            &webhook,
            json!({"timestamp_header": "X-Signature"}),
            "name the same header",
        ),
        (&webhook, json!({"tolerance": 300}), "\"timestamp_header\""),
        (
            &webhook,
            json!({"timestamp_header": "t", "tolerance": 0}),
            "\"tolerance\"",
        ),
        (
            &webhook,
            json!({"timestamp_header": "t", "tolerance": 86_401}),
            "\"tolerance\"",
        ),
        (&webhook, json!({"stream": "a/b"}), "\"stream\""),
        (&webhook, json!({"stream": "x".repeat(201)}), "\"stream\""),
        (&webhook, json!({"records": 1}), "\"records\""),
        (&webhook, json!({"records": "data.*.items"}), "\"records\""),
        (&webhook, json!({"key": []}), "\"key\""),
        (&webhook, json!({"key": ["id", "."]}), "\"key\""),
        (&webhook, json!({"key": {"id": 1}}), "\"key\""),
        (&webhook, json!({"updated_at": ["at"]}), "\"updated_at\""),
        (&square, json!({}), "\"webhook_url\""),
        (
            &square,
            json!({"webhook_url": "http://example.com/"}),
            "\"webhook_url\"",
        ),
        (
            &square,
            json!({"webhook_url": " https://example.com/"}),
            "\"webhook_url\"",
        ),
        (
            &square,
            json!({"webhook_url": "https://"}),
            "\"webhook_url\"",
        ),
        (
            &square,
            json!({"webhook_url": "https://example.com/é"}),
            "\"webhook_url\"",
        ),
        (&quickbooks, json!({}), "\"realm_id\""),
    ] {
        let opened = try_open(kind, config, json!({kind.secret: KEY}));
        let failure = opened.err().expect(says);
        assert!(failure.message.contains(says), "{failure}");
        let code = match kind.source {
            "quickbooks" => Code::CredentialsMissing,
            _ => Code::InvalidConfig,
        };
        assert_eq!(failure.code, code, "{failure}");
    }
    let open = |credentials: Value| {
        let definition = definition(&webhook, json!({}), credentials);
        let reader = find("webhook").unwrap().open(&definition);
        reader
            .map(|reader| reader.streams().len())
            .map_err(|failure| failure.code)
    };
    assert_eq!(open(json!({"secret": KEY})), Ok(0));
    assert_eq!(open(json!({})), Err(Code::CredentialsMissing));
    assert_eq!(open(json!({"secret": ""})), Err(Code::InvalidConfig));
    // An address may be there before its key is.
    let early = try_open(&square, json!({"webhook_url": URL}), json!({}));
    assert!(early.unwrap().is_none());
}
