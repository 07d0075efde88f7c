//! Tokens that are asked for, run out, and are replaced: a vendor who takes every refresh token once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use connector_service_test::*;
use postgres::{Client, NoTls};
use serde_json::{Value, json};

/// What the vendor has given out, and what it was shown.
#[derive(Default)]
struct Tokens {
    given: usize,
    /// Refresh tokens that were shown after they had been replaced.
    reused: Vec<String>,
    /// The token requests since the start.
    asked: usize,
    /// Access tokens count up with refresh tokens; those before this one do not open any more.
    valid_from: usize,
    refused: usize,
    /// Whether a replaced token was already stored when the access token that came with it was used.
    stored_first: Vec<bool>,
    credentials: String,
}

struct Shape {
    pages: usize,
    expires_in: Value,
    /// The access token that is refused after so many pages.
    revoke_after: Option<usize>,
    page_takes: Duration,
}

const QUICK: Shape = Shape {
    pages: 3,
    expires_in: Value::Null,
    revoke_after: None,
    page_takes: Duration::ZERO,
};

struct Stage {
    cluster: Cluster,
    client: Client,
    tokens: Arc<Mutex<Tokens>>,
    vendor: Vendor,
    connector: String,
}

fn stage(shape: Shape) -> Stage {
    let cluster = Cluster::start("connector_service.request_retries = 1");
    let mut client = cluster.database("app");
    let tokens = Arc::new(Mutex::new(Tokens::default()));
    let (serving, url) = (tokens.clone(), cluster.url("app"));
    let vendor = Vendor::start(move |asked| {
        let mut tokens = serving.lock().unwrap();
        if asked.path == "/token" {
            return grant(&mut tokens, asked, &shape, &url);
        }
        let shown = &asked.headers["authorization"];
        let number: usize = shown
            .strip_prefix("Bearer access-")
            .unwrap()
            .parse()
            .unwrap();
        if number < tokens.valid_from.max(tokens.given) {
            tokens.refused += 1;
            return Reply::status(401);
        }
        let page = asked.number("after");
        if page == 0 {
            let is_stored = stored(&url) != tokens.credentials;
            tokens.stored_first.push(is_stored);
        }
        if shape.revoke_after == Some(page) && tokens.valid_from == 0 {
            tokens.valid_from = tokens.given + 1;
            tokens.refused += 1;
            return Reply::status(401);
        }
        let next = (page + 1 < shape.pages).then_some(page + 1);
        let page = Reply::Json(json!({"data": [{"id": page}], "next": next}).to_string());
        Reply::After(shape.page_takes, Box::new(page))
    });
    let mut config = api(&vendor.url(), "orders");
    config["manifest"]["streams"][0]["retriever"]["requester"]["authenticator"] = json!({
        "type": "OAuthAuthenticator", "token_refresh_endpoint": format!("{}/token", vendor.url()),
        "client_id": "{{ config['client_id'] }}", "client_secret": "{{ config['client_secret'] }}",
        "refresh_token": "{{ config['refresh_token'] }}"
    });
    let credentials = json!({"client_id": "app", "client_secret": "not_a_real_secret", "refresh_token": "refresh-0"});
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
               VALUES (gen_random_uuid(), 'shop', 'api', $1, $2, 'manual') RETURNING connector_id::text";
    let connector = client
        .query_one(sql, &[&config, &credentials])
        .unwrap()
        .get(0);
    Stage {
        cluster,
        client,
        tokens,
        vendor,
        connector,
    }
}

fn grant(tokens: &mut Tokens, asked: &Asked, shape: &Shape, url: &str) -> Reply {
    tokens.asked += 1;
    assert_eq!(asked.method, "POST");
    let said: Vec<&str> = asked.body.split('&').collect();
    assert!(
        said.contains(&"client_secret=not_a_real_secret"),
        "{}",
        asked.body
    );
    let shown = said
        .iter()
        .find_map(|pair| pair.strip_prefix("refresh_token="))
        .unwrap();
    if shown != format!("refresh-{}", tokens.given) {
        tokens.reused.push(shown.to_owned());
        return Reply::Full {
            status: 400,
            headers: vec![],
            body: json!({"error": "invalid_grant", "shown": shown})
                .to_string()
                .into_bytes(),
        };
    }
    tokens.given += 1;
    tokens.credentials = stored(url);
    let (access, refresh) = (
        format!("access-{}", tokens.given),
        format!("refresh-{}", tokens.given),
    );
    Reply::Json(
        json!({"access_token": access, "refresh_token": refresh, "expires_in": shape.expires_in})
            .to_string(),
    )
}

/// Credentials as the database has them.
fn stored(url: &str) -> String {
    let mut client = Client::connect(url, NoTls).unwrap();
    client
        .query_one("SELECT credentials::text FROM connectors", &[])
        .unwrap()
        .get(0)
}

impl Stage {
    fn sync(&mut self) -> Value {
        let run = sync(&mut self.client, &self.connector);
        wait_for_run(&mut self.client, &run)
    }

    fn read<T>(&self, of: impl FnOnce(&Tokens) -> T) -> T {
        of(&self.tokens.lock().unwrap())
    }
}

#[test]
fn a_replaced_refresh_token_is_stored_sealed_before_anything_is_done_with_it() {
    let mut stage = stage(QUICK);
    for given in 1..=4 {
        let run = stage.sync();
        assert_eq!(
            (&run["state"], &run["received"]),
            (&json!("succeeded"), &json!(3)),
            "{run}"
        );
        assert_eq!(
            stage.read(|tokens| (tokens.given, tokens.asked)),
            (given, given)
        );
    }
    assert_eq!(stage.read(|tokens| tokens.stored_first.clone()), [true; 4]);
    assert_eq!(
        stage.read(|tokens| tokens.reused.clone()),
        Vec::<String>::new()
    );
    let stored = stored(&stage.cluster.url("app"));
    for plain in ["refresh-", "access-", "not_a_real"] {
        assert!(!stored.contains(plain), "{stored}");
        assert!(!stage.cluster.log().contains(plain));
    }
    // What a person gives takes the place of what is stored.
    stage.tokens.lock().unwrap().given = 90;
    let sql =
        "UPDATE connectors SET credentials = credentials || '{\"refresh_token\": \"refresh-90\"}'";
    stage.client.batch_execute(sql).unwrap();
    assert_eq!(stage.sync()["state"], "succeeded");
    assert_eq!(stage.read(|tokens| tokens.given), 91);
}

#[test]
fn a_token_that_is_refused_on_the_way_is_asked_for_again_once() {
    let mut stage = stage(Shape {
        pages: 6,
        revoke_after: Some(4),
        ..QUICK
    });
    let run = stage.sync();
    assert_eq!(
        (&run["state"], &run["received"]),
        (&json!("succeeded"), &json!(6)),
        "{run}"
    );
    assert_eq!(
        stage.read(|tokens| (tokens.asked, tokens.refused, tokens.reused.len())),
        (2, 1, 0)
    );
    // Refused whatever it is: no more than one new token for it.
    stage.tokens.lock().unwrap().valid_from = usize::MAX;
    let run = stage.sync();
    assert_eq!(
        (&run["state"], &run["error_code"]),
        (&json!("failed"), &json!("credentials_rejected")),
        "{run}"
    );
    assert_eq!(stage.read(|tokens| tokens.asked), 3);
}

#[test]
fn a_token_is_renewed_before_it_is_over() {
    let mut stage = stage(Shape {
        pages: 8,
        expires_in: json!("1"),
        page_takes: Duration::from_millis(300),
        ..QUICK
    });
    let run = stage.sync();
    assert_eq!(
        (&run["state"], &run["received"]),
        (&json!("succeeded"), &json!(8)),
        "{run}"
    );
    let (asked, refused) = stage.read(|tokens| (tokens.asked, tokens.refused));
    assert!(
        (2..=4).contains(&asked) && refused == 0,
        "{asked} {refused}"
    );
}

#[test]
fn a_login_that_fails_is_the_vendor_s_to_explain_and_is_not_repeated() {
    let mut stage = stage(QUICK);
    stage.tokens.lock().unwrap().given = 5;
    let run = stage.sync();
    assert_eq!(run["error_code"], "credentials_rejected", "{run}");
    assert_eq!(
        run["error_message"],
        "stream \"orders\": 127.0.0.1: HTTP 400 (no token was given)"
    );
    assert_eq!(
        stage.read(|tokens| (tokens.asked, tokens.reused.clone())),
        (1, vec!["refresh-0".to_owned()])
    );
    assert_eq!(stage.vendor.asked_for("/orders"), 0);
    let sql = "SELECT status FROM connectors";
    assert_eq!(
        stage
            .client
            .query_one(sql, &[])
            .unwrap()
            .get::<_, String>(0),
        "error"
    );
}

#[test]
fn a_kill_after_the_token_was_stored_loses_nothing() {
    let mut stage = stage(QUICK);
    stage.cluster.arm("after_keep", 1);
    let run = sync(&mut stage.client, &stage.connector);
    wait_until(30, "the worker was killed", || {
        stage
            .cluster
            .log()
            .contains("was terminated by signal 9")
            .then_some(())
    });
    stage.client = stage.cluster.wait_ready_in("app");
    let run = wait_for_run(&mut stage.client, &run);
    assert_eq!(
        (&run["state"], &run["attempt"], &run["received"]),
        (&json!("succeeded"), &json!(2), &json!(3)),
        "{run}"
    );
    assert_eq!(
        stage.read(|tokens| (tokens.given, tokens.reused.len())),
        (2, 0)
    );
}
