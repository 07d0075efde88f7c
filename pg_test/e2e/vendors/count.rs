//! A sale that several vendors show counts once.

use chrono::{DateTime, TimeDelta, Utc};
use connector_service_test::*;
use serde_json::Value;

use crate::shopify::Shopify;
use crate::stage::*;
use crate::stripe::Stripe;

const REVENUE: &str = "SELECT coalesce(sum(metric_value), 0)::numeric(20,2)::text FROM metrics WHERE metric_type = 'revenue'";

#[test]
fn a_sale_that_shopify_and_stripe_show_counts_once() {
    let mut random = Random(4);
    let (mut shop, mut payments) = (Shopify::new(), Stripe::new());
    let mut total = 0;
    for hours in 0..180 {
        let at = Utc::now() - TimeDelta::hours(200 - hours);
        let at = DateTime::from_timestamp(at.timestamp(), 0).unwrap();
        let cents = 500 + random.below(9_000) as i64;
        total += cents;
        shop.sell(at, cents);
        payments.charge(&mut random, at + TimeDelta::seconds(40), cents);
    }
    let mut stage = Stage::new(shop);
    let (_hosted, _vendor, stripe) = stage.beside("payments", payments);
    stage.sync();
    let run = sync(&mut stage.client, &stripe);
    let run: Value = wait_for_run(&mut stage.client, &run);
    assert_eq!(run["state"], "succeeded", "{run}");
    let once = format!("{}.{:02}", total / 100, total % 100);
    let told = wait_until(20, "the payments were compared with the orders", || {
        let sql = "SELECT severity, message, connector_id::text FROM data_quality_alerts
                   WHERE alert_type = 'double_count' AND metric_type = 'revenue' AND NOT resolved";
        stage.client.query_opt(sql, &[]).unwrap()
    });
    let (severity, message): (String, String) = (told.get(0), told.get(1));
    assert_eq!(
        (severity.as_str(), told.get(2)),
        ("info", stripe.clone()),
        "{message}"
    );
    let undo = format!("SELECT public.connector_service_count('{stripe}', 'revenue', true)");
    assert!(message.ends_with(&undo), "{message}");
    let revenue = |stage: &mut Stage<Shopify>| -> String {
        stage.client.query_one(REVENUE, &[]).unwrap().get(0)
    };
    assert_eq!(revenue(&mut stage), once, "{message}");
    let sql = "SELECT bool_and(data #>> ARRAY['sources', $1, 'counted'] = 'false'), count(*) FROM metrics WHERE metric_type = 'revenue'";
    let row = stage.client.query_one(sql, &[&stripe]).unwrap();
    assert_eq!(row.get::<_, Option<bool>>(0), Some(true));
    // The fees are in no shop.
    let sql = "SELECT count(*) FROM metrics WHERE metric_type = 'costs' AND metric_value > 0";
    let fees: i64 = stage.client.query_one(sql, &[]).unwrap().get(0);
    assert!(fees > 5);
    // As the alert says.
    stage.client.batch_execute(&undo).unwrap();
    let twice = format!("{}.{:02}", 2 * total / 100, 2 * total % 100);
    assert_eq!(revenue(&mut stage), twice);
    let sql = "SELECT count(*) FROM connector_service_verify()";
    let wrong: i64 = stage.client.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(wrong, 0);
}
