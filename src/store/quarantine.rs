//! `quarantine`: records that could not be stored.

use connector_service_core::record::{RAW_KEPT, Rejected};

use super::words::words;
use super::{Db, uuid};
use crate::error::Result;
use crate::store::run::Claimed;

/// Keeps every rejected record of a page; one that was met before counts an occurrence.
pub fn add(db: &mut Db, claimed: &Claimed, stream: &str, rejected: &[Rejected]) -> Result<()> {
    for record in rejected {
        let id = record.id.as_deref().map(|id| words(bounded(id)));
        let raw = record.raw.get(..RAW_KEPT).unwrap_or(&record.raw);
        db.run(
            "INSERT INTO @extschema@.quarantine AS q
                (run_id, connector_id, tenant_id, stream, source_record_id, reason_code, reason, raw, content_hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (connector_id, stream, content_hash) DO UPDATE
             SET run_id = excluded.run_id, reason_code = excluded.reason_code, reason = excluded.reason,
                 occurrences = q.occurrences + 1, last_seen_at = now(), replayed_at = NULL",
            &[
                uuid(claimed.run).into(),
                uuid(claimed.connector).into(),
                uuid(claimed.tenant).into(),
                stream.into(),
                id.as_deref().into(),
                record.reason.word().into(),
                (&*words(&record.detail)).into(),
                raw.into(),
                record.hash.as_slice().into(),
            ],
        )?;
    }
    Ok(())
}

/// An id that was rejected for its length still shows its beginning.
fn bounded(id: &str) -> &str {
    const SHOWN: usize = 200;
    let end = (0..=SHOWN.min(id.len()))
        .rev()
        .find(|&end| id.is_char_boundary(end))
        .unwrap_or(0);
    id.get(..end).unwrap_or_default()
}
