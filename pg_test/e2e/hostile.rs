//! Tests that one tenant that does everything at once that a tenant can do hardly slows twenty ordinary tenants.
//!
//! `HOSTILE_SECONDS` (15) is how long it is watched alone and beside, `HOSTILE_CONNECTORS` (300) how many of its connectors
//! hang. Before a release: 600 and 9900.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

const HOSTILE: &str = "00000000-0000-4000-8000-0000000000bb";
const ORDINARY: usize = 20;
const AT_ONCE: usize = 32;

fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |text| text.parse().expect("a number"))
}

/// Inserts a connector and returns its id.
fn connector(client: &mut Client, tenant: &str, name: &str, kind: &str, config: &Value) -> String {
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
               VALUES ($1::text::uuid, $2, $3, $4, CASE $3 WHEN 'api' THEN '{\"api_key\": \"sk_test_not_a_real_key\"}' ELSE '{}' END::jsonb, 'manual')
               RETURNING connector_id::text";
    let row = client.query_one(sql, &[&tenant, &name, &kind, config]);
    row.expect("INSERT INTO connectors").get(0)
}

struct Waits {
    median: f64,
    most: f64,
    p99: f64,
    count: usize,
}

/// Times syncs of ordinary tenants one after the other, from the queue to the end, in milliseconds.
fn watch(client: &mut Client, connectors: &[String], how_long: Duration) -> Waits {
    let until = Instant::now() + how_long;
    let mut waits = Vec::new();
    for connector in connectors.iter().cycle() {
        if Instant::now() >= until {
            break;
        }
        let run = sync(client, connector);
        let run = wait_for_run(client, &run);
        assert_eq!(run["state"], "succeeded", "{run}");
        let sql = "SELECT (extract(epoch FROM finished_at - requested_at) * 1000)::float8 FROM sync_runs WHERE run_id = $1::text::uuid";
        let row = client.query_one(sql, &[&run["run_id"].as_str()]);
        waits.push(row.expect("the run").get::<_, f64>(0));
    }
    waits.sort_by(f64::total_cmp);
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    Waits {
        median: at(0.5),
        most: at(1.0),
        p99: at(0.99),
        count: waits.len(),
    }
}

/// Repeats an action until it is told to stop. Errors are ignored.
fn again(
    cluster: &Cluster,
    ended: &Arc<AtomicBool>,
    what: impl Fn(&mut Client) + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let (url, ended) = (cluster.url_as("hostile", "app"), ended.clone());
    std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            let Ok(mut client) = Client::connect(&url, postgres::NoTls) else {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            while !ended.load(Ordering::Relaxed) && !client.is_closed() {
                what(&mut client);
            }
        }
    })
}

#[test]
fn one_hostile_tenant_hardly_slows_twenty_ordinary_ones() {
    let how_long = Duration::from_secs(setting("HOSTILE_SECONDS", 15));
    let hanging = setting("HOSTILE_CONNECTORS", 300) as i32;
    let cluster = Cluster::start(&format!(
        "connector_service.max_syncs_per_account = {AT_ONCE}\nconnector_service.read_timeout = '10min'\nconnector_service.request_timeout = '10min'"
    ));
    let mut client = cluster.database("app");
    client
        .batch_execute(&format!(
            "INSERT INTO tenants (tenant_id, name) VALUES ('{HOSTILE}', 'hostile');
             CREATE ROLE hostile LOGIN IN ROLE connector_service_tenant;
             INSERT INTO tenant_roles VALUES ('hostile', '{HOSTILE}')"
        ))
        .unwrap();
    let worker = cluster.wait_worker("app");
    let shop = Shop::new(200, 100);
    let vendor = Vendor::start(move |asked| shop.answer(asked));
    let ordinary: Vec<String> = (1..=ORDINARY)
        .map(|n| {
            let tenant = format!("00000000-0000-4000-8000-0000000001{n:02}");
            let sql = "INSERT INTO tenants (tenant_id, name) VALUES ($1::text::uuid, 'ordinary')";
            client.execute(sql, &[&tenant]).unwrap();
            let id = connector(&mut client, &tenant, "shop", "api", &api(&vendor.url(), "orders"));
            let sql = "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path) VALUES ($1::text::uuid, 'orders', 'revenue', '$.total', '$.updated_at')";
            client.execute(sql, &[&id]).unwrap();
            id
        })
        .collect();
    // The first sync of each stores its records; every later one finds them.
    for id in &ordinary {
        let run = sync(&mut client, id);
        wait_for_run(&mut client, &run);
    }
    let alone = watch(&mut client, &ordinary, how_long);

    let mut hostile = cluster.client_as("hostile", "app");
    let silent = Vendor::start(|_| Reply::Hang);
    hostile
        .execute(
            "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
             SELECT $1::text::uuid, 'hanging ' || i, 'api', $2, '{\"api_key\": \"sk_test_not_a_real_key\"}', 'hourly' FROM generate_series(1, $3::integer) i",
            &[&HOSTILE, &api(&silent.url(), "orders"), &hanging],
        )
        .unwrap();
    // Pages of nothing, of what is too deep, of long texts for the mapping to match, and of records that are never the same.
    let mean = Vendor::start(|asked| {
        let page = asked.number("after");
        let next = json!((page < 20).then_some(page + 1));
        let records = match asked.path.trim_start_matches('/') {
            "nulls" => "null,".repeat(60_000) + "null",
            "deep" => format!(
                "{{\"id\": {page}, \"deep\": {}1{}}}",
                "{\"a\":".repeat(120),
                "}".repeat(120)
            ),
            "long" => format!(
                "{{\"id\": {page}, \"total\": 1, \"updated_at\": \"2026-01-05\", \"note\": \"{}\"}}",
                "ab".repeat(200_000)
            ),
            _ => {
                let fresh = uuid_like();
                let each = |id| {
                    format!(
                        "{{\"id\": {id}, \"total\": 1, \"updated_at\": \"20{:02}-01-05\", \"fresh\": \"{fresh}\"}}",
                        id % 26
                    )
                };
                (0..2_000).map(each).collect::<Vec<_>>().join(",")
            }
        };
        Reply::Json(format!("{{\"data\": [{records}], \"next\": {next}}}"))
    });
    let mut mean_ones = Vec::new();
    for (name, path) in [
        ("nulls", "nulls"),
        ("deep", "deep"),
        ("long", "long"),
        ("fresh", "fresh"),
        ("fresh too", "fresh"),
    ] {
        let id = connector(&mut hostile, HOSTILE, name, "api", &api(&mean.url(), path));
        for filter in [
            r#"$.note like_regex "(ab)*(ab)*(ab)*c""#,
            r#"exists($.** ? (@ == "nothing"))"#,
            "exists($.lines[*] ? (@.a == $.lines[*].b))",
        ] {
            let sql = "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, filter) VALUES ($1::text::uuid, 'orders', 'revenue', '$.total', '$.updated_at', $2)";
            hostile.execute(sql, &[&id, &filter]).unwrap();
        }
        mean_ones.push(id);
    }
    let file = connector(&mut hostile, HOSTILE, "files", "csv", &json!({}));

    let ended = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    // Locks and idle transactions.
    for statement in [
        "SELECT FROM connectors FOR UPDATE",
        "UPDATE metric_mappings SET note = 'x' WHERE tenant_id IS NOT NULL",
        "DELETE FROM raw_connector_data",
        "UPDATE metrics SET metric_value = metric_value + 1",
        "UPDATE tenants SET timezone = CASE timezone WHEN 'UTC' THEN 'Asia/Tokyo' ELSE 'UTC' END",
    ] {
        threads.push(again(&cluster, &ended, move |client| {
            let _ = client.batch_execute(&format!(
                "BEGIN; SET LOCAL lock_timeout = '2s'; {statement}; SELECT pg_sleep(1); ROLLBACK"
            ));
            let _ = client.batch_execute("ROLLBACK");
        }));
    }
    // Everything is synced, checked and previewed all the time; what is there is derived again.
    let ids = mean_ones.clone();
    threads.push(again(&cluster, &ended, move |client| {
        let _ = client.execute(
            "SELECT connector_service_sync(connector_id) FROM connectors",
            &[],
        );
        for id in &ids {
            for call in ["connector_service_preview", "connector_service_check"] {
                let _ = client.execute(&format!("SELECT {call}('{id}')"), &[]);
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }));
    let id = mean_ones[3].clone();
    threads.push(again(&cluster, &ended, move |client| {
        let _ = client.execute(&format!("SELECT connector_service_reprocess('{id}')"), &[]);
        std::thread::sleep(Duration::from_millis(200));
    }));
    // Huge configs, and files made to hurt.
    threads.push(again(&cluster, &ended, move |client| {
        let _ = client.execute(
            "UPDATE connectors SET config = config || jsonb_build_object('x', (SELECT jsonb_agg(NULL::text) FROM generate_series(1, 200000))) WHERE name = 'files'",
            &[],
        );
        std::thread::sleep(Duration::from_millis(300));
    }));
    threads.push(again(&cluster, &ended, move |client| {
        let sql = "SELECT connector_service_upload($1::text::uuid, $2, $3)::text";
        for (name, content) in [
            (
                "wide.csv",
                [b"a,".repeat(50_000), b"\n1\n".to_vec()].concat(),
            ),
            (
                "long.csv",
                [b"a,b\n1,\"".to_vec(), vec![b'x'; 3 << 20], b"\"\n".to_vec()].concat(),
            ),
            ("quotes.csv", b"\"".repeat(500_000)),
            (
                "many.csv",
                [b"a\n".to_vec(), b"1\n".repeat(100_000)].concat(),
            ),
            (
                "book.xlsx",
                [b"PK\x03\x04".to_vec(), vec![0xff; 1 << 20]].concat(),
            ),
        ] {
            let _ = client.query_one(sql, &[&file, &name, &content]);
        }
        std::thread::sleep(Duration::from_millis(500));
    }));

    let watching = Arc::new(AtomicBool::new(true));
    let (still, url) = (watching.clone(), cluster.url("app"));
    let memory = std::thread::spawn(move || {
        let mut client = Client::connect(&url, postgres::NoTls).unwrap();
        let mut most = 0;
        while still.load(Ordering::Relaxed) {
            let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'connector_service%' AND datname = 'app'";
            for row in client.query(sql, &[]).unwrap() {
                // What it shares with all processes is not its own.
                let pid: i32 = row.get(0);
                let own = memory_kb(pid, "VmRSS").saturating_sub(memory_kb(pid, "RssShmem"));
                most = most.max(own);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        most
    });
    let beside = watch(&mut client, &ordinary, how_long);
    watching.store(false, Ordering::Relaxed);
    let most = memory.join().unwrap();
    ended.store(true, Ordering::Relaxed);
    silent.let_go();
    for thread in threads {
        thread.join().unwrap();
    }
    println!(
        "queue to end, ms: alone {} syncs, median {:.0}, p99 {:.0}, most {:.0}; beside {} syncs, median {:.0}, p99 {:.0}, most {:.0}; worker's own memory {} MB",
        alone.count,
        alone.median,
        alone.p99,
        alone.most,
        beside.count,
        beside.median,
        beside.p99,
        beside.most,
        most >> 10
    );
    assert_eq!(cluster.worker("app"), Some(worker), "the same worker");
    assert_eq!(cluster.log().matches("terminated by signal").count(), 0);
    assert!(most < 256 * 1024, "{most} kB");
    // Twice, and what two processors have to do for everybody at once.
    assert!(beside.median <= alone.median * 2.0 + 50.0, "median");
    assert!(beside.p99 <= alone.p99 * 2.0 + 400.0, "p99");
    ledger_holds(&mut client);
}

/// Returns a different text each time.
fn uuid_like() -> String {
    let now = std::time::SystemTime::now();
    let since = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{:x}", since.as_nanos())
}
