//! Stores what webhooks deliver in `raw_connector_data`.
//!
//! An event is stored once: a delivery with a known id is a repeat. A record replaces the stored one unless its state is older,
//! because deliveries come in any order. The sync worker is woken, and has the facts derived.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use connector_service_core::record::{Record, Rejected};
use connector_service_core::source::hook::Delivery;
use uuid::Uuid;

use super::run::{Claimed, Counts, Kind};
use super::{Db, connector, former, quarantine, raw, read_uuid, run, uuid};
use crate::error::Result;
use crate::fault;

/// A connector that webhooks are delivered to.
pub struct Target {
    pub connector: Uuid,
    pub tenant: Uuid,
    pub source: String,
    pub config: String,
    pub credentials: String,
    pub is_paused: bool,
}

/// The connectors of these ids, and the time.
pub fn targets(db: &mut Db, ids: Vec<Uuid>) -> Result<(HashMap<Uuid, Target>, DateTime<Utc>)> {
    let ids: Vec<pgrx::Uuid> = ids.into_iter().map(uuid).collect();
    let rows = db.run(
        "SELECT connector_id, tenant_id, type, config::text, credentials::text, status = 'paused'
         FROM @extschema@.connectors WHERE connector_id = ANY ($1)",
        &[ids.into()],
    )?;
    let mut targets = HashMap::new();
    for row in 0..rows.count {
        let connector = read_uuid(rows.need(row, 1)?);
        let target = Target {
            connector,
            tenant: read_uuid(rows.need(row, 2)?),
            source: rows.need(row, 3)?,
            config: rows.need(row, 4)?,
            credentials: rows.need(row, 5)?,
            is_paused: rows.need(row, 6)?,
        };
        targets.insert(connector, target);
    }
    let clock = db.run("SELECT (extract(epoch FROM now()) * 1000000)::bigint", &[])?;
    let now = DateTime::from_timestamp_micros(clock.need(0, 1)?).unwrap_or_default();
    Ok((targets, now))
}

/// What several deliveries contain of one stream.
#[derive(Default)]
struct Received {
    are_events: bool,
    records: HashMap<String, Record>,
    rejected: Vec<Rejected>,
}

impl Received {
    fn take(&mut self, mut record: Record) {
        match self.records.get(&record.id) {
            Some(there) if self.are_events || is_older(record.at, there.at) => {}
            there => {
                // A state without a time does not hide the greatest time known.
                record.at = record.at.max(there.and_then(|there| there.at));
                self.records.insert(record.id.clone(), record);
            }
        }
    }
}

/// Stores deliveries to one connector, and counts them in its run of this hour. If a delivery asks for a sync and is not a
/// repeat, a sync is queued.
pub fn store(db: &mut Db, target: &Target, deliveries: &[&Delivery]) -> Result<()> {
    let mut counts = Counts::default();
    let mut streams: HashMap<&str, Received> = HashMap::new();
    for delivery in deliveries {
        let received = streams.entry(&delivery.stream).or_default();
        received.are_events = delivery.are_events;
        received.rejected.extend(delivery.rejected.iter().cloned());
        for record in &delivery.records {
            counts.received += 1;
            counts.bytes += record.json.len() as u64;
            received.take(record.clone());
        }
    }
    let claimed = Claimed {
        run: run::of_webhooks(db, target.connector)?,
        connector: target.connector,
        tenant: target.tenant,
        source: target.source.clone(),
        kind: Kind::Webhook,
        config: String::new(),
        credentials: String::new(),
        now: DateTime::default(),
        span: None,
    };
    for (stream, received) in streams {
        let stored = store_stream(db, &claimed, stream, received)?;
        counts.inserted += stored.inserted;
        counts.updated += stored.updated;
        counts.quarantined += stored.quarantined;
        counts.received += stored.quarantined;
    }
    let written = counts.inserted + counts.updated + counts.quarantined;
    counts.unchanged = counts.received - written;
    run::add_deliveries(db, claimed.run, deliveries.len() as u64, &counts)?;
    if target.source == "webhook" {
        connector::pushed(db, target.connector)?;
    }
    let mut warnings: Vec<&str> = deliveries
        .iter()
        .filter_map(|d| d.warning.as_deref())
        .collect();
    warnings.sort_unstable();
    warnings.dedup();
    for warning in warnings {
        run::warn_of_deliveries(db, claimed.run, warning)?;
    }
    // A repeat is nothing new. A delivery without records may still announce a change.
    let is_new = counts.inserted + counts.quarantined > 0;
    let triggers_sync =
        |delivery: &&Delivery| delivery.triggers_sync && (is_new || delivery.records.is_empty());
    if deliveries.iter().any(triggers_sync) {
        run::ask(db, target.connector)?;
    }
    fault::point("before_webhook_commit");
    Ok(())
}

/// Whether a state is older than another one. False if one of them has no time: then the later delivery counts.
fn is_older(at: Option<DateTime<Utc>>, than: Option<DateTime<Utc>>) -> bool {
    at.zip(than).is_some_and(|(at, than)| at < than)
}

fn store_stream(
    db: &mut Db,
    claimed: &Claimed,
    stream: &str,
    mut received: Received,
) -> Result<Counts> {
    if received
        .records
        .values()
        .any(|record| record.formerly.is_some())
    {
        let records: Vec<Record> = std::mem::take(&mut received.records)
            .into_values()
            .collect();
        let kept = former::with_kept_ids(db, claimed, stream, &records)?;
        raw::mark_deleted(db, claimed, kept.doubles, None)?;
        for record in kept.records.into_owned() {
            received.take(record);
        }
    }
    let mut records = received.records;
    let stored = stored(db, claimed, records.keys())?;
    let is_any = !stored.is_empty();
    for (id, at) in stored {
        let is_late = |record: &Record| is_older(record.at, at);
        if received.are_events || records.get(&id).is_some_and(is_late) {
            records.remove(&id);
        }
    }
    let records: Vec<Record> = records.into_values().collect();
    // Events that are stored already were removed above.
    let mut search = is_any && !received.are_events;
    let mut counts = raw::store(db, claimed, stream, &records, &mut search, None)?;
    if counts.unchanged > 0 {
        note_times(db, claimed, &records)?;
    }
    quarantine::add(db, claimed, stream, &received.rejected)?;
    counts.quarantined = received.rejected.len() as u64;
    Ok(counts)
}

/// Stores the later time of records whose content is unchanged, so that older states are recognised from now on.
fn note_times(db: &mut Db, claimed: &Claimed, records: &[Record]) -> Result<()> {
    let timed = || {
        records
            .iter()
            .filter_map(|record| Some((record, record.at?)))
    };
    let ids: Vec<&str> = timed().map(|(record, _)| record.id.as_str()).collect();
    let times: Vec<i64> = timed().map(|(_, at)| at.timestamp_micros()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    db.run(
        "UPDATE @extschema@.raw_connector_data r SET source_version = newer.at
         FROM (
            SELECT stored.raw_id, page.at
            FROM (SELECT unnest($2) AS id, 'epoch'::timestamptz + unnest($3) * interval '1 microsecond' AS at) AS page
            CROSS JOIN LATERAL (
                SELECT known.raw_id, known.source_version FROM @extschema@.raw_connector_data known
                WHERE known.connector_id = $1 AND known.source_record_id = page.id
                OFFSET 0) AS stored
            WHERE stored.source_version IS DISTINCT FROM page.at) AS newer
         WHERE r.raw_id = newer.raw_id",
        &[
            uuid(claimed.connector).into(),
            ids.into(),
            times.into(),
        ],
    )?;
    Ok(())
}

/// Which of these records are stored, and the time of the state that each shows; locked, so that nothing newer comes
/// in between. What is gone at the source shows no state.
fn stored<'a>(
    db: &mut Db,
    claimed: &Claimed,
    ids: impl Iterator<Item = &'a String>,
) -> Result<Vec<(String, Option<DateTime<Utc>>)>> {
    let mut ids: Vec<&str> = ids.map(String::as_str).collect();
    // In a fixed order, so that two transactions cannot deadlock.
    ids.sort_unstable();
    // OFFSET 0 keeps the look-up a look-up: one probe of the index for each record, whatever the planner knows.
    let rows = db.run(
        "SELECT page.id, stored.micros FROM unnest($2) AS page(id)
         CROSS JOIN LATERAL (
            SELECT CASE WHEN NOT r.deleted THEN (extract(epoch FROM r.source_version) * 1000000)::bigint END AS micros
            FROM @extschema@.raw_connector_data r
            WHERE r.connector_id = $1 AND r.source_record_id = page.id
            OFFSET 0 FOR NO KEY UPDATE) AS stored",
        &[uuid(claimed.connector).into(), ids.into()],
    )?;
    (0..rows.count)
        .map(|row| {
            let at: Option<i64> = rows.get(row, 2)?;
            Ok((
                rows.need(row, 1)?,
                at.and_then(DateTime::from_timestamp_micros),
            ))
        })
        .collect()
}
