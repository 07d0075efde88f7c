//! `DefaultPaginator`: how to ask for the next page.
//!
//! [`crate::record::Page::next`] is here the offset, the page number, or the vendor's own token; two that are
//! equal are the same page, which is what stops a source that would never end.

use bytes::Bytes;
use minijinja::value::{Serde, Value as Context};
use serde_json::Value;

use super::component::{Component, wrong};
use super::headers::Headers;
use super::more::plain;
use super::parts::{Inject, Parts};
use crate::error::{Code, Failure};
use crate::json::Found;
use crate::source::{Position, Response};
use crate::template::Template;
use crate::template::value::{self, MOST_VALUES, Unread};

/// Parameters of an address that count pages or rows, without case and signs.
const COUNTING: [&str; 16] = [
    "page",
    "pagenumber",
    "pageno",
    "pagenum",
    "pageindex",
    "pageoffset",
    "currentpage",
    "p",
    "pg",
    "offset",
    "skip",
    "start",
    "startindex",
    "startat",
    "startrow",
    "from",
];

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit())
}

const OFFERED: [&str; 6] = [
    "config",
    "response",
    "headers",
    "last_record",
    "last_page_size",
    "last_page_token_value",
];

pub struct Paging {
    strategy: Strategy,
    size_option: Option<Inject>,
    token_option: Option<TokenOption>,
}

enum TokenOption {
    Inject(Inject),
    Path,
}

enum Strategy {
    /// Offset, page size.
    Offset { size: Option<u64>, first: bool },
    Page {
        size: Option<u64>,
        start: u64,
        first: bool,
    },
    Cursor {
        size: Option<u64>,
        value: Box<Template>,
        stop: Option<Box<Template>>,
    },
}

impl Paging {
    pub fn read(component: Component) -> Result<Option<Paging>, Failure> {
        if component.kind() == "NoPagination" {
            return component.finish().map(|()| None);
        }
        let mut paginator = component.expect("DefaultPaginator")?;
        let strategy = paginator
            .child("pagination_strategy", "")?
            .ok_or_else(|| paginator.missing("pagination_strategy"))?;
        let strategy = Strategy::read(strategy)?;
        let size_option = paginator
            .child("page_size_option", "RequestOption")?
            .map(Inject::read)
            .transpose()?;
        let token_option = match paginator.child("page_token_option", "RequestOption")? {
            Some(option) if option.kind() == "RequestPath" => {
                option.finish()?;
                Some(TokenOption::Path)
            }
            Some(option) => Some(TokenOption::Inject(Inject::read(option)?)),
            None => None,
        };
        paginator.finish()?;
        Ok(Some(Paging {
            strategy,
            size_option,
            token_option,
        }))
    }

    /// Whether a token is the number of a page or of a row, by itself or within an address.
    pub fn counts(&self, token: &Value) -> bool {
        let Strategy::Cursor { value, .. } = &self.strategy else {
            return true;
        };
        // The id of a record is no count, whatever it is written with.
        if value.uses("last_record") {
            return false;
        }
        match token {
            Value::Number(_) => self.is_sent_as_a_count(),
            Value::String(text) if is_number(text) => self.is_sent_as_a_count(),
            Value::String(text) => text.split_once('?').is_some_and(|(_, query)| {
                let query = query.split('#').next().unwrap_or_default();
                let mut pairs = url::form_urlencoded::parse(query.as_bytes());
                pairs.any(|(name, value)| {
                    COUNTING.contains(&plain(&name).as_str()) && is_number(&value)
                })
            }),
            _ => false,
        }
    }

    /// Whether the field that carries the token is named as one that counts. A number elsewhere may be an id.
    fn is_sent_as_a_count(&self) -> bool {
        let name = match &self.token_option {
            Some(TokenOption::Inject(inject)) => inject.name(),
            Some(TokenOption::Path) | None => return false,
        };
        COUNTING.contains(&plain(name).as_str())
    }

    /// The token that the request for a page carries.
    pub fn token(&self, next: Option<&Value>) -> Option<Value> {
        next.cloned().or_else(|| self.strategy.first_token())
    }

    pub fn inject(&self, next: Option<&Value>, parts: &mut Parts) -> Result<(), Failure> {
        if let (Some(option), Some(size)) = (&self.size_option, self.strategy.size()) {
            parts.add(option, size.into());
        }
        let Some(token) = self.token(next) else {
            return Ok(());
        };
        match &self.token_option {
            Some(TokenOption::Inject(inject)) => parts.add(inject, token),
            Some(TokenOption::Path) => match token.as_str() {
                Some(target) => parts.go_to(target)?,
                None => {
                    return Err(Failure::new(
                        Code::UnexpectedShape,
                        "the address of the next page is not text",
                    ));
                }
            },
            None => {}
        }
        Ok(())
    }

    /// Says how to request the next page. `path` is the way to the records; `context` adds names to what templates see.
    pub fn next(
        &self,
        at: &Position,
        got: &Response,
        found: &Found,
        path: &[String],
        context: impl Fn(Vec<(&'static str, Context)>) -> Context,
    ) -> Result<After, Failure> {
        let count = came(found);
        let is_last = |size: &Option<u64>| count == 0 || size.is_some_and(|size| count < size);
        let reached = at.next.and_then(Value::as_u64);
        match &self.strategy {
            Strategy::Offset { size, .. } => Ok(match is_last(size) {
                true => After::Ended,
                false => After::Page(reached.unwrap_or(0).saturating_add(count).into()),
            }),
            Strategy::Page { size, start, .. } => Ok(match is_last(size) {
                true => After::Ended,
                false => After::Page(reached.unwrap_or(*start).saturating_add(1).into()),
            }),
            Strategy::Cursor { value, stop, .. } => {
                let wants =
                    |name| value.uses(name) || stop.as_ref().is_some_and(|stop| stop.uses(name));
                let last_token = at
                    .next
                    .map_or(Context::from(()), |v| Context::from(Serde(v)));
                let mut seen = vec![
                    ("last_page_size", Context::from(count)),
                    ("last_page_token_value", last_token),
                ];
                if wants("response") {
                    let mentions = |word: &String| {
                        value.mentions("response", word)
                            || stop
                                .as_ref()
                                .is_some_and(|stop| stop.mentions("response", word))
                    };
                    let left_out = match path.split_at_checked(1) {
                        Some((first, _)) if !first.iter().any(mentions) => first,
                        _ => &[],
                    };
                    let response = value::read_within(&got.body, left_out, usize::MAX);
                    let response = response.map_err(|why| match why {
                        Unread::NotJson => Failure::new(
                            Code::InvalidJson,
                            "the response cannot be searched for its next page",
                        ),
                        Unread::TooLarge => Failure::new(
                            Code::ResponseTooLarge,
                            format!(
                                "the response has more than {MOST_VALUES} values, too many for a template that looks for its next page"
                            ),
                        ),
                    })?;
                    seen.push(("response", response));
                }
                if wants("headers") {
                    seen.push((
                        "headers",
                        Context::from_object(Headers(got.headers.clone())),
                    ));
                }
                if !wants("last_record") {
                    return after(value, stop.as_deref(), &context(seen));
                }
                let with = |record: Option<&Bytes>| {
                    let record = record.and_then(|record| value::read(record, &[]));
                    let mut seen = seen.clone();
                    seen.push(("last_record", record.unwrap_or_else(|| Context::from(()))));
                    after(value, stop.as_deref(), &context(seen))
                };
                let next = with(found.last.as_ref());
                // Where the record is damaged in what the token is made of, the one before it tells where to go on: the
                // damaged one comes once more.
                let is_odd = match &next {
                    Ok(After::Page(token)) => token.to_string().contains('\u{FFFD}'),
                    Ok(After::Ended) | Err(_) => true,
                    Ok(After::Stopped) => false,
                };
                let sound = found.records.last().map(|record| &record.json);
                match found.last_is_damaged && is_odd && sound.is_some() {
                    true => with(sound),
                    false => next,
                }
            }
        }
    }

    /// How many records the stream has shown with this page, where the position tells.
    pub fn shown(&self, at: &Position, found: &Found) -> Option<u64> {
        let Some(next) = at.next else {
            return Some(came(found));
        };
        let before = match &self.strategy {
            Strategy::Offset { .. } => next.as_u64(),
            Strategy::Page { size, start, .. } => {
                let pages = next.as_u64()?.checked_sub(*start);
                pages
                    .zip(*size)
                    .map(|(pages, size)| pages.saturating_mul(size))
            }
            Strategy::Cursor { .. } => None,
        };
        before.map(|before| before.saturating_add(came(found)))
    }

    /// What may be wrong where the stream ends too early.
    pub fn doubt(&self) -> &'static str {
        match self.strategy {
            Strategy::Cursor { .. } => "\"cursor_value\" of the manifest's paginator gives nothing",
            _ => {
                "the page is shorter than \"page_size\"; without \"page_size\" in the manifest's pagination_strategy, a stream ends at an empty page"
            }
        }
    }
}

/// What follows a page.
pub enum After {
    Page(Value),
    Ended,
    /// The manifest's `stop_condition` says so.
    Stopped,
}

fn came(found: &Found) -> u64 {
    (found.records.len() + found.rejected.len()) as u64
}

fn after(value: &Template, stop: Option<&Template>, context: &Context) -> Result<After, Failure> {
    if let Some(stop) = stop
        && stop.truth(context)?
    {
        return Ok(After::Stopped);
    }
    Ok(match value.truth(context)? {
        true => After::Page(value::to_json(&value.value(context)?)),
        false => After::Ended,
    })
}

impl Strategy {
    fn read(mut component: Component) -> Result<Strategy, Failure> {
        let strategy = match component.kind() {
            "OffsetIncrement" => Strategy::Offset {
                size: size(&mut component)?,
                first: component.flag("inject_on_first_request")?,
            },
            "PageIncrement" => Strategy::Page {
                size: size(&mut component)?,
                start: component.number("start_from_page")?.unwrap_or(0),
                first: component.flag("inject_on_first_request")?,
            },
            "CursorPagination" => {
                let value = component
                    .template("cursor_value", &OFFERED)?
                    .ok_or_else(|| component.missing("cursor_value"))?;
                Strategy::Cursor {
                    size: size(&mut component)?,
                    value: Box::new(value),
                    stop: component
                        .template("stop_condition", &OFFERED)?
                        .map(Box::new),
                }
            }
            _ => return Err(component.unsupported()),
        };
        component.finish()?;
        Ok(strategy)
    }

    fn size(&self) -> Option<u64> {
        match self {
            Strategy::Offset { size, .. }
            | Strategy::Page { size, .. }
            | Strategy::Cursor { size, .. } => *size,
        }
    }

    fn first_token(&self) -> Option<Value> {
        match self {
            Strategy::Offset { first: true, .. } => Some(0.into()),
            Strategy::Page {
                first: true, start, ..
            } => Some((*start).into()),
            _ => None,
        }
    }
}

fn size(component: &mut Component) -> Result<Option<u64>, Failure> {
    match component.number("page_size")? {
        // Every page would be a full one.
        Some(0) => Err(wrong(format!(
            "\"{}\" may not be 0",
            component.place("page_size")
        ))),
        size => Ok(size),
    }
}
