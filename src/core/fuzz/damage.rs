//! Sound bytes, damaged.

use super::Random;

/// What means something to some reader.
const PIECES: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x80",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf",
    b"\"",
    b"\\",
    b"\\u",
    b"\\ud800",
    b"\\u0000",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b"null",
    b"-",
    b"1e999999999",
    b"99999999999999999999999999",
    b"-9223372036854775808",
    b"0x",
    b"NaN",
    b"\r\n",
    b"\r",
    b"\n",
    b"\n\n",
    b"\t",
    b" ",
    b"<",
    b">",
    b"</",
    b"/>",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"<!DOCTYPE a>",
    b"&#0;",
    b"&#x10FFFF;",
    b"&lt;",
    b"&a;",
    b"'",
    b"=",
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"%00",
    b"%",
    b"$ref",
    b"#/",
    b"PK\x03\x04",
    b"\x7f\xff\xff\xff",
    b"\xfe",
    b"\xfd",
    b"\xfc",
    b"\xfb",
];

/// The bytes with one to a few damages; `others` is where pieces are taken from.
pub fn damaged(random: &mut Random, bytes: &[u8], others: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.few(6) {
        damage(random, &mut bytes, others);
    }
    bytes
}

fn range(random: &mut Random, length: usize) -> (usize, usize) {
    let from = random.below(length + 1);
    let to = from + random.few((length - from).min(64));
    (from, to)
}

fn damage(random: &mut Random, bytes: &mut Vec<u8>, others: &[u8]) {
    let (from, to) = range(random, bytes.len());
    match random.below(10) {
        0 | 1 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        2 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] = random.number() as u8;
        }
        3 => bytes.truncate(from),
        4 => {
            bytes.drain(from..to);
        }
        // Twice, or a number of times.
        5 => {
            let part = bytes[from..to].to_vec();
            let times = random.pick(&[1, 1, 1, 2, 40]);
            bytes.splice(to..to, part.repeat(times));
        }
        6 => {
            let piece = random.pick(PIECES);
            bytes.splice(from..from, piece.iter().copied());
        }
        7 => {
            let piece = random.pick(PIECES);
            bytes.splice(from..to, piece.iter().copied());
        }
        // From somewhere else.
        8 => {
            let (first, last) = range(random, others.len());
            let part = others[first..last].to_vec();
            bytes.splice(from..to, part);
        }
        // A number as some header holds it.
        _ => {
            let width = random.pick(&[1, 2, 4, 8]);
            let number = random.edge().to_le_bytes();
            let to = (from + width).min(bytes.len());
            let width = to - from;
            bytes[from..to].copy_from_slice(&number[..width]);
        }
    }
}
