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
    "../sql/install/12_outlook.sql",
    name = "outlook",
    requires = ["connector"]
);
extension_sql_file!(
    "../sql/install/20_run.sql",
    name = "run",
    requires = ["outlook"]
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
    "../sql/install/32_measure.sql",
    name = "measure",
    requires = ["raw"]
);
extension_sql_file!(
    "../sql/install/32_retention.sql",
    name = "retention",
    requires = ["measure"]
);
extension_sql_file!(
    "../sql/install/35_mapping.sql",
    name = "mapping",
    // Its functions name these functions, which must exist when they are created.
    requires = ["retention", connector_service_judge_paths]
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
        connector_service_clock,
        connector_service_day,
        connector_service_decimal,
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
    "../sql/install/48_count.sql",
    name = "count",
    requires = ["builtin"]
);
extension_sql_file!(
    "../sql/install/50_metric.sql",
    name = "metric",
    requires = ["count"]
);
extension_sql_file!(
    "../sql/install/51_measure_value.sql",
    name = "measure_value",
    requires = ["metric"]
);
extension_sql_file!(
    "../sql/install/52_process.sql",
    name = "process",
    requires = ["measure_value"]
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
    "../sql/install/58_decide.sql",
    name = "decide",
    requires = ["metric_change"]
);
extension_sql_file!(
    "../sql/install/60_alert.sql",
    name = "alert",
    requires = ["decide", connector_service_lock_alerts]
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
    "../sql/install/88_restore.sql",
    name = "restore",
    requires = ["gateway"]
);
extension_sql_file!(
    "../sql/install/90_control.sql",
    name = "control",
    requires = [
        "restore",
        connector_service_backfill,
        connector_service_backfill_named,
        connector_service_cancel,
        connector_service_cancel_named,
        connector_service_check,
        connector_service_check_named,
        connector_service_hint,
        connector_service_preview_upload,
        connector_service_preview_upload_named,
        connector_service_upload,
        connector_service_upload_named,
        connector_service_check_config,
        connector_service_check_type,
        connector_service_count,
        connector_service_count_named,
        connector_service_key_file,
        connector_service_key_ids,
        connector_service_new_key,
        connector_service_notice_number,
        connector_service_prospects,
        connector_service_similar,
        connector_service_preview,
        connector_service_preview_named,
        connector_service_replay,
        connector_service_replay_named,
        connector_service_refresh,
        connector_service_refresh_named,
        connector_service_reprocess,
        connector_service_reprocess_named,
        connector_service_reseal,
        connector_service_retire_key,
        connector_service_seal,
        connector_service_seal_key,
        connector_service_sync,
        connector_service_sync_named,
        connector_service_sync_due,
        connector_service_sync_due_of,
        connector_service_types,
        connector_service_wake
    ]
);
extension_sql_file!(
    "../sql/install/92_delete.sql",
    name = "delete",
    requires = [
        "control",
        connector_service_delete,
        connector_service_delete_named,
        connector_service_delete_some,
        connector_service_delete_tenant
    ]
);
extension_sql_file!(
    "../sql/install/94_erase.sql",
    name = "erase",
    requires = ["delete", connector_service_erase]
);
// Last, because it grants privileges on everything before.
extension_sql_file!("../sql/install/95_access.sql", name = "access", finalize);
