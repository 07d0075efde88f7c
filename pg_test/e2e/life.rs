//! Tests when the worker starts and ends, and that it blocks no command of the rest of the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use connector_service_test::*;
use postgres::Client;

/// The default of `connector_service.max_concurrent_syncs`.
const AT_ONCE: usize = 32;

/// A database whose connectors all wait for a vendor that never answers.
struct Hanging {
    cluster: Cluster,
    client: Client,
    vendor: Vendor,
    worker: i32,
}

fn hanging(settings: &str, connectors: usize) -> Hanging {
    let cluster = Cluster::start(&format!(
        "connector_service.read_timeout = '10min'\nconnector_service.request_timeout = '10min'\n\
         connector_service.max_syncs_per_account = {AT_ONCE}\n{settings}"
    ));
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|_| Reply::Hang);
    for i in 0..connectors {
        insert_connector(&mut client, &format!("slow {i}"), &api(&vendor.url(), "x"));
    }
    client
        .query(
            "SELECT connector_service_sync(connector_id) FROM connectors",
            &[],
        )
        .unwrap();
    let worker = cluster.wait_worker("app");
    let hanging = Hanging {
        cluster,
        client,
        vendor,
        worker,
    };
    let most = connectors.min(AT_ONCE);
    wait_until(20, "the vendor holds every request", || {
        (hanging.vendor.asked().len() >= most).then_some(())
    });
    hanging
}

fn running(client: &mut Client) -> i64 {
    let sql = "SELECT count(*) FROM sync_runs WHERE state = 'running'";
    client.query_one(sql, &[]).unwrap().get(0)
}

fn alive(pid: i32) -> bool {
    // SAFETY: signal 0 only asks whether the process is there.
    unsafe { libc::kill(pid, 0) == 0 }
}

/// Returns how long `step` takes.
fn timed(step: impl FnOnce()) -> Duration {
    let started = Instant::now();
    step();
    started.elapsed()
}

#[test]
fn create_extension_starts_a_worker_and_drop_extension_ends_it() {
    let cluster = Cluster::start("");
    let mut first = cluster.database("first");
    let mut second = cluster.database("second");
    let workers = [cluster.wait_worker("first"), cluster.wait_worker("second")];
    assert_ne!(workers[0], workers[1]);

    first
        .batch_execute("DROP EXTENSION connector_service CASCADE")
        .unwrap();
    wait_until(10, "the first worker is gone", || {
        cluster.worker("first").is_none().then_some(())
    });
    assert_eq!(
        cluster.worker("second"),
        Some(workers[1]),
        "the other one stays"
    );

    // A DROP that is rolled back takes nothing away.
    second
        .batch_execute("BEGIN; DROP EXTENSION connector_service CASCADE; ROLLBACK")
        .unwrap();
    let vendor = Vendor::start(|_| Reply::Json("{\"data\": [{\"id\": 1}]}".into()));
    let connector = insert_connector(&mut second, "shop", &api(&vendor.url(), "x"));
    let run = sync(&mut second, &connector);
    assert_eq!(wait_for_run(&mut second, &run)["state"], "succeeded");

    // A CREATE that is rolled back brings nothing; one that commits brings the worker back, within any schema.
    first
        .batch_execute("BEGIN; CREATE EXTENSION connector_service; ROLLBACK")
        .unwrap();
    let mut third = cluster.database("third");
    cluster.wait_worker("third");
    assert_eq!(cluster.worker("first"), None);
    first
        .batch_execute("CREATE SCHEMA elt; CREATE EXTENSION connector_service SCHEMA elt; SET search_path = elt")
        .unwrap();
    cluster.wait_worker("first");
    let connector = insert_connector(&mut first, "shop", &api(&vendor.url(), "x"));
    let run = sync(&mut first, &connector);
    assert_eq!(wait_for_run(&mut first, &run)["state"], "succeeded");
    ledger_holds(&mut third);
}

#[test]
fn a_worker_holds_no_transaction_while_fetches_hang_and_databases_come_and_go() {
    let mut hanging = hanging("", AT_ONCE);
    // Requests are on their way before the look that handed them out has ended: it looks the data over first.
    wait_until(20, "the worker has nothing to do", || {
        let sql = "SELECT wait_event = 'Extension' FROM pg_stat_activity WHERE pid = $1";
        let row = hanging.client.query_one(sql, &[&hanging.worker]).unwrap();
        row.get::<_, Option<bool>>(0)?.then_some(())
    });
    let done = AtomicBool::new(false);
    let (samples, held) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut client = hanging.cluster.client("postgres");
            let (mut samples, mut held) = (0, 0);
            // A look at the tables is a transaction of milliseconds: one that two samples see is being held.
            let sql = "SELECT concat_ws(' ', xact_start, backend_xmin, backend_xid) FROM pg_stat_activity WHERE pid = $1";
            let mut before = String::new();
            while !done.load(Ordering::Relaxed) || samples < 60 {
                samples += 1;
                let seen: String = client.query_one(sql, &[&hanging.worker]).unwrap().get(0);
                held += usize::from(!seen.is_empty() && seen == before);
                before = seen;
                std::thread::sleep(Duration::from_millis(50));
            }
            (samples, held)
        });
        let mut client = hanging.cluster.client("postgres");
        let mut longest = Duration::ZERO;
        for _ in 0..10 {
            for command in ["CREATE DATABASE other", "DROP DATABASE other"] {
                longest = longest.max(timed(|| client.batch_execute(command).unwrap()));
            }
        }
        done.store(true, Ordering::Relaxed);
        println!(
            "the longest CREATE or DROP DATABASE beside {AT_ONCE} hanging fetches took {longest:.1?}"
        );
        assert!(longest < Duration::from_secs(2));
        watching.join().unwrap()
    });
    assert_eq!((held, samples >= 60), (0, true), "of {samples} samples");
    assert_eq!(running(&mut hanging.client), AT_ONCE as i64);
    assert_eq!(hanging.cluster.worker("app"), Some(hanging.worker));
}

#[test]
fn a_database_can_be_copied_renamed_and_dropped_while_its_worker_runs() {
    let Hanging {
        cluster,
        client,
        vendor,
        ..
    } = hanging("", 4);
    drop(client);
    let mut admin = cluster.client("postgres");
    let asked = vendor.asked().len();
    for command in [
        "CREATE DATABASE copy TEMPLATE app",
        "ALTER DATABASE app RENAME TO renamed",
    ] {
        let took = timed(|| admin.batch_execute(command).unwrap());
        println!("{command}: {took:.1?}");
        assert!(took < Duration::from_secs(5), "{command}: {took:?}");
    }
    // Back under its new name, and its runs go on; the copy calls nobody.
    cluster.wait_worker("renamed");
    wait_until(10, "the runs are taken up again", || {
        (vendor.asked().len() >= asked + 4).then_some(())
    });
    let mut copy = cluster.client("copy");
    copy.query(
        "SELECT connector_service_sync(connector_id) FROM connectors",
        &[],
    )
    .unwrap();
    cluster.wait_worker("copy");
    wait_until(10, "the copy's worker says that it syncs nothing", || {
        cluster
            .log()
            .contains("this database is a copy of another database")
            .then_some(())
    });
    drop(copy);
    for command in ["DROP DATABASE renamed", "DROP DATABASE copy WITH (FORCE)"] {
        let took = timed(|| admin.batch_execute(command).unwrap());
        assert!(took < Duration::from_secs(5), "{command}: {took:?}");
    }
    assert_eq!(vendor.asked().len(), asked + 4);
    assert_eq!(cluster.log().matches("terminated by signal").count(), 0);
}

#[test]
fn a_terminated_worker_ends_within_a_second_and_its_successor_continues_the_runs() {
    let mut hanging = hanging("", 8);
    let asked = hanging.vendor.asked().len();
    let mut admin = hanging.cluster.client("postgres");
    admin
        .query("SELECT pg_terminate_backend($1)", &[&hanging.worker])
        .unwrap();
    let took = timed(|| {
        wait_until(5, "the worker is gone", || {
            (!alive(hanging.worker)).then_some(())
        });
    });
    println!("gone {took:.1?} after SIGTERM");
    assert!(took < Duration::from_secs(1), "{took:?}");

    let next = hanging.cluster.wait_worker("app");
    assert_ne!(next, hanging.worker);
    wait_until(10, "every request is made again", || {
        (hanging.vendor.asked().len() >= asked + 8).then_some(())
    });
    let sql = "SELECT DISTINCT state, attempt, error_code FROM sync_runs";
    let rows: Vec<(String, i32, Option<String>)> = hanging
        .client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    assert_eq!(
        rows,
        [("running".into(), 2, Some("worker_restarted".into()))]
    );
    // The launcher's end touches no worker, and the next launcher serves new databases.
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'connector_service launcher'";
    admin.query(sql, &[]).unwrap();
    hanging.cluster.database("later");
    hanging.cluster.wait_worker("later");
    assert_eq!(hanging.cluster.worker("app"), Some(next));
}

#[test]
fn changed_settings_take_effect_at_a_reload() {
    let mut hanging = hanging("connector_service.max_concurrent_syncs = 1", 1);
    for i in 0..5 {
        insert_connector(
            &mut hanging.client,
            &format!("more {i}"),
            &api(&hanging.vendor.url(), "x"),
        );
    }
    hanging
        .client
        .query(
            "SELECT connector_service_sync(connector_id) FROM connectors",
            &[],
        )
        .unwrap();
    let mut reload = |setting: &str| {
        let sql = ["ALTER SYSTEM SET connector_service.", setting].concat();
        hanging.client.batch_execute(&sql).unwrap();
        hanging
            .client
            .batch_execute("SELECT pg_reload_conf()")
            .unwrap();
    };
    assert_eq!(running(&mut hanging.cluster.client("app")), 1);
    reload("max_concurrent_syncs = 4");
    let mut client = hanging.cluster.client("app");
    wait_until(5, "four runs are going", || {
        (running(&mut client) == 4).then_some(())
    });

    // Also for what a run brings along: those that start from now on give up sooner.
    reload("read_timeout = '100ms'");
    reload("connect_timeout = '100ms'");
    reload("request_retries = 0");
    reload("max_concurrent_syncs = 6");
    wait_until(5, "the last two runs have given up", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE error_code = 'read_timeout'";
        (client.query_one(sql, &[]).unwrap().get::<_, i64>(0) == 2).then_some(())
    });
    assert_eq!(hanging.cluster.worker("app"), Some(hanging.worker));
}

#[test]
fn the_server_s_own_time_limits_end_no_worker() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|_| Reply::Json(r#"{"data": [{"id": 1}], "next": null}"#.into()));
    let connector = insert_connector(&mut client, "shop", &api(&vendor.url(), "x"));
    let worker = cluster.wait_worker("app");
    // transaction_timeout came with PostgreSQL 17; PostgreSQL minds it in every process.
    client
        .batch_execute(
            "DO $$
             DECLARE v_limit text;
             BEGIN
                 FOR v_limit IN SELECT name FROM pg_settings
                     WHERE name IN ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout') LOOP
                     EXECUTE format('ALTER DATABASE app SET %I = 500', v_limit);
                 END LOOP;
             END $$;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'connector_service sync worker'",
        )
        .unwrap();
    let next = wait_until(20, "the next worker is there", || {
        cluster.worker("app").filter(|next| *next != worker)
    });
    // It takes longer than the limits to store the page.
    client
        .batch_execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.9); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE INSERT ON raw_connector_data FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .unwrap();
    let run = sync(&mut client, &connector);
    let run = wait_for_run(&mut client, &run);
    assert_eq!(
        (&run["state"], &run["attempt"]),
        (&"succeeded".into(), &1.into())
    );
    assert_eq!(cluster.worker("app"), Some(next));
}

#[test]
fn without_the_preload_the_hint_names_it() {
    let cluster = Cluster::create();
    cluster.run();
    cluster
        .client("postgres")
        .batch_execute("CREATE DATABASE other")
        .unwrap();
    let create = "CREATE EXTENSION connector_service";
    let created = cluster.command("psql", &["-X", "-d", &cluster.url("other"), "-c", create]);
    assert!(
        created.contains("WARNING:  connector_service was not loaded when the server started")
            && created.contains("shared_preload_libraries"),
        "{created}"
    );
    let mut client = cluster.database("app");
    let sql = "INSERT INTO connectors (tenant_id, name, type) VALUES (gen_random_uuid(), 'shop', 'stripe') RETURNING connector_id::text";
    let connector: String = client.query_one(sql, &[]).unwrap().get(0);
    for call in [
        format!("SELECT connector_service_sync('{connector}')"),
        "SELECT connector_service_sync_due()".to_owned(),
        format!("CALL connector_service_sync_wait('{connector}')"),
        // Where the key file is, is a setting of the preloaded library.
        "UPDATE connectors SET credentials = '{\"api_key\": \"sk_test_not_a_real_key\"}'"
            .to_owned(),
    ] {
        let error = client.batch_execute(&call).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "55000", "{error}");
        assert!(
            error.hint().unwrap().contains("shared_preload_libraries"),
            "{error:?}"
        );
    }
}

#[test]
fn a_database_without_a_free_worker_slot_is_named_in_the_log_and_served_later() {
    // One slot for the launcher, one for a single worker.
    let cluster = Cluster::start("max_worker_processes = 2\nmax_logical_replication_workers = 0");
    let mut first = cluster.database("first");
    cluster.wait_worker("first");
    cluster.database("second");
    wait_until(20, "the launcher says what is missing", || {
        let log = cluster.log();
        (log.contains("no free background worker slot")
            && log.contains("Raise max_worker_processes"))
        .then_some(())
    });
    assert_eq!(cluster.worker("second"), None);
    first
        .batch_execute("DROP EXTENSION connector_service CASCADE")
        .unwrap();
    cluster.wait_worker("second");
}

#[test]
fn a_database_that_cannot_hold_every_record_is_refused() {
    let cluster = Cluster::start("");
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("db_{}", encoding.to_lowercase());
        cluster
            .client("postgres")
            .batch_execute(&format!(
                "CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
            ))
            .unwrap();
        let url = format!("{} client_encoding=UTF8", cluster.url(&name));
        let (ok, output) = cluster.try_command(
            "psql",
            &["-X", "-d", &url, "-c", "CREATE EXTENSION connector_service"],
        );
        assert!(!ok);
        assert!(
            output.contains(&format!(
                "needs a database with encoding UTF8, not {encoding}"
            )),
            "{output}"
        );
    }
}

#[test]
fn a_standby_has_no_worker_and_says_why_until_it_is_promoted() {
    let cluster = Cluster::start("wal_level = replica\nmax_wal_senders = 4");
    let mut client = cluster.database("app");
    let shop = std::sync::Arc::new(Shop::new(200, 50));
    let serving = shop.clone();
    let vendor = Vendor::start(move |asked| serving.answer(asked));
    let connector = insert_connector(&mut client, "shop", &Shop::config(&vendor.url()));
    let run = sync(&mut client, &connector);
    wait_for_run(&mut client, &run);

    let standby = Cluster::empty();
    let data = standby.data().display().to_string();
    cluster.command(
        "pg_basebackup",
        &[
            "-d",
            &cluster.url("postgres"),
            "-D",
            &data,
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
        ],
    );
    standby.configure(&format!("port = {}", standby.port));
    // No base backup brings it: it lies outside of the data directory.
    let key = |of: &Cluster| format!("{}/data.connector_service.key", of.dir.display());
    standby.command("/bin/cp", &["-p", &key(&cluster), &key(&standby)]);
    standby.run();
    let mut reader = standby.wait_ready_in("app");
    assert_eq!(Shop::stored(&mut reader, &connector), shop.served());
    for call in [
        format!("SELECT connector_service_sync('{connector}')"),
        "SELECT connector_service_sync_due()".to_owned(),
        format!("CALL connector_service_sync_wait('{connector}')"),
    ] {
        let error = reader.batch_execute(&call).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert!(
            matches!(error.code().code(), "25006" | "55000"),
            "{call}: {error}"
        );
    }
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'connector_service%'";
    assert_eq!(reader.query_one(sql, &[]).unwrap().get::<_, i64>(0), 0);

    cluster.stop(Stop::Fast);
    standby.command("pg_ctl", &["-D", &data, "-w", "-s", "promote"]);
    let took = timed(|| {
        standby.wait_worker("app");
    });
    println!("a worker {took:.1?} after the promotion");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let mut client = standby.wait_ready_in("app");
    let run = sync(&mut client, &connector);
    assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    assert_eq!(Shop::stored(&mut client, &connector), shop.served());
}

#[test]
fn the_server_stops_at_once_while_fetches_hang() {
    let hanging = hanging("", AT_ONCE);
    let took = timed(|| hanging.cluster.stop(Stop::Fast));
    println!("stopped {took:.1?} after pg_ctl stop");
    assert!(took < Duration::from_secs(5), "{took:?}");

    hanging.cluster.run();
    let worker = hanging.cluster.wait_worker("app");
    let pid = std::fs::read_to_string(hanging.cluster.data().join("postmaster.pid")).unwrap();
    let postmaster: i32 = pid.lines().next().unwrap().parse().unwrap();
    // SAFETY: the postmaster of our own cluster.
    assert_eq!(unsafe { libc::kill(postmaster, libc::SIGKILL) }, 0);
    let took = timed(|| {
        wait_until(10, "the worker is gone", || (!alive(worker)).then_some(()));
    });
    println!("gone {took:.1?} after the postmaster was killed");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
