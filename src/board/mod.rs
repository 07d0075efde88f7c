//! The board: what processes tell each other through shared memory.
//!
//! It holds addresses of latches (in PostgreSQL's own shared memory, the same in every process), process ids and database
//! oids. No work depends on it: it is empty after every crash, and only the tables say what is to be done. The latch of a
//! process that has ended may belong to another process by now. Setting it wakes that process for nothing, which is harmless.

mod block;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::prelude::pg_guard;
use pgrx::{
    PGRXSharedMemory, PgLwLock, PgXactCallbackEvent, pg_shmem_init, pg_sys, register_xact_callback,
};
use uuid::Uuid;

use self::block::is_blocked_on;
pub use self::block::{block_workers, is_blocked};

/// Most workers at once, and most databases that wait for the launcher. Larger: 24 more bytes of shared memory for each.
/// Smaller: a server with more databases would not serve them all.
const PLACES: usize = 256;

/// Most connectors that workers use at once. Larger: 24 more bytes of shared memory for each. Smaller: for connectors without
/// a place only the tables keep two workers from asking for tokens at once, and a cancelled run does not keep them from it.
const MOST_IN_USE: usize = 4_096;

// SAFETY: no other library uses this name for a lock.
static BOARD: PgLwLock<Board> = unsafe { PgLwLock::new(c"connector_service") };
static INSTALLED: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy)]
struct Board {
    launcher: usize,
    workers: [Worker; PLACES],
    /// Databases that the launcher should look at: the extension was just created there, or a worker is missing.
    asked: [u32; PLACES],
    /// Databases in which a worker found no extension.
    empty: [u32; PLACES],
    blocks: [Block; PLACES],
    errands: [Errands; PLACES],
    in_use: [InUse; MOST_IN_USE],
}

/// What the upkeep process of a database is asked to do.
#[derive(Clone, Copy)]
pub enum Errand {
    /// Derive the facts of waiting records, sum changed days, and do the hourly work that is due.
    Derive = 1,
    /// Refresh the monthly aggregate, because metrics changed.
    Refresh = 2,
}

#[derive(Clone, Copy)]
struct Errands {
    database: u32,
    /// The errands, as a sum of their numbers.
    what: u32,
}

/// A connector that a worker uses: it fetches for it, or may still be logging in although the run has ended.
#[derive(Clone, Copy)]
struct InUse {
    database: u32,
    pid: i32,
    connector: [u8; 16],
}

const NOT_IN_USE: InUse = InUse {
    database: FREE,
    pid: 0,
    connector: [0; 16],
};

#[derive(Clone, Copy)]
struct Worker {
    database: u32,
    number: i32,
    pid: i32,
    latch: usize,
    /// Whether it has seen that the database has the extension.
    is_confirmed: bool,
}

/// While a command such as DROP DATABASE runs, the database gets no worker.
#[derive(Clone, Copy)]
struct Block {
    database: u32,
    by: i32,
}

const FREE: u32 = 0;

// SAFETY: plain numbers, no pointer is ever followed but to PostgreSQL's own latches.
unsafe impl PGRXSharedMemory for Board {}

impl Board {
    fn ask(&mut self, database: u32, errand: Errand) {
        let errands = &self.errands;
        let place = errands
            .iter()
            .position(|e| e.database == database)
            .or_else(|| errands.iter().position(|e| e.database == FREE));
        // Without a place the process is asked again at the next poll.
        if let Some(place) = place.and_then(|place| self.errands.get_mut(place)) {
            place.database = database;
            place.what |= errand as u32;
        }
    }
}

impl Default for Board {
    fn default() -> Self {
        Board {
            launcher: 0,
            workers: [Worker {
                database: FREE,
                number: 0,
                pid: 0,
                latch: 0,
                is_confirmed: false,
            }; PLACES],
            asked: [FREE; PLACES],
            empty: [FREE; PLACES],
            blocks: [Block {
                database: FREE,
                by: 0,
            }; PLACES],
            errands: [Errands {
                database: FREE,
                what: 0,
            }; PLACES],
            in_use: [NOT_IN_USE; MOST_IN_USE],
        }
    }
}

pub fn install() {
    pg_shmem_init!(BOARD);
    INSTALLED.store(true, Ordering::Relaxed);
}

/// Whether the library was preloaded; without that there is no board and no worker.
pub fn is_installed() -> bool {
    INSTALLED.load(Ordering::Relaxed)
}

pub fn enter_launcher() {
    // SAFETY: a process's own latch.
    BOARD.exclusive().launcher = unsafe { pg_sys::MyLatch } as usize;
}

/// Takes the place of the worker with this number. False: workers of the database are blocked, this worker runs already, or
/// no place is free.
pub fn enter_worker(database: pg_sys::Oid, number: i32) -> bool {
    let database = database.to_u32();
    let mut board = BOARD.exclusive();
    let is_there = |w: &Worker| w.database == database && w.number == number;
    if board.workers.iter().any(is_there) || is_blocked_on(&mut board, database) {
        return false;
    }
    let Some(place) = board.workers.iter_mut().find(|w| w.database == FREE) else {
        return false;
    };
    // SAFETY: this process's own pid and latch.
    *place = unsafe {
        Worker {
            database,
            number,
            pid: pg_sys::MyProcPid,
            latch: pg_sys::MyLatch as usize,
            is_confirmed: false,
        }
    };
    true
}

thread_local! {
    /// Whether this process ends because it has nothing to do.
    static RETIRES: Cell<bool> = const { Cell::new(false) };
}

/// The upkeep process ends because it is not needed.
pub fn retire() {
    RETIRES.set(true);
}

fn leave_worker() {
    // SAFETY: this process's own pid.
    let me = unsafe { pg_sys::MyProcPid };
    let mut board = BOARD.exclusive();
    let of_me = |w: &&mut Worker| w.database != FREE && w.pid == me;
    let Some(place) = board.workers.iter_mut().find(of_me) else {
        return;
    };
    let (database, number) = (place.database, place.number);
    place.database = FREE;
    // Its successor continues what it did not finish, unless it had nothing to do.
    if number == UPKEEP && !RETIRES.get() {
        board.ask(database, Errand::Derive);
    }
    for entry in board.in_use.iter_mut().filter(|entry| entry.pid == me) {
        *entry = NOT_IN_USE;
    }
}

/// Publishes which connectors this worker uses, in the place of the list before.
pub fn set_connectors_in_use<'a>(connectors: impl Iterator<Item = &'a Uuid>) {
    // SAFETY: this process's own pid, and its database, which is fixed.
    let (me, database) = unsafe { (pg_sys::MyProcPid, pg_sys::MyDatabaseId.to_u32()) };
    let mut connectors = connectors.map(|connector| InUse {
        database,
        pid: me,
        connector: *connector.as_bytes(),
    });
    let mut board = BOARD.exclusive();
    for entry in &mut board.in_use {
        if entry.pid == me || entry.database == FREE {
            *entry = connectors.next().unwrap_or(NOT_IN_USE);
        }
    }
}

/// The connectors that other workers of this database use.
pub fn connectors_in_use_elsewhere() -> Vec<Uuid> {
    // SAFETY: as above.
    let (me, database) = unsafe { (pg_sys::MyProcPid, pg_sys::MyDatabaseId.to_u32()) };
    let board = BOARD.share();
    let others = board.in_use.iter();
    let others = others.filter(|entry| entry.database == database && entry.pid != me);
    others
        .map(|entry| Uuid::from_bytes(entry.connector))
        .collect()
}

/// The number of the gateway among a database's processes, beyond those of sync workers.
pub const GATEWAY: i32 = 1_000;
/// The number of the upkeep process among a database's processes.
pub const UPKEEP: i32 = 1_001;

/// Packs a database's oid and a process's number into the argument that the process is started with.
pub fn pack(database: pg_sys::Oid, number: i32) -> pg_sys::Datum {
    pg_sys::Datum::from(database.to_u32() as usize | (number as usize) << 32)
}

pub fn unpack(arg: pg_sys::Datum) -> (pg_sys::Oid, i32) {
    let value = arg.value();
    (pg_sys::Oid::from_u32(value as u32), (value >> 32) as i32)
}

/// Gives the place of this process back when it ends, in whatever way it ends.
pub fn leave_at_exit() {
    #[pg_guard]
    unsafe extern "C-unwind" fn leave(_code: i32, _arg: pg_sys::Datum) {
        leave_worker();
    }
    // SAFETY: registers a function that lives as long as the library.
    unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0)) };
}

/// This worker has seen that its database has the extension. The launcher may wait for that.
pub fn confirm() {
    // SAFETY: this process's own pid.
    let me = unsafe { pg_sys::MyProcPid };
    let mut board = BOARD.exclusive();
    let of_me = |w: &&mut Worker| w.database != FREE && w.pid == me;
    if let Some(place) = board.workers.iter_mut().find(of_me) {
        place.is_confirmed = true;
    }
    let launcher = board.launcher;
    drop(board);
    set_latch(launcher);
}

/// The databases in which a sync worker has seen the extension.
pub fn confirmed() -> Vec<u32> {
    let board = BOARD.share();
    let first = |w: &&Worker| w.database != FREE && w.number == 1 && w.is_confirmed;
    board
        .workers
        .iter()
        .filter(first)
        .map(|w| w.database)
        .collect()
}

/// The databases that have a gateway.
pub fn gateways() -> Vec<u32> {
    let board = BOARD.share();
    let gateways = board
        .workers
        .iter()
        .filter(|w| w.database != FREE && w.number == GATEWAY);
    gateways.map(|w| w.database).collect()
}

/// The numbers and process ids of a database's sync workers.
pub fn sync_workers(database: pg_sys::Oid) -> Vec<(i32, i32)> {
    let mut workers = workers(database);
    workers.retain(|(number, _)| *number < GATEWAY);
    workers
}

/// The numbers and process ids of a database's workers, by number; its gateway is among them.
pub fn workers(database: pg_sys::Oid) -> Vec<(i32, i32)> {
    let board = BOARD.share();
    let of_it = board.workers.iter();
    let of_it = of_it.filter(|w| w.database == database.to_u32());
    let mut workers: Vec<_> = of_it.map(|w| (w.number, w.pid)).collect();
    workers.sort_unstable();
    workers
}

/// Wakes a database's workers, and asks the launcher for the first one where it is missing.
pub fn wake(database: pg_sys::Oid) {
    wake_all(database, true);
}

/// Wakes a database's workers. With `asks` the launcher is asked for the first worker if it is missing.
fn wake_all(database: pg_sys::Oid, asks: bool) {
    let database = database.to_u32();
    let mut board = BOARD.exclusive();
    // SAFETY: this process's own pid.
    let me = unsafe { pg_sys::MyProcPid };
    let of_it = board.workers.iter().filter(|w| w.database == database);
    let is_served = of_it.clone().any(|w| w.number == 1);
    // A worker need not wake itself, and the upkeep process is asked by workers.
    let others = of_it.filter(|w| w.pid != me && w.number != UPKEEP);
    let mut latches: Vec<usize> = others.map(|w| w.latch).collect();
    if !is_served && asks {
        note(&mut board.asked, database);
        latches.push(board.launcher);
    }
    drop(board);
    for latch in latches {
        set_latch(latch);
    }
}

/// Wakes the worker of this session's database once this transaction has committed; nothing on ROLLBACK.
pub fn wake_at_commit() {
    thread_local! {
        static PLANNED: Cell<bool> = const { Cell::new(false) };
    }
    if !is_installed() || PLANNED.replace(true) {
        return;
    }
    // SAFETY: fixed for the life of a session.
    let database = unsafe { pg_sys::MyDatabaseId };
    register_xact_callback(PgXactCallbackEvent::Commit, move || {
        PLANNED.set(false);
        wake(database);
    });
    register_xact_callback(PgXactCallbackEvent::Abort, || PLANNED.set(false));
}

/// Wakes the workers that run once this transaction has committed. None is started: the extension may be gone by then.
pub fn wake_workers_at_commit() {
    // SAFETY: fixed for the life of a session.
    let database = unsafe { pg_sys::MyDatabaseId };
    if is_installed() && !workers(database).is_empty() {
        register_xact_callback(PgXactCallbackEvent::Commit, move || {
            wake_all(database, false);
        });
    }
}

/// Wakes the launcher once this transaction has committed: a database may have another name by then.
pub fn wake_launcher_at_commit() {
    register_xact_callback(PgXactCallbackEvent::Commit, || {
        let launcher = BOARD.share().launcher;
        set_latch(launcher);
    });
}

/// Asks the upkeep process of a database to do something, and has one started if none runs.
pub fn ask_upkeep(database: pg_sys::Oid, errand: Errand) {
    let database = database.to_u32();
    let mut board = BOARD.exclusive();
    board.ask(database, errand);
    let is_it = |w: &&Worker| w.database == database && w.number == UPKEEP;
    let process = board.workers.iter().find(is_it).map(|w| w.latch);
    let latch = process.unwrap_or(board.launcher);
    drop(board);
    set_latch(latch);
}

/// Asks the upkeep process of this session's database for a refresh once this transaction has committed; nothing on ROLLBACK. Our
/// workers ask for one by themselves.
pub fn refresh_at_commit() {
    thread_local! {
        static PLANNED: Cell<bool> = const { Cell::new(false) };
    }
    if !is_installed() || PLANNED.get() {
        return;
    }
    // SAFETY: this process's own pid, and its database, which is fixed.
    let (me, database) = unsafe { (pg_sys::MyProcPid, pg_sys::MyDatabaseId) };
    let is_me = |w: &Worker| w.database != FREE && w.pid == me && w.number != GATEWAY;
    if BOARD.share().workers.iter().any(is_me) {
        return;
    }
    PLANNED.set(true);
    register_xact_callback(PgXactCallbackEvent::Commit, move || {
        PLANNED.set(false);
        ask_upkeep(database, Errand::Refresh);
    });
    register_xact_callback(PgXactCallbackEvent::Abort, || PLANNED.set(false));
}

/// Takes what the upkeep process of a database was asked to do since the last call.
pub fn take_errands(database: pg_sys::Oid) -> Vec<Errand> {
    let mut board = BOARD.exclusive();
    let mut errands = board.errands.iter_mut();
    let Some(place) = errands.find(|e| e.database == database.to_u32()) else {
        return Vec::new();
    };
    let what = place.what;
    *place = Errands {
        database: FREE,
        what: 0,
    };
    [Errand::Derive, Errand::Refresh]
        .into_iter()
        .filter(|errand| what & *errand as u32 != 0)
        .collect()
}

/// Drops the errands of databases that are gone.
pub fn keep_errands(is_there: impl Fn(u32) -> bool) {
    let mut board = BOARD.exclusive();
    for errands in &mut board.errands {
        if errands.database != FREE && !is_there(errands.database) {
            *errands = Errands {
                database: FREE,
                what: 0,
            };
        }
    }
}

/// Whether a database has an upkeep process.
pub fn has_upkeep(database: pg_sys::Oid) -> bool {
    workers(database)
        .iter()
        .any(|(number, _)| *number == UPKEEP)
}

/// Whether the upkeep process of a database is asked to do anything.
pub fn has_errands(database: pg_sys::Oid) -> bool {
    let board = BOARD.share();
    board
        .errands
        .iter()
        .any(|e| e.database == database.to_u32())
}

/// Reports that a database has no extension. Called by its worker.
pub fn report_empty(database: pg_sys::Oid) {
    note(&mut BOARD.exclusive().empty, database.to_u32());
}

/// Takes what the launcher was asked since the last call: databases to look at, and databases without the extension.
pub fn take_requests() -> (Vec<u32>, Vec<u32>) {
    let take = |places: &mut [u32; PLACES]| {
        let taken = places.iter().copied().filter(|&oid| oid != FREE).collect();
        *places = [FREE; PLACES];
        taken
    };
    let mut board = BOARD.exclusive();
    (take(&mut board.asked), take(&mut board.empty))
}

/// Adds a database to a list. A full list drops it: the launcher also looks at all databases by itself.
fn note(places: &mut [u32; PLACES], database: u32) {
    if !places.contains(&database)
        && let Some(place) = places.iter_mut().find(|oid| **oid == FREE)
    {
        *place = database;
    }
}

fn set_latch(latch: usize) {
    if latch != 0 {
        // SAFETY: the address of a latch in PostgreSQL's shared memory, which is never unmapped.
        unsafe { pg_sys::SetLatch(latch as *mut pg_sys::Latch) };
    }
}
