//! `raw_connector_data`: the write path, where almost all of a sync's time goes.
//!
//! Three things are not done because they need not be. A record whose hash is stored already does not become
//! jsonb at all. A stream that turned out to be new is not searched for known records. And `raw_id` is made
//! in time order, so that its index grows at one end.

use std::collections::HashMap;

use connector_service_core::record::Record;

use super::run::{Claimed, Counts};
use super::{Db, uuid};
use crate::error::Result;
use crate::fault;

/// Rows and bytes of one statement. Larger: more memory at once, for nothing. Smaller: more statements.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Stores the records of one page. `expect_known` says whether to search for records that are stored
/// unchanged, and is set for the next page by what this one showed; it changes the time, never the result.
pub fn upsert(
    db: &mut Db,
    claimed: &Claimed,
    stream: &str,
    records: &[Record],
    expect_known: &mut bool,
) -> Result<Counts> {
    let mut counts = Counts {
        received: records.len() as u64,
        ..Counts::default()
    };
    let mut latest = latest_in_key_order(records);
    if *expect_known {
        let known = unchanged(db, claimed, &latest)?;
        *expect_known = !known.is_empty() || latest.is_empty();
        let mut known = known.into_iter().peekable();
        let mut position = 0;
        latest.retain(|_| {
            position += 1;
            known.next_if_eq(&position).is_none()
        });
    }
    for batch in batches(&latest) {
        let (inserted, updated) = write(db, claimed, stream, batch)?;
        counts.inserted += inserted;
        counts.updated += updated;
        fault::point("mid_page_insert");
    }
    counts.unchanged = counts.received - counts.inserted - counts.updated;
    *expect_known |= counts.inserted < latest.len() as u64;
    Ok(counts)
}

/// One record per id, the last one of the page, sorted: neighbours in the index are written together, and two
/// transactions that store the same records cannot deadlock.
fn latest_in_key_order(records: &[Record]) -> Vec<&Record> {
    let latest: HashMap<&str, &Record> = records.iter().map(|r| (r.id.as_str(), r)).collect();
    let mut latest: Vec<&Record> = latest.into_values().collect();
    latest.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    latest
}

/// The positions (from 1, ascending) of the records that are stored with the same text.
fn unchanged(db: &mut Db, claimed: &Claimed, records: &[&Record]) -> Result<Vec<i64>> {
    let ids: Vec<&str> = records.iter().map(|r| r.id.as_str()).collect();
    let hashes: Vec<&[u8]> = records.iter().map(|r| r.hash.as_slice()).collect();
    // OFFSET 0 keeps the look-up a look-up: one probe of the index for each record.
    let rows = db.run(
        "SELECT array_agg(page.position ORDER BY page.position)
         FROM unnest($2, $3) WITH ORDINALITY AS page(id, hash, position)
         CROSS JOIN LATERAL (
            SELECT FROM @extschema@.raw_connector_data r
            WHERE r.connector_id = $1 AND r.source_record_id = page.id AND r.content_hash = page.hash AND NOT r.deleted
            OFFSET 0) AS stored",
        &[uuid(claimed.connector).into(), ids.into(), hashes.into()],
    )?;
    Ok(rows.get(0, 1)?.unwrap_or_default())
}

/// Inserts new records and rewrites those whose content differs; returns how many of each.
fn write(db: &mut Db, claimed: &Claimed, stream: &str, batch: &[&Record]) -> Result<(u64, u64)> {
    let raw_ids: Vec<pgrx::Uuid> = batch.iter().map(|_| uuid(uuid::Uuid::now_v7())).collect();
    let ids: Vec<&str> = batch.iter().map(|r| r.id.as_str()).collect();
    let texts: Vec<&str> = batch
        .iter()
        .map(|r| std::str::from_utf8(&r.json).unwrap_or_default())
        .collect();
    let hashes: Vec<&[u8]> = batch.iter().map(|r| r.hash.as_slice()).collect();
    let rows = db.run(
        "WITH written AS (
            INSERT INTO @extschema@.raw_connector_data AS r
                (raw_id, tenant_id, connector_id, source_type, stream, source_record_id, data, content_hash)
            SELECT page.raw_id, $1, $2, $3, $4, page.id, page.data::jsonb, page.hash
            FROM unnest($5, $6, $7, $8) AS page(raw_id, id, data, hash)
            ON CONFLICT (connector_id, source_record_id) DO UPDATE
            SET data = excluded.data, content_hash = excluded.content_hash, stream = excluded.stream,
                ingested_at = excluded.ingested_at, processed = false, deleted = false
            WHERE r.data IS DISTINCT FROM excluded.data OR r.deleted
            RETURNING r.xmax = 0 AS is_new)
         SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM written",
        &[
            uuid(claimed.tenant).into(),
            uuid(claimed.connector).into(),
            claimed.source.as_str().into(),
            stream.into(),
            raw_ids.into(),
            ids.into(),
            texts.into(),
            hashes.into(),
        ],
    )?;
    Ok((
        rows.need::<i64>(0, 1)?.unsigned_abs(),
        rows.need::<i64>(0, 2)?.unsigned_abs(),
    ))
}

/// Cuts records into statements of bounded size.
fn batches<'a, 'r>(mut rest: &'a [&'r Record]) -> impl Iterator<Item = &'a [&'r Record]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fit = rest.iter().take(BATCH_ROWS).take_while(|r| {
            let first = bytes == 0;
            bytes += r.json.len();
            first || bytes <= BATCH_BYTES
        });
        let (batch, later) = rest.split_at(fit.count());
        rest = later;
        (!batch.is_empty()).then_some(batch)
    })
}
