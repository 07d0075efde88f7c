use super::*;

#[test]
fn the_cursor_starts_a_lookback_earlier_and_never_before_the_start() {
    let start = json!("2026-03-01T12:00:00Z");
    let manifest = || shop_with("/streams/0/incremental_sync/start_datetime", start.clone());
    let from = |cursor| {
        let from = Pass::new(manifest(), cursor).window.from;
        from.unwrap().to_rfc3339()
    };
    assert_eq!(
        from(Some("2026-03-20T00:00:00Z")),
        "2026-03-19T23:50:00+00:00"
    );
    assert_eq!(
        from(Some("2026-03-01T12:01:00Z")),
        "2026-03-01T12:00:00+00:00"
    );
    assert_eq!(from(Some("nonsense")), "2026-03-01T12:00:00+00:00");
    let mut manifest = shop();
    manifest["streams"][0]["incremental_sync"]["lookback_window"] = "P2D".into();
    let from = Pass::new(manifest, Some("2026-03-20T00:00:00Z"))
        .window
        .from
        .unwrap();
    assert_eq!(from.to_rfc3339(), "2026-03-18T00:00:00+00:00");
}

#[test]
fn a_date_in_the_far_future_does_not_move_the_cursor() {
    let mut pass = Pass::new(shop(), None);
    let orders = [
        order(1, "2026-03-02T00:00:00Z"),
        order(2, "2099-01-01T00:00:00Z"),
    ];
    assert_eq!(pass.gets(json!({"data": orders, "more": false})), Ok(2));
    assert_eq!(pass.high, Some("2026-03-02T00:00:00Z".into()));
}

#[test]
fn a_page_without_any_readable_date_is_refused() {
    let mut pass = Pass::new(shop(), None);
    let failure = pass
        .gets(json!({"data": [{"id": 1, "updated_at": "yesterday"}]}))
        .unwrap_err();
    assert_eq!(failure.code, Code::UnexpectedShape);
}

#[test]
fn a_default_start_cuts_nothing_off_after_a_long_pause() {
    let from = |manifest| {
        Pass::new(manifest, Some("2025-06-01T00:00:00Z"))
            .window
            .from
    };
    let expected: DateTime<Utc> = "2025-05-31T23:50:00Z".parse().unwrap();
    assert_eq!(from(shop()), Some(expected));
    let mut manifest = shop();
    let cursor = manifest["streams"][0]["incremental_sync"].as_object_mut();
    cursor.unwrap().remove("start_datetime");
    assert_eq!(from(manifest), Some(expected));
}

#[test]
fn records_without_a_date_do_not_end_a_stream() {
    let mut pass = Pass::new(shop(), None);
    let orders = json!([{"id": 1, "updated_at": null}, {"id": 2}]);
    assert_eq!(pass.gets(json!({"data": orders, "more": false})), Ok(2));
    assert_eq!(pass.high, None);
}

#[test]
fn dates_in_several_formats_compare_as_moments() {
    let mut manifest = shop();
    manifest["streams"][0]["incremental_sync"]["cursor_datetime_formats"] =
        json!(["%s", "%Y-%m-%dT%H:%M:%S%z"]);
    let mut pass = Pass::new(manifest, None);
    let orders = json!([
        {"id": 1, "updated_at": "2026-03-05T23:30:00-02:00"},
        {"id": 2, "updated_at": "2026-03-06T01:00:00Z"},
        {"id": 3, "updated_at": 1_772_600_000},
        {"id": 4, "updated_at": "soon"},
    ]);
    assert_eq!(pass.gets(json!({"data": orders, "more": false})), Ok(4));
    assert_eq!(pass.high, Some("2026-03-05T23:30:00-02:00".into()));
}

#[test]
fn the_cursor_never_moves_backward() {
    let mut pass = Pass::new(shop(), None);
    pass.high = Some("2026-03-20T00:00:00Z".into());
    let orders = [order(1, "2026-03-02T00:00:00Z")];
    pass.gets(json!({"data": orders, "more": false})).unwrap();
    assert_eq!(pass.high, Some("2026-03-20T00:00:00Z".into()));
}
