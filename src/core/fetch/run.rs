//! One run: its job, and what it sends requests with.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::Instant;
use uuid::Uuid;

use super::client::Client;
use super::database::Database;
use super::logins::Logins;
use super::pace::Paces;
use super::{Event, Job, Limits, Purpose, Stored};
use crate::error::Failure;
use crate::guard::Allowed;
use crate::json;
use crate::secret::{Cover, Secret};
use crate::source::{self, Access, Reader, Start};

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

/// Tells whether a run is given what another one was given, credentials aside.
pub fn fingerprint(source: &str, config: &Value) -> String {
    let hash = json::hash(format!("{source} {config}").as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub async fn fetch(
    job: Job,
    client: &Arc<Client>,
    paces: &Paces,
    large: &Semaphore,
    logins: &Arc<Logins>,
    outbox: &Outbox,
) -> Result<(), Failure> {
    let reader = Arc::from(source::find(&job.source)?.open(&job.definition)?);
    for rest in &job.rests {
        paces.rest(job.tenant, &rest.account, rest.wait, &rest.why);
    }
    let mut run = Run {
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
        cover: job.cover,
        allowed: job.allowed,
        access: None,
        database: Mutex::new(None),
        refresh: None,
        client,
        paces,
        logins,
        outbox,
    };
    let is_preview = job.purpose == Purpose::Preview;
    match job.upload {
        Some(upload) => {
            run.file(upload, job.definition.limits, is_preview, large)
                .await
        }
        None if reader.layout().is_some() => {
            run.no_file().await;
            Ok(())
        }
        None if is_preview => run.preview().await,
        None => {
            let _place = run.take_place().await;
            run.all_streams().await
        }
    }
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
    pub cover: Option<Cover>,
    pub allowed: Arc<Allowed>,
    pub access: Option<Token>,
    /// The connection to a database, while it is good. Its lock is never waited for: a run does one thing at a time.
    pub database: Mutex<Option<Database>>,
    /// What took the place of the configured refresh token in this run.
    pub refresh: Option<Secret>,
    pub client: &'a Arc<Client>,
    pub paces: &'a Paces,
    pub logins: &'a Arc<Logins>,
    pub outbox: &'a Outbox,
}
