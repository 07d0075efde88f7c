//! Whether PostgreSQL's jsonb takes a text that is valid JSON, and takes it exactly.
//!
//! One pass over the bytes, without recursion. An ERROR in the middle of a page would cost the whole page, so
//! what jsonb refuses is found here first; and a number may be eight bytes of text and 64 KB of `numeric`,
//! which would exhaust the memory of a process whose death restarts the server.

use crate::record::Reason;

/// Most digits of a `numeric` before and after the point.
const DIGITS_BEFORE: u64 = 131_072;
const DIGITS_AFTER: u64 = 16_383;

/// How many digits the exponents of one record may add to what is written. The widest double adds 341. More:
/// a page of such records takes memory out of proportion to its size. Fewer: real numbers are turned away.
const EXPANSION: u64 = 64 * 1024;
/// The same for one number.
const EXPANSION_OF_ONE: u64 = 2_000;

pub fn inspect(text: &str, depth_limit: usize) -> Result<(), Reason> {
    let mut rest = text.as_bytes();
    let mut depth = 0_usize;
    let mut expansion = 0;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => string(after)?,
            b'{' | b'[' => {
                depth += 1;
                if depth > depth_limit {
                    return Err(Reason::TooDeep);
                }
                after
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                after
            }
            b'-' | b'0'..=b'9' => {
                let in_number =
                    |b: &u8| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let length = rest.iter().take_while(|b| in_number(b)).count();
                let (number, after) = rest.split_at(length);
                expansion += digits_added(number)?;
                if expansion > EXPANSION {
                    return Err(Reason::NumberOutOfRange);
                }
                after
            }
            _ => after,
        };
    }
    Ok(())
}

/// Skips a string whose opening quote is behind us.
fn string(mut rest: &[u8]) -> Result<&[u8], Reason> {
    loop {
        let Some(at) = memchr::memchr2(b'"', b'\\', rest) else {
            return Ok(&[]);
        };
        let (_, found) = rest.split_at(at);
        rest = match found {
            [b'"', after @ ..] => return Ok(after),
            [b'\\', b'u', after @ ..] => match unit(after) {
                (Some(0), _) => return Err(Reason::Nul),
                (Some(0xD800..=0xDBFF), [b'\\', b'u', low @ ..]) => match unit(low) {
                    (Some(0xDC00..=0xDFFF), after) => after,
                    _ => return Err(Reason::LoneSurrogate),
                },
                (Some(0xD800..=0xDFFF), _) => return Err(Reason::LoneSurrogate),
                (_, after) => after,
            },
            [b'\\', _, after @ ..] => after,
            _ => return Ok(&[]),
        };
    }
}

/// The four hex digits of an escape.
fn unit(text: &[u8]) -> (Option<u16>, &[u8]) {
    match text.split_at_checked(4) {
        Some((digits, after)) => (
            std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| u16::from_str_radix(digits, 16).ok()),
            after,
        ),
        None => (None, &[]),
    }
}

/// How many more digits a number has as `numeric` than as written.
fn digits_added(number: &[u8]) -> Result<u64, Reason> {
    let (mantissa, exponent) = match memchr::memchr2(b'e', b'E', number) {
        Some(at) => (
            number.get(..at).unwrap_or_default(),
            number.get(at + 1..).unwrap_or_default(),
        ),
        None if number.len() as u64 <= DIGITS_AFTER => return Ok(0),
        None => (number, &[][..]),
    };
    let exponent: i64 = match exponent {
        [] => 0,
        text => std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|exponent: &i64| exponent.abs() <= DIGITS_BEFORE as i64)
            .ok_or(Reason::NumberOutOfRange)?,
    };
    let point = memchr::memchr(b'.', mantissa).unwrap_or(mantissa.len());
    let whole = point as i64;
    let fraction = mantissa.len().saturating_sub(point + 1) as i64;
    let before = (whole + exponent).max(1) as u64;
    let after = (fraction - exponent).max(0) as u64;
    let added = (before + after).saturating_sub(number.len() as u64);
    if before > DIGITS_BEFORE || after > DIGITS_AFTER || added > EXPANSION_OF_ONE {
        return Err(Reason::NumberOutOfRange);
    }
    Ok(added)
}
