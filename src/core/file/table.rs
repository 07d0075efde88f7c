//! A table: where its headings are, and how a row of it becomes a record.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::beside::beside;
use super::headings::{Taken, headings};
use super::layout::{Family, Layout};
use super::looks::Looks;
use super::row::{MOST_COLUMNS, Row};
use super::value::{self, Type};
use crate::error::{Code, Failure};
use crate::record::Reason;

/// How many rows are inspected to see what a column looks like.
const LOOKED_AT: u64 = 1_000;

pub struct Table {
    pub stream: String,
    pub sheet: Option<String>,
    /// The line or row of the headings; 0: there are none.
    header: u64,
    columns: Vec<Column>,
    has_key: bool,
    nulls: HashSet<String>,
    /// The names that columns have, and whether a cell beside the table becomes a column of its own.
    taken: Taken,
    grows: bool,
    /// The row that rows with its key and fewer cells go on with.
    head: Head,
    /// How many rows only go on with the one above them.
    pub continued: u64,
    /// Rows that are neither headings nor blank.
    pub rows: u64,
    pub blank: u64,
    /// Notes for a person about the headings.
    pub notes: Vec<String>,
}

/// A row that may go on in the rows below it.
#[derive(Default)]
struct Head {
    key: Vec<String>,
    filled: Vec<bool>,
}

struct Column {
    name: String,
    /// `"name":`
    json: Vec<u8>,
    declared: Option<Type>,
    is_key: bool,
    looks: Looks,
}

/// Why a row does not become a record.
pub type Unfit = (Reason, String);

impl Table {
    /// Finds the headings among the first rows.
    pub fn find(
        stream: &str,
        sheet: Option<&str>,
        first: &[Row],
        layout: &Layout,
    ) -> Result<Table, Failure> {
        let (header, mut names) = headings(first, layout)?;
        let mut notes = Vec::new();
        if layout.family == Family::Text && layout.headings.is_empty() && header > 0 {
            beside(first, header, &mut names, &mut notes)?;
        }
        let mut columns: Vec<Column> = Vec::new();
        let mut taken = Taken::default();
        for (position, name) in names.iter().enumerate() {
            let name = taken.distinct(name, position, &mut notes)?;
            let declared = layout.columns.iter().find(|(column, _)| *column == name);
            columns.push(Column::new(
                name,
                declared.map(|(_, declared)| declared.clone()),
            ));
        }
        let known = |name: &str| columns.iter().position(|column| column.name == name);
        let absent = |name: &str, of: &str| {
            let there: Vec<&str> = columns.iter().take(30).map(|c| c.name.as_str()).collect();
            Failure::new(
                Code::InvalidConfig,
                format!(
                    "config's \"{of}\" names the column \"{name}\", which is not in the file; the columns are {}",
                    there.join(", ")
                ),
            )
        };
        let key = layout
            .key_of(sheet)
            .iter()
            .map(|name| known(name).ok_or_else(|| absent(name, "key")));
        let key = key.collect::<Result<Vec<_>, _>>()?;
        // Of several sheets, each may have its own.
        let must_be_here = layout.sheets.len() < 2;
        for (name, _) in layout.columns.iter().filter(|_| must_be_here) {
            known(name).ok_or_else(|| absent(name, "columns"))?;
        }
        for at in &key {
            if let Some(column) = columns.get_mut(*at) {
                column.is_key = true;
            }
        }
        Ok(Table {
            stream: stream.to_owned(),
            sheet: sheet.map(str::to_owned),
            header,
            columns,
            has_key: !key.is_empty(),
            nulls: layout.nulls.iter().cloned().collect(),
            taken,
            // In a sheet no cell is shifted by another one.
            grows: layout.family == Family::Workbook && layout.headings.is_empty(),
            head: Head::default(),
            continued: 0,
            rows: 0,
            blank: 0,
            notes,
        })
    }

    /// Whether a row is below the headings.
    pub fn is_below(&self, row: &Row) -> bool {
        row.number > self.header
    }

    /// Notes what a row of the first pass looks like.
    pub fn inspect(&mut self, row: &Row) {
        if row.is_blank() {
            self.blank += 1;
            return;
        }
        self.rows += 1;
        if row.is_cut {
            return;
        }
        while self.grows && self.columns.len() < row.extent().min(MOST_COLUMNS) {
            let position = self.columns.len();
            let Ok(name) = self.taken.distinct("", position, &mut self.notes) else {
                break;
            };
            self.columns.push(Column::new(name, None));
        }
        if self.rows <= LOOKED_AT {
            for (column, (kind, text)) in self.columns.iter_mut().zip(row.iter()) {
                column.looks.take(kind, text);
            }
        }
    }

    /// Begins another pass over the rows.
    pub fn begin(&mut self) {
        self.head = Head::default();
    }

    /// Whether a row only goes on with the one above it: it has the same key, and nothing where that one has nothing, and
    /// some of its cells are empty. Shops write the further items of an order in this way, with the totals left out.
    pub fn continues(&mut self, row: &Row) -> bool {
        if !self.has_key {
            return false;
        }
        let cells = || self.columns.iter().zip(row.iter());
        let keys = || {
            cells()
                .filter(|(column, _)| column.is_key)
                .map(|(_, (_, text))| text.trim())
        };
        let is_filled = |(_, text): (_, &str)| !text.trim().is_empty();
        if self.head.key.iter().map(String::as_str).eq(keys())
            && keys().any(|text| !text.is_empty())
        {
            let (mut is_within, mut is_less) = (true, self.head.filled.len() > row.width());
            for (at, cell) in row.iter().enumerate() {
                let was_filled = self.head.filled.get(at).copied().unwrap_or(false);
                is_within &= was_filled || !is_filled(cell);
                is_less |= was_filled && !is_filled(cell);
            }
            if is_within && is_less {
                return true;
            }
        }
        let key = keys().map(str::to_owned).collect();
        let mut filled: Vec<bool> = row.iter().map(is_filled).collect();
        filled.truncate(row.extent());
        self.head = Head { key, filled };
        false
    }

    /// Writes a row as a JSON object.
    pub fn write(&self, row: &Row, out: &mut Vec<u8>) -> Result<(), Unfit> {
        let start = out.len();
        out.push(b'{');
        let mut columns = self.columns.iter();
        let mut is_keyless = self.has_key;
        for (position, (kind, text)) in row.iter().enumerate() {
            let Some(column) = columns.next() else {
                if text.trim().is_empty() {
                    continue;
                }
                let (cells, headings) = (row.width(), self.columns.len());
                let why = format!("the row has {cells} cells, but there are {headings} headings");
                return Err((Reason::TooManyCells, why));
            };
            if position > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&column.json);
            is_keyless &= !column.is_key || text.trim().is_empty();
            if self.nulls.contains(text) {
                out.extend_from_slice(b"null");
            } else if !value::write(kind, text, column.declared.as_ref(), out) {
                let why = column.refusal(text);
                return Err((Reason::UnreadableValue, why));
            }
        }
        out.push(b'}');
        if is_keyless {
            out.truncate(start);
            return Err((Reason::KeyMissing, "the key columns are empty".to_owned()));
        }
        Ok(())
    }

    /// The columns of the key as a JSON object, of a row that is refused. `None`: there is no key, or it cannot be read
    /// either.
    pub fn write_key(&self, row: &Row) -> Option<Vec<u8>> {
        let mut object = vec![b'{'];
        for (column, (kind, text)) in self.columns.iter().zip(row.iter()) {
            if !column.is_key {
                continue;
            }
            if object.len() > 1 {
                object.push(b',');
            }
            object.extend_from_slice(&column.json);
            if self.nulls.contains(text) {
                object.extend_from_slice(b"null");
            } else if !value::write(kind, text, column.declared.as_ref(), &mut object) {
                return None;
            }
        }
        object.push(b'}');
        (self.has_key && object.len() > 2).then_some(object)
    }

    /// What a person should know: which headings were made up, and which columns look like what they are not declared
    /// to be.
    pub fn all_notes(&self) -> Vec<String> {
        let looks = self
            .columns
            .iter()
            .filter(|column| column.declared.is_none());
        let looks = looks.filter_map(|column| {
            let note = column.looks.note()?;
            Some(format!("column \"{}\" {note}", column.name))
        });
        let continued = (self.continued > 0).then(|| {
            format!(
                "{} rows have the key of the row above them and leave some of its cells empty; each is taken for a part of that row and is not stored. To store each of them, name another column in config's \"key\", too",
                self.continued
            )
        });
        self.notes
            .iter()
            .cloned()
            .chain(looks)
            .chain(continued)
            .collect()
    }

    pub fn report(&self) -> Value {
        let columns = self.columns.iter().map(|column| {
            json!({
                "name": column.name,
                "read_as": column.declared.as_ref().map_or("as it is", Type::word),
                "examples": column.looks.examples,
                "note": column.declared.is_none().then(|| column.looks.note()).flatten(),
            })
        });
        json!({
            "stream": self.stream,
            "sheet": self.sheet,
            "headings_in_row": (self.header > 0).then_some(self.header),
            "rows": self.rows,
            "blank_rows": self.blank,
            "columns": columns.collect::<Vec<_>>(),
        })
    }

    /// Says in one line how the table was read.
    pub fn summary(&self) -> String {
        let names: Vec<&str> = self
            .columns
            .iter()
            .take(20)
            .map(|c| c.name.as_str())
            .collect();
        let place = match self.header {
            0 => "no headings in the file".to_owned(),
            row => format!("headings in row {row}"),
        };
        let more = if self.columns.len() > 20 { ", ..." } else { "" };
        format!("{place}: {}{more}; {} rows", names.join(", "), self.rows)
    }
}

impl Column {
    fn new(name: String, declared: Option<Type>) -> Column {
        let mut json = Vec::new();
        value::write_text(&name, &mut json);
        json.push(b':');
        Column {
            name,
            json,
            declared,
            is_key: false,
            looks: Looks::default(),
        }
    }

    fn refusal(&self, text: &str) -> String {
        let shown: String = text.chars().take(40).collect();
        let declared = match &self.declared {
            Some(Type::Number(marks)) => {
                let thousands = marks
                    .thousands
                    .map(|mark| format!(" and the thousands separator \"{mark}\""));
                format!(
                    "a number with the decimal separator \"{}\"{}",
                    marks.decimal,
                    thousands.unwrap_or_default()
                )
            }
            Some(Type::Date(format)) => format!("a date of the format {}", format.declared),
            Some(Type::Timestamp(format)) => {
                format!("a timestamp of the format {}", format.declared)
            }
            _ => "true or false".to_owned(),
        };
        format!("column \"{}\": \"{shown}\" is not {declared}", self.name)
    }
}

impl Type {
    pub fn word(&self) -> &'static str {
        match self {
            Type::Text => "text",
            Type::Number(_) => "number",
            Type::Date(_) => "date",
            Type::Timestamp(_) => "timestamp",
            Type::Truth => "boolean",
        }
    }
}
