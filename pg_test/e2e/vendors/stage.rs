//! What the tests of all vendors share: a fake on a port, a server with a connector to it, and how they are compared.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};
use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

/// What is wrong with a request, in words for whoever reads the test's output.
pub type Complaint = String;

/// The tenant's time zone is five hours behind UTC, all year.
pub const ZONE: &str = "Etc/GMT+5";

/// The day of a moment in the tenant's zone.
pub fn day(at: DateTime<Utc>) -> String {
    (at - TimeDelta::hours(5)).format("%Y-%m-%d").to_string()
}

/// Amounts by metric type and day.
pub type Books = BTreeMap<(String, String), i64>;

/// One vendor's rules and records.
pub trait Fake: Send + 'static {
    /// `connectors.type`.
    const KIND: &'static str;
    /// SQL over `data` that tells one version of a record from another.
    const VERSION: &'static str;
    /// What the books' amounts are divided by to be in units of the currency.
    const SCALE: i64;

    fn clock(&mut self) -> &mut Clock;

    fn credentials(&self) -> Value;

    fn config(&self, url: &str) -> Value;

    fn answer(&mut self, asked: &Asked) -> Result<Reply, Complaint>;

    /// One change: something new, something edited, something gone.
    fn change(&mut self, random: &mut Random);

    /// What the days should come to, by the vendor's own books.
    fn books(&self) -> Books;

    /// Id and version of every record that is there.
    fn records(&self) -> BTreeMap<String, String>;
}

pub struct Hosted<F> {
    pub fake: F,
    /// Changes between requests: how many percent of them are followed by one.
    pub busy: Option<(Random, usize)>,
    /// What answers instead of the vendor, after so many requests.
    pub faults: VecDeque<(usize, Reply)>,
    complaints: Vec<Complaint>,
}

pub struct Stage<F: Fake> {
    pub cluster: Cluster,
    pub client: Client,
    pub hosted: Arc<Mutex<Hosted<F>>>,
    pub vendor: Vendor,
    pub connector: String,
    /// A condition of SQL for records that are not compared one by one.
    pub beside: &'static str,
}

impl<F: Fake> Stage<F> {
    pub fn new(fake: F) -> Stage<F> {
        Stage::with(fake, "")
    }

    pub fn with(fake: F, settings: &str) -> Stage<F> {
        let cluster = Cluster::start(settings);
        let mut client = cluster.database("app");
        let hosted = Arc::new(Mutex::new(Hosted {
            fake,
            busy: None,
            faults: VecDeque::new(),
            complaints: Vec::new(),
        }));
        let serving = hosted.clone();
        let vendor = Vendor::start(move |asked| answer(&mut serving.lock().unwrap(), asked));
        let (config, credentials) = {
            let hosted = hosted.lock().unwrap();
            (hosted.fake.config(&vendor.url()), hosted.fake.credentials())
        };
        let sql = format!(
            "INSERT INTO tenants (tenant_id, timezone, currency) VALUES ('00000000-0000-4000-8000-000000000001', '{ZONE}', 'USD')"
        );
        client.batch_execute(&sql).unwrap();
        let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
                   VALUES ('00000000-0000-4000-8000-000000000001', 'shop', $1, $2, $3, 'manual') RETURNING connector_id::text";
        let row = client.query_one(sql, &[&F::KIND, &config, &credentials]);
        let connector = row.expect("INSERT INTO connectors").get(0);
        Stage {
            cluster,
            client,
            hosted,
            vendor,
            connector,
            beside: "false",
        }
    }

    pub fn hosted(&self) -> MutexGuard<'_, Hosted<F>> {
        self.hosted.lock().unwrap()
    }

    /// A sync, however it ends.
    pub fn sync_anyhow(&mut self) -> Value {
        self.hosted().fake.clock().go_live();
        let run = sync(&mut self.client, &self.connector);
        let run = wait_for_run(&mut self.client, &run);
        self.no_complaints();
        ledger_holds(&mut self.client);
        run
    }

    pub fn sync(&mut self) -> Value {
        let run = self.sync_anyhow();
        assert_eq!(run["state"], "succeeded", "{run}");
        run
    }

    /// A check or preview: the run, ended.
    pub fn look(&mut self, function: &str) -> Value {
        let sql = format!("SELECT {function}($1::text::uuid)::text");
        let run: String = self
            .client
            .query_one(&sql, &[&self.connector])
            .unwrap()
            .get(0);
        let run = wait_for_run(&mut self.client, &run);
        self.no_complaints();
        run
    }

    fn no_complaints(&self) {
        let hosted = self.hosted();
        assert!(hosted.complaints.is_empty(), "{:#?}", hosted.complaints);
    }

    pub fn changes(&mut self, count: usize, random: &mut Random) {
        let mut hosted = self.hosted();
        for _ in 0..count {
            hosted.fake.change(random);
        }
    }

    /// Every number and every record is what the vendor says.
    pub fn agrees(&mut self) {
        let books = self.hosted().fake.books();
        let sql = "SELECT metric_type, metric_date::text, metric_value::text FROM metrics";
        let rows = self.client.query(sql, &[]).unwrap();
        let metrics: BTreeMap<(String, String), f64> = rows
            .iter()
            .map(|row| {
                (
                    (row.get(0), row.get(1)),
                    row.get::<_, String>(2).parse().unwrap(),
                )
            })
            .collect();
        // A day on which nothing is left has no metric, or one of zero.
        let all = books.keys().chain(metrics.keys()).cloned();
        for key in all.collect::<std::collections::BTreeSet<_>>() {
            let expected = *books.get(&key).unwrap_or(&0) as f64 / F::SCALE as f64;
            let found = *metrics.get(&key).unwrap_or(&0.0);
            assert!(
                (expected - found).abs() < 1e-6,
                "{key:?}: the books say {expected}, metrics {found}"
            );
        }
        let expected = self.hosted().fake.records();
        let sql = format!(
            "SELECT source_record_id, coalesce({}, '') FROM raw_connector_data WHERE NOT deleted AND NOT ({})",
            F::VERSION,
            self.beside
        );
        let rows = self.client.query(&sql, &[]).unwrap();
        let found: BTreeMap<String, String> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        for (id, version) in &expected {
            assert_eq!(found.get(id), Some(version), "record {id}");
        }
        let beyond: Vec<&String> = found
            .keys()
            .filter(|id| !expected.contains_key(*id))
            .collect();
        assert!(
            beyond.is_empty(),
            "stored, and not there at the vendor: {beyond:?}"
        );
        let unmapped: i64 = self
            .client
            .query_one(
                "SELECT count(*) FROM quarantine WHERE replayed_at IS NULL",
                &[],
            )
            .unwrap()
            .get(0);
        assert_eq!(unmapped, 0, "records in quarantine");
    }

    /// First sync, then rounds of changes, each followed by a sync that must find all of them and nothing else.
    pub fn follows_every_change(&mut self, seed: u64) {
        let mut random = Random(seed);
        self.changes(60, &mut random);
        self.sync();
        self.agrees();
        for _ in 0..5 {
            self.changes(8, &mut random);
            self.sync();
            self.agrees();
        }
        let again = self.sync();
        let written = ["inserted", "updated", "deleted", "quarantined"]
            .map(|name| again[name].as_i64().unwrap());
        assert_eq!(written, [0; 4], "nothing changed: {again}");
    }

    /// Changes between any two requests of a sync are there after the next one.
    pub fn misses_nothing_that_changes_while_it_reads(&mut self, seed: u64, rounds: usize) {
        let mut random = Random(seed);
        self.changes(40, &mut random);
        let mut changed = 0;
        for round in 0..rounds {
            let percent = 20 + random.below(60);
            self.hosted().busy = Some((Random(seed + round as u64), percent));
            let run = self.sync();
            changed += run["updated"].as_i64().unwrap() + run["inserted"].as_i64().unwrap();
            self.hosted().busy = None;
            self.sync();
            self.agrees();
        }
        assert!(
            changed > rounds as i64,
            "the vendor changed too little to show anything: {changed}"
        );
    }

    /// Fails once the way a fault says, then goes on: the sync succeeds all the same.
    pub fn survives(&mut self, after: usize, fault: Reply) {
        self.hosted().faults.push_back((after, fault));
        self.sync();
        assert!(self.hosted().faults.is_empty(), "the fault was not met");
        self.agrees();
    }

    /// The account is to rest, by what comes after so many requests: a run waits, and nothing of the account is asked,
    /// by whatever run, also after a restart of the server. Once the rest is over the run goes on.
    pub fn waits_when_throttled(&mut self, after: usize, fault: Reply) {
        self.hosted().faults.push_back((after, fault));
        let run = self.sync_anyhow();
        let waits = |run: &Value| {
            assert_eq!(
                (&run["state"], &run["error_code"]),
                (&json!("queued"), &json!("rate_limited")),
                "{run}"
            );
            assert!(
                !run["waiting_for"].is_null() && !run["retry_at"].is_null(),
                "{run}"
            );
        };
        waits(&run);
        let asked = self.vendor.asked().len();
        // Another run of the same account, and another life of the server.
        let look = self.look("connector_service_check");
        waits(&look);
        self.cluster.stop(Stop::Fast);
        self.cluster.run();
        self.client = self.cluster.wait_ready_in("app");
        let look = self.look("connector_service_check");
        waits(&look);
        assert_eq!(
            self.vendor.asked().len(),
            asked,
            "a resting account was called"
        );
        self.client
            .batch_execute(
                "UPDATE rate_budgets SET rests_until = now(); UPDATE sync_runs SET retry_at = now() WHERE state = 'queued'",
            )
            .unwrap();
        self.cluster.stop(Stop::Fast);
        self.cluster.run();
        self.client = self.cluster.wait_ready_in("app");
        let run = run["run_id"].as_str().unwrap().to_owned();
        let client = &mut self.client;
        let ended = wait_until(60, "the run goes on", || {
            Some(run_of(client, &run)).filter(|run| run["state"] == "succeeded")
        });
        assert_eq!(ended["waits"], 1, "{ended}");
        self.agrees();
    }
}

fn answer<F: Fake>(hosted: &mut Hosted<F>, asked: &Asked) -> Reply {
    match hosted.faults.front_mut() {
        Some((0, _)) => return hosted.faults.pop_front().unwrap().1,
        Some((left, _)) => *left -= 1,
        None => {}
    }
    let reply = match hosted.fake.answer(asked) {
        Ok(reply) => reply,
        Err(complaint) => {
            hosted
                .complaints
                .push(format!("{} {}: {complaint}", asked.method, asked.path));
            Reply::status(400)
        }
    };
    if let Some((random, percent)) = &mut hosted.busy
        && random.percent(*percent)
    {
        hosted.fake.change(random);
    }
    reply
}

pub fn json_reply(body: Value) -> Result<Reply, Complaint> {
    Ok(Reply::Json(body.to_string()))
}

pub fn refusal(status: u16, headers: &[(&'static str, &str)], body: Value) -> Reply {
    Reply::Full {
        status,
        headers: headers
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
        body: body.to_string().into_bytes(),
    }
}

/// Complains unless a header is exactly this.
pub fn need_header(asked: &Asked, name: &str, value: &str) -> Result<(), Complaint> {
    match asked.headers.get(name) {
        Some(found) if found == value => Ok(()),
        other => Err(format!("header {name} is {other:?}, not {value}")),
    }
}

pub fn need(condition: bool, complaint: &str) -> Result<(), Complaint> {
    if condition {
        Ok(())
    } else {
        Err(complaint.to_owned())
    }
}

/// A vendor's clock. Before the first sync it runs through the past days; then it is the clock on the wall, in whole
/// seconds, so that stamps tie, and some changes become visible a little after their stamp.
pub struct Clock {
    past: DateTime<Utc>,
    is_live: bool,
}

impl Clock {
    pub fn start() -> Clock {
        let past = Utc::now() - TimeDelta::days(9);
        Clock {
            past: DateTime::from_timestamp(past.timestamp(), 0).unwrap(),
            is_live: false,
        }
    }

    pub fn go_live(&mut self) {
        self.is_live = true;
    }

    pub fn tick(&mut self, random: &mut Random) -> DateTime<Utc> {
        if self.is_live {
            let late = random.pick(&[0, 0, 0, 0, 20, 90]);
            return DateTime::from_timestamp(Utc::now().timestamp() - late, 0).unwrap();
        }
        self.past += TimeDelta::seconds(random.pick(&[0, 0, 1, 60, 600, 1800, 3600, 14_400]));
        self.past = self.past.min(Utc::now() - TimeDelta::hours(1));
        DateTime::from_timestamp(self.past.timestamp(), 0).unwrap()
    }
}
