//! Tests many connectors at once: the server may wait for vendors, but not for itself.

use std::time::{Duration, Instant};

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

const CONNECTORS: usize = 500;
const PAGES: usize = 3;
const RECORDS: usize = 20;
const PAUSE: Duration = Duration::from_millis(200);
/// The default of `connector_service.max_concurrent_syncs`.
const AT_ONCE: usize = 32;

#[test]
fn five_hundred_slow_connectors_take_less_than_three_times_the_ideal_and_bounded_memory() {
    let cluster = Cluster::start(&format!(
        "connector_service.max_syncs_per_account = {AT_ONCE}"
    ));
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|asked| {
        let page = asked.number("after");
        let records: Vec<String> = (0..RECORDS).map(|i| order(page * RECORDS + i, 0)).collect();
        let next = if page + 1 < PAGES {
            json!(page + 1)
        } else {
            Value::Null
        };
        let body = format!(r#"{{"data": [{}], "next": {next}}}"#, records.join(","));
        Reply::After(PAUSE, Box::new(Reply::Json(body)))
    });
    let config = api(&vendor.url(), "orders");
    let insert = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
                  SELECT gen_random_uuid(), 'shop ' || i, 'api', $1, '{\"api_key\": \"k\"}', 'manual'
                  FROM generate_series(1, $2) i";
    client
        .execute(insert, &[&config, &(CONNECTORS as i32)])
        .unwrap();
    let worker = cluster.wait_worker("app");
    let idle = memory_kb(worker, "VmRSS");

    let started = Instant::now();
    let queued: i64 = client
        .query_one(
            "SELECT count(connector_service_sync(connector_id)) FROM connectors",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(queued, CONNECTORS as i64);
    wait_until(120, "every run has ended", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE finished_at IS NULL";
        let open: i64 = client.query_one(sql, &[]).unwrap().get(0);
        (open == 0).then_some(())
    });
    let took = started.elapsed();

    let sql = "SELECT state, pages, inserted, count(*) FROM sync_runs GROUP BY 1, 2, 3";
    let runs: Vec<(String, i64, i64, i64)> = client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect();
    let records = (PAGES * RECORDS) as i64;
    assert_eq!(
        runs,
        [("succeeded".into(), PAGES as i64, records, CONNECTORS as i64)]
    );
    ledger_holds(&mut client);
    assert_eq!(cluster.worker("app"), Some(worker));

    let ideal = PAUSE * (CONNECTORS * PAGES) as u32 / AT_ONCE as u32;
    let grown = memory_kb(worker, "VmHWM").saturating_sub(idle) / 1024;
    println!(
        "{CONNECTORS} connectors, {PAGES} pages of {PAUSE:?} each, {AT_ONCE} at once: {took:.1?}, {:.2} times the ideal of {ideal:.1?}; \
         the worker grew by {grown} MB at most",
        took.as_secs_f64() / ideal.as_secs_f64()
    );
    assert!(took < ideal * 3, "{took:?}");
    assert!(grown < 128, "{grown} MB");
}

/// Runs that have ended while the old snapshot was kept.
const ENDED: usize = 80_000;
/// Most blocks that one sync may visit in all statements on `sync_runs`. Where every look visits the rows of all these runs it
/// is 28,000.
const MOST_BLOCKS: i64 = 8_000;

#[test]
fn an_old_snapshot_does_not_make_a_look_at_the_queue_visit_every_run_that_has_ended() {
    let cluster = Cluster::start(
        "shared_preload_libraries = 'connector_service,pg_stat_statements'\npg_stat_statements.track = all\nautovacuum = off",
    );
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|_| Reply::Json(format!(r#"{{"data": [{}]}}"#, order(1, 0))));
    let connector = insert_connector(&mut client, "shop", &api(&vendor.url(), "orders"));
    synced(&mut client, &connector);
    client
        .batch_execute("CREATE EXTENSION pg_stat_statements")
        .unwrap();

    // A dump, a report: it has no transaction id, and nothing that ends from now on is cleaned away.
    let mut reader = cluster.client("app");
    reader
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM tenants")
        .unwrap();
    let insert = "INSERT INTO sync_runs (connector_id, tenant_id, kind)
         SELECT c.connector_id, c.tenant_id, 'check' FROM connectors c, generate_series(1, $1::integer) WHERE c.connector_id = $2::text::uuid";
    let mut ended = client.transaction().unwrap();
    ended
        .execute(insert, &[&(ENDED as i32), &connector])
        .unwrap();
    let end =
        "UPDATE sync_runs SET state = 'cancelled', finished_at = now() WHERE state = 'queued'";
    assert_eq!(ended.execute(end, &[]).unwrap(), ENDED as u64);
    ended.commit().unwrap();
    // One look after them: it finds out from when on there is anything to be found.
    synced(&mut client, &connector);
    wait_until(60, "the queue's horizon is behind them", || {
        blocks(&mut client, &connector, 1).filter(|blocks| *blocks <= MOST_BLOCKS)
    });

    let syncs = 10;
    let visited = blocks(&mut client, &connector, syncs).unwrap() / syncs as i64;
    println!(
        "{ENDED} runs ended under an old snapshot: a sync visits {visited} blocks for what it asks of sync_runs"
    );
    let sql = "SELECT shared_blks_hit + shared_blks_read, calls, left(regexp_replace(query, '\\s+', ' ', 'g'), 120) FROM pg_stat_statements
               WHERE query LIKE '%sync_runs%' ORDER BY 1 DESC LIMIT 5";
    for row in client.query(sql, &[]).unwrap() {
        let (blocks, calls, query): (i64, i64, String) = (row.get(0), row.get(1), row.get(2));
        println!("{blocks:>9} blocks {calls:>5} calls {query}");
    }
    assert!(visited <= MOST_BLOCKS, "{visited} blocks");

    // A run that commits late, in a transaction that began before: it is found at once all the same.
    let mut late = cluster.client("app");
    let mut late = late.transaction().unwrap();
    let sql = "SELECT connector_service_sync($1::text::uuid)::text";
    let run: String = late.query_one(sql, &[&connector]).unwrap().get(0);
    let other = insert_connector(&mut client, "other", &api(&vendor.url(), "orders"));
    // Longer than a worker keeps to one horizon.
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        synced(&mut client, &other);
    }
    late.commit().unwrap();
    let began = Instant::now();
    wait_for_run(&mut client, &run);
    assert!(began.elapsed() < Duration::from_secs(10));
    ledger_holds(&mut client);
    reader.batch_execute("COMMIT").unwrap();
}

fn synced(client: &mut Client, connector: &str) {
    let run = sync(client, connector);
    let run = wait_for_run(client, &run);
    assert_eq!(run["state"], "succeeded", "{run}");
}

/// The blocks that so many syncs visit in all statements on `sync_runs`, those of the test aside.
fn blocks(client: &mut Client, connector: &str, syncs: usize) -> Option<i64> {
    client
        .batch_execute("SELECT pg_stat_statements_reset()")
        .unwrap();
    for _ in 0..syncs {
        let run = sync(client, connector);
        wait_until(60, "the sync has ended", || {
            let sql = "SELECT finished_at IS NOT NULL FROM sync_runs WHERE run_id = $1::text::uuid";
            let is_over: bool = client.query_one(sql, &[&run]).unwrap().get(0);
            is_over.then_some(())
        });
    }
    let sql = "SELECT sum(shared_blks_hit + shared_blks_read)::bigint FROM pg_stat_statements WHERE query LIKE '%sync_runs%'";
    client.query_one(sql, &[]).unwrap().get(0)
}
