//! Asks a database for batch after batch, and reads the answers.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::begin::{Begin, no_lookback};
use super::column::Column;
use super::order::Order;
use super::position::{Cursor, Key, Kind, Next};
use super::rank::Rank;
use super::server::{Make, Server};
use super::settings;
use super::statement::{Query, Range};
use super::table::{From, Table};
use crate::error::{Code, Failure};
use crate::json::{self, RecordLimits, Spec};
use crate::record::{Page, Record};
use crate::source::reading::{self, strange};
use crate::source::settings::Settings;
use crate::source::window::AHEAD;
use crate::source::{Position, Reader, Request, Response, Stream, Verdict};

/// Bytes of a batch. The next one asks for as many rows as will come to this.
pub const BATCH: usize = 1024 * 1024;

/// A reader of these tables, by what settings say of the server.
pub fn reader(
    make: Make,
    tables: Vec<Table>,
    settings: &Settings,
    limits: RecordLimits,
) -> Result<Box<dyn Reader>, Failure> {
    Ok(Box::new(DatabaseReader {
        streams: tables.iter().map(Table::stream).collect(),
        tables,
        rows: settings.number("batch", 1.0, 50_000.0)?.unwrap_or(5_000.0) as usize,
        start_date: settings.start_date()?,
        server: settings::server(settings, make)?,
        limits,
    }))
}

struct DatabaseReader {
    streams: Vec<Stream>,
    tables: Vec<Table>,
    server: Server,
    /// Most rows of one batch.
    rows: usize,
    start_date: Option<DateTime<Utc>>,
    limits: RecordLimits,
}

/// Most deletions that one sync reads. More: a larger transaction.
const MOST_GONE: usize = 50_000;

/// Most rows with one key that are read together. More: they are in memory at once. Fewer: of rows that nothing tells
/// apart, some are not read.
const MOST_TIED: usize = 50_000;

/// Columns that a message names, and letters of each: a server may have any number, of any length.
const MOST_NAMED: usize = 30;

const LONGEST_NAME: usize = 64;

/// The body that the engine makes of a batch.
#[derive(Deserialize)]
struct Answer {
    /// The columns; with the description alone.
    #[serde(default)]
    columns: Vec<Column>,
    /// Sets of columns that an index keeps unique; with the description alone.
    #[serde(default)]
    unique: Vec<Vec<String>>,
    /// Where the last row is.
    #[serde(default)]
    last: Option<Vec<Option<String>>>,
    /// How many rows came, and whether there were more.
    #[serde(default)]
    came: usize,
    #[serde(default)]
    more: bool,
    /// Whether the first of those is at the same place as the last row.
    #[serde(default)]
    tied: bool,
}

impl DatabaseReader {
    fn table(&self, stream: &Stream) -> Result<&Table, Failure> {
        let found = self.tables.iter().find(|table| table.name == stream.name);
        found.ok_or_else(|| Failure::new(Code::Internal, "no such stream"))
    }

    fn begin<'a>(&'a self, table: &'a Table) -> Begin<'a> {
        Begin {
            table,
            zone: self.server.zone,
            start_date: self.start_date,
        }
    }

    /// The description, before anything is read.
    fn described(&self, at: &Position, answer: &Answer) -> Result<Page, Failure> {
        let table = self.table(at.stream)?;
        let make = self.server.make;
        let cursor = table.cursor.as_deref();
        let cursor = cursor.map(|cursor| {
            let column = named(&answer.columns, cursor)?;
            let kind = Kind::of(&column.kind);
            if kind == Kind::Other && table.lookback.is_some_and(|lookback| lookback > 0.0) {
                return Err(no_lookback(cursor, &format!("of the type {}", column.kind)));
            }
            let rank = Rank::of_cursor(make, column).ok_or_else(|| {
                strange(&format!(
                    "the cursor \"{cursor}\" has the type {}, whose order says nothing of changes; name a column with times, numbers or text, or leave \"cursor\" out to read the stream as a whole",
                    column.kind
                ))
            })?;
            let is_decimal = matches!(column.kind.as_str(), "numeric" | "float4" | "float8");
            Ok(Cursor {
                kind,
                rank,
                has_limits: make == Make::Postgres && is_decimal,
            })
        });
        let cursor = cursor.transpose()?;
        let kind = cursor.map(|cursor| cursor.kind);
        let mut said = Vec::new();
        if at.start.span.is_some() && !kind.is_some_and(Kind::is_time) {
            let why = "left out of the backfill, because its cursor is not a time; connector_service_refresh() reads it all again";
            return Ok(Page {
                warning: Some(format!("stream \"{}\": {why}", at.stream.name)),
                ..Page::default()
            });
        }
        let is_unique = is_unique(table, answer);
        let keys = table.key.iter().map(|key| {
            let column = Column {
                exact: is_unique || named(&answer.columns, key)?.exact,
                ..named(&answer.columns, key)?.clone()
            };
            let ranks = Rank::of_key(make, &column).ok_or_else(|| {
                strange(&format!(
                    "the key column \"{key}\" has the type {}, whose values cannot be put in order; name another column as \"key\", or read a query that makes text of it",
                    column.kind
                ))
            })?;
            // Of a query, a column may be null although its table's is not: an outer join.
            let is_known = matches!(table.from, From::Table(_)) || make == Make::MySql;
            Ok(Key {
                ranks,
                nullable: !(column.not_null && is_known),
            })
        });
        let keys: Vec<Key> = keys.collect::<Result<_, Failure>>()?;
        let may_be_blank = |(name, key): (&String, &Key)| {
            let column = named(&answer.columns, name);
            let is_json =
                column.is_ok_and(|column| matches!(column.kind.as_str(), "json" | "jsonb"));
            key.nullable || is_json || key.ranks.contains(&Rank::Day)
        };
        let are_blank = table.key.iter().zip(&keys).all(may_be_blank);
        let names = answer.columns.iter().map(|column| column.name.clone());
        let names: Vec<String> = names.collect();
        if let Some(twice) = twice(&names) {
            said.push(format!("two columns are named \"{}\", and one of them is all that can be stored; give the other one a name of its own, with AS in a query", short(twice)));
        }
        said.extend(self.begin(table).warning(kind));
        let next = Next {
            cursor,
            content: match are_blank {
                true if make == Make::MySql => names,
                true => table.key.clone(),
                false => Vec::new(),
            },
            whole: are_blank || table.key.iter().all(|key| is_structure(make, answer, key)),
            keys,
            rows: self.rows,
            again: at.high.is_some(),
            ..Next::default()
        };
        Ok(Page {
            next: Some(reading::token(&next)?),
            high: at.high.cloned(),
            warning: warning(at, &said.join("; ")),
            ..Page::default()
        })
    }

    /// From where to where the cursor of a batch reads.
    fn range(&self, at: &Position, table: &Table, next: &Next) -> Result<Range, Failure> {
        let Some(cursor) = next.cursor else {
            return Ok(Range::default());
        };
        let kind = cursor.kind;
        let begin = self.begin(table);
        let is_first = next.last.is_none() && !next.rest;
        let before = at.start.span.map(|span| match kind.has_zone() {
            true => kind.write(span.to),
            false => kind.write(span.to + AHEAD),
        });
        let cap = match kind {
            Kind::Text => begin.cap_of_text(at),
            _ => kind
                .is_time()
                .then(|| kind.write(begin.cap(kind, at.window.to))),
        };
        Ok(Range {
            from: match is_first {
                true => begin.of(at, kind)?,
                false => None,
            },
            cap,
            before,
        })
    }
}

/// The column of this name. Of two nobody knows which is meant.
fn named<'a>(columns: &'a [Column], name: &str) -> Result<&'a Column, Failure> {
    let mut found = columns.iter().filter(|column| column.name == name);
    match (found.next(), found.next()) {
        (Some(column), None) => Ok(column),
        (Some(_), Some(_)) => Err(strange(&format!(
            "two columns are named \"{name}\"; give one of them a name of its own, with AS in a query"
        ))),
        (None, _) => {
            let names = columns.iter().take(MOST_NAMED);
            let mut there: Vec<&str> = names.map(|column| short(&column.name)).collect();
            if columns.len() > MOST_NAMED {
                there.push("more");
            }
            let there = there.join(", ");
            let message = format!("the column \"{name}\" does not exist; the columns are {there}");
            Err(Failure::new(Code::NotFound, message))
        }
    }
}

fn short(name: &str) -> &str {
    let end = name.char_indices().nth(LONGEST_NAME);
    end.and_then(|(end, _)| name.get(..end)).unwrap_or(name)
}

fn twice(names: &[String]) -> Option<&str> {
    let mut seen = HashSet::new();
    let twice = names.iter().find(|name| !seen.insert(name.as_str()));
    twice.map(String::as_str)
}

/// Whether an index of the table lets no two rows have an equal key.
fn is_unique(table: &Table, answer: &Answer) -> bool {
    let is_kept = |name: &String| {
        let found = answer.columns.iter().find(|column| column.name == *name);
        found.is_some_and(|column| column.not_null) && table.key.contains(name)
    };
    let mut unique = answer.unique.iter();
    matches!(table.from, From::Table(_)) && unique.any(|names| names.iter().all(is_kept))
}

/// Whether its values are no texts and no numbers. Versions up to 0.1.0 took the whole row for the id of such a row.
fn is_structure(make: Make, answer: &Answer, name: &str) -> bool {
    let plain = [
        "text", "varchar", "bpchar", "citext", "xid", "money", "timetz",
    ];
    let found = answer.columns.iter().find(|column| column.name == name);
    found.is_some_and(|column| match (make, column.kind.as_str()) {
        (Make::Postgres, "bool") | (_, "json") => true,
        (Make::MySql, _) => false,
        (Make::Postgres, kind) => {
            let ranks = Rank::of_key(Make::Postgres, column);
            ranks.is_some_and(|ranks| ranks == [Rank::Json]) && !plain.contains(&kind)
        }
    })
}

fn warning(at: &Position, said: &str) -> Option<String> {
    (!said.is_empty()).then(|| format!("stream \"{}\": {said}", at.stream.name))
}

/// A pass has no window of its own: where a batch begins is known once its columns are.
impl Reader for DatabaseReader {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn request(&self, _at: &Position) -> Result<Request, Failure> {
        Err(Failure::new(
            Code::Internal,
            "a database is not asked over HTTP",
        ))
    }

    fn query(&self, at: &Position) -> Result<Option<Query>, Failure> {
        let table = self.table(at.stream)?;
        let next: Option<Next> = at.next.map(|_| reading::next(at)).transpose()?;
        let query = match next {
            None => Query::describe(&self.server, table),
            Some(next) if next.gone => {
                let text = table.gone.as_deref().unwrap_or_default();
                let kind = next.cursor.map_or(Kind::Naive, |cursor| cursor.kind);
                let from = self.begin(table).of(at, kind)?;
                Query::gone(&self.server, text, from.unwrap_or_default(), MOST_GONE)
            }
            Some(next) if next.keys_alone => {
                let table = table.keys(next.whole);
                Query::batch(&self.server, &table, &next, &Range::default())
            }
            Some(next) => {
                let range = self.range(at, table, &next)?;
                Query::batch(&self.server, table, &next, &range)
            }
        };
        Ok(Some(query))
    }

    fn verdict(&self, _at: &Position, _got: &Response) -> Verdict {
        // What a database refuses is a failure of the exchange.
        Verdict::Read
    }

    fn absent(&self, at: &Position, failure: &Failure) -> Option<String> {
        let table = self.table(at.stream).ok()?;
        let next: Next = reading::next(at).ok()?;
        let is_missing = matches!(failure.code, Code::NotFound | Code::PermissionMissing);
        if !is_missing {
            None
        } else if next.gone {
            Some("deletions are not found: this user may not read the table that lists them".into())
        } else {
            let why = "left out, because its table does not exist or this user may not read it";
            (table.optional && at.next.is_none()).then(|| why.to_owned())
        }
    }

    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let answer: Answer = reading::whole(got)?;
        if at.next.is_none() {
            return self.described(at, &answer);
        }
        let table = self.table(at.stream)?;
        let next: Next = reading::next(at)?;
        let path = ["rows".to_owned()];
        let key: Vec<Vec<String>> = table
            .key
            .iter()
            .map(|column| vec![column.clone()])
            .collect();
        let is_text = |cursor: Cursor| cursor.kind == Kind::Text;
        let cursor = table.cursor.clone().map(|column| [column]);
        let cursor = cursor.filter(|_| next.cursor.is_some_and(is_text));
        let spec = Spec {
            stream: &at.stream.name,
            path: &path,
            key: &key,
            cursor: cursor.as_ref().map(<[String; 1]>::as_slice),
            gone: None,
            limits: self.limits,
            lines: &[],
        };
        let found = json::records(&got.body, &spec)?;
        let came = found.records.len() + found.rejected.len();
        if came != answer.came {
            return Err(strange("the batch does not have as many rows as it claims"));
        }
        if next.gone {
            let known = found.records.into_iter().flat_map(Record::ids);
            let warning =
                "there are more deletions than one sync reads; the other deleted rows still count";
            return Ok(Page {
                deleted: known.collect(),
                high: at.high.cloned(),
                warning: answer
                    .more
                    .then(|| format!("stream \"{}\": {warning}", at.stream.name)),
                ..Page::default()
            });
        }
        let last = answer.last;
        let told = last.as_ref().map_or(0, Vec::len);
        if last.is_some() && told != Order::new(self.server.make, table, &next).len() {
            return Err(strange("the last row does not say where it is"));
        }
        if answer.tied && came == next.rows && next.rows < MOST_TIED {
            // They are read together, for what comes behind the last row would leave out the other ones.
            let rows = (next.rows * 2).min(MOST_TIED);
            let next = Next { rows, ..next };
            return Ok(Page {
                next: Some(reading::token(&next)?),
                high: at.high.cloned(),
                ..Page::default()
            });
        }
        let said = match answer.tied {
            true => format!(
                "more than {came} rows have one key, and not all of them are read; name columns that identify a row"
            ),
            false => String::new(),
        };
        let reached = last.as_ref().and_then(|last| last.first()?.as_deref());
        let high = match (next.cursor, reached) {
            (Some(cursor), Some(reached)) if !next.rest && !next.keys_alone => self
                .begin(table)
                .reached(at, cursor, reached, &found.cursors)?,
            _ => at.high.cloned(),
        };
        // As many as come to a batch of the usual size, by what this one came to.
        let each = (got.body.len() / came.max(1)).max(1);
        let rows = (BATCH / each).clamp(1, self.rows);
        let is_keys_alone = next.keys_alone;
        let next = match answer.more {
            true => Some(Next { rows, last, ..next }),
            false if at.start.span.is_some() => None,
            false if next.cursor.is_some() && !next.rest => Some(Next {
                rows,
                last: None,
                rest: true,
                ..next
            }),
            false if table.deletes && next.cursor.is_some() && !next.keys_alone => Some(Next {
                rows: self.rows,
                last: None,
                keys_alone: true,
                ..next
            }),
            false if next.again && table.gone.is_some() => Some(Next {
                last: None,
                gone: true,
                ..next
            }),
            false => None,
        };
        let mut page = Page {
            rejected: found.rejected,
            next: next.as_ref().map(reading::token).transpose()?,
            // Two rows with one content are two, and each batch goes on behind the one before.
            overlaps: true,
            warning: warning(at, &said),
            high,
            ..Page::default()
        };
        match is_keys_alone {
            true => page.shown = found.records.into_iter().flat_map(Record::ids).collect(),
            false => page.records = found.records,
        }
        Ok(page)
    }
}
