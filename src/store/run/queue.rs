//! The queue: the runs that wait, and how a worker claims one.

use std::time::Duration;

use chrono::DateTime;
use connector_service_core::source::Span;
use uuid::Uuid;

use super::{Claimed, Kind, read_pairs};
use crate::error::Result;
use crate::store::{Db, Rows, read_uuid, tx, tx_as_superuser, uuid};

/// The runs whose wait is over, and their connectors. For use when [`end_waits`] fails for all of them.
pub fn waited(db: &mut Db) -> Result<Vec<(Uuid, Uuid)>> {
    let rows = db.run(
        "SELECT run_id, connector_id FROM @extschema@.sync_runs WHERE state = 'queued' AND retry_at <= now()",
        &[],
    )?;
    read_pairs(&rows)
}

/// Lets runs whose wait is over start: all of them, or one.
pub fn end_waits(db: &mut Db, only: Option<Uuid>) -> Result<u64> {
    let rows = db.run(
        // Rows that another session has locked are left for the next time: its transaction may stay open for long.
        "UPDATE @extschema@.sync_runs SET retry_at = NULL
         WHERE run_id IN (
            SELECT run_id FROM @extschema@.sync_runs WHERE state = 'queued' AND retry_at <= now() AND ($1::uuid IS NULL OR run_id = $1)
            FOR UPDATE SKIP LOCKED)",
        &[only.map(uuid).into()],
    )?;
    Ok(rows.count)
}

/// How long until the next waiting run may start, by the database's clock.
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

/// A bound for looking at the queue: no waiting run came into it before this time.
///
/// While a session keeps an old snapshot (a dump, a long report), the index of the queue keeps an entry for every run that has
/// waited since, and every poll would visit all of their rows. With a bound on `queued_at` it skips the entries.
#[derive(Debug, Clone, Copy)]
pub struct Horizon {
    /// Seconds of the database's clock.
    since: f64,
    /// When this bound was found, by the same clock.
    known_at: f64,
}

impl Horizon {
    /// No bound is known: the whole queue is read.
    pub const NONE: Self = Self {
        since: f64::NEG_INFINITY,
        known_at: f64::NEG_INFINITY,
    };

    /// Finds a later bound, starting at this one. A run that cannot be seen yet belongs to an open transaction. That transaction
    /// has had an id since it wrote, and the run came into the queue after it began.
    pub fn find(self) -> Result<Self> {
        let (known_at, open_since) = tx_as_superuser(|db| {
            let rows = db.run(
                "SELECT extract(epoch FROM clock_timestamp())::float8,
                    extract(epoch FROM least(clock_timestamp() - make_interval(secs => $1),
                        (SELECT min(coalesce(a.xact_start, '-infinity')) FROM pg_stat_activity a
                         WHERE a.datname = current_database() AND a.backend_xid IS NOT NULL),
                        (SELECT '-infinity'::timestamptz FROM pg_prepared_xacts p WHERE p.database = current_database() LIMIT 1)))::float8",
                &[BEFORE_ITS_ID.as_secs_f64().into()],
            )?;
            Ok((rows.need(0, 1)?, rows.need::<f64>(0, 2)?))
        })?;
        // In a new transaction, whose snapshot has what committed meanwhile.
        let first = tx(|db| {
            let rows = db.run(
                "SELECT extract(epoch FROM min(queued_at))::float8 FROM @extschema@.sync_runs
                 WHERE state = 'queued' AND retry_at IS NULL AND queued_at >= to_timestamp($1)",
                &[self.since.into()],
            )?;
            rows.get::<f64>(0, 1)
        })?;
        // A float rounds by less than a microsecond.
        let since = first.map_or(open_since, |first| open_since.min(first - 1e-5));
        Ok(Self { since, known_at })
    }
}

/// Longest time from the moment that a row's `queued_at` is set until its transaction has an id. Shorter: a run whose INSERT
/// waits in a user's trigger is found only by the next full scan. Longer: more entries are read.
const BEFORE_ITS_ID: Duration = Duration::from_secs(10);

/// The result of a quick look at the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    Nothing,
    Some,
    /// The clock was set back, so the horizon is not valid.
    ClockWasSetBack,
}

/// Whether any run waits to be started.
pub fn waiting(db: &mut Db, horizon: Horizon) -> Result<Waiting> {
    let rows = db.run(
        "SELECT clock_timestamp() < to_timestamp($2),
            EXISTS (SELECT FROM @extschema@.sync_runs WHERE state = 'queued' AND retry_at IS NULL AND queued_at >= to_timestamp($1))",
        &[horizon.since.into(), horizon.known_at.into()],
    )?;
    Ok(match (rows.need(0, 1)?, rows.need(0, 2)?) {
        (true, _) => Waiting::ClockWasSetBack,
        (false, true) => Waiting::Some,
        (false, false) => Waiting::Nothing,
    })
}

/// The first tenant from this one on, in the order of their ids, that has a waiting run.
pub fn next_tenant(db: &mut Db, from: Uuid, horizon: Horizon) -> Result<Option<Uuid>> {
    let rows = db.run(
        "SELECT tenant_id FROM @extschema@.sync_runs
         WHERE state = 'queued' AND retry_at IS NULL AND tenant_id >= $1 AND queued_at >= to_timestamp($2)
         ORDER BY tenant_id LIMIT 1",
        &[uuid(from).into(), horizon.since.into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// The oldest run of tenant $1 that worker $2 may claim: of kinds $3, of a connector that is not in $5, queued since $6. $4: no
/// other worker runs.
macro_rules! oldest {
    () => {
        "SELECT r.run_id, r.connector_id FROM @extschema@.sync_runs r
            WHERE r.state = 'queued' AND r.retry_at IS NULL AND r.tenant_id = $1 AND r.kind = ANY ($3)
                AND ($4 OR (SELECT count(*) FROM @extschema@.sync_runs o WHERE o.tenant_id = r.tenant_id AND o.state = 'running' AND o.worker <> $2) = 0)
                AND (SELECT count(*) FROM @extschema@.sync_runs o WHERE o.connector_id = r.connector_id AND o.state = 'running') = 0
                AND (r.kind NOT IN ('sync', 'backfill')
                    OR (SELECT c.status FROM @extschema@.connectors c WHERE c.connector_id = r.connector_id) <> 'paused')
                AND r.connector_id <> ALL ($5) AND r.queued_at >= to_timestamp($6)
            ORDER BY (r.kind = 'backfill'), r.requested_at LIMIT 1"
    };
}

/// The run that [`claim`] would claim, and its connector.
pub fn candidate(
    db: &mut Db,
    tenant: Uuid,
    (worker, is_alone): (i32, bool),
    kinds: &[Kind],
    aside: &[Uuid],
    horizon: Horizon,
) -> Result<Option<(Uuid, Uuid)>> {
    let rows = db.run(
        oldest!(),
        &[
            uuid(tenant).into(),
            worker.into(),
            of_kinds(kinds).into(),
            is_alone.into(),
            uuids(aside).into(),
            horizon.since.into(),
        ],
    )?;
    Ok(read_pairs(&rows)?.pop())
}

/// Claims a run of a tenant: the oldest one of these kinds, backfills last. Nothing is claimed while another worker has runs of
/// the tenant, so that one worker keeps the rate limits of its accounts. A connector has one run at a time: if two asked for
/// a token at once, each would make the other's refresh token invalid. The conditions are scalar subqueries, not joins: the
/// index gives the oldest runs first, and a planner without statistics would join all waiting runs. Skipped connectors are
/// left out, and connectors for which a login may still be in flight.
pub fn claim(
    db: &mut Db,
    tenant: Uuid,
    token: Uuid,
    (worker, is_alone): (i32, bool),
    kinds: &[Kind],
    aside: &[Uuid],
    horizon: Horizon,
) -> Result<Option<Claimed>> {
    let rows = db.run(
        concat!(
            "WITH waiting AS MATERIALIZED (",
            oldest!(),
            " FOR UPDATE SKIP LOCKED)
         UPDATE @extschema@.sync_runs r
         SET state = 'running', token = $7, worker = $2, attempt = r.attempt + 1, heartbeat_at = coalesce(r.heartbeat_at, clock_timestamp()), waiting_for = NULL,
             started_at = coalesce(r.started_at, clock_timestamp())
         FROM waiting, @extschema@.connectors c
         WHERE r.run_id = waiting.run_id AND c.connector_id = r.connector_id AND c.installation_id = (SELECT i.installation_id FROM @extschema@.installation i)
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
            horizon.since.into(),
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

fn of_kinds(kinds: &[Kind]) -> Vec<&'static str> {
    kinds.iter().map(|kind| kind.word()).collect()
}

fn uuids(ids: &[Uuid]) -> Vec<pgrx::Uuid> {
    ids.iter().map(|id| uuid(*id)).collect()
}
