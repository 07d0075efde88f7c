//! Tests who may do what: a tenant, an application, an administrator, the owner of a database, and a role that created
//! objects before the extension came.

use connector_service_test::*;
use postgres::Client;
use serde_json::json;

const A: &str = "00000000-0000-4000-8000-00000000000a";
const B: &str = "00000000-0000-4000-8000-00000000000b";

struct Stage {
    cluster: Cluster,
    vendor: Vendor,
    root: Client,
    /// A connector, a run and a metric of tenant B.
    connector: String,
    run: String,
    metric: String,
}

/// A database with two tenants. Tenant B has rows in every table.
fn stage() -> Stage {
    let cluster = Cluster::start("");
    let mut root = cluster.database("app");
    let vendor = Vendor::start(|_| {
        let row = json!({"id": 1, "total": "12.50", "day": "2026-01-05", "note": "it is Bs"});
        Reply::Json(json!({ "data": [row] }).to_string())
    });
    root.batch_execute(&format!(
        "CREATE ROLE shop_a LOGIN IN ROLE connector_service_tenant;
         CREATE ROLE web LOGIN IN ROLE connector_service_app;
         CREATE ROLE boss LOGIN IN ROLE connector_service_admin;
         CREATE ROLE outsider LOGIN;
         GRANT SELECT ON metrics TO outsider;
         INSERT INTO tenant_roles VALUES ('shop_a', '{A}');
         INSERT INTO metric_mappings (connector_type, stream, metric_type, value_path, date_path)
         VALUES ('api', 'orders', 'revenue', '$.total', '$.day');
         INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date, data) VALUES
            ('{A}', 'costs', 1, '2026-01-01', '{{\"note\": \"it is As\"}}'), ('{B}', 'costs', 7000000, '2026-01-01', '{{\"note\": \"it is Bs\"}}');
         INSERT INTO quality_rules (tenant_id, metric_type, max_value) VALUES (NULL, 'staffing', 24);
         INSERT INTO measures (tenant_id, name) VALUES ('{A}', 'visits'), ('{B}', 'signups');
         INSERT INTO measure_values (tenant_id, metric_type, metric_value, metric_date, data) VALUES
            ('{A}', 'visits', 1, '2026-01-01', '{{\"note\": \"it is As\"}}'), ('{B}', 'signups', 7000000, '2026-01-01', '{{\"note\": \"it is Bs\"}}');
         INSERT INTO data_quality_alerts (tenant_id, alert_type, message, alert_key) VALUES ('{B}', 'missing', 'it is Bs', 'a key')"
    ))
    .unwrap();
    let connector = connector_of(&mut root, B, &vendor);
    let run = sync(&mut root, &connector);
    assert_eq!(wait_for_run(&mut root, &run)["state"], "succeeded");
    let sql = format!(
        "SELECT metric_id::text FROM metrics WHERE tenant_id = '{B}' AND metric_type = 'costs'"
    );
    let metric = root.query_one(&sql, &[]).unwrap().get(0);
    root.batch_execute("SELECT refresh_monthly_revenue(); ANALYZE")
        .unwrap();
    Stage {
        cluster,
        vendor,
        root,
        connector,
        run,
        metric,
    }
}

fn connector_of(client: &mut Client, tenant: &str, vendor: &Vendor) -> String {
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
               VALUES ($1::text::uuid, 'shop', 'api', $2, '{\"api_key\": \"sk_test_not_a_real_key\"}', 'manual') RETURNING connector_id::text";
    let mut config = api(&vendor.url(), "orders");
    config["trace"] = json!(true);
    client.query_one(sql, &[&tenant, &config]).unwrap().get(0)
}

impl Stage {
    fn client(&self, role: &str) -> Client {
        self.cluster.client_as(role, "app")
    }
}

/// Returns the SQLSTATE with which a statement fails, or "" if it succeeds.
fn code(client: &mut Client, sql: &str) -> String {
    match client.batch_execute(sql) {
        Ok(()) => String::new(),
        Err(error) => error.code().expect("an SQLSTATE").code().to_owned(),
    }
}

fn text(client: &mut Client, sql: &str) -> String {
    let row = client
        .query_one(sql, &[])
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    row.get::<_, Option<String>>(0).unwrap_or_default()
}

/// Returns every row of tenant B.
fn of_b(root: &mut Client) -> String {
    let tables = [
        "connectors",
        "metrics",
        "data_quality_alerts",
        "raw_connector_data",
        "sync_runs",
        "sync_requests",
        "quality_rules",
        "metric_mappings",
        "tenants",
        "metric_facts",
        "measures",
        "measure_values",
    ];
    let one = |table: &&str| {
        format!(
            "SELECT string_agg(t::text, '|' ORDER BY t::text) FROM {table} t WHERE tenant_id = '{B}' OR tenant_id IS NULL"
        )
    };
    let all: Vec<String> = tables.iter().map(one).collect();
    text(
        root,
        &format!(
            "SELECT md5(string_agg(v, '|')) FROM ({}) AS x(v)",
            all.join(" UNION ALL ")
        ),
    )
}

#[test]
fn a_tenant_cannot_reach_the_rows_of_another_one() {
    let mut stage = stage();
    let before = of_b(&mut stage.root);
    let mut tenant = stage.client("shop_a");
    let requests = "SELECT count(*)::text FROM sync_requests";
    assert_eq!(text(&mut stage.root, requests), "1");
    assert_eq!(text(&mut tenant, requests), "0");
    assert_eq!(text(&mut stage.client("boss"), requests), "1");
    let Stage {
        connector,
        run,
        metric,
        ..
    } = &stage;
    for (sql, expected) in [
        // Rows for another, or for all.
        (format!("INSERT INTO tenants (tenant_id) VALUES ('{}')", "00000000-0000-4000-8000-00000000000c"), "42501"),
        (format!("INSERT INTO connectors (tenant_id, name, type) VALUES ('{B}', 'x', 'stripe')"), "42501"),
        (format!("INSERT INTO connectors (connector_id, tenant_id, name, type) VALUES ('{connector}', '{B}', 'x', 'stripe') ON CONFLICT DO NOTHING"), "42501"),
        (format!("INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('{B}', 'costs', 1, '2026-01-01')"), "42501"),
        (format!("INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ('{B}', 'costs', 1, '2026-01-01') ON CONFLICT (tenant_id, metric_type, metric_date) DO UPDATE SET metric_value = 1"), "42501"),
        (format!("INSERT INTO data_quality_alerts (tenant_id, alert_type, message) VALUES ('{B}', 'missing', 'x')"), "42501"),
        (format!("INSERT INTO measures (tenant_id, name) VALUES ('{B}', 'visits')"), "42501"),
        (format!("INSERT INTO measure_values (tenant_id, metric_type, metric_value, metric_date) VALUES ('{B}', 'signups', 1, '2026-01-02')"), "42501"),
        // Whether another has a measure is not told.
        (format!("INSERT INTO quality_rules (tenant_id, metric_type, max_value) VALUES ('{B}', 'signups', 1)"), "42501"),
        (format!("INSERT INTO quality_rules (tenant_id, metric_type, max_value) VALUES ('{B}', 'nothing', 1)"), "42501"),
        (format!("INSERT INTO metric_mappings (connector_type, tenant_id, stream, metric_type, value_path, date_path) VALUES ('api', '{B}', 'orders', 'signups', '$.a', '$.b')"), "42501"),
        (format!("INSERT INTO metric_mappings (connector_type, tenant_id, stream, metric_type, value_path, date_path) VALUES ('api', '{B}', 'orders', 'nothing', '$.a', '$.b')"), "42501"),
        (format!("SELECT get_metrics('{B}', 'signups', '2026-01-01', '2026-01-02')"), "22023"),
        (format!("INSERT INTO metric_mappings (connector_type, tenant_id, stream, metric_type, value_path, date_path) VALUES ('api', '{A}', 'orders', 'signups', '$.a', '$.b')"), "22023"),
        (format!("UPDATE measures SET tenant_id = '{B}'"), "42501"),
        ("TRUNCATE measure_values".into(), "42501"),
        ("UPDATE measure_values SET derived_value = 1".into(), "42501"),
        (format!("INSERT INTO data_quality_alerts (tenant_id, alert_type, message, alert_key) VALUES ('{B}', 'missing', 'x', 'a key')"), "42501"),
        (format!("INSERT INTO quality_rules (tenant_id, max_value) VALUES ('{B}', 1)"), "42501"),
        ("INSERT INTO quality_rules (tenant_id, max_value) VALUES (NULL, 1)".into(), "42501"),
        // A mapping of all tenants. Where the column is left out, it is the role's own tenant.
        ("INSERT INTO metric_mappings (connector_type, tenant_id, stream, metric_type, value_path, date_path) VALUES ('api', NULL, 'orders', 'costs', '$.a', '$.b')".into(), "42501"),
        (format!("INSERT INTO metric_mappings (connector_type, tenant_id, stream, metric_type, value_path, date_path) VALUES ('api', '{B}', 'orders', 'costs', '$.a', '$.b')"), "42501"),
        (format!("INSERT INTO metric_mappings (mapping_id, builtin, connector_type, tenant_id, stream, metric_type, value_path, date_path) VALUES (999, true, 'api', '{A}', 'orders', 'costs', '$.a', '$.b')"), "42501"),
        // What points at another's.
        (format!("INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path) VALUES ('{connector}', 'orders', 'costs', '$.a', '$.b')"), "42501"),
        (format!("INSERT INTO data_quality_alerts (tenant_id, connector_id, alert_type, message) VALUES ('{A}', '{connector}', 'missing', 'x')"), "23503"),
        (format!("INSERT INTO data_quality_alerts (tenant_id, metric_id, alert_type, message) VALUES ('{A}', '{metric}', 'outlier', 'x')"), "23503"),
        // Own rows given away.
        (format!("UPDATE metrics SET tenant_id = '{B}', metric_date = '2026-01-02'"), "42501"),
        (format!("UPDATE metrics SET tenant_id = '{B}' RETURNING *"), "42501"),
        ("UPDATE tenants SET tenant_id = gen_random_uuid()".into(), "42501"),
        // What is not given at all.
        ("TRUNCATE metrics".into(), "42501"),
        ("TRUNCATE connectors CASCADE".into(), "42501"),
        ("UPDATE sync_runs SET state = 'queued'".into(), "42501"),
        ("UPDATE sync_requests SET address = 'x'".into(), "42501"),
        ("DELETE FROM sync_requests".into(), "42501"),
        ("INSERT INTO raw_connector_data SELECT * FROM raw_connector_data".into(), "42501"),
        ("UPDATE fx_rates SET rate = 1".into(), "42501"),
        ("SELECT * FROM monthly_revenue".into(), "42501"),
        ("REFRESH MATERIALIZED VIEW monthly_revenue".into(), "42501"),
        ("SELECT * FROM tenant_roles".into(), "42501"),
        ("SELECT * FROM installation".into(), "42501"),
        ("SELECT * FROM metric_days_touched".into(), "42501"),
        ("CREATE TRIGGER t BEFORE INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()".into(), "42501"),
        ("CREATE POLICY p ON metrics USING (true)".into(), "42501"),
        ("ALTER TABLE metrics DISABLE ROW LEVEL SECURITY".into(), "42501"),
        ("CREATE TABLE pg_temp.t (m uuid REFERENCES public.metrics)".into(), "42P16"),
        // Another tenant, another role.
        (format!("SET connector_service.tenant_id = '{B}'"), "42501"),
        (format!("BEGIN; SET LOCAL connector_service.tenant_id = '{B}'"), "42501"),
        (format!("SELECT set_config('connector_service.tenant_id', '{B}', false)"), "42501"),
        (format!("ALTER ROLE shop_a SET connector_service.tenant_id = '{B}'"), "42501"),
        (format!("SELECT connector_service_act_for('{B}')"), "42501"),
        ("SET ROLE connector_service_engine".into(), "42501"),
        ("SET ROLE connector_service_app".into(), "42501"),
        ("SET SESSION AUTHORIZATION postgres".into(), "42501"),
        ("SET session_replication_role = replica".into(), "42501"),
        ("BEGIN; SET LOCAL row_security = off; SELECT * FROM metrics".into(), "42501"),
        ("COPY metrics FROM '/dev/null'".into(), "42501"),
        // What acts on another's.
        (format!("SELECT connector_service_reprocess('{connector}')"), "42704"),
        (format!("SELECT connector_service_replay('{connector}')"), "42704"),
        (format!("SELECT connector_service_explain('{metric}')"), "42704"),
        (format!("CALL connector_service_sync_wait('{connector}')"), "55000"),
        ("SELECT connector_service_sync_due()".into(), "42501"),
        ("SELECT connector_service_process()".into(), "42501"),
        ("SELECT connector_service_adopt()".into(), "42501"),
        ("SELECT connector_service_keys()".into(), "42501"),
        (format!("SELECT connector_service_reseal('{{{connector}}}')"), "42501"),
        ("SELECT _connector_service.connector_service_types()".into(), "42501"),
    ] {
        assert_eq!(code(&mut tenant, &sql), expected, "{sql}");
        tenant.batch_execute("ROLLBACK").unwrap();
    }
    // Internal functions are not within reach, and not to be called where they are.
    let mut root = stage.cluster.client("app");
    for may_use in [false, true] {
        if may_use {
            let sql = "GRANT USAGE ON SCHEMA _connector_service TO shop_a";
            root.batch_execute(sql).unwrap();
        }
        for call in [
            format!("derive('{connector}', NULL, '{{}}', false)"),
            format!("reprocess_records('{connector}')"),
            format!("reseal('{B}', '{connector}', '{{}}')"),
            format!("settle(NULL, '{B}')"),
            format!("lock('{B}')"),
            "status()".into(),
        ] {
            let sql = format!("SELECT _connector_service.connector_service_{call}");
            assert_eq!(code(&mut tenant, &sql), "42501", "{sql}");
        }
    }
    root.batch_execute("REVOKE USAGE ON SCHEMA _connector_service FROM shop_a")
        .unwrap();
    // What answers as if there were nobody else.
    for (sql, expected) in [
        (format!("SELECT connector_service_sync('{connector}')::text"), ""),
        (format!("SELECT connector_service_cancel('{run}')::text"), "false"),
        (format!("SELECT get_metrics('{B}', NULL, '2025-01-01', '2027-01-01') ->> 'count'"), "0"),
        ("SELECT count(*)::text FROM pg_stats WHERE schemaname = 'public'".into(), "0"),
        ("WITH d AS (DELETE FROM metrics WHERE tenant_id <> (SELECT connector_service_tenant()) RETURNING 1) SELECT count(*)::text FROM d".into(), "0"),
        ("WITH u AS (UPDATE quality_rules SET max_value = 0 RETURNING 1) SELECT count(*)::text FROM u".into(), "0"),
        ("WITH u AS (UPDATE metric_mappings SET active = false RETURNING 1) SELECT count(*)::text FROM u".into(), "0"),
        ("SELECT count(*)::text FROM pg_stat_activity WHERE backend_type LIKE 'connector%' AND query <> '<insufficient privilege>'".into(), "0"),
    ] {
        assert_eq!(text(&mut tenant, &sql), expected, "{sql}");
    }
    if text(
        &mut stage.root,
        "SELECT current_setting('server_version_num')",
    )
    .as_str()
        >= "150000"
    {
        let merge = format!(
            "MERGE INTO metrics m USING (SELECT '{B}'::uuid AS t) s ON m.tenant_id = s.t WHEN MATCHED THEN DELETE"
        );
        assert_eq!(code(&mut tenant, &merge), "");
        let merge = format!(
            "MERGE INTO metrics m USING (SELECT '{B}'::uuid AS t) s ON m.tenant_id = s.t WHEN NOT MATCHED THEN INSERT (tenant_id, metric_type, metric_value, metric_date) VALUES (s.t, 'costs', 1, '2026-01-09')"
        );
        assert_eq!(code(&mut tenant, &merge), "42501");
    }
    // A condition that tells what it is shown is not shown another's row.
    tenant
        .batch_execute(
            "CREATE TEMP TABLE seen (v text);
             CREATE FUNCTION pg_temp.tell(v text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS 'BEGIN INSERT INTO pg_temp.seen VALUES (v); RETURN true; END'",
        )
        .unwrap();
    for relation in [
        "metrics",
        "data_quality_alerts",
        "connectors",
        "raw_connector_data",
        "daily_revenue_by_category",
        "daily_costs_by_category",
        "daily_metrics_by_category",
        "monthly_metrics",
        "all_metrics",
        "measures",
        "measure_values",
        "tenant_monthly_revenue",
        "metric_facts",
    ] {
        for path in ["on", "off"] {
            let sql = format!(
                "SET enable_seqscan = {path}; SELECT count(*) FROM {relation} t WHERE pg_temp.tell(t::text)"
            );
            assert_eq!(code(&mut tenant, &sql), "", "{sql}");
        }
    }
    assert_eq!(
        text(
            &mut tenant,
            &format!("SELECT count(*)::text FROM seen WHERE v LIKE '%{B}%' OR v LIKE '%it is Bs%'")
        ),
        "0"
    );
    assert_ne!(text(&mut tenant, "SELECT count(*)::text FROM seen"), "0");
    let copied = stage.cluster.command(
        "psql",
        &[
            "-X",
            "-d",
            &stage.cluster.url_as("shop_a", "app"),
            "-c",
            "COPY metrics TO STDOUT",
        ],
    );
    assert!(
        copied.contains("it is As") && !copied.contains("it is Bs"),
        "{copied}"
    );
    // By the options of a connection.
    let options = format!(
        "{} options='-c connector_service.tenant_id={B}'",
        stage.cluster.url_as("shop_a", "app")
    );
    let refused = Client::connect(&options, postgres::NoTls)
        .err()
        .expect("refused");
    assert_eq!(refused.code().unwrap().code(), "42501");
    // And nothing of it did anything.
    assert_eq!(of_b(&mut stage.root), before);
    assert_eq!(stage.vendor.asked().len(), 1);
    let held = "SELECT count(*)::text FROM installation WHERE held_since IS NOT NULL";
    let old = format!(
        "INSERT INTO connectors (tenant_id, name, type, created_at) VALUES ('{A}', 'old', 'stripe', '2020-01-01')"
    );
    tenant.batch_execute(&old).unwrap();
    assert_eq!(
        text(&mut stage.root, held),
        "0",
        "one tenant holds up all others"
    );
}

#[test]
fn a_tenant_does_its_own_work() {
    let stage = stage();
    let mut tenant = stage.client("shop_a");
    let connector = connector_of(&mut tenant, A, &stage.vendor);
    let run = sync(&mut tenant, &connector);
    assert_eq!(wait_for_run(&mut tenant, &run)["state"], "succeeded");
    tenant
        .batch_execute(&format!("CALL connector_service_sync_wait('{connector}')"))
        .unwrap();
    for (sql, expected) in [
        ("SELECT count(*)::text FROM raw_connector_data", "1"),
        ("SELECT count(*)::text FROM sync_runs", "2"),
        (
            "SELECT metric_value::text FROM metrics WHERE metric_type = 'revenue'",
            "12.50",
        ),
        (
            "SELECT total_revenue::text FROM daily_revenue_by_category",
            "12.50",
        ),
    ] {
        assert_eq!(text(&mut tenant, sql), expected, "{sql}");
    }
    for sql in [
        "UPDATE connectors SET credentials = credentials || '{\"api_key\": \"sk_test_another\"}'",
        "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, factor) SELECT connector_id, 'orders', 'revenue', '$.total', '$.day', 2 FROM connectors",
        "SELECT connector_service_reprocess(connector_id) FROM connectors",
        "SELECT connector_service_replay(connector_id) FROM connectors",
        "UPDATE metrics SET metric_value = 3 WHERE metric_type = 'costs'",
        "INSERT INTO quality_rules (tenant_id, metric_type, max_value) SELECT tenant_id, 'costs', 10 FROM tenants",
        "UPDATE data_quality_alerts SET resolved = true",
        "UPDATE tenants SET currency = 'EUR', timezone = 'Europe/Berlin'",
        "INSERT INTO measures (tenant_id, name, unit, aggregation) SELECT tenant_id, 'orders', 'orders', 'sum' FROM tenants",
        "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path) SELECT connector_id, 'orders', 'orders', '1', '$.day' FROM connectors",
        "SELECT connector_service_reprocess(connector_id) FROM connectors",
        "INSERT INTO measure_values (tenant_id, metric_type, metric_value, metric_date) SELECT tenant_id, 'orders', 4, '2026-01-06' FROM tenants
            ON CONFLICT (tenant_id, metric_type, metric_date) DO UPDATE SET metric_value = excluded.metric_value",
        "INSERT INTO quality_rules (tenant_id, metric_type, max_value) SELECT tenant_id, 'orders', 10 FROM tenants",
        "UPDATE measures SET name = 'purchases', unit = 'purchases' WHERE name = 'orders'",
        "UPDATE measure_values SET by_hand = false WHERE metric_type = 'visits'",
        "SELECT connector_service_seal_key()",
    ] {
        assert_eq!(code(&mut tenant, sql), "", "{sql}");
    }
    for (sql, expected) in [
        (
            format!("SELECT string_agg(concat_ws(' ', metric_type, total), ', ' ORDER BY metric_type) FROM aggregate_metrics('{A}', NULL, '2026-01-01', '2026-01-31', 'month') WHERE metric_type <> 'revenue'"),
            "costs 3, purchases 5",
        ),
        (
            "SELECT string_agg(concat_ws(' ', metric_type, total), ', ' ORDER BY metric_type) FROM monthly_metrics WHERE metric_type <> 'revenue'".into(),
            "costs 3, purchases 5",
        ),
        (
            format!("SELECT get_metrics('{A}', 'purchases', '2026-01-01', '2026-01-31') ->> 'count'"),
            "2",
        ),
        (
            "SELECT sum(x.counted)::text FROM measure_values v, connector_service_explain(v.metric_id) x".into(),
            "1",
        ),
    ] {
        assert_eq!(text(&mut tenant, &sql), expected, "{sql}");
    }
    assert_eq!(
        text(
            &mut tenant,
            "SELECT metric_value::text FROM metrics WHERE metric_type = 'revenue'"
        ),
        "25.00"
    );
    assert_eq!(
        text(
            &mut tenant,
            "SELECT count(*)::text FROM connector_service_explain((SELECT metric_id FROM metrics WHERE metric_type = 'revenue'))"
        ),
        "1"
    );
    assert_eq!(
        stage.vendor.asked().last().unwrap().headers["authorization"],
        "Bearer sk_test_not_a_real_key"
    );
    let run = sync(&mut tenant, &connector);
    wait_for_run(&mut tenant, &run);
    assert_eq!(
        stage.vendor.asked().last().unwrap().headers["authorization"],
        "Bearer sk_test_another"
    );
    for sql in [
        "DELETE FROM sync_state",
        "DELETE FROM raw_connector_data",
        "DELETE FROM connectors",
    ] {
        assert_eq!(code(&mut tenant, sql), "", "{sql}");
    }
    assert_eq!(
        text(
            &mut tenant,
            "SELECT count(*)::text FROM metrics WHERE metric_type = 'revenue'"
        ),
        "0"
    );
}

/// The values in one tenant's rows must not fail the statements that the worker runs for all tenants.
#[test]
fn extreme_values_of_one_tenant_do_not_delay_the_others() {
    let mut stage = stage();
    let mut tenant = stage.client("shop_a");
    let connector = connector_of(&mut tenant, A, &stage.vendor);
    let run = sync(&mut tenant, &connector);
    wait_for_run(&mut tenant, &run);
    let (mut taken, mut refused) = (0, 0);
    for sql in [
        "INSERT INTO quality_rules (tenant_id, freshness) SELECT tenant_id, '300000 years' FROM tenants",
        "INSERT INTO quality_rules (tenant_id, freshness) SELECT tenant_id, '100 years' FROM tenants",
        "UPDATE quality_rules SET freshness = 'P2147483647M'",
        "UPDATE quality_rules SET outlier_factor = 1e300",
        "UPDATE quality_rules SET outlier_factor = '1e999'",
        "UPDATE quality_rules SET outlier_factor = 'NaN'",
        "UPDATE quality_rules SET outlier_factor = 1e6, outlier_min_history = 3, completeness_ratio = 1",
        "UPDATE quality_rules SET max_value = '1e9999', min_value = '-1e9999'",
        "UPDATE quality_rules SET closed_days = '{infinity,-infinity}'",
        "UPDATE quality_rules SET closed_days = ARRAY(SELECT date '2000-01-01' + i FROM generate_series(1, 100000) i)",
        "INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) SELECT tenant_id, 'revenue', '1e400', date '2026-01-05' - 7 * i FROM tenants, generate_series(1, 10) i",
        "INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) SELECT tenant_id, 'revenue', '1e99', date '2026-01-05' - 7 * i FROM tenants, generate_series(1, 10) i",
        "INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) SELECT tenant_id, 'costs', 1, '4714-11-24 BC' FROM tenants",
        "INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) SELECT tenant_id, 'revenue', 1, '-infinity' FROM tenants",
        "INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date, data) SELECT tenant_id, 'revenue', 1, '1900-01-01', '{\"sources\": 5, \"categories\": [1]}' FROM tenants",
        "UPDATE metrics SET derived_value = 'NaN', settled_at = now()",
        "INSERT INTO data_quality_alerts (tenant_id, alert_type, message, alert_key, occurrences) SELECT tenant_id, 'outlier', 'x', 'outlier:revenue:2026-01-05', 2147483647 FROM tenants",
        "UPDATE data_quality_alerts SET occurrences = 2147483647",
        "UPDATE connectors SET failures = 2147483647",
        "UPDATE connectors SET last_sync_at = '-infinity'",
        "UPDATE connectors SET next_sync_at = 'infinity', sync_frequency = 'hourly'",
        "UPDATE connectors SET next_sync_at = '-infinity'",
        "INSERT INTO connectors (tenant_id, name, type, created_at) SELECT tenant_id, repeat('%s', 1000), 'stripe', '-infinity' FROM tenants",
        "INSERT INTO connectors (tenant_id, name, type, created_at, next_sync_at) SELECT tenant_id, 'never', 'stripe', 'infinity', 'infinity' FROM tenants",
        "INSERT INTO metric_mappings (connector_type, tenant_id, stream, metric_type, value_path, date_path, factor) SELECT 'api', tenant_id, 'orders', 'revenue', '$.total', '$.day', 9e14 FROM tenants",
        "INSERT INTO metric_mappings (connector_type, tenant_id, stream, metric_type, items_path, value_path, date_path) SELECT 'api', tenant_id, 'orders', 'costs', '$.**', '$.**', '$.** ? (@ like_regex \"(a*)*b\")' FROM tenants",
        "UPDATE tenants SET timezone = 'Pacific/Kiritimati', currency = 'JPY'",
        "UPDATE tenants SET timezone = 'Etc/GMT+12'",
    ] {
        match code(&mut tenant, sql).as_str() {
            "" => taken += 1,
            "23514" | "42501" | "22001" | "22003" | "22023" | "22008" | "22015" | "22007" => {
                refused += 1
            }
            other => panic!("{other}: {sql}"),
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(taken >= 10 && refused >= 10);
    for sql in [
        "SELECT connector_service_reprocess(connector_id) FROM connectors",
        "SELECT connector_service_process()",
        "SELECT connector_service_check_quality()",
        "SELECT check_missing_data(3660)",
        "SELECT refresh_monthly_revenue()",
        "SELECT connector_service_sync_due()",
        "SELECT connector_service_verify()",
    ] {
        assert_eq!(code(&mut stage.root, sql), "", "{sql}");
    }
    // The other one's sync goes on, by the worker and by itself.
    let sql = format!(
        "UPDATE connectors SET sync_frequency = 'hourly', next_sync_at = now() WHERE connector_id = '{}'",
        stage.connector
    );
    stage.root.batch_execute(&sql).unwrap();
    let sql = format!(
        "SELECT count(*)::text FROM sync_runs WHERE state = 'succeeded' AND connector_id = '{}'",
        stage.connector
    );
    wait_until(20, "another run", || {
        (text(&mut stage.root, &sql) == "2").then_some(())
    });
    assert!(
        !stage.cluster.log().contains("could not"),
        "the worker could do everything"
    );
}

#[test]
fn an_application_acts_for_the_tenant_that_it_sets_and_only_while_it_is_set() {
    let mut stage = stage();
    let mut web = stage.client("web");
    let seen = "SELECT string_agg(data ->> 'note', ',') FROM metrics WHERE metric_type = 'costs'";
    let nobody = |web: &mut Client, when: &str| {
        let error = web.query_one(seen, &[]).expect_err(when);
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "42501", "{when}");
        assert_eq!(error.message(), "role \"web\" acts for no tenant", "{when}");
        assert!(error.hint().unwrap().contains("connector_service_act_for"));
    };
    nobody(&mut web, "at first");
    web.batch_execute("PREPARE q AS SELECT string_agg(data ->> 'note', ',') FROM metrics WHERE metric_type = 'costs'").unwrap();
    for (tenant, note) in [(A, "it is As"), (B, "it is Bs"), (A, "it is As")] {
        let mut transaction = web.transaction().unwrap();
        transaction
            .batch_execute(&format!("SELECT connector_service_act_for('{tenant}')"))
            .unwrap();
        for sql in [seen, "EXECUTE q"] {
            assert_eq!(
                transaction
                    .simple_query(sql)
                    .unwrap()
                    .iter()
                    .find_map(|m| match m {
                        postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                        _ => None,
                    })
                    .as_deref(),
                Some(note)
            );
        }
        transaction.commit().unwrap();
        nobody(&mut web, "after the transaction");
    }
    web.batch_execute(&format!("SELECT connector_service_act_for('{B}', true)"))
        .unwrap();
    assert_eq!(text(&mut web, seen), "it is Bs");
    // It ends with what undoes the transaction that it was said in, and a statement within a function counts.
    web.batch_execute(&format!(
        "BEGIN; SELECT connector_service_act_for('{A}', true); ROLLBACK"
    ))
    .unwrap();
    assert_eq!(text(&mut web, seen), "it is Bs");
    for sql in [
        "SELECT connector_service_act_for(NULL, true)",
        "DISCARD ALL",
        "RESET ALL",
    ] {
        web.batch_execute(&format!("SELECT connector_service_act_for('{B}', true)"))
            .unwrap();
        web.batch_execute(sql).unwrap();
        nobody(&mut web, sql);
    }
    assert_eq!(
        code(
            &mut web,
            &format!("SET connector_service.tenant_id = '{B}'")
        ),
        "42501"
    );
    // Text that is no tenant is none; an administrator may name one for a role.
    for (value, note) in [("x", None), ("", None), (A, Some("it is As"))] {
        stage
            .root
            .batch_execute(&format!(
                "ALTER ROLE web SET connector_service.tenant_id = '{value}'"
            ))
            .unwrap();
        let mut web = stage.client("web");
        match note {
            Some(note) => assert_eq!(text(&mut web, seen), note),
            None => nobody(&mut web, value),
        }
    }
    // Whoever may act for nobody, and is nobody, is told so. A role that is two tenants is none.
    let mut outsider = stage.client("outsider");
    assert_eq!(code(&mut outsider, "SELECT * FROM metrics"), "42501");
    assert_eq!(code(&mut outsider, "SELECT * FROM connectors"), "42501");
    stage.root.batch_execute(&format!("CREATE ROLE twins IN ROLE connector_service_tenant; GRANT twins TO shop_a; INSERT INTO tenant_roles VALUES ('twins', '{B}')")).unwrap();
    let mut tenant = stage.client("shop_a");
    let error = tenant.query_one(seen, &[]).unwrap_err();
    assert_eq!(
        error.as_db_error().unwrap().message(),
        "role \"shop_a\" is bound to more than one tenant"
    );
    stage
        .root
        .batch_execute("REVOKE twins FROM shop_a")
        .unwrap();
    assert_eq!(text(&mut tenant, seen), "it is As");
}

#[test]
fn an_administrator_needs_no_superuser_rights() {
    let mut stage = stage();
    let mut boss = stage.client("boss");
    for sql in [
        "SELECT connector_service_sync_due()",
        "SELECT connector_service_process()",
        "SELECT check_missing_data()",
        "SELECT connector_service_check_quality()",
        "SELECT refresh_monthly_revenue()",
        "SELECT connector_service_adopt()",
        "CALL connector_service_rotate_key()",
        "SELECT connector_service_keys()",
        "INSERT INTO fx_rates VALUES ('EUR', 'USD', '2026-01-05', 1.1)",
        "INSERT INTO tenant_roles VALUES ('outsider', gen_random_uuid())",
        "UPDATE metric_mappings SET note = 'ours' WHERE NOT builtin",
        "SELECT connector_service_sync(connector_id) FROM connectors",
        "TRUNCATE data_quality_alerts",
    ] {
        assert_eq!(code(&mut boss, sql), "", "{sql}");
    }
    assert_eq!(
        text(
            &mut boss,
            "SELECT count(DISTINCT tenant_id)::text FROM metrics"
        ),
        "2"
    );
    assert_eq!(
        text(
            &mut boss,
            "SELECT count(*)::text FROM connector_service_verify()"
        ),
        "0"
    );
    for sql in [
        "SET ROLE connector_service_engine",
        "ALTER SYSTEM SET connector_service.max_pages = 1",
        "INSERT INTO metric_facts SELECT * FROM metric_facts",
        "UPDATE installation SET key_id = NULL",
        "SHOW connector_service.key_file",
        "ALTER TABLE metrics ADD x int",
    ] {
        assert_eq!(code(&mut boss, sql), "42501", "{sql}");
    }
    let run = text(
        &mut stage.root,
        "SELECT run_id::text FROM sync_runs ORDER BY requested_at DESC LIMIT 1",
    );
    assert_eq!(wait_for_run(&mut stage.root, &run)["state"], "succeeded");
}

#[test]
fn a_trigger_of_a_database_owner_never_runs_as_a_superuser() {
    let mut stage = stage();
    stage
        .root
        .batch_execute(
            "CREATE ROLE landlord LOGIN CREATEROLE; ALTER DATABASE app OWNER TO landlord;
             GRANT TRIGGER ON raw_connector_data, sync_runs, metrics TO landlord",
        )
        .unwrap();
    stage
        .client("landlord")
        .batch_execute(
            "CREATE SCHEMA mine;
             CREATE TABLE mine.tried (place text, who text, attempt text, outcome text);
             GRANT USAGE ON SCHEMA mine TO PUBLIC; GRANT INSERT ON mine.tried TO PUBLIC;
             CREATE FUNCTION mine.try() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE v_attempt text; v_outcome text;
             BEGIN
                 FOREACH v_attempt IN ARRAY ARRAY['SET ROLE postgres', 'RESET ROLE', 'SET SESSION AUTHORIZATION postgres', 'RESET SESSION AUTHORIZATION',
                     'ALTER ROLE landlord SUPERUSER', 'COPY mine.tried TO PROGRAM ''true''', 'CREATE TABLE pg_catalog.x ()', 'ALTER SYSTEM SET work_mem = ''1MB''',
                     'SELECT pg_read_file(''PG_VERSION'')', 'SET session_replication_role = replica'] LOOP
                     BEGIN
                         EXECUTE v_attempt;
                         v_outcome := 'done as ' || current_user || ', superuser ' || current_setting('is_superuser');
                     EXCEPTION WHEN OTHERS THEN v_outcome := SQLSTATE;
                     END;
                     INSERT INTO mine.tried VALUES (TG_NAME, current_user, v_attempt, v_outcome);
                 END LOOP;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER before BEFORE INSERT ON public.raw_connector_data FOR EACH ROW EXECUTE FUNCTION mine.try();
             CREATE TRIGGER later AFTER UPDATE ON public.sync_runs FOR EACH ROW EXECUTE FUNCTION mine.try();
             CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON public.raw_connector_data DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mine.try();
             CREATE TRIGGER of_metric BEFORE INSERT ON public.metrics FOR EACH ROW EXECUTE FUNCTION mine.try();
             ALTER DATABASE app SET search_path = mine, public",
        )
        .unwrap();
    let mut root = stage.cluster.client("app");
    let connector = connector_of(&mut root, A, &stage.vendor);
    let run = sync(&mut root, &connector);
    assert_eq!(wait_for_run(&mut root, &run)["state"], "succeeded");
    wait_until(20, "every trigger has fired", || {
        let sql = "SELECT count(DISTINCT place)::text FROM mine.tried";
        (text(&mut root, sql) == "4").then_some(())
    });
    let rows = root
        .query(
            "SELECT DISTINCT place, who, attempt, outcome FROM mine.tried",
            &[],
        )
        .unwrap();
    assert_eq!(rows.len(), 40);
    for row in rows {
        let [place, who, attempt, outcome] = [0, 1, 2, 3].map(|i| row.get::<_, String>(i));
        assert_eq!(who, "connector_service_engine", "{place}: {attempt}");
        assert!(outcome.len() == 5, "{place}: {attempt}: {outcome}");
    }
    assert_eq!(
        text(
            &mut root,
            "SELECT count(*)::text FROM pg_roles WHERE rolname = 'landlord' AND rolsuper"
        ),
        "0"
    );
}

#[test]
fn objects_that_existed_before_do_not_become_part_of_the_extension() {
    let cluster = Cluster::start("");
    let mut root = cluster.client("postgres");
    root.batch_execute("CREATE ROLE early LOGIN").unwrap();
    root.batch_execute("CREATE DATABASE app OWNER early")
        .unwrap();
    let mut root = cluster.client("app");
    let mut early = cluster.client_as("early", "app");
    let objects = "SELECT count(*)::text FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'public'::regnamespace";
    for object in [
        "TABLE public.metrics (a int)",
        "TABLE public.tenant_roles (role_name name, tenant_id uuid)",
        "VIEW public.connectors AS SELECT 1 AS a",
        "SEQUENCE public.sync_runs",
        "MATERIALIZED VIEW public.monthly_revenue AS SELECT 1 AS a",
        "TYPE public.quarantine AS (a int)",
        "FUNCTION public.connector_service_sync(uuid) RETURNS uuid LANGUAGE sql AS 'SELECT $1'",
        "FUNCTION public.get_metrics(uuid, text, date, date) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'",
        // Of another type, which might fit a call better.
        "FUNCTION public.connector_service_hint(varchar) RETURNS text LANGUAGE sql AS 'SELECT $1'",
        "FUNCTION public.validate_metric(int) RETURNS text LANGUAGE sql AS 'SELECT NULL'",
    ] {
        early.batch_execute(&format!("CREATE {object}")).unwrap();
        let before = text(&mut root, objects);
        let refused = code(&mut root, "CREATE EXTENSION connector_service");
        assert!(
            matches!(refused.as_str(), "42P07" | "42723" | "42710"),
            "{object}: {refused}"
        );
        assert_eq!(text(&mut root, objects), before);
        let name = object
            .split(" AS ")
            .next()
            .unwrap()
            .split(" RETURNS")
            .next()
            .unwrap();
        let name = if object.starts_with("TABLE") {
            object.split(" (").next().unwrap()
        } else {
            name
        };
        early.batch_execute(&format!("DROP {name}")).unwrap();
    }
    // The schema of the internal functions, and what is in it.
    for table in ["", " CREATE TABLE tenants (a int)"] {
        let sql = format!("CREATE SCHEMA _connector_service{table}");
        early.batch_execute(&sql).unwrap();
        let members = "SELECT count(*)::text FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'";
        let before = [text(&mut root, objects), text(&mut root, members)];
        for schema in ["public", "_connector_service"] {
            let error = root
                .batch_execute(&format!(
                    "CREATE EXTENSION connector_service SCHEMA {schema}"
                ))
                .expect_err(schema);
            let error = error.as_db_error().unwrap();
            assert_eq!(error.code().code(), "42P06");
            assert_eq!(
                error.message(),
                "schema \"_connector_service\" already exists"
            );
            assert!(error.hint().unwrap().contains("drop or rename"));
        }
        let after = [text(&mut root, objects), text(&mut root, members)];
        assert_eq!(after, before);
        early
            .batch_execute("DROP SCHEMA _connector_service CASCADE")
            .unwrap();
    }
    // Roles that somebody prepared.
    for (role, tidy) in [
        (
            "CREATE ROLE connector_service_engine LOGIN BYPASSRLS",
            "DROP ROLE connector_service_engine",
        ),
        (
            "CREATE ROLE connector_service_engine",
            "DROP ROLE connector_service_engine",
        ),
        (
            "CREATE ROLE connector_service_engine BYPASSRLS ROLE early",
            "DROP ROLE connector_service_engine",
        ),
        (
            "CREATE ROLE connector_service_admin SUPERUSER",
            "DROP ROLE connector_service_admin",
        ),
    ] {
        root.batch_execute(role).unwrap();
        assert_eq!(
            code(&mut root, "CREATE EXTENSION connector_service"),
            "42710",
            "{role}"
        );
        root.batch_execute(tidy).unwrap();
    }
    // Default privileges do not get into the lists.
    root.batch_execute(
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO early; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO early; ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO early;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO early; ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC;
         CREATE EXTENSION connector_service",
    )
    .unwrap();
    let sql = "SELECT string_agg(DISTINCT pg_describe_object(d.classid, d.objid, 0), ', ')
               FROM pg_depend d LEFT JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass LEFT JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
                   CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, p.proacl, acldefault('f', p.proowner))) a
               WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'connector_service') AND d.deptype = 'e' AND (a.grantee = 'early'::regrole OR a.grantee = 0)";
    assert_eq!(text(&mut root, sql), "function connector_service_tenant()");
    let sql = "SELECT string_agg(a.grantee::regrole::text, ', ') FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) a
               WHERE n.nspname = '_connector_service' AND a.grantee <> n.nspowner";
    assert_eq!(text(&mut root, sql), "connector_service_engine");
    // It goes with the extension.
    root.batch_execute("DROP EXTENSION connector_service")
        .unwrap();
    let sql = "SELECT count(*)::text FROM pg_namespace WHERE nspname = '_connector_service'";
    assert_eq!(text(&mut root, sql), "0");
}

const APPLICATION_AND_TENANT: &str = "
CREATE ROLE web LOGIN IN ROLE connector_service_app;
CREATE ROLE corner_shop LOGIN IN ROLE connector_service_tenant;
INSERT INTO tenant_roles (role_name, tenant_id) VALUES ('corner_shop', '00000000-0000-4000-8000-000000000001');

SET ROLE web;
BEGIN;
SELECT connector_service_act_for('00000000-0000-4000-8000-000000000001');
SELECT name, status FROM connectors;
COMMIT;
";

#[test]
fn an_application_and_a_tenant_see_their_tenant() {
    let cluster = Cluster::start("");
    let mut root = cluster.database("app");
    let tenant = "00000000-0000-4000-8000-000000000001";
    let insert = format!(
        "INSERT INTO connectors (tenant_id, name, type, status) VALUES ('{tenant}', 'own', 'stripe', 'paused'), (gen_random_uuid(), 'another''s', 'stripe', 'paused')"
    );
    root.batch_execute(&insert).unwrap();
    let shown = cluster.script("app", APPLICATION_AND_TENANT);
    assert!(
        shown.contains("own|paused") && !shown.contains("another"),
        "{shown}"
    );
    let mut tenant = cluster.client_as("corner_shop", "app");
    assert_eq!(
        text(&mut tenant, "SELECT string_agg(name, ',') FROM connectors"),
        "own"
    );
}

/// Functions and operators that fit better than PostgreSQL's own and ours, in a schema that everybody's path begins
/// with, and in the schema of the extension. Each of them leaves a note.
const HOSTILE: &str = "
CREATE SCHEMA hostile;
CREATE TABLE hostile.called (what text);
GRANT USAGE ON SCHEMA hostile TO PUBLIC; GRANT ALL ON hostile.called TO PUBLIC;
DO $make$
DECLARE v record; v_body text;
BEGIN
    FOR v IN
        SELECT DISTINCT o.oprname, t.name AS l, u.name AS r
        FROM (SELECT DISTINCT oprname FROM pg_operator WHERE oprname IN ('=', '<>', '<', '>', '<=', '>=', '||', '+', '-', '*', '/', '%', '~', '!~', '~~', '->', '->>', '#>', '#>>', '@>', '<@', '?', '&')) o,
            unnest('{text,name,varchar,uuid,jsonb,integer,bigint,numeric,date,timestamptz,interval,boolean,\"char\",oid}'::text[]) t(name),
            unnest('{text,name,varchar,uuid,jsonb,integer,bigint,numeric,date,timestamptz,interval,boolean,\"char\",oid}'::text[]) u(name)
    LOOP
        v_body := format('BEGIN INSERT INTO hostile.called VALUES (%L); RETURN NULL; END', format('operator %s (%s, %s)', v.oprname, v.l, v.r));
        EXECUTE format('CREATE FUNCTION hostile.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', 'op_' || v.oprname, v.l, v.r,
            CASE WHEN v.oprname IN ('=', '<>', '<', '>', '<=', '>=', '~', '!~', '~~', '@>', '<@', '?') THEN 'boolean' ELSE v.l END, v_body);
        EXECUTE format('CREATE OPERATOR hostile.%s (FUNCTION = hostile.%I, LEFTARG = %s, RIGHTARG = %s)', v.oprname, 'op_' || v.oprname, v.l, v.r);
    END LOOP;
    -- PostgreSQL's own functions, with the same arguments.
    FOR v IN
        SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS args, pg_get_function_result(p.oid) AS result
        FROM pg_proc p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset AND p.provariadic = 0
            AND p.proname IN ('now', 'clock_timestamp', 'lower', 'btrim', 'date_trunc', 'set_config', 'current_setting', 'md5', 'substring', 'split_part',
                'greatest', 'hashtext', 'pg_advisory_xact_lock', 'pg_try_advisory_xact_lock', 'pg_has_role', 'pg_sleep', 'jsonb_typeof', 'octet_length',
                'quote_ident', 'current_database', 'cardinality', 'abs', 'round', 'isfinite', 'gen_random_uuid', 'to_jsonb', 'to_char', 'timezone')
            AND pg_get_function_result(p.oid) NOT LIKE '%any%' AND pg_get_function_identity_arguments(p.oid) NOT LIKE '%any%' AND pg_get_function_result(p.oid) NOT IN ('internal', 'void')
    LOOP
        EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', v.proname, v.args, v.result,
            format('BEGIN INSERT INTO hostile.called VALUES (%L); RETURN NULL; END', 'function ' || v.proname || '(' || v.args || ')'));
    END LOOP;
    -- Ours, beside the real ones, for arguments that a literal fits as well.
    FOR v IN
        SELECT DISTINCT p.proname, array_to_string(ARRAY(SELECT CASE a WHEN 'text'::regtype THEN 'varchar' WHEN 'uuid'::regtype THEN 'varchar' WHEN 'jsonb'::regtype THEN 'json' ELSE a::regtype::text END
                FROM unnest(p.proargtypes) a), ', ') AS args
        FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
        WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'connector_service') AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
            AND p.prokind = 'f' AND p.prorettype <> 'trigger'::regtype AND EXISTS (SELECT FROM unnest(p.proargtypes) a WHERE a IN ('text'::regtype, 'uuid'::regtype, 'jsonb'::regtype))
    LOOP
        EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS text LANGUAGE plpgsql AS %L', v.proname, v.args,
            format('BEGIN INSERT INTO hostile.called VALUES (%L); RETURN NULL; END', 'ours ' || v.proname || '(' || v.args || ')'));
    END LOOP;
END
$make$;
CREATE TABLE hostile.connectors (); CREATE TABLE hostile.metrics (); CREATE TABLE hostile.pg_roles (); CREATE TABLE hostile.pg_extension ();
CREATE TYPE hostile.uuid AS (a int); CREATE TYPE hostile.jsonb AS (a int); CREATE DOMAIN hostile.numeric AS int;";

#[test]
fn hostile_functions_and_operators_are_never_called() {
    let mut stage = stage();
    stage.root.batch_execute(HOSTILE).unwrap();
    stage
        .root
        .batch_execute("ALTER DATABASE app SET search_path = hostile, pg_catalog, public")
        .unwrap();
    // The worker, too, begins with that path.
    let worker = stage.cluster.wait_worker("app");
    // SAFETY: the process of our own cluster.
    unsafe { libc::kill(worker, libc::SIGTERM) };
    let mut root = stage.cluster.client("app");
    let config = api(&stage.vendor.url(), "orders")
        .to_string()
        .replace('\'', "''");
    let (a, b) = (
        format!("'{A}'::pg_catalog.uuid"),
        format!("'{}'::pg_catalog.uuid", stage.connector),
    );
    for sql in [
        format!("INSERT INTO public.connectors (tenant_id, name, type, config, credentials) VALUES ({a}, 'x', 'api', '{config}', '{{\"api_key\": \"k\"}}')"),
        format!("INSERT INTO public.metrics (tenant_id, metric_type, metric_value, metric_date) VALUES ({a}, 'revenue', 2000000, '2026-01-02')"),
        "UPDATE public.metrics SET metric_value = 3".into(),
        "UPDATE public.data_quality_alerts SET resolved = true".into(),
        format!("INSERT INTO public.data_quality_alerts (tenant_id, alert_type, severity, message) VALUES ({a}, 'missing', 'warning', 'no revenue on 2026-01-03')"),
        format!("INSERT INTO public.metric_mappings (connector_type, tenant_id, stream, metric_type, items_path, value_path, date_path) VALUES ('api', {a}, 'orders', 'costs', '$.items[*]', '$.a', '$record.b')"),
        "UPDATE public.metric_mappings SET note = 'x', factor = 2 WHERE NOT builtin".into(),
        "INSERT INTO public.fx_rates VALUES ('EUR', 'USD', '2026-01-05', 1.1)".into(),
        "UPDATE public.tenants SET timezone = 'Europe/Berlin', currency = 'EUR'".into(),
        "UPDATE public.raw_connector_data SET data = '{\"id\": 1, \"total\": \"13.50\", \"day\": \"2026-01-06\"}'".into(),
        format!("SELECT public.connector_service_sync({b})"),
        format!("CALL public.connector_service_sync_wait({b})"),
        "SELECT public.connector_service_sync_due()".into(),
        "SELECT public.connector_service_process()".into(),
        "SELECT _connector_service.connector_service_settle()".into(),
        "SELECT public.connector_service_verify()".into(),
        "SELECT public.check_missing_data()".into(),
        "SELECT public.connector_service_check_quality()".into(),
        "SELECT public.refresh_monthly_revenue()".into(),
        format!("SELECT public.connector_service_reprocess({b})"),
        format!("SELECT public.connector_service_replay({b})"),
        format!("SELECT public.get_metrics({a}, 'revenue'::pg_catalog.text, '2026-01-01'::pg_catalog.date, '2026-12-31'::pg_catalog.date)"),
        format!("SELECT public.aggregate_metrics({a}, 'revenue'::pg_catalog.text, '2026-01-01'::pg_catalog.date, '2026-12-31'::pg_catalog.date, 'week'::pg_catalog.text)"),
        format!("SELECT public.connector_service_explain('{}'::pg_catalog.uuid)", stage.metric),
        "SELECT * FROM public.daily_revenue_by_category".into(),
        "SELECT public.connector_service_keys()".into(),
        "CALL public.connector_service_rotate_key()".into(),
        format!("SELECT public.connector_service_cancel('{}'::pg_catalog.uuid)", stage.run),
        "SELECT public.connector_service_adopt()".into(),
        format!("SELECT public.connector_service_act_for({a}, true)"),
        "SELECT * FROM public.tenant_monthly_revenue".into(),
        "DELETE FROM public.raw_connector_data".into(),
        "DELETE FROM public.metrics".into(),
        "TRUNCATE public.metrics, public.raw_connector_data CASCADE".into(),
        "DELETE FROM public.connectors".into(),
    ] {
        assert_eq!(code(&mut root, &sql), "", "{sql}");
    }
    // As one tenant, through every policy.
    let mut tenant = stage.cluster.client_as("shop_a", "app");
    for table in [
        "tenants",
        "connectors",
        "sync_state",
        "metric_mappings",
        "metric_mapping_versions",
        "metrics",
    ] {
        let sql = format!("SELECT * FROM public.{table}");
        assert_eq!(code(&mut tenant, &sql), "", "{sql}");
    }
    let called = "SELECT pg_catalog.string_agg(DISTINCT what, '; ') FROM hostile.called";
    assert_eq!(text(&mut root, called), "");
    // It would have been told.
    code(
        &mut root,
        "SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text",
    );
    assert_eq!(text(&mut root, called), "operator = (text, text)");
}
