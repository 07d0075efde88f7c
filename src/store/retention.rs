//! Deletes old runs, their requests, quarantined records and alerts.

use std::time::Duration;

use super::Db;
use crate::error::Result;

/// Rows of one transaction. More: longer transactions. Fewer: more transactions.
const ROWS_AT_ONCE: i64 = 2_000;

/// Deletes runs that ended longer ago than `kept`; true: there may be more. The last run of each kind of a connector stays, and
/// so does a run whose file is still stored.
pub fn of_runs(db: &mut Db, kept: Duration) -> Result<bool> {
    let rows = db.run(
        "DELETE FROM @extschema@.sync_runs WHERE run_id IN (
            SELECT r.run_id FROM @extschema@.sync_runs r
            WHERE r.requested_at < now() - make_interval(secs => $1) AND r.finished_at < now() - make_interval(secs => $1)
                AND EXISTS (SELECT FROM @extschema@.sync_runs n
                    WHERE n.connector_id = r.connector_id AND n.kind = r.kind AND (n.requested_at, n.run_id) > (r.requested_at, r.run_id))
                AND NOT EXISTS (SELECT FROM @extschema@.uploads u WHERE u.run_id = r.run_id)
            LIMIT $2)",
        &[kept.as_secs_f64().into(), ROWS_AT_ONCE.into()],
    )?;
    Ok(rows.count == ROWS_AT_ONCE as u64)
}

/// Deletes requests that were made longer ago; true: there may be more.
pub fn of_requests(db: &mut Db, kept: Duration) -> Result<bool> {
    let rows = db.run(
        "DELETE FROM @extschema@.sync_requests WHERE (run_id, request) IN (
            SELECT q.run_id, q.request FROM @extschema@.sync_requests q
            WHERE q.requested_at < now() - make_interval(secs => $1) LIMIT $2)",
        &[kept.as_secs_f64().into(), ROWS_AT_ONCE.into()],
    )?;
    Ok(rows.count == ROWS_AT_ONCE as u64)
}

/// Deletes quarantined records that were last seen longer ago; true: there may be more.
pub fn of_quarantine(db: &mut Db, kept: Duration) -> Result<bool> {
    let rows = db.run(
        "DELETE FROM @extschema@.quarantine WHERE quarantine_id IN (
            SELECT q.quarantine_id FROM @extschema@.quarantine q
            WHERE q.last_seen_at < now() - make_interval(secs => $1) AND q.retry_on IS NULL LIMIT $2)",
        &[kept.as_secs_f64().into(), ROWS_AT_ONCE.into()],
    )?;
    Ok(rows.count == ROWS_AT_ONCE as u64)
}

/// Deletes alerts that were resolved, and last seen, longer ago; true: there may be more.
pub fn of_alerts(db: &mut Db, kept: Duration) -> Result<bool> {
    let rows = db.run(
        "DELETE FROM @extschema@.data_quality_alerts WHERE alert_id IN (
            SELECT a.alert_id FROM @extschema@.data_quality_alerts a
            WHERE a.resolved AND greatest(a.resolved_at, a.last_seen_at) < now() - make_interval(secs => $1) LIMIT $2)",
        &[kept.as_secs_f64().into(), ROWS_AT_ONCE.into()],
    )?;
    Ok(rows.count == ROWS_AT_ONCE as u64)
}
