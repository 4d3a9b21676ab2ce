//! Starts actors from factories, rings them, and brings them back when they panic.
//!
//! Always true: an actor that dies is started again from the store within a tick; one that does not come round to its
//! mailbox for too long makes the node not live. actix's own `Supervisor` does not bring back an actor whose handler
//! panicked (measured), hence this one. Not here: what an actor does when it is rung.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Arbiter, Context, Handler};
use tokio::time::Instant;

use crate::telemetry::Metrics;

/// "Look what is due." It has no payload; a full mailbox means that the actor is awake already.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub struct Wake;

/// Which actors do not come round to their mailbox: the node's liveness.
#[derive(Clone, Default)]
pub struct Pulse(Arc<Mutex<std::collections::BTreeSet<&'static str>>>);

impl Pulse {
    /// The trades that are stuck now.
    pub fn stuck(&self) -> Vec<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
    fn tell(&self, trade: &'static str, stuck: bool) {
        let mut trades = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stuck {
            trades.insert(trade);
        } else {
            trades.remove(trade);
        }
    }
}

/// Threads for actors, and the watch over them.
#[derive(Clone)]
pub struct Supervisor {
    arbiters: Arc<Vec<Arbiter>>,
    next: Arc<AtomicUsize>,
    pulse: Pulse,
    metrics: Metrics,
    stuck_after: Duration,
}

/// One actor under watch.
pub(super) struct Kept<A: Actor> {
    addr: Addr<A>,
    full_since: Option<Instant>,
}

impl Supervisor {
    /// With so many threads of its own; they serve no requests, so an actor may read the store.
    pub fn start(threads: usize, metrics: Metrics, stuck_after: Duration) -> Self {
        let arbiters = Arc::new((0..threads.max(1)).map(|_| Arbiter::new()).collect());
        Self { arbiters, next: Arc::default(), pulse: Pulse::default(), metrics, stuck_after }
    }

    /// What is stuck.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Starts one actor on the next thread.
    pub(super) fn begin<A>(&self, factory: impl FnOnce() -> A + Send + 'static) -> Kept<A>
    where
        A: Actor<Context = Context<A>>,
    {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.arbiters.len();
        let addr = A::start_in_arbiter(&self.arbiters[index].handle(), move |ctx| {
            ctx.set_mailbox_capacity(1);
            factory()
        });
        Kept { addr, full_since: None }
    }

    /// Wakes an actor; answers false if it is dead and was counted as such.
    pub(super) fn wake<A>(&self, trade: &'static str, kept: &mut Kept<A>) -> bool
    where
        A: Actor + Handler<Wake>,
        A::Context: ToEnvelope<A, Wake>,
    {
        match kept.addr.try_send(Wake) {
            Ok(()) => kept.full_since = None,
            Err(actix::prelude::SendError::Full(_)) => {
                let since = *kept.full_since.get_or_insert_with(Instant::now);
                let stuck = since.elapsed() > self.stuck_after;
                if stuck {
                    self.pulse.tell(trade, true);
                }
                return true;
            }
            Err(actix::prelude::SendError::Closed(_)) => {
                self.metrics.actor_restarts.with([trade]).inc();
                tracing::error!(actor = trade, "an actor died and is started again");
                return false;
            }
        }
        self.pulse.tell(trade, false);
        true
    }

    /// Keeps one actor alive and rings it whenever `bell` rings, and every `tick` in case a ring was lost. Runs until
    /// the caller drops the future.
    pub async fn keep<A, F, B>(self, trade: &'static str, tick: Duration, bell: impl Fn() -> B, factory: F)
    where
        A: Actor<Context = Context<A>> + Handler<Wake>,
        F: Fn() -> A + Clone + Send + 'static,
        B: Future<Output = ()>,
    {
        let mut kept = self.begin(factory.clone());
        loop {
            if !self.wake(trade, &mut kept) {
                kept = self.begin(factory.clone());
                continue;
            }
            tokio::select! {
                () = bell() => {}
                () = tokio::time::sleep(tick) => {}
            }
        }
    }
}
