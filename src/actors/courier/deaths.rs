//! Deliveries that died before any attempt: the router finds them, the lane's courier tells of them.
//!
//! Always true: each is counted once, as those that die of an attempt are; what is noted is bounded by the number of
//! lanes. Lost in a crash are only the notes: the deliveries themselves are in the store. Not here: how often is told
//! (`notices`), when a delivery is dead (`actors::router`, `domain::delivery`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::notices::LastDead;
use crate::domain::id::LaneNo;
use crate::domain::topic::{self, Kind};
use crate::telemetry::Metrics;

/// A handle; clones share the notes.
#[derive(Clone)]
pub struct Deaths {
    metrics: Metrics,
    untold: Arc<Mutex<HashMap<LaneNo, Untold>>>,
}

/// How many of a lane are not told yet, and the last of them.
pub(super) struct Untold {
    pub(super) count: u64,
    pub(super) last: LastDead,
}

impl Deaths {
    /// None so far.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, untold: Arc::default() }
    }

    /// Counts a delivery that is dead, and notes it for the lane's courier, who must be rung. Those of system events are
    /// not told of.
    pub fn note(&self, lane: LaneNo, last: LastDead) {
        self.metrics.deliveries_dead.with([last.cause.slug()]).inc();
        if topic::kind(&last.topic) == Kind::System {
            return;
        }
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        let count = untold.get(&lane).map_or(1, |before| before.count + 1);
        untold.insert(lane, Untold { count, last });
    }

    /// What is noted of a lane; it is forgotten here.
    pub(super) fn take(&self, lane: LaneNo) -> Option<Untold> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).remove(&lane)
    }
}
