-- The connector of README.md, which the worker syncs at once. It has credentials, so that there is a key; it is a day old,
-- like what is in a backup; and a role of the user's sees its tenant.
INSERT INTO connectors (tenant_id, name, type, credentials, config)
VALUES ('00000000-0000-4000-8000-000000000001', 'products', 'api', '{"api_key": "sk_test_not_a_real_key"}', '{"manifest": {"streams": [{
    "name": "products", "primary_key": "id", "retriever": {
        "requester": {"url_base": "https://dummyjson.com", "path": "products"},
        "record_selector": {"extractor": {"field_path": ["products"]}},
        "paginator": {
            "pagination_strategy": {"type": "OffsetIncrement", "page_size": 30},
            "page_size_option": {"inject_into": "request_parameter", "field_name": "limit"},
            "page_token_option": {"inject_into": "request_parameter", "field_name": "skip"}}}}]}}');
UPDATE connectors SET created_at = created_at - interval '1 day';
CREATE ROLE corner_shop LOGIN PASSWORD 'not_a_real_password' IN ROLE connector_service_tenant;
INSERT INTO tenant_roles (role_name, tenant_id) VALUES ('corner_shop', '00000000-0000-4000-8000-000000000001');
