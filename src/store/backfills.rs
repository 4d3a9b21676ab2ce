//! How far the present records of a new subscription have been written to its destination.
//!
//! Always true: it moves in the commit that freezes the batch of what it has read, so nothing is read twice or left out.
//! Not here: reading (`actors::courier::batch`).

use serde::{Deserialize, Serialize};

use super::erase::SnapshotKey;
use super::keys::Key;
use super::rows::Rows;
use super::tables::Table;
use super::tx::Tx;
use crate::domain::id::{ConnectionId, LaneNo, Seq};
use crate::domain::time::Millis;
use crate::error::Result;

/// A backfill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// Records that changed after this position of the log come as events.
    pub from: Seq,
    /// The connection that is read, and the last row of it. None before the first one.
    pub connection: Option<ConnectionId>,
    pub after: Option<SnapshotKey>,
    /// Records that the destination has taken, and those that it refused.
    pub written: u64,
    pub refused: u64,
    pub started_at: Millis,
    /// When everything was read.
    pub ended_at: Option<Millis>,
}

impl Rows {
    /// A lane's backfill, if it was made with one.
    pub fn backfill(&self, lane: LaneNo) -> Result<Option<Backfill>> {
        self.get(Table::Backfills, Key::lane(lane))
    }
}

impl Tx<'_> {
    /// Begins the backfill of a lane whose subscription begins at `from`.
    pub fn begin_backfill(&mut self, lane: LaneNo, from: Seq) -> Result<Backfill> {
        let started_at = self.now();
        let begun =
            Backfill { from, connection: None, after: None, written: 0, refused: 0, started_at, ended_at: None };
        self.put_backfill(lane, &begun)?;
        Ok(begun)
    }

    /// Notes how far a lane's backfill is.
    pub fn put_backfill(&mut self, lane: LaneNo, backfill: &Backfill) -> Result<()> {
        self.put(Table::Backfills, Key::lane(lane), backfill)
    }
}
