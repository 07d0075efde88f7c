//! Where the headings of a table are, and how its columns are named after them.

use std::collections::{HashMap, HashSet};

use super::layout::{Header, Layout};
use super::refused;
use super::row::{Kind, Row};
use crate::error::{Code, Failure};
use crate::money::undress;

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

/// What the text of a cell is, as far as headings are told from what is below them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Blank,
    Label,
    /// A number of four digits that may be a year: a heading of some tables, and a value of others.
    Year,
    Number,
    Day,
}

/// Share of the values of a column, in percent, that are of one kind where it has one. Totals and notes are others.
const MOST_ARE: usize = 60;
/// Longest text that is taken for a number or a day. A longer one is not taken apart.
const LONGEST_VALUE: usize = 60;

impl Class {
    fn of(kind: Kind, text: &str) -> Class {
        let text = text.trim();
        match kind {
            _ if text.is_empty() => Class::Blank,
            _ if text.len() > LONGEST_VALUE => Class::Label,
            Kind::Number if !is_year(text) => Class::Number,
            Kind::Date => Class::Day,
            Kind::Truth | Kind::Error => Class::Number,
            _ if is_year(text) => Class::Year,
            _ if !text.bytes().any(|byte| byte.is_ascii_digit()) => Class::Label,
            _ if is_day(text) => Class::Day,
            _ if is_number(text) => Class::Number,
            _ => Class::Label,
        }
    }

    fn is_value(self) -> bool {
        matches!(self, Class::Year | Class::Number | Class::Day)
    }

    /// Years beside other numbers are numbers.
    fn kind(self) -> Class {
        match self {
            Class::Year => Class::Number,
            other => other,
        }
    }
}

/// Whether a text looks like a number or a day.
pub fn is_value(text: &str) -> bool {
    Class::of(Kind::Text, text).is_value()
}

fn is_year(text: &str) -> bool {
    text.len() == 4
        && text
            .parse()
            .is_ok_and(|year: u16| (1900..2100).contains(&year))
}

/// Digits with marks, and what may stand around an amount.
fn is_number(text: &str) -> bool {
    let dressed = undress(text);
    dressed.is_some_and(|dressed| {
        let is_mark = |c: char| matches!(c, '.' | ',' | '\'' | '\u{2019}') || c.is_whitespace();
        dressed
            .digits
            .chars()
            .all(|c| c.is_ascii_digit() || is_mark(c))
    })
}

/// Two or three groups of digits with the marks of days between them, and perhaps a time behind them.
fn is_day(text: &str) -> bool {
    let day = text.split([' ', 'T']).next().unwrap_or_default();
    let parts: Vec<&str> = day.trim_end_matches('.').split(['.', '/', '-']).collect();
    let is_part = |part: &&str| {
        (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
            || part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_alphabetic())
    };
    parts.len() == 3 && parts.iter().all(is_part)
}

/// Where the headings of some rows seem to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guess {
    /// Position among the rows.
    at: usize,
    /// Columns of numbers or days that have a heading.
    columns: Vec<usize>,
    /// Different words.
    labels: usize,
}

impl Guess {
    pub fn typed(&self) -> usize {
        self.columns.len()
    }

    fn rank(&self) -> (usize, usize) {
        (self.columns.len(), self.labels)
    }
}

/// Finds the row of words that stands above the most columns of numbers or days. What is above it, a title or the
/// address of a bank, stands above few. `None`: no row stands above any.
pub fn guess(rows: &[Row]) -> Option<Guess> {
    let classes: Vec<Vec<Class>> = rows
        .iter()
        .map(|row| match row.is_cut {
            true => Vec::new(),
            false => row
                .iter()
                .map(|(kind, text)| Class::of(kind, text))
                .collect(),
        })
        .collect();
    let is_filled = |row: &[Class]| row.iter().any(|class| *class != Class::Blank);
    let is_value = |class: &Class| matches!(class, Class::Number | Class::Day);
    // `Account:` begins a line about the file.
    let is_remark = |row: &Row| {
        let first = row
            .iter()
            .map(|(_, text)| text.trim())
            .find(|text| !text.is_empty());
        first.is_some_and(|text| text.ends_with(':'))
    };
    // Numbers and days of each column in the rows from one on; counted from the last row.
    let width = classes.iter().map(Vec::len).max().unwrap_or(0);
    let mut below = vec![[0_usize; 3]; width];
    let mut best: Option<Guess> = None;
    let mut has_values_between = false;
    for (at, (row, cells)) in rows.iter().zip(&classes).enumerate().rev() {
        if is_filled(cells) && !cells.iter().any(is_value) && !is_remark(row) {
            let mut words = HashSet::new();
            let mut columns = Vec::new();
            for (column, (cell, ((_, text), counts))) in
                cells.iter().zip(row.iter().zip(&below)).enumerate()
            {
                let is_new = *cell != Class::Blank && words.insert(text.trim());
                let [filled, numbers, days] = *counts;
                let most = numbers.max(days);
                if is_new && most > 0 && most * 100 >= filled * MOST_ARE {
                    columns.push(column);
                }
            }
            let found = Guess {
                at,
                columns,
                // The heading of an index is often empty.
                labels: words.len() + usize::from(cells.first() == Some(&Class::Blank)),
            };
            // Of equal ones the first: a later one is a row without its numbers. But a line about the file has no rows of the
            // table between it and the headings.
            let is_better = best.as_ref().is_none_or(|best| {
                let is_narrow = found.labels == 1 || found.typed() > 1;
                let is_about_the_file = is_narrow && !has_values_between;
                found.rank() > best.rank() || found.rank() == best.rank() && !is_about_the_file
            });
            if found.typed() > 0 && is_better {
                best = Some(found);
                has_values_between = false;
            }
        }
        if let Some(best) = best.as_ref().filter(|best| best.at != at) {
            let has = |column: &usize| cells.get(*column).is_some_and(|class| class.is_value());
            has_values_between |= best.columns.iter().all(has);
        }
        for (cell, counts) in cells.iter().zip(&mut below) {
            counts[0] += usize::from(*cell != Class::Blank);
            counts[1] += usize::from(cell.kind() == Class::Number);
            counts[2] += usize::from(*cell == Class::Day);
        }
    }
    best
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
    if let Some(row) = guess(first).and_then(|guess| first.get(guess.at)) {
        return Ok(row);
    }
    let filled = first.iter().filter(|row| !row.is_blank() && !row.is_cut);
    let width = table_width(filled.clone().map(Row::extent));
    // What stands above the headings (a title, a date) fills few cells, or says one thing in all of them.
    let is_header = |row: &&Row| {
        let (cells, filled) = (row.extent(), row.filled());
        let is_index = filled + 1 == cells
            && row
                .iter()
                .next()
                .is_some_and(|(_, text)| text.trim().is_empty());
        let words: HashSet<&str> = row.iter().map(|(_, text)| text.trim()).collect();
        let is_title = filled > 1 && words.iter().filter(|word| !word.is_empty()).count() == 1;
        cells >= width && (filled * 2 > cells || is_index) && !is_title
    };
    // One cell more than headings in all rows below them: a name of each row, a note, or nothing.
    let is_short =
        |row: &&Row| row.extent() > 1 && row.extent() + 1 == width && row.filled() == row.extent();
    let found = filled
        .clone()
        .next()
        .filter(is_short)
        .or_else(|| filled.clone().find(is_header))
        .or_else(|| filled.clone().next());
    found.ok_or_else(|| refused("the file is empty"))
}

/// How wide the table among some rows is: what is above it may have more rows, but has fewer cells.
fn table_width(extents: impl Iterator<Item = usize>) -> usize {
    let mut counts = std::collections::BTreeMap::new();
    for extent in extents {
        *counts.entry(extent).or_insert(0_usize) += 1;
    }
    let area = |(extent, count): &(&usize, &usize)| **count * **extent * **extent;
    counts
        .iter()
        .max_by_key(area)
        .map_or(0, |(extent, _)| *extent)
}
