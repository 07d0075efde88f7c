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
use crate::source::database::Column as Described;

/// The character set of what is no text.
const BINARY: u16 = 63;

/// A column in the words of [`crate::source::database`].
pub fn described(column: &Column) -> Described {
    let kind = kind(column);
    Described {
        name: column.name_str().into_owned(),
        kind: kind.to_owned(),
        not_null: column.flags().contains(ColumnFlags::NOT_NULL_FLAG),
        exact: false,
        // A letter has up to four bytes on the line.
        length: match kind {
            "text" => column.column_length() / 4,
            _ => column.column_length(),
        },
        decimals: column.decimals(),
    }
}

fn kind(column: &Column) -> &'static str {
    use ColumnType as Kind;
    let flags = column.flags();
    match column.column_type() {
        Kind::MYSQL_TYPE_TIMESTAMP | Kind::MYSQL_TYPE_TIMESTAMP2 => "timestamp in UTC",
        Kind::MYSQL_TYPE_DATETIME | Kind::MYSQL_TYPE_DATETIME2 => "datetime",
        Kind::MYSQL_TYPE_DATE | Kind::MYSQL_TYPE_NEWDATE => "date",
        Kind::MYSQL_TYPE_TIME | Kind::MYSQL_TYPE_TIME2 => "time",
        Kind::MYSQL_TYPE_TINY
        | Kind::MYSQL_TYPE_SHORT
        | Kind::MYSQL_TYPE_INT24
        | Kind::MYSQL_TYPE_LONG
        | Kind::MYSQL_TYPE_LONGLONG => "int",
        Kind::MYSQL_TYPE_YEAR => "year",
        Kind::MYSQL_TYPE_DECIMAL | Kind::MYSQL_TYPE_NEWDECIMAL => "decimal",
        Kind::MYSQL_TYPE_FLOAT => "float",
        Kind::MYSQL_TYPE_DOUBLE => "double",
        Kind::MYSQL_TYPE_BIT => "bit",
        Kind::MYSQL_TYPE_JSON => "json",
        Kind::MYSQL_TYPE_GEOMETRY => "geometry",
        Kind::MYSQL_TYPE_ENUM => "enum",
        Kind::MYSQL_TYPE_SET => "set",
        Kind::MYSQL_TYPE_STRING
        | Kind::MYSQL_TYPE_VAR_STRING
        | Kind::MYSQL_TYPE_VARCHAR
        | Kind::MYSQL_TYPE_TINY_BLOB
        | Kind::MYSQL_TYPE_MEDIUM_BLOB
        | Kind::MYSQL_TYPE_LONG_BLOB
        | Kind::MYSQL_TYPE_BLOB
        | Kind::MYSQL_TYPE_NULL => {
            if flags.contains(ColumnFlags::ENUM_FLAG) {
                "enum"
            } else if flags.contains(ColumnFlags::SET_FLAG) {
                "set"
            } else if is_bytes(column) {
                "bytes"
            } else {
                "text"
            }
        }
        _ => "other",
    }
}

fn is_bytes(column: &Column) -> bool {
    column.character_set() == BINARY && column.flags().contains(ColumnFlags::BINARY_FLAG)
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

/// A row as an object, of no more than `most` bytes. Its last columns, so many as are `told`, are no part of it.
/// The text of `nested` columns is JSON, and stands as what it says. `zone` is that of columns that have none.
pub fn row(
    row: &Row,
    nested: &[String],
    zone: Option<Tz>,
    most: usize,
    told: usize,
) -> Result<Vec<u8>, Failure> {
    let mut json = Json {
        text: Vec::new(),
        most,
        is_full: false,
    };
    match object(&mut json, row, nested, zone, told) {
        Some(()) => Ok(json.text),
        None if json.is_full => Err(too_large()),
        None => Err(another_row()),
    }
}

fn object(
    json: &mut Json,
    row: &Row,
    nested: &[String],
    zone: Option<Tz>,
    told: usize,
) -> Option<()> {
    let columns = row.columns_ref();
    let stored = columns.len().saturating_sub(told);
    for (place, column) in columns.iter().take(stored).enumerate() {
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
    json.put(if stored == 0 { b"{}" } else { b"}" })
}

/// The values of the last columns, so many as are `told`, as the texts that the server compares them with.
pub fn told(row: &Row, told: usize) -> Result<Vec<Option<String>>, Failure> {
    let columns = row.columns_ref().len();
    let places = columns.saturating_sub(told)..columns;
    let values = places.map(|place| value_at(row, place).ok_or_else(another_row));
    values.collect()
}

/// `None`: it is no text.
pub fn value_at(row: &Row, place: usize) -> Option<Option<String>> {
    Some(Some(match row.as_ref(place)? {
        Value::NULL => return Some(None),
        Value::Bytes(bytes) => String::from_utf8(bytes.clone()).ok()?,
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        // With all of its bits: it is compared as a double.
        Value::Float(number) => f64::from(*number).to_string(),
        Value::Double(number) => number.to_string(),
        value @ Value::Date(..) => day_and_time(row.columns_ref().get(place)?, value)?,
        value @ Value::Time(..) => time(value)?,
    }))
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
        _ if is_bytes(column) => hex(json, bytes),
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
    match *value {
        Value::Date(_, 0, ..) | Value::Date(_, _, 0, ..) => None,
        _ => day_and_time(column, value),
    }
}

/// The same of zeros, too.
fn day_and_time(column: &Column, value: &Value) -> Option<String> {
    let Value::Date(year, month, day, hour, minute, second, micros) = *value else {
        return None;
    };
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
