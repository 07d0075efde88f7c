//! Delimited text and JSON lines: from bytes in any declared encoding to rows.
//!
//! What is read is bounded before it becomes a row: between two rows no more may come than the largest record, so that
//! a quote that is never closed ends in an error and not in memory. That it was not closed is seen by a last row of
//! our own, which a sound file shows as a row and the other one swallows.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use encoding_rs::{DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::layout::Layout;
use super::row::{Kind, MOST_COLUMNS, Row, too_wide, usual};
use super::{Content, failure_of, refused, spoiled};
use crate::error::{Code, Failure};

/// How a delimited file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    pub encoding: &'static Encoding,
    pub delimiter: u8,
    pub quote: Option<u8>,
    /// Whether the first line says which delimiter it is, and nothing else.
    pub has_hint: bool,
}

/// How much of a file is looked at to find its delimiter.
const SAMPLE: usize = 64 * 1024;
/// Rows that are compared.
const COMPARED: usize = 50;

/// Bytes that are read and decoded at once.
const CHUNK: usize = 64 * 1024;

/// The encoding that a file says it has, or that it is declared to have.
pub fn encoding(
    content: &mut dyn Content,
    declared: Option<&'static Encoding>,
) -> Result<&'static Encoding, Failure> {
    let start = beginning(content, 4)?;
    let said = Encoding::for_bom(&start).map(|(encoding, _)| encoding);
    let wide = match start.as_slice() {
        [0, b, ..] if *b != 0 => Some(UTF_16BE),
        [b, 0, ..] if *b != 0 => Some(UTF_16LE),
        _ => None,
    };
    if let (None, None, Some(wide)) = (declared, said, wide) {
        let name = wide.name().to_lowercase();
        return Err(refused(format!(
            "the file looks like UTF-16 without a byte order mark; if it is, say so in config: \"encoding\": \"{name}\""
        )));
    }
    Ok(said.or(declared).unwrap_or(UTF_8))
}

fn beginning(content: &mut dyn Content, bytes: usize) -> Result<Vec<u8>, Failure> {
    content.rewind().map_err(failure_of)?;
    let mut start = Vec::new();
    content
        .take(bytes as u64)
        .read_to_end(&mut start)
        .map_err(failure_of)?;
    Ok(start)
}

impl Dialect {
    /// What is declared, and where it is not, what the beginning of the file shows.
    pub fn find(
        content: &mut dyn Content,
        name: &str,
        layout: &Layout,
        encoding: &'static Encoding,
    ) -> Result<Dialect, Failure> {
        let start = beginning(content, SAMPLE)?;
        let (text, _) = encoding.decode_with_bom_removal(&start);
        // The last line of a sample may be cut in the middle.
        let text = match start.len() < SAMPLE {
            true => &text,
            false => text.rsplit_once('\n').map_or(&*text, |(whole, _)| whole),
        };
        let first = text.lines().next().unwrap_or_default().trim_end();
        let hint = match first
            .to_ascii_lowercase()
            .strip_prefix("sep=")
            .map(str::as_bytes)
        {
            Some([delimiter]) => Some(*delimiter),
            _ => None,
        };
        let mut dialect = Dialect {
            encoding,
            delimiter: b',',
            quote: layout.quote,
            has_hint: hint.is_some(),
        };
        let is_tab = [".tsv", ".tab"]
            .iter()
            .any(|end| name.to_ascii_lowercase().ends_with(end));
        dialect.delimiter = match layout.delimiter.or(hint) {
            Some(delimiter) => delimiter,
            None if is_tab => b'\t',
            None => dialect.likely(text, layout),
        };
        Ok(dialect)
    }

    /// The delimiter by which the rows of a text have the same number of cells, and more than one.
    fn likely(mut self, text: &str, layout: &Layout) -> u8 {
        let declared: Vec<&str> = layout
            .key
            .iter()
            .chain(layout.columns.iter().map(|(name, _)| name))
            .map(String::as_str)
            .collect();
        let mut best = (0, 0.0, 1, b',');
        for delimiter in *b",;\t|" {
            self.delimiter = delimiter;
            let mut reader = self.reader().from_reader(text.as_bytes());
            let rows: Vec<csv::StringRecord> = reader.records().take(COMPARED).flatten().collect();
            let named = rows
                .iter()
                .map(|row| {
                    row.iter()
                        .filter(|cell| declared.contains(&cell.trim()))
                        .count()
                })
                .max()
                .unwrap_or(0);
            let (width, share) = usual(rows.iter().map(csv::StringRecord::len));
            if width > 1 && (named, share, width) > (best.0, best.1, best.2) {
                best = (named, share, width, delimiter);
            }
        }
        best.3
    }

    fn reader(&self) -> csv::ReaderBuilder {
        let mut builder = csv::ReaderBuilder::new();
        builder
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .quoting(self.quote.is_some())
            .quote(self.quote.unwrap_or(b'"'))
            .buffer_capacity(CHUNK);
        builder
    }

    /// Every row, to `visit`, which says whether it wants another.
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
                    "line {}: a quote is opened and not closed by the end of the file",
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
            return Err(refused("the file holds NUL characters"));
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
                "line {line}: more than {longest} bytes in one row; a quote may not be closed"
            )),
            csv::ErrorKind::Io(error) => failure_of(error),
            csv::ErrorKind::Utf8 { err, .. } => refused(format!(
                "line {line}, column {}: bytes that are not {}; if the file is written in another encoding, say so in config, such as \"encoding\": \"windows-1252\"",
                err.field() + 1,
                self.encoding.name()
            )),
            _ => refused(format!("line {line}: cannot be read")),
        }
    }
}

fn count(byte: u8, text: &str) -> usize {
    memchr::memchr_iter(byte, text.as_bytes()).count()
}

/// A line that is not empty.
pub struct Line<'a> {
    /// From 1.
    pub number: u64,
    pub text: &'a [u8],
    /// Whether the file ends within it.
    pub is_cut: bool,
}

/// Every line that is not empty.
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
                "line {number}: more than {longest} bytes in one line"
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

/// The row that is put behind the last one. No file holds a NUL that is not refused, and of all characters it alone can
/// be no delimiter.
const END: &str = "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// What of a text is gone once rows are made of it.
#[derive(Default)]
struct Seen {
    /// The last byte.
    last: Cell<u8>,
    /// Whether the first line ends in "\r\n".
    is_crlf: Cell<bool>,
    has_lines: Cell<bool>,
}

impl Seen {
    fn note(&self, text: &[u8]) {
        if !self.has_lines.get()
            && let Some(at) = memchr::memchr(b'\n', text)
        {
            let before = at.checked_sub(1).and_then(|at| text.get(at).copied());
            let before = before.unwrap_or(self.last.get());
            self.is_crlf.set(before == b'\r');
            self.has_lines.set(true);
        }
        if let Some(last) = text.last() {
            self.last.set(*last);
        }
    }
}

/// Adds [`END`].
struct Ended<R> {
    inner: R,
    seen: Rc<Seen>,
    /// What is still to be given of the end, from when the file is over.
    rest: Option<Vec<u8>>,
}

impl<R: Read> Read for Ended<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_none() {
            let read = self.inner.read(buffer)?;
            if read > 0 {
                self.seen.note(buffer.get(..read).unwrap_or_default());
                return Ok(read);
            }
            self.rest = Some(format!("\n{END}\n").into_bytes());
        }
        let rest = self.rest.get_or_insert_default();
        let mut given = rest.as_slice();
        let read = given.read(buffer)?;
        rest.drain(..read);
        Ok(read)
    }
}

/// How much may still be read before something of it has to come out.
#[derive(Clone)]
pub struct Meter {
    left: Rc<Cell<usize>>,
    most: usize,
}

impl Meter {
    pub fn new(most: usize) -> Meter {
        let most = most + 2 * CHUNK;
        Meter {
            left: Rc::new(Cell::new(most)),
            most,
        }
    }

    pub fn reset(&self) {
        self.left.set(self.most);
    }

    pub fn take(&self, bytes: usize) -> io::Result<()> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(io::Error::other(TooLong)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("too long")]
struct TooLong;

pub fn is_too_long(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TooLong>())
}

struct Metered<R> {
    inner: R,
    meter: Meter,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.meter.take(read)?;
        Ok(read)
    }
}

/// Text as UTF-8, without a byte order mark. UTF-8 itself is passed through as it is: whoever makes text of it says
/// better where it is none.
struct Decoded<'a> {
    content: &'a mut dyn Content,
    encoding: &'static Encoding,
    /// `None`: as it is.
    decoder: Option<encoding_rs::Decoder>,
    raw: Vec<u8>,
    /// Where what is not decoded yet begins in `raw`.
    from: usize,
    is_first: bool,
    is_over: bool,
    /// Whether the decoder has said its last: asked once more it panics.
    is_done: bool,
    lines: u64,
}

impl<'a> Decoded<'a> {
    fn new(content: &'a mut dyn Content, encoding: &'static Encoding) -> Decoded<'a> {
        let is_utf_8 = encoding == UTF_8;
        Decoded {
            content,
            encoding,
            decoder: (!is_utf_8).then(|| encoding.new_decoder_with_bom_removal()),
            raw: Vec::new(),
            from: 0,
            is_first: true,
            is_over: false,
            is_done: false,
            lines: 0,
        }
    }

    /// Reads another chunk behind what is left of the one before.
    fn fill(&mut self) -> io::Result<()> {
        self.raw.drain(..self.from);
        self.from = 0;
        let most = CHUNK as u64;
        let read = (&mut *self.content).take(most).read_to_end(&mut self.raw)?;
        self.is_over = read == 0;
        Ok(())
    }
}

impl Read for Decoded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.is_done {
            return Ok(0);
        }
        loop {
            if self.from == self.raw.len() && !self.is_over {
                self.fill()?;
            }
            let mut left = self.raw.get(self.from..).unwrap_or_default();
            let Some(decoder) = &mut self.decoder else {
                if std::mem::take(&mut self.is_first) && left.starts_with(b"\xEF\xBB\xBF") {
                    self.from += 3;
                    continue;
                }
                let read = left.read(buffer)?;
                self.from += read;
                return Ok(read);
            };
            let (result, taken, given) =
                decoder.decode_to_utf8_without_replacement(left, buffer, self.is_over);
            self.from += taken;
            let text = buffer.get(..given).unwrap_or_default();
            self.lines += memchr::memchr_iter(b'\n', text).count() as u64;
            if let DecoderResult::Malformed(..) = result {
                let (line, name) = (self.lines + 1, self.encoding.name());
                let message = format!("line {line}: bytes that are not {name}");
                return Err(io::Error::other(refused(message)));
            }
            self.is_done = self.is_over && result == DecoderResult::InputEmpty;
            if given > 0 || self.is_done {
                return Ok(given);
            }
            // A character longer than the buffer cannot be given, which no reader here has.
            if result == DecoderResult::OutputFull && buffer.len() < 4 {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            if result == DecoderResult::InputEmpty && !self.is_over {
                self.fill()?;
            }
        }
    }
}

/// JSON lines are told by what their file is called, unless config says.
pub fn is_json_lines(name: &str, layout: &Layout) -> bool {
    let name = name.to_ascii_lowercase();
    let ends = [".jsonl", ".ndjson", ".jsonlines"];
    layout
        .is_json_lines
        .unwrap_or_else(|| ends.iter().any(|end| name.ends_with(end)))
}

/// Why a text is not what its name says, where that is plain to see.
pub fn is_no_text(start: &[u8]) -> Option<Failure> {
    let is_archive = start.starts_with(b"PK\x03\x04") || start.starts_with(b"\x1F\x8B");
    let is_compound = start.starts_with(b"\xD0\xCF\x11\xE0");
    (is_archive || is_compound).then(|| {
        Failure::new(
            Code::FileRefused,
            "the file is a workbook or an archive, and no text; workbooks are for a connector of type \"excel\"",
        )
    })
}
