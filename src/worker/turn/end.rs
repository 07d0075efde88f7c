//! Records how a run ended, and what follows from it.

use std::time::{Duration, Instant};

use connector_service_core::error::{Class, Code, Failure};
use uuid::Uuid;

use super::{AFTER_TROUBLE, POLL_AT_LEAST, SyncWorker};
use crate::error::{Error, Result};
use crate::store::run::{Claimed, Kind};
use crate::store::{Db, backfill, connector, run, tx, upload};
use crate::{activity, fault, trouble};

/// How often a failed upload or backfill window is retried.
const TRIES: u32 = 8;
/// Pause before a failed connector is retried. It doubles with every failure, with jitter.
const FIRST_BACKOFF: Duration = Duration::from_secs(30);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60 * 60);
/// Pause before a run continues after another session had locked its rows.
const FIRST_LOCKED: Duration = Duration::from_secs(1);
const LONGEST_LOCKED: Duration = Duration::from_secs(60);
/// Pause before a connector in `error` is retried, in case somebody has fixed it.
const PROBE: Duration = Duration::from_secs(6 * 60 * 60);

/// How often the end of a run is tried to be recorded after errors such as a full disk. More: a trigger that raises such an error
/// forever keeps a run running for longer. Fewer: a full disk turns successes into failures.
const PATIENCE: u32 = 4;
/// Longest pause before the end of a run is tried to be recorded again. Longer: the run still shows as running when the reason is
/// gone. Shorter: more useless tries.
const LONGEST_TROUBLE: Duration = Duration::from_secs(60);

const COULD_NOT_END: &str = "could not record the end of a run";

/// A run that has ended, which is not recorded in the tables yet.
pub(super) struct Ended {
    claimed: Claimed,
    result: std::result::Result<(), Failure>,
    tries: u32,
    /// When to try again.
    at: Instant,
}

impl SyncWorker {
    /// Records the end of a run, or tries again later.
    pub(super) fn finish(&mut self, run: Uuid, result: std::result::Result<(), Failure>) {
        let Some(running) = self.running.get(&run) else {
            return;
        };
        // Before the run ends: a client that waits for it reads its metrics next.
        let (tenant, connector) = (running.claimed.tenant, running.claimed.connector);
        if result.is_ok()
            && let Some(longest) = self.settle(tenant, connector)
        {
            self.wait_for_metrics(run, longest);
            return;
        }
        self.end_now(run, result);
    }

    /// Records the end of a run whose metrics are ready, or that does not wait for them.
    pub(super) fn end_now(&mut self, run: Uuid, result: std::result::Result<(), Failure>) {
        let Some(running) = self.running.remove(&run) else {
            return;
        };
        fault::point("after_settle");
        self.end(Ended {
            claimed: running.claimed,
            result,
            tries: 0,
            at: Instant::now(),
        });
    }

    /// Tries again to record ended runs; returns how long there is nothing to try.
    pub(super) fn end_again(&mut self) -> Duration {
        for ended in std::mem::take(&mut self.unwritten) {
            match ended.at <= Instant::now() {
                true => self.end(ended),
                false => self.unwritten.push(ended),
            }
        }
        let next = self.unwritten.iter().map(|ended| ended.at).min();
        next.map_or(POLL_AT_LEAST, |at| {
            at.saturating_duration_since(Instant::now())
        })
    }

    fn end(&mut self, mut ended: Ended) {
        let claimed = &ended.claimed;
        let (run, connector) = (claimed.run, claimed.connector);
        let _doing = activity::doing(format!("ending run {run}"));
        let mut written = self.write_end(claimed, &ended.result);
        match &written {
            Ok(()) | Err(Error::Fenced(_)) => trouble::succeeded_for(COULD_NOT_END, connector),
            // For instance a user's trigger refuses the write. The run then ends as failed, with that reason.
            Err(error) if error.is_refusal() || ended.tries >= PATIENCE => {
                trouble::failed_for(COULD_NOT_END, connector, error);
                written = self.write_refused(claimed, &ended.result, error);
            }
            Err(error) => trouble::failed_for(COULD_NOT_END, connector, error),
        }
        if let Err(error) = written
            && !matches!(error, Error::Fenced(_))
        {
            let pause = AFTER_TROUBLE.saturating_mul(1 << ended.tries.min(16));
            ended.at = Instant::now() + pause.min(LONGEST_TROUBLE);
            ended.tries += 1;
            self.unwritten.push(ended);
        }
    }

    /// Records that a run failed because its end was refused. If the changes to the connector are refused too, they are left out.
    fn write_refused(
        &self,
        claimed: &Claimed,
        result: &std::result::Result<(), Failure>,
        refused: &Error,
    ) -> Result<()> {
        let words = format!(
            "the end of the run could not be recorded: {}",
            refused.one_line()
        );
        let failure = match result {
            Ok(()) => Failure::new(Code::StoreFailed, words),
            Err(failure) => Failure::new(failure.code, format!("{}; {words}", failure.message)),
        };
        if result.is_ok() {
            let written = self.write_end(claimed, &Err(failure.clone()));
            if matches!(written, Ok(()) | Err(Error::Fenced(_))) {
                return written;
            }
        }
        // The connector keeps its next slot.
        let wait = pause(&failure, 0);
        tx(|db| run::fail(db, claimed.run, self.token, &failure, wait))
    }

    /// Records how a run ended, and when its connector is due again.
    fn write_end(
        &self,
        claimed: &Claimed,
        result: &std::result::Result<(), Failure>,
    ) -> Result<()> {
        let (run, connector, kind) = (claimed.run, claimed.connector, claimed.kind);
        let token = self.token;
        // No later run repeats an upload or a backfill window, as the next sync does.
        let again = |db: &mut Db, failure: &Failure| -> Result<bool> {
            let tries = run::failures(db, run)?;
            let may = failure.code.class() == Class::Transient && tries < TRIES;
            Ok(may && run::postpone(db, run, token, failure, pause(failure, tries))?)
        };
        tx(|db| match result {
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
            // A rate limit of the vendor, or a lock of another session, is a pause and not a failure.
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
        })
    }
}

/// Fails a run that cannot start. If the changes to its connector are refused, they are left out.
pub(super) fn refuse(run: Uuid, connector: Uuid, failure: &Failure) -> Result<()> {
    let written = tx(|db| {
        if run::refuse(db, run, failure)? {
            let wait = pause(failure, connector::failures(db, connector)?);
            let message = format!("{}. {}", failure.message, failure.code.hint());
            connector::failed(db, connector, &message, false, wait)?;
        }
        Ok(())
    });
    written.or_else(|_| tx(|db| run::refuse(db, run, failure)).map(drop))
}

/// Pause of a connector after a failure. If the vendor asks for a longer one, that one counts.
fn pause(failure: &Failure, failures: u32) -> Duration {
    let doubled =
        |first: Duration, longest| first.saturating_mul(1 << failures.min(16)).min(longest);
    let base = match (failure.code, failure.code.class()) {
        (Code::Locked, _) => doubled(FIRST_LOCKED, LONGEST_LOCKED),
        (_, Class::Mend) => PROBE,
        (_, Class::Transient) => doubled(FIRST_BACKOFF, LONGEST_BACKOFF),
    };
    // Between 0.8 and 1.2 of it, so that connectors that failed together do not come back together.
    let [byte, ..] = *Uuid::new_v4().as_bytes();
    let jittered = base.mul_f64(0.8 + 0.4 * f64::from(byte) / 255.0);
    jittered.max(failure.retry_after.unwrap_or_default())
}
