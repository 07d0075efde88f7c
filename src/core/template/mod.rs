//! Templates: the small expressions inside a manifest, such as `{{ config['api_key'] }}`.
//!
//! A template comes from whoever may write a connector's row, and running out of memory would abort the whole
//! server. Fuel prevents it, which pays for every step and for every byte that an expression builds, and so does
//! a language that is cut down to what manifests use: no statement but `if`, filters, tests and methods from a
//! short list, nothing multiplied but numbers. What is not known is refused when the connector is saved.

mod check;
mod macros;
#[cfg(test)]
mod tests;
pub mod value;

use std::sync::LazyLock;

use minijinja::value::{Value, ValueKind, merge_maps};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

use self::check::{METHODS, Uses};
use self::macros::MACROS;
pub use self::macros::{macros, parse_any};
use crate::error::{Code, Failure};

/// Longest source of a template. Longer: parsing it costs more than a request. Shorter: real manifests, whose
/// longest templates are the queries of GraphQL, do not fit.
const LONGEST_SOURCE: usize = 16 * 1024;
/// Longest text a template may render. More than any URL or header needs.
const LONGEST_TEXT: usize = 64 * 1024;
/// What one evaluation may cost: a step costs one, and so do 64 bytes. More: a template holds more memory, at
/// this value about 1 MB. Less: a template that looks through a page's records runs out.
const FUEL: u64 = 20_000;

/// With the library's own filters: those it registers itself pay fuel, the same functions added by hand do not.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(50);
    env.set_undefined_behavior(UndefinedBehavior::Chainable);
    env.set_unknown_method_callback(|state, value, method, args| {
        // A method pays for its result only once it is there.
        let is_short = |value: &Value| value.as_str().is_none_or(|text| text.len() <= LONGEST_TEXT);
        if METHODS.contains(&method) && is_short(value) && args.iter().all(is_short) {
            minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
        } else {
            Err(Error::from(ErrorKind::UnknownMethod))
        }
    });
    env.add_filter("string", |value: &Value| text_of(value).unwrap_or_default());
    env
});

/// One string of a manifest, checked. It has no `Debug`: a careless manifest holds a secret in plain text.
#[derive(Clone)]
pub struct Template {
    source: String,
    kind: Kind,
    /// Where it stands in the manifest, for messages.
    place: String,
    uses: Uses,
    /// What it sees as `parameters`.
    parameters: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No template at all.
    Plain,
    /// One expression and nothing around it: its value keeps its type.
    Expression,
    Text,
}

impl Template {
    /// Checks a template whose place offers the names of `offered`, and `parameters`.
    pub fn new(
        source: &str,
        place: &str,
        offered: &[&str],
        parameters: Value,
    ) -> Result<Template, Failure> {
        let refuse = |what: &str| {
            Failure::new(
                Code::InvalidConfig,
                format!("the template at \"{place}\" {what}"),
            )
        };
        let mut template = Template {
            source: source.to_owned(),
            kind: Kind::Plain,
            place: place.to_owned(),
            uses: Uses::default(),
            parameters,
        };
        if !source.contains("{{") && !source.contains("{%") && !source.contains("{#") {
            return Ok(template);
        }
        if source.len() > LONGEST_SOURCE {
            return Err(refuse(&format!("is longer than {LONGEST_SOURCE} bytes")));
        }
        template.uses = Uses::of(source.trim()).map_err(|what| refuse(&what))?;
        let known =
            |name: &str| name == "parameters" || offered.contains(&name) || MACROS.contains(&name);
        if let Some(unknown) = template.uses.names.iter().find(|name| !known(name)) {
            return Err(refuse(&format!(
                "uses \"{unknown}\", which is not available there"
            )));
        }
        template.kind = Kind::Text;
        if let Some(expression) = template.uses.single.then(|| inside(source)).flatten() {
            template.source = expression.to_owned();
            template.kind = Kind::Expression;
        }
        Ok(template)
    }

    /// Whether it may look at the key `word` of `name`: it does not where the word does not stand in it, unless
    /// it looks at more than single keys.
    pub fn mentions(&self, name: &str, word: &str) -> bool {
        self.uses.whole.contains(name) || self.source.contains(word)
    }

    /// Where the template stands in the manifest.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Keys of config that the template asks for and that have no value. The manifest names them: they are no secret.
    pub fn missing_keys(&self, context: &Value) -> Vec<&str> {
        let config = context.get_attr("config").unwrap_or_default();
        let is_missing = |key: &&str| {
            let value = config.get_item(&Value::from(*key));
            value.is_ok_and(|value| text_of(&value).is_none_or(|text| text.is_empty()))
        };
        let keys = self.uses.keys.iter().map(String::as_str);
        keys.filter(is_missing).collect()
    }

    pub fn uses(&self, name: &str) -> bool {
        self.uses.names.contains(name)
    }

    /// Whether config alone decides what it gives.
    pub fn is_settled(&self) -> bool {
        let mut names = self.uses.names.iter();
        names.all(|name| matches!(name.as_str(), "config" | "parameters"))
    }

    pub fn value(&self, context: &Value) -> Result<Value, Failure> {
        let own = Value::from_pairs([("parameters", self.parameters.clone())]);
        let context = || merge_maps([own, context.clone()]);
        let value = match self.kind {
            Kind::Plain => return Ok(Value::from(self.source.as_str())),
            Kind::Expression => ENVIRONMENT
                .compile_expression(&self.source)
                .and_then(|e| e.eval(context())),
            Kind::Text => ENVIRONMENT
                .render_str(&self.source, context())
                .map(Value::from),
        };
        value.map_err(|error| {
            let what = format!(
                "the template at \"{}\" failed: {}",
                self.place,
                describe(error.kind())
            );
            Failure::new(Code::TemplateFailed, what)
        })
    }

    /// The value as text; `None` where there is none.
    pub fn text(&self, context: &Value) -> Result<Option<String>, Failure> {
        let text = text_of(&self.value(context)?);
        if text.as_ref().is_some_and(|text| text.len() > LONGEST_TEXT) {
            let what = format!(
                "the value of the template at \"{}\" is longer than {LONGEST_TEXT} bytes",
                self.place
            );
            return Err(Failure::new(Code::TemplateFailed, what));
        }
        Ok(text.filter(|text| self.kind == Kind::Plain || !text.is_empty()))
    }

    /// The value as JSON. A text that was put together is read as what it spells, where it spells a literal:
    /// there is no other way for a manifest to build a list or an object around a value.
    pub fn json(&self, context: &Value) -> Result<serde_json::Value, Failure> {
        let value = self.value(context)?;
        let literal = value.as_str().filter(|_| self.kind == Kind::Text);
        Ok(match literal.map(str::trim) {
            Some("None") => serde_json::Value::Null,
            Some("True") => true.into(),
            Some("False") => false.into(),
            Some(text) => value::literal(text).unwrap_or_else(|| text.into()),
            None => value::to_json(&value),
        })
    }

    pub fn truth(&self, context: &Value) -> Result<bool, Failure> {
        let value = self.value(context)?;
        Ok(match value.as_str() {
            Some(text) => !matches!(
                text.trim(),
                "" | "False" | "false" | "None" | "none" | "{}" | "[]" | "()" | "0" | "0.0"
            ),
            None => value.is_true(),
        })
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => None,
        _ => Some(
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned),
        ),
    }
}

/// Our own words: the library's may quote a value.
fn describe(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::UnknownMethod => "it uses a method that is not supported",
        ErrorKind::UnknownFilter => "it uses a filter that is not supported",
        ErrorKind::UnknownTest => "it uses a test that is not supported",
        ErrorKind::UnknownFunction => "it uses a function that is not supported",
        ErrorKind::OutOfFuel => "it takes too many steps",
        ErrorKind::UndefinedError => "a value is missing",
        _ => "a value has the wrong type",
    }
}

/// The expression of a source that is one `{{ ... }}` and nothing else.
fn inside(source: &str) -> Option<&str> {
    let inner = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    Some(inner.strip_suffix(['-', '+']).unwrap_or(inner).trim())
}
