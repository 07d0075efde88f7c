-- outlook: what a notice says of a connector that is new, resumed or corrected.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

CREATE FUNCTION _connector_service.connector_service_outlook(
    p_type text, p_status text, p_frequency text, p_scheduler text, p_next_sync_at timestamptz, p_zone text, p_prospects jsonb)
RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_setting text := p_prospects ->> 'scheduler';
    v_by_cron boolean := v_setting = 'pg_cron' OR v_setting = 'auto' AND p_prospects -> 'pg_cron' ? p_frequency;
    v_why_not text := CASE
        WHEN NOT (p_prospects ->> 'preloaded')::boolean THEN 'connector_service was not loaded when the server started'
        ELSE (SELECT coalesce(i.held_because, 'this database is held') FROM @extschema@.installation i WHERE i.held_since IS NOT NULL) END;
    v_first text := CASE WHEN p_next_sync_at > now() THEN format('at %s', date_trunc('second', p_next_sync_at)) ELSE 'at once' END;
BEGIN
    IF v_why_not IS NOT NULL THEN
        RETURN 'will not be synced: ' || v_why_not;
    ELSIF p_type IN ('csv', 'excel') THEN
        RETURN CASE p_status WHEN 'paused' THEN 'will take no files while it is paused' ELSE 'will wait for files' END;
    ELSIF p_type = 'webhook' THEN
        RETURN CASE p_status WHEN 'paused' THEN 'will take no events while it is paused' ELSE 'will wait for events' END;
    ELSIF p_status = 'paused' THEN
        RETURN 'will not be synced while it is paused';
    ELSIF p_scheduler = 'external' THEN
        RETURN 'will be synced when another scheduler calls connector_service_sync()';
    ELSIF p_frequency = 'manual' THEN
        RETURN CASE WHEN p_next_sync_at IS NULL THEN 'will be synced when somebody asks for it' ELSE format('will be synced %s', v_first) END;
    ELSIF v_setting = 'pg_cron' AND NOT p_prospects -> 'pg_cron' ? p_frequency THEN
        RETURN format('will be synced %s, and not again: connector_service.scheduler is pg_cron, and pg_cron has no job for %s connectors', v_first, p_frequency);
    END IF;
    RETURN format('will be synced %s, and then %s of %s, by %s%s', v_first,
        CASE p_frequency WHEN 'hourly' THEN 'at each full hour'
            WHEN 'daily' THEN CASE WHEN v_by_cron THEN 'each day at 02:00' ELSE 'each day at 00:00' END
            ELSE CASE WHEN v_by_cron THEN 'each Monday at 02:00' ELSE 'each Monday at 00:00' END END,
        p_zone, CASE WHEN v_by_cron THEN 'pg_cron' ELSE 'the sync worker' END,
        CASE WHEN (p_prospects ->> 'workers')::integer = 0 THEN ' (which does not run yet; connector_service_doctor() says why)' END);
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_outlook(text, text, text, text, timestamptz, text, jsonb) IS 'What will happen to a connector, and when: the end of a sentence. p_prospects is the result of connector_service_prospects().';

CREATE FUNCTION _connector_service.connector_service_next_step(p_connector_id uuid, p_name text, p_type text, p_status text, p_frequency text, p_scheduler text, p_is_due boolean, p_prospects jsonb)
RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_address text := p_prospects ->> 'gateway';
BEGIN
    IF NOT (p_prospects ->> 'preloaded')::boolean THEN
        RETURN 'Add connector_service to shared_preload_libraries and restart the server.';
    ELSIF EXISTS (SELECT FROM @extschema@.installation i WHERE i.held_since IS NOT NULL) THEN
        RETURN format('If this database should call the vendors: SELECT %s.connector_service_adopt();', '@extschema@');
    ELSIF p_status = 'paused' THEN
        RETURN format('To start it: UPDATE %s.connectors SET status = ''active'' WHERE connector_id = %L;', '@extschema@', p_connector_id);
    ELSIF p_type IN ('csv', 'excel') THEN
        RETURN format('To give it a file: SELECT %s.connector_service_upload(%L, ''<file name>'', <its bytes>);', '@extschema@', p_name)
            || CASE WHEN v_address IS NOT NULL THEN format(' or POST it to %s/uploads/%s', v_address, p_connector_id) ELSE '' END;
    ELSIF p_type = 'webhook' THEN
        RETURN CASE WHEN v_address IS NULL THEN 'Set connector_service.gateway_listen, so that the gateway runs. Then events are pushed to its path ' ELSE 'Events are pushed to ' || v_address END
            || format('/webhooks/%s', p_connector_id);
    ELSIF p_scheduler = 'external' OR p_frequency = 'manual' AND NOT p_is_due THEN
        RETURN format('To sync it: SELECT %s.connector_service_sync(%L);', '@extschema@', p_name);
    END IF;
    RETURN format('To wait for it: CALL %s.connector_service_sync_wait(%L);', '@extschema@', p_name);
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_next_step(uuid, text, text, text, text, text, boolean, jsonb) IS 'What a person can do next with a connector: a hint.';

CREATE FUNCTION _connector_service.connector_service_connectors_inserted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_prospects jsonb;
    v_count bigint := (SELECT count(*) FROM added);
    v_added record;
    v_text text;
BEGIN
    -- A row that is older than its own transaction was not made here: a dump is being restored, and a sync that starts in
    -- the middle would collide with the rows that are still to come. A role under row security restores nothing, so no
    -- tenant can stop all others by what it writes into created_at.
    IF EXISTS (SELECT FROM added a WHERE a.created_at < now() - interval '1 minute'
            OR a.installation_id IS DISTINCT FROM (SELECT i.installation_id FROM @extschema@.installation i))
        AND _connector_service.connector_service_restores() THEN
        UPDATE @extschema@.installation
        SET held_since = now(), held_because = 'connectors were restored from a dump'
        WHERE held_since IS NULL;
        IF FOUND THEN
            RAISE WARNING USING
                MESSAGE = 'the connectors seem to be restored from a dump; nothing is synced until this database is adopted',
                HINT = format('When the restore is complete, and this database should call the vendors: SELECT %I.connector_service_adopt();', TG_TABLE_SCHEMA);
        END IF;
        RETURN NULL;
    ELSIF v_count = 0 THEN
        RETURN NULL;
    END IF;
    v_prospects := _connector_service.connector_service_prospects();
    IF v_count <= 3 THEN
        FOR v_added IN SELECT a.*, t.timezone FROM added a JOIN @extschema@.tenants t ON t.tenant_id = a.tenant_id LOOP
            RAISE NOTICE USING
                MESSAGE = format('connector "%s" %s', left(v_added.name, 200), _connector_service.connector_service_outlook(
                    v_added.type, v_added.status, v_added.sync_frequency, v_added.scheduler, v_added.next_sync_at, v_added.timezone, v_prospects)),
                HINT = _connector_service.connector_service_next_step(
                    v_added.connector_id, v_added.name, v_added.type, v_added.status, v_added.sync_frequency, v_added.scheduler, v_added.due_at_once, v_prospects);
        END LOOP;
        RETURN NULL;
    END IF;
    -- One notice for all, however many they are.
    SELECT string_agg(format('%s %s', s.connectors, s.outlook), '; ' ORDER BY s.connectors DESC, s.outlook) FILTER (WHERE s.place <= 5)
        || CASE WHEN max(s.place) > 5 THEN '; and others' ELSE '' END INTO v_text
    FROM (
        SELECT g.outlook, sum(g.connectors) AS connectors, row_number() OVER (ORDER BY sum(g.connectors) DESC, g.outlook) AS place
        FROM (
            SELECT count(*) AS connectors, _connector_service.connector_service_outlook(
                k.type, k.status, k.sync_frequency, k.scheduler, k.due_at, k.timezone, v_prospects) AS outlook
            FROM (
                SELECT CASE WHEN a.type IN ('csv', 'excel', 'webhook') THEN a.type ELSE 'api' END AS type, a.status, a.sync_frequency, a.scheduler,
                    CASE WHEN a.next_sync_at > now() THEN a.next_sync_at WHEN a.next_sync_at IS NOT NULL THEN now() END AS due_at, t.timezone
                FROM added a JOIN @extschema@.tenants t ON t.tenant_id = a.tenant_id) AS k
            GROUP BY k.type, k.status, k.sync_frequency, k.scheduler, k.due_at, k.timezone) AS g
        GROUP BY g.outlook) AS s;
    RAISE NOTICE USING
        MESSAGE = format('%s connectors were added: %s', v_count, v_text),
        HINT = format('To see how they are: SELECT name, health FROM %I.connector_health;', TG_TABLE_SCHEMA);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_connectors_inserted() IS 'Trigger of connectors: holds syncing while a dump is being restored; otherwise tells by a notice what will happen.';
CREATE TRIGGER connectors_inserted AFTER INSERT ON @extschema@.connectors
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION _connector_service.connector_service_connectors_inserted();

CREATE FUNCTION _connector_service.connector_service_connectors_due() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_number integer := _connector_service.connector_service_notice_number();
    v_prospects jsonb;
BEGIN
    IF v_number > 4 THEN
        RETURN NULL;
    ELSIF v_number = 4 THEN
        RAISE NOTICE USING
            MESSAGE = 'other connectors of this statement are due at once, too',
            HINT = format('To see how they are: SELECT name, health FROM %I.connector_health;', TG_TABLE_SCHEMA);
        RETURN NULL;
    END IF;
    v_prospects := _connector_service.connector_service_prospects();
    RAISE NOTICE USING
        MESSAGE = format('connector "%s" %s', left(NEW.name, 200), _connector_service.connector_service_outlook(
            NEW.type, NEW.status, NEW.sync_frequency, NEW.scheduler, NEW.next_sync_at,
            (SELECT t.timezone FROM @extschema@.tenants t WHERE t.tenant_id = NEW.tenant_id), v_prospects)),
        HINT = _connector_service.connector_service_next_step(
            NEW.connector_id, NEW.name, NEW.type, NEW.status, NEW.sync_frequency, NEW.scheduler, NEW.due_at_once, v_prospects);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION _connector_service.connector_service_connectors_due() IS 'Trigger of connectors: tells by a notice what will happen to a connector that was resumed or corrected. At most four notices for each statement.';
CREATE TRIGGER connectors_due AFTER UPDATE OF type, config, credentials, status, sync_frequency, scheduler ON @extschema@.connectors
    FOR EACH ROW WHEN (NEW.due_at_once AND NOT OLD.due_at_once) EXECUTE FUNCTION _connector_service.connector_service_connectors_due();

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
