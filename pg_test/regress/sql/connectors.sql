-- What may be written into connectors, and what a person sees who got it wrong.
\set SHOW_CONTEXT never
\set tenant '''00000000-0000-4000-8000-000000000001'''

-- An unknown type, frequency or status is refused with the list of known ones.
INSERT INTO connectors (tenant_id, name, type) VALUES (:tenant, 'crm', 'salesfroce');
INSERT INTO connectors (tenant_id, name, type, sync_frequency) VALUES (:tenant, 'crm', 'salesforce', 'fortnightly');
INSERT INTO connectors (tenant_id, name, type, status) VALUES (:tenant, 'crm', 'salesforce', 'asleep');

-- A manifest with a component that is not known is refused by its name.
INSERT INTO connectors (tenant_id, name, type, config) VALUES (:tenant, 'api', 'api', '{}');
INSERT INTO connectors (tenant_id, name, type, config) VALUES (:tenant, 'api', 'api', '{"manifest": {"type": "DeclarativeSource",
    "streams": [{"type": "DeclarativeStream", "name": "orders", "retriever": {"type": "CustomRetriever"}}]}}');
INSERT INTO tenants (tenant_id, timezone) VALUES (:tenant, 'Mars/Olympus');

-- Spelling is forgiven, tenants are registered, and a manual connector is never due by itself.
INSERT INTO connectors (connector_id, tenant_id, name, type, sync_frequency, status)
VALUES ('00000000-0000-4000-8000-0000000000c1', :tenant, 'crm', ' Salesforce', 'On-Demand', 'PAUSED')
RETURNING type, sync_frequency, status, next_sync_at;
SELECT timezone, currency FROM tenants;

-- What cannot be queued is said, and is no error.
SELECT connector_service_sync('00000000-0000-4000-8000-00000000dead');
SELECT connector_service_cancel('00000000-0000-4000-8000-00000000dead');
CALL connector_service_sync_wait('00000000-0000-4000-8000-00000000dead');

DELETE FROM connectors;
DELETE FROM tenants;
