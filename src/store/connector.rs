//! `connectors`: which are due, and what a finished run means for them.

use std::time::Duration;

use connector_service_core::fetch::fingerprint;
use connector_service_core::secret::{Place, Secret, replace_text};
use connector_service_core::source::Rotated;
use serde_json::Value;
use uuid::Uuid;

use super::words::words;
use super::{Db, key, read_uuid, uuid};
use crate::error::Result;

/// What keeps a connector from being queued now.
#[derive(Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    Unknown,
    Paused,
    /// Another session is queueing it or changing its row at this very moment.
    Busy,
}

/// Whether the caller may see a connector: whoever may, may have it synced.
pub fn is_visible(db: &mut Db, connector: Uuid) -> Result<bool> {
    let rows = db.run(
        "SELECT true FROM @extschema@.connectors WHERE connector_id = $1",
        &[uuid(connector).into()],
    )?;
    Ok(rows.count > 0)
}

/// Whose a connector is.
pub fn tenant(db: &mut Db, connector: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "SELECT tenant_id FROM @extschema@.connectors WHERE connector_id = $1",
        &[uuid(connector).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// Locks a connector's row without waiting, so that no two sessions queue it at once and none can deadlock.
pub fn lock(db: &mut Db, connector: Uuid) -> Result<Readiness> {
    let rows = db.run(
        "SELECT status FROM @extschema@.connectors WHERE connector_id = $1 FOR NO KEY UPDATE SKIP LOCKED",
        &[uuid(connector).into()],
    )?;
    if let Some(status) = rows.get::<String>(0, 1)? {
        return Ok(if status == "paused" {
            Readiness::Paused
        } else {
            Readiness::Ready
        });
    }
    Ok(if is_visible(db, connector)? {
        Readiness::Busy
    } else {
        Readiness::Unknown
    })
}

pub fn is_paused(db: &mut Db, connector: Uuid) -> Result<bool> {
    let rows = db.run(
        "SELECT true FROM @extschema@.connectors WHERE connector_id = $1 AND status = 'paused'",
        &[uuid(connector).into()],
    )?;
    Ok(rows.count > 0)
}

/// Which connectors to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    All,
    /// Those of one frequency. The day begins at midnight, and its schedule at two.
    Of(&'static str),
    /// Only those whose last run failed: trying again is the worker's own affair, whoever keeps the schedule.
    FailedOnly,
}

/// Which of them.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    All,
    One(Uuid),
    AllBut(&'a [Uuid]),
}

impl Which<'_> {
    /// The only one, if there is one, and those that are left out.
    pub fn read(self) -> (Option<pgrx::Uuid>, Vec<pgrx::Uuid>) {
        match self {
            Which::All => (None, Vec::new()),
            Which::One(only) => (Some(uuid(only)), Vec::new()),
            Which::AllBut(aside) => (None, aside.iter().map(|id| uuid(*id)).collect()),
        }
    }
}

/// The connectors that [`queue_due`] would take, where it is refused as a whole.
pub fn due(db: &mut Db, due: Due, most: i64, aside: &[Uuid]) -> Result<Vec<Uuid>> {
    let (_, aside) = Which::AllBut(aside).read();
    let rows = db.run(
        "SELECT c.connector_id FROM @extschema@.connectors c
         WHERE (c.status = 'active' AND c.next_sync_at <= now() OR c.status = 'error' AND c.next_sync_at <= now())
            AND (c.failures > 0 OR $1) AND c.scheduler = 'database' AND c.connector_id <> ALL ($3::uuid[])
         ORDER BY c.next_sync_at LIMIT $2",
        &[
            (due != Due::FailedOnly).into(),
            most.into(),
            aside.into(),
        ],
    )?;
    (0..rows.count)
        .map(|row| Ok(read_uuid(rows.need(row, 1)?)))
        .collect()
}

/// Connectors that were found to be due.
#[derive(Default)]
pub struct Found {
    /// How many; those that had a sync already are among them.
    pub due: u64,
    pub queued: Vec<Uuid>,
}

/// Queues a run for the connectors that are due, the longest due first, at most so many of them. With its run a connector
/// is due at its next slot: what is queued already is not looked at again. Those that another session is queueing are
/// left to it. Safe from many sessions at once.
pub fn queue_due(
    db: &mut Db,
    due: Due,
    requested_by: &str,
    most: Option<i64>,
    which: Which,
) -> Result<Found> {
    let (only, aside) = which.read();
    let frequency = match due {
        Due::Of(frequency) => Some(frequency),
        Due::All | Due::FailedOnly => None,
    };
    let rows = db.run(
        "WITH due AS MATERIALIZED (
            SELECT c.connector_id, c.tenant_id, c.sync_frequency FROM @extschema@.connectors c
            WHERE (c.status = 'active' AND c.next_sync_at <= now() OR c.status = 'error' AND c.next_sync_at <= now())
              AND (c.failures > 0 OR $1) AND c.scheduler = 'database'
              AND ($5::uuid IS NULL OR c.connector_id = $5) AND c.connector_id <> ALL ($6::uuid[])
              AND ($3::text IS NULL OR c.sync_frequency = $3 AND ($3 = 'hourly' OR EXISTS (
                  SELECT FROM @extschema@.tenants t WHERE t.tenant_id = c.tenant_id AND (now() AT TIME ZONE t.timezone)::time >= '02:00')))
            ORDER BY c.next_sync_at LIMIT $4
            FOR NO KEY UPDATE OF c SKIP LOCKED),
         queued AS (
            INSERT INTO @extschema@.sync_runs (connector_id, tenant_id, requested_by)
            SELECT due.connector_id, due.tenant_id, $2 FROM due
            ON CONFLICT (connector_id) WHERE state IN ('queued', 'running') AND kind = 'sync' DO NOTHING
            RETURNING run_id, connector_id),
         taken AS (
            UPDATE @extschema@.connectors c
            SET next_sync_at = _connector_service.connector_service_next_slot(due.sync_frequency, t.timezone, now())
            FROM due, @extschema@.tenants t
            WHERE c.connector_id = due.connector_id AND t.tenant_id = due.tenant_id)
         SELECT queued.run_id FROM due LEFT JOIN queued USING (connector_id)",
        &[
            (due != Due::FailedOnly).into(),
            requested_by.into(),
            frequency.into(),
            most.into(),
            only.into(),
            aside.into(),
        ],
    )?;
    let mut found = Found {
        due: rows.count,
        queued: Vec::new(),
    };
    for row in 0..rows.count {
        found.queued.extend(rows.get(row, 1)?.map(read_uuid));
    }
    Ok(found)
}

/// What became of a refresh token that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Stored,
    /// Somebody has given the connector another one meanwhile, which stays.
    NotWanted,
    /// There is no such connector of the tenant any more.
    Gone,
    /// Another session has locked the row.
    Busy,
}

/// Stores a refresh token that a vendor replaced, sealed, in the place of the old one, whatever has become of the run.
/// Under the lock of the row, which is not waited for: a person who changes credentials meanwhile waits, and what a person
/// has changed before stays. `definition` is [`fingerprint`] of what the run was given.
pub fn keep(db: &mut Db, place: &Place, definition: &str, rotated: &Rotated) -> Result<Kept> {
    let rows = db.run(
        "SELECT c.credentials::text, c.config::text, c.type FROM @extschema@.connectors c
         WHERE c.connector_id = $1 AND c.tenant_id = $2 FOR NO KEY UPDATE SKIP LOCKED",
        &[uuid(place.connector).into(), uuid(place.tenant).into()],
    )?;
    if rows.count == 0 {
        return Ok(match tenant(db, place.connector)? == Some(place.tenant) {
            true => Kept::Busy,
            false => Kept::Gone,
        });
    }
    let keys = key::need(db)?;
    let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
    let sealed: Value = json(&rows.need::<String>(0, 1)?);
    let config: Value = json(&rows.need::<String>(0, 2)?);
    // Credentials without a token are good for this one only where config still has the one that it replaces.
    let is_in_config = fingerprint(&rows.need::<String>(0, 3)?, &config) == definition
        || has_text(&config, &rotated.old);
    let new = String::from_utf8_lossy(rotated.new.expose());
    let (path, texts) = (&rotated.path, (&rotated.old, &*new));
    let Some(credentials) = replace_text(&keys, place, &sealed, path, texts, is_in_config)? else {
        return Ok(Kept::NotWanted);
    };
    db.run(
        "UPDATE @extschema@.connectors SET credentials = $2 WHERE connector_id = $1",
        &[
            uuid(place.connector).into(),
            pgrx::JsonB(credentials).into(),
        ],
    )?;
    Ok(Kept::Stored)
}

fn has_text(value: &Value, text: &Secret) -> bool {
    match value {
        Value::String(held) => held.as_bytes() == text.expose(),
        Value::Array(items) => items.iter().any(|item| has_text(item, text)),
        Value::Object(fields) => fields.values().any(|field| has_text(field, text)),
        _ => false,
    }
}

/// A sync of a connector was queued: where it was due it is so again at its next slot.
pub fn take_slot(db: &mut Db, connector: Uuid) -> Result<()> {
    db.run(
        "UPDATE @extschema@.connectors c
         SET next_sync_at = _connector_service.connector_service_next_slot(c.sync_frequency, t.timezone, now())
         FROM @extschema@.tenants t
         WHERE c.connector_id = $1 AND t.tenant_id = c.tenant_id AND c.next_sync_at <= now()",
        &[uuid(connector).into()],
    )?;
    Ok(())
}

/// How long until the next connector is due, by the database's clock.
pub fn next_due(db: &mut Db, due: Due) -> Result<Option<Duration>> {
    let rows = db.run(
        "SELECT extract(epoch FROM least(
            (SELECT c.next_sync_at FROM @extschema@.connectors c WHERE c.status = 'active' AND c.next_sync_at > now() AND c.next_sync_at < 'infinity'
             AND (c.failures > 0 OR $1) AND c.scheduler = 'database' ORDER BY c.next_sync_at LIMIT 1),
            (SELECT c.next_sync_at FROM @extschema@.connectors c WHERE c.status = 'error' AND c.next_sync_at > now() AND c.next_sync_at < 'infinity'
             AND c.scheduler = 'database' ORDER BY c.next_sync_at LIMIT 1)) - now())::float8",
        &[(due == Due::All).into()],
    )?;
    Ok(rows
        .get::<f64>(0, 1)?
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

/// A run succeeded: the connector is due again at its next slot, and an error is healed, with the alert over it.
/// A pause stays. The next slot is behind the one that the run was for, also where the clock was set back meanwhile.
pub fn succeeded(db: &mut Db, connector: Uuid, run: Uuid) -> Result<()> {
    // By itself, and only where it is so: a statement that names the status has the whole row checked again.
    db.run(
        "UPDATE @extschema@.connectors SET status = 'active' WHERE connector_id = $1 AND status = 'error'",
        &[uuid(connector).into()],
    )?;
    db.run(
        "UPDATE @extschema@.connectors c
         SET last_sync_at = r.started_at, failures = 0, error_message = NULL,
             next_sync_at = _connector_service.connector_service_next_slot(c.sync_frequency, t.timezone, greatest(now(), r.requested_at))
         FROM @extschema@.sync_runs r, @extschema@.tenants t
         WHERE c.connector_id = $1 AND r.run_id = $2 AND t.tenant_id = c.tenant_id",
        &[uuid(connector).into(), uuid(run).into()],
    )?;
    db.run(
        "UPDATE @extschema@.data_quality_alerts SET resolved = true, resolved_by_data = true
         WHERE connector_id = $1 AND alert_type = 'freshness' AND NOT resolved_by_data AND alert_key LIKE 'freshness:%'",
        &[uuid(connector).into()],
    )?;
    Ok(())
}

/// A run failed. `mend`: a person must act, so the connector goes to `error` and is only probed.
pub fn failed(
    db: &mut Db,
    connector: Uuid,
    message: &str,
    mend: bool,
    wait: Duration,
) -> Result<()> {
    db.run(
        "UPDATE @extschema@.connectors
         SET failures = least(failures, 1000000) + 1, error_message = $2,
             status = CASE WHEN $3 AND status = 'active' THEN 'error' ELSE status END,
             next_sync_at = now() + make_interval(secs => $4)
         WHERE connector_id = $1",
        &[
            uuid(connector).into(),
            (&*words(message)).into(),
            mend.into(),
            wait.as_secs_f64().into(),
        ],
    )?;
    Ok(())
}

/// A file was stored, or why it was not. A file that is refused is no reason not to take another one.
pub fn uploaded(db: &mut Db, connector: Uuid, run: Uuid, problem: Option<&str>) -> Result<()> {
    let problem = problem.map(words);
    db.run(
        "UPDATE @extschema@.connectors c
         SET last_sync_at = CASE WHEN $3 IS NULL THEN r.started_at ELSE c.last_sync_at END, error_message = $3
         FROM @extschema@.sync_runs r WHERE c.connector_id = $1 AND r.run_id = $2",
        &[uuid(connector).into(), uuid(run).into(), problem.as_deref().into()],
    )?;
    Ok(())
}

/// Failed runs since the last success.
pub fn failures(db: &mut Db, connector: Uuid) -> Result<u32> {
    let rows = db.run(
        "SELECT failures FROM @extschema@.connectors WHERE connector_id = $1",
        &[uuid(connector).into()],
    )?;
    Ok(rows.get::<i32>(0, 1)?.unwrap_or(0).unsigned_abs())
}
