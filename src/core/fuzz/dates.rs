//! Dates, against chrono as a stranger that reads and writes them in its own way.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, TimeDelta, Utc};

use super::{Random, damaged, each};
use crate::datetime::{Format, Span};
use crate::mapping::{When, amount, seconds_between, when};
use crate::template::parse_any;

/// A moment of the years that have four digits.
fn moment(random: &mut Random) -> DateTime<Utc> {
    let first = "0001-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap();
    let last = "9999-12-31T23:59:59Z".parse::<DateTime<Utc>>().unwrap();
    let seconds = match random.below(6) {
        0 => first.timestamp() + random.few(100_000) as i64,
        1 => last.timestamp() - random.few(100_000) as i64,
        2 => random.few(200_000) as i64 - 100_000,
        _ => {
            let span = (last.timestamp() - first.timestamp()) as usize;
            first.timestamp() + random.below(span) as i64
        }
    };
    let any = random.below(1_000_000) as u32;
    let micros = random.pick(&[0, 0, 1, 500_000, 999_999, any]);
    DateTime::from_timestamp(seconds, micros * 1_000).unwrap()
}

/// Our codes, and chrono's for the same; whether they hold the whole moment.
const CODES: &[(&str, &str)] = &[
    ("%Y", "%Y"),
    ("%m", "%m"),
    ("%d", "%d"),
    ("%b", "%b"),
    ("%H", "%H"),
    ("%M", "%M"),
    ("%S", "%S"),
    ("%f", "%6f"),
    ("%T", "%T"),
    ("%z", "%z"),
    ("%%", "%%"),
    ("-", "-"),
    (" ", " "),
    ("T", "T"),
    (":", ":"),
    ("/", "/"),
    (".", "."),
    ("é", "é"),
];

#[test]
fn dates_are_written_as_chrono_writes_them_and_read_back() {
    each("dates", |random| {
        let at = moment(random);
        let codes: Vec<_> = (0..random.between(1, 9))
            .map(|_| random.pick(CODES))
            .collect();
        let ours: String = codes.iter().map(|(ours, _)| *ours).collect();
        let theirs: String = codes.iter().map(|(_, theirs)| *theirs).collect();
        let format = Format::new(&ours).unwrap();
        let text = format.write(at);
        assert_eq!(text, at.format(&theirs).to_string(), "{ours}");
        // Written once more it is the same, whatever of the moment it holds.
        if let Some(read) = format.read(&text) {
            assert_eq!(format.write(read), text, "{ours}");
        }
        for whole in [
            "%Y-%m-%dT%H:%M:%S.%f%z",
            "%d %b %Y %T.%f",
            "%epoch_microseconds",
            "%s_as_float",
        ] {
            let format = Format::new(whole).unwrap();
            let text = format.write(at);
            assert_eq!(format.read(&text), Some(at), "{whole}: {text}");
        }
        let as_float: f64 = Format::new("%s_as_float")
            .unwrap()
            .write(at)
            .parse()
            .unwrap();
        let exact = at.timestamp_micros() as f64 / 1e6;
        assert!((as_float - exact).abs() < 1e-3, "{as_float} is {exact}");
    });
}

/// A time with an offset, as it should be or not quite.
fn told(random: &mut Random) -> String {
    let at = moment(random);
    let offset = random.pick(&[
        "Z", "z", "+00:00", "-00:00", "+0530", "-08", "+14:00", "-12:00", "+23:59", "+24:00",
        "-99:99", "+05:60", "",
    ]);
    let mark = random.pick(&["T", "T", " ", "t"]);
    let time = random.pick(&[
        "%H:%M:%S",
        "%H:%M:%S",
        "%H:%M:%S%.3f",
        "%H:%M:%S%.6f",
        "%H:%M:%S%.9f",
        "%H:%M",
    ]);
    let text = format!("{}{mark}{}{offset}", at.format("%Y-%m-%d"), at.format(time));
    match random.percent(40) {
        true => {
            let damaged = damaged(random, text.as_bytes(), b"24:00:60 99 -0 Jan");
            String::from_utf8_lossy(&damaged).into_owned()
        }
        false => text,
    }
}

#[test]
fn every_text_is_the_same_moment_as_in_chrono() {
    each("told dates", |random| {
        let text = told(random);
        // What both of them take for a time is the same time.
        let theirs = DateTime::parse_from_rfc3339(&text).map(|at| at.to_utc());
        let theirs = theirs
            .ok()
            .filter(|at| at.timestamp_subsec_nanos() < 1_000_000_000);
        if let Some(ours) = parse_any(&text) {
            assert!((-1..=10_000).contains(&ours.year()), "{text}");
            if let Some(theirs) = theirs {
                assert_eq!(ours.timestamp_micros(), theirs.timestamp_micros(), "{text}");
            }
            // An offset that chrono does not know is none.
            let text = text.trim();
            if let Some(offset) = text
                .get(19..)
                .and_then(|rest| rest.find(['+', '-']).map(|at| &rest[at..]))
            {
                let offset: Result<FixedOffset, _> = offset.parse();
                let is_short = text.len() >= 3 && text[text.len() - 3..].starts_with(['+', '-']);
                assert!(offset.is_ok() || is_short, "{text}");
            }
        }
        match when(&text) {
            Some(When::Moment(ours)) => {
                assert!((1..=9_999).contains(&ours.year()), "{text}: {ours}");
                if let Some(theirs) = theirs {
                    assert_eq!(ours.timestamp(), theirs.timestamp(), "{text}");
                }
            }
            Some(When::Day(ours)) => {
                assert!((1..=9_999).contains(&ours.year()), "{text}: {ours}");
                let trimmed = text.trim();
                let first = trimmed.get(..10).unwrap_or(trimmed).replace('/', "-");
                let theirs = NaiveDate::parse_from_str(&first, "%Y-%m-%d");
                let theirs = theirs.or_else(|_| NaiveDate::parse_from_str(trimmed, "%Y%m%d"));
                assert_eq!(Ok(ours), theirs, "{text}");
            }
            None => {
                // What has seconds and an offset in every standard is read.
                let is_plain = theirs.is_some_and(|at| (1..=9_999).contains(&at.year()));
                assert!(!is_plain, "{text} is not read");
            }
        }
        let other = told(random);
        let between = seconds_between(&text, &other);
        let back = seconds_between(&other, &text);
        assert_eq!(between, back.map(|seconds| -seconds), "{text} {other}");
    });
}

#[test]
fn the_length_of_a_unix_time_decides_its_unit() {
    each("counts of time", |random| {
        let number = random.edge() as i64;
        let text = number.to_string();
        for (format, parts) in [
            ("%s", 1),
            ("%ms", 1_000),
            ("%epoch_microseconds", 1_000_000),
        ] {
            let format = Format::new(format).unwrap();
            let expected = number.checked_mul(1_000_000 / parts);
            let expected = expected.and_then(DateTime::from_timestamp_micros);
            assert_eq!(format.read(&text), expected, "{text}");
            if let Some(at) = expected {
                assert_eq!(format.write(at), text);
            }
        }
        if let Some(When::Moment(at)) = when(&text) {
            let by = match text.len() {
                9..=11 => DateTime::from_timestamp(number, 0),
                12..=14 => DateTime::from_timestamp_millis(number),
                15..=17 => DateTime::from_timestamp_micros(number),
                _ => Some(DateTime::from_timestamp_nanos(number)),
            };
            assert_eq!(Some(at), by, "{text}");
        }
        let text = damaged(random, text.as_bytes(), b"e+-.,()0009");
        let text = String::from_utf8_lossy(&text).into_owned();
        if let Some(amount) = amount(&text) {
            assert!(amount.len() <= 100);
            let number: f64 = amount.parse().unwrap();
            assert!(number.is_finite() || amount.contains(['e', 'E']), "{text}");
        }
        let _ = when(&text);
        let _ = Format::new("%s_as_float").unwrap().read(&text);
    });
}

#[test]
fn a_span_is_subtracted_as_chrono_subtracts_it() {
    each("spans", |random| {
        let number = |random: &mut Random| match random.percent(80) {
            true => random.few(2_000) as u64,
            false => random.edge(),
        };
        let mut text = "P".to_owned();
        let (mut months, mut seconds) = (0_i128, 0_i128);
        let mut add = |random: &mut Random, unit: char, month: i128, second: i128| {
            let number = number(random);
            months += i128::from(number) * month;
            seconds += i128::from(number) * second;
            text.push_str(&format!("{number}{unit}"));
        };
        for (unit, month, second) in [
            ('Y', 12, 0),
            ('M', 1, 0),
            ('W', 0, 604_800),
            ('D', 0, 86_400),
        ] {
            if random.percent(30) {
                add(random, unit, month, second);
            }
        }
        if random.percent(50) {
            text.push('T');
            for (unit, size) in [('H', 3_600), ('M', 60), ('S', 1)] {
                if random.percent(60) {
                    let number = number(random);
                    seconds += i128::from(number) * size;
                    text.push_str(&format!("{number}{unit}"));
                }
            }
        }
        let at = moment(random);
        if let Some(span) = Span::new(&text) {
            let expected = u32::try_from(months).ok().and_then(|months| {
                let at = at.checked_sub_months(chrono::Months::new(months))?;
                at.checked_sub_signed(TimeDelta::try_seconds(i64::try_from(seconds).ok()?)?)
            });
            assert_eq!(
                span.before(at),
                expected.unwrap_or(DateTime::UNIX_EPOCH),
                "{text}"
            );
        }
        let text = damaged(random, text.as_bytes(), b"PT1H2M3S99999999999Y");
        let _ = Span::new(&String::from_utf8_lossy(&text)).map(|span| span.before(at));
        let format = random.text(12);
        let format = format.replace('$', "%");
        if let Ok(format) = Format::new(&format) {
            let text = format.write(at);
            let _ = format.read(&text);
            let _ = format.read(&random.text(20));
        }
    });
}
