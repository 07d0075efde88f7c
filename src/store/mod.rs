//! The only module that runs SQL, with one file per table.
//!
//! Statements are constants that name our tables through `@extschema@`; [`Db::run`] puts the schema in and
//! keeps the plan. The worker wraps each unit of work in [`tx`], which commits on `Ok` and rolls back on
//! `Err`, on any ERROR that PostgreSQL raises and on any panic: the process lives on.
//!
//! Statements run as the role `connector_service_engine`, whoever calls: it owns the tables and has no other rights.
//! [`as_caller`] runs statements with the rights of the caller.

pub mod access;
pub mod backfill;
pub mod budget;
pub mod connector;
pub mod count;
pub mod delete;
pub mod drop;
pub mod fact;
mod former;
pub mod installation;
pub mod key;
pub mod lock;
pub mod metric;
pub mod page;
pub mod preview;
pub mod quarantine;
pub mod raw;
pub mod read;
pub mod retention;
pub mod run;
pub mod schedule;
pub mod state;
pub mod storable;
pub mod token;
pub mod trace;
pub mod upload;
pub mod webhook;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::panic::AssertUnwindSafe;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use pgrx::datum::{DatumWithOid, FromDatum};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use crate::activity;
use crate::error::{Error, Result, unpack};

thread_local! {
    /// Kept plans, by schema and statement. Statements are constants, so their address identifies them.
    static PLANS: RefCell<HashMap<(String, usize), NonNull<pg_sys::_SPI_plan>>> = RefCell::default();
}

/// A connection to this very database, inside a transaction.
pub struct Db {
    schema: String,
}

/// The rows of one statement. They live as long as the connection.
pub struct Rows {
    table: Option<NonNull<pg_sys::SPITupleTable>>,
    /// Rows returned, or written where the statement returns none.
    pub count: u64,
}

/// Runs `body` with a connection, inside the caller's transaction, with the rights of the engine.
pub fn with<T>(body: impl FnOnce(&mut Db) -> Result<T>) -> Result<T> {
    access::as_engine(|| as_caller(body))
}

/// Runs `body` with a connection, with the rights of the caller.
pub fn as_caller<T>(body: impl FnOnce(&mut Db) -> Result<T>) -> Result<T> {
    // SAFETY: inside a transaction. On an ERROR or panic PostgreSQL itself cleans the connection up.
    unsafe { pg_sys::SPI_connect() };
    let mut db = Db {
        schema: String::new(),
    };
    let result = installation::schema(&mut db).and_then(|schema| {
        db.schema = schema;
        body(&mut db)
    });
    // SAFETY: connected above; nothing that was read outlives it: `Rows::get` copies.
    unsafe { pg_sys::SPI_finish() };
    result
}

/// Runs one unit of work of the worker in a transaction of its own, with the rights of the engine. A trigger that the owner of
/// a database creates on our tables then never runs with the rights of the superuser that a worker is connected as.
pub fn tx<T>(body: impl FnOnce(&mut Db) -> Result<T>) -> Result<T> {
    transaction(|| access::as_engine(|| run_and_commit(body)))
}

/// Runs a unit of work that PostgreSQL cancels when it takes longer than this.
pub fn limited<T>(longest: Duration, body: impl FnOnce(&mut Db) -> Result<T>) -> Result<T> {
    let _alarm = Alarm::set(longest);
    tx(body)
}

/// Runs a unit of work with a time limit, and returns [`Error::TookTooLong`] when the limit was exceeded.
pub fn bounded<T>(longest: Duration, body: impl FnOnce(&mut Db) -> Result<T>) -> Result<T> {
    let alarm = Alarm::set(longest);
    tx(body).map_err(|error| alarm.explain(error))
}

/// Cancels what this process does in PostgreSQL when it takes longer than this: an ERROR within the transaction.
pub struct Alarm {
    longest: Duration,
    set_at: Instant,
}

impl Alarm {
    pub fn set(longest: Duration) -> Alarm {
        let milliseconds = longest.as_millis().try_into().unwrap_or(i32::MAX);
        // SAFETY: PostgreSQL's own alarm, whose handler every process with a database has registered. It sends SIGINT to this
        // process.
        unsafe { alarm::enable_timeout_after(alarm::STATEMENT_TIMEOUT, milliseconds) };
        Alarm {
            longest,
            set_at: Instant::now(),
        }
    }

    /// Turns an error into [`Error::TookTooLong`] if this alarm caused it.
    pub fn explain(&self, error: Error) -> Error {
        match error.is_cancelled() && self.set_at.elapsed() >= self.longest {
            true => Error::TookTooLong(self.longest),
            false => error,
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: as above; neither raises, so this may run while an ERROR passes.
        unsafe {
            alarm::disable_timeout(alarm::STATEMENT_TIMEOUT, false);
            // An alarm that came too late must not cancel the next statement.
            pg_sys::QueryCancelPending = 0;
        }
    }
}

/// Declarations from PostgreSQL's utils/timeout.h.
mod alarm {
    use std::ffi::c_int;

    /// The fourth of its TimeoutId, in all versions from 14 to 18.
    pub const STATEMENT_TIMEOUT: c_int = 3;

    unsafe extern "C-unwind" {
        pub fn enable_timeout_after(id: c_int, delay_ms: c_int);
        pub fn disable_timeout(id: c_int, keep_indicator: bool);
    }
}

/// Runs `body` as the superuser that the worker is connected as, in a transaction of its own. For work that touches no
/// table.
pub fn tx_as_superuser<T>(body: impl FnOnce(&mut Db) -> Result<T>) -> Result<T> {
    transaction(|| run_and_commit(body))
}

/// Runs `body` and commits. COMMIT is part of the work: it fires deferred triggers, and can fail.
fn run_and_commit<T>(body: impl FnOnce(&mut Db) -> Result<T>) -> Result<T> {
    let value = as_caller(body)?;
    // SAFETY: pushed by `transaction`.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
    }
    Ok(value)
}

fn transaction<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the worker's main thread, outside of any transaction.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        activity::begin();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let result = sqlstate::noted(|| {
        PgTryBuilder::new(AssertUnwindSafe(work))
            .catch_others(|cause| Err(caught(cause)))
            .execute()
    });
    // SAFETY: after an error the transaction is still open and must be aborted. Statistics are sent because autovacuum
    // needs them, and a background worker does not send them by itself.
    unsafe {
        if result.is_err() {
            pg_sys::AbortCurrentTransaction();
        }
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        pg_sys::pgstat_report_stat(true);
    }
    activity::end();
    result
}

fn caught(cause: CaughtError) -> Error {
    let (report, bits) = match &cause {
        CaughtError::PostgresError(report) => (report, sqlstate::latest()),
        CaughtError::ErrorReport(report) => (report, report.sql_error_code() as u32),
        CaughtError::RustPanic { ereport, .. } => (ereport, ereport.sql_error_code() as u32),
    };
    Error::Sql {
        code: report.sql_error_code(),
        state: unpack(bits),
        message: report.message().to_owned(),
    }
}

/// The SQLSTATE of an error as it was raised. pgrx knows only PostgreSQL's list, and turns an error that a user's trigger
/// raises with a SQLSTATE of its own into an internal error.
mod sqlstate {
    use std::cell::Cell;
    use std::ffi::{c_int, c_void};

    use pgrx::pg_sys;

    thread_local! {
        static LATEST: Cell<u32> = const { Cell::new(0) };
    }

    /// Declarations from PostgreSQL's utils/elog.h.
    mod elog {
        unsafe extern "C-unwind" {
            pub fn geterrcode() -> super::c_int;
        }
    }

    /// Called for every message; the last one before an ERROR is caught is that ERROR. Calls nothing that can raise.
    unsafe extern "C-unwind" fn note(_arg: *mut c_void) {
        // SAFETY: within an error's context callback, which is what it is made for.
        let code = unsafe { elog::geterrcode() };
        LATEST.set(code.cast_unsigned());
    }

    /// Does `work`, which lets no ERROR through, and notes the SQLSTATE of errors within it.
    pub fn noted<T>(work: impl FnOnce() -> T) -> T {
        // SAFETY: the main thread; what is put on the stack lives until it is taken off.
        unsafe {
            let mut callback = pg_sys::ErrorContextCallback {
                previous: pg_sys::error_context_stack,
                callback: Some(note),
                arg: std::ptr::null_mut(),
            };
            pg_sys::error_context_stack = &mut callback;
            let result = work();
            pg_sys::error_context_stack = callback.previous;
            result
        }
    }

    pub fn latest() -> u32 {
        LATEST.get()
    }
}

impl Db {
    /// Runs a statement. Always sees what has committed by now, as a command typed into psql would.
    pub fn run(&mut self, sql: &'static str, args: &[DatumWithOid]) -> Result<Rows> {
        self.execute(sql, args, false)
    }

    /// Runs a statement that only reads, with the snapshot of the caller's statement.
    pub fn run_as_seen(&mut self, sql: &'static str, args: &[DatumWithOid]) -> Result<Rows> {
        self.execute(sql, args, true)
    }

    fn execute(&mut self, sql: &'static str, args: &[DatumWithOid], as_seen: bool) -> Result<Rows> {
        let plan = self.plan(sql, args);
        let mut values: Vec<pg_sys::Datum> = args
            .iter()
            .map(|arg| {
                arg.datum()
                    .map_or(pg_sys::Datum::null(), |d| d.sans_lifetime())
            })
            .collect();
        let nulls: Vec<std::ffi::c_char> = args
            .iter()
            .map(|arg| if arg.datum().is_none() { b'n' } else { b' ' } as std::ffi::c_char)
            .collect();
        // SAFETY: plan, values and nulls are of the same length, and live for the call.
        let (status, table, count) = unsafe {
            let status = pg_sys::SPI_execute_plan(
                plan.as_ptr(),
                values.as_mut_ptr(),
                nulls.as_ptr(),
                as_seen,
                0,
            );
            (
                status,
                NonNull::new(pg_sys::SPI_tuptable),
                pg_sys::SPI_processed,
            )
        };
        Spi::check_status(status)?;
        Ok(Rows { table, count })
    }

    fn plan(&self, sql: &'static str, args: &[DatumWithOid]) -> NonNull<pg_sys::_SPI_plan> {
        PLANS.with_borrow_mut(|plans| {
            *plans
                .entry((self.schema.clone(), sql.as_ptr() as usize))
                .or_insert_with(|| {
                    let text = sql.replace("@extschema@", &self.schema);
                    let mut types: Vec<pg_sys::Oid> = args.iter().map(|arg| arg.oid()).collect();
                    // SAFETY: the text has no NUL, the types live for the call; a kept plan lives as long as the
                    // process. SPI_prepare raises on a wrong statement and returns NULL only for wrong arguments.
                    unsafe {
                        let text = CString::new(text).unwrap_or_default();
                        let plan = pg_sys::SPI_prepare(
                            text.as_ptr(),
                            types.len() as i32,
                            types.as_mut_ptr(),
                        );
                        pg_sys::SPI_keepplan(plan);
                        NonNull::new(plan)
                            .unwrap_or_else(|| unreachable!("SPI_prepare returned NULL"))
                    }
                })
        })
    }
}

impl Rows {
    /// A value of row `row` (from 0) and column `column` (from 1), copied.
    pub fn get<T: FromDatum>(&self, row: u64, column: i32) -> Result<Option<T>> {
        let Some(table) = self.table.filter(|_| row < self.count) else {
            return Ok(None);
        };
        // SAFETY: row is within what SPI returned, and the table lives until SPI_finish.
        unsafe {
            let table = table.as_ref();
            let tuple = *table.vals.add(row as usize);
            let mut is_null = false;
            let datum = pg_sys::SPI_getbinval(tuple, table.tupdesc, column, &mut is_null);
            Ok(T::from_datum(datum, is_null))
        }
    }

    /// A value of a column that is never NULL.
    pub fn need<T: FromDatum>(&self, row: u64, column: i32) -> Result<T> {
        self.get(row, column)?
            .ok_or(Error::Spi(pgrx::spi::Error::InvalidPosition))
    }
}

/// A UUID as an argument of a statement.
pub fn uuid(value: uuid::Uuid) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*value.as_bytes())
}

/// A UUID that a statement returned.
pub fn read_uuid(value: pgrx::Uuid) -> uuid::Uuid {
    uuid::Uuid::from_bytes(*value.as_bytes())
}
