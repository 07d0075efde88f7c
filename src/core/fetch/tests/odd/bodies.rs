//! Bodies in other charsets, packed in other ways, and in other forms of JSON.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::*;

type Change = fn(&str) -> Vec<u8>;

pub fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn same(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn latin(text: &str) -> Vec<u8> {
    encoding_rs::WINDOWS_1252.encode(text).0.to_vec()
}

fn utf16(text: &str, big: bool) -> Vec<u8> {
    let unit = |unit: u16| match big {
        true => unit.to_be_bytes(),
        false => unit.to_le_bytes(),
    };
    text.encode_utf16().flat_map(unit).collect()
}

fn utf32(text: &str, big: bool) -> Vec<u8> {
    let unit = |c: char| match big {
        true => u32::from(c).to_be_bytes(),
        false => u32::from(c).to_le_bytes(),
    };
    text.chars().flat_map(unit).collect()
}

fn marked(mark: &[u8], body: Vec<u8>) -> Vec<u8> {
    [mark, &body].concat()
}

fn parts(text: &str) -> (&[u8], &[u8]) {
    text.as_bytes().split_at(text.len() / 3)
}

fn cut(mut body: Vec<u8>) -> Vec<u8> {
    body.truncate(body.len() * 2 / 3);
    body
}

fn bomb(_: &str) -> Vec<u8> {
    static BOMB: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    BOMB.get_or_init(|| gzip(&vec![b' '; 5 << 20])).clone()
}

/// Name, headers, body, outcome.
type Line = (&'static str, &'static [&'static str], Change, Is);

const CHARSETS: [Line; 37] = {
    use Is::Read;
    [
        (
            "utf-8",
            &["Content-Type: application/json; charset=utf-8"],
            same,
            Read,
        ),
        (
            "utf-8 in capitals",
            &["Content-Type: application/json; charset=UTF-8"],
            same,
            Read,
        ),
        (
            "utf8 without a hyphen",
            &["Content-Type: application/json;charset=utf8"],
            same,
            Read,
        ),
        (
            "utf-8 in quotes",
            &["Content-Type: application/json; charset=\"utf-8\""],
            same,
            Read,
        ),
        ("no type", &[], same, Read),
        ("type text/plain", &["Content-Type: text/plain"], same, Read),
        (
            "type text/html",
            &["Content-Type: text/html; charset=utf-8"],
            same,
            Read,
        ),
        (
            "an own type",
            &["Content-Type: application/vnd.api+json"],
            same,
            Read,
        ),
        ("a type that is none", &["Content-Type: ;;="], same, Read),
        (
            "a byte order mark",
            &[JSON],
            |text| marked(b"\xEF\xBB\xBF", same(text)),
            Read,
        ),
        (
            "ISO-8859-1",
            &["Content-Type: application/json; charset=ISO-8859-1"],
            latin,
            Read,
        ),
        (
            "iso-8859-1 in quotes",
            &["Content-Type: application/json; charset=\"iso-8859-1\""],
            latin,
            Read,
        ),
        (
            "latin1",
            &["Content-Type: text/plain;charset=latin1"],
            latin,
            Read,
        ),
        (
            "latin-1, a label that no standard has",
            &["Content-Type: text/plain;charset=latin-1"],
            latin,
            Read,
        ),
        (
            "windows-1252",
            &["Content-Type: application/json; charset=windows-1252"],
            latin,
            Read,
        ),
        (
            "cp1252",
            &["Content-Type: application/json; charset=cp1252"],
            latin,
            Read,
        ),
        (
            "charset with blanks around it",
            &["Content-Type: application/json ; charset = iso-8859-1 "],
            latin,
            Read,
        ),
        (
            "charset behind another parameter",
            &["Content-Type: application/json; profile=x; Charset=ISO-8859-1"],
            latin,
            Read,
        ),
        (
            "iso-8859-15",
            &["Content-Type: application/json; charset=iso-8859-15"],
            |text| encoding_rs::ISO_8859_15.encode(text).0.to_vec(),
            Read,
        ),
        (
            "macintosh",
            &["Content-Type: application/json; charset=macintosh"],
            |text| encoding_rs::MACINTOSH.encode(text).0.to_vec(),
            Read,
        ),
        (
            "gb18030",
            &["Content-Type: application/json; charset=gb18030"],
            |text| encoding_rs::GB18030.encode(text).0.to_vec(),
            Read,
        ),
        (
            "utf-8 that is called latin 1",
            &["Content-Type: application/json; charset=ISO-8859-1"],
            same,
            Read,
        ),
        (
            "utf-8 that is called ascii",
            &["Content-Type: application/json; charset=us-ascii"],
            same,
            Read,
        ),
        (
            "an unknown charset",
            &["Content-Type: application/json; charset=klingon"],
            same,
            Read,
        ),
        (
            "an empty charset",
            &["Content-Type: application/json; charset="],
            same,
            Read,
        ),
        (
            "utf-16 with a mark",
            &["Content-Type: application/json; charset=utf-16"],
            |text| marked(b"\xFF\xFE", utf16(text, false)),
            Read,
        ),
        (
            "utf-16 with the other mark",
            &[JSON],
            |text| marked(b"\xFE\xFF", utf16(text, true)),
            Read,
        ),
        (
            "utf-16 that is called utf-8",
            &["Content-Type: application/json; charset=utf-8"],
            |text| marked(b"\xFF\xFE", utf16(text, false)),
            Read,
        ),
        (
            "utf-16 without a mark",
            &["Content-Type: application/json; charset=utf-16"],
            |text| utf16(text, false),
            Read,
        ),
        (
            "utf-16be without a mark",
            &["Content-Type: application/json; charset=utf-16be"],
            |text| utf16(text, true),
            Read,
        ),
        (
            "utf-16 of which nothing is said",
            &[JSON],
            |text| utf16(text, true),
            Read,
        ),
        (
            "utf-32 with a mark",
            &[JSON],
            |text| marked(b"\xFF\xFE\0\0", utf32(text, false)),
            Read,
        ),
        (
            "utf-32 with the other mark",
            &[JSON],
            |text| marked(b"\0\0\xFE\xFF", utf32(text, true)),
            Read,
        ),
        (
            "utf-32 without a mark",
            &[JSON],
            |text| utf32(text, true),
            Read,
        ),
        (
            "blanks around the body",
            &[JSON],
            |text| format!("\r\n\t {text}\n\n").into_bytes(),
            Read,
        ),
        (
            "a mark in the packed body",
            &[JSON, "Content-Encoding: gzip"],
            |text| gzip(&marked(b"\xEF\xBB\xBF", same(text))),
            Read,
        ),
        (
            "latin 1 in a packed body",
            &[
                "Content-Type: application/json; charset=latin1",
                "Content-Encoding: gzip",
            ],
            |text| gzip(&latin(text)),
            Read,
        ),
    ]
};

const PACKED: [Line; 36] = {
    use Code::{BadEncoding, InvalidJson, ResponseTooLarge, TruncatedResponse};
    use Is::{Again, Fails, Read};
    [
        (
            "gzip",
            &[JSON, "Content-Encoding: gzip"],
            |text| gzip(text.as_bytes()),
            Read,
        ),
        (
            "x-gzip",
            &[JSON, "Content-Encoding: x-gzip"],
            |text| gzip(text.as_bytes()),
            Read,
        ),
        (
            "GZIP in capitals",
            &[JSON, "CONTENT-ENCODING: GZip"],
            |text| gzip(text.as_bytes()),
            Read,
        ),
        (
            "gzip with blanks and a parameter",
            &[JSON, "Content-Encoding:  gzip ;q=1 "],
            |text| gzip(text.as_bytes()),
            Read,
        ),
        (
            "gzip of two members",
            &[JSON, "Content-Encoding: gzip"],
            |text| {
                let (a, b) = parts(text);
                [gzip(a), gzip(b)].concat()
            },
            Read,
        ),
        (
            "gzip with an empty member",
            &[JSON, "Content-Encoding: gzip"],
            |text| [gzip(b""), gzip(text.as_bytes()), gzip(b"")].concat(),
            Read,
        ),
        (
            "gzip of a member for each byte",
            &[JSON, "Content-Encoding: gzip"],
            |text| text.bytes().flat_map(|byte| gzip(&[byte])).collect(),
            Read,
        ),
        (
            "gzip with zeros behind it",
            &[JSON, "Content-Encoding: gzip"],
            |text| marked(&gzip(text.as_bytes()), vec![0; 300]),
            Read,
        ),
        (
            "gzip with a line end behind it",
            &[JSON, "Content-Encoding: gzip"],
            |text| marked(&gzip(text.as_bytes()), same("\r\n")),
            Read,
        ),
        (
            "gzip without a header",
            &[JSON],
            |text| gzip(text.as_bytes()),
            Read,
        ),
        (
            "gzip that is called identity",
            &[JSON, "Content-Encoding: identity"],
            |text| gzip(text.as_bytes()),
            Read,
        ),
        (
            "two members without a header",
            &[JSON],
            |text| {
                let (a, b) = parts(text);
                [gzip(a), gzip(b)].concat()
            },
            Read,
        ),
        (
            "gzip twice, said twice",
            &[JSON, "Content-Encoding: gzip, gzip"],
            |text| gzip(&gzip(text.as_bytes())),
            Read,
        ),
        (
            "gzip twice, in two headers",
            &[JSON, "Content-Encoding: gzip", "Content-Encoding: gzip"],
            |text| gzip(&gzip(text.as_bytes())),
            Read,
        ),
        (
            "gzip twice, said once",
            &[JSON, "Content-Encoding: gzip"],
            |text| gzip(&gzip(text.as_bytes())),
            Read,
        ),
        (
            "gzip twice, not said",
            &[JSON],
            |text| gzip(&gzip(text.as_bytes())),
            Read,
        ),
        (
            "deflate",
            &[JSON, "Content-Encoding: deflate"],
            |text| zlib(text.as_bytes()),
            Read,
        ),
        (
            "deflate without its header",
            &[JSON, "Content-Encoding: deflate"],
            |text| deflate(text.as_bytes()),
            Read,
        ),
        (
            "gzip that is called deflate",
            &[JSON, "Content-Encoding: deflate"],
            |text| gzip(text.as_bytes()),
            Read,
        ),
        (
            "deflate in gzip",
            &[JSON, "Content-Encoding: deflate, gzip"],
            |text| gzip(&zlib(text.as_bytes())),
            Read,
        ),
        (
            "gzip in deflate",
            &[JSON, "Content-Encoding: gzip, deflate"],
            |text| zlib(&gzip(text.as_bytes())),
            Read,
        ),
        (
            "identity",
            &[JSON, "Content-Encoding: identity"],
            same,
            Read,
        ),
        (
            "gzip, identity",
            &[JSON, "Content-Encoding: gzip, identity"],
            |text| gzip(text.as_bytes()),
            Read,
        ),
        (
            "an empty encoding",
            &[JSON, "Content-Encoding: "],
            same,
            Read,
        ),
        (
            "a charset as encoding",
            &[JSON, "Content-Encoding: UTF-8"],
            same,
            Read,
        ),
        (
            "brotli, not asked for",
            &[JSON, "Content-Encoding: br"],
            same,
            Again(BadEncoding),
        ),
        (
            "zstd, not asked for",
            &[JSON, "Content-Encoding: zstd"],
            same,
            Again(BadEncoding),
        ),
        (
            "plain text that is called gzip",
            &[JSON, "Content-Encoding: gzip"],
            same,
            Again(BadEncoding),
        ),
        (
            "cut gzip",
            &[JSON, "Content-Encoding: gzip"],
            |text| cut(gzip(text.as_bytes())),
            Again(TruncatedResponse),
        ),
        (
            "cut gzip without a header",
            &[JSON],
            |text| cut(gzip(text.as_bytes())),
            Again(TruncatedResponse),
        ),
        (
            "cut deflate",
            &[JSON, "Content-Encoding: deflate"],
            |text| cut(zlib(text.as_bytes())),
            Again(TruncatedResponse),
        ),
        (
            "gzip with a wrong sum",
            &[JSON, "Content-Encoding: gzip"],
            |text| {
                let mut body = gzip(text.as_bytes());
                let at = body.len() - 6;
                body[at] ^= 1;
                body
            },
            Again(BadEncoding),
        ),
        (
            "a second member that is cut",
            &[JSON, "Content-Encoding: gzip"],
            |text| {
                let (a, b) = parts(text);
                [gzip(a), cut(gzip(b))].concat()
            },
            Again(TruncatedResponse),
        ),
        (
            "something behind gzip",
            &[JSON, "Content-Encoding: gzip"],
            |text| marked(&gzip(text.as_bytes()), same("more")),
            Again(BadEncoding),
        ),
        (
            "a bomb",
            &[JSON, "Content-Encoding: gzip"],
            bomb,
            Fails(ResponseTooLarge),
        ),
        (
            "a bracket too many, packed",
            &[JSON, "Content-Encoding: gzip"],
            |text| gzip(format!("{text}]").as_bytes()),
            Again(InvalidJson),
        ),
    ]
};

pub fn rows() -> Vec<Row> {
    let lines = CHARSETS.into_iter().chain(PACKED);
    let mut rows: Vec<Row> = lines
        .map(|(about, headers, change, is)| {
            let about = format!("body: {about}");
            let make = move |text: &str| answer("200 OK", headers, &change(text));
            Row::new(&about, is, Box::new(make))
        })
        .collect();
    rows.extend(lists());
    rows
}

/// JSON in lines, and lists with something damaged in them: of type `api`.
fn lists() -> Vec<Row> {
    let two = "{\"id\": 1, \"letters\": \"café €\"}\n{\"id\": 2, \"letters\": \"café €\"}";
    let lines = move |change: fn(&str) -> Vec<u8>, kind: &'static str| -> Make {
        Box::new(move |_: &str| {
            let kind = format!("Content-Type: {kind}");
            answer("200 OK", &[&kind], &change(two))
        })
    };
    let row = |about: &str, is: Is, make: Make| Row::new(about, is, make).of_api();
    let of = |about: &str, change: fn(&str) -> Vec<u8>, kind: &'static str| {
        row(about, Is::Read, lines(change, kind))
    };
    let fixed =
        |body: &'static [u8]| -> Make { Box::new(move |_: &str| answer("200 OK", &[JSON], body)) };
    vec![
        of("lines: NDJSON", same, "application/x-ndjson"),
        of(
            "lines: that end with one",
            |text| format!("{text}\n").into_bytes(),
            "application/jsonl",
        ),
        of(
            "lines: with CRLF",
            |text| text.replace('\n', "\r\n").into_bytes(),
            "application/x-ndjson",
        ),
        of(
            "lines: with empty ones",
            |text| text.replace('\n', "\n\n \n").into_bytes(),
            "application/x-ndjson",
        ),
        of("lines: that are called JSON", same, "application/json"),
        of(
            "lines: that are called text",
            same,
            "text/plain; charset=utf-8",
        ),
        of(
            "lines: with a mark",
            |text| marked(b"\xEF\xBB\xBF", same(text)),
            "application/x-ndjson",
        ),
        of(
            "lines: packed",
            |text| gzip(text.as_bytes()),
            "application/x-ndjson",
        ),
        of(
            "lines: a member for each",
            |text| [gzip(&text.as_bytes()[..32]), gzip(&text.as_bytes()[32..])].concat(),
            "application/x-ndjson",
        ),
        of(
            "lines: in latin 1",
            latin,
            "application/x-ndjson; charset=iso-8859-1",
        ),
        of(
            "lines: in utf-16",
            |text| utf16(text, false),
            "application/x-ndjson; charset=utf-16",
        ),
        row(
            "lines: the last one cut",
            Is::Again(Code::TruncatedResponse),
            fixed(b"{\"id\": 1}\n{\"id\": 2, \"n"),
        ),
        row(
            "lines: one of them damaged",
            Is::Some(1, 1),
            fixed(b"{\"id\": 1}\n{\"id\": nope}\n"),
        ),
        Row {
            shape: Shape::Data,
            ..row(
                "lines: each with its list",
                Is::Some(2, 0),
                fixed(b"{\"data\": [{\"id\": 1}]}\n{\"data\": [{\"id\": 2}]}\n"),
            )
        },
        row(
            "list: latin 1 that nobody speaks of",
            Is::Some(1, 1),
            fixed(b"[{\"id\": 1}, {\"id\": 2, \"n\": \"caf\xE9\"}]"),
        ),
        row(
            "list: half of a pair in utf-16",
            Is::Some(1, 1),
            Box::new(|_: &str| {
                let mut body = utf16("[{\"id\": 1}, {\"id\": 2, \"n\": \"x\"}]", true);
                let at = body.len() - 8;
                body[at] = 0xD8;
                answer("200 OK", &[JSON], &body)
            }),
        ),
        row(
            "list: a NUL in a record",
            Is::Some(1, 1),
            fixed(b"[{\"id\": 1}, {\"id\": 2, \"n\": \"\0\"}]"),
        ),
    ]
}
