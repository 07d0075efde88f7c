//! What became of records whose JSON was dropped, counted, so that a run shows that all of it has happened.

use crate::model::{Record, Stored};
use crate::order::canonical;

/// What became of records whose JSON was dropped.
#[derive(Debug, Default)]
pub struct Tally {
    /// Times that the old records of a connector were dropped.
    pub drops: usize,
    pub dropped: usize,
    /// Shown again as they were: they stay dropped.
    pub unchanged: usize,
    /// Shown with another content, or after they were deleted: they are stored and counted anew.
    pub corrected: usize,
    /// Their rows were marked as deleted, or not any more.
    pub marked: usize,
    pub by_hand: usize,
    pub row_deleted: usize,
    pub connector_deleted: usize,
}

impl Tally {
    /// Everything has happened to what was dropped.
    pub fn holds(&self) {
        let all = [
            self.unchanged,
            self.corrected,
            self.marked,
            self.by_hand,
            self.row_deleted,
            self.connector_deleted,
        ];
        assert!(all.iter().all(|count| *count > 0), "{self:?}");
    }

    /// A sync reads what the vendor shows of a record; returns its text.
    pub fn read(&mut self, id: usize, record: &mut Record) -> Option<String> {
        let order = record.served.as_ref()?;
        let text = order.json(id);
        let is_same = |stored: &&mut Stored| {
            !stored.deleted
                && (stored.text.as_ref() == Some(&text)
                    || stored.kept.is_none()
                        && canonical(&stored.order.json(id)) == canonical(&text))
        };
        match record.stored.as_mut().filter(is_same) {
            Some(stored) if stored.kept.is_some() => self.unchanged += 1,
            Some(stored) => stored.order = order.clone(),
            None => {
                let was_dropped = record.stored.as_ref().is_some_and(|it| it.kept.is_some());
                self.corrected += usize::from(was_dropped);
                record.stored = Some(Stored {
                    order: order.clone(),
                    deleted: false,
                    text: Some(text.clone()),
                    is_old: false,
                    kept: None,
                });
            }
        }
        Some(text)
    }

    /// Somebody has set or cleared `deleted`. What is dropped has no facts after that: only the source can tell them again.
    pub fn marked(&mut self, stored: &mut Stored) {
        let Some(kept) = &mut stored.kept else {
            return;
        };
        self.marked += 1;
        kept.clear();
        if !stored.deleted {
            stored.text = None;
        }
    }
}
