//! The gateway over real sockets: requests as they should be, in any number and pieces, and damaged.

#![allow(clippy::expect_used)]

use std::collections::HashSet;
use std::net::Shutdown;
use std::sync::Mutex;
use std::thread::JoinHandle;

use url::form_urlencoded;

use super::*;
use crate::fuzz::{Random, damaged, each};

/// A server whose main thread answers whatever is asked, and remembers it.
struct Answering {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Ask>>>,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    fn new() -> Answering {
        let stage = Stage::new(|settings| settings.timeout = Duration::from_secs(5));
        let Stage {
            address,
            mut server,
            woken,
        } = stage;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = channel();
        let all = asked.clone();
        let thread = std::thread::spawn(move || {
            while stopped.try_recv().is_err() {
                let _ = woken.recv_timeout(Duration::from_millis(20));
                while let Some(next) = server.try_next().or_else(|| server.try_next_pushed()) {
                    all.lock().unwrap().push(next.what.clone());
                    next.answer(Answer::json(200, r#"{"done": true}"#));
                }
            }
        });
        Answering {
            address,
            asked,
            stop,
            thread: Some(thread),
        }
    }

    /// Sends bytes in some pieces, and returns all that comes. Who has nothing more to say, and says so, may get no answer.
    fn say(&self, random: &mut Random, bytes: &[u8], is_all: bool) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut rest = bytes;
        while !rest.is_empty() {
            let length = match random.percent(70) {
                true => rest.len(),
                false => random.between(1, rest.len()),
            };
            if stream.write_all(&rest[..length]).is_err() {
                break;
            }
            rest = &rest[length..];
        }
        if is_all {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut came = Vec::new();
        let read = stream.read_to_end(&mut came);
        // Reset is what becomes of who goes on sending to somebody who has left.
        if let Err(error) = read {
            assert!(
                error.kind() == std::io::ErrorKind::ConnectionReset,
                "{error}"
            );
        }
        came
    }

    fn take(&self) -> Vec<Ask> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// A request, what is asked by it, and how it is answered.
struct Made {
    bytes: Vec<u8>,
    asks: Vec<Ask>,
    status: u16,
    is_head: bool,
}

/// Of these bytes, announced or in pieces.
fn with_body(random: &mut Random, head: &str, body: &[u8]) -> Vec<u8> {
    if random.percent(50) {
        return [
            format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(),
            body,
        ]
        .concat();
    }
    let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let mut rest = body;
    while !rest.is_empty() {
        let length = random.between(1, rest.len());
        let extension = random.pick(&["", "", ";a=b", ";a=\"b\""]);
        bytes.extend(format!("{length:x}{extension}\r\n").bytes());
        bytes.extend_from_slice(&rest[..length]);
        bytes.extend_from_slice(b"\r\n");
        rest = &rest[length..];
    }
    bytes.extend_from_slice(random.pick(&[b"0\r\n\r\n".as_slice(), b"0\r\nX-Trailer: y\r\n\r\n"]));
    bytes
}

fn request(random: &mut Random) -> Made {
    let id: Uuid = ID.parse().unwrap();
    let host = random.pick(&[
        "Host: x\r\n",
        "host:x\r\nX-Other: \t y \r\n",
        "Host: [::1]:8090\r\nAccept: */*\r\n",
    ]);
    let bearer = random.pick(&[
        "Authorization: Bearer cs_test_not_a_real_token\r\n",
        "authorization:   bearer   cs_test_not_a_real_token  \r\n",
    ]);
    let simple = |method: &str, path: &str, more: &str| {
        format!("{method} {path} HTTP/1.1\r\n{host}{more}\r\n").into_bytes()
    };
    let made = |bytes: Vec<u8>, asks: Vec<Ask>, status: u16| Made {
        is_head: bytes.starts_with(b"HEAD"),
        bytes,
        asks,
        status,
    };
    let length = random.few(3_000);
    match random.below(10) {
        0 => made(
            simple(
                "GET",
                random.pick(&["/live", "/live?a=b", "//live/", "/openapi.json", "/"]),
                "",
            ),
            vec![],
            200,
        ),
        1 => made(
            simple(random.pick(&["GET", "HEAD"]), "/ready", ""),
            vec![Ask::Ready],
            200,
        ),
        2 => made(
            simple("GET", "/tenants", bearer),
            vec![Ask::Tenants(token())],
            200,
        ),
        3 => made(simple("GET", "/tenants", ""), vec![], 401),
        4 => made(
            simple("GET", &format!("/nowhere/{}", random.word(9)), bearer),
            vec![],
            404,
        ),
        5 => made(simple("DELETE", "/ready", ""), vec![], 405),
        6 => {
            let day = |random: &mut Random| {
                format!(
                    "{:04}-{:02}-{:02}",
                    random.between(1, 9_999),
                    random.between(1, 12),
                    random.between(1, 28)
                )
            };
            let (from, to) = (day(random), day(random));
            let kind: String = random.text(6).replace('\0', "");
            let encoded: String = form_urlencoded::byte_serialize(kind.as_bytes()).collect();
            let limit = random.between(1, 10_000);
            let path = format!(
                "/metrics/{ID}?start_date={from}&end_date={to}&metric_type={encoded}&limit={limit}"
            );
            let metrics = Metrics {
                tenant: id,
                metric_type: Some(kind).filter(|kind| !kind.is_empty()),
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                after: None,
                limit: limit as i32,
            };
            made(
                simple("GET", &path, bearer),
                vec![Ask::Metrics(token(), metrics)],
                200,
            )
        }
        7 => {
            let body = format!("{{\"connector_id\": \"{ID}\"}}");
            let head = format!("POST /internal/sync-connector HTTP/1.1\r\n{host}{bearer}");
            made(
                with_body(random, &head, body.as_bytes()),
                vec![Ask::Sync(token(), id)],
                200,
            )
        }
        8 => {
            let body = random.bytes(length);
            let head = format!("POST /uploads/{ID}?file=a%20b.csv HTTP/1.1\r\n{host}{bearer}");
            let upload = Upload {
                connector: id,
                file: "a b.csv".to_owned(),
                body: body.clone().into(),
            };
            made(
                with_body(random, &head, &body),
                vec![Ask::MayUpload(token()), Ask::Upload(token(), upload)],
                200,
            )
        }
        _ => {
            let body = random.bytes(length);
            let head = format!("POST /webhooks/{ID} HTTP/1.1\r\n{host}X-Signature: y\r\n");
            let webhook = Webhook {
                connector: id,
                headers: Vec::new(),
                body: body.clone().into(),
                text: Bytes::new(),
            };
            made(
                with_body(random, &head, &body),
                vec![Ask::Webhook(webhook)],
                200,
            )
        }
    }
}

/// What was asked, headers and the text of bodies aside.
fn bare(asks: Vec<Ask>) -> Vec<Ask> {
    let bare = |ask| match ask {
        Ask::Webhook(webhook) => Ask::Webhook(Webhook {
            headers: Vec::new(),
            text: Bytes::new(),
            ..webhook
        }),
        other => other,
    };
    asks.into_iter().map(bare).collect()
}

/// The statuses of answers that come one after the other, each with just the body that it announces. `None`: the last
/// one ends in the middle, where the connection was cut.
fn statuses(mut came: &[u8], heads: &[bool]) -> Option<Vec<u16>> {
    let mut statuses = Vec::new();
    while !came.is_empty() {
        let end = memchr::memmem::find(came, b"\r\n\r\n")?;
        let head = std::str::from_utf8(&came[..end]).expect("the head of an answer is text");
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap();
        let status: u16 = first
            .strip_prefix("HTTP/1.1 ")
            .or(first.strip_prefix("HTTP/1.0 "))
            .expect(first)[..3]
            .parse()
            .expect(first);
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(": ").expect(line);
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse::<usize>().expect(line))
        });
        let has_body = !heads.get(statuses.len()).copied().unwrap_or(false) && status >= 200;
        let length = if has_body { length.unwrap_or(0) } else { 0 };
        came = came[end + 4..].get(length..)?;
        statuses.push(status);
    }
    Some(statuses)
}

#[test]
fn requests_one_after_the_other_are_each_answered() {
    let server = Answering::new();
    each("requests", |random| {
        let mut made: Vec<Made> = (0..random.between(1, 6)).map(|_| request(random)).collect();
        if let Some(last) = made.last_mut() {
            let end = memchr::memmem::find(&last.bytes, b"\r\n").unwrap() + 2;
            last.bytes.splice(end..end, *b"Connection: close\r\n");
        }
        let bytes: Vec<u8> = made
            .iter()
            .flat_map(|made| made.bytes.iter().copied())
            .collect();
        let came = server.say(random, &bytes, false);
        let shown = String::from_utf8_lossy(&bytes);
        let heads: Vec<bool> = made.iter().map(|made| made.is_head).collect();
        let expected: Vec<u16> = made.iter().map(|made| made.status).collect();
        assert_eq!(statuses(&came, &heads), Some(expected), "{shown}");
        let asks: Vec<Ask> = made.into_iter().flat_map(|made| made.asks).collect();
        assert!(bare(server.take()) == asks, "{shown}");
    });
}

/// Whatever may be taken for a bearer token in these bytes.
fn tokens(bytes: &[u8]) -> Vec<[u8; 32]> {
    let behind = |at: usize| {
        let rest = &bytes[at..];
        let is_bearer = rest.get(..7)?.eq_ignore_ascii_case(b"bearer ");
        let line = rest.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
        is_bearer.then(|| Sha256::digest(line[7..].trim_ascii()).into())
    };
    (0..bytes.len()).filter_map(behind).collect()
}

#[test]
fn any_bytes_only_close_their_own_connection() {
    let server = Answering::new();
    let mut given = HashSet::new();
    each("any HTTP", |random| {
        let (one, two) = (request(random), request(random));
        let sound = [one.bytes.clone(), two.bytes.clone()].concat();
        let others = b"Content-Length: 5\r\nContent-Length: 6\r\nTransfer-Encoding: chunked, identity\r\n\r\nffffffffffffffff\r\nHTTP/2.0 \r\n PRI * GET /live HTTP/1.0\r\nExpect: 100-continue\r\nUpgrade: h2c\r\nConnection: close, upgrade\r\n";
        let bytes = match random.percent(15) {
            true => {
                let length = random.few(300);
                random.bytes(length)
            }
            false => damaged(random, &sound, others),
        };
        let came = server.say(random, &bytes, true);
        let asked = server.take();
        let shown = String::from_utf8_lossy(&bytes);
        // Where it may have asked for heads, it is not known which of the answers have bodies.
        if !bytes.windows(4).any(|word| word == b"HEAD") {
            for status in statuses(&came, &[]).unwrap_or_default() {
                let is_known = matches!(
                    status,
                    100 | 200 | 400 | 401 | 404 | 405 | 408 | 413 | 414 | 431 | 501 | 503
                );
                assert!(is_known, "{status}: {shown}");
            }
        }
        // Nothing is asked with a token that nobody gave: in this input or, where a connection was cut off, before it.
        given.extend(tokens(&bytes));
        for ask in &asked {
            let asked_with = match ask {
                Ask::Tenants(token)
                | Ask::Sync(token, _)
                | Ask::MayUpload(token)
                | Ask::Upload(token, _)
                | Ask::Metrics(token, _) => Some(token),
                _ => None,
            };
            assert!(
                asked_with.is_none_or(|token| given.contains(&token.0)),
                "{shown}"
            );
            if let Ask::Webhook(webhook) = ask {
                assert!(webhook.body.len() <= WEBHOOK_BYTES);
            }
        }
        // The next one is answered.
        let next = b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let came = server.say(random, next, false);
        assert_eq!(statuses(&came, &[]), Some(vec![200]));
    });
}

#[test]
fn any_path_has_a_route_or_is_refused() {
    each("routes", |random| {
        let made = request(random);
        let bytes = damaged(
            random,
            &made.bytes,
            b"%00%ff+&=?#start_date=2026-13-01&after=",
        );
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let mut words = first.split(' ');
        let method = words
            .next()
            .and_then(|word| Method::from_bytes(word.as_bytes()).ok());
        let uri = words.next().and_then(|word| word.parse::<Uri>().ok());
        let (Some(method), Some(uri)) = (method, uri) else {
            return;
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            if let Some((name, value)) = line.split_once(':')
                && let (Ok(name), Ok(value)) = (
                    hyper::header::HeaderName::try_from(name),
                    value.trim().parse(),
                )
            {
                headers.append(name, value);
            }
        }
        match route(&method, &uri, &headers) {
            Ok(Route::Ask(Ask::Metrics(_, metrics))) => {
                assert!((1..=10_000).contains(&metrics.limit));
                assert!(!metrics.metric_type.unwrap_or_default().contains('\0'));
            }
            Ok(Route::Body(awaits)) => {
                let length = random.few(100);
                let body = random.bytes(length);
                if let Err(refused) = awaits.with(body.into()) {
                    assert_eq!(refused.status, 400);
                }
            }
            Ok(_) => {}
            Err(refused) => assert!(matches!(refused.status, 400 | 401 | 404 | 405)),
        }
    });
}
