//! Words of a failure, a warning or a report, as a column can hold them.
//!
//! They are ours, but name what outsiders named: a heading of a file, a column, a sheet. Such a name may hold a NUL, which no
//! text of PostgreSQL's can, or be as long as a file.

use std::borrow::Cow;

use serde_json::Value;

/// Longest text in bytes. Longer: rows that are read by the thousand are as long as outsiders want. Shorter: messages that
/// list a connector's streams are cut.
const LONGEST: usize = 4096;

/// Shown for what has no place in a text.
const REPLACEMENT: &str = "\u{fffd}";

/// The text without NULs, and cut where it is too long.
pub fn words(text: &str) -> Cow<'_, str> {
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

/// The same for every text of a value, names of fields too.
pub fn in_words(value: Value) -> Value {
    match value {
        Value::String(text) => words(&text).into(),
        Value::Array(items) => items.into_iter().map(in_words).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (words(&name).into_owned(), in_words(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other,
    }
}
