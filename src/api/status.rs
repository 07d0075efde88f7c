//! The state of the set-up that only the server's memory knows.

use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::json;

use crate::store::{self, installation, key};
use crate::{board, guc, trouble};

/// Whether the library was preloaded, which workers run in this database, how many should, and what is wrong with the
/// key file, for `connector_service_doctor()`.
#[pg_extern(schema = "_connector_service", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_status() -> JsonB {
    let is_preloaded = board::is_installed();
    // SAFETY: fixed for the life of a session.
    let database = unsafe { pg_sys::MyDatabaseId };
    let workers = match is_preloaded {
        true => board::sync_workers(database),
        false => Vec::new(),
    };
    let workers: Vec<_> = workers
        .into_iter()
        .map(|(number, pid)| json!({"number": number, "pid": pid}))
        .collect();
    let is_gateway = |(number, _): &(i32, i32)| *number == board::GATEWAY;
    let is_served = is_preloaded && board::workers(database).iter().any(is_gateway);
    let name = store::with(installation::database).unwrap_or_default();
    let address = guc::gateway_listen().of(&name);
    let (has_key_file, key_problem) = match is_preloaded.then(|| store::with(key::check)) {
        Some(Ok(has_file)) => (Some(has_file), None),
        Some(Err(problem)) => (None, Some(problem)),
        None => (None, None),
    };
    let place = key::place().ok();
    JsonB(json!({
        "preloaded": is_preloaded,
        "version": env!("CARGO_PKG_VERSION"),
        "workers": workers,
        "workers_wanted": guc::sync_workers(),
        "upkeep": is_preloaded && board::has_upkeep(database),
        "gateway": {
            "runs": is_served,
            "address": address.map(|address| address.to_string()),
            "is_readable_on_its_way": address.is_some_and(|address| !address.ip().is_loopback()) && guc::gateway_identity().0.is_none(),
        },
        "key_is_in_data_directory": place.map(|place| guc::is_in_data_directory(&place.path)),
        // Failures of the worker or the gateway that repeat.
        "troubles": trouble::lasting(database),
        "has_key_file": has_key_file,
        "key_problem": key_problem.map(|problem| problem.to_string()),
    }))
}
