//! Tenants beside each other: two of them stored and settled by one worker and by two, and the records of one derived again
//! while another one is synced.

use std::time::{Duration, Instant};

use connector_service_test::{Cluster, api, memory_kb, sync, wait_for_run, wait_until};
use postgres::Client;

use crate::sync::Web;
use crate::{median, number};

/// Of different workers where there are two, by the rest of the id divided by their number.
const TENANTS: [&str; 2] = [
    "00000000-0000-4000-8000-000000000002",
    "00000000-0000-4000-8000-000000000003",
];

const PAGE: usize = 1_000;

/// Between two questions whether the runs have ended. Shorter: the bench takes from the workers what it measures.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

pub fn run() {
    let records = number("RECORDS", 200_000);
    let stored = number("STORED", 1_000_000);
    let rounds = number("ROUNDS", 3);
    let cluster = Cluster::start(
        "shared_buffers = '512MB'\nmax_wal_size = '8GB'\ncheckpoint_timeout = '1h'\nautovacuum = off",
    );
    let web = Web::start(&cluster.dir.join("web"), records, &[PAGE]);
    let mut client = cluster.database("bench");
    // To look whether a record waits must not read the whole table, again and again.
    client
        .batch_execute("SET enable_seqscan = off")
        .expect("SET");
    for tenant in TENANTS {
        let sql = "INSERT INTO tenants (tenant_id, name) VALUES ($1::text::uuid, $1)";
        client
            .execute(sql, &[&tenant])
            .expect("INSERT INTO tenants");
    }
    let mut took = [Vec::new(), Vec::new()];
    let mut bytes = [0, 0];
    for round in 1..=rounds {
        for workers in [1, 2] {
            eprintln!("round {round} of {rounds}, {workers} workers");
            let (seconds, size) = both(&cluster, &mut client, &web.url(), workers, records);
            took[workers - 1].push(seconds);
            bytes[workers - 1] = size;
        }
    }
    let [one, two] = took.map(median);
    println!(
        "\ntwo tenants of {records} records, a mapping each, until they are stored and settled"
    );
    println!(
        "one worker {one:>8.2} s   raw_connector_data {:>5} MB",
        bytes[0] >> 20
    );
    println!(
        "two workers{two:>8.2} s   raw_connector_data {:>5} MB",
        bytes[1] >> 20
    );
    println!("two workers are {:.2} times as fast as one", one / two);
    reprocess(&cluster, &mut client, &web.url(), stored);
}

fn both(
    cluster: &Cluster,
    client: &mut Client,
    url: &str,
    workers: usize,
    records: usize,
) -> (f64, i64) {
    client
        .batch_execute("TRUNCATE connectors CASCADE; TRUNCATE raw_connector_data; CHECKPOINT")
        .expect("TRUNCATE");
    client
        .batch_execute(&format!(
            "ALTER SYSTEM SET connector_service.sync_workers = {workers}"
        ))
        .expect("ALTER SYSTEM");
    client
        .batch_execute("SELECT pg_reload_conf()")
        .expect("a reload");
    wait_until(90, "as many workers", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'connector_service sync worker'";
        client
            .batch_execute("SELECT _connector_service.connector_service_wake()")
            .ok()?;
        let there: i64 = client.query_one(sql, &[]).ok()?.get(0);
        (there == workers as i64).then_some(())
    });
    for tenant in TENANTS {
        connector(client, tenant, url);
    }
    client.batch_execute("CHECKPOINT").expect("CHECKPOINT");
    let began = Instant::now();
    client
        .execute(
            "SELECT connector_service_sync(connector_id) FROM connectors",
            &[],
        )
        .expect("sync");
    // First what costs nothing to ask: to look for records that wait takes as much of a core as a worker does.
    wait_until(600, "both are stored", || {
        std::thread::sleep(BETWEEN_LOOKS);
        let sql = "SELECT count(*) FROM sync_runs WHERE state IN ('queued', 'running')";
        let open: i64 = client.query_one(sql, &[]).ok()?.get(0);
        (open == 0).then_some(())
    });
    wait_until(600, "both are settled", || {
        let sql = "SELECT EXISTS (SELECT FROM raw_connector_data WHERE NOT processed) OR EXISTS (SELECT FROM metric_days_touched)";
        let is_open: bool = client.query_one(sql, &[]).ok()?.get(0);
        (!is_open).then_some(())
    });
    let seconds = began.elapsed().as_secs_f64();
    let sql =
        "SELECT (SELECT count(*) FROM metric_facts), pg_total_relation_size('raw_connector_data')";
    let row = client.query_one(sql, &[]).expect("facts");
    assert_eq!(row.get::<_, i64>(0), 2 * records as i64);
    let log = cluster.log();
    assert!(!log.contains("terminated by signal"));
    (seconds, row.get(1))
}

/// A connector of a tenant with a mapping.
fn connector(client: &mut Client, tenant: &str, url: &str) -> String {
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
               VALUES ($1::text::uuid, 'shop', 'api', $2, '{\"api_key\": \"sk_test_not_a_real_key\"}', 'manual') RETURNING connector_id::text";
    let config = api(url, &format!("base-{PAGE}"));
    let row = client.query_one(sql, &[&tenant, &config]);
    let connector: String = row.expect("INSERT INTO connectors").get(0);
    map(client, &connector);
    connector
}

fn map(client: &mut Client, connector: &str) {
    client
        .execute(
            "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, category_path, currency_path, filter)
             VALUES ($1::text::uuid, 'orders', 'revenue', '$.total_price', '$.created_at', '$.customer.country', '$.currency', '$.test == false')",
            &[&connector],
        )
        .expect("INSERT INTO metric_mappings");
}

/// The first mapping over records that are stored, while another tenant is synced.
fn reprocess(cluster: &Cluster, client: &mut Client, url: &str, stored: usize) {
    client
        .batch_execute("TRUNCATE connectors CASCADE; TRUNCATE raw_connector_data")
        .expect("TRUNCATE");
    let ordinary = connector(client, TENANTS[0], url);
    let sql = "INSERT INTO connectors (tenant_id, name, type, status) VALUES ($1::text::uuid, 'large', 'stripe', 'paused') RETURNING connector_id::text";
    let large: String = client
        .query_one(sql, &[&TENANTS[1]])
        .expect("INSERT")
        .get(0);
    eprintln!("making {stored} stored records");
    client
        .execute(
            "INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data, processed)
             SELECT c.tenant_id, c.connector_id, c.type, 'orders', 'orders/' || i, jsonb_build_object('id', i, 'total_price', (i % 500) || '.25', 'currency', 'USD', 'test', false,
                 'created_at', date '2024-01-01' + i % 700, 'customer', jsonb_build_object('country', 'DE', 'email', 'customer.' || i || '@example.com'),
                 'note', repeat('a note ', 40)), true
             FROM connectors c, generate_series(1, $2::integer) i WHERE c.connector_id = $1::text::uuid",
            &[&large, &(stored as i32)],
        )
        .expect("INSERT INTO raw_connector_data");
    map(client, &large);
    // The other tenant's first sync, and then short ones.
    let run = sync(client, &ordinary);
    wait_for_run(client, &run);
    let again = |client: &mut Client| {
        client
            .batch_execute("DELETE FROM sync_state")
            .expect("DELETE");
        let began = Instant::now();
        let run = sync(client, &ordinary);
        let run = wait_for_run(client, &run);
        assert_eq!(run["state"], "succeeded", "{run}");
        began.elapsed().as_secs_f64()
    };
    let alone = median((0..3).map(|_| again(client)).collect());
    let mut session = cluster.client("bench");
    let connector = large.clone();
    let reprocessing = std::thread::spawn(move || {
        let began = Instant::now();
        let sql = "SELECT connector_service_reprocess($1::text::uuid)";
        let row = session.query_one(sql, &[&connector]).expect("reprocess");
        (row.get::<_, i64>(0), began.elapsed().as_secs_f64())
    });
    let mut beside = Vec::new();
    while !reprocessing.is_finished() {
        beside.push(again(client));
    }
    let (records, seconds) = reprocessing.join().expect("no panic");
    assert_eq!(records, stored as i64);
    let syncs = beside.len();
    println!(
        "\n{stored} stored records under their first mapping: {seconds:.1} s, {:.0} records/s\nmeanwhile {syncs} syncs of another tenant, {:.2} s each (median), {alone:.2} s alone",
        stored as f64 / seconds,
        median(beside)
    );
    if let Some(worker) = cluster.worker("bench") {
        println!(
            "worker: largest resident memory {} MB",
            memory_kb(worker, "VmHWM") / 1024
        );
    }
}
