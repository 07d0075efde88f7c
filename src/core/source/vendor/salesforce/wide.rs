//! Objects with more fields than one address can name.
//!
//! What changed is listed by its id alone. Then some rows at a time are asked for by their ids, once for each part of the
//! fields, and the parts of a row are put together. A row that changes between two parts is left to the next pass,
//! which its new stamp brings it to. Until the last part is there nothing is stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use super::{Next, SalesforceReader};
use crate::error::Failure;
use crate::json;
use crate::record::{Count, Page};
use crate::source::reading::{self, Shape, strange};
use crate::source::request::{below, with_query};
use crate::source::{Position, Response};

/// Rows that are asked for at once. More: their ids leave less room for fields, and their parts are held in memory.
/// Fewer: more requests.
const ROWS: usize = 50;

/// How the rows of one page are read.
#[derive(Default, Clone, Serialize, Deserialize)]
pub struct Wide {
    /// The fields of each part. Id and stamp are in all of them.
    parts: Vec<Vec<String>>,
    /// The rows that are still to be read, the last one first.
    ids: Vec<String>,
    /// How many parts of the rows that are read now have come.
    part: usize,
    /// The rows by id, as far as they have come.
    rows: BTreeMap<String, Row>,
    /// The vendor's locator, where it gives fewer rows at once.
    more: Option<String>,
    /// The greatest stamp of the list, which counts when its rows are stored.
    high: Option<serde_json::Value>,
}

#[derive(Default, Clone, Serialize, Deserialize)]
struct Row {
    stamp: Option<String>,
    /// An object without its closing bracket.
    text: String,
    parts: usize,
}

impl Wide {
    pub fn of(parts: Vec<Vec<String>>) -> Wide {
        Wide {
            parts,
            ..Wide::default()
        }
    }

    pub fn is_reading(&self) -> bool {
        !self.ids.is_empty()
    }

    /// The rows that are read now.
    fn now(&self) -> &[String] {
        let from = self.ids.len().saturating_sub(ROWS);
        self.ids.get(from..).unwrap_or_default()
    }
}

/// A field's value in its own text.
fn value<'a>(fields: &[(&'a [u8], &'a [u8])], name: &str) -> Option<&'a [u8]> {
    let quoted = format!("\"{name}\"");
    let found = fields.iter().find(|(key, _)| *key == quoted.as_bytes());
    found.map(|(_, value)| *value)
}

impl SalesforceReader {
    /// The fields in as few parts as there can be.
    pub fn parts(
        &self,
        at: &Position,
        object: &str,
        stamp: Option<&str>,
        fields: &[String],
        longest: usize,
    ) -> Result<Vec<Vec<String>>, Failure> {
        let ids = vec!["x".repeat(18); ROWS];
        let length = |fields: &[String]| {
            let url = self.rows_url(at, object, fields, &ids)?;
            Ok::<usize, Failure>(url.as_str().len())
        };
        let needed = |name: &String| name == "Id" || Some(name.as_str()) == stamp;
        let (always, rest): (Vec<String>, Vec<String>) = fields.iter().cloned().partition(needed);
        let mut room = longest.saturating_sub(length(&always)?);
        let mut parts = Vec::new();
        let mut part = always.clone();
        // What belongs to one other object comes as one object.
        let mut units: Vec<Vec<String>> = Vec::new();
        let mut of_object: BTreeMap<String, usize> = BTreeMap::new();
        for field in rest {
            let object = field.split_once('.').map(|(object, _)| object.to_owned());
            let known = object.as_ref().and_then(|object| of_object.get(object));
            match known.and_then(|place| units.get_mut(*place)) {
                Some(unit) => unit.push(field),
                None => {
                    of_object.extend(object.map(|object| (object, units.len())));
                    units.push(vec![field]);
                }
            }
        }
        for unit in units {
            // Names are of letters, digits, dots and underscores; the comma between them is escaped.
            let size: usize = unit.iter().map(|field| field.len() + 3).sum();
            if size > room && part.len() > always.len() {
                parts.push(std::mem::replace(&mut part, always.clone()));
                room = longest.saturating_sub(length(&always)?);
            }
            room = room.saturating_sub(size);
            part.extend(unit);
        }
        parts.push(part);
        Ok(parts)
    }

    fn rows_url(
        &self,
        at: &Position,
        object: &str,
        fields: &[String],
        ids: &[String],
    ) -> Result<Url, Failure> {
        let ids: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
        let soql = format!(
            "SELECT {} FROM {object} WHERE Id IN ({})",
            fields.join(","),
            ids.join(",")
        );
        let path = ["services", "data", &self.version, "queryAll"];
        Ok(with_query(below(&self.base(at)?, &path), &[("q", &soql)]))
    }

    /// Asks for one part of some rows.
    pub fn wide_url(&self, at: &Position, object: &str, wide: &Wide) -> Result<Url, Failure> {
        if let Some(more) = &wide.more {
            let more = self.base(at)?.join(more);
            return more.map_err(|_| strange("the address of the next page cannot be read"));
        }
        let fields = wide.parts.get(wide.part).map_or(&[][..], Vec::as_slice);
        self.rows_url(at, object, fields, wide.now())
    }

    /// The list of what changed: its rows are read before it goes on.
    pub fn wide_list(
        &self,
        got: &Response,
        next: &mut Next,
        page: &mut Page,
    ) -> Result<(), Failure> {
        let Some(wide) = &mut next.wide else {
            return Ok(());
        };
        let rows = json::items(&got.body, &["records".to_owned()]).flatten();
        let mut ids = Vec::new();
        for row in rows.ok_or_else(|| strange("the response has no records"))? {
            let fields = json::fields(row).unwrap_or_default();
            if value(&fields, "IsDeleted") == Some(b"true") {
                continue;
            }
            let id = value(&fields, "Id").and_then(|id| serde_json::from_slice::<String>(id).ok());
            let id = id.filter(|id| id.bytes().all(|c| c.is_ascii_alphanumeric()));
            ids.push(id.ok_or_else(|| strange("a row has no id"))?);
        }
        ids.reverse();
        wide.ids = ids;
        // It counts when the rows are stored.
        if wide.is_reading() {
            wide.high = page.high.take();
        }
        page.records.clear();
        Ok(())
    }

    /// One part of some rows. `None` as the next position of the list: it has ended.
    pub fn wide_rows(
        &self,
        at: &Position,
        got: &Response,
        mut next: Next,
    ) -> Result<Page, Failure> {
        let Some(mut wide) = next.wide.take() else {
            return Err(strange("there are no rows to read"));
        };
        let (more, ..) = self.continuation(got)?;
        let stamp = next.stamp.clone().unwrap_or_default();
        let quoted = format!("\"{stamp}\"").into_bytes();
        let rows = json::items(&got.body, &["records".to_owned()]).flatten();
        for row in rows.ok_or_else(|| strange("the response has no records"))? {
            let fields = json::fields(row).unwrap_or_default();
            let text = |name: &str| serde_json::from_slice::<String>(value(&fields, name)?).ok();
            let (id, stamp) = (text("Id").unwrap_or_default(), text(&stamp));
            let first = || Row {
                stamp: stamp.clone(),
                text: String::from("{"),
                parts: 0,
            };
            if !wide.ids.iter().rev().take(ROWS).any(|asked| *asked == id) {
                continue;
            }
            let known = wide.rows.entry(id).or_insert_with(first);
            if known.stamp != stamp || known.parts != wide.part {
                continue;
            }
            for (key, value) in fields {
                let is_everywhere = [&b"\"attributes\""[..], b"\"Id\"", &quoted[..]].contains(&key);
                let is_there = known.parts > 0 && is_everywhere;
                if is_there {
                    continue;
                }
                if known.text.len() > 1 {
                    known.text.push(',');
                }
                // What is no text is the record's own damage, and is found when it is read.
                known.text.push_str(&String::from_utf8_lossy(key));
                known.text.push(':');
                known.text.push_str(&String::from_utf8_lossy(value));
            }
            known.parts += 1;
        }
        wide.part += usize::from(more.is_none());
        wide.more = more;
        if wide.part < wide.parts.len() {
            next.wide = Some(wide);
            return Ok(Page {
                is_part: true,
                ..reading::step(at, Some(next))?
            });
        }
        let all = wide.parts.len();
        let whole: Vec<String> = std::mem::take(&mut wide.rows)
            .into_values()
            .filter(|row| row.parts == all)
            .map(|row| format!("{}}}", row.text))
            .collect();
        let list = Response {
            status: 200,
            headers: Vec::new(),
            body: format!("[{}]", whole.join(",")).into(),
        };
        let shape = Shape {
            key: &["Id"],
            gone: Some(("IsDeleted", "true")),
            ..Shape::default()
        };
        let found = match whole.is_empty() {
            true => json::Found::default(),
            false => self.common.read(at, &list, &shape)?,
        };
        wide.part = 0;
        wide.ids.truncate(wide.ids.len().saturating_sub(ROWS));
        let high = match wide.is_reading() {
            true => at.high.cloned(),
            false => wide.high.take().or_else(|| at.high.cloned()),
        };
        let lists = next.lists && at.start.span.is_none();
        let is_last = next.ended && !lists && !wide.is_reading();
        let count = is_last.then_some(Count {
            vendor: next.total,
            read: next.read,
        });
        next.wide = Some(wide);
        let next = self.goes_on(at, next);
        Ok(Page {
            count,
            ..reading::page(found, next, high)?
        })
    }
}
