//! Is the store whole? Reads every row, so that every block's checksum is checked.
//!
//! Always true: nothing is written. Not here: what to do about damage (restore a backup).

use rocksdb::{IteratorMode, ReadOptions};

use super::tables::Table;
use super::vault::Vault;
use super::{Options, Rows, Store, open_db, upgrade};
use crate::error::{Error, Result};

/// What a whole walk found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The store's version, which is this build's after opening.
    pub version: u32,
    /// Rows and bytes (keys and values) of each table that has any.
    pub tables: Vec<(&'static str, u64, u64)>,
}

impl Store {
    /// Reads everything. It takes as long as reading the files does.
    ///
    /// # Errors
    /// A block whose checksum is wrong, by the table it is in.
    pub fn health(&self) -> Result<Health> {
        let mut tables = Vec::new();
        for table in Table::ALL {
            let mut options = ReadOptions::default();
            options.set_verify_checksums(true);
            // A walk over everything must not push out what is in use.
            options.fill_cache(false);
            let (mut rows, mut bytes) = (0, 0);
            for row in self.db.iterator_cf_opt(self.cf(*table)?, options, IteratorMode::Start) {
                let (key, value) = row.map_err(|error| {
                    let mut told = Error::internal(error);
                    told.message = format!("table {} is damaged: restore a backup", table.name());
                    told
                })?;
                rows += 1;
                bytes += (key.len() + value.len()) as u64;
            }
            if rows > 0 {
                tables.push((table.name(), rows, bytes));
            }
        }
        Ok(Health { version: upgrade::current(), tables })
    }
}

/// The version of the store in the folder, and the one that this build writes. Nothing is upgraded.
///
/// # Errors
/// The store cannot be opened, or is damaged.
pub fn versions(options: &Options) -> Result<(u32, u32)> {
    // No row is decrypted here, so any key does.
    let rows = Rows { db: open_db(options)?, vault: Vault::new(&[0; 32]) };
    Ok((upgrade::found(&rows)?.unwrap_or_else(upgrade::current), upgrade::current()))
}
