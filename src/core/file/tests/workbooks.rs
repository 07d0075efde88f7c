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

const ERRORS: &[u8] = include_bytes!("workbooks/errors_openpyxl.xlsx");
const TIMES_ODS: &[u8] = include_bytes!("workbooks/times_odfpy.ods");
const TIMES_XLSX: &[u8] = include_bytes!("workbooks/times_xlsxwriter.xlsx");
const BESIDE: &[u8] = include_bytes!("workbooks/beside.xlsx");

#[test]
fn every_error_of_a_cell_is_its_text() {
    let came = read("excel", "x.xlsx", ERRORS, json!({"key": "id"}));
    let errors = [
        "#DIV/0!",
        "#N/A",
        "#NAME?",
        "#NULL!",
        "#NUM!",
        "#REF!",
        "#VALUE!",
        "#GETTING_DATA",
        "#SPILL!",
        "#CONNECT!",
        "#BLOCKED!",
        "#UNKNOWN!",
        "#FIELD!",
        "#CALC!",
        "#BUSY!",
        "#PYTHON!",
        "#OF-TOMORROW!",
    ];
    let expected: Vec<_> = (1..)
        .zip(errors)
        .map(|(id, error)| json!({"id": id, "value": error, "behind": format!("row {id}")}))
        .collect();
    assert_eq!(came.values(), expected);
}

#[test]
fn times_and_amounts_of_time_are_as_written() {
    let times = |name: &str, bytes: &[u8]| -> Vec<serde_json::Value> {
        let came = read("excel", name, bytes, json!({}));
        came.values()
            .into_iter()
            .map(|value| value["time"].clone())
            .collect()
    };
    assert_eq!(
        times("x.ods", TIMES_ODS),
        [
            "13:45:30",
            "08:30:00",
            "26:00:00",
            "-00:10:00",
            "100:00:05.25"
        ]
    );
    assert_eq!(
        times("x.xlsx", TIMES_XLSX),
        [
            "13:45:30",
            "26:00:00",
            "100:00:05",
            "-00:10:00",
            "2026-10-13T22:30:00"
        ]
    );
}

#[test]
fn an_empty_sheet_in_front_is_passed_over() {
    let books: [(&str, &[u8]); 3] = [
        ("x.xlsx", include_bytes!("workbooks/empty_first.xlsx")),
        ("x.ods", include_bytes!("workbooks/empty_first.ods")),
        ("x.xls", include_bytes!("workbooks/empty_first.xls")),
    ];
    for (name, bytes) in books {
        let came = read("excel", name, bytes, json!({}));
        assert_eq!(came.values(), [json!({"id": 1, "amount": 5})], "{name}");
        assert!(
            came.notes
                .join("\n")
                .contains("these sheets are not read: \"Cover\""),
            "{name}"
        );
    }
}

#[test]
fn a_merged_title_is_no_heading_and_a_note_beside_the_table_is_a_column() {
    for config in [json!({}), json!({"fill_merged": true})] {
        let came = read("excel", "x.xlsx", BESIDE, config);
        assert_eq!(
            came.values(),
            [
                json!({"Order ID": 1001, "Day": "2026-10-13", "Amount": 19.9}),
                json!({"Order ID": 1002, "Day": "2026-10-14", "Amount": 5, "column_4": null, "column_5": "late"}),
            ]
        );
        assert!(came.rejected.is_empty());
    }
}

#[test]
fn sheets_have_keys_of_their_own() {
    let config = json!({"sheets": ["Sales", "Stock"], "key": {"Sales": "Order ID", "Stock": ["Shop", "Item"]}});
    let came = read("excel", "x.xlsx", BESIDE, config);
    let ids = came.ids();
    assert_eq!(ids[..2], ["Sales/1001", "Sales/1002"]);
    assert!(ids[2].starts_with("Stock/#") && ids[2] != ids[3], "{ids:?}");
    // A sheet that is not named has none.
    let config = json!({"sheets": ["Sales", "Stock"], "key": {"Sales": "Order ID"}});
    assert_eq!(read("excel", "x.xlsx", BESIDE, config).values().len(), 4);
    for wrong in [
        json!({"key": {"Sales": "Order ID"}}),
        json!({"sheets": ["Sales"], "key": {"Stock": "Item"}}),
        json!({"sheets": ["Sales"], "key": {"Sales": []}}),
        json!({"sheets": ["Sales"], "key": {"Sales": ["a", "a"]}}),
    ] {
        assert!(super::layout("excel", wrong.clone()).is_err(), "{wrong}");
    }
}
