-- A tenant whose shop has uploaded its orders: one of each kind that the page speaks of.
INSERT INTO tenants (tenant_id, name, timezone, currency)
VALUES ('00000000-0000-4000-8000-000000000001', 'Corner shop', 'Europe/Berlin', 'EUR');
INSERT INTO connectors (connector_id, tenant_id, name, type, config)
VALUES ('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-000000000001', 'shop', 'csv',
        '{"stream": "orders", "key": "id", "format": "json_lines"}');
CALL connector_service_wait(connector_service_upload('00000000-0000-4000-8000-00000000000a', 'orders.jsonl', convert_to(
$${"id": 1, "total": 19.90, "status": "paid", "channel": "web", "currency": "EUR", "created_at": "2025-02-03T10:00:00Z"}
{"id": 2, "total": 30, "status": "paid", "channel": "web", "currency": "EUR", "created_at": "2025-02-03T23:30:00Z"}
{"id": 3, "total": -5, "status": "paid", "channel": "web", "currency": "EUR", "created_at": "2025-02-04T09:00:00Z"}
{"id": 4, "total": 20, "status": "paid", "channel": "till", "currency": "USD", "created_at": "2025-02-04T12:00:00Z"}
{"id": 5, "total": "unknown", "status": "paid", "channel": "till", "currency": "EUR", "created_at": "2025-02-05"}
{"id": 6, "total": 8, "status": "cancelled", "channel": "web", "currency": "EUR", "created_at": "2025-02-05"}
{"id": 7, "total": 12, "status": "paid", "currency": "EUR", "created_at": "2025-02-05", "fees": [{"kind": "card", "amount": 0.35}]}
$$, 'UTF8')));
