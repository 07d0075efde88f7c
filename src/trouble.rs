//! What goes wrong again and again: said in the server's log as [`said`] has it, with the database's name, and shown on
//! a board of its own, where `connector_service_doctor()` finds what lasts. The doctor could not ask the tables: it may be
//! they that refuse.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use connector_service_core::logged::{AGAIN, Logged, Met, Over};
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init, pg_sys};
use uuid::Uuid;

use crate::error::{Error, counted};

/// What lasts at once on the whole server, as far as the doctor shows them; half a kilobyte of shared memory each.
/// Fewer: on a server in trouble some are in the log alone.
const PLACES: usize = 128;
/// The same of one process: one with much trouble leaves room for that of others.
const OF_PROCESS: usize = 8;
/// How long what was not met again is shown. Longer: what nobody tries any more, because the connector was deleted, say.
/// Shorter than the rest of a connector in `error`: the doctor is well between two tries.
const SHOWN: u64 = 8 * 60 * 60;
/// Bytes of a line on the board. Longer: more shared memory. Shorter: less of the words.
const TEXT: usize = 500;

// SAFETY: no other library names its lock so.
static BOARD: PgLwLock<Board> = unsafe { PgLwLock::new(c"connector_service trouble") };
static INSTALLED: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy)]
struct Board([Place; PLACES]);

#[derive(Clone, Copy)]
struct Place {
    /// 0: the place is free.
    database: u32,
    /// The process; or of one that could not start, minus its number among those of the database.
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
struct Voice {
    database: String,
    said: Logged,
    noted: Logged,
}

thread_local! {
    static VOICE: RefCell<Voice> = RefCell::default();
}

pub fn install() {
    pg_shmem_init!(BOARD);
    INSTALLED.store(true, Ordering::Relaxed);
}

/// A process of a database has started, whose trouble from now on is told with the database's name.
pub fn begin(database: &str, number: i32) {
    #[pg_guard]
    unsafe extern "C-unwind" fn leave(_code: i32, _arg: pg_sys::Datum) {
        // SAFETY: plain variables of this process.
        let (database, pid) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
        BOARD.exclusive().remove(database.to_u32(), pid);
    }
    // SAFETY: registers a function that lives as long as the library.
    unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0)) };
    VOICE.with_borrow_mut(|voice| database.clone_into(&mut voice.database));
    // SAFETY: fixed for the life of a process.
    let oid = unsafe { pg_sys::MyDatabaseId };
    BOARD.exclusive().remove(oid.to_u32(), -number);
}

/// A process of a database cannot start. The next one that is tried remembers nothing, but the board does.
pub fn cannot_start(name: &str, number: i32, error: &Error) {
    // SAFETY: fixed for the life of a process.
    let oid = unsafe { pg_sys::MyDatabaseId };
    let words = error.words();
    let text = format!("{name} cannot start: {words}");
    let is_said = {
        let mut board = BOARD.exclusive();
        let mut of_it = board.0.iter();
        let is_said = of_it.any(|place| {
            let is_it = place.database == oid.to_u32() && place.by == -number;
            is_it && place.text() == text && now() < place.met_at + AGAIN.as_secs()
        });
        if !is_said {
            board.remove(oid.to_u32(), -number);
            board.put(oid.to_u32(), -number, now(), &text);
        }
        is_said
    };
    if !is_said {
        let oid = oid.to_u32();
        warning!("{text} (database oid {oid})");
    }
}

/// It went wrong. `what` reads on from the name of the extension: "could not look for work".
pub fn trouble(what: &'static str, error: &Error) {
    tell(what, String::new(), &error.words());
}

/// The same of one connector.
pub fn trouble_of(what: &'static str, connector: Uuid, error: &Error) {
    tell(what, of(connector), &error.words());
}

/// The same in words of ours.
pub fn trouble_in_words(what: &'static str, words: &str) {
    tell(what, String::new(), words);
}

/// Something is as somebody has set it, and the doctor sees it by itself: it is told in the log alone. `None`: it is not so
/// any more.
pub fn note(what: &'static str, words: Option<&str>) {
    let line = VOICE.with_borrow_mut(|voice| match words {
        Some(words) => {
            let thing = (what, String::new());
            let met = voice.noted.trouble(thing, words, Instant::now());
            met.map(|_| format!("{}: {words}", voice.named(what, "")))
        }
        None => {
            let thing = (what, String::new());
            let over = voice.noted.over(&thing, Instant::now());
            over.map(|_| format!("{}: no longer", voice.named(what, "")))
        }
    });
    match (line, words) {
        (None, _) => {}
        (Some(line), Some(_)) => warning!("{line}"),
        (Some(line), None) => log!("{line}"),
    }
}

/// It went well.
pub fn over(what: &'static str) {
    end(what, String::new);
}

/// The same of one connector.
pub fn over_of(what: &'static str, connector: Uuid) {
    end(what, || of(connector));
}

/// It went well for all connectors.
pub fn over_of_all(what: &'static str) {
    for of in VOICE.with_borrow(|voice| voice.said.lasting_of(what)) {
        end(what, || of);
    }
}

fn of(connector: Uuid) -> String {
    format!("connector \"{connector}\"")
}

fn tell(what: &'static str, of: String, words: &str) {
    let line = VOICE.with_borrow_mut(|voice| {
        let thing = (what, of.clone());
        let met = voice.said.trouble(thing, words, Instant::now());
        let Met { times } = met?;
        let so_far = match times {
            1 => String::new(),
            times => format!(", {times} times so far"),
        };
        Some(format!("{}{so_far}: {words}", voice.named(what, &of)))
    });
    show();
    if let Some(line) = line {
        warning!("{line}");
    }
}

fn end(what: &'static str, of: impl FnOnce() -> String) {
    if VOICE.with_borrow(|voice| voice.said.is_empty()) {
        return;
    }
    let line = VOICE.with_borrow_mut(|voice| {
        let thing = (what, of());
        let over = voice.said.over(&thing, Instant::now());
        let Over { times, lasted } = over?;
        let (named, seconds) = (voice.named(what, &thing.1), lasted.as_secs());
        let failures = counted(times, "failure");
        Some(format!(
            "{named}: this works again, after {failures} in {seconds} s"
        ))
    });
    if let Some(line) = line {
        log!("{line}");
    }
    show();
}

impl Voice {
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

/// Puts what lasts on the board.
fn show() {
    // SAFETY: plain variables of this process.
    let (database, pid) = unsafe { (pg_sys::MyDatabaseId.to_u32(), pg_sys::MyProcPid) };
    VOICE.with_borrow(|voice| {
        let lasting = voice.said.lasting().take(OF_PROCESS);
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

/// What lasts in a database, for `connector_service_status()`.
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
