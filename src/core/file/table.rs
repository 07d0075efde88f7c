//! A table: where its headings are, and how a row of it becomes a record.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::layout::{Header, Layout};
use super::refused;
use super::row::{Kind, Row, usual};
use super::value::{self, DateFormat, Marks, Type};
use crate::error::{Code, Failure};
use crate::record::Reason;

/// Longest heading, in bytes: it is stored with every record.
const LONGEST_HEADING: usize = 256;

/// Rows among which the headings are looked for.
pub const FIRST_ROWS: usize = 50;

/// Rows whose values tell what a column looks like.
const LOOKED_AT: u64 = 1_000;

pub struct Table {
    pub stream: String,
    pub sheet: Option<String>,
    /// The line or row of the headings; 0: there are none.
    header: u64,
    columns: Vec<Column>,
    has_key: bool,
    nulls: HashSet<String>,
    /// Rows that are no headings and not blank.
    pub rows: u64,
    pub blank: u64,
    /// What a person should know of the headings.
    pub notes: Vec<String>,
}

struct Column {
    name: String,
    /// `"name":`
    json: Vec<u8>,
    declared: Option<Type>,
    is_key: bool,
    looks: Looks,
}

/// Why a row is no record.
pub type Unfit = (Reason, String);

impl Table {
    /// Finds the headings among the first rows.
    pub fn find(
        stream: &str,
        sheet: Option<&str>,
        first: &[Row],
        layout: &Layout,
    ) -> Result<Table, Failure> {
        let (header, names) = headings(first, layout)?;
        let mut notes = Vec::new();
        let mut columns: Vec<Column> = Vec::new();
        let mut taken = Taken::default();
        for (position, name) in names.iter().enumerate() {
            let name = taken.distinct(name, position, &mut notes)?;
            let declared = layout.columns.iter().find(|(column, _)| *column == name);
            let mut json = Vec::new();
            value::write_text(&name, &mut json);
            json.push(b':');
            columns.push(Column {
                json,
                declared: declared.map(|(_, declared)| declared.clone()),
                is_key: false,
                looks: Looks::default(),
                name,
            });
        }
        let known = |name: &str| columns.iter().position(|column| column.name == name);
        let absent = |name: &str, of: &str| {
            let there: Vec<&str> = columns.iter().take(30).map(|c| c.name.as_str()).collect();
            Failure::new(
                Code::InvalidConfig,
                format!(
                    "config's \"{of}\" names the column \"{name}\", which is not in the file; there are {}",
                    there.join(", ")
                ),
            )
        };
        let key = layout
            .key
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
            rows: 0,
            blank: 0,
            notes,
        })
    }

    /// Whether a row is one of the table's, and no heading or what stands above it.
    pub fn is_below(&self, row: &Row) -> bool {
        row.number > self.header
    }

    /// In the first pass.
    pub fn look(&mut self, row: &Row) {
        if row.is_blank() {
            self.blank += 1;
            return;
        }
        self.rows += 1;
        if self.rows <= LOOKED_AT {
            for (column, (kind, text)) in self.columns.iter_mut().zip(row.iter()) {
                column.looks.take(kind, text);
            }
        }
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
                let why = format!("{cells} cells where there are {headings} headings");
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
            return Err((
                Reason::KeyMissing,
                "nothing in the columns of the key".to_owned(),
            ));
        }
        Ok(())
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
        self.notes.iter().cloned().chain(looks).collect()
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

    /// In one line.
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
    fn refusal(&self, text: &str) -> String {
        let shown: String = text.chars().take(40).collect();
        let declared = match &self.declared {
            Some(Type::Number(marks)) => {
                let thousands = marks
                    .thousands
                    .map(|mark| format!(" and \"{mark}\" between thousands"));
                format!(
                    "a number with the decimal mark \"{}\"{}",
                    marks.decimal,
                    thousands.unwrap_or_default()
                )
            }
            Some(Type::Date(format)) => format!("a date written {}", format.declared),
            Some(Type::Timestamp(format)) => format!("a timestamp written {}", format.declared),
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

/// The names that columns have by now.
#[derive(Default)]
struct Taken {
    names: HashSet<String>,
    /// Of a heading that was there before: the number that was tried last. Two thousand equal ones would otherwise be
    /// compared with each other again and again.
    tried: HashMap<String, usize>,
}

impl Taken {
    /// A heading as the key of a record: not empty, and not there twice.
    fn distinct(
        &mut self,
        name: &str,
        position: usize,
        notes: &mut Vec<String>,
    ) -> Result<String, Failure> {
        let name = name.trim();
        if name.len() > LONGEST_HEADING {
            let column = position + 1;
            return Err(refused(format!(
                "column {column}: a heading of more than {LONGEST_HEADING} bytes; config's \"header\" says in which row they are"
            )));
        }
        let wished = match name {
            "" => format!("column_{}", position + 1),
            name => name.to_owned(),
        };
        let mut chosen = wished.clone();
        if self.names.contains(&chosen) {
            let nth = self.tried.entry(wished.clone()).or_insert(1);
            while self.names.contains(&chosen) {
                *nth += 1;
                chosen = format!("{wished}_{nth}");
            }
        }
        self.names.insert(chosen.clone());
        if chosen != name {
            let what = match name {
                "" => "has no heading".to_owned(),
                name => format!("has the heading \"{name}\" of another"),
            };
            notes.push(format!(
                "column {} {what}, and is called \"{chosen}\"",
                position + 1
            ));
        }
        Ok(chosen)
    }
}

/// Where the headings are (0: nowhere), and what they are.
fn headings(first: &[Row], layout: &Layout) -> Result<(u64, Vec<String>), Failure> {
    let texts = |row: &Row| {
        row.iter()
            .map(|(_, text)| text.to_owned())
            .collect::<Vec<_>>()
    };
    let widest = first.iter().map(Row::width).max().unwrap_or(0);
    let row = match layout.header {
        Header::None if layout.headings.is_empty() => {
            return Ok((0, vec![String::new(); widest]));
        }
        Header::None => return Ok((0, layout.headings.clone())),
        Header::At(number) => {
            let found = first
                .iter()
                .find(|row| row.number == number && !row.is_blank());
            found.ok_or_else(|| {
                Failure::new(
                    Code::InvalidConfig,
                    format!("config's \"header\" says that the headings are in row {number}, where nothing is"),
                )
            })?
        }
        Header::Found => find_header(first, layout)?,
    };
    let names = match layout.headings.is_empty() {
        true => texts(row),
        false => layout.headings.clone(),
    };
    Ok((row.number, names))
}

fn find_header<'a>(first: &'a [Row], layout: &Layout) -> Result<&'a Row, Failure> {
    let declared: Vec<&String> = layout
        .key
        .iter()
        .chain(layout.columns.iter().map(|(name, _)| name))
        .collect();
    let has = |row: &Row, name: &str| row.iter().any(|(_, text)| text.trim() == name);
    let named = first
        .iter()
        .find(|row| declared.iter().all(|name| has(row, name)));
    if let Some(row) = named.filter(|_| !declared.is_empty() && layout.headings.is_empty()) {
        return Ok(row);
    }
    let filled = first.iter().filter(|row| !row.is_blank());
    let (width, _) = usual(filled.clone().map(Row::width));
    // What stands above the headings (a title, a date) fills few cells.
    let is_header = |row: &&Row| {
        let (cells, filled) = (row.width(), row.filled());
        let is_index = filled + 1 == cells
            && row
                .iter()
                .next()
                .is_some_and(|(_, text)| text.trim().is_empty());
        cells >= width && (filled * 2 > cells || is_index)
    };
    let found = filled
        .clone()
        .find(is_header)
        .or_else(|| filled.clone().next());
    found.ok_or_else(|| refused("there is nothing in it"))
}

/// What the values of a column look like.
#[derive(Default)]
struct Looks {
    examples: Vec<String>,
    seen: u64,
    /// Whether every value so far is plain, and needs no declaration.
    is_plain: bool,
    numbers: Vec<Marks>,
    dates: Vec<&'static str>,
}

const EXAMPLES: usize = 3;

const MARKS: [(char, char); 5] = [(',', '.'), ('.', ','), (',', ' '), ('.', '\''), ('.', ' ')];

const DATES: [&str; 12] = [
    "DD.MM.YYYY",
    "DD/MM/YYYY",
    "MM/DD/YYYY",
    "DD-MM-YYYY",
    "MM-DD-YYYY",
    "YYYY/MM/DD",
    "DD.MM.YYYY HH24:MI",
    "DD.MM.YYYY HH24:MI:SS",
    "DD/MM/YYYY HH24:MI",
    "MM/DD/YYYY HH24:MI",
    "DD/MM/YYYY HH24:MI:SS",
    "MM/DD/YYYY HH24:MI:SS",
];

impl Looks {
    fn take(&mut self, kind: Kind, text: &str) {
        let text = text.trim();
        if kind != Kind::Text || text.is_empty() {
            return;
        }
        if self.examples.len() < EXAMPLES {
            let example: String = text.chars().take(60).collect();
            if !self.examples.contains(&example) {
                self.examples.push(example);
            }
        }
        if self.seen == 0 {
            self.is_plain = true;
            let marks = |(decimal, thousands)| Marks {
                decimal,
                thousands: Some(thousands),
            };
            self.numbers = MARKS.map(marks).to_vec();
            self.dates = DATES.to_vec();
        }
        self.seen += 1;
        let plain = Marks {
            decimal: '.',
            thousands: None,
        };
        self.is_plain &= value::number(text, plain).as_deref() == Some(text);
        self.numbers
            .retain(|marks| value::number(text, *marks).is_some());
        self.dates.retain(|format| {
            let format = DateFormat::new(format).map(Type::Date);
            value::write(Kind::Text, text, format.as_ref(), &mut Vec::new())
        });
    }

    fn note(&self) -> Option<String> {
        let example = self.examples.first()?;
        let quoted = |marks: &Marks| {
            let thousands = marks.thousands.unwrap_or(' ');
            format!(
                "{{\"type\": \"number\", \"decimal\": \"{}\", \"thousands\": \"{thousands}\"}}",
                marks.decimal
            )
        };
        match (self.numbers.as_slice(), self.dates.as_slice()) {
            _ if self.is_plain => None,
            ([marks, ..], _) => Some(format!(
                "looks like numbers, such as \"{example}\", and is read as text; in config's \"columns\", {} would read it",
                quoted(marks)
            )),
            ([], [format]) => Some(format!(
                "looks like dates, such as \"{example}\", and is read as text; in config's \"columns\", {{\"type\": \"date\", \"format\": \"{format}\"}} would read it"
            )),
            ([], [one, other, ..]) => Some(format!(
                "looks like dates, such as \"{example}\", which may be {one} or {other}, and is read as text; say which in config's \"columns\""
            )),
            ([], []) => None,
        }
    }
}
