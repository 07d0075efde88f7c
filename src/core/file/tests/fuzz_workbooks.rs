//! Workbooks: XLSX that `rust_xlsxwriter` writes, ODS and XLS that are written here, each read as what was put in; and
//! all three damaged, as files and in their parts.

use std::collections::HashMap;
use std::io::{Cursor, Read, Write};

use chrono::{NaiveDate, TimeDelta};
use rust_xlsxwriter::{ExcelDateTime, Format, Formula, Worksheet};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::fuzz::read_twice;
use super::try_read;
use crate::fuzz::{Random, damaged, each, grows_with_its_size};

/// Held for a workbook of this size: buffers, a part, and what a deflated part may become many times over.
fn enough(bytes: usize) -> usize {
    24 * 1024 * 1024 + 300 * bytes
}

#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Blank,
    Text(String),
    Number(f64),
    Truth(bool),
    /// Days, and seconds of the day.
    Date(NaiveDate, u32),
    Time(u32),
    /// A formula that comes to a text.
    Formula(String),
    DivisionByZero,
}

impl Cell {
    fn value(&self) -> Value {
        match self {
            Cell::Blank => Value::Null,
            Cell::Text(text) | Cell::Formula(text) => json!(text),
            Cell::Number(number) => json!(number),
            Cell::Truth(truth) => json!(truth),
            Cell::Date(day, 0) => json!(day.to_string()),
            Cell::Date(day, seconds) => json!(format!("{day}T{}", clock(*seconds))),
            Cell::Time(seconds) => json!(clock(*seconds)),
            Cell::DivisionByZero => json!("#DIV/0!"),
        }
    }

    fn is(&self, text: &str) -> bool {
        match self {
            // serde_json is off by the last bit of some.
            Cell::Number(number) => text.parse() == Ok(*number),
            other => serde_json::from_str::<Value>(text).unwrap() == other.value(),
        }
    }

    fn is_blank(&self) -> bool {
        match self {
            Cell::Blank => true,
            Cell::Text(text) | Cell::Formula(text) => text.trim().is_empty(),
            _ => false,
        }
    }

    /// As a workbook counts them, from 1900.
    fn days(&self) -> f64 {
        match self {
            Cell::Date(day, seconds) => {
                let epoch = NaiveDate::from_ymd_opt(1899, 12, 30).unwrap();
                (*day - epoch).num_days() as f64 + f64::from(*seconds) / 86_400.0
            }
            Cell::Time(seconds) => f64::from(*seconds) / 86_400.0,
            _ => 0.0,
        }
    }
}

fn clock(seconds: u32) -> String {
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

#[derive(Debug)]
struct Sheet {
    headings: Vec<String>,
    rows: Vec<Vec<Cell>>,
    hidden: Vec<bool>,
    /// Of rows below the headings: first and last row, first and last column; they do not overlap.
    merged: Vec<(usize, usize, usize, usize)>,
}

fn cell(random: &mut Random) -> Cell {
    let seconds = random.pick(&[0, 1, 59, 60, 3_600, 49_530, 86_399, 43_200]);
    match random.below(9) {
        0 | 1 => Cell::Blank,
        2 => {
            let text = random.text(9);
            let text = text.replace(
                |c: char| c.is_control() && c != '\n' || c == '\u{feff}',
                "x",
            );
            // Blanks at the ends are another matter in each form.
            let text = text.trim().to_owned();
            if text.is_empty() {
                Cell::Blank
            } else {
                Cell::Text(text)
            }
        }
        3 => Cell::Number(random.pick(&[
            0.0,
            1.0,
            -1.0,
            0.1,
            1e15,
            123_456_789.25,
            1e-7,
            -99.99,
            1e21,
            5e-324,
            1.797e308,
        ])),
        4 => Cell::Number(random.number() as i32 as f64 / random.pick(&[1.0, 100.0, 3.0])),
        5 => Cell::Truth(random.percent(50)),
        6 => {
            let first = NaiveDate::from_ymd_opt(1900, 3, 1).unwrap();
            let day = first + TimeDelta::days(random.below(2_958_000) as i64);
            Cell::Date(day, seconds)
        }
        7 => Cell::Time(seconds),
        _ => random.pick(&[Cell::Formula("comes to".to_owned()), Cell::DivisionByZero]),
    }
}

fn sheet(random: &mut Random) -> Sheet {
    let width = random.between(1, 6);
    let height = random.between(1, 12);
    let row = |random: &mut Random| {
        let mut row: Vec<Cell> = (0..width).map(|_| cell(random)).collect();
        // One row more often than not says something.
        row[0] = Cell::Text(format!("r{}", random.word(3)));
        row
    };
    let mut sheet = Sheet {
        headings: (0..width).map(|at| format!("h{at}")).collect(),
        rows: (0..height).map(|_| row(random)).collect(),
        hidden: (0..height).map(|_| random.percent(15)).collect(),
        merged: Vec::new(),
    };
    if width > 2 && height > 2 && random.percent(40) {
        let (top, left) = (random.below(height - 1), random.between(1, width - 2));
        let (bottom, right) = (
            random.between(top + 1, height - 1),
            random.between(left, width - 1),
        );
        // Its value is in its first cell, and nothing in the others.
        for row in top..=bottom {
            for column in left..=right {
                if (row, column) != (top, left) {
                    sheet.rows[row][column] = Cell::Blank;
                }
            }
        }
        sheet.rows[top][left] = Cell::Text("m".to_owned());
        sheet.merged.push((top, bottom, left, right));
    }
    sheet
}

impl Sheet {
    fn expected(&self, fills: bool, skips: bool) -> Vec<Vec<Cell>> {
        let mut rows = self.rows.clone();
        if fills {
            for (top, bottom, left, right) in &self.merged {
                let value = rows[*top][*left].clone();
                for row in &mut rows[*top..=*bottom] {
                    row[*left..=*right].fill(value.clone());
                }
            }
        }
        let rows = rows
            .into_iter()
            .zip(&self.hidden)
            .filter(|(_, hidden)| !skips || !**hidden);
        rows.map(|(row, _)| row)
            .filter(|row| !row.iter().all(Cell::is_blank))
            .collect()
    }

    fn check(&self, texts: &[String], fills: bool, skips: bool) {
        let expected = self.expected(fills, skips);
        assert_eq!(texts.len(), expected.len(), "{texts:?}\n{self:?}");
        for (row, value) in expected.iter().zip(texts) {
            let fields: HashMap<String, &RawValue> = serde_json::from_str(value).unwrap();
            for (cell, heading) in row.iter().zip(&self.headings) {
                // Behind the last cell nothing is said.
                let value = fields.get(heading).map_or("null", |value| value.get());
                assert!(cell.is(value), "{cell:?} is {value}");
            }
        }
    }
}

fn config(random: &mut Random) -> (Value, bool, bool) {
    let (fills, skips) = (random.percent(50), random.percent(50));
    (
        json!({"header": 1, "fill_merged": fills, "skip_hidden": skips, "sheets": ["S"]}),
        fills,
        skips,
    )
}

fn xlsx(sheet: &Sheet) -> Vec<u8> {
    let mut book = rust_xlsxwriter::Workbook::new();
    let page = book.add_worksheet().set_name("S").unwrap();
    fill(page, sheet);
    book.add_worksheet().set_name("Other").unwrap();
    book.save_to_buffer().unwrap()
}

fn fill(page: &mut Worksheet, sheet: &Sheet) {
    let plain = Format::new();
    let dated = Format::new().set_num_format("yyyy-mm-dd hh:mm:ss");
    for (column, heading) in sheet.headings.iter().enumerate() {
        page.write(0, column as u16, heading).unwrap();
    }
    for (top, bottom, left, right) in &sheet.merged {
        page.merge_range(
            *top as u32 + 1,
            *left as u16,
            *bottom as u32 + 1,
            *right as u16,
            "m",
            &plain,
        )
        .unwrap();
    }
    for (number, row) in sheet.rows.iter().enumerate() {
        let number = number as u32 + 1;
        if sheet.hidden[number as usize - 1] {
            page.set_row_hidden(number).unwrap();
        }
        for (column, cell) in row.iter().enumerate() {
            let column = column as u16;
            match cell {
                Cell::Blank => continue,
                Cell::Text(text) => page.write(number, column, text).unwrap(),
                Cell::Number(value) => page.write(number, column, *value).unwrap(),
                Cell::Truth(truth) => page.write(number, column, *truth).unwrap(),
                Cell::Date(..) | Cell::Time(_) => {
                    let date = ExcelDateTime::from_serial_datetime(cell.days()).unwrap();
                    page.write_with_format(number, column, date, &dated)
                        .unwrap()
                }
                Cell::Formula(text) => page
                    .write(number, column, Formula::new("=A1&B1").set_result(text))
                    .unwrap(),
                Cell::DivisionByZero => page
                    .write(number, column, Formula::new("=1/0").set_result("#DIV/0!"))
                    .unwrap(),
            };
        }
    }
}

fn archive(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        writer
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn escaped(text: &str) -> String {
    let text = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    text.replace('"', "&quot;")
}

/// A text as ODS has it: lines are paragraphs, and of several blanks all but one are counted.
fn paragraphs(text: &str) -> String {
    let lines = text.split('\n').map(|line| {
        let line = escaped(line).replace("  ", " <text:s text:c=\"1\"/>");
        let line = line.replace('é', "<text:span>&#233;</text:span>");
        format!("<text:p>{line}</text:p>")
    });
    lines.collect()
}

fn ods(random: &mut Random, sheet: &Sheet) -> Vec<u8> {
    let headings: Vec<Cell> = sheet.headings.iter().cloned().map(Cell::Text).collect();
    let mut rows = String::new();
    let all = std::iter::once(&headings).chain(&sheet.rows);
    for (number, row) in all.enumerate() {
        let mut cells = String::new();
        for (column, cell) in row.iter().enumerate() {
            let merged = sheet
                .merged
                .iter()
                .find(|(top, _, left, _)| (top + 1, *left) == (number, column));
            let spanned = merged.map_or(String::new(), |(top, bottom, left, right)| {
                format!(
                    " table:number-rows-spanned=\"{}\" table:number-columns-spanned=\"{}\"",
                    bottom - top + 1,
                    right - left + 1
                )
            });
            let (kind, said, text) = match cell {
                Cell::Blank => (String::new(), String::new(), String::new()),
                Cell::Text(text) => ("string".into(), String::new(), paragraphs(text)),
                Cell::Formula(text) => (
                    "string".into(),
                    format!(
                        "table:formula=\"of:=[.A1]\" office:string-value=\"{}\"",
                        escaped(text)
                    ),
                    paragraphs(text),
                ),
                Cell::Number(number) => (
                    "float".into(),
                    format!("office:value=\"{number:e}\""),
                    paragraphs("shown"),
                ),
                Cell::Truth(truth) => (
                    "boolean".into(),
                    format!("office:boolean-value=\"{truth}\""),
                    paragraphs("TRUE"),
                ),
                Cell::Date(day, 0) => (
                    "date".into(),
                    format!("office:date-value=\"{day}\""),
                    paragraphs("shown"),
                ),
                Cell::Date(day, seconds) => (
                    "date".into(),
                    format!("office:date-value=\"{day}T{}\"", clock(*seconds)),
                    String::new(),
                ),
                Cell::Time(seconds) => {
                    let time = format!(
                        "PT{:02}H{:02}M{:02}S",
                        seconds / 3_600,
                        seconds / 60 % 60,
                        seconds % 60
                    );
                    (
                        "time".into(),
                        format!("office:time-value=\"{time}\""),
                        String::new(),
                    )
                }
                Cell::DivisionByZero => (
                    "string".into(),
                    "calcext:value-type=\"error\"".into(),
                    paragraphs("#DIV/0!"),
                ),
            };
            let kind = if kind.is_empty() {
                kind
            } else {
                format!("office:value-type=\"{kind}\"")
            };
            let name = if number > 0 && column == 2 && merged.is_none() && *cell == Cell::Blank {
                "covered-table-cell"
            } else {
                "table-cell"
            };
            cells.push_str(&format!(
                "<table:{name} {kind} {said}{spanned}>{text}</table:{name}>"
            ));
        }
        let hidden = if number > 0 && sheet.hidden[number - 1] {
            " table:visibility=\"collapse\""
        } else {
            ""
        };
        rows.push_str(&format!("<table:table-row{hidden}>{cells}<table:table-cell table:number-columns-repeated=\"16000\"/></table:table-row>"));
        if random.percent(10) {
            rows.push_str("<table:table-row table:number-rows-repeated=\"1000\"><table:table-cell table:number-columns-repeated=\"3\"/></table:table-row>");
        }
    }
    let content = content(&rows);
    archive(&[
        (
            "mimetype",
            b"application/vnd.oasis.opendocument.spreadsheet",
        ),
        ("content.xml", content.as_bytes()),
    ])
}

fn content(rows: &str) -> String {
    format!(
        "<office:document-content xmlns:office=\"o\" xmlns:table=\"t\" xmlns:text=\"x\" xmlns:calcext=\"c\"><office:body><office:spreadsheet><table:table table:name=\"S\">{rows}</table:table></office:spreadsheet></office:body></office:document-content>"
    )
}

fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    [
        &kind.to_le_bytes()[..],
        &(data.len() as u16).to_le_bytes(),
        data,
    ]
    .concat()
}

/// A text of BIFF8: its length, a flag, and one or two bytes for each unit.
fn units(text: &str) -> Vec<u8> {
    let wide: Vec<u16> = text.encode_utf16().collect();
    let is_wide = wide.iter().any(|unit| *unit > 0xFF);
    let mut bytes = (wide.len() as u16).to_le_bytes().to_vec();
    bytes.push(is_wide.into());
    for unit in wide {
        match is_wide {
            true => bytes.extend(unit.to_le_bytes()),
            false => bytes.push(unit as u8),
        }
    }
    bytes
}

/// The stream of an XLS workbook.
fn biff(random: &mut Random, sheet: &Sheet) -> Vec<u8> {
    let begin = record(0x0809, &[0, 6, 5, 0]);
    let end = record(0x000A, &[]);
    let mut texts: Vec<&str> = Vec::new();
    let mut cells = Vec::new();
    let headings: Vec<Cell> = sheet.headings.iter().cloned().map(Cell::Text).collect();
    let place = |row: usize, column: usize, form: u16| {
        [
            (row as u16).to_le_bytes(),
            (column as u16).to_le_bytes(),
            form.to_le_bytes(),
        ]
        .concat()
    };
    let all: Vec<&Vec<Cell>> = std::iter::once(&headings).chain(&sheet.rows).collect();
    for (number, hidden) in sheet
        .hidden
        .iter()
        .enumerate()
        .filter(|(_, hidden)| **hidden)
    {
        let mut row = vec![0; 16];
        row[..2].copy_from_slice(&(number as u16 + 1).to_le_bytes());
        row[12] = if *hidden { 0x20 } else { 0 };
        cells.extend(record(0x0208, &row));
    }
    for (number, row) in all.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let at = |form| place(number, column, form);
            match cell {
                Cell::Blank => {}
                Cell::Text(text) => {
                    let index = texts.len() as u32;
                    texts.push(text);
                    cells.extend(record(
                        0x00FD,
                        &[at(0), index.to_le_bytes().to_vec()].concat(),
                    ));
                }
                Cell::Number(value)
                    if value.fract() == 0.0
                        && value.abs() < 500_000_000.0
                        && random.percent(50) =>
                {
                    let packed = ((*value as i32) << 2 | 2).to_le_bytes();
                    match random.percent(50) {
                        true => cells.extend(record(0x027E, &[at(0), packed.to_vec()].concat())),
                        // One of a run of them.
                        false => cells.extend(record(
                            0x00BD,
                            &[
                                place(number, column, 0),
                                packed.to_vec(),
                                (column as u16).to_le_bytes().to_vec(),
                            ]
                            .concat(),
                        )),
                    }
                }
                Cell::Number(value) => cells.extend(record(
                    0x0203,
                    &[at(0), value.to_le_bytes().to_vec()].concat(),
                )),
                Cell::Truth(truth) => {
                    cells.extend(record(0x0205, &[at(0), vec![(*truth).into(), 0]].concat()))
                }
                Cell::DivisionByZero => {
                    cells.extend(record(0x0205, &[at(0), vec![0x07, 1]].concat()))
                }
                Cell::Date(..) | Cell::Time(_) => cells.extend(record(
                    0x0203,
                    &[at(1), cell.days().to_le_bytes().to_vec()].concat(),
                )),
                Cell::Formula(text) => {
                    cells.extend(record(
                        0x0006,
                        &[at(0), vec![0, 0, 0, 0, 0, 0, 0xFF, 0xFF], vec![0; 8]].concat(),
                    ));
                    cells.extend(record(0x0207, &units(text)));
                }
            }
        }
    }
    if !sheet.merged.is_empty() {
        let mut merged = (sheet.merged.len() as u16).to_le_bytes().to_vec();
        for (top, bottom, left, right) in &sheet.merged {
            for edge in [top + 1, bottom + 1, *left, *right] {
                merged.extend((edge as u16).to_le_bytes());
            }
        }
        cells.extend(record(0x00E5, &merged));
    }
    let form = |format: u16| {
        record(
            0x00E0,
            &[&[0, 0][..], &format.to_le_bytes(), &[0; 16]].concat(),
        )
    };
    let mut globals = [form(0), form(22)].concat();
    // The texts, cut where a record happens to end: within a text each part says how wide it is.
    let mut data = vec![0; 8];
    let mut kind = 0x00FC;
    for text in &texts {
        let bytes = units(text);
        let (flag, body) = (bytes[2], &bytes[3..]);
        let width = if flag == 1 { 2 } else { 1 };
        data.extend_from_slice(&bytes[..3]);
        let whole = body.len() / width;
        if whole > 1 && random.percent(20) {
            let cut = random.between(1, whole - 1) * width;
            data.extend_from_slice(&body[..cut]);
            globals.extend(record(kind, &std::mem::take(&mut data)));
            kind = 0x003C;
            data.push(flag);
            data.extend_from_slice(&body[cut..]);
        } else {
            data.extend_from_slice(body);
        }
    }
    globals.extend(record(kind, &data));
    let bound = |begin: usize| {
        record(
            0x0085,
            &[&(begin as u32).to_le_bytes()[..], &[0, 0, 1, 0, b'S']].concat(),
        )
    };
    let head = begin.len() + globals.len() + bound(0).len() + end.len();
    [
        &begin[..],
        &globals,
        &bound(head),
        &end,
        &begin,
        &cells,
        &end,
    ]
    .concat()
}

fn compound(stream: &[u8]) -> Vec<u8> {
    let mut file = cfb::CompoundFile::create(Cursor::new(Vec::new())).unwrap();
    file.create_stream("/Workbook")
        .unwrap()
        .write_all(stream)
        .unwrap();
    file.into_inner().into_inner()
}

#[test]
fn a_workbook_of_a_writer_library_is_read_back() {
    each("XLSX", |random| {
        let sheet = sheet(random);
        let (config, fills, skips) = config(random);
        let bytes = xlsx(&sheet);
        let came = read_twice("excel", "x.xlsx", &bytes, &config, enough(bytes.len()));
        sheet.check(
            &came.unwrap_or_else(|failure| panic!("{failure}")).texts(),
            fills,
            skips,
        );
    });
}

#[test]
fn an_ods_workbook_is_read_back() {
    each("ODS", |random| {
        let sheet = sheet(random);
        let (config, fills, skips) = config(random);
        let bytes = ods(random, &sheet);
        let came = read_twice("excel", "x.ods", &bytes, &config, enough(bytes.len()));
        let came = came.unwrap_or_else(|failure| panic!("{failure} {sheet:?}"));
        // Rows between the others move what is merged.
        if sheet.merged.is_empty() {
            sheet.check(&came.texts(), fills, skips);
        }
    });
}

#[test]
fn an_xls_workbook_is_read_back() {
    each("XLS", |random| {
        let sheet = sheet(random);
        let (config, fills, skips) = config(random);
        let bytes = compound(&biff(random, &sheet));
        let came = read_twice("excel", "x.xls", &bytes, &config, enough(bytes.len()));
        sheet.check(
            &came.unwrap_or_else(|failure| panic!("{failure}")).texts(),
            fills,
            skips,
        );
    });
}

fn parts_of(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut parts = Vec::new();
    for at in 0..archive.len() {
        let mut file = archive.by_index(at).unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        parts.push((file.name().unwrap().into_owned(), content));
    }
    parts
}

/// The parts of an archive, one or two of them damaged.
fn damaged_parts(random: &mut Random, bytes: &[u8], others: &[u8]) -> Vec<u8> {
    let mut parts = parts_of(bytes);
    let telling = [
        "sheet1",
        "workbook",
        "sharedStrings",
        "styles",
        "content.xml",
        "rels",
    ];
    for _ in 0..=random.few(3) {
        let telling = random.pick(&telling);
        let found = parts.iter().position(|(name, _)| name.contains(telling));
        let at = found.unwrap_or_else(|| random.below(parts.len()));
        parts[at].1 = damaged(random, &parts[at].1, others);
    }
    if random.percent(10) {
        let at = random.below(parts.len());
        let again = parts[at].clone();
        parts.push((format!("{}x", again.0), again.1));
    }
    let parts: Vec<(&str, &[u8])> = parts
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    self::archive(&parts)
}

const XML: &[u8] = br#"<row r="1048576" hidden="1"><c r="XFD1048576" s="4294967295" t="s"><f>1</f><v>4294967295</v></c></row><c t="d"><v>-1e308</v></c>
<mergeCell ref="A1:XFD1048576"/><sheet name="x" r:id="rId1"/><si><t>_x0000_</t></si><xf numFmtId="14"/><numFmt numFmtId="164" formatCode="[h]"/>
table:number-rows-repeated="4294967295" table:number-columns-repeated="4294967295" office:value="1e400" office:time-value="PT9999999999H0M0S"
office:date-value="-99999" office:value-type="time" table:visibility="collapse" <table:table table:name="S"> <text:s text:c="4294967295"/>"#;

#[test]
fn a_damaged_workbook_is_read_or_refused() {
    each("damaged XLSX", |random| {
        let sheet = sheet(random);
        let (config, ..) = config(random);
        let bytes = xlsx(&sheet);
        let bytes = match random.percent(25) {
            true => damaged(random, &bytes, XML),
            false => damaged_parts(random, &bytes, XML),
        };
        let _ = read_twice("excel", "x.xlsx", &bytes, &config, enough(bytes.len()));
    });
}

#[test]
fn a_damaged_ods_is_read_or_refused() {
    each("damaged ODS", |random| {
        let sheet = sheet(random);
        let (config, ..) = config(random);
        let bytes = ods(random, &sheet);
        let bytes = match random.percent(20) {
            true => damaged(random, &bytes, XML),
            false => damaged_parts(random, &bytes, XML),
        };
        let _ = read_twice("excel", "x.ods", &bytes, &config, enough(bytes.len()));
    });
}

#[test]
fn a_damaged_xls_is_read_or_refused() {
    each("damaged XLS", |random| {
        let (sheet, other) = (sheet(random), sheet(random));
        let (config, ..) = config(random);
        let stream = biff(random, &sheet);
        let other = biff(random, &other);
        let bytes = match random.percent(35) {
            true => damaged(random, &compound(&stream), &other),
            false => compound(&damaged(random, &stream, &other)),
        };
        let _ = read_twice("excel", "x.xls", &bytes, &config, enough(bytes.len()));
    });
}

#[test]
fn no_workbook_takes_longer_than_its_size_says() {
    let read_it = |bytes: &Vec<u8>| {
        let config =
            json!({"fill_merged": true, "skip_hidden": true, "sheets": ["S"], "header": false});
        let _ = try_read("excel", "x", bytes, config);
    };
    let of_rows = |row: &'static str| {
        move |size: usize| archive(&[("content.xml", content(&row.repeat(size)).as_bytes())])
    };
    grows_with_its_size(
        "rows of an ODS",
        300,
        of_rows(
            r#"<table:table-row><table:table-cell office:value-type="float" office:value="1"/></table:table-row>"#,
        ),
        read_it,
    );
    grows_with_its_size(
        "hidden rows of an ODS",
        300,
        of_rows(
            r#"<table:table-row table:visibility="collapse"><table:table-cell office:value-type="float" office:value="1"/></table:table-row>"#,
        ),
        read_it,
    );
    grows_with_its_size(
        "merged cells of an ODS",
        300,
        of_rows(
            r#"<table:table-row><table:table-cell office:value-type="float" office:value="1" table:number-rows-spanned="100000"/></table:table-row>"#,
        ),
        read_it,
    );
    let book = |rows: usize, each: fn(usize) -> String, behind: fn(usize) -> String| {
        let sheet = Sheet {
            headings: vec!["a".into()],
            rows: Vec::new(),
            hidden: Vec::new(),
            merged: Vec::new(),
        };
        let bytes = xlsx(&sheet);
        let mut parts = parts_of(&bytes);
        for (name, content) in &mut parts {
            if name.ends_with("sheet1.xml") {
                let all: String = (1..=rows).map(each).collect();
                *content = format!("<worksheet xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\"><sheetData>{all}</sheetData>{}</worksheet>", behind(rows)).into_bytes();
            }
        }
        let parts: Vec<(&str, &[u8])> = parts
            .iter()
            .map(|(name, content)| (name.as_str(), content.as_slice()))
            .collect();
        self::archive(&parts)
    };
    let cell: fn(usize) -> String =
        |row| format!("<row r=\"{row}\"><c r=\"A{row}\"><v>1</v></c></row>");
    grows_with_its_size(
        "rows of an XLSX",
        300,
        |size| book(size, cell, |_| String::new()),
        read_it,
    );
    grows_with_its_size(
        "merged cells of an XLSX",
        300,
        |size| {
            book(size, cell, |rows| {
                let all: String = (1..=rows)
                    .map(|row| format!("<mergeCell ref=\"A{row}:BZ1048576\"/>"))
                    .collect();
                format!("<mergeCells>{all}</mergeCells>")
            })
        },
        read_it,
    );
    // Sheets that all lie over each other.
    grows_with_its_size(
        "sheets of an XLS",
        100,
        |size| {
            let begin = record(0x0809, &[0, 6, 5, 0]);
            let end = record(0x000A, &[]);
            let bound = |begin: usize| {
                record(
                    0x0085,
                    &[&(begin as u32).to_le_bytes()[..], &[0, 0, 1, 0, b'S']].concat(),
                )
            };
            let head = begin.len() + size * bound(0).len() + end.len();
            let bounds: Vec<u8> = (0..size).flat_map(|_| bound(head)).collect();
            let rows = record(0x0208, &[0; 16]).repeat(size);
            compound(&[&begin[..], &bounds, &end, &begin, &rows, &end].concat())
        },
        read_it,
    );
}
