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
    Failure::new(
        Code::InvalidConfig,
        "files are uploaded, and asked of nobody",
    )
}
