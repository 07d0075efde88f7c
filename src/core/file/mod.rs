//! Files that people upload: bytes in, records out.
//!
//! A file is read twice. The first pass understands it (which encoding, which delimiter, where the headings are) and
//! reads it to its end, so that one that cannot be read stores nothing; the second makes records. Both go through it
//! as a stream: whatever its size, and whatever it holds, little of it is in memory.
//!
//! What its values are is declared and never guessed: without a declaration a cell is stored as it is, and what it
//! looks like is told.

mod beside;
mod decoded;
mod dialect;
mod document;
mod escaped;
mod format;
mod headings;
pub mod layout;
mod looks;
mod markup;
mod pass;
mod repeats;
pub mod row;
mod table;
#[cfg(test)]
mod tests;
mod text;
pub mod value;
mod workbook;

use std::io::{self, Read, Seek};

use serde_json::{Value, json};

use self::dialect::Dialect;
use self::format::{Format, Item};
use self::layout::{Family, Layout, TextFormat};
use self::pass::{Pass, Place};
use self::repeats::Repeats;
use self::table::Table;
use self::workbook::Workbook;
use crate::error::{Code, Failure};
use crate::json::{Found, RecordLimits};
use crate::record::{Record, Rejected};

/// The bytes of an uploaded file.
pub trait Content: Read + Seek {}

impl<T: Read + Seek> Content for T {}

/// A file that is not what its name or config says.
fn refused(message: impl Into<String>) -> Failure {
    Failure::new(Code::FileRefused, message)
}

/// A file that is larger than the limits allow.
fn spoiled(message: impl Into<String>) -> Failure {
    Failure::new(Code::FileTooLarge, message)
}

/// Returns the failure that one of our own adapters put into an I/O error.
fn failure_of(error: io::Error) -> Failure {
    let ours = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Failure>());
    ours.cloned()
        .unwrap_or_else(|| refused("the file cannot be read"))
}

/// The result of the first pass.
pub struct Understanding {
    format: Format,
    /// `None` for an empty sheet, and for JSON lines.
    tables: Vec<Option<Table>>,
    rows: u64,
    repeats: Repeats,
    /// Notes for a person, although nothing failed.
    pub notes: Vec<String>,
}

/// Records that are to be stored together.
pub struct Part {
    pub stream: String,
    pub records: Vec<Record>,
    pub rejected: Vec<Rejected>,
    /// For each record a hash of the row or line that it was made of, however that was read.
    pub origins: Vec<[u8; 16]>,
    /// Rows of the file that have come by now, with those of this part.
    pub rows: u64,
    pub bytes: u64,
}

/// Refuses a file that cannot be what the connector takes, by its first bytes.
pub fn recognise(start: &[u8], layout: &Layout) -> Result<(), Failure> {
    match layout.family {
        Family::Text => dialect::check_is_text(start),
        Family::Workbook => workbook::check_is_workbook(start),
    }
}

/// Reads a file to its end and finds everything that is wrong with it, before anything is stored.
pub fn understand(
    content: &mut dyn Content,
    name: &str,
    layout: &Layout,
    limits: RecordLimits,
) -> Result<Understanding, Failure> {
    let size = content.seek(io::SeekFrom::End(0)).map_err(failure_of)?;
    recognise(&dialect::beginning(content, 1_024)?, layout)?;
    let format = match layout.family {
        Family::Workbook => Format::Workbook(Workbook::open(content, layout)?),
        Family::Text => {
            let encoding = dialect::encoding(content, layout.encoding)?;
            match dialect::text_format(content, name, layout, encoding)? {
                TextFormat::JsonLines => Format::JsonLines(encoding),
                TextFormat::Json => Format::Json(encoding),
                TextFormat::Delimited => {
                    Format::Delimited(Dialect::find(content, name, layout, encoding)?)
                }
            }
        }
    };
    let mut repeats = Repeats::new(size);
    let mut sink = |found: &mut Found, _: Place| {
        let mut all = found.records.iter();
        let noted = all.try_for_each(|record| repeats.note(Repeats::hash(&record.id)));
        noted.map_err(|_| {
            spoiled("more than a million rows come more than once; name the columns that identify a row in config's \"key\"")
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
        return Err(refused("the file is empty"));
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
        let mut same_key = 0_u64;
        let mut wants_more = true;
        let mut sink = |found: &mut Found, place: Place| {
            let stream = place.stream;
            let is_keyed = !layout.key_of(Some(stream)).is_empty();
            for record in &mut found.records {
                let nth = repeats.nth(Repeats::hash(&record.id));
                if nth > 1 && is_keyed {
                    same_key += 1;
                } else if nth > 1 {
                    record.number(nth);
                }
            }
            wants_more = emit(Part {
                stream: stream.to_owned(),
                records: std::mem::take(&mut found.records),
                rejected: std::mem::take(&mut found.rejected),
                origins: place.origins,
                rows: place.rows,
                bytes: place.bytes,
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
            format!("{same_key} rows have the same key as a later row of the file; the last row with a key is stored")
        }))
    }

    /// How the file was read, for a preview.
    pub fn report(&self) -> Value {
        json!({
            "written_as": self.format.words(),
            "rows": self.rows,
            "tables": self.tables.iter().flatten().map(Table::report).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    /// How each table was read, in one line.
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

/// Ends a pass whose reader has enough; it is never shown.
fn enough() -> Failure {
    Failure::new(Code::Internal, "enough was read")
}
