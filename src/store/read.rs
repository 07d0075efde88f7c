//! What people and programs read through the gateway, with the rights of the tenant they read it for.

use chrono::{Datelike, NaiveDate};
use pgrx::datum::Date;
use uuid::Uuid;

use super::{Db, read_uuid, uuid};
use crate::error::{Error, Result};

/// Bytes of a page. Larger: whoever reads it slowly keeps much memory. Smaller: who wrote much into metrics.data is told to
/// ask for less.
const LARGEST_PAGE: i32 = 16 * 1024 * 1024;

/// A page of a tenant's metrics, as JSON; `None`: it is too large.
pub fn metrics(
    db: &mut Db,
    tenant: Uuid,
    metric_type: Option<&str>,
    (from, to): (NaiveDate, NaiveDate),
    after: Option<(NaiveDate, &str)>,
    limit: i32,
) -> Result<Option<String>> {
    let after_date = after.map(|(date, _)| day(date)).transpose()?;
    let rows = db.run(
        "SELECT CASE WHEN octet_length(page) <= $8 THEN page END
         FROM (SELECT @extschema@.connector_service_metrics_page($1, $2, $3, $4, $5, $6, $7)::text OFFSET 0) AS made (page)",
        &[
            uuid(tenant).into(),
            metric_type.into(),
            day(from)?.into(),
            day(to)?.into(),
            after_date.into(),
            after.map(|(_, kind)| kind).into(),
            limit.into(),
            LARGEST_PAGE.into(),
        ],
    )?;
    rows.get(0, 1)
}

fn day(date: NaiveDate) -> Result<Date> {
    let (month, day) = (date.month() as u8, date.day() as u8);
    Date::new(date.year(), month, day).map_err(|_| Error::Spi(pgrx::spi::Error::InvalidPosition))
}

/// The tenants that a token opens, as JSON.
pub fn tenants(db: &mut Db, tenant: Option<Uuid>) -> Result<String> {
    let rows = db.run(
        "SELECT coalesce(jsonb_agg(jsonb_build_object('tenant_id', tenant_id, 'name', name, 'currency', currency, 'timezone', timezone) ORDER BY name, tenant_id), '[]')::text
         FROM @extschema@.tenants WHERE $1 IS NULL OR tenant_id = $1",
        &[tenant.map(uuid).into()],
    )?;
    rows.need(0, 1)
}

pub fn overview(db: &mut Db, tenant: Uuid) -> Result<String> {
    let rows = db.run(
        "SELECT @extschema@.connector_service_overview($1)::text",
        &[uuid(tenant).into()],
    )?;
    rows.need(0, 1)
}

/// Closes an alert for good; false: there is none that is open.
pub fn resolve(db: &mut Db, alert: Uuid) -> Result<bool> {
    let rows = db.run(
        "UPDATE @extschema@.data_quality_alerts SET resolved = true WHERE alert_id = $1 AND NOT resolved",
        &[uuid(alert).into()],
    )?;
    Ok(rows.count > 0)
}

/// Whose an alert is.
pub fn tenant_of_alert(db: &mut Db, alert: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "SELECT tenant_id FROM @extschema@.data_quality_alerts WHERE alert_id = $1",
        &[uuid(alert).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// Tries quarantined records again, as `connector_service_replay()` does for whoever calls it; returns how many.
pub fn replay(db: &mut Db, connector: Uuid) -> Result<i64> {
    db.run(
        "SELECT @extschema@.connector_service_replay($1)",
        &[uuid(connector).into()],
    )?
    .need(0, 1)
}

/// Queues a sync, as `connector_service_sync()` does for whoever calls it.
pub fn sync(db: &mut Db, connector: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "SELECT @extschema@.connector_service_sync($1)",
        &[uuid(connector).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// Takes a file, as `connector_service_upload()` does for whoever calls it.
pub fn upload(db: &mut Db, connector: Uuid, file: &str, content: &[u8]) -> Result<Uuid> {
    let rows = db.run(
        "SELECT @extschema@.connector_service_upload($1, $2, $3)",
        &[uuid(connector).into(), file.into(), content.into()],
    )?;
    Ok(read_uuid(rows.need(0, 1)?))
}

pub fn prometheus(db: &mut Db) -> Result<String> {
    db.run("SELECT @extschema@.connector_service_prometheus()", &[])?
        .need(0, 1)
}
