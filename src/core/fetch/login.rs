//! The token of a run: asked for before the first request, again when it is over or refused, and never stored. A
//! refresh token that the vendor replaces is stored before anything is done with what came along with it.
//!
//! Many a vendor takes a refresh token once, and then its answer is the only place where the next one stands: who hangs up
//! before it came is locked out for good. So what asks for a token is a task of its own, which nothing ends but its own
//! time-outs. Whatever became of the run meanwhile, the new refresh token goes to the main thread, which stores it; until
//! then the login is in flight, no other run of the connector may be taken up, and the process gives it time before it
//! ends ([`Gate`]).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::bounds::Tries;
use super::client::{Client, SMALL_BODY};
use super::run::{Run, named};
use super::{Limits, Rotation};
use crate::error::{Class, Code, Failure};
use crate::guard::Allowed;
use crate::secret::Secret;
use crate::source::{Access, Grant, Reader, Request, Start};

/// A token is not used any more when it has less than this left, or a tenth of its life. Longer: a short-lived
/// token is asked for all the time. Shorter: a request that is under way finds it over.
const MARGIN: Duration = Duration::from_secs(60);

/// How long a run waits until its new refresh token is stored; it is stored later all the same. Longer: a run that waits
/// takes the place of another one. Shorter: a lock that somebody holds for a moment fails the run.
const STORED_WITHIN: Duration = Duration::from_secs(60);

pub struct Held {
    pub access: Access,
    over_at: Option<Instant>,
}

impl Held {
    fn is_over(&self) -> bool {
        self.over_at.is_some_and(|at| Instant::now() >= at)
    }
}

/// How many logins of a process are in flight, and whether another one may begin: one number, so that a signal's handler
/// may ask and close it in one step.
#[derive(Debug, Default)]
pub struct Gate(AtomicUsize);

const CLOSED: usize = 1 << (usize::BITS - 1);

impl Gate {
    pub const fn new() -> Gate {
        Gate(AtomicUsize::new(0))
    }

    /// Lets no login begin from now on. True: none is in flight. A signal's handler may call it.
    pub fn close(&self) -> bool {
        self.0.fetch_or(CLOSED, Ordering::SeqCst) & !CLOSED == 0
    }

    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::SeqCst) & CLOSED != 0
    }

    fn enter(&self) -> bool {
        let enter = |count| (count & CLOSED == 0).then_some(count + 1);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        self.0.fetch_update(set, fetch, enter).is_ok()
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The logins of an engine.
pub struct Logins {
    gate: &'static Gate,
    known: Mutex<Known>,
    /// Without a bound of its own: of each connector there is one at most.
    rotations: mpsc::UnboundedSender<Rotation>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Known {
    /// Those that may begin a login. Who was ended may not, although its task is still on its way to an end.
    runs: HashSet<Uuid>,
    /// By connector.
    in_flight: HashMap<Uuid, Whose>,
    /// Whether a login ended whose run had ended before.
    freed: bool,
}

struct Whose {
    run: Uuid,
    tenant: Uuid,
}

/// A login that is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginInFlight {
    pub connector: Uuid,
    pub tenant: Uuid,
    /// Whether its run has ended.
    pub is_left: bool,
}

/// Keeps a login among those in flight; with the last of it, which may be a token that is still to be stored, it is over.
pub struct InFlight {
    logins: Arc<Logins>,
    connector: Uuid,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut known = self.logins.known();
        let whose = known.in_flight.remove(&self.connector);
        known.freed |= whose.is_some_and(|whose| !known.runs.contains(&whose.run));
        drop(known);
        self.logins.gate.leave();
        (self.logins.wake)();
    }
}

impl Logins {
    pub fn new(
        gate: &'static Gate,
        rotations: mpsc::UnboundedSender<Rotation>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Logins {
        Logins {
            gate,
            known: Mutex::default(),
            rotations,
            wake,
        }
    }

    pub fn let_in(&self, run: Uuid) {
        self.known().runs.insert(run);
    }

    /// From now on the run begins no login. One that is in flight goes on.
    pub fn shut_out(&self, run: Uuid) {
        self.known().runs.remove(&run);
    }

    pub fn in_flight(&self) -> Vec<LoginInFlight> {
        let known = self.known();
        let login = |(connector, whose): (&Uuid, &Whose)| LoginInFlight {
            connector: *connector,
            tenant: whose.tenant,
            is_left: !known.runs.contains(&whose.run),
        };
        known.in_flight.iter().map(login).collect()
    }

    pub fn take_freed(&self) -> bool {
        std::mem::take(&mut self.known().freed)
    }

    /// Registers a login. `None`: the process, or the run, is ending.
    fn begin(self: &Arc<Logins>, run: &Run<'_>) -> Result<Option<InFlight>, Failure> {
        let mut known = self.known();
        if !known.runs.contains(&run.run) || self.gate.is_closed() {
            return Ok(None);
        }
        if known.in_flight.contains_key(&run.connector) {
            // What the other one brings is not known yet, and what this run was given may be used up by it.
            let message = "another login of the connector is still in flight";
            return Err(Failure::new(Code::StoreFailed, message));
        }
        if !self.gate.enter() {
            return Ok(None);
        }
        let whose = Whose {
            run: run.run,
            tenant: run.tenant,
        };
        known.in_flight.insert(run.connector, whose);
        Ok(Some(InFlight {
            logins: self.clone(),
            connector: run.connector,
        }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that one token request needs, so that it needs its run no more.
struct Asking {
    run: Uuid,
    connector: Uuid,
    tenant: Uuid,
    definition: String,
    reader: Arc<dyn Reader>,
    start: Start,
    refresh: Option<Secret>,
    request: Request,
    client: Arc<Client>,
    limits: Limits,
    allowed: Arc<Allowed>,
    in_flight: InFlight,
}

/// How a token request went.
enum Asked {
    Granted(Grant),
    Failed(Failure),
    /// The vendor has answered, and the run has nothing of it: to ask again would show a token that is used up.
    Unstored(Failure),
}

impl Asking {
    async fn ask(self) -> Asked {
        let exchanged = self
            .client
            .exchange(&self.request, &self.limits, &self.allowed);
        let granted = exchanged.await.and_then(|(response, _)| {
            let login = self.reader.login();
            let login = login.ok_or_else(|| Failure::new(Code::Internal, "no login"))?;
            login.granted(self.start, self.refresh.as_ref(), &response)
        });
        let grant = match granted {
            Ok(grant) => grant,
            Err(failure) => return Asked::Failed(named(&self.request.url, failure)),
        };
        let Some(rotated) = grant.rotated.clone() else {
            return Asked::Granted(grant);
        };
        let (stored, answer) = oneshot::channel();
        let logins = self.in_flight.logins.clone();
        // The engine is gone only where the process is about to be.
        let _ = logins.rotations.send(Rotation {
            run: self.run,
            connector: self.connector,
            tenant: self.tenant,
            definition: self.definition,
            rotated,
            stored,
            in_flight: self.in_flight,
        });
        (logins.wake)();
        match timeout(STORED_WITHIN, answer).await {
            Ok(Ok(())) => Asked::Granted(grant),
            // The main thread has dropped it: there is no such connector any more.
            Ok(Err(_)) => Asked::Unstored(Failure::new(
                Code::Internal,
                "nobody stored the refresh token",
            )),
            Err(_) => Asked::Unstored(Failure::new(
                Code::StoreFailed,
                format!(
                    "the new refresh token could not be stored within {} s; it is tried on",
                    STORED_WITHIN.as_secs()
                ),
            )),
        }
    }
}

impl Run<'_> {
    /// Sees to it that there is a token, where the source needs one. True: it was asked for just now.
    pub async fn log_in(&mut self) -> Result<bool, Failure> {
        let Some(login) = self.reader.login() else {
            return Ok(false);
        };
        if self.access.as_ref().is_some_and(|access| !access.is_over()) {
            return Ok(false);
        }
        // A run may be hours old, and what a login signs is good for minutes.
        let start = Start {
            now: self.start.now + self.began.elapsed(),
            ..self.start
        };
        let request = login.request(start, self.refresh.as_ref())?;
        let mut tries = Tries::new(&self.limits);
        let Grant {
            access,
            lives,
            rotated,
        } = loop {
            match self.ask_for_token(start, request.clone()).await? {
                Asked::Granted(grant) => break grant,
                Asked::Unstored(failure) => return Err(failure),
                Asked::Failed(failure) => match failure.code.class() {
                    Class::Transient => self.pause(&mut tries, failure).await?,
                    Class::Mend => return Err(failure),
                },
            }
        };
        let over_at = lives.map(|lives| Instant::now() + lives - MARGIN.min(lives / 10));
        if let Some(rotated) = rotated {
            self.refresh = Some(rotated.new);
        }
        self.access = Some(Held { access, over_at });
        Ok(true)
    }

    /// One token request, which goes on where this run is ended.
    async fn ask_for_token(&self, start: Start, request: Request) -> Result<Asked, Failure> {
        let Some(in_flight) = self.logins.begin(self)? else {
            // What comes next is the end of the run's task, or of the process.
            return std::future::pending().await;
        };
        let asking = Asking {
            run: self.run,
            connector: self.connector,
            tenant: self.tenant,
            definition: self.definition.clone(),
            reader: self.reader.clone(),
            start,
            refresh: self.refresh.clone(),
            request,
            client: self.client.clone(),
            limits: Limits {
                // A larger body waits for a permit, without end where pages are not stored; and no token is that large.
                response_bytes: self.limits.response_bytes.min(SMALL_BODY),
                ..self.limits
            },
            allowed: self.allowed.clone(),
            in_flight,
        };
        // Its handle is dropped with this run, and the task is not.
        let asked = tokio::spawn(asking.ask()).await;
        asked.map_err(|_| Failure::new(Code::Internal, "the login panicked"))
    }
}
