//! `DatetimeBasedCursor`: asking only for what changed since the last pass.
//!
//! The cursor is the greatest value that the source itself wrote, in its own spelling, never our clock. A
//! pass starts a lookback before it, because sources stamp a record before it becomes visible; what is read
//! twice changes nothing.

use chrono::{DateTime, Utc};
use minijinja::value::Value as Context;
use serde_json::{Value, json};

use super::component::{Component, wrong};
use super::parts::{Inject, Parts};
use crate::datetime::{Format, Span};
use crate::error::{Code, Failure};
use crate::json::Found;
use crate::record::Window;
use crate::source::{Position, Start, window};
use crate::template::{Template, parse_any};

/// Where the manifest names no lookback. Longer: more is read again each time. Shorter: records that a slow
/// transaction of the vendor makes visible late are never seen.
const LOOKBACK: Span = Span::minutes(10);

/// The same where stamps have a time of day and no zone. Where clocks go back, an hour comes twice, in some places two: what
/// is stamped in the second one is earlier than what was stamped in the first.
const LOOKBACK_WITHOUT_ZONE: Span = Span::minutes(130);

/// Stamps before this stand for no time at all: 0001-01-01, 1900-01-01, the zero of Unix time.
const FIRST_STAMP: DateTime<Utc> = DateTime::from_timestamp_nanos(86_400_000_000_000);

pub struct DatetimeCursor {
    /// Key of the record that holds the value.
    pub field: String,
    start: Option<Moment>,
    end: Option<Moment>,
    written: Format,
    read: Vec<Format>,
    lookback: Span,
    start_option: Option<Inject>,
    end_option: Option<Inject>,
    start_name: String,
    end_name: String,
}

/// The format that a component names.
fn format(component: &mut Component) -> Result<Option<Format>, Failure> {
    let place = component.place("datetime_format");
    let text = component.text("datetime_format")?;
    text.map(|text| parse_format(&text, &place)).transpose()
}

fn parse_format(text: &str, place: &str) -> Result<Format, Failure> {
    Format::new(text).map_err(|code| {
        wrong(format!(
            "\"{place}\": date format code \"{code}\" is not supported"
        ))
    })
}

/// A template that gives a moment, and how its text reads.
struct Moment {
    template: Template,
    format: Option<Format>,
    least: Option<Template>,
    most: Option<Template>,
}

impl DatetimeCursor {
    pub fn read(component: Component) -> Result<DatetimeCursor, Failure> {
        let mut cursor = component.expect("DatetimeBasedCursor")?;
        let field = cursor
            .text("cursor_field")?
            .ok_or_else(|| cursor.missing("cursor_field"))?;
        let written = format(&mut cursor)?.ok_or_else(|| cursor.missing("datetime_format"))?;
        let mut read = Vec::new();
        let place = cursor.place("cursor_datetime_formats");
        for text in cursor.templates("cursor_datetime_formats", &["config"])? {
            let text = text.text(cursor.settled())?.unwrap_or_default();
            read.push(parse_format(&text, &place)?);
        }
        read.push(written.clone());
        let start = Moment::read(&mut cursor, "start_datetime")?;
        let end = Moment::read(&mut cursor, "end_datetime")?;
        let lookback = match cursor.text("lookback_window")? {
            None if read.iter().all(Format::has_zone) => LOOKBACK,
            None => LOOKBACK_WITHOUT_ZONE,
            Some(text) => Span::new(&text).ok_or_else(|| {
                let place = cursor.place("lookback_window");
                wrong(format!("\"{place}\" has to be a duration, such as \"P1D\""))
            })?,
        };
        let start_option = cursor
            .child("start_time_option", "RequestOption")?
            .map(Inject::read)
            .transpose()?;
        let end_option = cursor
            .child("end_time_option", "RequestOption")?
            .map(Inject::read)
            .transpose()?;
        let start_name = cursor
            .text("partition_field_start")?
            .unwrap_or_else(|| "start_time".to_owned());
        let end_name = cursor
            .text("partition_field_end")?
            .unwrap_or_else(|| "end_time".to_owned());
        // Only tells how slices are cut, and there is one.
        cursor.harmless(&["cursor_granularity"]);
        cursor.finish()?;
        Ok(DatetimeCursor {
            field,
            start,
            end,
            written,
            read,
            lookback,
            start_option,
            end_option,
            start_name,
            end_name,
        })
    }

    /// `context` gives what templates see where the default start is the given one.
    pub fn window(
        &self,
        cursor: Option<&Value>,
        start: Start,
        context: impl Fn(DateTime<Utc>) -> Context,
    ) -> Result<Window, Failure> {
        let reached = cursor
            .and_then(Value::as_str)
            .and_then(|text| self.parse(text));
        // The default moves with the clock. It says where a first pass begins, and must not cut off what came
        // since the cursor when the last pass is longer ago.
        let default_from = reached.map_or(start.default_from, |_| DateTime::UNIX_EPOCH);
        let context = context(default_from);
        let first = match &self.start {
            Some(moment) => moment.value(&context, &self.written)?,
            None => default_from,
        };
        // A first pass begins exactly where it was told to.
        let from = reached.map_or(first, |reached| self.lookback.before(reached).max(first));
        let to = match &self.end {
            Some(moment) => moment.value(&context, &self.written)?,
            None => start.now,
        };
        Ok(Window {
            from: Some(from.min(to)),
            to,
        })
    }

    /// What templates see as `stream_slice`.
    pub fn slice(&self, window: Window) -> Vec<(String, Context)> {
        let from = window.from.unwrap_or_default();
        vec![
            (
                self.start_name.clone(),
                Context::from(self.written.write(from)),
            ),
            (
                self.end_name.clone(),
                Context::from(self.written.write(window.to)),
            ),
        ]
    }

    pub fn inject(&self, window: Window, parts: &mut Parts) {
        if let Some(option) = &self.start_option {
            parts.add(
                option,
                self.written.write(window.from.unwrap_or_default()).into(),
            );
        }
        if let Some(option) = &self.end_option {
            parts.add(option, self.written.write(window.to).into());
        }
    }

    /// The greatest value up to the end of the window. What stands for no time, or for one that never comes, moves nothing.
    pub fn high(&self, at: &Position, found: &Found) -> Result<Option<Value>, Failure> {
        let read = |text: &str| self.parse(text).filter(|stamp| *stamp >= FIRST_STAMP);
        let (high, any_parsed) = window::highest(at.high, &found.cursors, at.window.to, read);
        let is_strange = |text: &String| !stands_for_no_time(text) && self.parse(text).is_none();
        // Values that are absent or null move nothing either, but a page may well hold none.
        if !any_parsed && found.cursors.iter().any(is_strange) {
            let message = format!(
                "no record has a date in \"{}\" that matches datetime_format",
                self.field
            );
            return Err(Failure::new(Code::UnexpectedShape, message));
        }
        Ok(high)
    }

    fn parse(&self, text: &str) -> Option<DateTime<Utc>> {
        self.read
            .iter()
            .find_map(|format| format.read(text))
            .or_else(|| parse_any(text))
    }
}

/// What databases and programs write for no time, or for one that never comes.
fn stands_for_no_time(text: &str) -> bool {
    let text = text.trim();
    let word = text.trim_start_matches(['-', '+']).to_ascii_lowercase();
    matches!(
        word.as_str(),
        "" | "0" | "infinity" | "inf" | "never" | "null" | "none"
    ) || text.starts_with("0000-00-00")
}

impl Moment {
    fn read(cursor: &mut Component, key: &'static str) -> Result<Option<Moment>, Failure> {
        let value = match cursor.take(key) {
            None => return Ok(None),
            // A text is the datetime itself.
            Some(text @ Value::String(_)) => json!({"datetime": text}),
            Some(other) => other,
        };
        let component = cursor.inner(value, cursor.place(key), "MinMaxDatetime")?;
        let mut moment = component.expect("MinMaxDatetime")?;
        let template = moment
            .template("datetime", &["config"])?
            .ok_or_else(|| moment.missing("datetime"))?;
        let format = format(&mut moment)?;
        let least = moment.template("min_datetime", &["config"])?;
        let most = moment.template("max_datetime", &["config"])?;
        moment.finish()?;
        Ok(Some(Moment {
            template,
            format,
            least,
            most,
        }))
    }

    fn value(&self, context: &Context, default: &Format) -> Result<DateTime<Utc>, Failure> {
        let format = self.format.as_ref().unwrap_or(default);
        let read = |template: &Template| {
            let text = template.text(context)?.unwrap_or_default();
            format
                .read(&text)
                .or_else(|| parse_any(&text))
                .ok_or_else(|| {
                    Failure::new(
                        Code::InvalidConfig,
                        "a start or end date in config or manifest is not a date",
                    )
                })
        };
        let mut value = read(&self.template)?;
        if let Some(least) = &self.least {
            value = value.max(read(least)?);
        }
        if let Some(most) = &self.most {
            value = value.min(read(most)?);
        }
        Ok(value)
    }
}
