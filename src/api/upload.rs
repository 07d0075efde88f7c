//! Files that people give to connectors.

use connector_service_core::error::{Code, Failure};
use connector_service_core::file;
use connector_service_core::secret::Credentials;
use connector_service_core::source::{self, Definition};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::need_worker;
use crate::board;
use crate::error::{Error, Result};
use crate::guc;
use crate::store::run::Kind;
use crate::store::{self, connector, read_uuid, upload, uuid};

/// Keeps a file and queues the run that stores its rows as records; returns the run's id.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_upload(
    p_connector_id: pgrx::Uuid,
    p_file_name: &str,
    p_content: &[u8],
) -> Result<pgrx::Uuid, ErrorReport> {
    let connector = read_uuid(p_connector_id);
    Ok(queue_file(connector, p_file_name, p_content, Kind::Upload)?)
}

/// Queues a run that reads a file, reports how it understood the file and what it would store, and stores nothing.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_preview_upload(
    p_connector_id: pgrx::Uuid,
    p_file_name: &str,
    p_content: &[u8],
) -> Result<pgrx::Uuid, ErrorReport> {
    let connector = read_uuid(p_connector_id);
    Ok(queue_file(
        connector,
        p_file_name,
        p_content,
        Kind::Preview,
    )?)
}

pub(super) fn queue_file(
    connector: uuid::Uuid,
    name: &str,
    content: &[u8],
    kind: Kind,
) -> Result<pgrx::Uuid> {
    need_worker()?;
    let unknown = || Error::UnknownConnector(connector);
    if !store::as_caller(|db| connector::is_visible(db, connector))? {
        return Err(unknown());
    }
    let target = store::with(|db| upload::target(db, connector))?.ok_or_else(unknown)?;
    if !source::find(&target.source).is_ok_and(|source| source.takes_files()) {
        return Err(Error::TakesNoFiles(connector, target.source));
    }
    if target.is_paused && kind == Kind::Upload {
        return Err(Error::Paused(connector));
    }
    let most = guc::max_upload_size();
    if content.len() > most {
        return Err(Error::FileOverLimit(content.len(), most));
    }
    // The sender's folders are not part of the name.
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default().trim();
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(Error::NoFileName);
    }
    if content.is_empty() {
        let failure = Failure::new(Code::FileRefused, "the file is empty");
        return Err(Error::Definition(failure));
    }
    let definition = Definition {
        config: serde_json::from_str(&target.config).unwrap_or_default(),
        credentials: Credentials::default(),
        limits: guc::record_limits(),
    };
    let reader = source::find(&target.source)?.open(&definition)?;
    if let Some(layout) = reader.layout() {
        file::recognise(content, layout)?;
    }
    let run = store::with(|db| upload::add(db, connector, name, content, kind))?;
    board::wake_at_commit();
    Ok(uuid(run))
}

/// Longest file name in bytes.
const LONGEST_NAME: usize = 1024;
