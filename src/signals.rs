//! Signals of our processes: PostgreSQL's own handlers, on the main thread only.
//!
//! pgrx's wrappers of C functions must not run inside a signal handler, so the handlers are declared here as
//! the plain C functions they are. Threads of the tokio runtime block all signals.
//!
//! SIGTERM ends a process at its next look at interrupts, as everywhere, unless logins are in flight: their answers hold
//! what is nowhere else. Then no other login begins, the statement that runs is cancelled, and the main loop, which asks
//! [`is_leaving`], sees to the end of those that there are and calls [`end`]. PostgreSQL does not know of the order to end
//! meanwhile: it would end the process at any statement, that which stores a token among them; and it answers everything
//! else that it is asked, such as barriers.

use connector_service_core::fetch::Gate;
use pgrx::pg_sys;

/// The logins of this process.
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

/// SIGTERM. As any handler it may do next to nothing: it sets flags and a latch.
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

/// Whether the process was told to end, and goes on for the logins that are in flight. Whatever takes long ends early.
pub fn is_leaving() -> bool {
    LOGINS.is_closed()
}

/// Ends the process as SIGTERM does where nothing is in flight.
pub fn end() {
    // SAFETY: the handler sets flags of this process, which are looked at next.
    unsafe { handlers::die(libc::SIGTERM) };
    pgrx::check_for_interrupts!();
}

/// Answers interrupts (which may end the process) and takes a reload of the configuration in; true: there was one. Only
/// outside of a transaction.
pub fn answer() -> bool {
    // SAFETY: plain flags, set by handlers; reloading belongs to the main thread outside of a transaction.
    unsafe {
        // A cancel that found no statement is over: as an ERROR outside of any it would end the process.
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
