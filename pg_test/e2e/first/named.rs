//! Connectors by their name, and tenants that nobody names.

use super::*;

fn vendor() -> Vendor {
    Vendor::start(|asked| match asked.path.as_str() {
        "/orders" => Reply::Json(r#"{"data": [{"id": 1, "total": 5}], "next": null}"#.into()),
        _ => Reply::Hang,
    })
}

#[test]
fn every_function_takes_a_name_or_an_id_however_it_is_given() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    cluster.wait_worker("app");
    let vendor = vendor();
    client
        .batch_execute(&insert("Shop", &vendor.url(), "orders"))
        .unwrap();
    client
        .batch_execute("INSERT INTO connectors (name, type) VALUES ('bank', 'csv')")
        .unwrap();
    let id = text(
        &mut client,
        "SELECT connector_id::text FROM connectors WHERE name = 'Shop'",
    );
    wait_until(10, "the first sync is over", || {
        let sql =
            "SELECT count(*) FROM connectors WHERE name = 'Shop' AND last_sync_at IS NOT NULL";
        (count(&mut client, sql) == 1).then_some(())
    });
    let upper = id.to_uppercase();
    let braced = format!("{{{}}}", id.replace('-', ""));
    for given in [
        "'shop'",
        "' SHOP '",
        "'Shop'::text",
        &format!("'{id}'"),
        &format!("'{id}'::uuid"),
        &format!("'{upper}'"),
        &format!("'{braced}'"),
    ] {
        for call in [
            format!("SELECT connector_service_sync({given})"),
            format!("SELECT connector_service_check({given})"),
            format!("SELECT connector_service_preview({given})"),
            format!("SELECT connector_service_backfill({given}, '2026-01-01', '2026-01-02')"),
            format!("SELECT connector_service_reprocess({given})"),
            format!("SELECT connector_service_replay({given})"),
            format!("CALL connector_service_sync_wait({given})"),
            format!("CALL connector_service_sync_wait({given}, '1 min')"),
            format!("SELECT connector_service_refresh({given}, 'orders')"),
        ] {
            client
                .batch_execute(&call)
                .unwrap_or_else(|error| panic!("{call}: {error:?}"));
            wait_until(20, "the run is over", || {
                let sql = "SELECT count(*) FROM sync_runs WHERE state IN ('queued', 'running')";
                (count(&mut client, sql) == 0).then_some(())
            });
        }
    }
    for given in [
        "'bank'",
        "(SELECT connector_id FROM connectors WHERE name = 'bank')",
    ] {
        for function in [
            "connector_service_preview_upload",
            "connector_service_upload",
        ] {
            let call = format!("SELECT {function}({given}, 'a.csv', '\\x69640a310a')");
            client
                .batch_execute(&call)
                .unwrap_or_else(|error| panic!("{call}: {error:?}"));
        }
    }
    // Named notation, a column, and parameters whose type the client leaves open.
    for call in [
        format!("SELECT connector_service_sync(p_connector_id => '{id}')"),
        "SELECT connector_service_sync(p_connector => 'shop')".into(),
        "SELECT connector_service_sync(connector_id) FROM connectors WHERE name = 'Shop'".into(),
        format!(
            "PREPARE p AS SELECT connector_service_sync($1); EXECUTE p('{id}'); EXECUTE p('shop'); EXECUTE p('{id}'::uuid)"
        ),
        format!("PREPARE q (uuid) AS SELECT connector_service_sync($1); EXECUTE q('{id}')"),
    ] {
        client
            .batch_execute(&call)
            .unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    let run: Option<String> = client
        .query_one("SELECT connector_service_sync($1)::text", &[&"shop"])
        .unwrap()
        .get(0);
    assert!(run.is_some());
    // NULL stays NULL.
    for call in [
        "connector_service_sync(NULL)",
        "connector_service_cancel(NULL)",
        "connector_service_check(NULL)",
    ] {
        let sql = format!("SELECT ({call} IS NULL)::text");
        assert_eq!(text(&mut client, &sql), "true", "{call}");
    }
}

#[test]
fn an_unknown_name_is_answered_with_names_that_are_like_it() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let vendor = vendor();
    client
        .batch_execute(&insert("corner shop", &vendor.url(), "hang"))
        .unwrap();
    for call in [
        "SELECT connector_service_check('corner shp')",
        "SELECT connector_service_preview('corner shp')",
        "SELECT connector_service_backfill('corner shp', '2026-01-01', '2026-01-02')",
        "SELECT connector_service_refresh('corner shp', 'orders')",
        "SELECT connector_service_reprocess('corner shp')",
        "SELECT connector_service_replay('corner shp')",
        "SELECT connector_service_upload('corner shp', 'a.csv', 'x')",
        "SELECT connector_service_preview_upload('corner shp', 'a.csv', 'x')",
        "SELECT connector_service_cancel('corner shp')",
    ] {
        let (code, message, hint) = refusal(&mut client, call);
        assert_eq!(
            (code.as_str(), hint.as_str()),
            ("42704", "Did you mean \"corner shop\"?"),
            "{call}: {message}"
        );
    }
    let (_, _, hint) = refusal(&mut client, "SELECT connector_service_check('zzzzzz')");
    assert!(hint.contains("table connectors"), "{hint}");
    let shown = cluster.script("app", "SELECT connector_service_sync('corner shp') IS NULL");
    assert!(
        shown.contains("does not exist")
            && shown.contains("Did you mean \"corner shop\"?")
            && shown.ends_with("t\n"),
        "{shown}"
    );

    // Another tenant's names are told to nobody.
    client
        .batch_execute(
            "CREATE ROLE guest LOGIN IN ROLE connector_service_tenant;
             INSERT INTO tenants (tenant_id, name) VALUES ('00000000-0000-4000-8000-0000000000bb', 'guest');
             INSERT INTO tenant_roles VALUES ('guest', '00000000-0000-4000-8000-0000000000bb')",
        )
        .unwrap();
    let mut guest = cluster.client_as("guest", "app");
    let (code, _, hint) = refusal(&mut guest, "SELECT connector_service_check('corner shp')");
    assert!(code == "42704" && !hint.contains("corner"), "{hint}");
    let (code, _, _) = refusal(&mut guest, "SELECT connector_service_check('corner shop')");
    assert_eq!(code, "42704");
    // A row without a tenant is the guest's, who has the name to himself.
    guest
        .batch_execute(&insert("corner shop", &vendor.url(), "hang"))
        .unwrap();
    guest
        .batch_execute("SELECT connector_service_check('corner shop')")
        .unwrap();
    guest
        .batch_execute("INSERT INTO metrics (metric_type, metric_date, metric_value) VALUES ('revenue', '2026-01-05', 10)")
        .unwrap();
    let sql =
        "SELECT count(*) FROM metrics WHERE tenant_id = '00000000-0000-4000-8000-0000000000bb'";
    assert_eq!(count(&mut client, sql), 1);
    let (code, _, _) = refusal(
        &mut guest,
        "INSERT INTO tenants (tenant_id, is_default) VALUES ('00000000-0000-4000-8000-0000000000bb', true)",
    );
    assert_eq!(code, "42501");
    // Whether another tenant has a name is not told either.
    let theirs = text(
        &mut client,
        "SELECT tenant_id::text FROM connectors WHERE tenant_id <> '00000000-0000-4000-8000-0000000000bb'",
    );
    for name in ["corner shop", "no such shop"] {
        let insert = format!(
            "INSERT INTO connectors (tenant_id, name, type) VALUES ('{theirs}', '{name}', 'csv')"
        );
        let (code, _, _) = refusal(&mut guest, &insert);
        assert_eq!(code, "42501", "{name}");
        let update = format!(
            "UPDATE connectors SET tenant_id = '{theirs}', name = '{name}', credentials = '{{}}'"
        );
        let (code, _, _) = refusal(&mut guest, &update);
        assert_eq!(code, "42501", "{name}");
    }
    let (code, _, hint) = refusal(
        &mut guest,
        "INSERT INTO connectors (name, type) VALUES ('Corner Shop', 'csv')",
    );
    assert!(code == "23505" && !hint.is_empty(), "{code} {hint}");
    // Who sees both has to say which.
    let (code, message, hint) =
        refusal(&mut client, "SELECT connector_service_check('corner shop')");
    assert_eq!(code, "21000", "{message}");
    assert!(hint.contains("connector_id"), "{hint}");
    let (code, _, _) = refusal(&mut client, "SELECT connector_service_sync('corner shop')");
    assert_eq!(code, "21000");
    let mut nobody = {
        client.batch_execute("CREATE ROLE nobody LOGIN").unwrap();
        cluster.client_as("nobody", "app")
    };
    let (code, _, _) = refusal(&mut nobody, "SELECT connector_service_check('corner shop')");
    assert_eq!(code, "42501");
}

#[test]
fn connectors_of_one_tenant_have_names_of_their_own() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let made = |name: &str| format!("INSERT INTO connectors (name, type) VALUES ('{name}', 'csv')");
    client.batch_execute(&made("Bank")).unwrap();
    for name in ["Bank", "bank", "  BANK ", "bank\t"] {
        let (code, message, hint) = refusal(&mut client, &made(name));
        assert_eq!(code, "23505", "{name}: {message}");
        assert!(
            message.contains("already has a connector named") && hint.contains("another name"),
            "{message} {hint}"
        );
    }
    client.batch_execute(&made("bank 2")).unwrap();
    let (code, _, hint) = refusal(
        &mut client,
        "UPDATE connectors SET name = 'BANK' WHERE name = 'bank 2'",
    );
    assert!(code == "23505" && !hint.is_empty());
    let (code, _, _) = refusal(
        &mut client,
        "INSERT INTO connectors (name, type) VALUES ('twice', 'csv'), ('Twice', 'csv')",
    );
    assert_eq!(code, "23505");
    // Its own name may be written in another way.
    client
        .batch_execute("UPDATE connectors SET name = ' BANK' WHERE name = 'Bank'")
        .unwrap();
    // What is there already is skipped, or changed, by who asks for that.
    for statement in [
        "INSERT INTO connectors (name, type) VALUES ('bank', 'csv') ON CONFLICT DO NOTHING",
        "DO $$ BEGIN INSERT INTO connectors (name, type) VALUES ('bank', 'csv') ON CONFLICT DO NOTHING; END $$",
        "INSERT INTO connectors (connector_id, name, type) SELECT connector_id, name, type FROM connectors WHERE name = ' BANK' ON CONFLICT (connector_id) DO UPDATE SET config = '{\"stream\": \"sales\"}'",
    ] {
        client
            .batch_execute(statement)
            .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM connectors"), 2);
    // Another tenant may have the same name.
    client
        .batch_execute("INSERT INTO connectors (tenant_id, name, type) VALUES (gen_random_uuid(), 'bank', 'csv')")
        .unwrap();

    // Of two sessions one gets it.
    let mut other = cluster.client("app");
    let tenant = "(SELECT tenant_id FROM connectors WHERE name = 'bank 2')";
    let race =
        format!("INSERT INTO connectors (tenant_id, name, type) SELECT {tenant}, 'race', 'csv'");
    client.batch_execute(&format!("BEGIN; {race}")).unwrap();
    let waiting = std::thread::spawn(move || {
        let error = other.batch_execute(&race).unwrap_err();
        error.code().unwrap().code().to_owned()
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(waiting.join().unwrap(), "23505");

    // The name of a connector that is being deleted is free.
    client
        .batch_execute("SELECT connector_service_delete((SELECT connector_id FROM connectors WHERE name = 'race'), false)")
        .unwrap();
    client
        .batch_execute(&format!(
            "INSERT INTO connectors (tenant_id, name, type) SELECT {tenant}, 'race', 'csv'"
        ))
        .unwrap();
    client
        .batch_execute("SELECT connector_service_reprocess('race')")
        .unwrap();

    // What had one name before names were unique keeps it, also through a dump, and the doctor names it.
    client
        .batch_execute(
            "INSERT INTO connectors (tenant_id, name, type, created_at) SELECT tenant_id, 'Bank 2', 'csv', now() - interval '1 year' FROM connectors WHERE name = 'bank 2'",
        )
        .unwrap();
    let (ok, detail, fix) = doctor(&mut client, "names of connectors");
    assert!(!ok && detail.contains("\"Bank 2\""), "{detail}");
    client
        .batch_execute(
            "UPDATE connectors SET config = '{\"stream\": \"bills\"}' WHERE name = 'Bank 2'",
        )
        .unwrap();
    let dump = cluster.dir.join("dump.sql");
    let url = cluster.url("app");
    cluster.command("pg_dump", &["-f", dump.to_str().unwrap(), &url]);
    cluster
        .client("postgres")
        .batch_execute("CREATE DATABASE copy")
        .unwrap();
    let url = cluster.url("copy");
    cluster.command(
        "psql",
        &[
            "-v",
            "ON_ERROR_STOP=1",
            "-q",
            "-f",
            dump.to_str().unwrap(),
            &url,
        ],
    );
    let mut copy = cluster.client("copy");
    let sql = "SELECT string_agg(name || coalesce(name_key, '-'), ',' ORDER BY name, connector_id) FROM connectors";
    assert_eq!(text(&mut copy, sql), text(&mut client, sql));
    drop(copy);
    // The one whose spelling is exact is meant, also where both are in small letters the same.
    client
        .batch_execute("SELECT connector_service_reprocess('Bank 2')")
        .unwrap();
    client.batch_execute(&fix.unwrap()).unwrap();
    assert!(doctor(&mut client, "names of connectors").0);
}

#[test]
fn a_tenant_need_not_be_named_where_it_is_clear() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let tenant = "SELECT connector_service_default_tenant()::text";
    // Made at the first use, once, by whoever is first.
    let sessions: Vec<_> = (0..4)
        .map(|i| {
            let mut client = cluster.client("app");
            std::thread::spawn(move || {
                client
                    .batch_execute(&format!(
                        "INSERT INTO connectors (name, type) VALUES ('file {i}', 'csv')"
                    ))
                    .unwrap();
            })
        })
        .collect();
    for session in sessions {
        session.join().unwrap();
    }
    assert_eq!(count(&mut client, "SELECT count(*) FROM tenants"), 1);
    let first = text(&mut client, tenant);
    assert_eq!(
        text(&mut client, "SELECT name FROM tenants WHERE is_default"),
        "default"
    );
    client
        .batch_execute("INSERT INTO metrics (metric_type, metric_date, metric_value) VALUES ('revenue', '2026-01-05', 10) ON CONFLICT (tenant_id, metric_type, metric_date) DO NOTHING")
        .unwrap();
    // Another one changes nothing, as long as there is a default.
    client
        .batch_execute("INSERT INTO connectors (tenant_id, name, type) VALUES ('00000000-0000-4000-8000-0000000000bb', 'theirs', 'csv'); INSERT INTO connectors (name, type) VALUES ('mine', 'csv')")
        .unwrap();
    assert_eq!(text(&mut client, tenant), first);
    let theirs = "'00000000-0000-4000-8000-0000000000bb'";
    client
        .batch_execute(&format!(
            "SELECT connector_service_default_tenant({theirs})"
        ))
        .unwrap();
    assert_eq!(format!("'{}'", text(&mut client, tenant)), theirs);
    let (code, _, _) = refusal(
        &mut client,
        "SELECT connector_service_default_tenant(gen_random_uuid())",
    );
    assert_eq!(code, "42704");
    client
        .batch_execute("SELECT connector_service_default_tenant(NULL)")
        .unwrap();
    let (code, message, hint) = refusal(
        &mut client,
        "INSERT INTO connectors (name, type) VALUES ('whose', 'csv')",
    );
    assert!(
        code == "23502" && message.contains("several tenants"),
        "{code} {message}"
    );
    assert!(hint.contains("connector_service_default_tenant"), "{hint}");
    // NULL is not left out.
    let (code, message, _) = refusal(
        &mut client,
        "INSERT INTO connectors (tenant_id, name, type) VALUES (NULL, 'whose', 'csv')",
    );
    assert!(code == "23502" && message.contains("is NULL"), "{message}");

    // One tenant that is there is meant, and is not made the default by that.
    let mut other = cluster.database("other");
    other
        .batch_execute("INSERT INTO tenants (name, timezone) VALUES ('Corner shop', 'Europe/Berlin'); INSERT INTO connectors (name, type) VALUES ('a', 'csv')")
        .unwrap();
    assert_eq!(
        count(
            &mut other,
            "SELECT count(*) FROM tenants WHERE NOT is_default"
        ),
        1
    );
    // Members of the roles: an administrator chooses, an application acts for somebody, and others have none.
    client
        .batch_execute(
            "CREATE ROLE boss LOGIN IN ROLE connector_service_admin; CREATE ROLE app LOGIN IN ROLE connector_service_app; CREATE ROLE nobody LOGIN IN ROLE connector_service_tenant",
        )
        .unwrap();
    let mut boss = cluster.client_as("boss", "app");
    boss.batch_execute(&format!("SELECT connector_service_default_tenant({theirs}); INSERT INTO connectors (name, type) VALUES ('by boss', 'csv')"))
        .unwrap();
    let mut app = cluster.client_as("app", "app");
    let (code, _, _) = refusal(
        &mut app,
        "INSERT INTO connectors (name, type) VALUES ('by app', 'csv')",
    );
    assert_eq!(code, "42501");
    app.batch_execute(&format!("SELECT connector_service_act_for('{first}', true); INSERT INTO connectors (name, type) VALUES ('by app', 'csv')"))
        .unwrap();
    let (code, _, _) = refusal(
        &mut app,
        &format!("SELECT connector_service_default_tenant('{first}')"),
    );
    assert_eq!(code, "42501");
    let mut nobody = cluster.client_as("nobody", "app");
    let (code, _, _) = refusal(
        &mut nobody,
        "INSERT INTO connectors (name, type) VALUES ('by nobody', 'csv')",
    );
    assert_eq!(code, "42501");
    let sql = "SELECT string_agg(name, ', ' ORDER BY name) FROM connectors WHERE tenant_id = '00000000-0000-4000-8000-0000000000bb'";
    assert_eq!(text(&mut client, sql), "by boss, theirs");
}
