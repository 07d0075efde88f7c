//! For which days an answer holds. A source that is closer to the sale may have begun later than the other, or have stopped;
//! before and after, nobody else has the money.

use std::collections::BTreeMap;

use super::chance::Sides;
use super::share;

/// Where the other side has less than this part of what it usually has for one record of the source, it does not have the money.
const THIN: f64 = 0.3;
/// Days that are looked at together, further back.
const WEEK: i32 = 7;
/// Fewest records of the source that tell something of days without the other side.
const RECORDS: usize = 5;
/// A connector that was not synced for this many days, while the other one has newer records, has stopped.
const STOPPED_AFTER: i32 = 2;
/// A first day that moves by less is the same.
const SAME_DAY: i32 = 7;

/// The first and the last day; `None`: no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    pub first: Option<i32>,
    pub last: Option<i32>,
}

impl From<(Option<i32>, Option<i32>)> for Span {
    fn from((first, last): (Option<i32>, Option<i32>)) -> Span {
        Span { first, last }
    }
}

/// The days between which the other side has the money, and the last day of which it has most. The days are those with the most
/// records that have a partner, and the fewest that have none; outside of them the other side must have little.
pub fn of_matches(sides: &Sides, explained: &[bool]) -> (Span, Option<i32>) {
    let (from, _) = sides.days;
    let (all, others) = (sides.by_day(sides.own), sides.by_day(sides.others));
    let mut found = vec![0_usize; all.len()];
    for (it, _) in sides
        .own
        .iter()
        .zip(explained)
        .filter(|(_, explained)| **explained)
    {
        if let Some(count) = found.get_mut((it.day - from).unsigned_abs() as usize) {
            *count += 1;
        }
    }
    let days: Vec<(usize, usize, usize)> = all
        .iter()
        .zip(&found)
        .zip(&others)
        .map(|((all, found), others)| (*all, *found, *others))
        .collect();
    let last_matched = days
        .iter()
        .rposition(|(all, found, _)| *found > 0 && 2 * found >= *all);
    let day = |at: usize| from + i32::try_from(at).unwrap_or(0);
    let (low, high) = best(&days);
    let inside = days.get(low..=high).unwrap_or_default();
    let usual = share(inside.iter().map(|it| it.2).sum(), inside.len());
    let is_thin = |part: &[(usize, usize, usize)]| {
        let (all, found): (usize, usize) = (
            part.iter().map(|it| it.0).sum(),
            part.iter().map(|it| it.1).sum(),
        );
        let theirs = share(part.iter().map(|it| it.2).sum(), part.len());
        all >= RECORDS && share(found, all) <= THIN && theirs <= THIN * usual
    };
    let before = days.get(..low).unwrap_or_default();
    let after = days.get(high + 1..).unwrap_or_default();
    let span = Span {
        first: is_thin(before).then(|| day(low)),
        last: is_thin(after).then(|| day(high)),
    };
    (span, last_matched.map(day))
}

/// The days in a row with the largest difference between records with and without a partner.
fn best(days: &[(usize, usize, usize)]) -> (usize, usize) {
    let (mut best, mut best_sum) = ((0, days.len().saturating_sub(1)), i64::MIN);
    let (mut start, mut sum) = (0, 0_i64);
    for (at, (all, found, _)) in days.iter().enumerate() {
        if sum < 0 {
            (start, sum) = (at, 0);
        }
        let difference = 2 * i64::try_from(*found).unwrap_or(0) - i64::try_from(*all).unwrap_or(0);
        sum += difference;
        if sum >= best_sum && *all + *found > 0 {
            (best, best_sum) = ((start, at), sum);
        }
    }
    best
}

/// How many records a source and the others have on each day, over all of their time.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub own: BTreeMap<i32, usize>,
    pub others: BTreeMap<i32, usize>,
}

/// What is known of one of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partner {
    pub is_paused: bool,
    /// Whether it is asked, and so has nothing new only if it could not be asked.
    pub is_asked: bool,
    pub last_sync: Option<i32>,
    pub last_record: Option<i32>,
}

/// From when on none of the others, or only some of them, have anything new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    None,
    All(i32),
    /// These of them, by their places.
    Some(Vec<usize>),
}

impl Partner {
    fn stopped(&self, newest: i32) -> Option<i32> {
        let last = self.last_sync.max(self.last_record)?;
        match self {
            Partner {
                is_paused: true, ..
            } => Some(last),
            Partner {
                is_asked: false, ..
            } => self
                .last_record
                .filter(|last| newest - *last > STOPPED_AFTER),
            Partner { last_sync, .. } => last_sync
                .filter(|sync| newest - *sync > STOPPED_AFTER)
                .map(|_| last),
        }
        .filter(|last| *last < newest)
    }
}

/// The days on which the source does not count, because the others do.
pub fn days_of(
    comparison: &super::Comparison,
    history: &History,
    partners: &[Partner],
    before: Option<Span>,
) -> (Span, Stopped) {
    let newest = history
        .own
        .keys()
        .next_back()
        .copied()
        .unwrap_or(comparison.to);
    let mut first = comparison
        .span
        .first
        .or_else(|| history.first(comparison.from, comparison.ratio));
    if let (Some(now), Some(known)) = (first, before.and_then(|span| span.first))
        && (now - known).abs() <= SAME_DAY
    {
        first = Some(known);
    }
    let ends: Vec<Option<i32>> = partners
        .iter()
        .map(|partner| partner.stopped(newest))
        .collect();
    let stopped = match ends.iter().flatten().max() {
        Some(last) if ends.iter().all(Option::is_some) => Stopped::All(
            comparison
                .last_matched
                .map_or(*last, |matched| matched.max(*last)),
        ),
        Some(_) => Stopped::Some(
            ends.iter()
                .enumerate()
                .filter(|(_, end)| end.is_some())
                .map(|(at, _)| at)
                .collect(),
        ),
        None => Stopped::None,
    };
    let last = match &stopped {
        Stopped::All(last) if *last < newest => Some(*last),
        Stopped::All(_) | Stopped::Some(_) | Stopped::None => comparison.span.last,
    };
    (Span { first, last }, stopped)
}

impl History {
    /// The first day that the others cover, going back week by week from a day that they do. `None`: they cover all.
    fn first(&self, from: i32, ratio: f64) -> Option<i32> {
        let oldest = *self.own.keys().next()?;
        let count = |of: &BTreeMap<i32, usize>, first: i32| {
            of.range(first..first + WEEK).map(|(_, count)| count).sum()
        };
        let mut covered = from;
        let mut first = from - WEEK;
        while first > oldest - WEEK {
            let (own, others): (usize, usize) =
                (count(&self.own, first), count(&self.others, first));
            if own > 0 && (others == 0 || share(others, own) < THIN * ratio) {
                return Some(covered);
            }
            if others > 0 {
                covered = first;
            }
            first -= WEEK;
        }
        None
    }
}
