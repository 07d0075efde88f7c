//! From a body to records, without ever re-serialising one.
//!
//! The fast path is serde_json with `RawValue`: each record stays a slice of the body. Where a page is not
//! valid JSON because of one record (a raw NUL, bytes that are not UTF-8, an invalid escape), the page is cut
//! along its structure instead, so that this record is rejected and its neighbours are kept.

pub mod identity;
mod inspect;
mod pick;
mod salvage;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::error::{Code, Failure};
use crate::record::{Reason, Record, Rejected};
use pick::{Items, pick};
pub use salvage::fields;

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
    /// The last object of the page in its own text, for templates that look at it.
    pub last: Option<Bytes>,
    /// Whether that one was rejected.
    pub last_is_damaged: bool,
    /// For each part of the key, whether any item has a value there.
    pub has_part: Vec<bool>,
    /// Places in `records` of those that the content identifies, although there may be a key.
    pub keyless: Vec<usize>,
    /// Values at the path that are one record, and no list of them.
    pub singles: usize,
    /// Items of a `*` of the path that do not have the rest of it.
    pub lacking: usize,
}

/// All records of a body. A path that leads nowhere is `unexpected_shape`, for an error must not pass for an
/// empty page; a body cut short is `truncated_response`; one that is not JSON beyond a record `invalid_json`.
pub fn records(body: &Bytes, spec: &Spec) -> Result<Found, Failure> {
    let body = match body.strip_prefix(b"\xEF\xBB\xBF") {
        Some(rest) => body.slice_ref(rest),
        None => body.clone(),
    };
    let mut found = Found {
        has_part: vec![false; spec.key.len()],
        ..Found::default()
    };
    let mut items = Items::default();
    match std::str::from_utf8(&body).map(|text| pick::items(text, spec.path, &mut items)) {
        Ok(Ok(true)) if items.texts.len() > MOST_ITEMS => {
            return Err(Failure::new(
                Code::ResponseTooLarge,
                format!("the response has more than {MOST_ITEMS} records"),
            ));
        }
        Ok(Ok(true)) => {
            (found.singles, found.lacking) = (items.singles, items.lacking);
            for (position, item) in items.texts.into_iter().enumerate() {
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
            (found.singles, found.lacking) = (items.singles, items.lacking);
            for (position, item) in items.texts.into_iter().enumerate() {
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
    let mut found = records(body, spec)?;
    found.check_objects(spec)?;
    found.count_equal();
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

/// The items at a path in their own text, where one of them may be damaged. `None`: the body is not JSON beyond its items.
/// `Some(None)`: the path leads nowhere.
pub fn items<'a>(body: &'a [u8], path: &[String]) -> Option<Option<Vec<&'a [u8]>>> {
    Some(salvage::items(body, path)?.map(|found| found.texts))
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

    /// Whether the content identifies every record, although there may be a key.
    pub fn is_keyless(&self) -> bool {
        self.keyless.len() == self.records.len()
    }

    /// Rejects the records that have no value in any part of their key. For sources whose records always have one: by its
    /// content a record would be stored once more with each change.
    pub fn need_keys(&mut self) {
        let mut keyless = std::mem::take(&mut self.keyless).into_iter().peekable();
        let mut place = 0;
        for record in std::mem::take(&mut self.records) {
            place += 1;
            if keyless.next_if_eq(&(place - 1)).is_none() {
                self.records.push(record);
                continue;
            }
            self.rejected.push(Rejected {
                id: None,
                formerly: None,
                reason: Reason::KeyMissing,
                detail: "a record of the page has no value in the field that identifies it"
                    .to_owned(),
                raw: record.json,
                hash: record.hash,
            });
        }
    }

    /// Equal records that only their content identifies are as many records: the second one of them is told from the first.
    pub fn count_equal(&mut self) {
        let mut counts: HashMap<[u8; 16], usize> = HashMap::new();
        for place in &self.keyless {
            let Some(record) = self.records.get_mut(*place) else {
                continue;
            };
            let count = counts.entry(record.hash).or_default();
            *count += 1;
            if *count > 1 {
                record.number(*count);
            }
        }
    }

    /// Takes or rejects one item of the page. `text` is the item if it is valid JSON.
    fn take(&mut self, body: &Bytes, raw: &[u8], text: Option<&str>, position: usize, spec: &Spec) {
        let raw = body.slice_ref(raw);
        let hash = hash(&raw);
        let identified = text
            .ok_or_else(|| unsound(&raw))
            .and_then(|text| self.identify(text, &hash, spec));
        if raw.first() == Some(&b'{') {
            self.last = Some(raw.clone());
            self.last_is_damaged = identified.is_err();
        }
        match identified {
            Ok(Identified {
                ids,
                is_content,
                cursor,
                gone,
            }) => {
                self.cursors.extend(cursor);
                if gone {
                    self.deleted
                        .extend([Some(ids.id), ids.formerly].into_iter().flatten());
                    return;
                }
                let mut key = None;
                if is_content {
                    self.keyless.push(self.records.len());
                } else if ids.was_content {
                    key = serde_json::to_string(spec.key).ok().map(Arc::from);
                }
                self.records.push(Record {
                    id: ids.id,
                    formerly: ids.formerly,
                    key,
                    json: raw,
                    hash,
                    at: None,
                });
            }
            Err((reason, ids)) => {
                let why = explain(reason, &spec.limits);
                let detail = match spec.lines.get(position) {
                    Some(line) => format!("row {line}: {why}"),
                    None => format!("record {} of the page: {why}", position + 1),
                };
                let (id, formerly) = ids.map(|ids| (ids.id, ids.formerly)).unzip();
                self.rejected.push(Rejected {
                    id,
                    formerly: formerly.flatten(),
                    reason,
                    detail,
                    raw,
                    hash,
                });
            }
        }
    }

    /// The id of a sound item, and its cursor value; or why PostgreSQL could not store it.
    fn identify(
        &mut self,
        text: &str,
        hash: &[u8; 16],
        spec: &Spec,
    ) -> Result<Identified, Unstorable> {
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
        for (has, value) in self.has_part.iter_mut().zip(&values) {
            *has |= value.is_some_and(|value| value.get() != "null");
        }
        let key = identity::key(&values, hash);
        let former = identity::former(&values, hash);
        let ids = key.as_ref().map(|key| {
            let id = format!("{}/{}", identity::prefix(spec.stream), key.text);
            Ids {
                was_content: former == identity::hex(hash),
                formerly: Some(format!("{}/{former}", spec.stream)).filter(|former| *former != id),
                id,
            }
        });
        match (inspected, ids) {
            // An id with a NUL could be stored nowhere either. A record whose key cannot be read could be any record.
            (Err(reason), ids) => Err((reason, ids.filter(|ids| !ids.id.contains('\0')))),
            (Ok(()), None) => Err((Reason::InvalidJson, None)),
            (Ok(()), Some(ids)) => {
                let longest = identity::prefix(spec.stream).len() + 1 + spec.limits.key;
                match ids.id.len() > longest {
                    true => Err((Reason::KeyTooLong, Some(ids))),
                    false => Ok(Identified {
                        ids,
                        is_content: key.is_some_and(|key| key.is_content),
                        cursor,
                        gone,
                    }),
                }
            }
        }
    }
}

type Unstorable = (Reason, Option<Ids>);

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

/// The id of a record, and the id that versions up to 0.1.0 gave it where that is another one.
struct Ids {
    id: String,
    formerly: Option<String>,
    /// Whether those versions took the content for the key.
    was_content: bool,
}

struct Identified {
    ids: Ids,
    is_content: bool,
    cursor: Option<String>,
    gone: bool,
}

/// A string without its quotes, or a number as written; anything else, and nothing at all, is no cursor value.
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
