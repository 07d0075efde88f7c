//! Pairs records of the same amount, one to one.

use std::cmp::Ordering;

use super::Amount;

/// Which of the others each record is paired with.
#[derive(Debug, Clone)]
pub struct Pairs {
    pub of_own: Vec<Option<usize>>,
    taken: Vec<bool>,
}

/// How a record is looked at: as it is, or without fees.
#[derive(Clone, Copy)]
enum As {
    Gross,
    Net,
}

impl As {
    fn of(self, amount: &Amount) -> Option<i128> {
        match self {
            As::Gross => Some(amount.value),
            As::Net => amount.net.filter(|net| *net != amount.value),
        }
    }
}

impl Pairs {
    /// Pairs each record with at most one of the others that is `from` to `to` days later, and of the others first those that
    /// count. No other choice of pairs within one amount has more of them.
    pub fn find(
        own: &[Amount],
        others: &[Amount],
        counts: &[bool],
        (from, to): (i32, i32),
    ) -> Pairs {
        let mut pairs = Pairs {
            of_own: vec![None; own.len()],
            taken: vec![false; others.len()],
        };
        let is_any = |counting: bool| others.iter().any(|it| is_counting(counts, it) == counting);
        for counting in [true, false] {
            if !is_any(counting) {
                continue;
            }
            for (mine, theirs) in [
                (As::Gross, As::Gross),
                // A booking of what was paid out.
                (As::Gross, As::Net),
                (As::Net, As::Gross),
            ] {
                let eligible = |it: &Amount| is_counting(counts, it) == counting;
                pairs.pass((own, mine), (others, theirs), eligible, (from, to));
            }
        }
        pairs
    }

    fn pass(
        &mut self,
        (own, mine): (&[Amount], As),
        (others, theirs): (&[Amount], As),
        eligible: impl Fn(&Amount) -> bool,
        (from, to): (i32, i32),
    ) {
        let own = keyed(own, |at, it| {
            let is_free = self.of_own.get(at).is_some_and(Option::is_none);
            mine.of(it).filter(|_| is_free)
        });
        let others = keyed(others, |at, it| {
            let is_free = self.taken.get(at).is_some_and(|taken| !taken) && eligible(it);
            theirs.of(it).filter(|_| is_free)
        });
        let (mut own, mut others) = (own.iter().peekable(), others.iter().peekable());
        // Both are in the order of amount and day. All windows are equally long, so the earliest partner is the best one.
        while let (Some(mine), Some(theirs)) = (own.peek(), others.peek()) {
            let later = theirs.day - mine.day;
            match (theirs.currency, theirs.value).cmp(&(mine.currency, mine.value)) {
                Ordering::Less => _ = others.next(),
                Ordering::Greater => _ = own.next(),
                Ordering::Equal if later < from => _ = others.next(),
                Ordering::Equal if later > to => _ = own.next(),
                Ordering::Equal => {
                    if let Some(of) = self.of_own.get_mut(mine.at) {
                        *of = Some(theirs.at);
                    }
                    if let Some(taken) = self.taken.get_mut(theirs.at) {
                        *taken = true;
                    }
                    own.next();
                    others.next();
                }
            }
        }
    }

    pub fn count(&self) -> usize {
        self.of_own.iter().flatten().count()
    }
}

fn is_counting(counts: &[bool], amount: &Amount) -> bool {
    counts.get(amount.source).copied().unwrap_or(true)
}

/// A record by what it is compared by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Keyed {
    currency: u16,
    value: i128,
    day: i32,
    at: usize,
}

fn keyed(amounts: &[Amount], key: impl Fn(usize, &Amount) -> Option<i128>) -> Vec<Keyed> {
    let mut keyed: Vec<Keyed> = amounts
        .iter()
        .enumerate()
        .filter_map(|(at, it)| {
            let (currency, day) = (it.currency, it.day);
            key(at, it).map(|value| Keyed {
                currency,
                value,
                day,
                at,
            })
        })
        .collect();
    keyed.sort_unstable();
    keyed
}
