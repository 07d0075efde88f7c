//! `raw_connector_data`: the write path, where almost all of a sync's time goes.
//!
//! It avoids needless work. A record whose hash is stored already is not converted to jsonb at all. A stream that turned out to
//! be new is not searched for known records. A new record is inserted without ON CONFLICT, which would probe the index twice
//! and write a second WAL record for each row. And `raw_id` grows with time, so that its index grows at one end.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use connector_service_core::json::identity::prefix;
use connector_service_core::record::{GoneWith, Record};
use connector_service_core::source::Part;

use super::run::{Claimed, Counts};
use super::{Db, Rows, uuid};
use crate::error::Result;
use crate::fault;

/// Rows and bytes of one statement. Larger: more memory at once, for nothing. Smaller: more statements.
const BATCH_ROWS: usize = 1_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The `raw_id` of the rows that a transaction stored and whose facts are to be derived.
#[derive(Default)]
pub struct Written {
    pub new: Vec<pgrx::Uuid>,
    pub changed: Vec<pgrx::Uuid>,
}

/// Stores the records of one page. `search` says whether to look for records that are stored already, and is
/// set for the next page by what this one showed. Where it was wrong not to look, or somebody else stored the
/// same record meanwhile, the plain insert fails with [`Error::is_duplicate`]: nothing is stored, and the
/// caller tries again with `search` set.
///
/// With `written` the rows are stored as processed and their ids are added to it. Without it they are stored as unprocessed.
pub fn store(
    db: &mut Db,
    claimed: &Claimed,
    stream: &str,
    records: &[Record],
    search: &mut bool,
    mut written: Option<&mut Written>,
) -> Result<Counts> {
    let processed = written.is_some();
    let latest = latest_in_key_order(records);
    let mut new = Vec::with_capacity(latest.len());
    let mut known = Vec::new();
    if *search {
        let stored = look_up(db, claimed, &latest)?;
        // If a page has only new records, the next pages of the stream are likely new too.
        *search = !stored.is_empty() || latest.is_empty();
        let mut stored = stored.into_iter().peekable();
        for (record, position) in latest.into_iter().zip(1..) {
            match stored.next_if(|found| found.abs() == position) {
                None => new.push(record),
                Some(found) if found < 0 => known.push(record),
                // Stored with the same text.
                Some(_) => {}
            }
        }
    } else {
        new = latest;
    }
    let mut counts = Counts {
        received: records.len() as u64,
        ..Counts::default()
    };
    for batch in batches(&new) {
        let (count, raw_ids) = write(db, INSERT, claimed, stream, batch, processed)?;
        counts.inserted += count;
        if let Some(written) = &mut written {
            written.new.extend(raw_ids);
        }
        fault::point("mid_page_insert");
    }
    for batch in batches(&known) {
        let (count, raw_ids) = write(db, UPDATE, claimed, stream, batch, processed)?;
        counts.updated += count;
        if let Some(written) = &mut written {
            written.changed.extend(raw_ids);
        }
        fault::point("mid_page_insert");
    }
    counts.unchanged = counts.received - counts.inserted - counts.updated;
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

/// The positions, from 1 and ascending, of the records that are stored: positive with this very text, negative
/// with another one.
fn look_up(db: &mut Db, claimed: &Claimed, records: &[&Record]) -> Result<Vec<i64>> {
    let ids: Vec<&str> = records.iter().map(|r| r.id.as_str()).collect();
    let hashes: Vec<&[u8]> = records.iter().map(|r| r.hash.as_slice()).collect();
    // OFFSET 0 keeps the look-up a look-up: one probe of the index for each record.
    let rows = db.run(
        "SELECT array_agg(CASE WHEN stored.same THEN page.position ELSE -page.position END ORDER BY page.position)
         FROM unnest($2, $3) WITH ORDINALITY AS page(id, hash, position)
         CROSS JOIN LATERAL (
            SELECT r.content_hash IS NOT DISTINCT FROM page.hash AND NOT r.deleted AS same
            FROM @extschema@.raw_connector_data r
            WHERE r.connector_id = $1 AND r.source_record_id = page.id
            OFFSET 0) AS stored",
        &[uuid(claimed.connector).into(), ids.into(), hashes.into()],
    )?;
    Ok(rows.get(0, 1)?.unwrap_or_default())
}

/// Marks records as deleted at the source: the rows stay, but no longer count. Records that are not stored, or marked already,
/// are left alone.
pub fn delete(
    db: &mut Db,
    claimed: &Claimed,
    ids: &[String],
    written: Option<&mut Written>,
) -> Result<Counts> {
    let mut counts = Counts {
        received: ids.len() as u64,
        ..Counts::default()
    };
    if ids.is_empty() {
        return Ok(counts);
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let rows = db.run(
        "UPDATE @extschema@.raw_connector_data SET deleted = true, processed = $4, run_id = $3
         WHERE connector_id = $1 AND source_record_id = ANY ($2) AND NOT deleted
         RETURNING raw_id",
        &[
            uuid(claimed.connector).into(),
            ids.into(),
            uuid(claimed.run).into(),
            written.is_some().into(),
        ],
    )?;
    counts.deleted = gone(&rows, written)?;
    // One record may have two rows: under its id and under its former one.
    counts.received = counts.received.max(counts.deleted);
    counts.unchanged = counts.received - counts.deleted;
    Ok(counts)
}

/// Marks the records of a stream as deleted whose field holds one of these texts.
pub fn delete_with(
    db: &mut Db,
    claimed: &Claimed,
    stream: &str,
    with: &GoneWith,
    written: Option<&mut Written>,
) -> Result<u64> {
    let path: Vec<&str> = with.path.iter().map(String::as_str).collect();
    let values: Vec<&str> = with.values.iter().map(String::as_str).collect();
    if values.is_empty() {
        return Ok(0);
    }
    let rows = db.run(
        "UPDATE @extschema@.raw_connector_data SET deleted = true, processed = $6, run_id = $5
         WHERE connector_id = $1 AND source_record_id >= $2 || '/' AND source_record_id < $2 || '0' AND NOT deleted
             AND data #>> $3 IN (SELECT unnest($4::text[]))
         RETURNING raw_id",
        &[
            uuid(claimed.connector).into(),
            stream.into(),
            path.into(),
            values.into(),
            uuid(claimed.run).into(),
            written.is_some().into(),
        ],
    )?;
    gone(&rows, written)
}

fn gone(rows: &Rows, written: Option<&mut Written>) -> Result<u64> {
    if let Some(written) = written {
        for row in 0..rows.count {
            written.changed.push(rows.need(row, 1)?);
        }
    }
    Ok(rows.count)
}

/// What happened to the records that a complete pass over a whole stream did not contain.
pub enum Missing {
    Deleted(u64),
    /// So many records of so many are missing that the source probably did not return everything.
    Doubtful(i64, i64),
}

/// Up to so many missing records count as deletions, whatever their share.
const FEW: i64 = 10;

/// Marks the records of a stream, or of a part of it, as deleted that are not among `shown` (the hashes of ids).
pub fn delete_others(
    db: &mut Db,
    claimed: &Claimed,
    stream: &str,
    shown: &[[u8; 16]],
    part: Option<&Part>,
    written: Option<&mut Written>,
) -> Result<Missing> {
    let shown: Vec<&[u8]> = shown.iter().map(<[u8; 16]>::as_slice).collect();
    let field: Option<Vec<&str>> = part.map(|part| part.field.to_vec());
    let from = part.map(|part| part.from.as_str());
    let prefix = prefix(stream);
    let [first, last] = match prefix.as_ref() < stream {
        true => [prefix.as_ref(), stream],
        false => [stream, prefix.as_ref()],
    };
    // Grouped, because it is quick whatever the planner knows of either side. By the beginning of the ids, for which
    // there is an index: "/" is followed by "0". An older version began those of the stream "a/b" as those of "a".
    let rows = db.run(
        "SELECT array_agg(raw_id) FILTER (WHERE NOT is_shown), count(raw_id)
         FROM (
            SELECT (array_agg(raw_id) FILTER (WHERE raw_id IS NOT NULL))[1] AS raw_id, bool_or(raw_id IS NULL) AS is_shown
            FROM (
                SELECT raw_id, substring(sha256(convert_to(source_record_id, 'UTF8')) FROM 1 FOR 16) AS hash
                FROM @extschema@.raw_connector_data
                WHERE connector_id = $1 AND source_record_id >= $2 || '/' AND source_record_id < $3 || '0' AND stream = $5 AND NOT deleted
                    AND ($6 IS NULL OR (data #>> $6) COLLATE \"C\" >= $7)
                UNION ALL
                SELECT NULL, unnest($4)) AS both_sides
            GROUP BY hash) AS record",
        &[
            uuid(claimed.connector).into(),
            first.into(),
            last.into(),
            shown.into(),
            stream.into(),
            field.into(),
            from.into(),
        ],
    )?;
    let missing: Vec<pgrx::Uuid> = rows.get(0, 1)?.unwrap_or_default();
    let (count, stored) = (missing.len() as i64, rows.get::<i64>(0, 2)?.unwrap_or(0));
    if count > FEW && count * 2 > stored {
        return Ok(Missing::Doubtful(count, stored));
    }
    Ok(Missing::Deleted(mark_deleted(
        db, claimed, missing, written,
    )?))
}

/// Marks rows as deleted; returns how many.
pub fn mark_deleted(
    db: &mut Db,
    claimed: &Claimed,
    missing: Vec<pgrx::Uuid>,
    written: Option<&mut Written>,
) -> Result<u64> {
    if missing.is_empty() {
        return Ok(0);
    }
    let rows = db.run(
        "UPDATE @extschema@.raw_connector_data SET deleted = true, processed = $3, run_id = $2 WHERE raw_id = ANY ($1) RETURNING raw_id",
        &[
            missing.into(),
            uuid(claimed.run).into(),
            written.is_some().into(),
        ],
    )?;
    gone(&rows, written)
}

// unnest is in the SELECT list and not in FROM, where PostgreSQL would first copy every array into a tuplestore. Fetched pages
// have no times, so there is no array of them.
macro_rules! insert {
    ($on_conflict:literal) => {
        concat!(
            "INSERT INTO @extschema@.raw_connector_data AS r
                (raw_id, tenant_id, connector_id, source_type, stream, source_record_id, data, content_hash, processed, run_id, source_version)
             SELECT page.raw_id, $1, $2, $3, $4, page.id, page.data::jsonb, page.hash, $9, $10,
                 'epoch'::timestamptz + page.at * interval '1 microsecond'
             FROM (SELECT unnest($5) AS raw_id, unnest($6) AS id, unnest($7) AS data, unnest($8) AS hash, unnest($11) AS at) AS page ",
            $on_conflict
        )
    };
}

const INSERT: &str = insert!("");

/// ON CONFLICT uses the index whatever statistics the planner has.
const UPDATE: &str = insert!(
    "ON CONFLICT (connector_id, source_record_id) DO UPDATE
     SET data = excluded.data, content_hash = excluded.content_hash, stream = excluded.stream,
         ingested_at = excluded.ingested_at, processed = excluded.processed, deleted = false, run_id = excluded.run_id, dropped_at = NULL,
         source_version = CASE WHEN r.deleted THEN excluded.source_version ELSE greatest(r.source_version, excluded.source_version) END
     WHERE r.data IS DISTINCT FROM excluded.data OR r.deleted OR r.dropped_at IS NOT NULL
     RETURNING r.raw_id"
);

/// Runs one of the two statements; returns how many rows it wrote, and their `raw_id`. For the plain insert these are the ids
/// of all given rows: a user's trigger may leave some out, but a row that does not exist gets no facts.
fn write(
    db: &mut Db,
    sql: &'static str,
    claimed: &Claimed,
    stream: &str,
    batch: &[&Record],
    processed: bool,
) -> Result<(u64, Vec<pgrx::Uuid>)> {
    let raw_ids: Vec<pgrx::Uuid> = batch.iter().map(|_| uuid(uuid::Uuid::now_v7())).collect();
    let ids: Vec<&str> = batch.iter().map(|r| r.id.as_str()).collect();
    let texts: Vec<&str> = batch
        .iter()
        .map(|r| std::str::from_utf8(&r.json).unwrap_or_default())
        .collect();
    let hashes: Vec<&[u8]> = batch.iter().map(|r| r.hash.as_slice()).collect();
    let micros = |at: DateTime<Utc>| at.timestamp_micros();
    let times: Option<Vec<Option<i64>>> = batch
        .iter()
        .any(|r| r.at.is_some())
        .then(|| batch.iter().map(|r| r.at.map(micros)).collect());
    let rows = db.run(
        sql,
        &[
            uuid(claimed.tenant).into(),
            uuid(claimed.connector).into(),
            claimed.source.as_str().into(),
            stream.into(),
            raw_ids.clone().into(),
            ids.into(),
            texts.into(),
            hashes.into(),
            processed.into(),
            uuid(claimed.run).into(),
            times.into(),
        ],
    )?;
    if sql == INSERT {
        return Ok((rows.count, raw_ids));
    }
    let written: Result<_> = (0..rows.count).map(|row| rows.need(row, 1)).collect();
    Ok((rows.count, written?))
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

/// The records that PostgreSQL refuses, by their positions from 1, and its messages. Each record is tried alone. The caller
/// rolls everything back.
pub fn refusals(
    db: &mut Db,
    claimed: &Claimed,
    stream: &str,
    records: &[Record],
) -> Result<Vec<(usize, String)>> {
    let mut refusals = Vec::new();
    let mut first = 0;
    let all: Vec<&Record> = records.iter().collect();
    for batch in batches(&all) {
        let ids: Vec<&str> = batch.iter().map(|r| r.id.as_str()).collect();
        let texts: Vec<&str> = batch
            .iter()
            .map(|r| std::str::from_utf8(&r.json).unwrap_or_default())
            .collect();
        let rows = db.run(
            "SELECT r.place, r.why FROM _connector_service.connector_service_refusals($1, $2, $3, $4, $5, $6, $7) r ORDER BY r.place",
            &[
                uuid(claimed.tenant).into(),
                uuid(claimed.connector).into(),
                claimed.source.as_str().into(),
                stream.into(),
                uuid(claimed.run).into(),
                ids.into(),
                texts.into(),
            ],
        )?;
        for row in 0..rows.count {
            let place: i32 = rows.need(row, 1)?;
            let place = usize::try_from(place).unwrap_or_default();
            refusals.push((first + place, rows.need(row, 2)?));
        }
        first += batch.len();
    }
    Ok(refusals)
}
