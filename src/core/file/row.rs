//! A row of a table, in any file format.

use super::spoiled;
use crate::error::Failure;

/// Most columns of a table. More: a row of nothing but delimiters costs a hundred times its size. Fewer: real exports
/// of hundreds of columns are refused.
pub const MOST_COLUMNS: usize = 2_000;

pub fn too_wide(row: u64, cells: usize) -> Failure {
    spoiled(format!(
        "row {row}: the row has {cells} cells; at most {MOST_COLUMNS} are read"
    ))
}

/// The type of a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Empty,
    Text,
    /// A plain decimal number.
    Number,
    /// `2026-03-04`, `2026-03-04T05:06:07` or a time.
    Date,
    /// `true` or `false`.
    Truth,
    /// An error value, such as `#N/A`.
    Error,
}

/// Cells with their texts behind one another: one allocation for many rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The line or the row of the sheet, from 1.
    pub number: u64,
    /// Whether it is longer than a record may be, and this is its beginning in one cell.
    pub is_cut: bool,
    text: String,
    cells: Vec<(usize, Kind)>,
}

impl Row {
    pub fn clear(&mut self, number: u64) {
        self.number = number;
        self.is_cut = false;
        self.text.clear();
        self.cells.clear();
    }

    pub fn push(&mut self, kind: Kind, text: &str) {
        self.text.push_str(text);
        self.cells.push((self.text.len(), kind));
    }

    /// Adds empty cells up to this many.
    pub fn pad(&mut self, cells: usize) {
        let end = (self.text.len(), Kind::Empty);
        self.cells.resize(self.cells.len().max(cells), end);
    }

    pub fn width(&self) -> usize {
        self.cells.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Kind, &str)> {
        let mut start = 0;
        self.cells.iter().map(move |(end, kind)| {
            let text = self.text.get(start..*end).unwrap_or_default();
            start = *end;
            (*kind, text)
        })
    }

    pub fn is_blank(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// How many cells there are up to the last one that holds something.
    pub fn extent(&self) -> usize {
        let filled = self
            .iter()
            .enumerate()
            .filter(|(_, (_, text))| !text.trim().is_empty());
        filled.last().map_or(0, |(at, _)| at + 1)
    }

    /// How many cells hold something.
    pub fn filled(&self) -> usize {
        self.iter()
            .filter(|(_, text)| !text.trim().is_empty())
            .count()
    }

    /// Roughly how much memory the row takes.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.cells.len() * size_of::<(usize, Kind)>()
    }
}

/// What most of the numbers are (the greatest of several), and their share.
pub fn usual(numbers: impl Iterator<Item = usize>) -> (usize, f64) {
    let mut counts = std::collections::BTreeMap::new();
    let mut all = 0_u32;
    for number in numbers {
        *counts.entry(number).or_insert(0_u32) += 1;
        all += 1;
    }
    let most = counts
        .iter()
        .max_by_key(|(number, count)| (**count, **number));
    most.map_or((0, 0.0), |(number, count)| {
        (*number, f64::from(*count) / f64::from(all))
    })
}
