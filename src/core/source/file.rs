//! Files as sources: `csv` (delimited text, JSON lines) and `excel` (workbooks).
//!
//! Nobody is asked for anything: files are uploaded. What is declared of them is read here, and used in
//! [`crate::file`].

use encoding_rs::Encoding;
use serde_json::{Map, Value};

use super::settings::{Settings, wrong};
use super::{About, Definition, Field, Position, Reader, Request, Response, Source, Stream};
use crate::error::{Code, Failure};
use crate::file::layout::{Family, Header, Layout, Replaces};
use crate::file::value::{DateFormat, Marks, Type};
use crate::record::Page;

pub struct Csv;
pub struct Excel;

/// What both have.
macro_rules! config {
    ($($own:expr),*) => {
        &[
            Field {
                name: "stream",
                meaning: "what the records are called; \"rows\" where it is left out",
            },
            Field {
                name: "key",
                meaning: "headings of the columns that identify a row, a list; where it is left out, its content does",
            },
            Field {
                name: "columns",
                meaning: "what columns hold: {\"<heading>\": \"text\", \"number\", \"date\", \"timestamp\" or \"boolean\", or an object with \"type\", and \"decimal\", \"thousands\" or \"format\"}; a column that is not named is stored as it is",
            },
            Field {
                name: "decimal",
                meaning: "decimal mark of number columns; \".\" where it is left out",
            },
            Field {
                name: "thousands",
                meaning: "mark between thousands in number columns; none where it is left out",
            },
            Field {
                name: "date_format",
                meaning: "how date columns are written, such as DD.MM.YYYY; YYYY-MM-DD where it is left out",
            },
            Field {
                name: "timestamp_format",
                meaning: "how timestamp columns are written; YYYY-MM-DD HH24:MI:SS where it is left out",
            },
            Field {
                name: "null_values",
                meaning: "list of texts that stand for nothing, such as \"\" or \"N/A\"",
            },
            Field {
                name: "header",
                meaning: "the line or row of the headings, from 1; false: there are none; where it is left out they are found",
            },
            Field {
                name: "headings",
                meaning: "list of headings to use instead of those in the file",
            },
            Field {
                name: "footer",
                meaning: "how many rows at the end are no records, such as totals",
            },
            Field {
                name: "replaces",
                meaning: "what rows are gone once a file is stored and does not show them: \"file\", those of the file of the same name; \"all\", every other; \"nothing\"; where it is left out, as with \"file\", unless most of its rows would be gone",
            },
            $($own,)*
        ]
    };
}

const CSV: &[Field] = config!(
    Field {
        name: "format",
        meaning: "\"csv\" or \"json_lines\"; where it is left out, the file's name says",
    },
    Field {
        name: "delimiter",
        meaning: "\",\", \";\", \"tab\", \"|\" or another character; where it is left out, it is found",
    },
    Field {
        name: "quote",
        meaning: "what encloses values, or false; a double quote where it is left out",
    },
    Field {
        name: "encoding",
        meaning: "such as \"windows-1252\" or \"utf-16le\"; where it is left out, what the byte order mark says, or UTF-8",
    }
);

const EXCEL: &[Field] = config!(
    Field {
        name: "sheets",
        meaning: "list of the sheets to read, each a stream of its name; where it is left out, the first that is not hidden",
    },
    Field {
        name: "skip_hidden",
        meaning: "whether to leave hidden rows out",
    },
    Field {
        name: "fill_merged",
        meaning: "whether each of several merged cells holds their value; otherwise the first alone does",
    }
);

impl Source for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn about(&self) -> About {
        about("file", CSV)
    }

    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        let settings = Settings::new(connector, CSV)?;
        reader(layout(&settings, Family::Text)?)
    }

    fn is_asked(&self) -> bool {
        false
    }

    fn takes_files(&self) -> bool {
        true
    }
}

impl Source for Excel {
    fn name(&self) -> &'static str {
        "excel"
    }

    fn about(&self) -> About {
        about("workbook", EXCEL)
    }

    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        let settings = Settings::new(connector, EXCEL)?;
        reader(layout(&settings, Family::Workbook)?)
    }

    fn is_asked(&self) -> bool {
        false
    }

    fn takes_files(&self) -> bool {
        true
    }
}

fn about(kind: &'static str, config: &'static [Field]) -> About {
    About {
        kind,
        streams: Vec::new(),
        credentials: &[],
        config,
        frequency: "manual",
    }
}

struct FileReader {
    streams: Vec<Stream>,
    layout: Layout,
}

fn reader(layout: Layout) -> Result<Box<dyn Reader>, Failure> {
    let names = match layout.sheets.is_empty() {
        true => std::slice::from_ref(&layout.stream),
        false => &layout.sheets,
    };
    let stream = |name: &String| Stream {
        name: name.clone(),
        ordered: false,
        whole: false,
    };
    Ok(Box::new(FileReader {
        streams: names.iter().map(stream).collect(),
        layout,
    }))
}

impl Reader for FileReader {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn request(&self, _: &Position) -> Result<Request, Failure> {
        Err(nobody())
    }

    fn page(&self, _: &Position, _: &Response) -> Result<Page, Failure> {
        Err(nobody())
    }

    fn layout(&self) -> Option<&Layout> {
        Some(&self.layout)
    }
}

fn nobody() -> Failure {
    Failure::new(
        Code::InvalidConfig,
        "files are uploaded, and asked of nobody",
    )
}

/// Most headings, columns and sheets that a config may name: no file has more.
const MOST_NAMES: usize = 2_000;

/// A row beyond this one is not looked at for headings.
const LAST_HEADER: f64 = 1_000.0;
/// Rows at the end of a file that may be no records.
const MOST_FOOTER: f64 = 1_000.0;

fn layout(settings: &Settings, family: Family) -> Result<Layout, Failure> {
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
                "config's \"replaces\" is none of \"file\", \"all\" and \"nothing\"",
            ));
        }
    };
    let is_json_lines = match settings.text("format")? {
        None => None,
        Some("csv") => Some(false),
        Some("json_lines") => Some(true),
        Some(_) => {
            return Err(wrong(
                "config's \"format\" is neither \"csv\" nor \"json_lines\"",
            ));
        }
    };
    let sheets = names(settings, "sheets")?;
    for name in sheets.iter().map(String::as_str).chain([stream]) {
        if name.len() > 200 || name.contains(['/', '#']) || name.chars().any(char::is_control) {
            return Err(wrong(format!(
                "\"{name}\" cannot be a stream: a name has no \"/\", no \"#\" and at most 200 bytes; rename the sheet"
            )));
        }
    }
    Ok(Layout {
        family,
        stream: stream.to_owned(),
        key: names(settings, "key")?,
        columns: columns(settings, marks)?,
        nulls: texts(settings, "null_values")?,
        header: header(settings)?,
        headings: texts(settings, "headings")?,
        footer: settings.number("footer", 0.0, MOST_FOOTER)?.unwrap_or(0.0) as u64,
        replaces,
        delimiter: delimiter(settings)?,
        encoding: encoding(settings)?,
        quote: quote(settings)?,
        is_json_lines,
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
                "config's \"{key}\" is not a list of texts, of at most {MOST_NAMES}"
            ))
        })
}

/// The same, each there once, and none empty.
fn names(settings: &Settings, key: &str) -> Result<Vec<String>, Failure> {
    let names = texts(settings, key)?;
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() < names.len() || names.iter().any(|name| name.trim().is_empty()) {
        return Err(wrong(format!(
            "config's \"{key}\" has an empty name, or one twice"
        )));
    }
    Ok(names)
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
            "\"{key}\" is none of \".\", \",\", \" \" and \"'\""
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
    let columns = columns.ok_or_else(|| {
        wrong("config's \"columns\" is not an object of headings and what their columns hold")
    })?;
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
    let of = |message: &str| wrong(format!("config's column \"{name}\": {message}"));
    let nothing = Map::new();
    let (word, details) = match declared {
        Value::String(word) => (word.as_str(), &nothing),
        Value::Object(details) => {
            let word = details.get("type").and_then(Value::as_str);
            (word.ok_or_else(|| of("it has no \"type\""))?, details)
        }
        _ => return Err(of("it is neither the name of a type nor an object")),
    };
    let known: &[&str] = match word {
        "number" => &["type", "decimal", "thousands"],
        "date" | "timestamp" => &["type", "format"],
        _ => &["type"],
    };
    if let Some(unknown) = details.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(of(&format!("\"{unknown}\" is not known of a {word}")));
    }
    let format = |key: &str, usual: &str| {
        let declared = match details.get("format") {
            Some(format) => format.as_str().unwrap_or_default().to_owned(),
            None => settings.text(key)?.unwrap_or(usual).to_owned(),
        };
        DateFormat::new(&declared).ok_or_else(|| {
            of(&format!("\"{declared}\" is not a format of dates such as DD.MM.YYYY or MM/DD/YYYY HH12:MI AM"))
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
                return Err(of("the decimal mark is the one between thousands, too"));
            }
            Ok(Type::Number(Marks { decimal, thousands }))
        }
        _ => Err(of(&format!(
            "\"{word}\" is none of \"text\", \"number\", \"date\", \"timestamp\" and \"boolean\""
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
            "config's \"delimiter\" is neither \"tab\" nor one character of ASCII",
        )),
    }
}

fn quote(settings: &Settings) -> Result<Option<u8>, Failure> {
    match settings.value("quote") {
        None => Ok(Some(b'"')),
        Some(Value::Bool(false)) => Ok(None),
        Some(Value::String(text)) => match text.as_bytes() {
            [one] if one.is_ascii_punctuation() => Ok(Some(*one)),
            _ => Err(wrong(
                "config's \"quote\" is neither false nor one character",
            )),
        },
        Some(_) => Err(wrong(
            "config's \"quote\" is neither false nor one character",
        )),
    }
}

fn encoding(settings: &Settings) -> Result<Option<&'static Encoding>, Failure> {
    let Some(name) = settings.text("encoding")? else {
        return Ok(None);
    };
    // What the web calls "replacement" decodes to one character, whatever is in it.
    let known = Encoding::for_label_no_replacement(name.as_bytes());
    known.map(Some).ok_or_else(|| {
        wrong("config's \"encoding\" is not known; such as utf-8, utf-16le, windows-1252 or iso-8859-15 are")
    })
}
