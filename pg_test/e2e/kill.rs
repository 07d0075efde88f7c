//! Kills the worker with SIGKILL, which restarts the whole server. No record may be lost or stored twice.
//!
//! Every round changes the shop by a known number of orders, so what each run must count is known exactly,
//! however often it was interrupted.

use std::sync::Arc;
use std::time::Duration;

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

const CONNECTORS: usize = 6;
const ORDERS: usize = 300;
const PAGE: usize = 50;
const CHANGED: usize = 12;
const ADDED: usize = 2;

/// The places in the worker at which `src/fault.rs` can kill it.
const PLACES: [&str; 7] = [
    "after_claim",
    "after_fetch",
    "mid_page_insert",
    "before_commit",
    "after_commit",
    "before_finish",
    "after_settle",
];
const ROUNDS_A_PLACE: usize = 10;
const RANDOM_ROUNDS: usize = 40;

struct Stage {
    cluster: Cluster,
    shop: Arc<Shop>,
    _vendor: Vendor,
    connectors: Vec<String>,
    rounds: usize,
}

fn stage() -> Stage {
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let shop = Arc::new(Shop::new(ORDERS, PAGE));
    let serving = shop.clone();
    let vendor = Vendor::start(move |asked| {
        let Reply::Json(mut page) = serving.answer(asked) else {
            unreachable!("a shop answers with JSON");
        };
        // One record of the first page can never be stored.
        if asked.number("after") == 0 {
            page = page.replacen("[", r#"[{"id": "bad", "v": "\u0000"}, "#, 1);
        }
        Reply::After(Duration::from_millis(5), Box::new(Reply::Json(page)))
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
    // Each order is a fact, so that there is something to settle between the last page and the end of a run.
    client
        .batch_execute(
            "INSERT INTO metric_mappings (connector_type, stream, metric_type, value_path, date_path)
             VALUES ('api', 'orders', 'revenue', '$.total', '$.updated_at')",
        )
        .unwrap();
    Stage {
        cluster,
        shop,
        _vendor: vendor,
        connectors,
        rounds: 0,
    }
}

impl Stage {
    fn change_orders(&mut self) {
        let mut orders = self.shop.orders.lock().unwrap();
        let first = self.rounds * 7;
        for id in (first..first + CHANGED).map(|id| id % ORDERS) {
            orders.insert(id, order(id, self.rounds));
        }
        let next = orders.len();
        orders.extend((next..next + ADDED).map(|id| (id, order(id, 0))));
    }

    fn fault(&self) -> std::path::PathBuf {
        self.cluster.data().join("connector_service.fault")
    }

    /// Syncs every connector while `kill` does its work, and compares everything.
    fn round(&mut self, kill: impl FnOnce(&Stage)) {
        self.change_orders();
        let mut client = self.cluster.wait_ready_in("app");
        // The kill may come before the answer; that the runs were queued shows afterwards.
        let _ = client.query(
            "SELECT connector_service_sync(connector_id) FROM connectors",
            &[],
        );
        kill(self);
        self.rounds += 1;
        wait_until(30, "the server has noticed", || {
            (self
                .cluster
                .log()
                .matches("was terminated by signal 9")
                .count()
                == self.rounds)
                .then_some(())
        });
        let mut client = self.cluster.wait_ready_in("app");
        let sql = "SELECT run_id::text FROM sync_runs ORDER BY requested_at DESC";
        let mut runs: Vec<String> = client
            .query(sql, &[])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(runs.len(), CONNECTORS * self.rounds);
        runs.truncate(CONNECTORS);
        let first = self.rounds == 1;
        let served = self.shop.served();
        for run in &runs {
            let run = wait_for_run(&mut client, run);
            assert_eq!(run["state"], "succeeded", "{run}");
            let counted = [
                "received",
                "inserted",
                "updated",
                "unchanged",
                "quarantined",
            ];
            let counted = counted.map(|name| run[name].as_u64().unwrap() as usize);
            let (inserted, updated) = if first {
                (served.len(), 0)
            } else {
                (ADDED, CHANGED)
            };
            let unchanged = served.len() - inserted - updated;
            assert_eq!(
                counted,
                [served.len() + 1, inserted, updated, unchanged, 1],
                "{run}"
            );
        }
        for connector in &self.connectors {
            assert_eq!(Shop::stored(&mut client, connector), served);
        }
        self.rejects_are_counted(&mut client);
    }

    fn rejects_are_counted(&self, client: &mut Client) {
        let sql = "SELECT reason_code, occurrences, count(*) FROM quarantine GROUP BY 1, 2";
        let rows: Vec<Value> = client
            .query(sql, &[])
            .unwrap()
            .iter()
            .map(|row| {
                json!([
                    row.get::<_, String>(0),
                    row.get::<_, i64>(1),
                    row.get::<_, i64>(2)
                ])
            })
            .collect();
        assert_eq!(rows, [json!(["nul_character", self.rounds, CONNECTORS])]);
    }
}

#[test]
fn a_hundred_kills_lose_and_duplicate_no_record() {
    let mut stage = stage();
    for place in PLACES {
        for round in 0..ROUNDS_A_PLACE {
            // Runs are claimed together, so that place is passed once.
            let passes = if place == "after_claim" {
                1
            } else {
                1 + round % 4
            };
            stage.cluster.arm(place, passes);
            stage.round(|stage| {
                wait_until(20, "the worker comes to the place", || {
                    (!stage.fault().exists()).then_some(())
                });
            });
        }
    }
    for round in 0..RANDOM_ROUNDS as u64 {
        stage.round(|stage| {
            let worker = stage.cluster.wait_worker("app");
            // Spread evenly over the time that the runs take.
            std::thread::sleep(Duration::from_millis(round * 37 % 120));
            // SAFETY: the pid of a process of our own cluster.
            assert_eq!(unsafe { libc::kill(worker, libc::SIGKILL) }, 0);
        });
    }
    let mut client = stage.cluster.wait_ready_in("app");
    ledger_holds(&mut client);
    let sql = "SELECT (SELECT count(*) FROM metric_facts), (SELECT count(*) FROM connector_service_verify())";
    let row = client.query_one(sql, &[]).unwrap();
    let facts = (stage.shop.served().len() * CONNECTORS) as i64;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (facts, 0));
    let sql = "SELECT count(*), sum(attempt) FROM sync_runs";
    let row = client.query_one(sql, &[]).unwrap();
    println!(
        "{} kills, {} runs taken up {} times: every order stored once, every counter exact",
        stage.rounds,
        row.get::<_, i64>(0),
        row.get::<_, i64>(1)
    );
}
