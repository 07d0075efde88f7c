//! JSON as templates see it: numbers are exact, and one damaged record does not hide the rest.
//!
//! A body was judged before: here the structure alone has to hold. What is no character becomes U+FFFD, and a number that
//! no number of the template language holds exactly becomes its text.

use minijinja::value::{Value, ValueKind};

use crate::json::identity;

/// Deepest nesting that is looked into; what is deeper is not there. Deeper: the end of the stack is the end of the server.
const DEEPEST: usize = 100;

/// Most values of one body. Each costs some 60 bytes beside its text, so a body of the smallest ones there are,
/// [1,1,1,...], would cost thirty times its size. More: a hostile body ends the server. Fewer: a template does not see a
/// large page.
pub const MOST_VALUES: usize = 500_000;

/// Why a body is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is not built like JSON.
    NotJson,
    /// It has more than [`MOST_VALUES`], or more bytes than may be.
    TooLarge,
}

/// A body, without what lies at the path `left_out`, up to a `*` in it. `None`: it is not built like JSON, or too large.
pub fn read(body: &[u8], left_out: &[String]) -> Option<Value> {
    read_within(body, left_out, usize::MAX).ok()
}

/// The same, where no more than so many bytes are looked at, those that are left out aside.
pub fn read_within(body: &[u8], left_out: &[String], bytes: usize) -> Result<Value, Unread> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let mut reader = Reader {
        rest: body,
        length: body.len(),
        skipped: 0,
        bytes,
        values: 0,
        is_over: false,
    };
    let value = reader.value(0, left_out);
    reader.space();
    match value {
        Some(value) if reader.rest.is_empty() && reader.is_within() => Ok(value),
        _ if reader.is_over || !reader.is_within() => Err(Unread::TooLarge),
        _ => Err(Unread::NotJson),
    }
}

/// A number, or its text where it would be rounded.
fn number(text: &str) -> Value {
    let is_whole = !text.contains(['.', 'e', 'E']);
    if is_whole {
        if let Ok(whole) = text.parse::<i64>() {
            return whole.into();
        }
        return text
            .parse::<i128>()
            .map_or_else(|_| text.into(), Value::from);
    }
    let float = text.parse::<f64>().ok().filter(|float| float.is_finite());
    let is_exact = |float: &f64| identity::number(&float.to_string()) == identity::number(text);
    float
        .filter(is_exact)
        .map_or_else(|| text.into(), Value::from)
}

/// The value as JSON. A number that JSON values do not hold exactly becomes its text.
pub fn to_json(value: &Value) -> serde_json::Value {
    if let Ok(json) = serde_json::to_value(value) {
        return json;
    }
    let items = || value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::Map => items()
            .map(|key| {
                let value = value.get_item(&key).unwrap_or_default();
                (key.to_string(), to_json(&value))
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        ValueKind::Seq | ValueKind::Iterable => items()
            .map(|item| to_json(&item))
            .collect::<Vec<_>>()
            .into(),
        _ => value.to_string().into(),
    }
}

/// A text that spells JSON, as its value.
pub fn literal(text: &str) -> Option<serde_json::Value> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    read(text.as_bytes(), &[]).map(|value| to_json(&value))
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Bytes of the body, of which so many were left out, and so many others may be looked at.
    length: usize,
    skipped: usize,
    bytes: usize,
    values: usize,
    /// A bound was reached.
    is_over: bool,
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.space();
        match self.rest.strip_prefix(&[byte]) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn is_within(&self) -> bool {
        let read = self.length.saturating_sub(self.rest.len());
        read.saturating_sub(self.skipped) <= self.bytes
    }

    /// Leaves out a value.
    fn leave_out(&mut self) -> Option<()> {
        let before = self.rest.len();
        self.skip()?;
        self.skipped += before.saturating_sub(self.rest.len());
        Some(())
    }

    fn value(&mut self, depth: usize, left_out: &[String]) -> Option<Value> {
        self.space();
        self.values += 1;
        if self.values > MOST_VALUES || !self.is_within() {
            self.is_over = true;
            return None;
        }
        match self.rest.first()? {
            b'{' if depth < DEEPEST => {
                let mut fields = Vec::new();
                self.list(b'}', |reader| {
                    reader.space();
                    let key = text(reader.string()?);
                    reader.eat(b':').then_some(())?;
                    let inner = match left_out {
                        [step, rest @ ..] if *step == key => match rest.first() {
                            None => return reader.leave_out(),
                            Some(all) if all == "*" => return reader.leave_out(),
                            Some(_) => rest,
                        },
                        _ => &[],
                    };
                    fields.push((key, reader.value(depth + 1, inner)?));
                    Some(())
                })?;
                Some(Value::from_pairs(fields))
            }
            b'[' if depth < DEEPEST => {
                let mut items = Vec::new();
                self.list(b']', |reader| {
                    items.push(reader.value(depth + 1, &[])?);
                    Some(())
                })?;
                Some(items.into())
            }
            b'{' | b'[' => {
                self.skip()?;
                Some(Value::UNDEFINED)
            }
            b'"' => self.string().map(|raw| text(raw).into()),
            _ => {
                let word = self.word()?;
                Some(match word {
                    b"true" => true.into(),
                    b"false" => false.into(),
                    b"null" => ().into(),
                    _ => {
                        let word = std::str::from_utf8(word).unwrap_or_default();
                        let is_number = serde_json::from_str::<&serde_json::value::RawValue>(word);
                        is_number.map_or(Value::UNDEFINED, |_| number(word))
                    }
                })
            }
        }
    }

    fn list(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.rest = self.rest.get(1..)?;
        if self.eat(close) {
            return Some(());
        }
        loop {
            item(self)?;
            if self.eat(close) {
                return Some(());
            }
            self.eat(b',').then_some(())?;
        }
    }

    /// What is between the quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        let inner = self.rest.strip_prefix(b"\"")?;
        let mut end = 0;
        loop {
            end += memchr::memchr2(b'"', b'\\', inner.get(end..)?)?;
            if inner.get(end) == Some(&b'"') {
                self.rest = inner.get(end + 1..)?;
                return inner.get(..end);
            }
            end += 2;
        }
    }

    fn word(&mut self) -> Option<&'a [u8]> {
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b",:]}[{\"".contains(byte);
        let end = self.rest.iter().position(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    /// Skips a value of any depth.
    fn skip(&mut self) -> Option<()> {
        let mut open = 0_usize;
        loop {
            self.space();
            match self.rest.first()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    open += 1;
                    self.rest = self.rest.get(1..)?;
                }
                b'}' | b']' => {
                    open = open.checked_sub(1)?;
                    self.rest = self.rest.get(1..)?;
                }
                b',' | b':' if open > 0 => self.rest = self.rest.get(1..)?,
                _ => {
                    self.word()?;
                }
            }
            if open == 0 {
                return Some(());
            }
        }
    }
}

/// The characters of a text in JSON. What is none becomes U+FFFD.
fn text(raw: &[u8]) -> String {
    if memchr::memchr(b'\\', raw).is_none() {
        return String::from_utf8_lossy(raw).into_owned();
    }
    let raw = String::from_utf8_lossy(raw);
    let mut text = String::with_capacity(raw.len());
    // Units of UTF-16, as escapes give them; a character may take two escapes.
    let mut units = Vec::new();
    let mut rest = raw.chars();
    while let Some(char) = rest.next() {
        let escaped = match char {
            '\\' => rest.next().unwrap_or('\\'),
            _ => {
                flush(&mut units, &mut text);
                text.push(char);
                continue;
            }
        };
        if escaped == 'u' {
            let unit = rest
                .as_str()
                .get(..4)
                .and_then(|digits| u16::from_str_radix(digits, 16).ok());
            units.push(unit.unwrap_or(0xFFFD));
            if unit.is_some() {
                rest.nth(3);
            }
            continue;
        }
        flush(&mut units, &mut text);
        text.push(match escaped {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            other => other,
        });
    }
    flush(&mut units, &mut text);
    text
}

fn flush(units: &mut Vec<u16>, text: &mut String) {
    text.push_str(&String::from_utf16_lossy(units));
    units.clear();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_body_is_read_within_bounds() {
        let path = ["data".to_owned()];
        let items = |count: usize| vec!["1"; count].join(",");
        // What is left out costs nothing.
        let body = format!(r#"{{"data": [{}], "next": 2}}"#, items(MOST_VALUES + 1));
        let read = read_within(body.as_bytes(), &path, 100).unwrap();
        assert_eq!(to_json(&read), serde_json::json!({"next": 2}));
        assert_eq!(
            read_within(body.as_bytes(), &[], usize::MAX).err(),
            Some(Unread::TooLarge)
        );
        // The list is a value, too.
        for (count, expected) in [
            (MOST_VALUES - 1, None),
            (MOST_VALUES, Some(Unread::TooLarge)),
        ] {
            let body = format!("[{}]", items(count));
            let read = read_within(body.as_bytes(), &path, usize::MAX);
            assert_eq!(read.err(), expected, "{count}");
        }
        for (body, expected) in [
            (r#"{"data": [1], "a": "0123456789"}"#, None),
            (
                r#"{"data": [1], "a": "01234567890123456789"}"#,
                Some(Unread::TooLarge),
            ),
            (r#"{"data": [1], "a": }"#, Some(Unread::NotJson)),
            ("{\"data\": 1}\n{\"data\": 2}", Some(Unread::NotJson)),
        ] {
            let read = read_within(body.as_bytes(), &path, 35);
            assert_eq!(read.err(), expected, "{body}");
        }
    }
}
