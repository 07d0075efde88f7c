//! How a sealed field is written, and how a given one is read.
//!
//! A key that begins with `$` is a mark of ours, at every depth. One that is misspelt, or stands where it means
//! nothing, is refused: sealed as it is, `{"$bx": "..."}` would be sent to a vendor as the credential.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::KeyId;
use super::refusal::SealError;

const SEALED: &str = "$sealed";
const BOX: &str = "$box";

/// The first part of an envelope: cipher, associated data and what is sealed. It changes when any of them does.
const VERSION: &str = "v1";

/// Deepest nesting of one credential. Deeper: reading it back recurses that often, and the JSON parser ends at
/// 128. Shallower: the key file of a service account, which some vendors give as JSON, has 2.
const DEEPEST: usize = 32;

/// One field of `credentials` as it was given.
pub enum Given<'a> {
    Plain,
    /// The text of an envelope.
    Sealed(&'a str),
    /// The text of a box.
    Boxed(&'a str),
}

impl Given<'_> {
    pub fn read<'a>(field: &str, value: &'a Value) -> Result<Given<'a>, SealError> {
        let fields = value.as_object();
        let mark = fields.and_then(|fields| fields.keys().find(|key| key.starts_with('$')));
        let Some(mark) = mark else {
            check_plain(field, value, 0)?;
            return Ok(Given::Plain);
        };
        let alone = fields.filter(|fields| fields.len() == 1);
        let text = alone.and_then(|fields| fields.get(mark)?.as_str());
        match (mark.as_str(), text) {
            (SEALED, Some(text)) => Ok(Given::Sealed(text)),
            (BOX, Some(text)) => Ok(Given::Boxed(text)),
            _ => Err(SealError::Mark {
                field: field.to_owned(),
            }),
        }
    }
}

/// Whether a value nests within bounds and has no mark of ours in it.
fn check_plain(field: &str, value: &Value, depth: usize) -> Result<(), SealError> {
    let field_name = || field.to_owned();
    if depth > DEEPEST {
        return Err(SealError::TooDeep {
            field: field_name(),
        });
    }
    match value {
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_plain(field, item, depth + 1)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            if key.starts_with('$') {
                return Err(SealError::Mark {
                    field: field_name(),
                });
            }
            check_plain(field, value, depth + 1)
        }),
        _ => Ok(()),
    }
}

/// One sealed field.
pub struct Envelope {
    pub key: KeyId,
    /// Nonce, ciphertext and tag.
    pub bytes: Vec<u8>,
}

impl Envelope {
    /// `None` for anything that [`Envelope::write`] does not write: one envelope has one spelling.
    pub fn read(text: &str) -> Option<Envelope> {
        let mut parts = text.splitn(3, '.');
        parts.next().filter(|version| *version == VERSION)?;
        let key = parts.next()?.parse().ok()?;
        let bytes = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        Some(Envelope { key, bytes })
    }

    pub fn write(key: KeyId, bytes: &[u8]) -> Value {
        let bytes = URL_SAFE_NO_PAD.encode(bytes);
        json!({ SEALED: format!("{VERSION}.{key}.{bytes}") })
    }
}

/// The bytes of a box: every tool has its own base64, with the one alphabet or the other, padding and lines.
pub fn read_box(text: &str) -> Option<Vec<u8>> {
    let text: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let url_safe = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let alphabet = if url_safe {
        &alphabet::URL_SAFE
    } else {
        &alphabet::STANDARD
    };
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config).decode(text).ok()
}
