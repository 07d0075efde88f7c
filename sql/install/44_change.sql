-- change: stored records that change otherwise than by a sync, and what their facts do then.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION _connector_service.connector_service_raw_before_update() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.raw_id <> OLD.raw_id THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = format('raw_id of record "%s" cannot be changed', OLD.source_record_id),
            DETAIL = 'Facts and the quarantine refer to the record by this id.';
    END IF;
    NEW.processed := false;
    IF NEW.data IS DISTINCT FROM OLD.data THEN
        NEW.dropped_at := NULL;
    END IF;
    -- A hash is valid only for the text that it was made of.
    IF NEW.data IS DISTINCT FROM OLD.data AND NEW.content_hash IS NOT DISTINCT FROM OLD.content_hash THEN
        NEW.content_hash := NULL;
    END IF;
    -- Nothing is left that could tell its facts again but the source, which is to be heard although it has nothing new to say.
    IF OLD.deleted AND NOT NEW.deleted AND NEW.dropped_at IS NOT NULL THEN
        NEW.content_hash := NULL;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_raw_before_update() IS 'Trigger of raw_connector_data: a record that is changed by hand is processed again.';
-- A sync that changes a record names its run, and writes the facts itself.
CREATE TRIGGER raw_connector_data_before_update BEFORE UPDATE ON @extschema@.raw_connector_data
    -- To drop the JSON changes no fact.
    FOR EACH ROW WHEN (NEW.run_id IS NOT DISTINCT FROM OLD.run_id AND (NEW.dropped_at IS NULL OR NEW.dropped_at IS NOT DISTINCT FROM OLD.dropped_at)
        AND (NEW.raw_id <> OLD.raw_id OR NEW.connector_id <> OLD.connector_id OR NEW.stream <> OLD.stream
            OR NEW.deleted <> OLD.deleted OR NEW.data IS DISTINCT FROM OLD.data))
    EXECUTE FUNCTION _connector_service.connector_service_raw_before_update();

-- Unprocessed rows wake the worker. Rows of a run do not: the process that stores them wakes the worker itself, when it is
-- time. The worker finds rows that somebody copies with a run_id within a minute.
CREATE TRIGGER raw_connector_data_unprocessed AFTER INSERT ON @extschema@.raw_connector_data
    FOR EACH ROW WHEN (NOT NEW.processed AND NEW.run_id IS NULL) EXECUTE FUNCTION _connector_service.connector_service_wake_after();
CREATE TRIGGER raw_connector_data_changed AFTER UPDATE ON @extschema@.raw_connector_data
    FOR EACH ROW WHEN (NOT NEW.processed) EXECUTE FUNCTION _connector_service.connector_service_wake_after();

CREATE FUNCTION _connector_service.connector_service_type_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE @extschema@.raw_connector_data SET processed = false WHERE connector_id = NEW.connector_id AND dropped_at IS NULL;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_type_changed() IS 'Trigger of connectors: a connector with another type has other mappings, so its records are processed again.';
CREATE TRIGGER connectors_type_changed AFTER UPDATE OF type ON @extschema@.connectors
    FOR EACH ROW WHEN (NEW.type <> OLD.type) EXECUTE FUNCTION _connector_service.connector_service_type_changed();

CREATE FUNCTION _connector_service.connector_service_lock_first() RETURNS trigger LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'connector_service_lock_first_wrapper';
COMMENT ON FUNCTION _connector_service.connector_service_lock_first() IS 'Trigger: locks the facts of the tenants that the caller sees, before rows are deleted, in the same order as everybody else.';
CREATE TRIGGER raw_connector_data_before_delete BEFORE DELETE ON @extschema@.raw_connector_data
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_lock_first();
CREATE TRIGGER connectors_before_delete BEFORE DELETE ON @extschema@.connectors
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_lock_first();
CREATE TRIGGER tenants_before_delete BEFORE DELETE ON @extschema@.tenants
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_lock_first();

CREATE FUNCTION _connector_service.connector_service_raw_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM deleted_raw) THEN
        RETURN NULL;
    END IF;
    WITH gone AS (
        DELETE FROM @extschema@.metric_facts f USING deleted_raw d WHERE f.raw_id = d.raw_id
        RETURNING f.tenant_id, f.metric_type, f.metric_date)
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT DISTINCT gone.tenant_id, gone.metric_type, gone.metric_date FROM gone;
    -- A record that was deleted on purpose, for instance personal data, must not stay in the quarantine either.
    DELETE FROM @extschema@.quarantine q USING deleted_raw d WHERE q.raw_id = d.raw_id;
    -- The days of a connector that is being deleted are summed at the end, and not with each batch of its records.
    PERFORM _connector_service.connector_service_settle(NULL::integer, d.tenant_id)
    FROM (SELECT DISTINCT r.tenant_id FROM deleted_raw r
          WHERE NOT EXISTS (SELECT FROM @extschema@.connectors c WHERE c.connector_id = r.connector_id AND c.deleting_since IS NOT NULL)) AS d;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_raw_deleted() IS 'Trigger of raw_connector_data: deletes the facts of deleted records, and sums their days again.';
CREATE TRIGGER raw_connector_data_deleted AFTER DELETE ON @extschema@.raw_connector_data
    REFERENCING OLD TABLE AS deleted_raw FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_raw_deleted();

CREATE FUNCTION _connector_service.connector_service_raw_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _connector_service.connector_service_lock(NULL::uuid);
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT DISTINCT f.tenant_id, f.metric_type, f.metric_date FROM @extschema@.metric_facts f;
    DELETE FROM @extschema@.metric_facts;
    DELETE FROM @extschema@.quarantine q WHERE q.raw_id IS NOT NULL;
    PERFORM _connector_service.connector_service_settle();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_raw_truncated() IS 'Trigger of raw_connector_data: deletes all facts after TRUNCATE, and sums their days again.';
CREATE TRIGGER raw_connector_data_truncated AFTER TRUNCATE ON @extschema@.raw_connector_data
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_raw_truncated();

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
