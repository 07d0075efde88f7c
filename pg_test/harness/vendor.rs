//! A vendor that answers as a test tells it: well, slowly, wrongly, endlessly or not at all.
//!
//! Plain threads and sockets, so that every byte and every pause is the test's. A response goes out in one
//! write with Nagle off; anything else would cost 40 ms a page and measure the test instead of the product.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// The parameters by name. If a name is repeated, the last one counts.
    pub query: HashMap<String, String>,
    /// All parameters, in their order.
    pub pairs: Vec<(String, String)>,
    pub headers: HashMap<String, String>,
    pub body: String,
}

impl Asked {
    /// Returns a parameter as a number, or 0 if it is missing.
    pub fn number(&self, name: &str) -> usize {
        self.query
            .get(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }
}

pub enum Reply {
    Json(String),
    Full {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// Sends the bytes unchanged, then closes the connection.
    Raw(Vec<u8>),
    After(Duration, Box<Reply>),
    /// Sends nothing until [`Vendor::let_go`] is called.
    Hang,
    /// Sends a head, and then one byte at a time with this pause.
    Drip(Duration),
    /// Sends a body of this many bytes, with or without a Content-Length.
    Flood {
        bytes: u64,
        announced: bool,
    },
}

impl Reply {
    pub fn status(status: u16) -> Reply {
        Reply::Full {
            status,
            headers: vec![],
            body: b"{\"message\": \"no\"}".to_vec(),
        }
    }
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    asked: Mutex<Vec<Asked>>,
    ended: AtomicBool,
    let_go: (Mutex<bool>, Condvar),
}

pub struct Vendor {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Vendor {
    pub fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Vendor {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            asked: Mutex::default(),
            ended: AtomicBool::new(false),
            let_go: (Mutex::new(false), Condvar::new()),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::Relaxed) {
                    break;
                }
                let shared = accepting.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Vendor { port, shared }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Host and port, as messages name them.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns all requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no panic").clone()
    }

    pub fn asked_for(&self, path: &str) -> usize {
        self.shared
            .asked
            .lock()
            .expect("no panic")
            .iter()
            .filter(|asked| asked.path == path)
            .count()
    }

    /// Ends every [`Reply::Hang`], now and from now on.
    pub fn let_go(&self) {
        *self.shared.let_go.0.lock().expect("no panic") = true;
        self.shared.let_go.1.notify_all();
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.let_go();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read_request(&mut reader) {
        shared.asked.lock().expect("no panic").push(asked.clone());
        let reply = (shared.handler)(&asked);
        if shared.ended.load(Ordering::Relaxed) || !write_reply(&mut writer, reply, shared) {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let pairs: Vec<(String, String)> = query
        .map(|(name, value)| (decode(name), decode(value)))
        .collect();
    Some(Asked {
        method,
        path: path.to_owned(),
        query: pairs.iter().cloned().collect(),
        pairs,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Decodes a form-encoded text.
pub fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap_or(0), rest.next().unwrap_or(0)];
                u8::from_str_radix(&String::from_utf8_lossy(&digits), 16).unwrap_or(b'?')
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns false if the connection is closed.
fn write_reply(writer: &mut TcpStream, reply: Reply, shared: &Shared) -> bool {
    match reply {
        Reply::Json(body) => {
            let headers = vec![("Content-Type", "application/json".to_owned())];
            write_reply(
                writer,
                Reply::Full {
                    status: 200,
                    headers,
                    body: body.into_bytes(),
                },
                shared,
            )
        }
        Reply::Full {
            status,
            headers,
            body,
        } => {
            let mut out = format!(
                "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n",
                body.len()
            );
            for (name, value) in headers {
                out += &format!("{name}: {value}\r\n");
            }
            let mut out = (out + "\r\n").into_bytes();
            out.extend(body);
            writer.write_all(&out).is_ok()
        }
        Reply::Raw(bytes) => {
            let _ = writer.write_all(&bytes);
            let _ = writer.shutdown(std::net::Shutdown::Both);
            false
        }
        Reply::After(pause, reply) => {
            wait(shared, pause);
            write_reply(writer, *reply, shared)
        }
        Reply::Hang => {
            wait(shared, Duration::from_secs(600));
            false
        }
        Reply::Drip(pause) => {
            let _ = writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n[");
            while !shared.ended.load(Ordering::Relaxed) && writer.write_all(b" ").is_ok() {
                wait(shared, pause);
            }
            false
        }
        Reply::Flood { bytes, announced } => {
            let length = if announced {
                format!("Content-Length: {bytes}\r\n")
            } else {
                String::new()
            };
            let _ = writer.write_all(
                format!("HTTP/1.1 200 OK\r\n{length}Connection: close\r\n\r\n").as_bytes(),
            );
            let chunk = vec![b' '; 64 * 1024];
            let mut left = bytes;
            while left > 0
                && !shared.ended.load(Ordering::Relaxed)
                && writer.write_all(&chunk).is_ok()
            {
                left = left.saturating_sub(chunk.len() as u64);
            }
            let _ = writer.shutdown(std::net::Shutdown::Both);
            false
        }
    }
}

/// Sleeps, but wakes up when [`Vendor::let_go`] is called.
fn wait(shared: &Shared, pause: Duration) {
    let (lock, signal) = &shared.let_go;
    let guard = lock.lock().expect("no panic");
    drop(signal.wait_timeout_while(guard, pause, |let_go| !*let_go));
}
