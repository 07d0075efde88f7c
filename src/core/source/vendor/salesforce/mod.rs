//! `salesforce`: any object, by SOQL over everything that changed, deleted rows included.
//!
//! What an org's objects have differs, and asking for a field that is not there is an error: a pass describes its
//! object first. It then asks for what changed within its window in the order of the stamp, and goes on where the
//! vendor's locator leads; one that is over costs nothing but asking again from the last stored stamp. An object of many
//! fields is read in parts ([`wide`]). A first pass or a refresh ends with a list of all rows ([`listing`]).

mod describe;
mod listing;
mod login;
mod objects;
mod wide;

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use self::login::SalesforceLogin;
use self::objects::{OBJECTS, Object, objects};
use self::wide::Wide;
use crate::error::{Code, Failure};
use crate::record::{Count, Page};
use crate::source::common::Common;
use crate::source::reading::{self, Shape, strange};
use crate::source::request::{below, verdict_by_status, with_query};
use crate::source::settings::{PACE, START_DATE, Settings, wrong};
use crate::source::{
    About, Account, Definition, Field, Login, Position, Reader, Request, Response, Source, Stream,
    StreamAbout, Usage, Verdict,
};
use crate::template::parse_any;

pub struct Salesforce;

const VERSION: &str = "v64.0";

/// Share of the org's calls in 24 hours beyond which nothing is asked: its other integrations need theirs.
const BUDGET: f64 = 0.8;

/// How long a used-up budget is left to recover. It rolls over 24 hours, so some of it comes back any time.
const REST: Duration = Duration::from_secs(60 * 60);

const CREDENTIALS: &[Field] = &[
    Field {
        name: "client_id",
        meaning: "consumer key of the external client app; with client_secret and domain, for the client credentials grant",
    },
    Field {
        name: "client_secret",
        meaning: "consumer secret of the app",
    },
    Field {
        name: "private_key",
        meaning: "RSA key in PEM; with client_id and username, for the JWT bearer grant",
    },
    Field {
        name: "refresh_token",
        meaning: "refresh token; with client_id and client_secret; a replacement is stored, sealed",
    },
    Field {
        name: "username",
        meaning: "user name, for the JWT bearer grant and the legacy login",
    },
    Field {
        name: "password",
        meaning: "password; with username, for the legacy SOAP login, which Salesforce ends on 2027-06-01",
    },
    Field {
        name: "security_token",
        meaning: "security token of the user; with password, unless Salesforce allows the server's address",
    },
];

const CONFIG: &[Field] = &[
    Field {
        name: "domain",
        meaning: "the org's My Domain: acme for acme.my.salesforce.com; needed for the client credentials grant",
    },
    Field {
        name: "sandbox",
        meaning: "true to log in at test.salesforce.com",
    },
    Field {
        name: "streams",
        meaning: "list of streams or objects: \"accounts\", \"Invoice__c\", or {\"object\": ..., \"fields\": [...]}",
    },
    START_DATE,
    PACE,
    Field {
        name: "api_version",
        meaning: "API version, such as v64.0",
    },
    Field {
        name: "api_budget",
        meaning: "share of the org's API calls in 24 hours that may be used before syncs pause, from 0.01 to 1; default: 0.8",
    },
    Field {
        name: "base_url",
        meaning: "URL to log in at; default: Salesforce's own",
    },
];

impl Source for Salesforce {
    fn name(&self) -> &'static str {
        "salesforce"
    }

    fn about(&self) -> About {
        About {
            kind: "customer relations",
            streams: OBJECTS
                .iter()
                .map(|(name, object)| StreamAbout {
                    name,
                    default: *object == "Opportunity",
                })
                .collect(),
            credentials: CREDENTIALS,
            config: CONFIG,
            frequency: "hourly",
        }
    }

    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        let settings = Settings::new(connector, CONFIG)?;
        let objects = objects(&settings)?;
        let since = settings.since(TimeDelta::minutes(10), parse_any)?;
        let version = settings.text("api_version")?.unwrap_or(VERSION);
        let version = format!("v{}", version.trim_start_matches('v'));
        if !version
            .chars()
            .skip(1)
            .all(|c| c.is_ascii_digit() || c == '.')
        {
            return Err(wrong("config's \"api_version\" has to look like v64.0"));
        }
        let budget = settings.number("api_budget", 0.01, 1.0)?.unwrap_or(BUDGET);
        let login = SalesforceLogin::read(&settings)?;
        let account = Account {
            name: login.account(),
            every: Duration::from_millis(100),
            burst: 10,
        };
        let streams = objects.iter().map(|object| Stream {
            name: object.stream.clone(),
            ordered: true,
            whole: false,
        });
        Ok(Box::new(SalesforceReader {
            common: Common::new(&settings, streams.collect(), since, account)?,
            objects,
            version,
            budget,
            login,
        }))
    }
}

struct SalesforceReader {
    objects: Vec<Object>,
    common: Common,
    version: String,
    budget: f64,
    login: SalesforceLogin,
}

/// How a pass continues.
#[derive(Default, Serialize, Deserialize)]
struct Next {
    /// What to select; `None`: the object is described first.
    fields: Option<Vec<String>>,
    /// The field of the stamp.
    stamp: Option<String>,
    /// The vendor's locator.
    more: Option<String>,
    /// How many rows the query has, and how many came.
    total: u64,
    read: u64,
    #[serde(default)]
    step: Step,
    /// Whether all rows are listed at the end.
    #[serde(default)]
    lists: bool,
    /// Whether the object says which of its rows are deleted.
    #[serde(default)]
    has_deleted: bool,
    /// Where one query cannot name all fields.
    #[serde(default)]
    wide: Option<Wide>,
    /// Whether the query has come to its end.
    #[serde(default)]
    ended: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    #[default]
    Changes,
    Listing,
}

impl SalesforceReader {
    fn object(&self, stream: &Stream) -> Result<&Object, Failure> {
        self.objects
            .iter()
            .find(|object| object.stream == stream.name)
            .ok_or_else(|| Failure::new(Code::Internal, "no such stream"))
    }

    /// Where the org is. Before the login it is not known, and nothing is asked there.
    fn base(&self, at: &Position) -> Result<Url, Failure> {
        let base = at.access.and_then(|access| access.base.clone());
        base.map_or_else(
            || crate::source::api::join("https://login.salesforce.com", ""),
            Ok,
        )
    }

    fn query(
        &self,
        at: &Position,
        object: &str,
        fields: &[String],
        stamp: Option<&str>,
        span: Option<(DateTime<Utc>, DateTime<Utc>)>,
    ) -> Result<Url, Failure> {
        let moment = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut soql = format!("SELECT {} FROM {object}", fields.join(","));
        if let Some(stamp) = stamp {
            let (from, to) = span.unwrap_or((at.window.from.unwrap_or_default(), at.window.to));
            let (from, to) = (moment(from), moment(to));
            soql += &format!(
                " WHERE {stamp} >= {from} AND {stamp} < {to} ORDER BY {stamp} ASC, Id ASC"
            );
        }
        let path = ["services", "data", &self.version, "queryAll"];
        Ok(with_query(below(&self.base(at)?, &path), &[("q", &soql)]))
    }

    /// Where a query goes on, how many rows it has, and whether that is all of it.
    fn continuation(&self, got: &Response) -> Result<(Option<String>, u64, bool), Failure> {
        let around = reading::around(got, "records");
        let done = around.get("done").and_then(Value::as_bool);
        let done =
            done.ok_or_else(|| strange("the response does not say whether the query is done"))?;
        let total = around.get("totalSize").and_then(Value::as_u64);
        let total = total
            .ok_or_else(|| strange("the response does not say how many rows the query has"))?;
        let more = around.get("nextRecordsUrl").and_then(Value::as_str);
        match more.filter(|_| !done) {
            // A path of the org's, and nothing that leads elsewhere.
            Some(more) if more.starts_with("/services/data/") => {
                Ok((Some(more.to_owned()), total, done))
            }
            None if done => Ok((None, total, done)),
            _ => Err(strange(
                "the response has more pages, but no address of the next one",
            )),
        }
    }

    /// The rows of a list, the rest of the query, or the list of all rows.
    fn goes_on(&self, at: &Position, next: Next) -> Option<Next> {
        if !next.ended || next.wide.as_ref().is_some_and(Wide::is_reading) {
            return Some(next);
        }
        (next.lists && at.start.span.is_none()).then(|| Next {
            step: Step::Listing,
            stamp: next.stamp,
            has_deleted: next.has_deleted,
            ..Next::default()
        })
    }
}

impl Reader for SalesforceReader {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    fn request(&self, at: &Position) -> Result<Request, Failure> {
        let object = self.object(at.stream)?;
        let next: Next = reading::next(at)?;
        let base = self.base(at)?;
        let reads_rows = next.wide.as_ref().filter(|wide| wide.is_reading());
        let url = if let Some(wide) = reads_rows {
            self.wide_url(at, &object.name, wide)?
        } else if let Some(more) = &next.more {
            base.join(more)
                .map_err(|_| strange("the address of the next page cannot be read"))?
        } else if next.step == Step::Listing {
            self.listing_url(at, &object.name, &next)?
        } else if let Some(fields) = &next.fields {
            self.query(at, &object.name, fields, next.stamp.as_deref(), None)?
        } else {
            let path = [
                "services",
                "data",
                &self.version,
                "sobjects",
                &object.name,
                "describe",
            ];
            below(&base, &path)
        };
        Ok(Request::get(url).bearer(at.token()))
    }

    fn login(&self) -> Option<&dyn Login> {
        Some(&self.login)
    }

    fn verdict(&self, at: &Position, got: &Response) -> Verdict {
        let problem = reading::problem(got);
        let is_listing = || {
            let next: Next = reading::next(at).unwrap_or_default();
            next.step == Step::Listing
        };
        let code = reading::text(&problem, "/0/errorCode");
        let failure = |code, what: String| got.failure(code, what);
        match (got.status, code) {
            (403 | 503, "REQUEST_LIMIT_EXCEEDED") => Verdict::Retry(
                failure(
                    Code::RateLimited,
                    "the org has used up its API calls, or too many run at once".into(),
                )
                .after(Some(Duration::from_secs(15 * 60))),
            ),
            (400, "INVALID_QUERY_LOCATOR") => Verdict::Expired(failure(
                Code::RequestRefused,
                "the query cursor has expired".into(),
            )),
            (400 | 403 | 404, _) if is_listing() => Verdict::Absent(
                "rows that were deleted for good are not looked for: Salesforce refused the list of all rows".to_owned(),
            ),
            (400, "INVALID_FIELD" | "MALFORMED_QUERY") => Verdict::Fail(failure(
                Code::RequestRefused,
                "the query names a field that does not exist or that this user may not see".into(),
            )),
            (400 | 404, "INVALID_TYPE" | "NOT_FOUND") => Verdict::Fail(failure(
                Code::NotFound,
                "the object does not exist, or this user may not see it".into(),
            )),
            (404 | 410, "UNSUPPORTED_API_VERSION") => Verdict::Fail(failure(
                Code::RequestRefused,
                format!(
                    "Salesforce has ended API version {}; change config's \"api_version\"",
                    self.version
                ),
            )),
            (403, _) => Verdict::Fail(failure(
                Code::PermissionMissing,
                "this user may not read the object; check \"API Enabled\" and the object's permissions".into(),
            )),
            (406 | 420, "") => Verdict::Retry(failure(Code::ServerError, "Salesforce asks for a retry".into())),
            _ => verdict_by_status(got),
        }
    }

    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let next: Next = reading::next(at)?;
        if next.step == Step::Listing {
            return self.listed(at, got, next);
        }
        if next.fields.is_none() && next.more.is_none() && next.wide.is_none() {
            return self.described(at, got);
        }
        if next.wide.as_ref().is_some_and(Wide::is_reading) {
            return self.wide_rows(at, got, next);
        }
        let stamp = next.stamp.as_deref().unwrap_or_default();
        let shape = Shape {
            path: "records",
            key: &["Id"],
            stamp,
            gone: Some(("IsDeleted", "true")),
        };
        let found = self.common.read(at, got, &shape)?;
        let (more, total, done) = self.continuation(got)?;
        let came = found.records.len() + found.rejected.len() + found.deleted.len();
        let read = next.read + came as u64;
        // Of the first page: a locator's own count may be of what is left.
        let total = if next.more.is_none() {
            total
        } else {
            next.total
        };
        let high = self.common.high(at, &found.cursors);
        let mut goes_on = Next {
            more,
            total,
            read,
            fields: None,
            ended: done,
            ..next
        };
        let mut page = reading::page(found, None::<Next>, high)?;
        self.wide_list(got, &mut goes_on, &mut page)?;
        page.count = done.then_some(Count {
            vendor: total,
            read,
        });
        page.next = self
            .goes_on(at, goes_on)
            .as_ref()
            .map(reading::token)
            .transpose()?;
        Ok(page)
    }

    fn usage(&self, got: &Response) -> Usage {
        let used = || {
            let info = got.header("sforce-limit-info")?;
            let pair = info
                .split(';')
                .find_map(|part| part.trim().strip_prefix("api-usage="))?;
            let (used, total) = pair.split_once('/')?;
            Some((
                used.trim().parse::<u64>().ok()?,
                total.trim().parse::<u64>().ok()?,
            ))
        };
        let used = used();
        let over =
            used.filter(|(used, total)| *total > 0 && *used as f64 >= self.budget * *total as f64);
        Usage {
            used,
            rest: over.map(|(used, total)| {
                let share = (self.budget * 100.0).round();
                (REST, format!("{used} of the org's {total} API calls in 24 hours are used; the budget is {share} %"))
            }),
        }
    }
}
