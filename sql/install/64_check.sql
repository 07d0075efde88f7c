-- check: the alerts that follow from summing a day, and those of the hourly checks.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION _connector_service.connector_service_alert_days(p_tenant_ids uuid[], p_metric_types text[], p_metric_dates date[], p_trouble jsonb) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET DateStyle = 'ISO' SET jit = off
AS $$
BEGIN
    WITH day AS MATERIALIZED (
        SELECT d.* FROM ROWS FROM (unnest(p_tenant_ids), unnest(p_metric_types), unnest(p_metric_dates)) AS d(tenant_id, metric_type, metric_date)),
    trouble AS (
        SELECT d.*, m.metric_id, m.is_measure, t.currency
        FROM jsonb_to_recordset(p_trouble) AS d(tenant_id uuid, metric_type text, metric_date date, total numeric, unconverted jsonb, is_valid boolean)
            JOIN @extschema@.tenants t ON t.tenant_id = d.tenant_id
            LEFT JOIN @extschema@.all_metrics m ON m.tenant_id = d.tenant_id AND m.metric_type = d.metric_type AND m.metric_date = d.metric_date),
    found AS MATERIALIZED (
        SELECT t.tenant_id, t.metric_id, t.is_measure, t.metric_type, t.metric_date, 'net' AS kind, 'outlier' AS alert_type, 'critical' AS severity,
            format('%s of %s adds up to %s; a metric is never negative, so this day has none', t.metric_type, t.metric_date, t.total) AS message
        FROM trouble t WHERE t.total < 0 AND t.is_valid IS NOT TRUE
        UNION ALL
        SELECT t.tenant_id, t.metric_id, t.is_measure, t.metric_type, t.metric_date, 'fx', 'completeness', 'warning',
            format('%s of %s leaves out %s: fx_rates has no rate to %s for that day', t.metric_type, t.metric_date,
                (SELECT string_agg(format('%s %s', u.value, u.key), ', ' ORDER BY u.key) FROM jsonb_each_text(t.unconverted) AS u), t.currency)
        FROM trouble t WHERE t.unconverted <> '{}'
        UNION ALL
        SELECT m.tenant_id, m.metric_id, m.is_measure, m.metric_type, m.metric_date, 'hand', 'completeness', 'info',
            format('%s of %s stays %s, as entered by hand; the records add up to %s', m.metric_type, m.metric_date, m.metric_value, m.derived_value)
        FROM day JOIN @extschema@.all_metrics m ON m.tenant_id = day.tenant_id AND m.metric_type = day.metric_type AND m.metric_date = day.metric_date
        WHERE m.by_hand AND m.derived_value <> m.metric_value),
    alerted AS (
        INSERT INTO @extschema@.data_quality_alerts (tenant_id, metric_id, measure_value_id, alert_type, severity, message, alert_key, metric_type, metric_date)
        SELECT f.tenant_id, CASE WHEN NOT f.is_measure THEN f.metric_id END, CASE WHEN f.is_measure THEN f.metric_id END, f.alert_type, f.severity, f.message, format('%s:%s:%s', f.kind, f.metric_type, f.metric_date), f.metric_type, f.metric_date
        FROM found f)
    UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
    FROM day
    WHERE a.tenant_id = day.tenant_id AND a.metric_date = day.metric_date AND a.metric_type = day.metric_type AND NOT a.resolved_by_data
        AND CASE split_part(a.alert_key, ':', 1)
            WHEN 'missing' THEN EXISTS (
                SELECT FROM @extschema@.metric_facts f
                WHERE f.tenant_id = day.tenant_id AND f.metric_type = day.metric_type AND f.metric_date = day.metric_date
                    AND f.connector_id = a.connector_id)
            WHEN 'outlier' THEN false
            WHEN 'completeness' THEN false
            ELSE NOT EXISTS (
                SELECT FROM found f WHERE f.tenant_id = day.tenant_id AND a.alert_key = format('%s:%s:%s', f.kind, f.metric_type, f.metric_date))
        END;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_alert_days(uuid[], text[], date[], jsonb) IS 'Opens and closes the alerts of days that were just summed: a negative sum, amounts without an exchange rate, a metric that was entered by hand and differs, a missing day.';

CREATE FUNCTION _connector_service.connector_service_close_schema_alerts(p_connector_id uuid) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
    WHERE a.connector_id = p_connector_id AND a.alert_type = 'schema_error' AND NOT a.resolved_by_data AND a.alert_key LIKE 'schema:%'
        AND NOT EXISTS (
            SELECT FROM @extschema@.quarantine q
            WHERE q.connector_id = p_connector_id AND q.replayed_at IS NULL AND q.raw_id IS NOT NULL
                AND q.reason_code = split_part(a.alert_key, ':', 3)
                AND a.alert_key = format('schema:%s:%s:%s:%s', q.connector_id, q.reason_code, q.mapping_id, q.stream));
END;
COMMENT ON FUNCTION _connector_service.connector_service_close_schema_alerts(uuid) IS 'Closes the alerts about unreadable records of a connector where none is left in quarantine.';

-- Alerts of the hourly checks.

CREATE FUNCTION _connector_service.connector_service_prune_sources(p_tenant_ids uuid[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A source whose first days are gone begins later; one without any is no source any more.
    WITH actual AS MATERIALIZED (
        SELECT s.tenant_id, s.metric_type, s.connector_id, (
            SELECT f.metric_date FROM @extschema@.metric_facts f
            WHERE f.tenant_id = s.tenant_id AND f.metric_type = s.metric_type AND f.metric_date >= s.first_date
                AND f.connector_id = s.connector_id AND f.category IS DISTINCT FROM 'refunds'
            ORDER BY f.metric_date LIMIT 1) AS first_date
        FROM @extschema@.metric_sources s WHERE p_tenant_ids IS NULL OR s.tenant_id = ANY (p_tenant_ids)),
    gone AS (
        DELETE FROM @extschema@.metric_sources s USING actual a
        WHERE s.tenant_id = a.tenant_id AND s.metric_type = a.metric_type AND s.connector_id = a.connector_id AND a.first_date IS NULL)
    UPDATE @extschema@.metric_sources s SET first_date = a.first_date FROM actual a
    WHERE s.tenant_id = a.tenant_id AND s.metric_type = a.metric_type AND s.connector_id = a.connector_id AND a.first_date > s.first_date;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_prune_sources(uuid[]) IS 'Updates metric_sources of tenants (NULL: of all tenants) after records were deleted. The caller holds the lock of their facts.';

CREATE FUNCTION _connector_service.connector_service_check_missing(p_tenant_ids uuid[], p_days integer) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_hashjoin = on SET jit = off SET DateStyle = 'ISO'
AS $$
DECLARE
    v_missing bigint;
BEGIN
    WITH tenant AS MATERIALIZED (
        SELECT t.tenant_id, t.timezone, (now() AT TIME ZONE t.timezone)::date AS today FROM @extschema@.tenants t
        WHERE p_tenant_ids IS NULL OR t.tenant_id = ANY (p_tenant_ids)),
    source AS MATERIALIZED (
        SELECT s.tenant_id, s.metric_type, s.connector_id, s.first_date, c.name, tenant.today,
            -- Yesterday counts as missing only after its connector was synced today.
            CASE WHEN c.last_sync_at < tenant.today::timestamp AT TIME ZONE tenant.timezone THEN tenant.today - 2 ELSE tenant.today - 1 END AS last_date
        FROM @extschema@.metric_sources s JOIN tenant ON tenant.tenant_id = s.tenant_id JOIN @extschema@.connectors c ON c.connector_id = s.connector_id
        WHERE c.status <> 'paused'
        UNION ALL
        -- Metric types that only people enter.
        SELECT tenant.tenant_id, type.name, NULL, first.metric_date, NULL, tenant.today, tenant.today - 1
        FROM tenant CROSS JOIN LATERAL (
                SELECT unnest('{revenue,inventory,staffing,costs}'::text[])
                UNION ALL SELECT own.name FROM @extschema@.measures own WHERE own.tenant_id = tenant.tenant_id) AS type(name)
            CROSS JOIN LATERAL (
                SELECT min(m.metric_date) AS metric_date FROM @extschema@.all_metrics m
                WHERE m.tenant_id = tenant.tenant_id AND m.metric_type = type.name) AS first
        WHERE first.metric_date IS NOT NULL
            AND NOT EXISTS (SELECT FROM @extschema@.metric_sources s WHERE s.tenant_id = tenant.tenant_id AND s.metric_type = type.name)),
    missing AS MATERIALIZED (
        SELECT s.*, day.metric_date
        FROM source s
            CROSS JOIN LATERAL _connector_service.connector_service_quality_rule(s.tenant_id, s.metric_type) AS rule
            CROSS JOIN LATERAL (
                SELECT generate_series(greatest(s.first_date, s.today - p_days), s.last_date, interval '1 day')::date AS metric_date) AS day
        WHERE extract(isodow FROM day.metric_date)::integer <> ALL (rule.closed_weekdays) AND day.metric_date <> ALL (rule.closed_days)
            AND NOT EXISTS (
                SELECT FROM @extschema@.all_metrics m
                WHERE m.tenant_id = s.tenant_id AND m.metric_type = s.metric_type AND m.metric_date = day.metric_date
                    AND (s.connector_id IS NULL OR m.by_hand OR m.data -> 'sources' ? s.connector_id::text))
            AND NOT EXISTS (
                SELECT FROM @extschema@.metric_facts f
                WHERE f.tenant_id = s.tenant_id AND f.metric_type = s.metric_type AND f.metric_date = day.metric_date AND f.connector_id = s.connector_id)),
    keyed AS MATERIALIZED (
        SELECT m.*, format('missing:%s:%s:%s', m.metric_type, m.metric_date, m.connector_id) AS alert_key FROM missing m),
    alerted AS (
        INSERT INTO @extschema@.data_quality_alerts (tenant_id, connector_id, alert_type, severity, message, alert_key, metric_type, metric_date)
        SELECT k.tenant_id, k.connector_id, 'missing', 'warning',
            format('no %s%s on %s', k.metric_type, coalesce(' from "' || k.name || '"', ''), to_char(k.metric_date, 'FMDay, YYYY-MM-DD')),
            k.alert_key, k.metric_type, k.metric_date
        FROM keyed k
        WHERE NOT EXISTS (
            SELECT FROM @extschema@.data_quality_alerts a
            WHERE a.tenant_id = k.tenant_id AND a.alert_type = 'missing' AND a.alert_key = k.alert_key AND NOT a.resolved_by_data
                AND a.last_seen_at > now() - interval '12 hours')),
    -- EXCEPT, here and below, because it stays quick whatever the planner expects of tables that were never analyzed.
    over AS MATERIALIZED (
        SELECT a.tenant_id, a.alert_key
        FROM @extschema@.data_quality_alerts a JOIN tenant ON tenant.tenant_id = a.tenant_id
        WHERE NOT a.resolved_by_data AND a.alert_type = 'missing' AND a.alert_key LIKE 'missing:%' AND a.metric_date >= tenant.today - p_days
        EXCEPT SELECT k.tenant_id, k.alert_key FROM keyed k),
    closed AS (
        UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
        FROM over
        WHERE a.tenant_id = over.tenant_id AND a.alert_type = 'missing' AND a.alert_key = over.alert_key)
    SELECT count(*) INTO v_missing FROM keyed;
    RETURN v_missing;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_check_missing(uuid[], integer) IS 'Looks for missing days of tenants (NULL: of all tenants); see check_missing_data(). What is stored meanwhile is found by the next check.';

CREATE FUNCTION @extschema@.check_missing_data(p_days integer DEFAULT 30) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_days IS NULL OR p_days NOT BETWEEN 1 AND 3660 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('cannot check the last %s days', coalesce(p_days::text, 'NULL')),
            HINT = 'Give a p_days between 1 and 3660.';
    END IF;
    PERFORM _connector_service.connector_service_lock(NULL::uuid);
    PERFORM _connector_service.connector_service_prune_sources(NULL::uuid[]);
    RETURN _connector_service.connector_service_check_missing(NULL::uuid[], p_days);
END
$$;
COMMENT ON FUNCTION @extschema@.check_missing_data(integer) IS 'Looks for days without data, as far back as p_days says (1 to 3660) of every tenant, metric type and source. Opens one alert for each, closes the alerts of days that are not missing any more, and returns the number of missing days. A source is missed from its first day on, not on days that quality_rules closes, and not while its connector is paused. The upkeep process does this every hour. Raises 22023 for another p_days.';

CREATE FUNCTION @extschema@.connector_service_check_quality(p_tenant_ids uuid[] DEFAULT NULL) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_hashjoin = on SET jit = off SET DateStyle = 'ISO'
AS $$
BEGIN
    IF p_tenant_ids IS NULL THEN
        PERFORM _connector_service.connector_service_lock(NULL::uuid);
        PERFORM _connector_service.connector_service_prune_sources(NULL::uuid[]);
    END IF;
    PERFORM _connector_service.connector_service_check_missing(p_tenant_ids, 30);

    WITH stale AS MATERIALIZED (
        SELECT c.*, since.at AS since, limits.longest
        FROM @extschema@.connectors c
            CROSS JOIN LATERAL _connector_service.connector_service_quality_rule(c.tenant_id, NULL) AS rule
            CROSS JOIN LATERAL (SELECT coalesce(c.last_sync_at, c.created_at)) AS since(at)
            CROSS JOIN LATERAL (SELECT coalesce(rule.freshness,
                CASE c.sync_frequency WHEN 'hourly' THEN interval '3 hours' WHEN 'daily' THEN interval '2 days' WHEN 'weekly' THEN interval '15 days' END)) AS limits(longest)
        WHERE c.status <> 'paused' AND since.at < now() - limits.longest AND (p_tenant_ids IS NULL OR c.tenant_id = ANY (p_tenant_ids))),
    alerted AS (
        INSERT INTO @extschema@.data_quality_alerts (tenant_id, connector_id, alert_type, severity, message, alert_key)
        SELECT s.tenant_id, s.connector_id, 'freshness', CASE s.status WHEN 'error' THEN 'critical' ELSE 'warning' END,
            format('connector "%s" has not been synced%s since %s, longer than %s%s', s.name, CASE WHEN part.is_read THEN ' completely' END, date_trunc('second', s.since), s.longest, coalesce(': ' || s.error_message, '')),
            format('freshness:%s', s.connector_id)
        FROM stale s
            -- Some streams may be fresh; the error message names those that are not.
            LEFT JOIN LATERAL (
                SELECT r.state = 'failed' AND r.streams @? '$.*.state ? (@ == "ok")' AS is_read FROM @extschema@.sync_runs r
                WHERE r.connector_id = s.connector_id AND r.kind = 'sync' AND r.finished_at IS NOT NULL ORDER BY r.requested_at DESC LIMIT 1) AS part ON true
        WHERE NOT EXISTS (
            SELECT FROM @extschema@.data_quality_alerts a
            WHERE a.tenant_id = s.tenant_id AND a.alert_type = 'freshness' AND a.alert_key = format('freshness:%s', s.connector_id)
                AND NOT a.resolved_by_data AND a.last_seen_at > now() - interval '12 hours')),
    over AS MATERIALIZED (
        SELECT a.tenant_id, a.alert_key FROM @extschema@.data_quality_alerts a
        WHERE a.alert_type = 'freshness' AND NOT a.resolved_by_data AND a.alert_key LIKE 'freshness:%'
            AND (p_tenant_ids IS NULL OR a.tenant_id = ANY (p_tenant_ids))
        EXCEPT SELECT s.tenant_id, format('freshness:%s', s.connector_id) FROM stale s)
    UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
    FROM over
    WHERE a.tenant_id = over.tenant_id AND a.alert_type = 'freshness' AND a.alert_key = over.alert_key;

    WITH tenant AS MATERIALIZED (
        SELECT t.tenant_id, (now() AT TIME ZONE t.timezone)::date AS today FROM @extschema@.tenants t
        WHERE p_tenant_ids IS NULL OR t.tenant_id = ANY (p_tenant_ids)),
    thin AS MATERIALIZED (
        SELECT s.tenant_id, s.metric_type, s.connector_id, c.name, m.metric_id, m.is_measure, m.metric_date, day.facts, usual.days, usual.median,
            format('completeness:%s:%s:%s', s.metric_type, m.metric_date, s.connector_id) AS alert_key
        FROM @extschema@.metric_sources s
            JOIN tenant ON tenant.tenant_id = s.tenant_id
            JOIN @extschema@.connectors c ON c.connector_id = s.connector_id
            CROSS JOIN LATERAL _connector_service.connector_service_quality_rule(s.tenant_id, s.metric_type) AS rule
            JOIN @extschema@.all_metrics m ON m.tenant_id = s.tenant_id AND m.metric_type = s.metric_type AND NOT m.by_hand
                AND m.metric_date BETWEEN tenant.today - 7 AND tenant.today - 1 AND m.data -> 'sources' ? s.connector_id::text
            CROSS JOIN LATERAL (SELECT (m.data #> ARRAY['sources', s.connector_id::text, 'facts'])::numeric) AS day(facts)
            CROSS JOIN LATERAL (
                SELECT count(*) AS days, percentile_cont(0.5) WITHIN GROUP (ORDER BY (h.data #> ARRAY['sources', s.connector_id::text, 'facts'])::float8) AS median
                FROM @extschema@.all_metrics h
                WHERE h.tenant_id = s.tenant_id AND h.metric_type = s.metric_type AND NOT h.by_hand AND h.data -> 'sources' ? s.connector_id::text
                    AND h.metric_date BETWEEN m.metric_date - 182 AND m.metric_date - 7 AND (m.metric_date - h.metric_date) % 7 = 0) AS usual
        WHERE usual.days >= rule.outlier_min_history AND day.facts < usual.median * rule.completeness_ratio::float8),
    alerted AS (
        INSERT INTO @extschema@.data_quality_alerts (tenant_id, metric_id, measure_value_id, connector_id, alert_type, severity, message, alert_key, metric_type, metric_date)
        SELECT t.tenant_id, CASE WHEN NOT t.is_measure THEN t.metric_id END, CASE WHEN t.is_measure THEN t.metric_id END, t.connector_id, 'completeness', 'warning',
            format('%s of %s: %s from "%s" (median of the last %s %ss with data: %s)', t.metric_type, t.metric_date,
                CASE t.facts WHEN 1 THEN '1 record' ELSE t.facts || ' records' END, t.name, t.days, to_char(t.metric_date, 'FMDay'), t.median),
            t.alert_key, t.metric_type, t.metric_date
        FROM thin t
        WHERE NOT EXISTS (
            SELECT FROM @extschema@.data_quality_alerts a
            WHERE a.tenant_id = t.tenant_id AND a.alert_type = 'completeness' AND a.alert_key = t.alert_key
                AND NOT a.resolved_by_data AND a.last_seen_at > now() - interval '12 hours')),
    over AS MATERIALIZED (
        SELECT a.tenant_id, a.alert_key
        FROM @extschema@.data_quality_alerts a JOIN tenant ON tenant.tenant_id = a.tenant_id
        WHERE a.alert_type = 'completeness' AND NOT a.resolved_by_data AND a.alert_key LIKE 'completeness:%' AND a.metric_date >= tenant.today - 7
        EXCEPT SELECT t.tenant_id, t.alert_key FROM thin t)
    UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
    FROM over
    WHERE a.tenant_id = over.tenant_id AND a.alert_type = 'completeness' AND a.alert_key = over.alert_key;
END
$$;
COMMENT ON FUNCTION @extschema@.connector_service_check_quality(uuid[]) IS 'Looks for missing days, connectors without a successful sync, and days with too few records, of tenants p_tenant_ids (NULL: all). Opens one alert for each problem, and closes the alerts of problems that are over. The upkeep process does this every hour.';

CREATE FUNCTION _connector_service.connector_service_note_count(p_connector_id uuid, p_stream text, p_problem text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_key text := format('count:%s:%s', p_connector_id, p_stream);
BEGIN
    IF p_problem IS NOT NULL THEN
        INSERT INTO @extschema@.data_quality_alerts (tenant_id, connector_id, alert_type, severity, message, alert_key)
        SELECT c.tenant_id, c.connector_id, 'completeness', 'critical', format('connector "%s", stream "%s": %s', c.name, p_stream, p_problem), v_key
        FROM @extschema@.connectors c WHERE c.connector_id = p_connector_id;
    ELSE
        UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
        WHERE a.tenant_id = (SELECT c.tenant_id FROM @extschema@.connectors c WHERE c.connector_id = p_connector_id)
            AND a.alert_type = 'completeness' AND a.alert_key = v_key AND NOT a.resolved_by_data;
    END IF;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_note_count(uuid, text, text) IS 'After a complete pass over a stream: opens an alert if records seem to be missing, and closes it if not.';

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
