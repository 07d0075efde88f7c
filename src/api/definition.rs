//! The hint for each error code.

use connector_service_core::error::Code;
use pgrx::prelude::*;

/// The next action for an `error_code` of `sync_runs`; NULL for a code that is not known.
#[pg_extern(immutable, parallel_safe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_hint(p_error_code: &str) -> Option<&'static str> {
    Code::ALL
        .iter()
        .find(|code| code.word() == p_error_code)
        .map(|code| code.hint())
}
