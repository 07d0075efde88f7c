//! A secret that is given in a box, and everything that could give it away: every failure of a vendor who shouts it
//! back, with everything logged that PostgreSQL can log; then every place where it could lie is searched for it.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use connector_service_test::*;
use memchr::memmem;
use postgres::Client;
use serde_json::{Value, json};

/// Characters that differ in every encoding.
const CANARY: &str = "canary/+\"&=%<not_a_real_key>";
/// Given in plain JSON, so that it is known where that shows, and that the search finds what is there.
const PLAIN: &str = "parrot/+\"&=%<not_a_real_key>";

/// Everything that can be logged is. What is sent to a client is not a place of ours.
const SHOUT: &str = "
shared_preload_libraries = 'connector_service,pg_stat_statements,auto_explain'
log_min_messages = debug5
log_statement = all
log_min_duration_statement = 0
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
log_error_verbosity = verbose
debug_print_plan = on
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
auto_explain.log_verbose = on
pg_stat_statements.track = all
wal_level = logical
connector_service.request_retries = 0
connector_service.read_timeout = 300ms
connector_service.max_response_size = 64kB
";

/// What the vendor does at each path, and what comes of it. It has the secret from the request, and shouts it back
/// wherever that is not data: records and page tokens are stored as they come.
const FAULTS: [(&str, &str); 14] = [
    ("denied", "credentials_rejected"),
    ("gone", "not_found"),
    ("teapot", "request_refused"),
    ("broken", "server_error"),
    ("limited", "rate_limited"),
    ("redirected", "redirected"),
    ("foreign", "foreign_next_page"),
    ("no_json", "invalid_json"),
    ("other_shape", "unexpected_shape"),
    ("cut", "truncated_response"),
    ("zipped", "bad_encoding"),
    ("silent", "read_timeout"),
    ("flood", "response_too_large"),
    ("again", "repeated_page"),
];

/// What the vendor answers to a token request at each path. The last one replaces the secret by one that holds it.
const LOGINS: [(&str, &str); 3] = [
    ("token_denied", "credentials_rejected"),
    ("token_html", "invalid_json"),
    ("token_given", "credentials_rejected"),
];

fn log_in(asked: &Asked) -> Reply {
    let shown = CANARY.to_owned();
    match asked.path.trim_start_matches('/') {
        "token_denied" => Reply::Full {
            status: 400,
            headers: vec![("WWW-Authenticate", shown.clone())],
            body: json!({"error": shown, "said": asked.body}).to_string().into_bytes(),
        },
        "token_html" => Reply::Json(format!("<html>{shown}")),
        _ => Reply::Json(
            json!({"access_token": format!("{shown}-access"), "refresh_token": format!("{shown}-next")}).to_string(),
        ),
    }
}

fn shout(asked: &Asked) -> Reply {
    if asked.path.starts_with("/token") {
        return log_in(asked);
    }
    let secret = asked.headers["authorization"].replace("Bearer ", "");
    let text = json!({"error": secret, "message": asked.headers, "query": asked.query}).to_string();
    let url = format!("/next?key={secret}").replace('"', "%22");
    let full = |status, headers| Reply::Full {
        status,
        headers,
        body: text.clone().into_bytes(),
    };
    match asked.path.trim_start_matches('/') {
        "denied" => full(401, vec![("WWW-Authenticate", secret)]),
        "gone" => full(404, vec![]),
        "teapot" => full(418, vec![("X-Error", secret)]),
        "broken" => full(500, vec![]),
        "limited" => full(429, vec![("Retry-After", secret)]),
        "redirected" => full(302, vec![("Location", format!("http://127.0.0.1:1{url}"))]),
        "foreign" => Reply::Json(
            json!({"data": [{"id": 1}], "next": format!("http://127.0.0.1:1{url}")}).to_string(),
        ),
        "no_json" => Reply::Json(format!("<html>{secret}")),
        "other_shape" => Reply::Json(json!({"rows": [secret]}).to_string()),
        "cut" => Reply::Raw(
            format!("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{text}").into_bytes(),
        ),
        "zipped" => full(200, vec![("Content-Encoding", "gzip".into())]),
        "silent" => Reply::Hang,
        "flood" => Reply::Json(text.repeat(2_000)),
        "again" => Reply::Json(json!({"data": [{"id": 1}], "next": "again"}).to_string()),
        other => unreachable!("{other}"),
    }
}

/// The secret as it may look: as it is, and in the encodings that a log, a URL, JSON or a dump would use.
fn spellings(secret: &str) -> Vec<String> {
    let percent: String = secret
        .bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'_' => (b as char).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect();
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let json = Value::from(secret).to_string();
    let mut all = vec![
        secret.to_owned(),
        json.trim_matches('"').to_owned(),
        json.replace('\\', "\\\\"),
        percent.to_lowercase(),
        percent,
        hex.to_uppercase(),
        hex,
        // How a part of it would show.
        secret[..6].to_owned(),
    ];
    // In base64 it looks different after every three bytes; the first and last characters depend on the neighbours.
    for before in 0..3 {
        let text = " ".repeat(before) + secret;
        let whole = STANDARD.encode(text);
        all.push(whole[4..whole.len() - 4].to_owned());
    }
    all
}

fn found(place: &[u8], spellings: &[String]) -> Vec<String> {
    let is_in = |spelling: &&String| memmem::find(place, spelling.as_bytes()).is_some();
    spellings.iter().filter(is_in).cloned().collect()
}

/// All files below a folder, one after the other.
fn files(folder: &Path) -> Vec<u8> {
    let mut all = vec![];
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => all.extend(files(&entry.path())),
            kind if kind.is_file() => all.extend(std::fs::read(entry.path()).unwrap_or_default()),
            _ => {}
        }
    }
    all
}

fn rows(client: &mut Client, sql: &str) -> Vec<u8> {
    let rows = client.simple_query(sql).unwrap();
    format!("{rows:?}")
        .replace("\\\\", "\\")
        .replace("\\\"", "\"")
        .into_bytes()
}

fn boxed(client: &mut Client, secret: &str) -> Value {
    let key: String = client
        .query_one("SELECT connector_service_seal_key()", &[])
        .unwrap()
        .get(0);
    json!({"api_key": {"$box": sealed_box(&key, secret)}})
}

fn insert(
    client: &mut Client,
    name: &str,
    config: &Value,
    credentials: &Value,
) -> Result<String, postgres::Error> {
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
               VALUES ('00000000-0000-4000-8000-000000000001', $1, 'api', $2, $3, 'manual') RETURNING connector_id::text";
    client
        .query_one(sql, &[&name, config, credentials])
        .map(|row| row.get(0))
}

#[test]
fn a_boxed_secret_is_nowhere_but_at_the_vendor() {
    let cluster = Cluster::start(SHOUT);
    let mut client = cluster.database("app");
    for sql in [
        "CREATE EXTENSION pg_stat_statements",
        "SELECT pg_create_logical_replication_slot('decoding', 'test_decoding')",
    ] {
        client.batch_execute(sql).unwrap();
    }
    let vendor = Vendor::start(shout);
    let credentials = boxed(&mut client, CANARY);
    let mut connectors = vec![];
    for (path, code) in FAULTS {
        let mut config = api(&vendor.url(), path);
        // The secret stands in the address, too.
        config["manifest"]["streams"][0]["retriever"]["requester"]["request_parameters"] =
            json!({"key": "{{ config['api_key'] }}"});
        if path == "foreign" {
            config["manifest"]["streams"][0]["retriever"]["paginator"]["page_token_option"] =
                json!({"type": "RequestPath"});
        }
        connectors.push((
            insert(&mut client, path, &config, &credentials).unwrap(),
            code,
        ));
    }
    for (base, code) in [
        ("http://127.0.0.1:1", "connect_failed"),
        (&*vendor.url().replace("http", "https"), "tls_failed"),
    ] {
        let id = insert(&mut client, code, &api(base, "x"), &credentials).unwrap();
        connectors.push((id, code));
    }
    for (path, code) in LOGINS {
        let mut config = api(&vendor.url(), "denied");
        config["manifest"]["streams"][0]["retriever"]["requester"]["authenticator"] = json!({
            "type": "OAuthAuthenticator", "token_refresh_endpoint": format!("{}/{path}", vendor.url()),
            "client_id": "app", "client_secret": "{{ config['api_key'] }}", "refresh_token": "{{ config['api_key'] }}"
        });
        connectors.push((
            insert(&mut client, path, &config, &credentials).unwrap(),
            code,
        ));
    }
    let mut said = String::new();
    for (connector, code) in &connectors {
        let run = sync(&mut client, connector);
        let run = wait_for_run(&mut client, &run);
        assert_eq!(run["error_code"], *code, "{run}");
        let waited = client.batch_execute(&format!(
            "CALL connector_service_sync_wait('{connector}', '5 s')"
        ));
        said += &format!("{run} {:?}", waited.unwrap_err());
    }
    assert!(
        vendor
            .asked()
            .iter()
            .all(|asked| match asked.path.starts_with("/token") {
                true => asked.body.contains("canary%2F"),
                false => asked.headers["authorization"].contains(CANARY),
            })
    );

    // Statements that fail: a type, a frequency and a manifest that are wrong, a key that is taken, a box that is broken.
    for (column, value) in [
        ("type", "'stripes'"),
        ("sync_frequency", "'never'"),
        ("config", "'{}'"),
        ("name", "NULL"),
        ("tenant_id", "NULL"),
        ("connector_id", "gen_random_uuid()"),
        ("created_at", "'infinity'::timestamptz + '1 day'"),
        ("failures", "-1"),
    ] {
        let sql = format!(
            "UPDATE connectors SET {column} = {value}, credentials = $1 WHERE connector_id = $2::text::uuid"
        );
        let credentials = boxed(&mut client, CANARY);
        let failed = client.execute(&sql, &[&credentials, &connectors[0].0]);
        said += &format!("{failed:?}");
    }
    client
        .batch_execute("CALL connector_service_rotate_key()")
        .unwrap();
    // The one that is given in plain JSON.
    let plain = insert(
        &mut client,
        "plain",
        &api(&vendor.url(), "denied"),
        &json!({"api_key": PLAIN}),
    )
    .unwrap();
    let run = sync(&mut client, &plain);
    wait_for_run(&mut client, &run);

    let mut places: Vec<(&str, Vec<u8>)> = vec![("errors and notices", said.into_bytes())];
    for (place, sql) in [
        (
            "pg_stat_activity",
            "SELECT * FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
        ),
        ("pg_stat_statements", "SELECT * FROM pg_stat_statements"),
        ("pg_settings", "SELECT * FROM pg_settings"),
        (
            "logical decoding",
            "SELECT * FROM pg_logical_slot_peek_changes('decoding', NULL, NULL)",
        ),
        ("connectors", "SELECT * FROM connectors"),
        (
            "runs, quarantine, alerts",
            "SELECT (SELECT json_agg(r) FROM sync_runs r), (SELECT json_agg(q) FROM quarantine q), (SELECT json_agg(a) FROM data_quality_alerts a)",
        ),
        (
            "statistics of columns",
            "ANALYZE; SELECT * FROM pg_stats WHERE tablename = 'connectors'",
        ),
    ] {
        places.push((place, rows(&mut client, sql)));
    }
    let url = cluster.url("app");
    let dump = cluster.dir.join("dump");
    for (place, format) in [("pg_dump, plain", "-Fp"), ("pg_dump, custom", "-Fc")] {
        cluster.command(
            "pg_dump",
            &["-d", &url, format, "-Z0", "-f", dump.to_str().unwrap()],
        );
        places.push((place, std::fs::read(&dump).unwrap()));
    }
    let backup = cluster.dir.join("backup");
    let into = backup.to_str().unwrap();
    cluster.command(
        "pg_basebackup",
        &["-d", &cluster.url("postgres"), "-D", into, "-c", "fast"],
    );
    places.push(("pg_basebackup", files(&backup)));
    let worker = cluster.wait_worker("app");
    for file in ["environ", "cmdline"] {
        places.push((
            file,
            std::fs::read(format!("/proc/{worker}/{file}")).unwrap(),
        ));
    }
    cluster.stop(Stop::Fast);
    places.push(("WAL", files(&cluster.data().join("pg_wal"))));
    places.push(("data directory", files(&cluster.data())));
    places.push(("server log", cluster.log().into_bytes()));

    for (place, content) in &places {
        assert!(
            content.len() > 100 || *place == "cmdline" || *place == "environ",
            "{place}: {}",
            content.len()
        );
        let found = found(content, &spellings(CANARY));
        if let Some(first) = found.first() {
            let at = memmem::find(content, first.as_bytes()).unwrap();
            let around = &content[at.saturating_sub(300)..(at + 300).min(content.len())];
            panic!("{place}: {found:?} in {}", String::from_utf8_lossy(around));
        }
    }
    assert!(places.len() >= 12);
    // The search finds what is there: a plain secret shows where statements are kept, and nowhere else.
    let shows: Vec<&str> = places
        .iter()
        .filter(|(_, content)| !found(content, &spellings(PLAIN)).is_empty())
        .map(|(place, _)| *place)
        .collect();
    assert_eq!(shows, ["server log"]);
    println!(
        "{} connectors failed, {} places searched, {} spellings: no hit",
        connectors.len(),
        places.len(),
        spellings(CANARY).len()
    );
}
