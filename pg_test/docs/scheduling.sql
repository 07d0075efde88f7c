-- A connector named "shop" that can be synced: it reads a table of its own database.
CREATE TABLE shop_orders (id int PRIMARY KEY, total numeric, updated_at timestamptz NOT NULL DEFAULT now());
INSERT INTO shop_orders VALUES (1, 19.90), (2, 5.00);
INSERT INTO connectors (tenant_id, name, type, status, credentials, config)
VALUES ('00000000-0000-4000-8000-000000000001', 'shop', 'postgres', 'active', jsonb_build_object('username', :'USER'),
        jsonb_build_object('host', '127.0.0.1', 'port', :PORT, 'database', :'DBNAME', 'tls', 'off', 'streams',
            '[{"name": "orders", "table": "public.shop_orders", "key": "id", "cursor": "updated_at"}]'::jsonb));
SELECT connector_id FROM connectors WHERE name = 'shop' \gset
CALL connector_service_sync_wait(:'connector_id');
