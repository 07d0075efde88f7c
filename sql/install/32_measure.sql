-- measure: what a tenant counts besides revenue, costs, inventory and staffing.
--
-- A measure is a metric type of one tenant. Its facts are among the others, and its values are in measure_values: the table
-- metrics keeps its four types and its constraints, which statements and reports of users rely on.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.measures (
    tenant_id uuid CONSTRAINT measures_tenant_fkey REFERENCES @extschema@.tenants ON DELETE CASCADE,
    name text,
    unit text NOT NULL DEFAULT 'count' CONSTRAINT measures_unit_is_bounded CHECK (pg_catalog.octet_length(unit) BETWEEN 1 AND 256),
    aggregation text NOT NULL DEFAULT 'sum' CONSTRAINT measures_aggregation_is_known CHECK (aggregation IN ('sum', 'last', 'average', 'distinct_count')),
    may_be_negative boolean NOT NULL DEFAULT false,
    description text CONSTRAINT measures_description_is_bounded CHECK (pg_catalog.octet_length(description) <= 16384),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT measures_pkey PRIMARY KEY (tenant_id, name),
    CONSTRAINT measures_name_is_new CHECK (name NOT IN ('revenue', 'inventory', 'staffing', 'costs')),
    -- Names are parts of keys, addresses and messages.
    CONSTRAINT measures_name_is_plain CHECK (name ~ E'^[a-z0-9_\\u0080-\\U0010FFFF](?:[a-z0-9_ \\u0080-\\U0010FFFF-]{0,61}[a-z0-9_\\u0080-\\U0010FFFF])?$'),
    CONSTRAINT measures_distinct_count_is_no_money CHECK (aggregation <> 'distinct_count' OR unit <> 'money')
);
COMMENT ON TABLE @extschema@.measures IS 'Metric types of a tenant''s own, such as orders, customers, signups or stock turns. Mappings, quality rules and entries by hand name them like revenue, costs, inventory and staffing. Their values are in measure_values. A new name is carried into everything that names the measure. A measure that mappings or entries by hand name cannot be deleted (2BP01).';
COMMENT ON COLUMN @extschema@.measures.tenant_id IS 'Tenant that defines the measure. A tenant that is not known yet is added to tenants. It cannot be changed.';
COMMENT ON COLUMN @extschema@.measures.name IS 'Name, as metric_type has it: small letters, digits, _, and blanks or - between them; at most 63 characters. It is stored in small letters. Raises 22023 for another name, or for one of the four types that are there already.';
COMMENT ON COLUMN @extschema@.measures.unit IS 'What one is: orders, pieces, hours. money: amounts of the tenant''s currency; amounts in other currencies are converted as those of revenue are. All other units are for people. Default: count.';
COMMENT ON COLUMN @extschema@.measures.aggregation IS 'How the records of a day make its value, and the days of a period the period''s. sum: added up. last: the last by the record''s time; a period has that of its last day. average: the average of the records, also over a period. distinct_count: how many different texts value_path finds, also over a period. Raises 22023 for anything else. A change derives the measure again.';
COMMENT ON COLUMN @extschema@.measures.may_be_negative IS 'Whether a value may be below zero. Where it may not, a day below zero has no value, and a critical alert.';
COMMENT ON COLUMN @extschema@.measures.description IS 'Note for people. The extension does not interpret it.';
COMMENT ON COLUMN @extschema@.measures.created_at IS 'Time at which the measure was defined.';

CREATE FUNCTION _connector_service.connector_service_known_types(p_tenant_id uuid) RETURNS text LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT 'Known metric types: costs, inventory, revenue, staffing.'
        || coalesce((SELECT pg_catalog.format(' Measures of the tenant: %s.', pg_catalog.string_agg(m.name, ', ' ORDER BY m.name))
            FROM @extschema@.measures m WHERE m.tenant_id = p_tenant_id HAVING pg_catalog.count(*) > 0), '');
END;
COMMENT ON FUNCTION _connector_service.connector_service_known_types(uuid) IS 'The metric types that a tenant has, in words.';

CREATE FUNCTION _connector_service.connector_service_check_metric_type(p_tenant_id uuid, p_metric_type text) RETURNS void LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_metric_type IN ('revenue', 'inventory', 'staffing', 'costs')
        OR EXISTS (SELECT FROM @extschema@.measures m WHERE m.tenant_id = p_tenant_id AND m.name = p_metric_type) THEN
        RETURN;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('metric type "%s" is not known', left(p_metric_type, 100)),
        DETAIL = _connector_service.connector_service_known_types(p_tenant_id),
        HINT = CASE WHEN p_tenant_id IS NULL THEN 'A measure belongs to one tenant: name the tenant too.'
            ELSE format('To define it: INSERT INTO %I.measures (tenant_id, name, aggregation) VALUES (%L, %L, ''sum''); -- or last, average, distinct_count',
                '@extschema@', p_tenant_id, left(p_metric_type, 100)) END;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_check_metric_type(uuid, text) IS 'Raises 22023 for a text that is neither one of the four metric types nor a measure of the tenant (NULL: of no tenant).';

CREATE FUNCTION _connector_service.connector_service_measure_before() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.name := lower(btrim(NEW.name) COLLATE "C");
    NEW.unit := btrim(NEW.unit);
    IF lower(NEW.unit COLLATE "C") = 'money' THEN
        NEW.unit := 'money';
    END IF;
    NEW.aggregation := translate(lower(btrim(NEW.aggregation) COLLATE "C"), ' -', '__');
    NEW.aggregation := CASE NEW.aggregation WHEN 'avg' THEN 'average' WHEN 'mean' THEN 'average'
        WHEN 'distinct' THEN 'distinct_count' WHEN 'count_distinct' THEN 'distinct_count' ELSE NEW.aggregation END;
    IF NEW.aggregation NOT IN ('sum', 'last', 'average', 'distinct_count') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('aggregation "%s" is not known', left(NEW.aggregation, 100)),
            DETAIL = 'Known aggregations: average, distinct_count, last, sum.';
    ELSIF NEW.name IN ('revenue', 'inventory', 'staffing', 'costs') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('"%s" is a metric type already', NEW.name),
            HINT = 'It needs no measure. Give a measure another name.';
    ELSIF NEW.name !~ E'^[a-z0-9_\\u0080-\\U0010FFFF](?:[a-z0-9_ \\u0080-\\U0010FFFF-]{0,61}[a-z0-9_\\u0080-\\U0010FFFF])?$' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('"%s" cannot be the name of a measure', left(NEW.name, 100)),
            HINT = 'Use letters, digits and _, with blanks or - between them, and at most 63 characters.';
    ELSIF NEW.aggregation = 'distinct_count' AND NEW.unit = 'money' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('measure "%s" counts texts, so its unit cannot be money', NEW.name),
            HINT = 'Set unit to what is counted, such as customers.';
    END IF;
    IF TG_OP = 'INSERT' THEN
        INSERT INTO @extschema@.tenants (tenant_id) VALUES (NEW.tenant_id) ON CONFLICT DO NOTHING;
        IF (SELECT count(*) FROM @extschema@.measures m WHERE m.tenant_id = NEW.tenant_id) >= 200 THEN
            RAISE EXCEPTION USING ERRCODE = 'configuration_limit_exceeded',
                MESSAGE = format('tenant "%s" already has 200 measures', NEW.tenant_id),
                HINT = 'Delete those that are not needed.';
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.tenant_id <> OLD.tenant_id THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = format('tenant_id of measure "%s" cannot be changed', OLD.name),
            HINT = 'Define the measure for the other tenant.';
    END IF;
    PERFORM _connector_service.connector_service_lock(NEW.tenant_id);
    IF NEW.unit <> 'money' AND OLD.unit = 'money' AND EXISTS (
            SELECT FROM @extschema@.metric_mappings m
            WHERE m.tenant_id = NEW.tenant_id AND m.metric_type = OLD.name AND (m.negative = 'costs' OR m.unit <> 'major')) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('the unit of measure "%s" must stay money, because a mapping needs it', OLD.name),
            HINT = format('Look at them first: SELECT mapping_id, negative, unit FROM %I.metric_mappings WHERE metric_type = %L AND (negative = ''costs'' OR unit <> ''major'');',
                TG_TABLE_SCHEMA, OLD.name);
    ELSIF NEW.aggregation <> 'sum' AND OLD.aggregation = 'sum' AND EXISTS (
            SELECT FROM @extschema@.metric_mappings m
            WHERE m.tenant_id = NEW.tenant_id AND m.metric_type = OLD.name AND NEW.aggregation = 'distinct_count' AND m.until_path IS NOT NULL) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('measure "%s" cannot count texts, because a mapping of it has an until_path', OLD.name),
            HINT = format('UPDATE %I.metric_mappings SET until_path = NULL WHERE metric_type = %L AND until_path IS NOT NULL;', TG_TABLE_SCHEMA, OLD.name);
    ELSIF OLD.may_be_negative AND NOT NEW.may_be_negative AND EXISTS (
            SELECT FROM @extschema@.measure_values v WHERE v.tenant_id = NEW.tenant_id AND v.metric_type = OLD.name AND v.by_hand AND v.metric_value < 0) THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = 'may_be_negative',
            MESSAGE = format('measure "%s" has values below zero that were entered by hand', OLD.name),
            HINT = format('Delete or correct them first: SELECT * FROM %I.measure_values WHERE metric_type = %L AND metric_value < 0;', TG_TABLE_SCHEMA, OLD.name);
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_measure_before() IS 'Trigger of measures: raises 22023 for a definition that makes no sense, 55000 or 23514 for a change that mappings or values speak against.';
CREATE TRIGGER measures_before BEFORE INSERT OR UPDATE ON @extschema@.measures
    FOR EACH ROW EXECUTE FUNCTION _connector_service.connector_service_measure_before();

CREATE FUNCTION _connector_service.connector_service_measure_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
-- What mappings say of a change of their rows is not true of a new name.
SET search_path = pg_catalog, pg_temp SET client_min_messages = error
AS $$
DECLARE
    v_is_derived_anew boolean := NEW.aggregation <> OLD.aggregation OR (NEW.unit = 'money') <> (OLD.unit = 'money');
BEGIN
    IF NEW.name <> OLD.name THEN
        UPDATE @extschema@.metric_mappings SET metric_type = NEW.name WHERE tenant_id = NEW.tenant_id AND metric_type = OLD.name;
        UPDATE @extschema@.quality_rules SET metric_type = NEW.name WHERE tenant_id = NEW.tenant_id AND metric_type = OLD.name;
        UPDATE @extschema@.metric_facts SET metric_type = NEW.name WHERE tenant_id = NEW.tenant_id AND metric_type = OLD.name;
        UPDATE @extschema@.metric_days_touched SET metric_type = NEW.name WHERE tenant_id = NEW.tenant_id AND metric_type = OLD.name;
        UPDATE @extschema@.count_decisions SET metric_type = NEW.name WHERE tenant_id = NEW.tenant_id AND metric_type = OLD.name;
        UPDATE @extschema@.metric_sources SET metric_type = NEW.name WHERE tenant_id = NEW.tenant_id AND metric_type = OLD.name;
        UPDATE @extschema@.data_quality_alerts SET metric_type = NEW.name,
            alert_key = regexp_replace(alert_key, '^([a-z]+):' || OLD.name || '(:|$)', '\1:' || NEW.name || '\2')
        WHERE tenant_id = NEW.tenant_id AND metric_type = OLD.name;
        -- After its alerts, because it is judged again. With settled_at, so that it does not count as a person's.
        UPDATE @extschema@.measure_values SET metric_type = NEW.name, settled_at = clock_timestamp()
        WHERE tenant_id = NEW.tenant_id AND metric_type = OLD.name;
    END IF;
    IF v_is_derived_anew THEN
        PERFORM _connector_service.connector_service_derive_again(c.connector_id) FROM @extschema@.connectors c
        WHERE c.tenant_id = NEW.tenant_id AND EXISTS (
            SELECT FROM @extschema@.metric_mappings m
            WHERE m.tenant_id = NEW.tenant_id AND m.metric_type = NEW.name AND (m.connector_id = c.connector_id OR m.connector_type = c.type));
    END IF;
    IF v_is_derived_anew OR NEW.may_be_negative <> OLD.may_be_negative THEN
        INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
        SELECT f.tenant_id, f.metric_type, f.metric_date FROM @extschema@.metric_facts f WHERE f.tenant_id = NEW.tenant_id AND f.metric_type = NEW.name
        UNION SELECT v.tenant_id, v.metric_type, v.metric_date FROM @extschema@.measure_values v WHERE v.tenant_id = NEW.tenant_id AND v.metric_type = NEW.name;
        PERFORM _connector_service.connector_service_settle(NULL::integer, NEW.tenant_id);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_measure_changed() IS 'Trigger of measures: carries a new name to whatever names the measure, and derives its values again where the meaning changed.';
CREATE TRIGGER measures_changed AFTER UPDATE ON @extschema@.measures
    FOR EACH ROW WHEN ((NEW.name, NEW.unit, NEW.aggregation, NEW.may_be_negative) IS DISTINCT FROM (OLD.name, OLD.unit, OLD.aggregation, OLD.may_be_negative))
    EXECUTE FUNCTION _connector_service.connector_service_measure_changed();

CREATE FUNCTION _connector_service.connector_service_measure_is_used(p_tenant_id uuid, p_name text, p_schema text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_mappings text := (
        SELECT string_agg(m.mapping_id::text, ', ' ORDER BY m.mapping_id) FROM @extschema@.metric_mappings m
        WHERE m.tenant_id = p_tenant_id AND m.metric_type = p_name);
    v_entered bigint := (
        SELECT count(*) FROM @extschema@.measure_values v WHERE v.tenant_id = p_tenant_id AND v.metric_type = p_name AND v.by_hand);
BEGIN
    IF v_mappings IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'dependent_objects_still_exist',
            MESSAGE = format('measure "%s" is used by mapping %s', p_name, v_mappings),
            HINT = format('If nothing should be counted for it: DELETE FROM %I.metric_mappings WHERE mapping_id IN (%s);', p_schema, v_mappings);
    ELSIF v_entered > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'dependent_objects_still_exist',
            MESSAGE = format('measure "%s" has %s entered by hand', p_name, CASE v_entered WHEN 1 THEN '1 value' ELSE v_entered || ' values' END),
            HINT = format('If they are not needed: DELETE FROM %I.measure_values WHERE tenant_id = %L AND metric_type = %L;', p_schema, p_tenant_id, p_name);
    END IF;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_measure_is_used(uuid, text, text) IS 'Raises 2BP01 if a mapping names the measure, or if it has values that were entered by hand.';

CREATE FUNCTION _connector_service.connector_service_measure_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _connector_service.connector_service_lock(OLD.tenant_id);
    -- With its tenant everything goes.
    IF EXISTS (SELECT FROM @extschema@.tenants t WHERE t.tenant_id = OLD.tenant_id) THEN
        PERFORM _connector_service.connector_service_measure_is_used(OLD.tenant_id, OLD.name, TG_TABLE_SCHEMA::text);
    END IF;
    DELETE FROM @extschema@.metric_facts WHERE tenant_id = OLD.tenant_id AND metric_type = OLD.name;
    DELETE FROM @extschema@.measure_values WHERE tenant_id = OLD.tenant_id AND metric_type = OLD.name;
    DELETE FROM @extschema@.count_decisions WHERE tenant_id = OLD.tenant_id AND metric_type = OLD.name;
    DELETE FROM @extschema@.metric_days_touched WHERE tenant_id = OLD.tenant_id AND metric_type = OLD.name;
    DELETE FROM @extschema@.metric_sources WHERE tenant_id = OLD.tenant_id AND metric_type = OLD.name;
    DELETE FROM @extschema@.quality_rules WHERE tenant_id = OLD.tenant_id AND metric_type = OLD.name;
    DELETE FROM @extschema@.data_quality_alerts WHERE tenant_id = OLD.tenant_id AND metric_type = OLD.name;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_measure_deleted() IS 'Trigger of measures: deletes what was derived for a measure that is deleted, and raises 2BP01 if the measure is in use.';
CREATE TRIGGER measures_deleted AFTER DELETE ON @extschema@.measures
    FOR EACH ROW EXECUTE FUNCTION _connector_service.connector_service_measure_deleted();

CREATE FUNCTION _connector_service.connector_service_measures_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _connector_service.connector_service_lock(NULL::uuid);
    PERFORM _connector_service.connector_service_measure_is_used(used.tenant_id, used.metric_type, TG_TABLE_SCHEMA::text)
    FROM (
        SELECT m.tenant_id, m.metric_type FROM @extschema@.metric_mappings m WHERE m.metric_type NOT IN ('revenue', 'inventory', 'staffing', 'costs')
        UNION SELECT v.tenant_id, v.metric_type FROM @extschema@.measure_values v WHERE v.by_hand) AS used
        JOIN @extschema@.tenants t ON t.tenant_id = used.tenant_id;
    DELETE FROM @extschema@.metric_facts WHERE metric_type NOT IN ('revenue', 'inventory', 'staffing', 'costs');
    DELETE FROM @extschema@.measure_values;
    DELETE FROM @extschema@.count_decisions WHERE metric_type NOT IN ('revenue', 'inventory', 'staffing', 'costs');
    DELETE FROM @extschema@.metric_days_touched WHERE metric_type NOT IN ('revenue', 'inventory', 'staffing', 'costs');
    DELETE FROM @extschema@.metric_sources WHERE metric_type NOT IN ('revenue', 'inventory', 'staffing', 'costs');
    DELETE FROM @extschema@.quality_rules WHERE metric_type NOT IN ('revenue', 'inventory', 'staffing', 'costs');
    DELETE FROM @extschema@.data_quality_alerts WHERE metric_type NOT IN ('revenue', 'inventory', 'staffing', 'costs');
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_measures_truncated() IS 'Trigger of measures: what DELETE does for each measure, after TRUNCATE.';
CREATE TRIGGER measures_truncated AFTER TRUNCATE ON @extschema@.measures
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_measures_truncated();

SELECT pg_catalog.pg_extension_config_dump('@extschema@.measures', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
