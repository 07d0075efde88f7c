//! The worker's turn: claim, hand out, collect, store.
//!
//! Each step is one short transaction, and none is open while a request is in flight. Due work is found by
//! looking at the tables with the database's clock; wake-ups only shorten the wait.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_service_core::error::{Class, Code, Failure};
use connector_service_core::fetch::{
    Engine, Event, FetchedPage, Job, Purpose, Rest, Rotation, Waiting, What,
};
use connector_service_core::secret::{
    Cover, Credentials, Keyring, Place, SealError, open_credentials,
};
use connector_service_core::source::Definition;
use pgrx::prelude::*;
use serde_json::Value;
use uuid::Uuid;

use super::look;
use super::upkeep::Upkeep;
use crate::error::{Error, Result};
use crate::guc::{self, Scheduler};
use crate::store::connector::Due;
use crate::store::installation::{self, Installation, Tenants};
use crate::store::run::{Claimed, Kind};
use crate::store::{Db, backfill, budget, connector, fact, key, page, run, state, tx, upload};
use crate::wait::Waiter;
use crate::{board, fault, signals};

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

/// Pause while somebody else has the lock of facts: nothing tells when it is free.
const WHILE_BLOCKED: Duration = Duration::from_millis(200);

/// Pages of one transaction. More: a longer transaction, and more to do again if one of them fails.
const PAGES_AT_ONCE: usize = 8;
/// Records of one transaction, beyond which no further page is added to it.
const RECORDS_AT_ONCE: usize = 4_000;

/// A run that ended this many workers is not taken up again by itself at once.
const MOST_ATTEMPTS: i32 = 20;

/// How often a page whose transaction met a deadlock, a lock time-out or the like is tried again.
const STORE_TRIES: u32 = 5;

/// Records of one step of catching up, and days of one step of summing. More: the worker answers later. Fewer:
/// more transactions.
const PROCESS_AT_ONCE: u64 = 2_000;

/// How often a file, or a window of a backfill, that could not be stored is tried again by itself.
const TRIES: u32 = 8;

/// Pause before a failed connector is tried again: doubled with every failure, with jitter.
const FIRST_BACKOFF: Duration = Duration::from_secs(30);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60 * 60);
/// Pause before a connector that a person must mend is probed.
const PROBE: Duration = Duration::from_secs(6 * 60 * 60);

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
    /// Ends of runs that could not be written down yet (the disk was full, say).
    unwritten: Vec<(Uuid, std::result::Result<(), Failure>)>,
    /// Records wait for their facts.
    behind: bool,
    upkeep: Upkeep,
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
    let engine = match Engine::start(Arc::new(move || waker.wake())) {
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
        unwritten: Vec::new(),
        behind: false,
        upkeep: Upkeep::new(),
        said: None,
        tenants: None,
    };
    let mut look_at = Instant::now();
    let mut looked_at: Option<Instant> = None;
    loop {
        signals::answer();
        let stored = turn.collect();
        if stored.freed {
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
        let more = stored.any || turn.catch_up();
        if std::mem::take(&mut turn.upkeep.blocked) {
            look_at = look_at.min(Instant::now() + WHILE_BLOCKED);
        }
        // Also when there is more to store: a sync that is queued meanwhile must not wait for its end.
        let wait = look_at.saturating_duration_since(Instant::now());
        if waiter.sleep(if more { Duration::ZERO } else { wait }) {
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
                count += tx(
                    |db| match is_mine || installation::is_worker_gone(db, worker)? {
                        false => Ok(0),
                        true => {
                            run::requeue_orphans(db, worker, self.token, &failure, MOST_ATTEMPTS)
                        }
                    },
                )?;
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
        self.behind |= tx(fact::is_any_unprocessed)?;
        if self.number > 1 {
            self.claim(installation.has_tenants)?;
            return Ok(LOOK_AT_LEAST.min(self.upkeep.refresh_soon(!self.going.is_empty())));
        }
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
        // After the claim: what was queued is being fetched meanwhile.
        let upkeep = self.upkeep.run(!self.going.is_empty());
        // Rounded up: a look just before the time finds nothing.
        let next = [next_due, tx(run::next_waiting)?]
            .into_iter()
            .flatten()
            .map(|wait| wait + Duration::from_millis(2))
            .fold(upkeep, Duration::min);
        Ok(next.min(if self.unwritten.is_empty() {
            LOOK_AT_LEAST
        } else {
            AFTER_TROUBLE
        }))
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
        self.number > guc::sync_workers() && self.going.is_empty()
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

    /// Which of the workers that there are this is, from 0, and how many there are.
    fn place(&self) -> (u128, u128) {
        // SAFETY: fixed for the life of a process.
        let mut workers = board::workers(unsafe { pg_sys::MyDatabaseId });
        workers.retain(|(number, _)| *number <= guc::sync_workers());
        let place = workers
            .iter()
            .position(|(number, _)| *number == self.number);
        (place.unwrap_or(0) as u128, workers.len().max(1) as u128)
    }

    /// Takes up runs as far as there is room: one of each tenant in turn, so that who has many waits for his own.
    fn take_up(&mut self, db: &mut Db, tenants: Tenants) -> Result<Vec<Claimed>> {
        let most = guc::max_concurrent_syncs();
        let room = most.saturating_sub(self.going.len());
        let most_of_tenant = guc::max_syncs_per_tenant().unwrap_or(match tenants {
            Tenants::One => most,
            Tenants::Several => most.div_ceil(2),
        });
        let most_slow = guc::max_backfills();
        // All accounts of a tenant are in one worker's hands, so that their pace and their limits hold.
        let (place, workers) = self.place();
        let is_mine = |tenant: Uuid| tenant.as_u128() % workers == place;
        let mut of_tenant: HashMap<Uuid, usize> = HashMap::new();
        let mut of_kind: HashMap<Kind, usize> = HashMap::new();
        for Going { claimed, .. } in self.going.values() {
            *of_tenant.entry(claimed.tenant).or_default() += 1;
            *of_kind.entry(claimed.kind).or_default() += 1;
        }
        let mut taken = Vec::new();
        // One round without a run to be taken up is the end.
        let (mut began_at, mut is_around) = (self.next_tenant, false);
        while taken.len() < room {
            let tenant = match run::next_tenant(db, self.next_tenant)? {
                Some(tenant) if !is_around || tenant < began_at => tenant,
                None if !is_around => {
                    (self.next_tenant, is_around) = (Uuid::nil(), true);
                    continue;
                }
                _ => break,
            };
            match tenant.as_u128().checked_add(1) {
                Some(next) => self.next_tenant = Uuid::from_u128(next),
                None if !is_around => (self.next_tenant, is_around) = (Uuid::nil(), true),
                None => break,
            }
            let of_tenant = of_tenant.entry(tenant).or_default();
            if !is_mine(tenant) || *of_tenant >= most_of_tenant {
                continue;
            }
            let has_room = |kind: &Kind| of_kind.get(kind).is_none_or(|going| *going < most_slow);
            let slow = [Kind::Backfill, Kind::Upload].into_iter().filter(has_room);
            let kinds: Vec<Kind> = [Kind::Sync, Kind::Check, Kind::Preview]
                .into_iter()
                .chain(slow)
                .collect();
            if let Some(claimed) =
                run::claim(db, tenant, self.token, (self.number, workers == 1), &kinds)?
            {
                *of_tenant += 1;
                *of_kind.entry(claimed.kind).or_default() += 1;
                taken.push(claimed);
                (began_at, is_around) = (self.next_tenant, false);
            }
        }
        Ok(taken)
    }

    /// Takes queued runs as far as there is room, and hands them out once that has committed.
    fn claim(&mut self, tenants: Tenants) -> Result<()> {
        let is_full = self.going.len() >= guc::max_concurrent_syncs();
        let is_leaving = self.number > guc::sync_workers();
        if is_full || is_leaving || tx(run::is_queue_empty)? {
            return Ok(());
        }
        let (claimed, mut states, mut uploads, keys, rests) = tx(|db| {
            let claimed = self.take_up(db, tenants)?;
            let syncs = claimed.iter().filter(|c| c.kind != Kind::Backfill);
            let mut states = state::read(db, syncs.map(|c| c.connector).collect())?;
            for backfill in claimed.iter().filter(|c| c.kind == Kind::Backfill) {
                states.insert(backfill.connector, backfill::progress(db, backfill.run)?);
            }
            // Without its key a run fails, and says so; the others of the worker go on.
            let keys = key::load(db).unwrap_or_default().map(Arc::new);
            let rests = budget::rests(db, claimed.iter().map(|c| c.tenant).collect())?;
            let uploads = upload::of_runs(db, claimed.iter().map(|c| c.run).collect())?;
            Ok((claimed, states, uploads, keys, rests))
        })?;
        fault::point("after_claim");
        let allowed = guc::allowed_private_hosts();
        for claimed in claimed {
            let states = states.remove(&claimed.connector).unwrap_or_default();
            let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
            // A file may be known; what it holds may be.
            let may_be_known = uploads.contains_key(&claimed.run) || claimed.span.is_some();
            let search = !states.is_empty() || may_be_known;
            let run = claimed.run;
            let credentials = match open(keys.as_deref(), &claimed) {
                Ok(credentials) => credentials,
                Err(failure) => {
                    self.going.insert(run, Going { claimed, search });
                    self.finish(run, Err(failure));
                    continue;
                }
            };
            let cover = keys.clone().filter(|_| !credentials.fields().is_empty());
            let cover = cover.map(|keys| Cover {
                keys,
                place: place(&claimed),
            });
            self.engine.submit(Job {
                run,
                tenant: claimed.tenant,
                purpose: match claimed.kind {
                    Kind::Sync | Kind::Backfill | Kind::Upload | Kind::Webhook => Purpose::Sync,
                    Kind::Check | Kind::Preview => Purpose::Look,
                },
                rests: rests.get(&claimed.tenant).cloned().unwrap_or_default(),
                source: claimed.source.clone(),
                definition: Definition {
                    config: json(&claimed.config),
                    credentials,
                    limits: guc::record_limits(),
                },
                cover,
                states,
                span: claimed.span,
                upload: uploads.remove(&run),
                now: claimed.now,
                default_from: claimed.now - FIRST_SYNC_READS,
                limits: guc::limits(),
                allowed: allowed.clone(),
            });
            self.going.insert(run, Going { claimed, search });
        }
        Ok(())
    }

    /// Stores what the tasks have fetched, as far as it is there.
    fn collect(&mut self) -> Collected {
        let mut collected = Collected {
            any: false,
            freed: false,
        };
        let mut pages = Vec::new();
        let mut records = 0;
        let mut ended = None;
        while pages.len() < PAGES_AT_ONCE && records < RECORDS_AT_ONCE {
            let Some(Event { run, what }) = self.engine.try_next() else {
                break;
            };
            collected.any = true;
            match what {
                What::Page(page) => {
                    fault::point("after_fetch");
                    records += page.records.len();
                    pages.push((run, *page));
                }
                What::Rotated(rotation) => self.keep(run, *rotation),
                What::Part(wanted) => {
                    let part = tx(|db| upload::part(db, run, wanted.number));
                    let part = part.unwrap_or_else(|error| {
                        warning!("connector_service could not read a part of a file: {error}");
                        None
                    });
                    // Nobody waits where the run was ended meanwhile.
                    let _ = wanted.reply.send(part.map(Into::into));
                }
                What::Waiting(waiting) => self.show_waiting(run, *waiting),
                What::Warning(warning) => {
                    let token = self.token;
                    said(tx(|db| run::warn(db, run, token, &warning)));
                }
                What::Looked(looked) => {
                    if let Some(going) = self.going.get(&run) {
                        let found = look::report(&going.claimed, *looked);
                        let token = self.token;
                        said(tx(|db| run::report(db, run, token, found)));
                    }
                }
                What::Finished(result) => {
                    ended = Some((run, result));
                    break;
                }
            }
        }
        if !pages.is_empty() {
            self.store(pages);
            fault::point("after_commit");
        }
        if let Some((run, result)) = ended {
            fault::point("before_finish");
            self.finish(run, result);
            collected.freed = true;
        }
        collected
    }

    /// One step of writing the facts of records that wait for them; true: there may be more.
    fn catch_up(&mut self) -> bool {
        if !self.behind {
            return false;
        }
        self.behind = match tx(|db| fact::process(db, PROCESS_AT_ONCE)) {
            Ok(Some(taken)) => {
                self.upkeep.metrics_changed();
                taken >= PROCESS_AT_ONCE
            }
            Ok(None) => {
                self.upkeep.blocked = true;
                false
            }
            Err(error) => {
                warning!("connector_service could not derive the facts of stored records: {error}");
                false
            }
        };
        self.behind
    }

    /// Stores pages, together if that works, else one by one, so that one page's trouble stays its own.
    fn store(&mut self, mut pages: Vec<(Uuid, FetchedPage)>) {
        if pages.len() > 1 && self.store_together(&mut pages).is_ok() {
            return;
        }
        for (run, page) in pages {
            if let Err(error) = self.store_alone(run, page) {
                if matches!(error, Error::Fenced(_)) {
                    self.forget(run);
                    continue;
                }
                warning!("connector_service could not store a page: {error}");
                let message = format!(
                    "the page could not be stored (SQLSTATE {})",
                    error.sqlstate()
                );
                self.engine.abort(run);
                self.finish(run, Err(Failure::new(Code::StoreFailed, message)));
            }
        }
    }

    fn store_together(&mut self, pages: &mut [(Uuid, FetchedPage)]) -> Result<()> {
        let token = self.token;
        let going = &mut self.going;
        tx(|db| {
            page::commit_without_waiting(db)?;
            let mut underived = page::begin(db)?;
            for (run, page) in pages.iter() {
                // A page of a run that was forgotten meanwhile.
                let Some(going) = going.get_mut(run) else {
                    continue;
                };
                let claimed = &going.claimed;
                page::store(db, claimed, token, page, &mut going.search, &mut underived)?;
            }
            page::derive(db, underived)
        })
    }

    fn store_alone(&mut self, run: Uuid, mut page: FetchedPage) -> Result<()> {
        let Some(going) = self.going.get_mut(&run) else {
            return Ok(());
        };
        let mut tries = 0;
        loop {
            let token = self.token;
            let stored = tx(|db| {
                page::commit_without_waiting(db)?;
                let mut underived = page::begin(db)?;
                let claimed = &going.claimed;
                page::store(db, claimed, token, &page, &mut going.search, &mut underived)?;
                page::derive(db, underived)
            });
            match stored {
                Err(error) if error.is_duplicate() && tries < STORE_TRIES => {
                    going.search = true;
                    tries += 1;
                }
                Err(error) if error.is_momentary() && tries < STORE_TRIES => tries += 1,
                Err(error)
                    if error.is_about_data() && page::reject_refused(&going.claimed, &mut page) => {
                }
                other => return other,
            }
            signals::answer();
        }
    }

    /// Shows what a run waits for, and keeps what the vendor said of its account.
    fn show_waiting(&self, run: Uuid, waiting: Waiting) {
        let Some(going) = self.going.get(&run) else {
            return;
        };
        let (tenant, token) = (going.claimed.tenant, self.token);
        let Waiting { wait, why, account } = waiting;
        said(tx(|db| match account {
            Some((account, used)) => {
                if wait.is_zero() {
                    // How much is used is said with every page.
                    page::commit_without_waiting(db)?;
                }
                budget::note(db, tenant, &Rest { account, wait, why }, used)
            }
            None => run::show_waiting(db, run, token, wait, &why),
        }));
    }

    /// Stores a refresh token that a vendor replaced, and tells the run that it is.
    fn keep(&mut self, run: Uuid, rotation: Rotation) {
        let Some(going) = self.going.get(&run) else {
            return;
        };
        let (claimed, token) = (&going.claimed, self.token);
        let place = place(claimed);
        let mut tries = 0;
        let kept = loop {
            let kept = tx(|db| connector::keep(db, claimed, token, &place, &rotation.rotated));
            match kept {
                Err(error) if error.is_momentary() && tries < STORE_TRIES => tries += 1,
                kept => break kept,
            }
            signals::answer();
        };
        fault::point("after_keep");
        let kept = kept.map_err(|error| {
            warning!("connector_service could not store a refresh token: {error}");
            let message = format!(
                "the new refresh token could not be stored (SQLSTATE {})",
                error.sqlstate()
            );
            Failure::new(Code::StoreFailed, message)
        });
        // Nobody waits where the run was ended meanwhile.
        let _ = rotation.stored.send(kept);
    }

    /// Writes down how a run ended, and when its connector is due again.
    fn finish(&mut self, run: Uuid, result: std::result::Result<(), Failure>) {
        let Some(going) = self.going.get(&run) else {
            return;
        };
        let connector = going.claimed.connector;
        let token = self.token;
        // Before the run is said to have ended: whoever waits for it reads its metrics next.
        self.upkeep.settle();
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
            // What the vendor wants is a pause, and no failure.
            Err(failure)
                if failure.code == Code::RateLimited && {
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

/// What could not be written down is no reason to end anything.
fn said(written: Result<()>) {
    if let Err(error) = written {
        warning!("connector_service could not write down how a run goes: {error}");
    }
}

/// What a run's secrets are sealed to.
fn place(claimed: &Claimed) -> Place {
    Place {
        tenant: claimed.tenant,
        connector: claimed.connector,
    }
}

/// The credentials of a run, opened.
fn open(keys: Option<&Keyring>, claimed: &Claimed) -> std::result::Result<Credentials, Failure> {
    let sealed: Value = serde_json::from_str(&claimed.credentials).unwrap_or_default();
    if sealed.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(Credentials::default());
    }
    let Some(keys) = keys else {
        let message = "the key file is missing, or not the one that credentials are sealed with";
        return Err(Failure::new(Code::KeyMissing, message));
    };
    open_credentials(keys, &place(claimed), &sealed).map_err(|error| {
        let code = match error {
            SealError::KeyMissing { .. } => Code::KeyMissing,
            _ => Code::CredentialsNotOpened,
        };
        Failure::new(code, error.to_string())
    })
}

/// How far back a first sync reads when the connector's config does not say.
const FIRST_SYNC_READS: chrono::TimeDelta = chrono::TimeDelta::days(30);

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

/// How long a connector rests after a failure. The vendor's own wish counts where it is longer.
fn pause(failure: &Failure, failures: u32) -> Duration {
    let base = match failure.code.class() {
        Class::Mend => PROBE,
        Class::Transient => FIRST_BACKOFF
            .saturating_mul(1 << failures.min(16))
            .min(LONGEST_BACKOFF),
    };
    // Between 0.8 and 1.2 of it: connectors that failed together do not come back together.
    let [byte, ..] = *Uuid::new_v4().as_bytes();
    let jittered = base.mul_f64(0.8 + 0.4 * f64::from(byte) / 255.0);
    jittered.max(failure.retry_after.unwrap_or_default())
}
