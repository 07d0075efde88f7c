//! Stripe: lists newest first, no filter for changes, and events that say which objects changed.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use connector_service_test::*;
use serde_json::{Value, json};

use crate::stage::*;

const VERSION: &str = "2026-10-28.endive";

/// The parameters that every list has.
pub const USUAL: &[&str] = &[
    "limit",
    "starting_after",
    "ending_before",
    "expand",
    "created",
];

/// The lists, and the other parameters that they have: `judge.py` compares them with the official package's.
pub const LISTS: &[(&str, &[&str])] = &[
    (
        "balance_transactions",
        &["currency", "payout", "source", "type"],
    ),
    ("charges", &["customer", "payment_intent", "transfer_group"]),
    ("refunds", &["charge", "payment_intent"]),
    ("payouts", &["arrival_date", "destination", "status"]),
    ("disputes", &["charge", "payment_intent"]),
    (
        "invoices",
        &[
            "collection_method",
            "customer",
            "customer_account",
            "due_date",
            "status",
            "subscription",
        ],
    ),
    ("payment_intents", &["customer", "customer_account"]),
    (
        "subscriptions",
        &[
            "automatic_tax",
            "collection_method",
            "current_period_end",
            "current_period_start",
            "customer",
            "customer_account",
            "plan",
            "price",
            "status",
            "test_clock",
        ],
    ),
    ("products", &["active", "ids", "shippable", "type", "url"]),
    (
        "prices",
        &[
            "active",
            "currency",
            "lookup_keys",
            "product",
            "recurring",
            "type",
        ],
    ),
    ("customers", &["email", "test_clock"]),
    ("events", &["delivery_success", "type", "types"]),
];

/// The streams that are read where nobody chose.
const DEFAULT: [&str; 4] = ["balance_transactions", "charges", "refunds", "payouts"];

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
    /// Customers that were deleted: they are still told of, as deleted.
    gone: BTreeSet<String>,
    number: usize,
    pub page: usize,
    key: &'static str,
    /// Whether every stream is read, and not those alone that are read where nobody chose.
    pub has_all: bool,
}

impl Stripe {
    pub fn new() -> Stripe {
        Stripe {
            clock: Clock::start(),
            objects: Vec::new(),
            events: Vec::new(),
            gone: BTreeSet::new(),
            number: 0,
            page: 12,
            key: "sk_test_not_a_real_key",
            has_all: false,
        }
    }

    pub fn with_all() -> Stripe {
        Stripe {
            has_all: true,
            ..Stripe::new()
        }
    }

    fn streams(&self) -> Vec<&'static str> {
        let lists = LISTS.iter().map(|(list, _)| *list);
        lists
            .filter(|list| *list != "events" && (self.has_all || DEFAULT.contains(list)))
            .collect()
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

    fn any(&self, random: &mut Random, list: &str, fits: impl Fn(&Value) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.objects.len())
            .filter(|i| self.objects[*i].list == list && fits(&self.objects[*i].body))
            .collect();
        (!all.is_empty()).then(|| random.pick(&all))
    }

    fn transaction(
        &mut self,
        random: &mut Random,
        created: DateTime<Utc>,
        category: &str,
        amount: i64,
        fee: i64,
        source: &Value,
    ) {
        let id = self.id("txn");
        let due = created.timestamp() + random.pick(&[0, 0, 172_800]);
        let body = json!({
            "id": id, "object": "balance_transaction", "amount": amount, "fee": fee, "net": amount - fee,
            "currency": "usd", "created": created.timestamp(), "available_on": due, "description": null,
            "exchange_rate": null, "fee_details": [], "balance_type": "payments",
            "status": "pending", "type": category, "reporting_category": category, "source": source["id"],
        });
        self.add("balance_transactions", created, body);
    }

    fn sell(&mut self, random: &mut Random) {
        let at = self.clock.tick(random);
        let amount = 100 + random.below(90_000) as i64;
        self.charge(random, at, amount);
    }

    pub fn charge(&mut self, random: &mut Random, at: DateTime<Utc>, amount: i64) {
        let id = self.id("ch");
        let charge = json!({
            "id": id, "object": "charge", "amount": amount, "amount_captured": amount, "amount_refunded": 0,
            "currency": "usd", "created": at.timestamp(), "disputed": false, "livemode": true, "metadata": {},
            "paid": true, "captured": true, "refunded": false, "status": "succeeded",
            "payment_method_details": {"type": "card"},
        });
        let charge = self.add("charges", at, charge);
        self.transaction(random, at, "charge", amount, amount / 33 + 30, &charge);
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
            "created": at.timestamp(), "metadata": {}, "reason": null, "status": "pending",
        });
        let refund = self.add("refunds", at, refund);
        self.transaction(random, at, "refund", -amount, 0, &refund);
        self.tell("charge.refunded", at, &charge);
        self.tell("refund.created", at, &refund);
    }

    /// A refund that does not reach the customer gives the money back. Its charge has no event.
    fn fail_refund(&mut self, random: &mut Random) {
        let Some(index) = self.any(random, "refunds", |body| body["status"] == "pending") else {
            return self.refund(random);
        };
        let at = self.clock.tick(random);
        let refund = &mut self.objects[index].body;
        refund["status"] = "failed".into();
        let refund = refund.clone();
        let amount = refund["amount"].as_i64().unwrap();
        let charge = self
            .objects
            .iter_mut()
            .find(|object| refund["charge"] == object.id.as_str());
        let charge = &mut charge.unwrap().body;
        charge["amount_refunded"] = (charge["amount_refunded"].as_i64().unwrap() - amount).into();
        self.transaction(random, at, "refund_failure", amount, 0, &refund);
        self.tell("refund.failed", at, &refund);
    }

    fn dispute(&mut self, random: &mut Random) {
        let Some(index) = self.any(random, "charges", |body| body["disputed"] == false) else {
            return self.sell(random);
        };
        let at = self.clock.tick(random);
        let id = self.id("du");
        let charge = &mut self.objects[index].body;
        charge["disputed"] = true.into();
        let amount = charge["amount"].as_i64().unwrap();
        let dispute = json!({
            "id": id, "object": "dispute", "amount": amount, "charge": charge["id"], "currency": "usd",
            "created": at.timestamp(), "livemode": true, "metadata": {}, "reason": "fraudulent",
            "status": "needs_response",
        });
        let dispute = self.add("disputes", at, dispute);
        self.transaction(random, at, "dispute", -amount, 1_500, &dispute);
        self.tell("charge.dispute.created", at, &dispute);
    }

    fn pay_out(&mut self, random: &mut Random) {
        let at = self.clock.tick(random);
        let id = self.id("po");
        let payout = json!({
            "id": id, "object": "payout", "amount": 5_000, "arrival_date": at.timestamp() + 86_400, "currency": "usd",
            "created": at.timestamp(), "description": null, "livemode": true, "metadata": {}, "status": "pending",
        });
        let payout = self.add("payouts", at, payout);
        self.transaction(random, at, "payout", -5_000, 0, &payout);
        self.tell("payout.created", at, &payout);
    }

    /// Something that others refer to: it may be older than what is read at first.
    fn register(&mut self, random: &mut Random) {
        let mut at = self.clock.tick(random);
        if at < Utc::now() - TimeDelta::minutes(30) {
            at -= TimeDelta::days(random.below(500) as i64);
        }
        let created = at.timestamp();
        let (list, kind, body) = match random.below(5) {
            0..2 => (
                "customers",
                "customer.created",
                json!({"id": self.id("cus"), "object": "customer", "created": created, "description": null,
                    "email": "a@example.com", "livemode": true, "metadata": {}, "name": "A"}),
            ),
            2 => (
                "products",
                "product.created",
                json!({"id": self.id("prod"), "object": "product", "active": true, "created": created,
                    "description": null, "livemode": true, "metadata": {}, "name": "Tea"}),
            ),
            3 => (
                "prices",
                "price.created",
                json!({"id": self.id("price"), "object": "price", "active": true, "created": created,
                    "currency": "usd", "livemode": true, "metadata": {}, "nickname": null, "unit_amount": 500}),
            ),
            _ => (
                "subscriptions",
                "customer.subscription.created",
                json!({"id": self.id("sub"), "object": "subscription", "created": created, "currency": "usd",
                    "description": null, "livemode": true, "metadata": {}, "status": "active"}),
            ),
        };
        let body = self.add(list, at, body);
        self.tell(kind, at, &body);
    }

    fn intend(&mut self, random: &mut Random) {
        let at = self.clock.tick(random);
        let created = at.timestamp();
        if random.percent(50) {
            let invoice = json!({"id": self.id("in"), "object": "invoice", "amount_due": 500, "created": created,
                "currency": "usd", "description": null, "livemode": true, "metadata": {}, "status": "draft"});
            let invoice = self.add("invoices", at, invoice);
            return self.tell("invoice.created", at, &invoice);
        }
        let intent = json!({"id": self.id("pi"), "object": "payment_intent", "amount": 500, "created": created,
            "currency": "usd", "description": null, "livemode": true, "metadata": {},
            "status": "requires_payment_method"});
        let intent = self.add("payment_intents", at, intent);
        self.tell("payment_intent.created", at, &intent);
    }

    /// An object gets another state, without its date of creation being any other.
    fn move_on(&mut self, random: &mut Random) {
        let steps = [
            ("payouts", "pending", "in_transit", "payout.updated"),
            ("payouts", "in_transit", "paid", "payout.paid"),
            ("payouts", "paid", "failed", "payout.failed"),
            ("refunds", "pending", "succeeded", "refund.updated"),
            (
                "disputes",
                "needs_response",
                "under_review",
                "charge.dispute.updated",
            ),
            ("disputes", "under_review", "won", "charge.dispute.closed"),
            ("invoices", "draft", "open", "invoice.finalized"),
            ("invoices", "open", "paid", "invoice.paid"),
            ("invoices", "open", "void", "invoice.voided"),
            (
                "payment_intents",
                "requires_payment_method",
                "requires_action",
                "payment_intent.requires_action",
            ),
            (
                "payment_intents",
                "requires_action",
                "processing",
                "payment_intent.processing",
            ),
            (
                "payment_intents",
                "processing",
                "succeeded",
                "payment_intent.succeeded",
            ),
            (
                "payment_intents",
                "requires_action",
                "canceled",
                "payment_intent.canceled",
            ),
            (
                "subscriptions",
                "active",
                "past_due",
                "customer.subscription.updated",
            ),
            (
                "subscriptions",
                "past_due",
                "canceled",
                "customer.subscription.deleted",
            ),
        ];
        let (list, from, to, kind) = random.pick(&steps);
        let Some(index) = self.any(random, list, |body| body["status"] == from) else {
            return self.pay_out(random);
        };
        let at = self.clock.tick(random);
        let object = &mut self.objects[index];
        object.body["status"] = to.into();
        let body = object.body.clone();
        if to == "won" {
            let amount = body["amount"].as_i64().unwrap();
            self.transaction(random, at, "dispute_reversal", amount, 0, &body);
        }
        self.tell(kind, at, &body);
    }

    fn edit(&mut self, random: &mut Random) {
        let (list, kind) = random.pick(&[
            ("customers", "customer.updated"),
            ("products", "product.updated"),
            ("prices", "price.updated"),
        ]);
        let Some(index) = self.any(random, list, |_| true) else {
            return self.register(random);
        };
        let at = self.clock.tick(random);
        self.number += 1;
        let number = self.number;
        let body = &mut self.objects[index].body;
        let field = if list == "prices" { "nickname" } else { "name" };
        body[field] = format!("Name {number}").into();
        let body = body.clone();
        self.tell(kind, at, &body);
    }
}

impl Fake for Stripe {
    const KIND: &'static str = "stripe";
    const VERSION: &'static str = "concat_ws('|', data ->> 'status', data ->> 'amount_refunded', data ->> 'disputed', data ->> 'name', data ->> 'nickname')";
    const SCALE: i64 = 100;

    fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    fn credentials(&self) -> Value {
        json!({"api_key": "sk_test_not_a_real_key"})
    }

    fn config(&self, url: &str) -> Value {
        let config = json!({"requests_per_second": 1000, "base_url": url});
        match self.has_all {
            false => config,
            true => {
                let mut config = config;
                config["streams"] = self.streams().into();
                config
            }
        }
    }

    fn stream_of(&self, asked: &Asked) -> Option<String> {
        let path = asked.path.strip_prefix("/v1/")?;
        if path != "events" {
            return path.split('/').next().map(str::to_owned);
        }
        let first = &asked.pairs.iter().find(|(name, _)| name == "types[]")?.1;
        let streams = [
            ("charge.dispute", "disputes"),
            ("charge", "charges"),
            ("refund", "refunds"),
            ("payout", "payouts"),
            ("invoice", "invoices"),
            ("payment_intent", "payment_intents"),
            ("customer.subscription", "subscriptions"),
            ("product", "products"),
            ("price", "prices"),
            ("customer", "customers"),
        ];
        let stream = streams.iter().find(|(kind, _)| first.starts_with(kind));
        stream.map(|(_, stream)| (*stream).to_owned())
    }

    fn denies(&self) -> Reply {
        let error = json!({"error": {"type": "invalid_request_error", "message": "The provided key does not have the required permissions"}});
        refusal(403, &[], error)
    }

    fn delete(&mut self, random: &mut Random) -> bool {
        if !self.has_all {
            return false;
        }
        let (list, kind) = random.pick(&[
            ("customers", "customer.deleted"),
            ("customers", "customer.deleted"),
            ("products", "product.deleted"),
            ("prices", "price.deleted"),
            ("invoices", "invoice.deleted"),
        ]);
        let fits = |body: &Value| list != "invoices" || body["status"] == "draft";
        let Some(index) = self.any(random, list, fits) else {
            return false;
        };
        let at = self.clock.tick(random);
        let object = self.objects.remove(index);
        self.tell(kind, at, &object.body);
        match list {
            "customers" => {
                self.gone.insert(object.id);
            }
            // A product's id is the merchant's own, and may be given again at once.
            "products" if random.percent(50) => {
                let mut body = object.body;
                body["created"] = at.timestamp().into();
                body["name"] = "Another".into();
                let body = self.add("products", at, body);
                self.tell("product.created", at, &body);
            }
            _ => {}
        }
        true
    }

    /// What is pending in the ledger becomes available, and nothing tells.
    fn settle(&mut self, random: &mut Random) -> bool {
        let now = Utc::now().timestamp();
        let is_due = |body: &Value| {
            body["status"] == "pending" && body["available_on"].as_i64().unwrap() <= now
        };
        let Some(index) = self.any(random, "balance_transactions", is_due) else {
            return false;
        };
        self.objects[index].body["status"] = "available".into();
        true
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
                None if self.gone.contains(id) => {
                    json_reply(json!({"id": id, "object": "customer", "deleted": true}))
                }
                None => {
                    let error = json!({"error": {"type": "invalid_request_error", "code": "resource_missing", "param": "id"}});
                    Ok(refusal(404, &[], error))
                }
            };
        }
        let known = LISTS.iter().find(|(list, _)| *list == path);
        let (_, known) = known.ok_or("no such list")?;
        let number = |value: &str| {
            value
                .parse::<i64>()
                .map_err(|_| format!("{value} is no number"))
        };
        let (mut from, mut to, mut limit, mut after) = (i64::MIN, i64::MAX, 10, None);
        let (mut kinds, mut status, mut is_expanded) = (Vec::new(), None, false);
        for (name, value) in &asked.pairs {
            let (name, inner) = name.split_once('[').unwrap_or((name, ""));
            need(
                USUAL.contains(&name) || known.contains(&name),
                &format!("parameter {name} is not known"),
            )?;
            match (name, inner) {
                ("created", "gte]") => from = number(value)?,
                ("created", "lte]") => to = number(value)?,
                ("limit", "") => limit = number(value)?,
                ("starting_after", "") => after = Some(value.clone()),
                ("types", "]") => kinds.push(value.clone()),
                ("status", "") => status = Some(value.clone()),
                ("expand", "]") if path == "balance_transactions" && value == "data.source" => {
                    is_expanded = true;
                }
                other => return Err(format!("parameter {other:?} = {value}")),
            }
        }
        need((1..=100).contains(&limit), "limit is not from 1 to 100")?;
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
                        "created": event.created.timestamp(), "data": {"object": event.object}, "livemode": true,
                        "pending_webhooks": 0, "request": null,
                    });
                    (event.created.timestamp(), event.id.clone(), body)
                })
                .collect()
        } else {
            let list = self.of(path);
            let expanded = |body: &Value| {
                let mut body = body.clone();
                let source = self
                    .objects
                    .iter()
                    .find(|object| is_expanded && body["source"] == object.id.as_str());
                if let Some(source) = source {
                    body["source"] = source.body.clone();
                }
                body
            };
            // Subscriptions that were cancelled are hidden unless all are asked for.
            let is_hidden = |body: &Value| {
                path == "subscriptions"
                    && body["status"] == "canceled"
                    && status.as_deref() != Some("all")
            };
            list.iter()
                .filter(|object| !is_hidden(&object.body))
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
        let count = (limit as usize).min(self.page);
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
        match random.below(if self.has_all { 20 } else { 12 }) {
            0..4 => self.sell(random),
            4..7 => self.refund(random),
            7 => self.fail_refund(random),
            8 => self.dispute(random),
            9 => self.pay_out(random),
            10..12 => self.move_on(random),
            12..15 => self.register(random),
            15..17 => self.edit(random),
            17..19 => self.move_on(random),
            _ => self.intend(random),
        }
    }

    fn books(&self) -> Books {
        let mut books = Books::new();
        for object in self.of("balance_transactions") {
            let (body, day) = (&object.body, day(object.created));
            let amount = body["amount"].as_i64().unwrap();
            match body["reporting_category"].as_str().unwrap() {
                "charge" => *books.entry(("revenue".into(), day.clone())).or_default() += amount,
                "refund" | "refund_failure" | "dispute" | "dispute_reversal" => {
                    *books.entry(("costs".into(), day.clone())).or_default() -= amount;
                }
                _ => {}
            }
            *books.entry(("costs".into(), day)).or_default() += body["fee"].as_i64().unwrap();
        }
        // A day whose net is below zero has no metric, and an alert.
        books.retain(|_, amount| *amount > 0);
        books
    }

    fn records(&self) -> BTreeMap<String, String> {
        let version = |body: &Value| {
            let fields = ["status", "amount_refunded", "disputed", "name", "nickname"];
            let texts = fields.iter().filter_map(|field| match &body[*field] {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            });
            texts.collect::<Vec<String>>().join("|")
        };
        let streams = self.streams();
        self.objects
            .iter()
            .filter(|object| streams.contains(&object.list))
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
    Stage::new(Stripe::with_all()).follows_every_change(101);
}

#[test]
fn stripe_misses_nothing_that_changes_while_it_reads() {
    misses_nothing_that_changes_while_it_reads(|| Stage::new(Stripe::with_all()), 2, 6);
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

#[test]
fn stripe_s_objects_that_went_without_an_event_are_found_by_a_refresh() {
    for stream in ["customers", "charges", "balance_transactions"] {
        Stage::new(Stripe::with_all()).finds_by_a_refresh(stream, |stripe| {
            let list = |object: &Object| object.list == stream;
            let index = stripe.objects.iter().position(list).unwrap();
            stripe.objects.remove(index);
        });
    }
}

#[test]
fn stripe_s_deletions_of_a_time_whose_events_are_gone_are_found_all_the_same() {
    let mut stage = Stage::new(Stripe::with_all());
    stage.changes(120, &mut Random(72));
    stage.sync();
    stage.agrees();
    {
        let stripe = &mut stage.hosted().fake;
        for list in ["customers", "products", "prices"] {
            let index = stripe.objects.iter().position(|object| object.list == list);
            stripe.objects.remove(index.unwrap());
        }
        stripe.events.clear();
    }
    // As if the last pass were of before what Stripe keeps.
    let sql = "UPDATE sync_state SET cursor = jsonb_set(cursor, '{read_until}', to_jsonb(now() - interval '40 days'))";
    stage.client.batch_execute(sql).unwrap();
    let run = stage.sync();
    assert_eq!(run["deleted"], 3, "{run}");
    stage.agrees();
}
