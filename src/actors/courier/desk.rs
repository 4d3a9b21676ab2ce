//! The desk: keeps one courier per lane that has something to do, and brings back those that panicked.
//!
//! Always true: a lane without work has no courier; a lane's memory (what is in flight) outlives its courier. Not here:
//! the work of a lane.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::Courier;
use super::lane::Lane;
use super::outlet::Outlet;
use crate::actors::handle::Wakes;
use crate::actors::supervisor::{Kept, Supervisor};
use crate::domain::flow::Flow;
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
        let store = &self.outlet.store;
        for lane in store.lanes_owed()?.into_iter().chain(store.lanes_writing()?) {
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
                if let Err(error) = self.wake(lane) {
                    tracing::error!(lane = lane.0, error = error.chain(), "a lane could not be opened; trying again");
                    self.outlet.rings.at(self.outlet.clock.now().after(TICK), Wakes::Lane(lane));
                }
            }
        }
    }

    fn wake(&mut self, number: LaneNo) -> Result<()> {
        let begin = |lane: &Arc<Lane>| {
            let (outlet, lane) = (self.outlet.clone(), lane.clone());
            self.supervisor.begin(move || Courier::new(number, outlet, lane))
        };
        let (lane, kept) = match self.lanes.entry(number) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let flow = Flow::new(self.outlet.options.limits, self.outlet.store.lane_mark(number)?);
                let lane = Arc::new(Lane::new(number, self.outlet.rings.clone(), flow));
                self.outlet.flights.begin(number, lane.clone());
                let kept = begin(&lane);
                place.insert((lane, kept))
            }
        };
        let ended = lane.has_ended();
        if ended {
            self.lanes.remove(&number);
            self.outlet.flights.end(number);
        } else if !self.supervisor.wake("courier", kept) {
            *kept = begin(lane);
            self.supervisor.wake("courier", kept);
        }
        self.outlet.shared_by(self.lanes.len());
        Ok(())
    }
}
