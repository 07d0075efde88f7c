-- restore: what pg_restore loads is taken as it is.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION _connector_service.connector_service_restore_begins() RETURNS trigger LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'connector_service_restore_begins_wrapper';
COMMENT ON FUNCTION _connector_service.connector_service_restore_begins() IS 'Trigger: a superuser''s pg_restore loads rows as they were dumped, in whatever order the tables come, without foreign keys and triggers.';
CREATE FUNCTION _connector_service.connector_service_restore_ends() RETURNS trigger LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'connector_service_restore_ends_wrapper';
COMMENT ON FUNCTION _connector_service.connector_service_restore_ends() IS 'Trigger: foreign keys and triggers are back when the rows are loaded.';

CREATE FUNCTION _connector_service.connector_service_orphans() RETURNS TABLE (table_name text, constraint_name text, rows bigint) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_key record;
BEGIN
    FOR v_key IN
        SELECT k.conrelid::regclass AS child, k.confrelid::regclass AS parent, k.conname,
            string_agg(format('c.%I = p.%I', a.attname, b.attname), ' AND ' ORDER BY n.n) AS joined,
            string_agg(format('c.%I IS NOT NULL', a.attname), ' AND ' ORDER BY n.n) AS known
        FROM pg_constraint k CROSS JOIN LATERAL unnest(k.conkey, k.confkey) WITH ORDINALITY AS n(child, parent, n)
            JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = n.child
            JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = n.parent
        WHERE k.contype = 'f' AND k.conrelid IN (
            SELECT d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service'
            WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass)
        GROUP BY k.oid, k.conrelid, k.confrelid, k.conname ORDER BY k.conname
    LOOP
        RETURN QUERY EXECUTE format('SELECT %L, %L, count(*) FROM %s c WHERE %s AND NOT EXISTS (SELECT FROM %s p WHERE %s) HAVING count(*) > 0',
            v_key.child, v_key.conname, v_key.child, v_key.known, v_key.parent, v_key.joined);
    END LOOP;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_orphans() IS 'Rows that refer to a row that is not there, by foreign key: what a restore that did not end leaves behind.';

CREATE FUNCTION _connector_service.connector_service_check_orphans() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_list text;
BEGIN
    SELECT string_agg(format('%s of %s (%s)', o.rows, o.table_name, o.constraint_name), ', ') INTO v_list FROM _connector_service.connector_service_orphans() o;
    IF v_list IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation',
            MESSAGE = 'rows refer to rows that are not there, so this copy is not adopted',
            DETAIL = format('It looks like a restore that did not end, or that left a table out. Rows: %s.', v_list),
            HINT = 'Restore the dump again into an empty database, and look at what pg_restore reports. Or delete these rows.';
    END IF;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_check_orphans() IS 'Raises 23503 for a restore that is not complete.';

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
