//! The format of a file, and the rows or lines that it consists of.

use super::Content;
use super::dialect::Dialect;
use super::document;
use super::layout::Layout;
use super::row::Row;
use super::text::{self, Line};
use super::workbook::Workbook;
use crate::error::Failure;
use crate::json::RecordLimits;

/// The format of a file.
pub enum Format {
    Delimited(Dialect),
    JsonLines(&'static encoding_rs::Encoding),
    Json(&'static encoding_rs::Encoding),
    Workbook(Workbook),
}

/// One row or line of a file.
pub enum Item<'a> {
    Row(&'a Row),
    Line(Line<'a>),
}

pub type Visit<'a> = &'a mut dyn FnMut(usize, Item) -> Result<bool, Failure>;

impl Format {
    pub fn each(
        &self,
        content: &mut dyn Content,
        layout: &Layout,
        limits: RecordLimits,
        visit: Visit,
    ) -> Result<(), Failure> {
        match self {
            Format::Delimited(dialect) => dialect.rows(content, layout, limits.bytes, &mut |row| {
                visit(0, Item::Row(row))
            }),
            Format::JsonLines(encoding) => {
                text::lines(content, encoding, limits.bytes, &mut |line| {
                    visit(0, Item::Line(line))
                })
            }
            Format::Json(encoding) => document::records(
                content,
                encoding,
                &layout.records,
                limits.bytes,
                &mut |line| visit(0, Item::Line(line)),
            ),
            Format::Workbook(workbook) => {
                workbook.rows(content, layout, limits.bytes, &mut |sheet, row| {
                    visit(sheet, Item::Row(row))
                })
            }
        }
    }

    /// Streams, and the sheets they are.
    pub fn streams(&self, layout: &Layout) -> Vec<(String, Option<String>)> {
        let Format::Workbook(workbook) = self else {
            return vec![(layout.stream.clone(), None)];
        };
        let names = workbook.sheet_names();
        let stream = |name: &String| match layout.sheets.is_empty() {
            true => layout.stream.clone(),
            false => name.clone(),
        };
        names
            .iter()
            .map(|name| (stream(name), Some(name.clone())))
            .collect()
    }

    pub fn words(&self) -> String {
        match self {
            Format::Delimited(dialect) => {
                let delimiter = match dialect.delimiter {
                    b'\t' => "tab".to_owned(),
                    other => format!("\"{}\"", char::from(other)),
                };
                format!("{}, delimiter {delimiter}", dialect.encoding.name())
            }
            Format::JsonLines(encoding) => format!("{}, JSON lines", encoding.name()),
            Format::Json(encoding) => format!("{}, JSON", encoding.name()),
            Format::Workbook(workbook) => workbook.words(),
        }
    }

    pub fn notes(&self) -> Vec<String> {
        match self {
            Format::Workbook(workbook) => workbook.notes(),
            _ => Vec::new(),
        }
    }
}
