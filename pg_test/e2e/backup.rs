//! Tests that a dump holds every row, and that a copy of a database calls no vendor until somebody adopts it.

use std::collections::BTreeMap;
use std::sync::Arc;

use connector_service_test::*;
use postgres::Client;
use serde_json::Value;

/// Every row of every table of the extension, as JSON, in the order of its text.
fn content(client: &mut Client) -> BTreeMap<String, Vec<Value>> {
    let sql = "SELECT c.relname::text FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r'
               WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e' AND d.refobjid =
                   (SELECT oid FROM pg_extension WHERE extname = 'connector_service')";
    let tables: Vec<String> = client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let rows = |table: String| {
        // The built-in mappings come with the extension, on both sides.
        let sql = format!(
            "SELECT to_jsonb(t) FROM {table} t WHERE coalesce((to_jsonb(t) ->> 'mapping_id')::int >= 1000, true) ORDER BY to_jsonb(t)::text"
        );
        let rows = client.query(&sql, &[]).unwrap();
        (table, rows.into_iter().map(|row| row.get(0)).collect())
    };
    tables.into_iter().map(rows).collect()
}

#[test]
fn a_restored_dump_holds_every_row_and_calls_no_vendor_until_it_is_adopted() {
    let source = Cluster::start("");
    let mut client = source.database("app");
    let shop = Arc::new(Shop::new(500, 100));
    let serving = shop.clone();
    let vendor = Vendor::start(move |asked| match asked.path.as_str() {
        "/orders" => serving.answer(asked),
        "/bad" => Reply::Json(r#"{"data": [{"id": 1, "v": "\u0000"}, {"id": 2}]}"#.into()),
        _ => Reply::status(404),
    });
    let good = insert_connector(&mut client, "shop", &Shop::config(&vendor.url()));
    for (name, path) in [("bad", "bad"), ("gone", "gone")] {
        insert_connector(&mut client, name, &api(&vendor.url(), path));
    }
    client
        .batch_execute(
            "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, currency_path)
             SELECT connector_id, 'orders', 'revenue', '$.total', '$.updated_at', '$.currency' FROM connectors WHERE name = 'shop';
             INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path, filter)
             SELECT connector_id, 'orders', 'costs', '$.shipping', '$.updated_at', '$.id == 7' FROM connectors WHERE name = 'shop';
             INSERT INTO fx_rates SELECT 'EUR', 'USD', date '2026-01-01' + n, 1.1 FROM generate_series(0, 20) AS n;
             INSERT INTO quality_rules (metric_type, max_value) VALUES ('revenue', 50);
             INSERT INTO metrics (tenant_id, metric_type, metric_value, metric_date) SELECT tenant_id, 'revenue', 12.50, '2026-01-02' FROM tenants;
             INSERT INTO measures (tenant_id, name, aggregation) SELECT tenant_id, 'visits', 'average' FROM tenants;
             INSERT INTO quality_rules (tenant_id, metric_type, max_value, closed_weekdays) SELECT tenant_id, 'visits', 50, '{1,2,3,4,5,6,7}' FROM tenants;
             INSERT INTO measure_values (tenant_id, metric_type, metric_value, metric_date) SELECT tenant_id, 'visits', 51, '2026-01-02' FROM tenants;",
        )
        .unwrap();
    let runs: Vec<String> = client
        .query(
            "SELECT connector_service_sync(connector_id)::text FROM connectors",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    for run in &runs {
        wait_for_run(&mut client, run);
    }
    // As if it had all happened yesterday, and as a connector that is due.
    client
        .batch_execute(
            "UPDATE connectors SET created_at = created_at - interval '1 day';
             UPDATE metrics SET created_at = created_at - interval '1 day';
             UPDATE measure_values SET created_at = created_at - interval '1 day';
             -- Whether the worker looked for missing days before the syncs or after is chance.
             DELETE FROM data_quality_alerts WHERE alert_type = 'missing'",
        )
        .unwrap();
    let expected = content(&mut client);
    let counts = |content: &BTreeMap<String, Vec<Value>>| -> BTreeMap<String, usize> {
        content
            .iter()
            .map(|(table, rows)| (table.clone(), rows.len()))
            .collect()
    };
    for (table, rows) in [
        ("connectors", 3),
        // The sums are over the bound on every day; seven days have no rate; one was entered by hand; one record has
        // no costs, and a value of a measure is over its bound.
        ("data_quality_alerts", 30),
        ("fx_rates", 21),
        ("measure_values", 1),
        ("measures", 1),
        ("metric_facts", 500),
        ("metric_mapping_versions", 2),
        ("metric_mappings", 2),
        ("metric_sources", 1),
        ("metrics", 21),
        ("quality_rules", 2),
        ("quarantine", 2),
        ("raw_connector_data", 501),
        ("sync_requests", 1),
        ("sync_runs", 3),
        ("sync_state", 2),
        ("tenants", 1),
    ] {
        assert_eq!(expected[table].len(), rows, "{table}");
    }
    let dump = source.dir.join("dump.sql").display().to_string();
    source.command("pg_dump", &["-d", &source.url("app"), "-f", &dump]);

    let copy = Cluster::start("");
    copy.client("postgres")
        .batch_execute("CREATE DATABASE app")
        .unwrap();
    let restored = copy.command(
        "psql",
        &[
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            &copy.url("app"),
            "-f",
            &dump,
        ],
    );
    assert!(
        restored.contains("nothing is synced until this database is adopted"),
        "{restored}"
    );
    let mut client = copy.client("app");
    let mut kept = content(&mut client);
    assert_eq!(counts(&kept), counts(&expected));
    // The one table that says where it is.
    let (mut here, there) = (kept.remove("installation"), &expected["installation"]);
    assert_ne!(here.as_mut().unwrap(), there);
    for (table, rows) in &kept {
        assert_eq!(rows, &expected[table], "{table}");
    }

    // A run that is asked for stays queued: the worker is there, and calls nobody.
    let before = vendor.asked().len();
    copy.wait_worker("app");
    let run = sync(&mut client, &good);
    wait_until(10, "the worker says that it syncs nothing", || {
        copy.log()
            .contains("connector_service syncs nothing in database")
            .then_some(())
    });
    assert_eq!(run_of(&mut client, &run)["state"], "queued");
    assert_eq!(vendor.asked().len(), before);
    client
        .batch_execute("SELECT connector_service_adopt()")
        .unwrap();
    // Its credentials came along sealed; the key is not in a dump.
    let ended = wait_for_run(&mut client, &run);
    assert_eq!(ended["error_code"], "key_missing", "{ended}");
    let key = |cluster: &Cluster| cluster.dir.join("data.connector_service.key");
    assert!(!key(&copy).exists(), "no key takes the place of a lost one");
    let sql = "SELECT ok FROM connector_service_doctor() WHERE item = 'key'";
    let mut has_key = || client.query_one(sql, &[]).unwrap().get::<_, bool>(0);
    assert!(!has_key(), "no file has the key of what is sealed here");
    let (from, to) = (key(&source), key(&copy));
    copy.command(
        "/bin/cp",
        &["-p", from.to_str().unwrap(), to.to_str().unwrap()],
    );
    assert!(has_key());
    let run = sync(&mut client, &good);
    assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    assert_eq!(Shop::stored(&mut client, &good), shop.served());
    let wrong = client.query("SELECT * FROM connector_service_verify()", &[]);
    assert_eq!(wrong.unwrap().len(), 0);
    wait_until(10, "the worker refreshes the monthly aggregate", || {
        let sql = "SELECT total_revenue = (SELECT sum(metric_value) FROM metrics WHERE metric_type = 'revenue') FROM monthly_revenue";
        client
            .query_opt(sql, &[])
            .unwrap()?
            .get::<_, bool>(0)
            .then_some(())
    });
    // The sequence came along: a reject that was met before counts, a new one gets a new number.
    ledger_holds(&mut client);
}

#[test]
fn a_database_without_its_installation_row_syncs_only_after_it_is_adopted() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    cluster.wait_worker("app");
    client.batch_execute("DELETE FROM installation").unwrap();
    let sql = "SELECT ok, detail, fix FROM connector_service_doctor() WHERE item = 'copy'";
    let found = client.query_one(sql, &[]).unwrap();
    let (ok, detail): (bool, String) = (found.get(0), found.get(1));
    assert!(
        !ok && detail.contains("the table installation has no row"),
        "{detail}"
    );
    client.batch_execute(found.get(2)).unwrap();
    assert!(client.query_one(sql, &[]).unwrap().get::<_, bool>(0));
    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1}]}"#.into()));
    let connector = insert_connector(&mut client, "shop", &api(&vendor.url(), "orders"));
    let run = sync(&mut client, &connector);
    assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    assert!(!cluster.log().contains("positioned before"));
}

/// A shop in a database `app`, synced, with its dump in the custom format, as the file of another cluster's.
fn dumped(vendor: &Vendor) -> (Cluster, BTreeMap<String, Vec<Value>>, String) {
    let source = Cluster::start("");
    let mut client = source.database("app");
    client
        .batch_execute(
            "INSERT INTO metric_mappings (connector_type, stream, metric_type, value_path, date_path, currency_path)
             VALUES ('api', 'orders', 'revenue', '$.total', '$.updated_at', '$.currency');
             INSERT INTO fx_rates SELECT 'EUR', 'USD', date '2026-01-01' + n, 1.1 FROM generate_series(0, 30) AS n;
             INSERT INTO quality_rules (metric_type, max_value) VALUES ('revenue', 50)",
        )
        .unwrap();
    for name in ["shop", "twin", "third"] {
        let connector = insert_connector(&mut client, name, &Shop::config(&vendor.url()));
        let run = sync(&mut client, &connector);
        assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    }
    client
        .query(
            "SELECT connector_service_create_token('app', tenant_id) FROM tenants",
            &[],
        )
        .unwrap();
    wait_until(20, "all days are summed", || {
        let sql = "SELECT NOT EXISTS (SELECT FROM metric_days_touched)";
        client
            .query_one(sql, &[])
            .unwrap()
            .get::<_, bool>(0)
            .then_some(())
    });
    let expected = content(&mut client);
    let file = source.dir.join("dump").display().to_string();
    source.command("pg_dump", &["-Fc", "-d", &source.url("app"), "-f", &file]);
    (source, expected, file)
}

/// The copy has all rows, and calls nobody, whatever it is asked, until it is adopted.
fn is_held_and_whole(copy: &Cluster, vendor: &Vendor, expected: &BTreeMap<String, Vec<Value>>) {
    let mut client = copy.client("app");
    let mut kept = content(&mut client);
    kept.remove("installation");
    for (table, rows) in &kept {
        assert_eq!(rows, &expected[table], "{table}");
    }
    let before = vendor.asked().len();
    copy.wait_worker("app");
    client
        .batch_execute("UPDATE connectors SET sync_frequency = 'hourly', next_sync_at = now(); SELECT connector_service_sync(connector_id) FROM connectors")
        .unwrap();
    wait_until(20, "the worker says that it syncs nothing", || {
        copy.log()
            .contains("connector_service syncs nothing in database")
            .then_some(())
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(vendor.asked().len(), before);
    let sql = "SELECT ok FROM connector_service_doctor() WHERE item = 'copy'";
    assert!(!client.query_one(sql, &[]).unwrap().get::<_, bool>(0));
    client
        .batch_execute("SELECT connector_service_adopt()")
        .unwrap();
    assert!(client.query_one(sql, &[]).unwrap().get::<_, bool>(0));
    let wrong = client.query("SELECT * FROM connector_service_verify()", &[]);
    assert_eq!(wrong.unwrap().len(), 0);
}

#[test]
fn a_dump_is_restored_by_several_jobs_at_once_and_calls_no_vendor_until_it_is_adopted() {
    let shop = Arc::new(Shop::new(2_000, 200));
    let vendor = Vendor::start(move |asked| shop.answer(asked));
    let (_source, expected, file) = dumped(&vendor);
    for jobs in ["4", "1"] {
        let copy = Cluster::start("");
        copy.client("postgres")
            .batch_execute("CREATE DATABASE app")
            .unwrap();
        let url = copy.url("app");
        let (ok, output) = copy.try_command("pg_restore", &["-j", jobs, "-d", &url, &file]);
        assert!(ok, "{output}");
        assert!(!output.contains("error"), "{output}");
        is_held_and_whole(&copy, &vendor, &expected);
    }
}

#[test]
fn data_that_is_loaded_without_triggers_calls_no_vendor_until_it_is_adopted() {
    let shop = Arc::new(Shop::new(300, 100));
    let vendor = Vendor::start(move |asked| shop.answer(asked));
    let (_source, expected, file) = dumped(&vendor);
    let copy = Cluster::start("");
    copy.database("app");
    copy.wait_worker("app");
    let url = copy.url("app");
    let without = ["--data-only", "--disable-triggers", "-d", &url, &file];
    let (ok, output) = copy.try_command("pg_restore", &without);
    assert!(ok, "{output}");
    is_held_and_whole(&copy, &vendor, &expected);

    // A restore that left a table out is not adopted.
    let copy = Cluster::start("");
    let mut client = copy.database("app");
    let url = copy.url("app");
    let part = ["--data-only", "-t", "raw_connector_data", "-d", &url, &file];
    copy.try_command("pg_restore", &part);
    let error = client
        .batch_execute("SELECT connector_service_adopt()")
        .unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "23503");
    let detail = error.detail().unwrap();
    assert!(
        detail.contains("900 of public.raw_connector_data (raw_connector_data_connector_fkey)"),
        "{error:?}"
    );
}
