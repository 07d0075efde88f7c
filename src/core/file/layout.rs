//! What a connector's config declares about its files.

use encoding_rs::Encoding;

use super::value::Type;

/// The two types of connectors that take files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Delimited text and JSON lines.
    Text,
    Workbook,
}

#[derive(Debug, Clone)]
pub struct Layout {
    pub family: Family,
    /// Stream name of the records, where sheets do not name them.
    pub stream: String,
    /// Headings of the columns that identify a row; empty: the whole row does.
    pub key: Vec<String>,
    /// The same for sheets that have a key of their own.
    pub keys: Vec<(String, Vec<String>)>,
    /// Headings, and the types of their columns.
    pub columns: Vec<(String, Type)>,
    /// Texts that mean NULL.
    pub nulls: Vec<String>,
    pub header: Header,
    /// Declared headings, where the file has none.
    pub headings: Vec<String>,
    /// How many rows at the end are skipped.
    pub footer: u64,
    pub replaces: Replaces,

    pub delimiter: Option<u8>,
    /// `None`: by the byte order mark, or else UTF-8.
    pub encoding: Option<&'static Encoding>,
    pub quote: Option<u8>,
    /// What stands in front of a delimiter or quote that is part of a value.
    pub escape: Option<u8>,
    /// `None`: by the name and the beginning of the file.
    pub format: Option<TextFormat>,
    /// Where the list of records is in a JSON document; empty: it is the document.
    pub records: Vec<String>,

    /// Sheets to read; empty: the first visible one.
    pub sheets: Vec<String>,
    pub skip_hidden: bool,
    pub fill_merged: bool,
}

impl Layout {
    /// The key of the rows of a sheet, or of a text.
    pub fn key_of(&self, sheet: Option<&str>) -> &[String] {
        let own = self.keys.iter().find(|(name, _)| sheet == Some(name));
        own.map_or(&self.key, |(_, key)| key)
    }

    /// Whether any of its rows are identified by columns.
    pub fn has_key(&self) -> bool {
        !self.key.is_empty() || !self.keys.is_empty()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    Delimited,
    /// One record on each line.
    JsonLines,
    /// A list of records, or one.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    Found,
    /// The line or row, from 1.
    At(u64),
    None,
}

/// Which earlier files an upload replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaces {
    /// The file of the same name, unless most of its rows are missing in this one.
    Corrected,
    /// The file of the same name.
    File,
    /// Every file before it.
    All,
    Nothing,
}
