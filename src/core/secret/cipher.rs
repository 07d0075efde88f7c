//! One field, in and out of its envelope: XChaCha20-Poly1305, whose nonce is long enough to be random.

use std::io::{self, Write};

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use serde_json::Value;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::envelope::Envelope;
use super::key::{Key, KeyId, Keyring};
use super::refusal::{LARGEST_FIELD, SealError};

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// The row that credentials belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub tenant: Uuid,
    pub connector: Uuid,
}

/// What is sealed is one byte for the kind, and then the text of a JSON string as it is, or JSON. A string does
/// without JSON, because a parser copies what has escapes to where nobody wipes it, and a private key has line ends.
const TEXT: u8 = b't';
const JSON: u8 = b'j';

/// Whether these bytes may be an envelope's: what is too short or too long was not written here.
pub fn fits(bytes: &[u8]) -> bool {
    let plain = bytes.len().checked_sub(NONCE_BYTES + TAG_BYTES);
    plain.is_some_and(|plain| plain <= 1 + LARGEST_FIELD)
}

pub fn seal(key: &Key, place: &Place, field: &str, value: &Value) -> Result<Value, SealError> {
    if let Value::String(text) = value {
        return seal_text(key, place, field, text);
    }
    let mut plain = Plain::new(JSON);
    // The writer's bound is the only error there is.
    serde_json::to_writer(&mut plain, value).map_err(|_| too_large(field))?;
    seal_plain(key, place, field, &plain.0)
}

pub fn seal_text(key: &Key, place: &Place, field: &str, text: &str) -> Result<Value, SealError> {
    let mut plain = Plain::new(TEXT);
    plain
        .write_all(text.as_bytes())
        .map_err(|_| too_large(field))?;
    seal_plain(key, place, field, &plain.0)
}

pub fn read_plain(plain: &[u8]) -> Option<Value> {
    match plain.split_first()? {
        (&TEXT, text) => std::str::from_utf8(text).ok().map(Value::from),
        (&JSON, json) => serde_json::from_slice(json).ok(),
        _ => None,
    }
}

fn too_large(field: &str) -> SealError {
    SealError::TooLarge {
        field: field.to_owned(),
    }
}

/// Memory that never grows, because a vector that does leaves copies of itself behind.
struct Plain(Zeroizing<Vec<u8>>);

impl Plain {
    fn new(kind: u8) -> Plain {
        let mut plain = Zeroizing::new(Vec::with_capacity(1 + LARGEST_FIELD));
        plain.push(kind);
        Plain(plain)
    }
}

impl io::Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > 1 + LARGEST_FIELD {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn seal_plain(key: &Key, place: &Place, field: &str, plain: &[u8]) -> Result<Value, SealError> {
    let mut nonce = XNonce::default();
    getrandom::fill(&mut nonce).map_err(|_| SealError::NoRandomness)?;
    let mut sealed = Zeroizing::new(Vec::with_capacity(NONCE_BYTES + plain.len() + TAG_BYTES));
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plain);
    let associated = associated(place, key.id(), field);
    let tag = sealed.get_mut(NONCE_BYTES..).and_then(|text| {
        let cipher = cipher(key)?;
        cipher
            .encrypt_in_place_detached(&nonce, &associated, text)
            .ok()
    });
    // The cipher's own bound is far above ours.
    let tag = tag.ok_or_else(|| too_large(field))?;
    sealed.extend_from_slice(&tag);
    Ok(Envelope::write(key.id(), &sealed))
}

/// Returns the text that [`seal_plain`] was given.
pub fn open(
    key: &Key,
    place: &Place,
    field: &str,
    envelope: &Envelope,
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let associated = associated(place, key.id(), field);
    let open = || {
        let (nonce, rest) = envelope.bytes.split_first_chunk::<NONCE_BYTES>()?;
        let (text, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        let mut text = Zeroizing::new(text.to_vec());
        let (nonce, tag) = (XNonce::from_slice(nonce), Tag::from_slice(tag));
        let cipher = cipher(key)?;
        let opened = cipher.decrypt_in_place_detached(nonce, &associated, &mut text, tag);
        opened.ok().map(|()| text)
    };
    open().ok_or_else(|| SealError::NotHere {
        field: field.to_owned(),
    })
}

/// `None` cannot happen: the derived key has the cipher's length.
fn cipher(key: &Key) -> Option<XChaCha20Poly1305> {
    let key = key.derive("credential key v1");
    XChaCha20Poly1305::new_from_slice(key.as_slice()).ok()
}

/// What a field is sealed to. Lengths frame the parts: no two places share a spelling.
fn associated(place: &Place, key: KeyId, field: &str) -> Vec<u8> {
    let key = key.to_string();
    let parts: [&[u8]; 5] = [
        b"connector_service credential v1",
        place.tenant.as_bytes(),
        place.connector.as_bytes(),
        key.as_bytes(),
        field.as_bytes(),
    ];
    let mut framed = Vec::new();
    for part in parts {
        framed.extend_from_slice(&(part.len() as u64).to_be_bytes());
        framed.extend_from_slice(part);
    }
    framed
}

pub fn read_envelope(field: &str, text: &str) -> Result<Envelope, SealError> {
    // Where the key is not known, nothing but this bounds what is stored.
    Envelope::read(text)
        .filter(|envelope| fits(&envelope.bytes))
        .ok_or_else(|| SealError::Malformed {
            field: field.to_owned(),
        })
}

pub fn open_with(
    keys: &Keyring,
    place: &Place,
    field: &str,
    envelope: Envelope,
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let key = keys
        .find(envelope.key)
        .ok_or_else(|| SealError::KeyMissing {
            field: field.to_owned(),
            key: envelope.key,
        })?;
    open(key, place, field, &envelope)
}
