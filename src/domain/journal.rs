//! How far an integration has read the journal that its app keeps in place of pushing.
//!
//! Always true: the mark moves in the commit that takes an entry's items in. Not here: how a journal is read
//! (`connectors::journal`), when (`actors::watcher::journal`).

use serde::{Deserialize, Serialize};

use super::time::Millis;

/// Failures in a row, over some minutes, after which it is not believed any more that changes come by the journal.
pub const STALLED_AFTER: u32 = 6;

/// What is remembered of one journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct JournalState {
    /// The app's own mark of the last entry that was taken in; the next one comes after it. None: none was.
    pub offset: Option<String>,
    /// When the app last answered: with an entry, or that there is nothing new.
    pub read_at: Option<Millis>,
    /// When an entry last came.
    pub entry_at: Option<Millis>,
    pub entries: u64,
    pub items: u64,
    pub due_at: Option<Millis>,
    /// Failures in a row; 0 after a success.
    pub failures: u32,
    pub failed_at: Option<Millis>,
    /// The last failure, told in one sentence; empty after a success.
    pub error: String,
    /// Tries in a row of the next entry, of which the file could not be read.
    pub unread: u32,
    /// When changes may have been missed last, so that the connections were asked to look for themselves.
    pub gap_at: Option<Millis>,
    /// Why.
    pub gap: String,
}

impl JournalState {
    /// The same after the app has answered.
    #[must_use]
    pub fn answered(self, now: Millis) -> Self {
        Self { read_at: Some(now), failures: 0, error: String::new(), unread: 0, ..self }
    }

    /// The same after an entry of so many items was taken in.
    #[must_use]
    pub fn taken(self, offset: &str, items: usize, now: Millis) -> Self {
        let answered = self.answered(now);
        let (entries, items) = (answered.entries.saturating_add(1), answered.items.saturating_add(items as u64));
        Self { offset: Some(offset.to_owned()), entry_at: Some(now), entries, items, ..answered }
    }

    /// The same with the note that changes may have been missed.
    #[must_use]
    pub fn missed(self, why: &str, now: Millis) -> Self {
        Self { gap_at: Some(now), gap: why.to_owned(), ..self }
    }

    /// Whether it has failed for so long that polls go on as if nothing came by it.
    pub fn is_stalled(&self) -> bool {
        self.failures >= STALLED_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_ends_failures_and_moves_the_mark() {
        let failing = JournalState { failures: 3, error: "no".to_owned(), unread: 2, ..JournalState::default() };
        let now = Millis(5_000);
        let taken = failing.taken("b", 7, now);
        assert_eq!((taken.offset.as_deref(), taken.entries, taken.items), (Some("b"), 1, 7));
        assert_eq!((taken.failures, taken.error.as_str(), taken.unread), (0, "", 0));
        assert_eq!((taken.read_at, taken.entry_at), (Some(now), Some(now)));
    }

    #[test]
    fn some_failures_in_a_row_make_it_stalled_and_an_answer_ends_that() {
        let failing = |failures| JournalState { failures, ..JournalState::default() };
        assert!(!failing(STALLED_AFTER - 1).is_stalled() && failing(STALLED_AFTER).is_stalled());
        assert!(!failing(STALLED_AFTER).answered(Millis(1)).is_stalled());
    }
}
