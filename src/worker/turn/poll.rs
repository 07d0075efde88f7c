//! A poll: what the tables say is to be done, by the database's clock.

use std::time::{Duration, Instant};

use connector_service_core::error::{Code, Failure};
use pgrx::prelude::*;
use uuid::Uuid;

use super::{COULD_NOT_QUEUE, POLL_AT_LEAST, SyncWorker};
use crate::board::Errand;
use crate::error::{Result, counted};
use crate::guc::{self, Scheduler};
use crate::store::connector::{Due, Found, Which};
use crate::store::installation::{self, Installation};
use crate::store::schedule::{self, Covered};
use crate::store::{
    Db, backfill, connector, count, delete, fact, lock, metric, run, tx, tx_as_superuser,
};
use crate::{activity, board, signals, trouble};

const SYNCS_NOTHING: &str = "syncs nothing";
const COULD_NOT_READ_JOBS: &str = "could not read the jobs of pg_cron";
const COULD_NOT_TAKE_OVER: &str = "could not resume an interrupted run";
const COULD_NOT_END_PAUSED: &str = "could not end the run of a paused connector";
const COULD_NOT_GO_ON: &str = "could not resume a waiting run";

/// Shortest time between two searches for runs of workers that ended, while this one has runs. Longer: they continue later.
/// Shorter: every poll reads all running runs.
const BETWEEN_TAKING_OVER: Duration = Duration::from_secs(1);

/// How long the jobs of pg_cron are believed to be the same. Longer: a job that was made or removed is noticed later. Shorter: polls
/// that follow each other read them each time.
const BETWEEN_JOBS: Duration = Duration::from_millis(250);

/// Connectors that one poll queues. More: the first of them start later. Fewer: more polls.
const QUEUED_AT_ONCE: i64 = 500;

/// Longest time until the days of a long run are summed: a run of hours shows its numbers meanwhile.
const SETTLE_AT_LEAST: Duration = Duration::from_secs(60);

/// A run during which this many workers ended is not started again.
const MOST_ATTEMPTS: i32 = 20;

impl SyncWorker {
    /// Polls the tables: what is due, what was cancelled, what can be claimed. Returns how long until the next poll.
    pub(super) fn poll(&mut self) -> Result<Duration> {
        let wait = self.poll_and_claim();
        self.show_activity();
        let next = [self.skipped.next(), self.not_queued.next()];
        Ok(next.into_iter().flatten().fold(wait?, Duration::min))
    }

    fn poll_and_claim(&mut self) -> Result<Duration> {
        self.tenants = None;
        let installation = match tx(installation::read) {
            Err(error) if error.is_refusal() => {
                let displaced = tx_as_superuser(installation::displaced)?;
                let reason = displaced.ok_or(error)?;
                let words = format!(
                    "{reason}; connector_service_doctor() has the statement that corrects it"
                );
                trouble::note(SYNCS_NOTHING, Some(&words));
                return Ok(POLL_AT_LEAST);
            }
            installation => installation?,
        };
        if let Some(reason) = reason_to_idle(&installation) {
            trouble::note(SYNCS_NOTHING, Some(&reason));
            return Ok(POLL_AT_LEAST);
        }
        trouble::note(SYNCS_NOTHING, None);
        // Without a connector there is nothing to do. If a dump is being restored whose connectors are still to come, nothing
        // may be done.
        if !installation.has_connectors {
            return Ok(POLL_AT_LEAST);
        }
        self.tenants = Some(installation.has_tenants);
        let end_again = self.end_again();
        self.drop_lost()?;
        if self.running.is_empty()
            || self
                .took_over_at
                .is_none_or(|at| at.elapsed() >= BETWEEN_TAKING_OVER)
        {
            self.take_over()?;
            self.took_over_at = Some(Instant::now());
        }
        let now = Instant::now();
        self.slow.retain(|_, until| *until > now);
        self.heavy.retain(|_, until| *until > now);
        if std::mem::take(&mut self.metrics_changed) {
            self.ask_upkeep(Errand::Refresh);
        }
        if self.number > 1 {
            self.claim(installation.has_tenants)?;
            return Ok(end_again.min(POLL_AT_LEAST));
        }
        self.ask_upkeep_for_work()?;
        let due = match guc::scheduler() {
            Scheduler::Auto if installation.has_pg_cron => Due::AllBut(self.covered_by_cron()),
            Scheduler::Auto | Scheduler::Worker => Due::All,
            Scheduler::PgCron => Due::AllBut(Covered::ALL),
        };
        let (waited, found) = self.queue(due, "schedule")?;
        let next_due = tx(|db| connector::next_due(db, due))?;
        if waited > 0 || !found.queued.is_empty() {
            // SAFETY: fixed for the life of a process.
            board::wake(unsafe { pg_sys::MyDatabaseId });
        }
        self.claim(installation.has_tenants)?;
        if found.due > 0 {
            // There may be more of them.
            return Ok(Duration::ZERO);
        }
        // Rounded up: a poll just before the time would find nothing.
        let next = [next_due, tx(run::next_waiting)?]
            .into_iter()
            .flatten()
            .map(|wait| wait + Duration::from_millis(2))
            .fold(POLL_AT_LEAST, Duration::min);
        Ok(next.min(end_again))
    }

    /// The frequencies that pg_cron has jobs for.
    fn covered_by_cron(&mut self) -> Covered {
        if self
            .covered
            .is_none_or(|(_, at)| at.elapsed() >= BETWEEN_JOBS)
        {
            let covered = match tx_as_superuser(schedule::covered) {
                Ok(covered) => {
                    trouble::succeeded(COULD_NOT_READ_JOBS);
                    covered
                }
                // No sync runs twice if there are jobs, and none would run at all if there are none.
                Err(error) => {
                    trouble::failed(COULD_NOT_READ_JOBS, &error);
                    Covered::NONE
                }
            };
            self.covered = Some((covered, Instant::now()));
        }
        self.covered.map_or(Covered::NONE, |(covered, _)| covered)
    }

    /// Gives the runs of ended workers back to the queue: those of earlier processes of this worker, and, if this is the first
    /// worker, those of workers that no longer run.
    fn take_over(&self) -> Result<()> {
        let failure = Failure::new(Code::WorkerRestarted, "the worker ended during the run");
        let again = |db: &mut Db, worker, only| {
            run::requeue_orphans(db, worker, self.token, &failure, MOST_ATTEMPTS, only)
        };
        let mut count = 0;
        let workers = tx(|db| run::workers_of_others(db, self.token))?;
        if workers.is_empty() {
            trouble::succeeded_for_all(COULD_NOT_TAKE_OVER);
        }
        for worker in workers {
            let is_mine = worker == self.number;
            if is_mine || self.number == 1 {
                let taken = tx(|db| match is_mine || lock::is_worker_gone(worker) {
                    false => Ok(0),
                    true => again(db, worker, None),
                });
                count += match taken {
                    Err(error) if self.is_refusal(&error) => one_by_one(
                        self.keeps_failing(),
                        COULD_NOT_TAKE_OVER,
                        tx(|db| run::orphans(db, worker, self.token))?,
                        |run| {
                            tx(|db| match is_mine || lock::is_worker_gone(worker) {
                                false => Ok(0),
                                true => again(db, worker, Some(run)),
                            })
                        },
                    )?,
                    Ok(taken) => {
                        trouble::succeeded_for_all(COULD_NOT_TAKE_OVER);
                        taken
                    }
                    Err(error) => return Err(error),
                };
            }
        }
        if count > 0 {
            log!(
                "connector_service resumes {}",
                counted(count, "interrupted run")
            );
        }
        Ok(())
    }

    /// Queues due connectors, and lets waiting runs start. If that is refused, it is done one by one, so that the failure of one
    /// connector affects no other.
    fn queue(&mut self, due: Due, asked_by: &str) -> Result<(u64, Found)> {
        let _doing = activity::doing("queueing due syncs");
        let skipped = self.not_queued.now();
        let queued = tx(|db| {
            let waited = run::end_waits(db, None)? + backfill::release_all(db)?;
            let which = Which::AllBut(&skipped);
            let most = Some(QUEUED_AT_ONCE);
            Ok((
                waited,
                connector::queue_due(db, due, asked_by, most, which)?,
            ))
        });
        match queued {
            Err(error) if self.is_refusal(&error) => {}
            Ok(queued) => {
                trouble::succeeded_for_all(COULD_NOT_GO_ON);
                if skipped.is_empty() {
                    trouble::succeeded_for_all(COULD_NOT_QUEUE);
                }
                return Ok(queued);
            }
            Err(error) => return Err(error),
        }
        let mut waited = one_by_one(
            self.keeps_failing(),
            COULD_NOT_GO_ON,
            tx(run::waited)?,
            |run| tx(|db| run::end_waits(db, Some(run))),
        )?;
        let backfilled = tx(backfill::connectors)?;
        let backfilled = backfilled
            .into_iter()
            .map(|connector| (connector, connector));
        waited += one_by_one(
            self.keeps_failing(),
            COULD_NOT_GO_ON,
            backfilled.collect(),
            |connector| tx(|db| backfill::release(db, connector)).map(|()| 0),
        )?;
        let mut found = Found::default();
        for connector in tx(|db| connector::due(db, due, QUEUED_AT_ONCE, &skipped))? {
            let which = Which::One(connector);
            match tx(|db| connector::queue_due(db, due, asked_by, None, which)) {
                Ok(more) => {
                    found.due += more.due;
                    found.queued.extend(more.queued);
                    self.not_queued.take_back(connector);
                    trouble::succeeded_for(COULD_NOT_QUEUE, connector);
                }
                Err(error) if self.is_refusal(&error) => {
                    self.not_queued.put(connector);
                    trouble::failed_for(COULD_NOT_QUEUE, connector, &error);
                }
                Err(error) => return Err(error),
            }
            signals::answer();
        }
        Ok((waited, found))
    }

    /// Ends the fetching of runs that were cancelled or whose connector is gone.
    fn drop_lost(&mut self) -> Result<()> {
        if self.running.is_empty() {
            return Ok(());
        }
        let runs: Vec<Uuid> = self.running.keys().copied().collect();
        let all = tx(|db| run::end_paused(db, runs.clone(), self.token));
        match all {
            Err(error) if self.is_refusal(&error) => {
                let runs = self.running.iter();
                let runs = runs.map(|(run, running)| (*run, running.claimed.connector));
                one_by_one(
                    self.keeps_failing(),
                    COULD_NOT_END_PAUSED,
                    runs.collect(),
                    |run| tx(|db| run::end_paused(db, vec![run], self.token)).map(|()| 0),
                )?;
            }
            Ok(()) => trouble::succeeded_for_all(COULD_NOT_END_PAUSED),
            Err(error) => return Err(error),
        }
        let lost = tx(|db| run::lost(db, runs, self.token))?;
        for run in lost {
            self.forget(run);
        }
        Ok(())
    }

    /// Asks the upkeep process to do what is left: facts of waiting records, and changed days. Running runs sum their days when
    /// they end. The upkeep process runs as long as there are connectors.
    fn ask_upkeep_for_work(&mut self) -> Result<()> {
        let is_long_ago = self
            .asked_at
            .is_none_or(|at| at.elapsed() >= SETTLE_AT_LEAST);
        let settles = self.running.is_empty() || is_long_ago;
        // SAFETY: fixed for the life of a process.
        let is_there = board::has_upkeep(unsafe { pg_sys::MyDatabaseId });
        if !is_there
            || tx(fact::is_any_waiting)?
            || settles && tx(metric::is_any_touched)?
            || tx(count::is_any_urgent)?
            || tx(delete::is_any)?
        {
            self.asked_at = Some(Instant::now());
            self.ask_upkeep(Errand::Derive);
        }
        Ok(())
    }
}

/// Does for each run what was refused for all runs together. A refusal is logged, and the other runs continue. Returns the sum.
fn one_by_one(
    keeps_failing: bool,
    what: &'static str,
    runs: Vec<(Uuid, Uuid)>,
    mut work: impl FnMut(Uuid) -> Result<u64>,
) -> Result<u64> {
    let mut sum = 0;
    for (run, connector) in runs {
        match work(run) {
            Ok(count) => {
                sum += count;
                trouble::succeeded_for(what, connector);
            }
            Err(error) if keeps_failing || error.is_refusal() => {
                trouble::failed_for(what, connector, &error)
            }
            Err(error) => return Err(error),
        }
        signals::answer();
    }
    Ok(sum)
}

fn reason_to_idle(installation: &Installation) -> Option<String> {
    let library = env!("CARGO_PKG_VERSION");
    if installation.version != library {
        return Some(format!(
            "the library is version {library} and the installed SQL is version {}; run ALTER EXTENSION connector_service UPDATE",
            installation.version
        ));
    }
    if let Some(schema) = &installation.moved_from {
        return Some(format!(
            "the schema {schema} of the extension was renamed; connector_service_doctor() has the statement that corrects it"
        ));
    }
    installation
        .held
        .as_ref()
        .map(|why| format!("{why}; to sync from this database: SELECT connector_service_adopt()"))
}
