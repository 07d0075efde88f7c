//! `api`: any REST API, described by a declarative manifest in `config.manifest`.
//!
//! The format is Airbyte's low-code one, as JSON, so that a connector is data and hundreds exist already. What
//! a manifest may say is in [`manifest`]; a component or key that this version does not know is refused by
//! name when the connector is saved, because skipping it would read other data than its author meant.

mod component;
mod config;
mod cursor;
mod errors;
mod headers;
mod manifest;
mod more;
mod oauth;
mod paging;
mod parts;
mod requester;
mod shape;
#[cfg(test)]
mod tests;

use chrono::{DateTime, TimeDelta, Utc};
use minijinja::value::{Serde, Value as Template};
use serde_json::Value;

use self::config::Config;
use self::errors::Action;
use self::manifest::StreamSpec;
use self::oauth::OAuth;
use self::paging::After;
use super::settings::RunSettings;
use super::{
    About, Definition, Field, Grant, Login, Position, Reader, Request, Response, Rotated, Source,
    Start, Stream, Verdict, reading,
};
use crate::datetime::Format;
use crate::error::{Code, Failure};
use crate::json::{self, Found, RecordLimits};
use crate::record::{Page, Window};
use crate::secret::{Credentials, Secret};
use crate::source::request::verdict_by_status;
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
                    name: "deletes",
                    meaning: "streams whose deleted records are found, true for all: a stream without incremental_sync is read whole, and what a complete pass does not show is marked as deleted; default: none",
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
        let mut specs = manifest::read(&manifest, config.settled())?;
        if let Some(deletes) = connector.config.get("deletes") {
            shape::mark_whole(&mut specs, deletes)?;
        }
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
                missed_since: None,
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

    fn verdict(&self, at: &Position, got: &Response) -> Verdict {
        let by_status = verdict_by_status(got);
        let Ok(spec) = self.spec(at.stream) else {
            return by_status;
        };
        let context = |seen| self.context(at.start.now, at.start.default_from, seen);
        match spec.errors.judge(got, context) {
            Ok(Some(action)) => action.verdict(got),
            Ok(None) => by_status,
            Err(failure) => Verdict::Fail(failure),
        }
    }

    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let spec = self.spec(at.stream)?;
        let context = |seen| self.context(at.start.now, at.start.default_from, seen);
        if let Some(Action::Ignore) = spec.errors.judge(got, context)? {
            return Ok(ignored(at, got));
        }
        let settled = context(vec![]);
        let path = spec
            .field_path
            .iter()
            .map(|step| step.text(&settled).map(Option::unwrap_or_default));
        let path = path.collect::<Result<Vec<_>, _>>()?;
        let cursor = spec
            .cursor
            .as_ref()
            .map(|cursor| std::slice::from_ref(&cursor.field));
        let found = reading::records(
            got,
            &json::Spec {
                stream: &at.stream.name,
                path: &path,
                key: &spec.key,
                cursor,
                gone: None,
                limits: self.limits,
                lines: &[],
            },
        );
        let mut warnings = Vec::new();
        let found = match found {
            Err(failure) if failure.code == Code::UnexpectedShape => {
                warnings.push(shape::left_out(got, &path).ok_or(failure)?);
                Found::default()
            }
            found => found?,
        };
        shape::check(got, &found, &path, spec)?;
        warnings.extend(shape::doubts(&found, &path, spec));
        let high = match &spec.cursor {
            Some(cursor) => cursor.high(at, &found)?,
            None => None,
        };
        let next = match &spec.paging {
            Some(paging) => paging.next(at, got, &found, &path, context)?,
            None => After::Ended,
        };
        let shown = match &spec.paging {
            Some(paging) => paging.shown(at, &found),
            None => Some((found.records.len() + found.rejected.len()) as u64),
        };
        let more = match next {
            After::Ended => more::seen(got, &path, shown, at.next.is_none()),
            After::Page(_) | After::Stopped => None,
        };
        let is_empty = found.records.is_empty() && found.rejected.is_empty();
        // A manifest with a paginator knows of pages, whether or not the response speaks of them.
        let is_sure = |more: &more::More| more.is_sure || spec.paging.is_some();
        // An empty page that is odd shows of no record that it is gone.
        let is_odd = is_empty && (more.is_some() || !warnings.is_empty());
        let is_partial = is_odd || more.as_ref().is_some_and(is_sure);
        warnings.extend(more.map(|more| match &spec.paging {
            None => format!(
                "only the first page was read, but the response says that there is more: {}. Add a \"paginator\" to the stream's retriever in the manifest, such as a DefaultPaginator with {}",
                more.saw, more.advice
            ),
            Some(paging) => format!(
                "the stream ended here, but the response says that there is more: {}. Check the manifest: {}",
                more.saw,
                paging.doubt()
            ),
        }));
        let warning = (!warnings.is_empty())
            .then(|| format!("stream \"{}\": {}", at.stream.name, warnings.join(". ")));
        let next = match next {
            After::Page(token) => Some(token),
            After::Ended | After::Stopped => None,
        };
        let counts = spec.paging.as_ref().zip(next.as_ref());
        Ok(Page {
            records: found.records,
            rejected: found.rejected,
            counts: counts.is_some_and(|(paging, token)| paging.counts(token)),
            next,
            warning,
            is_partial,
            high,
            ..Page::default()
        })
    }
}

/// A page that the manifest passes over. Behind the last page there is nothing, or no page; any other refusal hides what is
/// there. Of a first page nothing is known.
fn ignored(at: &Position, got: &Response) -> Page {
    let is_first = at.next.is_none();
    let is_end = matches!(got.status, 200..=299 | 404 | 410);
    let says = |what: &str| {
        let says = "as the manifest's error_handler says";
        format!("stream \"{}\": {what}, {says}", at.stream.name)
    };
    let warning = match (is_first, is_end) {
        (false, true) => None,
        (false, false) => Some(says(&format!(
            "it ended before its last page, because HTTP {} was ignored",
            got.status
        ))),
        (true, _) => at
            .stream
            .whole
            .then(|| says("deletions were not looked for, because the first page was ignored")),
    };
    Page {
        warning,
        high: at.high.cloned().filter(|_| is_end),
        is_partial: is_first || !is_end,
        is_cut_off: !is_end,
        ..Page::default()
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

    fn spends(&self) -> bool {
        self.oauth().is_some_and(OAuth::spends)
    }

    fn rotated(&self, start: Start, refresh: Option<&Secret>, got: &Response) -> Option<Rotated> {
        let context = self.context(start.now, start.default_from, vec![]);
        let oauth = self.oauth()?;
        oauth.rotated_in(&context, &self.credentials, refresh, got)
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
