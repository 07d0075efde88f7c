//! Tests the property of the pipeline: after any changes in any order, the metrics equal those that an independent
//! model ([`model`]) and the extension's own recomputation derive from the records, mappings and rates.
//!
//! One history is one tenant. All advance together, in rounds: changes, then syncs during which more changes are
//! made, the worker is killed, or the lock of facts is held; then everything is compared. Many of the histories have a
//! retention ([`retention`]): what its records count once their JSON is dropped, later changes must leave alone.

mod change;
mod compare;
mod exact;
mod model;
mod order;
mod retention;
mod tally;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use change::{Moment, World, connector_id, tenant_id};
use connector_service_test::*;
use model::Tenant;
use postgres::Client;

const HISTORIES: usize = 500;
/// Changes of one history before the syncs of a round, and while they go.
const QUIET_CHANGES: usize = 2;
/// How many in a hundred histories change while syncs go.
const BUSY: usize = 30;
/// How many in a hundred connectors a round syncs; the last round syncs all.
const SYNCED: usize = 60;
const PAGE: usize = 4;
const KILLS: usize = 4;

/// How long what waits for its facts may wait once all runs have ended. The worker's own look is a minute away.
const SOON: Duration = Duration::from_secs(20);

/// A change that raises is no change; these alone are momentary, and are tried again.
const DEADLOCK: &str = "40P01";

/// What goes on while a round's syncs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum During {
    Changes,
    Kills,
    /// A session has the lock of facts, changes things, and commits.
    Lock,
    /// A session has the lock, and gives up.
    Rollback,
}

const ROUNDS: [During; 7] = [
    During::Changes,
    During::Kills,
    During::Lock,
    During::Changes,
    During::Kills,
    During::Rollback,
    During::Changes,
];

/// What the vendor shows at each path, record by record.
type Shelves = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

const INSERT_CONNECTORS: &str = "INSERT INTO connectors (connector_id, tenant_id, name, type, config, credentials, sync_frequency) VALUES";

fn connector_row(vendor: &str, tenant: &Tenant, (number, connector): (usize, usize)) -> String {
    let id = connector_id(number, connector);
    let mut config = api(vendor, &id);
    if tenant.has_retention {
        config["raw_retention"] = retention::KEEPS.into();
    }
    format!(
        r#"('{id}', '{}', 'shop {connector}', 'api', $j${config}$j$, '{{"api_key": "k"}}', 'manual')"#,
        tenant_id(number)
    )
}

struct Stage {
    cluster: Cluster,
    client: Client,
    world: World,
    shelves: Shelves,
    vendor: Vendor,
    seed: u64,
    kills: usize,
    processed: usize,
    compared: usize,
    runs: usize,
    /// Records that the vendor showed to all syncs.
    shown: usize,
    /// Records of runs that were deleted with their connectors.
    forgotten: i64,
}

impl Stage {
    fn new(seed: u64) -> Stage {
        let started = Instant::now();
        let cluster = Cluster::start("log_min_messages = warning\nclient_min_messages = warning");
        let mut client = cluster.database("app");
        let shelves = Shelves::default();
        let serving = shelves.clone();
        let vendor = Vendor::start(move |asked| {
            let shelves = serving.lock().unwrap();
            let records = shelves.get(&asked.path).map_or(&[][..], |all| all);
            let from = asked.number("after").min(records.len());
            let to = (from + PAGE).min(records.len());
            let next = if to < records.len() {
                to.to_string()
            } else {
                "null".into()
            };
            let page = records[from..to].join(",");
            Reply::Json(format!(r#"{{"data": [{page}], "next": {next}}}"#))
        });
        let (world, statements) = World::new(seed, HISTORIES);
        let (mut tenants, mut connectors) = (vec![], vec![]);
        for (number, tenant) in world.tenants.iter().enumerate() {
            let id = tenant_id(number);
            tenants.push(format!(
                "('{id}', '{}', '{}')",
                tenant.zone.name(),
                tenant.currency
            ));
            for connector in 0..tenant.records.len() {
                connectors.push(connector_row(&vendor.url(), tenant, (number, connector)));
            }
        }
        // The check of a zone's name reads all zone files, for each tenant; these names are right.
        let setup = format!(
            "ALTER TABLE tenants DISABLE TRIGGER tenants_before_insert;
             INSERT INTO tenants (tenant_id, timezone, currency) VALUES {};
             ALTER TABLE tenants ENABLE TRIGGER tenants_before_insert;
             {INSERT_CONNECTORS} {}",
            tenants.join(","),
            connectors.join(",")
        );
        client.batch_execute(&setup).unwrap();
        client.batch_execute(&statements.join(";")).unwrap();
        println!("{:.1?} to set up", started.elapsed());
        Stage {
            cluster,
            client,
            world,
            shelves,
            vendor,
            seed,
            kills: 0,
            processed: 0,
            compared: 0,
            runs: 0,
            shown: 0,
            forgotten: 0,
        }
    }

    /// Runs the SQL of a change. A deadlock with the worker is momentary.
    fn run(client: &mut Client, statements: &[String]) {
        for sql in statements {
            loop {
                match client.batch_execute(sql) {
                    Ok(()) => break,
                    Err(error) if error.code().is_some_and(|code| code.code() == DEADLOCK) => {}
                    Err(error) => panic!("{error:?}\n{sql}"),
                }
            }
        }
    }

    fn round(&mut self, number: usize, during: During) {
        let is_last = number + 1 == ROUNDS.len();
        let started = Instant::now();
        for tenant in 0..HISTORIES {
            for _ in 0..QUIET_CHANGES {
                let statements = self.world.change(tenant, Moment::Quiet);
                Stage::run(&mut self.client, &statements);
            }
        }
        let (table, emptied) = self.world.truncate(number);
        Stage::run(&mut self.client, &[emptied]);
        let emptied = started.elapsed();
        if retention::ROUNDS.contains(&number) {
            self.drop_old(number);
        }
        let changed = started.elapsed();
        self.queue(if is_last { 100 } else { SYNCED });
        match during {
            During::Changes => self.change_meanwhile(),
            During::Kills => self.kill(),
            During::Lock | During::Rollback => self.hold_the_lock(during),
        }
        self.wait_until_settled();
        let settled = started.elapsed();
        self.compare();
        println!(
            "{during:?}, TRUNCATE {table}: {emptied:.1?} for changes, {:.1?} to drop what is old, {:.1?} for syncs, {:.1?} to compare",
            changed - emptied,
            settled - changed,
            started.elapsed() - settled
        );
    }

    /// Has the vendor show what it should, and queues syncs of many connectors, in the model too.
    fn queue(&mut self, percent: usize) {
        let mut queued = vec![];
        {
            let mut shelves = self.shelves.lock().unwrap();
            for (number, tenant) in self.world.tenants.iter_mut().enumerate() {
                for (connector, records) in tenant.records.iter_mut().enumerate() {
                    if !self.world.random.percent(percent) {
                        continue;
                    }
                    let id = connector_id(number, connector);
                    let mut shelf = vec![];
                    for (id, record) in records.iter_mut() {
                        shelf.extend(self.world.tally.read(*id, record));
                    }
                    self.shown += shelf.len();
                    shelves.insert(format!("/{id}"), shelf);
                    tenant.log.push(format!("sync connector {connector}"));
                    queued.push(id);
                }
            }
        }
        self.runs += queued.len();
        let sql = "SELECT count(connector_service_sync(c::uuid)) FROM unnest($1::text[]) c";
        let count: i64 = self.client.query_one(sql, &[&queued]).unwrap().get(0);
        assert_eq!(count, queued.len() as i64);
    }

    /// Changes of some histories, one after the other.
    fn busy_changes(&mut self) -> Vec<String> {
        let mut statements = vec![];
        for tenant in 0..HISTORIES {
            if self.world.random.percent(BUSY) {
                statements.extend(self.world.change(tenant, Moment::Busy));
            }
        }
        statements
    }

    /// Changes in one session, while another one processes all the time.
    fn change_meanwhile(&mut self) {
        let ended = AtomicBool::new(false);
        let statements = self.busy_changes();
        let mut other = self.cluster.client("app");
        std::thread::scope(|scope| {
            let processing = scope.spawn(|| {
                let mut count = 0;
                while !ended.load(Ordering::Relaxed) {
                    Stage::run(&mut other, &["SELECT connector_service_process()".into()]);
                    count += 1;
                    std::thread::sleep(Duration::from_millis(50));
                }
                count
            });
            Stage::run(&mut self.client, &statements);
            ended.store(true, Ordering::Relaxed);
            self.processed += processing.join().expect("no panic");
        });
    }

    /// Pages are stored without facts, until the session that has the lock ends its transaction.
    fn hold_the_lock(&mut self, during: During) {
        let mut holder = self.cluster.client("app");
        holder
            .batch_execute("BEGIN; SELECT _connector_service.connector_service_lock(NULL)")
            .unwrap();
        let open = "SELECT count(*) FROM raw_connector_data WHERE NOT processed";
        wait_until(60, "pages are stored although the lock is taken", || {
            let open: i64 = self.client.query_one(open, &[]).unwrap().get(0);
            (open > 100).then_some(())
        });
        if during == During::Rollback {
            holder.batch_execute("ROLLBACK").unwrap();
            return;
        }
        let statements = self.busy_changes();
        for sql in statements {
            holder.batch_execute(&sql).expect(&sql);
        }
        holder.batch_execute("COMMIT").unwrap();
    }

    fn kill(&mut self) {
        for _ in 0..KILLS {
            let places = [
                "mid_page_insert",
                "before_commit",
                "after_commit",
                "before_finish",
                "",
            ];
            let place = self.world.random.pick(&places);
            let random = &mut self.world.random;
            if place.is_empty() {
                let pause = Duration::from_millis(random.below(400) as u64);
                let worker = self.cluster.wait_worker("app");
                std::thread::sleep(pause);
                // SAFETY: the pid of a process of our own cluster.
                assert_eq!(unsafe { libc::kill(worker, libc::SIGKILL) }, 0);
            } else {
                let passes = 1 + random.below(60);
                if !self.arm(place, passes) {
                    continue;
                }
            }
            self.wait_until_killed(30);
        }
    }

    fn wait_until_killed(&mut self, seconds: u64) {
        self.kills += 1;
        wait_until(seconds, "the server has noticed", || {
            let noticed = self
                .cluster
                .log()
                .matches("was terminated by signal 9")
                .count();
            (noticed == self.kills).then_some(())
        });
        self.client = self.cluster.wait_ready_in("app");
    }

    /// The place is armed for the worker's `passes`th time there. False: the runs ended before.
    fn arm(&mut self, place: &str, passes: usize) -> bool {
        let file = self.cluster.dir.join("armed");
        let fault = self.cluster.data().join("connector_service.fault");
        std::fs::write(&file, format!("{place} {passes}")).unwrap();
        self.cluster.command(
            "/bin/cp",
            &[file.to_str().unwrap(), fault.to_str().unwrap()],
        );
        let cluster = &self.cluster;
        wait_until(60, "the worker comes to the place, or to the end", || {
            if !fault.exists() {
                return Some(true);
            }
            let mut client = cluster.try_client("app").ok()?;
            let sql = "SELECT count(*) FROM sync_runs WHERE finished_at IS NULL";
            let open: i64 = client.query_one(sql, &[]).ok()?.get(0);
            if open > 0 || std::fs::remove_file(&fault).is_err() {
                return None;
            }
            Some(false)
        })
    }

    /// All runs have succeeded, all records have their facts and all days their sums.
    fn wait_until_settled(&mut self) {
        let sql = "SELECT (SELECT count(*) FROM sync_runs WHERE finished_at IS NULL),
                          (SELECT count(*) FROM raw_connector_data WHERE NOT processed),
                          (SELECT count(*) FROM metric_days_touched),
                          (SELECT count(*) FROM count_due WHERE is_urgent)";
        let mut deadline = Instant::now() + SOON;
        loop {
            let row = self.client.query_one(sql, &[]).unwrap();
            let open: [i64; 4] = std::array::from_fn(|at| row.get(at));
            if open == [0; 4] {
                break;
            }
            if open[0] > 0 {
                deadline = Instant::now() + SOON;
            }
            assert!(
                Instant::now() < deadline,
                "{SOON:?} after the last run, records, days and comparisons still open: {open:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let sql = "SELECT count(*) FROM sync_runs WHERE state <> 'succeeded'";
        let failed: i64 = self.client.query_one(sql, &[]).unwrap().get(0);
        assert_eq!(failed, 0, "runs that did not succeed");
    }
}

#[test]
fn five_hundred_random_histories_end_with_metrics_equal_to_a_recomputation() {
    let seed = std::env::var("HISTORY_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    println!("HISTORY_SEED={seed}");
    let mut stage = Stage::new(seed);
    for (number, during) in ROUNDS.into_iter().enumerate() {
        stage.round(number, during);
    }
    ledger_holds(&mut stage.client);
    stage.world.tally.holds();
    let sql = "SELECT sum(received)::bigint FROM sync_runs";
    let received: i64 = stage.client.query_one(sql, &[]).unwrap().get(0);
    let received = received + stage.forgotten;
    assert_eq!(received, stage.shown as i64, "each record is counted once");
    let changes: usize = stage.world.made.values().sum();
    println!(
        "{:?} of {} histories with a retention",
        stage.world.tally,
        stage
            .world
            .tenants
            .iter()
            .filter(|tenant| tenant.has_retention)
            .count()
    );
    println!(
        "{HISTORIES} histories, {changes} changes, {} syncs, {} kills, {} calls from another session, {} comparisons: {:?}",
        stage.runs, stage.kills, stage.processed, stage.compared, stage.world.made
    );
}

/// A record changes between the moment its facts are derived and the moment it is marked as processed: a lock on a
/// fact holds the derivation up in the middle.
#[test]
fn a_record_that_changes_while_it_is_processed_is_processed_again() {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    client
        .batch_execute(
            "INSERT INTO connectors (connector_id, tenant_id, name, type, status)
             VALUES ('00000000-0000-4001-8000-000000000001', '00000000-0000-4000-8000-000000000001', 'shop', 'stripe', 'paused');
             INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path)
             VALUES ('00000000-0000-4001-8000-000000000001', 'orders', 'revenue', '$.total', '$.at');
             INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
             VALUES ('00000000-0000-4000-8000-000000000001', '00000000-0000-4001-8000-000000000001', 'stripe', 'orders', 'orders/1',
                 '{\"total\": 1, \"at\": \"2025-07-01\"}');
             SELECT connector_service_process()",
        )
        .unwrap();
    let set = |client: &mut Client, total: i32| {
        let sql = "UPDATE raw_connector_data SET data = jsonb_build_object('total', $1::int, 'at', '2025-07-01')";
        client.execute(sql, &[&total]).unwrap();
    };
    let mut holder = cluster.client("app");
    holder
        .batch_execute("BEGIN; SELECT FROM metric_facts FOR UPDATE")
        .unwrap();
    set(&mut client, 2);
    // The worker or nobody: it derives what was changed by hand, and comes to the fact that is locked.
    wait_until(20, "the derivation waits for the fact", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'connector_service%' AND wait_event_type = 'Lock'";
        let waiting: i64 = client.query_one(sql, &[]).unwrap().get(0);
        (waiting > 0).then_some(())
    });
    set(&mut client, 3);
    holder.batch_execute("COMMIT").unwrap();
    client
        .batch_execute("SELECT connector_service_process()")
        .unwrap();
    let sql =
        "SELECT metric_value::text, (SELECT count(*) FROM connector_service_verify()) FROM metrics";
    let row = client.query_one(sql, &[]).unwrap();
    assert_eq!((row.get(0), row.get(1)), ("3".to_owned(), 0_i64));
}
