//! Decides whether a value that a mapping found in a record is an amount or a day.
//!
//! What is ambiguous is refused, never guessed: `12,5` is twelve and a half in one country and a typing error
//! in another, `01/02/2026` is two different days. A wrong number that looks right costs more than a record
//! in quarantine.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveTime, Utc};

/// Longest text of an amount. A longer one is no amount of money; its digits would only cost time in every sum.
const LONGEST_AMOUNT: usize = 100;

/// Reads a decimal amount: optional sign, digits, a decimal point, an exponent of up to two digits. Returns
/// the text that PostgreSQL's numeric reads, exactly as it came. No thousands marks, no decimal comma, no
/// currency sign, no NaN, no Infinity.
pub fn amount(text: &str) -> Option<&str> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    if text.len() > LONGEST_AMOUNT {
        return None;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_mantissa = is_digits(whole) && is_digits(fraction) && whole.len() + fraction.len() > 0;
    let is_exponent = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        is_digits(digits) && (1..=2).contains(&digits.len())
    });
    (is_mantissa && is_exponent).then_some(text)
}

/// What a record calls its date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// A day of the calendar, whatever the time zone: a plain date, or a local time without an offset.
    Day(NaiveDate),
    /// A moment; which day it belongs to is up to the tenant's time zone.
    Moment(DateTime<Utc>),
}

/// Reads a date: ISO 8601 (a day, a local time, or a time with an offset), the year first in any case; eight
/// digits are a day (20260131); 9 to 11 digits are seconds since 1970, 12 to 14 milliseconds, 15 to 17
/// microseconds. Years 1 to 9999.
pub fn when(text: &str) -> Option<When> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    if text.bytes().next().is_some_and(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        return count(text);
    }
    match clock_time(text)? {
        (day, _, None) => Some(When::Day(day)),
        (day, time, Some(offset)) => {
            let moment = day.and_time(time).and_local_timezone(offset);
            let moment = moment.single()?.to_utc();
            // In UTC it may be of another year.
            is_in_range(moment.date_naive()).then_some(When::Moment(moment))
        }
    }
}

/// The time within a date that [`when`] reads, in a form that PostgreSQL reads in any setting: with a `Z` if it is a moment, without
/// one if it is a time of the tenant's zone. A day without a time is its beginning.
pub fn clock_text(text: &str) -> Option<String> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let format = "%Y-%m-%d %H:%M:%S%.6f";
    match when(text)? {
        When::Moment(moment) => Some(format!("{}Z", moment.format(format))),
        When::Day(day) => {
            let time = clock_time(text).map_or(NaiveTime::MIN, |(_, time, _)| time);
            Some(day.and_time(time).format(format).to_string())
        }
    }
}

/// The seconds between two times of one kind: both with an offset, or both without one.
pub fn seconds_between(from: &str, until: &str) -> Option<i64> {
    let read = |text: &str| clock_time(text.trim_matches(|c: char| c.is_ascii_whitespace()));
    let (from, until) = (read(from)?, read(until)?);
    let moment = |(day, time, offset): (NaiveDate, NaiveTime, Option<FixedOffset>)| {
        let offset = offset.map_or(0, |offset| offset.local_minus_utc());
        day.and_time(time).and_utc().timestamp() - i64::from(offset)
    };
    (from.2.is_some() == until.2.is_some()).then(|| moment(until) - moment(from))
}

/// A day, or a time of it, with its offset where it has one.
fn clock_time(text: &str) -> Option<(NaiveDate, NaiveTime, Option<FixedOffset>)> {
    let (day, rest) = text.split_at_checked(10)?;
    let day = date(day).filter(|day| is_in_range(*day))?;
    if rest.is_empty() {
        return Some((day, NaiveTime::MIN, None));
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, offset) = match rest.find(['Z', 'z', '+', '-']) {
        Some(at) => rest.split_at_checked(at)?,
        None => (rest, ""),
    };
    let time = clock(time.trim_ascii_end())?;
    if offset.is_empty() {
        return Some((day, time, None));
    }
    Some((day, time, Some(self::offset(offset)?)))
}

/// A number without separators.
fn count(text: &str) -> Option<When> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !is_digits(fraction) {
        return None;
    }
    let n: i64 = whole.parse().ok()?;
    let moment = match whole.len() {
        8 if fraction.is_empty() => {
            let day = NaiveDate::parse_from_str(whole, "%Y%m%d").ok()?;
            return is_in_range(day).then_some(When::Day(day));
        }
        9..=11 => DateTime::from_timestamp(n, nanoseconds(fraction.as_bytes())),
        12..=14 => DateTime::from_timestamp_millis(n),
        15..=17 => DateTime::from_timestamp_micros(n),
        _ => None,
    }?;
    is_in_range(moment.date_naive()).then_some(When::Moment(moment))
}

/// PostgreSQL and JSON agree on these years.
fn is_in_range(day: NaiveDate) -> bool {
    use chrono::Datelike;
    (1..=9999).contains(&day.year())
}

/// `2026-01-31` or `2026/01/31`. By hand, as the time is: this runs for every record, and to read a format
/// string each time costs three times as much.
fn date(text: &str) -> Option<NaiveDate> {
    let (year, month, day) = match text.as_bytes() {
        [year @ .., b'-', m1, m2, b'-', d1, d2] | [year @ .., b'/', m1, m2, b'/', d1, d2]
            if year.len() == 4 =>
        {
            (year, [*m1, *m2], [*d1, *d2])
        }
        _ => return None,
    };
    NaiveDate::from_ymd_opt(number(year)? as i32, number(&month)?, number(&day)?)
}

/// `23:59`, `23:59:59` or `23:59:59.123`; a leap second is the second before it.
fn clock(text: &str) -> Option<NaiveTime> {
    let (hour, minute, second, fraction) = match text.as_bytes() {
        [h1, h2, b':', m1, m2] => ([*h1, *h2], [*m1, *m2], [b'0', b'0'], &[][..]),
        [h1, h2, b':', m1, m2, b':', s1, s2, fraction @ ..] => {
            let fraction = match fraction {
                [] => fraction,
                [b'.', digits @ ..]
                    if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) =>
                {
                    digits
                }
                _ => return None,
            };
            ([*h1, *h2], [*m1, *m2], [*s1, *s2], fraction)
        }
        _ => return None,
    };
    let second = number(&second)?;
    NaiveTime::from_hms_nano_opt(
        number(&hour)?,
        number(&minute)?,
        if second == 60 { 59 } else { second },
        nanoseconds(fraction),
    )
}

/// The nanoseconds that the digits of a fraction of a second are; further digits are left out.
fn nanoseconds(digits: &[u8]) -> u32 {
    let digits = digits.iter().copied().chain(std::iter::repeat(b'0'));
    digits.take(9).fold(0, |number, digit| {
        number * 10 + u32::from(digit.saturating_sub(b'0').min(9))
    })
}

/// The number that one to nine digits are.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u32::from(digit - b'0'))
    })
}

fn offset(text: &str) -> Option<FixedOffset> {
    match text {
        "Z" | "z" => FixedOffset::east_opt(0),
        _ if text.len() == 3 => format!("{text}:00").parse().ok(),
        _ => text.parse().ok(),
    }
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_taken_as_they_come() {
        for text in [
            "12.50", "-0.01", "+7", "0", ".5", "5.", "1e3", "1.5E-2", "  3.0 ",
        ] {
            assert_eq!(amount(text), Some(text.trim()), "{text}");
        }
    }

    #[test]
    fn only_a_plain_decimal_is_an_amount() {
        for text in [
            "", " ", "-", ".", "e5", "1e", "1e+", "1e100", "12,5", "1,234.56", "$5", "5 USD",
            "NaN", "Infinity", "-inf", "0x10", "1_000", "١٢", "--1", "1.2.3", "(5)", "true",
            "null",
        ] {
            assert_eq!(amount(text), None, "{text}");
        }
        assert_eq!(amount(&"9".repeat(LONGEST_AMOUNT + 1)), None);
    }

    fn day(y: i32, m: u32, d: u32) -> Option<When> {
        Some(When::Day(NaiveDate::from_ymd_opt(y, m, d).unwrap()))
    }

    fn moment(text: &str) -> Option<When> {
        Some(When::Moment(text.parse().unwrap()))
    }

    #[test]
    fn a_day_is_a_day_in_every_zone() {
        for text in [
            "2026-01-31",
            "2026/01/31",
            "20260131",
            "2026-01-31 23:59:59",
            "2026-01-31T23:59",
            "2026-01-31T23:59:59.123456",
        ] {
            assert_eq!(when(text), day(2026, 1, 31), "{text}");
        }
    }

    #[test]
    fn an_offset_makes_a_moment() {
        for text in [
            "2026-01-31T23:30:00Z",
            "2026-01-31t23:30:00z",
            "2026-01-31 23:30:00 +0000",
            "2026-01-31T23:30:00.000+0000",
            "2026-02-01T00:30:00+01:00",
            "2026-01-31T18:30:00-05",
            "1769902200",
            "1769902200.000",
            "1769902200000",
            "1769902200000000",
        ] {
            assert_eq!(when(text), moment("2026-01-31T23:30:00Z"), "{text}");
        }
    }

    #[test]
    fn the_time_of_a_date_is_told_to_the_microsecond() {
        for (text, told) in [
            ("2026-01-31", "2026-01-31 00:00:00.000000"),
            ("20260131", "2026-01-31 00:00:00.000000"),
            ("2026-01-31T23:59", "2026-01-31 23:59:00.000000"),
            ("2026/01/31 23:59:60.5", "2026-01-31 23:59:59.500000"),
            (
                "2026-01-31T23:30:00.1234567Z",
                "2026-01-31 23:30:00.123456Z",
            ),
            ("2026-02-01T00:30:00+01:00", "2026-01-31 23:30:00.000000Z"),
            ("1769902200.25", "2026-01-31 23:30:00.250000Z"),
            ("1769902200001", "2026-01-31 23:30:00.001000Z"),
        ] {
            assert_eq!(clock_text(text).as_deref(), Some(told), "{text}");
        }
        assert_eq!(clock_text("yesterday"), None);
    }

    #[test]
    fn an_ambiguous_or_impossible_date_is_refused() {
        for text in [
            "",
            "01/02/2026",
            "31.01.2026",
            "2026-13-01",
            "2026-02-30",
            "2026-1-1",
            "0000-01-01",
            "2026-01-31T",
            "2026-01-31T25:00:00Z",
            "9999-12-31T23:00:00-08:00",
            "0001-01-01T00:00:00+08:00",
            "2026-01-31T10:00:00 Europe/Berlin",
            "20261331",
            "1234567",
            "yesterday",
            "2026-01-31junk",
            "1.2.3",
            "99999999999999999999",
        ] {
            assert_eq!(when(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            if let Some(taken) = amount(&text) {
                prop_assert!(taken.parse::<f64>().is_ok_and(f64::is_finite));
            }
            let _ = when(&text);
        }

        #[test]
        fn text_of_the_alphabet_of_numbers_and_dates_is_read_or_refused(text in "[0-9TZ:.eE+/ -]{0,40}") {
            if let Some(taken) = amount(&text) {
                prop_assert!(taken.parse::<f64>().is_ok());
            }
            let _ = when(&text);
        }

        #[test]
        fn every_moment_is_read_back(seconds in -62_135_596_800_i64..253_402_300_799) {
            let at = DateTime::from_timestamp_secs(seconds).unwrap();
            prop_assert_eq!(when(&at.to_rfc3339()), Some(When::Moment(at)));
        }

        #[test]
        fn every_plain_number_is_an_amount(whole in 0_u64.., places in 0_usize..20) {
            let text = format!("{whole}.{}", "7".repeat(places));
            prop_assert_eq!(amount(&text), Some(text.as_str()));
        }
    }
}
