//! The same functions with a connector's name in the place of its id. A literal is a text to PostgreSQL, so they take ids, too.

use connector_service_core::similar::similar;
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use uuid::Uuid;

use super::{count, delete, fact, need_worker, run, upload};
use crate::error::{Error, Result};
use crate::store::run::Kind;
use crate::store::{self, connector, uuid};

/// The connector of this name or id that the caller sees. Names of others are never told.
fn find(named: &str) -> Result<Uuid> {
    let id = read_id(named);
    store::as_caller(|db| {
        if let Some(id) = id
            && connector::is_visible(db, id)?
        {
            return Ok(id);
        }
        let found = connector::named(db, named)?;
        let is_exact = |(_, name): &&(Uuid, String)| name.trim() == named.trim();
        let exact: Vec<Uuid> = found.iter().filter(is_exact).map(|(id, _)| *id).collect();
        match (found.as_slice(), exact.as_slice()) {
            ([(one, _)], _) | (_, [one]) => Ok(*one),
            ([], _) => {
                let names = connector::names(db)?;
                let like = similar(named, names.iter().map(String::as_str));
                let like = like.into_iter().map(str::to_owned).collect();
                Err(Error::UnknownName(named.to_owned(), like))
            }
            (many, _) => Err(Error::ManyNamed(
                named.to_owned(),
                many.iter().map(|(id, _)| *id).collect(),
            )),
        }
    })
}

/// An id as PostgreSQL reads it: hyphens and braces are left to the writer.
fn read_id(text: &str) -> Option<Uuid> {
    let text = text.trim();
    let bare = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'));
    let digits = bare.unwrap_or(text).replace('-', "");
    let is_id = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| Uuid::try_parse(&digits).ok()).flatten()
}

/// As with an id: one connector that is not there must not fail the others.
#[pg_extern(name = "connector_service_sync", volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_sync_named(p_connector: &str) -> Result<Option<pgrx::Uuid>, ErrorReport> {
    need_worker()?;
    match find(p_connector) {
        Ok(connector) => Ok(run::sync(connector)?.map(uuid)),
        Err(error @ Error::UnknownName(..)) => {
            ErrorReport::from(error).report(PgLogLevel::NOTICE);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

#[pg_extern(name = "connector_service_check", volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_check_named(p_connector: &str) -> Result<pgrx::Uuid, ErrorReport> {
    Ok(run::queue_trial(find(p_connector)?, Kind::Check)?)
}

#[pg_extern(name = "connector_service_preview", volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_preview_named(p_connector: &str) -> Result<pgrx::Uuid, ErrorReport> {
    Ok(run::queue_trial(find(p_connector)?, Kind::Preview)?)
}

#[pg_extern(name = "connector_service_backfill", volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_backfill_named(
    p_connector: &str,
    p_from: TimestampWithTimeZone,
    p_to: TimestampWithTimeZone,
    p_step: default!(Interval, "'1 day'"),
) -> Result<SetOfIterator<'static, pgrx::Uuid>, ErrorReport> {
    let runs = run::backfill(find(p_connector)?, p_from, p_to, p_step)?;
    Ok(SetOfIterator::new(runs.into_iter().map(uuid)))
}

#[pg_extern(name = "connector_service_refresh", volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_refresh_named(
    p_connector: &str,
    p_stream: &str,
) -> Result<Option<pgrx::Uuid>, ErrorReport> {
    Ok(run::refresh(find(p_connector)?, p_stream)?.map(uuid))
}

/// Ends the run with this id, or the active run of the connector with this name or id.
#[pg_extern(name = "connector_service_cancel", volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_cancel_named(p_run: &str) -> Result<bool, ErrorReport> {
    if let Some(id) = read_id(p_run)
        && store::as_caller(|db| store::run::is_visible(db, id))?
    {
        return Ok(run::cancel(id)?);
    }
    let connector = match find(p_run) {
        // As for the id of a run that is not known.
        Err(Error::UnknownName(..)) if read_id(p_run).is_some() => return Ok(false),
        found => found?,
    };
    match store::with(|db| store::run::first_active(db, connector))? {
        Some(active) => Ok(run::cancel(active)?),
        None => Ok(false),
    }
}

#[pg_extern(name = "connector_service_upload", volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_upload_named(
    p_connector: &str,
    p_file_name: &str,
    p_content: &[u8],
) -> Result<pgrx::Uuid, ErrorReport> {
    let connector = find(p_connector)?;
    Ok(upload::queue_file(
        connector,
        p_file_name,
        p_content,
        Kind::Upload,
    )?)
}

#[pg_extern(
    name = "connector_service_preview_upload",
    volatile,
    parallel_unsafe,
    strict
)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_preview_upload_named(
    p_connector: &str,
    p_file_name: &str,
    p_content: &[u8],
) -> Result<pgrx::Uuid, ErrorReport> {
    let connector = find(p_connector)?;
    Ok(upload::queue_file(
        connector,
        p_file_name,
        p_content,
        Kind::Preview,
    )?)
}

#[pg_extern(
    name = "connector_service_reprocess",
    volatile,
    parallel_unsafe,
    strict
)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_reprocess_named(p_connector: &str) -> Result<i64, ErrorReport> {
    Ok(fact::of_callers_own(
        find(p_connector)?,
        store::fact::reprocess,
    )?)
}

#[pg_extern(name = "connector_service_replay", volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_replay_named(p_connector: &str) -> Result<i64, ErrorReport> {
    Ok(fact::of_callers_own(
        find(p_connector)?,
        store::fact::replay,
    )?)
}

#[pg_extern(name = "connector_service_count", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_count_named(
    p_connector: Option<&str>,
    p_metric_type: Option<&str>,
    p_counts: Option<bool>,
) -> Result<(), ErrorReport> {
    let named = p_connector.ok_or(Error::Null("p_connector"))?;
    Ok(count::decide(find(named)?, p_metric_type, p_counts)?)
}

#[pg_extern(name = "connector_service_delete", volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_delete_named(
    p_connector: &str,
    p_dry_run: default!(bool, true),
) -> Result<TableIterator<'static, (name!(item, String), name!(rows, i64))>, ErrorReport> {
    Ok(delete::delete_connector(find(p_connector)?, p_dry_run)?)
}
