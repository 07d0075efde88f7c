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

const STREAMS: [&str; 3] = ["a", "b", "c"];
const PAGES: usize = 6;
const ROWS: usize = 10;

#[test]
fn kills_while_streams_are_read_side_by_side_and_one_fails_lose_and_double_nothing() {
    let cluster = Cluster::start("connector_service.request_retries = 0");
    let mut client = cluster.database("app");
    let version = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let serving = version.clone();
    let vendor = Vendor::start(move |asked| {
        if asked.path == "/bad" {
            return Reply::status(500);
        }
        let version = serving.load(std::sync::atomic::Ordering::SeqCst);
        let page = asked.number("after");
        let row = |id| json!({"id": id, "version": version, "of": asked.path});
        let rows: Vec<Value> = (page * ROWS..(page + 1) * ROWS).map(row).collect();
        let next = (page + 1 < PAGES).then_some(page + 1);
        let body = json!({"data": rows, "next": next}).to_string();
        Reply::After(Duration::from_millis(5), Box::new(Reply::Json(body)))
    });
    let mut config = api(&vendor.url(), "orders");
    let stream = config["manifest"]["streams"][0].clone();
    let streams: Vec<Value> = ["a", "bad", "b", "c"]
        .iter()
        .map(|name| {
            let mut stream = stream.clone();
            stream["name"] = json!(name);
            stream["retriever"]["requester"]["path"] = json!(name);
            stream
        })
        .collect();
    config["manifest"]["streams"] = json!(streams);
    config["parallel_streams"] = json!(3);
    let connector = insert_connector(&mut client, "shop", &config);
    drop(client);
    let fault = cluster.data().join("connector_service.fault");
    let mut kills = 0;
    let mut attempts = 0;
    for place in PLACES {
        for round in 0..3 {
            let now = 1 + version.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut client = cluster.wait_ready_in("app");
            let passes = match place {
                "after_claim" | "before_finish" | "after_settle" => 1,
                _ => 1 + round,
            };
            cluster.arm(place, passes);
            let sql = format!("SELECT connector_service_sync('{connector}')");
            let _ = client.query(&sql, &[]);
            wait_until(20, "the worker comes to the place", || {
                (!fault.exists()).then_some(())
            });
            kills += 1;
            wait_until(30, "the server has noticed", || {
                let log = cluster.log();
                (log.matches("was terminated by signal 9").count() == kills).then_some(())
            });
            let mut client = cluster.wait_ready_in("app");
            let sql = "SELECT run_id::text FROM sync_runs ORDER BY requested_at DESC LIMIT 1";
            let run: String = client.query_one(sql, &[]).unwrap().get(0);
            let run = wait_for_run(&mut client, &run);
            assert_eq!(
                (&run["state"], &run["error_code"]),
                (&json!("failed"), &json!("server_error")),
                "{run}"
            );
            let streams = &run["streams"];
            for name in STREAMS {
                let entry = &streams[name];
                assert_eq!(
                    (&entry["state"], &entry["pages"], &entry["received"]),
                    (&json!("ok"), &json!(PAGES), &json!(PAGES * ROWS)),
                    "{place}: {run}"
                );
            }
            assert_eq!(
                (&streams["bad"]["state"], &streams["bad"]["error"]["code"]),
                (&json!("failed"), &json!("server_error"))
            );
            let all = STREAMS.len() * PAGES * ROWS;
            let counted = ["received", "inserted", "updated", "pages"].map(|name| &run[name]);
            let expected = match now {
                1 => [all, all, 0, STREAMS.len() * PAGES],
                _ => [all, 0, all, STREAMS.len() * PAGES],
            };
            assert_eq!(
                counted.map(Value::to_string),
                expected.map(|n| n.to_string()),
                "{run}"
            );
            attempts += run["attempt"].as_u64().unwrap();
            let sql = "SELECT count(*), count(*) FILTER (WHERE data ->> 'version' = $1) FROM raw_connector_data";
            let row = client.query_one(sql, &[&now.to_string()]).unwrap();
            assert_eq!(
                (row.get::<_, i64>(0), row.get::<_, i64>(1)),
                (all as i64, all as i64)
            );
        }
    }
    let mut client = cluster.wait_ready_in("app");
    ledger_holds(&mut client);
    println!(
        "{kills} kills, runs taken up {attempts} times: every stream read once, every counter exact"
    );
}
