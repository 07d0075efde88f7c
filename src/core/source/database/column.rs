//! What a server says of the columns of a stream.

use serde::{Deserialize, Serialize};

/// One column, as the engine describes it before anything is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// The type: PostgreSQL's name of it, or a word for MySQL's.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether the server sees to it that no row has NULL there.
    #[serde(default)]
    pub not_null: bool,
    /// Whether values that the server takes for equal have one spelling: by a deterministic collation, a fixed scale or
    /// length, or a unique index on this column alone.
    #[serde(default)]
    pub exact: bool,
    /// Letters or bytes of the longest value, where there is such a bound; 0 elsewhere.
    #[serde(default)]
    pub length: u32,
    /// Digits behind the point of a decimal.
    #[serde(default)]
    pub decimals: u8,
}
