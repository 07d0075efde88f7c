-- control: what people type into psql.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION @extschema@.connector_service_adopt() RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT _connector_service.connector_service_check_orphans();
    INSERT INTO @extschema@.installation AS i (system_identifier, database_oid)
    SELECT s.system_identifier, d.oid FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
    WHERE d.datname = pg_catalog.current_database()
    ON CONFLICT (only_row) DO UPDATE
    SET system_identifier = excluded.system_identifier, database_oid = excluded.database_oid, held_since = NULL, held_because = NULL;
    UPDATE @extschema@.connectors c SET installation_id = i.installation_id
    FROM @extschema@.installation i WHERE c.installation_id IS DISTINCT FROM i.installation_id;
    SELECT _connector_service.connector_service_wake();
END;
COMMENT ON FUNCTION @extschema@.connector_service_adopt() IS 'Allows this copy of an installation (restored, cloned, or made from a template) to call the vendors. The worker starts at COMMIT. Raises 23503 if the restore is not complete: rows refer to rows that are not there.';

CREATE FUNCTION @extschema@.connector_service_catalog()
RETURNS TABLE (type text, available boolean, kind text, default_frequency text, default_streams text[], streams text[], credentials jsonb, config jsonb)
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT t.type_name, t.available, t.kind, t.default_frequency, t.default_streams, t.streams, t.credentials, t.config
    FROM _connector_service.connector_service_types() t ORDER BY t.type_name;
END;

CREATE PROCEDURE @extschema@.connector_service_wait(p_run_id uuid, p_timeout interval DEFAULT '10 min')
LANGUAGE plpgsql
-- No SET search_path here: a procedure that has one cannot COMMIT. Everything is qualified instead, types too.
AS $$
DECLARE
    v_run @extschema@.sync_runs;
    v_name pg_catalog.text;
    v_pages bigint := 0;
    v_read pg_catalog.text;
    v_waiting_for pg_catalog.text;
    v_seconds numeric;
    v_deadline pg_catalog.timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) p_timeout;
    v_shown pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    v_stream pg_catalog.jsonb;
    v_warning pg_catalog.text;
BEGIN
    IF p_run_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'p_run_id is NULL',
            HINT = 'A function that queues nothing returns NULL, and says why in a notice.';
    END IF;
    -- A run that was queued in this transaction can start now.
    COMMIT;
    LOOP
        SELECT r.* INTO v_run FROM @extschema@.sync_runs r WHERE r.run_id OPERATOR(pg_catalog.=) p_run_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'undefined_object',
                MESSAGE = pg_catalog.format('run "%s" does not exist', p_run_id),
                HINT = 'If the run existed a moment ago, its connector was deleted.';
        END IF;
        IF v_name IS NULL THEN
            SELECT c.name INTO v_name FROM @extschema@.connectors c WHERE c.connector_id OPERATOR(pg_catalog.=) v_run.connector_id;
        END IF;
        v_read := pg_catalog.concat(v_run.pages, CASE WHEN v_run.pages OPERATOR(pg_catalog.=) 1 THEN ' page, ' ELSE ' pages, ' END,
            v_run.received, CASE WHEN v_run.received OPERATOR(pg_catalog.=) 1 THEN ' record' ELSE ' records' END);
        EXIT WHEN v_run.state OPERATOR(pg_catalog.=) ANY ('{succeeded,failed,cancelled}'::pg_catalog.text[]);
        v_seconds := greatest(EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) coalesce(v_run.started_at, pg_catalog.clock_timestamp())), 0.001);
        IF v_run.waiting_for IS NULL THEN
            v_waiting_for := NULL;
        ELSIF NOT coalesce(v_run.waiting_for OPERATOR(pg_catalog.=) v_waiting_for, false) THEN
            -- These two have no time: the run goes on as soon as they are done. The first one is usually short.
            IF v_run.waiting_for OPERATOR(pg_catalog.<>) ALL ('{its metrics,the windows before it}'::pg_catalog.text[]) THEN
                v_waiting_for := v_run.waiting_for;
                RAISE NOTICE '%: retrying at %: %', v_name, pg_catalog.date_trunc('second', v_run.retry_at), v_run.waiting_for;
            ELSIF v_run.retry_at OPERATOR(pg_catalog.=) 'infinity'::pg_catalog.timestamptz
                OR pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>=) (v_run.retry_at OPERATOR(pg_catalog.+) '2 s'::pg_catalog.interval) THEN
                v_waiting_for := v_run.waiting_for;
                RAISE NOTICE '%: waiting for %', v_name, v_run.waiting_for;
            END IF;
        END IF;
        IF v_run.pages OPERATOR(pg_catalog.>) v_pages
            AND pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>=) (v_shown OPERATOR(pg_catalog.+) '1 s'::pg_catalog.interval) THEN
            v_pages := v_run.pages;
            v_shown := pg_catalog.clock_timestamp();
            RAISE NOTICE '%: %, % records/s', v_name, v_read, pg_catalog.round(v_run.received OPERATOR(pg_catalog./) v_seconds);
        END IF;
        IF pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>) v_deadline THEN
            RAISE EXCEPTION USING ERRCODE = 'query_canceled',
                MESSAGE = pg_catalog.format('run "%s" is still %s after %s', p_run_id, v_run.state, p_timeout),
                DETAIL = pg_catalog.concat('It has read ', v_read, ' so far.', CASE WHEN v_run.waiting_for IS NOT NULL THEN pg_catalog.format(' It waits: %s.', v_run.waiting_for) END),
                HINT = pg_catalog.format('The run continues in the background. To wait longer: CALL %s.connector_service_wait(%L, ''1 hour''); To end it: SELECT %s.connector_service_cancel(%L);',
                    '@extschema@', p_run_id, '@extschema@', p_run_id);
        END IF;
        COMMIT;
        PERFORM pg_catalog.pg_sleep(0.05);
    END LOOP;

    FOREACH v_warning IN ARRAY v_run.warnings LOOP
        RAISE WARNING '%: %', v_name, v_warning;
    END LOOP;
    FOR v_stream IN SELECT s.stream FROM pg_catalog.jsonb_array_elements(v_run.report) AS s(stream) LOOP
        RAISE NOTICE '%: stream "%": %', v_name, v_stream OPERATOR(pg_catalog.->>) 'stream', v_stream OPERATOR(pg_catalog.->>) 'summary';
    END LOOP;
    IF v_run.state OPERATOR(pg_catalog.=) 'failed' THEN
        RAISE EXCEPTION USING ERRCODE = 'connection_failure',
            MESSAGE = pg_catalog.format('%s: %s', v_name, coalesce(v_run.error_message, 'the run failed')),
            DETAIL = pg_catalog.format('Run %s failed with %s after %s%s.%s%s', p_run_id, v_run.error_code, v_read,
                CASE WHEN v_run.kind OPERATOR(pg_catalog.=) ANY ('{check,preview}'::pg_catalog.text[]) OR v_run.received OPERATOR(pg_catalog.=) 0 THEN '' ELSE ', which are stored' END,
                (SELECT pg_catalog.format(' Streams that were read to their end: %s.', pg_catalog.string_agg(s.key, ', ' ORDER BY s.key))
                    FROM pg_catalog.jsonb_each(v_run.streams) AS s
                    WHERE (s.value OPERATOR(pg_catalog.->>) 'state') OPERATOR(pg_catalog.=) 'ok' HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0),
                CASE WHEN v_run.retry_at IS NOT NULL THEN pg_catalog.format(' The next try is at %s.', pg_catalog.date_trunc('second', v_run.retry_at)) ELSE '' END),
            -- A code that this version does not know has no hint.
            HINT = coalesce(@extschema@.connector_service_hint(v_run.error_code), 'The row of the run in sync_runs says more.');
    ELSIF v_run.state OPERATOR(pg_catalog.=) 'cancelled' THEN
        RAISE EXCEPTION USING ERRCODE = 'query_canceled',
            MESSAGE = pg_catalog.format('%s: run "%s" was cancelled', v_name, p_run_id),
            DETAIL = coalesce(v_run.error_message, 'The run has no error_message.');
    END IF;
    v_seconds := greatest(EXTRACT(epoch FROM v_run.finished_at OPERATOR(pg_catalog.-) v_run.started_at), 0.001);
    IF v_run.kind OPERATOR(pg_catalog.=) ANY ('{check,preview}'::pg_catalog.text[]) THEN
        RAISE NOTICE '%: % succeeded in % s; nothing was stored', v_name, v_run.kind, pg_catalog.round(v_seconds, 2);
        RETURN;
    END IF;
    RAISE NOTICE '%: succeeded in % s: % (% inserted, % updated, % unchanged, % quarantined%), % records/s',
        v_name, pg_catalog.round(v_seconds, 2), v_read, v_run.inserted, v_run.updated, v_run.unchanged, v_run.quarantined,
        pg_catalog.concat(
            CASE WHEN v_run.deleted OPERATOR(pg_catalog.>) 0 THEN pg_catalog.format(', %s deleted', v_run.deleted) END,
            CASE WHEN v_run.unmapped OPERATOR(pg_catalog.>) 0 THEN pg_catalog.format(', %s stored but not mapped', v_run.unmapped) END),
        pg_catalog.round(v_run.received OPERATOR(pg_catalog./) v_seconds);
    IF v_run.window_from IS NOT NULL THEN
        RAISE NOTICE '%: requested records from % to %', v_name, pg_catalog.date_trunc('second', v_run.window_from), pg_catalog.concat(
            pg_catalog.date_trunc('second', v_run.window_to),
            -- Only a first sync leaves older records out.
            CASE WHEN v_run.kind OPERATOR(pg_catalog.=) 'sync' AND NOT EXISTS (
                SELECT FROM @extschema@.sync_runs r WHERE r.connector_id OPERATOR(pg_catalog.=) v_run.connector_id AND r.kind OPERATOR(pg_catalog.=) 'sync'
                    AND r.state OPERATOR(pg_catalog.=) 'succeeded' AND r.run_id OPERATOR(pg_catalog.<>) p_run_id)
                THEN '; older ones: connector_service_backfill(...)' END);
    END IF;
END
$$;
COMMENT ON PROCEDURE @extschema@.connector_service_wait(uuid, interval) IS 'For psql: commits, waits until run p_run_id has ended, and shows its progress, warnings and report as notices. CALL connector_service_wait(connector_service_check(...)) starts a check and waits for it. p_timeout is 10 minutes if left out; NULL waits without a limit. Raises 08006 if the run failed (what it stored stays), 57014 if the run was cancelled or took longer than p_timeout (it goes on), 22004 if p_run_id is NULL, 42704 if there is no such run.';

CREATE PROCEDURE @extschema@.connector_service_sync_wait(p_connector_id uuid, p_timeout interval DEFAULT '10 min')
LANGUAGE plpgsql
-- No SET search_path here: a procedure that has one cannot COMMIT. Everything is qualified instead, types too.
AS $$
DECLARE
    v_run_id pg_catalog.uuid := @extschema@.connector_service_sync(p_connector_id);
BEGIN
    IF p_connector_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'p_connector_id is NULL',
            HINT = 'Give the id or the name of a connector.';
    ELSIF v_run_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = pg_catalog.format('connector "%s" was not queued', p_connector_id),
            HINT = 'The notice above says why.';
    END IF;
    CALL @extschema@.connector_service_wait(v_run_id, p_timeout);
END
$$;
COMMENT ON PROCEDURE @extschema@.connector_service_sync_wait(uuid, interval) IS 'For psql: queues a sync of connector p_connector_id, commits, shows the progress as notices, and ends with one line of summary. p_timeout is 10 minutes if left out; NULL waits without a limit. Raises 08006 if the run failed (what it stored stays), 57014 if the run was cancelled or took longer than p_timeout (it goes on), 55000 if it could not be queued, 22004 if p_connector_id is NULL.';

CREATE PROCEDURE @extschema@.connector_service_sync_wait(p_connector text, p_timeout interval DEFAULT '10 min')
LANGUAGE plpgsql
-- No SET search_path here: a procedure that has one cannot COMMIT. Everything is qualified instead, types too.
AS $$
DECLARE
    v_run_id pg_catalog.uuid := @extschema@.connector_service_sync(p_connector);
BEGIN
    IF p_connector IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'p_connector is NULL',
            HINT = 'Give the id or the name of a connector.';
    ELSIF v_run_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = pg_catalog.format('connector "%s" was not queued', p_connector),
            HINT = 'The notice above says why.';
    END IF;
    CALL @extschema@.connector_service_wait(v_run_id, p_timeout);
END
$$;
COMMENT ON PROCEDURE @extschema@.connector_service_sync_wait(text, interval) IS 'connector_service_sync_wait() with the name or id of a connector.';
COMMENT ON FUNCTION @extschema@.connector_service_sync(text) IS 'connector_service_sync() with the name or id of a connector that the caller sees: capital letters of ASCII make no difference. An unknown name gives NULL and a notice with names that are like it. Raises 21000 if connectors of several tenants have the name.';
COMMENT ON FUNCTION @extschema@.connector_service_check(text) IS 'connector_service_check() with the name or id of a connector. Raises 42704 for an unknown one, 21000 if connectors of several tenants have the name.';
COMMENT ON FUNCTION @extschema@.connector_service_preview(text) IS 'connector_service_preview() with the name or id of a connector. Raises 42704 for an unknown one, 21000 if connectors of several tenants have the name.';
COMMENT ON FUNCTION @extschema@.connector_service_backfill(text, timestamptz, timestamptz, interval) IS 'connector_service_backfill() with the name or id of a connector. Raises 42704 for an unknown one, 21000 if connectors of several tenants have the name.';
COMMENT ON FUNCTION @extschema@.connector_service_refresh(text, text) IS 'connector_service_refresh() with the name or id of a connector. Raises 42704 for an unknown one, 21000 if connectors of several tenants have the name.';
COMMENT ON FUNCTION @extschema@.connector_service_cancel(text) IS 'Cancels a run. p_run is the id of the run, or the name or id of a connector: then the run that is running, or else the one that was queued first. Returns false if there is none. Raises 42704 for an unknown name, 21000 if connectors of several tenants have the name.';
COMMENT ON FUNCTION @extschema@.connector_service_upload(text, text, bytea) IS 'connector_service_upload() with the name or id of a connector. Raises 42704 for an unknown one, 21000 if connectors of several tenants have the name.';
COMMENT ON FUNCTION @extschema@.connector_service_preview_upload(text, text, bytea) IS 'connector_service_preview_upload() with the name or id of a connector. Raises 42704 for an unknown one, 21000 if connectors of several tenants have the name.';
COMMENT ON FUNCTION @extschema@.connector_service_reprocess(text) IS 'connector_service_reprocess() with the name or id of a connector. Raises 42704 for an unknown one, 21000 if connectors of several tenants have the name.';
COMMENT ON FUNCTION @extschema@.connector_service_count(text, text, boolean) IS 'connector_service_count() with the name or id of a connector. Raises 42704 for an unknown one, 21000 if connectors of several tenants have the name.';
COMMENT ON FUNCTION @extschema@.connector_service_replay(text) IS 'connector_service_replay() with the name or id of a connector. Raises 42704 for an unknown one, 21000 if connectors of several tenants have the name.';
COMMENT ON FUNCTION _connector_service.connector_service_prospects() IS 'What decides when a connector of this database is synced, and by whom, as JSON: whether the library was preloaded, the number of sync workers, connector_service.scheduler, the frequencies that pg_cron has jobs for, and the address of the gateway.';
COMMENT ON FUNCTION _connector_service.connector_service_similar(text, text[]) IS 'The texts that are most like a text, the best one first; none if all are too different.';
COMMENT ON FUNCTION _connector_service.connector_service_notice_number() IS 'How often this function was called within the running statement.';

COMMENT ON FUNCTION @extschema@.connector_service_sync(uuid) IS 'Queues a sync of connector p_connector_id and returns its run id. If a sync is queued or running already, returns the id of that run. For a connector that takes files, queues files whose run failed again. A connector that is unknown, paused, pushed to, or being changed by another transaction gives NULL and a notice, and no error, so that one statement can sync many connectors. The run starts at COMMIT. Raises 55000 if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_sync_due() IS 'Queues a sync of every connector that is due and has no active run; returns the new run ids. Many sessions may call it at once. Raises 55000 if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_sync_due(text) IS 'Queues a sync of every due connector of frequency p_frequency (hourly, daily or weekly); returns the new run ids. Daily and weekly connectors are due from 02:00 of their tenant''s time zone on. Raises 22023 for another frequency, 55000 if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_backfill(uuid, timestamptz, timestamptz, interval) IS 'Queues one run for each window of length p_step from p_from to p_to (p_to is not included, and is at most now); returns the run ids, the oldest window first. The windows are read one after the other, behind syncs that are due, and cursors do not change. Only streams that can be asked by date are read; a stream whose source takes no end is read once, from p_from on. A window that is interrupted goes on where it was; wrong credentials or a wrong config end the windows behind it. Raises 42704 for a connector that is unknown or another tenant''s, 22023 for a span that makes no sense, 53400 for more than 10000 windows, 55000 if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_refresh(uuid, text) IS 'Has stream p_stream read again from its start: deletes its cursor, queues a sync and returns the run id. The start is start_date of the config, or 30 days ago. Stored records stay, and are updated where they differ. Where the source can tell, what it does not have any more is marked as deleted. Raises 42704 for a connector or stream that is unknown, 55000 while the connector is being synced or if the library was not preloaded.';
COMMENT ON FUNCTION _connector_service.connector_service_status() IS 'What only shared memory and files know, as JSON: whether the library was preloaded, its version, the workers of this database, what fails again and again, and what is wrong with the key file.';
COMMENT ON FUNCTION @extschema@.connector_service_check(uuid) IS 'Tests a connection: queues a check and returns its run id. The check logs in, reads one page of each stream and stores nothing. Its report is in sync_runs.report; CALL connector_service_wait(run id) shows it. A paused connector can be checked, and its state does not change. Raises 42704 for a connector that is unknown or another tenant''s, 55000 if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_preview(uuid) IS 'Queues a dry run and returns its run id. It reads one page of each stream, takes the records through mappings and constraints, reports what they would change, and rolls back. Its report is in sync_runs.report; CALL connector_service_wait(run id) shows it. Raises 42704 for a connector that is unknown or another tenant''s, 55000 if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_upload(uuid, text, bytea) IS 'Stores file p_content under the name p_file_name for a connector of type csv or excel, queues the run that reads it, and returns the run id. A file that cannot be read to its end stores no record. A file of the same name replaces the earlier one: rows that it does not show any more are deleted; see "replaces" in connector_service_catalog(). Raises 42704 for a connector that is unknown or another tenant''s, 22023 for a connector that takes no files or a file of another kind, 53400 for a file above connector_service.max_upload_size, 55000 for a paused connector or if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_preview_upload(uuid, text, bytea) IS 'Queues a dry run of a file and returns its run id; stores no record, and deletes the file afterwards. sync_runs.report tells the encoding, delimiter, headings and columns that were found, and what the first records would change. Takes the arguments of connector_service_upload(), and raises the same errors, but also works for a paused connector.';
COMMENT ON FUNCTION @extschema@.connector_service_catalog() IS 'Returns one row for each type of connector: its streams (those in default_streams are read unless config.streams names others), and the keys of credentials and config with their meaning.';
COMMENT ON FUNCTION _connector_service.connector_service_types() IS 'The rows of connector_service_catalog().';
COMMENT ON FUNCTION @extschema@.connector_service_cancel(uuid) IS 'Cancels run p_run_id if it is queued or running; what it stored stays. The connector is synced again when it is due next. Returns false if the run has ended or is not known.';
COMMENT ON FUNCTION @extschema@.connector_service_reprocess(uuid) IS 'Derives the facts and metrics of a connector again from its stored records, with the current mappings. Fetches nothing, writes only what differs, and returns the number of records. Raises 42704 for a connector that is unknown or another tenant''s.';
COMMENT ON FUNCTION @extschema@.connector_service_count(uuid, text, boolean) IS 'Decides whether the facts of connector p_connector_id count for p_metric_type: revenue, costs, inventory, staffing, a measure of its tenant, or refunds (the part of costs that was paid back to customers). With p_counts false they stay, and are left out of the metrics, on all days. The decision wins over the comparison of the upkeep process (see count_decisions), and is applied at once. NULL: gives the decision back to the upkeep process; what it does not compare (all but revenue, costs and refunds) counts. Raises 42704 for a connector that is unknown or another tenant''s, 22023 for an unknown metric type, 22004 if p_connector_id or p_metric_type is NULL.';
COMMENT ON FUNCTION @extschema@.connector_service_replay(uuid) IS 'Tries the quarantined records of a connector again: records that a mapping could not read, and records that PostgreSQL refused. Returns how many records left quarantine. Raises 42704 for a connector that is unknown or another tenant''s.';
COMMENT ON FUNCTION _connector_service.connector_service_wake() IS 'Wakes the sync worker of this database at COMMIT, or has it started.';
COMMENT ON FUNCTION _connector_service.connector_service_seal(uuid, uuid, text, jsonb, jsonb, uuid, jsonb) IS 'Seals credentials for the tenant and connector that they belong to; sealed ones that belong there are kept. Raises 22023 with a hint for a type, config or credentials that make no sense, 42501 for credentials of another connector, 55000 if the key file is missing or another one. Warns of a type that this version cannot sync, of a host that may not be called, and of credentials whose key is missing.';
COMMENT ON FUNCTION _connector_service.connector_service_check_config(jsonb) IS 'Raises 22023 for a config above 1 MB, 20000 values or 64 levels.';
COMMENT ON FUNCTION @extschema@.connector_service_key_file() IS 'Returns the path of the key file, which is created with the first credential; for superusers. NULL if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_seal_key() IS 'Returns the public key (X25519, base64) for sealed boxes (crypto_box_seal of libsodium). A secret that is encrypted with it can be written into connectors.credentials as {"$box": base64}, and never appears in SQL. Creates the key file if there is none. Raises 55000 if the key file is missing, is another one, or cannot be created.';
COMMENT ON FUNCTION @extschema@.connector_service_new_key() IS 'Adds a new key to the key file and returns its id. Credentials are sealed with it from then on; those that are sealed already keep their key. CALL connector_service_rotate_key() also seals these again. Raises 55000 if the key file is missing, is another one, or cannot be written.';
COMMENT ON FUNCTION @extschema@.connector_service_retire_key(text) IS 'Deletes key p_key_id from the key file. Looks for credentials in this database only, and not in other databases of the server. Raises 55000 while credentials of this database are sealed with the key, 22023 for a text that is no key id.';
COMMENT ON FUNCTION _connector_service.connector_service_reseal(uuid, uuid, jsonb) IS 'Seals sealed credentials of a tenant''s connector with the current key. Raises 42501 for credentials of another connector, 55000 if their key is missing.';
COMMENT ON FUNCTION _connector_service.connector_service_key_ids(jsonb) IS 'The ids of the keys that credentials are sealed with.';

CREATE FUNCTION @extschema@.connector_service_keys() RETURNS TABLE (key_id text, connectors bigint) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT key.id, count(*)
    FROM @extschema@.connectors c CROSS JOIN LATERAL unnest(_connector_service.connector_service_key_ids(c.credentials)) AS key(id)
    GROUP BY key.id ORDER BY key.id;
END;
COMMENT ON FUNCTION @extschema@.connector_service_keys() IS 'Returns the ids of the keys that credentials of this database are sealed with, and the number of connectors for each.';

CREATE FUNCTION @extschema@.connector_service_reseal(p_connector_ids uuid[]) RETURNS bigint LANGUAGE sql
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH resealed AS MATERIALIZED (
        SELECT c.connector_id, _connector_service.connector_service_reseal(c.tenant_id, c.connector_id, c.credentials) AS credentials
        FROM @extschema@.connectors c WHERE c.connector_id = ANY (p_connector_ids) FOR NO KEY UPDATE),
    -- What is sealed with the current key already is not written.
    written AS (
        UPDATE @extschema@.connectors c SET credentials = r.credentials FROM resealed r
        WHERE c.connector_id = r.connector_id AND c.credentials <> r.credentials
        RETURNING c.connector_id)
    SELECT count(*) FROM written;
END;
COMMENT ON FUNCTION @extschema@.connector_service_reseal(uuid[]) IS 'Seals the credentials of connectors p_connector_ids with the current key; returns the number of connectors that had another key. CALL connector_service_rotate_key(false) does this for all connectors. Raises 55000 if a key is missing.';

CREATE PROCEDURE @extschema@.connector_service_rotate_key(p_new_key boolean DEFAULT true)
LANGUAGE plpgsql
-- No SET search_path here: a procedure that has one cannot COMMIT. Everything is qualified instead, types too.
AS $$
DECLARE
    v_current pg_catalog.text;
    v_connectors pg_catalog.uuid[];
    v_count bigint := 0;
BEGIN
    IF p_new_key THEN
        v_current := @extschema@.connector_service_new_key();
        COMMIT;
        RAISE NOTICE 'credentials are sealed with key % from now on', v_current;
    END IF;
    v_connectors := ARRAY(SELECT c.connector_id FROM @extschema@.connectors c ORDER BY c.connector_id);
    FOR v_first IN 1 .. pg_catalog.cardinality(v_connectors) BY 100 LOOP
        -- A running sync has opened its credentials already.
        v_count := v_count OPERATOR(pg_catalog.+) @extschema@.connector_service_reseal(v_connectors[v_first : v_first OPERATOR(pg_catalog.+) 99]);
        COMMIT;
    END LOOP;
    RAISE NOTICE 'credentials of % were sealed again', CASE WHEN v_count OPERATOR(pg_catalog.=) 1 THEN '1 connector' ELSE pg_catalog.concat(v_count, ' connectors') END;
END
$$;
COMMENT ON PROCEDURE @extschema@.connector_service_rotate_key(boolean) IS 'Adds a new key to the key file, and seals all credentials of this database with it, a hundred connectors in one transaction. With p_new_key false: seals with the current key, after an interruption, or in another database of the server. Older keys stay in the key file until connector_service_retire_key(). Raises 55000 if a key is missing, or the key file cannot be written.';

COMMENT ON FUNCTION _connector_service.connector_service_check_type(text) IS 'Raises 22023 for a connector type that is not known.';
COMMENT ON FUNCTION _connector_service.connector_service_amount(text) IS 'The exact amount that a text stands for: a plain decimal number, perhaps with a currency, parentheses, a sign behind it, or CR. NULL for what is no amount or can be read in two ways.';
COMMENT ON FUNCTION _connector_service.connector_service_amount_in(text, text) IS 'The exact amount that a text stands for, as connector_service_amount() reads it. NULL also if the text names another currency than p_currency.';
COMMENT ON FUNCTION _connector_service.connector_service_decimal(text) IS 'The exact amount that a text stands for. NULL for anything but a plain decimal number: no thousands mark, decimal comma, currency sign, NaN or Infinity. Built-in mappings read amounts with it.';
COMMENT ON FUNCTION _connector_service.connector_service_numbers(text) IS 'JSON in which each text that is an amount is a number, for paths that calculate.';
COMMENT ON FUNCTION _connector_service.connector_service_day(text, text) IS 'The day that a text stands for in a time zone. ISO 8601 with an offset, RFC 2822, or a number of seconds, milliseconds, microseconds or nanoseconds since 1970, is a time; a plain date, or a time without an offset, is that day. NULL for what is ambiguous or no date.';
COMMENT ON FUNCTION _connector_service.connector_service_clock(text) IS 'The time that a text stands for, to the microsecond, as text that PostgreSQL reads: with a Z, or without one for a time of the tenant''s zone. A plain date is the beginning of its day. NULL for what connector_service_day() does not read.';
COMMENT ON FUNCTION _connector_service.connector_service_hours(text, text) IS 'The hours between two times of ISO 8601, rounded to six decimals. NULL for what is no time, or if only one of them has an offset.';
COMMENT ON FUNCTION @extschema@.connector_service_hint(text) IS 'Returns what to do about error code p_error_code of sync_runs. NULL for an unknown code.';

SELECT _connector_service.connector_service_wake();

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
