//! The pipeline as one function: the raw table, the mappings and the rates go in, metrics come out.
//!
//! It follows the comments of the tables and of `metric_mappings`' columns, and shares no code with them.

use std::collections::{BTreeMap, BTreeSet};

use crate::exact::{Day, Exact, Zone};
use crate::order::{Amount, Label, Order, When};

pub type Kind = &'static str;

pub const FOUR: [Kind; 4] = ["revenue", "costs", "inventory", "staffing"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregation {
    Sum,
    Last,
    Average,
    DistinctCount,
}

impl Aggregation {
    pub fn name(self) -> &'static str {
        match self {
            Aggregation::Sum => "sum",
            Aggregation::Last => "last",
            Aggregation::Average => "average",
            Aggregation::DistinctCount => "distinct_count",
        }
    }
}

/// What a tenant has defined besides the four types, which are summed, and whose facts have a currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    pub aggregation: Aggregation,
    pub is_money: bool,
    pub may_be_negative: bool,
}

pub const FOUR_ARE: Measure = Measure {
    aggregation: Aggregation::Sum,
    is_money: true,
    may_be_negative: false,
};

/// The row that stores a record, of the connector with this id, and the record's: its id tells which of two was first.
pub type Rows = BTreeMap<(String, String), String>;

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
    pub counts_texts: bool,
    /// How close its source is to the sale.
    pub class: Option<&'static str>,
}

/// A record and what became of it.
#[derive(Debug, Clone)]
pub struct Record {
    /// What the vendor shows; `None`: it is not shown any more.
    pub served: Option<Order>,
    /// What the raw table holds.
    pub stored: Option<Stored>,
}

/// A row of the raw table.
#[derive(Debug, Clone)]
pub struct Stored {
    /// What its JSON says, or said before it was dropped.
    pub order: Order,
    pub deleted: bool,
    /// The text of the last sync that wrote it, which tells later ones that nothing is new. `None`: a person wrote it last.
    pub text: Option<String>,
    /// Older than what is kept.
    pub is_old: bool,
    /// Its JSON was dropped: these facts are what it goes on to count.
    pub kept: Option<Vec<Fact>>,
}

#[derive(Debug)]
pub struct Tenant {
    /// The JSON of its old records is dropped.
    pub has_retention: bool,
    pub zone: Zone,
    pub currency: &'static str,
    pub days: Vec<Day>,
    /// By connector, by the vendor's id.
    pub records: Vec<BTreeMap<usize, Record>>,
    pub mappings: Vec<Mapping>,
    pub measures: BTreeMap<Kind, Measure>,
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
pub struct Fact {
    connector: usize,
    pub kind: Kind,
    day: Day,
    category: String,
    currency: String,
    value: Exact,
    /// What is counted where texts are.
    text: Option<String>,
    /// What decides which of two facts is the later one.
    place: Place,
}

/// The moment, the record's row, the mapping and the part. A fact has a moment where its measure was the last of a day when it
/// was derived; all others are earlier.
type Place = (Option<i64>, String, i32, usize);

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
    pub currency: Option<String>,
    pub facts: usize,
    /// Of an average: the sum, and of how many.
    pub average_of: Option<(Exact, usize)>,
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
    /// Records without their JSON, by connector and id.
    pub dropped: BTreeSet<(String, String)>,
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

    pub fn measure(&self, kind: Kind) -> Measure {
        self.measures.get(kind).copied().unwrap_or(FOUR_ARE)
    }

    pub fn outcome(
        &self,
        rates: &Rates,
        rows: &Rows,
        name_of: impl Fn(usize) -> String,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let mut days: BTreeMap<(Kind, Day), Vec<Fact>> = BTreeMap::new();
        for (connector, records) in self.records.iter().enumerate() {
            let mappings = self.mappings_of(connector);
            for (id, record) in records {
                let Some(stored) = &record.stored else {
                    continue;
                };
                let key = (name_of(connector), format!("orders/{id}"));
                let row = rows.get(&key).map_or("", |row| row);
                let (facts, problem) = self.count(&mappings, connector, stored, row);
                for fact in facts {
                    outcome.facts += 1;
                    days.entry((fact.kind, fact.day)).or_default().push(fact);
                }
                if stored.kept.is_some() {
                    outcome.dropped.insert(key.clone());
                }
                if let Some(problem) = problem {
                    outcome.quarantine.insert(key, problem.into());
                }
            }
        }
        for (&(kind, day), facts) in &days {
            let measure = self.measure(kind);
            let (total, data) = self.sum(measure, facts, rates, &name_of);
            if !data.unconverted.is_empty() {
                outcome.alerts.insert(format!("fx:{kind}:{day}"));
            }
            match total {
                Some(total) if total.is_negative() && !measure.may_be_negative => {
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

    /// What a row counts, and why it is in quarantine.
    fn count(
        &self,
        mappings: &[&Mapping],
        connector: usize,
        stored: &Stored,
        row: &str,
    ) -> (Vec<Fact>, Option<&'static str>) {
        let (mut all, mut problem) = (vec![], None);
        if let Some(kept) = &stored.kept {
            all.extend(kept.iter().cloned().map(|mut fact| {
                fact.place.1 = row.to_owned();
                fact
            }));
        } else if !stored.deleted {
            for mapping in mappings {
                match self.facts(mapping, connector, &stored.order, row) {
                    Ok(facts) => all.extend(facts),
                    Err(found) => problem = problem.or(Some(found)),
                }
            }
        }
        (all, problem)
    }

    /// The old rows of a connector lose their JSON, but those in quarantine; returns how many.
    pub fn drop_old(&mut self, connector: usize) -> usize {
        let mappings = self.mappings_of(connector);
        let mut dropped = vec![];
        for (id, record) in &self.records[connector] {
            let due = |stored: &&Stored| stored.is_old && stored.kept.is_none();
            let Some(stored) = record.stored.as_ref().filter(due) else {
                continue;
            };
            if let (facts, None) = self.count(&mappings, connector, stored, "") {
                dropped.push((*id, facts));
            }
        }
        let count = dropped.len();
        for (id, facts) in dropped {
            let record = self.records[connector].get_mut(&id);
            if let Some(stored) = record.and_then(|record| record.stored.as_mut()) {
                stored.kept = Some(facts);
            }
        }
        count
    }

    /// A record of which one part is wrong counts with no part.
    fn facts(
        &self,
        mapping: &Mapping,
        connector: usize,
        order: &Order,
        row: &str,
    ) -> Result<Vec<Fact>, &'static str> {
        let texts = mapping.counts_texts;
        let place = |item: usize| (row.to_owned(), mapping.id, item);
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
            Value::Total if texts => {
                let counted = Counted::Text(&order.category.means);
                Ok(vec![self.fact(
                    mapping,
                    connector,
                    order,
                    counted,
                    category,
                    place(1),
                )?])
            }
            Value::Total => {
                let counted = Counted::Amount(order.total.means);
                Ok(vec![self.fact(
                    mapping,
                    connector,
                    order,
                    counted,
                    category,
                    place(1),
                )?])
            }
            Value::OnlyLine if texts => {
                let there: Vec<&Label> = order
                    .lines
                    .iter()
                    .filter(|line| line.category.json.is_some())
                    .map(|line| &line.category.means)
                    .collect();
                let counted = match there.as_slice() {
                    [] => &Label::Missing,
                    [only] => *only,
                    _ => return Err("value_ambiguous"),
                };
                let counted = Counted::Text(counted);
                Ok(vec![self.fact(
                    mapping,
                    connector,
                    order,
                    counted,
                    category,
                    place(1),
                )?])
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
                let counted = Counted::Amount(amount);
                Ok(vec![self.fact(
                    mapping,
                    connector,
                    order,
                    counted,
                    category,
                    place(1),
                )?])
            }
            Value::Lines => order
                .lines
                .iter()
                .enumerate()
                .map(|(number, line)| {
                    let category = match mapping.category {
                        Category::Line => &line.category.means,
                        _ => category,
                    };
                    let counted = match texts {
                        true => Counted::Text(&line.category.means),
                        false => Counted::Amount(line.amount.means),
                    };
                    self.fact(
                        mapping,
                        connector,
                        order,
                        counted,
                        category,
                        place(number + 1),
                    )
                })
                .collect(),
        }
    }

    fn fact(
        &self,
        mapping: &Mapping,
        connector: usize,
        order: &Order,
        counted: Counted,
        category: &Label,
        (row, id, item): (String, i32, usize),
    ) -> Result<Fact, &'static str> {
        let is_money = self.measure(mapping.kind).is_money;
        let currency = match mapping.has_currency {
            _ if !is_money => Some(""),
            true => order.currency.means.as_deref(),
            false => Some(self.currency),
        };
        let mut text = None;
        let value = match counted {
            Counted::Amount(Amount::Missing) | Counted::Text(Label::Missing) => {
                return Err("value_missing");
            }
            Counted::Amount(Amount::Unreadable) | Counted::Text(Label::Unreadable) => {
                return Err("value_unreadable");
            }
            Counted::Text(Label::Text(found)) => {
                text = Some(found.clone());
                Exact::ONE
            }
            Counted::Amount(Amount::Value(value)) => {
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
        let (day, moment) = match order.at.means {
            When::Missing => return Err("date_missing"),
            When::Unreadable => return Err("date_unreadable"),
            When::Day(day, second) => (day, self.zone.moment(day, second)),
            When::Moment(moment) => (self.zone.day(moment.div_euclid(1_000)), moment),
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
        if is_money && currency.len() != 3 {
            return Err("currency_unreadable");
        }
        let is_last = self.measure(mapping.kind).aggregation == Aggregation::Last;
        let moment = is_last.then_some(moment);
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
            text,
            place: (moment.filter(|_| !is_refund), row, id, item),
        })
    }

    /// What the facts of one day come to; no total where none of them could be converted.
    fn sum(
        &self,
        measure: Measure,
        facts: &[Fact],
        rates: &Rates,
        name_of: impl Fn(usize) -> String,
    ) -> (Option<Exact>, Data) {
        let mut data = Data {
            category: String::new(),
            currency: measure.is_money.then(|| self.currency.into()),
            facts: 0,
            average_of: None,
            categories: BTreeMap::new(),
            sources: BTreeMap::new(),
            unconverted: BTreeMap::new(),
        };
        let mut all = Gathered::default();
        let mut categories: BTreeMap<String, Gathered> = BTreeMap::new();
        let mut sources: BTreeMap<String, Gathered> = BTreeMap::new();
        let mut left_out: BTreeMap<String, (Option<Exact>, usize)> = BTreeMap::new();
        for fact in facts {
            let rate = rates
                .iter()
                .find(|((to, day, from), _)| {
                    (*to, *day, *from) == (self.currency, fact.day, fact.currency.as_str())
                })
                .map(|(_, rate)| *rate);
            let counted = match fact.currency == self.currency || fact.currency.is_empty() {
                true => Some(fact.value),
                false => rate.map(|rate| fact.value.times(rate)),
            };
            let name = name_of(fact.connector);
            let part = part(fact.kind, &fact.category);
            if self.decisions.get(&(fact.connector, fact.kind, part)) == Some(&false) {
                let (left, facts) = left_out.entry(name).or_insert((None, 0));
                *facts += 1;
                if let Some(counted) = counted {
                    *left = Some(left.unwrap_or(Exact::ZERO).plus(counted));
                }
                continue;
            }
            let source = sources.entry(name).or_default();
            source.facts += 1;
            data.facts += 1;
            match counted {
                Some(counted) => {
                    all.add(fact, counted);
                    source.add(fact, counted);
                    let category = categories.entry(fact.category.clone()).or_default();
                    category.add(fact, counted);
                }
                None => {
                    let missing = data.unconverted.entry(fact.currency.clone());
                    let missing = missing.or_insert(Exact::ZERO);
                    *missing = missing.plus(fact.value);
                }
            }
        }
        let of = measure.aggregation;
        for (name, gathered) in categories {
            data.categories
                .extend(gathered.value(of).map(|value| (name, value)));
        }
        for (name, gathered) in sources {
            let source = Source {
                value: gathered.value(of),
                facts: gathered.facts,
                is_left_out: false,
                not_counted: left_out.remove(&name),
            };
            data.sources.insert(name, source);
        }
        for (name, (value, facts)) in left_out {
            let source = Source {
                value,
                facts,
                is_left_out: true,
                not_counted: None,
            };
            data.sources.insert(name, source);
        }
        data.category = match data.categories.keys().next() {
            Some(only) if data.categories.len() == 1 => only.clone(),
            _ => "mixed".into(),
        };
        let total = all.value(of);
        if of == Aggregation::Average && total.is_some() {
            data.average_of = Some((all.sum, all.counted));
        }
        (total, data)
    }
}

/// What a mapping has found to count.
enum Counted<'a> {
    Amount(Amount),
    Text(&'a Label),
}

/// The facts that count together.
#[derive(Default)]
struct Gathered {
    facts: usize,
    counted: usize,
    sum: Exact,
    last: Option<(Place, Exact)>,
    texts: BTreeSet<String>,
}

impl Gathered {
    fn add(&mut self, fact: &Fact, counted: Exact) {
        self.counted += 1;
        self.sum = self.sum.plus(counted);
        self.texts.extend(fact.text.clone());
        if self
            .last
            .as_ref()
            .is_none_or(|(place, _)| *place < fact.place)
        {
            self.last = Some((fact.place.clone(), counted));
        }
    }

    fn value(&self, aggregation: Aggregation) -> Option<Exact> {
        match aggregation {
            _ if self.counted == 0 => None,
            Aggregation::Sum => Some(self.sum),
            Aggregation::Last => self.last.as_ref().map(|(_, value)| *value),
            Aggregation::Average => Some(self.sum.shared_by(self.counted)),
            Aggregation::DistinctCount => Some(Exact::new(self.texts.len() as i128, 0)),
        }
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
