//! ODS. Rows and cells that repeat are written once, with a count that may be anything.

mod cell;

use std::collections::HashSet;

use quick_xml::events::{BytesStart, Event};

use self::cell::{Attributes, CellPiece, LONGEST_TEXT, repeat, text};
use super::super::row::Kind;
use super::super::row::MOST_COLUMNS;
use super::archive::{Archive, Xml, attribute, damaged};
use super::rows::Rows;
use super::sheet::{About, MOST_ROWS, Remembered, name};
use super::{Content, Failure, refused, spoiled};

pub fn examine(content: &mut dyn Content) -> Result<Vec<About>, Failure> {
    let mut sheets: Vec<About> = Vec::new();
    let mut remembered = Remembered::default();
    walk(content, &mut |piece| {
        match piece {
            Piece::Sheet(name, is_hidden) => {
                if sheets.len() >= MOST_SHEETS {
                    return Err(spoiled(format!(
                        "the workbook has more than {MOST_SHEETS} sheets"
                    )));
                }
                if let Some(before) = sheets.last() {
                    remembered.add(before)?;
                }
                sheets.push(About::named(name, is_hidden)?);
            }
            Piece::HiddenColumn => {
                if let Some(sheet) = sheets.last_mut() {
                    sheet.has_hidden_columns = true;
                }
            }
            Piece::Row(row) => {
                if let Some(sheet) = sheets.last_mut() {
                    let behind = row.number.saturating_add(row.repeat).min(MOST_ROWS);
                    if row.is_hidden && row.number < behind && !row.cells.is_empty() {
                        sheet.hide_rows(row.number, behind - 1)?;
                    }
                    sheet.has_cells |= row.cells.iter().any(|cell| cell.kind != Kind::Empty);
                    for cell in &row.cells {
                        if let Some(merged) = cell.merged(row.number) {
                            sheet.merge(merged)?;
                        }
                        if cell.is_without_value {
                            let name = || name(row.number, cell.column);
                            sheet.without_value.get_or_insert_with(name);
                        }
                    }
                }
            }
        }
        Ok(true)
    })?;
    Ok(sheets)
}

const MOST_SHEETS: usize = 10_000;

/// Passes every cell of a sheet on.
pub fn cells(content: &mut dyn Content, sheet: &str, rows: &mut Rows) -> Result<(), Failure> {
    let mut is_wanted = false;
    let walked = walk(content, &mut |piece| {
        match piece {
            // The one behind that which is wanted.
            Piece::Sheet(..) if is_wanted => return Ok(false),
            Piece::Sheet(name, _) => is_wanted = name == sheet,
            Piece::Row(row) if is_wanted && !row.cells.is_empty() => {
                let cells: u64 = row.cells.iter().map(|cell| u64::from(cell.repeat)).sum();
                let written = row.cells.len() as u64;
                let all = cells.saturating_mul(row.repeat.into());
                rows.make(all.saturating_sub(written))?;
                for number in row.number..row.number.saturating_add(row.repeat) {
                    for cell in &row.cells {
                        for column in cell.column..cell.column.saturating_add(cell.repeat) {
                            rows.cell(number, column, cell.kind, &cell.text)?;
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(!rows.is_over)
    })?;
    rows.walked(walked)
}

enum Piece<'a> {
    /// The start of a sheet: its name, and whether it is hidden.
    Sheet(String, bool),
    HiddenColumn,
    Row(&'a RowPiece),
}

#[derive(Default)]
struct RowPiece {
    /// The first row is 0.
    number: u32,
    repeat: u32,
    is_hidden: bool,
    /// The cells with a value.
    cells: Vec<CellPiece>,
    /// Columns so far, and bytes.
    columns: u32,
    bytes: usize,
}

/// Reads what there is of tables, as far as `visit` wants; returns how many bytes that took.
fn walk(
    content: &mut dyn Content,
    visit: &mut dyn FnMut(Piece) -> Result<bool, Failure>,
) -> Result<u64, Failure> {
    let mut archive = Archive::open(content)?;
    let names = archive.names();
    let position = names.iter().position(|name| name == "content.xml");
    let mut xml = archive.part(position.ok_or_else(damaged)?)?;
    let mut styles = Styles::default();
    let mut number = 0_u32;
    // A table within a cell is none of the sheets.
    let mut depth = 0;
    loop {
        let event = xml.next()?;
        let element = match &event {
            Event::Eof => return Err(damaged()),
            Event::End(element) => match element.local_name().as_ref() {
                "table" => {
                    depth -= 1;
                    continue;
                }
                "document-content" => return Ok(xml.bytes()),
                _ => continue,
            },
            Event::Start(element) => element,
            _ => continue,
        };
        let wants_more = match element.local_name().as_ref() {
            "encryption-data" => return Err(refused("the workbook is protected by a password")),
            "style" => {
                styles.at = attribute(element, "name");
                true
            }
            "table-properties" => {
                styles.note(element)?;
                true
            }
            "table" => {
                depth += 1;
                number = 0;
                let is_hidden = styles.hides(element);
                match (depth, attribute(element, "name")) {
                    (1, Some(name)) => visit(Piece::Sheet(name, is_hidden))?,
                    _ => true,
                }
            }
            "table-column" if depth == 1 && is_collapsed(element) => visit(Piece::HiddenColumn)?,
            "table-row" if depth == 1 => {
                let mut row = RowPiece {
                    number,
                    repeat: repeat(element, "number-rows-repeated")?,
                    is_hidden: is_collapsed(element),
                    ..RowPiece::default()
                };
                drop(event);
                row.read(&mut xml)?;
                let wants_more = visit(Piece::Row(&row))?;
                number = number.saturating_add(row.repeat);
                wants_more
            }
            _ => true,
        };
        if !wants_more {
            return Ok(xml.bytes());
        }
    }
}

/// Longest name of a style. Programs write "ta1".
const LONGEST_STYLE: usize = 1_024;

/// Styles of tables that are not shown.
#[derive(Default)]
struct Styles {
    at: Option<String>,
    hidden: HashSet<String>,
}

impl Styles {
    fn note(&mut self, properties: &BytesStart) -> Result<(), Failure> {
        let is_shown = attribute(properties, "display").as_deref() != Some("false");
        let name = self.at.take().filter(|name| name.len() <= LONGEST_STYLE);
        if let Some(style) = name.filter(|_| !is_shown) {
            self.hidden.insert(style);
        }
        match self.hidden.len() > MOST_SHEETS {
            true => Err(spoiled("the workbook has too many styles")),
            false => Ok(()),
        }
    }

    fn hides(&self, table: &BytesStart) -> bool {
        attribute(table, "style-name").is_some_and(|style| self.hidden.contains(&style))
    }
}

fn is_collapsed(element: &BytesStart) -> bool {
    matches!(
        attribute(element, "visibility").as_deref(),
        Some("collapse" | "filter")
    )
}

impl RowPiece {
    /// Reads up to the end of the row.
    fn read(&mut self, xml: &mut Xml) -> Result<(), Failure> {
        loop {
            match xml.next()? {
                Event::Start(element) => match element.local_name().as_ref() {
                    "table-cell" | "covered-table-cell" => {
                        let mut cell = CellPiece {
                            column: self.columns,
                            repeat: repeat(&element, "number-columns-repeated")?,
                            ..CellPiece::default()
                        };
                        let attributes = Attributes::of(&element);
                        cell.spanned = attributes.spanned;
                        let text = text(xml)?;
                        cell.is_without_value = attributes.read(text, &mut cell)?;
                        self.columns = self.columns.saturating_add(cell.repeat);
                        self.bytes += cell.text.len();
                        if self.bytes > 8 * LONGEST_TEXT {
                            let number = self.number + 1;
                            return Err(spoiled(format!("row {number}: the row is too long")));
                        }
                        if cell.kind != Kind::Empty
                            || cell.is_without_value
                            || cell.spanned != (0, 0)
                        {
                            if cell.column as usize >= MOST_COLUMNS {
                                let place = name(self.number, cell.column);
                                return Err(spoiled(format!(
                                    "cell {place}: at most {MOST_COLUMNS} columns are read"
                                )));
                            }
                            self.cells.push(cell);
                        }
                    }
                    _ => return Err(damaged()),
                },
                Event::End(element) if element.local_name().as_ref() == "table-row" => {
                    return Ok(());
                }
                Event::Eof => return Err(damaged()),
                _ => {}
            }
        }
    }
}
