//! Token requests: what every vendor's OAuth has in common.

use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use url::Url;

use super::problem::{self, Kind};
use super::request::verdict_by_status;
use super::{Access, Grant, Response, Rotated, Verdict};
use crate::error::{Code, Failure};
use crate::secret::{Credentials, Secret};

/// Names of an answer's fields.
pub struct Names<'a> {
    pub access: &'a str,
    pub lives: &'a str,
    pub refresh: &'a str,
}

pub const USUAL: Names = Names {
    access: "access_token",
    lives: "expires_in",
    refresh: "refresh_token",
};

/// The answer to a token request. All of it counts as a secret.
pub struct Answer {
    pub access: Secret,
    pub lives: Option<Duration>,
    pub refresh: Option<Secret>,
    pub fields: Credentials,
}

/// Reads the answer to a token request. None of its text is repeated anywhere.
pub fn answer(got: &Response, names: &Names) -> Result<Answer, Failure> {
    let refused = |message: String| Failure::new(Code::CredentialsRejected, message);
    match verdict_by_status(got) {
        Verdict::Retry(failure) => return Err(failure),
        // "invalid_grant" comes with 400, and "temporarily_unavailable" may.
        Verdict::Fail(failure) if failure.code == Code::RequestRefused => {
            let fields = fields(got).unwrap_or_default();
            return Err(match problem::kind_in(&fields) {
                Some(Kind::Throttled) => got.failure(Code::RateLimited, "too many requests"),
                Some(Kind::Failing) => got.failure(Code::ServerError, "the server failed"),
                _ => refused(format!("HTTP {} (the server gave no token)", got.status)),
            });
        }
        Verdict::Fail(failure) => return Err(failure),
        _ => {}
    }
    let fields = fields(got).ok_or_else(|| {
        if serde_json::from_slice::<IgnoredAny>(&got.body).is_ok() {
            let message = "the response to the login is not an object";
            return Failure::new(Code::UnexpectedShape, message);
        }
        let message = "the response to the login is not JSON, and no form either";
        Failure::new(Code::InvalidJson, message)
    })?;
    let named = problem::named_in(got, &fields);
    let fields = Credentials::from(Value::Object(fields));
    let access = text(&fields, names.access).ok_or_else(|| match named {
        Some(failure) if failure.code != Code::UnexpectedShape => failure,
        Some(_) => refused("the response to the login names an error and has no token".to_owned()),
        None => {
            let message = "the response to the login has no access token";
            Failure::new(Code::UnexpectedShape, message)
        }
    })?;
    Ok(Answer {
        access,
        lives: fields.fields().get(names.lives).and_then(seconds),
        refresh: text(&fields, names.refresh),
        fields,
    })
}

fn text(fields: &Credentials, name: &str) -> Option<Secret> {
    let text = fields.fields().get(name)?.as_str()?;
    (!text.is_empty()).then(|| Secret::new(text.as_bytes().to_vec()))
}

/// The refresh token in a successful answer, whatever else is wrong with it.
pub fn refresh_in(got: &Response, names: &Names) -> Option<Secret> {
    let fields = fields(got).filter(|_| (200..300).contains(&got.status))?;
    text(&Credentials::from(Value::Object(fields)), names.refresh)
}

/// The same as what is to be stored, where it is another one than was sent.
pub fn rotated_in(got: &Response, names: &Names, sent: Option<&Secret>) -> Option<Rotated> {
    rotated(sent?, refresh_in(got, names))
}

/// Most bytes before an object that are skipped: a comment, or what keeps a browser from running it as a script.
const LONGEST_PREFIX: usize = 256;

/// The fields of an answer: of an object in JSON, whatever stands around it, or of a form. Some servers send a form and
/// call it text, and some call JSON a form.
fn fields(got: &Response) -> Option<Map<String, Value>> {
    let body = std::str::from_utf8(&got.body).ok()?.trim();
    let body = body.trim_start_matches('\u{FEFF}').trim_start();
    match serde_json::from_str(body) {
        Ok(Value::Object(fields)) => return Some(fields),
        Ok(_) => return None,
        Err(_) => {}
    }
    let open = body.find('{').filter(|at| *at <= LONGEST_PREFIX);
    if let Some(rest) = open.and_then(|open| body.get(open..)) {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        if let Some(Ok(Value::Object(fields))) = values.next() {
            return Some(fields);
        }
        return None;
    }
    let is_form = body.contains('=') && body.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_form || body.starts_with('<') {
        return None;
    }
    let pairs = url::form_urlencoded::parse(body.as_bytes());
    Some(
        pairs
            .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
            .collect(),
    )
}

/// What to store where the answer holds another refresh token than was sent.
fn rotated(old: &Secret, new: Option<Secret>) -> Option<Rotated> {
    let new = new.filter(|new| new != old)?;
    Some(Rotated {
        path: vec!["refresh_token".to_owned()],
        old: old.clone(),
        new,
    })
}

impl Answer {
    /// `sent` is the refresh token that the request showed.
    pub fn grant(self, sent: Option<&Secret>, base: Option<Url>) -> Grant {
        Grant {
            rotated: sent.and_then(|sent| rotated(sent, self.refresh)),
            access: Access {
                token: self.access,
                base,
            },
            lives: self.lives,
        }
    }
}

/// A token that is said to live longer is good until it is refused: beyond, the arithmetic of clocks ends.
const LONGEST_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A number of seconds, or the text of one.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    let life = Duration::try_from_secs_f64(seconds).ok()?;
    Some(life.min(LONGEST_LIFE))
}
