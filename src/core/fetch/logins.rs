//! Which logins are in flight, and whether another one may begin.
//!
//! A login outlives its run (see the module `login`): no other run of its connector may be taken up before it is over,
//! and the process gives it time before it ends.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::Rotation;
use crate::error::{Code, Failure};

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
    /// The channel has no bound of its own: of each connector there is one rotation at most.
    rotations: mpsc::UnboundedSender<Rotation>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Known {
    /// Those that may begin a login. Who was ended may not, although its task is still on its way to an end.
    runs: HashSet<Uuid>,
    /// The logins in flight, by connector.
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

impl InFlight {
    pub fn logins(&self) -> Arc<Logins> {
        self.logins.clone()
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

    /// Has the main thread store a refresh token.
    pub fn store(&self, rotation: Rotation) {
        // The engine is gone only where the process is about to be.
        let _ = self.rotations.send(rotation);
        (self.wake)();
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
    pub fn begin(
        self: &Arc<Logins>,
        run: Uuid,
        connector: Uuid,
        tenant: Uuid,
    ) -> Result<Option<InFlight>, Failure> {
        let mut known = self.known();
        if !known.runs.contains(&run) || self.gate.is_closed() {
            return Ok(None);
        }
        if known.in_flight.contains_key(&connector) {
            // What the other one brings is not known yet, and what this run was given may be used up by it.
            let message = "another login of the connector is still in flight";
            return Err(Failure::new(Code::StoreFailed, message));
        }
        if !self.gate.enter() {
            return Ok(None);
        }
        let whose = Whose { run, tenant };
        known.in_flight.insert(connector, whose);
        Ok(Some(InFlight {
            logins: self.clone(),
            connector,
        }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
