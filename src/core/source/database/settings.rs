//! Reads the settings for a database in a connector's row.

use std::str::FromStr;
use std::time::Duration;

use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::query::without_end;
use super::server::{Make, Server, Tls};
use super::table::{From, Table};
use crate::error::Failure;
use crate::source::Field;
use crate::source::settings::{START_DATE, Settings, missing, wrong};

/// Keys that every kind of database has.
pub const HOST: Field = Field {
    name: "host",
    meaning: "name or address of the server; may be in credentials instead",
};
pub const PORT: Field = Field {
    name: "port",
    meaning: "port; default: the usual one",
};
pub const DATABASE: Field = Field {
    name: "database",
    meaning: "name of the database; may be in credentials instead",
};
pub const USERNAME: Field = Field {
    name: "username",
    meaning: "user who may only read the tables that the streams name",
};
pub const PASSWORD: Field = Field {
    name: "password",
    meaning: "password of the user",
};
pub const TLS: Field = Field {
    name: "tls",
    meaning: "\"verify\" (default), or \"off\" for a host that an administrator has allowed",
};
pub const CA: Field = Field {
    name: "ca",
    meaning: "CA certificates in PEM to trust, instead of the system's",
};
pub const BATCH: Field = Field {
    name: "batch",
    meaning: "most rows of one statement; default: 5000",
};
pub const STATEMENT_TIMEOUT: Field = Field {
    name: "statement_timeout",
    meaning: "seconds that a statement may take; default: 60",
};

pub const CREDENTIALS: &[Field] = &[USERNAME, PASSWORD];

pub const STREAMS: Field = Field {
    name: "streams",
    meaning: "list of {\"name\": ..., \"table\": ... or \"query\": ..., \"key\": [...], \"cursor\": ...}: \"key\" identifies a row; \"cursor\" is the column that grows with each change (without it, every sync reads the whole table and finds deleted rows); \"columns\": [...] reads fewer columns; \"lookback\" is in seconds, or a number for a number cursor; \"deletes\": true also finds deleted rows of a stream with a cursor",
};

pub const CONFIG: &[Field] = &[
    STREAMS,
    HOST,
    PORT,
    DATABASE,
    USERNAME,
    TLS,
    CA,
    BATCH,
    STATEMENT_TIMEOUT,
    START_DATE,
];

/// What a config of MySQL may have: its DATETIME says nothing of a zone, so config can.
pub const MYSQL_CONFIG: &[Field] = &[
    Field {
        name: "time_zone",
        meaning: "time zone of DATETIME columns, by its IANA name: values are stored with their offset; default: without an offset",
    },
    STREAMS,
    HOST,
    PORT,
    DATABASE,
    USERNAME,
    TLS,
    CA,
    BATCH,
    STATEMENT_TIMEOUT,
    START_DATE,
];

const KEYS: [&str; 8] = [
    "name", "table", "query", "columns", "key", "cursor", "lookback", "deletes",
];

pub fn tables(make: Make, settings: &Settings) -> Result<Vec<Table>, Failure> {
    let wrong_list = || {
        wrong(
            "config's \"streams\" has to be a list of objects with \"name\", \"table\" or \"query\", and \"key\"",
        )
    };
    let Some(value) = settings.value("streams") else {
        return Err(wrong(
            "config has no \"streams\"; name the tables or queries to read",
        ));
    };
    let mut tables: Vec<Table> = Vec::new();
    for item in value.as_array().ok_or_else(wrong_list)? {
        let table = table(make, item.as_object().ok_or_else(wrong_list)?)?;
        if tables.iter().any(|other| other.name == table.name) {
            let message = format!(
                "config's \"streams\" has two streams named \"{}\"",
                table.name
            );
            return Err(wrong(message));
        }
        tables.push(table);
    }
    if tables.is_empty() {
        return Err(wrong("config's \"streams\" is empty"));
    }
    Ok(tables)
}

fn table(make: Make, item: &Map<String, Value>) -> Result<Table, Failure> {
    if let Some(key) = item.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let known = KEYS.join(", ");
        let message =
            format!("a stream in config has the unknown key \"{key}\"; known keys: {known}");
        return Err(wrong(message));
    }
    let text = |key: &str| match item.get(key).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.trim().to_owned())),
        Some(_) => Err(wrong(format!(
            "\"{key}\" of a stream in config is not text"
        ))),
    };
    let list = |key: &str| match item.get(key).filter(|value| !value.is_null()) {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<Vec<String>>>()
            .ok_or_else(|| {
                wrong(format!(
                    "\"{key}\" of a stream in config has to be a list of columns"
                ))
            }),
        Some(_) => Err(wrong(format!(
            "\"{key}\" of a stream in config has to be a list of columns"
        ))),
    };
    let from = match (text("table")?, text("query")?) {
        (Some(table), None) => From::Table(table.splitn(2, '.').map(str::to_owned).collect()),
        (None, Some(query)) => match without_end(make, &query) {
            "" => return Err(wrong("a \"query\" of a stream in config is empty")),
            query => From::Query(query.to_owned()),
        },
        _ => {
            return Err(wrong(
                "a stream in config needs either \"table\" or \"query\"",
            ));
        }
    };
    let name = match (text("name")?, &from) {
        (Some(name), _) => name,
        (None, From::Table(parts)) => parts.last().cloned().unwrap_or_default(),
        (None, From::Query(_)) => {
            return Err(wrong(
                "a stream in config with a \"query\" needs a \"name\"",
            ));
        }
    };
    if name.contains('/') || name.len() > 100 {
        return Err(wrong(
            "the \"name\" of a stream in config is too long or contains a \"/\"",
        ));
    }
    let key = list("key")?;
    if key.is_empty() {
        let message = format!(
            "stream \"{name}\" in config has no \"key\"; name the columns that identify a row"
        );
        return Err(wrong(message));
    }
    let cursor = text("cursor")?;
    let mut columns = list("columns")?;
    if !columns.is_empty() {
        let needed = key.iter().chain(cursor.as_ref());
        let lacking: Vec<String> = needed
            .filter(|name| !columns.contains(name))
            .cloned()
            .collect();
        columns.extend(lacking);
    }
    let lookback = match item.get("lookback").filter(|value| !value.is_null()) {
        None => None,
        Some(value) => {
            let number = value
                .as_f64()
                .filter(|number| (0.0..=1e12).contains(number));
            Some(number.ok_or_else(|| {
                wrong("\"lookback\" of a stream in config has to be a number from 0")
            })?)
        }
    };
    Ok(Table {
        name,
        from,
        columns,
        key,
        cursor,
        lookback,
        deletes: match item.get("deletes") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(deletes)) => *deletes,
            Some(_) => {
                let message = "\"deletes\" of a stream in config has to be true or false";
                return Err(wrong(message));
            }
        },
        nested: Vec::new(),
        gone: None,
        optional: false,
    })
}

pub fn server(settings: &Settings, make: Make) -> Result<Server, Failure> {
    let tls = match settings.text("tls")? {
        None | Some("verify") => Tls::Verify {
            ca: settings.text("ca")?.map(str::to_owned),
        },
        Some("off") => Tls::Off,
        Some(_) => return Err(wrong("config's \"tls\" has to be \"verify\" or \"off\"")),
    };
    let port = settings.number("port", 1.0, 65_535.0)?;
    let seconds = settings
        .number("statement_timeout", 1.0, 3_600.0)?
        .unwrap_or(60.0);
    let usual = match make {
        Make::Postgres => 5432,
        Make::MySql => 3306,
    };
    let need = |names: &[&str]| -> Result<String, Failure> {
        let found = settings.place(names)?;
        found.ok_or_else(|| missing(names.first().copied().unwrap_or_default()))
    };
    let zone = settings.text("time_zone")?.map(|name| {
        let unknown = |_| {
            wrong("config's \"time_zone\" has to be the name of a time zone, such as Europe/Berlin")
        };
        Tz::from_str(name).map_err(unknown)
    });
    let server = Server::new(
        make,
        need(&["host", "hostname", "server"])?,
        port.map_or(usual, |port| port as u16),
        need(&["database", "dbname"])?,
        need(&["username", "user"])?,
        settings.secret(&["password"]),
        tls,
        Duration::from_secs_f64(seconds),
    )?;
    Ok(Server {
        zone: zone.transpose()?,
        ..server
    })
}
