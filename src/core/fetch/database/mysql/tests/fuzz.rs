//! Rows in the protocol's own bytes, written here by hand and read as what they are; and whole answers, damaged.

use std::collections::HashMap;

use serde_json::json;
use serde_json::value::RawValue;

use super::*;
use crate::fuzz::{Random, damaged, each, memory};

/// A value of a column: how it is described, its bytes, and its JSON. `None`: it is null.
struct Cell {
    column: Column,
    bytes: Option<Vec<u8>>,
    json: String,
}

/// Text with its length before it.
fn counted(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u64;
    let head = match length {
        0..=250 => vec![length as u8],
        251..=0xFFFF => [&[0xfc][..], &(length as u16).to_le_bytes()].concat(),
        _ => [&[0xfd][..], &length.to_le_bytes()[..3]].concat(),
    };
    [&head, bytes].concat()
}

fn cell(random: &mut Random, name: &str) -> Cell {
    const UTF8: u16 = 45;
    const BINARY: u16 = 63;
    use ColumnType as Kind;
    let number = random.edge();
    let unsigned = random.percent(50);
    let whole = |kind, width: usize| {
        let bytes = number.to_le_bytes()[..width].to_vec();
        let bits = 64 - width as u32 * 8;
        let json = match unsigned {
            true => (number << bits >> bits).to_string(),
            false => ((number << bits) as i64 >> bits).to_string(),
        };
        (kind, BINARY, bytes, json)
    };
    let text = |text: &str| serde_json::to_string(text).unwrap();
    let hex = |bytes: &[u8]| {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        text(&format!("\\x{digits}"))
    };
    let (year, month, day) = (
        random.between(1, 9_999),
        random.between(1, 12),
        random.between(1, 28),
    );
    let clock = [
        random.below(24) as u8,
        random.below(60) as u8,
        random.below(60) as u8,
    ];
    let micros = random.pick(&[0, 1, 500_000, 999_999]) as u32;
    let day_bytes = [&(year as u16).to_le_bytes()[..], &[month as u8, day as u8]].concat();
    let date = format!("{year:04}-{month:02}-{day:02}");
    let fraction = match micros {
        0 => String::new(),
        micros => format!(".{micros:06}").trim_end_matches('0').to_owned(),
    };
    let [hour, minute, second] = clock;
    let time = format!("{hour:02}:{minute:02}:{second:02}{fraction}");
    let length = random.few(400);
    let (kind, set, bytes, json) = match random.below(14) {
        0 => whole(Kind::MYSQL_TYPE_TINY, 1),
        1 => whole(Kind::MYSQL_TYPE_SHORT, 2),
        2 => whole(Kind::MYSQL_TYPE_LONG, 4),
        3 => whole(Kind::MYSQL_TYPE_LONGLONG, 8),
        4 => {
            let number = f64::from_bits(number);
            let number = if number.is_finite() { number } else { 0.5 };
            (
                Kind::MYSQL_TYPE_DOUBLE,
                BINARY,
                number.to_le_bytes().to_vec(),
                json!(number).to_string(),
            )
        }
        5 => {
            let number = f32::from_bits(number as u32);
            let number = if number.is_finite() { number } else { 0.5 };
            (
                Kind::MYSQL_TYPE_FLOAT,
                BINARY,
                number.to_le_bytes().to_vec(),
                serde_json::to_string(&number).unwrap(),
            )
        }
        6 => {
            let words = random.text(300);
            (
                Kind::MYSQL_TYPE_VAR_STRING,
                UTF8,
                counted(words.as_bytes()),
                text(&words),
            )
        }
        7 => {
            let bytes = random.bytes(length);
            (Kind::MYSQL_TYPE_BLOB, BINARY, counted(&bytes), hex(&bytes))
        }
        8 => {
            let (before, behind) = (
                random.pick(&["0", "7", "123456789012345678901234567890"]),
                random.pick(&["", ".5", ".00"]),
            );
            let sign = random.pick(&["", "-"]);
            let zeros = random.pick(&["", "000"]);
            let padded = format!("{sign}{zeros}{before}{behind}");
            (
                Kind::MYSQL_TYPE_NEWDECIMAL,
                BINARY,
                counted(padded.as_bytes()),
                format!("{sign}{before}{behind}"),
            )
        }
        9 => {
            let value = json!({"a": [random.text(5), 1.5, null]}).to_string();
            (
                Kind::MYSQL_TYPE_JSON,
                BINARY,
                counted(value.as_bytes()),
                value,
            )
        }
        10 => (
            Kind::MYSQL_TYPE_DATE,
            BINARY,
            [&[4][..], &day_bytes].concat(),
            text(&date),
        ),
        11 | 12 => {
            let is_utc = random.percent(50);
            let kind = if is_utc {
                Kind::MYSQL_TYPE_TIMESTAMP
            } else {
                Kind::MYSQL_TYPE_DATETIME
            };
            let bytes = [&[11][..], &day_bytes, &clock, &micros.to_le_bytes()].concat();
            (
                kind,
                BINARY,
                bytes,
                text(&format!(
                    "{date}T{time}{}",
                    if is_utc { "+00:00" } else { "" }
                )),
            )
        }
        _ => {
            let days = random.few(40) as u32;
            let is_negative = random.percent(40);
            let bytes = [
                &[12, is_negative.into()][..],
                &days.to_le_bytes(),
                &clock,
                &micros.to_le_bytes(),
            ]
            .concat();
            let hours = days * 24 + u32::from(hour);
            let sign = if is_negative { "-" } else { "" };
            (
                Kind::MYSQL_TYPE_TIME,
                BINARY,
                bytes,
                text(&format!(
                    "{sign}{hours:02}:{minute:02}:{second:02}{fraction}"
                )),
            )
        }
    };
    let mut flags = if unsigned {
        ColumnFlags::UNSIGNED_FLAG
    } else {
        ColumnFlags::empty()
    };
    if set == BINARY {
        flags |= ColumnFlags::BINARY_FLAG;
    }
    let column = Column::new(kind)
        .with_name(name.as_bytes())
        .with_flags(flags)
        .with_character_set(set);
    match random.percent(15) {
        true => Cell {
            column,
            bytes: None,
            json: "null".to_owned(),
        },
        false => Cell {
            column,
            bytes: Some(bytes),
            json,
        },
    }
}

fn cells(random: &mut Random) -> Vec<Cell> {
    (0..random.between(1, 20))
        .map(|at| cell(random, &format!("c{at}")))
        .collect()
}

/// A row as the server writes it.
fn packet(cells: &[Cell]) -> Vec<u8> {
    let mut nulls = vec![0_u8; (cells.len() + 9) / 8];
    for (at, cell) in cells.iter().enumerate() {
        if cell.bytes.is_none() {
            nulls[(at + 2) / 8] |= 1 << ((at + 2) % 8);
        }
    }
    let values: Vec<&[u8]> = cells
        .iter()
        .filter_map(|cell| cell.bytes.as_deref())
        .collect();
    [&[0][..], &nulls, &values.concat()].concat()
}

/// How a server describes a column. By hand: the library writes the two numbers behind the names the wrong way round.
fn described(made: &Column) -> Vec<u8> {
    let names = [b"def".as_slice(), b"", b"", b"", made.name_ref(), b""];
    let names: Vec<Vec<u8>> = names.into_iter().map(counted).collect();
    let head = [
        &names.concat()[..],
        &[12],
        &made.character_set().to_le_bytes(),
        &[0; 4],
    ]
    .concat();
    let flags = made.flags().bits().to_le_bytes();
    [&head[..], &[made.column_type() as u8], &flags, &[0; 3]].concat()
}

fn columns(cells: &[Cell]) -> Arc<[Column]> {
    // Through their own bytes, as a server describes them.
    cells
        .iter()
        .map(|cell| column(&described(&cell.column)).unwrap())
        .collect()
}

#[test]
fn every_row_is_read_with_its_values() {
    each("rows of MySQL", |random| {
        let cells = cells(random);
        let (columns, packet) = (columns(&cells), packet(&cells));
        let read = row(&packet, &columns).unwrap();
        let json = json::row(&read, &[], None, MEGABYTE, 0).unwrap();
        let fields: HashMap<String, &RawValue> = serde_json::from_slice(&json).unwrap();
        assert_eq!(fields.len(), cells.len());
        for (at, cell) in cells.iter().enumerate() {
            let came = fields[&format!("c{at}")].get();
            let (kind, flags) = (cell.column.column_type(), cell.column.flags());
            assert_eq!(came, cell.json, "{kind:?} {flags:?}");
            // What the next batch is asked for by is null where the column is.
            let told = json::value_at(&read, at);
            assert!(
                told.is_some_and(|told| told.is_some() == cell.bytes.is_some())
                    || cell.json.starts_with("\"\\\\x"),
                "{came}"
            );
        }
        // Of no more than there may be, whatever it takes.
        let most = random.below(json.len() + 10);
        match json::row(&read, &[], None, most, 0) {
            Ok(shorter) => assert_eq!(shorter, json),
            Err(failure) => assert!(failure.code == Code::ResponseTooLarge && most < json.len()),
        }
        // Cut short it is none.
        let length = random.below(packet.len());
        if let Ok(cut) = row(&packet[..length], &columns) {
            panic!("{cut:?} of {length} bytes of {}", packet.len());
        }
    });
}

#[test]
fn a_damaged_row_is_another_row_or_a_failure() {
    each("damaged rows of MySQL", |random| {
        let (cells, others) = (cells(random), cells(random));
        let columns = columns(&cells);
        let (sound, other) = (packet(&cells), packet(&others));
        let packet = damaged(random, &sound, &other);
        let zone = random.pick(&[
            None,
            Some(chrono_tz::Europe::Berlin),
            Some(chrono_tz::Pacific::Apia),
        ]);
        let most = 20 * packet.len() + 60 * 1024;
        memory::within(most, || {
            let Ok(read) = row(&packet, &columns) else {
                return;
            };
            if let Ok(json) = json::row(&read, &["c1".to_owned()], zone, MEGABYTE, 0) {
                assert!(
                    serde_json::from_slice::<&RawValue>(&json).is_ok(),
                    "{}",
                    String::from_utf8_lossy(&json)
                );
            }
            for at in 0..cells.len() {
                let _ = json::value_at(&read, at);
            }
        });
        let described = described(&cells[0].column);
        let _ = column(&damaged(random, &described, &packet));
    });
}

/// The packets of one answer, as they go over the line.
fn answer(packets: &[Vec<u8>]) -> Vec<u8> {
    let packet = |(number, body): (u8, &Vec<u8>)| {
        let mut head = (body.len() as u32).to_le_bytes();
        head[3] = number;
        [&head[..], body].concat()
    };
    (1..).zip(packets).flat_map(packet).collect()
}

#[test]
fn any_answer_is_rows_or_a_failure() {
    each("answers of MySQL", |random| {
        let row_of = cells(random);
        let count = row_of.len();
        let described: Vec<Vec<u8>> = row_of
            .iter()
            .map(|cell| self::described(&cell.column))
            .collect();
        let head = [&b"\0\x01\0\0\0"[..], &(count as u16).to_le_bytes(), &[0; 5]].concat();
        let end = END.to_vec();
        let prepared = [vec![head], described.clone(), vec![end.clone()]].concat();
        let rows = random.few(5);
        let executed = [
            vec![vec![count as u8]],
            described,
            vec![end.clone()],
            vec![packet(&row_of); rows],
            vec![end],
        ]
        .concat();
        let mut answers = [answer(&prepared), answer(&executed)];
        let is_sound = random.percent(20);
        if !is_sound {
            let which = random.below(2);
            let other = answers[1 - which].clone();
            answers[which] = damaged(random, &answers[which], &other);
        }
        let total: usize = answers.iter().map(Vec::len).sum();
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let came = memory::within(2 * MEGABYTE + 100 * total, || {
            runtime.block_on(async {
                let (ours, others) = duplex(MEGABYTE);
                let mut wire = Wire::new(Box::new(ours), MEGABYTE);
                tokio::spawn(async move {
                    let (mut reader, mut writer) = tokio::io::split(others);
                    let mut asked = [0; 4096];
                    for answer in answers {
                        // What answers nothing would be another failure.
                        if reader.read(&mut asked).await.unwrap_or(0) == 0
                            || writer.write_all(&answer).await.is_err()
                        {
                            return;
                        }
                    }
                    let _ = writer.shutdown().await;
                });
                let reading = async {
                    let statement = wire.prepare("SELECT 1", 0).await?;
                    let columns = wire.execute(&statement, &[]).await?;
                    let mut came = 0;
                    while let Some(row) = wire.row(&columns).await? {
                        let _ = json::row(&row, &[], None, MEGABYTE, 0)?;
                        came += 1;
                    }
                    Ok::<_, Failure>(came)
                };
                // What was announced and does not come is waited for, and not for ever.
                timeout(Duration::from_secs(60), reading)
                    .await
                    .unwrap_or_else(|_| Err(super::super::wire::strange()))
            })
        });
        match came {
            Ok(came) => assert!(!is_sound || came == rows),
            Err(failure) => {
                assert!(!is_sound, "{failure}");
                // Words of ours alone.
                assert!(
                    failure.message.is_ascii() && failure.message.len() < 200,
                    "{failure}"
                );
            }
        }
    });
}

#[test]
fn any_greeting_ends_in_a_login_or_a_failure() {
    each("greetings of MySQL", |random| {
        let way = random.pick(&[
            "mysql_native_password",
            "caching_sha2_password",
            "client_ed25519",
            "mysql_clear_password",
            "sha256_password",
            "dialog",
        ]);
        let greeting = hello(way);
        let other = hello("mysql_old_password");
        let greeting = match random.percent(70) {
            true => damaged(random, &greeting, &other),
            false => greeting,
        };
        let switch = [b"\xfe", way.as_bytes(), b"\0", NONCE, b"\0"].concat();
        let replies: Vec<Vec<u8>> = vec![
            OK.to_vec(),
            b"\x01\x03".to_vec(),
            b"\x01\x04".to_vec(),
            switch.clone(),
            b"\xfe".to_vec(),
            b"\xff\x15\x04#28000no".to_vec(),
        ];
        let replies: Vec<Vec<u8>> = (0..random.few(4))
            .map(|_| {
                let reply = random.pick(&replies);
                if random.percent(40) {
                    damaged(random, &reply, &switch)
                } else {
                    reply
                }
            })
            .collect();
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let seen = memory::within(4 * MEGABYTE, || {
            runtime.block_on(async {
                let (ours, others) = duplex(MEGABYTE);
                let told = tokio::spawn(async move {
                    let mut other = Other(others);
                    other.send(0, &greeting).await;
                    let mut told = Vec::new();
                    let mut asked = [0; 4096];
                    let mut number = 0;
                    for reply in replies {
                        let count = other.0.read(&mut asked).await.unwrap_or(0);
                        told.extend_from_slice(&asked[..count]);
                        // Whatever number comes next.
                        number = asked.get(3).copied().unwrap_or(number) + 1;
                        other.send(number, &reply).await;
                    }
                    let _ = timeout(Duration::from_secs(1), other.0.read(&mut asked))
                        .await
                        .map(|count| told.extend_from_slice(&asked[..count.unwrap_or(0)]));
                    told
                });
                let wire = Wire::new(Box::new(ours), MEGABYTE);
                let entered = timeout(
                    Duration::from_secs(60),
                    login(wire, &server(Tls::Off), MEGABYTE),
                )
                .await;
                drop(entered);
                told.await.unwrap()
            })
        });
        // Outside TLS the password is never told in clear text.
        assert!(
            memchr::memmem::find(&seen, PASSWORD.as_bytes()).is_none(),
            "{way}"
        );
    });
}
