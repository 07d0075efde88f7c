-- Refuse what could only fail later: records are UTF-8 text, and no other encoding holds them all.
DO $guard$
BEGIN
    IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'feature_not_supported',
            MESSAGE = pg_catalog.format('connector_service needs a database with encoding UTF8, not %s', pg_catalog.getdatabaseencoding()),
            HINT = 'CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0, and create the extension there.';
    END IF;
    -- A table or function of ours that exists makes its CREATE fail; one for other arguments would not, and might be
    -- taken for ours where it fits a call better.
    IF EXISTS (
        SELECT FROM pg_catalog.pg_proc p
        WHERE p.pronamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
            AND (p.proname OPERATOR(pg_catalog.~) '^connector_service_'
                OR p.proname OPERATOR(pg_catalog.=) ANY ('{get_metrics,aggregate_metrics,validate_metric,check_missing_data,refresh_monthly_revenue}'::pg_catalog.name[]))) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'duplicate_function',
            MESSAGE = 'schema @extschema@ holds a function with the name of one of this extension''s',
            HINT = E'Look at what is there (\\df connector_service_*), and drop or rename it, or choose another schema.';
    END IF;
    -- What is in it would lie among this extension's own functions.
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) '_connector_service') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'duplicate_schema',
            MESSAGE = 'schema _connector_service exists already',
            DETAIL = 'The extension makes this schema for its internal functions.',
            HINT = E'Look at what is there (\\df _connector_service.*), and drop or rename the schema.';
    END IF;
END
$guard$;

-- What users call is in the schema that they chose; all other functions are here. The IF NOT EXISTS that follows in the
-- script is pgrx's, and finds this schema.
CREATE SCHEMA _connector_service;
COMMENT ON SCHEMA _connector_service IS 'Internal functions of connector_service. Only connector_service_engine may use it; it may change with every version.';
