//! Which trouble a process has logged already.
//!
//! Trouble that lasts is met again with every try. It is logged when it begins, when its text changes, and once an hour
//! while it lasts; one line says that it is over. So a process that retries every second does not fill the disk.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often trouble that lasts is logged again. Longer: the end of a log does not show that it lasts. Shorter: more of
/// the log is the same line.
pub const AGAIN: Duration = Duration::from_secs(60 * 60);

/// Most lines about one thing within [`AGAIN`]. More: trouble that comes and goes, or changes its text each time, fills
/// the log. Fewer: later trouble of the same thing is logged up to an hour late.
const MOST_LINES: u32 = 8;

/// Most things that are remembered. More: more memory. Fewer: where that many connectors fail at once, some lines come
/// twice.
const MOST_THINGS: usize = 1_000;

/// What goes wrong, and for whom, such as `connector "..."`; the second part is empty where it concerns nobody in
/// particular.
pub type Thing = (&'static str, String);

/// Remembers what was logged.
#[derive(Default)]
pub struct Logged {
    things: HashMap<Thing, State>,
}

struct State {
    /// The text that was logged last.
    words: String,
    logged_at: Instant,
    /// Lines within [`AGAIN`].
    lines: u32,
    /// When this trouble began.
    since: Instant,
    /// When this trouble was met last.
    met_at: Instant,
    times: u64,
    /// Whether the trouble lasts.
    is_on: bool,
    /// Whether it was logged since it began.
    is_logged: bool,
}

/// Trouble that is to be logged, and how often it was met by now.
#[derive(Debug, PartialEq, Eq)]
pub struct Met {
    pub times: u64,
}

/// Trouble whose end is to be logged.
#[derive(Debug, PartialEq, Eq)]
pub struct Over {
    pub times: u64,
    pub lasted: Duration,
}

impl Logged {
    /// Notes that something went wrong. `None`: it was logged already.
    pub fn trouble(&mut self, thing: Thing, words: &str, now: Instant) -> Option<Met> {
        if !self.things.contains_key(&thing) {
            self.make_room();
        }
        let state = self.things.entry(thing).or_insert_with(|| State {
            words: String::new(),
            logged_at: now,
            lines: 0,
            since: now,
            met_at: now,
            times: 0,
            is_on: false,
            is_logged: false,
        });
        if !state.is_on {
            (state.is_on, state.is_logged) = (true, false);
            (state.since, state.times) = (now, 0);
        }
        state.times += 1;
        state.met_at = now;
        if now.saturating_duration_since(state.logged_at) >= AGAIN {
            state.lines = 0;
        }
        let is_news = state.lines == 0 || !state.is_logged || state.words != words;
        if !is_news || state.lines >= MOST_LINES {
            return None;
        }
        state.lines += 1;
        state.logged_at = now;
        state.is_logged = true;
        words.clone_into(&mut state.words);
        Some(Met { times: state.times })
    }

    /// Notes that something went well. `None`: there was no trouble, or it was never logged.
    pub fn over(&mut self, thing: &Thing, now: Instant) -> Option<Over> {
        let state = self.things.get_mut(thing)?;
        if !std::mem::take(&mut state.is_on) || !state.is_logged {
            return None;
        }
        Some(Over {
            times: state.times,
            lasted: now.saturating_duration_since(state.since),
        })
    }

    /// For whom this trouble lasts.
    pub fn lasting_of(&self, what: &'static str) -> Vec<String> {
        let lasting = self.lasting().map(|(thing, ..)| thing);
        let of_it = lasting.filter(|thing| thing.0 == what);
        of_it.map(|thing| thing.1.clone()).collect()
    }

    /// Whether no trouble was ever noted.
    pub fn is_empty(&self) -> bool {
        self.things.is_empty()
    }

    /// All trouble that lasts, with its last text and when it was met last.
    pub fn lasting(&self) -> impl Iterator<Item = (&Thing, &str, Instant)> {
        let lasting = self.things.iter().filter(|(_, state)| state.is_on);
        lasting.map(|(thing, state)| (thing, state.words.as_str(), state.met_at))
    }

    /// Forgets the thing that was logged longest ago; trouble that is over goes before trouble that lasts.
    fn make_room(&mut self) {
        if self.things.len() < MOST_THINGS {
            return;
        }
        let oldest = self.things.iter();
        let oldest = oldest.min_by_key(|(_, state)| (state.is_on, state.logged_at));
        if let Some(thing) = oldest.map(|(thing, _)| thing.clone()) {
            self.things.remove(&thing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Thing = ("could not look", String::new());

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn trouble_that_lasts_is_logged_once_an_hour() {
        let (mut logged, start) = (Logged::default(), Instant::now());
        let lines = (0..3 * 3_600).filter_map(|second| {
            let met = logged.trouble(LOOK, "no such table", at(start, second))?;
            Some((second, met.times))
        });
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines, [(0, 1), (3_600, 3_601), (7_200, 7_201)]);
    }

    #[test]
    fn a_new_text_is_logged_at_once_and_the_end_is_logged_once() {
        let (mut logged, start) = (Logged::default(), Instant::now());
        assert!(logged.over(&LOOK, start).is_none());
        assert!(logged.trouble(LOOK, "a", start).is_some());
        assert!(logged.trouble(LOOK, "a", at(start, 1)).is_none());
        assert!(logged.trouble(LOOK, "b", at(start, 2)).is_some());
        assert_eq!(
            logged.lasting().collect::<Vec<_>>(),
            [(&LOOK, "b", at(start, 2))]
        );
        let over = Over {
            times: 3,
            lasted: Duration::from_secs(3),
        };
        assert_eq!(logged.over(&LOOK, at(start, 3)), Some(over));
        assert!(logged.over(&LOOK, at(start, 4)).is_none());
        assert_eq!(logged.lasting().count(), 0);
        assert!(logged.trouble(LOOK, "b", at(start, 5)).is_some());
    }

    #[test]
    fn trouble_that_comes_and_goes_or_changes_its_text_does_not_fill_the_log() {
        let (mut logged, start) = (Logged::default(), Instant::now());
        let mut lines = 0;
        for second in 0..3_600 {
            lines += usize::from(logged.trouble(LOOK, "a", at(start, second)).is_some());
            lines += usize::from(logged.over(&LOOK, at(start, second)).is_some());
            let words = format!("process {second} has it");
            let other = ("could not listen", String::new());
            lines += usize::from(logged.trouble(other, &words, at(start, second)).is_some());
        }
        assert_eq!(lines, 24);
    }

    #[test]
    fn connectors_are_remembered_separately_and_memory_is_bounded() {
        let (mut logged, start) = (Logged::default(), Instant::now());
        for connector in 0..5_000 {
            let thing = (LOOK.0, format!("connector {connector}"));
            assert!(logged.trouble(thing, "a", start).is_some());
        }
        assert_eq!(logged.things.len(), MOST_THINGS);
    }
}
