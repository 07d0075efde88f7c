#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod fuzz;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use hyper::{HeaderMap, Method, Uri};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::route::{Awaits, Route, WEBHOOK_BYTES, route};
use super::*;

const ID: &str = "00000000-0000-4000-8000-00000000000a";

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers
}

fn token() -> Token {
    Token(Sha256::digest(b"cs_test_not_a_real_token").into())
}

fn get(path: &str) -> Result<Route, u16> {
    let uri: Uri = path.parse().unwrap();
    route(&Method::GET, &uri, &bearer("cs_test_not_a_real_token")).map_err(|answer| answer.status)
}

#[test]
fn each_path_leads_to_its_route() {
    let day = |text: &str| text.parse().unwrap();
    let metrics = Metrics {
        tenant: ID.parse().unwrap(),
        metric_type: Some("revenue".into()),
        from: day("2026-01-01"),
        to: day("2026-01-31"),
        after: None,
        limit: 1_000,
    };
    let path =
        format!("/metrics/{ID}?metric_type=revenue&start_date=2026-01-01&end_date=2026-01-31");
    let asks = |metrics| Ok(Route::Ask(Ask::Metrics(token(), metrics)));
    assert_eq!(get(&path), asks(metrics.clone()));
    let next = Metrics {
        after: Some((day("2026-01-05"), "revenue".into())),
        limit: 10,
        ..metrics
    };
    assert_eq!(
        get(&format!("{path}&after=2026-01-05%2Crevenue&limit=10")),
        asks(next)
    );
    assert_eq!(get("/ready"), Ok(Route::Ask(Ask::Ready)));
    for path in ["/live", "/", "/page.js", "/page.css", "/openapi.json"] {
        assert!(
            matches!(get(path), Ok(Route::At(Answer { status: 200, .. }))),
            "{path}"
        );
    }
    assert_eq!(get("/tenants"), Ok(Route::Ask(Ask::Tenants(token()))));
    let id: Uuid = ID.parse().unwrap();
    assert_eq!(
        get(&format!("/tenants/{ID}/overview")),
        Ok(Route::Ask(Ask::Overview(token(), id)))
    );
    assert_eq!(
        get("/internal/prometheus"),
        Ok(Route::Ask(Ask::Prometheus(token())))
    );

    let post = |path: &str| {
        route(
            &Method::POST,
            &path.parse().unwrap(),
            &bearer("cs_test_not_a_real_token"),
        )
    };
    let id: Uuid = ID.parse().unwrap();
    assert_eq!(
        post(&format!("/alerts/{ID}/resolve")),
        Ok(Route::Ask(Ask::Resolve(token(), id)))
    );
    assert_eq!(
        post(&format!("/connectors/{ID}/replay")),
        Ok(Route::Ask(Ask::Replay(token(), id)))
    );
    let Ok(Route::Body(awaits)) = post("/internal/sync-connector") else {
        panic!("a sync awaits its body");
    };
    let body = Bytes::from(format!(r#"{{"connector_id": "{ID}"}}"#));
    assert_eq!(
        awaits.with(body),
        Ok(Ask::Sync(token(), ID.parse().unwrap()))
    );
    let Ok(Route::Body(awaits)) = post(&format!("/uploads/{ID}?file=sales%20of%20May.csv")) else {
        panic!("an upload awaits its body");
    };
    let Ok(Ask::Upload(_, upload)) = awaits.with(Bytes::from_static(b"a,b\n1,2\n")) else {
        panic!("an upload");
    };
    assert_eq!(
        (upload.file.as_str(), upload.body.len()),
        ("sales of May.csv", 8)
    );
    let Ok(Route::Body(Awaits::Webhook { connector, headers })) = post(&format!("/webhooks/{ID}"))
    else {
        panic!("a webhook awaits its body");
    };
    assert_eq!(connector.to_string(), ID);
    assert_eq!(headers.len(), 1);
}

fn pushed(encoding: &str, content_type: &str, body: Vec<u8>) -> Result<Webhook, u16> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", content_type.parse().unwrap());
    if !encoding.is_empty() {
        headers.insert("content-encoding", encoding.parse().unwrap());
    }
    let uri = format!("/webhooks/{ID}").parse().unwrap();
    let Ok(Route::Body(awaits)) = route(&Method::POST, &uri, &headers) else {
        panic!("a webhook awaits its body");
    };
    match awaits.with(body.into()) {
        Ok(Ask::Webhook(webhook)) => Ok(webhook),
        Ok(_) => panic!("another request"),
        Err(answer) => Err(answer.status),
    }
}

#[test]
fn a_webhook_is_opened_within_bounds_and_keeps_what_came() {
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    let text = r#"{"n": "café"}"#;
    let latin = b"{\"n\": \"caf\xE9\"}".to_vec();
    for (encoding, content_type, body) in [
        ("", "application/json", text.as_bytes().to_vec()),
        ("gzip", "application/json", gzip(text.as_bytes())),
        ("x-gzip", "application/json", gzip(text.as_bytes())),
        (
            "gzip, gzip",
            "application/json",
            gzip(&gzip(text.as_bytes())),
        ),
        ("", "application/json", gzip(text.as_bytes())),
        ("identity", "application/json", text.as_bytes().to_vec()),
        ("gzip", "application/json; charset=iso-8859-1", gzip(&latin)),
    ] {
        let webhook = pushed(encoding, content_type, body.clone()).unwrap();
        assert_eq!(webhook.body, body, "{encoding}");
        assert_eq!(webhook.text, text, "{encoding}");
    }
    let bomb = vec![b' '; WEBHOOK_BYTES + 1];
    for (encoding, body, status) in [
        ("gzip", gzip(&bomb), 413),
        ("gzip, gzip", gzip(&gzip(&bomb)), 413),
        ("gzip", text.as_bytes().to_vec(), 400),
        ("gzip", gzip(text.as_bytes())[..20].to_vec(), 400),
        ("br", text.as_bytes().to_vec(), 415),
    ] {
        let refused = pushed(encoding, "application/json", body).err();
        assert_eq!(refused, Some(status), "{encoding}");
    }
}

#[test]
fn a_wrong_request_is_refused_with_its_status() {
    let path = |query: &str| format!("/metrics/{ID}?{query}");
    let period = "start_date=2026-01-01&end_date=2026-01-31";
    for (path, status) in [
        ("/metrics".to_owned(), 404),
        (format!("/tenants/{ID}"), 404),
        ("/tenants/1/overview".into(), 400),
        (format!("/alerts/{ID}/resolve"), 405),
        ("/metrics/".into(), 404),
        ("/metrics/1/2".into(), 404),
        ("/live/x".into(), 404),
        (format!("/webhooks/{ID}"), 405),
        ("/internal/sync-connector".into(), 405),
        (format!("/metrics/1?{period}"), 400),
        (path(""), 400),
        (path("start_date=2026-01-01"), 400),
        (path("start_date=2026-1-1&end_date=2026-01-31"), 400),
        (path("start_date=01.01.2026&end_date=2026-01-31"), 400),
        (path("start_date=20260101&end_date=2026-01-31"), 400),
        (path("start_date=99999-01-01&end_date=2026-01-31"), 400),
        (path("start_date=0000-01-01&end_date=2026-01-31"), 400),
        (path(&format!("{period}&after=0000-01-01%2Crevenue")), 400),
        (path(&format!("{period}&metric_type=a%00b")), 400),
        (path(&format!("{period}&start_date=2026-01-02")), 400),
        (path(&format!("{period}&metrictype=revenue")), 400),
        (path(&format!("{period}&limit=0")), 400),
        (path(&format!("{period}&limit=10001")), 400),
        (path(&format!("{period}&limit=ten")), 400),
        (path(&format!("{period}&after=revenue")), 400),
    ] {
        assert_eq!(get(&path), Err(status), "{path}");
    }
    let ask = |headers: &HeaderMap| {
        let uri = path(period).parse().unwrap();
        route(&Method::GET, &uri, headers).map_err(|answer| answer.status)
    };
    assert_eq!(ask(&HeaderMap::new()), Err(401));
    let mut twice = bearer("cs_test_not_a_real_token");
    twice.append("authorization", "Bearer other".parse().unwrap());
    assert_eq!(ask(&twice), Err(401));
    let mut basic = HeaderMap::new();
    basic.insert("authorization", "Basic bm90OnJlYWw=".parse().unwrap());
    assert_eq!(ask(&basic), Err(401));
    // Whether a connector is there is for nobody to find out.
    let push = |path: &str| {
        route(&Method::POST, &path.parse().unwrap(), &HeaderMap::new()).map_err(|a| a.status)
    };
    assert_eq!(push("/webhooks/1"), Err(401));
}

#[test]
fn the_setting_names_an_address_for_each_database_or_for_one() {
    let read = |text: &str| text.parse::<Addresses>();
    let at = |text: &str| Some(text.parse().unwrap());
    let one = read("127.0.0.1:8090").unwrap();
    assert_eq!(one.named("shop"), None);
    assert_eq!(one.unnamed(), at("127.0.0.1:8090"));
    let two = read("shop=127.0.0.1:8090, a=b=[::1]:8091").unwrap();
    assert_eq!(two.named("shop"), at("127.0.0.1:8090"));
    assert_eq!(two.named("a=b"), at("[::1]:8091"));
    assert_eq!(two.named("books"), None);
    assert_eq!(two.unnamed(), None);
    assert_eq!(read(" ").unwrap().unnamed(), None);
    for wrong in [
        "8090",
        "localhost:8090",
        "127.0.0.1",
        "127.0.0.1:0",
        "1.1.1.1:1,1.1.1.1:2",
        "a=1.1.1.1:1,a=1.1.1.1:2",
        "a=1.1.1.1:1,b=1.1.1.1:1",
        "a=1.1.1.1:1,1.1.1.1:1",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_request_gets_a_route_or_a_refusal(path in "/[ -~]{0,80}", names in proptest::collection::vec("[a-z-]{1,12}", 0..6), value in "[ -~]{0,40}") {
        let mut headers = HeaderMap::new();
        for name in names {
            if let (Ok(name), Ok(value)) = (hyper::header::HeaderName::try_from(name), value.parse()) {
                headers.append(name, value);
            }
        }
        if let Ok(uri) = path.parse::<Uri>() {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                let _ = route(&method, &uri, &headers);
            }
        }
    }
}

/// A server on this machine whose main thread is a test.
struct Stage {
    address: SocketAddr,
    server: Server,
    woken: Receiver<()>,
}

impl Stage {
    fn new(change: impl FnOnce(&mut Settings)) -> Stage {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut settings = Settings {
            address,
            identity: None,
            connections: 8,
            timeout: Duration::from_millis(500),
            upload_bytes: 4 * 1024 * 1024,
        };
        change(&mut settings);
        let (wake, woken): (Sender<()>, _) = channel();
        let server = Server::start(
            settings,
            Arc::new(move || {
                let _ = wake.send(());
            }),
        )
        .unwrap();
        Stage {
            address,
            server,
            woken,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// Answers the next request with what it says.
    fn answer(&mut self, answer: impl FnOnce(&Ask) -> Answer) {
        self.woken.recv_timeout(Duration::from_secs(10)).unwrap();
        let asked = self.server.try_next().unwrap();
        let answer = answer(&asked.what);
        asked.answer(answer);
    }
}

/// Everything that comes until the connection ends.
fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn status(text: &str) -> u16 {
    let word = text
        .split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("no status: {text:?}"));
    word.parse().unwrap()
}

#[test]
fn requests_are_answered_by_the_main_thread() {
    let mut stage = Stage::new(|_| ());
    let mut stream = stage.connect();
    let body = format!(r#"{{"connector_id": "{ID}"}}"#);
    write!(
        stream,
        "POST /internal/sync-connector HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer cs_test_not_a_real_token\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    stage.answer(|what| {
        assert_eq!(*what, Ask::Sync(token(), ID.parse().unwrap()));
        Answer::json(202, "{}")
    });
    let text = rest(stream);
    assert_eq!(status(&text), 202, "{text}");
    assert!(text.contains("cache-control: no-store"), "{text}");

    // Nobody is asked whether it lives.
    let mut stream = stage.connect();
    write!(
        stream,
        "GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    assert_eq!(status(&rest(stream)), 200);
    assert!(stage.server.try_next().is_none());
}

#[test]
fn a_slow_client_is_cut_off_while_others_are_answered() {
    let mut stage = Stage::new(|settings| settings.connections = 64);
    // A head that never ends, and connections that say nothing.
    let mut slow: Vec<TcpStream> = (0..16).map(|_| stage.connect()).collect();
    for stream in slow.iter_mut().take(8) {
        write!(stream, "GET /live HTTP/1.1\r\nHost: ").unwrap();
    }
    // A body that never comes.
    let mut waits = stage.connect();
    write!(
        waits,
        "POST /webhooks/{ID} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    )
    .unwrap();
    let began = Instant::now();
    let mut quick = stage.connect();
    write!(
        quick,
        "GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    assert_eq!(status(&rest(quick)), 200);
    assert!(
        began.elapsed() < Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(status(&rest(waits)), 408);
    for stream in slow {
        // Told so, or just closed; in either case over.
        let text = rest(stream);
        assert!(text.is_empty() || status(&text) == 408, "{text}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    // An answer that does not come in time is no answer that never comes.
    let mut stream = stage.connect();
    write!(
        stream,
        "GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stage.woken.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(status(&rest(stream)), 504);
    assert!(stage.server.try_next().unwrap().is_over());
}

#[test]
fn idle_connections_are_closed_to_make_room_for_requests() {
    let stage = Stage::new(|settings| {
        settings.connections = 16;
        settings.timeout = Duration::from_secs(60);
    });
    let mut silent: Vec<TcpStream> = Vec::new();
    for number in 0..1_000 {
        let mut stream = stage.connect();
        let said = match number % 3 {
            0 => String::new(),
            1 => "GET /live HTTP/1.1\r\nHost: ".to_owned(),
            _ => {
                format!("POST /webhooks/{ID} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
            }
        };
        stream.write_all(said.as_bytes()).unwrap();
        silent.push(stream);
        if number % 50 == 49 {
            let began = Instant::now();
            let mut quick = stage.connect();
            write!(
                quick,
                "GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            assert_eq!(status(&rest(quick)), 200);
            assert!(
                began.elapsed() < Duration::from_secs(1),
                "{:?}",
                began.elapsed()
            );
        }
    }
    // All but the latest were closed.
    for stream in &silent {
        stream.set_nonblocking(true).unwrap();
    }
    let is_open = |stream: &&TcpStream| matches!(stream.peek(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    let deadline = Instant::now() + Duration::from_secs(10);
    while silent.iter().filter(is_open).count() > 16 {
        assert!(
            Instant::now() < deadline,
            "{} are open",
            silent.iter().filter(is_open).count()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_body_that_is_too_large_is_not_read() {
    let stage = Stage::new(|_| ());
    // Told before it is sent, to who asks; and after it was, to who does not.
    let mut stream = stage.connect();
    write!(stream, "POST /webhooks/{ID} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 3000000\r\n\r\n").unwrap();
    assert_eq!(status(&rest(stream)), 413);
    for (path, expected) in [
        (format!("/webhooks/{ID}"), 413),
        (format!("/uploads/{ID}?file=a.csv"), 401),
    ] {
        let mut stream = stage.connect();
        let body = vec![b'x'; 3_000_000];
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .unwrap();
        stream.write_all(&body).unwrap();
        assert_eq!(status(&rest(stream)), expected);
    }
    for announced in [WEBHOOK_BYTES + 1, usize::MAX >> 1] {
        let mut stream = stage.connect();
        write!(stream, "POST /webhooks/{ID} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {announced}\r\n\r\n").unwrap();
        assert_eq!(status(&rest(stream)), 413);
    }
    // In pieces, of which nobody said how many there are.
    let mut stream = stage.connect();
    write!(
        stream,
        "POST /webhooks/{ID} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .unwrap();
    let piece = vec![b'x'; 64 * 1024];
    for _ in 0..32 {
        let sent = write!(stream, "{:x}\r\n", piece.len())
            .and_then(|()| stream.write_all(&piece))
            .and_then(|()| stream.write_all(b"\r\n"));
        if sent.is_err() {
            break;
        }
    }
    let text = rest(stream);
    assert!(text.is_empty() || status(&text) == 413, "{text}");
    // A head of many bytes, or of many lines.
    for head in [
        format!("X: {}\r\n", "x".repeat(20_000)),
        "X: x\r\n".repeat(200),
    ] {
        let mut stream = stage.connect();
        let _ = write!(stream, "GET /live HTTP/1.1\r\nHost: x\r\n{head}\r\n");
        let text = rest(stream);
        assert!(text.is_empty() || status(&text) == 431, "{text}");
    }
}

#[test]
fn a_body_in_the_smallest_pieces_is_one_body() {
    let mut stage = Stage::new(|settings| settings.timeout = Duration::from_secs(10));
    let mut stream = stage.connect();
    let pieces = "1\r\nx\r\n".repeat(50_000);
    write!(stream, "POST /webhooks/{ID} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{pieces}0\r\n\r\n").unwrap();
    stage.woken.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(stage.server.try_next().is_none(), "it waits behind no read");
    let asked = stage.server.try_next_pushed().unwrap();
    let Ask::Webhook(webhook) = &asked.what else {
        panic!("{asked:?}");
    };
    assert_eq!(webhook.body, "x".repeat(50_000));
    // An answer that is long comes whole, too.
    asked.answer(Answer::json(200, "y".repeat(3_000_000)));
    let text = rest(stream);
    assert_eq!(text.split_once("\r\n\r\n").unwrap().1.len(), 3_000_000);
}

#[test]
fn a_file_is_read_once_its_token_is_known() {
    let mut stage = Stage::new(|_| ());
    for status_of_token in [403, 200] {
        let mut stream = stage.connect();
        write!(stream, "POST /uploads/{ID}?file=a.csv HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer cs_test_not_a_real_token\r\nContent-Length: 4\r\n\r\na\n1\n").unwrap();
        stage.answer(|what| {
            assert_eq!(*what, Ask::MayUpload(token()));
            Answer::json(status_of_token, "{}")
        });
        if status_of_token == 200 {
            stage.answer(|what| {
                assert!(
                    matches!(what, Ask::Upload(_, upload) if upload.body == "a\n1\n"),
                    "{what:?}"
                );
                Answer::json(202, "{}")
            });
        }
        let expected = if status_of_token == 200 { 202 } else { 403 };
        assert_eq!(status(&rest(stream)), expected);
    }
}

#[test]
fn bytes_that_are_not_http_only_close_their_own_connection() {
    let stage = Stage::new(|_| ());
    for strange in [
        "\r\n\r\n\0\0\0",
        "GET\r\n\r\n",
        "GET /live HTTP/9.9\r\n\r\n",
        "POST /webhooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST /webhooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /webhooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\nzz\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01",
    ] {
        let mut stream = stage.connect();
        stream.write_all(strange.as_bytes()).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let text = rest(stream);
        assert!(
            text.is_empty() || status(&text) >= 400,
            "{strange:?}: {text}"
        );
    }
    let mut stream = stage.connect();
    write!(
        stream,
        "GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    assert_eq!(status(&rest(stream)), 200);
}

#[test]
fn a_full_queue_is_reported_at_once() {
    let mut stage = Stage::new(|settings| {
        settings.connections = 400;
        settings.timeout = Duration::from_secs(10);
    });
    // Nobody answers: 256 wait, and the next one is told to come back.
    let streams: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = stage.connect();
            write!(
                stream,
                "GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            .unwrap();
            stream
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut turned_away = 0;
    for stream in &streams {
        stream.set_nonblocking(true).unwrap();
    }
    while turned_away < 44 && Instant::now() < deadline {
        turned_away = streams
            .iter()
            .filter(|s| s.peek(&mut [0; 1]).is_ok_and(|n| n > 0))
            .count();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(turned_away, 44);
    let mut answered = 0;
    while let Some(asked) = stage.server.try_next() {
        asked.answer(Answer::json(200, "{}"));
        answered += 1;
    }
    assert_eq!(answered, 256);
    let mut statuses = std::collections::BTreeMap::new();
    for stream in streams {
        stream.set_nonblocking(false).unwrap();
        let text = rest(stream);
        let status = status(&text);
        assert_eq!(status == 503, text.contains("retry-after: 1"), "{text}");
        *statuses.entry(status).or_insert(0) += 1;
    }
    assert_eq!(Vec::from_iter(statuses), [(200, 256), (503, 44)]);
}
