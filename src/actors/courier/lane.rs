//! What a lane keeps in memory beside its courier: what is in flight, and how it is to be sent.
//!
//! Always true: a claim that is dropped, by whatever way its attempt ended, leaves the in-flight set and rings the lane.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::outlet::Outlet;
use crate::actors::handle::Rings;
use crate::destinations::Signing;
use crate::destinations::http::keys::KeyRing;
use crate::destinations::http::sign::HmacKey;
use crate::domain::id::{LaneNo, Seq};
use crate::domain::retry::{Pace, Schedule};
use crate::domain::secret::Secret;
use crate::domain::subscription::{HeaderValues, SigningSecrets, Subscription};
use crate::domain::time::Millis;
use crate::error::{Error, Result};
use crate::store::Slot;

/// A lane's memory, shared by its courier and its attempts.
pub struct Lane {
    number: LaneNo,
    rings: Rings,
    in_flight: Mutex<HashSet<Seq>>,
    slow_until: AtomicU64,
    /// A fresh delivery was not settled by its attempt: the courier must look from the start of the queue again.
    redo: AtomicBool,
    ended: AtomicBool,
    pub(super) dead: Mutex<super::notices::DeadTally>,
}

/// One delivery in flight.
pub struct Claim {
    lane: Arc<Lane>,
    seq: Seq,
    settled: bool,
}

impl Lane {
    pub(super) fn new(number: LaneNo, rings: Rings) -> Self {
        Self {
            number,
            rings,
            in_flight: Mutex::default(),
            slow_until: AtomicU64::new(0),
            redo: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            dead: Mutex::default(),
        }
    }
    fn set(&self) -> MutexGuard<'_, HashSet<Seq>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// How many attempts are under way.
    pub(super) fn in_flight(&self) -> usize {
        self.set().len()
    }
    /// Claims a delivery; None if it is in flight already.
    pub(super) fn claim(self: &Arc<Self>, seq: Seq) -> Option<Claim> {
        self.set().insert(seq).then(|| Claim { lane: self.clone(), seq, settled: false })
    }
    pub(super) fn slow_until(&self) -> Millis {
        Millis(self.slow_until.load(Ordering::Relaxed))
    }
    pub(super) fn slow_down(&self, until: Millis) {
        self.slow_until.fetch_max(until.0, Ordering::Relaxed);
    }
    pub(super) fn take_redo(&self) -> bool {
        self.redo.swap(false, Ordering::Relaxed)
    }
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Claim {
    /// The outcome is committed.
    pub(super) fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.settled {
            self.lane.redo.store(true, Ordering::Relaxed);
        }
        self.lane.set().remove(&self.seq);
        self.lane.rings.lane(self.lane.number);
    }
}

/// How a lane's deliveries are made: everything that does not change from one to the next.
pub struct LaneConfig {
    pub subscription: Subscription,
    pub address: Arc<str>,
    pub secrets: Arc<[HmacKey]>,
    pub keys: Arc<KeyRing>,
    pub headers: Arc<[(String, Secret)]>,
    pub signing: Signing,
    pub pace: Pace,
    pub timeout: Duration,
    /// When an old secret stops signing, so that this must be read again.
    valid_until: Option<Millis>,
}

impl LaneConfig {
    /// Whether all secrets in it still sign.
    pub(super) fn is_current(&self, now: Millis) -> bool {
        self.valid_until.is_none_or(|until| now < until)
    }

    /// Reads a lane's subscription and secrets; None if the subscription is gone.
    pub(super) fn read(outlet: &Outlet, lane: LaneNo) -> Result<Option<Self>> {
        let Some(subscription) = outlet.store.subscription_by_lane(lane)? else { return Ok(None) };
        let now = outlet.clock.now();
        let stored: Option<SigningSecrets> = outlet.store.secret(&subscription.id.0, Slot::SigningSecrets)?;
        let mut secrets = Vec::new();
        let mut valid_until = None::<Millis>;
        for secret in stored.map(|s| s.all).unwrap_or_default() {
            if let Some(until) = secret.until {
                if until <= now {
                    continue;
                }
                valid_until = Some(valid_until.map_or(until, |v| v.min(until)));
            }
            secrets.push(HmacKey::parse(&Secret::new(secret.text))?);
        }
        let headers: HeaderValues = outlet.store.secret(&subscription.id.0, Slot::HeaderValues)?.unwrap_or_default();
        let schedule = match &subscription.retry_schedule {
            Some(seconds) => Schedule::new(seconds.clone()).map_err(Error::internal)?,
            None => outlet.options.pace.schedule.clone(),
        };
        let s = subscription.signing;
        Ok(Some(Self {
            address: subscription.address.as_str().into(),
            secrets: secrets.into(),
            keys: outlet.keys_of(subscription.workspace)?,
            headers: headers.all.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
            signing: Signing { rsa: s.rsa, hmac: s.hmac, ed25519: s.ed25519 },
            pace: Pace { schedule, ..outlet.options.pace.clone() },
            timeout: Duration::from_secs(u64::from(subscription.timeout_seconds)),
            subscription,
            valid_until,
        }))
    }
}
