//! What people and programs read through the gateway, with the rights of the tenant that they read it for.

use chrono::{Datelike, NaiveDate};
use pgrx::datum::Date;
use uuid::Uuid;

use super::{Db, read_uuid, uuid};
use crate::error::{Error, Result};

/// Largest page in bytes. Larger: a slow client keeps much memory. Smaller: a tenant with much data in metrics.data must ask
/// for smaller pages.
const LARGEST_PAGE: i32 = 16 * 1024 * 1024;

/// Raises the error of `get_metrics()` for an invalid metric type or period.
pub fn check_period(
    db: &mut Db,
    tenant: Uuid,
    metric_type: Option<&str>,
    (from, to): (NaiveDate, NaiveDate),
) -> Result<()> {
    db.run(
        "SELECT _connector_service.connector_service_check_period($1, $2, $3, $4)",
        &[
            uuid(tenant).into(),
            metric_type.into(),
            day(from)?.into(),
            day(to)?.into(),
        ],
    )?;
    Ok(())
}

/// A page of a tenant's metrics, as JSON: at most `limit` metrics, after the metric that `after` names. `next` names the last
/// one if there are more. `None`: the page is too large.
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
        "WITH found AS MATERIALIZED (
            SELECT m.*, row_number() OVER (ORDER BY m.metric_date, m.metric_type) AS place
            FROM (
                SELECT own.metric_id, own.metric_type, own.metric_value, own.metric_date, own.data FROM @extschema@.metrics own
                WHERE own.tenant_id = $1 AND own.metric_date BETWEEN greatest($3, $5) AND $4
                    AND own.metric_type = ANY (CASE WHEN $2 IS NULL THEN '{revenue,inventory,staffing,costs}' ELSE ARRAY[$2] END)
                UNION ALL
                SELECT v.metric_id, v.metric_type, v.metric_value, v.metric_date, v.data FROM @extschema@.measure_values v
                WHERE v.tenant_id = $1 AND v.metric_date BETWEEN greatest($3, $5) AND $4 AND ($2 IS NULL OR v.metric_type = $2)) AS m
            WHERE $5 IS NULL OR (m.metric_date, m.metric_type) > ($5, $6)
            ORDER BY m.metric_date, m.metric_type LIMIT $7 + 1),
        made AS MATERIALIZED (
            SELECT (jsonb_build_object(
                    'metrics', coalesce(jsonb_agg(jsonb_build_object(
                        'metric_id', f.metric_id, 'metric_type', f.metric_type, 'metric_value', f.metric_value, 'metric_date', f.metric_date, 'data', f.data)
                        ORDER BY f.place) FILTER (WHERE f.place <= $7), '[]'),
                    'count', count(*) FILTER (WHERE f.place <= $7),
                    'period', jsonb_build_object('start', $3, 'end', $4))
                || CASE WHEN count(*) > $7 THEN jsonb_build_object('next', max(f.metric_date || ',' || f.metric_type) FILTER (WHERE f.place = $7)) ELSE '{}' END)::text AS page
            FROM found f)
        SELECT CASE WHEN octet_length(made.page) <= $8 THEN made.page END FROM made",
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

/// The tenants that a token gives access to, as JSON.
pub fn tenants(db: &mut Db, tenant: Option<Uuid>) -> Result<String> {
    let rows = db.run(
        "SELECT coalesce(jsonb_agg(jsonb_build_object('tenant_id', t.tenant_id, 'name', t.name, 'currency', t.currency, 'timezone', t.timezone,
                'measures', coalesce(own.measures, '[]')) ORDER BY t.name, t.tenant_id), '[]')::text
         FROM @extschema@.tenants t
            LEFT JOIN (
                SELECT m.tenant_id, jsonb_agg(jsonb_build_object('name', m.name, 'unit', m.unit, 'aggregation', m.aggregation, 'description', m.description)
                    ORDER BY m.name) AS measures
                FROM @extschema@.measures m WHERE $1 IS NULL OR m.tenant_id = $1 GROUP BY m.tenant_id) AS own ON own.tenant_id = t.tenant_id
         WHERE $1 IS NULL OR t.tenant_id = $1",
        &[tenant.map(uuid).into()],
    )?;
    rows.need(0, 1)
}

const OVERVIEW: &str = "
SELECT jsonb_build_object(
    'now', now(),
    'connectors', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'connector_id', h.connector_id, 'name', h.name, 'type', h.type, 'sync_frequency', h.sync_frequency, 'health', h.health, 'status', h.status,
            'error_message', h.error_message, 'last_sync_at', h.last_sync_at, 'lag_seconds', floor(extract(epoch FROM h.lag)), 'next_sync_at', h.next_sync_at,
            'active_run_id', h.active_run_id, 'active_pages', h.active_pages, 'active_received', h.active_received, 'waiting_for', h.waiting_for,
            'backfill_windows_left', h.backfill_windows_left, 'unprocessed', h.unprocessed, 'quarantined', h.quarantined, 'open_alerts', h.open_alerts)
            ORDER BY h.name, h.connector_id), '[]')
        FROM (
            SELECT o.* FROM @extschema@.connector_health o WHERE o.tenant_id = $1
            ORDER BY o.health NOT IN ('error', 'failing', 'late'), o.name, o.connector_id LIMIT 1000) AS h),
    'runs', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'run_id', r.run_id, 'connector_id', r.connector_id, 'kind', r.kind, 'state', r.state, 'requested_by', r.requested_by, 'requested_at', r.requested_at,
            'started_at', r.started_at, 'finished_at', r.finished_at, 'pages', r.pages, 'received', r.received, 'inserted', r.inserted, 'updated', r.updated,
            'unchanged', r.unchanged, 'quarantined', r.quarantined, 'deleted', r.deleted, 'error_code', r.error_code, 'error_message', r.error_message,
            'hint', @extschema@.connector_service_hint(r.error_code)) ORDER BY r.requested_at DESC, r.run_id), '[]')
        FROM (SELECT o.* FROM @extschema@.sync_runs o WHERE o.tenant_id = $1 ORDER BY o.requested_at DESC, o.run_id LIMIT 50) AS r),
    'alerts', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'alert_id', a.alert_id, 'connector_id', a.connector_id, 'alert_type', a.alert_type, 'severity', a.severity, 'message', a.message,
            'occurrences', a.occurrences, 'created_at', a.created_at, 'last_seen_at', a.last_seen_at) ORDER BY a.place), '[]')
        FROM (
            SELECT o.*, row_number() OVER (ORDER BY array_position('{critical,warning,info}'::text[], o.severity), o.last_seen_at DESC, o.alert_id) AS place
            FROM @extschema@.data_quality_alerts o WHERE o.tenant_id = $1 AND NOT o.resolved ORDER BY place LIMIT 100) AS a),
    'quarantine', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'connector_id', q.connector_id, 'stream', q.stream, 'reason_code', q.reason_code, 'reason', q.reason, 'records', q.records, 'last_seen_at', q.last_seen_at)
            ORDER BY q.last_seen_at DESC), '[]')
        FROM (
            SELECT o.connector_id, o.stream, o.reason_code, (array_agg(o.reason ORDER BY o.last_seen_at DESC))[1] AS reason, count(*) AS records, max(o.last_seen_at) AS last_seen_at
            FROM @extschema@.quarantine o JOIN @extschema@.connectors c ON c.connector_id = o.connector_id
            WHERE c.tenant_id = $1 AND o.replayed_at IS NULL GROUP BY o.connector_id, o.stream, o.reason_code
            ORDER BY max(o.last_seen_at) DESC LIMIT 100) AS q))::text";

/// The overview of a tenant, as JSON: up to 1000 connectors by name (if there are more, failing ones come first), the latest
/// 50 runs, up to 100 open alerts (the worst first), and up to 100 groups of quarantined records.
pub fn overview(db: &mut Db, tenant: Uuid) -> Result<String> {
    let rows = db.run(OVERVIEW, &[uuid(tenant).into()])?;
    rows.need(0, 1)
}

/// Resolves an alert; false: there is no such open alert.
pub fn resolve(db: &mut Db, alert: Uuid) -> Result<bool> {
    let rows = db.run(
        "UPDATE @extschema@.data_quality_alerts SET resolved = true WHERE alert_id = $1 AND NOT resolved",
        &[uuid(alert).into()],
    )?;
    Ok(rows.count > 0)
}

/// The tenant of an alert.
pub fn tenant_of_alert(db: &mut Db, alert: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "SELECT tenant_id FROM @extschema@.data_quality_alerts WHERE alert_id = $1",
        &[uuid(alert).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// Tries quarantined records again with `connector_service_replay()`, as the current role; returns how many succeeded.
pub fn replay(db: &mut Db, connector: Uuid) -> Result<i64> {
    db.run(
        "SELECT @extschema@.connector_service_replay($1)",
        &[uuid(connector).into()],
    )?
    .need(0, 1)
}

/// Queues a sync with `connector_service_sync()`, as the current role.
pub fn sync(db: &mut Db, connector: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "SELECT @extschema@.connector_service_sync($1)",
        &[uuid(connector).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// Stores a file with `connector_service_upload()`, as the current role.
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
