-- measure value: one value per tenant, measure and day, beside the metrics.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.measure_values (
    metric_id uuid CONSTRAINT measure_values_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
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
    -- As for metrics, on both sides of zero.
    CONSTRAINT measure_values_value_is_bounded CHECK (pg_catalog.abs(metric_value) < 1e100 OR metric_value IN ('Infinity', '-Infinity', 'NaN')),
    CONSTRAINT measure_values_date_is_in_range CHECK (metric_date BETWEEN '1900-01-01' AND '9999-12-31'),
    CONSTRAINT measure_values_id_tenant_key UNIQUE (metric_id, tenant_id),
    CONSTRAINT measure_values_day_key UNIQUE (tenant_id, metric_type, metric_date)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE @extschema@.measure_values IS 'One value for each tenant, measure and day: what metrics is for the four metric types, with the same columns. Rows that the extension wrote follow the facts of their day. A row that a person inserted or changed is never overwritten. The view all_metrics shows both tables.';
COMMENT ON COLUMN @extschema@.measure_values.metric_id IS 'Id of the value, for connector_service_explain().';
COMMENT ON COLUMN @extschema@.measure_values.tenant_id IS 'Tenant of the measure.';
COMMENT ON COLUMN @extschema@.measure_values.metric_type IS 'Name of a measure of the tenant. Raises 22023 for another text.';
COMMENT ON COLUMN @extschema@.measure_values.metric_value IS 'Exact value in the measure''s unit, at least 0 unless the measure may be negative (23514). An average is rounded to ten decimal places.';
COMMENT ON COLUMN @extschema@.measure_values.metric_date IS 'Day in the tenant''s time zone.';
COMMENT ON COLUMN @extschema@.measure_values.data IS 'JSON object of a derived value, as in metrics: "category", "categories", "sources", "facts". Each category and source has its own sum, last value, average or number of texts. For money also "currency" and "unconverted". For an average also "sum" and "counted": the sum, and the number of records that it is of.';
COMMENT ON COLUMN @extschema@.measure_values.derived_value IS 'What the facts of the day come to. It differs from metric_value only where a person entered another value. NULL: the day has no facts that count.';
COMMENT ON COLUMN @extschema@.measure_values.by_hand IS 'Whether a person wrote metric_value. Set it to false to get the derived value back; a day that has none loses its row.';
COMMENT ON COLUMN @extschema@.measure_values.settled_at IS 'Time at which the extension last wrote the row. A change that does not change it is a person''s.';
COMMENT ON COLUMN @extschema@.measure_values.created_at IS 'Time at which the row was inserted.';
COMMENT ON COLUMN @extschema@.measure_values.updated_at IS 'Time at which the value last changed.';

CREATE VIEW @extschema@.all_metrics AS
SELECT m.metric_id, m.tenant_id, m.metric_type, m.metric_value, m.metric_date, m.data, m.derived_value, m.by_hand, m.settled_at, m.created_at, m.updated_at,
    false AS is_measure
FROM @extschema@.metrics m
UNION ALL
SELECT v.metric_id, v.tenant_id, v.metric_type, v.metric_value, v.metric_date, v.data, v.derived_value, v.by_hand, v.settled_at, v.created_at, v.updated_at,
    true
FROM @extschema@.measure_values v;
COMMENT ON VIEW @extschema@.all_metrics IS 'The rows of metrics and those of measure_values: every number that a tenant has, by day.';
COMMENT ON COLUMN @extschema@.all_metrics.metric_id IS 'Id of the metric or value, for connector_service_explain().';
COMMENT ON COLUMN @extschema@.all_metrics.tenant_id IS 'Tenant of the metric.';
COMMENT ON COLUMN @extschema@.all_metrics.metric_type IS 'revenue, inventory, staffing, costs, or a measure of the tenant.';
COMMENT ON COLUMN @extschema@.all_metrics.metric_value IS 'Exact value: money in the tenant''s currency for revenue, costs and measures whose unit is money, hours for staffing, pieces for inventory, else the measure''s unit.';
COMMENT ON COLUMN @extschema@.all_metrics.metric_date IS 'Day in the tenant''s time zone.';
COMMENT ON COLUMN @extschema@.all_metrics.data IS 'JSON object of a derived metric; see metrics and measure_values.';
COMMENT ON COLUMN @extschema@.all_metrics.derived_value IS 'What the facts of the day come to. NULL: the day has no facts that count.';
COMMENT ON COLUMN @extschema@.all_metrics.by_hand IS 'Whether a person wrote metric_value.';
COMMENT ON COLUMN @extschema@.all_metrics.settled_at IS 'Time at which the extension last wrote the row.';
COMMENT ON COLUMN @extschema@.all_metrics.created_at IS 'Time at which the row was inserted.';
COMMENT ON COLUMN @extschema@.all_metrics.updated_at IS 'Time at which the value last changed.';
COMMENT ON COLUMN @extschema@.all_metrics.is_measure IS 'Whether the row is of a measure, in measure_values. It is changed there.';

CREATE FUNCTION _connector_service.connector_service_mean(p_sum numeric, p_count numeric) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- A quotient has at least as many places as what is divided.
RETURN CASE WHEN p_count > 0 THEN pg_catalog.trim_scale(pg_catalog.round(pg_catalog.round(p_sum, 20) / p_count, 10)) END;
COMMENT ON FUNCTION _connector_service.connector_service_mean(numeric, numeric) IS 'An average, rounded to ten decimal places. NULL of nothing.';

CREATE FUNCTION _connector_service.connector_service_readings(p_tenant_ids uuid[], p_metric_types text[], p_metric_dates date[])
RETURNS TABLE (tenant_id uuid, metric_type text, metric_date date, total numeric, data jsonb, sources uuid[], unconverted jsonb)
LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH fact AS MATERIALIZED (
        SELECT day.n, own.aggregation, CASE WHEN own.unit = 'money' THEN t.currency END AS home_currency,
            f.connector_id, coalesce(f.category, 'uncategorized') AS category, f.currency, f.value, f.distinct_value,
            f.metric_time, f.raw_id, f.mapping_id, f.item,
            CASE WHEN f.currency IN (t.currency, '') THEN f.value ELSE f.value * x.rate END AS counted
        FROM ROWS FROM (pg_catalog.unnest(p_tenant_ids), pg_catalog.unnest(p_metric_types), pg_catalog.unnest(p_metric_dates))
                WITH ORDINALITY AS day(tenant_id, metric_type, metric_date, n)
            JOIN @extschema@.measures own ON own.tenant_id = day.tenant_id AND own.name = day.metric_type AND own.aggregation <> 'sum'
            JOIN @extschema@.tenants t ON t.tenant_id = day.tenant_id
            CROSS JOIN LATERAL (
                SELECT fact.* FROM @extschema@.metric_facts fact
                WHERE fact.tenant_id = day.tenant_id AND fact.metric_type = day.metric_type AND fact.metric_date = day.metric_date
                OFFSET 0) AS f
            LEFT JOIN @extschema@.fx_rates x
                ON x.to_currency = t.currency AND x.rate_date = day.metric_date AND x.from_currency = f.currency
        -- A person said that the connector does not count.
        WHERE NOT EXISTS (SELECT FROM @extschema@.count_decisions left_out
            WHERE NOT left_out.counts AND left_out.tenant_id = day.tenant_id AND left_out.connector_id = f.connector_id AND left_out.metric_type = day.metric_type
                AND left_out.part = 'all' AND day.metric_date >= coalesce(left_out.first_date, '-infinity') AND day.metric_date <= coalesce(left_out.last_date, 'infinity'))),
    -- Three times: of the day, by category and by source.
    grouped AS (
        SELECT fact.n, fact.aggregation, fact.category, fact.connector_id, pg_catalog.sum(fact.counted) AS sum,
            pg_catalog.count(fact.counted) AS counted, pg_catalog.count(*) AS facts, pg_catalog.count(DISTINCT fact.distinct_value) AS texts
        FROM fact
        GROUP BY GROUPING SETS ((fact.n, fact.aggregation), (fact.n, fact.aggregation, fact.category), (fact.n, fact.aggregation, fact.connector_id))),
    last AS (
        (SELECT DISTINCT ON (fact.n) fact.n, NULL::text AS category, NULL::uuid AS connector_id, fact.counted
        FROM fact WHERE fact.aggregation = 'last' AND fact.counted IS NOT NULL
        ORDER BY fact.n, fact.metric_time DESC NULLS LAST, fact.raw_id DESC, fact.mapping_id DESC, fact.item DESC)
        UNION ALL
        (SELECT DISTINCT ON (fact.n, fact.category) fact.n, fact.category, NULL, fact.counted
        FROM fact WHERE fact.aggregation = 'last' AND fact.counted IS NOT NULL
        ORDER BY fact.n, fact.category, fact.metric_time DESC NULLS LAST, fact.raw_id DESC, fact.mapping_id DESC, fact.item DESC)
        UNION ALL
        (SELECT DISTINCT ON (fact.n, fact.connector_id) fact.n, NULL, fact.connector_id, fact.counted
        FROM fact WHERE fact.aggregation = 'last' AND fact.counted IS NOT NULL
        ORDER BY fact.n, fact.connector_id, fact.metric_time DESC NULLS LAST, fact.raw_id DESC, fact.mapping_id DESC, fact.item DESC)),
    valued AS MATERIALIZED (
        SELECT g.n, g.category, g.connector_id, g.sum, g.counted, g.facts,
            CASE g.aggregation
                WHEN 'average' THEN _connector_service.connector_service_mean(g.sum, g.counted)
                WHEN 'distinct_count' THEN g.texts
                ELSE (SELECT l.counted FROM last l WHERE l.n = g.n
                    AND l.category IS NOT DISTINCT FROM g.category AND l.connector_id IS NOT DISTINCT FROM g.connector_id)
            END AS value
        FROM grouped g),
    day AS (
        SELECT v.n,
            CASE pg_catalog.count(v.category) FILTER (WHERE v.counted > 0) WHEN 1 THEN pg_catalog.min(v.category) FILTER (WHERE v.counted > 0) ELSE 'mixed' END AS category,
            pg_catalog.jsonb_object_agg(v.category, v.value) FILTER (WHERE v.category IS NOT NULL AND v.counted > 0) AS categories,
            pg_catalog.jsonb_object_agg(v.connector_id, pg_catalog.jsonb_build_object('value', v.value, 'facts', v.facts)) FILTER (WHERE v.connector_id IS NOT NULL) AS sources,
            pg_catalog.array_agg(v.connector_id) FILTER (WHERE v.connector_id IS NOT NULL) AS connectors
        FROM valued v GROUP BY v.n),
    missing AS (
        SELECT m.n, pg_catalog.jsonb_object_agg(m.currency, m.amount) AS unconverted
        FROM (SELECT fact.n, fact.currency, pg_catalog.sum(fact.value) AS amount FROM fact WHERE fact.counted IS NULL GROUP BY 1, 2) AS m
        GROUP BY m.n)
    SELECT p_tenant_ids[whole.n], p_metric_types[whole.n], p_metric_dates[whole.n], whole.value,
        pg_catalog.jsonb_build_object('category', day.category, 'categories', day.categories, 'sources', day.sources, 'facts', whole.facts)
            || CASE WHEN kind.home_currency IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('currency', kind.home_currency) END
            || CASE WHEN kind.aggregation = 'average' THEN pg_catalog.jsonb_build_object('sum', whole.sum, 'counted', whole.counted) ELSE '{}' END
            || CASE WHEN missing.unconverted IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('unconverted', missing.unconverted) END,
        day.connectors, missing.unconverted
    FROM valued whole
        JOIN day ON day.n = whole.n
        JOIN (SELECT DISTINCT fact.n, fact.aggregation, fact.home_currency FROM fact) AS kind ON kind.n = whole.n
        LEFT JOIN missing ON missing.n = whole.n
    WHERE whole.category IS NULL AND whole.connector_id IS NULL;
END;
COMMENT ON FUNCTION _connector_service.connector_service_readings(uuid[], text[], date[]) IS 'What connector_service_sums() is, for days of measures that are not summed: the last value, the average, or the number of different texts. Of two last values of the same time, that of the record that was stored first later counts.';

CREATE FUNCTION _connector_service.connector_service_measure_days(p_tenant_ids uuid[], p_metric_types text[], p_metric_dates date[])
RETURNS TABLE (tenant_id uuid, metric_type text, metric_date date, total numeric, data jsonb, sources uuid[], unconverted jsonb, is_valid boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_tenants uuid[];
    v_types text[];
    v_dates date[];
BEGIN
    SELECT array_agg(day.tenant_id), array_agg(day.metric_type), array_agg(day.metric_date) INTO v_tenants, v_types, v_dates
    FROM ROWS FROM (unnest(p_tenant_ids), unnest(p_metric_types), unnest(p_metric_dates)) AS day(tenant_id, metric_type, metric_date)
        JOIN @extschema@.measures own ON own.tenant_id = day.tenant_id AND own.name = day.metric_type AND own.aggregation = 'sum';
    RETURN QUERY
    SELECT s.tenant_id, s.metric_type, s.metric_date, s.total, CASE WHEN own.unit = 'money' THEN s.data ELSE s.data - 'currency' END,
        s.sources, s.unconverted, own.may_be_negative OR s.total >= 0
    FROM (
        SELECT summed.* FROM _connector_service.connector_service_sums(v_tenants, v_types, v_dates) summed
        UNION ALL
        SELECT r.* FROM _connector_service.connector_service_readings(p_tenant_ids, p_metric_types, p_metric_dates) r) AS s
        JOIN @extschema@.measures own ON own.tenant_id = s.tenant_id AND own.name = s.metric_type;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_measure_days(uuid[], text[], date[]) IS 'What the facts of days of measures come to, in whichever way the measure adds up; no row for a day without facts. is_valid: the day may have this value.';

CREATE FUNCTION _connector_service.connector_service_settle_measures(p_tenant_ids uuid[], p_metric_types text[], p_metric_dates date[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_hashjoin = on SET jit = off SET DateStyle = 'ISO'
AS $$
DECLARE
    v_empty uuid[];
    v_trouble jsonb;
BEGIN
    WITH summed AS MATERIALIZED (SELECT s.* FROM _connector_service.connector_service_measure_days(p_tenant_ids, p_metric_types, p_metric_dates) s),
    stored AS (
        INSERT INTO @extschema@.measure_values AS m (tenant_id, metric_type, metric_date, metric_value, derived_value, data, by_hand, settled_at)
        SELECT s.tenant_id, s.metric_type, s.metric_date, s.total, s.total, s.data, false, clock_timestamp() FROM summed s WHERE s.total IS NOT NULL AND s.is_valid
        ON CONFLICT (tenant_id, metric_type, metric_date) DO UPDATE
        SET metric_value = CASE WHEN m.by_hand THEN m.metric_value ELSE excluded.metric_value END,
            data = CASE WHEN m.by_hand THEN m.data ELSE excluded.data END,
            derived_value = excluded.derived_value,
            settled_at = excluded.settled_at,
            updated_at = CASE WHEN m.by_hand THEN m.updated_at ELSE now() END
        WHERE m.derived_value IS DISTINCT FROM excluded.derived_value OR NOT m.by_hand AND m.data <> excluded.data),
    empty AS MATERIALIZED (
        SELECT day.* FROM ROWS FROM (unnest(p_tenant_ids), unnest(p_metric_types), unnest(p_metric_dates)) AS day(tenant_id, metric_type, metric_date)
        EXCEPT SELECT s.tenant_id, s.metric_type, s.metric_date FROM summed s WHERE s.total IS NOT NULL AND s.is_valid),
    unsaid AS (
        UPDATE @extschema@.measure_values m SET derived_value = NULL, settled_at = clock_timestamp() FROM empty e
        WHERE m.tenant_id = e.tenant_id AND m.metric_type = e.metric_type AND m.metric_date = e.metric_date
            AND (m.derived_value IS NOT NULL OR NOT m.by_hand)
        RETURNING m.metric_id, m.by_hand),
    source AS (
        INSERT INTO @extschema@.metric_sources AS known (tenant_id, metric_type, connector_id, first_date)
        SELECT s.tenant_id, s.metric_type, c.connector_id, min(s.metric_date)
        FROM summed s JOIN @extschema@.connectors c ON c.connector_id = ANY (s.sources)
        GROUP BY 1, 2, 3
        ON CONFLICT (tenant_id, metric_type, connector_id) DO UPDATE SET first_date = excluded.first_date
        WHERE excluded.first_date < known.first_date)
    SELECT (SELECT array_agg(u.metric_id) FROM unsaid u WHERE NOT u.by_hand),
        (SELECT coalesce(jsonb_agg(to_jsonb(s) - '{data,sources}'::text[]), '[]') FROM summed s WHERE NOT s.is_valid OR s.unconverted IS NOT NULL)
    INTO v_empty, v_trouble;
    IF v_empty IS NOT NULL THEN
        DELETE FROM @extschema@.measure_values m WHERE m.metric_id = ANY (v_empty);
    END IF;
    PERFORM _connector_service.connector_service_alert_days(p_tenant_ids, p_metric_types, p_metric_dates, v_trouble);
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_settle_measures(uuid[], text[], date[]) IS 'The part of connector_service_settle() that is about measures.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.measure_values', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
