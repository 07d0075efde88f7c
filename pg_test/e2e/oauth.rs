//! Tests access tokens that expire and refresh tokens that rotate, with a vendor that accepts each refresh token once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use connector_service_test::*;
use postgres::{Client, NoTls};
use serde_json::{Value, json};

/// The tokens that the vendor issued, and those that it received.
#[derive(Default)]
struct Tokens {
    given: usize,
    /// Refresh tokens that were used after they had been replaced.
    reused: Vec<String>,
    /// The token requests since the start.
    asked: usize,
    /// Access tokens count up with refresh tokens; those before this one do not open any more.
    valid_from: usize,
    refused: usize,
    /// Whether a replaced token was already stored when the access token that came with it was used.
    stored_first: Vec<bool>,
    credentials: String,
}

struct Shape {
    pages: usize,
    expires_in: Value,
    /// The access token that is refused after so many pages.
    revoke_after: Option<usize>,
    page_takes: Duration,
}

const QUICK: Shape = Shape {
    pages: 3,
    expires_in: Value::Null,
    revoke_after: None,
    page_takes: Duration::ZERO,
};

struct Stage {
    cluster: Cluster,
    client: Client,
    tokens: Arc<Mutex<Tokens>>,
    vendor: Vendor,
    connector: String,
}

fn stage(shape: Shape) -> Stage {
    let cluster = Cluster::start("connector_service.request_retries = 1");
    let mut client = cluster.database("app");
    let tokens = Arc::new(Mutex::new(Tokens::default()));
    let (serving, url) = (tokens.clone(), cluster.url("app"));
    let vendor = Vendor::start(move |asked| {
        let mut tokens = serving.lock().unwrap();
        if asked.path == "/token" {
            return grant(&mut tokens, asked, &shape, &url);
        }
        let shown = &asked.headers["authorization"];
        let number: usize = shown
            .strip_prefix("Bearer access-")
            .unwrap()
            .parse()
            .unwrap();
        if number < tokens.valid_from.max(tokens.given) {
            tokens.refused += 1;
            return Reply::status(401);
        }
        let page = asked.number("after");
        if page == 0 {
            let is_stored = stored(&url) != tokens.credentials;
            tokens.stored_first.push(is_stored);
        }
        if shape.revoke_after == Some(page) && tokens.valid_from == 0 {
            tokens.valid_from = tokens.given + 1;
            tokens.refused += 1;
            return Reply::status(401);
        }
        let next = (page + 1 < shape.pages).then_some(page + 1);
        let page = Reply::Json(json!({"data": [{"id": page}], "next": next}).to_string());
        Reply::After(shape.page_takes, Box::new(page))
    });
    let mut config = api(&vendor.url(), "orders");
    config["manifest"]["streams"][0]["retriever"]["requester"]["authenticator"] = json!({
        "type": "OAuthAuthenticator", "token_refresh_endpoint": format!("{}/token", vendor.url()),
        "client_id": "{{ config['client_id'] }}", "client_secret": "{{ config['client_secret'] }}",
        "refresh_token": "{{ config['refresh_token'] }}"
    });
    let credentials = json!({"client_id": "app", "client_secret": "not_a_real_secret", "refresh_token": "refresh-0"});
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
               VALUES (gen_random_uuid(), 'shop', 'api', $1, $2, 'manual') RETURNING connector_id::text";
    let connector = client
        .query_one(sql, &[&config, &credentials])
        .unwrap()
        .get(0);
    Stage {
        cluster,
        client,
        tokens,
        vendor,
        connector,
    }
}

fn grant(tokens: &mut Tokens, asked: &Asked, shape: &Shape, url: &str) -> Reply {
    tokens.asked += 1;
    assert_eq!(asked.method, "POST");
    let said: Vec<&str> = asked.body.split('&').collect();
    assert!(
        said.contains(&"client_secret=not_a_real_secret"),
        "{}",
        asked.body
    );
    let shown = said
        .iter()
        .find_map(|pair| pair.strip_prefix("refresh_token="))
        .unwrap();
    if shown != format!("refresh-{}", tokens.given) {
        tokens.reused.push(shown.to_owned());
        return Reply::Full {
            status: 400,
            headers: vec![],
            body: json!({"error": "invalid_grant", "shown": shown})
                .to_string()
                .into_bytes(),
        };
    }
    tokens.given += 1;
    tokens.credentials = stored(url);
    let (access, refresh) = (
        format!("access-{}", tokens.given),
        format!("refresh-{}", tokens.given),
    );
    Reply::Json(
        json!({"access_token": access, "refresh_token": refresh, "expires_in": shape.expires_in})
            .to_string(),
    )
}

/// Returns the credentials as the database stores them.
fn stored(url: &str) -> String {
    let mut client = Client::connect(url, NoTls).unwrap();
    client
        .query_one("SELECT credentials::text FROM connectors", &[])
        .unwrap()
        .get(0)
}

impl Stage {
    fn sync(&mut self) -> Value {
        let run = sync(&mut self.client, &self.connector);
        wait_for_run(&mut self.client, &run)
    }

    fn read<T>(&self, of: impl FnOnce(&Tokens) -> T) -> T {
        of(&self.tokens.lock().unwrap())
    }
}

#[test]
fn a_rotated_refresh_token_is_stored_sealed_before_it_is_used() {
    let mut stage = stage(QUICK);
    for given in 1..=4 {
        let run = stage.sync();
        assert_eq!(
            (&run["state"], &run["received"]),
            (&json!("succeeded"), &json!(3)),
            "{run}"
        );
        assert_eq!(
            stage.read(|tokens| (tokens.given, tokens.asked)),
            (given, given)
        );
    }
    assert_eq!(stage.read(|tokens| tokens.stored_first.clone()), [true; 4]);
    assert_eq!(
        stage.read(|tokens| tokens.reused.clone()),
        Vec::<String>::new()
    );
    let stored = stored(&stage.cluster.url("app"));
    for plain in ["refresh-", "access-", "not_a_real"] {
        assert!(!stored.contains(plain), "{stored}");
        assert!(!stage.cluster.log().contains(plain));
    }
    // What a person gives takes the place of what is stored.
    stage.tokens.lock().unwrap().given = 90;
    let sql =
        "UPDATE connectors SET credentials = credentials || '{\"refresh_token\": \"refresh-90\"}'";
    stage.client.batch_execute(sql).unwrap();
    assert_eq!(stage.sync()["state"], "succeeded");
    assert_eq!(stage.read(|tokens| tokens.given), 91);
}

#[test]
fn a_token_that_is_refused_during_a_run_is_renewed_once() {
    let mut stage = stage(Shape {
        pages: 6,
        revoke_after: Some(4),
        ..QUICK
    });
    let run = stage.sync();
    assert_eq!(
        (&run["state"], &run["received"]),
        (&json!("succeeded"), &json!(6)),
        "{run}"
    );
    assert_eq!(
        stage.read(|tokens| (tokens.asked, tokens.refused, tokens.reused.len())),
        (2, 1, 0)
    );
    // Refused whatever it is: no more than one new token for it.
    stage.tokens.lock().unwrap().valid_from = usize::MAX;
    let run = stage.sync();
    assert_eq!(
        (&run["state"], &run["error_code"]),
        (&json!("failed"), &json!("credentials_rejected")),
        "{run}"
    );
    assert_eq!(stage.read(|tokens| tokens.asked), 3);
}

#[test]
fn a_token_is_renewed_before_it_expires() {
    let mut stage = stage(Shape {
        pages: 8,
        expires_in: json!("1"),
        page_takes: Duration::from_millis(300),
        ..QUICK
    });
    let run = stage.sync();
    assert_eq!(
        (&run["state"], &run["received"]),
        (&json!("succeeded"), &json!(8)),
        "{run}"
    );
    let (asked, refused) = stage.read(|tokens| (tokens.asked, tokens.refused));
    assert!(
        (2..=4).contains(&asked) && refused == 0,
        "{asked} {refused}"
    );
}

#[test]
fn a_failed_login_fails_the_run_and_is_not_repeated() {
    let mut stage = stage(QUICK);
    stage.tokens.lock().unwrap().given = 5;
    let run = stage.sync();
    assert_eq!(run["error_code"], "credentials_rejected", "{run}");
    assert_eq!(
        run["error_message"],
        format!(
            "stream \"orders\": {}: HTTP 400 (the server gave no token)",
            stage.vendor.host()
        )
    );
    assert_eq!(
        stage.read(|tokens| (tokens.asked, tokens.reused.clone())),
        (1, vec!["refresh-0".to_owned()])
    );
    assert_eq!(stage.vendor.asked_for("/orders"), 0);
    let sql = "SELECT status FROM connectors";
    assert_eq!(
        stage
            .client
            .query_one(sql, &[])
            .unwrap()
            .get::<_, String>(0),
        "error"
    );
}

#[test]
fn a_kill_after_the_token_was_stored_loses_nothing() {
    let mut stage = stage(QUICK);
    stage.cluster.arm("after_keep", 1);
    let run = sync(&mut stage.client, &stage.connector);
    wait_until(30, "the worker was killed", || {
        stage
            .cluster
            .log()
            .contains("was terminated by signal 9")
            .then_some(())
    });
    stage.client = stage.cluster.wait_ready_in("app");
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(
        (&run["state"], &run["attempt"], &run["received"]),
        (&json!("succeeded"), &json!(2), &json!(3)),
        "{run}"
    );
    assert_eq!(
        stage.read(|tokens| (tokens.given, tokens.reused.len())),
        (2, 0)
    );
}

/// Vendors of three kinds who take every refresh token once, and take their time to answer. A refresh token is
/// `refresh-NAME-NUMBER`, of the connector NAME.
#[derive(Default)]
struct Chains {
    /// The number of the token that each connector would have to show.
    due: HashMap<String, usize>,
    /// Tokens that were used a second time: each is a connector that is locked out.
    reused: Vec<String>,
    /// Until when the answer to the latest token request of each is on its way.
    answers_at: HashMap<String, Instant>,
    /// Connectors that requested a token while an earlier request was unanswered.
    overlapping: Vec<String>,
    asked: usize,
    /// Shortest and longest time of an answer, in milliseconds.
    takes: (usize, usize),
    /// Connectors whose token requests are never answered.
    hangs: Vec<String>,
    random: u64,
}

impl Chains {
    fn token(&mut self, shown: &str) -> Reply {
        let (name, number) = shown
            .strip_prefix("refresh-")
            .and_then(|rest| rest.rsplit_once('-'))
            .unwrap_or_else(|| panic!("no token of these vendors: {shown}"));
        self.asked += 1;
        let now = Instant::now();
        let is_first_out = |at: &Instant| *at > now;
        if self.answers_at.get(name).is_some_and(is_first_out) {
            self.overlapping.push(name.to_owned());
        }
        if self.hangs.iter().any(|hangs| hangs == name) {
            return Reply::Hang;
        }
        let due = self.due.entry(name.to_owned()).or_default();
        if number.parse() != Ok(*due) {
            self.reused.push(shown.to_owned());
            return Reply::status(400);
        }
        *due += 1;
        let body = json!({"access_token": format!("access-{name}-{due}"), "refresh_token": format!("refresh-{name}-{due}")});
        let (shortest, longest) = self.takes;
        let mut random = Random(self.random);
        let takes = shortest + random.below(longest - shortest + 1);
        self.random = random.number();
        let takes = Duration::from_millis(takes as u64);
        self.answers_at.insert(name.to_owned(), now + takes);
        Reply::After(takes, Box::new(Reply::Json(body.to_string())))
    }

    /// Whether the answer to a token request of a connector is on its way, for a moment at least.
    fn is_in_flight(&self, name: &str) -> bool {
        let soon = Instant::now() + Duration::from_millis(30);
        self.answers_at.get(name).is_some_and(|at| *at > soon)
    }
}

const KINDS: [&str; 3] = ["api", "square", "quickbooks"];

struct Shops {
    cluster: Cluster,
    chains: Arc<Mutex<Chains>>,
    vendor: Vendor,
    /// Connector ids by name.
    connectors: BTreeMap<String, String>,
}

impl Shops {
    fn start(settings: &str, takes: (usize, usize)) -> Shops {
        let cluster = Cluster::start(settings);
        cluster.database("app");
        let chains = Arc::new(Mutex::new(Chains {
            takes,
            ..Chains::default()
        }));
        let serving = chains.clone();
        let vendor = Vendor::start(move |asked| {
            let json = serde_json::from_str::<Value>(&asked.body).unwrap_or_default();
            let form = asked.body.split('&');
            let mut shown = form.filter_map(|pair| pair.strip_prefix("refresh_token="));
            if let Some(shown) = json["refresh_token"].as_str().or_else(|| shown.next()) {
                return serving.lock().unwrap().token(shown);
            }
            assert!(asked.headers["authorization"].starts_with("Bearer access-"));
            let body = match asked.path.as_str() {
                "/orders" => json!({"data": [{"id": 1}]}),
                "/v2/locations" => json!({"locations": [{"id": "L1", "status": "ACTIVE"}]}),
                "/v3/company/1/query" => json!({"QueryResponse": {"totalCount": 0}}),
                path => panic!("{path} is not there"),
            };
            Reply::Json(body.to_string())
        });
        Shops {
            cluster,
            chains,
            vendor,
            connectors: BTreeMap::new(),
        }
    }

    fn client(&self) -> Client {
        self.cluster.wait_ready_in("app")
    }

    fn add(&mut self, kind: &str, name: &str) {
        let base = self.vendor.url();
        let config = match kind {
            "api" => {
                let mut config = api(&base, "orders");
                config["manifest"]["streams"][0]["retriever"]["requester"]["authenticator"] = json!({
                    "type": "OAuthAuthenticator", "token_refresh_endpoint": format!("{base}/token"),
                    "client_id": "app", "client_secret": "not_a_real_secret", "refresh_token": "{{ config['refresh_token'] }}"
                });
                config
            }
            "square" => json!({"base_url": base, "streams": ["locations"]}),
            "quickbooks" => {
                json!({"base_url": base, "token_url": format!("{base}/tokens"), "streams": ["items"], "realm_id": "1"})
            }
            kind => panic!("no vendor of kind {kind}"),
        };
        let credentials = json!({"client_id": "app", "client_secret": "not_a_real_secret", "refresh_token": format!("refresh-{name}-0")});
        let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
                   VALUES ('00000000-0000-4000-8000-000000000001', $1, $2, $3, $4, 'manual') RETURNING connector_id::text";
        let mut client = self.client();
        let row = client.query_one(sql, &[&name, &kind, &config, &credentials]);
        self.connectors.insert(name.into(), row.unwrap().get(0));
    }

    /// Queues a sync of each, and waits until the answers to their logins are on their way; returns the runs by name.
    fn log_in(&self, names: &[String]) -> BTreeMap<String, String> {
        let mut client = self.client();
        let runs = names
            .iter()
            .map(|name| (name.clone(), sync(&mut client, &self.connectors[name])));
        let runs = runs.collect();
        self.wait_for_logins(names);
        runs
    }

    fn wait_for_logins(&self, names: &[String]) {
        wait_until(20, "everybody logs in", || {
            let chains = self.chains.lock().unwrap();
            let is_in_flight = |name: &String| chains.is_in_flight(name);
            names.iter().all(is_in_flight).then_some(())
        });
    }

    fn names(&self) -> Vec<String> {
        self.connectors.keys().cloned().collect()
    }

    /// Syncs every connector twice, which a connector that is locked out does not survive.
    fn nobody_is_locked_out(&self) {
        let mut client = self.client();
        client
            .batch_execute("UPDATE connectors SET status = 'active' WHERE status <> 'active'")
            .unwrap();
        for _ in 0..2 {
            for connector in self.connectors.values() {
                // What went before is over.
                let sql = "SELECT run_id::text FROM sync_runs WHERE connector_id = $1::text::uuid AND state IN ('queued', 'running')";
                for row in client.query(sql, &[connector]).unwrap() {
                    wait_for_run(&mut client, row.get(0));
                }
            }
            let runs: Vec<String> = self
                .connectors
                .values()
                .map(|connector| sync(&mut client, connector))
                .collect();
            for run in runs {
                let run = wait_for_run(&mut client, &run);
                assert_eq!(run["state"], "succeeded", "{run}");
            }
        }
        let chains = self.chains.lock().unwrap();
        let nobody = Vec::<String>::new();
        assert_eq!((&chains.reused, &chains.overlapping), (&nobody, &nobody));
        let log = self.cluster.log();
        for plain in ["refresh-", "access-", "not_a_real"] {
            assert!(!log.contains(plain), "{plain}");
        }
    }

    fn is_alive(&self, pid: i32) -> bool {
        std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    fn terminate(&self, pid: i32) {
        let mut admin = self.cluster.client("postgres");
        let sent = admin.query_one("SELECT pg_terminate_backend($1)", &[&pid]);
        assert!(sent.unwrap().get::<_, bool>(0));
    }

    /// Returns how long it takes until the process is gone.
    fn wait_for_end(&self, pid: i32) -> Duration {
        let began = Instant::now();
        wait_until(20, "the worker is gone", || {
            (!self.is_alive(pid)).then_some(())
        });
        began.elapsed()
    }
}

/// What happens to a run, by SQL with the run's id or its connector's.
const BECOMES: [(&str, &str); 6] = [
    ("cancelled", "SELECT connector_service_cancel('RUN')"),
    (
        "paused",
        "UPDATE connectors SET status = 'paused' WHERE connector_id = 'CONNECTOR'",
    ),
    ("deleted", "DELETE FROM sync_runs WHERE run_id = 'RUN'"),
    (
        "fenced",
        "UPDATE sync_runs SET token = gen_random_uuid() WHERE run_id = 'RUN'",
    ),
    (
        "renamed",
        "UPDATE connectors SET name = name || ' of old', sync_frequency = 'daily' WHERE connector_id = 'CONNECTOR'",
    ),
    (
        "changed",
        "UPDATE connectors SET config = config || '{\"start_date\": \"2026-01-01\"}' WHERE connector_id = 'CONNECTOR'",
    ),
];

#[test]
fn a_login_outlives_its_run_and_the_next_run_waits_for_it() {
    // Long enough for everything that is to happen within the logins, on a busy machine too.
    let mut shops = Shops::start("", (4_000, 4_000));
    for kind in KINDS {
        for (what, _) in BECOMES {
            shops.add(kind, &format!("{kind}.{what}"));
        }
    }
    let runs = shops.log_in(&shops.names());
    std::thread::sleep(Duration::from_millis(300));
    let mut client = shops.client();
    for (name, connector) in &shops.connectors {
        let becomes = BECOMES
            .iter()
            .find(|(what, _)| name.ends_with(what))
            .unwrap();
        let sql = becomes.1.replace("RUN", &runs[name]);
        let sql = sql.replace("CONNECTOR", connector);
        client.batch_execute(&sql).unwrap();
        // The next one is asked for while the login is still in flight.
        client
            .batch_execute("UPDATE connectors SET status = 'active' WHERE status = 'paused'")
            .unwrap();
        sync(&mut client, connector);
    }
    let names = shops.names();
    let in_flight = {
        let mut chains = shops.chains.lock().unwrap();
        chains.takes = (200, 200);
        let in_flight = |name: &&String| chains.is_in_flight(name);
        names.iter().filter(in_flight).count()
    };
    assert_eq!(in_flight, names.len(), "all this was within the logins");
    shops.nobody_is_locked_out();
}

#[test]
fn a_worker_that_is_told_to_end_waits_only_for_its_logins() {
    let mut shops = Shops::start("", (1_500, 1_500));
    for kind in KINDS {
        shops.add(kind, kind);
    }
    // Something that hangs, and is no login.
    let silent = Vendor::start(|_| Reply::Hang);
    let mut client = shops.client();
    let hanging = insert_connector(&mut client, "silent", &api(&silent.url(), "orders"));
    sync(&mut client, &hanging);
    let runs = shops.log_in(&shops.names());
    wait_until(10, "the other fetch hangs", || {
        (silent.asked_for("/orders") == 1).then_some(())
    });
    let worker = shops.cluster.wait_worker("app");
    shops.terminate(worker);
    // Once more: who is impatient ends nothing sooner.
    std::thread::sleep(Duration::from_millis(100));
    shops.terminate(worker);
    let took = shops.wait_for_end(worker);
    println!("gone after {took:.1?}, with logins that take 1.5 s");
    assert!(took < Duration::from_secs(3), "{took:?}");
    for run in runs.values() {
        let run = wait_for_run(&mut client, run);
        assert_eq!(
            (&run["state"], &run["attempt"]),
            (&json!("succeeded"), &json!(2)),
            "{run}"
        );
    }
    shops.nobody_is_locked_out();
}

#[test]
fn a_login_without_an_answer_delays_the_end_of_a_worker_only_for_its_grace_period() {
    let mut shops = Shops::start("", (1_500, 1_500));
    shops.add("api", "answers");
    shops.add("square", "hangs");
    let mut client = shops.client();
    shops.chains.lock().unwrap().hangs = vec!["hangs".into()];
    sync(&mut client, &shops.connectors["hangs"]);
    shops.log_in(&["answers".to_owned()]);
    wait_until(10, "both have asked", || {
        (shops.chains.lock().unwrap().asked == 2).then_some(())
    });
    drop(client);
    let mut admin = shops.cluster.client("postgres");
    admin.batch_execute("CREATE DATABASE other").unwrap();
    let worker = shops.cluster.wait_worker("app");
    shops.terminate(worker);
    // Meanwhile it answers the server: this waits for every process.
    admin.batch_execute("DROP DATABASE other").unwrap();
    assert!(shops.is_alive(worker));
    let took = shops.wait_for_end(worker);
    assert!(took < Duration::from_secs(5), "{took:?}");
    let log = shops.cluster.log();
    let lost = format!(
        "stops while connector \"{}\" is logging in",
        shops.connectors["hangs"]
    );
    assert!(log.contains(&lost) && log.matches("is logging in").count() == 1);
    // The database of a hanging login is gone within what a command waits for its worker.
    let asked = shops.chains.lock().unwrap().asked;
    wait_until(20, "the next worker logs in again", || {
        (shops.chains.lock().unwrap().asked >= asked + 2).then_some(())
    });
    let began = Instant::now();
    admin.batch_execute("DROP DATABASE app").unwrap();
    let took = began.elapsed();
    // PostgreSQL's own part of it, a checkpoint, is in this. Where the worker stayed it would fail after ten seconds.
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn logins_survive_a_restart_and_a_new_name_of_the_database() {
    let mut shops = Shops::start("", (1_500, 1_500));
    for kind in KINDS {
        shops.add(kind, kind);
    }
    let names = shops.names();
    shops.log_in(&names);
    let began = Instant::now();
    shops.cluster.stop(Stop::Fast);
    let took = began.elapsed();
    println!("stopped within {took:.1?}, with logins that take 1.5 s");
    assert!(took < Duration::from_secs(4), "{took:?}");
    shops.cluster.run();
    // Its runs are taken up again, and log in once more.
    shops.wait_for_logins(&names);
    let mut admin = shops.cluster.client("postgres");
    admin
        .batch_execute("ALTER DATABASE app RENAME TO moved")
        .unwrap();
    shops.cluster.wait_worker("moved");
    shops.wait_for_logins(&names);
    admin
        .batch_execute("ALTER DATABASE moved RENAME TO app")
        .unwrap();
    shops.nobody_is_locked_out();
    // At first, after each of the three, and twice at the end.
    let asked = shops.chains.lock().unwrap().asked;
    assert_eq!(asked, 6 * names.len());
}

#[test]
fn a_token_that_cannot_be_stored_at_once_is_stored_later() {
    let mut shops = Shops::start("", (300, 300));
    for (kind, name) in [
        ("api", "locked"),
        ("square", "cancelled"),
        ("quickbooks", "refused"),
        ("api", "other"),
    ] {
        shops.add(kind, name);
    }
    let mut client = shops.client();
    client
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE OF credentials ON connectors FOR EACH ROW WHEN (OLD.name = 'refused') EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    let names: Vec<String> = ["cancelled", "locked", "refused"].map(Into::into).into();
    let runs = shops.log_in(&names);
    let mut holder = shops.client();
    let mut holding = holder.transaction().unwrap();
    let sql = "SELECT FROM connectors WHERE name IN ('locked', 'cancelled') FOR UPDATE";
    holding.execute(sql, &[]).unwrap();
    client
        .query_one(
            "SELECT connector_service_cancel($1::text::uuid)",
            &[&runs["cancelled"]],
        )
        .unwrap();
    wait_until(
        10,
        "the log says which token is not stored, and why",
        || {
            let log = shops.cluster.log();
            let said = |name: &str, why: &str| {
                let connector = &shops.connectors[name];
                log.contains(&format!("connector \"{connector}\" yet: {why}"))
            };
            (said("locked", "another session has locked")
                && said("cancelled", "another session has locked")
                && said("refused", "not today"))
            .then_some(())
        },
    );
    // Nobody else waits for it.
    let began = Instant::now();
    let run = sync(&mut client, &shops.connectors["other"]);
    assert_eq!(wait_for_run(&mut client, &run)["state"], "succeeded");
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    let log = shops.cluster.log();
    assert_eq!(log.matches("cannot store the new refresh token").count(), 3);
    // The lock is still held: a sync that is asked for now is not taken up before the token is there.
    let asked = shops.chains.lock().unwrap().asked;
    holding.commit().unwrap();
    client
        .batch_execute("DROP TRIGGER refuse ON connectors")
        .unwrap();
    for name in ["locked", "refused"] {
        let run = wait_for_run(&mut client, &runs[name]);
        assert_eq!(run["state"], "succeeded", "{run}");
    }
    assert_eq!(shops.chains.lock().unwrap().asked, asked);
    shops.nobody_is_locked_out();
}

#[test]
fn a_rotated_token_never_replaces_one_that_a_person_entered_meanwhile() {
    let mut shops = Shops::start("", (600, 600));
    for kind in KINDS {
        shops.add(kind, kind);
    }
    // A token that stands in config, and credentials without one.
    shops.add("api", "config");
    let mut client = shops.client();
    client
        .batch_execute(
            "UPDATE connectors SET credentials = '{\"client_id\": \"app\"}', config = config || '{\"refresh_token\": \"refresh-config-0\"}'
             WHERE name = 'config'",
        )
        .unwrap();
    let manifest = "{manifest,streams,0,retriever,requester,authenticator,refresh_token_updater}";
    let updater = json!({"refresh_token_config_path": ["refresh_token"]});
    let sql = format!(
        "UPDATE connectors SET config = jsonb_set(config, '{manifest}', $1) WHERE name = 'config'"
    );
    client.execute(&sql, &[&updater]).unwrap();
    let names = shops.names();
    let runs = shops.log_in(&names);
    client
        .batch_execute(
            "UPDATE connectors SET credentials = credentials || jsonb_build_object('refresh_token', 'refresh-' || name || '-90') WHERE name <> 'config';
             UPDATE connectors SET config = config || '{\"refresh_token\": \"refresh-config-90\"}' WHERE name = 'config'",
        )
        .unwrap();
    for name in &names {
        wait_for_run(&mut client, &runs[name]);
        shops.chains.lock().unwrap().due.insert(name.clone(), 90);
    }
    shops.nobody_is_locked_out();
    // Where nobody gave another one it is kept, beside config too.
    assert_eq!(shops.chains.lock().unwrap().due["config"], 92);
}

#[test]
fn a_cancel_that_finds_no_statement_does_not_end_the_worker() {
    let mut shops = Shops::start("", (1_000, 1_000));
    shops.add("api", "api");
    let worker = shops.cluster.wait_worker("app");
    let runs = shops.log_in(&shops.names());
    let mut client = shops.client();
    client
        .query_one("SELECT pg_cancel_backend($1)", &[&worker])
        .unwrap();
    let run = wait_for_run(&mut client, &runs["api"]);
    assert_eq!(run["state"], "succeeded", "{run}");
    assert_eq!(shops.cluster.worker("app"), Some(worker));
    shops.nobody_is_locked_out();
}

#[test]
fn a_worker_that_takes_over_a_tenant_waits_for_the_logins_of_its_predecessor() {
    let mut shops = Shops::start("", (6_000, 6_000));
    shops.add("api", "api");
    shops.add("square", "square");
    let mut client = shops.client();
    let runs = shops.log_in(&shops.names());
    // The tenant's number is odd, so with two workers it is the second one's.
    client
        .batch_execute("ALTER SYSTEM SET connector_service.sync_workers = 2")
        .unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'connector_service sync worker'";
    wait_until(5, "there are two workers", || {
        let count: i64 = client.query_one(sql, &[]).unwrap().get(0);
        (count == 2).then_some(())
    });
    for run in runs.values() {
        let cancelled = client.query_one("SELECT connector_service_cancel($1::text::uuid)", &[run]);
        assert!(cancelled.unwrap().get::<_, bool>(0));
    }
    let names = shops.names();
    let runs = names
        .iter()
        .map(|name| sync(&mut client, &shops.connectors[name]));
    let runs: Vec<String> = runs.collect();
    std::thread::sleep(Duration::from_millis(500));
    {
        let chains = shops.chains.lock().unwrap();
        assert!(names.iter().all(|name| chains.is_in_flight(name)));
    }
    shops.chains.lock().unwrap().takes = (100, 100);
    for run in runs {
        let run = wait_for_run(&mut client, &run);
        assert_eq!(
            (&run["state"], &run["worker"]),
            (&json!("succeeded"), &json!(2)),
            "{run}"
        );
    }
    shops.nobody_is_locked_out();
}

/// How often logins are interrupted by default. With LOGINS=100 it is a hundred times; SEED chooses where.
const INTERRUPTIONS: usize = 20;

#[test]
fn interruptions_at_random_moments_within_logins_lock_nobody_out() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let count = number("LOGINS").unwrap_or(INTERRUPTIONS as u64) as usize;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = number("SEED").unwrap_or_else(|| now.unwrap().as_micros() as u64);
    println!("SEED={seed}");
    let mut random = Random(seed);
    let mut shops = Shops::start("", (200, 900));
    shops.chains.lock().unwrap().random = seed;
    for kind in KINDS {
        for i in 0..2 {
            shops.add(kind, &format!("{kind}.{i}"));
        }
    }
    let names = shops.names();
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    while done.values().sum::<usize>() < count {
        let mut client = shops.client();
        client
            .batch_execute(
                "UPDATE connectors SET status = 'active' WHERE status <> 'active';
                 SELECT connector_service_sync(connector_id) FROM connectors",
            )
            .unwrap();
        let in_flight = |chains: &Chains| -> Vec<String> {
            let names = names.iter().filter(|name| chains.is_in_flight(name));
            names.cloned().collect()
        };
        // Logins come as the runs before end, and the backoff of a worker that was ended often.
        wait_until(60, "somebody logs in", || {
            let chains = shops.chains.lock().unwrap();
            let nobody = Vec::<String>::new();
            assert_eq!(chains.reused, nobody, "locked out after {done:?}");
            (!in_flight(&chains).is_empty()).then_some(())
        });
        std::thread::sleep(Duration::from_millis(random.below(400) as u64));
        let in_flight = in_flight(&shops.chains.lock().unwrap());
        if in_flight.is_empty() {
            continue;
        }
        let name = &in_flight[random.below(in_flight.len())];
        let connector = &shops.connectors[name];
        let what = random.pick(&[
            "cancel", "cancel", "cancel", "pause", "pause", "SIGTERM", "restart", "RENAME",
        ]);
        match what {
            "cancel" => {
                let sql = "SELECT connector_service_cancel(run_id) FROM sync_runs
                           WHERE connector_id = $1::text::uuid AND state = 'running'";
                client.query(sql, &[connector]).unwrap();
            }
            "pause" => {
                let sql =
                    "UPDATE connectors SET status = 'paused' WHERE connector_id = $1::text::uuid";
                client.execute(sql, &[connector]).unwrap();
            }
            "SIGTERM" => {
                if let Some(worker) = shops.cluster.worker("app") {
                    shops.terminate(worker);
                }
            }
            "restart" => {
                drop(client);
                shops.cluster.stop(Stop::Fast);
                shops.cluster.run();
            }
            _ => {
                drop(client);
                let mut admin = shops.cluster.client("postgres");
                // Sessions of this test may still be on their way out.
                wait_until(20, "the database has another name", || {
                    admin
                        .batch_execute("ALTER DATABASE app RENAME TO moved")
                        .ok()
                });
                wait_until(20, "the database has its name again", || {
                    admin
                        .batch_execute("ALTER DATABASE moved RENAME TO app")
                        .ok()
                });
            }
        }
        *done.entry(what).or_default() += 1;
    }
    shops.nobody_is_locked_out();
    let chains = shops.chains.lock().unwrap();
    println!(
        "{done:?}: {} logins, {} connectors locked out",
        chains.asked,
        chains.reused.len()
    );
    assert_eq!(shops.cluster.log().matches("is logging in").count(), 0);
    assert_eq!(
        shops.cluster.log().matches("terminated by signal").count(),
        0
    );
}
