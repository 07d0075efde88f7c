//! Text in UTF-8, whatever charset it comes in.
//!
//! A byte order mark decides, then the zeros that UTF-16 and UTF-32 have beside the first character of JSON, then what the
//! `Content-Type` says. Servers that write UTF-8 and call it ISO-8859-1 are many, and text of another charset that happens
//! to be sound UTF-8 hardly exists: what is UTF-8 stays as it is. What does not decode becomes a byte that is not UTF-8, so
//! that one damaged record costs one record.

use bytes::{Bytes, BytesMut};
use encoding_rs::{DecoderResult, Encoding, ISO_2022_JP, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE};

use super::too_large;
use crate::error::Failure;

/// Stands where nothing could be decoded.
const DAMAGED: u8 = 0xFF;

/// Bytes that are decoded at once.
const STEP_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy)]
enum Charset {
    Known(&'static Encoding),
    /// Four bytes for each character, the most significant one first or last.
    Utf32 {
        big: bool,
    },
}

/// A body as UTF-8, without a byte order mark, of at most `limit` bytes.
pub fn to_utf8(body: Bytes, content_type: Option<&str>, limit: usize) -> Result<Bytes, Failure> {
    let (charset, mark) = match body.as_ref() {
        [0xEF, 0xBB, 0xBF, ..] => return Ok(body.slice(3..)),
        [0xFF, 0xFE, 0, 0, ..] => (Charset::Utf32 { big: false }, 4),
        [0, 0, 0xFE, 0xFF, ..] => (Charset::Utf32 { big: true }, 4),
        [0xFE, 0xFF, ..] => (Charset::Known(UTF_16BE), 2),
        [0xFF, 0xFE, ..] => (Charset::Known(UTF_16LE), 2),
        [0, 0, 0, first, ..] if begins(*first) => (Charset::Utf32 { big: true }, 0),
        [first, 0, 0, 0, ..] if begins(*first) => (Charset::Utf32 { big: false }, 0),
        [0, first, ..] if begins(*first) => (Charset::Known(UTF_16BE), 0),
        [first, 0, ..] if begins(*first) => (Charset::Known(UTF_16LE), 0),
        _ => match content_type.and_then(named) {
            Some(encoding) if is_needed(encoding, &body) => (Charset::Known(encoding), 0),
            _ => return Ok(body),
        },
    };
    let text = body.get(mark..).unwrap_or_default();
    match charset {
        Charset::Known(encoding) => decode(encoding, text, limit),
        Charset::Utf32 { big } => decode_utf32(text, big, limit),
    }
}

/// Whether JSON, or the markup that some servers send instead, begins with this character.
fn begins(byte: u8) -> bool {
    matches!(
        byte,
        b'{' | b'[' | b'"' | b'<' | b' ' | b'\t' | b'\r' | b'\n'
    )
}

/// The charset that a `Content-Type` names.
fn named(content_type: &str) -> Option<&'static Encoding> {
    let parameters = content_type.split(';').skip(1);
    let mut pairs = parameters.filter_map(|parameter| parameter.split_once('='));
    let (_, label) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    let label = label.trim().trim_matches(['"', '\'']).trim();
    let plain = || {
        let text = label.bytes().filter(u8::is_ascii_alphanumeric);
        text.collect::<Vec<u8>>()
    };
    let known = Encoding::for_label(label.as_bytes());
    known.or_else(|| Encoding::for_label(&plain()))
}

/// Whether the body has to be decoded to be UTF-8.
fn is_needed(encoding: &'static Encoding, body: &[u8]) -> bool {
    if encoding == UTF_8 || encoding == REPLACEMENT {
        return false;
    }
    // It is written in ASCII alone, between escapes.
    let is_escaped = encoding == ISO_2022_JP && memchr::memchr(0x1B, body).is_some();
    is_escaped || std::str::from_utf8(body).is_err()
}

fn decode(encoding: &'static Encoding, text: &[u8], limit: usize) -> Result<Bytes, Failure> {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let mut decoded = BytesMut::new();
    let mut buffer = vec![0; STEP_BYTES];
    let mut rest = text;
    loop {
        let (result, read, written) =
            decoder.decode_to_utf8_without_replacement(rest, &mut buffer, true);
        decoded.extend_from_slice(buffer.get(..written).unwrap_or_default());
        rest = rest.get(read..).unwrap_or_default();
        if let DecoderResult::Malformed(..) = result {
            decoded.extend_from_slice(&[DAMAGED]);
        }
        if decoded.len() > limit {
            return Err(too_large(limit));
        }
        if result == DecoderResult::InputEmpty {
            return Ok(decoded.freeze());
        }
    }
}

fn decode_utf32(text: &[u8], big: bool, limit: usize) -> Result<Bytes, Failure> {
    let mut decoded = BytesMut::new();
    for unit in text.chunks(4) {
        let number = <[u8; 4]>::try_from(unit).map(|unit| match big {
            true => u32::from_be_bytes(unit),
            false => u32::from_le_bytes(unit),
        });
        match number.ok().and_then(char::from_u32) {
            Some(character) => {
                let mut buffer = [0; 4];
                decoded.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
            }
            None => decoded.extend_from_slice(&[DAMAGED]),
        }
        if decoded.len() > limit {
            return Err(too_large(limit));
        }
    }
    Ok(decoded.freeze())
}
