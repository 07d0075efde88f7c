//! Reads what the database holds, in the shape of the model's outcome.

use std::collections::BTreeMap;

use postgres::Client;
use serde_json::value::RawValue;

use crate::Stage;
use crate::change::{connector_id, tenant_id};
use crate::exact::Exact;
use crate::model::{Data, Metric, Outcome, Rows, Source};

/// Histories of which a failure shows everything that happened to them.
const SHOWN: usize = 2;

type Object = BTreeMap<String, Box<RawValue>>;

impl Stage {
    /// Everything of every history, and the extension's own recomputation.
    pub fn compare(&mut self) {
        let mut found = outcomes(&mut self.client);
        let rows = rows(&mut self.client);
        let mut wrong = vec![];
        for (number, tenant) in self.world.tenants.iter().enumerate() {
            let rates = &self.world.rates;
            let expected =
                tenant.outcome(rates, &rows, |connector| connector_id(number, connector));
            let found = found.remove(&tenant_id(number)).unwrap_or_default();
            self.compared += 1;
            if found != expected {
                wrong.push((number, difference(&found, &expected)));
            }
        }
        assert!(found.is_empty(), "tenants that nobody knows: {found:?}");
        for (number, difference) in wrong.iter().take(SHOWN) {
            let tenant = &self.world.tenants[*number];
            println!(
                "history {number}, now {:?} {}\n{}",
                tenant.zone, tenant.currency, difference
            );
            for line in &tenant.log {
                println!("    {line}");
            }
            println!(
                "mappings {:#?}\nrecords {:?}",
                tenant.mappings, tenant.records
            );
        }
        assert!(
            wrong.is_empty(),
            "{} histories differ, seed {}",
            wrong.len(),
            self.seed
        );
        let sql = "SELECT v::text FROM connector_service_verify() v LIMIT 20";
        let rows = self.client.query(sql, &[]).unwrap();
        let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(rows.is_empty(), "seed {}: {rows:#?}", self.seed);
    }
}

/// What is only on one side, or differs.
fn difference(found: &Outcome, expected: &Outcome) -> String {
    let mut lines = vec![];
    let mut compare = |what: &str, found: Vec<String>, expected: Vec<String>| {
        let only = |these: &[String], others: &[String], who: &str| -> Vec<String> {
            these
                .iter()
                .filter(|one| !others.contains(one))
                .map(|one| format!("  {what} {who}: {one}"))
                .collect()
        };
        lines.extend(only(&found, &expected, "found   "));
        lines.extend(only(&expected, &found, "expected"));
    };
    let text = |one: &Outcome| one.metrics.iter().map(|m| format!("{m:?}")).collect();
    compare("metric", text(found), text(expected));
    let text = |one: &Outcome| one.quarantine.iter().map(|q| format!("{q:?}")).collect();
    compare("quarantine", text(found), text(expected));
    let text = |one: &Outcome| one.dropped.iter().map(|d| format!("{d:?}")).collect();
    compare("dropped", text(found), text(expected));
    let text = |one: &Outcome| one.alerts.iter().cloned().collect();
    compare("alert", text(found), text(expected));
    compare(
        "facts",
        vec![found.facts.to_string()],
        vec![expected.facts.to_string()],
    );
    lines.join("\n")
}

/// Which row stores which record.
fn rows(client: &mut Client) -> Rows {
    let sql = "SELECT connector_id::text, source_record_id, raw_id::text FROM raw_connector_data";
    let rows = client.query(sql, &[]).unwrap();
    rows.iter()
        .map(|row| ((row.get(0), row.get(1)), row.get(2)))
        .collect()
}

fn outcomes(client: &mut Client) -> BTreeMap<String, Outcome> {
    let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
    let sql = "SELECT tenant_id::text, metric_type, metric_date::text, metric_value::text, derived_value::text, by_hand, data::text
               FROM all_metrics";
    for row in client.query(sql, &[]).unwrap() {
        let derived: Option<String> = row.get(4);
        let by_hand: bool = row.get(5);
        let metric = Metric {
            value: Exact::read(row.get(3)),
            derived: derived.as_deref().map(Exact::read),
            by_hand,
            data: (!by_hand).then(|| data(row.get(6))),
        };
        let of = outcomes.entry(row.get(0)).or_default();
        of.metrics.insert((row.get(1), row.get(2)), metric);
    }
    let sql = "SELECT tenant_id::text, count(*) FROM metric_facts GROUP BY 1";
    for row in client.query(sql, &[]).unwrap() {
        outcomes.entry(row.get(0)).or_default().facts = row.get::<_, i64>(1) as usize;
    }
    let sql = "SELECT tenant_id::text, connector_id::text, source_record_id, data = '{}' FROM raw_connector_data
               WHERE dropped_at IS NOT NULL OR data = '{}'";
    for row in client.query(sql, &[]).unwrap() {
        let of = outcomes.entry(row.get(0)).or_default();
        of.dropped.insert((row.get(1), row.get(2)));
        assert!(row.get::<_, bool>(3), "what is dropped has no JSON");
    }
    let sql = "SELECT tenant_id::text, connector_id::text, source_record_id, reason_code FROM quarantine WHERE replayed_at IS NULL";
    for row in client.query(sql, &[]).unwrap() {
        let of = outcomes.entry(row.get(0)).or_default();
        let twice = of.quarantine.insert((row.get(1), row.get(2)), row.get(3));
        assert_eq!(twice, None, "a record is in quarantine once");
    }
    let sql = "SELECT tenant_id::text, alert_key, alert_type, severity FROM data_quality_alerts
               WHERE NOT resolved AND (alert_key LIKE 'fx:%' OR alert_key LIKE 'net:%')
                    -- An alert is about what its key says, in whichever of the two tables that is.
                    AND (metric_id IS NULL OR alert_key = (SELECT format('%s:%s:%s', split_part(alert_key, ':', 1), m.metric_type, m.metric_date)
                        FROM metrics m WHERE m.metric_id = data_quality_alerts.metric_id))
                    AND (measure_value_id IS NULL OR alert_key = (SELECT format('%s:%s:%s', split_part(alert_key, ':', 1), m.metric_type, m.metric_date)
                        FROM measure_values m WHERE m.metric_id = data_quality_alerts.measure_value_id))";
    for row in client.query(sql, &[]).unwrap() {
        let key: String = row.get(1);
        let kind = match key.starts_with("fx:") {
            true => ("completeness", "warning"),
            false => ("outlier", "critical"),
        };
        assert_eq!((row.get(2), row.get(3)), kind, "{key}");
        outcomes.entry(row.get(0)).or_default().alerts.insert(key);
    }
    outcomes
}

/// Numbers are read as the text they are: a float would make them equal that are not.
fn data(json: &str) -> Data {
    let data: Object = serde_json::from_str(json).expect("an object");
    let text = |name: &str| serde_json::from_str(data[name].get()).expect("a text");
    let object = |name: &str| -> Object {
        data.get(name).map_or_else(Object::new, |json| {
            serde_json::from_str(json.get()).expect("an object")
        })
    };
    let amounts = |name: &str| -> BTreeMap<String, Exact> {
        let object = object(name).into_iter();
        object
            .map(|(key, json)| (key, Exact::read(json.get())))
            .collect()
    };
    let count = |json: &RawValue| json.get().parse().expect("a count");
    let value = |of: &Object| {
        let value = of["value"].get();
        (value != "null").then(|| Exact::read(value))
    };
    let sources = object("sources").into_iter().map(|(key, json)| {
        let source: Object = serde_json::from_str(json.get()).expect("an object");
        let left = source.get("not_counted").map(|json| {
            let left: Object = serde_json::from_str(json.get()).expect("an object");
            (value(&left), count(&left["facts"]))
        });
        let known = Source {
            value: value(&source),
            facts: count(&source["facts"]),
            is_left_out: source
                .get("counted")
                .is_some_and(|json| json.get() == "false"),
            not_counted: left,
        };
        (key, known)
    });
    Data {
        category: text("category"),
        currency: data.contains_key("currency").then(|| text("currency")),
        facts: count(&data["facts"]),
        average_of: data
            .get("sum")
            .map(|sum| (Exact::read(sum.get()), count(&data["counted"]))),
        categories: amounts("categories"),
        sources: sources.collect(),
        unconverted: amounts("unconverted"),
    }
}
