//! One run: its job, and what it sends requests with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use serde_json::Value;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::Instant;
use uuid::Uuid;

use super::client::Client;
use super::connections::Connections;
use super::logins::Logins;
use super::outcome::Outcome;
use super::pace::Paces;
use super::trace::Trace;
use super::{Event, Job, Limits, Purpose, Stored};
use crate::error::Failure;
use crate::guard::Allowed;
use crate::json;
use crate::secret::{Cover, Secret};
use crate::source::{self, Access, OF_ALL, OF_RUNS, Reader, RunSettings, Start};

#[derive(Clone)]
pub struct Outbox {
    pub sender: mpsc::Sender<Event>,
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

impl Outbox {
    pub async fn send(&self, event: Event) {
        // Closed only when the engine is gone, and this task with it.
        let _ = self.sender.send(event).await;
        (self.wake)();
    }

    /// Sends on a thread that may wait.
    pub fn send_blocking(&self, event: Event) {
        let _ = self.sender.blocking_send(event);
        (self.wake)();
    }
}

/// Tells whether a run is given what another one was given, credentials aside. How streams are read does not change what
/// is read.
pub fn fingerprint(source: &str, config: &Value) -> String {
    let mut config = config.clone();
    if let Some(fields) = config.as_object_mut() {
        for field in OF_RUNS.iter().chain(OF_ALL) {
            fields.remove(field.name);
        }
    }
    let hash = json::hash(format!("{source} {config}").as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What all runs of an engine share.
pub struct Shared {
    pub client: Arc<Client>,
    pub paces: Paces,
    /// Only one run at a time reads a large file.
    pub large: Semaphore,
    /// Places for streams that are read beside the first one of their run.
    pub beside: Semaphore,
    pub logins: Arc<Logins>,
    pub outbox: Outbox,
}

pub async fn fetch(job: Job, shared: &Shared, trace: &Arc<Trace>) -> Outcome {
    match begun(job, shared, trace).await {
        Ok(outcome) => outcome,
        Err(failure) => Err(failure).into(),
    }
}

async fn begun(job: Job, shared: &Shared, trace: &Arc<Trace>) -> Result<Outcome, Failure> {
    let reader = Arc::from(source::find(&job.source)?.open(&job.definition)?);
    let settings = RunSettings::read(&job.definition.config)?;
    for rest in &job.rests {
        shared
            .paces
            .rest(job.tenant, &rest.account, rest.wait, &rest.why);
    }
    let run = Run {
        run: job.run,
        connector: job.connector,
        tenant: job.tenant,
        reader: &reader,
        definition: fingerprint(&job.source, &job.definition.config),
        states: job.states,
        start: Start {
            now: job.now,
            default_from: job.default_from,
            read_until: None,
            missed_since: None,
            span: job.span,
        },
        began: std::time::Instant::now(),
        limits: job.limits,
        parallel: settings.parallel_streams,
        is_preview: job.purpose == Purpose::Preview,
        cover: job.cover,
        allowed: job.allowed,
        login: Mutex::default(),
        connections: Connections::new(settings.parallel_streams),
        pages_read: AtomicU64::new(0),
        failed_in_a_row: AtomicU32::new(0),
        trace,
        client: &shared.client,
        paces: &shared.paces,
        beside: &shared.beside,
        logins: &shared.logins,
        outbox: &shared.outbox,
    };
    Ok(match job.upload {
        Some(upload) => {
            let limits = job.definition.limits;
            run.file(upload, limits, &shared.large).await.into()
        }
        None if reader.layout().is_some() => {
            run.no_file().await;
            Ok(()).into()
        }
        None if run.is_preview => run.all_streams().await,
        None => {
            let _place = run.take_place().await;
            run.all_streams().await
        }
    })
}

/// An access token, and until when it is used.
pub struct Token {
    pub access: Access,
    pub over_at: Option<Instant>,
}

impl Token {
    pub fn is_over(&self) -> bool {
        self.over_at.is_some_and(|at| Instant::now() >= at)
    }
}

/// What a run's logins have brought so far.
#[derive(Default)]
pub struct Held {
    pub token: Option<Token>,
    /// What took the place of the configured refresh token in this run.
    pub refresh: Option<Secret>,
}

/// What the streams of a run share.
pub struct Run<'a> {
    pub run: Uuid,
    pub connector: Uuid,
    pub tenant: Uuid,
    pub reader: &'a Arc<dyn Reader>,
    /// See [`Pass::definition`] and [`fingerprint`].
    pub definition: String,
    pub states: HashMap<String, Stored>,
    pub start: Start,
    /// When `start` was now.
    pub began: std::time::Instant,
    pub limits: Limits,
    /// Most streams that are read side by side.
    pub parallel: usize,
    pub is_preview: bool,
    pub cover: Option<Cover>,
    pub allowed: Arc<Allowed>,
    /// Locked while a token is asked for: two streams never ask side by side.
    pub login: Mutex<Held>,
    pub connections: Connections,
    /// Pages that were read, of whatever stream.
    pub pages_read: AtomicU64,
    /// Streams that failed one after the other, with no page read in between, in a way that may pass.
    pub failed_in_a_row: AtomicU32,
    pub trace: &'a Arc<Trace>,
    pub client: &'a Arc<Client>,
    pub paces: &'a Paces,
    pub beside: &'a Semaphore,
    pub logins: &'a Arc<Logins>,
    pub outbox: &'a Outbox,
}
