//! Whether two sources have their records on the same days. That is how the same sales look whose amounts differ: with tips or
//! taxes on one side, or in another currency.

use super::share;

/// Shortest time that says something.
const DAYS: usize = 14;
/// Least correlation of the daily numbers of records.
const CORRELATED: f64 = 0.75;
/// Least distance from what days that do not belong together have, in standard deviations.
const DISTANCE: f64 = 3.0;
/// Numbers of records that differ by more are not the same sales.
const RATIO: std::ops::RangeInclusive<f64> = 0.66..=1.5;

/// Both sides by day, from the same day on.
#[allow(clippy::cast_precision_loss)]
pub fn are_alike(own: &[usize], others: &[usize]) -> bool {
    let days = own.len();
    let ratio = share(own.iter().sum(), others.iter().sum());
    if days < DAYS || !RATIO.contains(&ratio) {
        return false;
    }
    let at = |shift: usize| correlation(own, others, shift);
    let near = [at(0), at(1), at(days - 1)].into_iter().flatten();
    let Some(best) = near.reduce(f64::max) else {
        return false;
    };
    // Weeks look alike: they are compared with other weeks where there are some.
    let step = if days >= 3 * 7 { 7 } else { 1 };
    let far: Vec<f64> = (4..=days - 4)
        .filter(|shift| shift % step == 0)
        .filter_map(at)
        .map(stretched)
        .collect();
    if far.is_empty() {
        return false;
    }
    let count = far.len() as f64;
    let mean = far.iter().sum::<f64>() / count;
    let spread = (far.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / count).sqrt();
    let least = 1.0 / ((days - 3) as f64).sqrt();
    best >= CORRELATED && stretched(best) >= mean + DISTANCE * spread.max(least)
}

/// Fisher's transformation, whose values have the same spread everywhere.
fn stretched(correlation: f64) -> f64 {
    correlation.clamp(-0.999, 0.999).atanh()
}

/// The correlation where the other side is so many days later, around the end. `None`: one side is the same every day.
#[allow(clippy::cast_precision_loss)]
fn correlation(own: &[usize], others: &[usize], shift: usize) -> Option<f64> {
    let count = own.len() as f64;
    let mean = |of: &[usize]| of.iter().sum::<usize>() as f64 / count;
    let (mine, theirs) = (mean(own), mean(others));
    let (mut both, mut of_own, mut of_others) = (0.0, 0.0, 0.0);
    for (x, y) in own.iter().zip(others.iter().cycle().skip(shift)) {
        let (x, y) = (*x as f64 - mine, *y as f64 - theirs);
        both += x * y;
        of_own += x * x;
        of_others += y * y;
    }
    (of_own > 0.0 && of_others > 0.0).then(|| both / (of_own * of_others).sqrt())
}
