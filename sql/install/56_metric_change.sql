-- metric change: metrics that a person changes, and what the sums depend on.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

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

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
