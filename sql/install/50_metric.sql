-- metric: one value per tenant, metric type and day, the sum of its facts.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.metrics (
    metric_id uuid CONSTRAINT metrics_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    tenant_id uuid NOT NULL,
    metric_type text NOT NULL,
    metric_value numeric NOT NULL,
    metric_date date NOT NULL,
    data jsonb NOT NULL DEFAULT '{}',
    derived_value numeric,
    by_hand boolean NOT NULL DEFAULT true,
    settled_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT valid_metric_value CHECK (metric_value >= 0),
    CONSTRAINT valid_metric_type CHECK (metric_type IN ('revenue', 'inventory', 'staffing', 'costs')),
    -- Beyond these bounds floats and dates overflow, where many tenants' days are summed and judged in one statement.
    CONSTRAINT metrics_value_is_bounded CHECK (metric_value < 1e100 OR metric_value >= 'Infinity'),
    CONSTRAINT metrics_date_is_in_range CHECK (metric_date BETWEEN '1900-01-01' AND '9999-12-31'),
    CONSTRAINT metrics_id_tenant_key UNIQUE (metric_id, tenant_id),
    CONSTRAINT metrics_day_key UNIQUE (tenant_id, metric_type, metric_date)
-- A day is updated in place as often as something of it changes: into free room of its page.
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE @extschema@.metrics IS 'One value for each tenant, metric type and day. Rows that the extension wrote follow the facts of their day. A row that a person inserted or changed is never overwritten. A row that is deleted is derived again if the day has facts.';
COMMENT ON COLUMN @extschema@.metrics.metric_id IS 'Id of the metric, for connector_service_explain().';
COMMENT ON COLUMN @extschema@.metrics.tenant_id IS 'Tenant of the metric.';
COMMENT ON COLUMN @extschema@.metrics.metric_type IS 'revenue, inventory, staffing or costs.';
COMMENT ON COLUMN @extschema@.metrics.metric_value IS 'Exact value, at least 0: money in the tenant''s currency for revenue and costs, hours for staffing, pieces for inventory.';
COMMENT ON COLUMN @extschema@.metrics.metric_date IS 'Day in the tenant''s time zone.';
COMMENT ON COLUMN @extschema@.metrics.data IS 'JSON object of a derived metric. "category": the only category of the day, or mixed. "categories": {category: amount}. "sources": {connector_id: {"value", "facts"}}. "facts": number of facts. "currency": the tenant''s currency. "unconverted": {currency: amount}, where an exchange rate is missing.';
COMMENT ON COLUMN @extschema@.metrics.derived_value IS 'Sum of the facts of the day. It differs from metric_value only where a person entered another value. NULL: the day has no facts that count.';
COMMENT ON COLUMN @extschema@.metrics.by_hand IS 'Whether a person wrote metric_value. Set it to false to get the derived value back.';
COMMENT ON COLUMN @extschema@.metrics.settled_at IS 'Time at which the extension last wrote the row. A change of a metric that does not change it is a person''s.';
COMMENT ON COLUMN @extschema@.metrics.created_at IS 'Time at which the row was inserted.';
COMMENT ON COLUMN @extschema@.metrics.updated_at IS 'Time at which the value last changed.';

CREATE TABLE @extschema@.metric_sources (
    tenant_id uuid,
    metric_type text,
    connector_id uuid,
    first_date date NOT NULL,
    CONSTRAINT metric_sources_connector_fkey FOREIGN KEY (connector_id, tenant_id)
        REFERENCES @extschema@.connectors (connector_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT metric_sources_pkey PRIMARY KEY (tenant_id, metric_type, connector_id)
);
COMMENT ON TABLE @extschema@.metric_sources IS 'Which connectors contribute to which metric, and since which day. A day before first_date is never reported as missing. Refunds and inventory do not count here, because nobody misses a day without a refund or without a change of stock.';
COMMENT ON COLUMN @extschema@.metric_sources.tenant_id IS 'Tenant of the connector.';
COMMENT ON COLUMN @extschema@.metric_sources.metric_type IS 'revenue, staffing or costs.';
COMMENT ON COLUMN @extschema@.metric_sources.connector_id IS 'Connector that contributes to the metric.';
COMMENT ON COLUMN @extschema@.metric_sources.first_date IS 'First day that has facts of the connector.';

CREATE FUNCTION _connector_service.connector_service_sums(p_tenant_ids uuid[], p_metric_types text[], p_metric_dates date[])
RETURNS TABLE (tenant_id uuid, metric_type text, metric_date date, total numeric, data jsonb, sources uuid[], unconverted jsonb)
LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH part AS MATERIALIZED (
        SELECT p_tenant_ids[grouped.n] AS tenant_id, p_metric_types[grouped.n] AS metric_type, p_metric_dates[grouped.n] AS metric_date,
            t.currency AS home_currency, grouped.connector_id, coalesce(grouped.category, 'uncategorized') AS category,
            grouped.currency, grouped.amount, grouped.facts,
            CASE WHEN grouped.currency = t.currency THEN grouped.amount ELSE grouped.amount * x.rate END AS counted
        FROM (
            -- By the number of the day: every key costs, for every fact.
            SELECT day.n, f.connector_id, f.category, f.currency, pg_catalog.sum(f.value) AS amount, pg_catalog.count(*) AS facts
            FROM ROWS FROM (pg_catalog.unnest(p_tenant_ids), pg_catalog.unnest(p_metric_types), pg_catalog.unnest(p_metric_dates))
                    WITH ORDINALITY AS day(tenant_id, metric_type, metric_date, n)
                -- OFFSET 0 keeps it one look into the index for each day.
                CROSS JOIN LATERAL (
                    SELECT fact.* FROM @extschema@.metric_facts fact
                    WHERE fact.tenant_id = day.tenant_id AND fact.metric_type = day.metric_type AND fact.metric_date = day.metric_date
                    OFFSET 0) AS f
            GROUP BY 1, 2, 3, 4) AS grouped
            JOIN @extschema@.tenants t ON t.tenant_id = p_tenant_ids[grouped.n]
            LEFT JOIN @extschema@.fx_rates x
                ON x.to_currency = t.currency AND x.rate_date = p_metric_dates[grouped.n] AND x.from_currency = grouped.currency),
    -- The same parts three times, by what they are shown by.
    shown AS (
        SELECT part.tenant_id, part.metric_type, part.metric_date, 1 AS by, part.category AS name,
            pg_catalog.to_jsonb(pg_catalog.sum(part.counted)) AS shown
        FROM part WHERE part.counted IS NOT NULL GROUP BY 1, 2, 3, 5
        UNION ALL
        SELECT part.tenant_id, part.metric_type, part.metric_date, 2, part.connector_id::text,
            pg_catalog.jsonb_build_object('value', pg_catalog.sum(part.counted), 'facts', pg_catalog.sum(part.facts))
        FROM part GROUP BY 1, 2, 3, 5
        UNION ALL
        SELECT part.tenant_id, part.metric_type, part.metric_date, 3, part.currency,
            pg_catalog.to_jsonb(pg_catalog.sum(part.amount))
        FROM part WHERE part.counted IS NULL GROUP BY 1, 2, 3, 5),
    named AS (
        SELECT shown.tenant_id, shown.metric_type, shown.metric_date,
            CASE pg_catalog.count(*) FILTER (WHERE shown.by = 1) WHEN 1 THEN pg_catalog.min(shown.name) FILTER (WHERE shown.by = 1) ELSE 'mixed' END AS category,
            pg_catalog.jsonb_object_agg(shown.name, shown.shown) FILTER (WHERE shown.by = 1) AS categories,
            pg_catalog.jsonb_object_agg(shown.name, shown.shown) FILTER (WHERE shown.by = 2) AS sources,
            pg_catalog.jsonb_object_agg(shown.name, shown.shown) FILTER (WHERE shown.by = 3) AS unconverted
        FROM shown GROUP BY 1, 2, 3),
    summed AS (
        SELECT part.tenant_id, part.metric_type, part.metric_date, part.home_currency,
            pg_catalog.sum(part.counted) AS total, pg_catalog.sum(part.facts) AS facts,
            pg_catalog.array_agg(DISTINCT part.connector_id) FILTER (WHERE part.category <> 'refunds') AS sources
        FROM part GROUP BY 1, 2, 3, 4)
    SELECT summed.tenant_id, summed.metric_type, summed.metric_date, summed.total,
        pg_catalog.jsonb_build_object('category', named.category, 'categories', named.categories, 'sources', named.sources,
                'facts', summed.facts, 'currency', summed.home_currency)
            || CASE WHEN named.unconverted IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('unconverted', named.unconverted) END,
        summed.sources, named.unconverted
    FROM summed JOIN named
        ON named.tenant_id = summed.tenant_id AND named.metric_type = summed.metric_type AND named.metric_date = summed.metric_date;
END;
COMMENT ON FUNCTION _connector_service.connector_service_sums(uuid[], text[], date[]) IS 'The sums of the facts of days; no row for a day without facts. total is NULL if no fact could be converted into the tenant''s currency. sources are the connectors that contribute more than refunds.';

CREATE FUNCTION _connector_service.connector_service_settle(p_days integer DEFAULT NULL, p_tenant_id uuid DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- The worker's session uses indexes everywhere else; here many days are joined with each other.
SET enable_hashjoin = on SET jit = off SET DateStyle = 'ISO'
AS $$
DECLARE
    v_tenants uuid[];
    v_types text[];
    v_dates date[];
    v_empty uuid[];
    v_trouble jsonb;
BEGIN
    IF NOT EXISTS (SELECT FROM @extschema@.metric_days_touched t WHERE p_tenant_id IS NULL OR t.tenant_id = p_tenant_id) THEN
        RETURN 0;
    END IF;
    PERFORM _connector_service.connector_service_lock(p_tenant_id);
    WITH day AS MATERIALIZED (
        SELECT DISTINCT t.tenant_id, t.metric_type, t.metric_date FROM @extschema@.metric_days_touched t
        WHERE p_tenant_id IS NULL OR t.tenant_id = p_tenant_id LIMIT p_days),
    taken AS (
        DELETE FROM @extschema@.metric_days_touched t USING day
        WHERE t.tenant_id = day.tenant_id AND t.metric_type = day.metric_type AND t.metric_date = day.metric_date)
    SELECT array_agg(day.tenant_id), array_agg(day.metric_type), array_agg(day.metric_date) INTO v_tenants, v_types, v_dates FROM day;

    WITH summed AS MATERIALIZED (SELECT s.* FROM _connector_service.connector_service_sums(v_tenants, v_types, v_dates) s),
    stored AS (
        INSERT INTO @extschema@.metrics AS m (tenant_id, metric_type, metric_date, metric_value, derived_value, data, by_hand, settled_at)
        SELECT s.tenant_id, s.metric_type, s.metric_date, s.total, s.total, s.data, false, clock_timestamp() FROM summed s WHERE s.total >= 0
        ON CONFLICT (tenant_id, metric_type, metric_date) DO UPDATE
        SET metric_value = CASE WHEN m.by_hand THEN m.metric_value ELSE excluded.metric_value END,
            data = CASE WHEN m.by_hand THEN m.data ELSE excluded.data END,
            derived_value = excluded.derived_value,
            settled_at = excluded.settled_at,
            updated_at = CASE WHEN m.by_hand THEN m.updated_at ELSE now() END
        WHERE m.derived_value IS DISTINCT FROM excluded.derived_value OR NOT m.by_hand AND m.data <> excluded.data),
    empty AS MATERIALIZED (
        SELECT day.* FROM ROWS FROM (unnest(v_tenants), unnest(v_types), unnest(v_dates)) AS day(tenant_id, metric_type, metric_date)
        EXCEPT SELECT s.tenant_id, s.metric_type, s.metric_date FROM summed s WHERE s.total >= 0),
    unsaid AS (
        UPDATE @extschema@.metrics m SET derived_value = NULL, settled_at = clock_timestamp() FROM empty e
        WHERE m.tenant_id = e.tenant_id AND m.metric_type = e.metric_type AND m.metric_date = e.metric_date
            AND m.derived_value IS NOT NULL
        RETURNING m.metric_id, m.by_hand),
    source AS (
        INSERT INTO @extschema@.metric_sources AS known (tenant_id, metric_type, connector_id, first_date)
        SELECT s.tenant_id, s.metric_type, c.connector_id, min(s.metric_date)
        FROM summed s JOIN @extschema@.connectors c ON c.connector_id = ANY (s.sources)
        -- A stock record is dated by its last change: a day without one is not missing.
        WHERE s.metric_type <> 'inventory'
        GROUP BY 1, 2, 3
        ON CONFLICT (tenant_id, metric_type, connector_id) DO UPDATE SET first_date = excluded.first_date
        WHERE excluded.first_date < known.first_date)
    SELECT (SELECT array_agg(u.metric_id) FROM unsaid u WHERE NOT u.by_hand),
        (SELECT coalesce(jsonb_agg(to_jsonb(s) - '{data,sources}'::text[]), '[]') FROM summed s WHERE s.total < 0 OR s.unconverted IS NOT NULL)
    INTO v_empty, v_trouble;
    IF v_empty IS NOT NULL THEN
        DELETE FROM @extschema@.metrics m WHERE m.metric_id = ANY (v_empty);
    END IF;

    PERFORM _connector_service.connector_service_alert_days(v_tenants, v_types, v_dates, v_trouble);
    RETURN cardinality(v_dates);
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_settle(integer, uuid) IS 'Sums the days whose facts changed, of a tenant (NULL: of all tenants), at most p_days of them; writes metrics and alerts, and returns the number of days. Takes the lock of the facts.';

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

CREATE FUNCTION _connector_service.connector_service_reprocess_records(p_connector_id uuid) RETURNS bigint LANGUAGE plpgsql
-- By key, even if the planner has no statistics of the table.
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    v_last text := '';
    v_raw_ids uuid[];
    v_count bigint := 0;
    v_shown timestamptz := clock_timestamp();
    v_tenant_id uuid := (SELECT c.tenant_id FROM @extschema@.connectors c WHERE c.connector_id = p_connector_id);
BEGIN
    IF v_tenant_id IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM _connector_service.connector_service_lock(v_tenant_id);
    LOOP
        SELECT array_agg(page.raw_id), max(page.source_record_id) INTO v_raw_ids, v_last
        FROM (
            SELECT r.raw_id, r.source_record_id FROM @extschema@.raw_connector_data r
            WHERE r.connector_id = p_connector_id AND r.source_record_id > v_last
            ORDER BY r.source_record_id LIMIT 1000) AS page;
        EXIT WHEN v_raw_ids IS NULL;
        PERFORM _connector_service.connector_service_derive(p_connector_id, NULL::uuid, v_raw_ids, false);
        v_count := v_count + cardinality(v_raw_ids);
        IF clock_timestamp() > v_shown + interval '2 s' THEN
            v_shown := clock_timestamp();
            RAISE NOTICE '% records reprocessed', v_count;
        END IF;
    END LOOP;
    PERFORM _connector_service.connector_service_settle(NULL::integer, v_tenant_id);
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
                ingested_at = now(), processed = false, deleted = false
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
        x.currency, x.value)::@extschema@.metric_facts) INTO v_facts
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
                SELECT r.raw_id, r.source_record_id FROM @extschema@.raw_connector_data r
                WHERE r.connector_id = v_connector_id AND r.source_record_id > v_last
                ORDER BY r.source_record_id LIMIT 10000) AS page;
            EXIT WHEN v_raw_ids IS NULL;
            RETURN QUERY
            WITH wanted AS MATERIALIZED (
                SELECT x.raw_id, x.mapping_id, x.item, x.tenant_id, x.metric_type, x.metric_date, x.category, x.currency, x.value
                FROM _connector_service.connector_service_expected(v_connector_id, v_raw_ids) x),
            present AS MATERIALIZED (
                SELECT f.raw_id, f.mapping_id, f.item, f.tenant_id, f.metric_type, f.metric_date, f.category, f.currency, f.value
                FROM @extschema@.metric_facts f WHERE f.raw_id = ANY (v_raw_ids)),
            difference AS (
                SELECT d.*, true AS is_stored FROM (SELECT * FROM present EXCEPT SELECT * FROM wanted) d
                UNION ALL SELECT d.*, false FROM (SELECT * FROM wanted EXCEPT SELECT * FROM present) d)
            SELECT d.tenant_id, d.metric_type, d.metric_date, format('fact of record %s, mapping %s, item %s', d.raw_id, d.mapping_id, d.item),
                CASE WHEN d.is_stored THEN concat_ws(' ', d.value, d.currency, d.category) END,
                CASE WHEN NOT d.is_stored THEN concat_ws(' ', d.value, d.currency, d.category) END
            FROM difference d;
        END LOOP;
    END LOOP;
    RETURN QUERY
    SELECT f.tenant_id, f.metric_type, f.metric_date, format('fact of record %s, which no longer exists', f.raw_id), f.value::text, NULL
    FROM @extschema@.metric_facts f
    WHERE (p_tenant_id IS NULL OR f.tenant_id = p_tenant_id)
        AND NOT EXISTS (SELECT FROM @extschema@.raw_connector_data r WHERE r.raw_id = f.raw_id);
    RETURN QUERY
    WITH day AS (
        SELECT array_agg(d.tenant_id) AS tenant_ids, array_agg(d.metric_type) AS metric_types, array_agg(d.metric_date) AS metric_dates
        FROM (SELECT DISTINCT f.tenant_id, f.metric_type, f.metric_date FROM @extschema@.metric_facts f
              WHERE p_tenant_id IS NULL OR f.tenant_id = p_tenant_id) AS d),
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
END
$$;
COMMENT ON FUNCTION @extschema@.connector_service_verify(uuid) IS 'Derives all facts and metrics of tenant p_tenant_id (NULL: of all tenants) again from the stored records, and returns each difference from what is stored. No row is the expected result. Processes waiting records first. Syncs store records meanwhile, and their facts follow.';

CREATE FUNCTION _connector_service.connector_service_metric_before() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF OLD.by_hand AND NOT NEW.by_hand THEN
        NEW.metric_value := coalesce(NEW.derived_value, NEW.metric_value);
    ELSE
        NEW.by_hand := true;
    END IF;
    IF (NEW.tenant_id, NEW.metric_type, NEW.metric_date) IS DISTINCT FROM (OLD.tenant_id, OLD.metric_type, OLD.metric_date) THEN
        NEW.derived_value := NULL;
    END IF;
    NEW.updated_at := now();
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT OLD.tenant_id, OLD.metric_type, OLD.metric_date UNION SELECT NEW.tenant_id, NEW.metric_type, NEW.metric_date;
    PERFORM _connector_service.connector_service_wake();
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_metric_before() IS 'Trigger of metrics: marks a metric that a person changes as entered by hand, until by_hand is set to false, and has its days summed again.';
-- By the columns that a statement sets, not by their values: a person who enters the derived value by hand fixes it too.
CREATE TRIGGER metrics_before BEFORE UPDATE OF tenant_id, metric_type, metric_date, metric_value, data, by_hand ON @extschema@.metrics
    FOR EACH ROW WHEN (NEW.settled_at IS NOT DISTINCT FROM OLD.settled_at)
    EXECUTE FUNCTION _connector_service.connector_service_metric_before();

CREATE FUNCTION _connector_service.connector_service_metric_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT d.tenant_id, d.metric_type, d.metric_date FROM deleted_metrics d
    -- Leaves out a metric that connector_service_settle() deletes because it is no longer derived.
    WHERE (d.by_hand OR d.derived_value IS NOT NULL) AND EXISTS (SELECT FROM @extschema@.metric_facts f
                  WHERE f.tenant_id = d.tenant_id AND f.metric_type = d.metric_type AND f.metric_date = d.metric_date);
    IF FOUND THEN
        PERFORM _connector_service.connector_service_wake();
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_metric_deleted() IS 'Trigger of metrics: has a deleted day summed again if it has facts.';
CREATE TRIGGER metrics_deleted AFTER DELETE ON @extschema@.metrics
    REFERENCING OLD TABLE AS deleted_metrics FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_metric_deleted();

CREATE FUNCTION _connector_service.connector_service_metrics_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT DISTINCT f.tenant_id, f.metric_type, f.metric_date FROM @extschema@.metric_facts f;
    PERFORM _connector_service.connector_service_wake();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_metrics_truncated() IS 'Trigger of metrics: has all days with facts summed again after TRUNCATE.';
CREATE TRIGGER metrics_truncated AFTER TRUNCATE ON @extschema@.metrics
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_metrics_truncated();

-- Exchange rates and tenants: the sums depend on them too.

CREATE FUNCTION _connector_service.connector_service_rates_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _connector_service.connector_service_lock(NULL::uuid);
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT t.tenant_id, type.name, c.rate_date
    FROM (SELECT DISTINCT c.to_currency, c.rate_date, c.from_currency FROM changed c) AS c
        JOIN @extschema@.tenants t ON t.currency = c.to_currency
        CROSS JOIN unnest('{revenue,inventory,staffing,costs}'::text[]) AS type(name)
    WHERE EXISTS (SELECT FROM @extschema@.metric_facts f
                  WHERE f.tenant_id = t.tenant_id AND f.metric_type = type.name AND f.metric_date = c.rate_date AND f.currency = c.from_currency);
    IF FOUND THEN
        PERFORM _connector_service.connector_service_settle();
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_rates_changed() IS 'Trigger of fx_rates: sums the days again that use a changed rate.';
CREATE TRIGGER fx_rates_inserted AFTER INSERT ON @extschema@.fx_rates
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_rates_changed();
CREATE TRIGGER fx_rates_updated_old AFTER UPDATE ON @extschema@.fx_rates
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_rates_changed();
CREATE TRIGGER fx_rates_updated_new AFTER UPDATE ON @extschema@.fx_rates
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_rates_changed();
CREATE TRIGGER fx_rates_deleted AFTER DELETE ON @extschema@.fx_rates
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_rates_changed();

CREATE FUNCTION _connector_service.connector_service_tenant_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The time zone decides the day of a fact, and the currency is that of amounts without one.
    PERFORM _connector_service.connector_service_reprocess_records(c.connector_id) FROM @extschema@.connectors c WHERE c.tenant_id = NEW.tenant_id;
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT DISTINCT f.tenant_id, f.metric_type, f.metric_date FROM @extschema@.metric_facts f WHERE f.tenant_id = NEW.tenant_id;
    PERFORM _connector_service.connector_service_settle(NULL::integer, NEW.tenant_id);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_tenant_changed() IS 'Trigger of tenants: derives all metrics again after a change of time zone or currency.';
CREATE TRIGGER tenants_changed AFTER UPDATE OF timezone, currency ON @extschema@.tenants
    FOR EACH ROW WHEN (NEW.timezone <> OLD.timezone OR NEW.currency <> OLD.currency) EXECUTE FUNCTION _connector_service.connector_service_tenant_changed();

SELECT pg_catalog.pg_extension_config_dump('@extschema@.metrics', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.metric_sources', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
