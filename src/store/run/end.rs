//! How a run ends, or goes back to the queue.

use std::time::Duration;

use connector_service_core::error::Failure;
use serde_json::Value;
use uuid::Uuid;

use super::read_pairs;
use crate::error::{Error, Result};
use crate::store::storable::{storable, storable_json};
use crate::store::{Db, read_uuid, uuid};

/// The streams of a run, and how those that it reached ended; see [`super::note_streams`].
pub struct Streams {
    pub plan: Value,
    pub ends: Value,
}

impl Streams {
    fn json(&self) -> [pgrx::JsonB; 2] {
        [&self.plan, &self.ends].map(|value| pgrx::JsonB(storable_json(value.clone())))
    }
}

pub fn succeed(db: &mut Db, run: Uuid, token: Uuid, streams: &Streams) -> Result<()> {
    let [plan, ends] = streams.json();
    let rows = db.run(
        concat!(
            "UPDATE @extschema@.sync_runs
         SET state = 'succeeded', token = NULL, finished_at = greatest(clock_timestamp(), started_at), error_code = NULL, error_message = NULL,
             waiting_for = NULL, retry_at = NULL, progress = NULL, streams = ",
            streams_at_end!("$3", "$4", "'ok'"),
            " WHERE run_id = $1 AND token = $2 AND state = 'running'"
        ),
        &[uuid(run).into(), uuid(token).into(), plan.into(), ends.into()],
    )?;
    if rows.count == 0 {
        Err(Error::Fenced(run))
    } else {
        Ok(())
    }
}

/// `wait`: until the connector is tried again; `None`: it is not tried again by itself.
pub fn fail(
    db: &mut Db,
    run: Uuid,
    token: Uuid,
    failure: &Failure,
    wait: Option<Duration>,
    streams: &Streams,
) -> Result<()> {
    let [plan, ends] = streams.json();
    let rows = db.run(
        concat!(
            "UPDATE @extschema@.sync_runs
         SET state = 'failed', token = NULL, finished_at = greatest(clock_timestamp(), started_at), error_code = $3, error_message = $4,
             retry_at = CASE kind WHEN 'sync' THEN now() + make_interval(secs => $5) END,
             waiting_for = NULL, streams = ",
            streams_at_end!("$6", "$7", "'skipped'"),
            " WHERE run_id = $1 AND token = $2 AND state = 'running'"
        ),
        &[
            uuid(run).into(),
            uuid(token).into(),
            failure.code.word().into(),
            (&*storable(&failure.message)).into(),
            wait.map(|wait| wait.as_secs_f64()).into(),
            plan.into(),
            ends.into(),
        ],
    )?;
    if rows.count == 0 {
        Err(Error::Fenced(run))
    } else {
        Ok(())
    }
}

/// Cancels a run that is queued or running, and returns its connector. `None`: it had already ended, or does not exist.
pub fn cancel(db: &mut Db, run: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "UPDATE @extschema@.sync_runs
         SET state = 'cancelled', token = NULL, finished_at = greatest(clock_timestamp(), started_at), error_code = 'cancelled',
             error_message = 'cancelled by ' || session_user
         WHERE run_id = $1 AND state IN ('queued', 'running') RETURNING connector_id",
        &[uuid(run).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// Fails a run that cannot be started. Returns whether it was a sync.
pub fn refuse(db: &mut Db, run: Uuid, failure: &Failure) -> Result<bool> {
    let rows = db.run(
        "UPDATE @extschema@.sync_runs
         SET state = 'failed', started_at = coalesce(started_at, clock_timestamp()), finished_at = greatest(clock_timestamp(), started_at),
             error_code = $2, error_message = $3, waiting_for = NULL, retry_at = NULL
         WHERE run_id = $1 AND state = 'queued' RETURNING kind = 'sync'",
        &[
            uuid(run).into(),
            failure.code.word().into(),
            failure.message.as_str().into(),
        ],
    )?;
    Ok(rows.get(0, 1)?.unwrap_or(false))
}

/// Gives a run back to the queue until a pause is over. The vendor wants the pause, or it follows a failure that may pass. The
/// run then continues where it committed. False: it has waited too long, and must fail. Uploads and backfill windows may
/// wait for any time: no later run does their work.
pub fn postpone(
    db: &mut Db,
    run: Uuid,
    token: Uuid,
    failure: &Failure,
    wait: Duration,
    streams: &Streams,
) -> Result<bool> {
    let [plan, ends] = streams.json();
    let rows = db.run(
        concat!(
            "UPDATE @extschema@.sync_runs
         SET state = 'queued', token = NULL, attempt = greatest(attempt - 1, 0),
             waits = waits + ($5 IN ('rate_limited', 'locked'))::integer, failures = failures + ($5 NOT IN ('rate_limited', 'locked'))::integer,
             waiting_for = $3, retry_at = now() + make_interval(secs => $4), error_code = $5, error_message = $3, streams = ",
            streams_at_end!("$6", "$7", "'waiting'"),
            " WHERE run_id = $1 AND token = $2 AND state = 'running'
            AND (kind IN ('backfill', 'upload') OR started_at > now() - interval '1 day')"
        ),
        &[
            uuid(run).into(),
            uuid(token).into(),
            (&*storable(&failure.message)).into(),
            wait.as_secs_f64().into(),
            failure.code.word().into(),
            plan.into(),
            ends.into(),
        ],
    )?;
    Ok(rows.count > 0)
}

/// How often a run went back to the queue because the vendor wanted a pause.
pub fn waits(db: &mut Db, run: Uuid) -> Result<u32> {
    let rows = db.run(
        "SELECT waits FROM @extschema@.sync_runs WHERE run_id = $1",
        &[uuid(run).into()],
    )?;
    Ok(rows.get::<i32>(0, 1)?.unwrap_or(0).unsigned_abs())
}

/// How often a run went back to the queue after a failure.
pub fn failures(db: &mut Db, run: Uuid) -> Result<u32> {
    let rows = db.run(
        "SELECT failures FROM @extschema@.sync_runs WHERE run_id = $1",
        &[uuid(run).into()],
    )?;
    Ok(rows.get::<i32>(0, 1)?.unwrap_or(0).unsigned_abs())
}

/// Cancels the syncs of connectors that were paused, and gives their backfills back to the queue.
pub fn end_paused(db: &mut Db, runs: Vec<Uuid>, token: Uuid) -> Result<()> {
    let runs: Vec<pgrx::Uuid> = runs.into_iter().map(uuid).collect();
    db.run(
        "UPDATE @extschema@.sync_runs r
         SET token = NULL, waiting_for = NULL, retry_at = NULL,
             state = CASE r.kind WHEN 'sync' THEN 'cancelled' ELSE 'queued' END,
             finished_at = CASE r.kind WHEN 'sync' THEN greatest(clock_timestamp(), r.started_at) END,
             attempt = greatest(r.attempt - 1, 0), error_code = 'cancelled', error_message = 'the connector was paused'
         WHERE r.run_id = ANY ($1) AND r.token = $2 AND r.state = 'running' AND r.kind IN ('sync', 'backfill')
            AND (SELECT c.status FROM @extschema@.connectors c WHERE c.connector_id = r.connector_id) = 'paused'",
        &[runs.into(), uuid(token).into()],
    )?;
    Ok(())
}

/// The workers that have running runs, without the runs of this worker's current process.
pub fn workers_of_others(db: &mut Db, token: Uuid) -> Result<Vec<i32>> {
    let rows = db.run(
        "SELECT DISTINCT coalesce(worker, 1) FROM @extschema@.sync_runs WHERE state = 'running' AND token IS DISTINCT FROM $1",
        &[uuid(token).into()],
    )?;
    (0..rows.count).map(|row| rows.need(row, 1)).collect()
}

/// The runs that earlier processes of a worker left behind, and their connectors. For use when [`requeue_orphans`] fails for
/// all of them.
pub fn orphans(db: &mut Db, worker: i32, token: Uuid) -> Result<Vec<(Uuid, Uuid)>> {
    let rows = db.run(
        "SELECT run_id, connector_id FROM @extschema@.sync_runs
         WHERE state = 'running' AND coalesce(worker, 1) = $1 AND token IS DISTINCT FROM $2",
        &[worker.into(), uuid(token).into()],
    )?;
    read_pairs(&rows)
}

/// Gives every run that earlier processes of a worker left behind back to the queue. This is exact: the caller holds the lock
/// that a living worker of this number would hold, and its own runs have `token`. A run during which `most_attempts` workers
/// ended is not started again. Rows that another session has locked are left for the next time.
pub fn requeue_orphans(
    db: &mut Db,
    worker: i32,
    token: Uuid,
    failure: &Failure,
    most_attempts: i32,
    only: Option<Uuid>,
) -> Result<u64> {
    let rows = db.run(
        "UPDATE @extschema@.sync_runs
         SET token = NULL, error_code = $2, error_message = $3, waiting_for = NULL, retry_at = NULL,
             state = CASE WHEN attempt < $4 THEN 'queued' ELSE 'failed' END,
             finished_at = CASE WHEN attempt < $4 THEN NULL ELSE greatest(clock_timestamp(), started_at) END
         WHERE run_id IN (
            SELECT run_id FROM @extschema@.sync_runs
            WHERE state = 'running' AND coalesce(worker, 1) = $1 AND token IS DISTINCT FROM $5
                AND ($6::uuid IS NULL OR run_id = $6) FOR UPDATE SKIP LOCKED)",
        &[
            worker.into(),
            failure.code.word().into(),
            (&*storable(&failure.message)).into(),
            most_attempts.into(),
            uuid(token).into(),
            only.map(uuid).into(),
        ],
    )?;
    Ok(rows.count)
}
