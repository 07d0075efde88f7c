//! The feed of events: which older objects changed, and each of them as it is today.

use chrono::DateTime;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::streams::Spec;
use super::{Next, StripeReader, check_list, last_id};
use crate::error::Failure;
use crate::json::Found;
use crate::record::{Page, Record};
use crate::source::reading::{self, Shape, strange};
use crate::source::{Position, Response};

/// An event, as far as it is looked at. Its other fields need not be sound.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: &'a RawValue,
    #[serde(borrow)]
    data: EventData<'a>,
}

#[derive(Deserialize)]
struct EventData<'a> {
    #[serde(borrow)]
    object: &'a RawValue,
}

/// One field of an object.
fn field<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    struct Named<'n>(&'n str);
    impl<'de> serde::de::DeserializeSeed<'de> for Named<'_> {
        type Value = Option<&'de RawValue>;
        fn deserialize<D: serde::Deserializer<'de>>(
            self,
            from: D,
        ) -> Result<Self::Value, D::Error> {
            from.deserialize_map(self)
        }
    }
    impl<'de> serde::de::Visitor<'de> for Named<'_> {
        type Value = Option<&'de RawValue>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some((key, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
                if serde_json::from_str::<String>(key.get()).is_ok_and(|key| key == self.0) {
                    found = Some(value);
                }
            }
            Ok(found)
        }
    }
    let mut from = serde_json::Deserializer::from_str(object.get());
    serde::de::DeserializeSeed::deserialize(Named(name), &mut from).ok()?
}

/// The text at a field; of an object that is expanded there, its id.
fn text(object: &RawValue, name: &str) -> Option<String> {
    let value = field(object, name)?;
    let value = match value.get().starts_with('{') {
        true => field(value, "id")?,
        false => value,
    };
    serde_json::from_str::<String>(value.get())
        .ok()
        .filter(|text| !text.is_empty())
}

fn number(object: &RawValue, name: &str) -> Option<i64> {
    serde_json::from_str(field(object, name)?.get()).ok()
}

/// What an event says of a stream.
enum Says {
    /// Nothing.
    Nothing,
    /// The object with this id has changed, unless what was made at this time is listed anyway.
    Changed(String, Option<i64>),
}

fn judge(event: &[u8], spec: &Spec) -> Option<Says> {
    let event: Event = serde_json::from_slice(event).ok()?;
    let kind: String = serde_json::from_str(event.kind.get()).ok()?;
    let object = event.data.object;
    if text(object, "object").as_deref() == Some(spec.object) {
        // One that is gone is asked for all the same: another with the same id may have taken its place.
        let is_gone = kind.ends_with(".deleted");
        let created = number(object, "created").filter(|_| !is_gone);
        return Some(Says::Changed(text(object, "id")?, created));
    }
    let other = spec.others.iter().find(|(other, _)| *other == kind);
    let id = other.and_then(|(_, name)| text(object, name));
    Some(id.map_or(Says::Nothing, |id| Says::Changed(id, None)))
}

impl StripeReader {
    /// One changed object as it is today, or that it is gone.
    pub fn single(
        &self,
        at: &Position,
        got: &Response,
        next: Next,
        id: String,
    ) -> Result<Page, Failure> {
        let found = if got.status == 404 {
            Found {
                deleted: vec![format!("{}/{id}", at.stream.name)],
                ..Found::default()
            }
        } else {
            let shape = Shape {
                key: &["id"],
                gone: Some(("deleted", "true")),
                ..Shape::default()
            };
            let found = self.common.read(at, got, &shape)?;
            let is_it = |record: &Record| record.id == format!("{}/{id}", at.stream.name);
            if !found.records.iter().all(is_it) {
                return Err(strange(
                    "Stripe sent another kind of object than was requested",
                ));
            }
            found
        };
        let is_over = next.changed.is_empty() && next.after.is_none();
        let next = Next {
            last: Some(id),
            ..next
        };
        reading::page(found, (!is_over).then_some(next), at.high.cloned())
    }

    /// Which older objects changed: read one by one, next.
    pub fn events(
        &self,
        at: &Position,
        got: &Response,
        spec: &Spec,
        next: Next,
    ) -> Result<Page, Failure> {
        let shape = Shape {
            path: "data",
            key: &["id"],
            stamp: "created",
            ..Shape::default()
        };
        let found = self.common.read(at, got, &shape)?;
        let has_more = check_list(got)?;
        let from = at.window.from.unwrap_or_default();
        // What was created within the window has just been listed.
        let is_listed =
            |created: i64| DateTime::from_timestamp(created, 0).is_none_or(|at| at >= from);
        let mut changed: Vec<String> = Vec::new();
        let mut unread = 0;
        let events = found.records.iter().map(|event| &event.json);
        let damaged = found.rejected.iter().map(|event| &event.raw);
        for event in events.chain(damaged) {
            match judge(event, spec) {
                Some(Says::Changed(id, created))
                    if !created.is_some_and(is_listed)
                        && !changed.contains(&id)
                        && next.last.as_ref() != Some(&id) =>
                {
                    changed.push(id);
                }
                Some(_) => {}
                None => unread += 1,
            }
        }
        let high = self.high(at, spec, &found);
        let (after, overlaps) = match has_more {
            true => last_id(&found).map(|(id, overlaps)| (Some(id), overlaps))?,
            false => (None, false),
        };
        let is_over = changed.is_empty() && after.is_none();
        let next = Next {
            after,
            changed,
            ..next
        };
        let warning = (unread > 0).then(|| {
            format!(
                "stream \"{}\": Stripe's events could not all be read, so that a change may be missing; to read the stream again: connector_service_refresh(...)",
                at.stream.name
            )
        });
        Ok(Page {
            warning,
            overlaps,
            ..reading::page(Found::default(), (!is_over).then_some(next), high)?
        })
    }
}
