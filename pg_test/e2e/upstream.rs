//! Tests vendors that misbehave: each failure has its own error code and affects only its own connector.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Duration;

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

/// Short enough to see every limit reached within seconds.
const LIMITS: &str = "
connector_service.connect_timeout = '200ms'
connector_service.read_timeout = '800ms'
connector_service.request_timeout = '2s'
connector_service.request_retries = 2
connector_service.retry_pause = '20ms'
connector_service.longest_pause = '500ms'
connector_service.max_response_size = '8MB'
connector_service.max_pages = 20
";

const MEGABYTE: usize = 1024 * 1024;

fn page(records: &[String], next: &Value) -> Reply {
    Reply::Json(format!(
        r#"{{"data": [{}], "next": {next}}}"#,
        records.join(",")
    ))
}

fn full(status: u16, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    Reply::Full {
        status,
        headers: headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
        body: body.into(),
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// A gigabyte of blanks is a megabyte on the wire; made once, piece by piece.
fn bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let blanks = vec![b' '; MEGABYTE];
    for _ in 0..1024 {
        encoder.write_all(&blanks).unwrap();
    }
    encoder.finish().unwrap()
}

/// What the vendor does, by path, and how the run must end. The first page is good where `/late-` says so.
fn faults() -> Vec<(&'static str, &'static str)> {
    vec![
        ("/error-500", "server_error"),
        ("/error-503-html", "server_error"),
        ("/late-error-500", "server_error"),
        ("/rate-limit-long", "rate_limited"),
        ("/rate-limit-silent", "rate_limited"),
        ("/late-rate-limit", "rate_limited"),
        ("/unauthorized", "credentials_rejected"),
        ("/forbidden", "credentials_rejected"),
        ("/missing", "not_found"),
        ("/bad-request", "request_refused"),
        ("/redirect", "redirected"),
        ("/hang", "read_timeout"),
        ("/late-hang", "read_timeout"),
        ("/drip", "request_timeout"),
        ("/cut", "truncated_response"),
        ("/cut-chunk", "truncated_response"),
        ("/late-cut", "truncated_response"),
        ("/short-length", "truncated_response"),
        ("/flood", "response_too_large"),
        ("/flood-announced", "response_too_large"),
        ("/bomb", "response_too_large"),
        ("/not-gzip", "bad_encoding"),
        ("/html", "invalid_json"),
        // A page without records is no fault.
        ("/empty", ""),
        ("/no-content", ""),
        ("/half-json", "truncated_response"),
        ("/errors-with-200", "unexpected_shape"),
        ("/list", "unexpected_shape"),
        ("/same-token", "repeated_page"),
        ("/two-tokens", "repeated_page"),
        ("/same-rows", "repeated_page"),
        ("/endless", "too_many_pages"),
    ]
}

/// Pages that were stored before the fault came, and stay.
fn pages_kept(path: &str) -> i64 {
    match path {
        "/same-token" | "/same-rows" | "/empty" | "/no-content" => 1,
        "/two-tokens" => 2,
        "/endless" => 20,
        late if late.starts_with("/late-") => 1,
        _ => 0,
    }
}

fn misbehave(asked: &Asked, bomb: &[u8]) -> Reply {
    let at = asked.number("after");
    let orders = |first: usize| {
        (first..first + 10)
            .map(|id| order(id, 0))
            .collect::<Vec<_>>()
    };
    let path = match asked.path.strip_prefix("/late-") {
        Some(_) if at == 0 => return page(&orders(0), &json!(1)),
        Some(fault) => fault,
        None => asked.path.trim_start_matches('/'),
    };
    match path {
        "error-500" => Reply::status(500),
        "error-503-html" => full(503, &[("Content-Type", "text/html")], "<html>down</html>"),
        "rate-limit" | "rate-limit-long" => full(429, &[("Retry-After", "3600")], ""),
        "rate-limit-silent" => full(429, &[], ""),
        "unauthorized" => Reply::status(401),
        "forbidden" => Reply::status(403),
        "missing" => Reply::status(404),
        "bad-request" => Reply::status(400),
        "redirect" => full(302, &[("Location", "http://169.254.169.254/")], ""),
        "hang" => Reply::Hang,
        "drip" => Reply::Drip(Duration::from_millis(50)),
        "cut" => {
            Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"data\": [".to_vec())
        }
        "cut-chunk" => Reply::Raw(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{\"data\": [".to_vec(),
        ),
        "short-length" => Reply::Raw(
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"data\": [], \"next\": null}".to_vec(),
        ),
        "flood" | "flood-announced" => Reply::Flood {
            bytes: 5 * 1024 * MEGABYTE as u64,
            announced: path == "flood-announced",
        },
        "bomb" => full(200, &[("Content-Encoding", "gzip")], bomb),
        "not-gzip" => full(200, &[("Content-Encoding", "gzip")], "{\"data\": []}"),
        "html" => full(
            200,
            &[("Content-Type", "text/html")],
            "<html>please log in</html>",
        ),
        "empty" => full(200, &[], ""),
        "no-content" => Reply::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        "half-json" => full(200, &[], "{\"data\": [{\"id\": 1}"),
        "errors-with-200" => Reply::Json("{\"errors\": [{\"message\": \"no\"}]}".into()),
        "list" => Reply::Json("[{\"id\": 1}]".into()),
        "same-token" => page(&orders(at * 10), &json!(1)),
        "two-tokens" => page(&orders(at * 10), &json!(if at == 1 { 2 } else { 1 })),
        "same-rows" => page(&orders(0), &json!(at + 1)),
        "endless" => page(&orders(at * 10), &json!(at + 1)),
        other => panic!("no fault is named {other}"),
    }
}

struct Stage {
    cluster: Cluster,
    client: Client,
    worker: i32,
}

fn stage() -> Stage {
    let cluster = Cluster::start(LIMITS);
    let client = cluster.database("app");
    let worker = cluster.wait_worker("app");
    Stage {
        cluster,
        client,
        worker,
    }
}

#[test]
fn every_failure_has_its_own_code_and_affects_only_its_own_connector() {
    let mut stage = stage();
    let bomb = bomb();
    let shop = std::sync::Arc::new(Shop::new(2_000, 100));
    let serving = shop.clone();
    let vendor = Vendor::start(move |asked| match asked.path.as_str() {
        "/orders" => Reply::After(Duration::from_millis(20), Box::new(serving.answer(asked))),
        _ => misbehave(asked, &bomb),
    });
    let healthy = insert_connector(&mut stage.client, "healthy", &api(&vendor.url(), "orders"));
    // An answer without content is a page without records.
    for (path, _) in faults() {
        insert_connector(&mut stage.client, path, &api(&vendor.url(), path));
    }
    let client = &mut stage.client;
    let before = memory_kb(stage.worker, "RssAnon");
    let runs: Vec<(String, String)> = client
        .query(
            "SELECT name, connector_service_sync(connector_id)::text FROM connectors",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let mut largest = before;
    // What a vendor wants a pause for has not failed: it waits in the queue.
    let open = "SELECT count(*) FROM sync_runs WHERE finished_at IS NULL AND (state <> 'queued' OR retry_at IS NULL)";
    wait_until(60, "every run has ended or waits", || {
        largest = largest.max(memory_kb(stage.worker, "RssAnon"));
        (client.query_one(open, &[]).unwrap().get::<_, i64>(0) == 0).then_some(())
    });

    let mut ended = BTreeMap::new();
    for (name, run) in &runs {
        let run = run_of(client, run);
        ended.insert(
            name.clone(),
            (run["error_code"].clone(), run["pages"].clone()),
        );
        // In our own words: nothing of a body, a URL or a credential.
        let message = run["error_message"].as_str().unwrap_or_default();
        for secret in ["sk_test", "http://", "please log in", "/api", "after="] {
            assert!(!message.contains(secret), "{message}");
        }
    }
    let mut expected: BTreeMap<String, (Value, Value)> = faults()
        .into_iter()
        .map(|(path, code)| {
            let code = Some(code).filter(|code| !code.is_empty());
            (path.to_owned(), (json!(code), json!(pages_kept(path))))
        })
        .collect();
    expected.insert("healthy".into(), (Value::Null, json!(20)));
    assert_eq!(ended, expected);
    assert_eq!(Shop::stored(client, &healthy), shop.served());
    ledger_holds(client);

    // What passes by itself stays active and is tried again; what a person must mend says so.
    let sql = "SELECT name, status, error_message IS NOT NULL, next_sync_at > now() OR sync_frequency = 'manual'
               FROM connectors WHERE name IN ('/error-500', '/unauthorized', 'healthy') ORDER BY name";
    let states: Vec<(String, String, bool, bool)> = client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3)))
        .collect();
    let state = |name: &str, status: &str, told| (name.to_owned(), status.to_owned(), told, true);
    assert_eq!(
        states,
        [
            state("/error-500", "active", true),
            state("/unauthorized", "error", true),
            state("healthy", "active", false)
        ]
    );
    // An hour was asked for: nothing is tried before it is over.
    let sql = "SELECT extract(epoch FROM r.retry_at - r.started_at)::int, r.state, r.waits, c.status, c.failures
               FROM sync_runs r JOIN connectors c USING (connector_id) WHERE c.name = '/rate-limit-long'";
    let row = client.query_one(sql, &[]).unwrap();
    assert!(row.get::<_, i32>(0) >= 3_599);
    let waiting: (String, i32, String, i32) = (row.get(1), row.get(2), row.get(3), row.get(4));
    assert_eq!(waiting, ("queued".into(), 1, "active".into(), 0));
    assert_eq!(vendor.asked_for("/rate-limit-long"), 1);
    assert_eq!(
        vendor.asked_for("/unauthorized"),
        1,
        "asking again could lock the account"
    );
    assert_eq!(
        vendor.asked_for("/error-500"),
        3,
        "one request and two retries"
    );

    let grown = largest.saturating_sub(before) / 1024;
    println!("the worker grew by {grown} MB at most");
    assert!(grown < 128, "{grown} MB");
    assert_eq!(
        stage.cluster.worker("app"),
        Some(stage.worker),
        "the same process"
    );
    assert_eq!(
        stage.cluster.log().matches("terminated by signal").count(),
        0
    );
}

#[test]
fn a_failure_that_ends_within_the_retries_does_not_fail_the_run() {
    let mut stage = stage();
    let tries = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
    let vendor = Vendor::start(move |asked| {
        let mut tries = tries.lock().unwrap();
        let tried = tries.entry(asked.path.clone()).or_default();
        *tried += 1;
        let good = page(&[order(1, 0), order(2, 0)], &Value::Null);
        match (asked.path.as_str(), *tried) {
            ("/error-503", 1..=2) => Reply::status(503),
            ("/rate-limit", 1) => full(429, &[("Retry-After", "0")], ""),
            ("/hang", 1) => Reply::Hang,
            ("/cut", 1) => Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".to_vec()),
            ("/compressed", _) => {
                let Reply::Json(body) = good else {
                    unreachable!()
                };
                full(200, &[("Content-Encoding", "gzip")], gzip(body.as_bytes()))
            }
            _ => good,
        }
    });
    for path in ["/error-503", "/rate-limit", "/hang", "/cut", "/compressed"] {
        let connector = insert_connector(&mut stage.client, path, &api(&vendor.url(), path));
        let run = sync(&mut stage.client, &connector);
        let run = wait_for_run(&mut stage.client, &run);
        assert_eq!(
            (&run["state"], &run["inserted"]),
            (&json!("succeeded"), &json!(2)),
            "{path}: {run}"
        );
    }
}

#[test]
fn an_interrupted_sync_continues_at_the_page_that_failed() {
    let mut stage = stage();
    let shop = std::sync::Arc::new(Shop::new(500, 100));
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (serving, breaking) = (shop.clone(), broken.clone());
    let vendor = Vendor::start(move |asked| {
        if asked.number("after") == 300 && breaking.load(std::sync::atomic::Ordering::Relaxed) {
            return Reply::status(500);
        }
        serving.answer(asked)
    });
    let connector = insert_connector(&mut stage.client, "shop", &Shop::config(&vendor.url()));
    let run = sync(&mut stage.client, &connector);
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(
        (&run["error_code"], &run["inserted"]),
        (&json!("server_error"), &json!(300))
    );

    broken.store(false, std::sync::atomic::Ordering::Relaxed);
    let asked_before = vendor.asked().len();
    let run = sync(&mut stage.client, &connector);
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(
        (&run["state"], &run["inserted"]),
        (&json!("succeeded"), &json!(200))
    );
    let asked: Vec<usize> = vendor.asked()[asked_before..]
        .iter()
        .map(|asked| asked.number("after"))
        .collect();
    assert_eq!(asked, [300, 400]);
    assert_eq!(Shop::stored(&mut stage.client, &connector), shop.served());
    ledger_holds(&mut stage.client);
}

#[test]
fn an_address_without_an_answer_has_its_own_error_code() {
    let mut stage = stage();
    // Bound and dropped: a port of ours that refuses.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    // What a server without TLS says to one that wants it.
    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let plain_port = plain.local_addr().unwrap().port();
    std::thread::spawn(move || {
        // Kept open: a reset could overtake the answer.
        let mut kept = Vec::new();
        for mut stream in plain.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            kept.push(stream);
        }
    });
    // A queue of one place, taken: the kernel drops what comes after, as a firewall does.
    let full = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: a listening socket may be told its queue's length again.
    assert_eq!(unsafe { libc::listen(full.as_raw_fd(), 0) }, 0);
    let full_address = full.local_addr().unwrap();
    let patience = Duration::from_millis(300);
    let _waiting: Vec<_> = (0..4)
        .map(|_| std::net::TcpStream::connect_timeout(&full_address, patience))
        .collect();
    let addresses = [
        (format!("http://127.0.0.1:{closed}"), "connect_failed"),
        (format!("http://{full_address}"), "connect_timeout"),
        // Longer than a label may be, so that no resolver is asked.
        (format!("http://{}.invalid", "a".repeat(64)), "dns_failed"),
        (format!("https://127.0.0.1:{plain_port}"), "tls_failed"),
    ];
    let mut ended = Vec::new();
    for (address, _) in &addresses {
        let connector = insert_connector(&mut stage.client, address, &api(address, "orders"));
        let run = sync(&mut stage.client, &connector);
        let run = wait_for_run(&mut stage.client, &run);
        ended.push(run["error_code"].as_str().unwrap_or("none").to_owned());
    }
    assert_eq!(ended, addresses.map(|(_, code)| code.to_owned()));
}

#[test]
fn credentials_are_not_sent_to_another_host() {
    let mut stage = stage();
    let other = Vendor::start(|_| Reply::status(400));
    let elsewhere = other.url().replace("127.0.0.1", "localhost");
    let vendor = Vendor::start(move |_| page(&[order(1, 0)], &json!(format!("{elsewhere}/steal"))));
    let mut manifest = manifest(&vendor.url(), "orders");
    manifest["streams"][0]["retriever"]["paginator"]["page_token_option"] =
        json!({"type": "RequestPath"});
    let config = json!({ "manifest": manifest });
    let connector = insert_connector(&mut stage.client, "lured", &config);
    let run = sync(&mut stage.client, &connector);
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(
        (&run["error_code"], &run["inserted"]),
        (&json!("foreign_next_page"), &json!(1))
    );
    assert_eq!(other.asked().len(), 0);
}
