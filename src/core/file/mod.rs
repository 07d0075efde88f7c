//! Files that people upload: bytes in, records out.
//!
//! A file is read twice. The first pass understands it (which encoding, which delimiter, where the headings are) and
//! reads it to its end, so that one that cannot be read stores nothing; the second makes records. Both go through it
//! as a stream: whatever its size, and whatever it holds, little of it is in memory.
//!
//! What its values are is declared and never guessed: without a declaration a cell is stored as it is, and what it
//! looks like is told.

pub mod layout;
mod repeats;
pub mod row;
mod table;
#[cfg(test)]
mod tests;
mod text;
pub mod value;
mod workbook;

use std::io::{self, Read, Seek};

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use self::layout::{Family, Header, Layout};
use self::repeats::Repeats;
use self::row::{MOST_COLUMNS, Row, too_wide};
use self::table::{FIRST_ROWS, Table};
use self::text::{Dialect, Line};
use self::workbook::Workbook;
use crate::error::{Code, Failure};
use crate::json::{self, Found, RecordLimits, Spec};
use crate::record::{Reason, Record, Rejected};

/// What an uploaded file is read from.
pub trait Content: Read + Seek {}

impl<T: Read + Seek> Content for T {}

/// Records of one part, and rows: what is held in memory, and committed, at once.
const PART_BYTES: usize = 512 * 1024;
const PART_ROWS: usize = 2_000;

/// Bytes of the first rows, among which the headings are looked for.
const FIRST_BYTES: usize = 8 * 1024 * 1024;

/// A file that is not as its name or config says.
fn refused(message: impl Into<String>) -> Failure {
    Failure::new(Code::FileRefused, message)
}

/// A file that would take more than is to be had.
fn spoiled(message: impl Into<String>) -> Failure {
    Failure::new(Code::FileTooLarge, message)
}

/// What an adapter of ours refused comes back as it was.
fn failure_of(error: io::Error) -> Failure {
    let ours = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Failure>());
    ours.cloned()
        .unwrap_or_else(|| refused("the file cannot be read"))
}

/// How a file is written.
enum Format {
    Delimited(Dialect),
    JsonLines(&'static encoding_rs::Encoding),
    Workbook(Workbook),
}

/// What the first pass found.
pub struct Understanding {
    format: Format,
    /// None for a sheet in which nothing is, and for JSON lines.
    tables: Vec<Option<Table>>,
    rows: u64,
    repeats: Repeats,
    /// What a person should know although nothing failed.
    pub notes: Vec<String>,
}

/// Records that are to be stored together.
pub struct Part {
    pub stream: String,
    pub records: Vec<Record>,
    pub rejected: Vec<Rejected>,
    /// Rows of the file that have come by now, with those of this part.
    pub rows: u64,
    pub bytes: u64,
}

/// Whether a file can be what a connector takes, by its first bytes.
pub fn recognise(start: &[u8], layout: &Layout) -> Result<(), Failure> {
    let why = match layout.family {
        Family::Text => text::is_no_text(start),
        Family::Workbook => workbook::is_none(start),
    };
    why.map_or(Ok(()), Err)
}

/// Reads a file to its end; what is wrong with it is found here, and nothing stored of it.
pub fn look_through(
    content: &mut dyn Content,
    name: &str,
    layout: &Layout,
    limits: RecordLimits,
) -> Result<Understanding, Failure> {
    let size = content.seek(io::SeekFrom::End(0)).map_err(failure_of)?;
    let mut start = [0; 8];
    content.rewind().map_err(failure_of)?;
    let read = content.read(&mut start).map_err(failure_of)?;
    recognise(start.get(..read).unwrap_or_default(), layout)?;
    let format = match layout.family {
        Family::Workbook => Format::Workbook(Workbook::open(content, layout)?),
        Family::Text => {
            let encoding = text::encoding(content, layout.encoding)?;
            match text::is_json_lines(name, layout) {
                true => Format::JsonLines(encoding),
                false => Format::Delimited(Dialect::find(content, name, layout, encoding)?),
            }
        }
    };
    let mut repeats = Repeats::new(size);
    let mut sink = |found: &mut Found, _: &str, _: u64, _: u64| {
        let mut all = found.records.iter();
        let noted = all.try_for_each(|record| repeats.note(Repeats::hash(&record.id)));
        noted.map_err(|_| {
            spoiled("more than a million rows are there more than once; name the columns that identify a row in config's \"key\"")
        })
    };
    let mut pass = Pass::new(
        layout,
        limits,
        format.streams(layout),
        Vec::new(),
        &mut sink,
    );
    format.each(content, layout, limits, &mut |at, item| {
        pass.visit(at, item)
    })?;
    pass.end()?;
    let (tables, rows) = (std::mem::take(&mut pass.tables), pass.rows);
    repeats.turn();
    if rows == 0 && tables.iter().all(Option::is_none) {
        return Err(refused("there is nothing in it"));
    }
    let mut notes = format.notes();
    notes.extend(tables.iter().flatten().flat_map(Table::all_notes));
    Ok(Understanding {
        format,
        tables,
        rows,
        repeats,
        notes,
    })
}

impl Understanding {
    /// Makes records of the file, part by part; `emit` says whether it wants another. Returns what a person should
    /// know by then.
    pub fn read(
        &mut self,
        content: &mut dyn Content,
        layout: &Layout,
        limits: RecordLimits,
        emit: &mut dyn FnMut(Part) -> Result<bool, Failure>,
    ) -> Result<Option<String>, Failure> {
        let repeats = &mut self.repeats;
        let is_keyed = !layout.key.is_empty();
        let mut same_key = 0_u64;
        let mut wants_more = true;
        let mut sink = |found: &mut Found, stream: &str, rows: u64, bytes: u64| {
            for record in &mut found.records {
                let nth = repeats.nth(Repeats::hash(&record.id));
                if nth > 1 && is_keyed {
                    same_key += 1;
                } else if nth > 1 {
                    record.id = format!("{}/{nth}", record.id);
                }
            }
            wants_more = emit(Part {
                stream: stream.to_owned(),
                records: std::mem::take(&mut found.records),
                rejected: std::mem::take(&mut found.rejected),
                rows,
                bytes,
            })?;
            match wants_more {
                true => Ok(()),
                false => Err(enough()),
            }
        };
        let tables = std::mem::take(&mut self.tables);
        let streams = self.format.streams(layout);
        let mut pass = Pass::new(layout, limits, streams, tables, &mut sink);
        let visit = &mut |at: usize, item: Item| pass.visit(at, item);
        let read = self.format.each(content, layout, limits, visit);
        let read = read.and_then(|()| pass.end());
        self.tables = std::mem::take(&mut pass.tables);
        if wants_more {
            read?;
        }
        Ok((same_key > 0).then(|| {
            format!("{same_key} rows have the same key as another row of the file; of each key the last row counts")
        }))
    }

    /// How the file was understood, for whoever wants to see it before it is stored.
    pub fn report(&self) -> Value {
        json!({
            "written_as": self.format.words(),
            "rows": self.rows,
            "tables": self.tables.iter().flatten().map(Table::report).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    /// The same in one line for each table.
    pub fn summaries(&self) -> Vec<(String, String)> {
        let written = self.format.words();
        let tables = self.tables.iter().flatten();
        let tables = tables.map(|table| {
            (
                table.stream.clone(),
                format!("{written}; {}", table.summary()),
            )
        });
        tables.collect()
    }
}

/// What ends a pass whose reader has enough; never shown.
fn enough() -> Failure {
    Failure::new(Code::Internal, "enough was read")
}

/// One thing that a file is made of.
enum Item<'a> {
    Row(&'a Row),
    Line(Line<'a>),
}

type Visit<'a> = &'a mut dyn FnMut(usize, Item) -> Result<bool, Failure>;

impl Format {
    fn each(
        &self,
        content: &mut dyn Content,
        layout: &Layout,
        limits: RecordLimits,
        visit: Visit,
    ) -> Result<(), Failure> {
        match self {
            Format::Delimited(dialect) => {
                dialect.rows(content, limits.bytes, &mut |row| visit(0, Item::Row(row)))
            }
            Format::JsonLines(encoding) => {
                text::lines(content, encoding, limits.bytes, &mut |line| {
                    visit(0, Item::Line(line))
                })
            }
            Format::Workbook(workbook) => {
                workbook.rows(content, layout, limits.bytes, &mut |sheet, row| {
                    visit(sheet, Item::Row(row))
                })
            }
        }
    }

    /// Streams, and the sheets they are.
    fn streams(&self, layout: &Layout) -> Vec<(String, Option<String>)> {
        let Format::Workbook(workbook) = self else {
            return vec![(layout.stream.clone(), None)];
        };
        let names = workbook.sheet_names();
        let stream = |name: &String| match layout.sheets.is_empty() {
            true => layout.stream.clone(),
            false => name.clone(),
        };
        names
            .iter()
            .map(|name| (stream(name), Some(name.clone())))
            .collect()
    }

    fn words(&self) -> String {
        match self {
            Format::Delimited(dialect) => {
                let delimiter = match dialect.delimiter {
                    b'\t' => "tab".to_owned(),
                    other => format!("\"{}\"", char::from(other)),
                };
                format!("{}, delimiter {delimiter}", dialect.encoding.name())
            }
            Format::JsonLines(encoding) => format!("{}, JSON lines", encoding.name()),
            Format::Workbook(workbook) => workbook.words(),
        }
    }

    fn notes(&self) -> Vec<String> {
        match self {
            Format::Workbook(workbook) => workbook.notes(),
            _ => Vec::new(),
        }
    }
}

/// What takes the records of a part: with its stream, the rows that have come by now, and its bytes.
type Sink<'a> = &'a mut dyn FnMut(&mut Found, &str, u64, u64) -> Result<(), Failure>;

/// One way through a file.
struct Pass<'a> {
    layout: &'a Layout,
    limits: RecordLimits,
    sink: Sink<'a>,
    /// Streams, and the sheets they are.
    streams: Vec<(String, Option<String>)>,
    /// Of each of them, once its headings are found. JSON lines have none.
    tables: Vec<Option<Table>>,
    /// Whether it is the first pass, which finds the tables.
    finds: bool,
    /// Rows among which the headings are looked for.
    first: Vec<Row>,
    first_bytes: usize,
    /// The table that rows are taken of, and how many there were.
    at: usize,
    taken: u64,
    /// Of all tables.
    rows: u64,
    /// The records of a part, and where in the file they are.
    body: Vec<u8>,
    lines: Vec<u64>,
    rejected: Vec<Rejected>,
    rejected_bytes: usize,
}

impl<'a> Pass<'a> {
    fn new(
        layout: &'a Layout,
        limits: RecordLimits,
        streams: Vec<(String, Option<String>)>,
        tables: Vec<Option<Table>>,
        sink: Sink<'a>,
    ) -> Pass<'a> {
        let finds = tables.is_empty();
        let mut tables = tables;
        tables.resize_with(streams.len(), || None);
        Pass {
            layout,
            limits,
            sink,
            streams,
            tables,
            finds,
            first: Vec::new(),
            first_bytes: 0,
            at: 0,
            taken: 0,
            rows: 0,
            body: Vec::new(),
            lines: Vec::new(),
            rejected: Vec::new(),
            rejected_bytes: 0,
        }
    }

    fn visit(&mut self, at: usize, item: Item) -> Result<bool, Failure> {
        if at != self.at {
            self.end_table()?;
            self.at = at;
        }
        match item {
            Item::Row(row) => self.row(row)?,
            Item::Line(line) => self.line(&line)?,
        }
        Ok(true)
    }

    /// What is left when the file is over.
    fn end(&mut self) -> Result<(), Failure> {
        self.end_table()
    }

    fn end_table(&mut self) -> Result<(), Failure> {
        if !self.first.is_empty() {
            self.find()?;
        }
        self.taken = 0;
        self.flush()
    }

    fn row(&mut self, row: &Row) -> Result<(), Failure> {
        if row.width() > MOST_COLUMNS {
            return Err(too_wide(row.number, row.width()));
        }
        let is_found = self.tables.get(self.at).is_some_and(Option::is_some);
        if is_found {
            return self.take(row);
        }
        self.first.push(row.clone());
        self.first_bytes += row.bytes();
        let awaited = match self.layout.header {
            Header::At(number) => number,
            _ => 0,
        };
        let is_enough = self.first.len() >= FIRST_ROWS && row.number >= awaited;
        match is_enough || self.first_bytes > FIRST_BYTES {
            true => self.find(),
            false => Ok(()),
        }
    }

    /// Finds the headings, and takes the rows among which they were looked for.
    fn find(&mut self) -> Result<(), Failure> {
        let first = std::mem::take(&mut self.first);
        self.first_bytes = 0;
        if let (Some((stream, sheet)), Some(table)) =
            (self.streams.get(self.at), self.tables.get_mut(self.at))
        {
            *table = Some(Table::find(stream, sheet.as_deref(), &first, self.layout)?);
        }
        first.iter().try_for_each(|row| self.take(row))
    }

    fn take(&mut self, row: &Row) -> Result<(), Failure> {
        let Some(Some(table)) = self.tables.get_mut(self.at) else {
            return Ok(());
        };
        if !table.is_below(row) {
            return Ok(());
        }
        if self.finds {
            table.look(row);
        }
        if row.is_blank() {
            return Ok(());
        }
        self.taken += 1;
        if !self.finds && self.taken + self.layout.footer > table.rows {
            return Ok(());
        }
        let start = self.body.len();
        self.body.push(if start == 0 { b'[' } else { b',' });
        if let Err((reason, why)) = table.write(row, &mut self.body) {
            self.body.truncate(start);
            let mut raw = Vec::new();
            value::write_list(row.iter().map(|(_, text)| text), &mut raw);
            self.reject(row.number, reason, &why, raw.into());
        } else {
            self.lines.push(row.number);
        }
        self.came()
    }

    fn line(&mut self, line: &Line) -> Result<(), Failure> {
        let (number, text) = (line.number, line.text);
        if serde_json::from_slice::<&RawValue>(text).is_ok() {
            self.body
                .push(if self.body.is_empty() { b'[' } else { b',' });
            self.body.extend_from_slice(text);
            self.lines.push(number);
        } else if line.is_cut {
            return Err(refused(format!(
                "line {number}: the file ends in the middle of a record"
            )));
        } else {
            let (reason, why) = match std::str::from_utf8(text) {
                Ok(_) => (Reason::InvalidJson, "not valid JSON"),
                Err(_) => (Reason::InvalidUtf8, "not UTF-8"),
            };
            self.reject(number, reason, why, Bytes::copy_from_slice(text));
        }
        self.came()
    }

    fn reject(&mut self, line: u64, reason: Reason, why: &str, raw: Bytes) {
        self.rejected_bytes += raw.len();
        self.rejected.push(Rejected {
            id: None,
            reason,
            detail: format!("row {line}: {why}"),
            hash: json::hash(&raw),
            raw,
        });
    }

    fn came(&mut self) -> Result<(), Failure> {
        self.rows += 1;
        let rows = self.lines.len() + self.rejected.len();
        // What is refused is held as well: two thousand lines of it may be as long as records can be.
        match rows >= PART_ROWS || self.body.len() + self.rejected_bytes >= PART_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Gives a part away.
    fn flush(&mut self) -> Result<(), Failure> {
        self.rejected_bytes = 0;
        let (lines, rejected) = (
            std::mem::take(&mut self.lines),
            std::mem::take(&mut self.rejected),
        );
        if lines.is_empty() && rejected.is_empty() {
            return Ok(());
        }
        let Some((stream, _)) = self.streams.get(self.at) else {
            return Ok(());
        };
        let mut body = std::mem::take(&mut self.body);
        let bytes = body.len() as u64;
        if body.is_empty() {
            body.push(b'[');
        }
        body.push(b']');
        let key: Vec<Vec<String>> = self
            .layout
            .key
            .iter()
            .map(|name| vec![name.clone()])
            .collect();
        let spec = Spec {
            stream,
            path: &[],
            key: &key,
            cursor: None,
            gone: None,
            limits: self.limits,
            lines: &lines,
        };
        let mut found = json::records(&body.into(), &spec)?;
        found.rejected.extend(rejected);
        (self.sink)(&mut found, stream, self.rows, bytes)
    }
}
