//! Stripe's events.
//!
//! Whether an event is of live mode is not compared: each mode's endpoint has a secret of its own, and what is asked
//! afterwards is asked with the connector's own key.

use crate::error::Failure;
use crate::json::RecordLimits;
use crate::source::Definition;
use crate::source::hook::signature::{self, Encoding, Secrets, Signature};
use crate::source::hook::{Delivery, Hook, Pushed, Refusal, event};

/// Most signatures of one header that are looked at. More: nothing that Stripe sends; while a secret is rolled there are
/// two.
const MOST_SIGNATURES: usize = 16;
/// Longest header, in bytes. Shorter: [`MOST_SIGNATURES`] do not fit.
const LONGEST_HEADER: usize = 4_096;

struct StripeHook {
    secrets: Secrets,
    limits: RecordLimits,
}

pub fn open(connector: &Definition) -> Result<Option<Box<dyn Hook>>, Failure> {
    let secrets = Secrets::read(connector, &["webhook_secret"])?;
    Ok(secrets.map(|secrets| {
        let limits = connector.limits;
        Box::new(StripeHook { secrets, limits }) as Box<dyn Hook>
    }))
}

impl Hook for StripeHook {
    fn receive(&self, got: &Pushed) -> Result<Delivery, Refusal> {
        let header = got.only("stripe-signature")?;
        let (time, signatures) = parts(header).ok_or(Refusal::Unauthentic)?;
        let seconds = signature::seconds(time).ok_or(Refusal::Unauthentic)?;
        self.secrets.check(&[time, b".", got.body], &signatures)?;
        signature::check_time(seconds, got.now, signature::TOLERANCE)?;
        // Also what has no snapshot of anything (`v2.core.event`): each of them has an id.
        event(got.text, "id", "created", self.limits)
    }
}

/// The time, as it is written, and the signatures of the one scheme that counts. As in the vendor's own packages, a part
/// that is none, or a signature that is malformed, does not harm a right one beside it; a value ends where another `=`
/// follows.
fn parts(header: &[u8]) -> Option<(&[u8], Vec<Signature>)> {
    if header.len() > LONGEST_HEADER {
        return None;
    }
    let mut time = None;
    let mut signatures = Vec::new();
    for part in header.split(|byte| *byte == b',') {
        let mut words = part.split(|byte| *byte == b'=');
        let (Some(scheme), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        match scheme.trim_ascii() {
            // The packages of different languages take different ones of two.
            b"t" if time.is_some() => return None,
            b"t" => time = Some(value),
            b"v1" if signatures.len() < MOST_SIGNATURES => {
                signatures.extend(Encoding::Hex.decode(value));
            }
            _ => {}
        }
    }
    Some((time?, signatures))
}
