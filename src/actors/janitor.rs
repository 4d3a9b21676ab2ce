//! The janitor: drops what is past its time, and measures what is there.
//!
//! Always true: an event that a delivery still needs is never dropped; each look does a bounded amount of work and goes
//! on at the next. Not here: how a range is dropped (`store::retention`).

use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};

use super::options::Retention;
use super::supervisor::Wake;
use crate::clock::Clock;
use crate::domain::connection::{Connection, ConnectionStatus};
use crate::domain::subscription::{Halt, Subscription};
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{Cutoffs, Rows, Store, SweepMarks};
use crate::telemetry::Metrics;

/// Rows that one look may read of what cannot be dropped by range.
const SWEPT_MAX: usize = 5_000;
/// Below the cap on bytes, ages are believed again; above it they are halved, look by look, down to this share.
const SHARES_MAX: u32 = 10;

/// The actor.
pub struct Janitor {
    store: Store,
    clock: Clock,
    metrics: Metrics,
    retention: Retention,
    looked_at: Option<Millis>,
    marks: SweepMarks,
    /// How often the ages of history and inbox are halved, because the store is over its cap.
    halvings: u32,
    stalled_since: Option<Millis>,
}

impl Janitor {
    /// A janitor that has looked at nothing yet.
    pub fn new(store: Store, clock: Clock, metrics: Metrics, retention: Retention) -> Self {
        let marks = SweepMarks::default();
        Self { store, clock, metrics, retention, looked_at: None, marks, halvings: 0, stalled_since: None }
    }

    fn cutoffs(&mut self, now: Millis) -> Cutoffs {
        let r = &self.retention;
        let over = r.bytes_max.is_some_and(|max| self.store.bytes() > max.get());
        self.halvings = if over { (self.halvings + 1).min(SHARES_MAX) } else { self.halvings.saturating_sub(1) };
        let before = |seconds: u64| now.before(Duration::from_secs(seconds));
        Cutoffs {
            now,
            events: before(r.events_seconds.get()),
            undelivered: before(r.undelivered_seconds.get()),
            delivered: before(r.delivered_seconds.get() >> self.halvings),
            // The inbox goes after the history: it is halved once less.
            inbox: before(r.inbox_seconds.get() >> self.halvings.saturating_sub(1)),
            pulls: before(r.pulls_seconds.get()),
            tombstones: before(r.tombstones_seconds.get()),
        }
    }

    /// Time in which RocksDB held writes back, as far as a look now and then can tell.
    fn measure_stall(&mut self, now: Millis) {
        match (self.store.is_stalled(), self.stalled_since) {
            (true, None) => self.stalled_since = Some(now),
            (true, Some(since)) => {
                self.metrics.store_stall.inc_by(now.since(since).as_secs_f64());
                self.stalled_since = Some(now);
            }
            (false, _) => self.stalled_since = None,
        }
    }
}

impl Actor for Janitor {
    type Context = Context<Self>;
}

impl Handler<Wake> for Janitor {
    type Result = ();
    fn handle(&mut self, _: Wake, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        self.measure_stall(now);
        let every = Duration::from_secs(self.retention.interval_seconds.get());
        let due = self.looked_at.is_none_or(|at| now.since(at) >= every);
        if due {
            self.looked_at = Some(now);
        }
        let cutoffs = due.then(|| self.cutoffs(now));
        let look = look(self.store.clone(), self.clock.clone(), self.metrics.clone(), cutoffs, self.marks.clone());
        ctx.wait(look.into_actor(self).map(|outcome, janitor, _| match outcome {
            Ok(marks) => janitor.marks = marks,
            Err(error) => tracing::error!(error = error.chain(), "the janitor could not look; trying again later"),
        }));
    }
}

async fn look(
    store: Store,
    clock: Clock,
    metrics: Metrics,
    cutoffs: Option<Cutoffs>,
    marks: SweepMarks,
) -> Result<SweepMarks> {
    let (counted, now) = (metrics.clone(), clock.now());
    metrics.store_bytes.set(i64::try_from(store.bytes()).unwrap_or(i64::MAX));
    metrics.disk_free_bytes.set(i64::try_from(store.free_bytes()).unwrap_or(i64::MAX));
    store.blocking(move |rows| measure_lanes(rows, now, &counted)).await?;
    let Some(cutoffs) = cutoffs else { return Ok(marks) };
    // A hundred thousand connections take a while to count, so this is not done at every look.
    store.blocking(move |rows| measure_connections(rows, &metrics)).await?;
    store.drop_past(cutoffs, marks, SWEPT_MAX).await
}

fn measure_lanes(store: &Rows, now: Millis, metrics: &Metrics) -> Result<()> {
    let (mut pending, mut oldest) = (0_u64, None::<Millis>);
    let mut by_status = [("active", 0_i64), ("retrying", 0), ("paused", 0), ("disabled", 0)];
    store.every_object::<Subscription>(|subscription| {
        let counts = store.lane_counts(subscription.lane)?;
        pending += counts.pending;
        let mut retrying = false;
        if counts.pending > 0 {
            if let Some(made_at) = store.oldest_pending(subscription.lane)? {
                oldest = Some(oldest.map_or(made_at, |o| o.min(made_at)));
            }
            retrying = !store.retry_deliveries(subscription.lane, 1)?.is_empty();
        }
        let index = match (&subscription.halt, subscription.is_enabled) {
            (Halt::Disabled { .. }, _) => 3,
            (_, false) => 2,
            (_, true) if retrying => 1,
            (_, true) => 0,
        };
        by_status[index].1 += 1;
        Ok(())
    })?;
    for (status, count) in by_status {
        metrics.subscriptions.with([status]).set(count);
    }
    metrics.deliveries_pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
    metrics.oldest_pending.set(oldest.map_or(0.0, |at| now.since(at).as_secs_f64()));
    Ok(())
}

fn measure_connections(store: &Rows, metrics: &Metrics) -> Result<()> {
    let mut by_status = [("active", 0_i64), ("paused", 0), ("authFailed", 0), ("error", 0)];
    store.every_object::<Connection>(|connection| {
        let index = match connection.status {
            ConnectionStatus::Active => 0,
            ConnectionStatus::Paused => 1,
            ConnectionStatus::AuthFailed { .. } => 2,
            ConnectionStatus::Error { .. } => 3,
        };
        by_status[index].1 += 1;
        Ok(())
    })?;
    for (status, count) in by_status {
        metrics.connections.with([status]).set(count);
    }
    Ok(())
}
