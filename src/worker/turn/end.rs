//! How a run ended, and what follows from it.

use std::time::Duration;

use connector_service_core::error::{Class, Code, Failure};
use pgrx::prelude::*;
use uuid::Uuid;

use super::Turn;
use crate::error::{Error, Result};
use crate::fault;
use crate::store::run::Kind;
use crate::store::{Db, backfill, connector, run, tx, upload};

/// How often a file, or a window of a backfill, that could not be stored is tried again by itself.
const TRIES: u32 = 8;
/// Pause before a failed connector is tried again: doubled with every failure, with jitter.
const FIRST_BACKOFF: Duration = Duration::from_secs(30);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60 * 60);
/// Pause before a run goes on whose rows another session has locked.
const FIRST_LOCKED: Duration = Duration::from_secs(1);
const LONGEST_LOCKED: Duration = Duration::from_secs(60);
/// Pause before a connector that a person must mend is probed.
const PROBE: Duration = Duration::from_secs(6 * 60 * 60);

impl Turn {
    /// Writes down how a run ended, and when its connector is due again.
    pub(super) fn finish(&mut self, run: Uuid, result: std::result::Result<(), Failure>) {
        let Some(going) = self.going.get(&run) else {
            return;
        };
        // Before the run is said to have ended: whoever waits for it reads its metrics next.
        if result.is_ok() && !self.settle(going.claimed.tenant, going.claimed.connector) {
            self.wait_for_metrics(run);
            return;
        }
        self.write_end(run, result);
    }

    pub(super) fn write_end(&mut self, run: Uuid, result: std::result::Result<(), Failure>) {
        let Some(going) = self.going.get(&run) else {
            return;
        };
        let connector = going.claimed.connector;
        let token = self.token;
        fault::point("after_settle");
        let kind = going.claimed.kind;
        // Neither a file nor a window of a backfill comes again by itself, as the next sync does.
        let again = |db: &mut Db, failure: &Failure| -> Result<bool> {
            let tries = run::failures(db, run)?;
            let may = failure.code.class() == Class::Transient && tries < TRIES;
            Ok(may && run::postpone(db, run, token, failure, pause(failure, tries))?)
        };
        let written = tx(|db| match &result {
            Ok(()) => {
                run::succeed(db, run, token)?;
                match kind {
                    Kind::Sync => {
                        connector::succeeded(db, connector, run)?;
                        match run::is_asked_again(db, run)? {
                            true => run::ask(db, connector),
                            false => Ok(()),
                        }
                    }
                    Kind::Upload => connector::uploaded(db, connector, run, None),
                    Kind::Preview => upload::forget(db, run),
                    Kind::Backfill => backfill::release(db, connector),
                    Kind::Check | Kind::Webhook => Ok(()),
                }
            }
            // What the vendor wants, or another session has us wait for, is a pause, and no failure.
            Err(failure)
                if matches!(failure.code, Code::RateLimited | Code::Locked) && {
                    let wait = pause(failure, run::waits(db, run)?);
                    run::postpone(db, run, token, failure, wait)?
                } =>
            {
                Ok(())
            }
            Err(failure) if kind == Kind::Upload => {
                if again(db, failure)? {
                    return Ok(());
                }
                run::fail(db, run, token, failure, Duration::ZERO)?;
                let message = format!("{}. {}", failure.message, failure.code.hint());
                connector::uploaded(db, connector, run, Some(&message))
            }
            Err(failure) if kind == Kind::Backfill => {
                if again(db, failure)? {
                    return Ok(());
                }
                run::fail(db, run, token, failure, Duration::ZERO)?;
                match failure.code.class() {
                    Class::Mend => backfill::cancel_rest(db, connector, &failure.message),
                    Class::Transient => backfill::release(db, connector),
                }
            }
            Err(failure) if kind != Kind::Sync => {
                run::fail(db, run, token, failure, Duration::ZERO)?;
                upload::forget(db, run)
            }
            Err(failure) => {
                let mend = failure.code.class() == Class::Mend;
                let wait = pause(failure, connector::failures(db, connector)?);
                let hint = failure.code.hint();
                run::fail(db, run, token, failure, wait)?;
                connector::failed(
                    db,
                    connector,
                    &format!("{}. {hint}", failure.message),
                    mend,
                    wait,
                )
            }
        });
        match written {
            Ok(()) | Err(Error::Fenced(_)) => {
                self.going.remove(&run);
            }
            Err(error) => {
                warning!("connector_service could not write down how a run ended: {error}");
                self.unwritten.push((run, result));
            }
        }
    }
}

/// How long a connector rests after a failure. The vendor's own wish counts where it is longer.
fn pause(failure: &Failure, failures: u32) -> Duration {
    let doubled =
        |first: Duration, longest| first.saturating_mul(1 << failures.min(16)).min(longest);
    let base = match (failure.code, failure.code.class()) {
        (Code::Locked, _) => doubled(FIRST_LOCKED, LONGEST_LOCKED),
        (_, Class::Mend) => PROBE,
        (_, Class::Transient) => doubled(FIRST_BACKOFF, LONGEST_BACKOFF),
    };
    // Between 0.8 and 1.2 of it: connectors that failed together do not come back together.
    let [byte, ..] = *Uuid::new_v4().as_bytes();
    let jittered = base.mul_f64(0.8 + 0.4 * f64::from(byte) / 255.0);
    jittered.max(failure.retry_after.unwrap_or_default())
}
