//! Square's tokens.

use serde_json::{Value, json};
use url::Url;

use crate::error::Failure;
use crate::secret::Secret;
use crate::source::reading;
use crate::source::token::{self, USUAL};
use crate::source::{Grant, Login, Request, Response, Rotated, Start};
use crate::template::parse_any;

/// Tokens by refresh token.
pub struct OAuth {
    pub url: Url,
    pub client_id: Secret,
    pub client_secret: Option<Secret>,
    pub refresh: Secret,
}

impl Login for OAuth {
    fn request(&self, _start: Start, refresh: Option<&Secret>) -> Result<Request, Failure> {
        let mut body = json!({
            "client_id": self.client_id.text(),
            "grant_type": "refresh_token",
            "refresh_token": refresh.unwrap_or(&self.refresh).text(),
        });
        if let Some(secret) = &self.client_secret {
            body = reading::with(body, "client_secret", secret.text());
        }
        Ok(Request::post_json(self.url.clone(), &body))
    }

    fn granted(
        &self,
        start: Start,
        refresh: Option<&Secret>,
        got: &Response,
    ) -> Result<Grant, Failure> {
        let mut answer = token::answer(got, &USUAL)?;
        // A moment, where others have a number of seconds.
        let over_at = answer.fields.fields().get("expires_at");
        let over_at = over_at.and_then(Value::as_str).and_then(parse_any);
        answer.lives = over_at.and_then(|over_at| (over_at - start.now).to_std().ok());
        let sent = refresh.unwrap_or(&self.refresh);
        Ok(answer.grant(Some(sent), None))
    }

    fn spends(&self) -> bool {
        true
    }

    fn rotated(&self, _: Start, refresh: Option<&Secret>, got: &Response) -> Option<Rotated> {
        token::rotated_in(got, &USUAL, refresh.or(Some(&self.refresh)))
    }
}
