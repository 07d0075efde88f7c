//! Clocks on a wall: rows are stamped with local time, without a zone, while clocks are moved, and are read meanwhile.

use std::collections::BTreeSet;

use chrono::{DateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use connector_service_test::Random;
use serde_json::{Value, json};

use crate::engine::{Driver, Kept};
use crate::{maria, seed, server};

/// Whose clocks are moved by half an hour, an hour and two; at midnight, and at other hours; and not at all.
const ZONES: [Tz; 20] = [
    Tz::Europe__Berlin,
    Tz::Europe__London,
    Tz::Europe__Lisbon,
    Tz::Atlantic__Azores,
    Tz::America__New_York,
    Tz::America__Los_Angeles,
    Tz::America__St_Johns,
    Tz::America__Havana,
    Tz::America__Santiago,
    Tz::America__Nuuk,
    Tz::America__Asuncion,
    Tz::Australia__Lord_Howe,
    Tz::Australia__Sydney,
    Tz::Australia__Adelaide,
    Tz::Pacific__Auckland,
    Tz::Pacific__Chatham,
    Tz::Antarctica__Troll,
    Tz::Africa__Cairo,
    Tz::Asia__Beirut,
    Tz::Asia__Kolkata,
];

fn ahead(zone: Tz, at: DateTime<Utc>) -> i32 {
    zone.offset_from_utc_datetime(&at.naive_utc())
        .fix()
        .local_minus_utc()
}

/// When the clocks of a zone are moved within a year.
fn moves(zone: Tz) -> Vec<DateTime<Utc>> {
    let mut at: DateTime<Utc> = "2025-03-01T00:00:00Z".parse().unwrap();
    let end = at + TimeDelta::days(366);
    let mut moves = Vec::new();
    let step = TimeDelta::minutes(15);
    while at < end {
        if ahead(zone, at) != ahead(zone, at + step) {
            moves.push(at + step);
        }
        at += step;
    }
    moves
}

/// A database that rows are written to.
struct Place<'a> {
    source: &'static str,
    config: Value,
    run: &'a mut dyn FnMut(&str),
}

/// Writes and reads around a moment, and returns how many rows were written and never read.
fn lost(
    place: &mut Place,
    driver: &mut Driver,
    random: &mut Random,
    zone: Tz,
    moment: DateTime<Utc>,
) -> (usize, usize) {
    (place.run)("DELETE FROM shifts");
    let mut kept = Kept::default();
    let (mut written, mut delayed): (i64, Vec<(DateTime<Utc>, String)>) = (0, Vec::new());
    let (mut now, end) = (moment - TimeDelta::hours(3), moment + TimeDelta::hours(4));
    let mut next_read = now;
    while now < end {
        written += 1;
        let shown = now.with_timezone(&zone).naive_local();
        let row = format!(
            "INSERT INTO shifts (id, began) VALUES ({written}, '{}')",
            shown.format("%Y-%m-%d %H:%M:%S")
        );
        // Some commit after others that were stamped later, and after a read.
        let late = TimeDelta::seconds(random.pick(&[0, 0, 0, 200, 540]));
        delayed.push((now + late, row));
        let (due, rest): (Vec<_>, Vec<_>) = delayed.into_iter().partition(|(at, _)| *at <= now);
        delayed = rest;
        for (_, row) in due {
            (place.run)(&row);
        }
        if now >= next_read {
            driver
                .sync(place.source, &place.config, &mut kept, now)
                .unwrap();
            next_read = now + TimeDelta::minutes(random.pick(&[10, 30, 45, 60]));
        }
        now += TimeDelta::seconds(random.pick(&[120, 300, 500]));
    }
    for (_, row) in delayed {
        (place.run)(&row);
    }
    driver
        .sync(place.source, &place.config, &mut kept, now)
        .unwrap();
    let ids: BTreeSet<&String> = kept.records.keys().collect();
    let lost = (1..=written).filter(|id| !ids.contains(&format!("shifts/{id}")));
    (written as usize, lost.count())
}

/// Every move of every zone's clocks. `stream`: what is read.
fn all(source: &'static str, config: &dyn Fn(Tz) -> Value, run: &mut dyn FnMut(&str)) -> usize {
    let mut driver = Driver::new();
    let mut random = Random(seed());
    let (mut written, mut around) = (0, 0);
    for zone in ZONES {
        let mut moments = moves(zone);
        if moments.is_empty() {
            moments.push("2025-10-26T01:00:00Z".parse().unwrap());
        }
        for moment in moments {
            let config = config(zone);
            let mut place = Place {
                source,
                config,
                run,
            };
            let (rows, lost) = lost(&mut place, &mut driver, &mut random, zone, moment);
            assert_eq!(lost, 0, "{zone} at {moment}: {lost} of {rows} rows");
            (written, around) = (written + rows, around + 1);
        }
    }
    assert!(around >= 37, "{around} moves of clocks");
    println!("{source}: {written} rows around {around} moves of clocks, 0 lost");
    written
}

#[test]
fn rows_of_postgresql_stamped_in_the_hour_that_comes_twice_are_not_lost() {
    let cluster = server();
    let mut client = cluster.client("postgres");
    for kind in ["timestamp", "varchar(30)"] {
        client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS shifts; CREATE TABLE shifts (id int PRIMARY KEY, began {kind})"
            ))
            .unwrap();
        let config = |_| {
            json!({"host": "127.0.0.1", "port": cluster.port, "database": "postgres", "tls": "off", "start_date": "2025-01-01",
            "streams": [{"table": "shifts", "key": "id", "cursor": "began"}]})
        };
        all("postgres", &config, &mut |sql| {
            client.batch_execute(sql).unwrap();
        });
    }
    // What this test would see, and the warning says.
    client
        .batch_execute(
            "DROP TABLE shifts; CREATE TABLE shifts (id int PRIMARY KEY, began timestamp)",
        )
        .unwrap();
    let config = json!({"host": "127.0.0.1", "port": cluster.port, "database": "postgres", "tls": "off",
        "streams": [{"table": "shifts", "key": "id", "cursor": "began", "lookback": 600}]});
    let mut driver = Driver::new();
    let moment = "2025-10-26T01:00:00Z".parse().unwrap();
    let mut place = Place {
        source: "postgres",
        config: config.clone(),
        run: &mut |sql| client.batch_execute(sql).unwrap(),
    };
    let (_, lost) = lost(
        &mut place,
        &mut driver,
        &mut Random(7),
        Tz::Europe__Berlin,
        moment,
    );
    assert!(lost > 0, "a lookback of ten minutes is enough?");
    let brought = driver.sync("postgres", &config, &mut Kept::default(), moment);
    let warnings = brought.unwrap().warnings;
    assert!(
        warnings
            .iter()
            .any(|text| text.contains("clocks are put back")),
        "{warnings:?}"
    );
}

#[test]
fn rows_of_mariadb_stamped_in_the_hour_that_comes_twice_are_not_lost() {
    let (_folder, server) = maria();
    let mut client = server.client("shop");
    client.run("CREATE TABLE shifts (id int PRIMARY KEY, began datetime)");
    for has_zone in [false, true] {
        let config = |zone: Tz| {
            let mut config = json!({"host": "127.0.0.1", "port": server.port, "database": "shop", "tls": "off", "start_date": "2025-01-01",
            "streams": [{"table": "shifts", "key": "id", "cursor": "began"}]});
            if has_zone {
                // An explicit lookback is for transactions: the zone says the rest.
                config["time_zone"] = json!(zone.name());
                config["streams"][0]["lookback"] = json!(600);
            }
            config
        };
        all("mysql", &config, &mut |sql| client.run(sql));
    }
}
