//! `metrics`: summing days whose facts changed, the hourly checks, and the aggregates.

use uuid::Uuid;

use super::{Db, lock, read_uuid, uuid};
use crate::error::Result;

/// The tenants that have days to be summed.
pub fn touched(db: &mut Db) -> Result<Vec<Uuid>> {
    let rows = db.run(
        "WITH RECURSIVE touched (tenant_id) AS (
            (SELECT t.tenant_id FROM @extschema@.metric_days_touched t ORDER BY t.tenant_id LIMIT 1)
            UNION ALL
            SELECT (SELECT t.tenant_id FROM @extschema@.metric_days_touched t
                    WHERE t.tenant_id > touched.tenant_id ORDER BY t.tenant_id LIMIT 1)
            FROM touched WHERE touched.tenant_id IS NOT NULL)
         SELECT touched.tenant_id FROM touched WHERE touched.tenant_id IS NOT NULL",
        &[],
    )?;
    (0..rows.count)
        .map(|row| Ok(read_uuid(rows.need(row, 1)?)))
        .collect()
}

/// Whether a tenant has days to be summed.
pub fn is_touched(db: &mut Db, tenant: Uuid) -> Result<bool> {
    db.run(
        "SELECT EXISTS (SELECT FROM @extschema@.metric_days_touched WHERE tenant_id = $1)",
        &[uuid(tenant).into()],
    )?
    .need(0, 1)
}

/// Whether any tenant has days to be summed.
pub fn is_any_touched(db: &mut Db) -> Result<bool> {
    db.run(
        "SELECT EXISTS (SELECT FROM @extschema@.metric_days_touched)",
        &[],
    )?
    .need(0, 1)
}

/// Sums up to `most` touched days of a tenant; returns how many there were. `None`: the lock of its facts is taken.
pub fn settle(db: &mut Db, tenant: Uuid, most: i32) -> Result<Option<u64>> {
    if !is_touched(db, tenant)? {
        return Ok(Some(0));
    }
    if !lock::try_facts(tenant) {
        return Ok(None);
    }
    let rows = db.run(
        "SELECT _connector_service.connector_service_settle($1, $2)",
        &[most.into(), uuid(tenant).into()],
    )?;
    Ok(Some(rows.need::<i64>(0, 1)?.unsigned_abs()))
}

/// Whether the tenant of a connector has a measure of this name.
pub fn is_measure(db: &mut Db, connector: Uuid, name: &str) -> Result<bool> {
    db.run(
        "SELECT EXISTS (SELECT FROM @extschema@.connectors c JOIN @extschema@.measures m ON m.tenant_id = c.tenant_id
                       WHERE c.connector_id = $1 AND m.name = $2)",
        &[uuid(connector).into(), name.into()],
    )?
    .need(0, 1)
}

/// Updates `metric_sources` of a tenant after deletions. Needs the lock of its facts.
pub fn prune_sources(db: &mut Db, tenant: Uuid) -> Result<()> {
    db.run(
        "SELECT _connector_service.connector_service_prune_sources($1)",
        &[vec![uuid(tenant)].into()],
    )?;
    Ok(())
}

/// Checks some tenants for missing days, stale connectors and days with too few records.
pub fn check_quality(db: &mut Db, tenants: &[Uuid]) -> Result<()> {
    let tenants: Vec<pgrx::Uuid> = tenants.iter().copied().map(uuid).collect();
    db.run(
        "SELECT @extschema@.connector_service_check_quality($1)",
        &[tenants.into()],
    )?;
    Ok(())
}

/// Up to `most` tenants after this one, in the order of their ids.
pub fn tenants_after(db: &mut Db, tenant: Uuid, most: i64) -> Result<Vec<Uuid>> {
    let rows = db.run(
        "SELECT tenant_id FROM @extschema@.tenants WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2",
        &[uuid(tenant).into(), most.into()],
    )?;
    (0..rows.count)
        .map(|row| Ok(read_uuid(rows.need(row, 1)?)))
        .collect()
}

/// Brings the monthly aggregate up to date; its readers are not blocked.
pub fn refresh_monthly(db: &mut Db) -> Result<()> {
    db.run("SELECT @extschema@.refresh_monthly_revenue()", &[])?;
    Ok(())
}

/// Opens an alert if records of a stream seem to be missing, or closes it if not.
pub fn note_count(db: &mut Db, connector: Uuid, stream: &str, problem: Option<&str>) -> Result<()> {
    db.run(
        "SELECT _connector_service.connector_service_note_count($1, $2, $3)",
        &[uuid(connector).into(), stream.into(), problem.into()],
    )?;
    Ok(())
}
