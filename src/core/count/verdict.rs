//! What a comparison says.

use std::collections::{BTreeMap, BTreeSet};

use super::alike::are_alike;
use super::chance::{How, Measured, Sides, Told};
use super::span::{self, Span};
use super::{Amount, Question, WINDOW, bounds, share};

/// From this share on, what both have is most of it. Counted twice it would be a far larger mistake than the rest, which is left
/// out and named in the alert.
const MOST: f64 = 0.8;
/// Down to this share, a verdict `same` stays: a source near the limit must not count on one day and not on the next.
const STILL_MOST: f64 = 0.6;
/// Up to this share, what both have is a few records.
const FEW: f64 = 0.2;
/// Fewest records on each side, and days, to say anything. Fewer than five equal amounts may be chance.
const RECORDS: usize = 5;
const DAYS: usize = 2;
/// In fewer days, amounts that are all equal say nothing yet.
const DAYS_OF_EQUAL: i32 = 14;
/// Days at both ends that are not compared, where there are enough: the partners of their records may lie outside.
const DAYS_WITH_ENDS: i32 = 14;
/// Where chance finds more than this within the window, records are compared on the same day only.
const WIDE_CHANCE: f64 = 0.5;
/// Where more than this is left, totals are tried.
const LEFT_FOR_TOTALS: f64 = 0.1;
/// From this share on, what both have is all of it.
const ALL: f64 = 0.95;
/// Most samples of each kind.
const SAMPLES: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Most of the source is on the other side too.
    Same,
    /// Little is.
    Separate,
    /// A person should look.
    Unclear,
    /// There is too little to compare.
    TooEarly,
}

/// Why a person should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A part of the source is on the other side too.
    Part,
    /// A part of the other side is in this source, which has more besides.
    PartOfOthers,
    /// Both have their records on the same days, with other amounts.
    Alike,
    /// The same, in other currencies.
    Currencies,
    /// The amounts are so equal that they say nothing.
    EqualAmounts,
}

/// A record, and its partner if it has one: the other source and the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub amount: Amount,
    pub partner: Option<(usize, i32)>,
    pub is_explained: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    pub verdict: Verdict,
    pub reason: Option<Reason>,
    /// The compared days, and how many of them have records of the source.
    pub from: i32,
    pub to: i32,
    pub days: usize,
    pub own: usize,
    pub others: usize,
    pub matched: usize,
    pub share: f64,
    pub money: f64,
    pub share_by_chance: f64,
    pub money_by_chance: f64,
    /// Of each other source: records that are in pairs, and their share of all beyond chance.
    pub partners: Vec<(usize, f64)>,
    /// Whether some records are totals of others.
    pub has_totals: bool,
    /// What has no partner, by currency.
    pub left: Vec<(u16, i128)>,
    pub samples: Vec<Sample>,
    /// Days between which the other side has the money, where that is not all of the compared time.
    pub span: Span,
    /// The last day most of whose records are on the other side.
    pub last_matched: Option<i32>,
    /// Records of the others for one of the source.
    pub ratio: f64,
}

/// Compares a source with the others. `None`: they share no day.
pub fn compare(question: &Question) -> Option<Comparison> {
    let (first, last) = bounds(&question.own)?;
    let (others_first, others_last) = bounds(&question.others)?;
    let (from, to) = (first.max(others_first), last.min(others_last));
    if from > to {
        return None;
    }
    let ends = if to - from + 1 >= DAYS_WITH_ENDS {
        WINDOW
    } else {
        0
    };
    let within = |amounts: &[Amount], from: i32, to: i32| -> Vec<Amount> {
        let is_within = |it: &&Amount| (from..=to).contains(&it.day);
        amounts.iter().filter(is_within).copied().collect()
    };
    let own = within(&question.own, from + ends, to - ends);
    let others = within(&question.others, from, to);
    let refunds = within(&question.refunds, from, to);
    let sides = Sides {
        own: &own,
        others: &others,
        refunds: &refunds,
        counts: &question.counts,
        days: (from, to),
    };
    let days = own.iter().map(|it| it.day).collect::<BTreeSet<i32>>().len();
    if own.len() < RECORDS || others.len() < RECORDS || days < DAYS {
        let mut early = described(&sides, &sides.measure(How::Window { totals: false }), days);
        early.verdict = Verdict::TooEarly;
        return Some(early);
    }
    Some(judged(&sides, days, question.was_same))
}

fn judged(sides: &Sides, days: usize, was_same: bool) -> Comparison {
    let mut measured = sides.measure(How::Window { totals: false });
    if 1.0 - measured.real.share > LEFT_FOR_TOTALS {
        let with_totals = sides.measure(How::Window { totals: true });
        if with_totals.real.share > measured.real.share {
            measured = with_totals;
        }
    }
    if measured.is_wide(WIDE_CHANCE) {
        measured = sides.measure(How::SameDay);
    }
    let mut comparison = described(sides, &measured, days);
    let (told, told_of_money) = measured.told();
    let most = if was_same { STILL_MOST } else { MOST };
    let (verdict, reason) = match (told, told_of_money) {
        (Told::Nothing, _) if measured.real.share < 0.5 => (Verdict::Separate, None),
        // Equal prices: the numbers of records of each day tell.
        (Told::Nothing, _) if measured.real.share >= ALL && is_alike(sides) => {
            (Verdict::Same, None)
        }
        (Told::Nothing, _) if sides.days.1 - sides.days.0 + 1 < DAYS_OF_EQUAL => {
            (Verdict::TooEarly, None)
        }
        (Told::Nothing, _) => (Verdict::Unclear, Some(Reason::EqualAmounts)),
        (Told::Share(records), money) => {
            let money = match money {
                Told::Share(money) => money,
                Told::Nothing => records,
            };
            if records.min(money) >= most || is_within(sides, &comparison.span, &measured, most) {
                (Verdict::Same, None)
            } else {
                comparison.span = Span::default();
                unlike(sides, records.max(money), &comparison)
            }
        }
    };
    if verdict != Verdict::Same {
        comparison.span = Span::default();
    }
    (comparison.verdict, comparison.reason) = (verdict, reason);
    comparison
}

/// Whether most of the source is on the other side on the days between which the other side has something.
fn is_within(sides: &Sides, span: &Span, measured: &Measured, most: f64) -> bool {
    if *span == Span::default() {
        return false;
    }
    let is_in = |it: &Amount| {
        span.first.is_none_or(|first| it.day >= first)
            && span.last.is_none_or(|last| it.day <= last)
    };
    let inner: Vec<bool> = sides
        .own
        .iter()
        .zip(&measured.real.explained)
        .filter(|(it, _)| is_in(it))
        .map(|(_, explained)| *explained)
        .collect();
    let found = share(inner.iter().filter(|it| **it).count(), inner.len());
    let (by_chance, _) = measured.by_chance();
    inner.len() >= 4 * RECORDS && (found - by_chance) / (1.0 - by_chance).max(0.01) >= most
}

/// What it is if it is not the same.
fn unlike(sides: &Sides, told: f64, comparison: &Comparison) -> (Verdict, Option<Reason>) {
    if told >= FEW {
        return (Verdict::Unclear, Some(Reason::Part));
    }
    if comparison.partners.iter().any(|(_, share)| *share >= FEW) {
        return (Verdict::Unclear, Some(Reason::PartOfOthers));
    }
    if !is_alike(sides) {
        return (Verdict::Separate, None);
    }
    let currencies = |amounts: &[Amount]| {
        amounts
            .iter()
            .map(|it| it.currency)
            .collect::<BTreeSet<u16>>()
    };
    let has_common = !currencies(sides.own).is_disjoint(&currencies(sides.others));
    let reason = if has_common {
        Reason::Alike
    } else {
        Reason::Currencies
    };
    (Verdict::Unclear, Some(reason))
}

/// Whether both have their records on the same days. The source's records of the first and last days are left out, and so are
/// those days.
fn is_alike(sides: &Sides) -> bool {
    let (own, others) = (sides.by_day(sides.own), sides.by_day(sides.others));
    let first = own.iter().position(|count| *count > 0).unwrap_or(0);
    let last = own.iter().rposition(|count| *count > 0).unwrap_or(0);
    let middle =
        |days: &[usize]| -> Vec<usize> { days.get(first..=last).unwrap_or_default().to_vec() };
    are_alike(&middle(&own), &middle(&others))
}

fn described(sides: &Sides, measured: &Measured, days: usize) -> Comparison {
    let real = &measured.real;
    let sizes = sides.sizes(real.of_others.len());
    let told = measured.told_of_others(&sizes);
    let mut left: BTreeMap<u16, i128> = BTreeMap::new();
    for (it, _) in sides
        .own
        .iter()
        .zip(&real.explained)
        .filter(|(_, explained)| !**explained)
    {
        *left.entry(it.currency).or_default() += it.value;
    }
    let sample = |(at, amount): (usize, &Amount)| {
        let partner = real.pairs.of_own.get(at).copied().flatten();
        let partner = partner.and_then(|at| sides.others.get(at));
        Sample {
            amount: *amount,
            partner: partner.map(|it| (it.source, it.day)),
            is_explained: real.explained.get(at).copied().unwrap_or(false),
        }
    };
    let samples = || sides.own.iter().enumerate().map(sample);
    let some = |explained: bool| {
        samples()
            .filter(move |it| it.is_explained == explained)
            .take(SAMPLES)
    };
    let matched = real.explained.iter().filter(|it| **it).count();
    let (share_by_chance, money_by_chance) = measured.by_chance();
    let (span, last_matched) = span::of_matches(sides, &real.explained);
    Comparison {
        verdict: Verdict::Unclear,
        reason: None,
        from: sides.days.0,
        to: sides.days.1,
        days,
        own: sides.own.len(),
        others: sides.others.len(),
        matched,
        share: real.share,
        money: real.money,
        share_by_chance,
        money_by_chance,
        partners: real.of_others.iter().copied().zip(told).collect(),
        has_totals: matched > real.pairs.count(),
        left: left.into_iter().collect(),
        samples: some(true).chain(some(false)).collect(),
        span,
        last_matched,
        ratio: share(sides.others.len(), sides.own.len()),
    }
}
