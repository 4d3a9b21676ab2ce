//! What a lane keeps in memory beside its courier: what is in flight, how its endpoint does, and how it is to be sent.
//!
//! Always true: a claim that is dropped, by whatever way its attempt ended, leaves the in-flight set, and rings the lane
//! if anything may follow from that; a delivery is never claimed by what was read before its last outcome. What is kept is
//! bounded by the window. Not here: which delivery is next (`Courier`).

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::batch::Line;
use super::outlet::Outlet;
use crate::actors::handle::{Rings, Wakes};
use crate::destinations::Signing;
use crate::destinations::http::keys::KeyRing;
use crate::destinations::http::sign::HmacKey;
use crate::domain::event::RecordKey;
use crate::domain::flow::{Flow, Mark, Seen};
use crate::domain::id::{LaneNo, Seq};
use crate::domain::retry::{Pace, Schedule};
use crate::domain::secret::Secret;
use crate::domain::subscription::{EndpointAuth, HeaderValues, Include, SigningSecrets, Subscription};
use crate::domain::time::Millis;
use crate::error::{Error, Result};
use crate::store::{Due, Low, Place, Slot};

/// A lane's memory, shared by its courier and its attempts.
pub struct Lane {
    number: LaneNo,
    rings: Rings,
    flying: Mutex<Flying>,
    flow: Mutex<Flow>,
    slow_until: AtomicU64,
    /// A fresh delivery was not settled by its attempt: the courier must look from the start of the queue again.
    redo: AtomicBool,
    /// A delivery was put among those with a due time, due then or later: the courier may have passed its place.
    let_go: AtomicU64,
    ended: AtomicBool,
    /// Events of one batch at most, where there was too much before.
    rows_max: AtomicUsize,
    /// Before these the courier reads on: see `put_back`.
    fresh_back: AtomicU64,
    replay_back: AtomicU64,
    /// Of a lane that writes batches.
    pub(super) line: Arc<Line>,
    /// Where the courier reads on: see `Low`.
    fresh_low: AtomicU64,
    retry_low: AtomicU64,
    pub(super) dead: Mutex<super::notices::DeadTally>,
}

#[derive(Default)]
struct Flying {
    deliveries: HashSet<Seq>,
    /// Those whose attempts ended since the courier began its look: what it read of them may be older than their outcome.
    ended: HashSet<Seq>,
    /// The courier stopped for want of room: it is rung once no more than so many are in flight.
    ring_at: Option<usize>,
    /// Of a lane that keeps the order of records: those of the deliveries in flight. One that was cancelled while its
    /// attempt is under way has let its successor go, but is not over.
    records: HashSet<RecordKey>,
    /// A delivery waits for the end of an attempt of its record: whichever ends rings.
    is_awaited: bool,
}

/// One delivery in flight.
pub struct Claim {
    lane: Arc<Lane>,
    seq: Seq,
    /// In a lane that keeps the order of records.
    record: Option<RecordKey>,
    ending: Ending,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Its outcome is not in the store.
    Unsettled,
    Accepted,
    Failed,
}

impl Lane {
    pub(super) fn new(number: LaneNo, rings: Rings, flow: Flow) -> Self {
        Self {
            number,
            rings,
            flying: Mutex::default(),
            flow: Mutex::new(flow),
            slow_until: AtomicU64::new(0),
            redo: AtomicBool::new(false),
            let_go: AtomicU64::new(u64::MAX),
            ended: AtomicBool::new(false),
            rows_max: AtomicUsize::new(usize::MAX),
            fresh_back: AtomicU64::new(u64::MAX),
            replay_back: AtomicU64::new(u64::MAX),
            line: Arc::default(),
            fresh_low: AtomicU64::new(0),
            retry_low: AtomicU64::new(0),
            dead: Mutex::default(),
        }
    }
    fn lock(&self) -> MutexGuard<'_, Flying> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Window, pace and breaker.
    pub(super) fn flow(&self) -> MutexGuard<'_, Flow> {
        // Numbers, sound whatever a panicked holder did.
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// How many attempts are under way.
    pub(super) fn in_flight(&self) -> usize {
        self.lock().deliveries.len()
    }
    /// The deliveries whose attempts are under way.
    pub(super) fn flying(&self) -> Vec<Seq> {
        self.lock().deliveries.iter().copied().collect()
    }
    pub(super) fn is_flying(&self, seq: Seq) -> bool {
        self.lock().deliveries.contains(&seq)
    }
    /// The courier looks in the store: what it reads from now on is as new as the outcomes that have ended so far.
    pub(super) fn look(&self) {
        self.lock().ended.clear();
    }
    /// Whether [`Lane::claim`] would give nothing. `record` is that of the delivery, in a lane that keeps their order.
    pub(super) fn is_taken(&self, seq: Seq, record: Option<RecordKey>) -> bool {
        let mut flying = self.lock();
        let is_awaited = record.is_some_and(|record| flying.records.contains(&record));
        flying.is_awaited |= is_awaited;
        is_awaited || flying.deliveries.contains(&seq) || flying.ended.contains(&seq)
    }
    /// Claims a delivery; None if it is in flight already, or was when the courier began its look, or if another one of
    /// its record is in flight. One of those that is to be tried again has rung for another look, or will.
    pub(super) fn claim(self: &Arc<Self>, seq: Seq, record: Option<RecordKey>) -> Option<Claim> {
        if self.is_taken(seq, record) {
            return None;
        }
        let mut flying = self.lock();
        flying.deliveries.insert(seq);
        flying.records.extend(record);
        drop(flying);
        Some(Claim { lane: self.clone(), seq, record, ending: Ending::Unsettled })
    }
    /// The courier stops until no more than `in_flight` are in flight. False: that is so already.
    pub(super) fn pause(&self, in_flight: usize) -> bool {
        let mut flying = self.lock();
        let waits = flying.deliveries.len() > in_flight;
        flying.ring_at = waits.then_some(in_flight);
        waits
    }
    /// Learns from an attempt. The mark is Some if it is to be stored, the time if the endpoint is back since it failed.
    pub(super) fn observe(&self, seen: Seen, now: Millis) -> (Option<Mark>, Option<Millis>) {
        let mut flow = self.flow();
        let before = flow.mark();
        let back = flow.observe(seen, now);
        let after = flow.mark();
        ((before != after).then_some(after), back)
    }
    pub(super) fn slow_until(&self) -> Millis {
        Millis(self.slow_until.load(Ordering::Relaxed))
    }
    pub(super) fn slow_down(&self, until: Millis) {
        self.slow_until.fetch_max(until.0, Ordering::Relaxed);
        self.ring_at(until);
    }
    /// A delivery is due at that time. One that is due already stands where the courier has looked before.
    pub(super) fn due_again(&self, at: Millis, now: Millis) {
        if at <= now {
            self.redo.store(true, Ordering::Relaxed);
        }
        self.ring_at(at);
    }
    /// A delivery of a record has ended at that time or later, so its successor may have been let go.
    pub(super) fn let_go(&self, at: Millis) {
        self.let_go.fetch_min(at.0, Ordering::AcqRel);
        self.rings.lane(self.number);
    }
    pub(super) fn take_let_go(&self) -> Millis {
        Millis(self.let_go.swap(u64::MAX, Ordering::AcqRel))
    }
    /// Wakes the courier at that time.
    pub(super) fn ring_at(&self, at: Millis) {
        self.rings.at(at, Wakes::Lane(self.number));
    }
    pub(super) fn take_redo(&self) -> bool {
        self.redo.swap(false, Ordering::Relaxed)
    }
    /// The courier has looked, and reads on from here.
    pub(super) fn reads_from(&self, fresh: Seq, retry: Millis) {
        self.fresh_low.store(fresh.0, Ordering::Relaxed);
        self.retry_low.store(retry.0, Ordering::Relaxed);
    }
    /// Where its queue begins. While something stands where the courier has looked before: at the very start.
    pub(super) fn low(&self) -> Low {
        let in_flight = self.lock().deliveries.iter().min().copied();
        if self.redo.load(Ordering::Relaxed) {
            return Low { in_flight, ..Low::default() };
        }
        let (fresh, retry) = (self.fresh_low.load(Ordering::Relaxed), self.retry_low.load(Ordering::Relaxed));
        Low { fresh: Seq(fresh), retry: Millis(retry), in_flight }
    }
    /// These were claimed and are given back untried: the courier reads on before them.
    pub(super) fn put_back(&self, dues: &[Due]) {
        for due in dues {
            match due.place {
                Place::Fresh => self.fresh_back.fetch_min(due.seq.0, Ordering::AcqRel),
                Place::Replay => self.replay_back.fetch_min(due.seq.0, Ordering::AcqRel),
                // Retries are read from the first that is due.
                Place::At(_) | Place::Parked => continue,
            };
        }
    }
    /// The first of the fresh ones and of those of replays that were given back.
    pub(super) fn take_back(&self) -> (Seq, Seq) {
        let take = |back: &AtomicU64| Seq(back.swap(u64::MAX, Ordering::AcqRel));
        (take(&self.fresh_back), take(&self.replay_back))
    }
    pub(super) fn rows_max(&self) -> usize {
        self.rows_max.load(Ordering::Relaxed)
    }
    /// A batch was too much for its destination.
    pub(super) fn fewer_rows(&self, rows: usize) {
        self.rows_max.store(rows.max(1), Ordering::Relaxed);
    }
    /// A batch was taken.
    pub(super) fn more_rows(&self) {
        let rows = self.rows_max.load(Ordering::Relaxed);
        self.rows_max.store(rows.saturating_add(rows / 4 + 1), Ordering::Relaxed);
    }
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Claim {
    /// The delivery.
    pub(super) fn seq(&self) -> Seq {
        self.seq
    }
    /// The outcome is committed.
    pub(super) fn settle(mut self, accepted: bool) {
        self.ending = if accepted { Ending::Accepted } else { Ending::Failed };
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut flying = self.lane.lock();
        flying.deliveries.remove(&self.seq);
        flying.ended.insert(self.seq);
        if let Some(record) = self.record {
            flying.records.remove(&record);
        }
        let left = flying.deliveries.len();
        let is_awaited = std::mem::take(&mut flying.is_awaited);
        let rings = flying.ring_at.is_some_and(|at| left <= at) || self.ending != Ending::Accepted || is_awaited;
        if rings {
            flying.ring_at = None;
        }
        drop(flying);
        // The courier may have passed what waited.
        if self.ending == Ending::Unsettled || is_awaited {
            self.lane.redo.store(true, Ordering::Relaxed);
        }
        if rings {
            self.lane.rings.lane(self.lane.number);
        }
    }
}

/// How a lane's deliveries are made: everything that does not change from one to the next.
pub struct LaneConfig {
    pub subscription: Subscription,
    /// What bodies carry beside their usual keys, sorted.
    pub include: Arc<[Include]>,
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
        let auth: Option<EndpointAuth> = outlet.store.secret(&subscription.id.0, Slot::EndpointAuth)?;
        let auth = auth.map(|auth| ("authorization".to_owned(), auth.header()));
        let schedule = match &subscription.retry_schedule {
            Some(seconds) => Schedule::new(seconds.clone()).map_err(Error::internal)?,
            None => outlet.options.pace.schedule.clone(),
        };
        let s = subscription.signing;
        let mut include = subscription.include.clone();
        include.sort_unstable();
        Ok(Some(Self {
            include: include.into(),
            address: subscription.address.as_str().into(),
            secrets: secrets.into(),
            keys: outlet.keys_of(subscription.workspace)?,
            headers: headers.all.into_iter().map(|(name, value)| (name, Secret::new(value))).chain(auth).collect(),
            signing: Signing { rsa: s.rsa, hmac: s.hmac, ed25519: s.ed25519 },
            pace: Pace { schedule, ..outlet.options.pace.clone() },
            timeout: Duration::from_secs(u64::from(subscription.timeout_seconds)),
            subscription,
            valid_until,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::flow::Limits;

    fn lane() -> Arc<Lane> {
        let day = Duration::from_secs(86_400);
        let limits = Limits { window_start: 4, breaker_failures: 10, recovery_per_second: 10, disable_after: day };
        Arc::new(Lane::new(LaneNo(1), Rings::default(), Flow::new(limits, Mark::default())))
    }

    #[test]
    fn a_delivery_is_not_claimed_by_what_was_read_before_its_last_outcome() {
        let lane = lane();
        lane.look();
        let claim = lane.claim(Seq(7), None).expect("it is free");
        assert!(lane.claim(Seq(7), None).is_none(), "it is in flight");
        claim.settle(true);
        assert!(lane.claim(Seq(7), None).is_none(), "what the courier read may still have it");
        assert!(lane.claim(Seq(8), None).is_some() && lane.in_flight() == 0);
        lane.look();
        assert!(lane.claim(Seq(7), None).is_some(), "what it reads now is as new as the outcome");
    }

    #[test]
    fn a_successor_waits_for_the_attempt_of_one_that_was_cancelled() {
        let (lane, record) = (lane(), Some([1; 16]));
        let cancelled = lane.claim(Seq(7), record).expect("it is free");
        assert!(lane.claim(Seq(9), record).is_none(), "its predecessor is on its way");
        let other = lane.claim(Seq(8), Some([2; 16])).expect("other records flow past");
        cancelled.settle(true);
        assert!(lane.claim(Seq(9), record).is_some());
        drop(other);
    }
}
