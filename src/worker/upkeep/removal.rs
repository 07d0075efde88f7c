//! What the upkeep process takes away, in steps: connectors and tenants that are being deleted, the JSON of old records, and the
//! room that they leave in `raw_connector_data`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::TURN;
use super::step::{MEMORY, Step, step};
use crate::error::{Error, Result};
use crate::store::delete::{self, Wait};
use crate::store::drop::Old;
use crate::store::{bounded, drop, run, tx};
use crate::worker::memory::Limit;
use crate::{activity, fault, guc, signals, trouble};

/// Records whose JSON is dropped at once. More: pages of the tenant are written twice while it lasts. Fewer: more transactions.
const DROPPED_AT_ONCE: usize = 500;

/// Longest time of a step.
const STEP_WITHIN: Duration = Duration::from_secs(30);

/// Time between two looks for old records, and for room to give back.
const LOOK_EVERY: Duration = Duration::from_secs(20);
const MAKE_ROOM_EVERY: Duration = Duration::from_secs(60);

/// While a tenant's records are being stored, work on them rests for this many times as long as it took.
const REST_BESIDE_RUNS: u32 = 5;

/// Rests between two turns, and before a tenant is tried again whose lock another session holds.
const BETWEEN_TURNS: Duration = Duration::from_millis(50);
const WHILE_LOCKED: Duration = Duration::from_millis(500);

/// Blocks that are emptied at once. More: longer transactions. Fewer: more of them.
const BLOCKS_AT_ONCE: i64 = 32;

/// Fewest blocks worth giving back: 8 MB.
const FEWEST_BLOCKS: i64 = 1024;

/// Shares of the dead rows that VACUUM has to clear first are in `connector_service_spare()`; how long it is waited for.
const WAIT_FOR_VACUUM: Duration = Duration::from_secs(10 * 60);

const COULD_NOT_DELETE: &str = "could not delete a connector";
const COULD_NOT_DROP: &str = "could not drop the JSON of old records";
const COULD_NOT_MOVE: &str = "could not make room in raw_connector_data";

/// Records whose JSON is to be dropped, and the place of the next one.
struct Found {
    tenant: Uuid,
    connector: Uuid,
    old: Old,
    next: usize,
}

pub struct Removal {
    found: Option<Found>,
    /// Connectors, with their tenants, that are still to be gone through for old records; the last one is next.
    ahead: Vec<(Uuid, Uuid)>,
    /// The last record that was deleted of each connector.
    deleted: HashMap<Uuid, String>,
    drop_at: Instant,
    room_at: Instant,
    /// The end of the blocks that are still to be emptied.
    end: Option<i64>,
    /// Since when VACUUM is waited for.
    waits_since: Option<Instant>,
}

impl Removal {
    pub fn new() -> Removal {
        let now = Instant::now();
        Removal {
            found: None,
            ahead: Vec::new(),
            deleted: HashMap::new(),
            drop_at: now,
            room_at: now + MAKE_ROOM_EVERY,
            end: None,
            waits_since: None,
        }
    }

    /// Does one turn of each kind of work; returns how long there is nothing to do.
    pub fn take_turn(&mut self) -> Duration {
        let mut next = self.delete();
        let now = Instant::now();
        if now >= self.drop_at {
            self.drop_at = now + self.drop_old();
        }
        if now >= self.room_at {
            self.room_at = now + self.make_room();
        }
        for at in [self.drop_at, self.room_at] {
            next = next.min(at.saturating_duration_since(Instant::now()));
        }
        next
    }

    /// Deletes rows of connectors and tenants that are being deleted.
    fn delete(&mut self) -> Duration {
        let until = Instant::now() + TURN;
        let waiting = match tx(delete::waiting) {
            Ok(waiting) => waiting,
            Err(error) => {
                trouble::failed(COULD_NOT_DELETE, &error);
                return super::AFTER_TROUBLE;
            }
        };
        self.deleted
            .retain(|connector, _| waiting.iter().any(|(_, it)| it == &Some(*connector)));
        let is_any = !waiting.is_empty();
        let mut is_stopped = false;
        for (tenant, connector) in waiting {
            let doing = match connector {
                Some(connector) => format!("deleting connector {connector}"),
                None => format!("deleting tenant {tenant}"),
            };
            let _doing = activity::doing(doing);
            loop {
                signals::answer();
                if Instant::now() >= until {
                    return Duration::ZERO;
                }
                match self.delete_some(tenant, connector) {
                    Ok(Step::Did(0)) => {
                        trouble::succeeded(COULD_NOT_DELETE);
                        break;
                    }
                    Ok(Step::Did(_)) => {}
                    Ok(Step::Locked) => {
                        is_stopped = true;
                        break;
                    }
                    Ok(Step::Costly(why)) => {
                        trouble::failed(COULD_NOT_DELETE, &Error::Costly(tenant, why));
                        is_stopped = true;
                        break;
                    }
                    Err(error) => {
                        trouble::failed(COULD_NOT_DELETE, &error);
                        is_stopped = true;
                        break;
                    }
                }
            }
        }
        match (is_any, is_stopped) {
            (_, true) => WHILE_LOCKED,
            // A tenant whose last connector is gone.
            (true, false) => Duration::ZERO,
            (false, false) => super::POLL_AT_LEAST,
        }
    }

    fn delete_some(&mut self, tenant: Uuid, connector: Option<Uuid>) -> Result<Step> {
        let Some(connector) = connector else {
            return step(STEP_WITHIN, |db| {
                let rows = delete::some_of_tenant(db, tenant, Wait::Never)?;
                Ok(rows.map(i64::unsigned_abs))
            });
        };
        let after = self.deleted.get(&connector).cloned().unwrap_or_default();
        let mut last = None;
        let done = step(STEP_WITHIN, |db| {
            let Some((rows, behind)) = delete::some(db, connector, &after, Wait::Never)? else {
                return Ok(None);
            };
            last = behind;
            fault::point("mid_delete");
            Ok(Some(rows.unsigned_abs()))
        })?;
        if let Some(last) = last {
            self.deleted.insert(connector, last);
        }
        Ok(done)
    }

    /// Drops the JSON of old records for one turn.
    fn drop_old(&mut self) -> Duration {
        let _doing = activity::doing("dropping the JSON of old records");
        match self.drop_until(Instant::now() + TURN) {
            Ok(None) => {
                trouble::succeeded(COULD_NOT_DROP);
                LOOK_EVERY
            }
            Ok(Some(rest)) => rest,
            Err(error) if error.is_about_a_lock() => WHILE_LOCKED,
            Err(error) => {
                trouble::failed(COULD_NOT_DROP, &error);
                self.found = None;
                // The connectors behind it do not wait for it.
                self.ahead.pop();
                super::AFTER_TROUBLE
            }
        }
    }

    /// How long to rest before the next turn. `None`: there is nothing left to do.
    fn drop_until(&mut self, until: Instant) -> Result<Option<Duration>> {
        let default = guc::retention().raw;
        let busy = tx(run::busy_tenants)?;
        if self.found.is_none() && self.ahead.is_empty() {
            self.ahead = tx(|db| drop::connectors(db, default))?;
            self.ahead.reverse();
        }
        loop {
            signals::answer();
            let found = match self.found.take() {
                Some(found) => found,
                None => {
                    let Some(&(tenant, connector)) = self.ahead.last() else {
                        return Ok(None);
                    };
                    // To look takes time too, where there are many connectors.
                    if Instant::now() >= until {
                        return Ok(Some(BETWEEN_TURNS));
                    }
                    match bounded(STEP_WITHIN, |db| drop::find(db, connector, default))? {
                        Some(old) => Found {
                            tenant,
                            connector,
                            old,
                            next: 0,
                        },
                        None => {
                            self.ahead.pop();
                            continue;
                        }
                    }
                }
            };
            let Found {
                tenant,
                connector,
                old,
                next,
            } = found;
            let raw_ids: Vec<_> = old
                .raw_ids
                .iter()
                .skip(next)
                .take(DROPPED_AT_ONCE)
                .copied()
                .collect();
            if raw_ids.is_empty() {
                tx(|db| drop::advance(db, connector, &old))?;
                continue;
            }
            let began = Instant::now();
            let done = step(STEP_WITHIN, |db| {
                let of = (tenant, connector);
                let done = drop::some(db, of, default, &old.stream, raw_ids)?;
                fault::point("mid_drop");
                Ok(done)
            })?;
            let (next, is_locked) = match done {
                Step::Did(_) => (next + DROPPED_AT_ONCE, false),
                Step::Locked => (next, true),
                Step::Costly(why) => return Err(Error::Costly(tenant, why)),
            };
            self.found = Some(Found {
                tenant,
                connector,
                old,
                next,
            });
            if is_locked {
                return Ok(Some(WHILE_LOCKED));
            }
            if busy.contains(&tenant) {
                return Ok(Some(began.elapsed() * REST_BESIDE_RUNS));
            }
            if Instant::now() >= until {
                return Ok(Some(BETWEEN_TURNS));
            }
        }
    }

    /// Empties blocks at the end of `raw_connector_data` for one turn, where much of it is free. VACUUM then cuts them off.
    fn make_room(&mut self) -> Duration {
        let _doing = activity::doing("making room in raw_connector_data");
        match self.make_room_until(Instant::now() + TURN) {
            Ok(next) => {
                trouble::succeeded(COULD_NOT_MOVE);
                next
            }
            // There is no free room after all, or somebody else needs the rows.
            Err(Error::RolledBack) => {
                self.end = None;
                MAKE_ROOM_EVERY * 10
            }
            Err(error) if error.is_about_a_lock() => Duration::from_secs(1),
            Err(error) => {
                trouble::failed(COULD_NOT_MOVE, &error);
                self.end = None;
                super::AFTER_TROUBLE
            }
        }
    }

    fn make_room_until(&mut self, until: Instant) -> Result<Duration> {
        let spare = tx(drop::spare)?;
        // The estimate is rough, and some room is wanted.
        let wanted = spare.needed + (spare.needed / 4).max(FEWEST_BLOCKS);
        if self.end.is_none() && spare.blocks < wanted + wanted / 4 {
            return Ok(MAKE_ROOM_EVERY);
        }
        let mut end = match self.end {
            Some(end) => end,
            None => {
                let since = *self.waits_since.get_or_insert_with(Instant::now);
                // Only VACUUM makes the room known.
                if !spare.is_vacuumed && since.elapsed() < WAIT_FOR_VACUUM {
                    return Ok(MAKE_ROOM_EVERY / 10);
                }
                spare.blocks
            }
        };
        self.waits_since = None;
        while end > wanted {
            signals::answer();
            let first = (end - BLOCKS_AT_ONCE).max(0);
            let limit = Limit::set(MEMORY);
            let moved = bounded(STEP_WITHIN, |db| drop::move_tail(db, first, end));
            std::mem::drop(limit);
            let moved = moved?;
            end = first;
            self.end = Some(end);
            if moved > 0 && Instant::now() >= until {
                return Ok(Duration::from_millis(100));
            }
        }
        self.end = None;
        Ok(MAKE_ROOM_EVERY)
    }
}
