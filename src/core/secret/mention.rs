//! Which texts of PostgreSQL's may hold credentials, and what of a message is left without its quotations.
//!
//! For what is logged when a statement fails. It looks at bytes, in any letters, because a statement that fails may be
//! anything, one that does not parse included, and its text can be as long as a file.

/// Where credentials are kept.
pub const TABLE: &[u8] = b"connectors";

/// With one of these words a statement that names the table may hold credentials. Those that only read do not, and are of
/// use in a log.
const WRITING: [&[u8]; 5] = [b"insert", b"update", b"merge", b"copy", b"credentials"];

/// Functions that are given credentials or keys, and the triggers that refuse a row: beginnings of their names.
const FUNCTIONS: [&[u8]; 5] = [
    b"connector_service_connectors_",
    b"connector_service_seal",
    b"connector_service_reseal",
    b"connector_service_retire_key",
    b"connector_service_key_ids",
];

/// A name of PostgreSQL's, cut as PostgreSQL cuts it, with NUL behind.
pub type Name = [u8; 64];

/// Whether a statement, or what repeats one, may hold credentials.
pub fn may_hold_credentials(text: &[u8]) -> bool {
    let has = |name: &&'static [u8]| places(text, name).next().is_some();
    FUNCTIONS.iter().any(has) || words(text, TABLE).next().is_some() && WRITING.iter().any(has)
}

/// What a statement may name as the prepared statement that it executes.
pub fn executed(statement: &[u8]) -> impl Iterator<Item = Name> {
    words(statement, b"execute").map(|rest| {
        let rest = rest.trim_ascii_start();
        let quoted = rest.strip_prefix(b"\"");
        let is_end = |byte: &u8| match quoted {
            Some(_) => *byte == b'"',
            None => byte.is_ascii_whitespace() || matches!(*byte, b'(' | b';'),
        };
        let bytes = quoted.unwrap_or(rest).iter();
        let mut name: Name = [0; 64];
        for (place, byte) in name
            .iter_mut()
            .take(63)
            .zip(bytes.take_while(|byte| !is_end(byte)))
        {
            *place = match quoted {
                Some(_) => *byte,
                None => byte.to_ascii_lowercase(),
            };
        }
        name
    })
}

/// A message without what it quotes, as what stands before and behind; `None`: it may stay as it is. These names may be
/// quoted, and so may ids. What lies between the first other quotation and the last quotation mark is left out, because a
/// quotation may hold quotation marks itself.
pub fn around_quotation<'a>(text: &'a [u8], names: &[&[u8]]) -> Option<(&'a [u8], &'a [u8])> {
    let mut rest = text;
    while let Some((skipped, length)) = first_mark(rest) {
        let quotation = rest.get(skipped + length..)?;
        let beyond = first_mark(quotation).and_then(|(end, length)| {
            let quoted = quotation.get(..end)?;
            let may_stay = names.contains(&quoted) || is_id(quoted);
            quotation.get(end + length..).filter(|_| may_stay)
        });
        match beyond {
            Some(beyond) => rest = beyond,
            None => {
                let from = text.len() - rest.len() + skipped;
                return Some((text.get(..from)?, behind_last_mark(quotation)));
            }
        }
    }
    None
}

/// Where a word in small letters begins in a text, whatever the text's letters are.
fn places(text: &[u8], word: &'static [u8]) -> impl Iterator<Item = usize> {
    let parts = text.windows(word.len()).enumerate();
    parts
        .filter(move |(_, part)| part.eq_ignore_ascii_case(word))
        .map(|(at, _)| at)
}

/// What follows each place at which a word stands by itself.
fn words<'a>(text: &'a [u8], word: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let is_name = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80)
    };
    places(text, word).filter_map(move |at| {
        let (before, rest) = text.split_at_checked(at)?;
        let rest = rest.get(word.len()..)?;
        (!is_name(before.last()) && !is_name(rest.first())).then_some(rest)
    })
}

/// Quotation marks of the languages that PostgreSQL speaks, in UTF-8.
const MARKS: [&str; 11] = ["\"", "«", "»", "‘", "’", "‚", "“", "”", "„", "「", "」"];

fn mark_at(text: &[u8]) -> Option<usize> {
    let is_here = |mark: &&&str| text.starts_with(mark.as_bytes());
    MARKS.iter().find(is_here).map(|mark| mark.len())
}

/// Where the first quotation mark is, and how long.
fn first_mark(text: &[u8]) -> Option<(usize, usize)> {
    (0..text.len()).find_map(|at| Some((at, mark_at(text.get(at..)?)?)))
}

/// What stands behind the last quotation mark; nothing where the quotation has no end.
fn behind_last_mark(text: &[u8]) -> &[u8] {
    let ends = |at: usize| Some(at + mark_at(text.get(at..)?)?);
    let last = (0..text.len()).rev().find_map(ends);
    last.and_then(|last| text.get(last..)).unwrap_or_default()
}

/// Whether a text has the form of a UUID.
fn is_id(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
