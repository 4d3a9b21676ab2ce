//! Numbers that stand for lanes and workspaces in keys.
//!
//! Always true: a number is never given twice, so a key that outlives its owner leads to nobody else. Not here: the way
//! from a number back to its owner (`registry`).

use super::codec;
use super::tables::Table;
use super::tx::Tx;
use crate::domain::id::{LaneNo, WorkspaceNo};
use crate::error::{Error, Result};

impl Tx<'_> {
    /// The next lane number: never used before. Once per commit, since a commit does not see what it writes.
    pub fn next_lane(&mut self) -> Result<LaneNo> {
        Ok(LaneNo(self.next_number(b"lane")?))
    }

    /// The next workspace number: never used before; 0 is the default workspace. Once per commit.
    pub fn next_workspace(&mut self) -> Result<WorkspaceNo> {
        Ok(WorkspaceNo(self.next_number(b"workspace")?))
    }

    fn next_number(&mut self, name: &[u8]) -> Result<u32> {
        let last = match self.raw(Table::Meta, name)? {
            Some(bytes) => u32::from_be_bytes(codec::fixed("meta", &bytes)?),
            None => 0,
        };
        let next = last.checked_add(1).ok_or_else(|| Error::internal("out of numbers"))?;
        self.put_raw(Table::Meta, name, &next.to_be_bytes())?;
        Ok(next)
    }
}
