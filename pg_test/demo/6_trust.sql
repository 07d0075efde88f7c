\echo 'Look for days without data. This usually runs every night.'
\echo
SELECT check_missing_data();
SELECT alert_type, severity, message FROM data_quality_alerts WHERE NOT resolved ORDER BY alert_type;
SELECT source_record_id, reason_code, reason FROM quarantine WHERE replayed_at IS NULL;
\echo 'Look at the two alerts: on one day the shop took no order, and one order has a price that is no number. That order is'
\echo 'stored and quarantined. It counts as soon as the shop or the mapping is corrected.'

\echo
\echo 'Take one number, the refunds of a day, and ask where it comes from.'
\echo
SELECT metric_id, metric_date, metric_value AS refunds FROM metrics WHERE metric_type = 'costs' ORDER BY metric_date LIMIT 1 \gset
\echo 'Refunds of' :metric_date: :refunds 'EUR'
\echo
SELECT source_record_id, category, counted, data->>'number' AS order, data->>'status' AS status, mapping_version
FROM connector_service_explain(:'metric_id') LIMIT 6;
SELECT count(*) AS records, sum(counted) AS total FROM connector_service_explain(:'metric_id');
\echo 'Look at total: the records add up to the number.'

\echo
\echo 'Compute all facts and metrics a second time from the records, and list every difference.'
\echo
SELECT * FROM connector_service_verify();
\echo 'Look at the row count: 0 rows are 0 differences.'
