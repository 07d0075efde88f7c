//! Which rows there are: at the end of a first pass, or of a refresh, what is stored and not listed is gone, although it
//! has left the recycle bin without a trace.

use chrono::{DateTime, TimeDelta};
use url::Url;

use super::{Next, SalesforceReader, Step};
use crate::error::Failure;
use crate::json::Found;
use crate::record::{Listing, Page};
use crate::source::reading::{self, Shape};
use crate::source::{Position, Response};

/// Rows beyond which nothing is listed. More: each run would remember all of them. Fewer: of larger objects hard deletions
/// are not found.
const MOST: u64 = 200_000;

impl SalesforceReader {
    pub fn listing_url(&self, at: &Position, object: &str, next: &Next) -> Result<Url, Failure> {
        let fields: Vec<String> = ["Id"]
            .into_iter()
            .chain(next.stamp.as_deref())
            .chain(next.has_deleted.then_some("IsDeleted"))
            .map(str::to_owned)
            .collect();
        // What changes meanwhile is there, too.
        let to = at.window.to + TimeDelta::days(1);
        let span = Some((DateTime::UNIX_EPOCH, to));
        self.query(at, object, &fields, next.stamp.as_deref(), span)
    }

    pub fn listed(&self, at: &Position, got: &Response, next: Next) -> Result<Page, Failure> {
        let shape = Shape {
            path: "records",
            key: &["Id"],
            gone: Some(("IsDeleted", "true")),
            ..Shape::default()
        };
        let found = self.common.read(at, got, &shape)?;
        let (more, total, _) = self.continuation(got)?;
        let is_first = next.more.is_none();
        if is_first && total > MOST {
            return Ok(Page {
                warning: Some(format!(
                    "stream \"{}\": rows that were deleted for good are not looked for: the object has more than {MOST} rows",
                    at.stream.name
                )),
                ..reading::step(at, None::<Next>)?
            });
        }
        let next = more.map(|more| Next {
            more: Some(more),
            step: Step::Listing,
            ..next
        });
        Ok(Page {
            shown: found.records.into_iter().map(|record| record.id).collect(),
            listing: match is_first {
                true => Listing::Begins,
                false => Listing::GoesOn,
            },
            ..reading::page(Found::default(), next, at.high.cloned())?
        })
    }
}
