//! Where attempts run: one current-thread HTTP runtime per core, each with its own client.
//!
//! Always true: an attempt commits its own outcome (commit 4) before its claim is dropped; a fault of ours uses up no
//! try; a panic loses one attempt, never the delivery. The node's room for attempts is shared: a lane that finds none is
//! rung when there is some again, first come first served. Not here: which delivery is next (`Courier`).

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::bodies::{Bodies, Body};
use super::deaths::Deaths;
use super::drivers::Drivers;
use super::ended::{After, Ended, FAILED_PAUSE, Hold};
use super::flights::Flights;
use super::keyrings::KeyRings;
use super::lane::{Claim, Lane, LaneConfig};
use super::notices::{GONE, LastDead};
use super::repeat::parcel;
use crate::actors::handle::Rings;
use crate::clock::Clock;
use crate::destinations::driver::Kind;
use crate::destinations::{Post, Report};
use crate::domain::delivery::{Cause, DeliveryState, LaneSignal, settle};
use crate::domain::flow::{Limits, Seen};
use crate::domain::id::{DeliveryId, EventId, LaneNo, Seq};
use crate::domain::retry::Pace;
use crate::error::{Code, Error, Result};
use crate::store::{DeliveryRow, Due, Settlement, Store, Turn, Wait};
use crate::telemetry::Metrics;

/// Settings of all lanes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Schedule, jitter and the longest Retry-After.
    pub pace: Pace,
    /// Window, breaker and recovery.
    pub limits: Limits,
    /// Attempts under way on the node at most.
    pub in_flight_total: NonZeroUsize,
    /// Memory for bodies.
    pub bodies_bytes_max: usize,
    /// How long a replaced workspace key stays published and an Ed25519 one signs.
    pub key_overlap: Duration,
    /// The folder below which destinations may write files; None: none may.
    pub files: Option<PathBuf>,
    /// Kinds of destinations beside those of the build: stand-ins of tests.
    pub kinds: &'static [&'static Kind],
}

/// Makes the driver of one runtime; called on that runtime.
pub type MakePost = Arc<dyn Fn() -> Result<Arc<dyn Post>> + Send + Sync>;

struct Runtime {
    handle: Handle,
    driver: Arc<dyn Post>,
    _stop: oneshot::Sender<()>,
}

/// The way out of the node.
pub struct Outlet {
    pub store: Store,
    pub clock: Clock,
    pub rings: Rings,
    pub metrics: Metrics,
    pub options: Options,
    /// What is in flight.
    pub flights: Flights,
    /// What died before any attempt.
    pub deaths: Deaths,
    runtimes: Vec<Runtime>,
    next: AtomicUsize,
    room: Arc<Semaphore>,
    /// Lanes that found no room.
    waiting: Mutex<VecDeque<LaneNo>>,
    /// Lanes that have a courier.
    lanes: AtomicUsize,
    bodies: Bodies,
    pub(super) keys: KeyRings,
    pub(super) drivers: Drivers,
}

impl Outlet {
    /// Starts `threads` runtimes, each with a driver of its own.
    pub fn start(
        (store, clock, rings, metrics): (Store, Clock, Rings, Metrics),
        options: Options,
        threads: NonZeroUsize,
        make: &MakePost,
    ) -> Result<Self> {
        let runtimes = (0..threads.get()).map(|n| start_runtime(n, make.clone())).collect::<Result<_>>()?;
        let room = Arc::new(Semaphore::new(options.in_flight_total.get()));
        let bodies = Bodies::new(options.bodies_bytes_max);
        let deaths = Deaths::new(metrics.clone());
        Ok(Self {
            store,
            clock,
            rings,
            metrics,
            options,
            flights: Flights::default(),
            deaths,
            runtimes,
            next: AtomicUsize::new(0),
            room,
            waiting: Mutex::default(),
            lanes: AtomicUsize::new(0),
            bodies,
            keys: KeyRings::default(),
            drivers: Drivers::default(),
        })
    }

    /// The driver that tests addresses and destinations; it belongs to the first runtime, whose handle comes with it.
    pub fn driver(&self) -> Option<(Handle, Arc<dyn Post>)> {
        self.runtimes.first().map(|r| (r.handle.clone(), r.driver.clone()))
    }

    /// One of the runtimes, the same for the same number.
    pub(super) fn runtime(&self, number: usize) -> Option<(Handle, Arc<dyn Post>)> {
        let place = number.checked_rem(self.runtimes.len())?;
        self.runtimes.get(place).map(|r| (r.handle.clone(), r.driver.clone()))
    }

    /// Events were erased: what was made of them is forgotten.
    pub fn forget(&self, events: &[Seq]) {
        self.bodies.forget(events);
    }

    /// Takes nothing more, and waits until the attempts under way have ended, but no longer than `patience`.
    pub async fn drain(&self, patience: Duration) {
        let all = u32::try_from(self.options.in_flight_total.get()).unwrap_or(u32::MAX);
        // Fair waiting: whoever asks for one permit from now on comes after this.
        if let Ok(Ok(permits)) = tokio::time::timeout(patience, self.room.acquire_many(all)).await {
            permits.forget();
        }
        self.room.close();
    }

    /// A place for one more attempt. None: the node is full; the lane is rung when there is one.
    pub(super) fn enter(self: &Arc<Self>, lane: LaneNo) -> Option<Room> {
        let permit = self.room.clone().try_acquire_owned().ok();
        if permit.is_none() {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if !waiting.contains(&lane) {
                waiting.push_back(lane);
            }
        }
        permit.map(|permit| Room { permit: Some(permit), outlet: self.clone() })
    }

    /// Attempts that one lane may have under way: all that it wants while there is plenty of room, its share otherwise.
    pub(super) fn share(&self) -> usize {
        let total = self.options.in_flight_total.get();
        if self.room.available_permits() > total / 4 {
            return total;
        }
        (total / self.lanes.load(Ordering::Relaxed).max(1)).max(1)
    }

    /// How many lanes share the room.
    pub(super) fn shared_by(&self, lanes: usize) {
        self.lanes.store(lanes, Ordering::Relaxed);
    }

    /// Sends one claimed delivery off.
    pub(super) fn send(self: &Arc<Self>, room: Room, config: Arc<LaneConfig>, lane: Arc<Lane>, claim: Claim, due: Due) {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.runtimes.len().max(1);
        let Some(runtime) = self.runtimes.get(index) else { return };
        let (outlet, driver) = (self.clone(), runtime.driver.clone());
        runtime.handle.spawn(async move {
            let hold = Hold::new(claim, room);
            if let Err((error, hold)) = outlet.attempt(driver.as_ref(), &config, &lane, &due, hold).await {
                hold.fail(&tokio::runtime::Handle::current(), config.subscription.lane, &error);
            }
        });
    }

    /// Makes the attempt and hands its outcome to the store. An error is ours, and gives the claim back.
    async fn attempt(
        self: &Arc<Self>,
        driver: &dyn Post,
        config: &Arc<LaneConfig>,
        lane: &Arc<Lane>,
        due: &Due,
        hold: Hold,
    ) -> std::result::Result<(), (Error, Hold)> {
        let ready = match self.prepare(config, due) {
            Ok(Ready::Send(row, body)) => (row, body),
            Ok(Ready::Write(row)) => {
                self.post(config, lane, due, *row, None, hold).await;
                return Ok(());
            }
            // Cancelled or erased since it was claimed.
            Ok(Ready::Nothing) => {
                hold.settle(false);
                return Ok(());
            }
            Err(error) => return Err((error, hold)),
        };
        let (row, body) = ready;
        let DeliveryState::Due { attempts, .. } = row.state else { return Ok(()) };
        let parcel = parcel(config, &body, due, attempts + 1, row.replay, (self.clock.now(), self.clock.wall()));
        match driver.deliver(&parcel).await {
            Ok(report) => self.settle(config, lane, due, *row, &body, report, hold).await,
            Err(error) => Err((error, hold)),
        }
    }

    /// What is to be sent, or what becomes of the delivery without sending anything.
    fn prepare(&self, config: &LaneConfig, due: &Due) -> Result<Ready> {
        let number = config.subscription.lane;
        let Some(body) = self.body(config, due)? else {
            let Some(mut row) = self.store.delivery(number, due.seq)? else { return Ok(Ready::Nothing) };
            let cause = Cause::Expired;
            row.state = DeliveryState::Dead { at: self.clock.now(), cause };
            self.metrics.deliveries_dead.with([cause.slug()]).inc();
            return Ok(Ready::Write(Box::new(row)));
        };
        let mut row = match due.turn {
            Turn::Retry => match self.store.delivery(number, due.seq)? {
                Some(row) => row,
                None => return Ok(Ready::Nothing),
            },
            Turn::First | Turn::Again(_) if self.store.is_stale(number, due)? => return Ok(Ready::Nothing),
            Turn::First | Turn::Again(_) => DeliveryRow::unattempted(due, body.event.accepted_at),
        };
        let DeliveryState::Due { attempts, tries, .. } = row.state else { return Ok(Ready::Nothing) };
        let now = self.clock.now();
        let first_wait = config.pace.schedule.wait(0).unwrap_or_default();
        if attempts == 0 && now < row.made_at.after(first_wait) {
            row.state = DeliveryState::Due { at: row.made_at.after(first_wait), tries, attempts };
            return Ok(Ready::Write(Box::new(row)));
        }
        if due.turn == Turn::First {
            self.metrics.accept_to_first_attempt.observe(now.since(body.event.accepted_at).as_secs_f64());
        }
        Ok(Ready::Send(Box::new(row), body))
    }

    fn body(&self, config: &LaneConfig, due: &Due) -> Result<Option<Body>> {
        let (version, include) = (config.subscription.api_version, &config.include);
        let merged = match due.record {
            Some(_) => self.store.merged(config.subscription.lane, due.seq)?,
            None => None,
        };
        match merged {
            Some(merged) => Bodies::merged(&self.store, due.event, merged, version, include),
            None => self.bodies.get(&self.store, due.event, version, include),
        }
    }

    async fn settle(
        self: &Arc<Self>,
        config: &Arc<LaneConfig>,
        lane: &Arc<Lane>,
        due: &Due,
        mut row: DeliveryRow,
        body: &Body,
        report: Report,
        hold: Hold,
    ) -> std::result::Result<(), (Error, Hold)> {
        let now = self.clock.now();
        let Report { outcome, attempt } = report;
        self.metrics.attempts.with([outcome.slug()]).inc();
        self.metrics.attempt.observe(f64::from(attempt.duration_ms) / 1000.0);
        let (mark, back) = match outcome.sign() {
            Some(sign) => {
                let seen = Seen { delivery: due.seq, began: attempt.at, duration_ms: attempt.duration_ms, sign };
                lane.observe(seen, now)
            }
            None => (None, None),
        };
        let settled = settle(row.state, outcome, &config.pace, now, &mut fastrand::Rng::new());
        row.state = settled.state;
        row.attempts.push(attempt);
        if let DeliveryState::Dead { cause, .. } = row.state {
            self.metrics.deliveries_dead.with([cause.slug()]).inc();
            let attempts = u32::try_from(row.attempts.len()).unwrap_or(u32::MAX);
            let delivery = DeliveryId::new(due.seq, config.subscription.lane);
            let event = EventId::new(due.event, config.subscription.workspace);
            let dead = LastDead { delivery, event, topic: body.topic.to_string(), cause, attempts };
            self.note_dead(config, lane, dead, now);
        }
        let gives_up = match settled.lane {
            LaneSignal::Healthy => None,
            LaneSignal::Failing => lane.flow().is_given_up(now).then_some("failing"),
            LaneSignal::SlowUntil(until) => {
                lane.slow_down(until);
                lane.flow().is_given_up(now).then_some("failing")
            }
            LaneSignal::Disable => Some(GONE),
        };
        self.post(config, lane, due, row, Some(After { mark, back, at: now }), hold).await;
        if let Some(reason) = gives_up
            && let Err(error) = self.disable(config.subscription.id, reason).await
        {
            // The next failure asks again.
            tracing::error!(error = error.chain(), "a subscription could not be disabled");
        }
        Ok(())
    }

    /// Commits what became of a delivery; its claim ends once that is applied.
    async fn post(
        self: &Arc<Self>,
        config: &Arc<LaneConfig>,
        lane: &Arc<Lane>,
        due: &Due,
        row: DeliveryRow,
        after: Option<After>,
        hold: Hold,
    ) {
        let settlement = Settlement { lane: config.subscription.lane, due: *due, row };
        let ended = Arc::new(Ended { settlement, after, config: config.clone(), lane: lane.clone() });
        let (outlet, runtime) = (self.clone(), Handle::current());
        let written = ended.clone();
        let done = move |outcome: Result<()>| match outcome {
            Ok(()) => ended.applied(&outlet, hold),
            Err(error) if error.code == Code::Unavailable => drop(runtime.spawn(outlet.post_again(ended, hold))),
            Err(error) => hold.fail(&runtime, ended.settlement.lane, &error),
        };
        self.store.post(move |tx| written.write(tx), done).await;
    }

    /// While the disk takes nothing an outcome waits here, with its place in the lane's window, so that the receiver does
    /// not get the same delivery again and again.
    async fn post_again(self: Arc<Self>, ended: Arc<Ended>, hold: Hold) {
        loop {
            tokio::time::sleep(FAILED_PAUSE).await;
            let written = ended.clone();
            match self.store.append(Wait::Applied, move |tx| written.write(tx)).await {
                Ok(()) => return ended.applied(&self, hold),
                Err(error) if error.code == Code::Unavailable && self.store.is_broken() => {}
                Err(error) => return hold.fail(&Handle::current(), ended.settlement.lane, &error),
            }
        }
    }
}

/// What becomes of a claimed delivery.
enum Ready {
    Send(Box<DeliveryRow>, Body),
    /// It is not sent now, or never: this is its row.
    Write(Box<DeliveryRow>),
    /// It is not owed any more.
    Nothing,
}

/// A place among the node's attempts; given up, it rings the lane that has waited longest for one.
pub(super) struct Room {
    permit: Option<OwnedSemaphorePermit>,
    outlet: Arc<Outlet>,
}

impl Drop for Room {
    fn drop(&mut self) {
        drop(self.permit.take());
        let next = self.outlet.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(lane) = next {
            self.outlet.rings.lane(lane);
        }
    }
}

fn start_runtime(number: usize, make: MakePost) -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::internal)?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let (made, driver) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name(format!("http-{number}"))
        .spawn(move || {
            runtime.block_on(async move {
                // Nobody waits any more if the receiver is gone; then there is nothing to run either.
                let _ = made.send(make());
                let _ = stopped.await;
            });
        })
        .map_err(Error::internal)?;
    let driver = driver.recv().map_err(Error::internal)??;
    Ok(Runtime { handle, driver, _stop: stop })
}
