\echo 'Start it. An active connector is synced at once. Wait for the end: the notices show how far the sync is.'
\echo
UPDATE connectors SET status = 'active' WHERE name = 'web shop';
CALL connector_service_sync_wait('web shop');

\echo
\echo 'Query the records. Every order is one row, and its data column holds the JSON exactly as the shop sent it.'
\echo
SELECT data->>'city' AS city, count(*) AS orders, sum((data->>'total')::numeric) AS total
FROM raw_connector_data GROUP BY 1 ORDER BY total DESC;
SELECT count(*) AS orders, sum((data->>'total')::numeric) AS total FROM raw_connector_data;
\echo 'Look at orders: the shop has 6000, and each is here once.'
