//! Stores what the network threads have fetched, with several pages in one transaction if that works.

use std::time::{Duration, Instant};

use connector_service_core::error::{Code, Failure};
use connector_service_core::fetch::{Event, FetchedPage, Outcome, Rest, Waiting, What};
use serde_json::Value;
use uuid::Uuid;

use super::{Collected, Running, SyncWorker, end};
use crate::error::{Error, Result};
use crate::store::page::Deriving;
use crate::store::storable::storable_json;
use crate::store::{Alarm, budget, page, run, tx, upload};
use crate::worker::report;
use crate::{activity, fault, signals, trouble};

/// Pages of one transaction. More: longer transactions, and more work to repeat if one page fails.
const PAGES_AT_ONCE: usize = 8;
/// Records of one transaction after which no further page is added to it.
const RECORDS_AT_ONCE: usize = 4_000;
/// How often a page is tried again after a deadlock, a lock time-out or the like.
const STORE_TRIES: u32 = 5;
/// Longest time for one transaction. Longer: all tenants wait for a user's slow trigger, or for a search for deletions among
/// millions of records. Shorter: on a busy machine a large page fails.
const STORED_WITHIN: Duration = Duration::from_secs(60);
/// How long the facts of a tenant that took too long are left to the upkeep process. Longer: after the mapping is fixed, records
/// are still written twice for a while. Shorter: all tenants wait for the same mapping more often.
const SLOW_FOR: Duration = Duration::from_secs(10 * 60);

const COULD_NOT_STORE: &str = "could not store a page";

impl SyncWorker {
    /// Stores what the tasks have fetched so far.
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
                        trouble::failed("could not read a part of a file", &error);
                        None
                    });
                    // If the run has ended meanwhile, nobody receives this.
                    let _ = wanted.reply.send(part.map(Into::into));
                }
                What::Waiting(waiting) => self.show_waiting(run, *waiting),
                What::Warning(warning) => {
                    let token = self.token;
                    log_failure(tx(|db| run::warn(db, run, token, &warning)));
                }
                What::Planned(streams) => {
                    if let Some(running) = self.running.get_mut(&run) {
                        let unread = streams.into_iter().map(|name| (name, run::unread()));
                        running.plan = storable_json(Value::Object(unread.collect()));
                    }
                }
                What::Failed(ended) => {
                    if let Some(running) = self.running.get(&run) {
                        let (plan, token) = (&running.plan, self.token);
                        let ends = end::of_streams(&[*ended], false);
                        log_failure(tx(|db| run::note_streams(db, run, token, plan, &ends)));
                    }
                }
                What::Previewed(looked) => {
                    if let Some(running) = self.running.get(&run) {
                        let found = report::of_stream(&running.claimed, *looked);
                        let token = self.token;
                        log_failure(tx(|db| run::report(db, run, token, found)));
                    }
                }
                What::Finished(outcome) => {
                    ended = Some((run, *outcome));
                    break;
                }
            }
        }
        if !pages.is_empty() {
            self.store(pages);
            fault::point("after_commit");
        }
        if let Some((run, outcome)) = ended {
            fault::point("before_finish");
            self.finish(run, outcome);
            collected.freed = true;
        }
        collected
    }

    /// Stores pages, together if that works, else one by one, so that the failure of one page affects no other.
    fn store(&mut self, mut pages: Vec<(Uuid, FetchedPage)>) {
        let _doing = activity::doing(match pages.as_slice() {
            [(run, _)] => format!("storing a page of run {run}"),
            pages => format!("storing {} pages", pages.len()),
        });
        let all: Vec<_> = pages.iter().map(|(run, page)| (*run, page)).collect();
        if all.len() > 1 && self.store_all(&all).is_ok() {
            let runs = pages.iter().filter_map(|(run, _)| self.running.get(run));
            runs.for_each(|running| {
                trouble::succeeded_for(COULD_NOT_STORE, running.claimed.connector)
            });
            return;
        }
        for (run, page) in &mut pages {
            let Some(running) = self.running.get(run) else {
                continue;
            };
            let connector = running.claimed.connector;
            let Err(error) = self.store_alone(*run, page) else {
                trouble::succeeded_for(COULD_NOT_STORE, connector);
                continue;
            };
            if matches!(error, Error::Fenced(_)) {
                self.forget(*run);
                continue;
            }
            let trace = self.engine.abort(*run);
            let failure = if error.is_about_a_lock() {
                // A page that is not stored is requested again.
                let message = "another session has locked rows of this connector";
                Failure::new(Code::Locked, message)
            } else {
                trouble::failed_for(COULD_NOT_STORE, connector, &error);
                let message = format!("the page could not be stored: {}", error.one_line());
                Failure::new(Code::StoreFailed, message)
            };
            let outcome = Outcome {
                trace,
                ..Err(failure).into()
            };
            self.finish(*run, outcome);
        }
    }

    /// Stores pages in one transaction. If the facts of a tenant take too long or cannot be written, its pages are stored without
    /// facts.
    fn store_all(&mut self, pages: &[(Uuid, &FetchedPage)]) -> Result<()> {
        loop {
            let (token, running, slow) = (self.token, &mut self.running, &self.slow);
            let mut current = None;
            let alarm = Alarm::set(STORED_WITHIN);
            let stored = tx(|db| {
                page::commit_without_waiting(db)?;
                let mut deriving = Deriving::begin(slow);
                for (run, page) in pages {
                    // No entry: the run of this page was dropped meanwhile.
                    let Some(running) = running.get_mut(run) else {
                        continue;
                    };
                    let Running {
                        claimed,
                        search,
                        searches,
                        plan,
                        ..
                    } = running;
                    let search = searches.entry(page.stream.clone()).or_insert(*search);
                    page::store(db, claimed, token, page, plan, search, &mut deriving)?;
                }
                deriving.finish(db, &mut current)
            });
            match stored {
                Ok(is_left) => {
                    self.is_left |= is_left;
                    return Ok(());
                }
                Err(error) => match page::tenant_of_failed_facts(&error, current) {
                    // Only once: a second failure is not about the facts.
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
            let Some(running) = self.running.get_mut(&run) else {
                return Ok(());
            };
            match stored {
                Err(error) if error.is_duplicate() && tries < STORE_TRIES => {
                    running.searches.insert(page.stream.clone(), true);
                    tries += 1;
                }
                Err(error)
                    if error.is_momentary() && !error.is_about_a_lock() && tries < STORE_TRIES =>
                {
                    tries += 1;
                }
                Err(error) if error.is_about_data() => {
                    if !page::reject_refused(&running.claimed, page)? {
                        return Err(error);
                    }
                }
                other => return other,
            }
            signals::answer();
        }
    }

    /// Shows what a run waits for, and stores what the vendor reports about its account.
    fn show_waiting(&self, run: Uuid, waiting: Waiting) {
        let Some(running) = self.running.get(&run) else {
            return;
        };
        let (tenant, token) = (running.claimed.tenant, self.token);
        let Waiting { wait, why, account } = waiting;
        log_failure(tx(|db| match account {
            Some((account, used)) => {
                if wait.is_zero() {
                    // The used amount comes with every page.
                    page::commit_without_waiting(db)?;
                }
                budget::record(db, tenant, &Rest { account, wait, why }, used)
            }
            None => run::show_waiting(db, run, token, wait, &why),
        }));
    }
}

/// Logs a write that failed. Progress that is not recorded is no reason to end a run.
pub(super) fn log_failure(written: Result<()>) {
    const COULD_NOT_RECORD: &str = "could not record the progress of a run";
    match written {
        Ok(()) => trouble::succeeded(COULD_NOT_RECORD),
        Err(error) => trouble::failed(COULD_NOT_RECORD, &error),
    }
}
