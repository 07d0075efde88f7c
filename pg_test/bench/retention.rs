//! What `raw_retention` gives back: of a million stored records nine in ten lose their JSON, and their metrics stay. The room that
//! the tables take before and after, and how long it takes to sum all days again, before and after, in one run.

use std::time::{Duration, Instant};

use connector_service_test::Cluster;
use postgres::Client;

use crate::{median, number};

const DAYS: usize = 667;
/// How long the upkeep process may take to drop and to give the room back.
const PATIENCE: Duration = Duration::from_secs(3_600);

pub fn run() {
    let records = number("KEPT", 1_000_000);
    let rounds = number("ROUNDS", 3);
    let cluster = Cluster::start(
        "shared_buffers = '2GB'\nmax_wal_size = '16GB'\nmaintenance_work_mem = '512MB'\nfsync = off\nautovacuum_naptime = '1s'",
    );
    let mut client = cluster.database("bench");
    client.batch_execute(&load(records)).expect("the load");
    client
        .batch_execute("VACUUM ANALYZE")
        .expect("VACUUM ANALYZE");
    let full = Sizes::of(&mut client);
    let metrics = metrics(&mut client);
    let settle_before = settle(&mut client, rounds);
    let started = Instant::now();
    client
        .batch_execute(
            "UPDATE connectors SET config = config || '{\"raw_retention\": \"30 days\"}'",
        )
        .expect("raw_retention");
    let old = i64::try_from(records / 10 * 9).expect("a number of records");
    wait(
        &mut client,
        "the JSON of nine in ten records is dropped",
        &format!("SELECT count(*) = {old} FROM raw_connector_data WHERE dropped_at IS NOT NULL"),
    );
    let dropped = started.elapsed();
    // The rest is VACUUM's and the upkeep process's, in turns. When the table is no smaller after two minutes, it is done.
    let mut sizes = Sizes::of(&mut client);
    let mut shrunk_at = Instant::now();
    while shrunk_at.elapsed() < Duration::from_secs(120) && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_secs(1));
        let now = Sizes::of(&mut client);
        if now.rows < sizes.rows {
            shrunk_at = Instant::now();
        }
        sizes = now;
    }
    let given_back = shrunk_at.duration_since(started);
    let settle_after = settle(&mut client, rounds);
    client
        .batch_execute("REINDEX TABLE raw_connector_data")
        .expect("REINDEX");
    let reindexed = Sizes::of(&mut client);
    assert_eq!(self::metrics(&mut client), metrics, "no metric changes");
    let wrong: i64 = one(
        &mut client,
        "SELECT count(*) FROM connector_service_verify()",
    );
    assert_eq!(wrong, 0, "what is stored is what is expected");
    println!(
        "\n{records} records of about 572 bytes, of which {old} are dropped     rows MB   rows and indexes MB"
    );
    for (name, sizes) in [
        ("before", &full),
        ("afterwards, by itself", &sizes),
        ("after REINDEX", &reindexed),
    ] {
        println!("{name:<66} {:>9.0}   {:>19.0}", sizes.rows, sizes.all);
    }
    println!(
        "dropped in {:.0} s, smallest after {:.0} s; {DAYS} days summed again in {settle_before:.2} s before and {settle_after:.2} s after: {:.2}",
        dropped.as_secs_f64(),
        given_back.as_secs_f64(),
        settle_after / settle_before
    );
}

/// Megabytes.
struct Sizes {
    rows: f64,
    all: f64,
}

impl Sizes {
    fn of(client: &mut Client) -> Sizes {
        let mut megabytes = |function: &str| {
            let bytes: i64 = one(client, &format!("SELECT {function}('raw_connector_data')"));
            bytes as f64 / 1e6
        };
        Sizes {
            rows: megabytes("pg_relation_size"),
            all: megabytes("pg_total_relation_size"),
        }
    }
}

fn one<T>(client: &mut Client, sql: &str) -> T
where
    T: for<'a> postgres::types::FromSql<'a>,
{
    client.query_one(sql, &[]).expect("one row").get(0)
}

fn wait(client: &mut Client, what: &str, sql: &str) {
    let started = Instant::now();
    while !one::<bool>(client, sql) {
        assert!(started.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn metrics(client: &mut Client) -> String {
    let sql = "SELECT md5(string_agg(concat_ws(' ', metric_date, metric_value, data), ',' ORDER BY metric_date)) FROM metrics";
    one(client, sql)
}

/// Seconds, a median.
fn settle(client: &mut Client, rounds: usize) -> f64 {
    let times = (0..rounds).map(|_| {
        let mut transaction = client.transaction().expect("BEGIN");
        transaction
            .batch_execute(
                "SELECT _connector_service.connector_service_lock(NULL);
                 INSERT INTO metric_days_touched SELECT tenant_id, metric_type, metric_date FROM metrics",
            )
            .expect("the days");
        let started = Instant::now();
        transaction
            .batch_execute("SELECT _connector_service.connector_service_settle()")
            .expect("settle");
        let took = started.elapsed().as_secs_f64();
        transaction.commit().expect("COMMIT");
        took
    });
    median(times.collect())
}

/// Rows as the worker would have stored them; without triggers, which would only make them again. Nine in ten are old.
fn load(records: usize) -> String {
    let old = records / 10 * 9;
    format!(
        "INSERT INTO tenants (tenant_id, name) VALUES ('00000000-0000-4000-8000-000000000001', 'shop');
         INSERT INTO connectors (connector_id, tenant_id, name, type, sync_frequency, credentials)
         VALUES ('00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000001', 'shop', 'stripe', 'manual', '{{\"api_key\": \"sk_test_not_a_real_key\"}}');
         INSERT INTO metric_mappings (mapping_id, connector_type, stream, metric_type, value_path, date_path)
         VALUES (5000, 'stripe', 'orders', 'revenue', '$.total', '$.at');
         SET session_replication_role = replica;
         CREATE TEMP TABLE record AS
         SELECT lpad(to_hex(i), 32, '0')::uuid AS raw_id, i, date '2024-01-01' + i * {DAYS} / {records} AS day, (i % 9973)::numeric / 100 AS total
         FROM generate_series(0, {records} - 1) AS i;
         INSERT INTO raw_connector_data (raw_id, tenant_id, connector_id, source_type, stream, source_record_id, data, processed, ingested_at, content_hash)
         SELECT raw_id, '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002', 'stripe', 'orders', 'orders/' || lpad(i::text, 8, '0'),
             jsonb_build_object('id', i, 'total', total, 'at', day, 'note', repeat(md5(i::text), 15)), true,
             CASE WHEN i < {old} THEN now() - interval '400 days' ELSE now() END, decode(md5(i::text), 'hex')
         FROM record;
         INSERT INTO metric_facts (raw_id, mapping_id, item, version, tenant_id, connector_id, metric_type, metric_date, currency, value)
         SELECT raw_id, 5000, 1, 1, '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002', 'revenue', day, 'USD', total FROM record;
         SET session_replication_role = origin;
         INSERT INTO metric_days_touched SELECT DISTINCT tenant_id, metric_type, metric_date FROM metric_facts;
         SELECT _connector_service.connector_service_settle();"
    )
}
