-- delete: a connector, or a tenant, with everything that came from it.
--
-- A function cannot commit, and a connector may have millions of records. So the call marks the connector; from then on nothing
-- runs for it, and the upkeep process deletes in batches, each in a transaction of its own. Whatever is killed, the mark stays,
-- and the next process goes on. The row of the connector goes last.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION _connector_service.connector_service_connectors_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM @extschema@.raw_connector_data r WHERE r.connector_id = OLD.connector_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = 'raw_connector_data', CONSTRAINT = 'raw_connector_data_connector_fkey',
            MESSAGE = format('connector "%s" still has records in raw_connector_data', OLD.connector_id),
            DETAIL = 'To delete a connector changes the metrics that its records count in.',
            HINT = format('See what would be deleted: SELECT * FROM %1$I.connector_service_delete(%2$L); to delete it: SELECT * FROM %1$I.connector_service_delete(%2$L, p_dry_run => false);', TG_TABLE_SCHEMA, OLD.connector_id);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_connectors_deleted() IS 'Trigger of connectors: tells how to delete a connector that has records.';
-- Triggers fire in the order of their names: this one before the trigger of the foreign key, RI_ConstraintTrigger, whose message
-- has no hint.
CREATE TRIGGER "CONNECTORS_have_no_records" AFTER DELETE ON @extschema@.connectors
    FOR EACH ROW EXECUTE FUNCTION _connector_service.connector_service_connectors_deleted();

CREATE FUNCTION _connector_service.connector_service_is_deleting() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_TABLE_NAME = 'sync_runs' THEN
        IF NOT EXISTS (SELECT FROM @extschema@.connectors c WHERE c.connector_id = NEW.connector_id AND c.deleting_since IS NOT NULL) THEN
            RETURN NEW;
        END IF;
    ELSIF TG_OP = 'INSERT' AND NOT EXISTS (SELECT FROM @extschema@.tenants t WHERE t.tenant_id = NEW.tenant_id AND t.deleting_since IS NOT NULL) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
        MESSAGE = CASE WHEN TG_TABLE_NAME = 'connectors' AND TG_OP = 'INSERT' THEN format('tenant "%s" is being deleted', NEW.tenant_id)
            ELSE format('connector "%s" is being deleted', NEW.connector_id) END,
        HINT = 'Wait until it is gone. To have the source synced after that, insert a new connector.';
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_is_deleting() IS 'Trigger of connectors and sync_runs: raises 55000 for what would come to life while it is being deleted.';
CREATE TRIGGER connectors_of_deleted_tenant BEFORE INSERT ON @extschema@.connectors
    FOR EACH ROW EXECUTE FUNCTION _connector_service.connector_service_is_deleting();
CREATE TRIGGER connectors_deleting BEFORE UPDATE OF tenant_id, status ON @extschema@.connectors
    FOR EACH ROW WHEN (OLD.deleting_since IS NOT NULL AND (NEW.status <> 'paused' OR NEW.tenant_id <> OLD.tenant_id)) EXECUTE FUNCTION _connector_service.connector_service_is_deleting();
CREATE TRIGGER sync_runs_of_deleted BEFORE INSERT ON @extschema@.sync_runs
    FOR EACH ROW EXECUTE FUNCTION _connector_service.connector_service_is_deleting();

CREATE FUNCTION _connector_service.connector_service_tables_of(p_column name) RETURNS SETOF regclass LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    -- Whatever else the extension has of a connector or a tenant.
    SELECT c.oid::regclass
    FROM pg_extension e
        JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass
        JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r'
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = p_column AND NOT a.attisdropped
    WHERE e.extname = 'connector_service' AND c.relname NOT IN ('connectors', 'tenants', 'metric_facts', 'metric_days_touched')
        AND NOT (p_column = 'connector_id' AND c.relname IN ('raw_connector_data', 'sync_requests'))
    ORDER BY c.relname;
END;
COMMENT ON FUNCTION _connector_service.connector_service_tables_of(name) IS 'The tables with rows of a connector or of a tenant, but those that are deleted in a way of their own: records with their facts, and the requests of runs.';

CREATE FUNCTION _connector_service.connector_service_would_delete(p_connector_id uuid) RETURNS TABLE (item text, rows bigint) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_table regclass;
    v_name name;
BEGIN
    RETURN QUERY SELECT 'connectors', 1::bigint;
    RETURN QUERY SELECT 'raw_connector_data', count(*) FROM @extschema@.raw_connector_data r WHERE r.connector_id = p_connector_id;
    RETURN QUERY
    WITH fact AS MATERIALIZED (
        SELECT f.tenant_id, f.metric_type, f.metric_date FROM @extschema@.raw_connector_data r JOIN @extschema@.metric_facts f ON f.raw_id = r.raw_id
        WHERE r.connector_id = p_connector_id)
    SELECT 'metric_facts', count(*) FROM fact
    UNION ALL SELECT 'metrics that change', count(*) FROM @extschema@.metrics m
        WHERE (m.tenant_id, m.metric_type, m.metric_date) IN (SELECT * FROM fact);
    RETURN QUERY SELECT 'sync_requests', count(*) FROM @extschema@.sync_requests q JOIN @extschema@.sync_runs r ON r.run_id = q.run_id WHERE r.connector_id = p_connector_id;
    RETURN QUERY SELECT 'upload_parts', count(*) FROM @extschema@.upload_parts p JOIN @extschema@.uploads u ON u.upload_id = p.upload_id WHERE u.connector_id = p_connector_id;
    FOR v_table IN SELECT _connector_service.connector_service_tables_of('connector_id') LOOP
        SELECT c.relname INTO v_name FROM pg_class c WHERE c.oid = v_table;
        RETURN QUERY EXECUTE format('SELECT %L::text, count(*) FROM %s WHERE connector_id = $1', v_name, v_table) USING p_connector_id;
    END LOOP;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_would_delete(uuid) IS 'What the deletion of a connector deletes: the number of rows of each table.';

CREATE FUNCTION _connector_service.connector_service_would_delete_tenant(p_tenant_id uuid) RETURNS TABLE (item text, rows bigint) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_table regclass;
    v_name name;
BEGIN
    RETURN QUERY SELECT 'tenants', 1::bigint;
    RETURN QUERY SELECT 'connectors', count(*) FROM @extschema@.connectors c WHERE c.tenant_id = p_tenant_id;
    RETURN QUERY SELECT 'metric_facts', count(*) FROM @extschema@.metric_facts f WHERE f.tenant_id = p_tenant_id;
    FOR v_table IN SELECT _connector_service.connector_service_tables_of('tenant_id') LOOP
        SELECT c.relname INTO v_name FROM pg_class c WHERE c.oid = v_table;
        RETURN QUERY EXECUTE format('SELECT %L::text, count(*) FROM %s WHERE tenant_id = $1', v_name, v_table) USING p_tenant_id;
    END LOOP;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_would_delete_tenant(uuid) IS 'What the deletion of a tenant deletes: the number of rows of each table.';

CREATE FUNCTION _connector_service.connector_service_cancel_all(p_connector_id uuid) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    -- The worker sees that a run is not its own any longer, and stores nothing more for it.
    UPDATE @extschema@.sync_runs r
    SET state = 'cancelled', token = NULL, waiting_for = NULL, retry_at = NULL, finished_at = greatest(clock_timestamp(), r.started_at),
        error_code = 'cancelled', error_message = 'the connector is being deleted'
    WHERE r.connector_id = p_connector_id AND r.state IN ('queued', 'running');
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_cancel_all(uuid) IS 'Cancels all runs of a connector that is being deleted.';

CREATE FUNCTION _connector_service.connector_service_begin_deletion(p_connector_id uuid) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE @extschema@.connectors c SET status = 'paused', next_sync_at = NULL, deleting_since = now()
    WHERE c.connector_id = p_connector_id AND c.deleting_since IS NULL;
    PERFORM _connector_service.connector_service_cancel_all(p_connector_id);
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_begin_deletion(uuid) IS 'Marks a connector as one that is being deleted, and cancels its runs.';

CREATE FUNCTION _connector_service.connector_service_begin_tenant_deletion(p_tenant_id uuid) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE @extschema@.tenants t SET deleting_since = now() WHERE t.tenant_id = p_tenant_id AND t.deleting_since IS NULL;
    PERFORM _connector_service.connector_service_begin_deletion(c.connector_id) FROM @extschema@.connectors c WHERE c.tenant_id = p_tenant_id ORDER BY c.connector_id;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_begin_tenant_deletion(uuid) IS 'Marks a tenant and its connectors as being deleted.';

CREATE FUNCTION _connector_service.connector_service_delete_rows(p_table regclass, p_column name, p_id uuid, p_rows integer) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_count bigint;
BEGIN
    EXECUTE format('DELETE FROM %1$s WHERE ctid = ANY (ARRAY(SELECT d.ctid FROM %1$s d WHERE d.%2$I = $1 LIMIT $2))', p_table, p_column) USING p_id, p_rows;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_delete_rows(regclass, name, uuid, integer) IS 'Deletes at most p_rows rows of a connector or a tenant from a table; returns how many.';

CREATE FUNCTION _connector_service.connector_service_delete_tenant_batch(p_tenant_id uuid, p_rows integer, p_last uuid DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table regclass;
    v_rows bigint := 0;
BEGIN
    IF NOT EXISTS (SELECT FROM @extschema@.tenants t WHERE t.tenant_id = p_tenant_id AND t.deleting_since IS NOT NULL)
        OR EXISTS (SELECT FROM @extschema@.connectors c WHERE c.tenant_id = p_tenant_id AND c.connector_id IS DISTINCT FROM p_last) THEN
        RETURN 0;
    END IF;
    DELETE FROM @extschema@.metric_facts f WHERE f.tenant_id = p_tenant_id;
    -- They keep the text of mappings that are gone.
    DELETE FROM @extschema@.metric_mappings m WHERE m.tenant_id = p_tenant_id;
    DELETE FROM @extschema@.metric_mapping_versions v WHERE v.mapping_id >= 1000 AND (v.definition ->> 'tenant_id')::uuid = p_tenant_id;
    FOR v_table IN SELECT _connector_service.connector_service_tables_of('tenant_id') LOOP
        v_rows := v_rows + _connector_service.connector_service_delete_rows(v_table, 'tenant_id', p_tenant_id, p_rows);
        IF v_rows >= p_rows THEN
            RETURN v_rows;
        END IF;
    END LOOP;
    -- Deleting metrics marks days.
    DELETE FROM @extschema@.metric_days_touched t WHERE t.tenant_id = p_tenant_id;
    IF p_last IS NOT NULL THEN
        RETURN v_rows;
    END IF;
    DELETE FROM @extschema@.tenants t WHERE t.tenant_id = p_tenant_id;
    RETURN v_rows + 1;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_delete_tenant_batch(uuid, integer, uuid) IS 'Deletes the next rows of a tenant that is being deleted and has no connector any more, and in the end the tenant; returns how many, 0 if it is gone. p_last: a connector that it still has; then the tenant stays. The caller holds the lock of the tenant''s facts.';


CREATE FUNCTION _connector_service.connector_service_delete_batch(p_connector_id uuid, p_after text, p_rows integer, OUT rows bigint, OUT last text) LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_raw_ids uuid[];
    v_table regclass;
    v_tenant_id uuid;
BEGIN
    IF NOT EXISTS (SELECT FROM @extschema@.connectors c WHERE c.connector_id = p_connector_id AND c.deleting_since IS NOT NULL) THEN
        rows := 0;
        RETURN;
    END IF;
    rows := _connector_service.connector_service_cancel_all(p_connector_id);
    -- Behind the records of the last batch: what is dead stays in the index for a while.
    FOREACH last IN ARRAY ARRAY[p_after, ''] LOOP
        SELECT array_agg(page.raw_id), max(page.source_record_id) INTO v_raw_ids, last
        FROM (
            SELECT r.raw_id, r.source_record_id FROM @extschema@.raw_connector_data r
            WHERE r.connector_id = p_connector_id AND r.source_record_id > last
            ORDER BY r.source_record_id LIMIT p_rows) AS page;
        EXIT WHEN v_raw_ids IS NOT NULL;
    END LOOP;
    IF v_raw_ids IS NOT NULL THEN
        DELETE FROM @extschema@.raw_connector_data r WHERE r.raw_id = ANY (v_raw_ids);
        rows := rows + cardinality(v_raw_ids);
        RETURN;
    END IF;
    last := '';
    -- Its runs with their requests, its files with their bytes, and what else there is.
    FOR v_table IN SELECT _connector_service.connector_service_tables_of('connector_id') LOOP
        rows := rows + _connector_service.connector_service_delete_rows(v_table, 'connector_id', p_connector_id, p_rows);
        IF rows >= p_rows THEN
            RETURN;
        END IF;
    END LOOP;
    -- Its metrics first: where no connector is left, nobody sums days.
    IF rows = 0 THEN
        rows := _connector_service.connector_service_settle(200, (SELECT c.tenant_id FROM @extschema@.connectors c WHERE c.connector_id = p_connector_id));
    END IF;
    IF rows = 0 THEN
        SELECT c.tenant_id INTO v_tenant_id FROM @extschema@.connectors c WHERE c.connector_id = p_connector_id;
        rows := _connector_service.connector_service_delete_tenant_batch(v_tenant_id, p_rows, p_connector_id);
    END IF;
    IF rows = 0 THEN
        DELETE FROM @extschema@.connectors c WHERE c.connector_id = p_connector_id;
        -- With its last connector a tenant goes that is being deleted: nothing else would look for it.
        rows := 1 + _connector_service.connector_service_delete_tenant_batch(v_tenant_id, p_rows);
    END IF;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_delete_batch(uuid, text, integer) IS 'Deletes the next rows of a connector that is being deleted, about p_rows of them, and in the end, when its metrics are summed, the connector itself; returns how many, 0 if it is gone. p_after and last: the last record that was deleted. The caller holds the lock of the tenant''s facts.';

COMMENT ON FUNCTION @extschema@.connector_service_delete(uuid, boolean) IS 'Tells what the deletion of connector p_connector_id deletes: the number of rows of each table, and how many metrics change. With p_dry_run => false it deletes all of this: the connector is paused at once, its runs are cancelled, and the upkeep process deletes the rows in batches; metrics follow. CALL connector_service_delete_wait() does it in the session. Raises 42704 for a connector that is unknown or another tenant''s, 42501 for a caller who may not delete connectors.';
COMMENT ON FUNCTION @extschema@.connector_service_delete(text, boolean) IS 'connector_service_delete() with the name or id of a connector. Raises 42704 for an unknown one, 21000 if connectors of several tenants have the name.';
COMMENT ON FUNCTION @extschema@.connector_service_delete_tenant(uuid, boolean) IS 'Tells what the deletion of tenant p_tenant_id deletes: the number of rows of each table. With p_dry_run => false it deletes all of this: connectors as in connector_service_delete(), then metrics, alerts, rules, mappings, tokens and the tenant. Raises 42704 for a tenant that is unknown or another one''s, 42501 for a caller who may not delete tenants.';
COMMENT ON FUNCTION @extschema@.connector_service_delete_some(uuid, text) IS 'Deletes the next 1,000 rows of a connector for which connector_service_delete() was called, behind record p_after. Returns how many rows it deleted (0: the connector is gone) and the last record. CALL connector_service_delete_wait() calls it until all is deleted. Raises 42501 for a caller who may not delete connectors.';

CREATE PROCEDURE @extschema@.connector_service_delete_wait(p_connector_id uuid)
LANGUAGE plpgsql
-- No SET search_path here: a procedure that has one cannot COMMIT. Everything is qualified instead, types too.
AS $$
DECLARE
    v_step record;
    v_last pg_catalog.text := '';
    v_count bigint := 0;
    v_began pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    v_shown pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    PERFORM FROM @extschema@.connector_service_delete(p_connector_id, false);
    COMMIT;
    LOOP
        SELECT s.rows, s.last INTO v_step FROM @extschema@.connector_service_delete_some(p_connector_id, v_last) s;
        COMMIT;
        EXIT WHEN v_step.rows OPERATOR(pg_catalog.=) 0;
        v_last := v_step.last;
        v_count := v_count OPERATOR(pg_catalog.+) v_step.rows;
        IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>=) (v_shown OPERATOR(pg_catalog.+) '1 s'::pg_catalog.interval) THEN
            v_shown := pg_catalog.clock_timestamp();
            RAISE NOTICE '% rows deleted', v_count;
        END IF;
    END LOOP;
    RAISE NOTICE 'connector % is deleted: % rows in % s', p_connector_id, v_count,
        pg_catalog.round(EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) v_began), 1);
END
$$;
COMMENT ON PROCEDURE @extschema@.connector_service_delete_wait(uuid) IS 'For psql: deletes connector p_connector_id with everything that came from it, in batches that commit, and shows the progress as notices. If it is interrupted, the upkeep process goes on. Raises as connector_service_delete().';

CREATE PROCEDURE @extschema@.connector_service_delete_wait(p_connector text)
LANGUAGE plpgsql
-- No SET search_path here: a procedure that has one cannot COMMIT. Everything is qualified instead, types too.
AS $$
DECLARE
    v_connector_id pg_catalog.uuid;
BEGIN
    PERFORM FROM @extschema@.connector_service_delete(p_connector, false);
    SELECT c.connector_id INTO v_connector_id FROM @extschema@.connectors c
    WHERE c.deleting_since IS NOT NULL
        AND (c.connector_id::pg_catalog.text OPERATOR(pg_catalog.=) pg_catalog.lower(pg_catalog.btrim(p_connector))
            OR pg_catalog.lower(pg_catalog.btrim(c.name) COLLATE "C") OPERATOR(pg_catalog.=) pg_catalog.lower(pg_catalog.btrim(p_connector) COLLATE "C"))
    -- One of the same name may be on its way already: this is the one that was just marked.
    ORDER BY c.deleting_since DESC LIMIT 1;
    CALL @extschema@.connector_service_delete_wait(v_connector_id);
END
$$;
COMMENT ON PROCEDURE @extschema@.connector_service_delete_wait(text) IS 'connector_service_delete_wait() with the name or id of a connector.';

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
