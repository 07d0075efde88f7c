//! Queries: records from a moment on, page after page, and the vendor's count of them.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::streams::Spec;
use super::{MOST_KNOWN, Next, PAGE, QuickBooksReader, STAMP, Step, check, settled};
use crate::error::{Code, Failure};
use crate::record::{Count, Page};
use crate::source::reading::{self, Shape, strange};
use crate::source::window::highest;
use crate::source::{Position, Response};
use crate::template::parse_any;

impl QuickBooksReader {
    pub fn queried(
        &self,
        at: &Position,
        got: &Response,
        spec: &Spec,
        next: Next,
    ) -> Result<Page, Failure> {
        check(got, "QueryResponse")?;
        let shape = Shape {
            path: &format!("QueryResponse.{}", spec.entity),
            key: &["Id"],
            stamp: STAMP,
            ..Shape::default()
        };
        let found = match self.common.read(at, got, &shape) {
            // "Nothing found" is an empty object.
            Err(failure) if failure.code == Code::UnexpectedShape => {
                reading::check_empty(got, "QueryResponse")?;
                check_empty_query(got)?;
                Default::default()
            }
            found => found?,
        };
        // The window's end is in whole seconds, and so are the stamps.
        let (high, any_read) = highest(at.high, &found.cursors, at.window.to, parse_any);
        let came = found.records.len() + found.rejected.len();
        if !found.records.is_empty() && !any_read {
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
            let message = "QuickBooks ignored STARTPOSITION: the same records came again";
            return Err(Failure::new(Code::RepeatedPage, message));
        }
        let last = found
            .cursors
            .iter()
            .filter_map(|text| parse_any(text))
            .max();
        let next = match last {
            // All of them are damaged, and say nothing of where to go on: behind them.
            None if came > 0 => Next {
                skip: next.skip + came,
                read,
                ..next
            },
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
            // One that enters a second pushes those behind it into the next page.
            overlaps: true,
            // A part of a whole read does not show what is gone.
            counts: next.skip > 0 || spec.whole,
            ..reading::page(found, Some(next), high)?
        })
    }
}

pub fn counted(at: &Position, got: &Response, spec: &Spec, next: Next) -> Result<Page, Failure> {
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
    check(got, "QueryResponse")?;
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
        ..reading::step(at, goes_on)?
    })
}

/// Checks that an empty response is an empty result and nothing else.
fn check_empty_query(got: &Response) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "QueryResponse")]
        response: serde_json::Map<String, Value>,
    }
    let answer: Answer = reading::whole(got)?;
    match answer.response.values().any(Value::is_array) {
        true => Err(strange(
            "the response is about another entity than was requested",
        )),
        false => Ok(()),
    }
}
