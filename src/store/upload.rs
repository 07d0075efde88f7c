//! `uploads`: files until they are stored, and which records came from which file.

use std::collections::HashMap;

use connector_service_core::fetch::{FetchedPage, Upload, UploadMark};
use connector_service_core::file::layout::Replaces;
use connector_service_core::json;
use connector_service_core::record::Record;
use uuid::Uuid;

use super::raw::{self, Written};
use super::run::{Claimed, Counts, Kind};
use super::{Db, read_uuid, run, uuid};
use crate::error::{Error, Result, counted};
use crate::fault;

/// Bytes of a part. Larger: the worker is busy for longer with one part. Smaller: more statements.
const PART_BYTES: i32 = 1024 * 1024;

/// Up to so many missing rows may be a correction, although they are most of the file.
const FEW: i64 = 10;
/// A file of so many rows without a key may be corrected in all of them.
const TINY: i64 = 2;

/// The connector that an upload is for.
pub struct UploadTarget {
    pub source: String,
    pub config: String,
    pub is_paused: bool,
}

pub fn target(db: &mut Db, connector: Uuid) -> Result<Option<UploadTarget>> {
    let rows = db.run(
        "SELECT type, config::text, status = 'paused' FROM @extschema@.connectors WHERE connector_id = $1",
        &[uuid(connector).into()],
    )?;
    let Some(source) = rows.get(0, 1)? else {
        return Ok(None);
    };
    Ok(Some(UploadTarget {
        source,
        config: rows.need(0, 2)?,
        is_paused: rows.need(0, 3)?,
    }))
}

/// Stores a file, and queues the run that reads it.
pub fn add(db: &mut Db, connector: Uuid, name: &str, content: &[u8], kind: Kind) -> Result<Uuid> {
    // Deletes files that will not be read again: of finished previews, of failed runs that this file replaces, and of runs
    // that failed a week ago.
    db.run(
        "DELETE FROM @extschema@.uploads u USING @extschema@.sync_runs r
         WHERE u.connector_id = $1 AND u.stored_at IS NULL AND r.run_id = u.run_id
            AND r.state IN ('succeeded', 'failed', 'cancelled')
            AND (r.kind = 'preview' OR u.file_name = $2 OR r.finished_at < now() - interval '7 days')",
        &[uuid(connector).into(), name.into()],
    )?;
    let run = run::queue_other(db, connector, kind)?.ok_or(Error::UnknownConnector(connector))?;
    let rows = db.run(
        "INSERT INTO @extschema@.uploads (connector_id, tenant_id, run_id, file_name, bytes, sha256)
         SELECT r.connector_id, r.tenant_id, r.run_id, $2, octet_length($3), sha256($3)
         FROM @extschema@.sync_runs r WHERE r.run_id = $1
         RETURNING upload_id",
        &[uuid(run).into(), name.into(), content.into()],
    )?;
    let upload: pgrx::Uuid = rows.need(0, 1)?;
    db.run(
        "INSERT INTO @extschema@.upload_parts (upload_id, part, content)
         SELECT $1, part, substring($2 FROM part * $3 + 1 FOR $3)
         FROM generate_series(0, (octet_length($2) - 1) / $3) AS part",
        &[upload.into(), content.into(), PART_BYTES.into()],
    )?;
    Ok(run)
}

/// Queues the files of a connector whose runs failed again; returns the first run's id.
pub fn queue_again(db: &mut Db, connector: Uuid) -> Result<Option<Uuid>> {
    let waiting = db.run(
        "SELECT u.upload_id FROM @extschema@.uploads u LEFT JOIN @extschema@.sync_runs r ON r.run_id = u.run_id
         WHERE u.connector_id = $1 AND u.stored_at IS NULL AND coalesce(r.state IN ('failed', 'cancelled') AND r.kind = 'upload', true)
         ORDER BY u.uploaded_at FOR UPDATE OF u SKIP LOCKED",
        &[uuid(connector).into()],
    )?;
    let mut first = None;
    for row in 0..waiting.count {
        let upload: pgrx::Uuid = waiting.need(row, 1)?;
        let run = run::queue_other(db, connector, Kind::Upload)?;
        let run = run.ok_or(Error::UnknownConnector(connector))?;
        db.run(
            "UPDATE @extschema@.uploads SET run_id = $2 WHERE upload_id = $1",
            &[upload.into(), uuid(run).into()],
        )?;
        first = first.or(Some(run));
    }
    Ok(first)
}

/// The upload run of a connector that is queued or running, if there is one.
pub fn active(db: &mut Db, connector: Uuid) -> Result<Option<Uuid>> {
    let rows = db.run(
        "SELECT run_id FROM @extschema@.sync_runs
         WHERE connector_id = $1 AND state IN ('queued', 'running') AND kind = 'upload' ORDER BY requested_at LIMIT 1",
        &[uuid(connector).into()],
    )?;
    Ok(rows.get(0, 1)?.map(read_uuid))
}

/// The files of some runs.
pub fn of_runs(db: &mut Db, runs: Vec<Uuid>) -> Result<HashMap<Uuid, Upload>> {
    let runs: Vec<pgrx::Uuid> = runs.into_iter().map(uuid).collect();
    let rows = db.run(
        "SELECT run_id, file_name, bytes, stored_rows, definition, stored_at IS NOT NULL
         FROM @extschema@.uploads WHERE run_id = ANY ($1)",
        &[runs.into()],
    )?;
    let number = |row, column| Ok::<_, Error>(rows.need::<i64>(row, column)?.unsigned_abs());
    let upload = |row| {
        let upload = Upload {
            name: rows.need(row, 2)?,
            bytes: number(row, 3)?,
            part_bytes: PART_BYTES.unsigned_abs().into(),
            rows: number(row, 4)?,
            definition: rows.get(row, 5)?,
            is_stored: rows.need(row, 6)?,
        };
        Ok((read_uuid(rows.need(row, 1)?), upload))
    };
    (0..rows.count).map(upload).collect()
}

/// A part of a run's file.
pub fn part(db: &mut Db, run: Uuid, number: u64) -> Result<Option<Vec<u8>>> {
    let rows = db.run(
        "SELECT p.content FROM @extschema@.uploads u JOIN @extschema@.upload_parts p ON p.upload_id = u.upload_id
         WHERE u.run_id = $1 AND p.part = $2",
        &[
            uuid(run).into(),
            i32::try_from(number).unwrap_or(i32::MAX).into(),
        ],
    )?;
    rows.get(0, 1)
}

/// Deletes the file of a preview that has ended.
pub fn forget(db: &mut Db, run: Uuid) -> Result<()> {
    db.run(
        "DELETE FROM @extschema@.uploads WHERE run_id = $1",
        &[uuid(run).into()],
    )?;
    Ok(())
}

/// Records how far a file is stored, where the page is one of a file. With its last page, records that the file replaces are marked as deleted.
pub fn advance(
    db: &mut Db,
    claimed: &Claimed,
    token: Uuid,
    page: &FetchedPage,
    records: &[Record],
    counts: &mut Counts,
    written: Option<&mut Written>,
) -> Result<()> {
    let Some(mark) = &page.upload else {
        return Ok(());
    };
    let ids = records.iter().map(|record| record.id.as_str());
    let rejected = page.rejected.iter();
    let rejected = rejected.flat_map(|rejected| [&rejected.id, &rejected.formerly]);
    let rejected = rejected.filter_map(Option::as_deref);
    let shown: Vec<[u8; 16]> = ids
        .chain(rejected)
        .map(|id| json::hash(id.as_bytes()))
        .collect();
    let shown: Vec<&[u8]> = shown.iter().map(<[u8; 16]>::as_slice).collect();
    // Those of rows that were refused are not known, nor any where PostgreSQL refused a record.
    let origins = mark.origins.iter().map(<[u8; 16]>::as_slice);
    let origins: Vec<&[u8]> = match mark.origins.len() == records.len() {
        true => origins
            .chain(std::iter::repeat(b"".as_slice()))
            .take(shown.len())
            .collect(),
        false => vec![b"".as_slice(); shown.len()],
    };
    let rows = i64::try_from(mark.rows).unwrap_or(i64::MAX);
    let mut written = written;
    let gone = forget_other_reading(db, claimed, mark, &shown, written.as_deref_mut())?;
    counts.deleted += gone;
    counts.received += gone;
    let noted = db.run(
        "UPDATE @extschema@.uploads SET stored_rows = $2, definition = $3 WHERE run_id = $1 RETURNING upload_id",
        &[
            uuid(claimed.run).into(),
            rows.into(),
            mark.definition.as_str().into(),
        ],
    )?;
    let upload: pgrx::Uuid = noted.get(0, 1)?.ok_or(Error::Fenced(claimed.run))?;
    db.run(
        "INSERT INTO @extschema@.upload_records AS u (upload_id, stored_rows, records, origins) VALUES ($1, $2, $3, $4)
         ON CONFLICT (upload_id, stored_rows) DO UPDATE
         SET records = u.records || excluded.records, origins = coalesce(u.origins, '{}') || excluded.origins",
        &[upload.into(), rows.into(), shown.into(), origins.into()],
    )?;
    let Some(replaces) = mark.last else {
        return Ok(());
    };
    let reread = read_otherwise(db, claimed, upload, mark)?;
    let gone = match replaces {
        Replaces::Nothing => raw::mark_deleted(db, claimed, reread, written)?,
        Replaces::All => delete_all_others(db, claimed, token, upload, mark, reread, written)?,
        Replaces::File | Replaces::Corrected => {
            delete_corrected(db, claimed, token, upload, mark, reread, written)?
        }
    };
    counts.deleted += gone;
    counts.received += gone;
    alert_refused(db, claimed)?;
    fault::point("before_stored");
    db.run(
        "UPDATE @extschema@.uploads SET stored_at = clock_timestamp() WHERE upload_id = $1",
        &[upload.into()],
    )?;
    db.run(
        "DELETE FROM @extschema@.upload_parts WHERE upload_id = $1",
        &[upload.into()],
    )?;
    Ok(())
}

/// Deletes what a run that was interrupted stored of the file by another config: the page at hand is the first of another
/// reading of the same rows.
fn forget_other_reading(
    db: &mut Db,
    claimed: &Claimed,
    mark: &UploadMark,
    shown: &[&[u8]],
    written: Option<&mut Written>,
) -> Result<u64> {
    let begun = db.run(
        "SELECT upload_id FROM @extschema@.uploads WHERE run_id = $1 AND definition <> $2 AND stored_rows > 0 FOR UPDATE",
        &[uuid(claimed.run).into(), mark.definition.as_str().into()],
    )?;
    let Some(upload) = begun.get::<pgrx::Uuid>(0, 1)? else {
        return Ok(0);
    };
    let rows = db.run(
        "SELECT array_agg(raw_id) FILTER (WHERE was_shown AND NOT is_shown AND raw_id IS NOT NULL)
         FROM (
            SELECT (array_agg(raw_id) FILTER (WHERE raw_id IS NOT NULL))[1] AS raw_id,
                coalesce(bool_or(NOT is_shown), false) AS was_shown, coalesce(bool_or(is_shown), false) AS is_shown
            FROM (
                SELECT raw_id, substring(sha256(convert_to(source_record_id, 'UTF8')) FROM 1 FOR 16) AS hash, NULL::boolean AS is_shown
                FROM @extschema@.raw_connector_data WHERE connector_id = $1 AND NOT deleted
                UNION ALL
                SELECT NULL, unnest(r.records), r.upload_id <> $2
                FROM @extschema@.uploads u JOIN @extschema@.upload_records r ON r.upload_id = u.upload_id
                WHERE u.connector_id = $1 AND (u.upload_id = $2 OR u.stored_at IS NOT NULL)
                UNION ALL
                SELECT NULL, unnest($3::bytea[]), true) AS all_sides
            GROUP BY hash) AS record",
        &[uuid(claimed.connector).into(), upload.into(), shown.to_vec().into()],
    )?;
    let stale: Vec<pgrx::Uuid> = rows.get(0, 1)?.unwrap_or_default();
    db.run(
        "DELETE FROM @extschema@.upload_records WHERE upload_id = $1",
        &[upload.into()],
    )?;
    raw::mark_deleted(db, claimed, stale, written)
}

/// The records that are rows of this file, too, but were read of another config: by other types of columns a row has another
/// content, and by another key another id. This reading takes their place, and they would count beside it. They are known by
/// the text of the row; of the same file all of them are.
fn read_otherwise(
    db: &mut Db,
    claimed: &Claimed,
    upload: pgrx::Uuid,
    mark: &UploadMark,
) -> Result<Vec<pgrx::Uuid>> {
    let others = db.run(
        "SELECT EXISTS (
            SELECT FROM @extschema@.uploads WHERE connector_id = $1 AND upload_id <> $2 AND stored_at IS NOT NULL AND definition <> $3)",
        &[
            uuid(claimed.connector).into(),
            upload.into(),
            mark.definition.as_str().into(),
        ],
    )?;
    if !others.need::<bool>(0, 1)? {
        return Ok(Vec::new());
    }
    let rows = db.run(
        // Grouped, because it is quick whatever the planner knows of either side. What a file shows that was read as this one
        // is stays.
        "WITH row_of_this AS MATERIALIZED (
            SELECT DISTINCT o.origin FROM @extschema@.upload_records r CROSS JOIN LATERAL unnest(r.origins) AS o(origin)
            WHERE r.upload_id = $2 AND o.origin <> ''),
         other AS MATERIALIZED (
            SELECT u.sha256 = this.sha256 AS is_same, unnest(r.records) AS hash, unnest(r.origins) AS origin
            FROM @extschema@.uploads u JOIN @extschema@.upload_records r ON r.upload_id = u.upload_id
                CROSS JOIN (SELECT sha256 FROM @extschema@.uploads WHERE upload_id = $2) AS this
            WHERE u.connector_id = $1 AND u.upload_id <> $2 AND u.stored_at IS NOT NULL AND u.definition <> $3)
         SELECT array_agg(raw_id) FILTER (WHERE is_reread AND NOT is_shown AND raw_id IS NOT NULL)
         FROM (
            SELECT (array_agg(raw_id) FILTER (WHERE raw_id IS NOT NULL))[1] AS raw_id,
                coalesce(bool_or(NOT is_shown), false) AS is_reread, coalesce(bool_or(is_shown), false) AS is_shown
            FROM (
                SELECT raw_id, substring(sha256(convert_to(source_record_id, 'UTF8')) FROM 1 FOR 16) AS hash, NULL::boolean AS is_shown
                FROM @extschema@.raw_connector_data WHERE connector_id = $1 AND NOT deleted
                UNION ALL
                SELECT NULL, unnest(r.records), true
                FROM @extschema@.uploads u JOIN @extschema@.upload_records r ON r.upload_id = u.upload_id
                WHERE u.connector_id = $1 AND (u.upload_id = $2 OR u.stored_at IS NOT NULL AND u.definition = $3)
                UNION ALL
                SELECT NULL, o.hash, false FROM other o LEFT JOIN row_of_this t ON t.origin = o.origin
                WHERE o.is_same OR t.origin IS NOT NULL) AS all_sides
            GROUP BY hash) AS record",
        &[
            uuid(claimed.connector).into(),
            upload.into(),
            mark.definition.as_str().into(),
        ],
    )?;
    Ok(rows.get(0, 1)?.unwrap_or_default())
}

/// Raises an alert for each kind of rows of the file that were refused, and closes those of which none is left.
fn alert_refused(db: &mut Db, claimed: &Claimed) -> Result<()> {
    db.run(
        "INSERT INTO @extschema@.data_quality_alerts (tenant_id, connector_id, alert_type, severity, message, occurrences, alert_key)
         SELECT u.tenant_id, u.connector_id, 'schema_error', 'warning',
            format('stream \"%s\": %s of the file \"%s\" could not be read, such as %s; such rows are not stored', q.stream,
                CASE sum(q.occurrences) WHEN 1 THEN '1 row' ELSE sum(q.occurrences) || ' rows' END,
                left(u.file_name, 100), (array_agg(left(q.reason, 300) ORDER BY q.quarantine_id))[1]),
            least(sum(q.occurrences), 2147483647), format('file:%s:%s:%s', u.connector_id, q.reason_code, q.stream)
         FROM @extschema@.uploads u JOIN @extschema@.quarantine q ON q.run_id = u.run_id AND q.connector_id = u.connector_id
         WHERE u.run_id = $1 AND q.raw_id IS NULL AND q.replayed_at IS NULL
         GROUP BY u.upload_id, q.stream, q.reason_code",
        &[uuid(claimed.run).into()],
    )?;
    db.run(
        "UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
         WHERE a.connector_id = $1 AND a.alert_type = 'schema_error' AND NOT a.resolved_by_data AND a.alert_key LIKE 'file:%'
            AND NOT EXISTS (
                SELECT FROM @extschema@.quarantine q
                WHERE q.connector_id = $1 AND q.raw_id IS NULL AND q.replayed_at IS NULL
                    AND a.alert_key = format('file:%s:%s:%s', q.connector_id, q.reason_code, q.stream))",
        &[uuid(claimed.connector).into()],
    )?;
    Ok(())
}

/// Marks every record as deleted that this file does not contain, and forgets all other files.
fn delete_all_others(
    db: &mut Db,
    claimed: &Claimed,
    token: Uuid,
    upload: pgrx::Uuid,
    mark: &UploadMark,
    reread: Vec<pgrx::Uuid>,
    written: Option<&mut Written>,
) -> Result<u64> {
    let rows = db.run(
        // Grouped, because it is quick whatever the planner knows of either side.
        "SELECT array_agg(raw_id) FILTER (WHERE NOT is_shown AND raw_id IS NOT NULL)
         FROM (
            SELECT (array_agg(raw_id) FILTER (WHERE raw_id IS NOT NULL))[1] AS raw_id, bool_or(raw_id IS NULL) AS is_shown
            FROM (
                SELECT raw_id, substring(sha256(convert_to(source_record_id, 'UTF8')) FROM 1 FOR 16) AS hash
                FROM @extschema@.raw_connector_data WHERE connector_id = $1 AND NOT deleted
                UNION ALL
                SELECT NULL, unnest(records) FROM @extschema@.upload_records WHERE upload_id = $2) AS both_sides
            GROUP BY hash) AS record",
        &[uuid(claimed.connector).into(), upload.into()],
    )?;
    let missing: Vec<pgrx::Uuid> = rows.get(0, 1)?.unwrap_or_default();
    if may_be_refused(db, claimed, token, mark, missing.len())? {
        return raw::mark_deleted(db, claimed, reread, written);
    }
    let gone = raw::mark_deleted(db, claimed, missing, written)?;
    replace(db, claimed, upload, None)?;
    Ok(gone)
}

/// Marks records as deleted that an earlier file of the same name contained and this one does not, unless a file with another
/// name contains them.
fn delete_corrected(
    db: &mut Db,
    claimed: &Claimed,
    token: Uuid,
    upload: pgrx::Uuid,
    mark: &UploadMark,
    reread: Vec<pgrx::Uuid>,
    written: Option<&mut Written>,
) -> Result<u64> {
    let named = db.run(
        "SELECT u.file_name, EXISTS (
            SELECT FROM @extschema@.uploads o
            WHERE o.connector_id = u.connector_id AND o.file_name = u.file_name AND o.stored_at IS NOT NULL AND o.upload_id <> u.upload_id)
         FROM @extschema@.uploads u WHERE u.upload_id = $1",
        &[upload.into()],
    )?;
    let (name, has_earlier): (String, bool) = (named.need(0, 1)?, named.need(0, 2)?);
    if !has_earlier {
        return raw::mark_deleted(db, claimed, reread, written);
    }
    let rows = db.run(
        // Grouped, as above. Rows of this file, or of a file with another name, count as shown.
        "SELECT count(*) FILTER (WHERE was_shown), array_agg(raw_id) FILTER (WHERE was_shown AND NOT is_shown AND raw_id IS NOT NULL)
         FROM (
            SELECT (array_agg(raw_id) FILTER (WHERE raw_id IS NOT NULL))[1] AS raw_id,
                coalesce(bool_or(NOT is_shown), false) AS was_shown, coalesce(bool_or(is_shown), false) AS is_shown
            FROM (
                SELECT raw_id, substring(sha256(convert_to(source_record_id, 'UTF8')) FROM 1 FOR 16) AS hash, NULL::boolean AS is_shown
                FROM @extschema@.raw_connector_data WHERE connector_id = $1 AND NOT deleted
                UNION ALL
                SELECT NULL, unnest(r.records), u.upload_id = $3 OR u.file_name <> $2
                FROM @extschema@.uploads u JOIN @extschema@.upload_records r ON r.upload_id = u.upload_id
                WHERE u.connector_id = $1 AND (u.upload_id = $3 OR u.stored_at IS NOT NULL)) AS all_sides
            GROUP BY hash) AS record",
        &[
            uuid(claimed.connector).into(),
            name.as_str().into(),
            upload.into(),
        ],
    )?;
    let earlier: i64 = rows.need(0, 1)?;
    let missing: Vec<pgrx::Uuid> = rows.get(0, 2)?.unwrap_or_default();
    if may_be_refused(db, claimed, token, mark, missing.len())? {
        return raw::mark_deleted(db, claimed, reread, written);
    }
    // What was read otherwise is there, by another id.
    let count = (missing.len() as i64).saturating_sub(reread.len() as i64);
    if mark.last != Some(Replaces::File) && count * 2 > earlier {
        let is_kept = is_another_file(count, earlier, mark.has_key);
        let done = match is_kept {
            true => "too many for a correction; they are kept",
            false => {
                "and were marked as deleted, because a file of the same name is a correction of the earlier one"
            }
        };
        let warning = format!(
            "{count} of {earlier} rows of the earlier file with this name are not in the new one, {done}. Set \"replaces\" in config to \"file\", \"all\" or \"nothing\" to say what a file replaces"
        );
        run::warn(db, claimed.run, token, &warning)?;
        if is_kept {
            return raw::mark_deleted(db, claimed, reread, written);
        }
    }
    let missing = union(missing, reread);
    let gone = raw::mark_deleted(db, claimed, missing, written)?;
    replace(db, claimed, upload, Some(&name))?;
    Ok(gone)
}

/// Whether so many rows are missing that the file is another one with the same name, and no correction. Of a few rows most may
/// be corrected, but hardly all of them, unless there are one or two, which nothing tells from others.
fn is_another_file(missing: i64, earlier: i64, has_key: bool) -> bool {
    let shared = earlier - missing;
    let is_tiny = !has_key && earlier <= TINY;
    missing > FEW || shared * 4 < earlier && !is_tiny
}

fn union(mut some: Vec<pgrx::Uuid>, others: Vec<pgrx::Uuid>) -> Vec<pgrx::Uuid> {
    some.extend(others);
    some.sort_unstable_by_key(|id| *id.as_bytes());
    some.dedup();
    some
}

/// Whether records that a file does not show may be rows of it that were refused, and whose ids are not known; with a
/// warning. Rows that were refused in an earlier file too are no stored records.
fn may_be_refused(
    db: &mut Db,
    claimed: &Claimed,
    token: Uuid,
    mark: &UploadMark,
    missing: usize,
) -> Result<bool> {
    let missing = i64::try_from(missing).unwrap_or(i64::MAX);
    if missing == 0 {
        return Ok(false);
    }
    let rows = db.run(
        "SELECT coalesce(sum(q.occurrences), 0)::bigint FROM @extschema@.quarantine q JOIN @extschema@.sync_runs r ON r.run_id = q.run_id
         WHERE q.run_id = $1 AND q.raw_id IS NULL AND q.source_record_id IS NULL AND q.reason_code <> 'key_missing'
            AND q.created_at >= r.started_at",
        &[uuid(claimed.run).into()],
    )?;
    let refused: i64 = rows.need(0, 1)?;
    // Without a key a changed row is another record: where more are missing than were refused, some are gone for sure, and
    // to keep them would count them beside what came in their place.
    if refused == 0 {
        return Ok(false);
    }
    let is_kept = mark.has_key || missing <= refused;
    let warning = format!(
        "{} of the earlier file {} not in this one, but {} of this file could not be read; {}. See quarantine, and upload the file again when its rows can be read",
        counted(missing.unsigned_abs(), "row"),
        if missing == 1 { "is" } else { "are" },
        counted(refused.unsigned_abs(), "row"),
        match is_kept {
            true => "no record was marked as deleted",
            false => "the records of the earlier file were marked as deleted",
        },
    );
    run::warn(db, claimed.run, token, &warning)?;
    Ok(is_kept)
}

/// Deletes the files that this one replaces, and their records in the quarantine.
fn replace(db: &mut Db, claimed: &Claimed, upload: pgrx::Uuid, name: Option<&str>) -> Result<()> {
    db.run(
        "DELETE FROM @extschema@.uploads
         WHERE connector_id = $1 AND upload_id <> $2 AND stored_at IS NOT NULL AND ($3 IS NULL OR file_name = $3)",
        &[uuid(claimed.connector).into(), upload.into(), name.into()],
    )?;
    db.run(
        "DELETE FROM @extschema@.quarantine q
         WHERE q.connector_id = $1 AND q.raw_id IS NULL
            AND NOT EXISTS (SELECT FROM @extschema@.uploads u WHERE u.run_id = q.run_id)",
        &[uuid(claimed.connector).into()],
    )?;
    Ok(())
}
