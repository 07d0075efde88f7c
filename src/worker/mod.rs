//! The background processes.
//!
//! A [`launcher`] makes sure that each database with the extension has a sync worker. The worker's main thread is the loop in
//! [`turn`]: it claims queued runs, hands them to tokio threads, collects the pages that they fetch, and stores them. It holds
//! no transaction, snapshot or lock while a request is in flight. Work that may take long (facts that were left, days, checks,
//! refreshes, retention) is done by [`upkeep`], a process of its own. [`standdown`] stops the worker for commands on its whole
//! database.

pub mod launcher;
mod memory;
mod report;
pub mod standdown;
mod turn;
pub mod upkeep;

use pgrx::prelude::*;

use crate::error::Error;
use crate::store::{self, installation, lock};
use crate::{board, process, trouble};

/// What pg_stat_activity shows as backend_type.
const SYNC_WORKER: &str = "connector_service sync worker";

/// Entry point of a sync worker. Its argument holds the oid of the database and the worker's number.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn connector_service_sync_worker(arg: pg_sys::Datum) {
    let Some((database, number)) = process::begin(arg) else {
        return;
    };

    let prepared = installation::prepare_session()
        .and_then(|()| store::tx(installation::database))
        .map(|name| trouble::begin(&name, number))
        .and_then(|()| store::tx(|_| Ok(lock::worker(number))));
    match prepared {
        Ok(true) => {
            board::confirm();
            turn::run(number);
        }
        // A killed worker with this number may still be ending. The launcher tries again.
        Ok(false) => {}
        Err(Error::NotInstalled) => board::report_empty(database),
        Err(error) => trouble::cannot_start("connector_service", number, &error),
    }
}
