//! The function by which a person decides which connectors count.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::store::{self, connector, count, metric, read_uuid};

/// What a person may decide about, besides measures. Refunds are a part of costs.
pub const METRIC_TYPES: [&str; 5] = ["costs", "inventory", "refunds", "revenue", "staffing"];

/// Decides whether a connector counts for a metric type. NULL gives the decision back to the upkeep process.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_count(
    p_connector_id: Option<pgrx::Uuid>,
    p_metric_type: Option<&str>,
    p_counts: Option<bool>,
) -> Result<(), ErrorReport> {
    let connector = read_uuid(p_connector_id.ok_or(Error::Null("p_connector_id"))?);
    Ok(decide(connector, p_metric_type, p_counts)?)
}

pub(super) fn decide(
    connector: Uuid,
    metric_type: Option<&str>,
    counts: Option<bool>,
) -> Result<()> {
    let metric_type = metric_type.ok_or(Error::Null("p_metric_type"))?;
    if !store::as_caller(|db| connector::is_visible(db, connector))? {
        return Err(Error::UnknownConnector(connector));
    }
    let known = metric_type.trim().to_ascii_lowercase();
    let is_known = METRIC_TYPES.contains(&known.as_str())
        || store::as_caller(|db| metric::is_measure(db, connector, &known))?;
    if !is_known {
        return Err(Error::UnknownMetricType(metric_type.to_owned()));
    }
    store::with(|db| count::by_person(db, connector, &known, counts))
}
