//! What the values of a column look like. This is only reported: no value is converted because of it.

use super::row::Kind;
use super::value::{self, DateFormat, Marks, Type};

/// What the values of a column look like.
#[derive(Default)]
pub struct Looks {
    pub examples: Vec<String>,
    seen: u64,
    /// Whether every value so far is plain, and needs no declaration.
    is_plain: bool,
    numbers: Vec<Marks>,
    dates: Vec<&'static str>,
}

const EXAMPLES: usize = 3;

const MARKS: [(char, char); 5] = [(',', '.'), ('.', ','), (',', ' '), ('.', '\''), ('.', ' ')];

const DATES: [&str; 12] = [
    "DD.MM.YYYY",
    "DD/MM/YYYY",
    "MM/DD/YYYY",
    "DD-MM-YYYY",
    "MM-DD-YYYY",
    "YYYY/MM/DD",
    "DD.MM.YYYY HH24:MI",
    "DD.MM.YYYY HH24:MI:SS",
    "DD/MM/YYYY HH24:MI",
    "MM/DD/YYYY HH24:MI",
    "DD/MM/YYYY HH24:MI:SS",
    "MM/DD/YYYY HH24:MI:SS",
];

impl Looks {
    pub fn take(&mut self, kind: Kind, text: &str) {
        let text = text.trim();
        if kind != Kind::Text || text.is_empty() {
            return;
        }
        if self.examples.len() < EXAMPLES {
            let example: String = text.chars().take(60).collect();
            if !self.examples.contains(&example) {
                self.examples.push(example);
            }
        }
        if self.seen == 0 {
            self.is_plain = true;
            let marks = |(decimal, thousands)| Marks {
                decimal,
                thousands: Some(thousands),
            };
            self.numbers = MARKS.map(marks).to_vec();
            self.dates = DATES.to_vec();
        }
        self.seen += 1;
        let plain = Marks {
            decimal: '.',
            thousands: None,
        };
        self.is_plain &= value::number(text, plain).as_deref() == Some(text);
        self.numbers
            .retain(|marks| value::number(text, *marks).is_some());
        self.dates.retain(|format| {
            let format = DateFormat::new(format).map(Type::Date);
            value::write(Kind::Text, text, format.as_ref(), &mut Vec::new())
        });
    }

    pub fn note(&self) -> Option<String> {
        let example = self.examples.first()?;
        let quoted = |marks: &Marks| {
            let thousands = marks.thousands.unwrap_or(' ');
            format!(
                "{{\"type\": \"number\", \"decimal\": \"{}\", \"thousands\": \"{thousands}\"}}",
                marks.decimal
            )
        };
        match (self.numbers.as_slice(), self.dates.as_slice()) {
            _ if self.is_plain => None,
            ([marks, ..], _) => Some(format!(
                "is read as text, but looks like numbers, such as \"{example}\"; to read it as numbers, declare it in config's \"columns\": {}",
                quoted(marks)
            )),
            ([], [format]) => Some(format!(
                "is read as text, but looks like dates, such as \"{example}\"; to read it as dates, declare it in config's \"columns\": {{\"type\": \"date\", \"format\": \"{format}\"}}"
            )),
            ([], [one, other, ..]) => Some(format!(
                "is read as text, but looks like dates, such as \"{example}\", which may be {one} or {other}; declare the format in config's \"columns\""
            )),
            ([], []) => None,
        }
    }
}
