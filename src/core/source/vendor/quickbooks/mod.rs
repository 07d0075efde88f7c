//! `quickbooks`: the query endpoint of QuickBooks Online, and change data capture for what was deleted.
//!
//! Queries page by offset over a set that moves while it is read. So a pass asks for what was changed from a moment
//! on, oldest first, and each page begins again at the stamp that the page before ended with: an edit moves a record
//! behind everything, and the place of the others does not matter. Only where more records than a page share one
//! second the offset counts, and then pages overlap by half.

mod webhook;

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::error::{Code, Failure};
use crate::json::RecordLimits;
use crate::record::{Count, Page, Window};
use crate::secret::Secret;
use crate::source::hook::Hook;
use crate::source::reading::{self, Shape, strange};
use crate::source::request::{below, verdict_by_status};
use crate::source::settings::{PACE, START_DATE, STREAMS, Settings, missing};
use crate::source::table::{Row, about, row};
use crate::source::token::{self, USUAL};
use crate::source::window::{Since, highest};
use crate::source::{
    About, Account, Definition, Field, Grant, Login, Position, Reader, Request, Response, Source,
    Start, Stream, StreamAbout, Verdict,
};
use crate::template::parse_any;

pub struct QuickBooks;

/// Everything that is known of a stream.
struct Spec {
    about: StreamAbout,
    entity: &'static str,
    /// Whether rows that are not active are left out unless asked for.
    named: bool,
    /// Read whole: a sale changes what is on hand, and may not move the stamp.
    whole: bool,
    /// Whether change data capture tells what was deleted.
    capture: bool,
}

const fn spec(name: &'static str, entity: &'static str, default: bool) -> Spec {
    Spec {
        about: StreamAbout { name, default },
        entity,
        named: false,
        whole: false,
        capture: true,
    }
}

const SPECS: &[Spec] = &[
    spec("invoices", "Invoice", true),
    spec("sales_receipts", "SalesReceipt", true),
    spec("credit_memos", "CreditMemo", true),
    spec("refund_receipts", "RefundReceipt", true),
    spec("bills", "Bill", true),
    spec("purchases", "Purchase", true),
    spec("vendor_credits", "VendorCredit", true),
    Spec {
        named: true,
        whole: true,
        ..spec("items", "Item", true)
    },
    Spec {
        capture: false,
        ..spec("time_activities", "TimeActivity", true)
    },
    spec("payments", "Payment", false),
    spec("bill_payments", "BillPayment", false),
    spec("deposits", "Deposit", false),
    spec("journal_entries", "JournalEntry", false),
    Spec {
        named: true,
        ..spec("accounts", "Account", false)
    },
    Spec {
        named: true,
        ..spec("customers", "Customer", false)
    },
    Spec {
        named: true,
        ..spec("employees", "Employee", false)
    },
    Spec {
        named: true,
        ..spec("vendors", "Vendor", false)
    },
];

/// Lower ones are ignored by the vendor.
const MINOR_VERSION: &str = "75";

/// Most records of one query.
const PAGE: usize = 1_000;

/// Ids of one second that are remembered, so that no record is counted twice. More: a longer token with every page.
const MOST_KNOWN: usize = 10_000;

/// What is later than this before a pass began may still come to light, and is not counted: the next pass reads it.
const LOOKBACK: TimeDelta = TimeDelta::minutes(5);

/// Most objects of one answer of change data capture, which has no pages.
const CAPTURED: usize = 1_000;

/// How far back change data capture goes, less an hour.
const CAPTURE_KEPT: TimeDelta = TimeDelta::hours(30 * 24 - 1);

impl Row for Spec {
    const ROWS: &'static [Spec] = SPECS;

    fn about(&self) -> StreamAbout {
        self.about
    }

    fn ordered(&self) -> bool {
        true
    }

    fn whole(&self) -> bool {
        self.whole
    }
}

/// Names of the company's id.
const REALM: &[&str] = &["realm_id", "realmId", "company_id"];

const CREDENTIALS: &[Field] = &[
    Field {
        name: "client_id",
        meaning: "of the app",
    },
    Field {
        name: "client_secret",
        meaning: "of the app",
    },
    Field {
        name: "refresh_token",
        meaning: "of the company's consent; each one that replaces it is stored, sealed, before it is used",
    },
    Field {
        name: "realm_id",
        meaning: "the company's id, from the redirect that brought the consent",
    },
    Field {
        name: "webhook_verifier",
        meaning: "verifier token of the app's webhooks, where they are pushed here; a list of both while it is replaced",
    },
];

const CONFIG: &[Field] = &[
    STREAMS,
    START_DATE,
    PACE,
    Field {
        name: "realm_id",
        meaning: "the company's id, where it is not in credentials",
    },
    Field {
        name: "sandbox",
        meaning: "true: a sandbox company",
    },
    Field {
        name: "base_url",
        meaning: "another place than https://quickbooks.api.intuit.com",
    },
    Field {
        name: "token_url",
        meaning: "another place than https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
    },
];

impl Source for QuickBooks {
    fn name(&self) -> &'static str {
        "quickbooks"
    }

    fn about(&self) -> About {
        about::<Spec>("accounting", CREDENTIALS, CONFIG)
    }

    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        let settings = Settings::new(connector, CONFIG)?;
        let streams = settings.streams::<Spec>()?;
        let base = settings.base(match settings.truth("sandbox")? {
            true => "https://sandbox-quickbooks.api.intuit.com",
            false => "https://quickbooks.api.intuit.com",
        })?;
        let token_url = settings.url("token_url")?;
        let usual = "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer";
        let realm = settings.place(REALM)?;
        let since = Since {
            start_date: settings.start_date()?,
            lookback: LOOKBACK,
            read: parse_any,
        };
        let login = OAuth {
            url: token_url.map_or_else(|| crate::source::api::join(usual, ""), Ok)?,
            client_id: settings.need(&["client_id"])?,
            client_secret: settings.need(&["client_secret"])?,
            refresh: settings.need(&["refresh_token"])?,
        };
        let realm = realm.ok_or_else(|| missing("realm_id"))?;
        Ok(Box::new(QuickBooksReader {
            streams,
            since,
            login,
            // 500 a minute for each company is the vendor's limit.
            account: Account {
                name: format!("quickbooks {realm}"),
                every: settings.pace(Duration::from_millis(130))?,
                burst: 10,
            },
            base: below(&base, &["v3", "company", &realm], &[]),
            limits: connector.limits,
        }))
    }

    fn hook(&self, connector: &Definition) -> Result<Option<Box<dyn Hook>>, Failure> {
        let settings = Settings::new(connector, CONFIG)?;
        webhook::open(connector, settings.place(REALM)?)
    }
}

struct QuickBooksReader {
    streams: Vec<Stream>,
    /// The company's.
    base: Url,
    since: Since,
    login: OAuth,
    account: Account,
    limits: RecordLimits,
}

/// How a pass goes on.
#[derive(Default, Serialize, Deserialize)]
struct Next {
    step: Step,
    /// Whether an earlier pass has read the stream, so that something may be gone since.
    again: bool,
    /// Where the query begins; `None`: at the window's beginning.
    from: Option<DateTime<Utc>>,
    /// How many records of that moment are left out.
    skip: usize,
    /// Ids that the pages before brought of that moment: they come again.
    known: HashSet<String>,
    /// Different records of the pass so far that the vendor will count.
    read: u64,
}

#[derive(Default, Serialize, Deserialize)]
enum Step {
    #[default]
    Query,
    Count,
    Capture,
}

fn stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

impl Spec {
    /// What a query is about: from a moment on, up to another.
    fn conditions(&self, from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> String {
        let mut conditions = Vec::new();
        if self.named {
            conditions.push("Active IN (true, false)".to_owned());
        }
        if let Some(from) = from {
            conditions.push(format!("MetaData.LastUpdatedTime >= '{}'", stamp(from)));
        }
        if let Some(to) = to {
            conditions.push(format!("MetaData.LastUpdatedTime <= '{}'", stamp(to)));
        }
        match conditions.as_slice() {
            [] => String::new(),
            conditions => format!(" WHERE {}", conditions.join(" AND ")),
        }
    }
}

impl Reader for QuickBooksReader {
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
        let url = match next.step {
            Step::Capture => {
                let since = stamp(captured_since(at));
                let query = [
                    ("entities", spec.entity),
                    ("changedSince", since.as_str()),
                    ("minorversion", MINOR_VERSION),
                ];
                below(&self.base, &["cdc"], &query)
            }
            Step::Count => {
                let conditions = spec.conditions(at.window.from, Some(settled(at)));
                let query = format!("SELECT COUNT(*) FROM {}{conditions}", spec.entity);
                let query = [("query", query.as_str()), ("minorversion", MINOR_VERSION)];
                below(&self.base, &["query"], &query)
            }
            Step::Query => {
                let to = (!spec.whole).then_some(at.window.to);
                let conditions = spec.conditions(next.from.or(at.window.from), to);
                let query = format!(
                    "SELECT * FROM {}{conditions} ORDERBY MetaData.LastUpdatedTime ASC STARTPOSITION {} MAXRESULTS {PAGE}",
                    spec.entity,
                    next.skip + 1
                );
                let query = [("query", query.as_str()), ("minorversion", MINOR_VERSION)];
                below(&self.base, &["query"], &query)
            }
        };
        // Without it the answer is XML.
        let request = Request::get(url).header("Accept", "application/json");
        Ok(match at.access {
            Some(access) => request.bearer(&access.token),
            None => request,
        })
    }

    fn login(&self) -> Option<&dyn Login> {
        Some(&self.login)
    }

    fn verdict(&self, at: &Position, got: &Response) -> Verdict {
        let fail = |code, message: &str| {
            Verdict::Fail(Failure::new(
                code,
                format!("HTTP {} ({message})", got.status),
            ))
        };
        let fault = || fault_code(&reading::problem(got));
        match got.status {
            403 if fault().as_deref() == Some("3100") => fail(
                Code::CredentialsRejected,
                "the token is of another company, or of the other environment: see realm_id and sandbox",
            ),
            403 => fail(
                Code::PermissionMissing,
                &format!("the consent does not cover {}", at.stream.name),
            ),
            // No Retry-After is promised.
            429 => match verdict_by_status(got) {
                Verdict::Retry(failure) => {
                    let wait = failure.retry_after.unwrap_or(Duration::from_secs(60));
                    Verdict::Retry(failure.after(Some(wait)))
                }
                other => other,
            },
            400 => match fault().as_deref() {
                Some("3200") => fail(Code::CredentialsRejected, "the token was refused"),
                Some("3001") => Verdict::Retry(
                    Failure::new(Code::RateLimited, "HTTP 400 (too many requests)")
                        .after(Some(Duration::from_secs(60))),
                ),
                _ => verdict_by_status(got),
            },
            _ => verdict_by_status(got),
        }
    }

    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let spec: &Spec = row(at.stream)?;
        let mut next: Next = reading::next(at)?;
        next.again |= at.next.is_none() && at.high.is_some();
        match next.step {
            Step::Query => self.queried(at, got, spec, next),
            Step::Count => counted(at, got, spec, next),
            Step::Capture => self.captured(at, got, spec),
        }
    }

    fn account(&self) -> Option<&Account> {
        Some(&self.account)
    }
}

/// The code of a fault, without leading zeros; the gateway writes its own in lower case.
fn fault_code(body: &Value) -> Option<String> {
    let fault = body.get("Fault").or_else(|| body.get("fault"))?;
    let errors = fault.get("Error").or_else(|| fault.get("error"))?;
    let code = errors.get(0)?.get("code")?;
    let code = code
        .as_str()
        .map_or_else(|| code.to_string(), str::to_owned);
    Some(code.trim_start_matches('0').to_owned())
}

/// A fault may come with 200.
fn check(around: &serde_json::Map<String, Value>) -> Result<(), Failure> {
    if around.contains_key("Fault") || around.contains_key("fault") {
        return Err(strange("the answer is a fault of QuickBooks'"));
    }
    Ok(())
}

/// Up to where the vendor's count and what came are compared.
fn settled(at: &Position) -> DateTime<Utc> {
    at.window.to - LOOKBACK
}

fn captured_since(at: &Position) -> DateTime<Utc> {
    let from = at.window.from.unwrap_or_default();
    from.max(at.start.now - CAPTURE_KEPT)
}

impl QuickBooksReader {
    fn queried(
        &self,
        at: &Position,
        got: &Response,
        spec: &Spec,
        next: Next,
    ) -> Result<Page, Failure> {
        check(&reading::around(got, "QueryResponse"))?;
        let shape = Shape {
            path: &format!("QueryResponse.{}", spec.entity),
            key: &["Id"],
            stamp: "MetaData.LastUpdatedTime",
            ..Shape::default()
        };
        let found = match reading::read(&at.stream.name, got, &shape, self.limits) {
            // "Nothing found" is an empty object.
            Err(failure) if failure.code == Code::UnexpectedShape => {
                is_empty_query(got)?;
                Default::default()
            }
            found => found?,
        };
        // The window's end is in whole seconds, and so are the stamps.
        let (high, any_read) = highest(at.high, &found.cursors, at.window.to, parse_any);
        let came = found.records.len() + found.rejected.len();
        if came > 0 && !any_read {
            return Err(strange("no record has a MetaData.LastUpdatedTime"));
        }
        let is_fresh = |id: &str| !next.known.contains(id);
        let stamped = || {
            found
                .records
                .iter()
                .zip(found.cursors.iter().map(|text| parse_any(text)))
        };
        let counts = |stamp: Option<DateTime<Utc>>| stamp.is_some_and(|stamp| stamp <= settled(at));
        let counted = stamped().filter(|(record, stamp)| is_fresh(&record.id) && counts(*stamp));
        let read = next.read + (counted.count() + found.rejected.len()) as u64;
        let is_stuck = came > 0
            && next.skip > 2 * next.known.len() + PAGE
            && !found.records.iter().any(|record| is_fresh(&record.id));
        if is_stuck {
            let message = "STARTPOSITION is not heeded: the same records come again and again";
            return Err(Failure::new(Code::RepeatedPage, message));
        }
        let last = found
            .cursors
            .iter()
            .filter_map(|text| parse_any(text))
            .max();
        let next = match last {
            None => Next {
                step: Step::Count,
                again: next.again,
                read,
                ..Next::default()
            },
            Some(last) => {
                let first = found
                    .cursors
                    .iter()
                    .filter_map(|text| parse_any(text))
                    .min();
                let stays = next.from == Some(last) || first == Some(last);
                let of_last = stamped()
                    .filter(|(_, stamp)| *stamp == Some(last))
                    .map(|(record, _)| record.id.clone());
                let mut known: HashSet<String> = of_last.collect();
                if stays {
                    known.extend(next.known);
                }
                if known.len() > MOST_KNOWN {
                    // Counted twice from here on: too many are no reason for an alert.
                    known.clear();
                }
                let skipped = if next.from == Some(last) {
                    next.skip
                } else {
                    0
                };
                Next {
                    step: Step::Query,
                    again: next.again,
                    from: Some(last),
                    // A page may be shorter than asked for without being the last: only an empty one is.
                    skip: if stays { skipped + came.div_ceil(2) } else { 0 },
                    known,
                    read,
                }
            }
        };
        Ok(Page {
            next: Some(reading::token(&next)?),
            records: found.records,
            rejected: found.rejected,
            // One that enters a second pushes those behind it into the next page.
            overlaps: true,
            high,
            ..Page::default()
        })
    }

    /// What was deleted since the last pass. The records that changed have been queried.
    fn captured(&self, at: &Position, got: &Response, spec: &Spec) -> Result<Page, Failure> {
        check(&reading::around(got, "CDCResponse"))?;
        let shape = Shape {
            path: &format!("CDCResponse.*.QueryResponse.*.{}", spec.entity),
            key: &["Id"],
            gone: Some(("status", "\"Deleted\"")),
            ..Shape::default()
        };
        let found = match reading::read(&at.stream.name, got, &shape, self.limits) {
            Err(failure) if failure.code == Code::UnexpectedShape => {
                is_empty_capture(got)?;
                Default::default()
            }
            found => found?,
        };
        let came = found.records.len() + found.deleted.len();
        let warning = if came >= CAPTURED {
            Some(
                "QuickBooks reports at most 1000 changes at once, and there were more; what was deleted beyond them is not known. Sync oftener.",
            )
        } else if at.start.is_later_than(CAPTURE_KEPT, at.window.from) {
            Some(
                "QuickBooks reports deletions of the last 30 days, and the last sync is longer ago; what was deleted before is not known.",
            )
        } else {
            None
        };
        Ok(Page {
            deleted: found.deleted,
            high: at.high.cloned(),
            warning: warning.map(|text| format!("stream \"{}\": {text}", at.stream.name)),
            ..Page::default()
        })
    }
}

fn counted(at: &Position, got: &Response, spec: &Spec, next: Next) -> Result<Page, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "QueryResponse")]
        response: Counted,
    }
    #[derive(Deserialize)]
    struct Counted {
        #[serde(rename = "totalCount")]
        total: u64,
    }
    check(&reading::around(got, "QueryResponse"))?;
    let answer: Answer = reading::whole(got)?;
    let captures = spec.capture && !spec.whole && next.again;
    let goes_on = captures.then(|| Next {
        step: Step::Capture,
        ..Next::default()
    });
    Ok(Page {
        count: Some(Count {
            vendor: answer.response.total,
            read: next.read,
        }),
        next: goes_on.as_ref().map(reading::token).transpose()?,
        high: at.high.cloned(),
        ..Page::default()
    })
}

/// Nothing of the entity, and nothing else either that the answer could be.
fn is_empty_query(got: &Response) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "QueryResponse")]
        response: serde_json::Map<String, Value>,
    }
    let answer: Answer = reading::whole(got)?;
    match answer.response.values().any(Value::is_array) {
        true => Err(strange(
            "the answer is of another entity than was asked for",
        )),
        false => Ok(()),
    }
}

fn is_empty_capture(got: &Response) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "CDCResponse")]
        responses: Vec<Captured>,
    }
    #[derive(Deserialize)]
    struct Captured {
        #[serde(rename = "QueryResponse")]
        responses: Vec<serde_json::Map<String, Value>>,
    }
    let answer: Answer = reading::whole(got)?;
    let mut responses = answer
        .responses
        .iter()
        .flat_map(|captured| &captured.responses);
    match responses.any(|response| response.contains_key("Fault")) {
        true => Err(strange("the answer is a fault of QuickBooks'")),
        false => Ok(()),
    }
}

/// Tokens by refresh token.
struct OAuth {
    url: Url,
    client_id: Secret,
    client_secret: Secret,
    refresh: Secret,
}

impl Login for OAuth {
    fn request(&self, _start: Start, refresh: Option<&Secret>) -> Result<Request, Failure> {
        let token = refresh.unwrap_or(&self.refresh);
        let form = [
            ("grant_type", "refresh_token".into()),
            ("refresh_token", token.text()),
        ];
        let form: Vec<(&str, &str)> = form
            .iter()
            .map(|(name, text)| (*name, text.as_ref()))
            .collect();
        Ok(Request::post_form(self.url.clone(), &form)
            .basic(&self.client_id, &self.client_secret)
            .header("Accept", "application/json"))
    }

    fn granted(
        &self,
        _start: Start,
        refresh: Option<&Secret>,
        got: &Response,
    ) -> Result<Grant, Failure> {
        let sent = refresh.unwrap_or(&self.refresh);
        Ok(token::answer(got, &USUAL)?.grant(Some(sent), None))
    }
}
