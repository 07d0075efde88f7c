//! Functions that queue and cancel runs, and wake the worker.

use std::cell::Cell;
use std::time::Duration;

use chrono::{DateTime, Utc};

use connector_service_core::source::{self, Source};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::need_worker;
use crate::board;
use crate::error::{Error, Result};
use crate::store::connector::{Due, Readiness, Which};
use crate::store::run::Kind;
use crate::store::schedule::FREQUENCIES;
use crate::store::{self, backfill, connector, read_uuid, run, state, upload, uuid};
use crate::wait::Waiter;

/// How long all calls of a statement together wait for other sessions that queue the same connectors. Longer: a forgotten open
/// transaction delays a scheduled statement for longer.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// Pause between two tries to lock a connector.
const STEP: Duration = Duration::from_millis(5);

/// Counts another step of waiting for the running statement; false if it has waited long enough.
fn take_wait_step() -> bool {
    thread_local! {
        /// When the statement began, and the steps it has waited.
        static WAITED: Cell<(i64, u32)> = const { Cell::new((0, 0)) };
    }
    // SAFETY: plain look-up of when the session's statement began.
    let began = unsafe { pg_sys::GetCurrentStatementStartTimestamp() };
    let (of, steps) = WAITED.get();
    let steps = if of == began { steps + 1 } else { 1 };
    WAITED.set((began, steps));
    STEP * steps <= LONGEST_WAIT
}

/// Queues a sync and returns its run id, or the active run's where one is queued or running. NULL and a NOTICE
/// for a connector that cannot be queued: many are called in one statement, and one must not fail the others.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_sync(p_connector_id: pgrx::Uuid) -> Result<Option<pgrx::Uuid>, ErrorReport> {
    Ok(sync(read_uuid(p_connector_id))?.map(uuid))
}

pub(super) fn sync(connector: uuid::Uuid) -> Result<Option<uuid::Uuid>> {
    need_worker()?;
    if !store::as_caller(|db| connector::is_visible(db, connector))? {
        notice!("connector \"{connector}\" does not exist");
        return Ok(None);
    }
    match store::with(|db| source_of(db, connector))? {
        Some(source) if source.takes_files() => return queue_files_again(connector),
        Some(source) if !source.is_asked() => {
            notice!("connector \"{connector}\" takes webhooks only, so it cannot be synced");
            return Ok(None);
        }
        _ => {}
    }
    loop {
        let (readiness, run) = store::with(|db| {
            // First without a lock: if a run is active, its id is the answer.
            if let Some(run) = run::active(db, connector)? {
                return Ok((Readiness::Ready, Some(run)));
            }
            let readiness = connector::lock(db, connector)?;
            if readiness != Readiness::Ready {
                return Ok((readiness, None));
            }
            if let Some(run) = run::asked_for(db, connector)? {
                return Ok((Readiness::Ready, Some(run)));
            }
            match run::queue(db, connector)? {
                Some(run) => {
                    connector::take_slot(db, connector)?;
                    Ok((Readiness::Ready, Some(run)))
                }
                None => Ok((Readiness::Ready, run::active(db, connector)?)),
            }
        })?;
        match readiness {
            Readiness::Ready => {
                board::wake_at_commit();
                return Ok(run);
            }
            Readiness::Busy if take_wait_step() => {
                pgrx::check_for_interrupts!();
                if let Ok(mut waiter) = Waiter::new() {
                    waiter.sleep(STEP);
                }
            }
            Readiness::Busy => {
                notice!(
                    "connector \"{connector}\" was not queued: another transaction is changing it"
                );
                return Ok(None);
            }
            Readiness::Unknown => {
                notice!("connector \"{connector}\" does not exist");
                return Ok(None);
            }
            Readiness::Paused => {
                notice!("connector \"{connector}\" is paused; set its status to active first");
                return Ok(None);
            }
        }
    }
}

/// The source of a connector. `None`: the connector does not exist, or this version does not have its type.
fn source_of(db: &mut store::Db, connector: uuid::Uuid) -> Result<Option<&'static dyn Source>> {
    let target = upload::target(db, connector)?;
    Ok(target.and_then(|target| source::find(&target.source).ok()))
}

/// Queues the files of a connector whose runs failed again.
fn queue_files_again(connector: uuid::Uuid) -> Result<Option<uuid::Uuid>> {
    let run = store::with(|db| match upload::active(db, connector)? {
        Some(run) => Ok(Some(run)),
        None => upload::queue_again(db, connector),
    })?;
    match run {
        Some(_) => board::wake_at_commit(),
        None => notice!(
            "connector \"{connector}\" has no file to store; upload one with connector_service_upload()"
        ),
    }
    Ok(run)
}

/// Queues every connector that is due, once; safe from many sessions at once. Returns the new runs' ids.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_sync_due() -> Result<SetOfIterator<'static, pgrx::Uuid>, ErrorReport> {
    need_worker()?;
    queue_due(Due::All)
}

/// Queues the due connectors of one frequency; daily and weekly ones from 02:00 in their tenant's time zone on.
#[pg_extern(name = "connector_service_sync_due", volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_sync_due_of(
    p_frequency: &str,
) -> Result<SetOfIterator<'static, pgrx::Uuid>, ErrorReport> {
    need_worker()?;
    let Some(frequency) = FREQUENCIES.into_iter().find(|known| *known == p_frequency) else {
        return Err(Error::UnknownFrequency(p_frequency.to_owned()).into());
    };
    queue_due(Due::Of(frequency))
}

fn queue_due(due: Due) -> Result<SetOfIterator<'static, pgrx::Uuid>, ErrorReport> {
    let found = store::with(|db| connector::queue_due(db, due, "schedule", None, Which::All))?;
    if !found.queued.is_empty() {
        board::wake_at_commit();
    }
    Ok(SetOfIterator::new(found.queued.into_iter().map(uuid)))
}

/// Queues a run that logs in, reads one page of each stream and stores nothing.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_check(p_connector_id: pgrx::Uuid) -> Result<pgrx::Uuid, ErrorReport> {
    Ok(queue_trial(read_uuid(p_connector_id), Kind::Check)?)
}

/// Queues a run that takes one page of each stream through mappings and constraints, and rolls it back.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_preview(p_connector_id: pgrx::Uuid) -> Result<pgrx::Uuid, ErrorReport> {
    Ok(queue_trial(read_uuid(p_connector_id), Kind::Preview)?)
}

pub(super) fn queue_trial(connector: uuid::Uuid, kind: Kind) -> Result<pgrx::Uuid> {
    need_worker()?;
    let queued = match store::as_caller(|db| connector::is_visible(db, connector))? {
        true => store::with(|db| run::queue_other(db, connector, kind))?,
        false => None,
    };
    let run = queued.ok_or(Error::UnknownConnector(connector))?;
    board::wake_at_commit();
    Ok(uuid(run))
}

/// Queues a run for each window of a time span in the past, and returns their ids, the oldest window first. They are read one
/// after the other, after the syncs that are due, and do not move the cursor.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_backfill(
    p_connector_id: pgrx::Uuid,
    p_from: TimestampWithTimeZone,
    p_to: TimestampWithTimeZone,
    p_step: default!(Interval, "'1 day'"),
) -> Result<SetOfIterator<'static, pgrx::Uuid>, ErrorReport> {
    let runs = backfill(read_uuid(p_connector_id), p_from, p_to, p_step)?;
    Ok(SetOfIterator::new(runs.into_iter().map(uuid)))
}

fn moment(at: impl Into<i64>) -> Result<DateTime<Utc>> {
    // Counted from the year 2000. The infinities are out of range.
    let micros = at.into().checked_add(946_684_800_000_000);
    let moment = micros.and_then(DateTime::from_timestamp_micros);
    moment.ok_or(Error::WrongSpan(
        "the start or the end is infinite, or beyond the calendar",
    ))
}

pub(super) fn backfill(
    connector: uuid::Uuid,
    from: TimestampWithTimeZone,
    to: TimestampWithTimeZone,
    step: Interval,
) -> Result<Vec<uuid::Uuid>> {
    let (from, to) = (moment(from)?, moment(to)?);
    need_worker()?;
    if !store::as_caller(|db| connector::is_visible(db, connector))? {
        return Err(Error::UnknownConnector(connector));
    }
    // SAFETY: plain look at the clock.
    let to = to.min(moment(unsafe { pg_sys::GetCurrentTimestamp() })?);
    if from >= to {
        return Err(Error::WrongSpan(
            "the start must be before the end and before now",
        ));
    }
    if step.as_micros() <= 0 {
        return Err(Error::WrongSpan("the step must be longer than zero"));
    }
    if store::with(|db| connector::is_paused(db, connector))? {
        notice!("connector \"{connector}\" is paused; the backfill starts when it is active");
    }
    let runs = store::with(|db| {
        if source_of(db, connector)?.is_some_and(|source| !source.is_asked()) {
            return Err(Error::WrongSpan(
                "a connector that takes files or webhooks cannot be backfilled",
            ));
        }
        if backfill::count(db, connector, from, to, step)? > backfill::MOST {
            return Err(Error::TooManyWindows(backfill::MOST));
        }
        let runs = backfill::queue(db, connector, from, to, step)?;
        backfill::release(db, connector)?;
        Ok(runs)
    })?;
    board::wake_at_commit();
    Ok(runs)
}

/// Deletes the cursor of a stream, so that it is read from the start, and queues a sync. Returns the run's id.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_refresh(
    p_connector_id: pgrx::Uuid,
    p_stream: &str,
) -> Result<Option<pgrx::Uuid>, ErrorReport> {
    Ok(refresh(read_uuid(p_connector_id), p_stream)?.map(uuid))
}

pub(super) fn refresh(connector: uuid::Uuid, stream: &str) -> Result<Option<uuid::Uuid>> {
    need_worker()?;
    if !store::as_caller(|db| connector::is_visible(db, connector))? {
        return Err(Error::UnknownConnector(connector));
    }
    store::with(|db| {
        // No sync is queued under the lock of the connector. A running sync would write the cursor again.
        run::lock_queued(db, connector)?;
        if connector::lock(db, connector)? == Readiness::Busy || run::is_going(db, connector)? {
            return Err(Error::Syncing(connector));
        }
        let known = state::streams(db, connector)?;
        if !known.iter().any(|known| known == stream) {
            return Err(Error::UnknownStream(stream.to_owned(), known));
        }
        state::forget(db, connector, stream)
    })?;
    sync(connector)
}

/// Ends a queued or running sync; what it has stored stays. False: it had already ended, or does not exist.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_cancel(p_run_id: pgrx::Uuid) -> Result<bool, ErrorReport> {
    Ok(cancel(read_uuid(p_run_id))?)
}

pub(super) fn cancel(run: uuid::Uuid) -> Result<bool> {
    if !store::as_caller(|db| run::is_visible(db, run))? {
        return Ok(false);
    }
    let cancelled = store::with(|db| match run::cancel(db, run)? {
        None => Ok(false),
        Some(connector) => backfill::release(db, connector).map(|()| true),
    })?;
    board::wake_at_commit();
    Ok(cancelled)
}

/// Wakes this database's worker at COMMIT, or starts one. Does nothing on ROLLBACK.
#[pg_extern(schema = "_connector_service", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_wake() {
    board::wake_at_commit();
}
