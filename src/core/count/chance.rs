//! How much two sources have in common, and how much of that is chance.

use std::collections::BTreeMap;

use super::pairs::Pairs;
use super::totals::Totals;
use super::{Amount, WINDOW, money_share, share};

/// How often amounts are compared that do not belong together.
const CONTROLS: u64 = 8;
/// Records from which on fewer of them say as much.
const MANY: usize = 50_000;
const CONTROLS_OF_MANY: u64 = 2;
/// Shares closer to chance than this many standard deviations are taken for chance.
const DISTANCE: f64 = 3.0;
/// Where chance explains more than this, amounts say nothing.
const MOST_CHANCE: f64 = 0.95;

/// Both sides on the days that are compared.
pub struct Sides<'a> {
    pub own: &'a [Amount],
    pub others: &'a [Amount],
    pub refunds: &'a [Amount],
    pub counts: &'a [bool],
    pub days: (i32, i32),
}

/// How records are found on the other side.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// One to one within the window; what is left, as a total.
    Window { totals: bool },
    /// One to one, all of them the same number of days later.
    SameDay,
}

/// What was found.
#[derive(Clone)]
pub struct Found {
    pub pairs: Pairs,
    pub explained: Vec<bool>,
    pub share: f64,
    pub money: f64,
    /// How many records of each of the others are in pairs.
    pub of_others: Vec<usize>,
}

/// What was found, and what is found by chance.
pub struct Measured {
    pub real: Found,
    /// By how often the amounts are there. It is all that a few days can tell.
    by_frequency: Chance,
    share: Chance,
    money: Chance,
    of_others: Vec<Chance>,
}

#[derive(Clone, Copy, Default)]
pub struct Chance {
    pub mean: f64,
    spread: f64,
}

/// What a share says beyond chance.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub enum Told {
    Nothing,
    Share(f64),
}

impl Sides<'_> {
    fn length(&self) -> i32 {
        self.days.1 - self.days.0 + 1
    }

    /// The numbers of records by day.
    pub fn by_day(&self, amounts: &[Amount]) -> Vec<usize> {
        let mut days = vec![0; self.length().unsigned_abs() as usize];
        for it in amounts {
            if let Some(count) = days.get_mut((it.day - self.days.0).unsigned_abs() as usize) {
                *count += 1;
            }
        }
        days
    }

    fn find(&self, how: How) -> Found {
        let (pairs, totals) = match how {
            How::Window { totals } => {
                let window = (-WINDOW, WINDOW);
                (
                    Pairs::find(self.own, self.others, self.counts, window),
                    totals,
                )
            }
            How::SameDay => {
                let found = (-WINDOW..=WINDOW)
                    .map(|later| Pairs::find(self.own, self.others, self.counts, (later, later)));
                let best = found.max_by_key(Pairs::count);
                let none = || Pairs::find(&[], &[], &[], (0, 0));
                (best.unwrap_or_else(none), false)
            }
        };
        let mut explained: Vec<bool> = pairs.of_own.iter().map(Option::is_some).collect();
        if totals {
            Totals::of(self.others, self.refunds, self.days).mark(self.own, &mut explained);
        }
        let sources = 1 + self.others.iter().map(|it| it.source).max().unwrap_or(0);
        let mut of_others = vec![0; sources];
        for at in pairs.of_own.iter().flatten() {
            let source = self.others.get(*at).map_or(0, |it| it.source);
            if let Some(count) = of_others.get_mut(source) {
                *count += 1;
            }
        }
        let count = explained.iter().filter(|it| **it).count();
        Found {
            share: share(count, self.own.len()),
            money: share_of_money(self.own, &explained),
            pairs,
            explained,
            of_others,
        }
    }

    /// Finds records, and what would be found by chance.
    pub fn measure(&self, how: How) -> Measured {
        let real = self.find(how);
        let sizes = self.sizes(real.of_others.len());
        let controls = match self.own.len().max(self.others.len()) > MANY {
            true => CONTROLS_OF_MANY,
            false => CONTROLS,
        };
        let controls: Vec<Found> = (1..=controls)
            .map(|seed| self.shuffled(seed, how))
            .collect();
        let chance = |of: &dyn Fn(&Found) -> f64, count: usize| {
            let shares: Vec<f64> = controls.iter().map(of).collect();
            Chance::of(&shares, count)
        };
        let count = self.own.len();
        let of_other = |at: usize, size: usize| {
            let part =
                move |found: &Found| share(found.of_others.get(at).copied().unwrap_or(0), size);
            chance(&part, size)
        };
        Measured {
            by_frequency: Chance::of(&[self.by_frequency(&real)], count),
            share: chance(&|found| found.share, count),
            money: chance(&|found| found.money, count),
            of_others: sizes
                .iter()
                .enumerate()
                .map(|(at, size)| of_other(at, *size))
                .collect(),
            real,
        }
    }

    /// How many records each of the others has.
    pub fn sizes(&self, sources: usize) -> Vec<usize> {
        let mut sizes = vec![0; sources];
        for it in self.others {
            if let Some(size) = sizes.get_mut(it.source) {
                *size += 1;
            }
        }
        sizes
    }

    /// What is found where the others keep their amounts and their days, but not which belongs to which.
    fn shuffled(&self, seed: u64, how: How) -> Found {
        let mut random = Shuffle(seed);
        let mut shuffle = |amounts: &[Amount]| -> Vec<Amount> {
            let mut days: Vec<i32> = amounts.iter().map(|it| it.day).collect();
            for at in (1..days.len()).rev() {
                days.swap(at, random.below(at + 1));
            }
            let with = |(it, day): (&Amount, i32)| Amount { day, ..*it };
            amounts.iter().zip(days).map(with).collect()
        };
        let (others, refunds) = (shuffle(self.others), shuffle(self.refunds));
        let sides = Sides {
            others: &others,
            refunds: &refunds,
            ..*self
        };
        sides.find(how)
    }

    /// The share that chance would have in a few days: how many further records of the other side have the same amounts.
    #[allow(clippy::cast_precision_loss)]
    fn by_frequency(&self, real: &Found) -> f64 {
        let mut same: BTreeMap<(u16, i128), usize> = BTreeMap::new();
        for it in self.others {
            *same.entry((it.currency, it.value)).or_default() += 1;
        }
        let within = (f64::from(2 * WINDOW + 1) / f64::from(self.length())).min(1.0);
        let chances = self.own.iter().zip(&real.explained).map(|(it, explained)| {
            let all = same.get(&(it.currency, it.value)).copied().unwrap_or(0);
            match *explained && all > 0 {
                true => ((all - 1) as f64 * within).min(1.0),
                false => 0.0,
            }
        });
        chances.sum::<f64>() / self.own.len() as f64
    }
}

impl Measured {
    pub fn by_chance(&self) -> (f64, f64) {
        (self.share.mean, self.money.mean)
    }

    /// Whether chance finds most of the records within the window, however rare their amounts are.
    pub fn is_wide(&self, share: f64) -> bool {
        self.share.mean > share && self.by_frequency.mean > share
    }

    /// What the records say, and what their money says.
    pub fn told(&self) -> (Told, Told) {
        let told = |chance: Chance, share: f64| match chance.told(share) {
            Told::Nothing => self.by_frequency.told(share),
            told => told,
        };
        (
            told(self.share, self.real.share),
            told(self.money, self.real.money),
        )
    }

    /// How much of each of the others is on this side, beyond chance.
    pub fn told_of_others(&self, sizes: &[usize]) -> Vec<f64> {
        let told = |((found, size), chance): ((&usize, &usize), &Chance)| match chance
            .told(share(*found, *size))
        {
            Told::Share(share) => share,
            Told::Nothing => 0.0,
        };
        let found = self.real.of_others.iter().zip(sizes);
        found.zip(&self.of_others).map(told).collect()
    }
}

impl Chance {
    #[allow(clippy::cast_precision_loss)]
    fn of(shares: &[f64], records: usize) -> Chance {
        let (count, records) = (shares.len().max(1) as f64, records.max(1) as f64);
        let mean = shares.iter().sum::<f64>() / count;
        let variance = shares.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / count;
        // A few comparisons may be equal by accident.
        let least = mean * (1.0 - mean) / records + 1.0 / (records * records);
        Chance {
            mean,
            spread: variance.max(least).sqrt(),
        }
    }

    fn told(self, share: f64) -> Told {
        let margin = DISTANCE * self.spread;
        if self.mean > MOST_CHANCE || self.mean > 0.0 && 1.0 - self.mean < margin {
            return Told::Nothing;
        }
        if share - self.mean < margin {
            return Told::Share(0.0);
        }
        Told::Share((share - self.mean) / (1.0 - self.mean))
    }
}

/// Random numbers that are always the same: a verdict must not depend on luck.
struct Shuffle(u64);

impl Shuffle {
    fn below(&mut self, bound: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(bound).unwrap_or(1).max(1);
        usize::try_from((z ^ (z >> 31)) % bound).unwrap_or(0)
    }
}

/// The share of the money: in each currency by itself, and weighted by the number of records.
fn share_of_money(own: &[Amount], explained: &[bool]) -> f64 {
    let mut currencies: BTreeMap<u16, (i128, i128, usize)> = BTreeMap::new();
    for (it, explained) in own.iter().zip(explained) {
        let (part, all, count) = currencies.entry(it.currency).or_default();
        *part += if *explained { it.value.abs() } else { 0 };
        *all += it.value.abs();
        *count += 1;
    }
    let parts = currencies.values();
    parts
        .map(|(part, all, count)| money_share(*part, *all) * share(*count, own.len()))
        .sum()
}
