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

CREATE MATERIALIZED VIEW @extschema@.monthly_revenue AS
SELECT m.tenant_id, pg_catalog.date_trunc('month', m.metric_date::timestamp)::date AS month,
    pg_catalog.sum(m.metric_value) AS total_revenue, pg_catalog.avg(m.metric_value) AS avg_daily_revenue, pg_catalog.count(*) AS days_with_data
FROM @extschema@.metrics m
WHERE m.metric_type = 'revenue'
GROUP BY 1, 2;
CREATE UNIQUE INDEX idx_monthly_revenue ON @extschema@.monthly_revenue (tenant_id, month);
COMMENT ON MATERIALIZED VIEW @extschema@.monthly_revenue IS 'Revenue by tenant and month, as of the last refresh. The upkeep process refreshes the view within a minute after metrics changed; where a refresh takes long, it then waits twenty times as long as the refresh took.';
COMMENT ON COLUMN @extschema@.monthly_revenue.tenant_id IS 'Tenant of the metrics.';
COMMENT ON COLUMN @extschema@.monthly_revenue.month IS 'First day of the month.';
COMMENT ON COLUMN @extschema@.monthly_revenue.total_revenue IS 'Revenue of the month in the tenant''s currency.';
COMMENT ON COLUMN @extschema@.monthly_revenue.avg_daily_revenue IS 'Average revenue of the days with data, in the tenant''s currency.';
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

CREATE FUNCTION _connector_service.connector_service_check_period(p_tenant_id uuid, p_metric_type text, p_start_date date, p_end_date date, p_bucket text DEFAULT 'day') RETURNS void LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_tenant_id IS NULL OR p_start_date IS NULL OR p_end_date IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'p_tenant_id, p_start_date or p_end_date is NULL',
            HINT = 'Only p_metric_type may be NULL.';
    ELSIF p_metric_type NOT IN ('revenue', 'inventory', 'staffing', 'costs') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('metric type "%s" is not known', p_metric_type),
            DETAIL = 'Known metric types: costs, inventory, revenue, staffing.';
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
    FROM @extschema@.metrics m
    WHERE m.tenant_id = p_tenant_id AND m.metric_date BETWEEN p_start_date AND p_end_date
        AND m.metric_type = ANY (CASE WHEN p_metric_type IS NULL THEN '{revenue,inventory,staffing,costs}' ELSE ARRAY[p_metric_type] END);
END;
COMMENT ON FUNCTION @extschema@.get_metrics(uuid, text, date, date) IS 'Returns the metrics of tenant p_tenant_id from p_start_date to p_end_date, both included, ordered by date: {"metrics": [{"metric_id", "metric_type", "metric_value", "metric_date", "data"}], "count": n, "period": {"start", "end"}}. Numbers are exact. p_metric_type NULL: all types. Raises 22004 if another argument is NULL, 22023 for an unknown metric type or a period that ends before it starts.';

CREATE FUNCTION @extschema@.aggregate_metrics(p_tenant_id uuid, p_metric_type text, p_start_date date, p_end_date date, p_bucket text)
RETURNS TABLE (metric_type text, period_start date, period_end date, total numeric, average numeric, minimum numeric, maximum numeric, days_with_data bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT _connector_service.connector_service_check_period(p_tenant_id, p_metric_type, p_start_date, p_end_date, p_bucket);
    SELECT b.metric_type, b.first_day,
        (b.first_day + CASE b.bucket WHEN 'quarter' THEN interval '3 months' ELSE ('1 ' || b.bucket)::interval END - interval '1 day')::date,
        b.total, b.average, b.minimum, b.maximum, b.days
    FROM (
        SELECT asked.bucket, m.metric_type, date_trunc(asked.bucket, m.metric_date::timestamp)::date AS first_day,
            sum(m.metric_value) AS total, avg(m.metric_value) AS average, min(m.metric_value) AS minimum, max(m.metric_value) AS maximum, count(*) AS days
        FROM (SELECT lower(btrim(p_bucket) COLLATE "C") AS bucket) AS asked, @extschema@.metrics m
        WHERE m.tenant_id = p_tenant_id AND m.metric_date BETWEEN p_start_date AND p_end_date
            AND m.metric_type = ANY (CASE WHEN p_metric_type IS NULL THEN '{revenue,inventory,staffing,costs}' ELSE ARRAY[p_metric_type] END)
        GROUP BY 1, 2, 3) AS b
    ORDER BY 1, 2;
END;
COMMENT ON FUNCTION @extschema@.aggregate_metrics(uuid, text, date, date, text) IS 'Returns total, average, minimum and maximum of the metrics of tenant p_tenant_id from p_start_date to p_end_date, both included, for each p_bucket: day, week (from Monday), month, quarter or year. period_start and period_end are those of the whole bucket; only days of the period count. The average is over days with data, and a bucket without data has no row. p_metric_type NULL: all types. Raises 22004 if another argument is NULL, 22023 for an unknown metric type or bucket, or a period that ends before it starts.';

CREATE FUNCTION @extschema@.connector_service_explain(p_metric_id uuid)
RETURNS TABLE (raw_id uuid, connector_id uuid, connector text, source_record_id text, item integer, mapping_id integer, mapping_version integer, mapping jsonb,
    category text, currency text, value numeric, rate numeric, counted numeric, data jsonb, ingested_at timestamptz, run_id uuid, run_finished_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_metric @extschema@.metrics;
BEGIN
    SELECT m.* INTO v_metric FROM @extschema@.metrics m WHERE m.metric_id = p_metric_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('metric "%s" does not exist', p_metric_id),
            HINT = 'Take a metric_id from the table metrics.';
    END IF;
    IF v_metric.by_hand THEN
        RAISE NOTICE '% of % was entered by hand as %; %', v_metric.metric_type, v_metric.metric_date, v_metric.metric_value,
            coalesce('the records add up to ' || v_metric.derived_value, 'there are no records for it');
    END IF;
    RETURN QUERY
    SELECT f.raw_id, f.connector_id, c.name, r.source_record_id, f.item, f.mapping_id, f.version, v.definition,
        f.category, f.currency, f.value, rated.rate, f.value * rated.rate, r.data, r.ingested_at, r.run_id, run.finished_at
    FROM @extschema@.metric_facts f
        JOIN @extschema@.tenants t ON t.tenant_id = f.tenant_id
        JOIN @extschema@.raw_connector_data r ON r.raw_id = f.raw_id
        JOIN @extschema@.connectors c ON c.connector_id = f.connector_id
        LEFT JOIN @extschema@.metric_mapping_versions v ON v.mapping_id = f.mapping_id AND v.version = f.version
        LEFT JOIN @extschema@.fx_rates x ON x.to_currency = t.currency AND x.rate_date = f.metric_date AND x.from_currency = f.currency
        LEFT JOIN @extschema@.sync_runs run ON run.run_id = r.run_id
        CROSS JOIN LATERAL (SELECT CASE WHEN f.currency = t.currency THEN 1 ELSE x.rate END) AS rated(rate)
    WHERE f.tenant_id = v_metric.tenant_id AND f.metric_type = v_metric.metric_type AND f.metric_date = v_metric.metric_date
    ORDER BY c.name, r.source_record_id, f.mapping_id, f.item;
END
$$;
COMMENT ON FUNCTION @extschema@.connector_service_explain(uuid) IS 'Explains metric p_metric_id: one row for each fact, with its record, the mapping in the version that was used, the exchange rate, the amount that counted (NULL: no exchange rate) and the run that stored the record. The sum of counted is the metric. A notice tells if a person entered another value. Raises 42704 for an unknown metric.';

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
