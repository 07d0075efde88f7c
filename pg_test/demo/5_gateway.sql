\echo
\echo == 11. The gateway: a till pushes what it sells, signed; an application reads, with a token ==
INSERT INTO connectors (tenant_id, name, type, credentials, config)
VALUES ('6f1c2a52-0f0e-4b0e-9d0c-3a8f5e1b7c11', 'till', 'webhook', '{"secret": "whsec_test_not_a_real_secret"}', '{"stream": "sales", "key": "id"}')
RETURNING connector_id \gset
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path)
VALUES (:'connector_id', 'sales', 'revenue', '$.total', '$.sold_at');
SELECT connector_service_create_token('the shop''s back office', '6f1c2a52-0f0e-4b0e-9d0c-3a8f5e1b7c11', 'app') AS token \gset
\echo till :connector_id
\echo token :token
