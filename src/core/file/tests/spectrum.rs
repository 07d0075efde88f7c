//! csv-spectrum (npm, BSD-2-Clause): every odd file of it, as its JSON says.

use serde_json::{Value, json};

use super::read;

macro_rules! spectrum {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("spectrum/", $name, ".csv")).as_slice(), include_str!(concat!("spectrum/", $name, ".json")))),*]
    };
}

const SPECTRUM: &[(&str, &[u8], &str)] = spectrum!(
    "comma_in_quotes" "empty" "empty_crlf" "escaped_quotes" "json" "location_coordinates" "newlines" "newlines_crlf"
    "quotes_and_newlines" "simple" "simple_crlf" "utf8"
);

#[test]
fn every_file_of_the_suite_is_read_as_its_json_says() {
    for (name, csv, expected) in SPECTRUM {
        // The suite's JSON has a made-up number where its CSV still has the one of before.
        let expected = match *name {
            "location_coordinates" => expected.replace("1234567890", "2095257564"),
            _ => expected.to_string(),
        };
        let expected = match serde_json::from_str(&expected).unwrap() {
            Value::Array(rows) => rows,
            row => vec![row],
        };
        let came = read("csv", &format!("{name}.csv"), csv, json!({}));
        assert_eq!(came.values(), expected, "{name}");
        assert!(came.rejected.is_empty(), "{name}");
    }
}
