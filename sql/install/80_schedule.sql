-- schedule: the jobs of pg_cron that queue due connectors. Where pg_cron has no job for them, the worker queues them.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

ALTER TABLE @extschema@.installation ADD COLUMN scheduled_by name;
COMMENT ON COLUMN @extschema@.installation.scheduled_by IS 'Role that owns the pg_cron jobs of connector_service_schedule(). NULL: there are no such jobs.';

-- pg_cron 1.4 knows GMT only, and tenants live in every zone: full hours lie at a quarter and at half past as well, and
-- 02:00 comes at any of them. So what looks for due connectors does it each quarter of an hour, and finds little.
CREATE FUNCTION _connector_service.connector_service_jobs() RETURNS TABLE (job_name text, schedule text, command text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT 'connector_service_' || j.name, j.schedule, replace(j.command, '$', s.prefix)
    FROM (VALUES
        ('hourly', '*/15 * * * *', 'SELECT count(*) FROM $connector_service_sync_due(''hourly'')'),
        ('daily', '*/15 * * * *', 'SELECT count(*) FROM $connector_service_sync_due(''daily'')'),
        ('weekly', '*/15 * * * *', 'SELECT count(*) FROM $connector_service_sync_due(''weekly'')'),
        ('missing_data', '0 3 * * *', 'SELECT $check_missing_data()'),
        ('monthly_refresh', '0 1 * * *', 'SELECT $refresh_monthly_revenue()'),
        ('history', '30 3 * * *', 'DELETE FROM cron.job_run_details WHERE end_time < now() - interval ''7 days'' AND jobid IN (SELECT jobid FROM cron.job WHERE jobname LIKE ''connector\_service\_%'')')
    ) AS j (name, schedule, command),
    (SELECT quote_ident(n.nspname) || '.' AS prefix FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
     WHERE e.extname = 'connector_service') AS s;
END;
COMMENT ON FUNCTION _connector_service.connector_service_jobs() IS 'The jobs that connector_service_schedule() installs.';

CREATE FUNCTION _connector_service.connector_service_note_schedule(p_role name) RETURNS name LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_before name;
BEGIN
    SELECT i.scheduled_by INTO v_before FROM @extschema@.installation i FOR UPDATE;
    UPDATE @extschema@.installation SET scheduled_by = p_role WHERE scheduled_by IS DISTINCT FROM p_role;
    -- The sync worker queues what pg_cron has no job for.
    PERFORM _connector_service.connector_service_wake();
    RETURN v_before;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_note_schedule(name) IS 'Notes the role that owns the jobs, under a lock until COMMIT; returns the role before.';

CREATE FUNCTION _connector_service.connector_service_check_cron() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'pg_cron') THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'pg_cron is not installed in this database',
            DETAIL = CASE current_setting('connector_service.scheduler', true)
                WHEN 'pg_cron' THEN 'connector_service.scheduler is pg_cron, so no due connector is queued.'
                ELSE 'The sync worker queues due connectors itself, so no job is needed.' END,
            HINT = format('pg_cron can be installed only in the database that cron.database_name names%s.',
                coalesce(' (' || quote_ident(nullif(current_setting('cron.database_name', true), '')) || ')', ''));
    END IF;
    IF NOT has_schema_privilege('cron', 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = format('role "%s" may not use pg_cron', current_user),
            HINT = format('As a superuser: GRANT USAGE ON SCHEMA cron TO %I;', current_user);
    END IF;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_check_cron() IS 'Raises 55000 if pg_cron is not in this database, 42501 if the caller may not use it.';

-- What is in the schema of PostgreSQL's scheduler is named in a text, because it need not be there; the jobs come as
-- arguments, because who calls may not use the schema of the function that has them.
CREATE FUNCTION _connector_service.connector_service_put_jobs(p_owner name, p_names text[], p_schedules text[], p_commands text[]) RETURNS SETOF text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text;
    v_others text;
BEGIN
    IF p_owner <> current_user AND EXISTS (SELECT FROM pg_roles r WHERE r.rolname = p_owner) THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = format('the jobs already belong to role "%s"', p_owner),
            DETAIL = 'Jobs of two roles would do everything twice, and each role sees only its own jobs.',
            HINT = format('To take them over: SET ROLE %I; SELECT %s.connector_service_unschedule(); RESET ROLE;', p_owner, '@extschema@');
    END IF;
    -- Jobs of a dump connect to the server that they were made on, and would have that one sync.
    PERFORM cron.unschedule(j.jobid) FROM cron.job j
    WHERE j.jobname = ANY (p_names) AND j.username = current_user AND j.database = current_database() AND j.nodeport <> current_setting('port')::integer;
    FOR v_place IN 1 .. cardinality(p_names) LOOP
        -- The same name and role: PostgreSQL's scheduler changes the job that is there.
        v_name := p_names[v_place];
        PERFORM cron.schedule(v_name, p_schedules[v_place], p_commands[v_place]);
        RETURN NEXT v_name;
    END LOOP;
    SELECT string_agg(format('%s (%s)', j.jobid, j.command), ', ') INTO v_others
    FROM cron.job j
    WHERE j.database = current_database() AND j.command ~ 'connector_service_sync' AND NOT coalesce(j.jobname = ANY (p_names), false);
    IF v_others IS NOT NULL THEN
        RAISE NOTICE USING MESSAGE = format('other jobs also queue syncs, and are no longer needed: %s', v_others),
            HINT = 'No sync runs twice. To delete a job: SELECT cron.unschedule(<its number>);';
    END IF;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_put_jobs(name, text[], text[], text[]) IS 'Installs jobs in pg_cron and returns their names. Raises 42501 if role p_owner has the jobs, and is not the caller.';

CREATE FUNCTION @extschema@.connector_service_schedule() RETURNS SETOF text LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT _connector_service.connector_service_check_cron();
    SELECT put.job_name
    FROM (
        SELECT array_agg(j.job_name) AS names, array_agg(j.schedule) AS schedules, array_agg(j.command) AS commands
        FROM _connector_service.connector_service_jobs() j) AS jobs
        CROSS JOIN LATERAL _connector_service.connector_service_put_jobs(
            _connector_service.connector_service_note_schedule(current_user), jobs.names, jobs.schedules, jobs.commands) AS put(job_name);
END;
COMMENT ON FUNCTION @extschema@.connector_service_schedule() IS 'Installs the pg_cron jobs for the calling role and returns their names. It can be called again: existing jobs are updated. Hourly connectors are synced at each full hour of their tenant''s time zone, daily connectors at 02:00, weekly connectors at 02:00 on Monday. The first sync of a connector, the one after a pause or a correction, and those after failures stay the sync worker''s. Raises 55000 if pg_cron is not in this database, 42501 if another role owns the jobs.';

CREATE FUNCTION _connector_service.connector_service_take_jobs(p_names text[]) RETURNS SETOF text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_id bigint;
    v_name text;
BEGIN
    -- A role that may not use pg_cron has no jobs.
    IF EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'pg_cron') AND has_schema_privilege('cron', 'USAGE') THEN
        FOR v_id, v_name IN
            SELECT j.jobid, j.jobname FROM cron.job j WHERE j.jobname = ANY (p_names) AND j.username = current_user ORDER BY j.jobid
        LOOP
            PERFORM cron.unschedule(v_id);
            RETURN NEXT v_name;
        END LOOP;
    END IF;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_take_jobs(text[]) IS 'Removes the caller''s jobs of these names from pg_cron and returns their names.';

CREATE FUNCTION @extschema@.connector_service_unschedule() RETURNS SETOF text LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT _connector_service.connector_service_note_schedule(NULL)
    FROM (SELECT i.scheduled_by FROM @extschema@.installation i) AS noted WHERE noted.scheduled_by = current_user;
    SELECT taken.job_name
    FROM _connector_service.connector_service_take_jobs(ARRAY(SELECT j.job_name FROM _connector_service.connector_service_jobs() j)) AS taken(job_name);
END;
COMMENT ON FUNCTION @extschema@.connector_service_unschedule() IS 'Removes the calling role''s jobs of connector_service_schedule() from pg_cron and returns their names. Jobs that were written by hand stay.';

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
