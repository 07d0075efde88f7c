//! The dialect of a text: its encoding and, for delimited text, its delimiter and quotes.

use std::io::Read;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::decoded::CHUNK;
use super::layout::Layout;
use super::row::usual;
use super::{Content, failure_of, refused};
use crate::error::Failure;

/// The dialect of a delimited file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    pub encoding: &'static Encoding,
    pub delimiter: u8,
    pub quote: Option<u8>,
    /// Whether the first line only names the delimiter.
    pub has_hint: bool,
}

/// How much of a file is read to find its delimiter.
const SAMPLE: usize = 64 * 1024;

/// Rows that are compared.
const COMPARED: usize = 50;

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

fn beginning(content: &mut dyn Content, bytes: usize) -> Result<Vec<u8>, Failure> {
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
        let first = text.lines().next().unwrap_or_default().trim_end();
        let hint = match first
            .to_ascii_lowercase()
            .strip_prefix("sep=")
            .map(str::as_bytes)
        {
            Some([delimiter]) => Some(*delimiter),
            _ => None,
        };
        let mut dialect = Dialect {
            encoding,
            delimiter: b',',
            quote: layout.quote,
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

    /// The delimiter by which the rows of a text have the same number of cells, and more than one.
    fn likely(mut self, text: &str, layout: &Layout) -> u8 {
        let declared: Vec<&str> = layout
            .key
            .iter()
            .chain(layout.columns.iter().map(|(name, _)| name))
            .map(String::as_str)
            .collect();
        let mut best = (0, 0.0, 1, b',');
        for delimiter in *b",;\t|" {
            self.delimiter = delimiter;
            let mut reader = self.reader().from_reader(text.as_bytes());
            let rows: Vec<csv::StringRecord> = reader.records().take(COMPARED).flatten().collect();
            let named = rows
                .iter()
                .map(|row| {
                    row.iter()
                        .filter(|cell| declared.contains(&cell.trim()))
                        .count()
                })
                .max()
                .unwrap_or(0);
            let (width, share) = usual(rows.iter().map(csv::StringRecord::len));
            if width > 1 && (named, share, width) > (best.0, best.1, best.2) {
                best = (named, share, width, delimiter);
            }
        }
        best.3
    }

    pub fn reader(&self) -> csv::ReaderBuilder {
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

/// JSON lines are recognised by the file's name, unless config decides.
pub fn is_json_lines(name: &str, layout: &Layout) -> bool {
    let name = name.to_ascii_lowercase();
    let ends = [".jsonl", ".ndjson", ".jsonlines"];
    layout
        .is_json_lines
        .unwrap_or_else(|| ends.iter().any(|end| name.ends_with(end)))
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
    Ok(())
}
