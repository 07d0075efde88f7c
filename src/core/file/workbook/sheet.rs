//! A sheet: what is known of it before it is read, and how its cells become rows.

use super::super::layout::Layout;
use super::super::row::MOST_COLUMNS;
use super::spoiled;
use crate::error::Failure;

/// Regions of merged cells, and runs of hidden rows, that are remembered of a sheet. More: memory. Fewer: real sheets
/// are refused.
const MOST_REMEMBERED: usize = 200_000;
/// The same bound for all sheets of a workbook together, which may have ten thousand.
const MOST_OF_ALL: usize = 1_000_000;

/// Longest name of a sheet in bytes, many times what any program lets one have: it stands in messages.
const LONGEST_NAME: usize = 1_024;

/// Counts what is remembered of the sheets of a workbook.
#[derive(Default)]
pub struct Remembered(usize);

impl Remembered {
    /// Counts a sheet whose description is complete.
    pub fn add(&mut self, about: &About) -> Result<(), Failure> {
        self.0 += about.hidden_rows.len() + about.merged.len() + about.errors.len();
        match self.0 > MOST_OF_ALL {
            true => Err(spoiled(format!(
                "the sheets have more than {MOST_OF_ALL} merged regions or hidden rows in all"
            ))),
            false => Ok(()),
        }
    }
}

/// Most rows of a sheet, in any form.
pub const MOST_ROWS: u32 = 1_048_576;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct About {
    pub name: String,
    pub is_hidden: bool,
    /// First and last, from 0, in order.
    pub hidden_rows: Vec<(u32, u32)>,
    pub has_hidden_columns: bool,
    pub merged: Vec<Merged>,
    /// The name of a cell with a formula that has no stored value.
    pub without_value: Option<String>,
    /// Whether a cell holds something.
    pub has_cells: bool,
    /// Row and column of the cells of XLSX whose error its reader does not know, in the order of the file.
    pub errors: Vec<(u32, u32)>,
}

/// Cells from 0, all included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    pub rows: (u32, u32),
    pub columns: (u32, u32),
}

impl Merged {
    /// How many of its columns are read.
    pub fn width(self) -> usize {
        let last = self.columns.1.min(MOST_COLUMNS as u32 - 1);
        (last + 1).saturating_sub(self.columns.0) as usize
    }
}

impl About {
    /// The name of a sheet, if it is one.
    pub fn named(name: String, is_hidden: bool) -> Result<About, Failure> {
        if name.len() > LONGEST_NAME {
            return Err(spoiled(format!(
                "the name of a sheet is longer than {LONGEST_NAME} bytes"
            )));
        }
        Ok(About {
            name,
            is_hidden,
            ..About::default()
        })
    }

    /// Rows from the first to the last of them, and none that comes before those of earlier calls.
    pub fn hide_rows(&mut self, first: u32, last: u32) -> Result<(), Failure> {
        match self.hidden_rows.last_mut() {
            Some((_, before)) if before.saturating_add(1) >= first => *before = last.max(*before),
            _ => self.hidden_rows.push((first, last)),
        }
        self.check()
    }

    pub fn merge(&mut self, merged: Merged) -> Result<(), Failure> {
        self.merged.push(merged);
        self.check()
    }

    /// Notes the place of an error.
    pub fn note_error(&mut self, place: (u32, u32)) -> Result<(), Failure> {
        self.errors.push(place);
        self.check()
    }

    fn check(&self) -> Result<(), Failure> {
        let remembered = self.hidden_rows.len().max(self.merged.len());
        match remembered.max(self.errors.len()) > MOST_REMEMBERED {
            true => Err(spoiled(format!(
                "sheet \"{}\": the sheet has more than {MOST_REMEMBERED} merged regions, hidden rows or errors",
                self.name
            ))),
            false => Ok(()),
        }
    }

    pub fn is_hidden_row(&self, row: u32) -> bool {
        let before = self.hidden_rows.partition_point(|(first, _)| *first <= row);
        let run = before
            .checked_sub(1)
            .and_then(|at| self.hidden_rows.get(at));
        run.is_some_and(|(_, last)| row <= *last)
    }

    /// Notes for a person about the sheet.
    pub fn notes(&self, layout: &Layout) -> Vec<String> {
        let name = &self.name;
        let mut notes = Vec::new();
        let hidden: u64 = self
            .hidden_rows
            .iter()
            .map(|(first, last)| u64::from(last - first) + 1)
            .sum();
        if hidden > 0 && !layout.skip_hidden {
            notes.push(format!(
                "sheet \"{name}\": {hidden} hidden rows are read as well; config's \"skip_hidden\" leaves them out"
            ));
        }
        if self.has_hidden_columns {
            notes.push(format!("sheet \"{name}\": hidden columns are read as well"));
        }
        if !self.merged.is_empty() && !layout.fill_merged {
            notes.push(format!(
                "sheet \"{name}\": only the first of merged cells has their value; config's \"fill_merged\" gives it to all of them"
            ));
        }
        notes
    }
}

/// A cell as people call it, from 0: `AB12`.
pub fn name(row: u32, column: u32) -> String {
    let mut letters = Vec::new();
    let mut left = u64::from(column) + 1;
    while left > 0 {
        left -= 1;
        letters.push(char::from(b'A' + (left % 26) as u8));
        left /= 26;
    }
    letters.reverse();
    format!(
        "{}{}",
        letters.into_iter().collect::<String>(),
        u64::from(row) + 1
    )
}

/// Row and column of a cell's name, from 0.
pub fn place(name: &str) -> Option<(u32, u32)> {
    let split = name.find(|c: char| c.is_ascii_digit())?;
    let (letters, digits) = name.split_at(split);
    let column = letters.bytes().try_fold(0_u32, |column, letter| {
        let letter = u32::from(letter.to_ascii_uppercase().checked_sub(b'A')?);
        (letter < 26).then_some(())?;
        column.checked_mul(26)?.checked_add(letter + 1)
    })?;
    let row: u32 = digits.parse().ok()?;
    Some((row.checked_sub(1)?, column.checked_sub(1)?))
}
