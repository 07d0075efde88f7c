//! QuickBooks: offset paging over a set that moves, refresh tokens that rotate, and deletions in a feed of their own.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use connector_service_test::*;
use serde_json::{Value, json};

use crate::stage::*;

const REALM: &str = "9130347";

struct Doc {
    entity: &'static str,
    id: String,
    updated: DateTime<Utc>,
    body: Value,
    deleted: bool,
}

impl Doc {
    /// The record, without what the books alone know.
    fn shown(&self) -> Value {
        let mut body = self.body.clone();
        body.as_object_mut().unwrap().remove("cents");
        body
    }
}

pub struct QuickBooks {
    clock: Clock,
    docs: Vec<Doc>,
    number: usize,
    page: usize,
    tokens: Tokens,
    /// What the count of a query leaves out of the pages.
    hidden: i64,
    /// Whether more streams are read than those that are read where nobody chose.
    has_all: bool,
}

/// The entities, those first that are read where nobody chose.
pub const ENTITIES: [(&str, &str); 14] = [
    ("Invoice", "invoices"),
    ("SalesReceipt", "sales_receipts"),
    ("CreditMemo", "credit_memos"),
    ("RefundReceipt", "refund_receipts"),
    ("Bill", "bills"),
    ("Purchase", "purchases"),
    ("VendorCredit", "vendor_credits"),
    ("Item", "items"),
    ("TimeActivity", "time_activities"),
    ("Customer", "customers"),
    ("Vendor", "vendors"),
    ("Account", "accounts"),
    ("Payment", "payments"),
    ("JournalEntry", "journal_entries"),
];
const DEFAULT: usize = 9;

/// What is never deleted, but made inactive.
const NAMED: [&str; 4] = ["Item", "Customer", "Vendor", "Account"];

fn stream_of(entity: &str) -> &'static str {
    ENTITIES.iter().find(|(name, _)| *name == entity).unwrap().1
}

/// The company's offset is eight hours behind UTC.
fn text(at: DateTime<Utc>) -> String {
    let local = (at - TimeDelta::hours(8)).to_rfc3339_opts(SecondsFormat::Secs, true);
    local.replace('Z', "-08:00")
}

fn moment(text: &str) -> Result<DateTime<Utc>, Complaint> {
    text.parse()
        .map_err(|_| format!("{text} is no time with an offset"))
}

impl QuickBooks {
    pub fn new() -> QuickBooks {
        QuickBooks {
            clock: Clock::start(),
            docs: Vec::new(),
            number: 0,
            page: 5,
            tokens: Tokens {
                rotates: true,
                ..Tokens::default()
            },
            hidden: 0,
            has_all: false,
        }
    }

    pub fn with_all() -> QuickBooks {
        QuickBooks {
            has_all: true,
            ..QuickBooks::new()
        }
    }

    fn entities(&self) -> &'static [(&'static str, &'static str)] {
        match self.has_all {
            true => &ENTITIES,
            false => &ENTITIES[..DEFAULT],
        }
    }

    fn add(&mut self, random: &mut Random, entity: &'static str) {
        let at = self.clock.tick(random);
        self.number += 1;
        let id = self.number.to_string();
        let date = day(at - TimeDelta::days(random.below(5) as i64));
        let amount = 1 + random.below(90_000) as i64;
        let money = |cents: i64| {
            serde_json::from_str::<Value>(&format!("{}.{:02}", cents / 100, cents % 100)).unwrap()
        };
        let currency = json!({"value": "USD", "name": "United States Dollar"});
        let line = |cents: i64| {
            json!({"Amount": money(cents), "DetailType": "AccountBasedExpenseLineDetail",
                "AccountBasedExpenseLineDetail": {"AccountRef": {"value": "7", "name": "Rent"}}})
        };
        let mut body = match entity {
            "Item" => {
                json!({"Type": "Inventory", "Active": true, "QtyOnHand": random.below(50), "Name": format!("Item {id}"), "Sku": format!("SKU-{id}")})
            }
            "TimeActivity" => {
                json!({"TxnDate": date, "NameOf": "Employee", "EmployeeRef": {"value": "55"}, "Hours": 1 + random.below(8), "Minutes": 0})
            }
            "Customer" | "Vendor" => json!({"DisplayName": format!("Name {id}"), "Active": true}),
            "Account" => {
                json!({"Name": format!("Account {id}"), "Active": true, "Classification": "Expense", "CurrentBalance": 0})
            }
            "Payment" => {
                json!({"TxnDate": date, "TotalAmt": money(amount), "UnappliedAmt": 0, "CurrencyRef": currency, "CustomerRef": {"value": "1"}})
            }
            "JournalEntry" => json!({"TxnDate": date, "CurrencyRef": currency}),
            "Bill" | "Purchase" | "VendorCredit" => {
                let first = amount / 3;
                json!({"TxnDate": date, "TotalAmt": money(amount), "CurrencyRef": currency, "Line": [line(first), line(amount - first)]})
            }
            _ => {
                json!({"TxnDate": date, "TotalAmt": money(amount), "Balance": money(amount), "CurrencyRef": currency,
                "Line": [{"Amount": money(amount), "DetailType": "SalesItemLineDetail"}, {"Amount": money(amount), "DetailType": "SubTotalLineDetail"}]})
            }
        };
        body["Id"] = id.clone().into();
        body["SyncToken"] = "0".into();
        body["cents"] = amount.into();
        body["MetaData"] = json!({"CreateTime": text(at), "LastUpdatedTime": text(at)});
        self.docs.push(Doc {
            entity,
            id,
            updated: at,
            body,
            deleted: false,
        });
    }

    fn any(&self, random: &mut Random, fits: impl Fn(&Doc) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.docs.len())
            .filter(|i| !self.docs[*i].deleted && fits(&self.docs[*i]))
            .collect();
        (!all.is_empty()).then(|| random.pick(&all))
    }

    fn touch(&mut self, random: &mut Random, index: usize, change: impl Fn(&mut Value)) {
        let at = self.clock.tick(random);
        let doc = &mut self.docs[index];
        doc.updated = at;
        change(&mut doc.body);
        let token: u64 = doc.body["SyncToken"].as_str().unwrap().parse().unwrap();
        doc.body["SyncToken"] = (token + 1).to_string().into();
        doc.body["MetaData"]["LastUpdatedTime"] = text(at).into();
    }

    fn token(&mut self, asked: &Asked) -> Result<Reply, Complaint> {
        need_header(asked, "authorization", "Basic YXBwOm5vdF9hX3JlYWxfc2VjcmV0")?;
        need_header(asked, "accept", "application/json")?;
        need_header(asked, "content-type", "application/x-www-form-urlencoded")?;
        let token = asked
            .body
            .strip_prefix("grant_type=refresh_token&refresh_token=");
        let token = token.ok_or("the token request is another one")?;
        if !self.tokens.renew(token) {
            return Ok(refusal(400, &[], json!({"error": "invalid_grant"})));
        }
        json_reply(json!({
            "access_token": self.tokens.access(), "expires_in": 3600, "token_type": "bearer",
            "refresh_token": self.tokens.refresh(), "x_refresh_token_expires_in": 8_640_000,
        }))
    }

    /// `SELECT ... FROM entity WHERE ... ORDERBY ... STARTPOSITION n MAXRESULTS n`, in this order and nothing else.
    fn query(&self, query: &str) -> Result<Reply, Complaint> {
        let rest = query.strip_prefix("SELECT ").ok_or("no SELECT")?;
        let (what, rest) = rest.split_once(" FROM ").ok_or("no FROM")?;
        let (entity, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let known = ENTITIES
            .iter()
            .find(|(name, _)| *name == entity)
            .ok_or("no such entity")?
            .0;
        let (conditions, paging) = match rest.split_once(" ORDERBY ") {
            Some((conditions, paging)) => (conditions, Some(paging)),
            None => match rest.strip_prefix("ORDERBY ") {
                Some(paging) => ("", Some(paging)),
                None => (rest, None),
            },
        };
        let (mut from, mut to, mut inactive) = (None, None, false);
        for condition in conditions
            .strip_prefix("WHERE ")
            .unwrap_or_default()
            .split(" AND ")
            .filter(|text| !text.is_empty())
        {
            let quoted = |text: &str| {
                text.strip_prefix('\'')
                    .and_then(|text| text.strip_suffix('\''))
                    .ok_or("no quotes")
                    .and_then(|text| moment(text).map_err(|_| "no time"))
            };
            if let Some(text) = condition.strip_prefix("MetaData.LastUpdatedTime >= ") {
                from = Some(quoted(text)?);
            } else if let Some(text) = condition.strip_prefix("MetaData.LastUpdatedTime <= ") {
                to = Some(quoted(text)?);
            } else if condition == "Active IN (true, false)" {
                inactive = true;
            } else {
                return Err(format!("condition {condition}"));
            }
        }
        need(
            entity == "Item" || what == "COUNT(*)" || (to.is_some() && from.is_some()),
            "no window",
        )?;
        let mut found: Vec<&Doc> = self
            .docs
            .iter()
            .filter(|doc| doc.entity == known && !doc.deleted)
            .filter(|doc| {
                from.is_none_or(|from| doc.updated >= from) && to.is_none_or(|to| doc.updated <= to)
            })
            .filter(|doc| inactive || doc.body["Active"] != false)
            .collect();
        found.sort_by_key(|doc| doc.updated);
        if what == "COUNT(*)" {
            need(paging.is_none(), "a count has no pages")?;
            return json_reply(
                json!({"QueryResponse": {"totalCount": found.len() as i64 + self.hidden}, "time": text(Utc::now())}),
            );
        }
        let paging = paging.ok_or("no order")?;
        let words: Vec<&str> = paging.split(' ').collect();
        let [
            "MetaData.LastUpdatedTime",
            "ASC",
            "STARTPOSITION",
            start,
            "MAXRESULTS",
            "1000",
        ] = words[..]
        else {
            return Err(format!("paging {paging}"));
        };
        // The star leaves the article number out.
        let has_sku = entity == "Item" && what == "*, Sku";
        need(what == "*" || has_sku, "not everything is selected")?;
        let start: usize = start.parse().map_err(|_| "STARTPOSITION is no number")?;
        need(start >= 1, "STARTPOSITION begins at 1")?;
        // A page may be shorter than asked for without being the last.
        let page: Vec<Value> = found
            .iter()
            .skip(start - 1)
            .take(self.page)
            .map(|doc| {
                let mut body = doc.shown();
                if let Some(fields) = body.as_object_mut().filter(|_| !has_sku) {
                    fields.remove("Sku");
                }
                body
            })
            .collect();
        let response = match page.is_empty() {
            true => json!({}),
            false => json!({entity: page, "startPosition": start, "maxResults": page.len()}),
        };
        json_reply(json!({"QueryResponse": response, "time": text(Utc::now())}))
    }

    fn capture(&self, asked: &Asked) -> Result<Reply, Complaint> {
        let entity = &asked.query["entities"];
        need(entity != "TimeActivity", "TimeActivity is not captured")?;
        let since = moment(&asked.query["changedSince"])?;
        need(
            since >= Utc::now() - TimeDelta::days(30),
            "changes of more than 30 days ago",
        )?;
        let changed = self
            .docs
            .iter()
            .filter(|doc| doc.entity == entity && doc.updated >= since);
        let changed: Vec<Value> = changed
            .map(|doc| match doc.deleted {
                true => json!({"domain": "QBO", "status": "Deleted", "Id": doc.id, "MetaData": {"LastUpdatedTime": text(doc.updated)}}),
                false => doc.shown(),
            })
            .collect();
        let response = if changed.is_empty() {
            json!({})
        } else {
            json!({entity.as_str(): changed})
        };
        json_reply(
            json!({"CDCResponse": [{"QueryResponse": [response]}], "time": text(Utc::now())}),
        )
    }
}

impl Fake for QuickBooks {
    const KIND: &'static str = "quickbooks";
    const VERSION: &'static str = "data ->> 'SyncToken'";
    const SCALE: i64 = 100;

    fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    fn credentials(&self) -> Value {
        json!({"client_id": "app", "client_secret": "not_a_real_secret", "refresh_token": "not_a_real_refresh_0", "realm_id": REALM})
    }

    fn config(&self, url: &str) -> Value {
        let mut config = json!({"requests_per_second": 1000, "base_url": url, "token_url": format!("{url}/oauth2/v1/tokens/bearer")});
        if self.has_all {
            let streams: Vec<&str> = ENTITIES.iter().map(|(_, stream)| *stream).collect();
            config["streams"] = streams.into();
        }
        config
    }

    fn stream_of(&self, asked: &Asked) -> Option<String> {
        let entity = match asked.query.get("query") {
            Some(query) => query.split(" FROM ").nth(1)?.split(' ').next()?,
            None => asked.query.get("entities")?,
        };
        Some(stream_of(entity).to_owned())
    }

    fn denies(&self) -> Reply {
        let fault = json!({"Fault": {"Error": [{"Message": "An application error has occurred", "code": "5020", "Detail": "Permission Denied Error"}], "type": "ValidationFault"}});
        refusal(403, &[], fault)
    }

    /// What is deleted leaves the queries; change data capture tells of all but hours.
    fn delete(&mut self, random: &mut Random) -> bool {
        let entity = random.pick(self.entities()).0;
        let Some(index) = self.any(random, |doc| doc.entity == entity) else {
            return false;
        };
        if NAMED.contains(&entity) {
            self.touch(random, index, |body| body["Active"] = false.into());
            return true;
        }
        let at = self.clock.tick(random);
        let doc = &mut self.docs[index];
        (doc.deleted, doc.updated) = (true, at);
        true
    }

    /// An old invoice is paid.
    fn settle(&mut self, random: &mut Random) -> bool {
        let Some(index) = self.any(random, |doc| doc.body["Balance"].is_number()) else {
            return false;
        };
        self.touch(random, index, |body| body["Balance"] = 0.into());
        true
    }

    fn tokens(&mut self) -> &mut Tokens {
        &mut self.tokens
    }

    fn answer(&mut self, asked: &Asked) -> Result<Reply, Complaint> {
        if asked.path == "/oauth2/v1/tokens/bearer" {
            return self.token(asked);
        }
        need(asked.method == "GET", "only GET is asked for")?;
        need_header(asked, "accept", "application/json")?;
        need(
            asked.query.get("minorversion").map(String::as_str) == Some("75"),
            "no minorversion=75",
        )?;
        if !self.tokens.admits(bearer(asked)) {
            let fault = json!({"fault": {"error": [{"message": "Token expired", "code": "3200"}], "type": "AUTHENTICATION"}});
            return Ok(refusal(401, &[], fault));
        }
        match asked.path.strip_prefix(&format!("/v3/company/{REALM}/")) {
            Some("query") => self.query(&asked.query["query"]),
            Some("cdc") => self.capture(asked),
            _ => Err("no such place".to_owned()),
        }
    }

    fn change(&mut self, random: &mut Random) {
        let entity = random.pick(self.entities()).0;
        match random.below(10) {
            0..6 => self.add(random, entity),
            6..7 => {
                // Void: all amounts are zero.
                if let Some(index) = self.any(random, |doc| {
                    matches!(doc.entity, "Invoice" | "SalesReceipt")
                }) {
                    self.touch(random, index, |body| {
                        body["TotalAmt"] = 0.into();
                        body["Balance"] = 0.into();
                        body["cents"] = 0.into();
                        body["PrivateNote"] = "Voided".into();
                    });
                }
            }
            7..8 => {
                if let Some(index) = self.any(random, |doc| doc.entity == "Item") {
                    // A sale changes what is on hand, and may not move the stamp.
                    let quantity = random.below(50);
                    match random.percent(50) {
                        true => {
                            self.touch(random, index, |body| body["QtyOnHand"] = quantity.into())
                        }
                        false => self.docs[index].body["QtyOnHand"] = quantity.into(),
                    }
                }
            }
            8..9 => {
                if let Some(index) = self.any(random, |doc| !NAMED.contains(&doc.entity)) {
                    let at = self.clock.tick(random);
                    let doc = &mut self.docs[index];
                    (doc.deleted, doc.updated) = (true, at);
                }
            }
            _ => {
                if let Some(index) = self.any(random, |doc| doc.body["Balance"].is_number()) {
                    self.touch(random, index, |body| body["Balance"] = 0.into());
                }
            }
        }
    }

    fn books(&self) -> Books {
        let mut books = Books::new();
        for doc in self.docs.iter().filter(|doc| !doc.deleted) {
            let body = &doc.body;
            let date = || body["TxnDate"].as_str().unwrap().to_owned();
            let cents = body["cents"].as_i64().unwrap();
            let (kind, day, amount) = match doc.entity {
                "Invoice" | "SalesReceipt" => ("revenue", date(), cents),
                "CreditMemo" | "RefundReceipt" | "Bill" | "Purchase" => ("costs", date(), cents),
                "VendorCredit" => ("costs", date(), -cents),
                "Item" if body["Active"] == false => continue,
                "Item" => (
                    "inventory",
                    day(doc.updated),
                    body["QtyOnHand"].as_i64().unwrap() * 100,
                ),
                "TimeActivity" => ("staffing", date(), body["Hours"].as_i64().unwrap() * 100),
                _ => continue,
            };
            *books.entry((kind.to_owned(), day)).or_default() += amount;
        }
        // A day whose net is below zero has no metric, and an alert.
        books.retain(|_, amount| *amount > 0);
        books
    }

    fn records(&self) -> BTreeMap<String, String> {
        let present = self.docs.iter().filter(|doc| !doc.deleted);
        present
            .map(|doc| {
                (
                    format!("{}/{}", stream_of(doc.entity), doc.id),
                    doc.body["SyncToken"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    }
}

#[test]
fn quickbooks_follows_every_change() {
    let mut stage = Stage::new(QuickBooks::new());
    stage.follows_every_change(21);
    stage.tokens(7);
    let mut stage = Stage::new(QuickBooks::with_all());
    stage.follows_every_change(121);
    let without = "SELECT count(*) FROM raw_connector_data WHERE stream = 'items' AND NOT deleted AND data ->> 'Sku' IS DISTINCT FROM 'SKU-' || (data ->> 'Id')";
    let row = stage.client.query_one(without, &[]).unwrap();
    assert_eq!(row.get::<_, i64>(0), 0, "items without their number");
}

#[test]
fn quickbooks_misses_nothing_that_changes_while_it_reads() {
    misses_nothing_that_changes_while_it_reads(|| Stage::new(QuickBooks::with_all()), 22, 5);
}

#[test]
fn quickbooks_records_of_one_second_that_fill_many_pages_are_all_read() {
    let mut fake = QuickBooks::new();
    let at = Utc::now() - TimeDelta::days(2);
    for _ in 0..40 {
        fake.add(&mut Random(1), "Invoice");
    }
    for doc in &mut fake.docs {
        doc.updated = DateTime::from_timestamp(at.timestamp(), 0).unwrap();
        doc.body["MetaData"]["LastUpdatedTime"] = text(doc.updated).into();
    }
    let mut stage = Stage::new(fake);
    stage.sync();
    stage.agrees();
}

#[test]
fn quickbooks_s_failures_have_different_error_codes() {
    let mut stage = Stage::new(QuickBooks::new());
    stage.changes(60, &mut Random(23));
    stage.hosted().fake.tokens.left = Some(7);
    stage.sync();
    stage.agrees();
    stage.tokens(2);
    let fault = |code: &str| json!({"Fault": {"Error": [{"Message": "not_a_real_secret", "code": code}], "type": "ValidationFault"}});
    stage.survives(
        3,
        refusal(
            429,
            &[("Retry-After", "0.1")],
            json!({"fault": {"error": [{"code": "3001"}]}}),
        ),
    );
    stage.survives(4, refusal(500, &[], fault("10000")));

    for (reply, code, says) in [
        (
            refusal(403, &[], fault("003100")),
            "credentials_rejected",
            "for another company",
        ),
        (
            refusal(400, &[], fault("4000")),
            "request_refused",
            "HTTP 400",
        ),
        (
            Reply::Json(fault("610").to_string()),
            "unexpected_shape",
            "names an error",
        ),
        (
            Reply::Json(r#"{"QueryResponse": {"Invoice": [{"Id": "1", "#.to_owned()),
            "truncated_response",
            "the response breaks off",
        ),
        (
            Reply::Json(json!({"QueryResponse": {"Customer": []}}).to_string()),
            "unexpected_shape",
            "about another entity",
        ),
    ] {
        let body = match &reply {
            Reply::Full { status, body, .. } => (*status, body.clone()),
            Reply::Json(text) => (200, text.clone().into_bytes()),
            _ => unreachable!(),
        };
        for i in 0..8 {
            let (status, body) = body.clone();
            // The token request is answered.
            stage.hosted().faults.push_back((
                usize::from(i == 0),
                Reply::Full {
                    status,
                    headers: vec![],
                    body,
                },
            ));
        }
        let run = stage.sync_anyhow();
        assert_eq!(run["error_code"], code, "{run}");
        let message = run["error_message"].as_str().unwrap();
        assert!(
            message.contains(says) && !message.contains("not_a_real"),
            "{message}"
        );
        stage.hosted().faults.clear();
    }
    stage.sync();
    stage.agrees();
}

#[test]
fn quickbooks_opens_an_alert_while_fewer_records_arrive_than_it_counts() {
    let mut stage = Stage::new(QuickBooks::new());
    stage.changes(40, &mut Random(24));
    stage.hosted().fake.hidden = 3;
    let run = stage.sync();
    assert_eq!(run["warnings"].as_array().unwrap().len(), DEFAULT, "{run}");
    let open = "SELECT count(*) FROM data_quality_alerts WHERE alert_type = 'completeness' AND severity = 'critical' AND NOT resolved
                AND message LIKE 'connector \"shop\", stream \"%\": the vendor counts % records, but % came%'";
    let count =
        |stage: &mut Stage<QuickBooks>| stage.client.query_one(open, &[]).unwrap().get::<_, i64>(0);
    assert_eq!(count(&mut stage), DEFAULT as i64);
    stage.hosted().fake.hidden = 0;
    stage.sync();
    assert_eq!(count(&mut stage), 0);
}

#[test]
fn quickbooks_s_refresh_token_survives_a_kill_between_receipt_and_use() {
    Stage::new(QuickBooks::new()).keeps_a_new_refresh_token_through_a_kill(25);
}

#[test]
fn quickbooks_s_objects_of_an_unexpected_shape_are_stored_unchanged() {
    Stage::new(QuickBooks::new()).stores_objects_of_another_shape(
        27,
        |object| {
            if object.contains_key("SyncToken") {
                object.insert("BrandNew".into(), json!({"nested": [1, 2.50]}));
                object.remove("Balance");
            }
        },
        "data #>> '{BrandNew,nested,1}' = '2.5' AND NOT data ? 'Balance'",
    );
}

#[test]
fn quickbooks_s_rate_limit_pauses_the_account_even_after_a_restart() {
    let mut stage = Stage::new(QuickBooks::new());
    stage.changes(20, &mut Random(26));
    let fault = json!({"fault": {"error": [{"message": "ThrottleExceeded", "code": "3001"}]}});
    stage.waits_when_throttled(1, refusal(429, &[("Retry-After", "600")], fault));
}

#[test]
fn quickbooks_deletions_that_change_data_capture_does_not_tell_are_found_by_a_refresh() {
    for stream in ["invoices", "customers"] {
        Stage::new(QuickBooks::with_all()).finds_by_a_refresh(stream, |books| {
            let is_it = |doc: &Doc| stream_of(doc.entity) == stream && !doc.deleted;
            let index = books.docs.iter().position(is_it).unwrap();
            books.docs.remove(index);
        });
    }
}

#[test]
fn quickbooks_skips_hours_that_the_plan_does_not_have_unless_they_were_chosen() {
    let mut stage = Stage::new(QuickBooks::new());
    stage.changes(40, &mut Random(28));
    let closed = || {
        Some(Closed {
            stream: "time_activities".to_owned(),
            after: 0,
            why: Why::Denied,
            is_met: false,
        })
    };
    stage.hosted().closed = closed();
    let run = stage.sync();
    assert_eq!(
        run["warnings"],
        json!([
            "stream \"time_activities\": left out, because the consent or the company's plan does not cover it"
        ]),
        "{run}"
    );
    stage.hosted().closed = None;
    stage.sync();
    stage.agrees();
    let sql = "UPDATE connectors SET config = config || '{\"streams\": [\"time_activities\"]}'";
    stage.client.batch_execute(sql).unwrap();
    stage.hosted().closed = closed();
    let run = stage.sync_anyhow();
    assert_eq!(run["error_code"], "permission_missing", "{run}");
}
