//! Reads the description of an object, and decides which fields are selected.

use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::Value;

use super::objects::is_name;
use super::wide::Wide;
use super::{Next, SalesforceReader};
use crate::error::{Code, Failure};
use crate::record::Page;
use crate::source::reading::{self, strange};
use crate::source::{Position, Response};
use crate::template::parse_any;

/// The fields that tell of a change, the best first.
const STAMPS: [&str; 4] = [
    "SystemModstamp",
    "LastModifiedDate",
    "CreatedDate",
    "LoginTime",
];

/// Types whose parts are fields of their own, or that are no text.
const LEFT_OUT: [&str; 3] = ["address", "location", "base64"];

/// Longest address that is answered, with room for the host.
const LONGEST_URL: usize = 16_000;

/// How long deleted rows stay in the recycle bin, where queryAll finds them.
const BIN_KEPT: TimeDelta = TimeDelta::days(15);

#[derive(Deserialize)]
struct Described {
    name: String,
    queryable: bool,
    fields: Vec<DescribedField>,
}

#[derive(Deserialize)]
struct DescribedField {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

impl SalesforceReader {
    pub fn described(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let object = self.object(at.stream)?;
        let described: Described = reading::whole(got)?;
        if described.name != object.name || !described.queryable {
            let message = format!("the object {} cannot be queried", object.name);
            return Err(Failure::new(Code::NotFound, message));
        }
        let exists = |name: &str| described.fields.iter().any(|field| field.name == name);
        let stamp = STAMPS.into_iter().find(|stamp| exists(stamp));
        let mut warnings = Vec::new();
        let mut fields: Vec<String> = match &object.fields {
            Some(fields) => {
                // What stands behind a dot is another object's, and not described here.
                let (there, missing): (Vec<_>, Vec<_>) = fields
                    .iter()
                    .cloned()
                    .partition(|name| name.contains('.') || exists(name));
                if !missing.is_empty() {
                    warnings.push(format!(
                        "the object {} has no field {} that this user may see",
                        object.name,
                        missing.join(", ")
                    ));
                }
                there
            }
            None => described
                .fields
                .iter()
                .filter(|field| !LEFT_OUT.contains(&field.kind.as_str()))
                .map(|field| field.name.clone())
                .collect(),
        };
        let needed = ["Id"]
            .into_iter()
            .chain(stamp)
            .chain(exists("IsDeleted").then_some("IsDeleted"));
        let needed: Vec<String> = needed.map(str::to_owned).collect();
        fields.retain(|field| !needed.contains(field));
        let mut fields: Vec<String> = needed.iter().cloned().chain(fields).collect();
        if !fields.iter().all(|field| is_name(field)) {
            return Err(strange(
                "the description of the object has a field without a valid name",
            ));
        }
        let url = self.query(at, &object.name, &fields, stamp, None)?;
        let wide = match url.as_str().len() > LONGEST_URL {
            true => Some(self.parts(at, &object.name, stamp, &fields, LONGEST_URL)?),
            false => None,
        };
        let wide = wide.map(Wide::of);
        if wide.is_some() {
            // What changed is listed by this alone.
            fields.retain(|field| needed.contains(field));
        }
        let next = Next {
            fields: Some(fields),
            stamp: stamp.map(str::to_owned),
            lists: at.high.is_none(),
            has_deleted: exists("IsDeleted"),
            wide,
            ..Next::default()
        };
        let reached = at.high.and_then(Value::as_str).and_then(parse_any);
        if at.start.is_later_than(BIN_KEPT, reached) {
            warnings.push("the last sync is longer ago than the recycle bin keeps deleted records; records deleted in between may still count".to_owned());
        }
        if self.login.is_legacy() {
            warnings.push("Salesforce ends the login by user name and password on 2027-06-01; change to client credentials".to_owned());
        }
        Ok(Page {
            warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
            ..reading::step(at, Some(next))?
        })
    }
}
