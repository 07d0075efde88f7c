//! The answers to requests.

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Bytes,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Answer {
    pub fn json(status: u16, body: impl Into<Bytes>) -> Answer {
        Answer {
            status,
            content_type: "application/json",
            body: body.into(),
            headers: Vec::new(),
        }
    }

    /// Text as Prometheus reads it.
    pub fn samples(body: String) -> Answer {
        Answer {
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            ..Answer::json(200, body)
        }
    }

    /// A part of the page. It runs nothing but its own script, and talks to nobody but this server.
    pub fn page(content_type: &'static str, text: &'static str) -> Answer {
        let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        Answer {
            content_type,
            ..Answer::json(200, text)
        }
        .with(hyper::header::CONTENT_SECURITY_POLICY, policy)
        .with(hyper::header::REFERRER_POLICY, "no-referrer")
    }

    /// A refusal: a stable word for programs, and a sentence for people.
    pub fn refusal(status: u16, code: &str, message: &str) -> Answer {
        let body = json!({"error": {"code": code, "message": message}});
        Answer::json(status, body.to_string())
    }

    pub fn unauthorized() -> Answer {
        let message = "missing or invalid bearer token";
        Answer::refusal(401, "unauthorized", message)
            .with(hyper::header::WWW_AUTHENTICATE, "Bearer")
    }

    /// Refuses a webhook. The answer is the same for a connector that is not there, a secret that is not set and a
    /// signature that is wrong.
    pub fn not_authentic() -> Answer {
        let message = "there is no connector with this id, or the signature is not valid";
        Answer::refusal(401, "not_authentic", message)
    }

    pub fn not_found() -> Answer {
        Answer::refusal(404, "not_found", "there is nothing at this path")
    }

    /// Nothing was taken; the same again later may be.
    pub fn busy(seconds: u32) -> Answer {
        let message = "the gateway is busy; nothing was stored, retry later";
        Answer::refusal(503, "busy", message).retry_after(seconds)
    }

    /// Nothing was taken, because a person has paused the connector. Vendors take a refusal such as 404 or 410 for the end, and
    /// some then delete the subscription; after a 503 they push again.
    pub fn paused(seconds: u32) -> Answer {
        let message = "the connector is paused; nothing was stored, push again later";
        Answer::refusal(503, "paused", message).retry_after(seconds)
    }

    pub fn too_large(most: usize) -> Answer {
        let message = format!("the body is larger than {most} bytes");
        Answer::refusal(413, "too_large", &message)
    }

    pub fn too_slow() -> Answer {
        Answer::refusal(408, "too_slow", "the body did not come in time")
    }

    pub fn retry_after(self, seconds: u32) -> Answer {
        self.with(hyper::header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub fn allow(self, methods: &'static str) -> Answer {
        self.with(hyper::header::ALLOW, HeaderValue::from_static(methods))
    }

    fn with(mut self, name: HeaderName, value: impl TryInto<HeaderValue>) -> Answer {
        if let Ok(value) = value.try_into() {
            self.headers.push((name, value));
        }
        self
    }
}
