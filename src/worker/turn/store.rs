//! What the network threads have fetched is stored, in one transaction for several pages where that works.

use connector_service_core::error::{Code, Failure};
use connector_service_core::fetch::{Event, FetchedPage, Rest, Rotation, Waiting, What};
use uuid::Uuid;

use super::{Collected, Turn, claim};
use crate::error::{Error, Result};
use crate::store::{budget, connector, page, run, tx, upload};
use crate::worker::look;
use crate::{activity, fault, signals, trouble};

/// Pages of one transaction. More: a longer transaction, and more to do again if one of them fails.
const PAGES_AT_ONCE: usize = 8;
/// Records of one transaction, beyond which no further page is added to it.
const RECORDS_AT_ONCE: usize = 4_000;
/// How often a page whose transaction met a deadlock, a lock time-out or the like is tried again.
const STORE_TRIES: u32 = 5;

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
                What::Rotated(rotation) => self.keep(run, *rotation),
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
        let _doing = activity::doing(match pages.as_slice() {
            [(run, _)] => format!("storing a page of run {run}"),
            pages => format!("storing {} pages", pages.len()),
        });
        if pages.len() > 1 && self.store_together(&mut pages).is_ok() {
            let runs = pages.iter().filter_map(|(run, _)| self.going.get(run));
            runs.for_each(|going| trouble::over_of(COULD_NOT_STORE, going.claimed.connector));
            return;
        }
        for (run, page) in pages {
            let Some(going) = self.going.get(&run) else {
                continue;
            };
            let connector = going.claimed.connector;
            let stored = self.store_alone(run, page);
            if stored.is_ok() {
                trouble::over_of(COULD_NOT_STORE, connector);
            }
            if let Err(error) = stored {
                if matches!(error, Error::Fenced(_)) {
                    self.forget(run);
                    continue;
                }
                trouble::trouble_of(COULD_NOT_STORE, connector, &error);
                let message = format!("the page could not be stored: {}", error.words());
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

    /// Stores a refresh token that a vendor replaced, and tells the run that it is.
    fn keep(&mut self, run: Uuid, rotation: Rotation) {
        let Some(going) = self.going.get(&run) else {
            return;
        };
        let (claimed, token) = (&going.claimed, self.token);
        let (place, connector) = (claim::place(claimed), claimed.connector);
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
            trouble::trouble_of("could not store a refresh token", connector, &error);
            let words = error.words();
            let message = format!("the new refresh token could not be stored: {words}");
            Failure::new(Code::StoreFailed, message)
        });
        // Nobody waits where the run was ended meanwhile.
        let _ = rotation.stored.send(kept);
    }
}

/// What could not be written down is no reason to end anything.
fn said(written: Result<()>) {
    const COULD_NOT_SAY: &str = "could not write down how a run goes";
    match written {
        Ok(()) => trouble::over(COULD_NOT_SAY),
        Err(error) => trouble::trouble(COULD_NOT_SAY, &error),
    }
}
