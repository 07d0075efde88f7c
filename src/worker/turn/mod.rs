//! The worker's turn: claim, hand out, collect, store.
//!
//! Each step is one short transaction, and none is open while a request is in flight. Due work is found by
//! looking at the tables with the database's clock; wake-ups only shorten the wait.

mod aside;
mod claim;
mod end;
mod login;
mod settle;
mod store;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_service_core::error::{Code, Failure};
use connector_service_core::fetch::Engine;
use pgrx::prelude::*;
use uuid::Uuid;

use self::aside::Aside;
use self::claim::Queue;
use self::settle::Unsettled;
use crate::board::Errand;
use crate::error::{Error, Result, counted};
use crate::guc::{self, Scheduler};
use crate::store::connector::{Due, Found, Which};
use crate::store::installation::{self, Installation, Tenants};
use crate::store::page::Slow;
use crate::store::run::Claimed;
use crate::store::{Db, backfill, connector, fact, lock, metric, run, tx};
use crate::wait::Waiter;
use crate::{activity, board, signals, trouble};

const SYNCS_NOTHING: &str = "syncs nothing";
const COULD_NOT_LOOK: &str = "could not look for work";
const COULD_NOT_TAKE_OVER: &str = "could not resume an interrupted run";
const COULD_NOT_END_PAUSED: &str = "could not end the run of a paused connector";
const COULD_NOT_QUEUE: &str = "could not queue a due sync";
const COULD_NOT_GO_ON: &str = "could not resume a waiting run";

/// Longest time between two looks at the tables. Longer: what no signal told is found later. Shorter: an idle
/// database does more work.
const LOOK_AT_LEAST: Duration = Duration::from_secs(60);

/// Longest time between the end of a run and a look. Longer: what the end of a run made due begins later. Shorter: where
/// many runs end, more of the worker's time goes into looking.
const AFTER_END: Duration = Duration::from_millis(100);

/// Shortest time between two looks that others wake it for. Longer: a sync that is queued begins later. Shorter: who commits
/// often has the worker do nothing else.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// The same where looks are slow: twice what the last one took, and no longer than this. Longer: a sync begins later on a
/// server where a look takes long. Shorter: looking takes more of the worker's time there.
const LONGEST_BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// Shortest time between two looks for runs of workers that ended, while this one has runs. Longer: they go on later.
/// Shorter: every look reads all that run.
const BETWEEN_TAKING_OVER: Duration = Duration::from_secs(1);

/// Pause after a look that failed, for instance because the extension was being dropped at that moment.
const AFTER_TROUBLE: Duration = Duration::from_secs(1);

/// The longest such pause: each time it is a second longer. Longer: what was mended is noticed later. Shorter: more work for
/// nothing.
const LONGEST_TROUBLE: Duration = Duration::from_secs(10);

/// Looks that fail, one behind the other, before what is done for all is done for each by itself, whatever the reason: a
/// trigger can raise what a full disk does. More: one connector's trouble stops all for longer. Fewer: on a full disk more
/// work for nothing.
const STUBBORN: u32 = 3;

/// Connectors that one look queues. More: the first of them begin later. Fewer: more looks.
const QUEUED_AT_ONCE: i64 = 500;

/// Days that nobody finished are summed at the latest after this: a run that takes hours shows its numbers.
const SETTLE_AT_LEAST: Duration = Duration::from_secs(60);

/// A run that ended this many workers is not taken up again by itself at once.
const MOST_ATTEMPTS: i32 = 20;

/// A run of ours that is going.
struct Going {
    claimed: Claimed,
    /// Whether to look for records of the next page that are stored already; see [`crate::store::raw`].
    search: bool,
}

struct Turn {
    engine: Engine,
    /// Fencing token of this worker's life.
    token: Uuid,
    /// Which of the database's workers this is, from 1. The first one does what is there once for a database.
    number: i32,
    /// Where to look for the next tenant: behind the one that had its turn last.
    next_tenant: Uuid,
    going: HashMap<Uuid, Going>,
    /// Refresh tokens that are to be stored.
    unkept: Vec<login::Unkept>,
    /// The connectors that others were shown to be in this worker's hand.
    hands: HashSet<Uuid>,
    /// Ends of runs that could not be written down yet (the disk was full, say).
    unwritten: Vec<end::Ended>,
    /// Looks that failed, one behind the other.
    failed: u32,
    /// Connectors of which no run can be taken up, nor ended.
    aside: Aside,
    /// Connectors for which none can be queued.
    unqueued: Aside,
    /// The run, and its connector, that was to be taken up last, where they are taken up one by one.
    tried: Option<(Uuid, Uuid)>,
    /// Tenants whose facts are derived by the upkeep process for a while.
    slow: Slow,
    /// Tenants whose days are summed by it for a while.
    heavy: Slow,
    /// Facts of some records were left to the upkeep process.
    is_left: bool,
    /// Days were summed since the upkeep process was told.
    metrics_changed: bool,
    unsettled: Unsettled,
    /// When the upkeep process was last asked for what is there to do.
    asked_at: Option<Instant>,
    /// What the last look found of tenants; `None`: nothing is to be fetched.
    tenants: Option<Tenants>,
    queue: Queue,
    /// When this worker last looked for runs of workers that ended.
    took_over_at: Option<Instant>,
}

pub fn run(number: i32) {
    let mut waiter = match Waiter::new() {
        Ok(waiter) => waiter,
        Err(error) => error!("connector_service sync worker cannot make its wake-up pipe: {error}"),
    };
    let waker = waiter.waker();
    let engine = match Engine::start(Arc::new(move || waker.wake()), &signals::LOGINS) {
        Ok(engine) => engine,
        Err(error) => {
            error!("connector_service sync worker cannot start its network threads: {error}")
        }
    };
    let mut turn = Turn {
        engine,
        token: Uuid::new_v4(),
        number,
        next_tenant: Uuid::nil(),
        going: HashMap::new(),
        unkept: Vec::new(),
        hands: HashSet::new(),
        unwritten: Vec::new(),
        failed: 0,
        aside: Aside::default(),
        unqueued: Aside::default(),
        tried: None,
        slow: Slow::new(),
        heavy: Slow::new(),
        is_left: false,
        metrics_changed: false,
        unsettled: Unsettled::default(),
        asked_at: None,
        tenants: None,
        queue: Queue::default(),
        took_over_at: None,
    };
    let _doing = activity::doing("looking for work");
    let mut look_at = Instant::now();
    let mut looked_at: Option<Instant> = None;
    let mut between = BETWEEN_LOOKS;
    loop {
        signals::answer();
        if signals::is_leaving() {
            turn.leave(&mut waiter);
        }
        turn.keep_tokens(login::LONGEST_TRY);
        let stored = turn.collect();
        turn.show_hands();
        if turn.end_settled() | turn.is_any_login_over() | stored.freed {
            look_at = look_at.min(Instant::now() + turn.refill());
        }
        if Instant::now() >= look_at {
            let began = Instant::now();
            match turn.look() {
                Ok(_) if turn.is_surplus() => return,
                Ok(wait) => {
                    trouble::over(COULD_NOT_LOOK);
                    turn.failed = 0;
                    look_at = Instant::now() + wait;
                }
                Err(Error::NotInstalled) => return,
                Err(error) => {
                    trouble::trouble(COULD_NOT_LOOK, &error);
                    turn.failed = turn.failed.saturating_add(1);
                    let pause = AFTER_TROUBLE.saturating_mul(turn.failed);
                    look_at = Instant::now() + pause.min(LONGEST_TROUBLE);
                }
            }
            looked_at = Some(Instant::now());
            between = (began.elapsed() * 2).clamp(BETWEEN_LOOKS, LONGEST_BETWEEN_LOOKS);
        }
        // Also when there is more to store: a sync that is queued meanwhile must not wait for its end.
        let next = turn.unsettled.look_at.map_or(look_at, |at| at.min(look_at));
        let wait = next.saturating_duration_since(Instant::now());
        let wait = wait.min(turn.next_try_to_keep());
        if waiter.sleep(if stored.any { Duration::ZERO } else { wait }) {
            let soonest = looked_at.map_or_else(Instant::now, |at| at + between);
            look_at = look_at.min(soonest);
        }
    }
}

/// What one call of [`Turn::collect`] did.
struct Collected {
    any: bool,
    /// A run ended, so another may begin.
    freed: bool,
}

impl Turn {
    /// Gives the runs of dead workers back to the queue: of earlier lives of this one, and, as the first worker, of
    /// those that there are no longer.
    fn take_over(&self) -> Result<()> {
        let failure = Failure::new(Code::WorkerRestarted, "the worker ended during the run");
        let again = |db: &mut Db, worker, only| {
            run::requeue_orphans(db, worker, self.token, &failure, MOST_ATTEMPTS, only)
        };
        let mut count = 0;
        let workers = tx(|db| run::workers_of_others(db, self.token))?;
        if workers.is_empty() {
            trouble::over_of_all(COULD_NOT_TAKE_OVER);
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
                        self.is_stubborn(),
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
                        trouble::over_of_all(COULD_NOT_TAKE_OVER);
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

    /// Looks at the tables: what is due, what was cancelled, what can be claimed. Returns how long there will
    /// be nothing to look for.
    fn look(&mut self) -> Result<Duration> {
        let wait = self.look_and_claim();
        self.show_activity();
        let next = [self.aside.next(), self.unqueued.next()];
        Ok(next.into_iter().flatten().fold(wait?, Duration::min))
    }

    fn look_and_claim(&mut self) -> Result<Duration> {
        self.tenants = None;
        let installation = tx(installation::look)?;
        if let Some(reason) = reason_to_idle(&installation) {
            trouble::note(SYNCS_NOTHING, Some(&reason));
            return Ok(LOOK_AT_LEAST);
        }
        trouble::note(SYNCS_NOTHING, None);
        // Without a connector there is nothing to do, unless a dump is being restored whose connectors are still to
        // come: then nothing must be done.
        if !installation.has_connectors {
            return Ok(LOOK_AT_LEAST);
        }
        self.tenants = Some(installation.has_tenants);
        let end_again = self.end_again();
        self.drop_lost()?;
        if self.going.is_empty()
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
            return Ok(end_again.min(LOOK_AT_LEAST));
        }
        self.ask_for_rest()?;
        let due = match guc::scheduler() {
            Scheduler::Worker => Due::All,
            Scheduler::Auto if !installation.has_pg_cron => Due::All,
            Scheduler::Auto | Scheduler::PgCron => Due::FailedOnly,
        };
        let asked_by = if due == Due::All { "schedule" } else { "retry" };
        let (waited, found) = self.queue(due, asked_by)?;
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
        // Rounded up: a look just before the time finds nothing.
        let next = [next_due, tx(run::next_waiting)?]
            .into_iter()
            .flatten()
            .map(|wait| wait + Duration::from_millis(2))
            .fold(LOOK_AT_LEAST, Duration::min);
        Ok(next.min(end_again))
    }

    /// Queues what is due, and lets go on what has waited. Where that is refused, each by itself, so that one connector's
    /// trouble stays its own.
    fn queue(&mut self, due: Due, asked_by: &str) -> Result<(u64, Found)> {
        let _doing = activity::doing("queueing due syncs");
        let aside = self.unqueued.now();
        let queued = tx(|db| {
            let waited = run::end_waits(db, None)? + backfill::release_all(db)?;
            let which = Which::AllBut(&aside);
            let most = Some(QUEUED_AT_ONCE);
            Ok((
                waited,
                connector::queue_due(db, due, asked_by, most, which)?,
            ))
        });
        match queued {
            Err(error) if self.is_refusal(&error) => {}
            Ok(queued) => {
                trouble::over_of_all(COULD_NOT_GO_ON);
                if aside.is_empty() {
                    trouble::over_of_all(COULD_NOT_QUEUE);
                }
                return Ok(queued);
            }
            Err(error) => return Err(error),
        }
        let mut waited = one_by_one(
            self.is_stubborn(),
            COULD_NOT_GO_ON,
            tx(run::waited)?,
            |run| tx(|db| run::end_waits(db, Some(run))),
        )?;
        let backfilled = tx(backfill::connectors)?;
        let backfilled = backfilled
            .into_iter()
            .map(|connector| (connector, connector));
        waited += one_by_one(
            self.is_stubborn(),
            COULD_NOT_GO_ON,
            backfilled.collect(),
            |connector| tx(|db| backfill::release(db, connector)).map(|()| 0),
        )?;
        let mut found = Found::default();
        for connector in tx(|db| connector::due(db, due, QUEUED_AT_ONCE, &aside))? {
            let which = Which::One(connector);
            match tx(|db| connector::queue_due(db, due, asked_by, None, which)) {
                Ok(more) => {
                    found.due += more.due;
                    found.queued.extend(more.queued);
                    self.unqueued.take_back(connector);
                    trouble::over_of(COULD_NOT_QUEUE, connector);
                }
                Err(error) if self.is_refusal(&error) => {
                    self.unqueued.put(connector);
                    trouble::trouble_of(COULD_NOT_QUEUE, connector, &error);
                }
                Err(error) => return Err(error),
            }
            signals::answer();
        }
        Ok((waited, found))
    }

    /// A run ended: what waits in the queue takes its place at once. Returns how long a look at everything else has time:
    /// none where this failed, because a look finds out why and says it.
    fn refill(&mut self) -> Duration {
        let claimed = self.tenants.map_or(Ok(()), |tenants| self.claim(tenants));
        self.show_activity();
        claimed.map_or(Duration::ZERO, |()| AFTER_END)
    }

    /// What pg_stat_activity shows of this worker.
    fn show_activity(&self) {
        let syncs = counted(self.going.len() as u64, "sync");
        activity::idle(format!("{syncs} running"));
    }

    /// Whether there are more workers than there should be, and this one has nothing left to do.
    fn is_surplus(&self) -> bool {
        let is_idle = self.going.is_empty() && self.engine.logins().is_empty();
        self.number > guc::sync_workers() && is_idle
    }

    /// Ends the fetching of runs that were cancelled or whose connector is gone.
    fn drop_lost(&mut self) -> Result<()> {
        if self.going.is_empty() {
            return Ok(());
        }
        let runs: Vec<Uuid> = self.going.keys().copied().collect();
        let all = tx(|db| run::end_paused(db, runs.clone(), self.token));
        match all {
            Err(error) if self.is_refusal(&error) => {
                let runs = self.going.iter();
                let runs = runs.map(|(run, going)| (*run, going.claimed.connector));
                one_by_one(
                    self.is_stubborn(),
                    COULD_NOT_END_PAUSED,
                    runs.collect(),
                    |run| tx(|db| run::end_paused(db, vec![run], self.token)).map(|()| 0),
                )?;
            }
            Ok(()) => trouble::over_of_all(COULD_NOT_END_PAUSED),
            Err(error) => return Err(error),
        }
        let lost = tx(|db| run::lost(db, runs, self.token))?;
        for run in lost {
            self.forget(run);
        }
        Ok(())
    }

    fn is_stubborn(&self) -> bool {
        self.failed >= STUBBORN
    }

    /// Whether what was tried for all is to be tried for each by itself.
    fn is_refusal(&self, error: &Error) -> bool {
        error.is_refusal() || self.is_stubborn() && matches!(error, Error::Sql { .. })
    }

    fn forget(&mut self, run: Uuid) {
        self.engine.abort(run);
        self.going.remove(&run);
    }

    /// Has the upkeep process, which is there as long as there are connectors, do what is left: facts of records that wait for them, days that were touched. Runs that are
    /// going sum their days when they end.
    fn ask_for_rest(&mut self) -> Result<()> {
        let is_long_ago = self
            .asked_at
            .is_none_or(|at| at.elapsed() >= SETTLE_AT_LEAST);
        let settles = self.going.is_empty() || is_long_ago;
        // SAFETY: fixed for the life of a process.
        let is_there = board::has_upkeep(unsafe { pg_sys::MyDatabaseId });
        if !is_there || tx(fact::is_any_waiting)? || settles && tx(metric::is_any_touched)? {
            self.asked_at = Some(Instant::now());
            self.ask_upkeep(Errand::Derive);
        }
        Ok(())
    }
}

/// Does with each run, and its connector, what was refused for all of them together: what one is refused is told, and the
/// others go on. Returns the sum.
fn one_by_one(
    is_stubborn: bool,
    what: &'static str,
    runs: Vec<(Uuid, Uuid)>,
    mut work: impl FnMut(Uuid) -> Result<u64>,
) -> Result<u64> {
    let mut sum = 0;
    for (run, connector) in runs {
        match work(run) {
            Ok(count) => {
                sum += count;
                trouble::over_of(what, connector);
            }
            Err(error) if is_stubborn || error.is_refusal() => {
                trouble::trouble_of(what, connector, &error)
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
    installation
        .held
        .as_ref()
        .map(|why| format!("{why}; to sync from this database: SELECT connector_service_adopt()"))
}
