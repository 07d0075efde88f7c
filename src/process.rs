//! How a process of a database begins.

use pgrx::pg_sys;

use crate::{board, signals};

/// Connects a background worker to the database of its argument, and takes its place on the board until it ends. Returns the
/// database and the process's number. `None`: the place is taken, or workers of the database are blocked.
pub fn begin(arg: pg_sys::Datum) -> Option<(pg_sys::Oid, i32)> {
    let (database, number) = board::unpack(arg);
    signals::install();
    // SAFETY: once, at the start of a background worker. It connects as the bootstrap superuser.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0) };
    be_superuser();
    let has_place = board::enter_worker(database, number);
    has_place.then(|| {
        board::leave_at_exit();
        (database, number)
    })
}

/// Takes back the role that ALTER DATABASE ... SET role, or the like, gives to each session. As another role this process could
/// not even prepare its session.
fn be_superuser() {
    // SAFETY: the main thread. The value "none" is looked up in no table, so no transaction is needed.
    unsafe {
        pg_sys::SetConfigOption(
            c"role".as_ptr(),
            c"none".as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}
