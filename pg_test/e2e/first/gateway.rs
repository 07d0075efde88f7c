//! One address and several databases, and connectors that events are pushed to.

use std::time::Duration;

use super::*;
use connector_service_test::http::{ask, try_ask};

/// The id of a webhook connector that takes signed events.
fn webhook(client: &mut Client, name: &str) -> String {
    let sql = "INSERT INTO connectors (name, type, credentials) VALUES ($1, 'webhook', jsonb_build_object('secret', $2::text)) RETURNING connector_id::text";
    client.query_one(sql, &[&name, &SECRET]).unwrap().get(0)
}

#[test]
fn one_database_answers_and_the_doctor_of_each_says_which() {
    let port = free_port();
    let cluster = Cluster::start(&format!(
        "connector_service.gateway_listen = '127.0.0.1:{port}'\nmax_worker_processes = 20"
    ));
    let mut first = cluster.database("first");
    let hook = webhook(&mut first, "hook");
    wait_until(20, "the gateway answers", || {
        push(port, &hook, "{\"id\": 1}").filter(|answered| answered.status == 200)
    });
    assert!(doctor(&mut first, "gateway").0);
    let mut second = cluster.database("second");
    let other = webhook(&mut second, "hook");
    cluster.wait_worker("second");
    let (ok, detail, fix) = wait_until(20, "the doctor sees both", || {
        Some(doctor(&mut first, "gateway")).filter(|found| !found.0)
    });
    assert!(!ok && detail.contains("not for \"second\""), "{detail}");
    assert!(fix.unwrap().contains("gateway_database = 'first'"));
    let (ok, detail, fix) = doctor(&mut second, "gateway");
    assert!(
        !ok && detail.contains("answers for database \"first\", and not for this one"),
        "{detail}"
    );
    assert_eq!(push(port, &other, "{\"id\": 1}").unwrap().status, 401);
    let processes =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'connector_service gateway'";
    assert_eq!(count(&mut first, processes), 1);

    // After a restart it is the same one.
    drop((first, second));
    for _ in 0..2 {
        cluster.stop(Stop::Fast);
        cluster.run();
        wait_until(20, "the gateway answers for the same database", || {
            push(port, &hook, "{\"id\": 1}").filter(|answered| answered.status == 200)
        });
    }
    let mut second = cluster.client("second");
    wait_until(20, "its worker runs", || cluster.worker("second"));

    // What the doctor says hands it over, within seconds.
    mend(&mut second, &fix.unwrap());
    wait_until(20, "it answers for the other one", || {
        push(port, &other, "{\"id\": 1}").filter(|answered| answered.status == 200)
    });
    assert_eq!(push(port, &hook, "{\"id\": 2}").unwrap().status, 401);
    assert_eq!(count(&mut second, processes), 1);
    let second_says = wait_until(20, "the doctor of both is content", || {
        let (ok, detail, _) = doctor(&mut cluster.client("second"), "gateway");
        ok.then_some(detail)
    });
    assert!(
        second_says.starts_with("a gateway runs for 127.0.0.1"),
        "{second_says}"
    );
    let (ok, detail, _) = doctor(&mut cluster.client("first"), "gateway");
    assert!(ok && detail.contains("\"second\""), "{detail}");
    // Nobody fails again and again.
    assert!(
        !cluster.log().contains("cannot listen"),
        "{}",
        cluster.log()
    );
    let (ok, detail, _) = doctor(&mut second, "repeated failures");
    assert!(ok, "{detail}");

    // Each with an address of its own.
    let another = free_port();
    for statement in [
        format!(
            "ALTER SYSTEM SET connector_service.gateway_listen = '127.0.0.1:{port}, first=127.0.0.1:{another}'"
        ),
        "SELECT pg_reload_conf()".into(),
    ] {
        second.batch_execute(&statement).unwrap();
    }
    wait_until(20, "the first one answers there", || {
        push(another, &hook, "{\"id\": 3}").filter(|answered| answered.status == 200)
    });
    assert_eq!(push(port, &other, "{\"id\": 3}").unwrap().status, 200);
    let error = second
        .batch_execute(&format!("ALTER SYSTEM SET connector_service.gateway_listen = 'first=127.0.0.1:{port}, second=127.0.0.1:{port}'"))
        .unwrap_err();
    assert!(
        error
            .as_db_error()
            .unwrap()
            .detail()
            .unwrap()
            .contains("there twice"),
        "{error:?}"
    );

    // A name that no database has is told in each.
    for statement in [
        "ALTER SYSTEM SET connector_service.gateway_database = 'nowhere'",
        "SELECT pg_reload_conf()",
    ] {
        second.batch_execute(statement).unwrap();
    }
    wait_until(20, "the doctor says so", || {
        let (ok, detail, _) = doctor(&mut cluster.client("second"), "gateway");
        (!ok && detail.contains("names \"nowhere\"")).then_some(())
    });
    // Without the chosen database another one gets the address.
    second
        .batch_execute("ALTER SYSTEM RESET connector_service.gateway_database")
        .unwrap();
    second
        .batch_execute("ALTER SYSTEM RESET connector_service.gateway_listen")
        .unwrap();
    second.batch_execute("SELECT pg_reload_conf()").unwrap();
    wait_until(30, "some database answers", || {
        try_ask(port, "GET", "/live", &[], b"").filter(|answered| answered.status == 200)
    });
    cluster
        .client("postgres")
        .batch_execute("DROP DATABASE first")
        .unwrap();
    wait_until(30, "the one that is left answers", || {
        push(port, &other, "{\"id\": 4}").filter(|answered| answered.status == 200)
    });
}

#[test]
fn events_make_a_connector_well_and_a_paused_one_says_that_it_is_paused() {
    let mut stage = Gateway::start("");
    let hook = webhook(&mut stage.client, "hook");
    let health = "SELECT health || ' ' || (last_sync_at > now() - interval '1 minute' AND lag < interval '1 minute')::text FROM connector_health";
    assert_eq!(
        text(&mut stage.client, "SELECT health FROM connector_health"),
        "new"
    );
    assert_eq!(push(stage.port, &hook, "{\"id\": 1}").unwrap().status, 200);
    assert_eq!(text(&mut stage.client, health), "ok true");
    // A person who is changing the row holds no event up.
    stage.execute("UPDATE connectors SET last_sync_at = now() - interval '1 hour'");
    let mut other = stage.cluster.client("app");
    other
        .batch_execute("BEGIN; UPDATE connectors SET name = 'hooks'")
        .unwrap();
    assert_eq!(push(stage.port, &hook, "{\"id\": 2}").unwrap().status, 200);
    other.batch_execute("COMMIT").unwrap();
    assert_eq!(push(stage.port, &hook, "{\"id\": 3}").unwrap().status, 200);
    assert_eq!(text(&mut stage.client, health), "ok true");

    stage.execute("UPDATE connectors SET status = 'paused'");
    let answered = push(stage.port, &hook, "{\"id\": 4}").unwrap();
    assert_eq!(answered.status, 503);
    assert_eq!(answered.json()["error"]["code"], "paused");
    assert!(answered.headers.contains_key("retry-after"));
    // Who has no signature is not told that.
    let path = format!("/webhooks/{hook}");
    assert_eq!(ask(stage.port, "POST", &path, &[], b"{}").status, 401);
    stage.execute("UPDATE connectors SET status = 'active'");
    assert_eq!(push(stage.port, &hook, "{\"id\": 4}").unwrap().status, 200);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(
        count(&mut stage.client, "SELECT count(*) FROM raw_connector_data"),
        4
    );
}
