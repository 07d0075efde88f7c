//! QuickBooks' tokens.

use url::Url;

use crate::error::Failure;
use crate::secret::Secret;
use crate::source::token::{self, USUAL};
use crate::source::{Grant, Login, Request, Response, Rotated, Start};

/// Tokens by refresh token.
pub struct OAuth {
    pub url: Url,
    pub client_id: Secret,
    pub client_secret: Secret,
    pub refresh: Secret,
}

impl Login for OAuth {
    fn request(&self, _start: Start, refresh: Option<&Secret>) -> Result<Request, Failure> {
        let token = refresh.unwrap_or(&self.refresh);
        let form = [
            ("grant_type", "refresh_token".into()),
            ("refresh_token", token.text()),
        ];
        let form: Vec<(&str, &str)> = form
            .iter()
            .map(|(name, text)| (*name, text.as_ref()))
            .collect();
        Ok(Request::post_form(self.url.clone(), &form)
            .basic(&self.client_id, &self.client_secret)
            .header("Accept", "application/json"))
    }

    fn granted(
        &self,
        _start: Start,
        refresh: Option<&Secret>,
        got: &Response,
    ) -> Result<Grant, Failure> {
        let sent = refresh.unwrap_or(&self.refresh);
        Ok(token::answer(got, &USUAL)?.grant(Some(sent), None))
    }

    fn spends(&self) -> bool {
        true
    }

    fn rotated(&self, _: Start, refresh: Option<&Secret>, got: &Response) -> Option<Rotated> {
        token::rotated_in(got, &USUAL, refresh.or(Some(&self.refresh)))
    }
}
