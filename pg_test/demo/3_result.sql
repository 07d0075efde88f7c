\echo
\echo == 6. The job of pg_cron has run: only what had changed was asked for ==
SELECT state, requested_by, pages, received, inserted, updated, unchanged, quarantined, unmapped,
    round(extract(epoch FROM finished_at - started_at), 2) AS seconds
FROM sync_runs ORDER BY requested_at;

SELECT stream, cursor FROM sync_state;

SELECT count(*) AS orders, sum((data->>'total')::numeric) AS total,
    count(*) FILTER (WHERE data->>'status' = 'refunded') AS refunded
FROM raw_connector_data;

SELECT status, job_pid IS NOT NULL AS ran, return_message FROM cron.job_run_details;
