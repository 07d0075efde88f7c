//! What asks for a token outlives its run.

use tokio::sync::Notify;

use super::*;

/// A vendor whose token endpoint answers when it is let, with the next refresh token, and whose list is empty.
struct TokenVendor {
    url: Url,
    /// The bodies of token requests, as they came.
    asked: Arc<Mutex<Vec<String>>>,
    answer: Arc<Notify>,
}

async fn token_vendor() -> TokenVendor {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let answer = Arc::new(Notify::new());
    let vendor = TokenVendor {
        url,
        asked: asked.clone(),
        answer: answer.clone(),
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (asked, answer) = (asked.clone(), answer.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let length = head
                        .lines()
                        .filter_map(|line| line.split_once(": "))
                        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                        .map_or(0, |(_, length)| length.parse().unwrap());
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).await.unwrap();
                    let answer = if head.starts_with("POST /token") {
                        let count = {
                            let mut asked = asked.lock().unwrap();
                            asked.push(String::from_utf8(body).unwrap());
                            asked.len()
                        };
                        answer.notified().await;
                        format!(
                            r#"{{"access_token": "access-{count}", "refresh_token": "refresh-{count}"}}"#
                        )
                    } else {
                        "[]".to_owned()
                    };
                    let text = format!(
                        "HTTP/1.1 200 S\r\nContent-Length: {}\r\n\r\n{answer}",
                        answer.len()
                    );
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    vendor
}

impl TokenVendor {
    fn job(&self) -> Job {
        let mut job = job(&self.url);
        job.definition.credentials = json!({"refresh_token": "refresh-0"}).into();
        job.definition.config["manifest"]["streams"][0]["retriever"]["requester"]["authenticator"] = json!({
            "type": "OAuthAuthenticator", "token_refresh_endpoint": format!("{}token", self.url), "client_id": "app",
            "client_secret": "not_a_real_secret", "refresh_token": "{{ config['refresh_token'] }}"
        });
        job
    }

    async fn wait_for_request(&self, count: usize) {
        wait_until("a token is asked for", || {
            self.asked.lock().unwrap().len() == count
        })
        .await;
    }
}

async fn next_rotation(engine: &mut Engine) -> Rotation {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(rotation) = engine.try_rotation() {
            return rotation;
        }
        assert!(std::time::Instant::now() < deadline, "no rotation in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn end_of(engine: &mut Engine, run: Uuid) -> Result<(), Failure> {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(event) = engine.try_next()
            && event.run == run
            && let What::Finished(outcome) = event.what
        {
            return outcome.result;
        }
        assert!(std::time::Instant::now() < deadline, "no end in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_outlives_its_run_and_is_in_flight_until_its_token_is_stored() {
    static GATE: Gate = Gate::new();
    let vendor = token_vendor().await;
    let mut engine = Engine::start(Arc::new(|| {}), &GATE).unwrap();
    let job = vendor.job();
    let (run, connector, tenant) = (job.run, job.connector, job.tenant);
    let login = |is_left| LoginInFlight {
        connector,
        tenant,
        is_left,
    };
    let definition = fingerprint("api", &job.definition.config);
    engine.submit(job);
    vendor.wait_for_request(1).await;
    assert_eq!(engine.logins(), [login(false)]);
    engine.abort(run);
    assert_eq!(engine.logins(), [login(true)]);
    vendor.answer.notify_one();
    let rotation = next_rotation(&mut engine).await;
    assert_eq!(rotation.rotated.old, Secret::new(b"refresh-0".to_vec()));
    assert_eq!(rotation.rotated.new, Secret::new(b"refresh-1".to_vec()));
    assert_eq!(rotation.rotated.path, ["refresh_token"]);
    assert_eq!(rotation.definition, definition);
    assert_eq!((rotation.run, rotation.connector), (run, connector));
    // The answer is there, and the token not stored yet.
    assert_eq!(engine.logins(), [login(true)]);
    assert!(!engine.take_freed());
    assert!(!GATE.close());
    drop(rotation);
    assert_eq!(engine.logins(), []);
    assert!(engine.take_freed() && !engine.take_freed());
    assert!(GATE.close());
    assert!(engine.try_next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_once_its_token_is_stored_and_fails_where_nobody_stores_it() {
    static GATE: Gate = Gate::new();
    let vendor = token_vendor().await;
    let mut engine = Engine::start(Arc::new(|| {}), &GATE).unwrap();
    for is_stored in [true, false] {
        let job = vendor.job();
        let run = job.run;
        engine.submit(job);
        vendor.answer.notify_one();
        let rotation = next_rotation(&mut engine).await;
        if is_stored {
            rotation.stored();
            assert_eq!(end_of(&mut engine, run).await, Ok(()));
        } else {
            drop(rotation);
            let failure = end_of(&mut engine, run).await.unwrap_err();
            assert!(
                failure
                    .message
                    .ends_with("the new refresh token was not stored: the connector is gone"),
                "{failure}"
            );
        }
        assert_eq!(engine.logins(), []);
        // It did not outlive its run.
        assert!(!engine.take_freed());
    }
    // Each asked once: a token that is not stored is no reason to show the old one again.
    assert_eq!(vendor.asked.lock().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_second_login_of_a_connector_begins_while_one_is_in_flight() {
    static GATE: Gate = Gate::new();
    let vendor = token_vendor().await;
    let mut engine = Engine::start(Arc::new(|| {}), &GATE).unwrap();
    let first = vendor.job();
    let (run, connector) = (first.run, first.connector);
    engine.submit(first);
    vendor.wait_for_request(1).await;
    engine.abort(run);
    let second = Job {
        connector,
        ..vendor.job()
    };
    let run = second.run;
    engine.submit(second);
    let failure = end_of(&mut engine, run).await.unwrap_err();
    assert_eq!(failure.code.class(), crate::error::Class::Transient);
    assert_eq!(vendor.asked.lock().unwrap().len(), 1);
    // Another connector's is another matter.
    engine.submit(vendor.job());
    vendor.wait_for_request(2).await;
    assert_eq!(engine.logins().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_login_begins_once_the_gate_is_closed_and_those_in_flight_end() {
    static GATE: Gate = Gate::new();
    let vendor = token_vendor().await;
    let mut engine = Engine::start(Arc::new(|| {}), &GATE).unwrap();
    engine.submit(vendor.job());
    vendor.wait_for_request(1).await;
    assert!(!GATE.is_closed() && !GATE.close() && GATE.is_closed());
    let late = vendor.job();
    let run = late.run;
    engine.submit(late);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(vendor.asked.lock().unwrap().len(), 1);
    engine.abort_all();
    // No end is told of a run that only the end of the process kept from going on.
    assert!(engine.try_next().is_none_or(|event| event.run != run));
    vendor.answer.notify_one();
    let rotation = next_rotation(&mut engine).await;
    assert!(!GATE.close());
    drop(rotation);
    assert!(GATE.close());
    assert_eq!(engine.logins(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_never_answered_ends_by_its_own_time_out() {
    static GATE: Gate = Gate::new();
    let vendor = token_vendor().await;
    let woken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = woken.clone();
    let wake = move || {
        counting.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    };
    let mut engine = Engine::start(Arc::new(wake), &GATE).unwrap();
    let mut job = vendor.job();
    job.limits.read_timeout = Duration::from_millis(200);
    job.limits.connect_timeout = Duration::from_millis(200);
    let run = job.run;
    engine.submit(job);
    vendor.wait_for_request(1).await;
    engine.abort(run);
    let before = woken.load(std::sync::atomic::Ordering::SeqCst);
    wait_until("the login is over", || engine.logins().is_empty()).await;
    // Somebody may wait for it.
    assert!(woken.load(std::sync::atomic::Ordering::SeqCst) > before);
    assert!(engine.take_freed() && GATE.close());
    assert!(engine.try_rotation().is_none());
}
