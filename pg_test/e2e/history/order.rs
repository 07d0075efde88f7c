//! A record: the JSON that the vendor shows, and its meaning.

use crate::exact::{Day, Exact};
use connector_service_test::Random;

/// What stands at a place of a record; without `json` the key is not there.
#[derive(Debug, Clone)]
pub struct Shown<T> {
    pub json: Option<String>,
    pub means: T,
}

#[derive(Debug, Clone, Copy)]
pub enum Amount {
    Value(Exact),
    Missing,
    Unreadable,
}

#[derive(Debug, Clone, Copy)]
pub enum When {
    /// A day, and the second of it on the tenant's clock; a day without a time is its beginning.
    Day(Day, i64),
    /// Milliseconds since 1970.
    Moment(i64),
    Missing,
    Unreadable,
}

#[derive(Debug, Clone)]
pub enum Label {
    Text(String),
    Missing,
    Unreadable,
}

#[derive(Debug, Clone)]
pub struct Line {
    pub amount: Shown<Amount>,
    pub category: Shown<Label>,
}

#[derive(Debug, Clone)]
pub struct Order {
    pub total: Shown<Amount>,
    pub at: Shown<When>,
    pub category: Shown<Label>,
    /// What the currency is in capitals.
    pub currency: Shown<Option<String>>,
    pub status: Option<&'static str>,
    pub lines: Vec<Line>,
}

/// Days around which clocks change or years end; all are over, so that the test does not depend on the day it
/// runs on.
pub const DAYS: [Day; 10] = [
    Day::new(2024, 2, 29),
    Day::new(2024, 12, 31),
    Day::new(2025, 3, 9),
    Day::new(2025, 3, 30),
    Day::new(2025, 4, 6),
    Day::new(2025, 7, 1),
    Day::new(2025, 10, 5),
    Day::new(2025, 10, 26),
    Day::new(2025, 11, 2),
    Day::new(2025, 12, 31),
];

impl Order {
    pub fn random(random: &mut Random, days: &[Day], home: &str) -> Order {
        let lines = match random.below(4) {
            0 => 0,
            1 => 1,
            _ => random.below(4),
        };
        Order {
            total: amount(random, 4),
            at: when(random, days, 3),
            category: category(random, 1),
            currency: currency(random, home, 2),
            status: random.pick(&[Some("paid"), Some("paid"), Some("paid"), Some("open"), None]),
            lines: (0..lines)
                .map(|_| Line {
                    amount: amount(random, 2),
                    category: category(random, 1),
                })
                .collect(),
        }
    }

    pub fn json(&self, id: usize) -> String {
        let mut fields = vec![format!(r#""id": {id}"#)];
        let mut add = |name: &str, json: &Option<String>| {
            fields.extend(json.as_ref().map(|json| format!(r#""{name}": {json}"#)));
        };
        add("total", &self.total.json);
        add("created_at", &self.at.json);
        add("category", &self.category.json);
        add("currency", &self.currency.json);
        add("status", &self.status.map(|status| format!("{status:?}")));
        let lines: Vec<String> = self.lines.iter().map(Line::json).collect();
        add("lines", &Some(format!("[{}]", lines.join(", "))));
        format!("{{{}}}", fields.join(", "))
    }
}

impl Line {
    fn json(&self) -> String {
        let named = |name: &str, json: &Option<String>| {
            json.as_ref().map(|json| format!(r#""{name}": {json}"#))
        };
        let fields = [
            named("amount", &self.amount.json),
            named("category", &self.category.json),
        ];
        format!(
            "{{{}}}",
            fields.into_iter().flatten().collect::<Vec<_>>().join(", ")
        )
    }
}

/// The text with each number in one form: jsonb takes 1.5 and 1.50 for the same.
pub fn canonical(json: &str) -> String {
    let (mut text, mut number) = (String::new(), String::new());
    let (mut in_string, mut is_escaped) = (false, false);
    for next in json.chars() {
        if !in_string
            && (next.is_ascii_digit() || "+-.e".contains(next) && !number.is_empty() || next == '-')
        {
            number.push(next);
            continue;
        }
        text += &one_form(&std::mem::take(&mut number));
        in_string ^= next == '"' && !is_escaped;
        is_escaped = next == '\\' && !is_escaped;
        text.push(next);
    }
    text
}

fn one_form(number: &str) -> String {
    match number.is_empty() || number.contains('e') {
        true => number.to_owned(),
        false => Exact::read(number).to_string(),
    }
}

fn shown<T>(json: impl Into<String>, means: T) -> Shown<T> {
    Shown {
        json: Some(json.into()),
        means,
    }
}

/// `bad`: how many in a hundred are no amounts.
pub fn amount(random: &mut Random, bad: usize) -> Shown<Amount> {
    if random.percent(bad) {
        let huge = Exact::new(10_i128.pow(30), 0);
        return match random.below(10) {
            0 => shown(r#""12,5""#, Amount::Unreadable),
            1 => shown("null", Amount::Missing),
            2 => shown(r#""NaN""#, Amount::Unreadable),
            3 => shown("1e30", Amount::Value(huge)),
            4 => shown(r#""-1e30""#, Amount::Value(huge.negated())),
            5 => shown("true", Amount::Unreadable),
            6 => shown("[1, 2]", Amount::Unreadable),
            7 => shown(r#""""#, Amount::Unreadable),
            8 => shown(r#""Infinity""#, Amount::Unreadable),
            _ => Shown {
                json: None,
                means: Amount::Missing,
            },
        };
    }
    let size = random.pick(&[100, 10_000, 100_000, 10_000_000]);
    let sign = if random.percent(18) { -1 } else { 1 };
    let cents = sign * random.below(size) as i128;
    let value = Exact::new(cents, 2);
    match random.below(9) {
        0 => shown(format!(r#""{value}""#), Amount::Value(value)),
        1 | 2 => shown(value.to_string(), Amount::Value(value)),
        3 => shown(format!(r#""  {value} ""#), Amount::Value(value)),
        4 => shown(format!(r#""{cents}e-2""#), Amount::Value(value)),
        5 if cents >= 0 => shown(format!(r#""+{value}""#), Amount::Value(value)),
        // As it is: a mapping may take it as cents.
        6 => shown(cents.to_string(), Amount::Value(Exact::new(cents, 0))),
        7 => shown(
            format!("{}", Exact::new(cents, 3)),
            Amount::Value(Exact::new(cents, 3)),
        ),
        // On both sides of what is too large, which a factor or unit may still change.
        8 if random.percent(4) => {
            let edge = Exact::new(10_i128.pow(17) - random.below(2) as i128, 2);
            shown(format!(r#""{edge}""#), Amount::Value(edge))
        }
        _ => shown(format!("{}0", with_point(value)), Amount::Value(value)),
    }
}

/// The number with a decimal point in any case, so that zeros may follow.
fn with_point(value: Exact) -> String {
    let text = value.to_string();
    if text.contains('.') {
        text
    } else {
        text + "." + "0"
    }
}

pub fn when(random: &mut Random, days: &[Day], bad: usize) -> Shown<When> {
    if random.percent(bad) {
        return match random.below(8) {
            0 => shown("null", When::Missing),
            1 => shown(r#""02.11.2025""#, When::Unreadable),
            2 => shown(r#""2025-13-01""#, When::Unreadable),
            3 => shown(r#""soon""#, When::Unreadable),
            4 => shown(r#""2099-05-01""#, When::Day(Day::new(2099, 5, 1), 0)),
            5 => shown(r#""1850-06-01""#, When::Day(Day::new(1850, 6, 1), 0)),
            6 => shown("4081363200", When::Moment(4_081_363_200_000)),
            _ => Shown {
                json: None,
                means: When::Missing,
            },
        };
    }
    let day = random.pick(days);
    let (year, month, date) = day.parts();
    // Half of them near midnight UTC, the others anywhere.
    let second = if random.percent(50) {
        random.below(4 * 3_600) as i64 - 2 * 3_600
    } else {
        random.below(86_400) as i64
    };
    let moment = day.0 * 86_400 + second;
    match random.below(12) {
        0 | 1 => shown(format!(r#""{day}""#), When::Day(day, 0)),
        2 => shown(
            format!(r#""{year:04}/{month:02}/{date:02}""#),
            When::Day(day, 0),
        ),
        3 => shown(
            format!(r#""{year:04}{month:02}{date:02}""#),
            When::Day(day, 0),
        ),
        4 => shown(format!(r#""{day} 23:59:59""#), When::Day(day, 86_399)),
        5 => shown(format!(r#""{day}T00:01""#), When::Day(day, 60)),
        6 => shown(moment.to_string(), When::Moment(moment * 1_000)),
        7 => shown(
            format!(r#""{moment}999""#),
            When::Moment(moment * 1_000 + 999),
        ),
        8 => shown(
            format!(r#""{}Z""#, clock(moment, 0)),
            When::Moment(moment * 1_000),
        ),
        _ => {
            let (text, minutes, milliseconds) = random.pick(&[
                ("+02:00", 120, 0),
                ("-05:00", -300, 0),
                ("+0545", 345, 0),
                ("-11", -660, 0),
                (" +14:00", 840, 0),
                (".250+00:00", 0, 250),
            ]);
            shown(
                format!(r#""{}{text}""#, clock(moment, minutes)),
                When::Moment(moment * 1_000 + milliseconds),
            )
        }
    }
}

/// A moment on a clock that is some minutes east of UTC.
fn clock(moment: i64, minutes: i64) -> String {
    let local = moment + minutes * 60;
    let (day, second) = (Day(local.div_euclid(86_400)), local.rem_euclid(86_400));
    format!(
        "{day}T{:02}:{:02}:{:02}",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

pub fn category(random: &mut Random, bad: usize) -> Shown<Label> {
    if random.percent(bad) {
        return shown(r#"{"a": 1}"#, Label::Unreadable);
    }
    match random.below(9) {
        0 => shown("null", Label::Missing),
        1 => Shown {
            json: None,
            means: Label::Missing,
        },
        2 => shown("7", Label::Text("7".into())),
        // Longer than what is kept.
        3 if random.percent(20) => {
            let text = "é".repeat(210);
            shown(format!(r#""{text}""#), Label::Text(text))
        }
        4 => shown(r#""refunds""#, Label::Text("refunds".into())),
        _ => {
            let text = random.pick(&["food", "drinks", "uncategorized", "a \\\"b\\\" 'c'", ""]);
            shown(format!(r#""{text}""#), Label::Text(text.replace('\\', "")))
        }
    }
}

pub fn currency(random: &mut Random, home: &str, bad: usize) -> Shown<Option<String>> {
    if random.percent(bad) {
        return match random.below(4) {
            0 => shown("null", None),
            1 => shown(r#"" EUR ""#, Some(" EUR ".into())),
            2 => Shown {
                json: None,
                means: None,
            },
            _ => shown(r#""EU""#, Some("EU".into())),
        };
    }
    let code = if random.percent(75) {
        home
    } else {
        random.pick(&["USD", "EUR", "JPY", "GBP"])
    };
    let text = match random.below(3) {
        0 => code.to_lowercase(),
        _ => code.to_owned(),
    };
    shown(format!(r#""{text}""#), Some(code.to_owned()))
}
