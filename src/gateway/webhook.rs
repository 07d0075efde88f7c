//! Webhooks: their signature is checked, they are stored, and they are answered after COMMIT.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use chrono::{DateTime, Utc};
use connector_service_core::record::{Reason, Record, Rejected};
use connector_service_core::secret::{Credentials, Keyring, Place, open_credentials};
use connector_service_core::serve::{Answer, Ask, Asked, Webhook};
use connector_service_core::source::hook::{self, Delivery, Hook, Pushed, Refusal};
use connector_service_core::source::{self, Definition};
use uuid::Uuid;

use crate::error::{Error, Result, counted};
use crate::store::webhook::{self, Target};
use crate::store::{key, limited, tx};
use crate::{activity, guc, trouble};

/// When a vendor should push again to a connector that a person has paused.
const WHILE_PAUSED: u32 = 60 * 60;
/// When a vendor should push again after a failure on our side.
const AFTER_TROUBLE: u32 = 30;

/// Most bytes of the definitions of opened connectors. More: secrets of more connectors in memory. Fewer: connectors are opened
/// again and again.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

const COULD_NOT_LOOK_UP: &str = "gateway could not look up the connector of a webhook";
const COULD_NOT_STORE: &str = "gateway could not store a webhook";

/// Connectors that were opened, so that each is opened once and not for each event.
#[derive(Default)]
pub struct Hooks {
    open: HashMap<Uuid, Opened>,
    bytes: usize,
    hasher: RandomState,
}

struct Opened {
    /// A hash of the connector's type, config and sealed credentials.
    made_of: u64,
    bytes: usize,
    is_used: bool,
    hook: Box<dyn Hook>,
}

impl Hooks {
    /// Closes connectors that were not used since the last call.
    pub fn close_idle(&mut self) {
        self.open
            .retain(|_, opened| std::mem::take(&mut opened.is_used));
        self.bytes = self.open.values().map(|opened| opened.bytes).sum();
    }

    fn open(&mut self, target: &Target, keys: Option<&Keyring>) -> Option<&dyn Hook> {
        let texts = [&target.source, &target.config, &target.credentials];
        let made_of = self.hasher.hash_one(texts);
        let is_same = |opened: &Opened| opened.made_of == made_of;
        if !self.open.get(&target.connector).is_some_and(is_same) {
            let opened = Opened {
                hook: open(target, keys)?,
                made_of,
                bytes: texts.iter().map(|text| text.len()).sum(),
                is_used: true,
            };
            if self.bytes + opened.bytes > KEPT_BYTES {
                self.open.clear();
                self.bytes = 0;
            }
            self.bytes += opened.bytes;
            self.open.insert(target.connector, opened);
        }
        let opened = self.open.get_mut(&target.connector)?;
        opened.is_used = true;
        Some(&*opened.hook)
    }
}

/// Checks and stores webhooks together. A 200 is sent after COMMIT, and so is every refusal, so that the time of an answer
/// tells nothing about a connector.
pub fn store_pushed(hooks: &mut Hooks, pushed: Vec<Asked>) {
    if pushed.is_empty() {
        return;
    }
    let _doing = activity::doing(format!(
        "storing {}",
        counted(pushed.len() as u64, "webhook")
    ));
    let ids = pushed.iter().filter_map(webhook_of);
    let ids = ids.map(|webhook| webhook.connector).collect();
    let known = limited(guc::gateway_timeout(), |db| {
        let (targets, now) = webhook::targets(db, ids)?;
        // If the key file cannot be read this fails: a sender with a valid signature must not get the answer "not authentic".
        Ok((targets, now, key::load(db)?))
    });
    let (targets, now, keys) = match known {
        Ok(known) => {
            trouble::succeeded(COULD_NOT_LOOK_UP);
            known
        }
        Err(error) => {
            trouble::failed(COULD_NOT_LOOK_UP, &error);
            for asked in pushed {
                asked.answer(Answer::busy(AFTER_TROUBLE));
            }
            return;
        }
    };
    let mut refused = Vec::new();
    let mut accepted: HashMap<Uuid, Vec<(Asked, Delivery)>> = HashMap::new();
    for asked in pushed {
        let received = webhook_of(&asked).ok_or_else(Answer::not_found);
        let received = received.and_then(|webhook| {
            let target = targets.get(&webhook.connector);
            let target = target.ok_or_else(Answer::not_authentic)?;
            // The sender is not told what is wrong with the connector.
            let hook = hooks.open(target, keys.as_ref());
            let hook = hook.ok_or_else(Answer::not_authentic)?;
            receive(target, hook, webhook, now).map(|delivery| (target.connector, delivery))
        });
        match received {
            Ok((connector, delivery)) => {
                accepted
                    .entry(connector)
                    .or_default()
                    .push((asked, delivery));
            }
            Err(answer) => refused.push((asked, answer)),
        }
    }
    let mut all = Vec::new();
    for (connector, deliveries) in accepted {
        if let Some(target) = targets.get(&connector) {
            all.push((target, deliveries));
        }
    }
    let is_stored = store(&all).is_ok();
    for (target, deliveries) in all {
        match is_stored {
            true => acknowledge(target, deliveries),
            false => store_for(target, deliveries),
        }
    }
    for (asked, answer) in refused {
        asked.answer(answer);
    }
}

fn webhook_of(asked: &Asked) -> Option<&Webhook> {
    match &asked.what {
        Ask::Webhook(webhook) => Some(webhook),
        _ => None,
    }
}

fn receive(
    target: &Target,
    hook: &dyn Hook,
    webhook: &Webhook,
    now: DateTime<Utc>,
) -> Result<Delivery, Answer> {
    let pushed = Pushed {
        headers: &webhook.headers,
        body: &webhook.body,
        text: &webhook.text,
        now,
    };
    match hook::receive(hook, &pushed) {
        Err(Refusal::Unauthentic) => Err(Answer::not_authentic()),
        Err(Refusal::Unreadable(why)) => Err(Answer::refusal(400, "unreadable", &why)),
        Ok(_) if target.is_paused => Err(Answer::paused(WHILE_PAUSED)),
        Ok(delivery) => Ok(delivery),
    }
}

fn open(target: &Target, keys: Option<&Keyring>) -> Option<Box<dyn Hook>> {
    let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
    let place = Place {
        tenant: target.tenant,
        connector: target.connector,
    };
    let sealed: serde_json::Value = json(&target.credentials);
    let credentials = match keys {
        Some(keys) => open_credentials(keys, &place, &sealed).ok()?,
        None => Credentials::default(),
    };
    let definition = Definition {
        config: json(&target.config),
        credentials,
        limits: guc::record_limits(),
    };
    source::find(&target.source).ok()?.hook(&definition).ok()?
}

type Accepted<'a> = (&'a Target, Vec<(Asked, Delivery)>);

/// Stores everything in one transaction, with one wait for the disk.
fn store(all: &[Accepted]) -> Result<()> {
    if all.is_empty() {
        return Ok(());
    }
    tx(|db| {
        for (target, deliveries) in all {
            let deliveries: Vec<&Delivery> = deliveries.iter().map(|(_, d)| d).collect();
            webhook::store(db, target, &deliveries)?;
        }
        Ok(())
    })
}

fn acknowledge(target: &Target, deliveries: Vec<(Asked, Delivery)>) {
    trouble::succeeded_for(COULD_NOT_STORE, target.connector);
    for (asked, _) in deliveries {
        asked.answer(Answer::json(200, r#"{"stored": true}"#));
    }
}

/// Stores the webhooks of one connector by themselves, so that its failure affects no other connector.
fn store_for(target: &Target, deliveries: Vec<(Asked, Delivery)>) {
    let all = [(target, deliveries)];
    let stored = store(&all);
    let [(_, deliveries)] = all;
    match stored {
        Ok(()) => acknowledge(target, deliveries),
        // For instance another session has locked its rows. The sender should try again.
        Err(error) if !error.is_about_data() => {
            trouble::failed_for(COULD_NOT_STORE, target.connector, &error);
            for (asked, _) in deliveries {
                asked.answer(Answer::busy(AFTER_TROUBLE));
            }
        }
        Err(_) => {
            for (asked, delivery) in deliveries {
                let stored = store_alone(target, delivery);
                asked.answer(match stored {
                    Ok(()) => {
                        trouble::succeeded_for(COULD_NOT_STORE, target.connector);
                        Answer::json(200, r#"{"stored": true}"#)
                    }
                    Err(error) => {
                        trouble::failed_for(COULD_NOT_STORE, target.connector, &error);
                        Answer::busy(AFTER_TROUBLE)
                    }
                });
                pgrx::check_for_interrupts!();
            }
        }
    }
    pgrx::check_for_interrupts!();
}

/// Stores one delivery. Only the records that PostgreSQL refuses because of their data go to the quarantine.
fn store_alone(target: &Target, mut delivery: Delivery) -> Result<()> {
    match tx(|db| webhook::store(db, target, &[&delivery])) {
        // Another session stored the same record meanwhile. The second try finds it.
        Err(error) if error.is_duplicate() => tx(|db| webhook::store(db, target, &[&delivery])),
        Err(error) if error.is_about_data() => {
            let records = std::mem::take(&mut delivery.records);
            delivery.records = storable_records(target, &mut delivery, records);
            tx(|db| webhook::store(db, target, &[&delivery]))
        }
        other => other,
    }
}

/// The records that PostgreSQL would store; the others become rejected ones. They are found by halving, and each half is tried
/// in a transaction that is rolled back.
fn storable_records(
    target: &Target,
    delivery: &mut Delivery,
    mut records: Vec<Record>,
) -> Vec<Record> {
    delivery.records = records;
    let tried = tx(|db| {
        webhook::store(db, target, &[&*delivery])?;
        Err::<(), _>(Error::RolledBack)
    });
    records = std::mem::take(&mut delivery.records);
    let words = match tried {
        Err(error @ Error::Sql { .. }) if error.is_about_data() => error.one_line(),
        // Any other failure shows when the records are stored.
        _ => return records,
    };
    pgrx::check_for_interrupts!();
    if records.len() > 1 {
        let rest = records.split_off(records.len() / 2);
        let mut good = storable_records(target, delivery, records);
        good.extend(storable_records(target, delivery, rest));
        return good;
    }
    let refused = records.into_iter().map(|record| Rejected {
        id: Some(record.id),
        formerly: None,
        reason: Reason::Refused,
        detail: format!("PostgreSQL refused the record: {words}"),
        raw: record.json,
        hash: record.hash,
    });
    delivery.rejected.extend(refused);
    Vec::new()
}
