\echo
\echo == 7. Revenue by day: facts and metrics came with the records, nothing else was run ==
SELECT to_char(metric_date, 'Dy DD Mon') AS day, metric_value AS revenue,
    repeat('#', round(metric_value / max(metric_value) OVER () * 50)::int) AS chart
FROM metrics WHERE metric_type = 'revenue' ORDER BY metric_date;

SELECT category, sum(total_revenue) AS revenue, round(100 * sum(total_revenue) / sum(sum(total_revenue)) OVER (), 1) AS percent
FROM daily_revenue_by_category GROUP BY category ORDER BY revenue DESC;

SELECT refresh_monthly_revenue();
SELECT to_char(month, 'YYYY-MM') AS month, total_revenue, round(avg_daily_revenue, 2) AS avg_daily_revenue, days_with_data FROM monthly_revenue ORDER BY month;

\echo
\echo == 8. What a person should look at: a day without orders, and an order that cannot be read ==
SELECT check_missing_data();
SELECT alert_type, severity, message, occurrences FROM data_quality_alerts WHERE NOT resolved ORDER BY alert_type;
SELECT source_record_id, reason_code, reason FROM quarantine WHERE replayed_at IS NULL;

\echo
\echo == 9. What one number is made of ==
SELECT metric_id, metric_date, metric_value AS refunds FROM metrics WHERE metric_type = 'costs' ORDER BY metric_date LIMIT 1 \gset
\echo refunds of :metric_date: :refunds EUR
SELECT connector, source_record_id, category, counted, data->>'number' AS order, data->>'status' AS status, mapping_id, mapping_version AS version, run_finished_at IS NOT NULL AS run_ended
FROM connector_service_explain(:'metric_id') LIMIT 6;
SELECT count(*) AS records, sum(counted) AS total FROM connector_service_explain(:'metric_id');

\echo
\echo == 10. Everything derived again from the raw records, and compared: no row is no difference ==
SELECT * FROM connector_service_verify();
