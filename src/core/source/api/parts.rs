//! A request while it is put together: requester, authenticator, paginator and cursor each add their part.

use bytes::Bytes;
use minijinja::value::Value as Context;
use serde_json::{Map, Value};
use url::Url;

use super::component::{Component, check_steps, wrong};
use crate::error::{Code, Failure};
use crate::source::{Method, Request};
use crate::template::Template;

/// Where a value goes in a request.
#[derive(Clone, PartialEq, Eq)]
pub enum Inject {
    Parameter(String),
    Header(String),
    BodyJson(Vec<String>),
    BodyForm(String),
}

impl Inject {
    /// The name of the field.
    pub fn name(&self) -> &str {
        match self {
            Inject::Parameter(name) | Inject::Header(name) | Inject::BodyForm(name) => name,
            Inject::BodyJson(path) => path.last().map_or("", String::as_str),
        }
    }

    pub fn read(component: Component) -> Result<Inject, Failure> {
        let mut option = component.expect("RequestOption")?;
        type OfName = fn(String) -> Inject;
        let places: [(&str, OfName); 4] = [
            ("request_parameter", Inject::Parameter),
            ("header", Inject::Header),
            ("body_data", Inject::BodyForm),
            ("body_json", |name| Inject::BodyJson(vec![name])),
        ];
        let inject = option
            .word("inject_into", &places)?
            .ok_or_else(|| option.missing("inject_into"))?;
        let name = option.text("field_name")?;
        let place = option.place("field_path");
        let missing = option.missing("field_name");
        let mut path = Vec::new();
        let steps = option.templates("field_path", &["config"])?;
        check_steps(steps.len(), &place)?;
        for step in steps {
            path.push(
                step.text(option.settled())?
                    .ok_or_else(|| missing.clone())?,
            );
        }
        option.finish()?;
        match (inject(name.clone().unwrap_or_default()), name) {
            (Inject::BodyJson(_), None) if !path.is_empty() => Ok(Inject::BodyJson(path)),
            // Which of the two is meant cannot be told.
            (Inject::BodyJson(_), Some(_)) if !path.is_empty() => Err(wrong(format!(
                "the manifest may have \"{place}\" or field_name, not both"
            ))),
            (inject, Some(_)) => Ok(inject),
            (_, None) => Err(missing),
        }
    }
}

/// A request that is being put together.
pub struct Parts {
    pub method: Method,
    /// The requester's base, with a slash at its end.
    pub base: Url,
    pub url: Url,
    pub parameters: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub json: Option<Value>,
    pub form: Vec<(String, String)>,
    pub text: Option<String>,
}

impl Parts {
    /// Adds a value; it replaces one of the same name that the requester set.
    pub fn add(&mut self, inject: &Inject, value: Value) {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        // A vendor that reads the first of two must not read another one than ours.
        let replace = |pairs: &mut Vec<(String, String)>, name: &str| {
            pairs.retain(|(other, _)| other != name);
            pairs.push((name.to_owned(), text));
        };
        match inject {
            Inject::Parameter(name) => replace(&mut self.parameters, name),
            Inject::Header(name) => {
                self.headers
                    .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                replace(&mut self.headers, name);
            }
            Inject::BodyForm(name) => replace(&mut self.form, name),
            Inject::BodyJson(path) => {
                let mut target = self.json.get_or_insert_with(|| Value::Object(Map::new()));
                for key in path {
                    if !target.is_object() {
                        *target = Value::Object(Map::new());
                    }
                    let Some(fields) = target.as_object_mut() else {
                        return;
                    };
                    target = fields.entry(key.clone()).or_insert(Value::Null);
                }
                *target = value;
            }
        }
    }

    pub fn authorize(&mut self, value: String) {
        self.add(&Inject::Header("Authorization".to_owned()), value.into());
    }

    /// Goes to another address: a path, from the requester's base as its own path is, or a URL of the same host.
    /// A query alone changes the query. Credentials never go anywhere else.
    pub fn go_to(&mut self, target: &str) -> Result<(), Failure> {
        let from = if target.starts_with('?') {
            &self.url
        } else {
            &self.base
        };
        let url = from.join(target).map_err(|_| {
            Failure::new(
                Code::UnexpectedShape,
                "the address of the next page is not a URL",
            )
        })?;
        if url.origin() != self.url.origin()
            || !url.username().is_empty()
            || url.password().is_some()
        {
            return Err(Failure::new(
                Code::ForeignNextPage,
                "the address of the next page is on another host",
            ));
        }
        // What the address says itself is not said twice.
        let named: Vec<String> = url
            .query_pairs()
            .map(|(name, _)| name.into_owned())
            .collect();
        self.parameters.retain(|(name, _)| !named.contains(name));
        self.url = url;
        Ok(())
    }

    pub fn build(self) -> Result<Request, Failure> {
        if self.json.is_some() && (self.text.is_some() || !self.form.is_empty()) {
            return Err(wrong(
                "the manifest asks for a JSON body and a form body in one request",
            ));
        }
        let mut url = self.url;
        if !self.parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.parameters);
        }
        let mut headers = self.headers;
        let mut typed = |kind: &str| {
            if !headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
            {
                headers.push(("Content-Type".to_owned(), kind.to_owned()));
            }
        };
        let body = if let Some(json) = self.json {
            typed("application/json");
            Some(Bytes::from(json.to_string()))
        } else if !self.form.is_empty() {
            typed("application/x-www-form-urlencoded");
            let form = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(&self.form)
                .finish();
            Some(Bytes::from(form))
        } else {
            self.text.map(Bytes::from)
        };
        Ok(Request {
            is_bare: false,
            method: self.method,
            url,
            headers,
            body,
        })
    }
}

/// Base and path with one slash between them; an empty path leaves the base as it is.
pub fn join(base: &str, path: &str) -> Result<Url, Failure> {
    let text = match path.trim_start_matches('/') {
        "" => base.to_owned(),
        path => format!("{}/{path}", base.trim_end_matches('/')),
    };
    let url = Url::parse(&text).map_err(|_| wrong("url_base and path together are not a URL"))?;
    // A host that starts with a dot is what a template without its value leaves.
    let host = url.host_str().filter(|host| !host.starts_with('.'));
    if !matches!(url.scheme(), "http" | "https") || host.is_none() {
        return Err(wrong("url_base has to be an http or https URL with a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "url_base contains a user name or password; move it to credentials",
        ));
    }
    Ok(url)
}

pub fn credential(template: &Template, context: &Context) -> Result<String, Failure> {
    template.text(context)?.ok_or_else(|| {
        let keys = template.missing_keys(context);
        let what = match keys.as_slice() {
            [] => "has no value".to_owned(),
            keys => {
                let names: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
                let names = names.join(", ");
                format!("asks for {names}, which credentials and config do not have")
            }
        };
        let message = format!("\"{}\" of the manifest {what}", template.place());
        Failure::new(Code::InvalidConfig, message)
    })
}

/// A value that is missing leaves its name out.
pub fn render(
    pairs: &[(String, Template)],
    context: &Context,
) -> Result<Vec<(String, String)>, Failure> {
    let mut rendered = Vec::new();
    for (name, template) in pairs {
        if let Some(text) = template.text(context)? {
            rendered.push((name.clone(), text));
        }
    }
    Ok(rendered)
}
