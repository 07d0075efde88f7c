//! The rate limit of an account, and the pauses that vendors ask for.
//!
//! Vendors count requests by account, not by connector: a schedule, a manual sync and a check of the same shop use up
//! one allowance. So all runs of a worker that call the same account of a tenant take their turns here. Accounts of
//! two tenants are never the same, even by name: who writes somebody else's shop into a row must not slow it down.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use crate::source::Account;

#[derive(Default)]
pub struct Paces {
    paces: Mutex<HashMap<(Uuid, String), Pace>>,
    /// Set while a run of the account is running or waiting.
    places: Mutex<HashMap<(Uuid, String), Weak<Semaphore>>>,
}

#[derive(Default)]
struct Pace {
    /// When the next request would be due if they came evenly.
    due: Option<Instant>,
    rest: Option<(Instant, String)>,
}

/// When a request may be made.
#[derive(Debug, PartialEq, Eq)]
pub enum Slot {
    In(Duration),
    /// The account rests for this long, and why; ask again then.
    Resting(Duration, String),
}

impl Paces {
    /// Takes the next slot of the account: `In` is for one request.
    pub fn take_slot(&self, tenant: Uuid, account: &Account) -> Slot {
        self.with(tenant, &account.name, |pace| {
            let now = Instant::now();
            if let Some((until, why)) = &pace.rest {
                if *until > now {
                    return Slot::Resting(*until - now, why.clone());
                }
                pace.rest = None;
            }
            let due = pace.due.map_or(now, |due| due.max(now));
            pace.due = Some(due + account.every);
            let ahead = account.every * account.burst.saturating_sub(1);
            Slot::In((due - now).saturating_sub(ahead))
        })
    }

    /// No request of the account for so long; a longer rest that is there already stays.
    pub fn rest(&self, tenant: Uuid, account: &str, wait: Duration, why: &str) {
        self.with(tenant, account, |pace| {
            let until = Instant::now() + wait;
            if pace.rest.as_ref().is_none_or(|(other, _)| *other < until) {
                pace.rest = Some((until, why.to_owned()));
            }
        });
    }

    /// The places for runs of an account: as many as `most` said when the first of those that are going asked.
    pub fn places(&self, tenant: Uuid, account: &str, most: usize) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MOST {
            places.retain(|_, places| places.strong_count() > 0);
        }
        let place = places.entry((tenant, account.to_owned())).or_default();
        place.upgrade().unwrap_or_else(|| {
            let semaphore = Arc::new(Semaphore::new(most));
            *place = Arc::downgrade(&semaphore);
            semaphore
        })
    }

    fn with<T>(&self, tenant: Uuid, account: &str, work: impl FnOnce(&mut Pace) -> T) -> T {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        // What is neither resting nor behind is as good as new: the map holds who was busy lately.
        if paces.len() >= MOST {
            let now = Instant::now();
            paces.retain(|_, pace| {
                pace.due.is_some_and(|due| due > now)
                    || pace.rest.as_ref().is_some_and(|(until, _)| *until > now)
            });
        }
        work(paces.entry((tenant, account.to_owned())).or_default())
    }
}

/// Accounts that are remembered before the idle ones are forgotten. Larger: more memory. Smaller: more sweeping.
const MOST: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn account(every: u64, burst: u32) -> Account {
        Account {
            name: "acct".into(),
            every: Duration::from_millis(every),
            burst,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_sent_at_once_and_later_requests_are_spaced() {
        let paces = Paces::default();
        let turns = |count: usize| -> Vec<u64> {
            let turn = |_| match paces.take_slot(Uuid::nil(), &account(100, 3)) {
                Slot::In(wait) => wait.as_millis() as u64,
                Slot::Resting(..) => u64::MAX,
            };
            (0..count).map(turn).collect()
        };
        assert_eq!(turns(6), [0, 0, 0, 100, 200, 300]);
        tokio::time::advance(Duration::from_millis(1_000)).await;
        assert_eq!(turns(4), [0, 0, 0, 100]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_applies_to_one_account_of_one_tenant_and_the_longer_one_counts() {
        let paces = Paces::default();
        let (mine, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let account = account(0, 1);
        paces.rest(mine, "acct", Duration::from_secs(9), "asked to");
        paces.rest(mine, "acct", Duration::from_secs(3), "shorter");
        assert_eq!(
            paces.take_slot(mine, &account),
            Slot::Resting(Duration::from_secs(9), "asked to".into())
        );
        assert_eq!(paces.take_slot(other, &account), Slot::In(Duration::ZERO));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(paces.take_slot(mine, &account), Slot::In(Duration::ZERO));
    }
}
