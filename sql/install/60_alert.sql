-- alert: problems that a person should look at. Each problem is one row, however often it is found. It closes itself when
-- the data is right again, and stays closed once a person has closed it.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.data_quality_alerts (
    alert_id uuid CONSTRAINT data_quality_alerts_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    tenant_id uuid NOT NULL,
    metric_id uuid,
    connector_id uuid,
    alert_type text NOT NULL CONSTRAINT data_quality_alerts_type_is_known CHECK (alert_type IN ('outlier', 'missing', 'schema_error', 'freshness', 'completeness')),
    severity text NOT NULL DEFAULT 'warning' CONSTRAINT data_quality_alerts_severity_is_known CHECK (severity IN ('info', 'warning', 'critical')),
    message text,
    occurrences integer NOT NULL DEFAULT 1,
    last_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    resolved boolean NOT NULL DEFAULT false,
    resolved_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    metric_type text,
    metric_date date,
    alert_key text COLLATE "C" NOT NULL,
    resolved_by_data boolean NOT NULL DEFAULT false,
    -- The tenant is part of the key, so that no row can refer to a row of another tenant.
    CONSTRAINT data_quality_alerts_metric_fkey FOREIGN KEY (metric_id, tenant_id)
        REFERENCES @extschema@.metrics (metric_id, tenant_id) ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT data_quality_alerts_connector_fkey FOREIGN KEY (connector_id, tenant_id)
        REFERENCES @extschema@.connectors (connector_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT data_quality_alerts_once UNIQUE (tenant_id, alert_type, alert_key)
);
CREATE INDEX idx_dq_alerts ON @extschema@.data_quality_alerts (tenant_id, resolved, created_at);
CREATE INDEX data_quality_alerts_day ON @extschema@.data_quality_alerts (tenant_id, metric_date, metric_type) WHERE NOT resolved_by_data;
CREATE INDEX data_quality_alerts_metric ON @extschema@.data_quality_alerts (metric_id) WHERE metric_id IS NOT NULL;
CREATE INDEX data_quality_alerts_connector ON @extschema@.data_quality_alerts (connector_id) WHERE connector_id IS NOT NULL;
COMMENT ON TABLE @extschema@.data_quality_alerts IS 'What is wrong with the data, one row for each problem. UPDATE ... SET resolved = true closes an alert for good: while the problem goes on, it does not open again. A problem that was over and comes back opens its alert again.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.alert_id IS 'Id of the alert.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.tenant_id IS 'Tenant whose data it is.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.metric_id IS 'Metric that the alert is about. NULL: it is about no single metric.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.connector_id IS 'Connector that the alert is about. NULL: it is about no single connector.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.alert_type IS 'outlier: an unusual value. missing: a day without data. schema_error: records that a mapping cannot read. freshness: a connector without a successful sync. completeness: a day with too few records, an amount that could not be counted, or a stream of which the vendor has more records than came.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.severity IS 'info, warning or critical.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.message IS 'The problem in words, as it was last found.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.occurrences IS 'How often the problem was found; for schema_error, in how many records. Problems that only a check finds count at most twice a day.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.last_seen_at IS 'Time at which the problem was last found.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.resolved IS 'Whether the alert is closed.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.resolved_at IS 'Time at which the alert was closed. NULL: it is open.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.created_at IS 'Time at which the problem was first found.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.metric_type IS 'Metric type that the alert is about. NULL: it is about no single metric type.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.metric_date IS 'Day that the alert is about. NULL: it is about no single day.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.alert_key IS 'Key that tells whether a problem is the same as before. For an alert that was inserted by hand, a hash of its message.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.resolved_by_data IS 'Whether the alert closed by itself, because the data is right again.';

CREATE FUNCTION _connector_service.connector_service_alert_before() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.resolved AND NOT OLD.resolved THEN
            NEW.resolved_at := coalesce(NEW.resolved_at, now());
        ELSIF OLD.resolved AND NOT NEW.resolved THEN
            NEW.resolved_at := NULL;
            NEW.resolved_by_data := false;
        END IF;
        RETURN NEW;
    END IF;
    UPDATE @extschema@.data_quality_alerts a
    -- The count stops at the largest integer: an overflow would fail the statement for all tenants.
    SET occurrences = least(a.occurrences::bigint + NEW.occurrences, 2147483647)::integer, last_seen_at = now(), message = NEW.message, severity = NEW.severity,
        metric_id = coalesce(NEW.metric_id, a.metric_id), resolved = a.resolved AND NOT a.resolved_by_data
    WHERE a.tenant_id = NEW.tenant_id AND a.alert_type = NEW.alert_type AND a.alert_key = NEW.alert_key;
    RETURN CASE WHEN FOUND THEN NULL ELSE NEW END;
END
$$;
CREATE FUNCTION _connector_service.connector_service_alert_alone() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- One lock for each tenant, and not one for each alert: a nightly statement inserts thousands.
    PERFORM _connector_service.connector_service_lock_alerts(NEW.tenant_id);
    IF NEW.alert_key IS NULL THEN
        NEW.alert_key := 'message:' || md5(concat_ws('|', NEW.connector_id, NEW.metric_id, NEW.message));
        -- A missing day that a person's statement reports closes itself like any other, if its message says which it is.
        IF NEW.alert_type = 'missing' THEN
            NEW.metric_date := coalesce(NEW.metric_date, _connector_service.connector_service_day(substring(NEW.message FROM '[0-9]{4}-[0-9]{2}-[0-9]{2}'), 'UTC'));
            NEW.metric_type := coalesce(NEW.metric_type, lower(substring(NEW.message FROM '(?i)(revenue|inventory|staffing|costs)')));
        END IF;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_alert_alone() IS 'Trigger of data_quality_alerts: lets one session at a time insert alerts of a tenant, and fills in the key that tells whether an alert is the same as before.';
COMMENT ON FUNCTION _connector_service.connector_service_lock_alerts(uuid) IS 'Waits for the lock of a tenant''s alerts, and holds it until the end of the transaction.';
-- Before the next one: triggers fire in the order of their names.
CREATE TRIGGER data_quality_alerts_alone BEFORE INSERT ON @extschema@.data_quality_alerts
    FOR EACH ROW EXECUTE FUNCTION _connector_service.connector_service_alert_alone();
COMMENT ON FUNCTION _connector_service.connector_service_alert_before() IS 'Trigger of data_quality_alerts: an alert that exists already is counted, and not inserted again; it opens again if it had closed by itself.';
CREATE TRIGGER data_quality_alerts_before BEFORE INSERT OR UPDATE ON @extschema@.data_quality_alerts
    FOR EACH ROW EXECUTE FUNCTION _connector_service.connector_service_alert_before();

-- Rules.

CREATE TABLE @extschema@.quality_rules (
    rule_id integer CONSTRAINT quality_rules_pkey PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tenant_id uuid CONSTRAINT quality_rules_tenant_fkey REFERENCES @extschema@.tenants ON DELETE CASCADE,
    metric_type text CONSTRAINT quality_rules_metric_type_is_known CHECK (metric_type IN ('revenue', 'inventory', 'staffing', 'costs')),
    min_value numeric,
    max_value numeric,
    outlier_factor numeric CONSTRAINT quality_rules_outlier_factor_is_in_range CHECK (outlier_factor > 0 AND (outlier_factor <= 1e6 OR outlier_factor = 'Infinity')),
    outlier_min_history integer CONSTRAINT quality_rules_outlier_min_history_is_enough CHECK (outlier_min_history >= 3),
    completeness_ratio numeric CONSTRAINT quality_rules_completeness_ratio_is_a_share CHECK (completeness_ratio BETWEEN 0 AND 1),
    freshness interval CONSTRAINT quality_rules_freshness_is_in_range CHECK (freshness > '0' AND freshness <= '100 years'),
    closed_weekdays integer[] CONSTRAINT quality_rules_closed_weekdays_are_iso CHECK (closed_weekdays <@ '{1,2,3,4,5,6,7}' AND pg_catalog.cardinality(closed_weekdays) <= 7),
    closed_days date[] CONSTRAINT quality_rules_closed_days_are_bounded CHECK (pg_catalog.cardinality(closed_days) <= 10000)
);
CREATE UNIQUE INDEX quality_rules_once ON @extschema@.quality_rules
    ((coalesce(tenant_id, '00000000-0000-0000-0000-000000000000')), (coalesce(metric_type, '')));
COMMENT ON TABLE @extschema@.quality_rules IS 'What is normal for a tenant and metric type. Each setting is taken from the most specific row that has it: tenant and metric type, tenant, metric type, the row without both. Where no row has it, its default counts.';
COMMENT ON COLUMN @extschema@.quality_rules.rule_id IS 'Id of the rule.';
COMMENT ON COLUMN @extschema@.quality_rules.tenant_id IS 'Tenant that the rule is for. NULL: all tenants.';
COMMENT ON COLUMN @extschema@.quality_rules.metric_type IS 'Metric type that the rule is for. NULL: all metric types. The setting freshness counts only in a row without metric type.';
COMMENT ON COLUMN @extschema@.quality_rules.min_value IS 'A metric below this value is an outlier. Default: no bound.';
COMMENT ON COLUMN @extschema@.quality_rules.max_value IS 'A metric above this value is an outlier. Default: 1,000,000 for revenue, no bound for the others. Infinity: no bound.';
COMMENT ON COLUMN @extschema@.quality_rules.outlier_factor IS 'A metric is an outlier when it differs from the median of the same weekday by more than this number of robust standard deviations (1.4826 times the median absolute deviation, at least 5 % of the median). Default: 5. Infinity switches the check off.';
COMMENT ON COLUMN @extschema@.quality_rules.outlier_min_history IS 'Number of metrics that the last 26 same weekdays must have before the check begins. Default: 8.';
COMMENT ON COLUMN @extschema@.quality_rules.completeness_ratio IS 'A past day is incomplete when a source has less than this share of the records that the same weekday has in the median, between 0 and 1. Default: 0.5. 0 switches the check off.';
COMMENT ON COLUMN @extschema@.quality_rules.freshness IS 'How long a connector may be without a successful sync. Default: 3 hours, 2 days or 15 days for hourly, daily or weekly connectors.';
COMMENT ON COLUMN @extschema@.quality_rules.closed_weekdays IS 'Weekdays without business, from 1 (Monday) to 7. They are never missing. Default: none.';
COMMENT ON COLUMN @extschema@.quality_rules.closed_days IS 'Days without business, such as holidays. They are never missing. Default: none.';

CREATE FUNCTION _connector_service.connector_service_quality_rule(p_tenant_id uuid, p_metric_type text)
RETURNS TABLE (min_value numeric, max_value numeric, outlier_factor numeric, outlier_min_history integer, completeness_ratio numeric,
    freshness interval, closed_weekdays integer[], closed_days date[]) LANGUAGE sql STABLE
BEGIN ATOMIC
    -- array_agg keeps the order of specificity; the first that is set counts.
    SELECT (pg_catalog.array_agg(r.min_value ORDER BY r.tenant_id, r.metric_type) FILTER (WHERE r.min_value IS NOT NULL))[1],
        coalesce((pg_catalog.array_agg(r.max_value ORDER BY r.tenant_id, r.metric_type) FILTER (WHERE r.max_value IS NOT NULL))[1],
            CASE p_metric_type WHEN 'revenue' THEN 1000000 END),
        coalesce((pg_catalog.array_agg(r.outlier_factor ORDER BY r.tenant_id, r.metric_type) FILTER (WHERE r.outlier_factor IS NOT NULL))[1], 5),
        coalesce((pg_catalog.array_agg(r.outlier_min_history ORDER BY r.tenant_id, r.metric_type) FILTER (WHERE r.outlier_min_history IS NOT NULL))[1], 8),
        coalesce((pg_catalog.array_agg(r.completeness_ratio ORDER BY r.tenant_id, r.metric_type) FILTER (WHERE r.completeness_ratio IS NOT NULL))[1], 0.5),
        (pg_catalog.array_agg(r.freshness ORDER BY r.tenant_id, r.metric_type) FILTER (WHERE r.freshness IS NOT NULL))[1],
        coalesce((SELECT w.closed_weekdays FROM @extschema@.quality_rules w
            WHERE w.closed_weekdays IS NOT NULL AND (w.tenant_id IS NULL OR w.tenant_id = p_tenant_id) AND (w.metric_type IS NULL OR w.metric_type = p_metric_type)
            ORDER BY w.tenant_id, w.metric_type LIMIT 1), '{}'),
        coalesce((SELECT d.closed_days FROM @extschema@.quality_rules d
            WHERE d.closed_days IS NOT NULL AND (d.tenant_id IS NULL OR d.tenant_id = p_tenant_id) AND (d.metric_type IS NULL OR d.metric_type = p_metric_type)
            ORDER BY d.tenant_id, d.metric_type LIMIT 1), '{}')
    FROM @extschema@.quality_rules r
    WHERE (r.tenant_id IS NULL OR r.tenant_id = p_tenant_id) AND (r.metric_type IS NULL OR r.metric_type = p_metric_type);
END;
COMMENT ON FUNCTION _connector_service.connector_service_quality_rule(uuid, text) IS 'The settings that count for a tenant and metric type, with defaults; one row. p_metric_type NULL: the settings for connectors.';

-- Validation of every metric that is written.

CREATE FUNCTION @extschema@.validate_metric() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 0 SET DateStyle = 'ISO' SET jit = off
AS $$
DECLARE
    v_bad record;
    v_outliers uuid[];
BEGIN
    SELECT c.*, (now() AT TIME ZONE zone.name)::date AS today, zone.name AS timezone INTO v_bad
    FROM changed c LEFT JOIN @extschema@.tenants t ON t.tenant_id = c.tenant_id,
        -- A row older than its transaction comes from a dump, perhaps before its tenant: the zone that is furthest ahead.
        LATERAL (SELECT coalesce(t.timezone, CASE WHEN c.created_at < now() - interval '1 minute' THEN 'Pacific/Kiritimati' ELSE 'UTC' END)) AS zone(name)
    WHERE c.metric_value IN ('NaN', 'Infinity') OR c.metric_date > (now() AT TIME ZONE zone.name)::date
    LIMIT 1;
    IF FOUND AND v_bad.metric_value IN ('NaN', 'Infinity') THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, CONSTRAINT = TG_NAME,
            MESSAGE = format('metric value %s is not an amount', v_bad.metric_value),
            DETAIL = format('The metric is %s of %s, tenant %s.', v_bad.metric_type, v_bad.metric_date, v_bad.tenant_id),
            HINT = 'Insert no row for this day. A day without a metric is reported as missing.';
    ELSIF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, CONSTRAINT = TG_NAME,
            MESSAGE = format('metric date %s is in the future', v_bad.metric_date),
            DETAIL = format('Today is %s in %s, the time zone of tenant %s.', v_bad.today, v_bad.timezone, v_bad.tenant_id),
            HINT = 'Correct metric_date, or the tenant''s timezone.';
    END IF;

    INSERT INTO @extschema@.tenants (tenant_id)
    SELECT DISTINCT c.tenant_id FROM changed c
    WHERE c.created_at >= now() - interval '1 minute' AND NOT EXISTS (SELECT FROM @extschema@.tenants t WHERE t.tenant_id = c.tenant_id)
    ON CONFLICT DO NOTHING;

    WITH judged AS (
        SELECT c.metric_id, c.tenant_id, c.metric_type, c.metric_date, c.metric_value, rule.min_value, rule.max_value,
            history.days, history.median, spread.low, spread.high,
            -- Until the day is over, its value can only be too high.
            c.metric_date < (now() AT TIME ZONE t.timezone)::date AS is_over
        FROM changed c JOIN @extschema@.tenants t ON t.tenant_id = c.tenant_id
            CROSS JOIN LATERAL _connector_service.connector_service_quality_rule(c.tenant_id, c.metric_type) AS rule
            CROSS JOIN LATERAL (
                SELECT array_agg(h.metric_value::float8) AS values, count(*) AS days,
                    percentile_cont(0.5) WITHIN GROUP (ORDER BY h.metric_value::float8) AS median
                FROM @extschema@.metrics h
                WHERE h.tenant_id = c.tenant_id AND h.metric_type = c.metric_type
                    AND h.metric_date BETWEEN c.metric_date - 182 AND c.metric_date - 7 AND (c.metric_date - h.metric_date) % 7 = 0) AS history
            LEFT JOIN LATERAL (
                SELECT history.median - margin.width AS low, history.median + margin.width AS high
                FROM (SELECT rule.outlier_factor::float8 * greatest(
                        1.4826 * (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY abs(v - history.median)) FROM unnest(history.values) AS v),
                        0.05 * history.median) AS width) AS margin
            ) AS spread ON history.days >= rule.outlier_min_history AND history.median > 0 AND rule.outlier_factor < 'Infinity'
        -- A row from a dump was checked when it was made.
        WHERE TG_OP = 'UPDATE' OR c.created_at >= now() - interval '1 minute'),
    found AS MATERIALIZED (
        SELECT j.*, CASE
                WHEN j.metric_value > j.max_value THEN format('above the limit of %s', j.max_value)
                WHEN j.metric_value < j.min_value THEN format('below the limit of %s', j.min_value)
                WHEN j.metric_value > j.high OR j.metric_value < j.low AND j.is_over
                    THEN format('expected between %s and %s (median of the last %s %ss with data: %s)',
                        greatest(round(j.low::numeric, 2), 0), round(j.high::numeric, 2), j.days, to_char(j.metric_date, 'FMDay'), round(j.median::numeric, 2))
            END AS problem
        FROM judged j),
    alerted AS (
        INSERT INTO @extschema@.data_quality_alerts (tenant_id, metric_id, alert_type, severity, message, alert_key, metric_type, metric_date)
        SELECT f.tenant_id, f.metric_id, 'outlier', 'warning', format('%s of %s is %s, %s', f.metric_type, f.metric_date, f.metric_value, f.problem),
            format('outlier:%s:%s', f.metric_type, f.metric_date), f.metric_type, f.metric_date
        FROM found f WHERE f.problem IS NOT NULL)
    SELECT coalesce(array_agg(f.metric_id), '{}') INTO v_outliers FROM found f WHERE f.problem IS NOT NULL;

    UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
    FROM changed c
    WHERE a.metric_id = c.metric_id AND NOT a.resolved_by_data AND a.alert_key LIKE 'outlier:%'
        AND (c.metric_id <> ALL (v_outliers) OR a.alert_key <> format('outlier:%s:%s', c.metric_type, c.metric_date));
    UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
    FROM changed c
    WHERE a.tenant_id = c.tenant_id AND a.metric_date = c.metric_date AND coalesce(a.metric_type, c.metric_type) = c.metric_type
        AND a.alert_type = 'missing' AND NOT a.resolved_by_data AND (c.by_hand OR a.connector_id IS NULL);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION @extschema@.validate_metric() IS 'Trigger of metrics. Refuses NaN, Infinity and days in the future of the tenant''s time zone with 23514. Opens an alert for an outlier, and closes it when the value is normal again. Closes the alert of a missing day.';
CREATE TRIGGER validate_metric_trigger AFTER INSERT ON @extschema@.metrics
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.validate_metric();
CREATE TRIGGER validate_metric_update_trigger AFTER UPDATE ON @extschema@.metrics
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.validate_metric();

-- Alerts that follow from summing a day.

CREATE FUNCTION _connector_service.connector_service_alert_days(p_tenant_ids uuid[], p_metric_types text[], p_metric_dates date[], p_trouble jsonb) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET DateStyle = 'ISO' SET jit = off
AS $$
BEGIN
    WITH day AS MATERIALIZED (
        SELECT d.* FROM ROWS FROM (unnest(p_tenant_ids), unnest(p_metric_types), unnest(p_metric_dates)) AS d(tenant_id, metric_type, metric_date)),
    trouble AS (
        SELECT d.*, m.metric_id, m.metric_value, m.derived_value, m.by_hand, t.currency
        FROM jsonb_to_recordset(p_trouble) AS d(tenant_id uuid, metric_type text, metric_date date, total numeric, unconverted jsonb)
            JOIN @extschema@.tenants t ON t.tenant_id = d.tenant_id
            LEFT JOIN @extschema@.metrics m ON m.tenant_id = d.tenant_id AND m.metric_type = d.metric_type AND m.metric_date = d.metric_date),
    found AS MATERIALIZED (
        SELECT t.tenant_id, t.metric_id, t.metric_type, t.metric_date, 'net' AS kind, 'outlier' AS alert_type, 'critical' AS severity,
            format('%s of %s adds up to %s; a metric is never negative, so this day has none', t.metric_type, t.metric_date, t.total) AS message
        FROM trouble t WHERE t.total < 0
        UNION ALL
        SELECT t.tenant_id, t.metric_id, t.metric_type, t.metric_date, 'fx', 'completeness', 'warning',
            format('%s of %s leaves out %s: fx_rates has no rate to %s for that day', t.metric_type, t.metric_date,
                (SELECT string_agg(format('%s %s', u.value, u.key), ', ' ORDER BY u.key) FROM jsonb_each_text(t.unconverted) AS u), t.currency)
        FROM trouble t WHERE t.unconverted <> '{}'
        UNION ALL
        SELECT m.tenant_id, m.metric_id, m.metric_type, m.metric_date, 'hand', 'completeness', 'info',
            format('%s of %s stays %s, as entered by hand; the records add up to %s', m.metric_type, m.metric_date, m.metric_value, m.derived_value)
        FROM day JOIN @extschema@.metrics m ON m.tenant_id = day.tenant_id AND m.metric_type = day.metric_type AND m.metric_date = day.metric_date
        WHERE m.by_hand AND m.derived_value <> m.metric_value),
    alerted AS (
        INSERT INTO @extschema@.data_quality_alerts (tenant_id, metric_id, alert_type, severity, message, alert_key, metric_type, metric_date)
        SELECT f.tenant_id, f.metric_id, f.alert_type, f.severity, f.message, format('%s:%s:%s', f.kind, f.metric_type, f.metric_date), f.metric_type, f.metric_date
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
        FROM tenant CROSS JOIN unnest('{revenue,inventory,staffing,costs}'::text[]) AS type(name)
            CROSS JOIN LATERAL (
                SELECT min(m.metric_date) AS metric_date FROM @extschema@.metrics m
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
                SELECT FROM @extschema@.metrics m
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
COMMENT ON FUNCTION @extschema@.check_missing_data(integer) IS 'Looks for days without data in the last p_days days (1 to 3660) of every tenant, metric type and source. Opens one alert for each, closes the alerts of days that are not missing any more, and returns the number of missing days. A source is missed from its first day on, not on days that quality_rules closes, and not while its connector is paused. The upkeep process does this every hour. Raises 22023 for another p_days.';

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
            format('connector "%s" has not been synced since %s, longer than %s%s', s.name, date_trunc('second', s.since), s.longest, coalesce(': ' || s.error_message, '')),
            format('freshness:%s', s.connector_id)
        FROM stale s
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
        SELECT s.tenant_id, s.metric_type, s.connector_id, c.name, m.metric_id, m.metric_date, day.facts, usual.days, usual.median,
            format('completeness:%s:%s:%s', s.metric_type, m.metric_date, s.connector_id) AS alert_key
        FROM @extschema@.metric_sources s
            JOIN tenant ON tenant.tenant_id = s.tenant_id
            JOIN @extschema@.connectors c ON c.connector_id = s.connector_id
            CROSS JOIN LATERAL _connector_service.connector_service_quality_rule(s.tenant_id, s.metric_type) AS rule
            JOIN @extschema@.metrics m ON m.tenant_id = s.tenant_id AND m.metric_type = s.metric_type AND NOT m.by_hand
                AND m.metric_date BETWEEN tenant.today - 7 AND tenant.today - 1 AND m.data -> 'sources' ? s.connector_id::text
            CROSS JOIN LATERAL (SELECT (m.data #> ARRAY['sources', s.connector_id::text, 'facts'])::numeric) AS day(facts)
            CROSS JOIN LATERAL (
                SELECT count(*) AS days, percentile_cont(0.5) WITHIN GROUP (ORDER BY (h.data #> ARRAY['sources', s.connector_id::text, 'facts'])::float8) AS median
                FROM @extschema@.metrics h
                WHERE h.tenant_id = s.tenant_id AND h.metric_type = s.metric_type AND NOT h.by_hand AND h.data -> 'sources' ? s.connector_id::text
                    AND h.metric_date BETWEEN m.metric_date - 182 AND m.metric_date - 7 AND (m.metric_date - h.metric_date) % 7 = 0) AS usual
        WHERE usual.days >= rule.outlier_min_history AND day.facts < usual.median * rule.completeness_ratio::float8),
    alerted AS (
        INSERT INTO @extschema@.data_quality_alerts (tenant_id, metric_id, connector_id, alert_type, severity, message, alert_key, metric_type, metric_date)
        SELECT t.tenant_id, t.metric_id, t.connector_id, 'completeness', 'warning',
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

SELECT pg_catalog.pg_extension_config_dump('@extschema@.data_quality_alerts', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.quality_rules', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('@extschema@.quality_rules', 'rule_id')::pg_catalog.regclass, '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
