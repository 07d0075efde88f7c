//! The order in which the install script is put together.

use pgrx::prelude::*;

/// The schema of internal functions, for `schema = "_connector_service"`. 00_guard.sql creates it: pgrx's IF NOT EXISTS would
/// accept a schema of somebody else.
#[pg_schema]
mod _connector_service {}

extension_sql_file!("../sql/install/00_guard.sql", name = "guard", bootstrap);
extension_sql_file!(
    "../sql/install/10_connector.sql",
    name = "connector",
    requires = ["guard"]
);
extension_sql_file!(
    "../sql/install/20_run.sql",
    name = "run",
    requires = ["connector"]
);
extension_sql_file!(
    "../sql/install/25_upload.sql",
    name = "upload",
    requires = ["run"]
);
extension_sql_file!(
    "../sql/install/30_raw.sql",
    name = "raw",
    requires = ["upload"]
);
extension_sql_file!(
    "../sql/install/35_mapping.sql",
    name = "mapping",
    // Its functions name these functions, which must exist when they are created.
    requires = ["raw", connector_service_judge_paths]
);
extension_sql_file!(
    "../sql/install/40_fact.sql",
    name = "fact",
    requires = ["mapping", connector_service_lock]
);
extension_sql_file!(
    "../sql/install/42_derive.sql",
    name = "derive",
    requires = [
        "fact",
        connector_service_amount,
        connector_service_amount_in,
        connector_service_day,
        connector_service_hours,
        connector_service_numbers
    ]
);
extension_sql_file!(
    "../sql/install/44_change.sql",
    name = "change",
    requires = ["derive"]
);
extension_sql_file!(
    "../sql/install/45_builtin.sql",
    name = "builtin",
    requires = [
        "change",
        connector_service_check_type,
        connector_service_wake
    ]
);
extension_sql_file!(
    "../sql/install/50_metric.sql",
    name = "metric",
    requires = ["builtin"]
);
extension_sql_file!(
    "../sql/install/52_process.sql",
    name = "process",
    requires = ["metric"]
);
extension_sql_file!(
    "../sql/install/54_verify.sql",
    name = "verify",
    requires = ["process"]
);
extension_sql_file!(
    "../sql/install/56_metric_change.sql",
    name = "metric_change",
    requires = ["verify"]
);
extension_sql_file!(
    "../sql/install/60_alert.sql",
    name = "alert",
    requires = ["metric_change", connector_service_lock_alerts]
);
extension_sql_file!(
    "../sql/install/62_rule.sql",
    name = "rule",
    requires = ["alert"]
);
extension_sql_file!(
    "../sql/install/64_check.sql",
    name = "check",
    requires = ["rule"]
);
extension_sql_file!(
    "../sql/install/70_aggregate.sql",
    name = "aggregate",
    requires = ["check"]
);
extension_sql_file!(
    "../sql/install/80_schedule.sql",
    name = "schedule",
    requires = ["aggregate"]
);
extension_sql_file!(
    "../sql/install/85_health.sql",
    name = "health",
    requires = ["schedule", connector_service_status]
);
extension_sql_file!(
    "../sql/install/87_gateway.sql",
    name = "gateway",
    requires = ["health", connector_service_hint]
);
extension_sql_file!(
    "../sql/install/90_control.sql",
    name = "control",
    requires = [
        "gateway",
        connector_service_backfill,
        connector_service_cancel,
        connector_service_check,
        connector_service_hint,
        connector_service_preview_upload,
        connector_service_upload,
        connector_service_check_config,
        connector_service_check_type,
        connector_service_key_file,
        connector_service_key_ids,
        connector_service_new_key,
        connector_service_preview,
        connector_service_replay,
        connector_service_refresh,
        connector_service_reprocess,
        connector_service_reseal,
        connector_service_retire_key,
        connector_service_seal,
        connector_service_seal_key,
        connector_service_sync,
        connector_service_sync_due,
        connector_service_sync_due_of,
        connector_service_types,
        connector_service_wake
    ]
);
// Last, because it grants privileges on everything before.
extension_sql_file!("../sql/install/95_access.sql", name = "access", finalize);
