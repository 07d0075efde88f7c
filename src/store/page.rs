//! A page: its rows, their facts, its cursor, its quarantine and its run's counters, all in the caller's one
//! transaction.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use connector_service_core::fetch::FetchedPage;
use connector_service_core::record::{Reason, Rejected};
use uuid::Uuid;

use super::raw::{Missing, Written};
use super::run::{Claimed, Kind};
use super::{
    Alarm, Db, backfill, bounded, fact, lock, metric, quarantine, raw, run, state, upload,
};
use crate::error::{Error, Result, counted};
use crate::fault;

/// Longest time in which the records of a page are tried one by one.
const TRIED_WITHIN: Duration = Duration::from_secs(5);

/// Records of a page beyond which their facts follow in a process of their own. More: everybody's pages wait while they are
/// derived. Fewer: more records are written twice.
const DERIVED_AT_ONCE: usize = 5_000;

/// A larger record's facts follow in a process of their own, whose memory is bounded.
const LARGE_RECORD: usize = 256 * 1024;

/// Longest time for the facts of what a transaction stored for one connector. What meets it is stored without them, and they
/// follow in a process of their own. Longer: everybody waits for one tenant's mappings. Shorter: on a busy machine what is
/// quick is written twice.
const DERIVED_WITHIN: Duration = Duration::from_millis(400);

/// Tenants whose facts took too long: until when theirs follow in a process of their own.
pub type Slow = HashMap<Uuid, Instant>;

/// How the facts of a transaction's pages come about, and what it wrote. They are derived together: to begin with the facts
/// of a page costs as much as those of a hundred records.
pub struct Deriving<'a> {
    slow: &'a Slow,
    /// Whether the lock of a tenant's facts was to be had.
    locked: HashMap<Uuid, bool>,
    /// By run.
    written: HashMap<Uuid, (Claim, Written)>,
    /// Facts of some records follow.
    is_left: bool,
}

/// Whose records were written.
#[derive(Clone, Copy)]
struct Claim {
    tenant: Uuid,
    connector: Uuid,
}

/// Whose facts are being derived, and since when.
pub type Current = Option<(Uuid, Instant)>;

impl Deriving<'_> {
    pub fn begin(slow: &Slow) -> Deriving<'_> {
        Deriving {
            slow,
            locked: HashMap::new(),
            written: HashMap::new(),
            is_left: false,
        }
    }

    /// Where to note what is written for a page, if its facts are derived in this transaction. `None`: its rows are stored as
    /// unprocessed.
    fn of_page(
        &mut self,
        db: &mut Db,
        claimed: &Claimed,
        page: &FetchedPage,
    ) -> Result<Option<&mut Written>> {
        let tenant = claimed.tenant;
        let is_locked = *self
            .locked
            .entry(tenant)
            .or_insert_with(|| lock::try_facts(tenant));
        let is_large = || {
            let records = &page.records;
            records.len() > DERIVED_AT_ONCE || records.iter().any(|r| r.json.len() > LARGE_RECORD)
        };
        let derives = is_locked
            && match fact::is_plain(db, claimed.connector)? {
                // Nothing maps, so nothing follows.
                None => true,
                Some(is_plain) => is_plain && !self.slow.contains_key(&tenant) && !is_large(),
            };
        self.is_left |= !derives;
        let claim = Claim {
            tenant,
            connector: claimed.connector,
        };
        let written = derives.then(|| {
            let written = self.written.entry(claimed.run);
            &mut written.or_insert_with(|| (claim, Written::default())).1
        });
        Ok(written)
    }

    /// The last thing of a transaction that stored pages; true: facts of some records follow. `current` says of a
    /// transaction that fails whose facts it was at.
    pub fn finish(self, db: &mut Db, current: &mut Current) -> Result<bool> {
        for (run, (claim, written)) in self.written {
            let alarm = Alarm::set(DERIVED_WITHIN);
            *current = Some((claim.tenant, Instant::now()));
            let unmapped = fact::derive(db, claim.connector, run, &written)?;
            *current = None;
            drop(alarm);
            if unmapped > 0 {
                run::add_unmapped(db, run, unmapped)?;
            }
        }
        fault::point("before_commit");
        Ok(self.is_left)
    }
}

/// Of an error of such a transaction: whose facts took too long, or cannot be written because a trigger of the user's will
/// not have them, say. The page is not to blame: it is stored, and the facts are left to the upkeep process.
pub fn whose_facts(error: &Error, current: Current) -> Option<Uuid> {
    let (tenant, since) = current?;
    let took_too_long = error.is_cancelled() && since.elapsed() >= DERIVED_WITHIN;
    (took_too_long || error.is_about_cost() || error.is_refusal()).then_some(tenant)
}

pub fn store(
    db: &mut Db,
    claimed: &Claimed,
    token: Uuid,
    page: &FetchedPage,
    search: &mut bool,
    deriving: &mut Deriving,
) -> Result<()> {
    let mut written = deriving.of_page(db, claimed, page)?;
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
            "the vendor counts {}, but {} came; to read the stream again: connector_service_refresh(...)",
            counted(count.vendor, "record"),
            count.read
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
                    "{missing} of {stored} records are missing at the source, too many to be deletions; none was marked as deleted"
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

/// Finds the records that PostgreSQL refuses although they passed every check of ours (a trigger or constraint of the user's,
/// say), and moves them to the rejected ones. True: some were found. Nothing is stored.
pub fn reject_refused(claimed: &Claimed, page: &mut FetchedPage) -> Result<bool> {
    let mut refusals = Vec::new();
    let tried = bounded(TRIED_WITHIN, |db| {
        refusals = raw::refusals(db, claimed, &page.stream, &page.records)?;
        Err::<(), Error>(Error::RolledBack)
    });
    match tried {
        Ok(()) | Err(Error::RolledBack) => {}
        Err(error) => return Err(error),
    }
    let mut refusals = refusals.into_iter().peekable();
    let mut refused = Vec::new();
    let mut position = 0;
    page.records.retain(|record| {
        position += 1;
        let Some((_, why)) = refusals.next_if(|(at, _)| *at == position) else {
            return true;
        };
        refused.push(Rejected {
            id: Some(record.id.clone()),
            reason: Reason::Refused,
            detail: format!("PostgreSQL refused the record: {why}"),
            raw: record.json.clone(),
            hash: record.hash,
        });
        false
    });
    let is_any = !refused.is_empty();
    page.rejected.extend(refused);
    Ok(is_any)
}
