//! `webhook`: any JSON that is pushed, signed with a secret that both sides know.
//!
//! Nobody is asked for anything, so what is pushed is all there is. Where config says what identifies a record, a later
//! state of it takes the place of an earlier one; otherwise each content is an event of its own, and the same content
//! once more is the same event. That is also what protects from a delivery that is sent again by somebody else where the
//! sender signs no time.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::hook::signature::{self, Encoding, Secrets};
use super::hook::{self, Delivery, Hook, Pushed, Refusal, field};
use super::settings::{Settings, missing, wrong};
use super::window::AHEAD;
use super::{About, Definition, Field, Position, Reader, Request, Response, Source};
use crate::error::{Code, Failure};
use crate::json::RecordLimits;
use crate::record::Page;

pub struct Webhook;

const SECRET: &str = "secret";

const CREDENTIALS: &[Field] = &[Field {
    name: SECRET,
    meaning: "the secret that the sender signs with; a list of both while the secret is rotated",
}];

const CONFIG: &[Field] = &[
    Field {
        name: "stream",
        meaning: "stream name of the records; default: \"events\"",
    },
    Field {
        name: "signature_header",
        meaning: "header with the signature, an HMAC-SHA256 of the body; default: \"x-signature\"",
    },
    Field {
        name: "signature_encoding",
        meaning: "\"hex\" or \"base64\"; default: \"hex\"",
    },
    Field {
        name: "signature_prefix",
        meaning: "text before the signature in its header, such as \"sha256=\"; default: none",
    },
    Field {
        name: "timestamp_header",
        meaning: "header with the time in Unix seconds, if the signature covers the time, a dot and the body; default: none",
    },
    Field {
        name: "tolerance",
        meaning: "how many seconds that time may differ from the server's clock; default: 300",
    },
    Field {
        name: "records",
        meaning: "dotted path to the record or the list of records; default: the whole body",
    },
    Field {
        name: "key",
        meaning: "dotted path of the record's key, or a list of paths: a later record with the same key updates the earlier one; default: a hash of the record",
    },
    Field {
        name: "updated_at",
        meaning: "dotted path of the record's time, ISO 8601 or Unix seconds or milliseconds: an older record then never replaces a newer one",
    },
];

impl Source for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn about(&self) -> About {
        About {
            kind: "any webhook",
            streams: Vec::new(),
            credentials: CREDENTIALS,
            config: CONFIG,
            frequency: "manual",
        }
    }

    fn open(&self, connector: &Definition) -> Result<Box<dyn Reader>, Failure> {
        opened(connector)?.ok_or_else(|| missing(SECRET))?;
        Ok(Box::new(Nothing))
    }

    fn is_asked(&self) -> bool {
        false
    }

    fn hook(&self, connector: &Definition) -> Result<Option<Box<dyn Hook>>, Failure> {
        let opened = opened(connector)?;
        Ok(opened.map(|hook| Box::new(hook) as Box<dyn Hook>))
    }
}

struct WebhookHook {
    secrets: Secrets,
    header: String,
    encoding: Encoding,
    prefix: String,
    /// Its header, and how many seconds it may be from ours.
    timestamp: Option<(String, u64)>,
    stream: String,
    records: Vec<String>,
    key: Vec<Vec<String>>,
    /// Empty: it is not told.
    updated_at: Vec<String>,
    limits: RecordLimits,
}

/// Longest name of a header, prefix of a signature, and name of a stream. Longer: nothing that anybody sends.
const LONGEST_NAME: usize = 200;
/// Most keys of a path, and paths of a key. More: each is a look at every record.
const MOST_STEPS: usize = 20;

fn opened(connector: &Definition) -> Result<Option<WebhookHook>, Failure> {
    let settings = Settings::pushed(connector, CONFIG)?;
    let encoding = match settings.text("signature_encoding")? {
        None | Some("hex") => Encoding::Hex,
        Some("base64") => Encoding::Base64,
        Some(_) => {
            return Err(wrong(
                "config's \"signature_encoding\" has to be \"hex\" or \"base64\"",
            ));
        }
    };
    let header = header(&settings, "signature_header")?.unwrap_or_else(|| "x-signature".to_owned());
    let tolerance = settings.number("tolerance", 1.0, 86_400.0)?;
    let timestamp = match (self::header(&settings, "timestamp_header")?, tolerance) {
        (None, Some(_)) => {
            return Err(wrong(
                "config has a \"tolerance\", but no \"timestamp_header\" that it applies to",
            ));
        }
        (Some(time), _) if time == header => {
            return Err(wrong(
                "config's \"timestamp_header\" and \"signature_header\" name the same header",
            ));
        }
        (time, tolerance) => {
            let tolerance = tolerance.map_or(signature::TOLERANCE, |seconds| seconds as u64);
            time.map(|time| (time, tolerance))
        }
    };
    let stream = settings.text("stream")?.unwrap_or("events");
    if stream.len() > LONGEST_NAME
        || stream.contains(['/', '#'])
        || stream.chars().any(char::is_control)
    {
        return Err(wrong(format!(
            "config's \"stream\" has a \"/\" or \"#\", or more than {LONGEST_NAME} bytes"
        )));
    }
    let keys = match settings.value("key") {
        None => &[],
        Some(Value::Array(paths)) if (1..=MOST_STEPS).contains(&paths.len()) => paths.as_slice(),
        Some(Value::Array(_)) => {
            return Err(wrong(format!(
                "config's \"key\" has to be a list of 1 to {MOST_STEPS} paths"
            )));
        }
        Some(one) => std::slice::from_ref(one),
    };
    let key: Result<Vec<_>, Failure> = keys.iter().map(|value| path("key", value)).collect();
    let at = |name| settings.value(name).map(|value| path(name, value));
    let hook = WebhookHook {
        header,
        encoding,
        prefix: prefix(&settings)?,
        timestamp,
        stream: stream.to_owned(),
        records: at("records").transpose()?.unwrap_or_default(),
        key: key?,
        updated_at: at("updated_at").transpose()?.unwrap_or_default(),
        limits: connector.limits,
        secrets: match Secrets::read(connector, &[SECRET])? {
            Some(secrets) => secrets,
            None => return Ok(None),
        },
    };
    Ok(Some(hook))
}

fn header(settings: &Settings, key: &str) -> Result<Option<String>, Failure> {
    let Some(name) = settings.text(key)? else {
        return Ok(None);
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
    if name.len() > LONGEST_NAME || !name.bytes().all(is_name) {
        return Err(wrong(format!("config's \"{key}\" is not a header name")));
    }
    Ok(Some(name.to_ascii_lowercase()))
}

/// The prefix as it stands in config: a blank may be a part of it.
fn prefix(settings: &Settings) -> Result<String, Failure> {
    let Some(value) = settings.value("signature_prefix") else {
        return Ok(String::new());
    };
    let text = value.as_str().filter(|text| {
        text.len() <= LONGEST_NAME && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
    });
    text.map(str::to_owned).ok_or_else(|| {
        wrong("config's \"signature_prefix\" has to be ASCII text, such as \"sha256=\"")
    })
}

fn path(key: &str, value: &Value) -> Result<Vec<String>, Failure> {
    let steps = hook::steps(value.as_str().unwrap_or_default());
    // Many lists of records would have no one place where they are counted before they are taken.
    if steps.is_empty() || steps.len() > MOST_STEPS || steps.iter().any(|step| step == "*") {
        return Err(wrong(format!(
            "config's \"{key}\" has to be a path of 1 to {MOST_STEPS} keys, such as \"data.items\""
        )));
    }
    Ok(steps)
}

impl Hook for WebhookHook {
    fn receive(&self, got: &Pushed) -> Result<Delivery, Refusal> {
        let text = got.only(&self.header)?;
        let text = text.strip_prefix(self.prefix.as_bytes());
        let signature = text.and_then(|text| self.encoding.decode(text));
        let signatures = [signature.ok_or(Refusal::Unauthentic)?];
        match &self.timestamp {
            None => self.secrets.check(&[got.body], &signatures)?,
            Some((header, tolerance)) => {
                let text = got.only(header)?;
                let seconds = signature::seconds(text).ok_or(Refusal::Unauthentic)?;
                self.secrets.check(&[text, b".", got.body], &signatures)?;
                signature::check_time(seconds, got.now, *tolerance)?;
            }
        }
        let mut found = hook::read(
            got.text,
            &self.stream,
            &self.records,
            &self.key,
            self.limits,
        )?;
        let mut is_unread = false;
        for record in &mut found.records {
            record.at = self.updated_at(&record.json, got.now);
            is_unread |= record.at.is_none()
                && !self.updated_at.is_empty()
                && field::has_value(&record.json, &self.updated_at);
        }
        let name = |path: &[String]| path.join(".");
        let warning = if !self.key.is_empty() && !found.keyless.is_empty() {
            let key: Vec<String> = self.key.iter().map(|path| name(path)).collect();
            Some(format!(
                "a record came without a value in \"{}\", which config's \"key\" names: it is known by its content, and each change of it is another record",
                key.join("\", \"")
            ))
        } else {
            is_unread.then(|| {
                format!(
                    "a record came whose \"{}\", which config's \"updated_at\" names, cannot be read as a time: it is taken for the latest state",
                    name(&self.updated_at)
                )
            })
        };
        Ok(Delivery {
            warning,
            stream: self.stream.clone(),
            records: found.records,
            rejected: found.rejected,
            are_events: self.key.is_empty(),
            triggers_sync: false,
        })
    }
}

impl WebhookHook {
    /// A time of the far future is taken for now: no state that comes later would ever take its place.
    fn updated_at(&self, json: &[u8], now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let at = field::moment(json, &self.updated_at)?;
        Some(if at.signed_duration_since(now) > AHEAD {
            now
        } else {
            at
        })
    }
}

/// A reader that fetches nothing.
struct Nothing;

impl Reader for Nothing {
    fn request(&self, _: &Position) -> Result<Request, Failure> {
        Err(never_fetched())
    }

    fn page(&self, _: &Position, _: &Response) -> Result<Page, Failure> {
        Err(never_fetched())
    }
}

fn never_fetched() -> Failure {
    Failure::new(
        Code::InvalidConfig,
        "webhooks are received, never requested",
    )
}
