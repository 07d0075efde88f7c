//! From a body to records, without ever re-serialising one.
//!
//! The fast path is serde_json with `RawValue`: each record stays a slice of the body. Where a page is not
//! valid JSON because of one record (a raw NUL, bytes that are not UTF-8, an invalid escape), the page is cut
//! along its structure instead, so that this record is rejected and its neighbours are kept.

mod inspect;
mod pick;
mod salvage;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::error::{Code, Failure};
use crate::record::{Reason, Record, Rejected};
use pick::pick;
pub use salvage::{fields, items};

/// Bounds on one record. Every one of them guards memory in a process whose death restarts the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordLimits {
    /// Longest text of one record, in bytes.
    pub bytes: usize,
    /// Deepest nesting of arrays and objects. PostgreSQL's JSON parser recurses.
    pub depth: usize,
    /// Longest vendor id, in bytes: an index row must hold it.
    pub key: usize,
}

/// Where the records are in a body, and what identifies them.
#[derive(Debug, Clone)]
pub struct Spec<'a> {
    pub stream: &'a str,
    /// Keys from the top of the body to the records; `*` is every item of an array or object. Empty: the body
    /// itself. A list found there gives its items, any other value one record.
    pub path: &'a [String],
    /// Paths inside a record whose values identify it. Empty: the content does.
    pub key: &'a [Vec<String>],
    /// Path inside a record of its cursor value.
    pub cursor: Option<&'a [String]>,
    /// Path inside a record, and the JSON that stands there where the record says that it is gone.
    pub gone: Option<(&'a [String], &'a str)>,
    pub limits: RecordLimits,
    /// Where in a file each of them is; empty: it is told by its place in the page.
    pub lines: &'a [u64],
}

/// Most items of one body. Each costs some 200 bytes beside its text, so a body of the smallest items there are,
/// [1,1,1,...], would cost a hundred times its size. Larger: two such bodies at once end the server. Smaller: a
/// vendor that sends everything in one body cannot be read.
pub const MOST_ITEMS: usize = 500_000;

/// The records of a body. It has no `Debug`, because a vendor sent its content.
#[derive(Default)]
pub struct Found {
    pub records: Vec<Record>,
    pub rejected: Vec<Rejected>,
    /// Ids of the records that say they are gone.
    pub deleted: Vec<String>,
    /// The cursor values of the records that have one, as text: a string without quotes and escapes, a number
    /// as written.
    pub cursors: Vec<String>,
    /// The last record of the page in its own text, for templates that look at it.
    pub last: Option<Bytes>,
}

/// All records of a body. A path that leads nowhere is `unexpected_shape`, for an error must not pass for an
/// empty page; a body cut short is `truncated_response`; one that is not JSON beyond a record `invalid_json`.
pub fn records(body: &Bytes, spec: &Spec) -> Result<Found, Failure> {
    let body = match body.strip_prefix(b"\xEF\xBB\xBF") {
        Some(rest) => body.slice_ref(rest),
        None => body.clone(),
    };
    let mut found = Found::default();
    let mut items = Vec::new();
    match std::str::from_utf8(&body).map(|text| pick::items(text, spec.path, &mut items)) {
        Ok(Ok(true)) if items.len() > MOST_ITEMS => {
            return Err(Failure::new(
                Code::ResponseTooLarge,
                format!("the response has more than {MOST_ITEMS} records"),
            ));
        }
        Ok(Ok(true)) => {
            for (position, item) in items.into_iter().enumerate() {
                found.take(&body, item.as_bytes(), Some(item), position, spec);
            }
        }
        Ok(Ok(false)) => return Err(no_records(spec)),
        Ok(Err(error)) if error.is_eof() => {
            return Err(Failure::new(
                Code::TruncatedResponse,
                format!("the response breaks off after {} bytes", body.len()),
            ));
        }
        Ok(Err(_)) | Err(_) => {
            let items = match salvage::items(&body, spec.path) {
                Some(Some(items)) => items,
                Some(None) => return Err(no_records(spec)),
                None => {
                    let message = format!("the response of {} bytes is not JSON", body.len());
                    return Err(Failure::new(Code::InvalidJson, message));
                }
            };
            for (position, item) in items.into_iter().enumerate() {
                let text = std::str::from_utf8(item).ok();
                let sound = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
                found.take(&body, item, sound.map(RawValue::get), position, spec);
            }
        }
    }
    Ok(found)
}

/// The same of a page that was asked for: one that is mostly no objects is none.
pub fn page(body: &Bytes, spec: &Spec) -> Result<Found, Failure> {
    let found = records(body, spec)?;
    found.check_objects(spec)?;
    Ok(found)
}

/// A body's own fields, read as values, without the one that leads to the records: what a paginator looks at.
/// Cheap where the records are most of the body, and sound where one of them is not.
pub fn envelope(body: &[u8], records: &str) -> serde_json::Map<String, serde_json::Value> {
    let read = |(key, value): (&[u8], &[u8])| {
        let key = serde_json::from_slice(key)
            .ok()
            .filter(|key| key != records)?;
        Some((key, serde_json::from_slice(value).ok()?))
    };
    salvage::fields(body)
        .unwrap_or_default()
        .into_iter()
        .filter_map(read)
        .collect()
}

fn no_records(spec: &Spec) -> Failure {
    let message = format!("the response has nothing at \"{}\"", spec.path.join("."));
    Failure::new(Code::UnexpectedShape, message)
}

/// First 16 bytes of the SHA-256.
pub fn hash(bytes: &[u8]) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.iter_mut()
        .zip(Sha256::digest(bytes))
        .for_each(|(to, from)| *to = from);
    hash
}

impl Found {
    /// A page that is mostly something else than objects is no page of records: the path leads to the wrong place, or the
    /// vendor answers with something else. One odd item is quarantined.
    fn check_objects(&self, spec: &Spec) -> Result<(), Failure> {
        let is_odd = |rejected: &&Rejected| rejected.reason == Reason::NotAnObject;
        let odd = self.rejected.iter().filter(is_odd).count();
        let all = self.records.len() + self.rejected.len() + self.deleted.len();
        if odd < 2 || odd * 2 <= all {
            return Ok(());
        }
        let message = format!(
            "{odd} of the {all} items at \"{}\" are not objects",
            spec.path.join(".")
        );
        Err(Failure::new(Code::UnexpectedShape, message))
    }

    /// Takes or rejects one item of the page. `text` is the item if it is valid JSON.
    fn take(&mut self, body: &Bytes, raw: &[u8], text: Option<&str>, position: usize, spec: &Spec) {
        let raw = body.slice_ref(raw);
        self.last = Some(raw.clone());
        let hash = hash(&raw);
        match text
            .ok_or_else(|| unsound(&raw))
            .and_then(|text| identify(text, &hash, spec))
        {
            Ok(Identified { id, cursor, gone }) => {
                self.cursors.extend(cursor);
                if gone {
                    self.deleted.push(id);
                    return;
                }
                self.records.push(Record {
                    id,
                    json: raw,
                    hash,
                    at: None,
                });
            }
            Err((reason, id)) => {
                let why = explain(reason, &spec.limits);
                let detail = match spec.lines.get(position) {
                    Some(line) => format!("row {line}: {why}"),
                    None => format!("record {} of the page: {why}", position + 1),
                };
                self.rejected.push(Rejected {
                    id,
                    reason,
                    detail,
                    raw,
                    hash,
                });
            }
        }
    }
}

type Unstorable = (Reason, Option<String>);

/// Why an item is not valid JSON.
fn unsound(raw: &[u8]) -> Unstorable {
    let reason = if std::str::from_utf8(raw).is_err() {
        Reason::InvalidUtf8
    } else if memchr::memchr(0, raw).is_some() {
        Reason::Nul
    } else {
        Reason::InvalidJson
    };
    (reason, None)
}

fn explain(reason: Reason, limits: &RecordLimits) -> String {
    match reason {
        Reason::InvalidJson => "it is not valid JSON".to_owned(),
        Reason::Nul => "it contains a NUL character, which cannot be stored as text".to_owned(),
        Reason::LoneSurrogate => {
            "it contains half of a surrogate pair, which is not a character".to_owned()
        }
        Reason::InvalidUtf8 => "it is not UTF-8".to_owned(),
        Reason::TooDeep => format!("it is nested deeper than {} levels", limits.depth),
        Reason::TooLarge => format!("it is larger than {} bytes", limits.bytes),
        Reason::NumberOutOfRange => {
            "it contains a number that is too large or too small for numeric".to_owned()
        }
        Reason::KeyTooLong => format!("its id is longer than {} bytes", limits.key),
        Reason::NotAnObject => "it is not an object".to_owned(),
        Reason::Refused => "PostgreSQL refused it".to_owned(),
        Reason::TooManyCells | Reason::UnreadableValue | Reason::KeyMissing => {
            reason.word().to_owned()
        }
    }
}

struct Identified {
    id: String,
    cursor: Option<String>,
    gone: bool,
}

/// The id of a sound item, and its cursor value; or why PostgreSQL could not store it.
fn identify(text: &str, hash: &[u8; 16], spec: &Spec) -> Result<Identified, Unstorable> {
    if !text.starts_with('{') {
        return Err((Reason::NotAnObject, None));
    }
    if text.len() > spec.limits.bytes {
        return Err((Reason::TooLarge, None));
    }
    let inspected = inspect::inspect(text, spec.limits.depth);
    let paths = spec.key.iter().map(Vec::as_slice).chain(spec.cursor);
    let paths = paths.chain(spec.gone.map(|(path, _)| path));
    let mut values = pick(text, &paths.collect::<Vec<_>>());
    let gone = spec.gone.is_some_and(|(_, says)| {
        let value = values.pop().flatten();
        value.is_some_and(|value| value.get() == says)
    });
    let cursor = spec
        .cursor
        .and_then(|_| values.pop())
        .flatten()
        .and_then(scalar);
    let id = format!("{}/{}", spec.stream, key(&values, hash));
    match inspected {
        // An id with a NUL could be stored nowhere either.
        Err(reason) => Err((reason, Some(id).filter(|id| !id.contains('\0')))),
        Ok(()) if id.len() > spec.stream.len() + 1 + spec.limits.key => {
            Err((Reason::KeyTooLong, Some(id)))
        }
        Ok(()) => Ok(Identified { id, cursor, gone }),
    }
}

/// The vendor's id; `#` and a hash where there is none or where it has several parts.
fn key(values: &[Option<&RawValue>], hash: &[u8; 16]) -> String {
    match values {
        [single] => single.and_then(scalar).unwrap_or_else(|| hex(hash)),
        several if several.iter().any(|value| value.and_then(scalar).is_some()) => {
            // Lengths frame the parts: ("a", "bc") and ("ab", "c") are two keys.
            let framed: String = several
                .iter()
                .map(|value| {
                    value.map_or("-;".to_owned(), |v| {
                        format!("{};{}", v.get().len(), v.get())
                    })
                })
                .collect();
            hex(&self::hash(framed.as_bytes()))
        }
        _ => hex(hash),
    }
}

/// A string without its quotes, or a number as written; anything else, and nothing at all, identifies nothing.
fn scalar(value: &RawValue) -> Option<String> {
    let text = value.get();
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str(text)
            .ok()
            .filter(|text: &String| !text.is_empty()),
        b'-' | b'0'..=b'9' => Some(text.to_owned()),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    std::iter::once('#')
        .chain(bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(digit))
        .collect()
}

fn digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}
