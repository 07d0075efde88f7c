//! `make bench`: what a sync, its facts, its metrics and their reading cost, each beside a limit of PostgreSQL's own.
//!
//! Rounds are interleaved and medians are shown: the machine may be noisy, so only ratios within one run mean
//! anything.
//!
//! All parts run, or those that are named: `sync` (RECORDS, PAGES), `settle` (FACTS), `read` (METRICS),
//! `seal` (CONNECTORS, PAGES_SEALED), `database` (ROWS), `upload` (MEGABYTES), `schedule` (DUE, AT_ONCE),
//! `gateway` (SECONDS), `tenants` (RECORDS, STORED), `retention` (KEPT). ROUNDS (3) is for all of them but `schedule`.

mod database;
mod gateway;
mod read;
mod retention;
mod schedule;
mod seal;
mod settle;
mod sync;
mod tenants;
mod upload;

const PARTS: [(&str, fn()); 10] = [
    ("sync", sync::run),
    ("settle", settle::run),
    ("read", read::run),
    ("seal", seal::run),
    ("database", database::run),
    ("upload", upload::run),
    ("schedule", schedule::run),
    ("gateway", gateway::run),
    ("tenants", tenants::run),
    ("retention", retention::run),
];

fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    for one in &named {
        let is_known = PARTS.iter().any(|(name, _)| name == one);
        assert!(is_known, "\"{one}\" is no part of the bench");
    }
    for (name, run) in PARTS {
        if named.is_empty() || named.iter().any(|one| one == name) {
            run();
        }
    }
}

fn number(name: &str, default: usize) -> usize {
    numbers(name, &default.to_string())[0]
}

/// A list of numbers with commas or spaces between.
fn numbers(name: &str, default: &str) -> Vec<usize> {
    std::env::var(name)
        .unwrap_or_else(|_| default.into())
        .split([',', ' '])
        .filter(|text| !text.is_empty())
        .map(|text| {
            text.parse()
                .unwrap_or_else(|_| panic!("{name} holds numbers with commas or spaces between"))
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
