//! Lanes that care for records: one delivery of a record at a time, in order; successive updates collapse into the newest.
//!
//! Always true: of a record with deliveries that are owed, exactly one is not parked (the head), and it is the oldest; when
//! it ends, however it ends, its successor takes its place in the same commit. Only updates that were never tried and
//! have nothing between them collapse. Not here: which lanes care (`actors::router`), what is sent (`actors::courier`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::codec;
use super::counts::Count;
use super::deliveries::DeliveryRow;
use super::due::{Due, Place, Turn};
use super::keys::{self, Key, Queued};
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::delivery::DeliveryState;
use crate::domain::event::{Event, RecordKey};
use crate::domain::id::{LaneNo, Seq};
use crate::domain::subscription::Subscription;
use crate::domain::time::Millis;
use crate::error::Result;

/// Queue rows of such lanes that the batch under way has written or deleted: its commits see each other's.
pub(super) type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Updates that collapse into one, at most: beyond it the next one is delivered by itself.
const MERGED_MAX: u32 = 1_000;

/// What a delivery carries of those that collapsed into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// The event whose `previous` is the oldest.
    pub first: Seq,
    /// All fields that changed, each once.
    pub changed_fields: Vec<String>,
    pub count: u32,
}

/// How a lane wants the deliveries of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Care {
    pub ordered: bool,
    pub coalesce: bool,
}

impl Care {
    /// As the subscription asks.
    pub fn of(subscription: &Subscription) -> Self {
        Self { ordered: subscription.ordered, coalesce: subscription.coalesce }
    }

    /// The record of an event, if the lane cares for it.
    pub fn record(self, event: &Event) -> Option<RecordKey> {
        if self.ordered || self.coalesce { event.record_key() } else { None }
    }
}

/// An event as a lane that cares for records sees it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub event: Seq,
    pub made_at: Millis,
    pub record: RecordKey,
    /// Its `updateType` is `updated`.
    pub is_update: bool,
    pub changed_fields: &'a [String],
}

fn place_key(lane: LaneNo, kind: Queued, record: &RecordKey) -> Key {
    keys::queue(lane, kind).bytes(record)
}

impl Rows {
    /// One that was never tried and is not among the fresh ones: parked, or the successor of a head that ended. Such rows
    /// have no index by sequence, so the whole lane's are looked through, up to a limit.
    pub(super) fn untried_elsewhere(&self, lane: LaneNo, seq: Seq) -> Result<Option<Due>> {
        const LOOKED_MAX: usize = 10_000;
        for (kind, at) in [(Queued::Retry, 13), (Queued::Parked, 21)] {
            let (mut found, mut looked) = (None, 0);
            self.walk_prefix(Table::Queue, &keys::queue(lane, kind), |key, value| {
                if keys::number_at(key, at) == Some(seq.0) {
                    let place = match kind {
                        Queued::Retry => Place::At(Millis(keys::number_at(key, 5).unwrap_or_default())),
                        _ => Place::Parked,
                    };
                    found = Some(Due::read(seq, place, value)?);
                }
                looked += 1;
                Ok(found.is_none() && looked < LOOKED_MAX)
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Whether such a one is of this record.
    pub(super) fn is_untried_of(&self, lane: LaneNo, record: &RecordKey, seq: Seq) -> Result<bool> {
        let head = self.raw(Table::Queue, place_key(lane, Queued::Head, record))?;
        Ok(head.and_then(|bytes| keys::number_at(&bytes, 0)) == Some(seq.0)
            || self.raw(Table::Queue, place_key(lane, Queued::Parked, record).seq(seq))?.is_some())
    }

    /// What collapsed into a delivery.
    pub fn merged(&self, lane: LaneNo, seq: Seq) -> Result<Option<Merged>> {
        self.get(Table::Queue, keys::queue(lane, Queued::Merged).seq(seq))
    }
}

impl Tx<'_> {
    /// Owes an event to a lane that cares for records.
    pub fn owe_record(&mut self, lane: LaneNo, care: Care, arrival: &Arrival<'_>) -> Result<()> {
        if care.coalesce && self.collapse(lane, care, arrival)? {
            return Ok(());
        }
        self.owe_in_order(lane, care, Due::first(arrival.event, Some(arrival.record)), arrival.made_at)
    }

    /// Owes a delivery: as the head of its record, or parked behind it.
    pub(super) fn owe_in_order(&mut self, lane: LaneNo, care: Care, due: Due, made_at: Millis) -> Result<()> {
        let Some(record) = due.record.filter(|_| care.ordered) else { return self.owe(lane, &due, made_at) };
        let head = place_key(lane, Queued::Head, &record);
        if self.placed(&head)?.is_some() {
            return self.owe(lane, &Due { place: Place::Parked, ..due }, made_at);
        }
        self.place(head, Some(due.seq.0.to_be_bytes().to_vec()))?;
        self.owe(lane, &due, made_at)
    }

    /// Lets nothing more collapse into a delivery: it stands in a batch.
    pub fn stop_collapsing(&mut self, lane: LaneNo, due: &Due) -> Result<()> {
        match due.record {
            Some(record) => self.place(place_key(lane, Queued::Newest, &record), None),
            None => Ok(()),
        }
    }

    /// Collapses an update into the newest never-tried one of its record, or makes it the newest. True: it has its row.
    fn collapse(&mut self, lane: LaneNo, care: Care, arrival: &Arrival<'_>) -> Result<bool> {
        let newest = place_key(lane, Queued::Newest, &arrival.record);
        if !arrival.is_update {
            self.place(newest, None)?;
            return Ok(false);
        }
        let before = self.placed(&newest)?.and_then(|bytes| keys::number_at(&bytes, 0)).map(Seq);
        self.place(newest, Some(arrival.event.0.to_be_bytes().to_vec()))?;
        let Some(before) = before else { return Ok(false) };
        let Some(waiting) = self.waiting(lane, care, arrival.record, before)? else { return Ok(false) };
        let Some(event) = self.event(waiting.event)? else { return Ok(false) };
        let made_at = event.accepted_at;
        let Some(merged) = self.merge(lane, waiting.seq, event.changed_fields, arrival)? else { return Ok(false) };
        let successor = Due { seq: arrival.event, event: arrival.event, ..waiting };
        self.delete_queued(lane, &waiting)?;
        self.place(keys::queue(lane, Queued::Merged).seq(waiting.seq), None)?;
        self.put_queued(lane, &successor)?;
        self.place(keys::queue(lane, Queued::Merged).seq(successor.seq), Some(codec::encode(&merged)?))?;
        let mut row = DeliveryRow::unattempted(&waiting, made_at);
        row.state = DeliveryState::Superseded { at: self.now(), by: successor.seq };
        self.count(lane, made_at, Count::Pending, -1)?;
        self.count(lane, made_at, Count::Cancelled, 1)?;
        self.count(lane, arrival.made_at, Count::Pending, 1)?;
        self.put(Table::Deliveries, Key::lane(lane).seq(waiting.seq), &row)?;
        Ok(true)
    }

    /// The delivery at `seq` if the next update may collapse into it. In a lane with order the head may be under way, and
    /// its successor must not overtake it: there only what is parked is taken.
    fn waiting(&self, lane: LaneNo, care: Care, record: RecordKey, seq: Seq) -> Result<Option<Due>> {
        let place = if care.ordered { Place::Parked } else { Place::Fresh };
        let at = Due { place, ..Due::first(seq, Some(record)) };
        let value = self.placed(&at.key(lane))?;
        let due = value.map(|value| Due::read(seq, place, &value)).transpose()?;
        Ok(due.filter(|due| due.turn == Turn::First && due.record == Some(record)))
    }

    fn merge(
        &self,
        lane: LaneNo,
        before: Seq,
        changed_fields: Vec<String>,
        arrival: &Arrival<'_>,
    ) -> Result<Option<Merged>> {
        let known = self.placed(&keys::queue(lane, Queued::Merged).seq(before))?;
        let mut merged = match known {
            Some(bytes) => codec::decode(&bytes)?,
            None => Merged { first: before, changed_fields, count: 1 },
        };
        if merged.count >= MERGED_MAX {
            return Ok(None);
        }
        merged.count += 1;
        for field in arrival.changed_fields {
            if !merged.changed_fields.contains(field) {
                merged.changed_fields.push(field.clone());
            }
        }
        Ok(Some(merged))
    }

    /// A delivery of a record was tried, or has ended: it takes no more updates in, and its successor may go.
    pub(super) fn settle_record(&mut self, lane: LaneNo, record: RecordKey, due: &Due, ended: bool) -> Result<()> {
        let newest = place_key(lane, Queued::Newest, &record);
        let is_newest = self.placed(&newest)?.and_then(|bytes| keys::number_at(&bytes, 0)) == Some(due.seq.0);
        if is_newest {
            self.place(newest, None)?;
        }
        if !ended {
            return Ok(());
        }
        self.place(keys::queue(lane, Queued::Merged).seq(due.seq), None)?;
        let head = place_key(lane, Queued::Head, &record);
        if self.placed(&head)?.and_then(|bytes| keys::number_at(&bytes, 0)) != Some(due.seq.0) {
            return Ok(());
        }
        let Some(next) = self.first_parked(lane, &record)? else { return self.place(head, None) };
        self.delete_queued(lane, &next)?;
        self.place(head, Some(next.seq.0.to_be_bytes().to_vec()))?;
        // Among those with a due time, since the courier has passed its place among the fresh ones.
        self.put_queued(lane, &Due { place: Place::At(self.now()), ..next })
    }

    fn first_parked(&self, lane: LaneNo, record: &RecordKey) -> Result<Option<Due>> {
        let prefix = place_key(lane, Queued::Parked, record);
        let mut stored = None;
        self.walk(Table::Queue, prefix.as_ref(), &prefix.clone().end(), Walk::Forward, |key, value| {
            if !self.overlay.contains_key(key) {
                stored = Some((key.to_vec(), value.to_vec()));
            }
            Ok(stored.is_none())
        })?;
        let written = self.overlay.range(prefix.as_ref().to_vec()..prefix.end());
        let written = written.filter_map(|(key, value)| Some((key.clone(), value.clone()?))).next();
        let Some((key, value)) = stored.into_iter().chain(written).min() else { return Ok(None) };
        Due::read(Seq(keys::number_at(&key, 21).unwrap_or_default()), Place::Parked, &value).map(Some)
    }

    /// A row of a lane that cares for records, as the commits of this batch leave it.
    pub(super) fn placed(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        match self.overlay.get(key.as_ref()) {
            Some(written) => Ok(written.clone()),
            None => self.raw(Table::Queue, key),
        }
    }

    /// Writes or deletes such a row.
    pub(super) fn place(&mut self, key: Key, value: Option<Vec<u8>>) -> Result<()> {
        match &value {
            Some(value) => self.put_raw(Table::Queue, &key, value)?,
            None => self.delete(Table::Queue, &key)?,
        }
        self.overlay.insert(key.as_ref().to_vec(), value);
        Ok(())
    }
}
