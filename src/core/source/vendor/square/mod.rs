//! `square`: payments, refunds, orders, stock and hours, location by location where Square wants it so.
//!
//! Payments come for the main location unless one is named, and orders for at most ten: such a pass asks for the
//! locations first and goes through all of them, so its cursor moves when the pass is complete. Search requests keep
//! their body unchanged from page to page, with the cursor in it.

mod login;
mod streams;
mod webhook;

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use crate::error::{Code, Failure};
use crate::json::Found;
use crate::record::{Page, Window};
use crate::secret::Secret;
use crate::source::common::Common;
use crate::source::hook::Hook;
use crate::source::open::{self, Open};
use crate::source::pause;
use crate::source::reading::{self, Shape};
use crate::source::request::{below, verdict_by_status, with_query};
use crate::source::settings::{PACE, START_DATE, STREAMS, Settings, missing};
use crate::source::table::{about, row};
use crate::source::window::highest;
use crate::source::{
    About, Account, Definition, Field, Login, Part, Position, Reader, Request, Response, Source,
    Start, Stream, Verdict,
};
use crate::template::parse_any;
use login::OAuth;
use streams::{Call, Spec};

pub struct Square;

/// Shapes differ by version, and the built-in mappings read this one.
const VERSION: &str = "2026-09-16";

const CREDENTIALS: &[Field] = &[
    Field {
        name: "access_token",
        meaning: "personal access token; or application_id, application_secret and refresh_token",
    },
    Field {
        name: "client_id",
        meaning: "application id, for OAuth",
    },
    Field {
        name: "client_secret",
        meaning: "application secret, for OAuth; leave it out if the token came by PKCE",
    },
    Field {
        name: "refresh_token",
        meaning: "refresh token, for OAuth; a replacement is stored, sealed",
    },
    Field {
        name: "webhook_signature_key",
        meaning: "signature key of the webhook subscription that pushes events here, with config's webhook_url; a list of both while it is rotated",
    },
];

const CONFIG: &[Field] = &[
    STREAMS,
    START_DATE,
    PACE,
    Field {
        name: "sandbox",
        meaning: "true for the sandbox",
    },
    Field {
        name: "api_version",
        meaning: "Square-Version to request; default: 2026-09-16",
    },
    Field {
        name: "base_url",
        meaning: "base URL; default: https://connect.squareup.com",
    },
    Field {
        name: "webhook_url",
        meaning: "notification URL of the webhook subscription, exactly as in Square: each signature covers it",
    },
];

impl Source for Square {
    fn name(&self) -> &'static str {
        "square"
    }

    fn about(&self) -> About {
        about::<Spec>("point of sale", CREDENTIALS, CONFIG)
    }

    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        let settings = Settings::new(connector, CONFIG)?;
        let streams = settings.streams::<Spec>()?;
        let base = settings.base(match settings.truth("sandbox")? {
            true => "https://connect.squareupsandbox.com",
            false => "https://connect.squareup.com",
        })?;
        let since = settings.since(TimeDelta::minutes(5), parse_any)?;
        let version = settings.text("api_version")?.unwrap_or(VERSION).to_owned();
        let refresh = settings.secret(&["refresh_token"]);
        let login = match refresh {
            None => None,
            Some(refresh) => Some(OAuth {
                url: below(&base, &["oauth2", "token"]),
                client_id: settings.need(&["client_id", "application_id"])?,
                client_secret: settings.secret(&["client_secret", "application_secret"]),
                refresh,
            }),
        };
        let personal = settings.secret(&["access_token", "personal_access_token", "token"]);
        if login.is_none() && personal.is_none() {
            return Err(missing("access_token"));
        }
        let owner = match (&login, &personal) {
            (Some(login), _) => login.client_id.fingerprint(),
            (None, token) => token.as_ref().map_or_else(String::new, Secret::fingerprint),
        };
        // Limits are not published; this is far below what others use.
        let account = Account {
            name: format!("square {owner}"),
            every: Duration::from_millis(100),
            burst: 10,
        };
        Ok(Box::new(SquareReader {
            common: Common::new(&settings, streams, since, account)?,
            base,
            version,
            login,
            personal,
        }))
    }

    fn hook(&self, connector: &Definition) -> Result<Option<Box<dyn Hook>>, Failure> {
        webhook::open(connector, &Settings::new(connector, CONFIG)?)
    }
}

struct SquareReader {
    base: Url,
    common: Common,
    version: String,
    login: Option<OAuth>,
    personal: Option<Secret>,
}

/// How a pass continues.
#[derive(Default, Serialize, Deserialize)]
struct Next {
    /// Locations that are still to be read, the present ones last; `None`: they are asked for first.
    locations: Option<Vec<String>>,
    cursor: Option<String>,
}

impl Reader for SquareReader {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn window(
        &self,
        stream: &Stream,
        cursor: Option<&Value>,
        start: Start,
    ) -> Result<Window, Failure> {
        let spec: &Spec = row(stream)?;
        let stamp = cursor.map(open::stamp);
        let mut window = self.common.since.window(stream, stamp.as_ref(), start);
        if spec.open.is_some()
            && let Some(since) = Open::of(cursor, parse_any).since(start.now)
        {
            let first = self.common.since.start_date;
            let since = first.map_or(since, |first| first.max(since));
            window.from = window.from.map(|from| from.min(since));
        }
        Ok(window)
    }

    /// A first pass brings all that is counted, and the whole catalogue. Stock of what is gone is told of by nothing else.
    fn shows_all_of(
        &self,
        stream: &Stream,
        cursor: Option<&Value>,
        _start: Start,
        _window: Window,
    ) -> Option<Part> {
        let field: &[&str] = match stream.name.as_str() {
            "inventory_counts" => &["calculated_at"],
            "catalog_objects" => &["updated_at"],
            _ => return None,
        };
        let from = String::new();
        cursor.is_none().then_some(Part { field, from })
    }

    fn is_bounded(&self, stream: &Stream) -> bool {
        !matches!(stream.name.as_str(), "inventory_counts" | "catalog_objects")
    }

    fn request(&self, at: &Position) -> Result<Request, Failure> {
        let spec: &Spec = row(at.stream)?;
        let next: Next = reading::next(at)?;
        let here: &[String] = match &next.locations {
            Some(locations) => {
                let left = locations.len().saturating_sub(spec.locations());
                locations.get(left..).unwrap_or_default()
            }
            None => &[],
        };
        let request = match &spec.call {
            _ if spec.locations() > 0 && next.locations.is_none() => {
                Request::get(below(&self.base, &["v2", "locations"]))
            }
            Call::Get(path) | Call::GetByLocation(path) => {
                let mut query = spec.query(at.window);
                query.extend(
                    here.iter()
                        .map(|location| ("location_id", location.clone())),
                );
                query.extend(next.cursor.map(|cursor| ("cursor", cursor)));
                Request::get(with_query(below(&self.base, path), &query))
            }
            Call::Post(path) | Call::PostByLocations(path) => {
                let is_first = at.window.from.is_none() || !self.has_begun(at);
                let mut body = spec.body(at.window, is_first);
                if let Some(fields) = body.as_object_mut() {
                    if !here.is_empty() {
                        fields.insert("location_ids".to_owned(), here.into());
                    }
                    if let Some(cursor) = next.cursor {
                        fields.insert("cursor".to_owned(), cursor.into());
                    }
                }
                Request::post_json(below(&self.base, path), &body)
            }
        };
        Ok(request
            .bearer(at.token().or(self.personal.as_ref()))
            .header("Square-Version", &self.version))
    }

    fn login(&self) -> Option<&dyn Login> {
        self.login.as_ref().map(|login| login as &dyn Login)
    }

    fn verdict(&self, at: &Position, got: &Response) -> Verdict {
        let code = |code: &str| reading::text(&reading::problem(got), "/errors/0/code") == code;
        let fail = |code, what: &str| Verdict::Fail(got.failure(code, what));
        match got.status {
            400 if at.next.is_some() && code("INVALID_CURSOR") => {
                Verdict::Expired(got.failure(Code::RequestRefused, "the page cursor has expired"))
            }
            401 if code("ACCESS_TOKEN_REVOKED") => {
                fail(Code::CredentialsRejected, "the access token was revoked")
            }
            401 if code("ACCESS_TOKEN_EXPIRED") => {
                fail(Code::CredentialsRejected, "the access token has expired")
            }
            403 if self.common.is_left_out::<Spec>(at.stream) => {
                Verdict::Absent("left out, because the token may not read it".to_owned())
            }
            403 => fail(
                Code::PermissionMissing,
                "the token may not read this stream",
            ),
            429 => {
                let failure = got.failure(Code::RateLimited, "too many requests");
                Verdict::Retry(failure.after(pause::wait(got)))
            }
            _ => verdict_by_status(got),
        }
    }

    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let spec: &Spec = row(at.stream)?;
        let next: Next = reading::next(at)?;
        if spec.locations() > 0 && next.locations.is_none() {
            let mut page = begin(at, got)?;
            if spec.open.is_some() && at.high.is_some() {
                // All of it is read again in this pass, and remembered again if it is still open.
                let high = at.high.map(open::stamp);
                page.high = Open::default().cursor(high.as_ref());
            }
            return Ok(page);
        }
        let around = reading::around(got, spec.list);
        if around
            .get("errors")
            .is_some_and(|errors| errors != &json!([]))
        {
            return Err(reading::refused(got, "Square answered with an error"));
        }
        let shape = Shape {
            path: spec.list,
            key: spec.key,
            stamp: spec.stamp,
            gone: Some(("is_deleted", "true")),
        };
        // Where there is nothing, the list is left out: then nothing else may stand there that is not known either.
        let known = ["cursor", "errors", "latest_time"];
        let is_object = got.body.trim_ascii_start().first() == Some(&b'{');
        let is_empty = is_object && around.keys().all(|key| known.contains(&key.as_str()));
        let found = match self.common.read(at, got, &shape) {
            Err(failure) if failure.code == Code::UnexpectedShape && is_empty => Default::default(),
            found => found?,
        };
        let cursor = around.get("cursor").and_then(Value::as_str);
        let cursor = cursor
            .filter(|cursor| !cursor.is_empty())
            .map(str::to_owned);
        let high = self.high(at, spec, &found);
        let next = match cursor {
            Some(cursor) => Some(Next {
                cursor: Some(cursor),
                ..next
            }),
            None => {
                let mut left = next.locations.unwrap_or_default();
                left.truncate(left.len().saturating_sub(spec.locations()));
                (!left.is_empty()).then_some(Next {
                    locations: Some(left),
                    cursor: None,
                })
            }
        };
        Ok(Page {
            // A part of a whole read does not show what is gone: one that was interrupted starts again.
            counts: spec.stamp.is_empty(),
            ..reading::page(found, next, high)?
        })
    }
}

impl SquareReader {
    /// Whether an earlier pass has read the stream: the window then begins later than a first one would.
    fn has_begun(&self, at: &Position) -> bool {
        let first = Start {
            now: at.window.to,
            ..at.start
        };
        at.window.from != self.common.since.window(at.stream, None, first).from
    }

    /// The cursor, once the pass has come past these records.
    fn high(&self, at: &Position, spec: &Spec, found: &Found) -> Option<Value> {
        #[derive(Deserialize)]
        struct State {
            status: String,
            created_at: String,
        }
        let Some(not_final) = spec.open else {
            return self.common.high(at, &found.cursors);
        };
        let mut open = Open::of(at.high, parse_any);
        for record in &found.records {
            let state = serde_json::from_slice::<State>(&record.json).ok();
            let state = state.filter(|state| state.status == not_final);
            if let Some(made) = state.and_then(|state| parse_any(&state.created_at)) {
                open.note(0, made.timestamp());
            }
        }
        let before = at.high.map(open::stamp);
        let high = highest(before.as_ref(), &found.cursors, at.window.to, parse_any).0;
        open.cursor(high.as_ref())
    }
}

/// The locations, whose records follow.
fn begin(at: &Position, got: &Response) -> Result<Page, Failure> {
    #[derive(Deserialize)]
    struct Locations {
        // Every seller has one.
        locations: Vec<Location>,
        #[serde(default)]
        errors: Vec<Value>,
    }
    #[derive(Deserialize)]
    struct Location {
        id: String,
    }
    let answer: Locations = reading::whole(got)?;
    if !answer.errors.is_empty() {
        return Err(reading::refused(got, "Square answered with an error"));
    }
    let locations: Vec<String> = answer.locations.into_iter().map(|place| place.id).collect();
    let next = (!locations.is_empty()).then_some(Next {
        locations: Some(locations),
        cursor: None,
    });
    reading::step(at, next)
}
