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
/// Of one tenant. With fewer, ten of its days would not hold [`CHANGED`] records.
const FACTS: usize = 100_000;
/// One record in so many is of a tenant's first day, a sale: with more, that day would not hold [`CHANGED`] records.
const SALE: usize = 49;

/// Where the changed records lie.
#[derive(Clone, Copy)]
enum Spread {
    Day,
    TenDays,
    Everywhere,
}

const SPREADS: [(Spread, &str); 3] = [
    (Spread::Day, "in 1 day"),
    (Spread::TenDays, "in 10 days"),
    (Spread::Everywhere, "anywhere"),
];

pub fn run() {
    let rounds = number("ROUNDS", 3);
    let sizes = numbers("FACTS", "1000000,5000000");
    let mut stages: Vec<Stage> = sizes.iter().map(|&facts| Stage::new(facts)).collect();
    // The sizes in turns as well: what else the machine does is to slow them alike.
    let mut samples: Vec<[Vec<Sample>; 3]> = sizes.iter().map(|_| Default::default()).collect();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (number, (spread, _)) in SPREADS.iter().enumerate() {
            for (stage, samples) in stages.iter_mut().zip(&mut samples) {
                samples[number].push(stage.round(*spread, round));
            }
        }
    }
    let reports: Vec<[Report; 3]> = samples
        .iter()
        .map(|samples| samples.each_ref().map(|samples| Report::of(samples)))
        .collect();
    println!(
        "\n{CHANGED} changed records among      days    UPDATE ms   facts and sums ms   REFRESH ms   of REFRESH"
    );
    for (facts, reports) in sizes.iter().zip(&reports) {
        for ((_, name), report) in SPREADS.iter().zip(reports) {
            println!(
                "{facts:>9} facts, {name:<12} {:>6}   {:>10.1}   {:>17.1}   {:>10.1}   {:>10.3}",
                report.days,
                report.update,
                report.settle,
                report.refresh,
                report.settle / report.refresh
            );
        }
    }
    for (facts, larger) in sizes.iter().zip(&reports).skip(1) {
        println!("\n{facts} facts beside {}: times as long", sizes[0]);
        for (((_, name), larger), first) in SPREADS.iter().zip(larger).zip(&reports[0]) {
            println!(
                "{name:<12} UPDATE {:.2}, facts and sums {:.2}, REFRESH {:.2}",
                larger.update / first.update,
                larger.settle / first.settle,
                larger.refresh / first.refresh
            );
        }
    }
}

struct Sample {
    days: usize,
    /// Milliseconds.
    update: f64,
    settle: f64,
    refresh: f64,
}

/// Medians of the rounds, and the days of the last one.
struct Report {
    days: usize,
    update: f64,
    settle: f64,
    refresh: f64,
}

impl Report {
    fn of(samples: &[Sample]) -> Report {
        let of = |what: fn(&Sample) -> f64| median(samples.iter().map(what).collect());
        Report {
            days: samples.last().map_or(0, |sample| sample.days),
            update: of(|sample| sample.update),
            settle: of(|sample| sample.settle),
            refresh: of(|sample| sample.refresh),
        }
    }
}

struct Stage {
    /// Runs as long as the client is used.
    _cluster: Cluster,
    client: Client,
    facts: usize,
    tenants: usize,
}

impl Stage {
    /// Record i belongs to tenant i % tenants.
    fn new(facts: usize) -> Stage {
        assert!(facts >= FACTS, "FACTS is {FACTS} or more");
        let tenants = facts / FACTS;
        eprintln!("making {facts} facts of {tenants} tenants");
        let started = Instant::now();
        let cluster = Cluster::start(
            "shared_buffers = '2GB'\nmax_wal_size = '16GB'\ncheckpoint_timeout = '1h'\nautovacuum = off\nmaintenance_work_mem = '512MB'\nfsync = off",
        );
        let mut client = cluster.database("bench");
        client
            .batch_execute(&load(facts, tenants))
            .expect("the load");
        // Not in the same batch: VACUUM is not for transactions.
        client
            .batch_execute("VACUUM ANALYZE")
            .expect("VACUUM ANALYZE");
        let sql =
            "SELECT count(*) FROM connector_service_verify('00000000-0000-0000-0000-000000000001')";
        let wrong: i64 = client.query_one(sql, &[]).expect("verify").get(0);
        assert_eq!(wrong, 0, "the load is what the pipeline would have made");
        eprintln!("made in {:.0} s", started.elapsed().as_secs_f64());
        Stage {
            _cluster: cluster,
            client,
            facts,
            tenants,
        }
    }

    fn round(&mut self, spread: Spread, round: usize) -> Sample {
        let records = self.records(spread, round);
        let days: BTreeSet<(usize, usize)> = records
            .iter()
            .map(|i| (i % self.tenants, day(i / self.tenants)))
            .collect();
        let ids: Vec<String> = records.iter().map(|i| format!("{i:032x}")).collect();
        let mut transaction = self.client.transaction().expect("BEGIN");
        // So that it is this session, and not the worker, that derives and sums.
        transaction
            .batch_execute("SELECT _connector_service.connector_service_lock(NULL)")
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
        self.sums_are_equal();
        Sample {
            days: days.len(),
            update: updated.as_secs_f64() * 1e3,
            settle: (settled - updated).as_secs_f64() * 1e3,
            refresh: refresh.as_secs_f64() * 1e3,
        }
    }

    /// Other ones in every round.
    fn records(&self, spread: Spread, round: usize) -> Vec<usize> {
        let tenant = round % self.tenants;
        let of_tenant = |n: usize| n * self.tenants + tenant;
        let records: Vec<usize> = match spread {
            Spread::Day => (0..CHANGED).map(|n| of_tenant(n * SALE)).collect(),
            Spread::TenDays => {
                let first = 1 + round * 10 % (DAYS - 10);
                (0..FACTS)
                    .filter(|&n| (first..first + 10).contains(&day(n)))
                    .take(CHANGED)
                    .map(of_tenant)
                    .collect()
            }
            // A prime step meets all tenants and days alike.
            Spread::Everywhere => (0..CHANGED)
                .map(|n| (n * 7_919 + round * 13) * 101 % self.facts)
                .collect(),
        };
        assert_eq!(records.len(), CHANGED);
        records
    }

    fn sums_are_equal(&mut self) {
        let sql = "SELECT count(*) FROM metrics m FULL JOIN sums s USING (tenant_id, metric_type, metric_date)
                   WHERE m.metric_value IS DISTINCT FROM s.total OR (m.data->>'facts')::bigint IS DISTINCT FROM s.facts";
        let differ: i64 = self.client.query_one(sql, &[]).expect("the sums").get(0);
        assert_eq!(differ, 0, "metrics and sums are equal");
    }
}

/// The day of a tenant's n-th record.
fn day(n: usize) -> usize {
    if n.is_multiple_of(SALE) { 0 } else { n % DAYS }
}

/// Rows as the worker would have stored them; without triggers, which would only make them again.
fn load(facts: usize, tenants: usize) -> String {
    format!(
        "INSERT INTO tenants (tenant_id, name)
         SELECT id, id FROM (SELECT lpad(to_hex(t), 32, '0')::uuid FROM generate_series(1, {tenants}) t) AS one(id);
         INSERT INTO connectors (connector_id, tenant_id, name, type, status)
         SELECT tenant_id, tenant_id, 'shop', 'stripe', 'paused' FROM tenants;
         INSERT INTO metric_mappings (mapping_id, connector_type, stream, metric_type, value_path, date_path, category_path)
         VALUES (5000, 'stripe', 'orders', 'revenue', '$.total', '$.at', '$.category');
         SET session_replication_role = replica;
         CREATE TEMP TABLE record AS
         SELECT lpad(to_hex(i), 32, '0')::uuid AS raw_id, lpad(to_hex(i % {tenants} + 1), 32, '0')::uuid AS tenant_id, i,
             date '2024-01-01' + CASE WHEN i / {tenants} % {SALE} = 0 THEN 0 ELSE i / {tenants} % {DAYS} END AS day,
             (i % 9973)::numeric / 100 AS total, 'c' || i / {tenants} / {DAYS} % 7 AS category
         FROM generate_series(0, {facts} - 1) AS i;
         INSERT INTO raw_connector_data (raw_id, tenant_id, connector_id, source_type, stream, source_record_id, data, processed)
         SELECT raw_id, tenant_id, tenant_id, 'stripe', 'orders', 'orders/' || lpad(i::text, 8, '0'),
             jsonb_build_object('id', i, 'total', total, 'at', day, 'category', category), true
         FROM record;
         INSERT INTO metric_facts (raw_id, mapping_id, item, version, tenant_id, connector_id, metric_type, metric_date, category, currency, value)
         SELECT raw_id, 5000, 1, 1, tenant_id, tenant_id, 'revenue', day, category, 'USD', total FROM record;
         SET session_replication_role = origin;
         INSERT INTO metric_days_touched SELECT DISTINCT tenant_id, 'revenue', day FROM record;
         DROP TABLE record;
         SELECT _connector_service.connector_service_settle();
         CREATE MATERIALIZED VIEW sums AS
         SELECT tenant_id, metric_type, metric_date, sum(value) AS total, count(*) AS facts FROM metric_facts GROUP BY 1, 2, 3;"
    )
}
