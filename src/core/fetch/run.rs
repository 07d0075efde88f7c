//! One run: stream after stream, page after page, until there is no next one.
//!
//! A page that failed is asked for again within bounds. What was sent stays sent: each page carries the state
//! that its stream has once it is stored, so a run that ends in the middle is gone on with where it was
//! committed. `at`, the proven data position, moves with every page only where the source's order allows it.
//!
//! Credentials and all other headers are pinned to the place a stream begins at: a request to another one, which
//! only what the vendor sent can have led to, is not made; but one without credentials may fetch a file from anywhere
//! that the guard lets it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::DateTime;
use serde_json::Value;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use url::Url;
use uuid::Uuid;

use super::bounds::{MOST_SEEN, Progress, Tries, see};
use super::client::{Client, SMALL_BODY};
use super::database::Database;
use super::login::{Held, Logins};
use super::pace::{Paces, Turn};
use super::{
    Budget, Event, FetchedPage, Job, Limits, Purpose, RESUME_WITHIN, Stored, Waiting, What,
};
use crate::error::{Class, Code, Failure, LONGEST_REST};
use crate::guard::{self, Allowed};
use crate::json;
use crate::record::{Page, Pass, StreamState, Window};
use crate::secret::{Cover, Secret};
use crate::source::database::Query;
use crate::source::{self, Access, Position, Reader, Response, Span, Start, Stream, Verdict};

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

    /// The same on a thread that may wait.
    pub fn send_blocking(&self, event: Event) {
        let _ = self.sender.blocking_send(event);
        (self.wake)();
    }
}

/// Of what a run was given but its credentials: whether the same is given still.
pub fn fingerprint(source: &str, config: &Value) -> String {
    let hash = json::hash(format!("{source} {config}").as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub async fn fetch(
    job: Job,
    client: &Arc<Client>,
    paces: &Paces,
    large: &Semaphore,
    logins: &Arc<Logins>,
    outbox: &Outbox,
) -> Result<(), Failure> {
    let reader = Arc::from(source::find(&job.source)?.open(&job.definition)?);
    for rest in &job.rests {
        paces.rest(job.tenant, &rest.account, rest.wait, &rest.why);
    }
    let mut run = Run {
        run: job.run,
        connector: job.connector,
        tenant: job.tenant,
        reader: &reader,
        definition: fingerprint(&job.source, &job.definition.config),
        states: job.states,
        start: Start {
            now: job.now,
            default_from: job.default_from,
            read_until: None,
            span: job.span,
        },
        began: Instant::now(),
        limits: job.limits,
        cover: job.cover,
        allowed: job.allowed,
        access: None,
        database: Mutex::new(None),
        refresh: None,
        client,
        paces,
        logins,
        outbox,
    };
    let looks = job.purpose == Purpose::Look;
    match job.upload {
        Some(upload) => run.file(upload, job.definition.limits, looks, large).await,
        None if reader.layout().is_some() => {
            run.no_file().await;
            Ok(())
        }
        None if looks => run.look().await,
        None => {
            let _place = run.take_place().await;
            run.all_streams().await
        }
    }
}

/// What of the guard's judgement is known before a name is resolved: for whoever saves a connector.
pub fn foresee(reader: &dyn Reader, allowed: &Allowed) -> Result<(), Failure> {
    if reader.layout().is_some() {
        return Ok(());
    }
    // No date has a part in where a request goes.
    let start = Start {
        now: DateTime::UNIX_EPOCH,
        default_from: DateTime::UNIX_EPOCH,
        read_until: None,
        span: None,
    };
    if let Some(Ok(request)) = reader.login().map(|login| login.request(start, None)) {
        let judged = guard::check_url(&request.url, allowed);
        judged.map_err(|refusal| named(&request.url, refusal.into()))?;
    }
    for stream in reader.streams() {
        let window = reader.window(stream, None, start);
        if let Ok(window) = window
            && let Ok(Some(query)) = reader.query(&first_of(stream, window, start, None))
        {
            let judged = guard::check_url(&query.server.place, allowed);
            judged.map_err(|refusal| named(&query.server.place, refusal.into()))?;
            continue;
        }
        // What does not render yet is not judged yet.
        let Ok(url) = window.and_then(|window| first_url(reader, stream, window, start, None))
        else {
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
    access: Option<&Access>,
) -> Result<Url, Failure> {
    let at = first_of(stream, window, start, access);
    Ok(reader.request(&at)?.url)
}

fn first_of<'a>(
    stream: &'a Stream,
    window: Window,
    start: Start,
    access: Option<&'a Access>,
) -> Position<'a> {
    Position {
        stream,
        window,
        start,
        next: None,
        high: None,
        access,
    }
}

/// A failure that says whose it is.
pub fn named(url: &Url, mut failure: Failure) -> Failure {
    let host = url.host_str().unwrap_or_default();
    failure.message = format!("{host}: {}", failure.message);
    failure
}

pub struct Run<'a> {
    pub run: Uuid,
    pub connector: Uuid,
    pub tenant: Uuid,
    pub reader: &'a Arc<dyn Reader>,
    /// See [`Pass::definition`] and [`fingerprint`].
    pub definition: String,
    pub states: HashMap<String, Stored>,
    pub start: Start,
    /// When `start` was now.
    pub began: Instant,
    pub limits: Limits,
    pub cover: Option<Cover>,
    pub allowed: Arc<Allowed>,
    pub access: Option<Held>,
    /// Of a database: the connection, while it is good. Its lock is never waited for: a run does one thing at a time.
    pub database: Mutex<Option<Database>>,
    /// What took the place of the configured refresh token in this run.
    pub refresh: Option<Secret>,
    pub client: &'a Arc<Client>,
    pub paces: &'a Paces,
    pub logins: &'a Arc<Logins>,
    pub outbox: &'a Outbox,
}

/// How often a pass starts again because the vendor let go of its place. More: a vendor that does so all the time is
/// asked for ever.
const RESTARTS: u32 = 3;

/// Records of a page that are stored in one transaction; a larger page is stored in parts. More: everybody's pages wait while
/// they are stored, and their facts derived. Fewer: more transactions.
const RECORDS_AT_ONCE: usize = 5_000;

/// A wait from here on is shown in the run's row. Shorter: rows are written for nothing.
const SHOWN_FROM: Duration = Duration::from_secs(1);

/// Where a pass stands between two pages.
pub struct Standing {
    pub window: Window,
    pub next: Option<Value>,
    pub high: Option<Value>,
}

/// A failed try, and whether another one may help.
pub enum Trouble {
    Again(Failure),
    Final(Failure),
    /// From the start of the pass, perhaps.
    Expired(Failure),
    /// With another token, perhaps.
    TokenRefused,
}

impl Trouble {
    pub fn failure(self) -> Failure {
        match self {
            Trouble::Again(failure) | Trouble::Final(failure) | Trouble::Expired(failure) => {
                failure
            }
            Trouble::TokenRefused => Failure::new(Code::CredentialsRejected, "token refused"),
        }
    }
}

/// What a request brought.
pub enum Got {
    Page(Box<(Page, u64, Budget)>),
    /// The stream is not there, and why.
    Absent(String),
}

impl Run<'_> {
    /// Reads every stream. Trouble that is one stream's own does not keep the others from being read; the
    /// first of it is what the run ends with.
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

    /// Waits until few enough runs of the same account are going.
    async fn take_place(&self) -> Option<OwnedSemaphorePermit> {
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
        let why = "other syncs of the same account are going";
        self.show_waiting(SHOWN_FROM, why, None).await;
        // It is never closed.
        places.acquire_owned().await.ok()
    }

    /// Where the first stream lies, of a source that has no account.
    fn host(&self) -> Option<String> {
        let stream = self.reader.streams().first()?;
        let window = self.begin(stream, None).ok()?.window;
        let at = first_of(stream, window, self.start, None);
        if let Ok(Some(query)) = self.reader.query(&at) {
            return Some(query.server.place.to_string());
        }
        let url = self.reader.request(&at).ok()?.url;
        Some(url.origin().ascii_serialization())
    }

    /// Of what is always read whole, and of what has no end to be set, a backfill has nothing more to ask.
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
        // A part of the past does not show what else there is.
        let shows_all = stream.whole && self.start.span.is_none();
        let mut seen = (shows_all && !resumed).then(Vec::new);
        let looks_for_gone = seen.is_some();
        let mut is_cut_off = false;
        let (mut pages, mut restarts) = (0, 0);
        loop {
            if pages == self.limits.pages {
                return Err(Failure::new(
                    Code::TooManyPages,
                    format!("no end after {pages} pages"),
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
            progress.check(&page)?;
            see(&mut seen, &page);
            let stood = stands.take().unwrap_or_else(|| StreamState {
                at: at.clone(),
                read_until: self.start.read_until,
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
                finished_by: ended.then_some(self.run),
            };
            let mut fetched = fetched_page(stream, page, state, standing.window, bytes, budget);
            if ended {
                fetched.all = seen.take();
                if looks_for_gone && fetched.all.is_none() && fetched.warning.is_none() {
                    fetched.warning = Some(format!(
                        "stream \"{}\": it was not looked for what is gone: there are more than {MOST_SEEN} rows, or some without a key",
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

    pub fn begin(&self, stream: &Stream, at: Option<&Value>) -> Result<Standing, Failure> {
        let window = match self.start.span {
            Some(Span { from, to, .. }) => Window {
                from: Some(from),
                to,
            },
            None => self.reader.window(stream, at, self.start)?,
        };
        Ok(Standing {
            window,
            next: None,
            // A pass that finds only what lies within the lookback must not move the cursor back.
            high: at.cloned().filter(|_| self.start.span.is_none()),
        })
    }

    /// Asks for a page until it is there, the tries are used up, or the wait is too long for a run.
    pub async fn page(&mut self, stream: &Stream, standing: &Standing) -> Result<Got, Trouble> {
        let mut tries = Tries::new(&self.limits);
        loop {
            match self.try_page(stream, standing).await {
                Err(Trouble::Again(failure)) => {
                    self.pause(&mut tries, failure)
                        .await
                        .map_err(Trouble::Final)?;
                }
                Err(Trouble::TokenRefused) => self.access = None,
                other => return other,
            }
        }
    }

    async fn try_page(&mut self, stream: &Stream, standing: &Standing) -> Result<Got, Trouble> {
        // An account that rests is not asked for tokens either.
        self.take_turn().await.map_err(Trouble::Final)?;
        let is_new_token = self.log_in().await.map_err(Trouble::Final)?;
        let access = self.access.as_ref().map(|held| &held.access);
        let at = &Position {
            stream,
            window: standing.window,
            start: self.start,
            next: standing.next.as_ref(),
            high: standing.high.as_ref(),
            access,
        };
        if let Some(query) = self.reader.query(at).map_err(Trouble::Final)? {
            return self.batch(&query, at).await;
        }
        let request = self.reader.request(at).map_err(Trouble::Final)?;
        let reader = self.reader.as_ref();
        let home = first_url(reader, stream, standing.window, self.start, access);
        let home = home.map_err(Trouble::Final)?.origin();
        let url = &request.url;
        // A user name would become a header of the client's own making.
        let is_foreign = url.origin() != home && !request.is_bare;
        if is_foreign || !url.username().is_empty() || url.password().is_some() {
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
        let verdict = self.reader.verdict(at, &response);
        self.note_usage(&response, &verdict, url).await;
        match verdict {
            Verdict::Read => {}
            // A token may be over before its time; a new one that is refused, too, is not a matter of time.
            Verdict::Fail(_) if response.status == 401 && access.is_some() && !is_new_token => {
                return Err(Trouble::TokenRefused);
            }
            Verdict::Retry(failure) => return Err(Trouble::Again(named(failure))),
            Verdict::Fail(failure) => return Err(Trouble::Final(named(failure))),
            Verdict::Expired(failure) => return Err(Trouble::Expired(named(failure))),
            Verdict::Absent(why) => return Ok(Got::Absent(why)),
        }
        let read = || self.reader.page(at, &response);
        // A long computation would keep this thread's other runs waiting.
        let page = if response.body.len() > SMALL_BODY {
            tokio::task::block_in_place(read)
        } else {
            read()
        };
        let bytes = response.body.len() as u64;
        Ok(Got::Page(Box::new((page.map_err(again)?, bytes, budget))))
    }

    /// A page of a database: over the run's connection, or over a new one where it has none or lost it.
    async fn batch(&self, query: &Query, at: &Position<'_>) -> Result<Got, Trouble> {
        let again = |failure: Failure| {
            let failure = named(&query.server.place, failure);
            match failure.code.class() {
                Class::Transient => Trouble::Again(failure),
                Class::Mend => Trouble::Final(failure),
            }
        };
        let mut held = self.database.lock().await;
        // Whatever goes wrong, the connection is not used again.
        let mut database = match held.take() {
            Some(database) => database,
            None => {
                let open = Database::open(&query.server, self.client, &self.limits, &self.allowed);
                open.await.map_err(again)?
            }
        };
        let response = match database.exchange(query, &self.limits).await {
            Ok(response) => response,
            Err(failure) => match self.reader.absent(at, &failure) {
                Some(why) => return Ok(Got::Absent(why)),
                None => return Err(again(failure)),
            },
        };
        if !database.is_spent() {
            *held = Some(database);
        }
        let bytes = response.body.len() as u64;
        let page = self.reader.page(at, &response).map_err(again)?;
        Ok(Got::Page(Box::new((page, bytes, Budget::default()))))
    }

    /// Waits until the account may be asked; fails where that is too long for a run.
    async fn take_turn(&self) -> Result<(), Failure> {
        let Some(account) = self.reader.account() else {
            return Ok(());
        };
        loop {
            let (wait, why) = match self.paces.turn(self.tenant, account) {
                Turn::In(wait) => {
                    let why = "the requests of the account are spread out";
                    self.show_waiting(wait, why, None).await;
                    tokio::time::sleep(wait).await;
                    return Ok(());
                }
                Turn::Resting(wait, why) => (wait, why),
            };
            if wait > self.limits.longest_pause {
                return Err(Failure::new(Code::RateLimited, why).after(Some(wait)));
            }
            self.show_waiting(wait, &why, None).await;
            tokio::time::sleep(wait).await;
        }
    }

    /// Lets the whole account rest where the vendor asked this run to.
    async fn note_usage(&self, got: &Response, verdict: &Verdict, url: &Url) {
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
        let host = url.host_str().unwrap_or_default();
        let rest = asked.or(usage.rest);
        let rest = rest.map(|(wait, why)| (wait.min(LONGEST_REST), format!("{host}: {why}")));
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

    async fn show_waiting(
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

/// A page as it will be stored.
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
        count: page.count,
        warning: page.warning,
        bytes,
        budget,
        ..FetchedPage::of(stream.name.clone(), state, window)
    }
}
