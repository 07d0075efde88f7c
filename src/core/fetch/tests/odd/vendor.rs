//! A vendor that gives its own sound answers, but for one of them.

use super::*;
use crate::fetch::run::{Shared, fetch};
use crate::source::Definition;
use std::path::Path;
use tokio::sync::Semaphore;

pub const KINDS: [&str; 7] = [
    "api",
    "erpnext",
    "quickbooks",
    "salesforce",
    "shopify",
    "square",
    "stripe",
];

/// A pass of a vendor, and which of its exchanges has the records that are looked at.
fn pass_of(kind: &str) -> (&'static str, usize) {
    match kind {
        "erpnext" => ("sales_invoices_first", 0),
        "quickbooks" => ("items", 0),
        "salesforce" => ("custom_object", 1),
        "shopify" => ("products", 0),
        "square" => ("refunds", 0),
        _ => ("charges_first", 0),
    }
}

/// What is served next.
#[derive(Default)]
struct Script {
    /// Sound answers, in their order.
    sound: Vec<String>,
    /// Which of them is odd, and how often.
    target: usize,
    odd: Vec<u8>,
    /// The request that it came for.
    odd_for: Option<(String, String)>,
    times: usize,
    stays: bool,
    /// Answers to token requests; the last one for ever.
    tokens: Vec<Vec<u8>>,
    at: usize,
    /// How often the odd one was asked for.
    asked: usize,
    /// Bodies of token requests, and what data requests were authorized with.
    token_requests: Vec<String>,
    authorized: Vec<String>,
    paths: Vec<String>,
}

pub struct Vendor {
    pub kind: &'static str,
    pub url: Url,
    /// The records of the exchange that may be odd.
    pub ids: Vec<String>,
    pub config: Value,
    pub credentials: Value,
    state: Option<Value>,
    stream: String,
    sound: Vec<String>,
    target: usize,
    token: Option<String>,
    script: Arc<Mutex<Script>>,
    client: Arc<Client>,
}

/// What became of a run.
#[derive(Debug)]
pub struct Told {
    pub result: Result<(), Failure>,
    pub ids: Vec<String>,
    pub rejected: usize,
    /// Requests for what was odd.
    pub asked: usize,
    pub ended: bool,
    pub text: String,
    pub token_requests: Vec<String>,
    pub authorized: Vec<String>,
    pub paths: Vec<String>,
    /// Refresh tokens that were stored, the old one and the new one.
    pub rotated: Vec<(Secret, Secret)>,
}

/// Adds a text with other letters to every object of a list.
fn with_letters(value: &mut Value) {
    match value {
        Value::Array(items) => {
            for item in items {
                if let Some(fields) = item.as_object_mut() {
                    fields.insert("letters".to_owned(), "café €".into());
                }
                with_letters(item);
            }
        }
        Value::Object(fields) => fields.values_mut().for_each(with_letters),
        _ => {}
    }
}

const SECRET: &str = "not_a_real_secret";

impl Vendor {
    pub async fn start(kind: &'static str) -> Vendor {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let script: Arc<Mutex<Script>> = Arc::default();
        tokio::spawn(listen(listener, script.clone()));
        let mut vendor = Vendor {
            kind,
            ids: ["s/1", "s/2"].map(str::to_owned).to_vec(),
            config: Value::Null,
            credentials: json!({}),
            state: None,
            stream: "s".to_owned(),
            sound: Vec::new(),
            target: 0,
            token: None,
            script,
            client: Arc::new(Client::new()),
            url,
        };
        if kind != "api" {
            vendor.read_pass();
        }
        vendor
    }

    /// Takes the pass out of the vendor's pages.
    fn read_pass(&mut self) {
        let (file, target) = pass_of(self.kind);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("source/pages");
        let path = path.join(self.kind).join(format!("{file}.json"));
        let text = std::fs::read_to_string(path).unwrap();
        let home = self.url.as_str().trim_end_matches('/');
        let text = text.replace("https://acme.my.salesforce.com", home);
        let mut pass: Value = serde_json::from_str(&text).unwrap();
        let exchanges = pass["exchanges"].as_array_mut().unwrap();
        let is_token = |exchange: &Value| {
            let url = exchange["asked"]["url"].as_str().unwrap();
            url.contains("/token")
        };
        if is_token(&exchanges[0]) {
            self.token = Some(exchanges.remove(0)["answer"].to_string());
        }
        let ids = exchanges[target]["found"]["records"].as_array().unwrap();
        self.ids = ids
            .iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect();
        self.target = target;
        for exchange in exchanges {
            with_letters(&mut exchange["answer"]);
            self.sound.push(exchange["answer"].to_string());
        }
        self.stream = pass["stream"].as_str().unwrap().to_owned();
        self.state = Some(pass["cursor"].clone()).filter(|cursor| !cursor.is_null());
        self.config = match pass["config"].clone() {
            Value::Null => json!({}),
            config => config,
        };
        self.config["base_url"] = home.into();
        self.config["streams"] = json!([self.stream]);
        // The pace of an account is not what is looked at.
        self.config["requests_per_second"] = json!(1_000);
        if self.kind == "quickbooks" {
            self.config["token_url"] = format!("{home}/token").into();
        }
        self.credentials = match (&pass["credentials"], self.kind) {
            (Value::Null, "erpnext") => json!({"api_key": SECRET, "api_secret": SECRET}),
            (Value::Null, "quickbooks") => json!({
                "client_id": "app", "client_secret": SECRET, "refresh_token": "refresh-0", "realm_id": 1234
            }),
            (Value::Null, "shopify") => json!({"shop": "acme", "access_token": SECRET}),
            (Value::Null, "square") => json!({"access_token": SECRET}),
            (Value::Null, _) => json!({"api_key": SECRET}),
            (own, _) => own.clone(),
        };
        if let Some(fields) = self.credentials.as_object_mut() {
            fields.remove("domain");
        }
    }

    /// A manifest for records of the shape.
    fn manifest(&self, shape: Shape) -> Value {
        let path = match shape {
            Shape::Data => json!(["data"]),
            Shape::List | Shape::Link => json!([]),
        };
        let mut retriever = json!({
            "requester": {"url_base": self.url.as_str(), "path": "s"},
            "record_selector": {"extractor": {"type": "DpathExtractor", "field_path": path}}
        });
        if shape == Shape::Link {
            retriever["paginator"] = json!({
                "pagination_strategy": {
                    "type": "CursorPagination", "cursor_value": "{{ headers['link']['next']['url'] }}"
                },
                "page_token_option": {"type": "RequestPath"}
            });
        }
        json!({"streams": [{"name": "s", "primary_key": "id", "retriever": retriever}]})
    }

    /// One run in which the odd answer comes so many times.
    pub async fn ask(&self, row: &Row, times: usize) -> Told {
        let mut config = self.config.clone();
        let mut sound = self.sound.clone();
        if self.kind == "api" {
            let list = r#"[{"id": 1, "letters": "café €"}, {"id": 2, "letters": "café €"}]"#;
            sound = match row.shape {
                Shape::List => vec![list.to_owned()],
                Shape::Data => vec![format!(r#"{{"data": {list}}}"#)],
                Shape::Link => vec![list.to_owned(), r#"[{"id": 3}]"#.to_owned()],
            };
            config = json!({"manifest": self.manifest(row.shape)});
        }
        let odd = (row.make)(&sound[self.target]);
        let tokens = self.token.iter();
        let tokens = tokens.map(|token| answer("200 OK", &[JSON], token.as_bytes()));
        let script = Script {
            target: self.target,
            odd,
            times,
            stays: row.stays,
            tokens: tokens.collect(),
            sound,
            ..Script::default()
        };
        self.run(script, config, self.credentials.clone()).await
    }

    /// One run with other answers to its token requests; what is asked for then is sound, but refused so many times.
    pub async fn log_in(
        &self,
        tokens: Vec<Vec<u8>>,
        refusal: Option<(Vec<u8>, usize)>,
        config: Value,
        credentials: Value,
    ) -> Told {
        let (odd, times) = refusal.unwrap_or_default();
        let mut sound = self.sound.clone();
        if self.kind == "api" {
            sound = vec![r#"[{"id": 1}, {"id": 2}]"#.to_owned()];
        }
        let script = Script {
            target: self.target,
            odd,
            times,
            tokens,
            sound,
            ..Script::default()
        };
        self.run(script, config, credentials).await
    }

    async fn run(&self, script: Script, config: Value, credentials: Value) -> Told {
        *self.script.lock().unwrap() = script;
        let now = "2026-03-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap();
        let states = self.state.iter().map(|at| {
            let state = StreamState {
                at: Some(at.clone()),
                ..StreamState::default()
            };
            let age = Duration::ZERO;
            (self.stream.clone(), Stored { state, age })
        });
        let definition = Definition {
            config,
            credentials: credentials.into(),
            limits: RecordLimits {
                bytes: 1 << 20,
                depth: 50,
                key: 500,
            },
        };
        let job = Job {
            source: self.kind.to_owned(),
            definition,
            states: states.collect(),
            now,
            default_from: now - chrono::TimeDelta::days(30),
            limits: Limits {
                read_timeout: Duration::from_secs(2),
                ..LIMITS
            },
            ..job(&self.url)
        };
        static GATE: Gate = Gate::new();
        let (kept, mut rotations) = mpsc::unbounded_channel::<Rotation>();
        let logins = Arc::new(Logins::new(&GATE, kept, Arc::new(|| {})));
        logins.let_in(job.run);
        let rotated: Arc<Mutex<Vec<(Secret, Secret)>>> = Arc::default();
        let storing = rotated.clone();
        let store = tokio::spawn(async move {
            while let Some(rotation) = rotations.recv().await {
                let Rotated { old, new, .. } = rotation.rotated.clone();
                storing.lock().unwrap().push((old, new));
                rotation.stored();
            }
        });
        let (sender, mut inbox) = mpsc::channel(100);
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(|| {});
        let outbox = Outbox { sender, wake };
        let trace = Arc::new(Trace::new(&job.definition.credentials, job.now));
        let shared = Shared {
            client: self.client.clone(),
            paces: Paces::default(),
            large: Semaphore::new(1),
            beside: Semaphore::new(STREAMS_BESIDE),
            logins,
            outbox,
        };
        let result = fetch(job, &shared, &trace).await.result;
        drop(shared);
        let _ = store.await;
        let script = self.script.lock().unwrap();
        let mut told = Told {
            result,
            ids: Vec::new(),
            rejected: 0,
            asked: script.asked,
            ended: false,
            text: String::new(),
            token_requests: script.token_requests.clone(),
            authorized: script.authorized.clone(),
            paths: script.paths.clone(),
            rotated: rotated.lock().unwrap().clone(),
        };
        while let Ok(event) = inbox.try_recv() {
            let What::Page(page) = event.what else {
                continue;
            };
            told.rejected += page.rejected.len();
            told.ended = page.state.pass.is_none();
            for record in page.records {
                told.text += std::str::from_utf8(&record.json).unwrap();
                told.ids.push(record.id);
            }
        }
        told
    }
}

async fn listen(listener: TcpListener, script: Arc<Mutex<Script>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let script = script.clone();
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            while let Some((head, body)) = request(&mut stream).await {
                let (text, is_last) = next(&head, &body, &script);
                if stream.write_all(&text).await.is_err() || is_last {
                    let _ = stream.shutdown().await;
                    return;
                }
            }
        });
    }
}

async fn request(stream: &mut BufReader<tokio::net::TcpStream>) -> Option<(String, String)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut lines = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lines
        .next()
        .map_or(0, |(_, length)| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

/// The answer to a request, and whether the connection ends behind it.
fn next(head: &str, body: &str, script: &Mutex<Script>) -> (Vec<u8>, bool) {
    let mut script = script.lock().unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    if path.contains("token") {
        script.token_requests.push(body.to_owned());
        let last = script.token_requests.len().min(script.tokens.len()) - 1;
        let token = script.tokens[last].clone();
        let ends = memchr::memmem::find(&token, b"Connection: close").is_some();
        return (token, ends);
    }
    let authorized = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_it = ["authorization", "x-shopify-access-token"]
            .contains(&name.to_ascii_lowercase().as_str());
        is_it.then(|| value.to_owned())
    });
    script.authorized.extend(authorized);
    script.paths.push(path.clone());
    let this = Some((path, body.to_owned()));
    if script.at == script.target && script.odd_for.is_some() && script.odd_for != this {
        // The odd answer was read, and led on.
        script.at += 1;
    }
    if script.at == script.target {
        script.asked += 1;
        if script.times > 0 {
            script.times -= 1;
            script.odd_for = this;
            let odd = script.odd.clone();
            return (odd, !script.stays);
        }
    }
    let at = script.at;
    script.at += 1;
    let sound = script.sound.get(at).cloned().unwrap_or_default();
    (answer("200 OK", &[JSON], sound.as_bytes()), false)
}
