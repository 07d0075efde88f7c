//! The first page of each stream, for tests of a connection and previews.

use super::bounds::{Seen, remember};
use super::outcome::{End, of_stream};
use super::page::{Got, Trouble};
use super::pass::fetched_page;
use super::run::Run;
use super::{FetchedPage, Previewed, What};
use crate::error::Failure;
use crate::record::StreamState;
use crate::source::{Start, Stream};

/// Empty pages that a preview skips: some sources first have to ask where their records are.
const MOST_EMPTY: u32 = 10;

impl Run<'_> {
    /// Reads the first page of a stream, moves no cursor, and reports it.
    pub async fn preview(&self, stream: &Stream) -> Result<End, Failure> {
        let looked = self.first_page(stream).await;
        let end = match &looked {
            Ok(Some(_)) => Ok(End::Read),
            Ok(None) => Ok(End::Absent),
            Err(failure) => Err(failure.clone()),
        };
        let warning = looked.as_ref().ok().and_then(Option::as_ref);
        if let Some(warning) = warning.and_then(|page| page.warning.clone()) {
            self.warn(stream, &warning).await;
        }
        self.tell(What::Previewed(Box::new(Previewed {
            stream: stream.name.clone(),
            understood: None,
            result: looked,
        })))
        .await;
        end
    }

    /// The first page with a record, or the last page.
    async fn first_page(&self, stream: &Stream) -> Result<Option<FetchedPage>, Failure> {
        let state = self.states.get(&stream.name);
        let state = state.map(|stored| stored.state.clone()).unwrap_or_default();
        let start = Start {
            read_until: state.read_until,
            ..self.start
        };
        let mut standing = self.begin(stream, state.at.as_ref(), start)?;
        let mut seen = stream.whole.then(Seen::default);
        let mut warning = None;
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
            self.note_page();
            let (mut page, bytes, budget) = *fetched;
            remember(&mut seen, &page);
            warning = warning.or(page.warning.take());
            let is_empty =
                page.records.is_empty() && page.rejected.is_empty() && page.deleted.is_empty();
            if let Some(next) = page.next.clone().filter(|_| is_empty && pages < MOST_EMPTY) {
                standing.high = page.high.or(standing.high);
                standing.next = Some(next);
                continue;
            }
            // The first page is all there is: what is stored beside it is gone.
            let all = seen.filter(|_| page.next.is_none()).map(|seen| seen.ids);
            let state = StreamState::default();
            let window = standing.window;
            return Ok(Some(FetchedPage {
                all,
                warning: warning.map(|warning| of_stream(&stream.name, &warning)),
                ..fetched_page(stream, page, state, window, bytes, budget)
            }));
        }
    }
}
