//! Decides whether a value that a mapping found in a record is an amount or a day.
//!
//! What is ambiguous is refused, never guessed: `12,5` is twelve and a half in one country and a typing error
//! in another, `01/02/2026` is two different days. A wrong number that looks right costs more than a record
//! in quarantine.

use std::borrow::Cow;

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveTime, Utc};

use crate::datetime;
use crate::money::{Dressed, undress};

/// Longest text of an amount. A longer one is no amount of money; its digits would only cost time in every sum.
const LONGEST_AMOUNT: usize = 100;

/// Reads an amount: the text that PostgreSQL's numeric reads.
///
/// A plain decimal is taken exactly as it came: optional sign, digits, a decimal point, an exponent of up to two digits.
/// What stands around an amount is read as well: a currency, parentheses, a sign behind it, `CR`. Beside a currency its
/// marks may be those of any country, as long as they can be read in one way: `EUR 5,00` and `$1,234.56`, but neither
/// `EUR 1,234` nor `EUR 1.234`. No NaN, no Infinity.
pub fn amount(text: &str) -> Option<Cow<'_, str>> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    if let Some(plain) = decimal(text) {
        return Some(plain.into());
    }
    if text.len() > LONGEST_AMOUNT {
        return None;
    }
    let dressed = undress(text).filter(|dressed| !dressed.is_percent)?;
    let digits = match dressed {
        Dressed { digits: "", .. } => "0".into(),
        Dressed {
            currencies: None,
            digits,
            ..
        } => is_plain(digits).then_some(Cow::Borrowed(digits))?,
        Dressed { digits, .. } => unmarked(digits)?.into(),
    };
    Some(match dressed.is_negative {
        true => format!("-{digits}").into(),
        false => digits.into_owned().into(),
    })
}

/// Reads a plain decimal alone, as vendors send it: what else stands in such a place is no amount.
pub fn decimal(text: &str) -> Option<&str> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    (text.len() <= LONGEST_AMOUNT && is_plain(text)).then_some(text)
}

/// Whether a text says that it is an amount of another currency than this, an ISO 4217 code.
pub fn is_of_other_currency(text: &str, currency: &str) -> bool {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    text.len() <= LONGEST_AMOUNT
        && !is_plain(text)
        && undress(text).is_some_and(|dressed| dressed.contradicts(currency))
}

/// JSON in which each text that is an amount, and no key, is a number: a path calculates with numbers alone.
pub fn with_numbers(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some((before, after)) = rest.split_once('"') {
        out.push_str(before);
        let end = end_of_text(after);
        let (text, behind) = after.split_at_checked(end).unwrap_or((after, ""));
        let is_key = behind
            .get(1..)
            .is_some_and(|next| next.trim_start().starts_with(':'));
        match amount(text).filter(|_| !is_key && !text.contains('\\')) {
            Some(amount) => out.push_str(&as_json(&amount)),
            None => {
                out.push('"');
                out.push_str(text);
                out.push_str(behind.get(..1).unwrap_or_default());
            }
        }
        rest = behind.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Where the quote is that closes a text.
fn end_of_text(text: &str) -> usize {
    let mut at = 0;
    let bytes = text.as_bytes();
    while let Some(found) = bytes
        .get(at..)
        .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
    {
        at += found;
        if bytes.get(at) == Some(&b'"') {
            return at;
        }
        at = (at + 2).min(bytes.len());
    }
    bytes.len()
}

/// An amount as JSON writes numbers.
fn as_json(amount: &str) -> String {
    let unsigned = amount.trim_start_matches(['+', '-']);
    let sign = if amount.starts_with('-') { "-" } else { "" };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => unsigned.split_at(at),
        None => (unsigned, ""),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}{exponent}")
}

fn is_plain(text: &str) -> bool {
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
    is_mantissa && is_exponent
}

/// Digits with a point for decimals, out of digits with marks that can be read in one way.
fn unmarked(digits: &str) -> Option<String> {
    let is_mark = |c: char| !c.is_ascii_digit();
    let Some(at) = digits.rfind(is_mark) else {
        return is_plain(digits).then(|| digits.to_owned());
    };
    let mark = digits.get(at..)?.chars().next()?;
    let (whole, fraction) = (digits.get(..at)?, digits.get(at + mark.len_utf8()..)?);
    let is_alone = !whole.contains(is_mark);
    // Three digits behind the only mark are thousands in one country and decimals in another.
    let is_group = fraction.len() == 3 && (1..=3).contains(&whole.len()) && !whole.starts_with('0');
    match mark {
        '.' | ',' if is_alone && is_group => None,
        '.' | ',' if !whole.contains(mark) => {
            let whole = ungrouped(whole)?;
            (!whole.is_empty() || !fraction.is_empty()).then(|| match fraction {
                "" => whole,
                _ => format!("{whole}.{fraction}"),
            })
        }
        _ => ungrouped(digits),
    }
}

/// Digits without the one mark between their groups. The last group has three digits, those before it two or three.
fn ungrouped(whole: &str) -> Option<String> {
    let Some(mark) = whole.chars().find(|c| !c.is_ascii_digit()) else {
        return Some(whole.to_owned());
    };
    let is_known = matches!(
        mark,
        '.' | ',' | '\'' | '\u{2019}' | ' ' | '\u{A0}' | '\u{2009}' | '\u{202F}'
    );
    let groups: Vec<&str> = whole.split(mark).collect();
    let (first, rest) = groups.split_first()?;
    let (last, between) = rest.split_last()?;
    let are_grouped = (1..=3).contains(&first.len())
        && last.len() == 3
        && between.iter().all(|group| (2..=3).contains(&group.len()))
        && groups.iter().all(|group| is_digits(group));
    (is_known && are_grouped).then(|| groups.concat())
}

/// What a record calls its date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// A day of the calendar, whatever the time zone: a plain date, or a local time without an offset.
    Day(NaiveDate),
    /// A moment; which day it belongs to is up to the tenant's time zone.
    Moment(DateTime<Utc>),
}

/// Reads a date: ISO 8601 (a day, a local time, or a time with an offset), the year first in any case, or as mail has it
/// (RFC 2822). Of digits alone, 8 are a day (20260131), 12 and 14 a local time (202601312230), and others a count since
/// 1970: 9 to 11 seconds, 12 to 14 milliseconds, 15 to 17 microseconds, 18 and 19 nanoseconds. Digits that may be both
/// are refused, unless one of the two is long past. Years 1 to 9999.
pub fn when(text: &str) -> Option<When> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    if text.bytes().next().is_some_and(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        return count(text);
    }
    let Some(read) = clock_time(text).or_else(|| basic(text)) else {
        let moment = datetime::of_mail(text)?;
        return is_in_range(moment.date_naive()).then_some(When::Moment(moment));
    };
    match read {
        (day, _, None) => Some(When::Day(day)),
        (day, time, Some(offset)) => {
            let moment = day.and_time(time).and_local_timezone(offset);
            let moment = moment.single()?.to_utc();
            // In UTC it may be of another year.
            is_in_range(moment.date_naive()).then_some(When::Moment(moment))
        }
    }
}

/// `20260131T2359`, with seconds or without, and with an offset or without.
fn basic(text: &str) -> Option<(NaiveDate, NaiveTime, Option<FixedOffset>)> {
    let (day, rest) = text.split_at_checked(8)?;
    let rest = rest.strip_prefix(['T', 't'])?;
    let day = compact_day(day)?;
    let (time, offset) = match rest.find(['Z', 'z', '+', '-']) {
        Some(at) => rest.split_at_checked(at)?,
        None => (rest, ""),
    };
    let (digits, fraction) = match time.split_once('.') {
        Some((digits, fraction)) => (digits, Some(fraction)),
        None => (time, None),
    };
    if fraction
        .is_some_and(|fraction| digits.len() < 6 || fraction.is_empty() || !is_digits(fraction))
    {
        return None;
    }
    let time = compact_time(digits)?;
    if offset.is_empty() {
        return Some((day, time, None));
    }
    Some((day, time, Some(self::offset(offset)?)))
}

/// The time within a date that [`when`] reads, in a form that PostgreSQL reads in any setting: with a `Z` if it is a moment, without
/// one if it is a time of the tenant's zone. A day without a time is its beginning.
pub fn clock_text(text: &str) -> Option<String> {
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    let format = "%Y-%m-%d %H:%M:%S%.6f";
    match when(text)? {
        When::Moment(moment) => Some(format!("{}Z", moment.format(format))),
        When::Day(day) => {
            let read = clock_time(text).or_else(|| basic(text));
            let read = read.map(|(_, time, _)| time);
            let time = read.or_else(|| compact(text).map(|(_, time)| time));
            let time = time.unwrap_or(NaiveTime::MIN);
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

/// A number without separators. Digits that spell a time of the years 1900 to 2099 are one.
fn count(text: &str) -> Option<When> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !is_digits(fraction) {
        return None;
    }
    let is_whole = fraction.bytes().all(|digit| digit == b'0');
    let spelled = compact(whole);
    let n = || whole.parse::<i64>().ok();
    let moment = match (whole.len(), spelled) {
        (8, _) if is_whole => return compact_day(whole).map(When::Day),
        // As a count it would be a time before 1977, or one that is not yet.
        (12 | 14 | 17 | 20, Some((day, _))) if is_whole => return Some(When::Day(day)),
        // As a count it is a time from 2030 on.
        (10 | 16 | 18 | 19, Some(_)) => None,
        (9..=11, _) => DateTime::from_timestamp(n()?, nanoseconds(fraction.as_bytes())),
        (12..=14, None) => DateTime::from_timestamp_millis(n()?),
        (15..=17, None) => DateTime::from_timestamp_micros(n()?),
        (18 | 19, None) => Some(DateTime::from_timestamp_nanos(n()?)),
        _ => None,
    }?;
    is_in_range(moment.date_naive()).then_some(When::Moment(moment))
}

/// The day and time of digits such as `2026013123`, with hours, perhaps minutes and seconds, and parts of a second.
fn compact(digits: &str) -> Option<(NaiveDate, NaiveTime)> {
    let (day, time) = digits.split_at_checked(8)?;
    let (time, _) = time.split_at_checked(6).unwrap_or((time, ""));
    let day = compact_day(day).filter(|day| (1900..2100).contains(&chrono::Datelike::year(day)))?;
    Some((day, compact_time(time)?))
}

/// `20260131`.
fn compact_day(digits: &str) -> Option<NaiveDate> {
    let [year @ .., m1, m2, d1, d2] = digits.as_bytes() else {
        return None;
    };
    let year = number(year).filter(|_| digits.len() == 8)?;
    let day = NaiveDate::from_ymd_opt(year as i32, number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    day.filter(|day| is_in_range(*day))
}

/// `22`, `2230` or `223059`.
fn compact_time(digits: &str) -> Option<NaiveTime> {
    let part = |at: usize| match digits.get(at..at + 2) {
        Some(part) => number(part.as_bytes()),
        None => Some(0),
    };
    let is_whole = matches!(digits.len(), 2 | 4 | 6) && is_digits(digits);
    let second = part(4).map(|second| if second == 60 { 59 } else { second });
    NaiveTime::from_hms_opt(part(0)?, part(2)?, second?).filter(|_| is_whole)
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
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_taken_as_they_come() {
        for text in [
            "12.50", "-0.01", "+7", "0", ".5", "5.", "1e3", "1.5E-2", "  3.0 ",
        ] {
            assert_eq!(amount(text).as_deref(), Some(text.trim()), "{text}");
        }
    }

    #[test]
    fn only_a_plain_decimal_is_an_amount() {
        for text in [
            "",
            " ",
            "-",
            ".",
            "e5",
            "1e",
            "1e+",
            "1e100",
            "12,5",
            "6,60",
            "1,234.56",
            "1.150,00",
            "1,234",
            "$1,234",
            "EUR 1.234",
            "1.234 €",
            "1,234 kr",
            "EUR 1,2,3",
            "5 kg",
            "12 %",
            "$5 €",
            "NaN",
            "Infinity",
            "-inf",
            "0x10",
            "1_000",
            "١٢",
            "--1",
            "1.2.3",
            "-(5)",
            "true",
            "null",
            "[1, 2]",
        ] {
            assert_eq!(amount(text), None, "{text}");
        }
        assert_eq!(amount(&"9".repeat(LONGEST_AMOUNT + 1)), None);
    }

    #[test]
    fn an_amount_may_have_what_people_write_around_it() {
        for (text, expected) in [
            ("$(12.50)", "-12.50"),
            ("($12.50)", "-12.50"),
            ("(12.50)", "-12.50"),
            ("$ -", "0"),
            ("$-", "0"),
            ("EUR 5,00", "5.00"),
            ("5,00 €", "5.00"),
            ("-5,5 €", "-5.5"),
            ("R$ 5", "5"),
            ("R$ 1.234,56", "1234.56"),
            ("5 kr", "5"),
            ("1 234,50 kr", "1234.50"),
            ("12.50 CR", "-12.50"),
            ("12.50-", "-12.50"),
            ("$1,234.56", "1234.56"),
            ("$1,234,567", "1234567"),
            ("₹ 12,34,567.89", "1234567.89"),
            ("CHF 1'234.50", "1234.50"),
            ("CHF 1'234", "1234"),
            ("EUR 0.125", "0.125"),
            ("EUR 1234.567", "1234.567"),
            ("5,- €", "5"),
            ("$.50", ".50"),
            ("USD 5.", "5"),
        ] {
            assert_eq!(amount(text).as_deref(), Some(expected), "{text}");
        }
        assert!(is_of_other_currency("EUR 5", "USD") && !is_of_other_currency("EUR 5", "EUR"));
        assert!(!is_of_other_currency("5", "USD") && !is_of_other_currency("x", "USD"));
    }

    #[test]
    fn texts_that_are_amounts_become_numbers_for_a_path_that_calculates() {
        let json = r#"{"1": "2.50", "007": ["+07", ".5", "5.", "-0.10"], "sku": "A-1", "q": "say \"5\"", "at": "2026-01-31", "n": 1e3, "p": "$(1.5)", "e": "", "x": "1e2"}"#;
        let expected = r#"{"1": 2.50, "007": [7, 0.5, 5, -0.10], "sku": "A-1", "q": "say \"5\"", "at": "2026-01-31", "n": 1e3, "p": -1.5, "e": "", "x": 1e2}"#;
        assert_eq!(with_numbers(json), expected);
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
            "20260131.0",
            "202601312359",
            "20260131235959",
            "20260131235959123",
            "20260131235959123456",
            "20260131T2359",
            "20260131T235959",
            "20260131T235959.5",
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
            "1769902200000000000",
            "20260131T2330Z",
            "20260131T233000+0000",
            "20260201T003000+01:00",
            "Sat, 31 Jan 2026 23:30:00 +0000",
            "Sun, 1 Feb 2026 00:30:00 +0100",
            "31 Jan 2026 18:30 -0500",
            "Sat, 31 Jan 2026 23:30:00 GMT",
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
            "13102026",
            "10132026",
            "261013",
            "2026286",
            "2026101322",
            "2026101322300012",
            "2026101322300012345",
            "46308",
            "46308.9375",
            "13.10.2026",
            "2026.10",
            "20260131T",
            "20260131T9",
            "20260131T2360",
            "20260131T2330.5",
            "Mon, 31 Jan 2026 23:30:00 +0000",
            "31 Jan 2026",
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
        fn json_with_numbers_is_json(texts in prop::collection::vec("[-+0-9.e$\"\\\\{}:, ]{0,8}", 0..5)) {
            let json = serde_json::to_string(&serde_json::json!({"a": texts, "5": [texts.clone()]})).unwrap();
            let read: Result<serde_json::Value, _> = serde_json::from_str(&with_numbers(&json));
            prop_assert!(read.is_ok_and(|read| read["a"].as_array().unwrap().len() == texts.len()), "{}", json);
        }

        #[test]
        fn an_amount_in_any_notation_is_itself_or_refused(
            cents in 0_i64..100_000_000,
            places in 0_usize..3,
            thousands in prop::sample::select(vec!["", ",", ".", " ", "'", "\u{A0}"]),
            dress in prop::sample::select(vec!["@", "$@", "EUR @", "@ €", "R$ @", "@ kr", "-@", "(@)", "$(@)", "@-", "@ CR", "-$@", "£@ CR"]),
        ) {
            let decimal = if thousands == "." { "," } else { "." };
            let plain = match places {
                0 => format!("{}", cents / 100),
                1 => format!("{}.{}", cents / 100, cents % 10),
                _ => format!("{}.{:02}", cents / 100, cents % 100),
            };
            let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
            let mut written = String::new();
            for (position, digit) in whole.chars().enumerate() {
                if position > 0 && (whole.len() - position) % 3 == 0 {
                    written.push_str(thousands);
                }
                written.push(digit);
            }
            if !fraction.is_empty() {
                written = format!("{written}{decimal}{fraction}");
            }
            let text = dress.replace('@', &written);
            // A point alone is for decimals, unless a currency makes it doubtful.
            if thousands == "." && places == 0 && ["@", "-@", "(@)", "@-", "@ CR"].contains(&dress) {
                return Ok(());
            }
            let is_negative = dress.contains(['-', '(']) || dress.contains("CR");
            let sign = if is_negative { "-" } else { "" };
            if let Some(read) = amount(&text) {
                prop_assert_eq!(read.parse::<f64>().unwrap(), format!("{sign}{plain}").parse::<f64>().unwrap(), "{}", text);
            }
        }

        #[test]
        fn a_moment_in_any_format_is_its_day_or_refused(
            seconds in 315_532_800_i64..4_102_444_799,
            format in prop::sample::select(vec![
                "%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y%m%d%H", "%Y%m%d%H%M", "%Y%m%d%H%M%S",
                "%Y%m%d%H%M%S%3f", "%Y%m%d%H%M%S%6f", "%Y%m%dT%H", "%Y%m%dT%H%M", "%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S+0000",
                "%a, %d %b %Y %H:%M:%S +0000", "%d %b %Y %H:%M +0000", "%d%m%Y", "%m%d%Y", "%y%m%d", "%d.%m.%Y", "%d/%m/%Y",
                "%Y%j", "%Y-%j", "%G-W%V-%u", "%s", "%s000", "%s000000", "%s000000000", "%s.000", "%d%m%y", "%H%M%S",
            ]),
        ) {
            let at = DateTime::from_timestamp_secs(seconds).unwrap();
            let text = at.format(format).to_string();
            let day = match when(&text) {
                None => return Ok(()),
                Some(When::Day(day)) => day,
                Some(When::Moment(moment)) => moment.date_naive(),
            };
            prop_assert_eq!(day, at.date_naive(), "{}", text);
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
            let read = amount(&text);
            prop_assert_eq!(read.as_deref(), Some(text.as_str()));
        }
    }
}
