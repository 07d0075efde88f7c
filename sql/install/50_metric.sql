-- metric: one value per tenant, metric type and day, the sum of its facts.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.metrics (
    metric_id uuid CONSTRAINT metrics_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    tenant_id uuid NOT NULL DEFAULT @extschema@.connector_service_default_tenant(),
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
COMMENT ON COLUMN @extschema@.metrics.data IS 'JSON object of a derived metric. "category": the only category of the day, or mixed. "categories": {category: amount}. "sources": {connector_id: {"value", "facts"}}; "counted": false in it means that another connector counts the same money (see count_decisions), and "not_counted": {"value", "facts"} holds what of it does not count. "facts": number of facts that count. "currency": the tenant''s currency. "unconverted": {currency: amount}, where an exchange rate is missing.';
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
COMMENT ON TABLE @extschema@.metric_sources IS 'Which connectors contribute to which metric, and since which day. A day before first_date is never reported as missing. Refunds and inventory do not count here, because nobody misses a day without a refund or without a change of stock; nor does a connector whose money another one counts.';
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
            -- A measure that is not money has no currency.
            CASE WHEN grouped.currency IN (t.currency, '') THEN grouped.amount ELSE grouped.amount * x.rate END AS counted,
            left_out.connector_id IS NULL AS counts
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
                ON x.to_currency = t.currency AND x.rate_date = p_metric_dates[grouped.n] AND x.from_currency = grouped.currency
            -- Another connector counts the same money.
            LEFT JOIN @extschema@.count_decisions left_out
                ON NOT left_out.counts AND left_out.tenant_id = p_tenant_ids[grouped.n] AND left_out.connector_id = grouped.connector_id
                AND left_out.metric_type = p_metric_types[grouped.n]
                AND left_out.part = _connector_service.connector_service_part(p_metric_types[grouped.n], grouped.category)
                AND p_metric_dates[grouped.n] >= coalesce(left_out.first_date, '-infinity') AND p_metric_dates[grouped.n] <= coalesce(left_out.last_date, 'infinity')),
    -- The same parts three times, by what they are shown by.
    shown AS (
        SELECT part.tenant_id, part.metric_type, part.metric_date, 1 AS by, part.category AS name,
            pg_catalog.to_jsonb(pg_catalog.sum(part.counted)) AS shown
        FROM part WHERE part.counted IS NOT NULL AND part.counts GROUP BY 1, 2, 3, 5
        UNION ALL
        SELECT part.tenant_id, part.metric_type, part.metric_date, 2, part.connector_id::text,
            CASE WHEN pg_catalog.bool_and(part.counts)
                THEN pg_catalog.jsonb_build_object('value', pg_catalog.sum(part.counted), 'facts', pg_catalog.sum(part.facts))
            WHEN pg_catalog.bool_or(part.counts)
                THEN pg_catalog.jsonb_build_object('value', pg_catalog.sum(part.counted) FILTER (WHERE part.counts), 'facts', pg_catalog.sum(part.facts) FILTER (WHERE part.counts),
                    'not_counted', pg_catalog.jsonb_build_object(
                        'value', pg_catalog.sum(part.counted) FILTER (WHERE NOT part.counts), 'facts', pg_catalog.sum(part.facts) FILTER (WHERE NOT part.counts)))
                ELSE pg_catalog.jsonb_build_object('value', pg_catalog.sum(part.counted), 'facts', pg_catalog.sum(part.facts), 'counted', false) END
        FROM part GROUP BY 1, 2, 3, 5
        UNION ALL
        SELECT part.tenant_id, part.metric_type, part.metric_date, 3, part.currency,
            pg_catalog.to_jsonb(pg_catalog.sum(part.amount))
        FROM part WHERE part.counted IS NULL AND part.counts GROUP BY 1, 2, 3, 5),
    named AS (
        SELECT shown.tenant_id, shown.metric_type, shown.metric_date,
            CASE pg_catalog.count(*) FILTER (WHERE shown.by = 1) WHEN 1 THEN pg_catalog.min(shown.name) FILTER (WHERE shown.by = 1) ELSE 'mixed' END AS category,
            pg_catalog.jsonb_object_agg(shown.name, shown.shown) FILTER (WHERE shown.by = 1) AS categories,
            pg_catalog.jsonb_object_agg(shown.name, shown.shown) FILTER (WHERE shown.by = 2) AS sources,
            pg_catalog.jsonb_object_agg(shown.name, shown.shown) FILTER (WHERE shown.by = 3) AS unconverted
        FROM shown GROUP BY 1, 2, 3),
    summed AS (
        SELECT part.tenant_id, part.metric_type, part.metric_date, part.home_currency,
            pg_catalog.sum(part.counted) FILTER (WHERE part.counts) AS total, pg_catalog.sum(part.facts) FILTER (WHERE part.counts) AS facts,
            pg_catalog.array_agg(DISTINCT part.connector_id) FILTER (WHERE part.category <> 'refunds' AND part.counts) AS sources
        FROM part GROUP BY 1, 2, 3, 4)
    SELECT summed.tenant_id, summed.metric_type, summed.metric_date, summed.total,
        pg_catalog.jsonb_build_object('category', named.category, 'categories', named.categories, 'sources', named.sources,
                'facts', summed.facts, 'currency', summed.home_currency)
            || CASE WHEN named.unconverted IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('unconverted', named.unconverted) END,
        summed.sources, named.unconverted
    FROM summed JOIN named
        ON named.tenant_id = summed.tenant_id AND named.metric_type = summed.metric_type AND named.metric_date = summed.metric_date;
END;
COMMENT ON FUNCTION _connector_service.connector_service_sums(uuid[], text[], date[]) IS 'The sums of the facts of days; no row for a day without facts. total is NULL if no fact counts: none could be converted into the tenant''s currency, or count_decisions leaves all out. sources are the connectors that contribute more than refunds.';

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
    v_own_tenants uuid[];
    v_own_types text[];
    v_own_dates date[];
BEGIN
    IF NOT EXISTS (SELECT FROM @extschema@.metric_days_touched t WHERE p_tenant_id IS NULL OR t.tenant_id = p_tenant_id) THEN
        RETURN 0;
    END IF;
    PERFORM _connector_service.connector_service_lock(p_tenant_id);
    WITH day AS MATERIALIZED (
        SELECT DISTINCT t.tenant_id, t.metric_type, t.metric_date FROM @extschema@.metric_days_touched t
        WHERE p_tenant_id IS NULL OR t.tenant_id = p_tenant_id
        -- The earlier days first: a later day is judged by them.
        ORDER BY t.tenant_id, t.metric_type, t.metric_date LIMIT p_days),
    taken AS (
        DELETE FROM @extschema@.metric_days_touched t USING day
        WHERE t.tenant_id = day.tenant_id AND t.metric_type = day.metric_type AND t.metric_date = day.metric_date)
    SELECT array_agg(day.tenant_id) FILTER (WHERE NOT is_own), array_agg(day.metric_type) FILTER (WHERE NOT is_own),
        array_agg(day.metric_date) FILTER (WHERE NOT is_own),
        array_agg(day.tenant_id) FILTER (WHERE is_own), array_agg(day.metric_type) FILTER (WHERE is_own),
        array_agg(day.metric_date) FILTER (WHERE is_own)
    INTO v_tenants, v_types, v_dates, v_own_tenants, v_own_types, v_own_dates
    FROM day CROSS JOIN LATERAL (SELECT day.metric_type NOT IN ('revenue', 'inventory', 'staffing', 'costs')) AS kind(is_own);
    IF v_own_dates IS NOT NULL THEN
        PERFORM _connector_service.connector_service_settle_measures(v_own_tenants, v_own_types, v_own_dates);
    END IF;
    IF v_dates IS NULL THEN
        RETURN coalesce(cardinality(v_own_dates), 0);
    END IF;

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
            -- A row that a person gave back is derived, or is not there.
            AND (m.derived_value IS NOT NULL OR NOT m.by_hand)
        RETURNING m.metric_id, m.by_hand),
    source AS (
        INSERT INTO @extschema@.metric_sources AS known (tenant_id, metric_type, connector_id, first_date)
        SELECT s.tenant_id, s.metric_type, c.connector_id, min(s.metric_date)
        FROM summed s JOIN @extschema@.connectors c ON c.connector_id = ANY (s.sources)
        -- A stock record is dated by its last change: a day without one is not missing.
        WHERE s.metric_type <> 'inventory'
            AND NOT EXISTS (SELECT FROM @extschema@.count_decisions d
                WHERE d.tenant_id = s.tenant_id AND d.connector_id = c.connector_id AND d.metric_type = s.metric_type AND d.part <> 'refunds' AND NOT d.counts)
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
    PERFORM _connector_service.connector_service_count_due(v_tenants, v_types);
    RETURN cardinality(v_dates) + coalesce(cardinality(v_own_dates), 0);
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_settle(integer, uuid) IS 'Sums the days whose facts changed, of a tenant (NULL: of all tenants), at most p_days of them; writes metrics, values of measures and alerts, and returns the number of days. Takes the lock of the facts.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.metrics', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.metric_sources', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
