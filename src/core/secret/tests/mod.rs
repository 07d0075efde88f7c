#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod boxes;
mod fuzz;
mod keyfiles;
mod mentions;
mod redaction;
mod sealing;
mod wiping;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

/// A secret that is looked for where none may be. It changes its looks when it is escaped or encoded.
const CANARY: &str = "sk_test/not+a \"real\" kéy&\\";

const PLACE: Place = Place {
    tenant: Uuid::from_u128(1),
    connector: Uuid::from_u128(2),
};

/// The key whose bytes are all `byte`.
fn key(byte: u8) -> Key {
    Key::new(Secret::new(vec![byte; 32])).unwrap()
}

/// The first one is the current key.
pub(crate) fn ring(bytes: &[u8]) -> Keyring {
    let (oldest, newer) = bytes.split_last().unwrap();
    let start = Keyring::single(key(*oldest));
    newer
        .iter()
        .rfold(start, |ring, byte| ring.rotated(key(*byte)))
}

fn seal(ring: &Keyring, plain: Value) -> Value {
    let sealed = seal_credentials(Some(ring), &PLACE, &plain, None).unwrap();
    assert_eq!(sealed.unopened, vec![]);
    sealed.credentials
}

fn open(ring: &Keyring, sealed: &Value) -> Result<Value, SealError> {
    open_credentials(ring, &PLACE, sealed).map(|opened| opened.fields().clone().into())
}
