//! What happens to a run while it is running: its pages, its warnings, what it waits for.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use connector_service_core::record::Window;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::store::storable::{storable, storable_json};
use crate::store::{Db, read_uuid, uuid};

/// What a page adds to its run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub received: u64,
    pub inserted: u64,
    pub updated: u64,
    pub unchanged: u64,
    pub quarantined: u64,
    pub deleted: u64,
    pub bytes: u64,
}

/// What a page says of its stream, for `sync_runs.streams`.
pub struct OfStream<'a> {
    /// The streams of the run, as they stand before its first page.
    pub plan: &'a Value,
    pub name: &'a str,
    /// Whether this is its last page.
    pub is_read: bool,
    /// The greatest cursor value that is stored.
    pub cursor: Option<&'a Value>,
}

/// Longest cursor that is shown, as JSON.
const LONGEST_CURSOR: usize = 1_024;

/// A stream as it stands before its first page.
pub fn unread() -> Value {
    json!({"state": "waiting", "pages": 0, "received": 0, "cursor": null, "error": null})
}

/// Adds a page to its run; fails with [`Error::Fenced`] if the run no longer belongs to this worker.
pub fn add_page(
    db: &mut Db,
    run: Uuid,
    token: Uuid,
    counts: Counts,
    window: Window,
    stream: OfStream,
) -> Result<()> {
    let cursor = stream
        .cursor
        .filter(|at| at.to_string().len() <= LONGEST_CURSOR);
    let n = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let micros = |at: DateTime<Utc>| at.timestamp_micros() as f64 / 1e6;
    let rows = db.run(
        "UPDATE @extschema@.sync_runs
         SET pages = pages + 1, received = received + $3, inserted = inserted + $4, updated = updated + $5,
             unchanged = unchanged + $6, quarantined = quarantined + $7, bytes = bytes + $8, deleted = deleted + $11,
             waiting_for = NULL, retry_at = NULL,
             streams = coalesce(streams, $12) || jsonb_build_object($13::text, jsonb_build_object('state', $14::text,
                'pages', coalesce((streams #>> ARRAY[$13, 'pages'])::bigint, 0) + 1,
                'received', coalesce((streams #>> ARRAY[$13, 'received'])::bigint, 0) + $3, 'cursor', $15::jsonb, 'error', NULL)),
             window_from = least(window_from, to_timestamp($9)), window_to = greatest(window_to, to_timestamp($10)),
             heartbeat_at = clock_timestamp()
         WHERE run_id = $1 AND token = $2 AND state = 'running'",
        &[
            uuid(run).into(),
            uuid(token).into(),
            n(counts.received).into(),
            n(counts.inserted).into(),
            n(counts.updated).into(),
            n(counts.unchanged).into(),
            n(counts.quarantined).into(),
            n(counts.bytes).into(),
            window.from.map(micros).into(),
            micros(window.to).into(),
            n(counts.deleted).into(),
            pgrx::JsonB(stream.plan.clone()).into(),
            (&*storable(stream.name)).into(),
            if stream.is_read { "ok" } else { "reading" }.into(),
            cursor.map(|at| pgrx::JsonB(storable_json(at.clone()))).into(),
        ],
    )?;
    if rows.count == 0 {
        Err(Error::Fenced(run))
    } else {
        Ok(())
    }
}

/// Adds records that a mapping could not read to a run of which this transaction stored a page.
pub fn add_unmapped(db: &mut Db, run: Uuid, unmapped: u64) -> Result<()> {
    db.run(
        "UPDATE @extschema@.sync_runs SET unmapped = unmapped + $2 WHERE run_id = $1",
        &[
            uuid(run).into(),
            i64::try_from(unmapped).unwrap_or(i64::MAX).into(),
        ],
    )?;
    Ok(())
}

/// The run that counts the webhooks of a connector in this hour. It always has the state of a run that has ended.
pub fn of_webhooks(db: &mut Db, connector: Uuid) -> Result<Uuid> {
    let rows = db.run(
        "WITH latest AS (
            SELECT run_id FROM @extschema@.sync_runs
            WHERE connector_id = $1 AND kind = 'webhook' AND requested_at > now() - interval '1 hour' ORDER BY requested_at DESC LIMIT 1),
         made AS (
            INSERT INTO @extschema@.sync_runs (connector_id, tenant_id, kind, requested_by, state, attempt, started_at, finished_at)
            SELECT connector_id, tenant_id, 'webhook', 'webhook', 'succeeded', 1, now(), now() FROM @extschema@.connectors
            WHERE connector_id = $1 AND NOT EXISTS (SELECT FROM latest)
            RETURNING run_id)
         SELECT run_id FROM latest UNION ALL SELECT run_id FROM made",
        &[uuid(connector).into()],
    )?;
    // No row: the connector was deleted meanwhile.
    let run = rows.get(0, 1)?.map(read_uuid);
    run.ok_or(Error::UnknownConnector(connector))
}

/// Counts deliveries, each as a page.
pub fn add_deliveries(db: &mut Db, run: Uuid, deliveries: u64, counts: &Counts) -> Result<()> {
    let n = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    db.run(
        "UPDATE @extschema@.sync_runs
         SET pages = pages + $2, received = received + $3, inserted = inserted + $4, updated = updated + $5,
             unchanged = unchanged + $6, quarantined = quarantined + $7, bytes = bytes + $8,
             heartbeat_at = clock_timestamp(), finished_at = greatest(clock_timestamp(), started_at)
         WHERE run_id = $1",
        &[
            uuid(run).into(),
            n(deliveries).into(),
            n(counts.received).into(),
            n(counts.inserted).into(),
            n(counts.updated).into(),
            n(counts.unchanged).into(),
            n(counts.quarantined).into(),
            n(counts.bytes).into(),
        ],
    )?;
    Ok(())
}

/// Adds a warning to the run that counts deliveries, once.
pub fn warn_of_deliveries(db: &mut Db, run: Uuid, warning: &str) -> Result<()> {
    db.run(
        "UPDATE @extschema@.sync_runs SET warnings = warnings || $2::text
         WHERE run_id = $1 AND $2 <> ALL (warnings) AND cardinality(warnings) < $3",
        &[
            uuid(run).into(),
            (&*storable(warning)).into(),
            MOST_WARNINGS.into(),
        ],
    )?;
    Ok(())
}

/// What a run waits for when its records are stored and the upkeep process still derives and sums. `connector_service_wait()`
/// compares with this text.
pub const FOR_METRICS: &str = "its metrics";

/// Tenants whose records are being stored. Their days are summed when a run ends, and each page needs the lock of their facts.
pub fn busy_tenants(db: &mut Db) -> Result<HashSet<Uuid>> {
    let rows = db.run(
        "SELECT DISTINCT r.tenant_id FROM @extschema@.sync_runs r
         WHERE r.state = 'running' AND r.kind IN ('sync', 'backfill', 'upload') AND r.waiting_for IS DISTINCT FROM $1",
        &[FOR_METRICS.into()],
    )?;
    (0..rows.count)
        .map(|row| Ok(read_uuid(rows.need(row, 1)?)))
        .collect()
}

/// Shows what a run waits for, and until when.
pub fn show_waiting(db: &mut Db, run: Uuid, token: Uuid, wait: Duration, why: &str) -> Result<()> {
    db.run(
        "UPDATE @extschema@.sync_runs SET waiting_for = $3, retry_at = now() + make_interval(secs => $4)
         WHERE run_id = $1 AND token = $2 AND state = 'running'",
        &[
            uuid(run).into(),
            uuid(token).into(),
            (&*storable(why)).into(),
            wait.as_secs_f64().into(),
        ],
    )?;
    Ok(())
}

/// Most warnings of one run. More: a stream that warns with every page makes the row long.
const MOST_WARNINGS: i32 = 20;

/// Adds a warning to a run, once.
pub fn warn(db: &mut Db, run: Uuid, token: Uuid, warning: &str) -> Result<()> {
    db.run(
        "UPDATE @extschema@.sync_runs SET warnings = warnings || $3::text
         WHERE run_id = $1 AND token = $2 AND state = 'running' AND $3 <> ALL (warnings) AND cardinality(warnings) < $4",
        &[
            uuid(run).into(),
            uuid(token).into(),
            (&*storable(warning)).into(),
            MOST_WARNINGS.into(),
        ],
    )?;
    Ok(())
}

/// Notes how streams ended while their run goes on: an object with a part of an entry of `sync_runs.streams` for each.
pub fn note_streams(db: &mut Db, run: Uuid, token: Uuid, plan: &Value, ends: &Value) -> Result<()> {
    db.run(
        concat!(
            "UPDATE @extschema@.sync_runs SET streams = ",
            streams_at_end!("$3", "$4", "s.entry ->> 'state'"),
            " WHERE run_id = $1 AND token = $2 AND state = 'running'"
        ),
        &[
            uuid(run).into(),
            uuid(token).into(),
            pgrx::JsonB(storable_json(plan.clone())).into(),
            pgrx::JsonB(storable_json(ends.clone())).into(),
        ],
    )?;
    Ok(())
}

/// Adds what was found in a stream to the report of a check or preview.
pub fn report(db: &mut Db, run: Uuid, token: Uuid, found: Value) -> Result<()> {
    db.run(
        "UPDATE @extschema@.sync_runs SET report = coalesce(report, '[]') || jsonb_build_array($3), heartbeat_at = clock_timestamp(),
             streams = coalesce(streams, '{}') || jsonb_build_object($3 ->> 'stream', jsonb_build_object(
                'state', CASE WHEN $3 ->> 'error_code' IS NOT NULL THEN 'failed' WHEN $3 -> 'records' IS NULL THEN 'absent' ELSE 'ok' END,
                'pages', CASE WHEN $3 -> 'records' IS NULL THEN 0 ELSE 1 END, 'received', coalesce(($3 ->> 'records')::bigint, 0), 'cursor', NULL,
                'error', CASE WHEN $3 ->> 'error_code' IS NOT NULL THEN jsonb_build_object('code', $3 -> 'error_code', 'message', $3 -> 'error_message') END))
         WHERE run_id = $1 AND token = $2 AND state = 'running'",
        &[
            uuid(run).into(),
            uuid(token).into(),
            pgrx::JsonB(storable_json(found)).into(),
        ],
    )?;
    Ok(())
}

/// Which of these runs are no longer running with this token.
pub fn lost(db: &mut Db, runs: Vec<Uuid>, token: Uuid) -> Result<Vec<Uuid>> {
    let runs: Vec<pgrx::Uuid> = runs.into_iter().map(uuid).collect();
    let rows = db.run(
        "SELECT mine.run_id FROM unnest($1) AS mine(run_id)
         WHERE (SELECT count(*) FROM @extschema@.sync_runs r WHERE r.run_id = mine.run_id AND r.token = $2 AND r.state = 'running') = 0",
        &[runs.into(), uuid(token).into()],
    )?;
    (0..rows.count)
        .map(|row| Ok(read_uuid(rows.need(row, 1)?)))
        .collect()
}
