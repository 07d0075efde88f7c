//! A sheet: what is known of it before it is read, and how its cells become rows.

use std::collections::BTreeMap;

use calamine::{ExcelDateTime, ExcelDateTimeType};

use super::super::layout::Layout;
use super::super::row::{Kind, Row};
use super::super::table::MOST_COLUMNS;
use super::super::value;
use super::spoiled;
use crate::error::Failure;

/// Regions of merged cells, and runs of hidden rows, that are remembered of a sheet. More: memory. Fewer: real sheets
/// are refused.
const MOST_REMEMBERED: usize = 200_000;

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
    /// A cell with a formula of which nobody wrote down what it comes to.
    pub without_value: Option<String>,
}

/// Cells from 0, all included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    pub rows: (u32, u32),
    pub columns: (u32, u32),
}

impl About {
    pub fn hide_row(&mut self, row: u32) -> Result<(), Failure> {
        match self.hidden_rows.last_mut() {
            Some((_, last)) if *last + 1 == row => *last = row,
            Some((_, last)) if *last >= row => {}
            _ => self.hidden_rows.push((row, row)),
        }
        self.check()
    }

    pub fn merge(&mut self, merged: Merged) -> Result<(), Failure> {
        self.merged.push(merged);
        self.check()
    }

    fn check(&self) -> Result<(), Failure> {
        match self.hidden_rows.len().max(self.merged.len()) > MOST_REMEMBERED {
            true => Err(spoiled(format!(
                "sheet \"{}\": more than {MOST_REMEMBERED} merged regions or hidden rows",
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

    /// What a person should know of it.
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
                "sheet \"{name}\": of merged cells the first alone has their value; config's \"fill_merged\" gives it to all"
            ));
        }
        notes
    }
}

/// Makes rows of cells, which come in the order of rows.
pub struct Rows<'a> {
    about: &'a About,
    /// Regions by their first row, where they are filled.
    merged: BTreeMap<u32, Vec<Merged>>,
    /// Those that reach into the row at hand, with their value.
    active: Vec<(Merged, Kind, String)>,
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

    /// A cell, from 0.
    pub fn cell(&mut self, row: u32, column: u32, kind: Kind, text: &str) -> Result<(), Failure> {
        let place = || format!("sheet \"{}\", cell {}", self.about.name, name(row, column));
        if row < self.at || row >= MOST_ROWS {
            return Err(super::refused(format!(
                "{}: it is not where it can be",
                place()
            )));
        }
        if kind == Kind::Empty || text.is_empty() {
            return Ok(());
        }
        if column as usize >= MOST_COLUMNS {
            return Err(spoiled(format!(
                "{}: no more than {MOST_COLUMNS} columns are read",
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
                "{}: more than {} bytes in one row",
                place(),
                self.longest
            )));
        }
        self.cells.insert(column, (kind, text.to_owned()));
        Ok(())
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
        self.fill();
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
    fn fill(&mut self) {
        let at = self.at;
        self.active.retain(|(region, ..)| region.rows.1 >= at);
        while let Some(entry) = self.merged.first_entry().filter(|entry| *entry.key() <= at) {
            for region in entry.remove() {
                // Regions whose first row has no cells have no value.
                if region.rows.0 == at
                    && let Some((kind, text)) = self.cells.get(&region.columns.0).cloned()
                {
                    self.active.push((region, kind, text));
                }
            }
        }
        for (region, kind, text) in &self.active {
            let last = region.columns.1.min(MOST_COLUMNS as u32 - 1);
            for column in region.columns.0..=last {
                if self.bytes > self.longest {
                    return;
                }
                self.bytes += text.len();
                self.cells
                    .entry(column)
                    .or_insert_with(|| (*kind, text.clone()));
            }
        }
    }

    pub fn end(&mut self) -> Result<(), Failure> {
        self.finish()
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
