//! Tests what a person meets in the first hour: when a new connector is synced, how things are called, which database answers
//! at the gateway, and what says that somebody moved what the extension needs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod at_once;
mod gateway;
mod moved;
mod named;

use connector_service_test::*;
use postgres::Client;

fn count(client: &mut Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).unwrap().get(0)
}

fn text(client: &mut Client, sql: &str) -> String {
    client.query_one(sql, &[]).unwrap().get(0)
}

/// What the doctor says of one thing.
fn doctor(client: &mut Client, item: &str) -> (bool, String, Option<String>) {
    let sql = "SELECT ok, detail, fix FROM connector_service_doctor() WHERE item = $1";
    let row = client.query_one(sql, &[&item]).unwrap();
    (row.get(0), row.get(1), row.get(2))
}

/// Runs what the doctor says, statement by statement: ALTER SYSTEM stands alone.
fn mend(client: &mut Client, fix: &str) {
    for statement in fix.split(" -- ").next().unwrap().split_inclusive(';') {
        client.batch_execute(statement).unwrap();
    }
}

/// The SQLSTATE, the message and the hint of a statement that fails.
fn refusal(client: &mut Client, sql: &str) -> (String, String, String) {
    let error = client.batch_execute(sql).unwrap_err();
    let error = error.as_db_error().unwrap();
    let hint = error.hint().unwrap_or_default().to_owned();
    (
        error.code().code().to_owned(),
        error.message().to_owned(),
        hint,
    )
}

/// A config of type api, as it stands in a literal.
fn config(vendor: &str, path: &str) -> String {
    api(vendor, path).to_string().replace('\'', "''")
}

/// A statement that inserts a connector of type api, hourly and without a tenant.
fn insert(name: &str, vendor: &str, path: &str) -> String {
    let config = config(vendor, path);
    format!(
        "INSERT INTO connectors (name, type, config, credentials) VALUES ('{name}', 'api', '{config}', '{{\"api_key\": \"sk_test_not_a_real_key\"}}');"
    )
}
