//! Erasures: the jobs, and when something of a connection was erased.
//!
//! Always true: a job that has not ended is among the live ones; how far it is changes in the commits that erase. Not here:
//! what is erased (`erase`), how it leaves the disk (`scrub`).

use super::codec;
use super::keys::{self, Key};
use super::pulls::ERASED;
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::erasure::Erasure;
use crate::domain::id::{ConnectionId, ErasureId, WorkspaceNo};
use crate::domain::time::Millis;
use crate::error::Result;

fn key(workspace: WorkspaceNo, id: ErasureId) -> Key {
    Key::workspace(workspace).bytes(&id.0)
}

impl Rows {
    /// The erasure with that id in that workspace.
    pub fn erasure(&self, workspace: WorkspaceNo, id: ErasureId) -> Result<Option<Erasure>> {
        self.get(Table::Erasures, key(workspace, id))
    }

    /// A workspace's erasures before `before`, newest first, at most `limit`.
    pub fn erasures(&self, workspace: WorkspaceNo, before: Option<ErasureId>, limit: usize) -> Result<Vec<Erasure>> {
        let prefix = Key::workspace(workspace);
        let end = before.map_or_else(|| prefix.clone().end(), |id| key(workspace, id).as_ref().to_vec());
        let mut all = Vec::new();
        self.walk(Table::Erasures, prefix.as_ref(), &end, Walk::Backward, |_, value| {
            all.push(codec::decode(value)?);
            Ok(all.len() < limit)
        })?;
        Ok(all)
    }

    /// The first `limit` erasures of the node that have not ended.
    pub fn live_erasures(&self, limit: usize) -> Result<Vec<(WorkspaceNo, ErasureId)>> {
        let mut all = Vec::new();
        self.walk(Table::ErasuresLive, &[], &[u8::MAX; 32], Walk::Forward, |key, _| {
            let workspace = codec::fixed("erasures", key.get(..4).unwrap_or_default())?;
            let id = codec::fixed("erasures", key.get(4..).unwrap_or_default())?;
            all.push((WorkspaceNo(u32::from_be_bytes(workspace)), ErasureId(id)));
            Ok(all.len() < limit)
        })?;
        Ok(all)
    }

    /// How many erasures of a workspace have not ended; counted up to `limit`.
    pub fn live_erasures_of(&self, workspace: WorkspaceNo, limit: usize) -> Result<usize> {
        let mut count = 0;
        self.walk_prefix(Table::ErasuresLive, &Key::workspace(workspace), |_, _| {
            count += 1;
            Ok(count < limit)
        })?;
        Ok(count)
    }

    /// When something of the connection was last erased.
    pub fn erased_at(&self, connection: ConnectionId) -> Result<Option<Millis>> {
        let found = self.raw(Table::Connections, Key::owner(&connection.0).u8(ERASED))?;
        Ok(found.and_then(|bytes| keys::number_at(&bytes, 0)).map(Millis))
    }
}

impl Tx<'_> {
    /// Puts an erasure, new or further on.
    pub fn put_erasure(&mut self, erasure: &Erasure) -> Result<()> {
        let key = key(erasure.workspace, erasure.id);
        if erasure.is_live() {
            self.put_raw(Table::ErasuresLive, &key, &[])?;
        } else {
            self.delete(Table::ErasuresLive, &key)?;
        }
        self.put(Table::Erasures, key, erasure)
    }

    /// Something of the connection is erased in this commit.
    pub fn note_erased(&mut self, connection: ConnectionId) -> Result<()> {
        let now = self.now();
        self.put_raw(Table::Connections, Key::owner(&connection.0).u8(ERASED), &now.0.to_be_bytes())
    }

    /// Forgets a workspace's erasures and its audit log: it is deleted.
    pub fn drop_erasures(&mut self, workspace: WorkspaceNo) -> Result<()> {
        for table in [Table::Erasures, Table::ErasuresLive, Table::Audit] {
            self.delete_prefix(table, &Key::workspace(workspace))?;
        }
        Ok(())
    }
}
