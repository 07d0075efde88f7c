//! The data that sources produce: records, pages and stream states.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// One record, ready to be stored: PostgreSQL will accept its text as `jsonb`.
#[derive(Clone)]
pub struct Record {
    /// `source_record_id`: the stream, a slash, then the vendor's id, or `#` and a hash where there is none. The rule is in
    /// [`crate::json::identity`].
    pub id: String,
    /// The id that an older version gave to the record, where it gave another one. A record that is stored under it keeps it.
    pub formerly: Option<String>,
    /// The paths of the key, as JSON, where an older version took the content for it: under which id a state of the record
    /// is stored can then not be told from this one.
    pub key: Option<Arc<str>>,
    /// The record's text as it came from the wire: valid UTF-8, valid JSON, never re-serialised.
    pub json: Bytes,
    /// The first 16 bytes of the SHA-256 of `json`: tells an unchanged record without reading it as jsonb.
    pub hash: [u8; 16],
    /// The time of the state that a pushed record shows, where it says so. An older one never takes the place of
    /// a newer one.
    pub at: Option<DateTime<Utc>>,
}

impl Record {
    /// The id under which it is stored: the one or the other.
    pub fn ids(self) -> impl Iterator<Item = String> {
        [Some(self.id), self.formerly].into_iter().flatten()
    }

    /// Tells it from equal ones: it is the `nth`, from 2.
    pub fn number(&mut self, nth: impl fmt::Display) {
        for id in [Some(&mut self.id), self.formerly.as_mut()]
            .into_iter()
            .flatten()
        {
            *id = format!("{id}/{nth}");
        }
    }
}

/// What a vendor sent is not ours to print: it is a customer's data, and may repeat the request's secret.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}, {} bytes)", self.id, self.json.len())
    }
}

/// Why one record cannot be stored. The words are public: users match on `quarantine.reason_code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// not valid JSON by itself
    InvalidJson,
    /// `\u0000` or a raw NUL byte: PostgreSQL text cannot hold it
    Nul,
    /// half of a UTF-16 surrogate pair: not a character
    LoneSurrogate,
    /// bytes that are not UTF-8
    InvalidUtf8,
    TooDeep,
    TooLarge,
    /// a number outside of what `numeric` holds, or whose exponent would inflate it beyond reason
    NumberOutOfRange,
    KeyTooLong,
    /// not a JSON object
    NotAnObject,
    /// of a file: a row with more cells than there are headings
    TooManyCells,
    /// of a file: a value that is not what its column is declared to hold
    UnreadableValue,
    /// nothing in what identifies the record
    KeyMissing,
    /// passed every check of ours and PostgreSQL still refused it
    Refused,
}

impl Reason {
    pub fn word(self) -> &'static str {
        match self {
            Reason::InvalidJson => "invalid_json",
            Reason::Nul => "nul_character",
            Reason::LoneSurrogate => "lone_surrogate",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::TooDeep => "too_deep",
            Reason::TooLarge => "too_large",
            Reason::NumberOutOfRange => "number_out_of_range",
            Reason::KeyTooLong => "key_too_long",
            Reason::NotAnObject => "not_an_object",
            Reason::TooManyCells => "too_many_cells",
            Reason::UnreadableValue => "unreadable_value",
            Reason::KeyMissing => "key_missing",
            Reason::Refused => "refused_by_postgres",
        }
    }
}

/// One record that goes to quarantine.
#[derive(Clone)]
pub struct Rejected {
    /// Known only where the id could still be read.
    pub id: Option<String>,
    /// See [`Record::formerly`].
    pub formerly: Option<String>,
    pub reason: Reason,
    /// The place and the problem, in our own words: `record 17 of the page: ...`.
    pub detail: String,
    /// The bytes as they came; the store keeps the first [`RAW_KEPT`] of them.
    pub raw: Bytes,
    pub hash: [u8; 16],
}

impl fmt::Debug for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rejected({}, {} bytes)", self.detail, self.raw.len())
    }
}

/// How much of a quarantined record is kept. Larger: one hostile vendor fills the disk with rejects.
/// Smaller: a person cannot see what was wrong, and a replay has nothing to replay.
pub const RAW_KEPT: usize = 64 * 1024;

/// One page as its source read it.
#[derive(Default)]
pub struct Page {
    pub records: Vec<Record>,
    pub rejected: Vec<Rejected>,
    /// `source_record_id` of what the source says is gone.
    pub deleted: Vec<String>,
    /// What the source says is gone with something else, such as the lines of an order.
    pub deleted_with: Option<GoneWith>,
    /// `source_record_id` of what the source says is still there, and is not among the records.
    pub shown: Vec<String>,
    /// Whether `shown` is a part of a list of all that is there.
    pub listing: Listing,
    /// Whether the pass ends before it has read what it should have: the next one begins its search for deletions where
    /// this one did. Where it is partial, too, the cursor stays where it was before the pass.
    pub is_cut_off: bool,
    /// The vendor's count, with the last page, where the vendor counts.
    pub count: Option<Count>,
    /// A warning for a person, in our own words; it is shown once in a run.
    pub warning: Option<String>,
    /// How to ask for the next page; the source's own shape, opaque to everything else. `None`: the pass ends.
    pub next: Option<Value>,
    /// Whether it is only a part of one: nothing of it is stored, and after an interruption it is asked for again.
    pub is_part: bool,
    /// How long to wait before the next page is asked for, and why.
    pub wait: Option<(Duration, &'static str)>,
    /// Whether it may hold the same records as the page before: then the token alone says that the pass goes on.
    pub overlaps: bool,
    /// Whether there may be records that no page shows: then what the pass does not show need not be gone.
    pub is_partial: bool,
    /// Whether the next token counts pages or rows: then it means another place after a deletion, and an interrupted
    /// pass starts again.
    pub counts: bool,
    /// The greatest cursor value of this pass so far, this page included (see [`crate::source::Position::high`]).
    pub high: Option<Value>,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, rejected) = (self.records.len(), self.rejected.len());
        write!(f, "Page({records} records, {rejected} rejected)")
    }
}

/// Records are gone whose field holds one of these texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoneWith {
    /// The keys that lead to the field.
    pub path: Vec<String>,
    pub values: Vec<String>,
}

/// A list of all that is there, which a pass makes to find what is not. It may take several pages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    #[default]
    None,
    Begins,
    GoesOn,
}

/// How many records of a pass the vendor counts, and how many came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub vendor: u64,
    pub read: u64,
}

/// What `sync_state.cursor` holds for one stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamState {
    /// The data position proven stored: where the next pass starts, less its lookback. The source's own shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Value>,
    /// Set while a pass is unfinished: an interrupted run resumes at `next`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<Pass>,
    /// When the latest complete pass began. `at` does not move while nothing changes at the source; this does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_until: Option<DateTime<Utc>>,
    /// From when on deletions have not been found, because passes ended before they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed_since: Option<DateTime<Utc>>,
    /// The run that finished the latest pass: taken up again after a crash, it does not read the stream twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_by: Option<Uuid>,
}

/// An unfinished pass over a stream.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// Sealed where the connector has credentials; see [`crate::secret::Cover`].
    pub next: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<Value>,
    pub window: Window,
    /// Fingerprint of type and config: a token of one definition means nothing to another.
    pub definition: String,
    /// See [`Page::counts`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub counts: bool,
    /// The pass took the place of one that counts and was interrupted. It does not start again a second time: a source
    /// that lets nobody read everything in one go would never be read to its end.
    #[serde(default, skip_serializing_if = "is_false")]
    pub again: bool,
    /// A pass that counts went on after an interruption: it may have skipped records, and proves nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub shifted: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}

/// How to ask for the next page may be a whole address, with the secret that the vendor put into it.
impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pass({:?})", self.window)
    }
}

/// The span of data one pass asks for. `from` is `None` for a stream that is always read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub from: Option<DateTime<Utc>>,
    pub to: DateTime<Utc>,
}
