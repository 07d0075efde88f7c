//! Statements: what is asked of a database, and where.

use std::fmt;
use std::time::Duration;

use url::Url;

use super::Next;
use super::settings::{From, Table};
use crate::error::Failure;
use crate::secret::Secret;
use crate::source::settings::wrong;

/// Where a database is, and who asks.
#[derive(Clone)]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub database: String,
    pub user: String,
    pub password: Option<Secret>,
    pub tls: Tls,
    pub statement_timeout: Duration,
    /// The place in the guard's words: https where it is encrypted.
    pub place: Url,
}

#[derive(Clone)]
pub enum Tls {
    /// `ca`: certificates in PEM; `None`: the system's.
    Verify {
        ca: Option<String>,
    },
    Off,
}

impl Server {
    pub fn new(
        host: String,
        port: u16,
        database: String,
        user: String,
        password: Option<Secret>,
        tls: Tls,
        statement_timeout: Duration,
    ) -> Result<Server, Failure> {
        let scheme = match tls {
            Tls::Verify { .. } => "https",
            Tls::Off => "http",
        };
        let no_host = || wrong("\"host\" is neither a name nor an address");
        // A path, a user or another port in it would be somewhere else than it reads.
        if host.contains(['/', '@', '?', '#', '\\']) {
            return Err(no_host());
        }
        let bracketed = match host.contains(':') && !host.starts_with('[') {
            true => format!("[{host}]"),
            false => host,
        };
        let place =
            Url::parse(&format!("{scheme}://{bracketed}:{port}/")).map_err(|_| no_host())?;
        let host = place.host_str().ok_or_else(no_host)?;
        Ok(Server {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            database,
            user,
            password,
            tls,
            statement_timeout,
            place,
        })
    }
}

/// One statement, with values in their places.
pub struct Query {
    pub server: Server,
    pub text: String,
    pub values: Vec<String>,
    pub asks: Asks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Which columns there are.
    Columns,
    /// At most so many rows, each as its JSON, its cursor and its keys.
    Rows(usize),
}

/// A query may hold a customer's name.
impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Query({}, {:?})", self.server.host, self.asks)
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn columns(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    names.join(", ")
}

impl Table {
    /// What stands behind FROM; its rows are `s`.
    fn rows(&self) -> String {
        let from = match &self.from {
            From::Table(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| quoted(part)).collect();
                parts.join(".")
            }
            // On lines of its own, for it may end with a comment.
            From::Query(query) => format!("(\n{query}\n)"),
        };
        match (self.columns.as_slice(), &self.from) {
            ([], _) => format!("{from} AS s"),
            (names, From::Table(_)) => format!("(SELECT {} FROM {from}) AS s", columns(names)),
            (names, From::Query(_)) => {
                format!("(SELECT {} FROM {from} AS q) AS s", columns(names))
            }
        }
    }
}

impl Query {
    pub fn describe(server: &Server, table: &Table) -> Query {
        Query {
            server: server.clone(),
            text: format!("SELECT * FROM {}", table.rows()),
            values: Vec::new(),
            asks: Asks::Columns,
        }
    }

    /// `from`: where the cursor begins in the first batch of a pass.
    pub(super) fn batch(
        server: &Server,
        table: &Table,
        next: &Next,
        from: Option<String>,
    ) -> Query {
        let cursor = table
            .cursor
            .as_ref()
            .map(|name| format!("s.{}", quoted(name)));
        let keys: Vec<String> = table
            .key
            .iter()
            .map(|name| format!("s.{}", quoted(name)))
            .collect();
        // The rows without a cursor value are in the order of their keys.
        let cursor_counts = cursor.as_ref().filter(|_| !next.nulls);
        let order: Vec<&String> = cursor_counts.into_iter().chain(&keys).collect();
        let joined = |names: &[&String]| {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            names.join(", ")
        };
        let mut conditions = Vec::new();
        let mut values = Vec::new();
        if let (Some(cursor), true) = (&cursor, next.nulls) {
            conditions.push(format!("{cursor} IS NULL"));
        }
        if let Some(last) = &next.last {
            let places: Vec<String> = (1..=last.len()).map(|place| format!("${place}")).collect();
            let places = places.join(", ");
            conditions.push(format!("({}) > ({places})", joined(&order)));
            values.clone_from(last);
        } else if let (Some(cursor), Some(from)) = (cursor_counts, from) {
            conditions.push(format!("{cursor} >= $1"));
            values.push(from);
        } else if let Some(cursor) = cursor_counts {
            conditions.push(format!("{cursor} IS NOT NULL"));
        }
        let conditions = match conditions.as_slice() {
            [] => String::new(),
            conditions => format!(" WHERE {}", conditions.join(" AND ")),
        };
        let told: String = order
            .iter()
            .map(|name| format!(", to_json({name}) #>> '{{}}'"))
            .collect();
        Query {
            server: server.clone(),
            text: format!(
                "SELECT row_to_json(s)::text{told} FROM {}{conditions} ORDER BY {} LIMIT {}",
                table.rows(),
                joined(&order),
                // One more tells whether there are more.
                next.rows + 1
            ),
            values,
            asks: Asks::Rows(next.rows),
        }
    }
}
