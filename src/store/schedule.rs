//! The jobs of pg_cron that queue due connectors, whoever owns them.

use std::ffi::CStr;

use pgrx::prelude::*;

use super::{Db, access};
use crate::error::Result;

pub const FREQUENCIES: [&str; 3] = ["hourly", "daily", "weekly"];

/// The frequencies whose due connectors pg_cron queues.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Covered([bool; 3]);

impl Covered {
    pub const NONE: Covered = Covered([false; 3]);
    pub const ALL: Covered = Covered([true; 3]);

    pub fn names(self) -> Vec<&'static str> {
        let names = FREQUENCIES.into_iter().zip(self.0);
        names
            .filter_map(|(name, is_in)| is_in.then_some(name))
            .collect()
    }
}

/// The frequencies for which pg_cron has a job that works: it is for this database and this server, pg_cron runs, and the owner
/// of the job may queue the connectors of all tenants. Read with the rights of the owner of pg_cron's table, because each other
/// role sees only its own jobs.
pub fn covered(db: &mut Db) -> Result<Covered> {
    // Without its library pg_cron runs nothing.
    let runs = setting(c"cron.database_name").is_some()
        && setting(c"cron.launch_active_jobs").is_none_or(|value| value != "off");
    if !runs {
        return Ok(Covered::NONE);
    }
    let connects_by_itself =
        setting(c"cron.use_background_workers").is_some_and(|value| value == "on");
    let rows = db.run(
        "SELECT c.relowner FROM pg_catalog.pg_extension e
            JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
                AND d.classid = 'pg_catalog.pg_class'::regclass
            JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'r' AND c.relname = 'job'
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'cron'
         WHERE e.extname = 'pg_cron'",
        &[],
    )?;
    let Some(owner) = rows.get::<pg_sys::Oid>(0, 1)? else {
        return Ok(Covered::NONE);
    };
    let names = access::as_role_of(owner, || {
        let rows = db.run(
            "SELECT DISTINCT f.frequency
             FROM cron.job j JOIN pg_catalog.pg_roles r ON r.rolname = j.username CROSS JOIN unnest('{hourly,daily,weekly}'::text[]) AS f(frequency)
             WHERE j.active AND j.database = current_database() AND j.command ~ 'connector_service_sync'
                AND (j.command ~ 'connector_service_sync_due[[:space:]]*[(][[:space:]]*[)]' OR j.command ~ f.frequency OR j.command !~ 'hourly|daily|weekly')
                AND (j.nodeport = current_setting('port')::integer OR $1)
                AND (r.rolsuper OR (r.rolbypassrls OR pg_has_role(r.oid, 'connector_service_admin', 'USAGE')) AND EXISTS (
                    SELECT FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_proc p ON p.pronamespace = e.extnamespace
                    WHERE e.extname = 'connector_service' AND has_schema_privilege(r.oid, e.extnamespace, 'USAGE') AND has_function_privilege(r.oid, p.oid, 'EXECUTE')
                        AND p.proname = CASE WHEN j.command ~ 'connector_service_sync_due' THEN 'connector_service_sync_due' ELSE 'connector_service_sync' END))",
            &[connects_by_itself.into()],
        )?;
        (0..rows.count)
            .map(|row| rows.need::<String>(row, 1))
            .collect::<Result<Vec<_>>>()
    })?;
    Ok(Covered(
        FREQUENCIES.map(|known| names.iter().any(|name| name == known)),
    ))
}

/// A setting of another library, which the caller may not be allowed to see. `None`: the server does not know it.
fn setting(name: &CStr) -> Option<String> {
    // SAFETY: the main thread; a string that lives as long as the setting is not changed, and is copied.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
    }
}
