//! QuickBooks' notifications, as CloudEvents and in the form before.
//!
//! One verifier token signs what happens in all companies that an app is connected to, and one delivery may hold several
//! of them. What is not of the connector's company is another's, and left out.

use bytes::Bytes;

use crate::error::Failure;
use crate::json::RecordLimits;
use crate::record::{Record, Rejected};
use crate::source::Definition;
use crate::source::hook::signature::Secrets;
use crate::source::hook::{Delivery, Hook, MOST_RECORDS, Pushed, Refusal, STREAM};
use crate::source::hook::{delivery, field, first, read, unreadable, words};
use crate::source::settings::missing;

struct QuickBooksHook {
    secrets: Secrets,
    realm: String,
    limits: RecordLimits,
}

pub fn open(
    connector: &Definition,
    realm: Option<String>,
) -> Result<Option<Box<dyn Hook>>, Failure> {
    let Some(secrets) = Secrets::read(connector, &["webhook_verifier"])? else {
        return Ok(None);
    };
    Ok(Some(Box::new(QuickBooksHook {
        secrets,
        realm: realm.ok_or_else(|| missing("realm_id"))?,
        limits: connector.limits,
    })))
}

/// The parts of a delivery that belong to the company.
#[derive(Default)]
struct Ours {
    records: Vec<Record>,
    rejected: Vec<Rejected>,
    /// Whether something does not say whose it is, because it cannot be read. It is not stored, for it may be
    /// another's; and may be ours, so that the company is asked.
    is_unclear: bool,
}

impl Hook for QuickBooksHook {
    fn receive(&self, got: &Pushed) -> Result<Delivery, Refusal> {
        self.secrets
            .check_base64(got, "intuit-signature", &[got.body])?;
        let has = |field: &str| field::is_there(got.text, &words(&[field]));
        let (ours, at) = match first(got.text) {
            Some(b'{') if has("eventNotifications") => (self.entities(got.text)?, "lastUpdated"),
            Some(b'[') => (self.cloud_events(got.text)?, "time"),
            Some(b'{') if has("specversion") => (self.cloud_events(got.text)?, "time"),
            _ => {
                return Err(unreadable(
                    "the body has neither CloudEvents nor notifications",
                ));
            }
        };
        let is_any = !ours.records.is_empty() || !ours.rejected.is_empty();
        Ok(Delivery {
            triggers_sync: is_any || ours.is_unclear,
            ..delivery(ours.records, ours.rejected, at)
        })
    }
}

impl QuickBooksHook {
    fn is_ours(&self, json: &[u8], realm: &str) -> Option<bool> {
        field::scalar(json, &words(&[realm])).map(|realm| realm == self.realm)
    }

    fn cloud_events(&self, body: &Bytes) -> Result<Ours, Refusal> {
        let mut found = read(body, STREAM, &[], &[words(&["id"])], self.limits)?;
        let realm = "intuitaccountid";
        let mut ours = Ours::default();
        found
            .records
            .retain(|record| self.is_ours(&record.json, realm) == Some(true));
        for rejected in found.rejected {
            match self.is_ours(&rejected.raw, realm) {
                Some(true) => ours.rejected.push(rejected),
                Some(false) => {}
                None => ours.is_unclear = true,
            }
        }
        ours.records = found.records;
        Ok(ours)
    }

    /// The form before: a list of companies, each with what changed there. An entry has no id of its own.
    fn entities(&self, body: &Bytes) -> Result<Ours, Refusal> {
        let path = words(&["eventNotifications"]);
        let companies = read(body, STREAM, &path, &[], self.limits)?;
        // What is too large or too deep together may be sound one by one.
        let sound = companies.records.into_iter();
        let sound = sound.map(|record| (record.json, true));
        let others = companies.rejected.into_iter();
        let others = others.map(|rejected| (rejected.raw, false));
        let key = ["name", "id", "operation", "lastUpdated"].map(|field| words(&[field]));
        let path = words(&["dataChangeEvent", "entities"]);
        let mut ours = Ours::default();
        for (company, is_sound) in sound.chain(others) {
            match self.is_ours(&company, "realmId") {
                Some(true) => {}
                None if !is_sound => {
                    ours.is_unclear = true;
                    continue;
                }
                _ => continue,
            }
            let found = read(&company, STREAM, &path, &key, self.limits)?;
            ours.records.extend(found.records);
            ours.rejected.extend(found.rejected);
            if ours.records.len() + ours.rejected.len() > MOST_RECORDS {
                return Err(unreadable(format!("more than {MOST_RECORDS} entities")));
            }
        }
        let records = ours.records.iter_mut();
        let records = records.map(|record| [Some(&mut record.id), record.formerly.as_mut()]);
        let rejected = ours.rejected.iter_mut();
        let rejected = rejected.map(|record| [record.id.as_mut(), record.formerly.as_mut()]);
        for id in records.chain(rejected).flatten().flatten() {
            let key = id.split_once('/').map_or("", |(_, key)| key);
            *id = format!("{STREAM}/{}/{key}", self.realm);
        }
        Ok(ours)
    }
}
