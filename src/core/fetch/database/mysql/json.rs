//! Values of MySQL as JSON, without loss: decimals to the last digit, bytes in hex, times as ISO 8601 writes them.

use std::io::{self, Write};

use chrono::{NaiveDateTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;
use mysql_common::constants::{ColumnFlags, ColumnType};
use mysql_common::packets::Column;
use mysql_common::{Row, Value};
use serde_json::value::RawValue;

use super::wire::{another_row, too_large};
use crate::error::Failure;

/// The character set of what is no text.
const BINARY: u16 = 63;

/// What a cursor or key column's values are, in the words of [`crate::source::database`].
pub fn kind(column: &Column) -> &'static str {
    match column.column_type() {
        ColumnType::MYSQL_TYPE_TIMESTAMP | ColumnType::MYSQL_TYPE_TIMESTAMP2 => "timestamp in UTC",
        ColumnType::MYSQL_TYPE_DATETIME | ColumnType::MYSQL_TYPE_DATETIME2 => "datetime",
        ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE => "date",
        ColumnType::MYSQL_TYPE_TINY
        | ColumnType::MYSQL_TYPE_SHORT
        | ColumnType::MYSQL_TYPE_INT24
        | ColumnType::MYSQL_TYPE_LONG
        | ColumnType::MYSQL_TYPE_LONGLONG
        | ColumnType::MYSQL_TYPE_DECIMAL
        | ColumnType::MYSQL_TYPE_NEWDECIMAL
        | ColumnType::MYSQL_TYPE_YEAR => "number",
        _ => "other",
    }
}

/// JSON as it is written, and no more of it than there may be: a byte of a text can become six.
struct Json {
    text: Vec<u8>,
    most: usize,
    is_full: bool,
}

impl Json {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.write_all(bytes).ok()
    }
}

impl Write for Json {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > self.most {
            self.is_full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A row as an object, of no more than `most` bytes.
/// The text of `nested` columns is JSON, and stands as what it says. `zone` is that of columns that have none.
pub fn row(
    row: &Row,
    nested: &[String],
    zone: Option<Tz>,
    most: usize,
) -> Result<Vec<u8>, Failure> {
    let mut json = Json {
        text: Vec::new(),
        most,
        is_full: false,
    };
    match object(&mut json, row, nested, zone) {
        Some(()) => Ok(json.text),
        None if json.is_full => Err(too_large()),
        None => Err(another_row()),
    }
}

fn object(json: &mut Json, row: &Row, nested: &[String], zone: Option<Tz>) -> Option<()> {
    for (place, column) in row.columns_ref().iter().enumerate() {
        json.put(if place > 0 { b"," } else { b"{" })?;
        text(json, &column.name_str())?;
        json.put(b":")?;
        let value = row.as_ref(place)?;
        match value {
            Value::Bytes(bytes) if nested.iter().any(|name| *name == column.name_str()) => {
                let value: &RawValue = serde_json::from_slice(bytes).ok()?;
                json.put(value.get().as_bytes())?;
            }
            value => write(json, column, value, zone)?,
        }
    }
    json.put(if row.is_empty() { b"{}" } else { b"}" })
}

/// A column's value as the text that the server compares it with.
pub fn value_of(row: &Row, name: &str) -> Option<String> {
    let columns = row.columns_ref();
    let place = columns
        .iter()
        .position(|column| column.name_str() == name)?;
    match row.as_ref(place)? {
        Value::NULL => None,
        Value::Bytes(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::Int(number) => Some(number.to_string()),
        Value::UInt(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Double(number) => Some(number.to_string()),
        value @ Value::Date(..) => date(columns.get(place)?, value),
        value @ Value::Time(..) => time(value),
    }
}

fn write(json: &mut Json, column: &Column, value: &Value, zone: Option<Tz>) -> Option<()> {
    let kind = column.column_type();
    let number = |json: &mut Json, number: &dyn std::fmt::Display| write!(json, "{number}").ok();
    match value {
        Value::NULL => json.put(b"null")?,
        Value::Int(value) => number(json, value)?,
        Value::UInt(value) => number(json, value)?,
        // The shortest text that gives the same number; there is no NaN over there.
        Value::Float(value) => json.put(&serde_json::to_vec(value).ok()?)?,
        Value::Double(value) => json.put(&serde_json::to_vec(value).ok()?)?,
        Value::Date(..) => match date(column, value) {
            // A date of nothing but zeros says that there is none.
            None => json.put(b"null")?,
            Some(date) => {
                let zone = if is_utc(kind) { Some(Tz::UTC) } else { zone };
                let offset = zone.and_then(|zone| offset(zone, &date));
                text(json, &(date + &offset.unwrap_or_default()))?;
            }
        },
        Value::Time(..) => text(json, &time(value)?)?,
        Value::Bytes(bytes) => bytes_of(json, column, bytes)?,
    }
    Some(())
}

fn bytes_of(json: &mut Json, column: &Column, bytes: &[u8]) -> Option<()> {
    let kind = column.column_type();
    match kind {
        ColumnType::MYSQL_TYPE_DECIMAL | ColumnType::MYSQL_TYPE_NEWDECIMAL => {
            let digits = std::str::from_utf8(bytes).ok()?;
            // ZEROFILL pads with zeros, which JSON does not have.
            let (sign, digits) = match digits.strip_prefix('-') {
                Some(digits) => ("-", digits),
                None => ("", digits),
            };
            let trimmed = digits.trim_start_matches('0');
            let lead = if trimmed.is_empty() || trimmed.starts_with('.') {
                "0"
            } else {
                ""
            };
            let number = format!("{sign}{lead}{trimmed}");
            let number: Box<RawValue> = RawValue::from_string(number).ok()?;
            json.put(number.get().as_bytes())
        }
        ColumnType::MYSQL_TYPE_BIT => {
            let mut number = 0_u64;
            for byte in bytes.iter().take(8) {
                number = number << 8 | u64::from(*byte);
            }
            write!(json, "{number}").ok()
        }
        ColumnType::MYSQL_TYPE_JSON => {
            let value: &RawValue = serde_json::from_slice(bytes).ok()?;
            json.put(value.get().as_bytes())
        }
        ColumnType::MYSQL_TYPE_GEOMETRY => hex(json, bytes),
        _ if column.character_set() == BINARY
            && column.flags().contains(ColumnFlags::BINARY_FLAG) =>
        {
            hex(json, bytes)
        }
        _ => match std::str::from_utf8(bytes) {
            Ok(words) => text(json, words),
            Err(_) => hex(json, bytes),
        },
    }
}

fn text(json: &mut Json, words: &str) -> Option<()> {
    serde_json::to_writer(json, words).ok()
}

fn hex(json: &mut Json, bytes: &[u8]) -> Option<()> {
    json.put(b"\"\\\\x")?;
    for byte in bytes {
        write!(json, "{byte:02x}").ok()?;
    }
    json.put(b"\"")
}

fn is_utc(kind: ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::MYSQL_TYPE_TIMESTAMP | ColumnType::MYSQL_TYPE_TIMESTAMP2
    )
}

/// Where a time comes twice it is the first one; where the clock skipped it, it is as long after midnight as it says.
/// `None`: a day alone, or no time of any calendar.
fn offset(zone: Tz, time: &str) -> Option<String> {
    let time: NaiveDateTime = time.parse().ok()?;
    let of = |time: &NaiveDateTime| zone.offset_from_local_datetime(time).earliest();
    let offset = of(&time).or_else(|| of(&(time - TimeDelta::hours(3))))?;
    Some(offset.fix().to_string())
}

fn fraction(micros: u32) -> String {
    match micros {
        0 => String::new(),
        micros => format!(".{micros:06}").trim_end_matches('0').to_owned(),
    }
}

fn date(column: &Column, value: &Value) -> Option<String> {
    let Value::Date(year, month, day, hour, minute, second, micros) = *value else {
        return None;
    };
    if month == 0 || day == 0 {
        return None;
    }
    let date = format!("{year:04}-{month:02}-{day:02}");
    Some(match column.column_type() {
        ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE => date,
        _ => format!(
            "{date}T{hour:02}:{minute:02}:{second:02}{}",
            fraction(micros)
        ),
    })
}

/// Hours may be more than a day's, and less than none.
fn time(value: &Value) -> Option<String> {
    let Value::Time(is_negative, days, hours, minutes, seconds, micros) = *value else {
        return None;
    };
    let sign = if is_negative { "-" } else { "" };
    let hours = u64::from(days) * 24 + u64::from(hours);
    Some(format!(
        "{sign}{hours:02}:{minutes:02}:{seconds:02}{}",
        fraction(micros)
    ))
}
