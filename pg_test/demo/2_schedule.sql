\echo
\echo == 5. From here on pg_cron asks for what is due, every minute ==
SELECT cron.schedule('hourly connectors', '* * * * *', $$
    SELECT connector_service_sync(connector_id) FROM connectors
    WHERE status = 'active' AND sync_frequency = 'hourly' AND next_sync_at <= NOW()
$$);
-- The next full hour is far away; for the demonstration it is now.
UPDATE connectors SET next_sync_at = now();
