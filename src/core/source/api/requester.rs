//! `HttpRequester`: the parts that every request of a stream has, and its authenticator.

use base64::Engine;
use minijinja::value::Value as Context;
use serde_json::{Map, Value};

use super::component::{Component, wrong};
use super::errors::Errors;
use super::oauth::OAuth;
use super::parts::{Inject, Parts, credential, join, render};
use crate::error::Failure;
use crate::source::Method;
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
    OAuth(Box<OAuth>),
}

impl Requester {
    pub fn read(component: Component) -> Result<(Requester, Errors), Failure> {
        let mut requester = component.expect("HttpRequester")?;
        let base = match requester.template("url_base", &OFFERED)? {
            Some(base) => base,
            None => requester
                .template("url", &OFFERED)?
                .ok_or_else(|| requester.missing("url_base"))?,
        };
        if base.is_settled() {
            join(&base.text(requester.settled())?.unwrap_or_default(), "")?;
        }
        let path = requester.template("path", &OFFERED)?;
        let methods = [("GET", Method::Get), ("POST", Method::Post)];
        let method = requester.word("http_method", &methods)?;
        let method = method.unwrap_or(Method::Get);
        let authenticator = match requester.child("authenticator", "")? {
            Some(authenticator) => Authenticator::read(authenticator)?,
            None => Authenticator::None,
        };
        let mut options = |key| {
            let fields = requester.take(key).unwrap_or_else(|| Map::new().into());
            pairs(&requester, &fields, &requester.place(key))
        };
        let parameters = options("request_parameters")?;
        let headers = options("request_headers")?;
        let json = requester.place("request_body_json");
        let body = match (
            requester.take("request_body_json"),
            requester.take("request_body_data"),
        ) {
            (Some(value), None) => Body::Json(Shape::read(&requester, &value, &json)?),
            (None, Some(text @ Value::String(_))) => {
                let place = requester.place("request_body_data");
                Body::Text(requester.compile(&text, &place, &OFFERED)?)
            }
            (None, Some(fields)) => {
                let place = requester.place("request_body_data");
                Body::Form(pairs(&requester, &fields, &place)?)
            }
            (None, None) => Body::None,
            (Some(_), Some(_)) => {
                return Err(wrong(format!(
                    "the manifest may have \"{json}\" or request_body_data, not both"
                )));
            }
        };
        let errors = match requester.child("error_handler", "DefaultErrorHandler")? {
            Some(handler) => Errors::read(handler)?,
            None => Errors::default(),
        };
        requester.harmless(&["use_cache"]);
        requester.finish()?;
        let requester = Requester {
            base,
            path,
            method,
            authenticator,
            parameters,
            headers,
            body,
        };
        Ok((requester, errors))
    }

    /// The login that gets the token of the stream.
    pub fn login(&self) -> Option<&OAuth> {
        match &self.authenticator {
            Authenticator::OAuth(oauth) => Some(oauth),
            _ => None,
        }
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
            base: join(&format!("{}/", base.trim_end_matches('/')), "")?,
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
            // The token that was asked for comes on top.
            Authenticator::None | Authenticator::OAuth(_) => {}
            Authenticator::ApiKey(inject, token) => {
                let token = credential(token, context)?;
                parts.add(inject, Value::String(token));
            }
            Authenticator::Bearer(token) => {
                let token = credential(token, context)?;
                parts.authorize(format!("Bearer {token}"));
            }
            Authenticator::Basic(user, password) => {
                let user = credential(user, context)?;
                let password = password
                    .as_ref()
                    .map_or(Ok(None), |password| password.text(context))?;
                let pair = format!("{user}:{}", password.unwrap_or_default());
                let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
                parts.authorize(format!("Basic {encoded}"));
            }
        }
        Ok(parts)
    }
}

impl Authenticator {
    fn read(mut component: Component) -> Result<Authenticator, Failure> {
        let need = |component: &mut Component, key: &str| {
            let template = component.template(key, &["config"])?;
            template.ok_or_else(|| component.missing(key))
        };
        let authenticator = match component.kind() {
            "NoAuth" => Authenticator::None,
            "ApiKeyAuthenticator" => {
                let token = need(&mut component, "api_token")?;
                let inject = match component.child("inject_into", "RequestOption")? {
                    Some(option) => Inject::read(option)?,
                    None => {
                        let header = component.text("header")?;
                        Inject::Header(header.unwrap_or_else(|| "X-Api-Key".to_owned()))
                    }
                };
                Authenticator::ApiKey(inject, token)
            }
            "BearerAuthenticator" => Authenticator::Bearer(need(&mut component, "api_token")?),
            "BasicHttpAuthenticator" => {
                let user = need(&mut component, "username")?;
                Authenticator::Basic(user, component.template("password", &["config"])?)
            }
            "OAuthAuthenticator" => {
                return OAuth::read(component).map(|oauth| Authenticator::OAuth(Box::new(oauth)));
            }
            _ => return Err(component.unsupported()),
        };
        component.finish()?;
        Ok(authenticator)
    }
}

/// An object of templates. A list as value gives its name several times.
fn pairs(
    component: &Component,
    value: &Value,
    place: &str,
) -> Result<Vec<(String, Template)>, Failure> {
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
            Shape::Template(template) => template.json(context)?,
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
