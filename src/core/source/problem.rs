//! What a body says went wrong.
//!
//! Many a vendor answers with 200 and an error. Beside records it is the vendor's remark, and the records are read; beside
//! nothing it would pass for an empty page, and rows would be missed without a word. So where a page has no records, its
//! body is asked whether it names an error, by the fields and the words that vendors use; the words also say of which kind
//! it is. None of the vendor's text goes further than this.

use serde_json::{Map, Value};

use super::pause;
use super::reading;
use super::request::Response;
use crate::error::{Code, Failure};

/// The kinds of errors, the one that counts most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Too many requests.
    Throttled,
    /// The credentials, or what they allow.
    NotAllowed,
    /// The server's own trouble, which passes.
    Failing,
    Other,
}

/// Words of each kind, in lower case and without anything between them. They are looked for in what names an error, so a
/// word that only sometimes means this does no harm.
const WORDS: [(Kind, &[&str]); 3] = [
    (
        Kind::Throttled,
        &[
            "ratelimit",
            "toomanyrequest",
            "toomanycalls",
            "throttl",
            "quotaexceeded",
            "exceededquota",
            "exceededyourquota",
            "requestlimit",
            "calllimit",
            "usagelimit",
            "dailylimit",
            "overquerylimit",
            "limitexceeded",
            "limitreached",
            "callfrequency",
            "requestspersecond",
            "requestsperminute",
            "slowdown",
            "enhanceyourcalm",
        ],
    ),
    (
        Kind::NotAllowed,
        &[
            "unauthori",
            "unauthenticated",
            "notauthenticated",
            "notauthori",
            "notauthed",
            "authentication",
            "invalidauth",
            "invalidtoken",
            "tokeninvalid",
            "tokenexpired",
            "expiredtoken",
            "tokenhasexpired",
            "tokenisexpired",
            "tokenrevoked",
            "apikey",
            "invalidkey",
            "credential",
            "forbidden",
            "accessdenied",
            "permissiondenied",
            "requestdenied",
            "invalidgrant",
            "invalidclient",
            "loginrequired",
            "invalidsession",
            "sessionexpired",
            "insufficientscope",
        ],
    ),
    (
        Kind::Failing,
        &[
            "internalerror",
            "internalservererror",
            "servererror",
            "backenderror",
            "unavailable",
            "overloaded",
            "maintenance",
            "timeout",
            "timedout",
            "tryagain",
            "retrylater",
            "badgateway",
        ],
    ),
];

/// Fields that name an error, where they say anything.
const ERRORS: [&str; 24] = [
    "err",
    "errcode",
    "errmsg",
    "error",
    "errorcode",
    "errordescription",
    "errordetail",
    "errordetails",
    "errorinfo",
    "errorlist",
    "errormessage",
    "errormessages",
    "errormsg",
    "errors",
    "errortype",
    "errs",
    "exception",
    "exceptioncode",
    "exceptionmessage",
    "fault",
    "faultcode",
    "faultstring",
    "haserror",
    "iserror",
];

/// Fields that say whether all is well.
const WELL: [&str; 8] = [
    "issuccess",
    "issuccessful",
    "ok",
    "succeeded",
    "success",
    "successful",
    "wassuccessful",
    "response",
];

/// Fields that have a word or a number for how it went.
const OUTCOMES: [&str; 14] = [
    "code",
    "httpcode",
    "httpstatus",
    "httpstatuscode",
    "outcome",
    "resultcode",
    "responsecode",
    "responsestatus",
    "result",
    "returncode",
    "stat",
    "status",
    "statuscode",
    "type",
];

/// Fields that hold a text for people. One alone is no error.
const MESSAGES: [&str; 10] = [
    "description",
    "detail",
    "details",
    "information",
    "message",
    "messages",
    "msg",
    "note",
    "reason",
    "title",
];

/// The largest body that is looked into: one without records is small. Larger: a hostile one costs time.
const LARGEST: usize = 256 * 1024;

/// Text that is looked at, of one error. More: a hostile one costs time.
const MOST_TEXT: usize = 4_000;

/// The failure that a body without records names, if it names one. `path` leads to where the records would be.
pub fn beside_nothing(got: &Response, path: &[String]) -> Option<Failure> {
    let body = Some(got.body.as_ref()).filter(|body| body.len() <= LARGEST)?;
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        // A sentence instead of JSON.
        if matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')) {
            return None;
        }
        let is_throttled = kind_of(&plain(&String::from_utf8_lossy(body))) == Some(Kind::Throttled);
        return is_throttled.then(|| failure(got, Kind::Throttled));
    };
    // Beside an empty list a text for people is a remark: "98 of 100 requests left".
    let is_remark = (200..300).contains(&got.status) && has_list(&body, path);
    let named = |fields, records| named(fields, records, !is_remark);
    let mut at = &body;
    let mut found = None;
    let mut steps = path.iter();
    loop {
        let step = steps.next();
        let fields = match at {
            Value::Object(fields) => fields,
            // A list of errors, where an object with records was to be.
            Value::Array(items) if step.is_some() || path.is_empty() => {
                let first = items.first().and_then(Value::as_object);
                found = found.or_else(|| first.and_then(|first| named(first, None)));
                break;
            }
            _ => break,
        };
        found = found.min_some(named(fields, step.map(String::as_str)));
        match step.and_then(|step| fields.get(step)) {
            Some(next) => at = next,
            None => break,
        }
    }
    found.map(|kind| failure(got, kind))
}

/// The failure that an object names which would otherwise be a record, or the answer to a login.
pub fn named_in(got: &Response, fields: &Map<String, Value>) -> Option<Failure> {
    named(fields, None, true).map(|kind| failure(got, kind))
}

/// Which kind of error an object names, if any.
pub fn kind_in(fields: &Map<String, Value>) -> Option<Kind> {
    named(fields, None, true)
}

/// Whether there is a list where the records would be.
fn has_list(body: &Value, path: &[String]) -> bool {
    let mut steps = path.iter().take_while(|step| *step != "*");
    let list = steps.try_fold(body, |at, step| at.get(step));
    !path.is_empty() && list.is_some_and(Value::is_array)
}

/// Whether a refusal says that the access token is over, and no more than that.
pub fn says_token_is_over(got: &Response) -> bool {
    const OVER: [&str; 12] = [
        "tokenexpired",
        "expiredtoken",
        "tokenhasexpired",
        "tokenisexpired",
        "tokenwasexpired",
        "expiredaccesstoken",
        "expiredauthenticationtoken",
        "invalidtoken",
        "invalidaccesstoken",
        "tokenisinvalid",
        "invalidsession",
        "sessionexpired",
    ];
    // A token of pages may be over, too.
    const OF_PAGES: [&str; 5] = ["page", "pagination", "next", "cursor", "continuation"];
    let says = |text: &str| {
        let text = plain(text);
        let mut places = OVER.iter().flat_map(|word| text.match_indices(word));
        places.any(|(at, _)| {
            let before = text.get(..at).unwrap_or_default();
            !OF_PAGES.iter().any(|of| before.ends_with(of))
        })
    };
    let challenges = got.headers.iter();
    let mut challenges = challenges.filter(|(name, _)| name == "www-authenticate");
    if challenges.any(|(_, value)| says(value)) {
        return true;
    }
    let mut text = String::new();
    match reading::problem(got) {
        Value::Null => text = String::from_utf8_lossy(head(&got.body)).into_owned(),
        body => gather(&body, 0, &mut text),
    }
    says(&text)
}

/// Whether a refusal speaks of too many requests.
pub fn says_throttled(got: &Response) -> bool {
    const SURE: [&str; 6] = [
        "ratelimit",
        "toomanyrequest",
        "throttl",
        "quotaexceeded",
        "dailylimitexceeded",
        "requestlimit",
    ];
    let mut text = String::new();
    match reading::problem(got) {
        Value::Null => text = String::from_utf8_lossy(head(&got.body)).into_owned(),
        body => gather(&body, 0, &mut text),
    }
    let text = plain(&text);
    SURE.iter().any(|word| text.contains(word))
}

fn head(body: &[u8]) -> &[u8] {
    body.get(..MOST_TEXT).unwrap_or(body)
}

fn failure(got: &Response, kind: Kind) -> Failure {
    let (code, message) = match kind {
        Kind::Throttled => (
            Code::RateLimited,
            "the response says that there were too many requests",
        ),
        Kind::NotAllowed => (
            Code::CredentialsRejected,
            "the response says that the credentials are not accepted",
        ),
        Kind::Failing => (
            Code::ServerError,
            "the response says that the server failed",
        ),
        Kind::Other => (
            Code::UnexpectedShape,
            "the response names an error and has no records",
        ),
    };
    let wait = (kind == Kind::Throttled)
        .then(|| pause::wait(got))
        .flatten();
    Failure::new(code, message).after(wait)
}

trait MinSome {
    fn min_some(self, other: Self) -> Self;
}

impl MinSome for Option<Kind> {
    fn min_some(self, other: Option<Kind>) -> Option<Kind> {
        [self, other].into_iter().flatten().min()
    }
}

/// The kind of the error that an object names, the field that leads to the records aside. `counts_alone`: a text for people
/// that speaks of too many requests is enough.
fn named(fields: &Map<String, Value>, records: Option<&str>, counts_alone: bool) -> Option<Kind> {
    let mut is_error = false;
    let mut text = String::new();
    let mut messages = String::new();
    let mut number = None;
    for (name, value) in fields {
        if records == Some(name.as_str()) {
            continue;
        }
        let plain_name = plain(name);
        let of = |list: &[&str]| list.contains(&plain_name.as_str());
        if of(&ERRORS) && says_something(value, 0) {
            is_error = true;
            gather(value, 0, &mut text);
            number = number.or_else(|| status_in(value));
        } else if of(&WELL) && is_no(value) {
            is_error = true;
        } else if of(&OUTCOMES) && is_bad(value) {
            is_error = true;
            gather(value, 0, &mut text);
            number = number.or_else(|| status_in(value));
        } else if of(&MESSAGES) {
            gather(value, 0, &mut messages);
        } else if of(&OUTCOMES) {
            // A code in words that stands beside the message: "code": "rate_limit_exceeded".
            gather(value, 0, &mut messages);
        }
    }
    let by_text = kind_of(&plain(&text));
    let by_message = kind_of(&plain(&messages));
    if !is_error {
        // Of what is only said, and of no field that would name an error, the one that passes by itself is believed.
        return by_message.filter(|kind| counts_alone && *kind == Kind::Throttled);
    }
    let by_number = number.map(|number| match number {
        429 => Kind::Throttled,
        401 | 403 => Kind::NotAllowed,
        408 | 500..=599 => Kind::Failing,
        _ => Kind::Other,
    });
    let kind = by_text.min_some(by_message).min_some(by_number);
    Some(kind.unwrap_or(Kind::Other))
}

/// Letters and digits in lower case, and nothing else: `rate_limit`, `Rate limit` and `rateLimit` are one word.
fn plain(text: &str) -> String {
    let letters = text.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

fn kind_of(text: &str) -> Option<Kind> {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    WORDS
        .iter()
        .find_map(|(kind, words)| has(words).then_some(*kind))
}

/// Adds the texts in a value, and the names of the fields that are true.
fn gather(value: &Value, depth: usize, to: &mut String) {
    if to.len() >= MOST_TEXT || depth > 6 {
        return;
    }
    match value {
        Value::String(text) => {
            let room = MOST_TEXT.saturating_sub(to.len());
            to.extend(text.chars().take(room));
            to.push(' ');
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, depth + 1, to)),
        Value::Object(fields) => fields.values().for_each(|item| gather(item, depth + 1, to)),
        _ => {}
    }
}

/// Whether what stands in a field for errors is more than the word that there is none.
fn says_something(value: &Value, depth: usize) -> bool {
    const NOTHING: [&str; 14] = [
        "", "0", "00", "000", "0000", "00000", "200", "false", "nil", "no", "noerror", "none",
        "null", "na",
    ];
    const WELL: [&str; 4] = ["ok", "success", "successful", "okay"];
    match value {
        _ if depth > 6 => true,
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(1.0);
            number != 0.0 && !(200.0..300.0).contains(&number)
        }
        Value::String(text) => {
            let text = plain(text);
            !NOTHING.contains(&text.as_str()) && !WELL.contains(&text.as_str())
        }
        Value::Array(items) => items.iter().any(|item| says_something(item, depth + 1)),
        Value::Object(fields) => fields.values().any(|item| says_something(item, depth + 1)),
    }
}

fn is_no(value: &Value) -> bool {
    match value {
        Value::Bool(well) => !well,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(
            plain(text).as_str(),
            "false" | "0" | "no" | "n" | "error" | "fail" | "failed" | "failure"
        ),
        _ => false,
    }
}

/// Whether a word or number for how it went means that it did not go well.
fn is_bad(value: &Value) -> bool {
    match value {
        Value::String(text) => {
            let text = plain(text);
            let begins = ["error", "fail", "unauth", "forbidden", "denied"];
            let words = [
                "accessdenied",
                "err",
                "exception",
                "invalidrequest",
                "invalidtoken",
                "ko",
                "nok",
                "overquerylimit",
                "requestdenied",
                "unknownerror",
            ];
            begins.iter().any(|word| text.starts_with(word))
                || words.contains(&text.as_str())
                || kind_of(&text) == Some(Kind::Throttled)
                || status_of(&text).is_some()
        }
        Value::Number(_) => status_in(value).is_some(),
        _ => false,
    }
}

fn status_of(text: &str) -> Option<u64> {
    let number = text.parse().ok()?;
    (400..=599).contains(&number).then_some(number)
}

/// The first status of HTTP that stands for a failure, in a value that names an error.
fn status_in(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => status_of(&number.to_string()),
        Value::String(text) => status_of(text.trim()),
        Value::Array(items) => items.iter().take(10).find_map(status_in),
        Value::Object(fields) => {
            let codes = ["code", "status", "statusCode", "status_code", "errorCode"];
            codes.iter().find_map(|code| match fields.get(*code)? {
                value @ (Value::Number(_) | Value::String(_)) => status_in(value),
                _ => None,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_text_for_people_beside_an_empty_list_is_a_remark() {
        use Code::{RateLimited, UnexpectedShape};
        let data = ["data"].as_slice();
        let deep = ["result", "items"].as_slice();
        for (status, path, body, expected) in [
            (
                200,
                data,
                r#"{"data": [], "message": "Rate limit: 98 of 100 left"}"#,
                None,
            ),
            (
                200,
                data,
                r#"{"data": [], "note": "API rate limit exceeded", "status": "ok"}"#,
                None,
            ),
            (
                200,
                deep,
                r#"{"result": {"items": [], "message": "Rate limit: 98 left"}}"#,
                None,
            ),
            (
                200,
                deep,
                r#"{"result": {"items": []}, "detail": "Rate limit: 98 left"}"#,
                None,
            ),
            (
                200,
                data,
                r#"{"data": null, "message": "Rate limit exceeded"}"#,
                Some(RateLimited),
            ),
            (
                200,
                deep,
                r#"{"result": null, "message": "Rate limit exceeded"}"#,
                Some(RateLimited),
            ),
            (
                200,
                data,
                r#"{"message": "Rate limit exceeded"}"#,
                Some(RateLimited),
            ),
            (
                429,
                data,
                r#"{"data": [], "message": "Rate limit exceeded"}"#,
                Some(RateLimited),
            ),
            (
                200,
                data,
                r#"{"data": [], "status": "error", "message": "Rate limit"}"#,
                Some(RateLimited),
            ),
            (
                200,
                data,
                r#"{"data": [], "success": false, "message": "Rate limit"}"#,
                Some(RateLimited),
            ),
            (
                200,
                data,
                r#"{"data": [], "error": "Rate limit"}"#,
                Some(RateLimited),
            ),
            (
                200,
                data,
                r#"{"data": [], "code": "rate_limit_exceeded"}"#,
                Some(RateLimited),
            ),
            (
                200,
                data,
                r#"{"data": [], "status": "error", "message": "no"}"#,
                Some(UnexpectedShape),
            ),
            (
                200,
                data,
                r#"{"data": [], "message": "nothing found"}"#,
                None,
            ),
        ] {
            let got = Response {
                status,
                headers: vec![],
                body: Bytes::from_static(body.as_bytes()),
            };
            let path: Vec<String> = path.iter().map(|step| (*step).to_owned()).collect();
            let code = beside_nothing(&got, &path).map(|failure| failure.code);
            assert_eq!(code, expected, "{status} {body}");
        }
    }
}
