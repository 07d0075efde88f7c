//! A pass over a stream: page after page, until there is no next one.
//!
//! Each page carries the state that its stream has once the page is stored, so a run that ends in the middle resumes
//! after its last committed page. `at`, the proven data position, moves with every page only where
//! the source's order allows it.

use std::time::Duration;

use serde_json::Value;

use super::bounds::{MOST_SEEN, Progress, Seen, has_one_id_twice, remember};
use super::outcome::{End, of_stream};
use super::page::{Got, Standing, Trouble};
use super::run::Run;
use super::{Budget, FetchedPage, RESUME_WITHIN, What};
use crate::error::{Code, Failure};
use crate::record::{Listing, Page, Pass, StreamState, Window};
use crate::source::{Start, Stream};

/// How often a pass starts again because its page token expired. More: a vendor whose tokens always expire is asked for
/// ever.
const RESTARTS: u32 = 3;

/// Records of a page that are stored in one transaction; a larger page is stored in parts. More: everybody's pages wait while
/// they are stored, and their facts derived. Fewer: more transactions.
const RECORDS_AT_ONCE: usize = 5_000;

/// Warnings of one stream in one run. More: a stream that warns of every page hides what others warn of.
const MOST_WARNINGS: usize = 5;

const ONE_ID_TWICE: &str = "several records of a page have the same key, and of those with one key the last one is kept; name fields that identify a record as the key";

/// Where a pass begins or goes on.
struct Begun {
    standing: Standing,
    /// It goes on where an earlier run stopped.
    is_resumed: bool,
    /// See [`Pass`].
    again: bool,
    shifted: bool,
}

impl Run<'_> {
    /// Reads a stream from its cursor, or from where an earlier run of it stopped, to its end.
    pub async fn pass(&self, stream: &Stream) -> Result<End, Failure> {
        let stored = self.states.get(&stream.name);
        let state = stored
            .map(|stored| stored.state.clone())
            .unwrap_or_default();
        if state.finished_by == Some(self.run) {
            return Ok(End::Read);
        }
        let start = Start {
            read_until: state.read_until,
            missed_since: state.missed_since,
            ..self.start
        };
        let mut at = state.at.clone();
        let Begun {
            mut standing,
            mut is_resumed,
            again,
            shifted,
        } = self.begin_or_resume(stream, state, start)?;
        let mut is_shifted = shifted;
        // Where the page before stood.
        let mut stands: Option<StreamState> = None;
        let mut progress = Progress::default();
        let mut warnings: Vec<String> = Vec::new();
        let is_span = start.span.is_some();
        let mut part = (!is_resumed && !stream.whole && !is_span)
            .then(|| {
                let (cursor, window) = (at.as_ref(), standing.window);
                self.reader.shows_all_of(stream, cursor, start, window)
            })
            .flatten();
        // A part of the past does not show what else there is.
        let shows_all = (stream.whole || part.is_some()) && !is_span;
        // A pass that starts again begins at another place than the part did.
        let from_start = stream.whole && !is_span;
        let mut seen = (shows_all && !is_resumed).then(Seen::default);
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
                    (is_resumed, is_shifted) = (false, false);
                    standing = self.begin(stream, at.as_ref(), start)?;
                    (seen, part) = (from_start.then(Seen::default), None);
                    progress = Progress::default();
                    continue;
                }
                Err(trouble) => {
                    let failure = trouble.failure();
                    if !is_resumed || !may_be_of_the_page(&failure) {
                        return Err(failure);
                    }
                    (is_resumed, is_shifted) = (false, false);
                    standing = self.begin(stream, at.as_ref(), start)?;
                    (seen, part) = (from_start.then(Seen::default), None);
                    continue;
                }
            };
            let (mut page, bytes, budget) = match got {
                Got::Page(fetched) => *fetched,
                Got::Absent(why) => {
                    if standing.next.is_none() {
                        self.warn(stream, &why).await;
                        return Ok(End::Absent);
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
            is_resumed = false;
            self.note_page();
            if page.is_part {
                standing.next = page.next;
                continue;
            }
            progress.check(&page)?;
            list(&mut page, &mut seen, is_span);
            remember(&mut seen, &page);
            is_cut_off |= page.is_cut_off;
            let stood = stands.take().unwrap_or_else(|| StreamState {
                at: at.clone(),
                read_until: start.read_until,
                missed_since: start.missed_since,
                ..StreamState::default()
            });
            standing.high = page.high.clone().or(standing.high);
            // Records were not read that the pass asked for: the next one asks for them again.
            if page.is_cut_off && page.is_partial {
                standing.high = None;
            }
            standing.next = page.next.clone();
            let ended = standing.next.is_none();
            if (stream.ordered || ended && !is_shifted) && standing.high.is_some() {
                at = standing.high.clone();
            }
            let pass = standing.next.as_ref().and_then(|next| {
                Some(Pass {
                    next: self.covered(stream, next)?,
                    high: standing.high.clone(),
                    window: standing.window,
                    definition: self.definition.clone(),
                    counts: page.counts,
                    again,
                    shifted: is_shifted,
                })
            });
            let wait = page.wait;
            let state = StreamState {
                at: at.clone(),
                pass,
                read_until: match ended && !is_cut_off && !is_shifted {
                    true => Some(standing.window.to),
                    false => start.read_until,
                },
                missed_since: match (ended, is_cut_off) {
                    (true, false) => None,
                    (true, true) => start.missed_since.or(standing.window.from),
                    (false, _) => start.missed_since,
                },
                finished_by: ended.then_some(self.run),
            };
            let warning = page.warning.take();
            let is_unclear = has_one_id_twice(&page.records);
            let mut fetched = fetched_page(stream, page, state, standing.window, bytes, budget);
            if ended {
                fetched.all = seen.take().filter(|_| !is_shifted).map(|seen| seen.ids);
                fetched.part.clone_from(&part);
            }
            let warning = warning.or_else(|| {
                self.warning_of_end(ended, is_shifted, looks_for_gone && fetched.all.is_none())
            });
            let warning = warning.or_else(|| is_unclear.then(|| ONE_ID_TWICE.to_owned()));
            fetched.warning = warning
                .map(|warning| of_stream(&stream.name, &warning))
                .filter(|warning| warnings.len() < MOST_WARNINGS && !warnings.contains(warning));
            warnings.extend(fetched.warning.clone());
            stands = Some(fetched.state.clone());
            for part in parts(fetched, &stood) {
                self.tell(What::Page(Box::new(part))).await;
            }
            if ended {
                return Ok(End::Read);
            }
            if let Some((wait, why)) = wait {
                self.show_waiting(wait, why, None).await;
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// Goes on where an earlier run stopped, if that means anything to this one. A token that counts pages or rows means
    /// another place once something before it was deleted: such a pass starts again. Where it is interrupted a second time,
    /// nobody can read the stream in one go; it then goes on, and proves nothing.
    fn begin_or_resume(
        &self,
        stream: &Stream,
        state: StreamState,
        start: Start,
    ) -> Result<Begun, Failure> {
        let age = self
            .states
            .get(&stream.name)
            .map_or(Duration::MAX, |stored| stored.age);
        let resumable = |pass: &Pass| pass.definition == self.definition && age <= RESUME_WITHIN;
        let unfinished = state.pass.filter(resumable);
        let unfinished = unfinished.and_then(|pass| self.uncovered(stream, pass));
        // An ordered stream moves its cursor with each page, so it loses little and gets further every time.
        let starts_again = |pass: &Pass| pass.counts && (stream.ordered || !pass.again);
        Ok(match unfinished {
            Some(pass) if !starts_again(&pass) => Begun {
                again: pass.again,
                shifted: pass.counts,
                standing: Standing {
                    start,
                    window: pass.window,
                    next: Some(pass.next),
                    high: pass.high,
                },
                is_resumed: true,
            },
            other => Begun {
                standing: self.begin(stream, state.at.as_ref(), start)?,
                is_resumed: false,
                again: other.is_some(),
                shifted: false,
            },
        })
    }

    fn warning_of_end(&self, ended: bool, is_shifted: bool, is_blind: bool) -> Option<String> {
        if ended && is_shifted {
            return Some(
                "its pages are counted, and it was read in several parts: what was deleted at the source in between may have moved other records past the reader, so the next sync reads them again. If this repeats, let one run read everything: raise connector_service.max_pages, ask for larger pages, or read less with start_date".to_owned(),
            );
        }
        (ended && is_blind).then(|| {
            format!("deletions were not looked for: the stream has more than {MOST_SEEN} rows, or rows without a key")
        })
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

/// Whether a resumed pass may have been refused for its page token, which is no longer good.
fn may_be_of_the_page(failure: &Failure) -> bool {
    match failure.code {
        Code::RequestRefused | Code::NotFound => true,
        Code::CredentialsRejected => failure.status == Some(400),
        _ => false,
    }
}

/// A list of all that is there begins anew what was seen. One that an interruption has cut shows nothing.
fn list(page: &mut Page, seen: &mut Option<Seen>, is_span: bool) {
    match page.listing {
        Listing::Begins if !is_span => *seen = Some(Seen::default()),
        Listing::GoesOn if seen.is_none() && page.warning.is_none() => {
            page.warning = Some(
                "deletions were not looked for: the list of what is there was interrupted, or is too long; refresh the stream to try again".to_owned(),
            );
        }
        _ => {}
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
