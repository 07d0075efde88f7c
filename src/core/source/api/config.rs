//! What templates see as `config`: the connector's config, and over it its credentials.
//!
//! Credentials are looked at where they are: one is copied when a template asks for it by name, and the copy goes
//! with the request that it was made for. Names and paths, which stand in messages and in record ids, are settled
//! once, and may not depend on credentials ([`Settled`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Object, Serde, Value as Template};
use serde_json::{Map, Value};

use crate::secret::Credentials;

#[derive(Clone)]
pub struct Config {
    /// config without the manifest.
    plain: Template,
    credentials: Credentials,
}

impl Config {
    pub fn new(plain: Map<String, Value>, credentials: Credentials) -> Config {
        Config {
            plain: Template::from(Serde(plain)),
            credentials,
        }
    }

    /// Everything; `start_date` stands in where neither config nor credentials have one.
    pub fn seen(&self, start_date: Option<String>) -> Template {
        Template::from_object(Seen {
            config: self.clone(),
            start_date: start_date.map(Template::from),
            copied: Mutex::default(),
        })
    }

    pub fn settled(&self) -> Settled {
        let context = |config| Template::from_pairs([("config", config)]);
        Settled {
            all: context(self.seen(None)),
            plain: context(self.plain.clone()),
        }
    }
}

/// What templates see that does not change while the connector is open.
#[derive(Clone)]
pub struct Settled {
    pub all: Template,
    /// Config without credentials.
    pub plain: Template,
}

/// `config` for the templates of one request.
struct Seen {
    config: Config,
    start_date: Option<Template>,
    /// Every credential is copied once: a template that names one a thousand times must not hold it that often.
    copied: Mutex<BTreeMap<String, Template>>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("config")
    }
}

impl Object for Seen {
    fn get_value(self: &Arc<Self>, key: &Template) -> Option<Template> {
        let name = key.as_str()?;
        if let Some(value) = self.config.credentials.fields().get(name) {
            let mut copied = self.copied.lock().unwrap_or_else(PoisonError::into_inner);
            let copy = copied
                .entry(name.to_owned())
                .or_insert_with(|| Template::from(Serde(value)));
            return Some(copy.clone());
        }
        let plain = self.config.plain.get_attr(name).ok();
        let plain = plain.filter(|value| !value.is_undefined());
        plain.or_else(|| self.start_date.clone().filter(|_| name == "start_date"))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let plain = self.config.plain.try_iter().into_iter().flatten();
        let credentials = self.config.credentials.fields().keys();
        let start_date = self.start_date.iter().map(|_| "start_date".into());
        let names: BTreeSet<Template> = plain
            .chain(credentials.map(|name| name.as_str().into()))
            .chain(start_date)
            .collect();
        Enumerator::Values(names.into_iter().collect())
    }

    /// Renders nothing of config: as text, it would be every credential at once.
    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn templates_see_credentials_over_config_and_a_start_date_under_both() {
        let seen = |config: Value, credentials: Value| {
            let config = config.as_object().cloned().unwrap_or_default();
            let config = Config::new(config, credentials.into());
            let seen = config.seen(Some("2026-01-01".to_owned()));
            serde_json::to_value(seen).unwrap()
        };
        assert_eq!(
            seen(json!({"a": 1, "b": 2}), json!({"b": {"c": [3]}, "d": "x"})),
            json!({"a": 1, "b": {"c": [3]}, "d": "x", "start_date": "2026-01-01"})
        );
        for (config, credentials) in [
            (json!({"start_date": null}), json!({})),
            (json!({}), json!({"start_date": null})),
        ] {
            assert_eq!(seen(config, credentials), json!({"start_date": null}));
        }
        assert_eq!(
            seen(json!({}), json!("no object")),
            json!({"start_date": "2026-01-01"})
        );
    }

    #[test]
    fn a_credential_that_is_named_often_is_copied_once() {
        let credentials = json!({"key": "k".repeat(1000)});
        let seen = Config::new(Map::new(), credentials.into()).seen(None);
        let [one, two] = [(); 2].map(|()| seen.get_attr("key").unwrap());
        let address = |value: &Template| value.as_str().unwrap().as_ptr();
        assert_eq!(address(&one), address(&two));
    }

    #[test]
    fn config_as_a_whole_does_not_become_text() {
        let credentials = json!({"key": "sk_test_not_a_real_key"});
        let config = Config::new(Map::new(), credentials.into());
        let (seen, settled) = (config.seen(None), config.settled());
        assert_eq!(format!("{seen} {seen:?}"), "config config");
        assert!(!format!("{:?} {}", settled.all, settled.all).contains("sk_test"));
    }
}
