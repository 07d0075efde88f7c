//! The steps of `make demo` from the fourth on: a private server, a shop with an API, and a connector that is synced by
//! hand and then by pg_cron; the metrics, an alert, and the records behind one number; the gateway, its API and its page.
//! Each step shows its SQL and the output, and checks the numbers. The page stays up until Enter is typed: in a terminal, or
//! with `SERVE=1`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use connector_service_test::http::ask;
use connector_service_test::{Cluster, Shop, Vendor, free_port, push, wait_until};
use postgres::Client;
use serde_json::json;

const ORDERS: usize = 6_000;
const PAGE: usize = 250;
/// Orders that the shop changes and adds between the two syncs.
const REFUNDED: usize = 40;
const ADDED: usize = 220;

/// The shop's orders are of so many days up to yesterday ...
const DAYS: usize = 28;
/// ... except this one, on which it took none: a day that will be missed.
const QUIET: usize = 17;
/// The order of which one amount cannot be read.
const BROKEN: usize = ORDERS + 7;

/// The Makefile has the first three.
const STEPS: usize = 10;

/// Says what comes next, and how long it takes.
fn step(number: usize, what: &str, duration: &str) {
    println!("\nStep {number} of {STEPS}: {what} ({duration})\n");
}

fn main() -> ExitCode {
    step(
        4,
        "start a PostgreSQL server and a web shop",
        "about 5 seconds",
    );
    println!(
        "The server is private: it has a temporary folder and a port of its own, and is deleted at the end. The web shop is a\nsmall HTTP API in this program, with {ORDERS} orders of the last {DAYS} days."
    );
    let cluster = Cluster::create();
    let port = free_port();
    cluster.configure(&format!(
        "shared_preload_libraries = 'connector_service, pg_cron'\ncron.database_name = 'shop'\ncron.host = '127.0.0.1'\nconnector_service.gateway_listen = 'shop=127.0.0.1:{port}'",
    ));
    cluster.run();
    cluster
        .client("postgres")
        .batch_execute("CREATE DATABASE shop")
        .expect("CREATE DATABASE");
    let days: Vec<String> = cluster
        .client("shop")
        .query(
            "SELECT to_char(current_date - $1::int + n, 'YYYY-MM-DD') FROM generate_series(0, $1::int - 1) AS n",
            &[&(DAYS as i32)],
        )
        .expect("the days")
        .iter()
        .map(|row| row.get(0))
        .collect();
    let shop = Arc::new(Shop::new(0, PAGE));
    put(&shop, 0..ORDERS, |id| {
        order(&days, id, "paid", id % (DAYS - 1))
    });
    let serving = shop.clone();
    let vendor = Vendor::start(move |asked| serving.answer(asked));

    step(5, "create the extension and a connector", "1 second");
    psql(&cluster, "1_connector.sql", &vendor.url());

    step(6, "load all orders of the shop", "about 3 seconds");
    psql(&cluster, "2_first_sync.sql", &vendor.url());

    step(
        7,
        "sync on a schedule, and load changes only",
        "up to 1 minute",
    );
    println!("Meanwhile, the shop refunds {REFUNDED} orders and takes {ADDED} new ones.\n");
    put(&shop, 0..REFUNDED, |id| {
        order(&days, id * 100, "refunded", DAYS - 1)
    });
    put(&shop, ORDERS..ORDERS + ADDED, |id| {
        order(&days, id, "paid", DAYS - 1)
    });
    psql(&cluster, "3_schedule.sql", &vendor.url());
    println!("\nWaiting for pg_cron, which runs its jobs when a new minute begins ...\n");
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
    psql(&cluster, "4_changes.sql", &vendor.url());
    step(8, "read the metrics", "1 second");
    psql(&cluster, "5_metrics.sql", &vendor.url());
    step(
        9,
        "check the data, and trace a number to its records",
        "1 second",
    );
    psql(&cluster, "6_trust.sql", &vendor.url());

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
    let sql = "SELECT sum(metric_value)::text, (SELECT count(*) FROM connector_service_verify()),
                   (SELECT jsonb_agg(alert_type ORDER BY alert_type) FROM data_quality_alerts WHERE NOT resolved)
               FROM metrics WHERE metric_type = 'revenue'";
    let row = client.query_one(sql, &[]).expect("metrics");
    let (revenue, wrong, alerts): (String, i64, serde_json::Value) =
        (row.get(0), row.get(1), row.get(2));
    let cents: u64 = (0..ORDERS + ADDED)
        .filter(|id| *id != BROKEN)
        .map(|id| total(id) as u64)
        .sum();
    let sold = format!("{}.{:02}", cents / 100, cents % 100);
    if revenue != sold || wrong != 0 || alerts != json!(["missing", "schema_error"]) {
        println!("The shop sold for {sold}, not {revenue}; {wrong} differences; alerts {alerts}.");
        return ExitCode::FAILURE;
    }
    println!(
        "\nThis program compared the database with the shop: all {} orders are stored as the shop sent them, after {} requests.\nThe revenue is {revenue} EUR; that is what the shop sold, without the one order that has no readable price.",
        ORDERS + ADDED,
        vendor.asked().len()
    );
    gateway(&cluster, &mut client, port, &vendor.url())
}

/// What a till sells.
const SALES: [&str; 3] = ["12.50", "4.90", "31.10"];

fn gateway(cluster: &Cluster, client: &mut Client, port: u16, vendor: &str) -> ExitCode {
    step(
        10,
        "receive sales over HTTP, read metrics over HTTP, and open the page",
        "about 2 seconds",
    );
    let shown = psql(cluster, "7_gateway.sql", vendor);
    let printed = |name: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(name));
        line.expect("a line of the script").to_owned()
    };
    let (till, token) = (printed("connector: "), printed("token: "));
    println!(
        "\nThe till sends {} sales. Each request is signed with the connector's secret. Status 200 says that the sale is stored.\n",
        SALES.len()
    );
    let today: String = client
        .query_one("SELECT current_date::text", &[])
        .expect("the day")
        .get(0);
    for (id, total) in SALES.iter().enumerate() {
        let sale = format!(r#"{{"id": {id}, "sold_at": "{today}T10:00:00Z", "total": {total}}}"#);
        let answered = push(port, &till, &sale).expect("an answer");
        println!(
            "POST /webhooks/{till}\n    {sale}\n    {} {}",
            answered.status, answered.body
        );
    }
    wait_until(30, "the till's sales are in the metrics", || {
        let sql =
            "SELECT count(*) FROM metrics WHERE metric_type = 'revenue' AND metric_value = 48.50";
        let count: i64 = client.query_one(sql, &[]).ok()?.get(0);
        (count == 1).then_some(())
    });
    let path = format!(
        "/metrics/6f1c2a52-0f0e-4b0e-9d0c-3a8f5e1b7c11?metric_type=revenue&start_date={today}&end_date={today}"
    );
    let bearer = format!("Bearer {token}");
    let read = ask(port, "GET", &path, &[("Authorization", &bearer)], b"");
    println!(
        "\nAn application reads today's revenue with the token. Look at metric_value: it is the sum of the sales above.\n\nGET {path}\n    {} {}",
        read.status, read.body
    );
    if !read.body.contains("48.50") {
        println!("The sum should be 48.50.");
        return ExitCode::FAILURE;
    }
    let is_serving = match std::env::var("SERVE") {
        Ok(set) => set != "0",
        Err(_) => std::io::stdin().is_terminal(),
    };
    println!("\nDone. The page shows all of this in a browser:");
    println!("\n    address  http://127.0.0.1:{port}/\n    token    {token}\n");
    if is_serving {
        println!("Press Enter to stop the server and to delete it.");
        let _ = std::io::stdin().read_line(&mut String::new());
    } else {
        println!("The server stops now. To keep the page up, run: SERVE=1 make demo");
    }
    ExitCode::SUCCESS
}

/// Shows a script as it is typed, and what comes of it.
fn psql(cluster: &Cluster, script: &str, vendor: &str) -> String {
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
    // Notices come with the script's path and a line, which say nothing to a reader.
    let prefix = format!("psql:{}:", file.display());
    let shown: Vec<&str> = shown
        .lines()
        .map(|line| match line.strip_prefix(&prefix) {
            Some(rest) => rest.split_once(": ").map_or(rest, |(_, notice)| notice),
            None => line,
        })
        .collect();
    let shown = shown.join("\n");
    println!("{shown}");
    shown
}

fn put(shop: &Shop, ids: std::ops::Range<usize>, order: impl Fn(usize) -> (usize, String)) {
    shop.orders.lock().expect("no panic").extend(ids.map(order));
}

const ARTICLES: [(&str, usize); 4] = [
    ("House blend 500 g", 890),
    ("Filter, box of 100", 349),
    ("Espresso 1 kg", 2_190),
    ("Hand grinder", 7_450),
];

/// Spread like chance would, and the same every time.
fn chance(id: usize, n: usize) -> usize {
    (id + 7_919 * n).wrapping_mul(2_654_435_761) >> 7
}

/// Article and quantity of each line of an order.
fn lines(id: usize) -> Vec<(usize, usize)> {
    (0..1 + chance(id, 0) % 3)
        .map(|n| {
            (
                chance(id, 1 + n) % ARTICLES.len(),
                1 + chance(id, 4 + n) % 4,
            )
        })
        .collect()
}

/// What an order comes to, in cents.
fn total(id: usize) -> usize {
    lines(id)
        .iter()
        .map(|(article, quantity)| ARTICLES[*article].1 * quantity)
        .sum()
}

/// An order as a shop's API shows it: money with two decimals, lines within. `changed`: the day of its last change.
fn order(days: &[String], id: usize, status: &str, changed: usize) -> (usize, String) {
    const CITIES: [&str; 6] = [
        "Hamburg",
        "Bremen",
        "Lübeck",
        "Kiel",
        "Rostock",
        "Flensburg",
    ];
    let money = |cents: usize| format!("{}.{:02}", cents / 100, cents % 100);
    let shown: Vec<String> = lines(id)
        .iter()
        .map(|(article, quantity)| {
            let (name, price) = ARTICLES[*article];
            let price = if id == BROKEN {
                "\"on request\"".to_owned()
            } else {
                money(price)
            };
            format!(r#"{{"article": "{name}", "quantity": {quantity}, "price": {price}}}"#)
        })
        .collect();
    let created = match id % (DAYS - 1) {
        _ if id >= ORDERS => DAYS - 1,
        QUIET => QUIET + 1,
        day => day,
    };
    let text = format!(
        r#"{{"id": {id}, "number": "WS-{:06}", "status": "{status}", "created_at": "{}T{:02}:{:02}:00Z", "updated_at": "{}T{:02}:{:02}:{:02}Z", "currency": "EUR", "total": {}, "city": "{}", "lines": [{}]}}"#,
        10_000 + id,
        days[created],
        8 + id % 12,
        id % 60,
        days[changed.max(created)],
        8 + id % 12,
        id % 60,
        id % 57,
        money(total(id)),
        CITIES[chance(id, 9) % CITIES.len()],
        shown.join(", ")
    );
    (id, text)
}
