-- Metrics as users write them, pasted as they stand.
\set SHOW_CONTEXT never
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date, data)
VALUES ('00000000-0000-4000-8000-000000000001', 'revenue', 15000.00, '2024-01-15', '{"category": "food", "source": "pos"}');
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date, data)
VALUES ('00000000-0000-4000-8000-000000000001', 'revenue', 16000.50, '2024-01-15', '{"category": "food"}')
ON CONFLICT (tenant_id, metric_type, metric_date)
DO UPDATE SET metric_value = EXCLUDED.metric_value, data = EXCLUDED.data, updated_at = NOW();
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date, data) VALUES
    ('00000000-0000-4000-8000-000000000001', 'revenue', 400, '2024-01-31', '{"category": "drinks"}'),
    ('00000000-0000-4000-8000-000000000001', 'revenue', 99.99, '2024-02-01', '{}'),
    ('00000000-0000-4000-8000-000000000001', 'costs', 10, '2024-01-31', '{}');
SELECT metric_date, data->>'category' AS category, sum(metric_value) FROM metrics
WHERE metric_type = 'revenue' GROUP BY 1, 2 ORDER BY 1, 2;
-- What is no metric is refused, by name.
\set VERBOSITY terse
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'revenue', -0.01, '2024-01-16');
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'profit', 1, '2024-01-16');
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'revenue', 1, '-infinity');
\set VERBOSITY default
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'revenue', 'NaN', '2024-01-16');
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'revenue', 'Infinity', '2024-01-16');
\set VERBOSITY sqlstate
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'revenue', 1, current_date + 2);
UPDATE metrics SET metric_date = current_date + 2 WHERE metric_type = 'costs';
UPDATE metrics SET metric_value = 'NaN' WHERE metric_type = 'costs';
\set VERBOSITY default
-- Today is the tenant's: on Kiritimati it is often tomorrow.
INSERT INTO tenants (tenant_id, timezone) VALUES ('00000000-0000-4000-8000-000000000002', 'Pacific/Kiritimati');
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date)
VALUES ('00000000-0000-4000-8000-000000000002', 'revenue', 1, (now() AT TIME ZONE 'Pacific/Kiritimati')::date);

-- An outlier is stored, and alerted with the metric it is about; it closes itself when the value is right.
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'revenue', 1000000.01, '2024-02-02');
SELECT m.metric_value, a.alert_type, a.severity, a.message, a.resolved FROM data_quality_alerts a JOIN metrics m USING (metric_id);
UPDATE metrics SET metric_value = 1000 WHERE metric_date = '2024-02-02';
SELECT resolved, resolved_by_data, occurrences FROM data_quality_alerts;
-- It opens again by itself, and not after a person has closed it.
UPDATE metrics SET metric_value = 2000000 WHERE metric_date = '2024-02-02';
SELECT resolved, resolved_by_data, occurrences FROM data_quality_alerts;
UPDATE data_quality_alerts SET resolved = true;
UPDATE metrics SET metric_value = 3000000 WHERE metric_date = '2024-02-02';
SELECT resolved, resolved_by_data, occurrences, resolved_at IS NOT NULL AS has_time FROM data_quality_alerts;
DELETE FROM metrics WHERE metric_date = '2024-02-02';
SELECT count(*) FROM data_quality_alerts;

-- The robust rule: Mondays of about 1,000, and one that is not.
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date)
SELECT '00000000-0000-4000-8000-000000000001', 'staffing', 1000 + n * 7 % 50, date '2024-01-01' + 7 * n FROM generate_series(0, 9) AS n;
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES
    ('00000000-0000-4000-8000-000000000001', 'staffing', 1100, '2024-03-11'),
    ('00000000-0000-4000-8000-000000000001', 'staffing', 5000, '2024-03-18'),
    ('00000000-0000-4000-8000-000000000001', 'staffing', 9000, '2024-03-19'),
    ('00000000-0000-4000-8000-000000000001', 'staffing', 20, '2024-03-25');
SELECT metric_date, message FROM data_quality_alerts ORDER BY 1;
INSERT INTO quality_rules (tenant_id, metric_type, outlier_factor) VALUES ('00000000-0000-4000-8000-000000000001', 'staffing', 'Infinity');
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'staffing', 20, '2024-04-01');
SELECT count(*) FROM data_quality_alerts;

-- Missing days by a nightly statement of the user's own: once each, however often it runs.
CREATE TEMPORARY VIEW nightly AS
SELECT t.tenant_id, 'missing' AS alert_type, 'warning' AS severity, 'No revenue data for ' || d::date AS message
FROM tenants t CROSS JOIN generate_series(date '2024-01-29', date '2024-02-01', interval '1 day') AS d
WHERE NOT EXISTS (SELECT 1 FROM metrics m WHERE m.tenant_id = t.tenant_id AND m.metric_type = 'revenue' AND m.metric_date = d::date);
INSERT INTO data_quality_alerts (tenant_id, alert_type, severity, message) SELECT * FROM nightly;
INSERT INTO data_quality_alerts (tenant_id, alert_type, severity, message) SELECT * FROM nightly;
INSERT INTO data_quality_alerts (tenant_id, alert_type, severity, message) SELECT * FROM nightly;
SELECT right(tenant_id::text, 1) AS tenant, message, occurrences, resolved FROM data_quality_alerts WHERE alert_type = 'missing' ORDER BY 1, 2;

-- And by check_missing_data(): nothing before the first day, nothing on closed days, once each.
CREATE TEMPORARY TABLE days AS SELECT (now() AT TIME ZONE 'UTC')::date - n AS day, n FROM generate_series(0, 10) AS n;
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date)
SELECT '00000000-0000-4000-8000-000000000003', 'revenue', 10, day FROM days WHERE n IN (8, 7, 4, 3, 1);
SELECT check_missing_data(10), check_missing_data(10);
SELECT d.n AS days_ago, a.occurrences, a.resolved, a.message = format('no revenue on %s', to_char(d.day, 'FMDay, YYYY-MM-DD')) AS says_it
FROM data_quality_alerts a JOIN days d ON d.day = a.metric_date WHERE a.tenant_id = '00000000-0000-4000-8000-000000000003' AND a.alert_type = 'missing' ORDER BY 1;
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date)
SELECT '00000000-0000-4000-8000-000000000003', 'revenue', 10, day FROM days WHERE n = 2;
INSERT INTO quality_rules (tenant_id, closed_days) SELECT '00000000-0000-4000-8000-000000000003', ARRAY[day] FROM days WHERE n = 5;
SELECT check_missing_data(10);
SELECT d.n AS days_ago, a.occurrences, a.resolved, a.resolved_by_data
FROM data_quality_alerts a JOIN days d ON d.day = a.metric_date WHERE a.tenant_id = '00000000-0000-4000-8000-000000000003' AND a.alert_type = 'missing' ORDER BY 1;
SELECT check_missing_data(0);

-- Aggregates and reads.
SET TimeZone = 'Asia/Tokyo';
REFRESH MATERIALIZED VIEW monthly_revenue;
SELECT refresh_monthly_revenue();
SELECT month, total_revenue, avg_daily_revenue, days_with_data FROM monthly_revenue WHERE tenant_id = '00000000-0000-4000-8000-000000000001' ORDER BY 1;
RESET TimeZone;
SELECT metric_date, category, total_revenue FROM daily_revenue_by_category WHERE tenant_id = '00000000-0000-4000-8000-000000000001' ORDER BY 1, 2;
SELECT jsonb_pretty((get_metrics('00000000-0000-4000-8000-000000000001', 'revenue', '2024-01-31', '2024-02-29')) #- '{metrics,0,metric_id}' #- '{metrics,1,metric_id}');
SELECT get_metrics('00000000-0000-4000-8000-000000000001', NULL, '2024-01-01', '2024-01-31') -> 'count' AS all_types, get_metrics('00000000-0000-4000-8000-000000000009', 'costs', '2024-01-01', '2024-01-31') AS none;
SELECT get_metrics('00000000-0000-4000-8000-000000000001', 'profit', '2024-01-01', '2024-01-31');
SELECT get_metrics('00000000-0000-4000-8000-000000000001', 'revenue', '2024-02-01', '2024-01-31');
SELECT get_metrics(NULL, 'revenue', '2024-02-01', '2024-01-31');
SELECT period_start, period_end, total, round(average, 2) AS average, minimum, maximum, days_with_data
FROM unnest('{day,week,month,quarter,year}'::text[]) WITH ORDINALITY AS bucket(name, n),
    aggregate_metrics('00000000-0000-4000-8000-000000000001', 'revenue', '2024-01-16', '2024-12-31', bucket.name) ORDER BY n, period_start;
SELECT * FROM aggregate_metrics('00000000-0000-4000-8000-000000000001', 'revenue', '2024-01-16', '2024-12-31', 'decade');
SELECT * FROM connector_service_explain('00000000-0000-4000-8000-000000000000');

-- Measures of a tenant's own: what can be defined, and what is refused.
INSERT INTO measures (tenant_id, name, unit, aggregation, may_be_negative) VALUES
    ('00000000-0000-4000-8000-000000000001', ' Orders ', 'orders', 'sum', false),
    ('00000000-0000-4000-8000-000000000001', 'stock turns', 'pieces', 'last', false),
    ('00000000-0000-4000-8000-000000000001', 'basket', 'Money', 'avg', false),
    ('00000000-0000-4000-8000-000000000001', 'customers', 'customers', 'distinct count', false),
    ('00000000-0000-4000-8000-000000000001', 'flow', 'money', 'sum', true);
SELECT name, unit, aggregation, may_be_negative FROM measures ORDER BY name;
INSERT INTO measures (tenant_id, name) VALUES ('00000000-0000-4000-8000-000000000001', 'revenue');
INSERT INTO measures (tenant_id, name) VALUES ('00000000-0000-4000-8000-000000000001', 'a:b');
INSERT INTO measures (tenant_id, name, aggregation) VALUES ('00000000-0000-4000-8000-000000000001', 'peak', 'max');
INSERT INTO measures (tenant_id, name, aggregation, unit) VALUES ('00000000-0000-4000-8000-000000000001', 'peak', 'distinct', 'money');
INSERT INTO measure_values (tenant_id, metric_type, metric_value, metric_date) VALUES
    ('00000000-0000-4000-8000-000000000001', 'orders', 3, '2024-05-01'), ('00000000-0000-4000-8000-000000000001', 'flow', -3, '2024-05-01'),
    ('00000000-0000-4000-8000-000000000001', 'stock turns', 7, '2024-05-01'), ('00000000-0000-4000-8000-000000000001', 'stock turns', 5, '2024-05-02');
INSERT INTO measure_values (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'orders', 4, '2024-05-01')
ON CONFLICT (tenant_id, metric_type, metric_date) DO UPDATE SET metric_value = excluded.metric_value;
INSERT INTO measure_values (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'orders', -1, '2024-05-02');
INSERT INTO measure_values (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'visits', 1, '2024-05-02');
INSERT INTO measure_values (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'costs', 1, '2024-05-02');
INSERT INTO measure_values (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000001', 'flow', '-Infinity', '2024-05-02');
INSERT INTO quality_rules (tenant_id, metric_type, max_value) VALUES ('00000000-0000-4000-8000-000000000001', 'flow', 10), ('00000000-0000-4000-8000-000000000001', 'orders', 2);
INSERT INTO quality_rules (metric_type, max_value) VALUES ('orders', 2);
SELECT metric_type, currency, max_value FROM quality_rules WHERE metric_type IN ('flow', 'orders') ORDER BY 1;
UPDATE measure_values SET metric_value = 5 WHERE metric_type = 'orders';
SELECT message, metric_id IS NULL AS of_no_metric, measure_value_id IS NULL AS of_no_value FROM data_quality_alerts WHERE metric_type = 'orders';
SELECT metric_type, metric_value, metric_date, by_hand, is_measure FROM all_metrics WHERE metric_date BETWEEN '2024-05-01' AND '2024-05-02' ORDER BY 1, 3;
SELECT metric_type, total, average, minimum, maximum, days_with_data
FROM aggregate_metrics('00000000-0000-4000-8000-000000000001', NULL, '2024-05-01', '2024-05-31', 'month');
SELECT get_metrics('00000000-0000-4000-8000-000000000001', 'stock turns', '2024-05-01', '2024-05-31') -> 'count' AS stock_turns;
SELECT get_metrics('00000000-0000-4000-8000-000000000001', 'visits', '2024-05-01', '2024-05-31');
UPDATE measures SET may_be_negative = false WHERE name = 'flow';
DELETE FROM measures WHERE name = 'flow';
UPDATE measure_values SET by_hand = false;
SELECT count(*) FROM measure_values;
DELETE FROM measures;

DELETE FROM data_quality_alerts;
DELETE FROM quality_rules;
DELETE FROM metrics;
DELETE FROM tenants;
