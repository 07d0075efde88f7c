//! Secrets that deliveries are signed with, and the check of their signatures.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use ring::hmac::{Context, HMAC_SHA256, Key};
use serde_json::Value;
use subtle::{Choice, ConstantTimeEq};

use super::{Pushed, Refusal};
use crate::error::Failure;
use crate::secret::Secret;
use crate::source::Definition;
use crate::source::settings::wrong;

/// Most secrets of a connector at once. More: each of them is a pass over every body that anybody sends. Fewer: while
/// one takes the place of another there are two.
const MOST_SECRETS: usize = 8;

/// How far the time that is signed may be from ours, in seconds, as Stripe has it. Further: a delivery that somebody
/// has read can be sent again for longer. Nearer: clocks differ.
pub const TOLERANCE: u64 = 300;

/// The longest text of a time; with more digits it would be one that no calendar has.
const LONGEST_TIME: usize = 12;

/// HMAC with SHA-256.
pub type Signature = [u8; 32];

/// The secrets of a connector: at least one, and none of them blank.
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// What the first of these credentials that is there holds: a text, or a list of them. `None`: there is none, and so
    /// nothing is taken. A blank one would be a key that everybody knows.
    pub fn read(connector: &Definition, names: &[&str]) -> Result<Option<Secrets>, Failure> {
        let fields = connector.credentials.fields();
        let there = names.iter().find_map(|name| {
            let value = fields.get(*name).filter(|value| !value.is_null())?;
            Some((*name, value))
        });
        let Some((name, value)) = there else {
            return Ok(None);
        };
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        if values.is_empty() || values.len() > MOST_SECRETS {
            return Err(wrong(format!(
                "credentials' \"{name}\" has to be a list of 1 to {MOST_SECRETS} texts"
            )));
        }
        let secrets = values.iter().map(|value| secret(name, value));
        let secrets: Result<Vec<Secret>, Failure> = secrets.collect();
        Ok(Some(Secrets(secrets?)))
    }

    /// Whether one of these is what one of the secrets makes of the parts, one after the other. How long that takes says
    /// nothing of any of them.
    pub fn check(&self, parts: &[&[u8]], signatures: &[Signature]) -> Result<(), Refusal> {
        let mut is_signed = Choice::from(0);
        for secret in &self.0 {
            let mut context = Context::with_key(&Key::new(HMAC_SHA256, secret.expose()));
            for part in parts {
                context.update(part);
            }
            let ours = context.sign();
            for signature in signatures {
                is_signed |= ours.as_ref().ct_eq(signature);
            }
        }
        match bool::from(is_signed) {
            true => Ok(()),
            false => Err(Refusal::Unauthentic),
        }
    }

    /// Checks a body whose one signature over these parts stands alone in a header, in base64.
    pub fn check_base64(&self, got: &Pushed, header: &str, parts: &[&[u8]]) -> Result<(), Refusal> {
        let signature = Encoding::Base64.decode(got.only(header)?);
        self.check(parts, &[signature.ok_or(Refusal::Unauthentic)?])
    }
}

fn secret(name: &str, value: &Value) -> Result<Secret, Failure> {
    let text = match value {
        Value::String(text) => text.trim().as_bytes().to_vec(),
        // As every other credential.
        Value::Number(number) => number.to_string().into_bytes(),
        _ => {
            return Err(wrong(format!(
                "credentials' \"{name}\" has to be text or a list of texts"
            )));
        }
    };
    let secret = Secret::new(text);
    // NULs alone are the same key as none at all.
    let is_unseen = |c: char| {
        let is_of_no_width =
            matches!(c, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2060}'..='\u{2064}' | '\u{FEFF}');
        c.is_whitespace() || c.is_control() || is_of_no_width
    };
    let is_blank = secret.text().chars().all(is_unseen);
    if is_blank {
        return Err(wrong(format!("credentials' \"{name}\" is empty")));
    }
    Ok(secret)
}

/// The encoding of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Hex,
    Base64,
}

impl Encoding {
    /// A signature has one way to be written, but for the case of all its letters.
    pub fn decode(self, text: &[u8]) -> Option<Signature> {
        let length = match self {
            Encoding::Hex => 64,
            Encoding::Base64 => 44,
        };
        if text.len() != length {
            return None;
        }
        match self {
            Encoding::Hex => hex(text),
            Encoding::Base64 => STANDARD.decode(text).ok()?.try_into().ok(),
        }
    }
}

fn hex(text: &[u8]) -> Option<Signature> {
    let is_mixed =
        text.iter().any(u8::is_ascii_lowercase) && text.iter().any(u8::is_ascii_uppercase);
    let digit = |byte: &u8| u8::try_from(char::from(*byte).to_digit(16)?).ok();
    let mut signature = Signature::default();
    for (byte, pair) in signature.iter_mut().zip(text.chunks(2)) {
        let [high, low] = pair else {
            return None;
        };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    (!is_mixed).then_some(signature)
}

/// Unix seconds.
pub fn seconds(text: &[u8]) -> Option<i64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok()?;
    (is_number && text.len() <= LONGEST_TIME).then(|| text.parse().ok())?
}

/// Whether what was signed at this time is taken now: neither old nor of the future.
pub fn check_time(seconds: i64, now: DateTime<Utc>, tolerance: u64) -> Result<(), Refusal> {
    match now.timestamp().abs_diff(seconds) <= tolerance {
        true => Ok(()),
        false => Err(Refusal::Unauthentic),
    }
}
