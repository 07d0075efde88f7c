//! Walks through the first hour as a small business does: PostgreSQL with pg_cron and no job, two vendors, a bank's file and a
//! till that pushes, from CREATE EXTENSION to the chart, typed as the documentation has it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use connector_service_test::http::ask;
use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

/// Most statements from CREATE EXTENSION to the chart.
const MOST_STATEMENTS: usize = 40;

/// How soon after its COMMIT a connector has its first rows.
const FIRST_ROWS: Duration = Duration::from_secs(5);

/// A person at psql.
struct Person {
    client: Client,
    typed: usize,
}

impl Person {
    fn types(&mut self, sql: &str) {
        self.typed += 1;
        self.client
            .batch_execute(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    fn reads(&mut self, sql: &str) -> String {
        self.typed += 1;
        let row = self.client.query_one(sql, &[]);
        row.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
            .get(0)
    }

    /// Types a statement, and looks when the records of a connector come.
    fn gets_rows(&mut self, connector: &str, sql: &str) {
        self.types(sql);
        self.sees_rows(connector);
    }

    fn sees_rows(&mut self, connector: &str) {
        let since = Instant::now();
        let count = format!(
            "SELECT count(*) FROM raw_connector_data r JOIN connectors c USING (connector_id) WHERE c.name = '{connector}'"
        );
        while self.client.query_one(&count, &[]).unwrap().get::<_, i64>(0) == 0 {
            assert!(since.elapsed() < FIRST_ROWS, "{connector} has no rows");
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!(
            "{connector}: first rows after {} ms",
            since.elapsed().as_millis()
        );
    }
}

/// What was sold: when, and for how many cents.
fn sales() -> Vec<(DateTime<Utc>, i64)> {
    let noon = Utc::now()
        .date_naive()
        .and_hms_opt(12, 0, 0)
        .unwrap()
        .and_utc();
    (0..24)
        .map(|i| {
            (
                noon - TimeDelta::days(1 + i % 8) + TimeDelta::minutes(i),
                1_000 + 37 * i,
            )
        })
        .collect()
}

fn money(cents: i64) -> Value {
    json!({"shopMoney": {"amount": format!("{}.{:02}", cents / 100, cents % 100), "currencyCode": "USD"}})
}

/// A shop that shows its orders, whatever else is asked for.
fn shopify() -> Vendor {
    Vendor::start(|asked| {
        let body: Value = serde_json::from_str(&asked.body).unwrap_or_default();
        let is_orders = body["query"]
            .as_str()
            .is_some_and(|query| query.contains("orders(first"));
        let order = |(i, (at, cents)): (usize, (DateTime<Utc>, i64))| {
            let at = at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
            json!({"id": format!("gid://shopify/Order/{}", i + 1), "legacyResourceId": (i + 1).to_string(), "name": format!("#{}", i + 1),
                "createdAt": at, "updatedAt": at, "processedAt": at, "cancelledAt": null, "test": false, "displayFinancialStatus": "PAID",
                "currencyCode": "USD", "sourceName": "web", "totalPriceSet": money(cents)})
        };
        let nodes: Vec<Value> = match is_orders {
            true => sales().into_iter().enumerate().map(order).collect(),
            false => vec![],
        };
        let page = json!({"nodes": nodes, "pageInfo": {"hasNextPage": false, "endCursor": null}});
        let root = if is_orders { "orders" } else { "events" };
        let cost = json!({"requestedQueryCost": 52, "actualQueryCost": 12,
            "throttleStatus": {"maximumAvailable": 2000, "currentlyAvailable": 1988, "restoreRate": 100}});
        Reply::Full {
            status: 200,
            headers: vec![
                ("Content-Type", "application/json".into()),
                ("X-Shopify-API-Version", "2026-10".into()),
            ],
            body: json!({"data": {root: page}, "extensions": {"cost": cost}})
                .to_string()
                .into(),
        }
    })
}

/// The account that the shop's customers pay into: each order is a charge, a few minutes later.
fn stripe() -> Vendor {
    Vendor::start(|asked| {
        let entry = |(i, (at, cents)): (usize, (DateTime<Utc>, i64))| {
            let at = at.timestamp() + 180;
            json!({"id": format!("txn_{i}"), "object": "balance_transaction", "amount": cents, "fee": 0, "net": cents, "currency": "usd",
                "created": at, "available_on": at, "description": null, "exchange_rate": null, "fee_details": [], "status": "available",
                "type": "charge", "reporting_category": "charge",
                "source": {"id": format!("ch_{i}"), "object": "charge", "livemode": true, "payment_method_details": {"type": "card"}}})
        };
        let data: Vec<Value> = match asked.path.as_str() {
            "/v1/balance_transactions" => {
                sales().into_iter().enumerate().map(entry).rev().collect()
            }
            _ => vec![],
        };
        Reply::Json(
            json!({"object": "list", "url": asked.path, "has_more": false, "data": data})
                .to_string(),
        )
    })
}

#[test]
fn from_create_extension_to_the_chart_in_forty_statements() {
    let port = free_port();
    let cluster = Cluster::create();
    cluster.configure(
        "shared_preload_libraries = 'connector_service, pg_cron'\ncron.database_name = 'shop'",
    );
    cluster.run();
    cluster
        .client("postgres")
        .batch_execute("CREATE DATABASE shop")
        .unwrap();
    let mut person = Person {
        client: cluster.client("shop"),
        typed: 0,
    };
    let (shopify, stripe) = (shopify(), stripe());
    person.types("CREATE EXTENSION pg_cron");

    person.types("CREATE EXTENSION connector_service");
    person.types(
        "INSERT INTO tenants (name, timezone, currency) VALUES ('Corner shop', 'UTC', 'USD')",
    );
    person.gets_rows(
        "shop",
        &format!(
            "INSERT INTO connectors (name, type, credentials, config) VALUES ('shop', 'shopify',
                '{{\"shop\": \"corner-shop\", \"access_token\": \"shpat_not_a_real_token\"}}', '{{\"streams\": [\"orders\"], \"base_url\": \"{}\"}}')",
            shopify.url()
        ),
    );
    person.gets_rows(
        "payments",
        &format!(
            "INSERT INTO connectors (name, type, credentials, config) VALUES ('payments', 'stripe',
                '{{\"api_key\": \"rk_test_not_a_real_key\"}}', '{{\"streams\": [\"balance_transactions\"], \"base_url\": \"{}\"}}')",
            stripe.url()
        ),
    );

    // The bank's file: what the shop pays for.
    let yesterday = (Utc::now() - TimeDelta::days(1))
        .format("%Y-%m-%d")
        .to_string();
    person.types("INSERT INTO connectors (name, type) VALUES ('bank', 'csv')");
    person.types(
        "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, category_path)
         SELECT connector_id, 'rows', 'costs', '$.Amount', '$.Day', '$.\"For\"' FROM connectors WHERE name = 'bank'",
    );
    person.gets_rows(
        "bank",
        &format!(
            "SELECT connector_service_upload('bank', 'june.csv', convert_to(E'Booking,Day,For,Amount\\n1,{yesterday},rent,500.00\\n2,{yesterday},post,20.50\\n', 'UTF8'))"
        ),
    );

    // The till pushes what it sells.
    person.types(&format!(
        "ALTER SYSTEM SET connector_service.gateway_listen = '127.0.0.1:{port}'"
    ));
    person.types("SELECT pg_reload_conf()");
    let till = person.reads(&format!(
        "INSERT INTO connectors (name, type, credentials, config) VALUES ('till', 'webhook', '{{\"secret\": \"{SECRET}\"}}', '{{\"stream\": \"sales\", \"key\": \"id\"}}') RETURNING connector_id::text"
    ));
    person.types(
        "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path)
         SELECT connector_id, 'sales', 'revenue', '$.total', '$.day' FROM connectors WHERE name = 'till'",
    );
    let event = format!("{{\"id\": 1, \"total\": 12.30, \"day\": \"{yesterday}\"}}");
    wait_until(20, "the gateway takes the event", || {
        push(port, &till, &event).filter(|answered| answered.status == 200)
    });
    person.sees_rows("till");

    // What is wrong? Nothing.
    let wrong = "SELECT coalesce(string_agg(item || ': ' || detail, '; '), 'nothing') FROM connector_service_doctor() WHERE NOT ok";
    assert_eq!(person.reads(wrong), "nothing");
    let health =
        "SELECT string_agg(name || ' ' || health, ', ' ORDER BY name) FROM connector_health";
    wait_until(5, "every connector is well", || {
        (person.reads(health) == "bank ok, payments ok, shop ok, till ok").then_some(())
    });

    // The chart: by SQL, and by the gateway for the page.
    let sold: i64 = sales().iter().map(|(_, cents)| cents).sum();
    let cents = |total: i64| format!("{}.{:02}", total / 100, total % 100);
    let total = cents(sold + 1_230);
    let revenue = "SELECT sum((m ->> 'metric_value')::numeric)::numeric(20,2)::text FROM jsonb_array_elements(
        get_metrics(connector_service_default_tenant(), 'revenue', current_date - 30, current_date) -> 'metrics') AS m";
    let before = person.typed;
    wait_until(20, "the days are summed", || {
        person.typed = before;
        (person.reads(revenue) == total).then_some(())
    });
    let costs = "SELECT metric_value::text FROM metrics WHERE metric_type = 'costs'";
    assert_eq!(person.reads(costs), "520.50");
    // One sale, one count, and an alert that says so with the statement that changes it.
    let alerts = person.reads(
        "SELECT string_agg(severity || ': ' || message, E'\\n' ORDER BY message) FROM data_quality_alerts WHERE alert_type = 'double_count' AND NOT resolved",
    );
    eprintln!("{alerts}");
    assert!(
        alerts.contains("info: ") && alerts.contains("connector_service_count("),
        "{alerts}"
    );
    let tenant = person.reads("SELECT connector_service_default_tenant()::text");
    let token = person
        .reads("SELECT connector_service_create_token('me', connector_service_default_tenant())");
    let bearer = format!("Bearer {token}");
    let (from, to) = (Utc::now() - TimeDelta::days(30), Utc::now());
    let path = format!(
        "/metrics/{tenant}?metric_type=revenue&start_date={}&end_date={}",
        from.format("%Y-%m-%d"),
        to.format("%Y-%m-%d")
    );
    let answered = ask(port, "GET", &path, &[("Authorization", &bearer)], b"");
    assert_eq!(answered.status, 200, "{answered:?}");
    assert_eq!(answered.json()["count"], 8, "one bar for each day");
    let overview = ask(
        port,
        "GET",
        &format!("/tenants/{tenant}/overview"),
        &[("Authorization", &bearer)],
        b"",
    );
    assert_eq!(overview.status, 200, "{overview:?}");

    // Nobody made a job, and nothing ran twice.
    assert_eq!(person.reads("SELECT count(*)::text FROM cron.job"), "0");
    let runs = "SELECT string_agg(c.name || ' ' || r.kind || ' ' || r.state, ', ' ORDER BY c.name) FROM sync_runs r JOIN connectors c USING (connector_id)";
    assert_eq!(
        person.reads(runs),
        "bank upload succeeded, payments sync succeeded, shop sync succeeded, till webhook succeeded"
    );
    eprintln!("{} statements", person.typed);
    assert!(
        person.typed <= MOST_STATEMENTS,
        "{} statements",
        person.typed
    );
}
