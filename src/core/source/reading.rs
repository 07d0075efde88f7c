//! Reads records from a vendor's body, and the tokens between its pages.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};

use super::{Position, Response, problem};
use crate::error::{Code, Failure};
use crate::json::{self, Found, RecordLimits, Spec};
use crate::record::{Page, Reason, Rejected};

/// Where records lie in a body, with dots between keys; see [`Spec`].
#[derive(Default)]
pub struct Shape<'a> {
    pub path: &'a str,
    /// The fields that identify a record.
    pub key: &'a [&'a str],
    /// The field that holds a record's stamp.
    pub stamp: &'a str,
    /// The field that says that a record is gone, and the JSON that stands there then.
    pub gone: Option<(&'a str, &'a str)>,
}

fn steps(path: &str) -> Vec<String> {
    path.split('.')
        .filter(|step| !step.is_empty())
        .map(str::to_owned)
        .collect()
}

pub fn read(
    stream: &str,
    got: &Response,
    shape: &Shape,
    limits: RecordLimits,
) -> Result<Found, Failure> {
    let path = steps(shape.path);
    let key: Vec<Vec<String>> = shape.key.iter().map(|key| steps(key)).collect();
    let stamp = steps(shape.stamp);
    let gone = shape.gone.map(|(path, says)| (steps(path), says));
    let mut found = records(
        got,
        &Spec {
            stream,
            path: &path,
            key: &key,
            cursor: Some(stamp.as_slice()).filter(|stamp| !stamp.is_empty()),
            gone: gone.as_ref().map(|(path, says)| (path.as_slice(), *says)),
            limits,
            lines: &[],
        },
    )?;
    if !key.is_empty() {
        found.need_keys();
    }
    Ok(found)
}

/// The records of a response. One that has none, and names an error, is a failure: never an empty page.
pub fn records(got: &Response, spec: &Spec) -> Result<Found, Failure> {
    let found = match lines(&got.body) {
        // The way to the records begins within each line.
        Some(list) if !spec.path.is_empty() => {
            let path = [&["*".to_owned()], spec.path].concat();
            json::page(
                &list,
                &Spec {
                    path: &path,
                    ..spec.clone()
                },
            )
        }
        Some(list) => json::page(&list, spec),
        None => json::page(&got.body, spec),
    };
    let is_one = match &found {
        Ok(found) => {
            let is_odd = |rejected: &Rejected| rejected.reason == Reason::NotAnObject;
            !found.records.is_empty()
                || !found.deleted.is_empty()
                || !found.rejected.iter().all(is_odd)
        }
        Err(failure) => !matches!(failure.code, Code::UnexpectedShape | Code::InvalidJson),
    };
    if !is_one && let Some(failure) = problem::beside_nothing(got, spec.path) {
        return Err(failure);
    }
    found
}

/// A body that has a JSON text on each line, as a list of them; `None`: it is one JSON text already.
fn lines(body: &Bytes) -> Option<Bytes> {
    let body = body.trim_ascii();
    let end = memchr::memchr(b'\n', body)?;
    let first = body.get(..end)?.trim_ascii();
    // What is one JSON text has no whole value on its first line and more behind it.
    let begins = matches!(first.first(), Some(b'{' | b'['));
    if !begins || serde_json::from_slice::<IgnoredAny>(first).is_err() {
        return None;
    }
    let mut list = BytesMut::with_capacity(body.len() + 2);
    list.put_u8(b'[');
    for line in body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        if line.is_empty() {
            continue;
        }
        if list.len() > 1 {
            list.put_u8(b',');
        }
        list.extend_from_slice(line);
    }
    list.put_u8(b']');
    Some(list.freeze())
}

/// Refuses a response without records that names an error.
pub fn check_empty(got: &Response, path: &str) -> Result<(), Failure> {
    problem::beside_nothing(got, &steps(path)).map_or(Ok(()), Err)
}

/// The failure of a response that is no page: the error that it names, or else what `what` says.
pub fn refused(got: &Response, what: &str) -> Failure {
    problem::beside_nothing(got, &[]).unwrap_or_else(|| strange(what))
}

/// A body without the field that holds the records.
pub fn around(got: &Response, records: &str) -> Map<String, Value> {
    json::envelope(&got.body, records)
}

/// A body that is an object, as a value.
pub fn whole<T: DeserializeOwned>(got: &Response) -> Result<T, Failure> {
    // A list would be taken for the object's fields in their order.
    if matches!(got.body.trim_ascii_start().first(), Some(b'[')) {
        return Err(refused(got, "the response is a list, not an object"));
    }
    serde_json::from_slice(&got.body).map_err(|error| {
        if let Some(failure) = problem::beside_nothing(got, &[]) {
            return failure;
        }
        let code = match error.classify() {
            serde_json::error::Category::Eof => Code::TruncatedResponse,
            serde_json::error::Category::Data => Code::UnexpectedShape,
            _ => Code::InvalidJson,
        };
        Failure::new(
            code,
            format!(
                "the response of {} bytes does not have the expected shape",
                got.body.len()
            ),
        )
    })
}

/// The largest body of an error that is looked into. Larger: a hostile one costs time.
const LARGEST_ERROR: usize = 256 * 1024;

/// The body of a refusal; null where it is no JSON.
pub fn problem(got: &Response) -> Value {
    let body = Some(got.body.as_ref()).filter(|body| body.len() <= LARGEST_ERROR);
    body.and_then(|body| serde_json::from_slice(body).ok())
        .unwrap_or_default()
}

/// The text at a place in a value, such as `/errors/0/code`; empty where there is none.
pub fn text<'a>(value: &'a Value, place: &str) -> &'a str {
    let text = value.pointer(place).and_then(Value::as_str);
    text.unwrap_or_default()
}

/// An object with one field more, or with another value for it.
pub fn with(mut object: Value, field: &str, value: impl Into<Value>) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value.into());
    }
    object
}

/// What the previous page left to say how to go on; the default where there was none.
pub fn next<T: DeserializeOwned + Default>(at: &Position) -> Result<T, Failure> {
    match at.next {
        None => Ok(T::default()),
        Some(next) => serde_json::from_value(next.clone()).map_err(|_| {
            Failure::new(Code::RequestRefused, "the stored page token cannot be read")
        }),
    }
}

pub fn token(next: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(next)
        .map_err(|_| Failure::new(Code::Internal, "the page token cannot be written"))
}

/// A page of what was found, and where the pass goes on; `None`: it ends.
pub fn page(
    found: Found,
    next: Option<impl Serialize>,
    high: Option<Value>,
) -> Result<Page, Failure> {
    Ok(Page {
        records: found.records,
        rejected: found.rejected,
        deleted: found.deleted,
        next: next.as_ref().map(token).transpose()?,
        high,
        ..Page::default()
    })
}

/// A page without records, which leaves the cursor where it is.
pub fn step(at: &Position, next: Option<impl Serialize>) -> Result<Page, Failure> {
    page(Found::default(), next, at.high.cloned())
}

pub fn strange(what: &str) -> Failure {
    Failure::new(Code::UnexpectedShape, what)
}
