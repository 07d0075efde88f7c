//! `metrics`, and what follows them: summing touched days, the checks that only looking makes, aggregates.

use super::{Db, fact};
use crate::error::Result;

/// Whether days wait to be summed.
pub fn is_any_touched(db: &mut Db) -> Result<bool> {
    db.run(
        "SELECT EXISTS (SELECT FROM @extschema@.metric_days_touched)",
        &[],
    )?
    .need(0, 1)
}

/// Sums up to `most` touched days; returns how many there were. `None`: the lock of facts is taken.
pub fn settle(db: &mut Db, most: i32) -> Result<Option<u64>> {
    if !fact::try_lock(db)? {
        return Ok(None);
    }
    let rows = db.run(
        "SELECT @extschema@.connector_service_settle($1)",
        &[most.into()],
    )?;
    Ok(Some(rows.need::<i64>(0, 1)?.unsigned_abs()))
}

/// Missing days, stale connectors, thin days. False: the lock of facts is taken.
pub fn check_quality(db: &mut Db) -> Result<bool> {
    if !fact::try_lock(db)? {
        return Ok(false);
    }
    db.run("SELECT @extschema@.connector_service_check_quality()", &[])?;
    Ok(true)
}

/// Brings the monthly aggregate up to date; its readers are not blocked.
pub fn refresh_monthly(db: &mut Db) -> Result<()> {
    db.run("SELECT @extschema@.refresh_monthly_revenue()", &[])?;
    Ok(())
}

/// Opens an alert where records of a stream seem to be missing, closes it where they are not.
pub fn note_count(
    db: &mut Db,
    connector: uuid::Uuid,
    stream: &str,
    problem: Option<&str>,
) -> Result<()> {
    db.run(
        "SELECT @extschema@.connector_service_note_count($1, $2, $3)",
        &[super::uuid(connector).into(), stream.into(), problem.into()],
    )?;
    Ok(())
}
