-- A connector whose path is wrong, one that works, and a file of which one row cannot be read.
\set manifest '{"manifest": {"streams": [{"name": "products", "primary_key": "id", "retriever": {"requester": {"url_base": "https://dummyjson.com", "path": "products"}, "record_selector": {"extractor": {"field_path": ["products"]}}, "paginator": {"pagination_strategy": {"type": "OffsetIncrement", "page_size": 30}, "page_size_option": {"inject_into": "request_parameter", "field_name": "limit"}, "page_token_option": {"inject_into": "request_parameter", "field_name": "skip"}}}}]}}'
INSERT INTO connectors (tenant_id, name, type, config, sync_frequency, credentials)
VALUES ('00000000-0000-4000-8000-000000000001', 'products', 'api', :'manifest', 'manual', '{"api_key": "sk_test_not_a_real_key"}')
RETURNING connector_id \gset
CALL connector_service_sync_wait(:'connector_id');
INSERT INTO connectors (tenant_id, name, type, config, sync_frequency)
VALUES ('00000000-0000-4000-8000-000000000001', 'moved', 'api', replace(:'manifest', '"path": "products"', '"path": "old-products"')::jsonb, 'manual')
RETURNING connector_id \gset
SELECT connector_service_sync(:'connector_id');
INSERT INTO connectors (tenant_id, name, type, config)
VALUES ('00000000-0000-4000-8000-000000000001', 'sales', 'csv', '{"key": "Order", "columns": {"Day": "date"}}')
RETURNING connector_id \gset
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path)
VALUES (:'connector_id', 'rows', 'revenue', '$.Amount', '$.Day');
CALL connector_service_wait(connector_service_upload(:'connector_id', 'sales.csv',
    E'Order,Day,Amount\n1,2026-01-05,19.90\n2,2026-01-05,22.10\n3,2026-01-05,ten\n4,2026-01-06,8\n'::bytea));
