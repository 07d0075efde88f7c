//! Functions that derive facts again.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::store::{self, Db, connector, fact, read_uuid};

/// Derives facts and metrics of a connector again from its raw records, with the current mappings.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_reprocess(p_connector_id: pgrx::Uuid) -> Result<i64, ErrorReport> {
    Ok(of_callers_own(read_uuid(p_connector_id), fact::reprocess)?)
}

/// Tries the quarantined records of a connector again; returns how many are out of quarantine now.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_replay(p_connector_id: pgrx::Uuid) -> Result<i64, ErrorReport> {
    Ok(of_callers_own(read_uuid(p_connector_id), fact::replay)?)
}

pub(super) fn of_callers_own(
    connector: Uuid,
    work: impl FnOnce(&mut Db, Uuid) -> Result<i64>,
) -> Result<i64> {
    if !store::as_caller(|db| connector::is_visible(db, connector))? {
        return Err(Error::UnknownConnector(connector));
    }
    store::with(|db| work(db, connector))
}
