//! Reads the nodes of a response in their own text, and where their lists continue. What is wrong within one node is
//! that node's matter: where the text is not JSON, its structure still shows the others.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Code, Failure};
use crate::json;
use crate::source::Response;
use crate::source::reading::{self, strange};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageInfo {
    has_next_page: bool,
    end_cursor: Option<String>,
}

impl PageInfo {
    pub fn next(self) -> Result<Option<String>, Failure> {
        match (self.has_next_page, self.end_cursor) {
            (false, _) => Ok(None),
            (true, Some(cursor)) => Ok(Some(cursor)),
            (true, None) => Err(strange(
                "a list has more pages, but no cursor to the next one",
            )),
        }
    }
}

/// An object in its own text.
#[derive(Clone, Copy)]
pub struct Node<'a>(pub &'a [u8]);

impl<'a> Node<'a> {
    /// A field in its own text; null is as good as none.
    pub fn field(self, name: &str) -> Option<Node<'a>> {
        let is_it = |key: &[u8]| serde_json::from_slice::<String>(key).is_ok_and(|key| key == name);
        let fields = json::fields(self.0)?.into_iter().rev();
        let mut found = fields.filter(|(key, _)| is_it(key));
        let (_, value) = found.next()?;
        (value != b"null").then_some(Node(value))
    }

    pub fn text(self, name: &str) -> Option<String> {
        serde_json::from_slice(self.field(name)?.0).ok()
    }

    /// The nodes of a list, and where it continues.
    pub fn list(self) -> Result<(Vec<Node<'a>>, Option<String>), Failure> {
        let wrong = || strange("the response lacks the requested list");
        let nodes = self.field("nodes").ok_or_else(wrong)?;
        if !nodes.0.starts_with(b"[") {
            return Err(wrong());
        }
        let nodes = json::items(nodes.0, &[]).flatten().ok_or_else(wrong)?;
        let info = self.field("pageInfo").ok_or_else(wrong)?;
        let info: PageInfo = serde_json::from_slice(info.0).map_err(|_| wrong())?;
        Ok((nodes.into_iter().map(Node).collect(), info.next()?))
    }
}

/// The data of a response, which is whole.
pub fn data(got: &Response) -> Result<Option<Node<'_>>, Failure> {
    let body = got.body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&got.body);
    let body = body.trim_ascii();
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(body) {
        let size = got.body.len();
        if error.is_eof() {
            let message = format!("the response breaks off after {size} bytes");
            return Err(Failure::new(Code::TruncatedResponse, message));
        }
        if json::items(body, &[]).is_none() {
            reading::check_empty(got, "")?;
            let message = format!("the response of {size} bytes is not JSON");
            return Err(Failure::new(Code::InvalidJson, message));
        }
    }
    if !body.starts_with(b"{") {
        return Err(reading::refused(got, "the response is not an object"));
    }
    Ok(Node(body).field("data"))
}

/// What a response has at the top of its data.
pub fn root<'a>(got: &'a Response, name: &str) -> Result<Option<Node<'a>>, Failure> {
    let data = data(got)?.ok_or_else(|| reading::refused(got, "the response has no data"))?;
    Ok(data.field(name))
}
