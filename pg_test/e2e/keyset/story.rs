//! A random table's story: it is made, read, edited and read again, and after each read what is kept is what is there.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use connector_service_test::Random;
use serde_json::{Value, json};

use crate::engine::{Driver, Kept};

/// One type of a column: how it is declared, and values as SQL writes them.
#[derive(Clone, Copy)]
pub struct Type {
    pub declared: &'static str,
    pub values: &'static [&'static str],
    /// Whether it may be a part of a primary key.
    pub primary: bool,
}

/// How a cursor's values are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Grows {
    /// A time with a zone, without one, and a day.
    Moment,
    Local,
    Day,
    Whole,
    /// With so many digits behind the point.
    Decimal,
    /// A text that sorts as it grows, and one that is a time.
    Version,
    Stamp,
}

/// What stands in a text that is a time elsewhere, where there is none.
pub const WORDS_FOR_NONE: &[&str] = &[
    "'9999-12-31 00:00:00'",
    "'9999-12-31'",
    "'2999-01-01T00:00:00Z'",
    "'0001-01-01 00:00:00'",
    "'0000-00-00 00:00:00'",
    "'unknown'",
    "'N/A'",
    "'-'",
    "''",
];

#[derive(Clone, Copy)]
pub struct CursorType {
    pub declared: &'static str,
    pub grows: Grows,
    /// Values that are no place to begin at.
    pub sentinels: &'static [&'static str],
}

/// What differs between the servers.
pub trait Server {
    fn source(&self) -> &'static str;
    fn types(&self) -> &'static [Type];
    fn cursors(&self) -> &'static [CursorType];
    fn names(&self) -> &'static [&'static str];
    fn quoted(&self, name: &str) -> String;
    fn run(&mut self, sql: &str);
    /// `n` and `v` of all rows.
    fn rows(&mut self, table: &str) -> BTreeMap<i64, i64>;
    /// The config of a connector that reads one stream.
    fn config(&self, stream: &Value, batch: usize) -> Value;
    /// Whether a statement is refused, as a row that is there already is.
    fn try_run(&mut self, sql: &str) -> bool;
    /// What an insert needs so that a row that is there already is no failure.
    fn wide_row(&self) -> &'static str;
}

pub struct Story<'a, S> {
    pub server: &'a mut S,
    pub driver: &'a mut Driver,
    pub random: Random,
    table: String,
    keys: Vec<(String, Type, bool)>,
    cursor: Option<(String, CursorType)>,
    deletes: bool,
    zone: Option<Tz>,
    /// How far the clock of a column without a zone is from UTC.
    ahead: TimeDelta,
    now: DateTime<Utc>,
    /// The greatest cursor value that was given, as a number.
    high: i64,
    rows: i64,
    /// All that was done, for the message.
    log: Vec<String>,
}

impl<'a, S: Server> Story<'a, S> {
    pub fn new(server: &'a mut S, driver: &'a mut Driver, seed: u64) -> Story<'a, S> {
        let mut random = Random(seed);
        let names = server.names();
        let mut free: Vec<&str> = names.to_vec();
        let mut name = |random: &mut Random| {
            let place = random.below(free.len());
            free.swap_remove(place).to_owned()
        };
        let types = server.types();
        let count = random.pick(&[1, 1, 1, 2, 2, 3]);
        let keys = (0..count).map(|_| {
            let nullable = random.percent(40);
            (name(&mut random), random.pick(types), nullable)
        });
        let keys: Vec<_> = keys.collect();
        let cursors = server.cursors();
        let cursor = random.percent(65);
        let cursor = cursor.then(|| (name(&mut random), random.pick(cursors)));
        let zone = random.pick(&[
            None,
            Some(Tz::Europe__Berlin),
            Some(Tz::Pacific__Kiritimati),
        ]);
        let zone = zone.filter(|_| server.source() == "mysql");
        let now: DateTime<Utc> = "2026-06-15T12:00:00Z".parse().unwrap();
        let ahead = match zone {
            Some(Tz::Europe__Berlin) => 2,
            Some(_) => 14,
            None => random.pick(&[-11, 0, 5, 13]),
        };
        Story {
            table: "t".to_owned(),
            deletes: random.percent(50),
            random,
            keys,
            cursor,
            zone,
            ahead: TimeDelta::hours(ahead),
            now,
            high: 100_000,
            rows: 0,
            log: Vec::new(),
            server,
            driver,
        }
    }

    fn run(&mut self, sql: &str) {
        self.log.push(sql.to_owned());
        self.server.run(sql);
    }

    /// A cursor value, as SQL writes it: mostly later than all before, or as late as a lookback allows.
    fn cursor_value(&mut self, cursor: CursorType, is_first: bool) -> String {
        let random = &mut self.random;
        if random.percent(12) {
            return "NULL".to_owned();
        }
        if random.percent(15) && !cursor.sentinels.is_empty() {
            return random.pick(cursor.sentinels).to_owned();
        }
        // A few that are the same.
        let step = random.pick(&[0, 0, 1, 7]);
        let back = match (is_first, cursor.grows) {
            (true, _) => random.below(3_000) as i64 / 40 * 40,
            // Only numbers and times have a lookback.
            (false, Grows::Version) => 0,
            (false, _) => random.pick(&[0, 0, 0, 500]),
        };
        let local = self.now + self.ahead;
        let at = |time: DateTime<Utc>| time - TimeDelta::seconds(back + 5);
        match cursor.grows {
            Grows::Moment => format!("'{}'", at(self.now).format("%Y-%m-%d %H:%M:%S%.6f")),
            Grows::Local | Grows::Stamp => {
                format!("'{}'", at(local).format("%Y-%m-%d %H:%M:%S"))
            }
            Grows::Day => format!("'{}'", at(local).format("%Y-%m-%d")),
            Grows::Whole => {
                self.high += step;
                (self.high - back).to_string()
            }
            Grows::Decimal => {
                self.high += step;
                let digits = random.pick(&["000001", "5", "250000"]);
                format!("{}.{digits}", self.high - back)
            }
            Grows::Version => {
                self.high += step;
                format!("'v{:012}'", self.high - if is_first { back } else { 0 })
            }
        }
    }

    fn make(&mut self) -> Value {
        let quoted = |name: &str, server: &S| server.quoted(name);
        let mut columns: Vec<String> = Vec::new();
        for (name, kind, nullable) in &self.keys {
            let null = if *nullable { "NULL" } else { "NOT NULL" };
            columns.push(format!(
                "{} {} {null}",
                quoted(name, self.server),
                kind.declared
            ));
        }
        if let Some((name, cursor)) = &self.cursor {
            columns.push(format!(
                "{} {} NULL",
                quoted(name, self.server),
                cursor.declared
            ));
        }
        columns.push("n int, v int".to_owned());
        columns.push(self.server.wide_row().to_owned());
        let names: Vec<String> = self
            .keys
            .iter()
            .map(|(name, ..)| self.server.quoted(name))
            .collect();
        let can_be_primary = self
            .keys
            .iter()
            .all(|(_, kind, nullable)| kind.primary && !nullable);
        if can_be_primary && self.random.percent(60) {
            columns.push(format!("PRIMARY KEY ({})", names.join(", ")));
        }
        let table = self.table.clone();
        self.run(&format!("DROP TABLE IF EXISTS {table}"));
        self.run(&format!("CREATE TABLE {table} ({})", columns.join(", ")));
        if let Some((name, _)) = self.cursor.clone().filter(|_| self.random.percent(50)) {
            let name = self.server.quoted(&name);
            let _ = self
                .server
                .try_run(&format!("CREATE INDEX i ON {table} ({name})"));
        }
        let rows = self.random.pick(&[0, 1, 4, 9, 14, 20]);
        for _ in 0..rows {
            self.insert(true);
        }
        let key: Vec<&str> = self.keys.iter().map(|(name, ..)| name.as_str()).collect();
        let mut stream = json!({"name": "t", "key": key});
        if let Some((name, _)) = &self.cursor {
            stream["cursor"] = json!(name);
            stream["deletes"] = json!(self.deletes);
        }
        if self.random.percent(15) {
            stream["columns"] = json!(["n", "v"]);
        }
        match self.random.below(8) {
            0 => stream["query"] = json!("SELECT * FROM t; -- done"),
            1 => {
                stream["query"] =
                    json!("WITH w AS (SELECT * FROM t) SELECT * FROM w /* all; of it */ ;")
            }
            2 => {
                stream["query"] = json!(
                    "SELECT * FROM t WHERE n % 2 = 0 UNION ALL SELECT * FROM t WHERE n % 2 = 1"
                )
            }
            _ => stream["table"] = json!("t"),
        }
        self.log.push(format!("stream {stream}"));
        stream
    }

    fn insert(&mut self, is_first: bool) {
        self.rows += 1;
        let mut names: Vec<String> = vec!["n".into(), "v".into()];
        let mut values = vec![self.rows.to_string(), "1".to_owned()];
        for (name, kind, nullable) in self.keys.clone() {
            names.push(self.server.quoted(&name));
            let is_null = nullable && self.random.percent(30);
            let value = if is_null {
                "NULL"
            } else {
                self.random.pick(kind.values)
            };
            values.push(value.to_owned());
        }
        if let Some((name, cursor)) = self.cursor.clone() {
            names.push(self.server.quoted(&name));
            values.push(self.cursor_value(cursor, is_first));
        }
        let sql = format!(
            "INSERT INTO {} ({}) VALUES ({})",
            self.table,
            names.join(", "),
            values.join(", ")
        );
        // With a primary key, one that is there already.
        if self.server.try_run(&sql) {
            self.log.push(sql);
        }
    }

    fn edit(&mut self) {
        let live: Vec<i64> = self.server.rows(&self.table.clone()).into_keys().collect();
        for _ in 0..self.random.below(5) {
            let what = self.random.below(10);
            if what < 3 || live.is_empty() {
                self.insert(false);
                continue;
            }
            let n = self.random.pick(&live);
            if what < 5 && (self.cursor.is_none() || self.deletes) {
                self.run(&format!("DELETE FROM {} WHERE n = {n}", self.table));
                continue;
            }
            let sets = match self.cursor.clone() {
                Some((name, cursor)) => {
                    let value = self.cursor_value(cursor, false);
                    format!("v = v + 1, {} = {value}", self.server.quoted(&name))
                }
                None => "v = v + 1".to_owned(),
            };
            self.run(&format!("UPDATE {} SET {sets} WHERE n = {n}", self.table));
        }
    }

    /// What a read of everything at once brings; rows whose keys are one to the product are one row from then on.
    fn reference(&mut self, stream: &Value) -> Result<BTreeMap<String, String>, String> {
        let mut whole = stream.clone();
        let fields = whole.as_object_mut().unwrap();
        let cursor = fields.remove("cursor");
        fields.remove("deletes");
        if let Some(columns) = fields.get_mut("columns").and_then(Value::as_array_mut) {
            // In the order of the stream's own.
            columns.extend(self.keys.iter().map(|(name, ..)| json!(name)));
            columns.extend(cursor);
        }
        let config = self.zoned(&whole, 50_000);
        for _ in 0..2 {
            let mut kept = Kept::default();
            let source = self.server.source();
            let brought = self
                .driver
                .sync(source, &config, &mut kept, self.now)
                .map_err(|failure| format!("reference: {failure}"))?;
            let there = self.server.rows(&self.table.clone());
            let mut seen: BTreeSet<i64> = BTreeSet::new();
            let mut first: BTreeMap<String, i64> = BTreeMap::new();
            let mut again: Vec<i64> = Vec::new();
            for (id, text) in &brought.records {
                let (n, v) = numbers(text);
                if there.get(&n) != Some(&v) || !seen.insert(n) {
                    return Err(format!("row {n} is {v}, and not {:?}", there.get(&n)));
                }
                let names = [Some(id.clone()), self.key_of(text)];
                for name in names.into_iter().flatten() {
                    let other = first.entry(name).or_insert(n);
                    if *other != n {
                        again.push(n.max(*other));
                        *other = n.min(*other);
                    }
                }
            }
            if seen.len() != there.len() {
                return Err(format!(
                    "one batch brought {} of {} rows",
                    seen.len(),
                    there.len()
                ));
            }
            if again.is_empty() {
                return Ok(kept.records);
            }
            let again: Vec<String> = again.iter().map(i64::to_string).collect();
            self.run(&format!(
                "DELETE FROM {} WHERE n IN ({})",
                self.table,
                again.join(", ")
            ));
        }
        Err("keys that are the same come back".to_owned())
    }

    /// The values of the key, where there are any: two rows with the same are one record.
    fn key_of(&self, text: &str) -> Option<String> {
        let record: Value = serde_json::from_str(text).unwrap();
        let values = self.keys.iter().map(|(name, ..)| &record[name]);
        let values: Vec<&Value> = values.collect();
        let has_any = values.iter().any(|value| !value.is_null());
        has_any.then(|| format!("{values:?}"))
    }

    fn zoned(&self, stream: &Value, batch: usize) -> Value {
        let mut config = self.server.config(stream, batch);
        if let Some(zone) = self.zone {
            config["time_zone"] = json!(zone.name());
        }
        config
    }

    /// Returns how many rows were compared.
    pub fn tell(mut self) -> Result<usize, String> {
        let told = self.tell_all();
        told.map_err(|what| format!("{what}\n{}", self.log.join(";\n")))
    }

    fn tell_all(&mut self) -> Result<usize, String> {
        let stream = self.make();
        let batch = self.random.pick(&[1, 1, 2, 2, 3, 4, 5]);
        let config = self.zoned(&stream, batch);
        self.log
            .push(format!("batch {batch}, zone {:?}", self.zone));
        let mut kept = Kept::default();
        let is_whole = self.cursor.is_none() || self.deletes;
        let mut compared = 0;
        for round in 0..4 {
            if round > 0 {
                self.edit();
            }
            let reference = self.reference(&stream)?;
            self.log.push(format!("-- read {round}"));
            let source = self.server.source();
            let brought = self
                .driver
                .sync(source, &config, &mut kept, self.now)
                .map_err(|failure| format!("read {round}: {failure}"))?;
            if brought.rejected > 0 {
                return Err(format!("{} rows rejected", brought.rejected));
            }
            for (id, text) in &reference {
                let found = kept.records.get(id).map(|text| numbers(text));
                if found != Some(numbers(text)) {
                    return Err(format!(
                        "read {round}: {id} is {found:?}, and there it is {text}"
                    ));
                }
            }
            for (id, text) in &kept.records {
                if !reference.contains_key(id) && (is_whole || !self.is_told_by_content(text)) {
                    return Err(format!("read {round}: {id} is gone, and kept: {text}"));
                }
            }
            self.check_cursor(&kept, &reference)?;
            compared += reference.len();
            let minutes = self.random.pick(&[1, 30, 600]);
            self.now += TimeDelta::minutes(minutes);
        }
        Ok(compared)
    }

    /// The cursor is a time that a row has, whatever others have.
    fn check_cursor(&self, kept: &Kept, there: &BTreeMap<String, String>) -> Result<(), String> {
        let Some((name, _)) = &self.cursor else {
            return Ok(());
        };
        let is_time = |text: &String| {
            let record: Value = serde_json::from_str(text).unwrap();
            let time = record[name].as_str();
            time.is_some_and(|time| time.starts_with("2026-0") && !time.starts_with("2026-01"))
        };
        let at = kept.states.get("t").and_then(|state| state.at.as_ref());
        let is_there = at.is_some_and(|at| at.as_str().is_some_and(|at| at.starts_with("2026-0")));
        match there.values().any(is_time) && !is_there {
            true => Err(format!("the cursor is {at:?}")),
            false => Ok(()),
        }
    }

    /// Whether an edit of a record without a key makes another record.
    fn is_told_by_content(&self, text: &str) -> bool {
        let record: Value = serde_json::from_str(text).unwrap();
        self.keys.iter().all(|(name, ..)| record[name].is_null())
    }
}

fn numbers(text: &str) -> (i64, i64) {
    let record: Value = serde_json::from_str(text).unwrap();
    (record["n"].as_i64().unwrap(), record["v"].as_i64().unwrap())
}

/// Tells so many stories, and panics with the first that goes wrong. Returns how many rows were compared.
pub fn tell<S: Server>(server: &mut S, seed: u64, tables: u64) -> usize {
    let mut driver = Driver::new();
    let mut compared = 0;
    let mut wrong = Vec::new();
    let first = crate::given("KEYSET_FIRST", 0);
    for table in first..first + tables {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(table);
        let story = Story::new(server, &mut driver, seed);
        match story.tell() {
            Ok(rows) => compared += rows,
            Err(what) => wrong.push(format!("table {table}: {what}")),
        }
    }
    let first: Vec<&str> = wrong.iter().take(5).map(String::as_str).collect();
    assert!(
        wrong.is_empty(),
        "{} of {tables} tables differ:\n{}",
        wrong.len(),
        first.join("\n\n")
    );
    compared
}
