//! Looking at a store that nobody uses: is it whole, and what would the next start do to it?
//!
//! Always true: nothing is written, so a store of an older version keeps it. Not here: what to do about damage.

use rocksdb::{IteratorMode, ReadOptions};

use super::tables::Table;
use super::vault::Vault;
use super::{Options, Rows, open, upgrade};
use crate::error::{Error, Result};

/// What a whole walk found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub version: u32,
    /// Rows and bytes (keys and values) of each table that has any.
    pub tables: Vec<(&'static str, u64, u64)>,
    /// Bytes of files and of what is still in the log.
    pub bytes: u64,
}

/// Reads everything, so that every block's checksum is checked. It takes as long as reading the files does.
///
/// # Errors
/// A node uses the store, the key does not open it, it is of a newer version, or a file of it is damaged.
pub fn inspect(options: &Options, master_key: &[u8; 32]) -> Result<Health> {
    let rows = Rows { db: open::look(options)?, vault: Vault::new(master_key) };
    let version = upgrade::plan(&rows, &options.path)?.found;
    upgrade::check_key(&rows)?;
    let mut tables = Vec::new();
    for table in Table::ALL {
        // A table that a newer build added is made by the next start.
        let Some(family) = rows.db.cf_handle(table.name()) else { continue };
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        // A walk over everything must not push out what is in use.
        options.fill_cache(false);
        let (mut count, mut bytes) = (0, 0);
        for row in rows.db.iterator_cf_opt(family, options, IteratorMode::Start) {
            let (key, value) = row.map_err(|error| {
                let mut told = Error::internal(error);
                told.message = format!("table {} is damaged: restore a backup", table.name());
                told
            })?;
            count += 1;
            bytes += (key.len() + value.len()) as u64;
        }
        if count > 0 {
            tables.push((table.name(), count, bytes));
        }
    }
    Ok(Health { version, tables, bytes: rows.bytes() })
}

/// What the next start would do to the store in the folder.
///
/// # Errors
/// A node uses the store, it is of a newer version, or it is damaged.
pub fn upgrade_plan(options: &Options) -> Result<upgrade::Plan> {
    // No row is decrypted here, so any key does.
    let rows = Rows { db: open::look(options)?, vault: Vault::new(&[0; 32]) };
    upgrade::plan(&rows, &options.path)
}
