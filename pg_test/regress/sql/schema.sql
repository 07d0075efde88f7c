-- The extension lives in any schema, and nothing depends on the caller's search_path.
DROP EXTENSION connector_service;
CREATE SCHEMA elt;
CREATE EXTENSION connector_service SCHEMA elt;
SET search_path = pg_temp;
SET client_min_messages = error;
INSERT INTO elt.connectors (tenant_id, name, type) VALUES ('00000000-0000-4000-8000-000000000001', 'shop', 'stripe');
UPDATE elt.connectors SET sync_frequency = 'manual';
SELECT count(elt.connector_service_sync(connector_id)) FROM elt.connectors;
RESET search_path;
SELECT DISTINCT kind FROM elt.sync_runs;
DROP EXTENSION connector_service;
-- An object of ours that is there already is never adopted.
CREATE TABLE public.connectors (mine text);
-- Since PostgreSQL 18 the context is the script's own statement.
\set SHOW_CONTEXT never
CREATE EXTENSION connector_service;
\set SHOW_CONTEXT errors
SELECT count(*) AS extensions FROM pg_extension WHERE extname = 'connector_service';
SELECT to_regclass('public.tenants') AS nothing_left;
DROP TABLE public.connectors;
DROP SCHEMA elt;
CREATE EXTENSION connector_service;
-- A foreign key is checked with a plan that PostgreSQL made when the table was small. It may then use any index that begins with one
-- of the key's columns, so each such index has all of them. The exception is for alerts, which are few.
SELECT c.conname, i.indexrelid::regclass AS index FROM pg_constraint c JOIN pg_index i ON i.indrelid = c.confrelid
WHERE c.contype = 'f' AND i.indpred IS NULL AND i.indkey[0] = ANY (c.confkey)
    AND NOT c.confkey <@ i.indkey::int2[] AND NOT (i.indisunique AND i.indkey::int2[] <@ c.confkey) ORDER BY 1, 2;
