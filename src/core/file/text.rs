//! Delimited text and JSON lines: from bytes in any declared encoding to rows.
//!
//! What is read is bounded before it becomes a row: between two rows no more may come than the largest record, so that
//! a quote that is never closed ends in an error and not in memory. That it was not closed is seen by a last row of
//! our own, which a sound file shows as a row and the other one swallows.

use std::io::{BufRead, BufReader, Read};
use std::rc::Rc;

use encoding_rs::Encoding;

use super::decoded::{CHUNK, Decoded, END, Ended, Meter, Metered, Seen, is_too_long};
use super::dialect::Dialect;
use super::row::{Kind, MOST_COLUMNS, Row, too_wide};
use super::{Content, failure_of, refused, spoiled};
use crate::error::Failure;

impl Dialect {
    /// Passes every row to `visit`, which says whether it wants another.
    pub fn rows(
        &self,
        content: &mut dyn Content,
        longest: usize,
        visit: &mut dyn FnMut(&Row) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        content.rewind().map_err(failure_of)?;
        let meter = Meter::new(longest);
        let seen = Rc::new(Seen::default());
        let text = Metered {
            inner: Ended {
                inner: Decoded::new(content, self.encoding),
                seen: seen.clone(),
                rest: None,
            },
            meter: meter.clone(),
        };
        let mut reader = self.reader().from_reader(text);
        let mut record = csv::StringRecord::new();
        let (mut row, mut before) = (Row::default(), Row::default());
        loop {
            let read = reader.read_record(&mut record);
            let is_one = read.map_err(|error| self.failure(error, row.number + 1, longest))?;
            meter.reset();
            if !is_one {
                // The last row has swallowed ours.
                return Err(refused(format!(
                    "line {}: a quoted value is not closed before the end of the file",
                    row.number
                )));
            }
            if record.iter().eq([END]) {
                break;
            }
            std::mem::swap(&mut row, &mut before);
            if before.width() > 0 && !visit(&before)? {
                return Ok(());
            }
            // The reader counts a line where it meets "\n", which of "\r\n" is in front of the next row.
            let breaks: usize = record.iter().map(|cell| count(b'\n', cell)).sum();
            let behind = breaks as u64 + u64::from(!seen.is_crlf.get());
            let line = reader.position().line().saturating_sub(behind);
            let line = line.max(before.number + 1);
            if record.len() > MOST_COLUMNS {
                return Err(too_wide(line, record.len()));
            }
            row.clear(line);
            for cell in &record {
                row.push(Kind::Text, cell);
            }
            if self.has_hint && row.number == 1 {
                row = Row::default();
            }
        }
        if reader
            .read_record(&mut record)
            .map_or(true, |is_one| is_one)
        {
            return Err(refused("the file contains NUL characters"));
        }
        // A file that was cut ends in the middle of a row.
        let has_end = matches!(seen.last.get(), b'\n' | b'\r');
        if !has_end && row.width() < before.width() {
            return Err(refused(format!(
                "line {}: the file ends in the middle of a row, after {} of {} cells",
                row.number,
                row.width(),
                before.width()
            )));
        }
        if row.width() > 0 {
            visit(&row)?;
        }
        Ok(())
    }

    fn failure(&self, error: csv::Error, line: u64, longest: usize) -> Failure {
        match error.into_kind() {
            csv::ErrorKind::Io(error) if is_too_long(&error) => spoiled(format!(
                "line {line}: the row is longer than {longest} bytes; a quote may not be closed"
            )),
            csv::ErrorKind::Io(error) => failure_of(error),
            csv::ErrorKind::Utf8 { err, .. } => refused(format!(
                "line {line}, column {}: the bytes are not valid {}; if the file has another encoding, set config's \"encoding\", for example to \"windows-1252\"",
                err.field() + 1,
                self.encoding.name()
            )),
            _ => refused(format!("line {line}: the row cannot be read")),
        }
    }
}

fn count(byte: u8, text: &str) -> usize {
    memchr::memchr_iter(byte, text.as_bytes()).count()
}

/// A line that is not empty.
pub struct Line<'a> {
    /// The first line is 1.
    pub number: u64,
    pub text: &'a [u8],
    /// Whether the file ends within it.
    pub is_cut: bool,
}

/// Passes on every line that is not empty.
pub fn lines(
    content: &mut dyn Content,
    encoding: &'static Encoding,
    longest: usize,
    visit: &mut dyn FnMut(Line) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    content.rewind().map_err(failure_of)?;
    let mut reader = BufReader::with_capacity(CHUNK, Decoded::new(content, encoding));
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        number += 1;
        let most = longest as u64 + 1;
        let read = reader.by_ref().take(most).read_until(b'\n', &mut line);
        if read.map_err(failure_of)? == 0 {
            return Ok(());
        }
        let is_cut = line.last() != Some(&b'\n');
        if is_cut && line.len() > longest {
            return Err(spoiled(format!(
                "line {number}: the line is longer than {longest} bytes"
            )));
        }
        let text = line.trim_ascii();
        let line = Line {
            number,
            text,
            is_cut,
        };
        if !text.is_empty() && !visit(line)? {
            return Ok(());
        }
    }
}
