-- Refuse what could only fail later: records are UTF-8 text, and no other encoding holds them all.
DO $guard$
BEGIN
    IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'feature_not_supported',
            MESSAGE = pg_catalog.format('connector_service needs a database with encoding UTF8, not %s', pg_catalog.getdatabaseencoding()),
            HINT = 'Make another database (CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0), and create the extension there.';
    END IF;
    -- CREATE fails where a table or function of this extension already exists. It does not fail for a function of the same
    -- name with other arguments, and PostgreSQL could call that function instead of ours.
    IF EXISTS (
        SELECT FROM pg_catalog.pg_proc p
        WHERE p.pronamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
            AND (p.proname OPERATOR(pg_catalog.~) '^connector_service_'
                OR p.proname OPERATOR(pg_catalog.=) ANY ('{get_metrics,aggregate_metrics,validate_metric,check_missing_data,refresh_monthly_revenue}'::pg_catalog.name[]))) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'duplicate_function',
            MESSAGE = 'schema @extschema@ already has a function with a name of this extension',
            HINT = E'Find it with \\df connector_service_*, and drop or rename it, or choose another schema.';
    END IF;
    -- Objects of somebody else must not be among this extension's internal functions.
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) '_connector_service') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'duplicate_schema',
            MESSAGE = 'schema "_connector_service" already exists',
            DETAIL = 'The extension creates this schema for its internal functions.',
            HINT = E'List what is in it with \\df _connector_service.*, and drop or rename the schema.';
    END IF;
END
$guard$;

-- What users call is in the schema that they chose; all other functions are here. The IF NOT EXISTS that follows in the
-- script is pgrx's, and finds this schema.
CREATE SCHEMA _connector_service;
COMMENT ON SCHEMA _connector_service IS 'Internal functions of connector_service. Only connector_service_engine may use it; it may change with every version.';
