//! `square`: payments, refunds, orders, stock and hours, location by location where Square wants it so.
//!
//! Payments come for the main location unless one is named, and orders for at most ten: such a pass asks for the
//! locations first and goes through all of them, so its cursor moves when the pass is complete. Search requests keep
//! their body unchanged from page to page, with the cursor in it.

mod webhook;

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use crate::error::{Code, Failure};
use crate::json::RecordLimits;
use crate::record::{Page, Window};
use crate::secret::Secret;
use crate::source::hook::Hook;
use crate::source::reading::{self, Shape, strange};
use crate::source::request::{below, retry_after, verdict_by_status};
use crate::source::settings::{PACE, START_DATE, STREAMS, Settings, missing};
use crate::source::table::{self, Row, about, row};
use crate::source::token::{self, USUAL};
use crate::source::window::{Since, highest};
use crate::source::{
    About, Account, Definition, Field, Grant, Login, Position, Reader, Request, Response, Source,
    Start, Stream, StreamAbout, Verdict,
};
use crate::template::parse_any;

pub struct Square;

/// Everything that is known of a stream.
struct Spec {
    about: StreamAbout,
    /// Where the records lie in an answer.
    list: &'static str,
    key: &'static [&'static str],
    /// The field that passes are cut by; empty: the stream is read whole.
    stamp: &'static str,
    call: Call,
}

enum Call {
    Get(&'static [&'static str]),
    /// A list that names one location.
    GetByLocation(&'static [&'static str]),
    Post(&'static [&'static str]),
    /// A search that names up to ten locations.
    PostByLocations(&'static [&'static str]),
}

const fn spec(
    name: &'static str,
    list: &'static str,
    default: bool,
    stamp: &'static str,
    call: Call,
) -> Spec {
    Spec {
        about: StreamAbout { name, default },
        list,
        key: &["id"],
        stamp,
        call,
    }
}

const SPECS: &[Spec] = &[
    spec(
        "locations",
        "locations",
        true,
        "",
        Call::Get(&["v2", "locations"]),
    ),
    spec(
        "payments",
        "payments",
        true,
        "updated_at",
        Call::GetByLocation(&["v2", "payments"]),
    ),
    spec(
        "refunds",
        "refunds",
        true,
        "updated_at",
        Call::Get(&["v2", "refunds"]),
    ),
    spec(
        "orders",
        "orders",
        true,
        "updated_at",
        Call::PostByLocations(&["v2", "orders", "search"]),
    ),
    Spec {
        key: &["catalog_object_id", "location_id", "state"],
        ..spec(
            "inventory_counts",
            "counts",
            true,
            "calculated_at",
            Call::Post(&["v2", "inventory", "counts", "batch-retrieve"]),
        )
    },
    spec(
        "team_members",
        "team_members",
        true,
        "",
        Call::Post(&["v2", "team-members", "search"]),
    ),
    spec(
        "timecards",
        "timecards",
        true,
        "updated_at",
        Call::Post(&["v2", "labor", "timecards", "search"]),
    ),
    spec(
        "catalog_objects",
        "objects",
        false,
        "updated_at",
        Call::Post(&["v2", "catalog", "search"]),
    ),
    spec(
        "payouts",
        "payouts",
        false,
        "created_at",
        Call::GetByLocation(&["v2", "payouts"]),
    ),
];

/// Shapes differ by version, and the built-in mappings read this one.
const VERSION: &str = "2026-09-16";

/// `begin_time` of payments and refunds is one year ago where it is not said. Nothing of Square's is older than this.
const BEGINNING: &str = "2009-01-01T00:00:00Z";

/// Most locations of one search.
const LOCATIONS_AT_ONCE: usize = 10;

impl Row for Spec {
    const ROWS: &'static [Spec] = SPECS;

    fn about(&self) -> StreamAbout {
        self.about
    }

    fn whole(&self) -> bool {
        self.stamp.is_empty()
    }

    fn optional(&self) -> bool {
        !matches!(self.about.name, "locations" | "payments" | "refunds")
    }
}

const CREDENTIALS: &[Field] = &[
    Field {
        name: "access_token",
        meaning: "personal access token; or the three that follow",
    },
    Field {
        name: "client_id",
        meaning: "application id, for OAuth",
    },
    Field {
        name: "client_secret",
        meaning: "application secret, for OAuth; left out where the token came by PKCE",
    },
    Field {
        name: "refresh_token",
        meaning: "for OAuth; one that is replaced is stored, sealed",
    },
    Field {
        name: "webhook_signature_key",
        meaning: "of the webhook subscription that pushes events here, with config's webhook_url; a list of both while it is replaced",
    },
];

const CONFIG: &[Field] = &[
    STREAMS,
    START_DATE,
    PACE,
    Field {
        name: "sandbox",
        meaning: "true: the sandbox",
    },
    Field {
        name: "api_version",
        meaning: "Square-Version to ask for, where it must be another than 2026-09-16",
    },
    Field {
        name: "base_url",
        meaning: "another place than https://connect.squareup.com",
    },
    Field {
        name: "webhook_url",
        meaning: "notification URL of the webhook subscription, to the letter: Square signs it with each event",
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
        let since = Since {
            start_date: settings.start_date()?,
            lookback: TimeDelta::minutes(5),
            read: parse_any,
        };
        let version = settings.text("api_version")?.unwrap_or(VERSION).to_owned();
        let refresh = settings.secret(&["refresh_token"]);
        let login = match refresh {
            None => None,
            Some(refresh) => Some(OAuth {
                url: below(&base, &["oauth2", "token"], &[]),
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
        Ok(Box::new(SquareReader {
            streams,
            is_chosen: settings.is_chosen(),
            base,
            since,
            version,
            login,
            personal,
            // Limits are not published; this is far below what others use.
            account: Account {
                name: format!("square {owner}"),
                every: settings.pace(Duration::from_millis(100))?,
                burst: 10,
            },
            limits: connector.limits,
        }))
    }

    fn hook(&self, connector: &Definition) -> Result<Option<Box<dyn Hook>>, Failure> {
        webhook::open(connector, &Settings::new(connector, CONFIG)?)
    }
}

struct SquareReader {
    streams: Vec<Stream>,
    is_chosen: bool,
    base: Url,
    since: Since,
    version: String,
    login: Option<OAuth>,
    personal: Option<Secret>,
    account: Account,
    limits: RecordLimits,
}

/// How a pass goes on.
#[derive(Default, Serialize, Deserialize)]
struct Next {
    /// Locations that are still to be read, the present ones last; `None`: they are asked for first.
    locations: Option<Vec<String>>,
    cursor: Option<String>,
}

fn stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

impl Spec {
    /// How many locations one request names; 0: none.
    fn locations(&self) -> usize {
        match self.call {
            Call::Get(_) | Call::Post(_) => 0,
            Call::GetByLocation(_) => 1,
            Call::PostByLocations(_) => LOCATIONS_AT_ONCE,
        }
    }

    /// The parameters of a list.
    fn query(&self, window: Window) -> Vec<(&'static str, String)> {
        let from = stamp(window.from.unwrap_or_default());
        let to = stamp(window.to);
        match self.about.name {
            "payments" | "refunds" => vec![
                ("begin_time", BEGINNING.to_owned()),
                ("updated_at_begin_time", from),
                ("updated_at_end_time", to),
                ("sort_field", "UPDATED_AT".to_owned()),
                ("sort_order", "ASC".to_owned()),
                ("limit", "100".to_owned()),
            ],
            "payouts" => vec![
                ("begin_time", from),
                ("end_time", to),
                ("sort_order", "ASC".to_owned()),
                ("limit", "100".to_owned()),
            ],
            _ => Vec::new(),
        }
    }

    /// The body of a search. `is_first`: nothing of the stream has been read yet.
    fn body(&self, window: Window, is_first: bool) -> Value {
        let from = stamp(window.from.unwrap_or_default());
        let to = stamp(window.to);
        match self.about.name {
            "orders" => json!({
                "limit": 500,
                "query": {
                    "filter": {"date_time_filter": {"updated_at": {"start_at": from, "end_at": to}}},
                    // Another field than the one filtered by is an error.
                    "sort": {"sort_field": "UPDATED_AT", "sort_order": "ASC"},
                },
            }),
            // All there is, at first: what was counted long ago is in stock, too.
            "inventory_counts" if is_first => json!({"limit": 1000}),
            "inventory_counts" => json!({"limit": 1000, "updated_after": from}),
            "timecards" => json!({
                "limit": 200,
                "query": {"sort": {"field": "UPDATED_AT", "order": "DESC"}},
            }),
            "catalog_objects" if is_first => json!({
                "limit": 1000,
                "object_types": ["ITEM", "ITEM_VARIATION", "CATEGORY"],
                "include_deleted_objects": true,
            }),
            "catalog_objects" => json!({
                "limit": 1000,
                "object_types": ["ITEM", "ITEM_VARIATION", "CATEGORY"],
                "include_deleted_objects": true,
                "begin_time": from,
            }),
            _ => json!({"limit": 200}),
        }
    }
}

impl Reader for SquareReader {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn window(
        &self,
        stream: &Stream,
        cursor: Option<&Value>,
        start: Start,
    ) -> Result<Window, Failure> {
        Ok(self.since.window(stream, cursor, start))
    }

    fn is_bounded(&self, stream: &Stream) -> bool {
        !matches!(
            stream.name.as_str(),
            "inventory_counts" | "catalog_objects" | "timecards"
        )
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
                Request::get(below(&self.base, &["v2", "locations"], &[]))
            }
            Call::Get(path) | Call::GetByLocation(path) => {
                let mut query = spec.query(at.window);
                query.extend(
                    here.iter()
                        .map(|location| ("location_id", location.clone())),
                );
                query.extend(next.cursor.map(|cursor| ("cursor", cursor)));
                let query: Vec<(&str, &str)> = query
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                Request::get(below(&self.base, path, &query))
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
                Request::post_json(below(&self.base, path, &[]), &body)
            }
        };
        let token = at
            .access
            .map(|access| &access.token)
            .or(self.personal.as_ref());
        let request = match token {
            Some(token) => request.bearer(token),
            None => request,
        };
        Ok(request.header("Square-Version", &self.version))
    }

    fn login(&self) -> Option<&dyn Login> {
        self.login.as_ref().map(|login| login as &dyn Login)
    }

    fn verdict(&self, at: &Position, got: &Response) -> Verdict {
        let code = |code: &str| reading::text(&reading::problem(got), "/errors/0/code") == code;
        let fail = |code, message: String| Verdict::Fail(Failure::new(code, message));
        match got.status {
            400 if at.next.is_some() && code("INVALID_CURSOR") => {
                let message = "HTTP 400 (the page's cursor is over)";
                Verdict::Expired(Failure::new(Code::RequestRefused, message))
            }
            401 if code("ACCESS_TOKEN_REVOKED") => fail(
                Code::CredentialsRejected,
                "HTTP 401 (the access token was revoked)".to_owned(),
            ),
            401 if code("ACCESS_TOKEN_EXPIRED") => fail(
                Code::CredentialsRejected,
                "HTTP 401 (the access token has expired)".to_owned(),
            ),
            403 if table::is_left_out::<Spec>(at.stream, self.is_chosen) => {
                Verdict::Absent("left out, because the token may not read it".to_owned())
            }
            403 => fail(
                Code::PermissionMissing,
                format!("HTTP 403 (the token may not read {})", at.stream.name),
            ),
            429 => {
                let reset = || {
                    let reset = got.header("x-ratelimit-reset")?.trim().parse().ok()?;
                    let reset = DateTime::from_timestamp(reset, 0)?;
                    let date = httpdate::parse_http_date(got.header("date")?).ok()?;
                    (reset - DateTime::<Utc>::from(date)).to_std().ok()
                };
                let failure = Failure::new(Code::RateLimited, "HTTP 429 (too many requests)");
                Verdict::Retry(failure.after(retry_after(got).or_else(reset)))
            }
            _ => verdict_by_status(got),
        }
    }

    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let spec: &Spec = row(at.stream)?;
        let next: Next = reading::next(at)?;
        if spec.locations() > 0 && next.locations.is_none() {
            return begin(at, got);
        }
        let around = reading::around(got, spec.list);
        if around
            .get("errors")
            .is_some_and(|errors| errors != &json!([]))
        {
            return Err(strange("the answer is an error of Square's"));
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
        let found = match reading::read(&at.stream.name, got, &shape, self.limits) {
            Err(failure) if failure.code == Code::UnexpectedShape && is_empty => Default::default(),
            found => found?,
        };
        let cursor = around.get("cursor").and_then(Value::as_str);
        let cursor = cursor
            .filter(|cursor| !cursor.is_empty())
            .map(str::to_owned);
        let (high, _) = highest(at.high, &found.cursors, at.window.to, parse_any);
        let next = match cursor {
            Some(_) if self.is_past(spec, at, &found.cursors) => None,
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
            records: found.records,
            rejected: found.rejected,
            deleted: found.deleted,
            next: next.as_ref().map(reading::token).transpose()?,
            high,
            ..Page::default()
        })
    }

    fn account(&self) -> Option<&Account> {
        Some(&self.account)
    }
}

impl SquareReader {
    /// Whether an earlier pass has read the stream: the window then begins later than a first one would.
    fn has_begun(&self, at: &Position) -> bool {
        let first = Start {
            now: at.window.to,
            ..at.start
        };
        at.window.from != self.since.window(at.stream, None, first).from
    }

    /// Hours have no filter by date of change. They come with the last change first: a page that reaches back
    /// beyond the window is the last one.
    fn is_past(&self, spec: &Spec, at: &Position, stamps: &[String]) -> bool {
        let last = stamps.last().and_then(|text| parse_any(text));
        spec.about.name == "timecards" && last.is_some_and(|last| Some(last) < at.window.from)
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
        return Err(strange("the answer is an error of Square's"));
    }
    let locations: Vec<String> = answer.locations.into_iter().map(|place| place.id).collect();
    let next = (!locations.is_empty()).then_some(Next {
        locations: Some(locations),
        cursor: None,
    });
    Ok(Page {
        next: next.as_ref().map(reading::token).transpose()?,
        high: at.high.cloned(),
        ..Page::default()
    })
}

/// Tokens by refresh token.
struct OAuth {
    url: Url,
    client_id: Secret,
    client_secret: Option<Secret>,
    refresh: Secret,
}

impl Login for OAuth {
    fn request(&self, _start: Start, refresh: Option<&Secret>) -> Result<Request, Failure> {
        let mut body = json!({
            "client_id": self.client_id.text(),
            "grant_type": "refresh_token",
            "refresh_token": refresh.unwrap_or(&self.refresh).text(),
        });
        if let Some(secret) = &self.client_secret {
            body = reading::with(body, "client_secret", secret.text());
        }
        Ok(Request::post_json(self.url.clone(), &body))
    }

    fn granted(
        &self,
        start: Start,
        refresh: Option<&Secret>,
        got: &Response,
    ) -> Result<Grant, Failure> {
        let mut answer = token::answer(got, &USUAL)?;
        // A moment, where others have a number of seconds.
        let over_at = answer.fields.fields().get("expires_at");
        let over_at = over_at.and_then(Value::as_str).and_then(parse_any);
        answer.lives = over_at.and_then(|over_at| (over_at - start.now).to_std().ok());
        let sent = refresh.unwrap_or(&self.refresh);
        Ok(answer.grant(Some(sent), None))
    }
}
