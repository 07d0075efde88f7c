//! XLS: BIFF8, what Excel 97 to 2003 wrote. Formulas are read by their value alone.

use std::io::{BufReader, Read, Seek, SeekFrom};

use super::super::row::Kind;
use super::archive::damaged;
use super::sheet::{self, About, Merged, Remembered, Rows};
use super::{Content, Failure, failure_of, refused, spoiled};

/// Largest file: what it says of itself is held in memory. A full sheet of 65,536 rows and 256 columns has 235 MB, but
/// such a one was hardly ever written.
const LARGEST: u64 = 128 * 1024 * 1024;
/// What its texts may take in memory.
const MOST_TEXTS: usize = 64 * 1024 * 1024;
const MOST_SHEETS: usize = 10_000;
/// How many times the stream may be read for all sheets. They lie beside each other, so once; ten thousand of a hostile
/// file may all be said to begin at the same place.
const MOST_TOLD: u64 = 16;

/// Numbers of records.
mod kind {
    pub const FORMULA: u16 = 0x0006;
    pub const EOF: u16 = 0x000A;
    pub const DATE_MODE: u16 = 0x0022;
    pub const FILE_PASS: u16 = 0x002F;
    pub const CONTINUE: u16 = 0x003C;
    pub const COLUMN: u16 = 0x007D;
    pub const SHEET: u16 = 0x0085;
    pub const NUMBERS: u16 = 0x00BD;
    pub const RICH_TEXT: u16 = 0x00D6;
    pub const FORM: u16 = 0x00E0;
    pub const MERGED: u16 = 0x00E5;
    pub const TEXTS: u16 = 0x00FC;
    pub const TEXT_OF: u16 = 0x00FD;
    pub const NUMBER: u16 = 0x0203;
    pub const LABEL: u16 = 0x0204;
    pub const TRUTH: u16 = 0x0205;
    pub const STRING: u16 = 0x0207;
    pub const ROW: u16 = 0x0208;
    pub const PACKED: u16 = 0x027E;
    pub const FORMAT: u16 = 0x041E;
    pub const BEGIN: u16 = 0x0809;
}

struct Stream<'a> {
    records: BufReader<cfb::Stream<&'a mut dyn Content>>,
    /// Bytes.
    size: u64,
    /// Without it nothing can be read.
    _compound: cfb::CompoundFile<&'a mut dyn Content>,
}

/// What the whole workbook says.
#[derive(Default)]
struct Workbook {
    is_1904: bool,
    /// Name, whether it is hidden, and where it begins.
    sheets: Vec<(String, bool, u64)>,
    /// Of each form of cells, whether it shows a date, or an amount of time.
    forms: Vec<Shows>,
    texts: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Number,
    Date,
    Duration,
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

/// A workbook of which all is known but the cells.
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

    /// Gives every cell of a sheet away.
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

fn open(content: &mut dyn Content) -> Result<Stream<'_>, Failure> {
    let size = content.seek(SeekFrom::End(0)).map_err(failure_of)?;
    if size > LARGEST {
        let most = LARGEST / 1024 / 1024;
        return Err(spoiled(format!(
            "an XLS workbook of more than {most} MB is not read; save it as XLSX"
        )));
    }
    content.rewind().map_err(failure_of)?;
    let mut compound = cfb::CompoundFile::open(content).map_err(|_| damaged())?;
    if compound.is_stream("/EncryptedPackage") {
        return Err(refused("the workbook is protected by a password"));
    }
    if !compound.is_stream("/Workbook") {
        let why = match compound.is_stream("/Book") {
            true => "the workbook is of Excel 95 or older; save it as XLSX",
            false => "the file is no workbook",
        };
        return Err(refused(why));
    }
    let stream = compound.open_stream("/Workbook").map_err(|_| damaged())?;
    Ok(Stream {
        size: stream.len().min(size),
        records: BufReader::with_capacity(64 * 1024, stream),
        _compound: compound,
    })
}

/// One record of the stream.
struct Record {
    kind: u16,
    data: Vec<u8>,
}

impl Record {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], Failure> {
        let bytes = self.data.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().ok_or_else(damaged)
    }

    fn u8(&self, at: usize) -> Result<u8, Failure> {
        self.bytes(at).map(|[byte]| byte)
    }

    fn u16(&self, at: usize) -> Result<u16, Failure> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, Failure> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn double(&self, at: usize) -> Result<f64, Failure> {
        self.bytes(at).map(f64::from_le_bytes)
    }

    /// A text with its length in two bytes.
    fn text(&self, at: usize) -> Result<String, Failure> {
        let length = usize::from(self.u16(at)?);
        self.characters(at + 2, length)
    }

    /// With one or two bytes for each character, as a flag in front of them says.
    fn characters(&self, at: usize, length: usize) -> Result<String, Failure> {
        let is_wide = self.u8(at)? & 1 != 0;
        let bytes = self.data.get(at + 1..).unwrap_or_default();
        decoded(bytes, length, is_wide).ok_or_else(damaged)
    }
}

fn decoded(bytes: &[u8], length: usize, is_wide: bool) -> Option<String> {
    if !is_wide {
        // The lower halves of UTF-16.
        return Some(
            bytes
                .get(..length)?
                .iter()
                .copied()
                .map(char::from)
                .collect(),
        );
    }
    let units = bytes.get(..length * 2)?.chunks_exact(2);
    let units = units.map(|unit| unit.try_into().map(u16::from_le_bytes).unwrap_or(0xFFFD));
    Some(
        char::decode_utf16(units)
            .map(|c| c.unwrap_or('\u{FFFD}'))
            .collect(),
    )
}

/// The next record. `None`: the stream is over.
fn next(stream: &mut Stream) -> Result<Option<Record>, Failure> {
    let mut head = [0; 4];
    match stream.records.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(failure_of(error)),
    }
    let [a, b, c, d] = head;
    let mut data = vec![0; usize::from(u16::from_le_bytes([c, d]))];
    stream
        .records
        .read_exact(&mut data)
        .map_err(|_| damaged())?;
    Ok(Some(Record {
        kind: u16::from_le_bytes([a, b]),
        data,
    }))
}

/// The records of a part of the stream, without those of parts within it (charts), as far as `visit` wants.
fn each(
    stream: &mut Stream,
    begin: u64,
    visit: &mut dyn FnMut(&Record) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let sought = stream.records.seek(SeekFrom::Start(begin));
    sought.map_err(|_| damaged())?;
    let mut depth = 0_u32;
    loop {
        let record = next(stream)?.ok_or_else(damaged)?;
        match record.kind {
            kind::BEGIN => {
                // 0x0600: BIFF8.
                if record.u16(0)? != 0x0600 {
                    return Err(refused(
                        "the workbook is of Excel 95 or older; save it as XLSX",
                    ));
                }
                depth += 1;
            }
            kind::EOF => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Ok(());
                }
            }
            _ if depth == 0 => return Err(damaged()),
            _ if depth == 1 && !visit(&record)? => return Ok(()),
            _ => {}
        }
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
            Some(Shows::Date) => rows.date(row, column, sheet::date(number, false, self.is_1904)),
            Some(Shows::Duration) => {
                rows.date(row, column, sheet::date(number, true, self.is_1904))
            }
            _ => rows.number(row, column, number),
        }
    }
}

fn built_in(format: u16) -> Shows {
    match format {
        14..=22 | 27..=36 | 45 | 47 | 50..=58 => Shows::Date,
        46 => Shows::Duration,
        _ => Shows::Number,
    }
}

/// What a format shows, by its first part: the letters of dates that are no text.
fn shows(format: &str) -> Shows {
    let mut rest = format.chars();
    let mut letters = String::new();
    while let Some(c) = rest.next() {
        match c {
            ';' => break,
            '\\' | '_' | '*' => {
                rest.next();
            }
            '"' => {
                let _ = rest.find(|c| *c == '"');
            }
            '[' => {
                let inside: String = rest.by_ref().take_while(|c| *c != ']').collect();
                let inside = inside.to_ascii_lowercase();
                let is_time = |letter: char| inside.chars().all(|c| c == letter);
                // Anything else is a color, a currency or a condition.
                if !inside.is_empty() && ['h', 'm', 's'].into_iter().any(is_time) {
                    return Shows::Duration;
                }
            }
            other => letters.push(other.to_ascii_lowercase()),
        }
    }
    match letters
        .replace("general", "")
        .contains(['y', 'd', 'h', 's', 'm'])
    {
        true => Shows::Date,
        false => Shows::Number,
    }
}

/// The texts of a workbook, which go on over the ends of records: in the middle of a text a record begins with how
/// wide its characters are from there on.
struct Texts {
    texts: Vec<String>,
    bytes: usize,
    /// Of the text at hand: its characters, how many are to come, and how many bytes of formats are behind them.
    text: Vec<u16>,
    characters: usize,
    is_wide: bool,
    behind: usize,
    is_open: bool,
    /// What of a head did not fit into a record.
    left: Vec<u8>,
}

impl Texts {
    fn begin(record: &Record) -> Result<Texts, Failure> {
        let mut texts = Texts {
            texts: Vec::new(),
            bytes: 0,
            text: Vec::new(),
            characters: 0,
            is_wide: false,
            behind: 0,
            is_open: false,
            left: Vec::new(),
        };
        // How many there are is not believed.
        texts.take(record.data.get(8..).ok_or_else(damaged)?)?;
        Ok(texts)
    }

    fn go_on(&mut self, record: &Record) -> Result<(), Failure> {
        let mut data = record.data.as_slice();
        if self.characters > 0 {
            let (flags, rest) = data.split_first().ok_or_else(damaged)?;
            self.is_wide = flags & 1 != 0;
            data = rest;
        }
        self.take(data)
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Failure> {
        let mut all = std::mem::take(&mut self.left);
        all.extend_from_slice(data);
        let mut data = all.as_slice();
        while !data.is_empty() {
            if self.characters > 0 {
                let width = if self.is_wide { 2 } else { 1 };
                let here = self.characters.min(data.len() / width);
                if here == 0 {
                    return Err(damaged());
                }
                let (characters, rest) = data.split_at(here * width);
                self.text
                    .extend(characters.chunks_exact(width).map(|unit| match unit {
                        [low, high] => u16::from_le_bytes([*low, *high]),
                        [low, ..] => u16::from(*low),
                        [] => 0,
                    }));
                self.characters -= here;
                data = rest;
            } else if self.behind > 0 {
                let here = self.behind.min(data.len());
                self.behind -= here;
                data = data.split_at(here).1;
            } else {
                self.close()?;
                match self.open(data)? {
                    Some(rest) => data = rest,
                    None => {
                        self.left = data.to_vec();
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads the head of a text. `None`: it goes on in the next record.
    fn open<'a>(&mut self, data: &'a [u8]) -> Result<Option<&'a [u8]>, Failure> {
        let head = |at: usize, bytes: usize| data.get(at..at + bytes);
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0_usize, |n, b| n << 8 | usize::from(*b))
        };
        let Some([a, b, flags]) = head(0, 3) else {
            return Ok(None);
        };
        let (mut at, mut behind) = (3, 0_usize);
        if flags & 8 != 0 {
            let Some(runs) = head(at, 2) else {
                return Ok(None);
            };
            behind += 4 * number(runs);
            at += 2;
        }
        if flags & 4 != 0 {
            let Some(bytes) = head(at, 4) else {
                return Ok(None);
            };
            behind += number(bytes);
            at += 4;
        }
        self.characters = number(&[*a, *b]);
        self.is_wide = flags & 1 != 0;
        self.behind = behind;
        self.is_open = true;
        Ok(data.get(at..))
    }

    fn close(&mut self) -> Result<(), Failure> {
        if !std::mem::take(&mut self.is_open) {
            return Ok(());
        }
        let text = String::from_utf16_lossy(&self.text);
        self.text.clear();
        self.bytes += text.len() + size_of::<String>() + 16;
        if self.bytes > MOST_TEXTS {
            let most = MOST_TEXTS / 1024 / 1024;
            return Err(spoiled(format!(
                "the texts of the workbook take more than {most} MB"
            )));
        }
        self.texts.push(text);
        Ok(())
    }

    fn end(mut self) -> Result<Vec<String>, Failure> {
        if self.characters > 0 {
            return Err(damaged());
        }
        self.close()?;
        Ok(self.texts)
    }
}
