//! The streams of a run: one after the other, or some side by side.
//!
//! A stream that fails stops no other one, whatever its failure is. Only what concerns all of them does: a login that is
//! refused, an account that is not to be called for longer than a run may wait, a database that lets nobody in. A host that
//! cannot be reached stops the streams of that host. What may concern one stream or the account (401, 429) is the stream's own
//! where another one is read, and the account's where several streams in a row say the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use futures_util::future::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::SemaphorePermit;
use url::Url;

use super::outcome::{End, Outcome, StreamEnd, of_stream};
use super::page::Trouble;
use super::place::{first_of, is_unreachable};
use super::run::Run;
use super::{Event, Limits, What};
use crate::error::{Class, Code, Failure, Reach};
use crate::record::Window;
use crate::source::{Position, Stream};

/// After this many streams that are refused in a row, with no page read in between, the account is refused. More: an account
/// is asked with wrong credentials more often. Fewer: streams that may be read starve behind some that may not.
const MOST_REFUSED: usize = 3;

/// How a stream of a run ended, and where its requests went.
struct Ended<'s> {
    stream: &'s Stream,
    end: End,
    pages_read: u64,
}

/// Streams that were refused in a way that may be the account's.
#[derive(Default)]
struct Refused {
    streams: Vec<String>,
    code: Option<Code>,
    pages_read: u64,
}

impl Refused {
    /// Counts a refusal; true: it is the account's.
    fn add(&mut self, ended: &Ended, failure: &Failure) -> bool {
        if self.code != Some(failure.code) || self.pages_read != ended.pages_read {
            self.streams.clear();
        }
        (self.code, self.pages_read) = (Some(failure.code), ended.pages_read);
        self.streams.push(ended.stream.name.clone());
        self.streams.len() >= MOST_REFUSED
    }

    /// The stream whose refusal nothing has shown to be its own.
    fn unproven(&self, pages_read: u64) -> Option<&str> {
        let is_its_own = match self.code {
            // The same credentials opened another stream.
            Some(Code::CredentialsRejected) => pages_read > 0,
            _ => pages_read > self.pages_read,
        };
        self.streams
            .last()
            .filter(|_| !is_its_own)
            .map(String::as_str)
    }
}

impl Run<'_> {
    /// Reads every stream.
    pub async fn all_streams(&self) -> Outcome {
        let streams = self.reader.streams().iter();
        let streams: Vec<&Stream> = streams.filter(|stream| self.is_asked(stream)).collect();
        let names = streams.iter().map(|stream| stream.name.clone());
        self.tell(What::Planned(names.collect())).await;
        let mut ends: Vec<StreamEnd> = Vec::new();
        let mut unreachable: Vec<(Url, Failure)> = Vec::new();
        let mut refused = Refused::default();
        let mut stopped: Option<(String, Failure)> = None;
        let mut waiting = streams.iter();
        let mut going = FuturesUnordered::new();
        'run: loop {
            while going.len() < self.parallel {
                let beside = match going.is_empty() {
                    true => None,
                    false => match self.beside.try_acquire() {
                        Ok(place) => Some(place),
                        Err(_) => break,
                    },
                };
                let Some(stream) = waiting.next() else {
                    break;
                };
                match self.lost_host(stream, &unreachable) {
                    Some(failure) => ends.push(StreamEnd {
                        stream: stream.name.clone(),
                        end: End::Skipped(failure),
                    }),
                    None => going.push(self.stream(stream, beside)),
                }
            }
            let Some(ended) = going.next().await else {
                break;
            };
            if let End::Failed(failure) = &ended.end {
                let is_refusal = is_doubtful(failure) && refused.add(&ended, failure);
                if is_refusal || failure.reach == Reach::Account {
                    stopped = Some((ended.stream.name.clone(), failure.clone()));
                } else if is_unreachable(failure)
                    && let Some(host) = self.beginning(ended.stream)
                {
                    unreachable.push((host, failure.clone()));
                }
                let told = StreamEnd {
                    stream: ended.stream.name.clone(),
                    end: ended.end.clone(),
                };
                self.tell(What::Failed(Box::new(told))).await;
            }
            ends.push(StreamEnd {
                stream: ended.stream.name.clone(),
                end: ended.end,
            });
            if stopped.is_some() {
                break 'run;
            }
        }
        // Requests that are under way are dropped.
        drop(going);
        if stopped.is_none()
            && let Some(stream) = refused.unproven(self.pages_read.load(Ordering::Relaxed))
        {
            let failed = ends.iter().find(|ended| ended.stream == stream);
            stopped = failed.and_then(|ended| match &ended.end {
                End::Failed(failure) => Some((ended.stream.clone(), failure.clone())),
                _ => None,
            });
        }
        let left = streams
            .iter()
            .filter(|stream| ends.iter().all(|ended| ended.stream != stream.name));
        let left: Vec<StreamEnd> = left
            .map(|stream| StreamEnd {
                stream: stream.name.clone(),
                end: match &stopped {
                    Some((_, failure)) if failure.code != Code::RateLimited => {
                        End::Skipped(failure.clone())
                    }
                    _ => End::Waiting,
                },
            })
            .collect();
        ends.extend(left);
        let place = |ended: &StreamEnd| streams.iter().position(|s| s.name == ended.stream);
        ends.sort_by_key(place);
        Outcome::of_streams(ends, stopped.as_ref().map(|(stream, _)| stream.as_str()))
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

    /// Reads or previews one stream. A bug in a source ends the stream, never the process, and never silently.
    async fn stream<'s>(
        &self,
        stream: &'s Stream,
        _beside: Option<SemaphorePermit<'_>>,
    ) -> Ended<'s> {
        let work = async {
            match self.is_preview {
                true => self.preview(stream).await,
                false => self.pass(stream).await,
            }
        };
        let result = AssertUnwindSafe(work).catch_unwind().await;
        let result = result.unwrap_or_else(|_| {
            Err(Failure::new(
                Code::Internal,
                "the task that reads the stream panicked",
            ))
        });
        let end = result.unwrap_or_else(|failure| {
            if failure.code.class() == Class::Transient {
                self.failed_in_a_row.fetch_add(1, Ordering::Relaxed);
            }
            End::Failed(failure)
        });
        let pages_read = self.pages_read.load(Ordering::Relaxed);
        Ended {
            stream,
            end,
            pages_read,
        }
    }

    /// The limits of the next request. Where streams fail one after the other, the server is in trouble: each has fewer
    /// tries, so that the run ends.
    pub fn patience(&self) -> Limits {
        let failed = self.failed_in_a_row.load(Ordering::Relaxed);
        Limits {
            retries: self.limits.retries >> failed.min(31),
            ..self.limits
        }
    }

    /// A page was read.
    pub fn note_page(&self) {
        self.pages_read.fetch_add(1, Ordering::Relaxed);
        self.failed_in_a_row.store(0, Ordering::Relaxed);
    }

    /// Where a stream begins; `None` where that is not known before.
    fn beginning(&self, stream: &Stream) -> Option<Url> {
        let window = Window {
            from: None,
            to: self.start.now,
        };
        let window = self
            .reader
            .window(stream, None, self.start)
            .unwrap_or(window);
        let at: Position = first_of(stream, window, self.start, None);
        if let Ok(Some(query)) = self.reader.query(&at) {
            return Some(query.server.place.clone());
        }
        Some(self.reader.request(&at).ok()?.url)
    }

    /// Why a stream need not be asked for: its host cannot be reached.
    fn lost_host(&self, stream: &Stream, unreachable: &[(Url, Failure)]) -> Option<Failure> {
        if unreachable.is_empty() {
            return None;
        }
        // A bug in a source ends its stream, and later.
        let host = catch_unwind(AssertUnwindSafe(|| self.beginning(stream))).ok()??;
        let same = |(lost, _): &&(Url, Failure)| {
            lost.host() == host.host()
                && lost.port_or_known_default() == host.port_or_known_default()
                && lost.scheme() == host.scheme()
        };
        let (_, failure) = unreachable.iter().find(same)?;
        Some(failure.clone())
    }

    pub async fn tell(&self, what: What) {
        let run = self.run;
        self.outbox.send(Event { run, what }).await;
    }

    /// Warns of something in a stream.
    pub async fn warn(&self, stream: &Stream, why: &str) {
        self.tell(What::Warning(of_stream(&stream.name, why))).await;
    }
}

/// Whether it cannot be told from the failure alone if it is the stream's or the account's.
fn is_doubtful(failure: &Failure) -> bool {
    match failure.code {
        Code::RateLimited => true,
        // 403 speaks of what is asked for, 401 of who asks.
        Code::CredentialsRejected => failure.status != Some(403),
        _ => false,
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        trouble.failure()
    }
}
