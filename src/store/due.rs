//! A delivery that is owed: how often it was tried, where it stands in the queue, and the row that says so.
//!
//! Always true: key and value of a row together say everything about it. Not here: reading and settling (`deliveries`), the
//! order of records (`order`).

use serde::{Deserialize, Serialize};

use super::codec;
use super::keys::{self, Key, Queued};
use crate::domain::event::RecordKey;
use crate::domain::id::{LaneNo, Seq};
use crate::domain::time::Millis;
use crate::error::Result;

/// A delivery that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    pub seq: Seq,
    /// The event to deliver.
    pub event: Seq,
    pub turn: Turn,
    pub place: Place,
    /// The record, in a lane that cares for records.
    pub record: Option<RecordKey>,
}

/// How often it was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Turn {
    /// Never: the first delivery of its event.
    First,
    /// Never: asked for again at that time.
    Again(Millis),
    /// Before.
    Retry,
}

/// Where it stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Among those that were never tried, in the order of their sequences.
    Fresh,
    /// Among those that have a due time.
    At(Millis),
    /// Behind an older delivery of its record.
    Parked,
    /// Among those that replays have made and that were never tried, in the order of their sequences.
    Replay,
}

/// Value of a queue row. None is written where the key says it all: the first delivery of an event to a lane that does not
/// care for records.
#[derive(Serialize, Deserialize)]
struct Owed {
    event: Seq,
    again: Option<Millis>,
    record: Option<RecordKey>,
    tried: bool,
}

impl Due {
    /// The first delivery of an event.
    pub fn first(event: Seq, record: Option<RecordKey>) -> Self {
        Self { seq: event, event, turn: Turn::First, place: Place::Fresh, record }
    }

    /// The key of its queue row.
    pub(super) fn key(&self, lane: LaneNo) -> Key {
        match (self.place, self.record) {
            (Place::At(at), _) => keys::queue_retry(lane, at, self.seq),
            (Place::Parked, Some(record)) => keys::queue(lane, Queued::Parked).bytes(&record).seq(self.seq),
            (Place::Replay, _) => keys::queue(lane, Queued::Replay).seq(self.seq),
            (Place::Fresh | Place::Parked, _) => keys::queue(lane, Queued::Fresh).seq(self.seq),
        }
    }

    pub(super) fn value(&self) -> Result<Vec<u8>> {
        if self.turn == Turn::First && self.record.is_none() && self.place == Place::Fresh {
            return Ok(Vec::new());
        }
        let again = match self.turn {
            Turn::Again(at) => Some(at),
            Turn::First | Turn::Retry => None,
        };
        codec::encode(&Owed { event: self.event, again, record: self.record, tried: self.turn == Turn::Retry })
    }

    pub(super) fn read(seq: Seq, place: Place, value: &[u8]) -> Result<Self> {
        if value.is_empty() {
            return Ok(Self { place, ..Self::first(seq, None) });
        }
        let owed: Owed = codec::decode(value)?;
        let turn = match (owed.tried, owed.again) {
            (true, _) => Turn::Retry,
            (false, Some(at)) => Turn::Again(at),
            (false, None) => Turn::First,
        };
        Ok(Self { seq, event: owed.event, turn, place, record: owed.record })
    }
}
