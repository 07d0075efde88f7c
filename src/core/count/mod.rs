//! Whether two sources of a tenant see the same money.
//!
//! A shop has the order, a payment service its payment, the books their booking: one sale, three records. Nothing in the records
//! says that they belong together, so their amounts are compared: records with the same amount and currency within two days are
//! paired one to one (`pairs`), and what is left is looked for among the totals of days, weekends, weeks and months, as books are
//! kept (`totals`). Where many prices are equal, many records pair by chance. So the same is done after the days of one side
//! were shuffled (`chance`), and only what goes beyond that is evidence.
//!
//! The question is always about one source: how much of it do the sources that are closer to the sale have already? The
//! thresholds are in `verdict`, and `span` says for which days the answer holds.
//!
//! Amounts are integers of 10^-9 of a currency. Shares are counts of records, or of money, over a count; they are floats, and
//! no amount is.

mod alike;
mod chance;
mod pairs;
mod span;
#[cfg(test)]
mod tests;
mod totals;
mod verdict;

pub use span::{History, Partner, Span, Stopped, days_of};
pub use verdict::{Comparison, Reason, Sample, Verdict, compare};

/// Longest time between a sale and its payment or booking, in days. Longer: more records pair by chance. Shorter: payments that
/// are dated by their settlement, and days that differ by time zone, are missed.
pub const WINDOW: i32 = 2;

/// Records of one source with the same day, currency and amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// Position of the source among those that are compared with; of no meaning for the source in question.
    pub source: usize,
    pub day: i32,
    /// Currencies have numbers that the caller gives.
    pub currency: u16,
    pub value: i128,
    /// The amount without the fees that were kept of it, where they are known.
    pub net: Option<i128>,
}

/// What is compared: the records of one source, and those of all sources that are closer to the sale.
#[derive(Debug, Clone, Default)]
pub struct Question {
    pub own: Vec<Amount>,
    pub others: Vec<Amount>,
    /// What the others paid back, as positive amounts.
    pub refunds: Vec<Amount>,
    /// Whether each of the others counts. One that does not count has the same money as one that does.
    pub counts: Vec<bool>,
    /// Whether the last verdict was `same`: it takes more to change it than to come to it.
    pub was_same: bool,
}

/// The first and the last of these days.
fn bounds(amounts: &[Amount]) -> Option<(i32, i32)> {
    let days = || amounts.iter().map(|amount| amount.day);
    Some((days().min()?, days().max()?))
}

/// A share that is 0 where there is nothing.
#[allow(clippy::cast_precision_loss)]
fn share(part: usize, of: usize) -> f64 {
    if of == 0 {
        0.0
    } else {
        part as f64 / of as f64
    }
}

/// A share of money, whose sums are larger than a float is exact.
#[allow(clippy::cast_precision_loss)]
fn money_share(part: i128, of: i128) -> f64 {
    if of <= 0 {
        0.0
    } else {
        // In millionths, so that the float holds the quotient and not the sums.
        (part.clamp(0, of).saturating_mul(1_000_000) / of) as f64 / 1_000_000.0
    }
}
