//! The position of a pass over a table.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::rank::Rank;

/// What the values of a cursor column say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A time with a zone.
    Moment,
    /// A time in UTC, written without its zone.
    Utc,
    /// A time without a zone.
    Naive,
    Date,
    /// A number of any size, with any number of digits.
    Number,
    Real,
    /// Text that may be a time.
    Text,
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
            "int2" | "int4" | "int8" | "numeric" | "int" | "decimal" | "year" | "bit" => {
                Kind::Number
            }
            "float4" | "float8" | "float" | "double" => Kind::Real,
            "text" | "varchar" | "bpchar" | "citext" => Kind::Text,
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
            _ => at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
        }
    }
}

/// The cursor column of a pass.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cursor {
    pub kind: Kind,
    pub rank: Rank,
    /// Whether its type has values that no number is beyond: NaN and the infinities.
    pub has_limits: bool,
}

/// A key column of a pass.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Key {
    pub ranks: Vec<Rank>,
    /// Whether NULL may be among its values.
    pub nullable: bool,
}

/// How a pass continues. One that an earlier version wrote does not read, and its pass starts again.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Next {
    pub cursor: Option<Cursor>,
    pub keys: Vec<Key>,
    /// The columns whose values tell rows apart where no key column has a value, if there may be such rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<String>,
    /// Whether the keys are read with all columns, because the content may identify a row.
    #[serde(default)]
    pub whole: bool,
    /// Rows of the next batch.
    pub rows: usize,
    /// The ranks of the last row.
    pub last: Option<Vec<Option<String>>>,
    /// Whether the rows are being read whose cursor says nothing, which come last.
    pub rest: bool,
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
