#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 20;

fn gzip(text: &[u8]) -> Vec<u8> {
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

fn opened(body: Vec<u8>, header: &str) -> Result<Vec<u8>, Code> {
    let packings = packings(std::iter::once(header)).map_err(|failure| failure.code)?;
    let opened = open(&body.into(), packings, LIMIT);
    opened
        .map(|bytes| bytes.to_vec())
        .map_err(|failure| failure.code)
}

#[test]
fn a_packed_body_is_opened_however_it_is_packed() {
    let text = "[{\"n\": \"café\"}]".repeat(5_000).into_bytes();
    let (first, second) = text.split_at(1_234);
    let members = [gzip(first), gzip(b""), gzip(second)].concat();
    for (about, body, header) in [
        ("gzip", gzip(&text), "gzip"),
        ("its old name", gzip(&text), "x-gzip"),
        ("in capitals", gzip(&text), "GZIP"),
        ("with a parameter", gzip(&text), "gzip;q=1.0"),
        ("in members", members.clone(), "gzip"),
        ("with padding", [members, vec![0; 512]].concat(), "gzip"),
        (
            "with a line end",
            [gzip(&text), b"\r\n".to_vec()].concat(),
            "gzip",
        ),
        ("zlib", zlib(&text), "deflate"),
        ("deflate without a header", deflate(&text), "deflate"),
        ("gzip that is called deflate", gzip(&text), "deflate"),
        ("twice", gzip(&gzip(&text)), "gzip, gzip"),
        ("two kinds", gzip(&zlib(&text)), "deflate, gzip"),
        ("identity", text.clone(), "identity"),
        ("identity beside it", gzip(&text), "identity, gzip"),
        ("a charset", text.clone(), "utf-8"),
        ("nothing", text.clone(), ""),
    ] {
        assert_eq!(opened(body, header).as_ref(), Ok(&text), "{about}");
    }
}

#[test]
fn a_body_that_does_not_open_says_so() {
    let text = "0123456789".repeat(1_000).into_bytes();
    let bomb = vec![b' '; 4 << 20];
    let damaged = |mut body: Vec<u8>| {
        let last = body.len() - 5;
        body[last] ^= 0xFF;
        body
    };
    let cut = |body: Vec<u8>| body[..body.len() / 2].to_vec();
    for (about, body, header, code) in [
        ("a bomb", gzip(&bomb), "gzip", Code::ResponseTooLarge),
        ("in zlib", zlib(&bomb), "deflate", Code::ResponseTooLarge),
        (
            "a bomb in a bomb",
            gzip(&gzip(&bomb)),
            "gzip, gzip",
            Code::ResponseTooLarge,
        ),
        ("plain text", text.clone(), "gzip", Code::BadEncoding),
        (
            "cut gzip",
            cut(gzip(&text)),
            "gzip",
            Code::TruncatedResponse,
        ),
        (
            "cut zlib",
            cut(zlib(&text)),
            "deflate",
            Code::TruncatedResponse,
        ),
        (
            "cut deflate",
            cut(deflate(&text)),
            "deflate",
            Code::TruncatedResponse,
        ),
        (
            "a wrong sum",
            damaged(gzip(&text)),
            "gzip",
            Code::BadEncoding,
        ),
        ("not asked for", text.clone(), "br", Code::BadEncoding),
        ("nor this", text.clone(), "gzip, zstd", Code::BadEncoding),
        (
            "five layers",
            gzip(&text),
            "gzip,gzip,gzip,gzip,gzip",
            Code::BadEncoding,
        ),
        (
            "something behind it",
            [gzip(&text), b"something".to_vec()].concat(),
            "gzip",
            Code::BadEncoding,
        ),
    ] {
        assert_eq!(opened(body, header), Err(code), "{about}");
    }
}

fn utf16(text: &str, big: bool) -> Vec<u8> {
    let unit = |unit: u16| {
        if big {
            unit.to_be_bytes()
        } else {
            unit.to_le_bytes()
        }
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

#[test]
fn text_becomes_utf8_whatever_it_is_written_in() {
    let text = "[{\"n\": \"café €\"}]";
    let latin = b"[{\"n\": \"caf\xE9 \x80\"}]".to_vec();
    let japanese = encoding_rs::SHIFT_JIS
        .encode("[{\"n\": \"東京\"}]")
        .0
        .to_vec();
    let escaped = encoding_rs::ISO_2022_JP
        .encode("[{\"n\": \"東京\"}]")
        .0
        .to_vec();
    let with = |mark: &[u8], body: Vec<u8>| [mark, &body].concat();
    let json = |charset: &str| Some(format!("application/json; charset={charset}"));
    for (about, body, content_type, expected) in [
        ("utf-8", text.as_bytes().to_vec(), None, text),
        (
            "with a mark",
            with(b"\xEF\xBB\xBF", text.into()),
            None,
            text,
        ),
        ("latin 1", latin.clone(), json("ISO-8859-1"), text),
        ("in quotes", latin.clone(), json("\"windows-1252\""), text),
        ("in other quotes", latin.clone(), json("'Latin1'"), text),
        ("misspelt", latin.clone(), json(" latin-1 "), text),
        (
            "before another parameter",
            latin.clone(),
            Some("text/json; CHARSET = iso-8859-1 ; q=1".to_owned()),
            text,
        ),
        // As some servers say of all that they send.
        ("called latin 1", text.into(), json("ISO-8859-1"), text),
        ("unknown", text.into(), json("klingon"), text),
        ("utf-16", utf16(text, false), None, text),
        ("utf-16, the other way", utf16(text, true), None, text),
        (
            "with its mark",
            with(b"\xFF\xFE", utf16(text, false)),
            json("utf-16"),
            text,
        ),
        (
            "with the other mark",
            with(b"\xFE\xFF", utf16(text, true)),
            json("utf-8"),
            text,
        ),
        ("utf-32", utf32(text, false), None, text),
        ("utf-32, the other way", utf32(text, true), None, text),
        (
            "with its mark",
            with(b"\xFF\xFE\0\0", utf32(text, false)),
            None,
            text,
        ),
        (
            "with the other mark",
            with(b"\0\0\xFE\xFF", utf32(text, true)),
            None,
            text,
        ),
        (
            "shift_jis",
            japanese,
            json("Shift_JIS"),
            "[{\"n\": \"東京\"}]",
        ),
        (
            "iso-2022-jp",
            escaped,
            json("ISO-2022-JP"),
            "[{\"n\": \"東京\"}]",
        ),
        ("nothing", Vec::new(), json("utf-16"), ""),
    ] {
        let decoded = to_utf8(body.into(), content_type.as_deref(), LIMIT).unwrap();
        assert_eq!(std::str::from_utf8(&decoded), Ok(expected), "{about}");
    }
    // Nobody says what this is.
    let decoded = to_utf8(latin.clone().into(), json("klingon").as_deref(), LIMIT);
    assert_eq!(decoded.unwrap(), latin);
}

#[test]
fn what_does_not_decode_stays_visible_and_no_text_grows_beyond_the_limit() {
    let mut damaged = utf16("[\"a\", \"b\"]", false);
    // Half of a pair in the place of "a".
    damaged[5] = 0xD8;
    let decoded = to_utf8(damaged.into(), None, LIMIT).unwrap();
    assert!(std::str::from_utf8(&decoded).is_err());
    assert!(decoded.ends_with(b"\"b\"]"));
    let grows = vec![0x80; LIMIT / 2];
    let failure = to_utf8(grows.into(), Some("text/plain; charset=latin1"), LIMIT).unwrap_err();
    assert_eq!(failure.code, Code::ResponseTooLarge);
}

proptest! {
    #[test]
    fn no_body_makes_a_reader_panic(body in prop::collection::vec(any::<u8>(), 0..200), kind in 0..5_usize) {
        let label = ["gzip", "deflate", "gzip, deflate", "", "br"][kind];
        let _ = opened(body.clone(), label);
        let _ = opened([b"\x1F\x8B\x08".to_vec(), body.clone()].concat(), "gzip");
        for charset in ["utf-16", "iso-2022-jp", "gbk", "utf-7", "big5"] {
            let content_type = format!("text/plain; charset={charset}");
            let _ = to_utf8(body.clone().into(), Some(&content_type), 1_000);
        }
    }

    #[test]
    fn what_is_packed_in_pieces_of_any_size_comes_back(text in prop::collection::vec(any::<u8>(), 0..5_000), piece in 1..50_usize) {
        for (body, packing) in [(gzip(&text), Packing::Gzip), (zlib(&text), Packing::Deflate), (deflate(&text), Packing::Deflate)] {
            let mut pieces = Pieces::default();
            body.chunks(piece).for_each(|part| pieces.push(part));
            let mut opened = BytesMut::new();
            let mut unpacking = Unpacking::new(packing, pieces);
            while unpacking.step(&mut opened).unwrap() {}
            prop_assert_eq!(&opened[..], &text[..]);
        }
    }
}
