//! Whether a connector's definition makes sense, and what a failure means.

use connector_service_core::error::{Code, Failure};
use connector_service_core::source::{self, Definition, TYPES};
use pgrx::JsonB;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::Error;
use crate::guc;

/// Called by the trigger of `connectors`: raises what is wrong with a definition.
#[pg_extern(stable, parallel_safe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_check_connector(
    p_type: &str,
    p_config: JsonB,
    p_credentials: JsonB,
) -> Result<(), ErrorReport> {
    if !TYPES.contains(&p_type) {
        return Err(Error::UnknownType(p_type.to_owned()).into());
    }
    for (name, value) in [("config", &p_config.0), ("credentials", &p_credentials.0)] {
        if !value.is_object() {
            // Here and not by a constraint, whose message would show the row, credentials and all.
            let failure = Failure::new(Code::InvalidConfig, format!("{name} is not a JSON object"));
            return Err(Error::from(failure).into());
        }
    }
    let definition = Definition {
        config: p_config.0,
        credentials: p_credentials.0.into(),
        limits: guc::record_limits(),
    };
    match source::find(p_type).map(|source| source.open(&definition)) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(failure)) => Err(Error::from(failure).into()),
        Err(failure) => {
            warning!("{failure}");
            Ok(())
        }
    }
}

/// The next action for an `error_code` of `sync_runs`; NULL for a code that is not known.
#[pg_extern(immutable, parallel_safe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_hint(p_error_code: &str) -> Option<&'static str> {
    Code::ALL
        .iter()
        .find(|code| code.word() == p_error_code)
        .map(|code| code.hint())
}
