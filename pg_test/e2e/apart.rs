//! Tests that a tenant's records, mappings, locks and open transactions affect only that tenant.

use std::time::{Duration, Instant};

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

const ORDINARY: &str = "00000000-0000-4000-8000-000000000001";
const HOSTILE: &str = "00000000-0000-4000-8000-0000000000bb";

/// A regular expression that takes for ages on 400 characters, and such a text.
const ENDLESS: &str = r#"$.note like_regex "^(a*)(a*)(a*)(a*)(a*)(a*)\\6\\5\\4\\3\\2\\1b?c$""#;

/// Two tenants: the superuser's connectors are the ordinary one's, and `hostile` is a role of the other.
struct Stage {
    cluster: Cluster,
    client: Client,
    hostile: Client,
}

impl Stage {
    fn new(settings: &str) -> Stage {
        let cluster = Cluster::start(settings);
        let mut client = cluster.database("app");
        client
            .batch_execute(&format!(
                "INSERT INTO tenants (tenant_id, name) VALUES ('{ORDINARY}', 'ordinary'), ('{HOSTILE}', 'hostile');
                 CREATE ROLE hostile LOGIN IN ROLE connector_service_tenant;
                 INSERT INTO tenant_roles VALUES ('hostile', '{HOSTILE}')"
            ))
            .unwrap();
        let hostile = cluster.client_as("hostile", "app");
        cluster.wait_worker("app");
        Stage {
            cluster,
            client,
            hostile,
        }
    }

    /// A connector of a tenant, with a mapping of its orders to revenue.
    fn connector(&mut self, tenant: &str, name: &str, config: &Value) -> String {
        let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
                   VALUES ($1::text::uuid, $2, 'api', $3, '{\"api_key\": \"sk_test_not_a_real_key\"}', 'manual')
                   RETURNING connector_id::text";
        let row = self.client.query_one(sql, &[&tenant, &name, config]);
        row.unwrap().get(0)
    }

    fn map(&mut self, connector: &str, value_path: &str) {
        self.client
            .execute(
                "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path)
                 VALUES ($1::text::uuid, 'orders', 'revenue', $2, '$.updated_at')",
                &[&connector, &value_path],
            )
            .unwrap();
    }

    /// Returns the time from the call to the end of the run.
    fn timed_sync(&mut self, connector: &str) -> (Duration, Value) {
        let began = Instant::now();
        let run = sync(&mut self.client, connector);
        let run = wait_for_run(&mut self.client, &run);
        (began.elapsed(), run)
    }

    fn number(&mut self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).unwrap().get(0)
    }

    fn process(&mut self, name: &str) -> Option<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = $1";
        let row = self.client.query_opt(sql, &[&name]).unwrap();
        row.map(|row| row.get(0))
    }

    /// Checks that every record has been processed, and that every fact and metric is right.
    fn settled(&mut self) {
        wait_until(60, "every record is processed and every day summed", || {
            let open = "SELECT (SELECT count(*) FROM raw_connector_data WHERE NOT processed) + (SELECT count(*) FROM metric_days_touched)";
            (self.number(open) == 0).then_some(())
        });
        assert_eq!(
            self.number("SELECT count(*) FROM connector_service_verify()"),
            0
        );
    }
}

fn shop(records: usize) -> Vendor {
    let shop = Shop::new(records, 100);
    Vendor::start(move |asked| shop.answer(asked))
}

fn code(result: Result<u64, postgres::Error>) -> String {
    let error = result.expect_err("an error");
    error.code().expect("an SQLSTATE").code().to_owned()
}

#[test]
fn a_refused_record_affects_no_other_record_even_if_it_is_stored_already() {
    let mut stage = Stage::new("");
    let version = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let shown = version.clone();
    let vendor = Vendor::start(move |_| {
        let version = shown.load(std::sync::atomic::Ordering::Relaxed);
        let records: Vec<Value> = (0..10)
            .map(|id| {
                let evil = if version > 0 && id == 4 { "yes" } else { "no" };
                json!({"id": id, "version": version, "evil": evil, "total": 1, "updated_at": "2026-01-05"})
            })
            .collect();
        Reply::Json(json!({"data": records}).to_string())
    });
    let connector = stage.connector(ORDINARY, "shop", &api(&vendor.url(), "orders"));
    let (_, first) = stage.timed_sync(&connector);
    assert_eq!(first["inserted"], 10);
    for constraint in [
        "ALTER TABLE raw_connector_data ADD CONSTRAINT no_evil CHECK (coalesce(data->>'evil', '') <> 'yes') NOT VALID",
        // What a constraint asks at COMMIT only.
        "ALTER TABLE raw_connector_data DROP CONSTRAINT no_evil;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.data->>'evil' = 'yes' THEN RAISE 'evil is not welcome'; END IF; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER no_evil AFTER INSERT OR UPDATE ON raw_connector_data DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
    ] {
        stage.client.batch_execute(constraint).unwrap();
        version.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let preview = "SELECT connector_service_preview($1::text::uuid)::text";
        let preview: String = stage.client.query_one(preview, &[&connector]).unwrap().get(0);
        let preview = wait_for_run(&mut stage.client, &preview);
        assert_eq!(
            preview["report"][0]["preview"]["updated"], 9,
            "{constraint}: {preview}"
        );
        let (_, run) = stage.timed_sync(&connector);
        let counts = ["state", "updated", "quarantined", "unchanged", "inserted"].map(|key| run[key].clone());
        assert_eq!(
            json!(counts),
            json!(["succeeded", 9, 1, 0, 0]),
            "{constraint}"
        );
    }
    let reasons = "SELECT count(*) FROM quarantine WHERE source_record_id = 'orders/4' AND reason ~ 'evil is not welcome'";
    assert_eq!(stage.number(reasons), 1);
    ledger_holds(&mut stage.client);
}

#[test]
fn mapping_paths_that_could_take_too_long_are_refused_when_saved() {
    let mut stage = Stage::new("");
    let config = api("http://127.0.0.1:1", "orders");
    let connector = stage.connector(HOSTILE, "shop", &config);
    let long = format!("$.a{}", ".b".repeat(3_000));
    let insert = "INSERT INTO metric_mappings (connector_id, stream, metric_type, items_path, value_path, date_path, filter)
                  VALUES ($1::text::uuid, 'orders', 'revenue', $2, $3, '$.day', $4)";
    for (items, value, filter, expected) in [
        (None, "$.total", Some(ENDLESS), "22023"),
        (None, "$.**.**.**.**.**", None, "22023"),
        (None, "$.a ? (@.**.b == 1).**", None, "22023"),
        (Some("$.**"), "$.**", None, "22023"),
        (None, long.as_str(), None, "22023"),
        (
            None,
            "$.total",
            Some(r#"exists($.b ? (@ like_regex "(x)\\1" flag "i"))"#),
            "22023",
        ),
    ] {
        let refused = stage
            .hostile
            .execute(insert, &[&connector, &items, &value, &filter]);
        assert_eq!(code(refused), expected, "{items:?} {value} {filter:?}");
    }
    for (items, value, filter) in [
        (None, "$.**.total", None),
        (
            Some("$.lines[*]"),
            "$.price",
            Some(r#"$.sku like_regex "^A-[0-9]+$""#),
        ),
        (None, "$.total", Some(r#"$.note like_regex "\\1" flag "q""#)),
    ] {
        stage
            .hostile
            .execute(insert, &[&connector, &items, &value, &filter])
            .unwrap();
    }
    let plain = "SELECT count(*) FROM metric_mappings WHERE tenant_id IS NOT NULL AND is_plain";
    assert_eq!(stage.number(plain), 0);
    // And no more of them than a record is worth.
    let many = "INSERT INTO metric_mappings (connector_id, stream, metric_type, value_path, date_path)
                SELECT $1::text::uuid, 'refunds', 'revenue', '$.a' || i, '$.day' FROM generate_series(1, 51) i";
    assert_eq!(code(stage.hostile.execute(many, &[&connector])), "53400");
    let asleep = many.replace("date_path)", "date_path, active)");
    let asleep = asleep.replace("'$.day' FROM", "'$.day', false FROM");
    stage.hostile.execute(&asleep, &[&connector]).unwrap();
    let wake = "UPDATE metric_mappings SET active = true WHERE stream = 'refunds' AND tenant_id IS NOT NULL";
    assert_eq!(code(stage.hostile.execute(wake, &[])), "53400");
}

/// A mapping that was saved before there was a check, or whose cost no check foresees.
#[test]
fn a_record_that_takes_too_long_is_quarantined_and_no_other_tenant_waits() {
    let mut stage = Stage::new("");
    let ordinary_shop = shop(150);
    let ordinary = stage.connector(ORDINARY, "ordinary", &api(&ordinary_shop.url(), "orders"));
    stage.map(&ordinary, "$.total");
    let (alone, _) = stage.timed_sync(&ordinary);

    let records: Vec<Value> = (0..40)
        .map(|id| {
            let note = if id % 20 == 7 {
                format!("{}c", "a".repeat(400))
            } else {
                "aac".to_owned()
            };
            json!({"id": id, "note": note, "total": 1, "updated_at": "2026-01-05"})
        })
        .collect();
    let body = json!({"data": records}).to_string();
    let hostile_shop = Vendor::start(move |_| Reply::Json(body.clone()));
    let hostile = stage.connector(HOSTILE, "hostile", &api(&hostile_shop.url(), "orders"));
    stage.map(&hostile, "$.total");
    stage
        .client
        .batch_execute(&format!(
            "ALTER TABLE metric_mappings DISABLE TRIGGER metric_mappings_before;
             UPDATE metric_mappings SET filter = $path${ENDLESS}$path$, is_plain = false WHERE connector_id = '{hostile}';
             UPDATE metric_mapping_versions v SET definition = to_jsonb(m) FROM metric_mappings m WHERE m.mapping_id = v.mapping_id AND m.connector_id = '{hostile}';
             ALTER TABLE metric_mappings ENABLE TRIGGER metric_mappings_before"
        ))
        .unwrap();
    let worker = stage.cluster.worker("app");
    let run = sync(&mut stage.client, &hostile);
    wait_until(20, "the hostile records are stored", || {
        let sql = "SELECT count(*) FROM raw_connector_data WHERE connector_id = $1::text::uuid";
        let stored: i64 = stage.client.query_one(sql, &[&hostile]).unwrap().get(0);
        (stored == 40).then_some(())
    });
    // While the upkeep process is at them, the other tenant's syncs are as quick as ever.
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let (took, run) = stage.timed_sync(&ordinary);
        assert_eq!(run["state"], "succeeded");
        longest = longest.max(took);
    }
    assert!(
        longest < alone * 3 + Duration::from_millis(500),
        "{longest:?} beside {alone:?} alone"
    );
    // A cancel is answered, whatever goes on.
    let upkeep = stage
        .process("connector_service upkeep")
        .expect("the upkeep process");
    stage
        .client
        .execute("SELECT pg_cancel_backend($1)", &[&upkeep])
        .unwrap();
    assert_eq!(wait_for_run(&mut stage.client, &run)["state"], "succeeded");
    wait_until(120, "the two records are in quarantine", || {
        let sql = "SELECT count(*) FROM quarantine WHERE reason_code = 'too_costly' AND replayed_at IS NULL";
        (stage.number(sql) == 2).then_some(())
    });
    stage.settled();
    let facts = format!("SELECT count(*) FROM metric_facts WHERE connector_id = '{hostile}'");
    assert_eq!(stage.number(&facts), 38);
    assert_eq!(stage.cluster.worker("app"), worker);
    let log = stage.cluster.log();
    assert_eq!(log.matches("terminated by signal").count(), 0);
}

#[test]
fn a_mapping_that_needs_too_much_memory_fails_only_one_record() {
    let mut stage = Stage::new("");
    // One value, a hundred levels deep, in lists of lists.
    let mut deep = json!(1);
    for level in 0..100 {
        deep = json!({"a": deep, "b": [level, level]});
    }
    let body = json!({"data": [
        {"id": 1, "total": 5, "updated_at": "2026-01-05", "deep": deep},
        {"id": 2, "total": 6, "updated_at": "2026-01-05"}
    ]});
    let body = body.to_string();
    let vendor = Vendor::start(move |_| Reply::Json(body.clone()));
    let connector = stage.connector(HOSTILE, "deep", &api(&vendor.url(), "orders"));
    stage.map(&connector, "$.total");
    stage
        .client
        .batch_execute(&format!(
            "ALTER TABLE metric_mappings DISABLE TRIGGER metric_mappings_before;
             UPDATE metric_mappings SET category_path = '$.deep.**.**.**.**.**', is_plain = false WHERE connector_id = '{connector}';
             UPDATE metric_mapping_versions v SET definition = to_jsonb(m) FROM metric_mappings m WHERE m.mapping_id = v.mapping_id AND m.connector_id = '{connector}';
             ALTER TABLE metric_mappings ENABLE TRIGGER metric_mappings_before"
        ))
        .unwrap();
    let (_, run) = stage.timed_sync(&connector);
    assert_eq!(run["state"], "succeeded");
    let upkeep = wait_until(20, "the upkeep process", || {
        stage.process("connector_service upkeep")
    });
    let mut most = 0;
    wait_until(60, "the deep record is in quarantine", || {
        most = most.max(memory_kb(upkeep, "VmRSS"));
        let sql = "SELECT count(*) FROM quarantine WHERE reason_code = 'too_costly'";
        (stage.number(sql) == 1).then_some(())
    });
    assert!(most < 500 * 1024, "{most} kB");
    stage.settled();
    let facts = format!("SELECT count(*) FROM metric_facts WHERE connector_id = '{connector}'");
    assert_eq!(stage.number(&facts), 1);
    assert_eq!(
        stage.process("connector_service upkeep"),
        Some(upkeep),
        "the same process"
    );
    let worker = stage.cluster.worker("app").unwrap();
    assert!(memory_kb(worker, "VmRSS") < 256 * 1024);
}

#[test]
fn the_time_for_refused_records_grows_in_proportion_to_their_number() {
    let mut stage = Stage::new("connector_service.retry_pause = '10ms'");
    // Each is a list of records, of which some cannot be stored.
    let mut took = Vec::new();
    for count in [4_000, 16_000] {
        let vendor = Vendor::start(move |_| {
            let records: Vec<String> = (0..count)
                .map(|id| match id % 2 {
                    0 => format!("{{\"id\": {id}}}"),
                    // The same rejected text again and again.
                    _ => "{\"id\": 1, \"nul\": \"\\u0000\"}".to_owned(),
                })
                .collect();
            Reply::Json(format!("{{\"data\": [{}]}}", records.join(",")))
        });
        let connector = stage.connector(
            HOSTILE,
            &format!("nulls {count}"),
            &api(&vendor.url(), "orders"),
        );
        let (elapsed, run) = stage.timed_sync(&connector);
        let counts = [&run["state"], &run["inserted"], &run["quarantined"]];
        assert_eq!(json!(counts), json!(["succeeded", count / 2, count / 2]));
        took.push(elapsed);
    }
    assert!(took[1] < took[0] * 8 + Duration::from_secs(1), "{took:?}");
    let met = "SELECT sum(occurrences)::bigint FROM quarantine";
    assert_eq!(stage.number(met), 2_000 + 8_000);
    // What a mapping cannot read is bounded, too.
    let (sender, count) = (
        stage.connector(HOSTILE, "unreadable", &api("http://127.0.0.1:1", "orders")),
        30_000,
    );
    stage.map(&sender, "$.total");
    stage
        .client
        .batch_execute(&format!(
            "INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data)
             SELECT '{HOSTILE}', '{sender}', 'api', 'orders', 'orders/u' || i, '{{}}' FROM generate_series(1, {count}) i"
        ))
        .unwrap();
    let ordinary_shop = shop(150);
    let ordinary = stage.connector(ORDINARY, "ordinary", &api(&ordinary_shop.url(), "orders"));
    let (beside, _) = stage.timed_sync(&ordinary);
    assert!(beside < Duration::from_secs(3), "{beside:?}");
    stage.settled();
    let unread = format!(
        "SELECT count(*) FROM quarantine WHERE connector_id = '{sender}' AND reason_code = 'value_missing'"
    );
    assert_eq!(stage.number(&unread), count);
}

#[test]
fn a_tenant_cannot_take_the_locks_of_facts_of_alerts_or_of_a_worker() {
    let mut stage = Stage::new("");
    // Every key of the locks that there are in SQL, as far as anybody could guess ours.
    let held: i64 = {
        let sql = "SELECT count(pg_try_advisory_lock(classid::bigint << 32 | objid::bigint)) + count(pg_try_advisory_lock(classid::bigint::integer, objid::bigint::integer))
                   FROM pg_locks WHERE locktype = 'advisory' AND objid < 2147483648 AND classid < 2147483648";
        stage.hostile.query_one(sql, &[]).unwrap().get(0)
    };
    assert!(held > 0, "the worker's own lock is shown");
    stage
        .hostile
        .batch_execute("SELECT pg_advisory_lock(x'636f6e6e66616374'::bigint), pg_advisory_lock(x'636f6e6e6563746f'::bigint), pg_advisory_lock(x'616c6572'::integer, i) FROM generate_series(0, 1023) i")
        .unwrap();
    for call in [
        "_connector_service.connector_service_lock(NULL)",
        &format!("_connector_service.connector_service_lock('{ORDINARY}')"),
        &format!("_connector_service.connector_service_lock_alerts('{ORDINARY}')"),
    ] {
        assert_eq!(
            code(stage.hostile.execute(&format!("SELECT {call}"), &[])),
            "42501",
            "{call}"
        );
    }
    // Who deletes locks what is theirs: a tenant that is not there, nothing; an outsider deletes nothing.
    stage
        .client
        .batch_execute(
            "CREATE ROLE outsider LOGIN; CREATE ROLE nobody_s LOGIN IN ROLE connector_service_tenant;
             INSERT INTO tenant_roles VALUES ('nobody_s', gen_random_uuid())",
        )
        .unwrap();
    let mut outsider = stage.cluster.client_as("outsider", "app");
    assert_eq!(
        code(outsider.execute("DELETE FROM raw_connector_data WHERE false", &[])),
        "42501"
    );
    let mut nobody_s = stage.cluster.client_as("nobody_s", "app");
    nobody_s
        .batch_execute("BEGIN; DELETE FROM raw_connector_data WHERE false")
        .unwrap();
    stage
        .hostile
        .batch_execute("BEGIN; DELETE FROM raw_connector_data")
        .unwrap();
    let ordinary_shop = shop(150);
    let ordinary = stage.connector(ORDINARY, "ordinary", &api(&ordinary_shop.url(), "orders"));
    stage.map(&ordinary, "$.total");
    let (_, run) = stage.timed_sync(&ordinary);
    assert_eq!(run["state"], "succeeded");
    let facts = format!("SELECT count(*) FROM metric_facts WHERE connector_id = '{ordinary}'");
    assert_eq!(stage.number(&facts), 150);
    assert!(stage.number("SELECT count(*) FROM metrics") > 0);
    let first = stage.cluster.worker("app").unwrap();
    stage
        .client
        .execute("SELECT pg_terminate_backend($1)", &[&first])
        .unwrap();
    wait_until(10, "another worker", || {
        stage.cluster.worker("app").filter(|pid| *pid != first)
    });
    stage.hostile.batch_execute("ROLLBACK").unwrap();
    stage.settled();
}

#[test]
fn a_trigger_that_refuses_every_fact_costs_one_run_or_its_facts_and_is_not_tried_for_ever() {
    let mut stage = Stage::new("");
    let shops = [shop(150), shop(150)];
    let ordinary = stage.connector(ORDINARY, "ordinary", &api(&shops[0].url(), "orders"));
    stage.map(&ordinary, "$.total");
    let hostile = stage.connector(HOSTILE, "hostile", &api(&shops[1].url(), "orders"));
    stage.map(&hostile, "$.total");
    stage
        .client
        .batch_execute(&format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN IF NEW.tenant_id = '{HOSTILE}' THEN RAISE EXCEPTION 'not today'; END IF; RETURN NEW; END $$;
             GRANT EXECUTE ON FUNCTION refuse() TO PUBLIC"
        ))
        .unwrap();
    // Whether it is refused with the statement or with the COMMIT, and as a record or as a fact.
    for (table, kind, when, is_stored) in [
        ("metric_facts", "TRIGGER", "BEFORE INSERT", true),
        ("metric_facts", "CONSTRAINT TRIGGER", "AFTER INSERT", true),
        (
            "raw_connector_data",
            "CONSTRAINT TRIGGER",
            "AFTER INSERT",
            false,
        ),
    ] {
        let deferred = match kind {
            "TRIGGER" => "",
            _ => "DEFERRABLE INITIALLY DEFERRED",
        };
        let create = format!(
            "DELETE FROM raw_connector_data; DELETE FROM sync_state;
             CREATE {kind} refused {when} ON {table} {deferred} FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        stage.client.batch_execute(&create).unwrap();
        let run = sync(&mut stage.client, &hostile);
        let run = wait_for_run(&mut stage.client, &run);
        let stored: i64 = stage
            .client
            .query_one(
                "SELECT count(*) FROM raw_connector_data WHERE connector_id = $1::text::uuid",
                &[&hostile],
            )
            .unwrap()
            .get(0);
        let quarantined = run["quarantined"].as_i64().unwrap();
        if is_stored {
            // The records are kept: only their facts are refused.
            assert_eq!(stored, 150, "{table} {when}: {run}");
        } else {
            let is_refused = run["error_code"] == "store_failed" || quarantined > 0;
            assert!(is_refused && stored == 0, "{table} {when}: {run}");
        }
        // Meanwhile, and with the trouble still there, others are synced.
        stage.timed_sync(&ordinary);
        let drop = format!("DROP TRIGGER refused ON {table}");
        stage.client.batch_execute(&drop).unwrap();
        stage
            .client
            .execute(
                "UPDATE connectors SET status = 'active' WHERE connector_id = $1::text::uuid",
                &[&hostile],
            )
            .unwrap();
        let run = sync(&mut stage.client, &hostile);
        wait_for_run(&mut stage.client, &run);
        wait_until(60, "the facts follow once nothing refuses them", || {
            let sql = "SELECT count(*) FROM metric_facts WHERE connector_id = $1::text::uuid";
            let facts: i64 = stage.client.query_one(sql, &[&hostile]).unwrap().get(0);
            (facts == 150).then_some(())
        });
    }
    stage.settled();
}

#[test]
fn an_idle_transaction_of_a_tenant_delays_only_the_syncs_of_that_tenant() {
    let mut stage = Stage::new("");
    let ordinary_shop = shop(150);
    let slow = Shop::new(150, 100);
    let hostile_shop = Vendor::start(move |asked| {
        Reply::After(Duration::from_millis(200), Box::new(slow.answer(asked)))
    });
    let ordinary = stage.connector(ORDINARY, "ordinary", &api(&ordinary_shop.url(), "orders"));
    stage.map(&ordinary, "$.total");
    let hostile = stage.connector(HOSTILE, "hostile", &api(&hostile_shop.url(), "orders"));
    stage.map(&hostile, "$.total");
    for connector in [&ordinary, &hostile] {
        stage.timed_sync(connector);
    }
    let median = |stage: &mut Stage| {
        let mut took: Vec<Duration> = (0..15).map(|_| stage.timed_sync(&ordinary).0).collect();
        took.sort_unstable();
        took[took.len() / 2]
    };
    let alone = median(&mut stage);
    for statement in [
        "UPDATE connectors SET name = name || '.'",
        "SELECT FROM connectors FOR UPDATE",
        "DELETE FROM raw_connector_data",
        "DELETE FROM sync_state",
        "UPDATE metric_mappings SET note = 'mine' WHERE tenant_id IS NOT NULL",
        "UPDATE metrics SET metric_value = 7",
        "INSERT INTO data_quality_alerts (tenant_id, alert_type, severity, message) SELECT tenant_id, 'missing', 'info', 'x' FROM tenants",
    ] {
        // The transaction begins while the sync is going, and stays.
        let run = sync(&mut stage.client, &hostile);
        let begin = format!("BEGIN; {statement}");
        stage.hostile.batch_execute(&begin).unwrap();
        let beside = median(&mut stage);
        assert!(
            beside < alone * 2 + Duration::from_millis(100),
            "{statement}: {beside:?} beside {alone:?} alone"
        );
        stage.hostile.batch_execute("ROLLBACK").unwrap();
        let run = wait_until(90, "the run ends once the lock is gone", || {
            let run = run_of(&mut stage.client, &run);
            Some(run).filter(|run| !matches!(run["state"].as_str(), Some("queued" | "running")))
        });
        assert_eq!(run["state"], "succeeded", "{statement}: {run}");
    }
    stage.settled();
}

#[test]
fn two_workers_store_the_records_of_two_tenants_once() {
    let mut stage = Stage::new("");
    for command in [
        "ALTER SYSTEM SET connector_service.sync_workers = 2",
        "SELECT pg_reload_conf()",
    ] {
        stage.client.batch_execute(command).unwrap();
    }
    wait_until(20, "both workers", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'connector_service sync worker'";
        (stage.number(sql) == 2).then_some(())
    });
    let (one, other) = (shop(3_000), shop(3_000));
    for (tenant, vendor) in [(ORDINARY, &one), (HOSTILE, &other)] {
        let connector = stage.connector(tenant, tenant, &api(&vendor.url(), "orders"));
        stage.map(&connector, "$.total");
    }
    // The upkeep process looks over everything when it starts, tenant by tenant.
    wait_until(20, "the upkeep process has looked", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'connector_service upkeep' AND state = 'idle'";
        (stage.number(sql) == 1).then_some(())
    });
    let sql = "SELECT connector_service_sync(connector_id)::text FROM connectors";
    let runs: Vec<String> = stage
        .client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    for run in runs {
        assert_eq!(wait_for_run(&mut stage.client, &run)["state"], "succeeded");
    }
    stage.settled();
    // A row that was stored without its facts would have been updated.
    let statistics =
        "SELECT n_tup_upd::bigint FROM pg_stat_user_tables WHERE relname = 'raw_connector_data'";
    wait_until(10, "statistics", || {
        let sql = "SELECT n_tup_ins::bigint FROM pg_stat_user_tables WHERE relname = 'raw_connector_data'";
        (stage.number(sql) == 6_000).then_some(())
    });
    assert_eq!(stage.number(statistics), 0);
}

#[test]
fn reprocessing_uses_the_key_whatever_the_statistics_say() {
    let mut stage = Stage::new("autovacuum = off");
    let connector = stage.connector(ORDINARY, "shop", &api("http://127.0.0.1:1", "orders"));
    let mut took = Vec::new();
    for (count, from) in [(20_000, 0), (80_000, 20_000)] {
        stage
            .client
            .batch_execute(&format!(
                "INSERT INTO raw_connector_data (tenant_id, connector_id, source_type, stream, source_record_id, data, processed)
                 SELECT '{ORDINARY}', '{connector}', 'api', 'orders', 'orders/' || i, jsonb_build_object('total', i, 'updated_at', date '2026-01-01' + i % 200), true
                 FROM generate_series({from} + 1, {count}) i"
            ))
            .unwrap();
        if from == 0 {
            stage.map(&connector, "$.total");
        } else {
            stage
                .client
                .batch_execute("DELETE FROM metric_mappings WHERE connector_id IS NOT NULL")
                .unwrap();
            let sql = "SELECT connector_service_reprocess($1::text::uuid)";
            stage.client.query_one(sql, &[&connector]).unwrap();
            stage.map(&connector, "$.total");
        }
        let began = Instant::now();
        let sql = "SELECT connector_service_reprocess($1::text::uuid)";
        let records: i64 = stage.client.query_one(sql, &[&connector]).unwrap().get(0);
        took.push(began.elapsed());
        assert_eq!(records, count);
    }
    // Four times the records; a scan for each batch would make it sixteen.
    assert!(took[1] < took[0] * 8 + Duration::from_secs(1), "{took:?}");
    stage.settled();
}
