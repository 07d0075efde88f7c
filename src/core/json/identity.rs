//! The one rule of identity: which records are the same one. Every type uses it.
//!
//! An id is the stream, a slash and the key. In the stream's name `/` is written as `%2F`, so that the first slash ends it.
//!
//! What identifies a value is its own text, whatever its type and spelling:
//! - A text is its characters: `café` and `caf\u00e9` are one key. The empty text is a key.
//! - A number is its digits: 7, 7.0 and 70e-1 are one key, and so are 7 and "7". A text is never read as a number: "007" and
//!   "7.0" are keys of their own.
//! - `true` and `false` are these words, as a text is.
//! - An object or array is its JSON without spaces, with the fields in the order of their names, and the rule for its values.
//! - `null` and a field that is not there are the same: no value.
//!
//! A key of one part is that text; one that is long JSON is `#` and its hash. A key of several parts is `#` and a hash of
//! them all; a part without a value is told from every value. Where no part has a value, the content identifies the record:
//! `#` and a hash of its text. Equal records of one page are then counted: the second one has `/2` behind its hash.
//!
//! Versions up to 0.1.0 had another rule ([`former`]). A record that they stored keeps its id.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Longest JSON that is an id as it is. Longer: the index grows. Shorter: such an id says nothing to a person.
const LONGEST_JSON: usize = 64;

/// Most zeros that a number is written with. More: `1e9999` would be a text of ten thousand letters.
const MOST_ZEROS: i64 = 40;

/// Deepest nesting of a key that is looked into.
const DEEPEST: usize = 100;

/// What identifies a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The id behind the stream.
    pub text: String,
    /// No part of the key has a value, or there is none: the content identifies the record.
    pub is_content: bool,
}

/// What every id of a stream begins with.
pub fn prefix(stream: &str) -> Cow<'_, str> {
    match stream.contains('/') || stream.contains("%2F") || stream.contains("%25") {
        false => Cow::Borrowed(stream),
        // What looks like our own writing is told from it.
        true => Cow::Owned(
            stream
                .replace("%25", "%2525")
                .replace("%2F", "%252F")
                .replace('/', "%2F"),
        ),
    }
}

/// The key whose parts have these values. `None`: a value cannot be read, for instance half of a surrogate pair.
pub fn key(values: &[Option<&RawValue>], hash: &[u8; 16]) -> Option<Key> {
    let keyed = |text: String| {
        Some(Key {
            text,
            is_content: false,
        })
    };
    let content = || {
        Some(Key {
            text: hex(hash),
            is_content: true,
        })
    };
    match values {
        [single] => match Part::read(*single)? {
            Part::None => content(),
            Part::Text(text) => keyed(text.into_owned()),
            Part::Json(json) if json.len() > LONGEST_JSON => {
                keyed(hex(&super::hash(json.as_bytes())))
            }
            Part::Json(json) => keyed(json),
        },
        several => {
            let parts: Option<Vec<Part>> = several.iter().map(|value| Part::read(*value)).collect();
            let parts = parts?;
            if parts.iter().all(|part| matches!(part, Part::None)) {
                return content();
            }
            // Lengths frame the parts: ("a", "bc") and ("ab", "c") are two keys.
            let framed: String = parts
                .iter()
                .map(|part| {
                    let text = part.json();
                    format!("{};{text}", text.len())
                })
                .collect();
            keyed(hex(&super::hash(framed.as_bytes())))
        }
    }
}

/// One part of a key.
enum Part<'a> {
    None,
    /// A text, number or truth value.
    Text(Cow<'a, str>),
    /// An object or array, as canonical JSON.
    Json(String),
}

impl<'a> Part<'a> {
    fn read(value: Option<&'a RawValue>) -> Option<Part<'a>> {
        let Some(value) = value else {
            return Some(Part::None);
        };
        let text = value.get();
        match text.as_bytes().first()? {
            b'n' => Some(Part::None),
            b'"' => serde_json::from_str(text)
                .ok()
                .map(|text: String| Part::Text(text.into())),
            b'{' | b'[' => {
                let mut json = String::with_capacity(text.len());
                Canonical { rest: text }.value(&mut json, 0)?;
                Some(Part::Json(json))
            }
            b't' | b'f' => Some(Part::Text(text.into())),
            _ => Some(Part::Text(number(text))),
        }
    }

    /// The part as JSON that is the same for the same text.
    fn json(&self) -> Cow<'_, str> {
        match self {
            Part::None => "null".into(),
            Part::Text(text) => scalar(text),
            Part::Json(json) => json.into(),
        }
    }
}

/// A text, number or truth value as JSON. A text that spells a number or a truth value is written as that.
fn scalar(text: &str) -> Cow<'_, str> {
    let is_plain = matches!(text, "true" | "false") || is_canonical_number(text);
    match is_plain {
        true => text.into(),
        false => serde_json::to_string(text).unwrap_or_default().into(),
    }
}

fn is_canonical_number(text: &str) -> bool {
    let starts = |byte: &u8| *byte == b'-' || byte.is_ascii_digit();
    text.as_bytes().first().is_some_and(starts)
        && serde_json::from_str::<&RawValue>(text).is_ok_and(|json| json.get().len() == text.len())
        && number(text) == text
}

/// A number as its digits: without a point where it is whole, without an exponent where it is not extreme.
pub fn number(text: &str) -> Cow<'_, str> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", text),
    };
    let is_short = unsigned.len() <= MOST_ZEROS as usize;
    if is_short && unsigned != "0" && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.into();
    }
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let Ok(exponent) = exponent.parse::<i64>() else {
        return text.into();
    };
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return "0".into();
    }
    let (fraction, zeros) = (fraction.len() as i64, (digits.len() - kept.len()) as i64);
    let Some(exponent) = exponent
        .checked_sub(fraction)
        .and_then(|exponent| exponent.checked_add(zeros))
    else {
        return text.into();
    };
    // How many digits are before the point.
    let point = exponent.saturating_add(kept.len() as i64);
    let written = if exponent > MOST_ZEROS || point < -MOST_ZEROS {
        format!("{sign}{kept}e{exponent}")
    } else if exponent >= 0 {
        format!("{sign}{kept}{}", "0".repeat(exponent as usize))
    } else if point > 0 {
        let (whole, fraction) = kept.split_at(point as usize);
        format!("{sign}{whole}.{fraction}")
    } else {
        format!(
            "{sign}0.{}{kept}",
            "0".repeat(point.unsigned_abs() as usize)
        )
    };
    match written == text {
        true => text.into(),
        false => written.into(),
    }
}

/// Writes valid JSON in its one spelling.
struct Canonical<'a> {
    rest: &'a str,
}

impl<'a> Canonical<'a> {
    fn value(&mut self, out: &mut String, depth: usize) -> Option<()> {
        self.space();
        match self.rest.as_bytes().first()? {
            _ if depth > DEEPEST => return None,
            b'{' => {
                let mut fields = BTreeMap::new();
                self.list('}', |reader| {
                    let key: String = serde_json::from_str(reader.token()?).ok()?;
                    reader.space();
                    reader.rest = reader.rest.strip_prefix(':')?;
                    let mut value = String::new();
                    reader.value(&mut value, depth + 1)?;
                    // Of a key that stands twice the last one counts, as in jsonb.
                    fields.insert(key, value);
                    Some(())
                })?;
                let written: Option<Vec<String>> = fields
                    .iter()
                    .map(|(key, value)| {
                        Some(format!("{}:{value}", serde_json::to_string(key).ok()?))
                    })
                    .collect();
                *out += &format!("{{{}}}", written?.join(","));
            }
            b'[' => {
                let mut items = Vec::new();
                self.list(']', |reader| {
                    let mut item = String::new();
                    reader.value(&mut item, depth + 1)?;
                    items.push(item);
                    Some(())
                })?;
                *out += &format!("[{}]", items.join(","));
            }
            b'"' => {
                let text: String = serde_json::from_str(self.token()?).ok()?;
                *out += &scalar(&text);
            }
            b'n' | b't' | b'f' => *out += self.token()?,
            _ => *out += &number(self.token()?),
        }
        Some(())
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// A text with its quotes, a number or a word.
    fn token(&mut self) -> Option<&'a str> {
        let bytes = self.rest.as_bytes();
        let end = match bytes.first()? {
            b'"' => {
                let mut at = 1;
                loop {
                    at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
                    match bytes.get(at)? {
                        b'"' => break at + 1,
                        _ => at += 2,
                    }
                }
            }
            _ => {
                let ends = |byte: &u8| b" \t\n\r,:]}".contains(byte);
                bytes.iter().position(ends).unwrap_or(bytes.len())
            }
        };
        let (token, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        Some(token)
    }

    /// The items of the object or array that begins here.
    fn list(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.rest = self.rest.get(1..)?;
        self.space();
        if let Some(rest) = self.rest.strip_prefix(close) {
            self.rest = rest;
            return Some(());
        }
        loop {
            self.space();
            item(self)?;
            self.space();
            let next = self.rest.chars().next()?;
            self.rest = self.rest.get(1..)?;
            match next {
                ',' => {}
                next if next == close => return Some(()),
                _ => return None,
            }
        }
    }
}

/// The key as versions up to 0.1.0 made it. They took each part as it was spelled, and the content where the only part, or
/// each of several, was no number and no text, or an empty one.
pub fn former(values: &[Option<&RawValue>], hash: &[u8; 16]) -> String {
    match values {
        [single] => single
            .and_then(former_scalar)
            .map_or_else(|| hex(hash), Cow::into_owned),
        several
            if several
                .iter()
                .any(|value| value.and_then(former_scalar).is_some()) =>
        {
            let framed: String = several
                .iter()
                .map(|value| {
                    value.map_or("-;".to_owned(), |v| {
                        format!("{};{}", v.get().len(), v.get())
                    })
                })
                .collect();
            hex(&super::hash(framed.as_bytes()))
        }
        _ => hex(hash),
    }
}

fn former_scalar(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str(text)
            .ok()
            .filter(|text: &String| !text.is_empty())
            .map(Cow::Owned),
        b'-' | b'0'..=b'9' => Some(text.into()),
        _ => None,
    }
}

pub fn hex(bytes: &[u8]) -> String {
    std::iter::once('#')
        .chain(bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(digit))
        .collect()
}

fn digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}
