//! What the guard refuses is not sent: counted by listeners on this host, which is where every address here leads.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::fetch::resolver::Lookup;
use crate::guard::spellings::{ADDRESSES, LOCALHOST};

/// Names that somebody's name server may answer with this host; here the tests themselves answer.
const NAMES: &[&str] = &[
    "SCHEME://localhost.:PORT",
    "SCHEME://localhost.localdomain:PORT",
    "SCHEME://ip6-localhost:PORT",
    "SCHEME://shop.localhost:PORT",
    "SCHEME://127.0.0.1.nip.example:PORT",
    "SCHEME://7f000001.example:PORT",
    "SCHEME://127-0-0-1.example:PORT",
    "SCHEME://0x7f.example:PORT",
    "SCHEME://bücher.example:PORT",
    "SCHEME://xn--bcher-kva.example:PORT",
    "SCHEME://a_b.example:PORT",
    "SCHEME://EXAMPLE:PORT",
];

fn spellings() -> impl Iterator<Item = &'static &'static str> {
    ADDRESSES.iter().chain(LOCALHOST).chain(NAMES)
}

/// A port that counts connections, at each of this host's addresses that the spellings mean. The answer is an
/// empty page, and the connection closes.
pub struct Listener {
    pub port: u16,
    count: Arc<AtomicUsize>,
}

impl Listener {
    pub async fn start() -> Listener {
        let count = Arc::new(AtomicUsize::new(0));
        'port: loop {
            let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = first.local_addr().unwrap().port();
            let mut listeners = vec![first];
            for other in ["127.255.255.254", "::1"] {
                let address = SocketAddr::new(other.parse().unwrap(), port);
                match TcpListener::bind(address).await {
                    Ok(listener) => listeners.push(listener),
                    Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => continue 'port,
                    // A host without IPv6 has nowhere to connect to either.
                    Err(_) => {}
                }
            }
            for listener in listeners {
                tokio::spawn(accept(listener, count.clone()));
            }
            return Listener { port, count };
        }
    }

    /// How many connections came. What was refused had time to arrive.
    pub async fn count(&self) -> usize {
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.count.load(Ordering::SeqCst)
    }

    pub fn spelled(&self, url: &str, scheme: &str) -> String {
        // `S\tCHEME` is one of the spellings.
        let (first, rest) = scheme.split_at(1);
        url.replace("SCHEME", scheme)
            .replace("S\tCHEME", &format!("{first}\t{rest}"))
            .replace("PORT", &self.port.to_string())
    }
}

async fn accept(listener: TcpListener, count: Arc<AtomicUsize>) {
    while let Ok((stream, _)) = listener.accept().await {
        count.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let answer =
                "HTTP/1.1 200 S\r\nConnection: close\r\nContent-Length: 12\r\n\r\n{\"rows\": []}";
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}

/// Answers every name: the first time with the first of the answers, and so on, the last one for ever. Counts.
fn answering(answers: &[&[&str]]) -> (Lookup, Arc<AtomicUsize>) {
    let parse = |address: &&str| SocketAddr::new(address.parse().unwrap(), 0);
    let answers: Vec<Vec<SocketAddr>> = answers
        .iter()
        .map(|answer| answer.iter().map(parse).collect())
        .collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let counting = asked.clone();
    let lookup: Lookup = Arc::new(move |_| {
        let nth = counting.fetch_add(1, Ordering::SeqCst);
        let answer = answers[nth.min(answers.len() - 1)].clone();
        Box::pin(async move { Ok(answer) })
    });
    (lookup, asked)
}

pub fn loopback_by_any_name() -> Lookup {
    answering(&[&["127.0.0.1"]]).0
}

fn list(text: &str) -> Arc<Allowed> {
    Arc::new(text.parse().unwrap())
}

async fn ask(client: &Client, url: &str, allowed: &Arc<Allowed>) -> Result<u16, Failure> {
    let request = Request {
        is_bare: false,
        method: Method::Get,
        url: Url::parse(url).unwrap(),
        headers: vec![("X-Token".into(), "sk_test_not_a_real_key".into())],
        body: None,
    };
    let (response, _) = client.exchange(&request, &LIMITS, allowed).await?;
    Ok(response.status)
}

fn code(result: Result<u16, Failure>) -> Option<Code> {
    result.err().map(|failure| failure.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_this_host_is_connected_to() {
    let listener = Listener::start().await;
    let (lookup, asked) = answering(&[&["127.0.0.1"]]);
    let client = Client::with(lookup);
    let count = spellings().count();
    assert!(count >= 60, "{count}");
    // With a network listed, a name is looked up for http too.
    for other in ["", "10.0.0.0/8, erp.intern"] {
        let allowed = list(other);
        for (url, scheme) in spellings().flat_map(|url| [(url, "https"), (url, "http")]) {
            let url = listener.spelled(url, scheme);
            let is_name = Url::parse(&url).unwrap().domain().is_some();
            let expected = if scheme == "http" && is_name && other.is_empty() {
                Code::HttpsRequired
            } else {
                Code::AddressNotAllowed
            };
            let got = code(ask(&client, &url, &allowed).await);
            assert_eq!(got, Some(expected), "{url}");
        }
    }
    assert!(asked.load(Ordering::SeqCst) > 0);
    assert_eq!(listener.count().await, 0, "{count} spellings");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_is_connected_to_once_this_host_is_listed() {
    let listener = Listener::start().await;
    let client = Client::with(loopback_by_any_name());
    let allowed = list("127.0.0.0/8, ::1, 0.0.0.0, ::");
    for url in spellings() {
        let url = listener.spelled(url, "http");
        let before = listener.count.load(Ordering::SeqCst);
        let answer = ask(&client, &url, &allowed).await;
        let is_v6 = Url::parse(&url)
            .unwrap()
            .host_str()
            .unwrap()
            .starts_with('[');
        if is_v6 && code(answer.clone()) == Some(Code::ConnectFailed) {
            continue;
        }
        assert_eq!(answer, Ok(200), "{url}");
        let after = listener.count.load(Ordering::SeqCst);
        assert_eq!(after, before + 1, "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_spelling_of_this_host_fails_with_its_code() {
    let listener = Listener::start().await;
    let client = Arc::new(Client::with(loopback_by_any_name()));
    let mut refused = 0;
    for url in spellings() {
        let url = listener.spelled(url, "https");
        let mut job = job(&Url::parse("https://shop.example").unwrap());
        let requester = "/manifest/streams/0/retriever/requester/url_base";
        *job.definition.config.pointer_mut(requester).unwrap() = url.clone().into();
        job.allowed = Arc::default();
        let failure = fetched(job, &client).await.outcome.result.unwrap_err();
        match failure.code {
            Code::AddressNotAllowed => refused += 1,
            // A user name, or a blank where the path is to follow.
            Code::InvalidConfig => assert!(url.contains(['@', ' ']), "{url}"),
            _ => panic!("{url}: {failure}"),
        }
        // Neither what was typed nor what a name resolved to.
        for secret in ["://", "public.example"] {
            assert!(!failure.message.contains(secret), "{failure}");
        }
    }
    assert!(refused >= 60, "{refused}");
    assert_eq!(listener.count().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_checked_again_every_time_it_is_resolved() {
    let listener = Listener::start().await;
    for second in ["127.255.255.254", "::1", "0.0.0.0"] {
        let (lookup, asked) = answering(&[&["127.0.0.1"], &[second]]);
        let client = Client::with(lookup);
        // What is listed stands for what is public: no test leaves this host.
        let allowed = list("127.0.0.1");
        let url = format!("http://shop.example:{}/", listener.port);
        let before = listener.count().await;
        assert_eq!(ask(&client, &url, &allowed).await, Ok(200));
        let refused = ask(&client, &url, &allowed).await.unwrap_err();
        assert_eq!(refused.code, Code::AddressNotAllowed, "{second}");
        assert_eq!(
            refused.message,
            "the host is, or resolves to, an address that is not public"
        );
        assert_eq!(listener.count().await, before + 1, "{second}");
        // One look for each connection: what was judged is what was connected to.
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_address_among_good_ones_refuses_the_answer() {
    let listener = Listener::start().await;
    let many: Vec<String> = (0..199).map(|n| format!("127.0.0.{}", n % 200)).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    many.push("10.0.0.1");
    for (answer, expected) in [
        (&["127.0.0.1", "::1"][..], Code::AddressNotAllowed),
        (&["::1", "127.0.0.1"][..], Code::AddressNotAllowed),
        (
            &["127.0.0.1", "8.8.8.8", "10.0.0.1"][..],
            Code::HttpsRequired,
        ),
        (
            &["127.0.0.1", "169.254.169.254"][..],
            Code::AddressNotAllowed,
        ),
        (&["fd00::1"][..], Code::AddressNotAllowed),
        (&many, Code::AddressNotAllowed),
    ] {
        let (lookup, _) = answering(&[answer]);
        let url = format!("http://shop.example:{}/", listener.port);
        let got = ask(&Client::with(lookup), &url, &list("127.0.0.0/8")).await;
        assert_eq!(code(got), Some(expected), "{answer:?}");
    }
    assert_eq!(listener.count().await, 0);
    // All good: tried until one answers.
    let good = ["127.0.0.9", "127.0.0.1"];
    let (lookup, asked) = answering(&[&good]);
    let url = format!("http://shop.example:{}/", listener.port);
    let got = ask(&Client::with(lookup), &url, &list("127.0.0.0/8")).await;
    assert_eq!((got, asked.load(Ordering::SeqCst)), (Ok(200), 1));
}

#[tokio::test]
async fn the_client_gets_exactly_the_addresses_that_were_checked() {
    use crate::fetch::resolver::Resolver;
    use crate::guard::Refusal;
    use reqwest::dns::Resolve;

    let many: Vec<String> = (0..200).map(|n| format!("8.8.{n}.8")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let resolve = async |answer: &[&str]| {
        let (lookup, asked) = answering(&[answer, &["10.0.0.1"]]);
        let resolver = Resolver {
            lookup,
            allowed: Arc::default(),
            plain: false,
        };
        let got = resolver.resolve("shop.example".parse().unwrap()).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        match got {
            Ok(addresses) => Ok(addresses.map(|address| address.ip()).collect::<Vec<_>>()),
            Err(error) => Err(*error.downcast::<Refusal>().unwrap()),
        }
    };
    let ips = |answer: &[&str]| -> Vec<IpAddr> {
        answer
            .iter()
            .map(|address| address.parse().unwrap())
            .collect()
    };
    for answer in [&["8.8.8.8"][..], &["8.8.4.4", "2a00:1450::1"], &many] {
        assert_eq!(resolve(answer).await, Ok(ips(answer)));
    }
    let mixed = [&many[..], &["192.168.0.1"]].concat();
    assert_eq!(resolve(&mixed).await, Err(Refusal::NotPublic));
    assert_eq!(resolve(&["8.8.8.8", "::"]).await, Err(Refusal::NotPublic));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_connection_is_not_used_once_the_list_has_changed() {
    let (url, asked) = serve(&[("x", &["200 {}"])]).await;
    let client = Client::with(loopback_by_any_name());
    let port = url.port().unwrap();
    let by_name = format!("http://shop.example:{port}/x");
    assert_eq!(ask(&client, &by_name, &loopback()).await, Ok(200));
    let got = ask(&client, &by_name, &list("10.0.0.0/8")).await;
    assert_eq!(code(got), Some(Code::AddressNotAllowed));
    assert_eq!(ask(&client, &by_name, &list("shop.example")).await, Ok(200));
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[test]
fn saving_checks_the_addresses_that_need_no_resolver() {
    let checked = |url: &str, allowed: &str| {
        let job = job(&Url::parse(url).unwrap());
        let reader = crate::source::find("api")
            .unwrap()
            .open(&job.definition)
            .ok()
            .unwrap();
        check_addresses(reader.as_ref(), &list(allowed)).map_err(|failure| failure.to_string())
    };
    assert_eq!(checked("https://shop.example", ""), Ok(()));
    assert_eq!(
        checked("http://shop.example", ""),
        Err("shop.example: the host may only be called with https".into())
    );
    assert_eq!(
        checked("https://0x7f.1/?secret=x", ""),
        Err("127.0.0.1: the host is, or resolves to, an address that is not public".into())
    );
    assert_eq!(checked("http://127.1", "127.0.0.1"), Ok(()));
}
