//! Credentials stay at the place a stream begins at: no redirect, no next page and no proxy takes them elsewhere.

use super::guarded::{Listener, loopback_by_any_name};
use super::*;
use crate::guard::spellings::ADDRESSES;
use crate::source::Definition;

#[tokio::test(flavor = "multi_thread")]
async fn no_redirect_is_followed() {
    let listener = Listener::start().await;
    let (home, _) = serve(&[]).await;
    let mut targets = vec![
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://metadata.google.internal/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1:6379/_FLUSHALL".to_owned(),
        "//localhost/".to_owned(),
        home.to_string(),
    ];
    for url in ADDRESSES
        .iter()
        .filter(|url| !url.contains(char::is_control))
    {
        targets.push(listener.spelled(url.trim(), "http"));
    }
    // Every target with some status, and every status with most targets.
    let statuses = [301, 302, 307, 308, 300, 303, 305, 399];
    let answers: Vec<String> = targets
        .iter()
        .zip(statuses.iter().cycle())
        .map(|(target, status)| format!("{status}+Location:{target} "))
        .collect();
    for answer in &answers {
        let told = run(&[("s/first", &[answer])]).await;
        let failure = told.result.unwrap_err();
        assert_eq!(failure.code, Code::Redirected, "{answer}");
        assert_eq!(told.asked.len(), 1, "{answer}");
    }
    assert_eq!(listener.count().await, 0);
}

/// A source that goes wherever it was told: what keeps its credentials at home is the engine.
struct Wanderer {
    streams: Vec<Stream>,
    home: Url,
    next: Url,
}

impl Reader for Wanderer {
    fn streams(&self) -> &[Stream] {
        &self.streams
    }

    fn window(&self, _: &Stream, _: Option<&Value>, start: Start) -> Result<Window, Failure> {
        Ok(Window {
            from: None,
            to: start.now,
        })
    }

    fn request(&self, at: &Position) -> Result<Request, Failure> {
        let url = if at.next.is_some() {
            &self.next
        } else {
            &self.home
        };
        Ok(Request {
            is_bare: false,
            method: Method::Get,
            url: url.clone(),
            headers: vec![("X-Token".into(), "sk_test_not_a_real_key".into())],
            body: None,
        })
    }

    fn page(&self, at: &Position, _: &Response) -> Result<Page, Failure> {
        Ok(Page {
            next: at.next.is_none().then(|| json!("next")),
            ..Page::default()
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_a_vendor_sends_leads_a_source_to_another_host() {
    let home = Listener::start().await;
    let other = Listener::start().await;
    let client = Arc::new(Client::with(loopback_by_any_name()));
    let base = format!("http://127.0.0.1:{}/", home.port);
    let mut nexts = vec![
        (base.replace("http:", "https:"), false),
        (base.replace("127.0.0.1", "localhost"), false),
        (base.replace("127.0.0.1", "127.0.0.2"), false),
        (base.replace("127.0.0.1", "user@127.0.0.1"), false),
        (base.replace("127.0.0.1", ":password@127.0.0.1"), false),
        ("http://127.0.0.1/".to_owned(), false),
        ("file:///etc/passwd".to_owned(), false),
        // The same place in other words.
        (format!("{base}orders?page=2"), true),
        (base.replace("127.0.0.1", "0x7f.1"), true),
        (base.replace("http:", "HTTP:"), true),
    ];
    for url in ADDRESSES {
        nexts.push((other.spelled(url, "http"), false));
    }
    let mut expected = 0;
    for (next, same) in nexts {
        let streams = vec![Stream {
            name: "s".into(),
            ordered: false,
            whole: false,
        }];
        let reader: Arc<dyn Reader> = Arc::new(Wanderer {
            streams,
            home: Url::parse(&base).unwrap(),
            next: Url::parse(&next).unwrap(),
        });
        let given = Given {
            client: client.clone(),
            // So that only the origin stands in the way.
            allowed: Arc::new("127.0.0.0/8, ::1, ::, 0.0.0.0, localhost".parse().unwrap()),
            ..Given::new(reader)
        };
        let result = given.read().await.outcome.result;
        let result = result.map_err(|failure| failure.code);
        expected += if same { 2 } else { 1 };
        let foreign = Err(Code::ForeignNextPage);
        assert_eq!(result, if same { Ok(()) } else { foreign }, "{next}");
    }
    assert_eq!(home.count().await, expected);
    assert_eq!(other.count().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_a_base_from_the_vendor_stays_on_its_host() {
    let other = Listener::start().await;
    let page = format!(r#"200 {{"rows": [{{"id": 1}}], "next": "{}"}}"#, other.port);
    let (home, asked) = serve(&[("s", &[&page])]).await;
    let port = home.port().unwrap();
    let base = "{{ next_page_token['next_page_token'] if next_page_token else 'HOME' }}"
        .replace("HOME", &port.to_string());
    let manifest = json!({"streams": [{"name": "s", "primary_key": "id", "retriever": {
        "requester": {"url_base": format!("http://127.0.0.1:{base}"), "path": "s"},
        "record_selector": {"extractor": {"field_path": ["rows"]}},
        "paginator": {
            "pagination_strategy": {"type": "CursorPagination", "cursor_value": "{{ response.next }}"}
        }
    }}]});
    let mut job = job(&home);
    job.definition = Definition {
        config: json!({ "manifest": manifest }),
        ..job.definition
    };
    let read = fetched(job, &Arc::new(Client::new())).await;
    let result = read.outcome.result;
    assert_eq!(result.unwrap_err().code, Code::ForeignNextPage);
    assert_eq!(asked.lock().unwrap().len(), 1);
    assert_eq!(other.count().await, 0);
}

/// The environment is the whole process's, so the test that is run with it is run in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_is_taken_from_the_environment() {
    let proxy = Listener::start().await;
    let address = format!("http://127.0.0.1:{}", proxy.port);
    let mut test = std::process::Command::new(std::env::current_exe().unwrap());
    test.args([
        "--exact",
        "fetch::tests::a_pass_reads_to_its_end_and_only_then_moves_the_cursor",
    ]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        test.env(name, &address);
        test.env(name.to_lowercase(), &address);
    }
    test.env_remove("NO_PROXY").env_remove("no_proxy");
    let output = tokio::task::spawn_blocking(move || test.output()).await;
    let output = output.unwrap().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("1 passed"), "{shown}");
    assert_eq!(proxy.count().await, 0);
}
