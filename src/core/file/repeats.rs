//! Finds the rows that a file has more than once, without remembering every row.
//!
//! A first pass sets a bit for each row, and remembers those whose bit was set already: all that are repeated, and few
//! others. A second pass counts only these.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Most rows that are remembered. More: memory. Fewer: real files of many equal rows are refused.
const MOST: usize = 1_000_000;

/// Bits of the filter, at most 16 MiB. Fewer: large files have many rows that only look repeated.
const MOST_BITS: u64 = 1 << 27;

#[derive(Default)]
pub struct Repeats {
    bits: Vec<u64>,
    counts: HashMap<u64, u32>,
}

pub struct TooMany;

impl Repeats {
    /// Makes room for the rows of a file of so many bytes.
    pub fn new(bytes: u64) -> Repeats {
        let bits = bytes.next_power_of_two().clamp(1 << 10, MOST_BITS);
        Repeats {
            bits: vec![0; (bits / 64) as usize],
            counts: HashMap::new(),
        }
    }

    pub fn hash(what: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        hasher.finish()
    }

    /// Notes a row in the first pass.
    pub fn note(&mut self, hash: u64) -> Result<(), TooMany> {
        let at = hash % (self.bits.len() as u64 * 64).max(1);
        let bit = 1 << (at % 64);
        if let Some(word) = self.bits.get_mut((at / 64) as usize) {
            if *word & bit != 0 {
                self.counts.entry(hash).or_insert(0);
            }
            *word |= bit;
        }
        match self.counts.len() > MOST {
            true => Err(TooMany),
            false => Ok(()),
        }
    }

    /// Ends the first pass: the second one needs the counts alone.
    pub fn turn(&mut self) {
        self.bits = Vec::new();
    }

    /// Counts a row in the second pass: how often it has come by now, this time included.
    pub fn nth(&mut self, hash: u64) -> u32 {
        let Some(count) = self.counts.get_mut(&hash) else {
            return 1;
        };
        *count = count.saturating_add(1);
        *count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_row_is_counted_as_often_as_it_comes(rows in prop::collection::vec(0_u16..300, 0..600)) {
            let mut repeats = Repeats::new(rows.len() as u64);
            for row in &rows {
                prop_assert!(repeats.note(Repeats::hash(row)).is_ok());
            }
            repeats.turn();
            for (at, row) in rows.iter().enumerate() {
                let expected = rows.iter().take(at + 1).filter(|other| *other == row).count();
                prop_assert_eq!(repeats.nth(Repeats::hash(row)) as usize, expected);
            }
        }
    }

    #[test]
    fn rows_without_end_are_refused() {
        let mut repeats = Repeats::new(8);
        let refused = (0..3_000_000_u64).find(|row| repeats.note(Repeats::hash(row)).is_err());
        assert!(refused.is_some_and(|row| row > 1_000_000));
    }
}
