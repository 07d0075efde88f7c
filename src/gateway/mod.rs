//! The gateway worker: HTTP for one database, off unless `connector_service.gateway_listen` names an address for it.
//!
//! Its sockets and their limits are in [`connector_service_core::serve`], on tokio threads. This is its main thread, the only
//! one that calls PostgreSQL. It takes requests out of a bounded queue and answers each in a transaction of its own
//! ([`read`]). Webhooks are stored together in one transaction ([`webhook`]), so that under load many events wait for one
//! COMMIT. The gateway is a process of its own, so that its failures stop no sync.

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

/// Webhooks of one transaction. More: longer transactions. Fewer: more waits for the disk.
const AT_ONCE: usize = 128;

/// How long the gateway waits before it wakes the sync worker for what was stored. Longer: metrics follow later. Shorter: the
/// worker polls the tables for every few events.
const WAKE_WORKER_AFTER: Duration = Duration::from_millis(100);

/// Pause after the gateway could not listen, for instance because another process has the address.
const AFTER_TROUBLE: Duration = Duration::from_secs(5);

/// Time to finish sending answers when the process is told to end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Longest time between two polls of the tables.
const POLL_AT_LEAST: Duration = Duration::from_secs(60);

/// Entry point of the gateway of one database.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn connector_service_gateway(arg: pg_sys::Datum) {
    let Some((_, number)) = process::begin(arg) else {
        return;
    };
    let prepared = installation::prepare_session()
        .and_then(|()| installation::limit_lock_waits())
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
        wake_worker_at: None,
        listen_at: Instant::now(),
    };
    let _doing = activity::doing("looking at the tables");
    activity::idle("the gateway waits for requests");
    let mut poll_at = Instant::now();
    loop {
        // SAFETY: plain flag, set by the signal's handler.
        if unsafe { pg_sys::ProcDiePending } != 0 {
            gateway.finish();
        }
        if signals::answer() {
            // They were opened with the old limits.
            gateway.hooks = webhook::Hooks::default();
            gateway.reload();
        }
        if Instant::now() >= poll_at {
            if matches!(tx(installation::read), Err(Error::NotInstalled)) {
                return;
            }
            gateway.hooks.close_idle();
            poll_at = Instant::now() + POLL_AT_LEAST;
        }
        let Some(listens) = guc::gateway_of(database) else {
            gateway.finish();
            return;
        };
        gateway.listen(database, listens.at);
        let is_any = gateway.answer();
        let quiet = gateway.wake_worker();
        if is_any {
            continue;
        }
        let wait = match gateway.server {
            Some(_) => quiet,
            None => quiet.min(gateway.listen_at.saturating_duration_since(Instant::now())),
        };
        if waiter.sleep(wait) {
            poll_at = Instant::now();
        }
    }
}

struct Gateway {
    waker: Waker,
    /// The server, and the address where it listens.
    server: Option<(Server, SocketAddr)>,
    is_tls: bool,
    hooks: webhook::Hooks,
    /// When to wake the sync worker, which has the facts of stored webhooks derived.
    wake_worker_at: Option<Instant>,
    /// When to try to listen again.
    listen_at: Instant,
}

impl Gateway {
    /// Listens at the address, unless it does already.
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
                trouble::succeeded(CANNOT_LISTEN);
                log!("connector_service gateway of database \"{database}\" listens at {address}");
                self.server = Some((server, address));
            }
            Err(problem) => {
                self.listen_at = Instant::now() + AFTER_TROUBLE;
                trouble::failed_with(CANNOT_LISTEN, &format!("{address}: {problem}"));
            }
        }
    }

    /// Wakes the sync worker for what was stored, and sends the answers that are ready.
    fn finish(&mut self) {
        self.wake_worker_at = self.wake_worker_at.map(|_| Instant::now());
        self.wake_worker();
        if let Some((server, _)) = &mut self.server {
            server.finish(LAST_WORDS);
        }
    }

    /// Wakes the sync worker for what was stored, if it is time; returns how long there is nothing to do.
    fn wake_worker(&mut self) -> Duration {
        let Some(at) = self.wake_worker_at else {
            return POLL_AT_LEAST;
        };
        let wait = at.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            self.wake_worker_at = None;
            // SAFETY: fixed for the life of a process.
            board::wake(unsafe { pg_sys::MyDatabaseId });
            return POLL_AT_LEAST;
        }
        wait
    }

    /// Loads the certificate again after the settings were reloaded. Open connections stay.
    fn reload(&mut self) {
        let Some((server, _)) = &self.server else {
            return;
        };
        match identity() {
            Ok(identity) if identity.is_some() == self.is_tls => {
                trouble::succeeded(OLD_CERTIFICATE);
                server.identify(identity);
            }
            // From TLS to plain HTTP, or back: a new server is started, so that no connection is kept.
            Ok(_) => self.server = None,
            Err(problem) => trouble::failed_with(OLD_CERTIFICATE, &problem),
        }
    }

    /// Answers some requests; true: there may be more.
    fn answer(&mut self) -> bool {
        let Some((server, _)) = &mut self.server else {
            return false;
        };
        let pushed: Vec<Asked> = std::iter::from_fn(|| server.try_next_pushed())
            .take(AT_ONCE)
            .collect();
        let is_pushed = !pushed.is_empty();
        if is_pushed {
            webhook::store_pushed(&mut self.hooks, pushed);
            self.wake_worker_at
                .get_or_insert_with(|| Instant::now() + WAKE_WORKER_AFTER);
        }
        let Some(asked) = server.try_next() else {
            return is_pushed;
        };
        // A request whose client has hung up is dropped. Webhooks are stored anyway, because they were sent.
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

/// The certificate and key of the gateway. `None`: it speaks plain HTTP.
fn identity() -> Result<Option<Arc<Identity>>, String> {
    let (certificate, key) = match guc::gateway_identity() {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        // An error, not plain HTTP: somebody meant the gateway to use TLS.
        _ => return Err("only one of gateway_certificate and gateway_private_key is set".into()),
    };
    let identity = Identity::load(&certificate, &key).map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(identity)))
}
