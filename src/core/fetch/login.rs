//! The token of a run: asked for before the first request, again when it is over or refused, and never stored. A
//! refresh token that the vendor replaces is stored before anything is done with what came along with it.
//!
//! Many a vendor takes a refresh token once, and then its answer is the only place where the next one stands: who hangs up
//! before it came is locked out for good. So what asks for a token is a task of its own, which nothing ends but its own
//! time-outs. Whatever became of the run meanwhile, the new refresh token goes to the main thread, which stores it; until
//! then the login is in flight, no other run of the connector may be taken up, and the process gives it time before it
//! ends ([`super::Gate`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::body::SMALL_BODY;
use super::bounds::Tries;
use super::client::Client;
use super::logins::InFlight;
use super::place::named;
use super::run::{Run, Token};
use super::trace::{self, Attempt, Trace};
use super::{Limits, Rotation};
use crate::error::{Class, Code, Failure};
use crate::guard::Allowed;
use crate::secret::Secret;
use crate::source::{Access, Grant, Login, Reader, Request, Rotated, Start};

/// A token is not used any more when it has less than this left, or a tenth of its life. Longer: a short-lived
/// token is asked for all the time. Shorter: a request that is under way finds it over.
const MARGIN: Duration = Duration::from_secs(60);

/// How long a run waits until its new refresh token is stored; it is stored later all the same. Longer: a run that waits
/// takes the place of another one. Shorter: a lock that somebody holds for a moment fails the run.
const STORED_WITHIN: Duration = Duration::from_secs(60);

/// Everything that one token request needs, so that it does not need its run.
struct Asking {
    run: Uuid,
    connector: Uuid,
    tenant: Uuid,
    definition: String,
    reader: Arc<dyn Reader>,
    start: Start,
    refresh: Option<Secret>,
    request: Request,
    client: Arc<Client>,
    limits: Limits,
    allowed: Arc<Allowed>,
    in_flight: InFlight,
    trace: Arc<Trace>,
    attempt: Attempt,
}

/// The result of a token request.
enum Asked {
    Granted(Grant),
    Failed(Failure),
    /// The vendor has answered, and another request would use a spent refresh token: the answer is not stored, or cannot be
    /// used.
    Refused(Failure),
}

impl Asking {
    async fn ask(self) -> Asked {
        let (method, url) = (trace::word(self.request.method), &self.request.url);
        let mut asking = self.trace.begin(None, method, url, None, self.attempt);
        let exchanged = self.exchange(&mut asking).await;
        let code = match &exchanged {
            Ok(Ok(_)) => None,
            Ok(Err((_, failure))) | Err(failure) => Some(failure.code),
        };
        self.trace.note(asking, code, None);
        let granted = match exchanged {
            Ok(granted) => granted,
            Err(failure) => return Asked::Failed(self.named(failure)),
        };
        let (rotated, outcome) = match granted {
            Ok(grant) => (grant.rotated.clone(), Asked::Granted(grant)),
            Err((rotated, failure)) => (rotated, Asked::Refused(self.named(failure))),
        };
        let Some(rotated) = rotated else {
            return outcome;
        };
        let (stored, answer) = oneshot::channel();
        let logins = self.in_flight.logins();
        logins.store(Rotation {
            run: self.run,
            connector: self.connector,
            tenant: self.tenant,
            definition: self.definition,
            rotated,
            stored,
            in_flight: self.in_flight,
        });
        let stored = timeout(STORED_WITHIN, answer).await;
        // Why it is refused says more than that its token is not stored yet.
        if let Asked::Refused(_) = outcome {
            return outcome;
        }
        match stored {
            Ok(Ok(())) => outcome,
            // The main thread has dropped it: there is no such connector any more.
            Ok(Err(_)) => Asked::Refused(Failure::new(
                Code::Internal,
                "the new refresh token was not stored: the connector is gone",
            )),
            Err(_) => Asked::Refused(Failure::new(
                Code::StoreFailed,
                format!(
                    "the new refresh token could not be stored within {} s; storing it is retried",
                    STORED_WITHIN.as_secs()
                ),
            )),
        }
    }

    fn named(&self, failure: Failure) -> Failure {
        named(&self.request.url, failure)
    }

    /// The vendor's answer. An error: the request may be made again. Within: the answer is no grant, although it came
    /// as a success, and the refresh token that stands in it.
    async fn exchange(
        &self,
        asking: &mut trace::Asking,
    ) -> Result<Result<Grant, Unusable>, Failure> {
        let login = self.reader.login();
        let login = login.ok_or_else(|| Failure::new(Code::Internal, "the source has no login"))?;
        let sent = self.client.send(&self.request, &self.limits, &self.allowed);
        let answering = sent.await?;
        let is_spent = answering.is_success() && login.spends();
        let response = match self.client.take(answering, &self.limits).await {
            Ok((response, _)) => response,
            Err(failure) if is_spent => return Ok(Err((None, spent(failure)))),
            Err(failure) => return Err(failure),
        };
        asking.answered(Some(response.status), response.body.len() as u64);
        let refresh = self.refresh.as_ref();
        match login.granted(self.start, refresh, &response) {
            Ok(grant) => Ok(Ok(grant)),
            Err(failure) if is_spent => {
                let rotated = login.rotated(self.start, refresh, &response);
                let failure = match rotated {
                    Some(_) => failure,
                    None => spent(failure),
                };
                Ok(Err((rotated, failure)))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// A refresh token that is to be stored, and why its answer cannot be used.
type Unusable = (Option<Rotated>, Failure);

/// The failure of a login whose answer came and was lost. What it was sent may be worth nothing any more, so a quick retry
/// would only show a spent token again. What the vendor said in words stands as it is.
fn spent(failure: Failure) -> Failure {
    let says_why = [
        Code::CredentialsRejected,
        Code::RateLimited,
        Code::ServerError,
    ];
    if says_why.contains(&failure.code) {
        return failure;
    }
    let message = format!(
        "{}; the refresh token that was sent may be used up, so it was not sent again; if the next sync is refused, give the connector a new one",
        failure.message
    );
    Failure::new(Code::UnexpectedShape, message)
}

impl Run<'_> {
    /// Brings the token, where the source needs one. True: it was asked for just now. Streams that are read side by side
    /// wait here for one another.
    pub async fn log_in(&self) -> Result<(Option<Access>, bool), Failure> {
        let Some(login) = self.reader.login() else {
            return Ok((None, false));
        };
        let mut held = self.login.lock().await;
        if let Some(token) = held.token.as_ref().filter(|token| !token.is_over()) {
            return Ok((Some(token.access.clone()), false));
        }
        // A run may be hours old, and what a login signs is good for minutes.
        let start = Start {
            now: self.start.now + self.began.elapsed(),
            ..self.start
        };
        let grant = self.granted(login, start, held.refresh.as_ref()).await;
        // Without a token no stream can be read.
        let Grant {
            access,
            lives,
            rotated,
        } = grant.map_err(Failure::of_account)?;
        let over_at = lives.map(|lives| Instant::now() + lives - MARGIN.min(lives / 10));
        if let Some(rotated) = rotated {
            held.refresh = Some(rotated.new);
        }
        held.token = Some(Token {
            access: access.clone(),
            over_at,
        });
        Ok((Some(access), true))
    }

    /// The vendor refused a token. Another stream may have brought a new one meanwhile.
    pub async fn refuse_token(&self, access: Option<&Access>) {
        let mut held = self.login.lock().await;
        if held.token.as_ref().map(|token| &token.access) == access {
            held.token = None;
        }
    }

    async fn granted(
        &self,
        login: &dyn Login,
        start: Start,
        refresh: Option<&Secret>,
    ) -> Result<Grant, Failure> {
        let request = login.request(start, refresh)?;
        let mut tries = Tries::new(&self.limits);
        let mut attempt = Attempt::default();
        loop {
            attempt.tries += 1;
            match self
                .ask_for_token(start, refresh, request.clone(), attempt)
                .await?
            {
                Asked::Granted(grant) => return Ok(grant),
                Asked::Refused(failure) => return Err(failure),
                Asked::Failed(failure) => match failure.code.class() {
                    Class::Transient => {
                        let since = Instant::now();
                        self.pause(&mut tries, failure).await?;
                        attempt.pause = since.elapsed();
                    }
                    Class::Mend => return Err(failure),
                },
            }
        }
    }

    /// One token request, which goes on where this run is ended.
    async fn ask_for_token(
        &self,
        start: Start,
        refresh: Option<&Secret>,
        request: Request,
        attempt: Attempt,
    ) -> Result<Asked, Failure> {
        let Some(in_flight) = self.logins.begin(self.run, self.connector, self.tenant)? else {
            // What comes next is the end of the run's task, or of the process.
            return std::future::pending().await;
        };
        let asking = Asking {
            run: self.run,
            connector: self.connector,
            tenant: self.tenant,
            definition: self.definition.clone(),
            reader: self.reader.clone(),
            start,
            refresh: refresh.cloned(),
            request,
            client: self.client.clone(),
            limits: Limits {
                // A larger body waits for a permit, without end where pages are not stored; and no token is that large.
                response_bytes: self.limits.response_bytes.min(SMALL_BODY),
                ..self.limits
            },
            allowed: self.allowed.clone(),
            in_flight,
            trace: self.trace.clone(),
            attempt,
        };
        // Its handle is dropped with this run, and the task is not.
        let asked = tokio::spawn(asking.ask()).await;
        asked.map_err(|_| Failure::new(Code::Internal, "the login panicked"))
    }
}
