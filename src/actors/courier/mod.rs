//! The courier of one lane: claims what is due and sends it off, within the lane's window.
//!
//! Always true: it holds no exchange itself (`outlet` does), so a slow receiver blocks nothing; what it claims is in the
//! lane's in-flight set until its outcome is committed, also over a restart of the courier, so nothing is sent twice at
//! once; what it keeps in memory is bounded by its window. Not here: what an outcome means (`domain::delivery`).

mod batch;
mod bodies;
mod deaths;
mod desk;
mod destinations;
mod drivers;
mod ended;
mod flights;
mod handshake;
mod keyrings;
mod lane;
mod notices;
pub mod outlet;
mod repeat;
mod trial;

pub use deaths::Deaths;
pub use desk::Desk;
pub use flights::Flights;
pub use notices::LastDead;

use std::sync::Arc;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler};

use super::handle::Wakes;
use super::supervisor::Wake;
use crate::domain::flow::Flow;
use crate::domain::id::{LaneNo, Seq};
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{Due, Place};
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
    /// The same of those that replays have made.
    replay_low: Seq,
    /// No retry is due before.
    retry_low: Millis,
    /// Of two that take turns: see `batch`.
    is_backfills_turn: bool,
    company: Option<batch::Company>,
}

impl Courier {
    pub(super) fn new(number: LaneNo, outlet: Arc<Outlet>, lane: Arc<Lane>) -> Self {
        Self {
            number,
            outlet,
            lane,
            config: None,
            low: Seq(0),
            replay_low: Seq(0),
            retry_low: Millis(0),
            is_backfills_turn: false,
            company: None,
        }
    }

    /// Claims and sends what is due; answers when to look again.
    fn round(&mut self) -> Result<Round> {
        let outlet = self.outlet.clone();
        loop {
            let now = outlet.clock.now();
            let Some(config) = self.config()? else {
                outlet.deaths.take(self.number);
                return Ok(Round::Ended);
            };
            outlet.tell_dead(&config, &self.lane, now);
            self.lane.look();
            if !config.subscription.delivers(now) {
                return Ok(Round::Idle(None));
            }
            let slow_until = self.lane.slow_until();
            if now < slow_until {
                return Ok(Round::Idle(Some(slow_until)));
            }
            if config.subscription.destination.is_some() {
                return self.batch_round(&config, now);
            }
            let (window, probe) = {
                let mut flow = self.lane.flow();
                flow.obey(config.subscription.max_in_flight, config.subscription.per_second(), now);
                (flow.window(), flow.probe())
            };
            let stop = match probe {
                Some(probe) => self.probe(&config, probe, now)?,
                None => self.fill(&config, window.min(outlet.share()), now)?,
            };
            self.lane.reads_from(self.low, self.retry_low);
            match stop {
                Stop::Nothing => return Ok(Round::Idle(None)),
                Stop::Until(at) => return Ok(Round::Idle(Some(at))),
                Stop::Room { ring_at } if self.lane.pause(ring_at) => return Ok(Round::Idle(None)),
                // Room came meanwhile.
                Stop::Room { .. } => {}
            }
        }
    }

    /// Sends what is due, retries, fresh deliveries and those of replays in turn, until the window is full or nothing is
    /// left: whatever a replay has made, what is new and what has failed have their turns.
    fn fill(&mut self, config: &Arc<LaneConfig>, window: usize, now: Millis) -> Result<Stop> {
        let full = Stop::Room { ring_at: window / 2 };
        let in_flight = self.lane.in_flight();
        if in_flight >= window {
            return Ok(full);
        }
        let mut room = window - in_flight;
        if self.lane.take_redo() {
            self.look_anew();
        }
        self.retry_low = self.retry_low.min(self.lane.take_let_go());
        let (mut retries, next) = self.due_retries(window, now)?;
        let routed = self.outlet.rings.routed_to();
        let store = &self.outlet.store;
        let mut fresh = store.fresh_deliveries(self.number, self.low, window + 1)?.into_iter();
        let mut replayed = store.replayed_deliveries(self.number, self.replay_low, window + 1)?.into_iter();
        loop {
            let turn = [retries.next(), fresh.next(), replayed.next()];
            if turn.iter().all(Option::is_none) {
                return Ok(next.map_or(Stop::Nothing, Stop::Until));
            }
            for due in turn.into_iter().flatten() {
                if room == 0 {
                    return Ok(full);
                }
                match self.send(config, due, now) {
                    Sent::Yes => room -= 1,
                    Sent::InFlight => {}
                    Sent::NodeFull => return Ok(Stop::Nothing),
                    Sent::TooSoon(at) => return Ok(Stop::Until(next.map_or(at, |next| next.min(at)))),
                }
                // A resend may stand before events that the router has not seen yet: the mark waits for the router.
                if due.place == Place::Fresh && due.seq <= routed {
                    self.low = self.low.max(due.seq);
                }
                if due.place == Place::Replay {
                    self.replay_low = self.replay_low.max(due.seq);
                }
            }
        }
    }

    /// Looks from the start of the queue again.
    fn look_anew(&mut self) {
        (self.low, self.replay_low, self.retry_low) = (Seq(0), Seq(0), Millis(0));
    }

    /// Retries that are due, and when the next one is.
    fn due_retries(&mut self, window: usize, now: Millis) -> Result<(std::vec::IntoIter<Due>, Option<Millis>)> {
        // One more than fits, so that the first that is not due yet tells when to look again.
        let mut retries = self.outlet.store.retry_deliveries_from(self.number, self.retry_low, window + 1)?;
        let at = |due: &Due| match due.place {
            Place::At(at) => at,
            Place::Fresh | Place::Parked | Place::Replay => now,
        };
        // Nothing stands before the first one, and nothing is put before now.
        self.retry_low = retries.first().map_or(now, at).min(now);
        let due = retries.iter().take_while(|due| at(due) <= now).count();
        let next = retries.get(due).map(at);
        retries.truncate(due);
        Ok((retries.into_iter(), next))
    }

    /// With an open breaker: one attempt at a time, of one delivery, when its own schedule says.
    fn probe(&mut self, config: &Arc<LaneConfig>, probe: Option<Seq>, now: Millis) -> Result<Stop> {
        if self.lane.in_flight() > 0 {
            return Ok(Stop::Room { ring_at: 0 });
        }
        let store = &self.outlet.store;
        let known = match probe {
            Some(seq) => store.owed(self.number, seq)?,
            None => None,
        };
        let Some(due) = known.map_or_else(|| store.oldest_owed(self.number), |due| Ok(Some(due)))? else {
            return Ok(Stop::Nothing);
        };
        self.lane.flow().probe_with(due.seq);
        match due.place {
            Place::At(at) if at > now => return Ok(Stop::Until(at)),
            Place::At(_) | Place::Fresh | Place::Parked | Place::Replay => {}
        }
        Ok(match self.send(config, due, now) {
            Sent::Yes | Sent::InFlight => Stop::Room { ring_at: 0 },
            Sent::NodeFull => Stop::Nothing,
            Sent::TooSoon(at) => Stop::Until(at),
        })
    }

    fn send(&self, config: &Arc<LaneConfig>, due: Due, now: Millis) -> Sent {
        let record = due.record.filter(|_| config.subscription.ordered);
        if self.lane.is_taken(due.seq, record) {
            return Sent::InFlight;
        }
        let Some(room) = self.outlet.enter(self.number) else { return Sent::NodeFull };
        if let Err(at) = self.lane.flow().leave(now) {
            return Sent::TooSoon(at);
        }
        let Some(claim) = self.lane.claim(due.seq, record) else { return Sent::InFlight };
        self.outlet.send(room, config.clone(), self.lane.clone(), claim, due);
        Sent::Yes
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
        let now = self.outlet.clock.now();
        let delivers = |config: &LaneConfig| config.subscription.delivers(now);
        if let (Some((_, before)), Some(after)) = (&self.config, &config)
            && !delivers(before)
            && delivers(after)
        {
            // It was enabled: what was learnt of the endpoint before is worth nothing.
            *self.lane.flow() = Flow::new(self.outlet.options.limits, self.outlet.store.lane_mark(self.number)?);
            self.look_anew();
        }
        self.config = config.clone().map(|config| (version, config));
        Ok(config)
    }
}

enum Round {
    /// Nothing more to do until then, or until somebody rings.
    Idle(Option<Millis>),
    /// The subscription is gone.
    Ended,
}

/// Why no more is sent now.
enum Stop {
    /// There is nothing that could be; whoever changes that rings.
    Nothing,
    Until(Millis),
    /// The window is full; to be rung when no more than so many are in flight.
    Room {
        ring_at: usize,
    },
}

enum Sent {
    Yes,
    InFlight,
    /// The node has no room; the lane is rung when it has.
    NodeFull,
    /// The lane's pace forbids it until then.
    TooSoon(Millis),
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
