//! Named places at which a test can end the worker with SIGKILL.
//!
//! Only compiled with the feature `fault_points`. A test arms a place by writing its name, and optionally how many passes to
//! skip, to `connector_service.fault` in the data directory. The file is removed before the process ends, so that the
//! restarted worker does not read it again.

#[cfg(not(feature = "fault_points"))]
#[inline(always)]
pub fn point(_name: &str) {}

#[cfg(feature = "fault_points")]
pub fn point(name: &str) {
    const ARMED: &str = "connector_service.fault"; // a server process runs in its data directory
    let Ok(text) = std::fs::read_to_string(ARMED) else {
        return;
    };
    let mut words = text.split_whitespace();
    if words.next() != Some(name) {
        return;
    }
    match words.next().and_then(|count| count.parse::<u32>().ok()) {
        Some(count) if count > 1 => {
            let _ = std::fs::write(ARMED, format!("{name} {}", count - 1));
        }
        _ => {
            let _ = std::fs::remove_file(ARMED);
            // SAFETY: signals this very process.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    }
}
