//! The rest of a long pass as one file.
//!
//! By pages, a shop with a hundred thousand orders takes half a day, because each page is paid for from an account that
//! fills slowly. A bulk operation is prepared by Shopify in minutes and costs nothing more; its file is read in parts,
//! and each part is a page that commits like any other. The file is in no order, so that the cursor moves at its end.
//! Where the shop is busy with another one, or it fails, the pass goes on by pages.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::answer::Node;
use super::deletions;
use super::streams::{Asks, Spec};
use super::{Next, ShopifyReader, filter};
use crate::error::{Code, Failure};
use crate::json;
use crate::record::{Count, Page};
use crate::source::reading::{self, strange};
use crate::source::request::verdict_by_status;
use crate::source::window::highest;
use crate::source::{Position, Request, Response, Verdict};
use crate::template::parse_any;

/// Pages after which the rest is asked for as one file. More: large shops wait for hours. Fewer: small ones wait for a
/// file when two more pages would have done.
const PAYS_AFTER: u32 = 40;

/// Bytes of one part. More: a larger transaction, and one of the few permits for large bodies. Fewer: more requests.
const PART: u64 = 1024 * 1024;

/// The longest line that is asked for.
const LONGEST_LINE: u64 = 64 * 1024 * 1024;

/// The longest pause between two requests for the state of the operation.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Requests for the state of the operation before the pass continues page by page: some ten hours.
const MOST_LOOKS: u32 = 600;

/// The state of a bulk operation.
#[derive(Default, Clone, Serialize, Deserialize)]
pub struct Bulk {
    /// `None`: it is not started yet.
    id: Option<String>,
    looks: u32,
    file: Option<File>,
}

#[derive(Clone, Serialize, Deserialize)]
struct File {
    url: Url,
    size: u64,
    /// Nodes in it, by the vendor's count.
    nodes: u64,
    /// Bytes and nodes that were read.
    offset: u64,
    read: u64,
    /// Bytes of the next part.
    part: u64,
    /// The greatest stamp so far.
    high: Option<String>,
}

/// Whether the rest of a pass is better read as a file.
pub fn pays(spec: &Spec, next: &Next) -> bool {
    // A list within a list comes as lines of its own, which are other records than those of a page.
    spec.rest.is_none() && next.more && next.pages >= PAYS_AFTER && !next.by_pages
}

impl Bulk {
    /// The query that starts the operation, or asks for its state.
    pub fn query(&self, at: &Position, spec: &Spec, asks: Asks) -> Value {
        match &self.id {
            None => {
                // What lies before the greatest stamp has been read.
                let reached = at.high.and_then(Value::as_str).and_then(parse_any);
                let from = reached.max(at.window.from).unwrap_or_default();
                json!({
                    "query": "mutation ($query: String!) { bulkOperationRunQuery(query: $query, groupObjects: false) { bulkOperation { id } userErrors { code message } } }",
                    "variables": {"query": spec.bulk_query(&filter(from, at.window.to), asks)},
                })
            }
            Some(id) => json!({
                "query": "query ($id: ID!) { node(id: $id) { ... on BulkOperation { id status errorCode rootObjectCount fileSize url } } }",
                "variables": {"id": id},
            }),
        }
    }

    /// A request that is not one of the API: it shows no token.
    pub fn part(&self) -> Option<Request> {
        let file = self.file.as_ref()?;
        let end = (file.offset + file.part).min(file.size);
        Some(Request::get_part(file.url.clone(), file.offset..end))
    }

    /// What a response means that is a part of the file.
    pub fn verdict(&self, got: &Response) -> Option<Verdict> {
        self.file.as_ref()?;
        Some(match got.status {
            200 | 206 => Verdict::Read,
            // The address is good for a week.
            400 | 403 | 404 | 410 => {
                let what = "the bulk file has expired";
                Verdict::Expired(got.failure(Code::RequestRefused, what))
            }
            _ => verdict_by_status(got),
        })
    }
}

#[derive(Deserialize)]
struct Started {
    #[serde(rename = "bulkOperationRunQuery")]
    started: Option<Run>,
}

#[derive(Deserialize)]
struct Run {
    #[serde(rename = "bulkOperation")]
    operation: Option<Operation>,
    #[serde(rename = "userErrors", default)]
    errors: Vec<UserError>,
}

#[derive(Deserialize)]
struct UserError {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl UserError {
    /// Whether another operation is running, which is nothing out of the ordinary.
    fn is_busy(&self) -> bool {
        match self.code.as_deref() {
            Some("OPERATION_IN_PROGRESS" | "LIMIT_REACHED") => true,
            Some(_) => false,
            // Older versions have no codes.
            None => {
                let message = self.message.as_deref().unwrap_or_default();
                message.contains("already in progress")
            }
        }
    }
}

#[derive(Deserialize)]
struct Looked {
    node: Option<Operation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    id: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    root_object_count: Option<Value>,
    #[serde(default)]
    file_size: Option<Value>,
    #[serde(default)]
    url: Option<Url>,
}

/// 64 bits come as text.
fn number(value: Option<Value>) -> Option<u64> {
    match value? {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    }
}

#[derive(Deserialize)]
struct Answer<T> {
    data: Option<T>,
}

impl ShopifyReader {
    pub fn bulk(
        &self,
        at: &Position,
        got: &Response,
        spec: &Spec,
        next: Next,
        bulk: Bulk,
    ) -> Result<Page, Failure> {
        if let Some(file) = bulk.file.clone() {
            return self.file(at, got, spec, next, bulk, file);
        }
        // The answer is looked at as a whole first: what is none of the API's is no reason to go on by pages.
        reading::whole::<serde_json::Map<String, Value>>(got)?;
        match bulk.id {
            None => started(at, got, next, bulk),
            Some(_) => looked(at, got, spec, next, bulk),
        }
    }

    /// One part of the file.
    fn file(
        &self,
        at: &Position,
        got: &Response,
        spec: &Spec,
        next: Next,
        bulk: Bulk,
        mut file: File,
    ) -> Result<Page, Failure> {
        let Some((lines, used)) = lines(got, &file)? else {
            file.part *= 2;
            if file.part > LONGEST_LINE {
                let message =
                    format!("a line of the bulk file is longer than {LONGEST_LINE} bytes");
                return Err(Failure::new(Code::ResponseTooLarge, message));
            }
            return reading::step(at, Some(goes_on(next, bulk, file)));
        };
        let got = Response {
            status: 200,
            headers: Vec::new(),
            body: lines,
        };
        let nodes = json::items(&got.body, &[]).flatten();
        let nodes = nodes.ok_or_else(|| strange("a line of the bulk file is not valid"))?;
        let nodes: Vec<Node> = nodes.into_iter().map(Node).collect();
        let stamps = self.stamps(at, spec, &nodes)?;
        let found = self.records(at, &got, spec, "", &nodes)?;
        file.read += nodes.len() as u64;
        file.offset += used;
        file.part = PART;
        let reached = file.high.take().map(Value::from);
        let reached = highest(reached.as_ref(), &stamps, at.window.to, parse_any).0;
        file.high = reached.as_ref().and_then(Value::as_str).map(str::to_owned);
        if file.offset < file.size {
            return reading::page(found, Some(goes_on(next, bulk, file)), at.high.cloned());
        }
        let last: Vec<String> = file.high.into_iter().collect();
        Ok(Page {
            count: Some(Count {
                vendor: file.nodes,
                read: file.read,
            }),
            ..reading::page(
                found,
                deletions::follow(at, spec),
                self.common.high(at, &last),
            )?
        })
    }
}

fn goes_on(next: Next, bulk: Bulk, file: File) -> Next {
    let bulk = Bulk {
        file: Some(file),
        ..bulk
    };
    Next {
        bulk: Some(bulk),
        ..next
    }
}

/// The whole lines of a part as one list, and how many bytes they are. `None`: not a single one.
fn lines(got: &Response, file: &File) -> Result<Option<(Bytes, u64)>, Failure> {
    let body = match got.status {
        // Ranges are not known there, and everything came.
        200 if got.body.len() as u64 == file.size => {
            got.body.slice((file.offset as usize).min(got.body.len())..)
        }
        206 => got.body.clone(),
        _ => {
            return Err(strange(
                "the bulk file does not have the size that Shopify announced",
            ));
        }
    };
    let end = file.offset + body.len() as u64;
    if body.is_empty() || end > file.size {
        return Err(strange(
            "Shopify sent another part of the bulk file than was requested",
        ));
    }
    let used = if end == file.size {
        body.len()
    } else {
        match memchr::memrchr(b'\n', &body) {
            None => return Ok(None),
            Some(last) => last + 1,
        }
    };
    let mut list = vec![b'['];
    for line in body.slice(..used).split(|byte| *byte == b'\n') {
        if !line.trim_ascii().is_empty() {
            if list.len() > 1 {
                list.push(b',');
            }
            list.extend_from_slice(line);
        }
    }
    list.push(b']');
    Ok(Some((list.into(), used as u64)))
}

fn started(at: &Position, got: &Response, next: Next, bulk: Bulk) -> Result<Page, Failure> {
    let answer: Answer<Started> = reading::whole(got)?;
    let run = answer.data.and_then(|data| data.started);
    let errors = run.as_ref().map_or(&[][..], |run| &run.errors);
    let is_busy = errors.iter().any(UserError::is_busy);
    let is_word =
        |code: &&str| code.len() <= 40 && code.bytes().all(|c| c.is_ascii_uppercase() || c == b'_');
    let code = errors.iter().find_map(|error| error.code.as_deref());
    let code = code
        .filter(is_word)
        .map_or_else(String::new, |code| format!(" ({code})"));
    let refused =
        format!("Shopify refused the bulk query{code}; the stream is read page by page instead");
    match run.and_then(|run| run.operation) {
        // Another operation is going on.
        None if is_busy => by_pages(at, next, None),
        None => by_pages(at, next, Some(&refused)),
        Some(operation) => {
            let bulk = Bulk {
                id: Some(operation.id),
                ..bulk
            };
            wait(at, next, bulk)
        }
    }
}

fn looked(
    at: &Position,
    got: &Response,
    spec: &Spec,
    next: Next,
    bulk: Bulk,
) -> Result<Page, Failure> {
    let answer: Answer<Looked> = reading::whole(got)?;
    let failed = Some("Shopify's bulk operation failed; the stream is read page by page instead");
    let Some(operation) = answer.data.and_then(|data| data.node) else {
        return by_pages(at, next, failed);
    };
    match operation.status.as_str() {
        "CREATED" | "RUNNING" if bulk.looks < MOST_LOOKS => wait(at, next, bulk),
        "COMPLETED" => {
            let nodes = number(operation.root_object_count);
            let nodes = nodes.ok_or_else(|| {
                strange("the bulk operation does not say how many objects it found")
            })?;
            if nodes == 0 {
                return reading::step(at, deletions::follow(at, spec));
            }
            let size = number(operation.file_size).filter(|size| *size > 0);
            let (Some(url), Some(size)) = (operation.url, size) else {
                return Err(strange("the bulk operation has ended without a file"));
            };
            let file = File {
                url,
                size,
                nodes,
                offset: 0,
                read: 0,
                part: PART,
                high: None,
            };
            reading::step(at, Some(goes_on(next, bulk, file)))
        }
        _ => by_pages(at, next, failed),
    }
}

fn wait(at: &Position, next: Next, mut bulk: Bulk) -> Result<Page, Failure> {
    let pause = Duration::from_secs(1 << bulk.looks.min(6)).min(LONGEST_PAUSE);
    bulk.looks += 1;
    let next = Next {
        bulk: Some(bulk),
        ..next
    };
    Ok(Page {
        wait: Some((
            pause,
            "Shopify is preparing a bulk file with the rest of the stream",
        )),
        ..reading::step(at, Some(next))?
    })
}

fn by_pages(at: &Position, next: Next, why: Option<&str>) -> Result<Page, Failure> {
    let next = Next {
        bulk: None,
        by_pages: true,
        ..next
    };
    Ok(Page {
        warning: why.map(|why| format!("stream \"{}\": {why}", at.stream.name)),
        ..reading::step(at, Some(next))?
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the size of a part, each line of the file comes once and in its order.
        #[test]
        fn a_file_read_in_parts_is_the_whole_file(
            lines in prop::collection::vec("[ -~]{0,40}", 1..40),
            part in 1_u64..60,
            ends in any::<bool>(),
            whole in any::<bool>(),
        ) {
            let ids: Vec<Value> = lines.iter().map(|line| json!({"id": line})).collect();
            let texts: Vec<String> = ids.iter().map(Value::to_string).collect();
            let mut text = texts.join("\n");
            if ends {
                text.push('\n');
            }
            let size = text.len() as u64;
            let mut file = File {
                url: Url::parse("https://example.com/file").unwrap(),
                size,
                nodes: 0,
                offset: 0,
                read: 0,
                part,
                high: None,
            };
            let mut came = Vec::new();
            while file.offset < size {
                let end = (file.offset + file.part).min(size);
                let got = Response {
                    // A server may not know ranges.
                    status: if whole { 200 } else { 206 },
                    headers: Vec::new(),
                    body: if whole {
                        text.clone().into()
                    } else {
                        Bytes::copy_from_slice(&text.as_bytes()[file.offset as usize..end as usize])
                    },
                };
                match super::lines(&got, &file).unwrap() {
                    None => file.part *= 2,
                    Some((list, used)) => {
                        let list: Vec<Value> = serde_json::from_slice(&list).unwrap();
                        came.extend(list);
                        file.offset += used;
                        file.part = part;
                    }
                }
            }
            prop_assert_eq!(came, ids);
        }
    }
}
