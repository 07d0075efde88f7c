//! Functions that read one value that a mapping found, for the statement that extracts facts.
//!
//! They are called for every record, so most of them set no search_path: setting it would take longer than the work. They
//! resolve no names.

use std::cell::RefCell;
use std::ffi::CString;

use chrono::Datelike;
use connector_service_core::jsonpath;
use connector_service_core::mapping::{self, When};
use connector_service_core::source::TYPES;
use pgrx::datum::Date;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::Error;

/// The exact amount in a text; NULL for what is no amount, or can be read in two ways.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
fn connector_service_amount(p_text: &str) -> Option<AnyNumeric> {
    AnyNumeric::try_from(&*mapping::amount(p_text)?).ok()
}

/// The exact amount in a text; NULL for anything but a plain decimal number.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
fn connector_service_decimal(p_text: &str) -> Option<AnyNumeric> {
    AnyNumeric::try_from(mapping::decimal(p_text)?).ok()
}

/// The same as of connector_service_amount(); NULL also for an amount that says that it is of another currency. Without a currency it is only an amount.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe)]
fn connector_service_amount_in(
    p_text: Option<&str>,
    p_currency: Option<&str>,
) -> Option<AnyNumeric> {
    let text = p_text?;
    let amount = mapping::amount(text)?;
    // What came as it is has no currency around it.
    let is_dressed = matches!(amount, std::borrow::Cow::Owned(_));
    let is_other = |currency| mapping::is_of_other_currency(text, currency);
    if is_dressed && p_currency.is_some_and(is_other) {
        return None;
    }
    AnyNumeric::try_from(&*amount).ok()
}

/// JSON in which each text that is an amount is a number.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
fn connector_service_numbers(p_json: &str) -> String {
    mapping::with_numbers(p_json)
}

/// The hours between two times, to the millionth of an hour. NULL if one of them is not a time, or only one has an offset.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
fn connector_service_hours(p_from: &str, p_until: &str) -> Option<AnyNumeric> {
    let seconds = mapping::seconds_between(p_from, p_until)?;
    // Rounded half away from zero, as PostgreSQL's numeric does.
    let micros = i128::from(seconds) * 1_000_000;
    let hours = (micros + micros.signum() * 1_800) / 3_600;
    AnyNumeric::try_from(format!("{hours}e-6").as_str()).ok()
}

/// The time that a text names, as PostgreSQL reads it: with a Z, or of the tenant's time zone. NULL for a text that is no date.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
fn connector_service_clock(p_text: &str) -> Option<String> {
    mapping::clock_text(p_text)
}

/// The day of a text in a time zone; NULL for a text that is ambiguous or not a date.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
fn connector_service_day(p_text: &str, p_timezone: &str) -> Option<Date> {
    let (year, month, day) = match mapping::when(p_text)? {
        When::Day(day) => (day.year(), day.month(), day.day()),
        When::Moment(moment) => local(moment.timestamp(), p_timezone)?,
    };
    Date::new(year, month as u8, day as u8).ok()
}

/// Year, month and day of a moment, by PostgreSQL's own time zones. `None` for an unknown zone, which cannot happen: the
/// tenant's zone was checked when it was saved.
fn local(seconds: i64, timezone: &str) -> Option<(i32, u32, u32)> {
    thread_local! {
        /// The last zone: it is the same for thousands of records.
        static LAST: RefCell<(String, *mut pg_sys::pg_tz)> = const { RefCell::new((String::new(), std::ptr::null_mut())) };
    }
    let zone = LAST.with_borrow_mut(|(name, zone)| {
        if name != timezone || zone.is_null() {
            let text = CString::new(timezone).ok()?;
            // SAFETY: a string that ends in NUL. What it points to lives as long as the process.
            *zone = unsafe { pg_sys::pg_tzset(text.as_ptr()) };
            timezone.clone_into(name);
        }
        (!zone.is_null()).then_some(*zone)
    })?;
    // SAFETY: a known zone; the result points to memory of PostgreSQL's own, read before the next call.
    let parts = unsafe { pg_sys::pg_localtime(&seconds, zone).as_ref() }?;
    Some((
        parts.tm_year + 1900,
        u32::try_from(parts.tm_mon + 1).ok()?,
        u32::try_from(parts.tm_mday).ok()?,
    ))
}

/// Called by the trigger of `metric_mappings`: raises an error for paths that may take too long. The paths are in
/// PostgreSQL's own spelling; the others start at what `p_items_path` finds. True: their cost surely grows only linearly with
/// the record.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_judge_paths(
    p_items_path: Option<&str>,
    p_paths: Option<Vec<Option<String>>>,
) -> Result<bool, ErrorReport> {
    let check = |path: &str, before: usize| {
        let shape = jsonpath::shape(path);
        if shape.refers_back {
            return Err(Error::RefersBack(path.to_owned()));
        }
        if before + shape.descents > 1 {
            return Err(Error::ManyDescents(path.to_owned()));
        }
        Ok(shape)
    };
    let items = p_items_path.map(|path| check(path, 0)).transpose()?;
    let items = items.unwrap_or_default();
    let mut is_plain = items.is_plain();
    for path in p_paths.iter().flatten().flatten() {
        is_plain &= check(path, items.descents)?.is_plain();
    }
    Ok(is_plain)
}

/// Called by the trigger of `metric_mappings`: raises an error for an unknown type.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_check_type(p_type: &str) -> Result<(), ErrorReport> {
    if TYPES.contains(&p_type) {
        Ok(())
    } else {
        Err(Error::UnknownType(p_type.to_owned()).into())
    }
}
