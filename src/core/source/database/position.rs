//! The position of a pass over a table.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// The type of a cursor column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A time with a zone.
    Moment,
    /// A time in UTC, written without its zone.
    Utc,
    /// A time without a zone.
    Naive,
    Date,
    Number,
    /// A value that the server alone can compare.
    Other,
}

impl Kind {
    pub fn of(name: &str) -> Kind {
        match name {
            "timestamptz" => Kind::Moment,
            "timestamp in UTC" => Kind::Utc,
            "timestamp" | "datetime" => Kind::Naive,
            "date" => Kind::Date,
            "int2" | "int4" | "int8" | "numeric" | "oid" | "number" => Kind::Number,
            _ => Kind::Other,
        }
    }

    pub fn is_time(self) -> bool {
        matches!(self, Kind::Moment | Kind::Utc | Kind::Naive | Kind::Date)
    }

    /// Whether it is known how late it is where its values are made.
    pub fn has_zone(self) -> bool {
        matches!(self, Kind::Moment | Kind::Utc)
    }

    pub fn write(self, at: DateTime<Utc>) -> String {
        match self {
            Kind::Naive | Kind::Utc => at.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
            Kind::Date => at.format("%Y-%m-%d").to_string(),
            _ => at.to_rfc3339_opts(SecondsFormat::Micros, true),
        }
    }
}

/// How a pass continues.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Next {
    /// The kind of the cursor column; `None`: the stream has none.
    pub kind: Option<Kind>,
    /// The kinds of the key columns.
    pub keys: Vec<Kind>,
    /// Rows of the next batch.
    pub rows: usize,
    /// Cursor and keys of the last row.
    pub last: Option<Vec<String>>,
    /// Whether the rows without a cursor value are being read, which come last.
    pub nulls: bool,
    /// Whether an earlier pass has read the stream, so that something may be gone since.
    #[serde(default)]
    pub again: bool,
    /// Whether the next batch asks for deleted rows.
    #[serde(default)]
    pub gone: bool,
    /// Whether every key is being read.
    #[serde(default)]
    pub keys_alone: bool,
}
