//! Reads the settings in a connector's row; every error names its key.
//!
//! A credential that is missing is another kind of failure than one that is wrong: rows are made before their
//! secrets are there, and a person adds them field by field.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use url::Url;

use super::api::join;
use super::table::Row;
use super::window::Since;
use super::{Definition, Field, Stream};
use crate::error::{Code, Failure};
use crate::json::RecordLimits;
use crate::secret::{Credentials, Secret};
use crate::template::parse_any;

/// Keys of config that every vendor has.
pub const STREAMS: Field = Field {
    name: "streams",
    meaning: "list of the streams to read",
};
pub const START_DATE: Field = Field {
    name: "start_date",
    meaning: "how far back the first sync reads, ISO 8601; default: 30 days",
};
pub const PACE: Field = Field {
    name: "requests_per_second",
    meaning: "rate limit: most requests to the account per second, on average; default: the vendor's own limit",
};

/// Keys of config that every type has that is asked for its data.
pub const PARALLEL_STREAMS: Field = Field {
    name: "parallel_streams",
    meaning: "how many streams are read side by side, 1 to 8, within the account's rate limit; default: 1",
};
pub const TRACE: Field = Field {
    name: "trace",
    meaning: "true: the last requests of every run are kept in sync_requests; default: only those of runs that failed",
};
pub const OF_RUNS: &[Field] = &[PARALLEL_STREAMS, TRACE];

/// Keys of config that every type has. They say nothing about what is read.
pub const RAW_RETENTION: Field = Field {
    name: "raw_retention",
    meaning: "how long the JSON of a record is kept, such as \"90 days\", or one for each stream; default: connector_service.raw_retention",
};
pub const OF_ALL: &[Field] = &[RAW_RETENTION];

/// More: one connector takes the connections and the memory that all share.
const MOST_PARALLEL: f64 = 8.0;

/// What config says of the runs of a connector, whatever its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSettings {
    pub parallel_streams: usize,
    pub trace: bool,
}

impl RunSettings {
    pub fn read(config: &Value) -> Result<RunSettings, Failure> {
        let given = |field: Field| config.get(field.name).filter(|value| !value.is_null());
        let parallel_streams = match given(PARALLEL_STREAMS) {
            None => 1,
            Some(value) => value
                .as_f64()
                .filter(|number| (1.0..=MOST_PARALLEL).contains(number) && number.fract() == 0.0)
                .map(|number| number as usize)
                .ok_or_else(|| {
                    wrong("config's \"parallel_streams\" has to be a whole number from 1 to 8")
                })?,
        };
        let trace = match given(TRACE) {
            None => false,
            Some(Value::Bool(trace)) => *trace,
            Some(_) => return Err(wrong("config's \"trace\" has to be true or false")),
        };
        Ok(RunSettings {
            parallel_streams,
            trace,
        })
    }
}

pub struct Settings {
    config: Map<String, Value>,
    credentials: Credentials,
    pub limits: RecordLimits,
}

pub fn wrong(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidConfig, message)
}

impl Settings {
    /// Of a type that is asked for its data.
    pub fn new(definition: &Definition, known: &[Field]) -> Result<Settings, Failure> {
        RunSettings::read(&definition.config)?;
        Settings::pushed(definition, &[known, OF_RUNS].concat())
    }

    /// Of a type whose data is pushed or uploaded.
    ///
    /// Refuses a key of config that is not known: one that is misspelt would read other data than its author meant.
    pub fn pushed(definition: &Definition, known: &[Field]) -> Result<Settings, Failure> {
        let config = definition.config.as_object().cloned().unwrap_or_default();
        let is_known = |key: &&String| {
            known
                .iter()
                .chain(OF_ALL)
                .any(|field| field.name == key.as_str())
        };
        if let Some(unknown) = config.keys().find(|key| !is_known(key)) {
            let known: Vec<&str> = known.iter().chain(OF_ALL).map(|field| field.name).collect();
            let known = known.join(", ");
            return Err(wrong(format!(
                "config has the unknown key \"{unknown}\"; known keys: {known}"
            )));
        }
        Ok(Settings {
            config,
            credentials: definition.credentials.clone(),
            limits: definition.limits,
        })
    }

    pub fn value(&self, key: &str) -> Option<&Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, Failure> {
        let text = |value: &'_ Value| {
            value
                .as_str()
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .is_none()
        };
        match self.value(key) {
            None => Ok(None),
            Some(value) if text(value) => Err(wrong(format!("config's \"{key}\" is not text"))),
            Some(value) => Ok(value.as_str().map(str::trim)),
        }
    }

    pub fn truth(&self, key: &str) -> Result<bool, Failure> {
        match self.value(key) {
            None => Ok(false),
            Some(Value::Bool(truth)) => Ok(*truth),
            Some(_) => Err(wrong(format!("config's \"{key}\" has to be true or false"))),
        }
    }

    /// A number between the two bounds.
    pub fn number(&self, key: &str, least: f64, most: f64) -> Result<Option<f64>, Failure> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let number = value
            .as_f64()
            .filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| {
            wrong(format!(
                "config's \"{key}\" has to be a number from {least} to {most}"
            ))
        })
    }

    /// A credential by the first of its names that is there; a number is taken as its text.
    pub fn secret(&self, names: &[&str]) -> Option<Secret> {
        let found = names
            .iter()
            .find_map(|name| match self.credentials.fields().get(*name)? {
                Value::String(text) => Some(text.trim().as_bytes().to_vec()),
                Value::Number(number) => Some(number.to_string().into_bytes()),
                _ => None,
            });
        found.filter(|bytes| !bytes.is_empty()).map(Secret::new)
    }

    pub fn need(&self, names: &[&str]) -> Result<Secret, Failure> {
        self.secret(names)
            .ok_or_else(|| missing(names.first().copied().unwrap_or_default()))
    }

    /// A value that is no secret, such as a host or a user name: from config, or else from credentials.
    pub fn place(&self, names: &[&str]) -> Result<Option<String>, Failure> {
        for name in names {
            if let Some(text) = self.text(name)? {
                return Ok(Some(text.to_owned()));
            }
        }
        let text = self.secret(names);
        Ok(text.map(|text| String::from_utf8_lossy(text.expose()).into_owned()))
    }

    /// The vendor's base URL: config's `base_url`, or the default.
    pub fn base(&self, default: &str) -> Result<Url, Failure> {
        self.url("base_url").map(|url| match url {
            Some(url) => Ok(url),
            None => join(default, ""),
        })?
    }

    pub fn url(&self, key: &str) -> Result<Option<Url>, Failure> {
        let url = self.text(key)?.map(|text| join(text, ""));
        url.transpose()
            .map_err(|_| wrong(format!("config's \"{key}\" is not an http or https URL")))
    }

    /// The shortest time between two requests in the long run.
    pub fn pace(&self, usual: Duration) -> Result<Duration, Failure> {
        let rate = self.number("requests_per_second", 0.01, 1_000.0)?;
        Ok(rate.map_or(usual, |rate| Duration::from_secs_f64(1.0 / rate)))
    }

    pub fn start_date(&self) -> Result<Option<DateTime<Utc>>, Failure> {
        let Some(text) = self.text("start_date")? else {
            return Ok(None);
        };
        parse_any(text).map(Some).ok_or_else(|| {
            wrong(
                "config's \"start_date\" is not a date such as 2026-01-31 or 2026-01-31T00:00:00Z",
            )
        })
    }

    /// Where passes begin; `read` parses the vendor's timestamps.
    pub fn since(
        &self,
        lookback: TimeDelta,
        read: fn(&str) -> Option<DateTime<Utc>>,
    ) -> Result<Since, Failure> {
        Ok(Since {
            start_date: self.start_date()?,
            lookback,
            read,
        })
    }

    /// Which streams are read: those that config names, or the default ones.
    pub fn streams<R: Row>(&self) -> Result<Vec<Stream>, Failure> {
        let all = R::ROWS;
        let Some(value) = self.value("streams") else {
            let default = all.iter().filter(|row| row.about().default);
            return Ok(default.map(Row::stream).collect());
        };
        let not_a_list = || wrong("config's \"streams\" has to be a list of names");
        let mut chosen: Vec<Stream> = Vec::new();
        for name in value.as_array().ok_or_else(not_a_list)? {
            let name = name.as_str().ok_or_else(not_a_list)?;
            let Some(row) = all.iter().find(|row| row.about().name == name) else {
                let all: Vec<&str> = all.iter().map(|row| row.about().name).collect();
                let all = all.join(", ");
                return Err(wrong(format!(
                    "config's \"streams\" names \"{name}\", which does not exist; known streams: {all}"
                )));
            };
            let stream = row.stream();
            if !chosen.contains(&stream) {
                chosen.push(stream);
            }
        }
        if chosen.is_empty() {
            return Err(wrong("config's \"streams\" is empty"));
        }
        Ok(chosen)
    }

    /// Whether config names the streams: then one that is missing at the vendor is a failure.
    pub fn is_chosen(&self) -> bool {
        self.value("streams").is_some()
    }
}

/// The address of a site that is given as a name, as a host, or as a whole URL; `domain` is what a name lacks.
pub fn site(text: &str, domain: &str) -> Result<Url, Failure> {
    let text = text.trim_end_matches('/');
    let url = if text.contains("://") {
        text.to_owned()
    } else if text.contains('.') {
        format!("https://{text}")
    } else {
        format!("https://{text}{domain}")
    };
    join(&url, "")
}

pub fn missing(name: &str) -> Failure {
    let message = format!("credentials have no \"{name}\"");
    Failure::new(Code::CredentialsMissing, message)
}
