-- A role for Grafana's data source. It reads what the dashboard shows, of all tenants, but no records, configs or
-- credentials. A person who may edit dashboards can run any SQL as this role. For one tenant you need none of this: use a
-- role that tenant_roles binds to that tenant.
CREATE ROLE grafana LOGIN BYPASSRLS;
ALTER ROLE grafana SET default_transaction_read_only = on;
GRANT SELECT ON tenants, sync_runs, metrics, measures, measure_values, all_metrics, data_quality_alerts, connector_health TO grafana;
GRANT SELECT (connector_id, tenant_id, name, type, sync_frequency, scheduler, status, failures, error_message, last_sync_at, next_sync_at)
    ON connectors TO grafana;
GRANT SELECT (quarantine_id, connector_id, tenant_id, stream, reason_code, reason, occurrences, created_at, last_seen_at, replayed_at)
    ON quarantine TO grafana;
GRANT SELECT (connector_id, processed) ON raw_connector_data TO grafana;
GRANT EXECUTE ON FUNCTION connector_service_hint(text) TO grafana;
