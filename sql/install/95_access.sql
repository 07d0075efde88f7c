-- access: who may do what. Nothing is for PUBLIC but what is named here.
--
-- Four roles, the same in every database of a server. People and applications are made members of the first three:
--   connector_service_admin   administers: every tenant, the queue, keys, global rules
--   connector_service_app     an application: the rows of the tenant that it says it acts for
--   connector_service_tenant  one tenant: its own rows
--   connector_service_engine  nobody's: owns the tables, and is who the worker and the triggers act as
-- Superusers, and roles with BYPASSRLS, see everything.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

DO $roles$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY '{connector_service_admin,connector_service_app,connector_service_tenant,connector_service_engine}'::text[] LOOP
        -- Another database of this server may have made it already.
        IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = v_role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
            IF v_role = 'connector_service_engine' THEN
                -- Its functions see all tenants, also while a dump is restored, which turns row security off.
                EXECUTE format('ALTER ROLE %I BYPASSRLS', v_role);
            END IF;
        ELSIF EXISTS (SELECT FROM pg_roles r WHERE r.rolname = v_role AND (r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolreplication))
            OR v_role = 'connector_service_engine' AND (
                EXISTS (SELECT FROM pg_roles r WHERE r.rolname = v_role AND NOT r.rolbypassrls)
                OR EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid IN (m.roleid, m.member) WHERE r.rolname = v_role)) THEN
            RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
                MESSAGE = format('role "%s" already exists, with other rights than this extension would give it', v_role),
                DETAIL = CASE v_role WHEN 'connector_service_engine' THEN 'This role must have BYPASSRLS, no other privilege, no LOGIN, no members and no memberships.'
                    ELSE 'This role must not have LOGIN, SUPERUSER, CREATEROLE or REPLICATION.' END,
                HINT = format('Find out who created it. If nothing else uses it: DROP ROLE %I;', v_role);
        END IF;
        -- A schema other than public is closed to them. Where they may use it already nothing is granted, because a grant
        -- in the script of an extension keeps pg_dump from seeing those of a user.
        IF NOT has_schema_privilege(v_role, '@extschema@'::regnamespace::oid, 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %s TO %I', '@extschema@', v_role);
        END IF;
    END LOOP;
    -- For REFRESH MATERIALIZED VIEW CONCURRENTLY.
    IF NOT has_database_privilege('connector_service_engine', current_database(), 'TEMPORARY') THEN
        EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO connector_service_engine', current_database());
    END IF;
END
$roles$;

CREATE TABLE @extschema@.tenant_roles (
    role_name name CONSTRAINT tenant_roles_pkey PRIMARY KEY,
    tenant_id uuid NOT NULL
);
CREATE INDEX tenant_roles_tenant ON @extschema@.tenant_roles (tenant_id);
COMMENT ON TABLE @extschema@.tenant_roles IS 'Which tenant a role stands for. The row binds the role and its members, for as long as the role has this name.';
COMMENT ON COLUMN @extschema@.tenant_roles.role_name IS 'Name of a role that is a member of connector_service_tenant.';
COMMENT ON COLUMN @extschema@.tenant_roles.tenant_id IS 'Tenant whose rows the role sees and changes.';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.tenant_roles', '');

CREATE VIEW @extschema@.tenant_monthly_revenue WITH (security_barrier) AS
SELECT m.tenant_id, m.month, m.total_revenue, m.avg_daily_revenue, m.days_with_data
FROM @extschema@.monthly_revenue m
WHERE m.tenant_id = (SELECT @extschema@.connector_service_tenant());
COMMENT ON VIEW @extschema@.tenant_monthly_revenue IS 'The rows of monthly_revenue that belong to the caller''s tenant. Row security does not apply to a materialized view, so applications and tenants read this view.';
COMMENT ON COLUMN @extschema@.tenant_monthly_revenue.tenant_id IS 'Tenant of the metrics.';
COMMENT ON COLUMN @extschema@.tenant_monthly_revenue.month IS 'First day of the month.';
COMMENT ON COLUMN @extschema@.tenant_monthly_revenue.total_revenue IS 'Revenue of the month in the tenant''s currency.';
COMMENT ON COLUMN @extschema@.tenant_monthly_revenue.avg_daily_revenue IS 'Average revenue of the days with data, rounded to the minor unit of the tenant''s currency.';
COMMENT ON COLUMN @extschema@.tenant_monthly_revenue.days_with_data IS 'Number of days of the month that have a metric.';

COMMENT ON FUNCTION @extschema@.connector_service_tenant() IS 'Returns the tenant whose rows the caller sees: the tenant that an application acts for, or the tenant that tenant_roles binds the role to. Raises 42501 if there is none, or more than one.';
COMMENT ON FUNCTION @extschema@.connector_service_act_for(uuid, boolean) IS 'For members of connector_service_app: shows the caller the rows of tenant p_tenant_id until the end of the transaction. With p_session true: until the next call or the end of the session. NULL: of no tenant. Raises 22004 if p_session is NULL.';

-- Row security, for whoever is not the engine. The tenant is asked for once in a statement, not for each row.

ALTER TABLE @extschema@.tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.tenants TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.tenants USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.connectors ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.connectors TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.connectors USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.sync_runs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.sync_runs TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.sync_runs USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.sync_requests ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.sync_requests TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.sync_requests USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.uploads ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.uploads TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.uploads USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.raw_connector_data ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.raw_connector_data TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.raw_connector_data USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.quarantine ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.quarantine TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.quarantine USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.raw_retention ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.raw_retention TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.raw_retention USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.erasures ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.erasures TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.erasures USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.rate_budgets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.rate_budgets TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.rate_budgets USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.metric_facts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.metric_facts TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.metric_facts USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.metric_days_touched ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.metric_days_touched TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.metric_days_touched USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.metrics ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.metrics TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.metrics USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.measures ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.measures TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.measures USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.measure_values ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.measure_values TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.measure_values USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.metric_sources ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.metric_sources TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.metric_sources USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.data_quality_alerts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.data_quality_alerts TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.data_quality_alerts USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));

ALTER TABLE @extschema@.count_decisions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.count_decisions TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.count_decisions USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
ALTER TABLE @extschema@.count_due ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.count_due TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.count_due USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));

-- Rows without a tenant are everybody's to see, and an administrator's to write.
ALTER TABLE @extschema@.metric_mappings ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.metric_mappings TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.metric_mappings USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
CREATE POLICY everybodys ON @extschema@.metric_mappings FOR SELECT USING (tenant_id IS NULL);
ALTER TABLE @extschema@.quality_rules ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.quality_rules TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.quality_rules USING (tenant_id = (SELECT @extschema@.connector_service_tenant()));
CREATE POLICY everybodys ON @extschema@.quality_rules FOR SELECT USING (tenant_id IS NULL);
ALTER TABLE @extschema@.metric_mapping_versions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.metric_mapping_versions TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.metric_mapping_versions FOR SELECT
    USING (definition ->> 'tenant_id' IS NULL OR (definition ->> 'tenant_id')::uuid = (SELECT @extschema@.connector_service_tenant()));

-- Has no tenant of its own; whose connector it is, the policy of connectors says.
ALTER TABLE @extschema@.sync_state ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.sync_state TO connector_service_admin USING (true);
CREATE POLICY own ON @extschema@.sync_state
    USING (connector_id IN (SELECT c.connector_id FROM @extschema@.connectors c WHERE c.tenant_id = (SELECT @extschema@.connector_service_tenant())));

-- Of no use to anybody but the engine.
ALTER TABLE @extschema@.upload_parts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE @extschema@.upload_records ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- Who is whom is for administrators.
ALTER TABLE @extschema@.gateway_tokens ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.gateway_tokens TO connector_service_admin USING (true);
ALTER TABLE @extschema@.tenant_roles ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY administrators ON @extschema@.tenant_roles TO connector_service_admin USING (true);

-- Tables, and functions that are SECURITY DEFINER, are the engine's. Those are triggers, because who may change a row
-- need not be allowed everything that follows from it, and what administrators call. None of them runs SQL that is
-- stored somewhere. connector_service_alert_before() is none: it writes on behalf of whoever inserts, and may do no more.

DO $owner$
DECLARE
    v_object record;
    v_grantee text;
BEGIN
    -- Whatever default privileges made of our objects is taken back; what remains is what this file grants.
    FOR v_object IN
        SELECT CASE WHEN c.relkind = 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, d.objid::regclass::text AS name, c.relacl AS acl,
            CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' END AS owned_as
        FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' JOIN pg_class c ON c.oid = d.objid
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass
        UNION ALL
        SELECT 'ROUTINE', d.objid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner)), CASE WHEN p.prosecdef THEN 'ROUTINE' END
        FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' JOIN pg_proc p ON p.oid = d.objid
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
        UNION ALL
        SELECT 'SCHEMA', n.nspname::text, n.nspacl, NULL FROM pg_namespace n WHERE n.nspname = '_connector_service'
    LOOP
        IF v_object.owned_as IS NOT NULL THEN
            EXECUTE format('ALTER %s %s OWNER TO connector_service_engine', v_object.owned_as, v_object.name);
        END IF;
        FOR v_grantee IN
            SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
            FROM aclexplode(v_object.acl) a WHERE a.grantee <> a.grantor
        LOOP
            EXECUTE format('REVOKE ALL ON %s %s FROM %s', v_object.kind, v_object.name, v_grantee);
        END LOOP;
        IF v_object.kind = 'ROUTINE' THEN
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO connector_service_engine', v_object.name);
        END IF;
    END LOOP;
END
$owner$;

-- Everybody else reaches an internal function through what holds its OID: policies, views, triggers and bodies in standard
-- SQL, for which who calls needs EXECUTE at most.
GRANT USAGE ON SCHEMA _connector_service TO connector_service_engine;

-- The lists. Administrators:

GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON
    @extschema@.tenants, @extschema@.connectors, @extschema@.sync_runs, @extschema@.sync_requests, @extschema@.sync_state, @extschema@.raw_connector_data,
    @extschema@.quarantine, @extschema@.metric_mappings, @extschema@.metrics, @extschema@.data_quality_alerts, @extschema@.quality_rules,
    @extschema@.fx_rates, @extschema@.tenant_roles, @extschema@.measures, @extschema@.measure_values
TO connector_service_admin;
-- Not the hashes.
GRANT SELECT (token_id, name, tenant_id, scope, created_at, expires_at, last_used_at), DELETE ON @extschema@.gateway_tokens TO connector_service_admin;
GRANT SELECT ON
    @extschema@.installation, @extschema@.metric_mapping_versions, @extschema@.metric_facts, @extschema@.metric_days_touched,
    @extschema@.metric_sources, @extschema@.count_decisions, @extschema@.count_due, @extschema@.rate_budgets, @extschema@.uploads, @extschema@.connector_health, @extschema@.daily_revenue_by_category, @extschema@.monthly_revenue, @extschema@.tenant_monthly_revenue,
    @extschema@.all_metrics, @extschema@.daily_costs_by_category, @extschema@.daily_metrics_by_category, @extschema@.monthly_metrics
TO connector_service_admin;
GRANT EXECUTE ON FUNCTION
    @extschema@.connector_service_act_for(uuid, boolean), @extschema@.connector_service_adopt(),
    @extschema@.connector_service_sync_due(), @extschema@.connector_service_sync_due(text),
    @extschema@.connector_service_schedule(), @extschema@.connector_service_unschedule(), @extschema@.connector_service_doctor(),
    @extschema@.connector_service_prometheus(), @extschema@.connector_service_create_token(text, uuid, text, interval),
    @extschema@.connector_service_process(bigint), @extschema@.connector_service_verify(uuid),
    @extschema@.connector_service_check_quality(uuid[]), @extschema@.check_missing_data(integer), @extschema@.refresh_monthly_revenue(),
    @extschema@.connector_service_new_key(), @extschema@.connector_service_retire_key(text),
    @extschema@.connector_service_reseal(uuid[]), @extschema@.connector_service_keys(), @extschema@.connector_service_default_tenant(uuid)
TO connector_service_admin;
GRANT EXECUTE ON PROCEDURE @extschema@.connector_service_rotate_key(boolean) TO connector_service_admin;

-- What these call for them.
GRANT EXECUTE ON FUNCTION
    _connector_service.connector_service_check_cron(), _connector_service.connector_service_jobs(), _connector_service.connector_service_note_schedule(name),
    _connector_service.connector_service_put_jobs(name, text[], text[], text[]), _connector_service.connector_service_take_jobs(text[]),
    _connector_service.connector_service_status(), _connector_service.connector_service_diagnose(jsonb), _connector_service.connector_service_diagnose_catalog(),
    _connector_service.connector_service_reseal(uuid, uuid, jsonb), _connector_service.connector_service_key_ids(jsonb)
TO connector_service_admin;

-- Deleting, and what old records became.
GRANT SELECT ON @extschema@.raw_retention, @extschema@.erasures TO connector_service_admin, connector_service_app, connector_service_tenant;
-- To let such records in again.
GRANT DELETE ON @extschema@.erasures TO connector_service_admin, connector_service_app, connector_service_tenant;
GRANT EXECUTE ON FUNCTION
    @extschema@.connector_service_delete(uuid, boolean), @extschema@.connector_service_delete(text, boolean), @extschema@.connector_service_delete_some(uuid, text),
    @extschema@.connector_service_delete_tenant(uuid, boolean), @extschema@.connector_service_erase(text, uuid, uuid, boolean, text, boolean)
TO connector_service_admin, connector_service_app, connector_service_tenant;
GRANT EXECUTE ON PROCEDURE @extschema@.connector_service_delete_wait(uuid), @extschema@.connector_service_delete_wait(text) TO connector_service_admin, connector_service_app, connector_service_tenant;

-- To end a pause by hand.
GRANT DELETE ON @extschema@.rate_budgets TO connector_service_admin;

-- Applications, which say for whom:

GRANT EXECUTE ON FUNCTION @extschema@.connector_service_act_for(uuid, boolean) TO connector_service_app;

-- Applications and tenants, of their tenant:

GRANT SELECT ON
    @extschema@.tenants, @extschema@.connectors, @extschema@.sync_runs, @extschema@.sync_requests, @extschema@.sync_state, @extschema@.raw_connector_data,
    @extschema@.quarantine, @extschema@.metric_mappings, @extschema@.metric_mapping_versions, @extschema@.metric_facts, @extschema@.metric_sources,
    @extschema@.count_decisions, @extschema@.metrics, @extschema@.data_quality_alerts, @extschema@.quality_rules, @extschema@.fx_rates, @extschema@.rate_budgets,
    @extschema@.uploads, @extschema@.tenant_monthly_revenue, @extschema@.measures, @extschema@.measure_values
TO connector_service_app, connector_service_tenant;
-- Not which tenant is meant where none is named.
GRANT INSERT (tenant_id, name, timezone, currency, created_at), UPDATE (name, timezone, currency) ON @extschema@.tenants TO connector_service_app, connector_service_tenant;
GRANT INSERT, UPDATE, DELETE ON @extschema@.quality_rules TO connector_service_app, connector_service_tenant;
-- Not what the worker keeps there for itself.
GRANT INSERT (connector_id, tenant_id, name, type, credentials, config, sync_frequency, scheduler, status, next_sync_at, created_at),
    UPDATE (tenant_id, name, type, credentials, config, sync_frequency, scheduler, status, next_sync_at),
    DELETE ON @extschema@.connectors TO connector_service_app, connector_service_tenant;
GRANT INSERT (metric_id, tenant_id, metric_type, metric_value, metric_date, data, created_at),
    UPDATE (tenant_id, metric_type, metric_value, metric_date, data, by_hand),
    DELETE ON @extschema@.metrics TO connector_service_app, connector_service_tenant;
GRANT INSERT (metric_id, tenant_id, metric_type, metric_value, metric_date, data, created_at),
    UPDATE (tenant_id, metric_type, metric_value, metric_date, data, by_hand),
    DELETE ON @extschema@.measure_values TO connector_service_app, connector_service_tenant;
GRANT INSERT (tenant_id, name, unit, aggregation, may_be_negative, description),
    UPDATE (name, unit, aggregation, may_be_negative, description),
    DELETE ON @extschema@.measures TO connector_service_app, connector_service_tenant;
-- An alert that is there already is counted by who inserts it again, so the count is his to change.
GRANT INSERT (alert_id, tenant_id, metric_id, measure_value_id, connector_id, alert_type, severity, message, metric_type, metric_date, created_at),
    UPDATE (metric_id, measure_value_id, severity, message, occurrences, last_seen_at, resolved, resolved_at)
ON @extschema@.data_quality_alerts TO connector_service_app, connector_service_tenant;
-- Not the id and the version: those of built-in mappings are not for the taking.
GRANT INSERT (connector_id, connector_type, tenant_id, stream, metric_type, items_path, value_path, until_path, date_path, category_path, currency_path, filter, negative, factor, class, unit, active, note),
    UPDATE (connector_id, connector_type, tenant_id, stream, metric_type, items_path, value_path, until_path, date_path, category_path, currency_path, filter, negative, factor, class, unit, active, note),
    DELETE ON @extschema@.metric_mappings TO connector_service_app, connector_service_tenant;
-- To delete a connector with all that came from it, and to have a stream read from the start.
GRANT DELETE ON @extschema@.raw_connector_data, @extschema@.quarantine, @extschema@.sync_state TO connector_service_app, connector_service_tenant;

DO $view$
BEGIN
    -- Before PostgreSQL 15 a view always reads with its owner's rights, and these are only for administrators.
    IF current_setting('server_version_num')::integer >= 150000 THEN
        ALTER VIEW @extschema@.daily_revenue_by_category SET (security_invoker);
        ALTER VIEW @extschema@.connector_health SET (security_invoker);
        ALTER VIEW @extschema@.all_metrics SET (security_invoker);
        ALTER VIEW @extschema@.daily_costs_by_category SET (security_invoker);
        ALTER VIEW @extschema@.daily_metrics_by_category SET (security_invoker);
        ALTER VIEW @extschema@.monthly_metrics SET (security_invoker);
        GRANT SELECT ON @extschema@.daily_revenue_by_category, @extschema@.connector_health, @extschema@.all_metrics, @extschema@.daily_costs_by_category,
            @extschema@.daily_metrics_by_category, @extschema@.monthly_metrics TO connector_service_app, connector_service_tenant;
    END IF;
END
$view$;

-- All three; where it matters, what a function does is bound to the caller's tenant by row security.

GRANT EXECUTE ON FUNCTION
    @extschema@.connector_service_sync(uuid), @extschema@.connector_service_refresh(uuid, text), @extschema@.connector_service_default_tenant(),
    @extschema@.connector_service_sync(text), @extschema@.connector_service_refresh(text, text), @extschema@.connector_service_cancel(text),
    @extschema@.connector_service_backfill(text, timestamptz, timestamptz, interval), @extschema@.connector_service_check(text), @extschema@.connector_service_preview(text),
    @extschema@.connector_service_upload(text, text, bytea), @extschema@.connector_service_preview_upload(text, text, bytea),
    @extschema@.connector_service_reprocess(text), @extschema@.connector_service_replay(text), @extschema@.connector_service_count(text, text, boolean),
    @extschema@.connector_service_backfill(uuid, timestamptz, timestamptz, interval), @extschema@.connector_service_check(uuid), @extschema@.connector_service_preview(uuid),
    @extschema@.connector_service_upload(uuid, text, bytea), @extschema@.connector_service_preview_upload(uuid, text, bytea),
    @extschema@.connector_service_catalog(), @extschema@.connector_service_cancel(uuid), @extschema@.connector_service_reprocess(uuid),
    @extschema@.connector_service_replay(uuid), @extschema@.connector_service_count(uuid, text, boolean), @extschema@.connector_service_seal_key(), @extschema@.connector_service_explain(uuid),
    @extschema@.get_metrics(uuid, text, date, date), @extschema@.aggregate_metrics(uuid, text, date, date, text), @extschema@.connector_service_hint(text)
TO connector_service_admin, connector_service_app, connector_service_tenant;
GRANT EXECUTE ON PROCEDURE @extschema@.connector_service_sync_wait(uuid, interval), @extschema@.connector_service_sync_wait(text, interval), @extschema@.connector_service_wait(uuid, interval) TO connector_service_admin, connector_service_app, connector_service_tenant;
-- What these call for them.
GRANT EXECUTE ON FUNCTION
    _connector_service.connector_service_check_period(uuid, text, date, date, text), _connector_service.connector_service_types(),
    _connector_service.connector_service_mean(numeric, numeric), _connector_service.connector_service_round(numeric, text),
    _connector_service.connector_service_scale(text, text), _connector_service.connector_service_texts(uuid, text, date, date),
    _connector_service.connector_service_own_tenant(), _connector_service.connector_service_only_tenant()
TO connector_service_admin, connector_service_app, connector_service_tenant;

-- PUBLIC: whoever an administrator lets read a table has to be told that he is no tenant.

GRANT EXECUTE ON FUNCTION @extschema@.connector_service_tenant() TO PUBLIC;

-- What pg_restore loads is taken as it is: see 88_restore.sql. All tables are there now.

DO $restore$
DECLARE
    v_table record;
BEGIN
    FOR v_table IN
        SELECT c.oid::regclass AS name
        FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r'
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass AND c.oid = ANY (e.extconfig)
            AND EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid)
        ORDER BY 1
    LOOP
        -- Before all others, and at their end.
        EXECUTE format('CREATE TRIGGER "A_restore_begins" BEFORE INSERT ON %s FOR EACH STATEMENT
            WHEN (current_setting(''application_name'') = ''pg_restore'') EXECUTE FUNCTION _connector_service.connector_service_restore_begins()', v_table.name);
        EXECUTE format('CREATE TRIGGER restore_ends AFTER INSERT ON %s FOR EACH STATEMENT
            WHEN (current_setting(''session_replication_role'') = ''replica'') EXECUTE FUNCTION _connector_service.connector_service_restore_ends()', v_table.name);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER restore_ends', v_table.name);
    END LOOP;
    ALTER TABLE @extschema@.connectors ENABLE ALWAYS TRIGGER connectors_inserted;
END
$restore$;

-- The person who installs the extension is told where the key file is: without this file every credential is lost.

DO $key$
DECLARE
    v_file text := @extschema@.connector_service_key_file();
    v_status jsonb := _connector_service.connector_service_status();
BEGIN
    IF NOT (v_status ->> 'preloaded')::boolean THEN
        RAISE WARNING USING
            MESSAGE = 'connector_service was not loaded when the server started, so nothing will be synced',
            HINT = 'Add connector_service to shared_preload_libraries and restart the server.';
    ELSIF v_status ->> 'key_problem' IS NOT NULL THEN
        RAISE WARNING USING
            MESSAGE = format('credentials cannot be sealed: %s', v_status ->> 'key_problem'),
            DETAIL = format('The key file is expected at "%s".', v_file),
            HINT = 'Set connector_service.key_file to a file in a folder that the server''s user can write to, and restart the server.';
    ELSIF (v_status ->> 'key_is_in_data_directory')::boolean THEN
        RAISE WARNING USING
            MESSAGE = format('the key that seals credentials is in the file "%s", inside the data directory', v_file),
            DETAIL = 'A base backup contains the key together with the credentials that it seals.',
            HINT = 'Set connector_service.key_file to a file in another folder that the server''s user can write to, and restart the server.';
    ELSIF v_file IS NOT NULL THEN
        -- CREATE EXTENSION does not show a NOTICE.
        RAISE INFO USING
            MESSAGE = format('credentials are sealed with a key in the file "%s"; the first credential creates this file', v_file),
            HINT = 'Back this file up, apart from the database: it is the only copy of the key. In a container, set connector_service.key_file to a file on a volume.';
    END IF;
END
$key$;

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
