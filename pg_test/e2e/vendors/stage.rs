//! Shared by the tests of all vendors: a fake on a port, a server with a connector to it, and their comparison.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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

    /// The stream that a request asks for. `None`: a login, or what several streams need.
    fn stream_of(&self, _asked: &Asked) -> Option<String> {
        None
    }

    /// How the vendor says that the credentials may not read a stream.
    fn denies(&self) -> Reply {
        refusal(403, &[], json!({}))
    }

    /// Deletes something, in one of the vendor's ways. False: there is nothing to delete.
    fn delete(&mut self, _random: &mut Random) -> bool {
        false
    }

    /// Gives something that has been there for long another state, as when a payout is paid. False: there is none.
    fn settle(&mut self, _random: &mut Random) -> bool {
        false
    }

    /// What opens the streams, where it is not the credentials themselves.
    fn tokens(&mut self) -> &mut Tokens {
        unreachable!("{} has no tokens here", Self::KIND)
    }
}

/// Access tokens as a vendor gives them out, each in place of the one before.
#[derive(Default)]
pub struct Tokens {
    /// So many so far.
    pub given: usize,
    /// How many requests the present one is still good for; `None`: any number.
    pub left: Option<usize>,
    /// Whether a refresh token is good for one use.
    pub rotates: bool,
    /// Refresh tokens that were shown and had been replaced.
    pub reused: usize,
}

impl Tokens {
    pub fn access(&self) -> String {
        format!("token-{}", self.given)
    }

    /// The one that is good.
    pub fn refresh(&self) -> String {
        let number = if self.rotates { self.given } else { 0 };
        format!("not_a_real_refresh_{number}")
    }

    /// Whether a refresh token is let in. If so, there are new tokens.
    pub fn renew(&mut self, shown: &str) -> bool {
        let is_good = shown == self.refresh();
        if is_good {
            self.given += 1;
        } else {
            self.reused += 1;
        }
        is_good
    }

    /// Whether a request with this access token is let in.
    pub fn admits(&mut self, shown: Option<&str>) -> bool {
        let is_over = self.left == Some(0);
        self.left = match self.left {
            Some(0) => None,
            left => left.map(|left| left - 1),
        };
        !is_over && shown == Some(self.access().as_str())
    }
}

/// The token of an `Authorization: Bearer` header.
pub fn bearer(asked: &Asked) -> Option<&str> {
    asked.headers.get("authorization")?.strip_prefix("Bearer ")
}

/// A stream that cannot be read for a while.
pub struct Closed {
    pub stream: String,
    /// So many of its requests are still answered.
    pub after: usize,
    pub why: Why,
    /// Whether a request was not answered.
    pub is_met: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Why {
    /// The credentials have lost the permission.
    Denied,
    /// The vendor's server fails.
    Fails,
}

pub struct Hosted<F> {
    pub fake: F,
    /// Changes between requests: how many percent of them are followed by one.
    pub busy: Option<(Random, usize)>,
    /// What answers instead of the vendor, after so many requests.
    pub faults: VecDeque<(usize, Reply)>,
    /// What the vendor's next version makes of each object that it answers with.
    pub reshape: Option<fn(&mut serde_json::Map<String, Value>)>,
    pub closed: Option<Closed>,
    /// The streams that were asked for so far.
    pub streams: BTreeSet<String>,
    complaints: Vec<Complaint>,
}

impl<F> Hosted<F> {
    fn of(fake: F) -> Hosted<F> {
        Hosted {
            fake,
            busy: None,
            faults: VecDeque::new(),
            reshape: None,
            closed: None,
            streams: BTreeSet::new(),
            complaints: Vec::new(),
        }
    }
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
        let hosted = Arc::new(Mutex::new(Hosted::of(fake)));
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

    /// Another vendor of the same tenant: what it has, its server, and its connector.
    pub fn beside<G: Fake>(
        &mut self,
        name: &str,
        fake: G,
    ) -> (Arc<Mutex<Hosted<G>>>, Vendor, String) {
        let hosted = Arc::new(Mutex::new(Hosted::of(fake)));
        let serving = hosted.clone();
        let vendor = Vendor::start(move |asked| answer(&mut serving.lock().unwrap(), asked));
        let (config, credentials) = {
            let hosted = hosted.lock().unwrap();
            (hosted.fake.config(&vendor.url()), hosted.fake.credentials())
        };
        let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
                   VALUES ('00000000-0000-4000-8000-000000000001', $1, $2, $3, $4, 'manual') RETURNING connector_id::text";
        let row = self
            .client
            .query_one(sql, &[&name, &G::KIND, &config, &credentials]);
        let connector = row.expect("INSERT INTO connectors").get(0);
        (hosted, vendor, connector)
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

    pub fn no_complaints(&self) {
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
        self.records_agree(None);
        let sql = "SELECT coalesce(string_agg(q::text, E'\\n'), '') FROM quarantine q WHERE replayed_at IS NULL";
        let unmapped: String = self.client.query_one(sql, &[]).unwrap().get(0);
        assert_eq!(unmapped, "", "records in quarantine");
    }

    /// Every record is what the vendor says.
    pub fn agrees_on_records(&mut self) {
        self.records_agree(None);
    }

    /// Every record is what the vendor says, but for those of one stream.
    fn records_agree(&mut self, but: Option<&str>) {
        let is_compared = |id: &String| but.is_none_or(|but| id.split('/').next() != Some(but));
        let mut expected = self.hosted().fake.records();
        expected.retain(|id, _| is_compared(id));
        let sql = format!(
            "SELECT source_record_id, coalesce({}, '') FROM raw_connector_data WHERE NOT deleted AND NOT ({})",
            F::VERSION,
            self.beside
        );
        let rows = self.client.query(&sql, &[]).unwrap();
        let mut found: BTreeMap<String, String> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        found.retain(|id, _| is_compared(id));
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

    /// Rounds of trouble: changes between any two requests, deletions, states that change late, and a stream that
    /// cannot be read for a while. After each round the vendor and the database agree.
    fn misses_nothing(&mut self, seed: u64, rounds: usize) {
        // A failing server is asked again and again, at once.
        self.client
            .batch_execute("ALTER SYSTEM SET connector_service.retry_pause = '1ms'")
            .unwrap();
        self.client
            .batch_execute("SELECT pg_reload_conf()")
            .unwrap();
        let mut random = Random(seed);
        self.changes(40, &mut random);
        self.sync();
        self.agrees();
        let mut changed = 0;
        for round in 0..rounds {
            println!("{}: round {round} of story {seed}", F::KIND);
            match (round + seed as usize) % 5 {
                0 => self.deletes(&mut random),
                1 => self.settles(&mut random),
                2 => self.closes(&mut random, Why::Denied),
                3 => self.closes(&mut random, Why::Fails),
                _ => {}
            }
            let percent = 20 + random.below(60);
            self.hosted().busy = Some((Random(seed + round as u64), percent));
            let first = self.sync();
            self.hosted().busy = None;
            for run in [first, self.sync()] {
                changed += run["updated"].as_i64().unwrap() + run["inserted"].as_i64().unwrap();
            }
            self.agrees();
        }
        assert!(
            changed > rounds as i64,
            "the vendor changed too little to show anything: {changed}"
        );
    }

    /// What was deleted is found by the next sync.
    fn deletes(&mut self, random: &mut Random) {
        for _ in 0..=random.below(3) {
            self.hosted().fake.delete(random);
        }
        self.sync();
        self.agrees();
    }

    /// What changed its state long after it was read is found by the next sync.
    fn settles(&mut self, random: &mut Random) {
        for _ in 0..=random.below(3) {
            self.hosted().fake.settle(random);
        }
        self.sync();
        self.agrees();
    }

    /// A stream that cannot be read: the run names it and reads the others. Once it can be read again, nothing is
    /// missing.
    fn closes(&mut self, random: &mut Random, why: Why) {
        let streams: Vec<String> = self.hosted().streams.iter().cloned().collect();
        if streams.is_empty() {
            return;
        }
        let stream = streams[random.below(streams.len())].clone();
        let after = random.below(3);
        self.hosted().closed = Some(Closed {
            stream: stream.clone(),
            after,
            why,
            is_met: false,
        });
        self.changes(6, random);
        self.hosted().fake.delete(random);
        let run = self.sync_anyhow();
        let is_met = self
            .hosted()
            .closed
            .take()
            .is_some_and(|closed| closed.is_met);
        if is_met {
            // One that the others can do without is left out, and a warning says so.
            let told = match run["state"].as_str() {
                Some("succeeded") => &run["warnings"],
                _ => &run["error_message"],
            };
            assert!(
                told.to_string()
                    .contains(&format!("stream \\\"{stream}\\\"")),
                "{why:?}, {stream}: {run}"
            );
        }
        self.records_agree(Some(&stream));
        self.sync();
        self.agrees();
    }

    /// What is gone without a word is found once the stream is read again from its start.
    pub fn finds_by_a_refresh(&mut self, stream: &str, loses: impl Fn(&mut F)) {
        self.changes(80, &mut Random(71));
        self.sync();
        self.agrees();
        loses(&mut self.hosted().fake);
        self.sync();
        let sql = "SELECT connector_service_refresh($1::text::uuid, $2)::text";
        let row = self.client.query_one(sql, &[&self.connector, &stream]);
        let run = wait_for_run(&mut self.client, &row.unwrap().get::<_, String>(0));
        assert_eq!(run["state"], "succeeded", "{run}");
        assert!(run["deleted"].as_i64() >= Some(1), "{run}");
        self.agrees();
    }

    /// So many tokens were given out, and no refresh token that had been replaced was shown.
    pub fn tokens(&self, given: usize) {
        let mut hosted = self.hosted();
        let tokens = hosted.fake.tokens();
        assert_eq!((tokens.given, tokens.reused), (given, 0));
    }

    /// Everything is killed between the receipt of a refresh token and the first use of its access token: the vendor
    /// has replaced the old one, so that only what was stored before lets anybody in again.
    pub fn keeps_a_new_refresh_token_through_a_kill(&mut self, seed: u64) {
        self.hosted().fake.tokens().rotates = true;
        self.changes(30, &mut Random(seed));
        self.cluster.arm("after_keep", 1);
        self.hosted().fake.clock().go_live();
        let run = sync(&mut self.client, &self.connector);
        wait_until(30, "the worker was killed", || {
            let log = self.cluster.log();
            log.contains("was terminated by signal 9").then_some(())
        });
        self.client = self.cluster.wait_ready_in("app");
        let run = wait_for_run(&mut self.client, &run);
        assert_eq!(run["state"], "succeeded", "{run}");
        self.agrees();
        self.tokens(2);
    }

    /// Objects gain a field and lose others: they are stored as they come, and the numbers stand.
    pub fn stores_objects_of_another_shape(
        &mut self,
        seed: u64,
        reshape: fn(&mut serde_json::Map<String, Value>),
        is_reshaped: &str,
    ) {
        let mut random = Random(seed);
        self.changes(40, &mut random);
        self.sync();
        self.hosted().reshape = Some(reshape);
        self.changes(20, &mut random);
        self.sync();
        self.agrees();
        let sql = format!("SELECT count(*) FROM raw_connector_data WHERE {is_reshaped}");
        let found: i64 = self.client.query_one(&sql, &[]).unwrap().get(0);
        assert!(found > 0, "nothing was stored in its new shape");
    }

    /// Fails once the way a fault says, then goes on: the sync succeeds all the same.
    pub fn survives(&mut self, after: usize, fault: Reply) {
        self.hosted().faults.push_back((after, fault));
        self.sync();
        assert!(self.hosted().faults.is_empty(), "the fault was not met");
        self.agrees();
    }

    /// As if the time had passed. The worker that is there remembers the rest and would have the run wait for it once
    /// more, so the run is due only once another server is up.
    pub fn end_rest(&mut self) {
        self.client
            .batch_execute("UPDATE rate_budgets SET rests_until = now()")
            .unwrap();
        self.cluster.stop(Stop::Fast);
        self.cluster.run();
        self.client = self.cluster.wait_ready_in("app");
        self.client
            .batch_execute(
                "UPDATE sync_runs SET retry_at = now() WHERE state = 'queued'; SELECT _connector_service.connector_service_wake()",
            )
            .unwrap();
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
        self.end_rest();
        let run = run["run_id"].as_str().unwrap().to_owned();
        let client = &mut self.client;
        let ended = wait_until(60, "the run goes on", || {
            Some(run_of(client, &run)).filter(|run| run["state"] == "succeeded")
        });
        assert_eq!(ended["waits"], 1, "{ended}");
        self.agrees();
    }
}

/// Most rounds of one story: what is read again within the lookback grows with every round.
const LONGEST_STORY: usize = 12;

/// Stories of rounds. `ROUNDS` says how many rounds there are in all; each story has a server and a seed of its own.
pub fn misses_nothing_that_changes_while_it_reads<F: Fake>(
    stage: impl Fn() -> Stage<F>,
    seed: u64,
    rounds: usize,
) {
    let asked = std::env::var("ROUNDS").ok();
    let mut left: usize = asked.map_or(rounds, |text| text.parse().expect("a number"));
    let mut seed = seed;
    while left > 0 {
        let rounds = left.min(LONGEST_STORY);
        stage().misses_nothing(seed, rounds);
        left -= rounds;
        seed += 1_001;
    }
}

fn answer<F: Fake>(hosted: &mut Hosted<F>, asked: &Asked) -> Reply {
    match hosted.faults.front_mut() {
        Some((0, _)) => return hosted.faults.pop_front().unwrap().1,
        Some((left, _)) => *left -= 1,
        None => {}
    }
    if let Some(stream) = hosted.fake.stream_of(asked) {
        if let Some(closed) = &mut hosted.closed
            && closed.stream == stream
        {
            closed.is_met |= closed.after == 0;
            match (closed.after, closed.why) {
                (0, Why::Denied) => return hosted.fake.denies(),
                (0, Why::Fails) => return Reply::status(500),
                _ => closed.after -= 1,
            }
        }
        hosted.streams.insert(stream);
    }
    let reply = match hosted.fake.answer(asked) {
        Ok(reply) => match hosted.reshape {
            None => reply,
            Some(reshape) => reshaped(reply, reshape),
        },
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
        let fake = &mut hosted.fake;
        let is_changed = match random.below(10) {
            0 => fake.delete(random),
            1 => fake.settle(random),
            _ => false,
        };
        if !is_changed {
            fake.change(random);
        }
    }
    reply
}

fn reshaped(reply: Reply, reshape: fn(&mut serde_json::Map<String, Value>)) -> Reply {
    fn walk(value: &mut Value, reshape: fn(&mut serde_json::Map<String, Value>)) {
        match value {
            Value::Array(values) => values.iter_mut().for_each(|value| walk(value, reshape)),
            Value::Object(object) => {
                object.values_mut().for_each(|value| walk(value, reshape));
                reshape(object);
            }
            _ => {}
        }
    }
    let change = |body: &[u8]| {
        let mut value: Value = serde_json::from_slice(body).expect("JSON");
        walk(&mut value, reshape);
        value.to_string()
    };
    match reply {
        Reply::Json(text) => Reply::Json(change(text.as_bytes())),
        Reply::Full {
            status,
            headers,
            body,
        } => Reply::Full {
            status,
            headers,
            body: change(&body).into_bytes(),
        },
        other => other,
    }
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
