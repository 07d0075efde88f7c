//! Deliveries, signed and not: none that is forged is taken, and none that is signed is refused for its signature.

use super::*;
use crate::fuzz::{Random, damaged, each, grows_with_its_size, memory};

/// Whether anything in the headers is the signature of these bytes, whatever else is there. Written again, and less
/// strictly than what it judges.
fn is_signed(kind: &Kind, headers: &Headers, body: &[u8]) -> bool {
    let values = |name: &str| -> Vec<&[u8]> {
        let found = headers.iter().filter(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice()).collect()
    };
    let of = |text: &[u8]| hmac(KEY.as_bytes(), text);
    let is_base64 = |header: &str, text: &[u8]| {
        values(header)
            .into_iter()
            .any(|value| STANDARD.decode(value).is_ok_and(|mac| mac == of(text)))
    };
    let is_hex = |text: &[u8], mac: [u8; 32]| text.to_ascii_lowercase() == hex(&mac).as_bytes();
    match kind.name {
        "stripe" => values("stripe-signature").into_iter().any(|value| {
            let parts: Vec<(&[u8], &[u8])> = value
                .split(|byte| *byte == b',')
                .filter_map(|part| {
                    let at = part.iter().position(|byte| *byte == b'=')?;
                    Some((part[..at].trim_ascii(), part[at + 1..].trim_ascii()))
                })
                .collect();
            let times = parts.iter().filter(|(scheme, _)| *scheme == b"t");
            let mut times = times.filter(|(_, time)| {
                let seconds = std::str::from_utf8(time)
                    .ok()
                    .and_then(|time| time.parse::<i64>().ok());
                seconds.is_some_and(|seconds| seconds.abs_diff(now().timestamp()) <= 300)
            });
            times.any(|(_, time)| {
                let mac = of(&[time, b".".as_slice(), body].concat());
                parts
                    .iter()
                    .any(|(scheme, value)| *scheme == b"v1" && is_hex(value, mac))
            })
        }),
        "shopify" => is_base64("x-shopify-hmac-sha256", body),
        "square" => is_base64(
            "x-square-hmacsha256-signature",
            &[URL.as_bytes(), body].concat(),
        ),
        "quickbooks" => is_base64("intuit-signature", body),
        "erpnext" => is_base64("x-frappe-webhook-signature", body),
        "webhook" => values("x-hub-signature-256").into_iter().any(|value| {
            value
                .strip_prefix(b"sha256=")
                .is_some_and(|text| is_hex(text, of(body)))
        }),
        _ => values("x-time").into_iter().any(|time| {
            let seconds = std::str::from_utf8(time)
                .ok()
                .and_then(|time| time.parse::<i64>().ok());
            let is_now = seconds.is_some_and(|seconds| seconds.abs_diff(now().timestamp()) <= 300);
            is_now && is_base64("x-signature", &[time, b".", body].concat())
        }),
    }
}

fn body(random: &mut Random, kind: &Kind) -> Vec<u8> {
    let others: Vec<u8> = KINDS.iter().flat_map(|kind| kind.body.bytes()).collect();
    match random.below(5) {
        0 => kind.body.as_bytes().to_vec(),
        1 => {
            let length = random.few(200);
            random.bytes(length)
        }
        2 => random.pick(KINDS).body.as_bytes().to_vec(),
        _ => damaged(random, kind.body.as_bytes(), &others),
    }
}

fn check(kind: &Kind, delivery: &Delivery) {
    for record in &delivery.records {
        serde_json::from_slice::<&serde_json::value::RawValue>(&record.json).unwrap();
        assert!(
            record.id.starts_with(&format!("{}/", delivery.stream)),
            "{}",
            kind.name
        );
        assert!(!record.id.contains('\0') && record.id.len() < 1_000);
        assert_eq!(record.hash, crate::json::hash(&record.json));
    }
    assert!(delivery.records.len() + delivery.rejected.len() <= MOST_RECORDS);
}

#[test]
fn a_signed_delivery_is_never_refused_for_its_signature() {
    each("signed deliveries", |random| {
        let kind = random.pick(KINDS);
        let secrets = random.pick(&[
            json!(KEY),
            json!([KEY]),
            json!([NEW_KEY, KEY]),
            json!(format!(" {KEY}\n")),
        ]);
        let hook = hook_of(&kind, secrets);
        let body = body(random, &kind);
        let mut headers = (kind.sign)(KEY.as_bytes(), &body);
        // In any order, among others, and hex in capitals.
        for (name, value) in &mut headers {
            let is_hex = match name.as_str() {
                "x-hub-signature-256" => Some("sha256="),
                "stripe-signature" => Some(",v1="),
                _ => None,
            };
            let Some(mark) = is_hex.filter(|_| random.percent(50)) else {
                continue;
            };
            let text = String::from_utf8(value.clone()).unwrap();
            let (first, mac) = text.split_once(mark).unwrap();
            *value = match random.below(3) {
                0 => format!("{first}{mark}{}", mac.to_uppercase()),
                1 if mark == ",v1=" => format!("v1={mac},v0={},{first}", "0".repeat(64)),
                _ if mark == ",v1=" => format!("{first}, v1={}, v1={mac}", "f".repeat(64)),
                _ => text,
            }
            .into_bytes();
        }
        for _ in 0..random.few(4) {
            let at = random.below(headers.len() + 1);
            headers.insert(at, (format!("x-{}", random.word(9)), random.bytes(5)));
        }
        assert!(
            is_signed(&kind, &headers, &body),
            "{}: {headers:?}",
            kind.name
        );
        let most = 500 * body.len() + 100_000;
        let read = memory::within(most, || receive(hook.as_ref(), &headers, &body));
        match &read {
            Ok(delivery) => check(&kind, delivery),
            Err(refusal) => assert!(
                matches!(refusal, Refusal::Unreadable(why) if why.len() < 300),
                "{}: {refusal:?} {headers:?}",
                kind.name
            ),
        }
        // The same once more is the same records.
        let ids = |read: &Result<Delivery, Refusal>| {
            let delivery = read.as_ref().ok();
            delivery.map(|delivery| {
                delivery
                    .records
                    .iter()
                    .map(|record| record.id.clone())
                    .collect::<Vec<_>>()
            })
        };
        let again = receive(hook.as_ref(), &headers, &body);
        assert_eq!(ids(&read), ids(&again));
    });
}

#[test]
fn a_forged_delivery_is_never_accepted() {
    each("forged deliveries", |random| {
        let kind = random.pick(KINDS);
        let hook = hook_of(&kind, json!(KEY));
        let other = random.pick(KINDS);
        let mut body = body(random, &kind);
        let key = random.pick(&[KEY, KEY, KEY, NEW_KEY, "", &KEY[1..]]);
        let mut headers = match random.percent(85) {
            true => (kind.sign)(key.as_bytes(), &body),
            false => (other.sign)(key.as_bytes(), &body),
        };
        if random.percent(30) {
            let at = now().timestamp()
                + random.pick(&[-301, -300, 300, 301, 86_400, -1_000_000_000_000]);
            match kind.name {
                "stripe" => headers = stripe_at(at, key.as_bytes(), &body),
                "webhook with a time" => headers = timed_at(at, key.as_bytes(), &body),
                _ => {}
            }
        }
        for _ in 0..random.few(3) {
            let at = random.below(headers.len());
            match random.below(6) {
                0 => body = damaged(random, &body, kind.body.as_bytes()),
                1 => headers[at].1 = damaged(random, &headers[at].1.clone(), b"t=1,v1=0,sha256==="),
                2 => {
                    let twice = headers[at].clone();
                    headers.push(twice);
                }
                3 if headers.len() > 1 => drop(headers.remove(at)),
                4 => {
                    let name = damaged(random, headers[at].0.as_bytes(), b"-x");
                    headers[at].0 = String::from_utf8_lossy(&name).into_owned();
                }
                _ => {
                    let from = random.below(headers.len());
                    headers[at].1 = headers[from].1.clone();
                }
            }
        }
        let is_signed = is_signed(&kind, &headers, &body);
        match receive(hook.as_ref(), &headers, &body) {
            Ok(delivery) => {
                assert!(
                    is_signed,
                    "{}: {headers:?} {}",
                    kind.name,
                    String::from_utf8_lossy(&body)
                );
                check(&kind, &delivery);
            }
            // Only who has signed is told what is wrong with the text.
            Err(Refusal::Unreadable(_)) => assert!(is_signed, "{}: {headers:?}", kind.name),
            Err(Refusal::Unauthentic) => {}
        }
    });
}

#[test]
fn no_delivery_takes_longer_than_its_size_says() {
    for kind in KINDS {
        let hook = hook_of(kind, json!(KEY));
        let read = |body: &String| {
            let body = body.as_bytes();
            let _ = receive(hook.as_ref(), &(kind.sign)(KEY.as_bytes(), body), body);
        };
        for (name, make) in [
            (
                "a list",
                (|size| format!("[{}1]", "{},".repeat(size))) as fn(usize) -> String,
            ),
            ("a deep list", |size| "[".repeat(size)),
            ("one key again and again", |size| {
                format!(
                    "{{{}\"id\":1}}",
                    "\"eventNotifications\":[{}],".repeat(size)
                )
            }),
            ("companies", |size| {
                format!(
                    "{{\"eventNotifications\":[{}1]}}",
                    "{\"realmId\":\"310687\",\"dataChangeEvent\":{\"entities\":[{}]}},"
                        .repeat(size)
                )
            }),
            ("one long text", |size| {
                format!("{{\"id\":\"{}\"}}", "\\u0061".repeat(size))
            }),
        ] {
            grows_with_its_size(&format!("{name} for {}", kind.name), 500, make, read);
        }
        let at = now().timestamp();
        let headers = |size: usize| {
            one(
                "stripe-signature",
                format!("t={at},v1={}", ",v1=00".repeat(size)),
            )
        };
        grows_with_its_size("signatures", 500, headers, |headers| {
            drop(receive(hook.as_ref(), headers, b"{}"))
        });
    }
}
