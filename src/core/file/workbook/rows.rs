//! Makes rows of cells as they come, within the bounds of a workbook.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use calamine::{ExcelDateTime, ExcelDateTimeType};

use super::super::layout::Layout;
use super::super::row::{Kind, MOST_COLUMNS, Row};
use super::super::value;
use super::sheet::{About, MOST_ROWS, Merged, name};
use super::spoiled;
use crate::error::Failure;

/// How many cells may be made of counts and of merged regions. More: a file of a few bytes keeps the worker for hours.
const MOST_MADE: u64 = 5_000_000;
/// What the cells of a workbook may come to as text, where each of them may name the same long text. A sheet of a
/// million rows and a hundred columns of short texts has 2 GB. More: a small file keeps the worker for hours. Fewer:
/// such a sheet is refused.
const MOST_GIVEN: u64 = 2 * 1024 * 1024 * 1024;

/// Bytes of XML that may be gone through for all sheets of an ODS, whose sheets are only found by reading what stands
/// before them. More: two thousand sheets are looked for in two gigabytes. Fewer: a large workbook of thirty sheets is
/// refused.
const MOST_WALKED: u64 = 16 * 1024 * 1024 * 1024;

/// How much the cells of a workbook may still add up to.
pub struct Budget {
    made: u64,
    given: u64,
    walked: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            made: MOST_MADE,
            given: MOST_GIVEN,
            walked: MOST_WALKED,
        }
    }
}

impl Budget {
    /// Counts cells that come from a repeat count or a merged region.
    pub fn make(&mut self, cells: u64) -> Result<(), Failure> {
        let left = self.made.checked_sub(cells);
        self.made = left.ok_or_else(|| {
            spoiled(format!(
                "the workbook has more than {MOST_MADE} repeated or merged cells"
            ))
        })?;
        Ok(())
    }

    fn give(&mut self, text: &str) -> Result<(), Failure> {
        let left = self.given.checked_sub(text.len() as u64);
        self.given = left.ok_or_else(|| {
            let most = MOST_GIVEN / 1024 / 1024;
            spoiled(format!("the cells have more than {most} MB in all"))
        })?;
        Ok(())
    }
}

/// Makes rows of cells. The cells come in the order of rows.
pub struct Rows<'a> {
    about: &'a About,
    /// Regions by their first row, where they are filled.
    merged: BTreeMap<u32, Vec<Merged>>,
    /// Those that reach into the row at hand, with their value, and how many columns they have together.
    active: Vec<(Merged, Kind, String)>,
    covered: usize,
    budget: &'a mut Budget,
    skip_hidden: bool,
    longest: usize,
    at: u32,
    cells: BTreeMap<u32, (Kind, String)>,
    bytes: usize,
    row: Row,
    visit: &'a mut dyn FnMut(&Row) -> Result<bool, Failure>,
    pub is_over: bool,
}

impl<'a> Rows<'a> {
    pub fn new(
        about: &'a About,
        layout: &Layout,
        longest: usize,
        budget: &'a mut Budget,
        visit: &'a mut dyn FnMut(&Row) -> Result<bool, Failure>,
    ) -> Rows<'a> {
        let mut merged: BTreeMap<u32, Vec<Merged>> = BTreeMap::new();
        if layout.fill_merged {
            for region in &about.merged {
                merged.entry(region.rows.0).or_default().push(*region);
            }
        }
        Rows {
            about,
            merged,
            active: Vec::new(),
            covered: 0,
            budget,
            skip_hidden: layout.skip_hidden,
            longest,
            at: 0,
            cells: BTreeMap::new(),
            bytes: 0,
            row: Row::default(),
            visit,
            is_over: false,
        }
    }

    /// Adds a cell; row and column count from 0.
    pub fn cell(&mut self, row: u32, column: u32, kind: Kind, text: &str) -> Result<(), Failure> {
        let place = || format!("sheet \"{}\", cell {}", self.about.name, name(row, column));
        if row < self.at || row >= MOST_ROWS {
            return Err(super::refused(format!(
                "{}: the cell is at an impossible place",
                place()
            )));
        }
        if kind == Kind::Empty || text.is_empty() {
            return Ok(());
        }
        if column as usize >= MOST_COLUMNS {
            return Err(spoiled(format!(
                "{}: at most {MOST_COLUMNS} columns are read",
                place()
            )));
        }
        if row > self.at {
            self.finish()?;
            self.at = row;
        }
        self.bytes += text.len();
        if self.bytes > self.longest {
            return Err(spoiled(format!(
                "{}: the row is longer than {} bytes",
                place(),
                self.longest
            )));
        }
        self.budget.give(text)?;
        self.cells.insert(column, (kind, text.to_owned()));
        Ok(())
    }

    /// Counts the bytes that were read to find the sheet.
    pub fn walked(&mut self, bytes: u64) -> Result<(), Failure> {
        let left = self.budget.walked.checked_sub(bytes);
        self.budget.walked = left.ok_or_else(|| {
            spoiled("the workbook is too large to read so many sheets; name fewer in config's \"sheets\"")
        })?;
        Ok(())
    }

    /// Counts cells that come from a repeat count.
    pub fn make(&mut self, cells: u64) -> Result<(), Failure> {
        self.budget.make(cells)
    }

    /// A number, or the date that it stands for.
    pub fn number(&mut self, row: u32, column: u32, number: f64) -> Result<(), Failure> {
        match value::of_double(number) {
            Some(text) => self.cell(row, column, Kind::Number, &text),
            None => self.cell(row, column, Kind::Error, "#NUM!"),
        }
    }

    /// A count of days since the workbook's epoch.
    pub fn date(&mut self, row: u32, column: u32, date: ExcelDateTime) -> Result<(), Failure> {
        self.cell(row, column, Kind::Date, &of_date(date))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.fill()?;
        self.bytes = 0;
        let cells = std::mem::take(&mut self.cells);
        let is_left_out = self.skip_hidden && self.about.is_hidden_row(self.at);
        if cells.is_empty() || is_left_out || self.is_over {
            return Ok(());
        }
        self.row.clear(u64::from(self.at) + 1);
        for (column, (kind, text)) in cells {
            self.row.pad(column as usize);
            self.row.push(kind, &text);
        }
        self.is_over = !(self.visit)(&self.row)?;
        Ok(())
    }

    /// Gives the value of merged cells to each of them in this row.
    fn fill(&mut self) -> Result<(), Failure> {
        let at = self.at;
        let covered = &mut self.covered;
        self.active.retain(|(region, ..)| {
            let reaches = region.rows.1 >= at;
            *covered -= if reaches { 0 } else { region.width() };
            reaches
        });
        while let Some(entry) = self.merged.first_entry().filter(|entry| *entry.key() <= at) {
            for region in entry.remove() {
                // Regions whose first row has no cells have no value.
                if region.rows.0 == at
                    && let Some((kind, text)) = self.cells.get(&region.columns.0).cloned()
                {
                    // Regions that do not overlap have no more columns together. Of those that do the first ones count.
                    let covered = self.covered + region.width();
                    if covered <= MOST_COLUMNS {
                        self.covered = covered;
                        self.active.push((region, kind, text));
                    }
                }
            }
        }
        if self.cells.is_empty() {
            return Ok(());
        }
        self.budget.make(self.covered as u64)?;
        for (region, kind, text) in &self.active {
            for column in region.columns.0..region.columns.0 + region.width() as u32 {
                if self.bytes > self.longest {
                    return Ok(());
                }
                if let Entry::Vacant(cell) = self.cells.entry(column) {
                    self.bytes += text.len();
                    self.budget.give(text)?;
                    cell.insert((*kind, text.clone()));
                }
            }
        }
        Ok(())
    }

    pub fn end(&mut self) -> Result<(), Failure> {
        self.finish()
    }
}

/// `2026-03-04`, `2026-03-04T05:06:07`, or hours and minutes, where it is less than a day or an amount of time.
fn of_date(date: ExcelDateTime) -> String {
    let days = date.as_f64();
    let time = |milliseconds: f64| {
        let all = milliseconds.abs().round() as u64;
        let (hours, minutes) = (all / 3_600_000, all / 60_000 % 60);
        let (seconds, rest) = (all / 1_000 % 60, all % 1_000);
        let fraction = if rest > 0 {
            format!(".{rest:03}")
        } else {
            String::new()
        };
        let sign = if milliseconds < 0.0 { "-" } else { "" };
        format!("{sign}{hours:02}:{minutes:02}:{seconds:02}{fraction}")
    };
    if date.is_duration() || (0.0..1.0).contains(&days) {
        return time(days * 86_400_000.0);
    }
    let (year, month, day, hour, minute, second, milli) = date.to_ymd_hms_milli();
    let day = format!("{year:04}-{month:02}-{day:02}");
    match (hour, minute, second, milli) {
        (0, 0, 0, 0) => day,
        (_, _, _, 0) => format!("{day}T{hour:02}:{minute:02}:{second:02}"),
        _ => format!("{day}T{hour:02}:{minute:02}:{second:02}.{milli:03}"),
    }
}

/// A date as a workbook counts it.
pub fn date(number: f64, is_duration: bool, is_1904: bool) -> ExcelDateTime {
    let kind = match is_duration {
        true => ExcelDateTimeType::TimeDelta,
        false => ExcelDateTimeType::DateTime,
    };
    ExcelDateTime::new(number, kind, is_1904)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::file::tests::layout;

    #[test]
    fn a_shared_text_is_counted_for_every_cell_that_names_it() {
        let layout = layout("excel", json!({})).unwrap();
        let about = About::default();
        let (mut budget, mut seen) = (Budget::default(), 0);
        let mut visit = |_: &Row| {
            seen += 1;
            Ok(true)
        };
        let longest = 4 * 1024 * 1024;
        let mut rows = Rows::new(&about, &layout, longest, &mut budget, &mut visit);
        let text = "x".repeat(1024 * 1024);
        let refused = (0..MOST_ROWS).find_map(|row| rows.cell(row, 0, Kind::Text, &text).err());
        let message = refused.unwrap().message;
        assert!(message.contains("more than 2048 MB in all"), "{message}");
        assert_eq!(seen, 2_048);
    }

    #[test]
    fn the_search_for_sheets_is_bounded() {
        let layout = layout("excel", json!({})).unwrap();
        let about = About::default();
        let mut budget = Budget::default();
        let mut sheets = 0;
        let refused = loop {
            let mut visit = |_: &Row| Ok(true);
            let mut rows = Rows::new(&about, &layout, 1, &mut budget, &mut visit);
            if let Err(refused) = rows.walked(1024 * 1024 * 1024) {
                break refused;
            }
            sheets += 1;
        };
        assert_eq!(sheets, 16);
        assert!(
            refused.message.contains("name fewer in config"),
            "{refused}"
        );
    }
}
