//! One tick, walked by id: for apps whose list of changes has one sort key only and ends at a ceiling.
//!
//! Always true: each page is a query of its own that starts after the last id shown, so that nothing shifts, no ceiling is
//! met, and a walk that breaks off goes on at that id; an app that ignores the id is a failure, not a loop. Not here: the
//! walk outside of the tick.

use super::super::SamePage;
use super::super::chain::Turn;
use super::{Next, Order, Walk};
use crate::domain::time::Millis;

/// The lower bound to go back to, where the walk goes on below the tick.
pub(super) type Outside = Option<(Millis, Option<String>)>;

impl Walk {
    /// Whether the window at hand is one tick, and the app lists it by id.
    pub(super) fn is_one_tick(&self) -> bool {
        let bounds = self.lower.as_ref().map(|(low, _)| *low).zip(self.upper);
        self.rules.lists_ties && bounds.is_some_and(|(low, high)| self.rules.floor(low) == self.rules.floor(high))
    }

    /// From now on by id, from the first id of the tick that the time falls into.
    pub(super) fn enter(&mut self, time: Millis) -> Next {
        self.tick = Some(self.lower.take());
        self.lower = Some((self.rules.floor(time), None));
        self.upper = Some(self.rules.ceil(time));
        self.begin();
        Next::Query
    }

    /// A page of the tick: the next query starts after its last id.
    pub(super) fn comb(&mut self, last: Option<&str>, turn: Turn) -> Result<Next, SamePage> {
        match (turn, last, &mut self.lower) {
            (Turn::Follow, Some(last), Some((_, after))) if after.as_deref() != Some(last) => {
                *after = Some(last.to_owned());
                Ok(Next::Query)
            }
            (Turn::Ended, ..) => Ok(self.leave()),
            _ => Err(SamePage),
        }
    }

    /// The tick has been shown: on after it, or below it.
    fn leave(&mut self) -> Next {
        let outside = self.tick.take().flatten();
        let tick = self.lower.take().map(|(tick, _)| tick).unwrap_or_default();
        let next = match self.order {
            Order::None => return self.next_window(),
            Order::Ascending => (Some((Millis(self.rules.ceil(tick).0.saturating_add(1)), None)), None),
            Order::Descending if tick == Millis(0) => return self.done(),
            Order::Descending => (outside, Some(Millis(tick.0 - 1))),
        };
        (self.lower, self.upper) = next;
        self.begin();
        Next::Query
    }
}
