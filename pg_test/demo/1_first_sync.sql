\echo
\echo == 1. A database with the extension ==
CREATE EXTENSION pg_cron;
CREATE EXTENSION connector_service;

\echo
\echo == 2. A tenant, and a connector to its shop: no more than a row ==
INSERT INTO tenants (tenant_id, name, timezone, currency)
VALUES ('6f1c2a52-0f0e-4b0e-9d0c-3a8f5e1b7c11', 'Roastery Nord', 'Europe/Berlin', 'EUR');

INSERT INTO connectors (tenant_id, name, type, credentials, config)
VALUES ('6f1c2a52-0f0e-4b0e-9d0c-3a8f5e1b7c11', 'web shop', 'api', '{"api_key": "demo"}',
    jsonb_build_object('base_url', :'base_url', 'manifest', $${
        "type": "DeclarativeSource",
        "streams": [{
            "type": "DeclarativeStream", "name": "orders", "primary_key": "id",
            "incremental_sync": {
                "type": "DatetimeBasedCursor", "cursor_field": "updated_at", "datetime_format": "%Y-%m-%dT%H:%M:%SZ",
                "start_datetime": "2020-01-01T00:00:00Z",
                "start_time_option": {"inject_into": "request_parameter", "field_name": "since"}
            },
            "retriever": {
                "type": "SimpleRetriever",
                "requester": {
                    "type": "HttpRequester", "url_base": "{{ config['base_url'] }}", "path": "orders",
                    "authenticator": {"type": "BearerAuthenticator", "api_token": "{{ config['api_key'] }}"}
                },
                "record_selector": {"extractor": {"field_path": ["data"]}},
                "paginator": {
                    "type": "DefaultPaginator",
                    "page_token_option": {"inject_into": "request_parameter", "field_name": "after"},
                    "pagination_strategy": {"type": "CursorPagination", "cursor_value": "{{ response.next }}"}
                }
            }
        }]
    }$$::jsonb))
RETURNING connector_id, status, sync_frequency, next_sync_at <= now() AS is_due \gset
\echo connector :connector_id: :status, :sync_frequency, due: :is_due
SELECT credentials AS "credentials, as they are stored" FROM connectors;

\echo
\echo == 3. What its orders mean: each line is revenue of its article, a refund is a cost of its own day ==
INSERT INTO metric_mappings (connector_id, stream, metric_type, items_path, value_path, category_path, date_path, currency_path)
VALUES (:'connector_id', 'orders', 'revenue', '$.lines[*]', '$.quantity * $.price', '$.article', '$record.created_at', '$record.currency');
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, category_path, date_path, currency_path, filter)
VALUES (:'connector_id', 'orders', 'costs', '$.total', '"refunds"', '$.updated_at', '$.currency', '$.status == "refunded"');

\echo
\echo == 4. The first sync, watched ==
CALL connector_service_sync_wait(:'connector_id');

SELECT count(*) AS orders, count(DISTINCT data->>'city') AS cities, sum((data->>'total')::numeric) AS total
FROM raw_connector_data;

SELECT data->>'city' AS city, count(*) AS orders, sum((data->>'total')::numeric) AS total
FROM raw_connector_data GROUP BY 1 ORDER BY total DESC;
