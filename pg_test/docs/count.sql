-- A tenant whose shop's orders are paid through Stripe: the same sales in two connectors.
INSERT INTO tenants (tenant_id, name, timezone, currency)
VALUES ('00000000-0000-4000-8000-000000000002', 'Tea house', 'Europe/Berlin', 'EUR');
SET client_min_messages = error;
INSERT INTO connectors (connector_id, tenant_id, name, type, sync_frequency) VALUES
    ('00000000-0000-4000-8000-00000000000c', '00000000-0000-4000-8000-000000000002', 'tea shop', 'shopify', 'manual'),
    ('00000000-0000-4000-8000-00000000000d', '00000000-0000-4000-8000-000000000002', 'payments', 'stripe', 'manual');
RESET client_min_messages;
WITH sale AS (
    SELECT n, 1000 + n * 7919 % 4000 AS cents, timestamptz '2025-03-01 10:00Z' + n * interval '9 hours' AS at FROM generate_series(0, 79) AS n)
INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
SELECT '00000000-0000-4000-8000-000000000002'::uuid, '00000000-0000-4000-8000-00000000000c'::uuid, 'shopify', 'orders', 'orders/' || n,
    jsonb_build_object('processedAt', at, 'sourceName', 'web',
        'totalPriceSet', jsonb_build_object('shopMoney', jsonb_build_object('amount', (cents / 100.0)::numeric(10, 2)::text, 'currencyCode', 'EUR')))
FROM sale
UNION ALL
SELECT '00000000-0000-4000-8000-000000000002'::uuid, '00000000-0000-4000-8000-00000000000d'::uuid, 'stripe', 'balance_transactions', 'balance_transactions/' || n,
    jsonb_build_object('amount', cents, 'fee', 0, 'currency', 'eur', 'created', extract(epoch FROM at)::bigint, 'reporting_category', 'charge')
FROM sale;
DO $$
DECLARE
    v_until timestamptz := clock_timestamp() + interval '60 s';
BEGIN
    WHILE NOT EXISTS (SELECT FROM count_decisions) OR EXISTS (SELECT FROM count_due) LOOP
        IF clock_timestamp() > v_until THEN
            RAISE 'it is still at work';
        END IF;
        PERFORM pg_sleep(0.1);
        COMMIT;
    END LOOP;
END
$$;
