//! The last seen unified record of everything, for diffing.
//!
//! Always true: a row's key is (connection, collection, record id), so a collection is one sorted range and a scan is
//! compared with it in one walk. Not here: what a difference means (`domain::snapshot`).

use super::codec;
use super::keys::{self, Key};
use super::rows::{Rows, Walk};
use super::tables::Table;
use super::tx::Tx;
use crate::domain::connection::Connection;
use crate::domain::id::ConnectionId;
use crate::domain::snapshot::SnapshotRow;
use crate::error::Result;

/// Bytes of a row beside its texts, at most.
const ROW_BYTES_BESIDE: usize = 160;

impl Rows {
    /// The row of one record.
    pub fn snapshot(
        &self,
        connection: ConnectionId,
        collection: &str,
        record: &[u8; 16],
    ) -> Result<Option<SnapshotRow>> {
        self.get(Table::Snapshots, keys::snapshot(connection, collection, record))
    }

    /// The rows of many records, in the order asked.
    pub fn snapshot_rows(
        &self,
        connection: ConnectionId,
        collection: &str,
        records: &[[u8; 16]],
    ) -> Result<Vec<Option<SnapshotRow>>> {
        let wanted: Vec<_> = records.iter().map(|r| keys::snapshot(connection, collection, r)).collect();
        self.db
            .batched_multi_get_cf(self.cf(Table::Snapshots)?, wanted.iter(), false)
            .into_iter()
            .map(|row| row.map_err(crate::error::Error::internal)?.map(|bytes| codec::decode(&bytes)).transpose())
            .collect()
    }

    /// Whether the collection has no row at all, tombstones included.
    pub fn has_no_snapshot(&self, connection: ConnectionId, collection: &str) -> Result<bool> {
        let prefix = Key::owner(&connection.0).bytes(&keys::collection(collection));
        let mut is_empty = true;
        self.walk_prefix(Table::Snapshots, &prefix, |_, _| {
            is_empty = false;
            Ok(false)
        })?;
        Ok(is_empty)
    }

    /// Walks a collection's rows in the order of their record ids, from after `after`, until `each` answers false.
    pub fn walk_snapshot(
        &self,
        connection: ConnectionId,
        collection: &str,
        after: Option<&[u8; 16]>,
        mut each: impl FnMut([u8; 16], SnapshotRow) -> Result<bool>,
    ) -> Result<()> {
        let prefix = Key::owner(&connection.0).bytes(&keys::collection(collection));
        let from = match after {
            Some(record) => prefix.clone().bytes(record).u8(0).as_ref().to_vec(),
            None => prefix.as_ref().to_vec(),
        };
        self.walk(Table::Snapshots, &from, &prefix.clone().end(), Walk::Forward, |key, value| {
            let record = codec::fixed("snapshots", key.get(16..).unwrap_or_default())?;
            each(record, codec::decode(value)?)
        })
    }
}

impl Tx<'_> {
    /// Writes a record's row.
    pub fn put_snapshot(
        &mut self,
        connection: ConnectionId,
        collection: &str,
        record: &[u8; 16],
        row: &SnapshotRow,
    ) -> Result<()> {
        let bytes = codec::encode_long(row, row.fields.len() + row.remote_id.len() + ROW_BYTES_BESIDE)?;
        self.put_raw(Table::Snapshots, keys::snapshot(connection, collection, record), &bytes)
    }

    /// Erases a record's row.
    pub fn delete_snapshot(&mut self, connection: ConnectionId, collection: &str, record: &[u8; 16]) -> Result<()> {
        self.delete(Table::Snapshots, keys::snapshot(connection, collection, record))
    }

    /// Erases a connection and everything that it owns. Events that were made of it stay until their time.
    pub fn erase_connection(&mut self, connection: &Connection) -> Result<()> {
        self.delete_object(connection)?;
        let owner = Key::owner(&connection.id.0);
        for table in [Table::Snapshots, Table::Connections, Table::Pulls] {
            self.delete_prefix(table, &owner)?;
        }
        self.delete_inbox(&connection.id.0)
    }
}
