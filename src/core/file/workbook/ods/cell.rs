//! Reads a cell of an ODS from its attributes and its text.

use quick_xml::events::{BytesStart, Event};

use super::super::super::row::Kind;
use super::super::super::value;
use super::super::archive::{Xml, attribute, damaged};
use super::super::sheet::Merged;
use super::super::{Failure, spoiled};

/// Longest text of a cell.
pub const LONGEST_TEXT: usize = 1024 * 1024;

#[derive(Default)]
pub struct CellPiece {
    pub column: u32,
    pub repeat: u32,
    pub kind: Kind,
    pub text: String,
    /// Columns and rows.
    pub spanned: (u32, u32),
    pub is_without_value: bool,
}

impl CellPiece {
    pub fn merged(&self, row: u32) -> Option<Merged> {
        let (columns, rows) = self.spanned;
        (columns > 1 || rows > 1).then(|| Merged {
            rows: (row, row.saturating_add(rows.max(1) - 1)),
            columns: (self.column, self.column.saturating_add(columns.max(1) - 1)),
        })
    }
}

/// What the attributes of a cell say.
#[derive(Default)]
pub struct Attributes {
    kind: String,
    number: Option<String>,
    date: Option<String>,
    time: Option<String>,
    truth: Option<String>,
    text: Option<String>,
    is_error: bool,
    is_formula: bool,
    pub spanned: (u32, u32),
}

impl Attributes {
    pub fn of(element: &BytesStart) -> Attributes {
        let mut attributes = Attributes::default();
        for attribute in element.attributes().with_checks(false).flatten() {
            let value = || {
                quick_xml::escape::unescape(&attribute.value)
                    .map(|value| value.into_owned())
                    .ok()
            };
            match attribute.key.as_ref() {
                "office:value-type" => attributes.kind = value().unwrap_or_default(),
                "office:value" => attributes.number = value(),
                "office:date-value" => attributes.date = value(),
                "office:time-value" => attributes.time = value(),
                "office:boolean-value" => attributes.truth = value(),
                "office:string-value" => attributes.text = value(),
                "calcext:value-type" => attributes.is_error = value().as_deref() == Some("error"),
                "table:formula" => attributes.is_formula = true,
                "table:number-columns-spanned" => {
                    attributes.spanned.0 =
                        value().and_then(|count| count.parse().ok()).unwrap_or(0);
                }
                "table:number-rows-spanned" => {
                    attributes.spanned.1 =
                        value().and_then(|count| count.parse().ok()).unwrap_or(0);
                }
                _ => {}
            }
        }
        if attributes.spanned == (1, 1) {
            attributes.spanned = (0, 0);
        }
        attributes
    }

    /// What the cell holds; true: a formula of which nobody wrote down what it comes to.
    pub fn read(self, text: String, cell: &mut CellPiece) -> Result<bool, Failure> {
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
pub fn text(xml: &mut Xml) -> Result<String, Failure> {
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
                "a cell is longer than {LONGEST_TEXT} bytes"
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

pub fn repeat(element: &BytesStart, name: &str) -> Result<u32, Failure> {
    match attribute(element, name) {
        None => Ok(1),
        Some(count) => count.parse().map_err(|_| damaged()),
    }
}
