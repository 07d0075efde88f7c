//! The tokio runtime: its threads never take one of PostgreSQL's signals.
//!
//! A handler of PostgreSQL's that ran on a foreign thread would touch the state of the main thread. So all
//! signals are blocked while threads are made (they inherit the mask), and blocked again in each thread.

use std::mem::MaybeUninit;

use tokio::runtime::{Builder, Runtime};

/// Threads that wait for the network and read pages. One reads while another waits; more would only compete
/// with the main thread on small machines.
const THREADS: usize = 2;

pub fn runtime(name: &str) -> std::io::Result<Runtime> {
    let before = block_signals();
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name(name)
        .on_thread_start(|| {
            block_signals();
        })
        .enable_all()
        .build();
    // SAFETY: a mask that this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    runtime
}

/// Blocks every signal in this thread but those that a fault of its own raises; returns the mask before.
fn block_signals() -> libc::sigset_t {
    const OWN_FAULTS: [i32; 7] = [
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGSYS,
    ];
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: sigfillset and pthread_sigmask write the sets before they are read.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        for signal in OWN_FAULTS {
            libc::sigdelset(all.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}
