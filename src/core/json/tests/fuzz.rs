//! Pages, sound and damaged, against serde_json as a stranger.

use serde_json::Value;

use super::*;
use crate::fuzz::{Random, damaged, each, grows_with_its_size, memory};

/// A value as text: in any spelling that JSON has, and stored by PostgreSQL.
fn value(random: &mut Random, depth: usize) -> String {
    let space = |random: &mut Random| random.pick(&["", "", "", " ", "\n", "\t", "\r\n  "]);
    match random.below(if depth == 0 { 5 } else { 7 }) {
        0 => random.pick(&["null", "true", "false"]).to_owned(),
        1 => random
            .pick(&[
                "0",
                "-0",
                "1.50",
                "1e3",
                "-1E-7",
                "123456789012345678901234567890",
                "0.1e+2",
                "5e-324",
            ])
            .to_owned(),
        2 => (random.number() as i64).to_string(),
        3 => string(random),
        4 => serde_json::to_string(&random.text(8)).unwrap(),
        5 => {
            let items: Vec<String> = (0..random.few(5))
                .map(|_| value(random, depth - 1))
                .collect();
            let space = space(random);
            format!(
                "[{space}{}{space}]",
                items.join(&format!("{space},{space}"))
            )
        }
        _ => object(random, depth - 1, None),
    }
}

/// In escapes where none is needed, too.
fn string(random: &mut Random) -> String {
    const PARTS: &[&str] = &[
        "a",
        "é",
        "😀",
        r"\n",
        r"\/",
        r#"\""#,
        r"\\",
        r"\u00e9",
        r"\ud83d\ude00",
        r"\\u0000",
        r"\\ud800",
        "[",
        "}",
        ",",
        ":",
    ];
    let parts: String = (0..random.few(6)).map(|_| random.pick(PARTS)).collect();
    format!("\"{parts}\"")
}

fn object(random: &mut Random, depth: usize, id: Option<&str>) -> String {
    let mut fields: Vec<String> = (0..random.few(4))
        .map(|_| {
            format!(
                "{}:{}",
                serde_json::to_string(&format!("_{}", random.text(4))).unwrap(),
                value(random, depth)
            )
        })
        .collect();
    if let Some(id) = id {
        let at = random.below(fields.len() + 1);
        fields.insert(at, format!("\"id\" : {id}"));
    }
    let space = random.pick(&["", " ", "\n"]);
    format!("{{{space}{}{space}}}", fields.join(&format!("{space},")))
}

/// What costs a record, and nothing around it: the text of a value, and why.
fn harm(random: &mut Random) -> (Vec<u8>, Reason) {
    let deep = |random: &mut Random| {
        let levels = random.between(101, 2_000);
        [b"[".repeat(levels), b"]".repeat(levels)].concat()
    };
    match random.below(12) {
        0 => (b"\"\xff\"".to_vec(), Reason::InvalidUtf8),
        1 => (b"\"\xed\xa0\x80\"".to_vec(), Reason::InvalidUtf8),
        2 => (b"\"\0\"".to_vec(), Reason::Nul),
        3 => (br#""\u0000""#.to_vec(), Reason::Nul),
        4 => (br#""\ud800x""#.to_vec(), Reason::LoneSurrogate),
        5 => (br#""\udc00""#.to_vec(), Reason::LoneSurrogate),
        6 => (br#""\q""#.to_vec(), Reason::InvalidJson),
        7 => (b"\"\n\"".to_vec(), Reason::InvalidJson),
        8 => (b"NaN".to_vec(), Reason::InvalidJson),
        9 => (b"01".to_vec(), Reason::InvalidJson),
        10 => (b"1e999999".to_vec(), Reason::NumberOutOfRange),
        _ => (deep(random), Reason::TooDeep),
    }
}

/// A page: its body, the way to its records, and each record with what is to become of it.
struct Made {
    body: Vec<u8>,
    at: String,
    records: Vec<(Vec<u8>, Result<String, Reason>)>,
}

fn page(random: &mut Random, harms: bool) -> Made {
    let mut records = Vec::new();
    for number in 0..random.few(8) {
        let (id, known) = match random.below(5) {
            0 => (number.to_string(), number.to_string()),
            1 => (format!("\"\\u006b{number}\""), format!("k{number}")),
            2 => ("null".to_owned(), String::new()),
            _ => (format!("\"a/{number}\""), format!("a/{number}")),
        };
        let text = object(random, 3, Some(&id));
        records.push(match harms && random.percent(30) {
            true => {
                let (bad, reason) = harm(random);
                let end = text.rfind('}').unwrap();
                let text = [&text.as_bytes()[..end], b",\"_bad\":", &bad, b"}"].concat();
                (text, Err(reason))
            }
            false => {
                let hash = hex(&hash(text.as_bytes()));
                let known = if known.is_empty() { hash } else { known };
                (text.into_bytes(), Ok(format!("orders/{known}")))
            }
        });
    }
    let texts: Vec<&[u8]> = records.iter().map(|(text, _)| text.as_slice()).collect();
    let mut body = [b"[".as_slice(), &texts.join(&b" ,"[..]), b"]"].concat();
    let mut steps = Vec::new();
    for _ in 0..random.below(4) {
        // An item of a list, or of an object; the others hold nothing.
        let step = match random.below(4) {
            0 => "*".to_owned(),
            _ => random.word(3),
        };
        let around = match (step.as_str(), random.percent(50) && steps.is_empty()) {
            ("*", true) => [b"[ null, ".as_slice(), &body, b",[]]"].concat(),
            ("*", false) => [b"[".as_slice(), &body, b"]"].concat(),
            (key, _) => {
                let other = value(random, 2);
                let twice = random.percent(10);
                // Of a key that is there twice, the last one counts.
                let first = if twice {
                    format!("\"{key}\":{other},")
                } else {
                    String::new()
                };
                [
                    format!("{{\"_x\":{other},{first}\"{key}\" : ").as_bytes(),
                    &body,
                    b",\"_y\":[1]}",
                ]
                .concat()
            }
        };
        body = around;
        steps.push(step);
    }
    steps.reverse();
    if random.percent(10) {
        body.splice(0..0, *b"\xEF\xBB\xBF");
    }
    Made {
        body,
        at: steps.join("."),
        records,
    }
}

/// What holds for anything that is taken out of a body.
fn check(body: &[u8], found: &Found) {
    let mut place = 0;
    for record in &found.records {
        let text = std::str::from_utf8(&record.json).unwrap();
        serde_json::from_str::<&RawValue>(text).unwrap();
        assert!(text.starts_with('{'));
        assert_eq!(record.hash, hash(&record.json));
        // In the order of the body, and each its own part of it.
        let at = memchr::memmem::find(&body[place..], &record.json).expect("a part of the body");
        place += at + record.json.len();
        assert!(record.id.starts_with("orders/") && !record.id.contains('\0'));
        assert!(record.id.len() <= 7 + LIMITS.key.max(33));
        assert!(record.json.len() <= LIMITS.bytes);
        let depth = text.bytes().fold(
            (0, 0_usize, false, false),
            |(most, open, quoted, escaped), byte| match byte {
                _ if escaped => (most, open, quoted, false),
                b'\\' if quoted => (most, open, quoted, true),
                b'"' => (most, open, !quoted, false),
                b'[' | b'{' if !quoted => (most.max(open + 1), open + 1, quoted, false),
                b']' | b'}' if !quoted => (most, open - 1, quoted, false),
                _ => (most, open, quoted, false),
            },
        );
        assert!(depth.0 <= LIMITS.depth);
        let value: Option<Value> = serde_json::from_str(text).ok();
        let has_nul =
            value.is_some_and(|value| serde_json::to_string(&value).unwrap().contains("\\u0000"));
        assert!(!has_nul || text.contains("\\\\u0000"), "{text}");
    }
    for rejected in &found.rejected {
        assert!(rejected.detail.len() < 200);
        assert!(rejected.id.as_ref().is_none_or(|id| !id.contains('\0')));
    }
}

/// Held for a body of this size: each of the smallest records takes some 200 bytes.
fn enough(body: &[u8]) -> usize {
    300 * body.len() + 20_000
}

#[test]
fn a_damaged_record_rejects_only_itself() {
    each("damaged records", |random| {
        let made = page(random, true);
        let found = memory::within(enough(&made.body), || {
            read_with(&made.body, &made.at, &["id"])
        });
        let shown = String::from_utf8_lossy(&made.body);
        let found = found.unwrap_or_else(|failure| panic!("{failure}: {} of {shown}", made.at));
        check(&made.body, &found);
        let sound = made
            .records
            .iter()
            .filter_map(|(text, what)| Some((text.clone(), what.clone().ok()?)));
        let came = found
            .records
            .iter()
            .map(|record| (record.json.to_vec(), record.id.clone()));
        assert_eq!(Vec::from_iter(came), Vec::from_iter(sound), "{shown}");
        let bad = made
            .records
            .iter()
            .filter_map(|(text, what)| Some((text.clone(), what.clone().err()?)));
        let came = found
            .rejected
            .iter()
            .map(|rejected| (rejected.raw.to_vec(), rejected.reason));
        assert_eq!(Vec::from_iter(came), Vec::from_iter(bad), "{shown}");
        // What is read once more is the same.
        let again = read_with(&made.body, &made.at, &["id"]).unwrap();
        assert_eq!(ids(&found), ids(&again));
    });
}

#[test]
fn a_truncated_page_is_refused() {
    each("pages cut short", |random| {
        let made = page(random, false);
        let length = random.below(made.body.len());
        let cut = read_with(&made.body[..length], &made.at, &["id"]);
        let code = cut.map(|found| found.records.len()).unwrap_err().code;
        assert!(
            matches!(code, Code::TruncatedResponse | Code::InvalidJson),
            "{code:?}"
        );
    });
}

#[test]
fn any_bytes_are_read_as_serde_json_reads_them() {
    each("any JSON", |random| {
        let harms = random.percent(50);
        let made = page(random, harms);
        let other = page(random, true);
        let body = match random.percent(15) {
            true => {
                let length = random.few(100);
                random.bytes(length)
            }
            false => damaged(random, &made.body, &other.body),
        };
        let read = memory::within(enough(&body), || read_with(&body, &made.at, &["id"]));
        let text = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&body);
        let theirs: Result<&RawValue, _> = serde_json::from_slice(text);
        let shown = String::from_utf8_lossy(&body);
        match (&read, &theirs) {
            (Ok(found), Ok(_)) => {
                check(&body, found);
                // What serde_json reads as values, it reads as the same records.
                if let Ok(value) = serde_json::from_slice::<Value>(text) {
                    let steps = path(&made.at);
                    let items = walk(&value, &steps).expect(&shown);
                    let count = found.records.len() + found.rejected.len();
                    // Of a key that is there twice serde_json keeps one, and "*" is both.
                    let is_same = count == items || made.at.contains('*') && count > items;
                    assert!(is_same, "{count}, {items}: {shown}");
                }
            }
            (Ok(found), Err(error)) => {
                check(&body, found);
                assert!(!error.is_eof(), "cut short, and read: {shown}");
            }
            (Err(failure), Ok(_)) => {
                assert_eq!(failure.code, Code::UnexpectedShape, "{shown}");
                if !made.at.contains('*')
                    && let Ok(value) = serde_json::from_slice::<Value>(text)
                {
                    assert_eq!(walk(&value, &path(&made.at)), None, "{shown}");
                }
            }
            (Err(failure), Err(_)) => assert!(failure.message.len() < 200, "{shown}"),
        }
        let fields = memory::within(enough(&body), || envelope(&body, "data"));
        if let Ok(Value::Object(mut theirs)) = serde_json::from_slice(&body) {
            theirs.remove("data");
            assert_eq!(fields, theirs, "{shown}");
        }
    });
}

/// How many records lie there; `None`: the way leads nowhere.
fn walk(value: &Value, steps: &[String]) -> Option<usize> {
    let Some((step, rest)) = steps.split_first() else {
        return Some(match value {
            Value::Array(items) => items.len(),
            Value::Null => 0,
            Value::Object(fields) if fields.is_empty() => 0,
            _ => 1,
        });
    };
    // An item without the rest of the way has none.
    let each = |values: Vec<&Value>| {
        let counts = values
            .into_iter()
            .map(|value| walk(value, rest).unwrap_or(0));
        Some(counts.sum())
    };
    match (step.as_str(), value) {
        ("*", Value::Array(items)) => each(items.iter().collect()),
        ("*", Value::Object(fields)) => each(fields.values().collect()),
        (key, Value::Object(fields)) => walk(fields.get(key)?, rest),
        _ => None,
    }
}

#[test]
fn no_page_takes_longer_than_its_size_says() {
    let list = |item: &'static str| {
        move |size: usize| format!("{{\"data\":[{}]}}", vec![item; size].join(","))
    };
    let wrapped = |open: &'static str, close: &'static str| {
        move |size: usize| {
            format!(
                "{{\"data\":[{}1{},\"\u{1}\"]}}",
                open.repeat(size),
                close.repeat(size)
            )
        }
    };
    let read_it = |body: &String| {
        for at in ["data", "data.*", "*.*", "*.*.*"] {
            let _ = read_with(body.as_bytes(), at, &["id", "id.x"]);
        }
        let _ = envelope(body.as_bytes(), "data");
    };
    grows_with_its_size("nulls", 1_500, list("null"), read_it);
    grows_with_its_size("objects", 1_500, list("{\"id\":1}"), read_it);
    grows_with_its_size("broken strings", 1_500, list("\"\u{1}\""), read_it);
    grows_with_its_size("nested lists", 1_500, wrapped("[", "]"), read_it);
    grows_with_its_size("nested objects", 1_500, wrapped("{\"id\":", "}"), read_it);
    grows_with_its_size("open lists", 20_000, |size| "[".repeat(size), read_it);
    grows_with_its_size("open strings", 20_000, |size| "\"\\".repeat(size), read_it);
    grows_with_its_size(
        "equal keys",
        1_500,
        |size| format!("{{\"data\":{{{}\"id\":1}}}}", "\"id\":[1],".repeat(size)),
        read_it,
    );
}
