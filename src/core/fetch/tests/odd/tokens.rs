//! Answers to token requests, for every type that refreshes a token: what is read, what is refused, and what is never done
//! to a refresh token that may be good for one use only.

use super::*;

/// What is right for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// Read; the new refresh token is stored.
    Read,
    /// Refused with a code; the token request is made once.
    Fails(Code),
    /// Refused with a code, and the new refresh token that stands in it is stored all the same.
    Keeps(Code),
    /// Fails with a code when it always comes; read when it is asked for again.
    Again(Code),
}

/// Makes an answer out of the fields of a sound one.
type Make = fn(&Value) -> Vec<u8>;

fn json(status: &str, fields: &Value) -> Vec<u8> {
    answer(status, &[JSON], fields.to_string().as_bytes())
}

fn form(fields: &Value) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields.as_object().unwrap() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        form.append_pair(name, &text);
    }
    form.finish()
}

fn around(before: &str, fields: &Value, after: &str) -> Vec<u8> {
    answer(
        "200 OK",
        &[JSON],
        format!("{before}{fields}{after}").as_bytes(),
    )
}

fn without(fields: &Value, name: &str) -> Value {
    let mut fields = fields.clone();
    fields.as_object_mut().unwrap().remove(name);
    fields
}

fn with(fields: &Value, name: &str, value: Value) -> Value {
    let mut fields = fields.clone();
    fields[name] = value;
    fields
}

fn utf16(fields: &Value) -> Vec<u8> {
    let text = format!("\u{FEFF}{fields}");
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

const ROWS: [(&str, Make, Token); 46] = {
    use Code::{
        CredentialsRejected, NotFound, RateLimited, Redirected, ServerError, UnexpectedShape,
    };
    use Token::{Again, Fails, Keeps, Read};
    [
        ("sound", |f| json("200 OK", f), Read),
        ("201", |f| json("201 Created", f), Read),
        ("a mark", |f| around("\u{FEFF}", f, ""), Read),
        (
            "a mark and no type",
            |f| answer("200 OK", &[], format!("\u{FEFF}{f}").as_bytes()),
            Read,
        ),
        ("two marks", |f| around("\u{FEFF}\u{FEFF}", f, ""), Read),
        ("blanks around it", |f| around("\r\n\t ", f, "\n\n"), Read),
        (
            "utf-16",
            |f| {
                answer(
                    "200 OK",
                    &["Content-Type: application/json; charset=utf-16"],
                    &utf16(f),
                )
            },
            Read,
        ),
        (
            "an unknown charset",
            |f| {
                answer(
                    "200 OK",
                    &["Content-Type: application/json; charset=x"],
                    f.to_string().as_bytes(),
                )
            },
            Read,
        ),
        (
            "called latin 1",
            |f| {
                answer(
                    "200 OK",
                    &["Content-Type: application/json; charset=ISO-8859-1"],
                    f.to_string().as_bytes(),
                )
            },
            Read,
        ),
        (
            "latin 1",
            |f| {
                answer(
                    "200 OK",
                    &["Content-Type: application/json; charset=ISO-8859-1"],
                    with(f, "name", "x".into())
                        .to_string()
                        .replace("\"x\"", "\"caf\u{1}\"")
                        .bytes()
                        .map(|byte| if byte == 1 { 0xE9 } else { byte })
                        .collect::<Vec<u8>>()
                        .as_slice(),
                )
            },
            Read,
        ),
        (
            "called text",
            |f| {
                answer(
                    "200 OK",
                    &["Content-Type: text/html"],
                    f.to_string().as_bytes(),
                )
            },
            Read,
        ),
        (
            "gzip",
            |f| {
                answer(
                    "200 OK",
                    &[JSON, "Content-Encoding: gzip"],
                    &bodies::gzip(f.to_string().as_bytes()),
                )
            },
            Read,
        ),
        (
            "gzip without a header",
            |f| answer("200 OK", &[JSON], &bodies::gzip(f.to_string().as_bytes())),
            Read,
        ),
        (
            "a form",
            |f| {
                answer(
                    "200 OK",
                    &["Content-Type: application/x-www-form-urlencoded"],
                    form(f).as_bytes(),
                )
            },
            Read,
        ),
        (
            "a form with a charset",
            |f| {
                answer(
                    "200 OK",
                    &["Content-Type: application/x-www-form-urlencoded; charset=utf-8"],
                    form(f).as_bytes(),
                )
            },
            Read,
        ),
        (
            "a form that is called text",
            |f| answer("200 OK", &["Content-Type: text/plain"], form(f).as_bytes()),
            Read,
        ),
        (
            "a form that is called JSON",
            |f| answer("200 OK", &[JSON], format!("{}\n", form(f)).as_bytes()),
            Read,
        ),
        (
            "JSON that is called a form",
            |f| {
                answer(
                    "200 OK",
                    &["Content-Type: application/x-www-form-urlencoded"],
                    f.to_string().as_bytes(),
                )
            },
            Read,
        ),
        (
            "a comment before it",
            |f| around("/* made by a proxy */ ", f, ""),
            Read,
        ),
        (
            "a comment behind it",
            |f| around("", f, " // made by a proxy"),
            Read,
        ),
        (
            "what keeps browsers from running it",
            |f| around(")]}',\n", f, ""),
            Read,
        ),
        ("a loop before it", |f| around("for(;;);", f, ""), Read),
        (
            "101 headers",
            |f| {
                let lines: Vec<String> = (0..101).map(|n| format!("X-H-{n}: {n}")).collect();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                answer("200 OK", &lines, f.to_string().as_bytes())
            },
            Read,
        ),
        (
            "a life in text",
            |f| json("200 OK", &with(f, "expires_in", "3600".into())),
            Read,
        ),
        (
            "a life that is none",
            |f| json("200 OK", &with(f, "expires_in", "soon".into())),
            Read,
        ),
        (
            "no life",
            |f| json("200 OK", &without(f, "expires_in")),
            Read,
        ),
        (
            "an error that says nothing",
            |f| json("200 OK", &with(f, "error", Value::Null)),
            Read,
        ),
        (
            "invalid_grant in a 200",
            |_| json("200 OK", &json!({"error": "invalid_grant"})),
            Fails(CredentialsRejected),
        ),
        (
            "invalid_grant in a form",
            |_| {
                answer(
                    "200 OK",
                    &["Content-Type: application/x-www-form-urlencoded"],
                    b"error=invalid_grant&error_description=not_a_real_secret",
                )
            },
            Fails(CredentialsRejected),
        ),
        (
            "another error in a 200",
            |_| {
                json(
                    "200 OK",
                    &json!({"ok": false, "error": "not_a_real_secret"}),
                )
            },
            Fails(CredentialsRejected),
        ),
        (
            "invalid_grant",
            |_| json("400 Bad Request", &json!({"error": "invalid_grant"})),
            Fails(CredentialsRejected),
        ),
        (
            "invalid_client",
            |_| json("401 Unauthorized", &json!({"error": "invalid_client"})),
            Fails(CredentialsRejected),
        ),
        (
            "403",
            |_| json("403 Forbidden", &json!({"error": "access_denied"})),
            Fails(CredentialsRejected),
        ),
        (
            "404",
            |_| json("404 Not Found", &json!({})),
            Fails(NotFound),
        ),
        (
            "a redirect",
            |_| answer("302 Found", &["Location: /login"], b""),
            Fails(Redirected),
        ),
        (
            "429",
            |_| json("429 Too Many", &json!({})),
            Again(RateLimited),
        ),
        ("500", |_| json("500 Error", &json!({})), Again(ServerError)),
        (
            "temporarily_unavailable",
            |_| {
                json(
                    "400 Bad Request",
                    &json!({"error": "temporarily_unavailable"}),
                )
            },
            Again(ServerError),
        ),
        (
            "a page for people in a 200",
            |_| {
                answer(
                    "200 OK",
                    &["Content-Type: text/html"],
                    b"<html>Sign in, not_a_real_secret</html>",
                )
            },
            Fails(UnexpectedShape),
        ),
        (
            "204",
            |_| b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            Fails(UnexpectedShape),
        ),
        (
            "nothing in a 200",
            |_| answer("200 OK", &[JSON], b""),
            Fails(UnexpectedShape),
        ),
        (
            "blanks in a 200",
            |_| answer("200 OK", &[JSON], b"\n"),
            Fails(UnexpectedShape),
        ),
        (
            "less than the length says",
            |f| {
                let mut bytes = answer("200 OK", &["Connection: close"], f.to_string().as_bytes());
                bytes.truncate(bytes.len() - 5);
                bytes
            },
            Fails(UnexpectedShape),
        ),
        (
            "plain text that is called gzip",
            |f| {
                answer(
                    "200 OK",
                    &[JSON, "Content-Encoding: gzip"],
                    f.to_string().as_bytes(),
                )
            },
            Fails(UnexpectedShape),
        ),
        (
            "a list",
            |f| json("200 OK", &json!([f])),
            Fails(UnexpectedShape),
        ),
        (
            "a refresh token alone",
            |f| json("200 OK", &without(f, "access_token")),
            Keeps(UnexpectedShape),
        ),
    ]
};

/// Rows of this table.
pub fn count() -> usize {
    ROWS.len()
}

/// Config and credentials with a refresh token.
fn definition(vendor: &Vendor) -> (Value, Value) {
    let home = vendor.url.as_str().trim_end_matches('/');
    let secret = "not_a_real_secret";
    let mut config = vendor.config.clone();
    let credentials = match vendor.kind {
        "api" => {
            let manifest = json!({"streams": [{"name": "s", "primary_key": "id", "retriever": {
                "requester": {"url_base": home, "path": "s", "authenticator": {
                    "type": "OAuthAuthenticator", "token_refresh_endpoint": format!("{home}/token"),
                    "client_id": "app", "client_secret": secret, "refresh_token": "{{ config['refresh_token'] }}"
                }}
            }}]});
            config = json!({"manifest": manifest});
            json!({"refresh_token": "refresh-0"})
        }
        "shopify" => {
            json!({"shop": "acme", "client_id": "app", "client_secret": secret, "refresh_token": "refresh-0"})
        }
        "quickbooks" => vendor.credentials.clone(),
        _ => json!({"client_id": "app", "client_secret": secret, "refresh_token": "refresh-0"}),
    };
    (config, credentials)
}

fn sound(vendor: &Vendor) -> Value {
    json!({
        "access_token": "access-1", "refresh_token": "refresh-1", "expires_in": 3600, "token_type": "bearer",
        "instance_url": vendor.url.as_str().trim_end_matches('/')
    })
}

const KINDS: [&str; 5] = ["api", "quickbooks", "salesforce", "shopify", "square"];

fn kept(told: &Told) -> bool {
    let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
    told.rotated == [(secret("refresh-0"), secret("refresh-1"))]
}

async fn judge(vendor: &Vendor, make: Make, is: Token) -> Result<(), String> {
    let (config, credentials) = definition(vendor);
    let fields = sound(vendor);
    let odd = make(&fields);
    let run = |tokens| vendor.log_in(tokens, None, config.clone(), credentials.clone());
    let told = run(vec![odd.clone()]).await;
    let code = told.result.as_ref().err().map(|failure| failure.code);
    let asked = told.token_requests.len();
    let is_read = |told: &Told| {
        let shown = told
            .authorized
            .iter()
            .all(|value| value.ends_with("access-1"));
        told.result.is_ok() && shown && !told.authorized.is_empty() && kept(told)
    };
    let is_right = match is {
        Token::Read => is_read(&told) && asked == 1,
        Token::Fails(right) => code == Some(right) && asked == 1 && told.rotated.is_empty(),
        Token::Keeps(right) => code == Some(right) && asked == 1 && kept(&told),
        Token::Again(right) => code == Some(right) && asked == 3,
    };
    is_right.then_some(()).ok_or(format!("{told:?}"))?;
    check_words(&told)?;
    if let Token::Again(_) = is {
        let told = run(vec![odd, json("200 OK", &fields)]).await;
        let is_right = is_read(&told) && told.token_requests.len() == 2;
        is_right.then_some(()).ok_or(format!("once: {told:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_token_answer_is_read_or_refused_and_no_spent_token_is_sent_again() {
    let mut wrong = Vec::new();
    for kind in KINDS {
        let vendor = Vendor::start(kind).await;
        for (about, make, is) in ROWS {
            if let Err(why) = judge(&vendor, make, is).await {
                wrong.push(format!("{kind}: {about}: {is:?}, but {why}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_names_a_foreign_instance_does_not_lose_its_refresh_token() {
    let vendor = Vendor::start("salesforce").await;
    let (config, credentials) = definition(&vendor);
    for (instance, code) in [
        (json!("https://attacker.example.com"), Code::ForeignNextPage),
        (json!("not a url"), Code::UnexpectedShape),
        (Value::Null, Code::UnexpectedShape),
    ] {
        let fields = with(&sound(&vendor), "instance_url", instance);
        let tokens = vec![json("200 OK", &fields)];
        let told = vendor
            .log_in(tokens, None, config.clone(), credentials.clone())
            .await;
        let failure = told.result.clone().unwrap_err();
        assert_eq!(
            (failure.code, told.token_requests.len()),
            (code, 1),
            "{failure}"
        );
        assert!(kept(&told), "{told:?}");
    }
}

/// What says that a token is over, in a run whose token is not a new one any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_over_is_renewed_once_whatever_the_status() {
    let vendor = Vendor::start("salesforce").await;
    let (config, credentials) = definition(&vendor);
    let over =
        json!([{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}])
            .to_string();
    let named =
        |text: &str| json!({"error": text, "error_description": "not_a_real_secret"}).to_string();
    for (about, refusal) in [
        ("401", answer("401 Unauthorized", &[JSON], over.as_bytes())),
        ("401 without words", answer("401 Unauthorized", &[], b"")),
        ("403", answer("403 Forbidden", &[JSON], over.as_bytes())),
        (
            "403 in other words",
            answer(
                "403 Forbidden",
                &[JSON],
                named("The access token expired").as_bytes(),
            ),
        ),
        (
            "403 by its challenge",
            answer(
                "403 Forbidden",
                &["WWW-Authenticate: Bearer error=\"invalid_token\", error_description=\"x\""],
                b"",
            ),
        ),
        (
            "400",
            answer(
                "400 Bad Request",
                &[JSON],
                named("token_expired").as_bytes(),
            ),
        ),
        (
            "400 in a sentence",
            answer(
                "400 Bad Request",
                &["Content-Type: text/plain"],
                b"Your token has expired.",
            ),
        ),
        (
            "419",
            answer(
                "419 Page Expired",
                &[JSON],
                named("expired_token").as_bytes(),
            ),
        ),
        (
            "498",
            answer(
                "498 Invalid Token",
                &[JSON],
                named("invalid token").as_bytes(),
            ),
        ),
        (
            "200",
            answer("200 OK", &[JSON], named("invalid_token").as_bytes()),
        ),
    ] {
        let token = |nth: usize| {
            let fields = with(
                &sound(&vendor),
                "access_token",
                format!("access-{nth}").into(),
            );
            json("200 OK", &without(&fields, "refresh_token"))
        };
        let tokens = vec![token(1), token(2)];
        let run = |times| {
            vendor.log_in(
                tokens.clone(),
                Some((refusal.clone(), times)),
                config.clone(),
                credentials.clone(),
            )
        };
        let told = run(1).await;
        assert_eq!(told.result, Ok(()), "{about}");
        assert_eq!(
            (told.ids.clone(), told.asked),
            (vendor.ids.clone(), 2),
            "{about}"
        );
        assert_eq!(told.token_requests.len(), 2, "{about}");
        assert_eq!(
            told.authorized.last().map(String::as_str),
            Some("Bearer access-2"),
            "{about}"
        );
        // Refused with a new one, too, it is not asked for again.
        let told = run(usize::MAX).await;
        assert!(told.result.is_err(), "{about}");
        assert_eq!((told.asked, told.token_requests.len()), (2, 2), "{about}");
    }
}
