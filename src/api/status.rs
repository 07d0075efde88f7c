//! The state of the set-up that only the server's memory knows.

use std::cell::Cell;
use std::time::Duration;

use connector_service_core::similar::similar;
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::json;

use crate::guc::Scheduler;
use crate::store::schedule::{self, Covered};
use crate::store::{self, installation, key};
use crate::wait::Waiter;
use crate::{board, guc, trouble};

/// How long an INSERT waits for a worker that is starting. Longer: where none can start, the first INSERT of a session takes longer.
/// Shorter: more of them say that no worker runs yet.
const STEP: Duration = Duration::from_millis(10);
const STEPS: u32 = 50;

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
    let listens = guc::gateway_of(&name);
    let named = guc::gateway_listen().named(&name);
    let address = named.or(guc::gateway_listen().unnamed());
    let others = |oids: Vec<u32>| {
        let oids = oids.into_iter().filter(|oid| *oid != database.to_u32());
        store::with(|db| installation::names(db, oids.collect())).unwrap_or_default()
    };
    let has_own_address = |name: &String| guc::gateway_listen().named(name).is_some();
    let (mut serving, mut installed) = match is_preloaded {
        true => (others(board::gateways()), others(board::confirmed())),
        false => (Vec::new(), Vec::new()),
    };
    serving.retain(|name| !has_own_address(name));
    installed.retain(|name| !has_own_address(name));
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
            // Where one address is for one of several databases.
            "is_shared": address.is_some() && named.is_none(),
            "may_run": listens.is_some(),
            "chosen": guc::gateway_database(),
            "serves": serving.first(),
            "others": installed,
            "is_readable_on_its_way": address.is_some_and(|address| !address.ip().is_loopback()) && guc::gateway_identity().0.is_none(),
        },
        "key_is_in_data_directory": place.map(|place| guc::is_in_data_directory(&place.path)),
        // Failures of the worker or the gateway that repeat.
        "troubles": trouble::lasting(database),
        "pg_cron": covered_by_cron().names(),
        "has_key_file": has_key_file,
        "key_problem": key_problem.map(|problem| problem.to_string()),
    }))
}

/// The frequencies that pg_cron has jobs for in this database.
fn covered_by_cron() -> Covered {
    store::with(schedule::covered).unwrap_or_default()
}

/// What decides when a connector of this database is synced, and by whom.
#[pg_extern(schema = "_connector_service", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_prospects() -> JsonB {
    let is_preloaded = board::is_installed();
    // SAFETY: fixed for the life of a session.
    let database = unsafe { pg_sys::MyDatabaseId };
    let workers = match is_preloaded {
        true => started_workers(database),
        false => 0,
    };
    let name = store::with(installation::database).unwrap_or_default();
    let scheme = match guc::gateway_identity().0 {
        Some(_) => "https",
        None => "http",
    };
    let is_served = is_preloaded && board::gateways().contains(&database.to_u32());
    let listens = guc::gateway_of(&name).filter(|listens| is_served || !listens.is_shared);
    JsonB(json!({
        "preloaded": is_preloaded,
        "workers": workers,
        "scheduler": match guc::scheduler() {
            Scheduler::Auto => "auto",
            Scheduler::PgCron => "pg_cron",
            Scheduler::Worker => "worker",
        },
        "pg_cron": covered_by_cron().names(),
        "gateway": listens.map(|listens| format!("{scheme}://{}", listens.at)),
    }))
}

/// The texts that are most like a text, the best one first.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_similar(p_text: &str, p_known: Vec<Option<String>>) -> Vec<String> {
    let like = similar(p_text, p_known.iter().flatten().map(String::as_str));
    like.into_iter().map(str::to_owned).collect()
}

/// The number of sync workers of this database. Just after CREATE EXTENSION the first one is still starting: a session waits for it
/// once, and not for long.
fn started_workers(database: pg_sys::Oid) -> usize {
    thread_local! {
        static HAS_WAITED: Cell<bool> = const { Cell::new(false) };
    }
    let count = || board::sync_workers(database).len();
    if count() > 0 || HAS_WAITED.replace(true) {
        return count();
    }
    if let Ok(mut waiter) = Waiter::new() {
        for _ in 0..STEPS {
            if count() > 0 {
                break;
            }
            pgrx::check_for_interrupts!();
            waiter.sleep(STEP);
        }
    }
    count()
}

/// How often this was called within the running statement: many rows of one statement must not be many notices.
#[pg_extern(schema = "_connector_service", volatile, parallel_unsafe)]
fn connector_service_notice_number() -> i32 {
    thread_local! {
        /// When the statement began, and its calls.
        static GIVEN: Cell<(i64, i32)> = const { Cell::new((0, 0)) };
    }
    // SAFETY: plain look-up of when the session's statement began.
    let began = unsafe { pg_sys::GetCurrentStatementStartTimestamp() };
    let (of, number) = GIVEN.get();
    let number = if of == began {
        number.saturating_add(1)
    } else {
        1
    };
    GIVEN.set((began, number));
    number
}
