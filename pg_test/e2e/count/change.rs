//! What changes a decision: a person, a connector that stops or goes, new evidence. And how long a comparison takes.

use std::time::Instant;

use connector_service_test::*;
use postgres::Client;

use crate::kinds::{Business, KINDS};
use crate::records::decimal;
use crate::{connector_id, insert, settled, sum, tenant_id, verified};

fn made(kind: &str, seed: u64) -> Business {
    let (kind, make) = KINDS
        .iter()
        .find(|(name, _)| *name == kind)
        .expect("a kind");
    Business {
        kind,
        ..make(&mut Random(seed))
    }
}

fn one(cluster: &Cluster, business: &Business) -> Client {
    let mut client = cluster.database("app");
    client
        .batch_execute("SET client_min_messages = error; BEGIN")
        .unwrap();
    insert(&mut client, 1, business);
    client.batch_execute("COMMIT").unwrap();
    settled(&mut client, 60);
    client
}

fn count(client: &mut Client, connector: usize, metric_type: &str, counts: &str) {
    let sql = format!(
        "SELECT connector_service_count('{}', '{metric_type}', {counts})",
        connector_id(1, connector)
    );
    client.batch_execute(&sql).unwrap();
}

/// The sum of all revenue that some connectors have.
fn facts(client: &mut Client, connectors: &[usize]) -> String {
    let connectors: Vec<String> = connectors.iter().map(|at| connector_id(1, *at)).collect();
    let sql = "SELECT sum(value)::numeric(20,2)::text FROM metric_facts WHERE metric_type = 'revenue' AND connector_id::text = ANY ($1)";
    client.query_one(sql, &[&connectors]).unwrap().get(0)
}

fn open_alerts(client: &mut Client) -> Vec<String> {
    let sql = "SELECT severity || ' ' || alert_key FROM data_quality_alerts WHERE alert_type = 'double_count' AND NOT resolved ORDER BY 1";
    client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

fn code(client: &mut Client, sql: &str) -> String {
    let error = client.batch_execute(sql).unwrap_err();
    error
        .code()
        .expect("an error of the server")
        .code()
        .to_owned()
}

#[test]
fn a_person_has_the_last_word() {
    let cluster = Cluster::start("");
    let business = made("the same sales", 5);
    let mut client = one(&cluster, &business);
    let once = decimal(business.revenue);
    let (twice, paid) = (facts(&mut client, &[0, 1]), facts(&mut client, &[1]));
    let said = format!("info double:revenue:all:{}:same", connector_id(1, 1));
    assert_eq!(sum(&mut client, 1, "revenue"), once);
    assert_eq!(open_alerts(&mut client), std::slice::from_ref(&said));
    let sql = "SELECT message FROM data_quality_alerts WHERE alert_type = 'double_count'";
    let message: String = client.query_one(sql, &[]).unwrap().get(0);
    assert!(
        message.contains(&format!("was {twice} and is {once} EUR")),
        "the alert explains the jump: {message}"
    );
    // Both count, at once, and the question is closed.
    count(&mut client, 1, "revenue", "true");
    assert_eq!(sum(&mut client, 1, "revenue"), twice);
    assert!(open_alerts(&mut client).is_empty());
    settled(&mut client, 60);
    assert_eq!(sum(&mut client, 1, "revenue"), twice);
    verified(&mut client);
    // The shop does not: then the payments do, without a day between.
    count(&mut client, 1, "revenue", "NULL");
    settled(&mut client, 60);
    assert_eq!(sum(&mut client, 1, "revenue"), once);
    assert_eq!(open_alerts(&mut client), std::slice::from_ref(&said));
    count(&mut client, 0, "revenue", "false");
    assert_eq!(sum(&mut client, 1, "revenue"), paid);
    settled(&mut client, 60);
    assert_eq!(sum(&mut client, 1, "revenue"), paid);
    let sql = "SELECT count(*) FROM metrics WHERE metric_type = 'revenue' AND data #>> ARRAY['sources', $1, 'counted'] = 'false'
               AND NOT data #> ARRAY['sources', $2] ? 'counted'";
    let days: i64 = client
        .query_one(sql, &[&connector_id(1, 0), &connector_id(1, 1)])
        .unwrap()
        .get(0);
    assert!(days > 20, "the shop is named, and not counted: {days} days");
    verified(&mut client);
    // Given back.
    count(&mut client, 0, "revenue", "NULL");
    settled(&mut client, 60);
    assert_eq!(sum(&mut client, 1, "revenue"), once);
    assert_eq!(open_alerts(&mut client), [said]);
    verified(&mut client);
    let shop = connector_id(1, 0);
    assert_eq!(
        code(
            &mut client,
            &format!("SELECT connector_service_count('{shop}', 'profit', true)")
        ),
        "22023"
    );
    assert_eq!(
        code(
            &mut client,
            &format!("SELECT connector_service_count('{shop}', NULL, true)")
        ),
        "22004"
    );
    assert_eq!(
        code(
            &mut client,
            "SELECT connector_service_count(gen_random_uuid(), 'revenue', true)"
        ),
        "42704"
    );
}

/// Hours and stock are not compared: to give the decision back is to count them.
#[test]
fn what_is_not_compared_counts_again_when_it_is_given_back() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let (tenant, shop) = (tenant_id(1), connector_id(1, 0));
    let sql = format!(
        "INSERT INTO tenants (tenant_id, currency) VALUES ('{tenant}', 'EUR');
         INSERT INTO connectors (connector_id, tenant_id, name, type) VALUES ('{shop}', '{tenant}', 'shop', 'webhook');
         INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path)
         SELECT '{shop}', 'events', kind, '$.value', '$.day' FROM unnest('{{staffing,inventory}}'::text[]) AS kind;
         INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
         VALUES ('{tenant}', '{shop}', 'webhook', 'events', 'events/1', jsonb_build_object('value', 8, 'day', '2025-07-01'));
         SELECT connector_service_process()"
    );
    client.batch_execute(&sql).unwrap();
    for metric_type in ["staffing", "inventory"] {
        for (word, total) in [("true", "8.00"), ("false", "0.00"), ("NULL", "8.00")] {
            count(&mut client, 0, metric_type, word);
            assert_eq!(sum(&mut client, 1, metric_type), total, "{word}");
        }
    }
    verified(&mut client);
}

/// A tenant decides for its own connectors, and sees its own decisions.
#[test]
fn a_tenant_decides_for_itself_alone() {
    let cluster = Cluster::start("");
    let mut client = one(&cluster, &made("the same sales", 6));
    insert(&mut client, 2, &made("the same sales", 7));
    settled(&mut client, 60);
    let sql = format!(
        "CREATE ROLE one LOGIN IN ROLE connector_service_tenant; INSERT INTO tenant_roles VALUES ('one', '{}')",
        tenant_id(1)
    );
    client.batch_execute(&sql).unwrap();
    let mut own = cluster.client_as("one", "app");
    let seen: i64 = own
        .query_one("SELECT count(*) FROM count_decisions", &[])
        .unwrap()
        .get(0);
    assert_eq!(seen, 1);
    let other = format!(
        "SELECT connector_service_count('{}', 'revenue', true)",
        connector_id(2, 1)
    );
    assert_eq!(code(&mut own, &other), "42704");
    assert_eq!(code(&mut own, "DELETE FROM count_decisions"), "42501");
    count(&mut own, 1, "revenue", "true");
    let sql = "SELECT tenant_id::text, decided_by FROM count_decisions ORDER BY 1";
    let rows = client.query(sql, &[]).unwrap();
    let rows: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(
        rows,
        [
            (tenant_id(1), "person".to_owned()),
            (tenant_id(2), "worker".to_owned())
        ]
    );
}

#[test]
fn what_the_shop_no_longer_has_is_counted_by_the_payments() {
    let cluster = Cluster::start("");
    let business = made("the same sales", 8);
    let mut client = one(&cluster, &business);
    let once = decimal(business.revenue);
    assert_eq!(sum(&mut client, 1, "revenue"), once);
    // Paused: what comes later is counted by who has it.
    let (shop, stripe, tenant) = (connector_id(1, 0), connector_id(1, 1), tenant_id(1));
    client
        .batch_execute(&format!(
            "UPDATE connectors SET status = 'paused' WHERE connector_id = '{shop}'"
        ))
        .unwrap();
    settled(&mut client, 60);
    assert_eq!(sum(&mut client, 1, "revenue"), once);
    let later = format!(
        "UPDATE raw_connector_data SET data = jsonb_set(data, '{{created}}', to_jsonb((data ->> 'created')::bigint - 20 * 86400)) WHERE connector_id = '{stripe}';
         UPDATE raw_connector_data SET data = jsonb_set(data, '{{processedAt}}', to_jsonb(((data ->> 'processedAt')::timestamptz - interval '20 days')::text)) WHERE connector_id = '{shop}';
         INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
         SELECT '{tenant}', '{stripe}', 'stripe', 'balance_transactions', 'balance_transactions/later' || n,
             jsonb_build_object('amount', 1000 + n, 'fee', 0, 'created', extract(epoch FROM now() - n * interval '1 day')::bigint, 'currency', 'eur', 'reporting_category', 'charge')
         FROM generate_series(1, 10) n"
    );
    client.batch_execute("BEGIN").unwrap();
    client.batch_execute(&later).unwrap();
    client.batch_execute("COMMIT").unwrap();
    settled(&mut client, 120);
    assert_eq!(
        sum(&mut client, 1, "revenue"),
        decimal(business.revenue + 10 * 1000 + 55)
    );
    let sql = "SELECT message FROM data_quality_alerts WHERE alert_type = 'double_count' AND NOT resolved AND metric_type = 'revenue'";
    let message: String = client.query_one(sql, &[]).unwrap().get(0);
    assert!(message.contains("has nothing new since then"), "{message}");
    verified(&mut client);
    // Gone: all of them.
    client.batch_execute(&format!("DELETE FROM raw_connector_data WHERE connector_id = '{shop}'; DELETE FROM connectors WHERE connector_id = '{shop}'")).unwrap();
    settled(&mut client, 120);
    assert_eq!(sum(&mut client, 1, "revenue"), facts(&mut client, &[1]));
    assert!(open_alerts(&mut client).is_empty());
    let left: i64 = client
        .query_one("SELECT count(*) FROM count_decisions", &[])
        .unwrap()
        .get(0);
    assert_eq!(left, 0);
    verified(&mut client);
}

/// A decision does not look like a sudden fall of revenue, and a source that is left out is not missed.
#[test]
fn a_decision_opens_no_other_alert() {
    let cluster = Cluster::start("");
    let mut business = made("the same sales", 9);
    // A year of sales, so that a usual weekday is known.
    business.records.clear();
    let mut client = one(&cluster, &business);
    let (shop, stripe, tenant) = (connector_id(1, 0), connector_id(1, 1), tenant_id(1));
    let sql = format!(
        "INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
         SELECT '{tenant}', '{shop}', 'shopify', 'orders', 'orders/' || n, jsonb_build_object('totalPriceSet', jsonb_build_object('shopMoney',
             jsonb_build_object('amount', ((5000 + n * 7919 % 5000) / 100.0)::text, 'currencyCode', 'EUR')), 'processedAt', (date_trunc('day', now()) - n * interval '6 hours')::text)
         FROM generate_series(1, 1460) n;
         INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
         SELECT '{tenant}', '{stripe}', 'stripe', 'balance_transactions', 'balance_transactions/' || n,
             jsonb_build_object('amount', 5000 + n * 7919 % 5000, 'fee', 0, 'created', extract(epoch FROM date_trunc('day', now()) - n * interval '6 hours')::bigint, 'currency', 'eur', 'reporting_category', 'charge')
         FROM generate_series(1, 1460) n"
    );
    client.batch_execute(&sql).unwrap();
    settled(&mut client, 120);
    let check = "SELECT connector_service_check_quality()";
    client.batch_execute(check).unwrap();
    let sql = "SELECT alert_type || ' ' || message FROM data_quality_alerts WHERE NOT resolved AND alert_type <> 'double_count' AND alert_type <> 'freshness'";
    let others = |client: &mut Client| -> Vec<String> {
        client
            .query(sql, &[])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect()
    };
    assert_eq!(others(&mut client), Vec::<String>::new());
    for counts in ["true", "NULL"] {
        count(&mut client, 1, "revenue", counts);
        settled(&mut client, 120);
        client.batch_execute(check).unwrap();
        assert_eq!(others(&mut client), Vec::<String>::new(), "after {counts}");
    }
    let sql = "SELECT string_agg(DISTINCT c.name, ' ') FROM metric_sources s JOIN connectors c USING (connector_id) WHERE metric_type = 'revenue'";
    let sources: String = client.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(sources, "shop");
    // The monthly view follows.
    let sql = "SELECT (SELECT sum(total_revenue) FROM monthly_revenue)::text, (SELECT sum(metric_value) FROM metrics WHERE metric_type = 'revenue')::text";
    wait_until(90, "the monthly view has what metrics has", || {
        let row = client.query_one(sql, &[]).unwrap();
        (row.get::<_, Option<String>>(0) == row.get::<_, Option<String>>(1)).then_some(())
    });
}

#[test]
fn a_hundred_thousand_records_on_both_sides_are_compared_in_seconds() {
    let cluster = Cluster::start("client_min_messages = error");
    let mut business = made("the same sales", 10);
    business.records.clear();
    let mut client = one(&cluster, &business);
    let (shop, stripe, tenant) = (connector_id(1, 0), connector_id(1, 1), tenant_id(1));
    let sql = format!(
        "INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
         SELECT '{tenant}', '{shop}', 'shopify', 'orders', 'orders/' || n, jsonb_build_object('totalPriceSet', jsonb_build_object('shopMoney',
             jsonb_build_object('amount', ((100 + n * 7919 % 30000) / 100.0)::text, 'currencyCode', 'EUR')), 'processedAt', (now() - n * interval '75 seconds')::text)
         FROM generate_series(1000, 101000) n;
         INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
         SELECT '{tenant}', '{stripe}', 'stripe', 'balance_transactions', 'balance_transactions/' || n,
             jsonb_build_object('amount', 100 + n * 7919 % 30000, 'fee', 30, 'created', extract(epoch FROM now() - n * interval '75 seconds')::bigint, 'currency', 'eur', 'reporting_category', 'charge')
         FROM generate_series(1000, 101000) n"
    );
    client.batch_execute(&sql).unwrap();
    settled(&mut client, 300);
    let before = sum(&mut client, 1, "revenue");
    let ask = format!(
        "INSERT INTO count_due (tenant_id, metric_type, is_urgent) VALUES ('{tenant}', 'revenue', true); SELECT _connector_service.connector_service_wake()"
    );
    let started = Instant::now();
    client.batch_execute(&ask).unwrap();
    settled(&mut client, 60);
    println!(
        "compared 100,000 records with 100,000 after {:.1?}",
        started.elapsed()
    );
    assert!(
        started.elapsed().as_secs() < 15,
        "{:.1?}",
        started.elapsed()
    );
    assert_eq!(sum(&mut client, 1, "revenue"), before);
    let started = Instant::now();
    count(&mut client, 1, "revenue", "true");
    println!("a person's word after {:.1?}", started.elapsed());
    let sql =
        "SELECT evidence ->> 'amounts', verdict FROM count_decisions WHERE metric_type = 'revenue'";
    let row = client.query_one(sql, &[]).unwrap();
    println!("{:?} records", row.get::<_, Option<String>>(0));
}
