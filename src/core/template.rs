//! Templates: the small expressions inside a manifest, such as `{{ config['api_key'] }}`.
//!
//! A template comes from whoever may write a connector's row, and running out of memory would abort the whole
//! server, so the language is cut down to what cannot grow: no statement but `if`, filters and methods from a
//! short list, one multiplication, a bounded source, and fuel against endless work. A name, filter or
//! function that is not known is refused when the connector is saved.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, LazyLock};

use chrono::{DateTime, TimeDelta, Utc};
use minijinja::value::{Kwargs, Object, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, filters, tests};

use crate::datetime::Format;
use crate::error::{Code, Failure};

/// Longest source of a template. Longer: what it can build grows with it. Shorter: real manifests do not fit.
const LONGEST_SOURCE: usize = 2_000;
/// Longest text a template may render. More than any URL or header needs.
const LONGEST_TEXT: usize = 64 * 1024;
/// Steps of one evaluation.
const FUEL: u64 = 20_000;

/// Names that a template may use besides those its place offers.
const MACROS: [&str; 4] = ["now_utc", "today_utc", "day_delta", "format_datetime"];
const METHODS: [&str; 12] = [
    "get",
    "items",
    "keys",
    "values",
    "split",
    "strip",
    "lstrip",
    "rstrip",
    "lower",
    "upper",
    "startswith",
    "endswith",
];

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::empty();
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(50);
    env.set_undefined_behavior(UndefinedBehavior::Chainable);
    env.set_unknown_method_callback(|state, value, method, args| {
        if METHODS.contains(&method) {
            minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
        } else {
            Err(Error::from(ErrorKind::UnknownMethod))
        }
    });
    env.add_filter("default", filters::default);
    env.add_filter("int", filters::int);
    env.add_filter("float", filters::float);
    env.add_filter("length", filters::length);
    env.add_filter("lower", filters::lower);
    env.add_filter("upper", filters::upper);
    env.add_filter("trim", filters::trim);
    env.add_filter("first", filters::first);
    env.add_filter("last", filters::last);
    env.add_filter("string", |value: &Value| text_of(value).unwrap_or_default());
    env.add_test("defined", tests::is_defined);
    env.add_test("undefined", tests::is_undefined);
    env.add_test("none", tests::is_none);
    env.add_test("string", tests::is_string);
    env.add_test("number", tests::is_number);
    env
});

/// One string of a manifest, checked. It has no `Debug`: a careless manifest holds a secret in plain text.
#[derive(Clone)]
pub struct Template {
    source: String,
    kind: Kind,
    /// Where it stands in the manifest, for messages.
    place: String,
    uses: HashSet<String>,
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
    /// Checks a template whose place offers the names of `offered`.
    pub fn new(source: &str, place: &str, offered: &[&str]) -> Result<Template, Failure> {
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
            uses: HashSet::new(),
        };
        if !source.contains("{{") && !source.contains("{%") && !source.contains("{#") {
            return Ok(template);
        }
        if source.len() > LONGEST_SOURCE {
            return Err(refuse(&format!("is longer than {LONGEST_SOURCE} bytes")));
        }
        check_growth(source).map_err(|what| refuse(&what))?;
        if let Some(expression) = single_expression(source) {
            template.kind = Kind::Expression;
            template.source = expression.to_owned();
            let parsed = ENVIRONMENT.compile_expression(&template.source);
            template.uses = parsed
                .map_err(|_| refuse("does not parse"))?
                .undeclared_variables(false);
        } else {
            template.kind = Kind::Text;
            let parsed = ENVIRONMENT.template_from_str(&template.source);
            template.uses = parsed
                .map_err(|_| refuse("does not parse"))?
                .undeclared_variables(false);
        }
        let known =
            |name: &String| offered.contains(&name.as_str()) || MACROS.contains(&name.as_str());
        if let Some(unknown) = template.uses.iter().find(|name| !known(name)) {
            return Err(refuse(&format!(
                "uses \"{unknown}\", which is not known there"
            )));
        }
        for filter in filters_of(source) {
            if let Some(kind) = is_unknown(&filter) {
                return Err(refuse(&format!(
                    "uses the {kind} \"{filter}\", which is not supported"
                )));
            }
        }
        Ok(template)
    }

    /// Whether a word stands in it; a word that does not cannot be looked up.
    pub fn mentions(&self, word: &str) -> bool {
        self.source.contains(word)
    }

    pub fn uses(&self, name: &str) -> bool {
        self.uses.contains(name)
    }

    pub fn value(&self, context: &Value) -> Result<Value, Failure> {
        let value = match self.kind {
            Kind::Plain => return Ok(Value::from(self.source.as_str())),
            Kind::Expression => ENVIRONMENT
                .compile_expression(&self.source)
                .and_then(|e| e.eval(context)),
            Kind::Text => ENVIRONMENT
                .render_str(&self.source, context)
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
                "the template at \"{}\" gives more than {LONGEST_TEXT} bytes",
                self.place
            );
            return Err(Failure::new(Code::TemplateFailed, what));
        }
        Ok(text.filter(|text| self.kind == Kind::Plain || !text.is_empty()))
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
        ErrorKind::UnknownMethod => "a method that is not supported",
        ErrorKind::UnknownFilter => "a filter that is not supported",
        ErrorKind::UnknownTest => "a test that is not supported",
        ErrorKind::UnknownFunction => "a function that is not supported",
        ErrorKind::OutOfFuel => "it does not end",
        ErrorKind::UndefinedError => "a value is missing",
        _ => "a value of the wrong type",
    }
}

/// The inside of a source that is one `{{ ... }}` and nothing else.
fn single_expression(source: &str) -> Option<&str> {
    let inner = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.trim_start_matches('-').trim_end_matches('-').trim();
    (!inner.contains("{{") && !inner.contains("}}") && !inner.contains("{%")).then_some(inner)
}

/// Refuses what can make a short source build a long value.
fn check_growth(source: &str) -> Result<(), String> {
    for statement in source.split("{%").skip(1) {
        let word = statement
            .trim_start_matches('-')
            .split_whitespace()
            .next()
            .unwrap_or_default();
        if !matches!(word, "if" | "elif" | "else" | "endif") {
            return Err(format!(
                "uses the statement \"{word}\", which is not supported"
            ));
        }
    }
    if outside_quotes(source).filter(|(_, c)| *c == '*').count() > 1 {
        return Err("multiplies more than once, which is not supported".to_owned());
    }
    Ok(())
}

/// The characters of a source that do not stand inside a quoted string, with their positions.
fn outside_quotes(source: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    source.char_indices().filter(move |(_, c)| match quote {
        Some(open) => {
            if *c == open {
                quote = None;
            }
            false
        }
        None => {
            if matches!(c, '"' | '\'') {
                quote = Some(*c);
            }
            quote.is_none()
        }
    })
}

/// The words that follow a `|` or an `is`-test bar, filters in other words.
fn filters_of(source: &str) -> Vec<String> {
    let word = |at: usize| {
        let rest = source.get(at + 1..).unwrap_or_default().trim_start();
        rest.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    outside_quotes(source)
        .filter(|(_, c)| *c == '|')
        .map(|(at, _)| word(at))
        .filter(|w| !w.is_empty())
        .collect()
}

/// Tries a filter on nothing: only its name matters.
fn is_unknown(filter: &str) -> Option<&'static str> {
    let trial = format!("none|{filter}");
    let result = ENVIRONMENT
        .compile_expression(&trial)
        .and_then(|e| e.eval(()));
    matches!(result, Err(error) if error.kind() == ErrorKind::UnknownFilter).then_some("filter")
}

/// What every template sees: the macros, with the clock of the run.
pub fn macros(now: DateTime<Utc>) -> impl Iterator<Item = (&'static str, Value)> {
    let wrong = || Error::from(ErrorKind::InvalidOperation);
    let python = move |format: Option<&str>, default: &str| {
        Format::new(format.unwrap_or(default)).map_err(|_| wrong())
    };
    [
        (
            "now_utc",
            Value::from_function(move || Value::from_object(Moment(now))),
        ),
        (
            "today_utc",
            Value::from_function(move || now.format("%Y-%m-%d").to_string()),
        ),
        (
            "day_delta",
            Value::from_function(move |days: i64, kwargs: Kwargs| {
                let format = python(kwargs.get("format")?, "%Y-%m-%dT%H:%M:%S.%f%z")?;
                let delta = TimeDelta::try_days(days).ok_or_else(wrong)?;
                now.checked_add_signed(delta)
                    .map(|at| format.write(at))
                    .ok_or_else(wrong)
            }),
        ),
        (
            "format_datetime",
            Value::from_function(move |value: Value, format: &str| {
                let text = text_of(&value).unwrap_or_default();
                let at = value.downcast_object_ref::<Moment>().map(|moment| moment.0);
                let at = at.or_else(|| parse_any(&text)).ok_or_else(wrong)?;
                python(Some(format), "").map(|format| format.write(at))
            }),
        ),
    ]
    .into_iter()
}

/// A moment in one of the usual spellings.
pub fn parse_any(text: &str) -> Option<DateTime<Utc>> {
    const USUAL: [&str; 6] = [
        "%Y-%m-%dT%H:%M:%S%z",
        "%Y-%m-%dT%H:%M:%S.%f%z",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%dT%H:%M:%S.%f",
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%d",
    ];
    USUAL
        .iter()
        .find_map(|format| Format::new(format).ok()?.read(text))
}

/// What `now_utc()` gives.
#[derive(Debug)]
struct Moment(DateTime<Utc>);

impl Object for Moment {
    fn call_method(
        self: &Arc<Self>,
        _state: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        let format = match (method, args) {
            ("strftime", [format]) => format.as_str().map(Format::new),
            ("isoformat", []) => Some(Format::new("%Y-%m-%dT%H:%M:%S.%f+00:00")),
            ("timestamp", []) => return Ok(Value::from(self.0.timestamp())),
            _ => return Err(Error::from(ErrorKind::UnknownMethod)),
        };
        match format {
            Some(Ok(format)) => Ok(Value::from(format.write(self.0))),
            _ => Err(Error::from(ErrorKind::InvalidOperation)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d %H:%M:%S%.6f+00:00"))
    }
}

#[cfg(test)]
mod unit_tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn context() -> Value {
        let data = serde_json::json!({"key": "k-1", "n": 12345678901234567_u64, "none": null, "list": [1, 2]});
        let now = "2026-03-31T12:00:00Z".parse().unwrap();
        let config = Value::from(minijinja::value::Serde(data));
        Value::from_pairs(macros(now).chain([("config", config)]))
    }

    fn text(source: &str) -> Result<Option<String>, Code> {
        let template = Template::new(source, "here", &["config"]).map_err(|f| f.code)?;
        template.text(&context()).map_err(|f| f.code)
    }

    #[test]
    fn templates_render_as_manifests_expect() {
        for (source, expected) in [
            ("plain", Some("plain")),
            ("{{ config['key'] }}", Some("k-1")),
            ("{{ config.n }}", Some("12345678901234567")),
            ("a {{ config.key }} b", Some("a k-1 b")),
            ("{{ config['missing'] }}", None),
            ("{{ config['missing']['deeper'] }}", None),
            ("{{ config.none }}", None),
            ("{{ config.get('key', 'x') }}", Some("k-1")),
            ("{{ config.get('other', 'x') }}", Some("x")),
            ("{{ config['missing'] or 'fallback' }}", Some("fallback")),
            ("{{ config.missing | default('d') }}", Some("d")),
            ("{{ 'x' if config.key else 'y' }}", Some("x")),
            ("{% if config.key %}yes{% else %}no{% endif %}", Some("yes")),
            ("{{ config.list | length }}", Some("2")),
            ("{{ config.key.split('-')[0] }}", Some("k")),
            (
                "{{ now_utc().strftime('%Y-%m-%dT%H:%M:%SZ') }}",
                Some("2026-03-31T12:00:00Z"),
            ),
            ("{{ today_utc() }}", Some("2026-03-31")),
            ("{{ day_delta(-1, format='%Y-%m-%d') }}", Some("2026-03-30")),
            (
                "{{ format_datetime('2026-01-02', '%d.%m.%Y') }}",
                Some("02.01.2026"),
            ),
        ] {
            assert_eq!(text(source), Ok(expected.map(str::to_owned)), "{source}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused_when_it_is_saved() {
        for source in [
            "{{ response.next }}",
            "{{ config.x | tojson }}",
            "{{ config.x|indent(1000000000) }}",
            "{{ range(10) }}",
            "{{ 'a' * 9 * 9 }}",
            "{% for x in config %}{% endfor %}",
            "{% set x = 1 %}",
            "{{ config.x",
            "{{ }}",
        ] {
            assert_eq!(text(source), Err(Code::InvalidConfig), "{source}");
        }
        assert_eq!(
            text(&format!("{{{{ '{}' }}}}", "x".repeat(3_000))),
            Err(Code::InvalidConfig)
        );
    }

    #[test]
    fn growth_and_wrong_types_end_in_a_failure() {
        for source in [
            "{{ 'a' * 1000000 }}",
            "{{ config.key.replace('k', 'kk') }}",
            "{{ config.key + 1 }}",
        ] {
            assert_eq!(text(source), Err(Code::TemplateFailed), "{source}");
        }
    }

    #[test]
    fn truth_is_judged_as_manifests_expect() {
        let truth = |source: &str| {
            Template::new(source, "here", &["config"])
                .unwrap()
                .truth(&context())
                .unwrap()
        };
        for source in [
            "{{ config.key }}",
            "{{ not config.missing }}",
            "{{ 1 == 1 }}",
            "x",
        ] {
            assert!(truth(source), "{source}");
        }
        for source in [
            "{{ config.missing }}",
            "{{ 'False' }}",
            "{{ [] }}",
            "{{ 0 }}",
            "false",
            " {{ config.none }} ",
        ] {
            assert!(!truth(source), "{source}");
        }
    }

    proptest! {
        #[test]
        fn no_template_makes_it_panic(inner in "[a-z0-9'\"|.()\\[\\] +~*%-]{0,40}", around in "\\PC{0,5}") {
            for source in [format!("{{{{{inner}}}}}"), format!("{around}{{{{ {inner} }}}}"), format!("{{%{inner}%}}")] {
                let _ = text(&source);
            }
        }
    }
}
