//! Sources: what to ask a vendor, and how to read what came.
//!
//! A source is a pure function: position in, request out; response in, page out. It has no clock, no socket
//! and no threads; the engine in [`crate::fetch`] does every risky thing once. That is why a vendor is one
//! folder in [`vendor`], one line in [`CATALOG`], and one folder of whole passes (`pages`) that its tests go through.
//!
//! What several vendors need is there once: settings out of a connector's row ([`settings`]), windows and cursors
//! ([`window`]), token requests ([`token`]), records out of a body ([`reading`]), what is known of a stream ([`table`]).
//! What every vendor's reader has of these is one type ([`common::Common`]).
//! What is pushed instead of asked for is in [`hook`].

pub mod api;
mod common;
pub mod database;
mod file;
pub mod hook;
mod open;
pub mod pause;
mod problem;
mod reading;
pub mod request;
mod settings;
pub mod size;
mod table;
#[cfg(test)]
mod tests;
mod token;
mod vendor;
mod webhook;
mod window;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use url::Url;

use crate::error::{Code, Failure};
use crate::file::layout::Layout;
use crate::json::RecordLimits;
use crate::record::{Page, Window};
use crate::secret::{Credentials, Secret};
use common::Common;
use hook::Hook;
pub use problem::says_token_is_over;
pub use request::{Method, Request, Response, throttled};
pub use settings::{OF_ALL, OF_RUNS, RunSettings};

/// A kind of connector: one line of the catalogue.
pub trait Source: Sync {
    /// The word in `connectors.type`.
    fn name(&self) -> &'static str;

    /// What people have to know to create a connector of this type.
    fn about(&self) -> About;

    /// Reads config and credentials. Everything that can be wrong in them is found here, because this also
    /// runs when the connector is saved.
    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure>;

    /// Whether the source is requested at all. Otherwise files are uploaded or records are pushed.
    fn is_asked(&self) -> bool {
        true
    }

    /// Whether files are uploaded to it.
    fn takes_files(&self) -> bool {
        false
    }

    /// What reads that which is pushed to it, opened from config and credentials like a [`Reader`]. `None`: it takes no
    /// webhook, because its kind has none or the connector has no secret for them.
    fn hook(&self, _connector: &Definition) -> Result<Option<Box<dyn Hook>>, Failure> {
        Ok(None)
    }
}

/// One line of `connector_service_catalog()`.
pub struct About {
    /// What kind of thing it reads: "service", "any REST API".
    pub kind: &'static str,
    pub streams: Vec<StreamAbout>,
    pub credentials: &'static [Field],
    pub config: &'static [Field],
    /// The least `sync_frequency` that makes sense.
    pub frequency: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub struct StreamAbout {
    pub name: &'static str,
    /// Whether the stream is read when config names none.
    pub default: bool,
}

/// A key of credentials or config, and what it means.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    pub meaning: &'static str,
}

/// The settings in a connector's row, and the limits of the installation.
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
    /// What the readers of all vendors have in common; `None` for other sources.
    fn common(&self) -> Option<&Common> {
        None
    }

    fn streams(&self) -> &[Stream] {
        self.common().map_or(&[], |common| &common.streams)
    }

    /// The span of data the next pass over `stream` asks for. `cursor` is [`crate::record::StreamState::at`].
    fn window(
        &self,
        stream: &Stream,
        cursor: Option<&Value>,
        start: Start,
    ) -> Result<Window, Failure> {
        Ok(match self.common() {
            Some(common) => common.since.window(stream, cursor, start),
            None => Window {
                from: None,
                to: start.now,
            },
        })
    }

    /// Whether a window's end bounds what comes. Otherwise everything since its beginning does, and of the parts of a
    /// backfill the first one brings all.
    fn is_bounded(&self, _stream: &Stream) -> bool {
        true
    }

    /// Of which part of a stream a pass from this cursor on shows every record, where it does not show the whole stream.
    /// What is stored, lies there, and does not come is gone at the source.
    fn shows_all_of(
        &self,
        _stream: &Stream,
        _cursor: Option<&Value>,
        _start: Start,
        _window: Window,
    ) -> Option<Part> {
        None
    }

    fn request(&self, at: &Position) -> Result<Request, Failure>;

    /// The statement to run, where the source is a database.
    fn query(&self, _at: &Position) -> Result<Option<database::Query>, Failure> {
        Ok(None)
    }

    /// The declared layout of its files, where it reads files.
    fn layout(&self) -> Option<&Layout> {
        None
    }

    /// Whether a failure of a database says no more than that the stream is not there, and in which words.
    fn absent(&self, _at: &Position, _failure: &Failure) -> Option<String> {
        None
    }

    /// What a response means before its body is read. The default judges by the HTTP status.
    fn verdict(&self, _at: &Position, got: &Response) -> Verdict {
        request::verdict_by_status(got)
    }

    /// Whether an answer without content, such as 204, is a page without records. A vendor that always sends an object
    /// does not answer so: there it is no answer.
    fn may_be_empty(&self) -> bool {
        self.common().is_none()
    }

    /// How a token is asked for, where one has to be before the first request. `None`: credentials open the
    /// streams as they are.
    fn login(&self) -> Option<&dyn Login> {
        None
    }

    /// Reads a response that [`Reader::verdict`] said to read. A page that is wrong in any way is an `Err`,
    /// never an empty page.
    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure>;

    /// The account at the vendor whose requests are counted together. `None`: nobody counts.
    fn account(&self) -> Option<&Account> {
        self.common().map(|common| &common.account)
    }

    /// What a response, read or refused, says of the account's allowance.
    fn usage(&self, _got: &Response) -> Usage {
        Usage::default()
    }
}

/// The records of a stream whose text in a field is at least this, byte by byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub field: &'static [&'static str],
    pub from: String,
}

/// Whose requests the vendor counts together, and how fast they may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Names the account within its tenant; safe to show.
    pub name: String,
    /// The shortest time between two requests in the long run.
    pub every: Duration,
    /// How many may come at once after a rest.
    pub burst: u32,
}

/// What a vendor says about the rate limit of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// No request of the account for this long, and why.
    pub rest: Option<(Duration, String)>,
    /// How much is used, of how much in all.
    pub used: Option<(u64, u64)>,
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

    /// Whether the request shows a refresh token. It may be good for one answer only: once there was a success, it is
    /// not sent again, whatever the answer was.
    fn spends(&self) -> bool {
        false
    }

    /// The refresh token in an answer that [`Login::granted`] refused: it is to be stored all the same.
    fn rotated(
        &self,
        _start: Start,
        _refresh: Option<&Secret>,
        _got: &Response,
    ) -> Option<Rotated> {
        None
    }
}

/// The answer to a token request.
#[derive(Debug)]
pub struct Grant {
    pub access: Access,
    /// How long the token is valid; `None`: until the vendor refuses it.
    pub lives: Option<Duration>,
    /// Has to be stored before the access token is used: the old one is worth nothing any more.
    pub rotated: Option<Rotated>,
}

/// An access token, and the base URL that the vendor named with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub token: Secret,
    /// The login's own judgement has let it through: see [`Login::granted`].
    pub base: Option<Url>,
}

/// A refresh token that replaces another.
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
    /// Whether a pass shows every record that there is. Then what a complete pass does not show is gone.
    pub whole: bool,
}

/// When a pass starts; given by the database, because a source has no clock.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    pub now: DateTime<Utc>,
    /// Where a first sync begins when the connector's config does not say.
    pub default_from: DateTime<Utc>,
    /// When the latest complete pass over the stream began, where that is known.
    pub read_until: Option<DateTime<Utc>>,
    /// From when on deletions have not been found; see [`crate::record::StreamState`].
    pub missed_since: Option<DateTime<Utc>>,
    /// The part of the past that a backfill reads, and nothing else; `None`: a sync, up to now.
    pub span: Option<Span>,
}

/// A period in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    /// Whether no earlier part belongs to the same backfill.
    pub is_first: bool,
}

/// The position of a pass.
pub struct Position<'a> {
    pub stream: &'a Stream,
    pub window: Window,
    pub start: Start,
    /// What the previous page said ([`Page::next`]); `None` for the first page.
    pub next: Option<&'a Value>,
    /// The greatest cursor value of this pass so far.
    pub high: Option<&'a Value>,
    /// The token that [`Reader::login`] brought.
    pub access: Option<&'a Access>,
}

impl Position<'_> {
    /// The access token, once the login has brought one.
    pub fn token(&self) -> Option<&Secret> {
        self.access.map(|access| &access.token)
    }
}

impl Start {
    /// Whether the latest pass is longer ago than the vendor keeps what it says of changes. Where it is not known
    /// when that was, the cursor tells, which is older where nothing changes.
    fn is_later_than(&self, kept: TimeDelta, cursor: Option<DateTime<Utc>>) -> bool {
        let reached = self.read_until.or(cursor);
        reached.is_some_and(|reached| reached < self.now - kept)
    }
}

/// What a response means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Read,
    /// Ask again after a pause; when the tries are used up, this is how the run fails.
    Retry(Failure),
    Fail(Failure),
    /// The next page's token is worth nothing any more: the pass starts again at the proven position.
    Expired(Failure),
    /// The vendor does not have this stream here, and says so: nothing to read, and no failure. In our own words.
    Absent(String),
}

/// Every kind of connector this version can sync.
pub static CATALOG: &[&dyn Source] = &[
    &api::Api,
    &file::Csv,
    &file::Excel,
    &vendor::erpnext::ErpNext,
    &database::MySql,
    &database::Postgres,
    &vendor::quickbooks::QuickBooks,
    &vendor::salesforce::Salesforce,
    &vendor::shopify::Shopify,
    &vendor::square::Square,
    &vendor::stripe::Stripe,
    &webhook::Webhook,
];

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
