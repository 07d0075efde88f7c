//! Signals of our processes: PostgreSQL's own handlers, on the main thread only.
//!
//! pgrx's wrappers of C functions must not run inside a signal handler, so the handlers are declared here as
//! the plain C functions they are. Threads of the tokio runtime block all signals.
//!
//! SIGTERM ends a process when it next checks for interrupts, as in every backend, unless logins are in flight: their answers
//! may hold refresh tokens that exist nowhere else. Then no other login begins, the running statement is cancelled, and the
//! main loop, which asks [`is_leaving`], waits for the logins and calls [`end`]. PostgreSQL is not told of the SIGTERM until
//! then: it would end the process at any statement, even one that stores a token. The process still answers everything else,
//! such as barriers.

use connector_service_core::fetch::Gate;
use pgrx::pg_sys;

/// The gate that counts the logins of this process.
pub static LOGINS: Gate = Gate::new();

/// The plain C functions.
mod handlers {
    unsafe extern "C-unwind" {
        pub fn die(signal: i32);
        pub fn SignalHandlerForConfigReload(signal: i32);
        pub fn StatementCancelHandler(signal: i32);
        pub fn SetLatch(latch: *mut pgrx::pg_sys::Latch);
    }
}

/// Handles SIGTERM. Like every signal handler it only sets flags and a latch.
unsafe extern "C-unwind" fn terminate(signal: i32) {
    // SAFETY: PostgreSQL's own handler; flags that handlers are there to set; errno is this thread's and is put back.
    unsafe {
        if LOGINS.close() {
            handlers::die(signal);
            return;
        }
        let errno = libc::__errno_location();
        let before = *errno;
        (&raw mut pg_sys::QueryCancelPending).write_volatile(1);
        (&raw mut pg_sys::InterruptPending).write_volatile(1);
        handlers::SetLatch(pg_sys::MyLatch);
        *errno = before;
    }
}

pub fn install() {
    #[cfg(not(feature = "pg18"))]
    use pg_sys::pqsignal;
    #[cfg(feature = "pg18")]
    use pg_sys::pqsignal_be as pqsignal;
    // SAFETY: handlers that PostgreSQL made for these signals, set before signals are unblocked.
    unsafe {
        pqsignal(libc::SIGTERM, Some(terminate));
        pqsignal(libc::SIGHUP, Some(handlers::SignalHandlerForConfigReload));
        pqsignal(libc::SIGINT, Some(handlers::StatementCancelHandler));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Whether the process was told to end, and only waits for logins in flight. Long work ends early then.
pub fn is_leaving() -> bool {
    LOGINS.is_closed()
}

/// Ends the process as SIGTERM does when no login is in flight.
pub fn end() {
    // SAFETY: the handler sets flags of this process, which are looked at next.
    unsafe { handlers::die(libc::SIGTERM) };
    pgrx::check_for_interrupts!();
}

/// Answers interrupts, which may end the process, and reloads the configuration if asked to. True: it was reloaded. Only
/// outside of a transaction.
pub fn answer() -> bool {
    // SAFETY: plain flags, set by handlers; reloading belongs to the main thread outside of a transaction.
    unsafe {
        // A cancel that came when no statement ran is dropped: its ERROR would end the process.
        (&raw mut pg_sys::QueryCancelPending).write_volatile(0);
        pgrx::check_for_interrupts!();
        if pg_sys::ConfigReloadPending == 0 {
            return false;
        }
        pg_sys::ConfigReloadPending = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
    }
    true
}
