//! What a try of a batch leads to, done: in the store, in the lane, in the metrics.
//!
//! Always true: everything that follows from a try is one commit; while the disk takes nothing the outcome waits here, so
//! that the destination does not get the same batch again and again. Not here: what follows (`plan`), what is said of a
//! destination that is paused (`notices`).

use std::sync::Arc;
use std::time::Duration;

use super::line::Ahead;
use super::plan::{Fate, Next, Plan, Terms, attempt};
use super::write::{Tried, Try};
use crate::actors::courier::ended::{After, FAILED_PAUSE};
use crate::actors::courier::notices::{GONE, LastDead};
use crate::domain::delivery::{Attempt, DeliveryState, LaneSignal, Outcome};
use crate::domain::flow::Seen;
use crate::domain::id::{DeliveryId, LaneNo};
use crate::domain::time::Millis;
use crate::error::{Code, Result};
use crate::store::{DeliveryRow, Settlement, Turn, Tx};

/// A try, and what follows from it.
struct Outcomes {
    tried: Tried,
    plan: Plan,
    after: After,
}

impl Try {
    /// `ahead` is passed on before that is in the store, for it takes a while: what is left to do needs no destination.
    pub(super) async fn settle(&self, tried: Tried, ahead: Option<Ahead>) -> Result<()> {
        let now = self.outlet.clock.now();
        let (limits, destination) = (self.target.limits, &self.target.destination);
        let terms = Terms { pace: &self.config.pace, recuts: limits.recuts, revision: destination.revision, now };
        let plan = Plan::of(&tried, &terms);
        match ahead {
            Some(ahead) if plan.is_over() => {
                ahead.pass_on();
                // The next one is frozen by the writer that settles this one: it goes first, for the destination waits.
                tokio::task::yield_now().await;
            }
            other => drop(other),
        }
        self.count(&tried, &plan);
        let (mark, back) = match plan.outcome.sign() {
            Some(sign) => {
                let delivery = tried.row.members.first().map_or(tried.number, |due| due.seq);
                self.lane.observe(Seen { delivery, began: tried.began, duration_ms: tried.took_ms, sign }, now)
            }
            None => (None, None),
        };
        let gives_up = match plan.signal {
            LaneSignal::Failing => self.lane.flow().is_given_up(now).then_some("failing"),
            LaneSignal::SlowUntil(until) => {
                self.lane.slow_down(until);
                self.lane.flow().is_given_up(now).then_some("failing")
            }
            LaneSignal::Disable => Some(GONE),
            LaneSignal::Healthy => None,
        };
        self.tell_dead(&tried, &plan, now);
        self.pace(&plan, now);
        let (config, is_back, delivers) = (plan.config.clone(), back.is_some(), plan.delivered() > 0);
        self.commit(Outcomes { tried, plan, after: After { mark, back, at: now } }).await?;
        if is_back {
            self.outlet.rings.router();
        }
        match config {
            Some(fault) => self.outlet.pause_destination(destination.id, &fault).await?,
            None if delivers && destination.pause.is_some() => self.outlet.resume_destination(destination.id).await?,
            None => {}
        }
        if let Some(reason) = gives_up {
            self.outlet.disable(self.config.subscription.id, reason).await?;
        }
        Ok(())
    }

    async fn commit(&self, outcomes: Outcomes) -> Result<()> {
        let wait = outcomes.plan.wait(self.target.limits.recuts);
        let outcomes = Arc::new(outcomes);
        loop {
            let (written, config) = (outcomes.clone(), self.config.clone());
            let write = move |tx: &mut Tx<'_>| {
                write(tx, config.subscription.lane, &written)?;
                written.after.write(tx, &config)
            };
            match self.outlet.store.append(wait, write).await {
                Err(error) if error.code == Code::Unavailable && self.outlet.store.is_broken() => {
                    tokio::time::sleep(FAILED_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// Counts attempts by what they came to.
    fn count(&self, tried: &Tried, plan: &Plan) {
        let metrics = &self.outlet.metrics;
        let left = plan.outcome.slug();
        for fate in &plan.fates {
            let outcome = match fate {
                Fate::Delivered => "accepted",
                Fate::Dead(cause, fault) => {
                    metrics.deliveries_dead.with([cause.slug()]).inc();
                    fault.error.slug()
                }
                Fate::Left => left,
            };
            metrics.attempts.with([outcome]).inc();
        }
        metrics.attempt.observe(f64::from(tried.took_ms) / 1000.0);
        metrics.batches.with([self.target.destination.kind.as_str(), left]).inc();
    }

    /// Notes the dead ones; the lane's courier tells of them.
    fn tell_dead(&self, tried: &Tried, plan: &Plan, now: Millis) {
        for (place, cause, _) in plan.dead() {
            let (Some(due), Some((event, id))) = (tried.row.members.get(place), tried.known.get(place)) else {
                continue;
            };
            let delivery = DeliveryId::new(due.seq, self.number());
            let attempts = tried.row.made.saturating_add(1);
            let dead = LastDead { delivery, event: *id, topic: event.topic.clone(), cause, attempts };
            self.outlet.note_dead(&self.config, &self.lane, dead, now);
        }
    }

    /// Keeps to the subscription's rate; takes fewer at once where it was too much, and more again where it is not.
    fn pace(&self, plan: &Plan, now: Millis) {
        if let (Next::Others(halves), false) = (&plan.next, matches!(plan.outcome, Outcome::Rejected(_)))
            && let [first, _] = halves.as_slice()
        {
            self.lane.fewer_rows(first.len());
        }
        let delivered = plan.delivered();
        if delivered == 0 {
            return;
        }
        self.lane.more_rows();
        if let Some(rate) = self.config.subscription.per_second() {
            let sent = f64::from(u32::try_from(delivered).unwrap_or(u32::MAX));
            self.lane.slow_down(now.after(Duration::from_secs_f64(sent / rate)));
        }
    }
}

/// Everything that follows from a try, in one commit.
fn write(tx: &mut Tx<'_>, lane: LaneNo, of: &Outcomes) -> Result<()> {
    let Outcomes { tried, plan, .. } = of;
    if !tx.has_lane(lane)? {
        return Ok(());
    }
    let now = tx.now();
    for (place, fate) in plan.fates.iter().enumerate() {
        match fate {
            Fate::Delivered => {
                let made = attempt(tried, None, String::new());
                end(tx, lane, tried, place, made, DeliveryState::Delivered { at: now })?;
            }
            Fate::Dead(cause, fault) => {
                let made = attempt(tried, Some(fault.error), fault.detail.clone());
                end(tx, lane, tried, place, made, DeliveryState::Dead { at: now, cause: *cause })?;
            }
            Fate::Left => {}
        }
    }
    // Its deliveries were all cancelled meanwhile: it does not come back.
    if !tx.has_batch(lane, tried.number)? {
        return Ok(());
    }
    count_records(tx, lane, tried, plan)?;
    match &plan.next {
        Next::Same(batch) => tx.put_batch(lane, tried.number, batch),
        Next::Others(batches) => {
            tx.delete_batch(lane, tried.number)?;
            for batch in batches {
                let number = tx.next_seq()?;
                tx.put_batch(lane, number, batch)?;
            }
            Ok(())
        }
    }
}

fn end(tx: &mut Tx<'_>, lane: LaneNo, tried: &Tried, place: usize, made: Attempt, state: DeliveryState) -> Result<()> {
    let (Some(due), Some((event, _))) = (tried.row.members.get(place), tried.known.get(place)) else { return Ok(()) };
    let before = match due.turn {
        Turn::Retry => tx.tried(lane, due.seq)?,
        Turn::First | Turn::Again(_) => None,
    };
    let mut row = before.unwrap_or_else(|| DeliveryRow::unattempted(due, event.accepted_at));
    row.state = state;
    row.attempts.extend(tried.row.attempts.iter().cloned());
    row.attempts.push(made);
    // One that was cancelled or erased meanwhile stays as it is.
    tx.settle_delivery(&Settlement { lane, due: *due, row })
}

/// Counts present records that were written or refused.
fn count_records(tx: &mut Tx<'_>, lane: LaneNo, tried: &Tried, plan: &Plan) -> Result<()> {
    if tried.row.records.is_empty() {
        return Ok(());
    }
    let Some(mut backfill) = tx.backfill(lane)? else { return Ok(()) };
    backfill.written += u64::try_from(plan.delivered()).unwrap_or_default();
    backfill.refused += u64::try_from(plan.dead().count()).unwrap_or_default();
    tx.put_backfill(lane, &backfill)
}
