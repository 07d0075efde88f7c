//! Pages of nodes, and of the lists within them.

use super::answer::{self, Node};
use super::bulk::{self, Bulk};
use super::deletions;
use super::streams::Spec;
use super::{Next, REST_FIRST, ShopifyReader, Step};
use crate::error::{Code, Failure};
use crate::json::Found;
use crate::record::Page;
use crate::source::reading::{self, Shape, strange};
use crate::source::{Position, Response};
use crate::template::parse_any;

/// Asks for the same page again, with half as many nodes.
pub fn with_fewer_nodes(at: &Position, spec: &Spec, next: Next) -> Result<Page, Failure> {
    let usual = match next.step {
        Step::Deletions => deletions::FIRST,
        Step::Nodes if next.rest.is_empty() => spec.first,
        Step::Nodes => REST_FIRST,
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

/// The next page; after the last one, what was deleted.
pub fn goes_on(at: &Position, spec: &Spec, next: Next) -> Option<Next> {
    if next.more || !next.rest.is_empty() {
        return Some(next);
    }
    deletions::follow(at, spec)
}

/// The steps to the records below a node.
fn inner(spec: &Spec) -> impl Iterator<Item = &'static str> {
    spec.inner.split('.').filter(|step| !step.is_empty())
}

/// A record with what its node says of itself. `None`: it is no object, and stays what it is.
fn with_parent(record: Node, name: &str, parent: &[u8]) -> Option<Vec<u8>> {
    let fields = record.0.trim_ascii().strip_suffix(b"}")?;
    let inner = fields.strip_prefix(b"{")?;
    let comma: &[u8] = match inner.trim_ascii() {
        [] => b"",
        _ => b",",
    };
    Some([fields, comma, b"\"", name.as_bytes(), b"\":", parent, b"}"].concat())
}

/// The fields of a node that its records get.
fn parent(node: Node, names: &[&str]) -> Vec<u8> {
    let fields = names.iter().map(|name| {
        let value = node.field(name).map_or(&b"null"[..], |value| value.0);
        [b"\"", name.as_bytes(), b"\":", value].concat()
    });
    let fields: Vec<Vec<u8>> = fields.collect();
    [b"{", fields.join(&b","[..]).as_slice(), b"}"].concat()
}

impl ShopifyReader {
    pub fn nodes(
        &self,
        at: &Position,
        got: &Response,
        spec: &Spec,
        mut next: Next,
    ) -> Result<Page, Failure> {
        let connection = answer::root(got, spec.root)?;
        let connection =
            connection.ok_or_else(|| reading::refused(got, "the response has no data"))?;
        let (nodes, after) = connection.list()?;
        let path = format!("data.{}.nodes", spec.root);
        let found = self.records(at, got, spec, &path, &nodes)?;
        let high = self.common.high(at, &self.stamps(at, spec, &nodes)?);
        let mut rest = Vec::new();
        if let (Some(_), Some(list)) = (spec.rest, inner(spec).next()) {
            for node in nodes.iter().rev() {
                let Some(list) = node.field(list) else {
                    continue;
                };
                let id = node.text("id").ok_or_else(|| strange("a node has no id"))?;
                if let (_, Some(cursor)) = list.list()? {
                    rest.push((id, cursor));
                }
            }
        }
        next.more = after.is_some();
        next.after = after.or(next.after.take());
        next.rest = rest;
        next.pages += 1;
        if bulk::pays(spec, &next) {
            next.bulk = Some(Bulk::default());
        }
        reading::page(found, goes_on(at, spec, next), high)
    }

    /// The records of nodes, which lie at `path`.
    pub fn records(
        &self,
        at: &Position,
        got: &Response,
        spec: &Spec,
        path: &str,
        nodes: &[Node],
    ) -> Result<Found, Failure> {
        let shape = |path| Shape {
            path,
            key: spec.key,
            ..Shape::default()
        };
        if nodes.is_empty() {
            return Ok(Found::default());
        }
        let Some((name, fields)) = spec.parent else {
            let steps = inner(spec).map(|step| format!(".{step}"));
            let below: String = match spec.inner {
                "" => String::new(),
                _ => std::iter::once(".*".to_owned()).chain(steps).collect(),
            };
            let path = format!("{path}{below}");
            return self
                .common
                .read(at, got, &shape(path.trim_start_matches('.')));
        };
        let Some(list) = inner(spec).next() else {
            return Err(Failure::new(Code::Internal, "no list within a node"));
        };
        let mut records: Vec<Vec<u8>> = Vec::new();
        for node in nodes {
            let Some(list) = node.field(list) else {
                continue;
            };
            let parent = parent(*node, fields);
            for record in list.list()?.0 {
                let with = with_parent(record, name, &parent);
                records.push(with.unwrap_or_else(|| record.0.to_vec()));
            }
        }
        let body = [b"[", records.join(&b","[..]).as_slice(), b"]"].concat();
        let got = Response {
            status: got.status,
            headers: Vec::new(),
            body: body.into(),
        };
        self.common.read(at, &got, &shape(""))
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
        let mut stamps = Vec::new();
        for node in nodes {
            // One that cannot be read moves nothing.
            let Some(stamp) = node.text(spec.stamp) else {
                continue;
            };
            match parse_any(&stamp) {
                Some(moment) if moment < from => {
                    return Err(strange(
                        "Shopify ignored the filter: a record is outside the requested period",
                    ));
                }
                Some(_) => stamps.push(stamp),
                None => {}
            }
        }
        if stamps.is_empty() && !nodes.is_empty() {
            return Err(strange("no record says when it changed"));
        }
        Ok(stamps)
    }

    /// The rest of an inner list.
    pub fn rest(
        &self,
        at: &Position,
        got: &Response,
        spec: &Spec,
        mut next: Next,
    ) -> Result<Page, Failure> {
        let root = spec.rest.unwrap_or_default();
        let node = answer::root(got, root)?;
        let Some((id, _)) = next.rest.pop() else {
            return Err(Failure::new(Code::Internal, "the list to continue is gone"));
        };
        // The node may be gone since; what it held is found missing, or comes with its next change.
        let Some(node) = node else {
            return reading::step(at, goes_on(at, spec, next));
        };
        let list = inner(spec).next().and_then(|list| node.field(list));
        let list = list.ok_or_else(|| strange("the response lacks the requested list"))?;
        if let (_, Some(cursor)) = list.list()? {
            next.rest.push((id, cursor));
        }
        let alone = Response {
            status: got.status,
            headers: Vec::new(),
            body: [b"[", node.0, b"]"].concat().into(),
        };
        let found = self.records(at, &alone, spec, "", &[node])?;
        reading::page(found, goes_on(at, spec, next), at.high.cloned())
    }
}
