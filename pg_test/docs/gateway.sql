-- The gateway of this page's database, at the address that the page names. Other databases of the server have none.
\set listen :DBNAME '=127.0.0.1:8090'
ALTER SYSTEM SET connector_service.gateway_listen = :'listen';
SELECT pg_reload_conf();
INSERT INTO tenants (tenant_id) VALUES ('00000000-0000-4000-8000-000000000001') ON CONFLICT DO NOTHING;
\! curl -s -o /dev/null --retry 60 --retry-all-errors --retry-delay 1 http://127.0.0.1:8090/live
