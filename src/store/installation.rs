//! `installation`: what is installed here, and whether this database is a copy.

use super::Db;
use crate::error::{Error, Result};

/// What the worker reads with every poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub version: String,
    /// Why nothing may be fetched. `None`: it may.
    pub held: Option<String>,
    pub has_pg_cron: bool,
    pub has_connectors: bool,
    pub has_tenants: Tenants,
    /// The schema that it was installed in, if that was renamed.
    pub moved_from: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenants {
    One,
    Several,
}

/// The schema of the extension, quoted.
pub fn schema(db: &mut Db) -> Result<String> {
    let rows = db.run(
        "SELECT pg_catalog.quote_ident(n.nspname)
         FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
         WHERE e.extname OPERATOR(pg_catalog.=) 'connector_service'",
        &[],
    )?;
    rows.get::<String>(0, 1)?.ok_or(Error::NotInstalled)
}

pub fn read(db: &mut Db) -> Result<Installation> {
    let rows = db.run(
        "SELECT e.extversion, EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_cron'),
            CASE
                WHEN i.only_row IS NULL THEN 'the table installation has no row'
                WHEN i.held_since IS NOT NULL THEN i.held_because
                WHEN i.system_identifier <> s.system_identifier THEN 'the extension was installed on another server'
                WHEN i.database_oid <> d.oid THEN 'this database is a copy of another database'
                -- By the index, from both ends.
                WHEN EXISTS (SELECT FROM @extschema@.connectors c WHERE c.installation_id < i.installation_id)
                    OR EXISTS (SELECT FROM @extschema@.connectors c WHERE c.installation_id > i.installation_id)
                    OR EXISTS (SELECT FROM @extschema@.connectors c WHERE c.installation_id IS NULL) THEN 'connectors were restored from a dump'
            END,
            EXISTS (SELECT FROM @extschema@.connectors), EXISTS (SELECT FROM @extschema@.tenants OFFSET 1),
            (SELECT nullif(_connector_service.connector_service_installed_in(), pg_catalog.quote_ident(n.nspname)) FROM pg_catalog.pg_namespace n WHERE n.oid = e.extnamespace)
         FROM pg_catalog.pg_extension e LEFT JOIN @extschema@.installation i ON true, pg_catalog.pg_control_system() s,
            pg_catalog.pg_database d
         WHERE e.extname = 'connector_service' AND d.datname = pg_catalog.current_database()",
        &[],
    )?;
    Ok(Installation {
        version: rows.need(0, 1)?,
        has_pg_cron: rows.need(0, 2)?,
        held: rows.get(0, 3)?,
        has_connectors: rows.need(0, 4)?,
        has_tenants: match rows.need(0, 5)? {
            true => Tenants::Several,
            false => Tenants::One,
        },
        moved_from: rows.get(0, 6)?,
    })
}

/// Why no statement of ours works, if a person moved what they name: the internal schema was renamed, or objects belong to another
/// role. Reads catalogs only, and calls no function of ours.
pub fn displaced(db: &mut Db) -> Result<Option<String>> {
    let rows = db.run(
        "WITH extension AS (SELECT e.oid FROM pg_catalog.pg_extension e WHERE e.extname = 'connector_service')
         SELECT coalesce(
            (SELECT pg_catalog.format('schema _connector_service was renamed to %I', n.nspname)
             FROM extension e JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
                AND d.classid = 'pg_catalog.pg_namespace'::regclass JOIN pg_catalog.pg_namespace n ON n.oid = d.objid
             WHERE n.nspname <> '_connector_service' LIMIT 1),
            (SELECT pg_catalog.format('%s tables of the extension belong to role \"%s\", and not to connector_service_engine', count(*), min(pg_catalog.pg_get_userbyid(c.relowner)))
             FROM extension e JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
                AND d.classid = 'pg_catalog.pg_class'::regclass JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind = 'r'
             WHERE pg_catalog.pg_get_userbyid(c.relowner) <> 'connector_service_engine' HAVING count(*) > 0))",
        &[],
    )?;
    rows.get(0, 1)
}

/// The name of this database.
pub fn database(db: &mut Db) -> Result<String> {
    db.run("SELECT pg_catalog.current_database()::text", &[])?
        .need(0, 1)
}

/// The names of databases.
pub fn names(db: &mut Db, oids: Vec<u32>) -> Result<Vec<String>> {
    let oids: Vec<i64> = oids.into_iter().map(i64::from).collect();
    let rows = db.run(
        "SELECT d.datname::text FROM pg_catalog.pg_database d WHERE d.oid::bigint = ANY ($1) ORDER BY d.oid",
        &[oids.into()],
    )?;
    (0..rows.count).map(|row| rows.need(row, 1)).collect()
}

/// Limits the wait for locks, for a process in which every wait holds up all other work.
pub fn limit_lock_waits() -> Result<()> {
    super::tx_as_superuser(|db| {
        db.run(
            "SELECT pg_catalog.set_config('lock_timeout', '300ms', false)",
            &[],
        )?;
        Ok(())
    })
}

/// Bounds the session of a process whose statements may take long: how long it waits for a row, how much it writes to
/// temporary files, and that it takes no parallel workers.
pub fn bound_session() -> Result<()> {
    super::tx_as_superuser(|db| {
        db.run(
            "SELECT pg_catalog.set_config(name, value, false) FROM (VALUES
                ('lock_timeout', '1s'), ('temp_file_limit', '4GB'), ('max_parallel_workers_per_gather', '0')) AS setting(name, value)",
            &[],
        )?;
        Ok(())
    })
}

/// Sets the settings of the worker's session. All its statements use keys, so plans are restricted to indexes: a table that
/// grows fast has no statistics yet, and one wrong plan is ten times slower. Settings of a database, a role or the server
/// must not change what is stored or end the process. Settings that the server does not know are left out:
/// `transaction_timeout`, which would end the process, came with PostgreSQL 17.
pub fn prepare_session() -> Result<()> {
    super::tx_as_superuser(|db| {
        db.run(
            "SELECT pg_catalog.set_config(name, value, false) FROM (VALUES
                ('application_name', 'connector_service'), ('search_path', 'pg_catalog, pg_temp'), ('lc_messages', 'C'), ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'),
                ('enable_mergejoin', 'off'), ('jit', 'off'), ('lock_timeout', '50ms'), ('statement_timeout', '0'),
                ('transaction_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), ('row_security', 'on'), ('default_transaction_isolation', 'read committed'),
                ('default_transaction_read_only', 'off'), ('deadlock_timeout', '500ms'), ('DateStyle', 'ISO'), ('TimeZone', 'UTC'),
                ('session_replication_role', 'origin'), ('default_transaction_deferrable', 'off'), ('default_tablespace', ''),
                ('array_nulls', 'on'), ('quote_all_identifiers', 'off'), ('transform_null_equals', 'off'), ('standard_conforming_strings', 'on'),
                ('IntervalStyle', 'postgres'), ('bytea_output', 'hex'), ('extra_float_digits', '1'),
                ('enable_indexscan', 'on'), ('enable_indexonlyscan', 'on'), ('enable_bitmapscan', 'on'), ('enable_nestloop', 'on'),
                ('enable_sort', 'on'), ('plan_cache_mode', 'auto'), ('force_parallel_mode', 'off'), ('debug_parallel_query', 'off')
            ) AS setting(name, value)
            WHERE pg_catalog.current_setting(name, true) IS NOT NULL",
            &[],
        )?;
        Ok(())
    })
}
