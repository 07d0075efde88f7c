//! What the network threads have fetched is stored, in one transaction for several pages where that works.

use std::time::{Duration, Instant};

use connector_service_core::error::{Code, Failure};
use connector_service_core::fetch::{Event, FetchedPage, Rest, Waiting, What};
use uuid::Uuid;

use super::{Collected, Turn};
use crate::error::{Error, Result};
use crate::store::page::Deriving;
use crate::store::{Alarm, budget, page, run, tx, upload};
use crate::worker::look;
use crate::{activity, fault, signals, trouble};

/// Pages of one transaction. More: a longer transaction, and more to do again if one of them fails.
const PAGES_AT_ONCE: usize = 8;
/// Records of one transaction, beyond which no further page is added to it.
const RECORDS_AT_ONCE: usize = 4_000;
/// How often a page whose transaction met a deadlock, a lock time-out or the like is tried again.
const STORE_TRIES: u32 = 5;
/// Longest time for one transaction. Longer: everybody waits for what the owner of a database hangs on a table, or for a look
/// at what is gone among millions of records. Shorter: on a busy machine a large page fails.
const STORED_WITHIN: Duration = Duration::from_secs(60);
/// How long the facts of a tenant that took too long follow in a process of their own. Longer: a tenant whose mapping was
/// mended has records written twice for longer. Shorter: everybody waits for the same mapping more often.
const SLOW_FOR: Duration = Duration::from_secs(10 * 60);

const COULD_NOT_STORE: &str = "could not store a page";

impl Turn {
    /// Stores what the tasks have fetched, as far as it is there.
    pub(super) fn collect(&mut self) -> Collected {
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
                What::Part(wanted) => {
                    let part = tx(|db| upload::part(db, run, wanted.number));
                    let part = part.unwrap_or_else(|error| {
                        trouble::trouble("could not read a part of a file", &error);
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
                What::Previewed(looked) => {
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

    /// Stores pages, together if that works, else one by one, so that one page's trouble stays its own.
    fn store(&mut self, mut pages: Vec<(Uuid, FetchedPage)>) {
        let _doing = activity::doing(match pages.as_slice() {
            [(run, _)] => format!("storing a page of run {run}"),
            pages => format!("storing {} pages", pages.len()),
        });
        let all: Vec<_> = pages.iter().map(|(run, page)| (*run, page)).collect();
        if all.len() > 1 && self.store_all(&all).is_ok() {
            let runs = pages.iter().filter_map(|(run, _)| self.going.get(run));
            runs.for_each(|going| trouble::over_of(COULD_NOT_STORE, going.claimed.connector));
            return;
        }
        for (run, page) in &mut pages {
            let Some(going) = self.going.get(run) else {
                continue;
            };
            let connector = going.claimed.connector;
            let Err(error) = self.store_alone(*run, page) else {
                trouble::over_of(COULD_NOT_STORE, connector);
                continue;
            };
            if matches!(error, Error::Fenced(_)) {
                self.forget(*run);
                continue;
            }
            self.engine.abort(*run);
            let failure = if error.is_about_a_lock() {
                // What is not stored is asked for again.
                let message = "another session has locked rows of this connector";
                Failure::new(Code::Locked, message)
            } else {
                trouble::trouble_of(COULD_NOT_STORE, connector, &error);
                let message = format!("the page could not be stored: {}", error.words());
                Failure::new(Code::StoreFailed, message)
            };
            self.finish(*run, Err(failure));
        }
    }

    /// Stores pages in one transaction. What of a tenant whose facts take too long, or cannot be written, is stored without
    /// them.
    fn store_all(&mut self, pages: &[(Uuid, &FetchedPage)]) -> Result<()> {
        loop {
            let (token, going, slow) = (self.token, &mut self.going, &self.slow);
            let mut current = None;
            let alarm = Alarm::set(STORED_WITHIN);
            let stored = tx(|db| {
                page::commit_without_waiting(db)?;
                let mut deriving = Deriving::begin(slow);
                for (run, page) in pages {
                    // A page of a run that was forgotten meanwhile.
                    let Some(going) = going.get_mut(run) else {
                        continue;
                    };
                    let claimed = &going.claimed;
                    page::store(db, claimed, token, page, &mut going.search, &mut deriving)?;
                }
                deriving.finish(db, &mut current)
            });
            match stored {
                Ok(is_left) => {
                    self.is_left |= is_left;
                    return Ok(());
                }
                Err(error) => match page::whose_facts(&error, current) {
                    // Once: what is refused again is not about facts that could follow.
                    Some(tenant) if !self.slow.contains_key(&tenant) => {
                        self.slow.insert(tenant, Instant::now() + SLOW_FOR);
                    }
                    _ => return Err(alarm.explain(error)),
                },
            }
            signals::answer();
        }
    }

    fn store_alone(&mut self, run: Uuid, page: &mut FetchedPage) -> Result<()> {
        let mut tries = 0;
        loop {
            let stored = self.store_all(&[(run, &*page)]);
            let Some(going) = self.going.get_mut(&run) else {
                return Ok(());
            };
            match stored {
                Err(error) if error.is_duplicate() && tries < STORE_TRIES => {
                    going.search = true;
                    tries += 1;
                }
                Err(error)
                    if error.is_momentary() && !error.is_about_a_lock() && tries < STORE_TRIES =>
                {
                    tries += 1;
                }
                Err(error) if error.is_about_data() => {
                    if !page::reject_refused(&going.claimed, page)? {
                        return Err(error);
                    }
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
}

/// What could not be written down is no reason to end anything.
pub(super) fn said(written: Result<()>) {
    const COULD_NOT_SAY: &str = "could not record the progress of a run";
    match written {
        Ok(()) => trouble::over(COULD_NOT_SAY),
        Err(error) => trouble::trouble(COULD_NOT_SAY, &error),
    }
}
