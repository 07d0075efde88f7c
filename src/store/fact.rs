//! `metric_facts`: what records contribute to metrics. An SQL function does all the work; this file calls it.

use ::uuid::Uuid;

use super::raw::Written;
use super::{Db, read_uuid, uuid};
use crate::error::Result;

/// Records of one call. More: more memory at once. Fewer: the fixed cost of a call is paid more often.
const RECORDS_AT_ONCE: usize = 2_000;

/// Whether the cost of all mappings of a connector surely grows only linearly with its records. `None`: it has no mapping.
pub fn is_plain(db: &mut Db, connector: Uuid) -> Result<Option<bool>> {
    db.run(
        "SELECT bool_and(m.is_plain) FROM _connector_service.connector_service_mappings_of($1) m",
        &[uuid(connector).into()],
    )?
    .get(0, 1)
}

/// Writes the facts of records that this transaction stored for a run, and marks the days they touch. Returns how
/// many records a mapping could not read. Needs the lock of the tenant's facts.
pub fn derive(db: &mut Db, connector: Uuid, run: Uuid, written: &Written) -> Result<u64> {
    let mut unmapped = 0;
    for (raw_ids, fresh) in [(&written.new, true), (&written.changed, false)] {
        for raw_ids in raw_ids.chunks(RECORDS_AT_ONCE) {
            let rows = db.run(
                "SELECT _connector_service.connector_service_derive($1, $2, $3, $4)",
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
        "SELECT _connector_service.connector_service_reprocess_records($1)",
        &[uuid(connector).into()],
    )?
    .need(0, 1)
}

/// Tries the quarantined records of a connector again; returns how many are out of quarantine now.
pub fn replay(db: &mut Db, connector: Uuid) -> Result<i64> {
    db.run(
        "SELECT _connector_service.connector_service_replay_records($1)",
        &[uuid(connector).into()],
    )?
    .need(0, 1)
}

/// Connectors with records that wait for their facts, with their tenants: inserted or changed by hand, pushed, stored
/// without the lock or by mappings that are not plain.
pub fn waiting(db: &mut Db) -> Result<Vec<(Uuid, Uuid)>> {
    let rows = db.run(
        // From one connector to the next by the index: one of them may have millions of records.
        "WITH RECURSIVE waiting (connector_id) AS (
            (SELECT r.connector_id FROM @extschema@.raw_connector_data r WHERE NOT r.processed ORDER BY r.connector_id LIMIT 1)
            UNION ALL
            SELECT (SELECT r.connector_id FROM @extschema@.raw_connector_data r
                    WHERE NOT r.processed AND r.connector_id > waiting.connector_id ORDER BY r.connector_id LIMIT 1)
            FROM waiting WHERE waiting.connector_id IS NOT NULL)
         SELECT c.tenant_id, c.connector_id FROM waiting JOIN @extschema@.connectors c ON c.connector_id = waiting.connector_id
         ORDER BY 1, 2",
        &[],
    )?;
    (0..rows.count)
        .map(|row| Ok((read_uuid(rows.need(row, 1)?), read_uuid(rows.need(row, 2)?))))
        .collect()
}

/// Whether a connector has such records.
pub fn is_waiting(db: &mut Db, connector: Uuid) -> Result<bool> {
    db.run(
        "SELECT EXISTS (SELECT FROM @extschema@.raw_connector_data WHERE connector_id = $1 AND NOT processed)",
        &[uuid(connector).into()],
    )?
    .need(0, 1)
}

/// Whether any connector has, or a record's day has come.
pub fn is_any_waiting(db: &mut Db) -> Result<bool> {
    let waits = db.run(
        "SELECT EXISTS (SELECT FROM @extschema@.raw_connector_data WHERE NOT processed)",
        &[],
    )?;
    Ok(waits.need(0, 1)? || is_any_due(db)?)
}

/// Whether a record's day was still to come and has come.
pub fn is_any_due(db: &mut Db) -> Result<bool> {
    db.run(
        "SELECT EXISTS (SELECT FROM @extschema@.quarantine q JOIN @extschema@.tenants t ON t.tenant_id = q.tenant_id
                       WHERE q.retry_on <= (now() AT TIME ZONE t.timezone)::date AND q.replayed_at IS NULL)",
        &[],
    )?
    .need(0, 1)
}

/// Has records processed whose day was still to come and has come.
pub fn come_due(db: &mut Db) -> Result<()> {
    db.run(
        "SELECT _connector_service.connector_service_come_due()",
        &[],
    )?;
    Ok(())
}

/// The oldest records of a connector that wait; what another transaction is changing follows when that has ended.
pub fn oldest_waiting(db: &mut Db, connector: Uuid, most: i64) -> Result<Vec<pgrx::Uuid>> {
    let rows = db.run(
        "SELECT array_agg(r.raw_id) FROM (
            SELECT u.raw_id FROM @extschema@.raw_connector_data u
            WHERE u.connector_id = $1 AND NOT u.processed
            ORDER BY u.ingested_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED) AS r",
        &[uuid(connector).into(), most.into()],
    )?;
    Ok(rows.get(0, 1)?.unwrap_or_default())
}

/// Writes the facts of such records. Needs the lock of the tenant's facts.
pub fn derive_waiting(db: &mut Db, connector: Uuid, raw_ids: Vec<pgrx::Uuid>) -> Result<()> {
    db.run(
        "SELECT _connector_service.connector_service_derive($1, NULL::uuid, $2, false)",
        &[uuid(connector).into(), raw_ids.into()],
    )?;
    Ok(())
}

/// Puts records into quarantine that cost too much, with the reason. Needs the lock of the tenant's facts.
pub fn refuse(db: &mut Db, connector: Uuid, raw_ids: Vec<pgrx::Uuid>, why: &str) -> Result<()> {
    db.run(
        "SELECT _connector_service.connector_service_refuse($1, NULL::uuid, $2, $3, 'too_costly'::text)",
        &[uuid(connector).into(), raw_ids.into(), why.into()],
    )?;
    Ok(())
}
