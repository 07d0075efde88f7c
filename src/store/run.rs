//! `sync_runs`: from queued to its end.
//!
//! A run that is going belongs to one worker by its fencing token. Every write of the worker names run, token
//! and the state `running`; where that finds no row, the run was cancelled, deleted or taken, and the whole
//! transaction is undone.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use connector_service_core::error::Failure;
use connector_service_core::record::Window;
use connector_service_core::source::Span;
use uuid::Uuid;

use super::words::{in_words, words};
use super::{Db, Rows, read_uuid, uuid};
use crate::error::{Error, Result};

/// Shortest time from the beginning of one sync to that of the next where webhooks ask for them. Longer: changes are seen
/// later. Shorter: a busy account is asked all the time.
const BETWEEN_ASKED: Duration = Duration::from_secs(5);

/// A run that this worker took up.
pub struct Claimed {
    pub run: Uuid,
    pub connector: Uuid,
    pub tenant: Uuid,
    pub kind: Kind,
    pub source: String,
    pub config: String,
    pub credentials: String,
    pub now: DateTime<Utc>,
    /// Of a backfill.
    pub span: Option<Span>,
}

/// What a run is for. The words stand in `sync_runs.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Sync,
    Backfill,
    Upload,
    Check,
    Preview,
    /// What was pushed within an hour. Never queued.
    Webhook,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Sync => "sync",
            Kind::Backfill => "backfill",
            Kind::Upload => "upload",
            Kind::Check => "check",
            Kind::Preview => "preview",
            Kind::Webhook => "webhook",
        }
    }

    /// What other parts queue is taken for a sync.
    fn read(word: &str) -> Kind {
        match word {
            "backfill" => Kind::Backfill,
            "upload" => Kind::Upload,
            "check" => Kind::Check,
            "preview" => Kind::Preview,
            _ => Kind::Sync,
        }
    }
}

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

/// The run of a connector that is queued or going.
pub fn active(db: &mut Db, connector: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "SELECT run_id FROM @extschema@.sync_runs
         WHERE connector_id = $1 AND state IN ('queued', 'running') AND kind = 'sync'",
        &[uuid(connector).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// The same, or the latest one where the caller's statement did not see that it ended: by what the caller saw it was due,
/// or being done, and now it is done. A schedule that fires twice thus makes one run, whatever a clock says of what came
/// first.
pub fn asked_for(db: &mut Db, connector: Uuid) -> Result<Option<Uuid>> {
    if let Some(run) = active(db, connector)? {
        return Ok(Some(run));
    }
    let rows = db.run(
        "SELECT CASE WHEN state IN ('succeeded', 'failed') THEN run_id END
         FROM @extschema@.sync_runs WHERE connector_id = $1 AND kind = 'sync' ORDER BY requested_at DESC LIMIT 1",
        &[uuid(connector).into()],
    )?;
    let Some(ended) = rows.get::<pgrx::Uuid>(0, 1)? else {
        return Ok(None);
    };
    let seen = db.run_as_seen(
        "SELECT FROM @extschema@.sync_runs WHERE run_id = $1 AND state NOT IN ('queued', 'running')",
        &[ended.into()],
    )?;
    Ok((seen.count == 0).then(|| read_uuid(ended)))
}

/// Queues a run. `None`: one was there already.
pub fn queue(db: &mut Db, connector: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "INSERT INTO @extschema@.sync_runs (connector_id, tenant_id)
         SELECT c.connector_id, c.tenant_id FROM @extschema@.connectors c WHERE c.connector_id = $1
         ON CONFLICT (connector_id) WHERE state IN ('queued', 'running') AND kind = 'sync' DO NOTHING
         RETURNING run_id",
        &[uuid(connector).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// Queues a run that is no sync; there may be any number of them.
pub fn queue_other(db: &mut Db, connector: Uuid, kind: Kind) -> Result<Option<Uuid>> {
    let rows = db.run(
        "INSERT INTO @extschema@.sync_runs (connector_id, tenant_id, kind)
         SELECT c.connector_id, c.tenant_id, $2 FROM @extschema@.connectors c WHERE c.connector_id = $1
         RETURNING run_id",
        &[uuid(connector).into(), kind.word().into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// Whether the caller may see a run.
pub fn is_visible(db: &mut Db, run: Uuid) -> Result<bool> {
    let rows = db.run(
        "SELECT true FROM @extschema@.sync_runs WHERE run_id = $1",
        &[uuid(run).into()],
    )?;
    Ok(rows.count > 0)
}

/// Keeps a sync that is queued from being taken up before the caller's transaction ends.
pub fn hold_queued(db: &mut Db, connector: Uuid) -> Result<()> {
    db.run(
        "SELECT FROM @extschema@.sync_runs WHERE connector_id = $1 AND state = 'queued' AND kind = 'sync' FOR NO KEY UPDATE",
        &[uuid(connector).into()],
    )?;
    Ok(())
}

/// Whether a sync of a connector is going.
pub fn is_going(db: &mut Db, connector: Uuid) -> Result<bool> {
    let rows = db.run(
        "SELECT true FROM @extschema@.sync_runs WHERE connector_id = $1 AND state = 'running' AND kind = 'sync'",
        &[uuid(connector).into()],
    )?;
    Ok(rows.count > 0)
}

/// Ends a run that is queued or going, and returns whose it was. `None`: it had ended already, or is not known.
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

/// The runs whose wait is over, and their connectors, where [`end_waits`] is refused as a whole.
pub fn waited(db: &mut Db) -> Result<Vec<(Uuid, Uuid)>> {
    let rows = db.run(
        "SELECT run_id, connector_id FROM @extschema@.sync_runs WHERE state = 'queued' AND retry_at <= now()",
        &[],
    )?;
    read_pairs(&rows)
}

fn read_pairs(rows: &Rows) -> Result<Vec<(Uuid, Uuid)>> {
    (0..rows.count)
        .map(|row| Ok((read_uuid(rows.need(row, 1)?), read_uuid(rows.need(row, 2)?))))
        .collect()
}

/// Lets runs go on whose wait is over: all of them, or one.
pub fn end_waits(db: &mut Db, only: Option<Uuid>) -> Result<u64> {
    let rows = db.run(
        // What another session has locked is left for the next time: its transaction may stay open for long.
        "UPDATE @extschema@.sync_runs SET retry_at = NULL
         WHERE run_id IN (
            SELECT run_id FROM @extschema@.sync_runs WHERE state = 'queued' AND retry_at <= now() AND ($1::uuid IS NULL OR run_id = $1)
            FOR UPDATE SKIP LOCKED)",
        &[only.map(uuid).into()],
    )?;
    Ok(rows.count)
}

/// The first tenant from this one on, in the order of their ids, that has a run to be taken up.
pub fn next_tenant(db: &mut Db, from: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "SELECT tenant_id FROM @extschema@.sync_runs WHERE state = 'queued' AND retry_at IS NULL AND tenant_id >= $1
         ORDER BY tenant_id LIMIT 1",
        &[uuid(from).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// The oldest run of tenant $1 that worker $2 may take up, of kinds $3, its connector not among $5. $4: no other worker runs.
macro_rules! waiting {
    () => {
        "SELECT r.run_id, r.connector_id FROM @extschema@.sync_runs r
            WHERE r.state = 'queued' AND r.retry_at IS NULL AND r.tenant_id = $1 AND r.kind = ANY ($3)
                AND ($4 OR (SELECT count(*) FROM @extschema@.sync_runs o WHERE o.tenant_id = r.tenant_id AND o.state = 'running' AND o.worker <> $2) = 0)
                AND (SELECT count(*) FROM @extschema@.sync_runs o WHERE o.connector_id = r.connector_id AND o.state = 'running') = 0
                AND (r.kind NOT IN ('sync', 'backfill')
                    OR (SELECT c.status FROM @extschema@.connectors c WHERE c.connector_id = r.connector_id) <> 'paused')
                AND r.connector_id <> ALL ($5)
            ORDER BY (r.kind = 'backfill'), r.requested_at LIMIT 1"
    };
}

/// The run that [`claim`] would take up, and its connector.
pub fn candidate(
    db: &mut Db,
    tenant: Uuid,
    (worker, is_alone): (i32, bool),
    kinds: &[Kind],
    aside: &[Uuid],
) -> Result<Option<(Uuid, Uuid)>> {
    let rows = db.run(
        waiting!(),
        &[
            uuid(tenant).into(),
            worker.into(),
            of_kinds(kinds).into(),
            is_alone.into(),
            uuids(aside).into(),
        ],
    )?;
    Ok(read_pairs(&rows)?.pop())
}

fn of_kinds(kinds: &[Kind]) -> Vec<&'static str> {
    kinds.iter().map(|kind| kind.word()).collect()
}

fn uuids(ids: &[Uuid]) -> Vec<pgrx::Uuid> {
    ids.iter().map(|id| uuid(*id)).collect()
}

/// A run that cannot be taken up fails. Returns whether it was a sync.
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

/// Takes up a run of a tenant: the oldest one of these kinds, a backfill last; nothing while another worker has runs of
/// the tenant, so that the pace and the limits of its accounts are in one hand. Of a connector one at a time: two that ask
/// for a token at once would each take the other's refresh token away. What is asked of each candidate is a scalar, not a
/// join: the index gives the oldest ones first, and a planner that knows no sizes yet would join all that wait. Connectors
/// that are put aside are passed over, and those for which a login may outlive its run.
pub fn claim(
    db: &mut Db,
    tenant: Uuid,
    token: Uuid,
    (worker, is_alone): (i32, bool),
    kinds: &[Kind],
    aside: &[Uuid],
) -> Result<Option<Claimed>> {
    let rows = db.run(
        concat!(
            "WITH waiting AS MATERIALIZED (",
            waiting!(),
            " FOR UPDATE SKIP LOCKED)
         UPDATE @extschema@.sync_runs r
         SET state = 'running', token = $6, worker = $2, attempt = r.attempt + 1, heartbeat_at = coalesce(r.heartbeat_at, clock_timestamp()), waiting_for = NULL,
             started_at = coalesce(r.started_at, clock_timestamp())
         FROM waiting, @extschema@.connectors c
         WHERE r.run_id = waiting.run_id AND c.connector_id = r.connector_id
         RETURNING r.run_id, r.connector_id, r.tenant_id, c.type, c.config::text, c.credentials::text,
            (extract(epoch FROM now()) * 1000000)::bigint, r.kind,
            (extract(epoch FROM r.window_from) * 1000000)::bigint, (extract(epoch FROM r.window_to) * 1000000)::bigint, r.backfill_step"
        ),
        &[
            uuid(tenant).into(),
            worker.into(),
            of_kinds(kinds).into(),
            is_alone.into(),
            uuids(aside).into(),
            uuid(token).into(),
        ],
    )?;
    (rows.count > 0).then(|| read_claimed(&rows)).transpose()
}

fn read_claimed(rows: &Rows) -> Result<Claimed> {
    let moment = DateTime::from_timestamp_micros;
    let kind = Kind::read(&rows.need::<String>(0, 8)?);
    let (from, to) = (rows.get::<i64>(0, 9)?, rows.get::<i64>(0, 10)?);
    let step: Option<i32> = rows.get(0, 11)?;
    let span = from.and_then(moment).zip(to.and_then(moment));
    let span = span.filter(|_| kind == Kind::Backfill);
    Ok(Claimed {
        run: read_uuid(rows.need(0, 1)?),
        connector: read_uuid(rows.need(0, 2)?),
        tenant: read_uuid(rows.need(0, 3)?),
        source: rows.need(0, 4)?,
        config: rows.need(0, 5)?,
        credentials: rows.need(0, 6)?,
        now: moment(rows.need(0, 7)?).unwrap_or_default(),
        kind,
        span: span.map(|(from, to)| Span {
            from,
            to,
            is_first: step == Some(1),
        }),
    })
}

/// Adds a page to its run; fails with [`Error::Fenced`] if the run is not this worker's any more.
pub fn add_page(db: &mut Db, run: Uuid, token: Uuid, counts: Counts, window: Window) -> Result<()> {
    let n = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let micros = |at: DateTime<Utc>| at.timestamp_micros() as f64 / 1e6;
    let rows = db.run(
        "UPDATE @extschema@.sync_runs
         SET pages = pages + 1, received = received + $3, inserted = inserted + $4, updated = updated + $5,
             unchanged = unchanged + $6, quarantined = quarantined + $7, bytes = bytes + $8, deleted = deleted + $11,
             waiting_for = NULL, retry_at = NULL,
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
        ],
    )?;
    if rows.count == 0 {
        Err(Error::Fenced(run))
    } else {
        Ok(())
    }
}

/// The run that counts what is pushed to a connector in this hour. It has ended whenever one looks: nothing of it is open.
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
    // Deleted meanwhile.
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

/// Something changed at the source: queues a sync, not sooner than a moment after the last one began; where one is going,
/// it may have read that already or not, and another one follows it.
pub fn ask(db: &mut Db, connector: Uuid) -> Result<()> {
    db.run(
        "INSERT INTO @extschema@.sync_runs (connector_id, tenant_id, requested_by, retry_at, waiting_for)
         SELECT c.connector_id, c.tenant_id, 'webhook', CASE WHEN c.last_sync_at > now() - make_interval(secs => $2) THEN c.last_sync_at + make_interval(secs => $2) END,
            CASE WHEN c.last_sync_at > now() - make_interval(secs => $2) THEN 'more that changes' END
         FROM @extschema@.connectors c WHERE c.connector_id = $1 AND c.status = 'active'
         ON CONFLICT (connector_id) WHERE state IN ('queued', 'running') AND kind = 'sync'
         -- One that waits in its middle does not read again what it has read.
         DO UPDATE SET asked_again = true WHERE sync_runs.state = 'running' OR sync_runs.started_at IS NOT NULL",
        &[uuid(connector).into(), BETWEEN_ASKED.as_secs_f64().into()],
    )?;
    Ok(())
}

/// Whether more was pushed while a run was going.
pub fn is_asked_again(db: &mut Db, run: Uuid) -> Result<bool> {
    db.run(
        "SELECT asked_again FROM @extschema@.sync_runs WHERE run_id = $1",
        &[uuid(run).into()],
    )?
    .need(0, 1)
}

/// What a run waits for whose records are stored, while the upkeep process derives and sums.
pub const FOR_METRICS: &str = "its metrics";

/// Tenants whose records are being stored: they sum their days when a run ends, and need the lock of their facts all the time.
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
            (&*words(why)).into(),
            wait.as_secs_f64().into(),
        ],
    )?;
    Ok(())
}

/// Most warnings of one run. More: a stream that warns with every page fills the row.
const MOST_WARNINGS: i32 = 20;

/// Adds a warning to a run, once.
pub fn warn(db: &mut Db, run: Uuid, token: Uuid, warning: &str) -> Result<()> {
    db.run(
        "UPDATE @extschema@.sync_runs SET warnings = warnings || $3::text
         WHERE run_id = $1 AND token = $2 AND state = 'running' AND $3 <> ALL (warnings) AND cardinality(warnings) < $4",
        &[
            uuid(run).into(),
            uuid(token).into(),
            (&*words(warning)).into(),
            MOST_WARNINGS.into(),
        ],
    )?;
    Ok(())
}

/// Adds what was found of a stream to the report of a check or preview.
pub fn report(db: &mut Db, run: Uuid, token: Uuid, found: serde_json::Value) -> Result<()> {
    db.run(
        "UPDATE @extschema@.sync_runs SET report = coalesce(report, '[]') || jsonb_build_array($3), heartbeat_at = clock_timestamp()
         WHERE run_id = $1 AND token = $2 AND state = 'running'",
        &[
            uuid(run).into(),
            uuid(token).into(),
            pgrx::JsonB(in_words(found)).into(),
        ],
    )?;
    Ok(())
}

/// Gives a run back to the queue until a pause is over: one that the vendor wants, or one after a failure that it may
/// survive. It goes on where it was committed. False: it has waited for too long by now, and is to fail. A file or a
/// window of a backfill has time: nothing comes after it that would do the same.
pub fn postpone(
    db: &mut Db,
    run: Uuid,
    token: Uuid,
    failure: &Failure,
    wait: Duration,
) -> Result<bool> {
    let rows = db.run(
        "UPDATE @extschema@.sync_runs
         SET state = 'queued', token = NULL, attempt = greatest(attempt - 1, 0),
             waits = waits + ($5 IN ('rate_limited', 'locked'))::integer, failures = failures + ($5 NOT IN ('rate_limited', 'locked'))::integer,
             waiting_for = $3, retry_at = now() + make_interval(secs => $4), error_code = $5, error_message = $3
         WHERE run_id = $1 AND token = $2 AND state = 'running'
            AND (kind IN ('backfill', 'upload') OR started_at > now() - interval '1 day')",
        &[
            uuid(run).into(),
            uuid(token).into(),
            (&*words(&failure.message)).into(),
            wait.as_secs_f64().into(),
            failure.code.word().into(),
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

/// How long until a waiting run may go on, by the database's clock.
pub fn next_waiting(db: &mut Db) -> Result<Option<Duration>> {
    let rows = db.run(
        "SELECT extract(epoch FROM retry_at - now())::float8 FROM @extschema@.sync_runs
         WHERE state = 'queued' AND retry_at > now() AND retry_at < 'infinity' ORDER BY retry_at LIMIT 1",
        &[],
    )?;
    Ok(rows
        .get::<f64>(0, 1)?
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

/// Adds what a mapping could not read to a run of which this transaction stored a page.
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

pub fn succeed(db: &mut Db, run: Uuid, token: Uuid) -> Result<()> {
    let rows = db.run(
        "UPDATE @extschema@.sync_runs
         SET state = 'succeeded', token = NULL, finished_at = greatest(clock_timestamp(), started_at), error_code = NULL, error_message = NULL,
             waiting_for = NULL, retry_at = NULL, progress = NULL
         WHERE run_id = $1 AND token = $2 AND state = 'running'",
        &[uuid(run).into(), uuid(token).into()],
    )?;
    if rows.count == 0 {
        Err(Error::Fenced(run))
    } else {
        Ok(())
    }
}

pub fn fail(db: &mut Db, run: Uuid, token: Uuid, failure: &Failure, wait: Duration) -> Result<()> {
    let rows = db.run(
        "UPDATE @extschema@.sync_runs
         SET state = 'failed', token = NULL, finished_at = greatest(clock_timestamp(), started_at), error_code = $3, error_message = $4,
             retry_at = CASE kind WHEN 'sync' THEN now() + make_interval(secs => $5) END, waiting_for = NULL
         WHERE run_id = $1 AND token = $2 AND state = 'running'",
        &[
            uuid(run).into(),
            uuid(token).into(),
            failure.code.word().into(),
            (&*words(&failure.message)).into(),
            wait.as_secs_f64().into(),
        ],
    )?;
    if rows.count == 0 {
        Err(Error::Fenced(run))
    } else {
        Ok(())
    }
}

/// Of which workers runs are going, those of this life of this worker aside.
pub fn workers_of_others(db: &mut Db, token: Uuid) -> Result<Vec<i32>> {
    let rows = db.run(
        "SELECT DISTINCT coalesce(worker, 1) FROM @extschema@.sync_runs WHERE state = 'running' AND token IS DISTINCT FROM $1",
        &[uuid(token).into()],
    )?;
    (0..rows.count).map(|row| rows.need(row, 1)).collect()
}

/// The runs that earlier lives of a worker left behind, and their connectors, where [`requeue_orphans`] is refused as a whole.
pub fn orphans(db: &mut Db, worker: i32, token: Uuid) -> Result<Vec<(Uuid, Uuid)>> {
    let rows = db.run(
        "SELECT run_id, connector_id FROM @extschema@.sync_runs
         WHERE state = 'running' AND coalesce(worker, 1) = $1 AND token IS DISTINCT FROM $2",
        &[worker.into(), uuid(token).into()],
    )?;
    read_pairs(&rows)
}

/// Gives every run that earlier lives of a worker left behind back to the queue. Exact, because the caller holds the
/// lock that a living worker of this number would hold, and is itself the life of this `token`. A run that ended
/// `most_attempts` workers is not taken up again. What another session has locked is left for the next time.
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
            (&*words(&failure.message)).into(),
            most_attempts.into(),
            uuid(token).into(),
            only.map(uuid).into(),
        ],
    )?;
    Ok(rows.count)
}

/// Ends the syncs of connectors that were paused, and gives their backfills back to the queue.
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

/// Which of these runs are no longer going under this token.
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

/// Whether more runs wait than were taken.
pub fn is_queue_empty(db: &mut Db) -> Result<bool> {
    Ok(db
        .run(
            "SELECT true FROM @extschema@.sync_runs WHERE state = 'queued' AND retry_at IS NULL LIMIT 1",
            &[],
        )?
        .count
        == 0)
}
