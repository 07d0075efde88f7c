//! Walking a manifest: references, parameters that flow down, and components that refuse what they do not know.

use serde_json::{Map, Value};

use crate::error::{Code, Failure};
use crate::template::Template;

/// Bounds on a manifest. Larger: references that refer to references grow without end. Smaller: real
/// manifests, which reach a few thousand values, do not fit.
const MOST_VALUES: usize = 100_000;
const DEEPEST: usize = 100;

pub fn wrong(what: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidConfig, what)
}

/// The manifest with every `$ref` replaced by what it refers to.
pub fn resolve(manifest: &Value) -> Result<Value, Failure> {
    let mut left = MOST_VALUES;
    resolve_value(manifest, manifest, 0, &mut left)
}

fn resolve_value(
    root: &Value,
    value: &Value,
    depth: usize,
    left: &mut usize,
) -> Result<Value, Failure> {
    if depth > DEEPEST || *left == 0 {
        return Err(wrong("the manifest is too large, or refers to itself"));
    }
    *left -= 1;
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
                resolved.insert(key.clone(), resolve_value(root, value, depth + 1, left)?);
            }
            Ok(Value::Object(resolved))
        }
        other => Ok(other.clone()),
    }
}

fn refer<'a>(root: &'a Value, target: &str) -> Result<&'a Value, Failure> {
    let pointer = target.strip_prefix('#').unwrap_or(target);
    root.pointer(pointer)
        .ok_or_else(|| wrong(format!("\"{target}\" is not in the manifest")))
}

/// One object of the manifest, with its place and the parameters that reached it. Every key has to be taken or
/// named as harmless, or [`Component::finish`] refuses it.
pub struct Component<'a> {
    fields: &'a Map<String, Value>,
    parameters: Map<String, Value>,
    place: String,
    kind: String,
    known: Vec<&'static str>,
}

/// Keys that any component may have and that change nothing.
const HARMLESS: [&str; 5] = ["type", "$parameters", "description", "title", "$schema"];

impl<'a> Component<'a> {
    pub fn root(value: &'a Value, kind: &str) -> Result<Component<'a>, Failure> {
        Component::new(value, &Map::new(), String::new(), kind)
    }

    /// `inferred`: the type where the manifest does not name one.
    fn new(
        value: &'a Value,
        above: &Map<String, Value>,
        place: String,
        inferred: &str,
    ) -> Result<Component<'a>, Failure> {
        let fields = value
            .as_object()
            .ok_or_else(|| wrong(format!("\"{place}\" of the manifest is not an object")))?;
        let mut parameters = above.clone();
        if let Some(own) = fields.get("$parameters").and_then(Value::as_object) {
            // A parameter from above wins: it was given by the one who uses this component.
            own.iter().for_each(|(key, value)| {
                parameters
                    .entry(key.clone())
                    .or_insert_with(|| value.clone());
            });
        }
        let kind = fields
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or(inferred)
            .to_owned();
        Ok(Component {
            fields,
            parameters,
            place,
            kind,
            known: HARMLESS.to_vec(),
        })
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

    /// The component is of a type that this version does not know.
    pub fn unsupported(&self) -> Failure {
        let place = if self.place.is_empty() {
            "the top"
        } else {
            &self.place
        };
        wrong(format!(
            "manifest component \"{}\" at \"{place}\" is not supported",
            self.kind
        ))
    }

    pub fn expect(self, kind: &str) -> Result<Component<'a>, Failure> {
        if self.kind == kind {
            Ok(self)
        } else {
            Err(self.unsupported())
        }
    }

    /// Keys that say nothing about what is read.
    pub fn harmless(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// The value of a key; a key that is `null` is not there.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.fields.get(key).filter(|value| !value.is_null())
    }

    pub fn child(
        &mut self,
        key: &'static str,
        inferred: &str,
    ) -> Result<Option<Component<'a>>, Failure> {
        let place = self.place(key);
        let value = self.take(key);
        value
            .map(|value| Component::new(value, &self.parameters, place, inferred))
            .transpose()
    }

    pub fn children(
        &mut self,
        key: &'static str,
        inferred: &str,
    ) -> Result<Vec<Component<'a>>, Failure> {
        let place = self.place(key);
        let items = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(value) => value
                .as_array()
                .ok_or_else(|| wrong(format!("\"{place}\" is not a list")))?,
        };
        let child =
            |(i, item)| Component::new(item, &self.parameters, format!("{place}[{i}]"), inferred);
        items.iter().enumerate().map(child).collect()
    }

    /// A string, number or boolean as a template whose place offers `offered`.
    pub fn template(
        &mut self,
        key: &'static str,
        offered: &[&str],
    ) -> Result<Option<Template>, Failure> {
        let place = self.place(key);
        self.take(key)
            .map(|value| self.compile(value, &place, offered))
            .transpose()
    }

    /// A template for a value of this component. `parameters` are put in here, as the manifest is read.
    pub fn compile(
        &self,
        value: &Value,
        place: &str,
        offered: &[&str],
    ) -> Result<Template, Failure> {
        let text = match value {
            Value::String(text) => self.fill_in(text),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(wrong(format!("\"{place}\" of the manifest is not text"))),
        };
        Template::new(&text, place, offered)
    }

    /// Replaces look-ups of parameters, the only use they have, by their values.
    fn fill_in(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        for (key, value) in &self.parameters {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            for quote in ['\'', '"'] {
                for spaces in ["", " "] {
                    let lookup = format!("{{{{{spaces}parameters[{quote}{key}{quote}]{spaces}}}}}");
                    filled = filled.replace(&lookup, &value);
                }
            }
            for spaces in ["", " "] {
                filled =
                    filled.replace(&format!("{{{{{spaces}parameters.{key}{spaces}}}}}"), &value);
            }
        }
        filled
    }

    pub fn text(&mut self, key: &'static str) -> Result<Option<String>, Failure> {
        let place = self.place(key);
        let value = self.take(key);
        let text = |value: &Value| value.as_str().map(|text| self.fill_in(text));
        value
            .map(|value| text(value).ok_or_else(|| wrong(format!("\"{place}\" is not a string"))))
            .transpose()
    }

    /// A list of templates; a single string is a list of one.
    pub fn templates(
        &mut self,
        key: &'static str,
        offered: &[&str],
    ) -> Result<Vec<Template>, Failure> {
        let place = self.place(key);
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| self.compile(item, &place, offered))
                .collect(),
            Some(single) => Ok(vec![self.compile(single, &place, offered)?]),
        }
    }

    /// Refuses keys that nobody took.
    pub fn finish(self) -> Result<(), Failure> {
        match self
            .fields
            .keys()
            .find(|key| !self.known.contains(&key.as_str()))
        {
            None => Ok(()),
            Some(key) if self.fields.get(key).is_some_and(is_nothing) => Ok(()),
            Some(key) => {
                let place = self.place(key);
                Err(wrong(format!(
                    "manifest key \"{place}\" of {} is not supported",
                    self.kind
                )))
            }
        }
    }
}

/// A value that asks for nothing.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}
