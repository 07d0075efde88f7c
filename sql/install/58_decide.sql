-- decide: one sale, one count. A shop sees the order, a payment service its payment, the books their booking. The upkeep process
-- compares the amounts of a tenant's connectors (core/count), and what it finds is written here: as a decision, which
-- connector_service_sums() follows, and as an alert, so that no number changes in silence.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION _connector_service.connector_service_class(p_class text, p_type text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(p_class, CASE p_type
    WHEN 'shopify' THEN 'sales'
    WHEN 'stripe' THEN 'payments' WHEN 'square' THEN 'payments'
    WHEN 'quickbooks' THEN 'books' WHEN 'erpnext' THEN 'books'
    WHEN 'salesforce' THEN 'pipeline'
    ELSE p_type END);
COMMENT ON FUNCTION _connector_service.connector_service_class(text, text) IS 'The class of a mapping, by its column class and the type of its connector.';

CREATE FUNCTION _connector_service.connector_service_class_rank(p_class text) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(pg_catalog.array_position('{sales,payments,books,pipeline,webhook,api,postgres,mysql,excel,csv}'::text[], p_class), 99);
COMMENT ON FUNCTION _connector_service.connector_service_class_rank(text) IS 'How close a class is to the sale: the smaller, the closer.';

CREATE FUNCTION _connector_service.connector_service_count_due(p_tenant_ids uuid[], p_metric_types text[]) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO @extschema@.count_due (tenant_id, metric_type)
    SELECT day.tenant_id, day.metric_type
    FROM (SELECT DISTINCT d.tenant_id, d.metric_type
        FROM ROWS FROM (unnest(p_tenant_ids), unnest(p_metric_types)) AS d(tenant_id, metric_type)
        WHERE d.metric_type IN ('revenue', 'costs')) AS day
    -- One connector counts nothing twice.
    WHERE EXISTS (SELECT FROM @extschema@.connectors c WHERE c.tenant_id = day.tenant_id OFFSET 1)
        AND NOT EXISTS (SELECT FROM @extschema@.count_due c WHERE c.tenant_id = day.tenant_id AND c.metric_type = day.metric_type);
END;
COMMENT ON FUNCTION _connector_service.connector_service_count_due(uuid[], text[]) IS 'Has the connectors of tenants compared whose days were summed.';

CREATE FUNCTION _connector_service.connector_service_count_now(p_tenant_id uuid) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO @extschema@.count_due (tenant_id, metric_type, is_urgent)
    SELECT p_tenant_id, type.name, true FROM unnest('{revenue,costs}'::text[]) AS type(name);
END;
COMMENT ON FUNCTION _connector_service.connector_service_count_now(uuid) IS 'Has the connectors of a tenant compared at once.';

CREATE FUNCTION _connector_service.connector_service_count_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM @extschema@.count_decisions d WHERE d.tenant_id = OLD.tenant_id) THEN
        PERFORM _connector_service.connector_service_count_now(OLD.tenant_id);
        PERFORM _connector_service.connector_service_wake();
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_count_changed() IS 'Trigger of connectors: a connector that is deleted, paused, resumed or of another type changes which of the others count.';
CREATE TRIGGER connectors_count_deleted AFTER DELETE ON @extschema@.connectors
    FOR EACH ROW EXECUTE FUNCTION _connector_service.connector_service_count_changed();
CREATE TRIGGER connectors_count_changed AFTER UPDATE OF status, type, tenant_id ON @extschema@.connectors
    FOR EACH ROW WHEN (NEW.status <> OLD.status OR NEW.type <> OLD.type OR NEW.tenant_id <> OLD.tenant_id)
    EXECUTE FUNCTION _connector_service.connector_service_count_changed();

CREATE FUNCTION _connector_service.connector_service_count_mapping() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_tenant_id uuid := CASE TG_OP WHEN 'DELETE' THEN OLD.tenant_id ELSE NEW.tenant_id END;
BEGIN
    PERFORM _connector_service.connector_service_count_now(d.tenant_id)
    FROM (SELECT DISTINCT c.tenant_id FROM @extschema@.count_decisions c WHERE v_tenant_id IS NULL OR c.tenant_id = v_tenant_id) AS d;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_count_mapping() IS 'Trigger of metric_mappings: another class changes which connectors count.';
CREATE TRIGGER metric_mappings_count AFTER INSERT OR UPDATE OR DELETE ON @extschema@.metric_mappings
    FOR EACH ROW EXECUTE FUNCTION _connector_service.connector_service_count_mapping();

-- What is compared.

CREATE FUNCTION _connector_service.connector_service_count_sources(p_tenant_id uuid, p_metric_type text)
RETURNS TABLE (connector_id uuid, class text, rank integer, is_paused boolean, is_asked boolean, last_sync date) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT c.connector_id, best.class, _connector_service.connector_service_class_rank(best.class), c.status = 'paused',
        c.type NOT IN ('csv', 'excel', 'webhook'), (c.last_sync_at AT TIME ZONE t.timezone)::date
    FROM @extschema@.connectors c JOIN @extschema@.tenants t ON t.tenant_id = c.tenant_id
        CROSS JOIN LATERAL (
            SELECT coalesce((
                SELECT _connector_service.connector_service_class(m.class, c.type)
                FROM _connector_service.connector_service_mappings_of(c.connector_id) m
                WHERE m.metric_type = p_metric_type OR p_metric_type = 'costs' AND m.negative = 'costs'
                ORDER BY _connector_service.connector_service_class_rank(_connector_service.connector_service_class(m.class, c.type)) LIMIT 1),
                _connector_service.connector_service_class(NULL, c.type)) AS class) AS best
    WHERE c.tenant_id = p_tenant_id
    ORDER BY 3, c.connector_id;
END;
COMMENT ON FUNCTION _connector_service.connector_service_count_sources(uuid, text) IS 'The connectors of a tenant, the closest to the sale first: of several classes of mappings, the closest counts.';

CREATE FUNCTION _connector_service.connector_service_fact_days(p_tenant_id uuid, p_metric_type text) RETURNS SETOF date LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH RECURSIVE day (metric_date) AS (
        SELECT (SELECT min(f.metric_date) FROM @extschema@.metric_facts f WHERE f.tenant_id = p_tenant_id AND f.metric_type = p_metric_type)
        UNION ALL
        -- From one day to the next by the index: a day may have millions of facts.
        SELECT (SELECT min(f.metric_date) FROM @extschema@.metric_facts f
            WHERE f.tenant_id = p_tenant_id AND f.metric_type = p_metric_type AND f.metric_date > day.metric_date)
        FROM day WHERE day.metric_date IS NOT NULL)
    SELECT day.metric_date FROM day WHERE day.metric_date IS NOT NULL;
END;
COMMENT ON FUNCTION _connector_service.connector_service_fact_days(uuid, text) IS 'The days on which a tenant''s metric type has facts.';

CREATE FUNCTION _connector_service.connector_service_count_days(p_tenant_id uuid, p_metric_type text)
RETURNS TABLE (connector_id text, day integer, facts bigint) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH told AS MATERIALIZED (
        SELECT m.metric_date, m.data FROM @extschema@.metrics m
        WHERE m.tenant_id = p_tenant_id AND m.metric_type = p_metric_type AND NOT m.by_hand AND jsonb_typeof(m.data -> 'sources') = 'object')
    SELECT s.key, t.metric_date - '2000-01-01'::date,
        coalesce((s.value ->> 'facts')::bigint, 0) + coalesce((s.value #>> '{not_counted,facts}')::bigint, 0)
    FROM told t CROSS JOIN LATERAL jsonb_each(t.data -> 'sources') AS s
    UNION ALL
    -- A day that has no metric, or one of a person's.
    SELECT f.connector_id::text, day.metric_date - '2000-01-01'::date, f.facts
    FROM (SELECT d.metric_date FROM _connector_service.connector_service_fact_days(p_tenant_id, p_metric_type) AS d(metric_date)
            EXCEPT SELECT t.metric_date FROM told t) AS day
        CROSS JOIN LATERAL (
            SELECT f.connector_id, count(*) AS facts FROM @extschema@.metric_facts f
            WHERE f.tenant_id = p_tenant_id AND f.metric_type = p_metric_type AND f.metric_date = day.metric_date GROUP BY 1) AS f;
END;
COMMENT ON FUNCTION _connector_service.connector_service_count_days(uuid, text) IS 'How many facts each connector has on each day, in days since 2000-01-01, as the metrics tell: quicker than to count them.';

CREATE FUNCTION _connector_service.connector_service_count_amounts(p_tenant_id uuid, p_metric_type text, p_from integer, p_to integer)
RETURNS TABLE (connector_id uuid, part text, day integer, currency text, value text, net text) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET enable_hashjoin = on SET jit = off SET work_mem = '64MB'
BEGIN ATOMIC
    WITH fee AS (
        -- What was kept of a payment is a fact of the same record.
        SELECT f.raw_id, f.currency, sum(f.value) AS value FROM @extschema@.metric_facts f
        WHERE p_metric_type = 'revenue' AND f.tenant_id = p_tenant_id AND f.metric_type = 'costs' AND f.category = 'fees'
            AND f.metric_date BETWEEN '2000-01-01'::date + p_from AND '2000-01-01'::date + p_to
        GROUP BY 1, 2),
    record AS (
        SELECT f.connector_id, _connector_service.connector_service_part(p_metric_type, f.category) AS part, f.raw_id, f.currency,
            min(f.metric_date) AS metric_date, sum(f.value) AS value
        FROM @extschema@.metric_facts f
        WHERE f.tenant_id = p_tenant_id AND f.metric_type = p_metric_type
            AND f.metric_date BETWEEN '2000-01-01'::date + p_from AND '2000-01-01'::date + p_to
        GROUP BY 1, 2, 3, 4
        UNION ALL
        -- Books may have what is left of a day after its refunds.
        SELECT f.connector_id, 'paid_back', NULL, f.currency, f.metric_date, sum(f.value)
        FROM @extschema@.metric_facts f
        WHERE p_metric_type = 'revenue' AND f.tenant_id = p_tenant_id AND f.metric_type = 'costs' AND f.category = 'refunds'
            AND f.metric_date BETWEEN '2000-01-01'::date + p_from AND '2000-01-01'::date + p_to
        GROUP BY 1, 4, 5)
    SELECT r.connector_id, r.part, r.metric_date - '2000-01-01'::date, r.currency,
        trunc(r.value * 1000000000)::text, trunc((r.value - fee.value) * 1000000000)::text
    FROM record r LEFT JOIN fee ON fee.raw_id = r.raw_id AND fee.currency = r.currency
    WHERE r.value <> 0;
END;
COMMENT ON FUNCTION _connector_service.connector_service_count_amounts(uuid, text, integer, integer) IS 'The amounts of a tenant''s records between two days (in days since 2000-01-01), in 10^-9 of their currency: one for each record, however many facts it has. net is the amount without the fees that were kept of it; NULL: there are none. The part paid_back has the refunds of a day.';

-- What was found.

CREATE FUNCTION _connector_service.connector_service_count_touch(p_tenant_id uuid, p_metric_type text) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT p_tenant_id, p_metric_type, d.metric_date FROM _connector_service.connector_service_fact_days(p_tenant_id, p_metric_type) AS d(metric_date)
    WHERE NOT EXISTS (SELECT FROM @extschema@.metric_days_touched t
        WHERE t.tenant_id = p_tenant_id AND t.metric_type = p_metric_type AND t.metric_date = d.metric_date);
END;
COMMENT ON FUNCTION _connector_service.connector_service_count_touch(uuid, text) IS 'Has all days of a tenant''s metric type summed again.';

CREATE FUNCTION _connector_service.connector_service_decision_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND NOT OLD.counts THEN
        PERFORM _connector_service.connector_service_count_touch(OLD.tenant_id, OLD.metric_type);
    END IF;
    IF TG_OP <> 'DELETE' AND NOT NEW.counts THEN
        PERFORM _connector_service.connector_service_count_touch(NEW.tenant_id, NEW.metric_type);
    END IF;
    PERFORM _connector_service.connector_service_wake();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_decision_changed() IS 'Trigger of count_decisions: has the days summed again that a decision changes.';
CREATE TRIGGER count_decisions_inserted AFTER INSERT ON @extschema@.count_decisions
    FOR EACH ROW WHEN (NOT NEW.counts) EXECUTE FUNCTION _connector_service.connector_service_decision_changed();
CREATE TRIGGER count_decisions_deleted AFTER DELETE ON @extschema@.count_decisions
    FOR EACH ROW WHEN (NOT OLD.counts) EXECUTE FUNCTION _connector_service.connector_service_decision_changed();
CREATE TRIGGER count_decisions_changed AFTER UPDATE ON @extschema@.count_decisions
    FOR EACH ROW WHEN ((OLD.tenant_id, OLD.connector_id, OLD.metric_type, OLD.part, OLD.counts, OLD.first_date, OLD.last_date)
        IS DISTINCT FROM (NEW.tenant_id, NEW.connector_id, NEW.metric_type, NEW.part, NEW.counts, NEW.first_date, NEW.last_date))
    EXECUTE FUNCTION _connector_service.connector_service_decision_changed();

CREATE FUNCTION _connector_service.connector_service_decisions_truncated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _connector_service.connector_service_count_touch(t.tenant_id, type.name)
    FROM @extschema@.tenants t CROSS JOIN LATERAL (
        SELECT unnest('{revenue,inventory,staffing,costs}'::text[])
        UNION ALL SELECT own.name FROM @extschema@.measures own WHERE own.tenant_id = t.tenant_id) AS type(name);
    PERFORM _connector_service.connector_service_count_now(t.tenant_id) FROM @extschema@.tenants t;
    PERFORM _connector_service.connector_service_wake();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_decisions_truncated() IS 'Trigger of count_decisions: after TRUNCATE everything counts, until it is compared again.';
CREATE TRIGGER count_decisions_truncated AFTER TRUNCATE ON @extschema@.count_decisions
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_decisions_truncated();

CREATE FUNCTION _connector_service.connector_service_count_sum(p_tenant_id uuid, p_metric_type text) RETURNS numeric LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT CASE WHEN scale(trim_scale(s.total)) <= 2 THEN round(s.total, 2) ELSE trim_scale(s.total) END
    FROM (SELECT coalesce(sum(m.metric_value), 0) AS total FROM @extschema@.metrics m
        WHERE m.tenant_id = p_tenant_id AND m.metric_type = p_metric_type AND m.metric_value < 'Infinity') AS s;
END;
COMMENT ON FUNCTION _connector_service.connector_service_count_sum(uuid, text) IS 'The sum of all days of a tenant''s metric type, with two decimal places or as many as it needs.';

CREATE FUNCTION _connector_service.connector_service_count_name(p_metric_type text, p_part text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE WHEN p_part = 'refunds' THEN 'refunds' WHEN p_part = 'rest' THEN p_metric_type || ' other than refunds' ELSE p_metric_type END;
COMMENT ON FUNCTION _connector_service.connector_service_count_name(text, text) IS 'A part of a metric type in words.';

CREATE FUNCTION _connector_service.connector_service_count_message(p_decision @extschema@.count_decisions) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET DateStyle = 'ISO'
AS $$
DECLARE
    v_evidence jsonb := p_decision.evidence;
    v_what text := _connector_service.connector_service_count_name(p_decision.metric_type, p_decision.part);
    v_type text := CASE p_decision.part WHEN 'refunds' THEN 'refunds' ELSE p_decision.metric_type END;
    v_is text := CASE WHEN v_type IN ('costs', 'refunds') THEN 'are' ELSE 'is' END;
    v_own text := (SELECT format('"%s"', c.name) FROM @extschema@.connectors c WHERE c.connector_id = p_decision.connector_id);
    v_others text := (SELECT string_agg(format('"%s"', c.name), ' and ' ORDER BY array_position(p_decision.against, c.connector_id))
        FROM @extschema@.connectors c WHERE c.connector_id = ANY (p_decision.against));
    v_days text := format('from %s to %s', p_decision.compared_from, p_decision.compared_to);
    v_found text := format('%s of %s records of %s (%s %%, %s %% of the money) %s an equal amount%s in %s', v_evidence ->> 'matched', v_evidence ->> 'amounts',
        v_own, v_evidence ->> 'share', v_evidence ->> 'share_of_money', CASE v_evidence ->> 'matched' WHEN '1' THEN 'has' ELSE 'have' END, CASE WHEN v_evidence ? 'totals' THEN ', or are totals of days,' END, v_others);
    v_left text := (SELECT string_agg(format('%s %s', l.value, l.key), ', ' ORDER BY l.key) FROM jsonb_each_text(v_evidence -> 'left') AS l);
    v_call text := replace('SELECT @extschema@.connector_service_count(', '%', '%%') || format('''%%s'', ''%s'', %%s)', v_type);
    v_within uuid[];
    v_text text;
BEGIN
    IF p_decision.verdict = 'same' THEN
        v_text := format('%s of %s %s not counted%s: %s, %s, so each is counted once, from %s. ', v_what, v_own, v_is,
            coalesce(' from ' || p_decision.first_date, '') || coalesce(' until ' || p_decision.last_date, ''), v_found, v_days, v_others);
        IF v_evidence ? 'after' THEN
            v_text := v_text || format('The sum of all days of %s was %s and is %s %s. ', p_decision.metric_type, v_evidence ->> 'before', v_evidence ->> 'after',
                (SELECT t.currency FROM @extschema@.tenants t WHERE t.tenant_id = p_decision.tenant_id));
        END IF;
        IF v_left IS NOT NULL THEN
            v_text := v_text || format('%s records (%s) of these days are in %s alone and are not counted either. ',
                (v_evidence ->> 'amounts')::integer - (v_evidence ->> 'matched')::integer, v_left, v_own);
        END IF;
        IF p_decision.last_date IS NOT NULL THEN
            v_text := v_text || format('%s has nothing new since then, so later days of %s are counted. ', v_others, v_own);
        END IF;
        IF v_evidence ? 'stopped' THEN
            v_text := v_text || format('But %s has nothing new, while the others go on: what it sells since then is missing, although %s may have it. ',
                (SELECT string_agg(format('"%s"', c.name), ' and ') FROM @extschema@.connectors c WHERE c.connector_id::text IN (SELECT jsonb_array_elements_text(v_evidence -> 'stopped'))), v_own);
        END IF;
        RETURN v_text || format('To count %s as well: ' || v_call, v_own, p_decision.connector_id, 'true');
    ELSIF p_decision.verdict = 'too_early' THEN
        RETURN format('%s of %s and of %s %s counted, and may be the same: it is too early to compare (%s records against %s, on %s %s). It is compared again when more has come. If %s has what %s has: ' || v_call,
            v_what, v_own, v_others, v_is, v_evidence ->> 'amounts', v_evidence ->> 'others', v_evidence ->> 'days', CASE v_evidence ->> 'days' WHEN '1' THEN 'day' ELSE 'days' END,
            v_own, v_others, p_decision.connector_id, 'false');
    ELSIF p_decision.verdict = 'separate' THEN
        RETURN format('%s of %s and of %s %s counted, as different %s: %s%s, %s. If they are the same: ' || v_call,
            v_what, v_own, v_others, v_is, CASE v_type WHEN 'revenue' THEN 'sales' ELSE v_type END, CASE WHEN (v_evidence ->> 'by_chance')::numeric >= 5 THEN '' ELSE 'only ' END || v_found,
            CASE WHEN (v_evidence ->> 'by_chance')::numeric >= 5 THEN format(', as chance would have it (%s %%)', v_evidence ->> 'by_chance') ELSE '' END,
            v_days, p_decision.connector_id, 'false');
    END IF;
    -- Of the others, those that are in this one nearly completely: without them nothing is lost.
    v_within := ARRAY(SELECT s.key::uuid FROM jsonb_each_text(v_evidence -> 'others_share') AS s WHERE s.value::numeric >= 80 AND s.key::uuid = ANY (p_decision.against) ORDER BY s.key);
    v_text := format('%s of %s and of %s %s counted, some of it perhaps twice: ', v_what, v_own, v_others, v_is)
        || CASE v_evidence ->> 'reason'
            WHEN 'alike' THEN format('they have their records on the same days, but other amounts (%s, %s), as with tips or taxes on one side. ', v_found, v_days)
            WHEN 'currencies' THEN format('they have their records on the same days, but in other currencies, so their amounts cannot be compared (%s). ', v_days)
            WHEN 'equal_amounts' THEN format('%s, %s, but their amounts are so often equal that this may be chance (%s %% would be). ', v_found, v_days, v_evidence ->> 'by_chance')
            ELSE format('%s, %s. ', v_found, v_days) END;
    IF v_within <> '{}' THEN
        v_text := v_text || format('Nearly all of %s is in %s too. If it is the same, count %s alone: %s. ',
            (SELECT string_agg(format('"%s"', c.name), ' and ' ORDER BY c.connector_id) FROM @extschema@.connectors c WHERE c.connector_id = ANY (v_within)), v_own, v_own,
            (SELECT string_agg(format(v_call, w.id, 'false'), '; ') FROM unnest(v_within) AS w(id)));
    END IF;
    RETURN v_text || format('Please decide. If %s has nothing that %s has not: ' || v_call || '; if both count: ' || v_call,
        v_own, v_others, p_decision.connector_id, 'false', p_decision.connector_id, 'true');
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_count_message(@extschema@.count_decisions) IS 'A decision of the upkeep process in words, with the statements that change it.';

CREATE FUNCTION _connector_service.connector_service_count_alert(p_tenant_id uuid, p_metric_type text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    WITH said AS MATERIALIZED (
        SELECT d.*, format('double:%s:%s:%s:%s', d.metric_type, d.part, d.connector_id, d.verdict) AS alert_key,
            CASE WHEN d.verdict = 'unclear' OR d.evidence ? 'stopped' THEN 'warning' ELSE 'info' END AS severity,
            _connector_service.connector_service_count_message(d) AS message
        FROM @extschema@.count_decisions d WHERE d.tenant_id = p_tenant_id AND d.metric_type = p_metric_type AND d.decided_by = 'worker' AND d.verdict IS NOT NULL),
    known AS MATERIALIZED (
        SELECT a.* FROM @extschema@.data_quality_alerts a
        WHERE a.tenant_id = p_tenant_id AND a.alert_type = 'double_count' AND NOT a.resolved_by_data AND a.metric_type = p_metric_type
            AND a.alert_key LIKE 'double:%'),
    opened AS (
        INSERT INTO @extschema@.data_quality_alerts (tenant_id, connector_id, alert_type, severity, message, alert_key, metric_type)
        SELECT s.tenant_id, s.connector_id, 'double_count', s.severity, s.message, s.alert_key, s.metric_type
        FROM said s
        WHERE NOT EXISTS (SELECT FROM known k WHERE k.alert_key = s.alert_key AND k.last_seen_at > now() - interval '12 hours')),
    told AS (
        UPDATE @extschema@.data_quality_alerts a SET message = s.message, severity = s.severity
        FROM said s JOIN known k ON k.alert_key = s.alert_key AND k.last_seen_at > now() - interval '12 hours'
        WHERE a.alert_id = k.alert_id AND (a.message IS DISTINCT FROM s.message OR a.severity <> s.severity))
    UPDATE @extschema@.data_quality_alerts a SET resolved = true, resolved_by_data = true
    FROM known k
    WHERE a.alert_id = k.alert_id AND NOT EXISTS (SELECT FROM said s WHERE s.alert_key = k.alert_key);
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_count_alert(uuid, text) IS 'Opens one alert for each decision of the upkeep process, and closes those of decisions that are over.';

CREATE FUNCTION _connector_service.connector_service_decide(p_tenant_id uuid, p_metric_type text, p_found jsonb, p_asked uuid[]) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET DateStyle = 'ISO'
AS $$
DECLARE
    v_changed uuid[];
    v_before numeric;
    v_facts bigint;
BEGIN
    -- What a person decided meanwhile stays.
    WITH found AS MATERIALIZED (
        SELECT f.* FROM jsonb_to_recordset(p_found) AS f(connector_id uuid, part text, counts boolean, first_date date, last_date date, verdict text,
            against uuid[], evidence jsonb, compared_from date, compared_to date)
        WHERE EXISTS (SELECT FROM @extschema@.connectors c WHERE c.connector_id = f.connector_id AND c.tenant_id = p_tenant_id)),
    gone AS (
        DELETE FROM @extschema@.count_decisions d
        WHERE d.tenant_id = p_tenant_id AND d.metric_type = p_metric_type AND d.decided_by = 'worker'
            AND NOT EXISTS (SELECT FROM found f WHERE f.connector_id = d.connector_id AND f.part = d.part)
        RETURNING d.connector_id, d.counts),
    was AS MATERIALIZED (
        SELECT d.* FROM @extschema@.count_decisions d WHERE d.tenant_id = p_tenant_id AND d.metric_type = p_metric_type),
    changed AS (
        SELECT g.connector_id FROM gone g WHERE NOT g.counts
        UNION
        SELECT f.connector_id FROM found f LEFT JOIN was w ON w.connector_id = f.connector_id AND w.part = f.part
        WHERE coalesce(w.decided_by, 'worker') = 'worker'
            AND (f.counts IS DISTINCT FROM coalesce(w.counts, true) OR NOT f.counts AND (f.first_date, f.last_date) IS DISTINCT FROM (w.first_date, w.last_date))),
    written AS (
        INSERT INTO @extschema@.count_decisions AS d (tenant_id, connector_id, metric_type, part, counts, first_date, last_date, decided_by, verdict,
            against, evidence, compared_from, compared_to, decided_at, compared_at)
        SELECT p_tenant_id, f.connector_id, p_metric_type, f.part, f.counts, f.first_date, f.last_date, 'worker', f.verdict,
            coalesce(f.against, '{}'), f.evidence, f.compared_from, f.compared_to, now(), now()
        FROM found f
        ON CONFLICT (tenant_id, connector_id, metric_type, part) DO UPDATE
        SET counts = excluded.counts, first_date = excluded.first_date, last_date = excluded.last_date, verdict = excluded.verdict,
            against = excluded.against,
            -- What the last change of the sums was is told until the next one.
            evidence = CASE WHEN d.counts = excluded.counts THEN d.evidence - (SELECT array_agg(e.key) FROM jsonb_object_keys(d.evidence) AS e(key) WHERE e.key NOT IN ('before', 'after'))
                ELSE '{}' END || excluded.evidence,
            compared_from = excluded.compared_from, compared_to = excluded.compared_to, compared_at = now(),
            decided_at = CASE WHEN (d.counts, d.first_date, d.last_date, d.verdict) IS DISTINCT FROM (excluded.counts, excluded.first_date, excluded.last_date, excluded.verdict)
                THEN now() ELSE d.decided_at END
        WHERE d.decided_by = 'worker')
    SELECT array_agg(c.connector_id) INTO v_changed FROM changed c;

    IF v_changed IS NOT NULL THEN
        v_before := _connector_service.connector_service_count_sum(p_tenant_id, p_metric_type);
        v_facts := (SELECT sum(d.facts) FROM _connector_service.connector_service_count_days(p_tenant_id, p_metric_type) AS d);
        DELETE FROM @extschema@.metric_sources s USING @extschema@.count_decisions d
        WHERE s.tenant_id = p_tenant_id AND s.metric_type = p_metric_type AND d.tenant_id = s.tenant_id AND d.metric_type = s.metric_type
            AND d.connector_id = s.connector_id AND d.part <> 'refunds' AND NOT d.counts;
        -- So much is summed at once: nobody sees a part of the days changed. More days follow in steps.
        IF coalesce(v_facts, 0) <= 500000 THEN
            PERFORM _connector_service.connector_service_settle(NULL::integer, p_tenant_id);
        END IF;
        UPDATE @extschema@.count_decisions d SET evidence = d.evidence - 'after' || jsonb_build_object('before', v_before)
        WHERE d.tenant_id = p_tenant_id AND d.metric_type = p_metric_type AND d.connector_id = ANY (v_changed) AND d.decided_by = 'worker';
    END IF;
    IF NOT EXISTS (SELECT FROM @extschema@.metric_days_touched t WHERE t.tenant_id = p_tenant_id AND t.metric_type = p_metric_type) THEN
        UPDATE @extschema@.count_decisions d
        SET evidence = d.evidence || jsonb_build_object('after', _connector_service.connector_service_count_sum(p_tenant_id, p_metric_type))
        WHERE d.tenant_id = p_tenant_id AND d.metric_type = p_metric_type AND d.evidence ? 'before' AND NOT d.evidence ? 'after';
    END IF;
    DELETE FROM @extschema@.count_due c WHERE c.due_id = ANY (p_asked);
    -- The sums above asked for a comparison, and nothing is new.
    DELETE FROM @extschema@.count_due c WHERE c.tenant_id = p_tenant_id AND c.metric_type = p_metric_type AND NOT c.is_urgent AND c.xmin = pg_current_xact_id()::xid;
    PERFORM _connector_service.connector_service_count_alert(p_tenant_id, p_metric_type);
    RETURN v_changed IS NOT NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_decide(uuid, text, jsonb, uuid[]) IS 'Writes what the upkeep process found for a tenant''s metric type, one object for each decision; other decisions of the upkeep process end. Sums the days that change, and says so by alerts. Returns whether metrics changed. p_asked are the rows of count_due that asked for it. The caller holds the lock of the tenant''s facts.';

CREATE FUNCTION _connector_service.connector_service_count_by_person(p_connector_id uuid, p_metric_type text, p_counts boolean) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET DateStyle = 'ISO'
AS $$
DECLARE
    v_metric_type text := CASE p_metric_type WHEN 'refunds' THEN 'costs' ELSE p_metric_type END;
    v_parts text[] := CASE p_metric_type WHEN 'costs' THEN '{refunds,rest}' WHEN 'refunds' THEN '{refunds}' ELSE '{all}' END;
    v_connector @extschema@.connectors;
    -- All else is as good as counted with NULL.
    v_is_compared boolean := v_metric_type IN ('revenue', 'costs');
    v_before numeric;
    v_after numeric;
BEGIN
    SELECT c.* INTO v_connector FROM @extschema@.connectors c WHERE c.connector_id = p_connector_id;
    PERFORM _connector_service.connector_service_lock(v_connector.tenant_id);
    IF p_metric_type NOT IN ('costs', 'inventory', 'refunds', 'revenue', 'staffing') THEN
        DELETE FROM @extschema@.count_decisions d
        WHERE d.tenant_id = v_connector.tenant_id AND d.connector_id = p_connector_id AND d.metric_type = p_metric_type;
        INSERT INTO @extschema@.count_decisions (tenant_id, connector_id, metric_type, part, counts, decided_by)
        SELECT v_connector.tenant_id, p_connector_id, p_metric_type, 'all', p_counts, 'person' WHERE p_counts IS NOT NULL;
        PERFORM _connector_service.connector_service_settle(NULL::integer, v_connector.tenant_id);
        RAISE NOTICE '% of "%" is%', p_metric_type, v_connector.name, CASE WHEN p_counts IS FALSE THEN ' not counted' ELSE ' counted' END;
        RETURN;
    END IF;
    v_before := _connector_service.connector_service_count_sum(v_connector.tenant_id, v_metric_type);
    IF p_counts IS NULL AND NOT v_is_compared THEN
        DELETE FROM @extschema@.count_decisions d
        WHERE d.tenant_id = v_connector.tenant_id AND d.connector_id = p_connector_id AND d.metric_type = v_metric_type;
    ELSIF p_counts IS NULL THEN
        -- The number stays until the comparison.
        UPDATE @extschema@.count_decisions d SET decided_by = 'worker', decided_at = now()
        WHERE d.tenant_id = v_connector.tenant_id AND d.connector_id = p_connector_id AND d.metric_type = v_metric_type AND d.part = ANY (v_parts)
            AND d.decided_by = 'person';
    ELSE
        INSERT INTO @extschema@.count_decisions AS d (tenant_id, connector_id, metric_type, part, counts, decided_by)
        SELECT v_connector.tenant_id, p_connector_id, v_metric_type, part.name, p_counts, 'person' FROM unnest(v_parts) AS part(name)
        ON CONFLICT (tenant_id, connector_id, metric_type, part) DO UPDATE
        SET counts = excluded.counts, first_date = NULL, last_date = NULL, decided_by = 'person', verdict = NULL, decided_at = now();
        IF NOT p_counts THEN
            -- What did not count because of this connector counts again, until it is compared with what is left.
            DELETE FROM @extschema@.count_decisions d
            WHERE d.tenant_id = v_connector.tenant_id AND d.metric_type = v_metric_type AND d.part = ANY (v_parts) AND d.decided_by = 'worker' AND NOT d.counts
                AND p_connector_id = ANY (d.against) AND NOT EXISTS (
                    SELECT FROM unnest(d.against) AS other(id) JOIN @extschema@.connectors c ON c.connector_id = other.id
                    WHERE NOT EXISTS (SELECT FROM @extschema@.count_decisions o
                        WHERE o.tenant_id = d.tenant_id AND o.connector_id = other.id AND o.metric_type = d.metric_type AND o.part = d.part AND NOT o.counts));
            DELETE FROM @extschema@.metric_sources s
            WHERE s.tenant_id = v_connector.tenant_id AND s.metric_type = v_metric_type AND s.connector_id = p_connector_id AND v_parts <> '{refunds}';
        END IF;
    END IF;
    PERFORM _connector_service.connector_service_settle(NULL::integer, v_connector.tenant_id);
    PERFORM _connector_service.connector_service_count_alert(v_connector.tenant_id, v_metric_type);
    PERFORM _connector_service.connector_service_count_now(v_connector.tenant_id);
    PERFORM _connector_service.connector_service_wake();
    v_after := _connector_service.connector_service_count_sum(v_connector.tenant_id, v_metric_type);
    IF p_counts IS NULL AND v_is_compared THEN
        RAISE NOTICE '% of "%" is decided by comparison again, within a minute', p_metric_type, v_connector.name;
    ELSE
        RAISE NOTICE '% of "%" is%; the sum of all days of % was % and is %', p_metric_type, v_connector.name,
            CASE WHEN p_counts IS FALSE THEN ' not counted' ELSE ' counted' END, v_metric_type, v_before, v_after;
    END IF;
    IF NOT p_counts AND v_after = 0 AND v_before <> 0 THEN
        RAISE WARNING USING
            MESSAGE = format('no connector counts for %s any more', v_metric_type),
            HINT = format('SELECT %s.connector_service_count(''%s'', ''%s'', true);', '@extschema@', p_connector_id, p_metric_type);
    END IF;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_count_by_person(uuid, text, boolean) IS 'Does the work of connector_service_count().';

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
