//! How fast a CSV file becomes records, beside PostgreSQL's COPY FROM CSV of the same file into columns of text, and
//! beside the same COPY with the rows made jsonb, which is what is stored.

use std::io::Write;
use std::time::Instant;

use connector_service_test::{Cluster, memory_kb, wait_for_run};
use postgres::Client;
use serde_json::json;

use crate::{median, number};

const COLUMNS: &str = "order_id, day, shop, customer, city, item, quantity, price, amount, note";

fn make(megabytes: usize) -> (Vec<u8>, usize) {
    let mut file = format!("{COLUMNS}\n").replace(", ", ",").into_bytes();
    let mut rows = 0;
    while file.len() < megabytes * 1024 * 1024 {
        let row = rows;
        writeln!(
            file,
            "A-{row:08},2026-{:02}-{:02},Shop {},\"Customer, No. {}\",Göteborg,Coffee beans {},{},{}.50,{}.75,\"paid \"\"in cash\"\" at the till\"",
            row % 12 + 1,
            row % 28 + 1,
            row % 40,
            row % 4_000,
            row % 300,
            row % 9 + 1,
            row % 90,
            row % 700
        )
        .expect("memory");
        rows += 1;
    }
    (file, rows)
}

pub fn run() {
    let megabytes = number("MEGABYTES", 200);
    let rounds = number("ROUNDS", 3);
    let (content, rows) = make(megabytes);
    let cluster = Cluster::start(
        "shared_buffers = '512MB'\nmax_wal_size = '8GB'\ncheckpoint_timeout = '1h'\nautovacuum = off",
    );
    let mut client = cluster.database("bench");
    let file = cluster.dir.join("rows.csv");
    std::fs::write(&file, &content).expect("a file");
    let columns: Vec<String> = COLUMNS
        .split(", ")
        .map(|name| format!("{name} text"))
        .collect();
    let tables = format!(
        "CREATE TABLE plain ({0}); CREATE TABLE likewise ({0});
         INSERT INTO tenants (tenant_id) VALUES ('00000000-0000-4000-8000-000000000001')",
        columns.join(", ")
    );
    client.batch_execute(&tables).expect("tables");
    let sql = "INSERT INTO connectors (tenant_id, name, type, config) VALUES ('00000000-0000-4000-8000-000000000001', 'till ' || gen_random_uuid(), 'csv', $1)
               RETURNING connector_id::text";
    let config = json!({"key": "order_id"});
    let connector: String = client
        .query_one(sql, &[&config])
        .expect("a connector")
        .get(0);
    let worker = cluster.wait_worker("bench");
    let (mut copied, mut made, mut first, mut again) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut grown = 0;
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let empty = "TRUNCATE plain, likewise, uploads, upload_parts, upload_records, raw_connector_data; CHECKPOINT";
        client.batch_execute(empty).expect("TRUNCATE");
        let copy = |table: &str| {
            format!(
                "COPY {table} FROM '{}' (FORMAT csv, HEADER)",
                file.display()
            )
        };
        copied.push(timed(&mut client, &copy("plain")));
        client.batch_execute(empty).expect("TRUNCATE");
        made.push(timed(
            &mut client,
            &format!(
                "{}; INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
                 SELECT '00000000-0000-4000-8000-000000000001', '{connector}', 'csv', 'rows', 'rows/' || order_id, to_jsonb(l) FROM likewise l",
                copy("likewise")
            ),
        ));
        client.batch_execute(empty).expect("TRUNCATE");
        let idle = memory_kb(worker, "RssAnon");
        first.push(upload(
            &mut client,
            &connector,
            &content,
            rows,
            "inserted",
            || {
                grown = grown.max(memory_kb(worker, "RssAnon").saturating_sub(idle));
            },
        ));
        again.push(upload(
            &mut client,
            &connector,
            &content,
            rows,
            "unchanged",
            || {},
        ));
    }
    let copy = median(copied);
    println!(
        "\n{rows} rows of {megabytes} MB of CSV          rows/s   times as fast as COPY FROM CSV"
    );
    for (what, seconds) in [
        ("COPY FROM CSV", copy),
        ("COPY, then INSERT as jsonb", median(made)),
        ("upload", median(first)),
        ("the same file again", median(again)),
    ] {
        let rate = rows as f64 / seconds;
        println!("{what:<32} {rate:>12.0}   {:>20.2}", copy / seconds);
    }
    println!(
        "worker: grew by {} MB of memory of its own at most\n",
        grown / 1024
    );
}

fn timed(client: &mut Client, sql: &str) -> f64 {
    let start = Instant::now();
    client.batch_execute(sql).expect(sql);
    start.elapsed().as_secs_f64()
}

/// From the call to the end of the run.
fn upload(
    client: &mut Client,
    connector: &str,
    content: &[u8],
    rows: usize,
    counted: &str,
    mut meanwhile: impl FnMut(),
) -> f64 {
    let start = Instant::now();
    let sql = "SELECT connector_service_upload($1::text::uuid, 'rows.csv', $2)::text";
    let run: String = client
        .query_one(sql, &[&connector, &content])
        .expect("an upload")
        .get(0);
    let sql = "SELECT finished_at IS NULL FROM sync_runs WHERE run_id = $1::text::uuid";
    while client.query_one(sql, &[&run]).expect("the run").get(0) {
        meanwhile();
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let took = start.elapsed().as_secs_f64();
    let run = wait_for_run(client, &run);
    assert_eq!(run[counted].as_u64(), Some(rows as u64), "{run}");
    took
}
