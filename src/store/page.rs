//! A page: its rows, their facts, its cursor, its quarantine and its run's counters, all in the caller's one
//! transaction.

use std::collections::HashMap;

use connector_service_core::fetch::FetchedPage;
use connector_service_core::record::{Reason, Record, Rejected};
use uuid::Uuid;

use super::raw::{Missing, Written};
use super::run::{Claimed, Kind};
use super::{Db, backfill, fact, metric, quarantine, raw, run, state, tx, upload};
use crate::error::{Error, Result};
use crate::fault;

/// What the pages of a transaction wrote, by run and connector. Their facts are written together: to begin with
/// the facts of a page costs as much as those of a hundred records.
pub type Underived = HashMap<(Uuid, Uuid), Written>;

/// Where to note what is written, if this transaction gets the lock of facts. Without it the rows are stored as
/// unprocessed.
pub fn begin(db: &mut Db) -> Result<Option<Underived>> {
    Ok(fact::try_lock(db)?.then(Underived::new))
}

/// The last thing of a transaction that stored pages.
pub fn derive(db: &mut Db, underived: Option<Underived>) -> Result<()> {
    for ((run, connector), written) in underived.unwrap_or_default() {
        let unmapped = fact::derive(db, connector, run, &written)?;
        if unmapped > 0 {
            run::add_unmapped(db, run, unmapped)?;
        }
    }
    fault::point("before_commit");
    Ok(())
}

pub fn store(
    db: &mut Db,
    claimed: &Claimed,
    token: Uuid,
    page: &FetchedPage,
    search: &mut bool,
    underived: &mut Option<Underived>,
) -> Result<()> {
    let mut written = underived
        .as_mut()
        .map(|all| all.entry((claimed.run, claimed.connector)).or_default());
    let mut counts = raw::store(
        db,
        claimed,
        &page.stream,
        &page.records,
        search,
        written.as_deref_mut(),
    )?;
    quarantine::add(db, claimed, &page.stream, &page.rejected)?;
    counts.quarantined = page.rejected.len() as u64;
    counts.received += counts.quarantined;
    counts.bytes = page.bytes;
    let deleted = raw::delete(db, claimed, &page.deleted, written.as_deref_mut())?;
    counts.received += deleted.received;
    counts.deleted = deleted.deleted;
    counts.unchanged += deleted.unchanged;
    if let Some(warning) = &page.warning {
        run::warn(db, claimed.run, token, warning)?;
    }
    match &page.upload {
        Some(mark) => upload::advance(db, claimed, token, page, mark, &mut counts, written)?,
        // What a part of the past shows says nothing of the whole.
        None if claimed.kind == Kind::Backfill => {
            backfill::advance(db, claimed.run, &page.stream, &page.state)?;
        }
        None => {
            judge(db, claimed, token, page, &mut counts, written)?;
            state::write(db, claimed.connector, &page.stream, &page.state)?;
        }
    }
    run::add_page(db, claimed.run, token, counts, page.window)
}

/// What a pass that is complete tells: whether the vendor has more, and what is gone.
fn judge(
    db: &mut Db,
    claimed: &Claimed,
    token: Uuid,
    page: &FetchedPage,
    counts: &mut run::Counts,
    written: Option<&mut Written>,
) -> Result<()> {
    let mut problem = None;
    if let Some(count) = page.count.filter(|count| count.vendor > count.read) {
        problem = Some(format!(
            "the vendor counts {} records where {} came; see sync_runs, and have the stream read again by deleting its row in sync_state",
            count.vendor, count.read
        ));
    }
    if let Some(shown) = &page.all {
        match raw::delete_others(db, claimed, &page.stream, shown, written)? {
            Missing::Deleted(gone) => {
                counts.deleted += gone;
                counts.received += gone;
            }
            Missing::Doubtful(missing, stored) => {
                problem = Some(format!(
                    "{missing} of {stored} records are not shown any more, which is too many to believe; none was marked as deleted"
                ));
            }
        }
    }
    if let Some(problem) = &problem {
        let warning = format!("stream \"{}\": {problem}", page.stream);
        run::warn(db, claimed.run, token, &warning)?;
    }
    if page.count.is_some() || page.all.is_some() {
        metric::note_count(db, claimed.connector, &page.stream, problem.as_deref())?;
    }
    Ok(())
}

/// Commits of pages need not wait for the disk: rows, cursor and counters are lost together or kept together,
/// and what a crash takes back is fetched again. The end of a run does wait, and everything before it is then
/// on disk too.
pub fn commit_without_waiting(db: &mut Db) -> Result<()> {
    db.run(
        "SELECT pg_catalog.set_config('synchronous_commit', 'off', true)",
        &[],
    )?;
    Ok(())
}

/// Finds the records that PostgreSQL refuses although they passed every check of ours (a trigger or constraint
/// of the user's, say), by storing each alone in a transaction that is rolled back, and moves them to the
/// rejected ones. True: some were found.
pub fn reject_refused(claimed: &Claimed, page: &mut FetchedPage) -> bool {
    let before = page.records.len();
    let mut refused = Vec::new();
    page.records
        .retain(|record| match try_alone(claimed, &page.stream, record) {
            Err(error @ Error::Sql { .. }) if error.is_about_data() => {
                refused.push(Rejected {
                    id: Some(record.id.clone()),
                    reason: Reason::Refused,
                    detail: format!(
                        "PostgreSQL refused the record with SQLSTATE {}",
                        error.sqlstate()
                    ),
                    raw: record.json.clone(),
                    hash: record.hash,
                });
                false
            }
            _ => true,
        });
    page.rejected.extend(refused);
    page.records.len() < before
}

fn try_alone(claimed: &Claimed, stream: &str, record: &Record) -> Result<()> {
    tx(|db| {
        raw::store(
            db,
            claimed,
            stream,
            std::slice::from_ref(record),
            &mut false,
            None,
        )?;
        Err(Error::RolledBack)
    })
}
