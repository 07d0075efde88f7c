use proptest::prelude::*;
use serde_json::{Value, json};

use super::{layout, read, refusal, try_read};

#[test]
fn delimiters_are_detected_or_declared() {
    let expected = vec![json!({"a": "1", "b": "x,y"}), json!({"a": "2", "b": "z"})];
    let files: [(&str, &str, Value); 7] = [
        ("comma.csv", "a,b\n1,\"x,y\"\n2,z\n", json!({})),
        ("semicolon.csv", "a;b\n1;x,y\n2;z\n", json!({})),
        ("tab.csv", "a\tb\n1\tx,y\n2\tz\n", json!({})),
        ("pipe.txt", "a|b\n1|x,y\n2|z\n", json!({})),
        ("hint.csv", "sep=;\r\na;b\r\n1;x,y\r\n2;z\r\n", json!({})),
        ("named.tsv", "a\tb\n1\tx,y\n2\tz\n", json!({})),
        ("declared.csv", "a~b\n1~x,y\n2~z", json!({"delimiter": "~"})),
    ];
    for (name, text, config) in files {
        assert_eq!(
            read("csv", name, text.as_bytes(), config).values(),
            expected,
            "{name}"
        );
    }
    // Decimal commas between semicolons.
    let came = read(
        "csv",
        "x.csv",
        b"Datum;Betrag;Anzahl\n1.3.;1,5;2\n2.3.;2,5;3\n",
        json!({}),
    );
    assert_eq!(
        came.values()[1],
        json!({"Datum": "2.3.", "Betrag": "2,5", "Anzahl": "3"})
    );
    let came = read("csv", "x.csv", b"name\nAda\nBob\n", json!({}));
    assert_eq!(
        came.values(),
        [json!({"name": "Ada"}), json!({"name": "Bob"})]
    );
}

#[test]
fn encodings_are_detected_by_their_byte_order_mark_or_declared() {
    let text = "Name;Größe\nÅsa;10 €\n";
    let expected = vec![json!({"Name": "Åsa", "Größe": "10 €"})];
    let utf_16 = |little: bool| -> Vec<u8> {
        let units = text.encode_utf16();
        units
            .flat_map(|unit| {
                if little {
                    unit.to_le_bytes()
                } else {
                    unit.to_be_bytes()
                }
            })
            .collect()
    };
    let windows = encoding_rs::WINDOWS_1252.encode(text).0.into_owned();
    let files: [(Vec<u8>, Value); 6] = [
        (text.into(), json!({})),
        ([b"\xEF\xBB\xBF", text.as_bytes()].concat(), json!({})),
        ([b"\xFF\xFE".to_vec(), utf_16(true)].concat(), json!({})),
        ([b"\xFE\xFF".to_vec(), utf_16(false)].concat(), json!({})),
        (utf_16(true), json!({"encoding": "utf-16le"})),
        (windows.clone(), json!({"encoding": "windows-1252"})),
    ];
    for (position, (bytes, config)) in files.into_iter().enumerate() {
        assert_eq!(
            read("csv", "x.csv", &bytes, config).values(),
            expected,
            "{position}"
        );
    }
    let (code, words) = refusal("csv", "x.csv", &windows, json!({}));
    assert_eq!(
        (
            code,
            words.contains("line 1, column 2: the bytes are not valid UTF-8")
        ),
        ("file_refused", true),
        "{words}"
    );
    let (_, words) = refusal("csv", "x.csv", &utf_16(true), json!({}));
    assert!(words.contains("\"encoding\" to \"utf-16le\""), "{words}");
    // Half of a line end at the end, as when a text is cut or one byte is put behind it.
    let marked = [b"\xFF\xFE".to_vec(), utf_16(true)].concat();
    let halves = [
        &marked[..marked.len() - 1],
        &[&*marked, b"\n"].concat(),
        &[&*marked, b"\x1A"].concat(),
    ]
    .map(<[u8]>::to_vec);
    for half in halves {
        assert_eq!(read("csv", "x.csv", &half, json!({})).values(), expected);
    }
    // Half of a character is none.
    let (_, words) = refusal("csv", "x.csv", &[&*marked, b"x"].concat(), json!({}));
    assert!(
        words.contains("the bytes are not valid UTF-16LE"),
        "{words}"
    );
    // A large file is decoded in pieces.
    let large: String = (0..40_000).map(|row| format!("Ö{row};ü\n")).collect();
    let large = encoding_rs::WINDOWS_1252.encode(&large).0.into_owned();
    let came = read(
        "csv",
        "x.csv",
        &large,
        json!({"encoding": "windows-1252", "header": false}),
    );
    assert_eq!(came.values().len(), 40_000);
    assert_eq!(
        came.values()[39_999],
        json!({"column_1": "Ö39999", "column_2": "ü"})
    );
}

#[test]
fn headings_are_found_below_titles_or_declared() {
    let text = "Report of March;;\n;;\nDate;Shop;Amount\n1.3.;Oslo;5\n\n2.3.;Rome;6\n";
    let expected = vec![
        json!({"Date": "1.3.", "Shop": "Oslo", "Amount": "5"}),
        json!({"Date": "2.3.", "Shop": "Rome", "Amount": "6"}),
    ];
    assert_eq!(
        read("csv", "x.csv", text.as_bytes(), json!({})).values(),
        expected
    );
    assert_eq!(
        read("csv", "x.csv", text.as_bytes(), json!({"header": 3})).values(),
        expected
    );
    assert_eq!(
        read("csv", "x.csv", text.as_bytes(), json!({"key": ["Shop"]})).values(),
        expected
    );
    let came = read(
        "csv",
        "x.csv",
        b"1,2\n3,4\n",
        json!({"header": false, "headings": ["a", "b"]}),
    );
    assert_eq!(
        came.values(),
        [json!({"a": "1", "b": "2"}), json!({"a": "3", "b": "4"})]
    );
    let came = read(
        "csv",
        "x.csv",
        b"x,y\n3,4\n",
        json!({"headings": ["a", "b"]}),
    );
    assert_eq!(came.values(), [json!({"a": "3", "b": "4"})]);
    let (code, words) = refusal("csv", "x.csv", text.as_bytes(), json!({"key": ["Shopp"]}));
    assert_eq!(code, "invalid_config");
    assert!(
        words.contains("\"Shopp\"") && words.contains("Date, Shop, Amount"),
        "{words}"
    );
    let (code, _) = refusal("csv", "x.csv", text.as_bytes(), json!({"header": 90}));
    assert_eq!(code, "invalid_config");
    // A heading that is empty, or there twice.
    let came = read("csv", "x.csv", b",a,a\n0,1,2\n", json!({}));
    assert_eq!(
        came.values(),
        [json!({"column_1": "0", "a": "1", "a_2": "2"})]
    );
    assert_eq!(came.notes.len(), 2, "{:?}", came.notes);
}

#[test]
fn rows_that_do_not_fit_are_reported_with_their_line() {
    let text = "id,amount,day\n1,5,2026-03-01\n2,six,2026-03-02\n3,7\n,8,2026-03-04\n\n5,9,2026-03-05,extra\n6,1,2026-13-01\n7,2,2026-03-07\n,,\nTotal,32,\n";
    let config =
        json!({"key": ["id"], "columns": {"amount": "number", "day": "date"}, "footer": 1});
    for text in [text.to_owned(), text.replace('\n', "\r\n")] {
        let came = read("csv", "x.csv", text.as_bytes(), config.clone());
        assert_eq!(came.ids(), ["rows/1", "rows/3", "rows/7"]);
        assert_eq!(
            came.texts(),
            [
                r#"{"id":"1","amount":5,"day":"2026-03-01"}"#,
                r#"{"id":"3","amount":7}"#,
                r#"{"id":"7","amount":2,"day":"2026-03-07"}"#
            ]
        );
        assert_eq!(
            came.refusals(),
            [
                (
                    "unreadable_value",
                    "row 3: column \"amount\": \"six\" is not a number with the decimal separator \".\""
                ),
                ("key_missing", "row 5: the key columns are empty"),
                (
                    "too_many_cells",
                    "row 7: the row has 4 cells, but there are 3 headings"
                ),
                (
                    "unreadable_value",
                    "row 8: column \"day\": \"2026-13-01\" is not a date of the format YYYY-MM-DD"
                ),
            ]
        );
    }
}

#[test]
fn values_have_the_declared_type_of_their_column() {
    let config = json!({
        "decimal": ",", "thousands": ".", "date_format": "DD.MM.YYYY", "null_values": ["", "k.A."],
        "columns": {
            "Betrag": "number", "Kurs": {"type": "number", "decimal": ".", "thousands": "'"}, "Tag": "date",
            "Zeit": {"type": "timestamp", "format": "DD.MM.YYYY HH24:MI"}, "Bezahlt": "boolean"
        }
    });
    let text = "Nr;Betrag;Kurs;Tag;Zeit;Bezahlt;Notiz\n007;\"1.234,56 €\";1'000.5;03.04.2026;03.04.2026 17:05;ja;k.A.\n008;-2;;;;x;\n";
    let mut config_yes = config;
    let came = read(
        "csv",
        "x.csv",
        text.replace("ja", "yes").as_bytes(),
        config_yes.take(),
    );
    assert_eq!(
        came.texts(),
        [
            r#"{"Nr":"007","Betrag":1234.56,"Kurs":1000.5,"Tag":"2026-04-03","Zeit":"2026-04-03T17:05:00","Bezahlt":true,"Notiz":null}"#,
            r#"{"Nr":"008","Betrag":-2,"Kurs":null,"Tag":null,"Zeit":null,"Bezahlt":true,"Notiz":null}"#
        ]
    );
}

#[test]
fn columns_that_look_like_numbers_or_dates_are_reported_and_stay_text() {
    let text = "id;sum;day;either;plain\n1;1.234,56;31.12.2026;03/04/2026;5.5\n2;7,00;01.01.2026;04/05/2026;6\n";
    let came = read("csv", "x.csv", text.as_bytes(), json!({}));
    assert_eq!(came.values()[0]["sum"], json!("1.234,56"));
    let notes = came.notes.join("\n");
    assert!(notes.contains(r#"column "sum" is read as text, but looks like numbers, such as "1.234,56"; to read it as numbers, declare it in config's "columns": {"type": "number", "decimal": ",", "thousands": "."}"#), "{notes}");
    assert!(
        notes.contains(r#"{"type": "date", "format": "DD.MM.YYYY"}"#),
        "{notes}"
    );
    assert!(notes.contains("may be DD/MM/YYYY or MM/DD/YYYY"), "{notes}");
    assert_eq!(came.notes.len(), 3, "{notes}");
    assert_eq!(came.report["written_as"], json!("UTF-8, delimiter \";\""));
    assert_eq!(came.report["tables"][0]["headings_in_row"], json!(1));
}

#[test]
fn rows_without_a_key_are_identified_by_content_and_repetition() {
    let text = "day,item\n1,tea\n1,tea\n2,tea\n1,tea\n";
    let first = read("csv", "x.csv", text.as_bytes(), json!({}));
    let ids: std::collections::BTreeSet<&str> = first.ids().into_iter().collect();
    assert_eq!(ids.len(), 4);
    // The same rows in another order, in another file: the same records.
    let second = read(
        "csv",
        "y.csv",
        b"day,item\n2,tea\n1,tea\n1,tea\n1,tea\n",
        json!({}),
    );
    assert_eq!(ids, second.ids().into_iter().collect());
}

#[test]
fn the_last_of_rows_with_the_same_key_is_stored_with_a_warning() {
    let came = read(
        "csv",
        "x.csv",
        b"id,n\n1,a\n2,b\n1,c\n",
        json!({"key": "id"}),
    );
    assert_eq!(came.ids(), ["rows/1", "rows/2", "rows/1"]);
    assert!(
        came.notes[0].starts_with("1 rows have the same key"),
        "{:?}",
        came.notes
    );
    let came = read(
        "csv",
        "x.csv",
        b"id,n\n1,a\n1,b\n",
        json!({"key": ["id", "n"]}),
    );
    assert!(came.notes.is_empty() && came.ids()[0] != came.ids()[1]);
}

#[test]
fn json_lines_are_records_as_they_are() {
    let text = b"{\"id\": 1, \"n\": 1.10}\n\n{\"id\": 2\n[3]\n{\"id\": 4, \"n\": 12345678901234567890.5}\n";
    let came = read("csv", "x.jsonl", text, json!({"key": "id"}));
    assert_eq!(came.ids(), ["rows/1", "rows/4"]);
    assert_eq!(came.texts()[1], r#"{"id": 4, "n": 12345678901234567890.5}"#);
    let mut refusals = came.refusals();
    refusals.sort_unstable();
    assert_eq!(
        refusals,
        [
            ("invalid_json", "row 3: it is not valid JSON"),
            ("not_an_object", "row 4: it is not an object")
        ]
    );
    let (code, words) = refusal("csv", "x.ndjson", b"{\"id\": 1}\n{\"id\": ", json!({}));
    assert_eq!(
        (code, words.as_str()),
        (
            "file_refused",
            "line 2: the file ends in the middle of a record"
        )
    );
    let came = read(
        "csv",
        "x.txt",
        b"{\"id\": 1}",
        json!({"format": "json_lines"}),
    );
    assert_eq!(came.texts(), [r#"{"id": 1}"#]);
}

#[test]
fn an_invalid_config_is_refused_when_it_is_saved() {
    let wrong = [
        json!({"delimeter": ";"}),
        json!({"delimiter": ";;"}),
        json!({"encoding": "latin-one"}),
        json!({"encoding": "hz-gb-2312"}),
        json!({"columns": {"a": "money"}}),
        json!({"columns": {"a": {"type": "date", "format": "tt.mm.jjjj"}}}),
        json!({"columns": {"a": {"type": "number", "format": "x"}}}),
        json!({"decimal": ",", "thousands": ",", "columns": {"a": "number"}}),
        json!({"replaces": "everything"}),
        json!({"key": ["a", "a"]}),
        json!({"key": [""]}),
        json!({"header": 0}),
        json!({"header": "first"}),
        json!({"footer": -1}),
        json!({"stream": "a/b"}),
        json!({"quote": "long"}),
        json!({"format": "xml"}),
        json!({"null_values": [1]}),
    ];
    for config in wrong {
        let failure = layout("csv", config.clone()).unwrap_err();
        assert_eq!(failure.code.word(), "invalid_config", "{config}");
    }
    assert!(layout("excel", json!({"delimiter": ";"})).is_err());
    assert!(layout("excel", json!({"sheets": ["a/b"]})).is_err());
}

fn quoted(cell: &str) -> String {
    format!("\"{}\"", cell.replace('"', "\"\""))
}

proptest! {
    #[test]
    fn a_written_file_is_read_back(
        rows in prop::collection::vec(prop::collection::vec("[^\0]{0,12}", 3), 1..30),
        delimiter in prop::sample::select(vec![',', ';', '\t', '|']),
        crlf: bool,
        ends: bool,
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let line = |cells: &[String]| cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(&delimiter.to_string());
        let heads = ["first".to_owned(), "second".to_owned(), "third".to_owned()];
        let mut lines = vec![line(&heads)];
        lines.extend(rows.iter().map(|row| line(row)));
        let mut text = lines.join(end);
        if ends {
            text.push_str(end);
        }
        let config = json!({"delimiter": delimiter.to_string().replace('\t', "tab"), "header": 1});
        let came = read("csv", "x.csv", text.as_bytes(), config);
        let expected: Vec<Value> = rows
            .iter()
            .filter(|row| !row.iter().all(|cell| cell.trim().is_empty()))
            .map(|row| json!({"first": row[0], "second": row[1], "third": row[2]}))
            .collect();
        prop_assert_eq!(came.values(), expected);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), name in prop::sample::select(vec!["x.csv", "x.tsv", "x.jsonl"])) {
        let _ = try_read("csv", name, &bytes, json!({}));
        let _ = try_read("csv", name, &bytes, json!({"encoding": "utf-16le", "key": "a"}));
    }

    #[test]
    fn any_delimited_text_is_read_or_refused(text in "[a-c,;\"\n\r\0é]{0,200}") {
        let _ = try_read("csv", "x.csv", text.as_bytes(), json!({}));
    }
}
