#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod guarded;
mod logins;
mod odd;
mod pinned;
mod streams;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use url::Url;
use uuid::Uuid;

use super::client::Client;
use super::logins::Logins;
use super::pace::Paces;
use super::run::{Outbox, Run};
use super::*;
use crate::json::{self, RecordLimits, Spec};
use crate::record::{Page, Pass};
use crate::secret::tests::ring;
use crate::secret::{Credentials, Place, Secret};
use crate::source::{Method, Position, Reader, Request, Response, Start, Stream, Verdict};

const LIMITS: Limits = Limits {
    connect_timeout: Duration::from_secs(5),
    read_timeout: Duration::from_secs(5),
    request_timeout: Duration::from_secs(10),
    response_bytes: 4 * 1024 * 1024,
    retries: 2,
    retry_pause: Duration::from_millis(1),
    longest_pause: Duration::from_secs(1),
    pages: 10,
    syncs_of_account: 4,
};

/// The logins of runs that have none.
fn no_logins() -> Arc<Logins> {
    static GATE: Gate = Gate::new();
    let (sender, _) = mpsc::unbounded_channel();
    Arc::new(Logins::new(&GATE, sender, Arc::new(|| {})))
}

/// Every server of these tests is this host.
fn loopback() -> Arc<Allowed> {
    Arc::new("127.0.0.1".parse().unwrap())
}

/// Bodies are `{"rows": [...], "next": ..., "high": ...}`.
struct Script {
    streams: Vec<Stream>,
    url: Url,
    /// Whether page tokens are numbers of pages.
    counts: bool,
}

impl Reader for Script {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn window(&self, _: &Stream, _: Option<&Value>, start: Start) -> Result<Window, Failure> {
        Ok(Window {
            from: Some(start.default_from),
            to: start.now,
        })
    }

    fn request(&self, at: &Position) -> Result<Request, Failure> {
        let mut url = self.url.clone();
        url.set_path(&format!(
            "{}/{}",
            at.stream.name,
            at.next.map_or("first".into(), Value::to_string)
        ));
        Ok(Request {
            is_bare: false,
            method: Method::Get,
            url,
            headers: vec![],
            body: None,
        })
    }

    fn verdict(&self, _: &Position, got: &Response) -> Verdict {
        match got.status {
            410 => Verdict::Absent("not here".into()),
            409 => Verdict::Expired(Failure::new(Code::RequestRefused, "over")),
            _ => crate::source::request::verdict_by_status(got),
        }
    }

    fn page(&self, at: &Position, got: &Response) -> Result<Page, Failure> {
        let limits = RecordLimits {
            bytes: 1 << 20,
            depth: 10,
            key: 100,
        };
        let (path, key) = (["rows".to_owned()], [vec!["id".to_owned()]]);
        let spec = Spec {
            stream: &at.stream.name,
            path: &path,
            key: &key,
            cursor: None,
            gone: None,
            limits,
            lines: &[],
        };
        let found = json::records(&got.body, &spec)?;
        let body: Value = serde_json::from_slice(&got.body).unwrap();
        let given = |name: &str| body.get(name).filter(|value| !value.is_null()).cloned();
        let high = given("high").or(at.high.cloned());
        Ok(Page {
            records: found.records,
            rejected: found.rejected,
            next: given("next"),
            counts: self.counts,
            warning: given("warning").and_then(|text| text.as_str().map(str::to_owned)),
            high,
            ..Page::default()
        })
    }
}

type Answers = HashMap<String, Vec<String>>;

/// A server that gives the answers of a path one after the other, the last one for ever; tells what was asked.
async fn serve(answers: &[(&str, &[&str])]) -> (Url, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let answers: Answers = answers
        .iter()
        .map(|(path, given)| {
            (
                (*path).to_owned(),
                given.iter().map(|text| (*text).to_owned()).collect(),
            )
        })
        .collect();
    let (answers, seen) = (Arc::new(Mutex::new(answers)), asked.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answers, seen) = (answers.clone(), seen.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let path = head
                        .split(' ')
                        .nth(1)
                        .unwrap()
                        .trim_start_matches('/')
                        .to_owned();
                    let answer = {
                        let mut answers = answers.lock().unwrap();
                        let given = answers
                            .entry(path.clone())
                            .or_insert_with(|| vec!["404 ".into()]);
                        if given.len() > 1 {
                            given.remove(0)
                        } else {
                            given[0].clone()
                        }
                    };
                    seen.lock().unwrap().push(path);
                    if answer == "silence" {
                        return std::future::pending().await;
                    }
                    let (status, body) = answer.split_once(' ').unwrap();
                    let (status, header) = status.split_once('+').unwrap_or((status, "X: y"));
                    let text = format!(
                        "HTTP/1.1 {status} S\r\n{header}\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, asked)
}

struct Told {
    /// Host and port of the vendor.
    server: String,
    result: Result<(), Failure>,
    states: Vec<StreamState>,
    ids: Vec<String>,
    asked: Vec<String>,
}

async fn run_with(
    answers: &[(&str, &[&str])],
    ordered: bool,
    states: HashMap<String, Stored>,
) -> Told {
    run_covered(answers, ordered, states, None).await
}

async fn run_covered(
    answers: &[(&str, &[&str])],
    ordered: bool,
    states: HashMap<String, Stored>,
    cover: Option<Cover>,
) -> Told {
    let (url, asked) = serve(answers).await;
    let server = place::server(&url);
    let streams = vec![Stream {
        name: "s".into(),
        ordered,
        whole: false,
    }];
    let reader: Arc<dyn Reader> = Arc::new(Script {
        streams,
        url,
        counts: false,
    });
    let told = Given {
        states,
        cover,
        ..Given::new(reader)
    };
    let told = told.read().await;
    let (mut states, mut ids) = (Vec::new(), Vec::new());
    for what in told.events {
        if let What::Page(page) = what {
            states.push(page.state);
            ids.extend(page.records.into_iter().map(|record| record.id));
        }
    }
    let asked = asked.lock().unwrap().clone();
    Told {
        server,
        result: told.outcome.result,
        states,
        ids,
        asked,
    }
}

/// What a run told, and how it ended.
struct Read {
    outcome: Outcome,
    events: Vec<What>,
}

/// What is given to a run.
struct Given {
    reader: Arc<dyn Reader>,
    parallel: usize,
    states: HashMap<String, Stored>,
    cover: Option<Cover>,
    limits: Limits,
    allowed: Arc<Allowed>,
    client: Arc<Client>,
}

impl Given {
    fn new(reader: Arc<dyn Reader>) -> Given {
        Given {
            reader,
            parallel: 1,
            states: HashMap::new(),
            cover: None,
            limits: LIMITS,
            allowed: loopback(),
            client: Arc::new(Client::new()),
        }
    }

    /// Reads all streams.
    async fn read(self) -> Read {
        let (sender, mut inbox) = mpsc::channel(1_000);
        let outbox = Outbox {
            sender,
            wake: Arc::new(|| {}),
        };
        let now = DateTime::UNIX_EPOCH;
        let trace = Arc::new(Trace::new(&Credentials::default(), now));
        let run = Run {
            run: Uuid::nil(),
            connector: Uuid::nil(),
            tenant: Uuid::nil(),
            paces: &Paces::default(),
            logins: &no_logins(),
            began: std::time::Instant::now(),
            reader: &self.reader,
            definition: "d".into(),
            states: self.states,
            start: Start {
                now,
                default_from: now,
                read_until: None,
                missed_since: None,
                span: None,
            },
            limits: self.limits,
            cover: self.cover,
            allowed: self.allowed,
            parallel: self.parallel,
            is_preview: false,
            login: tokio::sync::Mutex::default(),
            connections: connections::Connections::new(self.parallel),
            pages_read: Default::default(),
            failed_in_a_row: Default::default(),
            trace: &trace,
            beside: &Semaphore::new(16),
            client: &self.client,
            outbox: &outbox,
        };
        let mut outcome = run.all_streams().await;
        outcome.trace = Some(trace.clone());
        let mut events = Vec::new();
        while let Ok(event) = inbox.try_recv() {
            events.push(event.what);
        }
        Read { outcome, events }
    }
}

/// Fetches a job from beginning to end.
async fn fetched(job: Job, client: &Arc<Client>) -> Read {
    static GATE: Gate = Gate::new();
    let (sender, mut inbox) = mpsc::channel(1_000);
    let (kept, mut rotations) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(rotation) = rotations.recv().await {
            Rotation::stored(rotation);
        }
    });
    let outbox = Outbox {
        sender,
        wake: Arc::new(|| {}),
    };
    let shared = run::Shared {
        client: client.clone(),
        paces: Paces::default(),
        large: Semaphore::new(1),
        beside: Semaphore::new(STREAMS_BESIDE),
        logins: Arc::new(Logins::new(&GATE, kept, Arc::new(|| {}))),
        outbox,
    };
    shared.logins.let_in(job.run);
    let trace = Arc::new(Trace::new(&job.definition.credentials, job.now));
    let mut outcome = run::fetch(job, &shared, &trace).await;
    outcome.trace = Some(trace);
    let mut events = Vec::new();
    while let Ok(event) = inbox.try_recv() {
        events.push(event.what);
    }
    Read { outcome, events }
}

async fn run(answers: &[(&str, &[&str])]) -> Told {
    run_with(answers, false, HashMap::new()).await
}

fn stored(
    at: Option<Value>,
    next: Option<Value>,
    definition: &str,
    age: Duration,
) -> HashMap<String, Stored> {
    let window = Window {
        from: None,
        to: DateTime::UNIX_EPOCH,
    };
    let pass = next.map(|next| Pass {
        next,
        high: None,
        window,
        definition: definition.into(),
        counts: false,
        again: false,
        shifted: false,
    });
    HashMap::from([(
        "s".to_owned(),
        Stored {
            state: StreamState {
                at,
                pass,
                read_until: None,
                missed_since: None,
                finished_by: None,
            },
            age,
        },
    )])
}

const THREE: [(&str, &[&str]); 3] = [
    (
        "s/first",
        &[r#"200 {"rows": [{"id": 1}], "next": 2, "high": "b"}"#],
    ),
    (
        "s/2",
        &[r#"200 {"rows": [{"id": 2}], "next": 3, "high": "c"}"#],
    ),
    ("s/3", &[r#"200 {"rows": [{"id": 3}]}"#]),
];

fn summary(states: &[StreamState]) -> Vec<(Option<&str>, Option<u64>)> {
    let one = |state: &StreamState| state.pass.as_ref().map(|pass| pass.next.as_u64().unwrap());
    states
        .iter()
        .map(|state| (state.at.as_ref().and_then(Value::as_str), one(state)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_reads_to_its_end_and_only_then_moves_the_cursor() {
    let told = run(&THREE).await;
    assert_eq!(told.result, Ok(()));
    assert_eq!(told.ids, ["s/1", "s/2", "s/3"]);
    assert_eq!(
        summary(&told.states),
        [(None, Some(2)), (None, Some(3)), (Some("c"), None)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_stream_moves_its_cursor_with_every_page() {
    let told = run_with(&THREE, true, HashMap::new()).await;
    assert_eq!(
        summary(&told.states),
        [
            (Some("b"), Some(2)),
            (Some("c"), Some(3)),
            (Some("c"), None)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_is_denied_in_its_middle_ends_and_moves_no_cursor() {
    let answers: [(&str, &[&str]); 2] = [
        (
            "s/first",
            &[r#"200 {"rows": [{"id": 1}], "next": 2, "high": "b"}"#],
        ),
        ("s/2", &["410 "]),
    ];
    let told = run_with(
        &answers,
        false,
        stored(Some(json!("a")), None, "d", Duration::ZERO),
    )
    .await;
    assert_eq!((told.result, told.ids), (Ok(()), vec!["s/1".to_owned()]));
    assert_eq!(
        summary(&told.states),
        [(Some("a"), Some(2)), (Some("a"), None)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_page_token_restarts_the_pass_a_bounded_number_of_times() {
    let first = r#"200 {"rows": [{"id": 1}], "next": 2}"#;
    let second = r#"200 {"rows": [{"id": 2}]}"#;
    let told = run_with(
        &[("s/first", &[first]), ("s/2", &["409 ", second])],
        false,
        HashMap::new(),
    )
    .await;
    assert_eq!(
        (told.result, told.ids),
        (Ok(()), ["s/1", "s/1", "s/2"].map(str::to_owned).to_vec())
    );
    let told = run_with(
        &[("s/first", &[first]), ("s/2", &["409 "])],
        false,
        HashMap::new(),
    )
    .await;
    assert_eq!(told.result.unwrap_err().code, Code::RequestRefused);
    assert_eq!(told.asked.len(), 8, "{:?}", told.asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_without_end_stops_the_stream() {
    let page = format!(
        r#"200 {{"rows": [{{"id": 1}}], "next": "{}"}}"#,
        "x".repeat(1_100_000)
    );
    let told = run_with(&[("s/first", &[&page])], false, HashMap::new()).await;
    assert_eq!(told.result.unwrap_err().code, Code::UnexpectedShape);
    assert_eq!(told.ids.len(), 0);
}

#[test]
fn no_vendor_asks_for_a_pause_without_end() {
    let failure = Failure::new(Code::RateLimited, "wait").after(Some(Duration::MAX));
    assert_eq!(failure.retry_after, Some(crate::error::LONGEST_REST));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_without_new_records_does_not_move_the_cursor() {
    let states = stored(Some(json!("x")), None, "d", Duration::ZERO);
    let told = run_with(&[("s/first", &[r#"200 {"rows": []}"#])], false, states).await;
    assert_eq!(summary(&told.states), [(Some("x"), None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_pass_resumes_after_the_last_stored_page() {
    let told = run_with(
        &THREE,
        false,
        stored(None, Some(json!(3)), "d", Duration::ZERO),
    )
    .await;
    assert_eq!((told.result, told.asked), (Ok(()), vec!["s/3".to_owned()]));
}

/// For a connector with credentials; `key` makes the key, and differs with it.
fn cover(key: u8) -> Option<Cover> {
    let place = Place {
        tenant: Uuid::from_u128(1),
        connector: Uuid::from_u128(2),
    };
    Some(Cover {
        keys: Arc::new(ring(&[key])),
        place,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn with_credentials_the_page_token_is_sealed_and_the_pass_still_resumes() {
    let told = run_covered(&THREE, false, HashMap::new(), cover(1)).await;
    let next = told.states[1].pass.clone().unwrap().next;
    assert!(next["$sealed"].is_string(), "{next}");
    let asked = async |next: Value, key| {
        let states = stored(None, Some(next), "d", Duration::ZERO);
        let told = run_covered(&THREE, false, states, cover(key)).await;
        assert_eq!(told.result, Ok(()));
        told.asked.len()
    };
    assert_eq!(asked(next.clone(), 1).await, 1);
    // With another key, or from before it was sealed, the pass starts again.
    assert_eq!(asked(next, 2).await, 3);
    assert_eq!(asked(json!(3), 1).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_taken_up_again_does_not_read_a_stream_that_it_had_finished() {
    let told = run(&THREE).await;
    let by: Vec<_> = told.states.iter().map(|state| state.finished_by).collect();
    assert_eq!(by, [None, None, Some(Uuid::nil())]);
    for (run, pages) in [(Uuid::nil(), 0), (Uuid::max(), 3)] {
        let mut states = stored(Some(json!("c")), None, "d", Duration::ZERO);
        states.get_mut("s").unwrap().state.finished_by = Some(run);
        let told = run_with(&THREE, false, states).await;
        assert_eq!((told.result, told.asked.len()), (Ok(()), pages));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_pass_and_one_of_another_definition_start_again() {
    for (definition, age) in [
        ("d", RESUME_WITHIN + Duration::from_secs(1)),
        ("other", Duration::ZERO),
    ] {
        let told = run_with(&THREE, false, stored(None, Some(json!(3)), definition, age)).await;
        assert_eq!(told.asked, ["s/first", "s/2", "s/3"], "{definition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_starts_the_pass_again_once() {
    let told = run_with(
        &THREE,
        false,
        stored(None, Some(json!(9)), "d", Duration::ZERO),
    )
    .await;
    assert_eq!((told.result, told.asked.len()), (Ok(()), 4));
    let told = run_with(
        &[],
        false,
        stored(None, Some(json!(9)), "d", Duration::ZERO),
    )
    .await;
    assert_eq!(told.result.unwrap_err().code, Code::NotFound);
    assert_eq!(told.asked, ["s/9", "s/first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_failure_is_retried_within_bounds() {
    let good = r#"200 {"rows": [{"id": 1}]}"#;
    for trouble in [
        "500 ",
        "503+Retry-After:0 ",
        "429+Retry-After:0.01 ",
        "200 {\"rows\": [",
        "200 <html>",
    ] {
        let told = run(&[("s/first", &[trouble, trouble, good])]).await;
        assert_eq!((told.result, told.asked.len()), (Ok(()), 3), "{trouble}");
        let told = run(&[("s/first", &[trouble])]).await;
        assert_eq!(told.asked.len(), 3, "{trouble}");
        assert!(told.result.is_err(), "{trouble}");
    }
    for final_answer in ["400 ", "401 ", "404 ", "302 ", r#"200 {"error": 1}"#] {
        let told = run(&[("s/first", &[final_answer, good])]).await;
        assert_eq!(told.asked.len(), 1, "{final_answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_too_long_ends_the_run_and_is_reported() {
    let told = run(&[("s/first", &["429+Retry-After:60 "])]).await;
    let failure = told.result.unwrap_err();
    assert_eq!(
        (failure.code, failure.retry_after),
        (Code::RateLimited, Some(Duration::from_secs(60)))
    );
    assert_eq!(
        failure.message,
        format!(
            "stream \"s\": {}: HTTP 429 (too many requests)",
            told.server
        )
    );
    assert_eq!(told.asked.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn paging_that_does_not_advance_is_stopped() {
    let cycle: [(&str, &[&str]); 3] = [
        ("s/first", &[r#"200 {"rows": [{"id": 1}], "next": 2}"#]),
        ("s/2", &[r#"200 {"rows": [{"id": 2}], "next": 3}"#]),
        ("s/3", &[r#"200 {"rows": [{"id": 3}], "next": 2}"#]),
    ];
    let told = run(&cycle).await;
    assert_eq!(
        (told.result.unwrap_err().code, told.ids.len()),
        (Code::RepeatedPage, 2)
    );
    let same: [(&str, &[&str]); 2] = [
        ("s/first", &[r#"200 {"rows": [{"id": 1}], "next": 2}"#]),
        ("s/2", &[r#"200 {"rows": [{"id": 1}], "next": 3}"#]),
    ];
    let told = run(&same).await;
    assert_eq!(
        (told.result.unwrap_err().code, told.ids.len()),
        (Code::RepeatedPage, 1)
    );
    let pages: Vec<(String, String)> = (0..20)
        .map(|i| {
            let path = if i == 0 {
                "s/first".to_owned()
            } else {
                format!("s/{i}")
            };
            (
                path,
                format!(r#"200 {{"rows": [{{"id": {i}}}], "next": {}}}"#, i + 1),
            )
        })
        .collect();
    let answers: Vec<[&str; 1]> = pages.iter().map(|(_, answer)| [answer.as_str()]).collect();
    let endless: Vec<(&str, &[&str])> = pages
        .iter()
        .zip(&answers)
        .map(|((path, _), answer)| (path.as_str(), answer.as_slice()))
        .collect();
    let told = run(&endless).await;
    assert_eq!(
        (told.result.unwrap_err().code, told.ids.len()),
        (Code::TooManyPages, 10)
    );
}

/// A job of type `api` that reads list after list from `url`.
fn job(url: &Url) -> Job {
    let manifest = json!({"streams": [{"name": "s", "retriever": {
        "requester": {"url_base": url.as_str(), "path": "s"},
        "paginator": {
            "pagination_strategy": {"type": "OffsetIncrement"},
            "page_token_option": {"inject_into": "request_parameter", "field_name": "o"}
        }
    }}]});
    let limits = RecordLimits {
        bytes: 1 << 20,
        depth: 10,
        key: 100,
    };
    let definition = Definition {
        config: json!({"manifest": manifest}),
        credentials: Credentials::default(),
        limits,
    };
    let now = DateTime::UNIX_EPOCH;
    Job {
        run: Uuid::new_v4(),
        connector: Uuid::new_v4(),
        tenant: Uuid::nil(),
        purpose: Purpose::Sync,
        rests: vec![],
        source: "api".into(),
        definition,
        states: HashMap::new(),
        upload: None,
        span: None,
        now,
        default_from: now,
        limits: Limits {
            pages: 1_000,
            ..LIMITS
        },
        cover: None,
        allowed: loopback(),
    }
}

/// A source with a page for every offset, each with a record of its own.
async fn endless() -> (Url, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let count: Arc<Mutex<usize>> = Arc::default();
    let counting = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counting = counting.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    if line != "\r\n" {
                        continue;
                    }
                    let body = {
                        let mut count = counting.lock().unwrap();
                        *count += 1;
                        format!("[{{\"n\": {count}}}]")
                    };
                    let text = format!(
                        "HTTP/1.1 200 S\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (url, count)
}

async fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !ready() {
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_channel_stops_the_fetch_and_an_aborted_run_is_silent() {
    static GATE: Gate = Gate::new();
    let (url, count) = endless().await;
    let mut engine = Engine::start(Arc::new(|| {}), &GATE).unwrap();
    let first = job(&url);
    let run = first.run;
    engine.submit(first);
    // Those in the channel but for the plan of the run, and the one that waits to get in.
    let full = EVENTS_IN_FLIGHT;
    wait_until("the channel is full", || *count.lock().unwrap() == full).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(*count.lock().unwrap(), full);
    assert_eq!(engine.try_next().map(|event| event.run), Some(run));
    wait_until("there is room for one more", || {
        *count.lock().unwrap() == full + 1
    })
    .await;
    engine.abort(run);
    let second = job(&url);
    let second_run = second.run;
    assert!(engine.try_next().is_none());
    engine.submit(second);
    let next = loop {
        if let Some(event) = engine.try_next() {
            break event;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(next.run, second_run);
}

#[test]
fn network_threads_take_no_signal() {
    static GATE: Gate = Gate::new();
    let engine = Engine::start(Arc::new(|| {}), &GATE).unwrap();
    let blocked = |task: &std::path::Path| -> u64 {
        let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("SigBlk:"))
            .unwrap_or("0")
            .trim()
            .to_owned();
        u64::from_str_radix(&line, 16).unwrap()
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let mut threads = Vec::new();
    while threads.len() < 2 {
        assert!(std::time::Instant::now() < deadline, "no threads");
        threads = std::fs::read_dir("/proc/self/task")
            .unwrap()
            .flatten()
            .map(|task| task.path())
            .collect();
        threads.retain(|task| {
            std::fs::read_to_string(task.join("comm"))
                .unwrap_or_default()
                .trim()
                == "connector_fetch"
        });
    }
    for thread in threads {
        for signal in [
            libc::SIGTERM,
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGUSR1,
            libc::SIGALRM,
            libc::SIGCHLD,
        ] {
            assert_ne!(blocked(&thread) & (1 << (signal - 1)), 0, "signal {signal}");
        }
    }
    drop(engine);
}
