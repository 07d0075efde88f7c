//! Reads a manifest: one function for each component.

use serde_json::Value;

use super::component::{Component, check_steps, resolve, wrong};
use super::config::Settled;
use super::cursor::DatetimeCursor;
use super::errors::Errors;
use super::paging::Paging;
use super::requester::Requester;
use crate::error::Failure;
use crate::source::Stream;
use crate::template::Template;

/// One stream, ready to be read.
pub struct StreamSpec {
    pub stream: Stream,
    pub key: Vec<Vec<String>>,
    pub requester: Requester,
    pub field_path: Vec<Template>,
    pub paging: Option<Paging>,
    pub cursor: Option<DatetimeCursor>,
    pub errors: Errors,
}

pub fn read(manifest: &Value, settled: Settled) -> Result<Vec<StreamSpec>, Failure> {
    let manifest = resolve(manifest)?;
    let source = Component::root(manifest, "DeclarativeSource", settled)?;
    let mut source = source.expect("DeclarativeSource")?;
    source.harmless(&[
        "version",
        "spec",
        "metadata",
        "definitions",
        "schemas",
        "concurrency_level",
    ]);
    if let Some(mut check) = source.child("check", "CheckStream")? {
        check = check.expect("CheckStream")?;
        check.harmless(&["stream_names"]);
        check.finish()?;
    }
    let streams = source.children("streams", "DeclarativeStream")?;
    source.finish()?;
    let specs = streams
        .into_iter()
        .map(stream)
        .collect::<Result<Vec<_>, _>>()?;
    if specs.is_empty() {
        return Err(wrong("the manifest has no streams"));
    }
    let mut logins = specs.iter().filter_map(|spec| spec.requester.login());
    if let Some(first) = logins.next()
        && logins.any(|login| login.described != first.described)
    {
        return Err(wrong(
            "the manifest has two different OAuthAuthenticators; a connector logs in once",
        ));
    }
    let mut names: Vec<&str> = specs.iter().map(|spec| spec.stream.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(pair) => Err(wrong(format!(
            "the manifest has two streams named \"{}\"",
            pair.concat()
        ))),
        None => Ok(specs),
    }
}

fn stream(component: Component) -> Result<StreamSpec, Failure> {
    let mut stream = component.expect("DeclarativeStream")?;
    let place = stream.place("name");
    let name = match stream.text("name")? {
        Some(name) if !name.is_empty() && name.len() <= 200 => name,
        _ => {
            return Err(wrong(format!(
                "\"{place}\" of the manifest is missing, empty or too long"
            )));
        }
    };
    let place = stream.place("primary_key");
    let key = match stream.take("primary_key") {
        None => Vec::new(),
        Some(value) => key_paths(&value, &|part| {
            let text = stream.settle(part, &place)?;
            text.ok_or_else(|| wrong(format!("\"{place}\" is empty")))
        })?,
    };
    for steps in key.iter().map(Vec::len).chain([key.len()]) {
        check_steps(steps, &place)?;
    }
    stream.harmless(&["schema_loader"]);
    let cursor = stream
        .child("incremental_sync", "DatetimeBasedCursor")?
        .map(DatetimeCursor::read)
        .transpose()?;
    let mut retriever = stream
        .child("retriever", "SimpleRetriever")?
        .ok_or_else(|| stream.missing("retriever"))?
        .expect("SimpleRetriever")?;
    stream.finish()?;

    if let Some(decoder) = retriever.child("decoder", "JsonDecoder")? {
        decoder.expect("JsonDecoder")?.finish()?;
    }
    let requester = retriever
        .child("requester", "HttpRequester")?
        .ok_or_else(|| retriever.missing("requester"))?;
    let (requester, errors) = Requester::read(requester)?;
    let paging = match retriever.child("paginator", "DefaultPaginator")? {
        Some(paginator) => Paging::read(paginator)?,
        None => None,
    };
    let field_path = match retriever.child("record_selector", "RecordSelector")? {
        Some(selector) => field_path(selector)?,
        None => Vec::new(),
    };
    retriever.finish()?;
    // Airbyte promises no order, so the cursor moves when a pass is complete.
    let stream = Stream {
        name,
        ordered: false,
        whole: false,
    };
    Ok(StreamSpec {
        stream,
        key,
        requester,
        field_path,
        paging,
        cursor,
        errors,
    })
}

fn field_path(selector: Component) -> Result<Vec<Template>, Failure> {
    let mut selector = selector.expect("RecordSelector")?;
    let extractor = selector.child("extractor", "DpathExtractor")?;
    selector.word("schema_normalization", &[("None", ())])?;
    selector.finish()?;
    let Some(extractor) = extractor else {
        return Ok(Vec::new());
    };
    let mut extractor = extractor.expect("DpathExtractor")?;
    let place = extractor.place("field_path");
    let path = extractor.templates("field_path", &["config"])?;
    check_steps(path.len(), &place)?;
    for step in path.iter().filter(|step| step.is_settled()) {
        extractor.plain(step, &place)?;
    }
    extractor.finish()?;
    Ok(path)
}

/// `"id"`, `["a", "b"]` or `[["a", "deep"], ["b"]]`; `""` is no key. `text` reads one part.
fn key_paths(
    value: &Value,
    text: &dyn Fn(&Value) -> Result<String, Failure>,
) -> Result<Vec<Vec<String>>, Failure> {
    let path = |part: &Value| match part {
        Value::Array(path) => path.iter().map(text).collect(),
        single => Ok(vec![text(single)?]),
    };
    match value {
        Value::String(none) if none.is_empty() => Ok(Vec::new()),
        Value::Array(parts) => parts.iter().map(path).collect(),
        single => Ok(vec![path(single)?]),
    }
}
