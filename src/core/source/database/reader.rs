//! Asks a database for batch after batch, and reads the answers.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::position::{Kind, Next};
use super::server::{Make, Server};
use super::settings;
use super::statement::Query;
use super::table::Table;
use crate::error::{Code, Failure};
use crate::json::{self, RecordLimits, Spec};
use crate::record::{Page, Record};
use crate::source::reading::{self, strange};
use crate::source::settings::Settings;
use crate::source::window::{AHEAD, BEHIND, highest};
use crate::source::{Position, Reader, Request, Response, Stream, Verdict};
use crate::template::parse_any;

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

/// Columns that a message names, and letters of each: a server may have any number, of any length.
const MOST_NAMED: usize = 30;

const LONGEST_NAME: usize = 64;

/// The body that the engine makes of a batch.
#[derive(Deserialize)]
struct Answer {
    /// Name and type of each column; with the description alone.
    #[serde(default)]
    columns: Vec<(String, String)>,
    /// Cursor, where there is one, and keys of the last row.
    #[serde(default)]
    last: Option<Vec<Option<String>>>,
    /// How many rows came, and whether there were more.
    #[serde(default)]
    came: usize,
    #[serde(default)]
    more: bool,
}

impl DatabaseReader {
    fn table(&self, stream: &Stream) -> Result<&Table, Failure> {
        let found = self.tables.iter().find(|table| table.name == stream.name);
        found.ok_or_else(|| Failure::new(Code::Internal, "no such stream"))
    }

    /// Where the first batch of a pass begins; `None`: at the beginning.
    fn begins(&self, at: &Position, table: &Table, kind: Kind) -> Option<String> {
        let reached = at.high.and_then(Value::as_str);
        if let Some(span) = at.start.span {
            return Some(kind.write(match kind.has_zone() {
                true => span.from,
                false => span.from - BEHIND,
            }));
        }
        if kind.is_time() {
            let Some(reached) = reached.and_then(parse_any) else {
                let first = self.start_date.unwrap_or(at.start.default_from);
                let first = if kind.has_zone() {
                    first
                } else {
                    first - BEHIND
                };
                return Some(kind.write(first));
            };
            let lookback = table.lookback.unwrap_or(600.0);
            let lookback = TimeDelta::milliseconds((lookback * 1_000.0) as i64);
            let from = (reached - lookback).max(DateTime::UNIX_EPOCH);
            let from = self
                .start_date
                .map_or(from, |first| from.max(first - BEHIND));
            return Some(kind.write(from));
        }
        let reached = reached?;
        match reached.parse::<i128>() {
            // Numbers are given out before their transactions commit, and commit in another order.
            Ok(number) if kind == Kind::Number => {
                let lookback = table.lookback.unwrap_or(1_000.0) as i128;
                Some(number.saturating_sub(lookback).to_string())
            }
            _ => Some(reached.to_owned()),
        }
    }

    /// The description, before anything is read.
    fn described(&self, at: &Position, answer: &Answer) -> Result<Page, Failure> {
        let table = self.table(at.stream)?;
        let kind_of = |column: &str| {
            let found = answer.columns.iter().find(|(name, _)| name == column);
            found.map(|(_, kind)| Kind::of(kind)).ok_or_else(|| {
                let names = answer.columns.iter().take(MOST_NAMED);
                let names = names.map(|(name, _)| name.chars().take(LONGEST_NAME).collect());
                let mut there: Vec<String> = names.collect();
                if answer.columns.len() > MOST_NAMED {
                    there.push("more".to_owned());
                }
                let there = there.join(", ");
                let message =
                    format!("the column \"{column}\" does not exist; the columns are {there}");
                Failure::new(Code::NotFound, message)
            })
        };
        let keys: Result<Vec<Kind>, Failure> = table.key.iter().map(|key| kind_of(key)).collect();
        let kind = table.cursor.as_deref().map(kind_of).transpose()?;
        if at.start.span.is_some() && !kind.is_some_and(Kind::is_time) {
            let why = "left out of the backfill, because its cursor is not a time; connector_service_refresh() reads it all again";
            return Ok(Page {
                warning: Some(format!("stream \"{}\": {why}", at.stream.name)),
                ..Page::default()
            });
        }
        let next = Next {
            keys: keys?,
            kind,
            rows: self.rows,
            last: None,
            nulls: false,
            again: at.high.is_some(),
            gone: false,
            keys_alone: false,
        };
        Ok(Page {
            next: Some(reading::token(&next)?),
            high: at.high.cloned(),
            ..Page::default()
        })
    }
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
                let from = self.begins(at, table, next.kind.unwrap_or(Kind::Naive));
                Query::gone(&self.server, text, from.unwrap_or_default(), MOST_GONE)
            }
            Some(next) if next.keys_alone => {
                Query::batch(&self.server, &table.keys(), &next, None, None)
            }
            Some(next) => {
                let before = next.kind.zip(at.start.span);
                let before = before.map(|(kind, span)| match kind.has_zone() {
                    true => kind.write(span.to),
                    false => kind.write(span.to + AHEAD),
                });
                let from = match (&next.kind, &next.last) {
                    (Some(kind), None) if !next.nulls => self.begins(at, table, *kind),
                    _ => None,
                };
                Query::batch(&self.server, table, &next, from, before)
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
        let spec = Spec {
            stream: &at.stream.name,
            path: &path,
            key: &key,
            cursor: None,
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
        let last = answer
            .last
            .map(|values| values.into_iter().collect::<Option<Vec<_>>>());
        let last = match last {
            None => None,
            Some(Some(values)) => Some(values),
            Some(None) => {
                return Err(strange(
                    "a key column is NULL; a row without a key cannot be recognised when it changes",
                ));
            }
        };
        let reached = match (
            next.kind,
            next.nulls,
            last.as_ref().and_then(|last| last.first()),
        ) {
            (Some(kind), false, Some(reached)) => Some((kind, reached.clone())),
            _ => None,
        };
        let high = match reached {
            // One of the far future would make every later pass skip what lies before it.
            Some((kind, reached)) if kind.is_time() => {
                let cap = if kind.has_zone() {
                    at.window.to
                } else {
                    at.window.to + AHEAD
                };
                highest(at.high, &[reached], cap, parse_any).0
            }
            Some((kind, reached)) => {
                let number =
                    |text: &str| text.parse::<i128>().ok().filter(|_| kind == Kind::Number);
                let high = at.high.and_then(Value::as_str).and_then(number);
                // Within the lookback, where the rows beyond it are gone.
                match number(&reached) < high {
                    true => at.high.cloned(),
                    false => Some(reached.into()),
                }
            }
            None => at.high.cloned(),
        };
        // As many as come to a batch of the usual size, by what this one came to.
        let each = (got.body.len() / came.max(1)).max(1);
        let rows = (BATCH / each).clamp(1, self.rows);
        let is_keys_alone = next.keys_alone;
        let next = match answer.more {
            true => Some(Next { rows, last, ..next }),
            false if at.start.span.is_some() => None,
            false if next.kind.is_some() && !next.nulls => Some(Next {
                rows,
                last: None,
                nulls: true,
                ..next
            }),
            false if table.deletes && next.kind.is_some() && !next.keys_alone => Some(Next {
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
