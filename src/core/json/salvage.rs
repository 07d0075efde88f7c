//! Cutting a page that is not valid JSON along its structure.
//!
//! One record with a raw NUL, a broken escape or bytes that are not UTF-8 makes the whole page invalid. Strings
//! and brackets still show where each record begins and ends, so the bad one is cut out and its neighbours are
//! kept. Nothing here recurses on the data or trusts it: where the structure itself does not hold, the page
//! is given up.

use super::pick::{Items, is_empty_object};

/// The items at `path`. `None`: the structure does not hold. `Some(None)`: the path leads nowhere.
pub fn items<'a>(body: &'a [u8], path: &[String]) -> Option<Option<Items<&'a [u8]>>> {
    let mut text = Text { rest: body };
    let value = text.value()?;
    text.space();
    if !text.rest.is_empty() {
        return None;
    }
    let mut found = Items::default();
    let mut values = vec![value];
    let mut is_behind_all = false;
    for step in path {
        let mut next = Vec::new();
        for value in values {
            let mut text = Text { rest: value };
            match (step.as_str(), value.first()?) {
                ("*", b'[') => next.extend(text.items()?),
                ("*", b'{') => next.extend(text.fields()?.into_iter().map(|(_, value)| value)),
                (key, b'{') => {
                    let fields = text.fields()?;
                    let wanted =
                        |raw: &[u8]| serde_json::from_slice::<String>(raw).is_ok_and(|k| k == key);
                    match fields.into_iter().rev().find(|(raw, _)| wanted(raw)) {
                        Some((_, value)) => next.push(value),
                        None if is_behind_all => found.lacking += 1,
                        None => return Some(None),
                    }
                }
                _ if is_behind_all => found.lacking += 1,
                _ => return Some(None),
            }
        }
        is_behind_all |= step == "*";
        values = next;
    }
    for value in values {
        match value.first()? {
            b'[' => found.texts.extend(Text { rest: value }.items()?),
            _ if value == b"null" || is_empty_object(value) => {}
            _ => {
                found.singles += 1;
                found.texts.push(value);
            }
        }
    }
    Some(Some(found))
}

/// The fields of a body that is an object: each key with its quotes, and its value.
pub fn fields(body: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    Text { rest: body }.fields()
}

struct Text<'a> {
    rest: &'a [u8],
}

impl<'a> Text<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        self.space();
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    fn next_is(&mut self, byte: u8) -> bool {
        self.space();
        self.rest.first() == Some(&byte)
    }

    /// Skips one value of any kind and returns it.
    fn value(&mut self) -> Option<&'a [u8]> {
        self.space();
        let start = self.rest;
        let mut open = 0_usize;
        loop {
            let (&byte, after) = self.rest.split_first()?;
            match byte {
                b'"' => {
                    self.rest = after;
                    self.string_end()?;
                }
                b'{' | b'[' => {
                    open += 1;
                    self.rest = after;
                }
                b'}' | b']' => {
                    open = open.checked_sub(1)?;
                    self.rest = after;
                }
                // The inside of a bracket needs no tokens.
                _ if open > 0 => self.rest = after,
                _ => {
                    let ends = |b: &u8| {
                        b.is_ascii_whitespace() || matches!(b, b',' | b':' | b']' | b'}' | b'"')
                    };
                    let length = self.rest.iter().position(ends).unwrap_or(self.rest.len());
                    let word = self.rest.get(..length)?;
                    let is_scalar = matches!(byte, b'-' | b'0'..=b'9')
                        || matches!(word, b"true" | b"false" | b"null");
                    if !is_scalar {
                        return None;
                    }
                    self.rest = self.rest.get(length..)?;
                }
            }
            if open == 0 {
                return start.get(..start.len() - self.rest.len());
            }
        }
    }

    /// Skips to behind the closing quote.
    fn string_end(&mut self) -> Option<()> {
        loop {
            let at = memchr::memchr2(b'"', b'\\', self.rest)?;
            let escaped = self.rest.get(at) == Some(&b'\\');
            self.rest = self.rest.get(at + 1 + usize::from(escaped)..)?;
            if !escaped {
                return Some(());
            }
        }
    }

    /// The items of the array that begins here.
    fn items(&mut self) -> Option<Vec<&'a [u8]>> {
        self.list(b'[', b']', Text::value)
    }

    /// The fields of the object that begins here: key with its quotes, and value.
    fn fields(&mut self) -> Option<Vec<(&'a [u8], &'a [u8])>> {
        self.list(b'{', b'}', |text| {
            let key = text.value()?;
            text.eat(b':')?;
            Some((key, text.value()?))
        })
    }

    fn list<T>(
        &mut self,
        open: u8,
        close: u8,
        mut item: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.eat(open)?;
        let mut items = Vec::new();
        if !self.next_is(close) {
            loop {
                if items.len() == super::MOST_ITEMS {
                    return None;
                }
                items.push(item(self)?);
                if !self.next_is(b',') {
                    break;
                }
                self.eat(b',')?;
            }
        }
        self.eat(close)?;
        Some(items)
    }
}
