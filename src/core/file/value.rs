//! Writes one cell as JSON: as text, or as the declared type of its column. Nothing is guessed.

use std::io::Write;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};

use super::row::Kind;
use crate::money::{Dressed, undress};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Text,
    Number(Marks),
    Date(DateFormat),
    /// Date and time, without a zone.
    Timestamp(DateFormat),
    Truth,
}

/// The separators of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    pub decimal: char,
    /// The separator between groups of digits.
    pub thousands: Option<char>,
}

/// A format in the words of PostgreSQL's `to_date`: `DD.MM.YYYY HH24:MI`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateFormat {
    pub declared: String,
    /// The same format in the words of chrono.
    strftime: String,
    has_time: bool,
    /// How long a text is where two numbers stand side by side: `1112026` may be two days of `DDMMYYYY`.
    length: Option<usize>,
}

/// The codes of a format and their meaning, the longest first.
const TOKENS: &[(&str, &str)] = &[
    ("MONTH", "%B"),
    ("HH24", "%H"),
    ("HH12", "%I"),
    ("YYYY", "%Y"),
    ("MON", "%b"),
    ("DD", "%d"),
    ("MM", "%m"),
    ("YY", "%y"),
    ("HH", "%I"),
    ("MI", "%M"),
    ("SS", "%S"),
    ("AM", "%p"),
    ("PM", "%p"),
];

impl DateFormat {
    /// `None`: no such format, or one without a day.
    pub fn new(declared: &str) -> Option<DateFormat> {
        let mut strftime = String::new();
        let (mut length, mut was_number, mut is_fixed) = (Some(0), false, false);
        let mut rest = declared;
        while let Some(next) = rest.chars().next() {
            let token = TOKENS.iter().find(|(word, _)| {
                rest.get(..word.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(word))
            });
            if let Some((word, meaning)) = token {
                strftime.push_str(meaning);
                let is_number = !matches!(*meaning, "%B" | "%b" | "%p");
                is_fixed |= is_number && was_number;
                was_number = is_number;
                let characters = match *meaning {
                    "%Y" => Some(4),
                    "%b" => Some(3),
                    "%B" => None,
                    _ => Some(2),
                };
                length = length.zip(characters).map(|(length, more)| length + more);
                rest = rest.get(word.len()..)?;
                continue;
            }
            // "T" between date and time is the only letter that stands for itself.
            if next.is_alphanumeric() && next != 'T' || next == '%' {
                return None;
            }
            strftime.push(next);
            was_number = false;
            length = length.map(|length| length + 1);
            rest = rest.get(next.len_utf8()..)?;
        }
        let has = |any: &[&str]| any.iter().any(|token| strftime.contains(token));
        let has_day = has(&["%d"]) && has(&["%m", "%b", "%B"]) && has(&["%Y", "%y"]);
        let has_hour = has(&["%H"]) || has(&["%I"]) && has(&["%p"]);
        let has_time = has(&["%H", "%I", "%M", "%S", "%p"]);
        (has_day && (has_hour || !has_time)).then(|| DateFormat {
            declared: declared.to_owned(),
            has_time,
            strftime,
            length: length.filter(|_| is_fixed),
        })
    }

    fn read(&self, text: &str) -> Option<NaiveDateTime> {
        if self
            .length
            .is_some_and(|length| text.chars().count() != length)
        {
            return None;
        }
        let read = match self.has_time {
            true => NaiveDateTime::parse_from_str(text, &self.strftime).ok()?,
            false => NaiveDate::parse_from_str(text, &self.strftime)
                .ok()?
                .and_time(NaiveTime::MIN),
        };
        // A year of two digits where four are declared is another date.
        let year = chrono::Datelike::year(&read);
        (1000..10_000).contains(&year).then_some(read)
    }
}

/// Writes a cell as JSON. False: it does not have the declared type of its column.
pub fn write(kind: Kind, text: &str, declared: Option<&Type>, out: &mut Vec<u8>) -> bool {
    match (declared, kind) {
        (None | Some(Type::Text), Kind::Empty) => out.extend_from_slice(b"null"),
        (None, Kind::Number | Kind::Truth) => out.extend_from_slice(text.as_bytes()),
        (None | Some(Type::Text), _) => write_text(text, out),
        (Some(_), _) if text.trim().is_empty() => out.extend_from_slice(b"null"),
        (Some(Type::Number(_)), Kind::Number) => out.extend_from_slice(text.as_bytes()),
        (Some(Type::Number(marks)), Kind::Text) => match number(text, *marks) {
            Some(number) => out.extend_from_slice(number.as_bytes()),
            None => return false,
        },
        (Some(Type::Date(_)), Kind::Date) => match day(text) {
            Some((date, _)) => write_text(date, out),
            None => return false,
        },
        (Some(Type::Timestamp(_)), Kind::Date) => match day(text) {
            Some((date, "")) => write_text(&format!("{date}T00:00:00"), out),
            Some(_) => write_text(text, out),
            None => return false,
        },
        (Some(Type::Date(format)), Kind::Text) => match format.read(text.trim()) {
            Some(read) => write_text(&read.date().to_string(), out),
            None => return false,
        },
        (Some(Type::Timestamp(format)), Kind::Text) => match format.read(text.trim()) {
            Some(read) => write_text(&read.format("%Y-%m-%dT%H:%M:%S").to_string(), out),
            None => return false,
        },
        (Some(Type::Truth), Kind::Truth) => out.extend_from_slice(text.as_bytes()),
        (Some(Type::Truth), Kind::Text | Kind::Number) => {
            let is = |words: &[&str]| {
                let text = text.trim();
                words.iter().any(|word| word.eq_ignore_ascii_case(text))
            };
            if is(&["true", "t", "yes", "y", "on", "1", "x"]) {
                out.extend_from_slice(b"true");
            } else if is(&["false", "f", "no", "n", "off", "0"]) {
                out.extend_from_slice(b"false");
            } else {
                return false;
            }
        }
        (Some(_), _) => return false,
    }
    true
}

/// The day of a date as a workbook gives it, and what stands behind it. A time alone has none, and what an ODS calls a
/// date may be any text.
fn day(text: &str) -> Option<(&str, &str)> {
    let (date, rest) = text.split_at_checked(10)?;
    NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let is_time = |time: &str| NaiveTime::parse_from_str(time, "%H:%M:%S%.f").is_ok();
    (rest.is_empty() || rest.strip_prefix('T').is_some_and(is_time)).then_some((date, rest))
}

pub fn write_text(text: &str, out: &mut Vec<u8>) {
    // Into memory: cannot fail.
    let _ = serde_json::to_writer(&mut *out, text);
}

/// A list of texts, for what cannot be stored as a record.
pub fn write_list<'a>(texts: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (position, text) in texts.enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_text(text, out);
    }
    let _ = out.write_all(b"]");
}

/// Most digits of a number. More: PostgreSQL's numeric refuses it.
const MOST_DIGITS: usize = 1_000;

/// Longest text of a number: its digits with a mark, of up to three bytes, between any two of them, and what may stand
/// around them. A longer one is not taken apart, for that takes many times its size.
const LONGEST_NUMBER: usize = 4 * MOST_DIGITS + 100;

/// A number as it is written somewhere, as JSON writes it, and exactly: `(1.234,56 €)` is `-1234.56`.
pub fn number(text: &str, marks: Marks) -> Option<String> {
    let text = text.trim();
    if text.len() > LONGEST_NUMBER {
        return None;
    }
    let Dressed {
        digits: text,
        is_negative: negative,
        is_percent: percent,
        ..
    } = undress(text)?;
    if text.is_empty() {
        return Some("0".to_owned());
    }
    let (whole, fraction) = match text.split_once(marks.decimal) {
        Some((whole, fraction)) => (whole, fraction),
        None => (text, ""),
    };
    let whole = ungrouped(whole, marks)?;
    let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !are_digits(fraction) || whole.len() + fraction.len() > MOST_DIGITS {
        return None;
    }
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (mut whole, mut fraction) = (whole, fraction.to_owned());
    if percent {
        whole = format!("{whole:0>3}");
        let cut = whole.len() - 2;
        fraction = format!("{}{fraction}", whole.get(cut..)?);
        whole.truncate(cut);
    }
    let digits = whole.trim_start_matches('0');
    let mut number = String::with_capacity(whole.len() + fraction.len() + 3);
    let is_zero = digits.is_empty() && fraction.bytes().all(|b| b == b'0');
    if negative && !is_zero {
        number.push('-');
    }
    number.push_str(if digits.is_empty() { "0" } else { digits });
    if !fraction.is_empty() {
        number.push('.');
        number.push_str(&fraction);
    }
    Some(number)
}

/// Digits without the marks between groups: the last group has three, those before it two or three, the first up to
/// three.
fn ungrouped(whole: &str, marks: Marks) -> Option<String> {
    let is_mark = |c: char| match marks.thousands {
        // Every kind of space, and of apostrophe, is one mark.
        Some(' ') => matches!(c, ' ' | '\u{A0}' | '\u{2009}' | '\u{202F}'),
        Some('\'') => matches!(c, '\'' | '\u{2019}'),
        mark => Some(c) == mark,
    };
    let groups: Vec<&str> = whole.split(is_mark).collect();
    let are_digits = groups
        .iter()
        .all(|group| group.bytes().all(|b| b.is_ascii_digit()));
    let are_grouped = match groups.as_slice() {
        [_] => true,
        [first, between @ .., last] => {
            (1..=3).contains(&first.len())
                && last.len() == 3
                && between.iter().all(|group| (2..=3).contains(&group.len()))
        }
        [] => false,
    };
    (are_digits && are_grouped).then(|| groups.concat())
}

/// A double as the shortest text that means it.
pub fn of_double(number: f64) -> Option<String> {
    // An integer is written without a point; -0 is 0.
    number.is_finite().then(|| (number + 0.0).to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    const US: Marks = Marks {
        decimal: '.',
        thousands: Some(','),
    };
    const EUROPE: Marks = Marks {
        decimal: ',',
        thousands: Some('.'),
    };
    const FRANCE: Marks = Marks {
        decimal: ',',
        thousands: Some(' '),
    };
    const SWISS: Marks = Marks {
        decimal: '.',
        thousands: Some('\''),
    };
    const PLAIN: Marks = Marks {
        decimal: '.',
        thousands: None,
    };

    #[test]
    fn a_number_is_read_as_it_is_declared_to_be_written() {
        let read = [
            ("1,234.56", US, "1234.56"),
            ("$1,234.56-", US, "-1234.56"),
            ("(1,234.56)", US, "-1234.56"),
            ("-$5", US, "-5"),
            ("12,34,567.89", US, "1234567.89"),
            ("1.234,56", EUROPE, "1234.56"),
            ("1.234,56 €", EUROPE, "1234.56"),
            ("-0,50", EUROPE, "-0.50"),
            ("1 234,56", FRANCE, "1234.56"),
            ("1\u{202F}234\u{A0}567,8", FRANCE, "1234567.8"),
            ("1'234.56", SWISS, "1234.56"),
            ("1’234.56", SWISS, "1234.56"),
            ("007", PLAIN, "7"),
            (".5", PLAIN, "0.5"),
            ("5.", PLAIN, "5"),
            ("$(12.50)", PLAIN, "-12.50"),
            ("$ -", PLAIN, "0"),
            ("EUR 5,00", EUROPE, "5.00"),
            ("R$ 1.234,50", EUROPE, "1234.50"),
            ("5 kr", PLAIN, "5"),
            ("1 234,50 kr.", FRANCE, "1234.50"),
            ("CHF 1'234.50", SWISS, "1234.50"),
            ("12.50 CR", PLAIN, "-12.50"),
            ("1,234", US, "1234"),
            ("$5.00 USD", PLAIN, "5.00"),
            ("5,- €", EUROPE, "5"),
            ("12.5%", PLAIN, "0.125"),
            ("100 %", PLAIN, "1.00"),
            ("-0", PLAIN, "0"),
            ("\u{2212}3", PLAIN, "-3"),
            (
                "123456789012345678901234567890.123456789",
                PLAIN,
                "123456789012345678901234567890.123456789",
            ),
        ];
        for (text, marks, number_of_it) in read {
            assert_eq!(number(text, marks).as_deref(), Some(number_of_it), "{text}");
        }
    }

    #[test]
    fn a_number_in_another_format_is_refused() {
        let refused = [
            ("1,234.56", EUROPE),
            ("1.234,56", US),
            ("1.5", EUROPE),
            ("1,23", US),
            ("1,2345", US),
            ("1234,567,89", US),
            ("1,234", PLAIN),
            ("1 234", PLAIN),
            ("1e5", PLAIN),
            ("1.23457E+12", PLAIN),
            ("NaN", PLAIN),
            ("--5", PLAIN),
            ("-(5)", PLAIN),
            ("$5€", PLAIN),
            ("%5", PLAIN),
            ("(5", PLAIN),
            (".", PLAIN),
            ("", PLAIN),
            ("-", PLAIN),
            ("1.2.3", PLAIN),
            ("٣", PLAIN),
            ("5 kg", PLAIN),
            ("EUR 5,00", PLAIN),
            ("$1,234", PLAIN),
        ];
        for (text, marks) in refused {
            assert_eq!(number(text, marks), None, "{text}");
        }
    }

    #[test]
    fn a_date_is_read_as_it_is_declared_to_be_written() {
        let read = |format: &str, text: &str| {
            let read = DateFormat::new(format).unwrap().read(text);
            read.map(|read| read.to_string())
        };
        assert_eq!(
            read("DD/MM/YYYY", "03/04/2026").unwrap(),
            "2026-04-03 00:00:00"
        );
        assert_eq!(
            read("MM/DD/YYYY", "03/04/2026").unwrap(),
            "2026-03-04 00:00:00"
        );
        assert_eq!(read("DD.MM.YY", "3.4.26").unwrap(), "2026-04-03 00:00:00");
        assert_eq!(
            read("DD Mon YYYY", "3 Apr 2026").unwrap(),
            "2026-04-03 00:00:00"
        );
        let moment = read("YYYY-MM-DD HH24:MI:SS", "2026-04-03 17:05:09");
        assert_eq!(moment.unwrap(), "2026-04-03 17:05:09");
        assert_eq!(
            read("MM/DD/YYYY HH12:MI AM", "04/03/2026 05:05 PM").unwrap(),
            "2026-04-03 17:05:00"
        );
        assert_eq!(
            read("YYYYMMDDHH24MI", "202610132230").unwrap(),
            "2026-10-13 22:30:00"
        );
        assert_eq!(read("DDMMYYYY", "13102026").unwrap(), "2026-10-13 00:00:00");
        assert_eq!(read("YYMMDD", "261013").unwrap(), "2026-10-13 00:00:00");
        for (format, text) in [
            ("DDMMYYYY", "1112026"),
            ("YYYYMMDD", "2026111"),
            ("YYYYMMDD", "202610132230"),
            ("YYMMDD", "20261013"),
            ("YYYYMMDD", "13102026"),
        ] {
            assert_eq!(read(format, text), None, "{format} {text}");
        }
        assert_eq!(read("DD.MM.YYYY", "31.02.2026"), None);
        assert_eq!(read("DD.MM.YYYY", "3.4.26"), None);
        assert_eq!(read("DD.MM.YYYY", "03.04.2026 17:00"), None);
        for wrong in [
            "",
            "DD.MM",
            "YYYY",
            "DD.MM.YYYY HH:MI",
            "DD.MM.JJJJ",
            "%d.%m.%Y",
        ] {
            assert_eq!(DateFormat::new(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_double_is_written_as_the_shortest_text_that_means_it() {
        let texts = [
            (1.0, "1"),
            (0.1, "0.1"),
            (-0.0, "0"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e-7, "0.0000001"),
        ];
        for (number, text) in texts {
            assert_eq!(of_double(number).unwrap(), text);
        }
        assert_eq!(of_double(f64::NAN), None);
    }

    proptest! {
        #[test]
        fn a_number_with_any_separators_is_read_back(whole in 0_u64.., cents in 0_u32..100, negative: bool, which in 0..4_usize) {
            let marks = [US, EUROPE, FRANCE, SWISS][which];
            let digits = whole.to_string();
            let mut grouped = String::new();
            for (position, digit) in digits.chars().enumerate() {
                if position > 0 && (digits.len() - position) % 3 == 0 {
                    grouped.push(marks.thousands.unwrap());
                }
                grouped.push(digit);
            }
            let sign = if negative { "-" } else { "" };
            let text = format!("{sign}{grouped}{}{cents:02}", marks.decimal);
            let zero = whole == 0 && cents == 0;
            let expected = format!("{}{whole}.{cents:02}", if negative && !zero { "-" } else { "" });
            prop_assert_eq!(number(&text, marks), Some(expected));
        }

        #[test]
        fn any_cell_becomes_json_or_is_refused(text: String, kind in 0..3_usize) {
            let types = [Type::Number(US), Type::Date(DateFormat::new("DD.MM.YYYY").unwrap()), Type::Truth];
            for declared in [None, Some(&Type::Text), Some(&types[kind])] {
                let mut out = Vec::new();
                if write(Kind::Text, &text, declared, &mut out) {
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
                }
            }
        }
    }
}
