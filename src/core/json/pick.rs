//! Picking values out of JSON text by path, as slices of that text.
//!
//! Everything that is not picked is skipped, and skipping does not recurse, so depth costs nothing here.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::MOST_ITEMS;

/// What lies at a path.
#[derive(Default)]
pub struct Items<T> {
    pub texts: Vec<T>,
    /// Values that are one record, and no list of them.
    pub singles: usize,
    /// Items of a `*` that do not have the rest of the path.
    pub lacking: usize,
}

/// Collects the records at `path`: see [`super::Spec::path`]. False: the path leads nowhere. Where there are more
/// than [`MOST_ITEMS`], one more than that is collected.
pub fn items<'a>(
    text: &'a str,
    path: &[String],
    found: &mut Items<&'a str>,
) -> serde_json::Result<bool> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    let first = text.as_bytes().first();
    let Some((step, rest)) = path.split_first() else {
        match first {
            Some(b'[') => {
                let list = serde_json::from_str::<Values>(text)?.0;
                let room = (MOST_ITEMS + 1).saturating_sub(found.texts.len());
                let texts = list.into_iter().take(room).map(RawValue::get);
                found.texts.extend(texts);
            }
            Some(b'n') => {
                serde_json::from_str::<()>(text)?;
            }
            _ => {
                let text = serde_json::from_str::<&RawValue>(text)?.get();
                if !is_empty_object(text.as_bytes()) {
                    found.singles += 1;
                    found.texts.push(text);
                }
            }
        }
        return Ok(true);
    };
    match (step.as_str(), first) {
        ("*", Some(b'[' | b'{')) => {
            for value in serde_json::from_str::<Values>(text)?.0 {
                // An item that does not have the rest of the path has no records.
                if !items(value.get(), rest, found)? {
                    found.lacking += 1;
                }
            }
            Ok(true)
        }
        (key, Some(b'{')) => {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            let picked = Fields(&[key]).deserialize(&mut deserializer)?;
            deserializer.end()?;
            match picked.first().copied().flatten() {
                Some(value) => items(value.get(), rest, found),
                None => Ok(false),
            }
        }
        _ => {
            serde_json::from_str::<IgnoredAny>(text)?;
            Ok(false)
        }
    }
}

/// `{}` where one record would be: some servers write an empty list like this.
pub fn is_empty_object(text: &[u8]) -> bool {
    let inner = text
        .strip_prefix(b"{")
        .and_then(|text| text.strip_suffix(b"}"));
    inner.is_some_and(|inner| inner.trim_ascii().is_empty())
}

/// Keys that are looked for in one go: as many as [`Positions`] has bits.
const AT_ONCE: usize = 64;

/// The values at several paths of one object, in the order of the paths.
pub fn pick<'a>(text: &'a str, paths: &[&[String]]) -> Vec<Option<&'a RawValue>> {
    let few = paths.chunks(AT_ONCE);
    few.flat_map(|paths| pick_few(text, paths)).collect()
}

fn pick_few<'a>(text: &'a str, paths: &[&[String]]) -> Vec<Option<&'a RawValue>> {
    let firsts: Vec<&str> = paths
        .iter()
        .map(|path| path.first().map_or("", String::as_str))
        .collect();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let picked = Fields(&firsts)
        .deserialize(&mut deserializer)
        .unwrap_or_else(|_| vec![None; paths.len()]);
    let deeper = |(value, path): (Option<&'a RawValue>, &&[String])| match path.split_first() {
        Some((_, rest)) if !rest.is_empty() => {
            pick(value?.get(), &[rest]).into_iter().next().flatten()
        }
        _ => value,
    };
    picked.into_iter().zip(paths).map(deeper).collect()
}

/// The values of some keys of an object; of a key that stands twice the last one, as jsonb has it.
struct Fields<'k>(&'k [&'k str]);

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![None; self.0.len()];
        while let Some(wanted) = map.next_key_seed(Positions(self.0))? {
            if wanted == 0 {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: &RawValue = map.next_value()?;
            for (position, slot) in values.iter_mut().enumerate() {
                if wanted & (1 << position) != 0 {
                    *slot = Some(value);
                }
            }
        }
        Ok(values)
    }
}

/// Which of the wanted keys a key is, as bits: one key may be wanted twice. Compares without allocating.
struct Positions<'k>(&'k [&'k str]);

impl<'de> DeserializeSeed<'de> for Positions<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Positions<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<u64, E> {
        let wanted = self
            .0
            .iter()
            .take(AT_ONCE)
            .enumerate()
            .filter(|(_, wanted)| **wanted == key);
        Ok(wanted.fold(0, |bits, (position, _)| bits | 1 << position))
    }
}

/// The values of an array or object, in their order: at most [`MOST_ITEMS`] and one more, which shows that there
/// were too many.
struct Values<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Values<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Values<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an array or an object")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values<'de>, A::Error> {
                let mut values = Vec::new();
                while values.len() <= MOST_ITEMS {
                    match list.next_element()? {
                        Some(value) => values.push(value),
                        None => return Ok(Values(values)),
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Values(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values<'de>, A::Error> {
                let mut values = Vec::new();
                while map.next_key::<IgnoredAny>()?.is_some() {
                    if values.len() <= MOST_ITEMS {
                        values.push(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_any(Collect)
    }
}
