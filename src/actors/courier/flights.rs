//! What is in flight, and where the queues begin, for those who stand outside.
//!
//! Always true: it shows the lanes' own sets, so a delivery is in it exactly as long as its attempt is under way; a lane
//! that has ended is not in it. Not here: who claims (`Courier`).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::lane::Lane;
use crate::domain::id::{LaneNo, Seq};
use crate::domain::time::Millis;
use crate::store::Low;

/// A handle; clones show the same lanes.
#[derive(Clone, Default)]
pub struct Flights(Arc<RwLock<HashMap<LaneNo, Arc<Lane>>>>);

impl Flights {
    /// The deliveries of a lane that are in flight now, oldest first.
    pub fn of(&self, lane: LaneNo) -> Vec<Seq> {
        let mut seqs = self.lane(lane).map(|lane| lane.flying()).unwrap_or_default();
        seqs.sort_unstable();
        seqs
    }

    /// Where a lane's queue begins, as far as its courier knows.
    pub fn low(&self, lane: LaneNo) -> Low {
        self.lane(lane).map(|lane| lane.low()).unwrap_or_default()
    }

    /// Whether this delivery is in flight now.
    pub fn has(&self, lane: LaneNo, seq: Seq) -> bool {
        self.lane(lane).is_some_and(|lane| lane.is_flying(seq))
    }

    /// Tells a lane's courier that deliveries were cancelled at that time or later: their successors may go.
    pub fn let_go(&self, number: LaneNo, at: Millis) {
        if let Some(lane) = self.lane(number) {
            lane.let_go(at);
        }
    }

    fn lane(&self, number: LaneNo) -> Option<Arc<Lane>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    pub(super) fn begin(&self, number: LaneNo, lane: Arc<Lane>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(number, lane);
    }

    pub(super) fn end(&self, number: LaneNo) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}
