//! `rate_budgets`: what vendors report about the rate limits of accounts.

use std::collections::HashMap;
use std::time::Duration;

use connector_service_core::fetch::Rest;
use uuid::Uuid;

use super::storable::storable;
use super::{Db, read_uuid, uuid};
use crate::error::Result;

/// The accounts of some tenants that must not be called for a while, by tenant.
pub fn rests(db: &mut Db, tenants: Vec<Uuid>) -> Result<HashMap<Uuid, Vec<Rest>>> {
    let tenants: Vec<pgrx::Uuid> = tenants.into_iter().map(uuid).collect();
    let rows = db.run(
        "SELECT tenant_id, account, extract(epoch FROM rests_until - now())::float8, coalesce(reason, '')
         FROM @extschema@.rate_budgets WHERE tenant_id = ANY ($1) AND rests_until > now()",
        &[tenants.into()],
    )?;
    let mut rests: HashMap<Uuid, Vec<Rest>> = HashMap::new();
    for row in 0..rows.count {
        let tenant = rests.entry(read_uuid(rows.need(row, 1)?)).or_default();
        tenant.push(Rest {
            account: rows.need(row, 2)?,
            wait: Duration::try_from_secs_f64(rows.need(row, 3)?).unwrap_or_default(),
            why: rows.need(row, 4)?,
        });
    }
    Ok(rests)
}

/// Stores what a vendor reports: a pause, or how much of the rate limit is used, or both.
pub fn record(db: &mut Db, tenant: Uuid, rest: &Rest, used: Option<(u64, u64)>) -> Result<()> {
    let n = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let wait = Some(rest.wait.as_secs_f64()).filter(|wait| *wait > 0.0);
    let why = wait.map(|_| storable(&rest.why));
    db.run(
        "INSERT INTO @extschema@.rate_budgets AS b (tenant_id, account, rests_until, reason, used, allowed)
         VALUES ($1, $2, now() + make_interval(secs => $3), $4, $5, $6)
         ON CONFLICT (tenant_id, account) DO UPDATE
         SET rests_until = greatest(excluded.rests_until, b.rests_until),
             reason = CASE WHEN excluded.rests_until >= coalesce(b.rests_until, '-infinity') THEN excluded.reason ELSE b.reason END,
             used = coalesce(excluded.used, b.used), allowed = coalesce(excluded.allowed, b.allowed), updated_at = now()",
        &[
            uuid(tenant).into(),
            rest.account.as_str().into(),
            wait.into(),
            why.as_deref().into(),
            used.map(|(used, _)| n(used)).into(),
            used.map(|(_, allowed)| n(allowed)).into(),
        ],
    )?;
    Ok(())
}
