//! The launcher: one process for the server. It makes sure that every database with the extension has a sync worker, and a
//! gateway if the settings name an address for it.
//!
//! It is connected to no database, so it blocks no DROP DATABASE, but it cannot see which databases have the extension. A
//! database that it does not know gets a worker, which ends at once if the extension is missing. CREATE EXTENSION asks for a
//! worker; the launcher also checks all databases from time to time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use connector_service_core::logged::Logged;
use pgrx::bgworkers::{
    BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime, DynamicBackgroundWorker,
};
use pgrx::prelude::*;

use super::{SYNC_WORKER, upkeep};
use crate::wait::Waiter;
use crate::{board, gateway, guc, signals};

/// How often the launcher checks all databases. Longer: a database made from a template with the extension waits longer for
/// its worker. Shorter: more scans of pg_database.
const POLL_EVERY: Duration = Duration::from_secs(60);

/// How long a database counts as having no extension. Shorter: more processes are started for nothing.
const BELIEVE_EMPTY: Duration = Duration::from_secs(15 * 60);

/// Pause before a worker that ended is started again. It doubles each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A worker that ran for this long did not fail at its start.
const HEALTHY: Duration = Duration::from_secs(30);

pub fn register() {
    BackgroundWorkerBuilder::new("connector_service launcher")
        .set_library("connector_service")
        .set_function("connector_service_launcher")
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .enable_spi_access()
        .load();
}

/// What the launcher knows of one worker of one database.
struct Known {
    worker: Option<DynamicBackgroundWorker>,
    /// When the worker was started, or the database found empty.
    since: Instant,
    not_before: Instant,
    pause: Duration,
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn connector_service_launcher(_arg: pg_sys::Datum) {
    signals::install();
    // SAFETY: once, at the start of a background worker; without a database only shared catalogs are there.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) };
    board::enter_launcher();
    let mut waiter = match Waiter::new() {
        Ok(waiter) => waiter,
        Err(error) => error!("connector_service launcher cannot make its wake-up pipe: {error}"),
    };
    let mut launcher = Launcher {
        known: HashMap::new(),
        logged: Logged::default(),
        chosen: None,
    };
    loop {
        signals::answer();
        let next = launcher.start_missing();
        waiter.sleep(next);
    }
}

struct Launcher {
    /// What is known of the workers, by database and number.
    known: HashMap<(u32, i32), Known>,
    logged: Logged,
    /// The database whose gateway has the address that names no database.
    chosen: Option<u32>,
}

impl Launcher {
    /// Starts what is missing; returns how long there is nothing to do.
    fn start_missing(&mut self) -> Duration {
        let now = Instant::now();
        let (asked, empty) = board::take_requests();
        for database in empty {
            if let Some(known) = self.known.get_mut(&(database, 1)) {
                *known = Known {
                    worker: None,
                    since: now,
                    not_before: now + BELIEVE_EMPTY,
                    pause: FIRST_PAUSE,
                };
            }
        }
        for database in asked {
            if let Some(known) = self.known.get_mut(&(database, 1)) {
                known.not_before = now;
            }
        }
        let databases = databases();
        let workers = guc::sync_workers();
        let chosen = self.choose_for_gateway(&databases, now);
        let has_gateway = |database: &Database| {
            guc::gateway_of(&database.name)
                .is_some_and(|listens| !listens.is_shared || chosen == Some(database.oid.to_u32()))
        };
        self.known.retain(|(oid, number), _| {
            let database = databases.iter().find(|d| d.oid.to_u32() == *oid);
            database.is_some_and(|database| match *number {
                board::GATEWAY => has_gateway(database),
                board::UPKEEP => true,
                number => number <= workers,
            })
        });
        board::keep_errands(|oid| databases.iter().any(|d| d.oid.to_u32() == oid));
        let mut next = POLL_EVERY;
        if chosen.is_none() && guc::gateway_listen().unnamed().is_some() {
            next = SEES_EXTENSION;
        }
        for database in databases.iter().filter(|d| d.can_be_served) {
            next = next.min(self.ensure_running(database, 1, now));
            // The others are started only if the first worker stays, because the database has the extension.
            let is_served = self.known.get(&(database.oid.to_u32(), 1));
            if is_served.is_some_and(|known| known.worker.is_some()) {
                for number in 2..=workers {
                    next = next.min(self.ensure_running(database, number, now));
                }
                let known = self.known.get(&(database.oid.to_u32(), board::UPKEEP));
                let is_there = known.is_some_and(|known| known.worker.is_some());
                if is_there || board::has_errands(database.oid) {
                    next = next.min(self.ensure_running(database, board::UPKEEP, now));
                }
                if has_gateway(database) {
                    next = next.min(self.ensure_running(database, board::GATEWAY, now));
                }
            }
        }
        next
    }

    /// The database whose gateway has the address that names no database: the one that has it already, or else the one that was
    /// created first. A database that was just started is waited for, so that the choice does not depend on who is faster.
    fn choose_for_gateway(&mut self, databases: &[Database], now: Instant) -> Option<u32> {
        let mut candidates: Vec<&Database> = databases
            .iter()
            .filter(|d| d.can_be_served)
            .filter(|d| guc::gateway_of(&d.name).is_some_and(|listens| listens.is_shared))
            .collect();
        candidates.sort_unstable_by_key(|d| d.oid.to_u32());
        let confirmed = board::confirmed();
        let has = |database: &&Database| confirmed.contains(&database.oid.to_u32());
        let known = &self.known;
        let worker = |database: &&Database| known.get(&(database.oid.to_u32(), 1));
        let stays = |database: &&Database| {
            let is_empty = |known: &Known| {
                known.worker.is_none() && known.not_before > now + LONGEST_PAUSE * 2
            };
            self.chosen == Some(database.oid.to_u32()) && !worker(database).is_some_and(is_empty)
        };
        let may_have = |database: &&Database| {
            let is_starting =
                |known: &Known| known.worker.is_some() && now - known.since < SEES_EXTENSION;
            has(database) || worker(database).is_none_or(is_starting)
        };
        let mut all = candidates.iter().copied();
        let chosen = all
            .clone()
            .find(stays)
            .or_else(|| all.find(may_have).filter(has));
        self.chosen = chosen.map(|database| database.oid.to_u32());
        let chosen = chosen?;
        let others: Vec<&str> = candidates
            .iter()
            .filter(|database| database.oid != chosen.oid && has(database))
            .map(|database| database.name.as_str())
            .collect();
        let thing = (SHARED_ADDRESS, String::new());
        if others.is_empty() {
            self.logged.over(&thing, now);
        } else if self.logged.trouble(thing, &chosen.name, now).is_some() {
            ereport!(
                PgLogLevel::WARNING,
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "connector_service: the gateway answers for database \"{}\" only, and not for \"{}\"",
                    chosen.name,
                    others.join("\", \"")
                ),
                "Name the database in connector_service.gateway_database, or give each database an address of its own in connector_service.gateway_listen."
            );
        }
        Some(chosen.oid.to_u32())
    }

    /// Starts one worker of one database if it does not run; returns how long until this should be checked again.
    fn ensure_running(
        &mut self,
        Database { oid, name, .. }: &Database,
        number: i32,
        now: Instant,
    ) -> Duration {
        let database = *oid;
        let known = self
            .known
            .entry((database.to_u32(), number))
            .or_insert_with(|| Known {
                worker: None,
                since: now,
                not_before: now,
                pause: FIRST_PAUSE,
            });
        if let Some(worker) = &known.worker {
            if !matches!(worker.pid(), Err(BackgroundWorkerStatus::Stopped)) {
                return POLL_EVERY;
            }
            known.worker = None;
            known.pause = if now - known.since > HEALTHY {
                FIRST_PAUSE
            } else {
                (known.pause * 2).min(LONGEST_PAUSE)
            };
            known.not_before = known.not_before.max(now + known.pause);
        }
        if now < known.not_before {
            return known.not_before - now;
        }
        if board::is_blocked(database.to_u32()) {
            return FIRST_PAUSE;
        }
        let (process, function) = match number {
            board::GATEWAY => (gateway::NAME, "connector_service_gateway"),
            board::UPKEEP => (upkeep::NAME, "connector_service_upkeep"),
            _ => (SYNC_WORKER, "connector_service_sync_worker"),
        };
        let started = BackgroundWorkerBuilder::new(process)
            .set_library("connector_service")
            .set_function(function)
            .set_argument(Some(board::pack(database, number)))
            .set_start_time(BgWorkerStartTime::RecoveryFinished)
            .set_restart_time(None)
            // SAFETY: this process's own pid.
            .set_notify_pid(unsafe { pg_sys::MyProcPid })
            .enable_spi_access()
            .load_dynamic();
        match started {
            Ok(worker) => {
                known.worker = Some(worker);
                known.since = now;
                let thing = (NO_SLOT, format!("database \"{name}\""));
                if self.logged.over(&thing, now).is_some() {
                    log!(
                        "connector_service found a background worker slot for {}",
                        thing.1
                    );
                }
                POLL_EVERY
            }
            Err(_) => {
                known.not_before = now + Duration::from_secs(5);
                self.log_no_slot(name, now);
                Duration::from_secs(5)
            }
        }
    }

    fn log_no_slot(&mut self, database: &str, now: Instant) {
        let thing = (NO_SLOT, format!("database \"{database}\""));
        if self.logged.trouble(thing, "", now).is_some() {
            ereport!(
                PgLogLevel::WARNING,
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
                format!(
                    "connector_service found {NO_SLOT} for database \"{database}\"; its connectors are not synced"
                ),
                "Raise max_worker_processes and restart the server. The launcher keeps trying."
            );
        }
    }
}

/// How long a worker may take until it has seen whether its database has the extension. Longer: where a worker hangs, the gateway
/// starts later. Shorter: on a slow server another database may get the address.
const SEES_EXTENSION: Duration = Duration::from_secs(5);

const SHARED_ADDRESS: &str = "one address for several gateways";

const NO_SLOT: &str = "no free background worker slot";

pub struct Database {
    pub oid: pg_sys::Oid,
    pub name: String,
    pub owner: pg_sys::Oid,
    pub can_be_served: bool,
}

/// All databases, from the shared catalog. This needs no connection to a database.
fn databases() -> Vec<Database> {
    // SAFETY: outside of a transaction, in a process that answers errors by ending.
    unsafe { pg_sys::StartTransactionCommand() };
    let databases = scan_databases();
    // SAFETY: started above.
    unsafe { pg_sys::CommitTransactionCommand() };
    databases
}

/// All databases, from the shared catalog, within a transaction.
pub fn scan_databases() -> Vec<Database> {
    let mut databases = Vec::new();
    // SAFETY: a catalog scan as PostgreSQL's own launchers do it; the rows are of the catalog's type and are
    // copied before the scan ends.
    unsafe {
        let relation =
            pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            databases.push(Database {
                oid: row.oid,
                name: std::ffi::CStr::from_ptr(row.datname.data.as_ptr())
                    .to_string_lossy()
                    .into_owned(),
                owner: row.datdba,
                // -2 marks a database whose DROP was interrupted.
                can_be_served: row.datallowconn && !row.datistemplate && row.datconnlimit != -2,
            });
        }
        if let Some(end) = (*(*relation).rd_tableam).scan_end {
            end(scan);
        }
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    databases
}
