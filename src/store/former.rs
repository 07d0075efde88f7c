//! Ids of an older version: a record that is stored under one keeps it, so that an update doubles nothing.
//!
//! The rule of today is in `core/json/identity.rs`. Where a record's former id is another one, it comes with the record.

use std::borrow::Cow;
use std::collections::HashSet;

use connector_service_core::record::Record;

use super::run::Claimed;
use super::{Db, uuid};
use crate::error::Result;

/// Most rows that are known by their content and are searched for a key. More: a page takes too long. Fewer: of a larger
/// stream, a record whose key was not taken for one is stored once more if it changed since.
const MOST_SEARCHED: i64 = 50_000;

/// Records with the ids that they are stored under, and rows that show the same record a second time.
pub struct Kept<'a> {
    pub records: Cow<'a, [Record]>,
    pub doubles: Vec<pgrx::Uuid>,
    /// Whether some record is stored already.
    pub is_any: bool,
}

/// Looks for the records that an older version stored under another id: they keep it. A row with the former id of a record
/// that is stored under its new one is the same record once more, as an older version stored it when its key came in another
/// spelling.
pub fn with_kept_ids<'a>(
    db: &mut Db,
    claimed: &Claimed,
    stream: &str,
    records: &'a [Record],
) -> Result<Kept<'a>> {
    let mut kept = Kept {
        records: Cow::Borrowed(records),
        doubles: Vec::new(),
        is_any: false,
    };
    let met = by_former_id(db, claimed, stream, records, &mut kept)?;
    by_key(db, claimed, stream, records, met, &mut kept)?;
    kept.doubles.sort_unstable_by_key(|id| *id.as_bytes());
    kept.doubles.dedup();
    Ok(kept)
}

/// Records that are stored under their former ids: their places, and the rows that stay theirs.
#[derive(Default)]
struct Met {
    places: HashSet<usize>,
    rows: Vec<pgrx::Uuid>,
}

/// Whether no part of the key has more than an empty text. To an older version this was no key, so that rows with it may
/// be different records, and no states of one.
fn is_empty_key(record: &Record) -> bool {
    let key = record.key.as_deref();
    let Some(key) = key.and_then(|key| serde_json::from_str::<Vec<Vec<String>>>(key).ok()) else {
        return false;
    };
    let Ok(data) = serde_json::from_slice::<serde_json::Value>(&record.json) else {
        return false;
    };
    key.iter().all(|path| {
        let value = path.iter().try_fold(&data, |value, step| value.get(step));
        value.is_none_or(|value| value.is_null() || value == "")
    })
}

/// Finds the records that are stored under their former ids.
fn by_former_id(
    db: &mut Db,
    claimed: &Claimed,
    stream: &str,
    records: &[Record],
    kept: &mut Kept,
) -> Result<Met> {
    let mut met = Met::default();
    let former = records.iter().enumerate();
    let former =
        former.filter_map(|(place, record)| Some((place, &record.id, record.formerly.as_deref()?)));
    let former: Vec<(usize, &String, &str)> = former.collect();
    if former.is_empty() {
        return Ok(met);
    }
    let places: Vec<i64> = former.iter().map(|(place, _, _)| *place as i64).collect();
    let ids: Vec<&str> = former.iter().map(|(_, id, _)| id.as_str()).collect();
    let formers: Vec<&str> = former.iter().map(|(_, _, former)| *former).collect();
    // Of another stream it is another record: the former ids of the streams "a" and "a/b" were alike.
    let rows = db.run(
        "SELECT page.place, stored.raw_id, stored.deleted, EXISTS (
            SELECT FROM @extschema@.raw_connector_data n WHERE n.connector_id = $1 AND n.source_record_id = page.id)
         FROM (SELECT unnest($2) AS place, unnest($3) AS id, unnest($4) AS former) AS page
         CROSS JOIN LATERAL (
            SELECT r.raw_id, r.deleted FROM @extschema@.raw_connector_data r
            WHERE r.connector_id = $1 AND r.source_record_id = page.former AND r.stream = $5
            OFFSET 0) AS stored",
        &[
            uuid(claimed.connector).into(),
            places.into(),
            ids.into(),
            formers.into(),
            stream.into(),
        ],
    )?;
    for row in 0..rows.count {
        let place: i64 = rows.need(row, 1)?;
        let (is_deleted, is_new_stored): (bool, bool) = (rows.need(row, 3)?, rows.need(row, 4)?);
        let Ok(place) = usize::try_from(place) else {
            continue;
        };
        met.places.insert(place);
        kept.is_any = true;
        let may_be_another = || records.get(place).is_some_and(is_empty_key);
        if is_new_stored && (is_deleted || !may_be_another()) {
            if !is_deleted {
                kept.doubles.push(rows.need(row, 2)?);
            }
            continue;
        }
        met.rows.push(rows.need(row, 2)?);
        if let Some(record) = kept.records.to_mut().get_mut(place)
            && let Some(former) = record.formerly.take()
        {
            record.id = former;
        }
    }
    Ok(met)
}

/// Finds records whose key an older version did not take for one: it knew each state by its content. The latest row with the
/// same key is the record, and gets its id; the others are states that it had. Where the key is empty, they may be other
/// records, and stay as they are.
fn by_key(
    db: &mut Db,
    claimed: &Claimed,
    stream: &str,
    records: &[Record],
    met: Met,
    kept: &mut Kept,
) -> Result<()> {
    let keyed = records.iter().enumerate();
    let keyed = keyed.filter(|(place, record)| record.key.is_some() && !met.places.contains(place));
    let keyed: Vec<&Record> = keyed.map(|(_, record)| record).collect();
    let Some(key) = keyed.first().and_then(|record| record.key.as_deref()) else {
        return Ok(());
    };
    // By the beginning of the ids, for which there is an index: "#" is followed by "$".
    let known = db.run(
        "SELECT count(*) FROM (
            SELECT FROM @extschema@.raw_connector_data
            WHERE connector_id = $1 AND source_record_id >= $2 || '/#' AND source_record_id < $2 || '/$' AND stream = $2 LIMIT $3) AS known",
        &[
            uuid(claimed.connector).into(),
            stream.into(),
            (MOST_SEARCHED + 1).into(),
        ],
    )?;
    if !(1..=MOST_SEARCHED).contains(&known.need::<i64>(0, 1)?) {
        return Ok(());
    }
    let ids: Vec<&str> = keyed.iter().map(|record| record.id.as_str()).collect();
    let texts = keyed
        .iter()
        .map(|record| std::str::from_utf8(&record.json).unwrap_or_default());
    let texts: Vec<&str> = texts.collect();
    let hashes: Vec<&[u8]> = keyed.iter().map(|record| record.hash.as_slice()).collect();
    let rows = db.run(
        "WITH path AS MATERIALIZED (
            SELECT p.n, ARRAY(SELECT jsonb_array_elements_text(p.steps)) AS steps
            FROM jsonb_array_elements($4::text::jsonb) WITH ORDINALITY AS p(steps, n)),
         page AS MATERIALIZED (
            SELECT DISTINCT ON (came.id) came.id, came.hash, (SELECT jsonb_agg(came.data::jsonb #> p.steps ORDER BY p.n) FROM path p) AS key
            FROM (SELECT unnest($2) AS id, unnest($3) AS data, unnest($7) AS hash) AS came
            WHERE NOT EXISTS (
                SELECT FROM @extschema@.raw_connector_data n WHERE n.connector_id = $1 AND n.source_record_id = came.id)),
         known AS MATERIALIZED (
            -- Of a record whose JSON was dropped only the content is known.
            SELECT r.raw_id, CASE WHEN r.dropped_at IS NULL THEN (SELECT jsonb_agg(r.data #> p.steps ORDER BY p.n) FROM path p) END AS key,
                CASE WHEN r.dropped_at IS NOT NULL THEN r.content_hash END AS hash
            FROM @extschema@.raw_connector_data r
            WHERE r.connector_id = $1 AND r.source_record_id >= $5 || '/#' AND r.source_record_id < $5 || '/$' AND r.stream = $5 AND NOT r.deleted
                AND r.raw_id <> ALL ($6) AND EXISTS (SELECT FROM page))
         SELECT met.id, array_agg(met.raw_id ORDER BY met.raw_id DESC)
         FROM (
            SELECT page.id, known.raw_id FROM page JOIN known ON known.key = page.key
            UNION ALL
            SELECT page.id, known.raw_id FROM page JOIN known ON known.hash = page.hash) AS met
         GROUP BY met.id ORDER BY met.id",
        &[
            uuid(claimed.connector).into(),
            ids.into(),
            texts.into(),
            key.into(),
            stream.into(),
            met.rows.into(),
            hashes.into(),
        ],
    )?;
    let empty = keyed.iter().filter(|record| is_empty_key(record));
    let empty: HashSet<&str> = empty.map(|record| record.id.as_str()).collect();
    let mut renamed: (Vec<pgrx::Uuid>, Vec<String>) = (Vec::new(), Vec::new());
    for row in 0..rows.count {
        // They grow with time.
        let mut states = rows.need::<Vec<pgrx::Uuid>>(row, 2)?.into_iter();
        renamed.0.extend(states.next());
        let id: String = rows.need(row, 1)?;
        if !empty.contains(id.as_str()) {
            kept.doubles.extend(states);
        }
        renamed.1.push(id);
    }
    if renamed.0.is_empty() {
        return Ok(());
    }
    kept.is_any = true;
    db.run(
        "UPDATE @extschema@.raw_connector_data r SET source_record_id = named.id
         FROM (SELECT unnest($1) AS raw_id, unnest($2) AS id) AS named WHERE r.raw_id = named.raw_id",
        &[renamed.0.into(), renamed.1.into()],
    )?;
    Ok(())
}
