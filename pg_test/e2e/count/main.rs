//! Tests that each sale counts once: two hundred businesses whose books a bookkeeper would know, their alerts and statements,
//! what changes a decision, and how long a comparison takes.

mod change;
mod kinds;
mod records;

use std::collections::BTreeMap;
use std::time::Instant;

use connector_service_test::*;
use kinds::{Business, KINDS, Word};
use postgres::Client;
use records::decimal;

const BUSINESSES: usize = 200;

pub fn tenant_id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

pub fn connector_id(number: usize, connector: usize) -> String {
    format!("00000000-0000-4001-8000-{:012x}", number * 8 + connector)
}

/// Inserts a business, with all of its records at once.
pub fn insert(client: &mut Client, number: usize, business: &Business) {
    let tenant = tenant_id(number);
    let mut sql = format!(
        "INSERT INTO tenants (tenant_id, name, timezone, currency) VALUES ('{tenant}', '{}', '{}', 'EUR');",
        business.kind.replace('\'', "''"),
        business.zone
    );
    for (at, (name, kind)) in business.connectors.iter().enumerate() {
        let id = connector_id(number, at);
        let status = if business.paused == Some(at) {
            "paused"
        } else {
            "active"
        };
        sql += &format!(
            "INSERT INTO connectors (connector_id, tenant_id, name, type, sync_frequency, status) VALUES ('{id}', '{tenant}', '{name}', '{kind}', 'manual', '{status}');"
        );
        if *kind == "csv" {
            let metric_type = if name.ends_with("costs") {
                "costs"
            } else {
                "revenue"
            };
            sql += &format!(
                "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path) VALUES ('{id}', 'rows', '{metric_type}', '$.Amount', '$.Day');"
            );
        }
    }
    for (at, record) in business.records.iter().enumerate() {
        let kind = business.connectors[record.connector].1;
        let id = connector_id(number, record.connector);
        sql += if at % 500 == 0 {
            ";INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data) VALUES "
        } else {
            ","
        };
        sql += &format!(
            "('{tenant}', '{id}', '{kind}', '{0}', '{0}/{at}', $j${1}$j$)",
            record.stream, record.data
        );
    }
    client.batch_execute(&sql).unwrap();
}

/// Nothing waits for its facts, its sum or its comparison.
pub fn settled(client: &mut Client, seconds: u64) {
    let sql = "SELECT NOT EXISTS (SELECT FROM raw_connector_data WHERE NOT processed) AND NOT EXISTS (SELECT FROM metric_days_touched)
                   AND NOT EXISTS (SELECT FROM count_due)";
    wait_until(seconds, "everything is compared", || {
        client
            .query_one(sql, &[])
            .unwrap()
            .get::<_, bool>(0)
            .then_some(())
    });
}

pub fn sum(client: &mut Client, number: usize, metric_type: &str) -> String {
    let sql = "SELECT coalesce(sum(metric_value), 0)::numeric(20,2)::text FROM metrics WHERE tenant_id::text = $1 AND metric_type = $2";
    client
        .query_one(sql, &[&tenant_id(number), &metric_type])
        .unwrap()
        .get(0)
}

/// What was decided, and what its alert says: by connector, metric type and part.
fn decided(
    client: &mut Client,
    number: usize,
) -> BTreeMap<(String, String, String), (String, String)> {
    let sql = "SELECT d.connector_id::text, d.metric_type, d.part, d.verdict, coalesce(a.severity || ' ' || a.message, 'silent')
               FROM count_decisions d LEFT JOIN data_quality_alerts a ON a.tenant_id = d.tenant_id AND a.connector_id = d.connector_id
                   AND a.alert_type = 'double_count' AND NOT a.resolved AND a.alert_key LIKE format('double:%s:%s:%%', d.metric_type, d.part)
               WHERE d.tenant_id::text = $1 AND (d.counts = (d.verdict <> 'same'))";
    let rows = client.query(sql, &[&tenant_id(number)]).unwrap();
    let mut found = BTreeMap::new();
    for row in &rows {
        let twice = found.insert(
            (row.get(0), row.get(1), row.get(2)),
            (row.get(3), row.get(4)),
        );
        assert_eq!(twice, None, "one open alert for each decision");
    }
    found
}

fn expected(word: Word) -> (&'static str, &'static str) {
    match word {
        Word::Once => ("same", "info"),
        Word::Both => ("separate", "info"),
        Word::Ask => ("unclear", "warning"),
        Word::Wait => ("too_early", "info"),
    }
}

#[test]
fn two_hundred_businesses_count_as_a_bookkeeper_would() {
    let seed = std::env::var("COUNT_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    println!("COUNT_SEED={seed}");
    let mut random = Random(seed);
    let cluster = Cluster::start("client_min_messages = error\nlog_min_messages = error");
    let mut client = cluster.database("app");
    let mut businesses = vec![];
    let started = Instant::now();
    client.batch_execute("BEGIN").unwrap();
    for number in 0..BUSINESSES {
        let (kind, make) = KINDS[number % KINDS.len()];
        let business = Business {
            kind,
            ..make(&mut random)
        };
        insert(&mut client, number, &business);
        businesses.push(business);
    }
    client.batch_execute("COMMIT").unwrap();
    let records: usize = businesses.iter().map(|it| it.records.len()).sum();
    println!("{records} records inserted after {:.1?}", started.elapsed());
    settled(&mut client, 300);
    println!("settled and compared after {:.1?}", started.elapsed());

    let mut wrong = vec![];
    let mut table: BTreeMap<(&str, String), (usize, String)> = BTreeMap::new();
    for (number, business) in businesses.iter().enumerate() {
        let found = decided(&mut client, number);
        let mut complain =
            |what: String| wrong.push(format!("business {number}, {}: {what}", business.kind));
        if found.len() != business.words.len() {
            complain(format!(
                "{} decisions expected, found {found:#?}",
                business.words.len()
            ));
        }
        for (connector, metric_type, part, word) in &business.words {
            let key = (
                connector_id(number, *connector),
                (*metric_type).to_owned(),
                (*part).to_owned(),
            );
            let none = ("none".to_owned(), "silent".to_owned());
            let (verdict, alert) = found.get(&key).unwrap_or(&none);
            let name = business.connectors[*connector].0;
            let row = table
                .entry((
                    business.kind,
                    format!("{name}, {metric_type} {part}: expected {word:?}, decided {verdict}"),
                ))
                .or_default();
            row.0 += 1;
            row.1 = alert.chars().take(150).collect();
            let (right, severity) = expected(*word);
            let is_said = alert.starts_with(&format!("{severity} "))
                && alert.contains("connector_service_count('");
            if verdict != right || !is_said {
                complain(format!(
                    "{name} {metric_type} {part}: {word:?}, and not {verdict}: {alert}"
                ));
            }
        }
        let revenue = sum(&mut client, number, "revenue");
        if revenue != decimal(business.revenue) {
            complain(format!(
                "revenue is {revenue}, and should be {}",
                decimal(business.revenue)
            ));
        }
        let costs = sum(&mut client, number, "costs");
        if let Some(right) = business.costs
            && costs != decimal(right)
        {
            complain(format!(
                "costs are {costs}, and should be {}",
                decimal(right)
            ));
        }
    }
    for ((kind, line), (count, alert)) in &table {
        println!("{count:3} {kind}: {line}\n      {alert}");
    }
    assert!(
        wrong.is_empty(),
        "{} of {BUSINESSES}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    // What counts is what explain() adds up to; what does not is named.
    let sql = "SELECT count(*), count(*) FILTER (WHERE e.counted <> m.metric_value), count(*) FILTER (WHERE e.left_out), count(*) FILTER (WHERE e.is_silent)
               FROM (SELECT * FROM metrics WHERE metric_type = 'revenue' ORDER BY metric_id LIMIT 500) AS m CROSS JOIN LATERAL (
                   SELECT sum(x.counted) AS counted, bool_or(x.not_counted IS NOT NULL) AS left_out,
                       bool_or((x.not_counted IS NOT NULL) <> coalesce(m.data #>> ARRAY['sources', x.connector_id::text, 'counted'] = 'false', false)) AS is_silent
                   FROM connector_service_explain(m.metric_id) x) AS e";
    let row = client.query_one(sql, &[]).unwrap();
    let explained: [i64; 4] = std::array::from_fn(|at| row.get(at));
    assert_eq!(
        (explained[0], explained[1], explained[3]),
        (500, 0, 0),
        "explained: {explained:?}"
    );
    assert!(explained[2] > 100, "explained: {explained:?}");
    verified(&mut client);
}

pub fn verified(client: &mut Client) {
    let rows = client
        .query(
            "SELECT v::text FROM connector_service_verify() v LIMIT 5",
            &[],
        )
        .unwrap();
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(rows.is_empty(), "{rows:#?}");
}
