//! `metric_facts`: what records contribute. All the work is one SQL function's; here is when it is called.

use ::uuid::Uuid;

use super::raw::Written;
use super::{Db, uuid};
use crate::error::Result;

/// Records of one call. Larger: more memory at once. Smaller: what every call costs is paid more often.
const RECORDS_AT_ONCE: usize = 2_000;

/// Takes the lock of facts for this transaction. False: somebody is changing a mapping or reprocessing;
/// records are then stored as unprocessed, and their facts follow when the lock is free.
pub fn try_lock(db: &mut Db) -> Result<bool> {
    db.run("SELECT @extschema@.connector_service_try_lock()", &[])?
        .need(0, 1)
}

/// Writes the facts of records that this transaction stored for a run, and marks the days they touch. Returns how
/// many records a mapping could not read. Needs the lock.
pub fn derive(db: &mut Db, connector: Uuid, run: Uuid, written: &Written) -> Result<u64> {
    let mut unmapped = 0;
    for (raw_ids, fresh) in [(&written.new, true), (&written.changed, false)] {
        for raw_ids in raw_ids.chunks(RECORDS_AT_ONCE) {
            let rows = db.run(
                "SELECT @extschema@.connector_service_derive($1, $2, $3, $4)",
                &[
                    uuid(connector).into(),
                    uuid(run).into(),
                    raw_ids.to_vec().into(),
                    fresh.into(),
                ],
            )?;
            unmapped += rows.need::<i64>(0, 1)?.unsigned_abs();
        }
    }
    Ok(unmapped)
}

/// Derives everything of a connector again; returns the number of its records.
pub fn reprocess(db: &mut Db, connector: Uuid) -> Result<i64> {
    db.run(
        "SELECT @extschema@.connector_service_reprocess_records($1)",
        &[uuid(connector).into()],
    )?
    .need(0, 1)
}

/// Tries the quarantined records of a connector again; returns how many are out of quarantine now.
pub fn replay(db: &mut Db, connector: Uuid) -> Result<i64> {
    db.run(
        "SELECT @extschema@.connector_service_replay_records($1)",
        &[uuid(connector).into()],
    )?
    .need(0, 1)
}

/// Whether records wait for their facts: inserted or changed by hand, stored while the lock was taken, or of a
/// day that has come.
pub fn is_any_unprocessed(db: &mut Db) -> Result<bool> {
    db.run(
        "SELECT EXISTS (SELECT FROM @extschema@.raw_connector_data WHERE NOT processed)
            OR EXISTS (SELECT FROM @extschema@.quarantine q JOIN @extschema@.tenants t ON t.tenant_id = q.tenant_id
                       WHERE q.retry_on <= (now() AT TIME ZONE t.timezone)::date AND q.replayed_at IS NULL)",
        &[],
    )?
    .need(0, 1)
}

/// Writes the facts of about `most` such records; returns how many it took. `None`: the lock is taken.
pub fn process(db: &mut Db, most: u64) -> Result<Option<u64>> {
    if !try_lock(db)? {
        return Ok(None);
    }
    let rows = db.run(
        "SELECT @extschema@.connector_service_process($1)",
        &[i64::try_from(most).unwrap_or(i64::MAX).into()],
    )?;
    Ok(Some(rows.need::<i64>(0, 1)?.unsigned_abs()))
}
