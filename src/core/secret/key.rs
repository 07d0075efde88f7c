//! Keys: what one is called, what is derived from it, and how several of them are one text.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{KeyError, Secret};

/// Bytes of a key. Both ciphers that use it take exactly this many.
pub const KEY_BYTES: usize = 32;
/// Bytes of a key's id. Longer: every sealed field grows. Shorter: two keys of one installation may be called
/// the same.
const ID_BYTES: usize = 8;

/// The id of a key. It is derived by a hash, so it is safe to show and serves as a fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// The text is not a key id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key id has to be 16 digits of 0-9 and a-f")]
pub struct NoKeyId;

impl FromStr for KeyId {
    type Err = NoKeyId;

    /// Lower case only: one id has one spelling, because it is a part of a sealed text.
    fn from_str(text: &str) -> Result<KeyId, NoKeyId> {
        let is_digit = |c: u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        let sound = text.bytes().all(is_digit);
        let bytes = unhex(text.as_bytes()).filter(|_| sound).ok_or(NoKeyId)?;
        Ok(KeyId(bytes.as_slice().try_into().map_err(|_| NoKeyId)?))
    }
}

/// One key. What is used is never the key itself but what is derived from it for one purpose.
pub struct Key {
    id: KeyId,
    bytes: Secret,
}

impl Key {
    /// `None` where the length is wrong.
    pub(super) fn new(bytes: Secret) -> Option<Key> {
        let mut key = Key {
            id: KeyId::default(),
            bytes,
        };
        if key.bytes.expose().len() != KEY_BYTES {
            return None;
        }
        let digest = key.derive("key id v1");
        let to = key.id.0.iter_mut();
        to.zip(digest.iter()).for_each(|(to, from)| *to = *from);
        Some(key)
    }

    /// A new one, from the operating system's randomness.
    pub(super) fn random() -> Result<Key, KeyError> {
        let mut bytes = Zeroizing::new(vec![0; KEY_BYTES]);
        getrandom::fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
        Key::new(Secret(bytes)).ok_or(KeyError::NoRandomness)
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    /// 32 bytes for one purpose: what is done with one of them tells nothing of another. The key is uniform, so
    /// one hash is all it takes; purposes end in a NUL, so none is the beginning of another.
    pub(super) fn derive(&self, purpose: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut hash = Sha256::new();
        for part in [b"connector_service ", purpose.as_bytes(), &[0]] {
            hash.update(part);
        }
        hash.update(self.bytes.expose());
        Zeroizing::new(hash.finalize().into())
    }

    /// 64 digits of hex, or base64 with or without its padding.
    fn read(text: &[u8]) -> Option<Key> {
        let bytes = match text.len() {
            64 => unhex(text)?,
            43 => Zeroizing::new(STANDARD_NO_PAD.decode(text).ok()?),
            44 => Zeroizing::new(STANDARD.decode(text).ok()?),
            _ => return None,
        };
        Key::new(Secret(bytes))
    }
}

impl Default for KeyId {
    fn default() -> KeyId {
        KeyId([0; ID_BYTES])
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The keys of an installation; never empty.
#[derive(Debug)]
pub struct Keyring {
    /// This key seals and opens.
    current: Key,
    /// They only open, until nothing is sealed with them any more.
    older: Vec<Key>,
}

impl Keyring {
    pub fn current(&self) -> &Key {
        &self.current
    }

    /// The current key first.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.older)
    }

    pub fn find(&self, id: KeyId) -> Option<&Key> {
        self.keys().find(|key| key.id == id)
    }

    pub(super) fn single(key: Key) -> Keyring {
        Keyring {
            current: key,
            older: Vec::new(),
        }
    }

    /// Puts `key` in front, where it seals.
    pub(super) fn rotated(self, key: Key) -> Keyring {
        let mut older = self.older;
        older.insert(0, self.current);
        Keyring {
            current: key,
            older,
        }
    }

    /// Takes an older key out.
    pub(super) fn retired(mut self, id: KeyId) -> Result<Keyring, KeyError> {
        if self.current.id == id {
            return Err(KeyError::CurrentKey { id });
        }
        let before = self.older.len();
        self.older.retain(|key| key.id != id);
        if self.older.len() == before {
            return Err(KeyError::UnknownKey { id });
        }
        Ok(self)
    }

    /// The text of a key file. Blank lines, and those that begin with `#`, are comments.
    pub(super) fn read(text: &[u8]) -> Result<Keyring, KeyError> {
        let mut keys: Vec<Key> = Vec::new();
        for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let line_number = number + 1;
            let key = Key::read(line).ok_or(KeyError::NotAKey { line: line_number })?;
            if keys.iter().any(|known| known.id == key.id) {
                return Err(KeyError::DuplicateKey { line: line_number });
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let current = keys.next().ok_or(KeyError::Empty)?;
        Ok(Keyring {
            current,
            older: keys.collect(),
        })
    }

    /// The text of a key file, in memory that never moves.
    pub(super) fn write(&self) -> Zeroizing<Vec<u8>> {
        let line = 2 * KEY_BYTES + 1;
        let size = HEADER.len() + (self.older.len() + 1) * line;
        let mut text = Zeroizing::new(Vec::with_capacity(size));
        text.extend_from_slice(HEADER.as_bytes());
        for key in self.keys() {
            let bytes = key.bytes.expose().iter();
            text.extend(bytes.flat_map(|byte| [byte >> 4, byte & 15]).map(digit));
            text.push(b'\n');
        }
        text
    }
}

/// What a key file begins with.
const HEADER: &str = "\
# Keys of connector_service. The first key seals credentials, the others only open them.
# Without this file the credentials of every connector are lost: keep a copy, but not with the database's.
";

fn digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + (nibble - 10),
    }
}

fn unhex(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    // Filled in place: a vector that grows leaves copies of itself behind.
    let mut bytes = Zeroizing::new(vec![0; pairs.len()]);
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for (to, [high, low]) in bytes.iter_mut().zip(pairs) {
        *to = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
    }
    Some(bytes)
}
