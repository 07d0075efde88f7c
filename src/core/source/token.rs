//! Token requests: what every vendor's OAuth has in common.

use std::time::Duration;

use serde_json::Value;
use url::Url;

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
    match verdict_by_status(got) {
        Verdict::Retry(failure) => return Err(failure),
        // "invalid_grant" comes with 400.
        Verdict::Fail(failure) if failure.code == Code::RequestRefused => {
            let message = format!("HTTP {} (the server gave no token)", got.status);
            return Err(Failure::new(Code::CredentialsRejected, message));
        }
        Verdict::Fail(failure) => return Err(failure),
        _ => {}
    }
    let fields = serde_json::from_slice::<Value>(&got.body)
        .map_err(|_| Failure::new(Code::InvalidJson, "the response to the login is not JSON"))?;
    let fields = Credentials::from(fields);
    let text = |name: &str| {
        let text = fields.fields().get(name)?.as_str()?;
        (!text.is_empty()).then(|| Secret::new(text.as_bytes().to_vec()))
    };
    let access = text(names.access).ok_or_else(|| {
        let message = "the response to the login has no access token";
        Failure::new(Code::UnexpectedShape, message)
    })?;
    Ok(Answer {
        access,
        lives: fields.fields().get(names.lives).and_then(seconds),
        refresh: text(names.refresh),
        fields,
    })
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
