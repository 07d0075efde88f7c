# Waits until the checks on the new server have ended.
psql -h new.example.com -q -v ON_ERROR_STOP=1 -c "DO \$\$ BEGIN
    FOR i IN 1..600 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM sync_runs WHERE state IN ('queued', 'running'));
        PERFORM pg_sleep(0.1);
        COMMIT;
    END LOOP;
END \$\$"
