//! The tenant that a role is bound to, or acts for.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::Error;
use crate::guc;
use crate::store::{self, access, read_uuid, uuid};

/// The tenant whose rows the caller sees; every policy calls this. An application acts for the tenant that it has named. Any
/// other role is bound to a tenant.
#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_tenant() -> Result<pgrx::Uuid, ErrorReport> {
    let caller = access::caller();
    let acting = caller.may_act().then(guc::acting_for).flatten();
    let tenant = match acting {
        Some(tenant) => tenant,
        None => match store::with(|db| access::bound_to(db, &caller))?.as_slice() {
            [tenant] => *tenant,
            [] => return Err(Error::NoTenant(caller.name()).into()),
            _ => return Err(Error::ManyTenants(caller.name()).into()),
        },
    };
    Ok(uuid(tenant))
}

/// Shows the caller the rows of this tenant until the end of the transaction, or with `p_session` until the next call or the
/// end of the session. NULL: no tenant's rows.
#[pg_extern(volatile, parallel_unsafe)]
fn connector_service_act_for(
    p_tenant_id: Option<pgrx::Uuid>,
    p_session: default!(Option<bool>, false),
) -> Result<(), ErrorReport> {
    let session = p_session.ok_or(Error::Null("p_session"))?;
    guc::act_for(p_tenant_id.map(read_uuid), session);
    Ok(())
}
