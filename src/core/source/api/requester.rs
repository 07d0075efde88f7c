//! The request: URL, parameters, headers, body, and where credentials go.

use base64::Engine;
use bytes::Bytes;
use minijinja::value::Value as Context;
use serde_json::{Map, Value};
use url::Url;

use super::component::{Component, wrong};
use crate::error::{Code, Failure};
use crate::source::{Method, Request};
use crate::template::Template;

/// Names that the templates of a request may use.
pub const OFFERED: [&str; 5] = [
    "config",
    "next_page_token",
    "stream_slice",
    "stream_partition",
    "stream_interval",
];

pub struct Requester {
    base: Template,
    path: Option<Template>,
    method: Method,
    authenticator: Authenticator,
    parameters: Vec<(String, Template)>,
    headers: Vec<(String, Template)>,
    body: Body,
}

enum Body {
    None,
    Json(Shape),
    Form(Vec<(String, Template)>),
    Text(Template),
}

/// JSON with templates in the place of its strings.
enum Shape {
    Template(Template),
    Array(Vec<Shape>),
    Object(Vec<(String, Shape)>),
    Other(Value),
}

enum Authenticator {
    None,
    ApiKey(Inject, Template),
    Bearer(Template),
    Basic(Template, Option<Template>),
}

/// Where a value goes in a request.
#[derive(Clone, PartialEq, Eq)]
pub enum Inject {
    Parameter(String),
    Header(String),
    BodyJson(Vec<String>),
    BodyForm(String),
}

impl Inject {
    pub fn read(component: Component) -> Result<Inject, Failure> {
        let mut option = component.expect("RequestOption")?;
        let place = option.place("inject_into");
        let into = option.text("inject_into")?.unwrap_or_default();
        let name = option.text("field_name")?;
        let path = option.take("field_path").and_then(Value::as_array);
        let path: Option<Vec<String>> = path.map(|path| {
            path.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        });
        option.finish()?;
        let missing = || wrong(format!("\"{place}\" of the manifest has no field_name"));
        match into.as_str() {
            "request_parameter" => Ok(Inject::Parameter(name.ok_or_else(missing)?)),
            "header" => Ok(Inject::Header(name.ok_or_else(missing)?)),
            "body_data" => Ok(Inject::BodyForm(name.ok_or_else(missing)?)),
            "body_json" => match path.or_else(|| name.map(|name| vec![name])) {
                Some(path) if !path.is_empty() => Ok(Inject::BodyJson(path)),
                _ => Err(missing()),
            },
            _ => Err(wrong(format!(
                "\"{place}\" of the manifest cannot be \"{into}\""
            ))),
        }
    }
}

impl Requester {
    pub fn read(component: Component) -> Result<Requester, Failure> {
        let mut requester = component.expect("HttpRequester")?;
        let place = requester.place("url_base");
        let base = match requester.template("url_base", &OFFERED)? {
            Some(base) => base,
            None => requester
                .template("url", &OFFERED)?
                .ok_or_else(|| wrong(format!("the manifest has no \"{place}\"")))?,
        };
        let path = requester.template("path", &OFFERED)?;
        let method = match requester.text("http_method")?.as_deref() {
            None | Some("GET") => Method::Get,
            Some("POST") => Method::Post,
            Some(other) => return Err(wrong(format!("http_method \"{other}\" is not supported"))),
        };
        let authenticator = match requester.child("authenticator", "")? {
            Some(authenticator) => Authenticator::read(authenticator)?,
            None => Authenticator::None,
        };
        let parameters = pairs(&mut requester, "request_parameters")?;
        let headers = pairs(&mut requester, "request_headers")?;
        let json = requester.place("request_body_json");
        let body = match (
            requester.take("request_body_json"),
            requester.take("request_body_data"),
        ) {
            (Some(value), None) => Body::Json(Shape::read(&requester, value, &json)?),
            (None, Some(Value::String(_))) => Body::Text(
                requester
                    .template("request_body_data", &OFFERED)?
                    .ok_or_else(|| wrong("no body"))?,
            ),
            (None, Some(_)) => Body::Form(pairs(&mut requester, "request_body_data")?),
            (None, None) => Body::None,
            (Some(_), Some(_)) => {
                return Err(wrong(format!(
                    "\"{json}\" and request_body_data exclude each other"
                )));
            }
        };
        requester.harmless(&["use_cache"]);
        requester.finish()?;
        Ok(Requester {
            base,
            path,
            method,
            authenticator,
            parameters,
            headers,
            body,
        })
    }

    /// Renders everything but what paging and the cursor add.
    pub fn parts(&self, context: &Context) -> Result<Parts, Failure> {
        let base = self.base.text(context)?.unwrap_or_default();
        let path = self
            .path
            .as_ref()
            .map_or(Ok(None), |path| path.text(context))?
            .unwrap_or_default();
        let mut parts = Parts {
            method: self.method,
            url: join(&base, &path)?,
            parameters: render(&self.parameters, context)?,
            headers: render(&self.headers, context)?,
            json: None,
            form: Vec::new(),
            text: None,
        };
        match &self.body {
            Body::None => {}
            Body::Json(shape) => parts.json = Some(shape.render(context)?),
            Body::Form(fields) => parts.form = render(fields, context)?,
            Body::Text(text) => parts.text = text.text(context)?,
        }
        match &self.authenticator {
            Authenticator::None => {}
            Authenticator::ApiKey(inject, token) => {
                let token = credential(token, context)?;
                // A vendor that reads the first of two must not read another one than ours.
                parts.add(inject, Value::String(token));
            }
            Authenticator::Bearer(token) => {
                let token = credential(token, context)?;
                parts
                    .headers
                    .push(("Authorization".to_owned(), format!("Bearer {token}")));
            }
            Authenticator::Basic(user, password) => {
                let user = credential(user, context)?;
                let password = password
                    .as_ref()
                    .map_or(Ok(None), |password| password.text(context))?;
                let pair = format!("{user}:{}", password.unwrap_or_default());
                let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
                parts
                    .headers
                    .push(("Authorization".to_owned(), format!("Basic {encoded}")));
            }
        }
        Ok(parts)
    }
}

impl Authenticator {
    fn read(mut component: Component) -> Result<Authenticator, Failure> {
        let need = |template: Option<Template>, place: String| {
            template.ok_or_else(|| wrong(format!("the manifest has no \"{place}\"")))
        };
        let authenticator = match component.kind() {
            "NoAuth" => Authenticator::None,
            "ApiKeyAuthenticator" => {
                let place = component.place("api_token");
                let token = need(component.template("api_token", &["config"])?, place)?;
                let inject = match component.child("inject_into", "RequestOption")? {
                    Some(option) => Inject::read(option)?,
                    None => {
                        let header = component.text("header")?;
                        Inject::Header(header.unwrap_or_else(|| "X-Api-Key".to_owned()))
                    }
                };
                Authenticator::ApiKey(inject, token)
            }
            "BearerAuthenticator" => {
                let place = component.place("api_token");
                Authenticator::Bearer(need(component.template("api_token", &["config"])?, place)?)
            }
            "BasicHttpAuthenticator" => {
                let place = component.place("username");
                let user = need(component.template("username", &["config"])?, place)?;
                Authenticator::Basic(user, component.template("password", &["config"])?)
            }
            _ => return Err(component.unsupported()),
        };
        component.finish()?;
        Ok(authenticator)
    }
}

fn credential(template: &Template, context: &Context) -> Result<String, Failure> {
    template.text(context)?.ok_or_else(|| {
        Failure::new(
            Code::InvalidConfig,
            "a credential that the manifest asks for is not in credentials or config",
        )
    })
}

/// An object of templates. A list as value gives its name several times.
fn pairs(component: &mut Component, key: &'static str) -> Result<Vec<(String, Template)>, Failure> {
    let place = component.place(key);
    let Some(value) = component.take(key) else {
        return Ok(Vec::new());
    };
    let fields = value
        .as_object()
        .ok_or_else(|| wrong(format!("\"{place}\" of the manifest is not an object")))?;
    let mut pairs = Vec::new();
    for (name, value) in fields {
        let values = value
            .as_array()
            .map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values {
            pairs.push((
                name.clone(),
                component.compile(value, &format!("{place}.{name}"), &OFFERED)?,
            ));
        }
    }
    Ok(pairs)
}

/// A value that is missing leaves its name out.
fn render(
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

impl Shape {
    fn read(component: &Component, value: &Value, place: &str) -> Result<Shape, Failure> {
        Ok(match value {
            Value::String(_) => Shape::Template(component.compile(value, place, &OFFERED)?),
            Value::Array(items) => Shape::Array(
                items
                    .iter()
                    .map(|item| Shape::read(component, item, place))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(fields) => {
                let field = |(key, value): (&String, &Value)| {
                    Ok((
                        key.clone(),
                        Shape::read(component, value, &format!("{place}.{key}"))?,
                    ))
                };
                Shape::Object(fields.iter().map(field).collect::<Result<_, Failure>>()?)
            }
            other => Shape::Other(other.clone()),
        })
    }

    fn render(&self, context: &Context) -> Result<Value, Failure> {
        Ok(match self {
            Shape::Template(template) => {
                serde_json::to_value(template.value(context)?).unwrap_or(Value::Null)
            }
            Shape::Array(items) => items
                .iter()
                .map(|item| item.render(context))
                .collect::<Result<_, _>>()?,
            Shape::Object(fields) => {
                let field =
                    |(key, shape): &(String, Shape)| Ok((key.clone(), shape.render(context)?));
                Value::Object(fields.iter().map(field).collect::<Result<_, Failure>>()?)
            }
            Shape::Other(value) => value.clone(),
        })
    }
}

/// A request that is being put together.
pub struct Parts {
    method: Method,
    url: Url,
    parameters: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    json: Option<Value>,
    form: Vec<(String, String)>,
    text: Option<String>,
}

impl Parts {
    /// Puts a value in; one of the same name that the requester set is replaced.
    pub fn add(&mut self, inject: &Inject, value: Value) {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let replace = |pairs: &mut Vec<(String, String)>, name: &str| {
            pairs.retain(|(other, _)| other != name);
            pairs.push((name.to_owned(), text));
        };
        match inject {
            Inject::Parameter(name) => replace(&mut self.parameters, name),
            Inject::Header(name) => replace(&mut self.headers, name),
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

    /// Goes to another address: a path of the same host, or the same host's whole URL. Credentials never go
    /// anywhere else.
    pub fn go_to(&mut self, target: &str) -> Result<(), Failure> {
        let url = self.url.join(target).map_err(|_| {
            Failure::new(
                Code::UnexpectedShape,
                "the next page's address is not a URL",
            )
        })?;
        if url.origin() != self.url.origin()
            || !url.username().is_empty()
            || url.password().is_some()
        {
            return Err(Failure::new(
                Code::ForeignNextPage,
                "the next page's address lies on another host",
            ));
        }
        // What the address says itself is not said twice.
        let said: Vec<String> = url
            .query_pairs()
            .map(|(name, _)| name.into_owned())
            .collect();
        self.parameters.retain(|(name, _)| !said.contains(name));
        self.url = url;
        Ok(())
    }

    pub fn build(self) -> Result<Request, Failure> {
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
            method: self.method,
            url,
            headers,
            body,
        })
    }
}

/// Base and path with one slash between them; an empty path leaves the base as it is.
fn join(base: &str, path: &str) -> Result<Url, Failure> {
    let text = match path.trim_start_matches('/') {
        "" => base.to_owned(),
        path => format!("{}/{path}", base.trim_end_matches('/')),
    };
    let url = Url::parse(&text).map_err(|_| wrong("url_base and path do not make a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("url_base is not an http or https URL with a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            "url_base holds a user name; credentials belong in credentials",
        ));
    }
    Ok(url)
}
