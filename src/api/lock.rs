//! The extension's locks, for triggers: a session can hold one only through a statement that needs it. And what a trigger tells
//! the upkeep process.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::board;
use crate::error::Result;
use crate::store::{self, lock, read_uuid};

/// Waits for the lock of a tenant's facts and metrics, and holds it until the end of the transaction. NULL: the
/// locks of all tenants.
#[pg_extern(schema = "_connector_service", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_lock(p_tenant_id: Option<pgrx::Uuid>) -> Result<(), ErrorReport> {
    Ok(lock::facts(p_tenant_id.map(read_uuid))?)
}

/// Waits for the locks of all tenants whose rows the caller sees. This is a statement trigger, which 44_change.sql declares: it
/// reads no row and returns none.
#[pg_extern(sql = false)]
fn connector_service_lock_first() -> Result<(), ErrorReport> {
    Ok(store::as_caller(lock::callers_facts)?)
}

/// Asks the upkeep process at COMMIT to refresh the monthly aggregate. This is a statement trigger, which 56_metric_change.sql
/// declares.
#[pg_extern(sql = false)]
fn connector_service_metrics_moved() {
    board::refresh_at_commit();
}

/// Waits until nobody else inserts alerts of a tenant.
#[pg_extern(schema = "_connector_service", volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_lock_alerts(p_tenant_id: pgrx::Uuid) {
    lock::alerts(read_uuid(p_tenant_id));
}
