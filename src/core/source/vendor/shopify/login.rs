//! Shopify's tokens.

use serde_json::json;
use url::Url;

use crate::error::Failure;
use crate::secret::Secret;
use crate::source::reading;
use crate::source::token::{self, USUAL};
use crate::source::{Grant, Login, Request, Response, Rotated, Start};

/// Tokens by client credentials, or by a refresh token that is replaced at each use.
pub struct OAuth {
    pub url: Url,
    pub id: Secret,
    pub secret: Secret,
    pub refresh: Option<Secret>,
}

impl Login for OAuth {
    fn request(&self, _start: Start, refresh: Option<&Secret>) -> Result<Request, Failure> {
        let mut body = json!({
            "client_id": self.id.text(),
            "client_secret": self.secret.text(),
            "grant_type": "client_credentials",
        });
        if let Some(token) = refresh.or(self.refresh.as_ref()) {
            body = reading::with(body, "grant_type", "refresh_token");
            body = reading::with(body, "refresh_token", token.text());
        }
        Ok(Request::post_json(self.url.clone(), &body).header("Accept", "application/json"))
    }

    fn granted(
        &self,
        _start: Start,
        refresh: Option<&Secret>,
        got: &Response,
    ) -> Result<Grant, Failure> {
        let sent = refresh.or(self.refresh.as_ref());
        Ok(token::answer(got, &USUAL)?.grant(sent, None))
    }

    fn spends(&self) -> bool {
        self.refresh.is_some()
    }

    fn rotated(&self, _: Start, refresh: Option<&Secret>, got: &Response) -> Option<Rotated> {
        token::rotated_in(got, &USUAL, refresh.or(self.refresh.as_ref()))
    }
}
