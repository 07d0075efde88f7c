//! Bounds that end a run: the number of retries, repeated pages, and the ids that it remembers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use uuid::Uuid;

use super::Limits;
use crate::error::{Code, Failure};
use crate::json;
use crate::record::{Page, Record};

/// Records that are remembered to find what a whole pass did not show. More: 16 bytes for each of their ids, of which a
/// record may have two, for every run that is going. Fewer: of larger streams nothing is found deleted.
pub const MOST_SEEN: usize = 250_000;

/// The longest text of a page token, which is stored with every page. Longer: a hostile vendor fills the disk. Shorter:
/// a source cannot name the objects that it is still to read one by one.
const LONGEST_TOKEN: usize = 1024 * 1024;

/// The ids that a whole pass has shown.
#[derive(Default)]
pub struct Seen {
    /// Their hashes: at most two for each record.
    pub ids: Vec<[u8; 16]>,
    records: usize,
}

/// Remembers the ids of a page. A record without a readable id could be any record, so after one nothing is remembered.
pub fn remember(seen: &mut Option<Seen>, page: &Page) {
    let Some(Seen { ids, records }) = seen else {
        return;
    };
    if page.is_partial {
        *seen = None;
        return;
    }
    // An older version may have stored a record under its former id.
    let known = page
        .records
        .iter()
        .map(|record| (Some(record.id.as_str()), record.formerly.as_deref()));
    let rejected = page.rejected.iter();
    let rejected = rejected.map(|record| (record.id.as_deref(), record.formerly.as_deref()));
    let shown = page.shown.iter().map(|id| (Some(id.as_str()), None));
    for (id, formerly) in known.chain(shown).chain(rejected) {
        let Some(id) = id.filter(|_| *records < MOST_SEEN) else {
            *seen = None;
            return;
        };
        *records += 1;
        ids.extend(
            [Some(id), formerly]
                .into_iter()
                .flatten()
                .map(|id| json::hash(id.as_bytes())),
        );
    }
}

/// Whether two different records of a page have one id: then one of them takes the place of the other.
pub fn has_one_id_twice(records: &[Record]) -> bool {
    let mut hashes = HashMap::with_capacity(records.len());
    let mut records = records.iter();
    records.any(|record| *hashes.entry(record.id.as_str()).or_insert(record.hash) != record.hash)
}

/// The tries of one request, and the pauses between them.
pub struct Tries {
    limits: Limits,
    pause: Duration,
    made: u32,
}

impl Tries {
    pub fn new(limits: &Limits) -> Tries {
        Tries {
            limits: *limits,
            pause: limits.retry_pause,
            made: 0,
        }
    }

    /// How long until the next try; gives the failure back when there is none, or not within a run.
    pub fn next(&mut self, failure: Failure) -> Result<Duration, Failure> {
        let wait = failure
            .retry_after
            .unwrap_or_else(|| jitter(self.pause.min(self.limits.longest_pause)));
        if self.made == self.limits.retries || wait > self.limits.longest_pause {
            return Err(failure);
        }
        self.made += 1;
        self.pause = self.pause.saturating_mul(2);
        Ok(wait)
    }
}

/// Between half of a pause and all of it: connectors that failed together do not come back together.
fn jitter(pause: Duration) -> Duration {
    let [byte, ..] = *Uuid::new_v4().as_bytes();
    pause.mul_f64(0.5 + f64::from(byte) / 510.0)
}

/// Stops a source whose pages would never end.
#[derive(Default)]
pub struct Progress {
    tokens: HashSet<[u8; 16]>,
    rows: Option<[u8; 16]>,
}

impl Progress {
    pub fn check(&mut self, page: &Page) -> Result<(), Failure> {
        let Some(next) = &page.next else {
            return Ok(());
        };
        let token = next.to_string();
        if token.len() > LONGEST_TOKEN {
            let message = format!("the next page's token is longer than {LONGEST_TOKEN} bytes");
            return Err(Failure::new(Code::UnexpectedShape, message));
        }
        if !self.tokens.insert(json::hash(token.as_bytes())) {
            return Err(Failure::new(
                Code::RepeatedPage,
                "the next page is one that was read before",
            ));
        }
        let records = page.records.iter().map(|record| record.hash);
        let hashes: Vec<u8> = records
            .chain(page.rejected.iter().map(|r| r.hash))
            .flatten()
            .collect();
        let rows = (!hashes.is_empty() && !page.overlaps).then(|| json::hash(&hashes));
        if rows.is_some() && rows == self.rows {
            return Err(Failure::new(
                Code::RepeatedPage,
                "two pages in a row hold the same records",
            ));
        }
        self.rows = rows;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: usize, formerly: Option<String>, text: &str) -> Record {
        Record {
            id: format!("s/{id}"),
            formerly,
            key: None,
            json: text.to_owned().into(),
            hash: json::hash(text.as_bytes()),
            at: None,
        }
    }

    #[test]
    fn as_many_records_are_remembered_whether_or_not_they_had_another_id() {
        for has_former in [true, false] {
            let former = |id| has_former.then(|| format!("s/#{id}"));
            let all = (0..MOST_SEEN).map(|id| record(id, former(id), "{}"));
            let page = Page {
                records: all.collect(),
                ..Page::default()
            };
            let mut seen = Some(Seen::default());
            remember(&mut seen, &page);
            let ids = seen.as_ref().map(|seen| seen.ids.len());
            let each = if has_former { 2 } else { 1 };
            assert_eq!(ids, Some(MOST_SEEN * each), "{has_former}");
            let page = Page {
                records: vec![record(MOST_SEEN, None, "{}")],
                ..Page::default()
            };
            remember(&mut seen, &page);
            assert!(seen.is_none(), "{has_former}");
        }
    }

    #[test]
    fn only_different_records_with_one_id_are_two() {
        for (records, expected) in [
            ([(1, "a"), (2, "a"), (3, "b")], false),
            ([(1, "a"), (2, "b"), (1, "a")], false),
            ([(1, "a"), (2, "b"), (1, "b")], true),
        ] {
            let records = records.map(|(id, text)| record(id, None, text));
            assert_eq!(has_one_id_twice(&records), expected);
        }
    }
}
