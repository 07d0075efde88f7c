//! Tests that a database is read whole and once, whatever its columns are: random tables of all types, with NULLs, ties
//! and batches of a few rows, in PostgreSQL and MariaDB, beside a plain SELECT; clocks that are put back; stamps that are
//! no times; and statements that an index answers.
//!
//! No extension is needed: the engine that fetches is driven directly, and what it brings is kept here as the worker
//! keeps it. `KEYSET_TABLES=2000` makes so many tables on each server, `KEYSET_SEED=7` the same ones again,
//! and `KEYSET_FIRST=12` those from the twelfth on.

mod engine;
mod mysql;
mod plan;
mod postgres;
mod story;
mod zones;

use connector_service_test::{Cluster, MariaDb};

/// A number from the environment.
fn given(name: &str, usual: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(usual, |text| text.parse().expect(name))
}

fn seed() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock");
    let seed = given("KEYSET_SEED", now.as_nanos() as u64 % 1_000_000);
    println!("KEYSET_SEED={seed}");
    seed
}

/// A PostgreSQL that is read; it does not have the extension.
fn server() -> Cluster {
    let cluster = Cluster::create();
    cluster.configure("fsync = off\nsynchronous_commit = off\nmax_connections = 50");
    cluster.run();
    cluster
}

fn maria() -> (Cluster, MariaDb) {
    let folder = Cluster::empty();
    let server = MariaDb::start(folder.dir.clone(), &["--sql-mode=NO_ENGINE_SUBSTITUTION"]);
    server
        .client("")
        .run("CREATE DATABASE shop CHARACTER SET utf8mb4");
    (folder, server)
}
