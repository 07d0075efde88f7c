//! `raw_retention`: the JSON of old records is dropped, and the room it took is given back.

use std::time::Duration;

use uuid::Uuid;

use super::{Db, lock, read_uuid, uuid};
use crate::error::{Error, Result};

/// Records that are looked for at once. More: more memory. Fewer: records of one moment are passed over more often.
const FOUND_AT_ONCE: i32 = 20_000;

/// The connectors whose old records are dropped, with their tenants.
pub fn connectors(db: &mut Db, default: Option<Duration>) -> Result<Vec<(Uuid, Uuid)>> {
    let rows = db.run(
        "SELECT r.tenant_id, r.connector_id FROM _connector_service.connector_service_with_retention(make_interval(secs => $1)) r",
        &[seconds(default).into()],
    )?;
    (0..rows.count)
        .map(|row| Ok((read_uuid(rows.need(row, 1)?), read_uuid(rows.need(row, 2)?))))
        .collect()
}

fn seconds(interval: Option<Duration>) -> Option<f64> {
    interval.map(|it| it.as_secs_f64())
}

/// Records whose JSON is to be dropped.
pub struct Old {
    pub stream: String,
    /// How far the stream is done when they are dropped, as text.
    until: String,
    pub raw_ids: Vec<pgrx::Uuid>,
}

/// The next old records of a connector. `None`: there is nothing to do.
pub fn find(db: &mut Db, connector: Uuid, default: Option<Duration>) -> Result<Option<Old>> {
    let rows = db.run(
        "SELECT o.stream, o.until::text, o.raw_ids FROM _connector_service.connector_service_old($1, make_interval(secs => $2), $3) o",
        &[
            uuid(connector).into(),
            seconds(default).into(),
            FOUND_AT_ONCE.into(),
        ],
    )?;
    let Some(stream) = rows.get(0, 1)? else {
        return Ok(None);
    };
    Ok(Some(Old {
        stream,
        until: rows.need(0, 2)?,
        raw_ids: rows.get(0, 3)?.unwrap_or_default(),
    }))
}

/// Drops the JSON of some records; returns how many had one. `None`: another session holds the lock of the tenant's facts.
pub fn some(
    db: &mut Db,
    (tenant, connector): (Uuid, Uuid),
    default: Option<Duration>,
    stream: &str,
    raw_ids: Vec<pgrx::Uuid>,
) -> Result<Option<u64>> {
    if !lock::try_facts(tenant) {
        return Ok(None);
    }
    let rows = db.run(
        "SELECT _connector_service.connector_service_drop($1, make_interval(secs => $2), $3)",
        &[
            uuid(connector).into(),
            seconds(default).into(),
            raw_ids.into(),
        ],
    )?;
    let dropped: i64 = rows.need(0, 1)?;
    db.run(
        "UPDATE @extschema@.raw_retention SET dropped = dropped + $3, dropped_at = clock_timestamp() WHERE connector_id = $1 AND stream = $2 AND $3 > 0",
        &[uuid(connector).into(), stream.into(), dropped.into()],
    )?;
    Ok(Some(dropped.unsigned_abs()))
}

/// Notes how far a stream is done. Not if a record came with an old date since [`find`] looked.
pub fn advance(db: &mut Db, connector: Uuid, old: &Old) -> Result<()> {
    db.run(
        "UPDATE @extschema@.raw_retention SET checked_until = $3::timestamptz WHERE connector_id = $1 AND stream = $2 AND definition <> ''",
        &[
            uuid(connector).into(),
            old.stream.as_str().into(),
            old.until.as_str().into(),
        ],
    )?;
    Ok(())
}

/// The blocks of `raw_connector_data`.
#[derive(Debug, Clone, Copy)]
pub struct Spare {
    pub blocks: i64,
    /// How many its rows need, by the statistics.
    pub needed: i64,
    /// Whether few dead rows wait for VACUUM.
    pub is_vacuumed: bool,
}

pub fn spare(db: &mut Db) -> Result<Spare> {
    let rows = db.run(
        "SELECT s.blocks, s.needed, s.is_vacuumed FROM _connector_service.connector_service_spare() s",
        &[],
    )?;
    Ok(Spare {
        blocks: rows.need(0, 1)?,
        needed: rows.need(0, 2)?,
        is_vacuumed: rows.need(0, 3)?,
    })
}

/// Moves the rows in these blocks into free room before them. Fails, so that nothing is written, if there is none.
pub fn move_tail(db: &mut Db, first: i64, end: i64) -> Result<u64> {
    let rows = db.run(
        "SELECT m.moved, m.stuck FROM _connector_service.connector_service_move_tail($1, $2) m",
        &[first.into(), end.into()],
    )?;
    if rows.need::<i64>(0, 2)? > 0 {
        return Err(Error::RolledBack);
    }
    Ok(rows.need::<i64>(0, 1)?.unsigned_abs())
}
