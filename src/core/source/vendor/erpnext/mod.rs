//! `erpnext`: documents of a Frappe site, by its REST API, or out of its database ([`tables`]).
//!
//! The site stamps changes in its own zone, without saying which. So a stamp is never converted: a pass asks for what
//! was changed after the greatest stamp that the site itself wrote, less a lookback that is longer than the hour by
//! which clocks are put back, in the site's own spelling. Offsets of pages move under the reader; each page asks for
//! what comes after the last document instead. A list has no child rows: where those count, each document is read by
//! itself.

#[cfg(test)]
mod damaged;
mod streams;
mod tables;
mod webhook;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use crate::error::{Code, Failure};
use crate::json;
use crate::record::{Listing, Page, Window};
use crate::secret::Secret;
use crate::source::api::join;
use crate::source::common::Common;
use crate::source::database::{self, Make, keys};
use crate::source::hook::Hook;
use crate::source::reading::{self, Shape, strange};
use crate::source::request::{below, verdict_by_status, with_query};
use crate::source::settings::{PACE, START_DATE, STREAMS, Settings, missing, wrong};
use crate::source::table::{about, row};
use crate::source::window::{AHEAD, BEHIND, highest};
use crate::source::{
    About, Account, Definition, Field, Position, Reader, Request, Response, Source, Start, Stream,
    Verdict,
};
use crate::template::parse_any;
use streams::Spec;

pub struct ErpNext;

/// Documents of one page.
const PAGE: usize = 500;

const CREDENTIALS: &[Field] = &[
    Field {
        name: "api_key",
        meaning: "API key of a user who may read the streams",
    },
    Field {
        name: "api_secret",
        meaning: "API secret of the same user",
    },
    Field {
        name: "username",
        meaning: "user of the site's MariaDB, with password and config's host and database: to read by SQL",
    },
    keys::PASSWORD,
    Field {
        name: "webhook_secret",
        meaning: "secret of the site's Webhook documents that push JSON here; a list of both while it is rotated",
    },
];

const CONFIG: &[Field] = &[
    Field {
        name: "base_url",
        meaning: "URL of the site, such as https://acme.erpnext.com; may be in credentials instead",
    },
    STREAMS,
    START_DATE,
    PACE,
    keys::HOST,
    keys::PORT,
    keys::DATABASE,
    keys::USERNAME,
    keys::TLS,
    keys::CA,
    keys::BATCH,
    keys::STATEMENT_TIMEOUT,
];

impl Source for ErpNext {
    fn name(&self) -> &'static str {
        "erpnext"
    }

    fn about(&self) -> About {
        about::<Spec>("business suite", CREDENTIALS, CONFIG)
    }

    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        let settings = Settings::new(connector, CONFIG)?;
        let streams = settings.streams::<Spec>()?;
        if settings.place(&[keys::DATABASE.name])?.is_some() {
            let tables = streams.iter().map(|stream| {
                let spec: &Spec = row(stream)?;
                Ok(tables::table(spec, settings.is_chosen()))
            });
            let tables: Result<Vec<_>, Failure> = tables.collect();
            return database::reader(Make::MySql, tables?, &settings, connector.limits);
        }
        // An hour is there twice when clocks are put back, and long transactions stamp early.
        let since = settings.since(TimeDelta::hours(2), naive)?;
        let site = settings.place(&["base_url", "url", "site", "site_url"])?;
        let key = settings.need(&["api_key"])?;
        let secret = settings.need(&["api_secret"])?;
        let site = site.ok_or_else(|| missing("base_url"))?;
        let site = match site.contains("://") {
            true => site,
            false => format!("https://{site}"),
        };
        let base =
            join(&site, "").map_err(|_| wrong("\"base_url\" is not an http or https URL"))?;
        let host = base.host_str().unwrap_or_default();
        let account = Account {
            name: format!("erpnext {host} {}", key.fingerprint()),
            every: Duration::from_millis(50),
            burst: 10,
        };
        Ok(Box::new(ErpNextReader {
            common: Common::new(&settings, streams, since, account)?,
            base,
            token: Secret::new([b"token ", key.expose(), b":", secret.expose()].concat()),
        }))
    }

    fn hook(&self, connector: &Definition) -> Result<Option<Box<dyn Hook>>, Failure> {
        webhook::open(connector)
    }
}

struct ErpNextReader {
    base: Url,
    common: Common,
    /// The whole header.
    token: Secret,
}

/// How a pass continues.
#[derive(Default, Serialize, Deserialize)]
struct Next {
    step: Step,
    /// Whether an earlier pass has read the stream, so that something may be gone since.
    again: bool,
    /// Stamp and name of the last document, or of the last deletion.
    after: Option<(String, String)>,
    /// Documents that are to be read one by one before the list goes on; the last one first.
    names: Vec<String>,
    /// Whether the list goes on after them.
    more: bool,
    /// Whether names have been listed already.
    #[serde(default)]
    begun: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    #[default]
    List,
    Deleted,
    /// The names of all documents: what is stored and not among them is gone.
    Names,
}

/// One document of a list, as far as it can be read: what is wrong with it is its own matter.
struct Entry {
    name: Option<String>,
    /// `modified`, or `creation` of a deletion.
    stamp: Option<String>,
    deleted_name: Option<String>,
    is_restored: bool,
}

/// The documents of a list, in their order.
fn listed(got: &Response, by: &str) -> Result<Vec<Entry>, Failure> {
    let rows = match reading::whole::<Listed>(got) {
        Ok(listed) if listed.data.is_empty() => return Ok(Vec::new()),
        Err(failure) if failure.code != Code::InvalidJson => return Err(failure),
        // One of them may be no JSON: the others are.
        read => {
            let rows = json::items(got.body.trim_ascii(), &["data".to_owned()]).flatten();
            match (rows, read) {
                (Some(rows), _) => rows,
                (None, Err(failure)) => return Err(failure),
                (None, Ok(_)) => return Err(strange("the response has no list of documents")),
            }
        }
    };
    let entry = |row: &[u8]| {
        let fields = json::fields(row).unwrap_or_default();
        let value = |name: &str| {
            let quoted = format!("\"{name}\"");
            let (_, value) = fields.iter().find(|(key, _)| *key == quoted.as_bytes())?;
            serde_json::from_slice::<Value>(value).ok()
        };
        let text = |name: &str| value(name)?.as_str().map(str::to_owned);
        Entry {
            name: value("name")
                .filter(|name| !name.is_null())
                .map(|name| name_of(&name)),
            stamp: text(by),
            deleted_name: text("deleted_name"),
            is_restored: value("restored")
                .and_then(|value| value.as_i64())
                .unwrap_or(0)
                != 0,
        }
    };
    Ok(rows.into_iter().map(entry).collect())
}

/// Stamp and name of the last document that has both, from which the list goes on.
fn last(entries: &[Entry]) -> Result<Option<(String, String)>, Failure> {
    let known = |entry: &Entry| Some((entry.stamp.clone()?, entry.name.clone()?));
    match entries.iter().rev().find_map(known) {
        None if !entries.is_empty() => Err(strange("a list says of no document when it changed")),
        last => Ok(last),
    }
}

#[derive(Deserialize)]
struct Listed {
    data: Vec<serde::de::IgnoredAny>,
}

/// A name is a text, and a number where the doctype counts.
fn name_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn stamp(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// A site's stamp, read as if its zone were UTC.
fn naive(text: &str) -> Option<DateTime<Utc>> {
    parse_any(&text.replacen(' ', "T", 1))
}

impl ErpNextReader {
    /// A list in the order of a stamp, from a moment on or after a row.
    fn list(
        &self,
        doctype: &str,
        fields: &[&str],
        (by, from): (&str, DateTime<Utc>),
        filters: Vec<Value>,
        at: &Position,
        after: Option<&(String, String)>,
    ) -> Url {
        let mut filters = filters;
        let mut query = vec![
            ("fields", json!(fields).to_string()),
            ("order_by", format!("{by} asc, name asc")),
            ("limit_page_length", PAGE.to_string()),
        ];
        match after {
            None => filters.push(json!([by, ">=", stamp(from)])),
            // Together: later, or of the same moment with a greater name. The server compares names, by its own rules.
            Some((moment, name)) => {
                filters.push(json!([by, ">=", moment]));
                query.push((
                    "or_filters",
                    json!([[by, ">", moment], ["name", ">", name]]).to_string(),
                ));
            }
        }
        if let Some(span) = at.start.span {
            // By the clock of a site that is furthest ahead.
            filters.push(json!([by, "<", stamp(span.to + AHEAD)]));
        }
        query.push(("filters", Value::from(filters).to_string()));
        with_query(below(&self.base, &["api", "resource", doctype]), &query)
    }
}

impl Reader for ErpNextReader {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn window(
        &self,
        stream: &Stream,
        cursor: Option<&Value>,
        start: Start,
    ) -> Result<Window, Failure> {
        let mut window = self.common.since.window(stream, cursor, start);
        if cursor.is_none() {
            // By the clock of a site that is furthest behind.
            window.from = window.from.map(|from| from - BEHIND);
        }
        Ok(window)
    }

    fn request(&self, at: &Position) -> Result<Request, Failure> {
        let spec: &Spec = row(at.stream)?;
        let next: Next = reading::next(at)?;
        let from = at.window.from.unwrap_or_default();
        let url = match (next.names.last(), next.step) {
            (Some(name), _) => below(&self.base, &["api", "resource", spec.doctype, name]),
            (None, Step::List | Step::Names) => {
                let filters = spec.filter.map(|(field, value)| json!([field, "=", value]));
                let (from, is_list) = match next.step {
                    Step::Names => (DateTime::UNIX_EPOCH, false),
                    _ => (from, true),
                };
                let fields: &[&str] = if spec.children || !is_list {
                    &["name", "modified"]
                } else {
                    &["*"]
                };
                let filters = filters.into_iter().collect();
                self.list(
                    spec.doctype,
                    fields,
                    ("modified", from),
                    filters,
                    at,
                    next.after.as_ref(),
                )
            }
            (None, Step::Deleted) => {
                let filters = vec![json!(["deleted_doctype", "=", spec.doctype])];
                let fields = ["name", "creation", "deleted_name", "restored"];
                self.list(
                    "Deleted Document",
                    &fields,
                    (
                        "creation",
                        at.start.missed_since.map_or(from, |since| from.min(since)),
                    ),
                    filters,
                    at,
                    next.after.as_ref(),
                )
            }
        };
        Ok(Request::get(url)
            .header("Accept", "application/json")
            .header("Authorization", self.token.text()))
    }

    fn verdict(&self, at: &Position, got: &Response) -> Verdict {
        let Ok(spec) = row::<Spec>(at.stream) else {
            return verdict_by_status(got);
        };
        let next: Next = reading::next(at).unwrap_or_default();
        let is_optional = spec.optional && !self.common.is_chosen && at.next.is_none();
        let absent = |why: &str| Verdict::Absent(why.to_owned());
        let fail = |code, what: String| Verdict::Fail(got.failure(code, what));
        match got.status {
            // One that was deleted since it was listed, or is as gone as the site said.
            404 if !next.names.is_empty() => Verdict::Read,
            403 | 404 if next.step == Step::Deleted => {
                absent("deletions are not found: this user may not read Deleted Document")
            }
            400 | 403 | 404 | 417 if next.step == Step::Names => absent(
                "what was deleted is not looked for: this user may not list the documents any more",
            ),
            403 if is_optional => absent("left out, because this user may not read it"),
            404 if is_optional => absent("left out, because this site does not have it"),
            403 => fail(
                Code::PermissionMissing,
                format!("this user may not read \"{}\"", spec.doctype),
            ),
            417 => fail(
                Code::RequestRefused,
                "the site refused the filters".to_owned(),
            ),
            _ => verdict_by_status(got),
        }
    }

    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let spec: &Spec = row(at.stream)?;
        let mut next: Next = reading::next(at)?;
        next.again |= at.next.is_none() && at.high.is_some();
        if let Some(name) = next.names.pop() {
            return self.document(at, got, next, &name);
        }
        if next.step == Step::Deleted {
            return deleted(at, got, next);
        }
        let listed = listed(got, "modified")?;
        next.more = listed.len() >= PAGE;
        if let Some(last) = last(&listed)? {
            next.after = Some(last);
        }
        let stamps: Vec<String> = listed.iter().filter_map(|row| row.stamp.clone()).collect();
        let (high, _) = highest(at.high, &stamps, at.window.to + AHEAD, naive);
        if next.step == Step::Names {
            let names = listed.into_iter().filter_map(|row| row.name);
            let shown = names.map(|name| format!("{}/{name}", at.stream.name));
            return Ok(Page {
                shown: shown.collect(),
                listing: match next.begun {
                    false => Listing::Begins,
                    true => Listing::GoesOn,
                },
                ..reading::step(
                    at,
                    next.more.then_some(Next {
                        begun: true,
                        ..next
                    }),
                )?
            });
        }
        if spec.children {
            next.names = listed
                .into_iter()
                .rev()
                .filter_map(|row| row.name)
                .collect();
            // The list has passed them, and they are not stored before each of them is.
            return reading::step(at, goes_on(at, next));
        }
        let shape = Shape {
            path: "data",
            key: &["name"],
            ..Shape::default()
        };
        let found = self.common.read(at, got, &shape)?;
        reading::page(found, goes_on(at, next), high)
    }
}

/// The next document, the next page, or the deletions; after a first pass or a refresh, the names of all documents.
fn goes_on(at: &Position, next: Next) -> Option<Next> {
    if !next.names.is_empty() || next.more {
        return Some(next);
    }
    if next.step != Step::List || at.start.span.is_some() {
        return None;
    }
    Some(Next {
        step: match next.again {
            true => Step::Deleted,
            false => Step::Names,
        },
        again: next.again,
        ..Next::default()
    })
}

impl ErpNextReader {
    /// One document with its child rows.
    fn document(
        &self,
        at: &Position,
        got: &Response,
        next: Next,
        name: &str,
    ) -> Result<Page, Failure> {
        if got.status == 404 {
            return Ok(Page {
                deleted: vec![format!("{}/{name}", at.stream.name)],
                ..reading::step(at, goes_on(at, next))?
            });
        }
        let shape = Shape {
            path: "data",
            key: &["name"],
            stamp: "modified",
            ..Shape::default()
        };
        let found = self.common.read(at, got, &shape)?;
        // Among the deletions it is only asked for to see that it is there.
        if next.step == Step::Deleted {
            return reading::step(at, goes_on(at, next));
        }
        let high = match &next.after {
            Some((moment, _)) if next.names.is_empty() => {
                let cap = at.window.to + AHEAD;
                highest(at.high, std::slice::from_ref(moment), cap, naive).0
            }
            // A later stamp than the list's would pass those that are still to be read.
            _ => at.high.cloned(),
        };
        reading::page(found, goes_on(at, next), high)
    }
}

/// What was deleted since the last pass: each name is asked for, because another document may have it by now.
fn deleted(at: &Position, got: &Response, mut next: Next) -> Result<Page, Failure> {
    let listed = listed(got, "creation")?;
    next.more = listed.len() >= PAGE;
    if let Some(last) = last(&listed)? {
        next.after = Some(last);
    }
    let gone = listed.into_iter().filter(|row| !row.is_restored);
    next.names = gone.filter_map(|row| row.deleted_name).collect();
    next.names.sort_unstable();
    next.names.dedup();
    reading::step(at, goes_on(at, next))
}
