//! Logins in flight, even if their runs have ended: the refresh tokens that they return are stored, at the latest before the
//! process ends.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use connector_service_core::fetch::{LoginInFlight, Rotation};
use connector_service_core::secret::Place;
use pgrx::prelude::*;
use uuid::Uuid;

use super::SyncWorker;
use crate::error::{Error, Result};
use crate::store::connector::{self, TokenResult};
use crate::store::limited;
use crate::wait::Waiter;
use crate::{board, fault, signals};

/// How long the process waits for logins in flight after it was told to end. Longer: DROP DATABASE and RENAME, which wait 5 s for
/// workers to end, take longer or fail, and the server stops later. Shorter: a connector of a slow vendor loses its token.
const GRACE: Duration = Duration::from_millis(4_500);

/// Longest time of one try to store a token. Longer: all other work waits for a table that another session has locked. Shorter:
/// with a slow disk the token is never stored.
pub(super) const LONGEST_TRY: Duration = Duration::from_secs(2);

/// Time of a try that begins near the end of the grace time. Longer: the process ends later. Shorter: the try cannot succeed.
const LAST_TRY: Duration = Duration::from_millis(100);

/// Pause after a failed try. It doubles each time. Longer: a token is lost more often if the server stops meanwhile. Shorter: the
/// worker spends more time on tries.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A token that is not stored after this time is logged. Shorter: the log reports every short lock.
const LOGGED_AFTER: Duration = Duration::from_secs(1);

/// A refresh token that is still to be stored.
pub(super) struct PendingToken {
    rotation: Rotation,
    since: Instant,
    next_try: Instant,
    pause: Duration,
    /// The last reason that was logged.
    logged: Option<String>,
}

impl SyncWorker {
    /// Stores new refresh tokens, and tries again to store earlier ones.
    pub(super) fn store_tokens(&mut self, longest: Duration) {
        while let Some(rotation) = self.engine.try_rotation() {
            let now = Instant::now();
            self.pending_tokens.push(PendingToken {
                rotation,
                since: now,
                next_try: now,
                pause: FIRST_PAUSE,
                logged: None,
            });
        }
        for mut pending in std::mem::take(&mut self.pending_tokens) {
            if pending.next_try > Instant::now() {
                self.pending_tokens.push(pending);
                continue;
            }
            let result = store_token(&pending.rotation, longest);
            let why = match result {
                Ok(TokenResult::Stored | TokenResult::NotWanted) => {
                    fault::point("after_keep");
                    pending.rotation.stored();
                    continue;
                }
                Ok(TokenResult::Gone) | Err(Error::NotInstalled) => continue,
                Ok(TokenResult::Busy) => {
                    "another session has locked the connector's row".to_owned()
                }
                Err(error) => error.to_string(),
            };
            let is_news = pending.logged.as_ref() != Some(&why);
            if is_news && pending.since.elapsed() >= LOGGED_AFTER {
                let connector = pending.rotation.connector;
                warning!(
                    "connector_service cannot store the new refresh token of connector \"{connector}\" yet: {why}"
                );
                pending.logged = Some(why);
            }
            pending.next_try = Instant::now() + pending.pause;
            pending.pause = (pending.pause * 2).min(LONGEST_PAUSE);
            self.pending_tokens.push(pending);
        }
    }

    pub(super) fn next_token_try(&self) -> Duration {
        let next = self
            .pending_tokens
            .iter()
            .map(|pending| pending.next_try)
            .min();
        next.map_or(Duration::MAX, |next| {
            next.saturating_duration_since(Instant::now())
        })
    }

    /// Logins that are in flight although their runs have ended. Each counts as a running sync until it ends, so that repeated
    /// cancels and syncs cannot open more connections to a hanging host.
    pub(super) fn logins_left(&self) -> impl Iterator<Item = LoginInFlight> {
        let logins = self.engine.logins().into_iter();
        logins.filter(|login| login.is_left)
    }

    /// Whether one of these logins has ended, so that any worker may start a run of its connector.
    pub(super) fn is_any_login_over(&mut self) -> bool {
        let is_any = self.engine.take_freed();
        if is_any {
            // SAFETY: fixed for the life of a process.
            board::wake(unsafe { pg_sys::MyDatabaseId });
        }
        is_any
    }

    /// The connectors of which no run may be started, because a login may be in flight: here, after a run was cancelled, or in
    /// another worker, which had the tenants of this one before.
    pub(super) fn connectors_in_use(&self) -> Vec<Uuid> {
        let mut connectors_in_use = board::connectors_in_use_elsewhere();
        connectors_in_use.extend(self.own_connectors());
        connectors_in_use
    }

    fn own_connectors(&self) -> impl Iterator<Item = Uuid> {
        let running = self
            .running
            .values()
            .map(|running| running.claimed.connector);
        running.chain(self.engine.logins().into_iter().map(|l| l.connector))
    }

    /// Publishes the connectors that this worker uses.
    pub(super) fn publish_connectors_in_use(&mut self) {
        let in_use: HashSet<Uuid> = self.own_connectors().collect();
        if in_use != self.in_use {
            board::set_connectors_in_use(in_use.iter());
            self.in_use = in_use;
        }
    }

    /// Ends the process: fetches are aborted at once, logins may finish until their tokens are stored or the time is up.
    pub(super) fn leave(&mut self, waiter: &mut Waiter) {
        let until = Instant::now() + GRACE;
        self.engine.abort_all();
        for pending in &mut self.pending_tokens {
            (pending.next_try, pending.pause) = (Instant::now(), FIRST_PAUSE);
        }
        loop {
            signals::answer();
            let left = until.saturating_duration_since(Instant::now());
            self.store_tokens(left.clamp(LAST_TRY, LONGEST_TRY));
            let in_flight = self.engine.logins();
            if in_flight.is_empty() {
                break;
            }
            if left.is_zero() {
                for LoginInFlight { connector, .. } in in_flight {
                    warning!(
                        "connector_service stops while connector \"{connector}\" is logging in: if the vendor replaces its refresh token, the new one is lost"
                    );
                }
                break;
            }
            waiter.sleep(left.min(self.next_token_try()));
        }
        signals::end();
    }
}

fn store_token(rotation: &Rotation, longest: Duration) -> Result<TokenResult> {
    let place = Place {
        tenant: rotation.tenant,
        connector: rotation.connector,
    };
    limited(longest, |db| {
        connector::store_token(db, &place, &rotation.definition, &rotation.rotated)
    })
}
