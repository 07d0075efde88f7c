//! How fast a sync is, beside PostgreSQL's own COPY of the same rows in the same run.
//!
//! nginx serves static pages, so the server is not what is measured. The yardstick is COPY from a local file
//! into the same table with the same indexes, `raw_id` by its default.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use connector_service_test::{Cluster, api, insert_connector, memory_kb, sync, wait_for_run};
use postgres::Client;
use serde_json::Value;

use crate::{median, number, numbers};

pub fn run() {
    let records = number("RECORDS", 200_000);
    let rounds = number("ROUNDS", 3);
    let pages = numbers("PAGES", "1000,250");

    let cluster = Cluster::start(
        "shared_buffers = '512MB'\nmax_wal_size = '8GB'\ncheckpoint_timeout = '1h'\nautovacuum = off",
    );
    println!("making {records} records of about 600 bytes");
    let web = Web::start(&cluster.dir.join("web"), records, &pages);
    let mut client = cluster.database("bench");
    let worker = cluster.wait_worker("bench");
    let file = cluster.dir.join("data/rows.copy");
    let mut times: BTreeMap<(usize, &str), Vec<Sample>> = BTreeMap::new();

    for round in 1..=rounds {
        for &size in &pages {
            eprintln!("round {round} of {rounds}, pages of {size}");
            client
                .batch_execute("TRUNCATE connectors CASCADE; TRUNCATE raw_connector_data")
                .expect("TRUNCATE");
            let url = web.url();
            let base = insert_connector(&mut client, "base", &api(&url, &format!("base-{size}")));
            let mut take = |what: &'static str, sample: Sample| {
                times.entry((size, what)).or_default().push(sample)
            };

            take(
                "first sync",
                measure(&mut client, worker, &base, [records, 0, 0]),
            );
            take(
                "second sync, unchanged",
                measure(&mut client, worker, &base, [0, 0, records]),
            );
            let changed = records.div_ceil(100);
            let point = "UPDATE connectors SET config = jsonb_set(config, '{manifest,streams,0,retriever,requester,path}', to_jsonb($1::text))";
            client
                .execute(point, &[&format!("changed-{size}")])
                .expect("UPDATE connectors");
            take(
                "sync, 1 % changed",
                measure(&mut client, worker, &base, [0, changed, records - changed]),
            );
            take("COPY", copy(&mut client, &file));

            // The same first sync once more, with a mapping: what facts and metrics add to raw storage.
            client
                .batch_execute("TRUNCATE connectors CASCADE; TRUNCATE raw_connector_data")
                .expect("TRUNCATE");
            let mapped =
                insert_connector(&mut client, "mapped", &api(&url, &format!("base-{size}")));
            client
                .execute(
                    "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, category_path, currency_path, filter)
                     VALUES ($1::text::uuid, 'orders', 'revenue', '$.total_price', '$.created_at', '$.customer.country', '$.currency', '$.test == false')",
                    &[&mapped],
                )
                .expect("INSERT INTO metric_mappings");
            take(
                "first sync, with facts and metrics",
                measure(&mut client, worker, &mapped, [records, 0, 0]),
            );
        }
    }
    report(records, &pages, &times);
    println!(
        "worker: largest resident memory {} MB",
        memory_kb(worker, "VmHWM") / 1024
    );
}

struct Sample {
    seconds: f64,
    /// CPU seconds of the worker's main thread and of its other threads.
    main: f64,
    fetch: f64,
}

fn measure(client: &mut Client, worker: i32, connector: &str, expected: [usize; 3]) -> Sample {
    client
        .batch_execute("DELETE FROM sync_state; CHECKPOINT")
        .expect("CHECKPOINT");
    let before = cpu(worker);
    let run = sync(client, connector);
    let run = wait_for_run(client, &run);
    let after = cpu(worker);
    assert_eq!(run["state"], "succeeded", "{run}");
    let counted = ["inserted", "updated", "unchanged"]
        .map(|name| run[name].as_u64().expect("a counter") as usize);
    assert_eq!(counted, expected, "{run}");
    let sql = "SELECT extract(epoch FROM finished_at - requested_at)::float8 FROM sync_runs WHERE run_id = $1::text::uuid";
    let seconds = client
        .query_one(sql, &[&run["run_id"].as_str()])
        .expect("the run")
        .get(0);
    Sample {
        seconds,
        main: after.0 - before.0,
        fetch: after.1 - before.1,
    }
}

/// COPY of the rows that the table holds, out of a file and into the emptied table.
fn copy(client: &mut Client, file: &Path) -> Sample {
    let columns =
        "tenant_id, connector_id, source_type, stream, source_record_id, data, content_hash";
    let file = file.display();
    client
        .batch_execute(&format!(
            "COPY (SELECT {columns} FROM raw_connector_data ORDER BY raw_id) TO '{file}';
             TRUNCATE raw_connector_data; CHECKPOINT"
        ))
        .expect("COPY TO");
    let start = std::time::Instant::now();
    client
        .batch_execute(&format!(
            "COPY raw_connector_data ({columns}) FROM '{file}'"
        ))
        .expect("COPY FROM");
    Sample {
        seconds: start.elapsed().as_secs_f64(),
        main: 0.0,
        fetch: 0.0,
    }
}

/// CPU seconds of a process: its main thread, and all its other threads.
pub fn cpu(pid: i32) -> (f64, f64) {
    // SAFETY: asks for a constant of the kernel.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let (mut main, mut others) = (0.0, 0.0);
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<f64> = after_name
            .split_whitespace()
            .map(|text| text.parse().unwrap_or(0.0))
            .collect();
        let seconds = fields
            .get(11..13)
            .map_or(0.0, |times| times.iter().sum::<f64>())
            / ticks;
        if task.file_name().to_string_lossy() == pid.to_string() {
            main += seconds;
        } else {
            others += seconds;
        }
    }
    (main, others)
}

fn report(records: usize, pages: &[usize], times: &BTreeMap<(usize, &str), Vec<Sample>>) {
    for &size in pages {
        let median = |what: &str, of: fn(&Sample) -> f64| {
            let samples = times.iter().filter(|((s, w), _)| *s == size && *w == what);
            median(
                samples
                    .flat_map(|(_, samples)| samples.iter().map(of))
                    .collect(),
            )
        };
        let copy = median("COPY", |sample| sample.seconds);
        println!(
            "\n{records} records, pages of {size}           rows/s   of COPY   main thread CPU s   fetch threads CPU s"
        );
        for what in [
            "COPY",
            "first sync",
            "second sync, unchanged",
            "sync, 1 % changed",
            "first sync, with facts and metrics",
        ] {
            let seconds = median(what, |sample| sample.seconds);
            println!(
                "{what:<38} {:>9.0}   {:>7.2}   {:>17.2}   {:>19.2}",
                records as f64 / seconds,
                copy / seconds,
                median(what, |sample| sample.main),
                median(what, |sample| sample.fetch)
            );
        }
        let seconds = |what| median(what, |sample| sample.seconds);
        let main = |what| median(what, |sample| sample.main);
        let (mapped, plain) = ("first sync, with facts and metrics", "first sync");
        println!(
            "facts and metrics cost {:.0} % on top of raw storage ({:.0} % of the main thread's CPU time)",
            (seconds(mapped) / seconds(plain) - 1.0) * 100.0,
            (main(mapped) / main(plain) - 1.0) * 100.0
        );
    }
    println!();
}

/// nginx, serving two sets of pages: the base, and the same with one record in a hundred changed.
pub struct Web {
    port: u16,
    nginx: Child,
}

impl Web {
    pub fn start(dir: &Path, records: usize, pages: &[usize]) -> Web {
        for (name, changed) in [("base", false), ("changed", true)] {
            for &size in pages {
                write_pages(&dir.join(format!("{name}-{size}")), records, size, changed);
            }
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .expect("a port")
            .local_addr()
            .expect("it")
            .port();
        let config = dir.join("nginx.conf");
        let here = dir.display();
        let text = format!(
            "daemon off; pid {here}/pid; error_log {here}/error.log; worker_processes 1; user root;
             events {{}}
             http {{
                 client_body_temp_path {here}; proxy_temp_path {here}; fastcgi_temp_path {here};
                 uwsgi_temp_path {here}; scgi_temp_path {here};
                 access_log off; keepalive_requests 1000000; tcp_nodelay on; sendfile on;
                 default_type application/json;
                 map $arg_after $page {{ '' 0; default $arg_after; }}
                 server {{ listen 127.0.0.1:{port}; root {here}; location / {{ rewrite ^(.*)$ $1/$page.json break; }} }}
             }}"
        );
        std::fs::write(&config, text).expect("nginx.conf");
        let mut nginx = Command::new(nginx_program());
        nginx
            .arg("-e")
            .arg(dir.join("start.log"))
            .arg("-p")
            .arg(dir)
            .arg("-c")
            .arg(&config);
        let nginx = nginx
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts");
        connector_service_test::wait_until(10, "nginx listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Web { port, nginx }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // SAFETY: the process that was started here.
        unsafe { libc::kill(self.nginx.id() as i32, libc::SIGTERM) };
        let _ = self.nginx.wait();
    }
}

fn nginx_program() -> PathBuf {
    let unpacked = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/tools/usr/sbin/nginx"
    );
    ["/usr/sbin/nginx", "/usr/bin/nginx", unpacked]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("nginx is installed")
}

fn write_pages(dir: &Path, records: usize, size: usize, changed: bool) {
    std::fs::create_dir_all(dir).expect("a folder");
    let pages = records.div_ceil(size);
    for page in 0..pages {
        let file = std::fs::File::create(dir.join(format!("{page}.json"))).expect("a page");
        let mut file = std::io::BufWriter::new(file);
        write!(file, "{{\"data\": [").expect("a page");
        for id in page * size..records.min((page + 1) * size) {
            let comma = if id % size == 0 { "" } else { ",\n" };
            write!(file, "{comma}{}", record(id, changed && id % 100 == 0)).expect("a page");
        }
        let next = if page + 1 < pages {
            Value::from(page + 1)
        } else {
            Value::Null
        };
        write!(file, "], \"next\": {next}}}").expect("a page");
    }
}

/// An order of about 600 bytes, as shops send them.
fn record(id: usize, changed: bool) -> String {
    let spread = id.wrapping_mul(2_654_435_761) % 1_000_003;
    format!(
        r#"{{"id":{id},"name":"No. {id}","created_at":"2026-01-{:02}T{:02}:{:02}:00Z","currency":"EUR","financial_status":"{}","total_price":"{}.{:02}","subtotal_price":"{}.00","total_tax":"{}.{:02}","test":false,"customer":{{"id":{spread},"email":"customer.{spread}@example.com","first_name":"Erika","last_name":"Mustermann","country":"DE"}},"line_items":[{{"id":{},"sku":"SKU-{}","title":"Coffee beans, dark roast, 1 kg","quantity":{},"price":"{}.90"}},{{"id":{},"sku":"SKU-{}","title":"Paper filters, size 4, 100 pieces","quantity":1,"price":"3.49"}}],"note":null,"tags":"web,returning"}}"#,
        id % 28 + 1,
        id % 24,
        id % 60,
        if changed { "refunded" } else { "paid" },
        spread % 500,
        id % 100,
        spread % 500,
        spread % 90,
        id % 100,
        id * 2,
        spread % 4_000,
        id % 5 + 1,
        spread % 40,
        id * 2 + 1,
        spread % 300,
    )
}
