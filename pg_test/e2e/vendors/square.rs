//! Square: locations one by one, searches with their cursor in the body, and hours without a filter by change.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use connector_service_test::*;
use serde_json::{Value, json};

use crate::stage::*;

const VERSION: &str = "2026-09-16";
const LOCATIONS: usize = 12;

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
        body["location_id"] = location.clone().into();
        body["created_at"] = text(at).into();
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

    fn get(&mut self, asked: &Asked) -> Result<Reply, Complaint> {
        let list = match asked.path.as_str() {
            "/v2/locations" => {
                need(asked.pairs.is_empty(), "locations have no parameters")?;
                return json_reply(json!({"locations": Square::locations()}));
            }
            "/v2/payments" => "payments",
            "/v2/refunds" => "refunds",
            other => return Err(format!("no list at {other}")),
        };
        let known = [
            "begin_time",
            "updated_at_begin_time",
            "updated_at_end_time",
            "sort_field",
            "sort_order",
            "limit",
            "cursor",
            "location_id",
        ];
        let unknown = asked
            .pairs
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()));
        need(unknown.is_none(), "a parameter that is not known")?;
        let value = |name: &str| asked.query.get(name).cloned();
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
        let mut parameters = asked.pairs.clone();
        parameters.retain(|(name, _)| name != "cursor");
        let asked_for = format!("{} {parameters:?}", asked.path);
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
                need(
                    body["query"] == json!({"sort": {"field": "UPDATED_AT", "order": "DESC"}}),
                    "hours have no filter by change",
                )?;
                self.page(&asked_for, cursor, "timecards", |square| {
                    let mut cards = square.list("timecards", |_| true);
                    cards.reverse();
                    cards
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
        json!({"requests_per_second": 1000, "base_url": url})
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
        match random.below(12) {
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
                    "start_at": text(begin), "status": if open { "OPEN" } else { "CLOSED" }, "wage": {"title": "Barista"},
                    "breaks": [{"start_at": text(begin), "end_at": text(begin + TimeDelta::minutes(30)), "is_paid": false}],
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
}

#[test]
fn square_misses_nothing_that_changes_while_it_reads() {
    misses_nothing_that_changes_while_it_reads(|| stage(Square::new()), 12, 6);
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
            "unexpected_shape",
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
