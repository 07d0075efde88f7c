//! The worker's turn: claim, hand out, collect, store.
//!
//! Each step is one short transaction, and none is open while a request is in flight. Due work is found by
//! looking at the tables with the database's clock; wake-ups only shorten the wait.

mod claim;
mod end;
mod login;
mod settle;
mod store;

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_service_core::error::{Code, Failure};
use connector_service_core::fetch::Engine;
use pgrx::prelude::*;
use uuid::Uuid;

use self::settle::Unsettled;
use crate::board::Errand;
use crate::error::{Error, Result};
use crate::guc::{self, Scheduler};
use crate::store::connector::Due;
use crate::store::installation::{self, Installation, Tenants};
use crate::store::page::Slow;
use crate::store::run::Claimed;
use crate::store::{backfill, connector, fact, lock, metric, run, tx};
use crate::wait::Waiter;
use crate::{board, signals};

/// Longest time between two looks at the tables. Longer: what no signal told is found later. Shorter: an idle
/// database does more work.
const LOOK_AT_LEAST: Duration = Duration::from_secs(60);

/// Longest time between the end of a run and a look. Longer: what the end of a run made due begins later. Shorter: where
/// many runs end, more of the worker's time goes into looking.
const AFTER_END: Duration = Duration::from_millis(100);

/// Shortest time between two looks that others wake it for. Longer: a sync that is queued begins later. Shorter: who commits
/// often has the worker do nothing else.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Pause after a look that failed, for instance because the extension was being dropped at that moment.
const AFTER_TROUBLE: Duration = Duration::from_secs(1);

/// Connectors that one look queues. More: the first of them begin later. Fewer: more looks.
const QUEUED_AT_ONCE: i64 = 500;

/// Days that nobody finished are summed at the latest after this: a run that takes hours shows its numbers. The upkeep process
/// looks for what only looking finds as often as it is asked at all, an hour apart.
const SETTLE_AT_LEAST: Duration = Duration::from_secs(60);
const UPKEEP_AT_LEAST: Duration = Duration::from_secs(60 * 60);

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
    unwritten: Vec<(Uuid, std::result::Result<(), Failure>)>,
    /// Tenants whose facts are derived by the upkeep process for a while.
    slow: Slow,
    /// Facts of some records were left to the upkeep process.
    is_left: bool,
    /// Days were summed since the upkeep process was told.
    metrics_changed: bool,
    unsettled: Unsettled,
    /// When the upkeep process was last asked for what is there to do.
    asked_at: Option<Instant>,
    /// The last reason for which nothing is fetched, said once.
    said: Option<String>,
    /// What the last look found of tenants; `None`: nothing is to be fetched.
    tenants: Option<Tenants>,
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
        slow: Slow::new(),
        is_left: false,
        metrics_changed: false,
        unsettled: Unsettled::default(),
        asked_at: None,
        said: None,
        tenants: None,
    };
    let mut look_at = Instant::now();
    let mut looked_at: Option<Instant> = None;
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
            match turn.look() {
                Ok(_) if turn.is_surplus() => return,
                Ok(wait) => look_at = Instant::now() + wait,
                Err(Error::NotInstalled) => return,
                Err(error) => {
                    warning!("connector_service could not look for work: {error}");
                    look_at = Instant::now() + AFTER_TROUBLE;
                }
            }
            looked_at = Some(Instant::now());
        }
        // Also when there is more to store: a sync that is queued meanwhile must not wait for its end.
        let next = turn.unsettled.look_at.map_or(look_at, |at| at.min(look_at));
        let wait = next.saturating_duration_since(Instant::now());
        let wait = wait.min(turn.next_try_to_keep());
        if waiter.sleep(if stored.any { Duration::ZERO } else { wait }) {
            let soonest = looked_at.map_or_else(Instant::now, |at| at + BETWEEN_LOOKS);
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
        let failure = Failure::new(
            Code::WorkerRestarted,
            "the worker ended while the run was going",
        );
        let mut count = 0;
        for worker in tx(|db| run::workers_of_others(db, self.token))? {
            let is_mine = worker == self.number;
            if is_mine || self.number == 1 {
                count += tx(|db| match is_mine || lock::is_worker_gone(worker) {
                    false => Ok(0),
                    true => run::requeue_orphans(db, worker, self.token, &failure, MOST_ATTEMPTS),
                })?;
            }
        }
        if count > 0 {
            log!("connector_service takes {count} interrupted runs up again");
        }
        Ok(())
    }

    /// Looks at the tables: what is due, what was cancelled, what can be claimed. Returns how long there will
    /// be nothing to look for.
    fn look(&mut self) -> Result<Duration> {
        let wait = self.look_and_claim();
        self.show_activity();
        wait
    }

    fn look_and_claim(&mut self) -> Result<Duration> {
        self.tenants = None;
        let installation = tx(installation::look)?;
        if let Some(reason) = reason_to_idle(&installation) {
            if self.said.as_ref() != Some(&reason) {
                warning!("connector_service syncs nothing in this database: {reason}");
                self.said = Some(reason);
            }
            return Ok(LOOK_AT_LEAST);
        }
        self.said = None;
        // Without a connector there is nothing to do, unless a dump is being restored whose connectors are still to
        // come: then nothing must be done.
        if !installation.has_connectors {
            return Ok(LOOK_AT_LEAST);
        }
        self.tenants = Some(installation.has_tenants);
        for (run, result) in std::mem::take(&mut self.unwritten) {
            self.finish(run, result);
        }
        self.drop_lost()?;
        self.take_over()?;
        let now = Instant::now();
        self.slow.retain(|_, until| *until > now);
        if std::mem::take(&mut self.metrics_changed) {
            self.ask_upkeep(Errand::Refresh);
        }
        if self.number > 1 {
            self.claim(installation.has_tenants)?;
            return Ok(LOOK_AT_LEAST);
        }
        self.ask_for_rest()?;
        let due = match guc::scheduler() {
            Scheduler::Worker => Due::All,
            Scheduler::Auto if !installation.has_pg_cron => Due::All,
            Scheduler::Auto | Scheduler::PgCron => Due::FailedOnly,
        };
        let asked_by = if due == Due::All { "schedule" } else { "retry" };
        let (waited, found, next_due) = tx(|db| {
            let waited = run::end_waits(db)? + backfill::release_all(db)?;
            let found = connector::queue_due(db, due, asked_by, Some(QUEUED_AT_ONCE))?;
            Ok((waited, found, connector::next_due(db, due)?))
        })?;
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
        Ok(match self.unwritten.is_empty() {
            true => next,
            false => next.min(AFTER_TROUBLE),
        })
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
        let text = match self.going.len() {
            1 => "1 sync is going".to_owned(),
            count => format!("{count} syncs are going"),
        };
        if let Ok(text) = CString::new(text) {
            // SAFETY: the text is copied.
            unsafe {
                pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, text.as_ptr())
            };
        }
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
        let lost = tx(|db| {
            run::end_paused(db, runs.clone(), self.token)?;
            run::lost(db, runs, self.token)
        })?;
        for run in lost {
            self.forget(run);
        }
        Ok(())
    }

    fn forget(&mut self, run: Uuid) {
        self.engine.abort(run);
        self.going.remove(&run);
    }

    /// Has the upkeep process do what is left: facts of records that wait for them, days that were touched. Runs that are
    /// going sum their days when they end.
    fn ask_for_rest(&mut self) -> Result<()> {
        let since = self.asked_at.map(|at| at.elapsed());
        let is_long_ago = |longest| since.is_none_or(|since| since >= longest);
        let settles = self.going.is_empty() || is_long_ago(SETTLE_AT_LEAST);
        if is_long_ago(UPKEEP_AT_LEAST)
            || tx(fact::is_any_waiting)?
            || settles && tx(metric::is_any_touched)?
        {
            self.asked_at = Some(Instant::now());
            self.ask_upkeep(Errand::Derive);
        }
        Ok(())
    }
}

fn reason_to_idle(installation: &Installation) -> Option<String> {
    let library = env!("CARGO_PKG_VERSION");
    if installation.version != library {
        return Some(format!(
            "the library is version {library} and the installed SQL is version {}; ALTER EXTENSION connector_service UPDATE brings them together",
            installation.version
        ));
    }
    installation
        .held
        .as_ref()
        .map(|why| format!("{why}; SELECT connector_service_adopt() lets it call the vendors"))
}
