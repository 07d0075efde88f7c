//! Failures that repeat. The server's log gets them once, and again each hour, with the database's name. A board in shared
//! memory holds those that last, for `connector_service_doctor()`: the tables themselves may be what fails.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use connector_service_core::logged::{AGAIN, Logged, Met, Over};
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init, pg_sys};
use uuid::Uuid;

use crate::error::{Error, counted};

/// Lasting failures of the whole server that the doctor can show; each takes half a kilobyte of shared memory.
/// Fewer: on a server with many failures some are only in the log.
const PLACES: usize = 128;
/// Lasting failures of one process: a process with many of them leaves room for others.
const OF_PROCESS: usize = 8;
/// How long a failure is shown that does not occur again. Longer: the doctor shows failures that nobody tries any more, for
/// instance of a deleted connector. Shorter than the pause of a connector in `error`: it vanishes between two tries.
const SHOWN: u64 = 8 * 60 * 60;
/// Bytes of a line on the board. Longer: more shared memory. Shorter: messages are cut.
const TEXT: usize = 500;

// SAFETY: no other library uses this name for a lock.
static BOARD: PgLwLock<Board> = unsafe { PgLwLock::new(c"connector_service trouble") };
static INSTALLED: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy)]
struct Board([Place; PLACES]);

#[derive(Clone, Copy)]
struct Place {
    /// 0: the place is free.
    database: u32,
    /// The process id. For a process that could not start: minus its number among the processes of the database.
    by: i32,
    /// Seconds since 1970.
    met_at: u64,
    text: [u8; TEXT],
    length: usize,
}

const FREE: Place = Place {
    database: 0,
    by: 0,
    met_at: 0,
    text: [0; TEXT],
    length: 0,
};

// SAFETY: plain numbers and bytes.
unsafe impl PGRXSharedMemory for Board {}

impl Default for Board {
    fn default() -> Self {
        Board([FREE; PLACES])
    }
}

impl Board {
    fn put(&mut self, database: u32, by: i32, met_at: u64, text: &str) {
        let Some(place) = self.0.iter_mut().find(|place| place.database == 0) else {
            return;
        };
        *place = Place {
            database,
            by,
            met_at,
            ..FREE
        };
        let text = text
            .get(..text.floor_char_boundary(TEXT))
            .unwrap_or_default();
        for (to, from) in place.text.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        place.length = text.len();
    }

    fn remove(&mut self, database: u32, by: i32) {
        let of_it = self.0.iter_mut();
        for place in of_it.filter(|place| place.database == database && place.by == by) {
            *place = FREE;
        }
    }
}

impl Place {
    fn text(&self) -> String {
        let text = self.text.get(..self.length).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }
}

#[derive(Default)]
struct Log {
    database: String,
    failures: Logged,
    notes: Logged,
}

thread_local! {
    static LOG: RefCell<Log> = RefCell::default();
}

pub fn install() {
    pg_shmem_init!(BOARD);
    INSTALLED.store(true, Ordering::Relaxed);
}

/// Registers a process of a database that has started: its failures are logged with the database's name.
pub fn begin(database: &str, number: i32) {
    #[pg_guard]
    unsafe extern "C-unwind" fn leave(_code: i32, _arg: pg_sys::Datum) {
        // SAFETY: plain variables of this process.
        let (database, pid) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
        BOARD.exclusive().remove(database.to_u32(), pid);
    }
    // SAFETY: registers a function that lives as long as the library.
    unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0)) };
    LOG.with_borrow_mut(|log| database.clone_into(&mut log.database));
    // SAFETY: fixed for the life of a process.
    let oid = unsafe { pg_sys::MyDatabaseId };
    BOARD.exclusive().remove(oid.to_u32(), -number);
}

/// Reports that a process of a database cannot start. The board remembers it, because the next process cannot.
pub fn cannot_start(name: &str, number: i32, error: &Error) {
    // SAFETY: fixed for the life of a process.
    let oid = unsafe { pg_sys::MyDatabaseId };
    let words = error.one_line();
    let text = format!("{name} cannot start: {words}");
    let is_logged = {
        let mut board = BOARD.exclusive();
        let mut of_it = board.0.iter();
        let is_logged = of_it.any(|place| {
            let is_it = place.database == oid.to_u32() && place.by == -number;
            is_it && place.text() == text && now() < place.met_at + AGAIN.as_secs()
        });
        if !is_logged {
            board.remove(oid.to_u32(), -number);
            board.put(oid.to_u32(), -number, now(), &text);
        }
        is_logged
    };
    if !is_logged {
        let oid = oid.to_u32();
        warning!("{text} (database oid {oid})");
    }
}

/// Reports a failure. `what` continues a sentence that begins with the name of the extension: "could not look for work".
pub fn failed(what: &'static str, error: &Error) {
    log_failure(what, String::new(), &error.one_line());
}

/// Reports a failure that concerns one connector.
pub fn failed_for(what: &'static str, connector: Uuid, error: &Error) {
    log_failure(what, of(connector), &error.one_line());
}

/// Reports a failure that has a text instead of an error.
pub fn failed_with(what: &'static str, words: &str) {
    log_failure(what, String::new(), words);
}

/// Logs a state that the doctor finds out by itself, such as a copied database. `None`: the state has ended.
pub fn note(what: &'static str, words: Option<&str>) {
    let line = LOG.with_borrow_mut(|log| match words {
        Some(words) => {
            let thing = (what, String::new());
            let met = log.notes.trouble(thing, words, Instant::now());
            met.map(|_| format!("{}: {words}", log.named(what, "")))
        }
        None => {
            let thing = (what, String::new());
            let over = log.notes.over(&thing, Instant::now());
            over.map(|_| format!("{}: no longer", log.named(what, "")))
        }
    });
    match (line, words) {
        (None, _) => {}
        (Some(line), Some(_)) => warning!("{line}"),
        (Some(line), None) => log!("{line}"),
    }
}

/// Reports that something works (again).
pub fn succeeded(what: &'static str) {
    log_success(what, String::new);
}

/// Reports that something works for one connector.
pub fn succeeded_for(what: &'static str, connector: Uuid) {
    log_success(what, || of(connector));
}

/// Reports that something works for all connectors.
pub fn succeeded_for_all(what: &'static str) {
    for of in LOG.with_borrow(|log| log.failures.lasting_of(what)) {
        log_success(what, || of);
    }
}

fn of(connector: Uuid) -> String {
    format!("connector \"{connector}\"")
}

fn log_failure(what: &'static str, of: String, words: &str) {
    let line = LOG.with_borrow_mut(|log| {
        let thing = (what, of.clone());
        let met = log.failures.trouble(thing, words, Instant::now());
        let Met { times } = met?;
        let so_far = match times {
            1 => String::new(),
            times => format!(", {times} times so far"),
        };
        Some(format!("{}{so_far}: {words}", log.named(what, &of)))
    });
    publish();
    if let Some(line) = line {
        warning!("{line}");
    }
}

fn log_success(what: &'static str, of: impl FnOnce() -> String) {
    if LOG.with_borrow(|log| log.failures.is_empty()) {
        return;
    }
    let line = LOG.with_borrow_mut(|log| {
        let thing = (what, of());
        let over = log.failures.over(&thing, Instant::now());
        let Over { times, lasted } = over?;
        let (named, seconds) = (log.named(what, &thing.1), lasted.as_secs());
        let failures = counted(times, "failure");
        Some(format!(
            "{named}: this works again, after {failures} in {seconds} s"
        ))
    });
    if let Some(line) = line {
        log!("{line}");
    }
    publish();
}

impl Log {
    fn named(&self, what: &str, of: &str) -> String {
        let of = match of {
            "" => String::new(),
            of => format!(" of {of}"),
        };
        format!(
            "connector_service {what}{of} in database \"{}\"",
            self.database
        )
    }
}

/// Puts the lasting failures of this process on the board.
fn publish() {
    // SAFETY: plain variables of this process.
    let (database, pid) = unsafe { (pg_sys::MyDatabaseId.to_u32(), pg_sys::MyProcPid) };
    LOG.with_borrow(|log| {
        let lasting = log.failures.lasting().take(OF_PROCESS);
        let lasting = lasting.map(|((what, of), words, met_at)| {
            let text = match of.as_str() {
                "" => format!("{what}: {words}"),
                of => format!("{what} of {of}: {words}"),
            };
            (now().saturating_sub(met_at.elapsed().as_secs()), text)
        });
        let lasting: Vec<(u64, String)> = lasting.collect();
        let mut board = BOARD.exclusive();
        board.remove(database, pid);
        for (met_at, text) in lasting {
            board.put(database, pid, met_at, &text);
        }
    });
}

/// The lasting failures of a database, for `connector_service_status()`.
pub fn lasting(database: pg_sys::Oid) -> Vec<String> {
    if !INSTALLED.load(Ordering::Relaxed) {
        return Vec::new();
    }
    let board = BOARD.share();
    let of_it = board.0.iter();
    let is_shown = |place: &&Place| now() < place.met_at + SHOWN;
    let of_it = of_it.filter(|place| place.database == database.to_u32());
    of_it.filter(is_shown).map(Place::text).collect()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).unwrap_or_default()
}
