//! The engine: everything risky about talking to a vendor, done once.
//!
//! A run is one task on tokio threads. It asks its [`crate::source::Reader`] what to request, performs the
//! request within every limit, gives the response back to be read, and sends each page as an [`Event`] through
//! a bounded channel. The worker's main thread, the only one that may call PostgreSQL, takes events and stores
//! them; a full channel stops the fetch. No event carries foreign error text.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::error::Failure;
use crate::record::{Record, Rejected, StreamState, Window};
use crate::source::Definition;

/// Bounds of every exchange; from the settings of the installation.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub connect_timeout: Duration,
    /// Longest silence while a response is awaited or read.
    pub read_timeout: Duration,
    /// Longest time of one whole exchange.
    pub request_timeout: Duration,
    /// Largest body after decompression, in bytes.
    pub response_bytes: usize,
    /// How often one request is tried again before the run fails.
    pub retries: u32,
    /// First pause between tries; it doubles, with jitter.
    pub retry_pause: Duration,
    /// A wait that a vendor asks for is waited inside the run up to here; a longer one ends the run, to be
    /// taken up again when the wait is over.
    pub longest_pause: Duration,
    /// Most pages of one stream in one run.
    pub pages: u64,
}

/// One run to be fetched.
pub struct Job {
    pub run: Uuid,
    /// `connectors.type`.
    pub source: String,
    pub definition: Definition,
    /// `sync_state` of the connector, by stream.
    pub states: HashMap<String, Stored>,
    pub now: DateTime<Utc>,
    /// Where a first sync begins when config does not say.
    pub default_from: DateTime<Utc>,
    pub limits: Limits,
}

/// A stream's state as it was stored, and how long ago.
pub struct Stored {
    pub state: StreamState,
    pub age: Duration,
}

/// An unfinished pass is gone on with up to this age; an older one starts again at its cursor. Longer: page
/// tokens have expired or the source has shifted under an offset. Shorter: a long outage costs a whole pass.
pub const RESUME_WITHIN: Duration = Duration::from_secs(60 * 60);

/// What a run's task tells the main thread, in order.
pub struct Event {
    pub run: Uuid,
    pub what: What,
}

pub enum What {
    Page(FetchedPage),
    /// Always the last event of a run that was not aborted.
    Finished(Result<(), Failure>),
}

/// One page with everything that must commit with it.
pub struct FetchedPage {
    pub stream: String,
    pub records: Vec<Record>,
    pub rejected: Vec<Rejected>,
    /// `sync_state.cursor` once this page is stored.
    pub state: StreamState,
    pub window: Window,
    /// Size of the body, decompressed.
    pub bytes: u64,
    /// Holds the page's share of the memory budget until the page is dropped.
    pub budget: Budget,
}

/// A share of the bytes that may be in flight at once.
pub struct Budget(#[allow(dead_code)] Option<tokio::sync::OwnedSemaphorePermit>);

/// The tokio side of a worker. Build it in the worker's process, after fork.
pub struct Engine {
    _private: (),
}

impl Engine {
    /// `wake` is called from tokio threads after an event was sent, and must not block.
    pub fn start(_wake: Arc<dyn Fn() + Send + Sync>) -> std::io::Result<Engine> {
        Ok(Engine { _private: () })
    }

    pub fn submit(&mut self, _job: Job) {}

    /// The next event, if one is there. Never blocks.
    pub fn try_next(&mut self) -> Option<Event> {
        None
    }

    /// Ends a run's task; events of it that are already in the channel are dropped by [`Engine::try_next`].
    pub fn abort(&mut self, _run: Uuid) {}

    /// Runs that were submitted and have neither sent `Finished` nor been aborted.
    pub fn running(&self) -> usize {
        0
    }
}

#[allow(dead_code)]
fn unused(_: Value) {}
