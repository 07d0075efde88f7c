//! Shopify's own schema as a judge over what was asked and answered: `pg_test/shopify/judge.js`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Nothing is wrong with any of these queries and answers.
pub fn is_silent(said: &[Value]) {
    let pg_test = Path::new(env!("CARGO_MANIFEST_DIR"));
    let prepared = Command::new(pg_test.join("prepare.sh"))
        .args(["node", "shopify"])
        .stdout(Stdio::null())
        .status();
    assert!(prepared.unwrap().success(), "prepare.sh node shopify");
    let mut judge = Command::new("node")
        .arg(pg_test.join("shopify/judge.js"))
        .arg(pg_test.join("../target/shopify").canonicalize().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node");
    let mut stdin = judge.stdin.take().unwrap();
    let lines: Vec<String> = said.iter().map(Value::to_string).collect();
    let writer = std::thread::spawn(move || stdin.write_all((lines.join("\n") + "\n").as_bytes()));
    let output = judge.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let found: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(!said.is_empty() && found.len() == said.len());
    for (said, found) in said.iter().zip(found) {
        assert_eq!(found, json!([]), "{said}");
    }
}
