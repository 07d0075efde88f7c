//! Credentials: they are sealed before they are stored, and never returned.

use connector_service_core::error::Code;
use connector_service_core::fetch;
use connector_service_core::secret::{
    Credentials, Place, SealError, key_ids, open_credentials, public_key, reseal, seal_credentials,
};
use connector_service_core::source::size::check_config;
use connector_service_core::source::{self, Definition, TYPES};
use pgrx::JsonB;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use serde_json::Value;

use super::document::Document;
use crate::error::{Error, Result, warning_of};
use crate::guc;
use crate::store::{self, key, read_uuid};

/// Called by the trigger of `connectors` for a config that is new: raises an error if it is too large for a run.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_check_config(p_config: Option<Document>) -> Result<bool, ErrorReport> {
    let config = p_config.ok_or(Error::Null("p_config"))?;
    let size = config.size().ok_or(Error::ConfigTooLarge)?;
    check_config(size).map_err(Error::ConfigOverLimit)?;
    Ok(true)
}

/// Called by the trigger of `connectors`: seals what is not sealed yet, and raises an error for an invalid
/// definition. `p_old_credentials` are the credentials of the row before.
#[pg_extern(schema = "_connector_service", volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_seal(
    p_tenant_id: Option<pgrx::Uuid>,
    p_connector_id: Option<pgrx::Uuid>,
    p_type: Option<&str>,
    p_config: Option<Document>,
    p_credentials: Option<Document>,
    p_old_tenant_id: Option<pgrx::Uuid>,
    p_old_credentials: Option<Document>,
) -> Result<JsonB, ErrorReport> {
    let place = Place {
        tenant: read_uuid(p_tenant_id.ok_or(Error::Null("p_tenant_id"))?),
        connector: read_uuid(p_connector_id.ok_or(Error::Null("p_connector_id"))?),
    };
    let kind = p_type.ok_or(Error::Null("p_type"))?;
    let config = p_config.ok_or(Error::Null("p_config"))?;
    let given = p_credentials.ok_or(Error::Null("p_credentials"))?;
    let given = given.value().ok_or(Error::CredentialsTooLarge)?;
    let old = p_old_tenant_id
        .zip(p_old_credentials.and_then(|credentials| credentials.value()))
        .map(|(tenant, credentials)| {
            let tenant = read_uuid(tenant);
            (Place { tenant, ..place }, credentials)
        });
    let sealed = seal(&place, &given, old.as_ref());
    // The plain text is wiped, also if it was refused.
    drop(Credentials::from(given));
    let (sealed, opened) = sealed?;
    check_definition(kind, config.value().ok_or(Error::ConfigTooLarge)?, opened)?;
    Ok(JsonB(sealed))
}

/// Seals the credentials, and opens them again to check the whole definition. They stay closed where the key is missing.
fn seal(
    place: &Place,
    given: &Value,
    old: Option<&(Place, Value)>,
) -> Result<(Value, Option<Credentials>)> {
    if given.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok((given.clone(), Some(Credentials::default())));
    }
    let old = old.map(|(place, value)| (place, value));
    store::with(|db| {
        let keys = key::load(db)?;
        // Credentials from a dump are sealed already, and can be restored before the key file is there.
        let (keys, sealed) = match seal_credentials(keys.as_ref(), place, given, old) {
            Err(SealError::NoKey { .. }) => {
                let keys = key::for_sealing(db)?;
                let sealed = seal_credentials(Some(&keys), place, given, old)?;
                (Some(keys), sealed)
            }
            sealed => (keys, sealed?),
        };
        for (field, key) in &sealed.unopened {
            warning!(
                "credential \"{field}\" is sealed with key {key}, which is not in the key file; the credential cannot be used until the key is there"
            );
        }
        let opened = keys.map(|keys| open_credentials(&keys, place, &sealed.credentials));
        match opened.transpose() {
            Ok(opened) => Ok((sealed.credentials, opened)),
            Err(SealError::KeyMissing { .. }) => Ok((sealed.credentials, None)),
            Err(error) => Err(error.into()),
        }
    })
}

fn check_definition(kind: &str, config: Value, credentials: Option<Credentials>) -> Result<()> {
    if !TYPES.contains(&kind) {
        return Err(Error::UnknownType(kind.to_owned()));
    }
    if !config.is_object() {
        // Checked here, because the message of a constraint would show the row.
        return Err(Error::ConfigNotAnObject);
    }
    let Some(credentials) = credentials else {
        return Ok(());
    };
    let definition = Definition {
        config,
        credentials,
        limits: guc::record_limits(),
    };
    let opened = source::find(kind).map(|source| {
        source.hook(&definition)?;
        source.open(&definition)
    });
    match opened {
        // A connector may be inserted before its secrets are known.
        Ok(Err(failure)) if failure.code == Code::CredentialsMissing => {
            warning_of(&failure).report(PgLogLevel::WARNING);
            Ok(())
        }
        Ok(opened) => {
            // A warning only: the allowed hosts are settings of the server, and a dump must restore on any server.
            if let Err(failure) =
                fetch::check_addresses(opened?.as_ref(), &guc::allowed_private_hosts())
            {
                warning_of(&failure).report(PgLogLevel::WARNING);
            }
            Ok(())
        }
        Err(failure) => {
            warning!("{failure}");
            Ok(())
        }
    }
}

/// The public key that clients encrypt boxes for: X25519, in base64. Creates the key file if there is none.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_seal_key() -> Result<String, ErrorReport> {
    Ok(store::with(|db| Ok(public_key(&key::for_sealing(db)?)))?)
}

/// Where the key file is, or will be; NULL where the library was not preloaded.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_key_file() -> Option<String> {
    let place = key::place().ok()?;
    Some(place.path.to_string_lossy().into_owned())
}

/// Puts a new key in front of the key file; returns its id.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_new_key() -> Result<String, ErrorReport> {
    Ok(store::with(|db| {
        Ok(key::rotate(db)?.current().id().to_string())
    })?)
}

/// Deletes a key from the key file, if nothing in this database is sealed with it.
#[pg_extern(volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_retire_key(p_key_id: &str) -> Result<(), ErrorReport> {
    Ok(store::with(|db| key::retire(db, p_key_id))?)
}

/// Seals the same credentials with the current key.
#[pg_extern(schema = "_connector_service", volatile, parallel_unsafe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_reseal(
    p_tenant_id: pgrx::Uuid,
    p_connector_id: pgrx::Uuid,
    p_credentials: Document,
) -> Result<JsonB, ErrorReport> {
    let place = Place {
        tenant: read_uuid(p_tenant_id),
        connector: read_uuid(p_connector_id),
    };
    let credentials = p_credentials.value().ok_or(Error::CredentialsTooLarge)?;
    let resealed = store::with(|db| {
        let keys = key::for_sealing(db)?;
        Ok(reseal(&keys, &place, &credentials)?)
    })?;
    Ok(JsonB(resealed.unwrap_or(credentials)))
}

/// The ids of the keys that credentials are sealed with.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe, strict)]
#[search_path(pg_catalog, pg_temp)]
fn connector_service_key_ids(p_credentials: Document) -> Vec<String> {
    let ids = p_credentials
        .value()
        .map(|credentials| key_ids(&credentials));
    ids.iter().flatten().map(ToString::to_string).collect()
}
