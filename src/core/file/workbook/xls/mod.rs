//! XLS: BIFF8, what Excel 97 to 2003 wrote. Formulas are read by their value alone.

mod record;
mod shows;
mod texts;

use self::record::{Stream, each, kind, open};
use self::shows::{Shows, built_in, shows};
use self::texts::Texts;
use super::super::row::Kind;
use super::archive::damaged;
use super::rows::{Rows, date};
use super::sheet::{About, Merged, Remembered};
use super::{Content, Failure, refused};

const MOST_SHEETS: usize = 10_000;
/// How many times the stream may be read for all sheets. They lie beside each other, so once; ten thousand of a hostile
/// file may all be said to begin at the same place.
const MOST_TOLD: u64 = 16;

/// What the workbook says about all its sheets.
#[derive(Default)]
struct Workbook {
    is_1904: bool,
    /// Name, whether it is hidden, and where it begins.
    sheets: Vec<(String, bool, u64)>,
    /// What each form of cells shows.
    forms: Vec<Shows>,
    texts: Vec<String>,
}

pub fn examine(content: &mut dyn Content) -> Result<Vec<About>, Failure> {
    let mut stream = open(content)?;
    let workbook = Workbook::read(&mut stream)?;
    let mut abouts = Vec::new();
    let mut remembered = Remembered::default();
    let mut left = stream.size * MOST_TOLD;
    for (name, is_hidden, begin) in workbook.sheets {
        let mut about = About {
            name,
            is_hidden,
            ..About::default()
        };
        each(&mut stream, begin, &mut |record| {
            let bytes = record.data.len() as u64 + 4;
            left = left.checked_sub(bytes).ok_or_else(damaged)?;
            match record.kind {
                kind::ROW if record.u16(12)? & 0x20 != 0 => {
                    let row = u32::from(record.u16(0)?);
                    about.hide_rows(row, row)?
                }
                kind::NUMBER
                | kind::PACKED
                | kind::NUMBERS
                | kind::TEXT_OF
                | kind::LABEL
                | kind::RICH_TEXT
                | kind::TRUTH
                | kind::FORMULA => about.has_cells = true,
                kind::COLUMN => about.has_hidden_columns |= record.u16(8)? & 1 != 0,
                kind::MERGED => {
                    for region in 0..usize::from(record.u16(0)?) {
                        let edge = |nth: usize| record.u16(2 + region * 8 + nth * 2).map(u32::from);
                        about.merge(Merged {
                            rows: (edge(0)?, edge(1)?),
                            columns: (edge(2)?, edge(3)?),
                        })?;
                    }
                }
                _ => {}
            }
            Ok(true)
        })?;
        remembered.add(&about)?;
        abouts.push(about);
    }
    Ok(abouts)
}

/// A workbook whose cells are still to be read.
pub struct Book<'a> {
    stream: Stream<'a>,
    workbook: Workbook,
}

impl<'a> Book<'a> {
    pub fn open(content: &'a mut dyn Content) -> Result<Book<'a>, Failure> {
        let mut stream = open(content)?;
        let workbook = Workbook::read(&mut stream)?;
        Ok(Book { stream, workbook })
    }

    /// Passes every cell of a sheet on.
    pub fn cells(&mut self, sheet: &str, rows: &mut Rows) -> Result<(), Failure> {
        let Book { stream, workbook } = self;
        let found = workbook.sheets.iter().find(|(name, ..)| name == sheet);
        let (_, _, begin) = found.ok_or_else(damaged)?;
        // Where the text goes that is behind the formula it is the value of.
        let mut awaited = None;
        each(stream, *begin, &mut |record| {
            let place = || Ok::<_, Failure>((u32::from(record.u16(0)?), u32::from(record.u16(2)?)));
            let form = || record.u16(4).map(usize::from);
            match record.kind {
                kind::NUMBER => {
                    let (row, column) = place()?;
                    workbook.number(rows, (row, column), form()?, record.double(6)?)?;
                }
                kind::PACKED => {
                    workbook.number(rows, place()?, form()?, packed(record.u32(6)?))?;
                }
                kind::NUMBERS => {
                    let (row, first) = place()?;
                    let count = record.data.len().saturating_sub(6) / 6;
                    for nth in 0..count {
                        let (form, number) = (record.u16(4 + nth * 6)?, record.u32(6 + nth * 6)?);
                        let column = first + nth as u32;
                        workbook.number(rows, (row, column), usize::from(form), packed(number))?;
                    }
                }
                kind::TEXT_OF => {
                    let (row, column) = place()?;
                    let text = workbook
                        .texts
                        .get(record.u32(6)? as usize)
                        .ok_or_else(damaged)?;
                    rows.cell(row, column, Kind::Text, text)?;
                }
                kind::LABEL | kind::RICH_TEXT => {
                    let (row, column) = place()?;
                    rows.cell(row, column, Kind::Text, &record.text(6)?)?;
                }
                kind::TRUTH => {
                    let ((row, column), value) = (place()?, record.u8(6)?);
                    truth(rows, row, column, value, record.u8(7)? != 0)?;
                }
                kind::FORMULA => {
                    let (row, column) = place()?;
                    awaited = None;
                    match (record.u16(12)?, record.u8(6)?) {
                        (0xFFFF, 0) => awaited = Some((row, column)),
                        (0xFFFF, 1) => truth(rows, row, column, record.u8(8)?, false)?,
                        (0xFFFF, 2) => truth(rows, row, column, record.u8(8)?, true)?,
                        (0xFFFF, _) => {}
                        _ => workbook.number(rows, (row, column), form()?, record.double(6)?)?,
                    }
                }
                kind::STRING => {
                    if let Some((row, column)) = awaited.take() {
                        rows.cell(row, column, Kind::Text, &record.text(0)?)?;
                    }
                }
                _ => {}
            }
            Ok(!rows.is_over)
        })
    }
}

fn truth(rows: &mut Rows, row: u32, column: u32, value: u8, is_error: bool) -> Result<(), Failure> {
    if !is_error {
        return rows.cell(row, column, Kind::Truth, &(value != 0).to_string());
    }
    let error = match value {
        0x00 => "#NULL!",
        0x07 => "#DIV/0!",
        0x0F => "#VALUE!",
        0x17 => "#REF!",
        0x1D => "#NAME?",
        0x24 => "#NUM!",
        0x2B => "#GETTING_DATA",
        _ => "#N/A",
    };
    rows.cell(row, column, Kind::Error, error)
}

/// A number in 30 bits: whole or the upper part of a double, perhaps in hundredths.
fn packed(bits: u32) -> f64 {
    let number = match bits & 2 != 0 {
        true => f64::from(bits.cast_signed() >> 2),
        false => f64::from_bits(u64::from(bits & !3) << 32),
    };
    if bits & 1 != 0 {
        number / 100.0
    } else {
        number
    }
}

impl Workbook {
    fn read(stream: &mut Stream) -> Result<Workbook, Failure> {
        let mut workbook = Workbook::default();
        let mut formats = std::collections::HashMap::new();
        let mut forms = Vec::new();
        let mut texts: Option<Texts> = None;
        each(stream, 0, &mut |record| {
            if record.kind != kind::CONTINUE
                && let Some(texts) = texts.take()
            {
                workbook.texts = texts.end()?;
            }
            match record.kind {
                kind::FILE_PASS => return Err(refused("the workbook is protected by a password")),
                kind::DATE_MODE => workbook.is_1904 = record.u16(0)? == 1,
                kind::FORMAT => {
                    let shows = shows(&record.text(2)?);
                    formats.insert(record.u16(0)?, shows);
                }
                kind::FORM => forms.push(record.u16(2)?),
                // The kind of sheet: 0 is a table.
                kind::SHEET if record.u8(5)? == 0 && workbook.sheets.len() < MOST_SHEETS => {
                    let begin = u64::from(record.u32(0)?);
                    let name = record.characters(7, usize::from(record.u8(6)?))?;
                    workbook.sheets.push((name, record.u8(4)? & 3 != 0, begin));
                }
                kind::TEXTS => texts = Some(Texts::begin(record)?),
                kind::CONTINUE => {
                    if let Some(texts) = &mut texts {
                        texts.go_on(record)?;
                    }
                }
                _ => {}
            }
            Ok(true)
        })?;
        if let Some(texts) = texts {
            workbook.texts = texts.end()?;
        }
        let shown = |format: u16| {
            formats
                .get(&format)
                .copied()
                .unwrap_or_else(|| built_in(format))
        };
        workbook.forms = forms.into_iter().map(shown).collect();
        Ok(workbook)
    }

    fn number(
        &self,
        rows: &mut Rows,
        (row, column): (u32, u32),
        form: usize,
        number: f64,
    ) -> Result<(), Failure> {
        match self.forms.get(form) {
            Some(Shows::Date) => rows.date(row, column, date(number, false, self.is_1904)),
            Some(Shows::Duration) => rows.date(row, column, date(number, true, self.is_1904)),
            _ => rows.number(row, column, number),
        }
    }
}
