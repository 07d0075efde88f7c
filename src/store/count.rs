//! `count_decisions`: which connectors of a tenant count, where several see the same money.

use std::collections::BTreeMap;

use connector_service_core::count::{Amount, Partner};
use uuid::Uuid;

use super::{Db, lock, read_uuid, uuid};
use crate::error::Result;

/// A tenant's metric type whose connectors are to be compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    pub tenant: Uuid,
    pub metric_type: String,
}

/// A connector of a tenant.
#[derive(Debug, Clone)]
pub struct Source {
    pub connector: Uuid,
    pub class: String,
    pub rank: i32,
    pub partner: Partner,
}

/// A decision that stands.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    pub counts: bool,
    pub is_by_person: bool,
    pub is_same: bool,
    pub first: Option<i32>,
    pub last: Option<i32>,
}

/// The amounts of a tenant's records, by connector and part.
#[derive(Debug, Default)]
pub struct Amounts {
    pub of: BTreeMap<(Uuid, String), Vec<Amount>>,
    pub currencies: Vec<String>,
}

/// What is to be compared. True: at once.
pub fn due(db: &mut Db) -> Result<Vec<(Due, bool)>> {
    let rows = db.run(
        "SELECT c.tenant_id, c.metric_type, bool_or(c.is_urgent) FROM @extschema@.count_due c GROUP BY 1, 2 ORDER BY 1, 2",
        &[],
    )?;
    (0..rows.count)
        .map(|row| {
            let due = Due {
                tenant: read_uuid(rows.need(row, 1)?),
                metric_type: rows.need(row, 2)?,
            };
            Ok((due, rows.need(row, 3)?))
        })
        .collect()
}

/// Whether something is to be compared at once.
pub fn is_any_urgent(db: &mut Db) -> Result<bool> {
    db.run(
        "SELECT EXISTS (SELECT FROM @extschema@.count_due c WHERE c.is_urgent)",
        &[],
    )?
    .need(0, 1)
}

/// What asks for a comparison, by its ids.
pub fn asked(db: &mut Db, due: &Due) -> Result<Vec<pgrx::Uuid>> {
    let rows = db.run(
        "SELECT array_agg(c.due_id) FROM @extschema@.count_due c WHERE c.tenant_id = $1 AND c.metric_type = $2",
        &[uuid(due.tenant).into(), due.metric_type.as_str().into()],
    )?;
    Ok(rows.get(0, 1)?.unwrap_or_default())
}

/// Forgets what asked for a comparison.
pub fn forget(db: &mut Db, asked: Vec<pgrx::Uuid>) -> Result<()> {
    db.run(
        "DELETE FROM @extschema@.count_due c WHERE c.due_id = ANY ($1)",
        &[asked.into()],
    )?;
    Ok(())
}

/// The connectors of a tenant, the closest to the sale first.
pub fn sources(db: &mut Db, due: &Due) -> Result<Vec<Source>> {
    let rows = db.run(
        "SELECT s.connector_id, s.class, s.rank, s.is_paused, s.is_asked, s.last_sync - '2000-01-01'::date
         FROM _connector_service.connector_service_count_sources($1, $2) s ORDER BY s.rank, s.connector_id",
        &[uuid(due.tenant).into(), due.metric_type.as_str().into()],
    )?;
    (0..rows.count)
        .map(|row| {
            Ok(Source {
                connector: read_uuid(rows.need(row, 1)?),
                class: rows.need(row, 2)?,
                rank: rows.need(row, 3)?,
                partner: Partner {
                    is_paused: rows.need(row, 4)?,
                    is_asked: rows.need(row, 5)?,
                    last_sync: rows.get(row, 6)?,
                    last_record: None,
                },
            })
        })
        .collect()
}

/// How many facts each connector has on each day.
pub fn days(db: &mut Db, due: &Due) -> Result<BTreeMap<Uuid, BTreeMap<i32, usize>>> {
    let rows = db.run(
        "SELECT d.connector_id, d.day, d.facts FROM _connector_service.connector_service_count_days($1, $2) d",
        &[uuid(due.tenant).into(), due.metric_type.as_str().into()],
    )?;
    let mut days: BTreeMap<Uuid, BTreeMap<i32, usize>> = BTreeMap::new();
    for row in 0..rows.count {
        let connector: String = rows.need(row, 1)?;
        let facts = usize::try_from(rows.need::<i64>(row, 3)?).unwrap_or(0);
        if let Ok(connector) = connector.parse() {
            days.entry(connector)
                .or_default()
                .insert(rows.need(row, 2)?, facts);
        }
    }
    Ok(days)
}

/// The decisions that stand, by connector and part.
pub fn decisions(db: &mut Db, due: &Due) -> Result<BTreeMap<(Uuid, String), Decision>> {
    let rows = db.run(
        "SELECT d.connector_id, d.part, d.counts, d.decided_by = 'person', coalesce(d.verdict = 'same', false),
            d.first_date - '2000-01-01'::date, d.last_date - '2000-01-01'::date
         FROM @extschema@.count_decisions d WHERE d.tenant_id = $1 AND d.metric_type = $2",
        &[uuid(due.tenant).into(), due.metric_type.as_str().into()],
    )?;
    (0..rows.count)
        .map(|row| {
            let decision = Decision {
                counts: rows.need(row, 3)?,
                is_by_person: rows.need(row, 4)?,
                is_same: rows.need(row, 5)?,
                first: rows.get(row, 6)?,
                last: rows.get(row, 7)?,
            };
            Ok((
                (read_uuid(rows.need(row, 1)?), rows.need(row, 2)?),
                decision,
            ))
        })
        .collect()
}

/// The amounts of all connectors of a tenant between two days.
pub fn amounts(db: &mut Db, due: &Due, (from, to): (i32, i32)) -> Result<Amounts> {
    let rows = db.run(
        "SELECT a.connector_id, a.part, a.day, a.currency, a.value, a.net
         FROM _connector_service.connector_service_count_amounts($1, $2, $3, $4) a",
        &[
            uuid(due.tenant).into(),
            due.metric_type.as_str().into(),
            from.into(),
            to.into(),
        ],
    )?;
    let mut found = Amounts::default();
    for row in 0..rows.count {
        let currency: String = rows.need(row, 4)?;
        let known = found.currencies.iter().position(|it| *it == currency);
        let currency = known.unwrap_or_else(|| {
            found.currencies.push(currency);
            found.currencies.len() - 1
        });
        let (Ok(currency), Ok(value)) = (
            u16::try_from(currency),
            rows.need::<String>(row, 5)?.parse(),
        ) else {
            continue;
        };
        let net: Option<String> = rows.get(row, 6)?;
        let amount = Amount {
            source: 0,
            day: rows.need(row, 3)?,
            currency,
            value,
            net: net.and_then(|net| net.parse().ok()),
        };
        let key = (read_uuid(rows.need(row, 1)?), rows.need(row, 2)?);
        found.of.entry(key).or_default().push(amount);
    }
    Ok(found)
}

/// Writes what was found, as JSON. True: metrics changed. `None`: the lock of the tenant's facts is taken.
pub fn decide(db: &mut Db, due: &Due, found: &str, asked: Vec<pgrx::Uuid>) -> Result<Option<bool>> {
    if !lock::try_facts(due.tenant) {
        return Ok(None);
    }
    let rows = db.run(
        "SELECT _connector_service.connector_service_decide($1, $2, $3::jsonb, $4)",
        &[
            uuid(due.tenant).into(),
            due.metric_type.as_str().into(),
            found.into(),
            asked.into(),
        ],
    )?;
    Ok(Some(rows.need(0, 1)?))
}

/// Whether a tenant has decisions of this metric type.
pub fn has_decisions(db: &mut Db, due: &Due) -> Result<bool> {
    db.run(
        "SELECT EXISTS (SELECT FROM @extschema@.count_decisions d WHERE d.tenant_id = $1 AND d.metric_type = $2 AND d.decided_by = 'worker')",
        &[uuid(due.tenant).into(), due.metric_type.as_str().into()],
    )?
    .need(0, 1)
}

/// A person's word.
pub fn by_person(
    db: &mut Db,
    connector: Uuid,
    metric_type: &str,
    counts: Option<bool>,
) -> Result<()> {
    db.run(
        "SELECT _connector_service.connector_service_count_by_person($1, $2, $3)",
        &[uuid(connector).into(), metric_type.into(), counts.into()],
    )?;
    Ok(())
}
