//! Backfills: windows of the past, each a run of its own. They are read one after the other.
//!
//! A window that waits for earlier windows has `retry_at = infinity` until [`release`] lets it start. Its `waiting_for` is a text
//! that `connector_service_wait()` compares with.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use connector_service_core::fetch::Stored;
use connector_service_core::record::StreamState;
use pgrx::datum::Interval;
use uuid::Uuid;

use super::storable::storable;
use super::{Db, read_uuid, state, uuid};
use crate::error::{Error, Result};

/// Most backfill windows that wait for a connector. More: a typing error in the step fills the table.
pub const MOST: i64 = 10_000;

/// How many windows would wait for a connector, including those that wait already. Counts no further than [`MOST`] plus one:
/// the series is in the SELECT list, which makes it row by row; in FROM all of it would be made first.
pub fn count(
    db: &mut Db,
    connector: Uuid,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    step: Interval,
) -> Result<i64> {
    let rows = db.run(
        "SELECT count(*) + (SELECT count(*) FROM @extschema@.sync_runs WHERE connector_id = $5 AND kind = 'backfill' AND state IN ('queued', 'running'))
         FROM (SELECT generate_series(to_timestamp($1), to_timestamp($2) - interval '1 microsecond', $3) LIMIT $4) AS windows",
        &[
            seconds(from).into(),
            seconds(to).into(),
            step.into(),
            (MOST + 1).into(),
            uuid(connector).into(),
        ],
    )?;
    rows.need(0, 1)
}

/// Queues the windows, the oldest first.
pub fn queue(
    db: &mut Db,
    connector: Uuid,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    step: Interval,
) -> Result<Vec<Uuid>> {
    let rows = db.run(
        "WITH windows AS (
            SELECT began, least(lead(began, 1, 'infinity') OVER (ORDER BY began), to_timestamp($3)) AS ends,
                row_number() OVER (ORDER BY began) AS step, count(*) OVER () AS steps
            FROM generate_series(to_timestamp($2), to_timestamp($3) - interval '1 microsecond', $4) AS began),
         queued AS (
            INSERT INTO @extschema@.sync_runs (connector_id, tenant_id, kind, requested_at, window_from, window_to, backfill_step, backfill_steps,
                retry_at, waiting_for)
            SELECT c.connector_id, c.tenant_id, 'backfill', now(), w.began, w.ends, w.step, w.steps, 'infinity', 'the windows before it'
            FROM @extschema@.connectors c, windows w WHERE c.connector_id = $1
            RETURNING run_id, backfill_step)
         SELECT run_id FROM queued ORDER BY backfill_step",
        &[
            uuid(connector).into(),
            seconds(from).into(),
            seconds(to).into(),
            step.into(),
        ],
    )?;
    (0..rows.count)
        .map(|row| Ok(read_uuid(rows.need(row, 1)?)))
        .collect()
}

fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_micros() as f64 / 1e6
}

/// Lets a connector's next window start, if no other window is queued or running.
pub fn release(db: &mut Db, connector: Uuid) -> Result<()> {
    db.run(
        "UPDATE @extschema@.sync_runs SET retry_at = NULL, waiting_for = NULL
         WHERE run_id = (
            SELECT w.run_id FROM @extschema@.sync_runs w
            WHERE w.connector_id = $1 AND w.kind = 'backfill' AND w.state = 'queued' AND w.retry_at = 'infinity'
            -- A locked one is being cancelled.
            ORDER BY w.requested_at, w.backfill_step LIMIT 1 FOR UPDATE SKIP LOCKED)
            AND NOT EXISTS (
                SELECT FROM @extschema@.sync_runs o
                WHERE o.connector_id = $1 AND o.kind = 'backfill' AND o.state IN ('queued', 'running') AND o.retry_at IS DISTINCT FROM 'infinity')",
        &[uuid(connector).into()],
    )?;
    Ok(())
}

/// Lets the next window of every connector start. A session that queues windows and the worker that ends the window before do
/// not see each other until both have committed, so this runs with every poll.
pub fn release_all(db: &mut Db) -> Result<u64> {
    let rows = db.run(
        // The index leads from one connector to the next: one of them may have thousands of windows.
        "WITH RECURSIVE asked (connector_id) AS (
            (SELECT s.connector_id FROM @extschema@.sync_runs s
             WHERE s.kind = 'backfill' AND s.state IN ('queued', 'running') ORDER BY s.connector_id LIMIT 1)
            UNION ALL
            SELECT (SELECT s.connector_id FROM @extschema@.sync_runs s
                    WHERE s.kind = 'backfill' AND s.state IN ('queued', 'running') AND s.connector_id > asked.connector_id
                    ORDER BY s.connector_id LIMIT 1)
            FROM asked WHERE asked.connector_id IS NOT NULL)
         UPDATE @extschema@.sync_runs SET retry_at = NULL, waiting_for = NULL
         WHERE run_id IN (
            SELECT (SELECT w.run_id FROM @extschema@.sync_runs w
                    WHERE w.connector_id = asked.connector_id AND w.kind = 'backfill' AND w.state = 'queued' AND w.retry_at = 'infinity'
                    ORDER BY w.requested_at, w.backfill_step LIMIT 1 FOR UPDATE SKIP LOCKED)
            FROM asked
            WHERE asked.connector_id IS NOT NULL AND NOT EXISTS (
                SELECT FROM @extschema@.sync_runs o
                WHERE o.connector_id = asked.connector_id AND o.kind = 'backfill' AND o.state IN ('queued', 'running')
                    AND o.retry_at IS DISTINCT FROM 'infinity'))",
        &[],
    )?;
    Ok(rows.count)
}

/// The connectors that have backfills. For use when [`release_all`] fails for all of them.
pub fn connectors(db: &mut Db) -> Result<Vec<Uuid>> {
    let rows = db.run(
        "SELECT DISTINCT connector_id FROM @extschema@.sync_runs WHERE kind = 'backfill' AND state IN ('queued', 'running')",
        &[],
    )?;
    (0..rows.count)
        .map(|row| Ok(read_uuid(rows.need(row, 1)?)))
        .collect()
}

/// Cancels the queued windows of a connector's backfills: they would fail like the one before.
pub fn cancel_rest(db: &mut Db, connector: Uuid, why: &str) -> Result<()> {
    db.run(
        "UPDATE @extschema@.sync_runs SET state = 'cancelled', finished_at = greatest(clock_timestamp(), started_at), waiting_for = NULL, retry_at = NULL,
            error_code = 'cancelled', error_message = 'an earlier window failed: ' || $2
         WHERE connector_id = $1 AND kind = 'backfill' AND state = 'queued'",
        &[uuid(connector).into(), (&*storable(why)).into()],
    )?;
    Ok(())
}

/// The cursor of each stream of a window.
pub fn progress(db: &mut Db, run: Uuid) -> Result<HashMap<String, Stored>> {
    let rows = db.run(
        "SELECT p.key, p.value::text, extract(epoch FROM now() - r.heartbeat_at)::float8
         FROM @extschema@.sync_runs r, jsonb_each(r.progress) AS p WHERE r.run_id = $1",
        &[uuid(run).into()],
    )?;
    let mut states = HashMap::new();
    for row in 0..rows.count {
        if let Some(stored) = state::stored(&rows, row, 2)? {
            states.insert(rows.need(row, 1)?, stored);
        }
    }
    Ok(states)
}

/// Stores the cursor of a stream, in the transaction of its page.
pub fn advance(db: &mut Db, run: Uuid, stream: &str, state: &StreamState) -> Result<()> {
    let state =
        serde_json::to_value(state).map_err(|_| Error::Spi(pgrx::spi::Error::InvalidPosition))?;
    db.run(
        "UPDATE @extschema@.sync_runs SET progress = coalesce(progress, '{}') || jsonb_build_object($2::text, $3::jsonb) WHERE run_id = $1",
        &[uuid(run).into(), stream.into(), pgrx::JsonB(state).into()],
    )?;
    Ok(())
}
