//! Finds records that are totals of others: books are often kept by the day, the week or the month, for each channel or for all
//! of them, before or after fees and refunds.

use std::collections::BTreeMap;

use super::{Amount, WINDOW};

/// Lengths of the periods that somebody books at once: a day, a weekend, a week, a month. More lengths: more totals are equal
/// by chance.
const LENGTHS: [i32; 8] = [1, 2, 3, 7, 28, 29, 30, 31];

/// Most sources that are tried one by one, besides all of them together.
const MOST_SOURCES: usize = 8;

/// What came in on one day.
#[derive(Default, Clone, Copy)]
struct Day {
    gross: i128,
    fees: i128,
    refunds: i128,
}

/// The totals of all periods, by currency and amount, with the last day of the period.
pub struct Totals(Vec<(u16, i128, i32)>);

impl Totals {
    pub fn of(others: &[Amount], refunds: &[Amount], (from, to): (i32, i32)) -> Totals {
        let sources = 1 + others.iter().map(|it| it.source).max().unwrap_or(0);
        let mut groups: Vec<Option<usize>> = vec![None];
        if (2..=MOST_SOURCES).contains(&sources) {
            groups.extend((0..sources).map(Some));
        }
        let mut found = vec![];
        for group in groups {
            let is_in = |it: &&Amount| group.is_none_or(|source| it.source == source);
            let mut days: BTreeMap<(u16, i32), Day> = BTreeMap::new();
            for it in others.iter().filter(is_in) {
                let day = days.entry((it.currency, it.day)).or_default();
                day.gross += it.value;
                day.fees += it.net.map_or(0, |net| it.value - net);
            }
            for it in refunds.iter().filter(is_in) {
                days.entry((it.currency, it.day)).or_default().refunds += it.value;
            }
            let mut currencies: Vec<u16> = days.keys().map(|(currency, _)| *currency).collect();
            currencies.dedup();
            for currency in currencies {
                let day = |day| days.get(&(currency, day)).copied().unwrap_or_default();
                let series: Vec<Day> = (from..=to).map(day).collect();
                totals_of(&series, from, |value, end| {
                    found.push((currency, value, end))
                });
            }
        }
        found.sort_unstable();
        found.dedup();
        Totals(found)
    }

    /// Whether a period with this total ends within the window around a day.
    fn has(&self, currency: u16, value: i128, day: i32) -> bool {
        let at = self
            .0
            .partition_point(|it| *it < (currency, value, day - WINDOW));
        self.0
            .get(at)
            .is_some_and(|&(its_currency, its_value, end)| {
                (its_currency, its_value) == (currency, value) && end <= day + WINDOW
            })
    }

    /// Marks the records that are such a total: by themselves, or all of their day together.
    pub fn mark(&self, own: &[Amount], explained: &mut [bool]) {
        let mut days: BTreeMap<(u16, i32), (i128, i128)> = BTreeMap::new();
        for (it, explained) in own.iter().zip(explained.iter_mut()) {
            let day = days.entry((it.currency, it.day)).or_default();
            day.0 += it.value;
            if !*explained {
                day.1 += it.value;
                *explained = self.has(it.currency, it.value, it.day);
            }
        }
        days.retain(|&(currency, day), (all, left)| {
            self.has(currency, *all, day) || self.has(currency, *left, day)
        });
        for (it, explained) in own.iter().zip(explained.iter_mut()) {
            *explained |= days.contains_key(&(it.currency, it.day));
        }
    }
}

/// The totals of a series of days: as they came in, and less fees, refunds or both.
fn totals_of(series: &[Day], from: i32, mut found: impl FnMut(i128, i32)) {
    let variants: [fn(&Day) -> i128; 4] = [
        |day| day.gross,
        |day| day.gross - day.fees,
        |day| day.gross - day.refunds,
        |day| day.gross - day.fees - day.refunds,
    ];
    for variant in variants {
        let mut sums = vec![0_i128];
        sums.extend(series.iter().scan(0_i128, |sum, day| {
            *sum += variant(day);
            Some(*sum)
        }));
        for length in LENGTHS {
            let later = sums.iter().skip(length.unsigned_abs() as usize);
            for ((before, after), first) in sums.iter().zip(later).zip(from..) {
                if after != before {
                    found(after - before, first + length - 1);
                }
            }
        }
    }
}
