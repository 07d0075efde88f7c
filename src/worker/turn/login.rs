//! Logins that are in flight, whatever became of their runs: the refresh tokens that they bring are stored, at last before
//! the process ends.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use connector_service_core::fetch::{LoginInFlight, Rotation};
use connector_service_core::secret::Place;
use pgrx::prelude::*;
use uuid::Uuid;

use super::Turn;
use crate::error::{Error, Result};
use crate::store::connector::{self, Kept};
use crate::store::limited;
use crate::wait::Waiter;
use crate::{board, fault, signals};

/// How long logins in flight have once the process was told to end. Longer: DROP DATABASE and RENAME, which wait 5 s for a
/// worker that they send away, are held up, and so is the server's own end. Shorter: vendors that answer slowly lock
/// connectors out.
const GRACE: Duration = Duration::from_millis(4_500);

/// Longest time of one try to store a token. Longer: everything else waits for a table that somebody has locked. Shorter:
/// a slow disk keeps it from ever being stored.
pub(super) const LONGEST_TRY: Duration = Duration::from_secs(2);

/// Time of a try that begins when the grace is all but over. Longer: it is more than grace. Shorter: it is none.
const LAST_TRY: Duration = Duration::from_millis(100);

/// Pause after a try that failed: doubled each time. Longer: who ends the server meanwhile loses the token. Shorter: more
/// of the worker's time goes into trying.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A token that is not stored after this long is said to be so. Shorter: the log tells of every lock that is held for a
/// moment.
const SAID_AFTER: Duration = Duration::from_secs(1);

/// A refresh token that is to be stored.
pub(super) struct Unkept {
    rotation: Rotation,
    since: Instant,
    next_try: Instant,
    pause: Duration,
    /// What the log was told of it.
    said: Option<String>,
}

impl Turn {
    /// Stores the refresh tokens that have come, and tries again with those that could not be stored.
    pub(super) fn keep_tokens(&mut self, longest: Duration) {
        while let Some(rotation) = self.engine.try_rotation() {
            let now = Instant::now();
            self.unkept.push(Unkept {
                rotation,
                since: now,
                next_try: now,
                pause: FIRST_PAUSE,
                said: None,
            });
        }
        for mut unkept in std::mem::take(&mut self.unkept) {
            if unkept.next_try > Instant::now() {
                self.unkept.push(unkept);
                continue;
            }
            let kept = keep(&unkept.rotation, longest);
            let why = match kept {
                Ok(Kept::Stored | Kept::NotWanted) => {
                    fault::point("after_keep");
                    unkept.rotation.stored();
                    continue;
                }
                Ok(Kept::Gone) | Err(Error::NotInstalled) => continue,
                Ok(Kept::Busy) => "another session has locked the connector's row".to_owned(),
                Err(error) => error.to_string(),
            };
            let is_news = unkept.said.as_ref() != Some(&why);
            if is_news && unkept.since.elapsed() >= SAID_AFTER {
                let connector = unkept.rotation.connector;
                warning!(
                    "connector_service cannot store the new refresh token of connector \"{connector}\" yet: {why}"
                );
                unkept.said = Some(why);
            }
            unkept.next_try = Instant::now() + unkept.pause;
            unkept.pause = (unkept.pause * 2).min(LONGEST_PAUSE);
            self.unkept.push(unkept);
        }
    }

    pub(super) fn next_try_to_keep(&self) -> Duration {
        let next = self.unkept.iter().map(|unkept| unkept.next_try).min();
        next.map_or(Duration::MAX, |next| {
            next.saturating_duration_since(Instant::now())
        })
    }

    /// Logins that have outlived their runs. Each takes a place until it ends: who cancels and syncs all the time has no
    /// more connections to hosts that hang than anybody else.
    pub(super) fn logins_left(&self) -> impl Iterator<Item = LoginInFlight> {
        let logins = self.engine.logins().into_iter();
        logins.filter(|login| login.is_left)
    }

    /// Whether one of those has ended, so that a run of its connector may be taken up, by whichever worker.
    pub(super) fn is_any_login_over(&mut self) -> bool {
        let is_any = self.engine.take_freed();
        if is_any {
            // SAFETY: fixed for the life of a process.
            board::wake(unsafe { pg_sys::MyDatabaseId });
        }
        is_any
    }

    /// The connectors of which no run may be taken up, because a login of theirs may be in flight: here, where a run was
    /// cancelled that is still to be dropped, or in another worker, whose tenants are this one's by now.
    pub(super) fn in_hand(&self) -> Vec<Uuid> {
        let mut in_hand = board::hands_of_others();
        in_hand.extend(self.mine());
        in_hand
    }

    fn mine(&self) -> impl Iterator<Item = Uuid> {
        let going = self.going.values().map(|going| going.claimed.connector);
        going.chain(self.engine.logins().into_iter().map(|l| l.connector))
    }

    /// Shows other workers what is in this one's hand.
    pub(super) fn show_hands(&mut self) {
        let hands: HashSet<Uuid> = self.mine().collect();
        if hands != self.hands {
            board::set_hands(hands.iter());
            self.hands = hands;
        }
    }

    /// Ends the process: fetches at once, logins when they are stored or their time is over.
    pub(super) fn leave(&mut self, waiter: &mut Waiter) {
        let until = Instant::now() + GRACE;
        self.engine.abort_all();
        for unkept in &mut self.unkept {
            (unkept.next_try, unkept.pause) = (Instant::now(), FIRST_PAUSE);
        }
        loop {
            signals::answer();
            let left = until.saturating_duration_since(Instant::now());
            self.keep_tokens(left.clamp(LAST_TRY, LONGEST_TRY));
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
            waiter.sleep(left.min(self.next_try_to_keep()));
        }
        signals::end();
    }
}

fn keep(rotation: &Rotation, longest: Duration) -> Result<Kept> {
    let place = Place {
        tenant: rotation.tenant,
        connector: rotation.connector,
    };
    limited(longest, |db| {
        connector::keep(db, &place, &rotation.definition, &rotation.rotated)
    })
}
