//! The macros that every template sees, with the clock of the run.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use minijinja::value::{Kwargs, Object, Value};
use minijinja::{Error, ErrorKind, State};

use super::text_of;
use crate::datetime::{self, Format};

/// Their names.
pub const MACROS: [&str; 4] = ["now_utc", "today_utc", "day_delta", "format_datetime"];

/// What every template sees: the macros, with the clock of the run.
pub fn macros(now: DateTime<Utc>) -> impl Iterator<Item = (&'static str, Value)> {
    let wrong = || Error::from(ErrorKind::InvalidOperation);
    let python = move |format: Option<&str>, default: &str| {
        Format::new(format.unwrap_or(default)).map_err(|_| wrong())
    };
    [
        (
            "now_utc",
            Value::from_function(move || Value::from_object(Moment(now))),
        ),
        (
            "today_utc",
            Value::from_function(move || now.format("%Y-%m-%d").to_string()),
        ),
        (
            "day_delta",
            Value::from_function(move |days: i64, kwargs: Kwargs| {
                let format = python(kwargs.get("format")?, "%Y-%m-%dT%H:%M:%S.%f%z")?;
                let delta = TimeDelta::try_days(days).ok_or_else(wrong)?;
                now.checked_add_signed(delta)
                    .map(|at| format.write(at))
                    .ok_or_else(wrong)
            }),
        ),
        (
            "format_datetime",
            Value::from_function(move |value: Value, format: &str| {
                let text = text_of(&value).unwrap_or_default();
                let at = value.downcast_object_ref::<Moment>().map(|moment| moment.0);
                let at = at.or_else(|| parse_any(&text)).ok_or_else(wrong)?;
                python(Some(format), "").map(|format| format.write(at))
            }),
        ),
    ]
    .into_iter()
}

/// A moment in one of the usual spellings.
pub fn parse_any(text: &str) -> Option<DateTime<Utc>> {
    datetime::any(text)
}

/// What `now_utc()` gives.
#[derive(Debug)]
struct Moment(DateTime<Utc>);

impl Object for Moment {
    fn call_method(
        self: &Arc<Self>,
        _state: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        let format = match (method, args) {
            ("strftime", [format]) => format.as_str().map(Format::new),
            ("isoformat", []) => Some(Format::new("%Y-%m-%dT%H:%M:%S.%f+00:00")),
            ("timestamp", []) => return Ok(Value::from(self.0.timestamp())),
            _ => return Err(Error::from(ErrorKind::UnknownMethod)),
        };
        match format {
            Some(Ok(format)) => Ok(Value::from(format.write(self.0))),
            _ => Err(Error::from(ErrorKind::InvalidOperation)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d %H:%M:%S%.6f+00:00"))
    }
}
