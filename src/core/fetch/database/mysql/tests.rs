#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod fuzz;
mod hostile;
mod letting_in;

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
async fn a_statement_is_prepared_and_no_more_rows_than_requested_are_read() {
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
async fn an_impossible_number_of_columns_is_refused_unread() {
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
async fn memory_grows_with_received_bytes_and_not_with_announced_ones() {
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
async fn packets_out_of_order_or_unrequested_end_the_connection() {
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
async fn a_truncated_answer_is_a_connection_failure() {
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
fn a_truncated_row_is_refused() {
    let (columns, whole) = kinds();
    let read = row(&whole, &columns).unwrap();
    let json = String::from_utf8(json::row(&read, &[], None, 1 << 20, 0).unwrap()).unwrap();
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
fn a_row_whose_json_is_too_long_is_refused() {
    let columns: Arc<[Column]> =
        [Column::new(ColumnType::MYSQL_TYPE_VAR_STRING).with_name(b"c")].into();
    // Each byte of it becomes six.
    let packet = [b"\0\0\xfd\x40\x42\x0f".as_slice(), &[1; 1_000_000]].concat();
    let read = row(&packet, &columns).unwrap();
    for (most, is_taken) in [(5_999_000, false), (6_001_000, true)] {
        let json = json::row(&read, &[], None, most, 0);
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
