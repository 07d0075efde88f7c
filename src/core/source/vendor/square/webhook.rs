//! Square's events.
//!
//! Signed is the address that they are sent to, and then the body. Behind a proxy a request does not know that address,
//! and whoever sends could choose it: so it is a setting, to the letter.

use crate::error::Failure;
use crate::json::RecordLimits;
use crate::source::Definition;
use crate::source::hook::signature::Secrets;
use crate::source::hook::{Delivery, Hook, Pushed, Refusal, event};
use crate::source::settings::{Settings, wrong};

/// The longest address. Longer: none that Square takes.
const LONGEST_URL: usize = 2_048;

struct SquareHook {
    secrets: Secrets,
    url: String,
    limits: RecordLimits,
}

pub fn open(connector: &Definition, settings: &Settings) -> Result<Option<Box<dyn Hook>>, Failure> {
    let url = url(settings)?;
    let Some(secrets) = Secrets::read(connector, &["webhook_signature_key"])? else {
        return Ok(None);
    };
    let url = url.ok_or_else(|| {
        wrong("credentials have a \"webhook_signature_key\", but config has no \"webhook_url\", which the signature covers")
    })?;
    Ok(Some(Box::new(SquareHook {
        secrets,
        url,
        limits: connector.limits,
    })))
}

fn url(settings: &Settings) -> Result<Option<String>, Failure> {
    let Some(value) = settings.value("webhook_url") else {
        return Ok(None);
    };
    // As it stands there: a blank or a slash more is another address.
    let url = value.as_str().filter(|text| {
        text.len() <= LONGEST_URL
            && text.starts_with("https://")
            && text.bytes().all(|byte| byte.is_ascii_graphic())
            && url::Url::parse(text).is_ok()
    });
    let url = url.ok_or_else(|| wrong("config's \"webhook_url\" has to be an https URL"))?;
    Ok(Some(url.to_owned()))
}

impl Hook for SquareHook {
    fn receive(&self, got: &Pushed) -> Result<Delivery, Refusal> {
        // `x-square-signature`, which comes with it, is of SHA-1, and is not looked at.
        let header = "x-square-hmacsha256-signature";
        let parts = [self.url.as_bytes(), got.body];
        self.secrets.check_base64(got, header, &parts)?;
        event(got.text, "event_id", "created_at", self.limits)
    }
}
