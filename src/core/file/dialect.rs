//! The dialect of a text: its encoding and, for delimited text, its delimiter and quotes.

use std::io::Read;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::decoded::CHUNK;
use super::headings::{FIRST_ROWS, guess};
use super::layout::{Layout, TextFormat};
use super::row::{Kind, Row, usual};
use super::value::{self, Marks, Type};
use super::{Content, failure_of, markup, refused};
use crate::error::Failure;

/// The dialect of a delimited file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    pub encoding: &'static Encoding,
    pub delimiter: u8,
    pub quote: Option<u8>,
    /// What stands in front of a delimiter or quote that is part of a value.
    pub escape: Option<u8>,
    /// Whether the first line only names the delimiter.
    pub has_hint: bool,
}

/// How much of a file is read to find its delimiter.
const SAMPLE: usize = 64 * 1024;

/// The encoding that a file says it has, or that it is declared to have.
pub fn encoding(
    content: &mut dyn Content,
    declared: Option<&'static Encoding>,
) -> Result<&'static Encoding, Failure> {
    let start = beginning(content, 4)?;
    let marked = Encoding::for_bom(&start).map(|(encoding, _)| encoding);
    let wide = match start.as_slice() {
        [0, b, ..] if *b != 0 => Some(UTF_16BE),
        [b, 0, ..] if *b != 0 => Some(UTF_16LE),
        _ => None,
    };
    if let (None, None, Some(wide)) = (declared, marked, wide) {
        let name = wide.name().to_lowercase();
        return Err(refused(format!(
            "the file looks like UTF-16 without a byte order mark; if it is UTF-16, set config's \"encoding\" to \"{name}\""
        )));
    }
    Ok(marked.or(declared).unwrap_or(UTF_8))
}

pub fn beginning(content: &mut dyn Content, bytes: usize) -> Result<Vec<u8>, Failure> {
    content.rewind().map_err(failure_of)?;
    let mut start = Vec::new();
    content
        .take(bytes as u64)
        .read_to_end(&mut start)
        .map_err(failure_of)?;
    Ok(start)
}

impl Dialect {
    /// What is declared, and where it is not, what the beginning of the file shows.
    pub fn find(
        content: &mut dyn Content,
        name: &str,
        layout: &Layout,
        encoding: &'static Encoding,
    ) -> Result<Dialect, Failure> {
        let start = beginning(content, SAMPLE)?;
        let (text, _) = encoding.decode_with_bom_removal(&start);
        // The last line of a sample may be cut in the middle.
        let text = match start.len() < SAMPLE {
            true => &text,
            false => text.rsplit_once('\n').map_or(&*text, |(whole, _)| whole),
        };
        markup::check(text)?;
        let first = text.split(['\r', '\n']).next().unwrap_or_default();
        let unquoted = first
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        let unquoted = unquoted.unwrap_or(first).to_ascii_lowercase();
        let hint = match unquoted.strip_prefix("sep=").map(str::as_bytes) {
            Some([delimiter, ..]) if unquoted.trim_end().len() <= 5 => Some(*delimiter),
            _ => None,
        };
        let mut dialect = Dialect {
            encoding,
            delimiter: b',',
            quote: layout.quote,
            escape: layout.escape.filter(|escape| layout.quote != Some(*escape)),
            has_hint: hint.is_some(),
        };
        let is_tab = [".tsv", ".tab"]
            .iter()
            .any(|end| name.to_ascii_lowercase().ends_with(end));
        dialect.delimiter = match layout.delimiter.or(hint) {
            Some(delimiter) => delimiter,
            None if is_tab => b'\t',
            None => dialect.likely(text, layout),
        };
        Ok(dialect)
    }

    /// The delimiter by which the rows of a text are a table: by which the most columns of numbers or dates have a heading,
    /// or else by which the rows have the same number of cells, and more than one.
    fn likely(mut self, text: &str, layout: &Layout) -> u8 {
        if let Some(delimiter) = of_one_column(text, layout) {
            return delimiter;
        }
        let declared: Vec<&str> = layout
            .key
            .iter()
            .chain(layout.columns.iter().map(|(name, _)| name))
            .map(String::as_str)
            .collect();
        let plain = self.escape.map(|escape| without_escapes(text, escape));
        let text = plain.as_deref().unwrap_or(text);
        let mut best = (0, 0, 0.0, 1, b',');
        for delimiter in *b",;\t|" {
            self.delimiter = delimiter;
            let rows = self.first_rows(text);
            let named = rows
                .iter()
                .map(|row| {
                    row.iter()
                        .filter(|(_, cell)| declared.contains(&cell.trim()))
                        .count()
                })
                .max()
                .unwrap_or(0);
            let typed = guess(&rows).map_or(0, |guess| guess.typed());
            let (width, share) = usual(rows.iter().map(Row::width));
            let is_split = rows.iter().any(|row| row.width() > 1);
            let is_better = (named, typed, share, width) > (best.0, best.1, best.2, best.3);
            if is_better && (width > 1 || is_split && named + typed > 0) {
                best = (named, typed, share, width, delimiter);
            }
        }
        best.4
    }

    fn first_rows(&self, text: &str) -> Vec<Row> {
        let mut reader = self.reader().from_reader(text.as_bytes());
        let records = reader.records().take(FIRST_ROWS).flatten();
        let rows = records.zip(1..).map(|(record, number)| {
            let mut row = Row::default();
            row.clear(number);
            for cell in &record {
                row.push(Kind::Text, cell);
            }
            row
        });
        rows.collect()
    }

    /// The same dialect for the reader that goes on where a record is too long.
    pub fn core(&self) -> csv_core::Reader {
        csv_core::ReaderBuilder::new()
            .delimiter(self.delimiter)
            .quoting(self.quote.is_some())
            .quote(self.quote.unwrap_or(b'"'))
            .build()
    }

    fn reader(&self) -> csv::ReaderBuilder {
        let mut builder = csv::ReaderBuilder::new();
        builder
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .quoting(self.quote.is_some())
            .quote(self.quote.unwrap_or(b'"'))
            .buffer_capacity(CHUNK);
        builder
    }
}

/// A delimiter that no line has, where each line is one number: `1,50` is no two cells below a heading that is one.
fn of_one_column(text: &str, layout: &Layout) -> Option<u8> {
    let has_decimal_comma = layout
        .columns
        .iter()
        .any(|(_, declared)| matches!(declared, Type::Number(marks) if marks.decimal == ','));
    let marks = |decimal, thousands| Marks { decimal, thousands };
    let notations = [
        marks(',', None),
        marks(',', Some('.')),
        marks(',', Some(' ')),
        marks('.', Some(',')),
    ];
    let (mut numbers, mut others) = (0, 0);
    for line in text
        .lines()
        .map(|line| line.trim().trim_matches('"'))
        .filter(|line| !line.is_empty())
        .take(FIRST_ROWS)
    {
        if !line.contains(',') {
            others += 1;
        } else if notations
            .iter()
            .any(|marks| value::number(line, *marks).is_some())
        {
            numbers += 1;
        } else {
            return None;
        }
    }
    let is_one = numbers > 0 && (others > 0 || has_decimal_comma);
    let is_free = |delimiter: &u8| memchr::memchr(*delimiter, text.as_bytes()).is_none();
    let mut free = b";\t|".iter().copied();
    let all_are_free = is_one && free.clone().all(|delimiter| is_free(&delimiter));
    free.next().filter(|_| all_are_free)
}

/// A text for looking at its shape, with a letter in the place of each escaped character.
fn without_escapes(text: &str, escape: u8) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next == char::from(escape) {
            true => {
                rest.next();
                out.push('x');
            }
            false => out.push(next),
        }
    }
    out
}

/// What a text is written as, by config, by the file's name, or by how it begins.
pub fn text_format(
    content: &mut dyn Content,
    name: &str,
    layout: &Layout,
    encoding: &'static Encoding,
) -> Result<TextFormat, Failure> {
    if let Some(declared) = layout.format {
        return Ok(declared);
    }
    let name = name.to_ascii_lowercase();
    if [".jsonl", ".ndjson", ".jsonlines"]
        .iter()
        .any(|end| name.ends_with(end))
    {
        return Ok(TextFormat::JsonLines);
    }
    let start = beginning(content, SAMPLE)?;
    let (text, _) = encoding.decode_with_bom_removal(&start);
    let text = text.trim_start();
    let is_named = name.ends_with(".json") || !layout.records.is_empty();
    let follows = |rest: &str, first: &[char]| rest.trim_start().starts_with(first);
    let looks_so = match text.chars().next() {
        Some('{') => follows(text.get(1..).unwrap_or_default(), &['"', '}']),
        Some('[') => follows(text.get(1..).unwrap_or_default(), &['{']),
        _ => false,
    };
    if !is_named && (!looks_so || layout.delimiter.is_some()) {
        return Ok(TextFormat::Delimited);
    }
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    let is_object = serde_json::from_str::<&serde_json::value::RawValue>(line)
        .is_ok_and(|value| value.get().starts_with('{'));
    let is_lines = is_object && follows(rest, &['{']) && layout.records.is_empty();
    Ok(match is_lines {
        true => TextFormat::JsonLines,
        false => TextFormat::Json,
    })
}

/// Refuses a file that is plainly no text, whatever its name says.
pub fn check_is_text(start: &[u8]) -> Result<(), Failure> {
    let is_archive = start.starts_with(b"PK\x03\x04") || start.starts_with(b"\x1F\x8B");
    let is_compound = start.starts_with(b"\xD0\xCF\x11\xE0");
    if is_archive || is_compound {
        return Err(refused(
            "the file is a workbook or an archive, not text; upload workbooks to a connector of type \"excel\"",
        ));
    }
    markup::check(&markup::text(start))
}
