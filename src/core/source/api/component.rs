//! Walking a manifest: references, parameters that flow down, and components that refuse what they do not know.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::{Serde, Value as Context};
use serde_json::{Map, Value};

use super::config::Settled;
use crate::error::{Code, Failure};
use crate::template::Template;

/// Bounds on a manifest. Larger: references that refer to references grow without end. Smaller: real
/// manifests, which reach a few thousand values, do not fit.
const MOST_VALUES: usize = 100_000;
const DEEPEST: usize = 100;
/// Texts of a manifest once all that it refers to stands in its place, and parameters wherever they reach, in bytes. The
/// largest manifests that are known have some hundred thousand.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Steps of a path into a body or a record, and parts of a key. Whoever follows a path goes deeper into the stack with
/// each step, and reads what is left again. Fewer: no API nests half as deep.
const MOST_STEPS: usize = 50;

pub fn wrong(what: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidConfig, what)
}

/// The manifest with every `$ref` replaced by what it refers to.
pub fn resolve(manifest: &Value) -> Result<Value, Failure> {
    let mut left = Left {
        values: MOST_VALUES,
        bytes: MOST_BYTES,
    };
    resolve_value(manifest, manifest, 0, &mut left)
}

/// How much more a manifest may grow while it is resolved.
struct Left {
    values: usize,
    bytes: usize,
}

impl Left {
    fn take(&mut self, text: &str) -> Result<(), Failure> {
        let left = self.bytes.checked_sub(text.len());
        self.bytes = left.ok_or_else(too_large)?;
        Ok(())
    }
}

fn too_large() -> Failure {
    wrong("the manifest is too large or refers to itself")
}

/// Refuses a path, or a key, of more steps than are followed.
pub fn check_steps(count: usize, place: &str) -> Result<(), Failure> {
    match count > MOST_STEPS {
        true => Err(wrong(format!(
            "\"{place}\" of the manifest has more than {MOST_STEPS} steps"
        ))),
        false => Ok(()),
    }
}

fn resolve_value(
    root: &Value,
    value: &Value,
    depth: usize,
    left: &mut Left,
) -> Result<Value, Failure> {
    if depth > DEEPEST || left.values == 0 {
        return Err(too_large());
    }
    left.values -= 1;
    match value {
        Value::String(text) if text.starts_with("#/") => {
            resolve_value(root, refer(root, text)?, depth + 1, left)
        }
        Value::Array(items) => items
            .iter()
            .map(|item| resolve_value(root, item, depth + 1, left))
            .collect(),
        Value::Object(fields) => {
            let mut resolved = Map::new();
            if let Some(target) = fields.get("$ref") {
                let target = target
                    .as_str()
                    .ok_or_else(|| wrong("a \"$ref\" of the manifest is not a string"))?;
                match resolve_value(root, refer(root, target)?, depth + 1, left)? {
                    Value::Object(target) => resolved = target,
                    other if fields.len() == 1 => return Ok(other),
                    _ => {
                        return Err(wrong(format!(
                            "\"{target}\" of the manifest is not an object"
                        )));
                    }
                }
            }
            // What stands beside a reference overrides it.
            for (key, value) in fields.iter().filter(|(key, _)| *key != "$ref") {
                left.take(key)?;
                resolved.insert(key.clone(), resolve_value(root, value, depth + 1, left)?);
            }
            Ok(Value::Object(resolved))
        }
        Value::String(text) => {
            left.take(text)?;
            Ok(value.clone())
        }
        other => Ok(other.clone()),
    }
}

fn refer<'a>(root: &'a Value, target: &str) -> Result<&'a Value, Failure> {
    let pointer = target.strip_prefix('#').unwrap_or(target);
    root.pointer(pointer).ok_or_else(|| {
        wrong(format!(
            "the manifest has no \"{target}\", which a \"$ref\" names"
        ))
    })
}

/// One object of the manifest, with its place and the parameters that reached it. Every key has to be taken or
/// named as harmless, or [`Component::finish`] refuses it.
pub struct Component {
    /// The keys that were not taken yet.
    fields: Map<String, Value>,
    parameters: Arc<Parameters>,
    settled: Settled,
    place: String,
    kind: String,
}

/// What reached a component. They stand in for keys that it does not have, and its templates see them; all that have
/// none of their own share them.
struct Parameters {
    fields: Map<String, Value>,
    seen: Context,
    /// Bytes that the parameters of the whole manifest may still take.
    left: Arc<AtomicUsize>,
}

impl Parameters {
    fn new(fields: Map<String, Value>, left: Arc<AtomicUsize>) -> Parameters {
        Parameters {
            seen: Context::from(Serde(&fields)),
            fields,
            left,
        }
    }

    /// Once too much is spent, [`Parameters::check`] says so.
    fn spend(&self, bytes: usize) {
        let less = |left: usize| Some(left.saturating_sub(bytes));
        let _ = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn check(&self) -> Result<(), Failure> {
        match self.left.load(Ordering::Relaxed) {
            0 => Err(too_large()),
            _ => Ok(()),
        }
    }
}

/// Roughly how much memory a value takes.
fn bytes(value: &Value) -> usize {
    let inner = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes).sum(),
        Value::Object(fields) => fields.iter().map(|(key, v)| key.len() + bytes(v)).sum(),
        _ => 0,
    };
    size_of::<Value>() + inner
}

/// Keys that any component may have and that change nothing.
const HARMLESS: [&str; 5] = ["type", "$parameters", "description", "title", "$schema"];

impl Component {
    pub fn root(value: Value, kind: &str, settled: Settled) -> Result<Component, Failure> {
        let left = Arc::new(AtomicUsize::new(MOST_BYTES));
        let none = Arc::new(Parameters::new(Map::new(), left));
        Component::new(value, none, settled, String::new(), kind)
    }

    /// `parameters`: those of the component that this one is in. `inferred`: the type where the manifest does
    /// not name one.
    fn new(
        value: Value,
        mut parameters: Arc<Parameters>,
        settled: Settled,
        place: String,
        inferred: &str,
    ) -> Result<Component, Failure> {
        let Value::Object(mut fields) = value else {
            return Err(wrong(format!(
                "\"{place}\" of the manifest is not an object"
            )));
        };
        if let Some(Value::Object(own)) = fields.remove("$parameters") {
            // The nearest one wins.
            let mut all = parameters.fields.clone();
            all.extend(own);
            parameters = Arc::new(Parameters::new(all, parameters.left.clone()));
            parameters.spend(parameters.fields.values().map(bytes).sum());
        }
        parameters.check()?;
        let kind = fields.get("type").and_then(Value::as_str);
        let kind = kind.unwrap_or(inferred).to_owned();
        fields.retain(|key, _| !HARMLESS.contains(&key.as_str()));
        Ok(Component {
            fields,
            parameters,
            settled,
            place,
            kind,
        })
    }

    /// A component inside of this one.
    pub fn inner(&self, value: Value, place: String, inferred: &str) -> Result<Component, Failure> {
        let (parameters, settled) = (self.parameters.clone(), self.settled.clone());
        Component::new(value, parameters, settled, place, inferred)
    }

    /// All keys and parameters, to compare two components.
    pub fn described(&self) -> Value {
        serde_json::json!([self.fields, self.parameters.fields])
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn place(&self, key: &str) -> String {
        if self.place.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.place)
        }
    }

    /// What templates see that is settled when the connector is opened.
    pub fn settled(&self) -> &Context {
        &self.settled.all
    }

    /// The component is of a type that this version does not know.
    pub fn unsupported(&self) -> Failure {
        let place = match self.place.as_str() {
            "" => "the top".to_owned(),
            place => format!("\"{place}\""),
        };
        wrong(format!(
            "manifest component \"{}\" at {place} is not supported",
            self.kind
        ))
    }

    pub fn missing(&self, key: &str) -> Failure {
        wrong(format!("the manifest has no \"{}\"", self.place(key)))
    }

    pub fn expect(self, kind: &str) -> Result<Component, Failure> {
        if self.kind == kind {
            Ok(self)
        } else {
            Err(self.unsupported())
        }
    }

    /// Keys that say nothing about what is read.
    pub fn harmless(&mut self, keys: &[&str]) {
        self.fields.retain(|key, _| !keys.contains(&key.as_str()));
    }

    /// The value of a key, or the parameter of that name; one that is `null` is not there.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        let own = self.fields.remove(key).filter(|value| !value.is_null());
        own.or_else(|| {
            let parameter = self.parameters.fields.get(key)?;
            self.parameters.spend(bytes(parameter));
            Some(parameter.clone())
        })
    }

    pub fn child(&mut self, key: &str, inferred: &str) -> Result<Option<Component>, Failure> {
        self.take(key)
            .map(|value| self.inner(value, self.place(key), inferred))
            .transpose()
    }

    pub fn children(&mut self, key: &str, inferred: &str) -> Result<Vec<Component>, Failure> {
        let place = self.place(key);
        let items = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(wrong(format!("\"{place}\" of the manifest is not a list"))),
        };
        let child = |(i, item)| self.inner(item, format!("{place}[{i}]"), inferred);
        items.into_iter().enumerate().map(child).collect()
    }

    /// A string, number or boolean as a template whose place offers `offered`.
    pub fn template(&mut self, key: &str, offered: &[&str]) -> Result<Option<Template>, Failure> {
        self.take(key)
            .map(|value| self.compile(&value, &self.place(key), offered))
            .transpose()
    }

    /// A template for a value of this component.
    pub fn compile(
        &self,
        value: &Value,
        place: &str,
        offered: &[&str],
    ) -> Result<Template, Failure> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(wrong(format!("\"{place}\" of the manifest is not text"))),
        };
        Template::new(&text, place, offered, self.parameters.seen.clone())
    }

    /// A list of templates; a single string is a list of one.
    pub fn templates(&mut self, key: &str, offered: &[&str]) -> Result<Vec<Template>, Failure> {
        let place = self.place(key);
        let items = match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => items,
            Some(single) => vec![single],
        };
        let compile = |item: &Value| self.compile(item, &place, offered);
        items.iter().map(compile).collect()
    }

    /// What a template says that only config may decide: it may come to stand in a message.
    pub fn plain(&self, template: &Template, place: &str) -> Result<Option<String>, Failure> {
        let text = template.text(&self.settled.all)?;
        let plain = template.text(&self.settled.plain).ok();
        plain.filter(|plain| *plain == text).ok_or_else(|| {
            wrong(format!(
                "\"{place}\" of the manifest may not depend on credentials"
            ))
        })
    }

    /// What a value of this component says once config is known.
    pub fn settle(&self, value: &Value, place: &str) -> Result<Option<String>, Failure> {
        let template = self.compile(value, place, &["config"])?;
        if template.is_settled() {
            self.plain(&template, place)
        } else {
            Err(wrong(format!(
                "\"{place}\" of the manifest may only depend on config"
            )))
        }
    }

    pub fn text(&mut self, key: &str) -> Result<Option<String>, Failure> {
        self.take(key)
            .map_or(Ok(None), |value| self.settle(&value, &self.place(key)))
    }

    /// One of the given words. It may not be a template, because a message shows a refused word.
    pub fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, Failure> {
        let place = self.place(key);
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let word = value.as_str().unwrap_or_default();
        let found = words.iter().find(|(known, _)| *known == word);
        found.map(|(_, meaning)| Some(*meaning)).ok_or_else(|| {
            let known: Vec<String> = words
                .iter()
                .map(|(known, _)| format!("\"{known}\""))
                .collect();
            let known = known.join(", ");
            wrong(format!(
                "\"{place}\" of the manifest cannot be \"{word}\"; known values: {known}"
            ))
        })
    }

    /// A whole number, or the text of one.
    pub fn number(&mut self, key: &str) -> Result<Option<u64>, Failure> {
        let place = self.place(key);
        let number = |text: String| text.trim().parse().ok();
        self.text(key)?
            .map(|text| {
                number(text).ok_or_else(|| {
                    wrong(format!("\"{place}\" of the manifest is not a whole number"))
                })
            })
            .transpose()
    }

    pub fn flag(&mut self, key: &str) -> Result<bool, Failure> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(wrong(format!(
                "\"{}\" of the manifest has to be true or false",
                self.place(key)
            ))),
        }
    }

    /// Refuses keys that nobody took.
    pub fn finish(self) -> Result<(), Failure> {
        self.parameters.check()?;
        let left = self.fields.iter().find(|(_, value)| !is_nothing(value));
        match left {
            None => Ok(()),
            Some((key, _)) => {
                let belongs = match (self.kind.as_str(), key.as_str()) {
                    ("DefaultPaginator", "page_size" | "start_from_page") => {
                        format!("; it belongs in \"{}\"", self.place("pagination_strategy"))
                    }
                    _ => String::new(),
                };
                Err(wrong(format!(
                    "manifest key \"{}\" of {} is not supported{belongs}",
                    self.place(key),
                    self.kind
                )))
            }
        }
    }
}

/// Whether a value has no effect.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
