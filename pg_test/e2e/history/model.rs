//! The pipeline as one function: the raw table, the mappings and the rates go in, metrics come out.
//!
//! It follows the comments of the tables and of `metric_mappings`' columns, and shares no code with them.

use std::collections::{BTreeMap, BTreeSet};

use crate::exact::{Day, Exact, Zone};
use crate::order::{Amount, Label, Order, When};

pub type Kind = &'static str;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Negative {
    Reject,
    Net,
    Costs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    None,
    Paid,
    NotCancelled,
    /// The same as `Paid`, as a filter expression.
    OnlyPaid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// The record's total.
    Total,
    /// The amounts of all lines: readable only where there is exactly one.
    OnlyLine,
    /// Each line counts for itself.
    Lines,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    None,
    /// Of the record.
    Record,
    /// Of the line, where each line counts for itself.
    Line,
    Food,
}

#[derive(Debug, Clone)]
pub struct Mapping {
    pub id: i32,
    /// Position of the connector; without one the mapping is for all of the tenant's.
    pub connector: Option<usize>,
    pub kind: Kind,
    pub value: Value,
    pub category: Category,
    pub has_currency: bool,
    pub filter: Filter,
    pub negative: Negative,
    pub factor: Exact,
    pub is_minor: bool,
    pub is_active: bool,
    /// How close its source is to the sale.
    pub class: Option<&'static str>,
}

/// A record and what became of it.
#[derive(Debug, Clone)]
pub struct Record {
    /// What the vendor shows; `None`: it is not shown any more.
    pub served: Option<Order>,
    /// What the raw table holds, and whether the row says deleted.
    pub stored: Option<(Order, bool)>,
}

#[derive(Debug)]
pub struct Tenant {
    pub zone: Zone,
    pub currency: &'static str,
    pub days: Vec<Day>,
    /// By connector, by the vendor's id.
    pub records: Vec<BTreeMap<usize, Record>>,
    pub mappings: Vec<Mapping>,
    /// What somebody decided: by connector, metric type and part, whether it counts.
    pub decisions: BTreeMap<(usize, Kind, &'static str), bool>,
    /// Metrics that a person entered.
    pub by_hand: BTreeMap<(Kind, Day), Exact>,
    /// Everything that happened, for the report of a failure.
    pub log: Vec<String>,
}

/// Rates by the currency it is changed to, the day, and the currency it is changed from.
pub type Rates = BTreeMap<(&'static str, Day, &'static str), Exact>;

#[derive(Debug, Clone)]
struct Fact {
    connector: usize,
    kind: Kind,
    day: Day,
    category: String,
    currency: String,
    value: Exact,
}

/// What one connector has of a day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    pub value: Option<Exact>,
    pub facts: usize,
    /// Nothing of it counts.
    pub is_left_out: bool,
    /// What of it does not count, where something else does.
    pub not_counted: Option<(Option<Exact>, usize)>,
}

/// What `metrics.data` says of a derived metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    pub category: String,
    pub currency: String,
    pub facts: usize,
    pub categories: BTreeMap<String, Exact>,
    pub sources: BTreeMap<String, Source>,
    pub unconverted: BTreeMap<String, Exact>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    pub value: Exact,
    pub derived: Option<Exact>,
    pub by_hand: bool,
    /// Not of those that a person entered: it stays as it was then.
    pub data: Option<Data>,
}

/// Everything that a tenant should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub metrics: BTreeMap<(String, String), Metric>,
    pub facts: usize,
    /// Why a record is in quarantine, by connector and id.
    pub quarantine: BTreeMap<(String, String), String>,
    /// Keys of the open alerts over rates and negative sums.
    pub alerts: BTreeSet<String>,
}

impl Tenant {
    /// The mappings that count for a connector: its own hide the tenant's, even where they are inactive.
    fn mappings_of(&self, connector: usize) -> Vec<&Mapping> {
        let own = |m: &&Mapping| m.connector == Some(connector);
        let hidden: BTreeSet<Kind> = self.mappings.iter().filter(own).map(|m| m.kind).collect();
        let counts = |m: &&Mapping| match m.connector {
            Some(of) => of == connector,
            None => !hidden.contains(m.kind),
        };
        let mut found: Vec<&Mapping> = self
            .mappings
            .iter()
            .filter(counts)
            .filter(|m| m.is_active)
            .collect();
        found.sort_by_key(|m| m.id);
        found
    }

    pub fn outcome(&self, rates: &Rates, name_of: impl Fn(usize) -> String) -> Outcome {
        let mut outcome = Outcome::default();
        let mut days: BTreeMap<(Kind, Day), Vec<Fact>> = BTreeMap::new();
        for (connector, records) in self.records.iter().enumerate() {
            let mappings = self.mappings_of(connector);
            for (id, record) in records {
                let Some((order, false)) = &record.stored else {
                    continue;
                };
                let mut problem = None;
                for mapping in &mappings {
                    match self.facts(mapping, connector, order) {
                        Ok(facts) => {
                            for fact in facts {
                                outcome.facts += 1;
                                days.entry((fact.kind, fact.day)).or_default().push(fact);
                            }
                        }
                        Err(found) => problem = problem.or(Some(found)),
                    }
                }
                if let Some(problem) = problem {
                    let key = (name_of(connector), format!("orders/{id}"));
                    outcome.quarantine.insert(key, problem.into());
                }
            }
        }
        for (&(kind, day), facts) in &days {
            let (total, data) = self.sum(facts, rates, &name_of);
            if !data.unconverted.is_empty() {
                outcome.alerts.insert(format!("fx:{kind}:{day}"));
            }
            match total {
                Some(total) if total.is_negative() => {
                    outcome.alerts.insert(format!("net:{kind}:{day}"));
                }
                Some(total) => {
                    let metric = Metric {
                        value: total,
                        derived: Some(total),
                        by_hand: false,
                        data: Some(data),
                    };
                    outcome
                        .metrics
                        .insert((kind.into(), day.to_string()), metric);
                }
                None => {}
            }
        }
        for (&(kind, day), &value) in &self.by_hand {
            let key = (kind.to_owned(), day.to_string());
            let derived = outcome.metrics.get(&key).map(|metric| metric.value);
            let metric = Metric {
                value,
                derived,
                by_hand: true,
                data: None,
            };
            outcome.metrics.insert(key, metric);
        }
        outcome
    }

    /// A record of which one part is wrong counts with no part.
    fn facts(
        &self,
        mapping: &Mapping,
        connector: usize,
        order: &Order,
    ) -> Result<Vec<Fact>, &'static str> {
        let passes = match mapping.filter {
            Filter::None => true,
            Filter::Paid | Filter::OnlyPaid => order.status == Some("paid"),
            Filter::NotCancelled => order.status != Some("cancelled"),
        };
        if !passes {
            return Ok(vec![]);
        }
        let category = match mapping.category {
            Category::None => &Label::Missing,
            Category::Record | Category::Line => &order.category.means,
            Category::Food => &Label::Text("food".into()),
        };
        match mapping.value {
            Value::Total => {
                let fact = self.fact(mapping, connector, order, order.total.means, category)?;
                Ok(vec![fact])
            }
            Value::OnlyLine => {
                let mut there = order.lines.iter().map(|line| &line.amount);
                let mut there = there.by_ref().filter(|amount| amount.json.is_some());
                let amount = match (there.next(), there.next()) {
                    (None, _) => Amount::Missing,
                    (Some(only), None) => only.means,
                    // Before anything else that may be wrong with the record.
                    (Some(_), Some(_)) => return Err("value_ambiguous"),
                };
                Ok(vec![
                    self.fact(mapping, connector, order, amount, category)?,
                ])
            }
            Value::Lines => order
                .lines
                .iter()
                .map(|line| {
                    let category = match mapping.category {
                        Category::Line => &line.category.means,
                        _ => category,
                    };
                    self.fact(mapping, connector, order, line.amount.means, category)
                })
                .collect(),
        }
    }

    fn fact(
        &self,
        mapping: &Mapping,
        connector: usize,
        order: &Order,
        amount: Amount,
        category: &Label,
    ) -> Result<Fact, &'static str> {
        let currency = match mapping.has_currency {
            true => order.currency.means.as_deref(),
            false => Some(self.currency),
        };
        let value = match amount {
            Amount::Missing => return Err("value_missing"),
            Amount::Unreadable => return Err("value_unreadable"),
            Amount::Value(value) => {
                let unit = match currency {
                    _ if !mapping.is_minor => Exact::ONE,
                    Some("JPY") => Exact::ONE,
                    _ => Exact::new(1, 2),
                };
                value.times(mapping.factor).times(unit)
            }
        };
        if value.is_too_large() {
            return Err("value_out_of_range");
        }
        if value.is_negative() && mapping.negative == Negative::Reject {
            return Err("negative_value");
        }
        let day = match order.at.means {
            When::Missing => return Err("date_missing"),
            When::Unreadable => return Err("date_unreadable"),
            When::Day(day) => day,
            When::Moment(moment) => self.zone.day(moment),
        };
        if day > Day::new(2098, 12, 31) {
            return Err("date_in_future");
        }
        if day < Day::new(1900, 1, 1) {
            return Err("date_out_of_range");
        }
        let category = match category {
            Label::Unreadable => return Err("category_unreadable"),
            Label::Missing => "uncategorized".into(),
            Label::Text(text) => text.chars().take(200).collect(),
        };
        let Some(currency) = currency else {
            return Err("currency_missing");
        };
        if currency.len() != 3 {
            return Err("currency_unreadable");
        }
        let is_refund = value.is_negative() && mapping.negative == Negative::Costs;
        Ok(Fact {
            connector,
            kind: if is_refund { "costs" } else { mapping.kind },
            day,
            category: if is_refund {
                "refunds".into()
            } else {
                category
            },
            currency: currency.to_owned(),
            value: if is_refund { value.negated() } else { value },
        })
    }

    /// The facts of one day; no total where none of them could be converted.
    fn sum(
        &self,
        facts: &[Fact],
        rates: &Rates,
        name_of: impl Fn(usize) -> String,
    ) -> (Option<Exact>, Data) {
        let mut total = None;
        let mut data = Data {
            category: String::new(),
            currency: self.currency.into(),
            facts: 0,
            categories: BTreeMap::new(),
            sources: BTreeMap::new(),
            unconverted: BTreeMap::new(),
        };
        let add = |sum: &mut Exact, value: Exact| *sum = sum.plus(value);
        for fact in facts {
            let rate = rates
                .iter()
                .find(|((to, day, from), _)| {
                    (*to, *day, *from) == (self.currency, fact.day, fact.currency.as_str())
                })
                .map(|(_, rate)| *rate);
            let counted = match fact.currency == self.currency {
                true => Some(fact.value),
                false => rate.map(|rate| fact.value.times(rate)),
            };
            let source = data.sources.entry(name_of(fact.connector)).or_default();
            let part = part(fact.kind, &fact.category);
            if self.decisions.get(&(fact.connector, fact.kind, part)) == Some(&false) {
                let left = source.not_counted.get_or_insert((None, 0));
                left.1 += 1;
                if let Some(counted) = counted {
                    add(left.0.get_or_insert(Exact::ZERO), counted);
                }
                continue;
            }
            source.facts += 1;
            data.facts += 1;
            match counted {
                Some(counted) => {
                    add(total.get_or_insert(Exact::ZERO), counted);
                    add(source.value.get_or_insert(Exact::ZERO), counted);
                    let category = data.categories.entry(fact.category.clone());
                    add(category.or_insert(Exact::ZERO), counted);
                }
                None => {
                    let missing = data.unconverted.entry(fact.currency.clone());
                    add(missing.or_insert(Exact::ZERO), fact.value);
                }
            }
        }
        for source in data.sources.values_mut().filter(|it| it.facts == 0) {
            if let Some((value, facts)) = source.not_counted.take() {
                (source.value, source.facts, source.is_left_out) = (value, facts, true);
            }
        }
        data.category = match data.categories.keys().next() {
            Some(only) if data.categories.len() == 1 => only.clone(),
            _ => "mixed".into(),
        };
        (total, data)
    }
}

/// The part of a metric type that is decided by itself.
fn part(kind: Kind, category: &str) -> &'static str {
    match (kind, category) {
        ("costs", "refunds") => "refunds",
        ("costs", _) => "rest",
        _ => "all",
    }
}
