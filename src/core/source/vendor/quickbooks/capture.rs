//! Change data capture: what was deleted since the last pass.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::streams::Spec;
use super::{Next, QuickBooksReader, check};
use crate::error::{Code, Failure};
use crate::record::Page;
use crate::source::reading::{self, Shape, strange};
use crate::source::{Position, Response};

/// Most objects of one answer of change data capture, which has no pages.
const CAPTURED: usize = 1_000;

/// How far back change data capture goes, less an hour.
const CAPTURE_KEPT: TimeDelta = TimeDelta::hours(30 * 24 - 1);

pub fn captured_since(at: &Position) -> DateTime<Utc> {
    let from = at.window.from.unwrap_or_default();
    from.max(at.start.now - CAPTURE_KEPT)
}

fn check_empty_capture(got: &Response) -> Result<(), Failure> {
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
        true => Err(strange("QuickBooks answered with a fault")),
        false => Ok(()),
    }
}

impl QuickBooksReader {
    /// What was deleted since the last pass. The records that changed have been queried.
    pub fn captured(&self, at: &Position, got: &Response, spec: &Spec) -> Result<Page, Failure> {
        check(got, "CDCResponse")?;
        let shape = Shape {
            path: &format!("CDCResponse.*.QueryResponse.*.{}", spec.entity),
            key: &["Id"],
            gone: Some(("status", "\"Deleted\"")),
            ..Shape::default()
        };
        let found = match self.common.read(at, got, &shape) {
            Err(failure) if failure.code == Code::UnexpectedShape => {
                reading::check_empty(got, "CDCResponse")?;
                check_empty_capture(got)?;
                Default::default()
            }
            found => found?,
        };
        let came = found.records.len() + found.deleted.len();
        let warning = if came >= CAPTURED {
            Some(
                "QuickBooks reports at most 1000 changes at once, and there were more; the other deletions are not known; to find them: connector_service_refresh(...); sync more often",
            )
        } else if at.start.is_later_than(CAPTURE_KEPT, at.window.from) {
            Some(
                "QuickBooks only reports deletions of the last 30 days, and the last sync is older; earlier deletions are not known; to find them: connector_service_refresh(...)",
            )
        } else {
            None
        };
        Ok(Page {
            deleted: found.deleted,
            warning: warning.map(|text| format!("stream \"{}\": {text}", at.stream.name)),
            ..reading::step(at, None::<Next>)?
        })
    }
}
