//! Tests the gateway under overload: acknowledged events are stored, excess requests are refused, and connections that
//! send nothing do not block other clients.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use connector_service_test::http::{Connection, ask};
use connector_service_test::*;
use serde_json::json;

const EVENTS: usize = 100_000;
/// More at once than the gateway's queue and one transaction hold.
const SENDERS: usize = 600;
const SHOPS: usize = 40;
const ORDERS: usize = 500;

/// The responses that the senders got.
#[derive(Default)]
struct Told {
    next: AtomicUsize,
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicUsize,
}

/// Sends events, each until it is acknowledged, as vendors do.
fn send(port: u16, path: &str, told: &Told, deadline: Instant) {
    let count = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
    let mut connection = None;
    loop {
        let number = count(&told.next);
        if number >= EVENTS {
            return;
        }
        let body = json!({"id": number, "total": "12.50"}).to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nX-Signature: {}\r\nContent-Length: {}\r\n\r\n{body}",
            signature(&body),
            body.len()
        );
        loop {
            assert!(Instant::now() < deadline, "event {number} finds no taker");
            let mut open = connection.take().or_else(|| Connection::open(port).ok());
            let answered = open
                .as_mut()
                .and_then(|open| open.exchange(request.as_bytes()));
            let Some(answered) = answered else {
                count(&told.broken);
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            connection = open;
            match answered.status {
                200 => break,
                503 => {
                    let pause: u64 = answered.headers["retry-after"].parse().unwrap();
                    assert!(pause >= 1);
                    count(&told.refused);
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => panic!("{other}: {}", answered.body),
            }
        }
        count(&told.acknowledged);
    }
}

#[test]
fn a_hundred_thousand_events_beside_syncs_and_a_kill_are_stored_once() {
    let mut stage = Gateway::start(&format!(
        "connector_service.gateway_max_connections = {}\nconnector_service.max_syncs_per_account = {SHOPS}",
        SENDERS + 50
    ));
    let vendor = {
        let shop = Shop::new(ORDERS, 20);
        Vendor::start(move |asked| {
            Reply::After(Duration::from_millis(50), Box::new(shop.answer(asked)))
        })
    };
    let config = Shop::config(&vendor.url());
    for number in 0..SHOPS {
        insert_connector(&mut stage.client, &format!("shop {number}"), &config);
    }
    let webhook = stage.webhook(&json!({"key": "id"}));
    let path = format!("/webhooks/{webhook}");
    let queued =
        "SELECT count(connector_service_sync(connector_id)) FROM connectors WHERE type = 'api'";
    assert_eq!(stage.count(queued), SHOPS as i64);
    let first = stage.pid().unwrap();
    let idle = memory_kb(first, "RssAnon");

    let told = Told::default();
    let deadline = Instant::now() + Duration::from_secs(240);
    let (mut most_memory, mut most_files) = (0, 0);
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| send(stage.port, &path, &told, deadline));
        }
        let mut gateway = first;
        let mut is_killed = false;
        while told.acknowledged.load(Ordering::Relaxed) < EVENTS {
            assert!(Instant::now() < deadline);
            if !is_killed && told.acknowledged.load(Ordering::Relaxed) > EVENTS / 3 {
                // SAFETY: a process of this test's server.
                assert_eq!(unsafe { libc::kill(gateway, libc::SIGKILL) }, 0);
                is_killed = true;
                gateway = wait_until(60, "another gateway", || {
                    stage.pid().filter(|pid| *pid != gateway)
                });
            }
            most_memory = most_memory.max(memory_kb(gateway, "RssAnon"));
            let files = std::fs::read_dir(format!("/proc/{gateway}/fd"));
            most_files = most_files.max(files.map_or(0, Iterator::count));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let (refused, broken) = (told.refused.into_inner(), told.broken.into_inner());
    println!(
        "{refused} refused with Retry-After, {broken} broken off; memory {idle} to {most_memory} kB, {most_files} descriptors"
    );
    assert!(refused > 0, "nobody was turned away");
    assert!(broken > 0, "the kill met nobody");
    assert!(most_memory < idle + 100_000, "{idle} to {most_memory} kB");
    assert!(most_files < SENDERS + 150, "{most_files} descriptors");

    // The server was restarted meanwhile.
    stage.client = stage.cluster.client("app");
    let sql =
        "SELECT count(DISTINCT data ->> 'id') FROM raw_connector_data WHERE stream = 'events'";
    assert_eq!(stage.count(sql), EVENTS as i64);
    let sql = "SELECT count(*) FROM raw_connector_data WHERE stream = 'events'";
    assert_eq!(stage.count(sql), EVENTS as i64);
    // The run of webhooks has counted what committed, and each event that was sent again because its answer was lost.
    let sql = "SELECT sum(inserted)::bigint FROM sync_runs WHERE kind = 'webhook'";
    assert_eq!(stage.count(sql), EVENTS as i64);
    wait_until(120, "every sync has ended", || {
        let open = "SELECT count(*) FROM sync_runs WHERE kind = 'sync' AND finished_at IS NULL";
        (stage.count(open) == 0).then_some(())
    });
    let failed = "SELECT count(*) FROM sync_runs WHERE kind = 'sync' AND state <> 'succeeded'";
    assert_eq!(stage.count(failed), 0);
    let orders = "SELECT count(*) FROM raw_connector_data WHERE stream = 'orders'";
    assert_eq!(stage.count(orders), (SHOPS * ORDERS) as i64);
    ledger_holds(&mut stage.client);
    wait_until(120, "all of it is processed", || {
        (stage.count("SELECT count(*) FROM raw_connector_data WHERE NOT processed") == 0)
            .then_some(())
    });
}

#[test]
fn five_thousand_open_connections_do_not_block_other_clients() {
    // Within what this process may open.
    let most = {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: plain numbers of this process.
        unsafe {
            assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
            limit.rlim_cur = limit.rlim_max;
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        }
        usize::try_from(limit.rlim_cur).unwrap()
    };
    assert!(most > 1_000, "{most} descriptors are too few for this test");
    let idle_connections = 5_000.min(most - 500);
    let mut stage = Gateway::start("connector_service.gateway_timeout = '60s'");
    let webhook = stage.webhook(&json!({"key": "id"}));
    let gateway = stage.pid().unwrap();
    let before = memory_kb(gateway, "RssAnon");
    let mut idle = Vec::new();
    let mut took = Vec::new();
    let mut most_files = 0;
    for number in 0..idle_connections {
        let mut stream = TcpStream::connect(("127.0.0.1", stage.port)).unwrap();
        let said = match number % 4 {
            0 => String::new(),
            1 => "POST /webhooks/".to_owned(),
            2 => format!(
                "POST /webhooks/{webhook} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{{"
            ),
            _ => "GET /live HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        };
        // Who has given way already does not hear it.
        let _ = stream.write_all(said.as_bytes());
        idle.push(stream);
        if number % 50 == 49 {
            let began = Instant::now();
            let body = json!({"id": number}).to_string();
            let pushed = push(stage.port, &webhook, &body).unwrap();
            assert_eq!(pushed.status, 200, "{pushed:?}");
            assert_eq!(ask(stage.port, "GET", "/live", &[], b"").status, 200);
            took.push(began.elapsed() / 2);
            let files = std::fs::read_dir(format!("/proc/{gateway}/fd")).unwrap();
            most_files = most_files.max(files.count());
        }
    }
    took.sort_unstable();
    let grown = memory_kb(gateway, "RssAnon").saturating_sub(before);
    println!(
        "{idle_connections} connections: others answered in {:?}, at most {:?}; {most_files} descriptors, {grown} kB more",
        took[took.len() / 2],
        took.last().unwrap()
    );
    assert!(
        took[took.len() / 2] < Duration::from_millis(100),
        "{took:?}"
    );
    assert!(most_files < 200 + 100, "{most_files} descriptors");
    assert!(grown < 50_000, "{grown} kB");
    assert_eq!(stage.pid(), Some(gateway));
    let sql = "SELECT count(*) FROM raw_connector_data";
    assert_eq!(stage.count(sql), took.len() as i64);
}
