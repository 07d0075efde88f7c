//! What a read costs: `get_metrics` for one tenant, type and quarter among ten million metrics, beside the plain query.

use std::time::Instant;

use connector_service_test::{Cluster, wait_until};
use postgres::{Client, Statement};
use serde_json::Value;

use crate::{median, number};

const DAYS: usize = 700;
const TYPES: [&str; 4] = ["revenue", "inventory", "staffing", "costs"];
const QUARTER: usize = 91;
const CALLS: usize = 2_000;

/// The same rows, as rows and as one JSON value.
const ROWS: &str = "SELECT metric_id, metric_type, metric_value, metric_date, data FROM metrics
    WHERE tenant_id = lpad(to_hex($1::int), 32, '0')::uuid AND metric_type = $2
        AND metric_date BETWEEN date '2024-01-01' + $3::int AND date '2024-01-01' + $3::int + 90 ORDER BY metric_date";
const JSON: &str = "SELECT jsonb_agg(jsonb_build_object('metric_id', metric_id, 'metric_type', metric_type, 'metric_value', metric_value,
        'metric_date', metric_date, 'data', data) ORDER BY metric_date)
    FROM metrics WHERE tenant_id = lpad(to_hex($1::int), 32, '0')::uuid AND metric_type = $2
        AND metric_date BETWEEN date '2024-01-01' + $3::int AND date '2024-01-01' + $3::int + 90";
const GET_METRICS: &str = "SELECT get_metrics(lpad(to_hex($1::int), 32, '0')::uuid, $2, date '2024-01-01' + $3::int, date '2024-01-01' + $3::int + 90)";

pub fn run() {
    let metrics = number("METRICS", 10_000_000);
    let tenants = metrics.div_ceil(DAYS * TYPES.len());
    eprintln!("making {metrics} metrics of {tenants} tenants");
    let cluster = Cluster::start(
        "shared_buffers = '2GB'\nmax_wal_size = '16GB'\ncheckpoint_timeout = '1h'\nautovacuum = off\nfsync = off",
    );
    let mut client = cluster.database("bench");
    // Without triggers, which would judge every row.
    let load = format!(
        "SET session_replication_role = replica;
         INSERT INTO metrics (metric_id, tenant_id, metric_type, metric_value, metric_date, data)
         SELECT lpad(to_hex(i), 32, '0')::uuid, lpad(to_hex(i / {}), 32, '0')::uuid, ('{{{}}}'::text[])[i / {DAYS} % 4 + 1], i % 9973,
             date '2024-01-01' + i % {DAYS}, '{{\"category\": \"food\", \"categories\": {{\"food\": 1}}, \"facts\": 1, \"currency\": \"USD\"}}'
         FROM generate_series(0, {metrics} - 1) AS i;
         SET session_replication_role = origin",
        DAYS * TYPES.len(),
        TYPES.join(",")
    );
    client.batch_execute(&load).expect("the load");
    client
        .batch_execute("VACUUM ANALYZE metrics")
        .expect("VACUUM");
    // A session that ends sends its statistics; what the load left there is not to be counted.
    drop(client);
    let mut client = cluster.client("bench");
    wait_until(30, "the load's statistics are there", || {
        (counted(&mut client).3 >= metrics as i64).then_some(())
    });
    client
        .batch_execute("SELECT pg_stat_reset()")
        .expect("reset");

    let asked: Vec<(i32, &str, i32)> = (0..CALLS).map(|call| asked(call, tenants)).collect();
    let mut other = cluster.client("bench");
    let statement = other.prepare(GET_METRICS).expect(GET_METRICS);
    for question in &asked {
        ask(&mut other, &statement, question);
    }
    drop(other);
    let read = wait_until(30, "the statistics are there", || {
        Some(counted(&mut client)).filter(|read| read.0 >= CALLS as i64)
    });
    println!(
        "\n{CALLS} calls of get_metrics: {} scans of metrics_day_key that read {} rows ({} a call), {} sequential scans",
        read.0,
        read.1,
        read.1 as usize / CALLS,
        read.2
    );
    assert_eq!((read.1, read.2), ((CALLS * QUARTER) as i64, 0));

    explain(&mut client, &asked[0]);
    let mut times = [vec![], vec![], vec![]];
    let statements = [ROWS, JSON, GET_METRICS].map(|sql| client.prepare(sql).expect(sql));
    for question in &asked {
        for (statement, times) in statements.iter().zip(&mut times) {
            times.push(ask(&mut client, statement, question));
        }
    }
    let [rows, json, get] = times.map(median);
    println!("{metrics} metrics: one tenant, type and quarter ({QUARTER} rows), {CALLS} times");
    println!("plain query, rows             {rows:>8.0} us");
    println!("plain query, one JSON value   {json:>8.0} us");
    println!(
        "get_metrics                   {get:>8.0} us   {:.2} of the rows, {:.2} of the JSON value",
        get / rows,
        get / json
    );
}

/// The plan of the plain query.
fn explain(client: &mut Client, question: &(i32, &str, i32)) {
    let sql = ROWS
        .replace("$1", &question.0.to_string())
        .replace("$2", &format!("'{}'", question.1))
        .replace("$3", &question.2.to_string());
    let sql = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}");
    let row = client.query_one(&sql, &[]).expect("EXPLAIN");
    let plan: Value = row.get(0);
    let plan = &plan[0]["Plan"];
    let pages = |name: &str| plan[name].as_u64().unwrap_or(0);
    println!(
        "plan of the plain query: {} of {}, {} rows, {} pages",
        plan["Node Type"],
        plan["Index Name"],
        plan["Actual Rows"],
        pages("Shared Hit Blocks") + pages("Shared Read Blocks")
    );
}

/// Tenant, type and first day of a quarter: others with every call.
fn asked(call: usize, tenants: usize) -> (i32, &'static str, i32) {
    let spread = call.wrapping_mul(2_654_435_761);
    // The last tenant may have fewer days than the others.
    let tenant = spread % (tenants - 1).max(1);
    let from = spread / 7 % (DAYS - QUARTER);
    (tenant as i32, TYPES[spread / 3 % TYPES.len()], from as i32)
}

/// Microseconds.
fn ask(client: &mut Client, statement: &Statement, question: &(i32, &str, i32)) -> f64 {
    let started = Instant::now();
    let rows = client
        .query(statement, &[&question.0, &question.1, &question.2])
        .expect("an answer");
    assert!(!rows.is_empty());
    started.elapsed().as_secs_f64() * 1e6
}

/// Scans of the unique index, rows that they read, scans of the whole table, and rows inserted.
fn counted(client: &mut Client) -> (i64, i64, i64, i64) {
    let sql = "SELECT i.idx_scan, i.idx_tup_read, t.seq_scan, t.n_tup_ins FROM pg_stat_user_indexes i JOIN pg_stat_user_tables t USING (relid)
               WHERE i.indexrelname = 'metrics_day_key'";
    let row = client.query_one(sql, &[]).expect("statistics");
    (row.get(0), row.get(1), row.get(2), row.get(3))
}
