//! One pass over a file: it finds the tables, or makes records of their rows, part by part.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::format::Item;
use super::headings::FIRST_ROWS;
use super::layout::{Header, Layout};
use super::row::{MOST_COLUMNS, Row, too_wide};
use super::table::Table;
use super::text::Line;
use super::{refused, value};
use crate::error::Failure;
use crate::json::{self, Found, RecordLimits, Spec};
use crate::record::{Reason, Record, Rejected};

/// Records of one part, and rows: what is held in memory, and committed, at once.
const PART_BYTES: usize = 512 * 1024;
const PART_ROWS: usize = 2_000;

/// Bytes of the first rows, among which the headings are looked for.
const FIRST_BYTES: usize = 8 * 1024 * 1024;

/// Where a part is in the file.
pub struct Place<'a> {
    pub stream: &'a str,
    /// Rows that have come by now.
    pub rows: u64,
    pub bytes: u64,
    /// For each record a hash of what it was made of.
    pub origins: Vec<[u8; 16]>,
}

/// What takes the records of a part.
pub type Sink<'a> = &'a mut dyn FnMut(&mut Found, Place) -> Result<(), Failure>;

/// One pass over a file.
pub struct Pass<'a> {
    layout: &'a Layout,
    limits: RecordLimits,
    sink: Sink<'a>,
    /// Streams, and the sheets they are.
    streams: Vec<(String, Option<String>)>,
    /// The table of each stream, once its headings are found. JSON lines have none.
    pub tables: Vec<Option<Table>>,
    /// Whether it is the first pass, which finds the tables.
    finds: bool,
    /// Rows among which the headings are looked for.
    first: Vec<Row>,
    first_bytes: usize,
    /// The table that rows are taken of, and how many there were.
    at: usize,
    taken: u64,
    /// Rows of all tables so far.
    pub rows: u64,
    /// The records of a part, and where in the file they are.
    body: Vec<u8>,
    lines: Vec<u64>,
    /// Where each of them begins in the body, and a hash of what it was made of.
    origins: Vec<(usize, [u8; 16])>,
    /// The cells of a row behind one another, of which the hash is.
    cells: Vec<u8>,
    rejected: Vec<Rejected>,
    rejected_bytes: usize,
}

impl<'a> Pass<'a> {
    pub fn new(
        layout: &'a Layout,
        limits: RecordLimits,
        streams: Vec<(String, Option<String>)>,
        tables: Vec<Option<Table>>,
        sink: Sink<'a>,
    ) -> Pass<'a> {
        let finds = tables.is_empty();
        let mut tables = tables;
        tables.resize_with(streams.len(), || None);
        tables.iter_mut().flatten().for_each(Table::begin);
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
            origins: Vec::new(),
            cells: Vec::new(),
            rejected: Vec::new(),
            rejected_bytes: 0,
        }
    }

    pub fn visit(&mut self, at: usize, item: Item) -> Result<bool, Failure> {
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

    /// Handles what is left at the end of the file.
    pub fn end(&mut self) -> Result<(), Failure> {
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
            table.inspect(row);
        }
        if row.is_blank() {
            return Ok(());
        }
        self.taken += 1;
        if !self.finds && self.taken + self.layout.footer > table.rows {
            return Ok(());
        }
        if row.is_cut {
            let mut raw = Vec::new();
            value::write_list(row.iter().map(|(_, text)| text), &mut raw);
            let why = format!("the row is longer than {} bytes", self.limits.bytes);
            self.reject(row.number, None, Reason::TooLarge, &why, raw.into());
            return self.came();
        }
        if table.continues(row) {
            table.continued += u64::from(self.finds);
            return Ok(());
        }
        let start = self.body.len();
        self.body.push(if start == 0 { b'[' } else { b',' });
        if let Err((reason, why)) = table.write(row, &mut self.body) {
            self.body.truncate(start);
            let like = table
                .write_key(row)
                .and_then(|key| self.id_of(key, row.number));
            let mut raw = Vec::new();
            value::write_list(row.iter().map(|(_, text)| text), &mut raw);
            self.reject(row.number, like, reason, &why, raw.into());
        } else {
            self.lines.push(row.number);
            if !self.finds {
                self.cells.clear();
                for (_, text) in row.iter().take(row.extent()) {
                    self.cells.extend_from_slice(&text.len().to_le_bytes());
                    self.cells.extend_from_slice(text.as_bytes());
                }
                self.origins.push((start + 1, json::hash(&self.cells)));
            }
        }
        self.came()
    }

    fn line(&mut self, line: &Line) -> Result<(), Failure> {
        let (number, text) = (line.number, line.text);
        if line.is_long {
            let why = format!("the record is longer than {} bytes", self.limits.bytes);
            let raw = Bytes::copy_from_slice(text);
            self.reject(number, None, Reason::TooLarge, &why, raw);
        } else if serde_json::from_slice::<&RawValue>(text).is_ok() {
            self.body
                .push(if self.body.is_empty() { b'[' } else { b',' });
            if !self.finds {
                self.origins.push((self.body.len(), json::hash(text)));
            }
            self.body.extend_from_slice(text);
            self.lines.push(number);
        } else if line.is_cut {
            return Err(refused(format!(
                "line {number}: the file ends in the middle of a record"
            )));
        } else {
            let (reason, why) = match std::str::from_utf8(text) {
                Ok(_) => (Reason::InvalidJson, "it is not valid JSON"),
                Err(_) => (Reason::InvalidUtf8, "it is not UTF-8"),
            };
            self.reject(number, None, reason, why, Bytes::copy_from_slice(text));
        }
        self.came()
    }

    /// The id of the record that an object with the columns of the key alone is part of. The file still shows a record
    /// whose row is refused: what was stored of it before is not gone.
    fn id_of(&self, mut object: Vec<u8>, line: u64) -> Option<Record> {
        let (stream, _) = self.streams.get(self.at)?;
        object.insert(0, b'[');
        object.push(b']');
        let found = self.records(&object.into(), stream, &[line]).ok()?;
        found.records.into_iter().next()
    }

    fn records(&self, body: &Bytes, stream: &str, lines: &[u64]) -> Result<Found, Failure> {
        let sheet = self
            .streams
            .get(self.at)
            .and_then(|(_, sheet)| sheet.as_deref());
        let key = self
            .layout
            .key_of(sheet)
            .iter()
            .map(|name| vec![name.clone()]);
        let key: Vec<Vec<String>> = key.collect();
        let spec = Spec {
            stream,
            path: &[],
            key: &key,
            cursor: None,
            gone: None,
            limits: self.limits,
            lines,
        };
        json::records(body, &spec)
    }

    fn reject(&mut self, line: u64, like: Option<Record>, reason: Reason, why: &str, raw: Bytes) {
        self.rejected_bytes += raw.len();
        let (id, formerly) = like.map(|like| (like.id, like.formerly)).unzip();
        self.rejected.push(Rejected {
            id,
            formerly: formerly.flatten(),
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

    /// Passes a part on.
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
        let (body, origins): (Bytes, _) = (body.into(), std::mem::take(&mut self.origins));
        let mut found = self.records(&body, stream, &lines)?;
        found.rejected.extend(rejected);
        // Some of what was written may be no record. The others are in the same order.
        let mut written = origins.into_iter();
        let made_of = |record: &Record| {
            let is_it = |(start, _): &(usize, _)| {
                body.get(*start..)
                    .is_some_and(|text| text.starts_with(&record.json))
            };
            written.find(is_it).map(|(_, hash)| hash)
        };
        let origins = match self.finds {
            true => None,
            false => found.records.iter().map(made_of).collect(),
        };
        let place = Place {
            stream,
            rows: self.rows,
            bytes,
            origins: origins.unwrap_or_default(),
        };
        (self.sink)(&mut found, place)
    }
}
