//! Shopify: GraphQL with a budget of cost, errors in a 200, lists within lists, and versions that fall forward.

mod graph;
mod judge;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, SecondsFormat, Utc};
use connector_service_test::*;
use serde_json::{Value, json};

use crate::stage::*;
use graph::{Answer, Field};

const VERSION: &str = "2026-10";

struct Order {
    id: usize,
    updated: DateTime<Utc>,
    processed: DateTime<Utc>,
    cents: i64,
    cancelled: bool,
    test: bool,
    /// When, and how much.
    refunds: Vec<(DateTime<Utc>, i64)>,
    lines: usize,
}

struct Level {
    item: usize,
    place: usize,
    updated: DateTime<Utc>,
    on_hand: i64,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// A token of a custom app.
    Fixed,
    ClientCredentials,
    /// A public app's offline token.
    Offline,
}

pub struct Shopify {
    clock: Clock,
    orders: Vec<Order>,
    products: Vec<(usize, DateTime<Utc>)>,
    levels: Vec<Level>,
    number: usize,
    page: usize,
    way: Way,
    tokens: Tokens,
    /// Most points of one query.
    most: i64,
    version: &'static str,
    ignores_filters: bool,
    with_lines: bool,
    /// Blanks in each order, so that a file of them has parts.
    padding: usize,
    bulk: Operations,
    customers: Vec<(usize, DateTime<Utc>)>,
    /// What was deleted: type, id and when.
    deleted: Vec<(&'static str, usize, DateTime<Utc>)>,
    /// Fields that the token may not read, with the scope that they need.
    denied: Vec<(&'static str, &'static str)>,
    /// Whether the shop's events may not be read.
    hides_events: bool,
    /// Queries and answers, for the judge.
    said: Vec<Value>,
    /// The version that is asked for.
    asks: &'static str,
}

/// Bulk operations, and what becomes of them.
#[derive(Default)]
struct Operations {
    /// The address of another server, where the files are.
    files_at: String,
    files: Files,
    started: usize,
    /// How often each was looked at.
    looks: HashMap<usize, usize>,
    /// The code that every operation is refused with.
    refuses: Option<&'static str>,
    fails: bool,
    /// So many files are over before they are read.
    lost: usize,
}

/// Makes a record when it is shown.
type Made<'a> = Box<dyn Fn() -> Value + 'a>;

type Files = Arc<Mutex<HashMap<String, String>>>;

/// A place for files that knows nobody: it would refuse whoever shows a token.
fn file_server(files: Files) -> Vendor {
    Vendor::start(move |asked| {
        let shows_token = asked.headers.contains_key("authorization")
            || asked.headers.contains_key("x-shopify-access-token");
        let files = files.lock().unwrap();
        let (false, Some(file)) = (shows_token, files.get(&asked.path)) else {
            return Reply::status(403);
        };
        let range = asked.headers["range"].strip_prefix("bytes=").unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
        let part = &file.as_bytes()[from..=to];
        let headers = vec![
            ("Content-Type", "application/jsonl".to_owned()),
            ("Content-Range", format!("bytes {from}-{to}/{}", file.len())),
        ];
        Reply::Full {
            status: 206,
            headers,
            body: part.to_vec(),
        }
    })
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn money(cents: i64) -> Value {
    json!({"amount": format!("{}.{:02}", cents / 100, cents % 100), "currencyCode": "USD"})
}

fn bag(cents: i64) -> Value {
    json!({"shopMoney": money(cents), "presentmentMoney": money(cents)})
}

fn gid(kind: &str, id: usize) -> String {
    format!("gid://shopify/{kind}/{id}")
}

impl Shopify {
    pub fn new() -> Shopify {
        Shopify {
            clock: Clock::start(),
            orders: Vec::new(),
            products: Vec::new(),
            levels: Vec::new(),
            number: 0,
            page: 6,
            way: Way::Fixed,
            tokens: Tokens::default(),
            most: 1_000,
            version: VERSION,
            ignores_filters: false,
            with_lines: false,
            padding: 0,
            bulk: Operations::default(),
            customers: Vec::new(),
            deleted: Vec::new(),
            denied: Vec::new(),
            hides_events: false,
            said: Vec::new(),
            asks: VERSION,
        }
    }

    pub fn sell(&mut self, at: DateTime<Utc>, cents: i64) {
        self.number += 1;
        self.orders.push(Order {
            id: self.number,
            updated: at,
            processed: at,
            cents,
            cancelled: false,
            test: false,
            refunds: Vec::new(),
            lines: 1,
        });
    }

    /// The orders of a filter.
    fn window(&self, filter: &str, stamp: DateTime<Utc>) -> Result<bool, Complaint> {
        let (from, to) = filter.split_once(" AND ").ok_or("no window")?;
        let quoted = |text: &str, start: &str| -> Result<DateTime<Utc>, Complaint> {
            let text = text
                .strip_prefix(start)
                .and_then(|text| text.strip_suffix('\''));
            text.and_then(|text| text.parse().ok())
                .ok_or("no quoted time".to_owned())
        };
        let from = quoted(from, "updated_at:>='")?;
        let to = quoted(to, "updated_at:<'")?;
        Ok(self.ignores_filters || (stamp >= from && stamp < to))
    }

    fn start_operation(&mut self, query: &str) -> Result<Value, Complaint> {
        let refused = |code: &str| {
            let errors = json!([{"code": code, "message": "not_a_real_secret"}]);
            json!({"data": {"bulkOperationRunQuery": {"bulkOperation": null, "userErrors": errors}}, "extensions": throttle(1_500)})
        };
        if let Some(code) = self.bulk.refuses {
            return Ok(refused(code));
        }
        let fields = graph::parse(query)?;
        let [root] = &fields[..] else {
            return Ok(refused("INVALID"));
        };
        let [edges] = &root.inner[..] else {
            return Ok(refused("INVALID"));
        };
        // As a real shop does: nodes are no lists here, and lists have no pages.
        let node = edges.inner.first().filter(|node| node.name == "node");
        let (Some(node), "edges") = (node, edges.name.as_str()) else {
            return Ok(refused("INVALID"));
        };
        need(root.name == "orders", "another bulk query")?;
        need(
            query.starts_with('{') && !query.contains('$'),
            "a bulk query has no variables",
        )?;
        let filter = root.argument("query", &Value::Null);
        let filter = filter.as_str().ok_or("no filter")?;
        let mut file = String::new();
        let mut nodes = 0;
        // In no order that anybody promises.
        for order in self.orders.iter().rev() {
            if self.window(filter, order.updated)? {
                let mut answer = self.answer_with(&Value::Null);
                file += &answer.of(&self.order(order), &node.inner, &[])?.to_string();
                file.push('\n');
                nodes += 1;
            }
        }
        self.bulk.started += 1;
        let number = self.bulk.started;
        let mut files = self.bulk.files.lock().unwrap();
        if number > self.bulk.lost {
            files.insert(format!("/bulk-{number}.jsonl"), file.clone());
        }
        files.insert(format!("{number}"), format!("{nodes} {}", file.len()));
        let outcome =
            json!({"bulkOperation": {"id": gid("BulkOperation", number)}, "userErrors": []});
        Ok(json!({"data": {"bulkOperationRunQuery": outcome}, "extensions": throttle(1_500)}))
    }

    fn operation(&mut self, id: &str) -> Value {
        let number: usize = id.rsplit('/').next().unwrap().parse().unwrap();
        let looks = self.bulk.looks.entry(number).or_default();
        *looks += 1;
        let mut node = json!({"id": id, "status": "RUNNING", "errorCode": null, "rootObjectCount": "3", "fileSize": null, "url": null});
        if *looks > 1 && self.bulk.fails {
            (node["status"], node["errorCode"]) = ("FAILED".into(), "TIMEOUT".into());
        } else if *looks > 1 {
            let files = self.bulk.files.lock().unwrap();
            let (nodes, size) = files[&number.to_string()].split_once(' ').unwrap();
            node["status"] = "COMPLETED".into();
            node["rootObjectCount"] = nodes.into();
            // 64 bits come as text.
            node["fileSize"] = size.into();
            if nodes != "0" {
                node["url"] = format!("{}/bulk-{number}.jsonl", self.bulk.files_at).into();
            }
        }
        json!({"data": {"node": node}, "extensions": throttle(1_500)})
    }

    /// All that is known of an order.
    fn order(&self, order: &Order) -> Value {
        let cancelled = order.cancelled.then(|| text(order.updated));
        let refund = |(i, (at, cents)): (usize, &(DateTime<Utc>, i64))| {
            json!({"__typename": "Refund", "id": gid("Refund", order.id * 100 + i), "createdAt": text(*at), "updatedAt": text(*at), "totalRefundedSet": bag(*cents),
                "order": {"id": gid("Order", order.id), "name": "#1", "test": order.test, "cancelledAt": cancelled}})
        };
        let taxes = json!([{"title": "VAT", "rate": 0.19, "priceSet": bag(19)}]);
        let line = |i: usize| {
            json!({"__typename": "LineItem", "id": gid("LineItem", order.id * 100 + i), "sku": "S", "title": "Cup", "quantity": 1, "currentQuantity": 1,
                "originalUnitPriceSet": bag(100), "discountedTotalSet": bag(100), "totalDiscountSet": bag(0), "taxLines": taxes, "variant": null,
                "product": {"id": gid("Product", 1)}})
        };
        let shipping = json!({"__typename": "ShippingLine", "id": gid("ShippingLine", order.id), "title": "Post", "code": "post", "source": "shopify", "carrierIdentifier": null,
            "originalPriceSet": bag(500), "discountedPriceSet": bag(500), "taxLines": taxes});
        let discount = |i: usize| {
            json!({"__typename": "DiscountCodeApplication", "index": i, "allocationMethod": "ACROSS", "targetSelection": "ALL", "targetType": "LINE_ITEM",
                "value": {"__typename": "PricingPercentageValue", "percentage": 10.0}, "code": "SPRING"})
        };
        json!({
            "__typename": "Order", "id": gid("Order", order.id), "legacyResourceId": order.id.to_string(), "name": format!("#{}", order.id),
            "createdAt": text(order.processed), "updatedAt": text(order.updated), "processedAt": text(order.processed),
            "cancelledAt": cancelled, "cancelReason": order.cancelled.then_some("CUSTOMER"), "closedAt": null, "test": order.test,
            "displayFinancialStatus": "PAID", "displayFulfillmentStatus": "UNFULFILLED", "currencyCode": "USD", "presentmentCurrencyCode": "USD",
            "taxesIncluded": false, "edited": false, "sourceName": "web", "customer": {"id": gid("Customer", 1)}, "retailLocation": null,
            "discountCodes": [" ".repeat(self.padding)],
            "totalPriceSet": bag(order.cents), "currentTotalPriceSet": bag(order.cents), "subtotalPriceSet": bag(order.cents),
            "totalTaxSet": bag(19), "totalDiscountsSet": bag(0), "cartDiscountAmountSet": null, "totalShippingPriceSet": bag(500),
            "totalRefundedSet": bag(0), "netPaymentSet": bag(order.cents), "shippingLine": shipping, "taxLines": taxes,
            "refunds": order.refunds.iter().enumerate().map(refund).collect::<Vec<_>>(),
            "lineItems": (0..order.lines).map(line).collect::<Vec<_>>(),
            "shippingLines": [shipping],
            "discountApplications": (0..order.lines % 2).map(discount).collect::<Vec<_>>(),
        })
    }

    fn item(&self, item: usize) -> Value {
        let of_item = self.levels.iter().filter(|level| level.item == item);
        let quantities = |level: &Level| json!([{"name": "available", "quantity": 1}, {"name": "on_hand", "quantity": level.on_hand}]);
        let level = |level: &Level| {
            json!({"__typename": "InventoryLevel", "id": format!("{}?inventory_item_id={item}", gid("InventoryLevel", level.place)), "updatedAt": text(level.updated), "isActive": true,
                "quantities": quantities(level),
                "item": {"id": gid("InventoryItem", item), "sku": "S", "tracked": true, "unitCost": money(250)},
                "location": {"id": gid("Location", level.place), "name": format!("Place {}", level.place)}})
        };
        json!({"__typename": "InventoryItem", "id": gid("InventoryItem", item), "inventoryLevels": of_item.map(level).collect::<Vec<_>>()})
    }

    fn answer_with<'a>(&'a self, variables: &'a Value) -> Answer<'a> {
        Answer {
            variables,
            denied: &self.denied,
            errors: Vec::new(),
        }
    }

    /// The data of a query, and the errors beside it.
    fn data(&self, query: &str, variables: &Value) -> Result<(Value, Vec<Value>), Complaint> {
        let fields = graph::parse(query)?;
        let [root] = &fields[..] else {
            return Err("not one field".into());
        };
        let mut answer = self.answer_with(variables);
        let path = [json!(root.name)];
        let mut found = match root.argument("id", variables).as_str() {
            Some(id) => self.by_id(root, id, &mut answer, &path)?,
            None => self.list(root, variables, &mut answer, &path)?,
        };
        // What may not be empty empties all that needs it.
        if answer
            .errors
            .iter()
            .any(|error| error["path"].to_string().contains("location"))
        {
            found = Value::Null;
        }
        let data = match found {
            // So is a list at the top.
            Value::Null if !answer.errors.is_empty() => Value::Null,
            found => json!({root.name.clone(): found}),
        };
        Ok((data, answer.errors))
    }

    fn by_id(
        &self,
        root: &Field,
        id: &str,
        answer: &mut Answer,
        path: &[Value],
    ) -> Result<Value, Complaint> {
        let number = id.rsplit('/').next().and_then(|text| text.parse().ok());
        let number: usize = number.ok_or("no id")?;
        let node = match root.name.as_str() {
            "order" => {
                let order = self.orders.iter().find(|order| order.id == number);
                order.map_or(Value::Null, |order| self.order(order))
            }
            "inventoryItem" => self.item(number),
            other => return Err(format!("{other} of an id")),
        };
        answer.of(&node, &root.inner, path)
    }

    fn list(
        &self,
        root: &Field,
        variables: &Value,
        answer: &mut Answer,
        path: &[Value],
    ) -> Result<Value, Complaint> {
        let argument = |name: &str| root.argument(name, variables);
        let first = argument("first").as_u64().unwrap_or(0) as usize;
        need((1..=250).contains(&first), "first is not from 1 to 250")?;
        let filter = argument("query");
        let filter = filter.as_str();
        let sorted_by = argument("sortKey");
        let window = |stamp: DateTime<Utc>| self.window(filter.ok_or("no filter")?, stamp);
        // Only what is shown is made.
        let mut rows: Vec<(DateTime<Utc>, usize, Made<'_>)> = Vec::new();
        let epoch = DateTime::UNIX_EPOCH;
        match root.name.as_str() {
            "orders" => {
                need(
                    sorted_by == "UPDATED_AT",
                    "sorted by processedAt, by default",
                )?;
                for order in &self.orders {
                    if window(order.updated)? {
                        rows.push((order.updated, order.id, Box::new(|| self.order(order))));
                    }
                }
            }
            "products" => {
                need(sorted_by == "UPDATED_AT", "not sorted by change")?;
                for (id, at) in &self.products {
                    if window(*at)? {
                        let product = json!({"__typename": "Product", "id": gid("Product", *id), "title": "Cup", "productType": "", "vendor": "", "status": "ACTIVE",
                            "handle": "cup", "tags": [], "createdAt": text(*at), "updatedAt": text(*at), "publishedAt": null, "totalInventory": 3});
                        rows.push((*at, *id, Box::new(move || product.clone())));
                    }
                }
            }
            "customers" => {
                need(sorted_by == "UPDATED_AT", "not sorted by change")?;
                for (id, at) in &self.customers {
                    if window(*at)? {
                        let customer = json!({"__typename": "Customer", "id": gid("Customer", *id), "legacyResourceId": id.to_string(), "displayName": "Ann Lee",
                            "firstName": "Ann", "lastName": null, "state": "ENABLED", "createdAt": text(*at), "updatedAt": text(*at), "locale": "en", "tags": ["a"],
                            "numberOfOrders": "1", "amountSpent": money(100), "taxExempt": false, "verifiedEmail": true,
                            "defaultEmailAddress": {"emailAddress": "ann@example.com", "marketingState": "SUBSCRIBED"}, "defaultPhoneNumber": null,
                            "defaultAddress": {"city": "Ottawa", "provinceCode": "ON", "countryCodeV2": "CA", "zip": null}});
                        rows.push((*at, *id, Box::new(move || customer.clone())));
                    }
                }
            }
            "events" => {
                need(sorted_by == "CREATED_AT", "not sorted by time")?;
                let filter = filter.ok_or("no filter")?;
                let rest = filter.strip_prefix("action:'destroy' AND subject_type:'");
                let (kind, from) = rest
                    .and_then(|rest| rest.split_once("' AND created_at:>='"))
                    .ok_or("another filter of events")?;
                let from = from
                    .strip_suffix('\'')
                    .and_then(|from| from.parse::<DateTime<Utc>>().ok());
                let from = from.ok_or("no quoted time")?;
                for (i, (of, id, at)) in self.deleted.iter().enumerate() {
                    if *of == kind && *at >= from {
                        let kind: String = kind[..1].to_owned() + &kind[1..].to_lowercase();
                        let event = json!({"__typename": "BasicEvent", "id": gid("BasicEvent", i), "action": "destroy", "createdAt": text(*at), "subjectType": of, "subjectId": gid(&kind, *id)});
                        rows.push((*at, i, Box::new(move || event.clone())));
                    }
                }
            }
            "inventoryItems" => {
                need(
                    sorted_by.is_null(),
                    "inventoryItems have no order by change",
                )?;
                let mut items: Vec<usize> = self.levels.iter().map(|level| level.item).collect();
                items.sort_unstable();
                items.dedup();
                for item in items {
                    rows.push((epoch, item, Box::new(move || self.item(item))));
                }
            }
            "locations" => {
                need(
                    argument("includeInactive") == true,
                    "inactive ones are left out",
                )?;
                for i in 0..8 {
                    let at = "2026-01-01T00:00:00Z";
                    let place = json!({"__typename": "Location", "id": gid("Location", i), "name": format!("Place {i}"), "isActive": true, "createdAt": at, "updatedAt": at,
                        "address": {"city": null, "provinceCode": null, "countryCode": "CA", "zip": null}});
                    rows.push((epoch, i, Box::new(move || place.clone())));
                }
            }
            other => return Err(format!("{other} is not there")),
        }
        // A cursor stands for a place in the order, whatever moves before it.
        rows.sort_by_key(|(stamp, id, _)| (*stamp, *id));
        let after = argument("after");
        if let Some((stamp, id)) = after.as_str().and_then(|text| text.split_once('|')) {
            let (stamp, id): (DateTime<Utc>, usize) = (stamp.parse().unwrap(), id.parse().unwrap());
            rows.retain(|row| (row.0, row.1) > (stamp, id));
        }
        let count = first.min(self.page);
        let more = rows.len() > count;
        rows.truncate(count);
        let end = rows
            .last()
            .map(|(stamp, id, _)| format!("{}|{id}", text(*stamp)));
        let info = json!({"hasNextPage": more, "endCursor": end});
        answer.page(
            rows.into_iter().map(|row| row.2()).collect(),
            info,
            root,
            path,
        )
    }
}

fn throttle(available: i64) -> Value {
    json!({"cost": {"requestedQueryCost": 500, "actualQueryCost": null, "throttleStatus": {"maximumAvailable": 2000, "currentlyAvailable": available, "restoreRate": 1000}}})
}

impl Shopify {
    /// Keeps what was said, for the judge; a few hundred will do.
    fn log(&mut self, body: &Value, answer: &Value) {
        if self.said.len() < 400 {
            self.said.push(json!({"version": self.asks, "query": body["query"], "variables": body["variables"], "answer": answer}));
        }
    }
}

impl Fake for Shopify {
    const KIND: &'static str = "shopify";
    const VERSION: &'static str =
        "coalesce(data ->> 'updatedAt', data ->> 'quantity', data -> 'order' ->> 'name')";
    const SCALE: i64 = 100;

    fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }

    fn credentials(&self) -> Value {
        match self.way {
            Way::Fixed => json!({"shop": "acme", "access_token": "shpat_not_a_real_token"}),
            Way::ClientCredentials => {
                json!({"shop": "acme", "client_id": "app", "client_secret": "not_a_real_secret"})
            }
            Way::Offline => {
                json!({"shop": "acme", "client_id": "app", "client_secret": "not_a_real_secret", "refresh_token": self.tokens.refresh()})
            }
        }
    }

    fn config(&self, url: &str) -> Value {
        let mut config = json!({"requests_per_second": 1000, "base_url": url});
        if self.with_lines {
            config["streams"] = json!([
                "orders",
                "line_items",
                "shipping_lines",
                "discounts",
                "customers"
            ]);
        }
        if self.asks != VERSION {
            config["api_version"] = self.asks.into();
        }
        config
    }

    fn tokens(&mut self) -> &mut Tokens {
        &mut self.tokens
    }

    fn answer(&mut self, asked: &Asked) -> Result<Reply, Complaint> {
        need(asked.method == "POST", "only POST is asked for")?;
        need_header(asked, "content-type", "application/json")?;
        let body: Value = serde_json::from_str(&asked.body).map_err(|_| "the body is no JSON")?;
        if asked.path == "/admin/oauth/access_token" {
            let mut expected = json!({"client_id": "app", "client_secret": "not_a_real_secret", "grant_type": "client_credentials"});
            if self.way == Way::Offline {
                let shown = body["refresh_token"].as_str().ok_or("no refresh token")?;
                (expected["grant_type"], expected["refresh_token"]) =
                    ("refresh_token".into(), shown.into());
                if !self.tokens.renew(shown) {
                    return Ok(refusal(400, &[], json!({"error": "invalid_request"})));
                }
            } else {
                self.tokens.given += 1;
            }
            need(body == expected, "the token request is another one")?;
            let mut answer = json!({"access_token": self.tokens.access(), "scope": "read_orders", "expires_in": 86_399});
            if self.way == Way::Offline {
                answer["expires_in"] = 3600.into();
                answer["refresh_token"] = self.tokens.refresh().into();
            }
            return json_reply(answer);
        }
        need(
            asked.path == format!("/admin/api/{}/graphql.json", self.asks),
            "another place, or version",
        )?;
        need(
            !asked.headers.contains_key("authorization"),
            "the token belongs into a header of its own",
        )?;
        let shown = asked.headers.get("x-shopify-access-token");
        let shown = shown.map(String::as_str);
        let is_let_in = match self.way {
            Way::Fixed => shown == Some("shpat_not_a_real_token"),
            _ => self.tokens.admits(shown),
        };
        if !is_let_in {
            return Ok(refusal(
                401,
                &[],
                json!({"errors": "[API] Invalid API key or access token"}),
            ));
        }
        let (query, variables) = (
            body["query"].as_str().ok_or("no query")?,
            &body["variables"],
        );
        if query.contains("bulkOperationRunQuery") {
            let query = variables["query"].as_str().ok_or("no query")?;
            let answer = self.start_operation(query)?;
            self.log(&body, &answer);
            return json_reply(answer);
        }
        if query.contains("... on BulkOperation") {
            let answer = self.operation(variables["id"].as_str().ok_or("no id")?);
            self.log(&body, &answer);
            return json_reply(answer);
        }
        if self.hides_events && query.contains("{ events(") {
            let error = json!({"data": {"events": null}, "errors": [{"message": "Access denied for events field.", "path": ["events"], "extensions": {"code": "ACCESS_DENIED"}}]});
            return json_reply(error);
        }
        let cost = variables["first"].as_i64().unwrap_or(0) * 10;
        if cost > self.most {
            let error = json!({"errors": [{"message": "Query cost is too high", "extensions": {"code": "MAX_COST_EXCEEDED", "cost": cost, "maxCost": self.most}}]});
            return Ok(refusal(
                200,
                &[("X-Shopify-API-Version", self.version)],
                error,
            ));
        }
        let (data, errors) = self.data(query, variables)?;
        let mut answer = json!({"data": data, "extensions": throttle(1_500)});
        if !errors.is_empty() {
            answer["errors"] = errors.into();
        }
        self.log(&body, &answer);
        Ok(refusal(
            200,
            &[("X-Shopify-API-Version", self.version)],
            answer,
        ))
    }

    fn change(&mut self, random: &mut Random) {
        let at = self.clock.tick(random);
        let some = (!self.orders.is_empty()).then(|| random.below(self.orders.len()));
        self.number += 1;
        match (random.below(10), some) {
            (0..4, _) | (4..7, None) => self.orders.push(Order {
                id: self.number,
                updated: at,
                // The business date may be back-dated.
                processed: at - chrono::TimeDelta::hours(random.below(80) as i64),
                cents: 1 + random.below(90_000) as i64,
                cancelled: false,
                test: random.percent(10),
                refunds: Vec::new(),
                lines: random.below(9),
            }),
            (4..6, Some(index)) => {
                let order = &mut self.orders[index];
                order.updated = at;
                order.refunds.push((at, 1 + random.below(900) as i64));
            }
            (6, Some(index)) => {
                (self.orders[index].updated, self.orders[index].cancelled) = (at, true)
            }
            (7, _) if random.percent(30) => match self.customers.is_empty() || random.percent(50) {
                true => self.customers.push((self.number, at)),
                false => {
                    let index = random.below(self.customers.len());
                    self.customers[index].1 = at;
                }
            },
            (7, _) => match random.percent(50) || self.products.is_empty() {
                true => self.products.push((self.number, at)),
                false => {
                    let index = random.below(self.products.len());
                    self.products[index].1 = at;
                }
            },
            _ => {
                let (item, place) = (random.below(4), random.below(7));
                let on_hand = random.below(40) as i64;
                let removed = self.levels.len();
                self.levels
                    .retain(|level| (level.item, level.place) != (item, place));
                let was_there = self.levels.len() < removed;
                // Some are no longer stocked there: gone without a trace.
                if !(was_there && random.percent(30)) {
                    self.levels.push(Level {
                        item,
                        place,
                        updated: at,
                        on_hand,
                    });
                }
            }
        }
    }

    fn stream_of(&self, asked: &Asked) -> Option<String> {
        let body: Value = serde_json::from_str(&asked.body).ok()?;
        let query = body["query"].as_str()?;
        let found = [
            ("refunds {", "refunds"),
            ("lineItems(", "line_items"),
            ("shippingLines(", "shipping_lines"),
            ("discountApplications(", "discounts"),
            ("orders(", "orders"),
            ("products(", "products"),
            ("customers(", "customers"),
            ("inventoryLevels(", "inventory_levels"),
            ("locations(", "locations"),
        ];
        let found = found.iter().find(|(words, _)| query.contains(words));
        found.map(|(_, stream)| (*stream).to_owned())
    }

    fn denies(&self) -> Reply {
        let error = json!({"data": null, "errors": [{"message": "Access denied.", "path": ["orders"], "extensions": {"code": "ACCESS_DENIED", "requiredAccess": "`read_orders` access scope."}}]});
        Reply::Json(error.to_string())
    }

    fn delete(&mut self, random: &mut Random) -> bool {
        let at = self.clock.tick(random);
        match random.below(3) {
            0 if !self.products.is_empty() => {
                let (id, _) = self.products.remove(random.below(self.products.len()));
                self.deleted.push(("PRODUCT", id, at));
            }
            1 if !self.customers.is_empty() => {
                let (id, _) = self.customers.remove(random.below(self.customers.len()));
                self.deleted.push(("CUSTOMER", id, at));
            }
            _ if !self.orders.is_empty() => {
                let order = self.orders.remove(random.below(self.orders.len()));
                self.deleted.push(("ORDER", order.id, at));
            }
            _ => return false,
        }
        true
    }

    /// An order of long ago is refunded, or cancelled.
    fn settle(&mut self, random: &mut Random) -> bool {
        let at = self.clock.tick(random);
        let old = self.orders.iter_mut().min_by_key(|order| order.updated);
        let Some(order) = old.filter(|order| order.updated < at) else {
            return false;
        };
        order.updated = at;
        match random.percent(50) {
            true => order.refunds.push((at, 1 + random.below(900) as i64)),
            false => order.cancelled = true,
        }
        true
    }

    fn books(&self) -> Books {
        let mut books = Books::new();
        for order in self
            .orders
            .iter()
            .filter(|order| !order.test && !order.cancelled)
        {
            *books
                .entry(("revenue".to_owned(), day(order.processed)))
                .or_default() += order.cents;
            if !self.with_lines {
                for (at, cents) in &order.refunds {
                    *books.entry(("costs".to_owned(), day(*at))).or_default() += cents;
                }
            }
        }
        for level in self.levels.iter().filter(|_| !self.with_lines) {
            *books
                .entry(("inventory".to_owned(), day(level.updated)))
                .or_default() += level.on_hand * 100;
        }
        books
    }

    fn records(&self) -> BTreeMap<String, String> {
        let mut records = BTreeMap::new();
        for order in &self.orders {
            records.insert(
                format!("orders/{}", gid("Order", order.id)),
                text(order.updated),
            );
            for i in 0..if self.with_lines { order.lines } else { 0 } {
                records.insert(
                    format!("line_items/{}", gid("LineItem", order.id * 100 + i)),
                    "1".into(),
                );
            }
            if self.with_lines {
                let name = format!("#{}", order.id);
                let shipping = format!("shipping_lines/{}", gid("ShippingLine", order.id));
                records.insert(shipping, name);
            }
            for (i, (at, _)) in order
                .refunds
                .iter()
                .enumerate()
                .filter(|_| !self.with_lines)
            {
                records.insert(
                    format!("refunds/{}", gid("Refund", order.id * 100 + i)),
                    text(*at),
                );
            }
        }
        if self.with_lines {
            for (id, at) in &self.customers {
                records.insert(format!("customers/{}", gid("Customer", *id)), text(*at));
            }
            return records;
        }
        for (id, at) in &self.products {
            records.insert(format!("products/{}", gid("Product", *id)), text(*at));
        }
        for level in &self.levels {
            let id = format!(
                "inventory_levels/{}?inventory_item_id={}",
                gid("InventoryLevel", level.place),
                level.item
            );
            records.insert(id, text(level.updated));
        }
        for i in 0..8 {
            records.insert(
                format!("locations/{}", gid("Location", i)),
                "2026-01-01T00:00:00Z".into(),
            );
        }
        records
    }
}

#[test]
fn shopify_follows_every_change() {
    Stage::new(Shopify::new()).follows_every_change(51);
}

#[test]
fn shopify_misses_nothing_that_changes_while_it_reads() {
    let stage = || {
        Stage::new(Shopify {
            way: Way::ClientCredentials,
            ..Shopify::new()
        })
    };
    misses_nothing_that_changes_while_it_reads(stage, 52, 6);
}

/// Discounts have keys of two parts, which are stored as a hash.
const BESIDE: &str = "stream = 'discounts'";

/// A shop with more orders than are read by pages.
fn large(bulk: Operations) -> (Stage<Shopify>, Vendor) {
    let files = file_server(bulk.files.clone());
    let mut fake = Shopify {
        padding: 40_000,
        bulk: Operations {
            files_at: files.url(),
            ..bulk
        },
        ..Shopify::new()
    };
    let mut random = Random(60);
    while fake.orders.len() < 310 {
        fake.change(&mut random);
    }
    // Spread over a week: what lies within the lookback comes again.
    let first = Utc::now() - chrono::TimeDelta::days(8);
    for (i, order) in fake.orders.iter_mut().enumerate() {
        let at = first.timestamp() + 1_800 * i as i64;
        order.updated = DateTime::from_timestamp(at, 0).unwrap();
    }
    (Stage::new(fake), files)
}

#[test]
fn shopify_s_large_reads_use_a_bulk_file_that_is_read_in_parts() {
    let (mut stage, files) = large(Operations::default());
    let run = stage.sync();
    stage.agrees();
    assert_eq!(stage.hosted().fake.bulk.started, 2, "orders and refunds");
    let parts = files.asked_for("/bulk-1.jsonl");
    assert!(parts > 2, "{parts} parts");
    assert_eq!(run["warnings"], json!([]), "{run}");
    // What changed since comes by pages again.
    stage.changes(20, &mut Random(61));
    stage.sync();
    stage.agrees();
    assert_eq!(stage.hosted().fake.bulk.started, 2);
}

#[test]
fn shopify_s_bulk_file_is_continued_after_a_kill() {
    let (mut stage, files) = large(Operations::default());
    // Forty pages, the beginning of the operation, two looks, and the first part.
    stage.cluster.arm("after_commit", 44);
    stage.hosted().fake.clock().go_live();
    let run = sync(&mut stage.client, &stage.connector);
    wait_until(60, "the worker was killed", || {
        let log = stage.cluster.log();
        log.contains("was terminated by signal 9").then_some(())
    });
    let before = files.asked_for("/bulk-1.jsonl");
    assert!(before > 0, "the kill came before the file");
    stage.client = stage.cluster.wait_ready_in("app");
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(run["state"], "succeeded", "{run}");
    stage.agrees();
    assert_eq!(stage.hosted().fake.bulk.started, 2, "one for each stream");
    // Those of the second that the pages ended with.
    let again = run["unchanged"].as_i64().unwrap();
    assert!(again <= 2, "{run}");
}

#[test]
fn shopify_s_large_reads_use_pages_if_there_is_no_bulk_file() {
    let (mut stage, files) = large(Operations {
        refuses: Some("OPERATION_IN_PROGRESS"),
        ..Operations::default()
    });
    let run = stage.sync();
    stage.agrees();
    assert_eq!(run["warnings"], json!([]), "{run}");
    assert!(files.asked().is_empty());

    let (mut stage, files) = large(Operations {
        refuses: Some("INVALID"),
        ..Operations::default()
    });
    let run = stage.sync();
    stage.agrees();
    let refused =
        "Shopify refused the bulk query (INVALID); the stream is read page by page instead";
    let warnings = ["orders", "refunds"].map(|name| format!("stream \"{name}\": {refused}"));
    assert_eq!(run["warnings"], json!(warnings), "{run}");
    assert!(files.asked().is_empty());

    let (mut stage, files) = large(Operations {
        fails: true,
        ..Operations::default()
    });
    let run = stage.sync();
    stage.agrees();
    let failed = "Shopify's bulk operation failed; the stream is read page by page instead";
    let warnings = ["orders", "refunds"].map(|name| format!("stream \"{name}\": {failed}"));
    assert_eq!(run["warnings"], json!(warnings), "{run}");
    assert!(files.asked().is_empty());
}

#[test]
fn shopify_s_expired_bulk_file_is_requested_again() {
    let (mut stage, _files) = large(Operations {
        lost: 1,
        ..Operations::default()
    });
    stage.sync();
    stage.agrees();
    assert!(stage.hosted().fake.bulk.started > 1);
}

#[test]
fn shopify_s_lists_within_lists_are_read_to_their_end() {
    let mut stage = Stage::new(Shopify {
        with_lines: true,
        ..Shopify::new()
    });
    stage.beside = BESIDE;
    stage.follows_every_change(53);
}

#[test]
fn shopify_s_failures_have_different_error_codes() {
    let mut stage = Stage::new(Shopify {
        way: Way::ClientCredentials,
        ..Shopify::new()
    });
    stage.changes(60, &mut Random(54));
    stage.hosted().fake.tokens.left = Some(5);
    stage.sync();
    stage.agrees();
    stage.tokens(2);
    let error = |code: &str, extensions: Value| json!({"data": null, "errors": [{"message": "not_a_real_secret", "extensions": {"code": code}}], "extensions": extensions});
    // Throttled with 200: 400 points are missing, and 1000 come back in a second.
    stage.survives(
        2,
        Reply::Json(error("THROTTLED", throttle(100)).to_string()),
    );
    stage.survives(
        1,
        Reply::Json(error("INTERNAL_SERVER_ERROR", json!({})).to_string()),
    );
    stage.survives(
        2,
        refusal(
            429,
            &[("Retry-After", "0.2")],
            json!({"errors": "Exceeded 2 calls per second"}),
        ),
    );
    for (reply, code, says) in [
        (
            Reply::Json(error("ACCESS_DENIED", json!({})).to_string()),
            "permission_missing",
            "lacks the scope of this stream",
        ),
        (
            Reply::Json(error("undefinedField", json!({})).to_string()),
            "request_refused",
            "the query was refused",
        ),
        (
            refusal(402, &[], json!({"errors": "Unavailable Shop"})),
            "credentials_rejected",
            "the shop is frozen",
        ),
        (
            Reply::Json(r#"{"data": {}}"#.into()),
            "unexpected_shape",
            "no data",
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
    // A filter that is not understood is ignored, and everything comes: that is noticed.
    stage.changes(10, &mut Random(55));
    stage.sync();
    for order in &mut stage.hosted().fake.orders {
        order.updated -= chrono::TimeDelta::days(400);
    }
    stage.hosted().fake.ignores_filters = true;
    let run = stage.sync_anyhow();
    assert_eq!(run["error_code"], "unexpected_shape", "{run}");
}

#[test]
fn shopify_s_queries_shrink_when_they_cost_too_much_and_an_expired_version_is_reported() {
    let mut stage = Stage::new(Shopify {
        most: 120,
        version: "2027-01",
        ..Shopify::new()
    });
    stage.changes(50, &mut Random(56));
    let run = stage.sync();
    stage.agrees();
    let warning = run["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("Shopify answered with API version 2027-01"),
        "{warning}"
    );
    stage.hosted().fake.most = 5;
    let run = stage.sync_anyhow();
    assert_eq!(run["error_code"], "request_refused", "{run}");
    let message = run["error_message"].as_str().unwrap();
    assert!(
        message.contains("costs more than the rate limit of the shop allows"),
        "{message}"
    );
}

#[test]
fn shopify_s_fake_answers_as_the_official_schema_says() {
    for (with_lines, asks) in [
        (false, VERSION),
        (true, VERSION),
        (false, "2026-01"),
        (true, "2025-10"),
    ] {
        let mut stage = Stage::new(Shopify {
            with_lines,
            asks,
            version: asks,
            ..Shopify::new()
        });
        stage.beside = BESIDE;
        let mut random = Random(70);
        stage.changes(80, &mut random);
        for _ in 0..6 {
            stage.hosted().fake.delete(&mut random);
        }
        stage.sync();
        stage.agrees();
        judge::is_silent(&stage.hosted().fake.said);
    }
    let (mut stage, _files) = large(Operations::default());
    stage.sync();
    let said = stage.hosted().fake.said.split_off(20);
    judge::is_silent(&said);
}

#[test]
fn shopify_s_deleted_orders_products_and_customers_no_longer_count() {
    for with_lines in [false, true] {
        let mut stage = Stage::new(Shopify {
            with_lines,
            ..Shopify::new()
        });
        stage.beside = BESIDE;
        let mut random = Random(71);
        stage.changes(60, &mut random);
        stage.sync();
        // While the events cannot be read, a warning says so; later all of them are found.
        stage.hosted().fake.hides_events = true;
        for _ in 0..12 {
            stage.hosted().fake.delete(&mut random);
        }
        stage.changes(8, &mut random);
        let run = stage.sync();
        let warnings = run["warnings"].to_string();
        assert!(
            warnings.contains("stream \\\"orders\\\": deletions are not found"),
            "{run}"
        );
        stage.hosted().fake.hides_events = false;
        let run = stage.sync();
        stage.agrees();
        assert!(run["deleted"].as_i64().unwrap() > 0, "{run}");
        // A refresh finds what was deleted in the past year.
        stage.hosted().fake.delete(&mut random);
        let sql = "UPDATE raw_connector_data SET deleted = false";
        stage.client.batch_execute(sql).unwrap();
        let sql = "SELECT connector_service_refresh($1::text::uuid, 'orders')::text";
        let run: String = stage
            .client
            .query_one(sql, &[&stage.connector])
            .unwrap()
            .get(0);
        let run = wait_for_run(&mut stage.client, &run);
        assert_eq!(run["state"], "succeeded", "{run}");
        let sql = "SELECT count(*) FROM raw_connector_data WHERE stream = 'orders' AND NOT deleted";
        let stored: i64 = stage.client.query_one(sql, &[]).unwrap().get(0);
        let there = stage.hosted().fake.orders.len();
        assert_eq!(stored, there as i64);
    }
}

#[test]
fn shopify_s_fields_that_the_token_may_not_read_are_left_out() {
    let mut stage = Stage::new(Shopify::new());
    stage.changes(60, &mut Random(72));
    // One may be empty, and the other empties all that needs it.
    stage.hosted().fake.denied = vec![
        ("customer", "read_customers"),
        ("location", "read_locations"),
    ];
    let run = stage.sync();
    stage.agrees_on_records();
    let warnings = run["warnings"].to_string();
    for says in [
        "stream \\\"orders\\\": without the field customer, because the token lacks the scope read_customers",
        "stream \\\"inventory_levels\\\": without the field inventoryLevels.nodes.location, because the token lacks the scope read_locations",
    ] {
        assert!(warnings.contains(says), "{run}");
    }
    let sql = "SELECT count(*) FILTER (WHERE data ->> 'customer' IS NULL), count(*) FROM raw_connector_data WHERE stream = 'orders'";
    let row = stage.client.query_one(sql, &[]).unwrap();
    assert_eq!(row.get::<_, i64>(0), row.get::<_, i64>(1));
    // Once it may read them, it does.
    stage.hosted().fake.denied.clear();
    stage.changes(5, &mut Random(73));
    let run = stage.sync();
    assert_eq!(run["warnings"], json!([]), "{run}");
    stage.agrees();
}

#[test]
fn shopify_s_lines_say_which_order_they_belong_to() {
    let mut stage = Stage::new(Shopify {
        with_lines: true,
        ..Shopify::new()
    });
    stage.changes(60, &mut Random(74));
    stage.sync();
    for stream in ["line_items", "shipping_lines", "discounts"] {
        let sql = "SELECT count(*), count(*) FILTER (WHERE o.raw_id IS NULL OR o.data ->> 'processedAt' <> l.data -> 'order' ->> 'processedAt')
                   FROM raw_connector_data l LEFT JOIN raw_connector_data o ON o.source_record_id = 'orders/' || (l.data -> 'order' ->> 'id')
                   WHERE l.stream = $1";
        let row = stage.client.query_one(sql, &[&stream]).unwrap();
        let (all, alone): (i64, i64) = (row.get(0), row.get(1));
        assert!(
            all > 0 && alone == 0,
            "{stream}: {alone} of {all} without their order"
        );
    }
}

#[test]
fn shopify_s_refresh_token_of_a_public_app_survives_a_kill_between_receipt_and_use() {
    let tokens = Tokens {
        rotates: true,
        ..Tokens::default()
    };
    Stage::new(Shopify {
        way: Way::Offline,
        tokens,
        ..Shopify::new()
    })
    .keeps_a_new_refresh_token_through_a_kill(58);
}

#[test]
fn shopify_s_objects_of_an_unexpected_shape_are_stored_unchanged() {
    // What is not asked for does not come; what is asked for may be null, or an object with more in it.
    Stage::new(Shopify::new()).stores_objects_of_another_shape(
        59,
        |object| {
            if object.contains_key("sourceName") {
                object.insert("sourceName".into(), Value::Null);
                object.insert("displayFinancialStatus".into(), "A_NEW_STATUS".into());
            }
        },
        "data -> 'sourceName' = 'null' AND data ->> 'displayFinancialStatus' = 'A_NEW_STATUS'",
    );
}

#[test]
fn shopify_s_rate_limit_pauses_the_account_even_after_a_restart() {
    let mut stage = Stage::new(Shopify::new());
    stage.changes(20, &mut Random(57));
    stage.waits_when_throttled(
        0,
        refusal(
            429,
            &[("Retry-After", "900")],
            json!({"errors": "Exceeded"}),
        ),
    );
}
