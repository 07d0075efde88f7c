//! Tests mappings: the facts of each vendor's records, case by case, and what happens to a record that a mapping cannot
//! read.
//!
//! A file of `vendors/<type>/<stream>.json` holds the cases of one stream: a record, the facts that come of it,
//! and the reason where it is rejected.

use std::collections::{BTreeMap, BTreeSet};

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

/// One file of cases.
struct Stream {
    kind: String,
    stream: String,
    text: String,
}

impl Stream {
    fn name(&self) -> String {
        format!("{}/{}", self.kind, self.stream)
    }
}

fn streams() -> Vec<Stream> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/vendors");
    let mut streams = Vec::new();
    for kind in std::fs::read_dir(folder).unwrap() {
        let kind = kind.unwrap();
        for file in std::fs::read_dir(kind.path()).unwrap() {
            let file = file.unwrap().path();
            assert_eq!(file.extension().unwrap(), "json", "{}", file.display());
            streams.push(Stream {
                kind: kind.file_name().into_string().unwrap(),
                stream: file.file_stem().unwrap().to_str().unwrap().to_owned(),
                text: std::fs::read_to_string(&file).unwrap(),
            });
        }
    }
    streams.sort_by_key(Stream::name);
    streams
}

/// A database in which every record of every case is processed. Each file has a connector that bears its name;
/// all belong to one tenant in New York.
fn processed(cluster: &Cluster, streams: &[Stream]) -> Client {
    let mut client = cluster.database("app");
    client
        .batch_execute(
            "INSERT INTO tenants (tenant_id, name, timezone, currency)
             VALUES ('00000000-0000-4000-8000-000000000001', 'Cases', 'America/New_York', 'USD')",
        )
        .unwrap();
    for stream in streams {
        let sql = "INSERT INTO connectors (tenant_id, name, type, status)
                   VALUES ('00000000-0000-4000-8000-000000000001', $1, $2, 'paused')";
        client
            .execute(sql, &[&stream.name(), &stream.kind])
            .unwrap();
        // PostgreSQL itself reads the file: its numbers arrive with the digits that stand there.
        let sql = "INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
                   SELECT c.tenant_id, c.connector_id, c.type, $2, $2 || '/' || cases.number, cases.content -> 'record'
                   FROM connectors c, jsonb_array_elements($3::text::jsonb -> 'cases') WITH ORDINALITY AS cases(content, number)
                   WHERE c.name = $1";
        client
            .execute(sql, &[&stream.name(), &stream.stream, &stream.text])
            .unwrap();
    }
    client
        .query("SELECT connector_service_process()", &[])
        .unwrap();
    let open: i64 = client
        .query_one(
            "SELECT count(*) FROM raw_connector_data WHERE NOT processed",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(open, 0, "records that nothing was made of");
    client
}

/// Returns the outcome of each record of a stream, in the order of its cases.
fn outcomes(client: &mut Client, stream: &Stream) -> Vec<Value> {
    let sql = "SELECT jsonb_build_object(
                   'facts', (
                       SELECT coalesce(jsonb_agg(jsonb_build_object('metric_type', f.metric_type, 'metric_date', f.metric_date,
                           'category', f.category, 'currency', f.currency, 'value', f.value::text)), '[]')
                       FROM metric_facts f
                       WHERE (f.raw_id, f.tenant_id, f.connector_id) = (r.raw_id, r.tenant_id, r.connector_id)),
                   'rejected', (SELECT string_agg(DISTINCT q.reason_code, ', ') FROM quarantine q WHERE q.raw_id = r.raw_id))
               FROM raw_connector_data r JOIN connectors c ON c.connector_id = r.connector_id
               WHERE c.name = $1
               ORDER BY split_part(r.source_record_id, '/', 2)::integer";
    client
        .query(sql, &[&stream.name()])
        .unwrap()
        .into_iter()
        .map(|row| row.get(0))
        .collect()
}

/// Sorts facts, so that two lists of them can be compared.
fn sorted(facts: &Value) -> Value {
    let mut facts = facts.as_array().unwrap().clone();
    facts.sort_by_key(Value::to_string);
    facts.into()
}

#[test]
fn every_case_of_every_vendor_gives_its_facts_or_its_reason() {
    let streams = streams();
    let cluster = Cluster::start("");
    let mut client = processed(&cluster, &streams);
    let (mut expected, mut found) = (BTreeMap::new(), BTreeMap::new());
    for stream in &streams {
        let content: Value = serde_json::from_str(&stream.text).unwrap();
        let cases = content["cases"].as_array().unwrap();
        let outcomes = outcomes(&mut client, stream);
        assert_eq!(outcomes.len(), cases.len(), "{}", stream.name());
        for (case, outcome) in cases.iter().zip(outcomes) {
            let name = format!("{}: {}", stream.name(), case["name"].as_str().unwrap());
            let [case, outcome] = [case, &outcome].map(
                |one| json!({"facts": sorted(&one["facts"]), "rejected": one["rejected"].clone()}),
            );
            let twice = expected.insert(name.clone(), case);
            assert_eq!(twice, None, "two cases have one name: {name}");
            found.insert(name, outcome);
        }
    }
    println!("{} cases", expected.len());
    // Of hundreds of cases only those that differ are worth showing.
    let right: Vec<String> = expected
        .iter()
        .filter(|(name, case)| found.get(*name) == Some(case))
        .map(|(name, _)| name.clone())
        .collect();
    for name in right {
        expected.remove(&name);
        found.remove(&name);
    }
    assert_eq!(found, expected);
}

#[test]
fn every_built_in_mapping_yields_a_fact_and_every_file_belongs_to_one() {
    let streams = streams();
    let cluster = Cluster::start("");
    let mut client = processed(&cluster, &streams);
    let mut set = |sql: &str| -> BTreeSet<String> {
        let rows = client.query(sql, &[]).unwrap();
        rows.into_iter().map(|row| row.get(0)).collect()
    };
    let mappings = set(
        "SELECT connector_type || '/' || stream || ' ' || mapping_id FROM metric_mappings WHERE builtin",
    );
    let alive = set(
        "SELECT DISTINCT m.connector_type || '/' || m.stream || ' ' || m.mapping_id
                     FROM metric_facts f JOIN metric_mappings m ON m.mapping_id = f.mapping_id",
    );
    assert_eq!(alive, mappings);
    let mapped =
        set("SELECT DISTINCT connector_type || '/' || stream FROM metric_mappings WHERE builtin");
    assert_eq!(
        streams.iter().map(Stream::name).collect::<BTreeSet<_>>(),
        mapped
    );
}

#[test]
fn records_that_a_mapping_cannot_read_are_kept_and_count_once_the_mapping_is_right() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    // 12 amounts with a decimal comma, 10 without a date, 15 whose amount stands elsewhere.
    let record = |id: usize| match id {
        0..12 => format!(r#"{{"id": {id}, "total": "1,50", "at": "2026-01-05"}}"#),
        12..22 => format!(r#"{{"id": {id}, "total": 1.50}}"#),
        22..37 => format!(r#"{{"id": {id}, "old_total": "1.50", "at": "2026-01-06"}}"#),
        _ => format!(
            r#"{{"id": {id}, "total": "1.50", "at": "2026-01-{:02}"}}"#,
            id % 28 + 1
        ),
    };
    let vendor = Vendor::start(move |asked| {
        let from = asked.number("after");
        // The bad ones are spread over the pages.
        let records: Vec<String> = (from..from + 1_000)
            .map(|i| record(i * 7 % 10_000))
            .collect();
        let next = (from < 9_000).then_some(from + 1_000);
        Reply::Json(
            json!({"data": [], "next": next})
                .to_string()
                .replace("[]", &format!("[{}]", records.join(","))),
        )
    });
    let connector = insert_connector(&mut client, "shop", &api(&vendor.url(), "orders"));
    let mapping =
        "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path)
                   VALUES ($1::text::uuid, 'orders', 'revenue', '$.total', '$.at')";
    client.execute(mapping, &[&connector]).unwrap();
    let run = sync(&mut client, &connector);
    let run = wait_for_run(&mut client, &run);
    assert_eq!(
        [&run["inserted"], &run["quarantined"], &run["unmapped"]],
        [10_000, 0, 37],
        "{run}"
    );
    let standing = |client: &mut Client| -> (Vec<(String, i64)>, String, i64) {
        let sql = "SELECT reason_code, count(*) FROM quarantine WHERE replayed_at IS NULL GROUP BY 1 ORDER BY 1";
        let reasons = client.query(sql, &[]).unwrap();
        let sql = "SELECT sum(metric_value)::text, sum((data ->> 'facts')::int) FROM metrics";
        let sum = client.query_one(sql, &[]).unwrap();
        let reasons = reasons.iter().map(|row| (row.get(0), row.get(1))).collect();
        (reasons, sum.get(0), sum.get(1))
    };
    let reasons = |reasons: &[(&str, i64)]| -> Vec<(String, i64)> {
        reasons
            .iter()
            .map(|(code, count)| ((*code).to_owned(), *count))
            .collect()
    };
    assert_eq!(
        standing(&mut client),
        (
            reasons(&[
                ("date_missing", 10),
                ("value_missing", 15),
                ("value_unreadable", 12)
            ]),
            "14944.50".into(),
            9_963
        )
    );
    let alerts = "SELECT count(*) FROM data_quality_alerts WHERE alert_type = 'schema_error' AND NOT resolved";
    assert_eq!(client.query_one(alerts, &[]).unwrap().get::<_, i64>(0), 3);
    let fix = "UPDATE metric_mappings SET value_path = '$.total, $.old_total' WHERE connector_id = $1::text::uuid";
    assert!(
        client.execute(fix, &[&connector]).is_err(),
        "a path that is none is refused"
    );
    let fix = "UPDATE metric_mappings SET value_path = '$.keyvalue() ? (@.key == \"total\" || @.key == \"old_total\").value' WHERE connector_id = $1::text::uuid";
    client.execute(fix, &[&connector]).unwrap();
    let replay = "SELECT connector_service_replay($1::text::uuid)";
    assert_eq!(
        client
            .query_one(replay, &[&connector])
            .unwrap()
            .get::<_, i64>(0),
        15
    );
    assert_eq!(
        standing(&mut client),
        (
            reasons(&[("date_missing", 10), ("value_unreadable", 12)]),
            "14967.00".into(),
            9_978
        )
    );
    assert_eq!(client.query_one(alerts, &[]).unwrap().get::<_, i64>(0), 2);
    let verify = "SELECT count(*) FROM connector_service_verify()";
    assert_eq!(client.query_one(verify, &[]).unwrap().get::<_, i64>(0), 0);
}
