-- verify: everything derived again, and compared with what is there.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION _connector_service.connector_service_expected(p_connector_id uuid, p_raw_ids uuid[]) RETURNS SETOF @extschema@.metric_facts LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_middle integer := cardinality(p_raw_ids) / 2;
    v_facts @extschema@.metric_facts[];
BEGIN
    -- Records whose mapping cost too much have no facts.
    p_raw_ids := ARRAY(
        SELECT wanted.id FROM unnest(p_raw_ids) AS wanted(id)
        WHERE NOT EXISTS (SELECT FROM @extschema@.quarantine q WHERE q.raw_id = wanted.id AND q.reason_code = 'too_costly' AND q.replayed_at IS NULL));
    WITH extracted AS MATERIALIZED (SELECT x.* FROM _connector_service.connector_service_extract(p_connector_id, p_raw_ids) x)
    SELECT array_agg(ROW(x.raw_id, x.mapping_id, x.item, x.version, x.tenant_id, x.connector_id, x.metric_type, x.metric_date, x.category,
        x.currency, x.value, x.distinct_value, x.metric_time)::@extschema@.metric_facts) INTO v_facts
    FROM extracted x
    WHERE NOT EXISTS (SELECT FROM extracted w WHERE w.problem IS NOT NULL AND w.raw_id = x.raw_id AND w.mapping_id = x.mapping_id);
    RETURN QUERY SELECT * FROM unnest(v_facts);
EXCEPTION WHEN data_exception OR program_limit_exceeded OR undefined_object OR feature_not_supported OR statement_too_complex THEN
    -- As in connector_service_derive(): a record that a path cannot be evaluated on has no facts.
    IF v_middle > 0 THEN
        RETURN QUERY SELECT * FROM _connector_service.connector_service_expected(p_connector_id, p_raw_ids[:v_middle]);
        RETURN QUERY SELECT * FROM _connector_service.connector_service_expected(p_connector_id, p_raw_ids[v_middle + 1:]);
    END IF;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_expected(uuid, uuid[]) IS 'The facts that records of a connector should have.';

CREATE FUNCTION @extschema@.connector_service_verify(p_tenant_id uuid DEFAULT NULL)
RETURNS TABLE (tenant_id uuid, metric_type text, metric_date date, item text, stored text, expected text) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' SET enable_hashjoin = on SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    v_connector_id uuid;
    v_last text;
    v_raw_ids uuid[];
BEGIN
    PERFORM @extschema@.connector_service_process();
    FOR v_connector_id IN
        SELECT c.connector_id FROM @extschema@.connectors c WHERE p_tenant_id IS NULL OR c.tenant_id = p_tenant_id ORDER BY c.connector_id
    LOOP
        v_last := '';
        LOOP
            SELECT array_agg(page.raw_id), max(page.source_record_id) INTO v_raw_ids, v_last
            FROM (
                -- What was dropped cannot be derived again; its facts are what they were.
                SELECT r.raw_id, r.source_record_id FROM @extschema@.raw_connector_data r
                WHERE r.connector_id = v_connector_id AND r.source_record_id > v_last AND (r.dropped_at IS NULL OR r.deleted)
                ORDER BY r.source_record_id LIMIT 10000) AS page;
            EXIT WHEN v_raw_ids IS NULL;
            RETURN QUERY
            WITH wanted AS MATERIALIZED (
                SELECT x.raw_id, x.mapping_id, x.item, x.tenant_id, x.metric_type, x.metric_date, x.category, x.currency, x.value,
                    x.distinct_value, x.metric_time
                FROM _connector_service.connector_service_expected(v_connector_id, v_raw_ids) x),
            present AS MATERIALIZED (
                SELECT f.raw_id, f.mapping_id, f.item, f.tenant_id, f.metric_type, f.metric_date, f.category, f.currency, f.value,
                    f.distinct_value, f.metric_time
                FROM @extschema@.metric_facts f WHERE f.raw_id = ANY (v_raw_ids)),
            difference AS (
                SELECT d.*, true AS is_stored FROM (SELECT * FROM present EXCEPT SELECT * FROM wanted) d
                UNION ALL SELECT d.*, false FROM (SELECT * FROM wanted EXCEPT SELECT * FROM present) d)
            SELECT d.tenant_id, d.metric_type, d.metric_date, format('fact of record %s, mapping %s, item %s', d.raw_id, d.mapping_id, d.item),
                CASE WHEN d.is_stored THEN concat_ws(' ', d.value, nullif(d.currency, ''), d.category, d.distinct_value, d.metric_time) END,
                CASE WHEN NOT d.is_stored THEN concat_ws(' ', d.value, nullif(d.currency, ''), d.category, d.distinct_value, d.metric_time) END
            FROM difference d;
        END LOOP;
    END LOOP;
    RETURN QUERY
    SELECT f.tenant_id, f.metric_type, f.metric_date, format('fact of record %s, which no longer exists', f.raw_id), f.value::text, NULL
    FROM @extschema@.metric_facts f
    WHERE (p_tenant_id IS NULL OR f.tenant_id = p_tenant_id)
        AND NOT EXISTS (SELECT FROM @extschema@.raw_connector_data r WHERE r.raw_id = f.raw_id);
    -- A connector that is left out for others that have nothing any more would be missing in silence.
    RETURN QUERY
    SELECT d.tenant_id, d.metric_type, NULL::date, format('decision on connector %s, %s', d.connector_id, d.part), 'left out for others', 'counted, because they have no facts'
    FROM @extschema@.count_decisions d
    WHERE (p_tenant_id IS NULL OR d.tenant_id = p_tenant_id) AND NOT d.counts AND d.decided_by = 'worker'
        AND NOT EXISTS (SELECT FROM @extschema@.count_due c WHERE c.tenant_id = d.tenant_id AND c.metric_type = d.metric_type)
        AND NOT EXISTS (SELECT FROM @extschema@.metric_facts f
            WHERE f.tenant_id = d.tenant_id AND f.metric_type = d.metric_type AND f.connector_id = ANY (d.against));
    RETURN QUERY
    WITH day AS (
        SELECT array_agg(d.tenant_id) AS tenant_ids, array_agg(d.metric_type) AS metric_types, array_agg(d.metric_date) AS metric_dates
        FROM (SELECT DISTINCT f.tenant_id, f.metric_type, f.metric_date FROM @extschema@.metric_facts f
              WHERE (p_tenant_id IS NULL OR f.tenant_id = p_tenant_id) AND f.metric_type IN ('revenue', 'inventory', 'staffing', 'costs')) AS d),
    summed AS (SELECT s.* FROM day, _connector_service.connector_service_sums(day.tenant_ids, day.metric_types, day.metric_dates) s WHERE s.total >= 0),
    present AS (
        SELECT m.* FROM @extschema@.metrics m
        WHERE (p_tenant_id IS NULL OR m.tenant_id = p_tenant_id) AND (NOT m.by_hand OR m.derived_value IS NOT NULL))
    SELECT coalesce(m.tenant_id, s.tenant_id), coalesce(m.metric_type, s.metric_type), coalesce(m.metric_date, s.metric_date),
        'metric', m.derived_value::text || ' ' || m.data::text, s.total::text || ' ' || s.data::text
    FROM present m FULL JOIN summed s
        ON s.tenant_id = m.tenant_id AND s.metric_type = m.metric_type AND s.metric_date = m.metric_date
    WHERE m.derived_value IS DISTINCT FROM s.total
        OR NOT m.by_hand AND (m.metric_value IS DISTINCT FROM s.total OR m.data IS DISTINCT FROM s.data);
    RETURN QUERY
    WITH day AS (
        SELECT array_agg(d.tenant_id) AS tenant_ids, array_agg(d.metric_type) AS metric_types, array_agg(d.metric_date) AS metric_dates
        FROM (SELECT DISTINCT f.tenant_id, f.metric_type, f.metric_date FROM @extschema@.metric_facts f
              WHERE (p_tenant_id IS NULL OR f.tenant_id = p_tenant_id) AND f.metric_type NOT IN ('revenue', 'inventory', 'staffing', 'costs')) AS d),
    summed AS (
        SELECT s.* FROM day, _connector_service.connector_service_measure_days(day.tenant_ids, day.metric_types, day.metric_dates) s
        WHERE s.total IS NOT NULL AND s.is_valid),
    present AS (
        SELECT m.* FROM @extschema@.measure_values m
        WHERE (p_tenant_id IS NULL OR m.tenant_id = p_tenant_id) AND (NOT m.by_hand OR m.derived_value IS NOT NULL))
    SELECT coalesce(m.tenant_id, s.tenant_id), coalesce(m.metric_type, s.metric_type), coalesce(m.metric_date, s.metric_date),
        'value of a measure', m.derived_value::text || ' ' || m.data::text, s.total::text || ' ' || s.data::text
    FROM present m FULL JOIN summed s
        ON s.tenant_id = m.tenant_id AND s.metric_type = m.metric_type AND s.metric_date = m.metric_date
    WHERE m.derived_value IS DISTINCT FROM s.total
        OR NOT m.by_hand AND (m.metric_value IS DISTINCT FROM s.total OR m.data IS DISTINCT FROM s.data);
END
$$;
COMMENT ON FUNCTION @extschema@.connector_service_verify(uuid) IS 'Derives all facts, metrics and values of measures of tenant p_tenant_id (NULL: of all tenants) again from the stored records, and returns each difference from what is stored. No row is the expected result. Processes waiting records first. Syncs store records meanwhile, and their facts follow.';

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
