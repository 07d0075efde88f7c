//! What the Webhook documents of a Frappe site send, of which ERPNext is an app.

use crate::error::Failure;
use crate::json::RecordLimits;
use crate::source::Definition;
use crate::source::hook::signature::Secrets;
use crate::source::hook::{Delivery, Hook, Pushed, Refusal, delivery, field, object, words};

/// A state of a document, where the site's administrator has put all three into the body.
const STATE: [&str; 3] = ["doctype", "name", "modified"];

struct FrappeHook {
    secrets: Secrets,
    limits: RecordLimits,
}

pub fn open(connector: &Definition) -> Result<Option<Box<dyn Hook>>, Failure> {
    let secrets = Secrets::read(connector, &["webhook_secret"])?;
    Ok(secrets.map(|secrets| {
        let limits = connector.limits;
        Box::new(FrappeHook { secrets, limits }) as Box<dyn Hook>
    }))
}

impl Hook for FrappeHook {
    fn receive(&self, got: &Pushed) -> Result<Delivery, Refusal> {
        self.secrets
            .check_base64(got, "x-frappe-webhook-signature", &[got.body])?;
        let is_there = |field: &&str| field::scalar(got.text, &words(&[field])).is_some();
        // Two of them would make one event of all states of a document.
        let key: &[&str] = match STATE.iter().all(is_there) {
            true => &STATE,
            false => &[],
        };
        let found = object(got.text, key, self.limits)?;
        // `modified` is of the site's zone, which is not told.
        Ok(delivery(found.records, found.rejected, ""))
    }
}
