//! What a change costs: 1,000 changed records among millions, from the changed record to the metric, beside REFRESH
//! MATERIALIZED VIEW of the same sums.
//!
//! A larger table has more tenants, so a day holds as many facts in each: what is shown is that the time grows with
//! the days touched, and not with the table.

use std::collections::BTreeSet;
use std::time::Instant;

use connector_service_test::Cluster;
use postgres::Client;

use crate::{median, number, numbers};

const CHANGED: usize = 1_000;
const DAYS: usize = 700;
/// Of one tenant.
const FACTS: usize = 100_000;

/// Where the changed records lie.
const SPREADS: [&str; 2] = ["on as many days", "on 10 days"];

pub fn run() {
    let rounds = number("ROUNDS", 3);
    println!(
        "\n{CHANGED} changed records among          days    UPDATE ms   facts and sums ms   REFRESH ms   of REFRESH"
    );
    for facts in numbers("FACTS", "1000000,5000000") {
        let mut stage = Stage::new(facts);
        for spread in SPREADS {
            let samples: Vec<Sample> = (0..rounds)
                .map(|round| stage.round(spread, round))
                .collect();
            let of = |what: fn(&Sample) -> f64| median(samples.iter().map(what).collect());
            let (settle, refresh) = (of(|s| s.settle), of(|s| s.refresh));
            println!(
                "{facts:>9} facts, {spread:<16} {:>6.0}   {:>10.1}   {settle:>17.1}   {refresh:>10.1}   {:>10.3}",
                of(|s| s.days),
                of(|s| s.update),
                settle / refresh
            );
        }
    }
}

struct Sample {
    days: f64,
    /// Milliseconds.
    update: f64,
    settle: f64,
    refresh: f64,
}

struct Stage {
    /// Runs as long as the client is used.
    _cluster: Cluster,
    client: Client,
    facts: usize,
    tenants: usize,
}

impl Stage {
    /// Record i belongs to tenant i % tenants and to day i / tenants % DAYS.
    fn new(facts: usize) -> Stage {
        let tenants = facts.div_ceil(FACTS);
        eprintln!("making {facts} facts of {tenants} tenants");
        let cluster = Cluster::start(
            "shared_buffers = '2GB'\nmax_wal_size = '16GB'\ncheckpoint_timeout = '1h'\nautovacuum = off\nmaintenance_work_mem = '512MB'\nfsync = off",
        );
        let mut client = cluster.database("bench");
        // Rows as the worker would have stored them; without triggers, which would only make them again.
        let load = format!(
            "INSERT INTO tenants (tenant_id, name)
             SELECT id, id FROM (SELECT lpad(to_hex(t), 32, '0')::uuid FROM generate_series(1, {tenants}) t) AS one(id);
             INSERT INTO connectors (connector_id, tenant_id, name, type, status)
             SELECT tenant_id, tenant_id, 'shop', 'stripe', 'paused' FROM tenants;
             INSERT INTO metric_mappings (mapping_id, connector_type, stream, metric_type, value_path, date_path, category_path)
             VALUES (5000, 'stripe', 'orders', 'revenue', '$.total', '$.at', '$.category');
             SET session_replication_role = replica;
             CREATE TEMP TABLE record AS
             SELECT lpad(to_hex(i), 32, '0')::uuid AS raw_id, lpad(to_hex(i % {tenants} + 1), 32, '0')::uuid AS tenant_id, i,
                 date '2024-01-01' + i / {tenants} % {DAYS} AS day, (i % 9973)::numeric / 100 AS total, 'c' || i % 7 AS category
             FROM generate_series(0, {facts} - 1) AS i;
             INSERT INTO raw_connector_data (raw_id, tenant_id, connector_id, source_type, stream, source_record_id, data, processed)
             SELECT raw_id, tenant_id, tenant_id, 'stripe', 'orders', 'orders/' || i,
                 jsonb_build_object('id', i, 'total', total, 'at', day, 'category', category), true
             FROM record;
             INSERT INTO metric_facts (raw_id, mapping_id, item, version, tenant_id, connector_id, metric_type, metric_date, category, currency, value)
             SELECT raw_id, 5000, 1, 1, tenant_id, tenant_id, 'revenue', day, category, 'USD', total FROM record;
             SET session_replication_role = origin;
             INSERT INTO metric_days_touched SELECT DISTINCT tenant_id, 'revenue', day FROM record;
             DROP TABLE record;
             SELECT connector_service_settle();
             CREATE MATERIALIZED VIEW sums AS
             SELECT tenant_id, metric_type, metric_date, sum(value) AS total, count(*) AS facts FROM metric_facts GROUP BY 1, 2, 3;"
        );
        client.batch_execute(&load).expect("the load");
        client
            .batch_execute("VACUUM ANALYZE")
            .expect("VACUUM ANALYZE");
        let mut stage = Stage {
            _cluster: cluster,
            client,
            facts,
            tenants,
        };
        let sql =
            "SELECT count(*) FROM connector_service_verify('00000000-0000-0000-0000-000000000001')";
        let wrong: i64 = stage.client.query_one(sql, &[]).expect("verify").get(0);
        assert_eq!(wrong, 0, "the load is what the pipeline would have made");
        stage
    }

    fn round(&mut self, spread: &str, round: usize) -> Sample {
        let records: Vec<usize> = match spread {
            "on 10 days" => (0..CHANGED)
                .map(|n| (n / 10 * DAYS + n % 10 + 10 * round) * self.tenants + round)
                .collect(),
            // A prime step meets all tenants and days alike.
            _ => (0..CHANGED)
                .map(|n| (n * 7_919 + round * 13) * 101 % self.facts)
                .collect(),
        };
        let days: BTreeSet<(usize, usize)> = records
            .iter()
            .map(|i| (i % self.tenants, i / self.tenants % DAYS))
            .collect();
        let ids: Vec<String> = records.iter().map(|i| format!("{i:032x}")).collect();
        let mut transaction = self.client.transaction().expect("BEGIN");
        // So that it is this session, and not the worker, that derives and sums.
        transaction
            .batch_execute("SELECT connector_service_lock()")
            .expect("the lock");
        let started = Instant::now();
        let sql = "UPDATE raw_connector_data SET data = jsonb_set(data, '{total}', to_jsonb((data->>'total')::numeric + 1))
                   WHERE raw_id = ANY ($1::text[]::uuid[])";
        let changed = transaction.execute(sql, &[&ids]).expect("UPDATE");
        assert_eq!(changed as usize, CHANGED);
        let updated = started.elapsed();
        let sql = "SELECT connector_service_process()";
        let processed: i64 = transaction.query_one(sql, &[]).expect("process").get(0);
        assert_eq!(processed as usize, CHANGED);
        let settled = started.elapsed();
        transaction.commit().expect("COMMIT");
        let refresh = Instant::now();
        self.client
            .batch_execute("REFRESH MATERIALIZED VIEW sums")
            .expect("REFRESH");
        let refresh = refresh.elapsed();
        let sql = "SELECT count(*) FROM metrics m FULL JOIN sums s USING (tenant_id, metric_type, metric_date)
                   WHERE m.metric_value IS DISTINCT FROM s.total OR (m.data->>'facts')::bigint IS DISTINCT FROM s.facts";
        let differ: i64 = self.client.query_one(sql, &[]).expect("the sums").get(0);
        assert_eq!(differ, 0, "metrics and sums are equal");
        Sample {
            days: days.len() as f64,
            update: updated.as_secs_f64() * 1e3,
            settle: (settled - updated).as_secs_f64() * 1e3,
            refresh: refresh.as_secs_f64() * 1e3,
        }
    }
}
