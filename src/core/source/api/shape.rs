//! What a page of a manifest's stream looks like: whether it is one, and what of it a person should look at.

use serde_json::Value;

use super::component::wrong;
use super::manifest::StreamSpec;
use super::more::{LARGEST_REST, plain};
use crate::error::{Code, Failure};
use crate::json::{self, Found};
use crate::source::{Response, problem};
use crate::template::value;

/// A body without the byte order mark that some vendors put before it.
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)
}

fn strange(what: String) -> Failure {
    Failure::new(Code::UnexpectedShape, what)
}

/// Marks the streams that `config.deletes` names as read whole.
pub fn mark_whole(specs: &mut [StreamSpec], deletes: &Value) -> Result<(), Failure> {
    let names: Vec<&str> = match deletes {
        Value::Null | Value::Bool(false) => return Ok(()),
        Value::Bool(true) => {
            for spec in specs.iter_mut().filter(|spec| spec.cursor.is_none()) {
                spec.stream.whole = true;
            }
            return Ok(());
        }
        Value::Array(names) => {
            let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
            names
                .ok_or_else(|| wrong("config's \"deletes\" has to be true or a list of streams"))?
        }
        _ => {
            return Err(wrong(
                "config's \"deletes\" has to be true or a list of streams",
            ));
        }
    };
    for name in names {
        let spec = specs.iter_mut().find(|spec| spec.stream.name == name);
        let spec = spec.ok_or_else(|| {
            wrong(format!(
                "config's \"deletes\" names \"{name}\", which is no stream of the manifest"
            ))
        })?;
        if spec.cursor.is_some() {
            return Err(wrong(format!(
                "config's \"deletes\" names \"{name}\", which has incremental_sync: only what changed is read, so what is gone cannot be told"
            )));
        }
        spec.stream.whole = true;
    }
    Ok(())
}

/// Refuses what is no page of records: text and numbers where the body is the page, one object without anything of the key,
/// and an object that names an error and has nothing that identifies it.
pub fn check(
    got: &Response,
    found: &Found,
    path: &[String],
    spec: &StreamSpec,
) -> Result<(), Failure> {
    let body = without_mark(&got.body);
    if path.is_empty() && !matches!(body.trim_ascii_start().first(), Some(b'{' | b'[' | b'n')) {
        return Err(strange(
            "the response is not an object or a list".to_owned(),
        ));
    }
    let is_alone =
        found.singles == 1 && found.records.len() == 1 && !path.iter().any(|step| step == "*");
    if !is_alone || !found.is_keyless() {
        return Ok(());
    }
    if path.is_empty()
        && let Some(failure) = problem::named_in(got, &json::envelope(body, ""))
    {
        return Err(failure);
    }
    if !spec.key.is_empty() {
        let key: Vec<String> = spec.key.iter().map(|part| part.join(".")).collect();
        let place = match path {
            [] => String::new(),
            path => format!(" at \"{}\"", path.join(".")),
        };
        return Err(strange(format!(
            "the response{place} is one object without a value in the primary_key \"{}\", so it is no record",
            key.join("\", \"")
        )));
    }
    Ok(())
}

/// What a person should know of a page that was read.
pub fn doubts(found: &Found, path: &[String], spec: &StreamSpec) -> Vec<String> {
    let mut doubts = Vec::new();
    let missing = spec
        .key
        .iter()
        .zip(&found.has_part)
        .filter(|(_, has)| !**has);
    let missing: Vec<String> = missing.map(|(part, _)| part.join(".")).collect();
    if !found.records.is_empty() && !missing.is_empty() {
        let then = match found.is_keyless() {
            true => "records are known by their content, and one that changes is stored once more",
            false => "it tells no record from another",
        };
        doubts.push(format!(
            "no record of the page has a value in \"{}\", which primary_key names: {then}. Correct primary_key in the manifest",
            missing.join("\", \"")
        ));
    }
    let is_empty = found.records.is_empty() && found.rejected.is_empty();
    if is_empty && found.lacking > 0 {
        doubts.push(format!(
            "no item has what field_path \"{}\" leads to, so the page has no records",
            path.join(".")
        ));
    }
    doubts
}

/// Names without case and signs that lists have beside their items, and errors do not.
const OF_LISTS: [&str; 18] = [
    "kind",
    "etag",
    "nextpagetoken",
    "nextsynctoken",
    "next",
    "previous",
    "nextcursor",
    "hasmore",
    "total",
    "totalcount",
    "totalitems",
    "totalresults",
    "totalsize",
    "count",
    "resultsizeestimate",
    "pagination",
    "paging",
    "pageinfo",
];
const OF_ERRORS: [&str; 20] = [
    "error",
    "errors",
    "err",
    "errormessage",
    "errormessages",
    "errorcode",
    "errordescription",
    "exception",
    "fault",
    "faults",
    "failure",
    "failures",
    "problem",
    "detail",
    "details",
    "reason",
    "title",
    "statuscode",
    "retryafter",
    "traceid",
];

/// Whether a body leaves its list out because there is nothing to list, as some vendors do; then a warning. It is an object
/// with nothing in it, or with what a list has beside its items, and no sign of an error or of another list.
pub fn left_out(got: &Response, path: &[String]) -> Option<String> {
    let body = value::read_within(&got.body, &[], LARGEST_REST).ok()?;
    let body = value::to_json(&body);
    let mut object = &body;
    let mut missing = None;
    for step in path {
        let fields = object.as_object()?;
        if shows_error(fields) {
            return None;
        }
        match fields.get(step) {
            Some(inner) => object = inner,
            None => {
                missing = Some(fields);
                break;
            }
        }
    }
    let is_of_list = |name: &String| OF_LISTS.contains(&plain(name).as_str());
    let around = missing?;
    let is_list = around.is_empty() || around.keys().any(is_of_list);
    (is_list && !has_items(&body, 0)).then(|| {
        format!(
            "the response has nothing at \"{}\", and was taken for a page without records. If the API leaves the list out where there is nothing, say so: an error_handler with the action IGNORE",
            path.join(".")
        )
    })
}

fn shows_error(fields: &serde_json::Map<String, Value>) -> bool {
    fields.iter().any(|(name, value)| {
        let is_good = match value {
            Value::Null | Value::Bool(true) => true,
            Value::String(text) => {
                let text = text.to_ascii_lowercase();
                matches!(
                    text.as_str(),
                    "" | "ok" | "success" | "succeeded" | "0" | "200" | "true"
                )
            }
            Value::Number(number) => matches!(number.as_u64(), Some(0 | 200)),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(false) => false,
        };
        match plain(name).as_str() {
            "message" | "messages" | "msg" | "code" | "status" | "success" | "ok" => !is_good,
            name if OF_ERRORS.contains(&name) => !is_good && *value != Value::Bool(false),
            _ => false,
        }
    })
}

/// Whether a body lists objects somewhere: then the path leads past them.
fn has_items(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => items.iter().any(Value::is_object),
        Value::Object(fields) if depth < 4 => {
            fields.values().any(|inner| has_items(inner, depth + 1))
        }
        _ => false,
    }
}
