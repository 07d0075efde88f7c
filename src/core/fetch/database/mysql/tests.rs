#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mysql_common::constants::{ColumnFlags, ColumnType};
use mysql_common::num_bigint::BigUint;
use mysql_common::packets::{AuthPlugin, Column};
use proptest::prelude::*;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY as SHA1, SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::login::{Proof, login};
use super::wire::{Wire, bytes, column, row};
use super::{Session, json};
use crate::error::{Code, Failure};
use crate::fetch::Limits;
use crate::secret::Secret;
use crate::source::database::{Make, Server, Tls};

const MEGABYTE: usize = 1024 * 1024;
const LIMITS: Limits = Limits {
    connect_timeout: Duration::from_secs(5),
    read_timeout: Duration::from_secs(5),
    request_timeout: Duration::from_secs(10),
    response_bytes: 8 * MEGABYTE,
    retries: 0,
    retry_pause: Duration::from_millis(1),
    longest_pause: Duration::from_secs(1),
    pages: 10,
    syncs_of_account: 4,
};
const OK: &[u8] = b"\0\0\0\x02\0\0\0";
const END: &[u8] = b"\xfe\0\0\x02\0";
const NONCE: &[u8] = b"abcdefghijklmnopqrst";
const PASSWORD: &str = "not_a_real_password";

/// The server's side.
struct Other(DuplexStream);

impl Other {
    async fn send(&mut self, number: u8, body: &[u8]) {
        let mut packet = (body.len() as u32).to_le_bytes().to_vec();
        packet[3] = number;
        packet.extend_from_slice(body);
        // Whoever refused it reads no more.
        let _ = self.0.write_all(&packet).await;
    }

    async fn read(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 4];
        self.0.read_exact(&mut head).await.unwrap();
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).await.unwrap();
        (head[3], body)
    }
}

fn pair() -> (Wire, Other) {
    let (ours, others) = duplex(256 * 1024);
    (
        Wire::new(Box::new(ours), LIMITS.response_bytes),
        Other(others),
    )
}

/// What comes of a statement's preparation that is answered by these packets.
async fn prepared(answers: &[&[u8]]) -> Result<usize, Failure> {
    let (mut wire, mut other) = pair();
    for (number, answer) in (1..).zip(answers) {
        other.send(number, answer).await;
    }
    other.0.shutdown().await.unwrap();
    let statement = wire.prepare("SELECT 1", 0).await;
    statement.map(|statement| statement.columns.len())
}

fn code<T>(result: Result<T, Failure>) -> Code {
    match result {
        Ok(_) => panic!("it was taken"),
        Err(failure) => failure.code,
    }
}

fn described(kind: ColumnType, name: &str) -> Vec<u8> {
    bytes(&Column::new(kind).with_name(name.as_bytes()))
}

#[tokio::test]
async fn a_statement_is_prepared_and_no_more_than_was_asked_for_is_taken() {
    let one = described(ColumnType::MYSQL_TYPE_LONG, "id");
    let head = b"\0\x01\0\0\0\x01\0\0\0\0\0\0";
    assert_eq!(prepared(&[head, &one, END]).await.unwrap(), 1);
    // No end, another end, an error in the place of a column, and an answer that is cut short.
    assert_eq!(
        code(prepared(&[head, &one, &one]).await),
        Code::ConnectFailed
    );
    assert_eq!(code(prepared(&[head, &one]).await), Code::ConnectFailed);
    let error = code(prepared(&[head, b"\xff\x7a\x04#42S02gone"]).await);
    assert_eq!(error, Code::NotFound);
    for length in 0..head.len() {
        let cut = prepared(&[&head[..length], &one, END]).await;
        assert_eq!(code(cut), Code::ConnectFailed);
    }
    // A place for a value that is not there.
    let value = code(prepared(&[b"\0\x01\0\0\0\x01\0\x01\0\0\0\0"]).await);
    assert_eq!(value, Code::RequestRefused);
}

#[tokio::test]
async fn more_columns_than_there_can_be_are_refused_unseen() {
    for head in [
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff".as_slice(),
        b"\xfe\0\0\0\0\x01\0\0\0",
        b"\xfd\xff\xff\xff",
        b"\xfc\x01\x10",
    ] {
        let (mut wire, mut other) = pair();
        other.send(1, b"\0\x01\0\0\0\0\0\0\0\0\0\0").await;
        let statement = wire.prepare("SELECT 1", 0).await.unwrap();
        other.read().await;
        other.send(1, head).await;
        let refused = wire.execute(&statement, &[]).await;
        assert_eq!(code(refused), Code::ResponseTooLarge, "{head:?}");
    }
    let (mut wire, mut other) = pair();
    other.send(1, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff").await;
    assert_eq!(code(wire.run("COMMIT").await), Code::ResponseTooLarge);
    let many = prepared(&[b"\0\x01\0\0\0\xff\xff\0\0\0\0\0"]).await;
    assert_eq!(code(many), Code::ResponseTooLarge);
}

#[tokio::test]
async fn descriptions_without_end_are_refused() {
    let (mut wire, mut other) = pair();
    let sending = tokio::spawn(async move {
        other.send(1, b"\0\x01\0\0\0\0\x10\0\0\0\0\0").await;
        let long = described(ColumnType::MYSQL_TYPE_LONG, &"x".repeat(60_000));
        for number in 0..4096 {
            other.send((number + 2) as u8, &long).await;
        }
    });
    let refused = wire.prepare("SELECT 1", 0).await;
    assert_eq!(code(refused), Code::ResponseTooLarge);
    drop(wire);
    sending.await.unwrap();
}

#[tokio::test]
async fn memory_is_taken_for_what_came_and_not_for_what_was_announced() {
    // 16 MB again and again.
    let (ours, others) = duplex(256 * 1024);
    let mut wire = Wire::new(Box::new(ours), 40 * MEGABYTE);
    let sending = tokio::spawn(async move {
        let mut other = Other(others);
        let part = vec![b'x'; 0xff_ffff];
        for number in 0..4 {
            other.send(number, &part).await;
        }
    });
    assert_eq!(wire.read(40 * MEGABYTE).await.unwrap(), None);
    assert!(wire.allocated() < 80 * MEGABYTE);
    drop(wire);
    sending.await.unwrap();
    // Announced, and never sent.
    let (mut wire, mut other) = pair();
    other.0.write_all(b"\xfe\xff\xff\0abc").await.unwrap();
    drop(other);
    assert_eq!(code(wire.read(40 * MEGABYTE).await), Code::ConnectFailed);
    assert!(wire.allocated() < 256 * 1024, "{}", wire.allocated());
    // A packet of just one part's length ends with an empty one.
    let (ours, others) = duplex(256 * 1024);
    let mut wire = Wire::new(Box::new(ours), 40 * MEGABYTE);
    tokio::spawn(async move {
        let mut other = Other(others);
        other.send(0, &vec![b'x'; 0xff_ffff]).await;
        other.send(1, b"").await;
    });
    let packet = wire.read(40 * MEGABYTE).await.unwrap();
    assert_eq!(packet.map(<[u8]>::len), Some(0xff_ffff));
}

#[tokio::test]
async fn packets_out_of_turn_and_packets_that_nobody_asked_for_end_it() {
    let (mut wire, mut other) = pair();
    other.send(2, OK).await;
    assert_eq!(code(wire.run("COMMIT").await), Code::ConnectFailed);
    let (mut wire, mut other) = pair();
    other.send(1, OK).await;
    other.send(1, OK).await;
    wire.run("COMMIT").await.unwrap();
    assert_eq!(code(wire.run("COMMIT").await), Code::ConnectFailed);
}

#[tokio::test]
async fn answers_that_are_cut_short_are_no_errors_of_ours() {
    for (answer, expected) in [
        (b"".as_slice(), Code::ConnectFailed),
        (b"\xff", Code::ConnectFailed),
        (b"\xff\x15", Code::ConnectFailed),
        (b"\xff\x15\x04", Code::CredentialsRejected),
        (b"\xfe", Code::ConnectFailed),
        (b"\xfc\x01", Code::ConnectFailed),
        (b"\x01", Code::ConnectFailed),
        (b"\xfb", Code::RequestRefused),
    ] {
        let (mut wire, mut other) = pair();
        other.send(1, answer).await;
        assert_eq!(code(wire.run("COMMIT").await), expected, "{answer:?}");
    }
}

/// Each kind of value, and a row of them.
fn kinds() -> (Arc<[Column]>, Vec<u8>) {
    let values: [(ColumnType, &[u8]); 11] = [
        (ColumnType::MYSQL_TYPE_TINY, b"\x07"),
        (ColumnType::MYSQL_TYPE_SHORT, b"\x07\0"),
        (ColumnType::MYSQL_TYPE_LONG, b"\x07\0\0\0"),
        (ColumnType::MYSQL_TYPE_LONGLONG, b"\x07\0\0\0\0\0\0\0"),
        (ColumnType::MYSQL_TYPE_FLOAT, b"\0\0\x80\x3f"),
        (ColumnType::MYSQL_TYPE_DOUBLE, b"\0\0\0\0\0\0\xf0\x3f"),
        (ColumnType::MYSQL_TYPE_VAR_STRING, b"\x03abc"),
        (ColumnType::MYSQL_TYPE_NEWDECIMAL, b"\x041.50"),
        (ColumnType::MYSQL_TYPE_JSON, b"\x02{}"),
        (
            ColumnType::MYSQL_TYPE_DATETIME,
            b"\x0b\xea\x07\x02\x03\x04\x05\x06\x01\0\0\0",
        ),
        (
            ColumnType::MYSQL_TYPE_TIME,
            b"\x0c\0\xff\xff\xff\xff\x17\x3b\x3b\x01\0\0\0",
        ),
    ];
    let columns = values.iter().map(|(kind, _)| Column::new(*kind));
    let columns = columns.map(|column| column.with_name(b"c")).collect();
    let values = values.iter().map(|(_, value)| *value);
    // A zero, and which of them are null: none.
    let row = [b"\0\0\0".as_slice()]
        .into_iter()
        .chain(values)
        .collect::<Vec<_>>();
    (columns, row.concat())
}

#[test]
fn a_row_that_is_cut_short_is_none() {
    let (columns, whole) = kinds();
    let read = row(&whole, &columns).unwrap();
    let json = String::from_utf8(json::row(&read, &[], None, 1 << 20).unwrap()).unwrap();
    assert!(json.contains("\"2026-02-03T04:05:06.000001\""), "{json}");
    assert!(json.contains("\"103079215103:59:59.000001\""), "{json}");
    for length in 0..whole.len() {
        let cut = code(row(&whole[..length], &columns));
        assert_eq!(cut, Code::UnexpectedShape, "{length}");
    }
    // A text of 2^64 - 1 bytes.
    let text: Arc<[Column]> = [Column::new(ColumnType::MYSQL_TYPE_BLOB)].into();
    let endless = b"\0\0\xfe\xff\xff\xff\xff\xff\xff\xff\xffabc";
    assert_eq!(code(row(endless, &text)), Code::UnexpectedShape);
}

#[test]
fn a_row_whose_json_is_longer_than_may_be_is_refused() {
    let columns: Arc<[Column]> =
        [Column::new(ColumnType::MYSQL_TYPE_VAR_STRING).with_name(b"c")].into();
    // Each byte of it becomes six.
    let packet = [b"\0\0\xfd\x40\x42\x0f".as_slice(), &[1; 1_000_000]].concat();
    let read = row(&packet, &columns).unwrap();
    for (most, is_taken) in [(5_999_000, false), (6_001_000, true)] {
        let json = json::row(&read, &[], None, most);
        match is_taken {
            true => assert_eq!(json.unwrap().len(), 6_000_000 + br#"{"c":""}"#.len()),
            false => assert_eq!(code(json), Code::ResponseTooLarge),
        }
    }
}

#[test]
fn a_column_of_a_kind_that_is_never_sent_is_refused() {
    for kind in 0..=255_u8 {
        let Ok(kind) = ColumnType::try_from(kind) else {
            continue;
        };
        let Ok(column) = column(&described(kind, "c")) else {
            continue;
        };
        let _ = row(
            b"\0\0\x01\x01\x01\x01\x01\x01\x01\x01\x01",
            &[column].into(),
        );
    }
    let kind = ColumnType::MYSQL_TYPE_TIMESTAMP2;
    assert_eq!(code(column(&described(kind, "c"))), Code::ConnectFailed);
}

fn server(tls: Tls) -> Server {
    Server::new(
        Make::MySql,
        "127.0.0.1".into(),
        3306,
        "shop".into(),
        "reader".into(),
        Some(Secret::new(PASSWORD.into())),
        tls,
        Duration::from_secs(60),
    )
    .unwrap()
}

/// A server that can do all, and asks for a proof by this way.
fn hello(way: &str) -> Vec<u8> {
    let head = b"\x0a8.4.0\0\x01\0\0\0abcdefgh\0\xff\xf7\x21\x02\0\xff\x81\x15";
    let rest = [
        &[0; 10],
        b"ijklmnopqrst\0".as_slice(),
        way.as_bytes(),
        b"\0",
    ];
    [head.as_slice(), &rest.concat()].concat()
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b.iter().cycle()).map(|(a, b)| a ^ b).collect()
}

fn hash(how: &'static ring::digest::Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    digest(how, &parts.concat()).as_ref().to_vec()
}

/// As MySQL's manual has it: XOR(SHA256(password), SHA256(SHA256(SHA256(password)), nonce)).
fn sha2_proof() -> Vec<u8> {
    let once = hash(&SHA256, &[PASSWORD.as_bytes()]);
    let twice = hash(&SHA256, &[&once]);
    xor(&once, &hash(&SHA256, &[&twice, NONCE]))
}

/// The same of native passwords: XOR(SHA1(password), SHA1(nonce, SHA1(SHA1(password)))).
fn native_proof() -> Vec<u8> {
    let once = hash(&SHA1, &[PASSWORD.as_bytes()]);
    let twice = hash(&SHA1, &[&once]);
    xor(&once, &hash(&SHA1, &[NONCE, &twice]))
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_known_proof_lets_in_at_once() {
    for (way, proof) in [
        ("caching_sha2_password", sha2_proof()),
        ("mysql_native_password", native_proof()),
    ] {
        let (wire, mut other) = pair();
        let serving = tokio::spawn(async move {
            other.send(0, &hello(way)).await;
            let (number, login) = other.read().await;
            assert_eq!(number, 1);
            let proof = [&[proof.len() as u8], proof.as_slice()].concat();
            assert!(contains(
                &login,
                &[b"reader\0", proof.as_slice(), b"shop\0"].concat()
            ));
            // Neither local files (0x80) nor compression, nor several statements or results at once.
            let asked = u32::from_le_bytes([login[0], login[1], login[2], login[3]]);
            assert_eq!(asked & 0x0107_00a0, 0);
            match way {
                "caching_sha2_password" => {
                    other.send(2, &[1, 3]).await;
                    other.send(3, OK).await;
                }
                _ => other.send(2, OK).await,
            }
        });
        let in_at = login(wire, &server(Tls::Off), LIMITS.response_bytes).await;
        serving.await.unwrap();
        assert!(in_at.is_ok(), "{way}");
    }
}

#[tokio::test]
async fn another_way_is_taken_once() {
    // Their nonces come anew. One of ed25519 may end with a zero.
    let nonce: Vec<u8> = (0..31).rev().chain([0]).collect();
    let (wire, mut other) = pair();
    let asked = [b"\xfeclient_ed25519\0", nonce.as_slice()].concat();
    let serving = tokio::spawn(async move {
        other.send(0, &hello("mysql_native_password")).await;
        other.read().await;
        other.send(2, &asked).await;
        let (number, proof) = other.read().await;
        assert_eq!(number, 3);
        other.send(4, &asked).await;
        proof
    });
    let mut server = server(Tls::Off);
    // The server's keys are made as those of a seed, which has this length.
    let password = "not_a_real_password_of_32_bytes_";
    server.password = Some(Secret::new(password.into()));
    let refused = login(wire, &server, LIMITS.response_bytes).await;
    let proof = serving.await.unwrap();
    let keys = Ed25519KeyPair::from_seed_unchecked(password.as_bytes()).unwrap();
    let public = keys.public_key().as_ref();
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
    public
        .verify(&(0..31).rev().chain([0]).collect::<Vec<u8>>(), &proof)
        .unwrap();
    // It asked again.
    assert_eq!(code(refused), Code::ConnectFailed);
}

#[tokio::test]
async fn ways_that_are_not_safe_or_not_known_are_refused() {
    for asked in [
        b"\xfe".as_slice(),
        b"\xfemysql_clear_password\0",
        b"\xfemysql_old_password\0abcdefgh\0",
        b"\xfesha256_password\0abcdefghijklmnopqrst\0",
        b"\xfeparsec\0abcdefghijklmnopqrstabcdefghijkl",
    ] {
        let (wire, mut other) = pair();
        other.send(0, &hello("caching_sha2_password")).await;
        other.send(2, asked).await;
        let refused = login(wire, &server(Tls::Off), LIMITS.response_bytes).await;
        assert_eq!(code(refused), Code::CredentialsRejected, "{asked:?}");
    }
    // One that we know, without a nonce.
    let (wire, mut other) = pair();
    other.send(0, &hello("caching_sha2_password")).await;
    other.send(2, b"\xfemysql_native_password\0abc").await;
    let refused = login(wire, &server(Tls::Off), LIMITS.response_bytes).await;
    assert_eq!(code(refused), Code::ConnectFailed);
}

#[tokio::test]
async fn a_server_without_tls_or_that_speaks_before_it_gets_nothing() {
    let (wire, mut other) = pair();
    other.send(0, &hello("caching_sha2_password")).await;
    let refused = login(wire, &server(Tls::Verify { ca: None }), 1).await;
    assert_eq!(code(refused), Code::TlsFailed);
    // It can do TLS, and has already said what is to count as said in it.
    let (wire, mut other) = pair();
    let mut can = hello("caching_sha2_password");
    can[21] |= 0x08;
    other.send(0, &can).await;
    other.send(2, OK).await;
    let refused = login(wire, &server(Tls::Verify { ca: None }), 1).await;
    assert_eq!(code(refused), Code::ConnectFailed);
    let (_, asked) = other.read().await;
    assert_eq!(asked.len(), 32, "nothing but that it be TLS");
    // Some servers take what is asked for from here: a database (0x08), TLS, and a way of logging in.
    let asked = u32::from_le_bytes([asked[0], asked[1], asked[2], asked[3]]);
    assert_eq!(asked & 0x0008_0808, 0x0008_0808);
}

fn proof(is_secure: bool) -> Proof<'static> {
    Proof {
        password: PASSWORD,
        is_secure,
        way: AuthPlugin::CachingSha2Password,
        nonce: NONCE.to_vec(),
    }
}

#[tokio::test]
async fn a_password_is_told_inside_tls_alone() {
    let (mut wire, mut other) = pair();
    let serving = tokio::spawn(async move {
        other.send(0, &[1, 4]).await;
        let (_, told) = other.read().await;
        other.send(2, OK).await;
        told
    });
    proof(true).give(&mut wire).await.unwrap();
    let told = serving.await.unwrap();
    assert_eq!(told, [PASSWORD.as_bytes(), &[0]].concat());
}

fn der(kind: u8, contents: &[u8]) -> Vec<u8> {
    let length = (contents.len() as u16).to_be_bytes();
    [&[kind, 0x82], length.as_slice(), contents].concat()
}

fn pem(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let numbers = [der(2, &[&[0], modulus].concat()), der(2, exponent)].concat();
    let bits = [&[0], der(0x30, &numbers).as_slice()].concat();
    let info = [der(0x30, b"\x06\x01\x01\x05\0"), der(3, &bits)].concat();
    let text = STANDARD.encode(der(0x30, &info));
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n").into_bytes()
}

/// Two of Mersenne's primes make a key of 1128 bits that anybody can open.
fn primes() -> (BigUint, BigUint) {
    let prime = |bits: u32| BigUint::from(2_u8).pow(bits) - 1_u8;
    (prime(521), prime(607))
}

/// RFC 8017, 7.1.2: what was encrypted with OAEP.
fn opened(sealed: &[u8]) -> Vec<u8> {
    let (p, q) = primes();
    let secret = BigUint::from(65_537_u32).modinv(&((&p - 1_u8) * (&q - 1_u8)));
    let padded = BigUint::from_bytes_be(sealed).modpow(&secret.unwrap(), &(p * q));
    let padded = padded.to_bytes_be();
    let padded = [vec![0; 140 - padded.len()], padded].concat();
    let mask = |seed: &[u8], length: usize| -> Vec<u8> {
        let hashes = (0..8_u32).flat_map(|at| hash(&SHA1, &[seed, &at.to_be_bytes()]));
        hashes.take(length).collect()
    };
    let (seed, block) = padded.split_at(20);
    let seed = xor(seed, &mask(block, 20));
    let block = xor(block, &mask(&seed, block.len()));
    assert_eq!(block[..20], hash(&SHA1, &[]));
    let start = block.iter().skip(20).position(|byte| *byte == 1).unwrap();
    block[20 + start + 1..].to_vec()
}

/// What the client sends after it got this as the server's key.
async fn sealed_for(key: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let (mut wire, mut other) = pair();
    let serving = tokio::spawn(async move {
        other.send(0, &[1, 4]).await;
        assert_eq!(other.read().await, (1, vec![2]), "it asks for the key");
        other.send(2, &[&[1], key.as_slice()].concat()).await;
        other.send(4, OK).await;
        let mut sealed = Vec::new();
        other.0.read_to_end(&mut sealed).await.unwrap();
        sealed
    });
    let given = proof(false).give(&mut wire).await;
    drop(wire);
    let sealed = serving.await.unwrap();
    given.map(|()| sealed[4..].to_vec())
}

#[tokio::test]
async fn outside_tls_a_password_is_for_the_owner_of_the_key_alone() {
    let (p, q) = primes();
    let modulus = (p * q).to_bytes_be();
    let sealed = sealed_for(pem(&modulus, &[1, 0, 1])).await.unwrap();
    assert_eq!(
        opened(&sealed),
        xor(&[PASSWORD.as_bytes(), &[0]].concat(), NONCE)
    );
    let whole = pem(&modulus, &[1, 0, 1]);
    for key in [
        b"".to_vec(),
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_vec(),
        whole[..100].to_vec(),
        // Too short, too long, none at all.
        pem(&modulus[..64], &[1, 0, 1]),
        pem(&modulus.repeat(20), &[1, 0, 1]),
        pem(&[0; 128], &[1, 0, 1]),
        pem(&[], &[1, 0, 1]),
        pem(&modulus, &modulus),
        pem(&modulus, &[]),
    ] {
        assert_eq!(code(sealed_for(key).await), Code::ConnectFailed);
    }
}

/// A connection to a server that says just this, packet by packet. An answer waits for what it answers.
async fn open(packets: Vec<(u8, Vec<u8>)>) -> Result<Session, Failure> {
    let (ours, others) = duplex(256 * 1024);
    let serving = tokio::spawn(async move {
        let mut other = Other(others);
        let mut asked = [0; 4096];
        for (number, body) in packets {
            if number == 1 || number == 2 {
                let asking = other.0.read(&mut asked);
                let _ = timeout(Duration::from_secs(1), asking).await;
            }
            other.send(number, &body).await;
        }
    });
    let session = Session::open(&server(Tls::Off), ours, &LIMITS).await;
    let _ = serving.await;
    session
}

#[tokio::test]
async fn a_session_is_of_one_make_or_the_other() {
    for (version, bound) in [
        ("8.4.0", "max_execution_time = 60000"),
        ("10.11.6-MariaDB", "max_statement_time = 60"),
    ] {
        let (ours, others) = duplex(256 * 1024);
        let serving = tokio::spawn(async move {
            let mut other = Other(others);
            other.send(0, &hello("mysql_native_password")).await;
            other.read().await;
            other.send(2, OK).await;
            other.read().await;
            other.send(1, OK).await;
            let (_, asked) = other.read().await;
            assert_eq!(asked, b"\x16SELECT VERSION()");
            let text = described(ColumnType::MYSQL_TYPE_VAR_STRING, "v");
            other.send(1, b"\0\x01\0\0\0\x01\0\0\0\0\0\0").await;
            other.send(2, &text).await;
            other.send(3, END).await;
            other.read().await;
            other.send(1, &[1]).await;
            other.send(2, &text).await;
            other.send(3, END).await;
            let row = [&[0, 0, version.len() as u8], version.as_bytes()].concat();
            other.send(4, &row).await;
            other.send(5, END).await;
            assert_eq!(other.read().await.1, b"\x19\x01\0\0\0", "it is closed");
            let (_, asked) = other.read().await;
            other.send(1, OK).await;
            assert_eq!(other.read().await, (0, vec![1]), "good-bye");
            asked
        });
        let session = Session::open(&server(Tls::Off), ours, &LIMITS).await;
        drop(session.unwrap());
        let asked = String::from_utf8(serving.await.unwrap()).unwrap();
        assert!(asked.contains(bound), "{asked}");
    }
}

fn kind() -> impl Strategy<Value = Column> {
    let parts = (any::<u8>(), any::<u16>(), any::<u16>());
    parts.prop_filter_map("a kind that is sent", |(kind, flags, set)| {
        let kind = ColumnType::try_from(kind).ok()?;
        let flags = ColumnFlags::from_bits_truncate(flags);
        let made = Column::new(kind).with_name(b"c").with_flags(flags);
        column(&bytes(&made.with_character_set(set))).ok()
    })
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    let any_bytes = prop::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        any_bytes.clone(),
        any_bytes.clone().prop_map(|rest| [OK, &rest].concat()),
        any_bytes.clone().prop_map(|rest| [END, &rest].concat()),
        any_bytes
            .clone()
            .prop_map(|rest| [b"\x01", rest.as_slice()].concat()),
        any_bytes
            .clone()
            .prop_map(|rest| [b"\0\x01\0\0\0", rest.as_slice()].concat()),
        Just(b"\0\x01\0\0\0\x01\0\0\0\0\0\0".to_vec()),
        Just(OK.to_vec()),
        Just(END.to_vec()),
        Just(described(ColumnType::MYSQL_TYPE_VAR_STRING, "v")),
    ]
}

/// Where nobody waits for long: its clock goes on when there is nothing to do.
fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #[test]
    fn no_bytes_of_a_row_make_it_panic(
        columns in prop::collection::vec(kind(), 1..12),
        head in any::<bool>(),
        packet in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let columns: Arc<[Column]> = columns.into();
        // No nulls, more often than by chance.
        let nulls = vec![0; (columns.len() + 9) / 8 + 1];
        let packet = if head { [nulls, packet].concat() } else { packet };
        if let Ok(row) = row(&packet, &columns) {
            let zone = Some(chrono_tz::Europe::Berlin);
            let _ = json::row(&row, &["c".to_owned()], zone, 1 << 20);
            let _ = json::row(&row, &[], zone, 1 << 20);
            let _ = json::told(&row, "c");
        }
    }

    #[test]
    fn no_bytes_of_a_column_make_it_panic(packet in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = column(&packet);
    }

    #[test]
    fn no_hello_makes_it_panic(
        packet in prop::collection::vec(any::<u8>(), 0..120),
        changed in any::<(prop::sample::Index, u8)>(),
        length in any::<prop::sample::Index>(),
    ) {
        let runtime = runtime();
        let mut other = hello("caching_sha2_password");
        let at = changed.0.index(other.len());
        other[at] = changed.1;
        other.truncate(length.index(other.len() + 1));
        for packet in [packet, other] {
            let _ = runtime.block_on(open(vec![(0, packet)]));
        }
    }

    #[test]
    fn no_key_makes_it_panic(
        der in prop::collection::vec(any::<u8>(), 0..60),
        changed in any::<(prop::sample::Index, u8)>(),
    ) {
        let runtime = runtime();
        let text = STANDARD.encode(&der);
        let random = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
        let mut other = pem(&[0xff; 256], &[1, 0, 1]);
        let at = changed.0.index(other.len());
        other[at] = changed.1;
        for key in [random.into_bytes(), other] {
            let _ = runtime.block_on(sealed_for(key));
        }
    }

    #[test]
    fn no_answers_make_it_panic(packets in prop::collection::vec(packet(), 0..14)) {
        let runtime = runtime();
        // Numbered as if each were the next of one answer, or the first of its own.
        let login = [(0, hello("caching_sha2_password")), (2, OK.to_vec()), (1, OK.to_vec())];
        let mut number = 0;
        let rest = packets.into_iter().map(|packet| {
            let is_first = packet.starts_with(b"\0\x01") || packet.len() == 1;
            number = if is_first { 1 } else { number + 1 };
            (number, packet)
        });
        let _ = runtime.block_on(open(login.into_iter().chain(rest).collect()));
    }
}
