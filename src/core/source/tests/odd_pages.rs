//! Pages of Stripe, Square and QuickBooks in which something is damaged: one record costs one record.

use std::collections::HashMap;

use super::*;
use crate::record::Page;

fn reader(kind: &str, stream: &str) -> Box<dyn Reader> {
    let definition = definition(kind, json!({"streams": [stream]}));
    find(kind).unwrap().open(&definition).unwrap()
}

fn page_at(reader: &dyn Reader, next: Option<&Value>, high: Option<&Value>, body: &str) -> Page {
    let at = Position {
        next,
        ..first(reader, &reader.streams()[0], high)
    };
    reader.page(&at, &answer(body)).unwrap()
}

fn parameters(reader: &dyn Reader, next: &Value) -> HashMap<String, String> {
    let at = Position {
        next: Some(next),
        ..first(reader, &reader.streams()[0], None)
    };
    let url = reader.request(&at).unwrap().url;
    url.query_pairs().into_owned().collect()
}

#[test]
fn stripe_s_pass_goes_on_behind_a_page_whose_last_record_is_damaged() {
    let stripe = reader("stripe", "charges");
    let good = r#"{"id": "ch_2", "created": 1772000000}"#;
    for (damaged, after, records) in [
        (r#"{"id": "ch_1", "note": "tea\ud83d"}"#, "ch_1", 1),
        (r#"{"id": "ch_1", "note": "\u0000"}"#, "ch_1", 1),
        (
            r#"{"id": "ch_1", "amount": 1e400000, "created": 1}"#,
            "ch_1",
            1,
        ),
        (
            r#"{"id": "ch_1", "amount": 1e400, "created": 1}"#,
            "ch_1",
            2,
        ),
        // Its own id cannot be read: the page before it ends.
        (r#"{"id": "ch_\ud83d"}"#, "ch_2", 1),
        ("null", "ch_2", 1),
        (r#"{"id": {"no": 1}}"#, "ch_2", 1),
    ] {
        let body =
            format!(r#"{{"object": "list", "has_more": true, "data": [{good}, {damaged}]}}"#);
        let page = page_at(stripe.as_ref(), None, None, &body);
        assert_eq!(page.records.len() + page.rejected.len(), 2, "{damaged}");
        assert!(page.records.len() >= records, "{damaged}");
        // What is no object has no part in how the list goes on.
        let overlaps = after == "ch_2" && damaged != "null";
        assert_eq!(page.overlaps, overlaps, "{damaged}");
        let asked = parameters(stripe.as_ref(), &page.next.unwrap());
        assert_eq!(asked["starting_after"], after, "{damaged}");
    }
}

#[test]
fn a_damaged_event_of_stripe_costs_no_other_event() {
    let stripe = reader("stripe", "charges");
    let next =
        json!({"again": true, "after": null, "in_events": true, "changed": [], "last": null});
    let event = |id: &str, more: &str| {
        format!(
            r#"{{"id": "evt_{id}", "type": "charge.updated", "created": 1772300000, "data": {{"object": {{"object": "charge", "id": "ch_{id}", "created": 1600000000{more}}}}}}}"#
        )
    };
    let high = json!("1772300000");
    for (damaged, changed, warns) in [
        (
            event("2", r#", "note": "tea\ud83d""#),
            vec!["ch_1", "ch_2", "ch_3"],
            false,
        ),
        ("null".to_owned(), vec!["ch_1", "ch_3"], true),
        (
            r#"{"id": "evt_2", "type": 7}"#.to_owned(),
            vec!["ch_1", "ch_3"],
            true,
        ),
    ] {
        let body = format!(
            r#"{{"object": "list", "has_more": false, "data": [{}, {damaged}, {}]}}"#,
            event("1", ""),
            event("3", "")
        );
        let page = page_at(stripe.as_ref(), Some(&next), Some(&high), &body);
        let mut found: Vec<String> =
            serde_json::from_value(page.next.unwrap()["changed"].clone()).unwrap();
        found.sort();
        assert_eq!(found, changed, "{damaged}");
        assert_eq!(page.warning.is_some(), warns, "{damaged}");
    }
}

#[test]
fn an_event_about_something_else_names_the_object_as_an_id_or_expanded() {
    let stripe = reader("stripe", "charges");
    let next =
        json!({"again": true, "after": null, "in_events": true, "changed": [], "last": null});
    let high = json!("1772300000");
    for (charge, changed) in [
        (json!("ch_1"), json!(["ch_1"])),
        (json!({"id": "ch_1", "object": "charge"}), json!(["ch_1"])),
        (json!(null), json!([])),
        (json!(""), json!([])),
    ] {
        let event = json!({"id": "evt_1", "type": "charge.dispute.closed", "created": 1_772_300_000,
            "data": {"object": {"object": "dispute", "id": "du_1", "created": 1_772_300_000, "charge": charge}}});
        let body = json!({"object": "list", "has_more": false, "data": [event]}).to_string();
        let page = page_at(stripe.as_ref(), Some(&next), Some(&high), &body);
        let found = page.next.map_or(json!([]), |next| next["changed"].clone());
        assert_eq!(found, changed);
    }
}

#[test]
fn an_error_beside_an_empty_list_is_no_empty_page() {
    for (kind, stream, bodies) in [
        (
            "stripe",
            "charges",
            vec![
                json!({"object": "list", "data": [], "has_more": false, "error": {"type": "api_error"}}),
                json!({"object": "search_result", "data": [], "has_more": false}),
            ],
        ),
        (
            "square",
            "timecards",
            vec![
                json!({"timecards": [], "errors": [{"category": "API_ERROR", "code": "INTERNAL_SERVER_ERROR"}]}),
                json!({"errors": [{"category": "API_ERROR", "code": "INTERNAL_SERVER_ERROR"}]}),
            ],
        ),
        (
            "quickbooks",
            "invoices",
            vec![
                json!({"QueryResponse": {}, "Fault": {"Error": [{"code": "10000"}]}}),
                json!({"QueryResponse": {"Invoice": null}, "fault": {"error": [{"code": "3001"}]}}),
            ],
        ),
    ] {
        let reader = reader(kind, stream);
        let at = first(reader.as_ref(), &reader.streams()[0], None);
        for body in bodies {
            let page = reader.page(&at, &answer(&body.to_string()));
            assert!(page.is_err(), "{kind}: {body}");
        }
    }
}

#[test]
fn quickbooks_pages_of_damaged_records_are_passed_by_and_the_pass_goes_on() {
    let books = reader("quickbooks", "invoices");
    let damaged = r#"{"Id": "1", "PrivateNote": "tea\ud83d", "MetaData": {"LastUpdatedTime": "2026-02-20T10:00:00Z"}}"#;
    let body = format!(r#"{{"QueryResponse": {{"Invoice": [{damaged}, {damaged}]}}}}"#);
    let page = page_at(books.as_ref(), None, None, &body);
    assert_eq!((page.records.len(), page.rejected.len()), (0, 2));
    assert!(page.counts, "its token counts rows");
    let next = page.next.unwrap();
    let asked = parameters(books.as_ref(), &next);
    assert!(
        asked["query"].contains("STARTPOSITION 3 "),
        "{}",
        asked["query"]
    );
    let empty = page_at(
        books.as_ref(),
        Some(&next),
        None,
        r#"{"QueryResponse": {}}"#,
    );
    let asked = parameters(books.as_ref(), &empty.next.unwrap());
    assert!(asked["query"].starts_with("SELECT COUNT(*)"));
}

#[test]
fn what_a_first_pass_does_not_show_of_its_window_is_gone_and_a_later_pass_says_nothing() {
    let day = start().now - chrono::TimeDelta::days(30);
    for (kind, stream, field, from) in [
        ("stripe", "charges", "created", day.timestamp().to_string()),
        ("stripe", "customers", "created", "0".to_owned()),
        (
            "quickbooks",
            "invoices",
            "LastUpdatedTime",
            "2026-02-01T00:00:00Z".to_owned(),
        ),
        ("quickbooks", "customers", "LastUpdatedTime", String::new()),
        ("square", "inventory_counts", "calculated_at", String::new()),
        ("square", "catalog_objects", "updated_at", String::new()),
    ] {
        let reader = reader(kind, stream);
        let stream = &reader.streams()[0];
        let window = reader.window(stream, None, start()).unwrap();
        let part = reader.shows_all_of(stream, None, start(), window).unwrap();
        assert_eq!((part.field.last(), part.from), (Some(&field), from));
        let now = start().now;
        let recent = match kind {
            "stripe" => json!((now - chrono::TimeDelta::days(1)).timestamp().to_string()),
            _ => json!((now - chrono::TimeDelta::days(1)).to_rfc3339()),
        };
        let window = reader.window(stream, Some(&recent), start()).unwrap();
        let part = reader.shows_all_of(stream, Some(&recent), start(), window);
        assert_eq!(part, None);
    }
    // What has no stamp of change is read whole.
    for (kind, stream) in [
        ("square", "timecards"),
        ("square", "customers"),
        ("square", "team_members"),
        ("quickbooks", "time_activities"),
        ("quickbooks", "items"),
    ] {
        assert!(reader(kind, stream).streams()[0].whole, "{kind} {stream}");
    }
}
