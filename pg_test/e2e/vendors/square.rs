//! Square: locations one by one, searches with their cursor in the body, hours and customers that go without a trace, and
//! payouts that arrive later.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use connector_service_test::*;
use serde_json::{Value, json};

use crate::stage::*;

const VERSION: &str = "2026-09-16";
const LOCATIONS: usize = 12;

/// What each request may say: the parameters of a list, or the fields of a search. `judge.py` compares them with the
/// official package's.
pub const ENDPOINTS: &[(&str, &[&str])] = &[
    ("/v2/locations", &[]),
    (
        "/v2/payments",
        &[
            "begin_time",
            "end_time",
            "sort_order",
            "cursor",
            "location_id",
            "total",
            "last4",
            "card_brand",
            "limit",
            "is_offline_payment",
            "offline_begin_time",
            "offline_end_time",
            "updated_at_begin_time",
            "updated_at_end_time",
            "sort_field",
        ],
    ),
    (
        "/v2/refunds",
        &[
            "begin_time",
            "end_time",
            "sort_order",
            "cursor",
            "location_id",
            "status",
            "source_type",
            "limit",
            "updated_at_begin_time",
            "updated_at_end_time",
            "sort_field",
        ],
    ),
    (
        "/v2/payouts",
        &[
            "location_id",
            "status",
            "begin_time",
            "end_time",
            "sort_order",
            "cursor",
            "limit",
        ],
    ),
    (
        "/v2/customers",
        &["cursor", "limit", "sort_field", "sort_order", "count"],
    ),
    (
        "/v2/orders/search",
        &["location_ids", "cursor", "query", "limit", "return_entries"],
    ),
    (
        "/v2/inventory/counts/batch-retrieve",
        &[
            "catalog_object_ids",
            "location_ids",
            "updated_after",
            "cursor",
            "states",
            "limit",
        ],
    ),
    ("/v2/team-members/search", &["query", "limit", "cursor"]),
    ("/v2/labor/timecards/search", &["query", "limit", "cursor"]),
    (
        "/v2/catalog/search",
        &[
            "cursor",
            "object_types",
            "include_deleted_objects",
            "include_related_objects",
            "begin_time",
            "query",
            "limit",
            "include_category_path_to_root",
            "include_options",
        ],
    ),
];

const STREAMS: [&str; 10] = [
    "locations",
    "payments",
    "refunds",
    "orders",
    "inventory_counts",
    "team_members",
    "timecards",
    "payouts",
    "customers",
    "catalog_objects",
];
/// So many of these are read where nobody chose.
const DEFAULT: usize = 7;

struct Object {
    list: &'static str,
    location: String,
    updated: DateTime<Utc>,
    body: Value,
}

/// A list that is being paged: what was asked for, and the rest.
struct Cursor {
    asked: String,
    rest: Vec<Value>,
}

pub struct Square {
    clock: Clock,
    objects: Vec<Object>,
    cursors: HashMap<String, Cursor>,
    number: usize,
    page: usize,
    oauth: bool,
    tokens: Tokens,
    /// Whether every stream is read, and not those alone that are read where nobody chose.
    has_all: bool,
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn moment(text: &str) -> Result<DateTime<Utc>, Complaint> {
    text.parse()
        .map_err(|_| format!("{text} is no RFC 3339 time"))
}

impl Square {
    pub fn new() -> Square {
        Square {
            clock: Clock::start(),
            objects: Vec::new(),
            cursors: HashMap::new(),
            number: 0,
            page: 4,
            oauth: false,
            tokens: Tokens::default(),
            has_all: false,
        }
    }

    pub fn with_all() -> Square {
        Square {
            has_all: true,
            ..Square::new()
        }
    }

    fn streams(&self) -> &'static [&'static str] {
        match self.has_all {
            true => &STREAMS,
            false => &STREAMS[..DEFAULT],
        }
    }

    fn id(&mut self, prefix: &str) -> String {
        self.number += 1;
        format!("{prefix}{}", self.number)
    }

    fn locations() -> Vec<Value> {
        let location = |i| json!({"id": format!("L{i}"), "name": format!("Shop {i}"), "status": if i == 3 { "INACTIVE" } else { "ACTIVE" }, "timezone": "America/New_York", "currency": "USD"});
        (0..LOCATIONS).map(location).collect()
    }

    fn pick(
        &self,
        random: &mut Random,
        list: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Option<usize> {
        let all: Vec<usize> = (0..self.objects.len())
            .filter(|i| self.objects[*i].list == list && fits(&self.objects[*i].body))
            .collect();
        (!all.is_empty()).then(|| random.pick(&all))
    }

    fn add(&mut self, random: &mut Random, list: &'static str, prefix: &str, mut body: Value) {
        let at = self.clock.tick(random);
        let location = format!("L{}", random.below(LOCATIONS));
        body["id"] = self.id(prefix).into();
        if !["team_members", "customers", "catalog_objects"].contains(&list) {
            body["location_id"] = location.clone().into();
        }
        if list != "catalog_objects" {
            body["created_at"] = text(at).into();
        }
        body["updated_at"] = text(at).into();
        self.objects.push(Object {
            list,
            location,
            updated: at,
            body,
        });
    }

    fn touch(&mut self, random: &mut Random, index: usize, change: impl Fn(&mut Value)) {
        let at = self.clock.tick(random);
        let object = &mut self.objects[index];
        object.updated = at;
        change(&mut object.body);
        object.body["updated_at"] = text(at).into();
    }

    /// One page of a list, and the cursor to the next.
    fn page(
        &mut self,
        asked: &str,
        cursor: Option<&str>,
        name: &str,
        all: impl Fn(&Self) -> Vec<Value>,
    ) -> Result<Reply, Complaint> {
        let rest = match cursor {
            None => all(self),
            Some(cursor) => {
                let Some(kept) = self.cursors.remove(cursor) else {
                    let error = json!({"errors": [{"category": "INVALID_REQUEST_ERROR", "code": "INVALID_CURSOR", "detail": "The cursor is over."}]});
                    return Ok(refusal(400, &[], error));
                };
                need(
                    kept.asked == asked,
                    "a page is asked for with other parameters than the first",
                )?;
                kept.rest
            }
        };
        let (page, rest) = rest.split_at(rest.len().min(self.page));
        let mut body = json!({});
        // Where there is nothing, the list is left out.
        if !page.is_empty() {
            body[name] = page.into();
        }
        if !rest.is_empty() {
            let cursor = self.id("cursor");
            body["cursor"] = cursor.clone().into();
            let (asked, rest) = (asked.to_owned(), rest.to_vec());
            self.cursors.insert(cursor, Cursor { asked, rest });
        }
        json_reply(body)
    }

    /// Bodies of a list that fit, by their change.
    fn list(&self, list: &str, fits: impl Fn(&Object) -> bool) -> Vec<Value> {
        let mut found: Vec<&Object> = self
            .objects
            .iter()
            .filter(|object| object.list == list && fits(object))
            .collect();
        found.sort_by_key(|object| object.updated);
        found
            .into_iter()
            .map(|object| object.body.clone())
            .collect()
    }

    /// The same by their creation, which no edit changes.
    fn by_creation(&self, list: &str, fits: impl Fn(&Object) -> bool) -> Vec<Value> {
        let mut found = self.list(list, fits);
        found.sort_by_key(|body| body["created_at"].as_str().unwrap().to_owned());
        found
    }

    /// What a request says that its endpoint does not know is refused.
    fn knows<'a>(asked: &Asked, names: impl Iterator<Item = &'a String>) -> Result<(), Complaint> {
        let endpoint = ENDPOINTS.iter().find(|(path, _)| *path == asked.path);
        let (_, known) = endpoint.ok_or_else(|| format!("nothing at {}", asked.path))?;
        for name in names {
            need(
                known.contains(&name.as_str()),
                &format!("{name} is not known"),
            )?;
        }
        Ok(())
    }

    fn get(&mut self, asked: &Asked) -> Result<Reply, Complaint> {
        Square::knows(asked, asked.query.keys())?;
        let mut parameters = asked.pairs.clone();
        parameters.retain(|(name, _)| name != "cursor");
        let asked_for = format!("{} {parameters:?}", asked.path);
        let value = |name: &str| asked.query.get(name).cloned();
        let cursor = value("cursor");
        let list = match asked.path.as_str() {
            "/v2/locations" => {
                return json_reply(json!({"locations": Square::locations()}));
            }
            "/v2/payments" => "payments",
            "/v2/refunds" => "refunds",
            "/v2/customers" => {
                if !(1..=100).contains(&asked.number("limit")) {
                    let error = json!({"errors": [{"category": "INVALID_REQUEST_ERROR", "code": "VALUE_TOO_HIGH", "field": "limit"}]});
                    return Ok(refusal(400, &[], error));
                }
                need(
                    value("sort_field").as_deref() == Some("CREATED_AT"),
                    "an order that an edit changes",
                )?;
                return self.page(&asked_for, cursor.as_deref(), "customers", |square| {
                    square.by_creation("customers", |_| true)
                });
            }
            "/v2/payouts" => {
                // Of the main location, and of one year, unless something else is said.
                let place = value("location_id").unwrap_or("L0".to_owned());
                let from = moment(&value("begin_time").ok_or("no beginning")?)?;
                let to = moment(&value("end_time").ok_or("no end")?)?;
                return self.page(&asked_for, cursor.as_deref(), "payouts", |square| {
                    square.by_creation("payouts", |object| {
                        let made = moment(object.body["created_at"].as_str().unwrap()).unwrap();
                        object.location == place && made >= from && made < to
                    })
                });
            }
            other => return Err(format!("no list at {other}")),
        };
        need(
            value("sort_field").as_deref() == Some("UPDATED_AT"),
            "not sorted by change",
        )?;
        need(
            value("sort_order").as_deref() == Some("ASC"),
            "newest first, by default",
        )?;
        need(asked.number("limit") == 100, "limit is not 100")?;
        let year_ago = Utc::now() - TimeDelta::days(365);
        let begin = value("begin_time").map_or(Ok(year_ago), |text| moment(&text))?;
        need(
            begin < year_ago,
            "what was created more than a year ago is left out",
        )?;
        let from = moment(&value("updated_at_begin_time").ok_or("no beginning")?)?;
        let to = moment(&value("updated_at_end_time").ok_or("no end")?)?;
        // The main location, unless one is named; refunds of all of them.
        let location = match (list, value("location_id")) {
            ("payments", location) => Some(location.unwrap_or("L0".to_owned())),
            (_, location) => location,
        };
        self.page(&asked_for, value("cursor").as_deref(), list, |square| {
            square.list(list, |object| {
                object.updated >= from
                    && object.updated <= to
                    && location
                        .as_ref()
                        .is_none_or(|place| *place == object.location)
            })
        })
    }

    fn post(&mut self, asked: &Asked) -> Result<Reply, Complaint> {
        need(
            asked.pairs.is_empty(),
            "a search has its parameters in the body: elsewhere the cursor is ignored",
        )?;
        need_header(asked, "content-type", "application/json")?;
        let mut body: Value =
            serde_json::from_str(&asked.body).map_err(|_| "the body is no JSON")?;
        let fields = body.as_object().ok_or("the body is no object")?;
        Square::knows(asked, fields.keys())?;
        let cursor = body
            .as_object_mut()
            .and_then(|fields| fields.remove("cursor"));
        let cursor = cursor.as_ref().and_then(Value::as_str);
        let asked_for = format!("{} {body}", asked.path);
        match asked.path.as_str() {
            "/v2/orders/search" => {
                let locations: Vec<String> = serde_json::from_value(body["location_ids"].clone())
                    .map_err(|_| "no location_ids")?;
                need(
                    (1..=10).contains(&locations.len()),
                    "not one to ten locations",
                )?;
                need(body["limit"] == 500, "limit is not 500")?;
                need(
                    body["query"]["sort"]
                        == json!({"sort_field": "UPDATED_AT", "sort_order": "ASC"}),
                    "sorted by another field than filtered",
                )?;
                let span = &body["query"]["filter"]["date_time_filter"]["updated_at"];
                let from = moment(span["start_at"].as_str().unwrap_or_default())?;
                let to = moment(span["end_at"].as_str().unwrap_or_default())?;
                self.page(&asked_for, cursor, "orders", |square| {
                    square.list("orders", |object| {
                        object.updated >= from
                            && object.updated <= to
                            && locations.contains(&object.location)
                    })
                })
            }
            "/v2/inventory/counts/batch-retrieve" => {
                let after = body["updated_after"].as_str().map(moment).transpose()?;
                self.page(&asked_for, cursor, "counts", |square| {
                    let mut counts = square.list("inventory_counts", |object| {
                        after.is_none_or(|after| object.updated > after)
                    });
                    counts.reverse();
                    counts
                })
            }
            "/v2/team-members/search" => self.page(&asked_for, cursor, "team_members", |square| {
                square.list("team_members", |_| true)
            }),
            "/v2/labor/timecards/search" => {
                let sort = &body["query"]["sort"];
                need(
                    body["query"] == json!({"sort": sort}),
                    "hours have no filter by change",
                )?;
                need(
                    sort == &json!({"field": "CREATED_AT", "order": "ASC"}),
                    "an order that an edit changes",
                )?;
                self.page(&asked_for, cursor, "timecards", |square| {
                    square.by_creation("timecards", |_| true)
                })
            }
            "/v2/catalog/search" => {
                let kinds: Vec<String> = serde_json::from_value(body["object_types"].clone())
                    .map_err(|_| "no object_types")?;
                // The time itself is left out.
                let after = body["begin_time"].as_str().map(moment).transpose()?;
                let has_gone = body["include_deleted_objects"] == true;
                self.page(&asked_for, cursor, "objects", |square| {
                    square.list("catalog_objects", |object| {
                        let kind = object.body["type"].as_str().unwrap();
                        let is_gone = object.body["is_deleted"] == true;
                        kinds.iter().any(|wanted| wanted == kind)
                            && (has_gone || !is_gone)
                            && after.is_none_or(|after| object.updated > after)
                    })
                })
            }
            other => Err(format!("no search at {other}")),
        }
    }

    fn token(&mut self, asked: &Asked) -> Result<Reply, Complaint> {
        need_header(asked, "content-type", "application/json")?;
        let body: Value = serde_json::from_str(&asked.body).map_err(|_| "the body is no JSON")?;
        let shown = body["refresh_token"].as_str().unwrap_or_default();
        let mut expected = json!({"client_id": "sq0idp-app", "client_secret": "not_a_real_secret", "grant_type": "refresh_token", "refresh_token": shown});
        if self.tokens.rotates {
            // PKCE: a public client has no secret, and each refresh token is good for one use.
            expected.as_object_mut().unwrap().remove("client_secret");
        }
        need(body == expected, "the token request is another one")?;
        if !self.tokens.renew(shown) {
            let error =
                json!({"errors": [{"category": "AUTHENTICATION_ERROR", "code": "UNAUTHORIZED"}]});
            return Ok(refusal(401, &[], error));
        }
        let over = Utc::now() + TimeDelta::days(30);
        json_reply(json!({
            "access_token": self.tokens.access(), "token_type": "bearer", "expires_at": text(over),
            "merchant_id": "M1", "refresh_token": self.tokens.refresh(), "short_lived": false,
        }))
    }
}

impl Fake for Square {
    const KIND: &'static str = "square";
    const VERSION: &'static str =
        "coalesce(data ->> 'updated_at', data ->> 'calculated_at', data ->> 'name')";
    const SCALE: i64 = 100;

    fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    fn credentials(&self) -> Value {
        match self.oauth {
            false => json!({"access_token": "not_a_real_token"}),
            true if self.tokens.rotates => {
                json!({"client_id": "sq0idp-app", "refresh_token": self.tokens.refresh()})
            }
            true => {
                json!({"client_id": "sq0idp-app", "client_secret": "not_a_real_secret", "refresh_token": self.tokens.refresh()})
            }
        }
    }

    fn config(&self, url: &str) -> Value {
        let mut config = json!({"requests_per_second": 1000, "base_url": url});
        if self.has_all {
            config["streams"] = json!(STREAMS);
        }
        config
    }

    fn stream_of(&self, asked: &Asked) -> Option<String> {
        let stream = match asked.path.as_str() {
            "/v2/payments" => "payments",
            "/v2/refunds" => "refunds",
            "/v2/payouts" => "payouts",
            "/v2/customers" => "customers",
            "/v2/orders/search" => "orders",
            "/v2/inventory/counts/batch-retrieve" => "inventory_counts",
            "/v2/team-members/search" => "team_members",
            "/v2/labor/timecards/search" => "timecards",
            "/v2/catalog/search" => "catalog_objects",
            _ => return None,
        };
        Some(stream.to_owned())
    }

    fn denies(&self) -> Reply {
        let error = json!({"errors": [{"category": "AUTHENTICATION_ERROR", "code": "INSUFFICIENT_SCOPES"}]});
        refusal(403, &[], error)
    }

    /// Hours and customers go without a trace; of the catalogue, what is gone is shown as deleted.
    fn delete(&mut self, random: &mut Random) -> bool {
        let lists: &[&str] = match self.has_all {
            true => &["timecards", "customers", "catalog_objects"],
            false => &["timecards"],
        };
        let list = random.pick(lists);
        let Some(index) = self.pick(random, list, |body| body["is_deleted"] != true) else {
            return false;
        };
        match list {
            "catalog_objects" => {
                self.touch(random, index, |body| body["is_deleted"] = true.into());
            }
            _ => {
                self.objects.remove(index);
            }
        }
        true
    }

    /// A payout that was sent arrives, or comes back.
    fn settle(&mut self, random: &mut Random) -> bool {
        let Some(index) = self.pick(random, "payouts", |body| body["status"] == "SENT") else {
            return false;
        };
        let status = random.pick(&["PAID", "PAID", "FAILED"]);
        self.touch(random, index, |body| {
            body["status"] = status.into();
            body["version"] = 2.into();
        });
        true
    }

    fn tokens(&mut self) -> &mut Tokens {
        &mut self.tokens
    }

    fn answer(&mut self, asked: &Asked) -> Result<Reply, Complaint> {
        if asked.path == "/oauth2/token" {
            return self.token(asked);
        }
        need_header(asked, "square-version", VERSION)?;
        let is_let_in = match self.oauth {
            false => bearer(asked) == Some("not_a_real_token"),
            true => self.tokens.admits(bearer(asked)),
        };
        if !is_let_in {
            let code = if self.oauth {
                "ACCESS_TOKEN_EXPIRED"
            } else {
                "UNAUTHORIZED"
            };
            let error = json!({"errors": [{"category": "AUTHENTICATION_ERROR", "code": code}]});
            return Ok(refusal(401, &[], error));
        }
        match asked.method.as_str() {
            "GET" => self.get(asked),
            _ => self.post(asked),
        }
    }

    fn change(&mut self, random: &mut Random) {
        let money = |amount: i64| json!({"amount": amount, "currency": "USD"});
        match random.below(if self.has_all { 16 } else { 12 }) {
            12 => {
                let amount = 100 + random.below(50_000) as i64;
                let body = json!({"status": "SENT", "amount_money": money(amount), "version": 1, "type": "BATCH",
                    "destination": {"type": "BANK_ACCOUNT", "id": "bact:1"}, "payout_fee": []});
                self.add(random, "payouts", "po", body);
            }
            13 => {
                let body = json!({"given_name": "A", "creation_source": "THIRD_PARTY", "version": 0,
                    "preferences": {"email_unsubscribed": false}});
                self.add(random, "customers", "C", body);
            }
            14 => {
                let kind = random.pick(&["ITEM", "ITEM_VARIATION", "CATEGORY", "TAX", "DISCOUNT"]);
                let body = json!({"type": kind, "version": 1, "is_deleted": false, "present_at_all_locations": true});
                self.add(random, "catalog_objects", "X", body);
            }
            15 => {
                let list = random.pick(&["customers", "catalog_objects"]);
                if let Some(index) = self.pick(random, list, |body| body["is_deleted"] != true) {
                    self.touch(random, index, |body| body["version"] = 3.into());
                }
            }
            0..3 => {
                let amount = 100 + random.below(50_000) as i64;
                let status = random.pick(&["COMPLETED", "COMPLETED", "APPROVED", "FAILED"]);
                let body = json!({
                    "status": status, "amount_money": money(amount), "tip_money": money(random.below(500) as i64),
                    "processing_fee": [{"type": "INITIAL", "amount_money": money(amount / 38)}], "version_token": "v1",
                });
                self.add(random, "payments", "P", body);
            }
            3..5 => {
                // Approved ones are captured or cancelled.
                let status = random.pick(&["COMPLETED", "CANCELED"]);
                if let Some(index) =
                    self.pick(random, "payments", |body| body["status"] == "APPROVED")
                {
                    self.touch(random, index, |body| body["status"] = status.into());
                }
            }
            5 => {
                let status = random.pick(&["PENDING", "COMPLETED", "REJECTED"]);
                let amount = 100 + random.below(5_000) as i64;
                self.add(
                    random,
                    "refunds",
                    "R",
                    json!({"status": status, "amount_money": money(amount)}),
                );
            }
            6 => {
                if let Some(index) =
                    self.pick(random, "refunds", |body| body["status"] == "PENDING")
                {
                    self.touch(random, index, |body| body["status"] = "COMPLETED".into());
                }
            }
            7 => {
                let total = money(random.below(9_000) as i64);
                self.add(
                    random,
                    "orders",
                    "O",
                    json!({"state": "OPEN", "total_money": total, "version": 1}),
                );
            }
            8 => {
                if let Some(index) = self.pick(random, "orders", |body| body["state"] == "OPEN") {
                    self.touch(random, index, |body| body["state"] = "COMPLETED".into());
                }
            }
            9 => {
                // A count is known by item, place and state, and has no id.
                let at = self.clock.tick(random);
                let (item, place) = (
                    format!("I{}", random.below(6)),
                    format!("L{}", random.below(3)),
                );
                let state = random.pick(&["IN_STOCK", "IN_STOCK", "WASTE"]);
                let quantity = random.below(90).to_string();
                let body = json!({"catalog_object_id": item, "location_id": place, "state": state, "quantity": quantity, "calculated_at": text(at)});
                self.objects.retain(|object| {
                    !(object.list == "inventory_counts"
                        && ["catalog_object_id", "location_id", "state"]
                            .iter()
                            .all(|key| object.body[*key] == body[*key]))
                });
                self.objects.push(Object {
                    list: "inventory_counts",
                    location: place,
                    updated: at,
                    body,
                });
            }
            10 => {
                let begin = self.clock.tick(random) - TimeDelta::hours(30);
                let hours = random.below(10) as i64;
                let open = random.percent(30);
                let mut body = json!({
                    "start_at": text(begin), "status": if open { "OPEN" } else { "CLOSED" }, "team_member_id": "TM1", "wage": {"title": "Barista"},
                    "breaks": [{"id": "B1", "break_type_id": "BT1", "name": "Lunch", "expected_duration": "PT30M", "start_at": text(begin), "end_at": text(begin + TimeDelta::minutes(30)), "is_paid": false}],
                });
                if !open {
                    body["end_at"] = text(begin + TimeDelta::hours(hours)).into();
                }
                self.add(random, "timecards", "T", body);
            }
            _ => match random.percent(40) {
                true => self.add(
                    random,
                    "team_members",
                    "TM",
                    json!({"given_name": "Somebody", "status": "ACTIVE"}),
                ),
                // Gone without a trace.
                false => {
                    if let Some(index) = self.pick(random, "team_members", |_| true) {
                        self.objects.remove(index);
                    }
                }
            },
        }
    }

    fn books(&self) -> Books {
        let mut books = Books::new();
        let mut book = |kind: &str, at: &Value, amount: i64| {
            let at = moment(at.as_str().unwrap()).unwrap();
            *books.entry((kind.to_owned(), day(at))).or_default() += amount;
        };
        for Object { list, body, .. } in &self.objects {
            let amount = body["amount_money"]["amount"].as_i64().unwrap_or(0);
            match *list {
                "payments" if body["status"] == "COMPLETED" => {
                    book("revenue", &body["created_at"], amount);
                    let fee = body["processing_fee"][0]["amount_money"]["amount"]
                        .as_i64()
                        .unwrap();
                    book("costs", &body["created_at"], fee);
                }
                "refunds" if body["status"] == "COMPLETED" => {
                    book("costs", &body["created_at"], amount)
                }
                "inventory_counts" if body["state"] == "IN_STOCK" => {
                    let quantity: i64 = body["quantity"].as_str().unwrap().parse().unwrap();
                    book("inventory", &body["calculated_at"], quantity * 100);
                }
                "timecards" if body["status"] == "CLOSED" => {
                    let span = moment(body["end_at"].as_str().unwrap()).unwrap()
                        - moment(body["start_at"].as_str().unwrap()).unwrap();
                    book(
                        "staffing",
                        &body["start_at"],
                        span.num_minutes() * 100 / 60 - 50,
                    );
                }
                _ => {}
            }
        }
        // A day of less than no hours has no metric.
        books.retain(|_, amount| *amount > 0);
        books
    }

    fn records(&self) -> BTreeMap<String, String> {
        let mut records: BTreeMap<String, String> = Square::locations()
            .iter()
            .map(|place| {
                (
                    format!("locations/{}", place["id"].as_str().unwrap()),
                    place["name"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        for object in self
            .objects
            .iter()
            .filter(|object| object.list != "inventory_counts")
            .filter(|object| self.streams().contains(&object.list))
            .filter(|object| object.body["is_deleted"] != true)
        {
            let id = object.body["id"].as_str().unwrap();
            records.insert(
                format!("{}/{id}", object.list),
                object.body["updated_at"].as_str().unwrap().to_owned(),
            );
        }
        records
    }
}

/// Counts have no id of the vendor's: what is compared of them is their sum.
pub fn stage(square: Square) -> Stage<Square> {
    let mut stage = Stage::new(square);
    stage.beside = "stream = 'inventory_counts'";
    stage
}

#[test]
fn square_follows_every_change() {
    stage(Square::new()).follows_every_change(11);
    stage(Square::with_all()).follows_every_change(111);
}

#[test]
fn square_misses_nothing_that_changes_while_it_reads() {
    misses_nothing_that_changes_while_it_reads(|| stage(Square::with_all()), 12, 6);
}

#[test]
fn square_s_failures_have_different_error_codes() {
    let mut stage = stage(Square {
        oauth: true,
        ..Square::new()
    });
    stage.changes(60, &mut Random(13));
    // The token is over in the middle of the pages.
    stage.hosted().fake.tokens.left = Some(9);
    stage.sync();
    stage.agrees();
    stage.tokens(2);
    let error = |category: &str, code: &str| json!({"errors": [{"category": category, "code": code, "detail": "not_a_real_token"}]});
    stage.survives(
        3,
        refusal(
            429,
            &[("Retry-After", "0.1")],
            error("RATE_LIMIT_ERROR", "RATE_LIMITED"),
        ),
    );
    stage.survives(
        2,
        refusal(503, &[], error("API_ERROR", "SERVICE_UNAVAILABLE")),
    );
    // A cursor lives a quarter of an hour.
    stage.survives(
        6,
        refusal(400, &[], error("INVALID_REQUEST_ERROR", "INVALID_CURSOR")),
    );

    stage.changes(5, &mut Random(14));
    stage.hosted().faults.push_back((
        2,
        refusal(
            403,
            &[],
            error("AUTHENTICATION_ERROR", "INSUFFICIENT_SCOPES"),
        ),
    ));
    let run = stage.sync_anyhow();
    assert_eq!(run["error_code"], "permission_missing", "{run}");
    let message = run["error_message"].as_str().unwrap();
    assert!(message.contains("the token may not read"), "{message}");
    stage.sync();
    stage.agrees();

    // An error in a 200 is an error, and so is a page that was cut.
    for (body, code) in [
        (
            error("API_ERROR", "INTERNAL_SERVER_ERROR").to_string(),
            "server_error",
        ),
        (
            r#"{"locations": [{"id": "L1""#.to_owned(),
            "truncated_response",
        ),
    ] {
        for i in 0..9 {
            // The token request is answered.
            stage
                .hosted()
                .faults
                .push_back((usize::from(i == 0), Reply::Json(body.clone())));
        }
        let run = stage.sync_anyhow();
        assert_eq!(run["error_code"], code, "{run}");
        stage.hosted().faults.clear();
    }
    stage.sync();
    stage.agrees();
}

#[test]
fn square_s_refresh_token_of_a_public_client_survives_a_kill_between_receipt_and_use() {
    let tokens = Tokens {
        rotates: true,
        ..Tokens::default()
    };
    stage(Square {
        oauth: true,
        tokens,
        ..Square::new()
    })
    .keeps_a_new_refresh_token_through_a_kill(17);
}

#[test]
fn square_s_objects_of_an_unexpected_shape_are_stored_unchanged() {
    stage(Square::new()).stores_objects_of_another_shape(
        18,
        |object| {
            if object.contains_key("updated_at") {
                object.insert("brand_new".into(), json!({"nested": [1, 2.50]}));
                object.remove("tip_money");
            }
        },
        "data #>> '{brand_new,nested,1}' = '2.5' AND stream = 'payments' AND NOT data ? 'tip_money'",
    );
}

#[test]
fn square_s_team_members_are_not_deleted_when_most_of_them_are_missing() {
    let mut fake = Square::new();
    for _ in 0..30 {
        let person = json!({"given_name": "Somebody", "status": "ACTIVE"});
        fake.add(&mut Random(16), "team_members", "TM", person);
    }
    let mut stage = stage(fake);
    stage.sync();
    let hidden = stage.hosted().fake.objects.split_off(5);
    let run = stage.sync();
    assert_eq!(run["deleted"], 0, "{run}");
    let open = "SELECT message FROM data_quality_alerts WHERE alert_type = 'completeness' AND NOT resolved";
    let messages = stage.client.query(open, &[]).unwrap();
    let messages: Vec<String> = messages.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        messages,
        [
            "connector \"shop\", stream \"team_members\": 25 of 30 records are missing at the source, too many to be deletions; none was marked as deleted"
        ]
    );
    // They were there all the time.
    stage.hosted().fake.objects.extend(hidden);
    stage.sync();
    stage.agrees();
    assert!(stage.client.query(open, &[]).unwrap().is_empty());
}

#[test]
fn square_s_rate_limit_pauses_the_account_even_after_a_restart() {
    let mut stage = stage(Square::new());
    stage.changes(20, &mut Random(15));
    let error = json!({"errors": [{"category": "RATE_LIMIT_ERROR", "code": "RATE_LIMITED"}]});
    stage.waits_when_throttled(0, refusal(429, &[("Retry-After", "1800")], error));
}

#[test]
fn square_s_stock_of_what_is_gone_is_found_by_a_refresh() {
    stage(Square::with_all()).finds_by_a_refresh("inventory_counts", |square| {
        let is_counted = |object: &Object| {
            object.list == "inventory_counts" && object.body["state"] == "IN_STOCK"
        };
        let index = square.objects.iter().position(is_counted).unwrap();
        square.objects.remove(index);
    });
}
