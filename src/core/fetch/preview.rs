//! The first page of each stream, for tests of a connection and previews.

use super::page::{Got, Trouble};
use super::pass::fetched_page;
use super::run::Run;
use super::{Event, FetchedPage, Previewed, What};
use crate::error::{Code, Failure};
use crate::record::StreamState;
use crate::source::Stream;

/// Empty pages that a preview skips: some sources first have to ask where their records are.
const MOST_EMPTY: u32 = 10;

impl Run<'_> {
    /// Reads the first page of every stream, moves no cursor, and reports each stream. Ends at once if the credentials
    /// are wrong: trying them again and again locks accounts.
    pub async fn preview(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        for stream in self.reader.streams() {
            let looked = self.first_page(stream).await;
            let failure = looked.as_ref().err().cloned();
            let stream = stream.name.clone();
            let what = What::Previewed(Box::new(Previewed {
                stream,
                understood: None,
                result: looked,
            }));
            let run = self.run;
            self.outbox.send(Event { run, what }).await;
            if let Some(failure) = failure {
                let stop = matches!(
                    failure.code,
                    Code::CredentialsRejected | Code::CredentialsMissing | Code::RateLimited
                );
                result = result.and(Err(failure));
                if stop {
                    break;
                }
            }
        }
        result
    }

    /// The first page with a record, or the last page.
    async fn first_page(&mut self, stream: &Stream) -> Result<Option<FetchedPage>, Failure> {
        let state = self.states.remove(&stream.name).map(|stored| stored.state);
        let state = state.unwrap_or_default();
        self.start.read_until = state.read_until;
        let mut standing = self.begin(stream, state.at.as_ref())?;
        let mut pages = 0;
        loop {
            pages += 1;
            let fetched = match self
                .page(stream, &standing)
                .await
                .map_err(Trouble::failure)?
            {
                Got::Page(fetched) => fetched,
                Got::Absent(_) => return Ok(None),
            };
            let (page, bytes, budget) = *fetched;
            let is_empty =
                page.records.is_empty() && page.rejected.is_empty() && page.deleted.is_empty();
            if let Some(next) = page.next.clone().filter(|_| is_empty && pages < MOST_EMPTY) {
                standing.high = page.high.or(standing.high);
                standing.next = Some(next);
                continue;
            }
            let state = StreamState::default();
            let window = standing.window;
            return Ok(Some(fetched_page(
                stream, page, state, window, bytes, budget,
            )));
        }
    }
}
