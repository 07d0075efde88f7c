//! A field that the token may not read. Shopify leaves it empty, beside the data, or empties all that needs it.

use serde_json::Value;

use crate::source::reading;

/// What the errors of a response say that may not be read.
pub struct Denied {
    /// Fields, by their place below a node, with dots between names.
    pub fields: Vec<String>,
    pub scopes: Vec<String>,
}

/// Most that is named in a warning.
const MOST_NAMED: usize = 5;

/// `None`: there is another error, or one of the stream itself.
pub fn denied(errors: &Value, root: &str) -> Option<Denied> {
    let list = errors.as_array()?;
    let mut denied = Denied {
        fields: Vec::new(),
        scopes: scopes(errors),
    };
    for error in list {
        if reading::text(error, "/extensions/code") != "ACCESS_DENIED" {
            return None;
        }
        let path = error.get("path")?.as_array()?;
        let mut names = path.iter().filter_map(Value::as_str);
        if names.next() != Some(root) {
            return None;
        }
        let mut names: Vec<&str> = names.collect();
        if matches!(names.first(), Some(&"nodes")) {
            names.remove(0);
        }
        let is_ours = |name: &&str| {
            name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        if names.is_empty() || !names.iter().all(is_ours) {
            return None;
        }
        let field = names.join(".");
        if !denied.fields.contains(&field) {
            denied.fields.push(field);
        }
    }
    (!denied.fields.is_empty()).then_some(denied)
}

/// The scopes that the errors ask for. The vendor's own words are not repeated.
pub fn scopes(errors: &Value) -> Vec<String> {
    let mut scopes = Vec::new();
    for error in errors.as_array().into_iter().flatten() {
        let needs = match reading::text(error, "/extensions/requiredAccess") {
            "" => reading::text(error, "/message"),
            needs => needs,
        };
        let words = needs.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.take(200) {
            let is_scope = word.len() <= 64
                && ["read_", "write_", "unauthenticated_read_"]
                    .iter()
                    .any(|start| word.starts_with(start))
                && word.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
            if is_scope && !scopes.iter().any(|known| known == word) && scopes.len() < MOST_NAMED {
                scopes.push(word.to_owned());
            }
        }
    }
    scopes
}

/// Which scope would help, as the end of a sentence.
pub fn lacks(scopes: &[String]) -> String {
    match scopes {
        [] => "the token lacks its scope".to_owned(),
        [scope] => format!("the token lacks the scope {scope}"),
        scopes => format!("the token lacks one of the scopes {}", scopes.join(", ")),
    }
}

impl Denied {
    pub fn warning(&self, stream: &str) -> String {
        let named: Vec<String> = self.fields.iter().take(MOST_NAMED).cloned().collect();
        let (named, lacks) = (named.join(", "), lacks(&self.scopes));
        format!("stream \"{stream}\": without the field {named}, because {lacks}")
    }
}
