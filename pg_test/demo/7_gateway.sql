\echo 'The gateway is an HTTP server inside PostgreSQL. It is off unless connector_service.gateway_listen names an address;'
\echo 'this server''s configuration does. Add a connector to which the shop''s till sends its sales, and a token with which an'
\echo 'application reads.'
\echo
INSERT INTO connectors (tenant_id, name, type, credentials, config)
VALUES ('6f1c2a52-0f0e-4b0e-9d0c-3a8f5e1b7c11', 'till', 'webhook', '{"secret": "whsec_test_not_a_real_secret"}', '{"stream": "sales", "key": "id"}')
RETURNING connector_id \gset
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path)
VALUES (:'connector_id', 'sales', 'revenue', '$.total', '$.sold_at');
SELECT connector_service_create_token('the shop''s back office', '6f1c2a52-0f0e-4b0e-9d0c-3a8f5e1b7c11', 'app') AS token \gset
\echo
\echo 'connector:' :connector_id
\echo 'token:' :token
