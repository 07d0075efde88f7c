//! Tests many connectors at once: the server may wait for vendors, but not for itself.

use std::time::{Duration, Instant};

use connector_service_test::*;
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
