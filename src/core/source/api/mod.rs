//! `api`: any REST API, described by a declarative manifest in `config.manifest`.
//!
//! The format is Airbyte's low-code one, as JSON, so that a connector is data and hundreds exist already. What
//! a manifest may say is in [`manifest`]; a component or key that this version does not know is refused by
//! name when the connector is saved, because skipping it would read other data than its author meant.

mod component;
mod config;
mod cursor;
mod manifest;
mod oauth;
mod paging;
mod parts;
mod requester;
#[cfg(test)]
mod tests;

use chrono::{DateTime, TimeDelta, Utc};
use minijinja::value::{Serde, Value as Template};
use serde_json::Value;

use self::config::Config;
use self::manifest::StreamSpec;
use self::oauth::OAuth;
use super::settings::RunSettings;
use super::{
    About, Definition, Field, Grant, Login, Position, Reader, Request, Response, Source, Start,
    Stream,
};
use crate::datetime::Format;
use crate::error::{Code, Failure};
use crate::json::{self, Found, RecordLimits};
use crate::record::{Page, Record, Window};
use crate::secret::{Credentials, Secret};
use crate::template::macros;

pub use self::parts::join;

pub struct Api;

impl Source for Api {
    fn name(&self) -> &'static str {
        "api"
    }

    fn about(&self) -> About {
        About {
            kind: "any REST API",
            streams: vec![],
            credentials: &[Field {
                name: "(any)",
                meaning: "any other key: manifest templates read it as config['...']",
            }],
            config: &[
                Field {
                    name: "manifest",
                    meaning: "declarative manifest, as JSON",
                },
                Field {
                    name: "start_date",
                    meaning: "how far back the first sync reads, ISO 8601; default: 30 days",
                },
                Field {
                    name: "(any)",
                    meaning: "any other key: manifest templates read it as config['...']",
                },
            ],
            frequency: "hourly",
        }
    }

    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        let wrong = |what: &str| Failure::new(Code::InvalidConfig, what);
        RunSettings::read(&connector.config)?;
        let mut config = connector.config.as_object().cloned().unwrap_or_default();
        let Some(manifest) = config.remove("manifest") else {
            return Err(wrong("config has no \"manifest\""));
        };
        let config = Config::new(config, connector.credentials.clone());
        let specs = manifest::read(&manifest, config.settled())?;
        let streams = specs.iter().map(|spec| spec.stream.clone()).collect();
        Ok(Box::new(ApiReader {
            specs,
            streams,
            credentials: connector.credentials.clone(),
            config,
            limits: connector.limits,
        }))
    }
}

struct ApiReader {
    specs: Vec<StreamSpec>,
    streams: Vec<Stream>,
    credentials: Credentials,
    config: Config,
    limits: RecordLimits,
}

impl Reader for ApiReader {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn window(
        &self,
        stream: &Stream,
        cursor: Option<&Value>,
        start: Start,
    ) -> Result<Window, Failure> {
        let spec = self.spec(stream)?;
        let Some(datetime) = &spec.cursor else {
            return Ok(Window {
                from: None,
                to: start.now,
            });
        };
        datetime.window(cursor, start, |default_from| {
            self.context(start.now, default_from, vec![])
        })
    }

    /// A manifest need not put the window's end anywhere.
    fn is_bounded(&self, stream: &Stream) -> bool {
        let asked = |to| {
            let start = Start {
                now: to,
                default_from: DateTime::UNIX_EPOCH,
                read_until: None,
                span: None,
            };
            let from = Some(DateTime::UNIX_EPOCH);
            let at = Position {
                stream,
                window: Window { from, to },
                start,
                next: None,
                high: None,
                access: None,
            };
            let request = Reader::request(self, &at).ok()?;
            Some((request.url, request.body))
        };
        let end = DateTime::UNIX_EPOCH + TimeDelta::days(9_000);
        asked(end) != asked(end + TimeDelta::days(400))
    }

    fn request(&self, at: &Position) -> Result<Request, Failure> {
        let spec = self.spec(at.stream)?;
        let slice = spec
            .cursor
            .as_ref()
            .map_or_else(Vec::new, |cursor| cursor.slice(at.window));
        let slice = Template::from_pairs(slice);
        let token = spec
            .paging
            .as_ref()
            .and_then(|paging| paging.token(at.next));
        let token = token.map_or(Template::UNDEFINED, |token| {
            Template::from_pairs([("next_page_token", Template::from(Serde(token)))])
        });
        let names = ["stream_slice", "stream_partition", "stream_interval"]
            .map(|name| (name, slice.clone()));
        let mut seen = names.to_vec();
        seen.push(("next_page_token", token));
        let context = self.context(at.start.now, at.start.default_from, seen);
        let mut parts = spec.requester.parts(&context)?;
        if let Some(cursor) = &spec.cursor {
            cursor.inject(at.window, &mut parts);
        }
        if let Some(paging) = &spec.paging {
            paging.inject(at.next, &mut parts)?;
        }
        if let Some(access) = at.access.filter(|_| spec.requester.login().is_some()) {
            let token = access.token.text();
            parts.authorize(format!("Bearer {token}"));
        }
        parts.build()
    }

    fn login(&self) -> Option<&dyn Login> {
        self.oauth().map(|_| self as &dyn Login)
    }

    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let spec = self.spec(at.stream)?;
        let context = self.context(at.start.now, at.start.default_from, vec![]);
        let path = spec
            .field_path
            .iter()
            .map(|step| step.text(&context).map(Option::unwrap_or_default));
        let path = path.collect::<Result<Vec<_>, _>>()?;
        let cursor = spec
            .cursor
            .as_ref()
            .map(|cursor| std::slice::from_ref(&cursor.field));
        let found = json::page(
            &got.body,
            &json::Spec {
                stream: &at.stream.name,
                path: &path,
                key: &spec.key,
                cursor,
                gone: None,
                limits: self.limits,
                lines: &[],
            },
        )?;
        if path.is_empty() {
            check_whole_body(without_mark(&got.body), &found, spec)?;
        }
        let high = match &spec.cursor {
            Some(cursor) => cursor.high(at, &found)?,
            None => None,
        };
        let next = match &spec.paging {
            Some(paging) => paging.next(at, got, &found, path.first(), |seen| {
                self.context(at.start.now, at.start.default_from, seen)
            })?,
            None => None,
        };
        Ok(Page {
            records: found.records,
            rejected: found.rejected,
            next,
            high,
            ..Page::default()
        })
    }
}

impl Login for ApiReader {
    fn request(&self, start: Start, refresh: Option<&Secret>) -> Result<Request, Failure> {
        let context = self.context(start.now, start.default_from, vec![]);
        self.need_oauth()?.request(&context, refresh)
    }

    fn granted(
        &self,
        start: Start,
        refresh: Option<&Secret>,
        got: &Response,
    ) -> Result<Grant, Failure> {
        let context = self.context(start.now, start.default_from, vec![]);
        let oauth = self.need_oauth()?;
        oauth.granted(&context, &self.credentials, refresh, got)
    }
}

impl ApiReader {
    fn oauth(&self) -> Option<&OAuth> {
        self.specs.iter().find_map(|spec| spec.requester.login())
    }

    fn need_oauth(&self) -> Result<&OAuth, Failure> {
        self.oauth()
            .ok_or_else(|| Failure::new(Code::Internal, "the manifest has no login"))
    }

    fn spec(&self, stream: &Stream) -> Result<&StreamSpec, Failure> {
        self.specs
            .iter()
            .find(|spec| spec.stream.name == stream.name)
            .ok_or_else(|| Failure::new(Code::Internal, format!("no stream \"{}\"", stream.name)))
    }

    /// What templates see: config, the macros, and what their place offers.
    fn context(
        &self,
        now: DateTime<Utc>,
        default_from: DateTime<Utc>,
        seen: Vec<(&'static str, Template)>,
    ) -> Template {
        let format = Format::new("%Y-%m-%dT%H:%M:%SZ").ok();
        let start_date = format.map(|format| format.write(default_from));
        let config = ("config", self.config.seen(start_date));
        Template::from_pairs(macros(now).chain([config]).chain(seen))
    }
}

/// Where the body itself is the page, there is no path that could lead nowhere: text and numbers are no page,
/// and an object that names an error, and has nothing that identifies it, is not a record.
fn check_whole_body(body: &[u8], found: &Found, spec: &StreamSpec) -> Result<(), Failure> {
    let wrong = |what: &str| {
        let message = format!("the response is {what}");
        Err(Failure::new(Code::UnexpectedShape, message))
    };
    match body.trim_ascii_start().first() {
        Some(b'{') => {}
        Some(b'[' | b'n') => return Ok(()),
        _ => return wrong("not an object or a list"),
    }
    let prefix = format!("{}/#", spec.stream.name);
    let is_unidentified = |record: &Record| record.id.starts_with(&prefix);
    if !found.records.iter().all(is_unidentified) {
        return Ok(());
    }
    let fields = json::envelope(body, "");
    let names_error = ["error", "errors"].iter().any(|key| {
        fields
            .get(*key)
            .is_some_and(|value| Template::from(Serde(value)).is_true())
    });
    if names_error {
        return wrong("an error instead of a record");
    }
    Ok(())
}

/// A body without the byte order mark that some vendors put before it.
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}
