//! A stream of a database: a table or a query, with its key and its cursor.

use crate::source::Stream;

/// One stream of a database.
pub struct Table {
    pub name: String,
    pub from: From,
    /// Columns to read; empty: all.
    pub columns: Vec<String>,
    pub key: Vec<String>,
    pub cursor: Option<String>,
    /// Seconds, or numbers.
    pub lookback: Option<f64>,
    /// Whether every key is read after what changed, so that what is gone shows.
    pub deletes: bool,
    /// Columns whose text is JSON, and becomes a part of the record.
    pub nested: Vec<String>,
    /// What finds the keys that are gone: a statement whose one value is where the pass began.
    pub gone: Option<String>,
    /// Whether it is no failure that the table is not there, or may not be read.
    pub optional: bool,
}

#[derive(Clone)]
pub enum From {
    /// Schema and name, or a name alone.
    Table(Vec<String>),
    Query(String),
}

impl Table {
    pub fn stream(&self) -> Stream {
        Stream {
            name: self.name.clone(),
            ordered: self.cursor.is_some(),
            whole: self.cursor.is_none() || self.deletes,
        }
    }

    /// Its keys alone, in their order. `whole`: with all columns, because the content identifies some rows.
    pub fn keys(&self, whole: bool) -> Table {
        let columns = if whole { &self.columns } else { &self.key };
        Table {
            name: self.name.clone(),
            from: self.from.clone(),
            columns: columns.clone(),
            key: self.key.clone(),
            cursor: None,
            lookback: None,
            deletes: false,
            nested: if whole {
                self.nested.clone()
            } else {
                Vec::new()
            },
            gone: None,
            optional: false,
        }
    }
}
