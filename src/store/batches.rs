//! Batches that are frozen: which deliveries are written together, under which name, and how often that was tried.
//!
//! Always true: a batch's members and its name never change; it is there until each of its members is settled or stands
//! in another batch; a lane tries its batches one at a time, in the order of their numbers. Not here: what is in the
//! request (`destinations`), which deliveries are put together (`actors::courier::batch`).

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::backfills::Backfill;
use super::codec;
use super::deliveries::DeliveryRow;
use super::due::Due;
use super::keys::{self, Key};
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::delivery::{Attempt, DeliveryState};
use crate::domain::destination::Shape;
use crate::domain::event::{Event, RecordKey};
use crate::domain::id::{ConnectionId, DestinationId, EventId, LaneNo, Seq};
use crate::domain::subscription::{ApiVersion, Include};
use crate::domain::time::Millis;
use crate::error::Result;

/// Of a batch that keeps failing the last attempts are kept, so many.
const ATTEMPTS_KEPT: usize = 16;
/// More than a lane has at once: one is frozen while another is settled, and cut in two at most as often as it can be.
const BATCHES_MAX: usize = 64;

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRow {
    /// Where it was meant to go: elsewhere its name means nothing.
    pub destination: DestinationId,
    /// The settings with which it was tried last: with others it is tried at once.
    pub revision: u32,
    /// How its events are shown: a change of the subscription leaves a frozen batch as it is.
    pub shape: Shape,
    pub version: ApiVersion,
    pub include: Vec<Include>,
    /// In the order of their sequences.
    pub members: Vec<Due>,
    /// In place of members: present records of a new subscription, as they were read.
    pub records: Vec<GivenRecord>,
    /// When it is to be tried (again).
    pub at: Millis,
    /// Steps of the schedule used up.
    pub tries: u32,
    /// Attempts made.
    pub made: u32,
    /// The last of them.
    pub attempts: Vec<Attempt>,
}

/// A present record, as an event that is in no log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenRecord {
    /// Made of the lane and the record, so that it is the same whenever it is made.
    pub id: EventId,
    /// The state is that of this position of the log.
    pub seq: Seq,
    pub event: Event,
}

impl BatchRow {
    /// How many events are in it.
    pub fn len(&self) -> usize {
        self.members.len() + self.records.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same after a failed attempt.
    #[must_use]
    pub fn tried(mut self, attempt: Attempt, at: Millis, tries: u32) -> Self {
        self.attempts.push(attempt);
        let surplus = self.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        self.attempts.drain(..surplus);
        self.made = self.made.saturating_add(1);
        Self { at, tries, ..self }
    }

    /// The members and records at these places, as a batch of their own.
    #[must_use]
    pub fn part(&self, places: &[usize]) -> Self {
        let members = places.iter().filter_map(|place| self.members.get(*place).copied()).collect();
        let records = places.iter().filter_map(|place| self.records.get(place.checked_sub(self.members.len())?));
        let records = records.cloned().collect();
        Self { members, records, include: self.include.clone(), attempts: self.attempts.clone(), ..*self }
    }
}

fn key(lane: LaneNo, number: Seq) -> Key {
    Key::lane(lane).seq(number)
}

impl Rows {
    /// The batches of a lane that are not settled, in the order of their numbers, at most `limit`.
    pub fn batches(&self, lane: LaneNo, limit: usize) -> Result<Vec<(Seq, BatchRow)>> {
        let prefix = Key::lane(lane);
        let mut batches = Vec::new();
        self.walk(Table::Batches, prefix.as_ref(), &prefix.clone().end(), Walk::Forward, |key, value| {
            batches.push((Seq(keys::number_at(key, 4).unwrap_or_default()), codec::decode(value)?));
            Ok(batches.len() < limit)
        })?;
        Ok(batches)
    }

    /// The lanes that have a batch which is not settled, or a backfill that is not over.
    pub fn lanes_writing(&self) -> Result<Vec<LaneNo>> {
        let mut lanes = std::collections::BTreeSet::new();
        let lane_of =
            |key: &[u8]| Ok(LaneNo(u32::from_be_bytes(codec::fixed("lane", key.get(..4).unwrap_or_default())?)));
        self.walk_prefix(Table::Batches, &Key::new(), |key, _| {
            lanes.insert(lane_of(key)?);
            Ok(true)
        })?;
        self.walk_prefix(Table::Backfills, &Key::new(), |key, value| {
            if codec::decode::<Backfill>(value)?.ended_at.is_none() {
                lanes.insert(lane_of(key)?);
            }
            Ok(true)
        })?;
        Ok(lanes.into_iter().collect())
    }

    /// Whether a batch is there still.
    pub fn has_batch(&self, lane: LaneNo, number: Seq) -> Result<bool> {
        Ok(self.raw(Table::Batches, key(lane, number))?.is_some())
    }

    /// The batch that holds the delivery at `seq`, if one does.
    fn batch_of(&self, lane: LaneNo, seq: Seq) -> Result<Option<(Seq, BatchRow)>> {
        let holds = |(_, batch): &(Seq, BatchRow)| batch.members.iter().any(|due| due.seq == seq);
        Ok(self.batches(lane, BATCHES_MAX)?.into_iter().find(holds))
    }
}

impl Rows {
    /// A delivery as the batch tells of it that holds it, if one does: what was tried stands there until it ends.
    pub fn as_batched(&self, lane: LaneNo, seq: Seq, row: DeliveryRow) -> Result<DeliveryRow> {
        let DeliveryState::Due { .. } = row.state else { return Ok(row) };
        let Some((_, batch)) = self.batch_of(lane, seq)?.filter(|(_, batch)| batch.made > 0) else { return Ok(row) };
        let state = DeliveryState::Due { at: batch.at, tries: batch.tries, attempts: batch.made };
        Ok(DeliveryRow { state, attempts: batch.attempts, ..row })
    }
}

impl Tx<'_> {
    /// Takes records that were erased out of the batches of backfills; what is left of a batch is another one. The caller
    /// is alone in its commit.
    pub fn erase_given(&mut self, connection: ConnectionId, records: &HashSet<RecordKey>) -> Result<()> {
        let is_erased = |given: &GivenRecord| {
            given.event.connection == Some(connection)
                && given.event.record_key().is_some_and(|record| records.contains(&record))
        };
        let mut found = Vec::new();
        self.walk_prefix(Table::Batches, &Key::new(), |key, value| {
            let batch: BatchRow = codec::decode(value)?;
            if batch.records.iter().any(is_erased) {
                let lane = LaneNo(u32::from_be_bytes(codec::fixed("lane", key.get(..4).unwrap_or_default())?));
                found.push((lane, Seq(keys::number_at(key, 4).unwrap_or_default()), batch));
            }
            Ok(true)
        })?;
        for (lane, number, mut batch) in found {
            self.delete_batch(lane, number)?;
            batch.records.retain(|given| !is_erased(given));
            if !batch.is_empty() {
                let number = self.next_seq()?;
                self.put_batch(lane, number, &batch)?;
            }
        }
        Ok(())
    }

    /// Freezes a batch, or notes how often it was tried.
    pub fn put_batch(&mut self, lane: LaneNo, number: Seq, batch: &BatchRow) -> Result<()> {
        self.put(Table::Batches, key(lane, number), batch)
    }

    /// The deliveries of a lane are cancelled: none of its batches is tried (again), but for those of a backfill.
    pub(super) fn drop_batches(&mut self, lane: LaneNo) -> Result<()> {
        for (number, batch) in self.batches(lane, BATCHES_MAX)? {
            if batch.records.is_empty() {
                self.delete_batch(lane, number)?;
            }
        }
        Ok(())
    }

    /// All of its members are settled, or stand in another one.
    pub fn delete_batch(&mut self, lane: LaneNo, number: Seq) -> Result<()> {
        self.delete(Table::Batches, key(lane, number))
    }
}
