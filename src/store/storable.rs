//! Texts of failures, warnings and reports in a form that a column can store.
//!
//! They quote names from outside: a heading of a file, a column, a sheet. Such a name may contain a NUL, which no PostgreSQL
//! text can, or be as long as a file.

use std::borrow::Cow;

use serde_json::Value;

/// Longest text in bytes. Longer: outsiders could make rows of any length. Shorter: messages that list a connector's streams are
/// cut.
const LONGEST: usize = 4096;

/// Shown in the place of a NUL.
const REPLACEMENT: &str = "\u{fffd}";

/// The text without NULs, and cut if it is too long.
pub fn storable(text: &str) -> Cow<'_, str> {
    let text = match text.contains('\0') {
        true => Cow::Owned(text.replace('\0', REPLACEMENT)),
        false => Cow::Borrowed(text),
    };
    if text.len() <= LONGEST {
        return text;
    }
    let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end));
    let start = text.get(..end.unwrap_or_default()).unwrap_or_default();
    Cow::Owned(format!("{start}..."))
}

/// Makes every text of a JSON value storable, including the names of its fields.
pub fn storable_json(value: Value) -> Value {
    match value {
        Value::String(text) => storable(&text).into(),
        Value::Array(items) => items.into_iter().map(storable_json).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (storable(&name).into_owned(), storable_json(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other,
    }
}
