-- Refuse what could only fail later: records are UTF-8 text, and no other encoding holds them all.
DO $guard$
BEGIN
    IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'feature_not_supported',
            MESSAGE = pg_catalog.format('connector_service needs a database with encoding UTF8, not %s', pg_catalog.getdatabaseencoding()),
            HINT = 'CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0, and create the extension there.';
    END IF;
END
$guard$;
