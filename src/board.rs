//! The board: the little that processes tell each other through shared memory.
//!
//! It holds addresses of latches (in PostgreSQL's own shared memory, the same in every process), process ids
//! and database oids, and nothing that work depends on: it is new after every crash, and the tables alone say
//! what is to be done. A latch of a process that is gone may belong to another by now; setting it is a
//! spurious wake-up, which every process stands.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::prelude::pg_guard;
use pgrx::{
    PGRXSharedMemory, PgLwLock, PgXactCallbackEvent, pg_shmem_init, pg_sys, register_xact_callback,
};
use uuid::Uuid;

/// Workers that there can be at once, and databases that can wait for the launcher. Larger costs 24 bytes of shared
/// memory each; smaller and a server with more databases would not serve them all.
const PLACES: usize = 256;

/// Connectors that workers have in hand. Larger costs 24 bytes of shared memory each; smaller, and of those beyond it the
/// tables alone keep two workers from asking for tokens at once, which a cancelled run does not.
const HANDS: usize = 4_096;

// SAFETY: no other library names its lock so.
static BOARD: PgLwLock<Board> = unsafe { PgLwLock::new(c"connector_service") };
static INSTALLED: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy)]
struct Board {
    launcher: usize,
    workers: [Worker; PLACES],
    /// Databases the launcher should look at: the extension was just created, or a worker is missed.
    asked: [u32; PLACES],
    /// Databases whose worker found no extension.
    empty: [u32; PLACES],
    holds: [Hold; PLACES],
    errands: [Errands; PLACES],
    hands: [Hand; HANDS],
}

/// What the upkeep process of a database is asked for.
#[derive(Clone, Copy)]
pub enum Errand {
    /// Facts of records that wait for them, days that were touched, and what is due by the hour.
    Derive = 1,
    /// Metrics changed, so the monthly aggregate is to be refreshed.
    Refresh = 2,
}

#[derive(Clone, Copy)]
struct Errands {
    database: u32,
    /// The sum of them.
    what: u32,
}

/// A connector that a worker fetches for, or may still be logging in for although its run has ended.
#[derive(Clone, Copy)]
struct Hand {
    database: u32,
    pid: i32,
    connector: [u8; 16],
}

const NO_HAND: Hand = Hand {
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
}

/// While a command such as DROP DATABASE runs, the database gets no worker.
#[derive(Clone, Copy)]
struct Hold {
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
        // Without a place it is asked again at the next look.
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
            }; PLACES],
            asked: [FREE; PLACES],
            empty: [FREE; PLACES],
            holds: [Hold {
                database: FREE,
                by: 0,
            }; PLACES],
            errands: [Errands {
                database: FREE,
                what: 0,
            }; PLACES],
            hands: [NO_HAND; HANDS],
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

/// Takes the place of a database's worker of a number. False: the database is held, has this worker, or no place is
/// free.
pub fn enter_worker(database: pg_sys::Oid, number: i32) -> bool {
    let database = database.to_u32();
    let mut board = BOARD.exclusive();
    let is_there = |w: &Worker| w.database == database && w.number == number;
    if board.workers.iter().any(is_there) || is_held(&mut board, database) {
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
        }
    };
    true
}

thread_local! {
    /// Whether this process ends because there is nothing to do for it.
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
    // Whoever ended it, there is something for its successor to look at.
    if number == UPKEEP && !RETIRES.get() {
        board.ask(database, Errand::Derive);
    }
    for hand in board.hands.iter_mut().filter(|hand| hand.pid == me) {
        *hand = NO_HAND;
    }
}

/// Shows which connectors this worker has in hand, and no others.
pub fn set_hands<'a>(connectors: impl Iterator<Item = &'a Uuid>) {
    // SAFETY: this process's own pid, and its database, which is fixed.
    let (me, database) = unsafe { (pg_sys::MyProcPid, pg_sys::MyDatabaseId.to_u32()) };
    let mut connectors = connectors.map(|connector| Hand {
        database,
        pid: me,
        connector: *connector.as_bytes(),
    });
    let mut board = BOARD.exclusive();
    for hand in &mut board.hands {
        if hand.pid == me || hand.database == FREE {
            *hand = connectors.next().unwrap_or(NO_HAND);
        }
    }
}

/// The connectors that other workers of this database have in hand.
pub fn hands_of_others() -> Vec<Uuid> {
    // SAFETY: as above.
    let (me, database) = unsafe { (pg_sys::MyProcPid, pg_sys::MyDatabaseId.to_u32()) };
    let board = BOARD.share();
    let others = board.hands.iter();
    let others = others.filter(|hand| hand.database == database && hand.pid != me);
    others
        .map(|hand| Uuid::from_bytes(hand.connector))
        .collect()
}

/// The number of the gateway among a database's processes, beyond those of sync workers.
pub const GATEWAY: i32 = 1_000;
/// The same of the upkeep process.
pub const UPKEEP: i32 = 1_001;

/// Of a database's oid and a process's number, the argument that it is started with.
pub fn pack(database: pg_sys::Oid, number: i32) -> pg_sys::Datum {
    pg_sys::Datum::from(database.to_u32() as usize | (number as usize) << 32)
}

pub fn unpack(arg: pg_sys::Datum) -> (pg_sys::Oid, i32) {
    let value = arg.value();
    (pg_sys::Oid::from_u32(value as u32), (value >> 32) as i32)
}

/// Has the place of this process given back when it ends, however it does.
pub fn leave_at_exit() {
    #[pg_guard]
    unsafe extern "C-unwind" fn leave(_code: i32, _arg: pg_sys::Datum) {
        leave_worker();
    }
    // SAFETY: registers a function that lives as long as the library.
    unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0)) };
}

/// The sync workers among [`workers`].
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

/// `asks`: the launcher is asked for a first worker where it is missing.
fn wake_all(database: pg_sys::Oid, asks: bool) {
    let database = database.to_u32();
    let mut board = BOARD.exclusive();
    // SAFETY: this process's own pid.
    let me = unsafe { pg_sys::MyProcPid };
    let of_it = board.workers.iter().filter(|w| w.database == database);
    let is_served = of_it.clone().any(|w| w.number == 1);
    // A worker knows what it does itself, and the upkeep process is asked by workers.
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

/// The same for workers that are there: none is started for what may have taken the extension away.
pub fn wake_workers_at_commit() {
    // SAFETY: fixed for the life of a session.
    let database = unsafe { pg_sys::MyDatabaseId };
    if is_installed() && !workers(database).is_empty() {
        register_xact_callback(PgXactCallbackEvent::Commit, move || {
            wake_all(database, false);
        });
    }
}

/// Has the launcher look around once this transaction has committed: a database may have another name by then.
pub fn look_around_at_commit() {
    register_xact_callback(PgXactCallbackEvent::Commit, || {
        let launcher = BOARD.share().launcher;
        set_latch(launcher);
    });
}

/// Asks the upkeep process of a database for something, or has one started.
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

/// What the upkeep process of a database is asked for since it last looked.
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

/// Whether there is one.
pub fn has_upkeep(database: pg_sys::Oid) -> bool {
    workers(database)
        .iter()
        .any(|(number, _)| *number == UPKEEP)
}

/// Whether it is asked for anything.
pub fn has_errands(database: pg_sys::Oid) -> bool {
    let board = BOARD.share();
    board
        .errands
        .iter()
        .any(|e| e.database == database.to_u32())
}

/// Called by a worker that found no extension in its database.
pub fn report_empty(database: pg_sys::Oid) {
    note(&mut BOARD.exclusive().empty, database.to_u32());
}

/// What the launcher was told since it last asked: databases to look at, and databases without the extension.
pub fn take_news() -> (Vec<u32>, Vec<u32>) {
    let take = |places: &mut [u32; PLACES]| {
        let taken = places.iter().copied().filter(|&oid| oid != FREE).collect();
        *places = [FREE; PLACES];
        taken
    };
    let mut board = BOARD.exclusive();
    (take(&mut board.asked), take(&mut board.empty))
}

thread_local! {
    /// Whether this session holds a database.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
}

/// Keeps workers out of a database until this statement fails, or its transaction ends.
pub fn hold(database: pg_sys::Oid) {
    release_when_it_ends();
    HOLDS.set(true);
    let mut board = BOARD.exclusive();
    if let Some(place) = board.holds.iter_mut().find(|h| h.database == FREE) {
        // SAFETY: this process's own pid.
        let by = unsafe { pg_sys::MyProcPid };
        *place = Hold {
            database: database.to_u32(),
            by,
        };
    }
}

/// Registers, once for a session, what gives its holds back. PostgreSQL calls it at every end of a transaction and at every
/// failure of a statement, whatever raised it, and when the session is terminated.
fn release_when_it_ends() {
    #[pg_guard]
    unsafe extern "C-unwind" fn transaction(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
        use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
        if matches!(
            event,
            XACT_EVENT_ABORT | XACT_EVENT_COMMIT | XACT_EVENT_PREPARE
        ) {
            release_holds();
        }
    }
    #[pg_guard]
    unsafe extern "C-unwind" fn savepoint(
        event: pg_sys::SubXactEvent::Type,
        _mine: pg_sys::SubTransactionId,
        _parent: pg_sys::SubTransactionId,
        _arg: *mut c_void,
    ) {
        if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
            release_holds();
        }
    }
    thread_local! {
        static REGISTERED: Cell<bool> = const { Cell::new(false) };
    }
    if !REGISTERED.replace(true) {
        // SAFETY: functions that live as long as the library.
        unsafe {
            pg_sys::RegisterXactCallback(Some(transaction), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(savepoint), std::ptr::null_mut());
        }
    }
}

fn release_holds() {
    if !HOLDS.replace(false) {
        return;
    }
    // SAFETY: this process's own pid.
    let me = unsafe { pg_sys::MyProcPid };
    let mut board = BOARD.exclusive();
    let mut released = Vec::new();
    for hold in board
        .holds
        .iter_mut()
        .filter(|h| h.database != FREE && h.by == me)
    {
        released.push(hold.database);
        hold.database = FREE;
    }
    for database in released {
        note(&mut board.asked, database);
    }
    let launcher = board.launcher;
    drop(board);
    set_latch(launcher);
}

pub fn held(database: u32) -> bool {
    is_held(&mut BOARD.exclusive(), database)
}

fn is_held(board: &mut Board, database: u32) -> bool {
    // A session that ended in the middle of its command left its hold behind.
    for hold in board.holds.iter_mut().filter(|h| h.database == database) {
        // SAFETY: looks a pid up in the array of processes.
        if unsafe { pg_sys::BackendPidGetProc(hold.by) }.is_null() {
            hold.database = FREE;
        }
    }
    board.holds.iter().any(|h| h.database == database)
}

/// A full list drops the note: the launcher also looks around by itself.
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
