-- connector: who is synced, from where, how often.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE TABLE @extschema@.tenants (
    tenant_id uuid CONSTRAINT tenants_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    name text CONSTRAINT tenants_name_is_bounded CHECK (pg_catalog.octet_length(name) <= 1024),
    timezone text NOT NULL DEFAULT 'UTC',
    currency text NOT NULL DEFAULT 'USD' CONSTRAINT tenants_currency_is_iso_code CHECK (currency ~ '^[A-Z]{3}$'),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    is_default boolean NOT NULL DEFAULT false,
    deleting_since timestamptz
);
CREATE UNIQUE INDEX tenants_one_default ON @extschema@.tenants (is_default) WHERE is_default;
COMMENT ON TABLE @extschema@.tenants IS 'One row for each tenant: a customer whose data is kept apart from everybody else''s. A row is added by itself when a connector or a metric names a new tenant_id.';
COMMENT ON CONSTRAINT tenants_name_is_bounded ON @extschema@.tenants IS 'The name is shown in lists, messages and labels.';
COMMENT ON COLUMN @extschema@.tenants.tenant_id IS 'Id of the tenant. Your application may choose it; the default is a random one.';
COMMENT ON COLUMN @extschema@.tenants.name IS 'Name for people. The extension does not interpret it. At most 1024 bytes.';
COMMENT ON COLUMN @extschema@.tenants.timezone IS 'Time zone of the tenant, a name of pg_timezone_names such as Europe/Berlin. It decides when a day begins and when a sync is due. A change derives all metrics of the tenant again.';
COMMENT ON COLUMN @extschema@.tenants.currency IS 'Currency that the tenant reports in, as an ISO 4217 code such as EUR. A change derives all metrics of the tenant again.';
COMMENT ON COLUMN @extschema@.tenants.created_at IS 'Time at which the row was added.';
COMMENT ON COLUMN @extschema@.tenants.is_default IS 'Whether this tenant is meant where a row names none. At most one tenant is. connector_service_default_tenant(tenant_id) sets it.';

CREATE FUNCTION _connector_service.connector_service_only_tenant() RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_tenants uuid[];
BEGIN
    FOR v_try IN 1 .. 3 LOOP
        v_tenants := ARRAY(SELECT t.tenant_id FROM @extschema@.tenants t WHERE t.is_default AND t.deleting_since IS NULL);
        IF v_tenants = '{}' THEN
            v_tenants := ARRAY(SELECT t.tenant_id FROM @extschema@.tenants t WHERE t.deleting_since IS NULL LIMIT 2);
        END IF;
        EXIT WHEN v_tenants <> '{}';
        UPDATE @extschema@.tenants SET is_default = false WHERE is_default AND deleting_since IS NOT NULL;
        -- Another session may do the same. Then its tenant is the default, once it has committed.
        INSERT INTO @extschema@.tenants (name, is_default) VALUES ('default', true) ON CONFLICT DO NOTHING;
    END LOOP;
    IF cardinality(v_tenants) > 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'not_null_violation',
            MESSAGE = 'tenant_id is missing: there are several tenants, and none of them is the default',
            HINT = format('Name the tenant_id, or choose a default: SELECT %s.connector_service_default_tenant(tenant_id) FROM %s.tenants WHERE name = ''...'';', '@extschema@', '@extschema@');
    END IF;
    RETURN v_tenants[1];
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_only_tenant() IS 'The default tenant, or else the only one. Makes a default tenant where there is none. Raises 23502 where there are several and no default.';

CREATE FUNCTION _connector_service.connector_service_own_tenant() RETURNS uuid LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Who sees all tenants has none of his own. While the extension is being created there is no role for administrators.
    IF EXISTS (SELECT FROM pg_roles r WHERE r.rolname = current_user AND (r.rolsuper OR r.rolbypassrls)) THEN
        RETURN NULL;
    END IF;
    IF pg_has_role('connector_service_admin', 'USAGE') THEN
        RETURN NULL;
    END IF;
    RETURN @extschema@.connector_service_tenant();
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_own_tenant() IS 'The tenant that the caller is bound to or acts for. NULL for a role that sees all tenants. Raises 42501 for a role without a tenant.';

CREATE FUNCTION @extschema@.connector_service_default_tenant() RETURNS uuid LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT coalesce(_connector_service.connector_service_own_tenant(), _connector_service.connector_service_only_tenant());
END;
COMMENT ON FUNCTION @extschema@.connector_service_default_tenant() IS 'Returns the tenant that is meant where a row of connectors or metrics names none: the caller''s own tenant; for a role that sees all tenants the default tenant, or else the only one. Where there is no tenant yet, one is made, named "default". Raises 23502 if there are several tenants and no default, 42501 for a role without a tenant.';

CREATE FUNCTION @extschema@.connector_service_default_tenant(p_tenant_id uuid) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE @extschema@.tenants SET is_default = false WHERE is_default AND tenant_id IS DISTINCT FROM p_tenant_id;
    IF p_tenant_id IS NOT NULL THEN
        UPDATE @extschema@.tenants SET is_default = true WHERE tenant_id = p_tenant_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_object',
                MESSAGE = format('tenant "%s" does not exist', p_tenant_id),
                HINT = 'Take a tenant_id from the table tenants, or NULL for no default.';
        END IF;
    END IF;
    RETURN p_tenant_id;
END
$$;
COMMENT ON FUNCTION @extschema@.connector_service_default_tenant(uuid) IS 'For administrators: makes tenant p_tenant_id the default, which is meant where a row of connectors or metrics names no tenant. NULL: there is no default any more. Raises 42704 for an unknown tenant.';
COMMENT ON COLUMN @extschema@.tenants.deleting_since IS 'Time at which connector_service_delete_tenant() was called for the tenant. The row goes when everything else of it is deleted. NULL: it stays.';

CREATE TABLE @extschema@.connectors (
    connector_id uuid CONSTRAINT connectors_pkey PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    tenant_id uuid NOT NULL DEFAULT @extschema@.connector_service_default_tenant() CONSTRAINT connectors_tenant_fkey REFERENCES @extschema@.tenants,
    name text NOT NULL,
    type text NOT NULL,
    credentials jsonb NOT NULL DEFAULT '{}' CONSTRAINT connectors_credentials_is_object CHECK (pg_catalog.jsonb_typeof(credentials) = 'object'),
    config jsonb NOT NULL DEFAULT '{}' CONSTRAINT connectors_config_is_object CHECK (pg_catalog.jsonb_typeof(config) = 'object'),
    sync_frequency text NOT NULL DEFAULT 'hourly',
    last_sync_at timestamptz,
    next_sync_at timestamptz,
    status text NOT NULL DEFAULT 'active',
    error_message text CONSTRAINT connectors_error_message_is_bounded CHECK (pg_catalog.octet_length(error_message) <= 16384),
    scheduler text NOT NULL DEFAULT 'database' CONSTRAINT connectors_scheduler_is_known CHECK (scheduler IN ('database', 'external')),
    failures integer NOT NULL DEFAULT 0 CONSTRAINT connectors_failures_not_negative CHECK (failures >= 0),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    due_at_once boolean NOT NULL DEFAULT false,
    name_key text,
    installation_id uuid,
    deleting_since timestamptz,
    CONSTRAINT connectors_id_tenant_key UNIQUE (connector_id, tenant_id),
    CONSTRAINT connectors_frequency_is_known CHECK (sync_frequency IN ('hourly', 'daily', 'weekly', 'manual')),
    CONSTRAINT connectors_status_is_known CHECK (status IN ('active', 'paused', 'error'))
) WITH (fillfactor = 80);
-- With the id of the connector: a foreign key is checked with a plan made when the table was small, and such a plan may take any
-- index that begins with one of the two columns. With the tenant alone it would read all connectors of the tenant for each row.
CREATE INDEX idx_connectors_tenant ON @extschema@.connectors (tenant_id, connector_id);
CREATE INDEX idx_connectors_next_sync ON @extschema@.connectors (next_sync_at) WHERE status = 'active';
CREATE INDEX idx_connectors_probe ON @extschema@.connectors (next_sync_at) WHERE status = 'error';
-- Connectors of an older version, or of a dump, may share a name: then this is NULL. With a condition, so that a new name locks the
-- row no more than other changes do: the records that arrive meanwhile refer to it.
CREATE UNIQUE INDEX connectors_name_is_unique_in_tenant ON @extschema@.connectors (name_key, tenant_id) WHERE name_key IS NOT NULL;
CREATE INDEX idx_connectors_shared_name ON @extschema@.connectors (tenant_id) WHERE name_key IS NULL;
-- Whether a row came from another installation is asked with every poll.
CREATE INDEX connectors_installation ON @extschema@.connectors (installation_id);
CREATE INDEX connectors_deleting ON @extschema@.connectors (deleting_since) WHERE deleting_since IS NOT NULL;
COMMENT ON TABLE @extschema@.connectors IS 'One row for each source that is synced. To insert a row is enough: an active connector is due at once, unless its frequency is manual.';
COMMENT ON CONSTRAINT connectors_error_message_is_bounded ON @extschema@.connectors IS 'The message is read whenever the connector is read.';
COMMENT ON COLUMN @extschema@.connectors.connector_id IS 'Id of the connector. It cannot be changed, because the credentials are sealed for this id.';
COMMENT ON COLUMN @extschema@.connectors.tenant_id IS 'Tenant that owns the connector and all data that comes from it. A tenant that is not known yet is added to tenants. Default: see connector_service_default_tenant().';
COMMENT ON COLUMN @extschema@.connectors.name IS 'Name, unique in the tenant: capital letters of ASCII and spaces at its ends make no difference. Functions that take a connector take its name. At most 1024 bytes.';
COMMENT ON COLUMN @extschema@.connectors.type IS 'Type of the source: api, csv, excel, erpnext, mysql, postgres, quickbooks, salesforce, shopify, square, stripe or webhook. See connector_service_catalog().';
COMMENT ON COLUMN @extschema@.connectors.credentials IS 'JSON object with what the source needs for a login; connector_service_catalog() lists the keys of each type. Write a field as plain JSON, or as {"$box": base64}, a box that was sealed for connector_service_seal_key(); one box may also hold the whole object. Every field is sealed before the row is stored, as {"$sealed": ...}, and no function returns it. To change one field, write credentials || ''{"field": ...}''. The templates of an api manifest see the fields as config.';
COMMENT ON COLUMN @extschema@.connectors.config IS 'JSON object with the settings of the source; connector_service_catalog() lists the keys of each type. "start_date" (ISO 8601) is where a first sync begins; the default is 30 days ago. For type api, "manifest" holds the declarative manifest, and its templates see the other keys as config. At most 1 MB, 20000 values and 64 levels.';
COMMENT ON COLUMN @extschema@.connectors.sync_frequency IS 'How often the connector is synced: hourly, daily, weekly or manual. The values on-demand and event-driven are stored as manual. So is every value for the types csv, excel and webhook, whose data is given to the connector.';
COMMENT ON COLUMN @extschema@.connectors.last_sync_at IS 'Start of the last run that succeeded in all of its streams. Everything that the source showed at that time is stored. NULL: no run has succeeded yet.';
COMMENT ON COLUMN @extschema@.connectors.next_sync_at IS 'Time at which the connector is due. A new, resumed or corrected connector is due at once, later the next full hour, day or week of the tenant''s time zone counts. After a failure it is the time of the next try. NULL: the connector is synced on demand only.';
COMMENT ON COLUMN @extschema@.connectors.status IS 'active; paused: a person stopped the connector, and nothing runs; error: a person must correct something, and until then the connector is tried every six hours. A run that succeeds turns error into active.';
COMMENT ON COLUMN @extschema@.connectors.error_message IS 'What went wrong last, and what to do about it. NULL after a success. At most 16384 bytes.';
COMMENT ON COLUMN @extschema@.connectors.scheduler IS 'Who asks for a sync when it is due, and again after a failure. database: pg_cron or the sync worker; the first sync, and the one after a correction or a pause, is the sync worker''s. external: another scheduler such as Airflow, by connector_service_sync().';
COMMENT ON COLUMN @extschema@.connectors.failures IS 'Number of failed runs since the last success, or since a person last corrected config or credentials.';
COMMENT ON COLUMN @extschema@.connectors.created_at IS 'Time at which the row was inserted. Rows that are older than their transaction look like a restored dump; see installation.';
COMMENT ON COLUMN @extschema@.connectors.updated_at IS 'Time at which a person last changed the row, or its credentials were sealed with another key. A sync does not change it.';
COMMENT ON COLUMN @extschema@.connectors.due_at_once IS 'Whether the connector is new, resumed or corrected, and has not been queued since. The sync worker then queues it, whatever connector_service.scheduler is. Written by a trigger.';
COMMENT ON COLUMN @extschema@.connectors.name_key IS 'What makes the name unique: the name in small letters, without spaces at its ends. NULL: another connector of the tenant has had the name since an older version, the name is longer than 1024 bytes, or the connector is being deleted. Written by a trigger.';

CREATE FUNCTION _connector_service.connector_service_restores() RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT EXISTS (
        SELECT FROM pg_roles r
        WHERE r.rolname = coalesce(nullif(current_setting('role'), 'none'), session_user)
            AND (r.rolbypassrls OR pg_has_role(r.oid, 'connector_service_admin', 'USAGE')));
END;
COMMENT ON FUNCTION _connector_service.connector_service_restores() IS 'Whether the session may restore a dump: its role sees all tenants.';

COMMENT ON COLUMN @extschema@.connectors.installation_id IS 'Installation that the row was inserted in; see installation. A row of another installation was restored or copied, so nothing is synced until connector_service_adopt().';
COMMENT ON COLUMN @extschema@.connectors.deleting_since IS 'Time at which connector_service_delete() was called for the connector. It is paused, and its rows are deleted in the background; this one goes last. NULL: it stays.';

CREATE FUNCTION _connector_service.connector_service_next_slot(p_frequency text, p_timezone text, p_after timestamptz)
RETURNS timestamptz LANGUAGE sql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE p_frequency
        -- Added as an absolute hour: a local hour is skipped or doubled when clocks change.
        WHEN 'hourly' THEN date_trunc('hour', p_after, p_timezone) + interval '1 hour'
        WHEN 'daily' THEN (date_trunc('day', p_after AT TIME ZONE p_timezone) + interval '1 day') AT TIME ZONE p_timezone
        WHEN 'weekly' THEN (date_trunc('week', p_after AT TIME ZONE p_timezone) + interval '1 week') AT TIME ZONE p_timezone
    END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_next_slot(text, text, timestamptz) IS 'The first full hour, day or week (from Monday) of a time zone after a time. NULL for manual.';

CREATE FUNCTION _connector_service.connector_service_tenants_before() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_timezone_names z WHERE z.name = NEW.timezone) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('time zone "%s" is not known', left(NEW.timezone, 100)),
            HINT = 'Use a name from pg_timezone_names, such as Europe/Berlin.';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_tenants_before() IS 'Trigger of tenants: refuses a time zone that PostgreSQL does not know.';
-- The default is not looked up: reading all zone files costs 100 ms, once for each tenant.
CREATE TRIGGER tenants_before_insert BEFORE INSERT ON @extschema@.tenants
    FOR EACH ROW WHEN (NEW.timezone <> 'UTC') EXECUTE FUNCTION _connector_service.connector_service_tenants_before();
CREATE TRIGGER tenants_before_update BEFORE UPDATE OF timezone ON @extschema@.tenants
    FOR EACH ROW WHEN (NEW.timezone <> OLD.timezone) EXECUTE FUNCTION _connector_service.connector_service_tenants_before();

CREATE FUNCTION _connector_service.connector_service_connectors_before() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    was_active boolean := false;
    is_given boolean := false;
    is_corrected boolean := false;
    v_is_within_bounds boolean;
    v_key text := lower(btrim(NEW.name, E' \t\n\r\f\v') COLLATE "C");
    v_taken_by uuid;
    v_context text;
    v_null text := CASE
        WHEN NEW.connector_id IS NULL THEN 'connector_id' WHEN NEW.tenant_id IS NULL THEN 'tenant_id' WHEN NEW.name IS NULL THEN 'name'
        WHEN NEW.type IS NULL THEN 'type' WHEN NEW.config IS NULL THEN 'config' WHEN NEW.credentials IS NULL THEN 'credentials'
        WHEN NEW.sync_frequency IS NULL THEN 'sync_frequency' WHEN NEW.status IS NULL THEN 'status' WHEN NEW.scheduler IS NULL THEN 'scheduler' END;
BEGIN
    IF v_null IS NOT NULL THEN
        -- Before the constraint of the column, whose message would show the row before its credentials are sealed.
        RAISE EXCEPTION USING ERRCODE = 'not_null_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = v_null,
            MESSAGE = format('%s of a connector is NULL', v_null),
            HINT = format('Give a value for %s, or leave the column out if it has a default.', v_null);
    END IF;
    -- Only a new name is checked: a row that already has a long name can still be updated.
    IF octet_length(NEW.name) > 1024 AND (TG_OP = 'INSERT' OR NEW.name IS DISTINCT FROM OLD.name) THEN
        RAISE EXCEPTION USING ERRCODE = 'string_data_right_truncation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = 'name',
            MESSAGE = format('the name of a connector has %s bytes; at most 1024 are allowed', octet_length(NEW.name)),
            HINT = 'Give it a shorter name.';
    END IF;
    IF TG_OP = 'INSERT' OR NEW.config IS DISTINCT FROM OLD.config THEN
        -- Assigned, and not selected, as below.
        v_is_within_bounds := _connector_service.connector_service_check_config(NEW.config);
    END IF;
    -- Whatever the locale of the database: in Turkish the small letter of I is another one.
    NEW.type := lower(btrim(NEW.type) COLLATE "C");
    NEW.status := lower(btrim(NEW.status) COLLATE "C");
    NEW.sync_frequency := lower(btrim(NEW.sync_frequency) COLLATE "C");
    NEW.scheduler := lower(btrim(NEW.scheduler) COLLATE "C");
    IF NEW.sync_frequency IN ('on-demand', 'on_demand', 'event-driven', 'event_driven') THEN
        NEW.sync_frequency := 'manual';
    END IF;
    -- These connectors ask nobody: files are uploaded to them, and webhooks are pushed.
    IF NEW.type IN ('csv', 'excel', 'webhook') AND NEW.sync_frequency IN ('hourly', 'daily', 'weekly') THEN
        NEW.sync_frequency := 'manual';
    END IF;
    IF NEW.sync_frequency NOT IN ('hourly', 'daily', 'weekly', 'manual') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('sync frequency "%s" is not known', left(NEW.sync_frequency, 100)),
            DETAIL = 'Known frequencies: daily, hourly, manual, weekly.',
            HINT = 'A manual connector is synced only on request.';
    END IF;
    IF NEW.status NOT IN ('active', 'paused', 'error') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('connector status "%s" is not known', left(NEW.status, 100)),
            DETAIL = 'Known statuses: active, error, paused.',
            HINT = 'Set it to paused to stop syncs, and to active to start them again.';
    END IF;
    IF NEW.scheduler NOT IN ('database', 'external') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('scheduler "%s" is not known', left(NEW.scheduler, 100)),
            DETAIL = 'Known schedulers: database, external.',
            HINT = 'Set it to external if another system, such as Airflow, starts the syncs.';
    END IF;

    IF TG_OP = 'INSERT' THEN
        -- Assigned, and not selected: a statement inside of a function may be logged with its parameters.
        NEW.credentials := _connector_service.connector_service_seal(NEW.tenant_id, NEW.connector_id, NEW.type, NEW.config, NEW.credentials, NULL, NULL);
        INSERT INTO @extschema@.tenants (tenant_id) VALUES (NEW.tenant_id) ON CONFLICT DO NOTHING;
        NEW.due_at_once := false;
        -- A restored row names the installation that it was dumped from.
        NEW.installation_id := coalesce(NEW.installation_id, (SELECT i.installation_id FROM @extschema@.installation i));
    ELSE
        IF NEW.connector_id <> OLD.connector_id THEN
            RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
                MESSAGE = format('connector_id of connector "%s" cannot be changed', OLD.connector_id),
                DETAIL = 'The credentials are sealed for this id.',
                HINT = 'Insert a new connector, with its credentials.';
        END IF;
        -- What a person gives is not sealed yet. A refresh token that a vendor replaced, and a secret under another key, are.
        -- No query, as above.
        is_given := CASE WHEN jsonb_typeof(NEW.credentials) = 'object' THEN
            jsonb_path_exists(NEW.credentials, '$.* ? (!exists(@."$sealed"))')
            OR NOT jsonb_path_query_array(NEW.credentials, '$.keyvalue().key') @> jsonb_path_query_array(OLD.credentials, '$.keyvalue().key') END;
        IF (NEW.tenant_id, NEW.type, NEW.config, NEW.credentials) IS DISTINCT FROM (OLD.tenant_id, OLD.type, OLD.config, OLD.credentials) THEN
            NEW.credentials := _connector_service.connector_service_seal(NEW.tenant_id, NEW.connector_id, NEW.type, NEW.config, NEW.credentials, OLD.tenant_id, OLD.credentials);
        END IF;
        was_active := OLD.status = 'active' AND OLD.sync_frequency <> 'manual';
        is_corrected := (OLD.status = 'error' OR OLD.failures > 0) AND NEW.status <> 'paused'
            AND (is_given OR (NEW.type, NEW.config) IS DISTINCT FROM (OLD.type, OLD.config));
        -- Only a change by a person counts as an update. What a sync writes about itself does not.
        IF (NEW.tenant_id, NEW.name, NEW.type, NEW.credentials, NEW.config, NEW.sync_frequency)
            IS DISTINCT FROM (OLD.tenant_id, OLD.name, OLD.type, OLD.credentials, OLD.config, OLD.sync_frequency) THEN
            NEW.updated_at := now();
        END IF;
        IF NEW.sync_frequency <> OLD.sync_frequency OR NEW.status <> OLD.status AND NEW.status = 'active' THEN
            IF NEW.next_sync_at IS NOT DISTINCT FROM OLD.next_sync_at THEN
                NEW.next_sync_at := NULL;
            END IF;
        END IF;
    END IF;

    IF NEW.scheduler <> 'database' OR NEW.status = 'paused' THEN
        NEW.due_at_once := false;
    ELSIF TG_OP = 'UPDATE' AND OLD.scheduler <> 'database' AND NEW.status = 'active' AND NEW.next_sync_at <= now() THEN
        NEW.due_at_once := true;
    END IF;
    IF is_corrected THEN
        IF NEW.next_sync_at IS NULL OR NEW.next_sync_at IS NOT DISTINCT FROM OLD.next_sync_at THEN
            NEW.next_sync_at := now();
        END IF;
        NEW.failures := 0;
        NEW.due_at_once := NEW.scheduler = 'database' AND NEW.next_sync_at <= now();
    END IF;
    IF NEW.status = 'active' AND NEW.sync_frequency <> 'manual' AND NEW.next_sync_at IS NULL THEN
        IF was_active THEN
            NEW.next_sync_at := _connector_service.connector_service_next_slot(
                NEW.sync_frequency, (SELECT t.timezone FROM @extschema@.tenants t WHERE t.tenant_id = NEW.tenant_id), now());
        ELSE
            NEW.next_sync_at := now();
            NEW.due_at_once := NEW.scheduler = 'database';
        END IF;
    ELSIF TG_OP = 'INSERT' AND NEW.status = 'active' AND NEW.sync_frequency <> 'manual' AND NEW.next_sync_at <= now() THEN
        NEW.due_at_once := NEW.scheduler = 'database';
    END IF;

    IF NEW.deleting_since IS NOT NULL THEN
        -- Its name is free again.
        NEW.name_key := NULL;
    ELSIF TG_OP = 'INSERT' OR NEW.name_key IS NULL OR (NEW.name, NEW.tenant_id) IS DISTINCT FROM (OLD.name, OLD.tenant_id) THEN
        NEW.name_key := CASE WHEN octet_length(v_key) <= 1024 THEN v_key END;
        SELECT c.connector_id INTO v_taken_by FROM @extschema@.connectors c
        WHERE c.name_key = v_key AND c.tenant_id = NEW.tenant_id AND c.connector_id <> NEW.connector_id;
        IF FOUND THEN
            IF TG_OP = 'UPDATE' AND (NEW.name, NEW.tenant_id) IS NOT DISTINCT FROM (OLD.name, OLD.tenant_id)
                OR TG_OP = 'INSERT' AND NEW.created_at < now() - interval '1 minute' AND _connector_service.connector_service_restores() THEN
                -- Two connectors that had one name before names were unique keep it.
                NEW.name_key := NULL;
            ELSE
                -- The index refuses it too, and is what ON CONFLICT asks. It gives no hint. It comes after row security, so nobody
                -- learns from it whether another tenant has the name.
                GET DIAGNOSTICS v_context = PG_CONTEXT;
                IF NOT _connector_service.connector_service_restores() AND NOT EXISTS (
                    SELECT FROM @extschema@.tenant_roles b JOIN pg_roles r ON r.rolname = b.role_name
                    WHERE b.tenant_id = NEW.tenant_id AND pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user)::name, r.oid, 'USAGE')) THEN
                    NULL;
                ELSIF TG_OP = 'UPDATE' OR v_context !~ E'\n' AND current_query() COLLATE "C" !~* '\mon\s+conflict\M' THEN
                    RAISE EXCEPTION USING ERRCODE = 'unique_violation', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = 'name',
                        CONSTRAINT = 'connectors_name_is_unique_in_tenant',
                        MESSAGE = format('the tenant already has a connector named "%s"', left(btrim(NEW.name), 200)),
                        DETAIL = format('It is connector %s.', v_taken_by),
                        HINT = format('Give this one another name, or change the one that is there: UPDATE %I.connectors SET ... WHERE connector_id = %L;', TG_TABLE_SCHEMA, v_taken_by);
                END IF;
            END IF;
        END IF;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_connectors_before() IS 'Trigger of connectors: checks type, status, frequency and config, seals the credentials, registers the tenant, keeps names apart, and makes a new, resumed or corrected connector due.';
-- Not for the columns that a run writes, thousands of times in an hour.
CREATE TRIGGER connectors_before BEFORE INSERT OR UPDATE OF connector_id, tenant_id, name, type, credentials, config, sync_frequency, status, scheduler
    ON @extschema@.connectors FOR EACH ROW EXECUTE FUNCTION _connector_service.connector_service_connectors_before();
CREATE TRIGGER connectors_before_due BEFORE UPDATE OF next_sync_at ON @extschema@.connectors
    FOR EACH ROW WHEN (NEW.next_sync_at IS NULL AND NEW.sync_frequency <> 'manual')
    EXECUTE FUNCTION _connector_service.connector_service_connectors_before();

-- Identifies the installation of this database. It is not dumped, so that a copy is not mistaken for its source.
CREATE TABLE @extschema@.installation (
    only_row boolean CONSTRAINT installation_pkey PRIMARY KEY DEFAULT true CONSTRAINT installation_has_one_row CHECK (only_row),
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    held_since timestamptz,
    held_because text,
    key_id text,
    installation_id uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);
COMMENT ON TABLE @extschema@.installation IS 'One row: the server and the database that this installation belongs to. While syncing is held, or the row names another server or database, nothing is fetched: a restored or cloned copy must not call the vendors of its source. See connector_service_adopt().';
COMMENT ON COLUMN @extschema@.installation.only_row IS 'Always true. It keeps the table at one row.';
COMMENT ON COLUMN @extschema@.installation.system_identifier IS 'System identifier of the server, from pg_control_system().';
COMMENT ON COLUMN @extschema@.installation.database_oid IS 'OID of the database, from pg_database.';
COMMENT ON COLUMN @extschema@.installation.held_since IS 'Time since which syncing is held. NULL: syncing is not held.';
COMMENT ON COLUMN @extschema@.installation.held_because IS 'Why syncing is held, in words.';
COMMENT ON COLUMN @extschema@.installation.key_id IS 'Id of the current key, as this database last saw the key file. A key file without this key is refused. NULL: no credential has been sealed yet.';
COMMENT ON COLUMN @extschema@.installation.installation_id IS 'Id of this installation. Connectors that are inserted here have it; connectors that are restored from a dump have another one.';
INSERT INTO @extschema@.installation (system_identifier, database_oid)
SELECT s.system_identifier, d.oid
FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();

CREATE FUNCTION _connector_service.connector_service_wake_after() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM _connector_service.connector_service_wake();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_wake_after() IS 'Trigger: wakes the sync worker at COMMIT.';
CREATE TRIGGER connectors_changed AFTER INSERT OR UPDATE OR DELETE ON @extschema@.connectors
    FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_wake_after();

CREATE FUNCTION _connector_service.connector_service_connectors_paused() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The worker ends running syncs itself: it may hold the lock of the run's row and wait for the connector's.
    UPDATE @extschema@.sync_runs SET state = 'cancelled', finished_at = clock_timestamp(), waiting_for = NULL, retry_at = NULL,
        error_code = 'cancelled', error_message = 'the connector was paused'
    WHERE connector_id = NEW.connector_id AND state = 'queued' AND kind = 'sync';
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_connectors_paused() IS 'Trigger of connectors: cancels the queued sync of a connector that is paused. The worker ends a sync that is running; a backfill goes on when the connector is resumed.';
CREATE TRIGGER connectors_paused AFTER UPDATE OF status ON @extschema@.connectors
    FOR EACH ROW WHEN (NEW.status = 'paused' AND OLD.status <> 'paused') EXECUTE FUNCTION _connector_service.connector_service_connectors_paused();

SELECT pg_catalog.pg_extension_config_dump('@extschema@.tenants', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.connectors', '');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
