//! The only place where the worker sleeps.
//!
//! One wait covers the latch (signals, COMMITs of other sessions) and a pipe that tokio threads write to. It is PostgreSQL's
//! own wait, so the process answers interrupts. A worker that slept anywhere else would block every DROP DATABASE of the
//! server.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgrx::pg_sys;

pub struct Waiter {
    reader: UnixStream,
    waker: Waker,
}

/// Wakes the main thread from any other one. Many calls between two waits cost one write.
#[derive(Clone)]
pub struct Waker(Arc<Inner>);

struct Inner {
    pending: AtomicBool,
    writer: UnixStream,
}

impl Waiter {
    pub fn new() -> std::io::Result<Waiter> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Waiter {
            reader,
            waker: Waker(Arc::new(Inner {
                pending: AtomicBool::new(false),
                writer,
            })),
        })
    }

    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Sleeps until the latch is set, a waker is called, or the time is up. True: the latch was set.
    pub fn sleep(&mut self, longest: Duration) -> bool {
        let timeout = longest
            .as_millis()
            .try_into()
            .unwrap_or(std::ffi::c_long::MAX);
        // SAFETY: MyLatch is this process's own, the socket lives as long as self, and this is the main thread.
        let woken = unsafe {
            pg_sys::WaitLatchOrSocket(
                pg_sys::MyLatch,
                (pg_sys::WL_LATCH_SET
                    | pg_sys::WL_SOCKET_READABLE
                    | pg_sys::WL_TIMEOUT
                    | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
                self.reader.as_raw_fd(),
                timeout,
                pg_sys::PG_WAIT_EXTENSION,
            )
        };
        if woken & pg_sys::WL_SOCKET_READABLE as i32 != 0 {
            // The pipe is emptied first, then the flag is cleared, and then the caller looks at what arrived. A waker that
            // comes in between writes nothing, but the caller sees what it announces. In the other order its byte could be
            // read here while the flag stays set, and no later waker would write.
            let mut bytes = [0; 64];
            while matches!(self.reader.read(&mut bytes), Ok(1..)) {}
            self.waker.0.pending.store(false, Ordering::SeqCst);
        }
        let latch = woken & pg_sys::WL_LATCH_SET as i32 != 0;
        if latch {
            // SAFETY: as above.
            unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
        }
        latch
    }
}

impl Waker {
    pub fn wake(&self) {
        if !self.0.pending.swap(true, Ordering::SeqCst) {
            // A full pipe wakes the main thread as well.
            let _ = (&self.0.writer).write(&[1]);
        }
    }
}
