//! Tests a fortnight in a few minutes. The server's wall clock is moved on by a quarter of an hour at a time, through
//! daylight saving changes in both directions, days without a server, a pause, a vendor that is down, and a clock that
//! is set back. Another library than the server's computes from time zones alone which runs there should be.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc, Weekday};
use chrono_tz::Tz;
use connector_service_test::*;
use postgres::Client;

type Moment = DateTime<Utc>;

/// One that never changes, one to spring forward, two to fall back (one of them by half an hour), one that changed
/// before, one that is at odds with full hours; one that skips a midnight, and one that has the hour before it twice.
const ZONES: [Tz; 8] = [
    Tz::UTC,
    Tz::Europe__Berlin,
    Tz::Australia__Sydney,
    Tz::Australia__Lord_Howe,
    Tz::America__New_York,
    Tz::Asia__Kathmandu,
    Tz::Asia__Beirut,
    Tz::America__Santiago,
];

/// Name, frequency and scheduler of what every tenant has.
const CONNECTORS: [(&str, &str, &str); 6] = [
    ("hourly", "hourly", "database"),
    ("daily", "daily", "database"),
    ("weekly", "weekly", "database"),
    ("manual", "manual", "database"),
    ("paused", "daily", "database"),
    ("outside", "hourly", "external"),
];
/// Of one tenant only: its retries are held against bounds, and not against a list.
const FAILING: (&str, &str, &str) = ("failing", "hourly", "database");
const FAILING_ZONE: Tz = Tz::Asia__Kathmandu;

fn at(text: &str) -> Moment {
    format!("{text}:00Z").parse().unwrap()
}

fn step() -> TimeDelta {
    TimeDelta::minutes(15)
}

fn begin() -> Moment {
    at("2026-03-25T00:00")
}

fn end() -> Moment {
    at("2026-04-08T00:00")
}

/// The moments after which the server is down for 26 hours. One loses a day, the other one most of a Monday.
fn outages() -> [(Moment, Stop); 2] {
    [
        (at("2026-03-26T06:30"), Stop::Fast),
        (at("2026-03-30T03:15"), Stop::Immediate),
    ]
}

fn pause() -> [Moment; 2] {
    [at("2026-03-27T12:00"), at("2026-03-30T03:00")]
}

fn by_hand() -> Moment {
    at("2026-04-01T09:45")
}

fn fails() -> [Moment; 2] {
    [at("2026-04-05T08:00"), at("2026-04-05T17:00")]
}

/// The clock goes back by an hour: once while nothing goes, once with runs that are going.
fn set_back() -> [Moment; 2] {
    [at("2026-04-02T18:00"), at("2026-04-03T21:00")]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Worker,
    PgCron,
}

impl Asks {
    /// The hour at which a day's and a week's syncs begin.
    fn first_hour(self) -> u32 {
        match self {
            Asks::Worker => 0,
            Asks::PgCron => 2,
        }
    }
}

mod model {
    use super::*;

    /// Every offset and every change of clocks is one of quarters of an hour.
    fn quarters() -> impl Iterator<Item = Moment> {
        std::iter::successors(Some(begin()), |at| Some(*at + step())).take_while(|at| *at < end())
    }

    /// A clock strikes when it comes to a full hour, also where it is set back in that very moment.
    fn hours(zone: Tz) -> Vec<Moment> {
        let second = TimeDelta::seconds(1);
        let comes_to = |at: Moment| (at - second).with_timezone(&zone).naive_local() + second;
        quarters()
            .filter(|at| at.with_timezone(&zone).minute() == 0 || comes_to(*at).minute() == 0)
            .collect()
    }

    /// The first moment of each day whose clock shows this hour or a later one.
    fn days(zone: Tz, first_hour: u32) -> Vec<Moment> {
        let mut days: Vec<Moment> = Vec::new();
        for at in quarters() {
            let local = at.with_timezone(&zone);
            let before = days.last().map(|day| day.with_timezone(&zone).date_naive());
            if local.hour() >= first_hour && before.is_none_or(|day| day < local.date_naive()) {
                days.push(at);
            }
        }
        days
    }

    pub fn slots(zone: Tz, frequency: &str, asks: Asks) -> Vec<Moment> {
        match frequency {
            "hourly" => hours(zone),
            _ => days(zone, asks.first_hour())
                .into_iter()
                .filter(|at| {
                    frequency == "daily" || at.with_timezone(&zone).weekday() == Weekday::Mon
                })
                .collect(),
        }
    }

    /// Each slot belongs to the first look at or after it, and a look makes one run of all the slots that are its.
    pub fn runs(
        zone: Tz,
        name: &str,
        frequency: &str,
        asks: Asks,
        looks: &[Moment],
    ) -> Vec<Moment> {
        match name {
            "manual" => return vec![by_hand()],
            "outside" => {
                return looks
                    .iter()
                    .copied()
                    .filter(is_asked_from_outside)
                    .collect();
            }
            _ => {}
        }
        let [paused, resumed] = pause();
        let is_paused = |at: &Moment| name == "paused" && (paused..resumed).contains(at);
        // What is new or resumed is due at once, whoever keeps the schedule.
        let mut at_once = vec![begin()];
        if name == "paused" {
            at_once.push(resumed);
        }
        let mut at_once = at_once.into_iter().peekable();
        let mut slots = slots(zone, frequency, asks).into_iter().peekable();
        let is_open = |at: &Moment| {
            frequency == "hourly" || at.with_timezone(&zone).hour() >= asks.first_hour()
        };
        // The next day or week is another one.
        let period = |at: Moment| {
            let day = at.with_timezone(&zone).date_naive();
            let is_weekly = frequency == "weekly";
            (day.iso_week(), (!is_weekly).then_some(day))
        };
        let mut runs = Vec::new();
        for at in looks.iter().copied().filter(|at| !is_paused(at)) {
            let is_first = at_once.next_if(|slot| *slot <= at).is_some();
            if is_first && !is_open(&at) {
                while slots
                    .next_if(|slot| *slot <= at || period(*slot) == period(at))
                    .is_some()
                {}
            }
            let is_due = is_open(&at)
                && std::iter::from_fn(|| slots.next_if(|slot| *slot <= at)).count() > 0;
            if is_first || is_due {
                runs.push(at);
            }
        }
        runs
    }
}

/// When the test asks for the connectors that an outside scheduler has.
fn is_asked_from_outside(at: &Moment) -> bool {
    (at.hour(), at.minute()) == (6, 0)
}

#[test]
fn the_model_handles_hours_that_are_skipped_or_repeated() {
    let between = |zone, frequency, asks, from: &str, to: &str| -> Vec<String> {
        let slots = model::slots(zone, frequency, asks).into_iter();
        slots
            .filter(|slot| (at(from)..at(to)).contains(slot))
            .map(|slot| slot.format("%dT%H:%M").to_string())
            .collect()
    };
    let (from, to) = ("2026-03-28T20:00", "2026-03-30T02:00");
    // There is no 02:00 in Berlin, and no midnight in Beirut.
    assert_eq!(
        between(Tz::Europe__Berlin, "daily", Asks::PgCron, from, to),
        ["29T01:00", "30T00:00"]
    );
    assert_eq!(
        between(Tz::Europe__Berlin, "weekly", Asks::Worker, from, to),
        ["29T22:00"]
    );
    assert_eq!(
        between(Tz::Asia__Beirut, "daily", Asks::Worker, from, to),
        ["28T22:00", "29T21:00"]
    );
    let (from, to) = ("2026-04-04T13:30", "2026-04-05T17:00");
    // 02:00 comes twice in Sydney, and once in Lord Howe, half an hour later than it should have.
    assert_eq!(
        between(Tz::Australia__Sydney, "daily", Asks::PgCron, from, to),
        ["04T15:00", "05T16:00"]
    );
    assert_eq!(
        between(Tz::Australia__Lord_Howe, "daily", Asks::PgCron, from, to),
        ["04T15:30", "05T15:30"]
    );
    let (from, to) = ("2026-04-04T13:30", "2026-04-04T17:00");
    assert_eq!(
        between(Tz::Australia__Lord_Howe, "hourly", Asks::Worker, from, to),
        ["04T14:00", "04T15:00", "04T15:30", "04T16:30"]
    );
    assert_eq!(
        between(Tz::Australia__Sydney, "hourly", Asks::Worker, from, to),
        ["04T14:00", "04T15:00", "04T16:00"]
    );
}

struct Database {
    name: &'static str,
    asks: Asks,
    client: Client,
    /// Schedules and commands of pg_cron.
    jobs: Vec<(String, String)>,
}

impl Database {
    fn number(&mut self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).unwrap().get(0)
    }

    /// Whoever keeps the schedule here does so.
    fn ask(&mut self, now: Moment) {
        for (schedule, command) in &self.jobs {
            if fires(schedule, now) {
                self.client.batch_execute(command).unwrap();
            }
        }
        if is_asked_from_outside(&now) {
            let sql = "SELECT connector_service_sync(connector_id) FROM connectors WHERE scheduler = 'external' AND next_sync_at <= now()";
            self.client.batch_execute(sql).unwrap();
        }
    }

    /// What the worker has to queue by itself. Where pg_cron asks, that is what failed, and what is new or resumed.
    fn due(&mut self) -> i64 {
        let mine = match self.asks {
            Asks::Worker => "true",
            Asks::PgCron => "(failures > 0 OR due_at_once)",
        };
        self.number(&format!(
            "SELECT count(*) FROM connectors WHERE status <> 'paused' AND scheduler = 'database' AND next_sync_at <= now() AND {mine}"
        ))
    }

    /// Tells the worker what time it is, and waits until that makes `done` true.
    fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Database) -> bool) {
        if done(self) {
            return;
        }
        self.client
            .batch_execute("SELECT _connector_service.connector_service_wake()")
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done(self) {
            assert!(
                Instant::now() < deadline,
                "not within 60 s in {}: {what}",
                self.name
            );
            // Shorter than `wait_until`'s pause: this is done thousands of times.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn settle(&mut self) {
        let going = "SELECT count(*) FROM sync_runs WHERE state IN ('queued', 'running')";
        self.wait("nothing is due, and every run has ended", |database| {
            database.due() == 0 && database.number(going) == 0
        });
    }

    /// Waits until what there is to be done now is in the vendor's hands.
    fn hand_out(&mut self) {
        let (queued, running) = (
            "SELECT count(*) FROM sync_runs WHERE state = 'queued'",
            "SELECT count(*) FROM sync_runs WHERE state = 'running'",
        );
        self.wait("every run is going", |database| {
            database.due() == 0 && database.number(queued) == 0 && database.number(running) > 0
        });
    }
}

/// Whether a job of pg_cron begins in this minute. Of its schedules: `*`, numbers and `*/n`, for minutes and hours.
fn fires(schedule: &str, now: Moment) -> bool {
    let fields: Vec<&str> = schedule.split(' ').collect();
    assert_eq!(fields[2..], ["*", "*", "*"], "{schedule}");
    let matches = |field: &str, value: u32| match field.strip_prefix("*/") {
        Some(every) => value.is_multiple_of(every.parse().unwrap()),
        None => field == "*" || field.parse::<u32>().unwrap() == value,
    };
    matches(fields[0], now.minute()) && matches(fields[1], now.hour())
}

fn set_up(cluster: &Cluster, vendor: &Vendor, name: &'static str, asks: Asks) -> Database {
    let mut client = cluster.database(name);
    let mut jobs = Vec::new();
    if asks == Asks::PgCron {
        client.batch_execute("CREATE EXTENSION pg_cron").unwrap();
        // pg_cron itself does not follow a clock that jumps, so its jobs are not installed but played. Jobs of a day that never
        // comes tell the worker who keeps the schedule.
        client
            .batch_execute(
                "SELECT cron.schedule(f, '0 0 31 2 *', format('SELECT count(*) FROM connector_service_sync_due(%L)', f))
                 FROM unnest('{hourly,daily,weekly}'::text[]) AS f",
            )
            .unwrap();
        let sql = "SELECT schedule, command FROM _connector_service.connector_service_jobs()";
        let rows = client.query(sql, &[]).unwrap();
        jobs = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert!(!jobs.is_empty());
    }
    for (tenant, zone) in ZONES.iter().enumerate() {
        let id = format!("00000000-0000-4000-8000-{tenant:012}");
        let sql = "INSERT INTO tenants (tenant_id, timezone) VALUES ($1::text::uuid, $2)";
        client.execute(sql, &[&id, &zone.name()]).unwrap();
        let failing = (*zone == FAILING_ZONE).then_some(FAILING);
        for (name, frequency, scheduler) in CONNECTORS.into_iter().chain(failing) {
            let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency, scheduler)
                VALUES ($1::text::uuid, $2, 'api', $3, '{\"api_key\": \"sk_test_not_a_real_key\"}', $4, $5)";
            let config = api(&vendor.url(), name);
            client
                .execute(sql, &[&id, &name, &config, &frequency, &scheduler])
                .unwrap();
        }
    }
    Database {
        name,
        asks,
        client,
        jobs,
    }
}

#[test]
fn through_a_fortnight_of_failures_each_connector_runs_at_its_slots() {
    let began = Instant::now();
    let held = Arc::new(AtomicBool::new(false));
    let failing = Arc::new(AtomicBool::new(false));
    let (is_held, is_failing) = (held.clone(), failing.clone());
    let vendor = Vendor::start(move |asked| {
        while is_held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if asked.path == "/failing" && is_failing.load(Ordering::SeqCst) {
            return Reply::status(503);
        }
        Reply::Json(r#"{"data": [{"id": 1}, {"id": 2}], "next": null}"#.into())
    });
    let cluster = Cluster::create();
    // The machine does not fail here, only the server: what it wrote is there without fsync.
    cluster.configure(
        "shared_preload_libraries = 'connector_service, pg_cron'\ncron.database_name = 'cron'\nfsync = off\nconnector_service.request_retries = 0",
    );
    let clock = MovedClock::new(&cluster.dir);
    // Shortly after each quarter: what is due at it is due then.
    let shortly = TimeDelta::seconds(1);
    clock.set(begin() + shortly);
    clock.start(&cluster);
    let mut databases = [
        set_up(&cluster, &vendor, "worker", Asks::Worker),
        set_up(&cluster, &vendor, "cron", Asks::PgCron),
    ];

    let mut looks = Vec::new();
    let mut now = begin();
    let mut is_down = false;
    while now < end() {
        // At first it is set already, and going back would be something else.
        if now > begin() {
            clock.set(now + shortly);
        }
        if is_down {
            clock.start(&cluster);
            for database in &mut databases {
                database.client = cluster.wait_ready_in(database.name);
            }
            is_down = false;
        }
        // Where the clock goes back an hour comes twice, and goes back once.
        let goes_back = set_back().contains(&now) && !looks.contains(&now);
        let goes_back_with_runs = goes_back && now == set_back()[1];
        held.store(goes_back_with_runs, Ordering::SeqCst);
        looks.push(now);
        if let Some(which) = fails().iter().position(|at| *at == now) {
            failing.store(which == 0, Ordering::SeqCst);
        }
        for database in &mut databases {
            for (at, status) in pause().iter().zip(["paused", "active"]) {
                if now == *at {
                    let sql = "UPDATE connectors SET status = $1 WHERE name = 'paused'";
                    database.client.execute(sql, &[&status]).unwrap();
                }
            }
            if now == by_hand() {
                let sql = "SELECT connector_service_sync(connector_id) FROM connectors WHERE name = 'manual'";
                database.client.batch_execute(sql).unwrap();
            }
            database.ask(now);
        }
        for database in &mut databases {
            match goes_back_with_runs {
                true => database.hand_out(),
                false => database.settle(),
            }
        }
        if let Some((_, how)) = outages().into_iter().find(|(at, _)| *at == now) {
            cluster.stop(how);
            is_down = true;
            now += TimeDelta::hours(26);
        } else if goes_back {
            now -= TimeDelta::hours(1);
        } else {
            now += step();
        }
    }
    println!("{} looks in {:.1?}", looks.len(), began.elapsed());

    let mut compared = 0;
    let mut wrong = BTreeMap::new();
    for database in &mut databases {
        let asks = database.asks;
        let mut found = found(database);
        let its = found.remove(&(FAILING_ZONE.name().to_owned(), FAILING.0.to_owned()));
        healed(&its.unwrap(), asks, &looks);
        for zone in ZONES {
            for (name, frequency, _) in CONNECTORS {
                let key = (zone.name().to_owned(), name.to_owned());
                let runs = found.remove(&key).unwrap_or_default();
                assert!(runs.iter().all(|run| run.state == "succeeded"), "{key:?}");
                let runs: Vec<Moment> = runs.iter().map(|run| run.slot).collect();
                let expected = model::runs(zone, name, frequency, asks, &looks);
                compared += runs.len();
                if runs != expected {
                    let what = format!(
                        "missing: {:?}; too many: {:?}",
                        without(&expected, &runs),
                        without(&runs, &expected)
                    );
                    wrong.insert((database.name, key), what);
                }
            }
        }
        assert!(found.is_empty());
        ledger_holds(&mut database.client);
    }
    println!("{compared} runs compared in {:.1?}", began.elapsed());
    assert_eq!(wrong, BTreeMap::new());
}

#[derive(Debug)]
struct Run {
    /// When it was asked for, to the quarter of an hour.
    slot: Moment,
    state: String,
    /// In seconds.
    requested: f64,
    finished: f64,
}

/// Every run of a database by its connector's zone and name, in their order.
fn found(database: &mut Database) -> BTreeMap<(String, String), Vec<Run>> {
    let sql = "SELECT t.timezone, c.name, r.state, extract(epoch FROM r.requested_at)::float8, extract(epoch FROM r.finished_at)::float8
        FROM sync_runs r JOIN connectors c USING (connector_id, tenant_id) JOIN tenants t USING (tenant_id) ORDER BY r.requested_at";
    let mut found: BTreeMap<_, Vec<Run>> = BTreeMap::new();
    for row in database.client.query(sql, &[]).unwrap() {
        let requested: f64 = row.get(3);
        let seconds = requested as i64 - requested as i64 % step().num_seconds();
        let run = Run {
            slot: DateTime::from_timestamp(seconds, 0).unwrap(),
            state: row.get(2),
            requested,
            finished: row.get(4),
        };
        found.entry((row.get(0), row.get(1))).or_default().push(run);
    }
    found
}

/// A connector whose vendor was down was tried again as often as it should, and is back in its slots.
fn healed(runs: &[Run], asks: Asks, looks: &[Moment]) {
    let (name, frequency, _) = FAILING;
    let expected = model::runs(FAILING_ZONE, name, frequency, asks, looks);
    let first = runs.iter().position(|run| run.state == "failed").unwrap();
    let last = runs.iter().rposition(|run| run.state == "failed").unwrap();
    let tries = &runs[first..=last + 1];
    println!(
        "{asks:?}: failed and tried again at {:?}",
        tries
            .iter()
            .map(|run| run.slot.format("%H:%M").to_string())
            .collect::<Vec<_>>()
    );
    assert!(
        tries[..tries.len() - 1]
            .iter()
            .all(|run| run.state == "failed")
    );
    for (failures, pair) in tries.windows(2).enumerate() {
        let gap = pair[1].requested - pair[0].finished;
        let backoff = (30 << failures.min(16)).min(3600) as f64;
        // A look comes up to a quarter of an hour after it is due; half a minute is for a slow machine.
        let latest = backoff * 1.2 + step().num_seconds() as f64 + 30.0;
        assert!(
            gap >= backoff * 0.8 && gap <= latest,
            "after {failures} failures more it was {gap} s: {tries:?}"
        );
    }
    let slots = |runs: &[Run]| runs.iter().map(|run| run.slot).collect::<Vec<_>>();
    let [fails_at, _] = fails();
    let healed_at = runs[last + 1].slot;
    let before: Vec<Moment> = expected
        .iter()
        .copied()
        .filter(|at| *at < fails_at)
        .collect();
    let after: Vec<Moment> = expected
        .iter()
        .copied()
        .filter(|at| *at > healed_at)
        .collect();
    assert_eq!(slots(&runs[..first]), before);
    assert_eq!(slots(&runs[last + 2..]), after);
    // The first failure is a slot's.
    assert!(expected.contains(&runs[first].slot));
}

/// Of one list what is not in the other, as often as it is not.
fn without(all: &[Moment], other: &[Moment]) -> Vec<Moment> {
    let mut other = other.to_vec();
    let mut rest = all.to_vec();
    rest.retain(|at| match other.iter().position(|known| known == at) {
        Some(known) => {
            other.swap_remove(known);
            false
        }
        None => true,
    });
    rest
}
