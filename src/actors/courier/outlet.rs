//! Where attempts run: one current-thread HTTP runtime per core, each with its own client.
//!
//! Always true: an attempt commits its own outcome (commit 4) before its claim is dropped; a fault of ours uses up no
//! try; a panic loses one attempt, never the delivery. Not here: which delivery is next (`Courier`).

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use super::bodies::{Bodies, Body};
use super::lane::{Claim, Lane, LaneConfig};
use super::notices::LastDead;
use crate::actors::handle::Rings;
use crate::clock::Clock;
use crate::destinations::http::keys::{KeyRing, StoredKey};
use crate::destinations::{Driver, Parcel, Report};
use crate::domain::delivery::{DeliveryState, LaneSignal, Settled, settle};
use crate::domain::id::{DeliveryId, EventId, LaneNo, WorkspaceNo};
use crate::domain::retry::Pace;
use crate::domain::time::Millis;
use crate::error::{Error, Result};
use crate::store::{DeliveryRow, Due, Settlement, Slot, Store, Turn, Wait};
use crate::telemetry::Metrics;

/// Settings of all lanes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Schedule, jitter and the longest Retry-After.
    pub pace: Pace,
    /// Attempts under way on the node at most.
    pub in_flight_total: NonZeroUsize,
    /// Memory for bodies.
    pub bodies_bytes_max: usize,
    /// How long a replaced workspace key stays published and an Ed25519 one signs.
    pub key_overlap: Duration,
}

/// Makes the driver of one runtime; called on that runtime.
pub type MakeDriver = Arc<dyn Fn() -> Result<Arc<dyn Driver>> + Send + Sync>;

struct Runtime {
    handle: Handle,
    driver: Arc<dyn Driver>,
    _stop: oneshot::Sender<()>,
}

/// The way out of the node.
pub struct Outlet {
    pub store: Store,
    pub clock: Clock,
    pub rings: Rings,
    pub metrics: Metrics,
    pub options: Options,
    runtimes: Vec<Runtime>,
    next: AtomicUsize,
    room: Arc<Semaphore>,
    bodies: Bodies,
    keys: Mutex<HashMap<WorkspaceNo, Arc<KeyRing>>>,
}

impl Outlet {
    /// Starts `threads` runtimes, each with a driver of its own.
    pub fn start(
        (store, clock, rings, metrics): (Store, Clock, Rings, Metrics),
        options: Options,
        threads: NonZeroUsize,
        make: &MakeDriver,
    ) -> Result<Self> {
        let runtimes = (0..threads.get()).map(|n| start_runtime(n, make.clone())).collect::<Result<_>>()?;
        let room = Arc::new(Semaphore::new(options.in_flight_total.get()));
        let bodies = Bodies::new(options.bodies_bytes_max);
        let (next, keys) = (AtomicUsize::new(0), Mutex::default());
        Ok(Self { store, clock, rings, metrics, options, runtimes, next, room, bodies, keys })
    }

    /// The driver that tests addresses and destinations; it belongs to the first runtime, whose handle comes with it.
    pub fn driver(&self) -> Option<(Handle, Arc<dyn Driver>)> {
        self.runtimes.first().map(|r| (r.handle.clone(), r.driver.clone()))
    }

    /// The signing keys of a workspace.
    pub fn keys_of(&self, workspace: WorkspaceNo) -> Result<Arc<KeyRing>> {
        if let Some(keys) = self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(&workspace) {
            return Ok(keys.clone());
        }
        let id = self.store.workspace_by_no(workspace)?.ok_or_else(|| Error::internal("a lane has no workspace"))?.id;
        let stored: Vec<StoredKey> = self.store.secret(&id.0, Slot::SigningKeys)?.unwrap_or_default();
        let keys = Arc::new(KeyRing::open(&stored, self.options.key_overlap)?);
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(workspace, keys.clone());
        Ok(keys)
    }

    /// Forgets opened keys, after a workspace's keys were changed.
    pub fn keys_changed(&self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clear();
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

    /// Sends one claimed delivery off; answers false when the node has no room for another attempt.
    pub(super) fn send(self: &Arc<Self>, config: Arc<LaneConfig>, lane: Arc<Lane>, claim: Claim, due: Due) -> bool {
        let Ok(permit) = self.room.clone().try_acquire_owned() else { return false };
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.runtimes.len().max(1);
        let Some(runtime) = self.runtimes.get(index) else { return false };
        let (outlet, driver) = (self.clone(), runtime.driver.clone());
        runtime.handle.spawn(async move {
            match outlet.attempt(driver.as_ref(), &config, &lane, &due).await {
                Ok(()) => claim.settle(),
                Err(error) => {
                    tracing::error!(
                        lane = config.subscription.lane.0,
                        error = error.chain(),
                        "an attempt was not settled"
                    );
                    // The claim goes after a pause, so that a store in trouble is not asked in a tight loop.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    drop(claim);
                }
            }
            drop(permit);
        });
        true
    }

    async fn attempt(&self, driver: &dyn Driver, config: &LaneConfig, lane: &Lane, due: &Due) -> Result<()> {
        let subscription = &config.subscription;
        let number = subscription.lane;
        let Some(body) = self.bodies.get(&self.store, due.event, subscription)? else {
            return self.expire(number, due).await;
        };
        let mut row = match due.turn {
            Turn::Retry(_) => match self.store.delivery(number, due.seq)? {
                Some(row) => row,
                // Cancelled or erased since it was claimed.
                None => return Ok(()),
            },
            Turn::First | Turn::Again(_) => DeliveryRow::unattempted(due, body.event.accepted_at),
        };
        let DeliveryState::Due { attempts, tries, .. } = row.state else { return Ok(()) };
        let now = self.clock.now();
        let first_wait = config.pace.schedule.wait(0).unwrap_or_default();
        if attempts == 0 && now < row.made_at.after(first_wait) {
            row.state = DeliveryState::Due { at: row.made_at.after(first_wait), tries, attempts };
            return self.commit(Settlement { lane: number, due: *due, row }).await;
        }
        if due.turn == Turn::First {
            self.metrics.accept_to_first_attempt.observe(now.since(body.event.accepted_at).as_secs_f64());
        }
        let report = driver.deliver(&parcel(config, &body, due, attempts + 1, row.replay, now)).await?;
        self.settle(config, lane, due, row, &body, report).await
    }

    async fn settle(
        &self,
        config: &LaneConfig,
        lane: &Lane,
        due: &Due,
        mut row: DeliveryRow,
        body: &Body,
        report: Report,
    ) -> Result<()> {
        let now = self.clock.now();
        self.metrics.attempts.with([report.outcome.slug()]).inc();
        self.metrics.attempt.observe(f64::from(report.attempt.duration_ms) / 1000.0);
        let Settled { state, lane: signal } =
            settle(row.state, report.outcome, &config.pace, now, &mut fastrand::Rng::new());
        row.state = state;
        row.attempts.push(report.attempt);
        let dead = match row.state {
            DeliveryState::Dead { cause, .. } => Some(cause),
            _ => None,
        };
        let attempts = u32::try_from(row.attempts.len()).unwrap_or(u32::MAX);
        self.commit(Settlement { lane: config.subscription.lane, due: *due, row }).await?;
        if let Some(cause) = dead {
            self.metrics.deliveries_dead.with([cause.slug()]).inc();
            let dead = LastDead {
                delivery: DeliveryId::new(due.seq, config.subscription.lane),
                event: EventId::new(due.event, config.subscription.workspace),
                topic: body.topic.to_string(),
                cause,
                attempts,
            };
            self.note_dead(config, lane, dead, now);
        }
        match signal {
            LaneSignal::Healthy | LaneSignal::Failing => {}
            LaneSignal::SlowUntil(until) => lane.slow_down(until),
            LaneSignal::Disable => self.disable(config.subscription.id, "gone").await?,
        }
        Ok(())
    }

    async fn commit(&self, settlement: Settlement) -> Result<()> {
        self.store.append(Wait::Applied, move |tx| tx.settle_delivery(&settlement)).await
    }

    /// Ends a delivery whose event is past its time.
    async fn expire(&self, number: LaneNo, due: &Due) -> Result<()> {
        let now = self.clock.now();
        let Some(mut row) = self.store.delivery(number, due.seq)? else { return Ok(()) };
        let cause = crate::domain::delivery::Cause::Expired;
        row.state = DeliveryState::Dead { at: now, cause };
        self.metrics.deliveries_dead.with([cause.slug()]).inc();
        self.commit(Settlement { lane: number, due: *due, row }).await
    }
}

fn parcel(config: &LaneConfig, body: &Body, due: &Due, attempt: u32, replay: bool, now: Millis) -> Parcel {
    Parcel {
        address: config.address.clone(),
        topic: body.topic.clone(),
        event: EventId::new(due.event, body.event.workspace),
        body: body.bytes.clone(),
        attempt,
        replay,
        at: now,
        signing: config.signing,
        secrets: config.secrets.clone(),
        keys: config.keys.clone(),
        headers: config.headers.clone(),
        timeout: config.timeout,
    }
}

fn start_runtime(number: usize, make: MakeDriver) -> Result<Runtime> {
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
