\echo 'Compare the two runs.'
\echo
SELECT requested_by, state, pages, received, inserted, updated, unchanged, quarantined,
    round(extract(epoch FROM finished_at - started_at), 2) AS seconds
FROM sync_runs ORDER BY requested_at;
\echo 'Look at received: the second run asked for the changes only. It read a few records again, to miss none; they are'
\echo 'counted as unchanged and were not written.'

\echo
\echo 'The cursor is the point up to which the shop has been read. The next run starts there.'
\echo
SELECT stream, cursor FROM sync_state;

SELECT count(*) AS orders, count(*) FILTER (WHERE data->>'status' = 'refunded') AS refunded
FROM raw_connector_data;
