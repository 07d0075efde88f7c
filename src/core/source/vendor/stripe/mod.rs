//! `stripe`: lists by date of creation, and the events feed for what changed since.
//!
//! Lists have no filter for changes and come newest first. So a pass lists what was created in its window, then asks
//! the events which older objects changed, and reads each of those again: an event's own copy of an object is in
//! whatever version the account had, and of two events within a second nobody knows the order.

mod feed;
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
use crate::source::open::{self, Open};
use crate::source::reading::{self, Shape, strange};
use crate::source::request::{below, verdict_by_status, with_query};
use crate::source::settings::{PACE, START_DATE, STREAMS, Settings};
use crate::source::table::{about, row};
use crate::source::window::{epoch, highest};
use crate::source::{
    About, Account, Definition, Field, Part, Position, Reader, Request, Response, Source, Start,
    Stream, Verdict,
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
    /// What is listed again after the list, because it was not final: the moments of creation, in seconds.
    #[serde(default)]
    again_between: Option<(i64, i64)>,
    #[serde(default)]
    is_again: bool,
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
        let spec: &Spec = row(stream)?;
        let stamp = cursor.map(open::stamp);
        let mut window = self.common.since.window(stream, stamp.as_ref(), start);
        let is_old = start.is_later_than(EVENTS_KEPT, window.from);
        if spec.is_reference && (cursor.is_none() || is_old) {
            let first = self.common.since.start_date;
            window.from = Some(first.unwrap_or(DateTime::UNIX_EPOCH).min(start.now));
        } else if let Some(from) = window.from.filter(|_| cursor.is_some())
            && is_old
            && !spec.events.is_empty()
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

    /// All that was created in a window is listed. Where the events do not tell what is gone, what is not listed is.
    fn shows_all_of(
        &self,
        _stream: &Stream,
        cursor: Option<&Value>,
        start: Start,
        window: Window,
    ) -> Option<Part> {
        let reached = cursor.map(open::stamp);
        let reached = reached.as_ref().and_then(Value::as_str).and_then(epoch);
        let is_first = cursor.is_none() || start.is_later_than(EVENTS_KEPT, reached);
        is_first.then(|| Part {
            field: &["created"],
            from: window.from.unwrap_or_default().timestamp().to_string(),
        })
    }

    fn request(&self, at: &Position) -> Result<Request, Failure> {
        let spec: &Spec = row(at.stream)?;
        let next: Next = reading::next(at)?;
        let (from, to) = match next.again_between.filter(|_| next.is_again) {
            Some((from, to)) => (from.to_string(), to.to_string()),
            None => (
                at.window.from.unwrap_or_default().timestamp().to_string(),
                at.window.to.timestamp().to_string(),
            ),
        };
        let url = if let Some(id) = next.changed.last() {
            below(&self.base, &["v1", spec.about.name, id])
        } else {
            let mut query = vec![
                ("limit", "100"),
                ("created[gte]", &from),
                ("created[lte]", &to),
            ];
            let list = if next.in_events {
                query.extend(spec.kinds().map(|kind| ("types[]", kind)));
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
                let in_events = || reading::next(at).is_ok_and(|next: Next| next.in_events);
                let what = match is_single() || !in_events() {
                    true => "the key may not read this stream",
                    false => "the key may not read events, which tell what has changed",
                };
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
        let has_more = check_list(got)?;
        if at.next.is_none() && spec.settles {
            let before = at.window.from.unwrap_or_default();
            next.again_between = Open::of(at.high, epoch).take_due(at.window.to, before);
        }
        let mut overlaps = false;
        let next = if has_more {
            let (after, again) = last_id(&found)?;
            overlaps = again;
            Some(Next {
                after: Some(after),
                ..next
            })
        } else if next.again_between.is_some() && !next.is_again {
            Some(Next {
                after: None,
                is_again: true,
                ..next
            })
        } else {
            next.again.then_some(Next {
                after: None,
                in_events: true,
                ..next
            })
        };
        let high = self.high(at, spec, &found);
        let is_late = at.next.is_none() && at.high.is_some() && !spec.events.is_empty();
        let warning = self.gap(at).filter(|_| is_late);
        Ok(Page {
            warning,
            overlaps,
            ..reading::page(found, next, high)?
        })
    }
}

impl StripeReader {
    /// The cursor, once the pass has come past these records.
    fn high(&self, at: &Position, spec: &Spec, found: &Found) -> Option<Value> {
        if !spec.settles {
            return self.common.high(at, &found.cursors);
        }
        let mut open = Open::of(at.high, epoch);
        if at.next.is_none() {
            // What is due is listed again in this pass, and remembered again if it is still open.
            open.take_due(at.window.to, at.window.to);
        }
        for record in &found.records {
            let ledger = serde_json::from_slice::<Ledger>(&record.json).ok();
            if let Some(Ledger {
                status,
                created,
                available_on,
            }) = ledger
                && status == "pending"
            {
                open.note(available_on.unwrap_or(0), created);
            }
        }
        let before = at.high.map(open::stamp);
        let high = highest(before.as_ref(), &found.cursors, at.window.to, epoch).0;
        open.cursor(high.as_ref())
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

/// What is looked at in the ledger.
#[derive(Deserialize)]
struct Ledger {
    status: String,
    created: i64,
    available_on: Option<i64>,
}

/// Whether a list has more pages. What is no list is an error, even beside a list.
fn check_list(got: &Response) -> Result<bool, Failure> {
    let around = reading::around(got, "data");
    if around.get("object") != Some(&Value::from("list")) || around.contains_key("error") {
        return Err(strange("the response is not a Stripe list"));
    }
    let has_more = around.get("has_more").and_then(Value::as_bool);
    has_more.ok_or_else(|| strange("the response does not say whether there are more pages"))
}

/// The id that the next page begins behind: the last object's. Where that one is damaged so that it cannot be read, it
/// is the last that can, and the next page begins with the damaged one again.
fn last_id(found: &Found) -> Result<(String, bool), Failure> {
    #[derive(Deserialize)]
    struct Listed {
        id: String,
    }
    let id_of = |text: &[u8]| {
        let listed = serde_json::from_slice::<Listed>(text).ok();
        listed.map(|listed| listed.id).filter(|id| !id.is_empty())
    };
    if let Some(id) = found.last.as_deref().and_then(id_of) {
        return Ok((id, false));
    }
    let mut records = found.records.iter().rev();
    let id = records.find_map(|record| id_of(&record.json));
    let id = id.ok_or_else(|| strange("a page without objects claims that more follow"))?;
    Ok((id, true))
}
