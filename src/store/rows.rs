//! Reading: what the database holds now. The same functions serve the store's callers and a commit under way.
//!
//! Always true: nothing here writes. A read may hit the disk, so it does not run on a thread that serves requests
//! (`Store::blocking`).

use std::sync::atomic::AtomicU64;

use rocksdb::{DB, Direction, IteratorMode, ReadOptions};
use serde::de::DeserializeOwned;

use super::codec;
use super::keys::Key;
use super::tables::Table;
use super::vault::Vault;
use crate::error::{Error, Result};

/// The database and the vault, for reading.
pub struct Rows {
    pub(super) db: DB,
    pub(super) vault: Vault,
    /// Bytes of webhooks that no script has judged yet: see `inbox`.
    pub(super) unverified: AtomicU64,
}

/// Which way a range is walked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    Forward,
    Backward,
}

impl Rows {
    pub(super) fn new(db: DB, vault: Vault) -> Self {
        Self { db, vault, unverified: AtomicU64::new(0) }
    }

    pub(super) fn cf(&self, table: Table) -> Result<&rocksdb::ColumnFamily> {
        self.db.cf_handle(table.name()).ok_or_else(|| Error::internal(format!("no column family {}", table.name())))
    }

    pub(super) fn raw(&self, table: Table, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        self.db.get_cf(self.cf(table)?, key).map_err(Error::internal)
    }

    pub(super) fn get<T: DeserializeOwned>(&self, table: Table, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        match self.db.get_pinned_cf(self.cf(table)?, key).map_err(Error::internal)? {
            Some(bytes) => codec::decode(&bytes).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn open_sealed(&self, owner: &[u8], table: Table, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        match self.raw(table, key.as_ref())? {
            Some(sealed) => self.vault.open(owner, table, key.as_ref(), &sealed).map(Some),
            None => Ok(None),
        }
    }

    /// Calls `each` with the rows of `from..to` (keys) until it answers false.
    pub(super) fn walk(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        walk: Walk,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let mode = match walk {
            Walk::Forward => IteratorMode::From(from, Direction::Forward),
            Walk::Backward => IteratorMode::End,
        };
        for row in self.db.iterator_cf_opt(self.cf(table)?, options, mode) {
            let (key, value) = row.map_err(Error::internal)?;
            if !each(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    /// The rows whose keys begin with `prefix`, forward.
    pub(super) fn walk_prefix(
        &self,
        table: Table,
        prefix: &Key,
        each: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        self.walk(table, prefix.as_ref(), &prefix.clone().end(), Walk::Forward, each)
    }
}
