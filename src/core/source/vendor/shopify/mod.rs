//! `shopify`: the GraphQL Admin API.
//!
//! Orders and their refunds come in the order of their change. Stock does not: it hangs below the items, which do not
//! move when it does, so it is read whole. A list within a record is a list of its own with pages of its own; where
//! it goes on, the rest is asked for before the next page. What a query may cost is known only when it is refused:
//! then half as much is asked for. What a long pass has not read after some pages comes as one file ([`bulk`]). What was
//! deleted is asked for at the end of a pass ([`deletions`]). A field that the token may not read is left out ([`denied`]).

mod answer;
mod bulk;
mod deletions;
mod denied;
#[cfg(test)]
mod judged;
mod login;
mod nodes;
mod selection;
mod streams;
mod webhook;

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::Url;

use crate::error::{Code, Failure};
use crate::record::Page;
use crate::secret::Secret;
use crate::source::common::Common;
use crate::source::hook::Hook;
use crate::source::reading::{self};
use crate::source::request::{below, verdict_by_status};
use crate::source::settings::{PACE, STREAMS, Settings, missing, site, wrong};
use crate::source::table::{about, row};
use crate::source::{
    About, Account, Definition, Field, Login, Position, Reader, Request, Response, Source, Usage,
    Verdict,
};
use crate::template::parse_any;
use bulk::Bulk;
use denied::{denied, lacks, scopes};
use login::OAuth;
use nodes::with_fewer_nodes;
use streams::{Asks, Spec};

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
        meaning: "acme for acme.myshopify.com; may be in config instead",
    },
    Field {
        name: "access_token",
        meaning: "access token shpat_... of a custom app; or client_id and client_secret",
    },
    Field {
        name: "client_id",
        meaning: "client id of your organisation's own app; with client_secret, for the client credentials grant",
    },
    Field {
        name: "client_secret",
        meaning: "client secret of the app",
    },
    Field {
        name: "refresh_token",
        meaning: "refresh token of a public app's offline token; a replacement is stored, sealed, before it is used",
    },
    Field {
        name: "webhook_secret",
        meaning: "secret that webhooks are signed with; default: client_secret; a list of both while it is rotated",
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
        meaning: "how far back the first sync reads, ISO 8601; default: 30 days. Orders older than 60 days need the scope read_all_orders",
    },
    PACE,
    Field {
        name: "api_version",
        meaning: "API version, such as 2026-10; default: 2026-10",
    },
    Field {
        name: "base_url",
        meaning: "base URL; default: https://{shop}.myshopify.com",
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
        let since = settings.since(TimeDelta::minutes(5), parse_any)?;
        let version = settings.text("api_version")?.unwrap_or(VERSION).to_owned();
        if !version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-')
        {
            return Err(wrong("config's \"api_version\" has to look like 2026-10"));
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
                url: below(&base, &["admin", "oauth", "access_token"]),
                id,
                secret: settings.need(&["client_secret", "api_secret"])?,
                refresh,
            }),
            (None, _) => return Err(missing("access_token")),
            _ => None,
        };
        let account = Account {
            name: format!("shopify {}", base.host_str().unwrap_or_default()),
            // Cost decides, and each answer tells what is left of it.
            every: Duration::from_millis(50),
            burst: 4,
        };
        Ok(Box::new(ShopifyReader {
            common: Common::new(&settings, streams, since, account)?,
            url: below(&base, &["admin", "api", &version, "graphql.json"]),
            version,
            login,
            fixed,
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
    site(text, ".myshopify.com").map_err(|_| wrong("\"shop\" is not a shop name or an address"))
}

struct ShopifyReader {
    /// Where every query goes.
    url: Url,
    common: Common,
    version: String,
    login: Option<OAuth>,
    fixed: Option<Secret>,
}

/// How a pass continues.
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
    #[serde(default)]
    step: Step,
    /// Fields that the token may not read, by their place below a node.
    #[serde(default)]
    without: Vec<String>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    #[default]
    Nodes,
    Deletions,
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

/// The field at the top of an answer's data.
fn root_of(spec: &Spec, next: &Next) -> &'static str {
    match spec.rest.filter(|_| !next.rest.is_empty()) {
        Some(rest) => rest,
        None => spec.root,
    }
}

impl ShopifyReader {
    fn asks<'a>(&'a self, next: &'a Next) -> Asks<'a> {
        Asks {
            version: &self.version,
            without: &next.without,
        }
    }

    /// Whether an answer holds all but some fields, or the same can be asked for without them.
    fn can_be_read_without(
        &self,
        at: &Position,
        got: &Response,
        errors: &Value,
        next: &Next,
    ) -> bool {
        let Ok(spec) = row::<Spec>(at.stream) else {
            return false;
        };
        let root = root_of(spec, next);
        let Some(denied) = denied(errors, root) else {
            return false;
        };
        let has_data = answer::root(got, root).is_ok_and(|root| root.is_some());
        let mut fields = denied.fields.iter();
        has_data || fields.all(|field| spec.can_do_without(self.asks(next), field))
    }
}

impl Reader for ShopifyReader {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn request(&self, at: &Position) -> Result<Request, Failure> {
        let spec: &Spec = row(at.stream)?;
        let next: Next = reading::next(at)?;
        if let Some(part) = next.bulk.as_ref().and_then(Bulk::part) {
            return Ok(part);
        }
        let asks = self.asks(&next);
        let body = match (&next.bulk, next.rest.last(), spec.rest) {
            _ if next.step == Step::Deletions => deletions::query(at, spec, &next),
            (Some(bulk), ..) => bulk.query(at, spec, asks),
            (None, Some((id, after)), Some(rest)) => json!({
                "query": spec.rest_query(rest, asks),
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
                json!({"query": spec.query(asks), "variables": variables})
            }
        };
        let request = Request::post_json(self.url.clone(), &body);
        Ok(match at.token().or(self.fixed.as_ref()) {
            Some(token) => request.header("X-Shopify-Access-Token", token.text()),
            None => request,
        })
    }

    fn login(&self) -> Option<&dyn Login> {
        self.login.as_ref().map(|login| login as &dyn Login)
    }

    fn verdict(&self, at: &Position, got: &Response) -> Verdict {
        let next: Next = reading::next(at).unwrap_or_default();
        let bulk = next.bulk.as_ref();
        if let Some(verdict) = bulk.and_then(|bulk| bulk.verdict(got)) {
            return verdict;
        }
        let is_deletions = next.step == Step::Deletions;
        let is_left_out = || at.next.is_none() && self.common.is_left_out::<Spec>(at.stream);
        let left_out = || Verdict::Absent("left out, because the token lacks its scope".to_owned());
        let failure = |code, what: &str| got.failure(code, what);
        match got.status {
            200 => {}
            // Read as a list of deletions that cannot be had.
            403 | 404 if is_deletions => return Verdict::Read,
            402 => return Verdict::Fail(failure(Code::CredentialsRejected, "the shop is frozen")),
            423 => return Verdict::Fail(failure(Code::CredentialsRejected, "the shop is locked")),
            403 if is_left_out() => return left_out(),
            403 => {
                let what = "the token may not read this stream";
                return Verdict::Fail(failure(Code::PermissionMissing, what));
            }
            404 => {
                let what = "the shop does not exist, or the token lacks a scope";
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
        } else if (bulk.is_some() || is_deletions) && !has("INTERNAL_SERVER_ERROR") {
            // Read as one that cannot be had.
            Verdict::Read
        } else if self.can_be_read_without(at, got, errors, &next) {
            Verdict::Read
        } else if has("ACCESS_DENIED") && is_left_out() {
            Verdict::Absent(format!("left out, because {}", lacks(&scopes(errors))))
        } else if has("ACCESS_DENIED") {
            let what = match scopes(errors).join(", ") {
                none if none.is_empty() => "the token lacks the scope of this stream".to_owned(),
                scopes => format!("the token lacks the scope of this stream: {scopes}"),
            };
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
        let root = root_of(spec, &next);
        let without = around.get("errors").and_then(|errors| denied(errors, root));
        if next.step == Step::Deletions && !costs_too_much {
            return deletions::page(at, got, spec, next);
        }
        let mut page = match (next.rest.is_empty(), &without) {
            _ if costs_too_much => with_fewer_nodes(at, spec, next)?,
            // All that needs the field is empty: the same again, without it.
            (_, Some(denied)) if answer::root(got, root).is_ok_and(|root| root.is_none()) => {
                next.without.extend(denied.fields.iter().cloned());
                reading::step(at, Some(next))?
            }
            (false, _) if spec.rest.is_some() => self.rest(at, got, spec, next)?,
            _ => self.nodes(at, got, spec, next)?,
        };
        page.warning = without.map(|denied| denied.warning(&at.stream.name));
        let version = got.header("x-shopify-api-version");
        if let Some(version) =
            version.filter(|version| at.next.is_none() && *version != self.version)
        {
            // The header's text is not repeated: it is the vendor's.
            let is_plain =
                version.len() <= 10 && version.chars().all(|c| c.is_ascii_digit() || c == '-');
            let version = if is_plain { version } else { "another version" };
            let version = format!(
                "Shopify answered with API version {version}; it no longer supports {}",
                self.version
            );
            page.warning = Some(match page.warning {
                Some(warning) => format!("{warning}; {version}"),
                None => version,
            });
        }
        Ok(page)
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
