//! The token of a run: asked for before the first request, again when it is over or refused, and never stored. A
//! refresh token that the vendor replaces is stored before anything is done with what came along with it.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::bounds::Tries;
use super::run::{Run, named};
use super::{Event, Rotation, What};
use crate::error::{Class, Code, Failure};
use crate::source::{Access, Grant, Rotated, Start};

/// A token is not used any more when it has less than this left, or a tenth of its life. Longer: a short-lived
/// token is asked for all the time. Shorter: a request that is under way finds it over.
const MARGIN: Duration = Duration::from_secs(60);

pub struct Held {
    pub access: Access,
    over_at: Option<Instant>,
}

impl Held {
    fn is_over(&self) -> bool {
        self.over_at.is_some_and(|at| Instant::now() >= at)
    }
}

impl Run<'_> {
    /// Sees to it that there is a token, where the source needs one. True: it was asked for just now.
    pub async fn log_in(&mut self) -> Result<bool, Failure> {
        let Some(login) = self.reader.login() else {
            return Ok(false);
        };
        if self.access.as_ref().is_some_and(|access| !access.is_over()) {
            return Ok(false);
        }
        // A run may be hours old, and what a login signs is good for minutes.
        let start = Start {
            now: self.start.now + self.began.elapsed(),
            ..self.start
        };
        let request = login.request(start, self.refresh.as_ref())?;
        let mut tries = Tries::new(&self.limits);
        let Grant {
            access,
            lives,
            rotated,
        } = loop {
            let exchanged = self
                .client
                .exchange(&request, &self.limits, &self.allowed)
                .await;
            let granted = exchanged
                .and_then(|(response, _)| login.granted(start, self.refresh.as_ref(), &response));
            match granted {
                Ok(grant) => break grant,
                Err(failure) => {
                    let failure = named(&request.url, failure);
                    match failure.code.class() {
                        Class::Transient => self.pause(&mut tries, failure).await?,
                        Class::Mend => return Err(failure),
                    }
                }
            }
        };
        let over_at = lives.map(|lives| Instant::now() + lives - MARGIN.min(lives / 10));
        if let Some(rotated) = rotated {
            self.keep(rotated).await?;
        }
        self.access = Some(Held { access, over_at });
        Ok(true)
    }

    async fn keep(&mut self, rotated: Rotated) -> Result<(), Failure> {
        let new = rotated.new.clone();
        let (stored, answer) = oneshot::channel();
        let what = What::Rotated(Box::new(Rotation { rotated, stored }));
        let run = self.run;
        self.outbox.send(Event { run, what }).await;
        match answer.await {
            Ok(stored) => stored?,
            // The main thread has dropped it: the run is not ours any more.
            Err(_) => {
                return Err(Failure::new(
                    Code::Internal,
                    "nobody stored the refresh token",
                ));
            }
        }
        self.refresh = Some(new);
        Ok(())
    }
}
