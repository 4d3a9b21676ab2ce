//! Cancelling what a lane owes: walking over it page by page, and ending one delivery.
//!
//! Always true: a page reads a bounded number of rows, and the walk goes on exactly where it stopped; what waits behind
//! others of its record comes first, so that a head that is cancelled lets go only what is to stay. Not here: which
//! deliveries are meant (`api`).

use super::deliveries::{DeliveryRow, Settlement};
use super::due::{Due, Place};
use super::keys::{self, Key, Queued};
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::delivery::DeliveryState;
use crate::domain::event::RecordKey;
use crate::domain::id::{LaneNo, Seq};
use crate::domain::time::Millis;
use crate::error::Result;

/// The ranges of a lane's queue in which owed deliveries stand, in the order of the walk. A successor that is let go moves
/// to the last one.
const RANGES: [Queued; 4] = [Queued::Parked, Queued::Fresh, Queued::Replay, Queued::Retry];

/// Where a walk over a lane's queue stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedMark(Vec<u8>);

impl OwedMark {
    /// Reads back what [`OwedMark::bytes`] gave; None if it is of something else.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let kind = bytes.first()?;
        let known = RANGES.iter().find(|range| **range as u8 == *kind)?;
        let length = match known {
            Queued::Parked => 25,
            Queued::Retry => 17,
            _ => 9,
        };
        (bytes.len() == length).then(|| Self(bytes.to_vec()))
    }

    /// The mark as bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn due_at(kind: Queued, key: &[u8], value: &[u8]) -> Result<Due> {
    let number = |at: usize| keys::number_at(key, at).unwrap_or_default();
    match kind {
        Queued::Parked => Due::read(Seq(number(21)), Place::Parked, value),
        Queued::Retry => Due::read(Seq(number(13)), Place::At(Millis(number(5))), value),
        Queued::Replay => Due::read(Seq(number(5)), Place::Replay, value),
        _ => Due::read(Seq(number(5)), Place::Fresh, value),
    }
}

impl Rows {
    /// The next `limit` deliveries that a lane owes, wherever they stand, and where to go on; None: that was all.
    pub fn owed_page(
        &self,
        lane: LaneNo,
        mark: Option<&OwedMark>,
        limit: usize,
    ) -> Result<(Vec<Due>, Option<OwedMark>)> {
        let (mut page, mut last) = (Vec::new(), None);
        let mut begun = mark.is_none();
        for kind in RANGES {
            let prefix = keys::queue(lane, kind);
            let mut from = prefix.as_ref().to_vec();
            if let Some(mark) = mark.filter(|mark| mark.0.first() == Some(&(kind as u8))) {
                from = Key::lane(lane).bytes(&mark.0).u8(0).as_ref().to_vec();
                begun = true;
            }
            if !begun {
                continue;
            }
            self.walk(Table::Queue, &from, &prefix.end(), Walk::Forward, |key, value| {
                page.push(due_at(kind, key, value)?);
                if page.len() == limit {
                    last = key.get(4..).map(|rest| OwedMark(rest.to_vec()));
                }
                Ok(last.is_none())
            })?;
            if last.is_some() {
                break;
            }
        }
        Ok((page, last))
    }

    /// The delivery at `seq` of a lane, if it was tried or has ended.
    pub fn tried(&self, lane: LaneNo, seq: Seq) -> Result<Option<DeliveryRow>> {
        self.get(Table::Deliveries, Key::lane(lane).seq(seq))
    }

    /// Whether a delivery that was never tried, and has been claimed, stands no longer where it was listed: an attempt may
    /// have ended, or somebody have cancelled it, between the courier's look and its claim. Fresh ones are listed once,
    /// so of them this is not asked: it would cost a read for each.
    pub fn is_stale(&self, lane: LaneNo, due: &Due) -> Result<bool> {
        Ok(due.place != Place::Fresh && self.raw(Table::Queue, due.key(lane))?.is_none())
    }

    /// The delivery at `seq`, of this record, as it is owed; None if it is not.
    pub fn owed_of(&self, lane: LaneNo, seq: Seq, record: Option<&RecordKey>) -> Result<Option<Due>> {
        if let Some(record) = record {
            let parked = self.raw(Table::Queue, keys::queue(lane, Queued::Parked).bytes(record).seq(seq))?;
            if let Some(value) = parked {
                return Due::read(seq, Place::Parked, &value).map(Some);
            }
        }
        match self.get::<DeliveryRow>(Table::Deliveries, Key::lane(lane).seq(seq))? {
            Some(_) => self.owed(lane, seq),
            None => match (self.untried(lane, seq)?, record) {
                (Some(due), _) => Ok(Some(due)),
                // A successor that was let go.
                (None, Some(record)) if self.is_untried_of(lane, record, seq)? => self.owed(lane, seq),
                (None, _) => Ok(None),
            },
        }
    }
}

impl Tx<'_> {
    /// Cancels a delivery if it still stands where `due` says; `taken_in` is when its event was. False: it does not.
    pub fn cancel_delivery(&mut self, lane: LaneNo, due: &Due, taken_in: Millis) -> Result<bool> {
        let at = self.now();
        self.end_owed(lane, due, taken_in, DeliveryState::Cancelled { at })
    }

    /// Ends a delivery in this state, without an attempt.
    pub(super) fn end_owed(&mut self, lane: LaneNo, due: &Due, taken_in: Millis, state: DeliveryState) -> Result<bool> {
        let mut row = match self.get::<DeliveryRow>(Table::Deliveries, Key::lane(lane).seq(due.seq))? {
            Some(row) => row,
            None => DeliveryRow::unattempted(due, taken_in),
        };
        let is_owed = matches!(row.state, DeliveryState::Due { .. });
        if !is_owed || self.placed(&due.key(lane))?.is_none() {
            return Ok(false);
        }
        row.state = state;
        self.settle_delivery(&Settlement { lane, due: *due, row })?;
        Ok(true)
    }
}
