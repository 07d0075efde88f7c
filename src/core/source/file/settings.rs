//! Reads the settings for files in a connector's row.

use encoding_rs::Encoding;
use serde_json::{Map, Value};

use crate::error::Failure;
use crate::file::layout::{Family, Header, Layout, Replaces, TextFormat};
use crate::file::value::{DateFormat, Marks, Type};
use crate::source::settings::{Settings, wrong};

/// Most headings, columns and sheets that a config may name: no file has more.
const MOST_NAMES: usize = 2_000;

/// A row beyond this one is not looked at for headings.
const LAST_HEADER: f64 = 1_000.0;

/// Rows at the end of a file that may be no records.
const MOST_FOOTER: f64 = 1_000.0;

pub fn layout(settings: &Settings, family: Family) -> Result<Layout, Failure> {
    let stream = settings.text("stream")?.unwrap_or("rows");
    let marks = Marks {
        decimal: mark(settings.value("decimal"), "decimal")?.unwrap_or('.'),
        thousands: mark(settings.value("thousands"), "thousands")?,
    };
    let replaces = match settings.text("replaces")? {
        None => Replaces::Corrected,
        Some("file") => Replaces::File,
        Some("all") => Replaces::All,
        Some("nothing") => Replaces::Nothing,
        Some(_) => {
            return Err(wrong(
                "config's \"replaces\" has to be \"file\", \"all\" or \"nothing\"",
            ));
        }
    };
    let format = match settings.text("format")? {
        None => None,
        Some("csv") => Some(TextFormat::Delimited),
        Some("json_lines") => Some(TextFormat::JsonLines),
        Some("json") => Some(TextFormat::Json),
        Some(_) => {
            return Err(wrong(
                "config's \"format\" has to be \"csv\", \"json\" or \"json_lines\"",
            ));
        }
    };
    let sheets = names(settings, "sheets")?;
    for name in sheets.iter().map(String::as_str).chain([stream]) {
        if name.len() > 200 || name.contains(['/', '#']) || name.chars().any(char::is_control) {
            return Err(wrong(format!(
                "\"{name}\" cannot be a stream name: it has a \"/\" or \"#\", or more than 200 bytes; rename the sheet"
            )));
        }
    }
    Ok(Layout {
        family,
        stream: stream.to_owned(),
        key: match settings.value("key") {
            Some(Value::Object(_)) => Vec::new(),
            _ => names(settings, "key")?,
        },
        keys: keys(settings, &sheets)?,
        columns: columns(settings, marks)?,
        nulls: texts(settings, "null_values")?,
        header: header(settings)?,
        headings: texts(settings, "headings")?,
        footer: settings.number("footer", 0.0, MOST_FOOTER)?.unwrap_or(0.0) as u64,
        replaces,
        delimiter: delimiter(settings)?,
        encoding: encoding(settings)?,
        quote: quote(settings)?,
        escape: escape(settings)?,
        format,
        records: records(settings)?,
        sheets,
        skip_hidden: settings.truth("skip_hidden")?,
        fill_merged: settings.truth("fill_merged")?,
    })
}

/// A list of texts, or one text.
fn texts(settings: &Settings, key: &str) -> Result<Vec<String>, Failure> {
    let values = match settings.value(key) {
        None => return Ok(Vec::new()),
        Some(Value::Array(values)) => values.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    let texts = values.iter().map(|value| value.as_str().map(str::to_owned));
    let texts: Option<Vec<String>> = texts.collect();
    texts
        .filter(|texts| texts.len() <= MOST_NAMES)
        .ok_or_else(|| {
            wrong(format!(
                "config's \"{key}\" has to be a list of at most {MOST_NAMES} texts"
            ))
        })
}

/// The same, each there once, and none empty.
fn names(settings: &Settings, key: &str) -> Result<Vec<String>, Failure> {
    let names = texts(settings, key)?;
    check_names(&names, key)?;
    Ok(names)
}

fn check_names(names: &[String], key: &str) -> Result<(), Failure> {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() < names.len() || names.iter().any(|name| name.trim().is_empty()) {
        return Err(wrong(format!(
            "config's \"{key}\" has an empty name or the same name twice"
        )));
    }
    Ok(())
}

/// Keys by sheet: `{"Sales": "Order ID", "Stock": ["Shop", "Item"]}`.
fn keys(settings: &Settings, sheets: &[String]) -> Result<Vec<(String, Vec<String>)>, Failure> {
    let Some(Value::Object(keys)) = settings.value("key") else {
        return Ok(Vec::new());
    };
    let of = |sheet: &String, key: &Value| {
        if !sheets.contains(sheet) {
            return Err(wrong(format!(
                "config's \"key\" names the sheet \"{sheet}\", which is not among \"sheets\""
            )));
        }
        let key = match key {
            Value::Array(key) => key.as_slice(),
            one => std::slice::from_ref(one),
        };
        let names: Option<Vec<String>> = key
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect();
        let names = names.filter(|names| (1..=MOST_NAMES).contains(&names.len()));
        Ok((sheet.clone(), names.ok_or_else(|| {
            wrong(format!("config's \"key\": the key of sheet \"{sheet}\" has to be a heading or a list of headings"))
        })?))
    };
    let keys: Result<Vec<_>, Failure> = keys.iter().map(|(sheet, key)| of(sheet, key)).collect();
    for (_, names) in keys.iter().flatten() {
        check_names(names, "key")?;
    }
    keys
}

/// The path to the list of records in a JSON document: `data` or `result.items`.
fn records(settings: &Settings) -> Result<Vec<String>, Failure> {
    let Some(path) = settings.text("records")? else {
        return Ok(Vec::new());
    };
    let path = path.strip_prefix("$.").unwrap_or(path);
    let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
    match keys.iter().any(String::is_empty) || keys.len() > 20 {
        true => Err(wrong(
            "config's \"records\" has to be the key of a list, such as \"data\" or \"result.items\"",
        )),
        false => Ok(keys),
    }
}

fn escape(settings: &Settings) -> Result<Option<u8>, Failure> {
    match settings.value("escape") {
        None | Some(Value::Bool(false)) => Ok(None),
        Some(value) => match value.as_str().map(str::as_bytes) {
            Some([one]) if one.is_ascii_punctuation() => Ok(Some(*one)),
            _ => Err(wrong(
                "config's \"escape\" has to be one character, such as \"\\\", or false",
            )),
        },
    }
}

fn header(settings: &Settings) -> Result<Header, Failure> {
    match settings.value("header") {
        None | Some(Value::Bool(true)) => Ok(Header::Found),
        Some(Value::Bool(false)) => Ok(Header::None),
        Some(_) => {
            let row = settings.number("header", 1.0, LAST_HEADER)?;
            Ok(row.map_or(Header::Found, |row| Header::At(row as u64)))
        }
    }
}

fn mark(value: Option<&Value>, key: &str) -> Result<Option<char>, Failure> {
    let Some(value) = value else {
        return Ok(None);
    };
    let text = value.as_str().unwrap_or_default();
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(mark @ ('.' | ',' | ' ' | '\'' | '_' | '\u{66B}' | '\u{66C}')), None) => {
            Ok(Some(mark))
        }
        _ => Err(wrong(format!(
            "\"{key}\" in config has to be \".\", \",\", \" \" or \"'\""
        ))),
    }
}

fn columns(settings: &Settings, marks: Marks) -> Result<Vec<(String, Type)>, Failure> {
    let Some(value) = settings.value("columns") else {
        return Ok(Vec::new());
    };
    let columns = value
        .as_object()
        .filter(|columns| columns.len() <= MOST_NAMES);
    let columns = columns
        .ok_or_else(|| wrong("config's \"columns\" has to be an object of headings and types"))?;
    let columns = columns.iter().map(|(name, declared)| {
        let declared = column(settings, marks, name, declared)?;
        Ok((name.clone(), declared))
    });
    columns.collect()
}

fn column(
    settings: &Settings,
    marks: Marks,
    name: &str,
    declared: &Value,
) -> Result<Type, Failure> {
    let of = |message: &str| wrong(format!("config's \"columns\": column \"{name}\" {message}"));
    let nothing = Map::new();
    let (word, details) = match declared {
        Value::String(word) => (word.as_str(), &nothing),
        Value::Object(details) => {
            let word = details.get("type").and_then(Value::as_str);
            (word.ok_or_else(|| of("has no \"type\""))?, details)
        }
        _ => return Err(of("has to be a type or an object")),
    };
    let known: &[&str] = match word {
        "number" => &["type", "decimal", "thousands"],
        "date" | "timestamp" => &["type", "format"],
        _ => &["type"],
    };
    if let Some(unknown) = details.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(of(&format!("has the unknown key \"{unknown}\"")));
    }
    let format = |key: &str, usual: &str| {
        let declared = match details.get("format") {
            Some(format) => format.as_str().unwrap_or_default().to_owned(),
            None => settings.text(key)?.unwrap_or(usual).to_owned(),
        };
        DateFormat::new(&declared).ok_or_else(|| {
            of(&format!("has the unknown date format \"{declared}\"; write it like DD.MM.YYYY or MM/DD/YYYY HH12:MI AM"))
        })
    };
    match word {
        "text" => Ok(Type::Text),
        "boolean" => Ok(Type::Truth),
        "date" => Ok(Type::Date(format("date_format", "YYYY-MM-DD")?)),
        "timestamp" => Ok(Type::Timestamp(format(
            "timestamp_format",
            "YYYY-MM-DD HH24:MI:SS",
        )?)),
        "number" => {
            let decimal = mark(details.get("decimal"), "decimal")?.unwrap_or(marks.decimal);
            let thousands = mark(details.get("thousands"), "thousands")?.or(marks.thousands);
            if thousands == Some(decimal) {
                return Err(of("has the same decimal and thousands separator"));
            }
            Ok(Type::Number(Marks { decimal, thousands }))
        }
        _ => Err(of(&format!(
            "has the unknown type \"{word}\"; known types: text, number, date, timestamp, boolean"
        ))),
    }
}

fn delimiter(settings: &Settings) -> Result<Option<u8>, Failure> {
    let Some(value) = settings.value("delimiter") else {
        return Ok(None);
    };
    match value.as_str().map(str::as_bytes) {
        Some(b"tab" | b"\\t") => Ok(Some(b'\t')),
        Some([one]) if one.is_ascii() && !matches!(one, b'"' | b'\n' | b'\r' | 0) => Ok(Some(*one)),
        _ => Err(wrong(
            "config's \"delimiter\" has to be \"tab\" or one ASCII character",
        )),
    }
}

fn quote(settings: &Settings) -> Result<Option<u8>, Failure> {
    match settings.value("quote") {
        None => Ok(Some(b'"')),
        Some(Value::Bool(false)) => Ok(None),
        Some(Value::String(text)) => match text.as_bytes() {
            [one] if one.is_ascii_punctuation() => Ok(Some(*one)),
            _ => Err(wrong("config's \"quote\" has to be false or one character")),
        },
        Some(_) => Err(wrong("config's \"quote\" has to be false or one character")),
    }
}

fn encoding(settings: &Settings) -> Result<Option<&'static Encoding>, Failure> {
    let Some(name) = settings.text("encoding")? else {
        return Ok(None);
    };
    // What the web calls "replacement" decodes to one character, whatever is in it.
    let known = Encoding::for_label_no_replacement(name.as_bytes());
    known.map(Some).ok_or_else(|| {
        wrong("config's \"encoding\" is not known; known are utf-8, utf-16le, windows-1252, iso-8859-15 and others")
    })
}
