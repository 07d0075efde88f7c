//! A restore by pg_restore: rows come as they were dumped, in any order.
//!
//! pg_dump sees no foreign keys of an extension's tables once their data is on its way, so that `pg_restore -j` loads a table
//! before what it refers to. And what was dumped was checked and derived when it was written. So neither foreign keys nor
//! triggers of ours look at these rows, as with `session_replication_role = replica`. `connector_service_adopt()` checks that
//! every row has what it refers to, before anything is synced.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Whether this process has set the role of its session for the statement that is running.
static IS_SET: AtomicBool = AtomicBool::new(false);

/// Statement trigger, which 88_restore.sql declares for statements of pg_restore: begins to load rows as they are.
#[pg_extern(sql = false)]
fn connector_service_restore_begins() -> Result<(), ErrorReport> {
    // It does not fire in a session whose role is replica already. A statement that failed before left the mark behind.
    // SAFETY: inside a transaction. Nobody else may go round the triggers.
    if unsafe { pg_sys::superuser() } {
        IS_SET.store(true, Relaxed);
        set_role(c"replica");
    }
    Ok(())
}

/// Statement trigger: the rows are loaded.
#[pg_extern(sql = false)]
fn connector_service_restore_ends() -> Result<(), ErrorReport> {
    if IS_SET.swap(false, Relaxed) {
        set_role(c"origin");
    }
    Ok(())
}

/// Until the end of the transaction at the latest: a statement that fails takes it back.
fn set_role(role: &std::ffi::CStr) {
    // SAFETY: inside a transaction; both texts end with NUL. It raises only for a value that is not known.
    unsafe {
        pg_sys::set_config_option(
            c"session_replication_role".as_ptr(),
            role.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}
