//! Where a pass over a table with a cursor begins, and where the next one will.
//!
//! A pass begins a lookback before the greatest cursor value that was stored. A value without a zone is what a clock on
//! a wall showed: when such clocks are put back, an hour comes twice, and what is stamped in it the second time lies
//! before what was stamped in it the first time. Where the zone is known, it says by how much; elsewhere the default
//! lookback is longer than any clock is put back.
//!
//! Stamps that are no times (infinity, 9999-12-31, 0001-01-01, zeros) are no place to begin at. A pass reads up to now,
//! and the rows beyond, like those without a stamp, by themselves.

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use mysql_common::num_bigint::BigInt;
use serde_json::Value;

use super::position::{Cursor, Kind};
use super::stamp::{Said, Stamp, low, span_of};
use super::table::Table;
use crate::error::{Code, Failure};
use crate::source::window::{AHEAD, BEHIND, highest};
use crate::source::{Position, Start};
use crate::template::parse_any;

/// Seconds before a time. Longer: more is read again each time. Shorter: what commits later after its stamp is missed.
const LOOKBACK: f64 = 600.0;

/// The same where the zone is not known. Clocks are put back by two hours at most (Troll), and transactions take time.
const LOOKBACK_OF_ANY_ZONE: f64 = 3.0 * 3_600.0;

/// The furthest that clocks are put back, in seconds.
const PUT_BACK: f64 = 2.0 * 3_600.0;

/// Numbers before a number: they are given out before their transactions commit, and commit in another order.
const LOOKBACK_OF_NUMBERS: f64 = 1_000.0;

/// What is known beside a position.
pub struct Begin<'a> {
    pub table: &'a Table,
    pub zone: Option<Tz>,
    pub start_date: Option<DateTime<Utc>>,
}

impl Begin<'_> {
    /// Where the first batch of a pass begins; `None`: at the beginning.
    pub fn of(&self, at: &Position, kind: Kind) -> Result<Option<String>, Failure> {
        let reached = at.high.and_then(Value::as_str);
        if kind.is_time() {
            return Ok(Some(kind.write(self.time(reached, at.start, kind))));
        }
        let Some(reached) = reached else {
            return Ok(None);
        };
        let lookback = self.table.lookback;
        Ok(match kind {
            // Without a readable number there is no place to begin at.
            Kind::Number => less(reached, lookback.unwrap_or(LOOKBACK_OF_NUMBERS)),
            Kind::Real => {
                let number = reached
                    .parse::<f64>()
                    .ok()
                    .filter(|number| number.is_finite());
                let lookback = lookback.unwrap_or(LOOKBACK_OF_NUMBERS);
                number.map(|number| (number - lookback).next_down().to_string())
            }
            Kind::Text => match Said::by(reached, at.window.to) {
                Said::Time(stamp) => {
                    let default = match stamp.is_utc {
                        true => LOOKBACK,
                        false => LOOKBACK_OF_ANY_ZONE,
                    };
                    Some(stamp.before(lookback.unwrap_or(default)))
                }
                Said::Text => {
                    self.check_text()?;
                    Some(reached.to_owned())
                }
                // An earlier version began there.
                Said::Nothing => None,
            },
            _ => Some(reached.to_owned()),
        })
    }

    fn time(&self, reached: Option<&str>, start: Start, kind: Kind) -> DateTime<Utc> {
        let behind = match kind.has_zone() {
            true => TimeDelta::zero(),
            false => BEHIND,
        };
        if let Some(span) = start.span {
            return span.from - behind;
        }
        let first = self.start_date.unwrap_or(start.default_from) - behind;
        let Some(reached) = reached.and_then(parse_any) else {
            return first.max(low());
        };
        let zone = self.zone.filter(|_| !kind.has_zone());
        let default = match kind.has_zone() || zone.is_some() {
            true => LOOKBACK,
            false => LOOKBACK_OF_ANY_ZONE,
        };
        let lookback = span_of(self.table.lookback.unwrap_or(default));
        let again = zone.map_or(TimeDelta::zero(), |zone| {
            put_back(zone, reached.naive_utc(), lookback)
        });
        let from = reached.checked_sub_signed(lookback + again);
        let from = from.unwrap_or_else(low).max(low());
        match self.start_date {
            Some(_) => from.max(first),
            None => from,
        }
    }

    /// The latest time that a row's cursor may have to count as one.
    pub fn cap(&self, kind: Kind, to: DateTime<Utc>) -> DateTime<Utc> {
        match (kind.has_zone(), self.zone) {
            (true, _) => to,
            (false, Some(zone)) => to + TimeDelta::seconds(seconds_ahead(zone, to)),
            (false, None) => to + AHEAD,
        }
    }

    /// The latest text that may be a time of the pass, where the cursor's texts are times. To the day, so that it is
    /// the same for every spelling.
    pub fn cap_of_text(&self, at: &Position) -> Option<String> {
        let reached = at.high.and_then(Value::as_str)?;
        Stamp::read(reached)?;
        let day = at.window.to + AHEAD + TimeDelta::days(1);
        Some(day.format("%Y-%m-%d").to_string())
    }

    /// The greatest cursor value so far, where the last row has this one. `texts`: those of all rows, in their order, where
    /// the cursor is a text.
    pub fn reached(
        &self,
        at: &Position,
        cursor: Cursor,
        reached: &str,
        texts: &[String],
    ) -> Result<Option<Value>, Failure> {
        let before = at.high.and_then(Value::as_str);
        // Within the lookback, where the rows beyond it are gone, nothing moves back.
        let is_beyond = match cursor.kind {
            kind if kind.is_time() => {
                // MySQL has days without a number.
                let readable = match parse_any(reached) {
                    Some(_) => reached.to_owned(),
                    None => reached.replace("-00", "-01"),
                };
                let cap = self.cap(kind, at.window.to);
                return Ok(highest(at.high, &[readable], cap, parse_any).0);
            }
            Kind::Number => match (before.and_then(digits), digits(reached)) {
                (Some(before), Some(reached)) => is_less(&before, &reached),
                (_, reached) => reached.is_some(),
            },
            Kind::Real => {
                let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite());
                match (before.and_then(number), number(reached)) {
                    (Some(before), Some(reached)) => before < reached,
                    (_, reached) => reached.is_some(),
                }
            }
            Kind::Text => return self.reached_text(at, reached, texts),
            _ => true,
        };
        Ok(match is_beyond {
            true => Some(reached.into()),
            false => at.high.cloned(),
        })
    }

    /// Where some text is a time, no other text moves the cursor.
    fn reached_text(
        &self,
        at: &Position,
        reached: &str,
        texts: &[String],
    ) -> Result<Option<Value>, Failure> {
        let texts = texts.iter().map(String::as_str).chain([reached]);
        let said = |text| (Said::by(text, at.window.to), text);
        let mut high = at.high.and_then(Value::as_str).map(said);
        for (said, text) in texts.map(said) {
            let is_beyond = match (&said, &high) {
                (Said::Nothing, _) | (Said::Text, Some((Said::Time(_), _))) => false,
                (Said::Time(stamp), Some((Said::Time(high), _))) => high.time < stamp.time,
                _ => true,
            };
            if is_beyond {
                high = Some((said, text));
            }
        }
        if let Some((Said::Text, _)) = &high {
            self.check_text()?;
        }
        Ok(high.map(|(_, text)| text.into()))
    }

    /// A lookback cannot be subtracted from a text that is no time.
    fn check_text(&self) -> Result<(), Failure> {
        match (self.table.lookback, &self.table.cursor) {
            (Some(lookback), Some(cursor)) if lookback > 0.0 => Err(no_lookback(cursor, "text")),
            _ => Ok(()),
        }
    }

    /// What a person should know of the lookback.
    pub fn warning(&self, cursor: Option<Kind>) -> Option<String> {
        let lookback = self.table.lookback?;
        match cursor {
            None => Some("\"lookback\" has no effect, because there is no \"cursor\"".to_owned()),
            Some(Kind::Naive) if self.zone.is_none() && lookback < PUT_BACK => Some(format!(
                "the lookback of {lookback} s is shorter than the time by which clocks are put back in autumn, and the cursor has no time zone: rows that change in the hour that comes twice may be missed. Set \"lookback\" to {LOOKBACK_OF_ANY_ZONE} or leave it out"
            )),
            Some(_) => None,
        }
    }
}

/// The refusal of a lookback.
pub fn no_lookback(cursor: &str, kind: &str) -> Failure {
    let message = format!(
        "\"lookback\" cannot be subtracted from the cursor \"{cursor}\", whose values are {kind}; remove \"lookback\", or name a column with times or numbers as \"cursor\""
    );
    Failure::new(Code::UnexpectedShape, message)
}

fn seconds_ahead(zone: Tz, at: DateTime<Utc>) -> i64 {
    let offset = zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    i64::from(offset.local_minus_utc())
}

/// By how much clocks of a zone are put back around a time that they showed: what is stamped after it may lie as much
/// before it.
fn put_back(zone: Tz, shown: NaiveDateTime, lookback: TimeDelta) -> TimeDelta {
    let first = zone.from_local_datetime(&shown).earliest();
    let first = first.map_or_else(|| shown.and_utc(), |first| first.to_utc());
    let step = TimeDelta::minutes(15);
    let (mut at, end) = (
        first - lookback.min(TimeDelta::days(2)),
        first + TimeDelta::hours(26),
    );
    let ahead = seconds_ahead(zone, first);
    let mut least = ahead;
    while at <= end {
        least = least.min(seconds_ahead(zone, at));
        at += step;
    }
    TimeDelta::seconds(ahead - least)
}

/// A decimal number as an integer, and how many of its digits are behind the point.
fn digits(text: &str) -> Option<(BigInt, usize)> {
    let (whole, behind) = text.split_once('.').unwrap_or((text, ""));
    let is_sound = behind.bytes().all(|byte| byte.is_ascii_digit());
    let number = format!("{whole}{behind}").parse().ok()?;
    is_sound.then_some((number, behind.len()))
}

/// Both as integers of the same scale.
fn scaled(one: &(BigInt, usize), other: &(BigInt, usize)) -> (BigInt, BigInt, usize) {
    let scale = one.1.max(other.1);
    let to = |(number, own): &(BigInt, usize)| {
        number * BigInt::from(10).pow((scale - own).try_into().unwrap_or(u32::MAX))
    };
    (to(one), to(other), scale)
}

fn is_less(one: &(BigInt, usize), other: &(BigInt, usize)) -> bool {
    let (one, other, _) = scaled(one, other);
    one < other
}

/// A number less a lookback, exactly.
fn less(number: &str, lookback: f64) -> Option<String> {
    let number = digits(number)?;
    // An integer may only be compared with an integer.
    let lookback = match number.1 {
        0 => lookback.ceil(),
        _ => lookback,
    };
    let (number, lookback, scale) = scaled(&number, &digits(&lookback.to_string())?);
    let difference = (number - lookback).to_string();
    let (sign, size) = match difference.strip_prefix('-') {
        Some(size) => ("-", size),
        None => ("", difference.as_str()),
    };
    let size = format!("{size:0>width$}", width = scale + 1);
    let (whole, behind) = size.split_at(size.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    Some(format!("{sign}{whole}{point}{behind}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_lookback_is_subtracted_exactly() {
        for (number, lookback, expected) in [
            ("4711", 1_000.0, Some("3711")),
            ("4711", 0.5, Some("4710")),
            ("1700000000.123456", 600.0, Some("1699999400.123456")),
            ("0.000001", 0.0000005, Some("0.0000005")),
            ("-0.5", 1.25, Some("-1.75")),
            ("0.50", 0.5, Some("0.00")),
            (
                "123456789012345678901234567890.000000000001",
                1.0,
                Some("123456789012345678901234567889.000000000001"),
            ),
            ("NaN", 1.0, None),
            ("Infinity", 1.0, None),
            ("1.-5", 1.0, None),
            ("", 1.0, None),
        ] {
            assert_eq!(less(number, lookback).as_deref(), expected, "{number}");
        }
    }

    #[test]
    fn clocks_are_put_back_by_as_much_as_their_zone_says() {
        for (zone, shown, minutes) in [
            (chrono_tz::Europe::Berlin, "2026-10-25T01:59:59", 60),
            (chrono_tz::Europe::Berlin, "2026-10-25T02:59:59", 60),
            (chrono_tz::Europe::Berlin, "2026-08-01T02:59:59", 0),
            (chrono_tz::Australia::Lord_Howe, "2026-04-05T01:59:59", 30),
            (chrono_tz::Antarctica::Troll, "2026-10-25T02:59:59", 120),
            (chrono_tz::Europe::Berlin, "2026-03-29T02:30:00", 0),
        ] {
            let back = put_back(zone, shown.parse().unwrap(), TimeDelta::minutes(10));
            assert_eq!(back.num_minutes(), minutes, "{zone} {shown}");
        }
    }
}
