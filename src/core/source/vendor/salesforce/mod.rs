//! `salesforce`: any object, by SOQL over everything that changed, deleted rows included.
//!
//! What an org's objects have differs, and asking for a field that is not there is an error: a pass describes its
//! object first. It then asks for what changed within its window in the order of the stamp, and goes on where the
//! vendor's locator leads; one that is over costs nothing but asking again from the last stored stamp.

mod login;

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use self::login::SalesforceLogin;
use crate::error::{Code, Failure};
use crate::json::RecordLimits;
use crate::record::{Count, Page, Window};
use crate::source::reading::{self, Shape, strange};
use crate::source::request::{below, verdict_by_status};
use crate::source::settings::{PACE, START_DATE, Settings, wrong};
use crate::source::window::{Since, highest};
use crate::source::{
    About, Account, Definition, Field, Login, Position, Reader, Request, Response, Source, Start,
    Stream, StreamAbout, Usage, Verdict,
};
use crate::template::parse_any;

pub struct Salesforce;

/// Streams that have a name of their own, and their objects.
const OBJECTS: &[(&str, &str)] = &[
    ("opportunities", "Opportunity"),
    ("opportunity_line_items", "OpportunityLineItem"),
    ("orders", "Order"),
    ("order_items", "OrderItem"),
    ("products", "Product2"),
    ("pricebook_entries", "PricebookEntry"),
    ("accounts", "Account"),
    ("contacts", "Contact"),
    ("users", "User"),
    ("contracts", "Contract"),
    ("assets", "Asset"),
    ("cases", "Case"),
];

/// The fields that tell of a change, the best first.
const STAMPS: [&str; 4] = [
    "SystemModstamp",
    "LastModifiedDate",
    "CreatedDate",
    "LoginTime",
];

/// Types whose parts are fields of their own, or that are no text.
const LEFT_OUT: [&str; 3] = ["address", "location", "base64"];

/// Longest address that is answered, with room for the host.
const LONGEST_URL: usize = 16_000;

const VERSION: &str = "v64.0";

/// Share of the org's calls in 24 hours beyond which nothing is asked: its other integrations need theirs.
const BUDGET: f64 = 0.8;

/// How long deleted rows stay in the recycle bin, where queryAll finds them.
const BIN_KEPT: TimeDelta = TimeDelta::days(15);

/// How long a used-up budget is left to recover. It rolls over 24 hours, so some of it comes back any time.
const REST: Duration = Duration::from_secs(60 * 60);

const CREDENTIALS: &[Field] = &[
    Field {
        name: "client_id",
        meaning: "consumer key of the external client app; with client_secret and domain: client credentials",
    },
    Field {
        name: "client_secret",
        meaning: "consumer secret of the app",
    },
    Field {
        name: "private_key",
        meaning: "RSA key in PEM, with client_id and username: JWT bearer",
    },
    Field {
        name: "refresh_token",
        meaning: "with client_id and client_secret: refresh token; one that is replaced is stored, sealed",
    },
    Field {
        name: "username",
        meaning: "of the user, for JWT bearer and the legacy login",
    },
    Field {
        name: "password",
        meaning: "with username: the legacy SOAP login, which Salesforce ends on 2027-06-01",
    },
    Field {
        name: "security_token",
        meaning: "with password, unless the server's address is allowed at Salesforce",
    },
];

const CONFIG: &[Field] = &[
    Field {
        name: "domain",
        meaning: "the org's My Domain: acme for acme.my.salesforce.com; client credentials need it",
    },
    Field {
        name: "sandbox",
        meaning: "true: log in at test.salesforce.com",
    },
    Field {
        name: "streams",
        meaning: "list of streams or objects: \"accounts\", \"Invoice__c\", or {\"object\": ..., \"fields\": [...]}",
    },
    START_DATE,
    PACE,
    Field {
        name: "api_version",
        meaning: "such as v64.0",
    },
    Field {
        name: "api_budget",
        meaning: "share of the org's calls in 24 hours beyond which nothing is asked, from 0.01 to 1; 0.8 where it is left out",
    },
    Field {
        name: "base_url",
        meaning: "another place to log in",
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
        let since = Since {
            start_date: settings.start_date()?,
            lookback: TimeDelta::minutes(10),
            read: parse_any,
        };
        let version = settings.text("api_version")?.unwrap_or(VERSION);
        let version = format!("v{}", version.trim_start_matches('v'));
        if !version
            .chars()
            .skip(1)
            .all(|c| c.is_ascii_digit() || c == '.')
        {
            return Err(wrong("config's \"api_version\" is not one such as v64.0"));
        }
        let budget = settings.number("api_budget", 0.01, 1.0)?.unwrap_or(BUDGET);
        let login = SalesforceLogin::read(&settings)?;
        Ok(Box::new(SalesforceReader {
            streams: objects
                .iter()
                .map(|object| Stream {
                    name: object.stream.clone(),
                    ordered: true,
                    whole: false,
                })
                .collect(),
            objects,
            since,
            version,
            budget,
            account: Account {
                name: login.account(),
                every: settings.pace(Duration::from_millis(100))?,
                burst: 10,
            },
            login,
            limits: connector.limits,
        }))
    }
}

/// One object that is read.
struct Object {
    stream: String,
    name: String,
    /// `None`: all there are.
    fields: Option<Vec<String>>,
}

fn objects(settings: &Settings) -> Result<Vec<Object>, Failure> {
    let Some(value) = settings.value("streams") else {
        return Ok(vec![object("opportunities", None)?]);
    };
    let wrong_list = || wrong("config's \"streams\" is not a list of streams and objects");
    let mut objects: Vec<Object> = Vec::new();
    for item in value.as_array().ok_or_else(wrong_list)? {
        let read = match item {
            Value::String(name) => object(name, None)?,
            Value::Object(fields) => {
                if let Some(key) = fields
                    .keys()
                    .find(|key| !matches!(key.as_str(), "object" | "fields"))
                {
                    return Err(wrong(format!(
                        "config's \"streams\" has the key \"{key}\"; known are object, fields"
                    )));
                }
                let name = fields.get("object").and_then(Value::as_str);
                object(name.ok_or_else(wrong_list)?, fields.get("fields"))?
            }
            _ => return Err(wrong_list()),
        };
        if objects.iter().any(|other| other.name == read.name) {
            return Err(wrong(format!(
                "config's \"streams\" names \"{}\" twice",
                read.name
            )));
        }
        objects.push(read);
    }
    if objects.is_empty() {
        return Err(wrong("config's \"streams\" is empty"));
    }
    Ok(objects)
}

/// A name that stands in a query must be nothing else than a name.
fn is_name(text: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.len() <= 80
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    text.split('.').all(is_word)
}

fn object(name: &str, fields: Option<&Value>) -> Result<Object, Failure> {
    let known = OBJECTS
        .iter()
        .find(|(stream, object)| *stream == name || *object == name);
    let (stream, object) = known.copied().unwrap_or((name, name));
    if !is_name(object) || object.contains('.') {
        return Err(wrong(format!(
            "\"{name}\" in config's \"streams\" is no object's name"
        )));
    }
    let fields = match fields.filter(|fields| !fields.is_null()) {
        None => None,
        Some(list) => {
            let names = list.as_array().map(|list| list.iter().map(Value::as_str));
            let names: Option<Vec<&str>> = names.and_then(Iterator::collect);
            let names =
                names.filter(|names| !names.is_empty() && names.iter().all(|name| is_name(name)));
            let names = names.ok_or_else(|| {
                wrong(format!("the \"fields\" of \"{name}\" in config's \"streams\" are no list of field names"))
            })?;
            Some(names.into_iter().map(str::to_owned).collect())
        }
    };
    Ok(Object {
        stream: stream.to_owned(),
        name: object.to_owned(),
        fields,
    })
}

struct SalesforceReader {
    streams: Vec<Stream>,
    objects: Vec<Object>,
    since: Since,
    version: String,
    budget: f64,
    account: Account,
    login: SalesforceLogin,
    limits: RecordLimits,
}

/// How a pass goes on.
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
}

#[derive(Deserialize)]
struct Described {
    name: String,
    queryable: bool,
    fields: Vec<DescribedField>,
}

#[derive(Deserialize)]
struct DescribedField {
    name: String,
    #[serde(rename = "type")]
    kind: String,
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

    fn query(&self, at: &Position, object: &Object, next: &Next) -> Result<Url, Failure> {
        let moment = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let fields = next.fields.as_deref().unwrap_or_default().join(",");
        let mut soql = format!("SELECT {fields} FROM {}", object.name);
        if let Some(stamp) = &next.stamp {
            let from = moment(at.window.from.unwrap_or_default());
            let to = moment(at.window.to);
            soql += &format!(
                " WHERE {stamp} >= {from} AND {stamp} < {to} ORDER BY {stamp} ASC, Id ASC"
            );
        }
        let path = ["services", "data", &self.version, "queryAll"];
        Ok(below(&self.base(at)?, &path, &[("q", &soql)]))
    }

    fn described(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let object = self.object(at.stream)?;
        let described: Described = reading::whole(got)?;
        if described.name != object.name || !described.queryable {
            let message = format!("object {} cannot be queried", object.name);
            return Err(Failure::new(Code::NotFound, message));
        }
        let exists = |name: &str| described.fields.iter().any(|field| field.name == name);
        let stamp = STAMPS.into_iter().find(|stamp| exists(stamp));
        let mut warnings = Vec::new();
        let mut fields: Vec<String> = match &object.fields {
            Some(fields) => {
                // What stands behind a dot is another object's, and not described here.
                let (there, missing): (Vec<_>, Vec<_>) = fields
                    .iter()
                    .cloned()
                    .partition(|name| name.contains('.') || exists(name));
                if !missing.is_empty() {
                    warnings.push(format!(
                        "{} has no {} that this user may see",
                        object.name,
                        missing.join(", ")
                    ));
                }
                there
            }
            None => described
                .fields
                .iter()
                .filter(|field| !LEFT_OUT.contains(&field.kind.as_str()))
                .map(|field| field.name.clone())
                .collect(),
        };
        let needed = ["Id"]
            .into_iter()
            .chain(stamp)
            .chain(exists("IsDeleted").then_some("IsDeleted"));
        let needed: Vec<String> = needed.map(str::to_owned).collect();
        fields.retain(|field| !needed.contains(field));
        let mut fields: Vec<String> = needed.into_iter().chain(fields).collect();
        if !fields.iter().all(|field| is_name(field)) {
            return Err(strange("the description names a field that is no name"));
        }
        let next = |fields: &[String]| Next {
            fields: Some(fields.to_vec()),
            stamp: stamp.map(str::to_owned),
            ..Next::default()
        };
        let before = fields.len();
        while fields.len() > 3
            && self.query(at, object, &next(&fields))?.as_str().len() > LONGEST_URL
        {
            fields.truncate(fields.len() - (fields.len() / 50).max(1));
        }
        if fields.len() < before {
            warnings.push(format!(
                "{} has more fields than one query can name; the last {} are left out. Name those that matter in config's \"streams\".",
                object.name,
                before - fields.len()
            ));
        }
        let reached = at.high.and_then(Value::as_str).and_then(parse_any);
        if at.start.is_later_than(BIN_KEPT, reached) {
            warnings.push("the last sync is longer ago than the recycle bin keeps what was deleted; what was deleted in between may still count".to_owned());
        }
        if self.login.is_legacy() {
            warnings.push("the login by user name and password is legacy, and Salesforce ends it on 2027-06-01; change to client credentials".to_owned());
        }
        Ok(Page {
            next: Some(reading::token(&next(&fields))?),
            high: at.high.cloned(),
            warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
            ..Page::default()
        })
    }
}

impl Reader for SalesforceReader {
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
        let object = self.object(at.stream)?;
        let next: Next = reading::next(at)?;
        let base = self.base(at)?;
        let url = if let Some(more) = &next.more {
            base.join(more)
                .map_err(|_| strange("the next page's address does not read"))?
        } else if next.fields.is_some() {
            self.query(at, object, &next)?
        } else {
            let path = [
                "services",
                "data",
                &self.version,
                "sobjects",
                &object.name,
                "describe",
            ];
            below(&base, &path, &[])
        };
        let request = Request::get(url);
        Ok(match at.access {
            Some(access) => request.bearer(&access.token),
            None => request,
        })
    }

    fn login(&self) -> Option<&dyn Login> {
        Some(&self.login)
    }

    fn verdict(&self, at: &Position, got: &Response) -> Verdict {
        let problem = reading::problem(got);
        let code = reading::text(&problem, "/0/errorCode");
        let failure =
            |code, message: String| Failure::new(code, format!("HTTP {} ({message})", got.status));
        let stream = &at.stream.name;
        match (got.status, code) {
            (403 | 503, "REQUEST_LIMIT_EXCEEDED") => Verdict::Retry(
                failure(
                    Code::RateLimited,
                    "the org's calls are used up, or too many run at once".into(),
                )
                .after(Some(Duration::from_secs(15 * 60))),
            ),
            (400, "INVALID_QUERY_LOCATOR") => Verdict::Expired(failure(
                Code::RequestRefused,
                "the query's place is over".into(),
            )),
            (400, "INVALID_FIELD" | "MALFORMED_QUERY") => Verdict::Fail(failure(
                Code::RequestRefused,
                format!(
                    "the query of {stream} names a field that is not there, or that this user may not see"
                ),
            )),
            (400 | 404, "INVALID_TYPE" | "NOT_FOUND") => Verdict::Fail(failure(
                Code::NotFound,
                format!("there is no object for {stream}, or this user may not see it"),
            )),
            (404 | 410, "UNSUPPORTED_API_VERSION") => Verdict::Fail(failure(
                Code::RequestRefused,
                format!(
                    "API version {} has ended; see config's \"api_version\"",
                    self.version
                ),
            )),
            (403, _) => Verdict::Fail(failure(
                Code::PermissionMissing,
                format!(
                    "this user may not read {stream}; see API Enabled and the object's permissions"
                ),
            )),
            (406 | 420, "") => Verdict::Retry(failure(Code::ServerError, "try again".into())),
            _ => verdict_by_status(got),
        }
    }

    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let next: Next = reading::next(at)?;
        if next.fields.is_none() && next.more.is_none() {
            return self.described(at, got);
        }
        let stamp = next.stamp.as_deref().unwrap_or_default();
        let shape = Shape {
            path: "records",
            key: &["Id"],
            stamp,
            gone: Some(("IsDeleted", "true")),
        };
        let found = reading::read(&at.stream.name, got, &shape, self.limits)?;
        let around = reading::around(got, "records");
        let done = around.get("done").and_then(Value::as_bool);
        let done =
            done.ok_or_else(|| strange("the page does not say whether the query is done"))?;
        let total = around.get("totalSize").and_then(Value::as_u64);
        let total =
            total.ok_or_else(|| strange("the page does not say how many rows the query has"))?;
        let came = found.records.len() + found.rejected.len() + found.deleted.len();
        let read = next.read + came as u64;
        // Of the first page: a locator's own count may be of what is left.
        let total = if next.more.is_none() {
            total
        } else {
            next.total
        };
        let (high, _) = highest(at.high, &found.cursors, at.window.to, parse_any);
        let more = around.get("nextRecordsUrl").and_then(Value::as_str);
        let goes_on = match more.filter(|_| !done) {
            // A path of the org's, and nothing that leads elsewhere.
            Some(more) if more.starts_with("/services/data/") => Some(Next {
                more: Some(more.to_owned()),
                stamp: next.stamp,
                total,
                read,
                fields: None,
            }),
            None if done => None,
            _ => return Err(strange("the page goes on, and does not say where")),
        };
        Ok(Page {
            count: goes_on.is_none().then_some(Count {
                vendor: total,
                read,
            }),
            next: goes_on.as_ref().map(reading::token).transpose()?,
            records: found.records,
            rejected: found.rejected,
            deleted: found.deleted,
            high,
            ..Page::default()
        })
    }

    fn account(&self) -> Option<&Account> {
        Some(&self.account)
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
                (REST, format!("{used} of the org's {total} calls in 24 hours are used, and the budget is {share} %"))
            }),
        }
    }
}
