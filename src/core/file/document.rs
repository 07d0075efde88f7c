//! JSON documents: a list of records on one line or on many, at the top or below a key that config names.
//!
//! The document is gone through byte by byte. Only the record at hand is in memory, and no more of it than a record may
//! have; whether it is valid is seen once it is a record.

use std::io::{BufRead, BufReader};

use encoding_rs::Encoding;

use super::decoded::{CHUNK, Decoded};
use super::text::{Line, MOST_PASSED_OVER};
use super::{Content, failure_of, refused, spoiled};
use crate::error::{Code, Failure};
use crate::record::RAW_KEPT;

/// Longest key of an object on the way to the list.
const LONGEST_KEY: usize = 1_024;
/// How many keys a message names.
const MOST_NAMED: usize = 30;

type Visit<'a> = &'a mut dyn FnMut(Line) -> Result<bool, Failure>;

/// Passes every record on. A record is numbered by its place in the list.
pub fn records(
    content: &mut dyn Content,
    encoding: &'static Encoding,
    path: &[String],
    longest: usize,
    visit: Visit,
) -> Result<(), Failure> {
    content.rewind().map_err(failure_of)?;
    let mut document = Document {
        input: BufReader::with_capacity(CHUNK, Decoded::new(content, encoding)),
        line: 1,
        longest,
        number: 0,
        value: Vec::new(),
        length: 0,
    };
    match (document.next_of_value()?, path) {
        (None, _) => Ok(()),
        (Some(b'['), []) => {
            if document.list(visit)? {
                document.end()?;
            }
            Ok(())
        }
        (Some(b'{'), []) => document.objects(visit),
        (Some(b'{'), [_, ..]) => {
            let mut seen = Vec::new();
            if document.below(path, &mut seen, visit)? {
                return Ok(());
            }
            let keys: Vec<String> = seen.iter().map(|key| format!("\"{key}\"")).collect();
            Err(Failure::new(
                Code::InvalidConfig,
                format!(
                    "config's \"records\" is \"{}\", but no list is there; the document has {}",
                    path.join("."),
                    if keys.is_empty() {
                        "no keys".to_owned()
                    } else {
                        keys.join(", ")
                    }
                ),
            ))
        }
        (Some(b'['), [_, ..]) => Err(Failure::new(
            Code::InvalidConfig,
            "config's \"records\" names a key, but the document is a list; remove \"records\" from config",
        )),
        (Some(_), _) => Err(document.damaged("neither a list nor an object begins here")),
    }
}

struct Document<'a> {
    input: BufReader<Decoded<'a>>,
    line: u64,
    longest: usize,
    /// Records so far.
    number: u64,
    /// The value at hand, or the beginning of it.
    value: Vec<u8>,
    length: usize,
}

impl Document<'_> {
    fn peek(&mut self) -> Result<Option<u8>, Failure> {
        let buffer = self.input.fill_buf().map_err(failure_of)?;
        Ok(buffer.first().copied())
    }

    fn next(&mut self) -> Result<Option<u8>, Failure> {
        let next = self.peek()?;
        if next.is_some() {
            self.input.consume(1);
        }
        self.line += u64::from(next == Some(b'\n'));
        Ok(next)
    }

    /// The next byte that is no white space, nor one of the marks that old programs put at the end.
    fn next_of_value(&mut self) -> Result<Option<u8>, Failure> {
        loop {
            match self.next()? {
                Some(b' ' | b'\t' | b'\r' | b'\n' | 0x1A | 0) => {}
                next => return Ok(next),
            }
        }
    }

    fn damaged(&self, what: &str) -> Failure {
        refused(format!(
            "line {}: the JSON cannot be read: {what}",
            self.line
        ))
    }

    fn cut(&self) -> Failure {
        let line = self.line;
        refused(format!(
            "line {line}: the file ends in the middle of a record"
        ))
    }

    fn keep(&mut self, byte: u8) {
        self.length += 1;
        if self.value.len() <= self.longest {
            self.value.push(byte);
        }
    }

    /// Reads the value that begins with a byte, to its end.
    fn read(&mut self, first: u8) -> Result<(), Failure> {
        self.value.clear();
        self.length = 0;
        self.keep(first);
        let mut depth = u64::from(matches!(first, b'[' | b'{'));
        let mut in_text = first == b'"';
        let is_word = depth == 0 && !in_text;
        loop {
            if is_word {
                match self.peek()? {
                    None | Some(b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n') => return Ok(()),
                    Some(_) => {}
                }
            }
            let next = self.next()?.ok_or_else(|| self.cut())?;
            self.keep(next);
            if self.length > self.longest.saturating_mul(MOST_PASSED_OVER) {
                let (line, longest) = (self.line, self.longest);
                return Err(spoiled(format!(
                    "line {line}: the record is longer than {longest} bytes"
                )));
            }
            match next {
                b'\\' if in_text => {
                    let escaped = self.next()?.ok_or_else(|| self.cut())?;
                    self.keep(escaped);
                }
                b'"' => in_text = !in_text,
                b'[' | b'{' if !in_text => depth += 1,
                b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && !in_text && !is_word {
                return Ok(());
            }
        }
    }

    /// Goes past the value that begins with a byte, however long it is.
    fn pass_over(&mut self, first: u8) -> Result<(), Failure> {
        let mut depth = u64::from(matches!(first, b'[' | b'{'));
        let mut in_text = first == b'"';
        loop {
            if depth == 0 && !in_text {
                if matches!(first, b'[' | b'{' | b'"') {
                    return Ok(());
                }
                // A number or a word.
                match self.peek()? {
                    None | Some(b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n') => return Ok(()),
                    Some(_) => {}
                }
            }
            match self.next()?.ok_or_else(|| self.cut())? {
                b'\\' if in_text => {
                    self.next()?;
                }
                b'"' => in_text = !in_text,
                b'[' | b'{' if !in_text => depth += 1,
                b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// Passes the value at hand on as a record.
    fn emit(&mut self, visit: Visit) -> Result<bool, Failure> {
        self.number += 1;
        let is_long = self.length > self.longest;
        let kept = if is_long { RAW_KEPT } else { self.value.len() };
        visit(Line {
            number: self.number,
            text: self.value.get(..kept).unwrap_or(&self.value),
            is_cut: false,
            is_long,
        })
    }

    /// The records of the list that has begun. False: no more is wanted.
    fn list(&mut self, visit: Visit) -> Result<bool, Failure> {
        let mut next = self.next_of_value()?;
        if next == Some(b']') {
            return Ok(true);
        }
        loop {
            match next.ok_or_else(|| self.cut())? {
                b',' | b']' | b'}' | b':' => return Err(self.damaged("a record is missing")),
                first => self.read(first)?,
            }
            if !self.emit(&mut *visit)? {
                return Ok(false);
            }
            match self.next_of_value()?.ok_or_else(|| self.cut())? {
                b',' => next = self.next_of_value()?,
                b']' => return Ok(true),
                _ => return Err(self.damaged("there is no comma between two records")),
            }
        }
    }

    /// Nothing may follow.
    fn end(&mut self) -> Result<(), Failure> {
        match self.next_of_value()? {
            None => Ok(()),
            Some(_) => Err(self.damaged("something follows behind the end of the list")),
        }
    }

    /// Objects one behind the other, the first of which has begun. One alone may be what is around a list.
    fn objects(&mut self, visit: Visit) -> Result<(), Failure> {
        let mut next = Some(b'{');
        while let Some(first) = next {
            if first == b',' {
                return Err(
                    self.damaged("objects with commas between them need [ and ] around them")
                );
            }
            self.read(first)?;
            next = self.next_of_value()?;
            if self.number == 0 && next.is_none() {
                self.check_is_record()?;
            }
            if !self.emit(&mut *visit)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Refuses an object that holds a list of records: which of its lists are the records is for config to say.
    fn check_is_record(&self) -> Result<(), Failure> {
        let advice = "set config's \"records\" to the key of the list that has the records, such as \"data\" or \"result.items\"";
        if self.length > self.longest {
            return Err(refused(format!("the file is one JSON object; {advice}")));
        }
        let Ok(serde_json::Value::Object(fields)) = serde_json::from_slice(&self.value) else {
            return Ok(());
        };
        let mut lists = Vec::new();
        for (key, value) in &fields {
            let is_list = |value: &serde_json::Value| {
                let items = value.as_array();
                items.is_some_and(|items| items.iter().any(serde_json::Value::is_object))
            };
            if is_list(value) {
                lists.push(format!("\"{key}\""));
            }
            let inner = value.as_object().into_iter().flatten();
            let inner = inner.filter(|(_, value)| is_list(value));
            lists.extend(inner.map(|(inner, _)| format!("\"{key}.{inner}\"")));
        }
        lists.truncate(MOST_NAMED);
        match lists.as_slice() {
            [] => Ok(()),
            lists => Err(refused(format!(
                "the file is one JSON object with the lists {}; {advice}",
                lists.join(", ")
            ))),
        }
    }

    /// Goes along a path through the object that has begun, and passes on the records of the list at its end. False: there is
    /// none. `seen` are the keys of the last object of the path.
    fn below(
        &mut self,
        path: &[String],
        seen: &mut Vec<String>,
        visit: Visit,
    ) -> Result<bool, Failure> {
        let (mut path, mut depth) = (path, 1_u64);
        let mut is_found = false;
        loop {
            let mut next = self.next_of_value()?.ok_or_else(|| self.cut())?;
            if next == b',' {
                next = self.next_of_value()?.ok_or_else(|| self.cut())?;
            }
            if next == b'}' {
                // What follows is beside the path.
                path = &[];
                depth -= 1;
                if depth == 0 {
                    self.end()?;
                    return Ok(is_found);
                }
                continue;
            }
            let key = self.key(next)?;
            let first = self.next_of_value()?.ok_or_else(|| self.cut())?;
            let is_next = !is_found && path.first() == Some(&key);
            match (is_next, first, path) {
                (true, b'[', [_]) => {
                    is_found = true;
                    if !self.list(&mut *visit)? {
                        return Ok(true);
                    }
                }
                (true, b'{', [_, rest @ ..]) if !rest.is_empty() => {
                    (path, depth) = (rest, depth + 1);
                    seen.clear();
                }
                _ => {
                    if seen.len() < MOST_NAMED {
                        seen.push(key.chars().take(60).collect());
                    }
                    self.pass_over(first)?;
                }
            }
        }
    }

    /// The key that begins with a byte, and the colon behind it.
    fn key(&mut self, first: u8) -> Result<String, Failure> {
        if first != b'"' {
            return Err(self.damaged("a key is missing"));
        }
        let longest = std::mem::replace(&mut self.longest, LONGEST_KEY);
        let read = self.read(first);
        self.longest = longest;
        read?;
        let key = serde_json::from_slice::<String>(&self.value).unwrap_or_default();
        match self.next_of_value()? {
            Some(b':') => Ok(key),
            _ => Err(self.damaged("there is no colon behind a key")),
        }
    }
}
