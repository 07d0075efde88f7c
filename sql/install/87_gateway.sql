-- gateway: who may ask it, and pages of what is read there.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.gateway_tokens (
    token_id uuid CONSTRAINT gateway_tokens_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    name text NOT NULL CONSTRAINT gateway_tokens_name_is_bounded CHECK (pg_catalog.octet_length(name) <= 1024),
    tenant_id uuid CONSTRAINT gateway_tokens_tenant_fkey REFERENCES @extschema@.tenants ON DELETE CASCADE,
    scope text NOT NULL DEFAULT 'read' CONSTRAINT gateway_tokens_scope_is_known CHECK (scope IN ('read', 'app')),
    token_hash bytea NOT NULL CONSTRAINT gateway_tokens_hash_is_whole CHECK (pg_catalog.octet_length(token_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    expires_at timestamptz,
    last_used_at timestamptz,
    CONSTRAINT gateway_tokens_hash_key UNIQUE (token_hash)
);
CREATE INDEX gateway_tokens_tenant ON @extschema@.gateway_tokens (tenant_id);
COMMENT ON TABLE @extschema@.gateway_tokens IS 'Who may ask the gateway. Only the hash of a token is kept; connector_service_create_token() shows the token once. To take a right back, delete the row.';
COMMENT ON CONSTRAINT gateway_tokens_name_is_bounded ON @extschema@.gateway_tokens IS 'It stands in lists and messages.';
COMMENT ON COLUMN @extschema@.gateway_tokens.name IS 'For people: who has it.';
COMMENT ON COLUMN @extschema@.gateway_tokens.tenant_id IS 'Whose rows it opens; NULL: every tenant''s.';
COMMENT ON COLUMN @extschema@.gateway_tokens.scope IS 'read: metrics; app: also syncs and uploads.';
COMMENT ON COLUMN @extschema@.gateway_tokens.token_hash IS 'SHA-256 of the token, which has 244 random bits.';
COMMENT ON COLUMN @extschema@.gateway_tokens.expires_at IS 'From when on it opens nothing; NULL: never.';
COMMENT ON COLUMN @extschema@.gateway_tokens.last_used_at IS 'When it was used, to within an hour.';

CREATE FUNCTION @extschema@.connector_service_create_token(p_name text, p_tenant_id uuid, p_scope text DEFAULT 'read', p_valid_for interval DEFAULT NULL)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_hash bytea;
    v_token text := 'cs_' || translate(encode(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), 'base64'), '+/=', '-_');
BEGIN
    -- Before the constraints, whose messages would show the row.
    IF p_name IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'p_name is NULL',
            HINT = 'Say who has the token, so that it can be taken back.';
    ELSIF octet_length(p_name) > 1024 THEN
        RAISE EXCEPTION USING ERRCODE = 'string_data_right_truncation',
            MESSAGE = format('the name of a token has %s bytes, where 1024 are allowed', octet_length(p_name)),
            HINT = 'Give it a shorter name.';
    END IF;
    IF p_scope IS NULL OR p_scope NOT IN ('read', 'app') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('scope "%s" is not known', left(p_scope, 100)),
            DETAIL = 'Known scopes: app, read.',
            HINT = 'read opens metrics; app opens syncs and uploads as well.';
    END IF;
    IF p_tenant_id IS NOT NULL AND NOT EXISTS (SELECT FROM @extschema@.tenants t WHERE t.tenant_id = p_tenant_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('tenant "%s" does not exist', p_tenant_id),
            HINT = 'See the table tenants; NULL is for every tenant.';
    END IF;
    -- By itself: what logs the parameters of statements does not see the token.
    v_hash := sha256(convert_to(v_token, 'UTF8'));
    INSERT INTO @extschema@.gateway_tokens (name, tenant_id, scope, token_hash, expires_at)
    VALUES (p_name, p_tenant_id, p_scope, v_hash, now() + p_valid_for);
    RETURN v_token;
END
$$;
COMMENT ON FUNCTION @extschema@.connector_service_create_token(text, uuid, text, interval) IS 'Makes a bearer token for the gateway and returns it: the only time that it can be seen. p_name says who has it; p_tenant_id whose rows it opens, NULL every tenant''s; p_scope is read (metrics) or app (also syncs and uploads); p_valid_for NULL: for ever. Raises 22001, 22004, 22023 or 42704.';

CREATE FUNCTION @extschema@.connector_service_metrics_page(p_tenant_id uuid, p_metric_type text, p_start_date date, p_end_date date,
    p_after_date date, p_after_type text, p_limit integer) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM @extschema@.connector_service_check_period(p_tenant_id, p_metric_type, p_start_date, p_end_date);
    RETURN (
        WITH found AS MATERIALIZED (
            SELECT m.*, row_number() OVER (ORDER BY m.metric_date, m.metric_type) AS place FROM @extschema@.metrics m
            WHERE m.tenant_id = p_tenant_id AND m.metric_date BETWEEN greatest(p_start_date, p_after_date) AND p_end_date
                AND m.metric_type = ANY (CASE WHEN p_metric_type IS NULL THEN '{revenue,inventory,staffing,costs}' ELSE ARRAY[p_metric_type] END)
                AND (p_after_date IS NULL OR (m.metric_date, m.metric_type) > (p_after_date, p_after_type))
            ORDER BY m.metric_date, m.metric_type LIMIT p_limit + 1)
        SELECT jsonb_build_object(
                'metrics', coalesce(jsonb_agg(jsonb_build_object(
                    'metric_id', f.metric_id, 'metric_type', f.metric_type, 'metric_value', f.metric_value, 'metric_date', f.metric_date, 'data', f.data)
                    ORDER BY f.place) FILTER (WHERE f.place <= p_limit), '[]'),
                'count', count(*) FILTER (WHERE f.place <= p_limit),
                'period', jsonb_build_object('start', p_start_date, 'end', p_end_date))
            || CASE WHEN count(*) > p_limit THEN jsonb_build_object('next', max(f.metric_date || ',' || f.metric_type) FILTER (WHERE f.place = p_limit)) ELSE '{}' END
        FROM found f);
END
$$;
COMMENT ON FUNCTION @extschema@.connector_service_metrics_page(uuid, text, date, date, date, text, integer) IS 'What get_metrics() returns, p_limit metrics at a time: those behind the metric of p_after_date and p_after_type (NULL: from the start). "next" is there while there are more, and names the last one: its day, a comma, its type. Raises 22004 or 22023.';

CREATE FUNCTION @extschema@.connector_service_overview(p_tenant_id uuid) RETURNS jsonb LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT jsonb_build_object(
        'now', now(),
        'connectors', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'connector_id', h.connector_id, 'name', h.name, 'type', h.type, 'sync_frequency', h.sync_frequency, 'health', h.health, 'status', h.status,
                'error_message', h.error_message, 'last_sync_at', h.last_sync_at, 'lag_seconds', floor(extract(epoch FROM h.lag)), 'next_sync_at', h.next_sync_at,
                'active_run_id', h.active_run_id, 'active_pages', h.active_pages, 'active_received', h.active_received, 'waiting_for', h.waiting_for,
                'backfill_windows_left', h.backfill_windows_left, 'unprocessed', h.unprocessed, 'quarantined', h.quarantined, 'open_alerts', h.open_alerts)
                ORDER BY h.name, h.connector_id), '[]')
            FROM (
                SELECT o.* FROM @extschema@.connector_health o WHERE o.tenant_id = p_tenant_id
                ORDER BY o.health NOT IN ('error', 'failing', 'late'), o.name, o.connector_id LIMIT 1000) AS h),
        'runs', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'run_id', r.run_id, 'connector_id', r.connector_id, 'kind', r.kind, 'state', r.state, 'requested_by', r.requested_by, 'requested_at', r.requested_at,
                'started_at', r.started_at, 'finished_at', r.finished_at, 'pages', r.pages, 'received', r.received, 'inserted', r.inserted, 'updated', r.updated,
                'unchanged', r.unchanged, 'quarantined', r.quarantined, 'deleted', r.deleted, 'error_code', r.error_code, 'error_message', r.error_message,
                'hint', @extschema@.connector_service_hint(r.error_code)) ORDER BY r.requested_at DESC, r.run_id), '[]')
            FROM (SELECT o.* FROM @extschema@.sync_runs o WHERE o.tenant_id = p_tenant_id ORDER BY o.requested_at DESC, o.run_id LIMIT 50) AS r),
        'alerts', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'alert_id', a.alert_id, 'connector_id', a.connector_id, 'alert_type', a.alert_type, 'severity', a.severity, 'message', a.message,
                'occurrences', a.occurrences, 'created_at', a.created_at, 'last_seen_at', a.last_seen_at) ORDER BY a.place), '[]')
            FROM (
                SELECT o.*, row_number() OVER (ORDER BY array_position('{critical,warning,info}'::text[], o.severity), o.last_seen_at DESC, o.alert_id) AS place
                FROM @extschema@.data_quality_alerts o WHERE o.tenant_id = p_tenant_id AND NOT o.resolved ORDER BY place LIMIT 100) AS a),
        'quarantine', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'connector_id', q.connector_id, 'stream', q.stream, 'reason_code', q.reason_code, 'reason', q.reason, 'records', q.records, 'last_seen_at', q.last_seen_at)
                ORDER BY q.last_seen_at DESC), '[]')
            FROM (
                SELECT o.connector_id, o.stream, o.reason_code, (array_agg(o.reason ORDER BY o.last_seen_at DESC))[1] AS reason, count(*) AS records, max(o.last_seen_at) AS last_seen_at
                FROM @extschema@.quarantine o JOIN @extschema@.connectors c ON c.connector_id = o.connector_id
                WHERE c.tenant_id = p_tenant_id AND o.replayed_at IS NULL GROUP BY o.connector_id, o.stream, o.reason_code
                ORDER BY max(o.last_seen_at) DESC LIMIT 100) AS q));
END;
COMMENT ON FUNCTION @extschema@.connector_service_overview(uuid) IS 'How it goes for a tenant, for a page: {"now", "connectors": as connector_health has them, by name, those in trouble and others up to 1000, "runs": the latest 50, newest first, "alerts": up to 100 open ones, worst first, "quarantine": up to 100 groups of records by connector, stream and reason}. What the caller may not see is not in it.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.gateway_tokens', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
