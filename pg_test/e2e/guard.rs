//! Tests the address guard with a real worker. A listener at the refused address counts the connections: there must be
//! none.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use connector_service_test::*;
use postgres::Client;
use serde_json::{Value, json};

#[path = "../../src/core/guard/spellings.rs"]
mod spellings;

/// The default settings: no private host is allowed.
const NOBODY: &str = "
connector_service.allowed_private_hosts = ''
connector_service.request_retries = 0
connector_service.connect_timeout = '5s'
";

/// Counts connections to a port, at each address of this host that the spellings mean.
struct Listener {
    port: u16,
    count: Arc<AtomicUsize>,
}

impl Listener {
    fn start() -> Listener {
        let (port, listeners) = (0..100).find_map(|_| bind()).expect("a free port");
        let count = Arc::new(AtomicUsize::new(0));
        for listener in listeners {
            let count = count.clone();
            std::thread::spawn(move || {
                // Closed at once: who came is counted, and told nothing.
                for _ in listener.incoming().flatten() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Listener { port, count }
    }

    /// Returns the number of connections, after a wait that is long enough for a connection to arrive.
    fn count(&self) -> usize {
        std::thread::sleep(Duration::from_millis(300));
        self.count.load(Ordering::SeqCst)
    }
}

/// `None`: the port is taken at one of the addresses.
fn bind() -> Option<(u16, Vec<TcpListener>)> {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    let mut listeners = vec![first];
    for other in ["127.255.255.254", "::1"] {
        match TcpListener::bind(SocketAddr::new(other.parse().unwrap(), port)) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => return None,
            // A host without IPv6 has nowhere to connect to either.
            Err(_) => {}
        }
    }
    Some((port, listeners))
}

/// Inserts a connector; `Err` is the SQLSTATE with which it was refused.
fn try_insert(client: &mut Client, name: &str, base: &str) -> Result<String, String> {
    let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials, sync_frequency)
               VALUES ('00000000-0000-4000-8000-000000000001', $1, 'api', $2, '{\"api_key\": \"sk_test_not_a_real_key\"}', 'manual')
               RETURNING connector_id::text";
    client
        .query_one(sql, &[&name, &api(base, "orders")])
        .map(|row| row.get(0))
        .map_err(|error| error.code().expect("an SQLSTATE").code().to_owned())
}

#[test]
fn no_spelling_of_this_host_is_connected_to() {
    let cluster = Cluster::start(NOBODY);
    let mut client = cluster.database("app");
    cluster.wait_worker("app");
    let listener = Listener::start();
    let port = listener.port.to_string();
    let mut runs = Vec::new();
    let mut refused = 0;
    let addresses = spellings::ADDRESSES.iter().map(|url| (url, false));
    let names = spellings::LOCALHOST.iter().map(|url| (url, true));
    for (url, is_name) in addresses.chain(names) {
        for (scheme, tabbed) in [("https", "h\tttps"), ("http", "h\tttp")] {
            let base = url
                .replace("SCHEME", scheme)
                .replace("S\tCHEME", tabbed)
                .replace("PORT", &port);
            // Nothing is listed, so that a name needs no looking up to be refused for http.
            // A blank at its end leaves no URL, once the path follows.
            let expected = match (base.ends_with(' '), is_name && scheme == "http") {
                (true, _) => "invalid_config",
                (_, true) => "https_required",
                (_, false) => "address_not_allowed",
            };
            // Names are the same whatever their capitals.
            let name = format!("{} {base}", runs.len() + refused);
            match try_insert(&mut client, &name, &base) {
                Ok(connector) => runs.push((base, sync(&mut client, &connector), expected)),
                Err(code) => {
                    // A user name, or a blank where the path is to follow.
                    assert!(base.contains(['@', ' ']), "{base}");
                    assert_eq!(code, "22023", "{base}");
                    refused += 1;
                }
            }
        }
    }
    let mut codes = BTreeMap::<&str, usize>::new();
    for (base, run, expected) in &runs {
        let run = wait_for_run(&mut client, run);
        assert_eq!(run["error_code"], *expected, "{base}: {run}");
        let message = run["error_message"].as_str().unwrap_or_default();
        for secret in ["sk_test", "://", "public.example"] {
            assert!(!message.contains(secret), "{message}");
        }
        *codes.entry(expected).or_default() += 1;
    }
    println!("{codes:?}, {refused} refused when they were saved");
    assert!(codes["address_not_allowed"] >= 120, "{codes:?}");
    assert_eq!(listener.count(), 0);
    ledger_holds(&mut client);
}

#[test]
fn a_host_is_called_once_an_administrator_lists_it() {
    let cluster = Cluster::start(NOBODY);
    let mut client = cluster.database("app");
    let vendor = Vendor::start(|_| Reply::Json(json!({"data": [{"id": 1}]}).to_string()));
    let listener = Listener::start();
    let connector = insert_connector(&mut client, "shop", &api(&vendor.url(), "orders"));
    let run = sync(&mut client, &connector);
    let run = wait_for_run(&mut client, &run);
    assert_eq!(run["error_code"], "address_not_allowed");
    assert_eq!(
        run["error_message"],
        format!(
            "stream \"orders\": {}: the host is, or resolves to, an address that is not public",
            vendor.host()
        )
    );
    assert_eq!(vendor.asked().len(), 0);

    reload_with(&mut client, "10.0.0.0/8, 127.0.0.1, erp.intern");
    wait_until(20, "the worker has taken the list", || {
        let run = sync(&mut client, &connector);
        (wait_for_run(&mut client, &run)["state"] == "succeeded").then_some(())
    });
    // No more than what is listed, and the cloud's own services not even then.
    reload_with(
        &mut client,
        "127.0.0.1, 169.254.0.0/16, metadata.google.internal",
    );
    let v6 = format!("http://[::1]:{}", listener.port);
    let high = format!("http://127.255.255.254:{}", listener.port);
    for base in [
        v6.as_str(),
        &high,
        "http://169.254.169.254/latest/meta-data",
        "https://metadata.google.internal/computeMetadata/v1",
    ] {
        let connector = insert_connector(&mut client, base, &api(base, "orders"));
        let run = sync(&mut client, &connector);
        let run = wait_for_run(&mut client, &run);
        assert_eq!(run["error_code"], "address_not_allowed", "{base}");
    }
    assert_eq!(listener.count(), 0);

    reload_with(&mut client, "");
    let asked = wait_until(20, "the worker has taken the list", || {
        let asked = vendor.asked().len();
        let run = sync(&mut client, &connector);
        let run = wait_for_run(&mut client, &run);
        (run["error_code"] == "address_not_allowed").then_some(asked)
    });
    assert_eq!(
        vendor.asked().len(),
        asked,
        "nor by a connection that was open"
    );
}

fn reload_with(client: &mut Client, list: &str) {
    let sql = format!("ALTER SYSTEM SET connector_service.allowed_private_hosts = '{list}'");
    client.batch_execute(&sql).unwrap();
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
}

#[test]
fn a_vendor_cannot_send_a_request_to_another_port() {
    // The address is listed, so that only the vendor's own origin stands in the way.
    let cluster = Cluster::start("connector_service.request_retries = 0");
    let mut client = cluster.database("app");
    let listener = Listener::start();
    let targets = {
        let other = listener.port;
        move |home: &str| {
            vec![
                format!("http://127.0.0.1:{other}/"),
                format!("https://127.0.0.1:{other}/"),
                format!("//127.0.0.1:{other}/"),
                format!("\\\\127.0.0.1:{other}\\"),
                format!("http://{home}@127.0.0.1:{other}/"),
                format!("http://0x7f.1:{other}/"),
                format!("https://{home}/"),
                format!("http://user:password@{home}/"),
                "http://169.254.169.254/latest/meta-data/".to_owned(),
                "file:///etc/passwd".to_owned(),
                format!("gopher://127.0.0.1:{other}/_x"),
            ]
        }
    };
    let serving = targets;
    let vendor = Vendor::start(move |asked| {
        let home = asked.headers.get("host").cloned().unwrap_or_default();
        let mut words = asked.path.trim_matches('/').split('/');
        let (kind, target) = (words.next().unwrap(), words.next().unwrap_or("0"));
        let target = serving(&home)[target.parse::<usize>().unwrap()].clone();
        match kind.parse() {
            Ok(status) => Reply::Full {
                status,
                headers: vec![("Location", target)],
                body: vec![],
            },
            Err(_) => Reply::Json(json!({"data": [{"id": 1}], "next": target}).to_string()),
        }
    });
    let count = targets("").len();
    let mut expected = BTreeMap::new();
    let mut ended = BTreeMap::new();
    for target in 0..count {
        for kind in ["301", "302", "303", "307", "308", "next"] {
            let path = format!("{kind}/{target}");
            let mut manifest = manifest(&vendor.url(), &path);
            if kind == "next" {
                let paginator = &mut manifest["streams"][0]["retriever"]["paginator"];
                paginator["page_token_option"] = json!({"type": "RequestPath"});
            }
            let config = json!({ "manifest": manifest });
            let connector = insert_connector(&mut client, &path, &config);
            let run = sync(&mut client, &connector);
            let (code, pages) = match kind {
                "next" => ("foreign_next_page", 1),
                _ => ("redirected", 0),
            };
            expected.insert(path.clone(), (json!(code), json!(pages)));
            ended.insert(path, run);
        }
    }
    let ended: BTreeMap<String, (Value, Value)> = ended
        .into_iter()
        .map(|(path, run)| {
            let run = wait_for_run(&mut client, &run);
            (path, (run["error_code"].clone(), run["pages"].clone()))
        })
        .collect();
    assert_eq!(ended, expected);
    assert_eq!(vendor.asked().len(), ended.len(), "each asked once");
    assert_eq!(listener.count(), 0);
}

#[test]
fn an_address_that_cannot_be_called_is_reported_when_it_is_saved_or_listed() {
    let cluster = Cluster::start(NOBODY);
    let mut client = cluster.database("app");
    for (base, said) in [
        (
            "http://shop.example.com",
            "shop.example.com: the host may only be called with https",
        ),
        (
            "https://10.0.0.1",
            "10.0.0.1: the host is, or resolves to, an address that is not public",
        ),
        (
            "https://169.254.169.254",
            "the cloud's own services, which are never called",
        ),
        ("https://shop.example.com", ""),
    ] {
        let config = api(base, "orders").to_string().replace('\'', "''");
        let sql = format!(
            "INSERT INTO connectors (tenant_id, name, type, config, credentials, status)
             VALUES ('00000000-0000-4000-8000-000000000001', '{base}', 'api', '{config}', '{{\"api_key\": \"x\"}}', 'paused')"
        );
        let shown = cluster.command("psql", &["-X", "-d", &cluster.url("app"), "-c", &sql]);
        assert_eq!(shown.contains("WARNING:"), !said.is_empty(), "{shown}");
        assert!(shown.contains(said), "{shown}");
        assert!(shown.contains("INSERT 0 1"), "saved all the same: {shown}");
    }

    let sql = "ALTER SYSTEM SET connector_service.allowed_private_hosts = 'erp.intern, 10.0.0.1/8'";
    let error = client.batch_execute(sql).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(
        (error.code().code(), error.detail()),
        (
            "22023",
            Some("network \"10.0.0.1/8\" has bits set to the right of its prefix")
        )
    );
    let sql = "CREATE ROLE visitor; SET ROLE visitor; SHOW connector_service.allowed_private_hosts";
    let error = client.batch_execute(sql).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42501");
}
