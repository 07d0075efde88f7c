//! Shared by all tests of a whole server: a private [`Cluster`] with the extension, and a [`Vendor`] that
//! answers as a test tells it and records the requests.
//!
//! A step that fails panics, and the panic's message is the report.

mod clock;
mod cluster;
mod connector;
mod gateway;
pub mod http;
mod mariadb;
mod random;
mod vendor;

pub use clock::MovedClock;
pub use cluster::{Cluster, Stop};
pub use connector::{
    Shop, api, insert_connector, ledger_holds, manifest, order, run_of, sealed_box, sync,
    wait_for_run,
};
pub use gateway::{Gateway, SECRET, TENANT, free_port, push, signature};
pub use mariadb::{MariaDb, MariaDbClient};
pub use random::Random;
pub use vendor::{Asked, Reply, Vendor, decode};

use std::time::{Duration, Instant};

/// Waits until `ready` returns a value. Panics with `what` after `seconds`.
pub fn wait_until<T>(seconds: u64, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reports that this machine does not allow a part of a test. The report bypasses the capture of the test's output, so
/// that `run_tests.sh` can count it.
pub fn skip(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Kilobytes of memory a process has, by the name of a line of its status (VmRSS, VmHWM, RssAnon).
pub fn memory_kb(pid: i32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))
        .unwrap_or("0");
    line.split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
