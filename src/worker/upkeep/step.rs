//! One step of the upkeep, within its limits of time and memory.

use std::time::Duration;

use uuid::Uuid;

use super::COULD_NOT_CHECK;
use crate::error::{Error, Result};
use crate::store::{Db, bounded, fact, lock, metric};
use crate::worker::memory::Limit;
use crate::{signals, trouble};

/// Longest time for the facts of one record. Longer: a hostile tenant keeps this process busy for longer. Shorter: on a busy
/// machine a large order goes to the quarantine.
const RECORD_WITHIN: Duration = Duration::from_secs(2);
/// Time of a step for each further record.
const EACH_RECORD: Duration = Duration::from_millis(3);

/// Memory of one step, beyond what the process has. Smaller: a record of a few megabytes goes to the quarantine. Larger: one
/// tenant's mapping takes more memory from the server.
pub const MEMORY: u64 = 256 * 1024 * 1024;

/// Longest time of a step that sums days. A day that alone takes longer is tried again later.
const DAYS_WITHIN: Duration = Duration::from_secs(30);

/// Longest time of a step of the checks.
const CHECKED_WITHIN: Duration = Duration::from_secs(60);

/// The result of a step over a tenant's records or days.
pub enum Step {
    /// This many records or days were done.
    Did(u64),
    Locked,
    /// The step exceeded its limits, for this reason.
    Costly(String),
}

/// Does one step within its limits of time and memory. `work` returns `None` if another session has the lock.
pub fn step(longest: Duration, work: impl FnOnce(&mut Db) -> Result<Option<u64>>) -> Result<Step> {
    let limit = Limit::set(MEMORY);
    let done = bounded(longest, work);
    let was_exceeded = limit.was_exceeded();
    drop(limit);
    match done {
        Ok(Some(count)) => Ok(Step::Did(count)),
        Ok(None) => Ok(Step::Locked),
        Err(Error::TookTooLong(longest)) => {
            Ok(Step::Costly(format!("it took longer than {longest:?}")))
        }
        Err(error) if was_exceeded || error.is_about_cost() => {
            let megabytes = MEMORY >> 20;
            Ok(Step::Costly(format!(
                "it took more than {megabytes} MB of memory"
            )))
        }
        Err(error) if error.is_about_a_lock() => Ok(Step::Locked),
        Err(error) => Err(error),
    }
}

/// Writes the facts of a connector's oldest waiting records. A record that alone exceeds the limits goes to the quarantine.
pub fn derive_some(tenant: Uuid, connector: Uuid, most: i64) -> Result<Step> {
    let mut taken = Vec::new();
    let longest = RECORD_WITHIN + EACH_RECORD * u32::try_from(most - 1).unwrap_or_default();
    let done = step(longest, |db| {
        if !lock::try_facts(tenant) {
            return Ok(None);
        }
        taken = fact::oldest_waiting(db, connector, most)?;
        if !taken.is_empty() {
            fact::derive_waiting(db, connector, taken.clone())?;
        }
        Ok(Some(taken.len() as u64))
    })?;
    match done {
        Step::Costly(why) if taken.len() == 1 => step(RECORD_WITHIN, |db| {
            if !lock::try_facts(tenant) {
                return Ok(None);
            }
            fact::refuse(db, connector, taken, &why)?;
            Ok(Some(1))
        }),
        other => Ok(other),
    }
}

pub fn settle_some(tenant: Uuid, most: i32) -> Result<Step> {
    step(DAYS_WITHIN, |db| metric::settle(db, tenant, most))
}

/// Checks the data of some tenants; if that exceeds the limits, of each tenant by itself. Only rows that other processes write
/// too are changed under a tenant's lock, and only if nobody holds it: a page that finds the lock taken is written twice.
pub fn check_some(tenants: &[Uuid]) {
    for tenant in tenants {
        let pruned = step(CHECKED_WITHIN, |db| {
            if !lock::try_facts(*tenant) {
                return Ok(None);
            }
            metric::prune_sources(db, *tenant)?;
            Ok(Some(0))
        });
        if let Err(error) = pruned {
            trouble::failed(COULD_NOT_CHECK, &error);
        }
        signals::answer();
    }
    let checked = step(CHECKED_WITHIN, |db| {
        metric::check_quality(db, tenants)?;
        Ok(Some(0))
    });
    match (checked, tenants) {
        (Ok(Step::Did(_)), _) => trouble::succeeded(COULD_NOT_CHECK),
        (Ok(Step::Costly(why)), [tenant]) => {
            trouble::failed(COULD_NOT_CHECK, &Error::Costly(*tenant, why));
        }
        // The next check does it.
        (Ok(Step::Locked), [_]) => {}
        (Ok(_), several) => {
            for tenant in several {
                signals::answer();
                check_some(std::slice::from_ref(tenant));
            }
        }
        (Err(error), _) => trouble::failed(COULD_NOT_CHECK, &error),
    }
}
