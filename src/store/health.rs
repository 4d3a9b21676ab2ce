//! Looking at a store that nobody uses: is it whole, and what would the next start do to it?
//!
//! Always true: nothing is written, so a store of an older version keeps it. Not here: what to do about damage.

use std::path::Path;

use rocksdb::{IteratorMode, ReadOptions};

use super::tables::Table;
use super::vault::Vault;
use super::{Options, Paused, Rows, open, upgrade};
use crate::error::Result;

/// What a whole walk found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub version: u32,
    /// It was restored, and waits.
    pub paused: Option<Paused>,
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
    let rows = Rows::new(open::look(options)?, Vault::new(master_key));
    check_vital(&rows, &options.path)?;
    let version = upgrade::plan(&rows, &options.path)?.found;
    upgrade::check_key(&rows)?;
    let mut tables = Vec::new();
    for table in Table::ALL {
        let (count, bytes) = read_all(&rows, *table, &options.path)?;
        if count > 0 {
            tables.push((table.name(), count, bytes));
        }
    }
    Ok(Health { version, paused: rows.paused()?, tables, bytes: rows.bytes() })
}

/// What a node cannot do without, and reads at its start anyway. The rest is checked when it is read, and by `inspect`.
const VITAL: &[Table] = &[Table::Meta, Table::Objects, Table::ByWorkspace, Table::Unique, Table::Links, Table::Secrets];

/// Checks what a node cannot do without.
pub(super) fn check_vital(rows: &Rows, path: &Path) -> Result<()> {
    VITAL.iter().try_for_each(|table| read_all(rows, *table, path).map(|_| ()))
}

/// Rows and bytes of a table, all of them read.
fn read_all(rows: &Rows, table: Table, path: &Path) -> Result<(u64, u64)> {
    // A table that this build added is made by the next start.
    let Some(family) = rows.db.cf_handle(table.name()) else { return Ok((0, 0)) };
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    // A walk over everything must not push out what is in use.
    options.fill_cache(false);
    let (mut count, mut bytes) = (0, 0);
    for row in rows.db.iterator_cf_opt(family, options, IteratorMode::Start) {
        let (key, value) = row.map_err(|error| open::damaged(path, error))?;
        count += 1;
        bytes += (key.len() + value.len()) as u64;
    }
    Ok((count, bytes))
}

/// What the next start would do to the store in the folder.
///
/// # Errors
/// A node uses the store, it is of a newer version, or it is damaged.
pub fn upgrade_plan(options: &Options) -> Result<upgrade::Plan> {
    // No row is decrypted here, so any key does.
    let rows = Rows::new(open::look(options)?, Vault::new(&[0; 32]));
    upgrade::plan(&rows, &options.path)
}
