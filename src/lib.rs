//! `connector_service`: load raw data from the services a business uses, inside PostgreSQL.
//!
//! Start reading at [`worker`]: a launcher starts one sync worker for each database that has the extension.
//! The worker's main thread is the only one that calls PostgreSQL, through [`store`]; everything that waits
//! for a network lives in the crate `connector_service_core`, which cannot name `pgrx`. [`gateway`] is another process,
//! which answers HTTP where a setting says so.

mod activity;
mod api;
mod board;
mod error;
mod fault;
mod gateway;
mod guc;
mod hush;
mod process;
mod schema;
mod signals;
mod store;
mod trouble;
mod wait;
mod worker;

use pgrx::prelude::*;

pgrx::pg_module_magic!();

#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // SAFETY: both are plain flags that the postmaster sets before it loads libraries.
    let (preloading, upgrading) = unsafe {
        (
            pg_sys::process_shared_preload_libraries_in_progress,
            pg_sys::IsBinaryUpgrade,
        )
    };
    guc::define();
    hush::install();
    // Without the preload there is no shared memory and no worker: what needs them says so. During
    // pg_upgrade nothing may run that writes.
    if preloading {
        guc::define_at_start();
    }
    if preloading && !upgrading {
        board::install();
        trouble::install();
        worker::standdown::install();
        worker::launcher::register();
    }
}
