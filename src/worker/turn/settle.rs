//! Sums the days that a run changed before the run ends, if that is quick. If not, the upkeep process does it, and the run waits
//! for a while.

use std::time::{Duration, Instant};

use pgrx::prelude::*;
use uuid::Uuid;

use super::SyncWorker;
use crate::board::{self, Errand};
use crate::store::{bounded, fact, metric, run, tx};
use crate::{activity, signals, trouble};

/// Days of one transaction. More: the worker is busy for longer. Fewer: more transactions.
const DAYS_AT_ONCE: i32 = 200;

/// Longest time for which the worker sums a tenant's days when a run ends. Longer: all tenants wait for one tenant's days.
/// Shorter: on a busy machine the upkeep process does even quick work.
const SETTLED_WITHIN: Duration = Duration::from_millis(400);

/// How long the days of a tenant that took too long are left to the upkeep process. Shorter: all tenants wait more often for work
/// that is then repeated. Longer: after one busy moment the tenant's runs end later for longer.
const HEAVY_FOR: Duration = Duration::from_secs(10 * 60);

/// How long a run waits for the upkeep process. Longer: waiting runs of a tenant with slow mappings keep other runs from starting.
/// Shorter: after a run of many records, clients read metrics that are not complete.
const WAIT_FOR_METRICS: Duration = Duration::from_secs(10);

/// How long a run waits while another process has the lock of the tenant's facts: the upkeep process for a moment, or a session
/// for any time.
const WAIT_FOR_LOCK: Duration = Duration::from_secs(2);

/// Time between two checks whether the metrics of a waiting run are ready. The upkeep process also wakes the worker.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

const COULD_NOT_SUM: &str = "could not sum the days that changed";

/// Runs that wait only for their metrics, and until when each waits.
#[derive(Default)]
pub(super) struct Unsettled {
    runs: Vec<(Uuid, Instant)>,
    /// When to check them again.
    pub(super) look_at: Option<Instant>,
}

impl SyncWorker {
    /// Sums the changed days of a tenant. `Some`: the upkeep process does it, and the run may wait this long for it.
    pub(super) fn settle(&mut self, tenant: Uuid, connector: Uuid) -> Option<Duration> {
        let _doing = activity::doing("summing days");
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // If the process was told to end, the upkeep process sums the rest.
            if left.is_zero() || signals::is_leaving() || self.heavy.contains_key(&tenant) {
                break;
            }
            match bounded(left, |db| metric::settle(db, tenant, DAYS_AT_ONCE)) {
                Ok(Some(0)) => {
                    trouble::succeeded(COULD_NOT_SUM);
                    // Records that wait for their facts will change more days.
                    let waits =
                        self.is_left && tx(|db| fact::is_waiting(db, connector)).unwrap_or(false);
                    if waits {
                        self.ask_upkeep(Errand::Derive);
                    }
                    return waits.then_some(WAIT_FOR_METRICS);
                }
                Ok(Some(_)) => self.metrics_changed = true,
                Ok(None) => {
                    self.ask_upkeep(Errand::Derive);
                    return Some(WAIT_FOR_LOCK);
                }
                Err(error) if error.is_about_cost() => {
                    self.heavy.insert(tenant, Instant::now() + HEAVY_FOR);
                    break;
                }
                Err(error) => {
                    if !error.is_momentary() {
                        trouble::failed(COULD_NOT_SUM, &error);
                    }
                    self.ask_upkeep(Errand::Derive);
                    return None;
                }
            }
        }
        self.ask_upkeep(Errand::Derive);
        Some(WAIT_FOR_METRICS)
    }

    pub(super) fn ask_upkeep(&self, errand: Errand) {
        // SAFETY: fixed for the life of a process.
        board::ask_upkeep(unsafe { pg_sys::MyDatabaseId }, errand);
    }

    /// Lets a run wait for its metrics; everything else of it is done.
    pub(super) fn wait_for_metrics(&mut self, id: Uuid, longest: Duration) {
        let token = self.token;
        super::store::log_failure(tx(|db| {
            run::show_waiting(db, id, token, Duration::ZERO, run::FOR_METRICS)
        }));
        // The upkeep process left the tenant alone so far.
        self.ask_upkeep(Errand::Derive);
        let now = Instant::now();
        self.unsettled.runs.push((id, now + longest));
        self.unsettled.look_at.get_or_insert(now + LOOK_AGAIN);
    }

    /// Ends runs whose metrics are ready, or that waited long enough; true: a run ended.
    pub(super) fn end_settled(&mut self) -> bool {
        let now = Instant::now();
        if self.unsettled.look_at.is_none_or(|at| at > now) {
            return false;
        }
        let mut is_any = false;
        let runs = std::mem::take(&mut self.unsettled.runs);
        for (run, until) in runs {
            let Some(running) = self.running.get(&run) else {
                continue;
            };
            let (tenant, connector) = (running.claimed.tenant, running.claimed.connector);
            let is_over = until <= now
                || tx(|db| {
                    Ok(!metric::is_touched(db, tenant)? && !fact::is_waiting(db, connector)?)
                })
                .unwrap_or(false);
            is_any |= is_over;
            match is_over {
                true => {
                    let outcome = running.outcome.clone().unwrap_or_else(|| Ok(()).into());
                    self.end_now(run, outcome);
                }
                false => self.unsettled.runs.push((run, until)),
            }
        }
        self.unsettled.look_at = (!self.unsettled.runs.is_empty()).then_some(now + LOOK_AGAIN);
        is_any
    }
}
