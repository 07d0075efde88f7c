//! Reads the nodes of a response, and where their lists continue.

use std::collections::HashMap;

use serde::Deserialize;

use crate::error::Failure;
use crate::source::reading::strange;

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

/// The fields of a page beside its records.
#[derive(Deserialize)]
pub struct Answer<T> {
    pub data: HashMap<String, T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    pub nodes: Vec<Node>,
    pub page_info: PageInfo,
}

#[derive(Deserialize)]
pub struct Node {
    #[serde(default)]
    pub id: String,
    #[serde(rename = "updatedAt", default)]
    pub updated_at: Option<String>,
    #[serde(alias = "lineItems", alias = "inventoryLevels", default)]
    pub inner: Option<Inner>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inner {
    pub page_info: PageInfo,
}
