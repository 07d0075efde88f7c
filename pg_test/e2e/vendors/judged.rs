//! Judges from outside: the official packages of Stripe, Square and Intuit, python-quickbooks, and localstripe.
//!
//! They judge the requests that `src/core/source/pages` has word for word, the fakes of these tests, and signatures.
//! `pg_test/prepare.sh python NAME` installs what `pg_test/NAME/requirements.txt` pins.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use connector_service_test::http::ask;
use connector_service_test::*;
use ring::hmac;
use serde_json::{Value, json};

use crate::quickbooks::QuickBooks;
use crate::square::Square;
use crate::stage::*;
use crate::stripe::{LISTS, Stripe, USUAL};
use crate::{quickbooks, square};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Python in which a vendor's packages are. One at a time is made: two would make the same folder.
fn python(vendor: &str) -> PathBuf {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let prepared = Command::new(root().join("pg_test/prepare.sh"))
        .args(["python", vendor])
        .status()
        .unwrap();
    assert!(prepared.success(), "the packages of {vendor}");
    root().join(format!("target/{vendor}/bin/python"))
}

/// What a vendor's `judge.py` prints. It must find nothing wrong.
fn judge(vendor: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(python(vendor))
        .arg(root().join(format!("pg_test/{vendor}/judge.py")))
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{vendor} {arguments:?}:\n{}",
        said.lines().take(40).collect::<Vec<&str>>().join("\n")
    );
    String::from_utf8(output.stdout).unwrap()
}

fn judged(vendor: &str, arguments: &[&str], input: &str) -> Value {
    serde_json::from_str(&judge(vendor, arguments, input)).expect("JSON")
}

/// A fake with records, without a database. What it complains of is a refusal.
fn hosted<F: Fake>(mut fake: F, seed: u64, refuses: fn(&str) -> Value) -> (Vendor, Arc<Mutex<F>>) {
    let mut random = Random(seed);
    for _ in 0..400 {
        fake.change(&mut random);
    }
    for _ in 0..20 {
        fake.delete(&mut random);
        fake.settle(&mut random);
    }
    let fake = Arc::new(Mutex::new(fake));
    let serving = fake.clone();
    let vendor = Vendor::start(move |asked| {
        let answered = serving.lock().unwrap().answer(asked);
        answered.unwrap_or_else(|complaint| refusal(400, &[], refuses(&complaint)))
    });
    (vendor, fake)
}

/// The ids of what the package has read are those of the fake's own records.
fn all_came<F: Fake>(fake: &Mutex<F>, came: BTreeSet<String>, but: &[&str]) {
    let records = fake.lock().unwrap().records();
    let there = records
        .into_keys()
        .filter(|id| !but.iter().any(|list| id.starts_with(list)));
    let there: BTreeSet<String> = there.collect();
    assert!(there.len() > 100, "{} records", there.len());
    assert_eq!(came, there);
}

#[test]
fn stripe_s_package_asks_what_we_ask_reads_what_we_read_and_knows_no_event_that_we_leave_out() {
    judge("stripe", &["pages", "src/core/source/pages/stripe"], "");
}

#[test]
fn stripe_s_fake_knows_the_parameters_that_the_package_knows() {
    let theirs: BTreeMap<String, BTreeSet<String>> =
        serde_json::from_value(judged("stripe", &["lists"], "")).unwrap();
    let ours: BTreeMap<String, BTreeSet<String>> = LISTS
        .iter()
        .map(|(list, own)| {
            let all = USUAL.iter().chain(*own).map(|name| (*name).to_owned());
            ((*list).to_owned(), all.collect())
        })
        .collect();
    assert_eq!(ours, theirs);
}

#[test]
fn stripe_s_package_reads_all_of_the_fake_and_is_refused_what_stripe_refuses() {
    let (vendor, fake) = hosted(
        Stripe::with_all(),
        31,
        |complaint| json!({"error": {"type": "invalid_request_error", "message": complaint}}),
    );
    let lists = LISTS.iter().map(|(list, _)| *list);
    let lists: Vec<&str> = lists.filter(|list| *list != "events").collect();
    let url = vendor.url();
    let arguments: Vec<&str> = ["read", &url].into_iter().chain(lists).collect();
    let found = judged("stripe", &arguments, "");
    let found: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_value(found).unwrap();
    let ids = found
        .iter()
        .flat_map(|(list, objects)| objects.keys().map(move |id| format!("{list}/{id}")));
    all_came(&fake, ids.collect(), &[]);
}

#[test]
fn square_s_package_asks_what_we_ask_and_its_models_take_what_we_take() {
    judge("square", &["pages", "src/core/source/pages/square"], "");
}

#[test]
fn square_s_fake_knows_the_parameters_that_the_package_knows() {
    let theirs: BTreeMap<String, BTreeSet<String>> =
        serde_json::from_value(judged("square", &["endpoints"], "")).unwrap();
    let ours: BTreeMap<String, BTreeSet<String>> = square::ENDPOINTS
        .iter()
        .map(|(path, known)| {
            let known = known.iter().map(|name| (*name).to_owned());
            ((*path).to_owned(), known.collect())
        })
        .collect();
    assert_eq!(ours, theirs);
}

#[test]
fn square_s_package_reads_all_of_the_fake_and_is_refused_what_square_refuses() {
    let (vendor, fake) = hosted(
        Square::with_all(),
        32,
        |complaint| json!({"errors": [{"category": "INVALID_REQUEST_ERROR", "code": "BAD_REQUEST", "detail": complaint}]}),
    );
    let found = judged("square", &["read", &vendor.url()], "");
    let found: BTreeMap<String, Vec<Value>> = serde_json::from_value(found).unwrap();
    let ids = found
        .iter()
        .filter(|(list, _)| *list != "counts")
        .flat_map(|(list, objects)| {
            let stream = if list == "objects" {
                "catalog_objects"
            } else {
                list
            };
            objects
                .iter()
                .map(move |object| format!("{stream}/{}", object["id"].as_str().unwrap()))
        });
    all_came(&fake, ids.collect(), &[]);
}

#[test]
fn quickbooks_packages_ask_what_we_ask_and_read_what_we_read() {
    judge(
        "quickbooks",
        &["pages", "src/core/source/pages/quickbooks"],
        "",
    );
}

#[test]
fn quickbooks_package_reads_all_of_the_fake() {
    let (vendor, fake) = hosted(
        QuickBooks::with_all(),
        33,
        |complaint| json!({"Fault": {"Error": [{"Message": complaint, "code": "4000"}], "type": "ValidationFault"}}),
    );
    let token = fake.lock().unwrap().tokens().access();
    let url = vendor.url();
    let entities = quickbooks::ENTITIES.iter().map(|(entity, _)| *entity);
    let arguments: Vec<&str> = ["read", &url, &token].into_iter().chain(entities).collect();
    let found = judged("quickbooks", &arguments, "");
    let ids = quickbooks::ENTITIES.iter().flat_map(|(entity, stream)| {
        let records = found[*entity].as_array().unwrap();
        records
            .iter()
            .map(move |record| format!("{stream}/{}", record["Id"].as_str().unwrap()))
    });
    all_came(&fake, ids.collect(), &[]);
}

/// Bodies of a webhook in different spellings.
fn bodies(write: impl Fn(usize, &str) -> Value) -> Vec<String> {
    let notes = [
        "",
        "a \"quote\" and a \\",
        "Zürich, 東京, 🦀",
        "</script>\u{2028}",
    ];
    let values = notes.iter().enumerate().map(|(at, note)| write(at, note));
    values
        .flat_map(|value| {
            [
                value.to_string(),
                serde_json::to_string_pretty(&value).unwrap(),
            ]
        })
        .collect()
}

/// Deliveries that a vendor's package signs are taken, and what it refuses is refused.
fn signatures_agree(
    kind: &str,
    header: &str,
    config: Value,
    credentials: Value,
    question: impl Fn(&str) -> Value,
    message: impl Fn(&str) -> Vec<u8>,
    bodies: &[String],
) {
    let mut stage = Gateway::start("");
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
        VALUES ($1::text::uuid, 'pushed', $2, $3, $4, 'manual') RETURNING connector_id::text";
    let row = stage
        .client
        .query_one(sql, &[&TENANT, &kind, &config, &credentials]);
    let path = format!("/webhooks/{}", row.unwrap().get::<_, String>(0));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"not_a_real_key");
    let mut questions = Vec::new();
    for body in bodies {
        let ours = STANDARD.encode(hmac::sign(&key, &message(body)));
        let another = STANDARD.encode(hmac::sign(&key, b"another"));
        let mut altered = ours.clone().into_bytes();
        altered[0] = if altered[0] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        let of_package = question(body);
        questions.push((of_package, body, ours.clone(), true));
        for (signature, is_right) in [(ours, true), (another, false), (altered, false)] {
            let mut asked = question(body);
            asked["signature"] = signature.as_str().into();
            questions.push((asked, body, signature, is_right));
        }
    }
    let lines: Vec<String> = questions.iter().map(|asked| asked.0.to_string()).collect();
    let said = judge(kind, &["signatures"], &(lines.join("\n") + "\n"));
    let said: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(said.len(), questions.len());
    for (said, (_, body, signature, is_right)) in said.iter().zip(&questions) {
        assert_eq!(said, &json!({"signature": signature, "right": is_right}));
        let headers = [(header, signature.as_str())];
        let status = ask(stage.port, "POST", &path, &headers, body.as_bytes()).status;
        assert_eq!(status, if *is_right { 200 } else { 401 }, "{kind}: {body}");
    }
}

#[test]
fn square_s_package_and_the_gateway_take_the_same_signatures() {
    let url = "https://hooks.example.com/square?shop=1";
    signatures_agree(
        "square",
        "x-square-hmacsha256-signature",
        json!({"webhook_url": url}),
        json!({"access_token": "not_a_real_token", "webhook_signature_key": "not_a_real_key"}),
        |body| json!({"sign": body, "key": "not_a_real_key", "url": url}),
        |body| [url, body].concat().into_bytes(),
        &bodies(|at, note| {
            json!({"merchant_id": "M1", "type": "labor.timecard.deleted", "event_id": format!("e-{at}"),
                "created_at": "2026-03-01T00:00:00Z", "data": {"type": "timecard", "id": "T1", "deleted": true, "note": note}})
        }),
    );
}

#[test]
fn quickbooks_package_and_the_gateway_take_the_same_signatures() {
    signatures_agree(
        "quickbooks",
        "intuit-signature",
        json!({}),
        json!({"client_id": "app", "client_secret": "not_a_real_secret", "refresh_token": "not_a_real_token",
            "realm_id": "9130347", "webhook_verifier": "not_a_real_key"}),
        |body| json!({"sign": body, "key": "not_a_real_key"}),
        |body| body.as_bytes().to_vec(),
        &bodies(|at, note| {
            json!([{"specversion": "1.0", "id": format!("e-{at}"), "source": "intuit", "type": "qbo.timeactivity.deleted.v1",
                "time": "2026-03-01T00:00:00Z", "intuitentityid": "5", "intuitaccountid": "9130347", "data": {"note": note}}])
        }),
    );
}

/// localstripe on a port of its own.
struct LocalStripe {
    child: Child,
    port: u16,
}

impl LocalStripe {
    fn start() -> LocalStripe {
        let port = free_port();
        let child = Command::new(python("stripe"))
            .args(["-m", "localstripe", "--from-scratch", "--port"])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let local = LocalStripe { child, port };
        wait_until(30, "localstripe answers", || {
            let headers = [("Authorization", "Bearer sk_test_not_a_real_key")];
            http::try_ask(port, "GET", "/v1/customers", &headers, b"")
                .filter(|answered| answered.status == 200)
        });
        local
    }

    fn call(&self, method: &str, path: &str, form: &str) -> Value {
        let headers = [
            ("Authorization", "Bearer sk_test_not_a_real_key"),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        let answered = ask(self.port, method, path, &headers, form.as_bytes());
        assert_eq!(answered.status, 200, "{method} {path}: {}", answered.body);
        answered.json()
    }

    fn made(&self, path: &str, form: &str) -> String {
        let object = self.call("POST", path, form);
        object["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for LocalStripe {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request as localstripe can answer it: it pages by `starting_after`, but knows hardly a filter of any list, and of
/// events none but by time. What it leaves in is read, too.
fn ask_local(port: u16, asked: &Asked) -> Reply {
    let is_kept = |name: &str| {
        ["limit", "starting_after"].contains(&name)
            || asked.path == "/v1/events" && name.starts_with("created")
            || asked.path == "/v1/subscriptions" && name == "status"
    };
    let query: Vec<String> = asked
        .pairs
        .iter()
        .filter(|(name, _)| is_kept(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let path = format!("{}?{}", asked.path, query.join("&"));
    let key = asked.headers["authorization"].as_str();
    let answered = ask(port, "GET", &path, &[("Authorization", key)], b"");
    Reply::Full {
        status: answered.status,
        headers: vec![],
        body: answered.body.into_bytes(),
    }
}

#[test]
fn the_stripe_connector_reads_localstripe_and_follows_it() {
    let local = LocalStripe::start();
    let port = local.port;
    let vendor = Vendor::start(move |asked| ask_local(port, asked));
    let cluster = Cluster::start("");
    let mut client = cluster.database("app");
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
        VALUES ($1::text::uuid, 'shop', 'stripe', $2, $3, 'manual') RETURNING connector_id::text";
    let streams = [
        "customers",
        "products",
        "charges",
        "refunds",
        "balance_transactions",
        "subscriptions",
        "invoices",
        "payouts",
    ];
    let config = json!({"base_url": vendor.url(), "requests_per_second": 1000, "streams": streams});
    let credentials = json!({"api_key": "sk_test_not_a_real_key"});
    let row = client.query_one(sql, &[&TENANT, &config, &credentials]);
    let connector: String = row.unwrap().get(0);

    let mut customers = Vec::new();
    for number in 0..230 {
        let form = format!("email=a{number}@example.com&description=first");
        customers.push(local.made("/v1/customers", &form));
    }
    let card = "type=card&card[number]=4242424242424242&card[exp_month]=12&card[exp_year]=2030&card[cvc]=123";
    let mut charges = Vec::new();
    for customer in &customers[..20] {
        let source = format!(
            "source[object]=card&{}",
            card.trim_start_matches("type=card&")
                .replace("card[", "source[")
        );
        local.call(
            "POST",
            &format!("/v1/customers/{customer}/sources"),
            &source,
        );
        let form = format!("amount=1500&currency=usd&customer={customer}");
        charges.push(local.made("/v1/charges", &form));
    }
    let product = local.made("/v1/products", "name=Tea&type=service");
    local.made(
        "/v1/plans",
        "id=monthly&amount=900&currency=usd&interval=month&name=Monthly",
    );
    let form = format!("customer={}&items[0][plan]=monthly", customers[0]);
    let subscription = local.made("/v1/subscriptions", &form);
    local.made("/v1/refunds", &format!("charge={}&amount=500", charges[0]));

    let sync_now = |client: &mut postgres::Client| {
        let run = sync(client, &connector);
        let run = wait_for_run(client, &run);
        assert_eq!(run["state"], "succeeded", "{run}");
        run
    };
    sync_now(&mut client);
    let stored = |client: &mut postgres::Client| -> BTreeMap<String, Value> {
        let sql = "SELECT source_record_id, data FROM raw_connector_data WHERE NOT deleted";
        let rows = client.query(sql, &[]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let there = || -> BTreeMap<String, Value> {
        let mut there = BTreeMap::new();
        for stream in streams {
            let all = if stream == "subscriptions" {
                "&status=all"
            } else {
                ""
            };
            let list = local.call("GET", &format!("/v1/{stream}?limit=1000{all}"), "");
            for object in list["data"].as_array().unwrap() {
                there.insert(
                    format!("{stream}/{}", object["id"].as_str().unwrap()),
                    object.clone(),
                );
            }
        }
        there
    };
    let agree = |client: &mut postgres::Client| {
        let (stored, there) = (stored(client), there());
        let (ours, theirs): (BTreeSet<&String>, BTreeSet<&String>) =
            (stored.keys().collect(), there.keys().collect());
        let differ: Vec<&&String> = ours.symmetric_difference(&theirs).collect();
        assert!(differ.is_empty(), "{differ:?}");
        for (id, object) in &there {
            assert_eq!(&stored[id], object, "{id}");
        }
        stored.len()
    };
    let count = agree(&mut client);
    assert!(count > 270, "{count}");

    // What changes, and what is deleted.
    local.call(
        "POST",
        &format!("/v1/customers/{}", customers[3]),
        "description=second",
    );
    local.call("DELETE", &format!("/v1/customers/{}", customers[200]), "");
    local.call("DELETE", &format!("/v1/subscriptions/{subscription}"), "");
    local.made("/v1/customers", "email=new@example.com");
    local.made("/v1/refunds", &format!("charge={}", charges[1]));
    let _ = product;
    let run = sync_now(&mut client);
    assert_eq!(run["deleted"], 1, "{run}");
    agree(&mut client);
}
