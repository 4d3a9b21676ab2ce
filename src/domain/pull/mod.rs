//! One look at an app's list, as pure state: which page to ask for next, when the list has ended, how far the cursor may
//! move, and when to look again.
//!
//! Always true:
//! - the cursor never moves past a change that was not shown yet: with each page where the list is sorted oldest first, at
//!   the end of the walk otherwise; never past the time at which the walk began; never back;
//! - a walk ends: every new query starts strictly further on, every page costs one of a bounded number;
//! - a list that is not sorted as its connector says, or that ignores the lower bound, is walked whole instead;
//! - where the app lists one tick by id, a tick that fills a page is walked by id, page by page, and resumed inside.
//!
//! Not here: asking (`connectors::session`), what a record means (`domain::snapshot`), rows (`store`).

mod bulk;
mod chain;
mod scan;
mod timing;
mod walk;
mod windows;

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::time::Millis;

pub use bulk::Bulk;
pub use scan::{Scan, ScanStep};
pub use timing::{Plan, STALLED_AFTER, Task, Waits};
pub use walk::{End, Next, Step, Walk};
pub use windows::{Cut, WindowStep, Windows};

/// How a list of changed records is sorted, as its connector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Oldest change first.
    Ascending,
    /// Newest change first.
    Descending,
    /// In no useful order.
    None,
}

/// What the engine must know of an app's list of changed records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub order: Order,
    /// How fine the app's times are: two changes within one tick have the same time.
    pub precision: Duration,
    /// How far back to look each time, for what the app shows late.
    pub lookback: Duration,
    /// Past this many records the app's list goes no further.
    pub ceiling: Option<u64>,
    /// The request can start after (time, id), not only at a time.
    pub breaks_ties: bool,
    /// There is a list of one tick's records, sorted by id, that can start after an id.
    pub lists_ties: bool,
    /// The list takes an upper bound.
    pub takes_until: bool,
    /// Pages of one walk, after which it is cut.
    pub pages_max: u32,
}

impl Rules {
    fn tick(&self) -> u64 {
        u64::try_from(self.precision.as_millis()).unwrap_or(u64::MAX).max(1)
    }
    /// The start of the tick that a time falls into.
    fn floor(&self, time: Millis) -> Millis {
        Millis(time.0 - time.0 % self.tick())
    }
    /// The end of the tick that a time falls into.
    fn ceil(&self, time: Millis) -> Millis {
        Millis(self.floor(time).0.saturating_add(self.tick() - 1))
    }
}

/// The bounds of one query; both are inclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Changed at or after this time; with an id, where the app breaks ties: after (time, id).
    pub since: Option<(Millis, Option<String>)>,
    /// Changed at or before this time.
    pub until: Option<Millis>,
    /// Of the one tick between the two bounds, after the id, sorted by id: the list of ties, not that of changes.
    pub ties: bool,
}

/// What the walk must know of a record on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    pub id: &'a str,
    pub updated_at: Option<Millis>,
}

/// The app gives the same page again and again, although its own total says that there is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the app gives the same page again and again, and says that there are more records")]
pub struct SamePage;

/// The first 16 bytes of an id's SHA-256, to remember it by.
fn hash(id: &str) -> [u8; 16] {
    let mut out = [0; 16];
    out.iter_mut().zip(Sha256::digest(id)).for_each(|(to, from)| *to = from);
    out
}
