//! The loop of a sync worker: claim runs, hand them out, collect pages, store them.
//!
//! Each step is one short transaction, and none is open while a request is in flight. Due work is found by polling the tables
//! with the database's clock; wake-ups only shorten the wait.

mod claim;
mod end;
mod login;
mod poll;
mod settle;
mod skipped;
mod store;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_service_core::fetch::{Engine, Outcome};
use pgrx::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use self::claim::Queue;
use self::settle::Unsettled;
use self::skipped::Skipped;
use crate::error::{Error, counted};
use crate::guc;
use crate::store::installation::Tenants;
use crate::store::page::Slow;
use crate::store::run::Claimed;
use crate::store::schedule::Covered;
use crate::wait::Waiter;
use crate::{activity, signals, trouble};

const COULD_NOT_LOOK: &str = "could not look for work";
const COULD_NOT_QUEUE: &str = "could not queue a due sync";
/// Longest time between two polls of the tables. Longer: work without a wake-up is found later. Shorter: an idle database does
/// more work.
const POLL_AT_LEAST: Duration = Duration::from_secs(60);

/// Longest time between the end of a run and a poll. Longer: work that follows the end of a run starts later. Shorter: if many
/// runs end, the worker spends more time polling.
const AFTER_END: Duration = Duration::from_millis(100);

/// Shortest time between two polls after wake-ups. Longer: a queued sync starts later. Shorter: with many commits the worker does
/// nothing but poll.
const BETWEEN_POLLS: Duration = Duration::from_millis(20);

/// Longest such pause. If polls are slow, the pause is half the time of the last one, but no longer than this. Longer: a sync
/// starts later on a slow server. Shorter: polling takes more of the worker's time there.
const LONGEST_BETWEEN_POLLS: Duration = Duration::from_millis(250);

/// Pause after a failed poll, for instance while the extension is being dropped.
const AFTER_TROUBLE: Duration = Duration::from_secs(1);

/// Longest such pause: each time it is a second longer. Longer: the worker notices later that the cause is gone. Shorter: more
/// useless polls.
const LONGEST_TROUBLE: Duration = Duration::from_secs(10);

/// After this many failed polls in a row, work for all connectors is done one by one, whatever the error is: a trigger can raise
/// the error of a full disk. More: one connector's failure stops all others for longer. Fewer: with a full disk more useless
/// work.
const FAILED_POLLS: u32 = 3;

/// A run of this worker that is running.
struct Running {
    claimed: Claimed,
    /// Whether to search for records of a stream's first page that are stored already; see [`crate::store::raw`].
    search: bool,
    /// The same for the next page of each stream.
    searches: HashMap<String, bool>,
    /// The streams that it reads, as they stand before its first page.
    plan: Value,
    /// How it ended, while it waits for its metrics.
    outcome: Option<Outcome>,
}

impl Running {
    fn new(claimed: Claimed, search: bool) -> Running {
        Running {
            claimed,
            search,
            searches: HashMap::new(),
            plan: json!({}),
            outcome: None,
        }
    }
}

struct SyncWorker {
    engine: Engine,
    /// The fencing token of this process.
    token: Uuid,
    /// The number of this worker in the database, from 1. The first one also does work that is needed once for a database.
    number: i32,
    /// The search for the next tenant begins here, after the tenant that had the last turn.
    next_tenant: Uuid,
    running: HashMap<Uuid, Running>,
    /// Refresh tokens that are still to be stored.
    pending_tokens: Vec<login::PendingToken>,
    /// The connectors that this worker published as in use.
    in_use: HashSet<Uuid>,
    /// Ends of runs that could not be recorded yet, for instance because the disk was full.
    unwritten: Vec<end::Ended>,
    /// Polls that failed in a row.
    failed: u32,
    /// Connectors of which a run can neither be started nor ended.
    skipped: Skipped,
    /// Connectors for which no sync can be queued.
    not_queued: Skipped,
    /// The run that was to be claimed last, and its connector, when runs are claimed one by one.
    tried: Option<(Uuid, Uuid)>,
    /// Tenants whose facts the upkeep process derives for a while.
    slow: Slow,
    /// Tenants whose days the upkeep process sums for a while.
    heavy: Slow,
    /// Whether facts of some records were left to the upkeep process.
    is_left: bool,
    /// Whether days were summed since the upkeep process was last told so.
    metrics_changed: bool,
    unsettled: Unsettled,
    /// When the upkeep process was last asked to look for work.
    asked_at: Option<Instant>,
    /// The tenants that the last poll found. `None`: nothing may be fetched.
    tenants: Option<Tenants>,
    queue: Queue,
    /// When this worker last searched for runs of workers that ended.
    took_over_at: Option<Instant>,
    /// What pg_cron queues, and when its jobs were read.
    covered: Option<(Covered, Instant)>,
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
    let mut worker = SyncWorker {
        engine,
        token: Uuid::new_v4(),
        number,
        next_tenant: Uuid::nil(),
        running: HashMap::new(),
        pending_tokens: Vec::new(),
        in_use: HashSet::new(),
        unwritten: Vec::new(),
        failed: 0,
        skipped: Skipped::default(),
        not_queued: Skipped::default(),
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
        covered: None,
    };
    let _doing = activity::doing("looking for work");
    let mut poll_at = Instant::now();
    let mut polled_at: Option<Instant> = None;
    let mut between = BETWEEN_POLLS;
    loop {
        signals::answer();
        if signals::is_leaving() {
            worker.leave(&mut waiter);
        }
        worker.store_tokens(login::LONGEST_TRY);
        let stored = worker.collect();
        worker.publish_connectors_in_use();
        if worker.end_settled() | worker.is_any_login_over() | stored.freed {
            poll_at = poll_at.min(Instant::now() + worker.claim_next());
        }
        if Instant::now() >= poll_at {
            let began = Instant::now();
            match worker.poll() {
                Ok(_) if worker.is_surplus() => return,
                Ok(wait) => {
                    trouble::succeeded(COULD_NOT_LOOK);
                    worker.failed = 0;
                    poll_at = Instant::now() + wait;
                }
                Err(Error::NotInstalled) => return,
                Err(error) => {
                    trouble::failed(COULD_NOT_LOOK, &error);
                    worker.failed = worker.failed.saturating_add(1);
                    let pause = AFTER_TROUBLE.saturating_mul(worker.failed);
                    poll_at = Instant::now() + pause.min(LONGEST_TROUBLE);
                }
            }
            polled_at = Some(Instant::now());
            between = (began.elapsed() / 2).clamp(BETWEEN_POLLS, LONGEST_BETWEEN_POLLS);
        }
        // Also if there is more to store: a sync that is queued meanwhile must not wait for that.
        let next = worker
            .unsettled
            .look_at
            .map_or(poll_at, |at| at.min(poll_at));
        let wait = next.saturating_duration_since(Instant::now());
        let wait = wait.min(worker.next_token_try());
        if waiter.sleep(if stored.any { Duration::ZERO } else { wait }) {
            let soonest = polled_at.map_or_else(Instant::now, |at| at + between);
            poll_at = poll_at.min(soonest);
        }
    }
}

/// What one call of [`Turn::collect`] did.
struct Collected {
    any: bool,
    /// A run ended, so another may start.
    freed: bool,
}

impl SyncWorker {
    /// Claims queued runs at once after a run ended. Returns how long until the next poll: none if this failed, because the poll
    /// finds and logs the reason.
    fn claim_next(&mut self) -> Duration {
        let claimed = self.tenants.map_or(Ok(()), |tenants| self.claim(tenants));
        self.show_activity();
        claimed.map_or(Duration::ZERO, |()| AFTER_END)
    }

    /// Updates what pg_stat_activity shows of this worker.
    fn show_activity(&self) {
        let syncs = counted(self.running.len() as u64, "sync");
        activity::idle(format!("{syncs} running"));
    }

    /// Whether there are more workers than there should be, and this one has nothing left to do.
    fn is_surplus(&self) -> bool {
        let is_idle = self.running.is_empty() && self.engine.logins().is_empty();
        self.number > guc::sync_workers() && is_idle
    }

    fn keeps_failing(&self) -> bool {
        self.failed >= FAILED_POLLS
    }

    /// Whether work that failed for all connectors is to be tried one by one.
    fn is_refusal(&self, error: &Error) -> bool {
        error.is_refusal() || self.keeps_failing() && matches!(error, Error::Sql { .. })
    }

    fn forget(&mut self, run: Uuid) {
        self.engine.abort(run);
        self.running.remove(&run);
    }
}
