//! One HTTP exchange as data. None of these types prints a query, a header or a body: secrets live there.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use url::Url;

use super::Verdict;
use crate::error::{Code, Failure};

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
}

/// The longest wait a vendor may ask for. Longer: a hostile header stops a connector for good.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What a status means where the vendor's own rules do not say otherwise.
pub fn verdict_by_status(got: &Response) -> Verdict {
    let fail = |code, what: &str| Failure::new(code, format!("HTTP {} ({what})", got.status));
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

fn retry_after(_got: &Response) -> Option<Duration> {
    None // filled in by the fetch part
}
