//! Records how a run ended, and what follows from it.

use std::time::{Duration, Instant};

use connector_service_core::error::{Code, Failure};
use connector_service_core::fetch::{Asked, End, Outcome, Retry, StreamEnd};
use connector_service_core::source::RunSettings;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{AFTER_TROUBLE, POLL_AT_LEAST, SyncWorker};
use crate::error::{Error, Result};
use crate::store::connector::Working;
use crate::store::run::{Claimed, Kind};
use crate::store::storable::storable;
use crate::store::{Db, backfill, connector, run, trace, tx, upload};
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
    outcome: Outcome,
    /// The streams of the run, as they stood before its first page.
    plan: Value,
    requests: Vec<Asked>,
    tries: u32,
    /// When to try again.
    at: Instant,
}

impl SyncWorker {
    /// Records the end of a run, or tries again later.
    pub(super) fn finish(&mut self, run: Uuid, outcome: Outcome) {
        let Some(running) = self.running.get_mut(&run) else {
            return;
        };
        // Before the run ends: a client that waits for it reads its metrics next.
        let (tenant, connector) = (running.claimed.tenant, running.claimed.connector);
        let is_ok = outcome.result.is_ok();
        running.outcome = Some(outcome.clone());
        if is_ok && let Some(longest) = self.settle(tenant, connector) {
            self.wait_for_metrics(run, longest);
            return;
        }
        self.end_now(run, outcome);
    }

    /// Records the end of a run whose metrics are ready, or that does not wait for them.
    pub(super) fn end_now(&mut self, run: Uuid, outcome: Outcome) {
        let Some(running) = self.running.remove(&run) else {
            return;
        };
        fault::point("after_settle");
        let requests = requests(&running.claimed, &outcome);
        self.end(Ended {
            claimed: running.claimed,
            outcome,
            plan: running.plan,
            requests,
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
        let mut written = self.write_end(&ended, &ended.outcome);
        match &written {
            Ok(()) | Err(Error::Fenced(_)) => trouble::succeeded_for(COULD_NOT_END, connector),
            // For instance a user's trigger refuses the write. The run then ends as failed, with that reason.
            Err(error) if error.is_refusal() || ended.tries >= PATIENCE => {
                trouble::failed_for(COULD_NOT_END, connector, error);
                written = self.write_refused(&ended, error);
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
    fn write_refused(&self, ended: &Ended, refused: &Error) -> Result<()> {
        let (claimed, result) = (&ended.claimed, &ended.outcome.result);
        let words = format!(
            "the end of the run could not be recorded: {}",
            refused.one_line()
        );
        let failure = match result {
            Ok(()) => Failure::new(Code::StoreFailed, words),
            Err(failure) => Failure::new(failure.code, format!("{}; {words}", failure.message)),
        };
        if result.is_ok() {
            let outcome = Outcome {
                streams: ended.outcome.streams.clone(),
                ..Err(failure.clone()).into()
            };
            let written = self.write_end(ended, &outcome);
            if matches!(written, Ok(()) | Err(Error::Fenced(_))) {
                return written;
            }
        }
        // The connector keeps its next slot.
        let wait = Some(pause(&failure, Retry::of(&failure), 0));
        let streams = ended.streams(&ended.outcome, false);
        tx(|db| run::fail(db, claimed.run, self.token, &failure, wait, &streams))
    }

    /// Records how a run ended, and when its connector is due again.
    fn write_end(&self, ended: &Ended, outcome: &Outcome) -> Result<()> {
        tx(|db| {
            self.write_state(db, ended, outcome)?;
            trace::write(db, &ended.claimed, &ended.requests)
        })
    }

    fn write_state(&self, db: &mut Db, ended: &Ended, outcome: &Outcome) -> Result<()> {
        let Claimed {
            run,
            connector,
            kind,
            ..
        } = ended.claimed;
        let token = self.token;
        let streams = &ended.streams(outcome, false);
        let failure = match &outcome.result {
            Ok(()) => {
                run::succeed(db, run, token, streams)?;
                return succeeded(db, run, connector, kind);
            }
            Err(failure) => failure,
        };
        // A rate limit of the vendor, or a lock of another session, is a pause and not a failure.
        if outcome.retry == Retry::Pause {
            let wait = pause(failure, Retry::Pause, run::waits(db, run)?);
            let waiting = ended.streams(outcome, true);
            if run::postpone(db, run, token, failure, wait, &waiting)? {
                return Ok(());
            }
        }
        // No later run repeats an upload or a backfill window, as the next sync does.
        if matches!(kind, Kind::Upload | Kind::Backfill) {
            let tries = run::failures(db, run)?;
            let wait = pause(failure, outcome.retry, tries);
            let may = matches!(outcome.retry, Retry::Backoff | Retry::Pause) && tries < TRIES;
            let waiting = ended.streams(outcome, true);
            if may && run::postpone(db, run, token, failure, wait, &waiting)? {
                return Ok(());
            }
        }
        let message = format!("{}. {}", failure.message, failure.code.hint());
        if kind != Kind::Sync {
            run::fail(db, run, token, failure, None, streams)?;
        }
        match kind {
            Kind::Upload => connector::uploaded(db, connector, run, Some(&message)),
            // What fails in every stream fails in the next window, too.
            Kind::Backfill if outcome.retry == Retry::Mend => {
                backfill::cancel_rest(db, connector, &failure.message)
            }
            Kind::Backfill => backfill::release(db, connector),
            Kind::Check | Kind::Preview | Kind::Webhook => upload::forget(db, run),
            Kind::Sync => {
                let (working, wait) = next_try(db, connector, outcome, failure)?;
                let shown = match wait {
                    None => connector::until_slot(db, connector)?,
                    wait => wait,
                };
                run::fail(db, run, token, failure, shown, streams)?;
                connector::failed(db, connector, &message, working, wait)
            }
        }
    }
}

impl Ended {
    /// How the streams of the run ended. `is_going_on`: the run is not over.
    fn streams(&self, outcome: &Outcome, is_going_on: bool) -> run::Streams {
        run::Streams {
            plan: self.plan.clone(),
            ends: of_streams(&outcome.streams, is_going_on),
        }
    }
}

/// Longest message of a stream in `sync_runs.streams`, in characters; that of the run has more.
const LONGEST_MESSAGE: usize = 500;

/// What each stream's end changes in its entry of `sync_runs.streams`.
pub(super) fn of_streams(streams: &[StreamEnd], is_going_on: bool) -> Value {
    let error = |failure: &Failure| {
        let message: String = failure.message.chars().take(LONGEST_MESSAGE).collect();
        json!({"code": failure.code.word(), "message": message})
    };
    let ends = streams.iter().map(|ended| {
        let (state, error) = match &ended.end {
            End::Read => ("ok", Value::Null),
            End::Absent => ("absent", Value::Null),
            End::Failed(failure) if is_going_on => ("waiting", error(failure)),
            End::Failed(failure) => ("failed", error(failure)),
            End::Skipped(failure) if is_going_on => ("waiting", error(failure)),
            End::Skipped(failure) => ("skipped", error(failure)),
            End::Waiting if is_going_on => ("waiting", Value::Null),
            End::Waiting => ("skipped", Value::Null),
        };
        let name = storable(&ended.stream).into_owned();
        (name, json!({"state": state, "error": error}))
    });
    Value::Object(ends.collect())
}

/// The requests of a run that are kept: of every run where config says so, else only of one that failed.
fn requests(claimed: &Claimed, outcome: &Outcome) -> Vec<Asked> {
    let is_asked_for = || {
        let config = serde_json::from_str(&claimed.config).unwrap_or_default();
        RunSettings::read(&config).is_ok_and(|settings| settings.trace)
    };
    let has_failed = outcome.result.is_err() && outcome.retry != Retry::Pause;
    match &outcome.trace {
        Some(trace) if has_failed || is_asked_for() => trace.take(),
        _ => Vec::new(),
    }
}

fn succeeded(db: &mut Db, run: Uuid, connector: Uuid, kind: Kind) -> Result<()> {
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

/// What a failed sync makes of its connector, and how long until the next one; `None`: at its next slot. Where some streams
/// work, they are read at every slot, whatever the others do.
fn next_try(
    db: &mut Db,
    connector: Uuid,
    outcome: &Outcome,
    failure: &Failure,
) -> Result<(Working, Option<Duration>)> {
    if outcome.retry == Retry::Slot {
        return Ok((Working::InPart, None));
    }
    let wait = pause(failure, outcome.retry, connector::failures(db, connector)?);
    Ok(match (outcome.is_partial, outcome.retry) {
        (true, _) => {
            let slot = connector::until_slot(db, connector)?;
            let wait = Some(wait).filter(|wait| slot.is_none_or(|slot| *wait < slot));
            (Working::InPart, wait)
        }
        (false, Retry::Mend) => (Working::NotUntilMended, Some(wait)),
        (false, _) => (Working::No, Some(wait)),
    })
}

/// Fails a run that cannot start. If the changes to its connector are refused, they are left out.
pub(super) fn refuse(run: Uuid, connector: Uuid, failure: &Failure) -> Result<()> {
    let written = tx(|db| {
        if run::refuse(db, run, failure)? {
            let wait = pause(failure, Retry::Backoff, connector::failures(db, connector)?);
            let message = format!("{}. {}", failure.message, failure.code.hint());
            connector::failed(db, connector, &message, Working::No, Some(wait))?;
        }
        Ok(())
    });
    written.or_else(|_| tx(|db| run::refuse(db, run, failure)).map(drop))
}

/// Pause of a connector after a failure. If the vendor asks for a longer one, that one counts.
fn pause(failure: &Failure, retry: Retry, failures: u32) -> Duration {
    let doubled =
        |first: Duration, longest| first.saturating_mul(1 << failures.min(16)).min(longest);
    let base = match (failure.code, retry) {
        (Code::Locked, _) => doubled(FIRST_LOCKED, LONGEST_LOCKED),
        (_, Retry::Mend) => PROBE,
        _ => doubled(FIRST_BACKOFF, LONGEST_BACKOFF),
    };
    // Between 0.8 and 1.2 of it, so that connectors that failed together do not come back together.
    let [byte, ..] = *Uuid::new_v4().as_bytes();
    let jittered = base.mul_f64(0.8 + 0.4 * f64::from(byte) / 255.0);
    jittered.max(failure.retry_after.unwrap_or_default())
}
