-- health: the state of connectors and of the set-up, for people and for monitoring.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE VIEW @extschema@.connector_health WITH (security_barrier) AS
SELECT c.connector_id, c.tenant_id, c.name, c.type, c.sync_frequency, c.scheduler,
    CASE
        WHEN c.status = 'paused' THEN 'paused'
        WHEN going.run_id IS NOT NULL AND going.waiting_for IS NOT NULL THEN 'waiting'
        WHEN going.run_id IS NOT NULL THEN 'syncing'
        WHEN c.status = 'error' THEN 'error'
        WHEN c.failures > 0 THEN 'failing'
        WHEN queued.run_id IS NOT NULL THEN 'queued'
        WHEN c.scheduler = 'database' AND c.next_sync_at < now() - CASE c.sync_frequency WHEN 'hourly' THEN interval '1 hour' ELSE interval '4 hours' END THEN 'late'
        WHEN c.last_sync_at IS NULL THEN 'new'
        ELSE 'ok'
    END AS health,
    c.status, c.failures, c.error_message, c.last_sync_at, now() - c.last_sync_at AS lag, c.next_sync_at,
    last.run_id AS last_run_id, last.kind AS last_run_kind, last.state AS last_run_state, last.error_code AS last_error_code,
    last.started_at AS last_run_started_at, last.finished_at AS last_run_finished_at, last.received AS last_run_received,
    coalesce(going.run_id, queued.run_id) AS active_run_id, coalesce(going.pages, 0) AS active_pages, coalesce(going.received, 0) AS active_received,
    coalesce(going.waiting_for, queued.waiting_for) AS waiting_for,
    (SELECT count(*) FROM @extschema@.sync_runs b WHERE b.connector_id = c.connector_id AND b.kind = 'backfill' AND b.state IN ('queued', 'running')) AS backfill_windows_left,
    (SELECT count(*) FROM @extschema@.raw_connector_data r WHERE r.connector_id = c.connector_id AND NOT r.processed) AS unprocessed,
    (SELECT count(*) FROM @extschema@.quarantine q WHERE q.connector_id = c.connector_id AND q.replayed_at IS NULL) AS quarantined,
    (SELECT count(*) FROM @extschema@.data_quality_alerts a WHERE a.connector_id = c.connector_id AND NOT a.resolved) AS open_alerts,
    CASE WHEN last.state = 'failed' THEN ARRAY(
        SELECT s.key FROM jsonb_each(last.streams) AS s WHERE s.value ->> 'state' IN ('failed', 'skipped') ORDER BY s.key) ELSE '{}' END AS failed_streams
FROM @extschema@.connectors c
    LEFT JOIN LATERAL (SELECT r.* FROM @extschema@.sync_runs r WHERE r.connector_id = c.connector_id AND r.state = 'running' LIMIT 1) AS going ON true
    LEFT JOIN LATERAL (SELECT r.* FROM @extschema@.sync_runs r WHERE r.connector_id = c.connector_id AND r.state = 'queued' AND r.kind = 'sync') AS queued ON true
    LEFT JOIN LATERAL (
        SELECT r.* FROM @extschema@.sync_runs r WHERE r.connector_id = c.connector_id AND r.finished_at IS NOT NULL AND r.kind NOT IN ('check', 'preview')
        ORDER BY r.requested_at DESC LIMIT 1) AS last ON true;
COMMENT ON VIEW @extschema@.connector_health IS 'One row for each connector: its state, its last run, how old its data is, what waits, and when it is due next.';
COMMENT ON COLUMN @extschema@.connector_health.connector_id IS 'Id of the connector.';
COMMENT ON COLUMN @extschema@.connector_health.tenant_id IS 'Tenant of the connector.';
COMMENT ON COLUMN @extschema@.connector_health.name IS 'Name of the connector.';
COMMENT ON COLUMN @extschema@.connector_health.type IS 'Type of the connector.';
COMMENT ON COLUMN @extschema@.connector_health.sync_frequency IS 'hourly, daily, weekly or manual.';
COMMENT ON COLUMN @extschema@.connector_health.scheduler IS 'Who asks for a sync when it is due: database or external.';
COMMENT ON COLUMN @extschema@.connector_health.health IS 'paused; waiting: a run is running and waits, such as for a vendor''s pause; syncing; error: a person must correct something; failing: the last run failed, or some of its streams did, and it is tried again by itself (error_message names the streams); queued; late: due for more than an hour (daily and weekly connectors: four hours), and nobody asked for a sync; new: no sync has succeeded yet; ok.';
COMMENT ON COLUMN @extschema@.connector_health.status IS 'active, paused or error, from connectors.';
COMMENT ON COLUMN @extschema@.connector_health.failures IS 'Number of failed runs since the last success.';
COMMENT ON COLUMN @extschema@.connector_health.error_message IS 'What went wrong last, and what to do about it. NULL after a success.';
COMMENT ON COLUMN @extschema@.connector_health.last_sync_at IS 'Start of the last run that succeeded in all of its streams.';
COMMENT ON COLUMN @extschema@.connector_health.lag IS 'How old the data can be: the time since last_sync_at.';
COMMENT ON COLUMN @extschema@.connector_health.next_sync_at IS 'Time at which the connector is due. NULL: on demand only.';
COMMENT ON COLUMN @extschema@.connector_health.last_run_id IS 'The latest run that ended. Checks and previews do not count.';
COMMENT ON COLUMN @extschema@.connector_health.last_run_kind IS 'Kind of the latest run that ended.';
COMMENT ON COLUMN @extschema@.connector_health.last_run_state IS 'succeeded, failed or cancelled.';
COMMENT ON COLUMN @extschema@.connector_health.last_error_code IS 'Error code of the latest run that ended. NULL: it has none.';
COMMENT ON COLUMN @extschema@.connector_health.last_run_started_at IS 'Time at which the latest run that ended began.';
COMMENT ON COLUMN @extschema@.connector_health.last_run_finished_at IS 'Time at which the latest finished run ended.';
COMMENT ON COLUMN @extschema@.connector_health.last_run_received IS 'Number of records that the latest run that ended received.';
COMMENT ON COLUMN @extschema@.connector_health.active_run_id IS 'The run that is running, or else the sync that is queued. NULL: there is none.';
COMMENT ON COLUMN @extschema@.connector_health.active_pages IS 'Number of pages that the running run has stored; 0 where none is running.';
COMMENT ON COLUMN @extschema@.connector_health.active_received IS 'Number of records that the running run has received; 0 where none is running.';
COMMENT ON COLUMN @extschema@.connector_health.waiting_for IS 'Why the active run waits. NULL: it does not wait.';
COMMENT ON COLUMN @extschema@.connector_health.backfill_windows_left IS 'Number of backfill windows that are queued or running.';
COMMENT ON COLUMN @extschema@.connector_health.unprocessed IS 'Number of records whose facts are not written yet.';
COMMENT ON COLUMN @extschema@.connector_health.quarantined IS 'Number of records that are in quarantine.';
COMMENT ON COLUMN @extschema@.connector_health.open_alerts IS 'Number of open alerts about the connector.';
COMMENT ON COLUMN @extschema@.connector_health.failed_streams IS 'Streams that the latest run that ended did not read to their end, because they or the whole run failed. The other streams were read. sync_runs.streams has the reasons.';

CREATE FUNCTION _connector_service.connector_service_diagnose(p_status jsonb) RETURNS TABLE (item text, ok boolean, detail text, fix text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_installation @extschema@.installation;
    v_version text := (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'connector_service');
    v_scheduler text := coalesce(current_setting('connector_service.scheduler', true), 'auto');
    v_has_cron boolean := EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'pg_cron');
    v_workers integer := jsonb_array_length(p_status -> 'workers');
    v_prefix text := '@extschema@.';
    v_count bigint;
    v_waits boolean;
    v_text text;
    v_fix text;
    v_address text := p_status #>> '{gateway,address}';
    v_chosen text := p_status #>> '{gateway,chosen}';
    v_serves text := p_status #>> '{gateway,serves}';
    v_others text := (SELECT string_agg(format('"%s"', o.name), ', ') FROM jsonb_array_elements_text(p_status #> '{gateway,others}') AS o (name));
    v_event_triggers text[];
BEGIN
    SELECT i.* INTO v_installation FROM @extschema@.installation i;

    item := 'preload';
    ok := (p_status ->> 'preloaded')::boolean;
    detail := CASE WHEN ok THEN 'the library was loaded when the server started' ELSE 'the library was not loaded when the server started, so no worker runs and nothing is synced' END;
    fix := CASE WHEN NOT ok THEN format('ALTER SYSTEM SET shared_preload_libraries = %s; -- and restart the server',
        array_to_string(ARRAY(SELECT quote_literal(btrim(l)) FROM unnest(string_to_array(current_setting('shared_preload_libraries'), ',')) AS l WHERE btrim(l) <> '')
            || quote_literal('connector_service'), ', ')) END;
    RETURN NEXT;

    item := 'version';
    ok := v_version = p_status ->> 'version';
    detail := format('the installed SQL is version %s, the library is version %s', v_version, p_status ->> 'version');
    fix := CASE WHEN NOT ok THEN 'ALTER EXTENSION connector_service UPDATE; -- and restart the server if the library was replaced' END;
    RETURN NEXT;

    item := 'worker';
    ok := v_workers >= (p_status ->> 'workers_wanted')::integer;
    detail := format('%s of %s sync workers run in this database; max_worker_processes is %s', v_workers, p_status ->> 'workers_wanted', current_setting('max_worker_processes'));
    -- The launcher needs a slot too, and so do the workers of other libraries.
    fix := CASE WHEN ok THEN NULL
        WHEN NOT (p_status ->> 'preloaded')::boolean THEN 'see preload'
        WHEN pg_is_in_recovery() THEN 'none: a standby syncs nothing until it is promoted'
        ELSE format('ALTER SYSTEM SET max_worker_processes = %s; -- and restart the server; the log says why a worker did not start',
            current_setting('max_worker_processes')::integer + 2 + (p_status ->> 'workers_wanted')::integer) END;
    RETURN NEXT;

    item := 'facts';
    -- The kinds of lock are those of store/lock.rs.
    SELECT format('session %s of role "%s" (%s) has held the lock of facts since %s; records are stored, and count when its transaction ends',
            a.pid, a.usename, a.state, date_trunc('second', a.xact_start)), format('SELECT pg_terminate_backend(%s);', a.pid)
    INTO detail, fix
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.objsubid IN (20101, 20102) AND l.granted AND l.mode = 'ExclusiveLock'
        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        AND a.backend_type = 'client backend' AND a.xact_start < now() - interval '1 minute'
    ORDER BY a.xact_start LIMIT 1;
    ok := NOT FOUND;
    IF ok THEN
        SELECT count(*) > 0 INTO v_waits FROM (
            SELECT FROM @extschema@.raw_connector_data r WHERE NOT r.processed AND r.ingested_at < now() - interval '1 minute' LIMIT 1) AS waiting;
        ok := NOT v_waits OR (p_status ->> 'upkeep')::boolean;
        detail := CASE WHEN NOT v_waits THEN 'no record waits for its facts'
            WHEN ok THEN 'records wait for their facts, and the upkeep process works on them'
            ELSE 'records wait for their facts, and no upkeep process runs' END;
        fix := CASE WHEN NOT ok THEN 'see worker: the upkeep process also needs a slot of max_worker_processes' END;
    END IF;
    RETURN NEXT;

    IF v_address IS NOT NULL THEN
        item := 'gateway';
        ok := (p_status #>> '{gateway,runs}')::boolean;
        detail := format(CASE WHEN ok THEN 'a gateway runs for %s' ELSE 'connector_service.gateway_listen names %s, but no gateway runs' END, v_address);
        fix := CASE WHEN NOT ok THEN 'see worker; the server''s log says why the gateway did not start' END;
        IF (p_status #>> '{gateway,is_shared}')::boolean THEN
            -- One address, and perhaps several databases.
            v_fix := format('ALTER SYSTEM SET connector_service.gateway_database = %L; SELECT pg_reload_conf(); -- if this database should answer there; in connector_service.gateway_listen each database can have an address of its own, such as %s=127.0.0.1:8090',
                current_database(), current_database());
            IF ok AND v_chosen IS NULL AND v_others IS NOT NULL THEN
                ok := false;
                detail := format('the gateway at %s answers for this database, and not for %s; connector_service.gateway_database does not say that it should', v_address, v_others);
                fix := v_fix;
            ELSIF NOT ok AND v_serves IS NOT NULL THEN
                ok := v_chosen = v_serves;
                ok := coalesce(ok, false);
                detail := format('the gateway at %s answers for database "%s", and not for this one', v_address, v_serves);
                fix := CASE WHEN NOT ok THEN v_fix END;
            ELSIF NOT ok AND v_chosen <> current_database() THEN
                detail := format('connector_service.gateway_database names "%s", and no gateway runs for that database', v_chosen);
                fix := v_fix;
            END IF;
        END IF;
        IF ok AND (p_status #>> '{gateway,runs}')::boolean AND (p_status #>> '{gateway,is_readable_on_its_way}')::boolean THEN
            ok := false;
            detail := format('the gateway at %s serves other machines over plain HTTP, so tokens and data can be read on the network', p_status #>> '{gateway,address}');
            fix := 'ALTER SYSTEM SET connector_service.gateway_certificate = ''/path/to/fullchain.pem''; ALTER SYSTEM SET connector_service.gateway_private_key = ''/path/to/privkey.pem''; SELECT pg_reload_conf(); -- or let it listen at 127.0.0.1, behind a proxy';
        END IF;
        RETURN NEXT;
    END IF;

    item := 'repeated failures';
    SELECT count(*), string_agg(t.text, '; ' ORDER BY t.text) INTO v_count, v_text FROM jsonb_array_elements_text(p_status -> 'troubles') AS t (text);
    ok := v_count = 0;
    detail := CASE WHEN ok THEN 'no worker or gateway fails repeatedly' ELSE v_text END;
    -- The usual cause is a trigger that somebody created on our tables.
    SELECT string_agg(format('ALTER TABLE %s DISABLE TRIGGER %I;', t.tgrelid::regclass, t.tgname), ' ' ORDER BY t.tgrelid::regclass::text, t.tgname) INTO v_fix
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE NOT ok AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND v_text ~ 'SQLSTATE'
        AND EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service'
            WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid)
        AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service'
            WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid);
    -- An event trigger of somebody else's runs with the refresh of the monthly aggregate, with the rights of the extension.
    v_event_triggers := ARRAY(
        SELECT e.evtname::text FROM pg_event_trigger e
        WHERE e.evtenabled IN ('O', 'A') AND e.evtevent IN ('ddl_command_start', 'ddl_command_end', 'sql_drop')
            AND (e.evttags IS NULL OR e.evttags && '{REFRESH MATERIALIZED VIEW,CREATE TABLE,CREATE TABLE AS,DROP TABLE}'::text[])
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_event_trigger'::regclass AND d.objid = e.oid AND d.deptype = 'e')
        ORDER BY e.evtname);
    IF v_text ~ 'monthly' AND v_event_triggers <> '{}' THEN
        detail := format('%s; %s with each refresh', detail, (SELECT string_agg(format('event trigger "%s"', t.name), ', ') || CASE WHEN count(*) = 1 THEN ' runs' ELSE ' run' END FROM unnest(v_event_triggers) AS t (name)));
        v_fix := concat_ws(' ', v_fix, (SELECT string_agg(format('ALTER EVENT TRIGGER %I DISABLE;', t.name), ' ') FROM unnest(v_event_triggers) AS t (name)));
    END IF;
    fix := CASE WHEN ok THEN NULL WHEN v_fix IS NULL THEN 'none in SQL: the detail says what fails, and the server''s log says since when'
        ELSE v_fix || ' -- if one of these triggers refuses the statement' END;
    RETURN NEXT;

    item := 'copy';
    SELECT CASE
            WHEN v_installation.only_row IS NULL THEN 'the table installation has no row'
            WHEN v_installation.held_since IS NOT NULL THEN v_installation.held_because
            WHEN v_installation.system_identifier <> s.system_identifier THEN 'the extension was installed on another server'
            WHEN v_installation.database_oid <> d.oid THEN 'this database is a copy of another database'
            WHEN EXISTS (SELECT FROM @extschema@.connectors c WHERE c.installation_id IS DISTINCT FROM v_installation.installation_id) THEN 'connectors were restored from a dump' END
        INTO v_text
    FROM pg_control_system() s, pg_database d WHERE d.datname = current_database();
    ok := v_text IS NULL;
    detail := coalesce('nothing is synced: ' || v_text, 'this is the database that the extension was installed in');
    fix := CASE WHEN NOT ok THEN format('SELECT %sconnector_service_adopt(); -- if this copy should call the vendors', v_prefix) END;
    RETURN NEXT;

    item := 'key';
    ok := p_status ->> 'key_problem' IS NULL AND NOT coalesce((p_status ->> 'key_is_in_data_directory')::boolean, false);
    detail := CASE
        WHEN p_status ->> 'key_problem' IS NOT NULL THEN p_status ->> 'key_problem'
        WHEN NOT ok THEN 'the key file is inside the data directory, so a base backup contains the key together with the credentials that it seals'
        WHEN (p_status ->> 'has_key_file')::boolean IS FALSE THEN 'the first credential creates the key file'
        ELSE 'the key file has the keys that credentials are sealed with' END;
    fix := CASE
        WHEN ok THEN NULL
        WHEN p_status ->> 'key_problem' IS NOT NULL THEN 'none in SQL: restore the key file from its own backup; see connector_service.key_file'
        ELSE 'ALTER SYSTEM SET connector_service.key_file = ''/path/to/connector_service.key''; -- move the file there, if it exists already, and restart the server' END;
    RETURN NEXT;

    item := 'scheduler';
    IF v_has_cron AND v_scheduler <> 'worker' AND NOT has_schema_privilege('cron', 'USAGE') THEN
        ok := false;
        detail := format('pg_cron queues due connectors, but role "%s" may not see its jobs', current_user);
        fix := format('GRANT USAGE ON SCHEMA cron TO %I; -- as a superuser', current_user);
        RETURN NEXT;
    ELSIF v_has_cron AND v_scheduler <> 'worker' THEN
        -- Jobs may be for other databases.
        SELECT count(*), count(DISTINCT j.username) INTO v_count, v_workers FROM cron.job j
        WHERE j.active AND j.database = current_database() AND j.command ~ 'connector_service_sync';
        v_text := (SELECT string_agg(c.frequency, ', ') FROM jsonb_array_elements_text(p_status -> 'pg_cron') AS c (frequency));
        -- Jobs of others count too, and those that cannot work do not.
        ok := v_text IS NOT NULL OR v_scheduler = 'auto' AND v_count = 0;
        detail := CASE
            WHEN v_text IS NOT NULL THEN format('pg_cron queues due connectors of these frequencies: %s; the sync worker does the rest', v_text)
            WHEN ok THEN 'pg_cron has no job that queues due connectors, so the sync worker queues them'
            WHEN v_count > 0 THEN format('pg_cron has %s to queue due connectors, and none of them works here: each belongs to a role that does not see all connectors, or connects to another server%s',
                CASE v_count WHEN 1 THEN '1 job' ELSE v_count || ' jobs' END, CASE v_scheduler WHEN 'auto' THEN '; the sync worker queues them meanwhile' ELSE '' END)
            ELSE 'connector_service.scheduler is pg_cron, and pg_cron has no job that queues due connectors; only first syncs, those after a pause or a correction, and those after failures are done' END;
        fix := CASE WHEN ok THEN NULL
            WHEN v_count > 0 THEN coalesce((
                SELECT string_agg(DISTINCT format('GRANT connector_service_admin TO %I;', j.username), ' ') FROM cron.job j JOIN pg_roles r ON r.rolname = j.username
                WHERE j.active AND j.database = current_database() AND j.command ~ 'connector_service_sync'
                    AND NOT (r.rolsuper OR pg_has_role(r.oid, 'connector_service_admin', 'USAGE'))), format('SELECT %sconnector_service_schedule();', v_prefix))
            ELSE format('SELECT %sconnector_service_schedule();', v_prefix) END;
        RETURN NEXT;

        item := 'job owner';
        ok := v_workers <= 1;
        detail := CASE WHEN ok THEN 'one role owns all jobs that sync' ELSE (
            SELECT 'several roles own jobs that sync: ' || string_agg(u.username || ' (' || u.jobs || ')', ', ' ORDER BY u.username)
            FROM (SELECT j.username, count(*) AS jobs FROM cron.job j WHERE j.active AND j.database = current_database() AND j.command ~ 'connector_service_sync' GROUP BY 1) AS u) END;
        fix := CASE WHEN NOT ok THEN (
            SELECT string_agg(format('SELECT cron.unschedule(%s);', j.jobid), ' ' ORDER BY j.jobid) FROM cron.job j
            WHERE j.active AND j.database = current_database() AND j.command ~ 'connector_service_sync' AND j.username <> coalesce(v_installation.scheduled_by,
                (SELECT o.username FROM cron.job o WHERE o.active AND o.database = current_database() AND o.command ~ 'connector_service_sync' ORDER BY o.jobid LIMIT 1))) END;
        RETURN NEXT;

        item := 'job connection';
        SELECT count(*), min(j.nodename || ':' || j.nodeport) INTO v_count, v_text FROM cron.job j
        WHERE j.active AND j.database = current_database() AND j.jobname LIKE 'connector\_service\_%' AND j.nodeport <> current_setting('port')::integer;
        ok := v_count = 0;
        detail := CASE WHEN ok THEN 'the jobs connect to this server'
            ELSE format('%s to %s, which is not this server', CASE v_count WHEN 1 THEN '1 job connects' ELSE v_count || ' jobs connect' END, v_text) END;
        fix := CASE WHEN NOT ok THEN format('SELECT %sconnector_service_schedule();', v_prefix) END;
        RETURN NEXT;

        item := 'job for each frequency';
        SELECT string_agg(DISTINCT c.sync_frequency, ', ') INTO v_text
        FROM @extschema@.connectors c
        WHERE c.status = 'active' AND c.scheduler = 'database' AND c.sync_frequency <> 'manual' AND NOT EXISTS (
            SELECT FROM cron.job j WHERE j.active AND j.database = current_database() AND j.command ~ 'connector_service_sync'
                AND (j.command ~ 'connector_service_sync_due[[:space:]]*[(][[:space:]]*[)]' OR j.command ~ c.sync_frequency OR j.command !~ 'hourly|daily|weekly'));
        -- What pg_cron has no job for is the sync worker's, unless the setting says otherwise.
        ok := v_text IS NULL OR v_scheduler = 'auto';
        detail := CASE WHEN v_text IS NULL THEN 'each frequency in use has a job'
            WHEN ok THEN format('no job queues connectors with the frequency %s, so the sync worker does', v_text)
            ELSE 'no job queues connectors with the frequency ' || v_text END;
        fix := CASE WHEN NOT ok THEN format('SELECT %sconnector_service_schedule();', v_prefix) END;
        RETURN NEXT;

        item := 'failed jobs';
        SELECT max(d.return_message), count(*) INTO v_text, v_count
        FROM cron.job j JOIN cron.job_run_details d ON d.jobid = j.jobid
        WHERE j.database = current_database() AND j.command ~ 'connector_service_|check_missing_data|refresh_monthly_revenue' AND d.status = 'failed' AND d.start_time > now() - interval '1 day';
        ok := v_count = 0;
        detail := CASE WHEN ok THEN 'no job of this extension failed in the last day' ELSE format('%s failed in the last day; a message was: %s', CASE v_count WHEN 1 THEN '1 job run' ELSE v_count || ' job runs' END, v_text) END;
        fix := CASE WHEN ok THEN NULL
            WHEN v_text COLLATE "C" ~* 'connection failed' THEN 'ALTER SYSTEM SET cron.use_background_workers = on; -- and restart the server; or allow the job''s role to connect from cron.host, in pg_hba.conf'
            ELSE 'SELECT * FROM cron.job_run_details ORDER BY runid DESC LIMIT 20; -- shows details' END;
        RETURN NEXT;
    ELSE
        ok := v_scheduler <> 'pg_cron';
        detail := CASE WHEN NOT ok THEN 'connector_service.scheduler is pg_cron, but pg_cron is not installed in this database, so no due connector is queued after its first sync'
            WHEN current_setting('cron.database_name', true) <> current_database() THEN
                format('pg_cron is installed in database "%s"; in this database the sync worker queues due connectors', current_setting('cron.database_name', true))
            ELSE 'the sync worker queues due connectors' END;
        fix := CASE WHEN NOT ok THEN 'ALTER SYSTEM SET connector_service.scheduler = ''auto''; SELECT pg_reload_conf();' END;
        RETURN NEXT;
    END IF;

    item := 'overdue connectors';
    SELECT count(*), min(c.name) INTO v_count, v_text
    FROM @extschema@.connectors c
    WHERE c.status = 'active' AND c.scheduler = 'database' AND c.next_sync_at < now() - interval '1 day'
        AND NOT EXISTS (SELECT FROM @extschema@.sync_runs r WHERE r.connector_id = c.connector_id AND r.state IN ('queued', 'running'));
    ok := v_count = 0;
    detail := CASE WHEN ok THEN 'no connector is overdue by more than a day' ELSE format('%s overdue by more than a day, such as "%s"', CASE v_count WHEN 1 THEN '1 connector is' ELSE v_count || ' connectors are' END, v_text) END;
    fix := CASE WHEN NOT ok THEN format('SELECT count(*) FROM %sconnector_service_sync_due();', v_prefix) END;
    RETURN NEXT;

    item := 'schedule of webhook connectors';
    SELECT count(*), string_agg(format('%L', p.connector_id), ', ') FILTER (WHERE p.place <= 100), min(p.name) INTO v_count, v_fix, v_text
    FROM (
        SELECT c.connector_id, c.name, row_number() OVER (ORDER BY c.name) AS place
        FROM @extschema@.connectors c
        WHERE c.status = 'active' AND c.scheduler = 'database' AND c.sync_frequency = 'manual' AND c.type <> 'webhook'
            AND EXISTS (SELECT FROM @extschema@.sync_runs r WHERE r.connector_id = c.connector_id AND r.kind = 'webhook')
            AND NOT EXISTS (
                SELECT FROM @extschema@.sync_runs r WHERE r.connector_id = c.connector_id AND r.kind = 'sync'
                    AND r.requested_by <> 'webhook' AND r.requested_at > now() - interval '2 days')) AS p;
    ok := v_count = 0;
    detail := CASE WHEN ok THEN 'no connector depends on webhooks alone'
        ELSE format('%s synced only after a webhook, such as "%s"; if a webhook is lost, its change is found only after the next one',
            CASE v_count WHEN 1 THEN '1 connector is' ELSE v_count || ' connectors are' END, v_text) END;
    fix := CASE WHEN NOT ok THEN format('UPDATE %sconnectors SET sync_frequency = ''daily'' WHERE connector_id IN (%s);', v_prefix, v_fix) END;
    RETURN NEXT;

    item := 'connectors';
    SELECT count(*), string_agg(quote_literal(c.name), ', ') FILTER (WHERE c.place <= 5) INTO v_count, v_text
    FROM (SELECT c.name, row_number() OVER (ORDER BY c.name) AS place FROM @extschema@.connectors c WHERE c.status = 'error') AS c;
    ok := v_count = 0;
    detail := CASE WHEN ok THEN 'no connector is in error' ELSE format('%s in error, and somebody must act: %s', CASE v_count WHEN 1 THEN '1 connector is' ELSE v_count || ' connectors are' END, v_text) END;
    fix := CASE WHEN NOT ok THEN format('SELECT name, error_message FROM %sconnectors WHERE status = ''error'';', v_prefix) END;
    IF ok THEN
        -- What fails twice may pass by itself.
        SELECT count(*), string_agg(format('%L (%s)', c.name, c.streams), ', ') FILTER (WHERE c.place <= 5) INTO v_count, v_text
        FROM (
            SELECT h.name, array_to_string(h.failed_streams[1:5], ', ') AS streams, row_number() OVER (ORDER BY h.name) AS place
            FROM @extschema@.connector_health h JOIN @extschema@.sync_runs r ON r.run_id = h.last_run_id
            WHERE h.status = 'active' AND h.failures >= 3 AND h.failed_streams <> '{}' AND r.streams @? '$.*.state ? (@ == "ok")') AS c;
        ok := v_count = 0;
        detail := CASE WHEN ok THEN detail ELSE format('%s some streams again and again, and reads the others: %s', CASE v_count WHEN 1 THEN '1 connector fails in' ELSE v_count || ' connectors fail in' END, v_text) END;
        fix := CASE WHEN NOT ok THEN format('SELECT name, failed_streams, error_message FROM %sconnector_health WHERE failed_streams <> ''{}'';', v_prefix) END;
    END IF;
    RETURN NEXT;

    item := 'names of connectors';
    SELECT count(*), min(c.name), string_agg(format('UPDATE %sconnectors SET name = %L WHERE connector_id = %L;', v_prefix, c.new_name, c.connector_id), ' ') FILTER (WHERE c.place <= 100)
        INTO v_count, v_text, v_fix
    FROM (
        SELECT c.connector_id, left(c.name, 900) AS name, format('%s (%s)', left(c.name, 200), left(c.connector_id::text, 8)) AS new_name,
            row_number() OVER (ORDER BY c.name, c.connector_id) AS place
        FROM @extschema@.connectors c WHERE c.name_key IS NULL AND c.deleting_since IS NULL) AS c;
    ok := v_count = 0;
    detail := CASE WHEN ok THEN 'each connector of a tenant has a name of its own'
        ELSE format('%s no name of its own, such as "%s", so functions that take a name may not find it', CASE v_count WHEN 1 THEN '1 connector has' ELSE v_count || ' connectors have' END, left(v_text, 200)) END;
    fix := CASE WHEN NOT ok THEN v_fix END;
    RETURN NEXT;

    item := 'mappings';
    -- Of each stream only some records are looked at.
    SELECT count(*), string_agg(format('mapping %s (%s of stream "%s") matches none of %s of connector "%s"', u.mapping_id, u.metric_type, left(u.stream, 100),
            CASE WHEN u.records >= 1000 THEN 'at least 1000 records' WHEN u.records = 1 THEN '1 record' ELSE u.records || ' records' END, left(u.name, 100)), '; ' ORDER BY u.mapping_id) FILTER (WHERE u.place <= 5)
        INTO v_count, v_text
    FROM (
        SELECT m.mapping_id, m.metric_type, m.stream, c.name, seen.records, row_number() OVER (ORDER BY m.mapping_id, c.name) AS place
        FROM (SELECT k.* FROM @extschema@.metric_mappings k WHERE k.active AND NOT k.builtin ORDER BY k.mapping_id LIMIT 200) AS m
            CROSS JOIN LATERAL (
                SELECT k.connector_id, k.name FROM @extschema@.connectors k
                WHERE k.connector_id = m.connector_id OR k.type = m.connector_type AND (m.tenant_id IS NULL OR k.tenant_id = m.tenant_id)
                LIMIT 10) AS c
            CROSS JOIN LATERAL (
                SELECT count(*) AS records, count(*) FILTER (WHERE
                        EXISTS (SELECT FROM @extschema@.metric_facts f WHERE f.raw_id = r.raw_id AND f.mapping_id = m.mapping_id)
                        OR EXISTS (SELECT FROM @extschema@.quarantine q WHERE q.raw_id = r.raw_id AND q.replayed_at IS NULL)) AS matched
                FROM (
                    SELECT k.raw_id FROM @extschema@.raw_connector_data k
                    WHERE k.connector_id = c.connector_id AND k.source_record_id >= split_part(m.stream, '/', 1) AND k.source_record_id < split_part(m.stream, '/', 1) || '0'
                        AND k.stream = m.stream AND k.processed AND NOT k.deleted
                    LIMIT 1000) AS r) AS seen
        WHERE seen.records > 0 AND seen.matched = 0
            -- A mapping of the connector itself replaces it.
            AND (m.connector_id IS NOT NULL OR NOT EXISTS (
                SELECT FROM @extschema@.metric_mappings k
                WHERE k.connector_id = c.connector_id AND k.stream = m.stream AND k.metric_type = m.metric_type))) AS u;
    ok := v_count = 0;
    detail := CASE WHEN ok THEN 'each mapping of your own matches records, or has none yet' ELSE v_text END;
    fix := CASE WHEN NOT ok THEN 'none in SQL: compare filter, items_path and value_path of the mapping with a record in raw_connector_data.data' END;
    RETURN NEXT;

    item := 'statement logging';
    -- What each setting writes to the log of a statement that saves credentials and succeeds.
    SELECT string_agg(format('%s = %s logs %s', l.name, l.value, l.what), '; '), string_agg(format('SET %s = %L;', l.name, l.off), ' ')
        INTO v_text, v_fix
    FROM (
        SELECT k.name, current_setting(k.name, true) AS value, k.what, k.off, k.is_on
        FROM (VALUES
            ('log_statement', 'statements', 'none', '^(mod|all)$'),
            ('log_min_duration_statement', 'statements that take this long, with their parameters', '-1', '^[^-]'),
            ('log_min_duration_sample', 'some statements that take this long, with their parameters', '-1', '^[^-]'),
            ('log_transaction_sample_rate', 'all statements of some transactions', '0', '[1-9]'),
            ('debug_print_parse', 'the values in a statement, in its parse tree', 'off', '^on$'),
            ('debug_print_rewritten', 'the values in a statement, in its parse tree', 'off', '^on$'),
            ('debug_print_plan', 'the values in a statement, in its plan', 'off', '^on$'),
            ('log_parameter_max_length_on_error', 'the parameters of failed statements that name neither connectors nor a function of this extension', '0', '^[^0]'),
            ('auto_explain.log_min_duration', 'statements that take this long, and from PostgreSQL 16 on their parameters', '-1', '^[^-]'),
            ('pgaudit.log', 'statements, and their parameters if pgaudit.log_parameter is on', 'none', '(^|[ ,])(write|function|misc|all)'),
            ('pgaudit.role', 'statements, if that role has a privilege on connectors', '', '.')
        ) AS k (name, what, off, is_on)) AS l
    WHERE l.value ~ l.is_on;
    ok := v_text IS NULL;
    detail := CASE WHEN ok THEN 'statements are not logged' ELSE format('the server''s log may get credentials that are typed into a statement: %s', v_text) END;
    fix := CASE WHEN NOT ok THEN format('%s -- before typing credentials, as a superuser; or write them as {"$box": ...}, sealed for %sconnector_service_seal_key()', v_fix, v_prefix) END;
    RETURN NEXT;

    item := 'failed statements';
    -- From this level on, a message is logged together with its statement.
    v_text := current_setting('log_min_error_statement');
    ok := (p_status ->> 'preloaded')::boolean OR v_text IN ('fatal', 'panic');
    detail := CASE
        WHEN NOT ok THEN format('log_min_error_statement = %s logs failed statements; credentials in them are hidden only if the library was loaded when the server started', v_text)
        WHEN v_text IN ('fatal', 'panic') THEN format('log_min_error_statement = %s, so failed statements are not logged', v_text)
        ELSE format('log_min_error_statement = %s logs failed statements, but not those that write connectors or call a function that takes credentials', v_text) END;
    fix := CASE WHEN NOT ok THEN 'see preload; until then SET log_min_error_statement = ''panic''; -- before typing credentials, as a superuser' END;
    RETURN NEXT;

    item := 'clock';
    SELECT max(late.at) - clock_timestamp() INTO v_text
    FROM (
        SELECT max(r.requested_at) AS at FROM @extschema@.sync_runs r WHERE r.requested_at > clock_timestamp() + interval '1 minute'
        UNION ALL
        SELECT max(c.next_sync_at) - interval '8 days' FROM @extschema@.connectors c WHERE c.next_sync_at > clock_timestamp() + interval '8 days' AND c.next_sync_at < 'infinity'
    ) AS late;
    ok := v_text IS NULL;
    detail := coalesce('the server''s clock was set back by about ' || v_text || ', so syncs that were planned before start late', 'no sync is planned too far ahead');
    fix := CASE WHEN NOT ok THEN format('UPDATE %sconnectors SET next_sync_at = now() WHERE next_sync_at > now() + interval ''8 days'' AND next_sync_at < ''infinity'';', v_prefix) END;
    IF ok THEN
        SELECT w.warning INTO v_text
        FROM @extschema@.sync_runs r, unnest(r.warnings) AS w(warning)
        WHERE r.requested_at > now() - interval '1 day' AND w.warning ~ 'clock of this server' ORDER BY r.requested_at DESC LIMIT 1;
        ok := v_text IS NULL;
        detail := coalesce(v_text, detail);
        fix := CASE WHEN NOT ok THEN 'none in SQL: let NTP set the clock (chrony, systemd-timesyncd)' END;
    END IF;
    RETURN NEXT;

    item := 'monthly_revenue';
    SELECT count(*) INTO v_count
    FROM (
        SELECT m.tenant_id, date_trunc('month', m.metric_date::timestamp)::date AS month, sum(m.metric_value) AS total, max(m.updated_at) AS changed_at
        FROM @extschema@.metrics m WHERE m.metric_type = 'revenue' GROUP BY 1, 2) AS is_now
        FULL JOIN @extschema@.monthly_revenue v ON v.tenant_id = is_now.tenant_id AND v.month::date = is_now.month
    -- The upkeep process follows within a minute.
    WHERE v.total_revenue IS DISTINCT FROM is_now.total AND (is_now.changed_at > now() - interval '5 minutes') IS NOT TRUE;
    ok := v_count = 0;
    detail := CASE WHEN ok THEN 'monthly_revenue agrees with metrics' ELSE format('monthly_revenue is out of date for %s', CASE v_count WHEN 1 THEN '1 month' ELSE v_count || ' months' END) END;
    fix := CASE WHEN NOT ok THEN format('SELECT %srefresh_monthly_revenue();', v_prefix) END;
    IF NOT ok AND v_event_triggers <> '{}' THEN
        detail := format('%s; %s with each refresh, and may refuse it', detail, (SELECT string_agg(format('event trigger "%s"', t.name), ', ') || CASE WHEN count(*) = 1 THEN ' runs' ELSE ' run' END FROM unnest(v_event_triggers) AS t (name)));
        fix := format('%s %s %s',
            (SELECT string_agg(format('ALTER EVENT TRIGGER %I DISABLE;', t.name), ' ') FROM unnest(v_event_triggers) AS t (name)), fix,
            (SELECT string_agg(format('ALTER EVENT TRIGGER %I ENABLE;', t.name), ' ') FROM unnest(v_event_triggers) AS t (name)));
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_diagnose(jsonb) IS 'Does the work of connector_service_doctor(), with the result of connector_service_status().';

-- Names nothing of ours: what it looks for is that those names are wrong.
CREATE FUNCTION _connector_service.connector_service_diagnose_catalog() RETURNS TABLE (item text, ok boolean, detail text, fix text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_extension oid;
    v_schema text;
    v_internal text;
    v_count bigint;
    v_owners text;
    v_fix text;
BEGIN
    SELECT e.oid, quote_ident(n.nspname) INTO v_extension, v_schema
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'connector_service';
    SELECT quote_ident(n.nspname) INTO v_internal FROM pg_depend d JOIN pg_namespace n ON n.oid = d.objid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = v_extension AND d.deptype = 'e' AND d.classid = 'pg_namespace'::regclass;
    item := 'schema';
    ok := v_schema = '@extschema@' AND v_internal = '_connector_service';
    detail := CASE WHEN ok THEN format('the extension is in the schema %s that it was installed in', v_schema)
        ELSE concat_ws('; ',
            CASE WHEN v_schema <> '@extschema@' THEN format('schema %s was renamed to %s, and the functions in it still name it %s', '@extschema@', v_schema, '@extschema@') END,
            CASE WHEN v_internal <> '_connector_service' THEN format('schema _connector_service was renamed to %s', v_internal) END) || '; nothing is synced' END;
    fix := CASE WHEN NOT ok THEN concat_ws(' ',
        CASE WHEN v_schema <> '@extschema@' THEN format('ALTER SCHEMA %s RENAME TO %s;', v_schema, '@extschema@') END,
        CASE WHEN v_internal <> '_connector_service' THEN format('ALTER SCHEMA %s RENAME TO _connector_service;', v_internal) END) END;
    RETURN NEXT;

    item := 'owner';
    SELECT count(*), string_agg(DISTINCT format('"%s"', o.owner), ', '), string_agg(format('ALTER %s %s OWNER TO connector_service_engine;', o.kind, o.name), ' ' ORDER BY o.kind, o.name)
        INTO v_count, v_owners, v_fix
    FROM (
        SELECT CASE c.relkind WHEN 'r' THEN 'TABLE' WHEN 'p' THEN 'TABLE' WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END AS kind,
            format('%I.%I', n.nspname, c.relname) AS name, pg_get_userbyid(c.relowner) AS owner
        FROM pg_depend d JOIN pg_class c ON c.oid = d.objid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = v_extension AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'v', 'm')
        UNION ALL
        SELECT 'ROUTINE', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), pg_get_userbyid(p.proowner)
        FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = v_extension AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass AND p.prosecdef) AS o
    WHERE o.owner <> 'connector_service_engine';
    ok := v_count = 0;
    detail := CASE WHEN ok THEN 'the objects of the extension belong to connector_service_engine'
        ELSE format('%s of the extension to role %s, such as after REASSIGN OWNED, and not to connector_service_engine; nothing is synced', CASE v_count WHEN 1 THEN '1 object belongs' ELSE v_count || ' objects belong' END, v_owners) END;
    fix := CASE WHEN NOT ok THEN v_fix END;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_diagnose_catalog() IS 'The rows of connector_service_doctor() about what keeps everything else from working: a renamed schema, and another owner.';

CREATE FUNCTION _connector_service.connector_service_installed_in() RETURNS text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
RETURN '@extschema@'::text;
COMMENT ON FUNCTION _connector_service.connector_service_installed_in() IS 'The schema that the extension was installed in, as an identifier. Functions name it, so it cannot be renamed.';

CREATE FUNCTION @extschema@.connector_service_doctor() RETURNS TABLE (item text, ok boolean, detail text, fix text) LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT c.item, c.ok, c.detail, c.fix FROM _connector_service.connector_service_diagnose_catalog() c
    UNION ALL
    -- The other checks can be made only if these are well.
    SELECT d.item, d.ok, d.detail, d.fix FROM _connector_service.connector_service_diagnose(_connector_service.connector_service_status()) d
    WHERE NOT EXISTS (SELECT FROM _connector_service.connector_service_diagnose_catalog() c WHERE NOT c.ok);
END;
COMMENT ON FUNCTION @extschema@.connector_service_doctor() IS 'Checks the set-up: one row for each item, with ok, a detail in words, and in fix the statement that corrects it. Changes nothing. A role sees only its own pg_cron jobs; a superuser sees all.';

CREATE FUNCTION @extschema@.connector_service_prometheus() RETURNS text LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH status AS MATERIALIZED (SELECT _connector_service.connector_service_status() AS found),
    connector AS MATERIALIZED (
        SELECT h.*, format('{connector_id="%s",tenant_id="%s",type="%s",name="%s"}', h.connector_id, h.tenant_id, h.type,
            replace(replace(replace(h.name, E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n')) AS labels
        FROM @extschema@.connector_health h),
    lately AS MATERIALIZED (
        SELECT r.* FROM @extschema@.sync_runs r WHERE r.requested_at > now() - interval '2 days' AND r.finished_at > now() - interval '1 hour'),
    sample (metric, help, labels, value) AS (
        SELECT 'workers', 'Sync workers that run in this database.', '', jsonb_array_length(found -> 'workers')::numeric FROM status
        UNION ALL SELECT 'workers_wanted', 'Sync workers that should run in this database.', '', (found ->> 'workers_wanted')::numeric FROM status
        -- Combinations without a connector are zero, not absent: alerts need a value.
        UNION ALL SELECT 'connectors', 'Connectors by health.', format('{health="%s"}', k.health), count(c.connector_id)
            FROM unnest('{paused,waiting,syncing,error,failing,queued,late,new,ok}'::text[]) AS k (health) LEFT JOIN connector c ON c.health = k.health GROUP BY k.health
        UNION ALL SELECT 'runs_active', 'Runs that are queued or running.', format('{kind="%s",state="%s"}', k.kind, k.state), count(r.kind)
            -- Each arm has its index.
            FROM (SELECT kind, state FROM unnest('{sync,backfill,upload,check,preview}'::text[]) AS kind, unnest('{queued,running}'::text[]) AS state) AS k LEFT JOIN (
                SELECT q.kind, q.state FROM @extschema@.sync_runs q WHERE q.state = 'queued' AND q.retry_at IS NULL
                UNION ALL SELECT q.kind, q.state FROM @extschema@.sync_runs q WHERE q.state = 'queued' AND q.retry_at IS NOT NULL
                UNION ALL SELECT q.kind, q.state FROM @extschema@.sync_runs q WHERE q.state = 'running') AS r ON r.kind = k.kind AND r.state = k.state GROUP BY k.kind, k.state
        UNION ALL SELECT 'oldest_queued_seconds', 'Age of the oldest queued run that could begin.', '',
            coalesce(extract(epoch FROM now() - min(r.requested_at)), 0) FROM @extschema@.sync_runs r WHERE r.state = 'queued' AND r.retry_at IS NULL
        UNION ALL SELECT 'runs_last_hour', 'Runs that ended within the last hour.', format('{kind="%s",state="%s"}', k.kind, k.state), count(l.run_id)
            FROM (SELECT kind, state FROM unnest('{sync,backfill,upload,webhook,check,preview}'::text[]) AS kind, unnest('{succeeded,failed,cancelled}'::text[]) AS state) AS k
                LEFT JOIN lately l ON l.kind = k.kind AND l.state = k.state GROUP BY k.kind, k.state
        UNION ALL SELECT 'records_last_hour', 'Records of runs that ended within the last hour.', format('{result="%s"}', result), count
            FROM (SELECT coalesce(sum(inserted), 0) AS inserted, coalesce(sum(updated), 0) AS updated, coalesce(sum(unchanged), 0) AS unchanged,
                    coalesce(sum(quarantined), 0) AS quarantined, coalesce(sum(deleted), 0) AS deleted FROM lately) AS l,
                LATERAL (VALUES ('inserted', inserted), ('updated', updated), ('unchanged', unchanged), ('quarantined', quarantined), ('deleted', deleted)) AS v (result, count)
        UNION ALL SELECT 'open_alerts', 'Data quality alerts that are open.', format('{severity="%s"}', k.severity), count(a.alert_id)
            FROM unnest('{info,warning,critical}'::text[]) AS k (severity)
                LEFT JOIN @extschema@.data_quality_alerts a ON a.severity = k.severity AND NOT a.resolved GROUP BY k.severity
        UNION ALL SELECT 'connector_up', '1 if a connector works, 0 if its health is error, failing or late.', labels, (health NOT IN ('error', 'failing', 'late'))::integer FROM connector
        UNION ALL SELECT 'connector_lag_seconds', 'Time since the last successful sync of a connector.', labels, extract(epoch FROM lag) FROM connector WHERE lag IS NOT NULL
        UNION ALL SELECT 'connector_failures', 'Failed runs of a connector since its last success.', labels, failures FROM connector
        UNION ALL SELECT 'connector_failed_streams', 'Streams that the latest run of a connector did not read.', labels, cardinality(failed_streams) FROM connector
        UNION ALL SELECT 'connector_unprocessed', 'Records of a connector that wait for their facts.', labels, unprocessed FROM connector
        UNION ALL SELECT 'connector_quarantined', 'Records of a connector in quarantine.', labels, quarantined FROM connector),
    family AS (
        SELECT metric, help, string_agg(format('connector_service_%s%s %s', metric, labels, trim_scale(value)), E'\n' ORDER BY labels) AS lines
        FROM sample GROUP BY metric, help)
    SELECT string_agg(format(E'# HELP connector_service_%s %s\n# TYPE connector_service_%s gauge\n%s\n', metric, help, metric, lines), '' ORDER BY metric)
    FROM family;
END;
COMMENT ON FUNCTION @extschema@.connector_service_prometheus() IS 'Returns metrics of the database, and of each connector that the caller may see, in the text format of Prometheus. All are gauges: history is deleted after a while, so the last hour is counted instead.';

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
