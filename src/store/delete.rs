//! Deletes a connector or a tenant in batches, and erases records. SQL functions do the work; this file calls them.

use uuid::Uuid;

use super::{Db, lock, read_uuid, uuid};
use crate::error::Result;

/// Rows of one batch. More: longer transactions, under the lock of the tenant's facts. Fewer: more transactions.
const ROWS_AT_ONCE: i32 = 1_000;

/// Whether a batch waits for the lock of the tenant's facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    ForLock,
    Never,
}

/// Whether the caller may delete rows of a table of ours.
pub fn may_delete(db: &mut Db, table: &str) -> Result<bool> {
    db.run(
        "SELECT pg_catalog.bool_and(pg_catalog.has_table_privilege(c.oid, 'DELETE'))
         FROM pg_catalog.pg_class c WHERE c.relname = $1 AND c.relnamespace = '@extschema@'::pg_catalog.regnamespace",
        &[table.into()],
    )?
    .need(0, 1)
}

/// Whether the caller may see a tenant.
pub fn is_tenant_visible(db: &mut Db, tenant: Uuid) -> Result<bool> {
    let rows = db.run(
        "SELECT true FROM @extschema@.tenants WHERE tenant_id = $1",
        &[uuid(tenant).into()],
    )?;
    Ok(rows.count > 0)
}

/// What the deletion of a connector deletes, table by table.
pub fn of_connector(db: &mut Db, connector: Uuid) -> Result<Vec<(String, i64)>> {
    let rows = db.run(
        "SELECT d.item, d.rows FROM _connector_service.connector_service_would_delete($1) d",
        &[uuid(connector).into()],
    )?;
    (0..rows.count)
        .map(|row| Ok((rows.need(row, 1)?, rows.need(row, 2)?)))
        .collect()
}

/// What the deletion of a tenant deletes, table by table.
pub fn of_tenant(db: &mut Db, tenant: Uuid) -> Result<Vec<(String, i64)>> {
    let rows = db.run(
        "SELECT d.item, d.rows FROM _connector_service.connector_service_would_delete_tenant($1) d",
        &[uuid(tenant).into()],
    )?;
    (0..rows.count)
        .map(|row| Ok((rows.need(row, 1)?, rows.need(row, 2)?)))
        .collect()
}

/// Marks a connector as one that is being deleted.
pub fn begin(db: &mut Db, connector: Uuid) -> Result<()> {
    db.run(
        "SELECT _connector_service.connector_service_begin_deletion($1)",
        &[uuid(connector).into()],
    )?;
    Ok(())
}

/// Marks a tenant as one that is being deleted. Without connectors it is deleted here.
pub fn begin_tenant(db: &mut Db, tenant: Uuid) -> Result<()> {
    lock::facts(Some(tenant))?;
    db.run(
        "SELECT _connector_service.connector_service_begin_tenant_deletion($1)",
        &[uuid(tenant).into()],
    )?;
    while some_of_tenant(db, tenant, Wait::ForLock)?.unwrap_or(0) > 0 {}
    Ok(())
}

/// The connectors and tenants that are being deleted: each connector with its tenant, and tenants without connectors.
pub fn waiting(db: &mut Db) -> Result<Vec<(Uuid, Option<Uuid>)>> {
    let rows = db.run(
        "SELECT c.tenant_id, c.connector_id FROM @extschema@.connectors c WHERE c.deleting_since IS NOT NULL
         UNION ALL
         SELECT t.tenant_id, NULL FROM @extschema@.tenants t
         WHERE t.deleting_since IS NOT NULL AND NOT EXISTS (SELECT FROM @extschema@.connectors c WHERE c.tenant_id = t.tenant_id)
         ORDER BY 1, 2",
        &[],
    )?;
    (0..rows.count)
        .map(|row| {
            let connector: Option<pgrx::Uuid> = rows.get(row, 2)?;
            Ok((read_uuid(rows.need(row, 1)?), connector.map(read_uuid)))
        })
        .collect()
}

/// Whether any connector is being deleted.
pub fn is_any(db: &mut Db) -> Result<bool> {
    db.run(
        "SELECT EXISTS (SELECT FROM @extschema@.connectors WHERE deleting_since IS NOT NULL)",
        &[],
    )?
    .need(0, 1)
}

/// Deletes the next rows of a connector, behind this record; returns how many, and the last record. `None`: another session
/// holds the lock of the tenant's facts.
pub fn some(
    db: &mut Db,
    connector: Uuid,
    after: &str,
    wait: Wait,
) -> Result<Option<(i64, Option<String>)>> {
    let Some(tenant) = super::connector::tenant(db, connector)? else {
        return Ok(Some((0, None)));
    };
    if !take(tenant, wait)? {
        return Ok(None);
    }
    let _locked = lock::Locked::note();
    let rows = db.run(
        "SELECT d.rows, d.last FROM _connector_service.connector_service_delete_batch($1, $2, $3) d",
        &[uuid(connector).into(), after.into(), ROWS_AT_ONCE.into()],
    )?;
    Ok(Some((rows.need(0, 1)?, rows.get(0, 2)?)))
}

/// Deletes the next rows of a tenant that has no connector; returns how many.
pub fn some_of_tenant(db: &mut Db, tenant: Uuid, wait: Wait) -> Result<Option<i64>> {
    if !take(tenant, wait)? {
        return Ok(None);
    }
    let _locked = lock::Locked::note();
    let rows = db.run(
        "SELECT _connector_service.connector_service_delete_tenant_batch($1, $2)",
        &[uuid(tenant).into(), ROWS_AT_ONCE.into()],
    )?;
    Ok(Some(rows.need(0, 1)?))
}

fn take(tenant: Uuid, wait: Wait) -> Result<bool> {
    match wait {
        Wait::ForLock => lock::facts(Some(tenant)).map(|()| true),
        Wait::Never => Ok(lock::try_facts(tenant)),
    }
}

/// One person's records.
pub struct Erasure<'a> {
    pub expression: &'a str,
    pub tenant: Uuid,
    pub connector: Option<Uuid>,
    pub is_trial: bool,
    pub facts: &'a str,
    pub is_remembered: bool,
}

/// What was found: connector, stream, table and rows.
pub type Item = (Option<pgrx::Uuid>, Option<String>, String, i64);

/// Finds the records, and erases them unless it is a trial.
pub fn erase(db: &mut Db, erasure: &Erasure) -> Result<Vec<Item>> {
    let rows = db.run(
        "SELECT e.connector_id, e.stream, e.item, e.rows FROM _connector_service.connector_service_erase_records($1, $2, $3, $4, $5, $6) e",
        &[
            erasure.expression.into(),
            uuid(erasure.tenant).into(),
            erasure.connector.map(uuid).into(),
            erasure.is_trial.into(),
            erasure.facts.into(),
            erasure.is_remembered.into(),
        ],
    )?;
    (0..rows.count)
        .map(|row| {
            Ok((
                rows.get(row, 1)?,
                rows.get(row, 2)?,
                rows.need(row, 3)?,
                rows.need(row, 4)?,
            ))
        })
        .collect()
}
