//! Sources: what to ask a vendor, and how to read what came.
//!
//! A source is a pure function: position in, request out; response in, page out. It has no clock, no socket
//! and no threads; the engine in [`crate::fetch`] does every risky thing once. That is why a vendor is one
//! file here, one line in [`CATALOG`], and one folder of recorded pages that its tests replay.

pub mod api;
pub mod request;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::error::{Code, Failure};
use crate::json::RecordLimits;
use crate::record::{Page, Window};
use crate::secret::{Credentials, Secret};
pub use request::{Method, Request, Response};

/// A kind of connector: one line of the catalogue.
pub trait Source: Sync {
    /// The word in `connectors.type`.
    fn name(&self) -> &'static str;

    /// Reads config and credentials. Everything that can be wrong in them is found here, because this also
    /// runs when the connector is saved.
    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure>;
}

/// What a connector's row says, and the limits of the installation.
#[derive(Clone)]
pub struct Definition {
    /// `connectors.config`, a JSON object.
    pub config: Value,
    /// `connectors.credentials`, opened.
    pub credentials: Credentials,
    pub limits: RecordLimits,
}

/// One opened connector: pure functions over the streams that it has.
pub trait Reader: Send + Sync {
    fn streams(&self) -> &[Stream];

    /// The span of data the next pass over `stream` asks for. `cursor` is [`crate::record::StreamState::at`].
    fn window(
        &self,
        stream: &Stream,
        cursor: Option<&Value>,
        start: Start,
    ) -> Result<Window, Failure>;

    fn request(&self, at: &Position) -> Result<Request, Failure>;

    /// What a response means before its body is read. The default judges by the HTTP status.
    fn verdict(&self, _at: &Position, got: &Response) -> Verdict {
        request::verdict_by_status(got)
    }

    /// How a token is asked for, where one has to be before the first request. `None`: credentials open the
    /// streams as they are.
    fn login(&self) -> Option<&dyn Login> {
        None
    }

    /// Reads a response that [`Reader::verdict`] said to read. A page that is wrong in any way is an `Err`,
    /// never an empty page.
    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure>;
}

/// One token request; pure, like a [`Reader`]. `refresh` is what took the place of the configured refresh token
/// earlier in the run.
pub trait Login: Send + Sync {
    fn request(&self, start: Start, refresh: Option<&Secret>) -> Result<Request, Failure>;

    fn granted(
        &self,
        start: Start,
        refresh: Option<&Secret>,
        got: &Response,
    ) -> Result<Grant, Failure>;
}

/// What a vendor answered to a token request.
#[derive(Debug)]
pub struct Grant {
    pub access: Secret,
    /// How long it opens; `None`: until the vendor refuses it.
    pub lives: Option<Duration>,
    /// Has to be stored before the access token is used: the old one is worth nothing any more.
    pub rotated: Option<Rotated>,
}

/// A refresh token that took the place of another.
#[derive(Debug, Clone)]
pub struct Rotated {
    /// Field of the credentials, and keys within it.
    pub path: Vec<String>,
    pub old: Secret,
    pub new: Secret,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// The first part of every `source_record_id`.
    pub name: String,
    /// Whether records come in the cursor's order. Then every stored page may move the cursor; otherwise it
    /// moves only when the pass is complete, or rows would be skipped after an interruption.
    pub ordered: bool,
}

/// When a pass starts; given by the database, because a source has no clock.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    pub now: DateTime<Utc>,
    /// Where a first sync begins when the connector's config does not say.
    pub default_from: DateTime<Utc>,
}

/// Where a pass stands.
pub struct Position<'a> {
    pub stream: &'a Stream,
    pub window: Window,
    pub now: DateTime<Utc>,
    pub default_from: DateTime<Utc>,
    /// What the previous page said ([`Page::next`]); `None` for the first page.
    pub next: Option<&'a Value>,
    /// The greatest cursor value of this pass so far.
    pub high: Option<&'a Value>,
    /// The token that [`Reader::login`] brought.
    pub access: Option<&'a Secret>,
}

/// What a response means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Read,
    /// Ask again after a pause; when the tries are used up, this is how the run fails.
    Retry(Failure),
    Fail(Failure),
}

/// Every kind of connector this version can sync.
pub static CATALOG: &[&dyn Source] = &[&api::Api];

/// Every word that `connectors.type` may hold: the public contract, wider than [`CATALOG`].
pub const TYPES: &[&str] = &[
    "api",
    "csv",
    "excel",
    "erpnext",
    "mysql",
    "postgres",
    "quickbooks",
    "salesforce",
    "shopify",
    "square",
    "stripe",
    "webhook",
];

pub fn find(name: &str) -> Result<&'static dyn Source, Failure> {
    CATALOG
        .iter()
        .copied()
        .find(|source| source.name() == name)
        .ok_or_else(|| {
            Failure::new(
                Code::TypeNotAvailable,
                format!("connector type \"{name}\" cannot be synced by this version"),
            )
        })
}
