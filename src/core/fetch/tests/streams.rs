//! Several streams of one run.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const GOOD: &str = r#"200 {"rows": [{"id": 1}]}"#;

fn streams(names: &[&str]) -> Vec<Stream> {
    let stream = |name: &&str| Stream {
        name: (*name).into(),
        ordered: false,
        whole: false,
    };
    names.iter().map(stream).collect()
}

async fn script(names: &[&str], answers: &[(&str, &[&str])]) -> (Given, Arc<Mutex<Vec<String>>>) {
    let (url, asked) = serve(answers).await;
    let reader = Script {
        streams: streams(names),
        url,
        counts: false,
    };
    (Given::new(Arc::new(reader)), asked)
}

impl Read {
    /// How each stream ended, by its first letter.
    fn ends(&self) -> String {
        let end = |ended: &StreamEnd| {
            let letter = match &ended.end {
                End::Read => "r",
                End::Absent => "a",
                End::Failed(_) => "f",
                End::Skipped(_) => "s",
                End::Waiting => "w",
            };
            format!("{}:{letter}", ended.stream)
        };
        let ends: Vec<String> = self.outcome.streams.iter().map(end).collect();
        ends.join(" ")
    }

    fn failure(&self) -> Failure {
        self.outcome.result.clone().unwrap_err()
    }

    fn warnings(&self) -> Vec<String> {
        let warning = |what: &What| match what {
            What::Warning(warning) => Some(warning.clone()),
            What::Page(page) => page.warning.clone(),
            _ => None,
        };
        self.events.iter().filter_map(warning).collect()
    }

    fn pages(&self) -> Vec<&FetchedPage> {
        let pages = self.events.iter().filter_map(|what| match what {
            What::Page(page) => Some(page.as_ref()),
            _ => None,
        });
        pages.collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_one_stream_fails_with_the_others_are_read() {
    for (answer, code) in [
        ("500 ", Code::ServerError),
        ("503+Retry-After:60 ", Code::RateLimited),
        ("400 ", Code::RequestRefused),
        ("401 ", Code::CredentialsRejected),
        ("403 ", Code::CredentialsRejected),
        ("404 ", Code::NotFound),
        ("302 ", Code::Redirected),
        ("429+Retry-After:0.001 ", Code::RateLimited),
        ("429+Retry-After:60 ", Code::RateLimited),
        ("200 <html>", Code::InvalidJson),
        (r#"200 {"error": 1}"#, Code::UnexpectedShape),
        (r#"200 {"rows": ["#, Code::InvalidJson),
    ] {
        for failing in ["a/first", "b/first"] {
            let bad = [answer];
            let of = |path: &'static str| -> (&str, &[&str]) {
                (path, if path == failing { &bad } else { &[GOOD] })
            };
            let answers = ["a/first", "b/first", "c/first"].map(of);
            let told = script(&["a", "b", "c"], &answers).await.0.read().await;
            let failure = told.failure();
            let expected = match code {
                // A cut body is what it is: not JSON, or not all of it.
                Code::InvalidJson => [
                    Code::InvalidJson,
                    Code::TruncatedResponse,
                    Code::UnexpectedShape,
                ]
                .to_vec(),
                code => vec![code],
            };
            assert!(expected.contains(&failure.code), "{answer}: {failure:?}");
            let name = failing.split('/').next().unwrap();
            assert!(
                failure.message.starts_with(&format!("stream \"{name}\": ")),
                "{failure}"
            );
            assert_eq!(failure.message.matches("stream").count(), 1, "{failure}");
            let ends =
                ["a", "b", "c"].map(|s| format!("{s}:{}", if s == name { "f" } else { "r" }));
            assert_eq!(told.ends(), ends.join(" "), "{answer}");
            assert!(told.outcome.is_partial, "{answer}");
            let transient = failure.code.class() == crate::error::Class::Transient;
            let retry = if transient {
                Retry::Backoff
            } else {
                Retry::Slot
            };
            assert_eq!(told.outcome.retry, retry, "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_never_answers_or_never_ends_stops_no_other() {
    let (mut given, _) = script(
        &["a", "b"],
        &[("a/first", &["silence"]), ("b/first", &[GOOD])],
    )
    .await;
    (given.limits.connect_timeout, given.limits.read_timeout) =
        (Duration::from_millis(100), Duration::from_millis(100));
    given.limits.retries = 1;
    let told = given.read().await;
    assert_eq!(
        (told.ends().as_str(), told.failure().code),
        ("a:f b:r", Code::ReadTimeout)
    );
    let pages: Vec<(String, String)> = (0..20)
        .map(|i| {
            let path = if i == 0 {
                "a/first".to_owned()
            } else {
                format!("a/{i}")
            };
            (
                path,
                format!(r#"200 {{"rows": [{{"id": {i}}}], "next": {}}}"#, i + 1),
            )
        })
        .collect();
    let texts: Vec<[&str; 1]> = pages.iter().map(|(_, text)| [text.as_str()]).collect();
    let mut answers: Vec<(&str, &[&str])> = pages
        .iter()
        .zip(&texts)
        .map(|((path, _), text)| (path.as_str(), text.as_slice()))
        .collect();
    answers.push(("b/first", &[GOOD]));
    let told = script(&["a", "b"], &answers).await.0.read().await;
    assert_eq!(
        (told.ends().as_str(), told.failure().code),
        ("a:f b:r", Code::TooManyPages)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_open_no_stream_are_not_tried_for_all() {
    let names = ["a", "b", "c", "d", "e"];
    let refused: Vec<(String, [&str; 1])> = names
        .iter()
        .map(|name| (format!("{name}/first"), ["401 "]))
        .collect();
    let answers: Vec<(&str, &[&str])> = refused
        .iter()
        .map(|(path, given)| (path.as_str(), given.as_slice()))
        .collect();
    let (given, asked) = script(&names, &answers).await;
    let told = given.read().await;
    assert_eq!(told.ends(), "a:f b:f c:f d:s e:s");
    assert_eq!(asked.lock().unwrap().len(), 3);
    assert_eq!(
        (told.failure().code, told.outcome.retry),
        (Code::CredentialsRejected, Retry::Mend)
    );
    // The third one is read: the others may not be.
    let mut answers = answers.clone();
    answers[2].1 = &[GOOD];
    let told = script(&names, &answers).await.0.read().await;
    assert_eq!(told.ends(), "a:f b:f c:r d:f e:f");
    assert_eq!(
        (told.outcome.is_partial, told.outcome.retry),
        (true, Retry::Slot)
    );
    // A refusal of what is asked for says nothing of who asks.
    let forbidden: Vec<(&str, &[&str])> = answers
        .iter()
        .map(|(path, _)| {
            (
                *path,
                if *path == "e/first" {
                    &[GOOD] as &[&str]
                } else {
                    &["403 "]
                },
            )
        })
        .collect();
    let told = script(&names, &forbidden).await.0.read().await;
    assert_eq!(
        (told.ends().as_str(), told.outcome.is_partial),
        ("a:f b:f c:f d:f e:r", true)
    );
    assert!(
        told.failure()
            .message
            .starts_with("4 of 5 streams failed: stream \"a\": "),
        "{}",
        told.failure()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_that_nobody_gets_around_is_a_pause_of_the_run() {
    let limited: &[&str] = &["429+Retry-After:60 "];
    let names = ["a", "b", "c", "d", "e"];
    let paths = names.map(|name| format!("{name}/first"));
    let answers: Vec<(&str, &[&str])> = paths.iter().map(|path| (path.as_str(), limited)).collect();
    let (given, asked) = script(&names, &answers).await;
    let told = given.read().await;
    assert_eq!(
        (told.ends().as_str(), told.outcome.retry),
        ("a:f b:f c:f d:w e:w", Retry::Pause)
    );
    assert_eq!(asked.lock().unwrap().len(), 3);
    assert_eq!(told.failure().retry_after, Some(Duration::from_secs(60)));
    // The last stream: nothing shows that the others could go on.
    let told = script(&["a", "b"], &[("a/first", &[GOOD]), ("b/first", limited)])
        .await
        .0
        .read()
        .await;
    assert_eq!(
        (
            told.ends().as_str(),
            told.outcome.retry,
            told.outcome.is_partial
        ),
        ("a:r b:f", Retry::Pause, false)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_be_reached_is_not_tried_for_every_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let reader = Script {
        streams: streams(&["a", "b", "c"]),
        url,
        counts: false,
    };
    let told = Given::new(Arc::new(reader)).read().await;
    assert_eq!(
        (told.ends().as_str(), told.failure().code),
        ("a:f b:s c:s", Code::ConnectFailed)
    );
    assert_eq!(
        (told.outcome.retry, told.outcome.is_partial),
        (Retry::Backoff, false)
    );
    assert_eq!(
        told.outcome.trace.unwrap().take().len(),
        3,
        "one request, tried three times"
    );
}

/// Streams on hosts of their own, and one that panics.
struct Hosts {
    streams: Vec<Stream>,
    urls: HashMap<String, Url>,
}

impl Reader for Hosts {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn request(&self, at: &Position) -> Result<Request, Failure> {
        assert_ne!(at.stream.name, "bug", "a bug in a source");
        Ok(Request {
            is_bare: false,
            method: Method::Get,
            url: self.urls[&at.stream.name].clone(),
            headers: vec![],
            body: None,
        })
    }

    fn page(&self, _: &Position, _: &Response) -> Result<Page, Failure> {
        Ok(Page::default())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_another_host_and_behind_a_bug_are_read() {
    let (good, _) = serve(&[("", &["200 "])]).await;
    let lost = Url::parse("http://127.0.0.1:1/").unwrap();
    let names = ["a", "bug", "b", "c"];
    let urls = [("a", &lost), ("b", &lost), ("c", &good)]
        .map(|(name, url)| (name.to_owned(), url.clone()));
    let reader = Hosts {
        streams: streams(&names),
        urls: HashMap::from(urls),
    };
    let told = Given::new(Arc::new(reader)).read().await;
    assert_eq!(
        (told.ends().as_str(), told.outcome.is_partial),
        ("a:f bug:f b:s c:r", true)
    );
    assert!(
        told.failure()
            .message
            .contains("stream \"bug\": the task that reads the stream panicked"),
        "{}",
        told.failure()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_fail_in_a_row_have_fewer_tries() {
    let (mut given, asked) = script(
        &["a", "b", "c", "d"],
        &[
            ("a/first", &["500 "]),
            ("b/first", &["500 "]),
            ("c/first", &["500 "]),
            ("d/first", &["500 "]),
        ],
    )
    .await;
    given.limits.retries = 4;
    let told = given.read().await;
    assert_eq!(told.ends(), "a:f b:f c:f d:f");
    assert_eq!(asked.lock().unwrap().len(), 5 + 3 + 2 + 1);
    let (mut given, asked) = script(
        &["a", "b", "c"],
        &[
            ("a/first", &["500 "]),
            ("b/first", &["500 ", "500 ", GOOD]),
            ("c/first", &["500 "]),
        ],
    )
    .await;
    given.limits.retries = 4;
    assert_eq!(given.read().await.ends(), "a:f b:r c:f");
    assert_eq!(asked.lock().unwrap().len(), 5 + 3 + 5);
}

/// A server that answers when `most` requests are there, or after a while; tells how many were there at once.
async fn crowd(pages: u64, pause: Duration) -> (Url, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (now, most) = (now.clone(), most.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(pause).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                    let path = head.split(' ').nth(1).unwrap();
                    let page: u64 = path.rsplit('/').next().unwrap().parse().unwrap_or(1);
                    let next = if page < pages {
                        format!(", \"next\": {}", page + 1)
                    } else {
                        String::new()
                    };
                    let body = format!("{{\"rows\": [{{\"id\": {page}}}]{next}}}");
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
    (url, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_read_side_by_side_as_far_as_config_says_and_each_in_its_order() {
    for parallel in [1, 3, 8] {
        let (url, most) = crowd(4, Duration::from_millis(20)).await;
        let names = ["a", "b", "c", "d", "e"];
        let reader = Script {
            streams: streams(&names),
            url,
            counts: false,
        };
        let given = Given {
            parallel,
            ..Given::new(Arc::new(reader))
        };
        let told = given.read().await;
        assert_eq!(told.ends(), "a:r b:r c:r d:r e:r");
        assert_eq!(most.load(Ordering::SeqCst), parallel.min(5), "{parallel}");
        for name in names {
            let pages = told.pages();
            let of = pages.iter().filter(|page| page.stream == name);
            let ids: Vec<&str> = of
                .clone()
                .flat_map(|page| &page.records)
                .map(|record| record.id.as_str())
                .collect();
            assert_eq!(ids, [1, 2, 3, 4].map(|id| format!("{name}/{id}")));
            let finished: Vec<bool> = of.map(|page| page.state.finished_by.is_some()).collect();
            assert_eq!(finished, [false, false, false, true]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_side_by_side_share_one_login() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let seen = asked.clone();
    // Tokens are good for five requests each.
    let uses: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (seen, uses) = (seen.clone(), uses.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let header = |name: &str| {
                        head.lines()
                            .filter_map(|line| line.split_once(": "))
                            .find(|(n, _)| n.eq_ignore_ascii_case(name))
                            .map(|(_, v)| v.to_owned())
                    };
                    let mut body =
                        vec![0; header("content-length").map_or(0, |n| n.parse().unwrap())];
                    stream.read_exact(&mut body).await.unwrap();
                    let (status, answer) = if head.starts_with("POST /token") {
                        tokio::time::sleep(Duration::from_millis(30)).await;
                        let mut seen = seen.lock().unwrap();
                        seen.push(String::from_utf8(body).unwrap());
                        let count = seen.len();
                        (
                            200,
                            format!(
                                r#"{{"access_token": "access-{count}", "refresh_token": "refresh-{count}"}}"#
                            ),
                        )
                    } else {
                        let token = header("authorization").unwrap();
                        let mut uses = uses.lock().unwrap();
                        let used = uses.entry(token).or_default();
                        *used += 1;
                        let offset: u32 = head.split("o=").nth(1).map_or(0, |rest| {
                            rest.chars()
                                .take_while(char::is_ascii_digit)
                                .collect::<String>()
                                .parse()
                                .unwrap()
                        });
                        match *used > 5 {
                            true => (401, "{}".to_owned()),
                            false if offset < 3 => (200, format!("[{{\"id\": {offset}}}]")),
                            false => (200, "[]".to_owned()),
                        }
                    };
                    let text = format!(
                        "HTTP/1.1 {status} S\r\nContent-Length: {}\r\n\r\n{answer}",
                        answer.len()
                    );
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let mut job = job(&url);
    let stream = job.definition.config["manifest"]["streams"][0].clone();
    let streams: Vec<Value> = ["a", "b", "c", "d"].iter().map(|name| {
        let mut stream = stream.clone();
        stream["name"] = json!(name);
        stream["primary_key"] = json!("id");
        stream["retriever"]["requester"]["path"] = json!(name);
        stream["retriever"]["requester"]["authenticator"] = json!({
            "type": "OAuthAuthenticator", "token_refresh_endpoint": format!("{url}token"), "client_id": "app",
            "client_secret": "not_a_real_secret", "refresh_token": "{{ config['refresh_token'] }}"
        });
        stream
    }).collect();
    job.definition.config = json!({"manifest": {"streams": streams}, "parallel_streams": 4});
    job.definition.credentials = json!({"refresh_token": "refresh-0"}).into();
    let told = fetched(job, &Arc::new(Client::new())).await;
    assert_eq!(told.outcome.result, Ok(()));
    assert_eq!(told.ends(), "a:r b:r c:r d:r");
    let asked = asked.lock().unwrap();
    // Each refresh token was sent once, the next after the one before it.
    let sent: Vec<bool> = (0..asked.len())
        .map(|number| asked[number].contains(&format!("refresh_token=refresh-{number}")))
        .collect();
    assert!(
        asked.len() >= 3 && sent.iter().all(|sent| *sent),
        "{asked:?}"
    );
    let requests = told.outcome.trace.unwrap().take();
    let logins = requests
        .iter()
        .filter(|request| request.stream.is_none())
        .count();
    assert_eq!(logins, asked.len());
    assert!(
        requests.iter().any(|request| request.status == Some(401)
            && request.code == Some(Code::CredentialsRejected))
    );
    assert!(
        !format!("{requests:?}").contains("refresh-"),
        "{requests:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_ends_the_run_and_no_stream_is_asked() {
    let (url, asked) = serve(&[("token", &[r#"401 {"error": "invalid_client"}"#])]).await;
    let mut job = job(&url);
    let mut stream = job.definition.config["manifest"]["streams"][0].clone();
    stream["retriever"]["requester"]["authenticator"] = json!({
        "type": "OAuthAuthenticator", "token_refresh_endpoint": format!("{url}token"), "client_id": "app",
        "client_secret": "not_a_real_secret", "refresh_token": "not_a_real_token"
    });
    let streams: Vec<Value> = ["a", "b", "c"]
        .iter()
        .map(|name| {
            let mut stream = stream.clone();
            stream["name"] = json!(name);
            stream
        })
        .collect();
    job.definition.config = json!({"manifest": {"streams": streams}});
    let told = fetched(job, &Arc::new(Client::new())).await;
    assert_eq!(
        (told.ends().as_str(), told.failure().code),
        ("a:f b:s c:s", Code::CredentialsRejected)
    );
    assert_eq!(
        (told.outcome.retry, told.outcome.is_partial),
        (Retry::Mend, false)
    );
    assert_eq!(asked.lock().unwrap().as_slice(), ["token"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blank_first_page_shows_of_no_record_that_it_is_gone() {
    const SAYS: &str =
        "stream \"s\": deletions were not looked for: the first page came without content";
    for (answer, is_proof) in [
        ("200 ", false),
        ("200  \n", false),
        ("201 ", false),
        ("204 ", true),
        ("205 ", true),
        (r#"200 {"rows": []}"#, true),
    ] {
        let (url, _) = serve(&[("s/first", &[answer])]).await;
        let streams = vec![Stream {
            name: "s".into(),
            ordered: false,
            whole: true,
        }];
        let reader = Script {
            streams,
            url,
            counts: false,
        };
        let told = Given::new(Arc::new(reader)).read().await;
        assert_eq!(told.ends(), "s:r", "{answer}");
        let shows_all = told.pages().last().unwrap().all.is_some();
        assert_eq!(shows_all, is_proof, "{answer}");
        let warnings: &[&str] = if is_proof { &[] } else { &[SAYS] };
        assert_eq!(told.warnings(), warnings, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_is_passed_over_moves_no_cursor_unless_it_is_the_end() {
    let page = r#"200 [{"id": 1, "updated_at": "2026-03-02T00:00:00Z"}]"#;
    let (before, after) = ("2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z");
    for (second, at, is_end) in [
        ("200 []", after, true),
        ("404 ", after, true),
        ("403 ", before, false),
        ("500 ", before, false),
    ] {
        let (url, asked) = serve(&[("s", &[page]), ("s?o=1", &[second])]).await;
        let mut job = job(&url);
        job.now = "2026-03-31T12:00:00Z".parse().unwrap();
        let stream = &mut job.definition.config["manifest"]["streams"][0];
        stream["incremental_sync"] = json!({"type": "DatetimeBasedCursor", "cursor_field": "updated_at",
            "datetime_format": "%Y-%m-%dT%H:%M:%SZ", "start_datetime": before});
        stream["retriever"]["requester"]["error_handler"] = json!({"type": "DefaultErrorHandler",
            "response_filters": [{"action": "IGNORE", "http_codes": [403, 404, 500]}]});
        let state = StreamState {
            at: Some(json!(before)),
            ..StreamState::default()
        };
        let age = Duration::ZERO;
        job.states.insert("s".to_owned(), Stored { state, age });
        let told = fetched(job, &Arc::new(Client::new())).await;
        assert_eq!(told.ends(), "s:r", "{second}");
        assert_eq!(asked.lock().unwrap().as_slice(), ["s", "s?o=1"]);
        let state = &told.pages().last().unwrap().state;
        let seen = (state.at.clone(), state.read_until.is_some());
        assert_eq!(seen, (Some(json!(at)), is_end), "{second}");
        let warnings = told.warnings();
        assert_eq!(warnings.len(), usize::from(!is_end), "{warnings:?}");
    }
}

/// Three pages whose tokens are their numbers.
async fn counted(ordered: bool, state: Value, fail_at: Option<u64>) -> (Read, Vec<String>) {
    let failing: &[&str] = &["500 "];
    let pages = [
        (
            "s/first",
            r#"200 {"rows": [{"id": 1}], "next": 2, "high": "b"}"#,
        ),
        (
            "s/2",
            r#"200 {"rows": [{"id": 2}], "next": 3, "high": "c"}"#,
        ),
        ("s/3", r#"200 {"rows": [{"id": 3}], "high": "d"}"#),
    ];
    let texts = pages.map(|(_, text)| [text]);
    let answers: Vec<(&str, &[&str])> = pages
        .iter()
        .zip(&texts)
        .map(|((path, _), text)| {
            let fails = fail_at.is_some_and(|page| *path == format!("s/{page}"));
            (*path, if fails { failing } else { text.as_slice() })
        })
        .collect();
    let (url, asked) = serve(&answers).await;
    let streams = vec![Stream {
        name: "s".into(),
        ordered,
        whole: true,
    }];
    let reader = Script {
        streams,
        url,
        counts: true,
    };
    let states = HashMap::from([(
        "s".to_owned(),
        Stored {
            state: serde_json::from_value(state).unwrap(),
            age: Duration::ZERO,
        },
    )]);
    let told = Given {
        states,
        ..Given::new(Arc::new(reader))
    }
    .read()
    .await;
    let mut asked = asked.lock().unwrap().clone();
    asked.dedup();
    (told, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_counts_starts_again_once_and_then_goes_on_without_a_proof() {
    let (told, asked) = counted(false, json!({"at": "a"}), Some(3)).await;
    assert_eq!(asked, ["s/first", "s/2", "s/3"]);
    let state = serde_json::to_value(&told.pages()[1].state).unwrap();
    assert_eq!(
        (
            &state["at"],
            &state["pass"]["next"],
            &state["pass"]["counts"]
        ),
        (&json!("a"), &json!(3), &json!(true))
    );
    // Interrupted: from the start, and proven.
    let (told, asked) = counted(false, state.clone(), None).await;
    assert_eq!(asked, ["s/first", "s/2", "s/3"]);
    let last = *told.pages().last().unwrap();
    assert_eq!(
        (last.state.at.clone(), last.all.as_ref().map(Vec::len)),
        (Some(json!("d")), Some(3))
    );
    assert_eq!(told.warnings(), Vec::<String>::new());
    // Interrupted again: it goes on, so that it gets to its end, and the cursor stays.
    let (told, _) = counted(false, state, Some(3)).await;
    let state = serde_json::to_value(&told.pages()[1].state).unwrap();
    assert_eq!(state["pass"]["again"], json!(true));
    let (told, asked) = counted(false, state, None).await;
    assert_eq!(asked, ["s/3"]);
    let last = *told.pages().last().unwrap();
    assert_eq!(
        (
            last.state.at.clone(),
            last.all.is_none(),
            last.state.read_until
        ),
        (Some(json!("a")), true, None)
    );
    assert!(last.state.pass.is_none() && last.state.finished_by.is_some());
    let warnings = told.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("stream \"s\": its pages are counted"),
        "{warnings:?}"
    );
    // The next run starts afresh, and may start again once more.
    let mut state = serde_json::to_value(&last.state).unwrap();
    state["finished_by"] = json!(Uuid::max());
    let (told, asked) = counted(false, state, None).await;
    assert_eq!(asked, ["s/first", "s/2", "s/3"]);
    assert_eq!(told.pages().last().unwrap().state.at, Some(json!("d")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_pass_that_counts_starts_at_the_cursor_of_its_last_page() {
    let (told, _) = counted(true, json!({}), Some(3)).await;
    let state = serde_json::to_value(&told.pages()[1].state).unwrap();
    assert_eq!(state["at"], json!("c"));
    for _ in 0..2 {
        let (told, asked) = counted(true, state.clone(), None).await;
        assert_eq!(asked, ["s/first", "s/2", "s/3"]);
        assert_eq!(told.pages().last().unwrap().state.at, Some(json!("d")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_of_pages_name_their_stream_and_come_once_and_not_without_end() {
    let texts: Vec<String> = (1..=9)
        .map(|page| {
            let next = if page < 9 {
                format!(", \"next\": {}", page + 1)
            } else {
                String::new()
            };
            let warning = if page % 2 == 0 {
                "the key is missing".to_owned()
            } else {
                format!("page {page} is odd")
            };
            format!(r#"200 {{"rows": [{{"id": {page}}}], "warning": "{warning}"{next}}}"#)
        })
        .collect();
    let paths: Vec<String> = (1..=9)
        .map(|page| {
            if page == 1 {
                "s/first".to_owned()
            } else {
                format!("s/{page}")
            }
        })
        .collect();
    let texts: Vec<[&str; 1]> = texts.iter().map(|text| [text.as_str()]).collect();
    let answers: Vec<(&str, &[&str])> = paths
        .iter()
        .zip(&texts)
        .map(|(path, text)| (path.as_str(), text.as_slice()))
        .collect();
    let told = script(&["s"], &answers).await.0.read().await;
    assert_eq!(
        told.warnings(),
        [
            "stream \"s\": page 1 is odd",
            "stream \"s\": the key is missing",
            "stream \"s\": page 3 is odd",
            "stream \"s\": page 5 is odd",
            "stream \"s\": page 7 is odd",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_try_is_noted_with_its_status_and_pause() {
    let (given, _) = script(&["s"], &[("s/first", &["503+Retry-After:0.05 ", GOOD])]).await;
    let requests = given.read().await.outcome.trace.unwrap().take();
    let seen: Vec<_> = requests
        .iter()
        .map(|r| (r.method, r.status, r.code, r.tries, r.records))
        .collect();
    assert_eq!(
        seen,
        [
            ("GET", Some(503), Some(Code::RateLimited), 1, None),
            ("GET", Some(200), None, 2, Some(1))
        ]
    );
    assert!(
        requests[1].pause >= Duration::from_millis(50)
            && requests[0].pause < Duration::from_millis(50)
    );
    assert!(requests[0].address.ends_with("/s/first"), "{requests:?}");
    assert_eq!(requests[1].bytes, 21);
}
