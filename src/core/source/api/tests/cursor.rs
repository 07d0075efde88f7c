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

#[test]
fn what_stands_for_no_time_never_stops_a_cursor() {
    let sentinels = [
        "9999-12-31T23:59:59Z",
        "9999-12-31",
        "0001-01-01T00:00:00Z",
        "0000-00-00 00:00:00",
        "1970-01-01T00:00:00Z",
        "infinity",
        "-infinity",
        "",
    ];
    for sentinel in sentinels {
        // Alone on a page, they are no reason to refuse it.
        let mut pass = Pass::new(shop(), None);
        let page = pass.gets(json!({"data": [order(1, sentinel)], "more": false}));
        assert_eq!((page, pass.high), (Ok(1), None), "{sentinel}");
        for orders in [
            [order(1, sentinel), order(2, "2026-03-02T00:00:00Z")],
            [order(1, "2026-03-02T00:00:00Z"), order(2, sentinel)],
        ] {
            let mut pass = Pass::new(shop(), None);
            pass.gets(json!({"data": orders, "more": false})).unwrap();
            assert_eq!(pass.high, Some("2026-03-02T00:00:00Z".into()), "{sentinel}");
        }
        let mut pass = Pass::new(shop(), None);
        pass.high = Some("2026-03-20T00:00:00Z".into());
        pass.gets(json!({"data": [order(1, sentinel)], "more": false}))
            .unwrap();
        assert_eq!(pass.high, Some("2026-03-20T00:00:00Z".into()), "{sentinel}");
    }
}

#[test]
fn a_cursor_without_a_zone_looks_back_over_the_hour_that_comes_twice() {
    let from = |format: &str, cursor: &str, lookback: Option<&str>| {
        let mut manifest = shop();
        let sync = &mut manifest["streams"][0]["incremental_sync"];
        sync["datetime_format"] = format.into();
        sync["start_datetime"] = json!({"datetime": "2026-01-01", "datetime_format": "%Y-%m-%d"});
        if let Some(lookback) = lookback {
            sync["lookback_window"] = lookback.into();
        }
        Pass::new(manifest, Some(cursor))
            .window
            .from
            .unwrap()
            .format("%dT%H:%M")
            .to_string()
    };
    for (format, cursor, lookback, expected) in [
        ("%Y-%m-%dT%H:%M:%S", "2026-03-29T01:55:00", None, "28T23:45"),
        (
            "%Y-%m-%d %H:%M:%S.%f",
            "2026-03-29 01:55:00.0",
            None,
            "28T23:45",
        ),
        (
            "%Y-%m-%dT%H:%M:%S",
            "2026-03-29T01:55:00",
            Some("PT5M"),
            "29T01:50",
        ),
        (
            "%Y-%m-%dT%H:%M:%S",
            "2026-03-29T01:55:00",
            Some("P1D"),
            "28T01:55",
        ),
        (
            "%Y-%m-%dT%H:%M:%SZ",
            "2026-03-29T01:55:00Z",
            None,
            "29T01:45",
        ),
        (
            "%Y-%m-%dT%H:%M:%S+00:00",
            "2026-03-29T01:55:00+00:00",
            None,
            "29T01:45",
        ),
        (
            "%Y-%m-%dT%H:%M:%S%z",
            "2026-03-29T01:55:00+0000",
            None,
            "29T01:45",
        ),
        ("%s", "1774749300", None, "29T01:45"),
        ("%Y-%m-%d", "2026-03-29", None, "28T23:50"),
    ] {
        assert_eq!(
            from(format, cursor, lookback),
            expected,
            "{format} {lookback:?}"
        );
    }
}

/// Stamps of a clock on a wall, in 20 zones over a year: a record that is stamped at any moment is within what the next
/// sync asks for, wherever the cursor stands.
#[test]
fn no_record_is_lost_when_clocks_change() {
    let zones = [
        "Europe/Berlin",
        "Europe/London",
        "Europe/Moscow",
        "America/New_York",
        "America/Los_Angeles",
        "America/St_Johns",
        "America/Sao_Paulo",
        "America/Santiago",
        "America/Havana",
        "Africa/Cairo",
        "Africa/Casablanca",
        "Asia/Tokyo",
        "Asia/Kolkata",
        "Asia/Tehran",
        "Asia/Beirut",
        "Australia/Sydney",
        "Australia/Lord_Howe",
        "Pacific/Auckland",
        "Pacific/Chatham",
        "Antarctica/Troll",
    ];
    let mut manifest = shop();
    let sync = &mut manifest["streams"][0]["incremental_sync"];
    sync["datetime_format"] = "%Y-%m-%dT%H:%M:%S".into();
    sync["start_datetime"] = json!("2025-01-01T00:00:00");
    let reader = open(manifest);
    let stream = &reader.streams()[0];
    let (mut lost, mut earlier) = (0, 0);
    for zone in zones {
        let zone: chrono_tz::Tz = zone.parse().unwrap();
        let wall = |at: DateTime<Utc>| at.with_timezone(&zone).naive_local().and_utc();
        let first: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut high = wall(first);
        // A record each 10 minutes, and a sync after each. The cursor is the greatest stamp that has been seen.
        for step in 1..(366 * 144) {
            let now = first + chrono::TimeDelta::minutes(10 * step);
            let stamp = wall(now);
            let stamp_is_earlier = stamp < high;
            // Otherwise it is behind the cursor, and asked for in any case.
            if stamp_is_earlier {
                let cursor = Value::from(high.format("%Y-%m-%dT%H:%M:%S").to_string());
                let start = Start { now, ..start() };
                let window = reader.window(stream, Some(&cursor), start).unwrap();
                earlier += 1;
                lost += usize::from(stamp < window.from.unwrap());
            }
            high = high.max(stamp);
        }
    }
    assert_eq!(lost, 0);
    // An hour of six records, in each zone that changes its clocks.
    assert!(earlier > 60, "{earlier}");
}
