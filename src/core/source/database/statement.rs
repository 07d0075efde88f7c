//! The statements that read a database.

use std::fmt;

use super::position::{Kind, Next};
use super::server::{Make, Server};
use super::table::{From, Table};

/// One statement, with values in their places.
pub struct Query {
    pub server: Server,
    pub text: String,
    pub values: Vec<Bound>,
    pub returns: Returns,
    /// Columns of the last row whose values say where the next batch begins; empty where the statement gives them itself.
    pub position: Vec<String>,
    /// Columns whose text is JSON.
    pub nested: Vec<String>,
}

/// A value of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    Text(String),
    /// Compared as a number, which a text would not be everywhere.
    Number(String),
}

/// What a statement is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returns {
    /// Which columns there are.
    Columns,
    /// Rows, at most so many: each as its JSON, its cursor and its keys.
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

    fn columns(self, names: &[String]) -> String {
        let names: Vec<String> = names.iter().map(|name| self.quoted(name)).collect();
        names.join(", ")
    }

    fn place(self, place: usize) -> String {
        match self {
            Make::Postgres => format!("${place}"),
            Make::MySql => "?".to_owned(),
        }
    }

    /// The FROM item of a table; its rows are called `s`.
    fn rows(self, table: &Table) -> String {
        let from = match &table.from {
            From::Table(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| self.quoted(part)).collect();
                parts.join(".")
            }
            // On lines of its own, for it may end with a comment.
            From::Query(query) => format!("(\n{query}\n)"),
        };
        match (table.columns.as_slice(), &table.from) {
            ([], _) => format!("{from} AS s"),
            (names, From::Table(_)) => {
                format!("(SELECT {} FROM {from}) AS s", self.columns(names))
            }
            (names, From::Query(_)) => {
                format!("(SELECT {} FROM {from} AS q) AS s", self.columns(names))
            }
        }
    }

    /// The rows after one, in the order of some columns. `taken`: how many places are.
    fn after(self, order: &[String], last: &[Bound], taken: usize) -> (String, Vec<Bound>) {
        match self {
            Make::Postgres => {
                let places: Vec<String> = (1..=last.len())
                    .map(|place| self.place(taken + place))
                    .collect();
                let condition = format!("({}) > ({})", order.join(", "), places.join(", "));
                (condition, last.to_vec())
            }
            // Compared as a row, no index would be used there.
            Make::MySql => {
                let (mut condition, mut values) = (String::new(), Vec::new());
                let columns = order.iter().zip(last).rev();
                for (at, (column, value)) in columns.enumerate() {
                    let value = value.clone();
                    if at == 0 {
                        condition = format!("{column} > ?");
                        values = vec![value];
                    } else {
                        condition = format!("{column} >= ? AND ({column} > ? OR ({condition}))");
                        values.splice(0..0, [value.clone(), value]);
                    }
                }
                (condition, values)
            }
        }
    }
}

impl Query {
    pub fn describe(server: &Server, table: &Table) -> Query {
        Query {
            server: server.clone(),
            text: format!("SELECT * FROM {}", server.make.rows(table)),
            values: Vec::new(),
            returns: Returns::Columns,
            position: Vec::new(),
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
            position: Vec::new(),
            nested: Vec::new(),
        }
    }

    /// `from`: where the cursor begins in the first batch of a pass. `before`: where it ends in all of them.
    pub(super) fn batch(
        server: &Server,
        table: &Table,
        next: &Next,
        from: Option<String>,
        before: Option<String>,
    ) -> Query {
        let make = server.make;
        let column = |name: &String| format!("s.{}", make.quoted(name));
        // The rows without a cursor value are in the order of their keys.
        let counts = table.cursor.iter().filter(|_| !next.nulls);
        let position: Vec<String> = counts.chain(&table.key).cloned().collect();
        let order: Vec<String> = position.iter().map(column).collect();
        let cursor = table.cursor.as_ref().map(column);
        let kinds = next.kind.filter(|_| !next.nulls).into_iter();
        let kinds: Vec<Kind> = kinds.chain(next.keys.iter().copied()).collect();
        let bound = |(kind, value): (&Kind, &String)| match kind {
            Kind::Number => Bound::Number(value.clone()),
            _ => Bound::Text(value.clone()),
        };
        let (mut conditions, mut values) = (Vec::new(), Vec::new());
        match &cursor {
            Some(cursor) if next.nulls => conditions.push(make.without(cursor, next.kind)),
            Some(cursor) => match (&next.last, from, kinds.first()) {
                (None, Some(from), Some(kind)) => {
                    conditions.push(format!("{cursor} >= {}", make.place(1)));
                    values.push(bound((kind, &from)));
                }
                (None, ..) => conditions.push(format!("{cursor} IS NOT NULL")),
                (Some(_), ..) => {}
            },
            None => {}
        }
        if let (Some(cursor), Some(before), Some(kind)) = (&cursor, before, kinds.first()) {
            conditions.push(format!("{cursor} < {}", make.place(values.len() + 1)));
            values.push(bound((kind, &before)));
        }
        if let Some(last) = &next.last {
            let last: Vec<Bound> = kinds.iter().zip(last).map(bound).collect();
            let (condition, last) = make.after(&order, &last, values.len());
            conditions.push(format!("({condition})"));
            values.extend(last);
        }
        let conditions = match conditions.as_slice() {
            [] => String::new(),
            conditions => format!(" WHERE {}", conditions.join(" AND ")),
        };
        let selected = match make {
            Make::Postgres => {
                let position = order
                    .iter()
                    .map(|name| format!(", to_json({name}) #>> '{{}}'"));
                format!("row_to_json(s)::text{}", position.collect::<String>())
            }
            Make::MySql => "s.*".to_owned(),
        };
        Query {
            server: server.clone(),
            text: format!(
                "SELECT {selected} FROM {}{conditions} ORDER BY {} LIMIT {}",
                make.rows(table),
                order.join(", "),
                // One more tells whether there are more.
                next.rows + 1
            ),
            values,
            returns: Returns::Rows(next.rows),
            position,
            nested: table.nested.clone(),
        }
    }
}

impl Make {
    /// The rows whose cursor says nothing.
    fn without(self, cursor: &str, kind: Option<Kind>) -> String {
        match (self, kind.is_some_and(Kind::is_time)) {
            // A date of nothing but zeros, which is before every other.
            (Make::MySql, true) => format!("({cursor} IS NULL OR {cursor} < '0001-01-01')"),
            _ => format!("{cursor} IS NULL"),
        }
    }
}
