//! What somebody changes around the extension: settings of the database, its locale, names of schemas, owners, event triggers.

use super::*;

fn vendor() -> Vendor {
    Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1, "total": 5}], "next": null}"#.into()))
}

fn is_synced(client: &mut Client) {
    wait_until(20, "the connector is synced", || {
        let sql = "SELECT count(*) FROM connectors WHERE last_sync_at IS NOT NULL";
        (count(client, sql) > 0).then_some(())
    });
}

#[test]
fn a_role_that_the_database_sets_stops_nothing() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    cluster.wait_worker("app");
    client
        .batch_execute("CREATE ROLE x; ALTER DATABASE app SET role = x; ALTER ROLE ALL IN DATABASE app SET statement_timeout = '1ms'")
        .unwrap();
    drop(client);
    cluster.stop(Stop::Fast);
    cluster.run();
    let mut client = cluster.wait_ready_in("app");
    cluster.wait_worker("app");
    // A statement may take longer than its time on a busy machine.
    wait_until(30, "the session has time and rights", || {
        let sql = ["SET statement_timeout = 0", "SET ROLE postgres"];
        sql.iter()
            .all(|sql| client.batch_execute(sql).is_ok())
            .then_some(())
    });
    let vendor = vendor();
    client
        .batch_execute(&insert("shop", &vendor.url(), "orders"))
        .unwrap();
    is_synced(&mut client);
    let (ok, detail, _) = doctor(&mut client, "repeated failures");
    assert!(ok, "{detail}");
}

#[test]
fn words_are_known_in_a_database_with_turkish_letters() {
    let cluster = Cluster::start("");
    let mut client = cluster.client("postgres");
    client
        .batch_execute("CREATE DATABASE tr ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C.UTF-8' TEMPLATE template0")
        .unwrap();
    let mut client = cluster.client("tr");
    assert_eq!(text(&mut client, "SELECT lower('API')"), "ap\u{131}");
    client
        .batch_execute("CREATE EXTENSION connector_service")
        .unwrap();
    cluster.wait_worker("tr");
    let vendor = vendor();
    let insert = insert("SHIP", &vendor.url(), "orders")
        .replace("'api', '", "' API ', '")
        .replace("(name,", "(sync_frequency, status, name,")
        .replace("VALUES (", "VALUES ('DAILY', 'ACTIVE', ");
    client.batch_execute(&insert).unwrap();
    is_synced(&mut client);
    client
        .batch_execute(
            "INSERT INTO metric_mappings (connector_type, stream, metric_type, value_path, date_path, negative) VALUES ('API', 'orders', 'INVENTORY', '$.total', '$.day', 'REJECT');
             INSERT INTO connectors (name, type, sync_frequency, scheduler) VALUES ('files', 'CSV', 'ON-DEMAND', 'EXTERNAL'), ('hooks', 'webhook', 'EVENT-DRIVEN', 'database');
             SELECT connector_service_check('ship');
             SELECT * FROM aggregate_metrics(connector_service_default_tenant(), 'inventory', '2026-01-01', '2026-02-01', 'QUARTER');
             INSERT INTO data_quality_alerts (tenant_id, alert_type, severity, message) VALUES (connector_service_default_tenant(), 'missing', 'warning', 'Missing INVENTORY for 2026-01-05')",
        )
        .unwrap();
    let (code, _, _) = refusal(
        &mut client,
        "INSERT INTO connectors (name, type) VALUES ('ship', 'csv')",
    );
    assert_eq!(code, "23505");
    let sql = "SELECT metric_type FROM data_quality_alerts WHERE alert_type = 'missing'";
    assert_eq!(text(&mut client, sql), "inventory");
}

#[test]
fn a_renamed_schema_is_named_with_the_statement_that_corrects_it() {
    let cluster = Cluster::start("");
    let mut client = cluster.client("postgres");
    client.batch_execute("CREATE DATABASE app").unwrap();
    let mut client = {
        drop(client);
        cluster.client("app")
    };
    client
        .batch_execute("CREATE SCHEMA elt; CREATE EXTENSION connector_service SCHEMA elt; SET search_path = elt, public")
        .unwrap();
    cluster.wait_worker("app");
    let vendor = vendor();
    client
        .batch_execute(&insert("shop", &vendor.url(), "orders"))
        .unwrap();
    is_synced(&mut client);
    let sql = "SELECT item || ': ' || detail FROM elt2.connector_service_doctor() WHERE NOT ok";
    for (rename, says) in [
        (
            "ALTER SCHEMA elt RENAME TO elt2",
            "schema elt was renamed to elt2",
        ),
        (
            "ALTER SCHEMA elt RENAME TO elt2; ALTER SCHEMA _connector_service RENAME TO inner_parts",
            "schema _connector_service was renamed to inner_parts",
        ),
    ] {
        client.batch_execute(rename).unwrap();
        let found = text(&mut client, sql);
        assert!(found.contains(says), "{found}");
        client.batch_execute("SELECT pg_sleep(0)").unwrap();
        let fix = text(
            &mut client,
            "SELECT fix FROM elt2.connector_service_doctor() WHERE NOT ok",
        );
        // Whoever looks for work says why there is none.
        client
            .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'connector_service sync worker'")
            .unwrap();
        wait_until(30, "the log says so", || {
            let log = cluster.log();
            (log.contains("was renamed") && log.contains("connector_service_doctor()"))
                .then_some(())
        });
        client.batch_execute(&fix).unwrap();
        let sql = "SELECT count(*) FROM connector_service_doctor() WHERE NOT ok AND item IN ('schema', 'owner')";
        assert_eq!(count(&mut client, sql), 0);
    }
    client
        .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'connector_service sync worker'")
        .unwrap();
    client
        .batch_execute("SELECT connector_service_sync('shop')")
        .unwrap();
    wait_until(30, "it is synced again", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE state = 'succeeded'";
        (count(&mut client, sql) == 2).then_some(())
    });
}

#[test]
fn other_owners_are_named_with_the_statements_that_correct_them() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    cluster.wait_worker("app");
    let vendor = vendor();
    client
        .batch_execute(&insert("shop", &vendor.url(), "orders"))
        .unwrap();
    is_synced(&mut client);
    client
        .batch_execute("CREATE ROLE heir; REASSIGN OWNED BY connector_service_engine TO heir")
        .unwrap();
    let (ok, detail, fix) = doctor(&mut client, "owner");
    assert!(!ok && detail.contains("role \"heir\""), "{detail}");
    client
        .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'connector_service sync worker'")
        .unwrap();
    wait_until(30, "the log says so", || {
        cluster
            .log()
            .contains("belong to role \"heir\"")
            .then_some(())
    });
    client.batch_execute(&fix.unwrap()).unwrap();
    let sql = "SELECT coalesce(string_agg(item || ': ' || detail, '; '), '') FROM connector_service_doctor() WHERE NOT ok AND item <> 'worker' AND item <> 'repeated failures'";
    assert_eq!(text(&mut client, sql), "");
    client
        .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'connector_service sync worker'")
        .unwrap();
    client
        .batch_execute("SELECT connector_service_sync('shop')")
        .unwrap();
    wait_until(30, "it is synced again", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE state = 'succeeded'";
        (count(&mut client, sql) == 2).then_some(())
    });
    // What the superuser owns may have another owner.
    client
        .batch_execute("CREATE ROLE second SUPERUSER LOGIN; REASSIGN OWNED BY postgres TO second")
        .unwrap_err();
}

#[test]
fn an_event_trigger_that_refuses_the_refresh_is_named() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    cluster.wait_worker("app");
    client
        .batch_execute(
            "CREATE FUNCTION audit() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'permission denied for audit_log'; END $$;
             CREATE EVENT TRIGGER audit_refresh ON ddl_command_end WHEN TAG IN ('REFRESH MATERIALIZED VIEW') EXECUTE FUNCTION audit();
             CREATE EVENT TRIGGER harmless ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION audit();
             INSERT INTO metrics (metric_type, metric_date, metric_value) VALUES ('revenue', '2026-01-05', 10);
             UPDATE metrics SET updated_at = now() - interval '10 minutes'",
        )
        .unwrap();
    let (ok, detail, fix) = doctor(&mut client, "monthly_revenue");
    assert!(
        !ok && detail.contains("\"audit_refresh\"") && !detail.contains("harmless"),
        "{detail}"
    );
    client.batch_execute(&fix.unwrap()).unwrap();
    assert!(doctor(&mut client, "monthly_revenue").0);
    let sql = "SELECT string_agg(evtname::text || evtenabled::text, ' ' ORDER BY evtname) FROM pg_event_trigger";
    assert_eq!(text(&mut client, sql), "audit_refreshO harmlessO");
}

#[test]
fn a_mapping_of_a_stream_that_nothing_has_is_answered_with_those_that_are_known() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    cluster.wait_worker("app");
    let vendor = vendor();
    client
        .batch_execute(&insert("shop", &vendor.url(), "orders"))
        .unwrap();
    is_synced(&mut client);
    let mapping = |of: &str, stream: &str, value: &str| {
        format!(
            "INSERT INTO metric_mappings ({}, stream, metric_type, value_path, date_path) SELECT {}, '{stream}', 'revenue', '{value}', '$.day' FROM connectors;",
            if of == "id" {
                "connector_id"
            } else {
                "connector_type"
            },
            if of == "id" {
                "connector_id".to_owned()
            } else {
                format!("'{of}'")
            }
        )
    };
    let shown = cluster.script("app", &mapping("id", "order", "$.total"));
    assert!(shown.contains("NOTICE:  mapping 1000 counts nothing as long as no connector that it is for has a stream \"order\""), "{shown}");
    assert!(shown.contains("DETAIL:  Known streams: orders."), "{shown}");
    assert!(
        shown.contains(
            "UPDATE public.metric_mappings SET stream = 'orders' WHERE mapping_id = 1000;"
        ),
        "{shown}"
    );
    let shown = cluster.script(
        "app",
        "UPDATE metric_mappings SET stream = 'orders' WHERE mapping_id = 1000",
    );
    assert!(!shown.contains("counts nothing"), "{shown}");
    let shown = cluster.script("app", &mapping("stripe", "charge", "$.amount"));
    assert!(
        shown.contains("Known streams: balance_transactions, charges,")
            && shown.contains("If you mean \"charges\""),
        "{shown}"
    );
    let shown = cluster.script("app", &mapping("square", "payments", "$.amount"));
    assert!(!shown.contains("counts nothing"), "{shown}");

    // Where the stream is right, and nothing in it.
    client
        .batch_execute("SELECT connector_service_reprocess('shop')")
        .unwrap();
    let (ok, detail, _) = doctor(&mut client, "mappings");
    assert!(
        ok,
        "what is in quarantine has an alert of its own: {detail}"
    );
    client
        .batch_execute("UPDATE metric_mappings SET filter = '$.kind == \"sale\"' WHERE mapping_id = 1000; SELECT connector_service_reprocess('shop')")
        .unwrap();
    let (ok, detail, _) = doctor(&mut client, "mappings");
    assert!(!ok && detail.contains("mapping 1000 (revenue of stream \"orders\") matches none of 1 record of connector \"shop\""), "{detail}");
}
