//! A cursor that remembers what is not final.
//!
//! Some lists can be asked by date of creation alone, and no event tells that something in them has changed. What came
//! in a state that will change is remembered by when it was made and when it is due, and is listed again from then on
//! until it is final.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far back a cursor of an earlier version, which remembers nothing, is read again. Longer: more to read, once.
/// Shorter: what was open then stays as it was.
const BEFORE_AN_UPDATE: TimeDelta = TimeDelta::days(45);

/// What is open for longer is left alone. Longer: one that never becomes final has more listed again with every pass.
const FOLLOWED: TimeDelta = TimeDelta::days(180);

/// Most different times that something is due at. More: a larger cursor with every page.
const MOST_DUE: usize = 200;

const HOUR: i64 = 60 * 60;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// The greatest stamp, in the vendor's spelling.
    at: String,
    /// Between which moments that was made which is due at this hour, all in seconds.
    open: BTreeMap<i64, (i64, i64)>,
}

/// Whether the stream has a cursor of this kind. The stamp in it, as other streams have it.
pub fn stamp(cursor: &Value) -> Value {
    match cursor.get("at") {
        Some(at) => at.clone(),
        None => cursor.clone(),
    }
}

impl Open {
    /// A cursor of this kind, or one of an earlier version: a stamp alone.
    pub fn of(cursor: Option<&Value>, read: fn(&str) -> Option<DateTime<Utc>>) -> Open {
        let Some(cursor) = cursor else {
            return Open::default();
        };
        if let Some(at) = cursor.as_str() {
            let mut open = Open {
                at: at.to_owned(),
                ..Open::default()
            };
            if let Some(reached) = read(at) {
                open.note(0, (reached - BEFORE_AN_UPDATE).timestamp());
                open.note(0, reached.timestamp());
            }
            return open;
        }
        serde_json::from_value(cursor.clone()).unwrap_or_default()
    }

    /// The same with another stamp; `None`: there is none yet, and nothing is open.
    pub fn cursor(&self, stamp: Option<&Value>) -> Option<Value> {
        let at = stamp?.as_str()?.to_owned();
        let open = self.open.clone();
        serde_json::to_value(Open { at, open }).ok()
    }

    /// Remembers that something made at this time is open, and when it is due.
    pub fn note(&mut self, due: i64, made: i64) {
        let due = due - due.rem_euclid(HOUR);
        let span = self.open.entry(due).or_insert((made, made));
        *span = (span.0.min(made), span.1.max(made));
        if self.open.len() > MOST_DUE
            && let Some((_, last)) = self.open.pop_last()
            && let Some(mut before) = self.open.last_entry()
        {
            let span = before.get_mut();
            *span = (span.0.min(last.0), span.1.max(last.1));
        }
    }

    /// Since when something is open that is due.
    pub fn since(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let due = self.open.range(..=now.timestamp()).map(|(_, span)| span.0);
        let first = due.min()?.max((now - FOLLOWED).timestamp());
        DateTime::from_timestamp(first, 0)
    }

    /// Forgets what is due. Between which moments it was made, as far as that is before another one: what is not, is
    /// listed anyway.
    pub fn take_due(&mut self, now: DateTime<Utc>, before: DateTime<Utc>) -> Option<(i64, i64)> {
        let first = self.since(now);
        let later = self.open.split_off(&(now.timestamp() + 1));
        let due = std::mem::replace(&mut self.open, later);
        let last = due.values().map(|span| span.1).max()?;
        let span = (first?.timestamp(), last.min(before.timestamp() - 1));
        (span.0 <= span.1).then_some(span)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::window::epoch;
    use serde_json::json;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn what_is_open_is_listed_again_once_it_is_due_and_not_before() {
        let (day, now) = (86_400, 1_772_323_200);
        let mut open = Open::default();
        open.note(now - day, now - 3 * day);
        open.note(now - day + 60, now - 3 * day + 900);
        open.note(now + day, now - day);
        let cursor = open.cursor(Some(&json!(now.to_string()))).unwrap();
        let mut again = Open::of(Some(&cursor), epoch);
        assert_eq!(stamp(&cursor), json!(now.to_string()));
        assert_eq!(again.since(at(now)), Some(at(now - 3 * day)));
        assert_eq!(
            again.take_due(at(now), at(now - 600)),
            Some((now - 3 * day, now - 3 * day + 900))
        );
        assert_eq!(again.take_due(at(now), at(now - 600)), None);
        // What the window lists anyway is not listed twice.
        assert_eq!(
            again.take_due(at(now + 2 * day), at(now - day + 1)),
            Some((now - day, now - day))
        );
        let mut within = Open::default();
        within.note(now, now - 60);
        assert_eq!(within.take_due(at(now), at(now - 600)), None);
    }

    #[test]
    fn a_cursor_of_an_earlier_version_is_read_again_from_some_weeks_before_once() {
        let now = 1_772_323_200;
        let old = json!(now.to_string());
        let mut open = Open::of(Some(&old), epoch);
        let from = now - BEFORE_AN_UPDATE.num_seconds();
        assert_eq!(
            open.take_due(at(now), at(now - 600)),
            Some((from, now - 601))
        );
        assert_eq!(open.take_due(at(now), at(now - 600)), None);
    }

    #[test]
    fn what_never_becomes_final_and_what_is_due_at_many_times_stay_within_bounds() {
        let now = 1_772_323_200;
        let mut open = Open::default();
        open.note(0, now - 3 * 365 * 86_400);
        assert_eq!(open.since(at(now)), Some(at(now) - FOLLOWED));
        for hour in 0..1_000 {
            open.note(now + hour * HOUR, now + hour);
        }
        assert_eq!(open.open.len(), MOST_DUE);
        let all = open.take_due(at(now + 2_000 * HOUR), at(now + 5_000));
        assert_eq!(all.unwrap().1, now + 999);
    }
}
