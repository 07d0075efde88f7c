//! Runs of the engine, and what they bring, kept as the worker keeps it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use connector_service_core::error::Failure;
use connector_service_core::fetch::{Engine, Gate, Job, Limits, Purpose, Stored, What};
use connector_service_core::json::{self, RecordLimits};
use connector_service_core::record::StreamState;
use connector_service_core::source::Definition;
use serde_json::{Value, json};

static GATE: Gate = Gate::new();

const LIMITS: RecordLimits = RecordLimits {
    bytes: 1 << 20,
    depth: 50,
    // Keys longer than any server sorts by.
    key: 4_000,
};

pub struct Driver {
    engine: Engine,
    runs: u64,
}

/// What is kept of one connector.
#[derive(Default)]
pub struct Kept {
    pub states: HashMap<String, StreamState>,
    /// The text of each record, by its id.
    pub records: BTreeMap<String, String>,
}

/// What one run brought.
#[derive(Default)]
pub struct Brought {
    /// Ids and texts, as often as they came.
    pub records: Vec<(String, String)>,
    pub rejected: usize,
    pub warnings: Vec<String>,
}

impl Driver {
    pub fn new() -> Driver {
        let thread = std::thread::current();
        let wake = Arc::new(move || thread.unpark());
        Driver {
            engine: Engine::start(wake, &GATE).unwrap(),
            runs: 0,
        }
    }

    pub fn sync(
        &mut self,
        source: &str,
        config: &Value,
        kept: &mut Kept,
        now: DateTime<Utc>,
    ) -> Result<Brought, Failure> {
        self.runs += 1;
        let id = |kind: u64| {
            let text = format!("00000000-0000-4000-{kind:04}-{:012}", self.runs);
            serde_json::from_value(json!(text)).unwrap()
        };
        let states = kept.states.iter().map(|(stream, state)| {
            // As it is stored.
            let state = serde_json::from_value(serde_json::to_value(state).unwrap()).unwrap();
            let age = Duration::ZERO;
            (stream.clone(), Stored { state, age })
        });
        self.engine.submit(Job {
            run: serde_json::from_value(json!(format!(
                "00000000-0000-4000-8000-{:012}",
                self.runs
            )))
            .unwrap(),
            connector: id(8001),
            tenant: id(8002),
            purpose: Purpose::Sync,
            rests: Vec::new(),
            source: source.to_owned(),
            definition: Definition {
                config: config.clone(),
                credentials:
                    json!({"username": if source == "mysql" { "root" } else { "postgres" }}).into(),
                limits: LIMITS,
            },
            cover: None,
            states: states.collect(),
            span: None,
            upload: None,
            now,
            default_from: now - TimeDelta::days(30),
            limits: Limits {
                connect_timeout: Duration::from_secs(10),
                read_timeout: Duration::from_secs(20),
                request_timeout: Duration::from_secs(60),
                response_bytes: 64 << 20,
                retries: 0,
                retry_pause: Duration::from_millis(1),
                longest_pause: Duration::from_secs(1),
                pages: 10_000,
                syncs_of_account: 4,
            },
            allowed: Arc::new("127.0.0.1".parse().unwrap()),
        });
        let mut brought = Brought::default();
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let Some(event) = self.engine.try_next() else {
                assert!(Instant::now() < deadline, "the run does not end");
                std::thread::park_timeout(Duration::from_millis(50));
                continue;
            };
            match event.what {
                What::Page(page) => {
                    for record in page.records {
                        let text = String::from_utf8(record.json.to_vec()).unwrap();
                        brought.records.push((record.id.clone(), text.clone()));
                        kept.records.insert(record.id, text);
                    }
                    brought.rejected += page.rejected.len();
                    for id in page.deleted {
                        kept.records.remove(&id);
                    }
                    if let Some(all) = page.all {
                        let prefix = format!("{}/", page.stream);
                        kept.records.retain(|id, _| {
                            !id.starts_with(&prefix) || all.contains(&json::hash(id.as_bytes()))
                        });
                    }
                    brought.warnings.extend(page.warning);
                    kept.states.insert(page.stream, page.state);
                }
                What::Warning(warning) => brought.warnings.push(warning),
                What::Finished(outcome) => return outcome.result.map(|()| brought),
                What::Part(_)
                | What::Waiting(_)
                | What::Previewed(_)
                | What::Planned(_)
                | What::Failed(_) => {}
            }
        }
    }
}
