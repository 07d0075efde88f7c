//! The gateway worker: HTTP for one database, off unless `connector_service.gateway_listen` names an address for it.
//!
//! Its sockets and their limits are in [`connector_service_core::serve`], on tokio threads. Here is its main thread, the
//! only one that calls PostgreSQL: it takes what was asked out of a bounded queue, answers each from a transaction of
//! its own ([`read`]), and stores what was pushed in one for all of them ([`webhook`]): under load one COMMIT waits for
//! the disk for many events. It is another process than the sync worker, so that nothing that happens to it stops a sync.

mod read;
mod webhook;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_service_core::serve::{Asked, Identity, Server, Settings};
use pgrx::prelude::*;

use crate::error::Error;
use crate::store::{installation, tx};
use crate::wait::{Waiter, Waker};
use crate::{activity, board, guc, process, signals, trouble};

/// What pg_stat_activity shows as backend_type.
pub const NAME: &str = "connector_service gateway";

const CANNOT_LISTEN: &str = "gateway cannot listen";
const OLD_CERTIFICATE: &str = "gateway could not load its new certificate";

/// Webhooks of one transaction. More: a longer one. Fewer: more waits for the disk.
const AT_ONCE: usize = 128;

/// How long the sync worker is left alone after something was stored. Longer: metrics follow later. Shorter: it looks at the
/// tables for every few events.
const TELL_AFTER: Duration = Duration::from_millis(100);

/// Pause after it could not listen, because somebody else has the address, say.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);

/// Time for answers that are on their way when the process is told to end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Longest time without a look at the settings.
const LOOK_AT_LEAST: Duration = Duration::from_secs(60);

/// Entry point of the gateway of one database.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn connector_service_gateway(arg: pg_sys::Datum) {
    let Some((_, number)) = process::begin(arg) else {
        return;
    };
    let prepared = installation::prepare_session()
        .and_then(|()| installation::wait_for_locks_less())
        .and_then(|()| tx(installation::database));
    match prepared {
        Ok(name) => {
            trouble::begin(&name, number);
            run(&name);
        }
        Err(Error::NotInstalled) => {}
        Err(error) => trouble::cannot_start(NAME, number, &error),
    }
}

/// Serves until the settings name no address any more.
fn run(database: &str) {
    let mut waiter = match Waiter::new() {
        Ok(waiter) => waiter,
        Err(error) => error!("connector_service gateway cannot make its wake-up pipe: {error}"),
    };
    let mut gateway = Gateway {
        waker: waiter.waker(),
        server: None,
        is_tls: false,
        hooks: webhook::Hooks::default(),
        tell_at: None,
        listen_at: Instant::now(),
    };
    let _doing = activity::doing("looking at the tables");
    activity::idle("the gateway waits for requests");
    let mut look_at = Instant::now();
    loop {
        // SAFETY: plain flag, set by the signal's handler.
        if unsafe { pg_sys::ProcDiePending } != 0 {
            gateway.finish();
        }
        if signals::answer() {
            // They were opened with the limits that there were.
            gateway.hooks = webhook::Hooks::default();
            gateway.reload();
        }
        if Instant::now() >= look_at {
            if matches!(tx(installation::look), Err(Error::NotInstalled)) {
                return;
            }
            gateway.hooks.close_idle();
            look_at = Instant::now() + LOOK_AT_LEAST;
        }
        let Some(address) = guc::gateway_listen().of(database) else {
            gateway.finish();
            return;
        };
        gateway.listen(database, address);
        let is_any = gateway.answer();
        let quiet = gateway.tell();
        if is_any {
            continue;
        }
        let wait = match gateway.server {
            Some(_) => quiet,
            None => quiet.min(gateway.listen_at.saturating_duration_since(Instant::now())),
        };
        if waiter.sleep(wait) {
            look_at = Instant::now();
        }
    }
}

struct Gateway {
    waker: Waker,
    /// With the address it listens at.
    server: Option<(Server, SocketAddr)>,
    is_tls: bool,
    hooks: webhook::Hooks,
    /// When the sync worker is told of what was stored: its facts are for it to write.
    tell_at: Option<Instant>,
    /// When to try again.
    listen_at: Instant,
}

impl Gateway {
    /// Listens at the address, unless it does.
    fn listen(&mut self, database: &str, address: SocketAddr) {
        if self.server.as_ref().is_some_and(|(_, at)| *at == address) {
            return;
        }
        self.server = None;
        if Instant::now() < self.listen_at {
            return;
        }
        let waker = self.waker.clone();
        let started = settings(address).and_then(|settings| {
            self.is_tls = settings.identity.is_some();
            Server::start(settings, Arc::new(move || waker.wake())).map_err(|e| e.to_string())
        });
        match started {
            Ok(server) => {
                trouble::over(CANNOT_LISTEN);
                log!("connector_service gateway of database \"{database}\" listens at {address}");
                self.server = Some((server, address));
            }
            Err(problem) => {
                self.listen_at = Instant::now() + AFTER_TROUBLE;
                trouble::trouble_in_words(CANNOT_LISTEN, &format!("{address}: {problem}"));
            }
        }
    }

    /// What was stored is told, and answers that were made go out.
    fn finish(&mut self) {
        self.tell_at = self.tell_at.map(|_| Instant::now());
        self.tell();
        if let Some((server, _)) = &mut self.server {
            server.finish(LAST_WORDS);
        }
    }

    /// Tells the sync worker of what was stored, when it is time; returns how long there is nothing to tell.
    fn tell(&mut self) -> Duration {
        let Some(at) = self.tell_at else {
            return LOOK_AT_LEAST;
        };
        let wait = at.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            self.tell_at = None;
            // SAFETY: fixed for the life of a process.
            board::wake(unsafe { pg_sys::MyDatabaseId });
            return LOOK_AT_LEAST;
        }
        wait
    }

    /// The settings were read again: a certificate may have been renewed, and connections that are there stay.
    fn reload(&mut self) {
        let Some((server, _)) = &self.server else {
            return;
        };
        match identity() {
            Ok(identity) if identity.is_some() == self.is_tls => {
                trouble::over(OLD_CERTIFICATE);
                server.identify(identity);
            }
            // Another kind of server: connections of the one must not meet the other.
            Ok(_) => self.server = None,
            Err(problem) => trouble::trouble_in_words(OLD_CERTIFICATE, &problem),
        }
    }

    /// Answers some of what was asked; true: there may be more.
    fn answer(&mut self) -> bool {
        let Some((server, _)) = &mut self.server else {
            return false;
        };
        let pushed: Vec<Asked> = std::iter::from_fn(|| server.try_next_pushed())
            .take(AT_ONCE)
            .collect();
        let is_pushed = !pushed.is_empty();
        if is_pushed {
            webhook::take(&mut self.hooks, pushed);
            self.tell_at
                .get_or_insert_with(|| Instant::now() + TELL_AFTER);
        }
        let Some(asked) = server.try_next() else {
            return is_pushed;
        };
        // Who has hung up meanwhile is not worked for; but what was pushed is stored, because it was sent.
        if !asked.is_over() {
            let answer = read::answer(&asked.what);
            asked.answer(answer);
        }
        true
    }
}

fn settings(address: SocketAddr) -> Result<Settings, String> {
    Ok(Settings {
        address,
        identity: identity()?,
        connections: guc::gateway_max_connections(),
        timeout: guc::gateway_timeout(),
        upload_bytes: guc::gateway_max_upload(),
    })
}

/// Who the gateway is, where it speaks TLS.
fn identity() -> Result<Option<Arc<Identity>>, String> {
    let (certificate, key) = match guc::gateway_identity() {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        // Not in clear, where somebody meant it to be sealed.
        _ => return Err("only one of gateway_certificate and gateway_private_key is set".into()),
    };
    let identity = Identity::load(&certificate, &key).map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(identity)))
}
