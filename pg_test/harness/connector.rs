//! Connectors, runs, and a shop whose orders they read.

use std::collections::BTreeMap;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_box::PublicKey;
use postgres::Client;
use serde_json::{Value, json};

use crate::{Asked, Reply, wait_until};

/// A manifest with one stream `orders` at `path`, paged by the body's `next`.
pub fn manifest(base: &str, path: &str) -> Value {
    json!({
        "type": "DeclarativeSource",
        "streams": [{
            "type": "DeclarativeStream", "name": "orders", "primary_key": "id",
            "retriever": {
                "type": "SimpleRetriever",
                "requester": {
                    "type": "HttpRequester", "url_base": base, "path": path,
                    "authenticator": {"type": "BearerAuthenticator", "api_token": "{{ config['api_key'] }}"}
                },
                "record_selector": {"extractor": {"field_path": ["data"]}},
                "paginator": {
                    "type": "DefaultPaginator",
                    "page_token_option": {"inject_into": "request_parameter", "field_name": "after"},
                    "pagination_strategy": {"type": "CursorPagination", "cursor_value": "{{ response.next }}"}
                }
            }
        }]
    })
}

/// Returns the same manifest with a cursor, so that later syncs request changes only.
fn incremental(base: &str, path: &str) -> Value {
    let mut manifest = manifest(base, path);
    manifest["streams"][0]["incremental_sync"] = json!({
        "type": "DatetimeBasedCursor", "cursor_field": "updated_at", "datetime_format": "%Y-%m-%dT%H:%M:%SZ",
        "start_datetime": "2020-01-01T00:00:00Z",
        "start_time_option": {"inject_into": "request_parameter", "field_name": "since"}
    });
    manifest
}

/// The config of an `api` connector.
pub fn api(base: &str, path: &str) -> Value {
    json!({"manifest": manifest(base, path)})
}

/// Inserts a connector of type api that runs only on demand; returns its id. Where the name is taken, a number follows it.
pub fn insert_connector(client: &mut Client, name: &str, config: &Value) -> String {
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
               SELECT '00000000-0000-4000-8000-000000000001', $1::text || CASE count(*) WHEN 0 THEN '' ELSE format(' (%s)', count(*)) END,
                   'api', $2::jsonb, '{\"api_key\": \"sk_test_not_a_real_key\"}', 'manual'
               FROM connectors WHERE tenant_id = '00000000-0000-4000-8000-000000000001' AND (name = $1 OR starts_with(name, $1 || ' ('))
               RETURNING connector_id::text";
    client
        .query_one(sql, &[&name, config])
        .expect("INSERT INTO connectors")
        .get(0)
}

/// A box for a server's public key, in base64, as a client makes it.
pub fn sealed_box(public_key: &str, text: &str) -> String {
    let key = STANDARD.decode(public_key).expect("base64");
    let key = PublicKey::from_slice(&key).expect("32 bytes");
    let sealed = key.seal(&mut crypto_box::aead::OsRng, text.as_bytes());
    STANDARD.encode(sealed.expect("a box"))
}

/// Queues a sync and returns its run id.
pub fn sync(client: &mut Client, connector: &str) -> String {
    let row = client
        .query_one(
            "SELECT connector_service_sync($1::text::uuid)::text",
            &[&connector],
        )
        .expect("sync");
    row.get::<_, Option<String>>(0).expect("a run id")
}

/// A run as JSON.
pub fn run_of(client: &mut Client, run: &str) -> Value {
    client
        .query_one(
            "SELECT to_jsonb(r) FROM sync_runs r WHERE run_id = $1::text::uuid",
            &[&run],
        )
        .expect("the run")
        .get(0)
}

/// Waits until a run has ended, or is back in the queue because the vendor wants a pause, and returns it.
pub fn wait_for_run(client: &mut Client, run: &str) -> Value {
    wait_until(60, "the run ends", || {
        Some(run_of(client, run)).filter(|run| match run["state"].as_str() {
            Some("queued") => !run["retry_at"].is_null(),
            state => state != Some("running"),
        })
    })
}

/// Checks for every run that received = inserted + updated + unchanged + quarantined + deleted.
pub fn ledger_holds(client: &mut Client) {
    let sql = "SELECT count(*) FROM sync_runs WHERE received <> inserted + updated + unchanged + quarantined + deleted";
    let wrong: i64 = client.query_one(sql, &[]).expect("sync_runs").get(0);
    assert_eq!(wrong, 0, "runs whose counters do not add up");
}

/// One order, a little over 200 bytes.
pub fn order(id: usize, version: usize) -> String {
    let total = id * 7 + version;
    format!(
        r#"{{"id": {id}, "updated_at": "2026-01-{:02}T{:02}:00:00Z", "total": {}.{:02}, "currency": "EUR", "customer": "Customer No. {id}", "lines": [{{"sku": "A-{}", "quantity": {}}}], "version": {version}}}"#,
        id % 28 + 1,
        version % 24,
        total / 100,
        total % 100,
        id % 50,
        id % 4 + 1
    )
}

/// A shop: orders by id, served in pages.
pub struct Shop {
    pub orders: Mutex<BTreeMap<usize, String>>,
    pub page: usize,
}

impl Shop {
    pub fn new(count: usize, page: usize) -> Shop {
        Shop {
            orders: Mutex::new((0..count).map(|id| (id, order(id, 0))).collect()),
            page,
        }
    }

    /// Config of a connector that reads this shop by its cursor.
    pub fn config(base: &str) -> Value {
        json!({"manifest": incremental(base, "orders")})
    }

    /// One page: the orders from `after` on, of those changed since `since`.
    pub fn answer(&self, asked: &Asked) -> Reply {
        let orders = self.orders.lock().expect("no panic");
        let since = asked.query.get("since").cloned().unwrap_or_default();
        let changed = |text: &&String| since.is_empty() || updated_at(text) >= since.as_str();
        let rest: Vec<&String> = orders
            .values()
            .filter(changed)
            .skip(asked.number("after"))
            .collect();
        let page: Vec<&str> = rest
            .iter()
            .take(self.page)
            .map(|text| text.as_str())
            .collect();
        let next = (rest.len() > self.page).then(|| asked.number("after") + self.page);
        Reply::Json(format!(
            r#"{{"data": [{}], "next": {}}}"#,
            page.join(","),
            json!(next)
        ))
    }

    /// Returns the id and content of each record that the raw table should hold.
    pub fn served(&self) -> BTreeMap<String, Value> {
        let orders = self.orders.lock().expect("no panic");
        let parse = |text: &String| serde_json::from_str(text).expect("an order");
        orders
            .iter()
            .map(|(id, text)| (format!("orders/{id}"), parse(text)))
            .collect()
    }

    /// Returns the id and content of each record of a connector in the raw table.
    pub fn stored(client: &mut Client, connector: &str) -> BTreeMap<String, Value> {
        let sql = "SELECT source_record_id, data FROM raw_connector_data WHERE connector_id = $1::text::uuid";
        let rows = client
            .query(sql, &[&connector])
            .expect("raw_connector_data");
        let count = rows.len();
        let stored: BTreeMap<_, _> = rows
            .into_iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        assert_eq!(stored.len(), count, "every record is stored once");
        stored
    }
}

fn updated_at(order: &str) -> &str {
    let at = order.find("updated_at").expect("a date") + 14;
    &order[at..at + 20]
}
