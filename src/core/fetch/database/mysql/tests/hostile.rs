//! Whatever comes: no bytes make it panic.

use super::letting_in::{pem, sealed_for};
use super::*;

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
async fn mysql_and_mariadb_each_get_their_own_statement_timeout() {
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
            let _ = json::row(&row, &["c".to_owned()], zone, 1 << 20, 0);
            let _ = json::row(&row, &[], zone, 1 << 20, 1);
            let _ = json::told(&row, 2);
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
