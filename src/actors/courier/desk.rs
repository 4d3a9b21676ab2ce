//! The desk: keeps one courier per lane that has something to do, and brings back those that panicked.
//!
//! Always true: a lane without work has no courier; a lane's memory (what is in flight) outlives its courier. Not here:
//! the work of a lane.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Courier;
use super::lane::Lane;
use super::outlet::Outlet;
use crate::actors::supervisor::{Kept, Supervisor};
use crate::domain::id::LaneNo;
use crate::error::Result;

/// How often couriers are looked at whether or not anybody rang.
const TICK: Duration = Duration::from_secs(5);

/// All couriers.
pub struct Desk {
    outlet: Arc<Outlet>,
    supervisor: Supervisor,
    lanes: HashMap<LaneNo, (Arc<Lane>, Kept<Courier>)>,
}

impl Desk {
    /// A desk without couriers.
    pub fn new(outlet: Arc<Outlet>, supervisor: Supervisor) -> Self {
        Self { outlet, supervisor, lanes: HashMap::new() }
    }

    /// Rings every lane that is owed something, once, at the start.
    pub fn open(&self) -> Result<()> {
        for lane in self.outlet.store.lanes_owed()? {
            self.outlet.rings.lane(lane);
        }
        Ok(())
    }

    /// Answers rings until the caller drops the future.
    pub async fn run(mut self) {
        loop {
            let rung = tokio::select! {
                rung = self.outlet.rings.lanes_rung() => rung,
                () = tokio::time::sleep(TICK) => self.lanes.keys().copied().collect(),
            };
            for lane in rung {
                self.wake(lane);
            }
        }
    }

    fn wake(&mut self, number: LaneNo) {
        let begin = |lane: &Arc<Lane>| {
            let (outlet, lane) = (self.outlet.clone(), lane.clone());
            self.supervisor.begin(move || Courier::new(number, outlet, lane))
        };
        let (lane, kept) = self.lanes.entry(number).or_insert_with(|| {
            let lane = Arc::new(Lane::new(number, self.outlet.rings.clone()));
            let kept = begin(&lane);
            (lane, kept)
        });
        if lane.has_ended() {
            self.lanes.remove(&number);
        } else if !self.supervisor.wake("courier", kept) {
            *kept = begin(lane);
            self.supervisor.wake("courier", kept);
        }
    }
}
