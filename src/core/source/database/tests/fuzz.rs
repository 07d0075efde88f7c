//! What an exchange with a database brings, sound and damaged.

use super::*;
use crate::fuzz::{Random, damaged, each, memory};
use crate::source::window::AHEAD;
use crate::template::parse_any;

const STAMPS: &[&str] = &[
    "2026-02-20T10:00:00Z",
    "2026-02-20T10:00:00.5",
    "2026-02-20",
    "4711",
    "-170141183460469231731687303715884105728",
    "infinity",
    "9999-12-31T23:59:59Z",
    "0001-01-01 00:00:00",
    "",
    "x",
];

fn batch(random: &mut Random) -> Value {
    let rows: Vec<Value> = (0..random.few(6))
        .map(|id| json!({"shop": 1, "id": id, "at": random.pick(STAMPS), "t": random.text(6)}))
        .collect();
    let last = rows
        .last()
        .map(|row| json!([row["at"], "1", row["id"].to_string()]));
    json!({"came": rows.len(), "rows": rows, "more": random.percent(50), "last": last})
}

/// The same with as many values of the last row as the order has.
fn of_length(mut batch: Value, token: &Value) -> Value {
    let has_cursor = !token["cursor"].is_null() && token["rest"] == false;
    if let Some(last) = batch["last"].as_array_mut().filter(|_| !has_cursor) {
        last.remove(0);
    }
    batch
}

fn next(random: &mut Random) -> Value {
    let kind = random.pick(&[
        "Moment", "Utc", "Naive", "Date", "Number", "Real", "Text", "Other",
    ]);
    let cursor = json!({"kind": kind, "rank": random.pick(&["Own", "Time", "Whole", "Real"]), "has_limits": random.percent(20)});
    let key = |random: &mut Random| json!({"ranks": [random.pick(&["Own", "Whole", "Json"])], "nullable": random.percent(30)});
    json!({
        "cursor": random.pick(&[cursor, json!(null)]),
        "keys": [key(random), key(random)], "rows": random.pick(&[1, 10, 50_000]),
        "last": random.pick(&[json!(null), json!(["2026-02-20T10:00:00Z", "1", "7"]), json!(["2026-02-20T10:00:00Z", null, "7"]), json!([]), json!(["x"])]),
        "rest": random.percent(20), "again": random.percent(50), "gone": false, "keys_alone": random.percent(20),
    })
}

#[test]
fn any_batch_is_a_page_or_a_failure() {
    each("batches", |random| {
        let streams =
            json!([{"table": "orders", "key": ["shop", "id"], "cursor": "at", "deletes": true}]);
        let reader = open(json!({"streams": streams, "batch": 10})).unwrap();
        let stream = &reader.streams()[0];
        let high = random.pick(STAMPS);
        let high = Some(json!(high)).filter(|_| random.percent(60));
        let window = reader.window(stream, high.as_ref(), start()).unwrap();
        let mut token = Some(next(random)).filter(|_| random.percent(85));
        for _ in 0..3 {
            let at = Position {
                stream,
                window,
                start: start(),
                next: token.as_ref(),
                high: high.as_ref(),
                access: None,
            };
            // As many values as the statement has places for.
            if let Ok(Some(query)) = reader.query(&at) {
                let places = (1..=9)
                    .filter(|place| query.text.contains(&format!("${place}")))
                    .count();
                assert_eq!(places, query.values.len(), "{}", query.text);
            }
            let sound = match token {
                None => {
                    json!({"columns": [{"name": "at", "type": random.pick(&["timestamptz", "numeric", "text"])}, {"name": "shop", "type": "int4", "not_null": true}, {"name": "id", "type": "int8", "not_null": true}]})
                }
                Some(ref token) => of_length(batch(random), token),
            };
            let is_sound = random.percent(40);
            let other = batch(random).to_string();
            let body = match is_sound {
                true => sound.to_string().into_bytes(),
                false => damaged(random, sound.to_string().as_bytes(), other.as_bytes()),
            };
            let most = 300 * body.len() + 100_000;
            let got = Response {
                status: 200,
                headers: Vec::new(),
                body: body.into(),
            };
            let page = memory::within(most, || reader.page(&at, &got));
            match page {
                Ok(page) => {
                    for record in &page.records {
                        serde_json::from_slice::<&serde_json::value::RawValue>(&record.json)
                            .unwrap();
                        assert!(record.id.starts_with("orders/"));
                    }
                    let came = page.records.len() + page.rejected.len() + page.shown.len();
                    assert!(
                        !is_sound
                            || token.is_none()
                            || Some(came) == sound["rows"].as_array().map(Vec::len)
                    );
                    // A stamp of the far future moves nothing.
                    let moved = page
                        .high
                        .as_ref()
                        .filter(|moved| Some(*moved) != high.as_ref());
                    let reached = moved.and_then(Value::as_str).and_then(parse_any);
                    let kind = token.as_ref().map(|token| token["cursor"]["kind"].clone());
                    let is_time = matches!(
                        kind.as_ref().and_then(Value::as_str),
                        Some("Moment" | "Utc" | "Naive" | "Date")
                    );
                    assert!(!is_time || reached.is_none_or(|reached| reached <= window.to + AHEAD));
                    let Some(next) = page.next else {
                        return;
                    };
                    token = Some(next);
                }
                Err(failure) => {
                    assert!(!is_sound, "{failure}");
                    assert!(failure.message.len() < 4_000);
                    return;
                }
            }
        }
    });
}
