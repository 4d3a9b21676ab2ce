//! The janitor: drops what is past its time.
//!
//! Always true: an event that a delivery still needs is never dropped; each look does a bounded amount of work and goes
//! on at the next. Not here: how a range is dropped (`store::retention`), the gauges of what is there (`api::gauges`).

use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};

use super::options::Retention;
use super::supervisor::Wake;
use crate::clock::Clock;
use crate::domain::time::Millis;
use crate::store::{Cutoffs, Store, SweepMarks};
use crate::telemetry::Metrics;

/// Rows that one look may read of what cannot be dropped by range.
const SWEPT_MAX: usize = 5_000;
/// Below the cap on bytes, ages are believed again; above it they are halved, look by look, down to this share.
const SHARES_MAX: u32 = 10;

/// The actor.
pub struct Janitor {
    store: Store,
    clock: Clock,
    retention: Retention,
    metrics: Metrics,
    looked_at: Option<Millis>,
    marks: SweepMarks,
    /// How often the ages of history and inbox are halved, because the store is over its cap.
    halvings: u32,
}

impl Janitor {
    /// A janitor that has looked at nothing yet.
    pub fn new(store: Store, clock: Clock, retention: Retention, metrics: Metrics) -> Self {
        let marks = SweepMarks::default();
        Self { store, clock, retention, metrics, looked_at: None, marks, halvings: 0 }
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
            unverified: before(r.unverified_seconds.get()),
            pulls: before(r.pulls_seconds.get()),
            tombstones: before(r.tombstones_seconds.get()),
            audit: before(r.audit_seconds.get()),
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
        let every = Duration::from_secs(self.retention.interval_seconds.get());
        if self.looked_at.is_some_and(|at| now.since(at) < every) {
            return;
        }
        self.looked_at = Some(now);
        let (store, cutoffs, marks) = (self.store.clone(), self.cutoffs(now), self.marks.clone());
        let look = async move { store.drop_past(cutoffs, marks, SWEPT_MAX).await };
        ctx.wait(look.into_actor(self).map(|outcome, janitor, _| match outcome {
            Ok(swept) => {
                janitor.marks = swept.marks;
                if swept.unjudged > 0 {
                    janitor.metrics.webhooks_handled.with(["unverified", "expired"]).inc_by(swept.unjudged);
                    tracing::warn!(count = swept.unjudged, "dropped webhooks that no script has judged in time");
                }
            }
            Err(error) => tracing::error!(error = error.chain(), "the janitor could not look; trying again later"),
        }));
    }
}
