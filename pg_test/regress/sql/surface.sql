-- What users call: the menu. All other functions are in a schema of their own.
\pset format unaligned
\df connector_service*
\pset format aligned
-- Public functions with other names.
SELECT p.oid::regprocedure AS function FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'connector_service') AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
    AND p.pronamespace = 'public'::regnamespace AND p.proname NOT LIKE 'connector\_service\_%' ORDER BY p.oid::regprocedure::text COLLATE "C";
-- The schema of the internal functions is the extension's, and holds nothing but functions.
SELECT d.deptype, n.nspname FROM pg_depend d JOIN pg_namespace n ON n.oid = d.objid
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'connector_service') AND d.classid = 'pg_namespace'::regclass;
SELECT DISTINCT d.classid::regclass FROM pg_depend d WHERE d.refobjid = '_connector_service'::regnamespace AND d.refclassid = 'pg_namespace'::regclass;
-- Nobody but the engine may use it, and nobody makes anything there.
SELECT r.role, has_schema_privilege(r.role, '_connector_service', 'USAGE') AS may_use, has_schema_privilege(r.role, '_connector_service', 'CREATE') AS may_create
FROM unnest('{public,connector_service_admin,connector_service_app,connector_service_tenant,connector_service_engine}'::text[]) AS r(role);
-- A text body that runs as its caller names no internal function: the caller's rights would count for the name.
SELECT p.oid::regprocedure AS out_of_reach FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'connector_service') AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
    AND p.prosqlbody IS NULL AND NOT p.prosecdef AND p.prosrc ~ '_connector_service[.]'
    AND (p.prorettype = 'trigger'::regtype
        OR EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee NOT IN (p.proowner, 'connector_service_engine'::regrole)));
-- Roles that may not use the schema do all that they may do.
CREATE ROLE surface_boss IN ROLE connector_service_admin;
CREATE ROLE surface_shop IN ROLE connector_service_tenant;
INSERT INTO tenant_roles VALUES ('surface_shop', '00000000-0000-4000-8000-000000000042');
SET ROLE surface_boss;
SELECT count(*) > 5 AS items FROM connector_service_doctor();
SELECT connector_service_prometheus() ~ 'connector_service_workers ' AS has_workers;
SELECT * FROM connector_service_keys();
SELECT connector_service_reseal('{}');
SELECT connector_service_schedule();
SELECT connector_service_unschedule();
SELECT _connector_service.connector_service_jobs();
SET ROLE surface_shop;
INSERT INTO tenants (tenant_id) VALUES ('00000000-0000-4000-8000-000000000042');
INSERT INTO data_quality_alerts (tenant_id, alert_type, message) VALUES ('00000000-0000-4000-8000-000000000042', 'missing', 'no revenue on 2026-01-05');
SELECT metric_type, metric_date, message, occurrences FROM data_quality_alerts;
SELECT get_metrics('00000000-0000-4000-8000-000000000042', 'revenue', '2026-01-01', '2026-01-31');
SELECT get_metrics('00000000-0000-4000-8000-000000000042', 'profit', '2026-01-01', '2026-01-31');
SELECT * FROM aggregate_metrics('00000000-0000-4000-8000-000000000042', NULL, '2026-01-01', '2026-01-31', 'fortnight');
SELECT count(*) > 10 AS types FROM connector_service_catalog();
SELECT connector_service_doctor();
SELECT _connector_service.connector_service_types();
RESET ROLE;
DELETE FROM data_quality_alerts;
DELETE FROM tenants WHERE tenant_id = '00000000-0000-4000-8000-000000000042';
DELETE FROM tenant_roles;
DROP ROLE surface_boss;
DROP ROLE surface_shop;
-- This is a trigger. A call of it has no result.
SELECT _connector_service.connector_service_lock_first();
