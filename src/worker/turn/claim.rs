//! Claims runs: one tenant after the other, as far as there is room.

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

use super::{COULD_NOT_QUEUE, Running, SyncWorker, end};
use crate::error::Result;
use crate::store::installation::Tenants;
use crate::store::run::{Claimed, Horizon, Kind, Waiting};
use crate::store::{Db, backfill, budget, key, run, state, tx, upload};
use crate::{activity, board, fault, guc, signals, trouble};

/// How far back a first sync reads when the connector's config does not say.
const FIRST_SYNC_READS: chrono::TimeDelta = chrono::TimeDelta::days(30);

const COULD_NOT_BEGIN: &str = "could not start a sync";

/// Shortest time between two updates of the queue's horizon. Shorter: a worker that ends many runs a second updates it as often.
/// Longer: more index entries of ended runs are read.
const BETWEEN_HORIZONS: Duration = Duration::from_secs(1);

/// How long each horizon is derived from the one before. After that the whole queue is read, so that a run that came into the
/// queue in an unforeseen way is not missed for longer.
const LONGEST_BUILT_ON: Duration = Duration::from_secs(60);

/// What a worker knows of the queue, so that the cost of a poll depends on the runs that wait, not on those that waited.
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

impl SyncWorker {
    /// The position of this worker among the running workers, from 0, and how many there are.
    pub(super) fn place(&self) -> (u128, u128) {
        // SAFETY: fixed for the life of a process.
        let mut workers = board::workers(unsafe { pg_sys::MyDatabaseId });
        workers.retain(|(number, _)| *number <= guc::sync_workers());
        let place = workers
            .iter()
            .position(|(number, _)| *number == self.number);
        (place.unwrap_or(0) as u128, workers.len().max(1) as u128)
    }

    /// Claims runs as far as there is room: one of each tenant in turn, so that a tenant with many runs does not delay others.
    fn take_up(&mut self, db: &mut Db, tenants: Tenants, most_now: usize) -> Result<Vec<Claimed>> {
        let most = guc::max_concurrent_syncs();
        let left: Vec<LoginInFlight> = self.logins_left().collect();
        let room = most
            .saturating_sub(self.running.len() + left.len())
            .min(most_now);
        let mut skipped = self.skipped.now();
        skipped.extend(self.connectors_in_use());
        let most_of_tenant = guc::max_syncs_per_tenant().unwrap_or(match tenants {
            Tenants::One => most,
            Tenants::Several => most.div_ceil(2),
        });
        let most_slow = guc::max_backfills();
        // One worker has all accounts of a tenant, so that their rate limits hold.
        let (place, workers) = self.place();
        let worker = (self.number, workers == 1);
        let is_mine = |tenant: Uuid| tenant.as_u128() % workers == place;
        let mut of_tenant: HashMap<Uuid, usize> = HashMap::new();
        let mut of_kind: HashMap<Kind, usize> = HashMap::new();
        for Running { claimed, .. } in self.running.values() {
            *of_tenant.entry(claimed.tenant).or_default() += 1;
            *of_kind.entry(claimed.kind).or_default() += 1;
        }
        for login in left {
            *of_tenant.entry(login.tenant).or_default() += 1;
        }
        let horizon = self.queue.horizon;
        let mut taken = Vec::new();
        // It ends after one round in which no run could be claimed.
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
            let has_room =
                |kind: &Kind| of_kind.get(kind).is_none_or(|running| *running < most_slow);
            let slow = [Kind::Backfill, Kind::Upload].into_iter().filter(has_room);
            let kinds: Vec<Kind> = [Kind::Sync, Kind::Check, Kind::Preview]
                .into_iter()
                .chain(slow)
                .collect();
            if most_now == 1 {
                self.tried = run::candidate(db, tenant, worker, &kinds, &skipped, horizon)?;
            }
            if let Some(claimed) =
                run::claim(db, tenant, self.token, worker, &kinds, &skipped, horizon)?
            {
                // Before COMMIT, because afterwards the run can be cancelled.
                self.in_use.insert(claimed.connector);
                board::set_connectors_in_use(self.in_use.iter());
                skipped.push(claimed.connector);
                *of_tenant += 1;
                *of_kind.entry(claimed.kind).or_default() += 1;
                taken.push(claimed);
                (began_at, is_around) = (self.next_tenant, false);
            }
        }
        Ok(taken)
    }

    /// Claims queued runs as far as there is room, and hands them out after COMMIT.
    pub(super) fn claim(&mut self, tenants: Tenants) -> Result<()> {
        let is_full =
            self.running.len() + self.logins_left().count() >= guc::max_concurrent_syncs();
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

    /// Claims runs one by one, after for instance a user's trigger refused a write for one connector. Its run fails, and the
    /// others start.
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
                    trouble::failed_for(COULD_NOT_BEGIN, connector, &error);
                    let words = format!("the run could not start: {}", error.one_line());
                    let failure = Failure::new(Code::StoreFailed, words);
                    let refused = end::refuse(run, connector, &failure);
                    if refused.is_err() {
                        // The run stays in the queue, and the connector is skipped for a while.
                        self.skipped.put(connector);
                    }
                }
                Err(error) => return Err(error),
            }
            signals::answer();
        }
    }

    /// Claims runs, and reads what they need.
    fn prepare(&mut self, db: &mut Db, tenants: Tenants, most: usize) -> Result<Prepared> {
        let claimed = self.take_up(db, tenants, most)?;
        let syncs = claimed.iter().filter(|c| c.kind != Kind::Backfill);
        let mut states = state::read(db, syncs.map(|c| c.connector).collect())?;
        for backfill in claimed.iter().filter(|c| c.kind == Kind::Backfill) {
            states.insert(backfill.connector, backfill::progress(db, backfill.run)?);
        }
        Ok(Prepared {
            states,
            // A run without its key fails with that reason. Other runs continue.
            keys: key::load(db).unwrap_or_default().map(Arc::new),
            rests: budget::rests(db, claimed.iter().map(|c| c.tenant).collect())?,
            uploads: upload::of_runs(db, claimed.iter().map(|c| c.run).collect())?,
            claimed,
        })
    }

    /// Hands claimed runs out, after COMMIT.
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
            // Records of a file or a backfill window may be stored already.
            let may_be_known = uploads.contains_key(&claimed.run) || claimed.span.is_some();
            let search = !states.is_empty() || may_be_known;
            let run = claimed.run;
            trouble::succeeded_for(COULD_NOT_BEGIN, claimed.connector);
            trouble::succeeded_for(COULD_NOT_QUEUE, claimed.connector);
            self.skipped.take_back(claimed.connector);
            let credentials = match open(keys.as_deref(), &claimed) {
                Ok(credentials) => credentials,
                Err(failure) => {
                    self.running.insert(run, Running::new(claimed, search));
                    self.finish(run, Err(failure).into());
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
            self.running.insert(run, Running::new(claimed, search));
        }
    }
}

/// Claimed runs, with what they need.
struct Prepared {
    claimed: Vec<Claimed>,
    states: HashMap<Uuid, HashMap<String, Stored>>,
    uploads: HashMap<Uuid, Upload>,
    keys: Option<Arc<Keyring>>,
    rests: HashMap<Uuid, Vec<Rest>>,
}

/// The tenant and connector that a run's secrets are sealed for.
pub(super) fn place(claimed: &Claimed) -> Place {
    Place {
        tenant: claimed.tenant,
        connector: claimed.connector,
    }
}

/// Opens the credentials of a run.
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
