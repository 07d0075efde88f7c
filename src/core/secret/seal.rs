//! Which fields of `connectors.credentials` are sealed, opened, kept or refused.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::envelope::{Envelope, Given};
use super::key::{KeyId, Keyring};
use super::refusal::{LONGEST_NAME, MOST_FIELDS, SealError};
use super::{Credentials, Place, Secret, Wiped, cipher, sealedbox};

/// Sealed credentials, ready to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    pub credentials: Value,
    /// Fields that were given sealed with keys that the key file does not have, and are kept as they came: a
    /// dump that is restored on another machine must load before its key file is there. Worth a warning.
    pub unopened: Vec<(String, KeyId)>,
}

/// Seals every field of `new` for `place`. `old` is what the row held, and where. Without keys nothing can be
/// sealed, but a dump still loads.
///
/// A field that is already sealed stays as it is, if it belongs here: it is byte for byte what this place held, or
/// it opens here. So saving what was read changes nothing, and a row that moves to another tenant or connector
/// needs its credentials again: to open them for the old place, because a row says so, would be what sealing them
/// to a place is there to prevent.
pub fn seal_credentials(
    keys: Option<&Keyring>,
    place: &Place,
    new: &Value,
    old: Option<(&Place, &Value)>,
) -> Result<Sealed, SealError> {
    let keys_for = |field: &str| {
        keys.ok_or_else(|| SealError::NoKey {
            field: field.to_owned(),
        })
    };
    let mut given = new.as_object().ok_or(SealError::NotAnObject)?;
    let unboxed;
    if let Some(mark) = check_names(given)? {
        let Given::Boxed(text) = Given::read(mark, new)? else {
            return Err(SealError::Mark { field: mark.into() });
        };
        unboxed = sealedbox::open_all(keys_for(mark)?, place, mark, text)?;
        given = &unboxed.0;
        if let Some(mark) = check_names(given)? {
            return Err(SealError::Mark { field: mark.into() });
        }
    }
    let mut fields = Map::new();
    let mut unopened = Vec::new();
    for (field, value) in given {
        let sealed = match Given::read(field, value)? {
            Given::Plain => cipher::seal(keys_for(field)?.current(), place, field, value)?,
            Given::Boxed(text) => {
                let keys = keys_for(field)?;
                let secret = sealedbox::open_box(keys, field, text)?;
                let text = std::str::from_utf8(secret.expose());
                let text = text.map_err(|_| SealError::BoxContent {
                    field: field.clone(),
                })?;
                cipher::seal_text(keys.current(), place, field, text)?
            }
            Given::Sealed(text) => {
                unopened.extend(check_sealed(keys, place, field, text, old)?);
                value.clone()
            }
        };
        fields.insert(field.clone(), sealed);
    }
    Ok(Sealed {
        credentials: Value::Object(fields),
        unopened,
    })
}

/// Puts a new text in the place of an old one, which lies at a path of keys within sealed credentials, or in an empty place
/// where that `may_be_empty`. `None`: neither is there, because somebody has changed it meanwhile.
pub fn replace_text(
    keys: &Keyring,
    place: &Place,
    sealed: &Value,
    path: &[String],
    (old, new): (&Secret, &str),
    may_be_empty: bool,
) -> Result<Option<Value>, SealError> {
    let opened = open_credentials(keys, place, sealed)?;
    let (Some((field, within)), Some(mut given)) =
        (path.split_first(), sealed.as_object().cloned())
    else {
        return Ok(None);
    };
    let mut value = opened.fields().get(field).cloned().unwrap_or_default();
    let mut target = &mut value;
    for key in within {
        if !target.is_object() {
            *target = Value::Object(Map::new());
        }
        let Some(fields) = target.as_object_mut() else {
            return Ok(None);
        };
        target = fields.entry(key.clone()).or_insert(Value::Null);
    }
    // A place that holds nothing yet: the token stands in config, and credentials go before it.
    let is_known = target.is_null() && may_be_empty
        || target
            .as_str()
            .is_some_and(|text| text.as_bytes() == old.expose());
    if is_known {
        *target = new.into();
    }
    given.insert(field.clone(), value);
    let given = Value::Object(given);
    let resealed =
        is_known.then(|| seal_credentials(Some(keys), place, &given, Some((place, sealed))));
    // Wiped, with what was plain in it.
    drop(Credentials::from(given));
    Ok(resealed.transpose()?.map(|sealed| sealed.credentials))
}

/// Checks the number of fields and their names before a message repeats one. Gives the first that is a mark.
fn check_names(fields: &Map<String, Value>) -> Result<Option<&str>, SealError> {
    if fields.len() > MOST_FIELDS {
        return Err(SealError::TooMany);
    }
    if fields.keys().any(|field| field.len() > LONGEST_NAME) {
        return Err(SealError::NameTooLong);
    }
    let mark = fields.keys().find(|field| field.starts_with('$'));
    Ok(mark.map(String::as_str))
}

/// Whether a field that was given sealed belongs here. Gives the field back where its key is not known.
fn check_sealed(
    keys: Option<&Keyring>,
    place: &Place,
    field: &str,
    text: &str,
    old: Option<(&Place, &Value)>,
) -> Result<Option<(String, KeyId)>, SealError> {
    if let Some((old_place, old)) = old {
        if old_place != place {
            return Err(SealError::NotHere {
                field: field.to_owned(),
            });
        }
        let before = old.get(field).map(|old| Given::read(field, old));
        if matches!(before, Some(Ok(Given::Sealed(before))) if before == text) {
            return Ok(None);
        }
    }
    let envelope = cipher::read_envelope(field, text)?;
    match keys.and_then(|keys| keys.find(envelope.key)) {
        Some(key) => cipher::open(key, place, field, &envelope).map(|_| None),
        None => Ok(Some((field.to_owned(), envelope.key))),
    }
}

/// Opens every field, for the one run that needs them. A field that is not sealed is refused: it came past the
/// trigger that seals, and what else did so is not known.
pub fn open_credentials(
    keys: &Keyring,
    place: &Place,
    sealed: &Value,
) -> Result<Credentials, SealError> {
    let mut opened = Wiped::default();
    for (field, envelope) in envelopes(sealed)? {
        let plain = cipher::open_with(keys, place, field, envelope)?;
        let value = cipher::read_plain(&plain).ok_or_else(|| SealError::Malformed {
            field: field.to_owned(),
        })?;
        opened.0.insert(field.to_owned(), value);
    }
    Ok(opened.into())
}

/// Seals the same credentials with the current key; `None` where all of them are sealed with it already.
pub fn reseal(keys: &Keyring, place: &Place, sealed: &Value) -> Result<Option<Value>, SealError> {
    let current = keys.current();
    let envelopes = envelopes(sealed)?;
    if envelopes
        .iter()
        .all(|(_, sealed)| sealed.key == current.id())
    {
        return Ok(None);
    }
    let mut fields = Map::new();
    for (field, envelope) in envelopes {
        let kept = if envelope.key == current.id() {
            Envelope::write(envelope.key, &envelope.bytes)
        } else {
            let plain = cipher::open_with(keys, place, field, envelope)?;
            cipher::seal_plain(current, place, field, &plain)?
        };
        fields.insert(field.to_owned(), kept);
    }
    Ok(Some(Value::Object(fields)))
}

/// The keys that these credentials are sealed with. A key that no row names can be retired.
pub fn key_ids(sealed: &Value) -> BTreeSet<KeyId> {
    let fields = sealed.as_object().into_iter().flatten();
    let id = |(field, value): (&String, &Value)| match Given::read(field, value) {
        Ok(Given::Sealed(text)) => Envelope::read(text).map(|envelope| envelope.key),
        _ => None,
    };
    fields.filter_map(id).collect()
}

fn envelopes<'a>(sealed: &'a Value) -> Result<Vec<(&'a str, Envelope)>, SealError> {
    let fields = sealed.as_object().ok_or(SealError::NotAnObject)?;
    let envelope = |(field, value): (&'a String, &'a Value)| match Given::read(field, value) {
        Ok(Given::Sealed(text)) => Ok((field.as_str(), cipher::read_envelope(field, text)?)),
        _ => Err(SealError::NotSealed {
            field: field.clone(),
        }),
    };
    fields.iter().map(envelope).collect()
}
