-- A person types more slowly than a worker starts.
DO $$
DECLARE
    v_until timestamptz := clock_timestamp() + interval '30 s';
BEGIN
    WHILE EXISTS (SELECT FROM connector_service_doctor() WHERE item = 'worker' AND NOT ok) LOOP
        IF clock_timestamp() > v_until THEN
            RAISE 'no worker';
        END IF;
        PERFORM pg_sleep(0.1);
        COMMIT;
    END LOOP;
END
$$;
