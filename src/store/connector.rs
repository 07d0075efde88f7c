//! `connectors`: which ones are due, and what the end of a run changes in them.

use std::time::Duration;

use connector_service_core::fetch::fingerprint;
use connector_service_core::secret::{Place, Secret, replace_text};
use connector_service_core::source::Rotated;
use serde_json::Value;
use uuid::Uuid;

use super::schedule::Covered;
use super::storable::storable;
use super::{Db, key, read_uuid, uuid};
use crate::error::Result;

/// Whether a connector can be queued now, or why not.
#[derive(Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    Unknown,
    Paused,
    /// Another session is queueing it, or changing its row.
    Busy,
}

/// Whether the caller may see a connector. Then the caller may also sync it.
pub fn is_visible(db: &mut Db, connector: Uuid) -> Result<bool> {
    let rows = db.run(
        "SELECT true FROM @extschema@.connectors WHERE connector_id = $1",
        &[uuid(connector).into()],
    )?;
    Ok(rows.count > 0)
}

/// The connectors of this name that the caller sees, with their names as they are written.
pub fn named(db: &mut Db, name: &str) -> Result<Vec<(Uuid, String)>> {
    // As the trigger of `connectors` makes name_key.
    let marks = [' ', '\t', '\n', '\r', '\u{c}', '\u{b}'];
    let key = name.trim_matches(marks).to_ascii_lowercase();
    let rows = db.run(
        "SELECT c.connector_id, c.name FROM @extschema@.connectors c
         WHERE c.name_key = $1
            OR c.name_key IS NULL AND c.deleting_since IS NULL AND lower(btrim(c.name, E' \\t\\n\\r\\f\\v') COLLATE \"C\") = $1
         ORDER BY c.created_at LIMIT 10",
        &[key.into()],
    )?;
    (0..rows.count)
        .map(|row| Ok((read_uuid(rows.need(row, 1)?), rows.need(row, 2)?)))
        .collect()
}

/// Names that the caller sees, for a suggestion.
pub fn names(db: &mut Db) -> Result<Vec<String>> {
    let rows = db.run(
        "SELECT DISTINCT c.name FROM @extschema@.connectors c WHERE c.deleting_since IS NULL LIMIT 5000",
        &[],
    )?;
    (0..rows.count).map(|row| rows.need(row, 1)).collect()
}

/// The tenant of a connector.
pub fn tenant(db: &mut Db, connector: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "SELECT tenant_id FROM @extschema@.connectors WHERE connector_id = $1",
        &[uuid(connector).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// Locks a connector's row without waiting, so that no two sessions queue it at once and no deadlock can occur.
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

/// The kind of due connectors to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    All,
    /// Connectors of one frequency. The day begins at midnight, and its schedule at 02:00.
    Of(&'static str),
    /// What pg_cron does not queue: connectors of other frequencies than these, those that are due at once, and those whose last
    /// run failed.
    AllBut(Covered),
}

impl Due {
    /// The frequencies of which only the connectors are taken that failed or are due at once.
    fn left_to_cron(self) -> Vec<&'static str> {
        match self {
            Due::AllBut(covered) => covered.names(),
            Due::All | Due::Of(_) => Vec::new(),
        }
    }
}

/// Which of the due connectors to take.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    All,
    One(Uuid),
    AllBut(&'a [Uuid]),
}

impl Which<'_> {
    /// The only connector to take, if there is one, and the connectors to leave out.
    pub fn read(self) -> (Option<pgrx::Uuid>, Vec<pgrx::Uuid>) {
        match self {
            Which::All => (None, Vec::new()),
            Which::One(only) => (Some(uuid(only)), Vec::new()),
            Which::AllBut(aside) => (None, aside.iter().map(|id| uuid(*id)).collect()),
        }
    }
}

/// The connectors that [`queue_due`] would take. For use when it fails for all of them.
pub fn due(db: &mut Db, due: Due, most: i64, aside: &[Uuid]) -> Result<Vec<Uuid>> {
    let (_, aside) = Which::AllBut(aside).read();
    let rows = db.run(
        "SELECT c.connector_id FROM @extschema@.connectors c
         WHERE (c.status = 'active' AND c.next_sync_at <= now() OR c.status = 'error' AND c.next_sync_at <= now())
            AND (c.failures > 0 OR c.due_at_once OR c.sync_frequency <> ALL ($1::text[])) AND c.scheduler = 'database' AND c.connector_id <> ALL ($3::uuid[])
            AND NOT (c.due_at_once AND EXISTS (SELECT FROM @extschema@.sync_runs r WHERE r.connector_id = c.connector_id AND r.state = 'running' AND r.kind = 'sync'))
         ORDER BY c.next_sync_at LIMIT $2",
        &[
            due.left_to_cron().into(),
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
    /// The number of due connectors, including those that already had a sync.
    pub due: u64,
    pub queued: Vec<Uuid>,
}

/// Queues a run for connectors that are due, the longest due first, and at most so many of them. Each is then due at its next
/// slot, so that a queued connector is not found again. Connectors that another session is queueing are left to it. A connector
/// that was corrected while its sync was running is left until that one has ended, because it runs with what was wrong. Safe
/// from many sessions at once.
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
        Due::All | Due::AllBut(_) => None,
    };
    let rows = db.run(
        "WITH due AS MATERIALIZED (
            SELECT c.connector_id, c.tenant_id, c.sync_frequency, c.failures FROM @extschema@.connectors c
            WHERE (c.status = 'active' AND c.next_sync_at <= now() OR c.status = 'error' AND c.next_sync_at <= now())
              AND (c.failures > 0 OR c.due_at_once OR c.sync_frequency <> ALL ($1::text[])) AND c.scheduler = 'database'
              AND NOT (c.due_at_once AND EXISTS (SELECT FROM @extschema@.sync_runs r WHERE r.connector_id = c.connector_id AND r.state = 'running' AND r.kind = 'sync'))
              AND ($5::uuid IS NULL OR c.connector_id = $5) AND c.connector_id <> ALL ($6::uuid[])
              AND ($3::text IS NULL OR c.sync_frequency = $3 AND ($3 = 'hourly' OR EXISTS (
                  SELECT FROM @extschema@.tenants t WHERE t.tenant_id = c.tenant_id AND (now() AT TIME ZONE t.timezone)::time >= '02:00')))
            ORDER BY c.next_sync_at LIMIT $4
            FOR NO KEY UPDATE OF c SKIP LOCKED),
         queued AS (
            INSERT INTO @extschema@.sync_runs (connector_id, tenant_id, requested_by)
            SELECT due.connector_id, due.tenant_id, CASE WHEN due.failures > 0 AND due.sync_frequency = ANY ($1::text[]) THEN 'retry' ELSE $2 END FROM due
            ON CONFLICT (connector_id) WHERE state IN ('queued', 'running') AND kind = 'sync' DO NOTHING
            RETURNING run_id, connector_id),
         taken AS (
            UPDATE @extschema@.connectors c
            SET next_sync_at = _connector_service.connector_service_next_slot(due.sync_frequency, t.timezone, now()), due_at_once = false
            FROM due, @extschema@.tenants t
            WHERE c.connector_id = due.connector_id AND t.tenant_id = due.tenant_id)
         SELECT queued.run_id FROM due LEFT JOIN queued USING (connector_id)",
        &[
            due.left_to_cron().into(),
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

/// The result of storing a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenResult {
    Stored,
    /// Somebody has given the connector another token meanwhile, which stays.
    NotWanted,
    /// The connector no longer exists, or belongs to another tenant.
    Gone,
    /// Another session has locked the row.
    Busy,
}

/// Stores a refresh token that a vendor replaced, sealed, in the place of the old one, even if the run has ended. It locks the
/// row without waiting for it: a person who changes credentials meanwhile waits, and a change made before stays.
/// `definition` is the [`fingerprint`] of the definition that the run was given.
pub fn store_token(
    db: &mut Db,
    place: &Place,
    definition: &str,
    rotated: &Rotated,
) -> Result<TokenResult> {
    let rows = db.run(
        "SELECT c.credentials::text, c.config::text, c.type FROM @extschema@.connectors c
         WHERE c.connector_id = $1 AND c.tenant_id = $2 FOR NO KEY UPDATE SKIP LOCKED",
        &[uuid(place.connector).into(), uuid(place.tenant).into()],
    )?;
    if rows.count == 0 {
        return Ok(match tenant(db, place.connector)? == Some(place.tenant) {
            true => TokenResult::Busy,
            false => TokenResult::Gone,
        });
    }
    let keys = key::for_sealing(db)?;
    let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
    let sealed: Value = json(&rows.need::<String>(0, 1)?);
    let config: Value = json(&rows.need::<String>(0, 2)?);
    // Credentials without a token can take the new one only if config still has the token that it replaces.
    let is_in_config = fingerprint(&rows.need::<String>(0, 3)?, &config) == definition
        || has_text(&config, &rotated.old);
    let new = String::from_utf8_lossy(rotated.new.expose());
    let (path, texts) = (&rotated.path, (&rotated.old, &*new));
    let Some(credentials) = replace_text(&keys, place, &sealed, path, texts, is_in_config)? else {
        return Ok(TokenResult::NotWanted);
    };
    db.run(
        "UPDATE @extschema@.connectors SET credentials = $2 WHERE connector_id = $1",
        &[
            uuid(place.connector).into(),
            pgrx::JsonB(credentials).into(),
        ],
    )?;
    Ok(TokenResult::Stored)
}

fn has_text(value: &Value, text: &Secret) -> bool {
    match value {
        Value::String(held) => held.as_bytes() == text.expose(),
        Value::Array(items) => items.iter().any(|item| has_text(item, text)),
        Value::Object(fields) => fields.values().any(|field| has_text(field, text)),
        _ => false,
    }
}

/// A sync of a connector was queued: a due connector is due again at its next slot.
pub fn take_slot(db: &mut Db, connector: Uuid) -> Result<()> {
    db.run(
        "UPDATE @extschema@.connectors c
         SET next_sync_at = _connector_service.connector_service_next_slot(c.sync_frequency, t.timezone, now()), due_at_once = false
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
             AND (c.failures > 0 OR c.sync_frequency <> ALL ($1::text[])) AND c.scheduler = 'database' ORDER BY c.next_sync_at LIMIT 1),
            (SELECT c.next_sync_at FROM @extschema@.connectors c WHERE c.status = 'error' AND c.next_sync_at > now() AND c.next_sync_at < 'infinity'
             AND c.scheduler = 'database' ORDER BY c.next_sync_at LIMIT 1)) - now())::float8",
        &[due.left_to_cron().into()],
    )?;
    Ok(rows
        .get::<f64>(0, 1)?
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

/// A run succeeded: the connector is due again at its next slot, its error is cleared, and its alert is resolved. A paused
/// connector stays paused. The next slot is later than the one of the run, even if the clock was set back meanwhile. A connector
/// that was corrected or resumed during the run is still due at once.
pub fn succeeded(db: &mut Db, connector: Uuid, run: Uuid) -> Result<()> {
    // A statement of its own, only for status `error`: setting the status makes the trigger check the whole row again. With a time,
    // or the trigger would make the connector due at once.
    db.run(
        "UPDATE @extschema@.connectors SET status = 'active', next_sync_at = 'infinity' WHERE connector_id = $1 AND status = 'error'",
        &[uuid(connector).into()],
    )?;
    db.run(
        "UPDATE @extschema@.connectors c
         SET last_sync_at = r.started_at, failures = 0, error_message = NULL,
             next_sync_at = CASE WHEN c.due_at_once THEN now()
                ELSE _connector_service.connector_service_next_slot(c.sync_frequency, t.timezone, greatest(now(), r.requested_at)) END
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

/// What a failed run makes of its connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Working {
    /// It is retried after a pause.
    No,
    /// Some of its streams were read: a connector in `error` is active again.
    InPart,
    /// A person must act, so it goes to `error` and is retried only now and then.
    NotUntilMended,
}

/// A run failed. `wait`: until the connector is due again; `None`: at its next slot.
pub fn failed(
    db: &mut Db,
    connector: Uuid,
    message: &str,
    working: Working,
    wait: Option<Duration>,
) -> Result<()> {
    db.run(
        "UPDATE @extschema@.connectors c
         SET failures = CASE WHEN c.due_at_once THEN c.failures ELSE least(c.failures, 1000000) + 1 END, error_message = $2,
             status = CASE WHEN $3 AND c.status = 'active' THEN 'error' WHEN $4 AND c.status = 'error' THEN 'active' ELSE c.status END,
             -- It was corrected during the run, which did not know that.
             next_sync_at = CASE WHEN c.due_at_once THEN now() ELSE coalesce(now() + make_interval(secs => $5), _connector_service.connector_service_next_slot(c.sync_frequency, t.timezone, now())) END
         FROM @extschema@.tenants t
         WHERE c.connector_id = $1 AND t.tenant_id = c.tenant_id",
        &[
            uuid(connector).into(),
            (&*storable(message)).into(),
            (working == Working::NotUntilMended).into(),
            (working == Working::InPart).into(),
            wait.map(|wait| wait.as_secs_f64()).into(),
        ],
    )?;
    Ok(())
}

/// How long until a connector's next slot; `None`: it has none.
pub fn until_slot(db: &mut Db, connector: Uuid) -> Result<Option<Duration>> {
    let rows = db.run(
        "SELECT extract(epoch FROM nullif(_connector_service.connector_service_next_slot(c.sync_frequency, t.timezone, now()), 'infinity') - now())::float8
         FROM @extschema@.connectors c JOIN @extschema@.tenants t ON t.tenant_id = c.tenant_id WHERE c.connector_id = $1",
        &[uuid(connector).into()],
    )?;
    let seconds = rows.get::<f64>(0, 1)?;
    Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()))
}

/// A file was stored, or not because of `problem`. A refused file does not change the status: another file may be fine.
pub fn uploaded(db: &mut Db, connector: Uuid, run: Uuid, problem: Option<&str>) -> Result<()> {
    let problem = problem.map(storable);
    db.run(
        "UPDATE @extschema@.connectors c
         SET last_sync_at = CASE WHEN $3 IS NULL THEN r.started_at ELSE c.last_sync_at END, error_message = $3
         FROM @extschema@.sync_runs r WHERE c.connector_id = $1 AND r.run_id = $2",
        &[uuid(connector).into(), uuid(run).into(), problem.as_deref().into()],
    )?;
    Ok(())
}

/// Events were pushed to a connector that nothing else brings data to. Noted once a minute, and not while another session has
/// locked the row: an event must not wait for it.
pub fn pushed(db: &mut Db, connector: Uuid) -> Result<()> {
    let rows = db.run(
        "SELECT true FROM @extschema@.connectors
         WHERE connector_id = $1 AND (last_sync_at IS NULL OR last_sync_at < now() - interval '1 minute' OR error_message IS NOT NULL)
         FOR NO KEY UPDATE SKIP LOCKED",
        &[uuid(connector).into()],
    )?;
    if rows.count > 0 {
        db.run(
            "UPDATE @extschema@.connectors SET last_sync_at = now(), error_message = NULL WHERE connector_id = $1",
            &[uuid(connector).into()],
        )?;
    }
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
