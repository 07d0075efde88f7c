//! `stripe`: lists by date of creation, and the events feed for what changed since.
//!
//! Lists have no filter for changes and come newest first. So a pass lists what was created in its window, then asks
//! the events which older objects changed, and reads each of those again: an event's own copy of an object is in
//! whatever version the account had, and of two events within a second nobody knows the order.

mod streams;
mod webhook;

use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::error::{Code, Failure};
use crate::json::Found;
use crate::record::{Page, Window};
use crate::secret::Secret;
use crate::source::common::Common;
use crate::source::hook::Hook;
use crate::source::reading::{self, Shape, strange};
use crate::source::request::{below, verdict_by_status, with_query};
use crate::source::settings::{PACE, START_DATE, STREAMS, Settings};
use crate::source::table::{about, row};
use crate::source::window::epoch;
use crate::source::{
    About, Account, Definition, Field, Position, Reader, Request, Response, Source, Start, Stream,
    Verdict,
};
use streams::Spec;

pub struct Stripe;

/// Shapes differ by version, and the built-in mappings read this one.
const VERSION: &str = "2026-10-28.endive";

/// How long Stripe keeps events, less a day.
const EVENTS_KEPT: TimeDelta = TimeDelta::days(29);

/// How far back a stream is listed again where the events since are gone. Longer: more to read, once. Shorter:
/// refunds and disputes of older sales are missed.
const WITHOUT_EVENTS: TimeDelta = TimeDelta::days(120);

const CREDENTIALS: &[Field] = &[
    Field {
        name: "api_key",
        meaning: "secret key (sk_...), or restricted key (rk_...) with read access to the streams",
    },
    Field {
        name: "webhook_secret",
        meaning: "signing secret (whsec_...) of the endpoint that pushes events here; a list of both while it is rotated",
    },
];

const CONFIG: &[Field] = &[
    STREAMS,
    START_DATE,
    PACE,
    Field {
        name: "account",
        meaning: "id (acct_...) of a connected account",
    },
    Field {
        name: "api_version",
        meaning: "Stripe-Version to request; default: 2026-10-28.endive",
    },
    Field {
        name: "base_url",
        meaning: "base URL; default: https://api.stripe.com",
    },
];

impl Source for Stripe {
    fn name(&self) -> &'static str {
        "stripe"
    }

    fn about(&self) -> About {
        about::<Spec>("payments", CREDENTIALS, CONFIG)
    }

    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        let settings = Settings::new(connector, CONFIG)?;
        let streams = settings.streams::<Spec>()?;
        let base = settings.base("https://api.stripe.com")?;
        let since = settings.since(TimeDelta::minutes(10), epoch)?;
        let connected = settings.text("account")?.map(str::to_owned);
        let version = settings.text("api_version")?.unwrap_or(VERSION).to_owned();
        let key = settings.need(&["api_key", "secret_key", "access_token", "key"])?;
        let owner = connected.clone().unwrap_or_else(|| key.fingerprint());
        // 25 a second for an endpoint is the vendor's limit in a sandbox and by default.
        let account = Account {
            name: format!("stripe {owner}"),
            every: Duration::from_millis(50),
            burst: 20,
        };
        Ok(Box::new(StripeReader {
            common: Common::new(&settings, streams, since, account)?,
            base,
            connected,
            version,
            key,
        }))
    }

    fn hook(&self, connector: &Definition) -> Result<Option<Box<dyn Hook>>, Failure> {
        webhook::open(connector)
    }
}

struct StripeReader {
    base: Url,
    common: Common,
    connected: Option<String>,
    version: String,
    key: Secret,
}

/// How a pass continues.
#[derive(Default, Serialize, Deserialize)]
struct Next {
    /// Whether older objects may have changed since an earlier pass.
    again: bool,
    /// The last object of the list, or of the events.
    after: Option<String>,
    in_events: bool,
    /// Changed objects that are to be read before the next events; the last one first.
    changed: Vec<String>,
    /// The changed object that was read last.
    last: Option<String>,
}

#[derive(Deserialize)]
struct Events {
    object: String,
    data: Vec<Event>,
    has_more: bool,
}

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    created: i64,
    data: EventData,
}

#[derive(Deserialize)]
struct EventData {
    object: Changed,
}

#[derive(Deserialize)]
struct Changed {
    id: Option<String>,
    object: Option<String>,
    created: Option<i64>,
}

impl Reader for StripeReader {
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
        if let Some(from) = window.from.filter(|_| cursor.is_some())
            && start.is_later_than(EVENTS_KEPT, Some(from))
            && !row::<Spec>(stream)?.events.is_empty()
        {
            let from = from - WITHOUT_EVENTS;
            window.from = Some(
                self.common
                    .since
                    .start_date
                    .map_or(from, |first| first.max(from)),
            );
        }
        Ok(window)
    }

    fn request(&self, at: &Position) -> Result<Request, Failure> {
        let spec: &Spec = row(at.stream)?;
        let next: Next = reading::next(at)?;
        let from = at.window.from.unwrap_or_default().timestamp().to_string();
        let to = at.window.to.timestamp().to_string();
        let url = if let Some(id) = next.changed.last() {
            below(&self.base, &["v1", spec.about.name, id])
        } else {
            let mut query = vec![
                ("limit", "100"),
                ("created[gte]", &from),
                ("created[lte]", &to),
            ];
            let list = if next.in_events {
                query.extend(spec.events.iter().map(|kind| ("types[]", *kind)));
                "events"
            } else {
                query.extend(spec.filter);
                query.extend(spec.expand.iter().map(|path| ("expand[]", *path)));
                spec.about.name
            };
            if let Some(after) = &next.after {
                query.push(("starting_after", after));
            }
            with_query(below(&self.base, &["v1", list]), &query)
        };
        let mut request = Request::get(url)
            .bearer(Some(&self.key))
            .header("Stripe-Version", &self.version);
        if let Some(connected) = &self.connected {
            request = request.header("Stripe-Account", connected);
        }
        Ok(request)
    }

    fn verdict(&self, at: &Position, got: &Response) -> Verdict {
        let by_status = verdict_by_status(got);
        let is_single = || reading::next(at).is_ok_and(|next: Next| !next.changed.is_empty());
        match (got.status, got.header("stripe-should-retry")) {
            (404, _) if is_single() => Verdict::Read,
            (400, _)
                if reading::text(&reading::problem(got), "/error/param") == "starting_after" =>
            {
                let what = "the last object of the previous page is gone";
                Verdict::Expired(got.failure(Code::RequestRefused, what))
            }
            (403, _) if at.next.is_none() && self.common.is_left_out::<Spec>(at.stream) => {
                Verdict::Absent("left out, because the key may not read it".to_owned())
            }
            (403, _) => {
                let what = "the key may not read this stream";
                Verdict::Fail(got.failure(Code::PermissionMissing, what))
            }
            (409 | 424, None | Some("true")) | (400..=499, Some("true")) if got.status != 429 => {
                Verdict::Retry(got.failure(Code::ServerError, "Stripe asks for a retry"))
            }
            (409 | 423 | 500..=599, Some("false")) => {
                Verdict::Fail(got.failure(Code::RequestRefused, "Stripe asks not to retry"))
            }
            _ => by_status,
        }
    }

    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let spec: &Spec = row(at.stream)?;
        let mut next: Next = reading::next(at)?;
        if at.next.is_none() {
            next.again = at.high.is_some() && !spec.events.is_empty();
        }
        if let Some(id) = next.changed.pop() {
            return self.single(at, got, next, id);
        }
        if next.in_events {
            return self.events(at, got, spec, next);
        }
        let shape = Shape {
            path: "data",
            key: &["id"],
            stamp: "created",
            ..Shape::default()
        };
        let found = self.common.read(at, got, &shape)?;
        let around = reading::around(got, "data");
        if around.get("object") != Some(&Value::from("list")) {
            return Err(strange("the response is not a Stripe list"));
        }
        let has_more = around.get("has_more").and_then(Value::as_bool);
        let next = match has_more
            .ok_or_else(|| strange("the response does not say whether there are more pages"))?
        {
            true => Some(Next {
                after: Some(last_id(found.last.as_deref())?),
                ..next
            }),
            false => next.again.then_some(Next {
                after: None,
                in_events: true,
                ..next
            }),
        };
        let high = self.common.high(at, &found.cursors);
        let is_late = at.next.is_none() && at.high.is_some() && !spec.events.is_empty();
        let warning = self.gap(at).filter(|_| is_late);
        Ok(Page {
            warning,
            ..reading::page(found, next, high)?
        })
    }
}

impl StripeReader {
    /// One changed object as it is today, or that it is gone.
    fn single(
        &self,
        at: &Position,
        got: &Response,
        next: Next,
        id: String,
    ) -> Result<Page, Failure> {
        let found = if got.status == 404 {
            Found {
                deleted: vec![format!("{}/{id}", at.stream.name)],
                ..Found::default()
            }
        } else {
            let shape = Shape {
                key: &["id"],
                gone: Some(("deleted", "true")),
                ..Shape::default()
            };
            let found = self.common.read(at, got, &shape)?;
            let is_it =
                |record: &crate::record::Record| record.id == format!("{}/{id}", at.stream.name);
            if !found.records.iter().all(is_it) {
                return Err(strange(
                    "Stripe sent another kind of object than was requested",
                ));
            }
            found
        };
        let is_over = next.changed.is_empty() && next.after.is_none();
        let next = Next {
            last: Some(id),
            ..next
        };
        reading::page(found, (!is_over).then_some(next), at.high.cloned())
    }

    /// Which older objects changed: read one by one, next.
    fn events(
        &self,
        at: &Position,
        got: &Response,
        spec: &Spec,
        next: Next,
    ) -> Result<Page, Failure> {
        let events: Events = reading::whole(got)?;
        if events.object != "list" {
            return Err(strange("the response is not a Stripe list"));
        }
        let from = at.window.from.unwrap_or_default();
        // What was created within the window has just been listed.
        let is_listed =
            |created: i64| DateTime::from_timestamp(created, 0).is_none_or(|at| at >= from);
        let (mut changed, mut deleted): (Vec<String>, Vec<String>) = Default::default();
        for event in &events.data {
            let object = &event.data.object;
            let Some(id) = object
                .id
                .as_ref()
                .filter(|_| object.object.as_deref() == Some(spec.object))
            else {
                continue;
            };
            if event.kind.ends_with(".deleted") && spec.object != "subscription" {
                deleted.push(format!("{}/{id}", at.stream.name));
            } else if !object.created.is_some_and(is_listed)
                && !changed.contains(id)
                && next.last.as_ref() != Some(id)
            {
                changed.push(id.clone());
            }
        }
        let stamps: Vec<String> = events
            .data
            .iter()
            .map(|event| event.created.to_string())
            .collect();
        let high = self.common.high(at, &stamps);
        let after = match events.data.last().filter(|_| events.has_more) {
            Some(last) => Some(last.id.clone()),
            None if events.has_more => {
                return Err(strange("a page without events claims that more follow"));
            }
            None => None,
        };
        let is_over = changed.is_empty() && after.is_none();
        let next = Next {
            after,
            changed,
            ..next
        };
        let found = Found {
            deleted,
            ..Found::default()
        };
        reading::page(found, (!is_over).then_some(next), high)
    }

    /// The warning for events that Stripe no longer keeps.
    fn gap(&self, at: &Position) -> Option<String> {
        let reached = at.high.and_then(Value::as_str).and_then(epoch);
        at.start.is_later_than(EVENTS_KEPT, reached).then(|| {
            let from = at.window.from.unwrap_or_default();
            format!(
                "stream \"{}\": the last sync is longer ago than Stripe keeps events; changes of records created before {} may be missing",
                at.stream.name,
                from.date_naive()
            )
        })
    }
}

/// The id of a page's last object.
fn last_id(record: Option<&[u8]>) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Listed {
        id: String,
    }
    let listed = record.and_then(|text| serde_json::from_slice::<Listed>(text).ok());
    let listed = listed.filter(|listed| !listed.id.is_empty());
    Ok(listed
        .ok_or_else(|| strange("a page without objects claims that more follow"))?
        .id)
}
