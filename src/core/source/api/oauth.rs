//! `OAuthAuthenticator`: a token request, and where a refresh token that the vendor replaces is kept.

use minijinja::value::Value as Context;
use serde_json::{Map, Value};
use url::Url;

use super::component::{Component, wrong};
use super::parts::{Parts, credential, render};
use crate::error::Failure;
use crate::secret::{Credentials, Secret};
use crate::source::{Access, Grant, Method, Request, Response, Rotated, token};
use crate::template::Template;

pub struct OAuth {
    endpoint: Url,
    /// Name and value of each field of the request's body, the refresh token aside.
    body: Vec<(String, Template)>,
    /// Name and value of the refresh token; there unless the grant needs none.
    refresh: Option<(String, Template)>,
    headers: Vec<(String, Template)>,
    /// Names of the answer's fields.
    access: String,
    lives: String,
    rotated: String,
    /// Where the manifest keeps the refresh token.
    kept: Option<Vec<String>>,
    /// The login's part of the manifest, to compare two logins.
    pub described: Value,
}

impl OAuth {
    pub fn read(mut component: Component) -> Result<OAuth, Failure> {
        let described = component.described();
        let mut name = |key: &str, default: &str| {
            let name = component.text(key)?;
            Ok::<String, Failure>(name.unwrap_or_else(|| default.to_owned()))
        };
        let id_name = name("client_id_name", "client_id")?;
        let secret_name = name("client_secret_name", "client_secret")?;
        let grant_name = name("grant_type_name", "grant_type")?;
        let refresh_name = name("refresh_token_name", "refresh_token")?;
        let access = name("access_token_name", "access_token")?;
        let lives = name("expires_in_name", "expires_in")?;
        let grant = name("grant_type", "refresh_token")?;

        let place = component.place("token_refresh_endpoint");
        let endpoint = component
            .text("token_refresh_endpoint")?
            .ok_or_else(|| component.missing("token_refresh_endpoint"))?;
        let endpoint = Url::parse(&endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .filter(|url| url.username().is_empty() && url.password().is_none())
            .ok_or_else(|| {
                wrong(format!(
                    "\"{place}\" of the manifest is not an http or https URL"
                ))
            })?;

        let grant = Value::from(grant);
        let mut body = vec![(grant_name, component.compile(&grant, "grant_type", &[])?)];
        for (key, name) in [("client_id", id_name), ("client_secret", secret_name)] {
            if let Some(template) = component.template(key, &["config"])? {
                body.push((name, template));
            }
        }
        let scopes = component.templates("scopes", &["config"])?;
        if !scopes.is_empty() {
            let settled = |scope: &Template| scope.text(component.settled());
            let scopes = scopes.iter().map(settled).collect::<Result<Vec<_>, _>>()?;
            let scopes: Vec<String> = scopes.into_iter().flatten().collect();
            let text = Value::from(scopes.join(" "));
            body.push(("scope".into(), component.compile(&text, "scopes", &[])?));
        }
        body.extend(fields(&mut component, "refresh_request_body")?);
        let headers = fields(&mut component, "refresh_request_headers")?;
        let template = component.template("refresh_token", &["config"])?;
        let refresh = match template {
            Some(template) if grant == "refresh_token" => Some((refresh_name, template)),
            None if grant == "refresh_token" => return Err(component.missing("refresh_token")),
            _ => None,
        };
        let (mut rotated, mut kept) = ("refresh_token".to_owned(), None);
        if let Some(mut updater) = component.child("refresh_token_updater", "")? {
            rotated = updater.text("refresh_token_name")?.unwrap_or(rotated);
            let place = updater.place("refresh_token_config_path");
            let path = updater.templates("refresh_token_config_path", &[])?;
            let step = |step: &Template| updater.plain(step, &place);
            let path = path.iter().map(step).collect::<Result<Vec<_>, _>>()?;
            let path: Vec<String> = path.into_iter().flatten().collect();
            kept = Some(path).filter(|path| !path.is_empty());
            // Access tokens are asked for by every run, and kept nowhere.
            updater.harmless(&["access_token_config_path", "token_expiry_date_config_path"]);
            updater.finish()?;
        }
        component.finish()?;
        Ok(OAuth {
            endpoint,
            body,
            refresh,
            headers,
            access,
            lives,
            rotated,
            kept,
            described,
        })
    }

    /// The token request, with `refresh` in the place of the refresh token that is configured.
    pub fn request(&self, context: &Context, refresh: Option<&Secret>) -> Result<Request, Failure> {
        let mut body = render(&self.body, context)?;
        if let Some((name, _)) = &self.refresh {
            let token = self.sent(context, refresh)?;
            body.push((name.clone(), token.text().into_owned()));
        }
        let headers = render(&self.headers, context)?;
        let is_json = headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("content-type") && value.contains("json")
        });
        let mut parts = Parts {
            method: Method::Post,
            base: self.endpoint.clone(),
            url: self.endpoint.clone(),
            parameters: Vec::new(),
            headers,
            json: None,
            form: Vec::new(),
            text: None,
        };
        if is_json {
            let fields: Map<String, Value> = body
                .into_iter()
                .map(|(name, value)| (name, value.into()))
                .collect();
            parts.json = Some(fields.into());
        } else {
            parts.form = body;
        }
        parts.build()
    }

    /// The refresh token that a request holds.
    fn sent(&self, context: &Context, refresh: Option<&Secret>) -> Result<Secret, Failure> {
        match (refresh, &self.refresh) {
            (Some(refresh), _) => Ok(refresh.clone()),
            (None, Some((_, template))) => {
                credential(template, context).map(|text| Secret::new(text.into_bytes()))
            }
            (None, None) => Ok(Secret::new(Vec::new())),
        }
    }

    /// Reads the answer to a request with the same `refresh`. None of its text is repeated anywhere.
    pub fn granted(
        &self,
        context: &Context,
        credentials: &Credentials,
        refresh: Option<&Secret>,
        got: &Response,
    ) -> Result<Grant, Failure> {
        let names = token::Names {
            access: &self.access,
            lives: &self.lives,
            refresh: &self.rotated,
        };
        let answer = token::answer(got, &names)?;
        let rotated = match answer.refresh {
            Some(new) => self.rotated(context, credentials, refresh, new)?,
            None => None,
        };
        Ok(Grant {
            access: Access {
                token: answer.access,
                base: None,
            },
            lives: answer.lives,
            rotated,
        })
    }

    /// Whether a request shows a refresh token.
    pub fn spends(&self) -> bool {
        self.refresh.is_some()
    }

    /// The refresh token in an answer that cannot be used otherwise.
    pub fn rotated_in(
        &self,
        context: &Context,
        credentials: &Credentials,
        refresh: Option<&Secret>,
        got: &Response,
    ) -> Option<Rotated> {
        let names = token::Names {
            refresh: &self.rotated,
            ..token::USUAL
        };
        let new = token::refresh_in(got, &names)?;
        self.rotated(context, credentials, refresh, new).ok()?
    }

    /// What to store, where it is another one than was sent.
    fn rotated(
        &self,
        context: &Context,
        credentials: &Credentials,
        refresh: Option<&Secret>,
        new: Secret,
    ) -> Result<Option<Rotated>, Failure> {
        if self.refresh.is_none() {
            return Ok(None);
        }
        let old = self.sent(context, refresh)?;
        if new == old {
            return Ok(None);
        }
        let path = match &self.kept {
            Some(path) => path.clone(),
            None => self.place_of(context, credentials)?,
        };
        Ok(Some(Rotated { path, old, new }))
    }

    /// Where credentials hold the refresh token that is configured.
    fn place_of(
        &self,
        context: &Context,
        credentials: &Credentials,
    ) -> Result<Vec<String>, Failure> {
        let configured = self.sent(context, None)?;
        let is_it = |value: &Value| {
            let text = value.as_str().unwrap_or_default();
            text.as_bytes() == configured.expose()
        };
        let inner = |(field, value): (&String, &Value)| -> Vec<Vec<String>> {
            let within = value.as_object().into_iter().flatten();
            let within = within.filter(|(_, value)| is_it(value));
            let mut paths: Vec<_> = within
                .map(|(key, _)| vec![field.clone(), key.clone()])
                .collect();
            paths.extend(is_it(value).then(|| vec![field.clone()]));
            paths
        };
        let mut paths = credentials.fields().iter().flat_map(inner);
        match (paths.next(), paths.next()) {
            (Some(path), None) => Ok(path),
            _ => Err(wrong(
                "the vendor replaced the refresh token, but credentials do not have the old one in exactly one place; name its place in refresh_token_updater.refresh_token_config_path",
            )),
        }
    }
}

fn fields(component: &mut Component, key: &str) -> Result<Vec<(String, Template)>, Failure> {
    let place = component.place(key);
    let fields = component.take(key).unwrap_or_else(|| Map::new().into());
    let fields = fields
        .as_object()
        .ok_or_else(|| wrong(format!("\"{place}\" of the manifest is not an object")))?;
    fields
        .iter()
        .map(|(name, value)| {
            let template = component.compile(value, &format!("{place}.{name}"), &["config"])?;
            Ok((name.clone(), template))
        })
        .collect()
}
