//! Files that are no tables although they bear the name of one: web pages, XML, and other documents.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8};

use super::refused;
use crate::error::Failure;

/// Bytes of a beginning that are looked at.
const LOOKED_AT: usize = 1_024;

const PAGES: [&str; 12] = [
    "<!doctype html",
    "<html",
    "<head",
    "<body",
    "<table",
    "<meta",
    "<script",
    "<style",
    "<title",
    "<div",
    "<tr",
    "<!--",
];

/// The beginning of a file as text.
pub fn text(start: &[u8]) -> Cow<'_, str> {
    let start = start.get(..LOOKED_AT).unwrap_or(start);
    let encoding = Encoding::for_bom(start).map_or(UTF_8, |(encoding, _)| encoding);
    encoding.decode_with_bom_removal(start).0
}

/// Refuses what is plainly another kind of document.
pub fn check(text: &str) -> Result<(), Failure> {
    let start: String = text.trim_start().chars().take(LOOKED_AT).collect();
    let start = start.to_ascii_lowercase();
    let is_tag = |tag: &str| {
        let behind = start.strip_prefix(tag).map(|rest| rest.chars().next());
        behind.is_some_and(|next| next.is_none_or(|next| !next.is_alphanumeric() && next != ','))
    };
    let is_page = PAGES.iter().any(|tag| is_tag(tag)) || start.contains("<html");
    let is_markup = start.starts_with('<');
    let is_xml = start.starts_with("<?xml") || start.starts_with("<workbook");
    if is_markup && is_page {
        return Err(refused(
            "the file is a web page (HTML) and not a table: perhaps a log-in or error page was saved in the place of the export, then download it again; a table that was saved as HTML can be opened in a spreadsheet program and saved as CSV or XLSX",
        ));
    }
    if is_xml {
        return Err(refused(
            "the file is XML and not a table; open it in a spreadsheet program and save it as CSV or XLSX",
        ));
    }
    if start.starts_with("mime-version:") {
        return Err(refused(
            "the file is a saved web page (MHTML) and not a table; open it in a spreadsheet program and save it as CSV or XLSX",
        ));
    }
    if start.starts_with("%pdf-") {
        return Err(refused(
            "the file is a PDF and not a table; export it as CSV or XLSX",
        ));
    }
    Ok(())
}
