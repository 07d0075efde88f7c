//! Enough of GraphQL for a fake: what a query selects, and what an object has of it.

use serde_json::{Map, Value, json};

use crate::stage::Complaint;

/// One field of a selection, or a fragment.
pub struct Field {
    pub name: String,
    /// Arguments in their own text.
    pub arguments: Vec<(String, String)>,
    /// The type that a fragment is of.
    on: Option<String>,
    pub inner: Vec<Field>,
}

/// The selection of an operation.
pub fn parse(query: &str) -> Result<Vec<Field>, Complaint> {
    let start = query.find('{').ok_or("no selection")?;
    let mut text = query.get(start + 1..).unwrap_or_default();
    selection(&mut text)
}

fn selection(text: &mut &str) -> Result<Vec<Field>, Complaint> {
    let mut fields = Vec::new();
    loop {
        *text = text.trim_start();
        if let Some(rest) = text.strip_prefix('}') {
            *text = rest;
            return Ok(fields);
        }
        let mut field = Field {
            name: String::new(),
            arguments: Vec::new(),
            on: None,
            inner: Vec::new(),
        };
        match text.strip_prefix("... on ") {
            Some(rest) => {
                *text = rest;
                field.on = Some(word(text)?);
            }
            None => field.name = word(text)?,
        }
        *text = text.trim_start();
        if let Some(rest) = text.strip_prefix('(') {
            // No value of ours holds a closing bracket.
            let (arguments, rest) = rest.split_once(')').ok_or("an open bracket")?;
            let mut left = arguments;
            while let Some((name, value)) = left.split_once(':') {
                let value = value.trim_start();
                let end = match value.chars().next() {
                    Some('"') => value[1..].find('"').map_or(value.len(), |end| end + 2),
                    Some('[') => value.find(']').map_or(value.len(), |end| end + 1),
                    _ => value.find(',').unwrap_or(value.len()),
                };
                let name = name.trim().trim_start_matches(',').trim();
                field
                    .arguments
                    .push((name.to_owned(), value[..end].trim().to_owned()));
                left = value[end..].trim_start_matches([',', ' ']);
            }
            *text = rest.trim_start();
        }
        if let Some(rest) = text.strip_prefix('{') {
            *text = rest;
            field.inner = selection(text)?;
        }
        fields.push(field);
    }
}

fn word(text: &mut &str) -> Result<String, Complaint> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    if word.is_empty() {
        return Err(format!("not a name: {}", text.get(..20).unwrap_or(text)));
    }
    *text = rest;
    Ok(word.to_owned())
}

impl Field {
    /// An argument, with the variables in it.
    pub fn argument(&self, name: &str, variables: &Value) -> Value {
        let found = self.arguments.iter().find(|(known, _)| known == name);
        match found.map(|(_, value)| value.as_str()) {
            None => Value::Null,
            Some(value) => match value.strip_prefix('$') {
                Some(variable) => variables[variable].clone(),
                None => serde_json::from_str(value).unwrap_or_else(|_| value.into()),
            },
        }
    }

    pub fn selects(&self, name: &str) -> bool {
        self.inner.iter().any(|field| field.name == name)
    }
}

/// Answers selections, and remembers what may not be read.
pub struct Answer<'a> {
    pub variables: &'a Value,
    /// Fields that the token may not read, with the scope that they need.
    pub denied: &'a [(&'static str, &'static str)],
    pub errors: Vec<Value>,
}

impl Answer<'_> {
    /// What an object has of a selection. An array where a list with pages is asked for is such a list.
    pub fn of(
        &mut self,
        value: &Value,
        fields: &[Field],
        path: &[Value],
    ) -> Result<Value, Complaint> {
        let object = match value {
            Value::Array(items) => {
                let one = |(i, item): (usize, &Value)| self.of(item, fields, &with(path, json!(i)));
                return Ok(Value::Array(
                    items
                        .iter()
                        .enumerate()
                        .map(one)
                        .collect::<Result<_, _>>()?,
                ));
            }
            Value::Object(object) if !fields.is_empty() => object,
            other => return Ok(other.clone()),
        };
        let mut answer = Map::new();
        for field in fields {
            if let Some(on) = &field.on {
                if object.get("__typename").is_some_and(|name| name == on) {
                    let part = self.of(value, &field.inner, path)?;
                    answer.extend(part.as_object().cloned().unwrap_or_default());
                }
                continue;
            }
            let path = with(path, json!(field.name));
            if let Some((_, scope)) = self.denied.iter().find(|(name, _)| *name == field.name) {
                self.errors.push(json!({"message": format!("Access denied for {} field. Required access: `{scope}` access scope.", field.name),
                    "path": path, "extensions": {"code": "ACCESS_DENIED", "documentation": "https://shopify.dev/api/usage/access-scopes", "requiredAccess": format!("`{scope}` access scope.")}}));
                answer.insert(field.name.clone(), Value::Null);
                continue;
            }
            let value = object.get(&field.name).ok_or(format!(
                "there is no {} in {}",
                field.name,
                object.get("__typename").unwrap_or(&Value::Null)
            ))?;
            let found = match value {
                Value::Array(nodes) if field.selects("pageInfo") => {
                    self.list(nodes, field, &path)?
                }
                value => self.of(value, &field.inner, &path)?,
            };
            answer.insert(field.name.clone(), found);
        }
        Ok(Value::Object(answer))
    }

    /// A part of a list within an object, whose cursors are places.
    fn list(&mut self, nodes: &[Value], field: &Field, path: &[Value]) -> Result<Value, Complaint> {
        let first = field.argument("first", self.variables).as_u64();
        // Fewer than were asked for, as the vendor may.
        let first = first.ok_or("a list without first")?.min(3) as usize;
        let after = field.argument("after", self.variables);
        let after: usize = after
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let part: Vec<Value> = nodes.iter().skip(after).take(first).cloned().collect();
        let end = after + part.len();
        let info = json!({"hasNextPage": end < nodes.len(), "endCursor": (!part.is_empty()).then(|| end.to_string())});
        self.page(part, info, field, path)
    }

    /// A list as it was asked for.
    pub fn page(
        &mut self,
        nodes: Vec<Value>,
        info: Value,
        field: &Field,
        path: &[Value],
    ) -> Result<Value, Complaint> {
        let list = json!({"__typename": "Connection", "nodes": nodes, "pageInfo": info});
        self.of(&list, &field.inner, path)
    }
}

fn with(path: &[Value], step: Value) -> Vec<Value> {
    [path, &[step]].concat()
}
