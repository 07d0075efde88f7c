//! How the files of a connector are written: what its config declares.

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
    /// What its records are called, where sheets do not name them.
    pub stream: String,
    /// Headings of the columns that identify a row; none: its content does.
    pub key: Vec<String>,
    /// Headings and what their columns hold.
    pub columns: Vec<(String, Type)>,
    /// Texts that stand for nothing.
    pub nulls: Vec<String>,
    pub header: Header,
    /// Declared headings, where the file has none.
    pub headings: Vec<String>,
    /// Rows at the end that are no records.
    pub footer: u64,
    pub replaces: Replaces,

    pub delimiter: Option<u8>,
    /// `None`: what a byte order mark says, else UTF-8.
    pub encoding: Option<&'static Encoding>,
    pub quote: Option<u8>,
    pub is_json_lines: Option<bool>,

    /// Sheets to read; none: the first that is not hidden.
    pub sheets: Vec<String>,
    pub skip_hidden: bool,
    pub fill_merged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    Found,
    /// The line or row, from 1.
    At(u64),
    None,
}

/// What an upload takes the place of.
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
