//! A page: its rows, their facts, its cursor, its quarantine and its run's counters, all in the caller's one
//! transaction.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use connector_service_core::fetch::FetchedPage;
use connector_service_core::record::{Reason, Rejected};
use serde_json::Value;
use uuid::Uuid;

use super::raw::{Missing, Written};
use super::run::{Claimed, Kind};
use super::{
    Alarm, Db, backfill, bounded, fact, former, lock, metric, quarantine, raw, run, state, upload,
};
use crate::error::{Error, Result, counted};
use crate::fault;

/// Longest time in which the records of a page are tried one by one.
const TRIED_WITHIN: Duration = Duration::from_secs(5);

/// Most records of a page whose facts are derived at once. More: all other pages wait while they are derived. Fewer: more
/// records are written twice, because their facts follow in the upkeep process.
const DERIVED_AT_ONCE: usize = 5_000;

/// Largest record, in bytes, whose facts are derived at once. Those of a larger one follow in the upkeep process, whose memory
/// is bounded.
const LARGE_RECORD: usize = 256 * 1024;

/// Longest time to derive the facts of what a transaction stored for one connector. After it the pages are stored without
/// facts, which follow in the upkeep process. Longer: all tenants wait for one tenant's mappings. Shorter: on a busy machine
/// records with quick mappings are written twice.
const DERIVED_WITHIN: Duration = Duration::from_millis(400);

/// Tenants whose facts took too long, and until when the upkeep process derives them.
pub type Slow = HashMap<Uuid, Instant>;

/// What a transaction wrote, and how the facts of its pages are derived. They are derived together, because each call of the
/// SQL function takes as long as the facts of a hundred records.
pub struct Deriving<'a> {
    slow: &'a Slow,
    /// Whether this transaction got the lock of a tenant's facts.
    locked: HashMap<Uuid, bool>,
    /// What was written, by run.
    written: HashMap<Uuid, (Owner, Written)>,
    /// The facts of some records follow later.
    is_left: bool,
}

/// The tenant and connector whose records were written.
#[derive(Clone, Copy)]
struct Owner {
    tenant: Uuid,
    connector: Uuid,
}

/// The tenant whose facts are being derived, and since when.
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

    /// The list for the rows of a page, if its facts are derived in this transaction. `None`: its rows are stored as
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
                // Without a mapping there are no facts.
                None => true,
                Some(is_plain) => is_plain && !self.slow.contains_key(&tenant) && !is_large(),
            };
        self.is_left |= !derives;
        let owner = Owner {
            tenant,
            connector: claimed.connector,
        };
        let written = derives.then(|| {
            let written = self.written.entry(claimed.run);
            &mut written.or_insert_with(|| (owner, Written::default())).1
        });
        Ok(written)
    }

    /// Derives the facts, as the last step of a transaction that stored pages. True: the facts of some records follow later.
    /// If the transaction fails, `current` says whose facts it was deriving.
    pub fn finish(self, db: &mut Db, current: &mut Current) -> Result<bool> {
        for (run, (owner, written)) in self.written {
            let alarm = Alarm::set(DERIVED_WITHIN);
            *current = Some((owner.tenant, Instant::now()));
            let unmapped = fact::derive(db, owner.connector, run, &written)?;
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

/// The tenant whose facts made a transaction fail: they took too long, or for instance a user's trigger refuses them. The page
/// is not the cause. It is stored, and the facts are left to the upkeep process.
pub fn tenant_of_failed_facts(error: &Error, current: Current) -> Option<Uuid> {
    let (tenant, since) = current?;
    let took_too_long = error.is_cancelled() && since.elapsed() >= DERIVED_WITHIN;
    (took_too_long || error.is_about_cost() || error.is_refusal()).then_some(tenant)
}

pub fn store(
    db: &mut Db,
    claimed: &Claimed,
    token: Uuid,
    page: &FetchedPage,
    plan: &Value,
    search: &mut bool,
    deriving: &mut Deriving,
) -> Result<()> {
    let mut written = deriving.of_page(db, claimed, page)?;
    let kept = former::with_kept_ids(db, claimed, &page.stream, &page.records)?;
    *search |= kept.is_any;
    let mut counts = raw::store(
        db,
        claimed,
        &page.stream,
        &kept.records,
        search,
        written.as_deref_mut(),
    )?;
    let doubles = raw::mark_deleted(db, claimed, kept.doubles, written.as_deref_mut())?;
    quarantine::add(db, claimed, &page.stream, &page.rejected)?;
    counts.quarantined = page.rejected.len() as u64;
    counts.received += counts.quarantined;
    counts.bytes = page.bytes;
    let deleted = raw::delete(db, claimed, &page.deleted, written.as_deref_mut())?;
    counts.received += deleted.received + doubles;
    counts.deleted = deleted.deleted + doubles;
    counts.unchanged += deleted.unchanged;
    if let Some(with) = &page.deleted_with {
        let gone = raw::delete_with(db, claimed, &page.stream, with, written.as_deref_mut())?;
        counts.deleted += gone;
        counts.received += gone;
    }
    if let Some(warning) = &page.warning {
        run::warn(db, claimed.run, token, warning)?;
    }
    match &page.upload {
        Some(_) => upload::advance(
            db,
            claimed,
            token,
            page,
            &kept.records,
            &mut counts,
            written,
        )?,
        // A window of the past says nothing about the whole stream.
        None if claimed.kind == Kind::Backfill => {
            backfill::advance(db, claimed.run, &page.stream, &page.state)?;
        }
        None => {
            check_complete_pass(db, claimed, token, page, &mut counts, written)?;
            state::write(db, claimed.connector, &page.stream, &page.state)?;
        }
    }
    let stream = run::OfStream {
        plan,
        name: &page.stream,
        is_read: page.state.finished_by == Some(claimed.run),
        cursor: page.state.at.as_ref(),
    };
    run::add_page(db, claimed.run, token, counts, page.window, stream)
}

/// Checks a complete pass over a stream: whether the vendor has more records, and which records were deleted there.
fn check_complete_pass(
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
        match raw::delete_others(
            db,
            claimed,
            &page.stream,
            shown,
            page.part.as_ref(),
            written,
        )? {
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

/// The COMMIT of pages need not wait for the disk: rows, cursor and counters are lost or kept together, and what a crash takes
/// back is fetched again. The end of a run does wait, and everything before it is then on disk too.
pub fn commit_without_waiting(db: &mut Db) -> Result<()> {
    db.run(
        "SELECT pg_catalog.set_config('synchronous_commit', 'off', true)",
        &[],
    )?;
    Ok(())
}

/// Finds the records that PostgreSQL refuses although they passed all our checks, for instance by a user's trigger or
/// constraint, and moves them to the rejected ones. True: some were found. Nothing is stored.
pub fn reject_refused(claimed: &Claimed, page: &mut FetchedPage) -> Result<bool> {
    let mut refusals = Vec::new();
    let tried = bounded(TRIED_WITHIN, |db| {
        // What is refused is tried again later, under the id that it is stored under.
        let kept = match former::with_kept_ids(db, claimed, &page.stream, &page.records)?.records {
            Cow::Owned(kept) => Some(kept),
            Cow::Borrowed(_) => None,
        };
        page.records = kept.unwrap_or_else(|| std::mem::take(&mut page.records));
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
            formerly: None,
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
