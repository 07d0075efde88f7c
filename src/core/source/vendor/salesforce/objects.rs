//! Which objects of an org are read, and which of their fields.

use serde_json::Value;

use crate::error::Failure;
use crate::source::settings::{Settings, wrong};

/// Streams that have a name of their own, and their objects.
pub const OBJECTS: &[(&str, &str)] = &[
    ("opportunities", "Opportunity"),
    ("opportunity_line_items", "OpportunityLineItem"),
    ("orders", "Order"),
    ("order_items", "OrderItem"),
    ("products", "Product2"),
    ("pricebook_entries", "PricebookEntry"),
    ("accounts", "Account"),
    ("contacts", "Contact"),
    ("users", "User"),
    ("contracts", "Contract"),
    ("assets", "Asset"),
    ("cases", "Case"),
];

/// One object that is read.
pub struct Object {
    pub stream: String,
    pub name: String,
    /// `None`: all there are.
    pub fields: Option<Vec<String>>,
}

pub fn objects(settings: &Settings) -> Result<Vec<Object>, Failure> {
    let Some(value) = settings.value("streams") else {
        return Ok(vec![object("opportunities", None)?]);
    };
    let wrong_list = || wrong("config's \"streams\" has to be a list of streams and objects");
    let mut objects: Vec<Object> = Vec::new();
    for item in value.as_array().ok_or_else(wrong_list)? {
        let read = match item {
            Value::String(name) => object(name, None)?,
            Value::Object(fields) => {
                if let Some(key) = fields
                    .keys()
                    .find(|key| !matches!(key.as_str(), "object" | "fields"))
                {
                    return Err(wrong(format!(
                        "config's \"streams\" has the unknown key \"{key}\"; known keys: object, fields"
                    )));
                }
                let name = fields.get("object").and_then(Value::as_str);
                object(name.ok_or_else(wrong_list)?, fields.get("fields"))?
            }
            _ => return Err(wrong_list()),
        };
        if objects.iter().any(|other| other.name == read.name) {
            return Err(wrong(format!(
                "config's \"streams\" names \"{}\" twice",
                read.name
            )));
        }
        objects.push(read);
    }
    if objects.is_empty() {
        return Err(wrong("config's \"streams\" is empty"));
    }
    Ok(objects)
}

/// Whether a text is a plain name, as a query needs.
pub fn is_name(text: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.len() <= 80
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    text.split('.').all(is_word)
}

fn object(name: &str, fields: Option<&Value>) -> Result<Object, Failure> {
    let known = OBJECTS
        .iter()
        .find(|(stream, object)| *stream == name || *object == name);
    let (stream, object) = known.copied().unwrap_or((name, name));
    if !is_name(object) || object.contains('.') {
        return Err(wrong(format!(
            "\"{name}\" in config's \"streams\" is not an object name"
        )));
    }
    let fields = match fields.filter(|fields| !fields.is_null()) {
        None => None,
        Some(list) => {
            let names = list.as_array().map(|list| list.iter().map(Value::as_str));
            let names: Option<Vec<&str>> = names.and_then(Iterator::collect);
            let names =
                names.filter(|names| !names.is_empty() && names.iter().all(|name| is_name(name)));
            let names = names.ok_or_else(|| {
                wrong(format!("the \"fields\" of \"{name}\" in config's \"streams\" have to be a list of field names"))
            })?;
            Some(names.into_iter().map(str::to_owned).collect())
        }
    };
    Ok(Object {
        stream: stream.to_owned(),
        name: object.to_owned(),
        fields,
    })
}
