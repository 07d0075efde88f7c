//! A plain HTTP client for tests.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// Sends one request on a new connection. Returns `None` if there was no complete response.
pub fn try_ask(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Answered> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .ok()?;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut sent = (head + "\r\n").into_bytes();
    sent.extend(body);
    stream.write_all(&sent).ok()?;
    let mut came = Vec::new();
    stream.read_to_end(&mut came).ok()?;
    read(&String::from_utf8(came).ok()?)
}

/// A connection for many requests.
pub struct Connection {
    stream: TcpStream,
    /// Bytes that were received after the last response.
    came: Vec<u8>,
}

impl Connection {
    pub fn open(port: u16) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Connection {
            stream,
            came: Vec::new(),
        })
    }

    /// Sends a request and reads its response. Returns `None` if there was no complete response.
    pub fn exchange(&mut self, request: &[u8]) -> Option<Answered> {
        self.stream.write_all(request).ok()?;
        let mut piece = [0; 16 * 1024];
        loop {
            let text = std::str::from_utf8(&self.came).ok()?;
            if let Some((head, length)) = measure(text)
                && let Some(whole) = text.get(..head + length)
            {
                let answered = read(whole);
                drop(self.came.drain(..head + length));
                return answered;
            }
            let count = self
                .stream
                .read(&mut piece)
                .ok()
                .filter(|count| *count > 0)?;
            self.came.extend(piece.get(..count)?);
        }
    }
}

/// Returns the lengths of a response's head and body, once the head is complete.
fn measure(text: &str) -> Option<(usize, usize)> {
    let head = text.split_once("\r\n\r\n")?.0;
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    Some((head.len() + 4, length.1.parse().ok()?))
}

/// Parses a complete response.
pub fn read(text: &str) -> Option<Answered> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    (body.len() == length).then(|| Answered {
        status,
        headers,
        body: body.to_owned(),
    })
}

pub fn ask(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answered {
    try_ask(port, method, path, headers, body)
        .unwrap_or_else(|| panic!("no answer to {method} {path}"))
}
