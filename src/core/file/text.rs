//! Delimited text and JSON lines: from bytes in any declared encoding to rows.
//!
//! What is read is bounded before it becomes a row: of a row that is longer than the largest record only the beginning
//! is kept, and one that never ends is an error. That a quote was not closed is seen by a last row of our own, which a
//! sound file shows as a row and the other one swallows.

use std::io::{BufRead, BufReader};
use std::rc::Rc;

use csv_core::ReadRecordResult;
use encoding_rs::Encoding;

use super::decoded::{CHUNK, Decoded, END, Ended, Seen};
use super::dialect::Dialect;
use super::escaped::{Shown, Unescaped};
use super::layout::Layout;
use super::row::{Kind, MOST_COLUMNS, Row, too_wide};
use super::{Content, failure_of, refused, spoiled};
use crate::error::Failure;
use crate::record::RAW_KEPT;

/// How many times the largest record a row may be long, and is passed over. A longer one is a file that is no table, or
/// a quote that is not closed. More: time for nothing. Fewer: a file with one long note is refused whole.
pub const MOST_PASSED_OVER: usize = 16;

/// What a program writes in front of a total.
const TOTALS: [&str; 15] = [
    "total",
    "totals",
    "grand total",
    "subtotal",
    "sum",
    "summe",
    "gesamt",
    "gesamtsumme",
    "saldo",
    "balance",
    "totale",
    "totaal",
    "somme",
    "suma",
    "soma",
];

impl Dialect {
    /// Passes every row to `visit`, which says whether it wants another.
    pub fn rows(
        &self,
        content: &mut dyn Content,
        layout: &Layout,
        longest: usize,
        visit: &mut dyn FnMut(&Row) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        content.rewind().map_err(failure_of)?;
        let seen = Rc::new(Seen::default());
        let text = Ended {
            inner: Unescaped::new(Decoded::new(content, self.encoding), self),
            seen: seen.clone(),
            rest: None,
        };
        let mut records = Records::new(self, text, longest);
        let (mut row, mut before) = (Row::default(), Row::default());
        loop {
            if !records.next(row.number + 1)? {
                // The last row has swallowed ours.
                let line = row.number;
                return Err(match row.is_cut {
                    true => self.too_long(line, longest),
                    false => refused(format!(
                        "line {line}: a quoted value is not closed before the end of the file"
                    )),
                });
            }
            if records.is_end() {
                break;
            }
            std::mem::swap(&mut row, &mut before);
            if before.width() > 0 && !visit(&before)? {
                return Ok(());
            }
            // The reader counts a line where it meets "\n", which of "\r\n" is in front of the next row.
            let behind = records.breaks() + u64::from(!seen.is_crlf.get());
            let line = records.core.line().saturating_sub(behind);
            records.take(&mut row, line.max(before.number + 1))?;
            if self.has_hint && row.number == 1 {
                row = Row::default();
            }
        }
        if records.next(0)? {
            return Err(refused(
                "the file contains NUL characters; if it is UTF-16, set config's \"encoding\" to \"utf-16le\"",
            ));
        }
        // Old programs end a text with Ctrl-Z, and some fill its last block with NUL.
        let has_end = !trim_end_marks(&mut row) && matches!(seen.last.get(), b'\n' | b'\r');
        // A file that was cut ends in the middle of a row.
        let is_short = !has_end && row.width() > 0 && row.width() < before.width();
        if is_short && layout.footer == 0 && !is_total(&row) {
            return Err(refused(format!(
                "line {}: the file ends in the middle of a row, after {} of {} cells; if this row is no record, such as a total, set config's \"footer\" to 1",
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

    fn too_long(&self, line: u64, longest: usize) -> Failure {
        spoiled(format!(
            "line {line}: the row is longer than {longest} bytes; a quote may not be closed"
        ))
    }
}

/// Takes off what only marks the end of a file. True: there was something.
fn trim_end_marks(row: &mut Row) -> bool {
    let is_mark = |c: char| matches!(c, '\u{1A}' | '\0');
    if !row
        .iter()
        .last()
        .is_some_and(|(_, text)| text.ends_with(is_mark))
        || row.is_cut
    {
        return false;
    }
    let cells: Vec<String> = row.iter().map(|(_, text)| text.to_owned()).collect();
    let number = row.number;
    row.clear(number);
    for (at, cell) in cells.iter().enumerate() {
        let text = match at + 1 == cells.len() {
            true => cell.trim_end_matches(is_mark),
            false => cell,
        };
        row.push(Kind::Text, text);
    }
    if row.width() == 1 && row.is_blank() {
        row.clear(number);
    }
    true
}

/// Whether a row says that it is a total, and no record that was cut.
fn is_total(row: &Row) -> bool {
    let first = row
        .iter()
        .map(|(_, text)| text.trim())
        .find(|text| !text.is_empty());
    let first = first
        .unwrap_or_default()
        .trim_end_matches(':')
        .to_lowercase();
    TOTALS.contains(&first.as_str())
}

/// The records of a text, one at a time, in memory that does not grow beyond the largest of them.
struct Records<R> {
    core: csv_core::Reader,
    input: BufReader<R>,
    encoding: &'static Encoding,
    shown: Option<Shown>,
    text: Vec<u8>,
    ends: Vec<usize>,
    /// How much of both is of the record at hand.
    bytes: usize,
    cells: usize,
    /// How long the record is, where only its beginning is kept.
    passed: usize,
    longest: usize,
}

impl<R: std::io::Read> Records<R> {
    fn new(dialect: &Dialect, input: R, longest: usize) -> Records<R> {
        Records {
            core: dialect.core(),
            input: BufReader::with_capacity(CHUNK, input),
            encoding: dialect.encoding,
            shown: dialect.escape.map(|_| Shown::new(dialect)),
            text: vec![0; CHUNK.min(longest.max(1))],
            ends: vec![0; MOST_COLUMNS + 1],
            bytes: 0,
            cells: 0,
            passed: 0,
            longest: longest.max(1),
        }
    }

    /// Reads a record. False: there is none.
    fn next(&mut self, line: u64) -> Result<bool, Failure> {
        (self.bytes, self.cells, self.passed) = (0, 0, 0);
        loop {
            let input = self.input.fill_buf().map_err(failure_of)?;
            let text = self.text.get_mut(self.bytes..).unwrap_or_default();
            let ends = self.ends.get_mut(self.cells..).unwrap_or_default();
            let (result, taken, given, cells) = self.core.read_record(input, text, ends);
            self.input.consume(taken);
            self.bytes += given;
            self.cells += cells;
            match result {
                ReadRecordResult::Record => return Ok(true),
                ReadRecordResult::End => return Ok(false),
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputEndsFull => return Err(self.too_wide(line)),
                ReadRecordResult::OutputFull if self.text.len() < self.longest => {
                    let larger = (self.text.len() * 2).min(self.longest);
                    self.text.resize(larger, 0);
                }
                ReadRecordResult::OutputFull => {
                    let kept = self.kept();
                    self.passed += self.bytes - if self.passed > 0 { kept } else { 0 };
                    self.bytes = kept;
                    if self.passed > self.longest.saturating_mul(MOST_PASSED_OVER) {
                        return Err(spoiled(format!(
                            "line {line}: the row is longer than {} bytes; a quote may not be closed",
                            self.longest
                        )));
                    }
                }
            }
        }
    }

    /// Goes on to the end of a record that has too many cells, to tell how many.
    fn too_wide(&mut self, line: u64) -> Failure {
        let mut cells = self.cells;
        loop {
            let Ok(input) = self.input.fill_buf() else {
                return too_wide(line, cells);
            };
            let read = self.core.read_record(input, &mut self.text, &mut self.ends);
            let (result, taken, _, more) = read;
            self.input.consume(taken);
            cells += more;
            if matches!(result, ReadRecordResult::Record | ReadRecordResult::End) {
                return too_wide(line, cells);
            }
        }
    }

    /// How much is kept of a record that is too long.
    fn kept(&self) -> usize {
        RAW_KEPT.min(self.longest / 2)
    }

    fn text(&self) -> &[u8] {
        self.text.get(..self.bytes).unwrap_or_default()
    }

    fn is_end(&self) -> bool {
        self.cells == 1 && self.passed == 0 && self.text() == END.as_bytes()
    }

    /// Line breaks within the record.
    fn breaks(&self) -> u64 {
        memchr::memchr_iter(b'\n', self.text()).count() as u64
    }

    /// Makes a row of the record.
    fn take(&self, row: &mut Row, line: u64) -> Result<(), Failure> {
        row.clear(line);
        if self.passed > 0 {
            let text = self.text.get(..self.kept()).unwrap_or_default();
            let valid = match std::str::from_utf8(text) {
                Ok(text) => text,
                Err(error) => {
                    let valid = text.get(..error.valid_up_to());
                    std::str::from_utf8(valid.unwrap_or_default()).unwrap_or_default()
                }
            };
            row.push(Kind::Text, valid);
            row.is_cut = true;
            return Ok(());
        }
        let mut start = 0;
        let ends = self.ends.get(..self.cells).unwrap_or_default();
        for (position, end) in ends.iter().enumerate() {
            let cell = self.text().get(start..*end).unwrap_or_default();
            let Ok(cell) = std::str::from_utf8(cell) else {
                return Err(refused(format!(
                    "line {line}, column {}: the bytes are not valid {}; if the file has another encoding, set config's \"encoding\", for example to \"windows-1252\"",
                    position + 1,
                    self.encoding.name()
                )));
            };
            match &self.shown {
                Some(shown) => row.push(Kind::Text, &shown.of(cell)),
                None => row.push(Kind::Text, cell),
            }
            start = *end;
        }
        Ok(())
    }
}

/// A line that is not empty.
pub struct Line<'a> {
    /// The first line is 1.
    pub number: u64,
    pub text: &'a [u8],
    /// Whether the file ends within it.
    pub is_cut: bool,
    /// Whether it is longer than a record may be, and this is its beginning.
    pub is_long: bool,
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
        number += 1;
        line.clear();
        let (mut bytes, mut has_end) = (0, false);
        while !has_end {
            let piece = reader.fill_buf().map_err(failure_of)?;
            if piece.is_empty() {
                break;
            }
            let end = memchr::memchr(b'\n', piece);
            has_end = end.is_some();
            let taken = end.map_or(piece.len(), |at| at + 1);
            let kept = taken.min((longest + 1).saturating_sub(line.len()));
            line.extend_from_slice(piece.get(..kept).unwrap_or_default());
            bytes += taken;
            reader.consume(taken);
            if bytes > longest.saturating_mul(MOST_PASSED_OVER) {
                return Err(spoiled(format!(
                    "line {number}: the line is longer than {longest} bytes"
                )));
            }
        }
        if bytes == 0 {
            return Ok(());
        }
        let is_mark = |byte: &u8| matches!(byte, 0x1A | 0);
        let text = match has_end {
            true => line.as_slice(),
            false => line
                .iter()
                .rposition(|byte| !is_mark(byte))
                .and_then(|at| line.get(..=at))
                .unwrap_or_default(),
        };
        let text = text.trim_ascii();
        let is_long = bytes > longest + 1 || text.len() > longest;
        let line = Line {
            number,
            text: match is_long {
                true => text.get(..RAW_KEPT).unwrap_or(text),
                false => text,
            },
            is_cut: !has_end,
            is_long,
        };
        if !text.is_empty() && !visit(line)? {
            return Ok(());
        }
    }
}
