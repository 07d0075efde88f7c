//! Connectors that are skipped for a while: for instance a user's trigger refuses every write for them, so the tables cannot
//! hold that they failed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Pause before a skipped connector is tried again. It doubles each time. Longer: the connector starts later when the reason is
/// gone. Shorter: more useless tries.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(2 * 60);

#[derive(Default)]
pub struct Skipped(HashMap<Uuid, Refused>);

struct Refused {
    until: Instant,
    pause: Duration,
}

impl Skipped {
    pub fn put(&mut self, connector: Uuid) {
        let before = self.0.get(&connector).map(|refused| refused.pause);
        let pause = before.map_or(FIRST, |pause| (pause * 2).min(LONGEST));
        let until = Instant::now() + pause;
        self.0.insert(connector, Refused { until, pause });
    }

    /// The connectors whose pause is not over.
    pub fn now(&self) -> Vec<Uuid> {
        let now = Instant::now();
        let refused = self.0.iter().filter(|(_, refused)| refused.until > now);
        refused.map(|(connector, _)| *connector).collect()
    }

    /// How long until the next connector may be tried again.
    pub fn next(&self) -> Option<Duration> {
        let now = Instant::now();
        let times = self.0.values().map(|refused| refused.until);
        times.filter(|until| *until > now).min().map(|at| at - now)
    }

    /// Removes a connector that works again, and connectors whose pause ended long ago.
    pub fn take_back(&mut self, connector: Uuid) {
        if self.0.is_empty() {
            return;
        }
        self.0.remove(&connector);
        let now = Instant::now();
        self.0.retain(|_, refused| refused.until + LONGEST > now);
    }
}
