//! Judgement over one value that a mapping found, for the statement that extracts facts.
//!
//! These are called for every record, and resolve no name: without a search_path of their own, whose setting
//! would cost more than the work.

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

/// The amount that a text stands for, exactly; NULL for anything but a plain decimal number.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
fn connector_service_amount(p_text: &str) -> Option<AnyNumeric> {
    AnyNumeric::try_from(mapping::amount(p_text)?).ok()
}

/// The hours between two times, to the microhour; NULL for what is no time, or where one has an offset and the other
/// has none.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
fn connector_service_hours(p_from: &str, p_until: &str) -> Option<AnyNumeric> {
    let seconds = mapping::seconds_between(p_from, p_until)?;
    // Rounded half away from zero, as PostgreSQL's numeric does.
    let micros = i128::from(seconds) * 1_000_000;
    let hours = (micros + micros.signum() * 1_800) / 3_600;
    AnyNumeric::try_from(format!("{hours}e-6").as_str()).ok()
}

/// The day that a text stands for, in a time zone; NULL for what is ambiguous or no date.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
fn connector_service_day(p_text: &str, p_timezone: &str) -> Option<Date> {
    let (year, month, day) = match mapping::when(p_text)? {
        When::Day(day) => (day.year(), day.month(), day.day()),
        When::Moment(moment) => local(moment.timestamp(), p_timezone)?,
    };
    Date::new(year, month as u8, day as u8).ok()
}

/// Year, month and day of a moment, by PostgreSQL's own time zones. NULL for a zone that is not known: the
/// tenant's was checked when it was saved.
fn local(seconds: i64, timezone: &str) -> Option<(i32, u32, u32)> {
    thread_local! {
        /// The zone asked for last: it is the same one for thousands of records.
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

/// Called by the trigger of `metric_mappings`: raises for paths that may cost more than a record is worth. The paths are in
/// PostgreSQL's own spelling; each of the others starts at what the first one finds. True: what they cost is plainly in
/// proportion to the record.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_judge_paths(
    p_items_path: Option<&str>,
    p_paths: Option<Vec<Option<String>>>,
) -> Result<bool, ErrorReport> {
    let judge = |path: &str, before: usize| {
        let shape = jsonpath::shape(path);
        if shape.refers_back {
            return Err(Error::RefersBack(path.to_owned()));
        }
        if before + shape.descents > 1 {
            return Err(Error::ManyDescents(path.to_owned()));
        }
        Ok(shape)
    };
    let items = p_items_path.map(|path| judge(path, 0)).transpose()?;
    let items = items.unwrap_or_default();
    let mut is_plain = items.is_plain();
    for path in p_paths.iter().flatten().flatten() {
        is_plain &= judge(path, items.descents)?.is_plain();
    }
    Ok(is_plain)
}

/// Called by the trigger of `metric_mappings`: raises for a type that is not known.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_check_type(p_type: &str) -> Result<(), ErrorReport> {
    if TYPES.contains(&p_type) {
        Ok(())
    } else {
        Err(Error::UnknownType(p_type.to_owned()).into())
    }
}
