//! How runs are requested by a person, a schedule or a webhook.

use std::time::Duration;

use uuid::Uuid;

use super::Kind;
use crate::error::Result;
use crate::store::{Db, read_uuid, uuid};

/// Shortest time from the start of one sync to the start of the next when webhooks request them. Longer: changes arrive later.
/// Shorter: a busy account is called all the time.
const BETWEEN_ASKED: Duration = Duration::from_secs(5);

/// The sync of a connector that is queued or running.
pub fn active(db: &mut Db, connector: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "SELECT run_id FROM @extschema@.sync_runs
         WHERE connector_id = $1 AND state IN ('queued', 'running') AND kind = 'sync'",
        &[uuid(connector).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// The run of a connector that is running, or else the one that was queued first; a sync goes before others.
pub fn first_active(db: &mut Db, connector: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "SELECT run_id FROM @extschema@.sync_runs
         WHERE connector_id = $1 AND state IN ('queued', 'running') AND kind <> 'webhook'
         ORDER BY (state = 'running') DESC, (kind = 'sync') DESC, requested_at, backfill_step LIMIT 1",
        &[uuid(connector).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// The active sync of a connector, or the latest one if it ended after the snapshot of the caller's statement. That statement
/// saw the connector as due or running, and the sync is done by now. So a schedule that fires twice makes one run, whatever
/// the clock says.
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

/// Queues a sync. `None`: one is active already.
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

/// Queues a run of another kind than sync. A connector may have any number of them.
pub fn queue_other(db: &mut Db, connector: Uuid, kind: Kind) -> Result<Option<Uuid>> {
    let rows = db.run(
        "INSERT INTO @extschema@.sync_runs (connector_id, tenant_id, kind)
         SELECT c.connector_id, c.tenant_id, $2 FROM @extschema@.connectors c WHERE c.connector_id = $1
         RETURNING run_id",
        &[uuid(connector).into(), kind.word().into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// Locks a queued sync, so that it does not start before the caller's transaction ends.
pub fn lock_queued(db: &mut Db, connector: Uuid) -> Result<()> {
    db.run(
        "SELECT FROM @extschema@.sync_runs WHERE connector_id = $1 AND state = 'queued' AND kind = 'sync' FOR NO KEY UPDATE",
        &[uuid(connector).into()],
    )?;
    Ok(())
}

/// Whether a sync of a connector is running.
pub fn is_going(db: &mut Db, connector: Uuid) -> Result<bool> {
    let rows = db.run(
        "SELECT true FROM @extschema@.sync_runs WHERE connector_id = $1 AND state = 'running' AND kind = 'sync'",
        &[uuid(connector).into()],
    )?;
    Ok(rows.count > 0)
}

/// Queues a sync because something changed at the source, but no sooner than [`BETWEEN_ASKED`] after the last one started. A
/// sync that is running may have read the change or not, so another one follows it.
pub fn ask(db: &mut Db, connector: Uuid) -> Result<()> {
    db.run(
        "INSERT INTO @extschema@.sync_runs (connector_id, tenant_id, requested_by, retry_at, waiting_for)
         SELECT c.connector_id, c.tenant_id, 'webhook', CASE WHEN last.started_at > now() - make_interval(secs => $2) THEN last.started_at + make_interval(secs => $2) END,
            CASE WHEN last.started_at > now() - make_interval(secs => $2) THEN 'more changes' END
         FROM @extschema@.connectors c
            -- Whether it succeeded or not.
            LEFT JOIN LATERAL (
                SELECT r.started_at FROM @extschema@.sync_runs r WHERE r.connector_id = c.connector_id AND r.kind = 'sync'
                ORDER BY r.requested_at DESC LIMIT 1) AS last ON true
         WHERE c.connector_id = $1 AND c.status = 'active'
         ON CONFLICT (connector_id) WHERE state IN ('queued', 'running') AND kind = 'sync'
         -- A started sync that waits does not read again what it has read.
         DO UPDATE SET asked_again = true WHERE sync_runs.state = 'running' OR sync_runs.started_at IS NOT NULL",
        &[uuid(connector).into(), BETWEEN_ASKED.as_secs_f64().into()],
    )?;
    Ok(())
}

/// Whether another sync was requested while this run was running.
pub fn is_asked_again(db: &mut Db, run: Uuid) -> Result<bool> {
    db.run(
        "SELECT asked_again FROM @extschema@.sync_runs WHERE run_id = $1",
        &[uuid(run).into()],
    )?
    .need(0, 1)
}
