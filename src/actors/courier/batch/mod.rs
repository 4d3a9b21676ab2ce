//! Lanes that write into destinations: what waits is put together, frozen, and written one batch at a time.
//!
//! Always true: a batch has its name and its members on disk before its first try, unless its destination can do without;
//! a lane tries one batch at a time, so nothing of it overtakes, while the next one is made ready (`line`); a batch that was tried is never put together anew, except
//! when one of its events is erased or its subscription goes to another destination. Not here: the request
//! (`destinations`), what a verdict leads to (`plan`).

mod backfill;
mod line;
mod load;
mod notices;
mod plan;
mod settle;
mod write;

use std::sync::Arc;
use std::time::Duration;

pub(super) use self::line::Line;
use self::write::{Try, Work};
use super::drivers::Opened;
use super::lane::LaneConfig;
use super::outlet::Room;
use super::{Courier, Round};
use crate::destinations::driver::Limits;
use crate::domain::destination::Destination;
use crate::domain::id::Seq;
use crate::domain::time::Millis;
use crate::error::Result;
use crate::store::{Due, Place, Turn};

/// While only the owner of a destination can mend it, it is tried so often.
const PAUSED_RETRY: Duration = Duration::from_secs(300);

/// Where a batch goes.
struct Target {
    destination: Destination,
    opened: Opened,
    limits: Limits,
}

/// What waits for company, as far as it was counted.
pub(super) struct Company {
    /// No longer than that.
    until: Millis,
    /// Fresh deliveries that were counted, and the last of them.
    fresh: usize,
    last: Seq,
}

impl Courier {
    /// Writes the next batch, if one is due and none is on its way.
    pub(super) fn batch_round(&mut self, config: &Arc<LaneConfig>, now: Millis) -> Result<Round> {
        if self.lane.pause(0) {
            return self.look_ahead(config, now);
        }
        let outlet = self.outlet.clone();
        let Some(id) = config.subscription.destination else { return Ok(Round::Idle(None)) };
        let Some((destination, opened)) = outlet.destination(id)? else { return Ok(Round::Idle(None)) };
        let frozen = outlet.store.batches(self.number, 1)?.pop();
        if let Some((_, batch)) = &frozen
            && batch.at > now
            && batch.revision == destination.revision
        {
            return Ok(Round::Idle(Some(batch.at)));
        }
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                outlet.refuse_settings(&destination, error);
                return Ok(Round::Idle(Some(now.after(PAUSED_RETRY))));
            }
        };
        let limits = opened.driver.limits();
        let target = Target { destination, opened, limits };
        let work = match frozen {
            Some((number, batch)) => Work::Frozen(number, batch),
            None => match self.gather(config, &target, now)? {
                Gathered::Work(work) => work,
                Gathered::Wait(until) => return Ok(Round::Idle(until)),
            },
        };
        let Some(room) = outlet.enter(self.number) else { return Ok(Round::Idle(None)) };
        self.begin(config, target, work, room);
        // Rung when it has ended, which may be so already.
        Ok(Round::Idle(if self.lane.pause(0) { None } else { Some(now) }))
    }

    /// Makes the next batch ready while one is with the destination. A backfill waits for the end of each.
    fn look_ahead(&mut self, config: &Arc<LaneConfig>, now: Millis) -> Result<Round> {
        let outlet = self.outlet.clone();
        let Some(turn) = self.lane.line.stand() else { return Ok(Round::Idle(None)) };
        let Some(id) = config.subscription.destination else { return Ok(Round::Idle(None)) };
        let Some((destination, Ok(opened))) = outlet.destination(id)? else { return Ok(Round::Idle(None)) };
        if outlet.store.backfill(self.number)?.is_some_and(|backfill| backfill.ended_at.is_none()) {
            return Ok(Round::Idle(None));
        }
        let Some(room) = outlet.enter(self.number) else { return Ok(Round::Idle(None)) };
        let limits = opened.driver.limits();
        let target = Target { destination, opened, limits };
        match self.gather_fresh(config, &target, now, true)? {
            Fresh::These(dues) => {
                self.begin(config, target, Work::Fresh(dues, Some(turn)), room);
                Ok(Round::Idle(None))
            }
            // What was read before an outcome is looked at when the batch has ended.
            Fresh::Wait(until) => Ok(Round::Idle(until.filter(|until| *until > now))),
        }
    }

    /// Begins to write, at once or in its turn.
    fn begin(&mut self, config: &Arc<LaneConfig>, target: Target, work: Work, room: Room) {
        let mut claims = Vec::new();
        for seq in work.seqs() {
            claims.extend(self.lane.claim(seq, None));
        }
        if claims.is_empty() {
            // A batch of records has no deliveries; the position at which the subscription began stands for it.
            claims.extend(self.lane.claim(config.subscription.from, None));
        }
        self.lane.reads_from(self.low, self.retry_low);
        let (outlet, lane) = (self.outlet.clone(), self.lane.clone());
        Try { outlet, config: config.clone(), lane, target }.begin(work, claims, room);
    }

    /// What is written next: of a backfill that is not over and of what waits in the queue, in turn.
    fn gather(&mut self, config: &Arc<LaneConfig>, target: &Target, now: Millis) -> Result<Gathered> {
        let backfill = self.outlet.store.backfill(self.number)?.filter(|backfill| backfill.ended_at.is_none());
        self.is_backfills_turn = !self.is_backfills_turn;
        if let Some(backfill) = &backfill
            && self.is_backfills_turn
        {
            return Ok(Gathered::Work(Work::Backfill(backfill.clone())));
        }
        Ok(match (self.gather_fresh(config, target, now, backfill.is_none())?, backfill) {
            (Fresh::These(dues), _) => Gathered::Work(Work::Fresh(dues, None)),
            (Fresh::Wait(_), Some(backfill)) => Gathered::Work(Work::Backfill(backfill)),
            (Fresh::Wait(until), None) => Gathered::Wait(until),
        })
    }

    /// What is due of the queue. If it `waits` for company: when there is enough, or when the oldest has waited its time.
    fn gather_fresh(&mut self, config: &LaneConfig, target: &Target, now: Millis, waits: bool) -> Result<Fresh> {
        let outlet = self.outlet.clone();
        let rows = self.rows_wanted(config, target);
        if waits && let Some(until) = self.is_in_company(rows, now)? {
            return Ok(Fresh::Wait(Some(until)));
        }
        if self.lane.take_redo() {
            self.look_anew();
        }
        self.retry_low = self.retry_low.min(self.lane.take_let_go());
        let (fresh_back, replay_back) = self.lane.take_back();
        self.low = self.low.min(Seq(fresh_back.0.saturating_sub(1)));
        self.replay_low = self.replay_low.min(Seq(replay_back.0.saturating_sub(1)));
        let (retries, next) = self.due_retries(rows, now)?;
        let fresh = outlet.store.fresh_deliveries(self.number, self.low, rows)?;
        let replayed = outlet.store.replayed_deliveries(self.number, self.replay_low, rows)?;
        let (fresh_waiting, last) = (fresh.len(), fresh.last().map_or(self.low, |due| due.seq));
        let oldest = [retries.as_slice().first(), fresh.first(), replayed.first()];
        let mut oldest_at = None::<Millis>;
        for due in oldest.into_iter().flatten() {
            let at = self.waits_since(due)?.unwrap_or(now);
            oldest_at = Some(oldest_at.map_or(at, |oldest| oldest.min(at)));
        }
        // Each has its turns, whatever the others have waiting.
        let (mut chosen, mut sources) = (Vec::new(), [retries, fresh.into_iter(), replayed.into_iter()]);
        while chosen.len() < rows {
            let turn: Vec<Due> = sources.iter_mut().filter_map(Iterator::next).collect();
            if turn.is_empty() {
                break;
            }
            chosen.extend(turn.into_iter().take(rows - chosen.len()));
        }
        let Some(oldest_at) = oldest_at else { return Ok(Fresh::Wait(next)) };
        let until = oldest_at.after(target.limits.age);
        if chosen.len() < rows && now < until && waits {
            self.company = Some(Company { until, fresh: fresh_waiting, last });
            return Ok(Fresh::Wait(Some(next.map_or(until, |next| next.min(until)))));
        }
        self.pass(&chosen);
        chosen.retain(|due| !self.lane.is_taken(due.seq, None));
        chosen.sort_by_key(|due| due.seq);
        if chosen.is_empty() {
            // Read before their last outcome: the next look knows it.
            return Ok(Fresh::Wait(Some(now)));
        }
        Ok(Fresh::These(chosen))
    }

    /// Until when those wait for company that were found to, if they still do. What has come since is counted, and what was
    /// counted is not read again: a lane may be rung for each event. Retries and replays that come meanwhile wait with them.
    fn is_in_company(&mut self, rows: usize, now: Millis) -> Result<Option<Millis>> {
        let Some(mut company) = self.company.take().filter(|company| now < company.until) else { return Ok(None) };
        let room = rows.saturating_sub(company.fresh);
        let more = self.outlet.store.fresh_deliveries(self.number, company.last, room.max(1))?;
        company.fresh += more.len();
        company.last = more.last().map_or(company.last, |due| due.seq);
        let until = (company.fresh < rows).then_some(company.until);
        self.company = until.is_some().then_some(company);
        Ok(until)
    }

    /// The next look begins behind these.
    fn pass(&mut self, chosen: &[Due]) {
        let routed = self.outlet.rings.routed_to();
        for due in chosen {
            match due.place {
                // A resend may stand before events that the router has not seen yet: the mark waits for the router.
                Place::Fresh if due.seq <= routed => self.low = self.low.max(due.seq),
                Place::Replay => self.replay_low = self.replay_low.max(due.seq),
                _ => {}
            }
        }
    }

    /// Since when a delivery could have been written.
    fn waits_since(&self, due: &Due) -> Result<Option<Millis>> {
        Ok(match (due.turn, due.place) {
            (Turn::Again(at), _) | (_, Place::At(at)) => Some(at),
            _ => self.outlet.store.event(due.event)?.map(|event| event.accepted_at),
        })
    }

    /// Events of one batch at most: what the destination takes, less after it had too much, and no more than the
    /// subscription allows in a second.
    fn rows_wanted(&self, config: &LaneConfig, target: &Target) -> usize {
        let paced = config.subscription.per_second().map_or(usize::MAX, |rate| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 10,000, at least 1")]
            let rows = rate.clamp(1.0, 10_000.0) as usize;
            rows
        });
        target.limits.rows.min(self.lane.rows_max()).min(paced).max(1)
    }
}

/// What is due of a queue.
enum Fresh {
    These(Vec<Due>),
    /// Nothing is due before; None: until somebody rings.
    Wait(Option<Millis>),
}

enum Gathered {
    Work(Work),
    /// Nothing is due before; None: until somebody rings.
    Wait(Option<Millis>),
}
