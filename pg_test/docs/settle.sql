-- Waits until nothing is queued or running, so that what the page shows next is always the same.
DO $$
DECLARE
    v_until timestamptz := clock_timestamp() + interval '60 s';
BEGIN
    WHILE EXISTS (SELECT FROM sync_runs WHERE state IN ('queued', 'running')) OR EXISTS (SELECT FROM raw_connector_data WHERE NOT processed)
            OR EXISTS (SELECT FROM connectors WHERE status = 'active' AND next_sync_at <= clock_timestamp()) LOOP
        IF clock_timestamp() > v_until THEN
            RAISE 'it is still at work';
        END IF;
        PERFORM pg_sleep(0.1);
        COMMIT;
    END LOOP;
END
$$;
