//! Tests what one tenant sees of a database that others share with it. The oracle is a copy of the database with that
//! tenant alone.

use std::collections::BTreeMap;

use connector_service_test::*;
use postgres::{Client, SimpleQueryMessage};

const QUERIES: usize = 10_000;
const OWN: &str = "00000000-0000-4000-8000-00000000000a";
const OTHERS: [&str; 2] = [
    "00000000-0000-4000-8000-00000000000b",
    "00000000-0000-4000-8000-00000000000c",
];

/// What a tenant may read.
const READABLE: [&str; 18] = [
    "tenants",
    "connectors",
    "sync_runs",
    "sync_requests",
    "sync_state",
    "raw_connector_data",
    "quarantine",
    "metric_mappings",
    "metric_mapping_versions",
    "metric_facts",
    "metric_sources",
    "count_decisions",
    "metrics",
    "data_quality_alerts",
    "quality_rules",
    "fx_rates",
    "daily_revenue_by_category",
    "tenant_monthly_revenue",
];

/// What a tenant may change, and a column that tells its rows apart.
const CHANGEABLE: [(&str, &str, &str); 6] = [
    ("connectors", "connector_id", "name = name || 'x'"),
    ("metrics", "metric_id", "metric_value = metric_value + 1"),
    ("data_quality_alerts", "alert_id", "resolved = NOT resolved"),
    ("quality_rules", "rule_id", "max_value = 7"),
    ("metric_mappings", "mapping_id", "note = 'mine'"),
    ("tenants", "tenant_id", "name = 'mine'"),
];

/// Where the superuser must leave alone what is everybody's, and a tenant is made to.
const MINE: &str = "(1 = 1)";

/// Three tenants with everything that a database can hold, in which the same names and ids appear.
fn fill(client: &mut Client) {
    client
        .batch_execute(
            "CREATE ROLE shop_a LOGIN IN ROLE connector_service_tenant;
             INSERT INTO metric_mappings (connector_type, stream, metric_type, value_path, date_path, category_path, currency_path)
             VALUES ('api', 'orders', 'revenue', '$.total', '$.day', '$.category', '$.currency')",
        )
        .unwrap();
    for (n, tenant) in [OWN].iter().chain(&OTHERS).enumerate() {
        let records = [13, 22, 5][n];
        client
            .batch_execute(&format!(
                "INSERT INTO tenants (tenant_id, name) VALUES ('{tenant}', 'tenant {n}');
                 INSERT INTO connectors (tenant_id, name, type, config, credentials, status)
                 SELECT '{tenant}', 'shop ' || i, 'stripe', '{{}}', jsonb_build_object('api_key', 'sk_test_not_a_real_key'), 'paused' FROM generate_series(1, 3) i;
                 UPDATE connectors SET type = 'shopify' WHERE tenant_id = '{tenant}' AND name = 'shop 3';
                 INSERT INTO metric_mappings (connector_type, tenant_id, stream, metric_type, value_path, date_path, category_path, currency_path)
                 SELECT kind, '{tenant}', 'orders', metric, '$.total', '$.day', '$.category', '$.currency'
                 FROM unnest('{{stripe,shopify}}'::text[]) kind, unnest('{{revenue,costs}}'::text[]) metric;
                 INSERT INTO sync_runs (connector_id, tenant_id, kind, state, received, inserted, requested_at, finished_at)
                 SELECT connector_id, tenant_id, 'sync', 'succeeded', {records}, {records}, now(), now() FROM connectors, generate_series(1, 2) WHERE tenant_id = '{tenant}';
                 INSERT INTO sync_requests (run_id, request, connector_id, tenant_id, requested_at, method, address, duration, bytes, tries, pause)
                 SELECT run_id, i, connector_id, tenant_id, requested_at, 'GET', 'https://a.example/of/{n}', '1 s', {records}, 1, '0' FROM sync_runs, generate_series(1, 3) i WHERE tenant_id = '{tenant}';
                 INSERT INTO sync_state (connector_id, stream, cursor) SELECT connector_id, 'orders', '{{\"at\": \"{n}\"}}' FROM connectors WHERE tenant_id = '{tenant}';
                 INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data, run_id)
                 SELECT c.tenant_id, c.connector_id, c.type, 'orders', 'orders/' || i, jsonb_build_object('id', i, 'secret', 'of tenant {n}',
                     'total', CASE WHEN i % 11 = 0 THEN 'none' ELSE (i * 1.25)::text END, 'day', date '2026-01-01' + i % 45,
                     'category', chr(97 + i % 3), 'currency', (ARRAY['USD', 'EUR', 'CHF'])[1 + i % 3]),
                     (SELECT r.run_id FROM sync_runs r WHERE r.connector_id = c.connector_id LIMIT 1)
                 FROM connectors c, generate_series(1, {records}) i WHERE c.tenant_id = '{tenant}';
                 INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date)
                 SELECT '{tenant}', 'inventory', CASE WHEN i % 12 = 0 THEN 5000 ELSE {n} + i END, date '2025-06-01' + i * 7 FROM generate_series(1, 14) i;
                 INSERT INTO quality_rules (tenant_id, metric_type, max_value) VALUES ('{tenant}', 'costs', {n});"
            ))
            .unwrap();
    }
    client
        .batch_execute(&format!(
            "INSERT INTO quality_rules (metric_type, max_value) VALUES ('staffing', 24);
             INSERT INTO fx_rates VALUES ('EUR', 'USD', '2026-01-03', 1.25);
             SELECT connector_service_process();
             SELECT connector_service_check_quality();
             SELECT refresh_monthly_revenue();
             INSERT INTO tenant_roles VALUES ('shop_a', '{OWN}')"
        ))
        .unwrap();
    let decide = "SELECT connector_service_count(connector_id, 'staffing', false) FROM connectors WHERE name = 'shop 1'";
    client.batch_execute(decide).unwrap();
    wait_until(60, "which connectors count is decided", || {
        let sql = "SELECT NOT EXISTS (SELECT FROM count_due) AND NOT EXISTS (SELECT FROM metric_days_touched)";
        let done: bool = client.query_one(sql, &[]).unwrap().get(0);
        done.then_some(())
    });
    client
        .batch_execute("SELECT refresh_monthly_revenue()")
        .unwrap();
    for table in &READABLE {
        let sql = format!("SELECT count(*) FROM {table}");
        let sql = match *table {
            "tenant_monthly_revenue" => "SELECT count(*) FROM monthly_revenue",
            _ => sql.as_str(),
        };
        let count: i64 = client.query_one(sql, &[]).unwrap().get(0);
        assert!(count > 0, "{table} is empty");
    }
}

/// Leaves one tenant in a database, and what is everybody's.
fn alone(client: &mut Client) {
    let others = format!("IN ('{}')", OTHERS.join("', '"));
    for table in [
        "raw_connector_data",
        "quarantine",
        "sync_runs",
        "metrics",
        "data_quality_alerts",
        "connectors",
        "tenants",
    ] {
        let sql = format!("DELETE FROM {table} WHERE tenant_id {others}");
        client.batch_execute(&sql).unwrap();
    }
    client
        .batch_execute(&format!(
            "DELETE FROM metric_mapping_versions WHERE definition ->> 'tenant_id' {others};
             DELETE FROM metric_days_touched;
             SELECT refresh_monthly_revenue()"
        ))
        .unwrap();
}

struct Queries {
    random: Random,
    /// The columns of what can be read.
    columns: BTreeMap<&'static str, Vec<String>>,
    metrics: Vec<String>,
}

impl Queries {
    fn relation(&mut self) -> &'static str {
        self.random.pick(&READABLE)
    }

    fn column(&mut self, relation: &str) -> String {
        let columns = &self.columns[relation];
        columns[self.random.below(columns.len())].clone()
    }

    /// A column that many relations have, if this one has it.
    fn key(&mut self, relation: &str) -> Option<&'static str> {
        let keys = [
            "tenant_id",
            "connector_id",
            "raw_id",
            "metric_date",
            "metric_type",
        ];
        let key = self.random.pick(&keys);
        self.columns[relation]
            .iter()
            .any(|c| c == key)
            .then_some(key)
    }

    fn tenant(&mut self) -> &'static str {
        self.random.pick(&[OWN, OWN, OTHERS[0], OTHERS[1]])
    }

    fn condition(&mut self, relation: &str, alias: &str, depth: usize) -> String {
        let column = self.column(relation);
        let has_tenant = self.columns[relation].iter().any(|c| c == "tenant_id");
        match self.random.below(if depth == 0 { 8 } else { 12 }) {
            0 if has_tenant => format!("{alias}.tenant_id = '{}'", self.tenant()),
            1 if has_tenant => format!("{alias}.tenant_id <> '{}'", self.tenant()),
            // Would divide by zero on a row of another's.
            2 if has_tenant => {
                format!(
                    "1 / CASE WHEN {alias}.tenant_id = '{OWN}' OR {alias}.tenant_id IS NULL THEN 1 ELSE 0 END = 1"
                )
            }
            3 => format!("{alias}.{column} IS NOT NULL"),
            4 => format!(
                "{alias}.{column}::text LIKE '%{}%'",
                self.random.pick(&["of tenant", "1", "b", "USD"])
            ),
            5 => "true".into(),
            6 => format!(
                "{alias}.{column}::text > '{}'",
                self.random.pick(&["0", "5", "a", "s"])
            ),
            0..=7 => format!("{alias}.{column} IS NULL"),
            8 => format!("NOT ({})", self.condition(relation, alias, depth - 1)),
            9 => {
                let (one, two) = (
                    self.condition(relation, alias, depth - 1),
                    self.condition(relation, alias, depth - 1),
                );
                format!("({one} {} {two})", self.random.pick(&["AND", "OR"]))
            }
            10 => {
                let other = self.relation();
                let inner = self.condition(other, "i", depth - 1);
                let not = self.random.pick(&["", "NOT "]);
                match (self.key(relation), self.columns[other].clone()) {
                    (Some(key), columns) if columns.iter().any(|c| c == key) => {
                        format!(
                            "{not}EXISTS (SELECT FROM {other} i WHERE i.{key} = {alias}.{key} AND {inner})"
                        )
                    }
                    _ => format!("{not}EXISTS (SELECT FROM {other} i WHERE {inner})"),
                }
            }
            _ => {
                let other = self.relation();
                format!(
                    "(SELECT count(*) FROM {other}) > {}",
                    self.random.below(300)
                )
            }
        }
    }

    fn query(&mut self) -> String {
        let relation = self.relation();
        let (one, two) = (self.column(relation), self.column(relation));
        let condition = self.condition(relation, "t", 2);
        match self.random.below(9) {
            0 | 1 => format!(
                "SELECT count(*), md5(string_agg(x::text, '|' ORDER BY x::text COLLATE \"C\")) FROM (SELECT t.* FROM {relation} t WHERE {condition}) x"
            ),
            2 | 3 => {
                let other = self.relation();
                let kind = self.random.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN"]);
                let key = self.key(relation).filter(|key| self.columns[other].iter().any(|c| c == key));
                let on = key.map_or("true".into(), |key| format!("t.{key} = o.{key}"));
                let also = self.condition(other, "o", 1);
                let shown = self.column(other);
                format!(
                    "SELECT count(*), count(t.{one}), count(DISTINCT o.{shown}::text), max(md5(t.{two}::text || o.{shown}::text))
                     FROM {relation} t {kind} {other} o ON {on} AND {also} WHERE {condition}"
                )
            }
            4 => {
                let other = self.relation();
                let shown = self.column(other);
                let set = self.random.pick(&["UNION", "UNION ALL", "INTERSECT", "EXCEPT"]);
                format!(
                    "SELECT count(*), md5(string_agg(v, '|' ORDER BY v COLLATE \"C\")) FROM (SELECT t.{one}::text FROM {relation} t WHERE {condition} {set} SELECT o.{shown}::text FROM {other} o) AS x(v)"
                )
            }
            5 => format!(
                "SELECT t.{one}::text, count(*) FROM {relation} t WHERE {condition} GROUP BY 1 HAVING count(*) >= {} ORDER BY 2 DESC, (t.{one}::text) COLLATE \"C\" LIMIT 20",
                self.random.below(3)
            ),
            6 => format!(
                "WITH w AS MATERIALIZED (SELECT t.{one}::text AS a, row_number() OVER (PARTITION BY t.{two}::text ORDER BY t.{one}::text COLLATE \"C\") AS n FROM {relation} t WHERE {condition})
                 SELECT n, count(*), max(a COLLATE \"C\") FROM w GROUP BY n ORDER BY n LIMIT 20"
            ),
            7 => match self.random.below(3) {
                0 => format!("SELECT get_metrics('{}', 'revenue', '2025-01-01', '2026-12-31')", self.tenant()),
                1 => format!("SELECT * FROM aggregate_metrics('{}', NULL, '2025-01-01', '2026-12-31', 'month')", self.tenant()),
                _ => {
                    let metric = self.metrics[self.random.below(self.metrics.len())].clone();
                    format!("SELECT count(*), sum(counted), max(data::text) FROM connector_service_explain('{metric}')")
                }
            },
            _ => {
                let (table, id, change) = self.random.pick(&CHANGEABLE);
                let condition = format!("{MINE} AND {}", self.condition(table, "t", 1));
                match self.random.below(3) {
                    0 if !matches!(table, "tenants" | "data_quality_alerts") => {
                        format!("DELETE FROM {table} t WHERE {condition} RETURNING t.{id}")
                    }
                    1 => format!(
                        "UPDATE {table} t SET {change} FROM {} o WHERE {condition} RETURNING t.{id}",
                        self.relation()
                    ),
                    _ => format!("UPDATE {table} t SET {change} WHERE {condition} RETURNING t.{id}"),
                }
            }
        }
    }
}

/// Rows in an order of their own, or the SQLSTATE; the database stays as it was.
fn outcome(client: &mut Client, query: &str) -> Result<Vec<String>, String> {
    client.batch_execute("BEGIN").unwrap();
    let outcome = client.simple_query(query);
    client.batch_execute("ROLLBACK").unwrap();
    match outcome {
        Ok(messages) => {
            let row = |message: &SimpleQueryMessage| match message {
                SimpleQueryMessage::Row(row) => {
                    let values = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL"));
                    Some(values.collect::<Vec<_>>().join("\t"))
                }
                _ => None,
            };
            let mut rows: Vec<String> = messages.iter().filter_map(row).collect();
            if query.contains("RETURNING") {
                rows.sort();
            }
            Ok(rows)
        }
        Err(error) => Err(error.code().expect("an SQLSTATE").code().to_owned()),
    }
}

#[test]
fn every_query_of_a_tenant_returns_what_it_would_return_without_other_tenants() {
    let seed = std::env::var("TENANTS_SEED").map_or(20_261_123, |seed| seed.parse().unwrap());
    println!("TENANTS_SEED={seed}");
    let cluster = Cluster::start("");
    fill(&mut cluster.database("shared"));
    cluster
        .client("postgres")
        .batch_execute("CREATE DATABASE alone TEMPLATE shared")
        .unwrap();
    alone(&mut cluster.client("alone"));
    // No worker from here on: neither database changes while they are compared.
    cluster.stop(Stop::Fast);
    cluster.configure("shared_preload_libraries = ''");
    cluster.run();
    cluster.wait_ready_in("shared");

    let mut oracle = cluster.client("alone");
    oracle
        .batch_execute(&format!("SELECT connector_service_act_for('{OWN}', true)"))
        .unwrap();
    let mut columns = BTreeMap::new();
    for relation in READABLE {
        let sql = "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";
        let rows = oracle.query(sql, &[&relation]).unwrap();
        columns.insert(relation, rows.iter().map(|row| row.get(0)).collect());
    }
    let all = "SELECT metric_id::text FROM metrics ORDER BY metric_id";
    let metrics = cluster.client("shared").query(all, &[]).unwrap();
    let mut queries = Queries {
        random: Random(seed),
        columns,
        metrics: metrics.iter().map(|row| row.get(0)).collect(),
    };
    let before = fingerprint(&cluster);
    let mut tenant = cluster.client_as("shop_a", "shared");
    let (mut rows, mut failed, mut empty) = (0, BTreeMap::<String, usize>::new(), 0);
    for n in 0..QUERIES {
        // Other plans, now and then.
        if n % 50 == 0 {
            let path =
                queries
                    .random
                    .pick(&["seqscan", "hashjoin", "nestloop", "indexscan", "mergejoin"]);
            tenant
                .batch_execute(&format!(
                    "RESET ALL; SET jit = off; SET enable_{path} = off"
                ))
                .unwrap();
        }
        let query = queries.query();
        let seen = outcome(&mut tenant, &query);
        let expected = outcome(&mut oracle, &query.replace(MINE, "t.tenant_id IS NOT NULL"));
        assert_eq!(seen, expected, "query {n}: {query}");
        match seen {
            Ok(seen) if seen.is_empty() => empty += 1,
            Ok(seen) => rows += seen.len(),
            Err(code) => *failed.entry(code).or_default() += 1,
        }
    }
    println!("{QUERIES} queries, {rows} rows, {empty} times none, as alone; refused: {failed:?}");
    assert!(rows > QUERIES / 2 && failed.values().sum::<usize>() < QUERIES / 4);
    assert_eq!(fingerprint(&cluster), before);
}

/// Every row of everybody.
fn fingerprint(cluster: &Cluster) -> Vec<Vec<String>> {
    let mut client = cluster.client("shared");
    READABLE
        .iter()
        .filter(|relation| !relation.starts_with("tenant_"))
        .map(|relation| {
            let sql = format!("SELECT md5(string_agg(t::text, '|' ORDER BY t::text COLLATE \"C\")) FROM {relation} t");
            outcome(&mut client, &sql).unwrap()
        })
        .collect()
}
