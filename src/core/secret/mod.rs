//! Secrets: how a connector's credentials lie in the database, and how long they live outside of it.
//!
//! A dump, a replica, a backup, a log of the WAL: each of them is a copy of the tables, and none of them may be
//! a copy of the keys to somebody's shop. So a credential is sealed before its row is stored, with a key that is
//! in a file outside of the database ([`keyfile`]). Every field of `connectors.credentials` is sealed by itself:
//!
//! ```text
//! {"api_key": {"$sealed": "v1.<key id>.<nonce and ciphertext>"}}
//! ```
//!
//! - **What it is sealed to.** The cipher authenticates, beside the text, the tenant, the connector, the key's id
//!   and the field's name. Ciphertext that is copied to another row or field does not open
//!   there, so who may write rows cannot borrow a secret that he cannot read.
//! - **Which key.** The first of the file seals, the older ones only open. A key is named by its id, which is
//!   safe to show; an id that the file does not have is a row that came from another machine. `reseal` moves a
//!   row to the current key, `key_ids` tells when an older one is not needed any more.
//! - **How a secret gets here without being seen.** A value of `{"$box": "..."}` was encrypted by its sender to
//!   the [`public_key`], as a sealed box of libsodium, which exists for every language. Neither the statement nor
//!   a log of it holds the secret ([`sealedbox`] says what a box does not protect from).
//! - **How long it lives.** [`Credentials`] are opened for one run, seen by templates through a reference, never
//!   printed, and wiped when the run drops them. What a request is rendered into (URL, headers, the buffers of TLS)
//!   belongs to libraries that do not wipe; it lives for one exchange. So does what the JSON parser unescapes in a
//!   credential that is an object or a list. A process's memory is not protected from who may read it: superusers
//!   and root are out of scope.

mod cipher;
mod cover;
mod envelope;
mod key;
pub mod keyfile;
pub mod mention;
mod refusal;
mod seal;
pub mod sealedbox;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

pub use cipher::Place;
pub use cover::Cover;
pub use key::{Key, KeyId, Keyring};
pub use keyfile::KeyError;
pub use refusal::SealError;
pub use seal::{Sealed, key_ids, open_credentials, replace_text, reseal, seal_credentials};
pub use sealedbox::public_key;

/// Secret bytes: they are never printed, wiped when dropped, and compared in constant time.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over; they are not copied.
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(bytes))
    }

    /// The bytes. Every call of this is a place where a secret may get lost.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Tells one secret from another without telling what it is; for secrets that nobody can guess.
    pub fn fingerprint(&self) -> String {
        let hash = crate::json::hash(&[b"connector_service ", self.expose()].concat());
        hash.iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The same as text, for what is put into a request.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for Secret {}

/// Opened credentials: JSON that is wiped when the last one who holds them drops them. A clone is the same
/// memory, not a copy of it.
#[derive(Clone, Default)]
pub struct Credentials(Arc<Wiped>);

impl Credentials {
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0.0
    }
}

/// Takes plain credentials over. What is not an object has no fields.
impl From<Value> for Credentials {
    fn from(mut value: Value) -> Credentials {
        let fields = value.as_object_mut().map(std::mem::take);
        wipe(&mut value);
        Credentials(Arc::new(Wiped(fields.unwrap_or_default())))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Fields that are wiped when dropped, also where an error ends the work half-way.
#[derive(Default)]
struct Wiped(Map<String, Value>);

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe_fields(&mut self.0);
    }
}

impl From<Wiped> for Credentials {
    fn from(fields: Wiped) -> Credentials {
        Credentials(Arc::new(fields))
    }
}

/// Wipes every text of a value, keys included: {"user": "password"} is an object too.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(fields) => wipe_fields(fields),
        Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
    *value = Value::Null;
}

fn wipe_fields(fields: &mut Map<String, Value>) {
    for (mut key, mut value) in std::mem::take(fields) {
        key.zeroize();
        wipe(&mut value);
    }
}
