//! One HTTP exchange as data. None of these types prints a query, a header or a body: secrets live there.

use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;
use url::Url;

pub use super::pause::retry_after;
use super::{Verdict, pause, problem};
use crate::error::{Code, Failure};
use crate::secret::Secret;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
}

#[derive(Clone)]
pub struct Request {
    pub method: Method,
    /// The whole address, query included.
    pub url: Url,
    pub headers: Vec<(String, String)>,
    pub body: Option<Bytes>,
    /// Whether it may go to another place than the stream's own, because it shows no credentials.
    pub is_bare: bool,
}

impl Request {
    pub fn get(url: Url) -> Request {
        Request {
            method: Method::Get,
            url,
            headers: Vec::new(),
            body: None,
            is_bare: false,
        }
    }

    /// A part of a file that lies anywhere. Nothing may be added to it that says who asks.
    pub fn get_part(url: Url, bytes: Range<u64>) -> Request {
        let range = format!("bytes={}-{}", bytes.start, bytes.end.saturating_sub(1));
        Request {
            is_bare: true,
            ..Request::get(url)
        }
        .header("Range", range)
        // A part of something compressed cannot be read.
        .header("Accept-Encoding", "identity")
    }

    pub fn post(url: Url, content_type: &str, body: impl Into<Bytes>) -> Request {
        Request {
            method: Method::Post,
            url,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            body: Some(body.into()),
            is_bare: false,
        }
    }

    pub fn post_json(url: Url, body: &Value) -> Request {
        Request::post(url, "application/json", body.to_string())
    }

    pub fn post_form(url: Url, pairs: &[(&str, &str)]) -> Request {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        let form = form.extend_pairs(pairs).finish();
        Request::post(url, "application/x-www-form-urlencoded", form)
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Request {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Before the login there is no token, and the request shows none.
    pub fn bearer(self, token: Option<&Secret>) -> Request {
        match token {
            Some(token) => self.header("Authorization", format!("Bearer {}", token.text())),
            None => self,
        }
    }

    pub fn basic(self, user: &Secret, password: &Secret) -> Request {
        let pair = Secret::new([user.expose(), b":", password.expose()].concat());
        let pair = base64::engine::general_purpose::STANDARD.encode(pair.expose());
        self.header("Authorization", format!("Basic {pair}"))
    }
}

/// An address below another one, with each step of the path encoded.
pub fn below(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut steps) = url.path_segments_mut() {
        steps.pop_if_empty().extend(path);
    }
    url
}

/// The address with each of these parameters, encoded.
pub fn with_query(mut url: Url, query: &[(&str, impl AsRef<str>)]) -> Url {
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {}",
            self.method,
            self.url.host_str().unwrap_or("?")
        )
    }
}

#[derive(Clone)]
pub struct Response {
    pub status: u16,
    /// Names in lower case, in the order they came; a value is UTF-8 or was Latin-1. There is always a `date`.
    pub headers: Vec<(String, String)>,
    /// Decompressed, complete, within the limit; in UTF-8, as far as it is text.
    pub body: Bytes,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.status, self.body.len())
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// Whether it is an answer without content: by its status, or because nothing but blanks came.
    pub fn is_empty(&self) -> bool {
        (200..300).contains(&self.status) && self.body.trim_ascii().is_empty()
    }

    /// A failure that names the status.
    pub fn failure(&self, code: Code, what: impl fmt::Display) -> Failure {
        Failure {
            status: Some(self.status),
            ..Failure::new(code, format!("HTTP {} ({what})", self.status))
        }
    }
}

/// What a status means where the vendor's own rules do not say otherwise.
pub fn verdict_by_status(got: &Response) -> Verdict {
    if let Some(failure) = throttled(got) {
        return Verdict::Retry(failure);
    }
    let fail = |code, what: &str| got.failure(code, what);
    let again = |code, what: &str| Verdict::Retry(fail(code, what).after(pause::wait(got)));
    match got.status {
        200..=299 => Verdict::Read,
        300..=399 => Verdict::Fail(fail(Code::Redirected, "a redirect")),
        400 | 403 if problem::says_throttled(got) => {
            again(Code::RateLimited, "the server speaks of too many requests")
        }
        400 if problem::says_token_is_over(got) => {
            Verdict::Fail(fail(Code::CredentialsRejected, "the token was refused"))
        }
        // The last three are servers' own words for a session or token that is over.
        401 | 403 | 419 | 440 | 498 => {
            Verdict::Fail(fail(Code::CredentialsRejected, "credentials rejected"))
        }
        404 | 410 => Verdict::Fail(fail(Code::NotFound, "not found")),
        420 | 429 => again(Code::RateLimited, "too many requests"),
        409 => again(Code::ServerError, "a conflict with another request"),
        423 => again(Code::ServerError, "the data is locked at the moment"),
        408 | 425 | 500..=599 => again(Code::ServerError, "the server failed"),
        _ => Verdict::Fail(fail(Code::RequestRefused, "request refused")),
    }
}

/// A refusal whose headers say that there were too many requests, whatever else its status means: it names a time to wait,
/// or says that nothing is left of the limit. It goes before every vendor's own rules.
pub fn throttled(got: &Response) -> Option<Failure> {
    let says_so = match got.status {
        403 => pause::retry_after(got).is_some() || pause::is_used_up(got),
        503 => pause::retry_after(got).is_some(),
        _ => false,
    };
    says_so.then(|| {
        let failure = got.failure(Code::RateLimited, "the server asks to wait");
        failure.after(pause::wait(got))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn got(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
        let named = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Response {
            status,
            headers: headers.iter().map(named).collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn a_refusal_is_judged_by_status_header_and_words() {
        use Code::{CredentialsRejected, NotFound, RateLimited, RequestRefused, ServerError};
        let wait = ("retry-after", "2");
        for (status, headers, body, code, again, seconds) in [
            (403, vec![wait], "", RateLimited, true, Some(2)),
            (
                403,
                vec![("x-ratelimit-remaining", "0")],
                "",
                RateLimited,
                true,
                None,
            ),
            (
                403,
                vec![("x-ratelimit-remaining", "5")],
                "",
                CredentialsRejected,
                false,
                None,
            ),
            (
                403,
                vec![],
                r#"{"message": "API rate limit exceeded"}"#,
                RateLimited,
                true,
                None,
            ),
            (
                403,
                vec![],
                r#"{"message": "no"}"#,
                CredentialsRejected,
                false,
                None,
            ),
            (
                403,
                vec![("retry-after", "soon")],
                "",
                CredentialsRejected,
                false,
                None,
            ),
            (429, vec![wait], "", RateLimited, true, Some(2)),
            (
                429,
                vec![("ratelimit-reset", "3")],
                "",
                RateLimited,
                true,
                Some(3),
            ),
            (429, vec![], "", RateLimited, true, None),
            (420, vec![], "", RateLimited, true, None),
            (503, vec![wait], "", RateLimited, true, Some(2)),
            (503, vec![], "", ServerError, true, None),
            (500, vec![wait], "", ServerError, true, Some(2)),
            (409, vec![], "", ServerError, true, None),
            (423, vec![], "", ServerError, true, None),
            (408, vec![], "", ServerError, true, None),
            (400, vec![], "", RequestRefused, false, None),
            (
                400,
                vec![],
                r#"{"error": "token_expired"}"#,
                CredentialsRejected,
                false,
                None,
            ),
            (401, vec![wait], "", CredentialsRejected, false, None),
            (404, vec![wait], "", NotFound, false, None),
        ] {
            let got = got(status, &headers, body);
            let (was_again, failure) = match verdict_by_status(&got) {
                Verdict::Retry(failure) => (true, failure),
                Verdict::Fail(failure) => (false, failure),
                other => unreachable!("{status}: {other:?}"),
            };
            let expected = (code, again, seconds.map(std::time::Duration::from_secs));
            let about = format!("{status} {headers:?} {body}");
            let found = (failure.code, was_again, failure.retry_after);
            assert_eq!(found, expected, "{about}");
        }
    }

    #[test]
    fn only_a_success_is_read() {
        for status in 0..=999 {
            let verdict = verdict_by_status(&got(status, &[], ""));
            assert_eq!(
                verdict == Verdict::Read,
                (200..300).contains(&status),
                "{status}"
            );
        }
    }
}
