//! One run: stream after stream, page after page, until there is no next one.
//!
//! A page that failed is asked for again within bounds. What was sent stays sent: each page carries the state
//! that its stream has once it is stored, so a run that ends in the middle is gone on with where it was
//! committed. `at`, the proven data position, moves with every page only where the source's order allows it.
//!
//! Credentials and all other headers are pinned to the place a stream begins at: a request to another one, which
//! only what the vendor sent can have led to, is not made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use serde_json::Value;
use tokio::sync::mpsc;
use url::{Origin, Url};
use uuid::Uuid;

use super::client::{Client, SMALL_BODY};
use super::login::Access;
use super::{Budget, Event, FetchedPage, Job, Limits, RESUME_WITHIN, Stored, What};
use crate::error::{Class, Code, Failure};
use crate::guard::{self, Allowed};
use crate::json;
use crate::record::{Page, Pass, StreamState, Window};
use crate::secret::{Cover, Secret};
use crate::source::{self, Position, Reader, Start, Stream, Verdict};

#[derive(Clone)]
pub struct Outbox {
    pub sender: mpsc::Sender<Event>,
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

impl Outbox {
    pub async fn send(&self, event: Event) {
        // Closed only when the engine is gone, and this task with it.
        let _ = self.sender.send(event).await;
        (self.wake)();
    }
}

pub async fn fetch(job: Job, client: &Client, outbox: &Outbox) -> Result<(), Failure> {
    let reader = source::find(&job.source)?.open(&job.definition)?;
    let definition = json::hash(format!("{} {}", job.source, job.definition.config).as_bytes());
    let mut run = Run {
        run: job.run,
        reader: reader.as_ref(),
        definition: definition
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        states: job.states,
        start: Start {
            now: job.now,
            default_from: job.default_from,
        },
        limits: job.limits,
        cover: job.cover,
        allowed: job.allowed,
        access: None,
        refresh: None,
        client,
        outbox,
    };
    run.all_streams().await
}

/// What of the guard's judgement is known before a name is resolved: for whoever saves a connector.
pub fn foresee(reader: &dyn Reader, allowed: &Allowed) -> Result<(), Failure> {
    // No date has a part in where a request goes.
    let start = Start {
        now: DateTime::UNIX_EPOCH,
        default_from: DateTime::UNIX_EPOCH,
    };
    if let Some(Ok(request)) = reader.login().map(|login| login.request(start, None)) {
        let judged = guard::check_url(&request.url, allowed);
        judged.map_err(|refusal| named(&request.url, refusal.into()))?;
    }
    for stream in reader.streams() {
        let window = reader.window(stream, None, start);
        // What does not render yet is not judged yet.
        let Ok(url) = window.and_then(|window| first_url(reader, stream, window, start)) else {
            continue;
        };
        guard::check_url(&url, allowed).map_err(|refusal| named(&url, refusal.into()))?;
    }
    Ok(())
}

/// Where a stream begins: nothing that a vendor sent has a part in it.
fn first_url(
    reader: &dyn Reader,
    stream: &Stream,
    window: Window,
    start: Start,
) -> Result<Url, Failure> {
    let at = Position {
        stream,
        window,
        now: start.now,
        default_from: start.default_from,
        next: None,
        high: None,
        access: None,
    };
    Ok(reader.request(&at)?.url)
}

/// A failure that says whose it is.
pub fn named(url: &Url, mut failure: Failure) -> Failure {
    let host = url.host_str().unwrap_or_default();
    failure.message = format!("{host}: {}", failure.message);
    failure
}

pub struct Run<'a> {
    pub run: Uuid,
    pub reader: &'a dyn Reader,
    /// See [`Pass::definition`].
    pub definition: String,
    pub states: HashMap<String, Stored>,
    pub start: Start,
    pub limits: Limits,
    pub cover: Option<Cover>,
    pub allowed: Arc<Allowed>,
    pub access: Option<Access>,
    /// What took the place of the configured refresh token in this run.
    pub refresh: Option<Secret>,
    pub client: &'a Client,
    pub outbox: &'a Outbox,
}

/// Where a pass stands between two pages.
struct Standing {
    window: Window,
    next: Option<Value>,
    high: Option<Value>,
}

/// A failed try, and whether another one may help.
enum Trouble {
    Again(Failure),
    Final(Failure),
    /// With another token, perhaps.
    TokenRefused,
}

impl Run<'_> {
    /// Reads every stream. Trouble that is one stream's own does not keep the others from being read; the
    /// first of it is what the run ends with.
    pub async fn all_streams(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        for stream in self.reader.streams() {
            let Err(mut failure) = self.pass(stream).await else {
                continue;
            };
            failure.message = format!("stream \"{}\": {}", stream.name, failure.message);
            let own = matches!(
                failure.code,
                Code::NotFound
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

    async fn pass(&mut self, stream: &Stream) -> Result<(), Failure> {
        let stored = self.states.remove(&stream.name);
        let age = stored.as_ref().map_or(Duration::MAX, |stored| stored.age);
        let state = stored.map_or_else(StreamState::default, |stored| stored.state);
        if state.finished_by == Some(self.run) {
            return Ok(());
        }
        let resumable = |pass: &Pass| pass.definition == self.definition && age <= RESUME_WITHIN;
        let unfinished = state.pass.filter(resumable);
        let unfinished = unfinished.and_then(|pass| self.uncovered(stream, pass));
        let mut resumed = unfinished.is_some();
        let mut at = state.at;
        let mut standing = match unfinished {
            Some(pass) => Standing {
                window: pass.window,
                next: Some(pass.next),
                high: pass.high,
            },
            None => self.begin(stream, at.as_ref())?,
        };
        let home = first_url(self.reader, stream, standing.window, self.start)?.origin();
        let mut progress = Progress::default();
        let mut pages = 0;
        loop {
            if pages == self.limits.pages {
                return Err(Failure::new(
                    Code::TooManyPages,
                    format!("no end after {pages} pages"),
                ));
            }
            pages += 1;
            let (page, bytes, budget) = match self.page(stream, &standing, &home).await {
                // The token of an interrupted pass has expired: start again from the proven position.
                Err(failure)
                    if resumed && matches!(failure.code, Code::RequestRefused | Code::NotFound) =>
                {
                    resumed = false;
                    standing = self.begin(stream, at.as_ref())?;
                    continue;
                }
                other => other?,
            };
            resumed = false;
            progress.check(&page)?;
            standing.high = page.high.or(standing.high);
            standing.next = page.next;
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
            let fetched = FetchedPage {
                stream: stream.name.clone(),
                records: page.records,
                rejected: page.rejected,
                state: StreamState {
                    at: at.clone(),
                    pass,
                    finished_by: ended.then_some(self.run),
                },
                window: standing.window,
                bytes,
                budget,
            };
            self.outbox
                .send(Event {
                    run: self.run,
                    what: What::Page(Box::new(fetched)),
                })
                .await;
            if ended {
                return Ok(());
            }
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

    fn begin(&self, stream: &Stream, at: Option<&Value>) -> Result<Standing, Failure> {
        Ok(Standing {
            window: self.reader.window(stream, at, self.start)?,
            next: None,
            // A pass that finds only what lies within the lookback must not move the cursor back.
            high: at.cloned(),
        })
    }

    /// Asks for a page until it is there, the tries are used up, or the wait is too long for a run.
    async fn page(
        &mut self,
        stream: &Stream,
        standing: &Standing,
        home: &Origin,
    ) -> Result<(Page, u64, Budget), Failure> {
        let mut tries = Tries::new(&self.limits);
        loop {
            match self.try_page(stream, standing, home).await {
                Ok(page) => return Ok(page),
                Err(Trouble::Final(failure)) => return Err(failure),
                Err(Trouble::Again(failure)) => tries.pause(failure).await?,
                Err(Trouble::TokenRefused) => self.access = None,
            }
        }
    }

    async fn try_page(
        &mut self,
        stream: &Stream,
        standing: &Standing,
        home: &Origin,
    ) -> Result<(Page, u64, Budget), Trouble> {
        let is_new_token = self.log_in().await.map_err(Trouble::Final)?;
        let at = &Position {
            stream,
            window: standing.window,
            now: self.start.now,
            default_from: self.start.default_from,
            next: standing.next.as_ref(),
            high: standing.high.as_ref(),
            access: self.access.as_ref().map(|access| &access.token),
        };
        let request = self.reader.request(at).map_err(Trouble::Final)?;
        let url = &request.url;
        // A user name would become a header of the client's own making.
        if url.origin() != *home || !url.username().is_empty() || url.password().is_some() {
            return Err(Trouble::Final(Failure::new(
                Code::ForeignNextPage,
                "the next page's address lies on another host",
            )));
        }
        let named = |failure| named(url, failure);
        let again = |failure: Failure| match failure.code.class() {
            Class::Transient => Trouble::Again(named(failure)),
            Class::Mend => Trouble::Final(named(failure)),
        };
        let (response, budget) = self
            .client
            .exchange(&request, &self.limits, &self.allowed)
            .await
            .map_err(again)?;
        match self.reader.verdict(at, &response) {
            Verdict::Read => {}
            // A token may be over before its time; a new one that is refused, too, is not a matter of time.
            Verdict::Fail(_) if response.status == 401 && at.access.is_some() && !is_new_token => {
                return Err(Trouble::TokenRefused);
            }
            Verdict::Retry(failure) => return Err(Trouble::Again(named(failure))),
            Verdict::Fail(failure) => return Err(Trouble::Final(named(failure))),
        }
        let read = || self.reader.page(at, &response);
        // A long computation would keep this thread's other runs waiting.
        let page = if response.body.len() > SMALL_BODY {
            tokio::task::block_in_place(read)
        } else {
            read()
        };
        Ok((page.map_err(again)?, response.body.len() as u64, budget))
    }
}

/// The tries of one request, and the pauses between them.
pub struct Tries {
    limits: Limits,
    pause: Duration,
    made: u32,
}

impl Tries {
    pub fn new(limits: &Limits) -> Tries {
        Tries {
            limits: *limits,
            pause: limits.retry_pause,
            made: 0,
        }
    }

    /// Waits until the next try; gives the failure back when there is none, or not within a run.
    pub async fn pause(&mut self, failure: Failure) -> Result<(), Failure> {
        let wait = failure
            .retry_after
            .unwrap_or_else(|| jitter(self.pause.min(self.limits.longest_pause)));
        if self.made == self.limits.retries || wait > self.limits.longest_pause {
            return Err(failure);
        }
        self.made += 1;
        self.pause = self.pause.saturating_mul(2);
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Between half of a pause and all of it: connectors that failed together do not come back together.
fn jitter(pause: Duration) -> Duration {
    let [byte, ..] = *Uuid::new_v4().as_bytes();
    pause.mul_f64(0.5 + f64::from(byte) / 510.0)
}

/// Stops a source that would never end.
#[derive(Default)]
struct Progress {
    tokens: HashSet<[u8; 16]>,
    rows: Option<[u8; 16]>,
}

impl Progress {
    fn check(&mut self, page: &Page) -> Result<(), Failure> {
        let Some(next) = &page.next else {
            return Ok(());
        };
        if !self.tokens.insert(json::hash(next.to_string().as_bytes())) {
            return Err(Failure::new(
                Code::RepeatedPage,
                "the next page was read before",
            ));
        }
        let records = page.records.iter().map(|record| record.hash);
        let hashes: Vec<u8> = records
            .chain(page.rejected.iter().map(|r| r.hash))
            .flatten()
            .collect();
        let rows = (!hashes.is_empty()).then(|| json::hash(&hashes));
        if rows.is_some() && rows == self.rows {
            return Err(Failure::new(
                Code::RepeatedPage,
                "two pages in a row hold the same records",
            ));
        }
        self.rows = rows;
        Ok(())
    }
}
