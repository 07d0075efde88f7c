//! From where a pass reads, and how far it came.
//!
//! A cursor is the greatest stamp that the source itself wrote on a record that is stored, never our clock. The next
//! pass starts a lookback before it, because sources stamp a record before it becomes visible; what is read twice
//! changes nothing.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{Start, Stream};
use crate::record::Window;

/// The furthest that a clock shows a later time than UTC, and an earlier one: a stamp without a zone may be of any.
pub const AHEAD: TimeDelta = TimeDelta::hours(14);
pub const BEHIND: TimeDelta = TimeDelta::hours(12);

/// Where passes over a stream begin.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    /// Config's `start_date`.
    pub start_date: Option<DateTime<Utc>>,
    /// Longer: more is read again each time. Shorter: what becomes visible late is never seen.
    pub lookback: TimeDelta,
    /// Reads the vendor's stamps.
    pub read: fn(&str) -> Option<DateTime<Utc>>,
}

impl Since {
    /// `cursor` counts where the stream is not read whole.
    pub fn window(&self, stream: &Stream, cursor: Option<&Value>, start: Start) -> Window {
        if stream.whole {
            return Window {
                from: None,
                to: start.now,
            };
        }
        let first = self.start_date.unwrap_or(start.default_from);
        let reached = cursor.and_then(Value::as_str).and_then(self.read);
        // What a vendor stamped before there were any leaves no room for a lookback.
        let reached = reached.map(|reached| reached.max(DateTime::UNIX_EPOCH));
        let from = match (reached, self.start_date) {
            // The default moves with the clock: it begins a first pass, and must not cut off what came since.
            (Some(reached), None) => reached - self.lookback,
            (Some(reached), Some(first)) => (reached - self.lookback).max(first),
            (None, _) => first,
        };
        Window {
            from: Some(from.min(start.now)),
            to: start.now,
        }
    }
}

/// A count of seconds since 1970.
pub fn epoch(text: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(text.parse().ok()?, 0)
}

/// The greatest stamp so far that is not later than `cap`, in its own spelling. One of the far future moves nothing:
/// it would make every later pass skip what lies before it. Also says whether any stamp could be read.
pub fn highest(
    before: Option<&Value>,
    stamps: &[String],
    cap: DateTime<Utc>,
    read: impl Fn(&str) -> Option<DateTime<Utc>>,
) -> (Option<Value>, bool) {
    let mut high = before
        .and_then(Value::as_str)
        .and_then(|text| Some((read(text)?, text)));
    let mut any_read = false;
    for text in stamps {
        let Some(value) = read(text) else {
            continue;
        };
        any_read = true;
        if value <= cap && high.is_none_or(|(highest, _)| value > highest) {
            high = Some((value, text));
        }
    }
    (
        high.map(|(_, text)| Value::String(text.to_owned())),
        any_read,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::template::parse_any;
    use serde_json::json;

    #[test]
    fn a_pass_begins_one_lookback_before_the_cursor_and_never_before_the_start_date() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let start = Start {
            now: at("2026-03-01T00:00:00Z"),
            default_from: at("2026-01-30T00:00:00Z"),
            read_until: None,
            missed_since: None,
            span: None,
        };
        let from = |start_date: Option<&str>, cursor: Option<&str>| {
            let since = Since {
                start_date: start_date.map(at),
                lookback: TimeDelta::minutes(10),
                read: parse_any,
            };
            let cursor = cursor.map(|text| json!(text));
            let stream = Stream {
                name: "s".into(),
                ordered: true,
                whole: false,
            };
            since.window(&stream, cursor.as_ref(), start).from.unwrap()
        };
        let day = Some("2026-02-01T00:00:00Z");
        for (start_date, cursor, expected) in [
            (None, None, "2026-01-30T00:00:00Z"),
            (day, None, "2026-02-01T00:00:00Z"),
            (None, Some("2025-06-01T00:00:00Z"), "2025-05-31T23:50:00Z"),
            (
                day,
                Some("2026-02-20T10:00:00.000+0000"),
                "2026-02-20T09:50:00Z",
            ),
            (day, Some("2026-02-01T00:05:00Z"), "2026-02-01T00:00:00Z"),
            (day, Some("not a date"), "2026-02-01T00:00:00Z"),
            (Some("2027-01-01T00:00:00Z"), None, "2026-03-01T00:00:00Z"),
        ] {
            assert_eq!(
                from(start_date, cursor),
                at(expected),
                "{start_date:?} {cursor:?}"
            );
        }
    }
}
