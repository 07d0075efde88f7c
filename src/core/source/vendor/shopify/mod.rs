//! `shopify`: the GraphQL Admin API.
//!
//! Orders and their refunds come in the order of their change. Stock does not: it hangs below the items, which do not
//! move when it does, so it is read whole. A list within a record is a list of its own with pages of its own; where
//! it goes on, the rest is asked for before the next page. What a query may cost is known only when it is refused:
//! then half as much is asked for. What a long pass has not read after some pages comes as one file ([`bulk`]).

mod bulk;
mod login;
mod streams;
mod webhook;

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

use crate::error::{Code, Failure};
use crate::json::RecordLimits;
use crate::record::{Page, Window};
use crate::secret::Secret;
use crate::source::hook::Hook;
use crate::source::reading::{self, Shape, strange};
use crate::source::request::{below, verdict_by_status};
use crate::source::settings::{PACE, STREAMS, Settings, missing, wrong};
use crate::source::table::{self, about, row};
use crate::source::window::{Since, highest};
use crate::source::{
    About, Account, Definition, Field, Login, Position, Reader, Request, Response, Source, Start,
    Stream, Usage, Verdict,
};
use crate::template::parse_any;
use bulk::Bulk;
use login::OAuth;
use streams::{Rest, Spec};

pub struct Shopify;

/// An older one falls forward to the oldest that is supported, without a word.
const VERSION: &str = "2026-10";

/// Entries of an inner list that are asked for at once where it goes on.
const REST_FIRST: u32 = 100;

/// Names of the shop.
const SHOP: &[&str] = &["shop", "shop_domain", "shop_url", "store"];

const CREDENTIALS: &[Field] = &[
    Field {
        name: "shop",
        meaning: "acme for acme.myshopify.com; may stand in config",
    },
    Field {
        name: "access_token",
        meaning: "shpat_... of a custom app; or the following",
    },
    Field {
        name: "client_id",
        meaning: "of an app of your own organisation, with client_secret: client credentials",
    },
    Field {
        name: "client_secret",
        meaning: "of the app",
    },
    Field {
        name: "refresh_token",
        meaning: "of a public app's offline token; each one that replaces it is stored, sealed, before it is used",
    },
    Field {
        name: "webhook_secret",
        meaning: "what webhooks are signed with, where it is not client_secret alone; a list of both while that is rotated",
    },
];

const CONFIG: &[Field] = &[
    Field {
        name: "shop",
        meaning: "acme for acme.myshopify.com",
    },
    STREAMS,
    Field {
        name: "start_date",
        meaning: "where a first sync begins, ISO 8601; 30 days ago where it is left out. Orders older than 60 days need the scope read_all_orders",
    },
    PACE,
    Field {
        name: "api_version",
        meaning: "such as 2026-10",
    },
    Field {
        name: "base_url",
        meaning: "another place than https://{shop}.myshopify.com",
    },
];

impl Source for Shopify {
    fn name(&self) -> &'static str {
        "shopify"
    }

    fn about(&self) -> About {
        about::<Spec>("shop", CREDENTIALS, CONFIG)
    }

    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        let settings = Settings::new(connector, CONFIG)?;
        let streams = settings.streams::<Spec>()?;
        let since = Since {
            start_date: settings.start_date()?,
            lookback: TimeDelta::minutes(5),
            read: parse_any,
        };
        let version = settings.text("api_version")?.unwrap_or(VERSION).to_owned();
        if !version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-')
        {
            return Err(wrong("config's \"api_version\" is not one such as 2026-10"));
        }
        let shop = settings.place(SHOP)?;
        let shop = shop.map(|shop| shop_url(&shop)).transpose()?;
        let base = settings.url("base_url")?.or(shop);
        let fixed = settings.secret(&["access_token", "api_password", "token"]);
        let refresh = settings.secret(&["refresh_token"]);
        let id = settings.secret(&["client_id", "api_key"]);
        let base = base.ok_or_else(|| missing("shop"))?;
        let login = match (&fixed, id) {
            (fixed, Some(id)) if fixed.is_none() || refresh.is_some() => Some(OAuth {
                url: below(&base, &["admin", "oauth", "access_token"], &[]),
                id,
                secret: settings.need(&["client_secret", "api_secret"])?,
                refresh,
            }),
            (None, _) => return Err(missing("access_token")),
            _ => None,
        };
        let host = base.host_str().unwrap_or_default();
        Ok(Box::new(ShopifyReader {
            streams,
            is_chosen: settings.is_chosen(),
            account: Account {
                name: format!("shopify {host}"),
                // Cost decides, and each answer tells what is left of it.
                every: settings.pace(Duration::from_millis(50))?,
                burst: 4,
            },
            url: below(&base, &["admin", "api", &version, "graphql.json"], &[]),
            since,
            version,
            login,
            fixed,
            limits: connector.limits,
        }))
    }

    fn hook(&self, connector: &Definition) -> Result<Option<Box<dyn Hook>>, Failure> {
        let settings = Settings::new(connector, CONFIG)?;
        let shop = settings.place(SHOP)?;
        let shop = shop.map(|shop| shop_url(&shop)).transpose()?;
        webhook::open(connector, shop.as_ref().and_then(Url::host_str))
    }
}

fn shop_url(text: &str) -> Result<Url, Failure> {
    let text = text.trim_end_matches('/');
    let url = if text.contains("://") {
        text.to_owned()
    } else if text.contains('.') {
        format!("https://{text}")
    } else {
        format!("https://{text}.myshopify.com")
    };
    crate::source::api::join(&url, "")
        .map_err(|_| wrong("the shop is neither a name nor an address"))
}

struct ShopifyReader {
    streams: Vec<Stream>,
    is_chosen: bool,
    /// Of every query.
    url: Url,
    since: Since,
    version: String,
    login: Option<OAuth>,
    fixed: Option<Secret>,
    account: Account,
    limits: RecordLimits,
}

/// How a pass goes on.
#[derive(Default, Clone, Serialize, Deserialize)]
struct Next {
    after: Option<String>,
    /// Nodes of a page; `None`: as many as the stream asks for at first.
    first: Option<u32>,
    /// Inner lists that go on: the node's id, and where. The last one first.
    rest: Vec<(String, String)>,
    /// Whether the connection goes on after them.
    more: bool,
    /// Pages of nodes so far.
    #[serde(default)]
    pages: u32,
    #[serde(default)]
    bulk: Option<Bulk>,
    /// Whether a bulk operation was tried in vain.
    #[serde(default)]
    by_pages: bool,
}

fn stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn filter(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    // The second in which the pass began is part of it.
    let (from, to) = (stamp(from), stamp(to + TimeDelta::seconds(1)));
    format!("updated_at:>='{from}' AND updated_at:<'{to}'")
}

/// Codes of the errors in an answer. They may come with 200, and with a part of the data.
fn codes(errors: &Value) -> Vec<&str> {
    let list = errors.as_array().into_iter().flatten();
    list.map(|error| reading::text(error, "/extensions/code"))
        .collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cost {
    requested_query_cost: f64,
    throttle_status: Option<ThrottleStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ThrottleStatus {
    currently_available: f64,
    restore_rate: f64,
}

/// How long until the account can pay for the same query again.
fn wait(around: &Map<String, Value>) -> Option<Duration> {
    let cost = around.get("extensions")?.get("cost")?.clone();
    let cost: Cost = serde_json::from_value(cost).ok()?;
    let status = cost.throttle_status?;
    let lacks = cost.requested_query_cost - status.currently_available;
    (lacks > 0.0)
        .then(|| Duration::try_from_secs_f64(lacks / status.restore_rate.max(1.0)).ok())
        .flatten()
}

impl Reader for ShopifyReader {
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

    fn request(&self, at: &Position) -> Result<Request, Failure> {
        let spec: &Spec = row(at.stream)?;
        let next: Next = reading::next(at)?;
        if let Some(part) = next.bulk.as_ref().and_then(Bulk::part) {
            return Ok(part);
        }
        let body = match (&next.bulk, next.rest.last(), &spec.rest) {
            (Some(bulk), ..) => bulk.query(at, spec),
            (None, Some((id, after)), Some(rest)) => json!({
                "query": rest.query(),
                "variables": {"id": id, "first": next.first.unwrap_or(REST_FIRST), "after": after},
            }),
            _ => {
                let mut variables = json!({
                    "first": next.first.unwrap_or(spec.first),
                    "after": next.after,
                });
                if !spec.stamp.is_empty() {
                    let filter = filter(at.window.from.unwrap_or_default(), at.window.to);
                    variables = reading::with(variables, "query", filter);
                }
                json!({"query": spec.query(), "variables": variables})
            }
        };
        let request = Request::post_json(self.url.clone(), &body);
        let token = at
            .access
            .map(|access| &access.token)
            .or(self.fixed.as_ref());
        Ok(match token {
            Some(token) => request.header("X-Shopify-Access-Token", token.text()),
            None => request,
        })
    }

    fn login(&self) -> Option<&dyn Login> {
        self.login.as_ref().map(|login| login as &dyn Login)
    }

    fn verdict(&self, at: &Position, got: &Response) -> Verdict {
        let stream = &at.stream.name;
        let bulk = reading::next(at).map_or(None, |next: Next| next.bulk);
        if let Some(verdict) = bulk.as_ref().and_then(|bulk| bulk.verdict(got)) {
            return verdict;
        }
        let is_left_out =
            || at.next.is_none() && table::is_left_out::<Spec>(at.stream, self.is_chosen);
        let left_out = || Verdict::Absent("left out, because the token lacks its scope".to_owned());
        let failure =
            |code, what: &str| Failure::new(code, format!("HTTP {} ({what})", got.status));
        match got.status {
            200 => {}
            402 => return Verdict::Fail(failure(Code::CredentialsRejected, "the shop is frozen")),
            423 => return Verdict::Fail(failure(Code::CredentialsRejected, "the shop is locked")),
            403 if is_left_out() => return left_out(),
            403 => {
                let what = format!("the token may not read {stream}");
                return Verdict::Fail(failure(Code::PermissionMissing, &what));
            }
            404 => {
                let what = "there is no such shop, or the token lacks a scope";
                return Verdict::Fail(failure(Code::NotFound, what));
            }
            _ => return verdict_by_status(got),
        }
        let around = reading::around(got, "data");
        let Some(errors) = around.get("errors") else {
            return Verdict::Read;
        };
        let codes = codes(errors);
        let has = |code: &str| codes.contains(&code);
        if has("THROTTLED") {
            let wait = wait(&around).unwrap_or(Duration::from_secs(1));
            let failure = failure(Code::RateLimited, "the account's query cost is used up");
            Verdict::Retry(failure.after(Some(wait)))
        } else if has("MAX_COST_EXCEEDED") {
            // Read as a page that asks for less.
            Verdict::Read
        } else if bulk.is_some() && !has("INTERNAL_SERVER_ERROR") {
            // Read as one that cannot be had.
            Verdict::Read
        } else if has("ACCESS_DENIED") && is_left_out() {
            left_out()
        } else if has("ACCESS_DENIED") {
            let what = format!("the token lacks the scope to read {stream}");
            Verdict::Fail(failure(Code::PermissionMissing, &what))
        } else if has("SHOP_INACTIVE") {
            Verdict::Fail(failure(Code::CredentialsRejected, "the shop is not active"))
        } else if has("INTERNAL_SERVER_ERROR") {
            Verdict::Retry(failure(Code::ServerError, "the server failed"))
        } else {
            Verdict::Fail(failure(Code::RequestRefused, "the query was refused"))
        }
    }

    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let spec: &Spec = row(at.stream)?;
        let mut next: Next = reading::next(at)?;
        if let Some(bulk) = next.bulk.take() {
            return self.bulk(at, got, spec, next, bulk);
        }
        let around = reading::around(got, "data");
        let costs_too_much = around
            .get("errors")
            .is_some_and(|errors| codes(errors).contains(&"MAX_COST_EXCEEDED"));
        let mut page = match (next.rest.is_empty(), &spec.rest) {
            _ if costs_too_much => less(at, spec, next)?,
            (false, Some(rest)) => self.rest(at, got, rest, next)?,
            _ => self.nodes(at, got, spec, next)?,
        };
        let version = got.header("x-shopify-api-version");
        if let Some(version) =
            version.filter(|version| at.next.is_none() && *version != self.version)
        {
            // The header's text is not repeated: it is the vendor's.
            let is_plain =
                version.len() <= 10 && version.chars().all(|c| c.is_ascii_digit() || c == '-');
            let version = if is_plain { version } else { "another version" };
            page.warning = Some(format!(
                "Shopify answered with API version {version} instead of {}, which it does not support any more",
                self.version
            ));
        }
        Ok(page)
    }

    fn account(&self) -> Option<&Account> {
        Some(&self.account)
    }

    fn usage(&self, got: &Response) -> Usage {
        // A throttled answer says so itself.
        let rest = wait(&reading::around(got, "data")).map(|wait| {
            (
                wait,
                "the account's query cost is nearly used up".to_owned(),
            )
        });
        Usage { rest, used: None }
    }
}

/// The same with half as many.
fn less(at: &Position, spec: &Spec, next: Next) -> Result<Page, Failure> {
    let usual = if next.rest.is_empty() {
        spec.first
    } else {
        REST_FIRST
    };
    let first = next.first.unwrap_or(usual) / 2;
    if first == 0 {
        return Err(Failure::new(
            Code::RequestRefused,
            "a query for a single record costs more than the shop allows",
        ));
    }
    let next = Next {
        first: Some(first),
        ..next
    };
    Ok(Page {
        next: Some(reading::token(&next)?),
        high: at.high.cloned(),
        ..Page::default()
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageInfo {
    has_next_page: bool,
    end_cursor: Option<String>,
}

impl PageInfo {
    fn next(self) -> Result<Option<String>, Failure> {
        match (self.has_next_page, self.end_cursor) {
            (false, _) => Ok(None),
            (true, Some(cursor)) => Ok(Some(cursor)),
            (true, None) => Err(strange("a list goes on, and does not say where")),
        }
    }
}

/// What a page says beside its records.
#[derive(Deserialize)]
struct Answer<T> {
    data: HashMap<String, T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    nodes: Vec<Node>,
    page_info: PageInfo,
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    id: String,
    #[serde(rename = "updatedAt", default)]
    updated_at: Option<String>,
    #[serde(alias = "lineItems", alias = "inventoryLevels", default)]
    inner: Option<Inner>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inner {
    page_info: PageInfo,
}

impl ShopifyReader {
    fn nodes(
        &self,
        at: &Position,
        got: &Response,
        spec: &Spec,
        mut next: Next,
    ) -> Result<Page, Failure> {
        let mut answer: Answer<Connection> = reading::whole(got)?;
        let connection = answer.data.remove(spec.root);
        let connection = connection.ok_or_else(|| strange("the answer has no data"))?;
        let inner: Vec<&str> = spec
            .inner
            .split('.')
            .filter(|step| !step.is_empty())
            .collect();
        let below = if inner.is_empty() {
            String::new()
        } else {
            format!(".*.{}", inner.join("."))
        };
        let shape = Shape {
            path: &format!("data.{}.nodes{below}", spec.root),
            key: &["id"],
            ..Shape::default()
        };
        let found = if connection.nodes.is_empty() {
            Default::default()
        } else {
            reading::read(&at.stream.name, got, &shape, self.limits)?
        };
        let stamps = self.stamps(at, spec, &connection.nodes)?;
        let high = highest(at.high, &stamps, at.window.to, parse_any).0;
        let after = connection.page_info.next()?;
        let mut rest = Vec::new();
        for node in connection.nodes.into_iter().rev() {
            if let Some(inner) = node.inner
                && let Some(cursor) = inner.page_info.next()?
            {
                rest.push((node.id, cursor));
            }
        }
        let mut next = Next {
            more: after.is_some(),
            after: after.or(next.after.take()),
            rest,
            pages: next.pages + 1,
            ..next
        };
        if bulk::pays(spec, &next) {
            next.bulk = Some(Bulk::default());
        }
        Ok(Page {
            records: found.records,
            rejected: found.rejected,
            next: goes_on(next)?,
            high,
            ..Page::default()
        })
    }

    /// The stamps of nodes, where the stream has any. Not understood, a filter is ignored, and everything comes.
    fn stamps(&self, at: &Position, spec: &Spec, nodes: &[Node]) -> Result<Vec<String>, Failure> {
        if spec.stamp.is_empty() {
            return Ok(Vec::new());
        }
        let from = at.window.from.unwrap_or_default();
        let is_within = |text: &String| parse_any(text).is_some_and(|stamp| stamp >= from);
        let stamps = nodes
            .iter()
            .map(|node| node.updated_at.clone().filter(is_within));
        let stamps: Option<Vec<String>> = stamps.collect();
        stamps.ok_or_else(|| {
            strange("a record lies outside of what was asked for: the filter was ignored")
        })
    }

    /// The rest of an inner list.
    fn rest(
        &self,
        at: &Position,
        got: &Response,
        rest: &Rest,
        mut next: Next,
    ) -> Result<Page, Failure> {
        let mut answer: Answer<Option<Node>> = reading::whole(got)?;
        let node = answer.data.remove(rest.root);
        let node = node.ok_or_else(|| strange("the answer has no data"))?;
        let Some((id, _)) = next.rest.pop() else {
            return Err(Failure::new(Code::Internal, "no list to go on with"));
        };
        let mut page = Page {
            high: at.high.cloned(),
            ..Page::default()
        };
        // The node may be gone since; what it held is found missing, or comes with its next change.
        if let Some(node) = node {
            let inner = node
                .inner
                .ok_or_else(|| strange("the answer lacks the list that was asked for"))?;
            let shape = Shape {
                path: &format!("data.{}.{}.nodes", rest.root, rest.connection),
                key: &["id"],
                ..Shape::default()
            };
            let found = reading::read(&at.stream.name, got, &shape, self.limits)?;
            (page.records, page.rejected) = (found.records, found.rejected);
            if let Some(cursor) = inner.page_info.next()? {
                next.rest.push((id, cursor));
            }
        }
        page.next = goes_on(next)?;
        Ok(page)
    }
}

fn goes_on(next: Next) -> Result<Option<Value>, Failure> {
    let goes_on = next.more || !next.rest.is_empty();
    goes_on.then(|| reading::token(&next)).transpose()
}
