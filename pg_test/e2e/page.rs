//! Tests the gateway's page in a real browser: what each token shows, what the buttons do, and whether the page works
//! on a phone, by keyboard, and in light and dark.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::OnceLock;
use std::time::Duration;

use connector_service_test::http::ask;
use connector_service_test::*;
use serde_json::{Value, json};

const OTHER: &str = "00000000-0000-4000-8000-000000000002";
/// What a name, a message or a reason would do if it were taken for HTML.
const HOSTILE: &str =
    "<img src=x onerror=\"window.pwned=1\"><script>window.pwned=1</script><b>&amp;";

const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';
const LEFT: char = '\u{e012}';
const RIGHT: char = '\u{e014}';

/// Chromium without a window, told what to do by the WebDriver protocol.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

/// Asks chromedriver, which says that it closes a connection and leaves it open.
fn drive(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).ok()?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).ok().filter(|read| *read > 0)?;
    }
    let head = head.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.split("content-length:").nth(1)?.lines().next()?;
    let mut body = vec![0; length.trim().parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((status, serde_json::from_slice(&body).ok()?))
}

impl Browser {
    fn start(home: &Path) -> Browser {
        // Two at once would both install.
        static PREPARED: OnceLock<bool> = OnceLock::new();
        let is_prepared = PREPARED.get_or_init(|| {
            let prepare = Path::new(env!("CARGO_MANIFEST_DIR")).join("prepare.sh");
            let prepared = Command::new(prepare).arg("browser").status();
            prepared.unwrap().success()
        });
        assert!(is_prepared, "a browser");
        std::fs::create_dir(home).unwrap();
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            // What it leaves behind goes with the folder.
            .env("HOME", home)
            .env("TMPDIR", home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // With the browser a group of its own, so that both end whatever becomes of the session.
            .process_group(0)
            .spawn()
            .unwrap();
        let mut browser = Browser {
            driver,
            port,
            session: String::new(),
        };
        wait_until(30, "chromedriver is ready", || {
            drive(port, "GET", "/status", "").filter(|(status, _)| *status == 200)
        });
        let folder = format!("--user-data-dir={}", home.join("profile").display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // Nothing but this host is there.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--lang=en-US",
            "--window-size=1280,900",
            &folder,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": arguments}
        }}});
        let session = browser.tell("POST", "/session", &wanted);
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    fn tell(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = match method {
            "POST" => body.to_string(),
            _ => String::new(),
        };
        let (status, answer) = drive(self.port, method, path, &body).unwrap();
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer["value"].clone()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.tell("POST", &format!("/session/{}/{path}", self.session), body)
    }

    fn open(&self, url: &str) {
        self.post("url", &json!({"url": url}));
    }

    fn reload(&self) {
        self.post("refresh", &json!({}));
    }

    /// What a script returns.
    fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({"script": script, "args": []}))
    }

    /// The value of an expression.
    fn value(&self, expression: &str) -> Value {
        self.run(&format!("return {expression}"))
    }

    /// Waits until an expression is true.
    fn until(&self, what: &str, expression: &str) {
        wait_until(30, what, || {
            (self.value(&format!("Boolean({expression})")) == true).then_some(())
        });
    }

    fn text(&self, selector: &str) -> String {
        let script = format!("document.querySelector({}).innerText", json!(selector));
        self.value(&script).as_str().unwrap_or_default().to_owned()
    }

    /// The lines of text of all elements that a selector names.
    fn texts(&self, selector: &str) -> Vec<String> {
        let script = format!(
            "[...document.querySelectorAll({})].map(node => node.innerText)",
            json!(selector)
        );
        let texts = self.value(&script);
        let texts = texts.as_array().unwrap().iter();
        texts
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    }

    /// Presses keys, as a person does, wherever the focus is.
    fn press(&self, keys: &str) {
        let keys = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|what| json!({"type": what, "value": key.to_string()}))
        });
        let keys: Vec<Value> = keys.collect();
        let actions = json!([{"type": "key", "id": "keyboard", "actions": keys}]);
        self.post("actions", &json!({"actions": actions}));
    }

    /// Goes from one place to the next by the tabulator until the one that has the focus is the one.
    fn tab_to(&self, what: &str, is_there: &str) {
        for _ in 0..40 {
            self.press(&TAB.to_string());
            let there = format!("(node => {is_there})(document.activeElement)");
            if self.value(&format!("Boolean({there})")) == true {
                let outline = "getComputedStyle(document.activeElement).outlineStyle !== 'none'
                    || getComputedStyle(document.activeElement.parentElement).outlineStyle !== 'none'";
                assert_eq!(self.value(outline), true, "the focus is seen on {what}");
                return;
            }
        }
        panic!("the tabulator does not come to {what}");
    }

    fn click(&self, selector: &str) {
        let found = self.post(
            "element",
            &json!({"using": "css selector", "value": selector}),
        );
        let id = found.as_object().unwrap().values().next().unwrap();
        self.post(
            &format!("element/{}/click", id.as_str().unwrap()),
            &json!({}),
        );
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.post("goog/cdp/execute", &body);
    }

    fn size(&self, width: u32, height: u32) {
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            &json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        );
    }

    fn prefer(&self, scheme: &str) {
        let feature = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": feature}));
    }

    /// What the browser complained of since it was asked last: errors of scripts, refusals by the policy, requests that
    /// failed.
    fn complaints(&self) -> Vec<String> {
        let entries = self.post("se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().unwrap().iter();
        let entries = entries.filter(|entry| ["SEVERE", "WARNING"].contains(&word(entry, "level")));
        entries
            .map(|entry| word(entry, "message").to_owned())
            .collect()
    }

    /// Signs in with the keyboard alone: the field has the focus already.
    fn sign_in(&self, token: &str) {
        self.until("the form", "document.activeElement.id === 'token'");
        self.press(&format!("{token}{ENTER}"));
        let is_in = "!document.getElementById('board').hidden && document.getElementById('updated').textContent";
        self.until("it is signed in", is_in);
    }

    /// Writes a picture into the folder that PICTURES names, for a person to look at.
    fn picture(&self, name: &str) {
        if let Some(folder) = std::env::var_os("PICTURES") {
            let bytes = self.screenshot(u64::MAX);
            std::fs::write(Path::new(&folder).join(name), bytes).unwrap();
        }
    }

    /// The page as PNG, down to this many pixels.
    fn screenshot(&self, most: u64) -> Vec<u8> {
        let height = self.value("document.documentElement.scrollHeight");
        let height = height.as_u64().unwrap().min(most);
        let width = self.value("innerWidth");
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let body = json!({"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": true, "clip": clip}});
        let taken = self.post("goog/cdp/execute", &body);
        base64::Engine::decode(&base64::prelude::BASE64_STANDARD, word(&taken, "data")).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let path = format!("/session/{}", self.session);
            drive(self.port, "DELETE", &path, "");
        }
        // SAFETY: a signal to the group that was started with the driver, which is not waited for yet.
        unsafe { libc::kill(-i32::try_from(self.driver.id()).unwrap(), libc::SIGKILL) };
        let _ = self.driver.wait();
    }
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// The browser ends before the server, and the folder of both goes last.
struct Stage {
    browser: Browser,
    gateway: Gateway,
}

/// A server with a gateway, two tenants, and a browser that shows the page.
fn stage() -> Stage {
    let mut gateway = Gateway::start("");
    gateway.execute(&format!(
        "INSERT INTO tenants (tenant_id, name, currency) VALUES ('{TENANT}', 'Roastery Nord', 'EUR'), ('{OTHER}', 'Other', 'USD')"
    ));
    let browser = Browser::start(&gateway.cluster.dir.join("browser"));
    let stage = Stage { browser, gateway };
    stage.browser.open(&stage.url());
    stage
}

impl Stage {
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.gateway.port)
    }

    fn alert(&mut self, tenant: &str, severity: &str, message: &str) {
        let sql = "INSERT INTO data_quality_alerts (tenant_id, alert_type, severity, message) VALUES ($1::text::uuid, 'outlier', $2, $3)";
        self.gateway
            .client
            .execute(sql, &[&tenant, &severity, &message])
            .unwrap();
    }
}

/// A shop of so many orders, a hundred on a page.
fn vendor_of(orders: usize) -> Vendor {
    let shop = Shop::new(orders, 100);
    Vendor::start(move |asked| shop.answer(asked))
}

#[test]
fn a_person_with_only_a_keyboard_can_sign_in_sync_and_sign_out() {
    let mut stage = stage();
    let vendor = vendor_of(250);
    let locked = Vendor::start(|_| Reply::status(401));
    let shop = insert_connector(
        &mut stage.gateway.client,
        "shop",
        &Shop::config(&vendor.url()),
    );
    let till = insert_connector(
        &mut stage.gateway.client,
        "till",
        &api(&locked.url(), "orders"),
    );
    let hostile = insert_connector(
        &mut stage.gateway.client,
        HOSTILE,
        &api(&locked.url(), "orders"),
    );
    let sql = "UPDATE connectors SET status = 'paused' WHERE connector_id = $1::text::uuid";
    stage.gateway.client.execute(sql, &[&hostile]).unwrap();
    for connector in [&shop, &till] {
        let run = sync(&mut stage.gateway.client, connector);
        wait_for_run(&mut stage.gateway.client, &run);
    }
    stage.alert(TENANT, "critical", HOSTILE);
    let token = stage.gateway.token(Some(TENANT), "app");
    let browser = &stage.browser;

    // Who has no token sees a form, and why the last one did not open it.
    let focused = "document.activeElement.id === 'token'";
    browser.until("the form waits for a token", focused);
    browser.press(&format!("cs_not_a_token{ENTER}"));
    let refused = "document.getElementById('refused').textContent";
    browser.until("it is refused", refused);
    assert_eq!(
        browser.value(refused),
        "This token is unknown, expired or deleted. Sign in with another one."
    );
    browser.until("the form waits for another", focused);
    let stored = "[sessionStorage.length, localStorage.length, document.cookie]";
    assert_eq!(browser.value(stored), json!([0, 0, ""]));
    // The browser itself says that it was a 401; there is nothing else.
    let complaints = browser.complaints();
    assert!(
        matches!(&complaints[..], [one] if one.contains("/tenants") && one.contains("401")),
        "{complaints:?}"
    );
    // A token that no header may hold is refused as well.
    browser.press(&format!("ü{ENTER}"));
    browser.until("it is refused", refused);
    browser.until("the form waits for another", focused);
    browser.sign_in(&token);
    assert_eq!(
        browser.value("[localStorage.length, document.cookie, location.href]"),
        json!([0, "", stage.url()])
    );

    // Those in trouble first, and whatever a name is, it is a name.
    assert_eq!(
        browser.texts("#connectors-list strong"),
        ["till", HOSTILE, "shop"]
    );
    let badges = browser.texts("#connectors-list .badge");
    assert_eq!(badges, ["Error", "Paused", "OK"]);
    let shapes = "new Set([...document.querySelectorAll('#connectors-list .badge path')].map(path => path.getAttribute('d'))).size";
    assert_eq!(browser.value(shapes), 3, "a shape for each health");
    assert!(browser.text("#alerts-list").contains(HOSTILE));
    assert_eq!(browser.value("String(window.pwned)"), "undefined");
    assert_eq!(
        browser.value("document.querySelectorAll('main img, main script, main b b').length"),
        0
    );
    assert_eq!(browser.text("#only"), "Roastery Nord");
    // One is "1 connector", and none is "0 syncs".
    let tiles = browser.texts("#tiles a");
    let tiles: Vec<String> = tiles.iter().map(|tile| tile.replace('\n', " ")).collect();
    assert_eq!(
        tiles,
        [
            "3 connectors 1 needs attention",
            "0 syncs running none queued",
            "1 open alert 1 critical",
            "0 records in quarantine none rejected"
        ]
    );
    let states = browser.texts("#runs-list .badge");
    assert_eq!(states, ["Failed", "Succeeded"]);
    // What went wrong, and what to do about it.
    let sql = "SELECT connector_service_hint(error_code) FROM sync_runs WHERE state = 'failed'";
    let hint: String = stage.gateway.client.query_one(sql, &[]).unwrap().get(0);
    let results = browser.texts("#runs-list td:last-child");
    assert!(results[0].contains(&hint), "{results:?}");
    assert!(results[1].contains("250 new"), "{results:?}");
    // Headings go down one step at a time.
    let headings = "[...document.querySelectorAll('h1, h2, h3')].filter(h => h.checkVisibility()).map(h => h.tagName).join()";
    assert_eq!(browser.value(headings), "H1,H2,H2,H2,H2,H2");
    // Moments can be read exactly.
    let moments = browser
        .value("[...document.querySelectorAll('time')].every(t => /^\\d{4}-.*Z$/.test(t.title))");
    assert_eq!(moments, true);

    // By the tabulator to a button; it does its work, and the focus stays on it.
    browser.tab_to(
        "the button that syncs the shop",
        "node.getAttribute('aria-label') === 'Sync shop'",
    );
    browser.press(&ENTER.to_string());
    browser.until(
        "the sync is seen to end",
        "document.querySelectorAll('#runs-list > tr').length === 3 && document.querySelector('#runs-list .badge').textContent === 'Succeeded'",
    );
    assert_eq!(
        browser.value("document.activeElement.getAttribute('aria-label')"),
        "Sync shop"
    );
    // A failure that is retried says when.
    let sql = "UPDATE connectors SET failures = 1, error_message = 'no connection to 127.0.0.1:5433', next_sync_at = now() + interval '10 minutes'
        WHERE connector_id = $1::text::uuid";
    stage.gateway.client.execute(sql, &[&shop]).unwrap();
    let browser = &stage.browser;
    browser.run("document.dispatchEvent(new Event('visibilitychange'))");
    browser.until(
        "the failure and its retry",
        "/Failing\\s+retrying at .*\\d:\\d\\d.*: no connection to 127.0.0.1:5433/.test(document.getElementById('connectors-list').innerText)",
    );
    browser.picture("failing.png");
    // The paused one is not asked for.
    browser.run("document.querySelector('[aria-label^=\"Sync <img\"]').click()");
    // Out, and nothing stays.
    browser.run("document.getElementById('out').focus()");
    browser.press(&ENTER.to_string());
    browser.until("the form is back", focused);
    assert_eq!(browser.value(stored), json!([0, 0, ""]));
    assert!(!browser.text("body").contains("shop"));
    assert_eq!(browser.complaints(), [""; 0]);
    let sql = format!("SELECT count(*) FROM sync_runs WHERE connector_id = '{hostile}'");
    assert_eq!(stage.gateway.count(&sql), 0);

    // A right that is taken back is noticed.
    stage.browser.sign_in(&token);
    stage
        .gateway
        .client
        .batch_execute("DELETE FROM gateway_tokens")
        .unwrap();
    stage
        .browser
        .run("document.dispatchEvent(new Event('visibilitychange'))");
    stage.browser.until("it is signed out", refused);
}

#[test]
fn the_page_shows_a_running_sync_and_a_chart_of_the_metrics() {
    let mut stage = stage();
    // Three pages at once; the last one when it is let go.
    let shop = Mutex::new(Shop::new(400, 100));
    let vendor = Vendor::start(move |asked| {
        let answer = shop.lock().unwrap().answer(asked);
        match asked.number("after") {
            300 => Reply::After(Duration::from_secs(60), Box::new(answer)),
            _ => answer,
        }
    });
    let connector = insert_connector(
        &mut stage.gateway.client,
        "shop",
        &api(&vendor.url(), "orders"),
    );
    stage.gateway.client
        .batch_execute(&format!(
            "INSERT INTO metrics (tenant_id, metric_type, metric_date, metric_value)
             SELECT '{TENANT}', 'costs', (now() AT TIME ZONE 'UTC')::date - n, 12345678901234567.0123456789 + n FROM generate_series(0, 4) AS n WHERE n <> 2"
        ))
        .unwrap();
    let token = stage.gateway.token(Some(TENANT), "app");
    let browser = &stage.browser;
    browser.sign_in(&token);
    assert_eq!(browser.texts("#connectors-list .badge"), ["New"]);
    browser.run("window.mark = 1");
    browser.click("[aria-label='Sync shop']");
    let first = "document.querySelector('#runs-list > tr')";
    browser.until(
        "progress is seen",
        &format!(
            "/Running[^]*300[^]*300 new\\s+3 pages/.test(({first} || document.body).innerText)"
        ),
    );
    browser.picture("progress.png");
    assert_eq!(browser.texts("#connectors-list .badge"), ["Syncing"]);
    assert_eq!(
        browser.value(
            "document.querySelector('[aria-label=\"Sync shop\"]').getAttribute('aria-disabled')"
        ),
        "true"
    );
    vendor.let_go();
    browser.until(
        "its end is seen",
        &format!("/Succeeded[^]*400 new/.test({first}.innerText)"),
    );
    browser.until(
        "the connector is well",
        "document.querySelector('#connectors-list .badge').textContent === 'OK'",
    );
    let said = browser.text("#announcement");
    assert!(
        said.contains("Sync of shop succeeded, 400 records."),
        "{said}"
    );
    assert_eq!(browser.value("window.mark"), 1, "without a reload");
    let sql = format!(
        "SELECT count(*) FROM sync_runs WHERE connector_id = '{connector}' AND state = 'succeeded'"
    );
    assert_eq!(stage.gateway.count(&sql), 1);

    // A chart of the days that have a value, with every digit beside it.
    let browser = &stage.browser;
    browser.run("document.querySelector('[name=type]').focus()");
    browser.press(&RIGHT.to_string());
    browser.until(
        "the costs are drawn",
        "document.getElementById('caption').textContent.startsWith('Costs')
            && document.querySelectorAll('#chart .bar').length === 4",
    );
    let sql = "SELECT jsonb_agg(metric_date ORDER BY metric_date)::text, jsonb_agg(metric_value::text ORDER BY metric_date DESC)::text FROM metrics WHERE metric_type = 'costs'";
    let row = stage.gateway.client.query_one(sql, &[]).unwrap();
    let [days, values] =
        [0, 1].map(|column| serde_json::from_str::<Value>(row.get::<_, &str>(column)).unwrap());
    let drawn = "[...document.querySelectorAll('#chart .bar')].map(bar => bar.dataset.day)";
    assert_eq!(browser.value(drawn), days);
    browser.run("document.querySelector('details').open = true");
    let shown = "[...document.querySelectorAll('#values .num')].map(cell => cell.textContent)";
    assert_eq!(browser.value(shown), values);
    assert_eq!(values[0], "12345678901234567.0123456789");
    assert_eq!(browser.text("#unit"), "Costs (EUR)");
    // Exactly the sum: 4 times the value, and 0 + 1 + 3 + 4.
    let total = browser.text("#total");
    assert!(total.contains("49,382,715,604,938,276.05"), "{total}");
    // The keys go from day to day.
    browser.run("document.getElementById('chart').focus()");
    browser.press(&format!("{LEFT}{LEFT}"));
    assert!(browser.text("#readout").ends_with(": no value"));
    browser.press(&LEFT.to_string());
    let told = browser.value("document.getElementById('chart').getAttribute('aria-valuetext')");
    assert!(
        told.as_str().unwrap().contains("€12,345,678,901,234,57"),
        "{told}"
    );
    browser.picture("costs.png");
    browser.run("document.querySelector('[name=period][value=\"365\"]').click()");
    browser.until(
        "a year is drawn",
        "document.getElementById('chart').getAttribute('aria-valuemax') === '364'",
    );
    browser.run("document.querySelector('[name=type][value=inventory]').click()");
    browser.until(
        "nothing is no chart, and says what to do",
        "document.getElementById('figures').hidden && /INSERT INTO metric_mappings/.test(document.querySelector('#metrics .none').innerText)",
    );
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn the_buttons_resolve_alerts_and_replay_records() {
    let mut stage = stage();
    let vendor = vendor_of(200);
    let connector = insert_connector(
        &mut stage.gateway.client,
        "shop",
        &Shop::config(&vendor.url()),
    );
    let rule = "ALTER TABLE raw_connector_data ADD CONSTRAINT mine CHECK (source_record_id NOT IN ('orders/7', 'orders/8'))";
    stage.gateway.client.batch_execute(rule).unwrap();
    let run = sync(&mut stage.gateway.client, &connector);
    assert_eq!(
        wait_for_run(&mut stage.gateway.client, &run)["quarantined"],
        2
    );
    for (severity, message) in [
        ("info", "the third"),
        ("critical", "the first"),
        ("warning", "the second"),
    ] {
        stage.alert(TENANT, severity, message);
    }
    let token = stage.gateway.token(Some(TENANT), "app");
    let browser = &stage.browser;
    browser.sign_in(&token);
    let badges = browser.texts("#alerts-list .badge");
    assert_eq!(badges, ["Critical", "Warning", "Info"]);
    browser.run("document.querySelectorAll('#alerts-list button')[1].focus()");
    browser.press(&ENTER.to_string());
    browser.until(
        "it is gone",
        "document.querySelectorAll('#alerts-list li').length === 2",
    );
    assert_eq!(
        browser.texts("#alerts-list .badge"),
        ["Critical", "Info"],
        "the one that was meant"
    );
    assert_eq!(browser.text("#announcement"), "The alert is resolved.");
    // The focus is on the next one.
    assert_eq!(
        browser.value("document.activeElement.getAttribute('aria-label')"),
        "Resolve: the third"
    );
    let sql = "SELECT string_agg(message, ',') FROM data_quality_alerts WHERE resolved AND NOT resolved_by_data";
    let resolved: Option<String> = stage.gateway.client.query_one(sql, &[]).unwrap().get(0);
    assert_eq!(resolved.as_deref(), Some("the second"));
    // One that is closed elsewhere goes by itself; a button that comes too late says so.
    stage
        .gateway
        .client
        .batch_execute("UPDATE data_quality_alerts SET resolved = true")
        .unwrap();
    let browser = &stage.browser;
    browser.press(&ENTER.to_string());
    browser.until(
        "nothing is open",
        "!document.querySelector('#alerts .none').hidden",
    );
    let focused = browser.value("document.activeElement.id");
    assert_eq!(focused, "alerts-h");
    let complaints = browser.complaints();
    assert!(
        matches!(&complaints[..], [one] if one.contains("/resolve") && one.contains("404")),
        "{complaints:?}"
    );

    let list = browser.text("#quarantine-list");
    assert!(
        list.contains("2 records of orders: refused by postgres"),
        "{list}"
    );
    browser.click("[aria-label='Replay shop']");
    browser.until(
        "it says that it helped nothing",
        "document.getElementById('announcement').textContent === 'No record of shop left the quarantine: the cause is still there.'",
    );
    let lift = "ALTER TABLE raw_connector_data DROP CONSTRAINT mine";
    stage.gateway.client.batch_execute(lift).unwrap();
    let browser = &stage.browser;
    browser.until(
        "the button is free",
        "document.querySelector('[aria-label=\"Replay shop\"]').getAttribute('aria-disabled') !== 'true'",
    );
    browser.click("[aria-label='Replay shop']");
    browser.until(
        "nothing is left",
        "!document.querySelector('#quarantine .none').hidden",
    );
    assert_eq!(
        browser.text("#announcement"),
        "2 records of shop left the quarantine."
    );
    assert_eq!(browser.complaints(), [""; 0]);
    let sql = "SELECT count(*) FROM raw_connector_data";
    assert_eq!(stage.gateway.count(sql), 200);
    ledger_holds(&mut stage.gateway.client);
}

#[test]
fn a_token_shows_only_its_tenant_and_a_read_token_shows_no_buttons() {
    let mut stage = stage();
    let vendor = vendor_of(10);
    let shop = insert_connector(
        &mut stage.gateway.client,
        "shop",
        &Shop::config(&vendor.url()),
    );
    let run = sync(&mut stage.gateway.client, &shop);
    wait_for_run(&mut stage.gateway.client, &run);
    let sql = "INSERT INTO connectors (tenant_id, name, type, config) VALUES ($1::text::uuid, 'files', 'csv', '{\"key\": \"id\"}')";
    stage.gateway.client.execute(sql, &[&OTHER]).unwrap();
    stage.alert(TENANT, "warning", "mine");
    stage.alert(OTHER, "warning", "theirs");
    let [own, every] = [(Some(TENANT), "read"), (None, "read")]
        .map(|(tenant, scope)| stage.gateway.token(tenant, scope));
    let browser = &stage.browser;
    browser.sign_in(&own);
    assert_eq!(browser.texts("#connectors-list strong"), ["shop"]);
    assert_eq!(browser.texts("#alerts-list p"), ["mine"]);
    assert_eq!(browser.texts("#runs-list strong"), ["shop"]);
    let buttons = "document.querySelectorAll('section button:not(#more)').length";
    assert_eq!(browser.value(buttons), 0);
    // There is nothing to choose, whatever this tab remembers, and asking for more is refused by the server.
    assert_eq!(
        browser.value(
            "[document.getElementById('choice').hidden, document.getElementById('tenant').length]"
        ),
        json!([true, 1])
    );
    browser.run(&format!(
        "sessionStorage.setItem('connector_service.tenant', '{OTHER}')"
    ));
    browser.reload();
    browser.until(
        "it is still signed in",
        "document.querySelectorAll('#connectors-list strong').length",
    );
    assert_eq!(browser.texts("#connectors-list strong"), ["shop"]);
    assert!(!browser.text("body").contains("theirs"));
    let bearer = format!("Bearer {own}");
    let path = format!("/tenants/{OTHER}/overview");
    let answered = ask(
        stage.gateway.port,
        "GET",
        &path,
        &[("Authorization", &bearer)],
        b"",
    );
    assert_eq!(answered.status, 403);

    // One for all has the choice, and another's rows are gone when it is made.
    browser.click("#out");
    browser.sign_in(&every);
    let names = browser.texts("#tenant option");
    assert_eq!(names, ["Other", "Roastery Nord"]);
    assert_eq!(browser.texts("#connectors-list strong"), ["files"]);
    browser.run("document.getElementById('tenant').focus()");
    browser.press("R");
    browser.until(
        "the other one is shown",
        "document.querySelector('#connectors-list strong').textContent === 'shop'",
    );
    assert_eq!(browser.texts("#alerts-list p"), ["mine"]);
    browser.reload();
    browser.until(
        "it is still that one",
        "document.querySelector('#connectors-list strong')?.textContent === 'shop'",
    );
    assert_eq!(browser.value(buttons), 0);
    assert_eq!(browser.complaints(), [""; 0]);

    // Without an answer it says so and keeps what it has; it goes on by itself.
    stage.gateway.cluster.stop(Stop::Fast);
    browser.run("document.dispatchEvent(new Event('visibilitychange'))");
    browser.until(
        "it says that nobody answers",
        "/does not answer.*may be out of date/.test(document.getElementById('trouble').innerText)",
    );
    assert_eq!(browser.texts("#connectors-list strong"), ["shop"]);
    stage.gateway.cluster.run();
    browser.until("it goes on", "document.getElementById('trouble').hidden");
}

/// Every text that is seen whose contrast with what is behind it is below 4.5.
const FAINT: &str = r"
    const part = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const read = text => text.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
    const behind = node => {
        for (; node; node = node.parentElement) {
            const colour = read(getComputedStyle(node).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), faint = [];
    let seen = 0;
    while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.matches('noscript, option')) continue;
        const style = getComputedStyle(node);
        const [a, b] = [light(read(node instanceof SVGElement ? style.fill : style.color)), light(behind(node))];
        const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        seen += 1;
        if (contrast < 4.5) faint.push(walker.currentNode.data.trim() + ': ' + contrast.toFixed(2));
    }
    return {seen, faint};
";

#[test]
fn the_page_fits_a_small_phone_and_has_contrast_in_light_and_dark() {
    let mut stage = stage();
    let vendor = vendor_of(1_200);
    let locked = Vendor::start(|_| Reply::status(401));
    let shop = insert_connector(
        &mut stage.gateway.client,
        "web shop",
        &Shop::config(&vendor.url()),
    );
    let rule = "ALTER TABLE raw_connector_data ADD CONSTRAINT mine CHECK (source_record_id NOT IN ('orders/7', 'orders/8'))";
    stage.gateway.client.batch_execute(rule).unwrap();
    let till = insert_connector(
        &mut stage.gateway.client,
        "till",
        &api(&locked.url(), "orders"),
    );
    let long = "x".repeat(200);
    insert_connector(
        &mut stage.gateway.client,
        &long,
        &api(&locked.url(), "orders"),
    );
    for _ in 0..6 {
        for connector in [&shop, &till] {
            let run = sync(&mut stage.gateway.client, connector);
            wait_for_run(&mut stage.gateway.client, &run);
        }
    }
    for (severity, message) in [
        ("info", HOSTILE),
        ("critical", &long),
        ("warning", "No revenue data for 2026-01-01"),
    ] {
        stage.alert(TENANT, severity, message);
    }
    stage.gateway.client
        .batch_execute(&format!(
            "INSERT INTO metrics (tenant_id, metric_type, metric_date, metric_value)
             SELECT '{TENANT}', 'revenue', (now() AT TIME ZONE 'UTC')::date - n, 5000.25 + 37 * (n * n % 91) FROM generate_series(0, 29) AS n WHERE n <> 11"
        ))
        .unwrap();
    let token = stage.gateway.token(None, "app");
    let browser = &stage.browser;
    let fits = "[innerWidth, document.documentElement.scrollWidth <= innerWidth]";
    let looked = |what: &str, width: u32| {
        assert_eq!(browser.value(fits), json!([width, true]), "{what}");
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            let found = browser.run(FAINT);
            assert_eq!(found["faint"], json!([]), "{what}, {scheme}");
            assert!(found["seen"].as_u64().unwrap() > 5, "{found}");
            browser.picture(&format!("{what}-{width}-{scheme}.png"));
        }
    };
    browser.size(320, 640);
    looked("form", 320);
    browser.sign_in(&token);
    // By its name the first: nothing is there yet, and it says what to do.
    let first = browser.text("#connectors .none");
    assert!(first.contains("INSERT INTO connectors"), "{first}");
    assert!(first.contains(OTHER), "{first}");
    looked("empty", 320);
    browser.run("const tenant = document.getElementById('tenant'); tenant.value = tenant.lastChild.value; tenant.dispatchEvent(new Event('change'))");
    browser.until(
        "the chart",
        "document.querySelectorAll('#chart .bar').length === 29",
    );
    browser.run(
        "document.querySelector('details').open = true; document.getElementById('more').click()",
    );
    for (width, height) in [(320, 640), (360, 740), (768, 900), (1280, 900)] {
        browser.size(width, height);
        browser.until(
            "the chart fits",
            "(node => Math.abs(node.firstChild.clientWidth - node.clientWidth) < 2)(document.getElementById('chart'))",
        );
        looked("board", width);
    }
    // A finger finds what it can press.
    browser.size(320, 640);
    browser.until("it fits again", &format!("String({fits}) === '320,true'"));
    let small = "[...document.querySelectorAll('button, select, input[type=search], summary')].filter(node => node.checkVisibility() && node.getBoundingClientRect().height < 44).map(node => node.textContent)";
    assert_eq!(browser.value(small), json!([]));
    assert_eq!(browser.complaints(), [""; 0]);
    assert!(stage.gateway.cluster.log().contains("gateway"));
}

/// A tenant with a month of revenue, four connectors, and something to look at. `ACCEPT=1` writes docs/images/page.png.
#[test]
fn the_page_shows_what_the_picture_of_the_readme_shows() {
    let mut stage = stage();
    let vendor = vendor_of(1_240);
    let locked = Vendor::start(|_| Reply::status(401));
    let connectors = [
        ("web shop", Shop::config(&vendor.url())),
        ("market stall", Shop::config(&vendor.url())),
        ("wholesale", Shop::config(&vendor.url())),
        ("payments", api(&locked.url(), "payments")),
    ];
    let rule = "ALTER TABLE raw_connector_data ADD CONSTRAINT price_is_known CHECK (source_record_id <> 'orders/7')";
    stage.gateway.execute(rule);
    for (name, config) in &connectors {
        let connector = insert_connector(&mut stage.gateway.client, name, config);
        let run = sync(&mut stage.gateway.client, &connector);
        wait_for_run(&mut stage.gateway.client, &run);
    }
    stage.gateway.execute(&format!(
        "UPDATE connectors SET sync_frequency = 'hourly', next_sync_at = date_trunc('hour', now()) + interval '1 hour' WHERE status = 'active';
         INSERT INTO data_quality_alerts (tenant_id, alert_type, severity, message)
         VALUES ('{TENANT}', 'missing', 'warning', 'no revenue from market stall on Sunday');
         INSERT INTO metrics (tenant_id, metric_type, metric_date, metric_value)
         SELECT '{TENANT}', 'revenue', (now() AT TIME ZONE 'UTC')::date - n, 5000.25 + 37 * (n * n % 91) FROM generate_series(1, 29) AS n WHERE n <> 11"
    ));
    let token = stage.gateway.token(Some(TENANT), "app");
    let browser = &stage.browser;
    browser.size(1000, 700);
    browser.prefer("light");
    browser.sign_in(&token);
    browser.until(
        "the chart",
        "document.querySelectorAll('#chart .bar').length === 28",
    );
    // Health, metrics and alerts; runs and quarantine are below.
    let picture = browser.screenshot(1075);
    assert!(picture.len() < 150_000, "{} bytes", picture.len());
    let text = browser.text("body");
    for shown in [
        "web shop",
        "market stall",
        "wholesale",
        "payments",
        "no revenue from market stall",
    ] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    if std::env::var_os("ACCEPT").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images/page.png");
        std::fs::write(file, &picture).unwrap();
    }
}
