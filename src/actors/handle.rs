//! Ringing an actor: one bell per trade, no payload.
//!
//! Always true: a ring never blocks and never fails; ringing twice before the actor looks is one ring. Not here: what
//! the actor then does.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::domain::id::{LaneNo, Seq};
use crate::domain::time::Millis;

/// The owner of a watcher: a connection, or an integration whose global webhooks are sorted.
pub type Owner = [u8; 12];

/// A set of those who were rung, and the bell of whoever looks after them.
struct Bell<K> {
    rung: Mutex<HashSet<K>>,
    ring: Notify,
}

impl<K> Default for Bell<K> {
    fn default() -> Self {
        Self { rung: Mutex::default(), ring: Notify::new() }
    }
}

impl<K: std::hash::Hash + Eq> Bell<K> {
    fn ring(&self, key: K) {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.ring.notify_one();
    }
    async fn answer(&self) -> HashSet<K> {
        loop {
            let rung = std::mem::take(&mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner));
            if !rung.is_empty() {
                return rung;
            }
            self.ring.notified().await;
        }
    }
}

#[derive(Default)]
struct Bells {
    owners: Bell<Owner>,
    lanes: Bell<LaneNo>,
    router: Notify,
    replays: Notify,
    replays_changed: AtomicU64,
    erasures: Notify,
    subscriptions_changed: AtomicU64,
    owners_changed: AtomicU64,
    routed: AtomicU64,
    times: Mutex<super::alarm::Times>,
    alarm: Notify,
}

/// Whom an alarm wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wakes {
    Owner(Owner),
    Lane(LaneNo),
}

/// The bells of all trades; clones are the same bells.
#[derive(Clone, Default)]
pub struct Rings(Arc<Bells>);

impl Rings {
    /// Something is due for a connection, or for an integration's global webhooks.
    pub fn owner(&self, owner: Owner) {
        self.0.owners.ring(owner);
    }
    /// Something is due in a lane, or its subscription was changed or deleted.
    pub fn lane(&self, lane: LaneNo) {
        self.0.lanes.ring(lane);
    }
    /// Events were appended.
    pub fn router(&self) {
        self.0.router.notify_one();
    }
    /// A subscription was made, changed or deleted: the router's index is rebuilt before it routes on, and replays that
    /// wait for it are looked at.
    pub fn subscriptions_changed(&self) {
        self.0.subscriptions_changed.fetch_add(1, Ordering::AcqRel);
        self.0.router.notify_one();
        self.0.replays.notify_one();
    }
    /// A replay was made, or is to go on, or not to.
    pub fn replays_changed(&self) {
        self.0.replays_changed.fetch_add(1, Ordering::AcqRel);
        self.0.replays.notify_one();
    }
    pub async fn replays_rung(&self) {
        self.0.replays.notified().await;
    }
    /// Goes up with every change of a replay or of a subscription.
    pub(super) fn replays_version(&self) -> u64 {
        self.0.replays_changed.load(Ordering::Acquire).wrapping_add(self.subscriptions_version())
    }
    /// An erasure was made.
    pub fn erasure_made(&self) {
        self.0.erasures.notify_one();
    }
    pub async fn erasures_rung(&self) {
        self.0.erasures.notified().await;
    }
    /// A connection or an integration was made, changed or deleted: what was remembered of its webhooks is read again.
    pub fn owners_changed(&self) {
        self.0.owners_changed.fetch_add(1, Ordering::AcqRel);
    }
    /// Goes up with every `owners_changed`.
    pub fn owners_version(&self) -> u64 {
        self.0.owners_changed.load(Ordering::Acquire)
    }
    /// Wakes somebody at a time, or before it if an earlier time was set.
    pub fn at(&self, at: Millis, wakes: Wakes) {
        if self.0.times.lock().unwrap_or_else(PoisonError::into_inner).set(at, wakes) {
            self.0.alarm.notify_one();
        }
    }

    pub(super) async fn owners_rung(&self) -> HashSet<Owner> {
        self.0.owners.answer().await
    }
    pub(super) async fn lanes_rung(&self) -> HashSet<LaneNo> {
        self.0.lanes.answer().await
    }
    pub async fn router_rung(&self) {
        self.0.router.notified().await;
    }
    /// The router has come so far in the log.
    pub(super) fn routed(&self, seq: Seq) {
        self.0.routed.fetch_max(seq.0, Ordering::AcqRel);
    }
    /// How far the router has come since the start: fresh deliveries of events up to there are all in their lanes.
    pub(super) fn routed_to(&self) -> Seq {
        Seq(self.0.routed.load(Ordering::Acquire))
    }
    pub(super) fn subscriptions_version(&self) -> u64 {
        self.0.subscriptions_changed.load(Ordering::Acquire)
    }
    pub async fn alarm_set(&self) {
        self.0.alarm.notified().await;
    }
    /// Rings everyone whose time has come; answers the next time.
    pub(super) fn wake_due(&self, now: Millis) -> Option<Millis> {
        let mut times = self.0.times.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(wakes) = times.take(now) {
            match wakes {
                Wakes::Owner(owner) => self.owner(owner),
                Wakes::Lane(lane) => self.lane(lane),
            }
        }
        times.next()
    }
}
