//! Signals of our processes: PostgreSQL's own handlers, on the main thread only.
//!
//! pgrx's wrappers of C functions must not run inside a signal handler, so the handlers are declared here as
//! the plain C functions they are. Threads of the tokio runtime block all signals.

use pgrx::pg_sys;

/// The plain C functions.
mod handlers {
    unsafe extern "C-unwind" {
        pub fn die(signal: i32);
        pub fn SignalHandlerForConfigReload(signal: i32);
        pub fn StatementCancelHandler(signal: i32);
    }
}

pub fn install() {
    #[cfg(not(feature = "pg18"))]
    use pg_sys::pqsignal;
    #[cfg(feature = "pg18")]
    use pg_sys::pqsignal_be as pqsignal;
    // SAFETY: handlers that PostgreSQL made for these signals, set before signals are unblocked.
    unsafe {
        pqsignal(libc::SIGTERM, Some(handlers::die));
        pqsignal(libc::SIGHUP, Some(handlers::SignalHandlerForConfigReload));
        pqsignal(libc::SIGINT, Some(handlers::StatementCancelHandler));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Answers interrupts (which may end the process) and takes a reload of the configuration in; true: there was one.
pub fn answer() -> bool {
    pgrx::check_for_interrupts!();
    // SAFETY: plain flag, set by the handler; reloading belongs to the main thread outside of a transaction.
    unsafe {
        if pg_sys::ConfigReloadPending == 0 {
            return false;
        }
        pg_sys::ConfigReloadPending = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
    }
    true
}
