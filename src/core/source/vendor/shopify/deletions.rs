//! What was deleted since the last pass, by the shop's events, which Shopify keeps for a year.
//!
//! They are asked for at the end of each pass, from when the latest complete pass began. A pass that has no such moment
//! (the first one, or a refresh) asks for the whole year.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::answer::{self, Node};
use super::streams::{DELETIONS, Gone, Spec};
use super::{Next, Step, stamp};
use crate::error::Failure;
use crate::json::Found;
use crate::record::{GoneWith, Page};
use crate::source::reading;
use crate::source::{Position, Response};

/// Events of one page.
pub const FIRST: u32 = 250;

/// How long events are kept.
const KEPT: TimeDelta = TimeDelta::days(365);

/// An event may become visible late.
const LOOKBACK: TimeDelta = TimeDelta::minutes(10);

/// How the pass goes on once it has read all nodes.
pub fn follow(at: &Position, spec: &Spec) -> Option<Next> {
    let asks = spec.gone.is_some() && at.start.span.is_none();
    asks.then(|| Next {
        step: Step::Deletions,
        ..Next::default()
    })
}

pub fn query(at: &Position, spec: &Spec, next: &Next) -> Value {
    let kept = at.start.now - KEPT;
    let from = at.start.read_until.map(|until| until - LOOKBACK);
    let from = stamp(from.map_or(kept, |from| from.max(kept)));
    let subject = spec.gone.as_ref().map_or("", |gone| gone.subject);
    json!({
        "query": DELETIONS,
        "variables": {
            "first": next.first.unwrap_or(FIRST),
            "after": next.after,
            "query": format!("action:'destroy' AND subject_type:'{subject}' AND created_at:>='{from}'"),
        },
    })
}

/// The id of what an event says was deleted.
fn subject(event: Node, gone: &Gone) -> Option<String> {
    let action = event.text("action")?;
    let is_deletion = action.contains("destroy") || action.contains("delete");
    let is_ours = event.text("subjectType").as_deref() == Some(gone.subject);
    event.text("subjectId").filter(|_| is_deletion && is_ours)
}

pub fn page(at: &Position, got: &Response, spec: &Spec, next: Next) -> Result<Page, Failure> {
    let name = &at.stream.name;
    // The next pass asks for the same time again.
    let not_found = |why: &str| {
        Ok(Page {
            warning: Some(format!("stream \"{name}\": deletions are not found: {why}")),
            is_cut_off: true,
            ..reading::step(at, None::<Next>)?
        })
    };
    if got.status != 200 {
        return not_found("this token may not read the shop's events");
    }
    if reading::around(got, "data").contains_key("errors") {
        return not_found("Shopify does not show this token the shop's events");
    }
    let events = answer::root(got, "events")?;
    let events = events.ok_or_else(|| reading::refused(got, "the response has no data"))?;
    let (events, after) = events.list()?;
    let Some(gone) = &spec.gone else {
        return reading::step(at, None::<Next>);
    };
    let ids: Vec<String> = events
        .iter()
        .filter_map(|event| subject(*event, gone))
        .collect();
    if ids.is_empty() && !events.is_empty() {
        return not_found("Shopify ignored the filter and shows other events");
    }
    let is_late = at.next.is_some()
        && next.after.is_none()
        && at
            .start
            .read_until
            .is_some_and(|until| until < at.start.now - KEPT);
    let next = after.map(|after| Next {
        after: Some(after),
        ..next
    });
    let page = reading::page(Found::default(), next, at.high.cloned())?;
    Ok(Page {
        warning: is_late.then(|| format!("stream \"{name}\": the last sync is longer ago than Shopify keeps deletions; records deleted in between may still count")),
        ..match gone.field {
            "" => Page {
                deleted: ids.iter().map(|id| format!("{name}/{id}")).collect(),
                ..page
            },
            field => Page {
                deleted_with: Some(GoneWith {
                    path: field.split('.').map(str::to_owned).collect(),
                    values: ids,
                }),
                ..page
            },
        }
    })
}
