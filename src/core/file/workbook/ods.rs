//! ODS. Rows and cells that repeat are written once, with a count that may be anything.

use std::collections::HashSet;

use quick_xml::events::{BytesStart, Event};

use super::super::row::Kind;
use super::super::row::MOST_COLUMNS;
use super::super::value;
use super::archive::{Archive, Xml, attribute, damaged};
use super::sheet::{About, MOST_ROWS, Merged, Remembered, Rows, name};
use super::{Content, Failure, refused, spoiled};

/// Longest text of a cell.
const LONGEST_TEXT: usize = 1024 * 1024;

pub fn examine(content: &mut dyn Content) -> Result<Vec<About>, Failure> {
    let mut sheets: Vec<About> = Vec::new();
    let mut remembered = Remembered::default();
    walk(content, &mut |piece| {
        match piece {
            Piece::Sheet(name, is_hidden) => {
                if sheets.len() >= MOST_SHEETS {
                    return Err(spoiled(format!("more than {MOST_SHEETS} sheets")));
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

/// Gives every cell of a sheet away.
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
    /// With its name, and whether it is hidden.
    Sheet(String, bool),
    HiddenColumn,
    Row(&'a RowPiece),
}

#[derive(Default)]
struct RowPiece {
    /// From 0.
    number: u32,
    repeat: u32,
    is_hidden: bool,
    /// Those that hold something.
    cells: Vec<CellPiece>,
    /// Columns so far, and bytes.
    columns: u32,
    bytes: usize,
}

#[derive(Default)]
struct CellPiece {
    column: u32,
    repeat: u32,
    kind: Kind,
    text: String,
    /// Columns and rows.
    spanned: (u32, u32),
    is_without_value: bool,
}

impl CellPiece {
    fn merged(&self, row: u32) -> Option<Merged> {
        let (columns, rows) = self.spanned;
        (columns > 1 || rows > 1).then(|| Merged {
            rows: (row, row.saturating_add(rows.max(1) - 1)),
            columns: (self.column, self.column.saturating_add(columns.max(1) - 1)),
        })
    }
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
            true => Err(spoiled("the styles of the workbook are too many")),
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

fn repeat(element: &BytesStart, name: &str) -> Result<u32, Failure> {
    match attribute(element, name) {
        None => Ok(1),
        Some(count) => count.parse().map_err(|_| damaged()),
    }
}

impl RowPiece {
    /// Up to the end of the row.
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
                        let said = Said::of(&element);
                        cell.spanned = said.spanned;
                        let text = text(xml)?;
                        cell.is_without_value = said.read(text, &mut cell)?;
                        self.columns = self.columns.saturating_add(cell.repeat);
                        self.bytes += cell.text.len();
                        if self.bytes > 8 * LONGEST_TEXT {
                            let number = self.number + 1;
                            return Err(spoiled(format!("row {number}: too long")));
                        }
                        if cell.kind != Kind::Empty
                            || cell.is_without_value
                            || cell.spanned != (0, 0)
                        {
                            if cell.column as usize >= MOST_COLUMNS {
                                let place = name(self.number, cell.column);
                                return Err(spoiled(format!(
                                    "cell {place}: no more than {MOST_COLUMNS} columns are read"
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

/// What the attributes of a cell say.
#[derive(Default)]
struct Said {
    kind: String,
    number: Option<String>,
    date: Option<String>,
    time: Option<String>,
    truth: Option<String>,
    text: Option<String>,
    is_error: bool,
    is_formula: bool,
    spanned: (u32, u32),
}

impl Said {
    fn of(element: &BytesStart) -> Said {
        let mut said = Said::default();
        for attribute in element.attributes().with_checks(false).flatten() {
            let value = || {
                quick_xml::escape::unescape(&attribute.value)
                    .map(|value| value.into_owned())
                    .ok()
            };
            match attribute.key.as_ref() {
                "office:value-type" => said.kind = value().unwrap_or_default(),
                "office:value" => said.number = value(),
                "office:date-value" => said.date = value(),
                "office:time-value" => said.time = value(),
                "office:boolean-value" => said.truth = value(),
                "office:string-value" => said.text = value(),
                "calcext:value-type" => said.is_error = value().as_deref() == Some("error"),
                "table:formula" => said.is_formula = true,
                "table:number-columns-spanned" => {
                    said.spanned.0 = value().and_then(|count| count.parse().ok()).unwrap_or(0);
                }
                "table:number-rows-spanned" => {
                    said.spanned.1 = value().and_then(|count| count.parse().ok()).unwrap_or(0);
                }
                _ => {}
            }
        }
        if said.spanned == (1, 1) {
            said.spanned = (0, 0);
        }
        said
    }

    /// What the cell holds; true: a formula of which nobody wrote down what it comes to.
    fn read(self, text: String, cell: &mut CellPiece) -> Result<bool, Failure> {
        (cell.kind, cell.text) = match self.kind.as_str() {
            _ if self.is_error => (Kind::Error, text),
            "" => return Ok(self.is_formula),
            "float" | "currency" | "percentage" => {
                let number = self.number.unwrap_or_default();
                (Kind::Number, plain(&number).ok_or_else(damaged)?)
            }
            "date" => (Kind::Date, self.date.unwrap_or(text)),
            "time" => (
                Kind::Date,
                clock(&self.time.unwrap_or_default()).ok_or_else(damaged)?,
            ),
            "boolean" => (
                Kind::Truth,
                (self.truth.as_deref() == Some("true")).to_string(),
            ),
            _ => (Kind::Text, self.text.unwrap_or(text)),
        };
        let midnight = "T00:00:00";
        if cell.kind == Kind::Date && cell.text.ends_with(midnight) {
            cell.text.truncate(cell.text.len() - midnight.len());
        }
        Ok(false)
    }
}

/// A number as it is written, where it is a plain decimal; else as the double that it is.
fn plain(number: &str) -> Option<String> {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_plain =
        are_digits(whole) && are_digits(fraction) && (whole == "0" || !whole.starts_with('0'));
    match is_plain && digits != "0" {
        true => Some(number.to_owned()),
        false => value::of_double(number.parse().ok()?),
    }
}

/// `PT05H06M07.5S` as `05:06:07.5`; also with days, and without what is zero.
fn clock(duration: &str) -> Option<String> {
    let (sign, rest) = match duration.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", duration),
    };
    let (days, time) = rest.strip_prefix('P')?.split_once('T')?;
    let part = |text: &str| {
        let is_number = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.parse::<u64>().ok())?
    };
    let days = match days {
        "" => 0,
        days => part(days.strip_suffix('D')?)?,
    };
    let (hours, rest) = match time.split_once('H') {
        Some((hours, rest)) => (part(hours)?, rest),
        None => (0, time),
    };
    let (minutes, rest) = match rest.split_once('M') {
        Some((minutes, rest)) => (part(minutes)?, rest),
        None => (0, rest),
    };
    let (seconds, fraction) = match rest {
        "" => (0, ""),
        rest => {
            let rest = rest.strip_suffix('S')?;
            let (seconds, fraction) = rest.split_once(['.', ',']).unwrap_or((rest, ""));
            (part(seconds)?, fraction.trim_end_matches('0'))
        }
    };
    let is_fraction = fraction.len() <= 9 && fraction.bytes().all(|b| b.is_ascii_digit());
    if time.is_empty() || !is_fraction {
        return None;
    }
    let point = if fraction.is_empty() { "" } else { "." };
    let hours = days * 24 + hours;
    Some(format!(
        "{sign}{hours:02}:{minutes:02}:{seconds:02}{point}{fraction}"
    ))
}

/// The text of a cell, up to its end: paragraphs become lines; what is annotated is left out.
fn text(xml: &mut Xml) -> Result<String, Failure> {
    let mut text = String::new();
    let mut paragraphs = 0;
    let mut left_out = 0;
    loop {
        let event = xml.next()?;
        match &event {
            Event::Eof => return Err(damaged()),
            Event::Start(element) => match element.local_name().as_ref() {
                "annotation" | "table" | "shapes" | "frame" => left_out += 1,
                _ if left_out > 0 => {}
                "p" => {
                    paragraphs += 1;
                    if paragraphs > 1 {
                        text.push('\n');
                    }
                }
                "s" => {
                    let count = repeat(element, "c")? as usize;
                    text.extend(std::iter::repeat_n(' ', count.min(LONGEST_TEXT)));
                }
                "tab" => text.push('\t'),
                "line-break" => text.push('\n'),
                _ => {}
            },
            Event::End(element) => match element.local_name().as_ref() {
                "annotation" | "table" | "shapes" | "frame" => left_out -= 1,
                "table-cell" | "covered-table-cell" if left_out == 0 => return Ok(text),
                _ => {}
            },
            Event::Text(piece) if left_out == 0 && paragraphs > 0 => {
                text.push_str(&piece.xml10_content())
            }
            Event::CData(piece) if left_out == 0 && paragraphs > 0 => {
                text.push_str(&piece.xml10_content())
            }
            Event::GeneralRef(reference) if left_out == 0 && paragraphs > 0 => {
                text.push(character(reference).ok_or_else(damaged)?);
            }
            _ => {}
        }
        if text.len() > LONGEST_TEXT {
            return Err(spoiled(format!(
                "a cell holds more than {LONGEST_TEXT} bytes"
            )));
        }
    }
}

/// The characters that XML names by itself, and those that are named by their number. There are no others.
fn character(reference: &quick_xml::events::BytesRef) -> Option<char> {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return Some(character);
    }
    let name = reference.xml10_content();
    let text = quick_xml::escape::resolve_predefined_entity(&name)?;
    text.chars().next()
}
