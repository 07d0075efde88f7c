//! Pages of nodes, and of the lists within them.

use super::answer::{Answer, Connection, Node};
use super::bulk::{self, Bulk};
use super::streams::{Rest, Spec};
use super::{Next, REST_FIRST, ShopifyReader};
use crate::error::{Code, Failure};
use crate::record::Page;
use crate::source::reading::{self, Shape, strange};
use crate::source::{Position, Response};
use crate::template::parse_any;

/// Asks for the same page again, with half as many nodes.
pub fn with_fewer_nodes(at: &Position, spec: &Spec, next: Next) -> Result<Page, Failure> {
    let usual = if next.rest.is_empty() {
        spec.first
    } else {
        REST_FIRST
    };
    let first = next.first.unwrap_or(usual) / 2;
    if first == 0 {
        return Err(Failure::new(
            Code::RequestRefused,
            "a query for a single record costs more than the rate limit of the shop allows",
        ));
    }
    let next = Next {
        first: Some(first),
        ..next
    };
    reading::step(at, Some(next))
}

fn goes_on(next: Next) -> Option<Next> {
    (next.more || !next.rest.is_empty()).then_some(next)
}

impl ShopifyReader {
    pub fn nodes(
        &self,
        at: &Position,
        got: &Response,
        spec: &Spec,
        mut next: Next,
    ) -> Result<Page, Failure> {
        let mut answer: Answer<Connection> = reading::whole(got)?;
        let connection = answer.data.remove(spec.root);
        let connection = connection.ok_or_else(|| strange("the response has no data"))?;
        let inner: Vec<&str> = spec
            .inner
            .split('.')
            .filter(|step| !step.is_empty())
            .collect();
        let below = if inner.is_empty() {
            String::new()
        } else {
            format!(".*.{}", inner.join("."))
        };
        let shape = Shape {
            path: &format!("data.{}.nodes{below}", spec.root),
            key: &["id"],
            ..Shape::default()
        };
        let found = if connection.nodes.is_empty() {
            Default::default()
        } else {
            self.common.read(at, got, &shape)?
        };
        let stamps = self.stamps(at, spec, &connection.nodes)?;
        let high = self.common.high(at, &stamps);
        let after = connection.page_info.next()?;
        let mut rest = Vec::new();
        for node in connection.nodes.into_iter().rev() {
            if let Some(inner) = node.inner
                && let Some(cursor) = inner.page_info.next()?
            {
                rest.push((node.id, cursor));
            }
        }
        let mut next = Next {
            more: after.is_some(),
            after: after.or(next.after.take()),
            rest,
            pages: next.pages + 1,
            ..next
        };
        if bulk::pays(spec, &next) {
            next.bulk = Some(Bulk::default());
        }
        reading::page(found, goes_on(next), high)
    }

    /// The stamps of nodes, where the stream has any. Not understood, a filter is ignored, and everything comes.
    pub fn stamps(
        &self,
        at: &Position,
        spec: &Spec,
        nodes: &[Node],
    ) -> Result<Vec<String>, Failure> {
        if spec.stamp.is_empty() {
            return Ok(Vec::new());
        }
        let from = at.window.from.unwrap_or_default();
        let is_within = |text: &String| parse_any(text).is_some_and(|stamp| stamp >= from);
        let stamps = nodes
            .iter()
            .map(|node| node.updated_at.clone().filter(is_within));
        let stamps: Option<Vec<String>> = stamps.collect();
        stamps.ok_or_else(|| {
            strange("Shopify ignored the filter: a record is outside the requested period")
        })
    }

    /// The rest of an inner list.
    pub fn rest(
        &self,
        at: &Position,
        got: &Response,
        rest: &Rest,
        mut next: Next,
    ) -> Result<Page, Failure> {
        let mut answer: Answer<Option<Node>> = reading::whole(got)?;
        let node = answer.data.remove(rest.root);
        let node = node.ok_or_else(|| strange("the response has no data"))?;
        let Some((id, _)) = next.rest.pop() else {
            return Err(Failure::new(Code::Internal, "the list to continue is gone"));
        };
        // The node may be gone since; what it held is found missing, or comes with its next change.
        let Some(node) = node else {
            return reading::step(at, goes_on(next));
        };
        let inner = node
            .inner
            .ok_or_else(|| strange("the response lacks the requested list"))?;
        let shape = Shape {
            path: &format!("data.{}.{}.nodes", rest.root, rest.connection),
            key: &["id"],
            ..Shape::default()
        };
        let found = self.common.read(at, got, &shape)?;
        if let Some(cursor) = inner.page_info.next()? {
            next.rest.push((id, cursor));
        }
        reading::page(found, goes_on(next), at.high.cloned())
    }
}
