//! `sync_state`: the cursor of each stream.

use std::collections::HashMap;
use std::time::Duration;

use connector_service_core::fetch::Stored;
use connector_service_core::record::StreamState;
use uuid::Uuid;

use super::{Db, Rows, read_uuid, uuid};
use crate::error::{Error, Result};

/// The cursors of some connectors, by connector and stream. One that cannot be parsed (a person edited it) is left out: the
/// stream is then read from the start, which takes time but loses nothing.
pub fn read(db: &mut Db, connectors: Vec<Uuid>) -> Result<HashMap<Uuid, HashMap<String, Stored>>> {
    let connectors: Vec<pgrx::Uuid> = connectors.into_iter().map(uuid).collect();
    let rows = db.run(
        "SELECT connector_id, stream, cursor::text, extract(epoch FROM now() - updated_at)::float8
         FROM @extschema@.sync_state WHERE connector_id = ANY ($1)",
        &[connectors.into()],
    )?;
    let mut states: HashMap<Uuid, HashMap<String, Stored>> = HashMap::new();
    for row in 0..rows.count {
        if let Some(stored) = stored(&rows, row, 3)? {
            let connector = states.entry(read_uuid(rows.need(row, 1)?)).or_default();
            connector.insert(rows.need(row, 2)?, stored);
        }
    }
    Ok(states)
}

/// A cursor from this column, and its age from the next one.
pub fn stored(rows: &Rows, row: u64, column: i32) -> Result<Option<Stored>> {
    let state = serde_json::from_str::<StreamState>(&rows.need::<String>(row, column)?);
    let age = Duration::try_from_secs_f64(rows.need(row, column + 1)?).unwrap_or_default();
    Ok(state.ok().map(|state| Stored { state, age }))
}

pub fn write(db: &mut Db, connector: Uuid, stream: &str, state: &StreamState) -> Result<()> {
    let text =
        serde_json::to_string(state).map_err(|_| Error::Spi(pgrx::spi::Error::InvalidPosition))?;
    db.run(
        "INSERT INTO @extschema@.sync_state AS s (connector_id, stream, cursor) VALUES ($1, $2, $3::jsonb)
         ON CONFLICT (connector_id, stream) DO UPDATE SET cursor = excluded.cursor, updated_at = now()",
        &[uuid(connector).into(), stream.into(), text.into()],
    )?;
    Ok(())
}

/// The streams that have a cursor.
pub fn streams(db: &mut Db, connector: Uuid) -> Result<Vec<String>> {
    let rows = db.run(
        "SELECT stream FROM @extschema@.sync_state WHERE connector_id = $1 ORDER BY stream",
        &[uuid(connector).into()],
    )?;
    (0..rows.count).map(|row| rows.need(row, 1)).collect()
}

/// Deletes the cursor of a stream.
pub fn forget(db: &mut Db, connector: Uuid, stream: &str) -> Result<()> {
    db.run(
        "DELETE FROM @extschema@.sync_state WHERE connector_id = $1 AND stream = $2",
        &[uuid(connector).into(), stream.into()],
    )?;
    Ok(())
}
