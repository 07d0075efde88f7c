//! Shopify's deliveries.
//!
//! Nothing but the body is signed: neither the delivery's id nor its topic, its shop or its time. Whoever has read one
//! delivery could send its body again under as many ids as he likes, and each would be stored and make the shop be
//! asked. So the body itself identifies: it holds the thing with the time of its last change, and is the same when
//! Shopify tries again. What does not change between two events (a level that is disconnected a second time) is taken
//! for a repeat, and found when the shop is asked next, as it would be without webhooks.

use sha2::{Digest, Sha256};

use crate::error::Failure;
use crate::json::RecordLimits;
use crate::source::Definition;
use crate::source::hook::signature::Secrets;
use crate::source::hook::{Delivery, Hook, Pushed, Refusal, STREAM, delivery, object};

/// The names of the headers of one delivery.
struct Names {
    signature: &'static str,
    domain: &'static str,
}

const USUAL: Names = Names {
    signature: "x-shopify-hmac-sha256",
    domain: "x-shopify-shop-domain",
};

/// A second kind of delivery has the same headers by other names.
const EVENTS: Names = Names {
    signature: "shopify-hmac-sha256",
    domain: "shopify-shop-domain",
};

struct ShopifyHook {
    secrets: Secrets,
    /// The shop's own domain, where it is known.
    shop: Option<String>,
    limits: RecordLimits,
}

/// `host` is the shop's, where the connector names it.
pub fn open(connector: &Definition, host: Option<&str>) -> Result<Option<Box<dyn Hook>>, Failure> {
    // A client secret opens all shops of an app and signs what is pushed about each of them.
    let names = ["webhook_secret", "client_secret", "api_secret"];
    let secrets = Secrets::read(connector, &names)?;
    // Under another domain of its own a shop can be called, but it does not sign itself by it.
    let shop = host.filter(|host| host.ends_with(".myshopify.com"));
    Ok(secrets.map(|secrets| {
        Box::new(ShopifyHook {
            secrets,
            shop: shop.map(str::to_owned),
            limits: connector.limits,
        }) as Box<dyn Hook>
    }))
}

impl Hook for ShopifyHook {
    fn receive(&self, got: &Pushed) -> Result<Delivery, Refusal> {
        // Where both are there, both have to be right.
        let names = match (got.has(USUAL.signature), got.has(EVENTS.signature)) {
            (true, true) => [Some(&USUAL), Some(&EVENTS)],
            (false, true) => [Some(&EVENTS), None],
            _ => [Some(&USUAL), None],
        };
        for Names { signature, domain } in names.into_iter().flatten() {
            self.secrets.check_base64(got, signature, &[got.body])?;
            // It is not signed: this keeps away what is sent to the wrong connector, and no forger.
            if let Some(shop) = self.shop.as_deref().filter(|_| got.has(domain))
                && !got.only(domain)?.eq_ignore_ascii_case(shop.as_bytes())
            {
                return Err(Refusal::Unauthentic);
            }
        }
        let mut found = object(got.text, &[], self.limits)?;
        let hash = Sha256::digest(got.text);
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let id = format!("{STREAM}/{hash}");
        for record in &mut found.records {
            record.id.clone_from(&id);
            (record.formerly, record.key) = (None, None);
        }
        for rejected in &mut found.rejected {
            rejected.id = Some(id.clone());
            rejected.formerly = None;
        }
        Ok(delivery(found.records, found.rejected, "updated_at"))
    }
}
