//! Runs are taken up: of each tenant in turn, as far as there is room.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_service_core::error::{Code, Failure};
use connector_service_core::fetch::{Job, LoginInFlight, Purpose, Rest, Stored, Upload};
use connector_service_core::secret::{
    Cover, Credentials, Keyring, Place, SealError, open_credentials,
};
use connector_service_core::source::Definition;
use pgrx::prelude::*;
use serde_json::Value;
use uuid::Uuid;

use super::{COULD_NOT_QUEUE, Going, Turn, end};
use crate::error::Result;
use crate::store::installation::Tenants;
use crate::store::run::{Claimed, Horizon, Kind, Waiting};
use crate::store::{Db, backfill, budget, key, run, state, tx, upload};
use crate::{activity, board, fault, guc, signals, trouble};

/// How far back a first sync reads when the connector's config does not say.
const FIRST_SYNC_READS: chrono::TimeDelta = chrono::TimeDelta::days(30);

const COULD_NOT_BEGIN: &str = "could not start a sync";

/// Shortest time between two looks for the horizon of the queue. Shorter: who ends many runs a second looks for it as
/// often. Longer: more entries of runs that have ended since are passed over.
const BETWEEN_HORIZONS: Duration = Duration::from_secs(1);

/// How long a horizon is built on the one before. It is found from nothing after that, so that nothing stays hidden for
/// longer that came into the queue in a way that nobody thought of.
const LONGEST_BUILT_ON: Duration = Duration::from_secs(60);

/// What a worker knows of the queue, so that a look costs what waits and not what has waited.
pub(super) struct Queue {
    horizon: Horizon,
    found_at: Option<Instant>,
    began_at: Instant,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            horizon: Horizon::NONE,
            found_at: None,
            began_at: Instant::now(),
        }
    }
}

impl Queue {
    fn horizon(&mut self) -> Result<Horizon> {
        if self.began_at.elapsed() >= LONGEST_BUILT_ON {
            *self = Self::default();
        }
        if self
            .found_at
            .is_none_or(|at| at.elapsed() >= BETWEEN_HORIZONS)
        {
            self.horizon = self.horizon.find()?;
            self.found_at = Some(Instant::now());
        }
        Ok(self.horizon)
    }
}

impl Turn {
    /// Which of the workers that there are this is, from 0, and how many there are.
    pub(super) fn place(&self) -> (u128, u128) {
        // SAFETY: fixed for the life of a process.
        let mut workers = board::workers(unsafe { pg_sys::MyDatabaseId });
        workers.retain(|(number, _)| *number <= guc::sync_workers());
        let place = workers
            .iter()
            .position(|(number, _)| *number == self.number);
        (place.unwrap_or(0) as u128, workers.len().max(1) as u128)
    }

    /// Takes up runs as far as there is room: one of each tenant in turn, so that who has many waits for his own.
    fn take_up(&mut self, db: &mut Db, tenants: Tenants, most_now: usize) -> Result<Vec<Claimed>> {
        let most = guc::max_concurrent_syncs();
        let left: Vec<LoginInFlight> = self.logins_left().collect();
        let room = most
            .saturating_sub(self.going.len() + left.len())
            .min(most_now);
        let mut aside = self.aside.now();
        aside.extend(self.in_hand());
        let most_of_tenant = guc::max_syncs_per_tenant().unwrap_or(match tenants {
            Tenants::One => most,
            Tenants::Several => most.div_ceil(2),
        });
        let most_slow = guc::max_backfills();
        // All accounts of a tenant are in one worker's hands, so that their pace and their limits hold.
        let (place, workers) = self.place();
        let worker = (self.number, workers == 1);
        let is_mine = |tenant: Uuid| tenant.as_u128() % workers == place;
        let mut of_tenant: HashMap<Uuid, usize> = HashMap::new();
        let mut of_kind: HashMap<Kind, usize> = HashMap::new();
        for Going { claimed, .. } in self.going.values() {
            *of_tenant.entry(claimed.tenant).or_default() += 1;
            *of_kind.entry(claimed.kind).or_default() += 1;
        }
        for login in left {
            *of_tenant.entry(login.tenant).or_default() += 1;
        }
        let horizon = self.queue.horizon;
        let mut taken = Vec::new();
        // One round without a run to be taken up is the end.
        let (mut began_at, mut is_around) = (self.next_tenant, false);
        while taken.len() < room {
            let tenant = match run::next_tenant(db, self.next_tenant, horizon)? {
                Some(tenant) if !is_around || tenant < began_at => tenant,
                None if !is_around => {
                    (self.next_tenant, is_around) = (Uuid::nil(), true);
                    continue;
                }
                _ => break,
            };
            match tenant.as_u128().checked_add(1) {
                Some(next) => self.next_tenant = Uuid::from_u128(next),
                None if !is_around => (self.next_tenant, is_around) = (Uuid::nil(), true),
                None => break,
            }
            let of_tenant = of_tenant.entry(tenant).or_default();
            if !is_mine(tenant) || *of_tenant >= most_of_tenant {
                continue;
            }
            let has_room = |kind: &Kind| of_kind.get(kind).is_none_or(|going| *going < most_slow);
            let slow = [Kind::Backfill, Kind::Upload].into_iter().filter(has_room);
            let kinds: Vec<Kind> = [Kind::Sync, Kind::Check, Kind::Preview]
                .into_iter()
                .chain(slow)
                .collect();
            if most_now == 1 {
                self.tried = run::candidate(db, tenant, worker, &kinds, &aside, horizon)?;
            }
            if let Some(claimed) =
                run::claim(db, tenant, self.token, worker, &kinds, &aside, horizon)?
            {
                // Before this commits, and anybody can cancel it.
                self.hands.insert(claimed.connector);
                board::set_hands(self.hands.iter());
                aside.push(claimed.connector);
                *of_tenant += 1;
                *of_kind.entry(claimed.kind).or_default() += 1;
                taken.push(claimed);
                (began_at, is_around) = (self.next_tenant, false);
            }
        }
        Ok(taken)
    }

    /// Takes queued runs as far as there is room, and hands them out once that has committed.
    pub(super) fn claim(&mut self, tenants: Tenants) -> Result<()> {
        let is_full = self.going.len() + self.logins_left().count() >= guc::max_concurrent_syncs();
        let is_leaving = self.number > guc::sync_workers();
        if is_full || is_leaving {
            return Ok(());
        }
        let horizon = self.queue.horizon()?;
        match tx(|db| run::waiting(db, horizon))? {
            Waiting::Nothing => return Ok(()),
            Waiting::Some => {}
            Waiting::ClockWasSetBack => self.queue = Queue::default(),
        }
        let _doing = activity::doing("starting runs");
        match tx(|db| self.prepare(db, tenants, usize::MAX)) {
            Err(error) if self.is_refusal(&error) => self.claim_one_by_one(tenants),
            prepared => {
                self.hand_out(prepared?);
                Ok(())
            }
        }
    }

    /// Something of one connector is refused, by a trigger of the user's, say: its run fails, and the others begin.
    fn claim_one_by_one(&mut self, tenants: Tenants) -> Result<()> {
        loop {
            self.tried = None;
            match tx(|db| self.prepare(db, tenants, 1)) {
                Ok(prepared) if prepared.claimed.is_empty() => return Ok(()),
                Ok(prepared) => self.hand_out(prepared),
                Err(error) if self.is_refusal(&error) => {
                    let Some((run, connector)) = self.tried else {
                        return Err(error);
                    };
                    trouble::trouble_of(COULD_NOT_BEGIN, connector, &error);
                    let words = format!("the run could not start: {}", error.words());
                    let failure = Failure::new(Code::StoreFailed, words);
                    let refused = end::refuse(run, connector, &failure);
                    if refused.is_err() {
                        // It stays in the queue, and the connector is passed over for a while.
                        self.aside.put(connector);
                    }
                }
                Err(error) => return Err(error),
            }
            signals::answer();
        }
    }

    /// Takes runs up, and reads what they need.
    fn prepare(&mut self, db: &mut Db, tenants: Tenants, most: usize) -> Result<Prepared> {
        let claimed = self.take_up(db, tenants, most)?;
        let syncs = claimed.iter().filter(|c| c.kind != Kind::Backfill);
        let mut states = state::read(db, syncs.map(|c| c.connector).collect())?;
        for backfill in claimed.iter().filter(|c| c.kind == Kind::Backfill) {
            states.insert(backfill.connector, backfill::progress(db, backfill.run)?);
        }
        Ok(Prepared {
            states,
            // Without its key a run fails, and says so; the others of the worker go on.
            keys: key::load(db).unwrap_or_default().map(Arc::new),
            rests: budget::rests(db, claimed.iter().map(|c| c.tenant).collect())?,
            uploads: upload::of_runs(db, claimed.iter().map(|c| c.run).collect())?,
            claimed,
        })
    }

    /// Hands runs out that were taken up, once that has committed.
    fn hand_out(&mut self, prepared: Prepared) {
        let Prepared {
            claimed,
            mut states,
            mut uploads,
            keys,
            rests,
        } = prepared;
        fault::point("after_claim");
        let allowed = guc::allowed_private_hosts();
        for claimed in claimed {
            let states = states.remove(&claimed.connector).unwrap_or_default();
            let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
            // A file may be known; what it holds may be.
            let may_be_known = uploads.contains_key(&claimed.run) || claimed.span.is_some();
            let search = !states.is_empty() || may_be_known;
            let run = claimed.run;
            trouble::over_of(COULD_NOT_BEGIN, claimed.connector);
            trouble::over_of(COULD_NOT_QUEUE, claimed.connector);
            self.aside.take_back(claimed.connector);
            let credentials = match open(keys.as_deref(), &claimed) {
                Ok(credentials) => credentials,
                Err(failure) => {
                    self.going.insert(run, Going { claimed, search });
                    self.finish(run, Err(failure));
                    continue;
                }
            };
            let cover = keys.clone().filter(|_| !credentials.fields().is_empty());
            let cover = cover.map(|keys| Cover {
                keys,
                place: place(&claimed),
            });
            self.engine.submit(Job {
                run,
                connector: claimed.connector,
                tenant: claimed.tenant,
                purpose: match claimed.kind {
                    Kind::Sync | Kind::Backfill | Kind::Upload | Kind::Webhook => Purpose::Sync,
                    Kind::Check | Kind::Preview => Purpose::Preview,
                },
                rests: rests.get(&claimed.tenant).cloned().unwrap_or_default(),
                source: claimed.source.clone(),
                definition: Definition {
                    config: json(&claimed.config),
                    credentials,
                    limits: guc::record_limits(),
                },
                cover,
                states,
                span: claimed.span,
                upload: uploads.remove(&run),
                now: claimed.now,
                default_from: claimed.now - FIRST_SYNC_READS,
                limits: guc::limits(),
                allowed: allowed.clone(),
            });
            self.going.insert(run, Going { claimed, search });
        }
    }
}

/// Runs that were taken up, with what they need.
struct Prepared {
    claimed: Vec<Claimed>,
    states: HashMap<Uuid, HashMap<String, Stored>>,
    uploads: HashMap<Uuid, Upload>,
    keys: Option<Arc<Keyring>>,
    rests: HashMap<Uuid, Vec<Rest>>,
}

/// What a run's secrets are sealed to.
pub(super) fn place(claimed: &Claimed) -> Place {
    Place {
        tenant: claimed.tenant,
        connector: claimed.connector,
    }
}

/// The credentials of a run, opened.
fn open(keys: Option<&Keyring>, claimed: &Claimed) -> std::result::Result<Credentials, Failure> {
    let sealed: Value = serde_json::from_str(&claimed.credentials).unwrap_or_default();
    if sealed.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(Credentials::default());
    }
    let Some(keys) = keys else {
        let message = "the key file is missing, or does not contain the key of these credentials";
        return Err(Failure::new(Code::KeyMissing, message));
    };
    open_credentials(keys, &place(claimed), &sealed).map_err(|error| {
        let code = match error {
            SealError::KeyMissing { .. } => Code::KeyMissing,
            _ => Code::CredentialsNotOpened,
        };
        Failure::new(code, error.to_string())
    })
}
