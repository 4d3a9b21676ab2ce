//! What a try of a batch leads to: settled, tried again, cut in two, or held until the owner has mended something.
//!
//! Always true: everything that follows from a try is one commit; a batch that may have been written is tried again under
//! its own name; only what the destination judges by itself, or what is left alone after cutting, becomes a dead letter.
//! Not here: what is said of a destination that is paused (`notices`).

use super::PAUSED_RETRY;
use super::write::{Said, Tried, Try};
use crate::actors::courier::ended::After;
use crate::actors::courier::notices::{GONE, LastDead};
use crate::destinations::driver::{Fault, Verdict};
use crate::domain::delivery::{Attempt, AttemptError, Cause, DeliveryState, LaneSignal, Outcome, settle};
use crate::domain::flow::Seen;
use crate::domain::id::{DeliveryId, LaneNo, Seq};
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{BatchRow, DeliveryRow, Due, Settlement, Tx, Wait};

/// A batch of a destination that takes one that is cut anew is halved after so many tries that ended in overload.
const HALVED_AFTER: u32 = 2;

/// What follows, by the places of a batch's members.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) delivered: Vec<usize>,
    pub(super) dead: Vec<(usize, Cause, Fault)>,
    /// In place of the batch; the first one under its own name if that is kept.
    pub(super) batches: Vec<BatchRow>,
    pub(super) keeps_name: bool,
    /// Only the owner can mend it.
    pub(super) config: Option<Fault>,
    /// What the lane learns.
    pub(super) outcome: Option<Outcome>,
    pub(super) signal: Option<LaneSignal>,
}

fn outcome_of(fault: &Fault) -> Outcome {
    match fault.after {
        Some(after) => Outcome::Later(fault.error, after),
        None => Outcome::Refused(fault.error),
    }
}

impl Try {
    pub(super) async fn settle(&self, tried: Tried) -> Result<()> {
        let now = self.outlet.clock.now();
        let plan = self.plan(&tried, now);
        self.count(&tried, &plan);
        let (mark, back) = match plan.outcome.and_then(Outcome::sign) {
            Some(sign) => {
                let delivery = tried.row.members.first().map_or(tried.number, |due| due.seq);
                self.lane.observe(Seen { delivery, began: tried.began, duration_ms: tried.took_ms, sign }, now)
            }
            None => (None, None),
        };
        let after = After { mark, back, at: now };
        let gives_up = match plan.signal {
            Some(LaneSignal::Failing) => self.lane.flow().is_given_up(now).then_some("failing"),
            Some(LaneSignal::SlowUntil(until)) => {
                self.lane.slow_down(until);
                self.lane.flow().is_given_up(now).then_some("failing")
            }
            Some(LaneSignal::Disable) => Some(GONE),
            Some(LaneSignal::Healthy) | None => None,
        };
        self.tell_dead(&tried, &plan, now);
        let config = plan.config.clone();
        let is_mended = config.is_none() && !plan.delivered.is_empty() && self.target.destination.pause.is_some();
        self.pace(plan.delivered.len(), now);
        let rings = back.is_some();
        self.commit(tried, plan, after).await?;
        if rings {
            self.outlet.rings.router();
        }
        if let Some(fault) = config {
            self.outlet.pause_destination(self.target.destination.id, &fault).await?;
        } else if is_mended {
            self.outlet.resume_destination(self.target.destination.id).await?;
        }
        if let Some(reason) = gives_up {
            self.outlet.disable(self.config.subscription.id, reason).await?;
        }
        Ok(())
    }

    /// What follows from what was said.
    fn plan(&self, tried: &Tried, now: Millis) -> Plan {
        let Said { whole, suspects, each, refused } = &tried.said;
        let mut plan = Plan::default();
        let rejected = |fault: &Fault| (Cause::Rejected(fault.error), fault.clone());
        let die = |plan: &mut Plan, place: usize, fault: &Fault| {
            let (cause, fault) = rejected(fault);
            plan.dead.push((place, cause, fault));
        };
        let mut left = Vec::new();
        match whole {
            Some(Verdict::Retry(fault)) => self.retry(&mut plan, tried, None, fault, now),
            Some(Verdict::Config(fault)) => self.hold(&mut plan, tried, None, fault, now),
            Some(Verdict::Row(fault)) if suspects.len() > 1 => {
                let (first, second) = suspects.split_at(suspects.len() / 2);
                plan.batches = [first, second].map(|places| BatchRow { at: now, ..tried.row.part(places) }).into();
                plan.outcome = Some(Outcome::Rejected(fault.error));
            }
            Some(Verdict::Row(fault)) => {
                suspects.iter().for_each(|place| die(&mut plan, *place, fault));
                plan.outcome = Some(Outcome::Rejected(fault.error));
            }
            Some(Verdict::Done) | None => {}
        }
        let mut fault_left = None;
        for (place, verdict) in each {
            match verdict {
                Verdict::Done => {}
                Verdict::Row(fault) => die(&mut plan, *place, fault),
                Verdict::Retry(fault) | Verdict::Config(fault) => {
                    left.push(*place);
                    let is_config = matches!(verdict, Verdict::Config(_));
                    if fault_left.as_ref().is_none_or(|(known, _)| is_config && !known) {
                        fault_left = Some((is_config, fault.clone()));
                    }
                }
            }
        }
        match fault_left {
            Some((true, fault)) => self.hold(&mut plan, tried, Some(&left), &fault, now),
            Some((false, fault)) => self.retry(&mut plan, tried, Some(&left), &fault, now),
            None => {}
        }
        if !plan.keeps_name {
            refused.iter().for_each(|(place, fault)| die(&mut plan, *place, fault));
            let kept_back = |place: &usize| {
                plan.dead.iter().any(|(dead, ..)| dead == place)
                    || left.contains(place)
                    || (!plan.batches.is_empty() && suspects.contains(place) && each.is_empty())
            };
            plan.delivered = (0..tried.row.len()).filter(|place| !kept_back(place)).collect();
            if plan.outcome.is_none() {
                plan.outcome = Some(Outcome::Accepted);
                plan.signal = Some(LaneSignal::Healthy);
            }
        }
        plan
    }

    /// The batch (or what is left of it) is tried again by the schedule, or has used it up.
    fn retry(&self, plan: &mut Plan, tried: &Tried, left: Option<&[usize]>, fault: &Fault, now: Millis) {
        let row = &tried.row;
        let outcome = outcome_of(fault);
        let state = DeliveryState::Due { at: row.at, tries: row.tries, attempts: row.made };
        let settled = settle(state, outcome, &self.config.pace, now, &mut fastrand::Rng::new());
        (plan.outcome, plan.signal) = (Some(outcome), Some(settled.lane));
        let kept = left.map_or_else(|| row.clone(), |places| row.part(places));
        match settled.state {
            DeliveryState::Due { at, tries, .. } => {
                let revision = self.target.destination.revision;
                let next = BatchRow { revision, ..kept.tried(self.attempt_of(tried, fault), at, tries) };
                let halves = left.is_none()
                    && self.target.limits.recuts
                    && fault.error.is_overload()
                    && next.made >= HALVED_AFTER
                    && next.len() > 1;
                if halves {
                    self.lane.fewer_rows(next.len() / 2);
                    let places: Vec<usize> = (0..next.len()).collect();
                    let (first, second) = places.split_at(places.len() / 2);
                    plan.batches = vec![next.part(first), next.part(second)];
                    // Nothing is settled yet: not even what can never be written.
                    plan.keeps_name = true;
                } else {
                    plan.batches = vec![next];
                    plan.keeps_name = left.is_none();
                }
            }
            _ => {
                let cause = Cause::Exhausted(fault.error);
                let places = left.map_or_else(|| tried.said.suspects.clone(), <[usize]>::to_vec);
                plan.dead.extend(places.into_iter().map(|place| (place, cause, fault.clone())));
            }
        }
    }

    /// Nothing was written: it waits for the owner, and uses up no try.
    fn hold(&self, plan: &mut Plan, tried: &Tried, left: Option<&[usize]>, fault: &Fault, now: Millis) {
        let kept = left.map_or_else(|| tried.row.clone(), |places| tried.row.part(places));
        let tries = kept.tries;
        let revision = self.target.destination.revision;
        let next = kept.tried(self.attempt_of(tried, fault), now.after(PAUSED_RETRY), tries);
        plan.batches = vec![BatchRow { revision, ..next }];
        plan.keeps_name = left.is_none();
        plan.config = Some(fault.clone());
        plan.outcome = Some(Outcome::Refused(fault.error));
    }

    fn attempt_of(&self, tried: &Tried, fault: &Fault) -> Attempt {
        attempt(tried, Some(fault.error), fault.detail.clone())
    }

    async fn commit(&self, tried: Tried, plan: Plan, after: After) -> Result<()> {
        let lane = self.config.subscription.lane;
        let config = self.config.clone();
        let write = move |tx: &mut Tx<'_>| {
            write(tx, lane, &tried, &plan)?;
            after.write(tx, &config)
        };
        self.outlet.store.append(Wait::Applied, write).await
    }

    /// Counts attempts by what they came to.
    fn count(&self, tried: &Tried, plan: &Plan) {
        let metrics = &self.outlet.metrics;
        let events = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        metrics.attempts.with(["accepted"]).inc_by(events(plan.delivered.len()));
        if let Some(error) = plan.outcome.and_then(Outcome::error) {
            let failed = tried.row.len() - plan.delivered.len();
            metrics.attempts.with([error.slug()]).inc_by(events(failed));
        }
        metrics.attempt.observe(f64::from(tried.took_ms) / 1000.0);
        for (_, cause, _) in &plan.dead {
            metrics.deliveries_dead.with([cause.slug()]).inc();
        }
        let outcome = plan.outcome.map_or("accepted", Outcome::slug);
        metrics.batches.with([self.target.destination.kind.as_str(), outcome]).inc();
    }

    /// Notes the dead ones; the lane's courier tells of them.
    fn tell_dead(&self, tried: &Tried, plan: &Plan, now: Millis) {
        for (place, cause, _) in &plan.dead {
            let event = tried.known.iter().find(|(known, ..)| known == place);
            let (Some(due), Some((_, event, id))) = (tried.row.members.get(*place), event) else { continue };
            let delivery = DeliveryId::new(due.seq, self.config.subscription.lane);
            let attempts = tried.row.made.saturating_add(1);
            let dead = LastDead { delivery, event: *id, topic: event.topic.clone(), cause: *cause, attempts };
            self.outlet.note_dead(&self.config, &self.lane, dead, now);
        }
    }

    /// Keeps to the subscription's rate, and takes more again where there was too much before.
    fn pace(&self, delivered: usize, now: Millis) {
        if delivered == 0 {
            return;
        }
        self.lane.more_rows();
        if let Some(rate) = self.config.subscription.per_second() {
            let sent = f64::from(u32::try_from(delivered).unwrap_or(u32::MAX));
            self.lane.slow_down(now.after(std::time::Duration::from_secs_f64(sent / rate)));
        }
    }
}

fn attempt(tried: &Tried, error: Option<AttemptError>, answer: String) -> Attempt {
    Attempt { at: tried.began, duration_ms: tried.took_ms, status: None, error, answer, body_cut: false }
}

/// Everything that follows from a try, in one commit.
fn write(tx: &mut Tx<'_>, lane: LaneNo, tried: &Tried, plan: &Plan) -> Result<()> {
    if !tx.has_lane(lane)? {
        return Ok(());
    }
    let now = tx.now();
    for place in &plan.delivered {
        let made = attempt(tried, None, String::new());
        end(tx, lane, tried, *place, made, DeliveryState::Delivered { at: now })?;
    }
    for (place, cause, fault) in &plan.dead {
        let made = attempt(tried, Some(fault.error), fault.detail.clone());
        end(tx, lane, tried, *place, made, DeliveryState::Dead { at: now, cause: *cause })?;
    }
    count_records(tx, lane, tried, plan)?;
    let mut batches = plan.batches.iter();
    match batches.next().filter(|_| plan.keeps_name && plan.batches.len() == 1) {
        Some(same) => tx.put_batch(lane, tried.number, same)?,
        None => {
            tx.delete_batch(lane, tried.number)?;
            for batch in plan.batches.iter().filter(|batch| !batch.is_empty()) {
                let number: Seq = tx.next_seq()?;
                tx.put_batch(lane, number, batch)?;
            }
        }
    }
    Ok(())
}

fn end(tx: &mut Tx<'_>, lane: LaneNo, tried: &Tried, place: usize, made: Attempt, state: DeliveryState) -> Result<()> {
    let Some(due) = tried.row.members.get(place) else { return Ok(()) };
    let due: Due = *due;
    // None: cancelled or erased meanwhile.
    let Some(row) = tx.delivery(lane, due.seq)? else { return Ok(()) };
    let mut attempts = row.attempts.clone();
    attempts.extend(tried.row.attempts.iter().cloned());
    attempts.push(made);
    tx.settle_delivery(&Settlement { lane, due, row: DeliveryRow { state, attempts, ..row } })
}

/// Counts present records that were written or refused.
fn count_records(tx: &mut Tx<'_>, lane: LaneNo, tried: &Tried, plan: &Plan) -> Result<()> {
    if tried.row.records.is_empty() {
        return Ok(());
    }
    let Some(mut backfill) = tx.backfill(lane)? else { return Ok(()) };
    backfill.written += u64::try_from(plan.delivered.len()).unwrap_or_default();
    backfill.refused += u64::try_from(plan.dead.len()).unwrap_or_default();
    tx.put_backfill(lane, &backfill)
}
