//! `make demo`: a private server, a vendor over HTTP, and a connector that is synced, once by hand and once by
//! pg_cron. The SQL is shown as it is typed; the numbers are checked.

use std::process::ExitCode;
use std::sync::Arc;

use connector_service_test::{Cluster, Shop, Vendor, wait_until};
use serde_json::json;

const ORDERS: usize = 6_000;
const PAGE: usize = 250;
/// Orders that the shop changes and adds between the two syncs.
const REFUNDED: usize = 40;
const ADDED: usize = 25;

fn main() -> ExitCode {
    println!(
        "Starting a PostgreSQL server of our own, with pg_cron, and a shop with {ORDERS} orders ..."
    );
    let cluster = Cluster::create();
    cluster.configure(
        "shared_preload_libraries = 'connector_service, pg_cron'\ncron.database_name = 'shop'\ncron.host = '127.0.0.1'",
    );
    cluster.run();
    cluster
        .client("postgres")
        .batch_execute("CREATE DATABASE shop")
        .expect("CREATE DATABASE");
    let shop = Arc::new(Shop::new(0, PAGE));
    put(&shop, 0..ORDERS, |id| order(id, "paid", 1 + id % 25));
    let serving = shop.clone();
    let vendor = Vendor::start(move |asked| serving.answer(asked));

    psql(&cluster, "1_first_sync.sql", &vendor.url());

    println!(
        "\n-- Meanwhile in the shop: {REFUNDED} orders are refunded, {ADDED} new ones come in."
    );
    put(&shop, 0..REFUNDED, |id| order(id * 100, "refunded", 27));
    put(&shop, ORDERS..ORDERS + ADDED, |id| order(id, "paid", 28));
    psql(&cluster, "2_schedule.sql", &vendor.url());
    println!("\n-- Waiting for the minute to be full ...");
    let mut client = cluster.client("shop");
    let runs = "SELECT count(*) FROM sync_runs WHERE state = 'succeeded'";
    wait_until(90, "pg_cron's job has made the worker sync", || {
        let count: i64 = client.query_one(runs, &[]).ok()?.get(0);
        (count == 2).then_some(())
    });
    // What cron writes down about the job comes a moment after the job.
    wait_until(10, "pg_cron has written its job down", || {
        let done = "SELECT count(*) FROM cron.job_run_details WHERE end_time IS NOT NULL";
        let count: i64 = client.query_one(done, &[]).ok()?.get(0);
        (count > 0).then_some(())
    });
    psql(&cluster, "3_result.sql", &vendor.url());

    let sql = "SELECT jsonb_agg(jsonb_build_array(inserted, updated, quarantined) ORDER BY requested_at) FROM sync_runs";
    let counted: serde_json::Value = client.query_one(sql, &[]).expect("sync_runs").get(0);
    // A few more were read a second time, because a sync asks again for the last minutes before its cursor.
    let expected = json!([[ORDERS, 0, 0], [ADDED, REFUNDED, 0]]);
    let connector = "SELECT connector_id::text FROM connectors";
    let connector: String = client.query_one(connector, &[]).expect("connectors").get(0);
    if counted != expected {
        println!("The runs should have counted {expected}, not {counted}.");
        return ExitCode::FAILURE;
    }
    if Shop::stored(&mut client, &connector) != shop.served() {
        println!("What is stored is not what the shop served.");
        return ExitCode::FAILURE;
    }
    println!(
        "Every order of the shop is stored as it came, {} in all, after {} requests.",
        ORDERS + ADDED,
        vendor.asked().len()
    );
    ExitCode::SUCCESS
}

/// Shows a script as it is typed, and what comes of it.
fn psql(cluster: &Cluster, script: &str, vendor: &str) {
    let script = format!("{}/demo/{script}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(script).expect("a script of the demo");
    // A copy, because the server's user may not be allowed to read the checkout.
    let file = cluster.dir.join("script.sql");
    std::fs::write(&file, text).expect("a temporary file");
    let base_url = format!("base_url={vendor}");
    let shown = cluster.command(
        "psql",
        &[
            "-X",
            "-e",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            &base_url,
            "-d",
            &cluster.url("shop"),
            "-f",
            file.to_str().expect("a path in UTF-8"),
        ],
    );
    // Where psql found the statement says nothing to a reader.
    println!(
        "{}",
        shown.replace(&format!("psql:{}:", file.display()), "line ")
    );
}

fn put(shop: &Shop, ids: std::ops::Range<usize>, order: impl Fn(usize) -> (usize, String)) {
    shop.orders.lock().expect("no panic").extend(ids.map(order));
}

/// An order as a shop's API shows it: money with two decimals, lines within.
fn order(id: usize, status: &str, day: usize) -> (usize, String) {
    const CITIES: [&str; 6] = [
        "Hamburg",
        "Bremen",
        "Lübeck",
        "Kiel",
        "Rostock",
        "Flensburg",
    ];
    const ARTICLES: [(&str, usize); 4] = [
        ("House blend 500 g", 890),
        ("Filter, box of 100", 349),
        ("Espresso 1 kg", 2_190),
        ("Hand grinder", 7_450),
    ];
    // Spread like chance would, and the same every time.
    let chance = |n: usize| (id + 7_919 * n).wrapping_mul(2_654_435_761) >> 7;
    let lines: Vec<(usize, usize)> = (0..1 + chance(0) % 3)
        .map(|n| (chance(1 + n) % ARTICLES.len(), 1 + chance(4 + n) % 4))
        .collect();
    let total: usize = lines
        .iter()
        .map(|(article, quantity)| ARTICLES[*article].1 * quantity)
        .sum();
    let money = |cents: usize| format!("{}.{:02}", cents / 100, cents % 100);
    let shown: Vec<String> = lines
        .iter()
        .map(|(article, quantity)| {
            let (name, price) = ARTICLES[*article];
            format!(
                r#"{{"article": "{name}", "quantity": {quantity}, "price": {}}}"#,
                money(price)
            )
        })
        .collect();
    let text = format!(
        r#"{{"id": {id}, "number": "WS-{:06}", "status": "{status}", "created_at": "2025-03-{:02}T{:02}:{:02}:00Z", "updated_at": "2025-03-{day:02}T{:02}:{:02}:{:02}Z", "currency": "EUR", "total": {}, "city": "{}", "lines": [{}]}}"#,
        10_000 + id,
        1 + id % 25,
        8 + id % 12,
        id % 60,
        8 + id % 12,
        id % 60,
        id % 57,
        money(total),
        CITIES[chance(9) % CITIES.len()],
        shown.join(", ")
    );
    (id, text)
}
