-- control: what people type into psql.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION @extschema@.connector_service_adopt() RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO @extschema@.installation AS i (system_identifier, database_oid)
    SELECT s.system_identifier, d.oid FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d
    WHERE d.datname = pg_catalog.current_database()
    ON CONFLICT (only_row) DO UPDATE
    SET system_identifier = excluded.system_identifier, database_oid = excluded.database_oid, held_since = NULL, held_because = NULL;
    SELECT _connector_service.connector_service_wake();
END;
COMMENT ON FUNCTION @extschema@.connector_service_adopt() IS 'Says that this copy of an installation (restored, cloned, made from a template) may call the vendors; the worker starts at COMMIT.';

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
                HINT = 'The run continues in the background. Look at it in sync_runs, or wait longer with p_timeout.';
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
            MESSAGE = pg_catalog.format('%s: %s', v_name, v_run.error_message),
            DETAIL = pg_catalog.format('Run %s failed with %s after %s%s.%s', p_run_id, v_run.error_code, v_read,
                CASE WHEN v_run.kind OPERATOR(pg_catalog.=) ANY ('{check,preview}'::pg_catalog.text[]) OR v_run.received OPERATOR(pg_catalog.=) 0 THEN '' ELSE ', which are stored' END,
                CASE WHEN v_run.retry_at IS NOT NULL THEN pg_catalog.format(' The next try is at %s.', pg_catalog.date_trunc('second', v_run.retry_at)) ELSE '' END),
            HINT = @extschema@.connector_service_hint(v_run.error_code);
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
COMMENT ON PROCEDURE @extschema@.connector_service_wait(uuid, interval) IS 'For psql: waits until a run has ended, and shows its progress, what it waits for, its warnings and the report of a check or preview. CALL connector_service_wait(connector_service_check(...)) starts and waits. Raises 08006 if the run failed (what is stored stays), 57014 if it was cancelled or outlasted p_timeout (it goes on), 42704 for a run that does not exist.';

CREATE PROCEDURE @extschema@.connector_service_sync_wait(p_connector_id uuid, p_timeout interval DEFAULT '10 min')
LANGUAGE plpgsql
-- No SET search_path here: a procedure that has one cannot COMMIT. Everything is qualified instead, types too.
AS $$
DECLARE
    v_run_id pg_catalog.uuid := @extschema@.connector_service_sync(p_connector_id);
BEGIN
    IF v_run_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = pg_catalog.format('connector "%s" was not queued', p_connector_id),
            HINT = 'The notice above says why.';
    END IF;
    CALL @extschema@.connector_service_wait(v_run_id, p_timeout);
END
$$;
COMMENT ON PROCEDURE @extschema@.connector_service_sync_wait(uuid, interval) IS 'For psql: queues a sync, commits, shows its progress as notices and ends with one summary line. Raises 08006 if the run failed (what is stored stays), 57014 if it was cancelled or outlasted p_timeout (it goes on), 55000 if it could not be queued.';

COMMENT ON FUNCTION @extschema@.connector_service_sync(uuid) IS 'Queues a sync and returns its run id; the active run''s id if one is queued or running. Of a connector that takes files: queues those again whose runs failed; NULL and a notice where there are none. NULL and a notice for a connector that is unknown, paused or being changed by another transaction. The worker starts it at COMMIT. Raises 55000 if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_sync_due() IS 'Queues every connector that is due and has no active run; returns the new run ids. Safe from many sessions at once. Raises 55000 if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_sync_due(text) IS 'The same for connectors of one frequency: hourly, daily or weekly; those that are daily or weekly from 02:00 of their tenant''s zone on. Raises 22023 for another frequency.';
COMMENT ON FUNCTION @extschema@.connector_service_backfill(uuid, timestamptz, timestamptz, interval) IS 'Queues a run for each window of p_step from p_from to p_to (not included; at most now), and returns their ids, the oldest window first. The windows are read one after the other, behind what is due, of the streams that are asked by date; a stream whose source takes no end is read from p_from on by the first of them. Cursors stay where they are. A window that was interrupted goes on where it was; one whose credentials or config are wrong ends those behind it. connector_service_cancel() ends one window. Raises 42704 for a connector that is unknown, or not the caller''s tenant''s, 22023 for a span that makes no sense, 53400 for more than 10000 windows, 55000 if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_refresh(uuid, text) IS 'Has a stream read from the start (config''s start_date, or 30 days ago): forgets where it stands, and queues a sync, whose id it returns. What is stored stays, and is updated where it differs. Raises 42704 for a connector or stream that is unknown, 55000 while the connector is being synced.';
COMMENT ON FUNCTION _connector_service.connector_service_status() IS 'For connector_service_doctor(): whether the library was preloaded, its version, the workers of this database, what they and the gateway try in vain again and again, and what is wrong with the key file.';
COMMENT ON FUNCTION @extschema@.connector_service_check(uuid) IS 'Queues a check and returns its run id: it logs in, reads one page of each stream and stores nothing. What it found is in sync_runs.report; CALL connector_service_wait(run id) shows it. A check of a paused connector is fine; its outcome changes nothing about the connector. Raises 42704 for a connector that is unknown, or not the caller''s tenant''s, 55000 if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_preview(uuid) IS 'Queues a preview and returns its run id: like a check, and what each page holds goes through its mappings and every constraint, is reported in sync_runs.report, and rolled back. Raises 42704 and 55000 like connector_service_check().';
COMMENT ON FUNCTION @extschema@.connector_service_upload(uuid, text, bytea) IS 'Keeps a file for a connector of type csv or excel and returns the id of the run that stores its rows as records. A file that cannot be read to its end stores nothing. A file of the same name is taken for a correction: rows that it does not show any more are gone; see config''s "replaces" in connector_service_catalog(). Raises 42704 for a connector that is unknown, or not the caller''s tenant''s, 22023 for a connector that takes no files or a file that is none of its kind, 53400 above connector_service.max_upload_size, 55000 for a paused connector or if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_preview_upload(uuid, text, bytea) IS 'Queues a preview of a file and returns its run id: the file is read to its end, and what was understood of it (encoding, delimiter, headings, what columns look like) and what its first records would bring is in sync_runs.report. Stores nothing, and forgets the file. Raises what connector_service_upload() does, but takes files of a paused connector.';
COMMENT ON FUNCTION @extschema@.connector_service_catalog() IS 'What kinds of connectors there are: their streams (those of default_streams are read where config.streams does not choose), and the keys of credentials and config with their meaning.';
COMMENT ON FUNCTION _connector_service.connector_service_types() IS 'The rows of connector_service_catalog().';
COMMENT ON FUNCTION @extschema@.connector_service_cancel(uuid) IS 'Ends a queued or running sync; what it has stored stays. The schedule asks again at the connector''s next slot. False if it had ended already or is not known.';
COMMENT ON FUNCTION @extschema@.connector_service_reprocess(uuid) IS 'Derives facts and metrics of a connector again from its raw records, by the mappings as they are; fetches nothing. Only what differs is written. Returns the number of records. Raises 42704 for a connector that is unknown, or not the caller''s tenant''s.';
COMMENT ON FUNCTION @extschema@.connector_service_replay(uuid) IS 'Tries the quarantined records of a connector again: those a mapping could not read, and those PostgreSQL refused. Returns how many are out of quarantine now. Raises 42704 for a connector that is unknown, or not the caller''s tenant''s.';
COMMENT ON FUNCTION _connector_service.connector_service_wake() IS 'Wakes this database''s sync worker at COMMIT, or has one started.';
COMMENT ON FUNCTION _connector_service.connector_service_seal(uuid, uuid, text, jsonb, jsonb, uuid, jsonb) IS 'For the trigger of connectors: credentials sealed for their place. What is sealed already is kept, if it belongs there. Raises 22023 with a hint for a type, config or credentials that make no sense, 42501 for credentials of another connector, 55000 where the key file is missing or another one; warns of a type that this version cannot sync, of a host that may not be called, and of credentials whose key is not here.';
COMMENT ON FUNCTION _connector_service.connector_service_check_config(jsonb) IS 'For the trigger of connectors: raises 22023 for a config that is larger than a run should read, or nested deeper.';
COMMENT ON FUNCTION @extschema@.connector_service_key_file() IS 'Where the key file is, or will be once there is a credential; for superusers. NULL if the library was not preloaded.';
COMMENT ON FUNCTION @extschema@.connector_service_seal_key() IS 'Public key (X25519, base64) for sealed boxes, crypto_box_seal of libsodium: a secret that is encrypted with it can be written into connectors.credentials as {"$box": base64}, and never appears in SQL. Creates the key file where there is none. Raises 55000.';
COMMENT ON FUNCTION @extschema@.connector_service_new_key() IS 'Puts a new key in front of the key file, which seals from then on; returns its id. CALL connector_service_rotate_key() does this and seals everything again. Raises 55000.';
COMMENT ON FUNCTION @extschema@.connector_service_retire_key(text) IS 'Drops a key from the key file. Raises 55000 while credentials of this database are sealed with it, 22023 for what is no key id; other databases of the server are not looked at.';
COMMENT ON FUNCTION _connector_service.connector_service_reseal(uuid, uuid, jsonb) IS 'Sealed credentials of a tenant''s connector, sealed with the current key. Raises 42501 for credentials of another connector, 55000 where their key is not here.';
COMMENT ON FUNCTION _connector_service.connector_service_key_ids(jsonb) IS 'The ids of the keys that credentials are sealed with.';

CREATE FUNCTION @extschema@.connector_service_keys() RETURNS TABLE (key_id text, connectors bigint) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT key.id, count(*)
    FROM @extschema@.connectors c CROSS JOIN LATERAL unnest(_connector_service.connector_service_key_ids(c.credentials)) AS key(id)
    GROUP BY key.id ORDER BY key.id;
END;
COMMENT ON FUNCTION @extschema@.connector_service_keys() IS 'The keys that credentials of this database are sealed with, and those of how many connectors.';

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
COMMENT ON FUNCTION @extschema@.connector_service_reseal(uuid[]) IS 'Seals the credentials of connectors again with the current key; returns how many connectors were sealed with another one. CALL connector_service_rotate_key(false) does this for all of them. Raises 55000 where a key is not here.';

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
COMMENT ON PROCEDURE @extschema@.connector_service_rotate_key(boolean) IS 'Makes a new key and seals all credentials with it, a hundred connectors in a transaction; the older keys stay in the key file until connector_service_retire_key(). Where it was interrupted, or for another database of the server: CALL connector_service_rotate_key(false) seals with the key that is there. Raises 55000.';

COMMENT ON FUNCTION _connector_service.connector_service_check_type(text) IS 'Raises 22023 for a connector type that is not known.';
COMMENT ON FUNCTION _connector_service.connector_service_amount(text) IS 'The amount that a text stands for, exactly; NULL for anything but a plain decimal number: no thousands marks, decimal comma, currency sign, NaN or Infinity.';
COMMENT ON FUNCTION _connector_service.connector_service_day(text, text) IS 'The day that a text stands for in a time zone; NULL for what is ambiguous or no date. ISO 8601 with an offset, or a count of (milli-, micro-)seconds since 1970, is a moment; a plain date or a time without offset is that day.';
COMMENT ON FUNCTION _connector_service.connector_service_hours(text, text) IS 'The hours between two times of ISO 8601, rounded to six decimals; NULL for what is no time, or where one has an offset and the other has none.';
COMMENT ON FUNCTION @extschema@.connector_service_hint(text) IS 'What to do about an error_code of sync_runs; NULL for an unknown code.';

SELECT _connector_service.connector_service_wake();

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
