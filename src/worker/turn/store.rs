//! What the network threads have fetched is stored, in one transaction for several pages where that works.

use connector_service_core::error::{Code, Failure};
use connector_service_core::fetch::{Event, FetchedPage, Rest, Waiting, What};
use pgrx::prelude::*;
use uuid::Uuid;

use super::{Collected, Turn};
use crate::error::{Error, Result};
use crate::store::{budget, page, run, tx, upload};
use crate::worker::look;
use crate::{fault, signals};

/// Pages of one transaction. More: a longer transaction, and more to do again if one of them fails.
const PAGES_AT_ONCE: usize = 8;
/// Records of one transaction, beyond which no further page is added to it.
const RECORDS_AT_ONCE: usize = 4_000;
/// How often a page whose transaction met a deadlock, a lock time-out or the like is tried again.
const STORE_TRIES: u32 = 5;

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
        let (going, blocked) = (&mut self.going, &mut self.upkeep.blocked);
        tx(|db| {
            page::commit_without_waiting(db)?;
            let mut underived = page::begin(db)?;
            // Their facts follow.
            *blocked |= underived.is_none();
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
                self.upkeep.blocked |= underived.is_none();
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
}

/// What could not be written down is no reason to end anything.
fn said(written: Result<()>) {
    if let Err(error) = written {
        warning!("connector_service could not write down how a run goes: {error}");
    }
}
