-- aggregate: what people read.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE VIEW @extschema@.daily_revenue_by_category AS
SELECT m.tenant_id, m.metric_date, c.category, c.amount AS total_revenue
FROM @extschema@.metrics m
    CROSS JOIN LATERAL (
        SELECT part.key AS category, part.value::numeric AS amount
        FROM pg_catalog.jsonb_each(CASE WHEN NOT m.by_hand THEN m.data -> 'categories' END) AS part
        UNION ALL
        SELECT coalesce(m.data ->> 'category', 'uncategorized'), m.metric_value WHERE m.by_hand) AS c
WHERE m.metric_type = 'revenue';
COMMENT ON VIEW @extschema@.daily_revenue_by_category IS 'Revenue by tenant, day and category. A metric that was entered by hand counts in the category that its data names.';
COMMENT ON COLUMN @extschema@.daily_revenue_by_category.tenant_id IS 'Tenant of the metric.';
COMMENT ON COLUMN @extschema@.daily_revenue_by_category.metric_date IS 'Day in the tenant''s time zone.';
COMMENT ON COLUMN @extschema@.daily_revenue_by_category.category IS 'Category of the revenue; uncategorized where the record names none.';
COMMENT ON COLUMN @extschema@.daily_revenue_by_category.total_revenue IS 'Revenue in the tenant''s currency. One category of a day can be negative where returns are summed.';

CREATE VIEW @extschema@.daily_costs_by_category AS
SELECT m.tenant_id, m.metric_date, c.category, c.amount AS total_costs
FROM @extschema@.metrics m
    CROSS JOIN LATERAL (
        SELECT part.key AS category, part.value::numeric AS amount
        FROM pg_catalog.jsonb_each(CASE WHEN NOT m.by_hand THEN m.data -> 'categories' END) AS part
        UNION ALL
        SELECT coalesce(m.data ->> 'category', 'uncategorized'), m.metric_value WHERE m.by_hand) AS c
WHERE m.metric_type = 'costs';
COMMENT ON VIEW @extschema@.daily_costs_by_category IS 'Costs by tenant, day and category; refunds are a category. A metric that was entered by hand counts in the category that its data names.';
COMMENT ON COLUMN @extschema@.daily_costs_by_category.tenant_id IS 'Tenant of the metric.';
COMMENT ON COLUMN @extschema@.daily_costs_by_category.metric_date IS 'Day in the tenant''s time zone.';
COMMENT ON COLUMN @extschema@.daily_costs_by_category.category IS 'Category of the costs; uncategorized where the record names none.';
COMMENT ON COLUMN @extschema@.daily_costs_by_category.total_costs IS 'Costs in the tenant''s currency. One category of a day can be negative where credits are summed.';

CREATE VIEW @extschema@.daily_metrics_by_category AS
SELECT m.tenant_id, m.metric_type, m.metric_date, c.category, c.amount AS metric_value
FROM @extschema@.all_metrics m
    CROSS JOIN LATERAL (
        SELECT part.key AS category, part.value::numeric AS amount
        FROM pg_catalog.jsonb_each(CASE WHEN NOT m.by_hand THEN m.data -> 'categories' END) AS part
        UNION ALL
        SELECT coalesce(m.data ->> 'category', 'uncategorized'), m.metric_value WHERE m.by_hand) AS c;
COMMENT ON VIEW @extschema@.daily_metrics_by_category IS 'Every metric and measure by tenant, day and category. Only of what is summed do the categories of a day add up to the day.';
COMMENT ON COLUMN @extschema@.daily_metrics_by_category.tenant_id IS 'Tenant of the metric.';
COMMENT ON COLUMN @extschema@.daily_metrics_by_category.metric_type IS 'revenue, inventory, staffing, costs, or a measure of the tenant.';
COMMENT ON COLUMN @extschema@.daily_metrics_by_category.metric_date IS 'Day in the tenant''s time zone.';
COMMENT ON COLUMN @extschema@.daily_metrics_by_category.category IS 'Category; uncategorized where the record names none.';
COMMENT ON COLUMN @extschema@.daily_metrics_by_category.metric_value IS 'Sum, last value, average or count of different texts of the category.';

-- Averages of money are rounded as money is.
CREATE FUNCTION _connector_service.connector_service_round(p_average numeric, p_currency text) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN p_currency IS NULL THEN p_average
    ELSE pg_catalog.round(p_average, pg_catalog.scale(_connector_service.connector_service_scale('minor', p_currency))) END;
COMMENT ON FUNCTION _connector_service.connector_service_round(numeric, text) IS 'An average, rounded half away from zero to the minor unit of a currency by ISO 4217: 2 places for EUR, none for JPY, 3 for BHD. NULL currency: as it is.';

CREATE MATERIALIZED VIEW @extschema@.monthly_revenue AS
SELECT m.tenant_id, pg_catalog.date_trunc('month', m.metric_date::timestamp)::date AS month,
    pg_catalog.sum(m.metric_value) AS total_revenue,
    _connector_service.connector_service_round(pg_catalog.avg(m.metric_value), coalesce(pg_catalog.min(t.currency), 'USD')) AS avg_daily_revenue,
    pg_catalog.count(*) AS days_with_data
FROM @extschema@.metrics m LEFT JOIN @extschema@.tenants t ON t.tenant_id = m.tenant_id
WHERE m.metric_type = 'revenue'
GROUP BY 1, 2;
CREATE UNIQUE INDEX idx_monthly_revenue ON @extschema@.monthly_revenue (tenant_id, month);
COMMENT ON MATERIALIZED VIEW @extschema@.monthly_revenue IS 'Revenue by tenant and month, as of the last refresh. The upkeep process refreshes the view within a minute after metrics changed, whoever changed them; where a refresh takes long, it then waits twenty times as long as the refresh took. connector_service_doctor() names months that are behind, and the view monthly_metrics is never behind.';
COMMENT ON COLUMN @extschema@.monthly_revenue.tenant_id IS 'Tenant of the metrics.';
COMMENT ON COLUMN @extschema@.monthly_revenue.month IS 'First day of the month.';
COMMENT ON COLUMN @extschema@.monthly_revenue.total_revenue IS 'Revenue of the month in the tenant''s currency.';
COMMENT ON COLUMN @extschema@.monthly_revenue.avg_daily_revenue IS 'Average revenue of the days with data, rounded half away from zero to the minor unit of the tenant''s currency: 2 places for EUR, none for JPY, 3 for BHD.';
COMMENT ON COLUMN @extschema@.monthly_revenue.days_with_data IS 'Number of days of the month that have a metric.';

CREATE FUNCTION @extschema@.refresh_monthly_revenue() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
-- PostgreSQL's own statements for CONCURRENTLY fail with quoted identifiers.
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
BEGIN
    -- CONCURRENTLY needs a temporary table.
    IF has_database_privilege(current_database(), 'TEMPORARY')
        AND (SELECT c.relispopulated FROM pg_class c WHERE c.oid = '@extschema@.monthly_revenue'::regclass) THEN
        REFRESH MATERIALIZED VIEW CONCURRENTLY @extschema@.monthly_revenue;
    ELSE
        REFRESH MATERIALIZED VIEW @extschema@.monthly_revenue;
    END IF;
END
$$;
COMMENT ON FUNCTION @extschema@.refresh_monthly_revenue() IS 'Refreshes monthly_revenue. Its readers are not blocked, unless connector_service_engine may not create temporary tables in this database.';

CREATE FUNCTION _connector_service.connector_service_check_period(p_tenant_id uuid, p_metric_type text, p_start_date date, p_end_date date, p_bucket text DEFAULT 'day') RETURNS void LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_tenant_id IS NULL OR p_start_date IS NULL OR p_end_date IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'p_tenant_id, p_start_date or p_end_date is NULL',
            HINT = 'Only p_metric_type may be NULL.';
    ELSIF p_metric_type NOT IN ('revenue', 'inventory', 'staffing', 'costs')
        AND NOT EXISTS (SELECT FROM @extschema@.measures own WHERE own.tenant_id = p_tenant_id AND own.name = p_metric_type) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('metric type "%s" is not known', p_metric_type),
            -- Not by a function: whoever calls this may not name ours.
            DETAIL = 'Known metric types: costs, inventory, revenue, staffing.'
                || coalesce((SELECT format(' Measures of the tenant: %s.', string_agg(own.name, ', ' ORDER BY own.name))
                    FROM @extschema@.measures own WHERE own.tenant_id = p_tenant_id HAVING count(*) > 0), '');
    ELSIF p_start_date > p_end_date THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('the start date %s is after the end date %s', p_start_date, p_end_date),
            HINT = 'Swap the two dates.';
    ELSIF p_bucket IS NULL OR lower(btrim(p_bucket) COLLATE "C") NOT IN ('day', 'week', 'month', 'quarter', 'year') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('bucket "%s" is not known', p_bucket),
            DETAIL = 'Known buckets: day, month, quarter, week, year.';
    END IF;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_check_period(uuid, text, date, date, text) IS 'Raises 22004 or 22023 with a hint for arguments that make no sense.';

CREATE FUNCTION _connector_service.connector_service_texts(p_tenant_id uuid, p_metric_type text, p_from date, p_until date) RETURNS numeric LANGUAGE sql STABLE
BEGIN ATOMIC
    -- Sorted, and on disk where there are many: the memory that it takes does not grow with the facts.
    SELECT (SELECT pg_catalog.count(DISTINCT f.distinct_value) FROM @extschema@.metric_facts f
            WHERE f.tenant_id = p_tenant_id AND f.metric_type = p_metric_type AND f.metric_date BETWEEN p_from AND p_until
                AND NOT EXISTS (
                    SELECT FROM @extschema@.measure_values v
                    WHERE v.tenant_id = p_tenant_id AND v.metric_type = p_metric_type AND v.metric_date = f.metric_date AND v.by_hand)
                AND NOT EXISTS (
                    SELECT FROM @extschema@.count_decisions d
                    WHERE NOT d.counts AND d.tenant_id = p_tenant_id AND d.connector_id = f.connector_id AND d.metric_type = p_metric_type AND d.part = 'all'
                        AND f.metric_date >= coalesce(d.first_date, '-infinity') AND f.metric_date <= coalesce(d.last_date, 'infinity')))
        + coalesce((SELECT pg_catalog.sum(v.metric_value) FROM @extschema@.measure_values v
            WHERE v.tenant_id = p_tenant_id AND v.metric_type = p_metric_type AND v.metric_date BETWEEN p_from AND p_until AND v.by_hand), 0);
END;
COMMENT ON FUNCTION _connector_service.connector_service_texts(uuid, text, date, date) IS 'How many different texts a measure has from one day to another, both included; days that were entered by hand add their numbers.';

CREATE VIEW @extschema@.monthly_metrics AS
SELECT b.tenant_id, b.metric_type, b.month,
    CASE WHEN b.aggregation = 'distinct_count' THEN
            _connector_service.connector_service_texts(b.tenant_id, b.metric_type, b.month, (b.month + interval '1 month' - interval '1 day')::date)
        ELSE b.total END AS total,
    _connector_service.connector_service_round(CASE WHEN b.aggregation = 'average' THEN b.total ELSE b.average END, b.currency) AS average,
    b.days_with_data
FROM (
    SELECT m.tenant_id, m.metric_type, pg_catalog.date_trunc('month', m.metric_date::timestamp)::date AS month, coalesce(own.aggregation, 'sum') AS aggregation,
        CASE WHEN own.unit = 'money' OR m.metric_type IN ('revenue', 'costs') THEN coalesce(t.currency, 'USD') END AS currency,
        CASE coalesce(own.aggregation, 'sum')
            WHEN 'last' THEN (pg_catalog.array_agg(m.metric_value ORDER BY m.metric_date DESC))[1]
            WHEN 'average' THEN _connector_service.connector_service_mean(
                pg_catalog.sum(CASE WHEN m.by_hand THEN m.metric_value ELSE (m.data -> 'sum')::numeric END),
                pg_catalog.sum(CASE WHEN m.by_hand THEN 1 ELSE (m.data -> 'counted')::numeric END))
            ELSE pg_catalog.sum(m.metric_value) END AS total,
        pg_catalog.avg(m.metric_value) AS average, pg_catalog.count(*) AS days_with_data
    FROM @extschema@.all_metrics m
        LEFT JOIN @extschema@.measures own ON own.tenant_id = m.tenant_id AND own.name = m.metric_type AND m.is_measure
        LEFT JOIN @extschema@.tenants t ON t.tenant_id = m.tenant_id
    GROUP BY 1, 2, 3, 4, 5) AS b;
COMMENT ON VIEW @extschema@.monthly_metrics IS 'Every metric and measure by tenant and month. It is made of metrics and measure_values when it is read, so it is never behind; monthly_revenue is quicker to read.';
COMMENT ON COLUMN @extschema@.monthly_metrics.tenant_id IS 'Tenant of the metrics.';
COMMENT ON COLUMN @extschema@.monthly_metrics.metric_type IS 'revenue, inventory, staffing, costs, or a measure of the tenant.';
COMMENT ON COLUMN @extschema@.monthly_metrics.month IS 'First day of the month.';
COMMENT ON COLUMN @extschema@.monthly_metrics.total IS 'What the month comes to, exactly: the sum; for a measure, what its aggregation makes of the month. See aggregate_metrics().';
COMMENT ON COLUMN @extschema@.monthly_metrics.average IS 'Average of the days with data; of money, rounded half away from zero to the minor unit of the tenant''s currency. For a measure that is averaged: the average of all records.';
COMMENT ON COLUMN @extschema@.monthly_metrics.days_with_data IS 'Number of days of the month that have a value.';

CREATE FUNCTION @extschema@.get_metrics(p_tenant_id uuid, p_metric_type text, p_start_date date, p_end_date date) RETURNS jsonb LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT _connector_service.connector_service_check_period(p_tenant_id, p_metric_type, p_start_date, p_end_date);
    SELECT jsonb_build_object(
        'metrics', coalesce(jsonb_agg(jsonb_build_object(
            'metric_id', m.metric_id, 'metric_type', m.metric_type, 'metric_value', m.metric_value, 'metric_date', m.metric_date, 'data', m.data)
            ORDER BY m.metric_date, m.metric_type), '[]'),
        'count', count(*),
        'period', jsonb_build_object('start', p_start_date, 'end', p_end_date))
    FROM (
        SELECT own.metric_id, own.metric_type, own.metric_value, own.metric_date, own.data FROM @extschema@.metrics own
        WHERE own.tenant_id = p_tenant_id AND own.metric_date BETWEEN p_start_date AND p_end_date
            AND own.metric_type = ANY (CASE WHEN p_metric_type IS NULL THEN '{revenue,inventory,staffing,costs}' ELSE ARRAY[p_metric_type] END)
        UNION ALL
        SELECT v.metric_id, v.metric_type, v.metric_value, v.metric_date, v.data FROM @extschema@.measure_values v
        WHERE v.tenant_id = p_tenant_id AND v.metric_date BETWEEN p_start_date AND p_end_date
            AND (p_metric_type IS NULL OR v.metric_type = p_metric_type)) AS m;
END;
COMMENT ON FUNCTION @extschema@.get_metrics(uuid, text, date, date) IS 'Returns the metrics of tenant p_tenant_id from p_start_date to p_end_date, both included, ordered by date: {"metrics": [{"metric_id", "metric_type", "metric_value", "metric_date", "data"}], "count": n, "period": {"start", "end"}}. Numbers are exact. p_metric_type is one of the four types or a measure of the tenant; NULL: all of them. Raises 22004 if another argument is NULL, 22023 for an unknown metric type or a period that ends before it starts.';

CREATE FUNCTION @extschema@.aggregate_metrics(p_tenant_id uuid, p_metric_type text, p_start_date date, p_end_date date, p_bucket text)
RETURNS TABLE (metric_type text, period_start date, period_end date, total numeric, average numeric, minimum numeric, maximum numeric, days_with_data bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT _connector_service.connector_service_check_period(p_tenant_id, p_metric_type, p_start_date, p_end_date, p_bucket);
    SELECT b.metric_type, b.first_day,
        (b.first_day + CASE b.bucket WHEN 'quarter' THEN interval '3 months' ELSE ('1 ' || b.bucket)::interval END - interval '1 day')::date,
        CASE WHEN b.aggregation = 'distinct_count' THEN _connector_service.connector_service_texts(
                p_tenant_id, b.metric_type, greatest(b.first_day, p_start_date),
                least((b.first_day + CASE b.bucket WHEN 'quarter' THEN interval '3 months' ELSE ('1 ' || b.bucket)::interval END - interval '1 day')::date, p_end_date))
            ELSE b.total END,
        _connector_service.connector_service_round(CASE WHEN b.aggregation = 'average' THEN b.total ELSE b.average END, b.currency),
        b.minimum, b.maximum, b.days
    FROM (
        SELECT d.bucket, d.metric_type, d.first_day, d.aggregation, d.currency,
            CASE d.aggregation
                WHEN 'last' THEN (array_agg(d.metric_value ORDER BY d.metric_date DESC))[1]
                -- Each record counts the same, not each day. A day that was entered by hand counts as one.
                WHEN 'average' THEN _connector_service.connector_service_mean(
                    sum(CASE WHEN d.by_hand THEN d.metric_value ELSE (d.data -> 'sum')::numeric END),
                    sum(CASE WHEN d.by_hand THEN 1 ELSE (d.data -> 'counted')::numeric END))
                ELSE sum(d.metric_value) END AS total,
            avg(d.metric_value) AS average, min(d.metric_value) AS minimum, max(d.metric_value) AS maximum, count(*) AS days
        FROM (
            SELECT asked.bucket, m.metric_type, date_trunc(asked.bucket, m.metric_date::timestamp)::date AS first_day,
                coalesce(own.aggregation, 'sum') AS aggregation, CASE WHEN own.unit = 'money' OR m.metric_type IN ('revenue', 'costs') THEN coalesce(t.currency, 'USD') END AS currency,
                m.metric_value, m.metric_date, m.by_hand, m.data
            FROM (SELECT lower(btrim(p_bucket) COLLATE "C") AS bucket) AS asked
                CROSS JOIN (
                    SELECT four.tenant_id, four.metric_type, four.metric_value, four.metric_date, four.by_hand, NULL::jsonb AS data FROM @extschema@.metrics four
                    WHERE four.tenant_id = p_tenant_id AND four.metric_date BETWEEN p_start_date AND p_end_date
                        AND four.metric_type = ANY (CASE WHEN p_metric_type IS NULL THEN '{revenue,inventory,staffing,costs}' ELSE ARRAY[p_metric_type] END)
                    UNION ALL
                    SELECT v.tenant_id, v.metric_type, v.metric_value, v.metric_date, v.by_hand, v.data FROM @extschema@.measure_values v
                    WHERE v.tenant_id = p_tenant_id AND v.metric_date BETWEEN p_start_date AND p_end_date
                        AND (p_metric_type IS NULL OR v.metric_type = p_metric_type)) AS m
                LEFT JOIN @extschema@.measures own ON own.tenant_id = m.tenant_id AND own.name = m.metric_type
                LEFT JOIN @extschema@.tenants t ON t.tenant_id = m.tenant_id) AS d
        GROUP BY 1, 2, 3, 4, 5) AS b
    ORDER BY 1, 2;
END;
COMMENT ON FUNCTION @extschema@.aggregate_metrics(uuid, text, date, date, text) IS 'Returns total, average, minimum and maximum of the metrics of tenant p_tenant_id from p_start_date to p_end_date, both included, for each p_bucket: day, week (from Monday), month, quarter or year. period_start and period_end are those of the whole bucket; only days of the period count. The average is over days with data; one of money is rounded half away from zero to the minor unit of the currency, and totals are exact. A bucket without data has no row. For a measure, total is what the measure''s aggregation makes of the period: the sum, the value of the last day, the average of all records to ten decimal places (which average shows too), or how many different texts all records have (days that were entered by hand add their numbers). p_metric_type is one of the four types or a measure of the tenant; NULL: all of them. Raises 22004 if another argument is NULL, 22023 for an unknown metric type or bucket, or a period that ends before it starts.';

CREATE FUNCTION @extschema@.connector_service_explain(p_metric_id uuid)
RETURNS TABLE (raw_id uuid, connector_id uuid, connector text, source_record_id text, item integer, mapping_id integer, mapping_version integer, mapping jsonb,
    category text, currency text, value numeric, rate numeric, counted numeric, data jsonb, ingested_at timestamptz, run_id uuid, run_finished_at timestamptz,
    not_counted text, distinct_value text, metric_time timestamptz, dropped_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_metric record;
    v_aggregation text;
BEGIN
    SELECT m.tenant_id, m.metric_type, m.metric_date, m.metric_value, m.derived_value, m.by_hand INTO v_metric
    FROM @extschema@.metrics m WHERE m.metric_id = p_metric_id;
    IF NOT FOUND THEN
        SELECT v.tenant_id, v.metric_type, v.metric_date, v.metric_value, v.derived_value, v.by_hand INTO v_metric
        FROM @extschema@.measure_values v WHERE v.metric_id = p_metric_id;
        v_aggregation := (SELECT own.aggregation FROM @extschema@.measures own WHERE own.tenant_id = v_metric.tenant_id AND own.name = v_metric.metric_type);
    END IF;
    IF v_metric.tenant_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('metric "%s" does not exist', p_metric_id),
            HINT = 'Take a metric_id from the table metrics, or from measure_values.';
    END IF;
    IF v_metric.by_hand THEN
        RAISE NOTICE '% of % was entered by hand as %; %', v_metric.metric_type, v_metric.metric_date, v_metric.metric_value,
            coalesce('the records add up to ' || v_metric.derived_value, 'there are no records for it');
    END IF;
    RETURN QUERY
    SELECT f.raw_id, f.connector_id, c.name, r.source_record_id, f.item, f.mapping_id, f.version, v.definition,
        f.category, f.currency, f.value, rated.rate,
        -- Of a text only the first record counts, and of the last value only that record.
        CASE WHEN d.connector_id IS NOT NULL THEN 0
            WHEN v_aggregation = 'distinct_count' AND row_number() OVER (PARTITION BY f.distinct_value, d.connector_id IS NULL ORDER BY r.source_record_id, f.raw_id, f.mapping_id, f.item) > 1 THEN 0
            WHEN v_aggregation = 'last' AND rated.rate IS NOT NULL AND row_number() OVER (
                PARTITION BY rated.rate IS NULL, d.connector_id IS NULL ORDER BY f.metric_time DESC NULLS LAST, f.raw_id DESC, f.mapping_id DESC, f.item DESC) > 1 THEN 0
            ELSE f.value * rated.rate END,
        CASE WHEN r.dropped_at IS NULL THEN r.data END, r.ingested_at, r.run_id, run.finished_at,
        CASE d.decided_by
            WHEN 'person' THEN format('connector "%s" is not counted for %s since %s, as decided by connector_service_count()', c.name, f.metric_type, d.decided_at::date)
            WHEN 'worker' THEN format('%s counts it already: %s of %s records of "%s" have an equal amount there, see count_decisions',
                coalesce((SELECT string_agg(format('"%s"', o.name), ' or ' ORDER BY o.name) FROM @extschema@.connectors o WHERE o.connector_id = ANY (d.against)), 'another connector'),
                d.evidence ->> 'matched', d.evidence ->> 'amounts', c.name)
        END,
        f.distinct_value, f.metric_time, r.dropped_at
    FROM @extschema@.metric_facts f
        JOIN @extschema@.tenants t ON t.tenant_id = f.tenant_id
        JOIN @extschema@.raw_connector_data r ON r.raw_id = f.raw_id
        JOIN @extschema@.connectors c ON c.connector_id = f.connector_id
        LEFT JOIN @extschema@.metric_mapping_versions v ON v.mapping_id = f.mapping_id AND v.version = f.version
        LEFT JOIN @extschema@.fx_rates x ON x.to_currency = t.currency AND x.rate_date = f.metric_date AND x.from_currency = f.currency
        LEFT JOIN @extschema@.sync_runs run ON run.run_id = r.run_id
        LEFT JOIN @extschema@.count_decisions d ON NOT d.counts AND d.tenant_id = f.tenant_id AND d.connector_id = f.connector_id AND d.metric_type = f.metric_type
            AND d.part = CASE WHEN f.metric_type <> 'costs' THEN 'all' WHEN f.category = 'refunds' THEN 'refunds' ELSE 'rest' END
            AND f.metric_date >= coalesce(d.first_date, '-infinity') AND f.metric_date <= coalesce(d.last_date, 'infinity')
        CROSS JOIN LATERAL (SELECT CASE WHEN f.currency IN (t.currency, '') THEN 1 ELSE x.rate END) AS rated(rate)
    WHERE f.tenant_id = v_metric.tenant_id AND f.metric_type = v_metric.metric_type AND f.metric_date = v_metric.metric_date
    ORDER BY c.name, r.source_record_id, f.mapping_id, f.item;
END
$$;
COMMENT ON FUNCTION @extschema@.connector_service_explain(uuid) IS 'Explains metric p_metric_id, or a value of a measure: one row for each fact, with its record, the mapping in the version that was used, the exchange rate, the amount that counted (NULL: no exchange rate; 0: it is left out, and not_counted says why) and the run that stored the record. The sum of counted is the metric; for a measure that is averaged, their average. Of the last value only its record counts, and of a text the first record that has it: the others have 0. data is NULL where the JSON of the record was dropped, and dropped_at says when. A notice tells if a person entered another value. Raises 42704 for an unknown metric.';

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
