//! `quickbooks`: the query endpoint of QuickBooks Online, and change data capture for what was deleted.
//!
//! Queries page by offset over a set that moves while it is read. So a pass asks for what was changed from a moment
//! on, oldest first, and each page begins again at the stamp that the page before ended with: an edit moves a record
//! behind everything, and the place of the others does not matter. Only where more records than a page share one
//! second the offset counts, and then pages overlap by half.

mod capture;
mod login;
mod query;
mod streams;
mod webhook;

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::error::{Code, Failure};
use crate::record::{Page, Window};
use crate::source::common::Common;
use crate::source::hook::Hook;
use crate::source::reading;
use crate::source::request::{below, verdict_by_status, with_query};
use crate::source::settings::{PACE, START_DATE, STREAMS, Settings, missing};
use crate::source::table::{about, row};
use crate::source::{
    About, Account, Definition, Field, Login, Part, Position, Reader, Request, Response, Source,
    Start, Stream, Verdict,
};
use crate::template::parse_any;
use capture::captured_since;
use login::OAuth;
use streams::{Spec, stamp};

pub struct QuickBooks;

/// Lower ones are ignored by the vendor.
const MINOR_VERSION: &str = "75";

/// The field that passes are cut by.
const STAMP: &str = "MetaData.LastUpdatedTime";

/// Most records of one query.
const PAGE: usize = 1_000;

/// Ids of one second that are remembered, so that no record is counted twice. More: a longer token with every page.
const MOST_KNOWN: usize = 10_000;

/// What is later than this before a pass began may still come to light, and is not counted: the next pass reads it.
const LOOKBACK: TimeDelta = TimeDelta::minutes(5);

/// Names of the company's id.
const REALM: &[&str] = &["realm_id", "realmId", "company_id"];

const CREDENTIALS: &[Field] = &[
    Field {
        name: "client_id",
        meaning: "client id of the app",
    },
    Field {
        name: "client_secret",
        meaning: "client secret of the app",
    },
    Field {
        name: "refresh_token",
        meaning: "refresh token of the company's consent; a replacement is stored, sealed, before it is used",
    },
    Field {
        name: "realm_id",
        meaning: "company id, from the redirect that followed the consent",
    },
    Field {
        name: "webhook_verifier",
        meaning: "verifier token of the app's webhooks, if they are pushed here; a list of both while it is rotated",
    },
];

const CONFIG: &[Field] = &[
    STREAMS,
    START_DATE,
    PACE,
    Field {
        name: "realm_id",
        meaning: "company id, if it is not in credentials",
    },
    Field {
        name: "sandbox",
        meaning: "true for a sandbox company",
    },
    Field {
        name: "base_url",
        meaning: "base URL; default: https://quickbooks.api.intuit.com",
    },
    Field {
        name: "token_url",
        meaning: "token URL; default: https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
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
        let since = settings.since(LOOKBACK, parse_any)?;
        let login = OAuth {
            url: token_url.map_or_else(|| crate::source::api::join(usual, ""), Ok)?,
            client_id: settings.need(&["client_id"])?,
            client_secret: settings.need(&["client_secret"])?,
            refresh: settings.need(&["refresh_token"])?,
        };
        let realm = realm.ok_or_else(|| missing("realm_id"))?;
        // 500 a minute for each company is the vendor's limit.
        let account = Account {
            name: format!("quickbooks {realm}"),
            every: Duration::from_millis(130),
            burst: 10,
        };
        Ok(Box::new(QuickBooksReader {
            common: Common::new(&settings, streams, since, account)?,
            base: below(&base, &["v3", "company", &realm]),
            login,
        }))
    }

    fn hook(&self, connector: &Definition) -> Result<Option<Box<dyn Hook>>, Failure> {
        let settings = Settings::new(connector, CONFIG)?;
        webhook::open(connector, settings.place(REALM)?)
    }
}

struct QuickBooksReader {
    /// The company's.
    base: Url,
    common: Common,
    login: OAuth,
}

/// How a pass continues.
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

impl Reader for QuickBooksReader {
    fn common(&self) -> Option<&Common> {
        Some(&self.common)
    }

    /// What others refer to is read whole at first: it is needed however old it is.
    fn window(
        &self,
        stream: &Stream,
        cursor: Option<&Value>,
        start: Start,
    ) -> Result<Window, Failure> {
        let spec: &Spec = row(stream)?;
        let mut window = self.common.since.window(stream, cursor, start);
        if spec.named && !spec.whole && cursor.is_none() {
            window.from = self.common.since.start_date;
        }
        Ok(window)
    }

    /// A first pass, or one after connector_service_refresh(), shows all that was changed since its beginning. Stamps are of
    /// different zones, so that their texts are compared from two days later on.
    fn shows_all_of(
        &self,
        _stream: &Stream,
        cursor: Option<&Value>,
        _start: Start,
        window: Window,
    ) -> Option<Part> {
        let from = window.from.map(|from| stamp(from + TimeDelta::days(2)));
        cursor.is_none().then(|| Part {
            field: &["MetaData", "LastUpdatedTime"],
            from: from.unwrap_or_default(),
        })
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
                with_query(below(&self.base, &["cdc"]), &query)
            }
            Step::Count => {
                let conditions = spec.conditions(at.window.from, settled(at));
                let query = format!("SELECT COUNT(*) FROM {}{conditions}", spec.entity);
                let query = [("query", query.as_str()), ("minorversion", MINOR_VERSION)];
                with_query(below(&self.base, &["query"]), &query)
            }
            Step::Query => {
                // A pass that shows all there is shows what is edited while it reads, too.
                let is_later = next.again || at.next.is_none() && at.high.is_some();
                let shows_all = spec.whole || !is_later && at.start.span.is_none();
                let ahead = TimeDelta::days(i64::from(shows_all));
                let conditions =
                    spec.conditions(next.from.or(at.window.from), at.window.to + ahead);
                let query = format!(
                    "SELECT {} FROM {}{conditions} ORDERBY {STAMP} ASC STARTPOSITION {} MAXRESULTS {PAGE}",
                    spec.fields,
                    spec.entity,
                    next.skip + 1
                );
                let query = [("query", query.as_str()), ("minorversion", MINOR_VERSION)];
                with_query(below(&self.base, &["query"]), &query)
            }
        };
        // Without it the answer is XML.
        Ok(Request::get(url)
            .header("Accept", "application/json")
            .bearer(at.token()))
    }

    fn login(&self) -> Option<&dyn Login> {
        Some(&self.login)
    }

    fn verdict(&self, at: &Position, got: &Response) -> Verdict {
        let fail = |code, what: &str| Verdict::Fail(got.failure(code, what));
        let fault = || fault_code(&reading::problem(got));
        match got.status {
            403 if fault().as_deref() == Some("3100") => fail(
                Code::CredentialsRejected,
                "the token is for another company or environment; check realm_id and sandbox",
            ),
            403 if at.next.is_none() && self.common.is_left_out::<Spec>(at.stream) => {
                let why = "left out, because the consent or the company's plan does not cover it";
                Verdict::Absent(why.to_owned())
            }
            403 => fail(
                Code::PermissionMissing,
                "the consent does not cover this stream",
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
                    got.failure(Code::RateLimited, "too many requests")
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
            Step::Count => query::counted(at, got, spec, next),
            Step::Capture => self.captured(at, got, spec),
        }
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
fn check(got: &Response, records: &str) -> Result<(), Failure> {
    let around = reading::around(got, records);
    if around.contains_key("Fault") || around.contains_key("fault") {
        return Err(reading::refused(got, "QuickBooks answered with a fault"));
    }
    Ok(())
}

/// Up to where the vendor's count and what came are compared.
fn settled(at: &Position) -> DateTime<Utc> {
    at.window.to - LOOKBACK
}
