//! Dates as vendors write them: Python's format codes, which manifests use.
//!
//! chrono's own codes differ where it hurts (`%f` is nine digits there, six in Python), so the codes are read
//! here one by one, and one that is not known is an error when the connector is saved.

use chrono::{
    DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc, Weekday,
};

/// A format that is known to be sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A count since 1970 in this many parts of a second.
    Epoch(i64),
    /// Seconds since 1970 with a fraction.
    EpochFloat,
    Parts(Vec<Part>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Literal(char),
    Year,
    Month,
    MonthName,
    Day,
    Hour,
    Minute,
    Second,
    /// Six digits when written, one to nine when read.
    Fraction,
    /// Three digits when written.
    Millis,
    Offset,
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

impl Format {
    /// Reads a format; the error is the code that is not known.
    pub fn new(text: &str) -> Result<Format, String> {
        let kind = match text {
            "%s" => Kind::Epoch(1),
            "%ms" => Kind::Epoch(1_000),
            "%epoch_microseconds" => Kind::Epoch(1_000_000),
            "%s_as_float" => Kind::EpochFloat,
            _ => Kind::Parts(parts(text)?),
        };
        Ok(Format(kind))
    }

    pub fn write(&self, at: DateTime<Utc>) -> String {
        match &self.0 {
            Kind::Epoch(parts) => (at.timestamp_micros() / (1_000_000 / parts)).to_string(),
            Kind::EpochFloat => {
                let micros = at.timestamp_micros();
                let sign = if micros < 0 { "-" } else { "" };
                let size = micros.unsigned_abs();
                format!("{sign}{}.{:06}", size / 1_000_000, size % 1_000_000)
            }
            Kind::Parts(parts) => parts.iter().map(|part| part.write(at)).collect(),
        }
    }

    /// Whether what it reads is a moment wherever it was written: it has an offset, counts since 1970 or names UTC. Days alone
    /// need no more.
    pub fn has_zone(&self) -> bool {
        let Kind::Parts(parts) = &self.0 else {
            return true;
        };
        let literals = parts.iter().filter_map(|part| match part {
            Part::Literal(c) => Some(*c),
            _ => None,
        });
        let literals: String = literals.collect();
        let names_utc = ["Z", "UTC", "GMT", "+00:00", "+0000"];
        let has_time = parts.iter().any(|part| matches!(part, Part::Hour));
        !has_time
            || parts.contains(&Part::Offset)
            || names_utc.iter().any(|name| literals.ends_with(name))
    }

    /// A moment without an offset is UTC; a part that the format does not have is the first it can be.
    pub fn read(&self, text: &str) -> Option<DateTime<Utc>> {
        match &self.0 {
            Kind::Epoch(parts) => DateTime::from_timestamp_micros(
                text.parse::<i64>().ok()?.checked_mul(1_000_000 / parts)?,
            ),
            Kind::EpochFloat => {
                let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
                let (nanos, rest) = fraction_digits(fraction);
                let nanos = TimeDelta::nanoseconds(i64::from(nanos));
                let whole_seconds = DateTime::from_timestamp(whole.parse().ok()?, 0)?;
                // Before 1970 the fraction goes back as well.
                let at = match whole.starts_with('-') {
                    true => whole_seconds.checked_sub_signed(nanos),
                    false => whole_seconds.checked_add_signed(nanos),
                };
                at.filter(|_| rest.is_empty())
            }
            Kind::Parts(parts) => read_parts(parts, text),
        }
    }
}

/// A moment in one of the usual spellings: ISO 8601, with its parts as people write them, or one of those that HTTP and
/// mail have. A moment without an offset is UTC.
pub fn any(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    if text.len() > LONGEST_MOMENT {
        return None;
    }
    iso(text).or_else(|| of_mail(text))
}

/// Longest text of a moment: with the name of a zone behind it.
const LONGEST_MOMENT: usize = 100;

/// `Sun, 06 Nov 1994 08:49:37 GMT`, its older forms, and with an offset as mail has it.
pub(crate) fn of_mail(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(at) = httpdate::parse_http_date(text) {
        return Some(at.into());
    }
    let at = DateTime::parse_from_rfc2822(text).ok()?.to_utc();
    // chrono keeps a leap second in the second before it.
    Some(match at.nanosecond().checked_sub(1_000_000_000) {
        Some(nanos) => at.with_nanosecond(nanos)? + TimeDelta::seconds(1),
        None => at,
    })
}

fn iso(text: &str) -> Option<DateTime<Utc>> {
    let mut rest = text;
    let date = iso_date(&mut rest)?;
    if rest.is_empty() {
        return Some(date.and_time(NaiveTime::MIN).and_utc());
    }
    let after = rest.strip_prefix(['T', 't', ' '])?;
    // Between two of them there may be more than one blank.
    rest = after.trim_start();
    let hour = digits(&mut rest, 2, 2)?;
    let is_extended = rest.starts_with(':');
    let part = |rest: &mut &str| -> Option<u32> {
        if is_extended {
            *rest = rest.strip_prefix(':')?;
        }
        digits(rest, 2, 2)
    };
    let minute = part(&mut rest)?;
    let mut seconds = (0, 0);
    if rest.starts_with(|c: char| c == ':' || (!is_extended && c.is_ascii_digit())) {
        seconds.0 = part(&mut rest)?;
        if let Some(fraction) = rest.strip_prefix(['.', ',']) {
            fraction
                .starts_with(|c: char| c.is_ascii_digit())
                .then_some(())?;
            (seconds.1, rest) = fraction_digits(fraction);
        }
    }
    let local = local(date, hour, minute, seconds.0, seconds.1)?;
    local.checked_sub_signed(TimeDelta::seconds(iso_offset(rest)?))
}

/// A day: `2026-01-31`, `20260131`, as the day of a week, `2026-W05-6`, or of the year, `2026-031`.
fn iso_date(rest: &mut &str) -> Option<NaiveDate> {
    let year = i32::try_from(digits(rest, 4, 4)?).ok()?;
    let Some(mut after) = rest.strip_prefix('-') else {
        // Eight digits alone may be a number of anything.
        let month = digits(rest, 2, 2)?;
        let day = digits(rest, 2, 2)?;
        rest.starts_with(['T', 't']).then_some(())?;
        return NaiveDate::from_ymd_opt(year, month, day);
    };
    let date = if let Some(mut week) = after.strip_prefix(['W', 'w']) {
        let number = digits(&mut week, 2, 2)?;
        after = week.strip_prefix('-')?;
        let day = u8::try_from(digits(&mut after, 1, 1)?).ok()?;
        let day = Weekday::try_from(day.checked_sub(1)?).ok()?;
        NaiveDate::from_isoywd_opt(year, number, day)
    } else if after.len() == 3 || after.get(3..4).is_some_and(|next| next == "T") {
        NaiveDate::from_yo_opt(year, digits(&mut after, 3, 3)?)
    } else {
        let month = digits(&mut after, 2, 2)?;
        after = after.strip_prefix('-')?;
        NaiveDate::from_ymd_opt(year, month, digits(&mut after, 2, 2)?)
    };
    *rest = after;
    date
}

/// What follows a time, in seconds: nothing, an offset, the word for UTC, or an offset with the name of its zone.
fn iso_offset(rest: &str) -> Option<i64> {
    let rest = rest.trim_start();
    let (rest, name) = rest.split_once('[').unwrap_or((rest, "]"));
    let mut rest = rest.trim_end();
    let is_utc = ["", "UTC", "GMT", "utc", "gmt"].contains(&rest);
    let offset = if is_utc { 0 } else { read_offset(&mut rest)? };
    // The name of a zone alone is not an offset.
    let is_named = name.ends_with(']') && (name == "]" || !rest.is_empty() || !is_utc);
    (is_named && (is_utc || rest.is_empty())).then_some(offset)
}

/// A time of a day. The day may end with 24:00:00, and a minute with a leap second: both are the moment after.
fn local(
    date: NaiveDate,
    hour: u32,
    minute: u32,
    second: u32,
    nanos: u32,
) -> Option<DateTime<Utc>> {
    let is_end = hour == 24 && minute == 0 && second == 0 && nanos == 0;
    let is_leap = second == 60 && hour < 24;
    let time = match (is_end, is_leap) {
        (true, _) => NaiveTime::MIN,
        (_, true) => NaiveTime::from_hms_nano_opt(hour, minute, 59, nanos)?,
        _ => NaiveTime::from_hms_nano_opt(hour, minute, second, nanos)?,
    };
    let later = match (is_end, is_leap) {
        (true, _) => TimeDelta::days(1),
        (_, true) => TimeDelta::seconds(1),
        _ => TimeDelta::zero(),
    };
    NaiveDateTime::new(date, time)
        .and_utc()
        .checked_add_signed(later)
}

fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            parts.push(Part::Literal(c));
            continue;
        }
        let code = rest.next();
        match code {
            Some('Y') => parts.push(Part::Year),
            Some('m') => parts.push(Part::Month),
            Some('b') => parts.push(Part::MonthName),
            Some('d') => parts.push(Part::Day),
            Some('H') => parts.push(Part::Hour),
            Some('M') => parts.push(Part::Minute),
            Some('S') => parts.push(Part::Second),
            Some('f') => parts.push(Part::Fraction),
            Some('z') => parts.push(Part::Offset),
            Some('%') => parts.push(Part::Literal('%')),
            Some('_') if rest.as_str().starts_with("ms") => {
                rest.nth(1);
                parts.push(Part::Millis);
            }
            Some('T') => {
                use Part::{Hour, Literal, Minute, Second};
                parts.extend([Hour, Literal(':'), Minute, Literal(':'), Second]);
            }
            _ => return Err(format!("%{}", code.map_or(String::new(), String::from))),
        }
    }
    Ok(parts)
}

impl Part {
    fn write(self, at: DateTime<Utc>) -> String {
        match self {
            Part::Literal(c) => c.to_string(),
            Part::Year => format!("{:04}", at.year()),
            Part::Month => format!("{:02}", at.month()),
            Part::MonthName => MONTHS
                .get(at.month0() as usize)
                .copied()
                .unwrap_or_default()
                .to_owned(),
            Part::Day => format!("{:02}", at.day()),
            Part::Hour => format!("{:02}", at.hour()),
            Part::Minute => format!("{:02}", at.minute()),
            Part::Second => format!("{:02}", at.second()),
            Part::Fraction => format!("{:06}", at.timestamp_subsec_micros()),
            Part::Millis => format!("{:03}", at.timestamp_subsec_millis()),
            Part::Offset => "+0000".to_owned(),
        }
    }
}

fn read_parts(parts: &[Part], text: &str) -> Option<DateTime<Utc>> {
    let (mut year, mut month, mut day) = (1900, 1, 1);
    let (mut hour, mut minute, mut second, mut nanos) = (0, 0, 0, 0);
    let mut offset = 0;
    let mut rest = text;
    for part in parts {
        match part {
            Part::Literal(c) => rest = literal(*c, rest)?,
            Part::Year => year = i32::try_from(digits(&mut rest, 4, 4)?).ok()?,
            Part::Month => month = digits(&mut rest, 1, 2)?,
            Part::MonthName => {
                let (name, after) = rest.split_at_checked(3)?;
                month = MONTHS
                    .iter()
                    .zip(1..)
                    .find(|(known, _)| known.eq_ignore_ascii_case(name))?
                    .1;
                rest = after;
            }
            Part::Day => day = digits(&mut rest, 1, 2)?,
            Part::Hour => hour = digits(&mut rest, 1, 2)?,
            Part::Minute => minute = digits(&mut rest, 1, 2)?,
            Part::Second => second = digits(&mut rest, 1, 2)?,
            Part::Fraction | Part::Millis => {
                rest.starts_with(|c: char| c.is_ascii_digit())
                    .then_some(())?;
                (nanos, rest) = fraction_digits(rest);
            }
            Part::Offset => offset = read_offset(&mut rest)?,
        }
    }
    let date = NaiveDate::from_ymd_opt(year, month, day)?;
    let local = local(date, hour, minute, second, nanos)?;
    rest.is_empty()
        .then(|| local.checked_sub_signed(TimeDelta::seconds(offset)))?
}

/// Takes a character off the front; `T` and `Z` have no case, and a fraction may begin with a comma.
fn literal(c: char, rest: &str) -> Option<&str> {
    let other = match c {
        'T' => 't',
        'Z' => 'z',
        '.' => ',',
        _ => c,
    };
    rest.strip_prefix([c, other])
}

/// Takes between `least` and `most` digits off the front.
fn digits(rest: &mut &str, least: usize, most: usize) -> Option<u32> {
    let count = rest
        .bytes()
        .take(most)
        .take_while(u8::is_ascii_digit)
        .count();
    let (number, after) = rest.split_at_checked(count).filter(|_| count >= least)?;
    *rest = after;
    number.parse().ok()
}

/// Nanoseconds from the digits at the front, and what follows them.
fn fraction_digits(text: &str) -> (u32, &str) {
    let count = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(count);
    (format!("{number:0<9.9}").parse().unwrap_or(0), rest)
}

/// `Z`, `+0200`, `+02:00` or `+02`, in seconds.
fn read_offset(rest: &mut &str) -> Option<i64> {
    if let Some(after) = rest.strip_prefix(['Z', 'z']) {
        *rest = after;
        return Some(0);
    }
    let sign = if rest.starts_with('-') { -1 } else { 1 };
    *rest = rest.strip_prefix(['+', '-'])?;
    let hours = digits(rest, 2, 2)?;
    let minutes = match rest.strip_prefix(':') {
        Some(after) => {
            *rest = after;
            digits(rest, 2, 2)?
        }
        None => digits(rest, 2, 2).unwrap_or(0),
    };
    // No place is further from UTC, and what says so is no time.
    if hours > 23 || minutes > 59 {
        return None;
    }
    Some(sign * i64::from(hours * 3_600 + minutes * 60))
}

/// An ISO 8601 duration such as `P30D`, `PT1H30M`, `P2W` or `P1M`. Months and years move the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    months: u32,
    seconds: i64,
}

/// Longest span that is taken, so that no arithmetic on dates can overflow: a thousand years.
const LONGEST_SPAN: i64 = 1_000 * 366 * 86_400;

impl Span {
    pub fn new(text: &str) -> Option<Span> {
        let mut span = Span::default();
        let mut in_time = false;
        let mut rest = text.strip_prefix('P').filter(|rest| !rest.is_empty())?;
        while !rest.is_empty() {
            if let Some(after) = rest
                .strip_prefix('T')
                .filter(|after| !in_time && !after.is_empty())
            {
                (in_time, rest) = (true, after);
            }
            let count = i64::from(digits(&mut rest, 1, 9)?);
            let unit = rest.chars().next()?;
            rest = rest.strip_prefix(unit)?;
            let (months, seconds) = match (unit, in_time) {
                ('Y', false) => (count.checked_mul(12)?, 0),
                ('M', false) => (count, 0),
                ('W', false) => (0, count * 7 * 86_400),
                ('D', false) => (0, count * 86_400),
                ('H', true) => (0, count * 3_600),
                ('M', true) => (0, count * 60),
                ('S', true) => (0, count),
                _ => return None,
            };
            span.months = span.months.checked_add(u32::try_from(months).ok()?)?;
            span.seconds = span.seconds.checked_add(seconds)?;
        }
        (span.seconds <= LONGEST_SPAN && span.months <= 12_000).then_some(span)
    }

    pub const fn minutes(minutes: i64) -> Span {
        Span {
            months: 0,
            seconds: minutes * 60,
        }
    }

    pub fn before(self, at: DateTime<Utc>) -> DateTime<Utc> {
        at.checked_sub_months(chrono::Months::new(self.months))
            .and_then(|at| at.checked_sub_signed(TimeDelta::try_seconds(self.seconds)?))
            .unwrap_or(DateTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{any as read_any, *};
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn formats_read_and_write_what_vendors_send() {
        for (format, text, moment) in [
            ("%Y-%m-%d", "2026-02-28", "2026-02-28T00:00:00Z"),
            (
                "%Y-%m-%dT%H:%M:%SZ",
                "2026-02-28T01:02:03Z",
                "2026-02-28T01:02:03Z",
            ),
            (
                "%Y-%m-%dT%H:%M:%S.%fZ",
                "2026-02-28T01:02:03.000450Z",
                "2026-02-28T01:02:03.00045Z",
            ),
            (
                "%Y-%m-%dT%H:%M:%S.%_msZ",
                "2026-02-28T01:02:03.450Z",
                "2026-02-28T01:02:03.45Z",
            ),
            (
                "%Y-%m-%dT%H:%M:%S%z",
                "2026-02-28T01:02:03+0000",
                "2026-02-28T01:02:03Z",
            ),
            ("%d %b %Y", "28 Feb 2026", "2026-02-28T00:00:00Z"),
            ("%s", "1772240523", "2026-02-28T01:02:03Z"),
            ("%ms", "1772240523450", "2026-02-28T01:02:03.45Z"),
            (
                "%epoch_microseconds",
                "1772240523450000",
                "2026-02-28T01:02:03.45Z",
            ),
            (
                "%s_as_float",
                "1772240523.450000",
                "2026-02-28T01:02:03.45Z",
            ),
        ] {
            let parsed = Format::new(format).unwrap();
            assert_eq!(parsed.read(text), Some(at(moment)), "{format}");
            assert_eq!(parsed.write(at(moment)), text, "{format}");
        }
    }

    #[test]
    fn offsets_are_read_in_every_spelling() {
        let format = Format::new("%Y-%m-%dT%H:%M:%S%z").unwrap();
        for offset in ["+0200", "+02:00", "+02"] {
            assert_eq!(
                format.read(&format!("2026-01-01T02:00:00{offset}")),
                Some(at("2026-01-01T00:00:00Z"))
            );
        }
        assert_eq!(
            format.read("2026-01-01T00:00:00Z"),
            Some(at("2026-01-01T00:00:00Z"))
        );
        assert_eq!(
            format.read("2025-12-31T22:30:00-01:30"),
            Some(at("2026-01-01T00:00:00Z"))
        );
    }

    #[test]
    fn a_time_before_1970_keeps_its_fraction() {
        let format = Format::new("%s_as_float").unwrap();
        for (text, moment) in [
            ("-1.500000", "1969-12-31T23:59:58.5Z"),
            ("-0.250000", "1969-12-31T23:59:59.75Z"),
            ("0.000000", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(format.read(text), Some(at(moment)), "{text}");
            assert_eq!(format.write(at(moment)), text);
        }
    }

    #[test]
    fn an_offset_that_no_clock_has_is_refused() {
        let format = Format::new("%Y-%m-%dT%H:%M:%S%z").unwrap();
        for offset in ["+24:00", "-99:99", "+05:60", "+0560", "+05:", "+05:3"] {
            let text = format!("2026-01-01T00:00:00{offset}");
            assert_eq!(format.read(&text), None, "{text}");
        }
    }

    #[test]
    fn a_date_that_does_not_match_its_format_is_refused() {
        let format = Format::new("%Y-%m-%d").unwrap();
        for text in [
            "",
            "2026",
            "2026-13-01",
            "2026-02-30",
            "2026-02-28T",
            "x2026-02-28",
            "20260228",
        ] {
            assert_eq!(format.read(text), None, "{text}");
        }
        assert_eq!(Format::new("%Q"), Err("%Q".to_owned()));
        assert_eq!(Format::new("%"), Err("%".to_owned()));
    }

    #[test]
    fn spans_move_back_in_time() {
        for (span, moment) in [
            ("P1D", "2026-03-30T12:00:00Z"),
            ("PT1H30M", "2026-03-31T10:30:00Z"),
            ("P1M", "2026-02-28T12:00:00Z"),
            ("P1Y2M", "2025-01-31T12:00:00Z"),
            ("P2W", "2026-03-17T12:00:00Z"),
            ("PT0S", "2026-03-31T12:00:00Z"),
        ] {
            assert_eq!(
                Span::new(span).unwrap().before(at("2026-03-31T12:00:00Z")),
                at(moment),
                "{span}"
            );
        }
        for nonsense in [
            "",
            "P",
            "PT",
            "1D",
            "P1H",
            "PT1D",
            "P-1D",
            "P1D ",
            "P99999999999D",
            "PTT1S",
        ] {
            assert_eq!(Span::new(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_moment_is_read_in_every_usual_spelling() {
        let moment = "2026-02-28T01:02:03Z";
        for (text, expected) in [
            ("2026-02-28T01:02:03Z", moment),
            ("2026-02-28t01:02:03z", moment),
            ("2026-02-28 01:02:03", moment),
            ("2026-02-28  01:02:03", moment),
            (" 2026-02-28T01:02:03Z ", moment),
            ("20260228T010203Z", moment),
            ("2026-W09-6T01:02:03Z", moment),
            ("2026-059T01:02:03Z", moment),
            ("2026-02-28T02:02:03+0100", moment),
            ("2026-02-28T02:02:03+01:00", moment),
            ("2026-02-28T02:02:03+01", moment),
            ("2026-02-28 02:02:03 +0100", moment),
            ("2026-02-28 01:02:03 UTC", moment),
            ("2026-02-28T02:02:03+01:00[Europe/Berlin]", moment),
            ("2026-02-28T01:02:03Z[UTC]", moment),
            ("Sat, 28 Feb 2026 01:02:03 GMT", moment),
            ("Sat, 28 Feb 2026 02:02:03 +0100", moment),
            ("28 Feb 2026 01:02:03 +0000", moment),
            ("Saturday, 28-Feb-26 01:02:03 GMT", moment),
            ("Sat Feb 28 01:02:03 2026", moment),
            ("2026-02-28T01:02Z", "2026-02-28T01:02:00Z"),
            ("2026-02-28T01:02", "2026-02-28T01:02:00Z"),
            ("2026-02-28", "2026-02-28T00:00:00Z"),
            ("2026-W09-6", "2026-02-28T00:00:00Z"),
            ("2026-059", "2026-02-28T00:00:00Z"),
            ("2026-02-28T24:00:00Z", "2026-03-01T00:00:00Z"),
            ("2026-12-31T23:59:60Z", "2027-01-01T00:00:00Z"),
            ("Thu, 31 Dec 2026 23:59:60 +0000", "2027-01-01T00:00:00Z"),
            ("2026-02-28T01:02:03.5Z", "2026-02-28T01:02:03.5Z"),
            ("2026-02-28T01:02:03,5Z", "2026-02-28T01:02:03.5Z"),
            (
                "2026-02-28T01:02:03.123456789Z",
                "2026-02-28T01:02:03.123456789Z",
            ),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(read_any(text), Some(at(expected)), "{text}");
        }
        for nonsense in [
            "",
            "2026",
            "2026-02",
            "20260228",
            "1772240523",
            "2026-02-30",
            "2026-13-01",
            "0000-00-00",
            "0000-00-00 00:00:00",
            "infinity",
            "-infinity",
            "2026-02-28T",
            "2026-02-28T1:02:03",
            "2026-02-28T25:00:00Z",
            "2026-02-28T24:00:01Z",
            "2026-02-28T01:60:00Z",
            "2026-02-28T01:02:61Z",
            "2026-02-28T01:02:03.Z",
            "2026-02-28T01:02:03+99:99",
            "2026-02-28T01:02:03 Berlin",
            "2026-02-28T01:02:03[Europe/Berlin]",
            "2026-W54-1",
            "2026-W09-8",
            "2026-366",
            "01/02/2026",
            "28.02.2026",
            "+262143-12-31T24:00:00Z",
        ] {
            assert_eq!(read_any(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_format_takes_the_end_of_a_day_a_leap_second_and_either_case() {
        let format = Format::new("%Y-%m-%dT%H:%M:%S.%fZ").unwrap();
        for (text, moment) in [
            ("2026-02-28T24:00:00.0Z", "2026-03-01T00:00:00Z"),
            ("2026-12-31T23:59:60.5Z", "2027-01-01T00:00:00.5Z"),
            ("2026-02-28t01:02:03,25z", "2026-02-28T01:02:03.25Z"),
        ] {
            assert_eq!(format.read(text), Some(at(moment)), "{text}");
        }
        assert_eq!(
            format.read("9999-12-31T24:00:00.0Z").map(|at| at.year()),
            Some(10_000)
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(format in "\\PC{0,12}", text in "\\PC{0,30}", dateish in "[0-9TZ:+. -]{0,30}") {
            for format in [format.as_str(), "%Y-%m-%dT%H:%M:%S.%f%z", "%s", "%ms", "%s_as_float"] {
                if let Ok(format) = Format::new(format) {
                    let _ = format.read(&text);
                    let _ = format.read(&dateish).map(|at| format.write(at));
                }
            }
            let _ = (read_any(&text), read_any(&dateish));
            let _ = Span::new(&text).map(|span| span.before(DateTime::UNIX_EPOCH));
        }

        #[test]
        fn a_written_date_is_read_back_unchanged(seconds in 0_i64..4_000_000_000) {
            let moment = DateTime::from_timestamp(seconds, 0).unwrap();
            for format in ["%Y-%m-%dT%H:%M:%S%z", "%s", "%ms", "%d %b %Y %T"] {
                let format = Format::new(format).unwrap();
                prop_assert_eq!(format.read(&format.write(moment)), Some(moment));
            }
        }
    }
}
