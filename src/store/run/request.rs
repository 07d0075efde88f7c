//! Runs are asked for: by a person, a schedule, a webhook.

use std::time::Duration;

use uuid::Uuid;

use super::Kind;
use crate::error::Result;
use crate::store::{Db, read_uuid, uuid};

/// Shortest time from the beginning of one sync to that of the next where webhooks ask for them. Longer: changes are seen
/// later. Shorter: a busy account is asked all the time.
const BETWEEN_ASKED: Duration = Duration::from_secs(5);

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

/// Something changed at the source: queues a sync, not sooner than a moment after the last one began; where one is going,
/// it may have read that already or not, and another one follows it.
pub fn ask(db: &mut Db, connector: Uuid) -> Result<()> {
    db.run(
        "INSERT INTO @extschema@.sync_runs (connector_id, tenant_id, requested_by, retry_at, waiting_for)
         SELECT c.connector_id, c.tenant_id, 'webhook', CASE WHEN c.last_sync_at > now() - make_interval(secs => $2) THEN c.last_sync_at + make_interval(secs => $2) END,
            CASE WHEN c.last_sync_at > now() - make_interval(secs => $2) THEN 'more changes' END
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
