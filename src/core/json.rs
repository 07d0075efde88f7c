//! From a body to records, without ever re-serialising one.
//!
//! The fast path is serde_json with `RawValue`: each record stays a slice of the body. Where a page is not
//! valid JSON because of one record (a raw NUL, bytes that are not UTF-8, an invalid escape), the page is cut
//! along its structure instead, so that this record is rejected and its neighbours are kept.

use bytes::Bytes;

use crate::error::Failure;
use crate::record::{Record, Rejected};

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

/// Where records lie in a body and what identifies them.
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
    pub limits: RecordLimits,
}

/// What a body held.
#[derive(Debug, Default)]
pub struct Found {
    pub records: Vec<Record>,
    pub rejected: Vec<Rejected>,
    /// The cursor values of the records that have one, as text: a string without its quotes and escapes, a number as written.
    pub cursors: Vec<String>,
    /// The last record of the page in its own text, for templates that look at it.
    pub last: Option<Bytes>,
}

/// All records of a body. A path that leads nowhere gives none; a body cut short is `truncated_response`; one
/// that is not JSON beyond a record is `invalid_json`.
pub fn records(_body: &Bytes, _spec: &Spec) -> Result<Found, Failure> {
    Ok(Found::default()) // filled in by the json part
}
