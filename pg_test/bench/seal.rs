//! What sealing costs: a connector that is inserted without credentials, with plain ones and with a box; and a sync of
//! many small pages, whose tokens are sealed where there are credentials.

use std::time::Instant;

use connector_service_test::{Cluster, api, sealed_box, sync, wait_for_run};
use postgres::Client;
use serde_json::{Value, json};

use crate::sync::Web;
use crate::{median, number};

const PAGE: usize = 10;

pub fn run() {
    let connectors = number("CONNECTORS", 5_000);
    let records = number("PAGES_SEALED", 5_000) * PAGE;
    let rounds = number("ROUNDS", 3);
    let cluster = Cluster::start(
        "shared_buffers = '512MB'\nmax_wal_size = '8GB'\nautovacuum = off\nlog_min_messages = error",
    );
    let web = Web::start(&cluster.dir.join("web"), records, &[PAGE]);
    let mut client = cluster.database("bench");
    cluster.wait_worker("bench");
    client
        .batch_execute("SET client_min_messages = error")
        .expect("SET");
    let secret = "sk_test_not_a_real_key";
    let key: String = client
        .query_one("SELECT connector_service_seal_key()", &[])
        .expect("a key")
        .get(0);
    let given = [
        ("none", json!({})),
        ("plain", json!({ "api_key": secret })),
        (
            "box",
            json!({"api_key": {"$box": sealed_box(&key, secret)}}),
        ),
    ];
    let mut inserts = [const { Vec::new() }; 3];
    let mut syncs = [const { Vec::new() }; 2];
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for ((_, credentials), seconds) in given.iter().zip(&mut inserts) {
            seconds.push(insert(&mut client, credentials, connectors));
        }
        // Each goes first as often as the other.
        for turn in [round % 2, 1 - round % 2] {
            let seconds = read(&mut client, &given[turn].1, &web.url(), records);
            syncs[turn].push(seconds);
        }
    }
    println!("\n{connectors} connectors, one INSERT each, in one transaction");
    let none = median(inserts[0].clone());
    for ((name, _), seconds) in given.iter().zip(inserts) {
        let seconds = median(seconds);
        println!(
            "credentials: {name:<8} {:>8.0} connectors/s   {:>5.1} us more than none",
            connectors as f64 / seconds,
            (seconds - none) / connectors as f64 * 1e6
        );
    }
    let pages = records / PAGE;
    let [none, sealed] = syncs.map(median);
    println!(
        "a sync of {pages} pages of {PAGE} records: {:.0} us a page without credentials, {:.0} us with sealed tokens ({:.3} times)\n",
        none / pages as f64 * 1e6,
        sealed / pages as f64 * 1e6,
        sealed / none
    );
}

/// Seconds that it takes to insert so many connectors.
fn insert(client: &mut Client, credentials: &Value, connectors: usize) -> f64 {
    let sql = "INSERT INTO connectors (tenant_id, name, type, credentials, status) VALUES ('00000000-0000-4000-8000-000000000001', $1, 'stripe', $2, 'paused')";
    client
        .batch_execute("TRUNCATE connectors CASCADE; CHECKPOINT")
        .expect("TRUNCATE");
    let statement = client.prepare(sql).expect("INSERT");
    let start = Instant::now();
    let mut transaction = client.transaction().expect("BEGIN");
    for _ in 0..connectors {
        transaction
            .execute(&statement, &[&"c", credentials])
            .expect("INSERT");
    }
    transaction.commit().expect("COMMIT");
    start.elapsed().as_secs_f64()
}

/// Seconds of a first sync.
fn read(client: &mut Client, credentials: &Value, url: &str, records: usize) -> f64 {
    client
        .batch_execute(
            "TRUNCATE connectors CASCADE; TRUNCATE raw_connector_data CASCADE; CHECKPOINT",
        )
        .expect("TRUNCATE");
    let mut config = api(url, &format!("base-{PAGE}"));
    config["manifest"]["streams"][0]["retriever"]["requester"]["authenticator"] =
        json!({"type": "NoAuth"});
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
               VALUES ('00000000-0000-4000-8000-000000000001', 'c ' || gen_random_uuid(), 'api', $1, $2, 'manual') RETURNING connector_id::text";
    let connector: String = client
        .query_one(sql, &[&config, credentials])
        .expect("INSERT")
        .get(0);
    let run = sync(client, &connector);
    let run = wait_for_run(client, &run);
    assert_eq!(run["inserted"], json!(records), "{run}");
    let sql = "SELECT extract(epoch FROM finished_at - started_at)::float8 FROM sync_runs WHERE run_id = $1::text::uuid";
    client
        .query_one(sql, &[&run["run_id"].as_str()])
        .expect("the run")
        .get(0)
}
