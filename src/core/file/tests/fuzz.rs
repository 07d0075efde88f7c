//! Text files: tables that the `csv` crate writes, in every encoding; lines of JSON; and both, damaged.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use serde_json::value::RawValue;
use serde_json::{Map, json};

use super::*;
use crate::fuzz::{Random, damaged, each, grows_with_its_size, memory};

/// Held for a file of this size: a part, the first rows, and buffers; and what a damaged file may be taken for.
pub fn enough(bytes: usize) -> usize {
    8 * 1024 * 1024 + 60 * bytes
}

/// What holds for whatever a file comes to.
pub fn check(came: &Came) {
    for (stream, record) in &came.records {
        // Its numbers may be larger than a double is.
        let value: &RawValue = serde_json::from_slice(&record.json).unwrap();
        assert!(value.get().starts_with('{'));
        assert!(record.id.starts_with(&format!("{stream}/")));
        assert!(!record.id.contains('\0'));
    }
    for rejected in &came.rejected {
        assert!(rejected.detail.starts_with("row "), "{}", rejected.detail);
        assert!(rejected.detail.len() < 700, "{}", rejected.detail);
    }
}

/// Reads it twice: the same comes, or the same refusal.
pub fn read_twice(
    source: &str,
    name: &str,
    bytes: &[u8],
    config: &Value,
    most: usize,
) -> Result<Came, Failure> {
    let read = || try_read(source, name, bytes, config.clone());
    let first = memory::within(most, read);
    match (&first, read()) {
        (Ok(came), Ok(again)) => {
            check(came);
            assert_eq!(came.texts(), again.texts());
            assert_eq!(came.ids(), again.ids());
            assert_eq!(came.refusals(), again.refusals());
        }
        (Err(failure), Err(again)) => {
            assert_eq!(failure.message, again.message);
            assert!(failure.message.len() < 10_000);
            assert!(failure.code.word() != "internal", "{failure}");
        }
        (Ok(came), Err(failure)) => panic!("{:?}, then {failure}", came.texts()),
        (Err(failure), Ok(came)) => panic!("{failure}, then {:?}", came.texts()),
    }
    first
}

fn encoded(text: &str, encoding: &'static Encoding, has_mark: bool) -> Vec<u8> {
    let wide = |bytes: fn(u16) -> [u8; 2]| {
        let mark = has_mark.then_some(0xFEFF);
        mark.into_iter()
            .chain(text.encode_utf16())
            .flat_map(bytes)
            .collect()
    };
    match encoding {
        e if e == UTF_16LE => wide(u16::to_le_bytes),
        e if e == UTF_16BE => wide(u16::to_be_bytes),
        e => {
            let mark: &[u8] = if has_mark && e == UTF_8 {
                b"\xEF\xBB\xBF"
            } else {
                b""
            };
            [mark, &e.encode(text).0].concat()
        }
    }
}

struct Written {
    bytes: Vec<u8>,
    config: Value,
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    /// By row: the line it begins in, and what is wrong with it.
    lines: Vec<u64>,
    bad: Vec<Option<&'static str>>,
}

fn table(random: &mut Random, harms: bool) -> Written {
    let encoding = random.pick(&[UTF_8, UTF_8, UTF_16LE, UTF_16BE, WINDOWS_1252]);
    let has_mark = random.percent(40);
    let fits = |text: &str| !encoding.encode(text).2 && !text.contains(['\u{feff}', '\r']);
    let width = random.between(2, 6);
    let headings: Vec<String> = (0..width)
        .map(|at| format!("h{at}{}", random.word(3)))
        .collect();
    let delimiter = random.pick(b",;\t|");
    let crlf = random.percent(50);
    let end = if crlf { "\r\n" } else { "\n" };
    let mut writer = csv::WriterBuilder::new()
        .delimiter(delimiter)
        .terminator(if crlf {
            csv::Terminator::CRLF
        } else {
            csv::Terminator::Any(b'\n')
        })
        .quote_style(random.pick(&[
            csv::QuoteStyle::Necessary,
            csv::QuoteStyle::Always,
            csv::QuoteStyle::NonNumeric,
        ]))
        .flexible(true)
        .from_writer(Vec::new());
    writer.write_record(&headings).unwrap();
    let (mut rows, mut lines, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    let mut line = 2;
    for _ in 0..random.between(1, 30) {
        let mut row: Vec<String> = Vec::new();
        for at in 0..width {
            let text = random.text(10);
            let text = if fits(&text) { text } else { random.word(4) };
            // A key, a number, and whatever.
            row.push(match at {
                0 => format!("k{}", rows.len()),
                1 => (random.number() as i32).to_string(),
                _ => text,
            });
        }
        let harm = match random.below(10) {
            0 if harms => {
                row[1] = "much".to_owned();
                Some("unreadable_value")
            }
            1 if harms => {
                row[0] = " ".to_owned();
                Some("key_missing")
            }
            2 if harms => {
                row.push("more".to_owned());
                Some("too_many_cells")
            }
            3 if harms => {
                row[width - 1] = "a\0b".to_owned();
                (width > 2)
                    .then_some("nul_character")
                    .or(Some("unreadable_value"))
            }
            _ => None,
        };
        writer.write_record(&row).unwrap();
        lines.push(line);
        line += 1 + row
            .iter()
            .map(|cell| cell.matches('\n').count() as u64)
            .sum::<u64>();
        rows.push(row);
        bad.push(harm);
    }
    let mut text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
    // A last row that is shorter than the one before was cut off.
    if !harms && random.percent(30) {
        text.truncate(text.len() - end.len());
    }
    let mut config = json!({
        "header": 1, "key": headings[0], "delimiter": char::from(delimiter).to_string().replace('\t', "tab"),
        "columns": {headings[1].clone(): "number"},
    });
    if !has_mark || encoding == WINDOWS_1252 {
        config["encoding"] = encoding.name().to_lowercase().into();
    }
    Written {
        bytes: encoded(&text, encoding, has_mark),
        config,
        headings,
        rows,
        lines,
        bad,
    }
}

fn expected(headings: &[String], row: &[String]) -> Value {
    let mut fields = Map::new();
    for (at, (heading, cell)) in headings.iter().zip(row).enumerate() {
        let value = match at {
            1 => serde_json::from_str(cell).unwrap(),
            _ => Value::String(cell.clone()),
        };
        fields.insert(heading.clone(), value);
    }
    Value::Object(fields)
}

#[test]
fn a_table_is_read_back_and_only_the_damaged_row_is_lost() {
    each("tables", |random| {
        let harms = random.percent(60);
        let written = table(random, harms);
        let came = read_twice(
            "csv",
            "x.csv",
            &written.bytes,
            &written.config,
            enough(written.bytes.len()),
        );
        let came = came.unwrap_or_else(|failure| panic!("{failure}"));
        let rows = written.rows.iter().zip(&written.bad);
        let sound = rows.filter(|(_, bad)| bad.is_none());
        let sound: Vec<Value> = sound
            .map(|(row, _)| expected(&written.headings, row))
            .collect();
        assert_eq!(came.values(), sound);
        let bad = written.lines.iter().zip(&written.bad);
        let mut bad: Vec<(String, &str)> = bad
            .filter_map(|(line, bad)| Some((format!("row {line}:"), (*bad)?)))
            .collect();
        let mut refused: Vec<(String, &str)> = came
            .rejected
            .iter()
            .map(|rejected| {
                (
                    format!("{}:", rejected.detail.split(':').next().unwrap()),
                    rejected.reason.word(),
                )
            })
            .collect();
        bad.sort();
        refused.sort();
        assert_eq!(refused, bad);
    });
}

#[test]
fn json_lines_are_read_back_and_only_the_damaged_line_is_lost() {
    each("lines of JSON", |random| {
        let (mut text, mut sound, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for line in 1..=random.between(1, 20) {
            match random.below(6) {
                0 => {}
                1 => {
                    let (piece, why): (&[u8], &str) = random.pick(&[
                        (b"{\"a\": oops}".as_slice(), "invalid_json"),
                        (b"{\"a\": \"\xff\"}", "invalid_utf8"),
                        (b"[1]", "not_an_object"),
                        (b"{\"a\": \"\\u0000\"}", "nul_character"),
                        (b"{", "invalid_json"),
                    ]);
                    text.extend_from_slice(piece);
                    bad.push((format!("row {line}"), why));
                }
                _ => {
                    let record = json!({"n": line, "t": random.text(9)}).to_string();
                    text.extend_from_slice(record.as_bytes());
                    sound.push(record);
                }
            }
            text.extend_from_slice(random.pick(&[b"\n".as_slice(), b"\r\n", b" \n"]));
        }
        let came = match try_read("csv", "x.jsonl", &text, json!({})) {
            Ok(came) => came,
            Err(failure) => {
                assert!(sound.is_empty() && bad.is_empty(), "{failure}");
                return;
            }
        };
        check(&came);
        assert_eq!(came.texts(), sound);
        let mut refused: Vec<(String, &str)> = came
            .rejected
            .iter()
            .map(|rejected| {
                (
                    rejected.detail.split(':').next().unwrap().to_owned(),
                    rejected.reason.word(),
                )
            })
            .collect();
        refused.sort();
        bad.sort();
        assert_eq!(refused, bad);
    });
}

#[test]
fn any_text_is_read_or_refused() {
    each("any text file", |random| {
        let harms = random.percent(50);
        let (written, other) = (table(random, harms), table(random, true));
        let bytes = match random.percent(15) {
            true => {
                let length = random.few(2_000);
                random.bytes(length)
            }
            false => damaged(random, &written.bytes, &other.bytes),
        };
        let mut config = match random.below(3) {
            0 => json!({}),
            1 => json!({"header": false}),
            _ => written.config,
        };
        for (key, values) in [
            (
                "encoding",
                vec![
                    json!("utf-16le"),
                    json!("shift_jis"),
                    json!("gb18030"),
                    json!("iso-2022-jp"),
                    json!("windows-1252"),
                ],
            ),
            (
                "delimiter",
                vec![
                    json!(" "),
                    json!("tab"),
                    json!("e"),
                    json!(":"),
                    json!("\u{1}"),
                ],
            ),
            (
                "quote",
                vec![json!("'"), json!("e"), json!(" "), json!(false)],
            ),
            ("footer", vec![json!(1), json!(7)]),
            ("null_values", vec![json!(["", "a"])]),
            ("header", vec![json!(3), json!(false)]),
        ] {
            if random.percent(8) {
                config[key] = random.pick(&values);
            }
        }
        if layout("csv", config.clone()).is_err() {
            return;
        }
        let name = random.pick(&["x.csv", "x.csv", "x.tsv", "x.jsonl"]);
        let _ = read_twice("csv", name, &bytes, &config, enough(bytes.len()));
    });
}

#[test]
fn no_text_takes_longer_than_its_size_says() {
    let read_it = |name: &'static str| {
        move |bytes: &Vec<u8>| {
            let _ = try_read("csv", name, bytes, json!({}));
        }
    };
    let rows =
        |row: &'static str| move |size: usize| ["a,b\n", &row.repeat(size)].concat().into_bytes();
    grows_with_its_size(
        "equal headings",
        400,
        |size| format!("{}\n1\n", "a,".repeat(size)).into_bytes(),
        read_it("x.csv"),
    );
    grows_with_its_size(
        "no headings",
        400,
        |size| format!("{}\n1\n", ",".repeat(size)).into_bytes(),
        read_it("x.csv"),
    );
    grows_with_its_size("rows", 1_000, rows("1,2\n"), read_it("x.csv"));
    grows_with_its_size("rows too long", 1_000, rows("1,2,3\n"), read_it("x.csv"));
    grows_with_its_size(
        "rows of dates",
        500,
        |size| {
            [
                &"a,".repeat(19),
                "a\n",
                &["1/2/2026,".repeat(19).as_str(), "1/2/2026\n"]
                    .concat()
                    .repeat(size),
            ]
            .concat()
            .into_bytes()
        },
        read_it("x.csv"),
    );
    grows_with_its_size("blank rows", 2_000, rows("\n"), read_it("x.csv"));
    grows_with_its_size("rows of nothing", 2_000, rows(",\n"), read_it("x.csv"));
    grows_with_its_size("quotes", 5_000, rows("\"\"\"\""), read_it("x.csv"));
    grows_with_its_size("a cell of digits", 5_000, rows("1,234"), read_it("x.csv"));
    grows_with_its_size("broken lines", 1_000, rows("{\n"), read_it("x.jsonl"));
    grows_with_its_size("one long line", 5_000, rows("[{"), read_it("x.jsonl"));
}

#[test]
fn a_refused_file_is_not_held_in_memory_as_a_whole() {
    // Each line is as long as a record may be, and none is one.
    let mut text = Vec::new();
    for _ in 0..12 {
        text.extend_from_slice(&b"x".repeat(LIMITS.bytes - 2));
        text.push(b'\n');
    }
    let layout = layout("csv", json!({})).unwrap();
    let content = &mut Cursor::new(text.as_slice());
    let mut rejected = 0;
    memory::within(6 * LIMITS.bytes, || {
        let mut understood = understand(content, "x.jsonl", &layout, LIMITS).unwrap();
        let _ = understood.read(content, &layout, LIMITS, &mut |part| {
            rejected += part.rejected.len();
            Ok(true)
        });
    });
    assert_eq!(rejected, 12);
}
