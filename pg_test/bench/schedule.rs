//! What it takes when everything is due at once: many connectors, each with two pages of a vendor that answers after
//! 50 ms, beside the least time that so many requests take at the set concurrency.

use std::time::Duration;

use connector_service_test::{Cluster, Reply, Vendor, api, memory_kb, wait_until};
use postgres::Client;

use crate::numbers;
use crate::sync::cpu;

const LATENCY: Duration = Duration::from_millis(50);
const PAGES: usize = 2;
const TENANTS: usize = 50;

pub fn run() {
    let sizes = numbers("DUE", "100,1000,10000");
    let at_once = numbers("AT_ONCE", "32,128");
    println!(
        "\nconnectors due at once, {PAGES} pages each of a vendor that answers after {} ms, of {TENANTS} tenants",
        LATENCY.as_millis()
    );
    println!(
        "at once   connectors   seconds   of ideal   first start s   worker CPU ms/run   fetch CPU ms/run   commits/run   rows written/run   WAL kB/run   worker MB"
    );
    for at_once in at_once {
        for &connectors in &sizes {
            measure(at_once, connectors);
        }
    }
    println!();
}

fn measure(at_once: usize, connectors: usize) {
    let cluster = Cluster::start(&format!(
        "shared_buffers = '512MB'\nmax_wal_size = '8GB'\ncheckpoint_timeout = '1h'
         connector_service.max_concurrent_syncs = {at_once}
         connector_service.max_syncs_per_account = {at_once}
         connector_service.max_syncs_per_tenant = {at_once}"
    ));
    let vendor = Vendor::start(|asked| {
        let page = asked.number("after");
        let next = if page + 1 < PAGES {
            (page + 1).to_string()
        } else {
            "null".into()
        };
        let body = format!(r#"{{"data": [{{"id": {page}, "total": "12.50"}}], "next": {next}}}"#);
        Reply::After(LATENCY, Box::new(Reply::Json(body)))
    });
    let mut client = cluster.database("bench");
    let worker = cluster.wait_worker("bench");
    let insert = format!(
        "INSERT INTO connectors (tenant_id, name, type, config, credentials, next_sync_at)
         SELECT ('00000000-0000-4000-8000-' || lpad((i % {TENANTS})::text, 12, '0'))::uuid, 'shop ' || i, 'api', $1,
            '{{\"api_key\": \"sk_test_not_a_real_key\"}}', now() + interval '2 hours' FROM generate_series(1, {connectors}) AS i"
    );
    client
        .execute(&insert, &[&api(&vendor.url(), "orders")])
        .expect("INSERT INTO connectors");
    let before = Used::of(&mut client, worker);
    let due: String = client
        .query_one("SELECT clock_timestamp()::text", &[])
        .expect("the time")
        .get(0);
    client
        .batch_execute("UPDATE connectors SET next_sync_at = now()")
        .expect("UPDATE connectors");
    wait_until(900, "every connector was synced", || {
        // Seldom: whoever looks takes from what is measured.
        std::thread::sleep(Duration::from_millis(500));
        let sql = "SELECT count(*) FROM connectors WHERE last_sync_at IS NULL";
        (client.query_one(sql, &[]).ok()?.get::<_, i64>(0) == 0).then_some(())
    });
    let sql = "SELECT extract(epoch FROM max(finished_at) - $1::text::timestamptz)::float8, extract(epoch FROM min(started_at) - $1::text::timestamptz)::float8,
        count(*) FILTER (WHERE state = 'succeeded' AND inserted = 2), count(*) FROM sync_runs";
    let row = client.query_one(sql, &[&due]).expect("the runs");
    let (seconds, first): (f64, f64) = (row.get(0), row.get(1));
    assert_eq!(
        (row.get::<_, i64>(2), row.get::<_, i64>(3)),
        (connectors as i64, connectors as i64)
    );
    // What a session counts is there once it has been idle for a moment.
    std::thread::sleep(Duration::from_secs(2));
    let after = Used::of(&mut client, worker);
    let ideal = (connectors * PAGES) as f64 * LATENCY.as_secs_f64() / at_once as f64;
    let each = |of: fn(&Used) -> f64| (of(&after) - of(&before)) / connectors as f64;
    println!(
        "{at_once:>7}   {connectors:>10}   {seconds:>7.2}   {:>8.2}   {first:>13.3}   {:>17.2}   {:>16.2}   {:>11.1}   {:>16.1}   {:>10.1}   {:>9}",
        seconds / ideal,
        each(|used| used.main) * 1e3,
        each(|used| used.fetch) * 1e3,
        each(|used| used.commits),
        each(|used| used.rows),
        each(|used| used.wal) / 1024.0,
        memory_kb(worker, "VmHWM") / 1024
    );
}

/// What was used so far.
struct Used {
    main: f64,
    fetch: f64,
    commits: f64,
    rows: f64,
    wal: f64,
}

impl Used {
    fn of(client: &mut Client, worker: i32) -> Used {
        let sql = "SELECT (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())::float8,
            (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables)::float8,
            (pg_current_wal_lsn() - '0/0'::pg_lsn)::float8";
        let row = client.query_one(sql, &[]).expect("statistics");
        let (main, fetch) = cpu(worker);
        Used {
            main,
            fetch,
            commits: row.get(0),
            rows: row.get(1),
            wal: row.get(2),
        }
    }
}
