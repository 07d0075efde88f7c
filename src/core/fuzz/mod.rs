//! Fuzzing: inputs made at random, and what has to hold for each of them.
//!
//! A fuzz makes sound structures and damages them, so that it comes further than random bytes would. Each input is made
//! from the run's seed and its own number alone: `FUZZ_SEED` and `FUZZ_CASE` bring one back. `FUZZ_SECONDS` says how
//! long each of them goes on. Not proptest: an input is judged by its own time and memory, for as long as a setting
//! says, and is brought back by two numbers in another build, too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod damage;
mod dates;
pub mod memory;
pub mod random;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use damage::damaged;
pub use random::Random;

/// How long each fuzz goes on where nothing is said. Longer: CI takes longer than a minute for all of them.
const SECONDS: f64 = 2.0;
/// Inputs that are tried on a machine of any speed.
const FEWEST: u64 = 30;
/// What one input may take of the processor, in a debug build. A quadratic reader of the sizes that are made here
/// takes minutes.
const LONGEST: Duration = Duration::from_secs(10);
/// After this an input is taken to have no end. Shorter: a machine that does much else is taken for it.
const ENDLESS: Duration = Duration::from_secs(120);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seed of the run, the same for all of its fuzzes.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let seed = number("FUZZ_SEED").unwrap_or_else(|| {
            let mut bytes = [0; 4];
            getrandom::fill(&mut bytes).unwrap();
            u32::from_ne_bytes(bytes).into()
        });
        // Past what a test's output is kept back by: it has to be known where the process ends, too.
        let _ = writeln!(std::io::stderr(), "fuzzing with FUZZ_SEED={seed}");
        seed
    })
}

fn seconds() -> f64 {
    let said = std::env::var("FUZZ_SECONDS").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or(SECONDS)
}

/// Tries inputs until the time is over. Nested in a test of the same name, which has to fail where an input does.
pub fn each(name: &str, mut judge: impl FnMut(&mut Random)) {
    let seed = seed();
    let began = Instant::now();
    let watch = Watch::new(name, seed);
    let only = number("FUZZ_CASE");
    let longest = Duration::from_secs_f64(seconds());
    let mut tried = 0;
    let mut slowest = (Duration::ZERO, 0);
    loop {
        let case = only.unwrap_or(tried);
        watch.at(case);
        let mut random = Random::of(seed, name, case);
        let before = processor_time();
        let judged = catch_unwind(AssertUnwindSafe(|| judge(&mut random)));
        let took = processor_time() - before;
        if let Err(panic) = judged {
            eprintln!("{name}: FUZZ_SEED={seed} FUZZ_CASE={case} brings this input back");
            resume_unwind(panic);
        }
        assert!(
            took < LONGEST,
            "{name}: FUZZ_SEED={seed} FUZZ_CASE={case} takes {took:?}"
        );
        slowest = slowest.max((took, case));
        tried += 1;
        if only.is_some() || tried >= FEWEST && began.elapsed() > longest {
            break;
        }
    }
    let (took, case) = slowest;
    println!(
        "{name}: {tried} inputs in {:.1} s with FUZZ_SEED={seed}; the slowest, {case}, took {took:?}",
        began.elapsed().as_secs_f64()
    );
}

/// What this thread has used of the processor: what else the machine does is not counted.
fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it is written to a value of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Ends the process where an input has no end.
struct Watch {
    case: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Watch {
    fn new(name: &str, seed: u64) -> Watch {
        let watch = Watch {
            case: Arc::default(),
            is_over: Arc::default(),
        };
        let (case, is_over) = (watch.case.clone(), watch.is_over.clone());
        let name = name.to_owned();
        std::thread::spawn(move || {
            let mut since = (u64::MAX, Instant::now());
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                let case = case.load(Ordering::Relaxed);
                if since.0 != case {
                    since = (case, Instant::now());
                } else if since.1.elapsed() > ENDLESS {
                    let words = format!("{name}: FUZZ_SEED={seed} FUZZ_CASE={case} has no end\n");
                    let _ = std::io::stderr().write_all(words.as_bytes());
                    std::process::abort();
                }
            }
        });
        watch
    }

    fn at(&self, case: u64) {
        self.case.store(case, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Checks that four times as large an input takes no more than about four times as long: sixteen times would be
/// quadratic. Measured in the processor's time, the best of some tries.
pub fn grows_with_its_size<T>(
    name: &str,
    size: usize,
    make: impl Fn(usize) -> T,
    mut read: impl FnMut(&T),
) {
    let mut best = |size: usize| {
        let input = make(size);
        let tries = (0..3).map(|_| {
            let before = processor_time();
            read(&input);
            processor_time() - before
        });
        tries.min().unwrap().as_secs_f64()
    };
    let (small, large) = (best(size), best(size * 4));
    // What takes no time at all is not worth a comparison.
    assert!(
        large < 0.05 || large < small * 9.0,
        "{name}: {small:.3} s for {size}, {large:.3} s for four times as much"
    );
}
