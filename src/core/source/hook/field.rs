//! Reads one field of a record without reading the others.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::template::parse_any;

/// The value at a path of keys; of a key that stands twice the last one, as jsonb has it.
fn value<'a>(json: &'a [u8], path: &[String]) -> Option<&'a RawValue> {
    let text = std::str::from_utf8(json).ok()?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    At(path).deserialize(&mut deserializer).ok()?
}

/// Whether there is a value, other than null and the empty text.
pub fn has_value(json: &[u8], path: &[String]) -> bool {
    value(json, path).is_some_and(|value| !matches!(value.get(), "null" | "\"\""))
}

pub fn is_there(json: &[u8], path: &[String]) -> bool {
    value(json, path).is_some()
}

/// A text that is not empty.
pub fn text(json: &[u8], path: &[String]) -> Option<String> {
    let text: String = serde_json::from_str(value(json, path)?.get()).ok()?;
    Some(text).filter(|text| !text.is_empty())
}

/// A text that is not empty, or a number as it is written.
pub fn scalar(json: &[u8], path: &[String]) -> Option<String> {
    let number = || {
        let value = value(json, path)?.get();
        value
            .starts_with(|c: char| c == '-' || c.is_ascii_digit())
            .then(|| value.to_owned())
    };
    text(json, path).or_else(number)
}

/// Unix seconds below this, milliseconds from it on. As seconds it is the year 5138, as milliseconds it is 1973.
const SECONDS_END: f64 = 1e11;
const MILLISECONDS_END: f64 = 1e14;

/// A time: a text such as RFC 3339 has, or a number of seconds or milliseconds since 1970.
pub fn moment(json: &[u8], path: &[String]) -> Option<DateTime<Utc>> {
    let text_or_number = scalar(json, path)?;
    // As Python and databases write it.
    if let Some(at) = parse_any(&text_or_number.replacen(' ', "T", 1)) {
        return Some(at);
    }
    let number: f64 = text_or_number.parse().ok()?;
    let micros = match number.abs() {
        size if size < SECONDS_END => number * 1e6,
        size if size < MILLISECONDS_END => number * 1e3,
        _ => return None,
    };
    DateTime::from_timestamp_micros(micros.round() as i64)
}

struct At<'p>(&'p [String]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => <&RawValue>::deserialize(deserializer).map(Some),
            _ => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            match self.0.split_first() {
                Some((wanted, rest)) if *wanted == key => found = map.next_value_seed(At(rest))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}
