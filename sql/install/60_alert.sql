-- alert: problems that a person should look at. Each problem is one row, however often it is found. It closes itself when
-- the data is right again, and stays closed once a person has closed it.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.data_quality_alerts (
    alert_id uuid CONSTRAINT data_quality_alerts_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    tenant_id uuid NOT NULL,
    metric_id uuid,
    connector_id uuid,
    alert_type text NOT NULL CONSTRAINT data_quality_alerts_type_is_known CHECK (alert_type IN ('outlier', 'missing', 'schema_error', 'freshness', 'completeness', 'double_count')),
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
    measure_value_id uuid,
    -- The tenant is part of the key, so that no row can refer to a row of another tenant.
    CONSTRAINT data_quality_alerts_metric_fkey FOREIGN KEY (metric_id, tenant_id)
        REFERENCES @extschema@.metrics (metric_id, tenant_id) ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT data_quality_alerts_measure_value_fkey FOREIGN KEY (measure_value_id, tenant_id)
        REFERENCES @extschema@.measure_values (metric_id, tenant_id) ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT data_quality_alerts_connector_fkey FOREIGN KEY (connector_id, tenant_id)
        REFERENCES @extschema@.connectors (connector_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT data_quality_alerts_once UNIQUE (tenant_id, alert_type, alert_key)
);
CREATE INDEX idx_dq_alerts ON @extschema@.data_quality_alerts (tenant_id, resolved, created_at);
CREATE INDEX data_quality_alerts_day ON @extschema@.data_quality_alerts (tenant_id, metric_date, metric_type) WHERE NOT resolved_by_data;
CREATE INDEX data_quality_alerts_metric ON @extschema@.data_quality_alerts (metric_id) WHERE metric_id IS NOT NULL;
CREATE INDEX data_quality_alerts_measure_value ON @extschema@.data_quality_alerts (measure_value_id) WHERE measure_value_id IS NOT NULL;
CREATE INDEX data_quality_alerts_connector ON @extschema@.data_quality_alerts (connector_id) WHERE connector_id IS NOT NULL;
COMMENT ON TABLE @extschema@.data_quality_alerts IS 'What is wrong with the data, one row for each problem. UPDATE ... SET resolved = true closes an alert for good: while the problem goes on, it does not open again. A problem that was over and comes back opens its alert again.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.alert_id IS 'Id of the alert.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.tenant_id IS 'Tenant whose data it is.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.metric_id IS 'Metric that the alert is about. NULL: it is about no single metric.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.measure_value_id IS 'Value of a measure that the alert is about, a metric_id of measure_values. NULL: it is about none.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.connector_id IS 'Connector that the alert is about. NULL: it is about no single connector.';
COMMENT ON COLUMN @extschema@.data_quality_alerts.alert_type IS 'outlier: an unusual value. missing: a day without data. schema_error: records that a mapping cannot read. freshness: a connector without a successful sync. completeness: a day with too few records, an amount that could not be counted, or a stream of which the vendor has more records than came. double_count: connectors that may see the same money, and what was decided; see count_decisions.';
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
        metric_id = coalesce(NEW.metric_id, a.metric_id), measure_value_id = coalesce(NEW.measure_value_id, a.measure_value_id), resolved = a.resolved AND NOT a.resolved_by_data
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
            NEW.metric_type := coalesce(NEW.metric_type, lower(substring(NEW.message COLLATE "C" FROM '(?i)(revenue|inventory|staffing|costs)')),
                (SELECT own.name FROM @extschema@.measures own WHERE own.tenant_id = NEW.tenant_id AND position(own.name IN lower(NEW.message COLLATE "C")) > 0
                    ORDER BY length(own.name) DESC, own.name LIMIT 1));
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

SELECT pg_catalog.pg_extension_config_dump('@extschema@.data_quality_alerts', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
