//! The statements that read a database.

use std::fmt;

use super::order::{Order, Values};
use super::position::{Cursor, Next};
use super::rank::Rank;
use super::server::{Make, Server};
use super::stamp::LOW;
use super::table::{From, Table};

/// One statement, with values in their places.
pub struct Query {
    pub server: Server,
    pub text: String,
    pub values: Vec<Bound>,
    pub returns: Returns,
    /// How many columns at the end of a row say where the next batch begins.
    pub told: usize,
    /// Columns whose text is JSON.
    pub nested: Vec<String>,
}

/// A value of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    Text(String),
    /// Compared as a number, which a text would not be everywhere.
    Number(String),
    /// Compared as a double.
    Real(String),
}

/// What a statement is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returns {
    /// Which columns there are.
    Columns,
    /// Rows, at most so many: each as its JSON, and where it is.
    Rows(usize),
}

/// A query may hold a customer's name.
impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Query({}, {:?})", self.server.host, self.returns)
    }
}

impl Make {
    fn quoted(self, name: &str) -> String {
        match self {
            Make::Postgres => format!("\"{}\"", name.replace('"', "\"\"")),
            Make::MySql => format!("`{}`", name.replace('`', "``")),
        }
    }

    /// A column of the rows that are read.
    pub(super) fn column(self, name: &str) -> String {
        format!("s.{}", self.quoted(name))
    }

    /// The FROM item of a table; its rows are called `s`. Whatever columns are called, none is taken for the rows: each
    /// name has the rows' before it.
    fn rows(self, table: &Table) -> String {
        let from = match &table.from {
            From::Table(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| self.quoted(part)).collect();
                parts.join(".")
            }
            // On lines of its own, for it may end with a comment.
            From::Query(query) => format!("(\n{query}\n)"),
        };
        if table.columns.is_empty() {
            return format!("{from} AS s");
        }
        let names = table.columns.iter();
        let names: Vec<String> = names
            .map(|name| format!("q.{}", self.quoted(name)))
            .collect();
        format!("(SELECT {} FROM {from} AS q) AS s", names.join(", "))
    }
}

/// From where to where a batch reads the cursor.
#[derive(Default)]
pub(super) struct Range {
    /// Where it begins in the first batch of a pass.
    pub from: Option<String>,
    /// The latest that counts as a time; `None`: the cursor is no time.
    pub cap: Option<String>,
    /// Where a part of the past ends.
    pub before: Option<String>,
}

impl Query {
    pub fn describe(server: &Server, table: &Table) -> Query {
        let text = match (&table.from, server.make) {
            // Only of the query itself does MySQL say from which table a column comes, and so which of its indexes count.
            (From::Query(query), Make::MySql) if table.columns.is_empty() => query.clone(),
            _ => format!("SELECT * FROM {}", server.make.rows(table)),
        };
        Query {
            server: server.clone(),
            text,
            values: Vec::new(),
            returns: Returns::Columns,
            told: 0,
            nested: Vec::new(),
        }
    }

    /// The keys of what is gone since a pass.
    pub(super) fn gone(server: &Server, text: &str, from: String, most: usize) -> Query {
        Query {
            server: server.clone(),
            text: format!("{text} LIMIT {}", most + 1),
            values: vec![Bound::Text(from)],
            returns: Returns::Rows(most),
            told: 0,
            nested: Vec::new(),
        }
    }

    pub(super) fn batch(server: &Server, table: &Table, next: &Next, range: &Range) -> Query {
        let make = server.make;
        let order = Order::new(make, table, next);
        let mut values = Values::new(make);
        let mut conditions = Vec::new();
        if let (Some(column), Some(cursor)) = (&table.cursor, next.cursor) {
            let column = cursor.rank.expression(make, &make.column(column));
            match next.rest {
                true => conditions.push(rest(&column, cursor, range, &mut values)),
                false => conditions.extend(main(&column, cursor, next, range, &mut values)),
            }
        }
        if let Some(last) = &next.last {
            conditions.push(order.after(last, &mut values));
        }
        let conditions = match conditions.as_slice() {
            [] => String::new(),
            conditions => format!(" WHERE {}", conditions.join(" AND ")),
        };
        let row = match make {
            Make::Postgres => "row_to_json(s.*)::text",
            Make::MySql => "s.*",
        };
        Query {
            server: server.clone(),
            text: format!(
                "SELECT {row}{} FROM {}{conditions} ORDER BY {} LIMIT {}",
                order.told(),
                make.rows(table),
                order.by(),
                // One more tells whether there are more.
                next.rows + 1
            ),
            values: values.bound,
            returns: Returns::Rows(next.rows),
            told: order.len(),
            nested: table.nested.clone(),
        }
    }
}

/// Numbers of PostgreSQL that are none: NaN and the infinities.
fn limits(cursor: Cursor) -> Option<(&'static str, &'static str)> {
    // Before version 14 a numeric has no infinity to be compared with.
    let numeric = ("'-1e100000'::numeric", "'1e100000'::numeric");
    let real = ("'-Infinity'::float8", "'Infinity'::float8");
    cursor.has_limits.then_some(match cursor.rank {
        Rank::Real => real,
        _ => numeric,
    })
}

/// The rows whose cursor says something.
fn main(
    column: &str,
    cursor: Cursor,
    next: &Next,
    range: &Range,
    values: &mut Values,
) -> Vec<String> {
    let mut conditions = Vec::new();
    if next.last.is_none() {
        conditions.push(match &range.from {
            Some(from) => format!("{column} >= {}", values.put(cursor.rank, from)),
            None => format!("{column} IS NOT NULL"),
        });
    }
    if let Some(before) = &range.before {
        conditions.push(format!("{column} < {}", values.put(cursor.rank, before)));
    } else if let Some(cap) = &range.cap {
        conditions.push(format!("{column} <= {}", values.put(cursor.rank, cap)));
    }
    if let Some((least, most)) = limits(cursor) {
        conditions.push(format!("{column} > {least} AND {column} < {most}"));
    }
    conditions
}

/// The rows whose cursor says nothing: NULL, and what is no time or no number.
fn rest(column: &str, cursor: Cursor, range: &Range, values: &mut Values) -> String {
    let mut conditions = vec![format!("{column} IS NULL")];
    if let Some(cap) = &range.cap {
        conditions.push(format!("{column} > {}", values.put(cursor.rank, cap)));
        conditions.push(format!("{column} < '{LOW}'"));
    }
    if let Some((least, most)) = limits(cursor) {
        conditions.push(format!("{column} <= {least} OR {column} >= {most}"));
    }
    format!("({})", conditions.join(" OR "))
}
