//! Lanes: what each subscription is owed, what was tried, what came of it.
//!
//! A delivery that goes well costs three small writes: its fresh queue row, that row's deletion, and one history row with
//! the attempt inside. Always true: a delivery is in the queue exactly as long as it is owed (or dead, so that it can be
//! listed); what is not in `deliveries` was never attempted. Not here: which one is next (`actors::courier`).

use serde::{Deserialize, Serialize};

use super::codec;
use super::counts::Count;
use super::due::{Due, Place, Turn};
use super::keys::{self, Key, Queued};
use super::resends::Resend;
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::delivery::{Attempt, Cause, DeliveryState};
use crate::domain::event::RecordKey;
use crate::domain::flow::Mark;
use crate::domain::id::{DeliveryId, LaneNo, Seq};
use crate::domain::time::Millis;
use crate::error::Result;

/// A delivery that was attempted at least once, or has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRow {
    /// The event it delivers.
    pub event: Seq,
    /// When it was made.
    pub made_at: Millis,
    pub replay: bool,
    pub state: DeliveryState,
    pub attempts: Vec<Attempt>,
}

/// What an attempt changes: the row as it shall be, and where it stood in the queue before.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub lane: LaneNo,
    pub due: Due,
    pub row: DeliveryRow,
}

impl Rows {
    /// Fresh deliveries of a lane after `after`, oldest first.
    pub fn fresh_deliveries(&self, lane: LaneNo, after: Seq, limit: usize) -> Result<Vec<Due>> {
        let prefix = keys::queue(lane, Queued::Fresh);
        let from = prefix.clone().seq(after.next());
        let mut due = Vec::new();
        self.walk(Table::Queue, from.as_ref(), &prefix.end(), Walk::Forward, |key, value| {
            due.push(Due::read(Seq(keys::number_at(key, 5).unwrap_or_default()), Place::Fresh, value)?);
            Ok(due.len() < limit)
        })?;
        Ok(due)
    }

    /// Deliveries of a lane to be tried again, earliest due first, whether or not they are due yet.
    pub fn retry_deliveries(&self, lane: LaneNo, limit: usize) -> Result<Vec<Due>> {
        self.retry_deliveries_from(lane, Millis(0), limit)
    }

    /// The same, where nothing is due before `from`: what was settled since the last look is not walked over.
    pub fn retry_deliveries_from(&self, lane: LaneNo, from: Millis, limit: usize) -> Result<Vec<Due>> {
        let mut due = Vec::new();
        let prefix = keys::queue(lane, Queued::Retry);
        let from = prefix.clone().time(from);
        self.walk(Table::Queue, from.as_ref(), &prefix.end(), Walk::Forward, |key, value| {
            let at = Millis(keys::number_at(key, 5).unwrap_or_default());
            let seq = Seq(keys::number_at(key, 13).unwrap_or_default());
            due.push(Due::read(seq, Place::At(at), value)?);
            Ok(due.len() < limit)
        })?;
        Ok(due)
    }

    /// The delivery at `seq` of a lane, attempted or not. For one that was never attempted the row is made up.
    pub fn delivery(&self, lane: LaneNo, seq: Seq) -> Result<Option<DeliveryRow>> {
        if let Some(row) = self.get(Table::Deliveries, Key::lane(lane).seq(seq))? {
            return Ok(Some(row));
        }
        let Some(due) = self.owed(lane, seq)? else { return Ok(None) };
        let taken_in = self.event(due.event)?.map_or(Millis(0), |e| e.accepted_at);
        Ok(Some(DeliveryRow::unattempted(&due, taken_in)))
    }

    /// The same of a delivery whose record is known: a few reads, however much its lane is owed.
    pub fn delivery_of(&self, lane: LaneNo, seq: Seq, record: Option<&RecordKey>) -> Result<Option<DeliveryRow>> {
        let is_elsewhere = self.get::<DeliveryRow>(Table::Deliveries, Key::lane(lane).seq(seq))?.is_none()
            && self.untried(lane, seq)?.is_none();
        match record {
            _ if !is_elsewhere => self.delivery(lane, seq),
            Some(record) if self.is_untried_of(lane, record, seq)? => self.delivery(lane, seq),
            _ => Ok(None),
        }
    }

    /// A lane's deliveries before `before`, newest first, attempted or not.
    pub fn deliveries(
        &self,
        lane: LaneNo,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<(DeliveryId, DeliveryRow)>> {
        let mut seqs = std::collections::BTreeSet::new();
        let queue = |kind| (Table::Queue, keys::queue(lane, kind), 5);
        let tables = [(Table::Deliveries, Key::lane(lane), 4), queue(Queued::Fresh), queue(Queued::Replay)];
        for (table, prefix, at) in tables {
            let end = match before {
                Some(seq) => prefix.clone().seq(seq).as_ref().to_vec(),
                None => prefix.clone().end(),
            };
            let mut found = 0;
            self.walk(table, prefix.as_ref(), &end, Walk::Backward, |key, _| {
                seqs.insert(Seq(keys::number_at(key, at).unwrap_or_default()));
                found += 1;
                Ok(found < limit)
            })?;
        }
        let mut rows = Vec::new();
        for seq in seqs.into_iter().rev().take(limit) {
            rows.extend(self.delivery(lane, seq)?.map(|row| (DeliveryId::new(seq, lane), row)));
        }
        Ok(rows)
    }

    /// Dead deliveries of a lane before `before`, newest first.
    pub fn dead_deliveries(&self, lane: LaneNo, before: Option<Seq>, limit: usize) -> Result<Vec<Seq>> {
        let prefix = keys::queue(lane, Queued::Dead);
        let end = match before {
            Some(seq) => prefix.clone().seq(seq).as_ref().to_vec(),
            None => prefix.clone().end(),
        };
        let mut seqs = Vec::new();
        self.walk(Table::Queue, prefix.as_ref(), &end, Walk::Backward, |key, _| {
            seqs.push(Seq(keys::number_at(key, 5).unwrap_or_default()));
            Ok(seqs.len() < limit)
        })?;
        Ok(seqs)
    }

    /// The delivery at `seq` of a lane as it is owed; None if it is not any more.
    pub fn owed(&self, lane: LaneNo, seq: Seq) -> Result<Option<Due>> {
        if let Some(row) = self.get::<DeliveryRow>(Table::Deliveries, Key::lane(lane).seq(seq))? {
            let DeliveryState::Due { at, .. } = row.state else { return Ok(None) };
            let queued = self.raw(Table::Queue, keys::queue_retry(lane, at, seq))?;
            return queued.map(|value| Due::read(seq, Place::At(at), &value)).transpose();
        }
        match self.untried(lane, seq)? {
            Some(due) => Ok(Some(due)),
            None => self.untried_elsewhere(lane, seq),
        }
    }

    /// One that was never tried and waits for nothing but its turn.
    pub(super) fn untried(&self, lane: LaneNo, seq: Seq) -> Result<Option<Due>> {
        for (kind, place) in [(Queued::Fresh, Place::Fresh), (Queued::Replay, Place::Replay)] {
            if let Some(value) = self.raw(Table::Queue, keys::queue(lane, kind).seq(seq))? {
                return Due::read(seq, place, &value).map(Some);
            }
        }
        Ok(None)
    }

    /// The oldest delivery that a lane is owed: of those to be tried again (the next hundred that are due), else of those
    /// that were never tried, those of replays last.
    pub fn oldest_owed(&self, lane: LaneNo) -> Result<Option<Due>> {
        let retries = self.retry_deliveries(lane, 100)?;
        match retries.into_iter().min_by_key(|due| due.seq) {
            Some(due) => Ok(Some(due)),
            None => match self.fresh_deliveries(lane, Seq(0), 1)?.pop() {
                Some(due) => Ok(Some(due)),
                None => Ok(self.replayed_deliveries(lane, Seq(0), 1)?.pop()),
            },
        }
    }

    /// What is remembered of a lane's endpoint.
    pub fn lane_mark(&self, lane: LaneNo) -> Result<Mark> {
        Ok(self.get(Table::Lanes, Key::lane(lane))?.unwrap_or_default())
    }

    /// The lanes with rows in the queue, by seeking from one to the next.
    pub fn lanes_owed(&self) -> Result<Vec<LaneNo>> {
        let mut lanes = Vec::new();
        let mut from = Vec::new();
        loop {
            let mut found = None;
            self.walk(Table::Queue, &from, &[u8::MAX; 32], Walk::Forward, |key, _| {
                found = Some(LaneNo(u32::from_be_bytes(codec::fixed("queue", key.get(..4).unwrap_or_default())?)));
                Ok(false)
            })?;
            let Some(lane) = found else { return Ok(lanes) };
            lanes.push(lane);
            from = Key::lane(lane).end();
        }
    }
}

impl Tx<'_> {
    /// Owes an event to a lane that does not care for records.
    pub fn put_fresh(&mut self, lane: LaneNo, event: Seq, made_at: Millis) -> Result<()> {
        self.owe(lane, &Due::first(event, None), made_at)
    }

    /// Records a delivery that is dead before it was owed: it can be seen, and asked for again.
    pub fn put_dead(&mut self, lane: LaneNo, event: Seq, made_at: Millis, cause: Cause, reason: String) -> Result<()> {
        let (now, due) = (self.now(), Due::first(event, None));
        let attempt =
            Attempt { at: now, duration_ms: 0, status: None, error: cause.error(), answer: reason, body_cut: false };
        let state = DeliveryState::Dead { at: now, cause };
        let row = DeliveryRow { state, attempts: vec![attempt], ..DeliveryRow::unattempted(&due, made_at) };
        let dead = Due { turn: Turn::Retry, ..due };
        self.put_raw(Table::Queue, keys::queue(lane, Queued::Dead).seq(event), &dead.value()?)?;
        self.count(lane, made_at, Count::Dead, 1)?;
        self.put(Table::Deliveries, Key::lane(lane).seq(event), &row)
    }

    /// Puts a queue row where `due` says, and counts it.
    pub(super) fn owe(&mut self, lane: LaneNo, due: &Due, made_at: Millis) -> Result<()> {
        self.put_queued(lane, due)?;
        self.count(lane, made_at, Count::Pending, 1)
    }

    pub(super) fn put_queued(&mut self, lane: LaneNo, due: &Due) -> Result<()> {
        match due.record {
            Some(_) => self.place(due.key(lane), Some(due.value()?)),
            None => self.put_raw(Table::Queue, due.key(lane), &due.value()?),
        }
    }

    pub(super) fn delete_queued(&mut self, lane: LaneNo, due: &Due) -> Result<()> {
        match due.record {
            Some(_) => self.place(due.key(lane), None),
            None => self.delete(Table::Queue, due.key(lane)),
        }
    }

    /// Whether a delivery is owed, and waits where `due` says.
    pub fn is_queued(&self, lane: LaneNo, due: &Due) -> Result<bool> {
        Ok(match due.record {
            Some(_) => self.placed(&due.key(lane))?.is_some(),
            None => self.raw(Table::Queue, due.key(lane))?.is_some(),
        })
    }

    /// Writes what an attempt came to. One that is not owed any more (its lane was erased, or it was cancelled while it
    /// was under way) stays as it is.
    pub fn settle_delivery(&mut self, settlement: &Settlement) -> Result<()> {
        let Settlement { lane, due, row } = settlement;
        let (lane, seq) = (*lane, due.seq);
        if !self.is_queued(lane, due)? {
            return Ok(());
        }
        self.delete_queued(lane, due)?;
        let ended = match row.state {
            DeliveryState::Due { at, .. } => {
                let turn = if row.attempts.is_empty() { due.turn } else { Turn::Retry };
                self.put_queued(lane, &Due { turn, place: Place::At(at), ..*due })?;
                None
            }
            DeliveryState::Dead { .. } => {
                // The event may be older than the row's own sequence (a resend): retention reads it from the value.
                let dead = Due { turn: Turn::Retry, place: Place::Fresh, ..*due };
                self.put_raw(Table::Queue, keys::queue(lane, Queued::Dead).seq(seq), &dead.value()?)?;
                Some(Count::Dead)
            }
            DeliveryState::Delivered { .. } => Some(Count::Delivered),
            DeliveryState::Cancelled { .. } | DeliveryState::Superseded { .. } | DeliveryState::Erased { .. } => {
                Some(Count::Cancelled)
            }
        };
        if let Some(count) = ended {
            self.count(lane, row.made_at, Count::Pending, -1)?;
            self.count(lane, row.made_at, count, 1)?;
        }
        if let Some(record) = due.record {
            self.settle_record(lane, record, due, ended.is_some())?;
        }
        if row.replay {
            self.note_replayed(lane, due, &row.state, !row.attempts.is_empty())?;
        }
        // A dead one can be asked for once more, so it still needs its event.
        if row.replay && ended.is_some_and(|count| count != Count::Dead) {
            self.note_resend(&Resend { lane, event: row.event, seq, is_live: false })?;
        }
        self.put(Table::Deliveries, Key::lane(lane).seq(seq), row)
    }

    /// Remembers something of a lane's endpoint.
    pub fn put_lane_mark(&mut self, lane: LaneNo, mark: Mark) -> Result<()> {
        if mark == Mark::default() {
            return self.delete(Table::Lanes, Key::lane(lane));
        }
        self.put(Table::Lanes, Key::lane(lane), &mark)
    }

    /// Its subscription was enabled: failures before count no more.
    pub fn count_failures_anew(&mut self, lane: LaneNo) -> Result<()> {
        let mark = self.lane_mark(lane)?;
        self.put_lane_mark(lane, mark.enabled(self.now()))
    }

    /// Cancels what a lane is owed, a bounded number at a time; answers whether some may be left.
    pub fn cancel_some(&mut self, lane: LaneNo, limit: usize) -> Result<bool> {
        self.drop_batches(lane)?;
        let fresh = self.fresh_deliveries(lane, Seq(0), limit)?;
        let retry = self.retry_deliveries(lane, limit)?;
        let replayed = self.replayed_deliveries(lane, Seq(0), limit)?;
        let all: Vec<Due> = fresh.into_iter().chain(retry).chain(replayed).take(limit).collect();
        for due in &all {
            if let Some(mut row) = self.delivery(lane, due.seq)? {
                row.state = DeliveryState::Cancelled { at: self.now() };
                self.settle_delivery(&Settlement { lane, due: *due, row })?;
            }
        }
        // One that ended may have let a successor of its record go.
        Ok(!all.is_empty())
    }

    /// Erases a lane: its queue, its history, its counts, its replays.
    pub fn erase_lane(&mut self, lane: LaneNo) -> Result<()> {
        let replays = [Table::Replays, Table::ReplaysLive, Table::ReplayCounts];
        let written = [Table::Batches, Table::Backfills];
        let own = [Table::Queue, Table::Deliveries, Table::Counts, Table::Lanes];
        for table in own.into_iter().chain(replays).chain(written) {
            self.delete_prefix(table, &Key::lane(lane))?;
        }
        Ok(())
    }
}

impl DeliveryRow {
    /// The row of a delivery that was never attempted; `taken_in` is when its event was.
    pub fn unattempted(due: &Due, taken_in: Millis) -> Self {
        let (made_at, replay) = match due.turn {
            Turn::Again(at) => (at, true),
            Turn::First | Turn::Retry => (taken_in, false),
        };
        let state = DeliveryState::Due { at: made_at, tries: 0, attempts: 0 };
        Self { event: due.event, made_at, replay, state, attempts: Vec::new() }
    }
}
