//! Stripe: lists newest first, no filter for changes, and events that say which objects changed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use connector_service_test::*;
use serde_json::{Value, json};

use crate::stage::*;

const VERSION: &str = "2026-10-28.endive";

#[derive(Clone)]
pub struct Object {
    /// The path of its list.
    list: &'static str,
    id: String,
    created: DateTime<Utc>,
    pub body: Value,
}

#[derive(Clone)]
struct Event {
    id: String,
    kind: String,
    created: DateTime<Utc>,
    object: Value,
}

pub struct Stripe {
    clock: Clock,
    pub objects: Vec<Object>,
    events: Vec<Event>,
    number: usize,
    pub page: usize,
    key: &'static str,
}

impl Stripe {
    pub fn new() -> Stripe {
        Stripe {
            clock: Clock::start(),
            objects: Vec::new(),
            events: Vec::new(),
            number: 0,
            page: 12,
            key: "sk_test_not_a_real_key",
        }
    }

    fn id(&mut self, prefix: &str) -> String {
        self.number += 1;
        format!("{prefix}_{:06}", self.number)
    }

    fn add(&mut self, list: &'static str, created: DateTime<Utc>, body: Value) -> Value {
        let id = body["id"].as_str().unwrap().to_owned();
        self.objects.push(Object {
            list,
            id,
            created,
            body: body.clone(),
        });
        body
    }

    fn tell(&mut self, kind: &str, created: DateTime<Utc>, object: &Value) {
        let id = self.id("evt");
        self.events.push(Event {
            id,
            kind: kind.to_owned(),
            created,
            object: object.clone(),
        });
    }

    fn of(&self, list: &str) -> Vec<&Object> {
        self.objects
            .iter()
            .filter(|object| object.list == list)
            .collect()
    }

    fn transaction(
        &mut self,
        created: DateTime<Utc>,
        category: &str,
        amount: i64,
        fee: i64,
        source: &Value,
    ) {
        let id = self.id("txn");
        let body = json!({
            "id": id, "object": "balance_transaction", "amount": amount, "fee": fee, "net": amount - fee,
            "currency": "usd", "created": created.timestamp(), "available_on": created.timestamp() + 172_800,
            "status": "pending", "type": category, "reporting_category": category, "source": source["id"],
        });
        self.add("balance_transactions", created, body);
    }

    fn sell(&mut self, random: &mut Random) {
        let at = self.clock.tick(random);
        let (id, amount) = (self.id("ch"), 100 + random.below(90_000) as i64);
        let charge = json!({
            "id": id, "object": "charge", "amount": amount, "amount_refunded": 0, "currency": "usd",
            "created": at.timestamp(), "livemode": true, "paid": true, "captured": true, "status": "succeeded",
            "payment_method_details": {"type": "card"},
        });
        let charge = self.add("charges", at, charge);
        self.transaction(at, "charge", amount, amount / 33 + 30, &charge);
        self.tell("charge.succeeded", at, &charge);
    }

    fn refund(&mut self, random: &mut Random) {
        let at = self.clock.tick(random);
        let charges: Vec<usize> = (0..self.objects.len())
            .filter(|i| self.objects[*i].list == "charges" && self.objects[*i].created <= at)
            .collect();
        if charges.is_empty() {
            return self.sell(random);
        }
        let charge = &mut self.objects[random.pick(&charges)].body;
        let left = charge["amount"].as_i64().unwrap() - charge["amount_refunded"].as_i64().unwrap();
        if left == 0 {
            return self.sell(random);
        }
        let amount = 1 + random.below(left as usize) as i64;
        charge["amount_refunded"] = (charge["amount_refunded"].as_i64().unwrap() + amount).into();
        let charge = charge.clone();
        let id = self.id("re");
        let refund = json!({
            "id": id, "object": "refund", "amount": amount, "charge": charge["id"], "currency": "usd",
            "created": at.timestamp(), "status": "pending",
        });
        let refund = self.add("refunds", at, refund);
        self.transaction(at, "refund", -amount, 0, &refund);
        self.tell("charge.refunded", at, &charge);
        self.tell("refund.created", at, &refund);
    }

    fn pay_out(&mut self, random: &mut Random) {
        let at = self.clock.tick(random);
        let id = self.id("po");
        let payout = json!({
            "id": id, "object": "payout", "amount": 5_000, "currency": "usd", "created": at.timestamp(), "status": "pending",
        });
        let payout = self.add("payouts", at, payout);
        self.transaction(at, "payout", -5_000, 0, &payout);
        self.tell("payout.created", at, &payout);
    }

    /// A payout or refund gets another status, without its date of creation being any other.
    fn move_on(&mut self, random: &mut Random) {
        let open: Vec<usize> = (0..self.objects.len())
            .filter(|i| {
                self.objects[*i].body["status"] == "pending"
                    && self.objects[*i].list != "balance_transactions"
            })
            .collect();
        if open.is_empty() {
            return self.pay_out(random);
        }
        let at = self.clock.tick(random);
        let object = &mut self.objects[random.pick(&open)];
        let is_payout = object.list == "payouts";
        object.body["status"] = if is_payout { "paid" } else { "succeeded" }.into();
        let body = object.body.clone();
        self.tell(
            if is_payout {
                "payout.paid"
            } else {
                "refund.updated"
            },
            at,
            &body,
        );
    }
}

impl Fake for Stripe {
    const KIND: &'static str = "stripe";
    const VERSION: &'static str = "coalesce(data ->> 'amount_refunded', data ->> 'status')";
    const SCALE: i64 = 100;

    fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    fn credentials(&self) -> Value {
        json!({"api_key": "sk_test_not_a_real_key"})
    }

    fn config(&self, url: &str) -> Value {
        json!({"requests_per_second": 1000, "base_url": url})
    }

    fn answer(&mut self, asked: &Asked) -> Result<Reply, Complaint> {
        need(asked.method == "GET", "only GET is asked for")?;
        need_header(asked, "stripe-version", VERSION)?;
        let key = format!("Bearer {}", self.key);
        if asked.headers.get("authorization") != Some(&key) {
            let error = json!({"error": {"type": "invalid_request_error", "message": "Invalid API Key provided"}});
            return Ok(refusal(401, &[], error));
        }
        let path = asked.path.strip_prefix("/v1/").ok_or("not below /v1")?;
        if let Some((list, id)) = path.split_once('/') {
            need(
                asked.pairs.is_empty(),
                "an object is read without parameters",
            )?;
            let found = self
                .objects
                .iter()
                .find(|object| object.list == list && object.id == id);
            return match found {
                Some(object) => json_reply(object.body.clone()),
                None => {
                    let error = json!({"error": {"type": "invalid_request_error", "code": "resource_missing", "param": "id"}});
                    Ok(refusal(404, &[], error))
                }
            };
        }
        let (mut from, mut to, mut limit, mut after) = (None, None, 10, None);
        let mut kinds = Vec::new();
        for (name, value) in &asked.pairs {
            match name.as_str() {
                "created[gte]" => {
                    from = Some(
                        value
                            .parse::<i64>()
                            .map_err(|_| "created[gte] is no number")?,
                    )
                }
                "created[lte]" => {
                    to = Some(
                        value
                            .parse::<i64>()
                            .map_err(|_| "created[lte] is no number")?,
                    )
                }
                "limit" => limit = value.parse().map_err(|_| "limit is no number")?,
                "starting_after" => after = Some(value.clone()),
                "types[]" if path == "events" => kinds.push(value.clone()),
                "expand[]" if path == "balance_transactions" && value == "data.source" => {}
                other => return Err(format!("parameter {other} = {value}")),
            }
        }
        need((1..=100).contains(&limit), "limit is not from 1 to 100")?;
        let (from, to) = (from.ok_or("no created[gte]")?, to.ok_or("no created[lte]")?);
        let mut rows: Vec<(i64, String, Value)> = if path == "events" {
            need(
                !kinds.is_empty() && kinds.len() <= 20,
                "events of no type, or of more than 20",
            )?;
            let events = self
                .events
                .iter()
                .filter(|event| kinds.contains(&event.kind));
            events
                .map(|event| {
                    // As it was then, in the shape of the account's own version.
                    let body = json!({
                        "id": event.id, "object": "event", "api_version": "2015-10-16", "type": event.kind,
                        "created": event.created.timestamp(), "data": {"object": event.object},
                    });
                    (event.created.timestamp(), event.id.clone(), body)
                })
                .collect()
        } else {
            let list = self.of(path);
            need(
                ["charges", "refunds", "payouts", "balance_transactions"].contains(&path),
                "no such list",
            )?;
            let expanded = |body: &Value| {
                let mut body = body.clone();
                let source = self
                    .objects
                    .iter()
                    .find(|object| body["source"] == object.id.as_str());
                if let Some(source) = source {
                    body["source"] = source.body.clone();
                }
                body
            };
            list.iter()
                .map(|object| {
                    (
                        object.created.timestamp(),
                        object.id.clone(),
                        expanded(&object.body),
                    )
                })
                .collect()
        };
        rows.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
        if let Some(after) = after {
            let Some(at) = rows.iter().position(|(_, id, _)| *id == after) else {
                let error = json!({"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such object", "param": "starting_after"}});
                return Ok(refusal(400, &[], error));
            };
            rows.drain(..=at);
        }
        rows.retain(|(created, _, _)| (from..=to).contains(created));
        let count = limit.min(self.page);
        let page: Vec<Value> = rows
            .iter()
            .take(count)
            .map(|(_, _, body)| body.clone())
            .collect();
        json_reply(
            json!({"object": "list", "url": asked.path, "has_more": rows.len() > count, "data": page}),
        )
    }

    fn change(&mut self, random: &mut Random) {
        match random.below(10) {
            0..4 => self.sell(random),
            4..7 => self.refund(random),
            7..8 => self.pay_out(random),
            _ => self.move_on(random),
        }
    }

    fn books(&self) -> Books {
        let mut books = Books::new();
        for object in self.of("balance_transactions") {
            let (body, day) = (&object.body, day(object.created));
            let amount = body["amount"].as_i64().unwrap();
            match body["reporting_category"].as_str().unwrap() {
                "charge" => *books.entry(("revenue".into(), day.clone())).or_default() += amount,
                "refund" => *books.entry(("costs".into(), day.clone())).or_default() -= amount,
                _ => {}
            }
            *books.entry(("costs".into(), day)).or_default() += body["fee"].as_i64().unwrap();
        }
        books
    }

    fn records(&self) -> BTreeMap<String, String> {
        let version = |body: &Value| match &body["amount_refunded"] {
            Value::Null => body["status"].as_str().unwrap().to_owned(),
            refunded => refunded.to_string(),
        };
        self.objects
            .iter()
            .map(|object| {
                (
                    format!("{}/{}", object.list, object.id),
                    version(&object.body),
                )
            })
            .collect()
    }
}

#[test]
fn stripe_follows_every_change() {
    Stage::new(Stripe::new()).follows_every_change(1);
}

#[test]
fn stripe_misses_nothing_that_changes_while_it_reads() {
    misses_nothing_that_changes_while_it_reads(|| Stage::new(Stripe::new()), 2, 6);
}

#[test]
fn stripe_s_failures_have_different_error_codes() {
    let mut stage = Stage::new(Stripe::new());
    stage.changes(40, &mut Random(3));
    let error = |kind: &str| json!({"error": {"type": kind, "message": "sk_test_not_a_real_key"}});
    // A short pause is waited for, contention and a server's trouble are tried again.
    stage.survives(
        1,
        refusal(429, &[("Retry-After", "0.2")], error("rate_limit")),
    );
    stage.survives(2, refusal(409, &[], error("idempotency_error")));
    stage.survives(0, refusal(500, &[], error("api_error")));
    stage.survives(
        1,
        refusal(400, &[("Stripe-Should-Retry", "true")], error("api_error")),
    );
    // The object that a page ended with is gone: the pass starts again.
    let gone = json!({"error": {"code": "resource_missing", "param": "starting_after"}});
    stage.survives(1, refusal(400, &[], gone));

    // A key that may not read one list reads the others.
    stage.changes(5, &mut Random(4));
    let asked = stage.vendor.asked().len();
    stage
        .hosted()
        .faults
        .push_back((0, refusal(403, &[], error("invalid_request_error"))));
    let run = stage.sync_anyhow();
    assert_eq!(run["error_code"], "permission_missing", "{run}");
    assert_eq!(
        run["error_message"],
        format!(
            "stream \"balance_transactions\": {}: HTTP 403 (the key may not read this stream)",
            stage.vendor.host()
        )
    );
    assert!(
        stage.vendor.asked().len() > asked + 3,
        "the other streams were read"
    );
    stage.sync();
    stage.agrees();

    // A list that is none, an error in a 200, and half a page.
    for (body, code) in [
        (
            r#"{"object": "list", "data": [], "error": {"type": "api_error"}}"#,
            "unexpected_shape",
        ),
        (r#"{"error": {"type": "api_error"}}"#, "unexpected_shape"),
        (
            r#"{"object": "list", "data": [{"id": "ch_1""#,
            "truncated_response",
        ),
    ] {
        for _ in 0..6 {
            stage
                .hosted()
                .faults
                .push_back((0, Reply::Json(body.to_owned())));
        }
        let run = stage.sync_anyhow();
        assert_eq!(run["error_code"], code, "{run}");
        stage.hosted().faults.clear();
    }
    stage.sync();
    stage.agrees();

    stage.hosted().fake.key = "sk_test_another_key";
    let run = stage.sync_anyhow();
    assert_eq!(run["error_code"], "credentials_rejected", "{run}");
}

#[test]
fn stripe_skips_streams_that_the_key_may_not_read_unless_they_were_chosen() {
    let mut stage = Stage::new(Stripe::new());
    stage.changes(5, &mut Random(8));
    let denied = || {
        refusal(
            403,
            &[],
            json!({"error": {"type": "invalid_request_error"}}),
        )
    };
    stage.hosted().faults.push_back((1, denied()));
    let run = stage.sync();
    assert_eq!(
        run["warnings"],
        json!(["stream \"charges\": left out, because the key may not read it"]),
        "{run}"
    );
    stage.sync();
    stage.agrees();
    let sql = "UPDATE connectors SET config = config || '{\"streams\": [\"charges\"]}'";
    stage.client.batch_execute(sql).unwrap();
    stage.hosted().faults.push_back((0, denied()));
    let run = stage.sync_anyhow();
    assert_eq!(run["error_code"], "permission_missing", "{run}");
}

#[test]
fn stripe_s_rate_limit_pauses_the_account_even_after_a_restart() {
    let mut stage = Stage::new(Stripe::new());
    stage.changes(20, &mut Random(5));
    let error = json!({"error": {"type": "invalid_request_error", "code": "rate_limit"}});
    stage.waits_when_throttled(0, refusal(429, &[("Retry-After", "3600")], error));
}

#[test]
fn a_run_that_has_waited_for_a_day_fails_and_names_the_reason() {
    let mut stage = Stage::new(Stripe::new());
    stage.changes(5, &mut Random(9));
    let limited = || refusal(429, &[("Retry-After", "3600")], json!({"error": {}}));
    stage.hosted().faults.push_back((0, limited()));
    let run = stage.sync_anyhow();
    assert_eq!(run["state"], "queued", "{run}");
    let sql = "UPDATE sync_runs SET started_at = now() - interval '25 hours'";
    stage.client.batch_execute(sql).unwrap();
    // Once more than is needed: the restart may cut off the attempt that got the first of them.
    for _ in 0..2 {
        stage.hosted().faults.push_back((0, limited()));
    }
    stage.end_rest();
    let id = run["run_id"].as_str().unwrap().to_owned();
    let client = &mut stage.client;
    let run = wait_until(60, "the run fails", || {
        Some(run_of(client, &id)).filter(|run| run["state"] == "failed")
    });
    assert_eq!(run["error_code"], "rate_limited", "{run}");
    let message = run["error_message"].as_str().unwrap();
    assert!(message.contains("HTTP 429"), "{message}");
}

#[test]
fn stripe_s_objects_that_lose_or_gain_a_field_are_stored_unchanged() {
    let mut stage = Stage::new(Stripe::new());
    stage.changes(30, &mut Random(6));
    stage.sync();
    for object in &mut stage.hosted().fake.objects {
        object.body["brand_new"] = json!({"nested": [1, 2.50]});
        object.body.as_object_mut().unwrap().remove("paid");
    }
    stage.changes(10, &mut Random(7));
    stage.sync();
    stage.agrees();
    let sql = "SELECT count(*) FROM raw_connector_data WHERE data #>> '{brand_new,nested,1}' = '2.5' AND NOT data ? 'paid'";
    assert!(stage.client.query_one(sql, &[]).unwrap().get::<_, i64>(0) > 0);
}
