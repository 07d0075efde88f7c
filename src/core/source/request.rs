//! One HTTP exchange as data. None of these types prints a query, a header or a body: secrets live there.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;
use url::Url;

use super::Verdict;
use crate::error::{Code, Failure, LONGEST_REST};
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
    /// Names in lower case, in the order they came; a value that is not UTF-8 is left out.
    pub headers: Vec<(String, String)>,
    /// Decompressed, complete, within the limit.
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
    let fail = |code, what: &str| got.failure(code, what);
    match got.status {
        200..=299 => Verdict::Read,
        300..=399 => Verdict::Fail(fail(Code::Redirected, "a redirect")),
        401 | 403 => Verdict::Fail(fail(Code::CredentialsRejected, "credentials rejected")),
        404 | 410 => Verdict::Fail(fail(Code::NotFound, "not found")),
        429 => Verdict::Retry(fail(Code::RateLimited, "too many requests").after(retry_after(got))),
        408 | 425 | 500..=599 => {
            Verdict::Retry(fail(Code::ServerError, "the server failed").after(retry_after(got)))
        }
        _ => Verdict::Fail(fail(Code::RequestRefused, "request refused")),
    }
}

/// The `Retry-After` header: whole or decimal seconds, or an HTTP date. What does not read is not there.
pub fn retry_after(got: &Response) -> Option<Duration> {
    let value = got.header("retry-after")?.trim();
    let wait = match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => {
            let until = httpdate::parse_http_date(value).ok()?;
            // Measured by the vendor's own clock: ours may differ.
            let now = httpdate::parse_http_date(got.header("date")?).ok()?;
            until.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_REST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_within_bounds() {
        let wait = |value: &str| {
            let headers = vec![
                (
                    "date".to_owned(),
                    "Sun, 06 Nov 1994 08:49:30 GMT".to_owned(),
                ),
                ("retry-after".to_owned(), value.to_owned()),
            ];
            retry_after(&Response {
                status: 429,
                headers,
                body: Bytes::new(),
            })
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait(" 2.5 "), Some(Duration::from_millis(2_500)));
        assert_eq!(
            wait("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(7))
        );
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("99999999999"), Some(LONGEST_REST));
        for nonsense in ["-1", "", "soon", "NaN", "inf", "1e400"] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn only_a_success_is_read() {
        let got = |status| Response {
            status,
            headers: vec![],
            body: Bytes::new(),
        };
        for status in 0..=999 {
            let verdict = verdict_by_status(&got(status));
            assert_eq!(
                verdict == Verdict::Read,
                (200..300).contains(&status),
                "{status}"
            );
        }
    }
}
