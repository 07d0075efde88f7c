//! A page as it would be stored: through mappings and every constraint, reported, and rolled back.

use std::time::Duration;

use connector_service_core::fetch::FetchedPage;
use pgrx::JsonB;
use serde_json::{Value, json};

use super::raw::{Missing, Written};
use super::run::Claimed;
use super::{Db, bounded, fact, former, lock, metric, page, raw, uuid};
use crate::error::{Error, Result};

/// Most days that a preview sums. More: a page of many days keeps the worker busy. Fewer: metrics are left out.
const MOST_DAYS: i32 = 1_000;

/// Longest time for a preview. Longer: all other pages wait for one tenant's mapping. Shorter: a large page gets no preview.
const TRIED_WITHIN: Duration = Duration::from_secs(2);

/// What a page would store. `None`: another session has the lock of the tenant's facts.
pub fn of_page(claimed: &Claimed, fetched: &mut FetchedPage) -> Result<Option<Value>> {
    let mut report = None;
    let mut tried = bounded(TRIED_WITHIN, |db| {
        roll_back(db, claimed, fetched, &mut report)
    });
    if matches!(&tried, Err(error) if error.is_about_data())
        && page::reject_refused(claimed, fetched)?
    {
        tried = bounded(TRIED_WITHIN, |db| {
            roll_back(db, claimed, fetched, &mut report)
        });
    }
    match tried {
        Err(Error::RolledBack) | Ok(()) => Ok(report),
        Err(error) => Err(error),
    }
}

fn roll_back(
    db: &mut Db,
    claimed: &Claimed,
    fetched: &FetchedPage,
    report: &mut Option<Value>,
) -> Result<()> {
    if !lock::try_facts(claimed.tenant) {
        return Err(Error::RolledBack);
    }
    let mut written = Written::default();
    let stream = &fetched.stream;
    let kept = former::with_kept_ids(db, claimed, stream, &fetched.records)?;
    let records = kept.records.as_ref();
    let stored = raw::store(db, claimed, stream, records, &mut true, Some(&mut written))?;
    let mut deleted = raw::delete(db, claimed, &fetched.deleted, Some(&mut written))?;
    let part = fetched.part.as_ref();
    if let Some(shown) = &fetched.all
        && let Missing::Deleted(gone) =
            raw::delete_others(db, claimed, stream, shown, part, Some(&mut written))?
    {
        deleted.deleted += gone;
    }
    let unmapped = fact::derive(db, claimed.connector, claimed.run, &written)?;
    metric::settle(db, claimed.tenant, MOST_DAYS)?;
    // Deferred constraints are checked now, because there is no COMMIT.
    db.run("SET CONSTRAINTS ALL IMMEDIATE", &[])?;
    let ids: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
    let rows = db.run(
        "WITH fact AS MATERIALIZED (
            SELECT f.* FROM @extschema@.raw_connector_data r JOIN @extschema@.metric_facts f ON f.raw_id = r.raw_id
            WHERE r.connector_id = $1 AND r.source_record_id = ANY ($2))
         SELECT jsonb_build_object(
            'facts', (SELECT coalesce(jsonb_agg(to_jsonb(g)), '[]') FROM (
                SELECT metric_type, category, currency, count(*) AS facts, sum(value) AS total, min(metric_date) AS first_day, max(metric_date) AS last_day
                FROM fact GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT 100) AS g),
            'metrics', (SELECT coalesce(jsonb_agg(to_jsonb(m)), '[]') FROM (
                SELECT m.metric_type, m.metric_date, m.metric_value
                FROM (SELECT DISTINCT metric_type, metric_date FROM fact) AS day
                    JOIN @extschema@.all_metrics m ON m.tenant_id = $3 AND m.metric_type = day.metric_type AND m.metric_date = day.metric_date
                ORDER BY 2 DESC, 1 LIMIT 31) AS m),
            'unreadable', (SELECT coalesce(jsonb_agg(to_jsonb(p)), '[]') FROM (
                SELECT q.reason_code, min(q.reason) AS example, count(*) AS records
                FROM @extschema@.quarantine q
                WHERE q.connector_id = $1 AND q.source_record_id = ANY ($2) AND q.raw_id IS NOT NULL AND q.replayed_at IS NULL
                GROUP BY 1 ORDER BY 3 DESC, 1 LIMIT 20) AS p))",
        &[
            uuid(claimed.connector).into(),
            ids.into(),
            uuid(claimed.tenant).into(),
        ],
    )?;
    let JsonB(mut found) = rows.need(0, 1)?;
    if let Some(fields) = found.as_object_mut() {
        for (name, count) in [
            ("inserted", stored.inserted),
            ("updated", stored.updated),
            ("unchanged", stored.unchanged),
            ("deleted", deleted.deleted),
            ("unmapped", unmapped),
        ] {
            fields.insert(name.to_owned(), json!(count));
        }
    }
    *report = Some(found);
    Err(Error::RolledBack)
}
