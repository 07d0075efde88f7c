//! Tests which records are the same one, in a table that an older version filled, and in streams whose names are alike.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use connector_service_test::*;
use postgres::Client;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

fn hash(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    let bytes = hash.as_ref().iter().take(16);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// The id that version 0.1.0 gave to a record with these parts of a key, as they were spelled.
fn old_id(stream: &str, record: &str, parts: &[&str]) -> String {
    let is_scalar = |part: &&&str| {
        part.starts_with(['"', '-']) && **part != "\"\""
            || part.starts_with(|c: char| c.is_ascii_digit())
    };
    match parts {
        [single] if is_scalar(&single) => {
            let text: Value = serde_json::from_str(single).unwrap();
            format!("{stream}/{}", text.as_str().unwrap_or(single))
        }
        parts if parts.len() > 1 && parts.iter().any(|part| is_scalar(&part)) => {
            let framed = parts.iter().map(|part| format!("{};{part}", part.len()));
            format!("{stream}/#{}", hash(&framed.collect::<String>()))
        }
        _ => format!("{stream}/#{}", hash(record)),
    }
}

struct Stage {
    // Stops the server when the test is over.
    _cluster: Cluster,
    client: Client,
    vendor: Vendor,
    /// The pages of each path.
    pages: Arc<Mutex<BTreeMap<String, Vec<Vec<String>>>>>,
}

fn stage() -> Stage {
    let cluster = Cluster::start("");
    let client = cluster.database("app");
    let pages: Arc<Mutex<BTreeMap<String, Vec<Vec<String>>>>> = Arc::default();
    let serving = pages.clone();
    let vendor = Vendor::start(move |asked| {
        let pages = serving.lock().unwrap();
        let at = asked.number("after");
        let pages = pages.get(asked.path.trim_start_matches('/'));
        let page = pages
            .and_then(|pages| pages.get(at))
            .cloned()
            .unwrap_or_default();
        let next = match pages.is_some_and(|pages| at + 1 < pages.len()) {
            true => (at + 1).to_string(),
            false => "null".to_owned(),
        };
        Reply::Json(format!(r#"{{"data":[{}],"next":{next}}}"#, page.join(",")))
    });
    Stage {
        _cluster: cluster,
        client,
        vendor,
        pages,
    }
}

impl Stage {
    fn connector(&mut self, streams: &[(&str, Value)], deletes: bool) -> String {
        let one = |(at, (name, key)): (usize, &(&str, Value))| {
            let mut stream = manifest(&self.vendor.url(), &format!("p{at}"))["streams"][0].clone();
            stream["name"] = (*name).into();
            stream["primary_key"] = key.clone();
            stream
        };
        let streams: Vec<Value> = streams.iter().enumerate().map(one).collect();
        let mut config = api(&self.vendor.url(), "p0");
        config["manifest"]["streams"] = streams.into();
        config["deletes"] = deletes.into();
        insert_connector(&mut self.client, "shop", &config)
    }

    fn serve(&self, path: &str, pages: Vec<Vec<String>>) {
        self.pages.lock().unwrap().insert(path.to_owned(), pages);
    }

    /// A row as an older version stored it.
    fn stored_before(&mut self, connector: &str, stream: &str, id: &str, record: &str) {
        let sql = "INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data, content_hash, processed)
                   VALUES ('00000000-0000-4000-8000-000000000001', $1::text::uuid, 'api', $2, $3, $4::text::jsonb, substring(sha256(convert_to($4, 'UTF8')) FROM 1 FOR 16), true)
                   ON CONFLICT (connector_id, source_record_id) DO NOTHING";
        self.client
            .execute(sql, &[&connector, &stream, &id, &record])
            .unwrap();
    }

    fn sync(&mut self, connector: &str) -> Value {
        let run = sync(&mut self.client, connector);
        let run = wait_for_run(&mut self.client, &run);
        assert_eq!(run["state"], "succeeded", "{run}");
        ledger_holds(&mut self.client);
        run
    }

    /// The ids of what is there, and what it holds.
    fn rows(&mut self) -> BTreeMap<String, Value> {
        let sql = "SELECT source_record_id, data FROM raw_connector_data WHERE NOT deleted";
        let rows = self.client.query(sql, &[]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

#[test]
fn rows_of_an_older_version_keep_their_ids_and_nothing_doubles() {
    let mut stage = stage();
    let connector = stage.connector(
        &[
            ("orders", json!(["shop", "id"])),
            ("lists/open", json!("id")),
        ],
        true,
    );
    let pairs = [
        ("1", "7"),
        ("1", "\"7\""),
        ("\"north\"", "7.0"),
        ("\"north\"", "8"),
        ("\"\\u00e9tage\"", "9"),
        ("\"étage\"", "10"),
        ("true", "\"a\""),
        ("{\"b\":1,\"a\":2}", "\"a\""),
        ("null", "12"),
        ("\"\"", "13"),
    ];
    let pair = |(shop, id): (&str, &str), version: u32| {
        format!(r#"{{"shop":{shop},"id":{id},"v":{version}}}"#)
    };
    let singles = ["7", "7.50", "\"x/y\"", "1e3", "\"\\u00e9tage\"", "\"007\""];
    let single = |id: &str, version: u32| format!(r#"{{"id":{id},"v":{version}}}"#);
    let mut ids = Vec::new();
    for (shop, id) in pairs {
        let record = pair((shop, id), 1);
        ids.push(old_id("orders", &record, &[shop, id]));
        stage.stored_before(&connector, "orders", &ids[ids.len() - 1].clone(), &record);
    }
    for id in singles {
        let record = single(id, 1);
        ids.push(old_id("lists/open", &record, &[id]));
        stage.stored_before(
            &connector,
            "lists/open",
            &ids[ids.len() - 1].clone(),
            &record,
        );
    }
    ids.sort();
    let all = |stage: &mut Stage| stage.rows().into_keys().collect::<Vec<_>>();
    assert_eq!(all(&mut stage), ids);
    // (1, 7) and (1, "7") are one record: the second row is the first one once more.
    let double = old_id("orders", "", &["1", "\"7\""]);
    let kept: Vec<String> = ids.iter().filter(|id| **id != double).cloned().collect();

    // A page of new records comes first: then the others are not searched for, but for their former ids.
    let fresh = |at: u32| format!(r#"{{"shop":"new","id":"n{at}","v":1}}"#);
    for version in [1, 2, 2] {
        let old: Vec<String> = pairs.iter().map(|parts| pair(*parts, version)).collect();
        stage.serve("p0", vec![(0..5).map(fresh).collect(), old]);
        stage.serve(
            "p1",
            vec![singles.iter().map(|id| single(id, version)).collect()],
        );
        let run = stage.sync(&connector);
        // (1, 7) and (1, "7") again, on one page.
        let warnings = run["warnings"].as_array().unwrap();
        let says = |warning: &Value| warning.as_str().unwrap().contains("have the same key");
        assert!(warnings.len() == 1 && says(&warnings[0]), "{run}");
        let rows = stage.rows();
        let there: Vec<&String> = rows.keys().filter(|id| ids.contains(id)).collect();
        assert_eq!(there, kept.iter().collect::<Vec<_>>(), "{version}");
        assert_eq!(rows.len(), kept.len() + 5, "{version}");
        let is_this = |data: &&Value| data["shop"] == "new" || data["v"] == version;
        assert_eq!(
            rows.values().filter(is_this).count(),
            rows.len(),
            "{version} {rows:?}"
        );
    }
    // What a whole pass does not show is gone, under whichever id it is stored.
    stage.serve(
        "p0",
        vec![
            pairs[2..9]
                .iter()
                .map(|parts| pair(*parts, 2))
                .chain((0..5).map(fresh))
                .collect(),
        ],
    );
    stage.serve(
        "p1",
        vec![singles[2..].iter().map(|id| single(id, 2)).collect()],
    );
    let run = stage.sync(&connector);
    assert_eq!(run["deleted"], 4, "{run}");
    assert_eq!(stage.rows().len(), 7 + 5 + 4);
}

#[test]
fn a_key_that_was_not_taken_for_one_finds_its_record() {
    let mut stage = stage();
    let connector = stage.connector(
        &[("docs", json!("_id")), ("parts", json!(["a", "b"]))],
        true,
    );
    let ids = [
        r#"{"$oid": "aa"}"#,
        r#"{"$oid":"bb"}"#,
        "true",
        r#""""#,
        "[1, 2]",
    ];
    let doc = |id: &str, version: u32| format!(r#"{{"_id":{id},"v":{version}}}"#);
    let part = |version: u32| format!(r#"{{"a":true,"b":{{"c":1}},"v":{version}}}"#);
    // The first one changed once before: its first state is stored as another record.
    let mut before = vec![doc(ids[0], 0)];
    before.extend(ids.iter().map(|id| doc(id, 1)));
    for record in &before {
        stage.stored_before(&connector, "docs", &old_id("docs", record, &["{}"]), record);
    }
    stage.stored_before(
        &connector,
        "parts",
        &old_id("parts", &part(1), &["true", "{}"]),
        &part(1),
    );
    assert_eq!(stage.rows().len(), 7);
    let serve = |stage: &Stage, version: u32| {
        let mut docs: Vec<String> = ids.iter().map(|id| doc(id, version)).collect();
        docs.push(doc("\"new\"", version));
        stage.serve("p0", vec![docs]);
        stage.serve("p1", vec![vec![part(version)]]);
    };
    // Unchanged, they keep their ids; the state before is gone, because the pass does not show it.
    serve(&stage, 1);
    stage.sync(&connector);
    let rows = stage.rows();
    assert_eq!(rows.len(), 7);
    let known = |record: &String| rows.contains_key(&old_id("docs", record, &["{}"]));
    assert_eq!(
        before.iter().map(known).collect::<Vec<_>>(),
        [false, true, true, true, true, true]
    );
    for version in [2, 2, 3] {
        serve(&stage, version);
        stage.sync(&connector);
        let rows = stage.rows();
        assert_eq!(rows.len(), 7, "{version} {rows:?}");
        assert!(
            rows.values().all(|data| data["v"] == version),
            "{version} {rows:?}"
        );
        let named = [
            r#"docs/{"$oid":"aa"}"#,
            r#"docs/{"$oid":"bb"}"#,
            "docs/true",
            "docs/",
            "docs/[1,2]",
            "docs/new",
        ];
        assert!(
            named.iter().all(|id| rows.contains_key(*id)),
            "{version} {rows:?}"
        );
    }
}

#[test]
fn streams_whose_names_are_alike_have_records_of_their_own() {
    let mut stage = stage();
    let connector = stage.connector(&[("a", json!("id")), ("a/b", json!("id"))], true);
    let record = |id: &str, v: u32| format!(r#"{{"id":"{id}","v":{v}}}"#);
    // An older version stored the record of "a/b" under an id that the stream "a" may give as well.
    stage.stored_before(&connector, "a/b", "a/b/c", &record("c", 0));
    stage.serve("p0", vec![vec![record("b/d", 1), record("b/c2", 1)]]);
    stage.serve("p1", vec![vec![record("c", 2), record("e", 2)]]);
    for _ in 0..2 {
        stage.sync(&connector);
        let rows: Vec<(String, Value)> = stage
            .rows()
            .into_iter()
            .map(|(id, data)| (id, data["v"].clone()))
            .collect();
        let expected = [("a%2Fb/e", 2), ("a/b/c", 2), ("a/b/c2", 1), ("a/b/d", 1)];
        assert_eq!(rows, expected.map(|(id, v)| (id.to_owned(), json!(v))));
    }
    // A pass over "a" says nothing of "a/b".
    stage.serve("p0", vec![vec![record("b/d", 1)]]);
    stage.sync(&connector);
    let ids: Vec<String> = stage.rows().into_keys().collect();
    assert_eq!(ids, ["a%2Fb/e", "a/b/c", "a/b/d"]);
}

#[test]
fn what_is_not_known_by_a_key_is_counted_and_said() {
    let mut stage = stage();
    let connector = stage.connector(&[("orders", json!("idd"))], true);
    let sale = r#"{"amount":5}"#.to_owned();
    stage.serve("p0", vec![vec![sale.clone(), sale.clone(), sale.clone()]]);
    let run = stage.sync(&connector);
    let warning = run["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("no record of the page has a value in \"idd\""),
        "{run}"
    );
    let one = format!("orders/#{}", hash(&sale));
    let ids: Vec<String> = stage.rows().into_keys().collect();
    assert_eq!(ids, [one.clone(), format!("{one}/2"), format!("{one}/3")]);
    // One of them is gone.
    stage.serve("p0", vec![vec![sale.clone(), sale]]);
    assert_eq!(stage.sync(&connector)["deleted"], 1);
    assert_eq!(stage.rows().len(), 2);
    // A check says the same of the key.
    let checked: String = stage
        .client
        .query_one(
            "SELECT connector_service_check($1::text::uuid)::text",
            &[&connector],
        )
        .unwrap()
        .get(0);
    let run = wait_for_run(&mut stage.client, &checked);
    let summary = run["report"][0]["summary"].as_str().unwrap();
    assert!(
        summary.contains("Warning: no record of the page has a value in \"idd\""),
        "{run}"
    );
}

#[test]
fn a_state_without_a_time_does_not_hide_the_greatest_time() {
    let mut stage = Gateway::start("");
    let connector = stage.webhook(&json!({"stream": "orders", "key": "id", "updated_at": "at"}));
    let state = |v: u32, at: Option<&str>| match at {
        Some(at) => format!(r#"{{"id":1,"v":{v},"at":"2026-03-01T{at}:00Z"}}"#),
        None => format!(r#"{{"id":1,"v":{v}}}"#),
    };
    let is_at = |stage: &mut Gateway, v: u32| {
        let sql = "SELECT data ->> 'v' FROM raw_connector_data WHERE NOT deleted";
        let rows = stage.client.query(sql, &[]).unwrap();
        let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(found, [v.to_string()]);
    };
    for (v, at, then) in [
        (1, Some("10:00"), 1),
        (2, None, 2),
        (3, Some("09:00"), 2),
        (4, None, 4),
        (5, None, 5),
        (6, Some("09:59"), 5),
        (7, Some("10:00"), 7),
        (8, Some("11:00"), 8),
        (9, Some("10:30"), 8),
    ] {
        assert_eq!(
            push(stage.port, &connector, &state(v, at)).unwrap().status,
            200
        );
        is_at(&mut stage, then);
    }
    // The same in one delivery.
    let states = [
        state(10, Some("12:00")),
        state(11, None),
        state(12, Some("11:30")),
    ];
    assert_eq!(
        push(stage.port, &connector, &format!("[{}]", states.join(",")))
            .unwrap()
            .status,
        200
    );
    is_at(&mut stage, 11);
    assert_eq!(
        push(stage.port, &connector, &state(13, Some("11:59")))
            .unwrap()
            .status,
        200
    );
    is_at(&mut stage, 11);
    // A time that cannot be read is said.
    let warnings = "SELECT count(*) FROM sync_runs, unnest(warnings) AS w WHERE kind = 'webhook' AND w LIKE '%\"at\"%cannot be read as a time%'";
    assert_eq!(stage.count(warnings), 0);
    assert_eq!(
        push(stage.port, &connector, r#"{"id":1,"v":14,"at":"soon"}"#)
            .unwrap()
            .status,
        200
    );
    assert_eq!(stage.count(warnings), 1);
    assert_eq!(
        push(stage.port, &connector, r#"{"v":15}"#).unwrap().status,
        200
    );
    let keyless = "SELECT count(*) FROM sync_runs, unnest(warnings) AS w WHERE kind = 'webhook' AND w LIKE '%without a value in \"id\"%'";
    assert_eq!(stage.count(keyless), 1);
}
