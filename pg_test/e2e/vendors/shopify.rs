//! Shopify: GraphQL with a budget of cost, errors in a 200, lists within lists, and versions that fall forward.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, SecondsFormat, Utc};
use connector_service_test::*;
use serde_json::{Value, json};

use crate::stage::*;

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
    refuses: bool,
    fails: bool,
    /// So many files are over before they are read.
    lost: usize,
}

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
    fn new() -> Shopify {
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
        }
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
        let refused = |code: &str| json!({"bulkOperation": null, "userErrors": [{"code": code, "message": "A bulk operation is already in progress"}]});
        let outcome = if self.bulk.refuses {
            refused("OPERATION_IN_PROGRESS")
        } else {
            let rest = query
                .strip_prefix("{ orders(query: \"")
                .ok_or("another bulk query")?;
            let (filter, fields) = rest.split_once("\") { nodes {").ok_or("no filter")?;
            need(
                !fields.contains("first:") && !fields.contains("$"),
                "a bulk query has no pages and no variables",
            )?;
            let mut file = String::new();
            let mut nodes = 0;
            // In no order that anybody promises.
            for order in self.orders.iter().rev() {
                if self.window(filter, order.updated)? {
                    file += &self.order(order, fields).to_string();
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
            json!({"bulkOperation": {"id": gid("BulkOperation", number)}, "userErrors": []})
        };
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

    fn order(&self, order: &Order, query: &str) -> Value {
        let refunds: Vec<Value> = order
            .refunds
            .iter()
            .enumerate()
            .map(|(i, (at, cents))| {
                json!({"id": gid("Refund", order.id * 100 + i), "createdAt": text(*at), "updatedAt": text(*at), "totalRefundedSet": bag(*cents),
                    "order": {"id": gid("Order", order.id), "name": "#1", "test": order.test, "cancelledAt": order.cancelled.then(|| text(order.updated))}})
            })
            .collect();
        let mut body = json!({"id": gid("Order", order.id), "updatedAt": text(order.updated)});
        if query.contains("refunds {") {
            body["refunds"] = refunds.into();
        } else if query.contains("lineItems(") {
            body["lineItems"] = self.lines(order, 0, 3);
        } else {
            body["processedAt"] = text(order.processed).into();
            body["cancelledAt"] = order.cancelled.then(|| text(order.updated)).into();
            body["test"] = order.test.into();
            body["displayFinancialStatus"] = "PAID".into();
            body["sourceName"] = "web".into();
            body["totalPriceSet"] = bag(order.cents);
        }
        if self.padding > 0 {
            body["note"] = " ".repeat(self.padding).into();
        }
        body
    }

    fn lines(&self, order: &Order, from: usize, count: usize) -> Value {
        let nodes: Vec<Value> = (from..order.lines.min(from + count))
            .map(|i| json!({"id": gid("LineItem", order.id * 100 + i), "quantity": 1}))
            .collect();
        connection(nodes, from + count < order.lines, from + count)
    }

    fn levels(&self, item: usize, from: usize, count: usize) -> Value {
        let all: Vec<&Level> = self
            .levels
            .iter()
            .filter(|level| level.item == item)
            .collect();
        let node = |level: &&Level| {
            json!({"id": format!("{}?inventory_item_id={item}", gid("InventoryLevel", level.place)), "updatedAt": text(level.updated), "isActive": true,
                "quantities": [{"name": "available", "quantity": 1}, {"name": "on_hand", "quantity": level.on_hand}],
                "item": {"id": gid("InventoryItem", item), "sku": "S", "tracked": true, "unitCost": null},
                "location": {"id": gid("Location", level.place), "name": format!("Place {}", level.place)}})
        };
        let nodes = all.iter().skip(from).take(count).map(node).collect();
        connection(nodes, from + count < all.len(), from + count)
    }

    fn data(&self, query: &str, variables: &Value) -> Result<Value, Complaint> {
        let first = variables["first"].as_u64().unwrap_or(0) as usize;
        need((1..=250).contains(&first), "first is not from 1 to 250")?;
        let after: usize = variables["after"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        if let Some(id) = variables["id"].as_str() {
            let number: usize = id
                .rsplit('/')
                .next()
                .unwrap()
                .parse()
                .map_err(|_| "no id")?;
            return Ok(match id.contains("/Order/") {
                true => {
                    let order = self
                        .orders
                        .iter()
                        .find(|order| order.id == number)
                        .ok_or("no order")?;
                    json!({"order": {"id": id, "lineItems": self.lines(order, after, first.min(3))}})
                }
                false => {
                    json!({"inventoryItem": {"id": id, "inventoryLevels": self.levels(number, after, first.min(4))}})
                }
            });
        }
        let window = |stamp: DateTime<Utc>| {
            self.window(variables["query"].as_str().ok_or("no filter")?, stamp)
        };
        // A cursor stands for a place in the order, whatever moves before it.
        let page = |mut rows: Vec<(DateTime<Utc>, usize, Value)>| {
            rows.sort_by_key(|(stamp, id, _)| (*stamp, *id));
            let place = variables["after"]
                .as_str()
                .and_then(|text| text.split_once('|'));
            if let Some((stamp, id)) = place {
                let (stamp, id): (DateTime<Utc>, usize) =
                    (stamp.parse().unwrap(), id.parse().unwrap());
                rows.retain(|row| (row.0, row.1) > (stamp, id));
            }
            let count = first.min(self.page);
            let more = rows.len() > count;
            rows.truncate(count);
            let end = rows
                .last()
                .map(|(stamp, id, _)| format!("{}|{id}", text(*stamp)));
            json!({"nodes": rows.into_iter().map(|row| row.2).collect::<Vec<_>>(), "pageInfo": {"hasNextPage": more, "endCursor": end}})
        };
        if query.contains("{ orders(") {
            need(
                query.contains("sortKey: UPDATED_AT"),
                "sorted by processedAt, by default",
            )?;
            let mut rows = Vec::new();
            for order in &self.orders {
                if window(order.updated)? {
                    rows.push((order.updated, order.id, self.order(order, query)));
                }
            }
            return Ok(json!({"orders": page(rows)}));
        }
        if query.contains("{ products(") {
            need(
                query.contains("sortKey: UPDATED_AT"),
                "not sorted by change",
            )?;
            let mut rows = Vec::new();
            for (id, at) in &self.products {
                if window(*at)? {
                    rows.push((
                        *at,
                        *id,
                        json!({"id": gid("Product", *id), "updatedAt": text(*at)}),
                    ));
                }
            }
            return Ok(json!({"products": page(rows)}));
        }
        let epoch = DateTime::UNIX_EPOCH;
        if query.contains("{ inventoryItems(") {
            need(
                !query.contains("sortKey"),
                "inventoryItems have no order by change",
            )?;
            need(
                query.contains("quantities(names: ["),
                "quantities need their names",
            )?;
            let mut items: Vec<usize> = self.levels.iter().map(|level| level.item).collect();
            items.sort_unstable();
            items.dedup();
            let row = |item: usize| {
                (
                    epoch,
                    item,
                    json!({"id": gid("InventoryItem", item), "inventoryLevels": self.levels(item, 0, 4)}),
                )
            };
            return Ok(json!({"inventoryItems": page(items.into_iter().map(row).collect())}));
        }
        if query.contains("{ locations(") {
            need(
                query.contains("includeInactive: true"),
                "inactive ones are left out",
            )?;
            let row = |i: usize| {
                (
                    epoch,
                    i,
                    json!({"id": gid("Location", i), "name": format!("Place {i}"), "updatedAt": "2026-01-01T00:00:00Z"}),
                )
            };
            return Ok(json!({"locations": page((0..8).map(row).collect())}));
        }
        Err("a query of nothing that is there".into())
    }
}

fn connection(nodes: Vec<Value>, more: bool, end: usize) -> Value {
    json!({"nodes": nodes, "pageInfo": {"hasNextPage": more, "endCursor": end.to_string()}})
}

fn throttle(available: i64) -> Value {
    json!({"cost": {"requestedQueryCost": 500, "actualQueryCost": null, "throttleStatus": {"maximumAvailable": 2000, "currentlyAvailable": available, "restoreRate": 1000}}})
}

impl Fake for Shopify {
    const KIND: &'static str = "shopify";
    const VERSION: &'static str = "coalesce(data ->> 'updatedAt', data ->> 'quantity')";
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
            config["streams"] = json!(["orders", "line_items"]);
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
            asked.path == format!("/admin/api/{VERSION}/graphql.json"),
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
            let answer = self.start_operation(variables["query"].as_str().ok_or("no query")?)?;
            return json_reply(answer);
        }
        if query.contains("... on BulkOperation") {
            let id = variables["id"].as_str().ok_or("no id")?;
            return json_reply(self.operation(id));
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
        let data = self.data(query, variables)?;
        let answer = json!({"data": data, "extensions": throttle(1_500)});
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
        refuses: true,
        ..Operations::default()
    });
    let run = stage.sync();
    stage.agrees();
    assert_eq!(run["warnings"], json!([]), "{run}");
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
