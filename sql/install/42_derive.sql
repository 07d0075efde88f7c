-- derive: how the facts of records are written.
--
-- From raw to facts. The jsonpaths are read once for a call and not for each record; every path is evaluated
-- once for a record, and each stage carries on only what a later one needs: this runs for every record. OFFSET 0
-- keeps the stages apart, and a record one probe of the index, whatever the planner knows of a table that is
-- growing. The functions whose name ends in _tz are those that raise no error over time zones.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION _connector_service.connector_service_moment(p_text text, p_timezone text) RETURNS timestamptz LANGUAGE sql STABLE
SET DateStyle = 'ISO' SET TimeZone = 'UTC'
RETURN (SELECT CASE WHEN clock.text LIKE '%Z' THEN clock.text::timestamptz ELSE clock.text::timestamp AT TIME ZONE p_timezone END
    FROM (SELECT _connector_service.connector_service_clock(p_text) AS text) AS clock);
COMMENT ON FUNCTION _connector_service.connector_service_moment(text, text) IS 'The moment that a record''s date names; a time without an offset is of the time zone, and a day without a time is its beginning.';

CREATE FUNCTION _connector_service.connector_service_extract(p_connector_id uuid, p_raw_ids uuid[], p_first uuid DEFAULT NULL, p_last uuid DEFAULT NULL)
RETURNS TABLE (raw_id uuid, mapping_id integer, item integer, version integer, tenant_id uuid, connector_id uuid,
    metric_type text, metric_date date, category text, currency text, value numeric, distinct_value text, metric_time timestamptz,
    problem text, sample text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH mapping AS MATERIALIZED (
        SELECT m.mapping_id, m.version, m.stream, m.metric_type, m.negative, m.factor, m.unit, m.factor = 1 AND m.unit = 'major' AS is_plain,
            own.name IS NULL OR own.unit = 'money' AS is_money, own.aggregation,
            c.tenant_id, c.connector_id, t.timezone, t.currency AS home_currency,
            (pg_catalog.now() AT TIME ZONE t.timezone)::date AS today,
            m.items_path::jsonpath AS items_path, m.value_path::jsonpath AS value_path,
            m.until_path::jsonpath AS until_path, m.date_path::jsonpath AS date_path,
            m.category_path::jsonpath AS category_path, m.currency_path::jsonpath AS currency_path, m.filter::jsonpath AS filter,
            -- A path that can fail after it has found something must raise its error: otherwise only the part that was found would count.
            _connector_service.connector_service_bare_path(m.items_path) !~ E'^strict|\\.[a-z]+\\(|[-+]' AS is_items_silent,
            _connector_service.connector_service_bare_path(m.value_path) !~ E'^strict|\\.[a-z]+\\(|[-+]' AS is_value_silent,
            -- PostgreSQL calculates with numbers alone, and many vendors send amounts as text. A filter may compare texts.
            _connector_service.connector_service_bare_path(m.value_path) ~ E'[-+/%]| \\* ' AND _connector_service.connector_service_bare_path(m.value_path) !~ E'\\?' AS is_arithmetic
        FROM @extschema@.connectors c JOIN @extschema@.tenants t ON t.tenant_id = c.tenant_id,
            _connector_service.connector_service_mappings_of(p_connector_id) m
            LEFT JOIN @extschema@.measures own ON own.tenant_id = m.tenant_id AND own.name = m.metric_type
        WHERE c.connector_id = p_connector_id AND (own.name IS NOT NULL OR m.metric_type IN ('revenue', 'inventory', 'staffing', 'costs'))),
    record AS NOT MATERIALIZED (
        SELECT r.raw_id, r.stream, r.data
        FROM pg_catalog.unnest(p_raw_ids) AS wanted(raw_id)
            CROSS JOIN LATERAL (
                SELECT raw.raw_id, raw.connector_id, raw.stream, raw.data, raw.deleted
                FROM @extschema@.raw_connector_data raw WHERE raw.raw_id = wanted.raw_id OFFSET 0) AS r
        WHERE NOT r.deleted AND r.connector_id = p_connector_id
        UNION ALL
        SELECT r.raw_id, r.stream, r.data
        FROM (
            SELECT raw.raw_id, raw.connector_id, raw.stream, raw.data, raw.deleted
            FROM @extschema@.raw_connector_data raw WHERE raw.raw_id BETWEEN p_first AND p_last OFFSET 0) AS r
        WHERE NOT r.deleted AND r.connector_id = p_connector_id)
    SELECT judged.raw_id, judged.mapping_id, judged.item, judged.version, judged.tenant_id, judged.connector_id,
        CASE WHEN judged.is_refund THEN 'costs' ELSE judged.metric_type END,
        judged.day,
        CASE WHEN judged.is_refund THEN 'refunds' ELSE pg_catalog.left(judged.category #>> '{}', 200) END,
        judged.currency,
        CASE WHEN judged.is_refund THEN -judged.value ELSE judged.value END,
        CASE WHEN judged.aggregation = 'distinct_count' THEN CASE WHEN pg_catalog.octet_length(judged.found ->> 0) <= 256 THEN judged.found ->> 0
            ELSE 'sha256:' || pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(judged.found ->> 0, 'UTF8')), 'hex') END END,
        CASE WHEN judged.aggregation = 'last' AND NOT judged.is_refund
            THEN _connector_service.connector_service_moment(judged.date_text, judged.timezone) END,
        judged.problem,
        CASE
            WHEN judged.problem IS NULL THEN NULL
            WHEN judged.problem LIKE 'date%' THEN judged.date_text
            WHEN judged.problem LIKE 'currency%' THEN judged.currency
            WHEN judged.problem LIKE 'category%' THEN judged.category::text
            ELSE judged.found::text
        END
    FROM (
        SELECT read.raw_id, read.mapping_id, read.item, read.version, read.tenant_id, read.connector_id, read.metric_type,
            read.found, read.value, read.date_text, read.day, read.category, read.currency, read.aggregation, read.timezone,
            read.value < 0 AND read.negative = 'costs' AS is_refund,
            CASE
                WHEN read.passes = 'null' THEN 'filter_unknown'
                WHEN pg_catalog.jsonb_array_length(read.found) > 1 THEN 'value_ambiguous'
                WHEN read.value IS NULL THEN CASE
                    WHEN read.found IN ('[]', '[null]') THEN 'value_missing'
                    WHEN NOT read.is_span AND read.mapping_id >= 1000 AND _connector_service.connector_service_amount(read.found ->> 0) IS NOT NULL THEN 'value_in_other_currency'
                    ELSE 'value_unreadable' END
                WHEN pg_catalog.abs(read.value) >= 1e15 THEN 'value_out_of_range'
                WHEN read.value < 0 AND read.negative = 'reject' THEN 'negative_value'
                WHEN read.date_text IS NULL THEN 'date_missing'
                WHEN read.day IS NULL THEN 'date_unreadable'
                WHEN read.day > read.today THEN 'date_in_future'
                WHEN read.day < '1900-01-01' THEN 'date_out_of_range'
                WHEN pg_catalog.jsonb_typeof(read.category) IN ('object', 'array') THEN 'category_unreadable'
                WHEN read.currency IS NULL THEN 'currency_missing'
                WHEN read.currency <> read.home_currency AND read.is_money AND read.currency !~ '^[A-Z]{3}$' THEN 'currency_unreadable'
            END AS problem
        FROM (
            SELECT found.raw_id, found.mapping_id, found.item, found.version, found.tenant_id, found.connector_id, found.metric_type,
                found.passes, found.negative, found.home_currency, found.today, found.found, found.date_text, found.category, found.currency,
                found.is_money, found.aggregation, found.timezone, found.is_span,
                CASE WHEN found.aggregation = 'distinct_count' THEN CASE WHEN pg_catalog.jsonb_typeof(found.found -> 0) IN ('string', 'number', 'boolean') THEN 1 END
                    WHEN found.is_span THEN _connector_service.connector_service_hours(found.found ->> 0, found.until_text) * found.factor
                    WHEN found.is_plain THEN CASE WHEN found.mapping_id < 1000 THEN _connector_service.connector_service_decimal(found.found ->> 0)
                        ELSE _connector_service.connector_service_amount_in(found.found ->> 0, found.currency) END
                    ELSE CASE WHEN found.mapping_id < 1000 THEN _connector_service.connector_service_decimal(found.found ->> 0)
                        ELSE _connector_service.connector_service_amount_in(found.found ->> 0, found.currency) END * found.factor
                        * _connector_service.connector_service_scale(found.unit, found.currency) END AS value,
                _connector_service.connector_service_day(found.date_text, found.timezone) AS day
            FROM (
                SELECT part.raw_id, part.item, part.passes, part.mapping_id, part.version, part.tenant_id, part.connector_id, part.metric_type,
                    part.negative, part.factor, part.unit, part.is_plain, part.timezone, part.home_currency, part.today,
                    part.is_money, part.aggregation,
                    CASE WHEN part.is_arithmetic THEN pg_catalog.jsonb_path_query_array_tz(
                            _connector_service.connector_service_numbers(part.part::text)::jsonb, part.value_path,
                            _connector_service.connector_service_numbers(part.variables::text)::jsonb, part.is_value_silent)
                        ELSE pg_catalog.jsonb_path_query_array_tz(part.part, part.value_path, part.variables, part.is_value_silent) END AS found,
                    part.until_path IS NOT NULL AS is_span,
                    pg_catalog.jsonb_path_query_first_tz(part.part, part.until_path, part.variables, true) #>> '{}' AS until_text,
                    pg_catalog.jsonb_path_query_first_tz(part.part, part.date_path, part.variables, true) #>> '{}' AS date_text,
                    pg_catalog.jsonb_path_query_first_tz(part.part, part.category_path, part.variables, true) AS category,
                    CASE WHEN NOT part.is_money THEN ''
                        WHEN part.currency_path IS NULL THEN part.home_currency
                        ELSE pg_catalog.upper(pg_catalog.jsonb_path_query_first_tz(part.part, part.currency_path, part.variables, true) #>> '{}' COLLATE "C")
                    END AS currency
                FROM (
                    SELECT m.*, r.raw_id, 1 AS item, r.data AS part, '{}'::jsonb AS variables,
                        pg_catalog.jsonb_path_query_first_tz(r.data, m.filter, '{}', true) AS passes
                    FROM record r
                        -- In this order: the records are read once, however many mappings there are.
                        CROSS JOIN LATERAL (SELECT mapping.* FROM mapping WHERE mapping.stream = r.stream OFFSET 0) AS m
                    WHERE m.items_path IS NULL
                    UNION ALL
                    SELECT m.*, r.raw_id, items.item::integer, items.part, pg_catalog.jsonb_build_object('record', r.data),
                        pg_catalog.jsonb_path_query_first_tz(items.part, m.filter, pg_catalog.jsonb_build_object('record', r.data), true)
                    FROM record r
                        CROSS JOIN LATERAL (SELECT mapping.* FROM mapping WHERE mapping.stream = r.stream OFFSET 0) AS m
                        CROSS JOIN LATERAL pg_catalog.jsonb_path_query_tz(r.data, m.items_path, '{}', m.is_items_silent) WITH ORDINALITY AS items(part, item)
                    -- Evaluated once: where no mapping has parts, the records are not read a second time.
                    WHERE EXISTS (SELECT FROM mapping WHERE mapping.items_path IS NOT NULL)
                    OFFSET 0) AS part
                -- A predicate is true, false or unknown; a filter finds something or nothing.
                WHERE part.filter IS NULL OR part.passes <> 'false'
                OFFSET 0) AS found
            OFFSET 0) AS read
        OFFSET 0) AS judged;
END;
COMMENT ON FUNCTION _connector_service.connector_service_extract(uuid, uuid[], uuid, uuid) IS 'What the mappings find in records of a connector: those of p_raw_ids, and those from p_first to p_last. One row for each contribution. problem is the reason_code of one that cannot count, and sample is what was found; then nothing of this record and mapping counts.';

CREATE FUNCTION _connector_service.connector_service_problem(p_problem text, p_mapping jsonb, p_sample text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN pg_catalog.format(
    CASE p_problem
        WHEN 'filter_unknown' THEN 'the filter %s compares values of different kinds, or cannot be evaluated'
        WHEN 'value_missing' THEN 'there is no amount at %s'
        WHEN 'value_ambiguous' THEN '%s gives more than one amount: %s'
        WHEN 'value_unreadable' THEN 'the amount at %s is not a plain decimal number: %s'
        WHEN 'value_in_other_currency' THEN 'the amount at %s is written in another currency than that of the record: %s'
        WHEN 'value_out_of_range' THEN 'the amount at %s is 10^15 or more: %s'
        WHEN 'negative_value' THEN 'the amount at %s is negative: %s'
        WHEN 'date_missing' THEN 'there is no date at %s'
        WHEN 'date_unreadable' THEN 'the date at %s is neither ISO 8601 nor RFC 2822 nor a time in seconds or milliseconds since 1970: %s'
        WHEN 'date_in_future' THEN 'the date at %s is in the future: %s'
        WHEN 'date_out_of_range' THEN 'the date at %s is before 1900: %s'
        WHEN 'category_unreadable' THEN 'the category at %s is not a plain value: %s'
        WHEN 'currency_missing' THEN 'there is no currency at %s'
        WHEN 'currency_unreadable' THEN 'the currency at %s is not an ISO 4217 code: %s'
        ELSE 'a path of the mapping could not be evaluated: %2$s'
    END,
    p_mapping ->> CASE pg_catalog.split_part(p_problem, '_', 1)
        WHEN 'date' THEN 'date_path' WHEN 'category' THEN 'category_path' WHEN 'currency' THEN 'currency_path' WHEN 'filter' THEN 'filter' ELSE 'value_path' END,
    pg_catalog.left(p_sample, 100));
COMMENT ON FUNCTION _connector_service.connector_service_problem(text, jsonb, text) IS 'A problem of connector_service_extract() in words.';

CREATE FUNCTION _connector_service.connector_service_reject(p_connector_id uuid, p_run_id uuid, p_raw_ids uuid[], p_failure text DEFAULT NULL, p_problem text DEFAULT 'mapping_failed')
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    WITH bad AS MATERIALIZED (
        SELECT DISTINCT ON (x.raw_id) x.raw_id, x.mapping_id, x.version, x.problem, x.metric_date,
            _connector_service.connector_service_problem(x.problem, v.definition, x.sample) AS reason
        FROM _connector_service.connector_service_extract(p_connector_id, CASE WHEN p_failure IS NULL THEN p_raw_ids END) x
            JOIN @extschema@.metric_mapping_versions v ON v.mapping_id = x.mapping_id AND v.version = x.version
        WHERE x.problem IS NOT NULL
        ORDER BY x.raw_id, x.mapping_id, x.item),
    rejected AS MATERIALIZED (
        SELECT r.*, bad.mapping_id, bad.version, coalesce(bad.problem, p_problem) AS problem,
            coalesce(bad.reason, _connector_service.connector_service_problem('mapping_failed', NULL, p_failure)) AS reason,
            CASE WHEN bad.problem = 'date_in_future' THEN bad.metric_date END AS retry_on
        FROM unnest(p_raw_ids) AS wanted(raw_id)
            JOIN @extschema@.raw_connector_data r ON r.raw_id = wanted.raw_id
            LEFT JOIN bad ON bad.raw_id = r.raw_id
        WHERE bad.raw_id IS NOT NULL OR p_failure IS NOT NULL),
    kept AS (
        INSERT INTO @extschema@.quarantine AS q (run_id, connector_id, tenant_id, stream, source_record_id, reason_code, reason, raw,
            content_hash, raw_id, mapping_id, retry_on)
        SELECT p_run_id, r.connector_id, r.tenant_id, r.stream, r.source_record_id, r.problem, r.reason,
            substring(convert_to(r.data::text, 'UTF8') FROM 1 FOR 65536), uuid_send(r.raw_id), r.raw_id, r.mapping_id, r.retry_on
        FROM rejected r
        ON CONFLICT (connector_id, stream, content_hash) DO UPDATE
        SET run_id = coalesce(excluded.run_id, q.run_id), reason_code = excluded.reason_code, reason = excluded.reason, raw = excluded.raw,
            mapping_id = excluded.mapping_id, retry_on = excluded.retry_on, occurrences = q.occurrences + 1,
            last_seen_at = now(), replayed_at = NULL)
    INSERT INTO @extschema@.data_quality_alerts (tenant_id, connector_id, alert_type, severity, message, occurrences, alert_key)
    SELECT r.tenant_id, r.connector_id, 'schema_error', 'warning',
        format('stream "%s": %s (record %s%s); such records are stored, but do not count', r.stream,
            (array_agg(r.reason ORDER BY r.source_record_id))[1], min(r.source_record_id),
            coalesce(format(', mapping %s version %s', r.mapping_id, r.version), '')),
        count(*), format('schema:%s:%s:%s:%s', r.connector_id, r.problem, r.mapping_id, r.stream)
    FROM rejected r
    GROUP BY r.tenant_id, r.connector_id, r.stream, r.mapping_id, r.version, r.problem;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_reject(uuid, uuid, uuid[], text, text) IS 'Puts records that a mapping cannot read into quarantine, with an alert for each kind of problem. p_failure is the error that PostgreSQL raised, and p_problem its reason_code.';

CREATE FUNCTION _connector_service.connector_service_derive_batch(p_connector_id uuid, p_run_id uuid, p_raw_ids uuid[], p_fresh boolean) RETURNS bigint LANGUAGE plpgsql
-- JIT is off: to compile the statement takes longer than to run it, and the estimates of paths are far too high. The plan is
-- generic: to plan for every page takes longer than a page of a hundred records. Every record is looked up by its key: a
-- plan that was made while a table was empty would read all of it for each batch.
SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' SET jit = off SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    v_rejected uuid[];
BEGIN
    IF p_fresh THEN
        WITH extracted AS MATERIALIZED (
            -- The new records are neighbours in the index. To read them as a range is quicker than to look each one up.
            SELECT x.* FROM _connector_service.connector_service_extract(p_connector_id, NULL, p_raw_ids[1], p_raw_ids[cardinality(p_raw_ids)]) x),
        -- A record of which a part is wrong counts with no part: half an order is a wrong number.
        wrong AS MATERIALIZED (SELECT DISTINCT x.raw_id, x.mapping_id FROM extracted x WHERE x.problem IS NOT NULL),
        stored AS (
            INSERT INTO @extschema@.metric_facts (raw_id, mapping_id, item, version, tenant_id, connector_id, metric_type, metric_date, category, currency, value,
                distinct_value, metric_time)
            SELECT x.raw_id, x.mapping_id, x.item, x.version, x.tenant_id, x.connector_id, x.metric_type, x.metric_date, x.category, x.currency, x.value,
                x.distinct_value, x.metric_time
            FROM extracted x WHERE NOT EXISTS (SELECT FROM wrong w WHERE w.raw_id = x.raw_id AND w.mapping_id = x.mapping_id)),
        touched AS (
            INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
            SELECT day.* FROM (SELECT DISTINCT x.tenant_id, x.metric_type, x.metric_date FROM extracted x WHERE x.problem IS NULL) AS day
            -- Nobody else sums a day of this tenant meanwhile.
            WHERE NOT EXISTS (SELECT FROM @extschema@.metric_days_touched t
                WHERE t.tenant_id = day.tenant_id AND t.metric_type = day.metric_type AND t.metric_date = day.metric_date))
        SELECT array_agg(DISTINCT w.raw_id) INTO v_rejected FROM wrong w;
    ELSE
        -- Before anything is read: a session that changes one of these records from now on waits, and then has it processed again.
        UPDATE @extschema@.raw_connector_data SET processed = true WHERE raw_id = ANY (p_raw_ids) AND NOT processed;
        -- A record whose JSON was dropped cannot be read again: its facts stay, unless the source has deleted it.
        p_raw_ids := ARRAY(
            SELECT r.raw_id FROM unnest(p_raw_ids) AS wanted(raw_id)
                CROSS JOIN LATERAL (
                    SELECT raw.raw_id, raw.dropped_at, raw.deleted FROM @extschema@.raw_connector_data raw
                    WHERE raw.raw_id = wanted.raw_id OFFSET 0) AS r
            WHERE r.dropped_at IS NULL OR r.deleted);
        -- Facts that should not be there are deleted, missing facts are inserted, and the rest is not written.
        WITH extracted AS MATERIALIZED (SELECT x.* FROM _connector_service.connector_service_extract(p_connector_id, p_raw_ids) x),
        wrong AS MATERIALIZED (SELECT DISTINCT x.raw_id, x.mapping_id FROM extracted x WHERE x.problem IS NOT NULL),
        wanted AS MATERIALIZED (
            SELECT x.raw_id, x.mapping_id, x.item, x.version, x.tenant_id, x.connector_id, x.metric_type, x.metric_date, x.category, x.currency, x.value,
                x.distinct_value, x.metric_time
            FROM extracted x WHERE NOT EXISTS (SELECT FROM wrong w WHERE w.raw_id = x.raw_id AND w.mapping_id = x.mapping_id)),
        present AS MATERIALIZED (
            SELECT f.raw_id, f.mapping_id, f.item, f.version, f.tenant_id, f.connector_id, f.metric_type, f.metric_date, f.category, f.currency, f.value,
                f.distinct_value, f.metric_time
            FROM @extschema@.metric_facts f WHERE f.raw_id = ANY (p_raw_ids)),
        stale AS MATERIALIZED (SELECT * FROM present EXCEPT SELECT * FROM wanted),
        missing AS MATERIALIZED (SELECT * FROM wanted EXCEPT SELECT * FROM present),
        -- A key that is both is changed in place; the other stale ones are deleted, the other missing ones inserted.
        written AS (
            INSERT INTO @extschema@.metric_facts AS f (raw_id, mapping_id, item, version, tenant_id, connector_id, metric_type, metric_date, category, currency, value,
                distinct_value, metric_time)
            SELECT * FROM missing
            ON CONFLICT (raw_id, mapping_id, item) DO UPDATE
            SET version = excluded.version, tenant_id = excluded.tenant_id, connector_id = excluded.connector_id,
                metric_type = excluded.metric_type, metric_date = excluded.metric_date, category = excluded.category,
                currency = excluded.currency, value = excluded.value, distinct_value = excluded.distinct_value, metric_time = excluded.metric_time),
        gone AS (
            DELETE FROM @extschema@.metric_facts f USING (
                SELECT s.raw_id, s.mapping_id, s.item FROM stale s EXCEPT SELECT m.raw_id, m.mapping_id, m.item FROM missing m) AS old
            WHERE f.raw_id = old.raw_id AND f.mapping_id = old.mapping_id AND f.item = old.item),
        touched AS (
            INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
            SELECT day.* FROM (
                SELECT s.tenant_id, s.metric_type, s.metric_date FROM stale s
                UNION SELECT m.tenant_id, m.metric_type, m.metric_date FROM missing m) AS day
            WHERE NOT EXISTS (SELECT FROM @extschema@.metric_days_touched t
                WHERE t.tenant_id = day.tenant_id AND t.metric_type = day.metric_type AND t.metric_date = day.metric_date))
        SELECT array_agg(DISTINCT w.raw_id) INTO v_rejected FROM wrong w;

        UPDATE @extschema@.quarantine q SET replayed_at = now()
        WHERE q.raw_id = ANY (p_raw_ids) AND q.replayed_at IS NULL
            AND (q.raw_id <> ALL (coalesce(v_rejected, '{}'))
                OR NOT EXISTS (SELECT FROM @extschema@.raw_connector_data r WHERE r.raw_id = q.raw_id AND r.stream = q.stream AND r.connector_id = q.connector_id));
    END IF;
    IF v_rejected IS NOT NULL THEN
        PERFORM _connector_service.connector_service_reject(p_connector_id, p_run_id, v_rejected);
    END IF;
    IF NOT p_fresh THEN
        PERFORM _connector_service.connector_service_close_schema_alerts(p_connector_id);
    END IF;
    RETURN coalesce(cardinality(v_rejected), 0);
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_derive_batch(uuid, uuid, uuid[], boolean) IS 'Does the work of connector_service_derive(), and does not handle errors.';

CREATE FUNCTION _connector_service.connector_service_refuse(p_connector_id uuid, p_run_id uuid, p_raw_ids uuid[], p_failure text, p_problem text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    WITH gone AS (DELETE FROM @extschema@.metric_facts f WHERE f.raw_id = ANY (p_raw_ids) RETURNING tenant_id, metric_type, metric_date)
    INSERT INTO @extschema@.metric_days_touched (tenant_id, metric_type, metric_date)
    SELECT DISTINCT gone.tenant_id, gone.metric_type, gone.metric_date FROM gone;
    UPDATE @extschema@.raw_connector_data SET processed = true WHERE raw_id = ANY (p_raw_ids) AND NOT processed;
    PERFORM _connector_service.connector_service_reject(p_connector_id, p_run_id, p_raw_ids, p_failure, p_problem);
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_refuse(uuid, uuid, uuid[], text, text) IS 'Puts records into quarantine whose paths could not be evaluated or cost too much, and deletes their facts.';

CREATE FUNCTION _connector_service.connector_service_derive(p_connector_id uuid, p_run_id uuid, p_raw_ids uuid[], p_fresh boolean) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_middle integer := cardinality(p_raw_ids) / 2;
    v_unread bigint := 0;
BEGIN
    IF NOT p_fresh OR EXISTS (SELECT FROM _connector_service.connector_service_mappings_of(p_connector_id)) THEN
        v_unread := _connector_service.connector_service_derive_batch(p_connector_id, p_run_id, p_raw_ids, p_fresh);
    END IF;
    PERFORM _connector_service.connector_service_keep_out(p_connector_id, p_run_id, p_raw_ids);
    RETURN v_unread;
EXCEPTION WHEN data_exception OR program_limit_exceeded OR undefined_object OR feature_not_supported OR statement_too_complex THEN
    -- The batch is halved until the record is found that a path cannot be evaluated on. Only that record is rejected.
    IF v_middle > 0 THEN
        RETURN _connector_service.connector_service_derive(p_connector_id, p_run_id, p_raw_ids[:v_middle], p_fresh)
            + _connector_service.connector_service_derive(p_connector_id, p_run_id, p_raw_ids[v_middle + 1:], p_fresh);
    END IF;
    PERFORM _connector_service.connector_service_refuse(p_connector_id, p_run_id, p_raw_ids, SQLERRM, 'mapping_failed'::text);
    RETURN 1;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_derive(uuid, uuid, uuid[], boolean) IS 'Writes the facts of records of a connector, marks their days to be summed, and puts records that a mapping cannot read into quarantine; returns how many these are. p_fresh: the records were inserted in this transaction in the order of raw_id, with no other record of the connector between them. The caller holds the lock of the tenant''s facts.';

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
