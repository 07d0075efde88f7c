-- rule: what is usual for a metric, and the validation of every metric that is written.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.quality_rules (
    rule_id integer CONSTRAINT quality_rules_pkey PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tenant_id uuid DEFAULT _connector_service.connector_service_own_tenant() CONSTRAINT quality_rules_tenant_fkey REFERENCES @extschema@.tenants ON DELETE CASCADE,
    metric_type text,
    min_value numeric,
    max_value numeric,
    outlier_factor numeric CONSTRAINT quality_rules_outlier_factor_is_in_range CHECK (outlier_factor > 0 AND (outlier_factor <= 1e6 OR outlier_factor = 'Infinity')),
    outlier_min_history integer CONSTRAINT quality_rules_outlier_min_history_is_enough CHECK (outlier_min_history >= 3),
    completeness_ratio numeric CONSTRAINT quality_rules_completeness_ratio_is_a_share CHECK (completeness_ratio BETWEEN 0 AND 1),
    freshness interval CONSTRAINT quality_rules_freshness_is_in_range CHECK (freshness > '0' AND freshness <= '100 years'),
    closed_weekdays integer[] CONSTRAINT quality_rules_closed_weekdays_are_iso CHECK (closed_weekdays <@ '{1,2,3,4,5,6,7}' AND pg_catalog.cardinality(closed_weekdays) <= 7),
    closed_days date[] CONSTRAINT quality_rules_closed_days_are_bounded CHECK (pg_catalog.cardinality(closed_days) <= 10000),
    currency text CONSTRAINT quality_rules_currency_is_iso_code CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE UNIQUE INDEX quality_rules_once ON @extschema@.quality_rules
    ((coalesce(tenant_id, '00000000-0000-0000-0000-000000000000')), (coalesce(metric_type, '')), (coalesce(currency, '')));
COMMENT ON TABLE @extschema@.quality_rules IS 'What is normal for a tenant and metric type. Each setting is taken from the most specific row that has it: tenant and metric type, tenant, metric type, the row without both. Where no row has it, its default counts.';
COMMENT ON COLUMN @extschema@.quality_rules.rule_id IS 'Id of the rule.';
COMMENT ON COLUMN @extschema@.quality_rules.tenant_id IS 'Tenant that the rule is for. NULL: all tenants. Default: the tenant of a role that has one, else NULL.';
COMMENT ON COLUMN @extschema@.quality_rules.metric_type IS 'Metric type that the rule is for; a rule of a tenant may name its measures (22023 for another text). NULL: all metric types. The setting freshness counts only in a row without metric type.';
COMMENT ON COLUMN @extschema@.quality_rules.min_value IS 'A metric below this value is an outlier. Default: no bound.';
COMMENT ON COLUMN @extschema@.quality_rules.max_value IS 'A metric above this value is an outlier. Default for revenue: 1,000,000, and for currencies of small units 10 to 100,000 times as much, such as 100,000,000 yen; no bound for the others. Infinity: no bound.';
COMMENT ON COLUMN @extschema@.quality_rules.currency IS 'Currency that min_value and max_value are in, where the metric is money: they count only while the tenant reports in it. A tenant can have a row for each currency. Default: the tenant''s currency when the row is inserted. NULL: the row has no bounds, or is for all tenants, whatever their currency.';
COMMENT ON COLUMN @extschema@.quality_rules.outlier_factor IS 'A metric is an outlier when it differs from the median of the same weekday by more than this number of robust standard deviations (1.4826 times the median absolute deviation, at least 5 % of the median). Default: 5. Infinity switches the check off.';
COMMENT ON COLUMN @extschema@.quality_rules.outlier_min_history IS 'Number of metrics that the last 26 same weekdays must have before the check begins. Default: 8.';
COMMENT ON COLUMN @extschema@.quality_rules.completeness_ratio IS 'A past day is incomplete when a source has less than this share of the records that the same weekday has in the median, between 0 and 1. Default: 0.5. 0 switches the check off.';
COMMENT ON COLUMN @extschema@.quality_rules.freshness IS 'How long a connector may be without a successful sync. Default: 3 hours, 2 days or 15 days for hourly, daily or weekly connectors.';
COMMENT ON COLUMN @extschema@.quality_rules.closed_weekdays IS 'Weekdays without business, from 1 (Monday) to 7. They are never missing. Default: none.';
COMMENT ON COLUMN @extschema@.quality_rules.closed_days IS 'Days without business, such as holidays. They are never missing. Default: none.';

CREATE FUNCTION _connector_service.connector_service_is_money(p_tenant_id uuid, p_metric_type text) RETURNS boolean LANGUAGE sql STABLE
RETURN p_metric_type IN ('revenue', 'costs') OR EXISTS (
    SELECT FROM @extschema@.measures own WHERE own.tenant_id = p_tenant_id AND own.name = p_metric_type AND own.unit = 'money');
COMMENT ON FUNCTION _connector_service.connector_service_is_money(uuid, text) IS 'Whether a metric type of a tenant is an amount of its currency.';

CREATE FUNCTION _connector_service.connector_service_usual_bound(p_currency text) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN p_currency IN ('CNY', 'DKK', 'HKD', 'MXN', 'MYR', 'NOK', 'SEK', 'ZAR') THEN 1e7
    WHEN p_currency IN ('AFN', 'BDT', 'CZK', 'DZD', 'EGP', 'ETB', 'GMD', 'INR', 'ISK', 'JMD', 'JPY', 'KES', 'LKR', 'MKD', 'MUR', 'NPR', 'PHP', 'PKR', 'RSD', 'RUB', 'THB', 'TRY', 'TWD', 'UAH', 'UYU') THEN 1e8
    WHEN p_currency IN ('AMD', 'AOA', 'ARS', 'CLP', 'CRC', 'HUF', 'IQD', 'KRW', 'KZT', 'MNT', 'NGN', 'RWF', 'XAF', 'XOF', 'XPF') THEN 1e9
    WHEN p_currency IN ('BIF', 'COP', 'GNF', 'KHR', 'MGA', 'MMK', 'PYG', 'TZS', 'UGX', 'UZS') THEN 1e10
    WHEN p_currency IN ('IDR', 'IRR', 'LAK', 'LBP', 'VND') THEN 1e11
    ELSE 1e6
END;
COMMENT ON FUNCTION _connector_service.connector_service_usual_bound(text) IS 'The revenue of a day above which a tenant without a rule is alerted: about a million dollars, as a power of ten.';

CREATE FUNCTION _connector_service.connector_service_rule_before() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_home text := (SELECT t.currency FROM @extschema@.tenants t WHERE t.tenant_id = NEW.tenant_id);
    v_has_bounds boolean := NEW.min_value IS NOT NULL OR NEW.max_value < 'Infinity';
BEGIN
    NEW.metric_type := lower(btrim(NEW.metric_type) COLLATE "C");
    NEW.currency := upper(btrim(NEW.currency));
    IF NEW.currency IS NULL AND v_has_bounds AND (NEW.metric_type IS NULL OR _connector_service.connector_service_is_money(NEW.tenant_id, NEW.metric_type)) THEN
        NEW.currency := v_home;
    ELSIF TG_OP = 'UPDATE' AND NEW.currency <> v_home AND NEW.currency = OLD.currency
        AND (NEW.min_value, NEW.max_value) IS DISTINCT FROM (OLD.min_value, OLD.max_value) THEN
        RAISE NOTICE USING
            MESSAGE = format('the bounds of rule %s are in %s, and the tenant reports in %s, so they do not count', NEW.rule_id, NEW.currency, v_home),
            HINT = format('If they are in %s: UPDATE %I.quality_rules SET currency = %L WHERE rule_id = %s;', v_home, TG_TABLE_SCHEMA, v_home, NEW.rule_id);
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_rule_before() IS 'Trigger of quality_rules: notes which currency bounds are in.';
CREATE TRIGGER quality_rules_before BEFORE INSERT OR UPDATE ON @extschema@.quality_rules
    FOR EACH ROW EXECUTE FUNCTION _connector_service.connector_service_rule_before();

CREATE FUNCTION _connector_service.connector_service_rule_after() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- By now row security has judged the row: the error tells which measures the tenant has.
    PERFORM _connector_service.connector_service_check_metric_type(NEW.tenant_id, NEW.metric_type);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_rule_after() IS 'Trigger of quality_rules: raises 22023 for a metric type that is not known.';
CREATE TRIGGER quality_rules_after AFTER INSERT OR UPDATE ON @extschema@.quality_rules
    FOR EACH ROW WHEN (NEW.metric_type IS NOT NULL) EXECUTE FUNCTION _connector_service.connector_service_rule_after();

CREATE FUNCTION _connector_service.connector_service_quality_rule(p_tenant_id uuid, p_metric_type text)
RETURNS TABLE (min_value numeric, max_value numeric, outlier_factor numeric, outlier_min_history integer, completeness_ratio numeric,
    freshness interval, closed_weekdays integer[], closed_days date[]) LANGUAGE sql STABLE
BEGIN ATOMIC
    -- array_agg keeps the order of specificity; the first that is set counts.
    SELECT (pg_catalog.array_agg(r.min_value ORDER BY r.tenant_id, r.metric_type, r.currency) FILTER (WHERE r.min_value IS NOT NULL AND r.bounds_count))[1],
        coalesce((pg_catalog.array_agg(r.max_value ORDER BY r.tenant_id, r.metric_type, r.currency) FILTER (WHERE r.max_value IS NOT NULL AND r.bounds_count))[1],
            CASE p_metric_type WHEN 'revenue' THEN _connector_service.connector_service_usual_bound(
                (SELECT t.currency FROM @extschema@.tenants t WHERE t.tenant_id = p_tenant_id)) END),
        coalesce((pg_catalog.array_agg(r.outlier_factor ORDER BY r.tenant_id, r.metric_type, r.currency) FILTER (WHERE r.outlier_factor IS NOT NULL))[1], 5),
        coalesce((pg_catalog.array_agg(r.outlier_min_history ORDER BY r.tenant_id, r.metric_type, r.currency) FILTER (WHERE r.outlier_min_history IS NOT NULL))[1], 8),
        coalesce((pg_catalog.array_agg(r.completeness_ratio ORDER BY r.tenant_id, r.metric_type, r.currency) FILTER (WHERE r.completeness_ratio IS NOT NULL))[1], 0.5),
        (pg_catalog.array_agg(r.freshness ORDER BY r.tenant_id, r.metric_type, r.currency) FILTER (WHERE r.freshness IS NOT NULL))[1],
        coalesce((SELECT w.closed_weekdays FROM @extschema@.quality_rules w
            WHERE w.closed_weekdays IS NOT NULL AND (w.tenant_id IS NULL OR w.tenant_id = p_tenant_id) AND (w.metric_type IS NULL OR w.metric_type = p_metric_type)
            ORDER BY w.tenant_id, w.metric_type, w.currency LIMIT 1), '{}'),
        coalesce((SELECT d.closed_days FROM @extschema@.quality_rules d
            WHERE d.closed_days IS NOT NULL AND (d.tenant_id IS NULL OR d.tenant_id = p_tenant_id) AND (d.metric_type IS NULL OR d.metric_type = p_metric_type)
            ORDER BY d.tenant_id, d.metric_type, d.currency LIMIT 1), '{}')
    FROM (
        SELECT q.*, q.currency IS NULL OR q.currency = (SELECT t.currency FROM @extschema@.tenants t WHERE t.tenant_id = p_tenant_id)
            OR NOT _connector_service.connector_service_is_money(p_tenant_id, p_metric_type) AS bounds_count
        FROM @extschema@.quality_rules q
        WHERE (q.tenant_id IS NULL OR q.tenant_id = p_tenant_id) AND (q.metric_type IS NULL OR q.metric_type = p_metric_type)) AS r;
END;
COMMENT ON FUNCTION _connector_service.connector_service_quality_rule(uuid, text) IS 'The settings that count for a tenant and metric type, with defaults; one row. p_metric_type NULL: the settings for connectors.';

-- Validation of every metric that is written.

CREATE FUNCTION @extschema@.validate_metric() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 0 SET DateStyle = 'ISO' SET jit = off
AS $$
DECLARE
    v_bad record;
    v_outliers uuid[];
    v_is_measure boolean := TG_TABLE_NAME = 'measure_values';
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT c.*, (now() AT TIME ZONE zone.name)::date AS today, zone.name AS timezone INTO v_bad
        FROM changed c LEFT JOIN @extschema@.tenants t ON t.tenant_id = c.tenant_id,
            -- A row older than its transaction comes from a dump: the zone that is furthest ahead. Its tenant may still be to come,
            -- or have changed its zone since.
            LATERAL (SELECT CASE WHEN c.created_at < now() - interval '1 minute' THEN 'Pacific/Kiritimati' ELSE coalesce(t.timezone, 'UTC') END) AS zone(name)
        WHERE c.metric_value IN ('NaN', 'Infinity', '-Infinity') OR c.by_hand AND c.metric_date > (now() AT TIME ZONE zone.name)::date
        LIMIT 1;
    ELSE
        SELECT c.*, (now() AT TIME ZONE zone.name)::date AS today, zone.name AS timezone INTO v_bad
        FROM changed c LEFT JOIN @extschema@.tenants t ON t.tenant_id = c.tenant_id,
            LATERAL (SELECT coalesce(t.timezone, 'UTC')) AS zone(name)
        WHERE c.metric_value IN ('NaN', 'Infinity', '-Infinity') OR c.by_hand AND c.metric_date > (now() AT TIME ZONE zone.name)::date
            -- A day that was there already came into the future when its tenant moved to another time zone.
            AND NOT EXISTS (SELECT FROM before b WHERE b.metric_id = c.metric_id AND b.tenant_id = c.tenant_id AND b.metric_date = c.metric_date)
        LIMIT 1;
    END IF;
    IF v_bad.metric_value IN ('NaN', 'Infinity', '-Infinity') THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, CONSTRAINT = TG_NAME,
            MESSAGE = format('metric value %s is not an amount', v_bad.metric_value),
            DETAIL = format('The metric is %s of %s, tenant %s.', v_bad.metric_type, v_bad.metric_date, v_bad.tenant_id),
            HINT = 'Insert no row for this day. A day without a metric is reported as missing.';
    ELSIF v_bad.metric_date IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, CONSTRAINT = TG_NAME,
            MESSAGE = format('metric date %s is in the future', v_bad.metric_date),
            DETAIL = format('Today is %s in %s, the time zone of tenant %s.', v_bad.today, v_bad.timezone, v_bad.tenant_id),
            HINT = 'Correct metric_date, or the tenant''s timezone.';
    END IF;
    IF v_is_measure THEN
        SELECT c.*, own.name AS measure INTO v_bad
        FROM changed c LEFT JOIN @extschema@.measures own ON own.tenant_id = c.tenant_id AND own.name = c.metric_type
        WHERE (TG_OP = 'UPDATE' OR c.created_at >= now() - interval '1 minute')
            AND (own.name IS NULL OR c.by_hand AND c.metric_value < 0 AND NOT own.may_be_negative)
        LIMIT 1;
        IF FOUND AND v_bad.measure IS NULL THEN
            IF v_bad.metric_type IN ('revenue', 'inventory', 'staffing', 'costs') THEN
                RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                    MESSAGE = format('%s is no measure', v_bad.metric_type),
                    HINT = format('Insert it into %I.metrics.', TG_TABLE_SCHEMA);
            END IF;
            PERFORM _connector_service.connector_service_check_metric_type(v_bad.tenant_id, v_bad.metric_type);
        ELSIF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA, CONSTRAINT = TG_NAME,
                MESSAGE = format('measure "%s" is never negative, and the value is %s', v_bad.metric_type, v_bad.metric_value),
                DETAIL = format('The day is %s, the tenant is %s.', v_bad.metric_date, v_bad.tenant_id),
                HINT = format('If it may be: UPDATE %I.measures SET may_be_negative = true WHERE tenant_id = %L AND name = %L;',
                    TG_TABLE_SCHEMA, v_bad.tenant_id, v_bad.metric_type);
        END IF;
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
                FROM @extschema@.all_metrics h
                WHERE h.tenant_id = c.tenant_id AND h.metric_type = c.metric_type AND h.is_measure = v_is_measure
                    AND h.metric_date BETWEEN c.metric_date - 182 AND c.metric_date - 7 AND (c.metric_date - h.metric_date) % 7 = 0
                    -- After a change of currency some days may still have to follow.
                    AND coalesce(h.data ->> 'currency', t.currency) = t.currency) AS history
            LEFT JOIN LATERAL (
                SELECT history.median - margin.width AS low, history.median + margin.width AS high
                FROM (SELECT rule.outlier_factor::float8 * greatest(
                        1.4826 * (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY abs(v - history.median)) FROM unnest(history.values) AS v),
                        0.05 * abs(history.median)) AS width) AS margin
            ) AS spread ON history.days >= rule.outlier_min_history AND history.median <> 0 AND rule.outlier_factor < 'Infinity'
        -- A row from a dump was checked when it was made, and one without a derived value goes.
        WHERE (TG_OP = 'UPDATE' OR c.created_at >= now() - interval '1 minute') AND (c.by_hand OR c.derived_value IS NOT NULL)),
    found AS MATERIALIZED (
        SELECT j.*, CASE
                WHEN j.metric_value > j.max_value THEN format('above the limit of %s', j.max_value)
                WHEN j.metric_value < j.min_value THEN format('below the limit of %s', j.min_value)
                WHEN j.metric_value > j.high OR j.metric_value < j.low AND j.is_over
                    THEN format('expected between %s and %s (median of the last %s %ss with data: %s)',
                        CASE WHEN j.median < 0 THEN round(j.low::numeric, 2) ELSE greatest(round(j.low::numeric, 2), 0) END, round(j.high::numeric, 2), j.days, to_char(j.metric_date, 'FMDay'), round(j.median::numeric, 2))
            END AS problem
        FROM judged j),
    alerted AS (
        INSERT INTO @extschema@.data_quality_alerts (tenant_id, metric_id, measure_value_id, alert_type, severity, message, alert_key, metric_type, metric_date)
        SELECT f.tenant_id, CASE WHEN NOT v_is_measure THEN f.metric_id END, CASE WHEN v_is_measure THEN f.metric_id END, 'outlier', 'warning', format('%s of %s is %s, %s', f.metric_type, f.metric_date, f.metric_value, f.problem),
            format('outlier:%s:%s', f.metric_type, f.metric_date), f.metric_type, f.metric_date
        FROM found f WHERE f.problem IS NOT NULL)
    SELECT coalesce(array_agg(f.metric_id), '{}') INTO v_outliers FROM found f WHERE f.problem IS NOT NULL;

    IF v_is_measure THEN
        UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
        FROM changed c
        WHERE a.measure_value_id = c.metric_id AND NOT a.resolved_by_data AND a.alert_key LIKE 'outlier:%'
            AND (c.metric_id <> ALL (v_outliers) OR a.alert_key <> format('outlier:%s:%s', c.metric_type, c.metric_date));
    ELSE
        UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
        FROM changed c
        WHERE a.metric_id = c.metric_id AND NOT a.resolved_by_data AND a.alert_key LIKE 'outlier:%'
            AND (c.metric_id <> ALL (v_outliers) OR a.alert_key <> format('outlier:%s:%s', c.metric_type, c.metric_date));
    END IF;
    UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
    FROM changed c
    WHERE a.tenant_id = c.tenant_id AND a.metric_date = c.metric_date AND coalesce(a.metric_type, c.metric_type) = c.metric_type
        AND a.alert_type = 'missing' AND NOT a.resolved_by_data AND (c.by_hand OR a.connector_id IS NULL);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION @extschema@.validate_metric() IS 'Trigger of metrics and measure_values. Refuses NaN, Infinity and days that a person moves into the future of the tenant''s time zone with 23514; in measure_values also a value below zero (23514) and a measure that is not defined (22023). Opens an alert for an outlier, and closes it when the value is normal again. Closes the alert of a missing day.';
CREATE TRIGGER validate_metric_trigger AFTER INSERT ON @extschema@.metrics
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.validate_metric();
CREATE TRIGGER validate_metric_update_trigger AFTER UPDATE ON @extschema@.metrics
    REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.validate_metric();
CREATE TRIGGER validate_measure_trigger AFTER INSERT ON @extschema@.measure_values
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.validate_metric();
CREATE TRIGGER validate_measure_update_trigger AFTER UPDATE ON @extschema@.measure_values
    REFERENCING OLD TABLE AS before NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.validate_metric();

SELECT pg_catalog.pg_extension_config_dump('@extschema@.quality_rules', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('@extschema@.quality_rules', 'rule_id')::pg_catalog.regclass, '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
