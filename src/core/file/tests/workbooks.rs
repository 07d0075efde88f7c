//! Workbooks that openpyxl and LibreOffice wrote (`workbooks/make.py` had them made), read as what they hold.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{read, refusal, try_read};

macro_rules! books {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("workbooks/", $name)).as_slice())),*]
    };
}

const BOOKS: &[(&str, &[u8])] = books!(
    "openpyxl.xlsx" "openpyxl_1904.xlsx" "libreoffice.xlsx" "libreoffice.ods" "libreoffice.xls"
    "libreoffice_1904.xlsx" "libreoffice_1904.ods" "libreoffice_1904.xls"
);
const UNCOMPUTED: &[u8] = include_bytes!("workbooks/uncomputed.xlsx");

fn sales() -> Vec<Value> {
    vec![
        json!({
            "Order ID": "00123", "Date": "2026-03-04", "When": "2026-03-04T05:06:07", "At": "05:06:07",
            "Amount": 1234.56, "Count": 3, "Paid": true, "Note": "plain", "Rate": 0.125, "Long": 123_456_789_012_345_u64
        }),
        json!({
            "Order ID": "00124", "Date": "1950-02-28", "When": "2026-12-31T23:59:59", "At": "00:00:00",
            "Amount": -0.1, "Count": 0, "Paid": false, "Note": "Grüße, <b> & \"quotes\"\nnext line, 漢字 😀", "Rate": 1,
            "Long": 999_999_999_999_999_u64
        }),
        json!({
            "Order ID": "00125", "Date": null, "When": null, "At": null, "Amount": null, "Count": null, "Paid": null,
            "Note": "bold part"
        }),
    ]
}

/// Of formulas, what they come to.
fn computed() -> Vec<Value> {
    let mut rows = sales();
    for (row, (double, words)) in
        rows.iter_mut()
            .zip([(6, "no 00123"), (0, "no 00124"), (0, "no 00125")])
    {
        for (heading, value) in [
            ("Rate", Value::Null),
            ("Long", Value::Null),
            ("Double", json!(double)),
            ("Broken", json!("#DIV/0!")),
            ("Words", json!(words)),
        ] {
            row.as_object_mut().unwrap().entry(heading).or_insert(value);
        }
    }
    rows
}

#[test]
fn every_workbook_is_read_as_what_it_holds() {
    for (name, bytes) in BOOKS {
        let came = read("excel", name, bytes, json!({}));
        let mut expected = match name.starts_with("libreoffice.") {
            true => computed(),
            false => sales(),
        };
        if name.ends_with(".ods") {
            // What LibreOffice reads as =TRUE() it writes as a number.
            expected[0]["Paid"] = json!(1);
            expected[1]["Paid"] = json!(0);
        }
        assert_eq!(came.values(), expected, "{name}");
        assert!(came.rejected.is_empty());
        let notes = came.notes.join("\n");
        assert!(
            notes.contains("these sheets are not read: \"Shops\", \"Secret\""),
            "{name}: {notes}"
        );
        assert!(
            notes.contains("1 hidden rows are read as well"),
            "{name}: {notes}"
        );
        assert!(
            notes.contains("hidden columns are read as well"),
            "{name}: {notes}"
        );
        assert_eq!(
            came.report["tables"][0]["headings_in_row"],
            json!(3),
            "{name}"
        );
    }
}

#[test]
fn the_same_workbook_in_any_form_has_the_same_records() {
    let ids = |name: &str| {
        let (name, bytes) = BOOKS.iter().find(|(other, _)| *other == name).unwrap();
        let came = read(
            "excel",
            name,
            bytes,
            json!({"columns": {"Paid": "boolean"}}),
        );
        came.ids()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let all: Vec<Vec<String>> = ["libreoffice.xlsx", "libreoffice.ods", "libreoffice.xls"]
        .map(ids)
        .into();
    assert_eq!(all[0].len(), 3);
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
}

#[test]
fn several_sheets_become_several_streams_and_config_decides_on_merged_and_hidden_cells() {
    for (name, bytes) in BOOKS {
        let config = json!({"sheets": ["Shops", "Secret", "Sales"], "fill_merged": true, "skip_hidden": true});
        let came = read("excel", name, bytes, config);
        let mut streams: Vec<&str> = came
            .records
            .iter()
            .map(|(stream, _)| stream.as_str())
            .collect();
        streams.dedup();
        assert_eq!(streams, ["Shops", "Secret", "Sales"], "{name}");
        let values = came.values();
        let shops = [
            json!({"Region": "North", "Shop": "Oslo", "Revenue": 1}),
            json!({"Region": "North", "Shop": "Bergen", "Revenue": 2}),
            json!({"Region": "South", "Shop": "Roma", "Revenue": 3}),
        ];
        assert_eq!(values[..3], shops, "{name}");
        assert_eq!(values[3], json!({"x": 1}), "{name}");
        // The second of the sales is in a hidden row.
        assert_eq!(
            (values.len(), &values[4]["Order ID"], &values[5]["Order ID"]),
            (6, &json!("00123"), &json!("00125")),
            "{name}"
        );
        let came = read("excel", name, bytes, json!({"sheets": ["Shops"]}));
        assert_eq!(
            came.values()[1],
            json!({"Region": null, "Shop": "Bergen", "Revenue": 2}),
            "{name}"
        );
        assert!(
            came.notes
                .iter()
                .any(|note| note.contains("only the first of merged cells")),
            "{name}"
        );
        let (code, words) = refusal("excel", name, bytes, json!({"sheets": ["Shop"]}));
        assert_eq!(code, "invalid_config");
        assert!(
            words.contains("\"Sales\", \"Shops\", \"Secret\""),
            "{words}"
        );
    }
}

#[test]
fn workbook_columns_are_declared_like_text_columns() {
    let config = json!({"key": "Order ID", "columns": {
        "Long": "text", "When": "date", "Date": "timestamp", "Paid": "boolean", "Amount": "number", "Note": "text"}});
    for (name, bytes) in BOOKS {
        let came = read("excel", name, bytes, config.clone());
        assert_eq!(came.ids(), ["rows/00123", "rows/00124", "rows/00125"]);
        let first = &came.values()[0];
        assert_eq!(first["Long"], json!("123456789012345"), "{name}");
        assert_eq!(first["When"], json!("2026-03-04"), "{name}");
        assert_eq!(first["Date"], json!("2026-03-04T00:00:00"), "{name}");
        assert_eq!(first["Paid"], json!(true), "{name}");
    }
    let (name, bytes) = BOOKS[2];
    let came = read(
        "excel",
        name,
        bytes,
        json!({"columns": {"Broken": "number"}}),
    );
    assert_eq!(
        came.refusals()[0],
        (
            "unreadable_value",
            "row 4: column \"Broken\": \"#DIV/0!\" is not a number with the decimal separator \".\""
        )
    );
}

#[test]
fn a_formula_without_a_value_is_refused_with_its_cell() {
    let (code, words) = refusal("excel", "x.xlsx", UNCOMPUTED, json!({}));
    assert_eq!(code, "file_refused");
    assert!(
        words.contains("sheet \"Sales\", cell K4: the formula has no stored value"),
        "{words}"
    );
    // Of a sheet that is not read it does not matter.
    assert_eq!(
        read("excel", "x.xlsx", UNCOMPUTED, json!({"sheets": ["Shops"]}))
            .values()
            .len(),
        3
    );
}

#[test]
fn a_workbook_is_refused_as_text_and_text_as_a_workbook() {
    for (name, bytes) in BOOKS {
        let (code, words) = refusal("csv", name, bytes, json!({}));
        assert_eq!(code, "file_refused", "{name}");
        assert!(words.contains("type \"excel\""), "{words}");
    }
    let (_, words) = refusal("excel", "x.xlsx", b"a,b\n1,2\n", json!({}));
    assert!(words.contains("type \"csv\""), "{words}");
}

#[test]
fn a_truncated_workbook_is_refused() {
    for (name, bytes) in BOOKS {
        for part in 1..20 {
            let cut = &bytes[..bytes.len() * part / 20];
            let (code, words) = refusal("excel", name, cut, json!({}));
            assert!(
                matches!(code, "file_refused" | "file_too_large"),
                "{name} {part}: {words}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_workbook_with_wrong_bytes_is_read_or_refused(
        which in 0..BOOKS.len(),
        wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (name, bytes) = BOOKS[which];
        let mut bytes = bytes.to_vec();
        for (at, byte) in wrong {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = try_read("excel", name, &bytes, json!({"sheets": ["Sales", "Shops"]}));
    }
}
