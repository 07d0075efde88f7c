//! What is read of a delivery, all of it.

use super::*;

/// All that a delivery says, as values that compare.
#[derive(Debug, PartialEq)]
struct Whole {
    stream: String,
    records: Vec<(String, String, Option<DateTime<Utc>>)>,
    rejected: Vec<(Option<String>, &'static str)>,
    are_events: bool,
    triggers_sync: bool,
}

fn whole(delivery: Delivery) -> Whole {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let records = delivery.records.iter();
    let rejected = delivery.rejected.into_iter();
    Whole {
        stream: delivery.stream,
        records: records
            .map(|record| {
                assert_eq!(record.hash, json::hash(&record.json));
                (record.id.clone(), text(&record.json), record.at)
            })
            .collect(),
        rejected: rejected
            .map(|rejected| (rejected.id, rejected.reason.word()))
            .collect(),
        are_events: delivery.are_events,
        triggers_sync: delivery.triggers_sync,
    }
}

fn at(text: &str) -> Option<DateTime<Utc>> {
    Some(text.parse().unwrap())
}

fn event(id: &str, body: &str, at: Option<DateTime<Utc>>) -> Whole {
    Whole {
        stream: "webhooks".to_owned(),
        records: vec![(format!("webhooks/{id}"), body.to_owned(), at)],
        rejected: vec![],
        are_events: true,
        triggers_sync: true,
    }
}

fn read(kind: &Kind, body: &str) -> Whole {
    whole(authentic(kind, body.as_bytes()).expect(kind.name))
}

/// The id of what several values identify.
fn framed(values: &[&str]) -> String {
    let framed: String = values
        .iter()
        .map(|value| format!("{};{value}", value.len()))
        .collect();
    format!("#{}", hex(&Sha256::digest(framed)[..16]))
}

#[test]
fn a_vendors_event_is_stored_as_it_is_and_triggers_a_sync() {
    let shopify = kind("shopify");
    let erpnext = kind("erpnext");
    for (kind, id, time) in [
        (
            &kind("stripe"),
            "evt_1Nabc".to_owned(),
            at("2026-03-01T11:59:59Z"),
        ),
        (
            &shopify,
            hex(&Sha256::digest(shopify.body)),
            at("2026-03-01T11:59:00Z"),
        ),
        (
            &kind("square"),
            "13b867cf-db3d-4b1c-90b6-2f32a9d78124".to_owned(),
            at("2026-03-01T11:59:59.84Z"),
        ),
        (
            &erpnext,
            framed(&[
                "\"Sales Invoice\"",
                "\"ACC-SINV-2026-00001\"",
                "\"2026-03-01 13:00:00.123456\"",
            ]),
            None,
        ),
    ] {
        assert_eq!(
            read(kind, kind.body),
            event(&id, kind.body, time),
            "{}",
            kind.name
        );
    }
    // Without a snapshot of anything.
    let thin = r#"{"id": "evt_test_65RM8sQH2oXnebF5Rpc16RJyfa2xSQLHJJh1sxm7H0KI92", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered", "created": "2026-03-01T10:00:00.000Z", "related_object": {"id": "mtr_1"}}"#;
    let id = "evt_test_65RM8sQH2oXnebF5Rpc16RJyfa2xSQLHJJh1sxm7H0KI92";
    assert_eq!(
        read(&kind("stripe"), thin),
        event(id, thin, at("2026-03-01T10:00:00Z"))
    );
    // A document without all three is identified by its content.
    let deleted = r#"{"doctype": "Item", "name": 7}"#;
    let id = format!("#{}", hex(&Sha256::digest(deleted)[..16]));
    assert_eq!(read(&erpnext, deleted), event(&id, deleted, None));
}

#[test]
fn unsigned_parts_of_a_delivery_do_not_make_it_another_event() {
    let shopify = kind("shopify");
    let hook = hook_of(&shopify, json!(KEY));
    let body = shopify.body.as_bytes();
    let mut headers = (shopify.sign)(KEY.as_bytes(), body);
    let first = whole(receive(hook.as_ref(), &headers, body).unwrap());
    for (name, value) in &mut headers {
        if name.ends_with("-id") || name.ends_with("-topic") {
            *value = b"another".to_vec();
        }
    }
    headers.extend(one(
        "x-shopify-triggered-at",
        "2027-01-01T00:00:00Z".to_owned(),
    ));
    headers.extend(one("x-shopify-event-id", "another".to_owned()));
    let again = receive_at(
        hook.as_ref(),
        now() + chrono::TimeDelta::days(3),
        &headers,
        body,
    );
    assert_eq!(whole(again.unwrap()), first);
}

#[test]
fn events_of_other_quickbooks_companies_are_ignored() {
    let quickbooks = kind("quickbooks");
    let ours = &quickbooks.body[1..quickbooks.body.find("}, {").unwrap() + 1];
    let expected = event(
        "88cd52aa-33b6-4351-9aa4-47572edbd068",
        ours,
        at("2026-02-28T21:51:14.258500001Z"),
    );
    assert_eq!(read(&quickbooks, quickbooks.body), expected);
    // One that comes alone.
    assert_eq!(read(&quickbooks, ours), expected);
    let nothing = || Whole {
        records: vec![],
        triggers_sync: false,
        ..event("", "", None)
    };
    for others in [
        "[]",
        r#"[{"id": "a", "intuitaccountid": "3106870"}, {"id": "b"}]"#,
        r#"{"eventNotifications": []}"#,
        r#"{"eventNotifications": [{"realmId": "1", "dataChangeEvent": {"entities": [{"name": "Bill", "id": "1"}]}}, {"dataChangeEvent": {}}]}"#,
    ] {
        assert_eq!(read(&quickbooks, others), nothing(), "{others}");
    }
    // Whose it is cannot be read: it is not kept, but asked for.
    let unclear = read(&quickbooks, "[{\"id\": \"a\0\"}]");
    assert_eq!(
        unclear,
        Whole {
            triggers_sync: true,
            ..nothing()
        }
    );
}

#[test]
fn quickbooks_older_form_has_an_event_for_each_entity() {
    let entities = [
        r#"{"name": "Customer", "id": "1", "operation": "Create", "lastUpdated": "2026-02-28T21:51:14-0700"}"#,
        r#"{"name": "Vendor", "id": "1", "operation": "Create", "lastUpdated": "2026-02-28T21:51:14-0700"}"#,
        r#"{"name": "Vendor", "id": "\u0000", "operation": "Merge"}"#,
    ];
    let body = format!(
        r#"{{"eventNotifications": [{{"realmId": "310687", "dataChangeEvent": {{"entities": [{}]}}}}, {{"realmId": "999", "dataChangeEvent": {{"entities": [{}]}}}}]}}"#,
        entities.join(", "),
        entities[0]
    );
    let id = |name: &str| {
        let values = [name, "1", "\"Create\"", "\"2026-02-28T21:51:14-0700\""];
        format!("webhooks/310687/{}", framed(&values))
    };
    let time = at("2026-03-01T04:51:14Z");
    let merged = "8;\"Vendor\"8;\"\\u0000\"7;\"Merge\"4;null";
    let merged = format!("webhooks/310687/#{}", hex(&Sha256::digest(merged)[..16]));
    let expected = Whole {
        records: vec![
            (id("\"Customer\""), entities[0].to_owned(), time),
            (id("\"Vendor\""), entities[1].to_owned(), time),
        ],
        rejected: vec![(Some(merged), "nul_character")],
        ..event("", "", None)
    };
    assert_eq!(read(&kind("quickbooks"), &body), expected);
}

#[test]
fn the_body_of_a_webhook_is_the_record() {
    let content = |body: &str| format!("events/#{}", hex(&Sha256::digest(body)[..16]));
    let plain = kind("webhook");
    let event = |bodies: &[&str]| Whole {
        stream: "events".to_owned(),
        records: bodies
            .iter()
            .map(|body| (content(body), (*body).to_owned(), None))
            .collect(),
        rejected: vec![],
        are_events: true,
        triggers_sync: false,
    };
    assert_eq!(read(&plain, plain.body), event(&[plain.body]));
    assert_eq!(
        read(&plain, r#" [{"a":1}, {"a": 1}] "#),
        event(&[r#"{"a":1}"#, r#"{"a": 1}"#])
    );
    assert_eq!(read(&plain, "[]"), event(&[]));
    let scalar = Whole {
        rejected: vec![(None, "not_an_object")],
        ..event(&[])
    };
    assert_eq!(read(&plain, "1"), scalar);
    let keyed = kind("webhook with a time");
    let order = |shop: &str, rest: &str, time| {
        let id = format!("orders/{}", framed(&[&format!("\"{shop}\""), "7"]));
        let body = format!(r#"{{"shop": "{shop}", "order": {{"id": 7{rest}}}}}"#);
        (id, body, time)
    };
    let expected = Whole {
        stream: "orders".to_owned(),
        records: vec![
            order(
                "a",
                r#", "changed": 1772366400"#,
                at("2026-03-01T12:00:00Z"),
            ),
            order(
                "b",
                r#", "changed": "2026-03-01T12:00:00+02:00""#,
                at("2026-03-01T10:00:00Z"),
            ),
            order("c", "", None),
        ],
        rejected: vec![],
        are_events: false,
        triggers_sync: false,
    };
    assert_eq!(read(&keyed, keyed.body), expected);
}

#[test]
fn a_records_time_is_read_in_every_format_and_a_far_future_time_counts_as_now() {
    let config = json!({"key": "id", "updated_at": "at"});
    let hook = try_open(&kind("webhook"), config, json!({"secret": KEY})).unwrap();
    let hook = hook.unwrap();
    for (value, time) in [
        ("1772366400", at("2026-03-01T12:00:00Z")),
        ("1772366400123", at("2026-03-01T12:00:00.123Z")),
        ("1772366400.25", at("2026-03-01T12:00:00.25Z")),
        ("\"1772366400\"", at("2026-03-01T12:00:00Z")),
        (
            "\"2026-03-01T14:00:00.5+02:00\"",
            at("2026-03-01T12:00:00.5Z"),
        ),
        ("\"2026-03-01 12:00:00.5\"", at("2026-03-01T12:00:00.5Z")),
        ("\"2026-03-01\"", at("2026-03-01T00:00:00Z")),
        // A clock without a zone may be ahead as far as zones go.
        ("\"2026-03-02T02:00:00\"", at("2026-03-02T02:00:00Z")),
        ("\"2026-03-02T02:00:01\"", Some(now())),
        ("\"9999-12-31T00:00:00Z\"", Some(now())),
        ("99999999999999", Some(now())),
        ("-1", at("1969-12-31T23:59:59Z")),
        ("1e300", None),
        ("\"NaN\"", None),
        ("\"soon\"", None),
        ("\"\"", None),
        ("null", None),
        ("true", None),
        ("{}", None),
    ] {
        let body = format!(r#"{{"id": 1, "at": 5, "at": {value}}}"#);
        let headers = one("x-signature", hex(&hmac(KEY.as_bytes(), body.as_bytes())));
        let read = whole(receive(hook.as_ref(), &headers, body.as_bytes()).unwrap());
        let expected = Whole {
            stream: "events".to_owned(),
            records: vec![("events/1".to_owned(), body, time)],
            rejected: vec![],
            are_events: false,
            triggers_sync: false,
        };
        assert_eq!(read, expected, "{value}");
    }
}
