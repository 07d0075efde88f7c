//! `quarantine`: records that could not be stored.

use std::collections::HashMap;

use connector_service_core::record::{RAW_KEPT, Rejected};

use super::storable::storable;
use super::{Db, uuid};
use crate::error::Result;
use crate::store::run::Claimed;

/// Rows and bytes of one statement. Larger: more memory at once. Smaller: more statements.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// One rejected record, and how often it is there.
struct Counted<'a> {
    record: &'a Rejected,
    times: i64,
}

/// Stores every rejected record of a page. A record that was seen before counts its occurrences.
pub fn add(db: &mut Db, claimed: &Claimed, stream: &str, rejected: &[Rejected]) -> Result<()> {
    // Each record once: a row that is updated again and again in a transaction becomes slow to find.
    let mut met: HashMap<[u8; 16], Counted> = HashMap::new();
    for record in rejected {
        let met = met
            .entry(record.hash)
            .or_insert(Counted { record, times: 0 });
        (met.record, met.times) = (record, met.times + 1);
    }
    // In a fixed order, so that two transactions cannot deadlock.
    let mut met: Vec<Counted> = met.into_values().collect();
    met.sort_unstable_by_key(|met| met.record.hash);
    let mut rest = met.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().take(BATCH_ROWS).take_while(|met| {
            let is_first = bytes == 0;
            bytes += kept(met.record).len() + 1;
            is_first || bytes <= BATCH_BYTES
        });
        let (batch, later) = rest.split_at(fit.count());
        write(db, claimed, stream, batch)?;
        rest = later;
    }
    Ok(())
}

fn kept(record: &Rejected) -> &[u8] {
    record.raw.get(..RAW_KEPT).unwrap_or(&record.raw)
}

fn write(db: &mut Db, claimed: &Claimed, stream: &str, batch: &[Counted]) -> Result<()> {
    let of = || batch.iter().map(|met| met.record);
    let id = |r: &Rejected| r.id.as_deref().map(|id| storable(bounded(id)).into_owned());
    let ids: Vec<Option<String>> = of().map(id).collect();
    let reasons: Vec<&str> = of().map(|r| r.reason.word()).collect();
    let details: Vec<String> = of().map(|r| storable(&r.detail).into_owned()).collect();
    let raws: Vec<&[u8]> = of().map(kept).collect();
    let hashes: Vec<&[u8]> = of().map(|r| r.hash.as_slice()).collect();
    let times: Vec<i64> = batch.iter().map(|met| met.times).collect();
    db.run(
        "INSERT INTO @extschema@.quarantine AS q
            (run_id, connector_id, tenant_id, stream, source_record_id, reason_code, reason, raw, content_hash, occurrences)
         SELECT $1, $2, $3, $4, unnest($5), unnest($6), unnest($7), unnest($8), unnest($9), unnest($10)
         ON CONFLICT (connector_id, stream, content_hash) DO UPDATE
         SET run_id = excluded.run_id, reason_code = excluded.reason_code, reason = excluded.reason,
             occurrences = q.occurrences + excluded.occurrences, last_seen_at = now(), replayed_at = NULL",
        &[
            uuid(claimed.run).into(),
            uuid(claimed.connector).into(),
            uuid(claimed.tenant).into(),
            stream.into(),
            ids.into(),
            reasons.into(),
            details.into(),
            raws.into(),
            hashes.into(),
            times.into(),
        ],
    )?;
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
