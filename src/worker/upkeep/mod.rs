//! The upkeep process does the work after the pages that may take long. Each database has one, which is started when a sync
//! worker asks for it.
//!
//! It derives the facts of records that were left (mappings that may be slow, large records, records that were changed by hand
//! or pushed), sums changed days, runs the hourly checks, refreshes the monthly aggregate, and deletes old rows. How much of
//! this there is depends on the tenants. So each unit of work has a limit in time and in memory, tenants take turns, and no
//! page waits for it. A record that alone exceeds the limits goes to the quarantine with that reason.

mod count;
mod removal;
mod step;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use pgrx::prelude::*;
use uuid::Uuid;

use self::count::{Compared, compare_some};
use self::removal::Removal;
use self::step::{MEMORY, Step, check_some, derive_some, settle_some};
use super::memory::Limit;
use crate::board::{self, Errand};
use crate::error::{Error, Result};
use crate::store::count::{self as counting, Due};
use crate::store::{self, Db, bounded, fact, installation, metric, retention, run, tx};
use crate::wait::Waiter;
use crate::{activity, guc, process, signals, trouble};

/// What pg_stat_activity shows as backend_type.
pub const NAME: &str = "connector_service upkeep";

/// Records of one step. More: more work is repeated if one of them takes too long. Fewer: more transactions.
const RECORDS_AT_ONCE: i64 = 1_000;

/// Time of one tenant before the next tenant's turn. Longer: other tenants wait longer. Shorter: more switching.
const TURN: Duration = Duration::from_secs(2);

/// Days that one step sums.
const DAYS_AT_ONCE: i32 = 200;

/// Tenants that one step checks.
const TENANTS_AT_ONCE: i64 = 50;

/// Longest time for the monthly aggregate, and for one step of deleting what is old.
const REFRESHED_WITHIN: Duration = Duration::from_secs(10 * 60);
const TIDIED_WITHIN: Duration = Duration::from_secs(60);

/// Time between two checks of data quality.
const CHECK_EVERY: Duration = Duration::from_secs(60 * 60);
/// Time between two searches for old rows.
const TIDY_EVERY: Duration = Duration::from_secs(60 * 60);
/// Shortest time between two refreshes of the monthly aggregate.
const REFRESH_AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// Work pauses for this many times as long as it took, so that it uses a few percent of one processor.
const REST: u32 = 20;

/// Shortest time between two comparisons of a tenant's connectors. Longer: an edited record is compared later. Shorter: while
/// records come, the same is compared again and again.
const COMPARE_AT_MOST_EVERY: Duration = Duration::from_secs(5);
/// The same, as a multiple of the time that a comparison takes.
const COMPARE_REST: u32 = 100;
/// The same where nothing was there to compare, and a second source may come at any time.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_secs(2);
/// Connectors are not compared while their records are being stored, for this long.
const COMPARE_WHILE_BUSY: Duration = Duration::from_secs(60);
/// Days of the first comparison. Fewer follow where it exceeds its limits.
const COMPARED_DAYS: i32 = 90;

/// Longest pause after something failed.
const AFTER_TROUBLE: Duration = Duration::from_secs(60);
/// First pause before a tenant is tried again after a session held its lock or a statement failed. Nothing signals the end of
/// either, so the pause doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const WHILE_LOCKED: Duration = Duration::from_secs(5);

/// Time between two polls of tenants whose records are being stored. The end of a run also wakes this process.
const BUSY_POLL: Duration = Duration::from_secs(1);

/// Longest time between two polls.
const POLL_AT_LEAST: Duration = Duration::from_secs(60);

/// How long this process stays without a connector. Shorter: metrics that people enter start it more often.
const FORGET: Duration = Duration::from_secs(5 * 60);

const COULD_NOT_LOOK: &str = "could not look for upkeep work";
const COULD_NOT_DERIVE: &str = "could not derive the facts of stored records";
const COULD_NOT_SUM: &str = "could not sum the days that changed";
const COULD_NOT_COMPARE: &str = "could not compare connectors that may see the same money";
const COULD_NOT_CHECK: &str = "could not check data quality";
const COULD_NOT_REFRESH: &str = "could not refresh monthly_revenue";
const COULD_NOT_TIDY: &str = "could not delete old rows";

/// Entry point of the upkeep process of one database.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn connector_service_upkeep(arg: pg_sys::Datum) {
    let Some((database, number)) = process::begin(arg) else {
        return;
    };
    let prepared = installation::prepare_session()
        .and_then(|()| installation::bound_session())
        .and_then(|()| tx(installation::database));
    match prepared {
        Ok(name) => {
            trouble::begin(&name, number);
            run(database);
        }
        Err(Error::NotInstalled) => board::retire(),
        Err(error) => trouble::cannot_start(NAME, number, &error),
    }
}

fn run(database: pg_sys::Oid) {
    let mut waiter = match Waiter::new() {
        Ok(waiter) => waiter,
        Err(error) => error!("connector_service upkeep cannot make its wake-up pipe: {error}"),
    };
    let now = Instant::now();
    let mut upkeep = Upkeep {
        database,
        tenants: BTreeMap::new(),
        turn_of: Uuid::nil(),
        comparisons: BTreeMap::new(),
        check_at: now,
        tidy_at: now,
        refresh_at: Some(now),
        refreshed_at: None,
        refresh_took: Duration::ZERO,
        removal: Removal::new(),
    };
    loop {
        signals::answer();
        for errand in board::take_errands(database) {
            if let Errand::Refresh = errand {
                upkeep.metrics_changed();
            }
        }
        let next = match upkeep.poll() {
            Ok(Some(next)) => {
                trouble::succeeded(COULD_NOT_LOOK);
                next
            }
            Ok(None) | Err(Error::NotInstalled) => return board::retire(),
            Err(error) => {
                trouble::failed(COULD_NOT_LOOK, &error);
                AFTER_TROUBLE
            }
        };
        waiter.sleep(next);
    }
}

/// What is known of a tenant with work to do.
struct Tenant {
    /// The tenant is not tried before this time.
    rests_until: Instant,
    /// Pause before the next try while a session holds its lock, or a statement fails.
    pause: Duration,
    /// Its changed days are summed when no record waits, or at this time.
    settle_at: Instant,
    /// Records of the next step, by connector, if a step exceeded its limits.
    steps: HashMap<Uuid, i64>,
}

/// When the connectors of a tenant are compared next.
struct Planned {
    rests_until: Instant,
    /// Whether the last comparison failed: then nothing is urgent.
    has_failed: bool,
    /// Since when this waits, because records are being stored.
    waits_since: Option<Instant>,
    days: i32,
}

struct Upkeep {
    database: pg_sys::Oid,
    tenants: BTreeMap<Uuid, Tenant>,
    /// The tenant that had the last turn.
    turn_of: Uuid,
    /// What is known of tenants whose connectors were compared, or are to be.
    comparisons: BTreeMap<Due, Planned>,
    check_at: Instant,
    tidy_at: Instant,
    /// When to refresh the monthly aggregate. `None`: metrics did not change since the last refresh.
    refresh_at: Option<Instant>,
    refreshed_at: Option<Instant>,
    /// How long the last refresh took.
    refresh_took: Duration,
    removal: Removal,
}

impl Upkeep {
    /// Does one tenant's turn and other due work; returns how long there is nothing to do. `None`: this process is not needed.
    fn poll(&mut self) -> Result<Option<Duration>> {
        let found = tx(installation::read)?;
        if found.version != env!("CARGO_PKG_VERSION") {
            return Ok(None);
        }
        // A copy that nobody has adopted is read by people all the same.
        if !found.has_connectors || found.held.is_some() {
            return Ok(self.serve_people());
        }
        let mut next = self.take_turn()?.min(self.removal.take_turn());
        next = next.min(self.compare()?);
        let now = Instant::now();
        if now >= self.check_at {
            self.check_at = now + self.check();
        }
        if now >= self.tidy_at {
            self.tidy_at = now + tidy();
        }
        if self.refresh_at.is_some_and(|at| now >= at) {
            self.refresh();
        }
        for at in [Some(self.check_at), Some(self.tidy_at), self.refresh_at] {
            next = next.min(at.map_or(POLL_AT_LEAST, |at| {
                at.saturating_duration_since(Instant::now())
            }));
        }
        Ok(Some(next))
    }

    /// Refreshes the monthly aggregate of metrics that only people enter, because nothing may be synced. `None`: nobody has entered one
    /// for a while.
    fn serve_people(&mut self) -> Option<Duration> {
        let now = Instant::now();
        match self.refresh_at {
            Some(at) if now >= at => self.refresh(),
            Some(at) => return Some(at - now),
            None => {}
        }
        let is_new = self.refreshed_at.is_some_and(|at| at.elapsed() < FORGET);
        (is_new || self.refresh_at.is_some()).then_some(POLL_AT_LEAST)
    }

    /// Does some work of the next tenant that has any.
    fn take_turn(&mut self) -> Result<Duration> {
        if tx(fact::is_any_due)? {
            tx(fact::come_due)?;
        }
        let mut work: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
        for (tenant, connector) in tx(fact::waiting)? {
            work.entry(tenant).or_default().push(connector);
        }
        for tenant in tx(metric::touched)? {
            work.entry(tenant).or_default();
        }
        let busy = tx(run::busy_tenants)?;
        self.tenants.retain(|tenant, _| work.contains_key(tenant));
        let now = Instant::now();
        for tenant in work.keys() {
            self.tenants.entry(*tenant).or_insert_with(|| Tenant {
                rests_until: now,
                pause: FIRST_PAUSE,
                settle_at: now + Duration::from_secs(60),
                steps: HashMap::new(),
            });
        }
        // Days of a tenant whose records are being stored are summed at the end of its run, or once a minute.
        let is_ready = |(id, tenant): &(&Uuid, &Tenant)| {
            let has_records = work
                .get(*id)
                .is_some_and(|connectors| !connectors.is_empty());
            let waits = !has_records && busy.contains(*id) && tenant.settle_at > now;
            tenant.rests_until <= now && !waits
        };
        let behind = self
            .tenants
            .range(self.turn_of..)
            .skip_while(|(id, _)| **id == self.turn_of);
        let around = self.tenants.iter();
        let whose = behind.chain(around).find(is_ready);
        let Some((tenant, connectors)) = whose.and_then(|(id, _)| work.remove_entry(id)) else {
            let rests = self
                .tenants
                .iter()
                .map(|(id, tenant)| match busy.contains(id) {
                    true => tenant.rests_until.max(now + BUSY_POLL),
                    false => tenant.rests_until,
                });
            let next = rests.min().map(|at| at.saturating_duration_since(now));
            return Ok(next.unwrap_or(POLL_AT_LEAST));
        };
        self.turn_of = tenant;
        let is_busy = busy.contains(&tenant);
        let began = Instant::now();
        let is_drained = self.derive(tenant, &connectors);
        let is_due = |it: &Tenant| it.settle_at <= Instant::now();
        if is_drained && !is_busy || self.tenants.get(&tenant).is_some_and(is_due) {
            self.settle(tenant);
            // A run may wait for these days.
            board::wake(self.database);
        }
        if is_busy {
            // A page that finds the lock taken is written twice, so the tenant is left alone for a while.
            let rest = (began.elapsed() * 10).max(FIRST_PAUSE);
            self.update(tenant, |it| {
                it.rests_until = it.rests_until.max(Instant::now() + rest)
            });
        }
        Ok(Duration::ZERO)
    }

    /// Writes the facts of a tenant's records for one turn; true: no record waits any longer.
    fn derive(&mut self, tenant: Uuid, connectors: &[Uuid]) -> bool {
        let until = Instant::now() + TURN;
        for connector in connectors {
            let _doing = activity::doing(format!("deriving facts of connector {connector}"));
            loop {
                signals::answer();
                let most = self.step_of(tenant, *connector);
                match derive_some(tenant, *connector, most) {
                    Ok(Step::Did(0)) => {
                        trouble::succeeded(COULD_NOT_DERIVE);
                        break;
                    }
                    Ok(Step::Did(_)) => self.update(tenant, |it| {
                        it.steps.insert(*connector, (most * 2).min(RECORDS_AT_ONCE));
                        it.pause = FIRST_PAUSE;
                    }),
                    Ok(Step::Locked) => {
                        self.back_off(tenant, WHILE_LOCKED);
                        return false;
                    }
                    Ok(Step::Costly(_)) => self.update(tenant, |it| {
                        it.steps.insert(*connector, (most / 10).max(1));
                    }),
                    Err(error) => {
                        trouble::failed(COULD_NOT_DERIVE, &error);
                        self.back_off(tenant, AFTER_TROUBLE);
                        return false;
                    }
                }
                if Instant::now() >= until {
                    return false;
                }
            }
        }
        true
    }

    /// Sums the touched days of a tenant.
    fn settle(&mut self, tenant: Uuid) {
        let _doing = activity::doing(format!("summing days of tenant {tenant}"));
        let began = Instant::now();
        let mut most = DAYS_AT_ONCE;
        loop {
            signals::answer();
            match settle_some(tenant, most) {
                Ok(Step::Did(0)) => {
                    trouble::succeeded(COULD_NOT_SUM);
                    break;
                }
                Ok(Step::Did(_)) => {
                    self.metrics_changed();
                    most = (most * 2).min(DAYS_AT_ONCE);
                }
                Ok(Step::Locked) => return self.back_off(tenant, WHILE_LOCKED),
                Ok(Step::Costly(why)) if most == 1 => {
                    trouble::failed(COULD_NOT_SUM, &Error::Costly(tenant, why));
                    return self.back_off_long(tenant);
                }
                Ok(Step::Costly(_)) => most = (most / 10).max(1),
                Err(error) => {
                    trouble::failed(COULD_NOT_SUM, &error);
                    return self.back_off(tenant, AFTER_TROUBLE);
                }
            }
        }
        let took = began.elapsed();
        self.update(tenant, |it| {
            // A day that changes again and again is not summed all the time.
            it.rests_until = Instant::now() + took;
            it.settle_at = Instant::now() + Duration::from_secs(60);
            it.pause = FIRST_PAUSE;
        });
    }

    /// Compares the connectors of one tenant, if that is due; returns how long there is nothing to compare.
    fn compare(&mut self) -> Result<Duration> {
        let asked = tx(counting::due)?;
        let now = Instant::now();
        // What rests is remembered: it may be asked for again.
        self.comparisons.retain(|due, planned| {
            planned.rests_until > now || asked.iter().any(|(asked, _)| asked == due)
        });
        if asked.is_empty() {
            return Ok(POLL_AT_LEAST);
        }
        let busy = tx(run::busy_tenants)?;
        let waiting = tx(fact::waiting)?;
        let mut next = POLL_AT_LEAST;
        for (due, is_urgent) in asked {
            let planned = self.comparisons.entry(due.clone()).or_insert(Planned {
                rests_until: now,
                has_failed: false,
                waits_since: None,
                days: COMPARED_DAYS,
            });
            let is_busy = busy.contains(&due.tenant)
                || self.tenants.contains_key(&due.tenant)
                || waiting.iter().any(|(tenant, _)| *tenant == due.tenant);
            let since = *planned.waits_since.get_or_insert(now);
            if is_busy && since.elapsed() < COMPARE_WHILE_BUSY {
                next = next.min(BUSY_POLL);
                continue;
            }
            if planned.rests_until > now && (!is_urgent || planned.has_failed) {
                next = next.min(planned.rests_until - now);
                continue;
            }
            self.compare_one(&due);
            return Ok(Duration::ZERO);
        }
        Ok(next)
    }

    fn compare_one(&mut self, due: &Due) {
        let _doing = activity::doing(format!("comparing connectors of tenant {}", due.tenant));
        let began = Instant::now();
        let days = self
            .comparisons
            .get(due)
            .map_or(COMPARED_DAYS, |it| it.days);
        let compared = compare_some(due, days);
        let has_failed = !matches!(compared, Ok(Compared::Nothing | Compared::Done { .. }));
        let (rest, days) = match compared {
            Ok(Compared::Nothing) => (LOOK_AT_MOST_EVERY, COMPARED_DAYS),
            Ok(Compared::Done { changed }) => {
                trouble::succeeded(COULD_NOT_COMPARE);
                if changed {
                    self.metrics_changed();
                    board::wake(self.database);
                }
                (
                    COMPARE_AT_MOST_EVERY.max(began.elapsed() * COMPARE_REST),
                    days,
                )
            }
            Ok(Compared::Locked) => (FIRST_PAUSE, days),
            // Fewer days say less, but something.
            Ok(Compared::Costly(_)) if days > 1 => (FIRST_PAUSE, (days / 2).max(1)),
            Ok(Compared::Costly(why)) => {
                trouble::failed(COULD_NOT_COMPARE, &Error::Costly(due.tenant, why));
                (AFTER_TROUBLE * 10, 1)
            }
            Err(error) => {
                trouble::failed(COULD_NOT_COMPARE, &error);
                (AFTER_TROUBLE, days)
            }
        };
        let planned = Planned {
            rests_until: Instant::now() + rest,
            has_failed,
            waits_since: None,
            days,
        };
        self.comparisons.insert(due.clone(), planned);
    }

    fn step_of(&self, tenant: Uuid, connector: Uuid) -> i64 {
        let steps = self.tenants.get(&tenant).map(|it| &it.steps);
        let step = steps.and_then(|steps| steps.get(&connector));
        step.copied().unwrap_or(RECORDS_AT_ONCE)
    }

    fn update(&mut self, tenant: Uuid, what: impl FnOnce(&mut Tenant)) {
        if let Some(tenant) = self.tenants.get_mut(&tenant) {
            what(tenant);
        }
    }

    /// Leaves a tenant alone for a long time, because its days exceed the limits.
    fn back_off_long(&mut self, tenant: Uuid) {
        self.update(tenant, |it| {
            it.rests_until = Instant::now() + AFTER_TROUBLE * 10
        });
    }

    /// Tries a tenant again after a pause, which doubles up to `longest`.
    fn back_off(&mut self, tenant: Uuid, longest: Duration) {
        self.update(tenant, |it| {
            it.rests_until = Instant::now() + it.pause.min(longest);
            it.pause = (it.pause * 2).min(longest);
        });
    }

    /// Plans a refresh of the monthly aggregate, because metrics changed.
    fn metrics_changed(&mut self) {
        let rest = REFRESH_AT_MOST_EVERY.max(self.refresh_took * REST);
        let next = self.refreshed_at.map_or_else(Instant::now, |at| at + rest);
        self.refresh_at.get_or_insert(next);
    }

    /// Checks the data of all tenants; returns how long until the next check.
    fn check(&self) -> Duration {
        let _doing = activity::doing("checking data quality");
        let began = Instant::now();
        let mut behind = Uuid::nil();
        loop {
            signals::answer();
            let tenants = match tx(|db| metric::tenants_after(db, behind, TENANTS_AT_ONCE)) {
                Ok(tenants) => tenants,
                Err(error) => {
                    trouble::failed(COULD_NOT_CHECK, &error);
                    return AFTER_TROUBLE;
                }
            };
            let Some(last) = tenants.last() else {
                break;
            };
            behind = *last;
            check_some(&tenants);
        }
        CHECK_EVERY.max(began.elapsed() * REST)
    }

    fn refresh(&mut self) {
        let _doing = activity::doing("refreshing monthly_revenue");
        self.refresh_at = None;
        let began = Instant::now();
        let limit = Limit::set(MEMORY);
        let refreshed = bounded(REFRESHED_WITHIN, metric::refresh_monthly);
        drop(limit);
        match refreshed {
            Ok(()) => trouble::succeeded(COULD_NOT_REFRESH),
            Err(error) => {
                trouble::failed(COULD_NOT_REFRESH, &error);
                self.refresh_at = Some(Instant::now() + AFTER_TROUBLE);
            }
        }
        self.refreshed_at = Some(began);
        self.refresh_took = began.elapsed();
    }
}

/// Deletes some old rows. Returns how long there is nothing to do.
fn tidy() -> Duration {
    let _doing = activity::doing("deleting old rows");
    let began = Instant::now();
    let guc::Retention {
        runs,
        requests,
        quarantine,
        alerts,
        raw: _,
    } = guc::retention();
    let step = |what: fn(&mut Db, Duration) -> Result<bool>, kept: Option<Duration>| match kept {
        None => Ok(false),
        Some(kept) => store::bounded(TIDIED_WITHIN, |db| what(db, kept)),
    };
    let tidied = step(retention::of_runs, runs)
        .and_then(|more| Ok(step(retention::of_requests, requests)? || more))
        .and_then(|more| Ok(step(retention::of_quarantine, quarantine)? || more))
        .and_then(|more| Ok(step(retention::of_alerts, alerts)? || more));
    if tidied.is_ok() {
        trouble::succeeded(COULD_NOT_TIDY);
    }
    match tidied {
        // The rest follows soon, with other work in between.
        Ok(true) => Duration::from_secs(1).max(began.elapsed() * 10),
        Ok(false) => TIDY_EVERY.max(began.elapsed() * REST),
        Err(error) => {
            trouble::failed(COULD_NOT_TIDY, &error);
            TIDY_EVERY
        }
    }
}
