//! Two hundred small businesses, of kinds whose right answer a bookkeeper knows: from how the business was made, and not from
//! its amounts.

use chrono::{DateTime, TimeDelta, Utc};
use connector_service_test::Random;
use serde_json::Value;

use crate::records::*;

/// What a bookkeeper says of a connector beside those that are closer to the sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The same money: it is left out, and an info alert says so.
    Once,
    /// Other money: both count, and an info alert says so.
    Both,
    /// Somebody has to look: both count, and a warning asks.
    Ask,
    /// There is too little yet: both count, and an info alert says so.
    Wait,
}

/// A connector: its name and type.
pub type Connector = (&'static str, &'static str);

pub struct Business {
    pub kind: &'static str,
    pub zone: &'static str,
    pub connectors: Vec<Connector>,
    /// Of these, one that is paused.
    pub paused: Option<usize>,
    pub records: Vec<Record>,
    /// By connector, metric type and part. Nothing else is decided.
    pub words: Vec<(usize, &'static str, &'static str, Word)>,
    /// What all days should come to, in cents of EUR, where that is certain.
    pub revenue: i64,
    pub costs: Option<i64>,
}

/// A name, and what makes a business of the kind.
type Kind = (&'static str, fn(&mut Random) -> Business);

pub const KINDS: [Kind; 25] = [
    ("the same sales", same),
    ("another business", none),
    ("half of the payments are of the shop", half),
    ("settled in another currency", settled),
    ("sold in two currencies", two_currencies),
    ("sales and refunds", refunds),
    ("partial refunds, some days later", partial_refunds),
    ("days shifted by time zones", zones),
    ("books of what was paid out", net),
    ("three prices, the same sales", few_prices),
    ("three prices, two businesses", chance),
    ("two shops, one account", two_shops),
    ("books with the day's total", daily),
    ("books with the week's total", weekly),
    ("tips on top", tips),
    ("books without taxes", taxes),
    ("subscriptions beside the shop", subscriptions),
    ("a few sales", few),
    ("shop, till and books", till),
    ("shop, payments and books", chain),
    ("pipeline and books", pipeline),
    ("payments older than the shop", older),
    ("the shop is paused", paused),
    ("a bank's export", bank),
    ("bills, and their payments", bills),
];

fn start(days: i64) -> DateTime<Utc> {
    let first = Utc::now() - TimeDelta::days(days + 1);
    first
        .date_naive()
        .and_hms_opt(0, 0, 0)
        .expect("midnight")
        .and_utc()
}

/// Sales of so many days, at noon and after, at prices that rarely repeat.
fn sales(random: &mut Random, days: i64, each_day: usize) -> Vec<Sale> {
    let mut sales = vec![];
    for day in 0..days {
        for _ in 0..each_day / 2 + random.below(each_day + 1) {
            let at = start(days)
                + TimeDelta::days(day)
                + TimeDelta::minutes(600 + random.below(500) as i64);
            let cents = 500 + random.below(15_000) as i64;
            sales.push(Sale {
                at,
                cents,
                currency: "EUR",
            });
        }
    }
    sales
}

fn sum(sales: &[Sale]) -> i64 {
    sales
        .iter()
        .filter(|sale| sale.currency == "EUR")
        .map(|sale| sale.cents)
        .sum()
}

impl Business {
    fn new(connectors: &[Connector]) -> Business {
        Business {
            kind: "",
            zone: "UTC",
            connectors: connectors.to_vec(),
            paused: None,
            records: vec![],
            words: vec![],
            revenue: 0,
            costs: None,
        }
    }

    fn has(
        mut self,
        connector: usize,
        sales: &[Sale],
        shown: fn(Sale) -> (&'static str, Value),
    ) -> Business {
        self.records.extend(sales.iter().map(|sale| {
            let (stream, data) = shown(*sale);
            Record {
                connector,
                stream,
                data,
            }
        }));
        self
    }

    fn word(mut self, connector: usize, word: Word) -> Business {
        self.words.push((connector, "revenue", "all", word));
        self
    }

    fn costs_word(mut self, connector: usize, part: &'static str, word: Word) -> Business {
        self.words.push((connector, "costs", part, word));
        self
    }

    fn revenue(mut self, cents: i64) -> Business {
        self.revenue = cents;
        self
    }

    fn costs(mut self, cents: i64) -> Business {
        self.costs = Some(cents);
        self
    }
}

const SHOP: Connector = ("shop", "shopify");
const STRIPE: Connector = ("stripe", "stripe");
const SQUARE: Connector = ("till", "square");
const BOOKS: Connector = ("books", "quickbooks");

/// Paid within minutes.
fn paid(random: &mut Random, sales: &[Sale]) -> Vec<Sale> {
    sales
        .iter()
        .map(|sale| sale.later(random.below(4) as i64))
        .collect()
}

fn fees(sales: &[Sale]) -> i64 {
    sales.iter().map(|sale| fee(sale.cents)).sum()
}

/// Some orders are paid otherwise.
fn same(random: &mut Random) -> Business {
    let orders = sales(random, 30, 5);
    let by_card: Vec<Sale> = orders
        .iter()
        .filter(|_| !random.percent(7))
        .copied()
        .collect();
    let paid = paid(random, &by_card);
    Business::new(&[SHOP, STRIPE])
        .has(0, &orders, order)
        .has(1, &paid, charge)
        .word(1, Word::Once)
        .revenue(sum(&orders))
        .costs(fees(&paid))
}

fn none(random: &mut Random) -> Business {
    let (orders, paid) = (sales(random, 30, 5), sales(random, 30, 8));
    Business::new(&[SHOP, SQUARE])
        .has(0, &orders, order)
        .has(1, &paid, square_payment)
        .word(1, Word::Both)
        .revenue(sum(&orders) + sum(&paid))
}

fn half(random: &mut Random) -> Business {
    let orders = sales(random, 30, 6);
    let mut paid = paid(random, &orders);
    paid.extend(sales(random, 30, 6));
    Business::new(&[SHOP, STRIPE])
        .has(0, &orders, order)
        .has(1, &paid, charge)
        .word(1, Word::Ask)
        .revenue(sum(&orders) + sum(&paid))
}

fn settled(random: &mut Random) -> Business {
    let orders = sales(random, 30, 9);
    let settled: Vec<Sale> = orders
        .iter()
        .map(|sale| Sale {
            cents: sale.cents * 1087 / 1000,
            currency: "USD",
            ..sale.later(2)
        })
        .collect();
    Business::new(&[SHOP, STRIPE])
        .has(0, &orders, order)
        .has(1, &settled, charge)
        .word(1, Word::Ask)
        .revenue(sum(&orders))
}

fn two_currencies(random: &mut Random) -> Business {
    let orders: Vec<Sale> = sales(random, 30, 8)
        .iter()
        .map(|sale| Sale {
            currency: random.pick(&["EUR", "EUR", "GBP"]),
            ..*sale
        })
        .collect();
    let paid = paid(random, &orders);
    Business::new(&[SHOP, STRIPE])
        .has(0, &orders, order)
        .has(1, &paid, charge)
        .word(1, Word::Once)
        .revenue(sum(&orders))
}

fn refunds(random: &mut Random) -> Business {
    let orders = sales(random, 40, 6);
    let paid = paid(random, &orders);
    let back: Vec<Sale> = orders
        .iter()
        .filter(|_| random.percent(15))
        .map(|sale| sale.later(1500))
        .collect();
    let back: Vec<Sale> = back
        .into_iter()
        .filter(|sale| sale.at < Utc::now() - TimeDelta::days(1))
        .collect();
    Business::new(&[SHOP, STRIPE])
        .has(0, &orders, order)
        .has(0, &back, shop_refund)
        .has(1, &paid, charge)
        .has(1, &back, charge_refund)
        .word(1, Word::Once)
        .costs_word(1, "refunds", Word::Once)
        .revenue(sum(&orders))
        .costs(fees(&paid) + sum(&back))
}

fn partial_refunds(random: &mut Random) -> Business {
    let orders = sales(random, 40, 6);
    let paid = paid(random, &orders);
    let mut back = vec![];
    for sale in orders
        .iter()
        .filter(|sale| sale.at < Utc::now() - TimeDelta::days(8))
    {
        if random.percent(20) {
            let cents = 100 + random.below(sale.cents as usize - 100) as i64;
            back.push(sale.of(cents).later(1440 * random.below(5) as i64));
        }
    }
    // The bank is a day behind the shop.
    let settled: Vec<Sale> = back.iter().map(|sale| sale.later(1440)).collect();
    Business::new(&[SHOP, STRIPE])
        .has(0, &orders, order)
        .has(0, &back, shop_refund)
        .has(1, &paid, charge)
        .has(1, &settled, charge_refund)
        .word(1, Word::Once)
        .costs_word(1, "refunds", Word::Once)
        .revenue(sum(&orders))
        .costs(fees(&paid) + sum(&back))
}

/// The till's day ends at midnight there, and the payments come in batches some hours later.
fn zones(random: &mut Random) -> Business {
    let orders: Vec<Sale> = sales(random, 30, 6)
        .iter()
        .map(|sale| sale.later(-120))
        .collect();
    let paid: Vec<Sale> = orders
        .iter()
        .map(|sale| sale.later(60 * random.below(14) as i64))
        .collect();
    let mut business = Business::new(&[SHOP, STRIPE])
        .has(0, &orders, order)
        .has(1, &paid, charge)
        .word(1, Word::Once)
        .revenue(sum(&orders));
    business.zone = random.pick(&[
        "America/Los_Angeles",
        "Asia/Tokyo",
        "Pacific/Auckland",
        "America/New_York",
    ]);
    business
}

fn net(random: &mut Random) -> Business {
    let paid = sales(random, 30, 6);
    let booked: Vec<Sale> = paid
        .iter()
        .map(|sale| sale.of(sale.cents - fee(sale.cents)).later(1440))
        .collect();
    Business::new(&[STRIPE, BOOKS])
        .has(0, &paid, charge)
        .has(1, &booked, receipt)
        .word(1, Word::Once)
        .revenue(sum(&paid))
}

fn coffees(random: &mut Random) -> Vec<Sale> {
    let sold = sales(random, 45, 24);
    sold.iter()
        .map(|sale| sale.of(random.pick(&[280, 350, 350, 350, 420])))
        .collect()
}

fn few_prices(random: &mut Random) -> Business {
    let sold = coffees(random);
    let paid = paid(random, &sold);
    Business::new(&[SHOP, SQUARE])
        .has(0, &sold, order)
        .has(1, &paid, square_payment)
        .word(1, Word::Once)
        .revenue(sum(&sold))
}

fn chance(random: &mut Random) -> Business {
    let (sold, others) = (coffees(random), coffees(random));
    Business::new(&[SHOP, SQUARE])
        .has(0, &sold, order)
        .has(1, &others, square_payment)
        .word(1, Word::Both)
        .revenue(sum(&sold) + sum(&others))
}

/// And some payments are of no order: the alert names them.
fn two_shops(random: &mut Random) -> Business {
    let (first, second) = (sales(random, 30, 5), sales(random, 30, 3));
    let orders = [first.clone(), second.clone()].concat();
    let mut paid = paid(random, &orders);
    let by_hand = sales(random, 30, 2);
    paid.extend(by_hand.iter().take(paid.len() / 25));
    Business::new(&[SHOP, STRIPE, ("second shop", "shopify")])
        .has(0, &first, order)
        .has(1, &paid, charge)
        .has(2, &second, order)
        .word(1, Word::Once)
        .revenue(sum(&first) + sum(&second))
}

/// One booking for so many days.
fn booked(sales: &[Sale], days: i64) -> Vec<Sale> {
    let mut sums: std::collections::BTreeMap<i64, i64> = std::collections::BTreeMap::new();
    for sale in sales {
        *sums
            .entry(sale.at.timestamp().div_euclid(86_400 * days))
            .or_default() += sale.cents;
    }
    let at = |period: i64| {
        DateTime::from_timestamp((period + 1) * 86_400 * days - 3_600, 0).expect("a moment")
    };
    let booking = |(period, cents): (&i64, &i64)| Sale {
        at: at(*period),
        cents: *cents,
        currency: "EUR",
    };
    sums.iter()
        .map(booking)
        .filter(|sale| sale.at < Utc::now() - TimeDelta::days(1))
        .collect()
}

fn daily(random: &mut Random) -> Business {
    let sold = sales(random, 30, 14);
    Business::new(&[SQUARE, BOOKS])
        .has(0, &sold, square_payment)
        .has(1, &booked(&sold, 1), receipt)
        .word(1, Word::Once)
        .revenue(sum(&sold))
}

fn weekly(random: &mut Random) -> Business {
    let sold = sales(random, 80, 5);
    Business::new(&[SHOP, BOOKS])
        .has(0, &sold, order)
        .has(1, &booked(&sold, 7), receipt)
        .word(1, Word::Once)
        .revenue(sum(&sold))
}

fn tips(random: &mut Random) -> Business {
    let orders = sales(random, 30, 10);
    let paid: Vec<Sale> = orders
        .iter()
        .map(|sale| sale.of(sale.cents + 50 + random.below(400) as i64).later(1))
        .collect();
    Business::new(&[SHOP, STRIPE])
        .has(0, &orders, order)
        .has(1, &paid, charge)
        .word(1, Word::Ask)
        .revenue(sum(&orders) + sum(&paid))
}

fn taxes(random: &mut Random) -> Business {
    let orders = sales(random, 30, 10);
    let booked: Vec<Sale> = orders
        .iter()
        .map(|sale| sale.of((sale.cents * 100 + 59) / 119))
        .collect();
    Business::new(&[SHOP, BOOKS])
        .has(0, &orders, order)
        .has(1, &booked, invoice)
        .word(1, Word::Ask)
        .revenue(sum(&orders) + sum(&booked))
}

fn subscriptions(random: &mut Random) -> Business {
    let orders = sales(random, 30, 4);
    let mut paid = paid(random, &orders);
    paid.extend(sales(random, 30, 40));
    Business::new(&[SHOP, STRIPE])
        .has(0, &orders, order)
        .has(1, &paid, charge)
        .word(1, Word::Ask)
        .revenue(sum(&orders) + sum(&paid))
}

fn few(random: &mut Random) -> Business {
    let orders: Vec<Sale> = sales(random, 3, 2).into_iter().take(3).collect();
    let paid = paid(random, &orders);
    Business::new(&[SHOP, STRIPE])
        .has(0, &orders, order)
        .has(1, &paid, charge)
        .word(1, Word::Wait)
        .revenue(sum(&orders) + sum(&paid))
}

fn till(random: &mut Random) -> Business {
    let (orders, till) = (sales(random, 30, 5), sales(random, 30, 7));
    let all = [orders.clone(), till.clone()].concat();
    Business::new(&[SHOP, SQUARE, BOOKS])
        .has(0, &orders, order)
        .has(1, &till, square_payment)
        .has(2, &all, receipt)
        .word(1, Word::Both)
        .word(2, Word::Once)
        .revenue(sum(&all))
}

fn chain(random: &mut Random) -> Business {
    let orders = sales(random, 30, 5);
    let paid = paid(random, &orders);
    Business::new(&[SHOP, STRIPE, BOOKS])
        .has(0, &orders, order)
        .has(1, &paid, charge)
        .has(2, &orders, invoice)
        .word(1, Word::Once)
        .word(2, Word::Once)
        .revenue(sum(&orders))
}

fn pipeline(random: &mut Random) -> Business {
    let won = sales(random, 60, 2);
    // Billed weeks later, in parts.
    let billed: Vec<Sale> = won
        .iter()
        .filter(|sale| sale.at < Utc::now() - TimeDelta::days(25))
        .map(|sale| {
            sale.of(sale.cents / 3)
                .later(1440 * (9 + random.below(12) as i64))
        })
        .collect();
    Business::new(&[("erp", "erpnext"), ("crm", "salesforce")])
        .has(0, &billed, erp_invoice)
        .has(1, &won, opportunity)
        .word(1, Word::Both)
        .revenue(sum(&won) + sum(&billed))
}

fn older(random: &mut Random) -> Business {
    let all = sales(random, 80, 6);
    let since = start(80) + TimeDelta::days(50);
    let orders: Vec<Sale> = all
        .iter()
        .filter(|sale| sale.at >= since)
        .copied()
        .collect();
    Business::new(&[SHOP, STRIPE])
        .has(0, &orders, order)
        .has(1, &all, charge)
        .word(1, Word::Once)
        .revenue(sum(&all))
}

fn paused(random: &mut Random) -> Business {
    let all = sales(random, 60, 6);
    let until = start(60) + TimeDelta::days(50);
    let orders: Vec<Sale> = all.iter().filter(|sale| sale.at < until).copied().collect();
    let mut business = Business::new(&[SHOP, STRIPE])
        .has(0, &orders, order)
        .has(1, &all, charge)
        .word(1, Word::Once)
        .revenue(sum(&all));
    business.paused = Some(0);
    business
}

fn bank(random: &mut Random) -> Business {
    let orders = sales(random, 30, 6);
    let booked: Vec<Sale> = orders
        .iter()
        .map(|sale| sale.later(1440 * random.below(3) as i64))
        .collect();
    let booked: Vec<Sale> = booked
        .into_iter()
        .filter(|sale| sale.at < Utc::now() - TimeDelta::hours(2))
        .collect();
    Business::new(&[SHOP, ("bank", "csv")])
        .has(0, &orders, order)
        .has(1, &booked, row)
        .word(1, Word::Once)
        .revenue(sum(&orders))
}

fn bills(random: &mut Random) -> Business {
    let bills = sales(random, 60, 2);
    let paid: Vec<Sale> = bills
        .iter()
        .map(|sale| sale.later(1440 * random.below(2) as i64))
        .collect();
    let paid: Vec<Sale> = paid
        .into_iter()
        .filter(|sale| sale.at < Utc::now() - TimeDelta::hours(2))
        .collect();
    Business::new(&[BOOKS, ("bank of costs", "csv")])
        .has(0, &bills, bill)
        .has(1, &paid, row)
        .costs_word(1, "rest", Word::Once)
        .revenue(0)
        .costs(sum(&bills))
}
