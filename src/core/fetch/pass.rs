//! A pass over a stream: page after page, until there is no next one.
//!
//! Each page carries the state that its stream has once the page is stored, so a run that ends in the middle resumes
//! after its last committed page. `at`, the proven data position, moves with every page only where
//! the source's order allows it.

use std::time::Duration;

use serde_json::Value;

use super::bounds::{MOST_SEEN, Progress, remember};
use super::page::{Got, Standing, Trouble};
use super::run::Run;
use super::{Budget, Event, FetchedPage, RESUME_WITHIN, What};
use crate::error::{Code, Failure};
use crate::record::{Listing, Page, Pass, StreamState, Window};
use crate::source::Stream;

/// How often a pass starts again because its page token expired. More: a vendor whose tokens always expire is asked for
/// ever.
const RESTARTS: u32 = 3;

/// Records of a page that are stored in one transaction; a larger page is stored in parts. More: everybody's pages wait while
/// they are stored, and their facts derived. Fewer: more transactions.
const RECORDS_AT_ONCE: usize = 5_000;

impl Run<'_> {
    /// Reads every stream. A failure of one stream alone does not stop the others; the run ends with the first such
    /// failure.
    pub async fn all_streams(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        for stream in self.reader.streams() {
            if !self.is_asked(stream) {
                continue;
            }
            let Err(mut failure) = self.pass(stream).await else {
                continue;
            };
            failure.message = format!("stream \"{}\": {}", stream.name, failure.message);
            let own = matches!(
                failure.code,
                Code::NotFound
                    | Code::PermissionMissing
                    | Code::RequestRefused
                    | Code::UnexpectedShape
                    | Code::InvalidJson
                    | Code::ResponseTooLarge
                    | Code::RepeatedPage
                    | Code::TooManyPages
                    | Code::ForeignNextPage
                    | Code::TemplateFailed
            );
            if !own {
                return Err(failure);
            }
            result = result.and(Err(failure));
        }
        result
    }

    /// Whether the run asks for the stream. A backfill has nothing more to ask of a stream that is always read whole, or
    /// that has no end to be set.
    fn is_asked(&self, stream: &Stream) -> bool {
        let Some(span) = self.start.span else {
            return true;
        };
        let is_whole = stream.whole && !stream.ordered;
        !is_whole && (span.is_first || self.reader.is_bounded(stream))
    }

    async fn pass(&mut self, stream: &Stream) -> Result<(), Failure> {
        let stored = self.states.remove(&stream.name);
        let age = stored.as_ref().map_or(Duration::MAX, |stored| stored.age);
        let state = stored.map_or_else(StreamState::default, |stored| stored.state);
        if state.finished_by == Some(self.run) {
            return Ok(());
        }
        self.start.read_until = state.read_until;
        self.start.missed_since = state.missed_since;
        let resumable = |pass: &Pass| pass.definition == self.definition && age <= RESUME_WITHIN;
        let unfinished = state.pass.filter(resumable);
        let unfinished = unfinished.and_then(|pass| self.uncovered(stream, pass));
        let mut resumed = unfinished.is_some();
        let mut at = state.at;
        // Where the page before stood.
        let mut stands: Option<StreamState> = None;
        let mut standing = match unfinished {
            Some(pass) => Standing {
                window: pass.window,
                next: Some(pass.next),
                high: pass.high,
            },
            None => self.begin(stream, at.as_ref())?,
        };
        let mut progress = Progress::default();
        let is_span = self.start.span.is_some();
        let part = (!resumed && !stream.whole && !is_span)
            .then(|| {
                let (cursor, window) = (at.as_ref(), standing.window);
                self.reader.shows_all_of(stream, cursor, self.start, window)
            })
            .flatten();
        // A part of the past does not show what else there is.
        let shows_all = (stream.whole || part.is_some()) && !is_span;
        let mut seen = (shows_all && !resumed).then(Vec::new);
        let looks_for_gone = seen.is_some() && stream.whole;
        let mut is_cut_off = false;
        let (mut pages, mut restarts) = (0, 0);
        loop {
            if pages == self.limits.pages {
                return Err(Failure::new(
                    Code::TooManyPages,
                    format!("the stream has not ended after {pages} pages"),
                ));
            }
            pages += 1;
            let got = match self.page(stream, &standing).await {
                Ok(got) => got,
                // The place of a pass is over: start again from the proven position.
                Err(Trouble::Expired(_)) if restarts < RESTARTS => {
                    restarts += 1;
                    resumed = false;
                    standing = self.begin(stream, at.as_ref())?;
                    seen = shows_all.then(Vec::new);
                    progress = Progress::default();
                    continue;
                }
                Err(trouble) => {
                    let failure = trouble.failure();
                    if !resumed || !matches!(failure.code, Code::RequestRefused | Code::NotFound) {
                        return Err(failure);
                    }
                    resumed = false;
                    standing = self.begin(stream, at.as_ref())?;
                    seen = shows_all.then(Vec::new);
                    continue;
                }
            };
            let (page, bytes, budget) = match got {
                Got::Page(fetched) => *fetched,
                Got::Absent(why) => {
                    let why = format!("stream \"{}\": {why}", stream.name);
                    if standing.next.is_none() {
                        let (run, what) = (self.run, What::Warning(why));
                        self.outbox.send(Event { run, what }).await;
                        return Ok(());
                    }
                    // In the middle of a pass: what was read stays, and the pass is over. It has not read
                    // everything, so it moves nothing and finds nothing missing.
                    (seen, is_cut_off) = (None, true);
                    standing.high = None;
                    let warning = Some(why);
                    let page = Page {
                        warning,
                        ..Page::default()
                    };
                    (page, 0, Budget::default())
                }
            };
            resumed = false;
            if page.is_part {
                standing.next = page.next;
                continue;
            }
            progress.check(&page)?;
            let mut page = page;
            self.list(&mut page, &mut seen);
            remember(&mut seen, &page);
            is_cut_off |= page.is_cut_off;
            let stood = stands.take().unwrap_or_else(|| StreamState {
                at: at.clone(),
                read_until: self.start.read_until,
                missed_since: self.start.missed_since,
                ..StreamState::default()
            });
            standing.high = page.high.clone().or(standing.high);
            standing.next = page.next.clone();
            if (stream.ordered || standing.next.is_none()) && standing.high.is_some() {
                at = standing.high.clone();
            }
            let ended = standing.next.is_none();
            let pass = standing.next.as_ref().and_then(|next| {
                Some(Pass {
                    next: self.covered(stream, next)?,
                    high: standing.high.clone(),
                    window: standing.window,
                    definition: self.definition.clone(),
                })
            });
            let wait = page.wait;
            let state = StreamState {
                at: at.clone(),
                pass,
                read_until: match ended && !is_cut_off {
                    true => Some(standing.window.to),
                    false => self.start.read_until,
                },
                missed_since: match (ended, is_cut_off) {
                    (true, false) => None,
                    (true, true) => self.start.missed_since.or(standing.window.from),
                    (false, _) => self.start.missed_since,
                },
                finished_by: ended.then_some(self.run),
            };
            let mut fetched = fetched_page(stream, page, state, standing.window, bytes, budget);
            if ended {
                fetched.all = seen.take();
                fetched.part.clone_from(&part);
                if looks_for_gone && fetched.all.is_none() && fetched.warning.is_none() {
                    fetched.warning = Some(format!(
                        "stream \"{}\": deletions were not looked for: the stream has more than {MOST_SEEN} rows, or rows without a key",
                        stream.name
                    ));
                }
            }
            stands = Some(fetched.state.clone());
            for part in parts(fetched, &stood) {
                let (run, what) = (self.run, What::Page(Box::new(part)));
                self.outbox.send(Event { run, what }).await;
            }
            if ended {
                return Ok(());
            }
            if let Some((wait, why)) = wait {
                self.show_waiting(wait, why, None).await;
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// A list of all that is there begins anew what was seen. One that an interruption has cut shows nothing.
    fn list(&self, page: &mut Page, seen: &mut Option<Vec<[u8; 16]>>) {
        match page.listing {
            Listing::Begins if self.start.span.is_none() => *seen = Some(Vec::new()),
            Listing::GoesOn if seen.is_none() && page.warning.is_none() => {
                page.warning = Some(
                    "deletions were not looked for: the list of what is there was interrupted, or is too long; refresh the stream to try again".to_owned(),
                );
            }
            _ => {}
        }
    }

    /// A page token as it may be stored. `None`: it may not be, and an interrupted pass starts again.
    fn covered(&self, stream: &Stream, next: &Value) -> Option<Value> {
        match &self.cover {
            None => Some(next.clone()),
            Some(cover) => cover.seal(&stream.name, next).ok(),
        }
    }

    fn uncovered(&self, stream: &Stream, pass: Pass) -> Option<Pass> {
        let Some(cover) = &self.cover else {
            return Some(pass);
        };
        let next = cover.open(&stream.name, &pass.next)?;
        Some(Pass { next, ..pass })
    }
}

/// A page as it will be stored.
pub fn fetched_page(
    stream: &Stream,
    page: Page,
    state: StreamState,
    window: Window,
    bytes: u64,
    budget: Budget,
) -> FetchedPage {
    FetchedPage {
        records: page.records,
        rejected: page.rejected,
        deleted: page.deleted,
        deleted_with: page.deleted_with,
        count: page.count,
        warning: page.warning,
        bytes,
        budget,
        ..FetchedPage::of(stream.name.clone(), state, window)
    }
}

/// A large page in parts, each of which is stored in a transaction of its own; all but the last one stand where the page
/// before did, so that after a crash the whole page is asked for again.
fn parts(page: FetchedPage, stood: &StreamState) -> impl Iterator<Item = FetchedPage> {
    let count = page.records.len().max(page.rejected.len());
    let mut before_last = count.div_ceil(RECORDS_AT_ONCE).saturating_sub(1);
    let FetchedPage {
        records, rejected, ..
    } = page;
    let (mut records, mut rejected) = (records.into_iter(), rejected.into_iter());
    let (stream, window, stood) = (page.stream.clone(), page.window, stood.clone());
    let mut last = Some(FetchedPage {
        records: Vec::new(),
        rejected: Vec::new(),
        ..page
    });
    std::iter::from_fn(move || {
        let mut part = match before_last {
            0 => last.take()?,
            _ => FetchedPage::of(stream.clone(), stood.clone(), window),
        };
        before_last = before_last.saturating_sub(1);
        part.records = records.by_ref().take(RECORDS_AT_ONCE).collect();
        part.rejected = rejected.by_ref().take(RECORDS_AT_ONCE).collect();
        Some(part)
    })
}
