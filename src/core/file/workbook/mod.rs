//! Workbooks: XLSX, ODS and XLS.
//!
//! What a workbook claims of itself (how many strings, how large a sheet) decides nothing; what it holds is counted
//! while it is read. An archive is examined whole before anything else reads it: every part is unpacked once, and none
//! may unpack to more than a bound, or hold a piece of XML longer than another. XLSX is then read by `calamine`, cell
//! by cell; of the other two it would hold every sheet in memory, as large as the farthest cell says, so they are read
//! here.

mod archive;
mod ods;
mod rows;
mod sheet;
mod xls;
mod xlsx;

use self::rows::{Budget, Rows};
use self::sheet::About;
use super::layout::Layout;
use super::row::Row;
use super::{Content, failure_of, markup, refused, spoiled};
use crate::error::{Code, Failure};

/// A workbook whose parts were checked.
pub struct Workbook {
    form: Form,
    /// The sheets that are read, in the order of config.
    sheets: Vec<About>,
    notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Xlsx,
    Ods,
    Xls,
}

const ARCHIVE: &[u8] = b"PK\x03\x04";
const COMPOUND: &[u8] = b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1";

/// Refuses a file whose first bytes are not those of a workbook.
pub fn check_is_workbook(start: &[u8]) -> Result<(), Failure> {
    if !start.starts_with(ARCHIVE) && !start.starts_with(COMPOUND) {
        markup::check(&markup::text(start))?;
        return Err(refused(
            "the file is not an XLSX, XLS or ODS workbook; upload text to a connector of type \"csv\"",
        ));
    }
    Ok(())
}

impl Workbook {
    pub fn open(content: &mut dyn Content, layout: &Layout) -> Result<Workbook, Failure> {
        content.rewind().map_err(failure_of)?;
        let mut start = [0; 4];
        content.read_exact(&mut start).map_err(failure_of)?;
        let (form, all) = match start == *ARCHIVE {
            false => (Form::Xls, xls::examine(content)?),
            true => match archive::is_ods(content)? {
                true => (Form::Ods, ods::examine(content)?),
                false => (Form::Xlsx, xlsx::examine(content)?),
            },
        };
        let mut notes = Vec::new();
        let sheets = choose(all, layout, &mut notes)?;
        for sheet in &sheets {
            if let Some(cell) = &sheet.without_value {
                return Err(refused(format!(
                    "sheet \"{}\", cell {cell}: the formula has no stored value; open the file in a spreadsheet program and save it",
                    sheet.name
                )));
            }
            notes.extend(sheet.notes(layout));
        }
        Ok(Workbook {
            form,
            sheets,
            notes,
        })
    }

    pub fn sheet_names(&self) -> Vec<String> {
        self.sheets.iter().map(|sheet| sheet.name.clone()).collect()
    }

    pub fn words(&self) -> String {
        match self.form {
            Form::Xlsx => "XLSX workbook",
            Form::Ods => "ODS workbook",
            Form::Xls => "XLS workbook",
        }
        .to_owned()
    }

    pub fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    /// Passes every row of the chosen sheets to `visit`, which says whether it wants another.
    pub fn rows(
        &self,
        content: &mut dyn Content,
        layout: &Layout,
        longest: usize,
        visit: &mut dyn FnMut(usize, &Row) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        content.rewind().map_err(failure_of)?;
        // Once for all sheets: their texts and styles are the same.
        match self.form {
            Form::Xlsx => {
                let mut book = xlsx::open(content)?;
                self.each(layout, longest, visit, &mut |sheet, rows| {
                    xlsx::cells(&mut book, sheet, rows)
                })
            }
            Form::Xls => {
                let mut book = xls::Book::open(content)?;
                self.each(layout, longest, visit, &mut |sheet, rows| {
                    book.cells(&sheet.name, rows)
                })
            }
            Form::Ods => self.each(layout, longest, visit, &mut |sheet, rows| {
                ods::cells(content, &sheet.name, rows)
            }),
        }
    }

    fn each(
        &self,
        layout: &Layout,
        longest: usize,
        visit: &mut dyn FnMut(usize, &Row) -> Result<bool, Failure>,
        read: &mut dyn FnMut(&About, &mut Rows) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut budget = Budget::default();
        for (position, sheet) in self.sheets.iter().enumerate() {
            let mut wants_more = true;
            let mut visit = |row: &Row| {
                wants_more = visit(position, row)?;
                Ok(wants_more)
            };
            let mut rows = Rows::new(sheet, layout, longest, &mut budget, &mut visit);
            read(sheet, &mut rows)?;
            rows.end()?;
            if !wants_more {
                break;
            }
        }
        Ok(())
    }
}

/// The sheets that config names, or the first that is not hidden and holds something.
fn choose(
    all: Vec<About>,
    layout: &Layout,
    notes: &mut Vec<String>,
) -> Result<Vec<About>, Failure> {
    let quoted = |sheets: &[&About]| {
        let names = sheets
            .iter()
            .take(30)
            .map(|sheet| format!("\"{}\"", sheet.name));
        names.collect::<Vec<_>>().join(", ")
    };
    let there = quoted(&all.iter().collect::<Vec<_>>());
    let mut chosen = Vec::new();
    let mut all: Vec<Option<About>> = all.into_iter().map(Some).collect();
    for name in &layout.sheets {
        let found = all
            .iter_mut()
            .find(|sheet| sheet.as_ref().is_some_and(|sheet| sheet.name == *name));
        chosen.push(found.and_then(Option::take).ok_or_else(|| {
            Failure::new(
                Code::InvalidConfig,
                format!("config's \"sheets\" names \"{name}\", which is not in the file; the sheets are {there}"),
            )
        })?);
    }
    if layout.sheets.is_empty() {
        let is_visible =
            |sheet: &Option<About>| sheet.as_ref().is_some_and(|sheet| !sheet.is_hidden);
        let has_cells = |sheet: &Option<About>| sheet.as_ref().is_some_and(|sheet| sheet.has_cells);
        let filled = all
            .iter()
            .position(|sheet| is_visible(sheet) && has_cells(sheet));
        let found = filled.or_else(|| all.iter().position(is_visible));
        let found = found.and_then(|at| all.get_mut(at)).and_then(Option::take);
        chosen.push(found.ok_or_else(|| refused("the workbook has no visible sheet"))?);
    }
    let left: Vec<&About> = all.iter().flatten().collect();
    if !left.is_empty() {
        notes.push(format!(
            "these sheets are not read: {}; config's \"sheets\" names the sheets to read",
            quoted(&left)
        ));
    }
    Ok(chosen)
}
