//! The gauges that must be looked up: what is owed, how subscriptions and connections are, what the disk holds.
//!
//! Always true: they are looked up when `/metrics` is read, and not more often than [`MEASURE_EVERY`], however often that
//! is. Not here: what is counted as it happens (each component counts itself).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::subscriptions;
use crate::actors::courier::Flights;
use crate::domain::connection::{Connection, ConnectionStatus};
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{Rows, Store};
use crate::telemetry::Metrics;

/// A look goes over all subscriptions and connections, so strangers must not be able to ask for it all the time.
const MEASURE_EVERY: Duration = Duration::from_secs(5);

/// When the gauges were measured last, in milliseconds; 0 is never.
#[derive(Default)]
pub struct Gauges(AtomicU64);

impl Gauges {
    /// Measures and shows them, if it is time.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) async fn refresh(&self, store: &Store, flights: Flights, metrics: &Metrics, now: Millis) -> Result<()> {
        let last = self.0.load(Ordering::Relaxed);
        let fresh = last != 0 && now.since(Millis(last)) < MEASURE_EVERY;
        if fresh || self.0.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Ok(());
        }
        metrics.disk_free_bytes.set(gauge(store.free_bytes()));
        let measured = store.blocking(move |rows| measure(rows, &flights, now)).await?;
        metrics.store_bytes.set(gauge(measured.store_bytes));
        metrics.store_stall.inc_by((measured.stall_seconds - metrics.store_stall.get()).max(0.0));
        metrics.deliveries_pending.set(gauge(measured.pending));
        metrics.oldest_pending.set(measured.oldest.map_or(0.0, |at| now.since(at).as_secs_f64()));
        for (status, n) in &measured.subscriptions {
            metrics.subscriptions.with([status]).set(gauge(*n));
        }
        for (state, n) in &measured.replays {
            metrics.replays.with([state]).set(gauge(*n));
        }
        for (status, n) in &measured.connections {
            metrics.connections.with([status]).set(gauge(*n));
        }
        Ok(())
    }
}

fn gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

struct Measured {
    store_bytes: u64,
    stall_seconds: f64,
    pending: u64,
    oldest: Option<Millis>,
    subscriptions: BTreeMap<&'static str, u64>,
    connections: BTreeMap<&'static str, u64>,
    replays: BTreeMap<&'static str, u64>,
}

fn measure(rows: &Rows, flights: &Flights, now: Millis) -> Result<Measured> {
    // Each status is there from the start, so that one that nobody has any more goes back to zero.
    let zero = |names: [&'static str; 4]| names.into_iter().map(|name| (name, 0)).collect::<BTreeMap<_, _>>();
    let mut measured = Measured {
        store_bytes: rows.bytes(),
        stall_seconds: rows.stall_seconds(),
        pending: 0,
        oldest: None,
        subscriptions: zero(["active", "retrying", "paused", "disabled"]),
        connections: zero(["active", "paused", "authFailed", "error"]),
        replays: ["running", "paused", "cancelling"].into_iter().map(|state| (state, 0)).collect(),
    };
    rows.every_object(|subscription: Subscription| {
        let (lane, low) = (subscription.lane, flights.low(subscription.lane));
        let status = subscriptions::status_from(rows, &subscription, &low, now)?.0;
        *measured.subscriptions.entry(status).or_default() += 1;
        // Only lanes that owe something are counted, however many there are.
        if !rows.is_clear(lane, &low)? {
            measured.pending += rows.lane_counts(lane)?.pending;
            measured.oldest = measured.oldest.into_iter().chain(rows.oldest_pending(lane, &low)?).min();
        }
        Ok(())
    })?;
    rows.every_object(|connection: Connection| {
        let status = match connection.status {
            ConnectionStatus::Active => "active",
            ConnectionStatus::Paused => "paused",
            ConnectionStatus::AuthFailed { .. } => "authFailed",
            ConnectionStatus::Error { .. } => "error",
        };
        *measured.connections.entry(status).or_default() += 1;
        Ok(())
    })?;
    for id in rows.live_replays()? {
        if let Some(replay) = rows.replay(id)? {
            *measured.replays.entry(replay.state.text()).or_default() += 1;
        }
    }
    Ok(measured)
}
