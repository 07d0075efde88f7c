//! What somebody else signed, or nobody.

use super::*;

/// All that differs from the text in one bit.
fn flips(text: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..text.len() * 8).map(|bit| {
        let mut text = text.to_vec();
        text[bit / 8] ^= 1 << (bit % 8);
        text
    })
}

fn renamed(headers: &Headers, from: &str, to: &str) -> Headers {
    let mut headers = headers.clone();
    for (name, _) in &mut headers {
        *name = name.replace(from, to);
    }
    headers
}

/// Names of the headers that make a delivery authentic.
fn signing(headers: &Headers) -> Vec<String> {
    let names = headers.iter().map(|(name, _)| name.clone());
    names
        .filter(|name| {
            ["signature", "hmac-sha256", "x-time"]
                .iter()
                .any(|word| name.contains(word))
                && name != "x-square-signature"
        })
        .collect()
}

#[test]
fn none_of_ten_thousand_forgeries_is_accepted() {
    let mut judged = 0;
    for kind in KINDS {
        let hook = hook_of(kind, json!([KEY, NEW_KEY]));
        let body = kind.body.as_bytes();
        let good = (kind.sign)(KEY.as_bytes(), body);
        receive(hook.as_ref(), &good, body).expect(kind.name);
        let mut forged = |headers: &Headers, body: &[u8], about: &str| {
            let read = receive(hook.as_ref(), headers, body);
            let refusal = read
                .err()
                .unwrap_or_else(|| panic!("{}: {about}", kind.name));
            assert_eq!(refusal, Refusal::Unauthentic, "{}: {about}", kind.name);
            judged += 1;
        };
        for flipped in flips(body) {
            forged(&good, &flipped, "a bit of the body");
        }
        for length in 0..body.len() {
            forged(&good, &body[..length], "a part of the body");
        }
        let value: Value = serde_json::from_slice(body).unwrap();
        forged(&good, value.to_string().as_bytes(), "the body written anew");
        for (more, about) in [("\n", "a line end"), (" ", "a blank"), ("{}", "an object")] {
            forged(&good, &[body, more.as_bytes()].concat(), about);
            forged(&good, &[more.as_bytes(), body].concat(), about);
        }
        let names = signing(&good);
        assert!(!names.is_empty());
        for (at, (name, value)) in good.iter().enumerate() {
            if !names.contains(name) {
                continue;
            }
            let with = |value: Vec<u8>| {
                let mut headers = good.clone();
                headers[at].1 = value;
                headers
            };
            for flipped in flips(value) {
                forged(&with(flipped), body, "a bit of a header");
            }
            for length in 0..value.len() {
                forged(&with(value[..length].to_vec()), body, "a part of a header");
            }
            for odd in [
                b"".as_slice(),
                b"\0",
                b"\xFF",
                b"null",
                b"=",
                b",",
                b"t=,v1=",
            ] {
                forged(&with(odd.to_vec()), body, "another header");
                // To Stripe's header parts may be added that say nothing.
                let says_nothing =
                    name.eq_ignore_ascii_case("stripe-signature") && matches!(odd, b"=" | b",");
                if !odd.is_empty() && !says_nothing {
                    forged(&with([value, odd].concat()), body, "a longer header");
                }
            }
            forged(&with(vec![b'A'; 1 << 20]), body, "a long header");
            let mut without = good.clone();
            without.remove(at);
            forged(&without, body, "no header");
            let mut twice = good.clone();
            twice.push(good[at].clone());
            forged(&twice, body, "the same header twice");
            twice[at].1 = b"x".to_vec();
            forged(&twice, body, "another one before");
            forged(&renamed(&good, name, "x-other"), body, "another name");
        }
        for key in [
            "",
            " ",
            "\0",
            "whsec_",
            "null",
            "undefined",
            URL,
            &KEY[..33],
            &format!("{KEY}0"),
        ] {
            forged(&(kind.sign)(key.as_bytes(), body), body, "another secret");
        }
        for other in KINDS.iter().filter(|other| other.name != kind.name) {
            let headers = (other.sign)(KEY.as_bytes(), body);
            let other = (signing(&headers), names.clone());
            let headers = renamed(
                &headers,
                &other.0[other.0.len() - 1],
                &other.1[other.1.len() - 1],
            );
            let is_same = names.iter().all(|name| {
                let value = |headers: &Headers| {
                    let found = headers.iter().find(|(known, _)| known == name);
                    found.map(|(_, value)| value.clone())
                };
                value(&headers) == value(&good)
            });
            // Three vendors sign in the same way, but for the header's name.
            if !is_same {
                forged(&headers, body, "signed as another vendor does");
            }
        }
    }
    assert!(judged >= 10_000, "{judged}");
}

#[test]
fn only_the_known_scheme_and_one_time_count_in_stripes_header() {
    let stripe = kind("stripe");
    let hook = hook_of(&stripe, json!(KEY));
    let body = stripe.body.as_bytes();
    let at = now().timestamp();
    let mac = |text: &str| hex(&hmac(KEY.as_bytes(), &[text.as_bytes(), body].concat()));
    let good = mac(&format!("{at}."));
    let zeros = "0".repeat(64);
    for (header, is_taken) in [
        (format!("t={at},v1={good}"), true),
        (format!("v1={good},t={at}"), true),
        (format!("t={at}, v1={good}"), true),
        (format!("t={at},v0={zeros},v1={zeros},v1={good},v2=?"), true),
        (format!("t={at},v1={}", good.to_uppercase()), true),
        (format!("t={at},v0={good}"), false),
        (format!("t={at},v2={good}"), false),
        (format!("t={at},v1={zeros}"), false),
        (format!("t={at}"), false),
        (format!("v1={good}"), false),
        (format!("t={at},t={at},v1={good}"), false),
        // As the official packages: what is malformed stands beside what is right.
        (format!("t={at},v1={good},"), true),
        (format!("t={at},v1={good},v1=short"), true),
        (format!("t={at},v1=short,v1={good}"), true),
        (format!("t={at},nothing,v1={good}"), true),
        (format!(",t={at},v1,v1={good}=more"), true),
        (format!("t={at},v1=short"), false),
        (format!("t={at},v1={good}0"), false),
        (format!("t=0{at},v1={good}"), false),
        (format!("t=+{at},v1={}", mac(&format!("+{at}."))), false),
        (format!("t=-{at},v1={}", mac(&format!("-{at}."))), false),
        (format!("t=,v1={}", mac(".")), false),
        (
            format!("t={},v1={}", u64::MAX, mac(&format!("{}.", u64::MAX))),
            false,
        ),
        (format!("t={at}.0,v1={}", mac(&format!("{at}.0."))), false),
        (
            format!("t={at}{},v1={good}", ",v1=".to_owned() + &zeros),
            true,
        ),
        (
            format!(
                "t={at}{},v1={good}",
                (",v1=".to_owned() + &zeros).repeat(16)
            ),
            false,
        ),
        (
            format!("t={at},v1={},v1={}", &good[..32], &good[32..]),
            false,
        ),
    ] {
        let read = receive(
            hook.as_ref(),
            &one("stripe-signature", header.clone()),
            body,
        );
        assert_eq!(read.is_ok(), is_taken, "{header}");
        if let Err(refusal) = read {
            assert_eq!(refusal, Refusal::Unauthentic);
        }
    }
}

#[test]
fn a_delivery_signed_for_another_address_or_shop_is_refused() {
    let square = kind("square");
    let body = square.body.as_bytes();
    for url in [
        "https://hooks.example.com/webhooks/1",
        "https://hooks.example.com/webhooks/1?a=b&",
        "https://hooks.example.com:443/webhooks/1?a=b",
        "https://HOOKS.example.com/webhooks/1?a=b",
    ] {
        let hook = try_open(
            &square,
            json!({"webhook_url": url}),
            json!({square.secret: KEY}),
        );
        let headers = (square.sign)(KEY.as_bytes(), body);
        let read = receive(hook.unwrap().unwrap().as_ref(), &headers, body);
        assert_eq!(read.unwrap_err(), Refusal::Unauthentic, "{url}");
    }
    let shopify = kind("shopify");
    let body = shopify.body.as_bytes();
    let headers = (shopify.sign)(KEY.as_bytes(), body);
    for (config, is_taken) in [
        (json!({"shop": "acme"}), true),
        (json!({"shop": "ACME.myshopify.com"}), true),
        (json!({"shop": "https://acme.myshopify.com/"}), true),
        (json!({"shop": "shop.example.com"}), true),
        (json!({"base_url": "https://proxy.example.com"}), true),
        (json!({"shop": "acme2"}), false),
        (
            json!({"shop": "acme.myshopify.com.example.myshopify.com"}),
            false,
        ),
    ] {
        let hook = try_open(&shopify, config.clone(), json!({"client_secret": KEY}));
        let hook = hook.unwrap().unwrap();
        let read = receive(hook.as_ref(), &headers, body);
        assert_eq!(read.is_ok(), is_taken, "{config}");
        // Where it does not say, that is no reason.
        let nameless = renamed(&headers, "x-shopify-shop-domain", "x-other");
        receive(hook.as_ref(), &nameless, body).unwrap();
    }
    let mut twice = headers.clone();
    twice.push(headers[1].clone());
    let hook = hook_of(&shopify, json!(KEY));
    let read = receive(hook.as_ref(), &twice, body);
    assert_eq!(read.unwrap_err(), Refusal::Unauthentic);
}
