//! Functions that delete a connector, a tenant, or one person's records.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::board;
use crate::error::{Error, Result};
use crate::store::{self, connector, delete, read_uuid};

pub(super) type Items = TableIterator<'static, (name!(item, String), name!(rows, i64))>;

/// Says what the deletion of a connector deletes, and with `p_dry_run => false` begins it.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_delete(
    p_connector_id: pgrx::Uuid,
    p_dry_run: default!(bool, true),
) -> Result<TableIterator<'static, (name!(item, String), name!(rows, i64))>, ErrorReport> {
    Ok(delete_connector(read_uuid(p_connector_id), p_dry_run)?)
}

pub(super) fn delete_connector(connector: uuid::Uuid, is_trial: bool) -> Result<Items> {
    need_visible_connector(connector)?;
    let items = store::with(|db| {
        let items = delete::of_connector(db, connector)?;
        if !is_trial {
            delete::begin(db, connector)?;
        }
        Ok(items)
    })?;
    if !is_trial {
        board::wake_at_commit();
    }
    Ok(TableIterator::new(items))
}

/// Says what the deletion of a tenant deletes, and with `p_dry_run => false` begins it. A tenant without connectors is deleted at
/// once, because it has little.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_delete_tenant(
    p_tenant_id: pgrx::Uuid,
    p_dry_run: default!(bool, true),
) -> Result<TableIterator<'static, (name!(item, String), name!(rows, i64))>, ErrorReport> {
    let tenant = read_uuid(p_tenant_id);
    if !store::as_caller(|db| delete::is_tenant_visible(db, tenant))? {
        return Err(Error::UnknownTenant(tenant).into());
    }
    if !store::as_caller(|db| delete::may_delete(db, "tenants"))? {
        return Err(Error::MayNotDelete("tenants").into());
    }
    let items: Result<Vec<_>> = store::with(|db| {
        let items = delete::of_tenant(db, tenant)?;
        if !p_dry_run {
            delete::begin_tenant(db, tenant)?;
        }
        Ok(items)
    });
    if !p_dry_run {
        board::wake_at_commit();
    }
    let items: Items = TableIterator::new(items?);
    Ok(items)
}

/// Deletes the next rows of a connector that is being deleted.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_delete_some(
    p_connector_id: pgrx::Uuid,
    p_after: default!(&str, "''"),
) -> Result<TableIterator<'static, (name!(rows, i64), name!(last, Option<String>))>, ErrorReport> {
    let connector = read_uuid(p_connector_id);
    let step = match store::as_caller(|db| connector::is_visible(db, connector))? {
        false => (0, None),
        true => {
            need_visible_connector(connector)?;
            store::with(|db| delete::some(db, connector, p_after, delete::Wait::ForLock))?
                .unwrap_or((0, None))
        }
    };
    Ok(TableIterator::once(step))
}

/// Says what of one person is stored, and with `p_dry_run => false` erases it.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn connector_service_erase(
    p_expression: Option<&str>,
    p_tenant_id: default!(Option<pgrx::Uuid>, "NULL"),
    p_connector_id: default!(Option<pgrx::Uuid>, "NULL"),
    p_dry_run: default!(Option<bool>, true),
    p_facts: default!(Option<&str>, "'keep'"),
    p_remember: default!(Option<bool>, true),
) -> Result<
    TableIterator<
        'static,
        (
            name!(connector_id, Option<pgrx::Uuid>),
            name!(stream, Option<String>),
            name!(item, String),
            name!(rows, i64),
        ),
    >,
    ErrorReport,
> {
    let p_expression = p_expression.ok_or(Error::Null("p_expression"))?;
    let p_dry_run = p_dry_run.ok_or(Error::Null("p_dry_run"))?;
    let p_facts = p_facts.ok_or(Error::Null("p_facts"))?;
    let p_remember = p_remember.ok_or(Error::Null("p_remember"))?;
    let connector = p_connector_id.map(read_uuid);
    if let Some(connector) = connector
        && !store::as_caller(|db| connector::is_visible(db, connector))?
    {
        return Err(Error::UnknownConnector(connector).into());
    }
    let owner = match connector {
        Some(connector) => store::with(|db| connector::tenant(db, connector))?,
        None => None,
    };
    let tenant = match (p_tenant_id.map(read_uuid), owner) {
        (Some(tenant), None) => tenant,
        (Some(tenant), Some(owner)) if tenant == owner => tenant,
        (Some(_), Some(_)) => {
            return Err(Error::UnknownConnector(connector.unwrap_or_default()).into());
        }
        (None, Some(owner)) => owner,
        (None, None) => return Err(Error::Null("p_tenant_id").into()),
    };
    if !store::as_caller(|db| delete::is_tenant_visible(db, tenant))? {
        return Err(Error::UnknownTenant(tenant).into());
    }
    if !store::as_caller(|db| delete::may_delete(db, "raw_connector_data"))? {
        return Err(Error::MayNotDelete("raw_connector_data").into());
    }
    let erasure = delete::Erasure {
        expression: p_expression,
        tenant,
        connector,
        is_trial: p_dry_run,
        facts: p_facts,
        is_remembered: p_remember,
    };
    let items = store::with(|db| delete::erase(db, &erasure))?;
    if !p_dry_run {
        board::wake_at_commit();
    }
    Ok(TableIterator::new(items))
}

fn need_visible_connector(connector: uuid::Uuid) -> Result<()> {
    if !store::as_caller(|db| connector::is_visible(db, connector))? {
        return Err(Error::UnknownConnector(connector));
    }
    match store::as_caller(|db| delete::may_delete(db, "connectors"))? {
        true => Ok(()),
        false => Err(Error::MayNotDelete("connectors")),
    }
}
