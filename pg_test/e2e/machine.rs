//! Tests failures around the extension: full disks, crashes, a failover, settings, maintenance, other people's
//! triggers, no name service, and a clock that jumps. No record may be lost or stored twice, no run may stay
//! unfinished, and a worker whose server did not crash must be the same process afterwards.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

const CONNECTORS: usize = 4;
const ORDERS: usize = 400;
const PAGE: usize = 50;

/// An action that the vendor runs once, before it answers for the page after this number of orders.
type Middle = Mutex<Option<(usize, Box<dyn FnOnce() + Send>)>>;

/// A database whose connectors read a shop, and a till that pushes. Each order and each sale is a fact.
struct Stage {
    cluster: Cluster,
    port: u16,
    shop: Arc<Shop>,
    middle: Arc<Middle>,
    vendor: Vendor,
    connectors: Vec<String>,
    till: String,
    /// Sales that were acknowledged.
    sold: usize,
    version: usize,
}

fn start(settings: &str) -> Stage {
    let port = free_port();
    let cluster = Cluster::start(&with_gateway(port, settings));
    set_up(cluster, port, "")
}

fn with_gateway(port: u16, settings: &str) -> String {
    format!("connector_service.gateway_listen = 'app=127.0.0.1:{port}'\n{settings}")
}

fn set_up(cluster: Cluster, port: u16, options: &str) -> Stage {
    cluster
        .client("postgres")
        .batch_execute(&format!("CREATE DATABASE app {options}"))
        .unwrap();
    let mut client = cluster.client("app");
    client
        .batch_execute("CREATE EXTENSION connector_service")
        .unwrap();
    let shop = Arc::new(Shop::new(ORDERS, PAGE));
    let middle = Arc::new(Middle::default());
    let (serving, acting) = (shop.clone(), middle.clone());
    let vendor = Vendor::start(move |asked| {
        let mut action = acting.lock().unwrap();
        let is_now = |(at, _): &mut (usize, _)| asked.number("after") == *at;
        let action = action.take_if(is_now);
        if let Some((_, action)) = action {
            action();
        }
        Reply::After(Duration::from_millis(2), Box::new(serving.answer(asked)))
    });
    let connectors = (0..CONNECTORS)
        .map(|i| {
            insert_connector(
                &mut client,
                &format!("shop {i}"),
                &api(&vendor.url(), "orders"),
            )
        })
        .collect();
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials)
        VALUES ($1::text::uuid, 'till', 'webhook', '{\"key\": \"id\", \"stream\": \"sales\"}', jsonb_build_object('secret', $2::text)) RETURNING connector_id::text";
    let till = client.query_one(sql, &[&TENANT, &SECRET]).unwrap().get(0);
    client
        .batch_execute(
            "INSERT INTO metric_mappings (connector_type, stream, metric_type, value_path, date_path)
             VALUES ('api', 'orders', 'revenue', '$.total', '$.updated_at'), ('webhook', 'sales', 'revenue', '$.total', '$.day')",
        )
        .unwrap();
    let stage = Stage {
        cluster,
        port,
        shop,
        middle,
        vendor,
        connectors,
        till,
        sold: 0,
        version: 0,
    };
    wait_until(20, "the gateway listens", || stage.is_listening());
    stage
}

impl Stage {
    fn is_listening(&self) -> Option<()> {
        http::try_ask(self.port, "GET", "/live", &[], b"")
            .is_some_and(|answered| answered.status == 200)
            .then_some(())
    }

    /// Changes every order, so that every page is written.
    fn change_orders(&mut self) {
        self.version += 1;
        let mut orders = self.shop.orders.lock().unwrap();
        for (id, text) in orders.iter_mut() {
            *text = order(*id, self.version);
        }
    }

    fn in_the_middle(&self, action: impl FnOnce() + Send + 'static) {
        *self.middle.lock().unwrap() = Some((3 * PAGE, Box::new(action)));
    }

    /// Pushes the next sale; returns the status, or 0 where there was no answer.
    fn sell(&mut self) -> u16 {
        let id = self.sold;
        let body = format!(r#"{{"id": {id}, "total": 1.00, "day": "2026-02-01"}}"#);
        let status = push(self.port, &self.till, &body).map_or(0, |answered| answered.status);
        self.sold += usize::from(status == 200);
        status
    }

    /// Pushes the next sale again and again until it is acknowledged.
    fn sell_at_last(&mut self) {
        wait_until(60, "the sale is taken", || {
            (self.sell() == 200).then_some(())
        });
    }

    fn client(&self) -> Client {
        self.cluster.wait_ready_in("app")
    }

    fn worker(&self) -> i32 {
        self.cluster.wait_worker("app")
    }

    /// Queues a sync of each connector of the shop.
    fn queue(&self, client: &mut Client) -> Vec<String> {
        self.connectors.iter().map(|id| sync(client, id)).collect()
    }

    /// Syncs each connector of the shop, and checks that the sync succeeds.
    fn sync(&self) {
        let mut client = self.client();
        for run in self.queue(&mut client) {
            let run = wait_for_run(&mut client, &run);
            assert_eq!(run["state"], "succeeded", "{run}");
        }
    }

    /// Returns the revenue of each day in cents, computed from the shop's own orders.
    fn books(&self) -> BTreeMap<String, i64> {
        let mut books = BTreeMap::new();
        for order in self.shop.served().values() {
            let day = order["updated_at"].as_str().unwrap()[..10].to_owned();
            let cents = (order["total"].as_f64().unwrap() * 100.0).round() as i64;
            *books.entry(day).or_insert(0) += cents * CONNECTORS as i64;
        }
        if self.sold > 0 {
            books.insert("2026-02-01".into(), self.sold as i64 * 100);
        }
        books
    }

    /// Checks that no record is lost or stored twice, and that no run is stuck.
    fn is_right(&self) {
        let mut client = self.client();
        wait_until(60, "no run goes on", || {
            let sql = "SELECT count(*) FROM sync_runs WHERE state = 'running' OR state = 'queued' AND retry_at IS NULL";
            (count(&mut client, sql) == 0).then_some(())
        });
        let served = self.shop.served();
        for connector in &self.connectors {
            assert_eq!(Shop::stored(&mut client, connector), served);
        }
        let sql = format!(
            "SELECT count(*) FROM raw_connector_data WHERE connector_id = '{}'",
            self.till
        );
        assert_eq!(count(&mut client, &sql), self.sold as i64);
        let books = self.books();
        let sums = |client: &mut Client| -> BTreeMap<String, i64> {
            let sql = "SELECT metric_date::text, (metric_value * 100)::bigint FROM metrics WHERE metric_type = 'revenue' AND metric_value <> 0";
            let rows = client.query(sql, &[]).unwrap();
            rows.iter().map(|row| (row.get(0), row.get(1))).collect()
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while sums(&mut client) != books && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(sums(&mut client), books);
        let sql = "SELECT count(*) FROM metric_facts";
        let facts = served.len() * CONNECTORS + self.sold;
        assert_eq!(count(&mut client, sql), facts as i64);
        assert_eq!(
            count(
                &mut client,
                "SELECT count(*) FROM connector_service_verify()"
            ),
            0
        );
        ledger_holds(&mut client);
    }

    fn log(&self) -> String {
        self.cluster.log()
    }
}

fn count(client: &mut Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).unwrap().get(0)
}

fn doctor(client: &mut Client) -> Option<String> {
    let sql = "SELECT detail || ' ' || fix FROM connector_service_doctor() WHERE item = 'repeated failures' AND NOT ok";
    client.query_opt(sql, &[]).unwrap().map(|row| row.get(0))
}

/// Counts how often a text is in the log.
fn lines(stage: &Stage, holds: &str) -> usize {
    stage
        .log()
        .lines()
        .filter(|line| line.contains(holds))
        .count()
}

// Triggers of the user's own, on whatever table.

/// Adds a trigger that refuses the rows of a table for which the condition is true.
fn refuse(client: &mut Client, table: &str, events: &str, condition: &str) {
    refuse_with(client, table, events, condition, "AU001");
}

fn refuse_with(client: &mut Client, table: &str, events: &str, condition: &str, state: &str) {
    client
        .batch_execute(&format!(
            "CREATE FUNCTION public.refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF {condition} THEN RAISE EXCEPTION 'the auditor said no' USING ERRCODE = '{state}'; END IF;
                 RETURN coalesce(NEW, OLD);
             END $$;
             CREATE TRIGGER refuse BEFORE {events} ON {table} FOR EACH ROW EXECUTE FUNCTION public.refuse_{table}()"
        ))
        .unwrap();
}

fn allow(client: &mut Client, table: &str) {
    client
        .batch_execute(&format!("DROP FUNCTION public.refuse_{table}() CASCADE"))
        .unwrap();
}

#[test]
fn a_trigger_that_raises_fails_its_run_with_its_message_and_other_runs_continue() {
    let mut stage = start("");
    stage.sync();
    let mut client = stage.client();
    let victim = stage.connectors[0].clone();
    // Of records a trigger refuses those that it refuses.
    refuse(
        &mut client,
        "raw_connector_data",
        "UPDATE",
        &format!("NEW.connector_id = '{victim}' AND NEW.source_record_id = 'orders/7'"),
    );
    stage.change_orders();
    let run = sync(&mut client, &victim);
    let run = wait_for_run(&mut client, &run);
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(run["quarantined"], 1, "{run}");
    allow(&mut client, "raw_connector_data");
    let begins = "NEW.state = 'running' AND OLD.state = 'queued'";
    for (table, events, condition, state) in [
        // Of whoever wrote it, of PostgreSQL's own, and those that say that the server has no space.
        ("raw_connector_data", "UPDATE", "TRUE", "42501"),
        ("sync_state", "INSERT OR UPDATE", "TRUE", "AU001"),
        ("quarantine", "INSERT OR UPDATE", "TRUE", "P0001"),
        (
            "connectors",
            "UPDATE",
            "NEW.last_sync_at IS DISTINCT FROM OLD.last_sync_at",
            "AU001",
        ),
        ("sync_runs", "UPDATE", "NEW.state = 'succeeded'", "XX000"),
        ("sync_runs", "UPDATE", "NEW.state = 'succeeded'", "53100"),
        ("sync_runs", "UPDATE", "NEW.pages > OLD.pages", "55000"),
        ("sync_runs", "UPDATE", begins, "AU001"),
        ("sync_runs", "UPDATE", begins, "40001"),
    ] {
        stage.change_orders();
        if table == "quarantine" {
            // One record that cannot be stored.
            let mut orders = stage.shop.orders.lock().unwrap();
            orders.insert(9_999, r#"{"id": 9999, "v": "\u0000"}"#.into());
        }
        let condition = format!("NEW.connector_id = '{victim}' AND {condition}");
        refuse_with(&mut client, table, events, &condition, state);
        let runs = stage.queue(&mut client);
        for (place, run) in runs.iter().enumerate() {
            let run = wait_for_run(&mut client, run);
            if place > 0 {
                assert_eq!(run["state"], "succeeded", "{table}, {condition}: {run}");
                continue;
            }
            assert_eq!(run["state"], "failed", "{table}, {condition}: {run}");
            assert_eq!(run["error_code"], "store_failed", "{run}");
            let words = run["error_message"].as_str().unwrap();
            assert!(
                words.contains("the auditor said no") && words.contains(state),
                "{words}"
            );
            assert!(words.len() < 600, "{words}");
        }
        let told = doctor(&mut client).unwrap();
        assert!(
            told.contains("the auditor said no") && told.contains(&victim),
            "{told}"
        );
        assert!(
            told.contains(&format!(
                "ALTER TABLE public.{table} DISABLE TRIGGER refuse"
            )),
            "{told}"
        );
        allow(&mut client, table);
        stage.shop.orders.lock().unwrap().remove(&9_999);
        stage.sync();
    }
    stage.is_right();
}

#[test]
fn the_end_of_a_run_that_cannot_be_written_is_reported_once_and_written_later() {
    let mut stage = start("");
    stage.sync();
    stage.change_orders();
    let worker = stage.worker();
    let mut client = stage.client();
    let victim = stage.connectors[0].clone();
    let condition = format!("NEW.connector_id = '{victim}' AND NEW.state <> 'running'");
    refuse(&mut client, "sync_runs", "UPDATE", &condition);
    let runs = stage.queue(&mut client);
    for run in &runs[1..] {
        assert_eq!(wait_for_run(&mut client, run)["state"], "succeeded");
    }
    let told = wait_until(20, "the doctor names it", || doctor(&mut client));
    assert!(
        told.contains("the auditor said no") && told.contains(&victim),
        "{told}"
    );
    assert!(
        told.contains("ALTER TABLE public.sync_runs DISABLE TRIGGER refuse"),
        "{told}"
    );
    // Many looks later the log has it once, with the database's name.
    for _ in 0..40 {
        client
            .batch_execute("SELECT _connector_service.connector_service_wake()")
            .unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(lines(&stage, "the auditor said no"), 1, "{}", stage.log());
    let said =
        format!("could not record the end of a run of connector \"{victim}\" in database \"app\"");
    assert_eq!(lines(&stage, &said), 1);
    assert_eq!(run_of(&mut client, &runs[0])["state"], "running");
    allow(&mut client, "sync_runs");
    let run = wait_for_run(&mut client, &runs[0]);
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(lines(&stage, &format!("{said}: this works again")), 1);
    assert_eq!((doctor(&mut client), stage.worker()), (None, worker));
    stage.is_right();
}

#[test]
fn a_connector_whose_rows_are_refused_delays_no_other_connector() {
    let mut stage = start("");
    stage.sync();
    let mut client = stage.client();
    let victim = stage.connectors[0].clone();
    // Nothing can be queued for it.
    stage.change_orders();
    refuse(
        &mut client,
        "sync_runs",
        "INSERT",
        &format!("NEW.connector_id = '{victim}'"),
    );
    client
        .batch_execute("UPDATE connectors SET sync_frequency = 'hourly', next_sync_at = now() WHERE type = 'api'; SELECT _connector_service.connector_service_wake()")
        .unwrap();
    let synced = |client: &mut Client| {
        count(
            client,
            "SELECT count(*) FROM sync_runs WHERE requested_by = 'schedule' AND state = 'succeeded'",
        )
    };
    wait_until(30, "the others are synced", || {
        (synced(&mut client) == CONNECTORS as i64 - 1).then_some(())
    });
    assert!(doctor(&mut client).unwrap().contains(&victim));
    assert_eq!(lines(&stage, "the auditor said no"), 1);
    allow(&mut client, "sync_runs");
    client
        .batch_execute("UPDATE connectors SET sync_frequency = 'manual'")
        .unwrap();

    // A run that was interrupted cannot be taken up again.
    let hold = Arc::new(AtomicBool::new(true));
    let held = hold.clone();
    stage.in_the_middle(move || {
        while held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    stage.change_orders();
    let run = sync(&mut client, &victim);
    wait_until(20, "it is in the middle", || {
        (run_of(&mut client, &run)["pages"].as_i64()? >= 2).then_some(())
    });
    refuse(
        &mut client,
        "sync_runs",
        "UPDATE",
        &format!("NEW.connector_id = '{victim}'"),
    );
    client
        .query("SELECT pg_terminate_backend($1)", &[&stage.worker()])
        .unwrap();
    hold.store(false, Ordering::SeqCst);
    wait_until(30, "the doctor names it", || {
        let told = doctor(&mut client)?;
        told.contains("could not resume an interrupted run")
            .then_some(())
    });
    let worker = stage.worker();
    for connector in &stage.connectors[1..] {
        let run = sync(&mut client, connector);
        assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    }
    allow(&mut client, "sync_runs");
    client
        .batch_execute("SELECT _connector_service.connector_service_wake()")
        .unwrap();
    assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    assert_eq!((doctor(&mut client), stage.worker()), (None, worker));
    stage.is_right();
}

#[test]
fn a_failure_that_repeats_each_second_is_logged_once_and_so_is_its_end() {
    let mut stage = start("");
    let mut client = stage.client();
    let worker = stage.worker();
    // A look that fails, and a gateway whose place is taken.
    client
        .batch_execute("ALTER TABLE sync_state RENAME TO sync_state_away; ALTER TABLE metric_days_touched RENAME TO away; ALTER TABLE connectors RENAME TO connectors_away")
        .unwrap();
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = squatter.local_addr().unwrap().port();
    client
        .batch_execute(&format!(
            "ALTER SYSTEM SET connector_service.gateway_listen = 'app=127.0.0.1:{port}'"
        ))
        .unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    wait_until(20, "the gateway says so", || {
        (lines(&stage, "gateway cannot listen in database \"app\"") > 0).then_some(())
    });
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        client.batch_execute("SELECT pg_reload_conf()").unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(
        lines(&stage, "could not look for work in database \"app\""),
        1,
        "{}",
        stage.log()
    );
    assert_eq!(
        lines(&stage, "gateway cannot listen in database \"app\""),
        1,
        "{}",
        stage.log()
    );
    client
        .batch_execute("ALTER TABLE sync_state_away RENAME TO sync_state; ALTER TABLE away RENAME TO metric_days_touched; ALTER TABLE connectors_away RENAME TO connectors")
        .unwrap();
    drop(squatter);
    stage.port = port;
    wait_until(20, "the gateway listens", || stage.is_listening());
    wait_until(20, "both are over", || {
        let over = lines(
            &stage,
            "could not look for work in database \"app\": this works again",
        ) + lines(
            &stage,
            "gateway cannot listen in database \"app\": this works again",
        );
        (over == 2).then_some(())
    });
    assert_eq!(stage.worker(), worker);
    stage.sync();
    stage.sell_at_last();
    stage.is_right();
}

#[test]
fn pg_stat_activity_shows_what_the_worker_does() {
    let mut stage = start("");
    stage.sync();
    stage.change_orders();
    let mut client = stage.client();
    let mut holder = stage.cluster.client("app");
    let active = "SELECT query FROM pg_stat_activity WHERE backend_type = $1 AND state = 'active' AND xact_start IS NOT NULL AND wait_event_type = 'Lock'";
    let mut seen = |what: &str, kind: &str| {
        wait_until(20, what, || {
            let row = client.query_opt(active, &[&kind]).unwrap()?;
            Some(row.get::<_, String>(0)).filter(|text| text.contains(what))
        })
    };
    let worker = "connector_service sync worker";
    // Held for less long than the worker waits for locks.
    holder
        .batch_execute("BEGIN; LOCK TABLE raw_connector_data IN SHARE MODE")
        .unwrap();
    let mut other = stage.client();
    let run = sync(&mut other, &stage.connectors[0]);
    let text = seen("storing a page of run", worker);
    assert!(text.contains(&run), "{text}");
    holder.batch_execute("ROLLBACK").unwrap();
    wait_for_run(&mut other, &run);
    holder
        .batch_execute("BEGIN; LOCK TABLE raw_connector_data IN SHARE MODE")
        .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| stage.sell());
        seen("storing 1 webhook", "connector_service gateway");
        holder.batch_execute("ROLLBACK").unwrap();
    });
    let mut client = stage.client();
    wait_until(20, "all of them are idle, and say what goes on", || {
        let sql = "SELECT array_agg(state || ' ' || query || ' ' || coalesce(xact_start::text, '') ORDER BY 1) FROM pg_stat_activity WHERE backend_type IN ('connector_service sync worker', 'connector_service gateway')";
        let found: Vec<String> = client.query_one(sql, &[]).unwrap().get(0);
        let mut found = found;
        found.sort();
        (found
            == [
                "idle 0 syncs running ",
                "idle the gateway waits for requests ",
            ])
        .then_some(())
    });
    stage.sync();
    stage.sell_at_last();
    stage.sold = count(
        &mut client,
        &format!(
            "SELECT count(*) FROM raw_connector_data WHERE connector_id = '{}'",
            stage.till
        ),
    ) as usize;
    stage.is_right();
}

// Disks that are full.

/// A small file system for a tablespace or for the write-ahead log.
struct Space {
    dir: PathBuf,
}

impl Space {
    /// Returns `None`, and prints why, if this machine does not allow it.
    fn mount(dir: &Path, megabytes: u32) -> Option<Space> {
        std::fs::create_dir_all(dir).unwrap();
        let mut command = Command::new("mount");
        command.args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={megabytes}M,mode=0777"),
            "tmpfs",
        ]);
        if !command
            .arg(dir)
            .status()
            .is_ok_and(|status| status.success())
        {
            skip("a disk is not filled: this machine lets nobody mount one");
            return None;
        }
        Some(Space { dir: dir.into() })
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("filler")
    }

    /// Fills the rest of the file system.
    fn fill(filler: &Path) {
        use std::io::Write;
        let mut file = std::fs::File::create(filler).unwrap();
        let bytes = vec![0; 4096];
        while file.write_all(&bytes).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        if std::env::var_os("KEEP").is_none() {
            let _ = std::fs::remove_dir_all(self.dir.parent().unwrap());
        }
    }
}

#[test]
fn a_full_tablespace_fails_runs_and_refuses_webhooks_until_there_is_space() {
    let port = free_port();
    let cluster = Cluster::start(&with_gateway(port, "autovacuum = off"));
    let Some(space) = Space::mount(&cluster.dir.join("space"), 64) else {
        return;
    };
    let place = space.dir.join("place");
    cluster.command("/bin/mkdir", &[place.to_str().unwrap()]);
    cluster
        .client("postgres")
        .batch_execute(&format!(
            "CREATE TABLESPACE small LOCATION '{}'",
            place.display()
        ))
        .unwrap();
    let mut stage = set_up(cluster, port, "TABLESPACE small");
    let worker = stage.worker();
    stage.sync();
    stage.sell_at_last();
    let mut client = stage.client();
    // Full in the middle of a pass that needs more space than tables have.
    {
        let mut orders = stage.shop.orders.lock().unwrap();
        for (id, text) in orders.iter_mut() {
            *text = format!(
                r#"{}, "note": "{}"}}"#,
                &order(*id, 1)[..order(*id, 1).len() - 1],
                "long ".repeat(400)
            );
        }
    }
    let filler = space.filler();
    let full = filler.clone();
    stage.in_the_middle(move || Space::fill(&full));
    let runs = stage.queue(&mut client);
    let failed = wait_until(60, "a run fails", || {
        let mut all = runs.iter().map(|run| run_of(&mut client, run));
        all.find(|run| run["state"] == "failed")
    });
    assert_eq!(failed["error_code"], "store_failed", "{failed}");
    let words = failed["error_message"].as_str().unwrap();
    assert!(
        words.contains("53100") && words.contains("No space left"),
        "{words}"
    );
    // No sale is acknowledged that is not stored.
    let mut refused = false;
    for _ in 0..400 {
        let status = stage.sell();
        assert!(matches!(status, 200 | 503), "{status}");
        refused |= status == 503;
        if refused {
            break;
        }
    }
    assert!(refused, "there is no space for a sale");
    assert_eq!(
        lines(&stage, "gateway could not store a webhook"),
        1,
        "{}",
        stage.log()
    );
    space.free();
    stage.sell_at_last();
    let ended = |client: &mut Client| {
        count(
            client,
            "SELECT count(*) FROM sync_runs WHERE state = 'running' OR state = 'queued' AND retry_at IS NULL",
        ) == 0
    };
    wait_until(90, "the ends are written", || {
        ended(&mut client).then_some(())
    });
    stage.sync();
    assert_eq!(stage.worker(), worker);
    stage.is_right();
    drop(stage);
    drop(space);
}

#[test]
fn a_full_disk_for_the_write_ahead_log_loses_and_duplicates_no_record() {
    let port = free_port();
    let cluster = Cluster::create();
    cluster.configure(&with_gateway(
        port,
        "shared_preload_libraries = 'connector_service'\nmax_wal_size = '48MB'\nmin_wal_size = '32MB'\nwal_recycle = off",
    ));
    let Some(space) = Space::mount(&cluster.dir.join("space"), 160) else {
        return;
    };
    let (wal, place) = (cluster.data().join("pg_wal"), space.dir.join("wal"));
    let [wal, place] = [wal, place].map(|path| path.to_str().unwrap().to_owned());
    cluster.command("/bin/mv", &[&wal, &place]);
    cluster.command("/bin/ln", &["-s", &place, &wal]);
    cluster.run();
    let mut stage = set_up(cluster, port, "");
    stage.sync();
    for round in 0..2 {
        stage.change_orders();
        let mut client = stage.client();
        let filler = space.filler();
        match round {
            // In the middle of pages.
            0 => stage.in_the_middle(move || Space::fill(&filler)),
            // While sales come in.
            _ => Space::fill(&filler),
        }
        stage.queue(&mut client);
        // PostgreSQL itself ends with a PANIC where it has no place for its log, and does not come back.
        let until = Instant::now() + Duration::from_secs(20);
        let mut big = stage.cluster.try_client("postgres").ok();
        while Instant::now() < until && stage.cluster.data().join("postmaster.pid").exists() {
            // What is not answered was not taken, or is pushed again.
            stage.sell();
            let fill = "CREATE TABLE IF NOT EXISTS filled (text text); INSERT INTO filled SELECT repeat('x', 1000) FROM generate_series(1, 5000); TRUNCATE filled";
            if big
                .as_mut()
                .is_none_or(|client| client.batch_execute(fill).is_err())
            {
                big = stage.cluster.try_client("postgres").ok();
            }
        }
        assert!(
            stage.log().contains("No space left on device"),
            "{}",
            stage.log()
        );
        space.free();
        if stage.cluster.data().join("postmaster.pid").exists() {
            stage.cluster.stop(Stop::Immediate);
        }
        stage.cluster.run();
        wait_until(30, "the gateway listens", || stage.is_listening());
        stage.sell_at_last();
        stage.sync();
        stage.is_right();
    }
    drop(stage);
    drop(space);
}

// Servers that crash, and one that takes another's place.

#[test]
fn a_crash_at_any_time_loses_and_duplicates_no_record() {
    let mut stage = start("fsync = off");
    stage.sync();
    let mut kills = 0;
    let random = |round: u64| Duration::from_millis(round * 53 % 190);
    for round in 0..8 {
        stage.change_orders();
        let mut client = stage.client();
        let _ = client.query(
            "SELECT connector_service_sync(connector_id) FROM connectors WHERE type = 'api'",
            &[],
        );
        // An ordinary session, that rotates the key.
        let mut other = stage.client();
        let pid: i32 = other
            .query_one("SELECT pg_backend_pid()", &[])
            .unwrap()
            .get(0);
        let rotating = std::thread::spawn(move || {
            {
                let _ = other.batch_execute("CALL connector_service_rotate_key()");
                // Also a session that has done its work is there to be killed.
                other
            }
        });
        let until = Instant::now() + random(round);
        while Instant::now() < until {
            stage.sell();
        }
        if round % 2 == 0 {
            stage.cluster.stop(Stop::Immediate);
            stage.cluster.run();
        } else {
            // SAFETY: the process of our own cluster's session.
            assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
            kills += 1;
            wait_until(20, "the server has noticed", || {
                (lines(&stage, "was terminated by signal 9") == kills).then_some(())
            });
        }
        let _ = rotating.join();
        stage.client();
        wait_until(30, "the gateway listens", || stage.is_listening());
        // What was not answered is pushed again, and counted once.
        stage.sell_at_last();
        stage.sync();
        stage.is_right();
    }
    assert_eq!(
        lines(&stage, "terminated by signal 11") + lines(&stage, "terminated by signal 6"),
        0
    );
}

#[test]
fn a_promoted_standby_continues_where_the_primary_was() {
    let stage = {
        let mut stage = start(
            "wal_level = replica\nmax_wal_senders = 4\nwal_keep_size = '512MB'\nwal_log_hints = on\nconnector_service.read_timeout = '10min'",
        );
        stage.sync();
        stage.change_orders();
        stage
    };
    let standby = Cluster::empty();
    let data = standby.data().display().to_string();
    let from = stage.cluster.url("postgres");
    let backup = ["-d", &from, "-D", &data, "-R", "-X", "stream", "-c", "fast"];
    stage.cluster.command("pg_basebackup", &backup);
    let port = free_port();
    standby.configure(&format!(
        "port = {}\nconnector_service.gateway_listen = 'app=127.0.0.1:{port}'",
        standby.port
    ));
    let key = |of: &Cluster| format!("{}/data.connector_service.key", of.dir.display());
    standby.command("/bin/cp", &["-p", &key(&stage.cluster), &key(&standby)]);
    standby.run();
    // Runs are going, in their middle, and the standby knows of it.
    let hold = Arc::new(AtomicBool::new(true));
    let held = hold.clone();
    stage.in_the_middle(move || {
        while held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let mut client = stage.client();
    let runs = stage.queue(&mut client);
    let mut reader = standby.wait_ready_in("app");
    wait_until(30, "the standby has runs that are going", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE state = 'running' AND pages > 0";
        (count(&mut reader, sql) > 0).then_some(())
    });
    assert_eq!(standby.worker("app"), None);
    stage.cluster.stop(Stop::Immediate);
    let began = Instant::now();
    standby.command("pg_ctl", &["-D", &data, "-w", "-s", "promote"]);
    hold.store(false, Ordering::SeqCst);
    let mut client = standby.wait_ready_in("app");
    wait_until(10, "a run ends", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE state = 'succeeded' AND error_code IS NULL AND attempt > 1";
        (count(&mut client, sql) > 0).then_some(())
    });
    println!(
        "the first run ended {:.1?} after the promotion began",
        began.elapsed()
    );
    for run in &runs {
        // One may not have come to the standby in time.
        let sql = "SELECT count(*) FROM sync_runs WHERE run_id = $1::text::uuid";
        if client.query_one(sql, &[run]).unwrap().get::<_, i64>(0) == 1 {
            assert_eq!(wait_for_run(&mut client, run)["state"], "succeeded");
        }
    }
    // The old primary comes back as a standby, and calls nobody.
    let Stage {
        cluster: old,
        shop,
        middle,
        vendor,
        connectors,
        till,
        sold,
        version,
        ..
    } = stage;
    let old_data = old.data().display().to_string();
    client.batch_execute("CHECKPOINT").unwrap();
    let source = standby.url("postgres");
    old.command("pg_rewind", &["-D", &old_data, "--source-server", &source]);
    // Whom the other one followed came along.
    std::fs::write(old.data().join("postgresql.auto.conf"), "").unwrap();
    old.configure(&format!(
        "port = {}\nprimary_conninfo = '{source}'",
        old.port
    ));
    old.command("/usr/bin/touch", &[&format!("{old_data}/standby.signal")]);
    old.run();
    old.wait_ready_in("app");
    let mut stage = Stage {
        cluster: standby,
        port,
        shop,
        middle,
        vendor,
        connectors,
        till,
        sold,
        version,
    };
    wait_until(30, "the gateway listens", || stage.is_listening());
    stage.change_orders();
    stage.sync();
    stage.sell_at_last();
    stage.is_right();
    assert_eq!(old.worker("app"), None);
    let served = stage.shop.served();
    let mut reader = old.client("app");
    wait_until(20, "the old one follows", || {
        (Shop::stored(&mut reader, &stage.connectors[0]) == served).then_some(())
    });
}

// What administrators set.

/// What nobody should set for a whole database, and somebody does. Those of later majors are left out where they are not known.
const SETTINGS: [(&str, &str); 31] = [
    ("default_transaction_read_only", "on"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "150ms"),
    ("lock_timeout", "1ms"),
    ("idle_in_transaction_session_timeout", "1s"),
    ("idle_session_timeout", "20s"),
    ("transaction_timeout", "150ms"),
    ("search_path", "hostile, pg_catalog"),
    ("session_replication_role", "replica"),
    ("default_tablespace", "elsewhere"),
    ("temp_tablespaces", "elsewhere"),
    ("work_mem", "64kB"),
    ("maintenance_work_mem", "1MB"),
    ("row_security", "off"),
    ("array_nulls", "off"),
    ("transform_null_equals", "on"),
    ("standard_conforming_strings", "off"),
    ("DateStyle", "SQL, DMY"),
    ("IntervalStyle", "sql_standard"),
    ("TimeZone", "Pacific/Kiritimati"),
    ("bytea_output", "escape"),
    ("extra_float_digits", "-15"),
    ("quote_all_identifiers", "on"),
    ("enable_indexscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_indexonlyscan", "off"),
    ("enable_sort", "off"),
    ("force_parallel_mode", "on"),
    ("debug_parallel_query", "on"),
    ("plan_cache_mode", "force_custom_plan"),
    ("synchronous_commit", "off"),
];

#[test]
fn no_setting_of_database_role_or_server_changes_the_numbers() {
    let mut stage = start("");
    let elsewhere = stage.cluster.dir.join("elsewhere");
    stage
        .cluster
        .command("/bin/mkdir", &[elsewhere.to_str().unwrap()]);
    let mut admin = stage.cluster.client("postgres");
    // What a session of ours resolves by its search path finds these first.
    admin
        .batch_execute(&format!(
            "CREATE TABLESPACE elsewhere LOCATION '{}'",
            elsewhere.display()
        ))
        .unwrap();
    let mut client = stage.client();
    client
        .batch_execute(
            "CREATE SCHEMA hostile; GRANT USAGE ON SCHEMA hostile TO PUBLIC;
             CREATE TABLE hostile.sync_runs (x int); CREATE TABLE hostile.connectors (x int); CREATE TABLE hostile.metrics (x int);
             CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT timestamptz 'infinity' $$;
             CREATE FUNCTION hostile.count(anyelement) RETURNS bigint LANGUAGE sql AS $$ SELECT 42::bigint $$;
             CREATE FUNCTION hostile.coalesce_(text) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$",
        )
        .unwrap();
    let known: Vec<(&str, &str)> = SETTINGS
        .into_iter()
        .filter(|(name, _)| {
            let sql = "SELECT FROM pg_settings WHERE name = $1";
            client.query_opt(sql, &[name]).unwrap().is_some()
        })
        .collect();
    for isolation in ["serializable", "repeatable read"] {
        for of in [
            "DATABASE app",
            "ROLE postgres",
            "ROLE connector_service_engine",
            "SYSTEM",
        ] {
            // Twice the time for one more way to read less would not be well spent.
            if isolation == "repeatable read" && of != "DATABASE app" {
                continue;
            }
            let isolation = ("default_transaction_isolation", isolation);
            for (name, value) in known.iter().chain([&isolation]) {
                // Lists are lists, and not one name with a comma in it.
                let value = match *name {
                    "search_path" => (*value).to_owned(),
                    _ => format!("'{value}'"),
                };
                admin
                    .batch_execute(&format!("ALTER {of} SET {name} = {value}"))
                    .unwrap();
            }
            admin.batch_execute("SELECT pg_reload_conf()").unwrap();
            let before = (stage.worker(), gateway(&stage));
            admin
                .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'connector_service %' AND backend_type NOT LIKE '%launcher'")
                .unwrap();
            wait_until(30, "other processes", || {
                let now = (stage.cluster.worker("app")?, gateway(&stage)?);
                (now.0 != before.0 && Some(now.1) != before.1).then_some(())
            });
            wait_until(30, "the gateway listens", || stage.is_listening());
            let worker = stage.worker();
            stage.change_orders();
            stage.sell_at_last();
            // A session with those settings, that only may write.
            let mut user = stage.cluster.client("app");
            let refused = user
                .batch_execute("SELECT public.connector_service_sync_due()")
                .err();
            let refused = refused.map(|error| error.code().unwrap().code().to_owned());
            assert!(
                refused.as_deref().is_none_or(|code| code == "25006"),
                "{of}: {refused:?}"
            );
            user.batch_execute(
                "SET default_transaction_read_only = off; SET statement_timeout = 0; SET quote_all_identifiers = off",
            )
            .unwrap();
            let _ = user.batch_execute("SET transaction_timeout = 0");
            let sql = "SELECT public.connector_service_sync($1::text::uuid)::text";
            let runs: Vec<String> = stage
                .connectors
                .iter()
                .map(|connector| user.query_one(sql, &[connector]).unwrap().get(0))
                .collect();
            for call in [
                "SELECT public.get_metrics('00000000-0000-4000-8000-000000000001', 'revenue', '2026-01-01', '2026-02-01')",
                "SELECT * FROM public.connector_service_doctor()",
                "SELECT * FROM public.connector_health",
                "SELECT public.connector_service_prometheus()",
                "CALL public.connector_service_rotate_key()",
                "SELECT public.refresh_monthly_revenue()",
            ] {
                if let Err(error) = user.batch_execute(call) {
                    panic!("{of}, {}: {call}: {error:?}", isolation.1);
                }
            }
            // In a session as the test has it.
            let mut plain = reset(&stage);
            for run in runs {
                let run = wait_for_run(&mut plain, &run);
                assert_eq!(run["state"], "succeeded", "{of}: {run}");
            }
            user.batch_execute("SET default_transaction_isolation = 'read committed'")
                .unwrap();
            let everything = "SELECT * FROM public.connector_service_verify()";
            assert_eq!(user.query(everything, &[]).unwrap().len(), 0, "{of}");
            assert_eq!(stage.worker(), worker);
            admin = reset_in(&stage, "postgres");
            for (name, _) in known.iter().chain([&isolation]) {
                admin
                    .batch_execute(&format!("ALTER {of} RESET {name}"))
                    .unwrap();
            }
            admin.batch_execute("SELECT pg_reload_conf()").unwrap();
            drop(user);
            stage.is_right();
        }
    }
}

fn gateway(stage: &Stage) -> Option<i32> {
    let mut client = reset_in(stage, "postgres");
    let sql = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE backend_type = 'connector_service gateway'";
    client.query_opt(sql, &[]).ok()?.map(|row| row.get(0))
}

/// A session that the settings do not reach.
fn reset(stage: &Stage) -> Client {
    reset_in(stage, "app")
}

fn reset_in(stage: &Stage, database: &str) -> Client {
    let options = "-c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0 -c search_path=public -c session_replication_role=origin -c default_transaction_isolation=read\\ committed -c TimeZone=UTC -c DateStyle=ISO -c array_nulls=on -c idle_session_timeout=0";
    let url = format!(
        "{} options='{}'",
        stage.cluster.url(database),
        options.replace('\\', "\\\\")
    );
    Client::connect(&url, postgres::NoTls).unwrap()
}

#[test]
fn syncs_and_webhooks_work_while_users_take_every_connection() {
    let mut stage = start("max_connections = 12\nsuperuser_reserved_connections = 0");
    stage.sync();
    stage.change_orders();
    let mut client = stage.client();
    let worker = stage.worker();
    client
        .batch_execute("UPDATE connectors SET sync_frequency = 'hourly', next_sync_at = now() + interval '2 s' WHERE type = 'api'; SELECT _connector_service.connector_service_wake()")
        .unwrap();
    let mut taken = Vec::new();
    let refused = loop {
        match stage.cluster.try_client("app") {
            Ok(client) => taken.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code().unwrap().code(), "53300");
    stage.sell_at_last();
    wait_until(30, "what is due is synced", || {
        let sql = "SELECT count(*) FROM sync_runs WHERE requested_by = 'schedule' AND state = 'succeeded'";
        (count(&mut client, sql) == CONNECTORS as i64).then_some(())
    });
    client
        .batch_execute("UPDATE connectors SET sync_frequency = 'manual'")
        .unwrap();
    drop(taken);
    assert_eq!(stage.worker(), worker);
    stage.is_right();
}

#[test]
fn a_gateway_without_a_worker_slot_is_reported_and_starts_once_there_is_one() {
    // One slot for the launcher, one for the worker of each of two databases.
    let port = free_port();
    let settings = "max_worker_processes = 3\nmax_logical_replication_workers = 0";
    let cluster = Cluster::start(&with_gateway(port, settings));
    let mut other = cluster.database("other");
    cluster.wait_worker("other");
    let mut client = cluster.database("app");
    cluster.wait_worker("app");
    let holds = "no free background worker slot for database \"app\"";
    wait_until(20, "the launcher says what is missing", || {
        cluster.log().contains(holds).then_some(())
    });
    let row = "SELECT fix FROM connector_service_doctor() WHERE item = 'gateway' AND NOT ok";
    assert_eq!(client.query(row, &[]).unwrap().len(), 1);
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        client
            .batch_execute("SELECT _connector_service.connector_service_wake()")
            .unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(cluster.log().matches(holds).count(), 1);
    other
        .batch_execute("DROP EXTENSION connector_service CASCADE")
        .unwrap();
    wait_until(30, "the gateway listens", || {
        http::try_ask(port, "GET", "/live", &[], b"").map(|_| ())
    });
    let found = "found a background worker slot for database \"app\"";
    assert_eq!(cluster.log().matches(found).count(), 1);
}

// What owners and others do to the tables meanwhile.

#[test]
fn maintenance_during_syncs_changes_no_result() {
    let mut stage = start("");
    stage.sync();
    let worker = stage.worker();
    let done = Arc::new(AtomicBool::new(false));
    let stop = done.clone();
    let mut owner = stage.cluster.client("app");
    let maintaining = std::thread::spawn(move || {
        let tables = [
            "raw_connector_data",
            "sync_runs",
            "sync_state",
            "metric_facts",
            "metrics",
            "metric_days_touched",
            "connectors",
            "quarantine",
        ];
        let mut commands = 0;
        'all: loop {
            for (place, table) in tables.iter().enumerate() {
                let column = [
                    "data",
                    "state",
                    "cursor",
                    "value",
                    "metric_value",
                    "metric_date",
                    "config",
                    "reason_code",
                ][place];
                for command in [
                    format!("VACUUM FULL {table}"),
                    format!("REINDEX TABLE CONCURRENTLY {table}"),
                    format!(
                        "DO $$ BEGIN EXECUTE coalesce((SELECT format('CLUSTER {table} USING %I', i.relname) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = '{table}'::regclass AND x.indisprimary), 'ANALYZE {table}'); END $$"
                    ),
                    format!(
                        "ALTER TABLE {table} ADD COLUMN IF NOT EXISTS note text DEFAULT 'n' || random()::text"
                    ),
                    format!("ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 50"),
                    format!(
                        "ALTER TABLE {table} ADD CONSTRAINT harmless CHECK (note IS NOT NULL OR true)"
                    ),
                    format!("ALTER TABLE {table} DROP CONSTRAINT harmless"),
                    format!("ANALYZE {table}"),
                    format!("ALTER TABLE {table} DROP COLUMN note"),
                ] {
                    // A deadlock is the owner's to lose, and to try again.
                    match owner.batch_execute(&command) {
                        Err(error)
                            if error
                                .code()
                                .is_some_and(|code| matches!(code.code(), "40P01" | "55P03")) => {}
                        other => other.unwrap_or_else(|error| panic!("{command}: {error:?}")),
                    }
                    commands += 1;
                    if stop.load(Ordering::SeqCst) {
                        break 'all;
                    }
                }
            }
        }
        // What is half done is taken back.
        for table in tables {
            owner.batch_execute(&format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS harmless; ALTER TABLE {table} DROP COLUMN IF EXISTS note")).unwrap();
        }
        commands
    });
    let mut client = stage.client();
    let until = Instant::now() + Duration::from_secs(15);
    while Instant::now() < until {
        stage.change_orders();
        for run in stage.queue(&mut client) {
            wait_for_run(&mut client, &run);
        }
        stage.sell();
    }
    done.store(true, Ordering::SeqCst);
    println!("{} commands beside it", maintaining.join().unwrap());
    stage.sell_at_last();
    stage.sync();
    assert_eq!(stage.worker(), worker);
    stage.is_right();
}

#[test]
fn event_triggers_that_log_or_raise_stop_no_sync() {
    let mut stage = start("");
    stage.sync();
    let worker = stage.worker();
    let mut client = stage.client();
    let sum = "SELECT coalesce(sum(total_revenue), 0)::text FROM monthly_revenue";
    let monthly = |client: &mut Client| -> String { client.query_one(sum, &[]).unwrap().get(0) };
    let fresh = "SELECT ok FROM connector_service_doctor() WHERE item = 'monthly_revenue'";
    wait_until(90, "the monthly aggregate is fresh", || {
        client
            .query_one(fresh, &[])
            .unwrap()
            .get::<_, bool>(0)
            .then_some(())
    });
    let before = monthly(&mut client);
    client
        .batch_execute(
            "CREATE TABLE public.audit (tag text);
             CREATE FUNCTION public.audit() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit VALUES (tg_tag); END $$;
             CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no % today', lower(tg_tag); END $$;
             CREATE EVENT TRIGGER audit_end ON ddl_command_end EXECUTE FUNCTION public.audit();
             CREATE EVENT TRIGGER audit_drop ON sql_drop EXECUTE FUNCTION public.audit();
             CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN ('REFRESH MATERIALIZED VIEW') EXECUTE FUNCTION public.refuse()",
        )
        .unwrap();
    stage.change_orders();
    stage.sync();
    stage.sell_at_last();
    stage.is_right();
    wait_until(90, "the doctor names it", || {
        doctor(&mut client).filter(|told| told.contains("could not refresh monthly_revenue"))
    });
    assert_eq!(monthly(&mut client), before);
    assert_eq!(
        lines(
            &stage,
            "could not refresh monthly_revenue in database \"app\""
        ),
        1
    );
    client
        .batch_execute("DROP EVENT TRIGGER refuse; DROP EVENT TRIGGER audit_end; DROP EVENT TRIGGER audit_drop")
        .unwrap();
    client
        .batch_execute("SELECT refresh_monthly_revenue()")
        .unwrap();
    assert_ne!(monthly(&mut client), before);
    assert_eq!(stage.worker(), worker);
    stage.is_right();
}

// No name service, and a clock that jumps.

#[test]
fn an_unknown_host_name_fails_only_its_own_runs() {
    let mut stage = start(
        "connector_service.allowed_private_hosts = '127.0.0.1, shop.invalid'\nconnector_service.request_retries = 0",
    );
    let worker = stage.worker();
    let mut client = stage.client();
    let lost = insert_connector(
        &mut client,
        "lost",
        &api("http://shop.invalid:8080", "orders"),
    );
    let run = sync(&mut client, &lost);
    stage.sync();
    stage.change_orders();
    stage.sync();
    let run = wait_for_run(&mut client, &run);
    assert_eq!(
        (&run["state"], &run["error_code"]),
        (&json!("failed"), &json!("dns_failed")),
        "{run}"
    );
    let sql = "SELECT status = 'active' AND failures = 1 AND next_sync_at BETWEEN now() + interval '10 s' AND now() + interval '1 min' FROM connectors WHERE name = 'lost'";
    assert!(client.query_one(sql, &[]).unwrap().get::<_, bool>(0));
    assert_eq!(stage.worker(), worker);
    stage.is_right();
}

#[test]
fn a_clock_that_jumps_by_hours_loses_no_record() {
    let port = free_port();
    let cluster = Cluster::create();
    cluster.configure(&with_gateway(
        port,
        "shared_preload_libraries = 'connector_service'\nconnector_service.request_retries = 0",
    ));
    let clock = MovedClock::new(&cluster.dir);
    let now = chrono::Utc::now();
    clock.set(now);
    clock.start(&cluster);
    let mut stage = set_up(cluster, port, "");
    stage.sync();
    let worker = stage.worker();
    let clock = Arc::new(clock);
    let mut client = stage.client();
    for hours in [6, -5, 30, -26] {
        stage.change_orders();
        let (jumping, to) = (
            clock.clone(),
            chrono::Utc::now() + chrono::TimeDelta::hours(hours),
        );
        stage.in_the_middle(move || jumping.set(to));
        stage.sync();
        stage.sell_at_last();
        assert_eq!(stage.worker(), worker);
        let sql = "SELECT count(*) FROM sync_runs WHERE finished_at < started_at";
        assert_eq!(count(&mut client, sql), 0);
        stage.is_right();
    }
    // In the middle of a pause after a failure: forward it is over; back, a person finds it named, and asks.
    let failing = insert_connector(&mut client, "failing", &api(&stage.vendor.url(), "nowhere"));
    let at = "UPDATE connectors SET config = $2 WHERE connector_id = $1::text::uuid";
    let closed = api(&format!("http://127.0.0.1:{}", free_port()), "orders");
    client.execute(at, &[&failing, &closed]).unwrap();
    for hours in [2, -2] {
        let run = sync(&mut client, &failing);
        let run: Value = wait_for_run(&mut client, &run);
        assert_eq!(run["error_code"], "connect_failed", "{run}");
        let sql = format!(
            "SELECT count(*) FROM sync_runs WHERE connector_id = '{failing}' AND state = 'failed'"
        );
        let failed = count(&mut client, &sql);
        clock.set(chrono::Utc::now() + chrono::TimeDelta::hours(hours));
        client
            .batch_execute("SELECT _connector_service.connector_service_wake()")
            .unwrap();
        match hours > 0 {
            true => wait_until(20, "it is tried again", || {
                (count(&mut client, &sql) > failed).then_some(())
            }),
            false => {
                let sql = "SELECT next_sync_at > now() + interval '1 hour' FROM connectors WHERE name = 'failing'";
                assert!(client.query_one(sql, &[]).unwrap().get::<_, bool>(0));
            }
        }
    }
    // The connector is mended, and read again.
    let mended = api(&stage.vendor.url(), "orders");
    client.execute(at, &[&failing, &mended]).unwrap();
    let run = sync(&mut client, &failing);
    assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    assert_eq!(Shop::stored(&mut client, &failing), stage.shop.served());
    assert_eq!(stage.worker(), worker);
}
