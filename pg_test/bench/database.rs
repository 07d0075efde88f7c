//! How fast a table of MariaDB is read, beside its own SELECT INTO OUTFILE and PostgreSQL's COPY of the same rows.
//!
//! The table is ERPNext's, names and times as keys; each row comes to some 600 bytes of JSON.

use std::time::Instant;

use connector_service_test::{Cluster, MariaDb, memory_kb, sync, wait_for_run};
use postgres::Client;
use serde_json::json;

use crate::{median, number};

const FIELDS: &str = "name, creation, modified, modified_by, owner, docstatus, idx, naming_series, customer, customer_name, company,
    posting_date, posting_time, due_date, currency, conversion_rate, total_qty, base_net_total, base_total_taxes_and_charges,
    base_grand_total, outstanding_amount, status, is_return, cost_center, remarks";

const TABLE: &str = "CREATE TABLE `tabSales Invoice` (
    name varchar(140) PRIMARY KEY, creation datetime(6), modified datetime(6), modified_by varchar(140), owner varchar(140),
    docstatus int, idx int, naming_series varchar(140), customer varchar(140), customer_name varchar(140), company varchar(140),
    posting_date date, posting_time time(6), due_date date, currency varchar(140), conversion_rate decimal(21, 9),
    total_qty decimal(21, 9), base_net_total decimal(21, 9), base_total_taxes_and_charges decimal(21, 9),
    base_grand_total decimal(21, 9), outstanding_amount decimal(21, 9), status varchar(140), is_return int, cost_center varchar(140),
    remarks text, KEY modified (modified, name)) ENGINE = InnoDB";

pub fn run() {
    let rows = number("ROWS", 1_000_000);
    let rounds = number("ROUNDS", 3);
    let cluster = Cluster::start(
        "shared_buffers = '512MB'\nmax_wal_size = '8GB'\ncheckpoint_timeout = '1h'\nautovacuum = off",
    );
    let server = MariaDb::start(cluster.dir.clone(), &["--innodb-buffer-pool-size=2G"]);
    println!("making {rows} invoices in MariaDB");
    server
        .client("")
        .run("CREATE DATABASE erp CHARACTER SET utf8mb4");
    let mut shop = server.client("erp");
    shop.run(TABLE);
    shop.run(&format!(
        "INSERT INTO `tabSales Invoice` SELECT concat('ACC-SINV-2026-', lpad(seq, 8, '0')), t, t, 'erika@example.com', 'erika@example.com', 1, 0,
            'ACC-SINV-.YYYY.-', concat('CUST-', seq % 4000), concat('Customer No. ', seq % 4000), 'Acme GmbH', date(t), '10:00:00', date(t), 'EUR', 1,
            seq % 7, seq % 500 + 0.5, seq % 90, seq % 590 + 0.5, 0, 'Paid', 0, 'Main - A', 'Coffee beans, dark roast, 1 kg, and paper filters'
         FROM (SELECT seq, timestampadd(SECOND, seq DIV 3, '2026-01-01') AS t FROM seq_1_to_{rows}) AS s"
    ));
    let mut client = cluster.database("bench");
    let worker = cluster.wait_worker("bench");
    let connector = connect(&mut client, server.port);
    let file = cluster.dir.join("rows.copy");
    let (mut copied, mut first, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let empty = "DELETE FROM sync_state; TRUNCATE raw_connector_data; CHECKPOINT";
        client.batch_execute(empty).expect("TRUNCATE");
        let _ = std::fs::remove_file(&file);
        let start = Instant::now();
        let pairs: Vec<String> = FIELDS
            .split(',')
            .map(|name| format!("'{0}', {0}", name.trim()))
            .collect();
        shop.rows(&format!(
            "SELECT '00000000-0000-4000-8000-000000000001', '{connector}', 'mysql', 'invoices', concat('invoices/', name), json_object({})
             INTO OUTFILE '{}' FROM `tabSales Invoice` ORDER BY modified, name",
            pairs.join(", "),
            file.display()
        ));
        client
            .batch_execute(&format!(
                "COPY raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data) FROM '{}'",
                file.display()
            ))
            .expect("COPY");
        copied.push(start.elapsed().as_secs_f64());
        client.batch_execute(empty).expect("TRUNCATE");
        first.push(measure(&mut client, &connector, rows));
        // One in a hundred has changed.
        shop.run(&format!(
            "UPDATE `tabSales Invoice` SET outstanding_amount = outstanding_amount + 1, modified = timestampadd(DAY, {round}, '2026-06-01') WHERE right(name, 2) = '07'"
        ));
        again.push(measure(&mut client, &connector, rows / 100));
    }
    let copy = median(copied);
    println!(
        "\n{rows} rows of MariaDB                   rows/s   times as fast as OUTFILE and COPY"
    );
    for (what, rows, seconds) in [
        ("SELECT INTO OUTFILE and COPY", rows, copy),
        ("first sync", rows, median(first)),
        ("sync, 1 % changed", rows / 100, median(again)),
    ] {
        let rate = rows as f64 / seconds;
        println!("{what:<32} {rate:>12.0}   {:>20.2}", copy / seconds);
    }
    let memory = memory_kb(worker, "RssAnon") / 1024;
    println!("worker: {memory} MB of memory of its own at the end\n");
}

fn connect(client: &mut Client, port: u16) -> String {
    let sql = "INSERT INTO tenants (tenant_id) VALUES ('00000000-0000-4000-8000-000000000001')";
    client.batch_execute(sql).expect("a tenant");
    let columns: Vec<&str> = FIELDS.split(',').map(str::trim).collect();
    let config = json!({
        "host": "127.0.0.1", "port": port, "database": "erp", "tls": "off", "start_date": "2020-01-01",
        "streams": [{"table": "tabSales Invoice", "name": "invoices", "key": "name", "cursor": "modified", "columns": columns}],
    });
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
               VALUES ('00000000-0000-4000-8000-000000000001', 'erp ' || gen_random_uuid(), 'mysql', $1, '{\"username\": \"root\"}', 'manual')
               RETURNING connector_id::text";
    client
        .query_one(sql, &[&config])
        .expect("a connector")
        .get(0)
}

fn measure(client: &mut Client, connector: &str, written: usize) -> f64 {
    let run = sync(client, connector);
    let run = wait_for_run(client, &run);
    assert_eq!(run["state"], "succeeded", "{run}");
    let found = run["inserted"].as_u64().unwrap_or(0) + run["updated"].as_u64().unwrap_or(0);
    assert_eq!(found as usize, written, "{run}");
    let sql = "SELECT extract(epoch FROM finished_at - requested_at)::float8 FROM sync_runs WHERE run_id = $1::text::uuid";
    client
        .query_one(sql, &[&run["run_id"].as_str()])
        .expect("the run")
        .get(0)
}
