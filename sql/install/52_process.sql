-- process: the facts of stored records, written again or later.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION _connector_service.connector_service_come_due(p_tenant_id uuid DEFAULT NULL) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    UPDATE @extschema@.raw_connector_data r SET processed = false
    FROM @extschema@.quarantine q JOIN @extschema@.tenants t ON t.tenant_id = q.tenant_id
    WHERE q.retry_on <= (now() AT TIME ZONE t.timezone)::date AND q.replayed_at IS NULL AND r.raw_id = q.raw_id AND r.processed
        AND (p_tenant_id IS NULL OR q.tenant_id = p_tenant_id);
END;
COMMENT ON FUNCTION _connector_service.connector_service_come_due(uuid) IS 'Has records processed again whose day was in the future and has come.';

CREATE FUNCTION _connector_service.connector_service_process_connector(p_connector_id uuid, p_records bigint) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    v_raw_ids uuid[];
    v_count bigint := 0;
BEGIN
    -- The records are looked up once, not for each batch: processed records stay in the index for a while.
    FOR v_raw_ids IN
        SELECT array_agg(waiting.raw_id)
        FROM (
            SELECT r.raw_id, (row_number() OVER () - 1) / 1000 AS batch
            FROM (
                -- Records that another transaction is changing are skipped. They follow when it has ended.
                SELECT u.raw_id FROM @extschema@.raw_connector_data u
                WHERE u.connector_id = p_connector_id AND NOT u.processed
                ORDER BY u.ingested_at LIMIT p_records FOR NO KEY UPDATE SKIP LOCKED) AS r) AS waiting
        GROUP BY waiting.batch
    LOOP
        PERFORM _connector_service.connector_service_derive(p_connector_id, NULL::uuid, v_raw_ids, false);
        v_count := v_count + cardinality(v_raw_ids);
    END LOOP;
    RETURN v_count;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_process_connector(uuid, bigint) IS 'Writes the facts of records of a connector that have none yet, at most p_records of them; returns their number. The caller holds the lock of the tenant''s facts.';

CREATE FUNCTION @extschema@.connector_service_process(p_records bigint DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_connector_id uuid;
    v_count bigint := 0;
BEGIN
    PERFORM _connector_service.connector_service_lock(NULL::uuid);
    PERFORM _connector_service.connector_service_come_due();
    FOR v_connector_id IN SELECT c.connector_id FROM @extschema@.connectors c ORDER BY c.connector_id LOOP
        EXIT WHEN v_count >= p_records;
        v_count := v_count + _connector_service.connector_service_process_connector(v_connector_id, p_records - v_count);
    END LOOP;
    PERFORM _connector_service.connector_service_settle();
    RETURN v_count;
END
$$;
COMMENT ON FUNCTION @extschema@.connector_service_process(bigint) IS 'Writes the facts of stored records that have none yet, at most p_records of them (NULL: all), and sums the days that they change. Returns the number of records. The upkeep process does this by itself; call it to have it done now.';

CREATE FUNCTION _connector_service.connector_service_derive_again(p_connector_id uuid) RETURNS bigint LANGUAGE plpgsql
-- By key, even if the planner has no statistics of the table.
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    v_last text := '';
    v_raw_ids uuid[];
    v_count bigint := 0;
    v_kept bigint := 0;
    v_dropped bigint;
    v_page bigint;
    v_shown timestamptz := clock_timestamp();
    v_tenant_id uuid := (SELECT c.tenant_id FROM @extschema@.connectors c WHERE c.connector_id = p_connector_id);
BEGIN
    IF v_tenant_id IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM _connector_service.connector_service_lock(v_tenant_id);
    LOOP
        SELECT coalesce(array_agg(page.raw_id) FILTER (WHERE NOT page.is_dropped), '{}'), max(page.source_record_id),
            count(*), count(*) FILTER (WHERE page.is_dropped)
        INTO v_raw_ids, v_last, v_page, v_dropped
        FROM (
            SELECT r.raw_id, r.source_record_id, r.dropped_at IS NOT NULL AND NOT r.deleted AS is_dropped FROM @extschema@.raw_connector_data r
            WHERE r.connector_id = p_connector_id AND r.source_record_id > v_last
            ORDER BY r.source_record_id LIMIT 1000) AS page;
        EXIT WHEN v_page = 0;
        v_kept := v_kept + v_dropped;
        CONTINUE WHEN cardinality(v_raw_ids) = 0;
        PERFORM _connector_service.connector_service_derive(p_connector_id, NULL::uuid, v_raw_ids, false);
        v_count := v_count + cardinality(v_raw_ids);
        IF clock_timestamp() > v_shown + interval '2 s' THEN
            v_shown := clock_timestamp();
            RAISE NOTICE '% records reprocessed', v_count;
        END IF;
    END LOOP;
    IF v_kept > 0 THEN
        RAISE NOTICE USING
            MESSAGE = format('%s of connector "%s" keep their facts: their JSON was dropped, so no mapping can read them again',
                CASE v_kept WHEN 1 THEN '1 record' ELSE v_kept || ' records' END, p_connector_id),
            HINT = 'Have the source read again for what should follow the current mappings and settings, with connector_service_backfill() or connector_service_refresh().';
    END IF;
    RETURN v_count;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_derive_again(uuid) IS 'Writes the facts of all records of a connector again; returns the number of records. Their days are still to be summed. Takes the lock of the tenant''s facts.';

CREATE FUNCTION _connector_service.connector_service_reprocess_records(p_connector_id uuid) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_count bigint := _connector_service.connector_service_derive_again(p_connector_id);
BEGIN
    PERFORM _connector_service.connector_service_settle(NULL::integer, c.tenant_id) FROM @extschema@.connectors c WHERE c.connector_id = p_connector_id;
    RETURN v_count;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_reprocess_records(uuid) IS 'Does the work of connector_service_reprocess().';

CREATE FUNCTION _connector_service.connector_service_replay_records(p_connector_id uuid) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_raw_ids uuid[];
    v_refused record;
    v_count bigint := 0;
    v_tenant_id uuid := (SELECT c.tenant_id FROM @extschema@.connectors c WHERE c.connector_id = p_connector_id);
BEGIN
    IF v_tenant_id IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM _connector_service.connector_service_lock(v_tenant_id);
    -- A trigger or constraint of the user's refused these records, and may have been dropped since. Other records that are
    -- not stored cannot be: their text is not valid jsonb, or was cut off in the quarantine.
    FOR v_refused IN
        SELECT q.*, c.type FROM @extschema@.quarantine q JOIN @extschema@.connectors c ON c.connector_id = q.connector_id
        WHERE q.connector_id = p_connector_id AND q.replayed_at IS NULL AND q.raw_id IS NULL AND q.source_record_id IS NOT NULL
            AND q.reason_code = 'refused_by_postgres' AND octet_length(q.raw) < 65536
        ORDER BY q.last_seen_at
    LOOP
        BEGIN
            -- A later version that is already stored stays.
            INSERT INTO @extschema@.raw_connector_data AS r (tenant_id, connector_id, source_type, stream, source_record_id, data, content_hash, run_id)
            VALUES (v_refused.tenant_id, v_refused.connector_id, v_refused.type, v_refused.stream, v_refused.source_record_id,
                convert_from(v_refused.raw, 'UTF8')::jsonb, v_refused.content_hash, v_refused.run_id)
            ON CONFLICT (connector_id, source_record_id) DO UPDATE
            SET data = excluded.data, content_hash = excluded.content_hash, stream = excluded.stream, run_id = excluded.run_id,
                ingested_at = now(), processed = false, deleted = false, dropped_at = NULL
            WHERE r.ingested_at < v_refused.last_seen_at;
            UPDATE @extschema@.quarantine SET replayed_at = now() WHERE quarantine_id = v_refused.quarantine_id;
            v_count := v_count + 1;
        EXCEPTION WHEN data_exception OR integrity_constraint_violation OR program_limit_exceeded OR plpgsql_error THEN
            UPDATE @extschema@.quarantine SET occurrences = occurrences + 1, last_seen_at = now() WHERE quarantine_id = v_refused.quarantine_id;
        END;
    END LOOP;
    FOR v_raw_ids IN
        SELECT array_agg(open.raw_id) FROM (
            SELECT q.raw_id, (row_number() OVER (ORDER BY q.raw_id) - 1) / 1000 AS batch FROM @extschema@.quarantine q
            WHERE q.connector_id = p_connector_id AND q.replayed_at IS NULL AND q.raw_id IS NOT NULL
            GROUP BY q.raw_id) AS open
        GROUP BY open.batch
    LOOP
        v_count := v_count + cardinality(v_raw_ids) - _connector_service.connector_service_derive(p_connector_id, NULL::uuid, v_raw_ids, false);
    END LOOP;
    -- Derives the facts of the records that were stored above.
    PERFORM _connector_service.connector_service_process_connector(p_connector_id, NULL::bigint);
    PERFORM _connector_service.connector_service_settle(NULL::integer, v_tenant_id);
    RETURN v_count;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_replay_records(uuid) IS 'Does the work of connector_service_replay().';

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
