//! Backfills: how far the present records have been written for a subscription that began with them.
//!
//! Always true: a lane has at most one, made in the commit that makes its subscription; it goes with its lane. Not here:
//! which records are written, and when (`actors`).

use serde::{Deserialize, Serialize};

use super::codec;
use super::keys::Key;
use super::rows::Rows;
use super::tables::Table;
use super::tx::Tx;
use crate::domain::id::{ConnectionId, LaneNo, Seq, WorkspaceNo};
use crate::domain::time::Millis;
use crate::error::Result;

/// One subscription's start with the records that were there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    pub workspace: WorkspaceNo,
    /// The position of the log at which the subscription began: changes from there on come as events.
    pub from: Seq,
    pub state: BackfillState,
    /// Records so far.
    pub written: u64,
    pub started_at: Millis,
    /// When the last one was handed over.
    pub ended_at: Option<Millis>,
}

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackfillState {
    /// All connections, collections and records before these are done; None: none yet.
    Running {
        connection: Option<ConnectionId>,
        collection: Option<String>,
        record: Option<[u8; 16]>,
    },
    Done,
}

impl BackfillState {
    /// Before the first record.
    pub const BEGUN: Self = Self::Running { connection: None, collection: None, record: None };
}

fn key(lane: LaneNo) -> Key {
    Key::lane(lane)
}

impl Rows {
    /// A lane's backfill, if its subscription began with one.
    pub fn backfill(&self, lane: LaneNo) -> Result<Option<Backfill>> {
        self.get(Table::Backfills, key(lane))
    }

    /// The lanes whose backfill is not done, at most `limit`.
    pub fn running_backfills(&self, limit: usize) -> Result<Vec<LaneNo>> {
        let mut lanes = Vec::new();
        self.walk_prefix(Table::Backfills, &Key::new(), |key, value| {
            let backfill: Backfill = codec::decode(value)?;
            if backfill.state != BackfillState::Done {
                lanes.push(LaneNo(u32::from_be_bytes(codec::fixed("backfills", key)?)));
            }
            Ok(lanes.len() < limit)
        })?;
        Ok(lanes)
    }
}

impl Tx<'_> {
    /// Begins the backfill of a lane whose subscription begins at `from`.
    pub fn begin_backfill(&mut self, lane: LaneNo, workspace: WorkspaceNo, from: Seq) -> Result<Backfill> {
        let (state, started_at) = (BackfillState::BEGUN, self.now());
        let begun = Backfill { workspace, from, state, written: 0, started_at, ended_at: None };
        self.put_backfill(lane, &begun)?;
        Ok(begun)
    }

    /// Writes how far it has come.
    pub fn put_backfill(&mut self, lane: LaneNo, backfill: &Backfill) -> Result<()> {
        self.put(Table::Backfills, key(lane), backfill)
    }
}
