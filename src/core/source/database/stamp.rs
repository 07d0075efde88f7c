//! Texts that are times, as a cursor has them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};

use crate::source::window::AHEAD;

/// What is before this stands for no time.
pub const LOW: &str = "1000-01-01";

pub fn low() -> DateTime<Utc> {
    let low = NaiveDate::from_ymd_opt(1000, 1, 1).unwrap_or_default();
    low.and_time(chrono::NaiveTime::MIN).and_utc()
}

pub fn span_of(seconds: f64) -> TimeDelta {
    TimeDelta::try_milliseconds((seconds * 1_000.0).ceil() as i64).unwrap_or(TimeDelta::MAX / 4)
}

/// What a text says of when a row changed.
pub enum Said {
    Time(Stamp),
    /// Something that grows: a version, or an id.
    Text,
    /// A word (unknown, never), a day that there is not, or a time that is none (9999-12-31).
    Nothing,
}

impl Said {
    pub fn by(text: &str, to: DateTime<Utc>) -> Said {
        match Stamp::read(text) {
            Some(stamp) => {
                let to = match stamp.is_utc {
                    true => to,
                    false => to + AHEAD,
                };
                match (low().naive_utc()..=to.naive_utc()).contains(&stamp.time) {
                    true => Said::Time(stamp),
                    false => Said::Nothing,
                }
            }
            None => match text.bytes().any(|byte| byte.is_ascii_digit()) && !is_no_day(text) {
                true => Said::Text,
                false => Said::Nothing,
            },
        }
    }
}

/// Whether a text begins as a day does, and there is no such day.
fn is_no_day(text: &str) -> bool {
    day(text).is_some_and(|day| NaiveDate::parse_from_str(day, "%Y-%m-%d").is_err())
}

/// What a text begins with, if it is written as a day.
fn day(text: &str) -> Option<&str> {
    let day = text.get(..10)?;
    let is_day = |byte: (usize, u8)| match byte.0 {
        4 | 7 => byte.1 == b'-',
        _ => byte.1.is_ascii_digit(),
    };
    day.bytes().enumerate().all(is_day).then_some(day)
}

/// A text that is a time as ISO 8601 writes it, so that a later one is a greater text.
pub struct Stamp {
    pub time: NaiveDateTime,
    format: &'static str,
    pub is_utc: bool,
}

impl Stamp {
    pub fn read(text: &str) -> Option<Stamp> {
        const FORMATS: [(&str, &str); 4] = [
            ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S"),
            ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S"),
            ("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M"),
            ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M"),
        ];
        day(text)?;
        if text.len() == 10 {
            let time = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            return Some(Stamp {
                time: time.and_time(chrono::NaiveTime::MIN),
                format: "%Y-%m-%d",
                is_utc: false,
            });
        }
        let (local, zone) = match text.get(11..)?.find(['Z', '+', '-']) {
            Some(end) => text.split_at_checked(11 + end)?,
            None => (text, ""),
        };
        let found = FORMATS.iter().find_map(|(read, write)| {
            let time = NaiveDateTime::parse_from_str(local, read).ok()?;
            Some((time, *write))
        });
        let (time, format) = found?;
        Some(Stamp {
            time,
            format,
            is_utc: matches!(zone, "Z" | "+00" | "+00:00" | "+0000"),
        })
    }

    /// A text that none of a stamp within the lookback is less than.
    pub fn before(&self, seconds: f64) -> String {
        let time = self.time.checked_sub_signed(span_of(seconds));
        let time = time.unwrap_or_default();
        time.format(self.format).to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_text_that_is_a_time_is_moved_back_in_its_own_spelling() {
        for (text, before) in [
            ("2026-03-01 00:05:00.5", Some("2026-02-28 23:55:00")),
            ("2026-03-01T00:05:00Z", Some("2026-02-28T23:55:00")),
            ("2026-03-01T00:05:00+01:00", Some("2026-02-28T23:55:00")),
            ("2026-03-01 00:05", Some("2026-02-28 23:55")),
            ("2026-03-01", Some("2026-02-28")),
            ("2026-3-1", None),
            ("v4711", None),
            ("2026-03-01x00:05:00", None),
            ("", None),
        ] {
            let moved = Stamp::read(text).map(|stamp| stamp.before(600.0));
            assert_eq!(moved.as_deref(), before, "{text}");
        }
    }

    #[test]
    fn a_text_is_a_time_of_the_pass_or_something_that_grows_or_nothing() {
        let to = "2026-06-15T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-06-15 11:00:00", "time"),
            ("2026-06-16 02:00:00", "time"),
            ("2026-06-16 02:00:01", "nothing"),
            ("2026-06-15T12:00:00Z", "time"),
            ("2026-06-15T12:00:01Z", "nothing"),
            ("9999-12-31 00:00:00", "nothing"),
            ("9999-12-31", "nothing"),
            ("0001-01-01", "nothing"),
            ("0000-00-00 00:00:00", "nothing"),
            ("unknown", "nothing"),
            ("", "nothing"),
            ("v000012", "text"),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "text"),
            ("2026-06-15-0001", "text"),
        ] {
            let said = match Said::by(text, to) {
                Said::Time(_) => "time",
                Said::Text => "text",
                Said::Nothing => "nothing",
            };
            assert_eq!(said, expected, "{text}");
        }
    }
}
