//! The engine: everything risky about talking to a vendor, done once.
//!
//! A run is one task on tokio threads. It asks its [`crate::source::Reader`] what to request, performs the
//! request within every limit, gives the response back to be read, and sends each page as an [`Event`] through
//! a bounded channel. The worker's main thread, the only one that may call PostgreSQL, takes events and stores
//! them; a full channel stops the fetch. No event carries foreign error text.

mod body;
mod bounds;
mod client;
mod connections;
mod database;
mod file;
mod login;
mod logins;
mod outcome;
mod pace;
mod page;
mod pass;
mod place;
mod preview;
mod resolver;
mod run;
mod streams;
#[cfg(test)]
mod tests;
mod trace;
mod waiting;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::error::{Code, Failure};
use crate::guard::Allowed;
use crate::record::{Count, GoneWith, Record, Rejected, StreamState, Window};
use crate::secret::Cover;
use crate::source::{Definition, Part, Rotated, Span};
use crate::threads;
pub use file::{Upload, UploadMark};
pub use logins::{Gate, LoginInFlight};
pub use outcome::{End, Outcome, Retry, StreamEnd};
pub use place::check_addresses;
pub use run::fingerprint;
pub use trace::{Asked, MOST_REQUESTS, Trace};

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
    /// Most runs of one account that run at once.
    pub syncs_of_account: usize,
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Every stream, from its cursor.
    Sync,
    /// The first page of every stream; see [`What::Previewed`].
    Preview,
}

/// One run to be fetched.
pub struct Job {
    pub run: Uuid,
    pub connector: Uuid,
    pub tenant: Uuid,
    pub purpose: Purpose,
    /// Accounts of the tenant that must not be called for a while, as stored.
    pub rests: Vec<Rest>,
    /// `connectors.type`.
    pub source: String,
    pub definition: Definition,
    /// Seals what is stored of page tokens, where the connector has credentials.
    pub cover: Option<Cover>,
    /// `sync_state` of the connector, by stream.
    pub states: HashMap<String, Stored>,
    /// The period that a backfill run reads. `states` are then the run's own.
    pub span: Option<Span>,
    /// The uploaded file that the run reads.
    pub upload: Option<Upload>,
    pub now: DateTime<Utc>,
    /// Where a first sync begins when config does not say.
    pub default_from: DateTime<Utc>,
    pub limits: Limits,
    /// Hosts that may be called although they are not public; from the settings of the installation.
    pub allowed: Arc<Allowed>,
}

/// An account that is not to be called for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    pub account: String,
    pub wait: Duration,
    pub why: String,
}

/// A stream's state as it was stored, and how long ago.
pub struct Stored {
    pub state: StreamState,
    pub age: Duration,
}

/// An unfinished pass up to this age is resumed; an older one starts again at its cursor. Longer: page tokens have
/// expired or the source has shifted under an offset. Shorter: a long outage costs a whole pass.
pub const RESUME_WITHIN: Duration = Duration::from_secs(60 * 60);

/// What a run's task tells the main thread, in order.
pub struct Event {
    pub run: Uuid,
    pub what: What,
}

pub enum What {
    Page(Box<FetchedPage>),
    /// The run waits until it is given a part of its file.
    Part(PartWanted),
    /// The run, or its whole account, waits.
    Waiting(Box<Waiting>),
    /// A warning for a person, although nothing failed.
    Warning(String),
    /// The streams that the run will read, before its first page.
    Planned(Vec<String>),
    /// A stream failed, and the run goes on without it.
    Failed(Box<StreamEnd>),
    /// How the preview of one stream went.
    Previewed(Box<Previewed>),
    /// Always the last event of a run that was not aborted.
    Finished(Box<Outcome>),
}

/// A refresh token that a vendor replaced, to be stored whatever has become of its run; the login is in flight until this
/// is dropped.
pub struct Rotation {
    pub run: Uuid,
    pub connector: Uuid,
    pub tenant: Uuid,
    /// [`fingerprint`] of what the run was given.
    pub definition: String,
    pub rotated: Rotated,
    /// Tells the run that the token is stored. If the run was ended, nobody listens.
    stored: oneshot::Sender<()>,
    in_flight: logins::InFlight,
}

impl Rotation {
    /// Call this when the token is stored or not wanted any more: the run continues and may log in again.
    pub fn stored(self) {
        drop(self.in_flight);
        let _ = self.stored.send(());
    }
}

/// A request for a part of a run's file, counted from 0. A reply of `None` means that there is no such part.
pub struct PartWanted {
    pub number: u64,
    pub reply: oneshot::Sender<Option<Bytes>>,
}

/// How long no request is made, and why, in our own words.
pub struct Waiting {
    pub wait: Duration,
    pub why: String,
    /// Where the vendor spoke of the account: its name, and how much of how much of its allowance is used up. A wait
    /// is then the account's.
    pub account: Option<(String, Option<(u64, u64)>)>,
}

pub struct Previewed {
    pub stream: String,
    /// How a file was read: in one line, and in full.
    pub understood: Option<(String, serde_json::Value)>,
    /// `None`: the vendor does not have this stream here.
    pub result: Result<Option<FetchedPage>, Failure>,
}

/// One page with everything that must commit with it.
pub struct FetchedPage {
    pub stream: String,
    pub records: Vec<Record>,
    pub rejected: Vec<Rejected>,
    /// See [`crate::record::Page`].
    pub deleted: Vec<String>,
    pub deleted_with: Option<GoneWith>,
    pub count: Option<Count>,
    pub warning: Option<String>,
    /// [`crate::json::hash`] of every id that the pass has shown, with the last page of a complete pass over a whole
    /// stream: what is stored beside them is gone at the source.
    pub all: Option<Vec<[u8; 16]>>,
    /// The part of the stream that `all` is about; `None`: all of it.
    pub part: Option<Part>,
    /// `sync_state.cursor` once this page is stored.
    pub state: StreamState,
    /// How far a file is stored then; a file has no cursor.
    pub upload: Option<UploadMark>,
    pub window: Window,
    /// Size of the body, decompressed.
    pub bytes: u64,
    /// Holds the page's share of the memory budget until the page is dropped.
    pub budget: Budget,
}

impl FetchedPage {
    /// An empty page.
    fn of(stream: String, state: StreamState, window: Window) -> FetchedPage {
        FetchedPage {
            stream,
            records: Vec::new(),
            rejected: Vec::new(),
            deleted: Vec::new(),
            deleted_with: None,
            count: None,
            warning: None,
            all: None,
            part: None,
            state,
            upload: None,
            window,
            bytes: 0,
            budget: Budget::default(),
        }
    }
}

/// One page's share of the bytes that may be in flight at once.
#[derive(Default)]
pub struct Budget(Option<OwnedSemaphorePermit>);

/// The tokio side of a worker. Build it in the worker's process, after fork.
pub struct Engine {
    /// `Some` until the engine is dropped.
    runtime: Option<tokio::runtime::Runtime>,
    shared: Arc<run::Shared>,
    inbox: mpsc::Receiver<Event>,
    /// A queue of their own: pages that wait to be stored do not delay them.
    rotations: mpsc::UnboundedReceiver<Rotation>,
    tasks: HashMap<Uuid, Task>,
}

/// A run that is being fetched.
struct Task {
    handle: AbortHandle,
    trace: Arc<trace::Trace>,
}

/// Streams that are read beside the first ones of their runs. More: more connections, and more pages in memory. Fewer:
/// config's "parallel_streams" has no effect while others use it.
const STREAMS_BESIDE: usize = 16;

/// Events that wait for the main thread. More: pages of small bodies pile up in memory. Fewer: the fetch
/// stops while the main thread commits.
const EVENTS_IN_FLIGHT: usize = 32;

impl Engine {
    /// `wake` is called from tokio threads after an event was sent, and must not block. `gate` counts the logins.
    pub fn start(
        wake: Arc<dyn Fn() + Send + Sync>,
        gate: &'static Gate,
    ) -> std::io::Result<Engine> {
        let (sender, inbox) = mpsc::channel(EVENTS_IN_FLIGHT);
        let (kept, rotations) = mpsc::unbounded_channel();
        Ok(Engine {
            runtime: Some(threads::runtime("connector_fetch")?),
            shared: Arc::new(run::Shared {
                client: Arc::new(client::Client::new()),
                paces: pace::Paces::default(),
                large: Semaphore::new(1),
                beside: Semaphore::new(STREAMS_BESIDE),
                logins: Arc::new(logins::Logins::new(gate, kept, wake.clone())),
                outbox: run::Outbox { sender, wake },
            }),
            inbox,
            rotations,
            tasks: HashMap::new(),
        })
    }

    pub fn submit(&mut self, job: Job) {
        let run = job.run;
        let shared = self.shared.clone();
        shared.logins.let_in(run);
        let trace = Arc::new(trace::Trace::new(&job.definition.credentials, job.now));
        let noted = trace.clone();
        let task = async move {
            // A bug ends its run, never the process, and never silently.
            let fetched = run::fetch(job, &shared, &noted);
            let fetched = AssertUnwindSafe(fetched).catch_unwind().await;
            let mut outcome: Outcome = fetched.unwrap_or_else(|_| {
                Err(Failure::new(Code::Internal, "the fetch task panicked")).into()
            });
            outcome.trace = Some(noted);
            let what = What::Finished(Box::new(outcome));
            shared.outbox.send(Event { run, what }).await;
        };
        if let Some(runtime) = &self.runtime {
            let handle = runtime.spawn(task).abort_handle();
            self.tasks.insert(run, Task { handle, trace });
        }
    }

    /// The next event, if one is there. Never blocks.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            let event = self.inbox.try_recv().ok()?;
            let known = match event.what {
                What::Page(_)
                | What::Part(_)
                | What::Waiting(_)
                | What::Warning(_)
                | What::Planned(_)
                | What::Failed(_)
                | What::Previewed(_) => self.tasks.contains_key(&event.run),
                What::Finished(_) => {
                    self.shared.logins.shut_out(event.run);
                    self.tasks.remove(&event.run).is_some()
                }
            };
            if known {
                return Some(event);
            }
        }
    }

    /// The next refresh token that is to be stored, if one is there. Never blocks.
    pub fn try_rotation(&mut self) -> Option<Rotation> {
        self.rotations.try_recv().ok()
    }

    /// Ends a run's task; events of it that are already in the channel are dropped by [`Engine::try_next`]. A login that
    /// is in flight goes on, and no other one begins. Returns the last requests of the run.
    pub fn abort(&mut self, run: Uuid) -> Option<Arc<trace::Trace>> {
        self.shared.logins.shut_out(run);
        let task = self.tasks.remove(&run)?;
        task.handle.abort();
        Some(task.trace)
    }

    pub fn abort_all(&mut self) {
        let runs: Vec<Uuid> = self.tasks.keys().copied().collect();
        for run in runs {
            self.abort(run);
        }
    }

    /// Logins whose outcome is not known or not stored yet: no other run of their connectors may be submitted.
    pub fn logins(&self) -> Vec<LoginInFlight> {
        self.shared.logins.in_flight()
    }

    /// Whether a login ended, since this was last asked, that had outlived its run.
    pub fn take_freed(&mut self) -> bool {
        self.shared.logins.take_freed()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Waiting for threads that wait for a network would hold up the end of the process.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
