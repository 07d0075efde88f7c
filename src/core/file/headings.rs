//! Where the headings of a table are, and how its columns are named after them.

use std::collections::{HashMap, HashSet};

use super::layout::{Header, Layout};
use super::refused;
use super::row::{Row, usual};
use crate::error::{Code, Failure};

/// Longest heading, in bytes: it is stored with every record.
const LONGEST_HEADING: usize = 256;

/// Rows among which the headings are looked for.
pub const FIRST_ROWS: usize = 50;

/// The names that columns have by now.
#[derive(Default)]
pub struct Taken {
    names: HashSet<String>,
    /// The number that was tried last for a heading that was there before. Two thousand equal ones would otherwise be
    /// compared with each other again and again.
    tried: HashMap<String, usize>,
}

impl Taken {
    /// A heading as the key of a record: not empty, and not there twice.
    pub fn distinct(
        &mut self,
        name: &str,
        position: usize,
        notes: &mut Vec<String>,
    ) -> Result<String, Failure> {
        let name = name.trim();
        if name.len() > LONGEST_HEADING {
            let column = position + 1;
            return Err(refused(format!(
                "column {column}: the heading is longer than {LONGEST_HEADING} bytes; set config's \"header\" to the row of the headings"
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
                name => format!("has the same heading \"{name}\" as another column"),
            };
            notes.push(format!(
                "column {} {what}; it is called \"{chosen}\"",
                position + 1
            ));
        }
        Ok(chosen)
    }
}

/// Where the headings are (0: nowhere), and what they are.
pub fn headings(first: &[Row], layout: &Layout) -> Result<(u64, Vec<String>), Failure> {
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
                    format!("config's \"header\" is {number}, but row {number} is empty"),
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
    found.ok_or_else(|| refused("the file is empty"))
}
