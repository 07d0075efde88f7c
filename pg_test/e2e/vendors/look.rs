//! Tests checks and previews: what they report, and that they store nothing.

use connector_service_test::*;
use serde_json::{Value, json};

use crate::square::{self, Square};
use crate::stage::*;
use crate::stripe::Stripe;

/// Rows of the tables that a look must leave as they are.
fn stored<F: Fake>(stage: &mut Stage<F>) -> Vec<i64> {
    let count = |table: &&str| {
        let sql = format!("SELECT count(*) FROM {table}");
        stage.client.query_one(&sql, &[]).unwrap().get(0)
    };
    [
        "raw_connector_data",
        "quarantine",
        "metric_facts",
        "metric_days_touched",
        "metrics",
        "data_quality_alerts",
        "sync_state",
    ]
    .iter()
    .map(count)
    .collect()
}

fn of<'a>(run: &'a Value, stream: &str) -> &'a Value {
    let streams = run["report"].as_array().unwrap();
    streams
        .iter()
        .find(|found| found["stream"] == stream)
        .unwrap()
}

#[test]
fn a_check_reads_one_page_of_each_stream_and_stores_nothing() {
    let mut stage = square::stage(Square::new());
    stage.changes(80, &mut Random(61));
    let run = stage.look("connector_service_check");
    assert_eq!(
        (&run["state"], &run["kind"]),
        (&json!("succeeded"), &json!("check")),
        "{run}"
    );
    assert_eq!(stored(&mut stage), [0; 7]);
    let streams: Vec<&str> = run["report"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["stream"].as_str().unwrap())
        .collect();
    assert_eq!(
        streams,
        [
            "locations",
            "payments",
            "refunds",
            "orders",
            "inventory_counts",
            "team_members",
            "timecards"
        ]
    );
    assert_eq!(
        of(&run, "locations")["summary"],
        "12 records on the first page"
    );
    // A location without payments is gone past.
    assert!(
        of(&run, "payments")["records"].as_i64().unwrap() > 0,
        "{run}"
    );

    // One permission is missing: the others are looked at all the same, and the words say what to do.
    let error =
        json!({"errors": [{"category": "AUTHENTICATION_ERROR", "code": "INSUFFICIENT_SCOPES"}]});
    stage
        .hosted()
        .faults
        .push_back((0, refusal(403, &[], error)));
    let run = stage.look("connector_service_check");
    assert_eq!(run["error_code"], "permission_missing", "{run}");
    assert_eq!(
        of(&run, "locations")["summary"],
        format!(
            "{}: HTTP 403 (the token may not read this stream). Give the credentials the permission to read the stream, or leave the stream out of config's \"streams\".",
            stage.vendor.host()
        )
    );
    assert_eq!(of(&run, "refunds")["ok"], true);
    let sql = "SELECT status, last_sync_at IS NULL, failures FROM connectors";
    let row = stage.client.query_one(sql, &[]).unwrap();
    assert_eq!(
        (
            row.get::<_, String>(0),
            row.get::<_, bool>(1),
            row.get::<_, i32>(2)
        ),
        ("active".into(), true, 0)
    );

    // Three streams in a row that are refused are not a matter of one stream: the others are not asked for.
    let asked = stage.vendor.asked().len();
    let sql = "UPDATE connectors SET credentials = credentials || '{\"access_token\": \"not_a_real_token_either\"}'";
    stage.client.batch_execute(sql).unwrap();
    let run = stage.look("connector_service_check");
    assert_eq!(run["error_code"], "credentials_rejected", "{run}");
    assert_eq!(stage.vendor.asked().len(), asked + 3);
    assert_eq!(stored(&mut stage), [0; 7]);
}

#[test]
fn a_preview_reports_the_metrics_of_one_page_and_stores_nothing() {
    let mut stage = Stage::new(Stripe::new());
    stage.changes(40, &mut Random(62));
    // One amount that is none: the mapping says so.
    for object in &mut stage.hosted().fake.objects {
        if object.body["id"] == "txn_000002" {
            object.body["amount"] = "a lot".into();
        }
    }
    stage.hosted().fake.page = 100;
    let run = stage.look("connector_service_preview");
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(stored(&mut stage), [0; 7]);
    let found = of(&run, "balance_transactions");
    let preview = &found["preview"];
    assert_eq!(preview["inserted"], found["records"], "{run}");
    assert_eq!(
        preview["unreadable"][0]["reason_code"], "value_unreadable",
        "{run}"
    );
    assert!(
        found["summary"]
            .as_str()
            .unwrap()
            .contains("not mapped, such as: the amount at $.amount"),
        "{run}"
    );

    // What the preview said is what a sync brings.
    let run = stage.sync();
    assert_eq!(run["unmapped"], 1, "{run}");
    let sql = "SELECT metric_type, category, sum(value)::text, count(*) FROM metric_facts GROUP BY 1, 2 ORDER BY 1, 2";
    let rows = stage.client.query(sql, &[]).unwrap();
    let brought: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!([
                row.get::<_, String>(0),
                row.get::<_, Option<String>>(1),
                row.get::<_, String>(2),
                row.get::<_, i64>(3)
            ])
        })
        .collect();
    let told: Vec<Value> = preview["facts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fact| {
            json!([
                fact["metric_type"],
                fact["category"],
                fact["total"].to_string(),
                fact["facts"]
            ])
        })
        .collect();
    let number = |facts: &[Value]| -> Vec<(String, f64)> {
        facts
            .iter()
            .map(|fact| {
                (
                    format!("{} {} {}", fact[0], fact[1], fact[3]),
                    fact[2].as_str().unwrap().parse().unwrap(),
                )
            })
            .collect()
    };
    assert_eq!(number(&told), number(&brought));
}

#[test]
fn psql_shows_what_a_check_found_and_the_catalog_says_what_each_type_needs() {
    let mut stage = square::stage(Square::new());
    stage.changes(60, &mut Random(63));
    let sql = format!(
        "CALL connector_service_wait(connector_service_check('{}'))",
        stage.connector
    );
    let shown = stage.cluster.script("app", &sql);
    for line in [
        "shop: stream \"locations\": 12 records on the first page",
        "shop: check succeeded in ",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    let rows = stage
        .client
        .query(
            "SELECT type, available, default_streams <@ streams AND cardinality(default_streams) > 0, credentials IS NOT NULL
             FROM connector_service_catalog() ORDER BY type",
            &[],
        )
        .unwrap();
    let vendors: Vec<String> = rows
        .iter()
        .filter(|row| row.get::<_, bool>(1) && row.get::<_, bool>(2) && row.get::<_, bool>(3))
        .map(|row| row.get(0))
        .collect();
    assert_eq!(
        vendors,
        [
            "erpnext",
            "quickbooks",
            "salesforce",
            "shopify",
            "square",
            "stripe"
        ]
    );
    assert_eq!(rows.len(), 12);
}

#[test]
fn an_unknown_connector_cannot_be_checked_or_previewed() {
    let stage = Stage::new(Stripe::new());
    let mut client = stage.client;
    for function in ["connector_service_check", "connector_service_preview"] {
        let failed = client
            .query(&format!("SELECT {function}(gen_random_uuid())"), &[])
            .unwrap_err();
        assert_eq!(failed.code().unwrap().code(), "42704", "{failed:?}");
    }
}
