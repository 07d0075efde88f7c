//! Compares the connectors of a tenant that may see the same money, and decides which of them count.
//!
//! Amounts are read in one transaction, without the tenant's lock, and compared outside of any; the decision is written in
//! another one, under the lock. Connectors are judged from the sale on: the books are compared with the payments, and the
//! payments with the shop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use connector_service_core::count::{
    Amount, Comparison, History, Partner, Question, Reason, Stopped, Verdict, compare, days_of,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::step::{Step, step};
use crate::error::Result;
use crate::store::count::{Amounts, Decision, Due, Source};
use crate::store::{self, count};

/// Days that are compared, back from the last day that two connectors have.
const DAYS: i32 = 90;
/// Fewer days are compared where there are more facts. More: more memory and time.
const MOST_FACTS: usize = 200_000;
/// Longest time to read the amounts, and to write a decision with the sums that it changes.
const READ_WITHIN: Duration = Duration::from_secs(20);
const DECIDED_WITHIN: Duration = Duration::from_secs(30);

/// Parts of a metric type that are decided by themselves, as in `count_decisions`.
const PARTS: [&str; 3] = ["all", "refunds", "rest"];
/// The refunds of revenue, which books may have deducted.
const PAID_BACK: &str = "paid_back";

/// What was read of a tenant's metric type.
struct Read {
    sources: Vec<Source>,
    days: BTreeMap<Uuid, BTreeMap<i32, usize>>,
    decisions: BTreeMap<(Uuid, String), Decision>,
    amounts: Amounts,
}

/// The result of a comparison.
pub enum Compared {
    /// No two kinds of sources have facts.
    Nothing,
    Done {
        changed: bool,
    },
    Locked,
    Costly(String),
}

/// Compares what is due, and decides.
pub fn compare_some(due: &Due, days: i32) -> Result<Compared> {
    let mut read = None;
    let mut asked = Vec::new();
    let days = days.min(DAYS);
    match step(READ_WITHIN, |db| {
        // Before anything is read: what is asked for from now on is compared again.
        asked = count::asked(db, due)?;
        let sources = count::sources(db, due)?;
        let found = count::days(db, due)?;
        if sources.len() < 2 {
            return Ok(Some(0));
        }
        let decisions = count::decisions(db, due)?;
        let amounts = match compared_days(&sources, &found, days) {
            Some(between) => count::amounts(db, due, between)?,
            None => Amounts::default(),
        };
        read = Some(Read {
            sources,
            days: found,
            decisions,
            amounts,
        });
        Ok(Some(0))
    })? {
        Step::Did(_) => {}
        Step::Locked => return Ok(Compared::Locked),
        Step::Costly(why) => return Ok(Compared::Costly(why)),
    }
    let found = read.map(|read| judge(&read)).unwrap_or_default();
    if found.is_empty() && !store::tx(|db| count::has_decisions(db, due))? {
        store::tx(|db| count::forget(db, asked))?;
        return Ok(Compared::Nothing);
    }
    let text = Value::Array(found).to_string();
    let mut changed = false;
    match step(DECIDED_WITHIN, |db| {
        let done = count::decide(db, due, &text, asked)?;
        changed = done == Some(true);
        Ok(done.map(|_| 0))
    })? {
        Step::Did(_) => Ok(Compared::Done { changed }),
        Step::Locked => Ok(Compared::Locked),
        Step::Costly(why) => Ok(Compared::Costly(why)),
    }
}

/// The days to compare: up to the last one that connectors of two kinds have. `None`: there are no two.
fn compared_days(
    sources: &[Source],
    days: &BTreeMap<Uuid, BTreeMap<i32, usize>>,
    most: i32,
) -> Option<(i32, i32)> {
    let mut last_of: BTreeMap<&str, i32> = BTreeMap::new();
    for source in sources {
        let last = days
            .get(&source.connector)
            .and_then(|days| days.keys().next_back());
        if let Some(last) = last {
            let known = last_of.entry(&source.class).or_insert(*last);
            *known = (*known).max(*last);
        }
    }
    let mut lasts: Vec<i32> = last_of.into_values().collect();
    lasts.sort_unstable();
    let last = *lasts.iter().rev().nth(1)?;
    let mut facts = 0;
    let mut first = last;
    for day in ((last - most + 1)..=last).rev() {
        facts += days
            .values()
            .filter_map(|days| days.get(&day))
            .sum::<usize>();
        if facts > MOST_FACTS && day < last {
            break;
        }
        first = day;
    }
    Some((first, last))
}

/// Decides for each connector and part, the closest to the sale first.
fn judge(read: &Read) -> Vec<Value> {
    let mut found = vec![];
    for part in PARTS {
        let of = |source: &Source| read.amounts.of.get(&(source.connector, part.to_owned()));
        let present: Vec<&Source> = read
            .sources
            .iter()
            .filter(|source| of(source).is_some())
            .collect();
        // Which of them count, by what was decided before them.
        let mut counts: BTreeMap<Uuid, bool> = BTreeMap::new();
        for source in &present {
            let before = read.decisions.get(&(source.connector, part.to_owned()));
            if let Some(Decision {
                is_by_person: true,
                counts: their,
                ..
            }) = before
            {
                counts.insert(source.connector, *their);
                continue;
            }
            counts.insert(source.connector, true);
            let is_closer = |other: &&&Source| {
                let by_person = read.decisions.get(&(other.connector, part.to_owned()));
                let is_left_out = by_person.is_some_and(|it| it.is_by_person && !it.counts);
                (other.rank, &other.class) < (source.rank, &source.class) && !is_left_out
            };
            let others: Vec<&Source> = present.iter().filter(is_closer).copied().collect();
            if others.is_empty() {
                continue;
            }
            let question = question(read, part, source, &others, &counts, before);
            let Some(comparison) = compare(&question) else {
                continue;
            };
            counts.insert(source.connector, comparison.verdict != Verdict::Same);
            found.push(decision(
                read,
                part,
                source,
                &others,
                &question,
                &comparison,
                before,
            ));
        }
    }
    found
}

fn question(
    read: &Read,
    part: &str,
    source: &Source,
    others: &[&Source],
    counts: &BTreeMap<Uuid, bool>,
    before: Option<&Decision>,
) -> Question {
    let of = |connector: Uuid, part: &str| {
        let amounts = read.amounts.of.get(&(connector, part.to_owned()));
        amounts.map(Vec::as_slice).unwrap_or_default()
    };
    let all = |part: &str| -> Vec<Amount> {
        let numbered = others.iter().enumerate().flat_map(|(number, other)| {
            let its = of(other.connector, part).iter();
            its.map(move |amount| Amount {
                source: number,
                ..*amount
            })
        });
        numbered.collect()
    };
    Question {
        own: of(source.connector, part).to_vec(),
        others: all(part),
        refunds: all(PAID_BACK),
        counts: others
            .iter()
            .map(|other| counts.get(&other.connector).copied().unwrap_or(true))
            .collect(),
        was_same: before.is_some_and(|before| before.is_same && !before.counts),
    }
}

/// The decision in the form of `connector_service_decide()`.
fn decision(
    read: &Read,
    part: &str,
    source: &Source,
    others: &[&Source],
    question: &Question,
    comparison: &Comparison,
    before: Option<&Decision>,
) -> Value {
    let partners = partners(others, question, comparison);
    let named = |number: &usize| others.get(*number).map(|other| other.connector.to_string());
    let id_of = |number: usize| named(&number).unwrap_or_default();
    let known: Vec<Partner> = partners
        .iter()
        .filter_map(|number| others.get(*number))
        .map(|other| Partner {
            last_record: read
                .days
                .get(&other.connector)
                .and_then(|days| days.keys().next_back())
                .copied(),
            ..other.partner
        })
        .collect();
    let span = before.filter(|before| before.is_same);
    let span = span.map(|before| (before.first, before.last).into());
    let history = match part {
        "all" => history(read, source, &partners, others),
        // Metrics do not tell the parts of costs; what is compared does.
        _ => history_of(question, &partners),
    };
    let (days, stopped) = days_of(comparison, &history, &known, span);
    let is_same = comparison.verdict == Verdict::Same;
    let mut evidence = evidence(&read.amounts.currencies, comparison, id_of);
    if is_same
        && let Stopped::Some(which) = &stopped
        && let Some(evidence) = evidence.as_object_mut()
    {
        let which = which
            .iter()
            .filter_map(|at| partners.get(*at))
            .filter_map(named);
        evidence.insert("stopped".into(), which.collect());
    }
    json!({
        "connector_id": source.connector,
        "part": part,
        "counts": !is_same,
        "first_date": days.first.filter(|_| is_same).and_then(date),
        "last_date": days.last.filter(|_| is_same).and_then(date),
        "verdict": match comparison.verdict {
            Verdict::Same => "same",
            Verdict::Separate => "separate",
            Verdict::Unclear => "unclear",
            Verdict::TooEarly => "too_early",
        },
        "against": partners.iter().filter_map(named).collect::<Vec<String>>(),
        "evidence": evidence,
        "compared_from": date(comparison.from),
        "compared_to": date(comparison.to),
    })
}

/// The others that the source was compared with; where it is the same, those that have it.
fn partners(others: &[&Source], question: &Question, comparison: &Comparison) -> Vec<usize> {
    let with_records: BTreeSet<usize> = question.others.iter().map(|it| it.source).collect();
    let all = || (0..others.len()).filter(|number| with_records.contains(number));
    if comparison.verdict != Verdict::Same {
        return all().collect();
    }
    let matched: usize = comparison.partners.iter().map(|(count, _)| count).sum();
    let is_material = |number: &usize| {
        let count = comparison
            .partners
            .get(*number)
            .map_or(0, |(count, _)| *count);
        20 * count >= matched.max(1)
    };
    let material: Vec<usize> = all().filter(is_material).collect();
    if comparison.has_totals || material.is_empty() {
        // A total belongs to no single one of them: those that count.
        let counting = |number: &usize| question.counts.get(*number).copied().unwrap_or(true);
        return all()
            .filter(|number| is_material(number) || counting(number))
            .collect();
    }
    material
}

fn history(read: &Read, source: &Source, partners: &[usize], others: &[&Source]) -> History {
    let mut theirs: BTreeMap<i32, usize> = BTreeMap::new();
    for other in partners.iter().filter_map(|number| others.get(*number)) {
        for (day, count) in read.days.get(&other.connector).into_iter().flatten() {
            *theirs.entry(*day).or_default() += count;
        }
    }
    History {
        own: read
            .days
            .get(&source.connector)
            .cloned()
            .unwrap_or_default(),
        others: theirs,
    }
}

fn history_of(question: &Question, partners: &[usize]) -> History {
    let mut history = History::default();
    for it in &question.own {
        *history.own.entry(it.day).or_default() += 1;
    }
    for it in question
        .others
        .iter()
        .filter(|it| partners.contains(&it.source))
    {
        *history.others.entry(it.day).or_default() += 1;
    }
    history
}

fn evidence(
    currencies: &[String],
    comparison: &Comparison,
    id_of: impl Fn(usize) -> String,
) -> Value {
    let percent = |share: f64| json!((share * 1000.0).round() / 10.0);
    let currency = |number: u16| {
        currencies
            .get(usize::from(number))
            .cloned()
            .unwrap_or_default()
    };
    let left = comparison
        .left
        .iter()
        .map(|(number, value)| (currency(*number), json!(money(*value))));
    let samples = comparison.samples.iter().map(|sample| {
        let mut shown = json!({
            "amount": money(sample.amount.value),
            "currency": currency(sample.amount.currency),
            "day": date(sample.amount.day),
            "matched": sample.is_explained,
        });
        if let (Some((source, day)), Some(shown)) = (sample.partner, shown.as_object_mut()) {
            shown.insert("in".into(), json!(id_of(source)));
            shown.insert("on".into(), json!(date(day)));
        }
        shown
    });
    let partners = || comparison.partners.iter().enumerate();
    let mut evidence = json!({
        "amounts": comparison.own,
        "others": comparison.others,
        "matched": comparison.matched,
        "share": percent(comparison.share),
        "share_of_money": percent(comparison.money),
        "by_chance": percent(comparison.share_by_chance),
        "money_by_chance": percent(comparison.money_by_chance),
        "days": comparison.days,
        "left": left.collect::<serde_json::Map<String, Value>>(),
        "samples": samples.collect::<Vec<Value>>(),
        "partners": partners().map(|(number, (count, _))| (id_of(number), json!(count))).collect::<serde_json::Map<String, Value>>(),
        "others_share": partners().map(|(number, (_, share))| (id_of(number), percent(*share))).collect::<serde_json::Map<String, Value>>(),
    });
    let reason = comparison.reason.map(|reason| match reason {
        Reason::Part => "part",
        Reason::PartOfOthers => "part_of_others",
        Reason::Alike => "alike",
        Reason::Currencies => "currencies",
        Reason::EqualAmounts => "equal_amounts",
    });
    if let Some(evidence) = evidence.as_object_mut() {
        if let Some(reason) = reason {
            evidence.insert("reason".into(), json!(reason));
        }
        if comparison.has_totals {
            evidence.insert("totals".into(), json!(true));
        }
    }
    evidence
}

/// An amount of 10^-9 as a decimal number, with two decimals at least.
fn money(value: i128) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let digits = format!("{:010}", value.unsigned_abs());
    let (whole, decimals) = digits.split_at(digits.len() - 9);
    let kept = decimals.trim_end_matches('0').len().max(2);
    format!("{sign}{whole}.{}", decimals.get(..kept).unwrap_or(decimals))
}

/// A day since 2000-01-01, as ISO 8601.
fn date(day: i32) -> Option<String> {
    let first = chrono::NaiveDate::from_ymd_opt(2000, 1, 1)?;
    let date = first.checked_add_signed(chrono::TimeDelta::days(day.into()))?;
    Some(date.to_string())
}
