//! No memory is given back with a secret in it. An allocator sees what the types cannot promise: a vector that has
//! grown, a value that was parsed twice.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_box::PublicKey;
use crypto_box::aead::OsRng;

use super::*;
use crate::fuzz::memory;

/// A private key as vendors give it: its line ends are escapes in JSON.
const PRIVATE: &str =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK\n-----END-----\n";

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static FOUND: Cell<usize> = const { Cell::new(0) };
}

struct Watcher;

#[global_allocator]
static WATCHER: Watcher = Watcher;

// SAFETY: the system's allocator does everything; a block is read while it is still ours.
unsafe impl GlobalAlloc for Watcher {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        memory::took(layout.size());
        // SAFETY: as our caller promises. Cleared, so that every byte may be read later.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        memory::gave(layout.size());
        if WATCHED.get() {
            // SAFETY: the block has this size, is initialised, and is not given back yet.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            // A part of it is enough to be found.
            let part = &PRIVATE.as_bytes()[30..46];
            if bytes.windows(part.len()).any(|window| window == part) {
                FOUND.set(FOUND.get() + 1);
            }
        }
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

/// How many blocks were given back with the secret in them.
fn left_behind<T>(act: impl FnOnce() -> T) -> (usize, T) {
    FOUND.set(0);
    WATCHED.set(true);
    let result = act();
    WATCHED.set(false);
    (FOUND.get(), result)
}

#[test]
fn the_test_itself_finds_leftover_secrets() {
    assert_eq!(left_behind(|| drop(PRIVATE.to_owned())).0, 1);
    let mut grows = PRIVATE.to_owned();
    assert_eq!(left_behind(|| grows.reserve(10_000)).0, 1);
}

#[test]
fn sealing_leaves_nothing_behind() {
    let ring = ring(&[1]);
    let plain = json!({"text": PRIVATE, "list": [PRIVATE.replace('\n', " "), 1]});
    let seal = || seal_credentials(Some(&ring), &PLACE, &plain, None).unwrap();
    let (found, sealed) = left_behind(seal);
    assert_eq!((found, open(&ring, &sealed.credentials)), (0, Ok(plain)));
}

#[test]
fn opened_credentials_are_wiped_when_the_last_holder_drops_them() {
    let ring = super::ring(&[1, 2]);
    let flat = PRIVATE.replace('\n', " ");
    let plain = json!({"a": PRIVATE, "b": [flat, {"c": flat, flat.clone(): 1}]});
    let sealed = seal_credentials(Some(&ring), &PLACE, &plain, None).unwrap();
    let sealed = sealed.credentials;
    let (found, opened) = left_behind(|| open_credentials(&ring, &PLACE, &sealed).unwrap());
    assert_eq!(found, 0);
    let clone = opened.clone();
    drop(opened);
    assert_eq!(clone.fields().get("a"), Some(&json!(PRIVATE)));
    assert_eq!(left_behind(|| drop(clone)).0, 0);
    let plain = Credentials::from(plain);
    assert_eq!(left_behind(|| drop(plain)).0, 0);
    let text = json!([PRIVATE, flat]);
    let (found, none) = left_behind(|| Credentials::from(text));
    assert_eq!((found, none.fields().len()), (0, 0));
}

#[test]
fn an_error_half_way_leaves_nothing_behind() {
    let ring = ring(&[1]);
    let mut sealed = seal(&ring, json!({"a": PRIVATE, "b": 1}));
    sealed["b"] = sealed["a"].clone();
    let (found, opened) = left_behind(|| open_credentials(&ring, &PLACE, &sealed).map(drop));
    assert_eq!(
        (found, opened),
        (0, Err(SealError::NotHere { field: "b".into() }))
    );
}

#[test]
fn resealing_and_boxes_leave_nothing_behind() {
    let before = ring(&[1]);
    let sealed = seal(&before, json!({"a": PRIVATE}));
    let ring = super::ring(&[2, 1]);
    assert_eq!(left_behind(|| reseal(&ring, &PLACE, &sealed).unwrap()).0, 0);
    let public = STANDARD.decode(public_key(&ring)).unwrap();
    let public = PublicKey::from_slice(&public).unwrap();
    let boxed = public.seal(&mut OsRng, PRIVATE.as_bytes()).unwrap();
    let new = json!({"a": {"$box": STANDARD.encode(boxed)}});
    let seal = || seal_credentials(Some(&ring), &PLACE, &new, None).unwrap();
    assert_eq!(left_behind(seal).0, 0);
}

#[test]
fn a_secret_is_wiped() {
    let secret = Secret::new(PRIVATE.into());
    let clone = secret.clone();
    assert_eq!(left_behind(|| drop((secret, clone))).0, 0);
}
