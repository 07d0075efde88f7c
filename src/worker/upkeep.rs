//! What follows the pages: touched days are summed, the data is looked over, the monthly aggregate refreshed.
//!
//! All of it happens on the main thread, between pages, so each piece is bounded: days are summed some at a
//! time, and what cannot be cut rests for many times as long as it took.

use std::time::{Duration, Instant};

use pgrx::prelude::*;

use crate::error::Result;
use crate::store::{Db, metric, retention, tx};
use crate::{activity, guc, signals, trouble};

/// Days of one transaction. More: the worker answers later. Fewer: more transactions.
const DAYS_AT_ONCE: i32 = 200;

/// Days that nobody finished are summed at the latest after this: a run that takes hours shows its numbers.
const SETTLE_AT_LEAST: Duration = Duration::from_secs(60);

/// Time between two looks over the data.
const CHECK_EVERY: Duration = Duration::from_secs(60 * 60);
/// Time between two looks for what is old enough to go.
const TIDY_EVERY: Duration = Duration::from_secs(60 * 60);
/// Shortest time between two refreshes of the monthly aggregate.
const REFRESH_AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// How many times as long as it took a piece of work rests: it takes at most one percent of the worker's time.
const REST: u32 = 100;
/// What takes longer than this is left to a person or to pg_cron: no queued sync should wait that long.
const LONGEST_REFRESH: Duration = Duration::from_secs(1);

/// Pause after something failed, or somebody else had the lock.
const AFTER_TROUBLE: Duration = Duration::from_secs(60);

const COULD_NOT_SUM: &str = "could not sum the days that changed";
const COULD_NOT_CHECK: &str = "could not look over the data";
const COULD_NOT_REFRESH: &str = "could not refresh monthly_revenue";
const COULD_NOT_TIDY: &str = "could not delete what is old";

pub struct Upkeep {
    settled_at: Instant,
    /// Somebody has the lock of facts, and what waits for it is to be tried again soon.
    pub blocked: bool,
    check_at: Instant,
    tidy_at: Instant,
    /// There while metrics changed since the last refresh.
    refresh_at: Option<Instant>,
    refreshed_at: Option<Instant>,
    /// How long the last refresh took.
    refresh_took: Duration,
}

impl Upkeep {
    pub fn new() -> Upkeep {
        Upkeep {
            settled_at: Instant::now(),
            blocked: false,
            check_at: Instant::now(),
            tidy_at: Instant::now(),
            refresh_at: Some(Instant::now()),
            refreshed_at: None,
            refresh_took: Duration::ZERO,
        }
    }

    /// Does what is due; returns how long there will be nothing to do. `busy`: runs are going, which settle
    /// their days when they end.
    pub fn run(&mut self, busy: bool) -> Duration {
        if !busy || self.settled_at.elapsed() >= SETTLE_AT_LEAST {
            self.settle();
        }
        if Instant::now() >= self.check_at {
            self.check_at = Instant::now() + self.check();
        }
        if Instant::now() >= self.tidy_at {
            self.tidy_at = Instant::now() + tidy();
        }
        let next = self.check_at.min(self.tidy_at);
        let next = next.saturating_duration_since(Instant::now());
        next.min(self.refresh_soon(busy))
    }

    /// Refreshes the monthly aggregate if metrics changed; returns how long there will be nothing to refresh.
    pub fn refresh_soon(&mut self, busy: bool) -> Duration {
        // One that waits for runs to end wakes nobody: their end is a look, too.
        if busy {
            return Duration::MAX;
        }
        if self.refresh_at.is_some_and(|at| Instant::now() >= at) {
            self.refresh();
        }
        self.refresh_at.map_or(Duration::MAX, |at| {
            at.saturating_duration_since(Instant::now())
        })
    }

    /// Sums all days that were touched.
    pub fn settle(&mut self) {
        self.settled_at = Instant::now();
        let _doing = activity::doing("summing days");
        loop {
            match tx(|db| match metric::is_any_touched(db)? {
                true => metric::settle(db, DAYS_AT_ONCE),
                false => Ok(Some(0)),
            }) {
                Ok(Some(0)) => {
                    trouble::over(COULD_NOT_SUM);
                    return;
                }
                Ok(None) => {
                    self.blocked = true;
                    return;
                }
                Ok(Some(_)) => self.metrics_changed(),
                Err(error) => {
                    trouble::trouble(COULD_NOT_SUM, &error);
                    return;
                }
            }
            signals::answer();
        }
    }

    /// Metrics changed, so the monthly aggregate is to be refreshed.
    pub fn metrics_changed(&mut self) {
        let rest = REFRESH_AT_MOST_EVERY.max(self.refresh_took * REST);
        let next = self.refreshed_at.map_or_else(Instant::now, |at| at + rest);
        self.refresh_at.get_or_insert(next);
    }

    fn check(&self) -> Duration {
        let _doing = activity::doing("checking data quality");
        let began = Instant::now();
        let checked = tx(metric::check_quality);
        if checked.is_ok() {
            trouble::over(COULD_NOT_CHECK);
        }
        match checked {
            Ok(true) => CHECK_EVERY.max(began.elapsed() * REST),
            Ok(false) => AFTER_TROUBLE,
            Err(error) => {
                trouble::trouble(COULD_NOT_CHECK, &error);
                CHECK_EVERY
            }
        }
    }

    fn refresh(&mut self) {
        self.refresh_at = None;
        if self.refresh_took > LONGEST_REFRESH {
            return;
        }
        let _doing = activity::doing("refreshing monthly_revenue");
        let began = Instant::now();
        match tx(metric::refresh_monthly) {
            Ok(_) => trouble::over(COULD_NOT_REFRESH),
            Err(error) => {
                trouble::trouble(COULD_NOT_REFRESH, &error);
                self.refresh_at = Some(Instant::now() + AFTER_TROUBLE);
            }
        }
        self.refreshed_at = Some(began);
        self.refresh_took = began.elapsed();
        if self.refresh_took > LONGEST_REFRESH {
            warning!(
                "refreshing monthly_revenue took {} ms; from now on it is left to SELECT refresh_monthly_revenue(), by pg_cron for instance",
                self.refresh_took.as_millis()
            );
        }
    }
}

/// Deletes some of what is old enough to go. Returns how long there is nothing to do.
fn tidy() -> Duration {
    let _doing = activity::doing("deleting what is old");
    let began = Instant::now();
    let guc::Retention {
        runs,
        quarantine,
        alerts,
    } = guc::retention();
    let step = |what: fn(&mut Db, Duration) -> Result<bool>, kept: Option<Duration>| match kept {
        None => Ok(false),
        Some(kept) => tx(|db| what(db, kept)),
    };
    let tidied = step(retention::of_runs, runs)
        .and_then(|more| Ok(step(retention::of_quarantine, quarantine)? || more))
        .and_then(|more| Ok(step(retention::of_alerts, alerts)? || more));
    if tidied.is_ok() {
        trouble::over(COULD_NOT_TIDY);
    }
    match tidied {
        // The rest soon, and other work between.
        Ok(true) => Duration::from_secs(1).max(began.elapsed() * 10),
        Ok(false) => TIDY_EVERY.max(began.elapsed() * REST),
        Err(error) => {
            trouble::trouble(COULD_NOT_TIDY, &error);
            TIDY_EVERY
        }
    }
}
