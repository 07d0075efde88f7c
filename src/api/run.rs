//! Runs: queue, cancel, wake.

use std::time::{Duration, Instant};

use connector_service_core::source;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::need_worker;
use crate::board;
use crate::error::{Error, Result};
use crate::store::connector::{Due, Readiness};
use crate::store::run::Kind;
use crate::store::{self, connector, read_uuid, run, upload, uuid};
use crate::wait::Waiter;

/// How long a call waits for another session that is queueing the same connector. Longer: a forgotten open
/// transaction delays a scheduled statement by that much for each connector it holds.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// Queues a sync and returns its run id, or the active run's where one is queued or running. NULL and a NOTICE
/// for a connector that cannot be queued: many are called in one statement, and one must not fail the others.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_sync(p_connector_id: pgrx::Uuid) -> Result<Option<pgrx::Uuid>, ErrorReport> {
    Ok(sync(read_uuid(p_connector_id))?.map(uuid))
}

fn sync(connector: uuid::Uuid) -> Result<Option<uuid::Uuid>> {
    need_worker()?;
    if !store::as_caller(|db| connector::is_visible(db, connector))? {
        notice!("connector \"{connector}\" does not exist");
        return Ok(None);
    }
    if store::with(|db| takes_files(db, connector))? {
        return again(connector);
    }
    let deadline = Instant::now() + LONGEST_WAIT;
    loop {
        let (readiness, run) = store::with(|db| {
            // Without a lock first: a run that is there is all there is to say.
            if let Some(run) = run::active(db, connector)? {
                return Ok((Readiness::Ready, Some(run)));
            }
            match connector::lock(db, connector)? {
                Readiness::Ready => {
                    let run = run::queue(db, connector)?;
                    Ok((
                        Readiness::Ready,
                        if run.is_some() {
                            run
                        } else {
                            run::active(db, connector)?
                        },
                    ))
                }
                other => Ok((other, None)),
            }
        })?;
        match readiness {
            Readiness::Ready => {
                board::wake_at_commit();
                return Ok(run);
            }
            Readiness::Busy if Instant::now() < deadline => {
                pgrx::check_for_interrupts!();
                if let Ok(mut waiter) = Waiter::new() {
                    waiter.sleep(Duration::from_millis(5));
                }
            }
            Readiness::Busy => {
                notice!(
                    "connector \"{connector}\" is being changed by another transaction; not queued"
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

fn takes_files(db: &mut store::Db, connector: uuid::Uuid) -> Result<bool> {
    let taker = upload::taker(db, connector)?;
    let source = taker.map(|taker| source::find(&taker.source));
    Ok(matches!(source, Some(Ok(source)) if source.takes_files()))
}

/// Queues the files of a connector again whose runs failed.
fn again(connector: uuid::Uuid) -> Result<Option<uuid::Uuid>> {
    let run = store::with(|db| match upload::active(db, connector)? {
        Some(run) => Ok(Some(run)),
        None => upload::again(db, connector),
    })?;
    match run {
        Some(_) => board::wake_at_commit(),
        None => notice!(
            "connector \"{connector}\" has no file that waits; give it one by connector_service_upload()"
        ),
    }
    Ok(run)
}

/// Queues every connector that is due, once; safe from many sessions at once. Returns the new runs' ids.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_sync_due() -> Result<SetOfIterator<'static, pgrx::Uuid>, ErrorReport> {
    need_worker()?;
    let runs = store::with(|db| connector::queue_due(db, Due::All, "schedule"))?;
    if !runs.is_empty() {
        board::wake_at_commit();
    }
    Ok(SetOfIterator::new(runs.into_iter().map(uuid)))
}

/// Queues a run that logs in, reads one page of each stream and stores nothing.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_check(p_connector_id: pgrx::Uuid) -> Result<pgrx::Uuid, ErrorReport> {
    Ok(look(read_uuid(p_connector_id), Kind::Check)?)
}

/// Queues a run that takes one page of each stream through mappings and constraints, and rolls it back.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_preview(p_connector_id: pgrx::Uuid) -> Result<pgrx::Uuid, ErrorReport> {
    Ok(look(read_uuid(p_connector_id), Kind::Preview)?)
}

fn look(connector: uuid::Uuid, kind: Kind) -> Result<pgrx::Uuid> {
    need_worker()?;
    let queued = match store::as_caller(|db| connector::is_visible(db, connector))? {
        true => store::with(|db| run::queue_other(db, connector, kind))?,
        false => None,
    };
    let run = queued.ok_or(Error::UnknownConnector(connector))?;
    board::wake_at_commit();
    Ok(uuid(run))
}

/// Ends a queued or running sync; what it has stored stays. False: it had ended already, or is not known.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_cancel(p_run_id: pgrx::Uuid) -> Result<bool, ErrorReport> {
    let run = read_uuid(p_run_id);
    if !store::as_caller(|db| run::is_visible(db, run))? {
        return Ok(false);
    }
    let cancelled = store::with(|db| run::cancel(db, run))?;
    board::wake_at_commit();
    Ok(cancelled)
}

/// Wakes this database's worker at COMMIT, or has one started; nothing on ROLLBACK.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_wake() {
    board::wake_at_commit();
}
