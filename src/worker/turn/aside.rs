//! Connectors that are left alone for a while: a trigger of the user's, say, refuses what is written of them, and nothing of
//! it can be kept in the tables.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Pause before a connector that was refused is tried again, doubled each time. Longer: it begins later when the reason is
/// gone. Shorter: more work for nothing.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(2 * 60);

#[derive(Default)]
pub struct Aside(HashMap<Uuid, Refused>);

struct Refused {
    until: Instant,
    pause: Duration,
}

impl Aside {
    pub fn put(&mut self, connector: Uuid) {
        let before = self.0.get(&connector).map(|refused| refused.pause);
        let pause = before.map_or(FIRST, |pause| (pause * 2).min(LONGEST));
        let until = Instant::now() + pause;
        self.0.insert(connector, Refused { until, pause });
    }

    /// Those whose pause is not over.
    pub fn now(&self) -> Vec<Uuid> {
        let now = Instant::now();
        let refused = self.0.iter().filter(|(_, refused)| refused.until > now);
        refused.map(|(connector, _)| *connector).collect()
    }

    /// How long until the next one may be tried again.
    pub fn next(&self) -> Option<Duration> {
        let now = Instant::now();
        let times = self.0.values().map(|refused| refused.until);
        times.filter(|until| *until > now).min().map(|at| at - now)
    }

    /// Forgets a connector that is not refused any more, and those that nobody asked for since long.
    pub fn take_back(&mut self, connector: Uuid) {
        if self.0.is_empty() {
            return;
        }
        self.0.remove(&connector);
        let now = Instant::now();
        self.0.retain(|_, refused| refused.until + LONGEST > now);
    }
}
