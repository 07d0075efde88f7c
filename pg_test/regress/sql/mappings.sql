-- Mappings are checked when they are saved.
\set SHOW_CONTEXT never
INSERT INTO connectors (connector_id, tenant_id, name, type, status)
VALUES ('00000000-0000-4000-8000-0000000000c1', '00000000-0000-4000-8000-000000000005', 'till', 'webhook', 'paused');
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path) VALUES ('00000000-0000-4000-8000-0000000000c1', 'sales', 'profit', '$.v', '$.d');
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path) VALUES ('00000000-0000-4000-8000-0000000000c1', 'sales', 'revenue', '$.v[', '$.d');
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, filter) VALUES ('00000000-0000-4000-8000-0000000000c1', 'sales', 'revenue', '$.v', '$.d', '$.s == paid');
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path) VALUES ('00000000-0000-4000-8000-0000000000c1', 'sales', 'revenue', '$.v', '$record.d');
INSERT INTO metric_mappings (connector_type, stream, metric_type, value_path, date_path) VALUES ('shopfy', 'sales', 'revenue', '$.v', '$.d');
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, negative) VALUES ('00000000-0000-4000-8000-0000000000c1', 'sales', 'costs', '$.v', '$.d', 'costs');
-- A measure of the tenant, and of nobody else.
INSERT INTO measures (tenant_id, name, unit, aggregation) VALUES ('00000000-0000-4000-8000-000000000005', 'visits', 'visits', 'sum'), ('00000000-0000-4000-8000-000000000005', 'guests', 'guests', 'distinct_count');
INSERT INTO metric_mappings (mapping_id, connector_id, stream, metric_type, value_path, date_path) VALUES (9000, '00000000-0000-4000-8000-0000000000c1', 'doors', 'Visits', '1', '$.d') RETURNING metric_type, negative;
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path) VALUES ('00000000-0000-4000-8000-0000000000c1', 'doors', 'profit', '1', '$.d');
INSERT INTO metric_mappings (connector_type, stream, metric_type, value_path, date_path) VALUES ('csv', 'doors', 'visits', '1', '$.d');
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, unit) VALUES ('00000000-0000-4000-8000-0000000000c1', 'doors', 'visits', '1', '$.d', 'minor');
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, factor) VALUES ('00000000-0000-4000-8000-0000000000c1', 'doors', 'guests', '$.g', '$.d', 2);
DELETE FROM measures;
UPDATE measures SET name = 'entries' WHERE name = 'visits';
SELECT metric_type, version FROM metric_mappings WHERE mapping_id = 9000;
DELETE FROM metric_mappings WHERE mapping_id = 9000;
DELETE FROM measures;
UPDATE metric_mappings SET active = false WHERE connector_type = 'stripe' AND mapping_id = 300;
DELETE FROM metric_mappings WHERE mapping_id = 300;

INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, category_path)
VALUES ('00000000-0000-4000-8000-0000000000c1', 'sales', 'revenue', '$.v', '$.d', '$."k $ey"') RETURNING version, negative, active;

-- Ten records, three of them bad, one a refund: what is good counts, and nothing is lost.
INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
SELECT '00000000-0000-4000-8000-000000000005', '00000000-0000-4000-8000-0000000000c1', 'webhook', 'sales', 'sales/' || n,
    jsonb_build_object('v', v::jsonb, 'd', '2026-01-0' || (1 + n % 2), 'k $ey', CASE WHEN n < 5 THEN 'food' END)
FROM unnest(ARRAY['1.10', '"2.20"', '3.30', '4.40', '5.50', '"6,60"', '1e30', 'null', '9.90', '-1.50']) WITH ORDINALITY AS u(v, n);
SELECT connector_service_process() IS NOT NULL AS done;
SELECT metric_type, metric_date, metric_value, data - 'sources' AS data FROM metrics ORDER BY 1, 2;
SELECT source_record_id, reason_code, reason FROM quarantine ORDER BY 1;
SELECT alert_type, severity, message, occurrences FROM data_quality_alerts ORDER BY message COLLATE "C";
SELECT category, total_revenue FROM daily_revenue_by_category ORDER BY metric_date, 1;

-- A mapping that can read one of them is a new version; it counts for stored records once they are tried again.
UPDATE metric_mappings SET filter = '$.v != null', note = 'what has no amount does not count' WHERE connector_id = '00000000-0000-4000-8000-0000000000c1' RETURNING version;
SELECT connector_service_replay('00000000-0000-4000-8000-0000000000c1');
SELECT source_record_id, reason_code, replayed_at IS NOT NULL AS is_replayed FROM quarantine ORDER BY 1;
SELECT message, resolved FROM data_quality_alerts ORDER BY message COLLATE "C";
SELECT version, count(*) FROM metric_facts GROUP BY 1 ORDER BY 1;
SELECT connector_service_reprocess('00000000-0000-4000-8000-0000000000c1');
SELECT version, count(*) FROM metric_facts GROUP BY 1 ORDER BY 1;
SELECT version, definition ->> 'filter' AS filter FROM metric_mapping_versions WHERE mapping_id >= 1000 ORDER BY 1;
SELECT connector_service_reprocess('00000000-0000-4000-8000-0000000000c9');

-- The records behind a number.
SELECT source_record_id, category, value, mapping_version, mapping ->> 'value_path' AS path, data
FROM connector_service_explain((SELECT metric_id FROM metrics WHERE metric_type = 'revenue' AND metric_date = '2026-01-02'));

-- An edit moves exactly the days it touches; a delete and a soft delete take away; by hand stays by hand.
UPDATE raw_connector_data SET data = data || '{"d": "2026-01-03", "v": "7.25"}' WHERE source_record_id = 'sales/1';
UPDATE raw_connector_data SET deleted = true WHERE source_record_id = 'sales/3';
SELECT connector_service_process() IS NOT NULL AS done;
DELETE FROM raw_connector_data WHERE source_record_id = 'sales/2';
SELECT metric_date, metric_value FROM metrics WHERE metric_type = 'revenue' ORDER BY 1;
INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('00000000-0000-4000-8000-000000000005', 'revenue', 100, '2026-01-03')
ON CONFLICT (tenant_id, metric_type, metric_date) DO UPDATE SET metric_value = excluded.metric_value;
UPDATE raw_connector_data SET data = data || '{"v": 8}' WHERE source_record_id = 'sales/1';
SELECT connector_service_process() IS NOT NULL AS done;
SELECT metric_value, derived_value, by_hand FROM metrics WHERE metric_date = '2026-01-03';
SELECT alert_type, severity, message FROM data_quality_alerts WHERE alert_key LIKE 'hand:%';
UPDATE metrics SET by_hand = false WHERE metric_date = '2026-01-03' RETURNING metric_value;
SELECT * FROM connector_service_verify();
SELECT message, resolved FROM data_quality_alerts WHERE alert_key LIKE 'hand:%';

-- Money: minor units, another currency, a rate that comes later.
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, currency_path, unit)
VALUES ('00000000-0000-4000-8000-0000000000c1', 'payments', 'revenue', '$.cents', '$.at', '$.currency', 'minor');
INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
SELECT '00000000-0000-4000-8000-000000000005', '00000000-0000-4000-8000-0000000000c1', 'webhook', 'payments', 'payments/' || n, d::jsonb
FROM unnest(ARRAY['{"cents": 1234, "at": "2026-02-01T10:00:00Z", "currency": "usd"}', '{"cents": 1234, "at": "2026-02-01T10:00:00Z", "currency": "JPY"}',
    '{"cents": 1234, "at": "2026-02-01T10:00:00Z", "currency": "KWD"}', '{"cents": 1, "at": "2026-02-01T10:00:00Z", "currency": "dollars"}']) WITH ORDINALITY AS u(d, n);
SELECT connector_service_process() IS NOT NULL AS done;
SELECT currency, value FROM metric_facts WHERE metric_date = '2026-02-01' ORDER BY 1;
SELECT metric_value, data -> 'unconverted' AS unconverted FROM metrics WHERE metric_date = '2026-02-01';
SELECT alert_type, message, resolved FROM data_quality_alerts WHERE alert_key LIKE 'fx:%';
INSERT INTO fx_rates VALUES ('JPY', 'USD', '2026-02-01', 0.0065), ('KWD', 'USD', '2026-02-01', 3.25);
SELECT metric_value, data -> 'unconverted' AS unconverted FROM metrics WHERE metric_date = '2026-02-01';
SELECT resolved, resolved_by_data FROM data_quality_alerts WHERE alert_key LIKE 'fx:%';

-- A day whose net is below zero has no metric, and says so.
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, negative)
VALUES ('00000000-0000-4000-8000-0000000000c1', 'ledger', 'revenue', '$.v', '$.d', 'net');
INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data) VALUES
    ('00000000-0000-4000-8000-000000000005', '00000000-0000-4000-8000-0000000000c1', 'webhook', 'ledger', 'ledger/1', '{"v": 5, "d": "2026-03-01"}'),
    ('00000000-0000-4000-8000-000000000005', '00000000-0000-4000-8000-0000000000c1', 'webhook', 'ledger', 'ledger/2', '{"v": -8, "d": "2026-03-01"}');
SELECT connector_service_process() IS NOT NULL AS done;
SELECT count(*) FROM metrics WHERE metric_date = '2026-03-01';
SELECT alert_type, severity, message, resolved FROM data_quality_alerts WHERE alert_key LIKE 'net:%';
INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data) VALUES
    ('00000000-0000-4000-8000-000000000005', '00000000-0000-4000-8000-0000000000c1', 'webhook', 'ledger', 'ledger/3', '{"v": 3, "d": "2026-03-01"}');
SELECT connector_service_process() IS NOT NULL AS done;
SELECT metric_value FROM metrics WHERE metric_date = '2026-03-01';
SELECT resolved FROM data_quality_alerts WHERE alert_key LIKE 'net:%';
SELECT * FROM connector_service_verify();

-- A mapping that is pasted twice counts twice, and says so; one of another filter does not.
INSERT INTO tenants (name, timezone, currency) VALUES ('first the tenant', 'Europe/Berlin', 'EUR') RETURNING tenant_id IS NOT NULL AS has_id;
INSERT INTO metric_mappings (mapping_id, connector_type, stream, metric_type, value_path, date_path) VALUES (9001, 'csv', 'twice', 'revenue', '$.v', '$.d');
INSERT INTO metric_mappings (mapping_id, connector_type, stream, metric_type, value_path, date_path) VALUES (9002, 'csv', 'twice', 'revenue', '$.v', '$.d');
INSERT INTO metric_mappings (mapping_id, connector_type, stream, metric_type, value_path, date_path, filter) VALUES (9003, 'csv', 'twice', 'revenue', '$.v', '$.d', '$.s == "paid"');
UPDATE metric_mappings SET active = false WHERE mapping_id = 9002;
UPDATE metric_mappings SET note = 'alone again' WHERE mapping_id = 9001;
DELETE FROM metric_mappings WHERE mapping_id > 9000;

DELETE FROM raw_connector_data;
DELETE FROM connectors;
SELECT count(*) AS metrics FROM metrics;
SELECT count(*) AS own_mappings FROM metric_mappings WHERE NOT builtin;
TRUNCATE connectors CASCADE;
SELECT count(*) > 0 AS builtin_mappings_stay FROM metric_mappings;
DELETE FROM data_quality_alerts;
DELETE FROM metrics;
DELETE FROM fx_rates;
DELETE FROM tenants;
