//! Tests what other programs read: Grafana the dashboard, Prometheus the samples, and API clients the gateway's
//! description. Stripe's own package signs events for the gateway, and checks the signatures that our tests make.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, TimeDelta, Utc};
use connector_service_test::http::{ask, try_ask};
use connector_service_test::*;
use postgres::{Client, Transaction};
use ring::hmac;
use serde_json::{Value, json};

const OTHER: &str = "00000000-0000-4000-8000-000000000002";
/// Where what fails is not tried again at once, and nobody asks for what is due.
const SETTINGS: &str =
    "connector_service.request_retries = 0\nconnector_service.scheduler = 'pg_cron'";

/// A connector of a Stripe account, whose events are signed with any of these secrets.
fn stripe(client: &mut Client, vendor: &Vendor, secrets: &Value) -> String {
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
        SELECT $1::text::uuid, concat('payments ', count(*)), 'stripe', $2::jsonb, $3::jsonb, 'manual' FROM connectors RETURNING connector_id::text";
    let config = json!({"base_url": vendor.url(), "streams": ["charges"]});
    let credentials = json!({"api_key": "sk_test_not_a_real_key", "webhook_secret": secrets});
    let row = client.query_one(sql, &[&TENANT, &config, &credentials]);
    row.unwrap().get(0)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs `prepare.sh`, and returns what it printed. It runs once at a time: two would make the same folder.
fn prepare(purpose: &[&str]) -> String {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let output = Command::new(root().join("pg_test/prepare.sh"))
        .args(purpose)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{purpose:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs promtool with this as its input; what it says, and whether it is content.
fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(prepare(&["promtool"]).trim())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

// ---------------------------------------------------------------- Grafana and Prometheus

/// Connectors in every state that there is, with names that no format likes.
const CONNECTORS: [(&str, &str, &str); 10] = [
    ("good", "good", "ok"),
    ("says \"hello\"", "hang", "syncing"),
    ("back\\slash\\", "gone", "error"),
    ("two\nlines\r\n and \t tabs", "busy", "failing"),
    ("\\n is no newline", "never", "new"),
    ("{a=\"b\"} 1 # HELP", "never", "paused"),
    ("Zürich 東京 🦀 %s %1$s", "never", "late"),
    ("rests", "pause", "queued"),
    ("", "never", "new"),
    ("'; DROP TABLE metrics; --", "never", "new"),
];

fn vendor() -> Vendor {
    Vendor::start(|asked| match asked.path.as_str() {
        "/good" => Reply::Json(
            r#"{"data": [{"id": 1}, {"id": 2}, {"id": 3, "note": "\u0000"}], "next": null}"#.into(),
        ),
        "/hang" => Reply::Hang,
        "/gone" => Reply::status(404),
        "/pause" => Reply::Full {
            status: 429,
            headers: vec![("Retry-After", "3600".into())],
            body: b"{}".to_vec(),
        },
        _ => Reply::status(503),
    })
}

/// Two tenants, the first with all of these connectors, metrics of two months, and alerts.
fn populate(stage: &mut Gateway, vendor: &Vendor) {
    for (name, path, health) in CONNECTORS {
        let connector = insert_connector(&mut stage.client, name, &api(&vendor.url(), path));
        if ["ok", "syncing", "error", "failing", "queued"].contains(&health) {
            sync(&mut stage.client, &connector);
        }
    }
    stage.execute(&format!(
        "UPDATE connectors SET status = 'paused' WHERE name LIKE '{{a=%';
         UPDATE connectors SET sync_frequency = 'hourly', next_sync_at = now() - interval '2 hours' WHERE name LIKE 'Z%';
         UPDATE tenants SET name = 'Corner \"shop\"', currency = 'EUR';
         INSERT INTO tenants (tenant_id, name) VALUES ('{OTHER}', 'Corner \"shop\"');
         INSERT INTO connectors (tenant_id, name, type, config, sync_frequency) VALUES ('{OTHER}', 'files', 'csv', '{{\"key\": \"id\"}}', 'manual');
         INSERT INTO metrics (tenant_id, metric_type, metric_date, metric_value)
         SELECT t.tenant_id, kind, current_date - day, 1000 + day % 7
         FROM tenants t, unnest('{{revenue,costs,inventory,staffing}}'::text[]) AS kind, generate_series(0, 59) AS day;
         INSERT INTO data_quality_alerts (tenant_id, alert_type, severity, message)
         SELECT t.tenant_id, 'outlier', severity, 'a \"test\" of ' || severity
         FROM tenants t, unnest('{{info,warning,critical}}'::text[]) AS severity"
    ));
    let mut expected: Vec<(String, String)> = CONNECTORS
        .map(|(name, _, health)| (name.to_owned(), health.to_owned()))
        .to_vec();
    expected.sort();
    wait_until(60, "each connector is as it will be", || {
        let sql = format!("SELECT name, health FROM connector_health WHERE tenant_id = '{TENANT}'");
        let rows = stage.client.query(&sql, &[]).unwrap();
        let mut found: Vec<(String, String)> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        found.sort();
        (found == expected).then_some(())
    });
    wait_until(60, "every record has its facts", || {
        let sql = "SELECT count(*) FROM raw_connector_data WHERE NOT processed";
        (stage.client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 0).then_some(())
    });
}

fn dashboard() -> Value {
    let file = root().join("docs/grafana/connector_service.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value:?}"))
}

fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value:?}"))
}

/// The SQL that Grafana makes of a panel's: its macros as the data source's source has them, its variables as they are
/// put in where several values may be chosen.
fn expand(sql: &str, days: i64, tenant: &str) -> String {
    let moment = |days| {
        let at = Utc::now() - TimeDelta::days(days);
        format!("'{}'", at.to_rfc3339_opts(SecondsFormat::Nanos, true))
    };
    let (from, to) = (moment(days), moment(0));
    let mut expanded = sql
        .replace("$tenant", tenant)
        .replace("$metric_type", "'revenue','inventory','staffing','costs'");
    while let Some((before, rest)) = expanded.split_once('$') {
        let (name, rest) = rest.split_once('(').unwrap();
        let (arguments, after) = rest.split_once(')').unwrap();
        let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
        let made = match (name, arguments.as_slice()) {
            ("__timeFilter", [column]) => format!("{column} BETWEEN {from} AND {to}"),
            ("__timeFrom", [""]) => from.clone(),
            ("__timeTo", [""]) => to.clone(),
            ("__timeGroupAlias", [column, "1h"] | [column, "1h", "0"]) => {
                format!("floor(extract(epoch from {column})/3600)*3600 AS \"time\"")
            }
            other => panic!("no macro: {other:?}"),
        };
        expanded = format!("{before}{made}{after}");
    }
    expanded
}

/// A panel's rows, in their order, after a look at whether its columns are what its kind can show.
fn rows(transaction: &mut Transaction, panel: &Value, sql: &str) -> Vec<Value> {
    let title = text(&panel["title"]);
    let statement = transaction
        .prepare(sql)
        .unwrap_or_else(|error| panic!("{title}: {error}\n{sql}"));
    let columns: Vec<(&str, &str)> = statement
        .columns()
        .iter()
        .map(|column| (column.name(), column.type_().name()))
        .collect();
    let is_number = |kind: &str| ["int4", "int8", "float8", "numeric"].contains(&kind);
    match text(&panel["type"]) {
        "timeseries" => {
            let (time, values) = columns.split_first().unwrap();
            assert!(
                ["timestamp", "timestamptz", "numeric"].contains(&time.1) && time.0 == "time",
                "{title}"
            );
            for (name, kind) in values {
                assert!(
                    is_number(kind) || (*name, *kind) == ("metric", "text"),
                    "{title}: {name}"
                );
            }
        }
        "bargauge" => assert!(
            columns[0].1 == "text" && is_number(columns[1].1) && columns.len() == 2,
            "{title}"
        ),
        "stat" => assert!(is_number(columns.last().unwrap().1), "{title}"),
        _ => {
            let names: BTreeSet<&str> = columns.iter().map(|(name, _)| *name).collect();
            assert_eq!(names.len(), columns.len(), "{title}");
            for of in list(&panel["fieldConfig"]["overrides"]) {
                let name = text(&of["matcher"]["options"]);
                assert!(names.contains(name), "{title} has no column {name}");
            }
        }
    }
    // As one value each, whatever the types are.
    let wrapped = format!("SELECT to_jsonb(q) FROM ({sql}) AS q");
    let rows = transaction
        .query(&wrapped, &[])
        .unwrap_or_else(|error| panic!("{title}: {error}\n{sql}"));
    rows.iter().map(|row| row.get(0)).collect()
}

#[test]
fn each_dashboard_panel_shows_the_right_rows_to_a_reader_of_all_and_to_a_tenant() {
    let vendor = vendor();
    let mut stage = Gateway::start(SETTINGS);
    populate(&mut stage, &vendor);
    let role = std::fs::read_to_string(root().join("docs/grafana/role.sql")).unwrap();
    stage.execute(&role);
    stage.execute(&format!(
        "CREATE ROLE corner_shop LOGIN IN ROLE connector_service_tenant;
         INSERT INTO tenant_roles (role_name, tenant_id) VALUES ('corner_shop', '{TENANT}')"
    ));
    let dashboard = dashboard();
    let variables = list(&dashboard["templating"]["list"]);
    let tenant = variables.iter().find(|v| v["name"] == "tenant").unwrap();

    // Nothing lies upon anything else, and everything is explained.
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in list(&dashboard["panels"]) {
        assert!(ids.insert(panel["id"].as_i64().unwrap()));
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|n| panel["gridPos"][n].as_i64().unwrap());
        assert!(x + w <= 24);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{panel}");
        }
        let is_row = panel["type"] == "row";
        assert!(!text(&panel["title"]).is_empty());
        assert!(is_row || !text(&panel["description"]).is_empty(), "{panel}");
        for target in panel["targets"].as_array().unwrap_or(&vec![]) {
            let source = &target["datasource"];
            let name = text(&source["uid"]).trim_matches(['$', '{', '}']);
            let variable = variables.iter().find(|v| v["name"] == name).unwrap();
            assert_eq!(variable["query"], source["type"]);
        }
    }

    let mut shown: BTreeMap<&str, BTreeMap<(&str, &str), Vec<Value>>> = BTreeMap::new();
    let every = text(&tenant["allValue"]);
    let own = format!("'{TENANT}'");
    for (role, chosen) in [
        ("grafana", every),
        ("grafana", own.as_str()),
        ("corner_shop", every),
    ] {
        let mut transaction = stage.client.transaction().unwrap();
        // Not processed as long as nobody sees it.
        let sql = "INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
            SELECT tenant_id, connector_id, type, 'rows', 'rows/' || n, '{}' FROM connectors, generate_series(1, 7) AS n WHERE name IN ('good', 'files')";
        transaction.batch_execute(sql).unwrap();
        transaction
            .batch_execute(&format!("SET LOCAL ROLE {role}"))
            .unwrap();
        for panel in list(&dashboard["panels"]) {
            for target in panel["targets"].as_array().unwrap_or(&vec![]) {
                let Some(sql) = target["rawSql"].as_str() else {
                    continue;
                };
                let days = match panel["timeFrom"].as_str() {
                    Some(days) => days.strip_suffix('d').unwrap().parse().unwrap(),
                    None => 1,
                };
                let found = rows(&mut transaction, panel, &expand(sql, days, chosen));
                assert!(
                    !found.is_empty(),
                    "{role}, {chosen}: {} is empty",
                    panel["title"]
                );
                let times = found.iter().map(|row| row["time"].to_string());
                assert!(times.is_sorted(), "{}", panel["title"]);
                let kind = (text(&panel["type"]), text(&panel["title"]));
                let before = shown
                    .entry(if role == "corner_shop" { role } else { chosen })
                    .or_default()
                    .insert(kind, found);
                assert!(before.is_none(), "{kind:?} is there twice");
            }
        }
        let options = transaction.query(text(&tenant["query"]), &[]).unwrap();
        let options: BTreeSet<(String, String)> = options
            .iter()
            .map(|row| (row.get("__text"), row.get("__value")))
            .collect();
        let texts: BTreeSet<&String> = options.iter().map(|(text, _)| text).collect();
        assert_eq!(
            (texts.len(), options.len()),
            match role {
                "grafana" => (2, 2),
                _ => (1, 1),
            }
        );
        transaction.rollback().unwrap();
    }
    let of = |who: &str, kind: &str, title: &str| shown[who][&(kind, title)].clone();
    // A tenant sees what somebody who sees all has chosen of him.
    for ((kind, title), found) in &shown["corner_shop"] {
        let chosen = of(&own, kind, title);
        let is_moving = found.iter().any(|row| {
            ["lag", "asked for", "seconds"]
                .iter()
                .any(|n| !row[n].is_null())
        });
        if is_moving {
            assert_eq!(found.len(), chosen.len(), "{title}");
        } else {
            assert_eq!(*found, chosen, "{title}");
        }
    }
    let health = json!([
        {"health": "error", "connectors": 1}, {"health": "failing", "connectors": 1}, {"health": "late", "connectors": 1},
        {"health": "new", "connectors": 3}, {"health": "ok", "connectors": 1}, {"health": "paused", "connectors": 1},
        {"health": "queued", "connectors": 1}, {"health": "syncing", "connectors": 1}
    ]);
    assert_eq!(
        Value::Array(of(&own, "stat", "Connectors by health")),
        health
    );
    assert_eq!(of(&own, "stat", "In trouble"), [json!({"connectors": 3})]);
    assert_eq!(of(&own, "stat", "Open alerts"), [json!({"alerts": 3})]);
    assert_eq!(of(every, "stat", "Open alerts"), [json!({"alerts": 6})]);
    assert_eq!(of(&own, "stat", "In quarantine"), [json!({"records": 1})]);
    assert_eq!(of(&own, "table", "Connectors").len(), CONNECTORS.len());
    assert_eq!(of(every, "table", "Connectors").len(), CONNECTORS.len() + 1);
    assert_eq!(
        of(&own, "bargauge", "Backlog by connector"),
        [json!({"connector": "Corner \"shop\" / good", "records": 7})]
    );
    assert_eq!(of(every, "bargauge", "Backlog by connector").len(), 2);
    assert_eq!(of(every, "timeseries", "Metrics by day").len(), 2 * 4 * 60);
    let errors: BTreeSet<String> = of(&own, "table", "What went wrong")
        .iter()
        .map(|row| text(&row["error"]).to_owned())
        .collect();
    assert_eq!(
        errors,
        BTreeSet::from(["not_found", "server_error"].map(str::to_owned))
    );
    assert!(
        of(&own, "table", "What went wrong")
            .iter()
            .all(|row| !text(&row["what to do"]).is_empty())
    );
    let sum = |rows: &[Value], name: &str| {
        rows.iter()
            .map(|row| row[name].as_f64().unwrap())
            .sum::<f64>()
    };
    assert_eq!(
        sum(&of(&own, "timeseries", "Runs per hour by state"), "runs"),
        3.0
    );
    assert_eq!(
        sum(&of(&own, "timeseries", "Records per hour"), "inserted"),
        2.0
    );
    assert_eq!(
        sum(&of(&own, "timeseries", "Records per hour"), "quarantined"),
        1.0
    );
    assert_eq!(of(&own, "table", "Going and waiting").len(), 2);

    // Whoever has it writes nothing, and reads no record.
    let mut reader = stage.cluster.client_as("grafana", "app");
    for (sql, code) in [
        ("SELECT data FROM raw_connector_data", "42501"),
        ("SELECT credentials FROM connectors", "42501"),
        ("SELECT raw FROM quarantine", "42501"),
        ("SELECT * FROM gateway_tokens", "42501"),
        ("CREATE TABLE theirs ()", "25006"),
        ("START TRANSACTION READ WRITE; DELETE FROM metrics", "42501"),
    ] {
        let error = reader.batch_execute(sql).unwrap_err();
        assert_eq!(error.code().unwrap().code(), code, "{sql}");
    }
}

#[test]
fn promtool_accepts_the_samples_and_the_dashboard_uses_no_others() {
    let vendor = vendor();
    let mut stage = Gateway::start(SETTINGS);
    // What there is before there is anything.
    let sql = "SELECT connector_service_prometheus()";
    let fresh: String = stage.client.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(
        promtool(&["check", "metrics"], &fresh),
        (true, String::new()),
        "{fresh}"
    );
    populate(&mut stage, &vendor);
    let token = stage.token(None, "read");
    let bearer = format!("Bearer {token}");
    let answered = ask(
        stage.port,
        "GET",
        "/internal/prometheus",
        &[("Authorization", &bearer)],
        b"",
    );
    assert_eq!(
        (answered.status, answered.headers["content-type"].as_str()),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    assert_eq!(
        promtool(&["check", "metrics"], &answered.body),
        (true, String::new()),
        "{}",
        answered.body
    );
    // It reads them at all: a label that is not closed, and a name that it does not like, it says.
    for wrong in [
        "a_total{b=\"c} 1\n",
        "# HELP a_ms x\n# TYPE a_ms gauge\na_ms 1\n",
    ] {
        assert!(!promtool(&["check", "metrics"], wrong).0, "{wrong}");
    }

    let families: BTreeSet<&str> = answered
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge"))
        .collect();
    let dashboard = dashboard();
    let mut rules = Vec::new();
    let mut used = BTreeSet::new();
    for target in list(&dashboard["panels"])
        .iter()
        .flat_map(|panel| panel["targets"].as_array())
        .flatten()
    {
        let Some(expression) = target["expr"].as_str() else {
            continue;
        };
        rules.push(json!({"record": format!("panel:{}", rules.len()), "expr": expression}));
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        used.extend(words.filter(|word| word.starts_with("connector_service_")));
    }
    assert!(
        rules.len() >= 9 && used.is_subset(&families),
        "{used:?} of {families:?}"
    );
    // As YAML, which JSON is.
    let file = stage.cluster.dir.join("rules.yml");
    let content = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(&file, content.to_string()).unwrap();
    let (ok, said) = promtool(&["check", "rules", file.to_str().unwrap()], "");
    assert!(ok, "{said}");
    let unused: Vec<&&str> = families.difference(&used).collect();
    eprintln!(
        "{} families, {} expressions, not on the dashboard: {unused:?}",
        families.len(),
        rules.len()
    );
}

// ---------------------------------------------------------------- the description

/// Whether a value is as a schema says, as far as this description goes: what is not named in it may not be there.
fn judge(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{at}: {what}: {value}"));
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix('#').unwrap();
        return judge(document, document.pointer(name).unwrap(), value, at);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        judge(document, part, value, at)?;
    }
    if let Some(parts) = schema["anyOf"].as_array() {
        let judged = parts.iter().map(|part| judge(document, part, value, at));
        return judged.reduce(Result::or).unwrap();
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().map(text).collect(),
        _ => vec![],
    };
    let is = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => value.is_null(),
    };
    if !kinds.is_empty() && !kinds.iter().any(is) {
        return wrong("of another type");
    }
    if schema["enum"]
        .as_array()
        .is_some_and(|known| !known.contains(value))
        || schema.get("const").is_some_and(|only| only != value)
    {
        return wrong("not one of those that are known");
    }
    if schema["minimum"]
        .as_i64()
        .is_some_and(|least| value.as_i64().is_some_and(|value| value < least))
    {
        return wrong("too small");
    }
    if let (Some(known), Some(fields)) = (schema["properties"].as_object(), value.as_object()) {
        for name in list(&schema["required"]) {
            if !fields.contains_key(text(name)) {
                return wrong(&format!("without {name}"));
            }
        }
        for (name, field) in fields {
            match known.get(name) {
                Some(schema) => judge(document, schema, field, &format!("{at}.{name}"))?,
                None => return wrong(&format!("{name} is not described")),
            }
        }
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        judge(document, &schema["items"], item, &format!("{at}[{number}]"))?;
    }
    Ok(())
}

/// Who asks the gateway, and compares what it answers with the description.
struct Reader {
    port: u16,
    document: Value,
    /// By method and path of the description.
    seen: BTreeMap<(String, String), BTreeSet<u16>>,
}

/// A header: who asks.
type Who = (&'static str, String);

fn bearer(token: &str) -> Who {
    ("Authorization", format!("Bearer {token}"))
}

impl Reader {
    /// Asks with a method at a path that `template` describes. Another method than the described one is to be
    /// refused as that one's description says.
    fn expect(
        &mut self,
        asked: &str,
        template: &str,
        who: &Who,
        body: &[u8],
        status: u16,
    ) -> Value {
        let (method, path) = asked.split_once(' ').unwrap();
        let operations = self.document["paths"][template].as_object().unwrap();
        let (known, described) = operations.iter().next().unwrap();
        let headers = [(who.0, who.1.as_str())];
        let answered = match status {
            // Not all of such a body is read, and then a connection may be reset before its answer is.
            413 => wait_until(20, asked, || {
                try_ask(self.port, method, path, &headers, body)
            }),
            _ => ask(self.port, method, path, &headers, body),
        };
        let what = format!("{asked}: {answered:?}");
        assert_eq!(answered.status, status, "{what}");
        let mut response = &described["responses"][status.to_string()];
        assert!(!response.is_null(), "not described: {what}");
        if let Some(name) = response["$ref"].as_str() {
            response = self.document.pointer(&name[1..]).unwrap();
        }
        for name in response["headers"]
            .as_object()
            .into_iter()
            .flat_map(|h| h.keys())
        {
            let name = name.to_ascii_lowercase();
            assert!(answered.headers.contains_key(&name), "{name}: {what}");
        }
        let kind = answered.headers["content-type"].as_str();
        let mut content = response["content"].as_object().unwrap().iter();
        let content = content.find(|(known, _)| kind.starts_with(known.as_str()));
        let (_, content) = content.unwrap_or_else(|| panic!("not described: {what}"));
        let place = (known.to_ascii_uppercase(), template.to_owned());
        self.seen.entry(place).or_default().insert(status);
        if kind != "application/json" {
            return Value::Null;
        }
        let value = answered.json();
        judge(&self.document, &content["schema"], &value, asked).unwrap_or_else(|e| panic!("{e}"));
        value
    }

    /// The same at one path, asked by several.
    fn each(&mut self, asked: &str, template: &str, cases: &[(&Who, &[u8], u16)]) {
        for (who, body, status) in cases {
            self.expect(asked, template, who, body, *status);
        }
    }
}

#[test]
fn every_response_of_the_gateway_matches_its_openapi_description() {
    let vendor = vendor();
    let mut stage = Gateway::start(SETTINGS);
    populate(&mut stage, &vendor);
    let [read, app, foreign, every] = [
        (Some(TENANT), "read"),
        (Some(TENANT), "app"),
        (Some(OTHER), "app"),
        (None, "read"),
    ]
    .map(|(tenant, scope)| bearer(&stage.token(tenant, scope)));
    let nobody: Who = ("X-Nobody", String::new());
    let id = |stage: &mut Gateway, what: &str, which: &str| -> String {
        let sql = format!("SELECT {what}::text FROM {which}");
        stage.client.query_one(&sql, &[]).unwrap().get(0)
    };
    let connector = |stage: &mut Gateway, which: &str| {
        id(stage, "connector_id", &format!("connectors WHERE {which}"))
    };
    let good = connector(&mut stage, "name = 'good'");
    let asleep = connector(&mut stage, "status = 'paused'");
    let files = connector(&mut stage, "name = 'files'");
    let alert = format!("data_quality_alerts WHERE tenant_id = '{TENANT}' AND severity = 'info'");
    let alert = id(&mut stage, "alert_id", &alert);
    stage.execute(&format!(
        "INSERT INTO connectors (tenant_id, name, type, credentials)
         VALUES ('{TENANT}', 'pushed', 'webhook', '{{\"secret\": \"{SECRET}\"}}')"
    ));
    let pushed = connector(&mut stage, "name = 'pushed'");

    let document = include_str!("../../src/core/serve/openapi.json");
    let served = ask(stage.port, "GET", "/openapi.json", &[], b"");
    assert!(
        served.body == document,
        "the one that is installed is older"
    );
    let mut reader = Reader {
        port: stage.port,
        document: serde_json::from_str(document).unwrap(),
        seen: BTreeMap::new(),
    };

    for path in ["/", "/openapi.json", "/live", "/ready"] {
        reader.expect(&format!("GET {path}"), path, &nobody, b"", 200);
        reader.expect(&format!("POST {path}"), path, &nobody, b"", 405);
    }
    let path = "/internal/prometheus";
    let unknown = bearer("cs_test_not_a_real_token");
    let cases: [(&Who, &[u8], u16); 4] = [
        (&every, b"", 200),
        (&read, b"", 403),
        (&unknown, b"", 401),
        (&nobody, b"", 401),
    ];
    reader.each("GET /internal/prometheus", path, &cases);
    reader.expect("PUT /internal/prometheus", path, &every, b"", 405);
    for who in [&every, &read, &app] {
        reader.expect("GET /tenants", "/tenants", who, b"", 200);
    }
    reader.expect("GET /tenants", "/tenants", &nobody, b"", 401);
    reader.expect("DELETE /tenants", "/tenants", &every, b"", 405);

    let template = "/tenants/{tenant_id}/overview";
    let asked = format!("GET /tenants/{TENANT}/overview");
    for who in [&every, &read, &app] {
        let overview = reader.expect(&asked, template, who, b"", 200);
        let lists = ["connectors", "runs", "alerts", "quarantine"];
        let counts = lists.map(|name| list(&overview[name]).len());
        assert_eq!(counts, [CONNECTORS.len() + 1, 5, 3, 1]);
    }
    reader.each(
        &asked,
        template,
        &[(&foreign, b"", 403), (&nobody, b"", 401)],
    );
    reader.expect("GET /tenants/1/overview", template, &read, b"", 400);
    reader.expect(&asked.replace("GET", "POST"), template, &read, b"", 405);

    let template = "/metrics/{tenant_id}";
    let asked = format!("GET /metrics/{TENANT}?start_date=2020-01-01&end_date=2099-12-31");
    for (more, who, status) in [
        ("", &read, 200),
        ("&metric_type=", &app, 200),
        ("&metric_type=revenue", &read, 200),
        ("&limit=7", &every, 200),
        ("&limit=7&after=2020-01-05,revenue", &read, 200),
        ("&metric_type=x", &read, 400),
        ("&limit=0", &read, 400),
        ("&x=1", &read, 400),
        ("", &foreign, 403),
        ("", &nobody, 401),
    ] {
        let page = reader.expect(&format!("{asked}{more}"), template, who, b"", status);
        let is_part = more.starts_with("&limit=7");
        assert_eq!(page.get("next").is_some(), is_part, "{page}");
    }
    // 20 MB, as somebody may write them by hand.
    stage.execute(&format!(
        "INSERT INTO metrics (tenant_id, metric_type, metric_date, metric_value, data)
         SELECT '{TENANT}', 'staffing', day, 1, jsonb_build_object('note', repeat('x', 1000000)) FROM generate_series('2021-01-01'::timestamp, '2021-01-20', '1 day') AS day"
    ));
    for (more, status) in [("", 413), ("&limit=2", 200)] {
        let asked = format!("{asked}&metric_type=staffing{more}").replace("2020", "2021");
        reader.expect(&asked, template, &read, b"", status);
    }
    reader.expect(&asked.replace("GET", "POST"), template, &read, b"", 405);

    let template = "/alerts/{alert_id}/resolve";
    let asked = format!("POST /alerts/{alert}/resolve");
    reader.each(
        &asked,
        template,
        &[(&nobody, b"", 401), (&read, b"", 403), (&foreign, b"", 404)],
    );
    // Once.
    reader.each(&asked, template, &[(&app, b"", 200), (&app, b"", 404)]);
    reader.expect("POST /alerts/1/resolve", template, &app, b"", 400);
    reader.expect(&asked.replace("POST", "GET"), template, &app, b"", 405);

    let template = "/connectors/{connector_id}/replay";
    let asked = format!("POST /connectors/{good}/replay");
    reader.each(
        &asked,
        template,
        &[(&nobody, b"", 401), (&read, b"", 403), (&foreign, b"", 404)],
    );
    reader.expect(&asked, template, &app, b"", 200);
    reader.expect("POST /connectors/1/replay", template, &app, b"", 400);
    reader.expect(&asked.replace("POST", "GET"), template, &app, b"", 405);

    let path = "/internal/sync-connector";
    let asked = format!("POST {path}");
    let [one, paused, none] = [good.as_str(), &asleep, "1"]
        .map(|id| json!({"connector_id": id}).to_string().into_bytes());
    let cases: [(&Who, &[u8], u16); 5] = [
        (&nobody, &one, 401),
        (&read, &one, 403),
        (&foreign, &one, 404),
        (&app, &one, 202),
        (&app, &paused, 409),
    ];
    reader.each(&asked, path, &cases);
    reader.each(
        &asked,
        path,
        &[
            (&app, &none, 400),
            (&app, b"[", 400),
            (&app, &[b' '; 20_000], 413),
        ],
    );
    reader.expect(&format!("GET {path}"), path, &app, b"", 405);

    let template = "/uploads/{connector_id}";
    let asked = format!("POST /uploads/{files}?file=sales.csv");
    let file = b"id,amount\n1,12.50\n";
    reader.each(
        &asked,
        template,
        &[(&nobody, file, 401), (&read, file, 403), (&app, file, 404)],
    );
    reader.expect(&asked, template, &foreign, file, 202);
    for asked in [
        "/uploads/1?file=a.csv",
        &format!("/uploads/{good}?file=a.csv"),
        &format!("/uploads/{good}"),
    ] {
        reader.expect(&format!("POST {asked}"), template, &app, file, 400);
    }
    reader.expect(&asked.replace("POST", "GET"), template, &app, b"", 405);
    stage.execute("UPDATE connectors SET status = 'paused' WHERE name = 'files'");
    reader.expect(&asked, template, &foreign, file, 409);
    stage.execute("UPDATE connectors SET status = 'active' WHERE name = 'files'");
    stage.execute("ALTER SYSTEM SET connector_service.max_upload_size = '64kB'");
    stage.execute("SELECT pg_reload_conf()");
    let large = b"1\n".repeat(40_000);
    wait_until(10, "the gateway has read its settings", || {
        let (_, path) = asked.split_once(' ').unwrap();
        let headers = [(foreign.0, foreign.1.as_str())];
        (ask(reader.port, "POST", path, &headers, &large).status == 413).then_some(())
    });
    reader.expect(&asked, template, &foreign, &large, 413);

    let template = "/webhooks/{connector_id}";
    let asked = format!("POST /webhooks/{pushed}");
    let signed = |body: &[u8]| -> Who { ("X-Signature", signature(SECRET, body)) };
    let event = br#"{"id": 1}"#;
    let [sound, open] = [signed(event), signed(b"{")];
    reader.each(
        &asked,
        template,
        &[
            (&sound, event, 200),
            (&open, b"{", 400),
            (&open, event, 401),
        ],
    );
    reader.expect("POST /webhooks/1", template, &sound, event, 401);
    reader.expect(&asked, template, &sound, &vec![b' '; 1024 * 1024 + 1], 413);
    let packed: Who = ("Content-Encoding", "br".to_owned());
    reader.expect(&asked, template, &packed, event, 415);
    reader.expect(&asked.replace("POST", "GET"), template, &sound, b"", 405);
    stage.execute("UPDATE connectors SET status = 'paused' WHERE name = 'pushed'");
    reader.expect(&asked, template, &sound, event, 503);
    stage.execute("UPDATE installation SET held_since = now(), held_because = 'a test'");
    reader.expect("GET /ready", "/ready", &nobody, b"", 503);

    // All operations, with each status that a request can bring about by itself.
    let by_circumstances = ["408", "500", "503", "504"];
    for (template, operations) in reader.document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let place = (method.to_ascii_uppercase(), template.clone());
            let seen = reader.seen.get(&place).cloned().unwrap_or_default();
            let statuses = operation["responses"].as_object().unwrap().keys();
            let missing: Vec<&String> = statuses
                .filter(|status| !by_circumstances.contains(&status.as_str()))
                .filter(|status| !seen.contains(&status.parse().unwrap()))
                .collect();
            assert!(missing.is_empty(), "{place:?}: {missing:?} were not met");
        }
    }
}

// ---------------------------------------------------------------- Stripe

fn signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, body);
    tag.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A header as our tests make it.
fn header(secret: &str, at: i64, body: &[u8]) -> String {
    let signed = [format!("{at}.").as_bytes(), body].concat();
    format!("t={at},v1={}", signature(secret, &signed))
}

fn now() -> i64 {
    Utc::now().timestamp()
}

/// Stripe's own package, in a process that answers line by line.
struct Package {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Package {
    fn start() -> Package {
        prepare(&["python", "stripe"]);
        let mut child = Command::new(root().join("target/stripe/bin/python"))
            .arg(root().join("pg_test/stripe/sign.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Package {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        }
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.stdin, "{question}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{question}: {answer}"))
    }

    fn sign(&mut self, body: &str, secrets: &[&str], at: i64) -> String {
        let answer = self.ask(&json!({"sign": body, "secrets": secrets, "at": at}));
        text(&answer["header"]).to_owned()
    }

    /// The event that the package makes of a delivery; `None`: it is not authentic.
    fn judge(&mut self, body: &str, header: &str, secret: &str) -> Option<String> {
        let answer = self.ask(&json!({"judge": body, "header": header, "secret": secret}));
        match answer["refused"].is_string() {
            true => None,
            false => Some(answer["id"].as_str().unwrap_or_default().to_owned()),
        }
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An account in which nothing happens.
fn account() -> Vendor {
    Vendor::start(|_| Reply::Json(r#"{"object": "list", "data": [], "has_more": false}"#.into()))
}

/// Bodies that mean as much, however they are written.
fn events() -> BTreeMap<String, String> {
    let mut events = BTreeMap::new();
    let mut add = |write: &dyn Fn(&str) -> String| {
        let id = format!("evt_test_{}", events.len());
        let body = write(&id);
        events.insert(id, body);
    };
    let charge = |id: &str, note: &str| {
        json!({"id": id, "object": "event", "api_version": "2026-01-28", "created": now(), "livemode": false, "type": "charge.updated",
            "data": {"object": {"id": "ch_test_1", "object": "charge", "amount": 1250, "description": note}}, "pending_webhooks": 1, "request": null})
    };
    // As Stripe writes: over several lines.
    for note in [
        "",
        "a \"quote\" and a \\",
        "Zürich, 東京, 🦀",
        "</script>\u{2028}\u{7f}",
        "t=1,v1=2.3",
    ] {
        add(&|id| serde_json::to_string_pretty(&charge(id, note)).unwrap());
        add(&|id| charge(id, note).to_string());
        add(&|id| charge(id, note).to_string().replace('\n', "\r\n") + "\r\n\r\n");
        add(&|id| format!(" \t\n{}", charge(id, note)));
    }
    add(&|id| {
        format!(
            r#"{{"object":"event","id":"\u0065{}","created":1,"data":{{"object":{{"amount":12345678901234567890.1234567890, "o": 1e2}}}}}}"#,
            &id[1..]
        )
    });
    add(&|id| charge(id, &"x".repeat(900_000)).to_string());
    add(&|id| charge(id, &"é🦀".repeat(50_000)).to_string());
    events
}

#[test]
fn events_signed_by_stripes_package_are_stored_once_and_it_accepts_our_signatures() {
    let mut package = Package::start();
    let mut stage = Gateway::start("");
    let vendor = account();
    let connector = stripe(&mut stage.client, &vendor, &json!(SECRET));
    let path = format!("/webhooks/{connector}");
    let port = stage.port;
    let push = |body: &str, header: &str| {
        ask(
            port,
            "POST",
            &path,
            &[("Stripe-Signature", header)],
            body.as_bytes(),
        )
        .status
    };
    let events = events();
    for (id, body) in &events {
        let signed = package.sign(body, &[SECRET], now());
        assert_eq!(
            signed,
            header(SECRET, signed[2..12].parse().unwrap(), body.as_bytes()),
            "the same bytes"
        );
        assert_eq!(push(body, &signed), 200, "{id}");
        // Once more, signed anew, as Stripe does when it tries again.
        assert_eq!(
            push(body, &header(SECRET, now() - 1, body.as_bytes())),
            200,
            "{id}"
        );
        let ours = header(SECRET, now(), body.as_bytes());
        assert_eq!(package.judge(body, &ours, SECRET).as_ref(), Some(id));
        assert_eq!(package.judge(body, &ours, "whsec_test_another"), None);
    }
    // Compared by the server, where numbers have all their digits. What is no event of these is as it should be.
    let (ids, bodies): (Vec<&String>, Vec<&String>) = events.iter().unzip();
    let stored = |stage: &mut Gateway| -> BTreeMap<String, bool> {
        let sql = "SELECT r.source_record_id, coalesce(r.data = e.body::jsonb, true)
            FROM raw_connector_data r LEFT JOIN unnest($1::text[], $2::text[]) AS e(id, body) ON r.source_record_id = 'webhooks/' || e.id
            WHERE r.stream = 'webhooks'";
        let rows = stage.client.query(sql, &[&ids, &bodies]).unwrap();
        let id = |text: &str| text.strip_prefix("webhooks/").unwrap().to_owned();
        rows.iter()
            .map(|row| (id(row.get(0)), row.get(1)))
            .collect()
    };
    let expected: BTreeMap<String, bool> = events.keys().map(|id| (id.clone(), true)).collect();
    assert_eq!(stored(&mut stage), expected);
    let sql = "SELECT count(*) FROM raw_connector_data WHERE data #>> '{data,object,amount}' = '12345678901234567890.1234567890'";
    assert_eq!(stage.count(sql), 1);

    // While a secret is rolled, either will do, and both together.
    let [old, new] = [SECRET, "whsec_test_not_a_real_secret_either"];
    let secrets = |stage: &mut Gateway, secrets: &Value| {
        let sql = "UPDATE connectors SET credentials = credentials || jsonb_build_object('webhook_secret', $1::jsonb)";
        stage.client.execute(sql, &[secrets]).unwrap();
    };
    secrets(&mut stage, &json!([new, old]));
    let mut number = 0;
    let mut rolled = |package: &mut Package, signers: &[&str]| {
        number += 1;
        let body =
            json!({"id": format!("evt_test_rolled_{number}"), "object": "event", "created": now()})
                .to_string();
        push(&body, &package.sign(&body, signers, now()))
    };
    for signers in [
        vec![old],
        vec![new],
        vec![old, new],
        vec![new, old],
        vec!["whsec_test_another", old],
    ] {
        assert_eq!(rolled(&mut package, &signers), 200, "{signers:?}");
    }
    assert_eq!(rolled(&mut package, &["whsec_test_another"]), 401);
    secrets(&mut stage, &json!(new));
    assert_eq!(rolled(&mut package, &[old]), 401);
    assert_eq!(rolled(&mut package, &[old, new]), 200);
    // In the list of the last one there are the former, and no more than they were.
    assert_eq!(stored(&mut stage).len(), events.len() + 6);
    let sql = "SELECT count(*) FROM raw_connector_data WHERE stream <> 'webhooks'";
    assert_eq!(
        (
            stage.count(sql),
            stage.count("SELECT count(*) FROM quarantine")
        ),
        (0, 0)
    );
    ledger_holds(&mut stage.client);
    eprintln!("{} events", events.len());
}

/// A client that keeps its connection as long as the server does.
struct Kept {
    port: u16,
    stream: Option<TcpStream>,
    made: usize,
}

impl Kept {
    /// Status and body.
    fn post(&mut self, path: &str, headers: &[(&[u8], &[u8])], body: &[u8]) -> (u16, String) {
        let mut sent = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n",
            body.len()
        )
        .into_bytes();
        for (name, value) in headers {
            sent.extend([*name, b": ", *value, b"\r\n"].concat());
        }
        sent.extend(b"\r\n");
        sent.extend(body);
        let mut stream = self.stream.take().unwrap_or_else(|| {
            self.made += 1;
            let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        });
        stream.write_all(&sent).unwrap();
        let mut came = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&came).into_owned();
            if let Some(answered) = http::read(&text) {
                let closes = answered
                    .headers
                    .get("connection")
                    .is_some_and(|value| value == "close");
                self.stream = (!closes).then_some(stream);
                return (answered.status, answered.body);
            }
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "no whole answer: {text}");
            came.extend(&piece[..count]);
        }
    }
}

/// A delivery that nobody signed who may.
struct Forgery {
    headers: Vec<Vec<u8>>,
    body: Vec<u8>,
    /// Whether Stripe's own package can be asked about it, and has to be of the same mind.
    is_plain: bool,
}

fn flip(random: &mut Random, bytes: &mut [u8]) {
    let at = random.below(bytes.len());
    bytes[at] ^= 1 << random.below(8);
}

const KINDS: [&str; 12] = [
    "a bit of the body",
    "a bit of the header",
    "another time",
    "another secret",
    "too old",
    "of the future",
    "scheme v0",
    "no header",
    "two headers",
    "another body",
    "a header out of shape",
    "another connector",
];

fn forge(kind: &str, number: usize, random: &mut Random) -> Forgery {
    let mut body = json!({"id": format!("evt_forged_{number}"), "object": "event", "created": now(), "note": random.number()}).to_string().into_bytes();
    let at = now();
    let sound = header(SECRET, at, &body);
    let (_, signed) = sound.split_once(",v1=").unwrap();
    let mut headers = vec![sound.clone().into_bytes()];
    let one = |text: String| vec![text.into_bytes()];
    let furthest = 1 << random.below(30);
    let far = 310 + random.below(furthest) as i64;
    match kind {
        "a bit of the body" => flip(random, &mut body),
        "a bit of the header" => flip(random, &mut headers[0]),
        "another time" => {
            let other = at - 200 + random.below(400) as i64;
            let other = if other == at { at + 1 } else { other };
            headers = one(format!("t={other},v1={signed}"));
        }
        "another secret" => {
            let other = random.number().to_string();
            let secrets = [
                "",
                " ",
                "whsec_",
                "not_a_real_secret",
                "WHSEC_TEST_NOT_A_REAL_SECRET",
                "sk_test_not_a_real_key",
                "whsec_test_not_a_real_secret\n",
                &other,
            ];
            headers = one(header(random.pick(&secrets), at, &body));
        }
        "too old" => headers = one(header(SECRET, at - far, &body)),
        "of the future" => headers = one(header(SECRET, at + far, &body)),
        "scheme v0" => {
            let scheme = random.pick(&["v0", "v2", "V1", "v1 x", "v", ""]);
            headers = one(format!("t={at},{scheme}={signed}"));
        }
        "no header" => headers.clear(),
        "two headers" => {
            let mut forged = sound.clone().into_bytes();
            flip(random, &mut forged);
            forged.retain(|byte| byte.is_ascii_graphic());
            let second = random
                .pick(&[sound.as_bytes(), forged.as_slice(), b""])
                .to_vec();
            headers.insert(random.below(2), second);
        }
        "another body" => match random.below(4) {
            0 => body.truncate(random.below(body.len())),
            1 => body.extend(random.pick(&[&b" "[..], b"\n", b"\0", b"{}", b",v1="])),
            2 => body.clear(),
            _ => body.insert(random.below(body.len()), b' '),
        },
        "a header out of shape" => {
            // A right signature behind more than are looked at.
            let many = format!(",v1={}", "0".repeat(64)).repeat(16);
            let other = at + 1;
            let half = &signed[..32];
            let upper: String = signed
                .chars()
                .enumerate()
                .map(|(n, c)| if n < 60 { c.to_ascii_uppercase() } else { 'a' })
                .collect();
            headers = one(match random.below(12) {
                0 => String::new(),
                1 => signed.to_owned(),
                2 => format!("v1={signed}"),
                3 => format!("t={at}"),
                4 => format!("t={at},v1="),
                5 => format!("t={at},v1={half}"),
                6 => format!("t={at}{many},v1={signed}"),
                7 => format!("t={at},t={other},v1={signed}"),
                8 => format!("t=+{at},v1={signed}"),
                9 => format!("t=-{at},v1={signed}"),
                10 => format!("t={at}.0,v1={signed}"),
                _ => format!("t={at},v1={upper}"),
            });
        }
        _ => {}
    }
    let is_plain = ![
        "of the future",
        "two headers",
        "another connector",
        "no header",
    ]
    .contains(&kind)
        && kind != "a header out of shape";
    Forgery {
        headers,
        body,
        is_plain,
    }
}

#[test]
fn ten_thousand_forged_requests_are_refused_and_store_nothing() {
    const FORGERIES: usize = 10_000;
    const THREADS: usize = 4;
    let mut package = Package::start();
    let mut stage = Gateway::start("");
    let vendor = account();
    let connector = stripe(&mut stage.client, &vendor, &json!(SECRET));
    let rolled = json!([
        "whsec_test_of_another_account",
        "whsec_test_of_another_account_too"
    ]);
    let others = [
        stripe(&mut stage.client, &vendor, &rolled),
        // One that is not there, and one that takes nothing.
        OTHER.to_owned(),
        insert_connector(&mut stage.client, "shop", &api(&vendor.url(), "orders")),
    ];
    let port = stage.port;
    let path = format!("/webhooks/{connector}");
    let valid = |number: usize| {
        let body =
            json!({"id": format!("evt_valid_{number}"), "object": "event", "created": now()})
                .to_string();
        let header = header(SECRET, now(), body.as_bytes());
        ask(
            port,
            "POST",
            &path,
            &[("Stripe-Signature", &header)],
            body.as_bytes(),
        )
        .status
    };
    assert_eq!(valid(0), 200, "the secret is the one");
    wait_until(30, "the account was asked", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE kind = 'sync' AND state = 'succeeded'";
        (stage.count(sql) == 1).then_some(())
    });
    let asked = vendor.asked().len();

    let shower = |from: usize, to: usize| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (path, others) = (path.clone(), others.clone());
                std::thread::spawn(move || {
                    let mut random = Random((from + thread) as u64);
                    let mut kept = Kept {
                        port,
                        stream: None,
                        made: 0,
                    };
                    let mut answers: BTreeMap<(&str, u16), usize> = BTreeMap::new();
                    let mut bodies = BTreeSet::new();
                    let mut plain = Vec::new();
                    for number in (from..to).filter(|number| number % THREADS == thread) {
                        let kind = KINDS[(number / THREADS) % KINDS.len()];
                        let forgery = forge(kind, number, &mut random);
                        let path = match kind {
                            "another connector" => {
                                format!("/webhooks/{}", others[random.below(others.len())])
                            }
                            _ => path.clone(),
                        };
                        let headers: Vec<(&[u8], &[u8])> = forgery
                            .headers
                            .iter()
                            .map(|value| (&b"Stripe-Signature"[..], value.as_slice()))
                            .collect();
                        // Every hundredth comes over a connection of its own.
                        if random.below(100) == 0 {
                            kept.stream = None;
                        }
                        let (status, body) = kept.post(&path, &headers, &forgery.body);
                        let is_http = !forgery
                            .headers
                            .iter()
                            .flatten()
                            .any(|byte| byte.is_ascii_control());
                        assert_eq!(
                            status,
                            if is_http { 401 } else { 400 },
                            "{kind}: {:?}",
                            forgery.headers
                        );
                        *answers.entry((kind, status)).or_default() += 1;
                        if status == 401 {
                            bodies.insert(body);
                        }
                        let texts = (
                            String::from_utf8(forgery.body),
                            forgery.headers.into_iter().next().map(String::from_utf8),
                        );
                        if let (true, true, (Ok(body), Some(Ok(header)))) =
                            (forgery.is_plain, number % 9 == 0, texts)
                        {
                            plain.push((body, header));
                        }
                    }
                    (answers, bodies, plain, kept.made)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    };
    // What a process has at first does not count.
    shower(0, 400);
    let gateway = stage.pid().unwrap();
    let before = memory_kb(gateway, "RssAnon");
    let log = stage.cluster.log().len();
    let began = Instant::now();
    let showered = shower(400, 400 + FORGERIES);
    let took = began.elapsed();
    let after = memory_kb(gateway, "RssAnon");

    let mut answers: BTreeMap<(&str, u16), usize> = BTreeMap::new();
    let (mut bodies, mut plain, mut made) = (BTreeSet::new(), Vec::new(), 0);
    for (of_thread, said, asked, connections) in showered {
        for (key, count) in of_thread {
            *answers.entry(key).or_default() += count;
        }
        bodies.extend(said);
        plain.extend(asked);
        made += connections;
    }
    assert_eq!(answers.values().sum::<usize>(), FORGERIES);
    let kinds: BTreeSet<&str> = answers.keys().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, BTreeSet::from(KINDS));
    assert_eq!(bodies.len(), 1, "a forger learns nothing: {bodies:?}");
    // They are forgeries to Stripe's own package as well.
    let judged = plain.len();
    for (body, header) in plain {
        assert_eq!(
            package.judge(&body, &header, SECRET),
            None,
            "{header}\n{body}"
        );
    }
    assert_eq!(stage.pid().unwrap(), gateway);
    assert!(after < before + 32 * 1024, "from {before} to {after} kB");
    let grown = stage.cluster.log().len() - log;
    assert!(grown < 64 * 1024, "nobody fills the log: {grown} bytes");
    assert_eq!(stage.count("SELECT count(*) FROM raw_connector_data"), 1);
    assert_eq!(stage.count("SELECT count(*) FROM quarantine"), 0);
    assert_eq!(
        stage.count("SELECT count(*) FROM sync_runs"),
        2,
        "of the first event, and the sync that it asked for"
    );
    let sql = "SELECT pages FROM sync_runs WHERE kind = 'webhook'";
    assert_eq!(stage.count(sql), 1);
    assert_eq!(vendor.asked().len(), asked);
    assert_eq!(valid(1), 200);
    assert_eq!(stage.count("SELECT count(*) FROM raw_connector_data"), 2);
    let malformed: usize = answers
        .iter()
        .filter(|((_, status), _)| *status == 400)
        .map(|(_, count)| count)
        .sum();
    eprintln!(
        "{FORGERIES} forgeries in {took:?} over {made} connections, {malformed} of them no HTTP, {judged} judged by Stripe's package; memory {before} to {after} kB, log {grown} bytes"
    );
}

/// What PostgREST runs for a request, by its documentation: one transaction, of a GET one that only reads, with the role
/// and the claims of the token; the function ahead of it; then arguments by their names.
fn postgrest(
    client: &mut Client,
    method: &str,
    claims: &Value,
    sql: &str,
    body: &Value,
) -> Result<Value, postgres::Error> {
    let mut transaction = client
        .build_transaction()
        .read_only(method == "GET")
        .start()?;
    transaction.execute(
        "SELECT set_config('search_path', 'public', true), set_config('role', 'web_api', true),
            set_config('request.method', $1, true), set_config('request.jwt.claims', $2, true)",
        &[&method, &claims.to_string()],
    )?;
    transaction.execute("SELECT speak_for()", &[])?;
    let row = transaction.query_one(sql, &[body])?;
    let answer = row.get(0);
    transaction.commit()?;
    Ok(answer)
}

/// As docs/gateway.md has it.
const SPEAK_FOR: &str = "
CREATE ROLE web_api IN ROLE connector_service_app;
CREATE ROLE authenticator LOGIN NOINHERIT IN ROLE web_api;
CREATE FUNCTION speak_for() RETURNS void LANGUAGE sql AS $$
    SELECT connector_service_act_for((nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'tenant_id')::uuid)
$$;
";

#[test]
fn postgrest_finds_what_it_needs() {
    let mut stage = Gateway::start(SETTINGS);
    stage.execute(&format!(
        "INSERT INTO tenants (tenant_id) VALUES ('{TENANT}'), ('{OTHER}');
         INSERT INTO metrics (tenant_id, metric_type, metric_date, metric_value) VALUES ('{TENANT}', 'revenue', '2026-01-05', 12.50)"
    ));
    stage.cluster.script("app", SPEAK_FOR);
    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [], "next": null}"#.into()));
    let shop = insert_connector(&mut stage.client, "shop", &api(&vendor.url(), "orders"));
    let tenant = "UPDATE connectors SET tenant_id = $1::text::uuid";
    stage.client.execute(tenant, &[&TENANT]).unwrap();

    let mut client = stage.cluster.client_as("authenticator", "app");
    let own = json!({"role": "web_api", "tenant_id": TENANT});
    let others = json!({"role": "web_api", "tenant_id": OTHER});
    let metrics = r#"SELECT public.get_metrics("p_tenant_id" := a.p_tenant_id, "p_metric_type" := a.p_metric_type,
            "p_start_date" := a.p_start_date, "p_end_date" := a.p_end_date)
        FROM json_to_record($1::jsonb::json) AS a(p_tenant_id uuid, p_metric_type text, p_start_date date, p_end_date date)"#;
    let asked = json!({"p_tenant_id": TENANT, "p_metric_type": "revenue", "p_start_date": "2026-01-01", "p_end_date": "2026-01-31"});
    let seen = postgrest(&mut client, "GET", &own, metrics, &asked).unwrap();
    assert_eq!(seen["count"], 1);
    assert_eq!(seen["metrics"][0]["metric_value"], json!(12.5));
    let seen = postgrest(&mut client, "GET", &others, metrics, &asked).unwrap();
    assert_eq!(seen["count"], 0);

    let connectors = "SELECT coalesce(jsonb_agg(jsonb_build_object('name', c.name, 'status', c.status)), '[]') FROM public.connectors AS c WHERE $1::jsonb IS NOT NULL";
    let seen = postgrest(&mut client, "GET", &own, connectors, &json!({})).unwrap();
    assert_eq!(seen, json!([{"name": "shop", "status": "active"}]));
    let seen = postgrest(&mut client, "GET", &others, connectors, &json!({})).unwrap();
    assert_eq!(seen, json!([]));
    // A token that says nothing of a tenant, and no token at all.
    for nobody in [json!({"role": "web_api"}), json!("")] {
        let claims = if nobody == "" { Value::Null } else { nobody };
        let refused = postgrest(&mut client, "GET", &claims, connectors, &json!({})).unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501");
    }

    let sync = r#"SELECT coalesce(to_jsonb(public.connector_service_sync("p_connector_id" := a.p_connector_id)), 'null') FROM json_to_record($1::jsonb::json) AS a(p_connector_id uuid)"#;
    let asked = json!({"p_connector_id": shop});
    let unknown = postgrest(&mut client, "POST", &others, sync, &asked).unwrap();
    assert_eq!(unknown, Value::Null);
    let run = postgrest(&mut client, "POST", &own, sync, &asked).unwrap();
    let run = wait_for_run(&mut stage.client, run.as_str().unwrap());
    assert_eq!(run["state"], "succeeded", "{run}");

    // It calls functions by the names of their arguments, so all of them have one.
    let nameless = "SELECT coalesce(string_agg(p.oid::regprocedure::text, ', '), '') FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e'
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service'
        WHERE has_function_privilege('connector_service_app', p.oid, 'EXECUTE') AND p.pronargs > 0
            AND (p.proargnames IS NULL OR '' = ANY (p.proargnames))";
    let row = stage.client.query_one(nameless, &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "");
}
