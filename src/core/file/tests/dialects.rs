//! Tables that Python's csv and pandas wrote in dialects of their choice: `dialects/make.py` made them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::try_read;

#[test]
fn what_python_wrote_is_read_cell_by_cell() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("dialects/python.json")).unwrap();
    assert!(cases.len() > 120);
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let content = STANDARD.decode(case["content"].as_str().unwrap()).unwrap();
        let name = case["name"].as_str().unwrap_or("export.csv");
        let told = format!(
            "{number} by {}, {}: {}",
            case["by"],
            case["config"],
            String::from_utf8_lossy(&content)
        );
        match try_read("csv", name, &content, case["config"].clone()) {
            Err(failure) => wrong.push(format!("{told}\n{failure}")),
            Ok(came) => {
                let is_blank = |row: &&Value| {
                    let cells = row.as_object().unwrap().values();
                    cells
                        .into_iter()
                        .all(|cell| cell.as_str().unwrap().trim().is_empty())
                };
                let expected: Vec<&Value> = case["rows"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|row| !is_blank(row))
                    .collect();
                let values = came.values();
                if values.iter().collect::<Vec<_>>() != expected {
                    wrong.push(format!(
                        "{told}\ncame: {values:?}\nexpected: {expected:?}\n{:?}",
                        came.refusals()
                    ));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n\n")
    );
}
