//! The extension's locks, of a kind that no SQL function takes.
//!
//! PostgreSQL's advisory locks have a fourth field, which is 1 or 2 for the locks of `pg_advisory_lock()`. Ours have other
//! numbers there, so a session can hold one only through the statements that need it. pg_locks shows them as `advisory`, with
//! that number as objsubid.
//!
//! A transaction that writes facts of a tenant, changes what they depend on, or sums its days holds the tenant's lock. What all
//! tenants depend on (shared mappings, exchange rates) is changed under the lock of all tenants: it is taken exclusively, and
//! shared with every tenant's lock.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use connector_service_core::json;
use pgrx::prelude::*;
use uuid::Uuid;

use super::{Db, read_uuid};
use crate::error::{Error, Result};

/// The numbers that pg_locks shows as objsubid.
mod kind {
    pub const FACTS: u16 = 20_101;
    pub const ALL_FACTS: u16 = 20_102;
    pub const ALERTS: u16 = 20_103;
    pub const WORKER: u16 = 20_104;
}

/// Most tenants that are locked one by one. For more, the lock of all tenants is taken: each lock takes a place in the server's
/// shared lock table.
const MOST_TENANTS: usize = 8;

#[derive(Clone, Copy)]
enum Mode {
    Shared,
    Alone,
}

/// Takes a lock until the end of the transaction, or with `session` until the end of the process. False: another session holds
/// it, and `wait` is not set.
fn take(kind: u16, key: u64, mode: Mode, session: bool, wait: bool) -> bool {
    let tag = pg_sys::LOCKTAG {
        // SAFETY: fixed for the life of a process.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: (key >> 32) as u32,
        locktag_field3: key as u32,
        locktag_field4: kind,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    };
    let mode = match mode {
        Mode::Shared => pg_sys::ShareLock,
        Mode::Alone => pg_sys::ExclusiveLock,
    };
    // SAFETY: inside a transaction; the tag lives for the call.
    let result = unsafe { pg_sys::LockAcquire(&tag, mode as pg_sys::LOCKMODE, session, !wait) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// The key of a tenant's lock. If two tenants had the same key they would only wait for each other.
fn key(tenant: Uuid) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = json::hash(tenant.as_bytes());
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Takes the lock of a tenant's facts if nobody holds it.
pub fn try_facts(tenant: Uuid) -> bool {
    take(kind::ALL_FACTS, 0, Mode::Shared, false, false)
        && take(kind::FACTS, key(tenant), Mode::Alone, false, false)
}

/// Waits for the lock of a tenant's facts, or with `None` for the lock of all tenants. It is taken before any row, and the
/// statements after it need a newer snapshot: an older one would sum facts that no longer exist.
pub fn facts(tenant: Option<Uuid>) -> Result<()> {
    // SAFETY: plain variable of this process.
    if unsafe { pg_sys::XactIsoLevel } > pg_sys::XACT_READ_COMMITTED as i32 {
        return Err(Error::Isolation);
    }
    match tenant {
        Some(tenant) => {
            take(kind::ALL_FACTS, 0, Mode::Shared, false, true);
            take(kind::FACTS, key(tenant), Mode::Alone, false, true);
        }
        None => {
            take(kind::ALL_FACTS, 0, Mode::Alone, false, true);
        }
    }
    Ok(())
}

static IS_LOCKED: AtomicBool = AtomicBool::new(false);

/// Tells the triggers that rows are being deleted under the lock of the only tenant that they belong to.
pub struct Locked;

impl Locked {
    pub fn note() -> Locked {
        IS_LOCKED.store(true, Relaxed);
        Locked
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        IS_LOCKED.store(false, Relaxed);
    }
}

/// Waits for the locks of all tenants whose rows the caller sees. Locks nothing for a caller who may delete nothing.
pub fn callers_facts(db: &mut Db) -> Result<()> {
    if IS_LOCKED.load(Relaxed) {
        return Ok(());
    }
    let may = db.run(
        "SELECT pg_catalog.has_table_privilege('@extschema@.tenants', 'SELECT'),
            pg_catalog.has_table_privilege('@extschema@.raw_connector_data', 'DELETE') OR pg_catalog.has_table_privilege('@extschema@.connectors', 'DELETE')
                OR pg_catalog.has_table_privilege('@extschema@.tenants', 'DELETE')",
        &[],
    )?;
    let (sees, deletes): (bool, bool) = (may.need(0, 1)?, may.need(0, 2)?);
    if !deletes {
        return Ok(());
    }
    let mut tenants = Vec::new();
    if sees {
        let rows = db.run(
            "SELECT tenant_id FROM @extschema@.tenants ORDER BY tenant_id LIMIT 9",
            &[],
        )?;
        for row in 0..rows.count {
            tenants.push(read_uuid(rows.need(row, 1)?));
        }
    }
    // A role that may delete but not read tenants got these privileges from an administrator.
    if !sees || tenants.len() > MOST_TENANTS {
        return facts(None);
    }
    tenants
        .into_iter()
        .try_for_each(|tenant| facts(Some(tenant)))
}

/// Waits for the lock of a tenant's alerts, so that two sessions that find the same problem do not both insert it.
pub fn alerts(tenant: Uuid) {
    take(kind::ALERTS, key(tenant), Mode::Alone, false, true);
}

/// Takes the lock that a worker of a database holds as long as its process lives; false if another process has it. With the
/// lock, every run of this number that is still `running` surely is an orphan. No time-out is needed to guess that.
pub fn worker(number: i32) -> bool {
    take(
        kind::WORKER,
        number.unsigned_abs().into(),
        Mode::Alone,
        true,
        false,
    )
}

/// Whether no process holds the lock of this worker. None can take it until the transaction ends.
pub fn is_worker_gone(number: i32) -> bool {
    take(
        kind::WORKER,
        number.unsigned_abs().into(),
        Mode::Alone,
        false,
        false,
    )
}
