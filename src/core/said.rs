//! What a process says in a log, and what it has said already.
//!
//! Trouble that lasts is met again with every try. It is said when it begins, when its words change, and once an hour
//! while it lasts; one line says that it is over. Who tries each second thus fills no disk.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often trouble that lasts is said again. Longer: who reads only the end of a log does not know of it. Shorter: more of
/// the log is the same line.
pub const AGAIN: Duration = Duration::from_secs(60 * 60);

/// Lines about one thing within [`AGAIN`]. More: trouble that comes and goes, or has other words each time, fills the log.
/// Fewer: what follows from it is said an hour late.
const MOST_LINES: u32 = 8;

/// Things that are remembered. More: more memory. Fewer: where that many connectors fail at once, some are said twice.
const MOST_THINGS: usize = 1_000;

/// What goes wrong, and of whom, such as `connector "..."`; nothing where it is nobody's.
pub type Thing = (&'static str, String);

/// Remembers what was said.
#[derive(Default)]
pub struct Said {
    things: HashMap<Thing, State>,
}

struct State {
    /// The last ones that were said.
    words: String,
    said_at: Instant,
    lines: u32,
    /// Of this trouble.
    since: Instant,
    met_at: Instant,
    times: u64,
    /// It lasts; and it was said since it began.
    is_on: bool,
    is_said: bool,
}

/// Trouble that was met and is to be said: how often by now.
#[derive(Debug, PartialEq, Eq)]
pub struct Met {
    pub times: u64,
}

/// Trouble that is over and is to be said so.
#[derive(Debug, PartialEq, Eq)]
pub struct Over {
    pub times: u64,
    pub lasted: Duration,
}

impl Said {
    /// It went wrong. `None`: that was said already.
    pub fn trouble(&mut self, thing: Thing, words: &str, now: Instant) -> Option<Met> {
        if !self.things.contains_key(&thing) {
            self.make_room();
        }
        let state = self.things.entry(thing).or_insert_with(|| State {
            words: String::new(),
            said_at: now,
            lines: 0,
            since: now,
            met_at: now,
            times: 0,
            is_on: false,
            is_said: false,
        });
        if !state.is_on {
            (state.is_on, state.is_said) = (true, false);
            (state.since, state.times) = (now, 0);
        }
        state.times += 1;
        state.met_at = now;
        if now.saturating_duration_since(state.said_at) >= AGAIN {
            state.lines = 0;
        }
        let is_news = state.lines == 0 || !state.is_said || state.words != words;
        if !is_news || state.lines >= MOST_LINES {
            return None;
        }
        state.lines += 1;
        state.said_at = now;
        state.is_said = true;
        words.clone_into(&mut state.words);
        Some(Met { times: state.times })
    }

    /// It went well. `None`: it had done so before, or nobody was told otherwise.
    pub fn over(&mut self, thing: &Thing, now: Instant) -> Option<Over> {
        let state = self.things.get_mut(thing)?;
        if !std::mem::take(&mut state.is_on) || !state.is_said {
            return None;
        }
        Some(Over {
            times: state.times,
            lasted: now.saturating_duration_since(state.since),
        })
    }

    /// Of whom this lasts.
    pub fn lasting_of(&self, what: &'static str) -> Vec<String> {
        let lasting = self.lasting().map(|(thing, ..)| thing);
        let of_it = lasting.filter(|thing| thing.0 == what);
        of_it.map(|thing| thing.1.clone()).collect()
    }

    /// Whether nothing ever went wrong.
    pub fn is_empty(&self) -> bool {
        self.things.is_empty()
    }

    /// What lasts, with its last words, and when it was met last.
    pub fn lasting(&self) -> impl Iterator<Item = (&Thing, &str, Instant)> {
        let lasting = self.things.iter().filter(|(_, state)| state.is_on);
        lasting.map(|(thing, state)| (thing, state.words.as_str(), state.met_at))
    }

    /// The one that was silent for longest is forgotten, and one that is over before one that lasts.
    fn make_room(&mut self) {
        if self.things.len() < MOST_THINGS {
            return;
        }
        let oldest = self.things.iter();
        let oldest = oldest.min_by_key(|(_, state)| (state.is_on, state.said_at));
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
    fn what_lasts_is_said_once_an_hour() {
        let (mut said, start) = (Said::default(), Instant::now());
        let lines = (0..3 * 3_600).filter_map(|second| {
            let met = said.trouble(LOOK, "no such table", at(start, second))?;
            Some((second, met.times))
        });
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines, [(0, 1), (3_600, 3_601), (7_200, 7_201)]);
    }

    #[test]
    fn other_words_are_said_at_once_and_the_end_is_said_once() {
        let (mut said, start) = (Said::default(), Instant::now());
        assert!(said.over(&LOOK, start).is_none());
        assert!(said.trouble(LOOK, "a", start).is_some());
        assert!(said.trouble(LOOK, "a", at(start, 1)).is_none());
        assert!(said.trouble(LOOK, "b", at(start, 2)).is_some());
        assert_eq!(
            said.lasting().collect::<Vec<_>>(),
            [(&LOOK, "b", at(start, 2))]
        );
        let over = Over {
            times: 3,
            lasted: Duration::from_secs(3),
        };
        assert_eq!(said.over(&LOOK, at(start, 3)), Some(over));
        assert!(said.over(&LOOK, at(start, 4)).is_none());
        assert_eq!(said.lasting().count(), 0);
        assert!(said.trouble(LOOK, "b", at(start, 5)).is_some());
    }

    #[test]
    fn what_comes_and_goes_and_what_has_other_words_each_time_fills_no_log() {
        let (mut said, start) = (Said::default(), Instant::now());
        let mut lines = 0;
        for second in 0..3_600 {
            lines += usize::from(said.trouble(LOOK, "a", at(start, second)).is_some());
            lines += usize::from(said.over(&LOOK, at(start, second)).is_some());
            let words = format!("process {second} has it");
            let other = ("could not listen", String::new());
            lines += usize::from(said.trouble(other, &words, at(start, second)).is_some());
        }
        assert_eq!(lines, 24);
    }

    #[test]
    fn connectors_are_told_apart_and_what_is_remembered_is_bounded() {
        let (mut said, start) = (Said::default(), Instant::now());
        for connector in 0..5_000 {
            let thing = (LOOK.0, format!("connector {connector}"));
            assert!(said.trouble(thing, "a", start).is_some());
        }
        assert_eq!(said.things.len(), MOST_THINGS);
    }
}
