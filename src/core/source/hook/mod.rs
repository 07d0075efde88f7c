//! Webhooks: deliveries that a source pushes, instead of being asked.
//!
//! Anybody can send to the address of a webhook, so nothing that arrives is anything before its signature is judged: an
//! HMAC over the bytes as they came, with a secret that the sender and the connector share ([`signature`]). A connector
//! without such a secret takes nothing. What passes is judged in this order: the signature, then the time that was
//! signed with it, then the text; a forger learns from none of them how far he came.
//!
//! A vendor's event is stored as it is, once, as a record of the stream [`STREAM`], and the source is asked what
//! changed. The event's own copy of a thing is never taken for the thing: it may be of another version or shape than the
//! answers that the mappings read, and events come in any order. Of the type `webhook`, whose sender cannot be asked,
//! what is pushed is the record.
//!
//! A signature proves who wrote the text, and neither when it is sent nor how often. Against a repeat there is the id
//! under which it is stored, and so an id is made of nothing but what was signed.

pub(super) mod field;
pub(super) mod signature;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::json::{self, Found, RecordLimits, Spec};
use crate::record::{Record, Rejected};

/// A delivery as it arrived.
pub struct Pushed<'a> {
    /// Names in lower case, in the order they came; a name may come twice.
    pub headers: &'a [(String, Vec<u8>)],
    /// What is signed.
    pub body: &'a Bytes,
    /// The same, decompressed and in UTF-8: what is read.
    pub text: &'a Bytes,
    /// The time by the database's clock.
    pub now: DateTime<Utc>,
}

/// One opened connector that things are pushed to; pure, like a [`super::Reader`].
pub trait Hook: Send + Sync {
    /// Judges the signature over the raw bytes, before anything is decoded, and reads what was pushed.
    fn receive(&self, got: &Pushed) -> Result<Delivery, Refusal>;
}

/// Has a hook judge a delivery. Senders that compress sign what they send, or what they had before they compressed it: either
/// is theirs.
pub fn receive(hook: &dyn Hook, got: &Pushed) -> Result<Delivery, Refusal> {
    match hook.receive(got) {
        Err(Refusal::Unauthentic) if got.text != got.body => hook.receive(&Pushed {
            body: got.text,
            ..*got
        }),
        received => received,
    }
}

/// Why a delivery is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not signed with a secret of ours, signed for another time, or not signed at all. Nobody is told which.
    Unauthentic,
    /// Authentic, and not readable: why, in our own words, without the body's text.
    Unreadable(String),
}

/// The records of a delivery.
#[derive(Debug)]
pub struct Delivery {
    pub stream: String,
    pub records: Vec<Record>,
    pub rejected: Vec<Rejected>,
    /// Whether an id that is stored already makes it a repeat that changes nothing (an event), or a later state of the
    /// same thing (a record).
    pub are_events: bool,
    /// Whether the delivery queues a sync: an event only names an object, or shows it in another shape than the source's
    /// own, so the source has to be asked what changed.
    pub triggers_sync: bool,
    /// A warning for a person, in our own words, for the run that counts deliveries.
    pub warning: Option<String>,
}

/// The stream of vendors' events.
pub const STREAM: &str = "webhooks";

/// Most records of one delivery. More: a body of the smallest values there are costs a hundred times its size, for each
/// delivery that is judged at once. Fewer: senders that collect for an hour are turned away.
pub const MOST_RECORDS: usize = 10_000;

/// Longest name of a vendor's event. Longer: nothing that a vendor has, and an index row must hold it.
const LONGEST_NAME: usize = 255;

pub(super) fn unreadable(why: impl Into<String>) -> Refusal {
    Refusal::Unreadable(why.into())
}

impl<'a> Pushed<'a> {
    /// A header that must be there once: of two, one of them may be somebody else's.
    pub fn only(&self, name: &str) -> Result<&'a [u8], Refusal> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Ok(value),
            _ => Err(Refusal::Unauthentic),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known == name)
    }
}

/// The first character of a body's JSON.
pub(super) fn first(body: &[u8]) -> Option<u8> {
    let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    text.trim_ascii_start().first().copied()
}

/// The records in a body, as in a page's.
pub(super) fn read(
    body: &Bytes,
    stream: &str,
    path: &[String],
    key: &[Vec<String>],
    limits: RecordLimits,
) -> Result<Found, Refusal> {
    let may_be_many = !path.is_empty() || first(body) == Some(b'[');
    if may_be_many && is_crowded(body, path.len() + 1) {
        return Err(unreadable(format!(
            "the body has more than {MOST_RECORDS} records"
        )));
    }
    let spec = Spec {
        stream,
        path,
        key,
        cursor: None,
        gone: None,
        limits,
        lines: &[],
    };
    let mut found = json::records(body, &spec).map_err(|failure| unreadable(failure.message))?;
    found.count_equal();
    Ok(found)
}

/// Whether more values lie at this depth than a delivery may have records: counted before any of them is taken, and
/// also where the body is not quite JSON.
fn is_crowded(body: &[u8], depth: usize) -> bool {
    let (mut open, mut values) = (0_usize, 0_usize);
    let (mut in_text, mut is_escaped) = (false, false);
    for byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => {
                open += 1;
                values += usize::from(open == depth);
            }
            b']' | b'}' => open = open.saturating_sub(1),
            b',' => values += usize::from(open == depth),
            _ => {}
        }
    }
    values > MOST_RECORDS
}

/// The keys of a dotted path.
pub(super) fn steps(path: &str) -> Vec<String> {
    path.split('.')
        .filter(|step| !step.is_empty())
        .map(str::to_owned)
        .collect()
}

pub(super) fn words(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A body that is one object, identified by what these fields of it hold together; by its content, where there are none.
pub(super) fn object(body: &Bytes, key: &[&str], limits: RecordLimits) -> Result<Found, Refusal> {
    if first(body) != Some(b'{') {
        return Err(unreadable("the body is not a JSON object"));
    }
    let key: Vec<Vec<String>> = key.iter().map(|field| words(&[field])).collect();
    let found = read(body, STREAM, &[], &key, limits)?;
    match found.records.is_empty() && found.rejected.is_empty() {
        true => Err(unreadable("the body is empty")),
        false => Ok(found),
    }
}

/// A body that is one event: the field that names it, and the one that says when it was.
pub(super) fn event(
    body: &Bytes,
    name: &str,
    at: &str,
    limits: RecordLimits,
) -> Result<Delivery, Refusal> {
    let found = object(body, &[name], limits)?;
    let path = words(&[name]);
    let is_named = |record: &Record| {
        field::text(&record.json, &path).is_some_and(|name| {
            name.len() <= LONGEST_NAME && name.bytes().all(|byte| byte.is_ascii_graphic())
        })
    };
    if !found.records.iter().all(is_named) {
        return Err(unreadable(format!("the event has no \"{name}\"")));
    }
    Ok(delivery(found.records, found.rejected, at))
}

/// Events, and the field of each that says when it was; empty: none does.
pub(super) fn delivery(mut records: Vec<Record>, rejected: Vec<Rejected>, at: &str) -> Delivery {
    let at = steps(at);
    for record in &mut records {
        record.at = field::moment(&record.json, &at);
    }
    Delivery {
        stream: STREAM.to_owned(),
        records,
        rejected,
        are_events: true,
        triggers_sync: true,
        warning: None,
    }
}
