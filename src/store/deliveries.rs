//! Lanes: what each subscription is owed, what was tried, what came of it.
//!
//! A delivery that goes well costs three small writes: its fresh queue row, that row's deletion, and one history row with
//! the attempt inside. Always true: a delivery is in the queue exactly as long as it is owed (or dead, so that it can be
//! listed); what is not in `deliveries` was never attempted. Not here: which one is next (`actors::courier`).

use serde::{Deserialize, Serialize};

use super::codec;
use super::counts::Count;
use super::keys::{self, Key, Queued};
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::writer::Tx;
use crate::domain::delivery::{Attempt, DeliveryState};
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

/// A delivery that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub seq: Seq,
    /// The event to deliver.
    pub event: Seq,
    pub turn: Turn,
}

/// Where an owed delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Never attempted: the first delivery of its event.
    First,
    /// Never attempted: asked for again at that time.
    Again(Millis),
    /// Attempted before, and due at that time.
    Retry(Millis),
}

/// What an attempt changes: the row as it shall be, and where it stood in the queue before.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub lane: LaneNo,
    pub due: Due,
    pub row: DeliveryRow,
}

/// Value of a fresh queue row of a resend: the event's sequence (8), when it was made (8). Empty for the first delivery
/// of an event, whose own sequence is the row's.
fn resend_value(event: Seq, made_at: Millis) -> Vec<u8> {
    [event.0.to_be_bytes(), made_at.0.to_be_bytes()].concat()
}

impl Rows {
    /// Fresh deliveries of a lane after `after`, oldest first.
    pub fn fresh_deliveries(&self, lane: LaneNo, after: Seq, limit: usize) -> Result<Vec<Due>> {
        let prefix = keys::queue(lane, Queued::Fresh);
        let from = prefix.clone().seq(after.next());
        let mut due = Vec::new();
        self.walk(Table::Queue, from.as_ref(), &prefix.end(), Walk::Forward, |key, value| {
            due.push(fresh_due(Seq(keys::number_at(key, 5).unwrap_or_default()), value));
            Ok(due.len() < limit)
        })?;
        Ok(due)
    }

    /// Deliveries of a lane to be tried again, earliest due first, whether or not they are due yet.
    pub fn retry_deliveries(&self, lane: LaneNo, limit: usize) -> Result<Vec<Due>> {
        let mut due = Vec::new();
        self.walk_prefix(Table::Queue, &keys::queue(lane, Queued::Retry), |key, value| {
            let at = Millis(keys::number_at(key, 5).unwrap_or_default());
            let seq = Seq(keys::number_at(key, 13).unwrap_or_default());
            due.push(Due { seq, event: keys::number_at(value, 0).map_or(seq, Seq), turn: Turn::Retry(at) });
            Ok(due.len() < limit)
        })?;
        Ok(due)
    }

    /// The delivery at `seq` of a lane, attempted or not. For one that was never attempted the row is made up.
    pub fn delivery(&self, lane: LaneNo, seq: Seq) -> Result<Option<DeliveryRow>> {
        if let Some(row) = self.get(Table::Deliveries, Key::lane(lane).seq(seq))? {
            return Ok(Some(row));
        }
        let Some(value) = self.raw(Table::Queue, keys::queue(lane, Queued::Fresh).seq(seq))? else { return Ok(None) };
        let due = fresh_due(seq, &value);
        let taken_in = self.event(due.event)?.map_or(Millis(0), |e| e.accepted_at);
        Ok(Some(DeliveryRow::unattempted(&due, taken_in)))
    }

    /// A lane's deliveries before `before`, newest first, attempted or not.
    pub fn deliveries(
        &self,
        lane: LaneNo,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<(DeliveryId, DeliveryRow)>> {
        let mut seqs = std::collections::BTreeSet::new();
        let tables = [(Table::Deliveries, Key::lane(lane), 4), (Table::Queue, keys::queue(lane, Queued::Fresh), 5)];
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

    /// When the oldest owed delivery of a lane was made.
    pub fn oldest_pending(&self, lane: LaneNo) -> Result<Option<Millis>> {
        let fresh = self.fresh_deliveries(lane, Seq(0), 1)?;
        let retry = self.retry_deliveries(lane, 1)?;
        let mut oldest = None::<Millis>;
        for due in fresh.into_iter().chain(retry) {
            if let Some(row) = self.delivery(lane, due.seq)? {
                oldest = Some(oldest.map_or(row.made_at, |o| o.min(row.made_at)));
            }
        }
        Ok(oldest)
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
    /// Owes an event to a lane.
    pub fn put_fresh(&mut self, lane: LaneNo, event: Seq, made_at: Millis) -> Result<()> {
        self.put_raw(Table::Queue, keys::queue(lane, Queued::Fresh).seq(event), &[])?;
        self.count(lane, made_at, Count::Pending, 1)
    }

    /// Owes an event to a lane once more, as a fresh delivery at the end of its queue.
    pub fn put_resend(&mut self, lane: LaneNo, event: Seq) -> Result<DeliveryId> {
        let (seq, now) = (self.next_seq()?, self.now());
        self.put_raw(Table::Queue, keys::queue(lane, Queued::Fresh).seq(seq), &resend_value(event, now))?;
        self.count(lane, now, Count::Pending, 1)?;
        Ok(DeliveryId::new(seq, lane))
    }

    /// Writes what an attempt came to. One that is not owed any more (its lane was erased, or it was cancelled while it
    /// was under way) stays as it is.
    pub fn settle_delivery(&mut self, settlement: &Settlement) -> Result<()> {
        let Settlement { lane, due, row } = settlement;
        let (lane, seq) = (*lane, due.seq);
        let queued = match due.turn {
            Turn::First | Turn::Again(_) => keys::queue(lane, Queued::Fresh).seq(seq),
            Turn::Retry(at) => keys::queue_retry(lane, at, seq),
        };
        if self.raw(Table::Queue, &queued)?.is_none() {
            return Ok(());
        }
        self.delete(Table::Queue, queued)?;
        let ended = match row.state {
            DeliveryState::Due { at, .. } => {
                // The event may be older than the row's own sequence (a resend): retention reads it from the value.
                self.put_raw(Table::Queue, keys::queue_retry(lane, at, seq), &row.event.0.to_be_bytes())?;
                None
            }
            DeliveryState::Dead { .. } => {
                let key = keys::queue(lane, Queued::Dead).seq(seq);
                self.put_raw(Table::Queue, key, &row.event.0.to_be_bytes())?;
                Some(Count::Dead)
            }
            DeliveryState::Delivered { .. } => Some(Count::Delivered),
            DeliveryState::Cancelled { .. } | DeliveryState::Superseded { .. } => Some(Count::Cancelled),
        };
        if let Some(count) = ended {
            self.count(lane, row.made_at, Count::Pending, -1)?;
            self.count(lane, row.made_at, count, 1)?;
        }
        self.put(Table::Deliveries, Key::lane(lane).seq(seq), row)
    }

    /// Cancels everything that a lane is owed, a bounded number at a time; answers whether some is left.
    pub fn cancel_some(&mut self, lane: LaneNo, limit: usize) -> Result<bool> {
        let fresh = self.fresh_deliveries(lane, Seq(0), limit)?;
        let retry = self.retry_deliveries(lane, limit)?;
        let all: Vec<Due> = fresh.into_iter().chain(retry).take(limit).collect();
        for due in &all {
            if let Some(mut row) = self.delivery(lane, due.seq)? {
                row.state = DeliveryState::Cancelled { at: self.now() };
                self.settle_delivery(&Settlement { lane, due: *due, row })?;
            }
        }
        Ok(all.len() == limit)
    }

    /// Erases a lane: its queue, its history, its counts.
    pub fn erase_lane(&mut self, lane: LaneNo) -> Result<()> {
        for table in [Table::Queue, Table::Deliveries, Table::Counts] {
            self.delete_prefix(table, &Key::lane(lane))?;
        }
        Ok(())
    }
}

/// A fresh queue row as it is due.
fn fresh_due(seq: Seq, value: &[u8]) -> Due {
    match (keys::number_at(value, 0), keys::number_at(value, 8)) {
        (Some(event), Some(at)) => Due { seq, event: Seq(event), turn: Turn::Again(Millis(at)) },
        _ => Due { seq, event: seq, turn: Turn::First },
    }
}

impl DeliveryRow {
    /// The row of a delivery that was never attempted; `taken_in` is when its event was.
    pub fn unattempted(due: &Due, taken_in: Millis) -> Self {
        let (made_at, replay) = match due.turn {
            Turn::Again(at) => (at, true),
            Turn::First | Turn::Retry(_) => (taken_in, false),
        };
        let state = DeliveryState::Due { at: made_at, tries: 0, attempts: 0 };
        Self { event: due.event, made_at, replay, state, attempts: Vec::new() }
    }
}
