//! Escapes of delimited text: a backslash, or what config names, in front of what would otherwise separate cells.
//!
//! What is escaped is replaced before the text is taken apart, by characters that no text holds, and put back into the
//! cells afterwards. So it does not matter whether it is within quotes.

use std::borrow::Cow;
use std::io::{self, Read};

use super::decoded::CHUNK;
use super::dialect::Dialect;

/// Characters that are none, in the place of: the delimiter, the quote, the two ends of a line, the escape.
const FIRST: char = '\u{FDD0}';
const SPECIAL: usize = 5;

pub struct Unescaped<R> {
    inner: R,
    escape: Option<u8>,
    special: [u8; SPECIAL],
    is_escaped: bool,
    raw: Vec<u8>,
    out: Vec<u8>,
    /// What of it was given.
    given: usize,
}

impl<R: Read> Unescaped<R> {
    pub fn new(inner: R, dialect: &Dialect) -> Unescaped<R> {
        Unescaped {
            inner,
            escape: dialect.escape,
            special: special(dialect),
            is_escaped: false,
            raw: Vec::new(),
            out: Vec::new(),
            given: 0,
        }
    }

    fn fill(&mut self, escape: u8) -> io::Result<bool> {
        self.raw.resize(CHUNK, 0);
        let read = self.inner.read(&mut self.raw)?;
        self.out.clear();
        self.given = 0;
        for byte in self.raw.get(..read).unwrap_or_default() {
            if !std::mem::take(&mut self.is_escaped) {
                match *byte == escape {
                    true => self.is_escaped = true,
                    false => self.out.push(*byte),
                }
            } else if let Some(nth) = self.special.iter().position(|special| special == byte) {
                self.out.extend_from_slice(&stands_for(nth));
            } else {
                // What needs no escape has none: a path, or the NULL of MySQL.
                self.out.extend_from_slice(&[escape, *byte]);
            }
        }
        if read == 0 && std::mem::take(&mut self.is_escaped) {
            self.out.push(escape);
        }
        Ok(read > 0 || !self.out.is_empty())
    }
}

impl<R: Read> Read for Unescaped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(escape) = self.escape else {
            return self.inner.read(buffer);
        };
        while self.given == self.out.len() {
            if !self.fill(escape)? {
                return Ok(0);
            }
        }
        let mut left = self.out.get(self.given..).unwrap_or_default();
        let read = left.read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

fn special(dialect: &Dialect) -> [u8; SPECIAL] {
    let delimiter = dialect.delimiter;
    [
        delimiter,
        // Programs escape it even where they quote nothing.
        dialect.quote.unwrap_or(b'"'),
        b'\n',
        b'\r',
        dialect.escape.unwrap_or(delimiter),
    ]
}

fn stands_for(nth: usize) -> [u8; 3] {
    [0xEF, 0xB7, 0x90 + nth as u8]
}

/// A cell as it is meant. The delimiter and the rest are those of the file.
pub struct Shown([char; SPECIAL]);

impl Shown {
    pub fn new(dialect: &Dialect) -> Shown {
        Shown(special(dialect).map(char::from))
    }

    pub fn of<'a>(&self, cell: &'a str) -> Cow<'a, str> {
        let nth = |c: char| {
            u32::from(c)
                .checked_sub(u32::from(FIRST))
                .map(|nth| nth as usize)
        };
        let is_one = |c: char| nth(c).is_some_and(|nth| nth < SPECIAL);
        if !cell.contains(is_one) {
            return cell.into();
        }
        let meant = |c: char| nth(c).and_then(|nth| self.0.get(nth).copied()).unwrap_or(c);
        cell.chars().map(meant).collect::<String>().into()
    }
}
