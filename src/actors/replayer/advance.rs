//! One step of one replay: what it makes now, or why it waits.
//!
//! Always true: position and deliveries move in one commit, and only if the replay still runs and stands where the step
//! found it; no more than `READY_MAX` deliveries of replays stand ready in a lane, whatever there is to send. Not here:
//! when the next step is (the actor obeys `Next`).

use std::time::Duration;

use super::select::{Chosen, Look, Selector};
use super::{Memory, Tools};
use crate::domain::id::{LaneNo, ReplayId, Seq};
use crate::domain::replay::{READY_MAX, Replay, ReplayState, UNTRIED_MAX};
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{Care, Rows, Tx, Wait};

/// A replay that waits for its lane looks again after so long, and each time in vain after twice as long.
const BUSY_MIN: Duration = Duration::from_millis(20);
const BUSY_MAX: Duration = Duration::from_secs(2);
/// Between two looks at the log, so that a search of all of it leaves the machine to others.
const SEARCH_PAUSE: Duration = Duration::from_millis(5);
/// One that waits for its subscription to be switched on is rung; this is in case the ring was lost.
const IDLE: Duration = Duration::from_secs(60);
/// Deliveries cancelled in one commit, and rows looked at for them.
const CANCELLED_MAX: usize = 500;
const CANCEL_LOOKED_MAX: usize = 5_000;

/// When a replay is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    At(Millis),
    /// Never: it has ended, or is gone.
    Ended,
}

/// A replay with what is known of it.
struct Found {
    replay: Replay,
    subscription: Subscription,
    /// Deliveries that wait for their first attempt.
    untried: u64,
    /// Deliveries of replays that stand ready in the lane; `READY_MAX` may be more.
    ready: usize,
    /// All before is tried.
    low: Seq,
}

impl Found {
    /// How many more may be made.
    fn room(&self) -> u64 {
        let ready = READY_MAX.saturating_sub(self.ready) as u64;
        UNTRIED_MAX.saturating_sub(self.untried).min(ready)
    }
}

/// `low` is what was known before, `durable` the log as it was before this look.
fn find(rows: &Rows, id: ReplayId, low: Seq, durable: Seq) -> Result<Option<Found>> {
    let lane = id.parts().1;
    let (Some(replay), Some(subscription)) = (rows.replay(id)?, rows.subscription_by_lane(lane)?) else {
        return Ok(None);
    };
    let untried = replay.made.saturating_sub(rows.replay_counts(id)?.tried);
    let ready = rows.replayed_deliveries(lane, low, READY_MAX)?;
    // Sequences only grow, so nothing is put before what is there, or before what was on disk when nothing was there.
    let low = ready.first().map_or(low.max(durable), |first| Seq(first.seq.0.saturating_sub(1)));
    Ok(Some(Found { replay, subscription, untried, ready: ready.len(), low }))
}

/// Takes one step.
pub async fn step(tools: &Tools, id: ReplayId, memory: &mut Memory) -> Result<Next> {
    let (low, durable) = (memory.low, *tools.store.durable().borrow());
    let Some(found) = tools.store.blocking(move |rows| find(rows, id, low, durable)).await? else {
        return Ok(Next::Ended);
    };
    memory.low = found.low;
    match found.replay.state {
        ReplayState::Running => run(tools, found, memory).await,
        ReplayState::Paused => Ok(Next::At(tools.clock.now().after(IDLE))),
        ReplayState::Cancelling => cancel(tools, &found, memory).await,
        ReplayState::Completed { .. } | ReplayState::Cancelled { .. } => Ok(Next::Ended),
    }
}

async fn run(tools: &Tools, found: Found, memory: &mut Memory) -> Result<Next> {
    let now = tools.clock.now();
    if found.replay.is_through() && found.untried == 0 {
        end(tools, found.replay.id, |at| ReplayState::Completed { at }).await?;
        return Ok(Next::Ended);
    }
    if !found.subscription.delivers(now) {
        return Ok(Next::At(now.after(IDLE)));
    }
    let room = found.room();
    if found.replay.is_through() || room == 0 {
        return Ok(Next::At(now.after(memory.wait_for_lane(found.untried))));
    }
    let allowed = found.replay.pace.map_or(u64::MAX, |pace| pace.allowed(now));
    let chosen_max = usize::try_from(room.min(allowed)).unwrap_or(usize::MAX);
    if chosen_max == 0 {
        let at = found.replay.pace.map_or(now, |pace| pace.next_at());
        return Ok(Next::At(at.max(now.after(BUSY_MIN))));
    }
    let (after, until) = (found.replay.cursor, found.replay.until);
    let selector = Selector::new(&found.subscription, &found.replay.selection);
    let look = tools.store.blocking(move |rows| selector.look(rows, (after, until), chosen_max, now)).await?;
    let made = look.chosen.len();
    commit(tools, found.replay.id, after, look).await?;
    memory.wait = BUSY_MIN;
    if made > 0 {
        tools.rings.lane(found.subscription.lane);
    }
    // With less made than may be, the log is searched on soon.
    Ok(Next::At(now.after(if made < chosen_max { SEARCH_PAUSE } else { BUSY_MIN })))
}

/// Makes the deliveries and moves on, if the replay still runs from `after`.
async fn commit(tools: &Tools, id: ReplayId, after: Seq, look: Look) -> Result<()> {
    let make = move |tx: &mut Tx<'_>| {
        let found = (tx.replay(id)?, tx.subscription_by_lane(id.parts().1)?);
        let (Some(mut replay), Some(subscription)) = found else { return Ok(()) };
        if replay.state != ReplayState::Running || replay.cursor != after {
            return Ok(());
        }
        let (care, now) = (Care::of(&subscription), tx.now());
        for Chosen { event, record } in &look.chosen {
            tx.put_replayed(id, care, *event, record.filter(|_| care.ordered || care.coalesce))?;
        }
        let made = look.chosen.len() as u64;
        if let Some(pace) = &mut replay.pace {
            pace.take(made, now);
        }
        (replay.cursor, replay.updated_at) = (look.reached, now);
        replay.made += made;
        replay.looked += look.looked;
        replay.unjudged += look.unjudged;
        tx.put_replay(&replay)
    };
    tools.store.append(Wait::Applied, make).await
}

/// Cancels what it has made and is still owed. What is in flight is left to end first.
async fn cancel(tools: &Tools, found: &Found, memory: &mut Memory) -> Result<Next> {
    let (id, lane, now) = (found.replay.id, found.subscription.lane, tools.clock.now());
    let after = memory.mark;
    let (owed, reached) = tools.store.blocking(move |rows| rows.owed_by_replay(id, after, CANCEL_LOOKED_MAX)).await?;
    let none_owed = after == Seq(0) && owed.is_empty() && reached.is_none();
    if none_owed {
        end(tools, id, |at| ReplayState::Cancelled { at }).await?;
        return Ok(Next::Ended);
    }
    let some_fly = owed.iter().any(|(seq, _)| tools.flights.has(lane, *seq));
    for piece in owed.chunks(CANCELLED_MAX) {
        cancel_these(tools, lane, piece.to_vec()).await?;
    }
    memory.mark = reached.unwrap_or_default();
    Ok(Next::At(if some_fly { now.after(BUSY_MAX) } else { now }))
}

async fn cancel_these(tools: &Tools, lane: LaneNo, owed: Vec<(Seq, Seq)>) -> Result<()> {
    let flights = tools.flights.clone();
    let find = move |rows: &Rows| {
        let mut all = Vec::new();
        for (seq, event) in owed {
            let record = rows.event(event)?.and_then(|event| event.record_key());
            all.extend(rows.owed_of(lane, seq, record.as_ref())?);
        }
        Ok(all)
    };
    let all = tools.store.blocking(find).await?;
    let change = move |tx: &mut Tx<'_>| {
        let now = tx.now();
        for due in all.iter().filter(|due| !flights.has(lane, due.seq)) {
            tx.cancel_delivery(lane, due, now)?;
        }
        Ok(now)
    };
    let at = tools.store.change(change).await?;
    tools.flights.let_go(lane, at);
    tools.rings.lane(lane);
    Ok(())
}

async fn end(tools: &Tools, id: ReplayId, state: impl FnOnce(Millis) -> ReplayState + Send + 'static) -> Result<()> {
    let change = move |tx: &mut Tx<'_>| {
        let Some(mut replay) = tx.replay(id)?.filter(|replay| replay.state.is_live()) else { return Ok(()) };
        let next = state(tx.now());
        // Somebody may have paused or cancelled it meanwhile.
        let fits = match next {
            ReplayState::Completed { .. } => replay.state == ReplayState::Running,
            _ => replay.state == ReplayState::Cancelling,
        };
        if fits {
            (replay.state, replay.updated_at) = (next, tx.now());
            tx.put_replay(&replay)?;
        }
        Ok(())
    };
    tools.store.change(change).await
}

impl Memory {
    /// How long to wait until the lane has sent more of what was made.
    fn wait_for_lane(&mut self, waiting: u64) -> Duration {
        self.wait = if waiting == self.waiting { (self.wait * 2).clamp(BUSY_MIN, BUSY_MAX) } else { BUSY_MIN };
        self.waiting = waiting;
        self.wait
    }
}
