\echo 'Let pg_cron ask every minute for the connectors that are due.'
\echo
SELECT cron.schedule('hourly connectors', '* * * * *', $$
    SELECT connector_service_sync(connector_id) FROM connectors
    WHERE status = 'active' AND sync_frequency = 'hourly' AND next_sync_at <= NOW()
$$);

-- The worker looks for jobs of pg_cron four times a second at most; what is due before it has seen this one it queues itself.
\! sleep 1
\echo
\echo 'The connector is due at the next full hour. To see it sooner, make it due now.'
\echo
UPDATE connectors SET next_sync_at = now();
