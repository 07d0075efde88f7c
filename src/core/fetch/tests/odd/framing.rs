//! How an answer is framed: lengths, chunks, heads, and connections that end.

use super::*;

fn raw(make: impl Fn(&str) -> String + Send + Sync + 'static) -> Make {
    Box::new(move |text: &str| make(text).into_bytes())
}

/// A body in chunks of so many bytes.
fn chunks(text: &str, size: usize, extension: &str, trailer: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for chunk in text.as_bytes().chunks(size) {
        body.extend(format!("{:X}{extension}\r\n", chunk.len()).into_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend(format!("0{extension}\r\n{trailer}\r\n").into_bytes());
    body
}

fn chunked(
    head: &'static str,
    size: usize,
    extension: &'static str,
    trailer: &'static str,
) -> Make {
    Box::new(move |text: &str| {
        let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
        [head.into_bytes(), chunks(text, size, extension, trailer)].concat()
    })
}

fn with(lines: &'static [&'static str]) -> Make {
    Box::new(move |text: &str| answer("200 OK", lines, text.as_bytes()))
}

pub fn rows() -> Vec<Row> {
    use Code::{ConnectFailed, ReadTimeout, TruncatedResponse};
    let row = |about: &str, is: Is, make: Make| Row::new(&format!("framing: {about}"), is, make);
    let read = |about: &str, make: Make| row(about, Is::Read, make);
    let cut = |about: &str, make: Make| row(about, Is::Again(TruncatedResponse), make);
    let bad = |about: &str, make: Make| row(about, Is::Again(ConnectFailed), make);
    const TE: &str = "Transfer-Encoding: chunked";
    let mut rows = vec![
        read("one chunk", chunked(TE, usize::MAX / 2, "", "")),
        read("chunks of one byte", chunked(TE, 1, "", "")),
        read("chunks of seven bytes", chunked(TE, 7, "", "")),
        read(
            "chunks with extensions",
            chunked(TE, 20, ";name=\"value\"", ""),
        ),
        read(
            "chunks with trailers",
            chunked(TE, 20, "", "X-Sum: 1\r\nX-Other: 2\r\n"),
        ),
        read(
            "Chunked in capitals",
            chunked("transfer-encoding: CHUNKED", 20, "", ""),
        ),
        read(
            "chunks and a length",
            chunked(
                "Transfer-Encoding: chunked\r\nContent-Length: 5",
                20,
                "",
                "",
            ),
        ),
        read(
            "HTTP/1.0 without a length",
            raw(|text| format!("HTTP/1.0 200 OK\r\n\r\n{text}")),
        ),
        read(
            "HTTP/1.0 with a length",
            raw(|text| {
                format!(
                    "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                )
            }),
        ),
        read(
            "the connection ends the body",
            raw(|text| format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{text}")),
        ),
        read(
            "no reason",
            raw(|text| {
                format!(
                    "HTTP/1.1 200\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                )
            }),
        ),
        read(
            "an own reason",
            raw(|text| {
                format!(
                    "HTTP/1.1 200 Alles gut\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                )
            }),
        ),
        read(
            "status 201",
            Box::new(|text| answer("201 Created", &[JSON], text.as_bytes())),
        ),
        read(
            "status 202",
            Box::new(|text| answer("202 Accepted", &[JSON], text.as_bytes())),
        ),
        read(
            "status 203",
            Box::new(|text| answer("203 Non-Authoritative", &[JSON], text.as_bytes())),
        ),
        read(
            "the same length twice",
            raw(|text| {
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {0}\r\nContent-Length: {0}\r\n\r\n{text}",
                    text.len()
                )
            }),
        ),
        read(
            "more behind the body",
            raw(|text| {
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}garbage",
                    text.len()
                )
            }),
        ),
        read(
            "100 Continue before it",
            raw(|text| {
                format!(
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                )
            }),
        ),
        read(
            "102 and 103 before it",
            raw(|text| {
                format!(
                    "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                )
            }),
        ),
        read(
            "101 headers",
            Box::new(|text| {
                let lines: Vec<String> = (0..101).map(|n| format!("X-Header-{n}: {n}")).collect();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                answer("200 OK", &lines, text.as_bytes())
            }),
        ),
        read(
            "900 headers",
            Box::new(|text| {
                let lines: Vec<String> = (0..900)
                    .map(|n| format!("Set-Cookie: c{n}={n}; Path=/"))
                    .collect();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                answer("200 OK", &lines, text.as_bytes())
            }),
        ),
        read(
            "a header of 100 KB",
            Box::new(|text| {
                let line = format!("X-Long: {}", "x".repeat(100_000));
                answer("200 OK", &[&line], text.as_bytes())
            }),
        ),
        bad(
            "5000 headers",
            Box::new(|text| {
                let lines: Vec<String> = (0..5_000).map(|n| format!("X-Header-{n}: {n}")).collect();
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                answer("200 OK", &lines, text.as_bytes())
            }),
        ),
        read(
            "a header in two lines",
            with(&["X-Folded: one\r\n two\r\n\tthree"]),
        ),
        read("a header without a value", with(&["X-Empty:"])),
        read("a blank before the colon", with(&["X-Blank : value"])),
        read("a header in UTF-8", with(&["X-Name: café"])),
        read(
            "a header in latin 1",
            Box::new(|text| {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nX-Name: caf\u{1}\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                );
                let mut bytes = head.into_bytes();
                let at = bytes.iter().position(|byte| *byte == 1).unwrap();
                bytes[at] = 0xE9;
                bytes
            }),
        ),
        read(
            "lines that end with a line feed alone",
            raw(|text| format!("HTTP/1.1 200 OK\nContent-Length: {}\n\n{text}", text.len())),
        ),
        read(
            "cookies",
            with(&["Set-Cookie: a=b", "Set-Cookie: c=d; HttpOnly"]),
        ),
        read("a date that is none", with(&["Date: yesterday"])),
        cut(
            "less than the length says",
            raw(|text| {
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len() + 10
                )
            }),
        ),
        cut(
            "half of what the length says",
            raw(|text| {
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
                    text.len(),
                    &text[..text.len() / 3]
                )
            }),
        ),
        cut(
            "chunks without an end",
            Box::new(|text| {
                let mut bytes = [
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
                    chunks(text, 20, "", ""),
                ]
                .concat();
                bytes.truncate(bytes.len() - 5);
                bytes
            }),
        ),
        cut(
            "a chunk that is cut",
            raw(|text| {
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFF\r\n{text}")
            }),
        ),
        cut(
            "a chunk whose size is none",
            raw(|text| {
                format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsize\r\n{text}\r\n0\r\n\r\n"
                )
            }),
        ),
        cut(
            "a length that is there, and nothing else",
            raw(|text| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len())),
        ),
        cut(
            "half of a body that the connection ends",
            raw(|text| {
                format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
                    &text[..text.len() / 3]
                )
            }),
        ),
        cut(
            "nothing of a body that the connection ends",
            raw(|_| "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned()),
        ),
        cut(
            "nothing of a body over HTTP/1.0",
            raw(|_| "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n".to_owned()),
        ),
        cut(
            "a length smaller than the body",
            raw(|text| {
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len() - 1
                )
            }),
        ),
        cut("no answer at all", raw(|_| String::new())),
        cut(
            "half of a head",
            raw(|_| "HTTP/1.1 200 OK\r\nContent-".to_owned()),
        ),
        bad(
            "two lengths that differ",
            raw(|text| {
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nContent-Length: 3\r\n\r\n{text}",
                    text.len()
                )
            }),
        ),
        bad(
            "a length that is none",
            raw(|text| format!("HTTP/1.1 200 OK\r\nContent-Length: long\r\n\r\n{text}")),
        ),
        bad(
            "a negative length",
            raw(|text| format!("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{text}")),
        ),
        bad(
            "a status that is none",
            raw(|text| {
                format!(
                    "HTTP/1.1 2000 OK\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                )
            }),
        ),
        bad("a body without a head", raw(str::to_owned)),
        bad(
            "another protocol",
            raw(|_| "SSH-2.0-OpenSSH_9.2\r\n".to_owned()),
        ),
        row(
            "a body that does not go on",
            Is::Again(ReadTimeout),
            raw(|text| {
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}",
                    text.len(),
                    &text[..5]
                )
            }),
        ),
    ];
    for row in &mut rows {
        row.stays = false;
    }
    if let Some(last) = rows.last_mut() {
        last.stays = true;
        // It takes the whole time-out, three times: one type is enough.
        last.vendors = None;
    }
    rows
}
