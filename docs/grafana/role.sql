-- A role for Grafana's data source: it reads, of all tenants, what the dashboard shows, and neither records, configs nor
-- credentials. Whoever may edit a dashboard can run any SQL with it. For one tenant, a role that is bound to it by
-- tenant_roles does, without any of this.
CREATE ROLE grafana LOGIN BYPASSRLS;
ALTER ROLE grafana SET default_transaction_read_only = on;
GRANT SELECT ON tenants, sync_runs, metrics, data_quality_alerts, connector_health TO grafana;
GRANT SELECT (connector_id, tenant_id, name, type, sync_frequency, scheduler, status, failures, error_message, last_sync_at, next_sync_at)
    ON connectors TO grafana;
GRANT SELECT (quarantine_id, connector_id, tenant_id, stream, reason_code, reason, occurrences, created_at, last_seen_at, replayed_at)
    ON quarantine TO grafana;
GRANT SELECT (connector_id, processed) ON raw_connector_data TO grafana;
GRANT EXECUTE ON FUNCTION connector_service_hint(text) TO grafana;
