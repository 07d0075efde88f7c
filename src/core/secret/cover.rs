//! What a source says of where to go on is kept between two pages, and may hold a secret of ours: many a vendor
//! repeats in the address of the next page what it was asked with, the key to the shop included. So where a
//! connector has credentials, the token of the next page is sealed like one of them.

use std::sync::Arc;

use serde_json::Value;

use super::envelope::Given;
use super::key::Keyring;
use super::{Place, SealError, cipher};

/// Seals and opens the page tokens of one connector.
#[derive(Clone)]
pub struct Cover {
    pub keys: Arc<Keyring>,
    pub place: Place,
}

/// No credential can have this name: names that begin with `$` are marks.
fn field(stream: &str) -> String {
    format!("$next {stream}")
}

impl Cover {
    pub fn seal(&self, stream: &str, token: &Value) -> Result<Value, SealError> {
        cipher::seal(self.keys.current(), &self.place, &field(stream), token)
    }

    /// `None` for what was not sealed for this stream of this connector, or with a key that is gone.
    pub fn open(&self, stream: &str, sealed: &Value) -> Option<Value> {
        let field = field(stream);
        let Ok(Given::Sealed(text)) = Given::read(&field, sealed) else {
            return None;
        };
        let envelope = cipher::read_envelope(&field, text).ok()?;
        let plain = cipher::open_with(&self.keys, &self.place, &field, envelope).ok()?;
        cipher::read_plain(&plain)
    }
}
