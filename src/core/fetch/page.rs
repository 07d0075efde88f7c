//! One page: its request and its response.
//!
//! A request that failed is retried within bounds. Credentials and all other headers are pinned to the host that a
//! stream begins at. A vendor's answer may lead to another host; such a request is not made, unless it carries no
//! credentials and only fetches a file from a host that the guard allows.

use std::time::Instant;

use serde_json::Value;
use url::Url;

use super::Budget;
use super::body::SMALL_BODY;
use super::bounds::Tries;
use super::database::Database;
use super::place::{first_url, named};
use super::run::Run;
use super::trace::{self, Asking, Attempt};
use crate::error::{Class, Code, Failure};
use crate::record::{Page, Window};
use crate::source::database::{Make, Query, Server};
use crate::source::{
    Position, Response, Span, Start, Stream, Verdict, pause, says_token_is_over, throttled,
};

/// How often one page may ask for a new token. More: a stream that is always refused, beside one that is not, logs in again and
/// again. Fewer: streams side by side that share a short-lived token take it from each other.
const MOST_RENEWALS: u32 = 4;

/// The position of a pass between two pages.
pub struct Standing {
    pub start: Start,
    pub window: Window,
    pub next: Option<Value>,
    pub high: Option<Value>,
}

/// A failed request, and whether a retry may help.
pub enum Trouble {
    Again(Failure),
    Final(Failure),
    /// A retry from the start of the pass may help.
    Expired(Failure),
    /// A retry with another token may help.
    TokenRefused,
}

impl Trouble {
    fn code(&self) -> Code {
        match self {
            Trouble::Again(failure) | Trouble::Final(failure) | Trouble::Expired(failure) => {
                failure.code
            }
            Trouble::TokenRefused => Code::CredentialsRejected,
        }
    }

    pub fn failure(self) -> Failure {
        match self {
            Trouble::Again(failure) | Trouble::Final(failure) | Trouble::Expired(failure) => {
                failure
            }
            Trouble::TokenRefused => {
                Failure::new(Code::CredentialsRejected, "the token was refused")
            }
        }
    }
}

/// The result of a request.
pub enum Got {
    Page(Box<(Page, u64, Budget)>),
    /// The source does not have the stream; the text says why.
    Absent(String),
}

impl Run<'_> {
    pub fn begin(
        &self,
        stream: &Stream,
        at: Option<&Value>,
        start: Start,
    ) -> Result<Standing, Failure> {
        let window = match start.span {
            Some(Span { from, to, .. }) => Window {
                from: Some(from),
                to,
            },
            None => self.reader.window(stream, at, start)?,
        };
        Ok(Standing {
            start,
            window,
            next: None,
            // A pass that finds only what lies within the lookback must not move the cursor back.
            high: at.cloned().filter(|_| start.span.is_none()),
        })
    }

    /// Asks for a page until it is there, the tries are used up, or the wait is too long for a run.
    pub async fn page(&self, stream: &Stream, standing: &Standing) -> Result<Got, Trouble> {
        let mut tries = Tries::new(&self.patience());
        let mut attempt = Attempt::default();
        let mut renewals = 0;
        loop {
            attempt.tries += 1;
            match self.try_page(stream, standing, attempt).await {
                Err(Trouble::Again(failure)) => {
                    let since = Instant::now();
                    self.pause(&mut tries, failure)
                        .await
                        .map_err(Trouble::Final)?;
                    attempt.pause = since.elapsed();
                }
                Err(Trouble::TokenRefused) if renewals < MOST_RENEWALS => renewals += 1,
                other => return other,
            }
        }
    }

    /// One try, which is noted among the requests of the run.
    async fn try_page(
        &self,
        stream: &Stream,
        standing: &Standing,
        mut attempt: Attempt,
    ) -> Result<Got, Trouble> {
        let since = Instant::now();
        // An account that rests is not asked for tokens either.
        self.wait_for_slot().await.map_err(Trouble::Final)?;
        attempt.pause += since.elapsed();
        let mut asking = None;
        let got = self.ask(stream, standing, attempt, &mut asking).await;
        if let Some(asking) = asking {
            let (code, records) = match &got {
                Ok(Got::Page(fetched)) => {
                    let page = &fetched.0;
                    (
                        None,
                        Some((page.records.len() + page.rejected.len()) as u64),
                    )
                }
                Ok(Got::Absent(_)) => (None, None),
                Err(trouble) => (Some(trouble.code()), None),
            };
            self.trace.note(asking, code, records);
        }
        got
    }

    async fn ask(
        &self,
        stream: &Stream,
        standing: &Standing,
        attempt: Attempt,
        asking: &mut Option<Asking>,
    ) -> Result<Got, Trouble> {
        let (access, is_new_token) = self.log_in().await.map_err(Trouble::Final)?;
        let access = access.as_ref();
        let at = &Position {
            stream,
            window: standing.window,
            start: standing.start,
            next: standing.next.as_ref(),
            high: standing.high.as_ref(),
            access,
        };
        if let Some(query) = self.reader.query(at).map_err(Trouble::Final)? {
            return self.batch(&query, at, attempt, asking).await;
        }
        let request = self.reader.request(at).map_err(Trouble::Final)?;
        let reader = self.reader.as_ref();
        let home = first_url(reader, stream, standing.window, standing.start, access);
        let home = home.map_err(Trouble::Final)?.origin();
        let url = &request.url;
        // A user name would become a header of the client's own making.
        let is_foreign = url.origin() != home && !request.is_bare;
        if is_foreign || !url.username().is_empty() || url.password().is_some() {
            return Err(Trouble::Final(Failure::new(
                Code::ForeignNextPage,
                "the address of the next page is on another host",
            )));
        }
        let named = |failure| named(url, failure);
        let again = |failure: Failure| match failure.code.class() {
            Class::Transient => Trouble::Again(named(failure)),
            Class::Mend => Trouble::Final(named(failure)),
        };
        let token = access.map(|access| &access.token);
        let method = trace::word(request.method);
        let asking =
            asking.insert(
                self.trace
                    .begin(Some(&stream.name), method, url, token, attempt),
            );
        let (response, budget) = self
            .client
            .exchange(&request, &self.limits, &self.allowed)
            .await
            .map_err(again)?;
        asking.answered(Some(response.status), response.body.len() as u64);
        let may_renew = access.is_some() && !is_new_token;
        // A vendor's rules may know the status and not these headers; a manifest's author has seen both.
        let is_vendor = self.reader.common().is_some();
        let verdict = match throttled(&response).filter(|_| is_vendor) {
            Some(failure) => Verdict::Retry(failure),
            None => with_wait(self.reader.verdict(at, &response), &response),
        };
        self.note_usage(&response, &verdict, url).await;
        // A token may be over before its time; a new one that is refused, too, is not a matter of time.
        let is_refused = match (&verdict, response.status) {
            (Verdict::Fail(_), 401) => true,
            (Verdict::Fail(_) | Verdict::Absent(_), 400 | 403 | 419 | 440 | 498) => {
                says_token_is_over(&response)
            }
            _ => false,
        };
        if is_refused && may_renew {
            self.refuse_token(access).await;
            return Err(Trouble::TokenRefused);
        }
        match verdict {
            Verdict::Read => {}
            Verdict::Retry(failure) => return Err(Trouble::Again(named(failure))),
            Verdict::Fail(failure) => return Err(Trouble::Final(named(failure))),
            Verdict::Expired(failure) => return Err(Trouble::Expired(named(failure))),
            Verdict::Absent(why) => return Ok(Got::Absent(why)),
        }
        let bytes = response.body.len() as u64;
        if response.is_empty() && self.reader.may_be_empty() {
            // Where the page before named this one, a blank success may be a server's mishap: it is asked for once more.
            let is_promised = standing.next.is_some() && response.status == 200;
            if is_promised && attempt.tries == 1 && self.limits.retries > 0 {
                let what = "the next page came without content";
                return Err(again(Failure::new(Code::TruncatedResponse, what)));
            }
            // Nothing but a status that means it says that there is nothing.
            let is_partial = standing.next.is_none() && !matches!(response.status, 204 | 205);
            let warning = (is_partial && stream.whole).then(|| {
                "deletions were not looked for: the first page came without content".to_owned()
            });
            let page = Page {
                is_partial,
                warning,
                ..Page::default()
            };
            return Ok(Got::Page(Box::new((page, bytes, budget))));
        }
        let read = || self.reader.page(at, &response);
        // A long computation would keep this thread's other runs waiting.
        let page = if response.body.len() > SMALL_BODY {
            tokio::task::block_in_place(read)
        } else {
            read()
        };
        match page {
            Ok(page) => Ok(Got::Page(Box::new((page, bytes, budget)))),
            // What a success says of the token is as good as what a status says.
            Err(failure) if failure.code == Code::CredentialsRejected && may_renew => {
                self.refuse_token(access).await;
                Err(Trouble::TokenRefused)
            }
            Err(failure) if failure.code == Code::RateLimited => {
                let verdict = with_wait(Verdict::Retry(failure.clone()), &response);
                self.note_usage(&response, &verdict, url).await;
                Err(again(failure))
            }
            Err(failure) => Err(again(failure)),
        }
    }

    /// A page of a database: over a connection of the run that has nothing to do, or over a new one.
    async fn batch(
        &self,
        query: &Query,
        at: &Position<'_>,
        attempt: Attempt,
        asking: &mut Option<Asking>,
    ) -> Result<Got, Trouble> {
        let again = |failure: Failure| {
            let failure = named(&query.server.place, failure);
            match failure.code.class() {
                Class::Transient => Trouble::Again(failure),
                Class::Mend => Trouble::Final(failure),
            }
        };
        let (stream, address) = (Some(at.stream.name.as_str()), address(&query.server));
        let asking = asking.insert(self.trace.begin(stream, "SQL", &address, None, attempt));
        // Whatever goes wrong, the connection is not used again.
        let (_place, mut database) = loop {
            let Some((place, idle)) = self.connections.take().await else {
                return Err(Trouble::Final(Failure::new(
                    Code::Internal,
                    "no place for a connection",
                )));
            };
            if let Some(database) = idle {
                break (place, database);
            }
            let open = Database::open(&query.server, self.client, &self.limits, &self.allowed);
            match open.await {
                Ok(database) => break (place, database),
                // The server may have no room for another one; this stream then shares those that there are.
                Err(failure)
                    if failure.code.class() == Class::Transient
                        && self.connections.give_up(place) => {}
                Err(failure) => return Err(again(failure.of_account())),
            }
        };
        let response = match database.exchange(query, &self.limits).await {
            Ok(response) => response,
            Err(failure) => match self.reader.absent(at, &failure) {
                Some(why) => return Ok(Got::Absent(why)),
                None => return Err(again(failure)),
            },
        };
        let bytes = response.body.len() as u64;
        asking.answered(None, bytes);
        if !database.is_spent() {
            self.connections.keep(database);
        }
        let page = self.reader.page(at, &response).map_err(again)?;
        Ok(Got::Page(Box::new((page, bytes, Budget::default()))))
    }
}

/// Where a statement is run, as people write it.
fn address(server: &Server) -> Url {
    let scheme = match server.make {
        Make::Postgres => "postgres",
        Make::MySql => "mysql",
    };
    let host = server.place.host_str().unwrap_or_default();
    let text = format!("{scheme}://{host}:{}/{}", server.port, server.database);
    Url::parse(&text).unwrap_or_else(|_| server.place.clone())
}

/// Where a vendor's own rules name no time to wait after too many requests, what the headers say.
fn with_wait(verdict: Verdict, got: &Response) -> Verdict {
    match verdict {
        Verdict::Retry(failure)
            if failure.code == Code::RateLimited && failure.retry_after.is_none() =>
        {
            Verdict::Retry(failure.after(pause::wait(got)))
        }
        other => other,
    }
}
