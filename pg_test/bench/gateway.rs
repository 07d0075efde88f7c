//! What the gateway takes and gives, beside PostgreSQL itself: webhooks with durable commits beside single-row commits of
//! pgbench, and pages of metrics beside the same query by pgbench.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use connector_service_test::http::Connection;
use connector_service_test::{
    Cluster, Gateway, Reply, TENANT, Vendor, api, insert_connector, signature, wait_until,
};
use postgres::Client;
use serde_json::json;

use crate::number;

pub fn run() {
    let seconds = number("SECONDS", 5) as u64;
    let rounds = number("ROUNDS", 3);
    let gateway = Gateway::start("shared_buffers = '512MB'\nmax_wal_size = '8GB'");
    let (bench, mut client) = Bench::prepare(gateway, seconds);
    for round in 1..=rounds {
        bench.round(&mut client, round);
    }
    let sql = "SELECT count(*) FROM raw_connector_data WHERE stream = 'events'";
    let stored: i64 = client.query_one(sql, &[]).expect("a count").get(0);
    let acknowledged = bench.number.load(Ordering::Relaxed);
    assert_eq!(stored as u64, acknowledged, "each acknowledged event once");
    println!("{acknowledged} events were acknowledged, and are there\n");
}

struct Bench {
    cluster: Cluster,
    port: u16,
    seconds: u64,
    webhook: String,
    shop: String,
    read: String,
    /// Events so far.
    number: Arc<AtomicU64>,
    _vendor: Vendor,
}

impl Bench {
    fn prepare(mut gateway: Gateway, seconds: u64) -> (Bench, Client) {
        // A shop with more than a round can read.
        let vendor = Vendor::start(|asked| {
            let page = asked.number("after");
            let records: Vec<String> = (0..1000)
                .map(|i| {
                    format!(
                        r#"{{"id": {}, "total": "12.50", "text": "{:0>400}"}}"#,
                        page * 1000 + i,
                        i
                    )
                })
                .collect();
            Reply::Json(format!(
                r#"{{"data": [{}], "next": {}}}"#,
                records.join(","),
                page + 1
            ))
        });
        let shop = insert_connector(&mut gateway.client, "shop", &api(&vendor.url(), "orders"));
        let webhook = gateway.webhook(&json!({"key": "id"}));
        gateway.execute(&format!(
            "INSERT INTO metrics (tenant_id, metric_type, metric_date, metric_value)
             SELECT '{TENANT}', 'revenue', day, 12345.67 FROM generate_series('2023-01-01'::timestamp, '2025-12-31', '1 day') AS day;
             CREATE TABLE one (id bigserial PRIMARY KEY, body jsonb); ANALYZE metrics"
        ));
        let token = gateway.token(Some(TENANT), "read");
        let read = format!(
            "GET /metrics/{TENANT}?metric_type=revenue&start_date=2025-03-01&end_date=2025-05-30 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        let Gateway {
            cluster,
            client,
            port,
        } = gateway;
        let bench = Bench {
            cluster,
            port,
            seconds,
            webhook,
            shop,
            read,
            number: Arc::default(),
            _vendor: vendor,
        };
        (bench, client)
    }

    fn round(&self, client: &mut Client, round: usize) {
        println!("\nthe gateway, round {round}, {} s each", self.seconds);
        println!(
            "{:<36} {:>7} {:>9} {:>7}   {:>16}   ratio to PostgreSQL alone",
            "", "clients", "a second", "p99 ms", "of one disk wait"
        );
        let insert = r#"INSERT INTO one (body) VALUES ('{"id": 1, "total": "12.50", "text": "0123456789"}');"#;
        let [serial, commits] = [1, 32].map(|clients| {
            let commits = self.seen(client, || (self.pgbench(insert, clients), f64::NAN));
            commits.show("pgbench: one row, COMMIT", clients, "");
            commits.rate
        });
        for clients in [1, 32, 128] {
            let pushed = self.seen(client, || self.webhooks(clients));
            let (to_one, to_all) = (pushed.rate / serial, pushed.rate / commits);
            let ratio = format!("{to_one:.2} of 1 client, {to_all:.2} of 32");
            pushed.show("webhooks, stored and answered", clients, &ratio);
        }
        let run = connector_service_test::sync(client, &self.shop);
        wait_until(30, "the sync is going", || {
            (connector_service_test::run_of(client, &run)["pages"].as_i64() > Some(2)).then_some(())
        });
        let beside = self.seen(client, || self.webhooks(32));
        beside.show("the same beside a full sync", 32, "");
        client
            .execute("SELECT connector_service_cancel($1::text::uuid)", &[&run])
            .expect("cancel");
        let select =
            format!("SELECT get_metrics('{TENANT}', 'revenue', '2025-03-01', '2025-05-30');");
        for clients in [1, 32] {
            let alone = self.seen(client, || (self.pgbench(&select, clients), f64::NAN));
            alone.show("pgbench: get_metrics of 91 days", clients, "");
            let read = self.seen(client, || {
                self.many(clients, |_| self.read.clone().into_bytes())
            });
            let ratio = format!("{:.2} of {clients}", read.rate / alone.rate);
            read.show("GET /metrics of the same days", clients, &ratio);
        }
    }

    /// What came of a piece of work, and how often it waited for the disk.
    fn seen(&self, client: &mut Client, work: impl FnOnce() -> (f64, f64)) -> Seen {
        let before = waits(client);
        let began = Instant::now();
        let (rate, p99) = work();
        let waits = (waits(client) - before) as f64 / began.elapsed().as_secs_f64();
        Seen { rate, p99, waits }
    }

    fn webhooks(&self, clients: usize) -> (f64, f64) {
        self.many(clients, |_| {
            let id = self.number.fetch_add(1, Ordering::Relaxed);
            let body = json!({"id": id, "total": "12.50", "text": "0123456789"}).to_string();
            format!(
                "POST /webhooks/{} HTTP/1.1\r\nHost: x\r\nX-Signature: {}\r\nContent-Length: {}\r\n\r\n{body}",
                self.webhook,
                signature(&body),
                body.len()
            )
            .into_bytes()
        })
    }

    /// Requests a second over so many connections, and the 99th percentile in ms.
    fn many(&self, clients: usize, request: impl Fn(usize) -> Vec<u8> + Sync) -> (f64, f64) {
        let began = Instant::now();
        let deadline = began + Duration::from_secs(self.seconds);
        let mut times: Vec<f64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..clients)
                .map(|client| {
                    let request = &request;
                    scope.spawn(move || {
                        let mut connection = Connection::open(self.port).expect("a connection");
                        let mut times = Vec::new();
                        while Instant::now() < deadline {
                            let sent = Instant::now();
                            let answered = connection.exchange(&request(client));
                            assert_eq!(answered.map(|answered| answered.status), Some(200));
                            times.push(sent.elapsed().as_secs_f64() * 1e3);
                        }
                        times
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().expect("a client"))
                .collect()
        });
        let rate = times.len() as f64 / began.elapsed().as_secs_f64();
        times.sort_by(f64::total_cmp);
        (
            rate,
            times
                .get(times.len() * 99 / 100)
                .copied()
                .unwrap_or(f64::NAN),
        )
    }

    /// Transactions a second of a script.
    fn pgbench(&self, script: &str, clients: usize) -> f64 {
        let file = self.cluster.dir.join("script.sql");
        std::fs::write(&file, script).expect("a file");
        let url = self.cluster.url("app");
        let (clients, seconds) = (clients.to_string(), self.seconds.to_string());
        let file = file.to_str().expect("UTF-8");
        let shown = self.cluster.command(
            "pgbench",
            &[
                "-n", "-M", "prepared", "-c", &clients, "-j", "2", "-T", &seconds, "-f", file, &url,
            ],
        );
        let line = shown.lines().find_map(|line| line.strip_prefix("tps = "));
        let number = line.and_then(|line| line.split(' ').next());
        number.and_then(|number| number.parse().ok()).expect("tps")
    }
}

struct Seen {
    rate: f64,
    /// In ms.
    p99: f64,
    /// A second.
    waits: f64,
}

impl Seen {
    fn show(&self, what: &str, clients: usize, ratio: &str) {
        let Seen { rate, p99, waits } = self;
        let number = |value: f64, digits: usize| match value.is_finite() {
            true => format!("{value:.digits$}"),
            false => String::new(),
        };
        let (p99, shared) = (number(*p99, 0), number(rate / waits.max(1.0), 1));
        println!("{what:<36} {clients:>7} {rate:>9.0} {p99:>7}   {shared:>16}   {ratio}");
    }
}

/// How often the server has waited for the WAL to be on disk.
fn waits(client: &mut Client) -> i64 {
    let version: i32 = client
        .query_one("SELECT current_setting('server_version_num')::int", &[])
        .expect("a version")
        .get(0);
    let sql = match version {
        180_000.. => "SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal'",
        _ => "SELECT wal_sync FROM pg_stat_wal",
    };
    client.query_one(sql, &[]).expect("a count").get(0)
}
