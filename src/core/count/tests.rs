//! Tenants whose answer a bookkeeper would know.

#![allow(clippy::expect_used, clippy::indexing_slicing)]

use super::*;

const EUR: u16 = 0;
const USD: u16 = 1;
const CENT: i128 = 10_000_000;

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn amount(day: i32, cents: u64) -> Amount {
    Amount {
        source: 0,
        day,
        currency: EUR,
        value: i128::from(cents) * CENT,
        net: None,
    }
}

/// Sales of a shop: some on each day, at prices that rarely repeat.
fn sales(random: &mut Random, days: i32, each_day: u64) -> Vec<Amount> {
    let mut sales = vec![];
    for day in 0..days {
        for _ in 0..each_day / 2 + random.below(each_day + 1) {
            sales.push(amount(day, 500 + random.below(20_000)));
        }
    }
    sales
}

fn question(own: Vec<Amount>, others: Vec<Amount>) -> Question {
    Question {
        own,
        others,
        refunds: vec![],
        counts: vec![true; 3],
        was_same: false,
    }
}

fn verdict(own: Vec<Amount>, others: Vec<Amount>) -> (Verdict, Option<Reason>) {
    let compared = compare(&question(own, others)).expect("they share days");
    (compared.verdict, compared.reason)
}

/// Each case for many seeds, so that no verdict is luck.
fn always(
    expected: (Verdict, Option<Reason>),
    case: impl Fn(&mut Random) -> (Vec<Amount>, Vec<Amount>),
) {
    for seed in 1..=12 {
        let (own, others) = case(&mut Random(seed));
        let compared = compare(&question(own, others)).expect("they share days");
        assert_eq!(
            (compared.verdict, compared.reason),
            expected,
            "seed {seed}: {compared:#?}"
        );
    }
}

#[test]
fn payments_of_a_shops_orders_are_the_same() {
    always((Verdict::Same, None), |random| {
        let orders = sales(random, 30, 6);
        (orders.clone(), orders)
    });
    // Paid up to two days later, or on another day by time zone.
    always((Verdict::Same, None), |random| {
        let orders = sales(random, 30, 6);
        let paid = orders.iter().map(|it| Amount {
            day: it.day + random.below(3) as i32,
            ..*it
        });
        (paid.collect(), orders)
    });
    // A shop that sells little.
    always((Verdict::Same, None), |random| {
        let orders: Vec<Amount> = (0..8)
            .map(|n| amount(n * 3, 1_000 + random.below(20_000)))
            .collect();
        (orders.clone(), orders)
    });
    // One order in ten was paid otherwise, and one payment in ten is none of an order.
    always((Verdict::Same, None), |random| {
        let orders = sales(random, 30, 10);
        let mut paid: Vec<Amount> = orders
            .iter()
            .filter(|_| random.below(10) > 0)
            .copied()
            .collect();
        let others = sales(random, 30, 1);
        paid.extend(others.iter().take(paid.len() / 10));
        (paid, orders)
    });
}

#[test]
fn a_second_business_is_separate() {
    always((Verdict::Separate, None), |random| {
        (sales(random, 30, 6), sales(random, 30, 9))
    });
    always((Verdict::Separate, None), |random| {
        (sales(random, 90, 40), sales(random, 90, 10))
    });
}

#[test]
fn half_is_for_a_person_to_decide() {
    always((Verdict::Unclear, Some(Reason::Part)), |random| {
        let orders = sales(random, 30, 8);
        let mut paid = orders.clone();
        paid.extend(sales(random, 30, 8));
        (paid, orders)
    });
    // All orders are paid here, and much more.
    always((Verdict::Unclear, Some(Reason::PartOfOthers)), |random| {
        let orders = sales(random, 40, 4);
        let mut paid = orders.clone();
        paid.extend(sales(random, 40, 40));
        (paid, orders)
    });
    // By number they are the same, but most of the money is not.
    always((Verdict::Unclear, Some(Reason::Part)), |random| {
        let orders = sales(random, 30, 8);
        let mut paid = orders.clone();
        paid.extend(
            (3..27)
                .step_by(4)
                .map(|day| amount(day, 50_000_000 + random.below(1_000))),
        );
        (paid, orders)
    });
}

#[test]
fn equal_prices_do_not_make_two_cafes_one() {
    let prices = [350, 350, 350, 420, 280];
    let coffees = |random: &mut Random, days: i32| -> Vec<Amount> {
        let mut sold = vec![];
        for day in 0..days {
            for _ in 0..20 + random.below(60) {
                sold.push(amount(day, prices[random.below(5) as usize]));
            }
        }
        sold
    };
    always((Verdict::Separate, None), |random| {
        (coffees(random, 60), coffees(random, 60))
    });
    always((Verdict::Same, None), |random| {
        let sold = coffees(random, 60);
        (sold.clone(), sold)
    });
    // One price, but the numbers of each day are the same.
    always((Verdict::Same, None), |random| {
        let sold: Vec<Amount> = coffees(random, 30)
            .iter()
            .map(|it| amount(it.day, 350))
            .collect();
        (sold.clone(), sold)
    });
    always((Verdict::Unclear, Some(Reason::EqualAmounts)), |random| {
        let sold = |random: &mut Random| -> Vec<Amount> {
            (0..40)
                .flat_map(|day| (0..=random.below(2)).map(move |_| amount(day, 350)))
                .collect()
        };
        (
            sold(random),
            sold(random)
                .into_iter()
                .chain((0..40).map(|day| amount(day, 350)))
                .collect(),
        )
    });
    // One price and the same number on each day: nobody can tell.
    let equal =
        |days: i32| -> Vec<Amount> { (0..days * 10).map(|n| amount(n / 10, 350)).collect() };
    assert_eq!(
        verdict(equal(30), equal(30)),
        (Verdict::Unclear, Some(Reason::EqualAmounts))
    );
    assert_eq!(verdict(equal(5), equal(5)), (Verdict::TooEarly, None));
}

#[test]
fn amounts_that_come_again_and_again_are_compared_all_the_same() {
    // Ten customers pay the same each week, or each month.
    for period in [7, 30] {
        always((Verdict::Same, None), |random| {
            let customers: Vec<(i32, u64)> = (0..10)
                .map(|_| (random.below(period) as i32, 1_000 + random.below(9_000)))
                .collect();
            let mut billed = vec![];
            for round in 0..90 / period as i32 {
                billed.extend(
                    customers
                        .iter()
                        .map(|(day, cents)| amount(round * period as i32 + day, *cents)),
                );
            }
            (billed.clone(), billed)
        });
    }
}

#[test]
fn fees_tips_and_other_currencies_are_recognized() {
    // The books have what was paid out.
    always((Verdict::Same, None), |random| {
        let paid: Vec<Amount> = sales(random, 30, 6)
            .iter()
            .map(|it| Amount {
                net: Some(it.value - it.value / 40 / CENT * CENT - 30 * CENT),
                ..*it
            })
            .collect();
        let booked = paid.iter().filter_map(|it| {
            Some(Amount {
                value: it.net?,
                net: None,
                ..*it
            })
        });
        (booked.collect(), paid)
    });
    always((Verdict::Unclear, Some(Reason::Alike)), |random| {
        let orders = sales(random, 30, 12);
        let tipped = orders.iter().map(|it| Amount {
            value: it.value * 115 / 100 + i128::from(random.below(300)) * CENT,
            ..*it
        });
        (tipped.collect(), orders.clone())
    });
    always((Verdict::Unclear, Some(Reason::Currencies)), |random| {
        let orders = sales(random, 30, 12);
        let settled = orders.iter().map(|it| Amount {
            value: it.value * 109 / 100,
            currency: USD,
            ..*it
        });
        (settled.collect(), orders.clone())
    });
    always((Verdict::Separate, None), |random| {
        let dollars = sales(random, 30, 6).into_iter().map(|it| Amount {
            currency: USD,
            ..it
        });
        (dollars.collect(), sales(random, 30, 9))
    });
}

/// Books that have one sum for each so many days.
fn booked(orders: &[Amount], length: i32) -> Vec<Amount> {
    let mut sums: std::collections::BTreeMap<i32, i128> = std::collections::BTreeMap::new();
    for it in orders {
        *sums.entry(it.day / length).or_default() += it.value;
    }
    sums.into_iter()
        .map(|(period, value)| Amount {
            day: period * length + length - 1,
            value,
            ..amount(0, 0)
        })
        .collect()
}

#[test]
fn books_that_have_the_days_total_are_the_same_money() {
    always((Verdict::Same, None), |random| {
        let orders = sales(random, 30, 12);
        (booked(&orders, 1), orders)
    });
    always((Verdict::Same, None), |random| {
        let orders = sales(random, 30, 2);
        (booked(&orders, 1), orders)
    });
    always((Verdict::Same, None), |random| {
        let orders = sales(random, 84, 12);
        (booked(&orders, 7), orders)
    });
    // Each channel by itself.
    always((Verdict::Same, None), |random| {
        let shop = sales(random, 30, 12);
        let till: Vec<Amount> = sales(random, 30, 20)
            .into_iter()
            .map(|it| Amount { source: 1, ..it })
            .collect();
        let mut books = booked(&shop, 1);
        books.extend(booked(&till, 1));
        let others = shop.into_iter().chain(till).collect();
        (books, others)
    });
    always((Verdict::Separate, None), |random| {
        let orders = sales(random, 30, 12);
        (booked(&sales(random, 30, 12), 1), orders)
    });
}

#[test]
fn one_account_of_two_shops_is_the_same_as_both() {
    always((Verdict::Same, None), |random| {
        let first = sales(random, 30, 6);
        let second: Vec<Amount> = sales(random, 30, 4)
            .into_iter()
            .map(|it| Amount { source: 1, ..it })
            .collect();
        let paid = first.iter().chain(&second).copied().collect();
        (paid, first.into_iter().chain(second).collect())
    });
}

#[test]
fn too_few_records_say_nothing() {
    always((Verdict::TooEarly, None), |random| {
        let orders = sales(random, 2, 1);
        (
            orders
                .iter()
                .take(3)
                .copied()
                .chain([amount(0, 777)])
                .collect(),
            vec![amount(0, 1), amount(1, 2)],
        )
    });
    assert_eq!(
        compare(&question(vec![amount(0, 1)], vec![amount(5, 1)])),
        None
    );
    assert_eq!(compare(&question(vec![], vec![amount(5, 1)])), None);
}

#[test]
fn a_verdict_near_the_limit_stays() {
    let mut random = Random(7);
    let orders = sales(&mut random, 60, 10);
    let mut paid = orders.clone();
    paid.extend(sales(&mut random, 60, 4));
    let mut asked = question(paid, orders);
    assert_eq!(compare(&asked).expect("days").verdict, Verdict::Unclear);
    asked.was_same = true;
    assert_eq!(compare(&asked).expect("days").verdict, Verdict::Same);
}

#[test]
fn days_that_the_shop_does_not_have_count() {
    // Payments of 60 days; the shop was read for the last 30, with few older orders.
    always((Verdict::Same, None), |random| {
        let mut orders = sales(random, 60, 10);
        let paid = orders.clone();
        orders.retain(|it| it.day >= 30 || random.percent(5));
        (paid, orders)
    });
    let mut random = Random(3);
    let mut orders = sales(&mut random, 60, 10);
    let paid = orders.clone();
    orders.retain(|it| it.day >= 30 || it.day % 9 == 0 && random.percent(10));
    let compared = compare(&question(paid.clone(), orders.clone())).expect("days");
    assert_eq!(compared.verdict, Verdict::Same);
    let by_day = |of: &[Amount]| {
        let mut days = std::collections::BTreeMap::new();
        of.iter()
            .for_each(|it| *days.entry(it.day).or_default() += 1);
        days
    };
    let history = History {
        own: by_day(&paid),
        others: by_day(&orders),
    };
    let open = Partner {
        is_paused: false,
        is_asked: true,
        last_sync: None,
        last_record: Some(59),
    };
    assert_eq!(
        days_of(&compared, &history, &[open], None).0,
        Span {
            first: Some(30),
            last: None
        }
    );
    // The shop is paused, and its last order is of day 45.
    orders.retain(|it| it.day <= 45);
    let compared = compare(&question(paid.clone(), orders.clone())).expect("days");
    let paused = Partner {
        is_paused: true,
        last_record: Some(45),
        ..open
    };
    let history = History {
        own: by_day(&paid),
        others: by_day(&orders),
    };
    assert_eq!(
        days_of(&compared, &history, &[paused], None),
        (
            Span {
                first: Some(30),
                last: Some(45)
            },
            Stopped::All(45)
        )
    );
    assert_eq!(
        days_of(&compared, &history, &[paused, open], None).1,
        Stopped::Some(vec![0])
    );
    // It could not be read since day 44.
    let broken = Partner {
        is_paused: false,
        last_sync: Some(44),
        last_record: Some(45),
        ..open
    };
    assert_eq!(
        days_of(&compared, &history, &[broken], None).1,
        Stopped::All(45)
    );
}
