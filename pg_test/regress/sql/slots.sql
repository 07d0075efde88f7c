-- Inserting a row is all it takes.
\set tenant '\'00000000-0000-4000-8000-000000000001\''
SET client_min_messages = error;
INSERT INTO connectors (tenant_id, name, type, credentials) VALUES (:tenant, 'shop', 'shopify', '{"access_token": "not_a_real_key"}');
SELECT name, type, config, sync_frequency, status, next_sync_at = created_at AS is_due_at_once FROM connectors;
-- A pause keeps the time; a resumed connector is due at once; another frequency means another slot.
UPDATE connectors SET status = 'paused', next_sync_at = now() + interval '1 hour' RETURNING next_sync_at > now() AS kept;
BEGIN;
UPDATE connectors SET status = 'active' RETURNING next_sync_at = now() AS is_due;
UPDATE connectors SET sync_frequency = 'daily' RETURNING next_sync_at = date_trunc('day', now(), 'UTC') + interval '1 day' AS tomorrow;
ROLLBACK;
-- What is not an object is refused without showing it.
\set SHOW_CONTEXT never
UPDATE connectors SET credentials = '"not_a_real_key"';
UPDATE connectors SET config = '[]';
-- Slots are the tenant's, also when clocks change.
SELECT frequency, zone, to_char(_connector_service.connector_service_next_slot(frequency, zone, after) AT TIME ZONE zone, 'Dy YYYY-MM-DD HH24:MI') AS slot
FROM (VALUES
    ('hourly', 'Asia/Kolkata', timestamptz '2026-03-01 10:10+00'),
    ('hourly', 'Europe/Berlin', '2026-03-29 00:30+00'),
    ('hourly', 'Europe/Berlin', '2026-10-25 00:30+00'),
    ('daily', 'Europe/Berlin', '2026-03-28 12:00+00'),
    ('daily', 'America/New_York', '2026-11-01 12:00+00'),
    ('weekly', 'Europe/Berlin', '2026-11-23 12:00+00'),
    ('manual', 'UTC', '2026-11-23 12:00+00')) AS t(frequency, zone, after);
DELETE FROM connectors;
DELETE FROM tenants;
