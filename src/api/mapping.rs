//! Judgement over one value that a mapping found, for the statement that extracts facts.

use connector_service_core::mapping::{self, When};
use connector_service_core::source::TYPES;
use pgrx::datum::{Date, TimestampWithTimeZone};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::Error;

/// The amount that a text stands for, exactly; NULL for anything but a plain decimal number.
#[pg_extern(immutable, parallel_safe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_amount(p_text: &str) -> Option<AnyNumeric> {
    AnyNumeric::try_from(mapping::amount(p_text)?).ok()
}

/// The day that a text stands for, in a time zone; NULL for what is ambiguous or no date.
#[pg_extern(immutable, parallel_safe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_day(p_text: &str, p_timezone: &str) -> Option<Date> {
    use chrono::Datelike;
    let date = match mapping::when(p_text)? {
        When::Day(day) => day,
        When::Moment(moment) => {
            let micros = moment.timestamp_micros() - MICROS_AT_2000;
            let at = TimestampWithTimeZone::try_from(micros).ok()?;
            return Some(at.at_timezone(p_timezone).ok()?.into());
        }
    };
    Date::new(date.year(), date.month() as u8, date.day() as u8).ok()
}

/// PostgreSQL counts from 2000, everybody else from 1970.
const MICROS_AT_2000: i64 = 946_684_800_000_000;

/// Called by the trigger of `metric_mappings`: raises for a type that is not known.
#[pg_extern(immutable, parallel_safe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_check_type(p_type: &str) -> Result<(), ErrorReport> {
    if TYPES.contains(&p_type) {
        Ok(())
    } else {
        Err(Error::UnknownType(p_type.to_owned()).into())
    }
}
