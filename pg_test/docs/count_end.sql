-- What follows on the page is about the first tenant alone.
SET client_min_messages = error;
DELETE FROM raw_connector_data WHERE tenant_id = '00000000-0000-4000-8000-000000000002';
DELETE FROM connectors WHERE tenant_id = '00000000-0000-4000-8000-000000000002';
DELETE FROM data_quality_alerts WHERE tenant_id = '00000000-0000-4000-8000-000000000002';
DELETE FROM tenants WHERE tenant_id = '00000000-0000-4000-8000-000000000002';
RESET client_min_messages;
