//! Files as sources: `csv` (delimited text, JSON lines) and `excel` (workbooks).
//!
//! Nobody is asked for anything: files are uploaded. What is declared of them is read here, and used in
//! [`crate::file`].

mod settings;

use self::settings::layout;
use super::settings::Settings;
use super::{About, Definition, Field, Position, Reader, Request, Response, Source, Stream};
use crate::error::{Code, Failure};
use crate::file::layout::{Family, Layout};
use crate::record::Page;

pub struct Csv;
pub struct Excel;

/// The settings that both types have.
macro_rules! config {
    ($($own:expr),*) => {
        &[
            Field {
                name: "stream",
                meaning: "stream name of the records; default: \"rows\"",
            },
            Field {
                name: "key",
                meaning: "list of the headings of the columns that identify a row, or with several sheets an object with a list for each sheet; default: the whole row",
            },
            Field {
                name: "columns",
                meaning: "types of columns: {\"<heading>\": \"text\", \"number\", \"date\", \"timestamp\" or \"boolean\", or an object with \"type\", and \"decimal\", \"thousands\" or \"format\"}; other columns are stored as they are",
            },
            Field {
                name: "decimal",
                meaning: "decimal separator of number columns; default: \".\"",
            },
            Field {
                name: "thousands",
                meaning: "thousands separator of number columns; default: none",
            },
            Field {
                name: "date_format",
                meaning: "format of date columns, such as DD.MM.YYYY; default: YYYY-MM-DD",
            },
            Field {
                name: "timestamp_format",
                meaning: "format of timestamp columns; default: YYYY-MM-DD HH24:MI:SS",
            },
            Field {
                name: "null_values",
                meaning: "list of texts that mean NULL, such as \"\" or \"N/A\"",
            },
            Field {
                name: "header",
                meaning: "line or row of the headings, counted from 1; false if there are none; default: they are detected",
            },
            Field {
                name: "headings",
                meaning: "list of headings to use instead of the file's own",
            },
            Field {
                name: "footer",
                meaning: "how many rows at the end to skip, such as totals",
            },
            Field {
                name: "replaces",
                meaning: "which stored rows a new file deletes if it lacks them: \"file\" (rows of the file of the same name), \"all\" (all other rows) or \"nothing\"; default: \"file\", unless that would delete most of its rows",
            },
            $($own,)*
        ]
    };
}

const CSV: &[Field] = config!(
    Field {
        name: "format",
        meaning: "\"csv\", \"json\" or \"json_lines\"; default: by the file's name and beginning",
    },
    Field {
        name: "records",
        meaning: "of a JSON document: key of the list that has the records, such as \"data\" or \"result.items\"; default: the document is the list",
    },
    Field {
        name: "delimiter",
        meaning: "\",\", \";\", \"tab\", \"|\" or another character; default: it is detected",
    },
    Field {
        name: "quote",
        meaning: "character that encloses values, or false; default: a double quote",
    },
    Field {
        name: "escape",
        meaning: "character in front of a delimiter or quote that is part of a value, such as a backslash; default: none",
    },
    Field {
        name: "encoding",
        meaning: "encoding, such as \"windows-1252\" or \"utf-16le\"; default: by the byte order mark, or else UTF-8",
    }
);

const EXCEL: &[Field] = config!(
    Field {
        name: "sheets",
        meaning: "list of the sheets to read, each as a stream; default: the first visible sheet",
    },
    Field {
        name: "skip_hidden",
        meaning: "true to skip hidden rows",
    },
    Field {
        name: "fill_merged",
        meaning: "true to give every merged cell the value of the first",
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
        let settings = Settings::pushed(connector, CSV)?;
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
        let settings = Settings::pushed(connector, EXCEL)?;
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
        Err(never_fetched())
    }

    fn page(&self, _: &Position, _: &Response) -> Result<Page, Failure> {
        Err(never_fetched())
    }

    fn layout(&self) -> Option<&Layout> {
        Some(&self.layout)
    }
}

fn never_fetched() -> Failure {
    Failure::new(Code::InvalidConfig, "files are uploaded, never requested")
}
