//! XLSX: examined here, read by `calamine`.

use std::collections::{BTreeMap, HashMap};

use calamine::{DataRef, Reader, SheetType, SheetVisible, Xlsx, XlsxError};
use quick_xml::events::{BytesStart, Event};

use super::super::row::Kind;
use super::archive::{Archive, attribute, damaged};
use super::rows::Rows;
use super::sheet::{About, MOST_ROWS, Merged, Remembered, place};
use super::{Content, Failure, failure_of, refused, spoiled};

/// What the texts of a workbook may take in memory, where they all are: their bytes, and so many for each.
const MOST_TEXTS: u64 = 64 * 1024 * 1024;
const OF_A_TEXT: u64 = 64;

/// Elements and bytes of a part that is neither a sheet nor texts: `calamine` makes a style of each of some. A workbook
/// may have 65,490 formats.
const MOST_ELEMENTS: u64 = 250_000;
const MOST_LISTED: u64 = 32 * 1024 * 1024;
/// What is kept of all lists: ten thousand parts may each be one.
const MOST_KEPT: usize = 8 * 1024 * 1024;
/// Longest name of a cell, such as XFD1048576.
const LONGEST_PLACE: usize = 16;

/// Elements that no sheet has. A sheet with one of them would also be read as something else.
const NOT_OF_SHEETS: [&str; 9] = [
    "sst",
    "cellXfs",
    "cellStyleXfs",
    "numFmts",
    "fonts",
    "fills",
    "borders",
    "Relationship",
    "definedName",
];

/// Errors that `calamine` reads. At any other one it stops, and goes on behind it.
const KNOWN_ERRORS: [&str; 7] = [
    "#DIV/0!", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!",
];

/// Elements that name their own place.
const PLACED: [&str; 4] = ["dimension", "row", "c", "mergeCell"];

/// Refuses a place that no sheet has. The reader would count on beyond the end of its numbers, and put a cell where it
/// is not.
fn check_places(element: &BytesStart) -> Result<(), Failure> {
    let mut attributes = element.attributes();
    let places = attributes.with_checks(false).flatten();
    let mut places = places.filter(|a| matches!(a.key.local_name().as_ref(), "r" | "ref"));
    // Of the whole sheet it subtracts the first cell from the last one.
    let is_whole = element.local_name().as_ref() == "dimension";
    let is_in_order = |text: &str| {
        let ends = text.split_once(':').map(|(a, b)| (place(a), place(b)));
        !is_whole || !matches!(ends, Some((Some(a), Some(b))) if a.0 > b.0 || a.1 > b.1)
    };
    match places.all(|place| is_place(&place.value) && is_in_order(&place.value)) {
        true => Ok(()),
        false => Err(damaged()),
    }
}

/// Whether a text has no more letters and digits in a row than `XFD1048576`.
fn is_place(text: &str) -> bool {
    let (mut letters, mut digits) = (0, 0);
    text.bytes().all(|byte| {
        letters = if byte.is_ascii_alphabetic() {
            letters + 1
        } else {
            0
        };
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        letters <= 3 && digits <= 7
    })
}

/// What is known of a part once it was unpacked.
#[derive(Default)]
struct Part {
    about: About,
    elements: u64,
    is_sheet: bool,
    /// How many texts there are, and how many it claims.
    texts: u64,
    claimed: u64,
    text_bytes: u64,
    is_texts: bool,
    is_list: bool,
    /// Ids and targets of relationships.
    targets: HashMap<String, String>,
    /// Ids of the sheets of a workbook, in order.
    sheets: Vec<String>,
    /// Bytes of these.
    kept: usize,
}

/// Unpacks every part once, within bounds; returns what is known of the sheets.
pub fn examine(content: &mut dyn Content) -> Result<Vec<About>, Failure> {
    let mut archive = Archive::open(content)?;
    let names = archive.names();
    // In order: of two that may be the workbook it is always the same one.
    let mut parts: BTreeMap<String, Part> = BTreeMap::new();
    let (mut remembered, mut kept) = (Remembered::default(), 0);
    for (position, name) in names.into_iter().enumerate() {
        if let Some(part) = examine_part(&mut archive, position)? {
            remembered.add(&part.about)?;
            kept += part.kept;
            if kept > MOST_KEPT {
                return Err(spoiled("the styles and lists of the workbook are too long"));
            }
            parts.insert(name.trim_start_matches('/').to_lowercase(), part);
        }
    }
    drop(archive);
    // By now nothing in it can hurt.
    let workbook = open(content)?;
    let mut abouts = Vec::new();
    let (paths, mut sheets) = (paths(&parts), 0);
    for sheet in workbook.sheets_metadata() {
        let path = paths.get(sheets);
        sheets += 1;
        if sheet.typ != SheetType::WorkSheet {
            continue;
        }
        let part = path.and_then(|path| parts.get_mut(path));
        let about = part
            .map(|part| std::mem::take(&mut part.about))
            .unwrap_or_default();
        let is_hidden = sheet.visible != SheetVisible::Visible;
        let named = About::named(sheet.name.clone(), is_hidden)?;
        abouts.push(About {
            name: named.name,
            is_hidden,
            ..about
        });
    }
    Ok(abouts)
}

/// Where the sheets are, in the order of the workbook.
fn paths(parts: &BTreeMap<String, Part>) -> Vec<String> {
    let Some((path, workbook)) = parts.iter().find(|(_, part)| !part.sheets.is_empty()) else {
        return Vec::new();
    };
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let targets = parts.get(
        &format!("{folder}/_rels/{file}.rels")
            .trim_start_matches('/')
            .to_owned(),
    );
    let target = |id: &String| {
        let target = targets
            .and_then(|part| part.targets.get(id))
            .cloned()
            .unwrap_or_default();
        let target = target.replace('\\', "/").to_lowercase();
        match target.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None => format!("{folder}/{target}")
                .trim_start_matches('/')
                .to_owned(),
        }
    };
    workbook.sheets.iter().map(target).collect()
}

fn examine_part(archive: &mut Archive, position: usize) -> Result<Option<Part>, Failure> {
    let Some(mut xml) = archive.part_if_xml(position)? else {
        return Ok(None);
    };
    let mut part = Part::default();
    let mut row = 0;
    let mut cell = Formula::default();
    loop {
        match xml.next()? {
            Event::Eof => break,
            Event::Start(element) => {
                part.elements += 1;
                if PLACED.contains(&element.local_name().as_ref()) {
                    check_places(&element)?;
                }
                part.is_list |= NOT_OF_SHEETS.contains(&element.local_name().as_ref());
                match element.local_name().as_ref() {
                    "sheetData" => part.is_sheet = true,
                    "row" if part.is_sheet => {
                        let number = attribute(&element, "r").and_then(|r| r.parse::<u32>().ok());
                        row = number
                            .map_or(row, |number| number.saturating_sub(1))
                            .min(MOST_ROWS);
                        if is_true(attribute(&element, "hidden")) {
                            part.about.hide_rows(row, row)?;
                        }
                    }
                    "col" => {
                        part.about.has_hidden_columns |= is_true(attribute(&element, "hidden"))
                    }
                    "c" if part.is_sheet => {
                        cell = Formula::default();
                        if part.about.without_value.is_none() {
                            let name = attribute(&element, "r").unwrap_or_default();
                            cell.name = Some(name)
                                .filter(|name| name.len() <= LONGEST_PLACE)
                                .unwrap_or_default();
                            cell.is_text = attribute(&element, "t").as_deref() == Some("str");
                        }
                        if attribute(&element, "t").as_deref() == Some("e") {
                            let name = attribute(&element, "r").unwrap_or_default();
                            cell.error_at = place(&name);
                        }
                    }
                    "f" => cell.is_formula = true,
                    "v" => cell.in_value = true,
                    "mergeCell" => {
                        let region = attribute(&element, "ref");
                        if let Some(merged) = region.and_then(|region| merged(&region)) {
                            part.about.merge(merged)?;
                        }
                    }
                    "sst" => {
                        part.is_texts = true;
                        part.claimed = part.claimed.max(claimed(element.attributes_raw()));
                    }
                    "si" => part.texts += 1,
                    "Relationship" => {
                        if let (Some(id), Some(target)) =
                            (attribute(&element, "Id"), attribute(&element, "Target"))
                        {
                            part.kept += id.len() + target.len() + 2 * size_of::<String>();
                            part.targets.insert(id, target);
                        }
                    }
                    "sheet" if !part.is_sheet => {
                        let id = attribute(&element, "id");
                        let bytes = |id: &String| id.len() + size_of::<String>();
                        part.kept += id.as_ref().map_or(0, bytes);
                        part.sheets.extend(id);
                    }
                    _ => {}
                }
            }
            Event::Text(text) => {
                part.text_bytes += text.len() as u64;
                cell.has_value |= cell.in_value && !text.trim().is_empty();
                part.about.has_cells |= part.is_sheet && !text.trim().is_empty();
                if cell.in_value
                    && let Some(place) = cell
                        .error_at
                        .take_if(|_| !KNOWN_ERRORS.iter().any(|known| **known == *text))
                {
                    part.about.note_error(place)?;
                }
            }
            Event::CData(text) => part.text_bytes += text.len() as u64,
            Event::GeneralRef(_) => part.text_bytes += 1,
            Event::End(element) => match element.local_name().as_ref() {
                "v" => cell.in_value = false,
                "c" if part.is_sheet && cell.is_formula && !cell.has_value && !cell.is_text => {
                    part.about
                        .without_value
                        .get_or_insert_with(|| std::mem::take(&mut cell.name));
                }
                "row" => row = row.saturating_add(1),
                _ => {}
            },
            _ => {}
        }
        part.check(xml.bytes())?;
    }
    Ok(Some(part))
}

/// The greatest number of texts that any reader may take this to claim.
fn claimed(attributes: &str) -> u64 {
    let after = attributes.split("uniqueCount").skip(1);
    let numbers = after.map(|after| {
        let digits = after.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(digits.len());
        digits
            .get(..end)
            .unwrap_or_default()
            .parse()
            .unwrap_or(u64::MAX)
    });
    numbers.max().unwrap_or(0)
}

#[derive(Default)]
struct Formula {
    name: String,
    is_text: bool,
    is_formula: bool,
    in_value: bool,
    has_value: bool,
    /// Where it is, if it holds an error.
    error_at: Option<(u32, u32)>,
}

impl Part {
    fn check(&self, bytes: u64) -> Result<(), Failure> {
        if self.is_sheet && self.is_list {
            return Err(damaged());
        }
        if self.is_texts {
            let most = MOST_TEXTS / 1024 / 1024;
            if self.text_bytes + self.texts * OF_A_TEXT > MOST_TEXTS {
                return Err(spoiled(format!(
                    "the texts of the workbook are larger than {most} MB"
                )));
            }
        } else if !self.is_sheet && (self.elements > MOST_ELEMENTS || bytes > MOST_LISTED) {
            return Err(spoiled("the styles and lists of the workbook are too long"));
        }
        // Memory is reserved for what it claims.
        if self.claimed > 1_000_000_u64.max(MOST_TEXTS / OF_A_TEXT) {
            return Err(refused("the workbook claims more texts than it can have"));
        }
        Ok(())
    }
}

fn is_true(attribute: Option<String>) -> bool {
    matches!(attribute.as_deref(), Some("1" | "true"))
}

fn merged(region: &str) -> Option<Merged> {
    let (first, last) = region.split_once(':')?;
    let ((top, left), (bottom, right)) = (place(first)?, place(last)?);
    Some(Merged {
        rows: (top, bottom),
        columns: (left, right),
    })
}

pub fn open(content: &mut dyn Content) -> Result<Xlsx<&mut dyn Content>, Failure> {
    content.rewind().map_err(failure_of)?;
    Xlsx::new(content).map_err(|_| damaged())
}

/// Passes every cell of a sheet on.
pub fn cells(
    workbook: &mut Xlsx<&mut dyn Content>,
    sheet: &About,
    rows: &mut Rows,
) -> Result<(), Failure> {
    let mut errors = sheet.errors.iter();
    let mut cells = workbook
        .worksheet_cells_reader(&sheet.name)
        .map_err(|_| damaged())?;
    while !rows.is_over {
        let cell = match cells.next_cell() {
            Ok(Some(cell)) => cell,
            Ok(None) => break,
            Err(XlsxError::CellError(error)) => {
                let (row, column) = errors.next().ok_or_else(damaged)?;
                rows.cell(*row, *column, Kind::Error, &error)?;
                continue;
            }
            Err(_) => return Err(damaged()),
        };
        let (row, column) = cell.get_position();
        match cell.get_value() {
            DataRef::Empty => {}
            DataRef::Int(number) => rows.cell(row, column, Kind::Number, &number.to_string())?,
            DataRef::Float(number) => rows.number(row, column, *number)?,
            DataRef::String(text) => rows.cell(row, column, Kind::Text, text)?,
            DataRef::SharedString(text) => rows.cell(row, column, Kind::Text, text)?,
            DataRef::Bool(truth) => rows.cell(row, column, Kind::Truth, &truth.to_string())?,
            DataRef::DateTime(date) => rows.date(row, column, *date)?,
            DataRef::DateTimeIso(text) => {
                let text = text.trim_end_matches('Z');
                let text = text.strip_suffix("T00:00:00").unwrap_or(text);
                rows.cell(row, column, Kind::Date, text)?;
            }
            DataRef::DurationIso(text) => rows.cell(row, column, Kind::Text, text)?,
            DataRef::Error(error) => rows.cell(row, column, Kind::Error, &error.to_string())?,
        }
    }
    Ok(())
}
