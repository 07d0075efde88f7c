//! When a run may send its next request: after other runs of its account, after the pause that the vendor asked for, and
//! after a failure.

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use url::Url;

use super::bounds::Tries;
use super::pace::Slot;
use super::place::{first_of, server};
use super::run::Run;
use super::{Event, Waiting, What};
use crate::error::{Code, Failure, LONGEST_REST};
use crate::source::{Response, Verdict};

/// A wait from here on is shown in the run's row. Shorter: rows are written for nothing.
const SHOWN_FROM: Duration = Duration::from_secs(1);

impl Run<'_> {
    /// Waits until few enough runs of the same account are running.
    pub async fn take_place(&self) -> Option<OwnedSemaphorePermit> {
        let account = match self.reader.account() {
            Some(account) => account.name.clone(),
            None => self.host()?,
        };
        let places = self
            .paces
            .places(self.tenant, &account, self.limits.syncs_of_account);
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Some(place);
        }
        let why = "other syncs of the same account are running";
        self.show_waiting(SHOWN_FROM, why, None).await;
        // It is never closed.
        places.acquire_owned().await.ok()
    }

    /// Where the first stream lies, of a source that has no account.
    fn host(&self) -> Option<String> {
        let stream = self.reader.streams().first()?;
        let window = self.begin(stream, None, self.start).ok()?.window;
        let at = first_of(stream, window, self.start, None);
        if let Ok(Some(query)) = self.reader.query(&at) {
            return Some(query.server.place.to_string());
        }
        let url = self.reader.request(&at).ok()?.url;
        Some(url.origin().ascii_serialization())
    }

    /// Waits until the account may be asked; fails where that is too long for a run.
    pub async fn wait_for_slot(&self) -> Result<(), Failure> {
        let Some(account) = self.reader.account() else {
            return Ok(());
        };
        loop {
            let (wait, why) = match self.paces.take_slot(self.tenant, account) {
                Slot::In(wait) => {
                    let why = "the account's rate limit spaces its requests";
                    self.show_waiting(wait, why, None).await;
                    tokio::time::sleep(wait).await;
                    return Ok(());
                }
                Slot::Resting(wait, why) => (wait, why),
            };
            if wait > self.limits.longest_pause {
                let failure = Failure::new(Code::RateLimited, why).after(Some(wait));
                return Err(failure.of_account());
            }
            self.show_waiting(wait, &why, None).await;
            tokio::time::sleep(wait).await;
        }
    }

    /// Lets the whole account rest where the vendor asked this run to.
    pub async fn note_usage(&self, got: &Response, verdict: &Verdict, url: &Url) {
        let Some(account) = self.reader.account() else {
            return;
        };
        let usage = self.reader.usage(got);
        let asked = match verdict {
            Verdict::Retry(failure) if failure.code == Code::RateLimited => failure
                .retry_after
                .map(|wait| (wait, failure.message.clone())),
            _ => None,
        };
        let server = server(url);
        let rest = asked.or(usage.rest);
        let rest = rest.map(|(wait, why)| (wait.min(LONGEST_REST), format!("{server}: {why}")));
        if let Some((wait, why)) = &rest {
            self.paces.rest(self.tenant, &account.name, *wait, why);
        }
        let (wait, why) = rest.unwrap_or_default();
        if wait >= SHOWN_FROM || usage.used.is_some() {
            self.show_waiting(wait, &why, Some((account.name.clone(), usage.used)))
                .await;
        }
    }

    /// Waits until the next try; gives the failure back when there is none, or not within a run.
    pub async fn pause(&self, tries: &mut Tries, failure: Failure) -> Result<(), Failure> {
        let why = failure.message.clone();
        let wait = tries.next(failure)?;
        self.show_waiting(wait, &why, None).await;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    pub async fn show_waiting(
        &self,
        wait: Duration,
        why: &str,
        account: Option<(String, Option<(u64, u64)>)>,
    ) {
        if wait < SHOWN_FROM && account.is_none() {
            return;
        }
        let why = why.to_owned();
        let waiting = Waiting { wait, why, account };
        let (run, what) = (self.run, What::Waiting(Box::new(waiting)));
        self.outbox.send(Event { run, what }).await;
    }
}
