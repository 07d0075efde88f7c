//! The last requests of a run, for a person who follows it: `sync_requests`.
//!
//! They are kept in memory, and stored only where config asks for it or the run failed. Nothing secret gets in: no header
//! and no body, an address without user and without the values of its query, and of its path no step that holds a
//! credential or looks like one.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;
use url::{Url, form_urlencoded};
use uuid::Uuid;

use crate::error::Code;
use crate::secret::{Credentials, Secret};
use crate::source::Method;

/// More: memory for every run that is going. Fewer: the beginning of what went wrong is not there any more.
pub const MOST_REQUESTS: usize = 200;

/// Longest address in characters.
const LONGEST_ADDRESS: usize = 500;

/// A shorter credential is looked for as a whole step of a path only: "a" is in every address.
const SHORT: usize = 6;

/// What takes the place of a step that may be secret.
const HIDDEN: &str = "***";

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// By the database's clock.
    pub at: DateTime<Utc>,
    /// `None`: a login.
    pub stream: Option<String>,
    /// `GET`, `POST`, or `SQL` for a statement.
    pub method: &'static str,
    pub address: String,
    pub status: Option<u16>,
    pub code: Option<Code>,
    pub duration: Duration,
    pub bytes: u64,
    pub records: Option<u64>,
    /// Which try this was, from 1.
    pub tries: u32,
    /// How long the run waited before it.
    pub pause: Duration,
}

/// A request that is under way.
pub struct Asking {
    asked: Asked,
    began: Instant,
}

/// The tries of one page.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attempt {
    pub tries: u32,
    pub pause: Duration,
}

/// The requests of one run.
pub struct Trace {
    requests: Mutex<VecDeque<Asked>>,
    secrets: Vec<Secret>,
    /// When the run was taken up, by the database's clock and by this machine's.
    now: DateTime<Utc>,
    began: Instant,
}

impl Trace {
    pub fn new(credentials: &Credentials, now: DateTime<Utc>) -> Trace {
        let mut secrets = Vec::new();
        for (name, value) in credentials.fields() {
            if !is_place(name) {
                gather(value, &mut secrets);
            }
        }
        Trace {
            requests: Mutex::default(),
            secrets,
            now,
            began: Instant::now(),
        }
    }

    /// A request is about to be made.
    pub fn begin(
        &self,
        stream: Option<&str>,
        method: &'static str,
        url: &Url,
        token: Option<&Secret>,
        attempt: Attempt,
    ) -> Asking {
        let asked = Asked {
            at: self.now + self.began.elapsed(),
            stream: stream.map(str::to_owned),
            method,
            address: address(url, &self.secrets, token),
            status: None,
            code: None,
            duration: Duration::ZERO,
            bytes: 0,
            records: None,
            tries: attempt.tries,
            pause: attempt.pause,
        };
        Asking {
            asked,
            began: Instant::now(),
        }
    }

    /// How a request ended.
    pub fn note(&self, asking: Asking, code: Option<Code>, records: Option<u64>) {
        let Asking { mut asked, began } = asking;
        (asked.code, asked.records) = (code, records);
        if asked.duration.is_zero() {
            asked.duration = began.elapsed();
        }
        let mut requests = self.requests();
        if requests.len() == MOST_REQUESTS {
            requests.pop_front();
        }
        requests.push_back(asked);
    }

    pub fn take(&self) -> Vec<Asked> {
        self.requests().drain(..).collect()
    }

    fn requests(&self) -> std::sync::MutexGuard<'_, VecDeque<Asked>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking {
    /// The whole response is here.
    pub fn answered(&mut self, status: Option<u16>, bytes: u64) {
        (self.asked.status, self.asked.bytes) = (status, bytes);
        self.asked.duration = self.began.elapsed();
    }
}

pub fn word(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Post => "POST",
    }
}

/// Names of credentials that say where, or who, and may stand in an address.
fn is_place(name: &str) -> bool {
    [
        "host", "hostname", "server", "database", "dbname", "username", "user", "base_url", "shop",
        "domain",
    ]
    .contains(&name)
}

fn gather(value: &Value, secrets: &mut Vec<Secret>) {
    match value {
        Value::String(text) => secrets.push(Secret::new(text.trim().as_bytes().to_vec())),
        Value::Number(number) => secrets.push(Secret::new(number.to_string().into_bytes())),
        Value::Array(items) => items.iter().for_each(|item| gather(item, secrets)),
        Value::Object(fields) => fields.values().for_each(|field| gather(field, secrets)),
        Value::Null | Value::Bool(_) => {}
    }
}

/// An address without what may be secret: no user, no values of the query, no fragment.
fn address(url: &Url, secrets: &[Secret], token: Option<&Secret>) -> String {
    let secrets: Vec<_> = secrets.iter().chain(token).map(Secret::text).collect();
    let holds = |text: &str| {
        let within = |secret: &&str| secret.len() >= SHORT && text.contains(*secret);
        let secrets = || secrets.iter().map(AsRef::as_ref);
        secrets().any(|secret| !secret.is_empty() && text == secret)
            || secrets().any(|secret| within(&secret))
    };
    let host = url.host_str().unwrap_or_default();
    // A host has no case.
    let is_within = |secret: &str| {
        let secret = secret.to_ascii_lowercase();
        secret.len() >= SHORT && host.contains(&secret)
    };
    let is_secret = secrets.iter().any(|secret| is_within(secret.as_ref()));
    let is_secret = is_secret || holds(host) || host.split('.').any(is_token);
    let host = if is_secret { HIDDEN } else { host };
    let port = url
        .port()
        .map_or_else(String::new, |port| format!(":{port}"));
    let path = url.path().trim_start_matches('/');
    let steps: Vec<&str> = path
        .split('/')
        .map(|step| match holds(&plain(step)) || is_token(&plain(step)) {
            true => HIDDEN,
            false => step,
        })
        .collect();
    let whole = plain(&steps.join("/"));
    // A secret may have a slash within.
    let path = if holds(&whole) {
        HIDDEN.to_owned()
    } else {
        steps.join("/")
    };
    let names: Vec<String> = url
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| match part.split_once('=') {
            Some((name, _)) if !holds(&plain(name)) && !is_token(&plain(name)) => {
                format!("{name}=")
            }
            _ => HIDDEN.to_owned(),
        })
        .collect();
    let query = match names.is_empty() {
        true => String::new(),
        false => format!("?{}", names.join("&")),
    };
    let whole = format!("{}://{host}{port}/{path}{query}", url.scheme());
    match whole.char_indices().nth(LONGEST_ADDRESS) {
        Some((end, _)) => format!("{}...", whole.get(..end).unwrap_or_default()),
        None => whole,
    }
}

/// A part of an address as it was before it was encoded.
fn plain(text: &str) -> String {
    let text = text.replace('+', "%2B").replace('&', "%26");
    let value = form_urlencoded::parse(format!("v={text}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned());
    value.unwrap_or_default()
}

/// A step of this length that mixes letters and digits is taken for a secret, whatever else is in it.
const LONG: usize = 32;

/// Beginnings of tokens as vendors write them.
const BEGINNINGS: [&str; 14] = [
    "sk_", "rk_", "whsec_", "shpat_", "shpca_", "shppa_", "shpss_", "xoxb-", "xoxp-", "ghp_",
    "glpat-", "EAAA", "sq0", "eyJ",
];

/// Whether a step of a path looks like a secret: a long run of letters and digits, or a known beginning. An id in groups,
/// such as a UUID, does not.
fn is_token(step: &str) -> bool {
    let begins = |beginning: &&str| {
        step.strip_prefix(*beginning)
            .is_some_and(|rest| rest.len() >= 8)
    };
    let is_bot = step
        .strip_prefix("bot")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains(':'));
    let is_mixed = |text: &str| {
        text.chars().any(|c| c.is_ascii_digit()) && text.chars().any(char::is_alphabetic)
    };
    let is_long = |piece: &str| piece.len() >= LONG || piece.len() >= 20 && is_mixed(piece);
    is_bot
        || step.len() >= LONG && is_mixed(step) && Uuid::try_parse(step).is_err()
        || BEGINNINGS.iter().any(begins)
        || step
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(is_long)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(url: &str) -> String {
        let credentials = Credentials::from(json!({
            "api_key": "not/a+real=key", "pin": "7", "nested": {"deep": ["not-a-real-secret"]}, "host": "db.example.com"
        }));
        let trace = Trace::new(&credentials, DateTime::UNIX_EPOCH);
        let token = Secret::new(b"the-access-token".to_vec());
        let url = Url::parse(url).unwrap();
        let asking = trace.begin(Some("s"), "GET", &url, Some(&token), Attempt::default());
        trace.note(asking, None, None);
        trace.take().remove(0).address
    }

    #[test]
    fn an_address_shows_its_place_and_nothing_secret() {
        for (url, address) in [
            (
                "https://api.example.com/v1/orders?page=2&api_key=x&since=y#z",
                "https://api.example.com/v1/orders?page=&api_key=&since=",
            ),
            (
                "http://user:password@127.0.0.1:8080/a",
                "http://127.0.0.1:8080/a",
            ),
            // Without a "=" it may be a value.
            ("https://a.example/?4711", "https://a.example/?***"),
            (
                "https://a.example/7/orders/77",
                "https://a.example/***/orders/77",
            ),
            (
                "https://a.example/not/a+real=key/x",
                "https://a.example/***",
            ),
            (
                "https://a.example/not%2Fa%2Breal%3Dkey/x",
                "https://a.example/***/x",
            ),
            (
                "https://a.example/v1/not-a-real-secret.json",
                "https://a.example/v1/***",
            ),
            (
                "https://a.example/the-access-token/x",
                "https://a.example/***/x",
            ),
            ("https://not-a-real-secret.example/x", "https://***/x"),
            (
                "postgres://db.example.com:5432/shop",
                "postgres://db.example.com:5432/shop",
            ),
            // Vendors that put their tokens into the path.
            (
                "https://api.example.com/bot1:not_a_real_token/getUpdates",
                "https://api.example.com/***/getUpdates",
            ),
            (
                "https://hooks.example.com/services/T0000/B0000/NOTAREALHOOKTOKEN12345678",
                "https://hooks.example.com/services/T0000/B0000/***",
            ),
            (
                "https://a.example/sk_test_not_a_real_key/x",
                "https://a.example/***/x",
            ),
            (
                "https://a.example/eyJhbGciOi.eyJzdWIi.c2ln/x",
                "https://a.example/***/x",
            ),
            // What is no secret stays.
            (
                "https://na1.salesforce.com/services/data/v60.0/query/01gD0000002HU6KIAW-2000",
                "https://na1.salesforce.com/services/data/v60.0/query/01gD0000002HU6KIAW-2000",
            ),
            (
                "https://erp.example/api/resource/Sales%20Invoice/ACC-SINV-2026-00001",
                "https://erp.example/api/resource/Sales%20Invoice/ACC-SINV-2026-00001",
            ),
            (
                "https://a.example/objects/2f1b7a0e-6a53-4b0c-9d0f-2a4b1c3d5e6f",
                "https://a.example/objects/2f1b7a0e-6a53-4b0c-9d0f-2a4b1c3d5e6f",
            ),
            (
                "https://a.example/a_key_that_is_not_real_1234567890/x",
                "https://a.example/***/x",
            ),
            (
                "https://a.example/v3/company/9130357849536636/query",
                "https://a.example/v3/company/9130357849536636/query",
            ),
        ] {
            assert_eq!(shown(url), address, "{url}");
        }
        let long = format!("https://a.example/{}", "a/".repeat(2_000));
        assert_eq!(shown(&long).chars().count(), LONGEST_ADDRESS + 3);
    }

    #[test]
    fn only_the_last_requests_are_kept() {
        let trace = Trace::new(&Credentials::default(), DateTime::UNIX_EPOCH);
        for number in 0..MOST_REQUESTS as u64 + 50 {
            let url = Url::parse("https://a.example/").unwrap();
            let mut asking = trace.begin(None, "GET", &url, None, Attempt::default());
            asking.answered(Some(200), number);
            trace.note(asking, None, Some(number));
        }
        let kept = trace.take();
        let bytes: Vec<u64> = kept.iter().map(|asked| asked.bytes).collect();
        assert_eq!(bytes, (50..MOST_REQUESTS as u64 + 50).collect::<Vec<_>>());
        assert!(trace.take().is_empty());
    }
}
