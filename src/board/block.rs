//! Blocks: no worker of ours may be in a database while a command on the whole of it runs.

use std::cell::Cell;
use std::ffi::c_void;

use pgrx::pg_sys;
use pgrx::prelude::pg_guard;

use super::{BOARD, Block, Board, FREE, note, set_latch};

thread_local! {
    /// Whether this session blocks the workers of a database.
    static HAS_BLOCKS: Cell<bool> = const { Cell::new(false) };
}

/// Keeps workers out of a database until this statement fails, or its transaction ends.
pub fn block_workers(database: pg_sys::Oid) {
    release_when_it_ends();
    HAS_BLOCKS.set(true);
    let mut board = BOARD.exclusive();
    if let Some(place) = board.blocks.iter_mut().find(|h| h.database == FREE) {
        // SAFETY: this process's own pid.
        let by = unsafe { pg_sys::MyProcPid };
        *place = Block {
            database: database.to_u32(),
            by,
        };
    }
}

/// Registers, once for a session, the callbacks that release its blocks. PostgreSQL calls them at the end of every transaction,
/// after every statement that fails for any reason, and when the session is terminated.
fn release_when_it_ends() {
    #[pg_guard]
    unsafe extern "C-unwind" fn transaction(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
        use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
        if matches!(
            event,
            XACT_EVENT_ABORT | XACT_EVENT_COMMIT | XACT_EVENT_PREPARE
        ) {
            release_blocks();
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
            release_blocks();
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

fn release_blocks() {
    if !HAS_BLOCKS.replace(false) {
        return;
    }
    // SAFETY: this process's own pid.
    let me = unsafe { pg_sys::MyProcPid };
    let mut board = BOARD.exclusive();
    let mut released = Vec::new();
    for block in board
        .blocks
        .iter_mut()
        .filter(|h| h.database != FREE && h.by == me)
    {
        released.push(block.database);
        block.database = FREE;
    }
    for database in released {
        note(&mut board.asked, database);
    }
    let launcher = board.launcher;
    drop(board);
    set_latch(launcher);
}

pub fn is_blocked(database: u32) -> bool {
    is_blocked_on(&mut BOARD.exclusive(), database)
}

pub fn is_blocked_on(board: &mut Board, database: u32) -> bool {
    // A session that ended in the middle of its command left its block behind.
    for block in board.blocks.iter_mut().filter(|h| h.database == database) {
        // SAFETY: looks a pid up in the array of processes.
        if unsafe { pg_sys::BackendPidGetProc(block.by) }.is_null() {
            block.database = FREE;
        }
    }
    board.blocks.iter().any(|h| h.database == database)
}
