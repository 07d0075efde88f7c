//! A limit for the memory of one unit of work. Exceeding it raises an ERROR and does not end the process.
//!
//! When an allocation fails, PostgreSQL raises "out of memory" (53200) and rolls back, but Rust aborts the process, which
//! restarts the server. The limit is therefore set in the kernel, for the data of this process. If an allocation of Rust
//! fails, the limit is lifted and the statement is cancelled.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys;

#[global_allocator]
static ALLOCATOR: Lifting = Lifting;

/// The system's allocator, which lifts our limit when an allocation fails.
struct Lifting;

static IS_LIMITED: AtomicBool = AtomicBool::new(false);
static WAS_LIFTED: AtomicBool = AtomicBool::new(false);

/// A limit that is in force until it is dropped. For a process with one thread.
pub struct Limit(());

impl Limit {
    /// Lets this process allocate so many bytes more than it has.
    pub fn set(bytes: u64) -> Limit {
        WAS_LIFTED.store(false, Ordering::Relaxed);
        if let Some(now) = data() {
            set_soft_limit(Some(now.saturating_add(bytes)));
            IS_LIMITED.store(true, Ordering::Relaxed);
        }
        Limit(())
    }

    /// Whether an allocation of Rust exceeded the limit. Those of PostgreSQL raise an ERROR.
    pub fn was_exceeded(&self) -> bool {
        WAS_LIFTED.load(Ordering::Relaxed)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        lift();
    }
}

/// Lifts the limit. True: there was one.
fn lift() -> bool {
    let was_limited = IS_LIMITED.swap(false, Ordering::Relaxed);
    if was_limited {
        set_soft_limit(None);
    }
    was_limited
}

/// Sets the kernel's soft limit. `None`: as high as the hard limit allows.
fn set_soft_limit(bytes: Option<u64>) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes into, and reads, a struct of its own layout. Only the soft limit is changed.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_DATA, &mut limit) == 0 {
            limit.rlim_cur = bytes.map_or(limit.rlim_max, |bytes| {
                limit.rlim_max.min(bytes as libc::rlim_t)
            });
            libc::setrlimit(libc::RLIMIT_DATA, &limit);
        }
    }
}

/// The bytes that the limit counts. `None`: the kernel does not tell, so no limit is set.
fn data() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(5)?.trim().parse().ok()?;
    // SAFETY: asks for a constant of the machine.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}

/// Tries a failed allocation again without the limit, and has the running statement cancelled.
fn retry(allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let allocated = allocate();
    if !allocated.is_null() || !lift() {
        return allocated;
    }
    WAS_LIFTED.store(true, Ordering::Relaxed);
    // SAFETY: plain flags of a process with one thread.
    unsafe {
        pg_sys::QueryCancelPending = 1;
        pg_sys::InterruptPending = 1;
    }
    allocate()
}

// SAFETY: each hands on what it gets to the system's allocator, and returns what that returns.
unsafe impl GlobalAlloc for Lifting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        retry(|| unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        retry(|| unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above. A realloc that fails leaves what is there as it is.
        retry(|| unsafe { System.realloc(pointer, layout, size) })
    }
}
