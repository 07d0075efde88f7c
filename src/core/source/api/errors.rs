//! `DefaultErrorHandler` and `CompositeErrorHandler`: what a manifest says of responses that the HTTP status misjudges.

use minijinja::value::Value as Context;

use super::component::{Component, wrong};
use super::headers::Headers;
use crate::error::{Code, Failure};
use crate::source::request::retry_after;
use crate::source::{Response, Verdict};
use crate::template::{Template, value};

/// The filters of all handlers, in their order.
#[derive(Default)]
pub struct Errors {
    filters: Vec<Filter>,
}

struct Filter {
    action: Action,
    codes: Vec<u64>,
    contains: Option<String>,
    predicate: Option<Template>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Success,
    Fail,
    Retry,
    RateLimited,
    /// The page has no records.
    Ignore,
}

const ACTIONS: [(&str, Action); 5] = [
    ("SUCCESS", Action::Success),
    ("FAIL", Action::Fail),
    ("RETRY", Action::Retry),
    ("RATE_LIMITED", Action::RateLimited),
    ("IGNORE", Action::Ignore),
];

/// Largest body that a filter looks into. Larger: a page of records, which is no error, costs time.
const LARGEST_BODY: usize = 1024 * 1024;

impl Errors {
    pub fn read(component: Component) -> Result<Errors, Failure> {
        let mut filters = Vec::new();
        handler(component, &mut filters)?;
        Ok(Errors { filters })
    }

    /// What the first filter that fits a response says. `None`: its status tells.
    pub fn judge(
        &self,
        got: &Response,
        context: impl Fn(Vec<(&'static str, Context)>) -> Context,
    ) -> Result<Option<Action>, Failure> {
        if self.filters.is_empty() {
            return Ok(None);
        }
        let is_success = (200..300).contains(&got.status);
        let mut body = None;
        for filter in &self.filters {
            if filter.codes.contains(&got.status.into()) {
                return Ok(Some(filter.action));
            }
            // A refusal is passed over only by its name: 401, 429 and 500 have no list of records either.
            if filter.passes() && !is_success {
                continue;
            }
            let body = body.get_or_insert_with(|| Body::of(got, &context));
            let contains = |text: &String| memchr::memmem::find(body.text, text.as_bytes());
            let fits = match &filter.predicate {
                _ if filter.contains.as_ref().and_then(contains).is_some() => true,
                // What was not read is not what a template says that it lacks.
                Some(predicate) if body.is_read || !predicate.uses("response") => {
                    predicate.truth(&body.seen)?
                }
                _ => false,
            };
            if fits {
                return Ok(Some(filter.action));
            }
        }
        Ok(None)
    }
}

/// What filters see of a body.
struct Body<'a> {
    /// Nothing of a success that is not read: it may be a page of records.
    text: &'a [u8],
    is_read: bool,
    seen: Context,
}

impl<'a> Body<'a> {
    fn of(
        got: &'a Response,
        context: impl Fn(Vec<(&'static str, Context)>) -> Context,
    ) -> Body<'a> {
        let text = Some(got.body.as_ref()).filter(|body| body.len() <= LARGEST_BODY);
        let response = text.and_then(|text| value::read(text, &[]));
        // A word that is no JSON has no value.
        let response = response.filter(|response| !response.is_undefined());
        let is_read = response.is_some();
        let is_success = (200..300).contains(&got.status);
        let headers = Context::from_object(Headers(got.headers.clone()));
        Body {
            text: text.filter(|_| is_read || !is_success).unwrap_or_default(),
            is_read,
            seen: context(vec![
                ("response", response.unwrap_or(Context::UNDEFINED)),
                ("headers", headers),
            ]),
        }
    }
}

fn handler(mut component: Component, filters: &mut Vec<Filter>) -> Result<(), Failure> {
    match component.kind() {
        "DefaultErrorHandler" => {
            for filter in component.children("response_filters", "HttpResponseFilter")? {
                filters.push(Filter::read(filter)?);
            }
            for strategy in component.children("backoff_strategies", "")? {
                // How long to wait is the engine's: as the vendor says, or longer each time.
                match strategy.kind() {
                    "ConstantBackoffStrategy" | "ExponentialBackoffStrategy" => {}
                    _ => return Err(strategy.unsupported()),
                }
            }
            component.harmless(&["max_retries"]);
        }
        "CompositeErrorHandler" => {
            for inner in component.children("error_handlers", "DefaultErrorHandler")? {
                handler(inner, filters)?;
            }
        }
        _ => return Err(component.unsupported()),
    }
    component.finish()
}

impl Filter {
    /// Whether what fits is taken for a page, whatever its status is.
    fn passes(&self) -> bool {
        matches!(self.action, Action::Success | Action::Ignore)
    }

    fn read(component: Component) -> Result<Filter, Failure> {
        let mut filter = component.expect("HttpResponseFilter")?;
        let action = filter
            .word("action", &ACTIONS)?
            .ok_or_else(|| filter.missing("action"))?;
        let place = filter.place("http_codes");
        let codes = match filter.take("http_codes") {
            None => Vec::new(),
            Some(codes) => codes
                .as_array()
                .and_then(|codes| codes.iter().map(serde_json::Value::as_u64).collect())
                .ok_or_else(|| {
                    wrong(format!(
                        "\"{place}\" of the manifest has to be a list of HTTP status codes"
                    ))
                })?,
        };
        let contains = filter
            .text("error_message_contains")?
            .filter(|text| !text.is_empty());
        let predicate = filter.template("predicate", &["config", "response", "headers"])?;
        if codes.is_empty() && contains.is_none() && predicate.is_none() {
            return Err(filter.missing("http_codes"));
        }
        filter.harmless(&["error_message", "failure_type"]);
        filter.finish()?;
        Ok(Filter {
            action,
            codes,
            contains,
            predicate,
        })
    }
}

impl Action {
    pub fn verdict(self, got: &Response) -> Verdict {
        let says = |code, what: &str| {
            got.failure(
                code,
                format!("{what}, as the manifest's error_handler says"),
            )
        };
        match self {
            Action::Success | Action::Ignore => Verdict::Read,
            Action::Fail => Verdict::Fail(says(
                match got.status {
                    401 | 403 => Code::CredentialsRejected,
                    404 | 410 => Code::NotFound,
                    _ => Code::RequestRefused,
                },
                "refused",
            )),
            Action::Retry => {
                Verdict::Retry(says(Code::ServerError, "to be asked again").after(retry_after(got)))
            }
            Action::RateLimited => {
                Verdict::Retry(says(Code::RateLimited, "too many requests").after(retry_after(got)))
            }
        }
    }
}
