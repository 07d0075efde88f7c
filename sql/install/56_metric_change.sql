-- metric change: metrics that a person changes, and what the sums depend on.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION _connector_service.connector_service_metric_before() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF OLD.by_hand AND NOT NEW.by_hand THEN
        NEW.metric_value := coalesce(NEW.derived_value, NEW.metric_value);
    ELSIF TG_ARGV[0] = 'value' THEN
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
COMMENT ON FUNCTION _connector_service.connector_service_metric_before() IS 'Trigger of metrics and measure_values: marks a metric that a person changes as entered by hand, until by_hand is set to false, and has its days summed again.';
-- By the columns that a statement sets, not by their values: a person who enters the derived value by hand fixes it too, and
-- one who gives all metrics back makes no derived one his own.
CREATE TRIGGER metrics_before BEFORE UPDATE OF by_hand ON @extschema@.metrics
    FOR EACH ROW WHEN (NEW.settled_at IS NOT DISTINCT FROM OLD.settled_at AND NEW.by_hand <> OLD.by_hand)
    EXECUTE FUNCTION _connector_service.connector_service_metric_before('by_hand');
CREATE TRIGGER metrics_before_value BEFORE UPDATE OF tenant_id, metric_type, metric_date, metric_value, data ON @extschema@.metrics
    FOR EACH ROW WHEN (NEW.settled_at IS NOT DISTINCT FROM OLD.settled_at)
    EXECUTE FUNCTION _connector_service.connector_service_metric_before('value');
CREATE TRIGGER measure_values_before BEFORE UPDATE OF by_hand ON @extschema@.measure_values
    FOR EACH ROW WHEN (NEW.settled_at IS NOT DISTINCT FROM OLD.settled_at AND NEW.by_hand <> OLD.by_hand)
    EXECUTE FUNCTION _connector_service.connector_service_metric_before('by_hand');
CREATE TRIGGER measure_values_before_value BEFORE UPDATE OF tenant_id, metric_type, metric_date, metric_value, data ON @extschema@.measure_values
    FOR EACH ROW WHEN (NEW.settled_at IS NOT DISTINCT FROM OLD.settled_at)
    EXECUTE FUNCTION _connector_service.connector_service_metric_before('value');

CREATE FUNCTION _connector_service.connector_service_metric_entered() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.by_hand := true;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_metric_entered() IS 'Trigger of metrics and measure_values: what the extension did not write is entered by hand, whatever the statement says.';
CREATE TRIGGER metrics_entered BEFORE INSERT ON @extschema@.metrics
    FOR EACH ROW WHEN (NOT NEW.by_hand AND NEW.settled_at IS NULL) EXECUTE FUNCTION _connector_service.connector_service_metric_entered();
CREATE TRIGGER measure_values_entered BEFORE INSERT ON @extschema@.measure_values
    FOR EACH ROW WHEN (NOT NEW.by_hand AND NEW.settled_at IS NULL) EXECUTE FUNCTION _connector_service.connector_service_metric_entered();

CREATE FUNCTION _connector_service.connector_service_metric_given_back() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_TABLE_NAME = 'metrics' THEN
        DELETE FROM @extschema@.metrics m WHERE m.metric_id = NEW.metric_id;
    ELSE
        DELETE FROM @extschema@.measure_values m WHERE m.metric_id = NEW.metric_id;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_metric_given_back() IS 'Trigger of metrics and measure_values: a day that a person gives back and that has no derived value has no row.';
CREATE TRIGGER metrics_given_back AFTER UPDATE OF by_hand ON @extschema@.metrics
    FOR EACH ROW WHEN (OLD.by_hand AND NOT NEW.by_hand AND NEW.derived_value IS NULL)
    EXECUTE FUNCTION _connector_service.connector_service_metric_given_back();
CREATE TRIGGER measure_values_given_back AFTER UPDATE OF by_hand ON @extschema@.measure_values
    FOR EACH ROW WHEN (OLD.by_hand AND NOT NEW.by_hand AND NEW.derived_value IS NULL)
    EXECUTE FUNCTION _connector_service.connector_service_metric_given_back();

-- Whoever changes a metric, the monthly aggregate follows.
CREATE FUNCTION _connector_service.connector_service_metrics_moved() RETURNS trigger LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'connector_service_metrics_moved_wrapper';
COMMENT ON FUNCTION _connector_service.connector_service_metrics_moved() IS 'Trigger of metrics and tenants: asks the upkeep process at COMMIT to refresh monthly_revenue.';
CREATE TRIGGER metrics_moved AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.metrics
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_metrics_moved();

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
COMMENT ON FUNCTION _connector_service.connector_service_metric_deleted() IS 'Trigger of metrics and measure_values: has a deleted day summed again if it has facts.';
CREATE TRIGGER metrics_deleted AFTER DELETE ON @extschema@.metrics
    REFERENCING OLD TABLE AS deleted_metrics FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_metric_deleted();
CREATE TRIGGER measure_values_deleted AFTER DELETE ON @extschema@.measure_values
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
COMMENT ON FUNCTION _connector_service.connector_service_metrics_truncated() IS 'Trigger of metrics and measure_values: has all days with facts summed again after TRUNCATE.';
CREATE TRIGGER metrics_truncated AFTER TRUNCATE ON @extschema@.metrics
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_metrics_truncated();
CREATE TRIGGER measure_values_truncated AFTER TRUNCATE ON @extschema@.measure_values
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
        CROSS JOIN LATERAL (
            SELECT unnest('{revenue,inventory,staffing,costs}'::text[])
            UNION ALL SELECT own.name FROM @extschema@.measures own WHERE own.tenant_id = t.tenant_id AND own.unit = 'money') AS type(name)
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

CREATE FUNCTION _connector_service.connector_service_rates_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _connector_service.connector_service_lock(NULL::uuid);
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT DISTINCT f.tenant_id, f.metric_type, f.metric_date
    FROM @extschema@.metric_facts f JOIN @extschema@.tenants t ON t.tenant_id = f.tenant_id
    WHERE f.currency NOT IN (t.currency, '');
    PERFORM _connector_service.connector_service_settle();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_rates_truncated() IS 'Trigger of fx_rates: sums all days again that have amounts in another currency, after TRUNCATE.';
CREATE TRIGGER fx_rates_truncated AFTER TRUNCATE ON @extschema@.fx_rates
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_rates_truncated();

CREATE FUNCTION _connector_service.connector_service_facts_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _connector_service.connector_service_lock(NULL::uuid);
    IF EXISTS (SELECT FROM @extschema@.raw_connector_data r WHERE r.dropped_at IS NOT NULL AND NOT r.deleted) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'metric_facts holds what records came to whose JSON was dropped',
            DETAIL = 'These facts could not be derived again.',
            HINT = format('To derive all others again: SELECT %I.connector_service_reprocess(connector_id) FROM %I.connectors;', TG_TABLE_SCHEMA, TG_TABLE_SCHEMA);
    END IF;
    UPDATE @extschema@.raw_connector_data SET processed = false WHERE processed AND NOT deleted;
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT m.tenant_id, m.metric_type, m.metric_date FROM @extschema@.all_metrics m WHERE m.derived_value IS NOT NULL;
    PERFORM _connector_service.connector_service_wake();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_facts_truncated() IS 'Trigger of metric_facts: has all records processed again after TRUNCATE. Raises 55000 if some of them have no JSON any more.';
CREATE TRIGGER metric_facts_truncated AFTER TRUNCATE ON @extschema@.metric_facts
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_facts_truncated();

-- A record that waits in quarantine for its day, or for a mapping that costs less, is known only there.

CREATE FUNCTION _connector_service.connector_service_quarantine_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE @extschema@.raw_connector_data r SET processed = false
    FROM deleted_quarantine q
    WHERE r.raw_id = q.raw_id AND r.processed AND q.replayed_at IS NULL AND (q.retry_on IS NOT NULL OR q.reason_code = 'too_costly');
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_quarantine_deleted() IS 'Trigger of quarantine: has records processed again that only a deleted row knew of.';
CREATE TRIGGER quarantine_deleted AFTER DELETE ON @extschema@.quarantine
    REFERENCING OLD TABLE AS deleted_quarantine FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_quarantine_deleted();

CREATE FUNCTION _connector_service.connector_service_quarantine_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Which records were there nobody knows any more: those without a fact may have been.
    UPDATE @extschema@.raw_connector_data r SET processed = false
    WHERE r.processed AND NOT r.deleted AND EXISTS (
        SELECT FROM _connector_service.connector_service_mappings_of(r.connector_id) m
        WHERE m.stream = r.stream AND NOT EXISTS (SELECT FROM @extschema@.metric_facts f WHERE f.raw_id = r.raw_id AND f.mapping_id = m.mapping_id));
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_quarantine_truncated() IS 'Trigger of quarantine: has records processed again that may have been in it, after TRUNCATE.';
CREATE TRIGGER quarantine_truncated AFTER TRUNCATE ON @extschema@.quarantine
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_quarantine_truncated();

CREATE FUNCTION _connector_service.connector_service_tenant_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The time zone decides the day of a fact, and the currency is that of amounts without one.
    -- All of it before the first day is summed: a day is judged by the days before it, which are of one currency then.
    PERFORM _connector_service.connector_service_derive_again(c.connector_id) FROM @extschema@.connectors c WHERE c.tenant_id = NEW.tenant_id;
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT DISTINCT f.tenant_id, f.metric_type, f.metric_date FROM @extschema@.metric_facts f WHERE f.tenant_id = NEW.tenant_id;
    PERFORM _connector_service.connector_service_settle(NULL::integer, NEW.tenant_id);
    IF NEW.currency <> OLD.currency THEN
        -- What a person entered is judged again: a bound of the currency before says nothing of this one.
        UPDATE @extschema@.metrics m SET settled_at = clock_timestamp()
        WHERE m.by_hand AND m.tenant_id = NEW.tenant_id AND EXISTS (
            SELECT FROM @extschema@.data_quality_alerts a WHERE a.metric_id = m.metric_id AND NOT a.resolved_by_data AND a.alert_key LIKE 'outlier:%');
        UPDATE @extschema@.measure_values v SET settled_at = clock_timestamp()
        WHERE v.by_hand AND v.tenant_id = NEW.tenant_id AND EXISTS (
            SELECT FROM @extschema@.data_quality_alerts a WHERE a.measure_value_id = v.metric_id AND NOT a.resolved_by_data AND a.alert_key LIKE 'outlier:%');
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_tenant_changed() IS 'Trigger of tenants: derives all metrics again after a change of time zone or currency.';
-- Its averages are rounded by the currency.
CREATE TRIGGER tenants_moved AFTER UPDATE OF currency ON @extschema@.tenants
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_metrics_moved();
CREATE TRIGGER tenants_changed AFTER UPDATE OF timezone, currency ON @extschema@.tenants
    FOR EACH ROW WHEN (NEW.timezone <> OLD.timezone OR NEW.currency <> OLD.currency) EXECUTE FUNCTION _connector_service.connector_service_tenant_changed();

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
