//! The courier of one lane: claims what is due and sends it off, within the lane's window.
//!
//! Always true: it holds no exchange itself (`outlet` does), so a slow receiver blocks nothing; what it claims is in the
//! lane's in-flight set until its outcome is committed, also over a restart of the courier, so nothing is sent twice at
//! once; what it keeps in memory is bounded by its window. Not here: what an outcome means (`domain::delivery`).

mod bodies;
mod desk;
mod lane;
mod notices;
pub mod outlet;
mod trial;

pub use desk::Desk;

use std::sync::Arc;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler};

use super::handle::Wakes;
use super::supervisor::Wake;
use crate::domain::id::{LaneNo, Seq};
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{Due, Turn};
use lane::{Lane, LaneConfig};
use outlet::Outlet;

/// The actor.
pub struct Courier {
    number: LaneNo,
    outlet: Arc<Outlet>,
    lane: Arc<Lane>,
    /// The configuration, and the version of the subscriptions that it was read at.
    config: Option<(u64, Arc<LaneConfig>)>,
    /// Fresh deliveries up to here are sent, in flight, or among the retries.
    low: Seq,
}

impl Courier {
    pub(super) fn new(number: LaneNo, outlet: Arc<Outlet>, lane: Arc<Lane>) -> Self {
        Self { number, outlet, lane, config: None, low: Seq(0) }
    }

    /// Claims and sends what is due; answers when to look again.
    fn round(&mut self) -> Result<Round> {
        let outlet = self.outlet.clone();
        let now = outlet.clock.now();
        let Some(config) = self.config()? else { return Ok(Round::Ended) };
        outlet.tell_dead(&config, &self.lane, now);
        if !config.subscription.delivers(now) {
            return Ok(Round::Idle(None));
        }
        let slow_until = self.lane.slow_until();
        if now < slow_until {
            return Ok(Round::Idle(Some(slow_until)));
        }
        let window = config.subscription.max_in_flight as usize;
        let in_flight = self.lane.in_flight();
        let Some(room) = window.checked_sub(in_flight).filter(|room| *room > 0) else { return Ok(Round::Idle(None)) };
        let mut next = None;
        let mut sent = 0;
        // One more than fits, so that the first that is not due yet tells when to look again.
        for due in outlet.store.retry_deliveries(self.number, window + 1)? {
            let Turn::Retry(at) = due.turn else { continue };
            if at > now {
                next = Some(at);
                break;
            }
            if sent == room {
                return Ok(Round::Idle(None));
            }
            match self.send(&config, due) {
                Sent::Yes => sent += 1,
                Sent::InFlight => {}
                Sent::NodeFull => return Ok(Round::Idle(Some(Millis(now.0 + NODE_FULL_MS)))),
            }
        }
        if self.lane.take_redo() {
            self.low = Seq(0);
        }
        let routed = outlet.rings.routed_to();
        for due in outlet.store.fresh_deliveries(self.number, self.low, window + 1)? {
            if sent == room {
                break;
            }
            match self.send(&config, due) {
                Sent::Yes => sent += 1,
                Sent::InFlight => {}
                Sent::NodeFull => return Ok(Round::Idle(Some(Millis(now.0 + NODE_FULL_MS)))),
            }
            // A resend may stand before events that the router has not seen yet: the mark waits for the router.
            if due.seq <= routed {
                self.low = self.low.max(due.seq);
            }
        }
        Ok(Round::Idle(next))
    }

    fn send(&self, config: &Arc<LaneConfig>, due: Due) -> Sent {
        match self.lane.claim(due.seq) {
            None => Sent::InFlight,
            Some(claim) => match self.outlet.send(config.clone(), self.lane.clone(), claim, due) {
                true => Sent::Yes,
                false => Sent::NodeFull,
            },
        }
    }

    /// The lane's configuration as of now; None when its subscription is gone.
    fn config(&mut self) -> Result<Option<Arc<LaneConfig>>> {
        let version = self.outlet.rings.subscriptions_version();
        if let Some((read_at, config)) = &self.config
            && *read_at == version
            && config.is_current(self.outlet.clock.now())
        {
            return Ok(Some(config.clone()));
        }
        let config = LaneConfig::read(&self.outlet, self.number)?.map(Arc::new);
        self.config = config.clone().map(|config| (version, config));
        Ok(config)
    }
}

/// How long to wait for room among the node's attempts.
const NODE_FULL_MS: u64 = 20;

enum Round {
    /// Nothing more to do until then, or until somebody rings.
    Idle(Option<Millis>),
    /// The subscription is gone.
    Ended,
}

enum Sent {
    Yes,
    InFlight,
    NodeFull,
}

impl Actor for Courier {
    type Context = Context<Self>;
}

impl Handler<Wake> for Courier {
    type Result = ();
    fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
        match self.round() {
            Ok(Round::Idle(next)) => {
                if let Some(at) = next {
                    self.outlet.rings.at(at, Wakes::Lane(self.number));
                }
            }
            Ok(Round::Ended) => {
                self.lane.end();
                ctx.stop();
            }
            Err(error) => {
                tracing::error!(
                    lane = self.number.0,
                    error = error.chain(),
                    "a lane could not be looked at; trying again"
                );
                ctx.notify_later(Wake, std::time::Duration::from_secs(1));
            }
        }
    }
}
