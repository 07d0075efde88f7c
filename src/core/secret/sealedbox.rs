//! Boxes: secrets that were encrypted before they reached the server.
//!
//! A statement's text ends up in logs, in `pg_stat_activity` and in `pg_stat_statements`. So whoever saves
//! credentials may encrypt them to the [`public_key`] first, with `crypto_box_seal` of libsodium (PHP's
//! `sodium_crypto_box_seal`, PyNaCl's `SealedBox`, and so on), and write the box's base64 into the statement:
//!
//! - `{"api_key": {"$box": "..."}}`: the box holds the text of one secret; it becomes a JSON string.
//! - `{"$box": "..."}`: the box holds all credentials, as a JSON object.
//!
//! Credentials are opened from their boxes when the row is saved and sealed at once: a box is never stored.
//!
//! A box says nothing of where it belongs. Who has seen one in a log, and may save connectors, can save it in a
//! connector of his own and have the secret sent to a server of his own. A box of all credentials can be tied to
//! its tenant: where the object has `"$tenant"`, the tenant's id, it opens for no other one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_box::SecretKey;
use uuid::Uuid;

use super::envelope::read_box;
use super::key::{Key, Keyring};
use super::refusal::SealError;
use super::{Place, Secret, Wiped};

/// Where the tenant stands in a box of all credentials.
const TENANT: &str = "$tenant";

/// What to encrypt boxes to: an X25519 public key in base64. It changes when the key file's current key does;
/// boxes for older keys open as long as these are in the file.
pub fn public_key(keys: &Keyring) -> String {
    STANDARD.encode(box_key(keys.current()).public_key().as_bytes())
}

fn box_key(key: &Key) -> SecretKey {
    SecretKey::from_bytes(*key.derive("box key v1"))
}

/// Opens a box. Nothing in it says which key it was made for, so every key is tried.
pub(super) fn open_box(keys: &Keyring, field: &str, text: &str) -> Result<Secret, SealError> {
    let refused = || SealError::Box {
        field: field.to_owned(),
    };
    let sealed = read_box(text).ok_or_else(refused)?;
    let mut opened = keys.keys().map(|key| box_key(key).unseal(&sealed));
    let opened = opened.find_map(Result::ok).ok_or_else(refused)?;
    Ok(Secret::new(opened))
}

/// All credentials of one box.
pub(super) fn open_all(
    keys: &Keyring,
    place: &Place,
    field: &str,
    text: &str,
) -> Result<Wiped, SealError> {
    let secret = open_box(keys, field, text)?;
    let mut all = serde_json::from_slice(secret.expose())
        .map(Wiped)
        .map_err(|_| SealError::BoxContent {
            field: field.to_owned(),
        })?;
    let tenant = all.0.remove(TENANT).map(|tenant| {
        let tenant = tenant.as_str().unwrap_or_default();
        tenant.parse::<Uuid>().ok()
    });
    if tenant.is_some_and(|tenant| tenant != Some(place.tenant)) {
        return Err(SealError::NotHere {
            field: field.to_owned(),
        });
    }
    Ok(all)
}
