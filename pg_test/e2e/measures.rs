//! Tests metrics beyond the four types, and what follows when something that numbers are made of changes: a time zone, a
//! currency, a rate, a whole table. Whatever changed, `connector_service_verify()` finds nothing, and the monthly aggregate
//! follows within the minute.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use connector_service_test::*;
use postgres::Client;

const TENANT: &str = "00000000-0000-4000-8000-000000000001";
const SHOP: &str = "00000000-0000-4001-8000-000000000001";

/// A tenant with a paused connector, whose records are written by hand.
fn shop(client: &mut Client, timezone: &str) {
    client
        .batch_execute(&format!(
            "INSERT INTO tenants (tenant_id, timezone) VALUES ('{TENANT}', '{timezone}');
             INSERT INTO connectors (connector_id, tenant_id, name, type, status) VALUES ('{SHOP}', '{TENANT}', 'shop', 'webhook', 'paused')"
        ))
        .unwrap();
}

/// Five measures, one for each way to add up and one of money, and the records of three days.
fn with_measures(client: &mut Client) {
    client
        .batch_execute(&format!(
            "INSERT INTO measures (tenant_id, name, unit, aggregation) VALUES
                ('{TENANT}', 'orders', 'orders', 'sum'), ('{TENANT}', 'stock', 'pieces', 'last'),
                ('{TENANT}', 'basket', 'money', 'average'), ('{TENANT}', 'customers', 'customers', 'distinct count');
             INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, category_path, currency_path)
             SELECT '{SHOP}', 'orders', m.name, m.path, '$.at', '$.ch', '$.cur'
             FROM (VALUES ('orders', '1'), ('stock', '$.left'), ('basket', '$.total'), ('customers', '$.who'), ('revenue', '$.total')) AS m(name, path);
             INSERT INTO fx_rates VALUES ('EUR', 'USD', '2025-07-01', 2);
             INSERT INTO raw_connector_data (raw_id, tenant_id, connector_id, source_type, stream, source_record_id, data)
             SELECT lpad(r.id::text, 32, '0')::uuid, '{TENANT}', '{SHOP}', 'webhook', 'orders', 'orders/' || r.id, jsonb_build_object('at', r.at, 'ch', r.ch, 'cur', r.cur, 'total', r.total, 'left', r.stock, 'who', r.who)
             FROM (VALUES
                (1, '2025-07-01T10:00:00Z', 'web', 'USD', 10, 5, 'ann'), (2, '2025-07-01T09:00:00Z', 'till', 'EUR', 10, 7, 'ann'),
                (3, '2025-07-01T10:00:00.001Z', 'web', 'USD', 5, 8, 'bob'), (4, '2025-07-02T08:00:00Z', 'web', 'USD', 1, 9, 'ann'),
                (5, '2025-08-01', 'web', 'GBP', 4, 1, 'eve'), (6, '2025-08-01', 'web', 'USD', 4, 2, 'eve'),
                (7, '2098-01-01', 'web', 'USD', 4, 2, 'eve')) AS r(id, at, ch, cur, total, stock, who);
             SELECT connector_service_process()"
        ))
        .unwrap();
}

/// All numbers, by type and day.
fn values(client: &mut Client) -> BTreeMap<String, String> {
    let sql = "SELECT metric_type || ' ' || metric_date, metric_value::text FROM all_metrics";
    let rows = client.query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn text(client: &mut Client, sql: &str) -> String {
    let value: Option<String> = client.query_one(sql, &[]).expect(sql).get(0);
    value.unwrap_or_default()
}

fn is_right(client: &mut Client, after: &str) {
    let sql = "SELECT v::text FROM connector_service_verify() v";
    let rows: Vec<String> = client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(rows.is_empty(), "after {after}: {rows:#?}");
}

#[test]
fn a_day_and_a_period_of_a_measure_are_what_its_aggregation_says() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    shop(&mut client, "UTC");
    with_measures(&mut client);
    let expected = [
        ("basket 2025-07-01", "11.6666666667"),
        ("basket 2025-07-02", "1"),
        ("basket 2025-08-01", "4"),
        ("customers 2025-07-01", "2"),
        ("customers 2025-07-02", "1"),
        ("customers 2025-08-01", "1"),
        ("orders 2025-07-01", "3"),
        ("orders 2025-07-02", "1"),
        ("orders 2025-08-01", "2"),
        ("revenue 2025-07-01", "35"),
        ("revenue 2025-07-02", "1"),
        ("revenue 2025-08-01", "4"),
        // A thousandth of a second decides; of two records of one time the later one.
        ("stock 2025-07-01", "8"),
        ("stock 2025-07-02", "9"),
        ("stock 2025-08-01", "2"),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(values(&mut client), BTreeMap::from(expected));
    is_right(&mut client, "the first records");

    let period = |client: &mut Client, bucket: &str| {
        let sql = format!(
            "SELECT string_agg(concat_ws(' ', metric_type, period_start, total, trim_scale(average)), ', ' ORDER BY metric_type, period_start)
             FROM aggregate_metrics('{TENANT}', NULL, '2025-07-01', '2025-12-31', '{bucket}') WHERE metric_type <> 'revenue'"
        );
        text(client, &sql)
    };
    // 36 in four records, and of three customers one came in both months.
    assert_eq!(
        period(&mut client, "year"),
        "basket 2025-01-01 8 8, customers 2025-01-01 3 1.3333333333333333, \
         orders 2025-01-01 6 2, stock 2025-01-01 2 6.3333333333333333"
    );
    assert_eq!(
        period(&mut client, "month"),
        "basket 2025-07-01 9 9, basket 2025-08-01 4 4, customers 2025-07-01 2 1.5, customers 2025-08-01 1 1, \
         orders 2025-07-01 4 2, orders 2025-08-01 2 2, stock 2025-07-01 9 8.5, stock 2025-08-01 2 2"
    );
    let sql = "SELECT count(*)::text FROM (
            SELECT tenant_id, metric_type, month, total, average, days_with_data FROM monthly_metrics
            EXCEPT SELECT $1::text::uuid, metric_type, period_start, total, average, days_with_data
            FROM aggregate_metrics($1::text::uuid, NULL, '2025-01-01', '2025-12-31', 'month')) AS d";
    let different: String = client.query_one(sql, &[&TENANT]).unwrap().get(0);
    assert_eq!(different, "0", "monthly_metrics says the same");

    // The records behind each number come to it.
    let sql = "SELECT string_agg(concat_ws(' ', v.metric_type, v.metric_date, v.metric_value, e.counted), ', ')
        FROM measure_values v JOIN measures m ON m.name = v.metric_type
            CROSS JOIN LATERAL (SELECT CASE m.aggregation WHEN 'average' THEN trim_scale(round(avg(x.counted), 10)) ELSE sum(x.counted) END AS counted
                FROM connector_service_explain(v.metric_id) x) AS e
        WHERE v.metric_value <> e.counted";
    assert_eq!(text(&mut client, sql), "");

    // A person may say that a connector does not count, and take it back.
    let before = values(&mut client);
    for name in ["orders", "basket", "stock", "customers"] {
        client
            .batch_execute(&format!(
                "SELECT connector_service_count('{SHOP}', '{name}', false)"
            ))
            .unwrap();
    }
    is_right(&mut client, "a decision");
    assert_eq!(values(&mut client).len(), 3, "revenue is left");
    assert_eq!(period(&mut client, "year"), "");
    client
        .batch_execute(&format!(
            "SELECT connector_service_count('{SHOP}', name, NULL) FROM measures"
        ))
        .unwrap();
    is_right(&mut client, "the end of a decision");
    assert_eq!(values(&mut client), before);

    // A day that a person enters is the person's, and counts once in an average.
    client
        .batch_execute(&format!(
            "INSERT INTO measure_values (tenant_id, metric_type, metric_value, metric_date)
             VALUES ('{TENANT}', 'basket', 29, '2025-07-02'), ('{TENANT}', 'customers', 10, '2025-07-03')
             ON CONFLICT (tenant_id, metric_type, metric_date) DO UPDATE SET metric_value = excluded.metric_value"
        ))
        .unwrap();
    let year = period(&mut client, "month");
    assert!(year.contains("basket 2025-07-01 16 16,"), "{year}");
    assert!(year.contains("customers 2025-07-01 12 "), "{year}");
    is_right(&mut client, "entries by hand");
}

#[test]
fn a_measure_is_renamed_and_changed_with_all_that_names_it() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    shop(&mut client, "UTC");
    with_measures(&mut client);
    client
        .batch_execute(&format!(
            "INSERT INTO quality_rules (tenant_id, metric_type, max_value) VALUES ('{TENANT}', 'orders', 2);
             SELECT connector_service_reprocess('{SHOP}');
             UPDATE raw_connector_data SET data = data || '{{\"at\": \"2025-07-02\"}}' WHERE source_record_id IN ('orders/2', 'orders/5');
             SELECT connector_service_process()"
        ))
        .unwrap();
    let alerts = "SELECT string_agg(message || CASE WHEN measure_value_id IS NULL THEN ' of nothing' ELSE '' END, '; ')
        FROM data_quality_alerts WHERE alert_type = 'outlier' AND NOT resolved";
    assert_eq!(
        text(&mut client, alerts),
        "orders of 2025-07-02 is 3, above the limit of 2"
    );
    client
        .batch_execute("UPDATE measures SET name = 'Purchases' WHERE name = 'orders'")
        .unwrap();
    is_right(&mut client, "a new name");
    let found = values(&mut client);
    assert_eq!(found["purchases 2025-07-02"], "3");
    assert!(!found.contains_key("orders 2025-07-02"));
    let named = "SELECT concat_ws(' ', (SELECT count(*) FROM quality_rules WHERE metric_type = 'purchases'),
        (SELECT count(*) FROM metric_mappings WHERE metric_type = 'purchases'), (SELECT count(*) FROM metric_facts WHERE metric_type = 'orders'),
        (SELECT count(*) FROM data_quality_alerts WHERE alert_key = 'outlier:purchases:2025-07-02' AND metric_type = 'purchases'))";
    assert_eq!(text(&mut client, named), "1 1 0 1");
    let by_hand = "SELECT count(*)::text FROM measure_values WHERE by_hand";
    assert_eq!(text(&mut client, by_hand), "0");

    for (change, key, value) in [
        (
            "aggregation = 'last' WHERE name = 'basket'",
            "basket 2025-07-02",
            "1",
        ),
        (
            "unit = 'points' WHERE name = 'basket'",
            "basket 2025-07-02",
            "1",
        ),
        (
            "unit = 'money', aggregation = 'sum' WHERE name = 'basket'",
            "basket 2025-08-01",
            "4",
        ),
        (
            "aggregation = 'distinct' WHERE name = 'stock'",
            "stock 2025-07-02",
            "3",
        ),
    ] {
        client
            .batch_execute(&format!("UPDATE measures SET {change}"))
            .unwrap();
        is_right(&mut client, change);
        assert_eq!(values(&mut client)[key], value, "{change}");
    }

    let refused = |client: &mut Client, sql: &str| {
        let error = client.batch_execute(sql).expect_err(sql);
        let error = error.as_db_error().expect("of the server");
        format!("{} {}", error.code().code(), error.message())
    };
    assert_eq!(
        refused(&mut client, "DELETE FROM measures WHERE name = 'purchases'"),
        "2BP01 measure \"purchases\" is used by mapping 1000"
    );
    client
        .batch_execute("DELETE FROM metric_mappings WHERE metric_type = 'purchases'; DELETE FROM measures WHERE name = 'purchases'")
        .unwrap();
    is_right(&mut client, "the end of a measure");
    assert!(!values(&mut client).contains_key("purchases 2025-07-02"));
    let sql = format!(
        "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path) VALUES ('{SHOP}', 'orders', 'purchases', '1', '$.at')"
    );
    assert_eq!(
        refused(&mut client, &sql),
        "22023 metric type \"purchases\" is not known"
    );
}

#[test]
fn every_table_that_numbers_are_made_of_can_be_truncated() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let tables = [
        "fx_rates",
        "raw_connector_data",
        "metric_facts",
        "quarantine",
        "quality_rules",
        "metric_mappings",
        "metrics CASCADE",
        "measure_values CASCADE",
        "data_quality_alerts",
        "metric_sources",
        "metric_days_touched",
        "connectors CASCADE",
        "tenants CASCADE",
    ];
    for (number, table) in tables.into_iter().enumerate() {
        shop(&mut client, "UTC");
        with_measures(&mut client);
        is_right(&mut client, "the start");
        client
            .batch_execute("TRUNCATE measures")
            .expect_err("a measure that a mapping names stays, as with DELETE");
        client
            .batch_execute(&format!("TRUNCATE {table}"))
            .expect(table);
        let after = format!("TRUNCATE {table}");
        if table != "metric_mappings" {
            is_right(&mut client, &after);
        }
        let found = values(&mut client);
        let gone = [
            "raw_connector_data",
            "connectors CASCADE",
            "tenants CASCADE",
        ];
        match table {
            "fx_rates" => assert_eq!(
                (&found["revenue 2025-07-01"], &found["basket 2025-07-01"]),
                (&"15".to_owned(), &"7.5".to_owned())
            ),
            // As with DELETE: stored records keep their numbers until they are reprocessed.
            _ if gone.contains(&table) => assert_eq!(found, BTreeMap::new(), "{after}"),
            _ => assert_eq!(found.len(), 15, "{after}: {found:?}"),
        }
        // A record of a day to come is still waiting for it.
        let waits = "SELECT string_agg(retry_on::text, ' ') FROM quarantine WHERE replayed_at IS NULL AND reason_code = 'date_in_future'";
        let expected = match gone.contains(&table) {
            true => "",
            false => "2098-01-01",
        };
        assert_eq!(text(&mut client, waits), expected, "{after}");
        let builtin = "SELECT (count(*) > 40)::text FROM metric_mappings WHERE builtin";
        assert_eq!(text(&mut client, builtin), "true", "{after}");
        if number + 1 < tables.len() {
            client
                .batch_execute("TRUNCATE raw_connector_data, fx_rates; TRUNCATE tenants CASCADE; TRUNCATE metrics CASCADE")
                .unwrap();
        }
    }
}

/// It is today in Kiritimati for 26 hours longer than it is in the zone of UTC-12.
#[test]
fn a_tenant_moves_to_where_its_today_is_still_to_come() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    shop(&mut client, "Pacific/Kiritimati");
    let today = "(now() AT TIME ZONE 'Pacific/Kiritimati')::date";
    client
        .batch_execute(&format!(
            "INSERT INTO measures (tenant_id, name) VALUES ('{TENANT}', 'orders');
             INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path) VALUES
                ('{SHOP}', 'orders', 'revenue', '$.total', '$.at'), ('{SHOP}', 'orders', 'orders', '1', '$.at');
             INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
             SELECT '{TENANT}', '{SHOP}', 'webhook', 'orders', 'orders/1', jsonb_build_object('total', 5, 'at', {today});
             INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('{TENANT}', 'costs', 7, {today});
             SELECT connector_service_process()"
        ))
        .unwrap();
    assert_eq!(values(&mut client).len(), 3);
    client
        .batch_execute("UPDATE tenants SET timezone = 'Etc/GMT+12'")
        .unwrap();
    is_right(&mut client, "the move");
    // What a person entered stays, and can be corrected.
    assert_eq!(values(&mut client).len(), 1);
    client
        .batch_execute("UPDATE metrics SET metric_value = 8")
        .unwrap();
    let error = client
        .batch_execute("UPDATE metrics SET metric_date = metric_date + 1")
        .expect_err("a day in the future");
    assert_eq!(error.code().unwrap().code(), "23514");
    let waits = format!(
        "SELECT count(*)::text FROM quarantine WHERE reason_code = 'date_in_future' AND replayed_at IS NULL AND retry_on = {today}"
    );
    assert_eq!(text(&mut client, &waits), "1");
    client
        .batch_execute("UPDATE tenants SET timezone = 'Pacific/Kiritimati'")
        .unwrap();
    is_right(&mut client, "the way back");
    assert_eq!(values(&mut client).len(), 3);
}

#[test]
fn a_metric_that_is_given_back_on_a_day_without_one_is_gone() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    shop(&mut client, "UTC");
    with_measures(&mut client);
    client
        .batch_execute(&format!(
            "UPDATE metric_mappings SET negative = 'net' WHERE metric_type = 'revenue' AND NOT builtin;
             INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
             VALUES ('{TENANT}', '{SHOP}', 'webhook', 'orders', 'orders/8', '{{\"at\": \"2025-09-01\", \"cur\": \"USD\", \"total\": -4, \"left\": 1, \"who\": \"x\"}}');
             SELECT connector_service_process();
             INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date, by_hand)
             VALUES ('{TENANT}', 'revenue', 3000000, '2025-09-01', false), ('{TENANT}', 'staffing', 3, '2025-09-01', true);
             INSERT INTO measure_values (tenant_id, metric_type, metric_value, metric_date) VALUES ('{TENANT}', 'stock', 3, '2025-09-02')"
        ))
        .unwrap();
    let by_hand = "SELECT count(*)::text FROM all_metrics WHERE by_hand";
    assert_eq!(text(&mut client, by_hand), "3");
    is_right(&mut client, "entries by hand");
    let before = values(&mut client);
    client
        .batch_execute(
            "UPDATE metrics SET by_hand = false; UPDATE measure_values SET by_hand = false",
        )
        .unwrap();
    let after = values(&mut client);
    assert_eq!(after.len(), before.len() - 3);
    assert_eq!(text(&mut client, by_hand), "0", "derived rows stay derived");
    is_right(&mut client, "giving everything back");
    assert_eq!(values(&mut client), after);
}

/// The worker has nothing to do meanwhile: each change wakes the upkeep process by itself.
/// Changes what monthly_revenue is made of, and waits for it. Each wait may take a minute: the tests of it run side by side.
fn the_monthly_aggregate_follows(changes: &[&str], after: &str) {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    shop(&mut client, "UTC");
    with_measures(&mut client);
    let follows = |client: &mut Client, after: &str| {
        let sql = "SELECT count(*) FROM (
            SELECT tenant_id, month, total, average, days_with_data FROM monthly_metrics WHERE metric_type = 'revenue'
            EXCEPT SELECT tenant_id, month, total_revenue, avg_daily_revenue, days_with_data FROM monthly_revenue) AS d";
        let behind = |client: &mut Client| -> i64 { client.query_one(sql, &[]).unwrap().get(0) };
        let what = format!("monthly_revenue follows {after} within the minute");
        wait_until(75, &what, || (behind(client) == 0).then_some(()));
    };
    follows(&mut client, "the first records");
    for change in changes {
        client.batch_execute(change).unwrap();
    }
    follows(&mut client, after);
}

#[test]
fn the_monthly_aggregate_follows_rates_records_and_mappings() {
    let changes = [
        "UPDATE fx_rates SET rate = 3",
        "DELETE FROM raw_connector_data WHERE source_record_id = 'orders/4'",
        "UPDATE metric_mappings SET factor = 2 WHERE metric_type = 'revenue' AND NOT builtin; SELECT connector_service_reprocess(connector_id) FROM connectors",
    ];
    the_monthly_aggregate_follows(&changes, "rates, records and mappings");
}

#[test]
fn the_monthly_aggregate_follows_an_entry_by_hand_and_a_currency() {
    let changes = [
        "UPDATE metrics SET metric_value = 3.335 WHERE metric_date = '2025-08-01'",
        "UPDATE tenants SET currency = 'EUR'; TRUNCATE fx_rates",
    ];
    the_monthly_aggregate_follows(&changes, "an entry by hand and a currency");
}

#[test]
fn the_monthly_aggregate_follows_an_entry_by_hand_without_a_connector() {
    let enter = format!(
        "INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('{TENANT}', 'revenue', 5, '2025-07-01')"
    );
    let changes = [
        "TRUNCATE tenants CASCADE",
        "TRUNCATE metrics CASCADE",
        enter.as_str(),
    ];
    the_monthly_aggregate_follows(&changes, "an entry by hand without a connector");
}

#[test]
fn fixed_bounds_and_averages_follow_the_currency() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    shop(&mut client, "UTC");
    let enter = |client: &mut Client, value: &str, day: &str| {
        client
            .batch_execute(&format!(
                "INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('{TENANT}', 'revenue', {value}, '{day}')
                 ON CONFLICT (tenant_id, metric_type, metric_date) DO UPDATE SET metric_value = excluded.metric_value"
            ))
            .unwrap();
    };
    let open = "SELECT string_agg(message, '; ') FROM data_quality_alerts WHERE alert_type = 'outlier' AND NOT resolved";
    let average = format!(
        "SELECT concat_ws(' ', total, average) FROM aggregate_metrics('{TENANT}', 'revenue', '2025-07-01', '2025-07-31', 'month')"
    );
    client
        .batch_execute(&format!(
            "INSERT INTO quality_rules (tenant_id, metric_type, max_value) VALUES ('{TENANT}', 'revenue', 100)"
        ))
        .unwrap();
    enter(&mut client, "100.01", "2025-07-01");
    enter(&mut client, "50.002", "2025-07-02");
    assert_eq!(
        text(&mut client, open),
        "revenue of 2025-07-01 is 100.01, above the limit of 100"
    );
    assert_eq!(text(&mut client, &average), "150.012 75.01");
    // The bound was written in dollars: it says nothing of yen, and is there again with the dollars.
    client
        .batch_execute("UPDATE tenants SET currency = 'JPY'")
        .unwrap();
    assert_eq!(text(&mut client, open), "");
    enter(&mut client, "99000000", "2025-07-02");
    assert_eq!(text(&mut client, open), "");
    assert_eq!(text(&mut client, &average), "99000100.01 49500050");
    enter(&mut client, "100000001", "2025-07-02");
    assert_eq!(
        text(&mut client, open),
        "revenue of 2025-07-02 is 100000001, above the limit of 100000000"
    );
    client
        .batch_execute(&format!(
            "INSERT INTO quality_rules (tenant_id, metric_type, max_value) VALUES ('{TENANT}', 'revenue', 200000000)"
        ))
        .unwrap();
    enter(&mut client, "100000002", "2025-07-02");
    assert_eq!(text(&mut client, open), "");
    let rules = "SELECT string_agg(concat_ws(' ', currency, max_value), ', ' ORDER BY currency) FROM quality_rules";
    assert_eq!(text(&mut client, rules), "JPY 200000000, USD 100");
    client
        .batch_execute("UPDATE tenants SET currency = 'BHD'")
        .unwrap();
    enter(&mut client, "1", "2025-07-02");
    assert_eq!(text(&mut client, &average), "101.01 50.505");
}
