\echo 'Create the extension. pg_cron is a second extension: it runs SQL at set times, and step 7 uses it.'
\echo
CREATE EXTENSION pg_cron;
CREATE EXTENSION connector_service;

\echo
\echo 'Register a tenant: the business whose data is loaded. Its time zone decides which day a sale belongs to.'
\echo
INSERT INTO tenants (tenant_id, name, timezone, currency)
VALUES ('6f1c2a52-0f0e-4b0e-9d0c-3a8f5e1b7c11', 'Roastery Nord', 'Europe/Berlin', 'EUR');

\echo
\echo 'Add a connector to the tenant''s web shop. A connector is one row. Its manifest describes the shop''s API: the'
\echo 'address, how to sign in, where the records are, how to get the next page, and how to ask for changes only.'
\echo
INSERT INTO connectors (tenant_id, name, type, status, credentials, config)
VALUES ('6f1c2a52-0f0e-4b0e-9d0c-3a8f5e1b7c11', 'web shop', 'api', 'paused', '{"api_key": "demo"}',
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
RETURNING connector_id \gset
SELECT name, status, sync_frequency, credentials FROM connectors;
\echo 'Look at credentials: the API key is stored encrypted only. The connector is paused until it is known what counts.'

\echo
\echo 'Say what the orders mean. Each line of an order is revenue of its article. A refunded order is a cost on the day of'
\echo 'its refund. The paths are SQL/JSON paths into the record.'
\echo
INSERT INTO metric_mappings (connector_id, stream, metric_type, items_path, value_path, category_path, date_path, currency_path)
VALUES (:'connector_id', 'orders', 'revenue', '$.lines[*]', '$.quantity * $.price', '$.article', '$record.created_at', '$record.currency');
INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, category_path, date_path, currency_path, filter)
VALUES (:'connector_id', 'orders', 'costs', '$.total', '"refunds"', '$.updated_at', '$.currency', '$.status == "refunded"');
