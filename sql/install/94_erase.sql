-- erase: one person's records, wherever they are, and out of later syncs too.
--
-- The rows of the records stay, without their JSON: so a sync recognizes the record and keeps it out, and what was counted stays
-- explained by its day, mapping and amount. What a rule names is looked for where facts are derived, in that very transaction:
-- however a record comes, its JSON never outlives the step that counts it.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION _connector_service.connector_service_is_named(p_data jsonb, p_expression jsonpath) RETURNS boolean LANGUAGE sql IMMUTABLE
-- A predicate is true, false or unknown; a path with a filter finds something or nothing.
RETURN coalesce(pg_catalog.jsonb_path_query_first_tz(p_data, p_expression, '{}', true) NOT IN ('false'::jsonb, 'null'::jsonb), false);
COMMENT ON FUNCTION _connector_service.connector_service_is_named(jsonb, jsonpath) IS 'Whether an expression of an erasure is true for a record, or finds something in it.';

CREATE FUNCTION _connector_service.connector_service_literals(p_expression text) RETURNS text[] LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    -- In jsonpath's own spelling a key is ."name", a variable $"name", and any other quoted text is a literal.
    SELECT coalesce(array_agg(DISTINCT (word[2])::jsonb #>> '{}') FILTER (WHERE length((word[2])::jsonb #>> '{}') >= 4), '{}')
    FROM regexp_matches(p_expression::jsonpath::text, E'([.$])?("(?:\\\\.|[^"\\\\])*")', 'g') AS word WHERE word[1] IS NULL;
END;
COMMENT ON FUNCTION _connector_service.connector_service_literals(text) IS 'The texts of at least four characters that an expression compares with.';

CREATE FUNCTION _connector_service.connector_service_holds(p_text text, p_literals text[]) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN EXISTS (SELECT FROM pg_catalog.unnest(p_literals) AS l(word) WHERE pg_catalog.strpos(p_text, l.word) > 0);
COMMENT ON FUNCTION _connector_service.connector_service_holds(text, text[]) IS 'Whether a text has one of some words in it.';

CREATE FUNCTION _connector_service.connector_service_holds(p_bytes bytea, p_literals text[]) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN EXISTS (SELECT FROM pg_catalog.unnest(p_literals) AS l(word) WHERE pg_catalog.position(p_bytes, pg_catalog.convert_to(l.word, 'UTF8')) > 0);
COMMENT ON FUNCTION _connector_service.connector_service_holds(bytea, text[]) IS 'Whether bytes have one of some words in them, as UTF-8.';

CREATE FUNCTION _connector_service.connector_service_without(p_text text, p_literals text[]) RETURNS text LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_word text;
BEGIN
    FOREACH v_word IN ARRAY p_literals LOOP
        p_text := replace(p_text, v_word, '***');
    END LOOP;
    RETURN p_text;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_without(text, text[]) IS 'A text with *** in the place of some words.';

CREATE FUNCTION _connector_service.connector_service_read_text(p_raw bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN convert_from(p_raw, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded OR statement_too_complex THEN
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_read_text(bytea) IS 'The JSON of a quarantined record. NULL: it is none.';

CREATE FUNCTION _connector_service.connector_service_erase_rows(p_raw_ids uuid[], p_erasure_id bigint, p_facts text, p_literals text[]) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    WITH changed AS (
        DELETE FROM @extschema@.metric_facts f WHERE p_facts = 'delete' AND f.raw_id = ANY (p_raw_ids)
        RETURNING f.tenant_id, f.metric_type, f.metric_date),
    renamed AS (
        -- A category may be the name of a customer.
        UPDATE @extschema@.metric_facts f
        SET category = CASE WHEN NOT _connector_service.connector_service_holds(f.category, p_literals) THEN f.category END,
            -- And a text that is counted: the same hash for the same text, so that the count stays.
            distinct_value = CASE WHEN _connector_service.connector_service_holds(f.distinct_value, p_literals)
                THEN '#' || left(encode(sha256(convert_to(e.expression_hash::text || f.distinct_value, 'UTF8')), 'hex'), 32) ELSE f.distinct_value END
        FROM @extschema@.erasures e
        WHERE p_facts = 'keep' AND f.raw_id = ANY (p_raw_ids) AND e.erasure_id = p_erasure_id
            AND (_connector_service.connector_service_holds(f.category, p_literals) OR _connector_service.connector_service_holds(f.distinct_value, p_literals))
        RETURNING f.tenant_id, f.metric_type, f.metric_date)
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT c.tenant_id, c.metric_type, c.metric_date FROM changed c UNION SELECT r.tenant_id, r.metric_type, r.metric_date FROM renamed r;
    DELETE FROM @extschema@.quarantine q WHERE q.raw_id = ANY (p_raw_ids);
    RETURN _connector_service.connector_service_blank(p_raw_ids, p_erasure_id);
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_erase_rows(uuid[], bigint, text, text[]) IS 'Drops the JSON of stored records for good, with what the quarantine has of them, and with p_facts = delete their facts. The caller holds the lock of the tenant''s facts.';

CREATE FUNCTION _connector_service.connector_service_keep_out(p_connector_id uuid, p_run_id uuid, p_raw_ids uuid[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_tenant_id uuid;
    v_found record;
    v_count bigint;
BEGIN
    SELECT c.tenant_id INTO v_tenant_id FROM @extschema@.connectors c WHERE c.connector_id = p_connector_id;
    IF NOT EXISTS (SELECT FROM @extschema@.erasures e WHERE e.tenant_id = v_tenant_id) THEN
        RETURN;
    END IF;
    FOR v_found IN
        WITH rule AS MATERIALIZED (
            SELECT e.erasure_id, e.expression::jsonpath AS expression FROM @extschema@.erasures e
            WHERE e.tenant_id = v_tenant_id AND (e.connector_id IS NULL OR e.connector_id = p_connector_id)),
        named AS (
            SELECT r.raw_id, coalesce(r.erasure_id, (
                SELECT min(rule.erasure_id) FROM rule WHERE _connector_service.connector_service_is_named(r.data, rule.expression))) AS erasure_id
            FROM unnest(p_raw_ids) AS wanted(raw_id)
                CROSS JOIN LATERAL (
                    SELECT raw.raw_id, raw.data, raw.dropped_at, raw.erasure_id FROM @extschema@.raw_connector_data raw
                    WHERE raw.raw_id = wanted.raw_id OFFSET 0) AS r
            WHERE r.dropped_at IS NULL)
        SELECT e.erasure_id, e.facts, e.expression, array_agg(named.raw_id) AS raw_ids
        FROM named JOIN @extschema@.erasures e ON e.erasure_id = named.erasure_id
        GROUP BY e.erasure_id
    LOOP
        v_count := _connector_service.connector_service_erase_rows(v_found.raw_ids, v_found.erasure_id, v_found.facts,
            CASE WHEN v_found.expression IS NULL THEN '{}' ELSE _connector_service.connector_service_literals(v_found.expression) END);
        UPDATE @extschema@.erasures e SET kept_out = e.kept_out + v_count, kept_out_at = now() WHERE e.erasure_id = v_found.erasure_id;
        UPDATE @extschema@.sync_runs r SET erased = r.erased + v_count WHERE r.run_id = p_run_id;
    END LOOP;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_keep_out(uuid, uuid, uuid[]) IS 'Drops the JSON of those records again that an erasure names, after their facts were derived. The caller holds the lock of the tenant''s facts.';

CREATE FUNCTION _connector_service.connector_service_erase_records(p_expression text, p_tenant_id uuid, p_connector_id uuid, p_dry_run boolean, p_facts text, p_remember boolean)
RETURNS TABLE (connector_id uuid, stream text, item text, rows bigint) LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    v_expression jsonpath;
    v_literals text[];
    v_erasure_id bigint;
    v_found record;
    v_raw_ids uuid[];
    v_quarantine bigint[];
    v_uploads uuid[];
    v_total bigint := 0;
BEGIN
    IF p_facts IS NULL OR p_facts NOT IN ('keep', 'delete') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('p_facts = "%s" is not known', left(p_facts, 100)),
            DETAIL = 'Known values: delete, keep.',
            HINT = 'keep: the amounts of the records stay in the metrics. delete: they do not.';
    END IF;
    PERFORM _connector_service.connector_service_check_path('p_expression'::text, p_expression, '{}'::text[]);
    PERFORM _connector_service.connector_service_judge_paths(NULL::text, ARRAY[p_expression]);
    v_expression := p_expression::jsonpath;
    v_literals := _connector_service.connector_service_literals(p_expression);
    IF NOT p_dry_run THEN
        -- Before the records are looked at: what is stored meanwhile is counted after this transaction, and meets the rule.
        PERFORM _connector_service.connector_service_lock(p_tenant_id);
        IF p_remember AND (SELECT count(*) FROM @extschema@.erasures e WHERE e.tenant_id = p_tenant_id AND e.expression IS NOT NULL) >= 500 THEN
            RAISE EXCEPTION USING ERRCODE = 'configuration_limit_exceeded',
                MESSAGE = 'the tenant already has 500 erasures with an expression',
                DETAIL = 'Each record that comes is held against every expression.',
                HINT = 'Delete rows of erasures that are not needed any more, or erase with p_remember => false.';
        END IF;
        INSERT INTO @extschema@.erasures (tenant_id, connector_id, expression, expression_hash, facts)
        VALUES (p_tenant_id, p_connector_id, CASE WHEN p_remember THEN p_expression END, sha256(convert_to(p_expression, 'UTF8')), p_facts)
        RETURNING erasures.erasure_id INTO v_erasure_id;
    END IF;

    -- What could not be stored. Where a record is no JSON, its text is searched for the texts of the expression.
    FOR v_found IN
        SELECT q.connector_id, q.stream, count(*) AS records, array_agg(q.quarantine_id) AS ids
        FROM @extschema@.quarantine q CROSS JOIN LATERAL (SELECT _connector_service.connector_service_read_text(q.raw) AS data OFFSET 0) AS text
        WHERE q.tenant_id = p_tenant_id AND (p_connector_id IS NULL OR q.connector_id = p_connector_id)
            AND (_connector_service.connector_service_is_named(text.data, v_expression)
                OR _connector_service.connector_service_holds(q.raw, v_literals) OR _connector_service.connector_service_holds(q.reason, v_literals))
        GROUP BY 1, 2 ORDER BY 1, 2
    LOOP
        v_quarantine := v_quarantine || v_found.ids;
        RETURN QUERY SELECT v_found.connector_id, v_found.stream, 'quarantine'::text, v_found.records;
    END LOOP;

    FOR v_found IN
        SELECT r.connector_id, r.stream, count(*) AS records, array_agg(r.raw_id) AS raw_ids, array_agg(r.raw_id) FILTER (WHERE NOT r.processed) AS waiting
        FROM (
            SELECT raw.connector_id, raw.stream, raw.raw_id, raw.processed FROM @extschema@.raw_connector_data raw
            WHERE raw.tenant_id = p_tenant_id AND (p_connector_id IS NULL OR raw.connector_id = p_connector_id) AND raw.erasure_id IS NULL
                AND _connector_service.connector_service_is_named(raw.data, v_expression)
            -- One more is refused below.
            LIMIT 100001) AS r
        GROUP BY 1, 2 ORDER BY 1, 2
    LOOP
        v_total := v_total + v_found.records;
        IF v_total > 100000 THEN
            RAISE EXCEPTION USING ERRCODE = 'configuration_limit_exceeded',
                MESSAGE = 'the expression is true for more than 100000 records',
                HINT = 'These are hardly one person''s. Make the expression narrower, or delete the connector with connector_service_delete().';
        END IF;
        RETURN QUERY SELECT v_found.connector_id, v_found.stream, 'raw_connector_data'::text, v_found.records;
        RETURN QUERY SELECT v_found.connector_id, v_found.stream, CASE p_facts WHEN 'keep' THEN 'metric_facts that stay' ELSE 'metric_facts' END, count(*)
            FROM @extschema@.metric_facts f WHERE f.raw_id = ANY (v_found.raw_ids) HAVING count(*) > 0;
        IF NOT p_dry_run THEN
            -- What waits for its facts gets them first.
            IF v_found.waiting IS NOT NULL THEN
                PERFORM _connector_service.connector_service_derive(v_found.connector_id, NULL::uuid, v_found.waiting, false);
            END IF;
            PERFORM _connector_service.connector_service_erase_rows(v_found.raw_ids, v_erasure_id, p_facts, v_literals);
        END IF;
        v_raw_ids := v_raw_ids || v_found.raw_ids;
    END LOOP;

    -- Bytes of files that are not stored yet. What a run still reads is stored, and kept out then.
    SELECT array_agg(DISTINCT u.upload_id) INTO v_uploads
    FROM @extschema@.uploads u JOIN @extschema@.upload_parts p ON p.upload_id = u.upload_id
        LEFT JOIN @extschema@.sync_runs r ON r.run_id = u.run_id
    WHERE u.tenant_id = p_tenant_id AND (p_connector_id IS NULL OR u.connector_id = p_connector_id)
        AND coalesce(r.state, '') NOT IN ('queued', 'running') AND _connector_service.connector_service_holds(p.content, v_literals);
    RETURN QUERY SELECT u.connector_id, NULL::text, 'uploads'::text, count(*) FROM @extschema@.uploads u WHERE u.upload_id = ANY (v_uploads) GROUP BY 1 ORDER BY 1;

    -- Messages and traces quote what they met.
    RETURN QUERY SELECT q.connector_id, NULL::text, 'sync_requests'::text, count(*) FROM @extschema@.sync_requests q
        WHERE q.tenant_id = p_tenant_id AND (p_connector_id IS NULL OR q.connector_id = p_connector_id) AND _connector_service.connector_service_holds(q.address, v_literals)
        GROUP BY 1 ORDER BY 1;
    RETURN QUERY SELECT r.connector_id, NULL::text, 'sync_runs'::text, count(*) FROM @extschema@.sync_runs r
        WHERE r.tenant_id = p_tenant_id AND (p_connector_id IS NULL OR r.connector_id = p_connector_id)
            AND _connector_service.connector_service_holds(concat_ws(' ', r.report, r.error_message, array_to_string(r.warnings, ' ')), v_literals)
        GROUP BY 1 ORDER BY 1;
    RETURN QUERY SELECT a.connector_id, NULL::text, 'data_quality_alerts'::text, count(*) FROM @extschema@.data_quality_alerts a
        WHERE a.tenant_id = p_tenant_id AND (p_connector_id IS NULL OR a.connector_id = p_connector_id) AND _connector_service.connector_service_holds(a.message, v_literals)
        GROUP BY 1 ORDER BY 1;
    IF p_dry_run THEN
        RETURN;
    END IF;
    DELETE FROM @extschema@.quarantine q WHERE q.quarantine_id = ANY (v_quarantine);
    DELETE FROM @extschema@.uploads u WHERE u.upload_id = ANY (v_uploads);
    UPDATE @extschema@.sync_requests q SET address = _connector_service.connector_service_without(q.address, v_literals)
    WHERE q.tenant_id = p_tenant_id AND (p_connector_id IS NULL OR q.connector_id = p_connector_id) AND _connector_service.connector_service_holds(q.address, v_literals);
    UPDATE @extschema@.sync_runs r
    SET report = CASE WHEN NOT _connector_service.connector_service_holds(r.report::text, v_literals) THEN r.report END,
        error_message = _connector_service.connector_service_without(r.error_message, v_literals),
        warnings = ARRAY(SELECT _connector_service.connector_service_without(w.warning, v_literals) FROM unnest(r.warnings) AS w(warning))
    WHERE r.tenant_id = p_tenant_id AND (p_connector_id IS NULL OR r.connector_id = p_connector_id)
        AND _connector_service.connector_service_holds(concat_ws(' ', r.report, r.error_message, array_to_string(r.warnings, ' ')), v_literals);
    UPDATE @extschema@.data_quality_alerts a SET message = _connector_service.connector_service_without(a.message, v_literals)
    WHERE a.tenant_id = p_tenant_id AND (p_connector_id IS NULL OR a.connector_id = p_connector_id) AND _connector_service.connector_service_holds(a.message, v_literals);
    UPDATE @extschema@.erasures e SET records = v_total, kept_out = 0, kept_out_at = NULL WHERE e.erasure_id = v_erasure_id;
    PERFORM _connector_service.connector_service_settle(NULL::integer, p_tenant_id);
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_erase_records(text, uuid, uuid, boolean, text, boolean) IS 'Does the work of connector_service_erase().';

COMMENT ON FUNCTION @extschema@.connector_service_erase(text, uuid, uuid, boolean, text, boolean) IS 'Tells what of one person is stored: the number of records, by connector and stream, for which jsonpath p_expression is true or finds something, such as $.customer.email == "a@example.com", and of quarantined records, waiting files, requests, messages and alerts that hold what it compares with. p_connector_id: only of this connector. With p_dry_run => false it erases them: the JSON of the records is dropped, and the rest deleted or blotted out. Their amounts stay in the metrics, unless p_facts is delete. Later syncs keep such records out (a row of erasures says how); with p_remember => false only those that were erased, and the expression is not stored. Raises 22023 for what is no jsonpath, 42704 for a tenant or connector that is unknown or another one''s, 53400 for more than 100000 records, 42501 for a caller who may not delete records.';

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
