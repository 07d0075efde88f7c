-- gateway: the tokens that give access to it.
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
COMMENT ON TABLE @extschema@.gateway_tokens IS 'Who may ask the gateway. Only the hash of a token is kept; connector_service_create_token() shows the token once. To revoke a token, delete its row.';
COMMENT ON CONSTRAINT gateway_tokens_name_is_bounded ON @extschema@.gateway_tokens IS 'The name is shown in lists and messages.';
COMMENT ON COLUMN @extschema@.gateway_tokens.token_id IS 'Id of the token.';
COMMENT ON COLUMN @extschema@.gateway_tokens.name IS 'Name of whoever has the token, for people. At most 1024 bytes.';
COMMENT ON COLUMN @extschema@.gateway_tokens.tenant_id IS 'Tenant whose rows the token opens. NULL: the rows of all tenants.';
COMMENT ON COLUMN @extschema@.gateway_tokens.scope IS 'read: metrics, and how connectors and runs are. app: also syncs, uploads, alerts and replays.';
COMMENT ON COLUMN @extschema@.gateway_tokens.token_hash IS 'SHA-256 hash of the token, which has 244 random bits.';
COMMENT ON COLUMN @extschema@.gateway_tokens.created_at IS 'Time at which the token was created.';
COMMENT ON COLUMN @extschema@.gateway_tokens.expires_at IS 'Time from which the token opens nothing. NULL: it does not expire.';
COMMENT ON COLUMN @extschema@.gateway_tokens.last_used_at IS 'Time at which the token was last used, to within an hour. NULL: never.';

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
            HINT = 'Say who uses the token, so that it can be revoked.';
    ELSIF octet_length(p_name) > 1024 THEN
        RAISE EXCEPTION USING ERRCODE = 'string_data_right_truncation',
            MESSAGE = format('the name of a token has %s bytes; at most 1024 are allowed', octet_length(p_name)),
            HINT = 'Give it a shorter name.';
    END IF;
    IF p_scope IS NULL OR p_scope NOT IN ('read', 'app') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('scope "%s" is not known', left(p_scope, 100)),
            DETAIL = 'Known scopes: app, read.',
            HINT = 'A token with scope read can read metrics. A token with scope app can also start syncs and upload files.';
    END IF;
    IF p_tenant_id IS NOT NULL AND NOT EXISTS (SELECT FROM @extschema@.tenants t WHERE t.tenant_id = p_tenant_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('tenant "%s" does not exist', p_tenant_id),
            HINT = 'Take a tenant_id from the table tenants, or NULL for all tenants.';
    END IF;
    -- In a statement of its own, so that the token is in no parameter that may be logged.
    v_hash := sha256(convert_to(v_token, 'UTF8'));
    INSERT INTO @extschema@.gateway_tokens (name, tenant_id, scope, token_hash, expires_at)
    VALUES (p_name, p_tenant_id, p_scope, v_hash, now() + p_valid_for);
    RETURN v_token;
END
$$;
COMMENT ON FUNCTION @extschema@.connector_service_create_token(text, uuid, text, interval) IS 'Creates a bearer token for the gateway and returns it. This is the only time that it can be seen. p_name tells who has it. p_tenant_id is the tenant whose rows it opens (NULL: all tenants). p_scope is read, or app for syncs, uploads, alerts and replays as well. p_valid_for is how long it is valid (NULL: until it is deleted). Raises 22001 for a name above 1024 bytes, 22004 without a name, 22023 for another scope, 42704 for an unknown tenant.';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.gateway_tokens', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
