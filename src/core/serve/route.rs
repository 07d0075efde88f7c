//! Finds what a request asks for, without a socket.

use bytes::Bytes;
use chrono::{Datelike, NaiveDate};
use hyper::{HeaderMap, Method, Uri, header};
use sha2::{Digest, Sha256};
use url::form_urlencoded;
use uuid::Uuid;

use super::{Answer, Ask, Metrics, Token, Upload, Webhook};
use crate::body::{self, Packing};
use crate::error::Code;

/// The route of a request, before its body is read.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// Needs nobody's answer: whether the process lives, and the page, which holds nobody's data.
    At(Answer),
    /// Needs no body.
    Ask(Ask),
    /// Needs the body, of at most this kind's size.
    Body(Awaits),
}

/// A request that its body completes.
#[derive(Debug, PartialEq, Eq)]
pub enum Awaits {
    Sync(Token),
    Webhook {
        connector: Uuid,
        headers: Vec<(String, Vec<u8>)>,
    },
    Upload {
        token: Token,
        connector: Uuid,
        file: String,
    },
}

/// Largest body of a webhook. Larger: more memory for what nobody has authenticated yet. Smaller: an event with a large
/// document in it is turned away.
pub const WEBHOOK_BYTES: usize = 1024 * 1024;

/// Largest body of a JSON command.
const COMMAND_BYTES: usize = 16 * 1024;

/// Metrics of one page where none is named, and at most.
const USUAL_LIMIT: i32 = 1_000;
const LARGEST_LIMIT: i32 = 10_000;

/// Finds the route from everything but the body.
pub fn route(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Route, Answer> {
    let path = uri.path().trim_matches('/');
    let segments: Vec<&str> = path.split('/').collect();
    match segments.as_slice() {
        [""] => page(
            method,
            "text/html; charset=utf-8",
            include_str!("page/index.html"),
        ),
        ["page.css"] => page(
            method,
            "text/css; charset=utf-8",
            include_str!("page/page.css"),
        ),
        ["page.js"] => page(
            method,
            "text/javascript; charset=utf-8",
            include_str!("page/page.js"),
        ),
        ["openapi.json"] => page(method, "application/json", include_str!("openapi.json")),
        ["live"] => get(method).map(|()| Route::At(Answer::json(200, r#"{"live": true}"#))),
        ["ready"] => get(method).map(|()| Route::Ask(Ask::Ready)),
        ["internal", "prometheus"] => {
            get(method)?;
            Ok(Route::Ask(Ask::Prometheus(token(headers)?)))
        }
        ["metrics", tenant] => {
            get(method)?;
            let token = token(headers)?;
            let tenant = id(tenant)?;
            Ok(Route::Ask(Ask::Metrics(token, metrics(tenant, uri)?)))
        }
        ["tenants"] => {
            get(method)?;
            Ok(Route::Ask(Ask::Tenants(token(headers)?)))
        }
        ["tenants", tenant, "overview"] => {
            get(method)?;
            Ok(Route::Ask(Ask::Overview(token(headers)?, id(tenant)?)))
        }
        ["alerts", alert, "resolve"] => {
            post(method)?;
            Ok(Route::Ask(Ask::Resolve(token(headers)?, id(alert)?)))
        }
        ["connectors", connector, "replay"] => {
            post(method)?;
            Ok(Route::Ask(Ask::Replay(token(headers)?, id(connector)?)))
        }
        ["internal", "sync-connector"] => {
            post(method)?;
            Ok(Route::Body(Awaits::Sync(token(headers)?)))
        }
        ["webhooks", connector] => {
            post(method)?;
            // As a connector that is not there.
            let connector = connector.parse().map_err(|_| Answer::not_authentic())?;
            let headers = headers
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                .collect();
            Ok(Route::Body(Awaits::Webhook { connector, headers }))
        }
        ["uploads", connector] => {
            post(method)?;
            let token = token(headers)?;
            let connector = id(connector)?;
            let file = one(uri, "file")?.ok_or_else(|| {
                wrong(
                    "the file name is missing; write it as /uploads/<connector_id>?file=sales.csv",
                )
            })?;
            Ok(Route::Body(Awaits::Upload {
                token,
                connector,
                file,
            }))
        }
        _ => Err(Answer::not_found()),
    }
}

/// The text of a webhook's body, however it is packed and written. Nobody has judged its signature yet, so what is refused
/// here says nothing of that.
fn text(headers: &[(String, Vec<u8>)], body: &Bytes) -> Result<Bytes, Answer> {
    let named = |wanted: &'static str| {
        let values = headers.iter().filter(move |(name, _)| name == wanted);
        values.filter_map(|(_, value)| std::str::from_utf8(value).ok())
    };
    let packings = body::packings(named(header::CONTENT_ENCODING.as_str())).map_err(|_| {
        let message = "the body may be compressed with gzip or deflate, and in no other way";
        Answer::refusal(415, "unsupported_encoding", message)
    })?;
    let packings = match packings.is_empty() && body::is_gzip(body) {
        true => vec![Packing::Gzip],
        false => packings,
    };
    let content_type = named(header::CONTENT_TYPE.as_str()).next();
    let opened = body::open(body, packings, WEBHOOK_BYTES);
    let text = opened.and_then(|text| body::to_utf8(text, content_type, WEBHOOK_BYTES));
    text.map_err(|failure| match failure.code {
        Code::ResponseTooLarge => Answer::too_large(WEBHOOK_BYTES),
        _ => Answer::refusal(400, "bad_request", "the body does not decompress"),
    })
}

impl Awaits {
    /// How large the body may be.
    pub fn most(&self, upload_bytes: usize) -> usize {
        match self {
            Awaits::Sync(_) => COMMAND_BYTES,
            Awaits::Webhook { .. } => WEBHOOK_BYTES,
            Awaits::Upload { .. } => upload_bytes,
        }
    }

    pub fn with(self, body: Bytes) -> Result<Ask, Answer> {
        match self {
            Awaits::Sync(token) => Ok(Ask::Sync(token, connector(&body)?)),
            Awaits::Webhook { connector, headers } => {
                let text = text(&headers, &body)?;
                Ok(Ask::Webhook(Webhook {
                    connector,
                    headers,
                    body,
                    text,
                }))
            }
            Awaits::Upload {
                token,
                connector,
                file,
            } => Ok(Ask::Upload(
                token,
                Upload {
                    connector,
                    file,
                    body,
                },
            )),
        }
    }
}

fn page(method: &Method, content_type: &'static str, text: &'static str) -> Result<Route, Answer> {
    get(method).map(|()| Route::At(Answer::page(content_type, text)))
}

fn wrong(message: &str) -> Answer {
    Answer::refusal(400, "bad_request", message)
}

fn get(method: &Method) -> Result<(), Answer> {
    only(method, &[Method::GET, Method::HEAD], "GET, HEAD")
}

fn post(method: &Method) -> Result<(), Answer> {
    only(method, &[Method::POST], "POST")
}

fn only(method: &Method, allowed: &[Method], names: &'static str) -> Result<(), Answer> {
    if allowed.contains(method) {
        return Ok(());
    }
    let message = format!("the method has to be {names}");
    Err(Answer::refusal(405, "method_not_allowed", &message).allow(names))
}

fn id(text: &str) -> Result<Uuid, Answer> {
    text.parse()
        .map_err(|_| wrong("the id in the path is not a UUID"))
}

/// The one bearer token of a request.
fn token(headers: &HeaderMap) -> Result<Token, Answer> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(Answer::unauthorized());
    };
    let text = value.to_str().map_err(|_| Answer::unauthorized())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(Answer::unauthorized)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Answer::unauthorized());
    }
    Ok(Token(Sha256::digest(token.trim().as_bytes()).into()))
}

/// The value of a parameter that may come once.
fn one(uri: &Uri, name: &str) -> Result<Option<String>, Answer> {
    let query = uri.query().unwrap_or_default().as_bytes();
    let mut values = form_urlencoded::parse(query).filter(|(key, _)| key == name);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(wrong(&format!("\"{name}\" is given twice"))),
        // PostgreSQL has no text with one.
        (Some((_, value)), None) if value.contains('\0') => {
            Err(wrong(&format!("\"{name}\" contains a NUL character")))
        }
        (value, None) => Ok(value.map(|(_, value)| value.into_owned())),
    }
}

fn metrics(tenant: Uuid, uri: &Uri) -> Result<Metrics, Answer> {
    let known = ["metric_type", "start_date", "end_date", "after", "limit"];
    let query = uri.query().unwrap_or_default().as_bytes();
    if form_urlencoded::parse(query).any(|(key, _)| !known.contains(&key.as_ref())) {
        let known = known.join(", ");
        return Err(wrong(&format!(
            "the URL has an unknown parameter; known parameters: {known}"
        )));
    }
    let day = |name: &str| {
        let text = one(uri, name)?.unwrap_or_default();
        date(&text).ok_or_else(|| wrong(&format!("\"{name}\" has to be a day, such as 2026-01-31")))
    };
    let limit = one(uri, "limit")?.map_or(Some(USUAL_LIMIT), |text| text.parse().ok());
    let limit = limit.filter(|limit| (1..=LARGEST_LIMIT).contains(limit));
    let limit = limit.ok_or_else(|| {
        wrong(&format!(
            "\"limit\" has to be a number from 1 to {LARGEST_LIMIT}"
        ))
    })?;
    let after = one(uri, "after")?
        .map(|text| {
            let (day, kind) = text.split_once(',')?;
            Some((date(day)?, kind.to_owned()))
        })
        .map(|after| {
            after.ok_or_else(|| wrong("\"after\" has to be the \"next\" of an earlier page"))
        })
        .transpose()?;
    Ok(Metrics {
        tenant,
        metric_type: one(uri, "metric_type")?.filter(|kind| !kind.is_empty()),
        from: day("start_date")?,
        to: day("end_date")?,
        after,
        limit,
    })
}

/// A day of four-digit years, as ISO 8601 writes it and in no other way.
fn date(text: &str) -> Option<NaiveDate> {
    let date: NaiveDate = text.parse().ok()?;
    // A year 0 is none: PostgreSQL goes from 1 BC to 1.
    let is_plain = date.year() > 0 && text.len() == 10;
    (is_plain && date.format("%Y-%m-%d").to_string() == text).then_some(date)
}

fn connector(body: &[u8]) -> Result<Uuid, Answer> {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let id = body.get("connector_id").and_then(serde_json::Value::as_str);
    id.and_then(|id| id.parse().ok())
        .ok_or_else(|| wrong("the body has to be {\"connector_id\": \"<UUID>\"}"))
}
