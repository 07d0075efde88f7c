//! Salesforce: four logins, described objects, SOQL over everything that changed, locators, and a budget of calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use connector_service_test::*;
use serde_json::{Value, json};

use crate::stage::*;

#[derive(Clone, Copy, PartialEq)]
enum Way {
    ClientCredentials,
    Jwt,
    Refresh,
    Soap,
}

struct Opportunity {
    id: String,
    modified: DateTime<Utc>,
    deleted: bool,
    body: Value,
    cents: i64,
    date: String,
}

pub struct Salesforce {
    clock: Clock,
    rows: Vec<Opportunity>,
    locators: HashMap<String, Vec<Value>>,
    number: usize,
    page: usize,
    way: Way,
    tokens: Tokens,
    used: u64,
    /// Rows that the vendor counts, and does not give.
    hidden: usize,
    fields: Vec<&'static str>,
    /// What was selected last.
    selected: Vec<String>,
    /// Whether there are more fields than one address can name.
    wide: bool,
}

const FIELDS: [&str; 9] = [
    "Id",
    "Name",
    "Amount",
    "CloseDate",
    "StageName",
    "IsWon",
    "Type",
    "SystemModstamp",
    "IsDeleted",
];

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
        .replace('Z', "+0000")
}

impl Opportunity {
    /// The row, as far as it was selected.
    fn selected(&self, fields: &[String]) -> Value {
        let mut body = json!({"attributes": {"type": "Opportunity", "url": format!("/services/data/v64.0/sobjects/Opportunity/{}", self.id)}});
        for field in fields {
            body[field] = match field.as_str() {
                "IsDeleted" => self.deleted.into(),
                "SystemModstamp" => text(self.modified).into(),
                wide if wide.starts_with("Wide_") => format!("{wide} of {}", self.id).into(),
                other => self.body[other].clone(),
            };
        }
        body
    }
}

/// Fields of an object that has more than one address can name.
fn wide_fields() -> impl Iterator<Item = String> {
    (0..700).map(|i| format!("Wide_Field_That_Has_A_Long_Name_{i:03}__c"))
}

impl Salesforce {
    fn new(way: Way) -> Salesforce {
        Salesforce {
            clock: Clock::start(),
            rows: Vec::new(),
            locators: HashMap::new(),
            number: 0,
            page: 6,
            way,
            tokens: Tokens::default(),
            used: 100,
            hidden: 0,
            fields: FIELDS.to_vec(),
            selected: Vec::new(),
            wide: false,
        }
    }

    fn form(asked: &Asked) -> HashMap<String, String> {
        let pairs = asked
            .body
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs
            .map(|(name, value)| (decode(name), decode(value)))
            .collect()
    }

    fn login(&mut self, asked: &Asked) -> Result<Reply, Complaint> {
        need(asked.method == "POST", "a login is a POST")?;
        let host = format!("http://{}", asked.headers["host"]);
        if self.way != Way::Refresh {
            self.tokens.given += 1;
        }
        let token = self.tokens.access();
        if self.way == Way::Soap {
            need(
                asked.path == "/services/Soap/u/64.0",
                "not the last version with a login",
            )?;
            need_header(asked, "soapaction", "login")?;
            need(
                asked.headers["content-type"].starts_with("text/xml"),
                "not text/xml",
            )?;
            need(
                asked.body.contains("urn:partner.soap.sforce.com"),
                "not the partner namespace",
            )?;
            let escaped = "<n1:username>shop&amp;co@example.com</n1:username><n1:password>not_a_real_&lt;password&gt;not_a_real_token</n1:password>";
            need(
                asked.body.contains(escaped),
                "user name and password are others, or not escaped",
            )?;
            let body = format!(
                "<?xml version=\"1.0\"?><soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns=\"urn:partner.soap.sforce.com\"><soapenv:Body><loginResponse><result><serverUrl>{host}/services/Soap/u/64.0/00D</serverUrl><sessionId>{token}</sessionId></result></loginResponse></soapenv:Body></soapenv:Envelope>"
            );
            return Ok(Reply::Full {
                status: 200,
                headers: vec![("Content-Type", "text/xml".into())],
                body: body.into_bytes(),
            });
        }
        need(asked.path == "/services/oauth2/token", "no login is there")?;
        need_header(asked, "content-type", "application/x-www-form-urlencoded")?;
        let form = Salesforce::form(asked);
        let said = |name: &str| form.get(name).map(String::as_str);
        match self.way {
            Way::ClientCredentials => {
                need(
                    said("grant_type") == Some("client_credentials"),
                    "another grant",
                )?;
                need(
                    said("client_id") == Some("app")
                        && said("client_secret") == Some("not_a_real_secret"),
                    "another app",
                )?;
            }
            Way::Refresh => {
                need(said("grant_type") == Some("refresh_token"), "another grant")?;
                if !self.tokens.renew(said("refresh_token").unwrap_or_default()) {
                    let error = json!({"error": "invalid_grant", "error_description": "expired access/refresh token"});
                    return Ok(refusal(400, &[], error));
                }
            }
            Way::Jwt => {
                need(
                    said("grant_type") == Some("urn:ietf:params:oauth:grant-type:jwt-bearer"),
                    "another grant",
                )?;
                let parts: Vec<&str> = said("assertion").unwrap_or_default().split('.').collect();
                let [head, claims, signature] = parts[..] else {
                    return Err("the assertion has not three parts".into());
                };
                let read = |part: &str| -> Value {
                    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
                };
                need(read(head) == json!({"alg": "RS256"}), "not RS256")?;
                let claims = read(claims);
                need(
                    claims["iss"] == "app" && claims["sub"] == "shop@example.com",
                    "another issuer or subject",
                )?;
                // The login's own host, wherever the request goes.
                need(
                    claims["aud"] == "https://login.salesforce.com",
                    "another audience",
                )?;
                let lives = claims["exp"].as_i64().unwrap() - Utc::now().timestamp();
                need(
                    (1..=180).contains(&lives),
                    "good for more than three minutes",
                )?;
                need(
                    URL_SAFE_NO_PAD.decode(signature).unwrap().len() == 256,
                    "not signed with 2048 bits",
                )?;
            }
            Way::Soap => unreachable!(),
        }
        // No expires_in: a token is over when it is refused.
        let mut body = json!({"access_token": self.tokens.access(), "instance_url": host, "id": "https://login.salesforce.com/id/00D/005", "token_type": "Bearer", "issued_at": "1700000000000", "signature": "x"});
        if self.way == Way::Refresh && self.tokens.rotates {
            // Where the org has switched rotation on.
            body["refresh_token"] = self.tokens.refresh().into();
        }
        json_reply(body)
    }

    fn describe(&self, object: &str) -> Result<Reply, Complaint> {
        if object != "Opportunity" {
            return Ok(refusal(
                404,
                &[],
                json!([{"message": "The requested resource does not exist", "errorCode": "NOT_FOUND"}]),
            ));
        }
        let mut fields: Vec<Value> = self
            .fields
            .iter()
            .map(|name| json!({"name": name, "type": "string"}))
            .collect();
        if self.wide {
            fields.extend(wide_fields().map(|name| json!({"name": name, "type": "string"})));
        }
        fields.push(json!({"name": "BillingAddress", "type": "address"}));
        json_reply(json!({"name": object, "queryable": true, "fields": fields}))
    }

    fn query(&mut self, soql: &str) -> Result<Reply, Complaint> {
        let refuse = |code: &str| {
            Ok(refusal(
                400,
                &[],
                json!([{"message": "no", "errorCode": code}]),
            ))
        };
        let rest = soql.strip_prefix("SELECT ").ok_or("no SELECT")?;
        let (fields, rest) = rest
            .split_once(" FROM Opportunity WHERE ")
            .ok_or("no FROM, or no WHERE")?;
        let fields: Vec<String> = fields.split(',').map(str::to_owned).collect();
        let is_known = |field: &String| {
            field.starts_with("Wide_") && self.wide || self.fields.contains(&field.as_str())
        };
        if !fields.iter().all(is_known) {
            return refuse("INVALID_FIELD");
        }
        if let Some(ids) = rest.strip_prefix("Id IN (") {
            let ids = ids.strip_suffix(')').ok_or("an open bracket")?;
            let ids: Vec<&str> = ids.split(',').map(|id| id.trim_matches('\'')).collect();
            let found = self
                .rows
                .iter()
                .filter(|row| ids.contains(&row.id.as_str()));
            let rows: Vec<Value> = found.map(|row| row.selected(&fields)).collect();
            let total = rows.len();
            return self.deliver(rows, total);
        }
        let (window, order) = rest.split_once(" ORDER BY ").ok_or("no order")?;
        need(
            order == "SystemModstamp ASC, Id ASC",
            "another order than by stamp and id",
        )?;
        let (from, to) = window.split_once(" AND ").ok_or("no window")?;
        let moment = |text: &str, name: &str| {
            let text = text
                .strip_prefix(name)
                .ok_or("the window is of another field")?;
            // No quotes, and the offset of it must have survived the address.
            text.parse::<DateTime<Utc>>()
                .map_err(|_| "no date-time literal")
        };
        let from = moment(from, "SystemModstamp >= ")?;
        let to = moment(to, "SystemModstamp < ")?;
        self.selected = fields.clone();
        let mut found: Vec<&Opportunity> = self
            .rows
            .iter()
            .filter(|row| row.modified >= from && row.modified < to)
            .collect();
        found.sort_by(|a, b| (a.modified, &a.id).cmp(&(b.modified, &b.id)));
        let rows: Vec<Value> = found.iter().map(|row| row.selected(&fields)).collect();
        let total = rows.len() + self.hidden;
        self.deliver(rows, total)
    }

    fn deliver(&mut self, mut rows: Vec<Value>, total: usize) -> Result<Reply, Complaint> {
        let rest = rows.split_off(rows.len().min(self.page));
        let mut body = json!({"totalSize": total, "done": rest.is_empty(), "records": rows});
        if !rest.is_empty() {
            self.number += 1;
            let locator = format!("01g{}-{total}", self.number);
            // What continues a queryAll may say query.
            body["nextRecordsUrl"] = format!("/services/data/v64.0/query/{locator}").into();
            self.locators.insert(locator, rest);
        }
        let headers = [(
            "Sforce-Limit-Info",
            format!("api-usage={}/15000", self.used),
        )];
        let headers: Vec<(&'static str, &str)> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Ok(refusal(200, &headers, body))
    }
}

impl Fake for Salesforce {
    const KIND: &'static str = "salesforce";
    const VERSION: &'static str = "data ->> 'SystemModstamp'";
    const SCALE: i64 = 100;

    fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    fn credentials(&self) -> Value {
        match self.way {
            Way::ClientCredentials => {
                json!({"client_id": "app", "client_secret": "not_a_real_secret"})
            }
            Way::Refresh => {
                json!({"client_id": "app", "client_secret": "not_a_real_secret", "refresh_token": self.tokens.refresh()})
            }
            Way::Jwt => {
                json!({"client_id": "app", "username": "shop@example.com", "private_key": private_key()})
            }
            Way::Soap => {
                json!({"username": "shop&co@example.com", "password": "not_a_real_<password>", "security_token": "not_a_real_token"})
            }
        }
    }

    fn config(&self, url: &str) -> Value {
        json!({"requests_per_second": 1000, "base_url": url})
    }

    fn tokens(&mut self) -> &mut Tokens {
        &mut self.tokens
    }

    fn answer(&mut self, asked: &Asked) -> Result<Reply, Complaint> {
        if asked.method == "POST" {
            return self.login(asked);
        }
        if !self.tokens.admits(bearer(asked)) {
            return Ok(refusal(
                401,
                &[],
                json!([{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]),
            ));
        }
        self.used += 1;
        let path = asked
            .path
            .strip_prefix("/services/data/v64.0/")
            .ok_or("another version")?;
        if let Some(locator) = path.strip_prefix("query/") {
            need(
                asked.pairs.is_empty(),
                "a locator is sent without parameters",
            )?;
            let total = locator
                .split_once('-')
                .map_or(0, |(_, total)| total.parse().unwrap());
            return match self.locators.remove(locator) {
                Some(rows) => self.deliver(rows, total),
                None => Ok(refusal(
                    400,
                    &[],
                    json!([{"message": "invalid query locator", "errorCode": "INVALID_QUERY_LOCATOR"}]),
                )),
            };
        }
        match path.split('/').collect::<Vec<_>>()[..] {
            ["sobjects", object, "describe"] => self.describe(object),
            ["queryAll"] | ["queryAll", ""] => {
                let q = asked.query.get("q").ok_or("no q")?;
                // The whole address, with what had to be escaped.
                let length = |c: char| {
                    if c.is_ascii_alphanumeric() || "_.-+*".contains(c) {
                        1
                    } else {
                        3
                    }
                };
                let size: usize = q.replace(' ', "+").chars().map(length).sum();
                match size + 200 > 16_384 {
                    true => Ok(Reply::status(414)),
                    false => self.query(q),
                }
            }
            _ => Err("no such place".into()),
        }
    }

    fn change(&mut self, random: &mut Random) {
        let at = self.clock.tick(random);
        let some = (!self.rows.is_empty()).then(|| random.below(self.rows.len()));
        match (random.below(10), some) {
            (0..6, _) | (_, None) => {
                self.number += 1;
                let cents = 1 + random.below(900_000) as i64;
                let won = random.percent(70);
                let date = day(at - TimeDelta::days(random.below(6) as i64));
                // A number as Salesforce writes it.
                let amount: Value =
                    serde_json::from_str(&format!("{}.{:02}", cents / 100, cents % 100)).unwrap();
                self.rows.push(Opportunity {
                    id: format!("006{:015}", self.number),
                    modified: at,
                    deleted: false,
                    cents: if won { cents } else { 0 },
                    date: date.clone(),
                    body: json!({"Id": format!("006{:015}", self.number), "Name": "O'Hara & Söhne", "Amount": amount, "CloseDate": date,
                        "StageName": if won { "Closed Won" } else { "Prospecting" }, "IsWon": won, "Type": null}),
                });
            }
            (6..8, Some(index)) => {
                let row = &mut self.rows[index];
                row.modified = at;
                let cents = 1 + random.below(900_000) as i64;
                row.body["Amount"] =
                    serde_json::from_str(&format!("{}.{:02}", cents / 100, cents % 100)).unwrap();
                row.body["IsWon"] = true.into();
                row.cents = cents;
            }
            (8, Some(index)) => {
                // The bin keeps it, and it may come back.
                let row = &mut self.rows[index];
                (row.modified, row.deleted) = (at, !row.deleted);
            }
            (_, Some(index)) => {
                let row = &mut self.rows[index];
                row.modified = at;
                row.body["IsWon"] = false.into();
                row.cents = 0;
            }
        }
    }

    fn stream_of(&self, asked: &Asked) -> Option<String> {
        (asked.method == "GET").then(|| "opportunities".to_owned())
    }

    fn denies(&self) -> Reply {
        refusal(
            403,
            &[],
            json!([{"message": "no", "errorCode": "INSUFFICIENT_ACCESS"}]),
        )
    }

    fn delete(&mut self, random: &mut Random) -> bool {
        let at = self.clock.tick(random);
        let mut there = self.rows.iter_mut().filter(|row| !row.deleted);
        let Some(row) = there.next() else {
            return false;
        };
        // The bin keeps it.
        (row.modified, row.deleted) = (at, true);
        true
    }

    /// One of long ago is lost after all.
    fn settle(&mut self, random: &mut Random) -> bool {
        let at = self.clock.tick(random);
        let there = self
            .rows
            .iter_mut()
            .filter(|row| !row.deleted && row.modified < at);
        let Some(row) = there.min_by_key(|row| row.modified) else {
            return false;
        };
        row.modified = at;
        row.body["IsWon"] = false.into();
        row.cents = 0;
        true
    }

    fn books(&self) -> Books {
        let mut books = Books::new();
        for row in self.rows.iter().filter(|row| !row.deleted) {
            *books
                .entry(("revenue".to_owned(), row.date.clone()))
                .or_default() += row.cents;
        }
        books
    }

    fn records(&self) -> BTreeMap<String, String> {
        let present = self.rows.iter().filter(|row| !row.deleted);
        present
            .map(|row| (format!("opportunities/{}", row.id), text(row.modified)))
            .collect()
    }
}

/// Made for this run: a key in a file would look like a real one.
fn private_key() -> String {
    let made = std::process::Command::new("openssl")
        .args([
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ])
        .output()
        .expect("openssl");
    String::from_utf8(made.stdout).expect("PEM")
}

#[test]
fn salesforce_follows_every_change() {
    let mut stage = Stage::new(Salesforce::new(Way::ClientCredentials));
    stage.follows_every_change(31);
    let used = "SELECT used, allowed FROM rate_budgets WHERE account LIKE 'salesforce %'";
    let row = stage.client.query_one(used, &[]).unwrap();
    assert!(row.get::<_, i64>(0) > 100 && row.get::<_, i64>(1) == 15_000);
}

#[test]
fn salesforce_misses_nothing_that_changes_while_it_reads() {
    misses_nothing_that_changes_while_it_reads(|| Stage::new(Salesforce::new(Way::Refresh)), 32, 8);
}

#[test]
fn salesforce_s_objects_with_more_fields_than_an_address_can_name_are_read_in_parts() {
    let mut fake = Salesforce::new(Way::ClientCredentials);
    fake.wide = true;
    fake.page = 80;
    let mut stage = Stage::new(fake);
    let mut random = Random(43);
    stage.changes(150, &mut random);
    let run = stage.sync();
    assert_eq!(run["warnings"], json!([]), "{run}");
    stage.agrees();
    let sql = "SELECT count(*), count(*) FILTER (WHERE data ? 'Amount' AND data ? 'IsDeleted' AND
                   (SELECT count(*) FROM jsonb_each_text(data) f WHERE f.key ~ '^Wide_' AND f.value = f.key || ' of ' || (data ->> 'Id')) = 700)
               FROM raw_connector_data WHERE NOT deleted";
    let row = stage.client.query_one(sql, &[]).unwrap();
    let (all, whole): (i64, i64) = (row.get(0), row.get(1));
    assert!(all > 60 && whole == all, "{whole} of {all}");
    for seed in 0..3 {
        stage.hosted().busy = Some((Random(seed), 40));
        stage.sync();
        stage.hosted().busy = None;
        stage.changes(5, &mut random);
        stage.sync();
        stage.agrees();
    }
}

#[test]
fn salesforce_s_refresh_finds_what_left_the_recycle_bin() {
    let mut stage = Stage::new(Salesforce::new(Way::ClientCredentials));
    let mut random = Random(44);
    stage.changes(60, &mut random);
    stage.sync();
    stage.agrees();
    stage.hosted().fake.rows.truncate(30);
    let sql = "SELECT connector_service_refresh($1::text::uuid, 'opportunities')::text";
    let run: String = stage
        .client
        .query_one(sql, &[&stage.connector])
        .unwrap()
        .get(0);
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(run["state"], "succeeded", "{run}");
    assert!(run["deleted"].as_i64().unwrap() > 0, "{run}");
    stage.agrees();
}

/// What the package simple-salesforce makes of a question: `pg_test/salesforce/judge.py`.
fn judged(question: &Value) -> Value {
    let pg_test = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let prepared = Command::new(pg_test.join("prepare.sh"))
        .args(["python", "salesforce"])
        .stdout(Stdio::null())
        .status();
    assert!(prepared.unwrap().success(), "prepare.sh python salesforce");
    let mut judge = Command::new(pg_test.join("../target/salesforce/bin/python"))
        .arg(pg_test.join("salesforce/judge.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python");
    let mut stdin = judge.stdin.take().unwrap();
    stdin.write_all(question.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = judge.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout).expect("an answer of the judge")
}

#[test]
fn salesforce_s_requests_and_answers_are_those_of_a_package_that_many_use() {
    let mut stage = Stage::new(Salesforce::new(Way::ClientCredentials));
    stage.changes(80, &mut Random(45));
    stage.sync();
    stage.agrees();
    let asked = stage.vendor.asked();
    let of_query = |asked: &Asked| asked.path.ends_with("/queryAll");
    let first = asked.iter().position(of_query).unwrap();
    let query = asked[first].query["q"].clone();
    let (base, token) = (stage.vendor.url(), stage.hosted().fake.tokens.access());
    let base = base.trim_end_matches('/');
    let answer = judged(&json!({"query": query, "base": base, "token": token}));
    stage.no_complaints();
    // The same rows, of which the deleted ones are told from the others.
    let of = |name: &str| -> BTreeSet<String> {
        let ids = answer[name].as_array().unwrap();
        ids.iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect()
    };
    let there: BTreeSet<String> = of("ids").difference(&of("deleted")).cloned().collect();
    let sql = "SELECT substr(source_record_id, 15) FROM raw_connector_data WHERE NOT deleted";
    let rows = stage.client.query(sql, &[]).unwrap();
    let stored: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(stored.len() > 20 && !of("deleted").is_empty(), "{answer}");
    assert_eq!(there, stored);
    // The same requests, but for a slash, and for the locators, which differ from query to query.
    let sent: Vec<(String, String)> = answer["sent"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sent| {
            assert_eq!(sent["method"], "GET");
            let path = sent["path"].as_str().unwrap();
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let path = path.trim_end_matches('/').to_owned();
            (shape(&path), decode(query.trim_start_matches("q=")))
        })
        .collect();
    let ours: Vec<(String, String)> = asked[first..first + sent.len()]
        .iter()
        .map(|asked| {
            let query = asked.query.get("q").cloned().unwrap_or_default();
            (shape(&asked.path), query)
        })
        .collect();
    assert!(sent.len() > 5);
    assert_eq!(ours, sent);
    let header = format!("Bearer {token}");
    for (ours, theirs) in asked[first..]
        .iter()
        .zip(answer["sent"].as_array().unwrap())
    {
        assert_eq!(
            (&ours.headers["authorization"], &theirs["authorization"]),
            (&header, &json!(header))
        );
    }
    // It reads the description, and knows a session that is over.
    let described = judged(&json!({"describe": "Opportunity", "base": base, "token": token}));
    let fields: Vec<&str> = described["fields"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        FIELDS.iter().all(|field| fields.contains(field)),
        "{described}"
    );
    let over = judged(&json!({"query": query, "base": base, "token": "another"}));
    assert_eq!(
        (&over["refused"], &over["status"]),
        (&json!("SalesforceExpiredSession"), &json!(401))
    );
}

/// A path whose locator is another one each time.
fn shape(path: &str) -> String {
    match path.split_once("/query/") {
        Some((before, _)) => format!("{before}/query/LOCATOR"),
        None => path.to_owned(),
    }
}

#[test]
fn salesforce_s_legacy_login_is_sent_as_a_package_that_many_use_sends_it() {
    let mut stage = Stage::new(Salesforce::new(Way::Soap));
    stage.changes(5, &mut Random(46));
    stage.sync();
    let asked = stage.vendor.asked();
    let ours = asked.iter().find(|asked| asked.method == "POST").unwrap();
    let answer = judged(
        &json!({"login": {"username": "shop&co@example.com", "password": "not_a_real_<password>", "security_token": "not_a_real_token"}}),
    );
    // Blanks, and what each calls itself, mean nothing.
    let body = |text: &str| -> String {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        text[text.find("<n1:login").expect("a login")..].to_owned()
    };
    assert_eq!(body(&ours.body), body(answer["body"].as_str().unwrap()));
    assert!(
        answer["url"].as_str().unwrap().ends_with(&ours.path),
        "{answer}"
    );
    assert_eq!(ours.headers["soapaction"], answer["headers"]["SOAPAction"]);
}

#[test]
fn salesforce_accepts_a_login_by_assertion() {
    let mut stage = Stage::new(Salesforce::new(Way::Jwt));
    stage.changes(20, &mut Random(33));
    stage.sync();
    stage.agrees();
}

#[test]
fn salesforce_accepts_the_legacy_login_which_warns_and_is_tried_once() {
    let mut stage = Stage::new(Salesforce::new(Way::Soap));
    stage.changes(20, &mut Random(34));
    let run = stage.sync();
    stage.agrees();
    assert!(
        run["warnings"][0]
            .as_str()
            .unwrap()
            .contains("the login by user name and password"),
        "{run}"
    );
    let fault = "<?xml version=\"1.0\"?><e:Envelope xmlns:e=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:sf=\"urn:fault.partner.soap.sforce.com\"><e:Body><e:Fault><faultcode>sf:INVALID_LOGIN</faultcode><detail><sf:LoginFault><sf:exceptionCode>INVALID_LOGIN</sf:exceptionCode><sf:exceptionMessage>not_a_real_token</sf:exceptionMessage></sf:LoginFault></detail></e:Fault></e:Body></e:Envelope>";
    let asked = stage.vendor.asked().len();
    for _ in 0..3 {
        let body = fault.as_bytes().to_vec();
        stage.hosted().faults.push_back((
            0,
            Reply::Full {
                status: 500,
                headers: vec![],
                body,
            },
        ));
    }
    let run = stage.sync_anyhow();
    assert_eq!(run["error_code"], "credentials_rejected", "{run}");
    assert_eq!(
        run["error_message"],
        format!(
            "stream \"opportunities\": {}: user name, password or security token is wrong, or the user is locked out",
            stage.vendor.host()
        )
    );
    assert_eq!(
        stage.vendor.asked().len(),
        asked + 1,
        "trying again locks the user"
    );
}

#[test]
fn salesforce_s_failures_have_different_error_codes() {
    let mut stage = Stage::new(Salesforce::new(Way::ClientCredentials));
    stage.changes(60, &mut Random(35));
    stage.hosted().fake.tokens.left = Some(4);
    stage.sync();
    stage.agrees();
    stage.tokens(2);
    let error = |code: &str| json!([{"message": "not_a_real_secret", "errorCode": code}]);
    stage.changes(40, &mut Random(40));
    // A locator that is over: the pass starts again where its last page was stored.
    stage.survives(4, refusal(400, &[], error("INVALID_QUERY_LOCATOR")));
    stage.survives(2, refusal(503, &[], error("SERVER_UNAVAILABLE")));
    let body = b"<html>an edge of the network</html>".to_vec();
    stage.survives(
        2,
        Reply::Full {
            status: 200,
            headers: vec![],
            body,
        },
    );
    for (reply, code, says) in [
        (
            refusal(400, &[], error("INVALID_FIELD")),
            "request_refused",
            "names a field",
        ),
        (
            refusal(403, &[], error("INSUFFICIENT_ACCESS")),
            "permission_missing",
            "may not read the object",
        ),
        (
            refusal(404, &[], error("NOT_FOUND")),
            "not_found",
            "the object does not exist",
        ),
    ] {
        stage.hosted().faults.push_back((1, reply));
        let run = stage.sync_anyhow();
        assert_eq!(run["error_code"], code, "{run}");
        let message = run["error_message"].as_str().unwrap();
        assert!(
            message.contains(says) && !message.contains("not_a_real"),
            "{message}"
        );
    }
    // A field that this user may not see any more is not asked for, and one that is new comes by itself.
    stage.hosted().fake.fields = vec![
        "Id",
        "Amount",
        "CloseDate",
        "IsWon",
        "SystemModstamp",
        "IsDeleted",
        "StageName",
        "Type",
    ];
    stage.changes(6, &mut Random(36));
    stage.sync();
    stage.agrees();
    let selected = stage.hosted().fake.selected.clone();
    assert_eq!(
        selected,
        [
            "Id",
            "SystemModstamp",
            "IsDeleted",
            "Amount",
            "CloseDate",
            "IsWon",
            "StageName",
            "Type"
        ]
    );
}

#[test]
fn salesforce_s_refresh_token_of_an_org_with_rotation_survives_a_kill_between_receipt_and_use() {
    Stage::new(Salesforce::new(Way::Refresh)).keeps_a_new_refresh_token_through_a_kill(42);
}

#[test]
fn salesforce_opens_an_alert_while_fewer_records_arrive_than_it_counts() {
    let mut stage = Stage::new(Salesforce::new(Way::ClientCredentials));
    stage.changes(20, &mut Random(41));
    let open = "SELECT count(*) FROM data_quality_alerts WHERE alert_type = 'completeness' AND NOT resolved
                AND message LIKE 'connector \"shop\", stream \"opportunities\": the vendor counts %'";
    for (hidden, alerts) in [(2, 1), (0, 0)] {
        stage.hosted().fake.hidden = hidden;
        stage.sync();
        assert_eq!(
            stage.client.query_one(open, &[]).unwrap().get::<_, i64>(0),
            alerts
        );
    }
}

#[test]
fn salesforce_calls_stop_when_the_budget_is_used_up() {
    let mut stage = Stage::new(Salesforce::new(Way::ClientCredentials));
    stage.changes(30, &mut Random(37));
    stage.hosted().fake.used = 12_001;
    let run = stage.sync_anyhow();
    assert_eq!(
        (&run["state"], &run["error_code"]),
        (&json!("queued"), &json!("rate_limited")),
        "{run}"
    );
    let why = run["waiting_for"].as_str().unwrap();
    assert!(
        why.contains("of the org's 15000 API calls in 24 hours are used; the budget is 80 %"),
        "{why}"
    );
    // What came until then is stored.
    assert!(run["received"].as_i64().unwrap() > 0, "{run}");
    let hour = "SELECT rests_until - now() BETWEEN interval '55 min' AND interval '1 hour' FROM rate_budgets";
    assert!(stage.client.query_one(hour, &[]).unwrap().get::<_, bool>(0));
}

#[test]
fn salesforce_s_rate_limit_is_a_pause_although_its_status_is_403() {
    let mut stage = Stage::new(Salesforce::new(Way::ClientCredentials));
    stage.changes(20, &mut Random(38));
    let error = json!([{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]);
    stage.waits_when_throttled(2, refusal(403, &[], error));
}

#[test]
fn salesforce_may_name_only_an_instance_of_its_own_domain() {
    let mut stage = Stage::new(Salesforce::new(Way::ClientCredentials));
    stage.changes(5, &mut Random(39));
    for instance in [
        "https://salesforce.com.example.com",
        "https://169.254.169.254",
        "http://acme.my.salesforce.com",
    ] {
        let body = json!({"access_token": "00D!x", "instance_url": instance});
        stage
            .hosted()
            .faults
            .push_back((0, Reply::Json(body.to_string())));
        let run = stage.sync_anyhow();
        assert_eq!(run["error_code"], "foreign_next_page", "{run}");
    }
}
