//! Tests that secrets do not leak. One is given sealed: a vendor sends it back in every failure, PostgreSQL logs
//! everything that it can, and then every place where the secret could be is searched. Another is given in plain SQL,
//! in every kind of statement that fails, with PostgreSQL's default logging.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use connector_service_test::*;
use memchr::memmem;
use postgres::Client;
use serde_json::{Value, json};

/// Characters that differ in every encoding. Not the word that this program is called by: a server that logs all it can
/// logs its environment, where a shell leaves the path of what it started.
const CANARY: &str = "linnet/+\"&=%<not_a_real_key>";
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
    ("token_html", "unexpected_shape"),
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

/// Returns the content of all files below a folder.
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
fn a_sealed_secret_appears_nowhere_but_at_the_vendor() {
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
                true => asked.body.contains("linnet%2F"),
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

/// As PostgreSQL logs by default, and in its other format beside.
const DEFAULTS: &str = "
log_min_messages = warning
log_destination = 'stderr,csvlog'
logging_collector = on
deadlock_timeout = 100ms
log_lock_waits = on
";

/// What is refused by us, and by whom else: each with `canary` in it.
const REFUSED: [&str; 35] = [
    // By our trigger and our functions.
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, 'a', 'stripes', '{\"api_key\": \"canary\"}')",
    "INSERT INTO connectors (tenant_id, name, type, credentials, status) VALUES (T, 'a', 'stripe', '{\"api_key\": \"canary\"}', 'on')",
    "INSERT INTO connectors (tenant_id, name, type, credentials, scheduler) VALUES (T, 'a', 'stripe', '{\"api_key\": \"canary\"}', 'x')",
    "INSERT INTO connectors (tenant_id, name, type, credentials, sync_frequency) VALUES (T, 'a', 'stripe', '{\"api_key\": \"canary\"}', 'never')",
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, NULL, 'stripe', '{\"api_key\": \"canary\"}')",
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (NULL, 'a', 'stripe', '{\"api_key\": \"canary\"}')",
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, repeat('x', 2000), 'stripe', '{\"api_key\": \"canary\"}')",
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, 'a', 'stripe', '[\"canary\"]')",
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, 'a', 'stripe', '{\"$boxes\": \"canary\"}')",
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, 'a', 'stripe', '{\"api_key\": {\"$box\": \"canary\"}}')",
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, 'a', 'stripe', '{\"api_key\": {\"$sealed\": \"canary\"}}')",
    "INSERT INTO connectors (tenant_id, name, type, config) VALUES (T, 'a', 'api', '{\"manifest\": {\"streams\": [{\"api_token\": \"canary\"}]}}')",
    "INSERT INTO connectors (tenant_id, name, type, config, credentials) VALUES (T, 'a', 'stripe', (repeat('[', 200) || repeat(']', 200))::jsonb, '{\"api_key\": \"canary\"}')",
    "UPDATE connectors SET connector_id = gen_random_uuid(), credentials = '{\"api_key\": \"canary\"}'",
    "SELECT _connector_service.connector_service_seal(T, NULL, 'stripe', '{}', '{\"api_key\": \"canary\"}', NULL, NULL)",
    "SELECT _connector_service.connector_service_seal(T, T, 'stripe', (repeat('[', 200) || repeat(']', 200))::jsonb, '{\"api_key\": \"canary\"}', NULL, NULL)",
    "SELECT _connector_service.connector_service_reseal(T, T, '{\"api_key\": \"canary\"}')",
    "SELECT connector_service_retire_key('canary')",
    // By constraints, when the credentials are sealed.
    "INSERT INTO connectors (tenant_id, name, type, credentials, failures) VALUES (T, 'a', 'stripe', '{\"api_key\": \"canary\"}', -1)",
    "INSERT INTO connectors (connector_id, tenant_id, name, type, credentials) VALUES (T, T, 'a', 'stripe', '{\"api_key\": \"canary\"}')",
    "UPDATE connectors SET created_at = NULL, credentials = '{\"api_key\": \"canary\"}'",
    // In another column: the client is told what it sent.
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, 'a', 'canary', '{\"api_key\": \"canary\"}')",
    // By PostgreSQL, before we are asked.
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, 'a', 'stripe', '{\"api_key\": canary}')",
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, 'a', 'stripe', '{\"api_key\": \"canary')",
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, 'a', 'stripe', '{\"api_key\": \"it's canary\"}')",
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, 'a', 'stripe', '{\"api_key\": \"canary",
    "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES ('canary', 'a', 'stripe', '{}')",
    "INSERT INTO connectors (tenant_id, name, type, credential) VALUES (T, 'a', 'stripe', '{\"api_key\": \"canary\"}')",
    "update \"connectors\" set credentials = '{\"api_key\": \"canary\"}' where \"canary\" = 1",
    "INSERT INTO connectors (tenant_id, name, type, credentials, created_at) VALUES (T, 'a', 'stripe', '{\"api_key\": \"canary\"}', 'canary')",
    "BEGIN READ ONLY; UPDATE connectors SET credentials = '{\"api_key\": \"canary\"}'",
    "BEGIN; SELECT 1/0; UPDATE connectors SET credentials = '{\"api_key\": \"canary\"}'",
    // Within others' code.
    "DO $$ BEGIN INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, 'a', 'stripes', '{\"api_key\": \"canary\"}'); END $$",
    "SELECT of_the_users_own('{\"api_key\": \"canary\"}')",
    "EXECUTE \"Of the user's own\"('{\"api_key\": canary}')",
];

/// How many of them are refused by us, with no code of others around it.
const BY_US: usize = 21;

const WORD: &str = "canary";

#[test]
fn a_secret_in_a_failing_statement_is_not_logged() {
    let cluster = Cluster::start(DEFAULTS);
    let mut client = cluster.database("app");
    client
        .batch_execute(&format!(
            "INSERT INTO connectors (connector_id, tenant_id, name, type, credentials, sync_frequency)
                 VALUES ('{TENANT}', '{TENANT}', 'a', 'stripe', '{{\"api_key\": \"sk_test_not_a_real_key\"}}', 'manual');
             CREATE FUNCTION of_the_users_own(jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
                 EXECUTE format('INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (%L, %L, %L, %L)', '{TENANT}', 'a', 'stripes', $1);
             END $$;
             CREATE ROLE nobody; CREATE ROLE shop IN ROLE connector_service_tenant;
             INSERT INTO tenant_roles VALUES ('shop', '{TENANT}')"
        ))
        .unwrap();
    let prepare = "PREPARE \"Of the user's own\"(jsonb) AS INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (T, 'a', 'stripes', $1)";
    let prepare = prepare.replace("(T,", &format!("('{TENANT}',"));
    let mut said = String::new();
    let mut refused = 0;
    for parameters in ["0", "-1"] {
        let mut client = cluster.client("app");
        client.batch_execute(&prepare).unwrap();
        client
            .batch_execute(&format!(
                "SET log_parameter_max_length_on_error = {parameters}"
            ))
            .unwrap();
        for (number, sql) in REFUSED.iter().enumerate() {
            let sql = sql
                .replace("(T,", &format!("('{TENANT}',"))
                .replace(" T,", &format!(" '{TENANT}',"));
            let error = client.batch_execute(&sql).unwrap_err();
            if number < BY_US {
                said += &format!("{error:?}");
            }
            client.batch_execute("ROLLBACK").unwrap();
            refused += 1;
        }
        // As parameters.
        for (kind, credentials) in [
            ("stripes", json!({"api_key": WORD})),
            ("stripe", json!([WORD])),
        ] {
            let sql = "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES ($1::text::uuid, 'a', $2, $3)";
            let error = client.execute(sql, &[&TENANT, &kind, &credentials]);
            let error = error.unwrap_err();
            // Where a server tells the client what the client has sent, that is the server's wish.
            if parameters == "0" {
                said += &format!("{error:?}");
            }
            let sql = "INSERT INTO connectors (tenant_id, name, type, credentials) VALUES ($1::text::uuid, 'a', $2, $3::text::jsonb)";
            let broken = format!("{{{WORD}");
            client.execute(sql, &[&TENANT, &kind, &broken]).unwrap_err();
            refused += 2;
        }
        let copied = client
            .copy_in("COPY connectors (tenant_id, name, type, credentials) FROM STDIN")
            .and_then(|mut writer| {
                let line = format!("{TENANT}\ta\tstripe\t{{{WORD}\n");
                let _ = std::io::Write::write_all(&mut writer, line.as_bytes());
                writer.finish()
            });
        copied.unwrap_err();
        // By rights.
        let save = format!("UPDATE connectors SET credentials = '{{\"api_key\": \"{WORD}\"}}'");
        for role in ["nobody", "shop"] {
            client.batch_execute(&format!("SET ROLE {role}")).unwrap();
            let to_another = format!("{save}, tenant_id = gen_random_uuid()");
            client.batch_execute(&to_another).unwrap_err();
            client.batch_execute("RESET ROLE").unwrap();
            refused += 1;
        }
        // By waiting for somebody else: a time-out, and a deadlock, of which one of two is told.
        let mut other = cluster.client("app");
        let lock = format!("BEGIN; UPDATE tenants SET name = '{parameters}'");
        client.batch_execute(&lock).unwrap();
        for limit in ["lock_timeout", "statement_timeout"] {
            let rename = format!(
                "BEGIN; SET LOCAL {limit} = '300ms'; WITH saved AS ({save} RETURNING 1) UPDATE tenants SET name = 'b' FROM saved"
            );
            other.batch_execute(&rename).unwrap_err();
            other.batch_execute("ROLLBACK").unwrap();
            refused += 1;
        }
        other.batch_execute(&format!("BEGIN; {save}")).unwrap();
        let save = save.clone();
        std::thread::scope(|scope| {
            let one = scope.spawn(|| client.batch_execute(&save).is_ok());
            let save = "UPDATE tenants SET name = 'connectors: update, canary'";
            let other = other.batch_execute(save).is_ok();
            assert!(
                one.join().unwrap() != other,
                "one of two that wait for each other is ended"
            );
        });
        refused += 2;
    }
    client.batch_execute("SELECT 1/0 AS parrot").unwrap_err();
    // A process of its own writes the log down.
    let log = wait_until(20, "the last statement is in both logs", || {
        let mut log = cluster.log().into_bytes();
        log.extend(files(&cluster.data().join("log")));
        let log = String::from_utf8_lossy(&log).into_owned();
        (log.matches("parrot").count() >= 2).then_some(log)
    });
    let canaries: Vec<&str> = log.lines().filter(|line| line.contains(WORD)).collect();
    assert_eq!(canaries, Vec::<&str>::new());
    assert!(!said.contains(WORD), "{said}");
    // In both formats, each is there without its statement, and the one that holds nothing with it.
    let count = |text: &str| log.matches(text).count();
    assert_eq!(count("parrot"), 2);
    assert!(count("connector type \"...\" is not known") >= 8);
    assert!(count("deadlock detected") >= 4);
    assert!(
        count("ERROR") >= 2 * refused,
        "{} of {refused}",
        count("ERROR")
    );

    // The last words of the server about a process that was killed are what it did.
    let mut waiting = cluster.client("app");
    let pid: i32 = waiting
        .query_one("SELECT pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    client.batch_execute("BEGIN; LOCK connectors").unwrap();
    let save = format!("UPDATE connectors SET credentials = '{{\"api_key\": \"{WORD}\"}}'");
    let killed = std::thread::spawn(move || waiting.batch_execute(&save).is_err());
    wait_until(10, "the statement waits", || {
        let sql = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
        client.query_opt(sql, &[&pid]).unwrap()
    });
    cluster.command("/bin/kill", &["-9", &pid.to_string()]);
    assert!(killed.join().unwrap());
    cluster.wait_ready();
    let log = files(&cluster.data().join("log"));
    let log = String::from_utf8_lossy(&log);
    assert!(log.contains("was terminated by signal 9"));
    let canaries: Vec<&str> = log.lines().filter(|line| line.contains(WORD)).collect();
    assert_eq!(canaries, Vec::<&str>::new());
    println!("{refused} statements failed, and none is in the log");
}
